"""Placing: chunks that hold plain elements go from the bytes of a request into the result without a loop over them.

Chunks of one run of each axis (:class:`~virtualchunks.reading.cuts.Run`) are blocks of one array of strides, on either
side: their bytes are rows of one view of the request, their places blocks of one view of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.encoding import ChunkEncoding
from virtualchunks.grid import IntArray
from virtualchunks.reading.cuts import AxisCut, Run

_ORDERS = {"little": "<", "big": ">"}
#: Fewer chunks than this are placed one by one.
FEWEST = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """How plain elements of a block are stored.

    Parameters
    ----------
    dtype
        Of the stored elements, with their byte order.
    order
        Axes of the array in the order in which they are stored, slowest first.
    shape
        Of the block, as the array has it.
    """

    dtype: np.dtype[Any]
    order: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Length of a block."""
        return math.prod(self.shape) * self.dtype.itemsize

    def blocks(self, data: memoryview, offsets: IntArray) -> npt.NDArray[Any]:
        """Return the blocks that begin at ascending offsets: a view of the bytes where their distance is constant."""
        stored = tuple(self.shape[axis] for axis in self.order)
        distances = np.diff(offsets)
        if len(offsets) == 1 or bool((distances == distances[0]).all()):
            step = int(distances[0]) if len(distances) else 0
            inner = _strides(stored, self.dtype)
            rows: npt.NDArray[Any] = np.ndarray(
                (len(offsets), *stored), self.dtype, data, int(offsets[0]), (step, *inner)
            )
        else:
            raw = np.frombuffer(data, dtype=np.uint8)
            windows = np.lib.stride_tricks.sliding_window_view(raw, self.nbytes)
            rows = windows[offsets].view(self.dtype).reshape(len(offsets), *stored)
        return rows.transpose(0, *(self.order.index(axis) + 1 for axis in range(len(self.order))))


def _strides(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Return the strides of C order."""
    made: list[int] = []
    step = dtype.itemsize
    for size in reversed(shape):
        made.append(step)
        step *= size
    return tuple(reversed(made))


@lru_cache(maxsize=256)
def layout_of(encoding: ChunkEncoding, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Layout | None:
    """Return the layout of chunks of a shape that hold nothing but elements of a dtype, in either byte order.

    Parameters
    ----------
    encoding
        Of the chunks.
    shape
        Of the block, where the encoding has none of its own.
    dtype
        Of the array.

    Returns
    -------
    Layout or None
        None where the values are made in any other way than by looking at the bytes.

    Examples
    --------
    >>> layout_of(ChunkEncoding.plain(">i2"), (2, 3), np.dtype("i2"))
    Layout(dtype=dtype('>i2'), order=(0, 1), shape=(2, 3))
    """
    *filters, last = encoding.codecs
    if encoding.packing is not None or encoding.start is not None or last["name"] != "bytes":
        return None
    if any(codec["name"] != "transpose" for codec in filters) or encoding.dtype.kind not in "biufcmMSU":
        return None
    order = _ORDERS.get(last.get("configuration", {}).get("endian"), "")
    stored = encoding.dtype.newbyteorder(order) if order else encoding.dtype  # type: ignore[arg-type]
    if (not order and stored.byteorder != "|") or stored.newbyteorder("=") != dtype or not stored.itemsize:
        return None
    block = shape if encoding.shape is None else encoding.shape
    if not shape or any(found < wanted for found, wanted in zip(block, shape, strict=True)):
        return None
    return Layout(stored, encoding.storage_order(len(shape)), block)


def place(
    out: npt.NDArray[Any],
    cuts: Sequence[AxisCut],
    places: Sequence[IntArray],
    layout: Layout,
    data: memoryview,
    offsets: IntArray,
) -> npt.NDArray[np.bool_]:
    """Put chunks into the result, all of one combination of runs at once.

    Parameters
    ----------
    out
        The result.
    cuts
        What is taken along each axis.
    places
        Along each axis, the places of the chunks among those touched.
    layout
        Of their bytes.
    data, offsets
        The bytes, and where each chunk begins in them, ascending.

    Returns
    -------
    numpy.ndarray
        Which chunks were put into place; the others have to be one by one.
    """
    done = np.zeros(len(offsets), dtype=bool)
    for runs, members in _combinations(cuts, places):
        known = [run for run in runs if run is not None]
        if len(known) == len(runs):
            within = tuple(run.within for run in known)
            blocks = layout.blocks(data, offsets[members])[(slice(None), *within)]
            _assign(
                _target(out, known),
                [where[members] - run.begin for where, run in zip(places, known, strict=True)],
                blocks,
            )
            done[members] = True
    return done


def _combinations(cuts: Sequence[AxisCut], places: Sequence[IntArray]) -> Iterator[tuple[list[Run | None], IntArray]]:
    """Iterate over the combinations of runs, one of each axis, and the chunks of each, unless these are too few."""
    kinds = np.ravel_multi_index(
        [cut.run_of[where] for cut, where in zip(cuts, places, strict=True)], [len(cut.runs) for cut in cuts]
    )
    order = np.argsort(kinds, kind="stable")
    begins = np.flatnonzero(np.diff(kinds[order], prepend=-1))
    for members in np.split(order, begins[1:]):
        if len(members) < FEWEST:
            continue
        first = members[0]
        yield [cut.runs[int(cut.run_of[where[first]])] for cut, where in zip(cuts, places, strict=True)], members


def _target(out: npt.NDArray[Any], runs: Sequence[Run]) -> npt.NDArray[Any]:
    """Return the blocks of the result that a combination of runs fills: first the axes of chunks, then of elements."""
    corner = out[tuple(slice(run.out, None) for run in runs)]
    shape = (*(run.end - run.begin for run in runs), *(run.count for run in runs))
    strides = (
        *(run.out_stride * step for run, step in zip(runs, out.strides, strict=True)),
        *(run.out_step * step for run, step in zip(runs, out.strides, strict=True)),
    )
    return np.lib.stride_tricks.as_strided(corner, shape, strides)


def _assign(target: npt.NDArray[Any], places: Sequence[IntArray], blocks: npt.NDArray[Any]) -> None:
    """Put blocks at places; a row of neighbours along one axis is put there in one go."""
    varied = [axis for axis, where in enumerate(places) if where[0] != where[-1] or bool((where != where[0]).any())]
    if len(varied) == 1 and bool((np.diff(places[varied[0]]) == 1).all()):
        row = places[varied[0]]
        key: list[Any] = [int(where[0]) for where in places]
        key[varied[0]] = slice(int(row[0]), int(row[-1]) + 1)
        target[tuple(key)] = blocks
    else:
        target[tuple(places)] = blocks
