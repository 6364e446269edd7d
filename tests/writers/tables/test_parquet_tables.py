"""Parquet tables of references: streamed, pruned, placed whole, refused by name; and the parser that opens them."""

import contextlib
import importlib.metadata
import os
import signal
import subprocess
import sys
import tomllib
import tracemalloc
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import xarray as xr
from obstore.store import MemoryStore
from tabletrees import FOLDER, cube, tree

import virtualchunks as vc
from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    ManifestError,
    NotGrantedError,
    ReadError,
    TargetExistsError,
    UnsupportedFeatureError,
    VirtualChunksError,
    WriteError,
)
from virtualchunks.manifest import RECORD, ChunkManifest
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.writers.kerchunk import write_parquet
from virtualchunks.writers.tables import from_parquet, to_arrow, to_parquet
from virtualchunks_parsers.table import TableParser


@pytest.fixture
def path(tmp_path):
    to_parquet(tree(), tmp_path / "references.parquet", row_group_size=3)
    return tmp_path / "references.parquet"


def many(count=200_000, files=1000):
    """Return an array of many references over files with URLs of 100 characters."""
    records = np.zeros((count, 1), dtype=RECORD)
    records["source"][:, 0] = np.arange(count) * files // count
    records["length"] = np.random.default_rng(0).integers(900, 1100, (count, 1))
    records["offset"][:, 0] = np.cumsum(records["length"]) - records["length"][:, 0]
    urls = [f"s3://bucket/{number:08d}".ljust(100, "x") for number in range(files)]
    metadata = vc.ArrayMetadata.build(shape=(count, 4), chunks=(1, 4), dtype="<f4")
    return vc.ManifestArray(metadata, ChunkManifest.from_records(records, vc.SourceTable.of_urls(urls)))


class TestFile:
    def test_pyarrow_reads_the_table_itself(self, path):
        table = pq.read_table(path)
        assert table.to_pylist() == to_arrow(tree()).to_pylist()
        assert table.schema.equals(to_arrow(tree()).schema)
        assert table.schema.metadata[b"virtualchunks"] == to_arrow(tree()).schema.metadata[b"virtualchunks"]

    def test_polars_and_duckdb_query_it(self, path):
        frame = pl.scan_parquet(path).filter(pl.col("array") == "air").select(pl.col("length").sum()).collect()
        assert frame.item() == 84
        with duckdb.connect() as connection:
            found = connection.sql(f"SELECT max(\"offset\") FROM '{path}' AS t WHERE t.array = 'air'").fetchall()
        assert found == [(3000,)]

    def test_row_groups_are_as_small_as_asked_and_hold_their_own_texts_only(self, tmp_path):
        to_parquet(vc.ManifestGroup({"v": many(1000, 100)}), tmp_path / "a.parquet", row_group_size=10)
        metadata = pq.read_metadata(tmp_path / "a.parquet")
        assert metadata.num_row_groups == 100
        paths = metadata.row_group(5).column(metadata.schema.names.index("path"))
        assert paths.statistics.min == paths.statistics.max == "s3://bucket/00000005".ljust(100, "x")
        assert paths.total_uncompressed_size < 1000  # a hundred URLs take 10,000

    def test_small_arrays_share_a_row_group(self, tmp_path):
        to_parquet(vc.ManifestGroup({f"v{number:03d}": cube(2) for number in range(100)}), tmp_path / "a.parquet")
        assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 1
        assert from_parquet(tmp_path / "a.parquet")["v007"].manifest == cube(2).manifest

    def test_statistics_tell_where_a_chunk_is(self, tmp_path):
        to_parquet(vc.ManifestGroup({"v": many(1000, 10)}), tmp_path / "a.parquet", row_group_size=100)
        metadata = pq.read_metadata(tmp_path / "a.parquet")
        along = metadata.schema.names.index("i0")
        ranges = [metadata.row_group(number).column(along).statistics for number in range(10)]
        assert [(found.min, found.max) for found in ranges] == [(100 * i, 100 * i + 99) for i in range(10)]

    def test_memory_does_not_grow_with_the_table(self, tmp_path):
        group = vc.ManifestGroup({"v": many()})
        tracemalloc.start()
        to_parquet(group, tmp_path / "a.parquet", row_group_size=10_000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 << 20

    def test_rows_in_another_order_by_another_program(self, path, tmp_path):
        shuffled = pl.read_parquet(path).sample(fraction=1, shuffle=True, seed=0)
        shuffled.write_parquet(tmp_path / "b.parquet")
        assert from_parquet(tmp_path / "b.parquet", template=tree()) == tree()

    @pytest.mark.parametrize("compression", ["zstd", "snappy", "none", "gzip"])
    def test_compressions(self, tmp_path, compression):
        to_parquet(tree(), tmp_path / "a.parquet", compression=compression)
        assert from_parquet(tmp_path / "a.parquet") == tree()

    def test_a_dataset_has_it(self, tmp_path):
        dataset = vc.ManifestGroup({"air": cube()}).to_virtual_dataset(loadable_variables=[])
        dataset.virtual.to_parquet(tmp_path / "a.parquet")
        assert from_parquet(tmp_path / "a.parquet")["air"].manifest == cube().manifest


class TestTarget:
    def test_modes(self, path):
        with pytest.raises(TargetExistsError, match="mode='w'"):
            to_parquet(vc.ManifestGroup(), path, mode="w-")
        assert from_parquet(path) == tree()
        to_parquet(vc.ManifestGroup(), path)
        assert from_parquet(path) == vc.ManifestGroup()

    def test_object_stores(self):
        store = MemoryStore()
        to_parquet(tree(), "folder/a.parquet", store=store)
        assert from_parquet("memory:///folder/a.parquet", {"memory://": store}) == tree()
        registry = vc.ObjectStoreRegistry({"s3://bucket/": store})
        to_parquet(tree(), "s3://bucket/b.parquet", registry=registry)
        assert from_parquet("s3://bucket/b.parquet", registry) == tree()

    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"compression": "middle-out"}, UnsupportedFeatureError, "Parquet cannot be written so"),
            ({"row_group_size": 0}, FormatError, "at least 1, found 0"),
        ],
    )
    def test_options_that_are_none(self, path, options, kind, message):
        with pytest.raises(kind, match=message):
            to_parquet(vc.ManifestGroup(), path, **options)
        assert from_parquet(path) == tree()

    def test_what_cannot_be_written_leaves_the_target_alone(self, path):
        pointless = vc.ManifestArray(
            vc.ArrayMetadata.build(shape=(1,), chunks=(1,), dtype="u1"),
            {"0": {"path": "memory:///a", "offset": 0, "length": 1}},
        )
        strange = vc.ManifestGroup({"v": pointless}, attributes={"a": object()})
        for group in (vc.ManifestGroup({"v": pointless}), strange):
            with pytest.raises(UnsupportedFeatureError):
                to_parquet(group, path)
        assert from_parquet(path) == tree()
        assert os.listdir(path.parent) == [path.name]

    def test_a_target_that_cannot_be_written(self, tmp_path):
        with pytest.raises(WriteError, match="cannot write"):
            to_parquet(tree(), tmp_path / "none" / "a.parquet")

    def test_killed_in_mid_write(self, path):
        code = f"""
import os, signal
import virtualchunks.writers.tables.parquet as module
from tabletrees import tree
own = module._lean
def lean(table):
    if table["array"][0].as_py() != "air":
        os.kill(os.getpid(), signal.SIGKILL)
    return own(table)
module._lean = lean
module.to_parquet(tree(), {str(path)!r}, row_group_size=2)
"""
        before = path.read_bytes()
        folders = [os.path.dirname(os.path.dirname(os.path.dirname(__file__))), *sys.path]
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)}, check=False
        )
        assert done.returncode == -signal.SIGKILL
        assert path.read_bytes() == before


