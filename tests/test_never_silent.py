"""Right values, or an error that names the files: the ways in which references are known to give wrong numbers."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
import zarr
from rangeserver import RangeServer

import virtualchunks as vc
from virtualchunks.errors import (
    CombineError,
    DecodeError,
    ReadError,
    UnsupportedArrayWarning,
    VirtualArrayError,
    VirtualChunksError,
)

h5py = pytest.importorskip("h5py")

PACKED = {"scale_factor": 0.1, "add_offset": 0.0, "_FillValue": np.int16(-999)}
DAYS = {"units": "days since 2000-01-01"}


def series(
    path: Path,
    values: npt.ArrayLike,
    attributes: dict[str, Any],
    start: int = 0,
    time: dict[str, Any] = DAYS,
    **layout: Any,
) -> Path:
    """Write four days of a variable."""
    data = np.asarray(values)
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=data, **layout)
        file["v"].attrs.update(attributes)
        file["time"] = np.arange(start, start + len(data), dtype="i4")
        file["time"].make_scale("time")
        file["time"].attrs.update(time)
        file["v"].dims[0].attach_scale(file["time"])
    return path


def kerchunk(cube: xr.Dataset, path: Path) -> xr.Dataset:
    cube.virtual.to_kerchunk(path / "refs.json", format="json")
    return xr.open_dataset(str(path / "refs.json"), engine="kerchunk")


def icechunk(cube: xr.Dataset, path: Path) -> xr.Dataset:
    icechunk = pytest.importorskip("icechunk")
    prefix = path.as_uri() + "/"
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(
        icechunk.VirtualChunkContainer(prefix, icechunk.local_filesystem_store(str(path)))
    )
    repository = icechunk.Repository.create(
        icechunk.in_memory_storage(),
        config,
        authorize_virtual_chunk_access={prefix: icechunk.Credentials.LocalFileSystemAccess()},
    )
    session = repository.writable_session("main")
    cube.virtual.to_icechunk(session.store)
    session.commit("cube")
    return xr.open_zarr(repository.readonly_session("main").store, consolidated=False, zarr_format=3, chunks=None)


def as_store(cube: xr.Dataset, path: Path) -> xr.Dataset:
    return xr.open_zarr(cube.virtual.to_store(), consolidated=False, zarr_format=3, chunks=None)


WAYS_TO_READ: dict[str, Callable[[xr.Dataset, Path], xr.Dataset]] = {
    "open": lambda cube, path: cube.virtual.open(),
    "store": as_store,
    "kerchunk": kerchunk,
    "icechunk": icechunk,
}
WAYS_TO_COMBINE: dict[str, Callable[[list[Path], dict[str, Any]], xr.Dataset]] = {
    "concat": lambda paths, options: xr.concat([vc.open_virtual_dataset(path, **options) for path in paths], "time"),
    "mfdataset": lambda paths, options: vc.open_virtual_mfdataset(
        paths, combine="nested", concat_dim="time", **options
    ),
}

# ------------------------------------------------------------------------------- files that mean something else


@pytest.mark.parametrize("combine", WAYS_TO_COMBINE)
@pytest.mark.parametrize(
    ("attribute", "other"),
    [
        ("scale_factor", {**PACKED, "scale_factor": 0.2}),
        ("add_offset", {**PACKED, "add_offset": 5.0}),
        ("_FillValue", {**PACKED, "_FillValue": np.int16(-32767)}),
        ("missing_value", {**PACKED, "missing_value": np.int16(3)}),
        ("scale_factor", {"_FillValue": np.int16(-999)}),
        ("_Unsigned", {**PACKED, "_Unsigned": "true"}),
        ("units", {**PACKED, "units": "days since 2000-01-05"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_packed_otherwise_is_not_joined(tmp_path, combine, attribute, other):
    one = series(tmp_path / "one.nc", np.arange(4, dtype="i2"), PACKED)
    two = series(tmp_path / "two.nc", np.arange(4, dtype="i2"), other, 4)
    with pytest.raises(CombineError, match=attribute) as caught:
        WAYS_TO_COMBINE[combine]([one, two], {"mask_and_scale": False})
    for text in ("one.nc", "two.nc", "'v'", "loadable_variables"):
        assert text in str(caught.value)


@pytest.mark.parametrize("combine", WAYS_TO_COMBINE)
def test_what_counts_days_in_one_file_only_is_not_joined(tmp_path, combine):
    one = series(tmp_path / "one.nc", np.arange(4, dtype="i2"), PACKED)
    two = series(tmp_path / "two.nc", np.arange(4, dtype="i2"), {**PACKED, "units": "days since 2000-01-05"}, 4)
    with pytest.raises(CombineError, match=r"'units' differs.*one\.nc.*two\.nc.*'v'"):
        WAYS_TO_COMBINE[combine]([one, two], {})


@pytest.mark.parametrize("combine", WAYS_TO_COMBINE)
def test_what_is_packed_otherwise_is_joined_by_value(tmp_path, combine):
    one = series(tmp_path / "one.nc", np.arange(4, dtype="i2"), PACKED)
    two = series(tmp_path / "two.nc", np.arange(4, dtype="i2"), {**PACKED, "scale_factor": 0.2}, 4)
    loaded = WAYS_TO_COMBINE[combine]([one, two], {"loadable_variables": ["v", "time"]})
    with xr.open_mfdataset([one, two], engine="h5netcdf") as expected:
        np.testing.assert_array_equal(loaded["v"].values, expected["v"].values)


@pytest.mark.parametrize("read", WAYS_TO_READ)
@pytest.mark.parametrize("combine", WAYS_TO_COMBINE)
def test_what_is_packed_alike_has_the_values_that_xarray_gives(tmp_path, combine, read):
    stored = np.array([1, -999, 3, 4], dtype="i2")
    paths = [series(tmp_path / f"{number}.nc", stored + number, PACKED, 4 * number) for number in range(3)]
    cube = WAYS_TO_READ[read](WAYS_TO_COMBINE[combine](paths, {}), tmp_path)
    with xr.open_mfdataset(paths, engine="h5netcdf") as expected:
        np.testing.assert_array_equal(cube["v"].values, expected["v"].values)
        np.testing.assert_array_equal(cube["time"].values, expected["time"].values)


@pytest.mark.parametrize("combine", WAYS_TO_COMBINE)
def test_times_counted_from_another_day(tmp_path, combine):
    one = series(tmp_path / "one.nc", np.arange(4.0), {})
    two = series(tmp_path / "two.nc", np.arange(4.0), {}, 0, {"units": "days since 2000-01-05"})
    with pytest.raises(CombineError, match=r"'units' differs.*one\.nc.*two\.nc.*'time'"):
        WAYS_TO_COMBINE[combine]([one, two], {"loadable_variables": []})
    cube = WAYS_TO_COMBINE[combine]([one, two], {})
    assert (
        cube["time"].values.tolist() == np.arange("2000-01-01", "2000-01-09", dtype="M8[D]").astype("M8[ns]").tolist()
    )


@pytest.mark.parametrize("dtype", ["i2", "f4"])
@pytest.mark.parametrize("loaded", [0, 1])
def test_values_that_were_unpacked_do_not_join_references_to_packed_ones(tmp_path, dtype, loaded):
    attributes = {"scale_factor": 0.5, "add_offset": 0.0}
    paths = [series(tmp_path / f"{n}.nc", np.arange(4, dtype=dtype), attributes, 4 * n) for n in range(2)]
    parts = [
        vc.open_virtual_dataset(path, loadable_variables=["time", "v"])
        if number == loaded
        else vc.open_virtual_dataset(path, mask_and_scale=False)
        for number, path in enumerate(paths)
    ]
    with pytest.raises(CombineError, match=rf"second time.*loadable_variables.*{1 - loaded}\.nc.*'v'"):
        xr.concat(parts, "time")


def test_values_that_need_no_unpacking_join_references(tmp_path):
    attributes = {"_FillValue": np.float32(-9)}
    paths = [series(tmp_path / f"{n}.nc", np.array([1, -9, n], "f4"), attributes, 3 * n) for n in range(2)]
    parts = [vc.open_virtual_dataset(paths[0]), vc.open_virtual_dataset(paths[1], loadable_variables=["time", "v"])]
    for given in (parts, parts[::-1]):
        opened = xr.concat(given, "time").virtual.open().sortby("time")
        np.testing.assert_array_equal(opened["v"].values, [1, np.nan, 0, 1, np.nan, 1])


def test_which_values_are_missing_is_not_guessed(tmp_path):
    part = vc.open_virtual_dataset(series(tmp_path / "a.nc", [1.0, np.nan, 3.0, 4.0], {}))["v"]
    for ask in (
        lambda: part.isnull().sum(),
        lambda: part.isnull().any(),
        lambda: part.notnull().all(),
        lambda: part.count(),
        lambda: part.fillna(0),
        lambda: part.dropna("time"),
        lambda: np.count_nonzero(part.isnull().data),
    ):
        with pytest.raises(VirtualArrayError, match=r"not known without reading.*\.virtual\.open\(\)"):
            ask()
    assert "not known" in repr(part.isnull())
    assert "not known" in part.isnull()._repr_html_()
    assert not vc.open_virtual_dataset(series(tmp_path / "b.nc", np.arange(4), {}))["v"].isnull().any()


# --------------------------------------------------------------------------------- HDF5 files that are stored oddly


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Filter masks, compact and external storage, a virtual dataset and an external link, all of them 1 to 8."""
    values = np.arange(1, 9, dtype="<i4")
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        masked = file.create_dataset("masked", (8,), "<i4", chunks=(2,), shuffle=True, compression="gzip")
        shuffled = values[2:4].view("u1").reshape(2, 4).T.tobytes()
        masked.id.write_direct_chunk((0,), zlib.compress(values[:2].tobytes()), filter_mask=0b01)
        masked.id.write_direct_chunk((2,), shuffled, filter_mask=0b10)
        masked.id.write_direct_chunk((4,), values[4:6].tobytes(), filter_mask=0b11)
        masked[6:] = values[6:]
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((8,))
        made = h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I32LE, space, compact)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        outside = file.create_dataset("outside", (8,), "<i4", external=[(str(tmp_path / "side.bin"), 0, 32)])
        outside[:] = values
        file["link"] = h5py.ExternalLink("other.h5", "/t")
        file["t"] = -values
        layout = h5py.VirtualLayout((8,), "<i4")
        for number in range(2):
            layout[4 * number : 4 * number + 4] = h5py.VirtualSource(f"part{number}.h5", "x", shape=(4,))
        file.create_virtual_dataset("virtual", layout, fillvalue=-5)
    for name, path, data in (
        ("part0.h5", "x", values[:4]),
        ("part1.h5", "x", values[4:]),
        ("other.h5", "t", values),
    ):
        with h5py.File(tmp_path / name, "w") as file:
            file[path] = data
    return tmp_path / "odd.h5"


