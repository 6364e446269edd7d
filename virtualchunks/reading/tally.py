"""Tallies: what was read, counted."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class ReadStats:
    """What was read since counting began.

    Attributes
    ----------
    requests
        Requests made, and reads of local files.
    bytes
        Bytes that they brought.
    chunks
        Chunks served out of objects; missing ones and those in memory are not counted.
    cache_hits
        Chunks served from a block that was already decoded.

    Examples
    --------
    >>> ReadStats(requests=1, bytes=10, chunks=2)
    ReadStats(requests=1, bytes=10, chunks=2, cache_hits=0)
    """

    requests: int = 0
    bytes: int = 0
    chunks: int = 0
    cache_hits: int = 0


_NAMES = tuple(entry.name for entry in fields(ReadStats))


class Tally:
    """Counts that any number of threads add to.

    Every thread counts for itself, so that there is no lock which a fork could leave behind held. A pickle of it has
    counted nothing.

    Examples
    --------
    >>> tally = Tally()
    >>> tally.add(requests=1, bytes=10)
    >>> tally.stats()
    ReadStats(requests=1, bytes=10, chunks=0, cache_hits=0)
    """

    def __init__(self) -> None:
        self._by_thread: dict[int, list[int]] = {}
        self._before = (0,) * len(_NAMES)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def add(self, *, requests: int = 0, bytes: int = 0, chunks: int = 0, cache_hits: int = 0) -> None:
        """Add to the counts."""
        own = self._by_thread.get(threading.get_ident())
        if own is None:
            own = self._by_thread.setdefault(threading.get_ident(), [0] * len(_NAMES))
        own[0] += requests
        own[1] += bytes
        own[2] += chunks
        own[3] += cache_hits

    def chunk(self) -> None:
        """Add one chunk to the counts."""
        own = self._by_thread.get(threading.get_ident())
        if own is None:
            self.add(chunks=1)
        else:
            own[2] += 1

    def stats(self, *, reset: bool = False) -> ReadStats:
        """Return the counts.

        Parameters
        ----------
        reset
            Whether counting begins anew.
        """
        counts = list(self._by_thread.values())
        now = tuple(sum(column) for column in zip((0,) * len(_NAMES), *counts, strict=True))
        found = ReadStats(*(new - old for new, old in zip(now, self._before, strict=True)))
        if reset:
            self._before = now
        return found
