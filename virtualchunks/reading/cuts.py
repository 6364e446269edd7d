"""Cuts: what a selection takes along each axis of an array, chunk by chunk. NumPy only, and no chunk by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.grid import Axis, IntArray

#: Elements of an axis: consecutive ones at a constant step, or any.
Places = slice | IntArray


@dataclass(frozen=True, slots=True)
class Run:
    """Chunks, one behind the other, of which the same elements are taken, to places at a constant distance.

    Parameters
    ----------
    begin, end
        Which chunks, among those touched.
    within
        The elements taken of each.
    count
        How many these are.
    out, out_step, out_stride
        Place of the first element of the first chunk in the result, and the distances from one element of a chunk to
        the next and from one chunk to the next.
    """

    begin: int
    end: int
    within: slice
    count: int
    out: int
    out_step: int
    out_stride: int


@dataclass(frozen=True, eq=False)
class AxisCut:
    """What a selection takes along one axis, chunk by chunk.

    Attributes
    ----------
    chunks
        Numbers of the chunks touched, each once.
    size
        Elements taken in all.
    first, step, count
        For each chunk, the first element taken of it, the distance to the next, and how many are taken.
    out, out_step
        For each chunk, the same of their places in the result.
    odd
        By the place of a chunk among those touched, its elements and their places where they have no constant step.
    dropped
        Whether the selection was an integer, so that the axis is not in the result.
    """

    chunks: IntArray
    size: int
    first: IntArray
    step: IntArray
    count: IntArray
    out: IntArray
    out_step: IntArray
    odd: dict[int, tuple[IntArray, IntArray]] = field(default_factory=dict)
    dropped: bool = False

    @classmethod
    def of_range(cls, axis: Axis, start: int, stop: int) -> AxisCut:
        """Return the cut of consecutive elements."""
        if stop <= start:
            empty = np.empty(0, dtype=np.int64)
            return cls(empty, 0, empty, empty, empty, empty, empty)
        chunks = np.arange(axis.locate(start), axis.locate(stop - 1) + 1, dtype=np.int64)
        begins = axis.starts[chunks]
        low, high = np.maximum(begins, start), np.minimum(begins + axis.nominal[chunks], stop)
        ones = np.ones(len(chunks), dtype=np.int64)
        return cls(chunks, stop - start, low - begins, ones, high - low, low - start, ones)

    @classmethod
    def of_positions(cls, axis: Axis, positions: IntArray, *, dropped: bool = False) -> AxisCut:
        """Return the cut of elements given one by one, in any order, repeated or not."""
        if not len(positions):
            return cls.of_range(axis, 0, 0)
        chunk = np.searchsorted(axis.starts, positions, side="right") - 1
        order = np.argsort(chunk, kind="stable")
        chunks, begins, count = np.unique(chunk[order], return_index=True, return_counts=True)
        within = positions[order] - axis.starts[chunk[order]]
        step, even = _steps(within, begins, count)
        out_step, even_out = _steps(order, begins, count)
        uneven = np.flatnonzero(~(even & even_out)).tolist()
        bounds = [(place, slice(begins[place], begins[place] + count[place])) for place in uneven]
        odd = {place: (within[part], order[part]) for place, part in bounds}
        first = within[begins]
        return cls(chunks.astype(np.int64), len(positions), first, step, count, order[begins], out_step, odd, dropped)

    @cached_property
    def within(self) -> Sequence[Places]:
        """For each chunk touched, the elements taken of it."""
        return _listed(self.first, self.step, self.count, {place: pair[0] for place, pair in self.odd.items()})

    @cached_property
    def places(self) -> Sequence[Places]:
        """For each chunk touched, where its elements are in the result."""
        return _listed(self.out, self.out_step, self.count, {place: pair[1] for place, pair in self.odd.items()})

    @cached_property
    def run_of(self) -> IntArray:
        """For each chunk touched, the number of its run."""
        new = np.ones(len(self.chunks), dtype=bool)
        columns = np.stack([self.first, self.step, self.count, self.out_step])
        same = (columns[:, 1:] == columns[:, :-1]).all(axis=0)
        for place in self.odd:
            same[max(place - 1, 0) : place + 1] = False
        distance = np.diff(self.out)
        new[1:] = ~same
        new[2:] |= same[:-1] & (distance[1:] != distance[:-1])
        return np.cumsum(new) - 1

    @cached_property
    def runs(self) -> list[Run | None]:
        """The runs in order; None for a chunk whose elements have no constant step."""
        begins = np.flatnonzero(np.diff(self.run_of, prepend=-1)).tolist()
        return [self._run(begin, end) for begin, end in zip(begins, [*begins[1:], len(self.chunks)], strict=True)]

    def _run(self, begin: int, end: int) -> Run | None:
        if begin in self.odd:
            return None
        count, out = int(self.count[begin]), int(self.out[begin])
        within = _slice(int(self.first[begin]), int(self.step[begin]), count)
        stride = int(self.out[begin + 1]) - out if end - begin > 1 else 0
        return Run(begin, end, within, count, out, int(self.out_step[begin]), stride)


def _steps(values: IntArray, begins: IntArray, count: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Return the step from each part's first value to its second, and whether all of its steps are that, and not 0."""
    distance = np.append(np.diff(values), 0)
    step = np.where(count > 1, distance[begins], 1)
    inner = np.ones(len(values), dtype=bool)
    inner[begins + count - 1] = False
    differs = inner & (distance != np.repeat(step, count))
    return step, ~np.logical_or.reduceat(differs, begins) & (step != 0)


