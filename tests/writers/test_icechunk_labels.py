"""Labels decide what an append or a region adds, leaves out or writes anew; xarray says what must come out."""

from __future__ import annotations

import os
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from icechunkrepos import GZIP, commit, month, numbers, on_disk, opened, repository, zarr_group

import virtualchunks as vc
from virtualchunks import ManifestArray, ManifestGroup, ObjectStoreRegistry, SourceTable, Stamp
from virtualchunks.errors import CombineError, NotGrantedError, SourceChangedError, UnsupportedFeatureError
from virtualchunks.manifest import ChunkManifest
from virtualchunks.urls import as_url
from virtualchunks.writers.icechunk import write_icechunk
from virtualchunks.writers.icechunk.placing import place


@pytest.fixture(autouse=True)
def quiet():
    icechunk.set_logs_filter("error")


def joined(*parts: xr.Dataset) -> xr.Dataset:
    whole = xr.concat(parts, "time", data_vars="minimal", coords="minimal", compat="override", join="exact")
    return whole.sortby("time")


def stamped(made: xr.Dataset) -> xr.Dataset:
    """Return a virtual Dataset whose sources have the stamps of their files."""
    manifest = made.v.variable._data.manifest
    paths = [url.removeprefix("file://") for url in manifest.sources.urls]
    stamps = [Stamp(last_modified=os.stat(path).st_mtime_ns) if path else None for path in paths]
    table = SourceTable.of_urls(list(manifest.sources.urls), stamps).replace(buffers=manifest.sources.buffers)
    array = ManifestArray(made.v.variable._data.metadata, ChunkManifest.from_records(manifest.records, table))
    return made.assign(v=(made.v.dims, array, made.v.attrs))


@pytest.mark.parametrize("compressors", [(), (GZIP,)], ids=["plain", "gzip"])
def test_months_before_the_first_and_between_others(tmp_path, compressors):
    starts = ["2000-01-09", "2000-01-01", "2000-01-21", "2000-01-13", "2000-01-05"]
    parts = [month(tmp_path, 4, start, chunk=2, compressors=compressors) for start in starts]
    repo = repository(tmp_path)
    commit(repo, parts[0][0])
    for number, (made, _) in enumerate(parts[1:], 2):
        commit(repo, made, region="auto", mode="a")
        xr.testing.assert_identical(opened(repo), joined(*(plain for _, plain in parts[:number])))


def test_several_holes_at_once_and_labels_that_are_there(tmp_path):
    whole, plain = month(tmp_path, 12, "2000-01-01", chunk=2)
    changed = whole.assign(v=whole.v.copy(data=on_disk(tmp_path / "new.bin", numbers((12, 4), "<f4"), (2, 2))))
    kept = [2, 3, 8, 9]
    repo = repository(tmp_path)
    commit(repo, whole.isel(time=kept))
    commit(repo, changed, region={"time": "auto"}, mode="a")
    expected = plain.copy(data={"v": numbers((12, 4), "<f4")})
    xr.testing.assert_identical(opened(repo), expected)
    assert plain.sizes["time"] == 12


def test_a_descending_dimension(tmp_path):
    parts = [month(tmp_path, 4, start, chunk=2) for start in ("2000-01-09", "2000-01-01", "2000-01-13")]
    parts = [tuple(ds.isel(time=[2, 3, 0, 1]).assign_coords(time=ds.time[::-1]) for ds in part) for part in parts]
    repo = repository(tmp_path)
    commit(repo, parts[0][0])
    for made, _ in parts[1:]:
        commit(repo, made, region="auto", mode="a")
    expected = xr.concat([parts[i][1] for i in (2, 0, 1)], "time", data_vars="minimal", coords="minimal",
                         compat="override", join="exact")  # fmt: skip
    xr.testing.assert_identical(opened(repo), expected)


