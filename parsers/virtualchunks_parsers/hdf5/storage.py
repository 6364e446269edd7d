"""Where the bytes of a dataset lie: contiguous, chunked, compact and external storage → chunk records.

One function per layout, found in :data:`LAYOUTS`. Virtual datasets, whose bytes lie in other datasets, are in
:mod:`~virtualchunks_parsers.hdf5.virtual`; values that only the HDF5 library can convert are in
:mod:`~virtualchunks_parsers.hdf5.inmemory`.

References
----------
HDF5 File Format Specification, version 3.0, section IV.A.2.i, "The Data Layout Message".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding, bytes_codec
from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.manifest import MISSING, RECORD, WIDE_RECORD, ChunkManifest, Records
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.hdf5.chunkindex import Column
from virtualchunks_parsers.hdf5.datatypes import Element, may_be_filled
from virtualchunks_parsers.hdf5.file import HDF5File, HDF5Files, text
from virtualchunks_parsers.hdf5.filters import HDF5Filter, filter_codecs
from virtualchunks_parsers.hdf5.objects import CHUNKED, COMPACT, CONTIGUOUS, Description, StoredDataset

#: The largest chunk grid that is written out for a dataset with any chunk in it.
MOST_CHUNKS = 100_000_000


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset, open, with what its layout and its type say.

    Attributes
    ----------
    files
        The files that are open.
    path
        Its path in the file.
    found
        Where the facts come from.
    facts
        What it holds, and how.
    """

    files: HDF5Files = field(repr=False)
    path: str
    found: StoredDataset
    facts: Description

    @property
    def file(self) -> HDF5File:
        """The file that holds it."""
        return self.found.file

    @property
    def element(self) -> Element:
        """What its elements are."""
        return self.facts.element

    @property
    def extent(self) -> tuple[int, ...]:
        """Its shape in HDF5, without the dimensions of an array type."""
        return self.facts.extent

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape as an array."""
        return (*self.extent, *self.element.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all its elements, uncompressed."""
        return math.prod(self.extent) * self.element.nbytes

    def whole(self) -> ChunkGrid:
        """Return the grid of one chunk that is the whole array."""
        return ChunkGrid.regular(self.shape, tuple(max(size, 1) for size in self.shape))

    def encoding(self, pipeline: Sequence[HDF5Filter] = (), mask: int = 0, chunk: Sequence[int] = ()) -> ChunkEncoding:
        """Return how chunks of shape `chunk` decode that skipped the filters in `mask`.

        Raises
        ------
        UnsupportedFeatureError
            If a filter cannot be decoded.
        """
        return _encoding(self.element.dtype, self.element.hdf5_type, tuple(pipeline), mask, tuple(chunk))

    def array(
        self, grid: ChunkGrid, encoding: ChunkEncoding, manifest: ChunkManifest | None, *, has_gaps: bool = False
    ) -> ManifestArray:
        """Return the array of these chunks, or of none where nothing was written, with the dataset's fill value."""
        required = manifest is None or has_gaps
        metadata = ArrayMetadata(grid, self.element.dtype, encoding, fill_value(self, required=required))
        return ManifestArray(metadata, ChunkManifest.missing(grid.grid_shape) if manifest is None else manifest)


@lru_cache(maxsize=4096)
def _encoding(
    stored: np.dtype[Any], hdf5_type: str | None, pipeline: tuple[HDF5Filter, ...], mask: int, chunk: tuple[int, ...]
) -> ChunkEncoding:
    if not pipeline and hdf5_type is None:
        return ChunkEncoding.plain(stored)
    codecs = filter_codecs(pipeline, dtype=stored, chunk_shape=chunk, mask=mask, stored_type=hdf5_type)
    return ChunkEncoding(stored, (bytes_codec(stored), *codecs))