def _listed(first: IntArray, step: IntArray, count: IntArray, odd: dict[int, IntArray]) -> Sequence[Places]:
    made: list[Places] = [_slice(*row) for row in zip(first.tolist(), step.tolist(), count.tolist(), strict=True)]
    for place, positions in odd.items():
        made[place] = positions
    return made


def _slice(first: int, step: int, count: int) -> slice:
    """Return the slice of so many elements."""
    last = first + step * (count - 1)
    if step == 1:
        return slice(first, last + 1)
    stop = last + (1 if step > 0 else -1)
    return slice(first, stop if stop >= 0 else None, step)


def cut_axes(array: ManifestArray, selection: Any) -> list[AxisCut]:
    """Return what a selection takes along each axis.

    Parameters
    ----------
    array
        The array.
    selection
        ``None`` for everything; otherwise integers, slices with any step, masks and integer arrays, one per axis, an
        ellipsis among them. Arrays select orthogonally.

    Raises
    ------
    IndexError
        If it is out of range or of another kind.
    """
    entries = [] if selection is None else list(selection) if isinstance(selection, tuple) else [selection]
    dots = [place for place, entry in enumerate(entries) if entry is Ellipsis]
    if len(dots) > 1 or len(entries) - len(dots) > array.ndim:
        raise IndexError(f"cannot select {selection!r} from an array of {array.ndim} dimensions")
    rest = [slice(None)] * (array.ndim - len(entries) + len(dots))
    place = dots[0] if dots else len(entries)
    full = [*entries[:place], *rest, *entries[place + 1 :]]
    return [
        _cut(axis, entry, number)
        for number, (axis, entry) in enumerate(zip(array.metadata.grid.axes, full, strict=True))
    ]


def _cut(axis: Axis, entry: Any, number: int) -> AxisCut:
    if isinstance(entry, slice):
        start, stop, step = entry.indices(axis.size)
        if step == 1:
            return AxisCut.of_range(axis, start, stop)
        return AxisCut.of_positions(axis, np.arange(start, stop, step, dtype=np.int64))
    positions = np.asarray(entry)
    if positions.dtype.kind == "b" and positions.shape == (axis.size,):
        return AxisCut.of_positions(axis, np.flatnonzero(positions))
    if positions.ndim > 1 or (positions.dtype.kind not in "iu" and positions.size):
        raise IndexError(f"cannot select {entry!r} along axis {number}; use integers, slices, masks or integer arrays")
    flat = positions.reshape(-1).astype(np.int64)
    if flat.size and not (-axis.size <= flat.min() and flat.max() < axis.size):
        raise IndexError(
            f"a selection along axis {number}, of length {axis.size}, is out of range: {flat.min()} to {flat.max()}"
        )
    return AxisCut.of_positions(axis, np.where(flat < 0, flat + axis.size, flat), dropped=positions.ndim == 0)


def selector(places: Sequence[Places], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return an orthogonal selection in the form that NumPy takes for one."""
    if not any(isinstance(place, np.ndarray) for place in places):
        return tuple(places)
    arrays = [
        np.arange(size)[place] if isinstance(place, slice) else place for place, size in zip(places, shape, strict=True)
    ]
    return np.ix_(*arrays)
