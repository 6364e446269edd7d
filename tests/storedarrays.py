"""Arrays of references to real bytes, beside the NumPy arrays that those bytes hold: the oracle of whatever reads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from obstore.store import MemoryStore

import virtualchunks.functions  # noqa: F401 - registers NumPy's functions
from virtualchunks.array import ManifestArray
from virtualchunks.codecs.pipeline import encode_block
from virtualchunks.encoding import ChunkEncoding, bytes_codec
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.manifest import RECORD, ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable

GZIP = {"name": "gzip", "configuration": {"level": 1}}
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
BLOSC = {
    "name": "blosc",
    "configuration": {"typesize": 4, "cname": "lz4", "clevel": 1, "shuffle": "shuffle", "blocksize": 0},
}
COMPRESSORS: tuple[tuple[dict[str, Any], ...], ...] = ((), (GZIP,), (ZSTD,), (BLOSC,))


@dataclass
class Shelf:
    """A place for objects, in memory, and the registry that reads from it."""

    store: MemoryStore = field(default_factory=MemoryStore)
    count: int = 0

    @property
    def registry(self) -> ObjectStoreRegistry:
        return ObjectStoreRegistry({"memory://": self.store})

    def put(self, data: bytes) -> str:
        """Store an object and return its URL."""
        self.count += 1
        self.store.put(f"object {self.count}.bin", data)
        return f"memory:///object%20{self.count}.bin"

    def array(
        self,
        values: npt.NDArray[Any],
        grid: ChunkGrid,
        encoding: ChunkEncoding,
        *,
        fill_value: Any = None,
        missing: Sequence[bool] = (),
        held: bool = False,
        dimension_names: tuple[str | None, ...] | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> tuple[ManifestArray, npt.NDArray[Any]]:
        """Store an array chunk by chunk; return the references, and what they read as."""
        metadata = ArrayMetadata(grid, encoding.dtype, encoding, fill_value, dimension_names, attributes or {})
        if values.dtype.kind == "T":
            metadata = replace(metadata, dtype=values.dtype, fill_value=fill_value)
        expected = values.copy()
        records = np.zeros(grid.grid_shape, dtype=RECORD)
        data = bytearray(b"head")
        for place, index in enumerate(itertools.product(*map(range, grid.grid_shape))):
            cell = grid.cell_slices(index)
            if place < len(missing) and missing[place]:
                records[index] = (-1, 0, 0)
                expected[cell] = metadata.fill_value
                continue
            block = padded(values[cell], encoding.shape or grid.nominal_shape(index))
            encoded = encode_block(block, encoding)
            records[index] = (0, len(encoded), len(data))
            data += encoded + b"gap"[: place % 4]
        sources = SourceTable.of_buffers([bytes(data)]) if held else SourceTable.single(self.put(bytes(data)))
        return ManifestArray(metadata, ChunkManifest.from_records(records, sources)), expected


def padded(block: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """Return a block with something in its overhang that must never be read."""
    whole = np.full(
        tuple(shape), np.ones((), dtype=block.dtype)[()] if block.dtype.kind != "T" else "never", block.dtype
    )
    whole[tuple(slice(0, length) for length in block.shape)] = block
    return whole


def plain(dtype: Any, compressors: Sequence[dict[str, Any]] = (), order: Sequence[int] = ()) -> ChunkEncoding:
    """Return an encoding, with the elements stored in another order of axes where one is given."""
    stored = np.dtype(dtype)
    first = [{"name": "transpose", "configuration": {"order": list(order)}}] if list(order) != sorted(order) else []
    return ChunkEncoding(stored, (*first, bytes_codec(stored), *compressors))


@st.composite
def axes(draw: Any, size: int) -> Axis:
    """Draw an axis, regular or not, that may overhang."""
    if size == 0 or draw(st.booleans()):
        return Axis(size, chunk=draw(st.integers(1, max(1, size + 2))))
    edges: list[int] = []
    while sum(edges) < size:
        edges.append(draw(st.integers(1, size - sum(edges) + 1)))
    return Axis.from_edges(edges, size)


@st.composite
def stored_arrays(
    draw: Any,
    shelf: Shelf,
    *,
    grid: ChunkGrid | None = None,
    dtypes: Sequence[str] = ("<i2", ">i2", "<i4", ">f8", "u1"),
    fill_value: Any = None,
) -> tuple[ManifestArray, npt.NDArray[Any]]:
    """Draw references to real bytes, and what they read as."""
    if grid is None:
        shape = draw(st.lists(st.integers(0, 6), max_size=3))
        grid = ChunkGrid(tuple(draw(axes(size)) for size in shape))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    order = draw(st.permutations(range(grid.ndim)))
    shuffled = {"name": "numcodecs.shuffle", "configuration": {"elementsize": dtype.itemsize}}
    encoding = plain(
        dtype, draw(st.sampled_from((*COMPRESSORS, (shuffled, GZIP)))), order if draw(st.booleans()) else ()
    )
    if draw(st.integers(0, 4)) == 0:
        largest = [int(axis.nominal.max(initial=1)) for axis in grid.axes]
        encoding = replace(encoding, shape=tuple(length + draw(st.integers(0, 1)) for length in largest))
    seed = draw(st.integers(0, 1000))
    values = np.random.default_rng(seed).integers(0, 200, grid.shape).astype(dtype.newbyteorder("="))
    missing = draw(st.lists(st.booleans(), max_size=grid.size)) if draw(st.booleans()) else ()
    held = draw(st.integers(0, 4)) == 0
    fill = draw(st.sampled_from([0, 7])) if fill_value is None else fill_value
    return shelf.array(values, grid, encoding, fill_value=fill, missing=missing, held=held)