class TestDamage:
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
    def test_cut_off(self, path, share):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(VirtualChunksError, match=r"references\.parquet"):
            from_parquet(path)

    def test_bytes_changed(self, path):
        data = path.read_bytes()
        generator = np.random.default_rng(7)
        for _ in range(150):
            damaged = bytearray(data)
            for place in generator.integers(0, len(data), 3):
                damaged[place] = generator.integers(256)
            path.write_bytes(damaged)
            with contextlib.suppress(VirtualChunksError):
                assert isinstance(from_parquet(path), vc.ManifestGroup)

    def test_references_are_never_changed_by_damage_to_a_page(self, path):
        metadata = pq.read_metadata(path)
        begin = min(metadata.row_group(0).column(place).data_page_offset for place in range(len(metadata.schema.names)))
        last = metadata.row_group(metadata.num_row_groups - 1).column(len(metadata.schema.names) - 1)
        end = last.data_page_offset + last.total_compressed_size
        data = path.read_bytes()
        generator = np.random.default_rng(3)
        refused = 0
        for place in generator.choice(np.arange(begin, min(end, len(data))), 200, replace=False).tolist():
            damaged = bytearray(data)
            damaged[place] ^= 1 << int(generator.integers(8))
            path.write_bytes(damaged)
            try:
                found = from_parquet(path)
            except VirtualChunksError:
                refused += 1
                continue
            assert found == tree()
        assert refused > 100

    def test_damage_to_the_metadata(self, path):
        table = pq.read_table(path)
        metadata = {name: text.replace(b"[4, 6]", b"[4, 5]") for name, text in table.schema.metadata.items()}
        pq.write_table(table.replace_schema_metadata(metadata), path)
        with pytest.raises(FormatError, match="its metadata is not what was written"):
            from_parquet(path)

    def test_a_file_that_claims_too_much(self, path, monkeypatch):
        monkeypatch.setattr("virtualchunks.writers.tables.parquet.MOST_ROWS", 9)
        with pytest.raises(LimitExceededError, match="10 rows; the most is 9"):
            from_parquet(path)

    def test_parquet_of_something_else(self, tmp_path):
        pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet")
        with pytest.raises(FormatError, match=r"without the metadata of a table of references; its columns are .'a'"):
            from_parquet(tmp_path / "a.parquet")

    def test_rows_that_are_wrong_name_the_file(self, tmp_path):
        table = to_arrow(tree())
        pq.write_table(table.take([0, 1, 0]), tmp_path / "a.parquet")
        with pytest.raises(ManifestError, match=r"rows 0 and 2 .*'air' .*a\.parquet"):
            from_parquet(tmp_path / "a.parquet")

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(ReadError, match=r"none\.parquet"):
            from_parquet(tmp_path / "none.parquet")


