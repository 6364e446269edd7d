"""Chunk by chunk: ranges that are asked for one at a time, as zarr asks a store for them.

Nothing is merged here, so that what counts is the way to each range: where an object is, is worked out once; local
files stay open for a while; and ranges of one that follow one another are read ahead. What a file gives is checked
against the version that was parsed all the same, and that its path still leads to it.

There are no locks, so that a process may fork at any time. A descriptor is closed when nobody uses it any more.
"""

from __future__ import annotations

import itertools
import os
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Any, NamedTuple

from virtualchunks.errors import ReadError
from virtualchunks.reading.batching import Batcher
from virtualchunks.reading.fetch import SHORT, check_extent, first_of
from virtualchunks.reading.local import LocalFile
from virtualchunks.reading.ranges import COALESCING
from virtualchunks.reading.requests import get
from virtualchunks.reading.stamps import compare
from virtualchunks.reading.tally import Tally
from virtualchunks.registry import Location, ObjectStoreRegistry, local_path
from virtualchunks.sources import SourceTable, Stamp

#: Files that a store keeps open.
OPEN_FILES = 48
#: Bytes that are read ahead at most, and in how many places at a time.
AHEAD = 1 << 20
WINDOWS = 16
#: Seconds for which bytes read ahead are handed out without another look at their file.
FRESH = 0.01
#: Rows of source tables whose objects are remembered.
KEPT_ROWS = 1024
#: Whether one descriptor serves many threads, and does not keep others from replacing the file.
_SHARES_DESCRIPTORS = hasattr(os, "pread")
_GAP = COALESCING["LocalStore"].gap


class Window(NamedTuple):
    """Bytes of a file that were read ahead, and when the file was last seen to be the same."""

    start: int
    stop: int
    data: bytes
    file: LocalFile
    seen: float


class Place:
    """Where an object is, under one version of the registry, and its file while that is kept open."""

    __slots__ = ("file", "location", "path", "used", "version")

    def __init__(self) -> None:
        self.version: int | None = -1
        self.location: Location | None = None
        self.file: LocalFile | None = None
        self.path = ""
        self.used = 0


class Source:
    """One row of a source table, and how far it was read.

    Attributes
    ----------
    table, row
        Which one.
    url, stamp
        Of the object; the URL is empty where the bytes are in memory.
    held
        The bytes, where they are in memory.
    """

    __slots__ = ("ahead", "end", "held", "place", "row", "stamp", "table", "url", "window")

    def __init__(self, table: SourceTable, row: int, place: Place) -> None:
        buffer = table.buffer(row)
        self.table = table
        self.row = row
        self.url = table.url(row)
        self.stamp: Stamp | None = table.stamp(row) or None
        self.held = None if buffer is None else memoryview(buffer)
        self.place = place
        self.window: Window | None = None
        self.end = -1
        self.ahead = 0


