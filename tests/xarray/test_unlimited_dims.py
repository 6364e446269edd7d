"""Dimensions that may grow, against xarray's own netCDF backends."""

import pickle
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

import virtualchunks as vc
from virtualchunks.writers.datasets import as_group
from virtualchunks_parsers.hdf5 import HDF5Parser

CLASSIC = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]
FORMATS = ["NETCDF4", "NETCDF4_CLASSIC", *CLASSIC]


def write(path: Path, format: str = "NETCDF4", unlimited: tuple[str, ...] = ("time",)) -> Path:
    with netCDF4.Dataset(path, "w", format=format) as file:
        for name, size in (("time", 3), ("x", 4), ("n", 2)):
            file.createDimension(name, None if name in unlimited else size)
        file.createVariable("time", "f8", ("time",))[:] = [0, 1, 2]
        file.createVariable("v", "i4", ("time", "x"))[:] = np.zeros((3, 4))
        file.createVariable("w", "i4", ("n", "x"))[:] = np.zeros((2, 4))
    return path


@pytest.mark.parametrize(
    ("format", "unlimited"),
    [*((format, names) for format in FORMATS for names in ((), ("time",))), ("NETCDF4", ("time", "n"))],
    ids=str,
)
def test_files_tell_as_xarray_tells(format, unlimited, tmp_path):
    path = write(tmp_path / "a.nc", format, unlimited)
    with xr.open_dataset(path, engine="netcdf4", decode_times=False) as expected:
        wanted = expected.encoding["unlimited_dims"]
    assert wanted == set(unlimited)
    assert vc.open_virtual_dataset(path).encoding["unlimited_dims"] == wanted
    assert vc.open_virtual_datatree(path).encoding["unlimited_dims"] == wanted
    with xr.open_dataset(path, engine="virtualchunks", decode_times=False) as opened:
        assert opened.encoding["unlimited_dims"] == wanted


def test_groups_have_their_own(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("time", None)
        file.createVariable("v", "i4", ("time",))[:] = [1, 2]
        group = file.createGroup("g")
        group.createDimension("level", None)
        group.createDimension("x", 2)
        group.createVariable("w", "i4", ("time", "level", "x"))[:] = np.zeros((2, 3, 2))
        file.createGroup("fixed").createDimension("x", 2)
    tree = vc.open_virtual_datatree(tmp_path / "a.nc")
    assert tree.encoding["unlimited_dims"] == {"time"}
    assert tree["g"].encoding["unlimited_dims"] == {"time", "level"}  # all that its arrays have
    assert tree["fixed"].encoding["unlimited_dims"] == set()


def test_hdf5_without_dimension_scales(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", shape=(3, 4), maxshape=(None, 4), chunks=(1, 4), dtype="f4")
        file.create_dataset("bounded", shape=(5,), maxshape=(10,), chunks=(1,), dtype="f4")
        file.create_dataset("pairs", shape=(6,), maxshape=(None,), chunks=(2,), dtype=np.dtype(("i4", (2,))))
    group = HDF5Parser().parse(str(tmp_path / "a.h5"))
    names = {group.arrays["v"].metadata.dimension_names[0], group.arrays["pairs"].metadata.dimension_names[0]}
    assert group.unlimited_dims == names
    with netCDF4.Dataset(tmp_path / "a.h5") as file:
        assert {len(dimension) for dimension in file.dimensions.values() if dimension.isunlimited()} >= {3}


def test_they_stay_through_opening_and_writing(tmp_path):
    virtual = vc.open_virtual_dataset(write(tmp_path / "a.nc"), decode_times=False)
    virtual.virtual.open(decode_times=False).to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    with netCDF4.Dataset(tmp_path / "b.nc") as file:
        assert file.dimensions["time"].isunlimited()
        assert not file.dimensions["x"].isunlimited()
    assert as_group(virtual).unlimited_dims == {"time"}
    assert as_group(virtual.isel(time=0)).unlimited_dims == set()
    assert as_group(xr.DataTree(virtual)).unlimited_dims == {"time"}


def test_groups_compare_and_pickle_with_them():
    group = vc.ManifestGroup(unlimited_dims=["time"])
    assert group.unlimited_dims == frozenset({"time"})
    assert pickle.loads(pickle.dumps(group)) == group != vc.ManifestGroup()
    assert "unlimited_dims" not in vc.ManifestGroup().to_virtual_dataset().encoding
