"""Archives whose chunk shape changes from file to file: the values of ``xr.open_mfdataset``, bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import virtualchunks as vc
from tests.xarray.test_packed_archives import COMBINE, READ, assert_same_bits, by_xarray
from tests.xarray.test_virtual_operations import SAFE
from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.errors import CombineError, UnsupportedFeatureError
from virtualchunks.writers.datasets import as_group
from virtualchunks.xarray.dataset import references_of

h5py = pytest.importorskip("h5py")

GZIP = {"compression": 4}
SHAPE = (6, 10, 12)
LAYOUTS: dict[str, tuple[dict[str, Any], ...]] = {
    "halved": ({"chunks": (1, 10, 12), **GZIP}, {"chunks": (1, 5, 6), **GZIP}),
    "finer first": ({"chunks": (1, 5, 6), **GZIP}, {"chunks": (2, 10, 12), **GZIP}),
    "neither divides the other": ({"chunks": (2, 4, 12), **GZIP}, {"chunks": (1, 3, 5), **GZIP}),
    "edges that overhang": ({"chunks": (4, 7, 8), **GZIP}, {"chunks": (4, 10, 8), **GZIP}),
    "contiguous": ({}, {"chunks": (1, 5, 12), **GZIP}),
    "both uncompressed": ({}, {"chunks": (1, 5, 12)}, {"chunks": (3, 2, 12)}),
    "three": ({"chunks": (1, 10, 12), **GZIP}, {"chunks": (6, 1, 12), "shuffle": True}, {"chunks": (2, 3, 4)}),
    "one chunk alike": ({"chunks": SHAPE, **GZIP}, {"chunks": (6, 10, 6), **GZIP}),
}


def write(path: Path, number: int, layout: dict[str, Any], dtype="f4", attributes=None, shape=SHAPE) -> Path:
    values = np.random.default_rng(number).integers(0, 1000, shape)
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=values.astype(dtype), **layout)
        file["v"].attrs.update(attributes or {})
        file["time"] = np.arange(number * shape[0], (number + 1) * shape[0], dtype="i4")
        file["time"].attrs["units"] = "days since 2000-01-01"
        file["y"], file["x"] = np.arange(shape[1] * 1.0), np.arange(shape[2] * 1.0)
        for axis, name in enumerate(("time", "y", "x")):
            file[name].make_scale(name)
            file["v"].dims[axis].attach_scale(file[name])
    return path


def write_all(folder: Path, layouts: tuple[dict[str, Any], ...], **options: Any) -> list[Path]:
    return [write(folder / f"{number}.nc", number, layout, **options) for number, layout in enumerate(layouts)]


@pytest.fixture(autouse=True)
def rectilinear():
    with zarr.config.set({"array.rectilinear_chunks": True}):
        yield


@pytest.mark.parametrize("layouts", LAYOUTS)
def test_values_are_those_of_xarray(tmp_path, layouts):
    paths = write_all(tmp_path, LAYOUTS[layouts])
    cube, expected = vc.open_virtual_mfdataset(paths), by_xarray(paths)
    array = references_of(cube["v"])
    assert array is not None
    for read in READ.values():
        assert_same_bits(read(cube), expected, ["v"])
    part = {"time": slice(3, 9), "y": [0, 9, 4], "x": 7}
    assert_same_bits(cube.virtual.open().isel(part), expected.isel(part), ["v"])
    assert_same_bits(cube.transpose("x", ...).virtual.open(chunks={}), expected.transpose("x", ...), ["v"])


@pytest.mark.parametrize("combine", COMBINE)
def test_however_they_are_combined(tmp_path, combine):
    paths = write_all(tmp_path, LAYOUTS["halved"])
    cube = COMBINE[combine](paths)
    assert references_of(cube["v"]).metadata.grid.chunk_shape == (1, 5, 6)
    assert_same_bits(cube.virtual.open(), by_xarray(paths), ["v"])


def test_along_a_new_dimension_and_along_two(tmp_path):
    paths = [write(tmp_path / f"{number}.nc", 0, layout) for number, layout in enumerate(LAYOUTS["three"])]
    cube = xr.concat([vc.open_virtual_dataset(path) for path in paths], "run", **(SAFE | {"data_vars": "all"}))
    expected = by_xarray(paths, combine="nested", concat_dim="run", data_vars="all")
    for read in READ.values():
        assert_same_bits(read(cube), expected, ["v"])


def test_chunks_and_packing_change_together(tmp_path):
    paths = []
    for number, (layout, scale) in enumerate(zip(LAYOUTS["three"], (0.1, 0.2, np.float32(0.1)), strict=True)):
        attributes = {"scale_factor": scale, "_FillValue": np.int16(number)}
        paths.append(write(tmp_path / f"{number}.nc", number, layout, dtype="<i2" if number else ">i2"))
        with h5py.File(paths[-1], "a") as file:
            file["v"].attrs.update(attributes)
    cube = vc.open_virtual_mfdataset(paths)
    for read in READ.values():
        assert_same_bits(read(cube), by_xarray(paths), ["v"])
    pytest.importorskip("pyarrow")
    group = vc.ManifestGroup.from_arrow(cube.virtual.to_arrow())
    back = group.to_virtual_dataset(registry={tmp_path.as_uri(): None})
    assert group.arrays["v"].metadata == as_group(cube).arrays["v"].metadata
    assert_same_bits(back.virtual.open(), by_xarray(paths), ["v"])


def test_missing_chunks_stay_missing(tmp_path):
    paths = write_all(tmp_path, LAYOUTS["halved"])
    with h5py.File(paths[0], "a") as file:
        del file["v"]
        made = file.create_dataset("v", SHAPE, "f4", chunks=(1, 10, 12), fillvalue=-5, **GZIP)
        made[3:] = 2
        for axis, name in enumerate(("time", "y", "x")):
            made.dims[axis].attach_scale(file[name])
    cube = vc.open_virtual_mfdataset(paths)
    assert len(references_of(cube["v"]).manifest) == 3 * 4 + 6 * 4
    for read in READ.values():
        assert_same_bits(read(cube), by_xarray(paths), ["v"])


def test_many_files_have_few_encodings(tmp_path):
    layouts = tuple({"chunks": (1, 10, 12) if number % 2 else (1, 5, 6), **GZIP} for number in range(8))
    paths = write_all(tmp_path, layouts, shape=(2, 10, 12))
    array = references_of(vc.open_virtual_mfdataset(paths)["v"])
    assert len(array.manifest.sources.encodings) <= 4
    assert array.manifest.compact().sources.urls.nbytes < 8 * 5 * 200


def test_a_store_decodes_a_block_once_for_all_of_its_chunks(tmp_path, monkeypatch):
    paths = write_all(tmp_path, LAYOUTS["halved"])
    decoded = []

    def counting(data, *how):
        decoded.append(len(data))
        return decode_block(data, *how)

    monkeypatch.setattr("virtualchunks.store_chunks.decode_block", counting)
    store = vc.open_virtual_mfdataset(paths).virtual.to_store()
    served = [store.get_sync(f"v/c/{time}/{y}/{x}") for time in range(12) for y in range(2) for x in range(2)]
    assert len(served) == 48
    assert len(decoded) == 6 + 24
    assert min(decoded) > 0
    expected = by_xarray(paths)["v"].values
    found = np.frombuffer(served[3].to_bytes(), "<f4").reshape(1, 5, 6)
    np.testing.assert_array_equal(found, expected[:1, 5:, 6:])


def test_what_cannot_be_written_or_joined_is_named(tmp_path):
    cube = vc.open_virtual_mfdataset(write_all(tmp_path, LAYOUTS["halved"]))
    with pytest.raises(UnsupportedFeatureError, match=r"'v' decode in .* ways.*start="):
        cube.virtual.to_kerchunk()
    other = write(tmp_path / "other.nc", 2, {}, shape=(6, 10, 11))
    with pytest.raises(CombineError, match=r"sizes along axis 2 differ: 12 and 11.*other\.nc"):
        np.concatenate([references_of(cube["v"]), references_of(vc.open_virtual_dataset(other)["v"])])
