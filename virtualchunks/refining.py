"""Refining: arrays of different chunk shapes on one grid, so that they can be joined.

The common grid has an edge wherever one of the arrays has one. A chunk that is cut by such an edge becomes several
chunks of the finer grid, which all point at the same bytes: each has an encoding that says where in the decoded block
it begins. Uncompressed bytes are cut themselves. There are as many such encodings as there are places in a chunk where
an edge can fall, however many chunks there are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import CombineError
from virtualchunks.grid import Axis, IntArray
from virtualchunks.indexing import Parts, Pieces, cut_records, is_cuttable, recode
from virtualchunks.manifest import ChunkManifest

#: Chunks that a refined array may have in any case, and for each of the chunks that it had.
MOST_CHUNKS, MOST_PIECES = 10_000_000, 64


def on_one_grid(parts: Sequence[Parts], joined: int) -> list[Parts]:
    """Return arrays that are cut alike along every axis but one; axes of different lengths are left alone.

    Parameters
    ----------
    parts
        Metadata and manifests, of one number of dimensions.
    joined
        The axis along which they will be joined.

    Raises
    ------
    CombineError
        If the common grid would have a multitude of chunks, of which the arrays have few.
    """
    first = parts[0][0].grid.axes
    common: dict[int, Axis] = {}
    for number, one in enumerate(first):
        axes = [metadata.grid.axes[number] for metadata, _ in parts]
        if number == joined or all(axis is one or axis == one for axis in axes):
            continue
        if all(axis.size == one.size for axis in axes):
            common[number] = _common_axis(axes)
    return [_on_grid(pair, common) for pair in parts] if common else list(parts)


def _on_grid(parts: Parts, common: dict[int, Axis]) -> Parts:
    metadata, manifest = parts
    counts = [common.get(number, axis).count for number, axis in enumerate(metadata.grid.axes)]
    if math.prod(counts) > max(MOST_CHUNKS, MOST_PIECES * manifest.records.size):
        raise CombineError(
            f"the arrays are cut so differently that a grid with the edges of all of them would have {counts} chunks: "
            "to join values instead of references, name the variable in loadable_variables for all files",
            url=next(manifest.iter_nonempty_paths(), None),
        )
    for number, axis in common.items():
        parts = _refined(parts, number, axis)
    return parts if parts[1] is manifest else (parts[0], parts[1].compact())


def cut_at(parts: Parts, axis: int, places: IntArray) -> Parts:
    """Return the array with chunks that also end at some places along an axis.

    Parameters
    ----------
    parts
        Metadata and manifest.
    axis
        The axis.
    places
        Indices of elements before which a chunk shall end.
    """
    old = parts[0].grid.axes[axis]
    starts = np.union1d(old.starts, places[(places > 0) & (places < old.size)]).astype(np.int64)
    if len(starts) == old.count:
        return parts
    edges = np.diff([*starts.tolist(), old.size + old.overhang])
    return _refined(parts, axis, Axis.from_edges(edges.tolist(), old.size))


def _common_axis(axes: Sequence[Axis]) -> Axis:
    """Return the axis that has the edges of all of them, regular where that is possible."""
    size = axes[0].size
    if not size:
        return axes[0]
    starts = np.unique(np.concatenate([axis.starts for axis in axes]))
    cells = np.diff([*starts.tolist(), size])
    longest = int(cells[0])
    if bool((cells[:-1] == longest).all()) and cells[-1] <= longest:
        return Axis(size, chunk=longest)
    return Axis.from_edges(cells.tolist())


def _refined(parts: Parts, axis: int, target: Axis) -> Parts:
    metadata, manifest = parts
    old = metadata.grid.axes[axis]
    raised = metadata.replace(grid=metadata.grid.replace(axis, target))
    if np.array_equal(old.nominal, target.nominal):
        return raised, manifest
    chunk = np.searchsorted(old.starts, target.starts, side="right") - 1
    first = target.starts - old.starts[chunk]
    records = np.take(manifest.records, chunk, axis=axis)
    length = old.nominal[chunk]
    if is_cuttable(parts, axis):
        length = np.where(length - first >= target.nominal, target.nominal, target.cells)
        records = cut_records(parts, axis, Pieces(chunk, first, target.cells), records, length)
        first = np.zeros_like(first)
    taken = ChunkManifest._trusted(records, manifest.sources)
    changed = (first != 0) | (length != target.nominal)
    return raised, _windows(parts, taken, axis, np.where(changed, length, 0), first)


def _windows(parts: Parts, taken: ChunkManifest, axis: int, length: IntArray, first: IntArray) -> ChunkManifest:
    """Give chunks encodings that say where in the block they begin; those with the length 0 keep theirs.

    Parameters
    ----------
    parts
        The array before it was refined.
    taken
        The manifest of the refined array.
    axis
        The axis that was refined.
    length, first
        For each chunk along it, the length of the block that its bytes decode to, and where in it the chunk begins.
    """
    metadata, _ = parts
    lengths = [other.nominal for other in metadata.grid.axes]
    lengths[axis] = length
    distinct = [np.unique(along[along > 0]).tolist() for along in lengths]
    for begin in np.unique(first[length > 0]).tolist():
        for shape in itertools.product(*distinct):
            where: npt.NDArray[np.bool_] = taken.present
            for number, (along, size) in enumerate(zip(lengths, shape, strict=True)):
                chosen = (along == size) & (first == begin) if number == axis else along == size
                where = where & chosen.reshape(-1, *[1] * (metadata.ndim - number - 1))
            if where.any():
                taken = recode(taken, where, metadata.encoding, partial(_window, axis=axis, first=begin, shape=shape))
    return taken


def _window(encoding: ChunkEncoding, *, axis: int, first: int, shape: tuple[int, ...]) -> ChunkEncoding:
    return encoding.windowed(axis, first, shape)