ODD = {"masked", "compact", "outside", "link", "virtual"}


def test_oddly_stored_arrays_are_read_right_in_every_way(odd, tmp_path):
    registry = vc.ObjectStoreRegistry({tmp_path.as_uri(): None})
    virtual = vc.open_virtual_dataset(odd, registry=registry, strict=True)
    opened = {
        "open": virtual.virtual.open(),
        "loaded": vc.open_virtual_dataset(odd, registry=registry, loadable_variables="*"),
        "engine": xr.open_dataset(odd, engine="virtualchunks", registry=registry),
        "store": xr.open_zarr(vc.open_store(odd, registry), consolidated=False, zarr_format=3, chunks=None),
        "icechunk": icechunk(virtual.drop_vars("masked"), tmp_path),
    }
    for way, dataset in opened.items():
        assert ODD - ({"masked"} if way == "icechunk" else set()) <= set(dataset.variables)
        for name in dataset.variables:
            np.testing.assert_array_equal(dataset[name], np.arange(1, 9) * (-1 if name == "t" else 1), f"{way} {name}")


@pytest.mark.filterwarnings("ignore::virtualchunks.errors.UnsupportedArrayWarning")
def test_a_file_that_nobody_granted_is_never_fill(odd):
    with pytest.raises(VirtualChunksError, match=r"with registry=, after registry\.register.*'/(outside|virtual)'"):
        vc.open_virtual_dataset(odd)
    with pytest.warns(UnsupportedArrayWarning, match=r"'/link'.*other\.h5 is not granted"):
        left = vc.open_virtual_dataset(odd, drop_variables=["outside", "virtual"])
    assert set(left.variables) == {"masked", "compact", "t"}


