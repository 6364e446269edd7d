"""Opening one file as a virtual Dataset: what is loaded, what the coordinates are, what errors say."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import virtualchunks as vc
from tests.xarray.conftest import Archive, field
from tests.xarray.test_virtual_operations import references
from tests.xarray.toyformat import ToyParser, write_toy
from virtualchunks.errors import DecodeError, FormatError, NotGrantedError, SourceUnavailableError
from virtualchunks.inline import encode_array
from virtualchunks.xarray import group_to_dataset

ALL = {"air", "rain", "time_bnds", "mask", "crs", "time", "x", "y", "lat"}


@pytest.mark.parametrize(
    ("loadable", "loaded"),
    [
        (None, {"time", "x", "y"}),
        ([], set()),
        (["time", "rain"], {"time", "rain"}),
        ("time*", {"time", "time_bnds"}),
        (["?", "absent"], {"x", "y"}),
        ("small", ALL),
        (lambda name, array: array.ndim == 0, {"crs"}),
    ],
    ids=["default", "none", "names", "glob", "globs", "small", "function"],
)
def test_what_is_loaded(archive: Archive, loadable, loaded):
    dataset = vc.open_virtual_dataset(archive.paths[0], parser=ToyParser(), loadable_variables=loadable)
    assert ALL - references(dataset) == loaded
    assert set(dataset.indexes) == loaded & {"time", "x", "y"}
    assert set(dataset.coords) == {"time", "x", "y", "lat"}
    for name in loaded:
        xr.testing.assert_identical(dataset[name].variable, archive.values[0][name].variable)


def held(values, *dimensions, **attributes):
    """An array whose chunks are in memory."""
    values = np.asarray(values)
    metadata = vc.ArrayMetadata.build(
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        dimension_names=dimensions,
        attributes=attributes,
    )
    return vc.ManifestArray(metadata, encode_array(values, metadata))


class TestCoordinatesInMemory:
    """They are loaded where nothing is read for it: of one dimension at most, and named as coordinates."""

    @pytest.fixture
    def group(self):
        elsewhere = {"0": {"path": "s3://bucket/a.nc", "offset": 0, "length": 32}}
        air = held(np.zeros((4, 2)), "x", "y", coordinates="run label station far patchy grid")
        label = held(np.arange(4.0), "x")
        return vc.ManifestGroup(
            {
                "air": air,
                "run": held(np.int64(5), units="hours since 2020-01-01"),
                "label": label,
                "station": held(np.arange(2), "y"),
                "far": vc.ManifestArray(label.metadata, elsewhere),
                "patchy": vc.ManifestArray(label.metadata, {}),
                "grid": held(np.zeros((4, 2)), "x", "y"),
                "plain": held(np.arange(4.0), "x"),
            }
        )

    def test_are_loaded_by_default(self, group):
        dataset = group_to_dataset(group, registry={})
        assert set(group.arrays) - references(dataset) == {"run", "label", "station"}
        assert dataset["run"].values == np.datetime64("2020-01-01T05")
        assert set(dataset.coords) == {"run", "label", "station", "far", "patchy", "grid"}

    def test_the_group_may_name_them(self, group):
        named = vc.ManifestGroup({"plain": group.arrays["plain"]}, attributes={"coordinates": "plain nowhere"})
        assert not references(group_to_dataset(named, registry={}))

    def test_other_choices_stay_what_they_were(self, group):
        assert references(group_to_dataset(group, registry={}, loadable_variables=[])) == set(group.arrays)
        assert set(group.arrays) - references(group_to_dataset(group, registry={}, loadable_variables="run")) == {"run"}
        assert references(group_to_dataset(group)) == set(group.arrays)

    def test_those_of_a_file_stay_references(self, tmp_path):
        stored = xr.Dataset(
            {"air": (("x", "y"), np.zeros((4, 2)))},
            {"x": np.arange(4), "lat": ("x", np.arange(4.0)), "run": 3.0, "grid": (("x", "y"), np.ones((4, 2)))},
        )
        stored.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
        assert references(vc.open_virtual_dataset(tmp_path / "a.nc")) == {"air", "lat", "run", "grid"}


def test_small_stops_at_its_limit(tmp_path):
    big = xr.Dataset({"big": ("x", np.zeros(200_000)), "few": ("x", np.zeros(200_000, dtype="i1"))})
    path = write_toy(tmp_path / "a.toy", big)
    assert references(vc.open_virtual_dataset(path, parser=ToyParser(), loadable_variables="small")) == {"big"}


def test_positional_order_and_encoding(archive: Archive):
    url = archive.paths[0].as_uri()
    dataset = vc.open_virtual_dataset(url, None, ToyParser(), ["rain"], ["time"], False)
    assert "rain" not in dataset
    assert dataset.encoding["source"] == url
    assert dataset["time"].attrs["units"] == "days since 2020-01-01"
    assert dataset["time"].dtype == np.dtype("i4")
    assert dataset["air"].encoding["coordinates"] == "lat"
    assert "coordinates" not in dataset["air"].attrs
    assert dataset.attrs == {"title": "fields"}


@pytest.mark.parametrize("loaded", [[], ["rain"]], ids=["virtual", "loaded"])
def test_variables_are_unpacked_on_request(archive: Archive, loaded):
    options = {"parser": ToyParser(), "loadable_variables": loaded}
    rain = vc.open_virtual_dataset(archive.paths[0], **options)["rain"]
    assert rain.dtype == archive.values[0]["rain"].dtype
    assert not {"scale_factor", "_FillValue"} & set(rain.attrs)
    assert (rain.encoding["scale_factor"], rain.encoding["_FillValue"]) == (0.25, -1)
    assert rain.encoding["dtype"] == np.dtype("i2")
    raw = vc.open_virtual_dataset(archive.paths[0], mask_and_scale=False, **options)["rain"]
    assert raw.dtype == np.dtype("i2")
    assert raw.attrs["scale_factor"] == 0.25


@pytest.mark.parametrize(
    "spell", [str, Path, lambda path: path.as_uri(), os.path.relpath], ids=["str", "Path", "url", "relative"]
)
def test_every_way_to_name_a_file(archive: Archive, spell):
    dataset = vc.open_virtual_dataset(spell(archive.paths[0]), parser=ToyParser())
    xr.testing.assert_identical(dataset.virtual.open().load(), archive.values[0])


def test_groups(tmp_path):
    first, second = field("2020-01-01", 2), field("2020-02-01", 3)
    path = write_toy(
        tmp_path / "a.toy", {"": xr.Dataset(attrs={"a": 1}), "one": first, "one/two": second.drop_dims("time")}
    )
    opened = vc.open_virtual_dataset(path, parser=ToyParser(), group="/one")
    xr.testing.assert_identical(opened.virtual.open().load(), first)
    tree = vc.open_virtual_datatree(path, parser=ToyParser())
    assert tree.encoding["source"] == path.as_uri()
    expected = xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs={"a": 1}), "/one": first, "/one/two": second.drop_dims("time")}
    )
    xr.testing.assert_identical(tree.virtual.open().load(), expected)
    below = vc.open_virtual_datatree(path, parser=ToyParser(), group="one")
    assert [node.path for node in below.subtree] == ["/", "/two"]
    for wrong in ("nowhere", "one/air"):
        with pytest.raises(FormatError, match="'one', 'one/two'"):
            vc.open_virtual_dataset(path, parser=ToyParser(), group=wrong)


def test_open_store(archive: Archive):
    store = vc.open_store(archive.paths[0], parser=ToyParser())
    assert isinstance(store, vc.ManifestStore)
    group = zarr.open_group(store, mode="r")
    np.testing.assert_array_equal(group["mask"][:], archive.values[0]["mask"].values)
    xr.testing.assert_identical(
        store.to_virtual_dataset().virtual.open().load(), archive.open()[0].virtual.open().load()
    )


def test_a_group_without_a_registry_loads_nothing(archive: Archive):
    group = vc.open_store(archive.paths[0], parser=ToyParser()).group
    assert references(group_to_dataset(group)) == ALL
    with pytest.raises(NotGrantedError, match="not granted"):
        group_to_dataset(group, loadable_variables=["time"])


def test_dimensions_without_names_are_not_shared(archive: Archive):
    array = vc.open_store(archive.paths[0], parser=ToyParser()).group.arrays["mask"]
    nameless = vc.ManifestArray(replace(array.metadata, dimension_names=None, attributes={}), array.manifest)
    dataset = group_to_dataset(vc.ManifestGroup({"a": nameless, "b": nameless}))
    assert dict(dataset.sizes) == {"a_dim_0": 4, "a_dim_1": 6, "b_dim_0": 4, "b_dim_1": 6}


def test_dimensions_that_disagree(archive: Archive):
    group = vc.open_store(archive.paths[0], parser=ToyParser()).group
    arrays = {"a": group.arrays["x"], "b": vc.ManifestArray(
        replace(group.arrays["y"].metadata, dimension_names=("x",)), group.arrays["y"].manifest
    )}  # fmt: skip
    with pytest.raises(FormatError, match=r"'x' has the length 6 in 'a' and 4 in 'b'.*drop_variables"):
        group_to_dataset(vc.ManifestGroup(arrays))


def test_undecodable_times_name_variable_and_file(tmp_path):
    dataset = xr.Dataset(coords={"time": ("time", [1, 2], {"units": "fortnights since yesterday"})})
    path = write_toy(tmp_path / "a.toy", dataset)
    with pytest.raises(DecodeError, match=r"'time'.*a\.toy"):
        vc.open_virtual_dataset(path, parser=ToyParser())
    kept = vc.open_virtual_dataset(path, parser=ToyParser(), decode_times=False)
    assert kept["time"].values.tolist() == [1, 2]


def test_a_registry_that_does_not_cover_the_file(archive: Archive):
    with pytest.raises(NotGrantedError, match=r"the registry covers s3://bucket/.*registry\.register"):
        vc.open_virtual_dataset(archive.paths[0], {"s3://bucket": None}, ToyParser())


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SourceUnavailableError, match=r"none\.toy"):
        vc.open_virtual_dataset(tmp_path / "none.toy", parser=ToyParser())


def test_a_parsers_error_names_the_file(tmp_path):
    (tmp_path / "a.toy").write_bytes(b"something else")
    with pytest.raises(FormatError, match=r"not a toy file .*a\.toy"):
        vc.open_virtual_dataset(tmp_path / "a.toy", parser=ToyParser())