def test_months_of_unequal_lengths_before_the_first(tmp_path):
    parts = [month(tmp_path, days, start) for days, start in
             ((31, "2001-03-01"), (28, "2001-02-01"), (31, "2001-01-01"))]  # fmt: skip
    repo = repository(tmp_path)
    commit(repo, parts[0][0])
    with pytest.raises(CombineError, match="rectilinear"):
        commit(repo, parts[1][0], region="auto", mode="a")
    with zarr.config.set({"array.rectilinear_chunks": True}):
        for made, _ in parts[1:]:
            commit(repo, made, region="auto", mode="a")
    found = opened(repo)
    np.testing.assert_array_equal(found.v.values, joined(*(plain for _, plain in parts)).v.values)
    assert found.v.encoding["chunks"] == ((31, 28, 31), 2)


def test_the_default_mode_of_a_region_changes_no_shape(tmp_path):
    first, plain = month(tmp_path, 4, "2000-01-09", chunk=2)
    before, _ = month(tmp_path, 4, "2000-01-01", chunk=2)
    repo = repository(tmp_path)
    commit(repo, first)
    session = repo.writable_session("main")
    with pytest.raises(CombineError, match=r"not consecutive ones of the stored coordinate .*mode='a'"):
        write_icechunk(before, session.store, region="auto")
    assert not session.has_uncommitted_changes
    xr.testing.assert_identical(opened(repo), plain)


def test_moved_chunks_keep_their_checksums_and_missing_ones_stay_missing(tmp_path):
    first, plain = month(tmp_path, 8, "2000-01-09", chunk=2, drop=(1, 4), fill=-1.0)
    before, _ = month(tmp_path, 4, "2000-01-01", chunk=2)
    repo = repository(tmp_path)
    commit(repo, stamped(first))
    commit(repo, stamped(before), region="auto", mode="a")
    expected = plain.v.values.copy()
    expected[:2, 2:] = expected[4:6, :2] = -1
    np.testing.assert_array_equal(zarr_group(repo)["v"][4:], expected)
    os.utime(tmp_path / "2000-01-09.bin", (4e9, 4e9))
    with pytest.raises(icechunk.IcechunkError, match="has changed"):
        zarr_group(repo)["v"][4:]
    zarr_group(repo)["v"][:4]


CUTS = {
    "in the middle of a chunk": (4, {}, "the stored chunk of 4 that begins at 0 would be cut in two"),
    "a last chunk that is not full": (2, {"days": 3}, r"its last chunk of 2 is not full \(1 elements\)"),
    "other codecs": (2, {"compressors": (GZIP,)}, "one encoding for each array"),
}


@pytest.mark.parametrize("case", CUTS)
def test_what_cannot_go_between_chunks_is_refused_untouched(tmp_path, case):
    chunk, options, message = CUTS[case]
    days = options.get("days", 2)
    rest = {key: value for key, value in options.items() if key != "days"}
    first, plain = month(tmp_path, 8, "2000-01-01", chunk=chunk)
    kept = [0, 1, 4, 5, 6, 7] if chunk == 2 else slice(None)
    if chunk == 2:
        first, plain = first.isel(time=kept), plain.isel(time=kept)
    else:
        times = first.time.values + np.where(np.arange(8) < 2, 0, np.timedelta64(9, "D"))
        first, plain = first.assign_coords(time=times), plain.assign_coords(time=times)
    between, _ = month(tmp_path, days, "2000-01-03", chunk=2, **rest)
    between = between.assign_coords(time=pd.date_range("2000-01-03", periods=days, freq="6h"))
    first["time"].encoding = plain["time"].encoding = {"units": "hours since 2000-01-01"}
    repo = repository(tmp_path)
    commit(repo, first)
    session = repo.writable_session("main")
    with pytest.raises(CombineError, match=message):
        write_icechunk(between, session.store, region="auto", mode="a")
    assert not session.has_uncommitted_changes
    xr.testing.assert_identical(opened(repo), plain)


