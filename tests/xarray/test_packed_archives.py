"""Archives whose packing changes from file to file: the values of ``xr.open_mfdataset``, bit for bit."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import virtualchunks as vc
from tests.xarray.test_virtual_operations import SAFE
from virtualchunks.errors import CombineError, UnsupportedFeatureError
from virtualchunks.xarray.dataset import references_of

h5py = pytest.importorskip("h5py")

DAYS = {"units": "days since 2000-01-01"}
I2, F4 = np.int16, np.float32
#: dtype and attributes of two files.
DRIFTS: dict[str, tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = {
    "scale": (("i2", {"scale_factor": 0.1}), ("i2", {"scale_factor": 0.2})),
    "float32 scale": (("i2", {"scale_factor": F4(0.1)}), ("i2", {"scale_factor": F4(0.3), "add_offset": F4(273.15)})),
    "offset": (("i2", {"scale_factor": 0.1, "add_offset": 1.5}), ("i2", {"scale_factor": 0.1, "add_offset": -7.0})),
    "scale of another type": (("i2", {"scale_factor": F4(0.1)}), ("i2", {"scale_factor": 0.1})),
    "fill": (("i2", {"scale_factor": 0.5, "_FillValue": I2(1)}), ("i2", {"scale_factor": 0.5, "_FillValue": I2(3)})),
    "integers with a fill value": (("i2", {"_FillValue": I2(1)}), ("i2", {"_FillValue": I2(2)})),
    "integers, one file with a fill value": (("i2", {"_FillValue": I2(1)}), ("i2", {})),
    "long integers with a fill value": (("i4", {"_FillValue": np.int32(1)}), ("i4", {"_FillValue": np.int32(2)})),
    "one file packed": (("i2", {"scale_factor": F4(0.5)}), ("f4", {})),
    "one file packed, floats first": (("f8", {"_FillValue": np.nan}), ("i2", {"scale_factor": F4(0.5)})),
    "unsigned": (("i1", {"_Unsigned": "true", "_FillValue": np.int8(-1)}), ("i1", {"_FillValue": np.int8(-1)})),
    "signed": (("u1", {"_Unsigned": "false", "scale_factor": F4(0.5)}), ("u1", {"scale_factor": F4(0.5)})),
    "missing values": (("i2", {"missing_value": np.array([1, 2], "i2")}), ("i2", {"missing_value": I2(3)})),
    "both": (("i2", {"missing_value": I2(2), "_FillValue": I2(2)}), ("i2", {"_FillValue": I2(4)})),
    "masked floats": (("f4", {"_FillValue": F4(3)}), ("f4", {"_FillValue": np.float32(np.nan)})),
    "fill of a wider type": (("f4", {"missing_value": 1e20}), ("f4", {"missing_value": F4(1e20)})),
    "big-endian": ((">i2", {"scale_factor": 0.1}), ("<i2", {"scale_factor": 0.3, "_FillValue": I2(2)})),
    "big-endian floats": ((">f4", {"_FillValue": F4(3)}), (">f8", {"_FillValue": 2.0})),
    "other integers": (("i2", {"scale_factor": 0.1}), ("u1", {"scale_factor": 0.1})),
    "packed alike": (("i2", {"scale_factor": 0.1, "_FillValue": I2(2)}),) * 2,
}


def write(path: Path, number: int, dtype: str, attributes: dict[str, Any], days: int = 6, **layout: Any) -> Path:
    """Write some days of a variable, a scalar, and a variable without elements."""
    values = np.arange(days * 2).reshape(days, 2) % 7 + number
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=values.astype(dtype), **({"chunks": (2, 2), "compression": 4} | layout))
        file.create_dataset("s", data=np.array(number + 1, dtype))
        file.create_dataset("z", data=np.zeros((days, 0), dtype))
        file["time"] = np.arange(number * days, (number + 1) * days, dtype="i4")
        file["x"], file["none"] = np.arange(2.0), np.zeros(0)
        for name in ("time", "x", "none"):
            file[name].make_scale(name)
        for name, dimensions in {"v": ("time", "x"), "z": ("time", "none")}.items():
            for axis, dimension in enumerate(dimensions):
                file[name].dims[axis].attach_scale(file[dimension])
        for name in ("v", "s", "z"):
            file[name].attrs.update(attributes)
        file["time"].attrs.update(DAYS)
    return path


def opened(paths, **options):
    return [vc.open_virtual_dataset(path, **options) for path in paths]


COMBINE: dict[str, Callable[..., xr.Dataset]] = {
    "concat": lambda paths, **options: xr.concat(opened(paths, **options), "time", **SAFE),
    "nested": lambda paths, **options: xr.combine_nested(opened(paths, **options), "time", **SAFE),
    "by_coords": lambda paths, **options: xr.combine_by_coords(opened(paths, **options), **SAFE),
    "mfdataset": lambda paths, **options: vc.open_virtual_mfdataset(paths, **options),
}
READ: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "open": lambda cube: cube.virtual.open(),
    "store": lambda cube: xr.open_zarr(cube.virtual.to_store(), consolidated=False, zarr_format=3, chunks=None),
    "engine": lambda cube: xr.open_dataset(cube.virtual.to_store(), engine="virtualchunks"),
}


def by_xarray(paths, engine="h5netcdf", **options) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with xr.open_mfdataset(paths, engine=engine, **(SAFE | options)) as expected:
            return expected.load()


def assert_same_bits(found: xr.Dataset, expected: xr.Dataset, names=("v", "z", "s")) -> None:
    for name in names:
        one, other = found[name].values, expected[name].values
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        np.testing.assert_array_equal(one, other, name)
        missing = np.isnan(one)
        assert one[~missing].tobytes() == other[~missing].tobytes(), name


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.filterwarnings("ignore:variable:xarray.SerializationWarning")
def test_values_are_those_of_xarray(tmp_path, drift):
    files = DRIFTS[drift]
    paths = [write(tmp_path / f"{number}.nc", number, *file) for number, file in enumerate(files)]
    cube = vc.open_virtual_mfdataset(paths)
    expected = by_xarray(paths)
    assert cube["v"].dtype == expected["v"].dtype
    assert references_of(cube["v"]).is_heterogeneous == (drift != "packed alike")
    for name, read in READ.items():  # JSON, which Zarr's metadata is, keeps numbers but not their dtypes
        assert_same_bits(read(cube), expected, ["v"] if name == "store" else ["v", "z", "s"])
    for name in ("scale_factor", "add_offset", "_FillValue", "_Unsigned"):
        assert name not in cube["v"].attrs
        np.testing.assert_equal(cube["v"].encoding.get(name), files[0][1].get(name))


@pytest.mark.parametrize("combine", COMBINE)
@pytest.mark.parametrize("drift", ["scale", "one file packed", "big-endian", "integers, one file with a fill value"])
def test_however_they_are_combined(tmp_path, drift, combine):
    paths = [write(tmp_path / f"{number}.nc", number, *file) for number, file in enumerate(DRIFTS[drift])]
    assert_same_bits(COMBINE[combine](paths).virtual.open(), by_xarray(paths))


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
@pytest.mark.parametrize("drift", ["float32 scale", "unsigned", "one file packed", "masked floats"])
def test_in_any_order_and_with_either_engine(tmp_path, drift, engine):
    files = DRIFTS[drift] * 2
    paths = [write(tmp_path / f"{number}.nc", number, *file) for number, file in enumerate(files)]
    cube = vc.open_virtual_mfdataset(paths[::-1])
    assert_same_bits(cube.virtual.open(), by_xarray(paths[::-1], engine))
    assert_same_bits(cube.isel(time=slice(4, 12)).virtual.open(), by_xarray(paths).isel(time=slice(4, 12)))
    assert_same_bits(cube.transpose(..., "time").virtual.open(), by_xarray(paths).transpose(..., "time"))


def test_along_a_new_dimension(tmp_path):
    paths = [write(tmp_path / f"{number}.nc", 0, *file) for number, file in enumerate(DRIFTS["scale"])]
    cube = xr.concat(opened(paths), "run", **(SAFE | {"data_vars": "all"}))
    expected = by_xarray(paths, combine="nested", concat_dim="run", data_vars="all")
    assert cube["s"].dims == ("run",)
    for read in READ.values():
        assert_same_bits(read(cube), expected)


@pytest.mark.parametrize("drift", ["scale", "fill", "integers, one file with a fill value", "one file packed"])
@pytest.mark.parametrize("loaded", [0, 1])
def test_values_in_memory_join(tmp_path, drift, loaded):
    paths = [write(tmp_path / f"{number}.nc", number, *file) for number, file in enumerate(DRIFTS[drift])]
    parts = [
        vc.open_virtual_dataset(path, loadable_variables=["time", "x", "v"] if number == loaded else None)
        for number, path in enumerate(paths)
    ]
    cube = xr.concat(parts, "time", **SAFE)
    for read in READ.values():
        assert_same_bits(read(cube), by_xarray(paths), ["v"])


@pytest.mark.parametrize("fill", [None, I2(5), I2(0)])
def test_chunks_that_were_never_written(tmp_path, fill):
    for number, scale in enumerate([0.1, 0.2]):
        path = write(tmp_path / f"{number}.nc", number, "i2", {"scale_factor": scale, "add_offset": 1.0})
        with h5py.File(path, "a") as file:
            del file["v"]
            made = file.create_dataset("v", (6, 2), "i2", chunks=(2, 2), fillvalue=fill)
            made[2:] = number + 3
            made.attrs.update({"scale_factor": scale, "_FillValue": I2(5)})
            made.dims[0].attach_scale(file["time"])
            made.dims[1].attach_scale(file["x"])
    paths = [tmp_path / "0.nc", tmp_path / "1.nc"]
    cube = vc.open_virtual_mfdataset(paths)
    for read in READ.values():
        assert_same_bits(read(cube), by_xarray(paths), ["v"])


def test_missing_chunks_that_read_unlike(tmp_path):
    paths = []
    for number, offset in enumerate([1.0, 2.0]):
        paths.append(write(tmp_path / f"{number}.nc", number, "i2", {}))
        with h5py.File(paths[-1], "a") as file:
            del file["v"]
            made = file.create_dataset("v", (6, 2), "i2", chunks=(2, 2))
            made[2:] = 3
            made.attrs["add_offset"] = offset
            made.dims[0].attach_scale(file["time"])
            made.dims[1].attach_scale(file["x"])
    cube = vc.open_virtual_mfdataset(paths)
    for read in READ.values():
        assert_same_bits(read(cube), by_xarray(paths), ["v"])
    assert sorted({entry["path"] for entry in cube["v"].data.manifest.values()})[0] == "__inlined__"


def test_gaps_read_as_nan(tmp_path):
    paths = [write(tmp_path / f"{number}.nc", number, *file) for number, file in enumerate(DRIFTS["scale"])]
    with xr.open_mfdataset(paths, engine="h5netcdf", **SAFE) as expected:
        wanted = expected["time"].values[[*range(6), 6, 7]] + np.timedelta64(2, "D")
        found = vc.open_virtual_mfdataset(paths)["v"].to_dataset().reindex(time=wanted)
        for read in READ.values():
            assert_same_bits(read(found), expected.reindex(time=wanted), ["v"])


@pytest.mark.parametrize("drift", ["packed alike", "integers with a fill value"])
def test_what_is_packed_alike_is_served_as_it_is_stored(tmp_path, drift):
    file = DRIFTS[drift][0]
    paths = [write(tmp_path / f"{number}.nc", number, *file) for number in range(2)]
    cube, raw = vc.open_virtual_mfdataset(paths), vc.open_virtual_mfdataset(paths, mask_and_scale=False)
    one, other = (zarr.open_group(dataset.virtual.to_store(), mode="r")["v"] for dataset in (cube, raw))
    assert one.metadata == other.metadata
    assert one.dtype == np.dtype("i2")
    assert dict(one.attrs)["_FillValue"] is not None
    for key in ("c/0/0", "c/5/0"):
        stored = [dataset.virtual.to_store().get_sync(f"v/{key}") for dataset in (cube, raw)]
        assert stored[0].to_bytes() == stored[1].to_bytes()
    assert cube.virtual.to_kerchunk() == raw.virtual.to_kerchunk()


def test_stored_numbers_are_given_where_they_mean_one_thing(tmp_path):
    paths = [write(tmp_path / f"{number}.nc", number, *file) for number, file in enumerate(DRIFTS["scale"])]
    raw = vc.open_virtual_mfdataset([paths[0]]).virtual.open(mask_and_scale=False)
    assert raw["v"].dtype == np.dtype("i2")
    assert raw["v"].attrs["scale_factor"] == 0.1
    cube = vc.open_virtual_mfdataset(paths)
    with pytest.raises(UnsupportedFeatureError, match=r"mask_and_scale=False.*several ways.*'v'"):
        cube.virtual.open(mask_and_scale=False)
    with pytest.raises(UnsupportedFeatureError, match="decode in 2 ways"):
        cube.virtual.to_kerchunk()
    mixed = [vc.open_virtual_dataset(paths[0]), vc.open_virtual_dataset(paths[1], mask_and_scale=False)]
    with pytest.raises(CombineError, match=r"'scale_factor' differs"):
        xr.concat(mixed, "time", **SAFE)


def test_a_packed_array_of_another_dtype_is_not_written_packed(tmp_path):
    path = write(tmp_path / "0.nc", 0, "i2", {"scale_factor": F4(0.5)})
    wide = vc.open_virtual_dataset(path)[["v"]].astype("f8")
    assert references_of(wide["v"]).is_heterogeneous
    np.testing.assert_array_equal(wide.virtual.open()["v"], by_xarray([path])["v"])
    with pytest.raises(UnsupportedFeatureError, match=r"'v' are packed as .*scale_factor"):
        wide.virtual.to_kerchunk()
