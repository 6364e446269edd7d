"""Arrays of references with an oracle: a NumPy array whose elements name the byte that each element is read from.

:func:`addresses` follows the references of a ManifestArray as a reader would, and returns for every element its
*address*: which object, and which byte of it. Whatever rearranges references must rearrange addresses as NumPy
rearranges values.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.manifest import RECORD, ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.sources import SourceTable

#: Distance between the addresses of two objects.
OBJECT = 10**9
#: The address of elements of missing chunks.
NOWHERE = -1


def addresses(array: ManifestArray) -> npt.NDArray[np.int64]:
    """Return the address of every element.

    Parameters
    ----------
    array
        An array whose objects are named ``memory://<number>/…`` or ``s3://<number>/…``.

    Returns
    -------
    numpy.ndarray
        ``number * OBJECT + byte`` for each element, and ``NOWHERE`` for those of missing chunks. For compressed chunks
        the bytes are counted as if they were not compressed.
    """
    metadata, manifest = array.metadata, array.manifest
    result = np.full(array.shape, NOWHERE, dtype=np.int64)
    for index in itertools.product(*(range(count) for count in metadata.grid.grid_shape)):
        source, _, offset = manifest.records[index].item()
        if source < 0:
            continue
        number = manifest.sources.encoding_id(source)
        encoding = manifest.sources.encodings[number - 1] if number else metadata.encoding
        block = _block(encoding, metadata.grid.nominal_shape(index))
        cell = metadata.grid.cell_shape(index)
        starts = encoding.start or (0,) * len(cell)
        head = block[tuple(slice(start, start + length) for start, length in zip(starts, cell, strict=True))]
        name = manifest.sources.url(source).split("/")[2]
        result[metadata.grid.cell_slices(index)] = int(name) * OBJECT + offset + head * encoding.dtype.itemsize
    return result


def _block(encoding: ChunkEncoding, nominal: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return the places of a block's elements in storage."""
    shape = encoding.shape if encoding.shape is not None else nominal
    order = encoding.storage_order(len(shape))
    stored = np.arange(np.prod(shape, dtype=np.int64)).reshape([shape[axis] for axis in order])
    return stored.transpose(np.argsort(order)) if shape else stored


@st.composite
def manifest_arrays(
    draw: Any,
    *,
    shape: tuple[int, ...] | None = None,
    compressed: bool | None = None,
    regular: bool | None = None,
    missing: bool = True,
    number: int | None = None,
) -> ManifestArray:
    """Draw a small array of references, each chunk in a place of its own.

    Parameters
    ----------
    draw
        Given by hypothesis.
    shape
        Its shape; drawn where not given.
    compressed, regular
        Whether its bytes are compressed, and its chunk grid regular; drawn where not given.
    missing
        Whether chunks may be missing.
    number
        Which object it refers to; drawn where not given.
    """
    if shape is None:
        shape = tuple(draw(st.lists(st.integers(0, 7), max_size=3)))
    grid = ChunkGrid(tuple(draw(_axes(size, regular)) for size in shape))
    dtype = np.dtype(draw(st.sampled_from(["<f4", ">f4"])))
    squeezed = draw(st.booleans()) if compressed is None else compressed
    codec = [{"name": "gzip", "configuration": {"level": 1}}] if squeezed else []
    metadata = ArrayMetadata(grid, dtype, ChunkEncoding.plain(dtype, codec), np.float32(0))
    records = np.zeros(grid.grid_shape, dtype=RECORD)
    flat = records.reshape(-1)
    nominal = [int(np.prod(grid.nominal_shape(index))) for index in np.ndindex(grid.grid_shape)]
    flat["length"] = np.array(nominal, dtype=np.int64) * 4
    flat["offset"] = 100 + np.arange(flat.size) * 10_000
    if missing and draw(st.booleans()):
        gone = draw(st.lists(st.booleans(), min_size=flat.size, max_size=flat.size))
        flat[np.array(gone, dtype=bool)] = np.array((-1, 0, 0), dtype=RECORD)
    name = draw(st.integers(0, 8)) if number is None else number
    return ManifestArray(metadata, ChunkManifest.from_records(records, SourceTable.single(f"s3://{name}/a.nc")))


@st.composite
def _axes(draw: Any, size: int, regular: bool | None) -> Axis:
    straight = draw(st.booleans()) if regular is None else regular
    if straight or size == 0:
        return Axis(size, chunk=draw(st.integers(1, max(size + 2, 1))))
    edges: list[int] = []
    while sum(edges) < size:
        edges.append(draw(st.integers(1, size - sum(edges) + 1)))
    return Axis.from_edges(edges, size)
