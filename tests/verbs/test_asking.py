"""Questions to trees of references, against loops over every reference."""

import datetime as dt
import itertools

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import virtualchunks as vc
from virtualchunks.errors import ChunkIndexError
from virtualchunks.manifest import IN_MEMORY
from virtualchunks.testing.arrays import manifest_arrays
from virtualchunks.verbs import Table, diff, locate, sources


def tree(**arrays: vc.ManifestArray) -> vc.ManifestGroup:
    return vc.ManifestGroup(arrays)


def named(array: vc.ManifestArray) -> vc.ManifestArray:
    names = tuple(f"d{axis}" for axis in range(array.ndim))
    return vc.ManifestArray(array.metadata.replace(dimension_names=names), array.manifest)


def array(entries: dict, shape=(6, 4), chunks=(2, 2), **facts) -> vc.ManifestArray:
    names = facts.pop("names", ("t", "x"))
    metadata = vc.ArrayMetadata.build(shape=shape, chunks=chunks, dtype="<i2", dimension_names=names, **facts)
    full = {key: {"path": f"s3://b/{url}", "offset": at, "length": 8} for key, (url, at) in entries.items()}
    return vc.ManifestArray(metadata, vc.ChunkManifest(full, metadata.grid.grid_shape))


@settings(max_examples=60, deadline=None)
@given(manifest_arrays(), manifest_arrays())
def test_sources_are_what_a_loop_counts(one, other):
    group = vc.ManifestGroup({"one": one}, {"inner": vc.ManifestGroup({"other": other})})
    expected: dict[str, dict] = {}
    for path, found in group.walk_arrays():
        for index, entry in found.manifest.iter_refs():
            row = expected.setdefault(entry["path"], {"chunks": 0, "bytes": 0, "ranges": {}})
            row["chunks"] += 1
            row["bytes"] += entry["length"]
            spans = [(part.start, part.stop) for part in found.metadata.grid.cell_slices(index)]
            old = row["ranges"].get(path, spans)
            row["ranges"][path] = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(old, spans, strict=True))
    table = sources(group)
    assert sorted(table["url"]) == sorted(expected)
    for row in table:
        assert {name: row[name] for name in ("chunks", "bytes", "ranges")} == expected[row["url"]]
        assert row["variables"] == tuple(row["ranges"])


def test_sources_tell_versions_of_one_object_apart():
    stamps = [vc.Stamp(size=100, last_modified=10**18), vc.Stamp(size=200, etag="b")]
    table = vc.SourceTable.of_urls(["s3://b/a", "s3://b/a"], stamps)
    records = vc.ChunkManifest.missing((3,)).records.copy()
    records[0], records[2] = (0, 8, 0), (1, 8, 8)
    metadata = vc.ArrayMetadata.build(shape=(6,), chunks=(2,), dtype="<f4")
    found = sources(tree(v=vc.ManifestArray(metadata, vc.ChunkManifest.from_records(records, table))))
    assert pl.DataFrame(found)["last_modified"][0] == dt.datetime(2001, 9, 9, 1, 46, 40)
    assert found["size"] == [100, 200]
    assert found["last_modified"] == [np.datetime64("2001-09-09T01:46:40", "ns"), None]
    assert found["ranges"] == [{"v": ((0, 2),)}, {"v": ((4, 6),)}]


def test_a_table_reads_as_arrow_and_pandas():
    table = sources(tree(v=array({"0.0": ("a", 0), "1.1": ("b", 8)})))
    read = pa.table(table)
    assert read["url"].to_pylist() == ["s3://b/a", "s3://b/b"]
    assert read["ranges"][0].as_py() == [{"variable": "v", "ranges": [[0, 2], [0, 2]]}]
    assert table.to_pandas()["chunks"].tolist() == [1, 1]
    assert pl.DataFrame(table)["url"].to_list() == ["s3://b/a", "s3://b/b"]
    rows = pa.table(table)
    assert duckdb.sql("select sum(chunks) from rows").fetchall() == [(rows.num_rows,)]
    assert Table(table.to_dict()) == table
    assert "s3://b/a" in repr(table)


@settings(max_examples=80, deadline=None)
@given(manifest_arrays(), st.data())
def test_locate_finds_the_chunks_that_hold_elements(drawn, data):
    wanted = named(drawn)
    chosen = {}
    for axis, size in enumerate(wanted.shape):
        if size and data.draw(st.booleans()):
            chosen[f"d{axis}"] = data.draw(
                st.one_of(
                    st.integers(-size, size - 1),
                    st.lists(st.integers(0, size - 1), min_size=1, max_size=3),
                    st.slices(size),
                )
            )
    addresses = [
        np.atleast_1d(np.arange(size)[chosen.get(f"d{axis}", slice(None))]) for axis, size in enumerate(wanted.shape)
    ]
    expected = {}
    grid = wanted.metadata.grid
    for element in itertools.product(*addresses):
        index = tuple(axis.locate(int(at)) for axis, at in zip(grid.axes, element, strict=True))
        entry = wanted.manifest.get_entry(index)
        expected[index] = None if entry is None else (entry["path"], entry["offset"], entry["length"])
    table = locate(tree(v=wanted), chosen)
    found = {}
    for row in table:
        kinds = {"missing": None, "virtual": (row["url"], row["offset"], row["length"])}
        found[row["chunk"]] = kinds.get(row["kind"], (IN_MEMORY, 0, row["length"]))
    assert found == expected


