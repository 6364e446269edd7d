"""Tables of references: what other libraries see in them, what comes back, and what is refused, by row."""

import json
import sys

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from tabletrees import FOLDER, cube, held, tree

import virtualchunks as vc
from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    ManifestError,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.manifest import MISSING, RECORD, WIDE_RECORD, ChunkManifest
from virtualchunks.testing.forms import CASES
from virtualchunks.writers.tables import from_arrow, to_arrow
from virtualchunks.writers.tables.documents import KEY

GZIP1 = {"name": "gzip", "configuration": {"level": 1}}
GZIP9 = {"name": "gzip", "configuration": {"level": 9}}


class Capsule:
    """An object of which nothing is known but that it speaks the PyCapsule interface."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


class TestColumns:
    def test_one_row_for_each_chunk_that_is_there(self):
        table = to_arrow(tree())
        rows = table.to_pylist()
        assert len(rows) == 10
        assert {row["array"] for row in rows} == {"air", "crs", "inner/time"}
        assert rows[1] == {
            "array": "air",
            "i0": 0,
            "i1": 1,
            "kind": "virtual",
            "path": f"{FOLDER}/0%20a.nc",
            "offset": 100,
            "length": 12,
            "bytes": None,
            "size": 10**6,
            "etag": '"0"',
            "last_modified": 1_700_000_000_123_456_789,
            "version": None,
            "encoding": 0,
        }

    def test_rows_say_what_the_manifest_says(self):
        for path, array in tree().walk_arrays():
            rows = [row for row in to_arrow(tree()).to_pylist() if row["array"] == path]
            indices = [tuple(row[f"i{axis}"] for axis in range(array.ndim)) for row in rows]
            assert indices == [index for index, _ in array.manifest.iter_refs()]
            for index, row in zip(indices, rows, strict=True):
                entry = array.manifest.get_entry(index)
                assert row["length"] == entry["length"]
                assert row["bytes"] == entry.get("data")
                if "data" in entry:
                    assert (row["kind"], row["path"], row["offset"]) == ("inline", None, 0)
                else:
                    assert (row["path"], row["offset"]) == (entry["path"], entry["offset"])

    def test_axes_beyond_those_of_an_array_are_null(self):
        rows = to_arrow(tree()).to_pylist()
        assert {row["i1"] for row in rows if row["array"] == "inner/time"} == {None}
        assert {(row["i0"], row["i1"]) for row in rows if row["array"] == "crs"} == {(None, None)}

    def test_the_metadata_is_json_that_others_can_read(self):
        document = json.loads(to_arrow(tree()).schema.metadata[KEY.encode()], parse_constant=pytest.fail)
        assert document["root"]["arrays"]["air"]["zarr"]["shape"] == [4, 6]
        assert document["root"]["arrays"]["air"]["zarr"]["fill_value"] == "NaN"
        assert document["root"]["groups"]["inner"]["groups"] == {
            "empty": {"attributes": {}, "arrays": {}, "groups": {}}
        }

    def test_a_tree_without_arrays_has_no_rows(self):
        table = to_arrow(vc.ManifestGroup(attributes={"a": 1}))
        assert table.num_rows == 0
        assert from_arrow(table) == vc.ManifestGroup(attributes={"a": 1})

    def test_missing_chunks_cost_nothing_however_many_they_are(self):
        metadata = vc.ArrayMetadata.build(shape=(10**12,), chunks=(1,), dtype="u1")
        group = vc.ManifestGroup({"v": vc.ManifestArray(metadata, ChunkManifest.missing((10**12,)))})
        table = to_arrow(group)
        assert table.num_rows == 0
        found = from_arrow(table)["v"]
        assert found.metadata == group["v"].metadata
        assert (len(found.manifest), found.manifest.shape_chunk_grid) == (0, (10**12,))
        assert found.nbytes_virtual < 1000

    def test_references_repeated_out_of_proportion_are_refused(self):
        one = vc.ManifestArray(
            vc.ArrayMetadata.build(shape=(1,), chunks=(1,), dtype="u1"),
            {"0": {"path": "s3://b/a", "offset": 0, "length": 1}},
        )
        many = np.broadcast_to(one, (10**9, 1))
        with pytest.raises(LimitExceededError, match="'v' repeats its references over 1,000,000,000 chunks"):
            to_arrow(vc.ManifestGroup({"v": many}))

    def test_repeated_references_are_a_row_each(self):
        one = cube(2)
        many = np.broadcast_to(one, (3, *one.shape))
        table = to_arrow(vc.ManifestGroup({"v": many}))
        assert table.num_rows == 12
        assert table["i0"].to_pylist() == [0] * 4 + [1] * 4 + [2] * 4
        assert from_arrow(table)["v"].manifest == many.manifest


def calls(work):
    """Return how many functions are called, those of C among them."""
    count = 0

    def seen(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_nothing_is_done_chunk_by_chunk():
    trees = [vc.ManifestGroup({"v": references(count), "w": in_memory(count)}) for count in (100, 20_000)]
    tables = [to_arrow(group) for group in trees]
    for work in (lambda i: to_arrow(trees[i]), lambda i: from_arrow(tables[i])):
        work(0)
        assert calls(lambda: work(1)) < calls(lambda: work(0)) + 50  # noqa: B023 - called at once


def references(count):
    records = np.zeros((count, 1), dtype=RECORD)
    records["source"][:, 0], records["length"] = np.arange(count) % 3, 10
    sources = vc.SourceTable.of_urls(
        [f"s3://b/{i}" for i in range(3)], [vc.Stamp(size=i, etag=str(i)) for i in range(3)]
    )
    metadata = vc.ArrayMetadata.build(shape=(count, 5), chunks=(1, 5), dtype="<i2")
    return vc.ManifestArray(metadata, ChunkManifest.from_records(records, sources))


def in_memory(count):
    records = np.zeros(count, dtype=RECORD)
    records["offset"], records["length"] = np.arange(count)[::-1], 1 + np.arange(count) % 2
    metadata = vc.ArrayMetadata.build(shape=(count,), chunks=(1,), dtype="u1")
    return vc.ManifestArray(
        metadata, ChunkManifest.from_records(records, vc.SourceTable.of_buffers([bytes(count + 1)]))
    )


class TestOtherLibraries:
    def test_pyarrow_reads_it_without_a_copy(self):
        table = to_arrow(tree())
        seen = pa.table(Capsule(table))
        assert seen.equals(table, check_metadata=True)
        address = table["offset"].chunk(0).buffers()[1].address
        assert seen["offset"].chunk(0).buffers()[1].address == address

    def test_polars(self):
        table = to_arrow(tree())
        frame = pl.DataFrame(table)
        seen = frame["offset"].to_numpy(allow_copy=False)
        assert seen.__array_interface__["data"][0] == table["offset"].chunk(0).buffers()[1].address
        found = frame.filter(pl.col("array") == "air").group_by("path").agg(pl.col("length").sum()).sort("path")
        assert found.rows() == [(f"{FOLDER}/0%20a.nc", 48), (f"{FOLDER}/1%20a.nc", 36)]

    def test_pandas(self):
        frame = to_arrow(tree()).to_pandas()
        assert frame.loc[frame.array == "air", "length"].sum() == 7 * 12

    def test_duckdb(self):
        table = to_arrow(tree())
        with duckdb.connect() as connection:
            connection.register("refs", table)
            found = connection.sql(
                "SELECT path, count(*), min(i0) FROM refs WHERE refs.array = 'air' GROUP BY path ORDER BY path"
            ).fetchall()
        assert found == [(f"{FOLDER}/0%20a.nc", 4, 0), (f"{FOLDER}/1%20a.nc", 3, 2)]

    @pytest.mark.parametrize("library", ["capsule", "polars", "pandas", "pandas with Arrow types", "duckdb"])
    def test_what_they_hand_back_is_the_same_tree(self, library):
        table = to_arrow(tree())
        with duckdb.connect() as connection:
            connection.register("refs", table)
            handed = {
                "capsule": lambda: Capsule(table),
                "polars": lambda: pl.DataFrame(table).reverse(),
                # the nulls in the column of times make it one of floats, which would round them
                "pandas": lambda: table.drop_columns(["size", "last_modified", "etag"]).to_pandas(),
                "pandas with Arrow types": lambda: table.to_pandas(types_mapper=pd.ArrowDtype),
                "duckdb": lambda: connection.sql("SELECT * FROM refs ORDER BY random()").to_arrow_table(),
            }[library]()
            found = from_arrow(handed, tree())
        for path, array in tree().walk_arrays():
            assert found[path].manifest.dict() == array.manifest.dict()
            assert found[path].metadata == array.metadata
        if library != "pandas":
            assert found == tree()

    def test_a_selection_by_pandas(self):
        frame = to_arrow(tree()).to_pandas(types_mapper=pd.ArrowDtype)
        found = from_arrow(frame[frame["array"] == "crs"], tree())
        assert found["crs"].manifest == tree()["crs"].manifest
        assert len(found["air"].manifest) == 0

    def test_a_relation_of_duckdb(self):
        table = to_arrow(tree())
        with duckdb.connect() as connection:
            connection.register("refs", table)
            assert from_arrow(connection.sql("SELECT * FROM refs"), tree()) == tree()

    def test_floats_that_round_are_refused(self):
        frame = to_arrow(tree()).to_pandas()
        assert frame["last_modified"].dtype == "float64"
        with pytest.raises(ManifestError, match=r"row 0 .*'last_modified', which is of floats and rounds"):
            from_arrow(frame, tree())

    def test_a_query_selects_chunks(self):
        frame = pl.DataFrame(to_arrow(tree())).filter(pl.col("i0") < 2)
        found = from_arrow(frame, tree())
        assert found["air"].manifest.present.tolist() == [[True, True], [True, True], [False, False], [False, False]]


class TestRoundTrip:
    @pytest.mark.parametrize("case", list(CASES))
    def test_equal_in_every_respect(self, case):
        assert from_arrow(to_arrow(CASES[case]())) == CASES[case]()

    def test_nothing_depends_on_the_order_of_rows_and_columns(self):
        table = to_arrow(tree())
        mixed = table.take(np.random.default_rng(0).permutation(table.num_rows)).select(table.column_names[::-1])
        assert from_arrow(mixed) == tree()

    def test_columns_of_stamps_and_encodings_may_be_left_out(self):
        kept = ["array", "i0", "i1", "path", "offset", "length", "bytes"]
        found = from_arrow(to_arrow(tree()).select(kept))
        assert found["air"].manifest.dict() == tree()["air"].manifest.dict()
        assert found["air"].manifest.sources.stamp(0) == vc.Stamp()

    def test_the_levels_of_codecs_come_back(self):
        arrays = [
            vc.ManifestArray(
                vc.ArrayMetadata.build(shape=(2,), chunks=(2,), dtype=dtype, codecs=[*codecs]),
                {"0": {"path": f"s3://b/{number}", "offset": 0, "length": 8}},
            )
            for number, (dtype, codecs) in enumerate(
                [
                    ("<i4", [{"name": "bytes", "configuration": {"endian": "little"}}, GZIP1]),
                    (">i4", [{"name": "bytes", "configuration": {"endian": "big"}}, GZIP1]),
                    ("<i4", [{"name": "bytes", "configuration": {"endian": "little"}}]),
                ]
            )
        ]
        group = vc.ManifestGroup({"v": np.concatenate(arrays)})
        table = to_arrow(group)
        found = from_arrow(table)
        assert found == group
        for number, index in enumerate([(0,), (1,), (2,)]):
            source = found["v"].manifest.records[index]["source"]
            own, encodings = found["v"].manifest.sources.encoding_id(source), found["v"].manifest.sources.encodings
            encoding = encodings[own - 1] if own else found["v"].metadata.encoding
            assert encoding.dtype == arrays[number].metadata.encoding.dtype
            assert encoding.codecs == arrays[number].metadata.encoding.codecs
        assert from_arrow(pl.DataFrame(table), group) == group

    def test_a_stored_dtype_and_shape_unlike_those_of_the_array_come_back(self):
        encoding = vc.ChunkEncoding(np.dtype(">i2"), (*vc.ChunkEncoding.plain(">i2").codecs, GZIP9), (5, 3))
        metadata = vc.ArrayMetadata(vc.ChunkGrid.regular((4, 3), (4, 3)), np.dtype("f8"), encoding)
        array = vc.ManifestArray(metadata, {"0.0": {"path": "s3://b/a", "offset": 1, "length": 30}})
        found = from_arrow(to_arrow(vc.ManifestGroup({"v": array})))["v"].metadata.encoding
        assert (found.dtype, found.codecs, found.shape) == (encoding.dtype, encoding.codecs, (5, 3))

    def test_attributes_keep_their_types(self):
        attributes = {
            "f4": np.float32(0.1),
            "i1s": np.array([[1, 2], [3, 4]], "i1"),
            "big": np.array([1.5], ">f8"),
            "bytes": b"\xff\0",
            "text": np.str_("ü"),
            "texts": np.array(["a", "bc"]),
            "objects": np.array(["a", None], dtype=object),
            "nan": float("nan"),
            "infinite": [float("inf"), 1.0],
            "complex": 1 - 2j,
            "bool": np.True_,
            "time": np.datetime64("2020-01-01T00:00:00.123456789"),
            "none": None,
            "empty": np.array([], "f4"),
            "struct": np.array([(1, 2.5)], dtype=[("a", "<i2"), ("b", ">f4")])[0],
            "mapping": {"$numpy": 1, "b": [{}]},
            "integer": 2**70,
        }
        array = vc.ManifestArray(
            vc.ArrayMetadata.build(shape=(), chunks=(), dtype="u1", attributes=attributes), ChunkManifest.missing(())
        )
        found = from_arrow(to_arrow(vc.ManifestGroup({"v": array}, attributes=attributes)))
        for got in (found["v"].metadata.attributes, found.attributes):
            assert list(got) == list(attributes)
            for name, value in attributes.items():
                np.testing.assert_equal(got[name], value)
                if isinstance(value, np.ndarray | np.generic) and not isinstance(value, np.str_):
                    assert got[name].dtype == value.dtype
                    assert np.shape(got[name]) == np.shape(value)
                elif not isinstance(value, np.str_):
                    assert type(got[name]) is type(value)

    def test_an_attribute_without_a_form_is_refused_with_its_array(self):
        array = vc.ManifestArray(
            vc.ArrayMetadata.build(shape=(), chunks=(), dtype="u1", attributes={"a": object()}),
            ChunkManifest.missing(()),
        )
        with pytest.raises(UnsupportedFeatureError, match=r"'g/v' cannot be written to a table.*is a object"):
            to_arrow(vc.ManifestGroup(groups={"g": vc.ManifestGroup({"v": array})}))

    def test_chunks_of_one_object_may_differ_in_their_stamps(self):
        sources = vc.SourceTable.of_urls(["s3://b/a"] * 3, [vc.Stamp(etag="1"), vc.Stamp(etag="2", size=5), None])
        records = np.zeros(3, dtype=RECORD)
        records["source"], records["length"] = [0, 1, 2], 4
        metadata = vc.ArrayMetadata.build(shape=(3,), chunks=(1,), dtype="<i4")
        group = vc.ManifestGroup({"v": vc.ManifestArray(metadata, ChunkManifest.from_records(records, sources))})
        found = from_arrow(to_arrow(group))
        assert found == group
        stamps = [found["v"].manifest.sources.stamp(row) for row in found["v"].manifest.records["source"].tolist()]
        assert stamps == [vc.Stamp(etag="1"), vc.Stamp(etag="2", size=5), vc.Stamp()]

    def test_chunks_in_memory_may_lie_in_pieces_and_overlap(self):
        buffers = [b"abcdefgh", b"01234567"]
        records = np.zeros(4, dtype=RECORD)
        records["source"], records["length"], records["offset"] = [1, 0, 0, 1], [2, 3, 4, 1], [3, 2, 1, 0]
        metadata = vc.ArrayMetadata.build(shape=(4,), chunks=(1,), dtype="u1")
        manifest = ChunkManifest.from_records(records, vc.SourceTable.of_buffers(buffers))
        table = to_arrow(vc.ManifestGroup({"v": vc.ManifestArray(metadata, manifest)}))
        assert table["bytes"].to_pylist() == [b"34", b"cde", b"bcde", b"0"]
        assert from_arrow(table)["v"].manifest == manifest

    def test_datasets_and_trees_have_it(self):
        dataset = vc.ManifestGroup({"air": cube()}).to_virtual_dataset(loadable_variables=[])
        dataset = dataset.assign_coords(x=("x", np.arange(6)))
        found = from_arrow(dataset.virtual.to_arrow())
        assert found["air"].manifest == cube().manifest
        assert found["x"].manifest["0"]["data"] == np.arange(6, dtype="<i8").tobytes()
        whole = xr.DataTree.from_dict({"/": dataset, "/g": dataset})
        assert set(whole.virtual.to_arrow()["array"].to_pylist()) == {"air", "x", "g/air"}
        repeated = to_arrow(whole, write_inherited_coords=True)
        assert set(repeated["array"].to_pylist()) == {"air", "x", "g/air", "g/x"}

    def test_groups_have_it(self):
        assert vc.ManifestGroup.from_arrow(tree().to_arrow()) == tree()

    @given(
        st.lists(st.tuples(st.integers(-1, 3), st.integers(1, 2**33), st.integers(0, 2**62)), min_size=12, max_size=12),
        st.permutations(range(12)),
    )
    def test_any_records_in_any_order(self, records, order):
        sources = vc.SourceTable.of_urls([f"s3://b/{i}" for i in range(4)], [None, vc.Stamp(size=1), None, None])
        values = np.array(records, dtype=WIDE_RECORD).reshape(2, 3, 2)
        metadata = vc.ArrayMetadata.build(shape=(2, 3, 2), chunks=(1, 1, 1), dtype="u1")
        group = vc.ManifestGroup({"v": vc.ManifestArray(metadata, ChunkManifest.from_records(values, sources))})
        table = to_arrow(group)
        assert table.num_rows == np.count_nonzero(values["source"] != MISSING)
        chosen = [row for row in order if row < table.num_rows]
        assert from_arrow(table.take(chosen)) == group


def changed(name, values, kind=None):
    """Return the table of the tree with some columns exchanged."""
    table = to_arrow(tree())
    column = pa.array(values, kind) if kind else pa.array(values)
    return table.set_column(table.column_names.index(name), name, column)


def with_value(name, row, value):
    """Return the table of the tree with one value changed."""
    table = to_arrow(tree())
    values = table[name].to_pylist()
    values[row] = value
    kind = table.schema.field(name).type
    return changed(name, values, kind.value_type if pa.types.is_dictionary(kind) else kind)


WRONG = {
    "unknown column": (
        lambda: to_arrow(tree()).append_column("weight", pa.array([1] * 10)),
        FormatError,
        "columns that mean nothing here: .'weight'",
    ),
    "missing column": (lambda: to_arrow(tree()).drop_columns(["length"]), FormatError, "lacks the columns .'length'"),
    "a column twice": (
        lambda: to_arrow(tree()).append_column("path", pa.array(["a"] * 10)),
        FormatError,
        "the column 'path' twice",
    ),
    "a gap in the index columns": (lambda: to_arrow(tree()).drop_columns(["i0"]), FormatError, "not i0, i1"),
    "too few index columns": (lambda: to_arrow(tree()).drop_columns(["i1"]), ManifestError, "'air' has 2 axes"),
    "no index columns": (lambda: to_arrow(tree()).drop_columns(["i0", "i1"]), ManifestError, "'air' has 2 axes"),
    "text for numbers": (lambda: changed("offset", ["a"] * 10), FormatError, "'offset' of the table is string"),
    "numbers for text": (lambda: changed("path", [1] * 10), FormatError, "'path' of the table is int64"),
    "text for bytes": (lambda: changed("bytes", ["a"] * 10), FormatError, "'bytes' of the table is string"),
    "a fraction": (lambda: changed("length", [1.5] * 10), ManifestError, "row 0 .*'air', has a fraction"),
    "a negative offset": (lambda: with_value("offset", 2, -1), ManifestError, "row 2 .*'air', has a negative offset"),
    "a length of zero": (lambda: with_value("length", 7, 0), ManifestError, "row 7 .*'crs', has a length below 1"),
    "an end beyond 2**63": (
        lambda: with_value("offset", 3, 2**63 - 5),
        ManifestError,
        "row 3 .*ends beyond 2..63 - 1",
    ),
    "an unsigned number beyond 2**63": (
        lambda: changed("offset", [0, 2**63, *[0] * 8], pa.uint64()),
        ManifestError,
        "row 1 .*beyond 2..63 - 1 in the column 'offset'",
    ),
    "an index outside the grid": (
        lambda: with_value("i0", 1, 4),
        ManifestError,
        r"row 1 .*'air' is 4 along axis 0, outside the chunk grid of shape \(4, 2\)",
    ),
    "a negative index": (lambda: with_value("i1", 1, -1), ManifestError, "row 1 .*'air' is -1 along axis 1"),
    "an index that is null": (
        lambda: with_value("i1", 6, None),
        ManifestError,
        "row 6 .*'air' has none in column 'i1'",
    ),
    "an index too many": (lambda: with_value("i1", 8, 0), ManifestError, "row 8 .*'inner/time' has one in column 'i1'"),
    "a chunk twice": (
        lambda: with_value("i0", 4, 1),
        ManifestError,
        r"rows 2 and 4 of the table are both about chunk \(1, 0\) of 'air'",
    ),
    "a scalar twice": (
        lambda: pa.concat_tables([to_arrow(tree()), to_arrow(tree()).slice(7, 1)]),
        ManifestError,
        r"rows 7 and 10 of the table are both about chunk \(\) of 'crs'",
    ),
    "an unknown array": (
        lambda: with_value("array", 5, "sea"),
        ManifestError,
        "row 5 .* is about 'sea'; .*'air', 'crs'",
    ),
    "no array": (lambda: with_value("array", 5, None), ManifestError, "row 5 of the table names no array"),
    "neither path nor bytes": (lambda: with_value("path", 0, None), ManifestError, "row 0 .*neither a path nor bytes"),
    "path and bytes": (lambda: with_value("bytes", 0, b"a"), ManifestError, "row 0 .*has a path and bytes"),
    "no offset": (lambda: with_value("offset", 0, None), ManifestError, "row 0 .*has no offset"),
    "a length unlike the bytes": (
        lambda: with_value("length", 9, 3),
        ManifestError,
        "row 9 of the table has 16 bytes, and the length 3",
    ),
    "an unknown kind": (lambda: with_value("kind", 2, "remote"), ManifestError, "row 2 .*of a kind that is none of"),
    "a kind of its own": (lambda: with_value("kind", 2, "inline"), ManifestError, "row 2 .*does not go with"),
    "an unknown encoding": (lambda: with_value("encoding", 2, 1), ManifestError, "row 2 .*the encoding 1; .* has 0"),
    "a negative size": (lambda: with_value("size", 2, -1), ManifestError, "row 2 .*negative size"),
    "a URL that is none": (lambda: with_value("path", 2, "no url"), ManifestError, "not an acceptable URL"),
    "a URL with dots": (lambda: with_value("path", 2, "s3://b/../a"), ManifestError, "not an acceptable URL"),
}


class TestBadInput:
    @pytest.mark.parametrize("what", list(WRONG))
    def test_one_error_of_ours_that_names_row_and_array(self, what):
        make, kind, message = WRONG[what]
        table = make()
        with pytest.raises(kind, match=message):
            from_arrow(table.replace_schema_metadata(to_arrow(tree()).schema.metadata))
        with pytest.raises(kind, match=message):
            from_arrow(table.replace_schema_metadata(None), tree())

    def test_a_native_chunk_is_one_with_a_path(self):
        assert from_arrow(with_value("kind", 2, "native")) == tree()

    def test_null_offsets_of_chunks_in_memory_are_fine(self):
        assert from_arrow(with_value("offset", 8, None)) == tree()

    def test_a_template_with_another_grid(self):
        other = vc.ManifestGroup({"air": cube(8)})
        with pytest.raises(ManifestError, match=r"'air' with the shape \(4, 6\) in 4×2 chunks.*\(8, 6\) in 8×2"):
            from_arrow(to_arrow(vc.ManifestGroup({"air": cube(4)})), other)

    def test_a_template_with_another_encoding(self):
        metadata = cube().metadata.replace(encoding=vc.ChunkEncoding.plain(">f4"))
        other = vc.ManifestGroup({"air": vc.ManifestArray(metadata, cube().manifest)})
        with pytest.raises(ManifestError, match=r"'air' with .*little.* and the template has .*big"):
            from_arrow(to_arrow(vc.ManifestGroup({"air": cube()})), other)

    def test_what_stands_for_chunks_that_are_not_known(self):
        records = cube().manifest.records.copy()
        records["source"][0] = -2
        manifest = ChunkManifest.from_records(records, cube().manifest.sources)
        with pytest.raises(UnsupportedFeatureError, match="'v' was reindexed and not filled"):
            to_arrow(vc.ManifestGroup({"v": vc.ManifestArray(cube().metadata, manifest)}))

    @pytest.mark.parametrize("dtype", ['"O"', '"T"', '"|O8"', '[["a", "O"]]', '[["a", "i4"], ["b", [["c", "T"]]]]'])
    def test_attributes_whose_bytes_would_be_addresses(self, dtype):
        attribute = f'{{"dtype": {dtype}, "shape": [1], "data": "{"AAAAAAAA" * 8}", "scalar": false}}'
        root = f'{{"arrays": {{}}, "groups": {{}}, "attributes": {{"a": {{"$numpy": {attribute}}}}}}}'
        document = f'{{"version": 1, "encodings": [], "root": {root}}}'
        with pytest.raises(FormatError, match="the metadata of the table"):
            from_arrow(to_arrow(vc.ManifestGroup()).replace_schema_metadata({KEY: document}))

    def test_without_metadata_or_template(self):
        with pytest.raises(FormatError, match="Pass template="):
            from_arrow(pl.DataFrame(to_arrow(tree())))

    @pytest.mark.parametrize("thing", [3, "text", None, [1], {"a": 1}])
    def test_what_is_no_table(self, thing):
        with pytest.raises(FormatError, match="is no table"):
            from_arrow(thing)

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"[]",
            b"{}",
            b'{"version": 2}',
            b'{"version": 1}',
            b'{"version": 1, "encodings": [], "root": []}',
            b'{"version": 1, "encodings": [{}], "root": {"arrays": {}, "groups": {}, "attributes": {}}}',
            b'{"version": 1, "encodings": [], "root": {"arrays": {"v": {}}, "groups": {}, "attributes": {}}}',
            b'{"version":1,"encodings": [], "root": {"arrays": {}, "groups":{}, "attributes": {"a": {"$numpy": 1}}}}',
            b'{"version": 1, "encodings": [], "root": ' + b'{"groups": {"a": ' * 100_000,
        ],
    )
    def test_metadata_that_is_none(self, text):
        with pytest.raises(FormatError, match="the metadata of"):
            from_arrow(to_arrow(vc.ManifestGroup()).replace_schema_metadata({KEY: text}))

    def test_metadata_with_names_that_are_none(self):
        document = to_arrow(tree()).schema.metadata[KEY.encode()].replace(b'"crs"', b'"a/b"')
        with pytest.raises(VirtualChunksError, match="a/b"):
            from_arrow(to_arrow(vc.ManifestGroup()).replace_schema_metadata({KEY: document}))

    def test_a_grid_out_of_proportion(self):
        table = to_arrow(vc.ManifestGroup({"air": cube(4)}))
        document = table.schema.metadata[KEY.encode()].replace(b'"shape": [4, 6]', b'"shape": [4000000000000, 6]')
        with pytest.raises(LimitExceededError, match="'air' has a grid of 8,000,000,000,000 chunks of which 8"):
            from_arrow(table.replace_schema_metadata({KEY: document}))

    def test_held_values_stay_themselves(self):
        found = from_arrow(to_arrow(vc.ManifestGroup({"v": held(np.arange(6, dtype="<i2"))})))
        assert [entry["data"] for entry in found["v"].manifest.dict().values()] == [
            np.array(pair, "<i2").tobytes() for pair in ([0, 1], [2, 3], [4, 5])
        ]
