"""The engine "virtualchunks": the values of a file, read lazily, as another engine would give them."""

import pickle

import numpy as np
import pytest
import xarray as xr

import virtualchunks as vc
from tests.xarray.conftest import CHUNKS, Archive, field
from tests.xarray.toyformat import ToyParser, write_toy
from virtualchunks.errors import SourceChangedError
from virtualchunks.xarray.backend import VirtualChunksBackend

ENGINE = {"engine": "virtualchunks", "parser": ToyParser()}


def test_values(archive: Archive):
    xr.testing.assert_identical(xr.open_dataset(archive.paths[0], **ENGINE).load(), archive.values[0])


def test_nothing_is_read_before_it_is_used(archive: Archive):
    opened = xr.open_dataset(archive.paths[0], **ENGINE)
    write_toy(archive.paths[0], field("1999-01-01", 4, 7), CHUNKS)
    with pytest.raises(SourceChangedError, match=r"0\.toy"):
        opened["air"].load()


@pytest.mark.parametrize(
    "key",
    [
        {"time": 1},
        {"time": -1, "x": 2},
        {"x": slice(1, 5, 2)},
        {"x": slice(None, None, -1)},
        {"y": [3, 0, 0], "x": np.array([5, 1])},
        {"y": xr.DataArray([0, 3, 1], dims="p"), "x": xr.DataArray([5, 0, 2], dims="p")},
        {"time": np.array([True, False, True, False])},
        {"time": slice(3, 3)},
    ],
    ids=repr,
)
def test_every_way_to_index(archive: Archive, key):
    opened = xr.open_dataset(archive.paths[0], **ENGINE)
    xr.testing.assert_identical(opened.isel(key).load(), archive.values[0].isel(key))


@pytest.mark.parametrize(
    "options",
    [{"mask_and_scale": False}, {"decode_times": False}, {"decode_coords": False}, {"drop_variables": ["rain", "lat"]}],
    ids=str,
)
def test_decoding_options_mean_what_they_mean_to_xarray(archive: Archive, tmp_path, options):
    path = tmp_path / "a.nc"
    archive.values[0].to_netcdf(path, engine="h5netcdf")
    expected = xr.open_dataset(path, engine="h5netcdf", **options).load()
    opened = xr.open_dataset(archive.paths[0], **ENGINE, **options).load()
    xr.testing.assert_equal(opened, expected)
    assert set(opened.coords) == set(expected.coords)


def test_dask_follows_the_stored_chunks(archive: Archive):
    opened = xr.open_dataset(archive.paths[0], chunks={}, **ENGINE)
    assert opened["air"].chunks == ((1, 1, 1, 1), (2, 2), (3, 3))
    xr.testing.assert_identical(opened.compute(), archive.values[0])
    copy = pickle.loads(pickle.dumps(opened))
    xr.testing.assert_identical(copy.compute(), archive.values[0])


def test_pickle(archive: Archive):
    opened = pickle.loads(pickle.dumps(xr.open_dataset(archive.paths[0], **ENGINE)))
    xr.testing.assert_identical(opened.load(), archive.values[0])


def test_groups(tmp_path):
    one, two = field("2020-01-01", 2), field("2020-02-01", 3)
    path = write_toy(tmp_path / "a.toy", {"": xr.Dataset(), "one": one, "two": two})
    xr.testing.assert_identical(xr.open_dataset(path, group="two", **ENGINE).load(), two)
    tree = xr.open_datatree(path, **ENGINE)
    xr.testing.assert_identical(tree.load(), xr.DataTree.from_dict({"/": xr.Dataset(), "/one": one, "/two": two}))
    assert set(xr.open_groups(path, **ENGINE)) == {"/", "/one", "/two"}


def test_a_store_is_opened_as_it_is(archive: Archive):
    store = vc.open_store(archive.paths[0], parser=ToyParser())
    xr.testing.assert_identical(xr.open_dataset(store, engine="virtualchunks").load(), archive.values[0])


def test_files_are_left_to_their_own_engines(archive: Archive):
    backend = VirtualChunksBackend()
    assert not backend.guess_can_open(str(archive.paths[0]))
    assert not backend.guess_can_open("a.nc")
    assert backend.guess_can_open(vc.open_store(archive.paths[0], parser=ToyParser()))


def test_rectilinear_chunks(tmp_path):
    months = [field("2020-01-01", 5), field("2020-01-06", 3, 1), field("2020-01-09", 4, 2)]
    paths = [write_toy(tmp_path / f"{n}.toy", month) for n, month in enumerate(months)]
    cube = vc.open_virtual_mfdataset(paths, parser=ToyParser())
    opened = cube.virtual.open(chunks={})
    assert opened["air"].chunks[0] == (5, 3, 4)
    expected = xr.concat(months, "time", data_vars="minimal", coords="minimal", compat="override", join="exact")
    xr.testing.assert_identical(opened.compute(), expected)
    xr.testing.assert_identical(cube.virtual.open().isel(time=slice(4, 9)).load(), expected.isel(time=slice(4, 9)))


def test_an_unknown_argument(archive: Archive):
    with pytest.raises(TypeError, match="unexpected keyword argument 'decode_everything'"):
        xr.open_dataset(archive.paths[0], decode_everything=True, **ENGINE)