class TestParser:
    def test_the_store(self, path):
        store = TableParser()(path.as_uri())
        assert store.group == tree()
        assert TableParser().parse(str(path)) == tree()

    def test_found_by_content(self):
        assert TableParser.recognises(b"PAR1....")
        assert not TableParser.recognises(b'{"refs"')

    @pytest.mark.parametrize("options", [{}, {"parser": "parquet"}])
    def test_found_through_its_entry_point(self, path, options, monkeypatch):
        project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
        value = project["entry-points"]["virtualchunks.parsers"]["parquet"]
        entry = importlib.metadata.EntryPoint("parquet", value, "virtualchunks.parsers")
        monkeypatch.setattr("virtualchunks.parsing._entry_points", lambda: {"parquet": entry})
        assert vc.open_store(path, **options).group == tree()

    def test_a_part_of_kerchunk_references(self, tmp_path):
        write_parquet(vc.ManifestGroup({"air": cube()}), tmp_path / "refs")
        with pytest.raises(FormatError, match="part of Kerchunk references, open the folder"):
            TableParser()(str(tmp_path / "refs" / "air" / "refs.0.parq"))

    def test_a_group_and_dropped_variables(self, path):
        inner = TableParser(group="inner").parse(str(path))
        assert inner == tree()["inner"]
        assert set(TableParser(drop_variables=["time", "/crs"]).parse(str(path))) == {"air", "inner"}
        assert list(dict(TableParser(drop_variables=["inner"]).parse(str(path)).walk_arrays())) == ["air", "crs"]
        with pytest.raises(FormatError, match=r"no group 'outer'.*'inner'"):
            TableParser(group="outer").parse(str(path))

    def test_row_groups_of_other_arrays_are_not_read(self, tmp_path, monkeypatch):
        group = vc.ManifestGroup({"a": cube(4), "big": many(100_000), "z": cube(4)})
        to_parquet(group, tmp_path / "a.parquet", row_group_size=10_000)
        registry = vc.ObjectStoreRegistry({tmp_path.as_uri() + "/": None})
        read = []

        class Counting(ObjectReader):
            def readinto(self, buffer):
                read.append(len(buffer))
                return super().readinto(buffer)

        monkeypatch.setattr("virtualchunks.writers.tables.parquet.ObjectReader", Counting)
        found = from_parquet(tmp_path / "a.parquet", registry, wanted=lambda path: path != "big")
        assert list(found) == ["a", "z"]
        assert found["z"].manifest == cube(4).manifest
        some = sum(read)
        assert from_parquet(tmp_path / "a.parquet", registry) == group
        assert some < (sum(read) - some) / 3

    def test_what_the_table_refers_to_is_not_granted(self, tmp_path):
        (tmp_path / "secret").write_bytes(b"12345678")
        array = vc.ManifestArray(
            vc.ArrayMetadata.build(shape=(8,), chunks=(8,), dtype="u1", dimension_names=("x",)),
            {"0": {"path": str(tmp_path / "secret"), "offset": 0, "length": 8}},
        )
        path = tmp_path / "a.parquet"
        to_parquet(vc.ManifestGroup({"v": array}), path)
        store = TableParser()(path.as_uri())
        with pytest.raises(NotGrantedError):
            xr.open_zarr(store, consolidated=False, zarr_format=3)["v"].load()
        dataset = vc.open_virtual_dataset(path, parser=TableParser())
        with pytest.raises(NotGrantedError, match="not opened by name"):
            dataset.virtual.open()
        granted = dataset.virtual.open({tmp_path.as_uri() + "/": None})
        assert bytes(granted["v"].values) == b"12345678"

    def test_opened_as_a_dataset_like_any_file(self, path):
        dataset = vc.open_virtual_dataset(path, parser=TableParser(), drop_variables=["crs"])
        assert dataset["air"].dims == ("time", "x")
        assert dataset["air"].variable._data.manifest == tree()["air"].manifest
        whole = vc.open_virtual_datatree(path, parser=TableParser(drop_variables=["crs"]))
        assert whole["inner"]["time"].values.tolist() == [0, 1, 2, 3]
        assert f"{FOLDER}/0%20a.nc" in set(dataset.virtual.sources()["url"])
