"""Indexing keys: from what stands between the brackets to one selection per axis.

Integers, slices with any step, the ellipsis, ``None``, one-dimensional masks and integer arrays are understood. Several
integer arrays select orthogonally, in the form of :func:`numpy.ix_`, which is how xarray asks for it; arrays that pair
their elements up, point by point, would tear chunks apart and are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import ChunkIndexError
from virtualchunks.indexing import Parts, Pieces, add_axis, drop_axis, is_cuttable, take_pieces, take_range

Indexer = int | slice | npt.NDArray[np.int64]


def select(parts: Parts, key: Any) -> tuple[Parts, bool]:
    """Return the selection ``array[key]``, and whether some of its chunks are pending.

    Parameters
    ----------
    parts
        Metadata and manifest of the array.
    key
        As for :class:`numpy.ndarray`.

    Raises
    ------
    ChunkIndexError
        If the key is out of range, of an unknown kind, or cuts through chunks that cannot be cut.
    """
    shape = parts[0].shape
    entries = _spell_out(key, len(shape))
    new_axes = [place for place, entry in enumerate(_without_dropped(entries)) if entry is None]
    indexers = _separate([entry for entry in entries if entry is not None], shape)
    pending = False
    for axis in reversed(range(len(shape))):
        indexer = indexers[axis]
        if isinstance(indexer, slice) and indexer == slice(0, shape[axis], 1):
            continue
        if isinstance(indexer, slice) and indexer.step == 1:
            parts = take_range(parts, axis, indexer.start, indexer.stop)
            continue
        pieces = _pieces(parts, axis, indexer)
        pending |= bool((pieces.chunk < 0).any())
        parts = take_pieces(parts, axis, pieces)
        if isinstance(indexer, int):
            parts = drop_axis(parts, axis)
    for place in new_axes:
        parts = add_axis(parts, place)
    return parts, pending


def _spell_out(key: Any, ndim: int) -> list[Any]:
    """Return one entry per axis, and ``None`` for each new axis."""
    entries = list(key) if isinstance(key, tuple) else [key]
    dots = [place for place, entry in enumerate(entries) if entry is Ellipsis]
    if len(dots) > 1:
        raise ChunkIndexError("an index can hold one ellipsis ('...') only")
    used = sum(entry is not None and entry is not Ellipsis for entry in entries)
    if used > ndim:
        raise ChunkIndexError(f"too many indices: the array has {ndim} dimensions, but {used} were indexed")
    rest = [slice(None)] * (ndim - used)
    if not dots:
        return [*entries, *rest]
    return [*entries[: dots[0]], *rest, *entries[dots[0] + 1 :]]


def _without_dropped(entries: list[Any]) -> list[Any]:
    """Return the entries that leave an axis in the result: all but integers, in any of their forms."""
    arrays = [np.asarray(entry) for entry in entries if _is_array(entry)]
    ndim = max((array.ndim for array in arrays), default=0)
    surplus = len(arrays) - ndim
    kept = []
    for entry in entries:
        if _is_integer(entry):
            continue
        if surplus > 0 and _is_array(entry) and np.asarray(entry).size == 1:
            surplus -= 1
            continue
        kept.append(entry)
    return kept


def _is_integer(entry: Any) -> bool:
    if isinstance(entry, bool | np.bool_):
        return False
    return isinstance(entry, int | np.integer) or (
        isinstance(entry, np.ndarray) and entry.ndim == 0 and entry.dtype.kind in "iu"
    )


def _is_array(entry: Any) -> bool:
    return isinstance(entry, list | np.ndarray) and not _is_integer(entry)


def _separate(entries: list[Any], shape: tuple[int, ...]) -> list[Indexer]:
    """Return one orthogonal indexer per axis, in range."""
    arrays = [np.asarray(entry) for entry in entries if _is_array(entry)]
    ndim = max((array.ndim for array in arrays), default=0)
    surplus = len(arrays) - ndim
    if arrays:
        _require_orthogonal(arrays, entries)
    indexers: list[Indexer] = []
    for axis, (entry, size) in enumerate(zip(entries, shape, strict=True)):
        if _is_integer(entry):
            indexers.append(_in_range(int(entry), size, axis))
        elif isinstance(entry, slice):
            indexers.append(_bounded(entry, size))
        elif _is_array(entry):
            positions = _positions(np.asarray(entry), size, axis)
            if surplus > 0 and positions.size == 1:
                surplus -= 1
                indexers.append(_in_range(int(positions[0]), size, axis))
            else:
                indexers.append(positions)
        else:
            raise ChunkIndexError(
                f"cannot index axis {axis} with {entry!r}; use integers, slices, '...', None or arrays of integers"
            )
    return indexers


def _require_orthogonal(arrays: list[npt.NDArray[Any]], entries: list[Any]) -> None:
    """Refuse what NumPy would not answer with one axis per array, in order."""
    advanced = [place for place, entry in enumerate(entries) if _is_array(entry) or _is_integer(entry)]
    apart = advanced[-1] - advanced[0] + 1 != len(advanced)
    ndim = max(array.ndim for array in arrays)
    claimed = [place + ndim - array.ndim for array in arrays for place, n in enumerate(array.shape) if n != 1]
    several = any(sum(length != 1 for length in array.shape) > 1 for array in arrays)
    if apart or several or claimed != sorted(set(claimed)):
        raise ChunkIndexError(
            "index arrays that pair their elements up, or stand apart, select single elements, which chunk references "
            "cannot; index one axis at a time, or read the values with .virtual.open()"
        )


def _bounded(entry: slice, size: int) -> slice:
    start, stop, step = entry.indices(size)
    if step == 1:
        return slice(start, max(start, stop), 1)
    return slice(start, stop, step)


def _positions(entry: npt.NDArray[Any], size: int, axis: int) -> npt.NDArray[np.int64]:
    if entry.dtype.kind == "b":
        if entry.shape != (size,):
            raise ChunkIndexError(f"a mask of shape {entry.shape} does not fit axis {axis} of length {size}")
        return np.flatnonzero(entry).astype(np.int64)
    if entry.dtype.kind not in "iu" and entry.size:
        raise ChunkIndexError(f"cannot index axis {axis} with an array of dtype {entry.dtype}; use integers")
    positions = entry.reshape(-1).astype(np.int64)
    if positions.size and not (-size <= positions.min() and positions.max() < size):
        worst = positions.min() if positions.min() < -size else positions.max()
        raise ChunkIndexError(f"index {worst} is out of range for axis {axis} of length {size}")
    return positions


def _in_range(index: int, size: int, axis: int) -> int:
    if not -size <= index < size:
        raise ChunkIndexError(f"index {index} is out of range for axis {axis} of length {size}")
    return index + size if index < 0 else index


def _pieces(parts: Parts, number: int, indexer: Indexer) -> Pieces:
    axis = parts[0].grid.axes[number]
    if isinstance(indexer, int):
        return Pieces.of_range(axis, indexer, indexer + 1)
    if isinstance(indexer, slice):
        return Pieces.of_positions(axis, np.arange(indexer.start, indexer.stop, indexer.step, dtype=np.int64))
    last = indexer == -1
    positions = np.where(indexer < 0, indexer + axis.size, indexer)
    if not last.any() or axis.nominal_at(axis.count - 1) == 1:
        return Pieces.of_positions(axis, positions)
    repeated = bool((last[1:] & last[:-1]).any())
    if not repeated and is_cuttable(parts, number):
        return Pieces.of_positions(axis, positions)
    return Pieces.of_positions(axis, positions, pending=last)
