"""What xarray does to Datasets of references gives, once opened, what it gives on the values."""

import copy
import pickle

import numpy as np
import pytest
import xarray as xr

from tests.xarray.conftest import Archive
from virtualchunks import ManifestArray
from virtualchunks.errors import ChunkIndexError, CombineError, VirtualArrayError

SAFE = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "exact"}


def references(dataset: xr.Dataset) -> set[str]:
    return {str(name) for name, variable in dataset.variables.items() if isinstance(variable._data, ManifestArray)}


def rearrange(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.transpose("x", "y", "time", "nv")


OPERATIONS = {
    "isel slice": lambda ds: ds.isel(time=slice(1, 3)),
    "isel to the end": lambda ds: ds.isel(time=slice(2, None), x=slice(3, 6)),
    "isel integer": lambda ds: ds.isel(time=2),
    "isel list": lambda ds: ds.isel(time=[3, 0, 0]),
    "isel step": lambda ds: ds.isel(time=slice(None, None, 2)),
    "isel reversed": lambda ds: ds.isel(time=slice(None, None, -1)),
    "isel nothing": lambda ds: ds.isel(time=slice(0, 0)),
    "sel": lambda ds: ds.sel(time=slice("2020-01-02", "2020-01-03")),
    "sel one": lambda ds: ds.sel(time="2020-01-02"),
    "expand_dims": lambda ds: ds.expand_dims("member"),
    "expand and squeeze": lambda ds: ds.expand_dims("member").squeeze("member"),
    "transpose": rearrange,
    "rename": lambda ds: ds.rename(air="t", x="lon", time="day"),
    "drop": lambda ds: ds.drop_vars(["rain", "lat"]),
    "select names": lambda ds: ds[["air"]],
    "set_coords": lambda ds: ds.set_coords("mask"),
    "reset_coords": lambda ds: ds.reset_coords("lat"),
    "assign": lambda ds: ds.assign(again=ds["air"]),
    "copy": lambda ds: ds.copy(),
    "deep copy": lambda ds: ds.copy(deep=True),
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda ds: pickle.loads(pickle.dumps(ds)),
    "reindex": lambda ds: ds[["air", "lat"]].reindex(time=[*ds.time.values[1:], np.datetime64("2021-01-01", "ns")]),
    "sortby": lambda ds: ds.sortby("time", ascending=False),
    "roll by whole chunks": lambda ds: ds[["air"]].roll(time=1, roll_coords=True),
    "broadcast_like": lambda ds: ds[["mask"]].broadcast_like(ds[["air"]]),
    "swap_dims": lambda ds: ds.assign_coords(step=("time", np.arange(4))).swap_dims(time="step"),
    "to_array-free groupby": lambda ds: xr.concat([part for _, part in ds.groupby("time")], "time", **SAFE),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_one_dataset(archive: Archive, operation):
    virtual = operation(archive.open()[0])
    assert references(virtual)
    xr.testing.assert_identical(virtual.virtual.open().load(), operation(archive.values[0]))


def fill_first(ds: list[xr.Dataset]) -> list[xr.Dataset]:
    return [part[["air"]] for part in ds]


COMBINATIONS = {
    "concat": lambda ds: xr.concat(ds, "time", **SAFE),
    "concat new dimension": lambda ds: xr.concat(
        [part.isel(time=slice(0, 2)).drop_vars(["time"]) for part in ds], "run", **{**SAFE, "data_vars": "all"}
    ),
    "combine_nested": lambda ds: xr.combine_nested(ds, "time", **SAFE),
    "combine_nested in two dimensions": lambda ds: xr.combine_nested(
        [[part.isel(x=slice(0, 3)), part.isel(x=slice(3, 6))] for part in ds], ["time", "x"], **SAFE
    ),
    "combine_by_coords": lambda ds: xr.combine_by_coords(ds[::-1], **SAFE),
    "concat, outer join": lambda ds: xr.concat(
        [fill_first(ds)[0].isel(x=slice(0, 3)), fill_first(ds)[1]], "time", **{**SAFE, "join": "outer"}
    ),
    "merge": lambda ds: xr.merge([ds[0][["air"]], ds[0][["rain"]]], compat="override", join="exact"),
    "merge and compare": lambda ds: xr.merge([ds[0], ds[0].copy(deep=True)], compat="equals", join="exact"),
    "merge, no conflicts": lambda ds: xr.merge([ds[0], ds[0]], compat="no_conflicts", join="exact"),
    "align": lambda ds: xr.align(*fill_first(ds)[:2], join="outer")[1],
    "align inner": lambda ds: xr.align(ds[0], ds[0].isel(time=slice(1, 3)), join="inner")[0],
    "broadcast": lambda ds: xr.broadcast(ds[0][["mask"]], ds[0][["air"]])[0],
    "update": lambda ds: ds[0].drop_vars("rain").merge(ds[0][["rain"]], compat="override", join="exact"),
}


@pytest.mark.parametrize("combination", COMBINATIONS.values(), ids=COMBINATIONS)
def test_several_datasets(archive: Archive, combination):
    virtual = combination(archive.open())
    assert references(virtual)
    xr.testing.assert_identical(virtual.virtual.open().load(), combination(archive.values))


def test_nothing_loaded(archive: Archive):
    virtual = xr.concat(archive.open(loadable_variables=[]), "time", **SAFE)
    assert references(virtual) == set(virtual.variables)
    assert not virtual.indexes
    expected = xr.concat(archive.values, "time", **SAFE)
    opened = virtual.virtual.open()
    xr.testing.assert_identical(opened.load(), expected)
    assert set(opened.indexes) == {"time", "y", "x"}


def test_concat_of_trees(archive: Archive):
    trees = [xr.DataTree.from_dict({"/": ds.drop_vars("rain"), "/wet": ds[["rain"]]}) for ds in archive.open()]
    expected = [xr.DataTree.from_dict({"/": ds.drop_vars("rain"), "/wet": ds[["rain"]]}) for ds in archive.values]
    joined = xr.concat(trees, "time", **SAFE).virtual.open()
    xr.testing.assert_identical(joined.load(), xr.concat(expected, "time", **SAFE))


def test_comparisons(archive: Archive):
    one, other = archive.open()[0], archive.open()[1]
    assert one.equals(one.copy(deep=True))
    assert one.identical(archive.open()[0])
    assert not one.equals(other)
    assert one["air"].broadcast_equals(one["air"].copy())
    assert not one["air"].equals(one["air"].isel(time=[1, 0, 2, 3]).assign_coords(time=one.time))


def test_representations(archive: Archive):
    dataset = archive.open()[0]
    assert "air        (time, y, x) float32 384B ManifestArray<chunks=(1, 2, 3)>" in repr(dataset)
    assert "ManifestArray" in dataset._repr_html_()
    assert "ManifestArray" in repr(dataset["air"])
    assert dataset.chunks == {}


@pytest.mark.parametrize(
    ("operation", "error", "text"),
    [
        (lambda ds: ds["air"].values, VirtualArrayError, ".virtual.open()"),
        (lambda ds: ds.mean(), VirtualArrayError, "holds references only"),
        (lambda ds: ds["air"] + 1, VirtualArrayError, "holds references only"),
        (lambda ds: ds.isel(x=slice(1, 3)), ChunkIndexError, "chunk"),
        (lambda ds: ds.fillna(0), VirtualArrayError, ".virtual.open()"),
    ],
    ids=["values", "mean", "arithmetic", "cut", "fillna"],
)
def test_what_needs_values_says_so(archive: Archive, operation, error, text):
    with pytest.raises(error) as caught:
        operation(archive.open()[0])
    assert text in str(caught.value)


def test_bounds_counted_from_another_epoch_are_not_combined_unseen(archive: Archive, tmp_path):
    from tests.xarray.toyformat import write_toy

    archive.values[1]["time"].encoding["units"] = "days since 1999-12-31"
    archive.paths[1] = write_toy(tmp_path / "other.toy", archive.values[1], {"time": 1})
    with pytest.raises(CombineError, match="'units' differs: 'days since 2020-01-01' and 'days since 1999-12-31'"):
        xr.concat([ds[["time_bnds"]] for ds in archive.open()], "time", **SAFE)
    loaded = archive.open(loadable_variables=["time", "time_bnds"])
    joined = xr.concat([ds[["time_bnds"]] for ds in loaded], "time", **SAFE)
    expected = xr.concat([ds[["time_bnds"]] for ds in archive.values], "time", **SAFE)
    xr.testing.assert_identical(joined.drop_vars(["x", "y"], errors="ignore"), expected)