def fill_value(dataset: Dataset, *, required: bool = True) -> Any:
    """Return what chunks that were never written read as; ``None`` for zero.

    Raises
    ------
    UnsupportedFeatureError
        If the dataset has a fill value that no Zarr array can have, and `required` says that it matters.
    """
    element = dataset.element
    if not dataset.found.has_fill() or not may_be_filled(element, required=required):
        return None
    try:
        return dataset.found.fill(element)
    except UnsupportedFeatureError:
        if required:
            raise
        return None


# ------------------------------------------------------------------------------------------------------ layouts


def contiguous(dataset: Dataset) -> ManifestArray:
    """One run of bytes in the file, one chunk; not there at all before anything is written."""
    if dataset.facts.is_external:
        return external(dataset)
    grid = dataset.whole()
    encoding = dataset.encoding(chunk=dataset.shape)
    offset = dataset.found.offset()
    if offset is None or not dataset.nbytes:
        return dataset.array(grid, encoding, None)
    # for unusual types, as many bytes as are stored are not as many as of the dtype
    length = math.prod(dataset.extent) * dataset.facts.size
    dataset.file.check_range(offset, length, dataset.path)
    record = np.zeros(grid.grid_shape, dtype=RECORD if length < 2**32 else WIDE_RECORD)
    record["offset"], record["length"] = offset, length
    return dataset.array(grid, encoding, ChunkManifest.from_records(record, dataset.file.sources))


def compact(dataset: Dataset) -> ManifestArray:
    """The bytes stand in the object header, so they are kept in memory."""
    grid = dataset.whole()
    encoding = dataset.encoding(chunk=dataset.shape)
    if not dataset.nbytes:
        return dataset.array(grid, encoding, None)
    length = math.prod(dataset.extent) * dataset.facts.size
    raw = dataset.found.compact()
    if len(raw) < length:
        raise FormatError(
            f"{len(raw)} bytes stand in the object header, of {length}: the file is corrupt",
            url=dataset.file.url,
            variable=dataset.path,
        )
    return dataset.array(grid, encoding, ChunkManifest.of_buffers([raw[:length]], grid.grid_shape))


def chunked(dataset: Dataset) -> ManifestArray:
    """A chunk index in the file; every chunk may have skipped filters of its own."""
    chunk = (*dataset.facts.chunk, *dataset.element.shape)
    grid = ChunkGrid.regular(dataset.shape, chunk)
    pipeline = dataset.facts.pipeline
    stored = dataset.found.chunks(dataset.path, dataset.extent, dataset.facts.chunk)
    if stored is None:
        return dataset.array(grid, _unused_encoding(dataset, pipeline, chunk), None)
    if grid.size > MOST_CHUNKS:
        raise LimitExceededError(
            f"a grid of {grid.size} chunks, of which {len(stored.offsets)} were written; more than {MOST_CHUNKS} are "
            "not listed one by one"
        )
    place = stored.place(grid)
    rows, encodings = _encodings(dataset, pipeline, chunk, stored.masks)
    records = np.zeros(grid.size, dtype=RECORD if int(stored.lengths.max()) < 2**32 else WIDE_RECORD)
    has_gaps = len(place) < grid.size
    if has_gaps:
        records["source"] = MISSING
    records["source"][place] = rows
    records["length"][place] = stored.lengths
    records["offset"][place] = stored.offsets
    sources = _with_encodings(dataset.file.sources, encodings[1:])
    manifest = ChunkManifest.from_records(records.reshape(grid.grid_shape), sources)
    return dataset.array(grid, encodings[0], manifest, has_gaps=has_gaps)


def _encodings(
    dataset: Dataset, pipeline: Sequence[HDF5Filter], chunk: tuple[int, ...], masks: Column | None
) -> tuple[Column | int, list[ChunkEncoding]]:
    """Return for every chunk the number of its encoding, and the encodings, the array's own first."""
    if masks is None:
        return 0, [dataset.encoding(pipeline, 0, chunk)]
    distinct, numbers = np.unique(masks & ((1 << len(pipeline)) - 1), return_inverse=True)
    encodings: list[ChunkEncoding] = []
    rows = []
    for mask in distinct.tolist():
        encoding = dataset.encoding(pipeline, mask, chunk)
        if encoding not in encodings:
            encodings.append(encoding)
        rows.append(encodings.index(encoding))
    return np.array(rows, dtype=np.int64)[numbers], encodings


