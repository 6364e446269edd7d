"""What one opening of a file has at hand: answers to requests, and the descriptor of a local file.

To open a file is to look at its beginning, to parse it, and to load its coordinates. Within :func:`kept`, whatever of
these comes later is given what came earlier: bytes that a reader was answered with are not asked for again, and one
descriptor of a local file serves all. What is kept is let go of at the end of the block, and is bounded.

Bytes are handed on only with the stamp that came with them, which is compared with the one that is wanted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from virtualchunks.reading.stamps import compare

if TYPE_CHECKING:
    from virtualchunks.reading.requests import Answer
    from virtualchunks.registry import Location
    from virtualchunks.sources import Stamp

#: Bytes of answers that one opening keeps.
KEPT_BYTES = 16 << 20
_CAN_SHARE = hasattr(os, "pread")  # elsewhere, descriptors that were duplicated share one position


class Kept:
    """What one opening keeps."""

    def __init__(self) -> None:
        self.beginning: tuple[Location, Answer] | None = None
        self._watched: list[Location] = []
        self._answers: list[tuple[Location, int, Answer]] = []
        self._nbytes = 0
        self._local: tuple[str, int] | None = None

    def watch(self, location: Location) -> None:
        """Keep the answers to requests that are made with this very location, in whatever thread."""
        self._watched.append(location)
        _WATCHING[id(location)] = self

    def add(self, location: Location, start: int, answer: Answer) -> None:
        """Keep an answer, unless what is kept would be too much."""
        if self._nbytes + len(answer.data) <= KEPT_BYTES:
            self._nbytes += len(answer.data)
            self._answers.append((location, start, answer))

    def find(
        self, location: Location, ranges: Sequence[tuple[int, int]], stamp: Stamp | None
    ) -> list[memoryview | None]:
        """Return the bytes of the ranges that lie in one of the answers, ``None`` for the others."""
        known = [
            (start, answer.data)
            for place, start, answer in self._answers
            if place.key == location.key and place.store is location.store and compare(stamp, answer.stamp) is None
        ]
        return [_within(known, offset, length) for offset, length in ranges]

    def descriptor(self, path: str) -> int | None:
        """Return a duplicate of the descriptor of a local file, if it is the one that was opened first."""
        return os.dup(self._local[1]) if self._local is not None and self._local[0] == path else None

    def keep_descriptor(self, path: str, descriptor: int) -> None:
        """Keep a duplicate of the descriptor of a local file, of the first that is opened."""
        if self._local is None and _CAN_SHARE:
            self._local = path, os.dup(descriptor)

    def close(self) -> None:
        """Let go of everything."""
        for location in self._watched:
            _WATCHING.pop(id(location), None)
        if self._local is not None:
            os.close(self._local[1])
        self._watched, self._answers, self._local, self.beginning = [], [], None, None


#: Who keeps the answers to requests made with a location, by its identity: readers ask from threads of their own.
_WATCHING: dict[int, Kept] = {}
_KEPT: ContextVar[Kept | None] = ContextVar("virtualchunks-kept", default=None)


@contextmanager
def kept() -> Iterator[Kept]:
    """Keep what is opened and read within the block and in this thread; a block within another keeps nothing itself."""
    outer = _KEPT.get()
    if outer is not None:
        yield outer
        return
    own = Kept()
    token = _KEPT.set(own)
    try:
        yield own
    finally:
        _KEPT.reset(token)
        own.close()


def at_hand() -> Kept | None:
    """Return what the block around the caller keeps; ``None`` outside of any."""
    return _KEPT.get()


def note(location: Location, start: int, answer: Answer) -> None:
    """Let an answer be kept, if anybody keeps those of its location."""
    if _WATCHING:
        keeper = _WATCHING.get(id(location))
        if keeper is not None:
            keeper.add(location, start, answer)


def _within(known: Sequence[tuple[int, memoryview]], offset: int, length: int) -> memoryview | None:
    for start, data in known:
        if start <= offset and offset + length <= start + len(data):
            return data[offset - start : offset - start + length]
    return None
