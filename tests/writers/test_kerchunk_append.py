"""Adding to stored Kerchunk references: what fsspec and we read afterwards, and what is left when it ends early."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
from obstore.store import LocalStore, MemoryStore

import virtualchunks as vc
from virtualchunks import ArrayMetadata, ChunkManifest, ManifestArray, ManifestGroup
from virtualchunks.errors import (
    CombineError,
    FormatError,
    TargetExistsError,
    UnsupportedFeatureError,
    VirtualChunksError,
    WriteError,
)
from virtualchunks.reading.values import read_values
from virtualchunks.writers.datasets import in_memory_array
from virtualchunks.writers.kerchunk import write_json, write_kerchunk, write_parquet
from virtualchunks_parsers.kerchunk import KerchunkParser

pytestmark = [
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),  # fsspec reads Parquet with fastparquet
    pytest.mark.filterwarnings("ignore:.*fastparquet.*:DeprecationWarning"),
]


def month(start: str, days: int, **attributes: Any) -> xr.Dataset:
    time = pd.date_range(start, periods=days, freq="D")
    values = (time.day_of_year.to_numpy()[:, None, None] * 100 + np.arange(12).reshape(3, 4)).astype("f4")
    return xr.Dataset(
        {"air": (("time", "lat", "lon"), values, {"units": "K", **attributes})},
        coords={"time": time, "lat": [0.0, 1.0, 2.0], "lon": [0.0, 1.0, 2.0, 3.0]},
    )


def opened(folder: Path, dataset: xr.Dataset, chunk: int = 1, **encoding: Any) -> xr.Dataset:
    """Write a month as NetCDF-4 and open it virtually."""
    path = folder / f"{dataset.time.values[0]:.10}-{len(dataset.time)}.nc".replace("-", "")
    calendar = {"units": f"days since {dataset.time.values[0]:.10}", "dtype": "f8"}
    layout = {"chunksizes": (min(chunk, len(dataset.time)), 3, 4), "zlib": True, "_FillValue": None, **encoding}
    dataset.to_netcdf(path, engine="netcdf4", encoding={"air": layout, "time": calendar})
    return vc.open_virtual_dataset(path)


def append(dataset: Any, target: Path, **options: Any) -> None:
    write_kerchunk(dataset, target, "parquet", append_dim="time", **options)


def through_fsspec(target: Path) -> xr.Dataset:
    options = {"remote_protocol": "file"}  # which fsspec guesses wrongly where its first reference is a missing chunk
    return xr.open_dataset(str(target), engine="kerchunk", storage_options=options).load()


def through_ours(target: Path) -> xr.Dataset:
    return vc.open_virtual_dataset(target).virtual.open({"file:///": None}).load()


@pytest.mark.parametrize("record_size", [7, 31, 1000])
def test_months_appended_one_by_one_are_read_as_the_months_joined(tmp_path: Path, record_size: int) -> None:
    months = [month("2001-01-01", 31), month("2001-02-01", 28), month("2001-03-01", 31), month("2001-04-01", 3)]
    target = tmp_path / "refs.parquet"
    for number, dataset in enumerate(months):
        append(opened(tmp_path, dataset), target, record_size=record_size)
        expected = xr.concat(months[: number + 1], "time")
        xr.testing.assert_equal(through_fsspec(target), expected)
        xr.testing.assert_equal(through_ours(target), expected)


def test_only_new_partitions_and_the_last_are_written(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    append(opened(tmp_path, month("2001-01-01", 31)), target, record_size=10)
    before = {path.name: path.stat().st_mtime_ns for path in (target / "air").iterdir()}
    append(opened(tmp_path, month("2001-02-01", 28)), target)
    after = {path.name: path.stat().st_mtime_ns for path in (target / "air").iterdir()}
    assert sorted(after) == [f"refs.{i}.parq" for i in range(6)]
    assert sorted(name for name in before if after[name] == before[name]) == [f"refs.{i}.parq" for i in range(3)]
    assert not list(target.rglob("*.tmp"))


def test_who_opened_the_references_before_reads_the_old_ones(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    january = month("2001-01-01", 31)
    append(opened(tmp_path, january), target, record_size=10)
    store = KerchunkParser()(str(target), {tmp_path.as_uri(): None})
    append(opened(tmp_path, month("2001-02-01", 28)), target)
    for name in ("air", "time"):
        array = store.group.arrays[name]
        stored = xr.open_dataset(tmp_path / "2001010131.nc", decode_times=False)[name]
        np.testing.assert_array_equal(read_values(array, store.registry), stored)


def test_several_chunks_of_days_continue_where_a_chunk_ends(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    months = [month("2001-01-01", 30), month("2001-01-31", 25)]
    append(opened(tmp_path, months[0], chunk=10), target, record_size=2)
    append(opened(tmp_path, months[1], chunk=10), target)
    xr.testing.assert_equal(through_fsspec(target), xr.concat(months, "time"))
    with pytest.raises(CombineError, match=r"'air' cannot be continued: .* 55 elements along 'time', .* chunks of 10"):
        append(opened(tmp_path, month("2001-02-25", 10), chunk=10), target)
    xr.testing.assert_equal(through_fsspec(target), xr.concat(months, "time"))


def test_missing_chunks_are_appended_as_missing(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    first = opened(tmp_path, month("2001-01-01", 4))
    append(first, target, record_size=3)
    second = opened(tmp_path, month("2001-01-05", 4)).reindex(time=pd.date_range("2001-01-05", periods=6))
    append(second, target)
    expected = xr.concat([month("2001-01-01", 4), month("2001-01-05", 4)], "time").reindex(
        time=pd.date_range("2001-01-01", periods=10)
    )
    xr.testing.assert_equal(through_fsspec(target), expected)
    xr.testing.assert_equal(through_ours(target), expected)


def test_groups_are_appended_to(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    months = [month("2001-01-01", 5), month("2001-01-06", 5)]
    for dataset in months:
        virtual = opened(tmp_path, dataset)
        append(xr.DataTree.from_dict({"/": xr.Dataset(), "/model": virtual}), target, record_size=4)
    found = xr.open_dataset(
        str(target), engine="kerchunk", group="model", storage_options={"remote_protocol": "file"}
    ).load()
    xr.testing.assert_equal(found, xr.concat(months, "time"))


def test_objects_in_a_bucket(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    months = [month("2001-01-01", 5), month("2001-01-06", 5)]
    for dataset in months:
        append(opened(tmp_path, dataset), Path("a/refs.parquet"), record_size=4, store=LocalStore(tmp_path / "bucket"))
    xr.testing.assert_equal(through_fsspec(tmp_path / "bucket/a/refs.parquet"), xr.concat(months, "time"))


def changed(dataset: xr.Dataset, **attributes: Any) -> xr.Dataset:
    made = dataset.copy()
    made["air"].attrs.update(attributes)
    return made


FEBRUARY = month("2001-02-01", 28)
REFUSED: dict[str, tuple[Any, str]] = {
    "other units": (lambda at: opened(at, changed(FEBRUARY, units="degC")), r"'air' .* attribute 'units' is 'degC'"),
    "other packing": (
        lambda at: opened(at, FEBRUARY, dtype="i2", scale_factor=0.5, _FillValue=-1),
        r"'air' does not continue the stored array: its dtype is '<i2', of the stored one '<f4'",
    ),
    "other codecs": (lambda at: opened(at, FEBRUARY, zlib=False), r"'air' .* compressor is|'air' .* filters are"),
    "other chunks": (lambda at: opened(at, FEBRUARY, chunk=7), r"'air' .* chunks are \[7, 3, 4\]"),
    "other shape": (lambda at: opened(at, FEBRUARY).isel(lat=slice(0, 3)).drop_vars("lat").rename(lat="y"), "'y'"),
    "other coordinates": (lambda at: opened(at, FEBRUARY.assign_coords(lat=[5.0, 6, 7])), "'lat' differs"),
    "a variable less": (lambda at: opened(at, FEBRUARY).drop_vars("air"), r"'time' .* 31 in 'air' and 59 in 'time'"),
    "a variable more": (lambda at: opened(at, FEBRUARY.assign(wind=FEBRUARY.air)), r"'wind' is not in the stored"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_continue_the_stored_references_is_refused_by_name(tmp_path: Path, case: str) -> None:
    target = tmp_path / "refs.parquet"
    append(opened(tmp_path, month("2001-01-01", 31)), target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    make, message = REFUSED[case]
    with pytest.raises(CombineError, match=message):
        append(make(tmp_path), target)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_levels_of_compression_do_not_matter(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    months = [month("2001-01-01", 4), month("2001-01-05", 4)]
    for level, dataset in enumerate(months, 1):
        append(opened(tmp_path, dataset, complevel=level), target)
    xr.testing.assert_equal(through_fsspec(target), xr.concat(months, "time"))


def test_a_faster_axis_cannot_be_appended_along(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    virtual = opened(tmp_path, month("2001-01-01", 4))
    append(virtual, target)
    with pytest.raises(CombineError, match=r"before 'lat': chunks are numbered in C order.*mode='w'"):
        write_kerchunk(virtual.drop_vars("time"), target, "parquet", append_dim="lat")


@pytest.mark.parametrize("mode", ["w", "w-", "r"])
def test_modes_that_contradict_appending(tmp_path: Path, mode: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=f"mode.*'{mode}'"):
        append(ManifestGroup(), tmp_path / "refs.parquet", mode=mode)


def test_json_cannot_be_appended_to(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFeatureError, match="Write Parquet"):
        write_kerchunk(ManifestGroup(), tmp_path / "refs.json", "json", append_dim="time")


def test_references_that_fsspec_wrote_are_continued(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.reference import LazyReferenceMapper

    target = tmp_path / "refs.parquet"
    months = [month("2001-01-01", 5), month("2001-01-06", 5)]
    references = write_kerchunk(opened(tmp_path, months[0]))
    assert references is not None
    mapper = LazyReferenceMapper.create(str(target), fs=fsspec.filesystem("file"), record_size=3)
    for key, value in references["refs"].items():
        if isinstance(value, str) and value.startswith("base64:"):
            import base64

            value = base64.b64decode(value[7:])
        mapper[key] = value
    mapper.flush()
    append(opened(tmp_path, months[1]), target)
    xr.testing.assert_equal(through_fsspec(target), xr.concat(months, "time"))
    xr.testing.assert_equal(through_ours(target), xr.concat(months, "time"))


def test_another_process_that_writes_is_noticed(tmp_path: Path) -> None:
    import fcntl

    target = tmp_path / "refs.parquet"
    append(opened(tmp_path, month("2001-01-01", 4)), target)
    number = os.open(target, os.O_RDONLY)
    fcntl.flock(number, fcntl.LOCK_EX)
    with pytest.raises(WriteError, match="by another process"):
        append(opened(tmp_path, month("2001-01-05", 4)), target)
    os.close(number)
    append(opened(tmp_path, month("2001-01-05", 4)), target)


def test_a_bucket_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    class Interfering(MemoryStore):
        def put(self, path: str, data: Any, **options: Any) -> Any:
            if path.endswith("air/refs.0.parq") and "refs/.zmetadata" in stored:
                super().put("refs/.zmetadata", b"{}")
            stored.add(path)
            return super().put(path, data, **options)

    stored: set[str] = set()
    store = Interfering()
    append(opened(tmp_path, month("2001-01-01", 4)), Path("refs"), store=store)
    with pytest.raises(WriteError, match="by another process"):
        append(opened(tmp_path, month("2001-01-05", 4)), Path("refs"), store=store)


def simple(value: int, count: int = 9, name: str = "v") -> ManifestGroup:
    """Return references of single numbers, inline."""
    numbers = np.arange(count, dtype="<i4") + value
    metadata = ArrayMetadata.build(shape=(count,), chunks=(1,), dtype="<i4", dimension_names=("x",))
    manifest = ChunkManifest.of_buffers([number.tobytes() for number in numbers], (count,))
    return ManifestGroup({name: ManifestArray(metadata, manifest)}, attributes={f"written {name}": value})


def values(target: Path) -> dict[str, npt.NDArray[Any]]:
    """Return what we read, having checked that fsspec reads the same."""
    store = KerchunkParser()(str(target), {target.parent.as_uri(): None})
    found = {name: read_values(array, store.registry) for name, array in store.group.arrays.items()}
    theirs = xr.open_dataset(str(target), engine="kerchunk")
    for name, array in found.items():
        np.testing.assert_array_equal(array, theirs[name].values)
    return found


@pytest.mark.parametrize("form", ["json", "json.gz", "parquet"])
def test_mode_a_adds_and_replaces_arrays(tmp_path: Path, form: str) -> None:
    target = tmp_path / f"refs.{form}"

    def write(group: ManifestGroup, **options: Any) -> None:
        if form == "parquet":
            write_parquet(group, target, 4, **options)
        else:
            write_json(group, target, **options)

    def read() -> dict[str, list[int]]:
        store = KerchunkParser()(str(target), {tmp_path.as_uri(): None})
        assert {"written v", "written w"} >= set(store.group.attributes)
        return {name: read_values(array, store.registry).tolist() for name, array in store.group.arrays.items()}

    write(simple(0), mode="a")
    write(simple(100, name="w"), mode="a")
    assert read() == {"v": list(range(9)), "w": list(range(100, 109))}
    write(simple(50), mode="a")
    assert read() == {"v": list(range(50, 59)), "w": list(range(100, 109))}
    before = read()
    with pytest.raises(CombineError, match="'x' would have the length"):
        write(simple(0, count=3), mode="a")
    with pytest.raises(TargetExistsError):
        write(simple(0), mode="w-")
    assert read() == before
    if form != "json.gz":
        assert values(target)["w"].tolist() == before["w"]
    write(simple(7), mode="w")
    assert read() == {"v": list(range(7, 16))}


def test_replaced_arrays_are_not_mixed_with_what_was_opened_before(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    for name in "vw":
        write_parquet(simple(0, name=name), target, 4, mode="a")
    store = KerchunkParser()(str(target))
    write_parquet(simple(100), target, mode="a")
    assert read_values(store.group.arrays["w"], store.registry).tolist() == list(range(9))
    with pytest.raises(VirtualChunksError, match="open them again"):
        read_values(store.group.arrays["v"], store.registry)


def test_arrays_in_the_place_of_groups_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    write_parquet(ManifestGroup({}, {"v": simple(0)}), target)
    with pytest.raises(CombineError, match="'v' is an array on one side and a group"):
        write_parquet(simple(0), target, mode="a")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"refs": 3}', b"\x1f\x8bnot", b"(\xb5/\xfdnot"])
def test_nothing_is_added_to_what_holds_no_references(tmp_path: Path, content: bytes) -> None:
    target = tmp_path / "refs.json"
    target.write_bytes(content)
    with pytest.raises(FormatError, match=r"refs\.json"):
        write_json(simple(0), target, mode="a")
    assert target.read_bytes() == content


def test_nothing_is_added_to_templates(tmp_path: Path) -> None:
    target = tmp_path / "refs.json"
    target.write_text(json.dumps({"version": 1, "templates": {"u": "s3://b"}, "refs": {}}))
    with pytest.raises(UnsupportedFeatureError, match="templates"):
        write_json(simple(0), target, mode="a")


def test_formats_of_metadata_are_not_mixed(tmp_path: Path) -> None:
    target = tmp_path / "refs.json"
    write_json(simple(0), target, zarr_format=3)
    with pytest.raises(FormatError, match="zarr_format"):
        write_json(simple(0, name="w"), target, mode="a")


def test_nothing_is_added_to_a_store_or_to_damaged_references(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    target.mkdir()
    (target / ".zmetadata").write_text('{"metadata": {}, "zarr_consolidated_format": 1}')
    with pytest.raises(TargetExistsError, match="not a folder of references"):
        write_parquet(simple(0), target, mode="a")
    (target / ".zmetadata").write_text('{"metadata": 3, "record_size": 4}')
    with pytest.raises(FormatError, match="damaged"):
        write_parquet(simple(0), target, append_dim="x")
    (target / ".zmetadata").unlink()
    write_parquet(simple(0), target, 4)
    (target / "v/refs.2.parq").write_bytes(b"PAR1")
    with pytest.raises(FormatError, match=r"v/refs\.2\.parq"):
        write_parquet(simple(9), target, append_dim="x")


PROCESS = """
import os, resource, shutil, signal, sys
import numpy as np
from virtualchunks import ArrayMetadata, ChunkManifest, ManifestArray, ManifestGroup
from virtualchunks.errors import WriteError
from virtualchunks.writers.kerchunk import write_kerchunk

