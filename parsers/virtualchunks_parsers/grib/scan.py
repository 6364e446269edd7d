"""Finding messages: a walk over an object that fetches headers and steps over the data.

Where messages are small it is cheaper to read on than to ask around them, so the window of a request grows to
:data:`STREAM`; where they are large it is :data:`PEEK`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np

from virtualchunks.codecs.grib_sections import END, MAGIC, Field, Message, fields_of, message_at
from virtualchunks.errors import FormatError, ShortReadError
from virtualchunks.reading.beginnings import beginning
from virtualchunks.reading.ranges import REMOTE, plan
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.reading.requests import get
from virtualchunks.registry import ObjectStoreRegistry

#: What the first request asks for, and what is read at once while searching for the next message.
FIRST = 64 << 10
#: What is read at the beginning of a large message: the sections before its data have a few hundred bytes.
PEEK = 1 << 10
#: What is read at once while messages are small.
STREAM = 2 << 20
#: Messages shorter than this, on average, are read through: a round trip costs as much as these bytes.
SMALL_REMOTE, SMALL_LOCAL = 256 << 10, 8 << 10
#: Bytes between messages that are searched for the next one.
MOST_JUNK = 16 << 20


class HeaderReader:
    """Small reads of one object in order, each request answering those that follow close behind.

    Parameters
    ----------
    registry
        Which must grant the URL.
    url
        The object.
    start
        Where the first request asks for bytes.

    Attributes
    ----------
    url, size, stamp
        The object's canonical URL, its size in bytes, and its stamp.
    requests, bytes_read
        What was asked of the store so far, and how many bytes it gave.
    """

    def __init__(self, registry: ObjectStoreRegistry, url: str, start: int = 0) -> None:
        self._location = registry.locate(url)
        self.url = self._location.url
        self.requests = self.bytes_read = 0
        self._start, self._window = 0, b""
        self._parts: list[tuple[int, bytes]] = []
        self._ahead = FIRST
        self._local = ObjectReader(registry, url) if self._location.path is not None else None
        self.small = SMALL_REMOTE if self._local is None else SMALL_LOCAL
        if self._local is not None:
            self.stamp = self._local.stamp
        else:
            self._first(start)
        self.size = self.stamp.size or 0

    def _first(self, start: int) -> None:
        try:
            answer = get(self._location, start, start + FIRST, upto=True) if start else beginning(self._location, FIRST)
        except ShortReadError:
            if not start:
                raise
            return self._first(0)  # the object ends before: its size is to be known nonetheless
        if not answer.data:
            raise FormatError(f"no GRIB file: {self.url} is empty", url=self.url)
        self.stamp = answer.stamp
        self._keep(start, bytes(answer.data))
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._local is not None:
            self._local.__exit__(kind, error, traceback)

    def expect(self, length: int) -> None:
        """Say how long messages are on average, which decides how much is read at once."""
        self._ahead = STREAM if length < self.small else PEEK

    def read(self, offset: int, length: int, ahead: int | None = None) -> bytes:
        """Return a range of the object.

        Parameters
        ----------
        offset, length
            In bytes.
        ahead
            How many bytes to fetch if some must be; by default what :meth:`expect` led to.

        Raises
        ------
        FormatError
            If the object ends before.
        """
        if offset + length > self.size:
            raise FormatError(
                f"asked for bytes {offset} to {offset + length} of a file of {self.size}: it is truncated", url=self.url
            )
        kept = self._kept(offset, length)
        if kept is not None:
            return kept
        within = offset - self._start
        if within < 0 or within + length > len(self._window):
            stop = min(self.size, offset + max(length, self._ahead if ahead is None else ahead))
            self._keep(offset, self._fetch(offset, stop))
            within = 0
        return self._window[within : within + length]

    def prefetch(self, offsets: Sequence[int]) -> None:
        """Fetch what stands at several offsets, several requests at once and neighbours in one."""
        starts = np.array(sorted(set(offsets)), dtype=np.int64)
        if self._local is not None or not starts.size:
            return
        wanted = plan(starts, np.minimum(PEEK, self.size - starts), REMOTE)
        ranges = (wanted.starts.tolist(), wanted.stops.tolist())
        with ThreadPoolExecutor(min(len(wanted), REMOTE.concurrency), "virtualchunks-grib") as pool:
            self._parts = list(zip(ranges[0], pool.map(self._fetch, *ranges), strict=True))
        self.requests += len(self._parts)
        self.bytes_read += sum(len(data) for _, data in self._parts)

    def _kept(self, offset: int, length: int) -> bytes | None:
        place = bisect_right(self._parts, offset, key=lambda part: part[0]) - 1
        if place < 0:
            return None
        start, data = self._parts[place]
        return data[offset - start : offset - start + length] if offset + length <= start + len(data) else None

    def _fetch(self, start: int, stop: int) -> bytes:
        if self._local is not None:
            return self._local.read_at(start, stop - start)
        return bytes(get(self._location, start, stop, self.stamp).data)

    def _keep(self, start: int, data: bytes) -> None:
        self._start, self._window = start, data
        self.requests += 1
        self.bytes_read += len(data)


def fields_in(reader: HeaderReader) -> Iterator[tuple[int, Field]]:
    """Iterate over the fields of all messages of an object, each with its number in its message.

    Parameters
    ----------
    reader
        Of the object.

    Raises
    ------
    FormatError
        If there is no message, or one is truncated or corrupt.
    """
    at, count = 0, 0
    while True:
        start = _next_message(reader, at, count)
        if start is None:
            break
        message = message_at(reader.read, start, reader.size)
        yield from enumerate(fields_of(reader.read, message))
        count += 1
        reader.expect(message.end // count)
        _check_end(reader, message)
        at = message.end
    if not count:
        raise FormatError(f"no GRIB file: there is no message in its {reader.size} bytes", url=reader.url)


def _check_end(reader: HeaderReader, message: Message) -> None:
    end = reader.read(message.end - len(END), len(END))
    if end != END:
        raise FormatError(
            f"the GRIB message at offset {message.offset} has {end!r} in place of 7777 at its end: it is corrupt",
            url=reader.url,
        )


def _next_message(reader: HeaderReader, at: int, count: int) -> int | None:
    """Where the next message begins, at or behind `at`: telecommunication headers and padding may lie between."""
    if reader.size - at >= 16 and reader.read(at, 4) == MAGIC:
        return at
    limit = min(reader.size, at + MOST_JUNK)
    while at + 16 <= limit:
        data = reader.read(at, min(FIRST, reader.size - at), FIRST)
        found = data.find(MAGIC)
        while found >= 0:
            if found + 8 <= len(data) and data[found + 7] in (1, 2):
                return at + found
            if found + 8 > len(data) and reader.size - at - found >= 16 and reader.read(at + found, 8)[7] in (1, 2):
                return at + found
            found = data.find(MAGIC, found + 1)
        at += max(1, len(data) - len(MAGIC) + 1)
    if reader.size - at >= 16:
        raise FormatError(
            f"no GRIB message in {MOST_JUNK} bytes before offset {at}, behind {count} messages", url=reader.url
        )
    return None
