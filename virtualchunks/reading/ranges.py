"""Ranges: many wanted ranges of one object become few requests. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import ManifestError

Int64 = npt.NDArray[np.int64]
LAST_BYTE = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Coalescing:
    """When neighbouring ranges are asked for in one request, and how many requests fly at once.

    Parameters
    ----------
    gap
        Unwanted bytes between two ranges that are rather read than asked around.
    size
        Bytes after which a request begins anew. One range is never cut, so a request may be longer by one range.
    concurrency
        Requests in flight.

    Examples
    --------
    >>> Coalescing(gap=0).size
    16777216
    """

    gap: int = 256 << 10
    size: int = 16 << 20
    concurrency: int = 16


#: By the name of obstore's class. A gap costs its bytes, a request its latency: over a network about 10 ms, thus
#: 256 KiB at 25 MB/s; on a local disk a system call, thus a page or two.
COALESCING = {
    "LocalStore": Coalescing(gap=16 << 10, concurrency=1),
    "MemoryStore": Coalescing(gap=0, concurrency=1),
}
REMOTE = Coalescing()


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which requests serve which ranges.

    Parameters
    ----------
    starts, stops
        Of each request.
    request
        For each wanted range, the number of the request that holds it; −1 for an empty range.
    within
        For each wanted range, where it begins in that request.
    lengths
        Of each wanted range.
    """

    starts: Int64
    stops: Int64
    request: Int64
    within: Int64
    lengths: Int64

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def nbytes(self) -> int:
        """Bytes that the requests ask for."""
        return int((self.stops - self.starts).sum())

    def slices(self, answers: list[memoryview]) -> list[memoryview]:
        """Cut the wanted ranges out of the answers to the requests, without copying."""
        rows = zip(self.request.tolist(), self.within.tolist(), self.lengths.tolist(), strict=True)
        empty = memoryview(b"")
        return [answers[number][start : start + length] if length else empty for number, start, length in rows]


def plan(offsets: npt.ArrayLike, lengths: npt.ArrayLike, coalescing: Coalescing = REMOTE) -> Plan:
    """Merge ranges of one object that lie close together. Duplicates and overlaps are asked for once.

    Parameters
    ----------
    offsets, lengths
        Of the wanted ranges, in bytes, in any order.
    coalescing
        The limits.

    Returns
    -------
    Plan
        The requests, in the order of the object.

    Raises
    ------
    ManifestError
        If a range is not one of whole, non-negative numbers below 2⁶³.

    Examples
    --------
    >>> found = plan([100, 0, 1000], [10, 90, 10], Coalescing(gap=16))
    >>> found.starts.tolist(), found.stops.tolist(), found.request.tolist(), found.within.tolist()
    ([0, 1000], [110, 1010], [0, 0, 1], [100, 0, 0])
    """
    first, count = _whole(offsets, "offset"), _whole(lengths, "length")
    if first.shape != count.shape:
        raise ManifestError(f"{first.size} offsets and {count.size} lengths: a range needs one of each")
    if bool(np.any(first > LAST_BYTE - count)):
        raise ManifestError("a range ends beyond 2**63 - 1: no object is that long")
    order = np.argsort(first, kind="stable")
    order = order[count[order] > 0]
    start, stop = first[order], first[order] + count[order]
    new = np.ones(len(order), dtype=bool)
    if len(order):
        new[1:] = start[1:] - np.maximum.accumulate(stop)[:-1] > coalescing.gap
        base = start[new][np.cumsum(new) - 1]
        part = (start - base) // coalescing.size
        new[1:] |= part[1:] != part[:-1]
    heads = np.flatnonzero(new)
    starts = start[heads]
    stops = np.maximum.reduceat(stop, heads) if len(heads) else stop
    request = np.full(first.shape, -1, dtype=np.int64)
    request[order] = np.cumsum(new) - 1
    within = np.zeros(first.shape, dtype=np.int64)
    within[order] = start - starts[request[order]]
    return Plan(starts, stops, request, within, count)


def _whole(values: npt.ArrayLike, name: str) -> Int64:
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros(array.shape, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ManifestError(
            f"the {name}s of ranges are whole numbers in one row, not {array.dtype} of shape {array.shape}"
        )
    if int(array.min()) < 0 or int(array.max()) > LAST_BYTE:
        raise ManifestError(f"{name}s of {int(array.min())} to {int(array.max())}: they must lie from 0 to 2**63 - 1")
    return array.astype(np.int64, copy=False)
