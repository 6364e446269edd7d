"""A file-like reader of one object, for parsers: few requests, exact reads, one version of the object throughout."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from virtualchunks.errors import ManifestError, ShortReadError, SourceChangedError
from virtualchunks.reading.beginnings import beginning
from virtualchunks.reading.local import LocalFile
from virtualchunks.reading.ranges import REMOTE, Coalescing, plan
from virtualchunks.reading.requests import get
from virtualchunks.reading.turns import letting_others
from virtualchunks.registry import Location, ObjectStoreRegistry
from virtualchunks.sources import Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FIRST = 1 << 20
"""What the first request asks for: a round trip of 20 ms costs as much as 1 MiB at 50 MB/s, so an object of up to 1 MiB
is worth reading whole, in one request."""
BLOCK = 64 << 10
"""What a scattered read fetches at least, and the grain of the cache."""
READ_AHEAD = 4 << 20
"""What sequential reading grows to, doubling with each request."""
SCATTERED = Coalescing(gap=4 << 10, size=READ_AHEAD)
"""How structures of metadata are fetched that lie apart: in as many requests as there are places, exactly."""
CACHE = 64 << 20
"""Bytes of blocks that are kept; a read of more than a quarter of it is not cached."""


class ObjectReader(io.RawIOBase):
    """A seekable, read-only file over one object that the registry grants; safe to use from many threads.

    The first request is the one that asks for the beginning: no HEAD. Its answer gives size and stamp; every later
    answer must carry the same stamp. A local file is read through the operating system, and its stamp taken from the
    same descriptor; leaving a ``with`` block checks that it is unchanged.

    Parameters
    ----------
    registry
        Which must grant the URL.
    url
        The object.

    Raises
    ------
    NotGrantedError
        If the registry does not cover the URL.
    SourceUnavailableError
        If there is no such object, it is a folder, or it cannot be read.

    Attributes
    ----------
    url, size, stamp
        The object's canonical URL, its size in bytes, and its stamp.
    requests, bytes_read
        What was asked of the store so far, and how many bytes it gave.

    Examples
    --------
    >>> from obstore.store import MemoryStore
    >>> store = MemoryStore()
    >>> _ = store.put("a", b"0123456789")
    >>> with ObjectReader(ObjectStoreRegistry({"memory://": store}), "memory:///a") as reader:
    ...     reader.read_at(4, 3), reader.size, reader.requests
    (b'456', 10, 1)
    """

    def __init__(self, registry: ObjectStoreRegistry, url: str) -> None:
        super().__init__()
        location = registry.locate(url)
        self.url = location.url
        self.requests = 0
        self.bytes_read = 0
        self._position = 0
        self._lock = threading.RLock()
        self._counting = threading.Lock()
        self._source: LocalFile | _RemoteObject = (
            _RemoteObject(location, self._count) if location.path is None else LocalFile(location)
        )
        self.stamp: Stamp = self._source.stamp
        self.size: int = self.stamp.size or 0

    def read_at(self, offset: int, length: int) -> bytes:
        """Read a range, exactly, wherever the file's position is.

        Parameters
        ----------
        offset, length
            In bytes.

        Returns
        -------
        bytes
            Exactly `length` of them.

        Raises
        ------
        ShortReadError
            If the object ends before.
        SourceChangedError
            If it is no longer the object that was opened.
        """
        self._check_open()
        if offset < 0 or length < 0:
            raise ManifestError(f"offset {offset} and length {length} must not be negative", url=self.url)
        if offset + length > self.size:
            holds = f"it has {self.size} bytes" if self.size else "it is empty"
            raise ShortReadError(f"asked for bytes {offset} to {offset + length} of {self.url}: {holds}", url=self.url)
        return self._read(offset, offset + length) if length else b""

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Bring ranges that will be wanted into the cache, in merged requests, so that reading them costs nothing.

        Parameters
        ----------
        ranges
            ``(offset, length)`` of each; what lies beyond the end is left out.
        """
        self._check_open()
        if isinstance(self._source, _RemoteObject):
            with self._lock:
                self._source.prefetch([(at, min(length, self.size - at)) for at, length in ranges if at < self.size])

    @property
    def is_local(self) -> bool:
        """Whether it is a file that the operating system reads."""
        return isinstance(self._source, LocalFile)

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, bytes]]:
        """Read many ranges at once, uncached: those that lie close together in one request, all others concurrently.

        Parameters
        ----------
        ranges
            ``(offset, length)`` of each, all within the object.

        Returns
        -------
        list of tuple
            Offset and bytes of what was read; every range lies within one of them.
        """
        self._check_open()
        wanted = list(ranges)
        merged = plan([at for at, _ in wanted], [length for _, length in wanted], SCATTERED)
        spans = list(zip(merged.starts.tolist(), merged.stops.tolist(), strict=True))
        if not isinstance(self._source, _RemoteObject):
            return [(start, self.read_at(start, stop - start)) for start, stop in spans]
        return [(start, bytes(data)) for (start, _), data in zip(spans, self._source.get_all(spans), strict=True)]

    def check(self) -> None:
        """Raise if a local file is not what it was when it was opened; a remote object is checked with every answer.

        Raises
        ------
        SourceChangedError
            Naming what differs.
        """
        self._check_open()
        if isinstance(self._source, LocalFile):
            self._source.check()

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position, from the start, from here, or from the end."""
        self._check_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"cannot seek by {offset} with whence {whence} at {self._position} of {self.size}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on; fewer bytes only at the end of the object."""
        self._check_open()
        target = memoryview(buffer).cast("B")
        with self._lock:
            stop = min(self._position + len(target), self.size)
            length = max(0, stop - self._position)
            if length:
                target[:length] = self._read(self._position, stop)
                self._position = stop
        return length

    def readall(self) -> bytes:
        """All bytes from the position on."""
        self._check_open()
        with self._lock:
            start, self._position = self._position, max(self._position, self.size)
            return self._read(start, self.size) if start < self.size else b""

    def close(self) -> None:
        """Close the reader and drop its cache."""
        if not self.closed:
            self._source_close()
        super().close()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            if error is None and not self.closed:
                self.check()
        finally:
            self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, size={self.size}, requests={self.requests})"

    def _read(self, start: int, stop: int) -> bytes:
        if isinstance(self._source, LocalFile):
            data = self._source.read(start, stop)
            self._count(len(data))
            return data
        with self._lock:
            return self._source.read(start, stop)

    def _count(self, nbytes: int) -> None:
        with self._counting:
            self.requests += 1
            self.bytes_read += nbytes

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"the reader of {self.url} is closed")

    def _source_close(self) -> None:
        source = getattr(self, "_source", None)  # absent where opening it raised
        if source is not None:
            source.close()


