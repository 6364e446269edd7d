"""TableParser passes the suite of all parsers; the reference reader is pyarrow, json and NumPy."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import virtualchunks as vc
from virtualchunks.inline import encode_array
from virtualchunks.reading.stamps import local_stamp
from virtualchunks.testing.parsers import ParserTests
from virtualchunks.writers.tables import to_parquet
from virtualchunks_parsers.table import TableParser


def on_disk(path, values, chunks):
    """Write values as chunks of one file and return references to them, one of them missing."""
    metadata = vc.ArrayMetadata.build(
        shape=values.shape, chunks=chunks, dtype=values.dtype, fill_value=7, dimension_names=("time", "x")
    )
    held = encode_array(values, metadata)
    entries, data = {}, b"head"
    for key, entry in list(held.items())[1:]:
        entries[key] = {"path": str(path), "offset": len(data), "length": entry["length"]}
        data += entry["data"]
    path.write_bytes(data)
    manifest = vc.ChunkManifest(entries, held.shape_chunk_grid)
    sources = vc.SourceTable.single(path.as_uri(), local_stamp(path.stat()))
    return vc.ManifestArray(metadata, vc.ChunkManifest.from_records(manifest.records, sources))


class TestTableParser(ParserTests):
    parser = TableParser()
    damage_within = None

    def make_files(self, folder):
        values = np.arange(35, dtype="<i4").reshape(7, 5)
        plain = on_disk(folder / "data.bin", values, (2, 3))
        metadata = vc.ArrayMetadata.build(shape=(5,), chunks=(2,), dtype="<f8", dimension_names=("x",))
        held = vc.ManifestArray(metadata, encode_array(np.arange(5) / 4, metadata))
        nested = vc.ManifestGroup({"v": plain}, {"g": vc.ManifestGroup({"v": plain, "x": held})})
        files = {}
        for name, group in {"plain": vc.ManifestGroup({"v": plain}), "nested": nested}.items():
            files[name] = folder / f"{name}.parquet"
            to_parquet(group, files[name], row_group_size=7)
        return files

    def reference(self, path):
        table = pq.read_table(path)
        root = json.loads(table.schema.metadata[b"virtualchunks"])["root"]
        return {name: read(entry["zarr"], name, table) for name, entry in walk(root, "")}


def walk(node, path):
    for name, entry in node["arrays"].items():
        yield path + name, entry
    for name, inner in node["groups"].items():
        yield from walk(inner, f"{path}{name}/")


def read(document, name, table):
    dtype = np.dtype(document["data_type"])
    chunk = document["chunk_grid"]["configuration"]["chunk_shape"]
    grid = [-(-size // length) for size, length in zip(document["shape"], chunk, strict=True)]
    whole = np.full([count * length for count, length in zip(grid, chunk, strict=True)], document["fill_value"], dtype)
    for row in table.to_pylist():
        if row["array"] != name:
            continue
        data = row["bytes"]
        if data is None:
            with Path(row["path"].removeprefix("file://")).open("rb") as file:
                file.seek(row["offset"])
                data = file.read(row["length"])
        place = tuple(
            slice(row[f"i{axis}"] * length, (row[f"i{axis}"] + 1) * length) for axis, length in enumerate(chunk)
        )
        whole[place] = np.frombuffer(data, dtype).reshape(chunk)
    return whole[tuple(slice(size) for size in document["shape"])]