@pytest.mark.parametrize("gone", ["side.bin", "part1.h5"])
def test_a_part_that_is_gone_is_never_fill(odd, tmp_path, gone):
    registry = vc.ObjectStoreRegistry({tmp_path.as_uri(): None})
    opened = vc.open_virtual_dataset(odd, registry=registry).virtual.open()
    (tmp_path / gone).unlink()
    with pytest.raises(ReadError, match=gone.replace(".", r"\.")) as caught:
        opened.load()
    assert not isinstance(caught.value, FileNotFoundError | KeyError)
    with pytest.raises(ReadError, match=gone.replace(".", r"\.")):
        vc.open_virtual_dataset(odd, registry=registry)


@pytest.mark.parametrize("layout", [{"compression": "gzip"}, {"fletcher32": True}, {"compression": "lzf"}], ids=str)
def test_bytes_that_do_not_decode_are_told_by_place(tmp_path, layout):
    path = series(tmp_path / "a.nc", np.arange(400) % 7, {}, chunks=(200,), **layout)
    with h5py.File(path) as file:
        offset = file["v"].id.get_chunk_info(1).byte_offset
    body = bytearray(path.read_bytes())
    body[offset + 2 : offset + 12] = b"\xff" * 10
    path.write_bytes(body)
    for read in (
        lambda: vc.open_virtual_dataset(path).virtual.open()["v"].values,
        lambda: vc.open_virtual_dataset(path, loadable_variables="*"),
        lambda: xr.open_dataset(path, engine="virtualchunks").load(),
    ):
        with pytest.raises(DecodeError, match=rf"at offset {offset}.*'v', chunk \(1,\).*a\.nc"):
            read()


