"""Chunks that decode to more than their place, where another file follows; calendars that differ."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import virtualchunks as vc
from tests.xarray.test_packed_archives import COMBINE, READ, assert_same_bits, by_xarray
from tests.xarray.test_virtual_operations import SAFE
from virtualchunks.errors import CombineError
from virtualchunks.xarray.dataset import references_of


def write(path: Path, start: int, length: int, chunk: int, calendar: str | None = None, units: str = "K") -> Path:
    values = np.random.default_rng(start).integers(0, 99, (length, 3)).astype("f4")
    with h5py.File(path, "w") as file:
        layout = {"chunks": (chunk, 2), "maxshape": (None, 3), "compression": 1, "shuffle": True}
        variable = file.create_dataset("v", data=values, **layout)
        variable.attrs["units"] = units
        if calendar is not None:
            variable.attrs["calendar"] = calendar
        file["time"], file["x"] = np.arange(start, start + length), np.arange(3)
        file["time"].attrs["units"] = "days since 2019-01-01"
        for axis, name in enumerate(("time", "x")):
            file[name].make_scale(name)
            variable.dims[axis].attach_scale(file[name])
    return path


#: The lengths of the files, and of their chunks along time.
FILES = {
    "years of 61 days": ([365, 366, 365], 61),
    "an unlimited dimension in long chunks": ([5, 3, 4], 512),
    "chunks of another length than any file": ([7, 8, 2], 3),
}


@pytest.mark.parametrize("combine", COMBINE)
@pytest.mark.parametrize("case", FILES)
def test_chunks_at_the_end_of_a_file(tmp_path, case, combine):
    lengths, chunk = FILES[case]
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    paths = [write(tmp_path / f"{n}.nc", *place, chunk) for n, place in enumerate(zip(starts, lengths, strict=True))]
    cube = COMBINE[combine](paths)
    assert references_of(cube["v"]).is_heterogeneous
    for read in (READ["open"], READ["engine"]):
        assert_same_bits(read(cube), by_xarray(paths), ["v"])


def test_short_strips_of_tiff(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    images = [np.random.default_rng(n).integers(0, 255, (25, 16)).astype("u2") for n in range(3)]
    paths = [tmp_path / f"{number}.tif" for number in range(3)]
    for path, image in zip(paths, images, strict=True):
        tifffile.imwrite(path, image, rowsperstrip=10, compression="zlib")
    parts = [vc.open_virtual_dataset(path) for path in paths]
    [name] = parts[0].data_vars
    rows = parts[0][name].dims[0]
    cube = xr.concat(parts, rows, **SAFE)
    assert references_of(cube[name]).metadata.grid.axes[0].edges == (10, 10, 5) * 3
    np.testing.assert_array_equal(cube.virtual.open()[name].values, np.concatenate(images))


def test_calendars_are_compared_where_xarray_drops_attributes(tmp_path):
    paths = [
        write(tmp_path / f"{number}.nc", 4 * number, 4, 2, calendar, "days since 2000-01-01")
        for number, calendar in enumerate(("noleap", "360_day"))
    ]
    parts = [vc.open_virtual_dataset(path).drop_attrs() for path in paths]
    with pytest.raises(CombineError, match=r"'calendar' differs.*0\.nc.*1\.nc.*'v'"):
        xr.concat(parts, "time", combine_attrs="drop", **SAFE)
