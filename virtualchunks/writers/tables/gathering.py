"""Gathering: bytes that lie in pieces, here and there in buffers, as one run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

#: Bytes that are gathered at a time; their index takes eight times as many.
BLOCK = 8 << 20

Bytes = npt.NDArray[np.uint8]


def gather(
    buffers: Mapping[int, bytes], source: npt.NDArray[Any], offset: npt.NDArray[Any], length: npt.NDArray[Any]
) -> Bytes:
    """Return pieces of buffers, one behind the other.

    Parameters
    ----------
    buffers
        By number.
    source, offset, length
        Which buffer each piece lies in, and where.

    Examples
    --------
    >>> gather({3: b"abcdef"}, np.array([3, 3]), np.array([4, 0]), np.array([2, 1])).tobytes()
    b'efa'
    """
    rows = sorted(set(np.unique(source).tolist()))
    starts = np.zeros(max(rows, default=0) + 1, dtype=np.int64)
    sizes = [len(buffers[row]) for row in rows]
    starts[rows] = np.cumsum([0, *sizes[:-1]]) if rows else 0
    whole = np.frombuffer(buffers[rows[0]] if len(rows) == 1 else b"".join(map(buffers.__getitem__, rows)), np.uint8)
    first = starts[source] + offset.astype(np.int64)
    size = length.astype(np.int64)
    if _is_run(first, size):
        return whole[int(first[0]) : int(first[-1] + size[-1])]
    return np.concatenate([whole[_places(first[part], size[part])] for part in _parts(size)])


def _is_run(first: npt.NDArray[np.int64], size: npt.NDArray[np.int64]) -> bool:
    return bool((first[1:] == first[:-1] + size[:-1]).all())


def _parts(size: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Cut pieces into runs of about a block."""
    block = np.cumsum(size) // BLOCK
    bounds = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(size)]
    yield from (slice(start, stop) for start, stop in itertools.pairwise(bounds))


def _places(first: npt.NDArray[np.int64], size: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the place of every byte of pieces."""
    ends = np.cumsum(size)
    return np.repeat(first - (ends - size), size) + np.arange(int(ends[-1]), dtype=np.int64)