class ChunkReader:
    """Reads ranges one at a time.

    Parameters
    ----------
    registry
        Which must grant the URLs.
    tally
        Where requests are counted.

    Examples
    --------
    >>> from obstore.store import MemoryStore
    >>> store = MemoryStore()
    >>> _ = store.put("a", b"0123456789")
    >>> reader = ChunkReader(ObjectStoreRegistry({"memory://": store}), Tally())
    >>> source = reader.source(SourceTable.single("memory:///a"), 0)
    >>> bytes(reader.read(source, 7, 2))
    b'78'
    """

    def __init__(self, registry: ObjectStoreRegistry, tally: Tally) -> None:
        self._registry = registry
        self._tally = tally
        self._batcher = Batcher(registry, tally)
        self._sources: dict[tuple[int, int], Source] = {}
        self._places: dict[tuple[str, Stamp | None], Place] = {}
        self._opened: dict[Place, None] = {}
        self._windows: list[Source] = []
        self._clock = itertools.count(1)

    def source(self, table: SourceTable, row: int) -> Source:
        """Return a row of a source table as something to read from."""
        found = self._sources.get((id(table), row))
        if found is not None:
            return found
        if len(self._sources) >= KEPT_ROWS:
            self._sources, self._windows = {}, []
            self._places = {key: place for key, place in list(self._places.items()) if place.file is not None}
        place = self._places.setdefault((table.url(row), table.stamp(row) or None), Place())
        # a source holds its table, so that the table's id is nobody else's
        return self._sources.setdefault((id(table), row), Source(table, row, place))

    def close(self) -> None:
        """Let go of all files, and of what was read ahead; whoever reads after that opens them again."""
        for source in list(self._sources.values()):
            source.window = None
        for place in list(self._opened):
            place.file = None
        self._opened, self._windows = {}, []

    @property
    def open_files(self) -> int:
        """Number of files that are kept open."""
        return sum(place.file is not None for place in list(self._opened))

    def read(self, source: Source, offset: int, length: int) -> Any:
        """Read a range of an object.

        Parameters
        ----------
        source
            From :meth:`source`.
        offset, length
            Of the range.

        Returns
        -------
        bytes or memoryview
            As many bytes as were asked for.

        Raises
        ------
        ReadError, NotGrantedError
            As :func:`~virtualchunks.reading.fetch.fetch`.
        """
        data = self.ready(source, offset, length)
        if data is not None:
            return data
        version, place = self._registry.version, source.place
        if version is not None and place.version == version and place.location is not None:
            return self._get(place.location, source, offset, length, version)
        locations = self._registry.locate_all(source.url)
        if not source.url.startswith(("file:", "{")):  # where links may lead elsewhere, it is worked out each time
            place.location, place.version = locations[0], version
        return first_of(locations, lambda location: self._get(location, source, offset, length, version))

    async def aread(self, source: Source, offset: int, length: int) -> Any:
        """Read a range of an object that is not :meth:`ready`, as :meth:`read` does, on the running event loop."""
        if length > SHORT or not source.url.startswith("file:"):
            return await self._batcher.get(source.url, source.stamp, offset, length)
        version = self._registry.version
        location = self._registry.locate(source.url)
        if location.path is None:
            return await self._batcher.get(source.url, source.stamp, offset, length)
        return self._get(location, source, offset, length, version)

    def ready(self, source: Source, offset: int, length: int) -> bytes | None:
        """Return a range of a file that is open already, if it is the file still; ``None`` in all other cases."""
        place, stop, window = source.place, offset + length, source.window
        file = place.file
        if file is None or not length or place.version != self._registry.version or stop > file.size:
            return None
        if window is None or not (window.start <= offset and stop <= window.stop and window.file is file):
            return self._from(source, place, file, offset, stop)
        now = monotonic()
        if now - window.seen > FRESH:
            if not file.is_at(place.path):
                place.file = source.window = None
                return None
            source.window = window._replace(seen=now)
        source.end = stop
        return window.data[offset - window.start : stop - window.start]

    def _from(self, source: Source, place: Place, file: LocalFile, offset: int, stop: int) -> bytes | None:
        """Read a range of an open file, and what lies behind it if the last range lay before it."""
        place.used = next(self._clock)
        last = min(max(stop, offset + _ahead(source, offset, stop - offset)), file.size)
        data = b""
        with suppress(ReadError):  # it became shorter: what that means is found out where it is opened again
            data = file.read(offset, last)
        if not (data and file.is_at(place.path)):
            place.file = source.window = None
            return None
        self._tally.add(requests=1, bytes=len(data))
        source.end = stop
        if last == stop:
            return data
        source.window = Window(offset, last, data, file, monotonic())
        self._windows.append(source)
        if len(self._windows) > WINDOWS:
            oldest = self._windows.pop(0)
            if oldest is not source:
                oldest.window = None
        return data[: stop - offset]

    def _get(self, location: Location, source: Source, offset: int, length: int, version: int | None) -> Any:
        """Read a range from one place; a local file stays open."""
        stamp, stop = source.stamp, offset + length
        check_extent(location, stop, stamp)
        self._tally.add(requests=1, bytes=length)
        if location.path is None:
            return get(location, offset, stop, stamp).data
        with ExitStack() as stack:
            file = stack.enter_context(LocalFile(location))
            data = file.read(offset, stop) if compare(stamp, file.stamp) is None else b""
            file.check(stamp)
            path = local_path(location.url)
            if _SHARES_DESCRIPTORS and version is not None and file.is_at(path):
                stack.pop_all()
                self._keep(source.place, file, path, version)
        source.end = stop
        return data

    def _keep(self, place: Place, file: LocalFile, path: str, version: int) -> None:
        """Keep a file open, and let go of the one that was used longest ago if there are too many."""
        place.file, place.path, place.version, place.used = file, path, version, next(self._clock)
        self._opened[place] = None
        while len(self._opened) > OPEN_FILES:
            oldest = min(list(self._opened), key=lambda other: other.used)
            oldest.file = None
            self._opened.pop(oldest, None)


def _ahead(source: Source, offset: int, length: int) -> int:
    """Return how many bytes to read for a range: more with every range that follows on the one before it."""
    if abs(offset - source.end) > max(_GAP, 2 * length) or 4 * length > AHEAD:
        source.ahead = 0
    else:
        source.ahead = min(4 * max(source.ahead, length), AHEAD)
    return source.ahead