def test_all_arrays_grow_or_none(tmp_path):
    first, _ = month(tmp_path, 4, "2000-01-09", chunk=2)
    before, _ = month(tmp_path, 4, "2000-01-01", chunk=2)
    repo = repository(tmp_path)
    commit(repo, first.assign(w=("time", np.arange(4))))
    with pytest.raises(CombineError, match="'w' has the dimension 'time' too"):
        commit(repo, before, region="auto", mode="a")


@pytest.mark.parametrize(
    ("own", "stored", "message"),
    [
        ([3, 1], [2, 4], "not in one order"),
        ([1, 1], [2, 4], "to be written have 1 more than once"),
        ([1], [2, 2], "that are stored have 2 more than once"),
    ],
)
def test_labels_without_a_place(own, stored, message):
    with pytest.raises(CombineError, match=message):
        place(pd.Index(own), pd.Index(stored), "x", sorted_in=True)


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)), st.booleans())
@settings(max_examples=100, deadline=None)
def test_placing_is_what_sorting_says(own, stored, falling):
    falling = falling and max(len(own), len(stored)) > 1
    mine, theirs = sorted(own, reverse=falling), sorted(stored, reverse=falling)
    placement = place(pd.Index(mine, dtype=int), pd.Index(theirs, dtype=int), "x", sorted_in=True)
    result = list(theirs)
    for run in placement.present:
        assert result[run.target] == mine[run.start : run.stop]
    for run in reversed(placement.new):
        result[run.at : run.at] = mine[run.start : run.stop]
    assert result == sorted(own | stored, reverse=falling)


def test_appending_twice_is_refused_by_default(tmp_path):
    (first, _), (second, _) = month(tmp_path, 4, "2000-01-01", chunk=2), month(tmp_path, 4, "2000-01-05", chunk=2)
    repo = repository(tmp_path)
    commit(repo, first)
    commit(repo, second, append_dim="time")
    session = repo.writable_session("main")
    with pytest.raises(CombineError, match=r"4 of the 4 labels along 'time' are stored already \(2000-01-05.*'skip'"):
        write_icechunk(second, session.store, append_dim="time")
    assert not session.has_uncommitted_changes


def test_skipping_what_is_there(tmp_path):
    whole, plain = month(tmp_path, 8, "2000-01-01", chunk=2)
    whole = stamped(whole)
    repo = repository(tmp_path)
    commit(repo, whole.isel(time=slice(0, 4)))
    commit(repo, whole.isel(time=slice(2, 8)), append_dim="time", on_duplicate="skip")
    xr.testing.assert_identical(opened(repo), plain)
    session = repo.writable_session("main")
    write_icechunk(whole, session.store, append_dim="time", on_duplicate="skip")
    assert not session.has_uncommitted_changes


def test_a_source_that_changed_is_not_skipped_and_can_be_replaced(tmp_path):
    made, _ = month(tmp_path, 4, "2000-01-01", chunk=2)
    repo = repository(tmp_path)
    commit(repo, stamped(made))
    values = numbers((4, 4), "<f4", start=7000)
    again = made.assign(v=made.v.copy(data=on_disk(tmp_path / "2000-01-01.bin", values, (2, 2))))
    os.utime(tmp_path / "2000-01-01.bin", (4e9, 4e9))
    session = repo.writable_session("main")
    with pytest.raises(CombineError, match=r"1 objects there changed since they were written.*'replace'"):
        write_icechunk(stamped(again), session.store, append_dim="time", on_duplicate="skip")
    assert not session.has_uncommitted_changes
    commit(repo, stamped(again), append_dim="time", on_duplicate="replace")
    np.testing.assert_array_equal(opened(repo).v.values, values)


