"""Commits: whole or not at all, whoever else writes, and whatever happens to the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import icechunk
import numpy as np
import pytest
import xarray as xr
from icechunkrepos import commit as write_and_commit
from icechunkrepos import month, numbers, on_disk, opened, repository, zarr_group

import virtualchunks as vc
from virtualchunks import ManifestGroup
from virtualchunks.errors import CombineError, UnsupportedFeatureError, WriteConflictError, WriteError
from virtualchunks.urls import as_url
from virtualchunks.writers.icechunk import already_present, commit, write_icechunk, write_many


@pytest.fixture(autouse=True)
def quiet():
    icechunk.set_logs_filter("error")


def months(folder: Path, count: int) -> list[tuple[xr.Dataset, xr.Dataset]]:
    return [month(folder, 4, f"2000-01-{4 * number + 1:02}", chunk=2) for number in range(count)]


def joined(parts: list[tuple[xr.Dataset, xr.Dataset]]) -> xr.Dataset:
    plain = [part for _, part in parts]
    return xr.concat(plain, "time", data_vars="minimal", coords="minimal", compat="override", join="exact")


def messages(repo: icechunk.Repository) -> list[str]:
    return [snapshot.message for snapshot in repo.ancestry(branch="main")][-2::-1]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1, ["in: 1", "in: 2", "in: 3", "in: 4", "in: 5"]),
        (8, ["in: 1 to 2", "in: 3 to 4", "in: 5"]),
        (1000, ["in: 1 to 5"]),
    ],
)
def test_batches(tmp_path, limit, expected):
    parts = months(tmp_path, 5)
    repo = repository(tmp_path)
    taken = (made for made, _ in parts)
    snapshots = write_many(repo, taken, append_dim="time", message="in", references_per_commit=limit, group="g")
    assert messages(repo) == expected
    assert snapshots == [snapshot.id for snapshot in repo.ancestry(branch="main")][-2::-1]
    xr.testing.assert_identical(opened(repo, group="g"), joined(parts))


def test_going_on_after_an_error(tmp_path):
    parts = months(tmp_path, 4)
    repo = repository(tmp_path)

    def broken():
        yield parts[0][0]
        yield parts[1][0]
        raise RuntimeError("the archive is away")

    with pytest.raises(RuntimeError):
        write_many(repo, broken(), append_dim="time", references_per_commit=1)
    xr.testing.assert_identical(opened(repo), joined(parts[:2]))
    everything = [made for made, _ in parts]
    with pytest.raises(CombineError, match="stored already"):
        write_many(repo, everything, append_dim="time")
    assert len(write_many(repo, everything, append_dim="time", on_duplicate="skip")) == 1
    xr.testing.assert_identical(opened(repo), joined(parts))
    assert write_many(repo, everything, append_dim="time", on_duplicate="skip") == []


def test_a_commit_of_nothing(tmp_path):
    repo = repository(tmp_path)
    session = repo.writable_session("main")
    assert commit(session, "nothing") == repo.lookup_branch("main")
    assert commit(session, "nothing", rebase=True) == repo.lookup_branch("main")


def grids(folder: Path, repo: icechunk.Repository) -> ManifestGroup:
    part = ManifestGroup({"v": on_disk(folder / "part.bin", numbers((4, 4), start=100), (2, 2))})
    write_and_commit(repo, ManifestGroup({"v": on_disk(folder / "v.bin", numbers((8, 4)), (2, 2))}))
    return part


def test_two_writers_of_different_chunks(tmp_path):
    repo = repository(tmp_path)
    part = grids(tmp_path, repo)
    one, two = repo.writable_session("main"), repo.writable_session("main")
    write_icechunk(part, one.store, region={"time": slice(0, 4)})
    write_icechunk(part, two.store, region={"time": slice(4, 8)})
    first = commit(one, "one", metadata={"by": "one"})
    assert repo.lookup_snapshot(first).metadata == {"by": "one"}
    with pytest.raises(WriteConflictError, match=rf"'main' after this session began .*{first}.*rebase=True"):
        commit(two, "two")
    assert repo.lookup_branch("main") == first
    second = commit(two, "two", rebase=True)
    assert repo.lookup_branch("main") == second
    np.testing.assert_array_equal(zarr_group(repo)["v"][:], np.concatenate([numbers((4, 4), start=100)] * 2))


def test_two_writers_of_the_same_chunks(tmp_path):
    parts = months(tmp_path, 3)
    repo = repository(tmp_path)
    write_and_commit(repo, parts[0][0])
    one, two = repo.writable_session("main"), repo.writable_session("main")
    write_icechunk(parts[1][0], one.store, append_dim="time")
    write_icechunk(parts[2][0], two.store, append_dim="time")
    first = commit(one, "one")
    with pytest.raises(WriteConflictError, match=r"/v \(.*Zarr metadata double update.*new session"):
        commit(two, "two", rebase=True)
    assert repo.lookup_branch("main") == first
    xr.testing.assert_identical(opened(repo), joined(parts[:2]))


@pytest.mark.parametrize("rebase", [True, False])
def test_a_batch_is_written_again_where_somebody_appended_meanwhile(tmp_path, rebase):
    parts = months(tmp_path, 4)
    repo = repository(tmp_path)
    write_and_commit(repo, parts[0][0])

    def interrupted():
        yield parts[2][0]
        write_and_commit(repo, parts[1][0], append_dim="time")
        yield parts[3][0]

    if rebase:
        assert len(write_many(repo, interrupted(), append_dim="time", rebase=True)) == 1
        xr.testing.assert_identical(opened(repo), joined(parts))
    else:
        with pytest.raises(WriteConflictError, match="rebase=True"):
            write_many(repo, interrupted(), append_dim="time")
        xr.testing.assert_identical(opened(repo), joined(parts[:2]))


def test_what_is_referred_to(tmp_path):
    parts = months(tmp_path, 3)
    repo = repository(tmp_path)
    session = repo.writable_session("main")
    write_icechunk(parts[0][0], session.store, group="a")
    assert already_present(session.store, [tmp_path / "2000-01-01.bin"]) == [tmp_path / "2000-01-01.bin"]
    session.commit("a")
    repo.create_branch("old", repo.lookup_branch("main"))
    write_and_commit(repo, parts[1][0], group="b")
    paths = [tmp_path / f"2000-01-{day}.bin" for day in ("09", "05", "01")]
    assert already_present(repo, paths) == paths[1:]
    assert already_present(repo, map(as_url, paths), branch="old") == [as_url(paths[2])]
    assert already_present(icechunk.Repository.create(icechunk.in_memory_storage()), paths) == []
    with pytest.raises(UnsupportedFeatureError, match="expected an Icechunk repository"):
        already_present(parts[0], paths)


def test_what_is_referred_to_and_still_the_same(tmp_path):
    paths = [tmp_path / f"{name}.nc" for name in "abc"]
    for path in paths:
        xr.Dataset({"v": ("x", np.arange(4.0))}).to_netcdf(path, engine="netcdf4")
    repo = repository(tmp_path)
    made = xr.concat([vc.open_virtual_dataset(path) for path in paths], "x")
    write_and_commit(repo, made)
    assert already_present(repo, paths, unchanged=True) == paths
    os.utime(paths[1], (4e9, 4e9))
    assert already_present(repo, paths) == paths
    assert already_present(repo, paths, unchanged=True) == [paths[0], paths[2]]
    paths[1].unlink()
    with pytest.raises(WriteError, match="cannot be looked at"):
        already_present(repo, paths, unchanged=True)


def test_a_repository_that_cannot_be_written_to(tmp_path):
    folder = tmp_path / "repo"
    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(folder)))
    tree = ManifestGroup({"v": on_disk(tmp_path / "v.bin", numbers((4, 4)), (2, 2), memory=(0, 1, 2, 3))})
    session = repo.writable_session("main")
    write_icechunk(tree, session.store)
    before = repo.lookup_branch("main")
    snapshots = folder / "snapshots"
    snapshots.rename(folder / "away")
    snapshots.write_bytes(b"no folder")
    with pytest.raises(WriteError, match="refused to commit to the branch 'main'"):
        commit(session, "no")
    snapshots.unlink()
    (folder / "away").rename(snapshots)
    assert repo.lookup_branch("main") == before
    (folder / "chunks").write_bytes(b"no folder")
    session = repo.writable_session("main")
    large = ManifestGroup({"v": on_disk(tmp_path / "v.bin", numbers((400, 4)), (400, 4), memory=(0,))})
    with pytest.raises(WriteError, match=r"Icechunk refused: .*discard_changes"):
        write_icechunk(large, session.store)
    assert not session.has_uncommitted_changes
    write_icechunk(tree, session.store)
    with pytest.raises(WriteError, match=r"Icechunk refused: .*discard_changes"):
        write_icechunk(large, session.store, mode="w")
    assert session.has_uncommitted_changes, "what was there before is the caller's to drop"
    assert repo.lookup_branch("main") == before
    with pytest.raises(WriteError, match="no session to write to the branch 'nope'"):
        write_many(repo, [tree], append_dim="time", branch="nope")
    with pytest.raises(UnsupportedFeatureError, match="at least one"):
        write_many(repo, [tree], append_dim="time", references_per_commit=0)


WRITER = """
import sys
import icechunk
import numpy as np
import virtualchunks as vc
from virtualchunks.writers.icechunk import commit, write_icechunk

