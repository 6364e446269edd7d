"""A toy format for these tests, and its parser: magic bytes, a JSON header, then the chunks of every array."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from xarray.conventions import cf_encoder

from virtualchunks import (
    ArrayMetadata,
    ChunkGrid,
    ChunkManifest,
    ManifestArray,
    ManifestGroup,
    ManifestStore,
    ObjectStoreRegistry,
    SourceTable,
)
from virtualchunks.errors import FormatError
from virtualchunks.manifest import RECORD
from virtualchunks.reading.reader import ObjectReader

MAGIC = b"TOY1"


def write_toy(path: Path, tree: xr.Dataset | dict[str, xr.Dataset], chunks: dict[str, int] | None = None) -> Path:
    """Write Datasets by group path. `chunks` gives chunk lengths by dimension; chunks that are all NaN are left out."""
    groups = {"": tree} if isinstance(tree, xr.Dataset) else tree
    header: dict[str, Any] = {}
    payload = bytearray()
    for group, dataset in groups.items():
        # xarray's own encoder says what a file holds: times as numbers, coordinates as an attribute
        variables, attributes = cf_encoder(*xr.conventions.encode_dataset_coordinates(dataset))
        arrays = {name: _write(variable, chunks or {}, payload) for name, variable in variables.items()}
        header[group] = {"attributes": attributes, "arrays": arrays}
    text = json.dumps(header, default=lambda value: value.item()).encode()
    path.write_bytes(MAGIC + len(text).to_bytes(8, "little") + text + payload)
    return path


def _write(variable: xr.Variable, chunks: dict[str, int], payload: bytearray) -> dict[str, Any]:
    values = np.asarray(variable.values)
    values = values.astype("S") if values.dtype.kind in "OU" else values
    lengths = tuple(
        max(1, min(size, chunks.get(dim, size))) for dim, size in zip(variable.dims, values.shape, strict=True)
    )
    grid = ChunkGrid.regular(values.shape, lengths)
    places = []
    for index in np.ndindex(grid.grid_shape):
        block = values[grid.cell_slices(index)]
        whole = np.zeros(lengths, values.dtype)
        whole[tuple(slice(0, size) for size in block.shape)] = block
        missing = values.dtype.kind == "f" and values.ndim > 1 and bool(np.isnan(block).all())
        places.append((-1, 0, 0) if missing else (0, whole.nbytes, len(payload)))
        payload += b"" if missing else whole.tobytes()
    return {
        "dtype": values.dtype.str,
        "shape": values.shape,
        "chunks": lengths,
        "dims": variable.dims,
        "attributes": dict(variable.attrs),
        "places": places,
    }


@dataclass(frozen=True, kw_only=True)
class ToyParser:
    """Reads the toy format."""

    strict: bool = False

    name: ClassVar[str] = "Toy"
    suffixes: ClassVar[tuple[str, ...]] = (".toy",)

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def __call__(self, url: str, registry: ObjectStoreRegistry) -> ManifestStore:
        with ObjectReader(registry, url) as reader:
            if reader.read_at(0, min(4, reader.size)) != MAGIC:
                raise FormatError("not a toy file")
            size = int.from_bytes(reader.read_at(4, 8), "little")
            header = json.loads(reader.read_at(12, size))
            sources = SourceTable.single(reader.url, reader.stamp)
        root: dict[str, Any] = {}
        for path, node in header.items():
            arrays = {name: _array(name, entry, sources, 12 + size) for name, entry in node["arrays"].items()}
            root[path] = arrays, node["attributes"]
        return ManifestStore(_tree(root, ""), registry=registry)


def _array(name: str, entry: dict[str, Any], sources: SourceTable, start: int) -> ManifestArray:
    dtype = np.dtype(entry["dtype"])
    metadata = ArrayMetadata.build(
        shape=entry["shape"],
        chunks=entry["chunks"],
        dtype=dtype,
        fill_value=np.nan if dtype.kind == "f" else None,
        dimension_names=entry["dims"],
        attributes=entry["attributes"],
    )
    records = np.empty(len(entry["places"]), dtype=RECORD)
    for number, (source, length, offset) in enumerate(entry["places"]):
        records[number] = (source, length, offset + start)
    return ManifestArray(metadata, ChunkManifest.from_records(records.reshape(metadata.grid.grid_shape), sources))


def _tree(nodes: dict[str, Any], path: str) -> ManifestGroup:
    arrays, attributes = nodes.get(path, ({}, {}))
    prefix = f"{path}/" if path else ""
    below = {name.removeprefix(prefix).partition("/")[0] for name in nodes if name.startswith(prefix) and name != path}
    return ManifestGroup(arrays, {name: _tree(nodes, prefix + name) for name in sorted(below)}, attributes)
