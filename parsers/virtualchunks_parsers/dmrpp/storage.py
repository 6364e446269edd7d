"""Where the values of a DMR++'s variables lie: its chunks and blocks → chunk records.

What the document holds itself is in :mod:`~virtualchunks_parsers.dmrpp.inline`.

References
----------
DMR++ documentation and schema of the OPeNDAP BES, elements ``chunks``, ``chunkDimensionSizes``, ``chunk``, ``block``
and ``FixedLengthStringArray``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding, Codec, bytes_codec, in_order
from virtualchunks.errors import LimitExceededError, UnsupportedFeatureError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.manifest import MISSING, RECORD, WIDE_RECORD, ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.dmrpp.datafiles import DataFiles
from virtualchunks_parsers.dmrpp.document import NUMBER, Chunks, Element, Int64
from virtualchunks_parsers.dmrpp.fills import fill_value
from virtualchunks_parsers.dmrpp.variables import DType, Variable
from virtualchunks_parsers.hdf5.filters import HDF5Filter, filter_codecs

#: The largest chunk grid that is written out for a variable with any chunk in it.
MOST_CHUNKS = 100_000_000
#: Bytes of one text of fixed length.
LONGEST_TEXT = 1 << 24
#: Filters by the names that DMR++ has for them: HDF5's numbers.
FILTERS = {"shuffle": 2, "deflate": 1, "fletcher32": 3, "bzip2": 307, "zstd": 32015}
#: The order in which the writers of documents without a version applied filters, whatever order they wrote.
OLD_ORDER = ("shuffle", "deflate", "fletcher32")
#: Paddings of text, and whether NumPy pads so too.
PADDINGS = {"null_pad": True, "not_set": True, "null_term": False, "space_pad": False}
BYTE_ORDERS: Mapping[str, Literal["<", ">"]] = {"LE": "<", "BE": ">"}


@dataclass(frozen=True, eq=False)
class Storage:
    """What a ``chunks`` element, or a ``chunk`` by itself, says of a variable's storage.

    Attributes
    ----------
    variable
        The variable.
    dtype
        Its dtype as stored.
    grid
        Its chunk grid.
    filters
        Names of its filters, in encoding order.
    chunks
        Its chunks.
    attributes
        Attributes of the element.
    """

    variable: Variable
    dtype: DType
    grid: ChunkGrid
    filters: tuple[str, ...]
    chunks: Chunks
    attributes: Mapping[str, str]

    @property
    def chunk_nbytes(self) -> int:
        """Bytes that a chunk decodes to."""
        return math.prod(self.grid.chunk_shape) * self.dtype.itemsize

    def encoding(self, mask: int) -> ChunkEncoding:
        """Return how chunks with a filter mask decode.

        Raises
        ------
        UnsupportedFeatureError
            If a filter is not known.
        """
        levels = [int(text) for text in self.attributes.get("deflateLevel", "").split() if text in "123456789"]
        pipeline = []
        for name in self.filters:
            if name not in FILTERS:
                raise UnsupportedFeatureError(f"the filter {name!r}; known are {', '.join(FILTERS)}")
            values = {"shuffle": (self.dtype.itemsize,), "deflate": tuple(levels[:1])}.get(name, ())
            pipeline.append(HDF5Filter(FILTERS[name], 0, values, name))
        codecs = filter_codecs(pipeline, dtype=self.dtype, chunk_shape=self.grid.chunk_shape, mask=mask)
        return ChunkEncoding(self.dtype, (bytes_codec(self.dtype), *self.padding, *codecs))

    @property
    def padding(self) -> tuple[Codec, ...]:
        """The codec of text that is padded otherwise than NumPy pads it."""
        fixed = self.variable.element.first("dmrpp:FixedLengthStringArray")
        pad = "null_pad" if fixed is None else fixed.attributes.get("pad", "not_set")
        if pad not in PADDINGS:
            raise UnsupportedFeatureError(f"text padded with {pad!r}; known are {', '.join(PADDINGS)}")
        as_stored = PADDINGS[pad] or (pad == "null_term" and self.dtype.itemsize == 1)
        return () if as_stored else ({"name": "virtualchunks.text_padding", "configuration": {"pad": pad}},)


def stored_array(variable: Variable, element: Element, files: DataFiles, *, versioned: bool) -> ManifestArray:
    """Return the array of a variable whose values lie in data files.

    Parameters
    ----------
    variable
        The variable.
    element
        Its ``chunks`` element, or itself if it has a ``chunk`` without that.
    files
        The data files.
    versioned
        Whether the document has a version; those without have filters in another order.

    Raises
    ------
    FormatError
        If what is said of the chunks does not fit together, or not into the data file.
    UnsupportedFeatureError, LimitExceededError
        If it cannot be represented.
    """
    chunks = element.chunks if element.chunks is not None else Chunks()
    attributes = element.attributes if element.name == "dmrpp:chunks" else {}
    dtype = _stored_dtype(variable, chunks, attributes)
    grid = _grid(variable, element)
    filters = tuple(attributes.get("compressionType", "").split())
    if not versioned and set(filters) <= set(OLD_ORDER):
        filters = tuple(name for name in OLD_ORDER if name in filters)
    storage = Storage(variable, dtype, grid, filters, chunks, attributes)
    if chunks.are_blocks:
        return _linked(storage, files)
    return _chunked(storage, files)


def _stored_dtype(variable: Variable, chunks: Chunks, attributes: Mapping[str, str]) -> DType:
    order = attributes.get("byteOrder", "LE")
    if order not in BYTE_ORDERS:
        raise variable.corrupt(f"the byte order {order!r}, expected LE or BE")
    if variable.dtype is None:
        return _text_dtype(variable, chunks, attributes)
    if variable.dtype.names is not None and "structOffset" in attributes:
        _require_packed(variable.dtype, attributes["structOffset"])
    return in_order(variable.dtype, BYTE_ORDERS[order])


def _text_dtype(variable: Variable, chunks: Chunks, attributes: Mapping[str, str]) -> DType:
    """Text of one length: an array's is stated, a scalar's is that of its chunk."""
    fixed = variable.element.first("dmrpp:FixedLengthStringArray")
    if fixed is not None:
        return fixed_length_dtype(variable, fixed)
    if not variable.shape and not attributes.get("compressionType"):
        if len(chunks) == 1 and 0 < chunks.lengths[0] <= LONGEST_TEXT:
            return np.dtype(f"S{chunks.lengths[0]}")
        if not len(chunks) and "fillValue" in attributes:
            return np.dtype(f"S{max(1, len(attributes['fillValue'].encode()))}")
    raise UnsupportedFeatureError(
        "text of variable length, which lies in a heap of the data file, apart from its chunks"
    )


def fixed_length_dtype(variable: Variable, fixed: Element) -> DType:
    """Return the dtype of text of one length.

    Raises
    ------
    FormatError
        If the length is not one.
    """
    length = fixed.attributes.get("string_length", "")
    if NUMBER.fullmatch(length) is None or not 0 < int(length) <= LONGEST_TEXT:
        raise variable.corrupt(f"text of the length {length!r}")
    return np.dtype(f"S{int(length)}")


def _require_packed(dtype: DType, text: str) -> None:
    """``structOffset``: where all fields but the first begin, and the size of all."""
    assert dtype.names is not None
    assert dtype.fields is not None
    expected = [*(dtype.fields[name][1] for name in dtype.names[1:]), dtype.itemsize]
    if text.split() != [str(number) for number in expected]:
        raise UnsupportedFeatureError(
            f"a structure with gaps between its fields (structOffset is {text[:80]!r}), which no Zarr data type has"
        )


def _grid(variable: Variable, element: Element) -> ChunkGrid:
    texts = [child.text.split() for child in element.of("dmrpp:chunkDimensionSizes")]
    if not texts or not texts[-1]:
        return ChunkGrid.regular(variable.shape, tuple(max(1, length) for length in variable.shape))
    sizes = [int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0 for text in texts[-1]]
    if len(sizes) != len(variable.shape) or 0 in sizes:
        raise variable.corrupt(f"chunks of shape {' '.join(texts[-1])[:80]!r} for an array of shape {variable.shape}")
    return ChunkGrid.regular(variable.shape, sizes)


# ----------------------------------------------------------------------------------------------------------- chunks


def _chunked(storage: Storage, files: DataFiles) -> ManifestArray:
    chunks, grid = _joined(storage.chunks), storage.grid
    if not math.prod(storage.variable.shape):
        if len(chunks):
            raise storage.variable.corrupt(f"{len(chunks)} chunks of an array of shape {storage.variable.shape}")
        missing = ChunkManifest.missing(grid.grid_shape)
        return _array(storage, storage.encoding(0), missing, _optional_fill(storage))
    fill = _required_fill(storage) if len(chunks) < grid.size else _optional_fill(storage)
    if not len(chunks):
        plain = ChunkEncoding.plain(storage.dtype)
        return _array(storage, plain, ChunkManifest.missing(grid.grid_shape), fill)
    if grid.size > MOST_CHUNKS:
        raise LimitExceededError(f"a grid of {grid.size} chunks, of which some are stored; at most {MOST_CHUNKS}")
    place = _places(storage, chunks)
    masks = chunks.column("masks") & ((1 << len(storage.filters)) - 1)
    encodings, numbers = _encodings(storage, masks)
    _check_lengths(storage, chunks, masks)
    rows, sources = _sources(storage, chunks, files, numbers, encodings)
    offsets, lengths = chunks.column("offsets"), chunks.column("lengths")
    records = np.zeros(grid.size, dtype=RECORD if int(lengths.max()) < 2**32 else WIDE_RECORD)
    records["source"] = MISSING
    records["source"][place], records["offset"][place], records["length"][place] = rows, offsets, lengths
    manifest = ChunkManifest.from_records(records.reshape(grid.grid_shape), sources)
    return _array(storage, encodings[0], manifest, fill)


def _array(storage: Storage, encoding: ChunkEncoding, manifest: ChunkManifest, fill: Any = None) -> ManifestArray:
    return ManifestArray(ArrayMetadata(storage.grid, storage.dtype, encoding, fill), manifest)


def _required_fill(storage: Storage) -> Any:
    if "fillValue" not in storage.attributes:
        raise UnsupportedFeatureError("chunks that were never stored, and the document does not say what they read as")
    return _fill(storage)


def _optional_fill(storage: Storage) -> Any:
    """The fill value of an array without missing chunks, which nothing reads."""
    try:
        return _fill(storage) if "fillValue" in storage.attributes else None
    except UnsupportedFeatureError:
        if storage.attributes["fillValue"].startswith("unsupported"):
            raise
        return None


def _fill(storage: Storage) -> Any:
    element = storage.variable.element
    stated = next((child for child in element.of("Attribute") if child.attributes.get("name") == "_FillValue"), None)
    value = None if stated is None else next(stated.of("Value"), None)
    try:
        attribute = None if value is None else float(value.attributes.get("value", value.text))
    except ValueError:
        attribute = None
    return fill_value(storage.attributes["fillValue"], in_order(storage.dtype, "="), attribute)


def _joined(chunks: Chunks) -> Chunks:
    """Chunks in linked blocks, with those blocks joined that follow each other in the file.

    Raises
    ------
    UnsupportedFeatureError
        If some do not: one chunk is one run of bytes.
    """
    blocks = chunks.column("blocks")
    if not (blocks > 0).any():
        return chunks
    offsets, lengths, hrefs = (chunks.column(name) for name in ("offsets", "lengths", "hrefs"))
    later = np.flatnonzero(blocks > 0)
    follows = (offsets[later] == offsets[later - 1] + lengths[later - 1]) & (hrefs[later] == hrefs[later - 1])
    if blocks[0] > 0 or not follows.all():
        raise UnsupportedFeatureError("chunks in linked blocks that lie apart; a chunk is one run of bytes")
    starts = np.flatnonzero(blocks <= 0)
    rank = max(0, chunks.rank)
    positions = chunks.column("positions").reshape(len(chunks), rank)[starts]
    joined = Chunks(rank=chunks.rank, urls=chunks.urls)
    joined.lengths.extend(np.add.reduceat(lengths, starts).tolist())
    joined.positions.extend(positions.ravel().tolist())
    for name in ("offsets", "masks", "hrefs"):
        getattr(joined, name).extend(chunks.column(name)[starts].tolist())
    joined.blocks.extend([-1] * len(starts))
    return joined


def _places(storage: Storage, chunks: Chunks) -> Int64:
    """The number of each chunk in the grid, in C order; positions are those of first elements."""
    variable, grid = storage.variable, storage.grid
    if chunks.rank <= 0:
        if len(chunks) > 1 or grid.size != 1:
            raise variable.corrupt(f"{len(chunks)} chunks without a position in a grid of shape {grid.grid_shape}")
        return np.zeros(1, dtype=np.int64)
    if chunks.rank != grid.ndim:
        raise variable.corrupt(f"chunk positions of {chunks.rank} numbers in an array of {grid.ndim} dimensions")
    positions = chunks.column("positions").reshape(len(chunks), chunks.rank)
    sizes = np.array(grid.chunk_shape, dtype=np.int64)
    if (positions % sizes).any() or (positions >= np.array(variable.shape, dtype=np.int64)).any():
        raise variable.corrupt(f"a chunk position that is none in {variable.shape} in chunks of {grid.chunk_shape}")
    place: Int64 = np.ravel_multi_index(tuple((positions // sizes).T), grid.grid_shape).astype(np.int64)
    if len(np.unique(place)) < len(place):
        raise variable.corrupt("two chunks in one place")
    return place


def _encodings(storage: Storage, masks: Int64) -> tuple[list[ChunkEncoding], Int64]:
    """Return the encodings in use, and the number of each chunk's."""
    distinct, numbers = np.unique(masks, return_inverse=True)
    encodings: list[ChunkEncoding] = []
    rows = []
    for mask in distinct.tolist():
        encoding = storage.encoding(mask)
        if encoding not in encodings:
            encodings.append(encoding)
        rows.append(encodings.index(encoding))
    return encodings, np.array(rows, dtype=np.int64)[numbers]


