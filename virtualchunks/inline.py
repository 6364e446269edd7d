"""In-memory chunks: values encoded with an array's own codecs, so that they can join its references."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.pipeline import encode_block
from virtualchunks.encoding import ChunkEncoding, in_order
from virtualchunks.errors import CombineError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.indexing import Parts
from virtualchunks.manifest import MISSING, ChunkManifest
from virtualchunks.metadata import ArrayMetadata, holds
from virtualchunks.sources import SourceTable

_SMALL = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}


def encoded_like(values: Any, like: ManifestArray, axis: int, *, last: bool = True) -> ManifestArray:
    """Return values as an array of in-memory chunks that can be concatenated with `like`.

    Parameters
    ----------
    values
        A NumPy array.
    like
        The array whose chunks and codecs are followed.
    axis
        The axis of the concatenation, along which lengths may differ.
    last
        Whether the values come last, so that their last chunk may be a padded one and the axis stay regular.

    Raises
    ------
    CombineError
        If the shapes do not fit, or values would change by joining the dtype of `like`.
    UnsupportedFeatureError
        If a codec of `like` can decode only.
    """
    array = np.asarray(values)
    expected = (*like.shape[:axis], array.shape[axis] if array.ndim > axis else -1, *like.shape[axis + 1 :])
    if array.shape != expected:
        raise CombineError(f"values of shape {array.shape} cannot be concatenated with {like.shape} along axis {axis}")
    if not holds(like.dtype, array.dtype):
        raise CombineError(
            f"values of dtype {array.dtype} cannot join references to {like.dtype} without a chance of loss; "
            "convert them first"
        )
    metadata = like.metadata
    grid = metadata.grid.replace(axis, _axis_like(metadata.grid.axes[axis], array.shape[axis], padded=last))
    target = metadata.replace(grid=grid, encoding=_encoding_for_values(metadata))
    return ManifestArray(target, encode_array(array.astype(like.dtype), target))


def with_fill_chunks(parts: Parts) -> Parts:
    """Return an array whose missing chunks are held in memory instead, so that others of it can read as another value.

    Chunks of one shape are the same few bytes: what is compressed is one value over and over.

    Parameters
    ----------
    parts
        Metadata and manifest of an array of numbers.
    """
    metadata, manifest = parts
    missing = manifest.records["source"] == MISSING
    records = manifest.records.copy()
    buffers: list[bytes] = []
    lengths = [axis.nominal for axis in metadata.grid.axes]
    encoding = ChunkEncoding.plain(in_order(metadata.dtype, "<"), [_SMALL])
    for shape in itertools.product(*(np.unique(along).tolist() for along in lengths)):
        where = missing
        for number, (along, size) in enumerate(zip(lengths, shape, strict=True)):
            where = where & (along == size).reshape(-1, *[1] * (metadata.ndim - number - 1))
        if where.any():
            buffers.append(encode_block(np.full(shape, metadata.fill_value, dtype=metadata.dtype), encoding))
            records[where] = (len(manifest.sources) + len(buffers) - 1, len(buffers[-1]), 0)
    held = SourceTable.of_buffers(buffers).with_encoding(encoding)
    return metadata, ChunkManifest._trusted(records, SourceTable.concat([manifest.sources, held]))


def _encoding_for_values(metadata: ArrayMetadata) -> ChunkEncoding:
    own = metadata.encoding
    if in_order(own.dtype, "=") == metadata.dtype and own.shape is None and not own.lift_key:
        return own
    return metadata.transcoded().encoding


def _axis_like(axis: Axis, size: int, *, padded: bool) -> Axis:
    chunk = axis.chunk if axis.chunk is not None else max(axis.edges or (1,))
    if padded or size % chunk == 0:
        return Axis(size, chunk=chunk)
    return Axis.from_edges([*[chunk] * (size // chunk), size % chunk])


def encode_array(values: npt.NDArray[Any], metadata: ArrayMetadata) -> ChunkManifest:
    """Encode an array chunk by chunk.

    Parameters
    ----------
    values
        The whole array, of the metadata's shape.
    metadata
        Its chunk grid and its encoding.

    Returns
    -------
    ChunkManifest
        Chunks held in memory, padded with the fill value where they overhang the array.
    """
    grid: ChunkGrid = metadata.grid
    buffers = []
    for index in itertools.product(*(range(count) for count in grid.grid_shape)):
        cell: tuple[Any, ...] = (*grid.cell_slices(index), ...)
        block = values[cell]
        nominal = grid.nominal_shape(index)
        if block.shape != nominal:
            padded = np.full(nominal, metadata.fill_value, dtype=values.dtype)
            padded[tuple(slice(0, length) for length in block.shape)] = block
            block = padded
        buffers.append(encode_block(block, metadata.encoding))
    return ChunkManifest.of_buffers(buffers, grid.grid_shape)