def test_locate_refuses_what_is_not_there():
    group = tree(v=array({"0.0": ("a", 0)}), w=array({}, shape=(2,), chunks=(1,), names=("y",)))
    assert locate(group, {"y": 1})["variable"] == ["v"] * 6 + ["w"]
    for wrong, message in [
        ({"z": 0}, "no dimension 'z'"),
        ({"t": 6}, "outside the dimension 't', of length 6"),
        ({"t": 0.5}, "integers or a slice"),
    ]:
        with pytest.raises(ChunkIndexError, match=message):
            locate(group, wrong)
    with pytest.raises(ChunkIndexError, match="no array of references 'q'"):
        locate(group, {}, ["q"])


def brute(one: vc.ManifestArray, other: vc.ManifestArray) -> tuple[set, set, set]:
    def identities(found: vc.ManifestArray) -> dict:
        return {
            index: (entry["path"], entry["offset"], entry["length"], entry.get("data"))
            for index, entry in found.manifest.iter_refs()
        }

    mine, theirs = identities(one), identities(other)
    changed = {index for index in mine.keys() & theirs.keys() if mine[index] != theirs[index]}
    return theirs.keys() - mine.keys(), mine.keys() - theirs.keys(), changed


def test_diff_of_equal_trees():
    group = tree(v=array({"0.0": ("a", 0)}))
    same = diff(group, tree(v=array({"0.0": ("a", 0)})))
    assert same.ok
    assert not same
    assert str(same) == "no difference"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_diff_is_what_a_loop_finds(long, longer, data):
    def drawn(length: int) -> vc.ManifestArray:
        keys = [f"{i}.{j}" for i in range(length) for j in range(2)]
        places = st.tuples(st.sampled_from("abc"), st.integers(0, 1))
        return array(data.draw(st.dictionaries(st.sampled_from(keys), places)), shape=(2 * length, 4))

    one, other = drawn(long), drawn(longer)
    found = diff(tree(v=one), tree(v=other))
    added, removed, changed = brute(one, other)
    part = found.changed.get("v")
    if part is None:
        assert not added | removed | changed
        assert long == longer
        return
    for changes, expected in ((part.added, added), (part.removed, removed), (part.changed, changed)):
        assert changes.chunks == len(expected) == sum(changes.sources.values())
        if expected:
            assert changes.box == tuple((min(at), max(at) + 1) for at in zip(*expected, strict=True))
    assert ("shape" in part.metadata) == (long != longer)


def test_diff_names_arrays_metadata_and_sources():
    old = vc.ManifestGroup(
        {"gone": array({}), "v": array({"0.0": ("a", 0), "1.0": ("a", 8)}, attributes={"units": "K"})},
        attributes={"title": "one"},
    )
    new = vc.ManifestGroup(
        {"new": array({}), "v": array({"0.0": ("b", 0), "2.1": ("a", 8)}, attributes={"units": "C"})},
        attributes={"title": "two"},
    )
    found = diff(old, new)
    assert (found.added, found.removed) == (("new",), ("gone",))
    assert found.attributes == {"@title": ("one", "two")}
    assert found.changed["v"].metadata == {"attributes.units": ("K", "C")}
    assert found.changed["v"].changed.sources == {"s3://b/a → s3://b/b": 1}
    assert found.changed["v"].added.box == ((2, 3), (1, 2))
    text = str(found)
    for part in ("+ array new", "- array gone", "~ v.attributes.units: 'K' → 'C'", "1 chunks in [2:3, 1:2]"):
        assert part in text


def test_diff_is_bounded():
    entries = {f"{i}.0": (f"f{i}", 0) for i in range(100)}
    one = array(entries, shape=(200, 2), chunks=(2, 2))
    other = array({}, shape=(200, 2), chunks=(2, 2))
    removed = diff(tree(v=one), tree(v=other)).changed["v"].removed
    assert (removed.chunks, len(removed.sources), removed.more) == (100, 20, 80)


def test_diff_of_grids_that_are_cut_differently_is_one_of_metadata():
    found = diff(tree(v=array({"0.0": ("a", 0)})), tree(v=array({"0.0": ("a", 0)}, chunks=(3, 2))))
    assert found.changed["v"].metadata == {"chunks": ((2, 2), (3, 2))}
    assert not found.changed["v"].changed.chunks