# -------------------------------------------------------------------------------------- sources that were changed


def _put_back(path: Path, state: os.stat_result) -> None:
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def _rewritten(path: Path, body: bytes) -> None:
    path.write_bytes(body[::-1])


def _rewritten_later(path: Path, body: bytes) -> None:
    path.write_bytes(body[::-1])
    later = path.stat().st_mtime_ns + 5_000_000_000
    os.utime(path, ns=(later, later))


def _time_put_back(path: Path, body: bytes) -> None:
    state = path.stat()
    path.write_bytes(body[::-1])
    _put_back(path, state)


def _replaced(path: Path, body: bytes) -> None:
    state = path.stat()
    beside = path.with_suffix(".new")
    beside.write_bytes(body[::-1])
    _put_back(beside, state)
    beside.replace(path)


CHANGES: dict[str, Callable[[Path, bytes], Any]] = {
    "rewritten": _rewritten,
    "rewritten later": _rewritten_later,
    "rewritten, time put back": _time_put_back,
    "replaced, time put back": _replaced,
    "grown at the front": lambda path, body: path.write_bytes(b"x" * 16 + body),
    "cut": lambda path, body: path.write_bytes(body[: len(body) // 2]),
    "emptied": lambda path, body: path.write_bytes(b""),
    "deleted": lambda path, body: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_refused_however_it_is_read(tmp_path, change):
    path = series(tmp_path / "a.nc", np.arange(4.0), {}, chunks=(2,))
    virtual = vc.open_virtual_dataset(path)
    opened = {
        "open": virtual.virtual.open(),
        "warm": virtual.virtual.open(),
        "engine": xr.open_dataset(path, engine="virtualchunks"),
        "store": as_store(virtual, tmp_path),
    }
    np.testing.assert_array_equal(opened["warm"]["v"].isel(time=0), 0)
    CHANGES[change](path, path.read_bytes())
    opened["opened since"] = virtual.virtual.open()
    for way, dataset in opened.items():
        with pytest.raises(ReadError, match=r"a\.nc.*'v'") as caught:
            dataset["v"].load()
        assert not isinstance(caught.value, FileNotFoundError | KeyError), way


@pytest.mark.parametrize("validators", ["etag", "last-modified", "size"])
def test_a_changed_object_is_refused(tmp_path, range_server: RangeServer, validators):
    body = series(tmp_path / "a.nc", np.arange(4.0), {}, chunks=(2,)).read_bytes()
    range_server.objects["a.nc"] = body
    if validators != "etag":
        range_server.fail("no etag")
    url = range_server.url("a.nc")
    virtual = vc.open_virtual_dataset(url)
    opened = virtual.virtual.open()
    range_server.objects["a.nc"] = body + b"x" if validators == "size" else body[::-1]
    if validators == "last-modified":
        range_server.modified["a.nc"] = 1_700_000_000.0
    for dataset in (opened, virtual.virtual.open(), as_store(virtual, tmp_path)):
        with pytest.raises(ReadError, match=r"a\.nc.*'v'"):
            dataset["v"].load()


@pytest.mark.parametrize("fault", ["403", "404", "500", "fewer bytes", "fewer bytes, unsaid", "another range"])
def test_an_object_that_cannot_be_read_is_never_fill(tmp_path, range_server: RangeServer, fault):
    range_server.objects["a.nc"] = series(tmp_path / "a.nc", np.arange(4.0), {}, chunks=(2,)).read_bytes()
    virtual = vc.open_virtual_dataset(range_server.url("a.nc"))
    range_server.fail(fault)
    for dataset in (virtual.virtual.open(), as_store(virtual, tmp_path)):
        with pytest.raises(ReadError, match=r"a\.nc.*'v'"):
            dataset["v"].load()


def test_chunks_that_were_never_written_are_fill(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", (4,), "f4", chunks=(2,), fillvalue=7.0)[2:] = [1, 2]
    virtual = vc.open_virtual_dataset(tmp_path / "a.h5")
    assert virtual.virtual.open()["v"].values.tolist() == [7, 7, 1, 2]
    assert zarr.open_group(virtual.virtual.to_store(), mode="r")["v"][:].tolist() == [7, 7, 1, 2]
