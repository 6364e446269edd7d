"""Files of one archive that differ in their variables, their labels, their rounding, the order of their dimensions."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import virtualchunks as vc
from tests.xarray.test_packed_archives import COMBINE, READ, assert_same_bits, by_xarray
from tests.xarray.test_virtual_operations import SAFE
from virtualchunks.errors import CombineError, UnsupportedFeatureError
from virtualchunks.xarray.dataset import references_of

pytest.importorskip("h5netcdf")

UNITS = {"units": "days since 2000-01-01", "dtype": "i4"}
CHUNKED: dict[str, Any] = {"zlib": True, "chunksizes": (2, 3)}


@pytest.fixture(autouse=True)
def rectilinear():
    with zarr.config.set({"array.rectilinear_chunks": True}):
        yield


def daily(start: int, days: int, names: str = "ab", encoding: dict[str, Any] | None = None) -> xr.Dataset:
    """Return some days of variables, which tell by their values from which file they are."""
    time = np.datetime64("2000-01-01", "ns") + np.arange(start, start + days) * np.timedelta64(1, "D")
    values = np.arange(days * 3.0).reshape(days, 3) + 100 * start
    made = xr.Dataset(
        {name: (("time", "x"), (values + ord(name)).astype("f4")) for name in names},
        {"time": time, "x": [0.1, 0.2, 0.3]},
    )
    made["time"].encoding = dict(UNITS)
    for name in names:
        made[name].encoding = dict(CHUNKED if encoding is None else encoding)
    return made


def written(folder: Path, datasets) -> list[Path]:
    paths = [folder / f"{number}.nc" for number in range(len(datasets))]
    for path, dataset in zip(paths, datasets, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xr.SerializationWarning)  # values are whole numbers
            dataset.to_netcdf(path, engine="h5netcdf")
    return paths


NESTED = {"combine": "nested", "concat_dim": "time"}
#: What the variables of three files are stored as.
STORED = {
    "f4": {},
    "i2 packed": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": np.int16(-9)},
    "i2 without a fill value": {"dtype": "i2", "_FillValue": None},
    "i4 without a fill value": {"dtype": "i4", "_FillValue": None},
}

# -------------------------------------------------------------------------------------------------------- variables


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(
    ("names", "options"),
    [(("ab", "a", "ab"), NESTED), (("a", "ab", "b"), {}), (("b", "a", "ab"), NESTED)],
    ids=["nested", "by coords", "nested, none in common"],
)
def test_the_union_of_variables(tmp_path, names, stored, options):
    encoding = CHUNKED | STORED[stored]
    datasets = [daily(6 * n, 6, own, encoding) for n, own in enumerate(names)]
    if stored == "i2 packed":
        datasets[-1]["b"].encoding["scale_factor"] = 0.25
    paths = written(tmp_path, datasets)
    cube = vc.open_virtual_mfdataset(paths, variables="union", **options)
    expected = by_xarray(paths, **NESTED)
    assert set(cube.data_vars) == {"a", "b"}
    for read in READ.values():
        assert_same_bits(read(cube), expected, ["a", "b"])


def test_the_union_of_what_is_packed_alike_stays_as_it_is_stored(tmp_path):
    encoding = CHUNKED | STORED["i2 packed"]
    paths = written(tmp_path, [daily(6 * n, 6, own, encoding) for n, own in enumerate(["a", "ab", "b"])])
    cube = vc.open_virtual_mfdataset(paths, variables="union")
    assert not references_of(cube["a"]).is_heterogeneous
    assert not references_of(cube["b"]).is_heterogeneous
    stored = zarr.open_group(cube.virtual.to_store(), mode="r")["b"]
    assert (stored.dtype, stored.fill_value) == (np.dtype("i2"), -9)
    assert len(references_of(cube["b"]).manifest) == 6


def test_the_union_where_loaded_and_where_constant(tmp_path):
    datasets = [daily(6 * n, 6, own) for n, own in enumerate(["a", "ab"])]
    datasets[1]["mask"] = ("x", [1, 2, 3])
    datasets[1] = datasets[1].assign_coords(height=2.0)
    paths = written(tmp_path, datasets)
    cube = vc.open_virtual_mfdataset(paths, variables="union", loadable_variables=["time", "x", "b"])
    assert references_of(cube["b"]) is None
    assert_same_bits(cube.virtual.open(), by_xarray(paths, **NESTED), ["a", "b"])
    assert cube.virtual.open()["mask"].values.tolist() == [1, 2, 3]
    assert "height" in cube.coords


def test_the_union_along_a_new_dimension(tmp_path):
    paths = written(tmp_path, [daily(0, 6, own) for own in ("a", "ab")])
    cube = vc.open_virtual_mfdataset(paths, combine="nested", concat_dim="run", variables="union", data_vars="all")
    expected = by_xarray(paths, combine="nested", concat_dim="run", data_vars="all")
    assert_same_bits(cube.virtual.open(), expected, ["a", "b"])


def test_stored_numbers_without_a_missing_one_are_refused(tmp_path):
    encoding = CHUNKED | {"dtype": "i2", "scale_factor": 0.5, "_FillValue": None}
    paths = written(tmp_path, [daily(6 * n, 6, own, encoding) for n, own in enumerate(["a", "ab"])])
    with pytest.raises(UnsupportedFeatureError, match=r"lacks this variable.*intersection.*'b'.*0\.nc"):
        vc.open_virtual_mfdataset(paths, variables="union", mask_and_scale=False)
    datasets = [daily(6 * n, 6, own) for n, own in enumerate(["a", "ab"])]
    datasets[1]["b"] = datasets[1]["b"] > 0
    paths = written(tmp_path, datasets)
    with pytest.raises(UnsupportedFeatureError, match=r"no value of bool means missing.*'b'.*0\.nc"):
        vc.open_virtual_mfdataset(paths, variables="union", loadable_variables=["time", "x", "b"])


@pytest.mark.parametrize("combine", [{}, NESTED], ids=["by coords", "nested"])
def test_the_intersection_of_variables(tmp_path, combine):
    paths = written(tmp_path, [daily(6 * n, 6, own) for n, own in enumerate(["ab", "a", "ac"])])
    cube = vc.open_virtual_mfdataset(paths, variables="intersection", **combine)
    assert set(cube.data_vars) == {"a"}
    assert_same_bits(cube.virtual.open(), by_xarray(paths, **NESTED), ["a"])


def test_variables_that_some_files_lack_are_named(tmp_path):
    paths = written(tmp_path, [daily(6 * n, 6, own) for n, own in enumerate(["ab", "a", "a"])])
    with pytest.raises(CombineError, match=r"0\.nc has the variable 'b'.* 2 of 3 files lack.*union.*1\.nc"):
        vc.open_virtual_mfdataset(paths, variables="error")
    for argument in ("variables", "overlap"):
        with pytest.raises(ValueError, match=rf"{argument} is one of .*not 'all'"):
            vc.open_virtual_mfdataset(paths, **{argument: "all"})
    same = written(tmp_path, [daily(6 * n, 6) for n in range(2)])
    assert set(vc.open_virtual_mfdataset(same, variables="error").data_vars) == {"a", "b"}


@pytest.mark.parametrize("names", [("ab", "a"), ("a", "ab")], ids="-".join)
def test_by_default_it_is_as_xarray_has_it(tmp_path, names):
    paths = written(tmp_path, [daily(6 * n, 6, own) for n, own in enumerate(names)])
    cube = vc.open_virtual_mfdataset(paths, **NESTED)
    assert_same_bits(cube.virtual.open(), by_xarray(paths, **NESTED), ["a", "b"])


# ---------------------------------------------------------------------------------------------------------- overlap


@pytest.mark.parametrize("keep", ["first", "last"])
@pytest.mark.parametrize("encoding", [CHUNKED, {"contiguous": True}, {"zlib": True, "chunksizes": (5, 2)}], ids=str)
@pytest.mark.parametrize(
    ("spans", "options"),
    [([(0, 6), (4, 6)], {}), ([(0, 6), (3, 5), (7, 4)], NESTED), ([(0, 5), (0, 5), (5, 2)], {})],
    ids=["two by coords", "three nested", "one twice, by coords"],
)
def test_labels_that_several_files_have(tmp_path, keep, encoding, spans, options):
    paths = written(tmp_path, [daily(*span, encoding=encoding) for span in spans])
    cube = vc.open_virtual_mfdataset(paths, overlap=keep, **options)
    expected = by_xarray(paths, **NESTED).drop_duplicates("time", keep=keep)
    np.testing.assert_array_equal(cube["time"], expected["time"])
    for read in READ.values():
        assert_same_bits(read(cube), expected, ["a", "b"])


def test_labels_within_another_file(tmp_path):
    paths = written(tmp_path, [daily(0, 9), daily(3, 4), daily(20, 1)])
    kept = vc.open_virtual_mfdataset(paths, overlap="last", **NESTED)
    expected = by_xarray(paths, **NESTED).drop_duplicates("time", keep="last")
    assert_same_bits(kept.virtual.open(), expected, ["a", "b"])
    assert kept["time"].size == 10


def test_overlap_is_named(tmp_path):
    paths = written(tmp_path, [daily(0, 6), daily(4, 6)])
    for options in ({}, NESTED):
        with pytest.raises(CombineError, match=r"2 labels of 'time'.*2000-01-05.*0\.nc and .*1\.nc.*overlap='first'"):
            vc.open_virtual_mfdataset(paths, overlap="error", **options)
    with pytest.raises(CombineError, match=r"needs the labels of 'time'.*loadable_variables"):
        vc.open_virtual_mfdataset(paths, overlap="first", loadable_variables=["x"], **NESTED)
    with pytest.raises(UnsupportedFeatureError, match=r"one dimension.*\['time', 'x'\]"):
        vc.open_virtual_mfdataset(
            [[path] for path in paths], overlap="first", combine="nested", concat_dim=["time", "x"]
        )
    apart = written(tmp_path, [daily(0, 6), daily(6, 6)])
    assert vc.open_virtual_mfdataset(apart, overlap="error")["time"].size == 12


# -------------------------------------------------------------------------------------- rounding, order of dimensions


def test_coordinates_that_differ_by_rounding(tmp_path):
    datasets = [daily(6 * n, 6) for n in range(3)]
    datasets[1] = datasets[1].assign_coords(x=datasets[1]["x"].astype("f4").astype("f8"))
    paths = written(tmp_path, datasets)
    with pytest.raises((xr.AlignmentError, ValueError)):
        vc.open_virtual_mfdataset(paths, **NESTED)
    for options in ({}, NESTED):
        cube = vc.open_virtual_mfdataset(paths, tolerance=1e-6, **options)
        assert cube["x"].values.tolist() == [0.1, 0.2, 0.3]
        assert_same_bits(cube.virtual.open(), by_xarray(paths, join="override", **NESTED), ["a", "b"])
        with pytest.raises((xr.AlignmentError, ValueError)):
            vc.open_virtual_mfdataset(paths, tolerance=1e-9, **options)


@pytest.mark.parametrize("combine", COMBINE)
def test_dimensions_in_another_order(tmp_path, combine):
    datasets = [daily(6 * n, 6) for n in range(2)]
    datasets[1] = datasets[1].transpose("x", "time")
    for name in "ab":
        datasets[1][name].encoding = {"zlib": True, "chunksizes": (3, 2)}
    paths = written(tmp_path, datasets)
    cube = COMBINE[combine](paths)
    assert cube["a"].dims == ("time", "x")
    for read in READ.values():
        assert_same_bits(read(cube), by_xarray(paths), ["a", "b"])


def test_everything_at_once(tmp_path):
    datasets = [daily(0, 6, "a"), daily(4, 6, "ab"), daily(10, 5, "b").transpose("x", "time")]
    datasets[0]["a"].encoding = {"chunksizes": (4, 2), "dtype": "i2", "scale_factor": 0.5, "_FillValue": np.int16(-1)}
    datasets[1]["a"].encoding = {"chunksizes": (5, 3), "dtype": "i4", "scale_factor": np.float32(2)}
    datasets[1] = datasets[1].assign_coords(x=datasets[1]["x"] + 1e-9)
    datasets[2]["b"].encoding = {"zlib": True, "chunksizes": (1, 5)}
    paths = written(tmp_path, datasets)
    cube = vc.open_virtual_mfdataset(paths, variables="union", overlap="last", tolerance=1e-8)
    expected = by_xarray(paths, join="override", **NESTED).drop_duplicates("time", keep="last")
    for read in READ.values():
        assert_same_bits(read(cube), expected, ["a", "b"])
    assert SAFE["join"] == "exact"
