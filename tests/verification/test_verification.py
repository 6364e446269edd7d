"""Verification finds what is wrong with references, and nothing wrong with those that are right."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

import virtualchunks as vc
from virtualchunks.errors import NotGrantedError
from virtualchunks.reading.fetch import fetch
from virtualchunks.verification import run
from virtualchunks_parsers.hdf5 import HDF5Parser

tifffile = pytest.importorskip("tifffile")
rng = np.random.default_rng(0)


def hdf5(folder: Path) -> Path:
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        values = rng.random((10, 7))
        values[3] = np.nan
        file.create_dataset("z", data=values, chunks=(4, 3), compression="gzip", shuffle=True)
        file.create_dataset("g/plain", data=np.arange(30, dtype=">i4").reshape(5, 6), chunks=(2, 6))
        file.create_dataset("text", data=np.array([b"ab", b"c"]), chunks=(1,))
        file.create_dataset("record", data=np.zeros(3, [("a", "<i4"), ("b", "<f4")]))
        file.create_dataset("sparse", shape=(8,), chunks=(2,), dtype="f4", fillvalue=5)[2:4] = 1
    return path


def netcdf3(folder: Path) -> Path:
    path = folder / "a.nc"
    with netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_OFFSET") as file:
        file.createDimension("time", None)
        file.createDimension("x", 3)
        file.createVariable("v", "f4", ("time", "x"))[:] = rng.random((4, 3))
        file.createVariable("i", "i2", ("x",))[:] = [1, 2, 3]
    return path


def tiff(folder: Path) -> Path:
    path = folder / "a.tif"
    tifffile.imwrite(path, rng.integers(0, 255, (50, 70, 3), "u1"), tile=(16, 32), compression="zlib", predictor=True)
    return path


def fits_image(folder: Path) -> Path:
    path = folder / "a.fits"
    unsigned = fits.ImageHDU(rng.integers(0, 2**16, (5, 6)).astype("u2"), name="U")
    packed = fits.CompImageHDU(rng.integers(0, 99, (20, 30)).astype("i4"), name="C", compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(rng.random((4, 5))), unsigned, packed]).writeto(path)
    return path


def grib(folder: Path) -> Path:
    from griboracle import message, write

    return write(folder / "a.grib", [message(seed=seed, forecastTime=seed) for seed in range(3)])


FILES = [hdf5, netcdf3, tiff, fits_image, grib]


@pytest.mark.parametrize("make", FILES)
def test_nothing_is_wrong_with_what_was_just_parsed(make, tmp_path):
    path = make(tmp_path)
    store = vc.open_store(path)
    found = vc.verify(store.group, store.registry, sample="all")
    assert found.ok, str(found)
    assert found.chunks == found.compared > 0
    assert not found.unverified


@pytest.mark.parametrize("make", FILES)
def test_references_that_are_off_by_a_byte_are_found(make, tmp_path):
    """Every chunk one byte later: no chunk of the file is there, or one that holds other values."""
    path = make(tmp_path)
    store = vc.open_store(path)
    name, array = next((name, array) for name, array in store.group.walk_arrays() if len(array.manifest))
    records = array.manifest.records.copy()
    records["offset"] += 1
    moved = vc.ManifestArray(array.metadata, vc.ChunkManifest.from_records(records, array.manifest.sources))
    found = vc.verify(vc.ManifestGroup({"v": moved}), store.registry, sample="all")
    assert not found.ok, name
    assert {one.kind for one in found.problems} & {"elsewhere", "values", "unreadable"}
    assert found.problems[0].url == path.as_uri()


def test_a_wrong_codec_is_found_and_the_worst_comes_first(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["v"] = np.arange(6, dtype="<i4")
        file["w"] = np.array([1, 1, 1, 1, 1, 16777216], dtype="<i4")
    group = vc.open_store(path).group
    swapped = {
        name: vc.ManifestArray(array.metadata.replace(encoding=vc.ChunkEncoding.plain(np.dtype(">i4"))), array.manifest)
        for name, array in group.arrays.items()
    }
    found = vc.verify(vc.ManifestGroup(swapped), {path.parent.as_uri() + "/": None})
    assert [one.kind for one in found.problems] == ["values", "values"]
    assert [one.variable for one in found.problems] == ["w", "v"]
    assert found.problems[1].message == (
        "5 of 6 values differ, at most by 8.38861e+07; the first is 16777216, the file has 1"
    )


def test_a_cube_of_many_files_is_compared_file_by_file(tmp_path):
    paths = []
    for number in range(3):
        data = xr.Dataset({"v": (("t", "x"), rng.random((2, 6)))}, {"t": [2 * number, 2 * number + 1]})
        paths.append(tmp_path / f"{number}.nc")
        data.to_netcdf(paths[-1], engine="h5netcdf", encoding={"v": {"chunksizes": (1, 3)}})
    cube = vc.open_virtual_mfdataset(paths).transpose("x", "t").isel(t=slice(1, 5))
    found = vc.verify(cube, sample="all")
    assert found.ok, str(found)
    assert found.compared == found.chunks == 8
    paths[1].write_bytes(paths[2].read_bytes())
    again = vc.verify(cube, sample="all")
    assert [one.kind for one in again.problems[-1:]] == ["changed"]
    assert again.problems[-1].url == paths[1].as_uri()
    assert {one.kind for one in again.problems} == {"changed", "unreadable"}


def test_parts_of_uncompressed_chunks_are_compared(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["v"] = np.arange(60, dtype="<i4").reshape(10, 6)
    array = vc.open_store(path).group.arrays["v"].subchunk({0: 2})[4:8]
    assert len(array.manifest) == 2
    found = vc.verify(vc.ManifestGroup({"v": array}), {path.parent.as_uri() + "/": None})
    assert found.ok, str(found)
    assert found.compared == 2


def test_structure_is_checked_without_reading_data(tmp_path, range_server):
    values = np.arange(8, dtype="<i4").tobytes()
    range_server.objects["a.bin"] = values
    entries = {
        "0": {"path": f"{range_server.url('a.bin')}", "offset": 0, "length": 8},
        "1": {"path": f"{range_server.url('a.bin')}", "offset": 4, "length": 8},
        "2": {"path": f"{range_server.url('a.bin')}", "offset": 28, "length": 8},
        "3": {"path": f"{range_server.url('a.bin')}", "offset": 16, "length": 6},
        "4": {"path": f"{range_server.url('b.bin')}", "offset": 0, "length": 8},
    }
    metadata = vc.ArrayMetadata.build(shape=(12,), chunks=(2,), dtype="<i4")
    tree = vc.ManifestGroup({"v": vc.ManifestArray(metadata, vc.ChunkManifest(entries, shape=(6,)))})
    before = len(range_server.requests)
    found = vc.verify(tree, {range_server.url(""): None}, against=None)
    assert sorted((one.kind, one.chunk) for one in found.problems if one.chunk) == [
        ("length", (3,)), ("outside", (2,)), ("overlap", (1,))
    ]  # fmt: skip
    assert [one.url for one in found.problems if one.kind == "gone"] == [f"{range_server.url('b.bin')}"]
    assert found.missing == {"v": 1}
    asked = sorted((request.key, request.method) for request in range_server.requests[before:])
    assert asked == [("a.bin", "HEAD"), ("b.bin", "GET"), ("b.bin", "HEAD")]  # some servers answer no HEAD


def test_the_same_bytes_twice_are_no_overlap(tmp_path):
    path = netcdf3(tmp_path)
    store = vc.open_store(path)
    array = store.group.arrays["i"]
    assert vc.verify(vc.ManifestGroup({"i": array, "j": array}), store.registry).ok


def test_a_sample_is_spread_over_arrays_and_chunks(tmp_path):
    path = hdf5(tmp_path)
    store = vc.open_store(path)
    found = vc.verify(store.group, store.registry, sample=5)
    assert found.compared == 5
    assert found.chunks > 5


def test_a_sample_of_64_reads_64_chunks_twice(tmp_path, monkeypatch):
    """Once through the reference, and once by the library."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=rng.random((200, 64)), chunks=(1, 64))
        file.create_dataset("w", data=rng.random((50, 64)), chunks=(1, 64), compression=1)
    cube = vc.open_virtual_dataset(path, loadable_variables=[])
    ours, theirs = [], []
    native = HDF5Parser.native

    def counting_fetch(registry, url, spans, stamp):
        ours.extend(spans)
        return fetch(registry, url, spans, stamp)

    @contextmanager
    def counting_native(url, registry):
        with native(url, registry) as read:

            def reading(path, region, span, codecs):
                theirs.append(span)
                return read(path, region, span, codecs)

            yield reading

    monkeypatch.setattr(run, "fetch", counting_fetch)
    monkeypatch.setattr(HDF5Parser, "native", staticmethod(counting_native))
    found = vc.verify(cube)
    assert (found.ok, found.compared) == (True, 64)
    assert len(ours) == len(set(ours)) == 64
    assert sorted(ours) == sorted(theirs)