def test_replacing_overlaps_and_appending_the_rest(tmp_path):
    first, plain = month(tmp_path, 4, "2000-01-01", chunk=2, fill=-1.0)
    second, plain_second = month(tmp_path, 4, "2000-01-03", chunk=2, drop=(0,), fill=-1.0)
    repo = repository(tmp_path)
    commit(repo, first)
    commit(repo, second, append_dim="time", on_duplicate="replace")
    values = np.concatenate([plain.v.values[:2], plain_second.v.values])
    values[2:4, :2] = -1  # a missing chunk, where an older one was
    np.testing.assert_array_equal(opened(repo).v.values, values)
    np.testing.assert_array_equal(opened(repo).time.values, pd.date_range("2000-01-01", periods=6))


def test_labels_within_a_chunk_that_cannot_be_cut(tmp_path):
    first, _ = month(tmp_path, 4, "2000-01-01", chunk=2, compressors=(GZIP,))
    second, _ = month(tmp_path, 4, "2000-01-04", chunk=2, compressors=(GZIP,))
    repo = repository(tmp_path)
    commit(repo, first)
    with pytest.raises(CombineError, match="some labels of 'v' are stored and some are new within one chunk"):
        commit(repo, second, append_dim="time", on_duplicate="skip")


def as_tree(made: xr.Dataset) -> ManifestGroup:
    from virtualchunks.writers.datasets import as_group

    return as_group(made)


def test_a_tree_of_references_with_a_coordinate_in_a_file(tmp_path):
    def part(start: int) -> ManifestGroup:
        time = on_disk(
            tmp_path / f"t{start}.bin",
            np.arange(start, start + 4.0),
            (2,),
            dims=("time",),
            units="days since 2000-01-01",
        )
        values = on_disk(tmp_path / f"v{start}.bin", numbers((4, 2), start=start), (2, 2))
        return ManifestGroup({"time": time}, {"g": ManifestGroup({"v": values})})

    repo = repository(tmp_path)
    registry = ObjectStoreRegistry({str(tmp_path): None})
    commit(repo, part(8))
    with pytest.raises(UnsupportedFeatureError, match="goes by the labels"):
        commit(repo, part(4), append_dim="time", on_duplicate="skip")
    with pytest.raises(UnsupportedFeatureError, match="registry="):
        commit(repo, part(4), region="auto", mode="a")
    commit(repo, part(4), region="auto", mode="a", registry=registry)
    with pytest.raises(CombineError, match="stored already"):
        commit(repo, part(4), append_dim="time", registry=registry)
    commit(repo, part(12), append_dim="time", registry=registry)
    np.testing.assert_array_equal(zarr_group(repo)["time"][:], np.arange(4, 16))
    stored = zarr_group(repo)["g/v"][:]
    np.testing.assert_array_equal(stored, np.concatenate([numbers((4, 2), start=s) for s in (4, 8, 12)]))


def test_a_datatree_whose_groups_inherit_their_labels(tmp_path):
    def tree(start: str) -> xr.DataTree:
        made, _ = month(tmp_path, 4, start, chunk=2)
        return xr.DataTree.from_dict({"/": made.drop_vars("v"), "/a": made[["v"]].drop_vars(["time", "x"])})

    repo = repository(tmp_path)
    commit(repo, tree("2000-01-05"))
    commit(repo, tree("2000-01-01"), region="auto", mode="a")
    session = repo.writable_session("main")
    write_icechunk(tree("2000-01-01"), session.store, append_dim="time", on_duplicate="skip")
    assert not session.has_uncommitted_changes
    commit(repo, tree("2000-01-09"), append_dim="time")
    expected = joined(*(month(tmp_path, 4, start, chunk=2)[1] for start in ("2000-01-05", "2000-01-01", "2000-01-09")))
    np.testing.assert_array_equal(zarr_group(repo)["a/v"][:], expected.v.values)
    np.testing.assert_array_equal(opened(repo).time.values, expected.time.values)


def test_labels_of_text(tmp_path):
    def part(*names: str) -> xr.Dataset:
        return xr.Dataset({"v": ("site", np.arange(len(names)))}, {"site": list(names)})

    repo = repository(tmp_path)
    commit(repo, part("bb", "dd"))
    commit(repo, part("aa", "cc"), region="auto", mode="a")
    found = opened(repo)
    assert found.site.values.tolist() == ["aa", "bb", "cc", "dd"]
    assert found.v.values.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("options", [{"on_duplicate": "skip"}, {"on_duplicate": "maybe", "append_dim": "time"}])
