"""NetCDF-4 files, opened through virtualchunks and through the format's own engines: the same Datasets."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

import virtualchunks as vc
from tests.xarray.test_virtual_operations import SAFE, references
from virtualchunks.errors import FormatError, SourceUnavailableError, UnsupportedFeatureError, VirtualChunksError

pytest.importorskip("h5py")


def weather(start: str, days: int, seed: int = 0) -> xr.Dataset:
    random = np.random.default_rng(seed)
    time = pd.date_range(start, periods=days)
    made = xr.Dataset(
        {
            "air": (("time", "y", "x"), random.normal(280, 5, (days, 4, 6)).astype("f4"), {"units": "K"}),
            "rain": (("time", "y", "x"), random.integers(0, 200, (days, 4, 6)) / 4),
            "big_endian": (("y", "x"), random.normal(size=(4, 6))),
            "flag": (("y",), np.array([True, False, True, True])),
            "label": (("y",), np.array(["a", "bc", "def", "ø"], dtype=object)),
            "code": (("y",), np.array([b"ab", b"cd", b"ef", b"gh"])),
            "step": (("time",), pd.to_timedelta(np.arange(days), "h"), {"long_name": "since midnight"}),
            "empty": (("none", "x"), np.zeros((0, 6))),
            "crs": ((), np.int32(1), {"grid_mapping_name": "latitude_longitude"}),
            "time_bnds": (("time", "nv"), np.stack([time, time + pd.Timedelta(1, "D")], axis=-1)),
        },
        coords={
            "time": ("time", time, {"bounds": "time_bnds"}),
            "y": np.arange(4.0),
            "x": np.arange(6, dtype="i2"),
            "lat": (("y", "x"), np.linspace(40, 50, 24).reshape(4, 6)),
            "height": ((), 2.0),
        },
        attrs={"title": "weather", "version": np.int32(3), "levels": np.array([1.0, 2.0])},
    )
    made["rain"].values[-1, 3, 5] = np.nan
    made["time"].encoding = {"units": "days since 2020-01-01", "dtype": "i4"}
    return made


ENCODING = {
    "air": {"zlib": True, "shuffle": True, "chunksizes": (1, 4, 3)},
    "rain": {
        "scale_factor": 0.25,
        "add_offset": 3.0,
        "dtype": "i2",
        "_FillValue": -999,
        "zlib": True,
        "fletcher32": True,
    },
    "big_endian": {"dtype": ">f8"},
}


@pytest.fixture
def paths(tmp_path):
    made = []
    for number, (start, days) in enumerate([("2020-01-01", 31), ("2020-02-01", 29), ("2020-03-01", 31)]):
        path = tmp_path / f"{number}.nc"
        encoding = {**ENCODING, "rain": {**ENCODING["rain"], "chunksizes": (days, 2, 6)}}
        weather(start, days, number).to_netcdf(path, engine="h5netcdf", encoding=encoding, unlimited_dims=["time"])
        made.append(path)
    return made


def as_values(path, engine="h5netcdf", **options):
    with xr.open_dataset(path, engine=engine, **options) as opened:
        return opened.load()


@pytest.mark.parametrize("peer", ["h5netcdf", "netcdf4"])
def test_the_engine_gives_what_the_formats_own_engine_gives(paths, peer):
    expected = as_values(paths[0], peer)
    opened = xr.open_dataset(paths[0], engine="virtualchunks").load()
    xr.testing.assert_identical(opened, expected)
    assert set(opened.indexes) == set(expected.indexes)
    for name in expected.variables:
        assert opened[name].dtype == expected[name].dtype, name
        for key in ("scale_factor", "add_offset", "_FillValue", "units", "calendar", "coordinates"):
            mine, theirs = opened[name].encoding.get(key), expected[name].encoding.get(key)
            assert mine == theirs or (mine != mine and theirs != theirs), (name, key)


@pytest.mark.parametrize(
    "options",
    [{"mask_and_scale": False}, {"decode_times": False}, {"decode_coords": "all"}, {"decode_timedelta": False}],
    ids=str,
)
def test_options_of_the_engine(paths, options):
    opened = xr.open_dataset(paths[0], engine="virtualchunks", **options).load()
    xr.testing.assert_identical(opened, as_values(paths[0], **options))


def test_a_cube_of_files_equals_the_cube_of_values(paths):
    cube = vc.open_virtual_mfdataset(paths)
    assert {"air", "rain", "big_endian", "time_bnds", "lat"} <= references(cube)
    with xr.open_mfdataset(paths, engine="h5netcdf", combine_attrs="override", **SAFE) as expected:
        opened = cube.virtual.open()
        xr.testing.assert_identical(opened.load(), expected.load())
    assert opened["rain"].encoding["scale_factor"] == 0.25


def test_a_cube_as_a_store(paths):
    cube = vc.open_virtual_mfdataset(paths).drop_vars(["label", "code", "flag", "empty"])
    with zarr.config.set({"array.rectilinear_chunks": True}):
        stored = xr.open_zarr(cube.virtual.to_store(), chunks=None, consolidated=False, zarr_format=3).load()
    xr.testing.assert_equal(stored, cube.virtual.open().load())


def test_writing_references(paths, tmp_path):
    pytest.importorskip("kerchunk")
    virtual = vc.open_virtual_dataset(paths[0])[["air", "rain", "time_bnds"]]
    expected = virtual.virtual.open().load()
    virtual.virtual.to_kerchunk(tmp_path / "refs.json", format="json")
    with xr.open_dataset(str(tmp_path / "refs.json"), engine="kerchunk") as read:
        xr.testing.assert_equal(read.load(), expected)
    assert virtual.virtual.to_kerchunk()["version"] == 1
    with pytest.raises(UnsupportedFeatureError, match="needs a filepath"):
        virtual.virtual.to_kerchunk(format="json")
    with pytest.raises(UnsupportedFeatureError, match=r"writes nothing to refs\.json.*format='json'"):
        virtual.virtual.to_kerchunk("refs.json")


def test_references_keep_their_packing_where_attributes_were_dropped(paths, tmp_path):
    pytest.importorskip("kerchunk")
    bare = vc.open_virtual_dataset(paths[0])[["rain"]].drop_attrs()
    bare.virtual.to_kerchunk(tmp_path / "refs.json", format="json")
    with xr.open_dataset(str(tmp_path / "refs.json"), engine="kerchunk") as read:
        np.testing.assert_array_equal(read["rain"].values, weather("2020-01-01", 31)["rain"].values)


def test_icechunk(paths):
    icechunk = pytest.importorskip("icechunk")
    prefix = paths[0].parent.as_uri() + "/"
    config = icechunk.RepositoryConfig.default()
    store = icechunk.local_filesystem_store(str(paths[0].parent))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, store))
    granted = {prefix: icechunk.Credentials.LocalFileSystemAccess()}
    repository = icechunk.Repository.create(
        icechunk.in_memory_storage(), config, authorize_virtual_chunk_access=granted
    )
    virtual = vc.open_virtual_mfdataset(paths[:2])[["air", "time_bnds"]]
    with zarr.config.set({"array.rectilinear_chunks": True}):
        session = repository.writable_session("main")
        virtual.virtual.to_icechunk(session.store)
        session.commit("two months")
        session = repository.writable_session("main")
        vc.open_virtual_dataset(paths[2])[["air", "time_bnds"]].virtual.to_icechunk(session.store, append_dim="time")
        session.commit("one more")
    store = repository.readonly_session("main").store
    with zarr.config.set({"array.rectilinear_chunks": True}):
        stored = xr.open_zarr(store, consolidated=False, chunks=None, zarr_format=3).load()
    expected = vc.open_virtual_mfdataset(paths)[["air", "time_bnds"]].virtual.open()
    xr.testing.assert_equal(stored, expected.load())


def test_groups(tmp_path):
    path = tmp_path / "tree.nc"
    tree = xr.DataTree.from_dict(
        {
            "/": weather("2020-01-01", 2)[["crs"]],
            "/a": weather("2020-01-01", 3)[["air"]],
            "/a/b": weather("2020-01-01", 3)[["rain"]],
        }
    )
    tree.to_netcdf(path, engine="h5netcdf")
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        expected = opened.load()
    xr.testing.assert_identical(xr.open_datatree(path, engine="virtualchunks").load(), expected)
    xr.testing.assert_identical(vc.open_virtual_datatree(path).virtual.open().load(), expected)
    part = vc.open_virtual_dataset(path, group="a").virtual.open().load()
    xr.testing.assert_identical(part, as_values(path, group="a"))


def test_parsers_by_name_and_content(paths):
    url = paths[0].rename(paths[0].with_suffix(".dat"))
    by_content, by_name = vc.open_virtual_dataset(url), vc.open_virtual_dataset(url, parser="hdf5")
    xr.testing.assert_identical(by_content, by_name)
    assert vc.open_virtual_dataset(url, strict=True, drop_variables=["label"]).sizes == by_content.sizes


def test_what_is_dropped_is_not_parsed(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["good"] = np.arange(4)
        file["link"] = h5py.ExternalLink("elsewhere.h5", "/x")
    with pytest.raises(VirtualChunksError, match="elsewhere"):
        vc.open_virtual_dataset(tmp_path / "a.h5", strict=True)
    for options in ({"strict": True}, {"parser": "hdf5"}):
        assert set(vc.open_virtual_dataset(tmp_path / "a.h5", drop_variables="link", **options).variables) == {"good"}


def test_names_that_zarr_has_not_are_left_out_and_all_others_are_read(tmp_path):
    import h5py

    names = ["a b/c d", "dot.name", "c", "ünï", ".zarray", "a:b?#%", " padded "]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number, name in enumerate([*names, "zarr.json", "back\\slash"]):
            file[name] = np.arange(number + 1)
    with pytest.warns(UserWarning, match="left out") as warned:
        store = vc.open_store(tmp_path / "a.h5")
    assert len(warned) == 2
    group = zarr.open_group(store, mode="r")
    assert {path for path, node in group.members(max_depth=None) if isinstance(node, zarr.Array)} == set(names)
    for number, name in enumerate(names):
        assert group[name][...].tolist() == list(range(number + 1))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(28), "PNG"),
        (b"<html>sign in</html>", "HTML"),
        (bytes(100), "zeros"),
    ],
)
def test_what_is_not_hdf5(tmp_path, content, text):
    (tmp_path / "a.nc").write_bytes(content)
    for parser in ("hdf5",) if text == "NetCDF-3" else (None, "hdf5"):
        with pytest.raises(FormatError, match=text) as caught:
            vc.open_virtual_dataset(tmp_path / "a.nc", parser=parser)
        assert "a.nc" in str(caught.value)


def test_truncated_and_missing(paths):
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"0\.nc"):
        vc.open_virtual_dataset(paths[0])
    with pytest.raises(SourceUnavailableError, match=r"missing\.nc"):
        vc.open_virtual_dataset(paths[0].with_name("missing.nc"))