def _check_lengths(storage: Storage, chunks: Chunks, masks: Int64) -> None:
    """Raise unless chunks that nothing compressed have the length that they decode to."""
    lengths = chunks.column("lengths")
    if (lengths == 0).any():
        raise storage.variable.corrupt("a chunk of 0 bytes")
    if any(name != "shuffle" for name in storage.filters):
        return
    wrong = np.flatnonzero(lengths != storage.chunk_nbytes)
    if len(wrong):
        found = int(lengths[wrong[0]])
        raise storage.variable.corrupt(f"an uncompressed chunk of {found} bytes, expected {storage.chunk_nbytes}")


def _sources(
    storage: Storage, chunks: Chunks, files: DataFiles, numbers: Int64, encodings: Sequence[ChunkEncoding]
) -> tuple[Int64, SourceTable]:
    """Return the row of each chunk, and the table: one row per data file and encoding."""
    pairs, rows = np.unique(chunks.column("hrefs") * len(encodings) + numbers, return_inverse=True)
    hrefs = {number: href for href, number in chunks.urls.items()}
    named = [files.file(hrefs[int(pair) // len(encodings)]) for pair in pairs]
    ends = chunks.column("offsets") + chunks.column("lengths")
    for row, file in enumerate(named):
        end = int(ends[rows == row].max())
        if file.size is not None and end > file.size:
            raise storage.variable.corrupt(f"a chunk up to byte {end} of {file.url}, which ends at {file.size}")
    table = SourceTable.of_urls([file.url for file in named], [file.stamp for file in named])
    if len(encodings) == 1:
        return rows.astype(np.int64), table
    ids = (pairs % len(encodings)).astype(np.int32)
    return rows.astype(np.int64), table.replace(encoding_ids=ids, encodings=tuple(encodings[1:]))


# ----------------------------------------------------------------------------------------------------------- blocks


def _linked(storage: Storage, files: DataFiles) -> ManifestArray:
    """Blocks that make up the whole array, end to end: chunks along its first axis, where they end with its rows.

    Raises
    ------
    UnsupportedFeatureError
        If blocks end within rows, or are compressed.
    """
    chunks, variable = storage.chunks, storage.variable
    if storage.filters or storage.padding:
        raise UnsupportedFeatureError("filtered data in linked blocks; a chunk is one run of bytes")
    lengths = _runs(chunks)
    total = math.prod(variable.shape) * storage.dtype.itemsize
    if int(lengths[1].sum()) != total or not total:
        raise variable.corrupt(f"blocks of {int(lengths[1].sum())} bytes for an array of {total}")
    row_bytes = total // variable.shape[0] if variable.shape else total
    if (lengths[1] % row_bytes).any():
        raise UnsupportedFeatureError(f"linked blocks that do not end where rows of {row_bytes} bytes end")
    grid = storage.grid
    if len(lengths[1]) > 1:
        grid = grid.replace(0, Axis.from_edges((lengths[1] // row_bytes).tolist()))
    joined = Chunks(urls=chunks.urls)
    for name, column in zip(("offsets", "lengths", "hrefs"), lengths, strict=True):
        getattr(joined, name).extend(column.tolist())
    encoding = ChunkEncoding.plain(storage.dtype)
    rows, sources = _sources(storage, joined, files, np.zeros(len(joined), dtype=np.int64), [encoding])
    records = np.zeros(len(joined), dtype=RECORD if int(lengths[1].max()) < 2**32 else WIDE_RECORD)
    records["source"], records["offset"], records["length"] = rows, lengths[0], lengths[1]
    manifest = ChunkManifest.from_records(records.reshape(grid.grid_shape), sources)
    return ManifestArray(ArrayMetadata(grid, storage.dtype, encoding, _optional_fill(storage)), manifest)


def _runs(chunks: Chunks) -> list[npt.NDArray[np.int64]]:
    """Offsets, lengths and URLs of blocks, those that follow each other joined."""
    offsets, lengths, hrefs = (chunks.column(name) for name in ("offsets", "lengths", "hrefs"))
    apart = (offsets[1:] != offsets[:-1] + lengths[:-1]) | (hrefs[1:] != hrefs[:-1])
    starts = np.concatenate([[0], np.flatnonzero(apart) + 1])
    return [offsets[starts], np.add.reduceat(lengths, starts), hrefs[starts]]