def test_arguments_that_do_not_fit(tmp_path, options: Any):
    made, _ = month(tmp_path, 4, "2000-01-01")
    with pytest.raises(UnsupportedFeatureError, match="on_duplicate="):
        commit(repository(tmp_path), made, **options)


def test_small_chunks_are_stored_in_the_repository(tmp_path):
    values, small = numbers((8, 4)), numbers((6,), "<i2")
    tree = ManifestGroup(
        {
            "v": on_disk(tmp_path / "v.bin", values, (4, 4), compressors=(GZIP,), drop=(1,), fill=-1),
            "s": on_disk(tmp_path / "s.bin", small, (2,), dims=("y",), drop=(2,), fill=-1, memory=(0,)),
            "scalar": on_disk(tmp_path / "scalar.bin", np.array(7), ()),
        }
    )
    repo = repository(tmp_path)
    session = repo.writable_session("main")
    with pytest.raises(NotGrantedError, match=r"scalar\.bin|s\.bin"):
        write_icechunk(tree, session.store, inline_threshold=20)
    assert not session.has_uncommitted_changes
    commit(repo, tree, inline_threshold=20, registry={str(tmp_path): None})
    store = repo.readonly_session("main")
    assert store.all_virtual_chunk_locations() == [as_url(tmp_path / "v.bin")]
    (tmp_path / "s.bin").unlink()
    (tmp_path / "scalar.bin").unlink()
    values[4:], small[4:] = -1, -1
    np.testing.assert_array_equal(zarr_group(repo)["v"][:], values)
    np.testing.assert_array_equal(zarr_group(repo)["s"][:], small)
    assert zarr_group(repo)["scalar"][()] == 7


def test_small_chunks_are_those_that_were_parsed(tmp_path):
    made, _ = month(tmp_path, 4, "2000-01-01", chunk=2)
    made = stamped(made)
    os.utime(tmp_path / "2000-01-01.bin", (4e9, 4e9))
    session = repository(tmp_path).writable_session("main")
    with pytest.raises(SourceChangedError, match="changed: last modified was"):
        write_icechunk(made, session.store, inline_threshold=100, registry={str(tmp_path): None})
    with pytest.raises(UnsupportedFeatureError, match="a threshold counts bytes"):
        write_icechunk(made, session.store, inline_threshold=-1, registry={str(tmp_path): None})
    assert not session.has_uncommitted_changes


def test_labels_may_be_appended_once_more(tmp_path):
    made, plain = month(tmp_path, 4, "2000-01-01", chunk=2)
    repo = repository(tmp_path)
    commit(repo, made)
    for _ in range(2):
        commit(repo, made, append_dim="time", on_duplicate="allow")
    later, _ = month(tmp_path, 4, "2000-01-05", chunk=2)
    commit(repo, later, append_dim="time")
    expected = np.concatenate([plain.time.values] * 3 + [later.time.values])
    np.testing.assert_array_equal(opened(repo).time.values, expected)
    with pytest.raises(CombineError, match="that are stored have 2000-01-01"):
        commit(repo, made, append_dim="time", on_duplicate="skip")


def test_units_without_dates(tmp_path):
    def part(*labels: int) -> xr.Dataset:
        units = {"units": "moons since the flood"}
        return xr.Dataset({"v": ("time", np.arange(len(labels)))}, {"time": ("time", list(labels), units)})

    repo = repository(tmp_path)
    commit(repo, part(5, 6))
    commit(repo, part(3, 4), region="auto", mode="a")
    with pytest.raises(CombineError, match="1 of the 2 labels"):
        commit(repo, part(6, 7), append_dim="time")
    assert opened(repo, decode_times=False).time.values.tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("listed", [0, 1000])
