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
from h5py import h5d, h5p, h5s

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding, bytes_codec
from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.manifest import MISSING, RECORD, WIDE_RECORD, ChunkManifest, Records
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.hdf5.chunkindex import Column, stored_chunks
from virtualchunks_parsers.hdf5.datatypes import Element, may_be_filled
from virtualchunks_parsers.hdf5.file import HDF5File, HDF5Files, text
from virtualchunks_parsers.hdf5.filters import HDF5Filter, filter_codecs, read_pipeline

#: The largest chunk grid that is written out for a dataset with any chunk in it.
MOST_CHUNKS = 100_000_000


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset, open, with what its layout and its type say.

    Attributes
    ----------
    file, files
        The file that holds it, and the others that are open.
    id
        The HDF5 library's dataset.
    path
        Its path in the file.
    plist
        Its creation properties.
    element
        What its elements are.
    extent
        Its shape in HDF5, without the dimensions of an array type.
    """

    file: HDF5File
    files: HDF5Files = field(repr=False)
    id: h5d.DatasetID
    path: str
    plist: h5p.PropDCID
    element: Element
    extent: tuple[int, ...]

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

    def array(self, grid: ChunkGrid, encoding: ChunkEncoding, manifest: ChunkManifest | None) -> ManifestArray:
        """Return the array of these chunks, or of none where nothing was written, with the dataset's fill value."""
        missing = manifest is None or not manifest.present.all()
        metadata = ArrayMetadata(grid, self.element.dtype, encoding, fill_value(self, required=missing))
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
    plist, element = dataset.plist, dataset.element
    if plist.fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED or plist.get_fill_time() == h5d.FILL_TIME_NEVER:
        return None
    if not may_be_filled(element, required=required):
        return None
    memory = element.dtype if element.memory is None else element.memory
    value = np.zeros((), dtype=memory)
    try:
        plist.get_fill_value(value)
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        if required:
            raise UnsupportedFeatureError(f"its fill value cannot be converted: {error}") from error
        return None
    return value.reshape(1).view(element.dtype)[0] if memory != element.dtype else value[()]


# ------------------------------------------------------------------------------------------------------ layouts


def contiguous(dataset: Dataset) -> ManifestArray:
    """One run of bytes in the file, one chunk; not there at all before anything is written."""
    if dataset.plist.get_external_count():
        return external(dataset)
    grid = dataset.whole()
    encoding = dataset.encoding(chunk=dataset.shape)
    offset = dataset.id.get_offset()
    # behind a user block, the library reports a wrong address, and not none, for what was never written
    if offset is None or not dataset.nbytes or dataset.id.get_space_status() == h5d.SPACE_STATUS_NOT_ALLOCATED:
        return dataset.array(grid, encoding, None)
    length = _stored_bytes(dataset)
    dataset.file.check_range(offset, length, dataset.path)
    record = np.zeros(grid.grid_shape, dtype=RECORD if length < 2**32 else WIDE_RECORD)
    record["offset"], record["length"] = offset, length
    return dataset.array(grid, encoding, ChunkManifest.from_records(record, dataset.file.sources))


def _stored_bytes(dataset: Dataset) -> int:
    """Bytes of all elements as stored, which for unusual types are not as many as of the dtype."""
    size: int = dataset.id.get_type().get_size()
    return math.prod(dataset.extent) * size


def compact(dataset: Dataset) -> ManifestArray:
    """The bytes stand in the object header, so they are kept in memory."""
    grid = dataset.whole()
    encoding = dataset.encoding(chunk=dataset.shape)
    if not dataset.nbytes:
        return dataset.array(grid, encoding, None)
    kind = dataset.id.get_type()
    raw = np.empty(dataset.extent, dtype=f"V{kind.get_size()}")
    dataset.id.read(h5s.ALL, h5s.ALL, raw, mtype=kind)
    return dataset.array(grid, encoding, ChunkManifest.of_buffers([raw.tobytes()], grid.grid_shape))


def chunked(dataset: Dataset) -> ManifestArray:
    """A chunk index in the file; every chunk may have skipped filters of its own."""
    chunk = (*dataset.plist.get_chunk(), *dataset.element.shape)
    grid = ChunkGrid.regular(dataset.shape, chunk)
    pipeline = read_pipeline(dataset.plist)
    stored = stored_chunks(dataset.id, dataset.path, dataset.extent, dataset.file)
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
    if len(place) < grid.size:
        records["source"] = MISSING
    records["source"][place] = rows
    records["length"][place] = stored.lengths
    records["offset"][place] = stored.offsets
    sources = _with_encodings(dataset.file.sources, encodings[1:])
    return dataset.array(grid, encodings[0], ChunkManifest.from_records(records.reshape(grid.grid_shape), sources))


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
    for number in range(dataset.plist.get_external_count()):
        name, offset, size = dataset.plist.get_external(number)
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
    h5d.COMPACT: compact,
    h5d.CONTIGUOUS: contiguous,
    h5d.CHUNKED: chunked,
}
