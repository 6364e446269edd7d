"""Chunks that were encoded anew, in a file beside Kerchunk references: what reads them, and what is there when."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from obstore.store import MemoryStore

import virtualchunks as vc
from virtualchunks.errors import LimitExceededError, NotGrantedError, TargetExistsError
from virtualchunks.writers.kerchunk import sidefile, write_json, write_kerchunk
from virtualchunks.xarray.dataset import references_of
from virtualchunks_parsers.kerchunk import KerchunkParser

pytest.importorskip("kerchunk")
pytestmark = [
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),  # fsspec reads Parquet with fastparquet
    pytest.mark.filterwarnings("ignore:.*fastparquet.*:DeprecationWarning"),
]
MOST, FEWER = {"compression": 1}, {"compression": 1, "shuffle": True}
MATERIALISE: dict[str, Any] = {"heterogeneous": "materialise"}


def write(folder: Path, number: int, filters: dict[str, Any] = MOST) -> Path:
    path = folder / f"{number}.nc"
    with h5py.File(path, "w") as file:
        values = np.random.default_rng(number).random((4, 50))
        file.create_dataset("v", data=values, chunks=(1, 25), **filters)
        file["time"] = np.arange(4 * number, 4 * number + 4)
        file["time"].make_scale("time")
        file["x"] = np.arange(50)
        file["x"].make_scale("x")
        for axis, name in enumerate(("time", "x")):
            file["v"].dims[axis].attach_scale(file[name])
    return path


@pytest.fixture
def archive(tmp_path):
    """Three files, the last of which is compressed otherwise, so that 8 of 24 chunks are encoded anew."""
    folder = tmp_path / "archive"
    folder.mkdir()
    return [write(folder, number, FEWER if number == 2 else MOST) for number in range(3)]


@pytest.fixture(autouse=True)
def nothing_inline(monkeypatch):
    monkeypatch.setattr(sidefile, "MOST_INLINE_BYTES", 100)


def expected(paths: list[Path]) -> np.ndarray:
    parts = []
    for path in paths:
        with h5py.File(path) as file:
            parts.append(file["v"][...])
    return np.concatenate(parts)


def by_fsspec(target: Path, format: str) -> xr.Dataset:
    options = {"storage_options": {"remote_protocol": "file"}} if format == "parquet" else {}
    return xr.open_dataset(str(target), engine="kerchunk", **options).load()


def by_us(target: Any, registry: Any) -> np.ndarray:
    with vc.open_virtual_dataset(target, registry, "kerchunk", loadable_variables=[]) as cube:
        return cube.virtual.open(registry=registry)["v"].values


def side_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.chunks"))


@pytest.mark.parametrize("format", ["json", "parquet"])
def test_values_are_those_of_the_files(tmp_path, archive, format):
    cube = vc.open_virtual_mfdataset(archive)
    target = tmp_path / f"refs.{format}"
    cube.virtual.to_kerchunk(target, format=format, **MATERIALISE)
    [side] = side_files(tmp_path)
    assert side.parent == (tmp_path if format == "json" else target)
    assert side.name.startswith("refs.json." if format == "json" else "")
    values = expected(archive)
    np.testing.assert_array_equal(by_fsspec(target, format)["v"], values)
    registry = vc.ObjectStoreRegistry({f"{tmp_path.as_uri()}/": None})
    np.testing.assert_array_equal(by_us(target, registry), values)
    store = KerchunkParser()(str(target), registry)
    assert set(store.group.arrays["v"].manifest.iter_nonempty_paths()) == {
        archive[0].as_uri(), archive[1].as_uri(), side.as_uri()
    }  # fmt: skip
    only = vc.ObjectStoreRegistry({f"{tmp_path.as_uri()}/archive/": None}).grant(target.as_uri())
    if format == "json":
        with pytest.raises(NotGrantedError):
            by_us(target, only)


def test_each_chunk_is_referred_to_once_and_all_of_the_file_is(tmp_path, archive):
    vc.open_virtual_mfdataset(archive).virtual.to_kerchunk(tmp_path / "refs.json", format="json", **MATERIALISE)
    refs = json.loads((tmp_path / "refs.json").read_text())["refs"]
    [side] = side_files(tmp_path)
    spans = sorted(tuple(value[1:]) for value in refs.values() if isinstance(value, list) and value[0] == side.as_uri())
    ends = np.cumsum([length for _, length in spans])
    assert [start for start, _ in spans] == [0, *ends[:-1]]
    assert ends[-1] == side.stat().st_size
    assert len(spans) == 8


@pytest.mark.parametrize("format", ["json", "parquet"])
def test_few_chunks_are_inline(tmp_path, archive, format, monkeypatch):
    monkeypatch.setattr(sidefile, "MOST_INLINE_BYTES", 1 << 20)
    target = tmp_path / f"refs.{format}"
    vc.open_virtual_mfdataset(archive).virtual.to_kerchunk(target, format=format, **MATERIALISE)
    assert side_files(tmp_path) == []
    np.testing.assert_array_equal(by_fsspec(target, format)["v"], expected(archive))


@pytest.mark.parametrize("format", ["json", "parquet"])
def test_object_stores(archive, format):
    """The side file is put before the references; the references name it by the URL of its prefix."""
    store = MemoryStore()
    registry = vc.ObjectStoreRegistry({"s3://bucket/": store}).grant(*(path.as_uri() for path in archive))
    cube = vc.open_virtual_mfdataset(archive)
    url = f"s3://bucket/cubes/refs.{format}"
    for _ in range(2):  # the second writing replaces the first
        cube.virtual.to_kerchunk(url, format=format, registry=registry, **MATERIALISE)
    times = {entry["path"]: entry["last_modified"] for batch in store.list() for entry in batch}
    [key] = [key for key in times if key.endswith(".chunks")]
    assert key.startswith(f"cubes/refs.{format}")
    assert times[key] <= times["cubes/refs.json" if format == "json" else "cubes/refs.parquet/.zmetadata"]
    array = KerchunkParser()(url, registry).group.arrays["v"]
    assert f"s3://bucket/{key}" in set(array.manifest.iter_nonempty_paths())
    np.testing.assert_array_equal(by_us(url, registry), expected(archive))


def test_where_nothing_can_refer_to_a_side_file(archive, monkeypatch):
    group = vc.ManifestGroup({"v": references_of(vc.open_virtual_mfdataset(archive)["v"])})
    registry = vc.ObjectStoreRegistry().grant(*archive)
    memory = MemoryStore()
    refs = write_kerchunk(group, registry=registry, **MATERIALISE)["refs"]
    write_json(group, "refs.json", store=memory, sources=registry, **MATERIALISE)
    assert json.loads(bytes(memory.get("refs.json").bytes()))["refs"] == refs
    monkeypatch.setattr("virtualchunks.writers.kerchunk.references.MOST_ENCODED_BYTES", 1000)
    for attempt in (
        lambda: write_kerchunk(group, registry=registry, **MATERIALISE),
        lambda: write_json(group, "more.json", store=memory, sources=registry, **MATERIALISE),
    ):
        with pytest.raises(LimitExceededError, match=r"'v' reads 8 of its 24 chunks .* a dictionary, and what store="):
            attempt()
    assert [entry["path"] for batch in memory.list() for entry in batch] == ["refs.json"]


@pytest.mark.parametrize("format", ["json", "parquet"])
def test_references_that_may_not_be_replaced_get_no_side_file(tmp_path, archive, format):
    target = tmp_path / f"refs.{format}"
    vc.open_virtual_mfdataset(archive[:2]).virtual.to_kerchunk(target, format=format)
    with pytest.raises(TargetExistsError):
        vc.open_virtual_mfdataset(archive).virtual.to_kerchunk(target, format=format, mode="w-", **MATERIALISE)
    assert side_files(tmp_path) == []


@pytest.mark.parametrize("format", ["json", "parquet"])
def test_other_contents_get_another_name_so_that_who_reads_the_old_references_finds_the_old_chunks(
    tmp_path, archive, format
):
    target = tmp_path / f"refs.{format}"
    vc.open_virtual_mfdataset(archive).virtual.to_kerchunk(target, format=format, **MATERIALISE)
    before = side_files(tmp_path)
    write(tmp_path / "archive", 3, FEWER)
    more = [*archive, tmp_path / "archive" / "3.nc"]
    vc.open_virtual_mfdataset([*more[:2], more[3]]).virtual.to_kerchunk(target, format=format, **MATERIALISE)
    after = side_files(tmp_path)
    assert (before[0] in after) == (format == "json")  # a folder is replaced whole
    assert len(set(after) - set(before)) == 1
    np.testing.assert_array_equal(by_fsspec(target, format)["v"], expected([*more[:2], more[3]]))


@pytest.mark.parametrize("format", ["json", "parquet"])
def test_arrays_that_are_added_leave_the_side_files_of_others(tmp_path, archive, format):
    target = tmp_path / f"refs.{format}"
    cube = vc.open_virtual_mfdataset(archive)
    cube.virtual.to_kerchunk(target, format=format, **MATERIALISE)
    other = cube[["v"]].rename(v="w").isel(time=slice(4, 12))
    other.drop_vars("time").rename(time="later").virtual.to_kerchunk(target, format=format, mode="a", **MATERIALISE)
    found = by_fsspec(target, format)
    np.testing.assert_array_equal(found["v"], expected(archive))
    np.testing.assert_array_equal(found["w"], expected(archive)[4:])


def test_appending_encodes_as_the_stored_array_is_encoded(tmp_path, archive):
    target = tmp_path / "refs.parquet"
    vc.open_virtual_mfdataset(archive[:2]).virtual.to_kerchunk(target, format="parquet")
    last = vc.open_virtual_dataset(archive[2])
    options: dict[str, Any] = {"format": "parquet", "append_dim": "time"}
    with pytest.raises(vc.errors.CombineError, match=r"'v' does not continue .*filters.*'materialise'.* 8 chunks \("):
        last.virtual.to_kerchunk(target, **options)
    last.virtual.to_kerchunk(target, **options, **MATERIALISE)
    [side] = side_files(tmp_path)
    assert side.parent == target
    np.testing.assert_array_equal(by_fsspec(target, "parquet")["v"], expected(archive))
    registry = vc.ObjectStoreRegistry({f"{tmp_path.as_uri()}/": None})
    np.testing.assert_array_equal(by_us(target, registry), expected(archive))


@pytest.mark.parametrize("format", ["json", "parquet"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_killed_at_any_moment_it_leaves_no_reference_to_a_missing_file(tmp_path, archive, format):
    cube = vc.open_virtual_mfdataset(archive)
    target = tmp_path / f"refs.{format}"
    vc.open_virtual_mfdataset(archive[:1]).virtual.to_kerchunk(target, format=format)
    registry = vc.ObjectStoreRegistry({f"{tmp_path.as_uri()}/": None})
    seen = set()
    for moment in range(12):
        pid = os.fork()
        if pid == 0:
            _die_at(moment, lambda: cube.virtual.to_kerchunk(target, format=format, **MATERIALISE))
        _, status = os.waitpid(pid, 0)
        assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) == signal.SIGKILL
        if target.exists():
            values = by_us(target, registry)
            seen.add(len(values))
            np.testing.assert_array_equal(values, expected(archive)[: len(values)])
        if not os.WIFSIGNALED(status):
            break
    assert seen == {4, 12}


def _die_at(moment: int, write: Any) -> None:
    """End this process in a way that nothing can catch, at the so many-eth change of names in the file system."""
    left = [moment]

    def counting(change: Any) -> Any:
        def counted(*args: Any) -> None:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            change(*args)

        return counted

    for name in ("replace", "rename"):
        setattr(os, name, counting(getattr(os, name)))
    write()
    os._exit(0)
