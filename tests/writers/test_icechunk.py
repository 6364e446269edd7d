from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import icechunk
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from icechunkrepos import GZIP, commit, month, numbers, on_disk, opened, repository, zarr_group

from virtualchunks import (
    ArrayMetadata,
    ChunkManifest,
    ManifestArray,
    ManifestGroup,
    SourceTable,
    Stamp,
)
from virtualchunks.errors import (
    CombineError,
    NotGrantedError,
    TargetExistsError,
    UnsupportedFeatureError,
    WriteError,
)
from virtualchunks.manifest import RECORD
from virtualchunks.urls import as_url
from virtualchunks.writers.icechunk import required_containers, write_icechunk


@pytest.fixture(autouse=True)
def quiet():
    icechunk.set_logs_filter("error")


DTYPES = ["?", "i1", "u2", "<i8", ">f4", "f2", "<f8", "<c8", ">c16"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compressors", [(), (GZIP,)], ids=["plain", "gzip"])
def test_values_are_equal(tmp_path, dtype, compressors):
    dtype = np.dtype(dtype)
    values = numbers((7, 5)).astype(dtype.newbyteorder("="))
    array = on_disk(tmp_path / "a b.bin", values, (2, 3), stored=dtype, compressors=compressors, title="ä")
    repo = repository(tmp_path)
    commit(repo, ManifestGroup({"v": array}, attributes={"n": np.int64(1)}))
    ds = opened(repo)
    np.testing.assert_array_equal(ds.v.values, values)
    assert (ds.v.dtype, ds.v.attrs, ds.attrs) == (values.dtype, {"title": "ä"}, {"n": 1})


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1)])
def test_scalars_and_arrays_without_elements(tmp_path, shape):
    values = numbers(shape)
    array = on_disk(tmp_path / "a.bin", values, tuple(max(n, 1) for n in shape))
    repo = repository(tmp_path)
    commit(repo, ManifestGroup({"v": array}))
    np.testing.assert_array_equal(opened(repo).v.values, values)


def test_fill_values_and_masks(tmp_path):
    values = numbers((9,), "<f4")
    one = on_disk(tmp_path / "a.bin", values, (2,), drop=(0,), fill=3.0, _FillValue=np.float32(8), dims=("x",))
    two = on_disk(tmp_path / "b.bin", numbers((9,)), (2,), drop=(1,), fill=7, dims=("x",))
    repo = repository(tmp_path)
    commit(repo, ManifestGroup({"one": one, "two": two}))
    ds = opened(repo)
    np.testing.assert_array_equal(ds.one.values, [3, 3, 2, 3, 4, 5, 6, 7, np.nan])
    np.testing.assert_array_equal(ds.two.values, [0, 1, 7, 7, 4, 5, 6, 7, 8])
    assert ds.two.dtype == np.dtype("i4")


def test_attributes_that_strict_json_has_not(tmp_path):
    array = on_disk(tmp_path / "a.bin", numbers((2, 2)), (2, 2), valid_max=np.inf, flags=np.array([1, 2], "i1"))
    repo = repository(tmp_path)
    commit(repo, ManifestGroup({"v": array}, attributes={"nothing": np.nan}))
    assert opened(repo).v.attrs["flags"] == [1, 2]


def test_chunks_in_memory_are_stored_in_the_repository(tmp_path):
    values = numbers((7, 5))
    array = on_disk(tmp_path / "a.bin", values, (2, 3), memory=(0, 3, 7))
    repo = repository(tmp_path)
    commit(repo, ManifestGroup({"v": array, "w": on_disk(tmp_path / "b.bin", values, (7, 5), memory=(0,))}))
    (tmp_path / "b.bin").unlink()
    np.testing.assert_array_equal(opened(repo).v.values, values)
    np.testing.assert_array_equal(opened(repo).w.values, values)


def test_chunks_of_unequal_lengths(tmp_path):
    values = numbers((90, 4))
    array = on_disk(tmp_path / "a.bin", values, ((31, 28, 31), 2), drop=(2,), fill=-1)
    repo = repository(tmp_path)
    commit(repo, ManifestGroup({"v": array}))
    values[31:59, :2] = -1
    np.testing.assert_array_equal(opened(repo).v.values, values)


