"""Decoding: the bytes of one chunk to its block of the array, and to the plain bytes that stores serve instead.

A chunk decodes with the encoding that its source names, to a block that may exceed its cell (files pad the chunks at
their edges, and one block may be several cells of a finer grid); a part of it is the cell, which the packing of the
encoding, if it has one, lifts to values. Codecs themselves are run in :mod:`virtualchunks.codecs.pipeline`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.pipeline import decode_block, encode_block
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import DecodeError, VirtualChunksError
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.sources import SourceTable

Block = npt.NDArray[Any]


def encoding_of(array: ManifestArray, source: int) -> ChunkEncoding:
    """Return the encoding of the chunks that point at a row of the source table."""
    return row_encoding(array.metadata, array.manifest.sources, source)


def row_encoding(metadata: ArrayMetadata, sources: SourceTable, source: int) -> ChunkEncoding:
    """Return the encoding of the chunks of an array that point at a row of a source table."""
    number = sources.encoding_id(source)
    return sources.encodings[number - 1] if number else metadata.encoding


def read_chunk_block(array: ManifestArray, index: Sequence[int], data: Any) -> Block:
    """Decode the bytes of one chunk to its cell of the array.

    Parameters
    ----------
    array
        The array.
    index
        Index of the chunk in the chunk grid; the chunk must not be missing.
    data
        Its bytes, as anything with the buffer protocol.

    Returns
    -------
    numpy.ndarray
        The values of the cell, of the array's dtype.

    Raises
    ------
    DecodeError
        If the bytes do not decode to a block that holds the cell.

    Examples
    --------
    >>> from virtualchunks.manifest import ChunkManifest
    >>> metadata = ArrayMetadata.build(shape=(3,), chunks=(2,), dtype=">i2")
    >>> array = ManifestArray(metadata, ChunkManifest.of_buffers([b"\\0\\1\\0\\2", b"\\0\\3\\0\\0"], (2,)))
    >>> read_chunk_block(array, (1,), b"\\0\\3\\0\\0").tolist()
    [3]
    """
    sources, source, _, _ = array.manifest.record(tuple(index))
    return decode_cell(array.metadata, row_encoding(array.metadata, sources, source), index, data)


def decode_cell(metadata: ArrayMetadata, encoding: ChunkEncoding, index: Sequence[int], data: Any) -> Block:
    """Decode the bytes of one chunk to its cell, with an encoding already looked up; see :func:`read_chunk_block`."""
    return cell_of(metadata, encoding, index, decode_block(data, encoding, metadata.grid.nominal_shape(index)))


def cell_of(metadata: ArrayMetadata, encoding: ChunkEncoding, index: Sequence[int], block: Block) -> Block:
    """Return the cell of a chunk out of the block that its bytes decode to, as values of the array.

    Parameters
    ----------
    metadata, encoding
        Of the array, and of the chunk.
    index
        Index of the chunk in the chunk grid.
    block
        What :func:`~virtualchunks.codecs.pipeline.decode_block` made of its bytes.

    Raises
    ------
    DecodeError
        If the block does not hold the cell, or other values than the array can have.
    """
    cell = metadata.grid.cell_shape(index)
    first = encoding.start or (0,) * len(cell)
    if any(found < start + wanted for found, start, wanted in zip(block.shape, first, cell, strict=True)):
        within = "" if encoding.start is None else f", from {encoding.start}"
        raise DecodeError(
            f"the bytes decode to the shape {block.shape}, which does not hold the cell of shape {cell}{within}"
        )
    if block.shape != cell:
        block = block[tuple(slice(start, start + length) for start, length in zip(first, cell, strict=True))]
    try:
        if encoding.packing is not None:
            block = encoding.packing.lift(block.astype(encoding.packing.stored, casting="safe", copy=False))
        return block.astype(metadata.dtype, casting="safe", copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise DecodeError(f"values of dtype {block.dtype} do not become {metadata.dtype}: {error}") from error


def transcode(array: ManifestArray, index: Sequence[int], data: Any) -> bytes:
    """Return the bytes of one chunk as the array's transcoded metadata describes them.

    Parameters
    ----------
    array
        The array.
    index
        Index of the chunk in the chunk grid; the chunk must not be missing.
    data
        Its bytes as they are stored.

    Returns
    -------
    bytes
        Plain little-endian elements of the nominal chunk, what lies beyond the array filled with the fill value.

    Raises
    ------
    DecodeError
        If the bytes do not decode to a block that holds the cell.
    """
    return bytes(encode_cell(array.metadata, index, read_chunk_block(array, index, data)))


def encode_cell(metadata: ArrayMetadata, index: Sequence[int], cell: Block) -> bytes | memoryview:
    """Return the values of a cell as :func:`transcode` does, without a copy where they are in memory just so."""
    nominal = metadata.grid.nominal_shape(index)
    if cell.shape != nominal:
        padded = np.full(nominal, metadata.fill_value, dtype=metadata.dtype)
        padded[tuple(slice(0, length) for length in cell.shape)] = cell
        cell = padded
    if cell.flags.c_contiguous and cell.size and _is_plain(cell.dtype):
        return memoryview(cell.reshape(-1).view(np.uint8)).toreadonly()
    return encode_block(cell, metadata.transcoded().encoding)


def _is_plain(dtype: np.dtype[Any]) -> bool:
    """Return whether the bytes of elements in memory are those of little-endian numbers."""
    return dtype.kind in "iufcmM" and dtype.newbyteorder("<").str == dtype.str


@contextmanager
def placed(
    *,
    url: str | None = None,
    variable: str | None = None,
    chunk: Sequence[int] | None = None,
    span: tuple[int, int] | None = None,
) -> Iterator[None]:
    """Give the errors of virtualchunks that leave the block the place where they arose; see :func:`give_place`."""
    try:
        yield
    except VirtualChunksError as error:
        give_place(error, url=url, variable=variable, chunk=chunk, span=span)
        raise


def give_place(
    error: VirtualChunksError,
    *,
    url: str | None = None,
    variable: str | None = None,
    chunk: Sequence[int] | None = None,
    span: tuple[int, int] | None = None,
) -> None:
    """Give an error the place where it arose, as far as it lacks it.

    Parameters
    ----------
    error
        The error.
    url, variable, chunk
        As for :class:`~virtualchunks.errors.VirtualChunksError`.
    span
        Offset and length of the bytes concerned; named in the message of errors that name no bytes.
    """
    error.url = error.url or url
    error.variable = error.variable or variable
    if error.chunk is None and chunk is not None:
        error.chunk = tuple(chunk)
    if span is not None and isinstance(error, DecodeError) and " at offset " not in error.message:
        error.message += f"; they are {span[1]} bytes at offset {span[0]}"