icechunk.set_logs_filter("error")
repo = icechunk.Repository.open(icechunk.local_filesystem_storage(sys.argv[1]))
for number in range(1, 200):
    metadata = vc.ArrayMetadata.build(shape=(300, 100), chunks=(1, 1), dtype="<i4", dimension_names=("t", "x"))
    urls = np.full((300, 100), f"file:///data/{number}.nc")
    offsets = np.arange(30_000).reshape(300, 100) * 4
    manifest = vc.ChunkManifest.from_arrays(paths=urls, offsets=offsets, lengths=np.full_like(offsets, 4))
    array = vc.ManifestArray(metadata, manifest)
    session = repo.writable_session("main")
    write_icechunk(vc.ManifestGroup({"v": array}), session.store, mode="w", validate_containers=False)
    commit(session, str(number))
    print(number, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.06, 0.12])
def test_a_writer_that_is_killed_leaves_the_old_or_the_new(tmp_path, delay):
    storage = icechunk.local_filesystem_storage(str(tmp_path / "repo"))
    icechunk.Repository.create(storage)
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "repo")], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    committed = int(writer.stdout.readline())
    time.sleep(delay)
    writer.send_signal(signal.SIGKILL)
    committed = max([committed, *map(int, writer.stdout.read().split())])
    writer.stdout.close()
    writer.wait()
    repo = icechunk.Repository.open(storage)
    found = int(next(iter(repo.ancestry(branch="main"))).message)
    assert found in (committed, committed + 1)
    locations = repo.readonly_session("main").all_virtual_chunk_locations()
    assert len(locations) == 30_000
    assert set(locations) == {f"file:///data/{found}.nc"}
    write_icechunk(
        ManifestGroup({"w": on_disk(tmp_path / "w.bin", numbers((2, 2)), (2, 2))}),
        repo.writable_session("main").store,
        mode="a",
        validate_containers=False,
    )