form, target, mode, limit = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
metadata = ArrayMetadata.build(shape=(9,), chunks=(1,), dtype="<i4", dimension_names=("x",))
manifest = ChunkManifest.of_buffers([np.int32(number).tobytes() for number in range(9, 18)], (9,))
group = ManifestGroup({"v": ManifestArray(metadata, manifest)})
options = {"append_dim": "x"} if mode == "append" else {"mode": mode}
calls = 0

def counted(function, moment):
    def call(*arguments, **keywords):
        global calls
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)
    return call

def killed(moment):
    for name in ("fsync", "replace", "rename", "link"):
        setattr(os, name, counted(getattr(os, name), moment))
    write_kerchunk(group, target, form, record_size=4, **options)
    os._exit(0)

if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        write_kerchunk(group, target, form, record_size=4, **options)
    except WriteError as error:
        assert "File too large" in str(error), error
        sys.exit(3)
for moment in range(1, 60):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(target + ".old", target)
    child = os.fork() or killed(moment)
    status = os.waitpid(child, 0)[1]
    if os.path.exists(target):
        shutil.copytree(target, f"{target}.{moment}")
    if status == 0:
        sys.exit(0)
    assert os.WTERMSIG(status) == signal.SIGKILL
"""


def process(target: Path, form: str, mode: str, limit: int = 0) -> int:
    """Write in a process: with a limit to the size of files, or again and again, killed ever later."""
    command = [sys.executable, "-c", PROCESS, form, str(target), mode, str(limit)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, check=False, env=environment).returncode


def test_a_process_that_is_killed_while_it_appends_leaves_the_old_references_or_the_new(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    write_parquet(simple(0), tmp_path / "refs.parquet.old", 4)
    assert process(target, "parquet", "append") == 0
    left = [tmp_path / f"refs.parquet.{moment}" for moment in range(1, len(list(tmp_path.iterdir())) - 1)]
    assert len(left) > 10
    found = []
    for folder in left:
        found.append(len(KerchunkParser()(str(folder)).group.arrays["v"].manifest))
        at = folder.rename(tmp_path / "left.parquet")
        assert values(at)["v"].tolist() == list(range(found[-1]))
        write_parquet(simple(found[-1]), at, append_dim="x")  # what was left does not stand in the way
        assert values(at)["v"].tolist() == list(range(found[-1] + 9))
        shutil.rmtree(at)
    assert (found[0], found[-1]) == (9, 18)
    assert set(found) == {9, 18}


def test_a_process_that_is_killed_while_it_replaces_an_array_leaves_references_whole_or_none(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    both = ManifestGroup({**simple(0).arrays, **simple(50, name="w").arrays})
    write_parquet(both, tmp_path / "refs.parquet.old", 4)
    assert process(target, "parquet", "a") == 0
    left = [path for path in tmp_path.iterdir() if path.suffix.removeprefix(".").isdigit()]
    assert len(left) > 5
    for folder in left:
        found = {name: array.tolist() for name, array in values(folder.rename(target.with_suffix(".parq"))).items()}
        assert found["v"] in (list(range(9)), list(range(9, 18)))
        assert found["w"] == list(range(50, 59))
        shutil.rmtree(target.with_suffix(".parq"))


@pytest.mark.parametrize(
    ("form", "mode"), [("json", "w"), ("json", "a"), ("parquet", "w"), ("parquet", "a"), ("parquet", "append")]
)
def test_a_full_disk_leaves_the_old_references(tmp_path: Path, form: Any, mode: str) -> None:
    target = tmp_path / "out" / f"refs.{form}"
    target.parent.mkdir()
    write_kerchunk(simple(0), target, form, record_size=4)
    assert process(target, form, mode, limit=100) == 3
    assert values(target)["v"].tolist() == list(range(9))
    assert list(target.parent.iterdir()) == [target]
    assert not list(target.parent.rglob("*.tmp"))


@pytest.mark.parametrize("append_dim", [None, "x"])
def test_no_permission_is_one_error_of_ours(
    tmp_path: Path, append_dim: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    def denied(**_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    target = tmp_path / "refs.parquet"
    write_parquet(simple(0), target, 4)
    monkeypatch.setattr(tempfile, "mkstemp", denied)
    monkeypatch.setattr(tempfile, "mkdtemp", denied)
    with pytest.raises(WriteError, match=r"Permission denied; what was there before is untouched"):
        write_parquet(simple(9), target, append_dim=append_dim)
    assert values(target)["v"].tolist() == list(range(9))


def test_an_array_in_memory_is_cut_as_the_stored_one_is(tmp_path: Path) -> None:
    target = tmp_path / "refs.parquet"
    for start, stop in ((0, 4), (4, 5), (5, 5), (5, 12), (12, 13)):
        part = in_memory_array(np.arange(start, stop, dtype="i8"), ("x",), {})
        write_parquet(ManifestGroup({"v": part}), target, 2, append_dim="x")
        assert values(target)["v"].tolist() == list(range(stop))
    assert json.loads((target / ".zmetadata").read_text())["metadata"]["v/.zarray"]["chunks"] == [4]
    assert sum(pq.read_table(path).num_rows for path in (target / "v").iterdir()) == 4