def test_no_old_reference_survives_in_a_region(tmp_path, monkeypatch, listed):
    monkeypatch.setattr("virtualchunks.writers.icechunk.chunks.LISTED", listed)
    values = numbers((12, 6))
    repo = repository(tmp_path)
    commit(repo, ManifestGroup({"v": on_disk(tmp_path / "v.bin", values, (2, 2), drop=(7,), fill=-1)}))
    holes = ManifestGroup({"v": on_disk(tmp_path / "part.bin", values[:6], (2, 2), drop=(0, 1, 4, 8), fill=-1)})
    commit(repo, holes, region={"time": slice(4, 10)})
    expected = np.where(np.isin(np.arange(18).reshape(6, 3), [7]).repeat(2, 0).repeat(2, 1), -1, values)
    gaps = np.isin(np.arange(9).reshape(3, 3), [0, 1, 4, 8]).repeat(2, 0).repeat(2, 1)
    expected[4:10] = np.where(gaps, -1, values[:6])
    np.testing.assert_array_equal(zarr_group(repo)["v"][:], expected)


@pytest.mark.parametrize("way", ["append", "replace"])
def test_no_old_reference_survives_behind_the_end(tmp_path, way):
    values = numbers((8, 2))
    repo = repository(tmp_path)
    commit(repo, ManifestGroup({"v": on_disk(tmp_path / "v.bin", values, (2, 2))}))
    session = repo.writable_session("main")
    zarr.open_array(session.store, path="v", mode="r+").resize((4, 2))
    session.commit("shorter")
    holes = on_disk(tmp_path / "part.bin", values[:4], (2, 2), drop=(0, 1), fill=0)
    if way == "append":
        commit(repo, ManifestGroup({"v": holes}), append_dim="time")
        np.testing.assert_array_equal(zarr_group(repo)["v"][:], np.concatenate([values[:4], np.zeros((4, 2))]))
    else:
        commit(repo, ManifestGroup({"v": holes}), mode="a")
        np.testing.assert_array_equal(zarr_group(repo)["v"][:], np.zeros((4, 2)))


def test_all_of_it_on_datasets_and_trees(tmp_path):
    paths = [tmp_path / f"{number}.nc" for number in range(3)]
    for number, path in enumerate(paths):
        xr.Dataset({"v": ("t", [number * 2.0, number * 2.0 + 1])}, {"t": [number * 2, number * 2 + 1]}).to_netcdf(path)
    made = [vc.open_virtual_dataset(path) for path in paths]
    repo = repository(tmp_path)
    session = repo.writable_session("main")
    made[1].virtual.to_icechunk(session.store, group="a", inline_threshold=16)
    made[0].virtual.to_icechunk(session.store, group="a", region="auto", mode="a")
    made[1].virtual.to_icechunk(session.store, group="a", append_dim="t", on_duplicate="skip")
    tree = xr.DataTree.from_dict({"/b": made[0]})
    tree.virtual.to_icechunk(session.store, mode="a", group="c", inline_threshold=16)
    more = xr.DataTree.from_dict({"/b": made[2]})
    more.virtual.to_icechunk(session.store, group="c", append_dim="t")
    session.commit("all")
    np.testing.assert_array_equal(opened(repo, group="a").v.values, np.arange(4.0))
    np.testing.assert_array_equal(opened(repo, group="c/b").v.values, [0, 1, 4, 5])
    assert set(repo.readonly_session("main").all_virtual_chunk_locations()) == {as_url(paths[0]), as_url(paths[2])}


def test_what_is_stored_needs_no_container(tmp_path):
    tree = ManifestGroup({"v": on_disk(tmp_path / "v.bin", numbers((4, 4)), (2, 2))})
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    commit(repo, tree, inline_threshold=16, registry={str(tmp_path): None})
    np.testing.assert_array_equal(zarr_group(repo)["v"][:], numbers((4, 4)))