def test_a_dataset_comes_back_as_it_was(tmp_path):
    made, plain = month(tmp_path, 5, "2000-01-01")
    rest = {
        "area": ("x", np.arange(4)),
        "names": ("x", np.array(["a", "bb", "", "d"], dtype=object)),
        "flag": ("time", [True, False, True, False, True]),
    }
    made, plain = (ds.assign_coords(rest).assign_attrs(title="t") for ds in (made, plain))
    repo = repository(tmp_path)
    commit(repo, made)
    xr.testing.assert_identical(opened(repo), plain)


def test_a_group_below_the_root(tmp_path):
    made, plain = month(tmp_path, 5, "2000-01-01")
    repo = repository(tmp_path)
    commit(repo, made, group="/a/b/")
    xr.testing.assert_identical(opened(repo, group="a/b"), plain)
    assert "a" in dict(zarr_group(repo).groups())


def test_a_tree(tmp_path):
    made, plain = month(tmp_path, 5, "2000-01-01")
    below, plain_below = month(tmp_path, 5, "2000-01-02")
    tree = xr.DataTree.from_dict(
        {"/": made.drop_vars("v"), "/a": made[["v"]], "/a/b": below[["v"]].drop_vars(["time"])}
    )
    repo = repository(tmp_path)
    commit(repo, tree)
    found = xr.open_datatree(repo.readonly_session("main").store, engine="zarr", consolidated=False, chunks=None)
    np.testing.assert_array_equal(found["a/v"].values, plain.v.values)
    np.testing.assert_array_equal(found["a/b/v"].values, plain_below.v.values)
    assert "time" not in zarr_group(repo)["a"]
    commit(repo, tree, mode="w", write_inherited_coords=True)
    assert "time" in zarr_group(repo)["a"]


def many_sources(folder: Path, shape: tuple[int, int], owner) -> tuple[ManifestArray, np.ndarray, list[Path]]:
    """Return an array of one element per chunk, the chunk (i, j) of which lies in file number ``owner(i, j)``."""
    values = numbers(shape, "<i8")
    owners = np.fromfunction(np.vectorize(owner, otypes=[int]), shape, dtype=int)
    paths = [folder / f"{number}.bin" for number in range(int(owners.max()) + 1)]
    offsets = np.zeros(shape, dtype=np.int64)
    for number, path in enumerate(paths):
        own = owners == number
        values[own].tofile(path)
        offsets[own] = np.arange(own.sum()) * 8
        os.utime(path, ns=(0, (1_600_000_000 + number) * 10**9 + 5))
    manifest = ChunkManifest.from_arrays(
        paths=np.array([str(path) for path in paths])[owners], offsets=offsets, lengths=np.full(shape, 8)
    )
    stamps = {as_url(path): Stamp(last_modified=path.stat().st_mtime_ns, etag="of no use here") for path in paths}
    urls = list(manifest.sources.urls)
    manifest = ChunkManifest.from_records(manifest.records, SourceTable.of_urls(urls, [stamps[url] for url in urls]))
    metadata = ArrayMetadata.build(shape=shape, chunks=(1, 1), dtype="<i8", dimension_names=("time", "x"))
    return ManifestArray(metadata, manifest), values, paths


