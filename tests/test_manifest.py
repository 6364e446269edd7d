"""Manifests: a mapping that obeys a mapping's laws, 16 bytes a chunk, and honest about its size."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import ManifestError, URLError
from virtualchunks.manifest import RECORD, WIDE_RECORD, ChunkManifest, concatenate, parse_chunk_key
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.sources import PackedStrings, SourceTable, Stamp

URL = "s3://bucket/a.nc"


def entry(offset=0, length=8, path=URL):
    return {"path": path, "offset": offset, "length": length}


@given(st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 2)), st.integers(0, 2**60), min_size=1))
def test_it_is_the_mapping_it_was_made_from(cells):
    entries = {f"{i}.{j}": entry(offset, path=f"s3://bucket/{i}.nc") for (i, j), offset in cells.items()}
    manifest = ChunkManifest(entries, shape=(4, 3))
    assert manifest.dict() == entries
    assert dict(manifest) == entries
    assert len(manifest) == len(entries) == len(list(manifest)) == len(manifest.values())
    assert all(key in manifest for key in entries)
    assert "3.3" not in manifest
    assert manifest.shape_chunk_grid == (4, 3)
    assert set(manifest.iter_nonempty_paths()) == {item["path"] for item in entries.values()}
    assert {index for index, _ in manifest.iter_refs()} == set(cells)
    assert pickle.loads(pickle.dumps(manifest)) == manifest
    assert manifest.compact() == manifest


def test_scalars_and_shapes():
    scalar = ChunkManifest({"0": entry()}, shape=())
    assert scalar.shape_chunk_grid == ()
    assert scalar.dict() == {"0": entry()}
    assert ChunkManifest({"1.2": entry()}).shape_chunk_grid == (2, 3)
    assert ChunkManifest({"1/2": entry()}, separator="/").dict() == {"1.2": entry()}
    assert ChunkManifest({}, shape=(0, 3)).dict() == {}
    with pytest.raises(KeyError):
        scalar["1"]


@pytest.mark.parametrize(
    ("entries", "shape", "message"),
    [
        ({}, None, "needs the shape"),
        ({"0.x": entry()}, None, "not a chunk key"),
        ({"01": entry()}, None, "not a chunk key"),
        ({"-1": entry()}, None, "not a chunk key"),
        ({"0": entry(), "0.1": entry()}, None, "differ in their number of dimensions"),
        ({"5": entry()}, (3,), "outside the chunk grid of shape"),
        ({"0": {"path": URL}}, None, "needs 'path', 'offset' and 'length'"),
        ({"0": entry(offset=-1)}, None, "out of range: -1"),
        ({"0": entry(length=2**63)}, None, "out of range"),
        ({"0": entry(offset=2**63 - 1)}, None, "beyond"),
        ({"0": entry(offset=True)}, None, "not an integer: True"),
        ({"0": entry(offset=1.5)}, None, "not an integer"),
        ({"0": entry(length=0)}, None, "length 0"),
        ({"0": {"data": b""}}, None, "holds no bytes"),
    ],
)
def test_entries_that_are_none(entries, shape, message):
    with pytest.raises(ManifestError, match=message):
        ChunkManifest(entries, shape=shape)


def test_paths_are_checked_once_each_and_brought_into_one_form(monkeypatch):
    with pytest.raises(URLError):
        ChunkManifest({"0": entry(path="relative/a.nc")})
    with pytest.raises(URLError):
        ChunkManifest({"0": entry(path="s3://bucket/../a.nc")})
    assert ChunkManifest({"0": entry(path="/data/a b.nc")})["0"]["path"] == "file:///data/a%20b.nc"
    merged = ChunkManifest({"0": entry(path="s3://bucket/a b"), "1": entry(path="s3://bucket/a%20b")})
    assert len(merged.sources) == 1


def test_columns():
    paths = np.array([[URL, ""], ["s3://bucket/b.nc", URL]])
    offsets = np.array([[0, 0], [8, 16]], dtype="u8")
    lengths = np.array([[8, 0], [8, 8]], dtype="u8")
    manifest = ChunkManifest.from_arrays(paths=paths, offsets=offsets, lengths=lengths)
    assert manifest.dict() == {"0.0": entry(0), "1.0": entry(8, path="s3://bucket/b.nc"), "1.1": entry(16)}
    strings = ChunkManifest.from_arrays(
        paths=paths.astype(np.dtypes.StringDType()), offsets=offsets, lengths=lengths, validate_paths=False
    )
    assert strings == manifest
    for change in ({"paths": paths[:1]}, {"offsets": offsets.astype("f8")}, {"lengths": -lengths.astype("i8")}):
        with pytest.raises(ManifestError):
            ChunkManifest.from_arrays(**{"paths": paths, "offsets": offsets, "lengths": lengths, **change})


def test_chunks_held_in_memory_are_like_any_other():
    manifest = ChunkManifest({"0": {"data": b"abcd"}, "2": entry()}, shape=(4,))
    assert manifest["0"] == {"path": "__inlined__", "offset": 0, "length": 4, "data": b"abcd"}
    assert len(manifest) == 2
    other = ChunkManifest.of_buffers([b"xx", b"abcd"], (2,))
    joined = concatenate([other, manifest], 0)
    assert joined["1"]["data"] == joined["2"]["data"] == b"abcd"
    assert joined["4"] == entry()
    assert pickle.loads(pickle.dumps(joined)) == joined
    assert ChunkManifest.of_buffers([b"abcd"], (1,)) == ChunkManifest({"0": {"data": b"abcd"}}, shape=(1,))
    assert ChunkManifest.of_buffers([b"abce"], (1,)) != ChunkManifest({"0": {"data": b"abcd"}}, shape=(1,))
    with pytest.raises(ManifestError, match="3 chunks for a grid"):
        ChunkManifest.of_buffers([b"a"] * 3, (2,))


def test_huge_chunks_widen_the_records_and_survive_joining():
    wide = ChunkManifest({"0": entry(length=2**40)})
    narrow = ChunkManifest({"0": entry(length=5)})
    assert wide.records.dtype == WIDE_RECORD
    assert narrow.records.dtype == RECORD
    joined = concatenate([narrow, wide], 0)
    assert joined["1"]["length"] == 2**40
    assert joined["0"]["length"] == 5


def test_renaming_edits_the_table_and_forgets_the_stamps():
    sources = SourceTable.of_urls([URL, "s3://bucket/b.nc"], [Stamp(size=7, etag="x"), None])
    records = np.array([(0, 8, 0), (1, 8, 8), (-1, 0, 0)], dtype=RECORD)
    manifest = ChunkManifest.from_records(records, sources)
    calls = []

    def to_https(url):
        calls.append(url)
        return url.replace("s3://bucket", "https://host/dir")

    renamed = manifest.rename_paths(to_https)
    assert len(calls) == 2
    assert renamed["1"]["path"] == "https://host/dir/b.nc"
    assert renamed.sources.stamp(0).etag is None
    assert renamed.sources.stamp(0).size == 7
    assert manifest.rename_paths("/data/all.nc")["0"]["path"] == "file:///data/all.nc"
    with pytest.raises(URLError):
        manifest.rename_paths("https://user:password@host/a.nc")


def test_equality_sees_urls_offsets_lengths_stamps_and_what_is_missing():
    one = ChunkManifest({"0": entry(), "1": entry(8)}, shape=(3,))
    assert one == ChunkManifest({"1": entry(8), "0": entry()}, shape=(3,))
    for other in (entry(9), entry(8, 9), entry(8, path="s3://bucket/b.nc")):
        assert one.elementwise_eq(ChunkManifest({"0": entry(), "1": other}, shape=(3,))).tolist() == [True, False, True]
    assert one != ChunkManifest({"0": entry()}, shape=(3,))
    assert one != ChunkManifest({"0": entry(), "1": entry(8)}, shape=(4,))
    stamped = ChunkManifest.from_records(one.records, one.sources.replace(sizes=np.array([5])))
    assert one != stamped


def test_repeated_records_are_compared_once():
    huge = (10**6, 10**6)
    missing = ChunkManifest.missing(huge)
    assert missing == ChunkManifest.missing(huge)
    assert missing != ChunkManifest.missing((10**6, 10**5))
    one = ChunkManifest({"0.0": entry()}, shape=(1, 1))
    repeated, other = (
        ChunkManifest.from_records(np.broadcast_to(manifest.records, huge), manifest.sources)
        for manifest in (one, one.rename_paths("s3://bucket/b.nc"))
    )
    assert repeated == ChunkManifest.from_records(np.broadcast_to(one.records, huge), one.sources)
    assert repeated != other
    assert repeated != missing
    column = ChunkManifest({"0.0": entry(), "1.0": entry(8)}, shape=(2, 1))
    rows = ChunkManifest.from_records(np.broadcast_to(column.records, (2, 3)), column.sources)
    assert rows == ChunkManifest.from_records(rows.records.copy(), column.sources)
    assert rows != ChunkManifest.from_records(rows.records[::-1].copy(), column.sources)
    assert ChunkManifest.missing((0, 5)) == ChunkManifest.missing((0, 5))


def test_records_must_fit_their_table():
    with pytest.raises(ManifestError, match="outside their table of 1 sources"):
        ChunkManifest.from_records(np.array([(1, 1, 0)], dtype=RECORD), SourceTable.single(URL))
    with pytest.raises(ManifestError, match="dtype"):
        ChunkManifest.from_records(np.zeros(2), SourceTable.single(URL))


def test_what_a_manifest_says_it_takes_is_what_it_takes():
    count, files = 200_000, 200
    urls = [f"s3://some-bucket/a/rather/long/path/to/archived/files/of/one/model/run/{i:06d}.nc" for i in range(files)]
    paths = np.repeat(np.array(urls, dtype=object), count // files)
    offsets = np.arange(count, dtype="u8")
    tracemalloc.start()
    manifest = ChunkManifest.from_arrays(paths=paths, offsets=offsets, lengths=offsets + np.uint64(1))
    retained, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert manifest.nbytes / count < 16.5
    assert 0.9 < manifest.nbytes / retained < 1.1
    assert len(pickle.dumps(manifest)) / count < 17
    assert ChunkManifest.missing((10**6, 10**6)).nbytes < 1000


def test_what_is_repeated_is_held_and_sent_once():
    huge = ChunkManifest.missing((10**6, 10**6))
    assert len(huge) == 0
    assert list(huge) == []
    assert not huge.is_pending
    assert list(huge.iter_nonempty_paths()) == []
    sent = pickle.loads(pickle.dumps(huge))
    assert sent.shape_chunk_grid == (10**6, 10**6)
    assert sent.nbytes < 1000
    one = ChunkManifest({"0.0": entry()})
    many = ChunkManifest.from_records(np.broadcast_to(one.records, (1000, 1)), one.sources)
    assert len(many) == 1000
    assert len(pickle.dumps(many)) < 2000
    assert pickle.loads(pickle.dumps(many)) == many
    assert set(many.compact()) == {f"{i}.0" for i in range(1000)}


def test_slices_let_go_of_the_table_when_they_travel():
    files = [SourceTable.single(f"s3://bucket/{i}.nc", Stamp(size=i)) for i in range(100)]
    record = np.array([(0, 8, 0)], dtype=RECORD)
    joined = concatenate([ChunkManifest.from_records(record, table) for table in files], 0)
    part = ChunkManifest.from_records(joined.records[40:42], joined.sources)
    sent = pickle.loads(pickle.dumps(part))
    assert len(sent.sources) == 2
    assert sent["0"]["path"] == "s3://bucket/40.nc"
    assert sent.sources.stamp(1) == Stamp(size=41)


def test_tables_join_columns_that_only_some_have():
    gzip = ChunkEncoding.plain("<i4", [{"name": "gzip", "configuration": {"level": 1}}])
    plain = ChunkEncoding.plain("<i4")
    tables = [
        SourceTable.single("s3://bucket/0.nc", Stamp(size=1, etag="e", last_modified=5, version="v")),
        SourceTable.single("s3://bucket/1.nc"),
        SourceTable.of_buffers([b"abc"]),
        SourceTable.single("s3://bucket/3.nc").with_encoding(gzip),
        SourceTable.single("s3://bucket/4.nc").with_encoding(plain).with_encoding(gzip, np.array([True])),
    ]
    joined = SourceTable.concat(tables)
    assert [joined.url(i) for i in range(5)] == [
        *(f"s3://bucket/{i}.nc" for i in (0, 1)),
        "",
        *(f"s3://bucket/{i}.nc" for i in (3, 4)),
    ]
    assert joined.stamp(0) == Stamp(size=1, etag="e", last_modified=5, version="v")
    assert not joined.stamp(1)
    assert joined.buffer(2) == b"abc"
    assert joined.buffer(1) is None
    assert [joined.encodings[joined.encoding_id(i) - 1] if joined.encoding_id(i) else None for i in range(5)] == [
        None,
        None,
        None,
        gzip,
        gzip,
    ]
    taken = joined.take(np.array([2, 0]))
    assert taken.buffer(0) == b"abc"
    assert taken.stamp(1).version == "v"


@given(st.lists(st.text(max_size=5), max_size=8))
def test_packed_strings_are_the_strings(strings):
    packed = PackedStrings.pack(strings)
    assert list(packed) == strings
    assert packed[:3] == strings[:3]
    assert packed == PackedStrings.pack(strings)
    assert PackedStrings.concat([packed, packed]) == PackedStrings.pack(strings * 2)
    assert list(packed.take(np.arange(len(strings))[::-1])) == strings[::-1]


def test_chunk_keys():
    assert parse_chunk_key("3.0.12") == (3, 0, 12)
    for key in ("", "1.", ".1", "1..2", "٣", "1e3", "+1"):
        with pytest.raises(ManifestError):
            parse_chunk_key(key)


def peak_of(function):
    """Return what tracemalloc saw at most while a function ran, and what the function returned."""
    tracemalloc.start()
    try:
        result = function()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def columns(files, each):
    names = np.array([f"s3://bucket/{i:06d}.nc".ljust(100, "x") for i in range(files)], dtype=np.dtypes.StringDType())
    shape = (files, each)
    return {
        "paths": np.broadcast_to(names[:, None], shape),
        "offsets": np.broadcast_to(np.arange(each) * 8, shape),
        "lengths": np.broadcast_to(8, shape),
    }


@pytest.mark.parametrize("repeated", [True, False])
def test_columns_become_records_with_next_to_no_memory_beside_them(repeated):
    given = columns(100, 10_000)
    if not repeated:
        given = {name: np.ascontiguousarray(column) for name, column in given.items()}
    peak, manifest = peak_of(lambda: ChunkManifest.from_arrays(**given))
    assert len(manifest) == 10**6
    assert peak <= (1.05 if repeated else 1.5) * manifest.nbytes
    assert manifest.get_entry((99, 9_999)) == entry(79_992, path=given["paths"][99, 0])


@pytest.mark.parametrize("dtype", [np.dtypes.StringDType(), object, "U"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_paths_of_any_layout_are_numbered_alike(dtype, order):
    paths = np.array(["s3://b/1", "", "s3://b/0", "S3://b/1"], dtype=object)
    rows = np.random.default_rng(1).integers(0, len(paths), (700, 300)) * (np.arange(300) % 7 > 3)
    names = np.asarray(paths[rows].astype(dtype), order=order)
    manifest = ChunkManifest.from_arrays(paths=names, offsets=rows, lengths=rows + 1)
    assert [*manifest.sources.urls] == ["s3://b/1", "s3://b/0"]
    assert np.array_equal(manifest.records["source"], np.array([0, -1, 1, 0])[rows])
    assert np.array_equal(manifest.records["offset"], rows)


def test_slices_of_whole_chunks_are_views():
    manifest = ChunkManifest.from_arrays(**columns(50, 1000))
    array = ManifestArray(ArrayMetadata.build(shape=(500, 4000), chunks=(10, 4), dtype="<f4"), manifest)
    peak, part = peak_of(lambda: array[100:385, 400:])
    assert peak < 20_000
    assert np.shares_memory(part.manifest.records, manifest.records)
    assert part.shape == (285, 3600)
    assert part.manifest == ChunkManifest.from_records(manifest.records[10:39, 100:].copy(), manifest.sources)
    assert np.shares_memory(array[200:210][0:10].manifest.records, manifest.records)


def test_a_view_pickles_as_what_it_shows():
    manifest = ChunkManifest.from_arrays(**columns(50, 1000))
    array = ManifestArray(ArrayMetadata.build(shape=(50, 1000), chunks=(1, 1), dtype="<f4"), manifest)
    part = array[7:9, 3:5]
    assert len(pickle.dumps(part.manifest)) < 1000
    assert pickle.loads(pickle.dumps(part.manifest)) == part.manifest


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_joining_renumbers_sources_with_little_memory(axis):
    rng = np.random.default_rng(axis)
    shapes = [tuple(int(n) if place == axis else 60 for place in range(3)) for n in rng.integers(1, 60, 7)]
    urls = np.array(["", *(f"s3://b/{i}" for i in range(9))], dtype=object)
    paths = [urls[rng.integers(0, len(urls), shape)] for shape in shapes]
    parts = [
        ChunkManifest.from_arrays(paths=p, offsets=np.zeros(p.shape, int), lengths=(p != "").astype(int)) for p in paths
    ]
    peak, joined = peak_of(lambda: concatenate(parts, axis))
    assert peak < joined.records.nbytes + 2_500_000
    found = np.array(["", *joined.sources.urls], dtype=object)[joined.records["source"] + 1]
    assert np.array_equal(found, np.concatenate(paths, axis))