def _with_encodings(sources: SourceTable, encodings: Sequence[ChunkEncoding]) -> SourceTable:
    """Return the table in which row *k* is the same object, decoded with the *k*-th encoding beside the array's own."""
    if not encodings:
        return sources
    rows = np.arange(len(encodings) + 1)
    return sources.take(np.zeros_like(rows)).replace(encoding_ids=rows.astype(np.int32), encodings=tuple(encodings))


def _unused_encoding(dataset: Dataset, pipeline: Sequence[HDF5Filter], chunk: tuple[int, ...]) -> ChunkEncoding:
    """The encoding of a dataset without chunks: that of its filters, or plain where those cannot be decoded."""
    try:
        return dataset.encoding(pipeline, 0, chunk)
    except UnsupportedFeatureError:
        return ChunkEncoding.plain(dataset.element.dtype)


# -------------------------------------------------------------------------------------------------- external files


def external(dataset: Dataset) -> ManifestArray:
    """Runs of bytes in other files, end to end; each file is stamped by opening it through the registry."""
    encoding = dataset.encoding(chunk=dataset.shape)
    if not dataset.nbytes:
        grid = dataset.whole()
        return dataset.array(grid, encoding, None)
    segments = _segments(dataset)
    row_bytes = dataset.nbytes // dataset.shape[0] if dataset.shape else dataset.nbytes
    if dataset.element.hdf5_type is not None or any(length % row_bytes for _, _, length in segments):
        raise UnsupportedFeatureError(
            f"external storage in {len(segments)} segments that do not end where rows of {row_bytes} bytes end"
        )
    grid = dataset.whole()
    if len(segments) > 1:
        edges = [length // row_bytes for _, _, length in segments]
        grid = grid.replace(0, Axis.from_edges(edges))
    tables: dict[str, SourceTable] = {}
    for url, offset, length in segments:
        with ObjectReader(dataset.files.registry, url) as reader:
            if offset + length > reader.size:
                raise FormatError(
                    f"{dataset.path!r} has its bytes {offset} to {offset + length} in {reader.url}, which ends at "
                    f"{reader.size}",
                    url=dataset.file.url,
                    variable=dataset.path,
                )
            tables[url] = SourceTable.single(reader.url, reader.stamp)
    rows = {url: row for row, url in enumerate(tables)}
    wide = any(length >= 2**32 for _, _, length in segments)
    records: Records = np.zeros(len(segments), dtype=WIDE_RECORD if wide else RECORD)
    records["source"] = [rows[url] for url, _, _ in segments]
    records["offset"], records["length"] = ([segment[column] for segment in segments] for column in (1, 2))
    sources = SourceTable.concat(list(tables.values()))
    return dataset.array(grid, encoding, ChunkManifest.from_records(records.reshape(grid.grid_shape), sources))


def _segments(dataset: Dataset) -> list[tuple[str, int, int]]:
    """URL, offset and length of the runs that hold the dataset, in order, cut to what it needs."""
    left, segments = dataset.nbytes, []
    for name, offset, size in dataset.found.segments():
        length = min(left, size)
        if length:
            segments.append((dataset.files.url_beside(dataset.file.url, text(name)), int(offset), int(length)))
        left -= length
    if left:
        raise FormatError(
            f"the external files of {dataset.path!r} hold {left} bytes too few",
            url=dataset.file.url,
            variable=dataset.path,
        )
    return segments


#: How the bytes are found, by HDF5's layout class.
LAYOUTS: Mapping[int, Callable[[Dataset], ManifestArray]] = {
    COMPACT: compact,
    CONTIGUOUS: contiguous,
    CHUNKED: chunked,
}
