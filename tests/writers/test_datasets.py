from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from virtualchunks import ArrayMetadata, ManifestArray, ManifestGroup
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.writers.datasets import as_group, group_from_dataset, group_from_datatree
from virtualchunks.writers.kerchunk import write_json


def virtual(folder, shape=(3, 4), **attributes) -> tuple[ManifestArray, np.ndarray]:
    values = np.arange(np.prod(shape)).reshape(shape).astype("<f4")
    values.tofile(folder / "v.bin")
    metadata = ArrayMetadata.build(shape=shape, chunks=shape, dtype="<f4", attributes=attributes)
    key = ".".join("0" for _ in shape)
    return ManifestArray(metadata, {key: {"path": str(folder / "v.bin"), "offset": 0, "length": values.nbytes}}), values


def example(folder, start="2000-01-01") -> tuple[xr.Dataset, xr.Dataset]:
    """Return a virtual Dataset, and the same with values."""
    array, values = virtual(folder)
    rest = {
        "time": pd.date_range(start, periods=3, freq="12h"),
        "lon": ("lon", [1.5, 2.5, 3.5, 4.5], {"units": "degrees_east"}),
        "area": (("lon",), np.arange(4, dtype=">i2")),
        "station": ((), "häuser"),
        "names": ("lon", np.array(["a", "bb", "", "d"], dtype=object)),
        "flag": ("time", [True, False, True]),
        "lag": ("time", pd.to_timedelta([1, 2, 3], unit="D")),
        "code": ("time", np.array([b"a", b"bc", b""])),
    }
    attributes = {"units": "K", "valid_min": np.float32(1)}
    coordinates = ["time", "lon", "area", "station"]
    made = xr.Dataset({"v": (("time", "lon"), array, attributes), **rest}, attrs={"title": "t"}).set_coords(coordinates)
    plain = xr.Dataset({"v": (("time", "lon"), values, attributes), **rest}, attrs={"title": "t"}).set_coords(
        coordinates
    )
    return made, plain


def reopened(tree, folder, **options) -> xr.Dataset:
    write_json(as_group(tree), folder / "refs.json")
    return xr.open_dataset(str(folder / "refs.json"), engine="kerchunk", **options)


def test_a_dataset_comes_back_as_it_was(tmp_path):
    made, plain = example(tmp_path)
    xr.testing.assert_identical(reopened(made, tmp_path).load(), plain)


def test_writing_leaves_the_dataset_as_it_was(tmp_path):
    made, _ = example(tmp_path)
    before = made.copy(deep=True)
    group_from_dataset(made)
    assert made["v"].data is before["v"].data
    xr.testing.assert_identical(made.drop_vars("v"), before.drop_vars("v"))
    assert all(made[name].encoding == before[name].encoding for name in made.variables)


def test_the_dimensions_of_the_dataset_count_not_those_of_the_file(tmp_path):
    array, _ = virtual(tmp_path)
    made = xr.Dataset({"v": (("time", "lon"), array)}).rename(time="t").isel(lon=slice(None))
    assert reopened(made, tmp_path)["v"].dims == ("t", "lon")


def test_packing_in_the_encoding_is_written(tmp_path):
    array, values = virtual(tmp_path)
    made = xr.Dataset({"v": (("time", "lon"), array, {"units": "K"})})
    made["v"].encoding = {"scale_factor": 2.0, "add_offset": 1.0, "_FillValue": np.float32(3), "chunksizes": (1, 1)}
    expected = np.where(values == 3, np.nan, values * 2 + 1)
    np.testing.assert_array_equal(reopened(made, tmp_path)["v"].values, expected)


def test_loaded_variables_are_packed_as_their_encoding_says(tmp_path):
    made = xr.Dataset({"v": ("x", [1.0, np.nan, 2.5])})
    made["v"].encoding = {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1}
    metadata = group_from_dataset(made).arrays["v"].metadata
    assert (metadata.dtype, metadata.attributes["scale_factor"]) == (np.dtype("i2"), 0.5)
    np.testing.assert_array_equal(reopened(made, tmp_path)["v"].values, [1.0, np.nan, 2.5])


def test_encodings_of_a_target_are_followed():
    made = xr.Dataset({"time": pd.date_range("2000-02-01", periods=2)})
    metadata = group_from_dataset(made, {"time": {"units": "hours since 2000-01-01", "dtype": np.dtype("i8")}}).arrays[
        "time"
    ]
    assert metadata.metadata.attributes["units"] == "hours since 2000-01-01"
    assert np.frombuffer(metadata.manifest["0"]["data"], "<i8").tolist() == [744, 768]


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 1)])
def test_loaded_variables_of_any_shape(tmp_path, shape):
    made = xr.Dataset({"v": (("x", "y")[: len(shape)], np.ones(shape, dtype=">f8"))})
    xr.testing.assert_identical(reopened(made, tmp_path).load(), made)


def test_a_tree_comes_back_as_it_was(tmp_path):
    made, plain = example(tmp_path)
    below = xr.Dataset({"w": ("time", [1, 2, 3])}, attrs={"deep": [1, 2]})
    tree = xr.DataTree.from_dict({"/": made, "/a/b": below})
    group = group_from_datatree(tree)
    assert [path for path, _ in group.walk()] == ["", "a", "a/b"]
    assert "time" not in group["a/b"].arrays
    write_json(group, tmp_path / "refs.json")
    for path, expected in (("", plain), ("a/b", below)):
        found = xr.open_dataset(str(tmp_path / "refs.json"), engine="kerchunk", group=path or None)
        xr.testing.assert_identical(found.load(), expected)


def test_a_dask_array_is_computed(tmp_path):
    made = xr.Dataset({"v": ("x", np.arange(4))}).chunk(x=2)
    assert reopened(made, tmp_path)["v"].values.tolist() == [0, 1, 2, 3]


REFUSED = {
    "objects": (xr.Dataset({"v": ("x", np.array([{}, {}], dtype=object))}), "'v' (cannot be encoded|holds objects)"),
    "a name that is no text": (xr.Dataset({1: ("x", [1])}), "named with text"),
    "several indexes in one": (
        xr.Dataset(coords=xr.Coordinates.from_pandas_multiindex(pd.MultiIndex.from_product([[1], [2]]), "x")),
        "cannot be encoded",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_form_is_refused_by_name(case):
    dataset, message = REFUSED[case]
    with pytest.raises(UnsupportedFeatureError, match=message):
        group_from_dataset(dataset)


def test_other_objects_are_refused():
    group = ManifestGroup()
    assert as_group(group) is group
    with pytest.raises(UnsupportedFeatureError, match="cannot write a dict"):
        as_group({})
