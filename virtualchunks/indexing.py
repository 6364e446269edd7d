"""Selections on arrays of chunk references: whole chunks, or byte arithmetic where bytes are uncompressed.

Every function takes the metadata and the manifest of an array and returns those of the result; nothing is read.
Selecting along an axis means cutting it into *pieces*, runs of consecutive elements that lie in one chunk. A piece is
free where it is a whole chunk, or where it is the head of a chunk at the end of the result (chunks may overhang an
array). Any other piece needs the bytes to be cut, which is exact where they are uncompressed and the axis varies
slowest in storage.

Turning NumPy's indexing keys into one selection per axis lives in :mod:`virtualchunks.keys`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as dataclass_replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import ChunkIndexError, UnsupportedFeatureError
from virtualchunks.grid import Axis, ChunkGrid, IntArray
from virtualchunks.manifest import MISSING, PENDING, RECORD, WIDE_RECORD, ChunkManifest, Records
from virtualchunks.metadata import ArrayMetadata

#: An array as the functions of this module see it.
Parts = tuple[ArrayMetadata, ChunkManifest]


@dataclass(frozen=True)
class Pieces:
    """Runs of consecutive elements along an axis, each within one chunk.

    Attributes
    ----------
    chunk
        Number of the chunk, or :data:`~virtualchunks.manifest.PENDING` for elements that only ``np.where`` may fill.
    first
        Where the run starts within the chunk, in elements.
    rows
        Its length, in elements.
    """

    chunk: IntArray
    first: IntArray
    rows: IntArray

    @classmethod
    def of_range(cls, axis: Axis, start: int, stop: int) -> Pieces:
        """Return the pieces of the elements from `start` to `stop`, in order."""
        if stop <= start:
            return cls(*(np.empty(0, dtype=np.int64) for _ in range(3)))
        chunk = np.arange(axis.locate(start), axis.locate(stop - 1) + 1, dtype=np.int64)
        low = np.maximum(axis.starts[chunk], start)
        high = np.minimum(axis.starts[chunk] + axis.nominal[chunk], stop)
        return cls(chunk, low - axis.starts[chunk], high - low)

    @classmethod
    def of_positions(cls, axis: Axis, positions: IntArray, pending: npt.NDArray[np.bool_] | None = None) -> Pieces:
        """Return the pieces of elements given one by one; runs within a chunk are joined, and so are pending ones."""
        if not len(positions):
            return cls.of_range(axis, 0, 0)
        chunk = np.searchsorted(axis.starts, positions, side="right").astype(np.int64) - 1
        joined = (np.diff(positions) == 1) & (np.diff(chunk) == 0)
        if pending is not None:
            chunk = np.where(pending, PENDING, chunk)
            joined = np.where(pending[1:] | pending[:-1], pending[1:] & pending[:-1], joined)
        begins = np.concatenate([[0], np.flatnonzero(~joined) + 1])
        rows = np.diff(np.concatenate([begins, [len(positions)]]))
        first = np.where(chunk[begins] < 0, 0, positions[begins] - axis.starts[np.maximum(chunk[begins], 0)])
        return cls(chunk[begins], first, rows)._with_short_pending(axis.chunk)

    def _with_short_pending(self, chunk: int | None) -> Pieces:
        """Cut pending runs into pieces of the chunk length of a regular axis, so that it can stay regular."""
        if chunk is None or not (self.chunk < 0).any():
            return self
        counts = np.where(self.chunk < 0, -(-self.rows // chunk), 1)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.repeat(self.rows, counts)
        pending = np.repeat(self.chunk < 0, counts)
        rows = np.where(pending, np.minimum(chunk, rows - within * chunk), rows)
        return Pieces(np.repeat(self.chunk, counts), np.repeat(self.first, counts), rows)


def take_pieces(parts: Parts, axis: int, pieces: Pieces) -> Parts:
    """Return the array that holds just these pieces of one axis, in order.

    Raises
    ------
    ChunkIndexError
        If a piece cuts through a chunk whose bytes cannot be cut.
    """
    metadata, manifest = parts
    if not len(pieces.chunk):
        return _empty_along(parts, axis)
    old = metadata.grid.axes[axis]
    pending = pieces.chunk < 0
    real = np.maximum(pieces.chunk, 0)
    nominal, cells = old.nominal[real], old.cells[real]
    cut = (pieces.first != 0) | (pieces.rows != cells)
    cut[-1] &= pieces.first[-1] != 0
    cropped = ~cut & (nominal != pieces.rows) & ~pending
    cropped[-1] = False
    cut &= ~pending
    records = _records_at(manifest.records, axis, real)
    if pending.any():
        records = records.copy()
        records["source"][_along(pending, axis, records.ndim)] = PENDING
    edges = np.where(pending | cut | cropped, pieces.rows, nominal)
    if pending[-1] and old.chunk is not None:
        edges[-1] = old.chunk
    if (cut | cropped).any() and is_cuttable(parts, axis):
        edges[-1] = pieces.rows[-1] if len(edges) == 1 or cut[-1] else edges[-1]
        records = cut_records(parts, axis, pieces, records, edges)
        cropped[:] = False
    elif cut.any():
        raise _through_chunk(metadata, manifest, axis, pieces, int(np.flatnonzero(cut)[0]))
    grid = metadata.grid.replace(axis, Axis.from_edges(edges.tolist(), int(pieces.rows.sum())))
    taken = ChunkManifest._trusted(records, manifest.sources)
    if cropped.any():
        taken = _crop(metadata, taken, axis, pieces.chunk, cropped)
    return metadata.replace(grid=grid), taken


def take_range(parts: Parts, axis: int, start: int, stop: int) -> Parts:
    """Return the array that holds the elements from `start` to `stop` of one axis, as a view where no chunk is cut.

    Raises
    ------
    ChunkIndexError
        If the range begins or ends within a chunk whose bytes cannot be cut.
    """
    metadata, manifest = parts
    old = metadata.grid.axes[axis]
    if old.chunk is None or start % old.chunk or stop <= start:
        return take_pieces(parts, axis, Pieces.of_range(old, start, stop))
    selection = (*[slice(None)] * axis, slice(start // old.chunk, -(-stop // old.chunk)))
    grid = metadata.grid.replace(axis, Axis(stop - start, chunk=old.chunk))
    return metadata.replace(grid=grid), ChunkManifest._trusted(manifest.records[selection], manifest.sources)


def _records_at(records: Records, axis: int, chunk: IntArray) -> Records:
    """Return the records of chunks along an axis: a view where they follow each other."""
    if chunk[-1] - chunk[0] + 1 == len(chunk) and bool((np.diff(chunk) == 1).all()):
        return records[(*[slice(None)] * axis, slice(int(chunk[0]), int(chunk[-1]) + 1))]
    return np.take(records, chunk, axis=axis)


def _along(flags: npt.NDArray[np.bool_], axis: int, ndim: int) -> tuple[Any, ...]:
    return (*[slice(None)] * axis, flags, *[slice(None)] * (ndim - axis - 1))


def _empty_along(parts: Parts, axis: int) -> Parts:
    metadata, manifest = parts
    old = metadata.grid.axes[axis]
    grid = metadata.grid.replace(axis, Axis(0, chunk=old.nominal_at(0) if old.count or old.is_regular else 1))
    selection = (*[slice(None)] * axis, slice(0, 0))
    return metadata.replace(grid=grid), ChunkManifest._trusted(manifest.records[selection], manifest.sources)


def encodings_in_use(parts: Parts) -> list[ChunkEncoding]:
    """Return the encodings that some chunk of the array decodes with."""
    metadata, manifest = parts
    ids = manifest.sources.encoding_ids
    if ids is None:
        return [metadata.encoding]
    every = [metadata.encoding, *manifest.sources.encodings]
    return [every[number] for number in np.unique(ids[manifest.used_rows()]).tolist()]


def is_cuttable(parts: Parts, axis: int) -> bool:
    """Return whether bytes can be cut along `axis`: uncompressed, and no slower axis varies within chunks."""
    metadata, manifest = parts
    if not all(encoding.is_uncompressed and encoding.shape is None for encoding in encodings_in_use(parts)):
        return False
    order = metadata.encoding.storage_order(metadata.ndim)
    if any(encoding.storage_order(metadata.ndim) != order for encoding in encodings_in_use(parts)):
        return False
    slower = order[: order.index(axis)]
    if any(metadata.grid.axes[other].nominal.max(initial=1) > 1 for other in slower):
        return False
    return bool(np.all((manifest.records["length"] == _nominal_bytes(metadata)) | ~manifest.present))


def _nominal_bytes(metadata: ArrayMetadata) -> IntArray:
    """Bytes of each uncompressed chunk, in a shape that broadcasts to the chunk grid."""
    total = np.full((1,) * metadata.ndim, metadata.encoding.dtype.itemsize, dtype=np.int64)
    for number, axis in enumerate(metadata.grid.axes):
        lengths = np.array([axis.chunk], dtype=np.int64) if axis.chunk is not None else axis.nominal
        total = total * lengths.reshape(-1, *[1] * (metadata.ndim - number - 1))
    return total


def cut_records(parts: Parts, axis: int, pieces: Pieces, records: Records, edges: IntArray) -> Records:
    """Return the records of pieces of uncompressed chunks.

    Parameters
    ----------
    parts
        Metadata and manifest of the array.
    axis, pieces
        What is taken of it.
    records
        The records of the chunks that the pieces lie in.
    edges
        The lengths to which the bytes shall decode, piece by piece.
    """
    metadata, _ = parts
    column = (-1, *[1] * (metadata.ndim - axis - 1))
    one_row = metadata.replace(grid=metadata.grid.replace(axis, Axis(1, chunk=1)))
    row_bytes = _nominal_bytes(one_row)
    present = records["source"] >= 0
    length = np.broadcast_to(edges.reshape(column) * row_bytes, records.shape)
    wide = records.dtype == WIDE_RECORD and bool(length.max(initial=0) >= 2**32)
    records = records.astype(WIDE_RECORD if wide else RECORD)
    shift = np.broadcast_to(pieces.first.reshape(column) * row_bytes, records.shape).astype(np.uint64)
    np.add(records["offset"], shift, out=records["offset"], where=present)
    np.copyto(records["length"], length, where=present, casting="unsafe")
    return records


def _crop(
    metadata: ArrayMetadata, taken: ChunkManifest, axis: int, chunk: IntArray, cropped: npt.NDArray[np.bool_]
) -> ChunkManifest:
    """Give the chunks that decode to more than their cell an encoding that says to what they decode."""
    lengths = [other.nominal for other in metadata.grid.axes]
    lengths[axis] = np.where(cropped, lengths[axis][np.maximum(chunk, 0)], 0)
    distinct = [np.unique(along[along > 0]).tolist() for along in lengths]
    for shape in itertools.product(*distinct):
        where = taken.present
        for number, (along, length) in enumerate(zip(lengths, shape, strict=True)):
            where = where & (along == length).reshape(-1, *[1] * (metadata.ndim - number - 1))
        if where.any():
            taken = recode(taken, where, metadata.encoding, partial(_shaped, shape=shape))
    return taken


def _shaped(encoding: ChunkEncoding, *, shape: tuple[int, ...]) -> ChunkEncoding:
    return encoding if encoding.shape is not None else dataclass_replace(encoding, shape=shape)


def recode(
    manifest: ChunkManifest,
    where: npt.NDArray[np.bool_],
    own: ChunkEncoding,
    change: Callable[[ChunkEncoding], ChunkEncoding],
) -> ChunkManifest:
    """Return the manifest in which the chunks `where` decode with ``change(encoding)`` of the encoding they had.

    Parameters
    ----------
    manifest
        The manifest; its bytes stay the same.
    where
        Which chunks, in the shape of the chunk grid.
    own
        The array's own encoding, which the id 0 stands for.
    change
        From the old encoding to the new.
    """
    records = manifest.records.copy()
    chosen = where & (records["source"] >= 0)
    rows, numbers = np.unique(records["source"][chosen], return_inverse=True)
    table = manifest.sources.take(rows)
    every = [own, *table.encodings]
    for number in sorted({table.encoding_id(row) for row in range(len(table))}):
        ids = np.zeros(len(table), dtype=np.int32) if table.encoding_ids is None else table.encoding_ids
        table = table.with_encoding(change(every[number]), where=ids == number)
    records["source"][chosen] = len(manifest.sources) + numbers
    return ChunkManifest._trusted(records, type(table).concat([manifest.sources, table]))


def _through_chunk(
    metadata: ArrayMetadata, manifest: ChunkManifest, axis: int, pieces: Pieces, place: int
) -> ChunkIndexError:
    old = metadata.grid.axes[axis]
    chunk, first, rows = (int(column[place]) for column in (pieces.chunk, pieces.first, pieces.rows))
    start = int(old.starts[chunk])
    reason = "compressed" if not metadata.encoding.is_uncompressed else "not contiguous along this axis"
    name = metadata.dimension_names[axis] if metadata.dimension_names else None
    where = f"axis {axis}" if name is None else f"axis {axis} ({name!r})"
    return ChunkIndexError(
        f"the selection takes elements {start + first} to {start + first + rows} along {where} and cuts through the "
        f"chunk that holds {start} to {start + old.cell_at(chunk)}, whose bytes are {reason}; select whole chunks, "
        f"such as {start}:{start + old.cell_at(chunk)}, or read the values with .virtual.open()",
        url=next(manifest.iter_nonempty_paths(), None),
    )


def subchunk(parts: Parts, sizes: Mapping[int, int]) -> Parts:
    """Return the same array cut into smaller chunks, by arithmetic on uncompressed bytes.

    Parameters
    ----------
    parts
        Metadata and manifest.
    sizes
        New chunk length per axis.

    Raises
    ------
    ChunkIndexError
        If bytes cannot be cut along an axis: they are compressed, or a slower axis still varies within chunks.
    """
    metadata = parts[0]
    order = metadata.encoding.storage_order(metadata.ndim)
    for axis in sorted(sizes, key=order.index):
        if sizes[axis] < 1:
            raise ChunkIndexError(f"a chunk length must be at least 1, found {sizes[axis]} for axis {axis}")
        parts = _subchunk_axis(parts, axis, sizes[axis])
    return parts


def _subchunk_axis(parts: Parts, axis: int, size: int) -> Parts:
    metadata, manifest = parts
    old = metadata.grid.axes[axis]
    counts = -(-old.cells // size)
    if not len(counts) or (counts.max() == 1 and old.overhang == 0):
        return parts
    if not is_cuttable(parts, axis):
        slower = list(metadata.encoding.storage_order(metadata.ndim))
        slower = slower[: slower.index(axis)]
        raise ChunkIndexError(
            f"chunks cannot be cut along axis {axis}: that needs uncompressed bytes and chunk length 1 along the axes "
            f"that are stored more slowly ({slower or 'none'}); the encoding is {metadata.encoding!r}",
            url=next(manifest.iter_nonempty_paths(), None),
        )
    chunk = np.repeat(np.arange(old.count, dtype=np.int64), counts)
    within = np.arange(len(chunk), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
    first = within * size
    rows = np.minimum(size, old.cells[chunk] - first)
    records = np.take(manifest.records, chunk, axis=axis)
    records = cut_records(parts, axis, Pieces(chunk, first, rows), records, rows)
    grid = metadata.grid.replace(axis, Axis.from_edges(rows.tolist()))
    return metadata.replace(grid=grid), ChunkManifest._trusted(records, manifest.sources)


def add_axis(parts: Parts, axis: int, name: str | None = None) -> Parts:
    """Return the array with a new axis of length 1 at position `axis`."""
    metadata, manifest = parts
    ndim = metadata.ndim
    axes = metadata.grid.axes
    names = metadata.dimension_names
    sources = manifest.sources.map_encodings(lambda encoding: encoding.with_axis(axis, ndim))
    return (
        metadata.replace(
            grid=ChunkGrid((*axes[:axis], Axis(1, chunk=1), *axes[axis:])),
            encoding=metadata.encoding.with_axis(axis, ndim),
            dimension_names=None if names is None else (*names[:axis], name, *names[axis:]),
        ),
        ChunkManifest._trusted(np.expand_dims(manifest.records, axis), sources),
    )


def drop_axis(parts: Parts, axis: int) -> Parts:
    """Return the array without an axis of length 1.

    Raises
    ------
    UnsupportedFeatureError
        If stored chunks decode to more than one element along it, or a codec depends on it.
    """
    metadata, manifest = drop_overhang(parts, axis)
    if metadata.grid.axes[axis].nominal_at(0) != 1 or any(
        encoding.shape is not None and encoding.shape[axis] != 1 for encoding in encodings_in_use((metadata, manifest))
    ):
        raise UnsupportedFeatureError(
            f"axis {axis} of length 1 cannot be dropped: its stored chunks decode to more than one element along it; "
            "keep the axis, or read the values with .virtual.open()",
            url=next(manifest.iter_nonempty_paths(), None),
        )
    ndim, axes, names = metadata.ndim, metadata.grid.axes, metadata.dimension_names
    sources = manifest.sources.map_encodings(lambda encoding: encoding.without_axis(axis, ndim))
    return (
        metadata.replace(
            grid=ChunkGrid((*axes[:axis], *axes[axis + 1 :])),
            encoding=metadata.encoding.without_axis(axis, ndim),
            dimension_names=None if names is None else (*names[:axis], *names[axis + 1 :]),
        ),
        ChunkManifest._trusted(np.squeeze(manifest.records, axis), sources),
    )


def transpose(parts: Parts, axes: Sequence[int]) -> Parts:
    """Return the array with its axes in another order: the same bytes, decoded through a transpose codec."""
    metadata, manifest = parts
    if list(axes) == list(range(metadata.ndim)):
        return parts
    names = metadata.dimension_names
    sources = manifest.sources.map_encodings(lambda encoding: encoding.transposed(axes))
    return (
        metadata.replace(
            grid=ChunkGrid(tuple(metadata.grid.axes[axis] for axis in axes)),
            encoding=metadata.encoding.transposed(axes),
            dimension_names=None if names is None else tuple(names[axis] for axis in axes),
        ),
        ChunkManifest._trusted(np.transpose(manifest.records, axes), sources),
    )


def repeat_axis(parts: Parts, axis: int, size: int) -> Parts:
    """Return the array with its one element along `axis` repeated `size` times, without copying records."""
    metadata, manifest = drop_overhang(parts, axis)
    shape = (*manifest.records.shape[:axis], size, *manifest.records.shape[axis + 1 :])
    grid = metadata.grid.replace(axis, Axis(size, chunk=1))
    return metadata.replace(grid=grid), ChunkManifest._trusted(
        np.broadcast_to(manifest.records, shape), manifest.sources
    )


def drop_overhang(parts: Parts, axis: int) -> Parts:
    """Return the array whose last chunk along `axis` ends where the array does, so that another may follow it.

    Uncompressed bytes are cut; otherwise the chunks concerned get an encoding that says to what they decode, and the
    array becomes heterogeneous.
    """
    metadata, manifest = parts
    old = metadata.grid.axes[axis]
    if old.overhang == 0:
        return parts
    cells = old.cells
    count = np.arange(old.count, dtype=np.int64)
    pieces = Pieces(count, np.zeros_like(count), cells)
    grid = metadata.grid.replace(axis, Axis.from_edges(cells.tolist()))
    if is_cuttable(parts, axis):
        records = cut_records(parts, axis, pieces, manifest.records, cells)
        return metadata.replace(grid=grid), ChunkManifest._trusted(records, manifest.sources)
    cropped = count == old.count - 1
    return metadata.replace(grid=grid), _crop(metadata, manifest, axis, count, cropped)


def fill_where(parts: Parts, keep: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], ChunkManifest]:
    """Return which chunks a mask drops, and the manifest in which those are missing.

    Parameters
    ----------
    parts
        Metadata and manifest.
    keep
        Mask that broadcasts to the array; false where values are to be replaced.

    Raises
    ------
    ChunkIndexError
        If the mask changes within a chunk.
    """
    metadata, manifest = parts
    keep = keep.reshape((1,) * (metadata.ndim - keep.ndim) + keep.shape)
    some, every = keep, keep
    for number, axis in enumerate(metadata.grid.axes):
        if keep.shape[number] != 1 and axis.count:
            some = np.logical_or.reduceat(some, axis.starts, axis=number)
            every = np.logical_and.reduceat(every, axis.starts, axis=number)
    some, every = (np.broadcast_to(mask, manifest.shape_chunk_grid) for mask in (some, every))
    if (some != every).any():
        index = tuple(np.argwhere(some != every)[0].tolist())
        raise ChunkIndexError(
            "the mask changes within a chunk, and references to whole chunks cannot be masked in part",
            chunk=index,
            url=next(manifest.iter_nonempty_paths(), None),
        )
    records = manifest.records.copy()
    records[~every] = np.array((MISSING, 0, 0), dtype=records.dtype)
    return ~every, ChunkManifest._trusted(records, manifest.sources)
