"""The verbs on Datasets and DataTrees, against xarray and against the files."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

import virtualchunks as vc
from tests.xarray.conftest import Archive
from tests.xarray.toyformat import ToyParser
from virtualchunks.errors import ChunkIndexError, ManifestError


def cube(archive: Archive) -> xr.Dataset:
    return xr.concat(archive.open(), "time", data_vars="minimal", coords="minimal", compat="override", join="override")


def tree(archive: Archive) -> xr.DataTree:
    whole = cube(archive).drop_vars(["lat", "mask", "crs", "time_bnds"])
    return xr.DataTree.from_dict({"/": whole[["air"]], "/wet": whole[["rain"]]})


def test_ranges_of_sources_select_what_a_file_gave(archive):
    whole = cube(archive)
    table = whole.virtual.sources()
    row = table[table["url"] == archive.paths[1].as_uri()].iloc[0]
    span = row["ranges"]["rain"]
    part = whole[["rain"]].isel({name: slice(*pair) for name, pair in zip(whole["rain"].dims, span, strict=True)})
    assert part["time"].equals(archive.values[1]["time"])


def test_locate_by_labels(archive):
    whole = cube(archive)
    found = whole.virtual.locate(time="2020-01-06", y=3, x=0, variables=["rain"])
    array = whole["rain"].variable._data
    entry = array.manifest[f"{whole.get_index('time').get_loc('2020-01-06')}.1.0"]
    assert list(found) == [
        {
            "variable": "rain",
            "chunk": (5, 1, 0),
            "kind": "virtual",
            "url": archive.paths[1].as_uri(),
            "offset": entry["offset"],
            "length": entry["length"],
        }
    ]
    values = np.frombuffer(archive.paths[1].read_bytes()[entry["offset"] :][: entry["length"]], "<i2").reshape(2, 3)
    assert values[1, 0] * 0.25 == archive.values[1]["rain"].sel(time="2020-01-06", y=3, x=0).item()


def test_locate_takes_what_sel_takes(archive):
    whole = cube(archive)
    span = whole.virtual.locate(time=slice("2020-01-03", "2020-01-05"), variables=["air"])
    assert {chunk[0] for chunk in span["chunk"]} == {2, 3, 4}
    near = whole.virtual.locate(
        {"time": [pd.Timestamp("2020-01-03 07:00")]}, method="nearest", tolerance=pd.Timedelta(1, "D")
    )
    assert {chunk[0] for name, chunk in zip(near["variable"], near["chunk"], strict=True) if name == "air"} == {2}
    assert "mask" in near["variable"]
    first = whole.virtual.locate(time="2020-01-01", y=0, x=0, variables=["air"])
    assert (first["kind"], first["url"]) == (["missing"], [None])
    by_position = whole.drop_vars("time").virtual.locate(time=[0, 5], variables=["rain"], y=0, x=0)
    assert [chunk[0] for chunk in by_position["chunk"]] == [0, 5]


def test_locate_refuses(archive):
    whole = cube(archive)
    for wrong, message in [
        ({"time": "2031-01-01"}, "no such label"),
        ({"day": 1}, "no dimension 'day'"),
        ({"y": 0.5}, "no such label"),
    ]:
        with pytest.raises(ChunkIndexError, match=message):
            whole.virtual.locate(wrong)
    with pytest.raises(ChunkIndexError, match="no array of references 'q'"):
        whole.virtual.locate(time="2020-01-01", variables=["q"])


def test_a_tree_answers_as_its_groups_do(archive):
    whole = tree(archive)
    found = whole.virtual.locate(time="2020-01-02", y=0, x=0)
    assert found["variable"] == ["air", "wet/rain"]
    assert found["chunk"] == [(1, 0, 0), (1, 0, 0)]
    assert whole.virtual.sources()["ranges"][2].keys() == {"air", "wet/rain"}
    assert vc.diff(whole, whole.virtual.rename(lambda url: url)).ok
    moved = whole.virtual.rename({archive.folder.as_uri(): "s3://b"}).virtual.relative_to("s3://b", "archive")
    assert moved.virtual.sources()["url"].tolist() == [f"{{archive}}/{n}.toy" for n in range(3)]
    opened = moved.virtual.open(roots={"archive": archive.folder})
    np.testing.assert_array_equal(opened["wet/rain"].values, whole.virtual.open()["wet/rain"].values)
    assert whole.virtual.check().ok
    assert vc.diff(whole, whole.virtual.refresh(parser=ToyParser())).ok


def test_diff_sees_loaded_values(archive):
    whole = cube(archive)
    other = whole.assign_coords(time=whole["time"] + np.timedelta64(1, "D"))
    found = whole.virtual.diff(other)
    assert found.changed.keys() == {"time"}
    assert found.changed["time"].changed.sources == {"memory": 1}


def test_inlined_chunks_read_the_same_and_need_no_file(archive):
    whole = cube(archive)
    values = whole.virtual.open().load()
    held = whole.virtual.inline(48)
    for path in archive.paths:
        path.unlink()
    xr.testing.assert_equal(held.virtual.open().load(), values)
    assert held.virtual.sources()["url"].tolist() == ["__inlined__"]


def test_materialised_chunks_are_read_from_the_target(archive, tmp_path):
    whole = cube(archive)[["rain", "air"]].drop_vars("lat")
    values = whole.virtual.open().load()
    part = whole.virtual.materialise(tmp_path / "part", selection={"time": slice("2020-01-09", None)})
    archive.paths[2].unlink()
    xr.testing.assert_equal(part.virtual.open().load(), values)
    assert {path.name for path in (tmp_path / "part" / "rain" / "c").iterdir()} == {"8", "9"}
    all_of_it = part.virtual.materialise(tmp_path / "whole")
    for path in archive.paths[:2]:
        path.unlink()
    xr.testing.assert_equal(all_of_it.virtual.open().load(), values)
    native = zarr.open_group(tmp_path / "whole", mode="r")
    np.testing.assert_array_equal(native["air"][:], values["air"].values)


def test_shift_is_that_of_xarray(archive):
    whole = cube(archive)[["air"]].drop_vars("lat")
    shifted = whole.virtual.shift(time=3).virtual.open()
    xr.testing.assert_equal(shifted.load(), whole.virtual.open().load().shift(time=3))


def test_move(archive):
    whole = cube(archive)
    assert "wet" in whole.virtual.move("rain", "wet")
    assert whole.virtual.move("time", "day").sizes["day"] == 10
    for old, new in (("q", "r"), ("rain", "air"), ("rain", "a/b/..")):
        with pytest.raises(ManifestError):
            whole.virtual.move(old, new)
    groups = tree(archive).virtual.move("wet", "deep/wet").virtual.move("air", "dry/air")
    assert groups["deep/wet/rain"].shape == (10, 4, 6)
    assert groups["dry/air"].shape == (10, 4, 6)
    assert "air" not in groups.data_vars


def test_renaming_leaves_the_dataset_as_it_was(archive):
    whole = cube(archive)
    before = whole.virtual.sources()["url"].tolist()
    whole.virtual.rename(lambda url: f"{url}.x")
    assert whole.virtual.sources()["url"].tolist() == before
    renamed = whole.rename(time="t")
    assert renamed.virtual.locate(t="2020-01-02", y=0, x=0, variables=["rain"])["chunk"] == [(1, 0, 0)]


def test_refresh_beneath_a_named_root(archive):
    whole = cube(archive).virtual.relative_to(archive.folder, "archive")
    roots = {"archive": archive.folder}
    path = archive.paths[1]
    path.write_bytes(path.read_bytes() + b"more")
    checked = whole.virtual.check(roots=roots)
    assert checked.changed == ("{archive}/1.toy",)
    fresh = whole.virtual.refresh(parser=ToyParser(), sources=checked, roots=roots)
    assert sorted(fresh.virtual.sources()["url"]) == [f"{{archive}}/{n}.toy" for n in range(3)]
    assert fresh.virtual.check(roots=roots).ok
    values = fresh.virtual.open(roots=roots)["rain"]
    expected = xr.concat([one["rain"] for one in archive.values], "time")
    np.testing.assert_array_equal(values.values, expected.values)