def test_chunks_that_cannot_be_compared_are_counted_with_the_reason(tmp_path):
    path = tmp_path / "a.zarr"
    xr.Dataset({"v": ("x", np.arange(4))}).to_zarr(path, zarr_format=3, consolidated=False)
    store = vc.open_store(path)
    found = vc.verify(store.group, store.registry)
    assert found.ok
    assert found.compared == 0
    assert sum(found.unverified.values()) == 1


def test_a_file_that_is_gone(tmp_path):
    path = hdf5(tmp_path)
    store = vc.open_store(path)
    shutil.move(path, tmp_path / "b.h5")
    found = vc.verify(store.group, store.registry)
    assert [one.kind for one in found.problems] == ["gone"]
    assert found.unverified


def test_text_html_and_dictionary_say_the_same(tmp_path):
    path = hdf5(tmp_path)
    store = vc.open_store(path)
    found = vc.verify(store.group, store.registry)
    assert str(found).startswith("nothing is wrong: ")
    assert "nothing is wrong" in found._repr_html_()
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True
    assert "'sparse': 3 chunks are missing" in str(found)


def test_what_is_not_granted_is_not_read(tmp_path):
    store = vc.open_store(hdf5(tmp_path))
    with pytest.raises(NotGrantedError):
        vc.verify(store.group, {})