class _RemoteObject:
    """Blocks of an object behind a store, cached, fetched with a growing read-ahead."""

    def __init__(self, location: Location, count: Callable[[int], None]) -> None:
        self._location = location
        self._count = count
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._sequel = -1  # where the last request ended: a read from there is sequential
        self._window = BLOCK
        self.stamp = Stamp()
        first = beginning(location, FIRST)
        count(len(first.data))
        self.stamp = first.stamp
        self._size = first.stamp.size or 0
        self._keep(0, first.data)
        self._sequel, self._window = len(first.data), FIRST

    def close(self) -> None:
        self._blocks.clear()

    def read(self, start: int, stop: int) -> bytes:
        if stop - start > CACHE // 4:
            return bytes(self._get(start, stop))
        missing = self._missing(start, stop)
        if missing:
            self._fetch(missing[0] * BLOCK, (missing[-1] + 1) * BLOCK)
        parts = [self._part(number, start, stop) for number in range(start // BLOCK, -(-stop // BLOCK))]
        self._shrink()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def prefetch(self, ranges: list[tuple[int, int]]) -> None:
        """Fetch what is missing of many ranges, merged."""
        wanted = {block for at, length in ranges for block in self._missing(at, at + length)}
        blocks = sorted(wanted)[: CACHE // BLOCK // 2]
        if not blocks:
            return
        merged = plan([block * BLOCK for block in blocks], [BLOCK] * len(blocks), Coalescing(gap=0, size=READ_AHEAD))
        spans = list(zip(merged.starts.tolist(), np.minimum(merged.stops, self._size).tolist(), strict=True))
        for (start, _), data in zip(spans, self.get_all(spans), strict=True):
            self._keep(start // BLOCK, data)
        self._shrink()

    def get_all(self, spans: list[tuple[int, int]]) -> list[memoryview]:
        """Ask for many ranges at once."""
        if len(spans) <= 1:
            return [self._get(*span) for span in spans]
        with (
            letting_others(),
            ThreadPoolExecutor(min(len(spans), REMOTE.concurrency), "virtualchunks-prefetch") as pool,
        ):
            return list(pool.map(self._get, *zip(*spans, strict=True)))

    def _fetch(self, start: int, stop: int) -> None:
        """Fetch whole blocks; twice as many as last time if this goes on where the last request ended."""
        self._window = min(2 * self._window, READ_AHEAD) if start == self._sequel else BLOCK
        ahead = start + self._window
        while stop < ahead and stop // BLOCK not in self._blocks:
            stop += BLOCK
        stop = min(stop, self._size)
        self._keep(start // BLOCK, self._get(start, stop))
        self._sequel = stop

    def _get(self, start: int, stop: int) -> memoryview:
        try:
            answer = get(self._location, start, stop, self.stamp)
        except SourceChangedError as error:
            detail = error.message.partition(" is not the object that was parsed")[2].removesuffix(": parse it again")
            message = f"{self._location.url} changed while it was being parsed{detail}"
            raise SourceChangedError(message, url=self._location.url) from error
        self._count(len(answer.data))
        return answer.data

    def _missing(self, start: int, stop: int) -> list[int]:
        return [block for block in range(start // BLOCK, -(-stop // BLOCK)) if block not in self._blocks]

    def _keep(self, first: int, data: memoryview) -> None:
        for at in range(0, len(data), BLOCK):
            self._blocks[first + at // BLOCK] = bytes(data[at : at + BLOCK])  # a view would keep the whole answer

    def _part(self, number: int, start: int, stop: int) -> bytes:
        block = self._blocks[number]
        self._blocks.move_to_end(number)
        base = number * BLOCK
        return block[max(0, start - base) : stop - base]

    def _shrink(self) -> None:
        while len(self._blocks) > CACHE // BLOCK:
            self._blocks.popitem(last=False)
