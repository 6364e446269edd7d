"""The bytes of an HDF5 file, by address; every read is checked against the size of the file.

A remote file of up to 1 MiB and a small local one are read at once. A larger local one is read by blocks, through the
descriptor that was stamped; of a larger remote one, what is missing is fetched in rounds: a task that lacks bytes is
interrupted, all that wait are served together, and then begin anew. So the number of round trips is that of the levels
of the metadata and not that of its structures.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from virtualchunks.errors import FormatError, LimitExceededError, VirtualChunksError
from virtualchunks.reading.reader import FIRST, ObjectReader

#: Grain of the cache of a large local file.
BLOCK = 64 << 10
#: A local file that is not larger is read whole.
SMALL = 4 * BLOCK
#: Blocks that are kept.
MOST_BLOCKS = 1024
#: What is fetched of a remote file at least, where it is not known yet how long a structure is.
AHEAD = 1024
#: Rounds of requests that one file may take.
MOST_ROUNDS = 10_000
#: What a round fetches beyond what is asked for, at most: the later the round, the more, since a chain of structures
#: that lead to one another is likely to go on nearby. A round trip costs about as much.
MOST_AHEAD = 1 << 20
#: What reading damaged structures may raise besides errors of ours.
DAMAGE = (ValueError, LookupError, TypeError, OverflowError)
#: A structure of metadata longer than this is damaged; the largest are pages of chunk indexes and local heaps.
MOST_BYTES = 1 << 30

#: A piece of work over the content: it returns further ones.
Task = Callable[[], Iterable["Task"]]


class Unhandled(Exception):  # noqa: N818 - nothing is wrong, something else reads the file
    """The file has a form that is not read here; the HDF5 library reads it."""


class Missing(Exception):  # noqa: N818 - nothing is wrong, the task goes on later
    """A task needs bytes that are not here yet.

    Attributes
    ----------
    ranges
        ``(start, stop)`` of each in the file.
    """

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        super().__init__(ranges)
        self.ranges = ranges


class Sizes(NamedTuple):
    """How many bytes addresses and lengths have in a file; section II.A, "Size of Offsets", "Size of Lengths"."""

    offset: int
    length: int

    @property
    def undefined(self) -> int:
        """The address that stands for none."""
        return (1 << 8 * self.offset) - 1


class Content:
    """The bytes of one file.

    Parameters
    ----------
    reader
        The file.

    Attributes
    ----------
    url, size
        Of the file.
    base, sizes
        Where the addresses of the file count from, and how long they are; the superblock says it, see
        :mod:`~virtualchunks_parsers.hdf5.format.superblock`.
    """

    def __init__(self, reader: ObjectReader) -> None:
        self.url = reader.url
        self.size = reader.size
        self.base = 0
        self.sizes = Sizes(8, 8)
        self._whole: bytes | None = None
        self._source: _Blocks | _Pieces | None = None
        if self.size <= (SMALL if reader.is_local else FIRST):
            self._whole = reader.read_at(0, self.size)
        else:
            self._source = _Blocks(reader) if reader.is_local else _Pieces(reader)

    def read(self, address: int, length: int, what: str, ahead: int = AHEAD) -> bytes:
        """Read what stands at an address.

        Parameters
        ----------
        address, length
            As the file has them.
        what
            What it is, for errors.
        ahead
            How many bytes are fetched from there at least, where they must be fetched.

        Raises
        ------
        FormatError
            If the file ends before.
        """
        start = self.base + address
        stop = start + length
        if address < 0 or length < 0 or stop > self.size or length > MOST_BYTES:
            raise self.beyond(address, length, what)
        if self._whole is not None:
            return self._whole[start:stop]
        assert self._source is not None
        return self._source.read(start, stop, min(max(stop, start + ahead), self.size))

    def read_all(self, addresses: Sequence[int], length: int, what: str) -> list[bytes]:
        """Read as many bytes at each of several addresses; fewer only at the end of the file."""
        self.require([(address, length) for address in addresses], what)
        return [self.read(address, min(length, self.size - self.base - address), what, length) for address in addresses]

    def require(self, ranges: Sequence[tuple[int, int]], what: str) -> None:
        """Let what stands at several addresses be here, each given with its length."""
        if isinstance(self._source, _Pieces):
            self._source.require([self._span(address, length, what) for address, length in ranges])

    def each[T, R](self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Apply a function to items that are read independently; the bytes that they lack are fetched together."""
        if not isinstance(self._source, _Pieces):
            return [function(item) for item in items]
        found: list[R] = []
        missing: list[tuple[int, int]] = []
        for item in items:
            try:
                found.append(function(item))
            except Missing as lacking:
                missing += lacking.ranges
        if missing:
            raise Missing(missing)
        return found

    def both[A, B](self, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
        """Read two things that do not depend on one another; the bytes that they lack are fetched together."""
        reads: list[Callable[[], object]] = [first, second]
        if isinstance(self._source, _Pieces):
            self.each(lambda read: read(), reads)
        return first(), second()

    def beyond(self, address: int, length: int, what: str) -> FormatError:
        """Return the error for a structure that does not lie in the file."""
        return FormatError(
            f"{what} at address {address} takes {length} bytes, but the file ends at {self.size}: it is truncated or "
            "corrupt",
            url=self.url,
        )

    def check_room(self, nbytes: int, what: str) -> None:
        """Raise if structures that do not overlap in sound files take more bytes than the file has.

        Raises
        ------
        FormatError
            If they do: they would be read many times over.
        """
        if nbytes > self.size:
            raise FormatError(
                f"{what} of {nbytes} bytes in all, in a file of {self.size}: they overlap, and the file is corrupt",
                url=self.url,
            )

    def damaged(self, what: str, address: int, detail: str) -> FormatError:
        """Return the error for a structure that is not what it has to be."""
        return FormatError(f"{what} at address {address} {detail}: the file is corrupt", url=self.url)

    def run(self, tasks: Iterable[Task]) -> None:
        """Run tasks, and those that they lead to, so that reading their bytes again costs no request.

        Only the bytes of a large remote file have to be waited for; of any other file, nothing is run. What a task
        finds to be damaged is left to whoever reads it in earnest.
        """
        if isinstance(self._source, _Pieces):
            self._source.run(list(tasks))

    def _span(self, address: int, length: int, what: str) -> tuple[int, int]:
        start = self.base + address
        if address < 0 or start >= self.size:
            raise self.beyond(address, length, what)
        return start, min(start + length, self.size)


class _Blocks:
    """A large local file: blocks, kept up to a number."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._blocks: dict[int, bytes] = {}

    def read(self, start: int, stop: int, ahead: int) -> bytes:
        number = start // BLOCK
        first = number * BLOCK
        if stop - first > BLOCK:
            return self._reader.read_at(start, stop - start)
        block = self._blocks.get(number)
        if block is None:
            if len(self._blocks) >= MOST_BLOCKS:
                self._blocks.clear()
            block = self._blocks[number] = self._reader.read_at(first, min(BLOCK, self._reader.size - first))
        return block[start - first : stop - first]


class _Pieces:
    """A large remote file: its beginning, and the pieces that were fetched, none of which overlap."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._starts = [0]
        self._pieces = {0: reader.read_at(0, FIRST)}
        self._waits = False

    def read(self, start: int, stop: int, ahead: int) -> bytes:
        first = self._starts[bisect_right(self._starts, start) - 1]
        piece = self._pieces[first]
        if stop - first <= len(piece):
            return piece[start - first : stop - first]
        if self._gaps(start, stop):
            self.require([(start, ahead)])
        return self._joined(start, stop)

    def require(self, spans: list[tuple[int, int]]) -> None:
        missing = [span for span in spans if self._gaps(*span)]
        if missing and self._waits:
            raise Missing(missing)
        if missing:
            self._fetch(missing)

    def run(self, tasks: list[Task]) -> None:
        self._waits = True
        try:
            for number in range(MOST_ROUNDS):
                tasks, spans = self._round(tasks)
                if not tasks:
                    return
                least = min(AHEAD << number // 2, MOST_AHEAD // len(spans))
                self._fetch((start, min(max(stop, start + least), self._reader.size)) for start, stop in spans)
        finally:
            self._waits = False
        raise LimitExceededError(f"metadata nested more than {MOST_ROUNDS} deep", url=self._reader.url)

    def _round(self, tasks: list[Task]) -> tuple[list[Task], set[tuple[int, int]]]:
        """Run what can be run; return the tasks that wait, and what for."""
        waiting, ranges = [], []
        while tasks:
            task = tasks.pop()
            try:
                tasks += task()
            except Missing as missing:
                waiting.append(task)
                ranges += missing.ranges
            except (VirtualChunksError, Unhandled, *DAMAGE):
                continue
        return waiting, set(ranges)

    def _gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What is not here of a range."""
        gaps = []
        number = bisect_right(self._starts, start) - 1
        while start < stop:
            first = self._starts[number]
            end = first + len(self._pieces[first])
            behind = self._starts[number + 1] if number + 1 < len(self._starts) else stop
            start = max(start, end)
            if start < min(behind, stop):
                gaps.append((start, min(behind, stop)))
            start, number = max(start, behind), number + 1
        return gaps

    def _joined(self, start: int, stop: int) -> bytes:
        """A range that is here in several pieces."""
        parts = []
        number = bisect_right(self._starts, start) - 1
        while start < stop:
            first = self._starts[number]
            part = self._pieces[first][start - first : stop - first]
            parts.append(part)
            start, number = start + len(part), number + 1
        return b"".join(parts)

    def _fetch(self, spans: Iterable[tuple[int, int]]) -> None:
        wanted = {gap for span in set(spans) for gap in self._gaps(*span)}
        for start, data in self._reader.fetch((start, stop - start) for start, stop in wanted):
            for first, last in self._gaps(start, start + len(data)):
                self._pieces[first] = data[first - start : last - start]
                insort(self._starts, first)