OWNERS = {
    "one file": lambda i, j: 0,
    "a file for each row": lambda i, j: i,
    "a file for each column": lambda i, j: j,
    "blocks": lambda i, j: (i // 10) * 4 + j // 10,
    "files that take turns": lambda i, j: (i + j) % 3,
    "a file for each chunk": lambda i, j: i * 40 + j,
}


@pytest.mark.parametrize("layout", OWNERS)
def test_a_source_that_was_rewritten_is_refused_and_all_others_are_read(tmp_path, layout):
    array, values, paths = many_sources(
        tmp_path, (40, 40) if layout != "a file for each chunk" else (3, 40), OWNERS[layout]
    )
    repo = repository(tmp_path)
    commit(repo, ManifestGroup({"v": array}))
    np.testing.assert_array_equal(zarr_group(repo)["v"][:], values)
    changed = len(paths) // 2
    content = paths[changed].read_bytes()
    paths[changed].write_bytes(content)
    owners = np.fromfunction(np.vectorize(OWNERS[layout], otypes=[int]), values.shape, dtype=int)
    stored = zarr_group(repo)["v"]
    index = tuple(np.argwhere(owners == changed)[0])
    with pytest.raises(icechunk.IcechunkError, match="has changed"):
        stored[index]
    for other in np.argwhere(owners != changed)[:50]:
        assert stored[tuple(other)] == values[tuple(other)]


def test_a_time_that_the_caller_gives(tmp_path):
    made, plain = month(tmp_path, 5, "2000-01-01", stamp=Stamp(last_modified=1))
    repo = repository(tmp_path)
    commit(repo, made, last_updated_at=datetime(2100, 1, 1))
    xr.testing.assert_identical(opened(repo), plain)
    commit(repo, made, last_updated_at=datetime(2001, 1, 1, tzinfo=UTC), mode="w")
    with pytest.raises(icechunk.IcechunkError, match="has changed"):
        opened(repo)


def test_ten_thousand_chunks_and_missing_ones(tmp_path):
    values = numbers((100, 100), "<i2")
    array = on_disk(tmp_path / "a.bin", values, (1, 1), drop=tuple(range(0, 10_000, 7)), fill=-5)
    repo = repository(tmp_path)
    commit(repo, ManifestGroup({"v": array}))
    expected = values.copy()
    expected.reshape(-1)[::7] = -5
    np.testing.assert_array_equal(zarr_group(repo)["v"][:], expected)


def test_what_is_there_is_refused_replaced_or_added_to(tmp_path):
    made, _ = month(tmp_path, 5, "2000-01-01")
    other, plain_other = month(tmp_path, 3, "2001-01-01")
    repo = repository(tmp_path)
    commit(repo, made)
    with pytest.raises(TargetExistsError, match=r"holds time, v, x.*mode='w'"):
        commit(repo, other)
    commit(repo, made[["v"]].rename(v="w"), mode="a")
    assert set(opened(repo)) == {"v", "w"}
    commit(repo, other, mode="w")
    xr.testing.assert_identical(opened(repo), plain_other)


def test_no_old_reference_survives_where_an_array_is_replaced(tmp_path):
    whole = on_disk(tmp_path / "a.bin", numbers((4, 4)), (2, 2))
    holes = on_disk(tmp_path / "b.bin", numbers((4, 4)), (2, 2), drop=(1, 2), fill=-1)
    repo = repository(tmp_path)
    commit(repo, ManifestGroup({"v": whole}))
    commit(repo, ManifestGroup({"v": holes}), mode="a")
    expected = numbers((4, 4))
    expected[:2, 2:] = expected[2:, :2] = -1
    np.testing.assert_array_equal(zarr_group(repo)["v"][:], expected)


def test_append_twice(tmp_path):
    months = [month(tmp_path, 4, start, chunk=2) for start in ("2000-01-01", "2000-01-05", "2000-01-09")]
    repo = repository(tmp_path)
    commit(repo, months[0][0])
    for made, _ in months[1:]:
        commit(repo, made, append_dim="time")
    expected = xr.concat(
        [plain for _, plain in months],
        dim="time",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="exact",
    )
    xr.testing.assert_identical(opened(repo), expected)


def test_append_to_a_group_with_half_days_in_the_coordinate(tmp_path):
    made, plain = month(tmp_path, 2, "2000-01-01")
    later, plain_later = (
        ds.assign_coords(time=ds.time + np.timedelta64(12, "h")) for ds in month(tmp_path, 2, "2000-02-01")
    )
    made["time"].encoding = {"units": "hours since 1990-01-01", "dtype": "i8"}
    repo = repository(tmp_path)
    commit(repo, made, group="g")
    commit(repo, later, group="g", append_dim="time")
    np.testing.assert_array_equal(opened(repo, group="g").time.values, np.concatenate([plain.time, plain_later.time]))


def test_a_coordinate_that_the_stored_units_cannot_hold_is_refused(tmp_path):
    made, _ = month(tmp_path, 2, "2000-01-01")
    later = month(tmp_path, 2, "2000-02-01")[0]
    later = later.assign_coords(time=later.time + np.timedelta64(12, "h"))
    repo = repository(tmp_path)
    commit(repo, made)
    with (
        pytest.warns(UserWarning, match="faithfully"),
        pytest.raises(CombineError, match=r"'hours since .* 'days since "),
    ):
        commit(repo, later, append_dim="time")


def test_months_become_a_rectilinear_grid_where_the_flag_allows_it(tmp_path):
    months = [
        month(tmp_path, days, start) for days, start in ((31, "2001-01-01"), (28, "2001-02-01"), (31, "2001-03-01"))
    ]
    repo = repository(tmp_path)
    commit(repo, months[0][0])
    with pytest.raises(
        CombineError,
        match=r"'v' cannot be appended to a regular chunk grid: .* chunks of 31 along 'time', the other 28",
    ):
        commit(repo, months[1][0], append_dim="time")
    with zarr.config.set({"array.rectilinear_chunks": True}):
        commit(repo, months[1][0], append_dim="time")
    commit(repo, months[2][0], append_dim="time")
    found = opened(repo)
    np.testing.assert_array_equal(found.v.values, np.concatenate([plain.v for _, plain in months]))
    np.testing.assert_array_equal(found.time.values, np.concatenate([plain.time for _, plain in months]))
    assert found.v.encoding["chunks"] == ((31, 28, 31), 2)


def test_static_variables_stay_and_must_be_the_stored_ones(tmp_path):
    (first, _), (second, _) = month(tmp_path, 4, "2000-01-01"), month(tmp_path, 4, "2000-01-05")
    mask = on_disk(tmp_path / "mask.bin", numbers((4,)), (4,), dims=("x",))
    first = first.assign(mask=("x", mask))
    second = second.assign(mask=("x", on_disk(tmp_path / "other.bin", numbers((4,)), (2,), dims=("x",))))
    repo = repository(tmp_path)
    commit(repo, first)
    commit(repo, second, append_dim="time")
    np.testing.assert_array_equal(opened(repo).mask.values, numbers((4,)))
    later = pd.date_range("2000-01-09", periods=4)
    moved = second.drop_vars("mask").assign_coords(x=[9.0, 2.0, 3.0, 4.0], time=later)
    with pytest.raises(CombineError, match="'x' differs from the stored array"):
        commit(repo, moved, append_dim="time")


def test_new_static_variables_may_come_with_an_append(tmp_path):
    (first, _), (second, _) = month(tmp_path, 4, "2000-01-01"), month(tmp_path, 4, "2000-01-05")
    repo = repository(tmp_path)
    commit(repo, first)
    commit(repo, second.assign(area=("x", np.arange(4))), append_dim="time")
    assert opened(repo).area.values.tolist() == [0, 1, 2, 3]


def with_array(ds: xr.Dataset, array: ManifestArray, **attributes: Any) -> xr.Dataset:
    return ds.assign(v=(("time", "x"), array, {"units": "K", **attributes}))


WRONG = {
    # name: what the second Dataset is made of, and what the error says
    "a partial last chunk": (
        {"chunk": 3},
        {"chunk": 3},
        r"4 elements along 'time', and its last chunk of 3 is not full \(1 elements\)",
    ),
    "another dtype": ({}, {"values": numbers((4, 4), "<f8")}, "dtype is float64, that of the stored array float32"),
    "another length": ({}, {"values": numbers((4, 5), "<f4")}, "5 elements along 'x', the stored array 4"),
    "other codecs": ({}, {"compressors": (GZIP,)}, "one encoding for each array"),
    "other chunks elsewhere": ({}, {"chunks": (4, 4)}, "chunks of 'v' along 'x' are 4, those of the stored array 2"),
    "another meaning": ({}, {"scale_factor": 2.0}, "attribute 'scale_factor' is 2.0, that of the stored array None"),
    "another fill value": ({}, {"drop": (0,), "fill": 9.0}, "read as .*9.0.*, those of the stored array as"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_continue_the_stored_array_is_refused_untouched(tmp_path, case):
    first_options, change, message = WRONG[case]
    first, plain = month(tmp_path, 4, "2000-01-01", **first_options)
    options = {**first_options, **change}
    values = options.pop("values", numbers((4, 4), "<f4"))
    chunks = options.pop("chunks", (options.pop("chunk", 4), 2))
    scale = {key: options.pop(key) for key in ("scale_factor",) if key in options}
    array = on_disk(tmp_path / "second.bin", values, chunks, **options)
    second = xr.Dataset(
        {"v": (("time", "x"), array, {"units": "K", **scale})}, {"time": pd.date_range("2000-01-05", periods=4)}
    )
    repo = repository(tmp_path)
    commit(repo, first)
    session = repo.writable_session("main")
    with pytest.raises(CombineError, match=message):
        write_icechunk(second, session.store, append_dim="time")
    assert not session.has_uncommitted_changes
    xr.testing.assert_identical(opened(repo), plain)


def test_append_all_or_nothing(tmp_path):
    (first, _), (second, _) = month(tmp_path, 4, "2000-01-01"), month(tmp_path, 4, "2000-01-05")
    repo = repository(tmp_path)
    with pytest.raises(CombineError, match="no group '/g'"):
        commit(repo, first, append_dim="time", group="g")
    commit(repo, first)
    with pytest.raises(CombineError, match="'time' has the dimension 'time' too"):
        commit(repo, second.drop_vars("time"), append_dim="time")
    with pytest.raises(CombineError, match="'w' is not in the Icechunk store"):
        commit(repo, second.assign(w=second.v), append_dim="time")


def test_region(tmp_path):
    first, plain = month(tmp_path, 8, "2000-01-01", chunk=2)
    repo = repository(tmp_path)
    commit(repo, first)
    part, plain_part = month(tmp_path, 4, "2000-01-03", chunk=2)
    plain = plain.copy(deep=True)
    plain.v[2:6] = plain_part.v.values * 0 + np.asarray(plain_part.v.values)
    commit(repo, part, region={"time": slice(2, 6)})
    xr.testing.assert_identical(opened(repo), plain)


@pytest.mark.parametrize("region", ["auto", {"time": "auto"}])
def test_region_by_labels_with_missing_chunks(tmp_path, region):
    first, plain = month(tmp_path, 8, "2000-01-01", chunk=2)
    repo = repository(tmp_path)
    commit(repo, first)
    array = on_disk(tmp_path / "part.bin", numbers((4, 4), "<f4"), (2, 2), drop=(1, 2), memory=(3,), fill=0.0)
    part = with_array(first.isel(time=slice(2, 6)), array)
    commit(repo, part, region=region)
    values = plain.v.values.copy()
    values[2:6] = numbers((4, 4))
    values[2:4, 2:] = values[4:6, :2] = 0
    np.testing.assert_array_equal(opened(repo).v.values, values)
    np.testing.assert_array_equal(opened(repo).time.values, plain.time.values)


def test_a_region_up_to_the_partial_end(tmp_path):
    first, plain = month(tmp_path, 7, "2000-01-01", chunk=2)
    repo = repository(tmp_path)
    commit(repo, first)
    values = numbers((3, 4), "<f4")
    part = with_array(first.isel(time=slice(4, 7)), on_disk(tmp_path / "part.bin", values, (2, 2)))
    commit(repo, part, region={"time": slice(4, None)})
    np.testing.assert_array_equal(opened(repo).v.values[4:], values)
    np.testing.assert_array_equal(opened(repo).v.values[:4], plain.v.values[:4])


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (
            {"time": slice(1, 5)},
            "does not fit the region 1 to 5 along 'time': it has chunks of 2, and the stored chunks there begin at 0",
        ),
        ({"time": slice(0, 3)}, "4 elements along 'time' for a region of 3"),
        ({"x": slice(0, 4)}, "4 elements along 'time', the stored array 8"),
    ],
)
def test_regions_that_do_not_fit_are_refused(tmp_path, region, message):
    first, plain = month(tmp_path, 8, "2000-01-01", chunk=2)
    repo = repository(tmp_path)
    commit(repo, first)
    part = month(tmp_path, 4, "2000-01-03", chunk=2)[0]
    with pytest.raises(CombineError, match=message):
        commit(repo, part[["v"]].drop_vars(["time", "x"]), region=region)
    with pytest.raises(CombineError, match="not consecutive ones of the stored coordinate"):
        commit(repo, part.assign_coords(time=pd.date_range("2000-01-07", periods=4)), region="auto")
    with pytest.raises(CombineError, match="'w' is not in the Icechunk store"):
        commit(repo, part.rename(v="w"), region="auto")
    xr.testing.assert_identical(opened(repo), plain)


def test_containers_that_are_missing_are_listed(tmp_path):
    made, _ = month(tmp_path, 4, "2000-01-01")
    metadata = ArrayMetadata.build(shape=(1,), chunks=(1,), dtype="<i4", dimension_names=("z",))
    far = ManifestArray(metadata, {"0": {"path": "s3://bucket/a/b.nc", "offset": 0, "length": 4}})
    made = made.assign(far=("z", far))
    folder = as_url(tmp_path) + "/"
    assert required_containers(made) == [folder, "s3://bucket/a/"]
    session = repository(tmp_path).writable_session("main")
    with pytest.raises(NotGrantedError) as caught:
        write_icechunk(made, session.store)
    assert "VirtualChunkContainer('s3://bucket/a/', icechunk.s3_store(region=\"…\"))" in str(caught.value)
    assert f"VirtualChunkContainer({folder!r}" not in str(caught.value)
    assert not session.has_uncommitted_changes
    bare = icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main")
    with pytest.raises(NotGrantedError) as caught:
        write_icechunk(made, bare.store)
    assert f"VirtualChunkContainer({folder!r}, icechunk.local_filesystem_store({str(tmp_path) + '/'!r}))" in str(
        caught.value
    )
    write_icechunk(made, bare.store, validate_containers=False)


def test_what_icechunk_refuses_by_return_value_raises(tmp_path, monkeypatch):
    made, _ = month(tmp_path, 4, "2000-01-01")
    session = icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main")
    monkeypatch.setattr("virtualchunks.writers.icechunk.write.require_containers", lambda *_: None)
    with pytest.raises(WriteError, match=r"refused 2 references of 'v'.*discard_changes"):
        write_icechunk(made, session.store)


def test_arrays_that_cannot_be_written_are_refused_before_anything_is(tmp_path):
    one = on_disk(tmp_path / "a.bin", numbers((4, 4)), (2, 2))
    two = on_disk(tmp_path / "b.bin", numbers((4, 4)), (2, 2), compressors=(GZIP,))
    memory = ArrayMetadata.build(shape=(1,), chunks=(1,), dtype="<i4")
    for array, message in (
        (np.concatenate([one, two]), "'bad' decode in 2 ways .4 as .*, 4 as .*gzip"),
        (ManifestArray(memory, {"0": {"path": "memory://m/a", "offset": 0, "length": 4}}), "memory of this process"),
    ):
        session = repository(tmp_path).writable_session("main")
        with pytest.raises(UnsupportedFeatureError, match=message):
            write_icechunk(ManifestGroup({"good": one, "bad": array}), session.store)
        assert not session.has_uncommitted_changes


def test_stores_and_arguments_that_do_not_fit(tmp_path):
    made, _ = month(tmp_path, 4, "2000-01-01")
    repo = repository(tmp_path)
    with pytest.raises(UnsupportedFeatureError, match=r"session\.store"):
        write_icechunk(made, repo)
    with pytest.raises(WriteError, match="read-only"):
        write_icechunk(made, repo.readonly_session("main").store)
    store = repo.writable_session("main").store
    for options in ({"append_dim": "time", "mode": "w"}, {"region": "auto", "mode": "w-"}, {"mode": "r+"}):
        with pytest.raises(UnsupportedFeatureError, match="is not possible"):
            write_icechunk(made, store, **options)
    with pytest.raises(UnsupportedFeatureError, match="exclude each other"):
        write_icechunk(made, store, append_dim="time", region="auto")
    with pytest.raises(UnsupportedFeatureError, match="labels of coordinates"):
        write_icechunk(ManifestGroup(), store, region="auto")
    with pytest.raises(UnsupportedFeatureError, match="consecutive"):
        write_icechunk(made, store, region={"time": slice(0, 4, 2)})


LOADED = {
    "text of a length": (np.array(["a", "bäé"]), np.array(["c", ""])),
    "text of any length": (np.array(["a", None], dtype=object), np.array([None, "cdefg"], dtype=object)),
    "times": (pd.date_range("2000-01-01", periods=2), pd.date_range("1999-01-01", periods=2)),
    "durations": (pd.to_timedelta([1, 2], unit="D"), pd.to_timedelta([3, 4], unit="D")),
    "truth": (np.array([True, False]), np.array([False, True])),
    "numbers with gaps": (np.array([1.5, np.nan]), np.array([np.nan, 2.5])),
    "complex numbers": (np.array([1j, 2]), np.array([3, 4j])),
}


@pytest.mark.parametrize("kind", LOADED)
def test_loaded_variables_of_every_kind_are_appended(kind):
    repo = repository(Path("/nowhere"))
    parts = [xr.Dataset({"v": ("x", values)}) for values in LOADED[kind]]
    plain = [part.copy(deep=True) for part in parts]
    commit(repo, parts[0])
    commit(repo, parts[1], append_dim="x")
    expected = xr.concat(plain, dim="x").v.values
    if expected.dtype == object:  # xarray writes text that is not there as empty
        expected = np.where(pd.isna(expected), "", expected)
    np.testing.assert_array_equal(opened(repo).v.values, expected)


def test_etags_of_an_object_store():
    pytest.importorskip("moto.server")
    import obstore
    from moto.server import ThreadedMotoServer
    from obstore.store import S3Store

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        keys = {"access_key_id": "a", "secret_access_key": "b"}
        options = {**keys, "region": "us-east-1", "endpoint": endpoint, "client_options": {"allow_http": True}}
        urlopen(Request(f"{endpoint}/bucket", method="PUT"))
        store = S3Store("bucket", **options)
        values = numbers((4, 3), "<i8")
        stamps = []
        for number in range(2):
            data = values[number * 2 : number * 2 + 2].tobytes()
            stamps.append(Stamp(etag=store.put(f"{number}.nc", data)["e_tag"]))
        urls = ["s3://bucket/0.nc", "s3://bucket/1.nc"]
        records = np.zeros((4, 1), dtype=RECORD)
        records["source"][:, 0], records["offset"][:, 0], records["length"] = [0, 0, 1, 1], [0, 24, 0, 24], 24
        metadata = ArrayMetadata.build(shape=(4, 3), chunks=(1, 3), dtype="<i8", dimension_names=("time", "x"))
        array = ManifestArray(metadata, ChunkManifest.from_records(records, SourceTable.of_urls(urls, stamps)))

        config = icechunk.RepositoryConfig.default()
        kind = icechunk.s3_store(
            region="us-east-1", endpoint_url=endpoint, allow_http=True, s3_compatible=True, force_path_style=True
        )
        config.set_virtual_chunk_container(icechunk.VirtualChunkContainer("s3://bucket/", kind))
        access = icechunk.containers_credentials({"s3://bucket/": icechunk.s3_credentials(**keys)})
        storage = icechunk.in_memory_storage()
        repo = icechunk.Repository.create(storage, config, authorize_virtual_chunk_access=access)
        commit(repo, ManifestGroup({"v": array}))
        stored = zarr_group(repo)["v"]
        np.testing.assert_array_equal(stored[:], values)
        obstore.put(store, "1.nc", bytes(48))
        np.testing.assert_array_equal(stored[:2], values[:2])
        with pytest.raises(icechunk.IcechunkError, match="has changed"):
            stored[2:]
    finally:
        server.stop()
