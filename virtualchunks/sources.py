"""Source tables: where the bytes of chunks live, which version of them, and how they decode.

A row of a :class:`SourceTable` is either an object elsewhere, named by its URL and the :class:`Stamp` it had when it
was parsed, or bytes held in memory. Each row also names the encoding of the chunks that point at it. Chunk records
(:mod:`virtualchunks.manifest`) point at rows by number, so a URL is kept once per object and never once per chunk.

The table is columnar: strings are packed into one buffer, and a column that no row uses is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.encoding import ChunkEncoding

Int64 = npt.NDArray[np.int64]
#: Stands for "not recorded" in the integer columns of a table.
UNKNOWN = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Stamp:
    """What was known of an object when it was parsed, so that a later reader can tell whether it changed.

    Parameters
    ----------
    size
        Length of the object, in bytes.
    etag
        The entity tag that its store gave it; for a local file, one made from its inode, times and size.
    last_modified
        Time of its last modification, in nanoseconds since 1970-01-01T00:00:00Z.
    version
        The version that its store gave it, where versions are kept.

    Examples
    --------
    >>> bool(Stamp()), bool(Stamp(size=10))
    (False, True)
    """

    size: int | None = None
    etag: str | None = None
    last_modified: int | None = None
    version: str | None = None

    def __bool__(self) -> bool:
        return (self.size, self.etag, self.last_modified, self.version) != (None, None, None, None)


class PackedStrings(Sequence[str]):
    """Many strings in one UTF-8 buffer: 8 bytes for each, beside its text.

    Examples
    --------
    >>> list(PackedStrings.pack(["a", "bc"]))
    ['a', 'bc']
    """

    __slots__ = ("_data", "_ends")

    def __init__(self, data: bytes, ends: Int64) -> None:
        self._data = data
        self._ends = ends

    @classmethod
    def pack(cls, strings: Iterable[str]) -> PackedStrings:
        """Pack strings, in order."""
        encoded = [string.encode() for string in strings]
        ends = np.cumsum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), dtype=np.int64)
        return cls(b"".join(encoded), ends)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = self._ends[index - 1] if index else 0
        return self._data[start : self._ends[index]].decode()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedStrings):
            return NotImplemented
        return self._data == other._data and np.array_equal(self._ends, other._ends)

    def __hash__(self) -> int:
        return hash(self._data)

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return len(self._data) + self._ends.nbytes

    @property
    def packed(self) -> tuple[bytes, Int64]:
        """The UTF-8 text of all strings, and where in it each ends."""
        return self._data, self._ends

    def take(self, rows: npt.NDArray[Any]) -> PackedStrings:
        """Return the strings at `rows`."""
        if len(rows) == len(self) and np.array_equal(rows, np.arange(len(self))):
            return self
        return PackedStrings.pack([self[int(row)] for row in rows])

    @classmethod
    def concat(cls, parts: Sequence[PackedStrings]) -> PackedStrings:
        """Join packed strings end to end."""
        lengths = np.fromiter((len(part._data) for part in parts), dtype=np.int64, count=len(parts))
        counts = np.fromiter((len(part._ends) for part in parts), dtype=np.int64, count=len(parts))
        ends = np.concatenate([part._ends for part in parts]) if parts else np.empty(0, dtype=np.int64)
        ends = ends + np.repeat(np.cumsum(lengths) - lengths, counts)
        return cls(b"".join([part._data for part in parts]), ends)


def _optional_strings(values: Sequence[str | None]) -> PackedStrings | None:
    return PackedStrings.pack([value or "" for value in values]) if any(values) else None


def _optional_ints(values: Sequence[int | None]) -> Int64 | None:
    if all(value is None for value in values):
        return None
    return np.array([UNKNOWN if value is None else value for value in values], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class SourceTable:
    """Where the bytes of chunks live: one row per object or in-memory buffer.

    Use :meth:`single`, :meth:`of_urls`, :meth:`of_buffers` or :meth:`concat` to make one.

    Attributes
    ----------
    urls
        Canonical URL of each row; empty for a row held in memory.
    sizes, last_modified
        Integer columns of the stamps, in bytes and nanoseconds since the epoch; ``None`` where no row has one.
    etags, versions
        Text columns of the stamps; ``None`` where no row has one.
    buffers
        The bytes of the rows that are held in memory.
    encoding_ids
        For each row, 0 for the array's own encoding, or *k* for ``encodings[k - 1]``; ``None`` where all are 0.
    encodings
        The encodings beside the array's own.
    """

    urls: PackedStrings
    sizes: Int64 | None = None
    last_modified: Int64 | None = None
    etags: PackedStrings | None = None
    versions: PackedStrings | None = None
    buffers: Mapping[int, bytes] | None = None
    encoding_ids: npt.NDArray[np.int32] | None = None
    encodings: tuple[ChunkEncoding, ...] = ()

    @classmethod
    def empty(cls) -> SourceTable:
        """Return the table without rows."""
        return cls(PackedStrings(b"", np.empty(0, dtype=np.int64)))

    @classmethod
    def single(cls, url: str, stamp: Stamp | None = None) -> SourceTable:
        """Return the table of one object.

        Parameters
        ----------
        url
            Its canonical URL; see :func:`virtualchunks.urls.canonical_url`.
        stamp
            What was known of it when it was parsed.
        """
        return cls.of_urls([url], [stamp])

    @classmethod
    def of_urls(cls, urls: Sequence[str], stamps: Sequence[Stamp | None] | None = None) -> SourceTable:
        """Return the table of several objects, in order."""
        packed = PackedStrings.pack(urls)
        if stamps is None or not any(stamps):
            return cls(packed)
        known = [stamp if stamp is not None else Stamp() for stamp in stamps]
        return cls(
            packed,
            sizes=_optional_ints([stamp.size for stamp in known]),
            last_modified=_optional_ints([stamp.last_modified for stamp in known]),
            etags=_optional_strings([stamp.etag for stamp in known]),
            versions=_optional_strings([stamp.version for stamp in known]),
        )

    @classmethod
    def of_buffers(cls, buffers: Sequence[bytes]) -> SourceTable:
        """Return the table of several in-memory buffers, in order."""
        return cls(PackedStrings.pack([""] * len(buffers)), buffers=dict(enumerate(buffers)))

    def __len__(self) -> int:
        return len(self.urls)

    def __repr__(self) -> str:
        held = len(self.buffers or ())
        return f"<SourceTable {len(self) - held} objects, {held} in memory, {len(self.encodings) + 1} encodings>"

    def url(self, row: int) -> str:
        """Return the canonical URL of a row; empty where it is held in memory."""
        text: str = self.urls[row]
        return text

    def stamp(self, row: int) -> Stamp:
        """Return what is recorded of a row's object; falsy where nothing is."""
        return Stamp(
            size=_int_at(self.sizes, row),
            etag=(self.etags[row] or None) if self.etags is not None else None,
            last_modified=_int_at(self.last_modified, row),
            version=(self.versions[row] or None) if self.versions is not None else None,
        )

    def buffer(self, row: int) -> bytes | None:
        """Return the bytes of a row held in memory, or ``None`` for an object elsewhere."""
        return None if self.buffers is None else self.buffers.get(row)

    def encoding_id(self, row: int) -> int:
        """Return 0 for the array's own encoding, or *k* for ``encodings[k - 1]``."""
        return 0 if self.encoding_ids is None else int(self.encoding_ids[row])

    @property
    def nbytes(self) -> int:
        """Bytes held in memory by the table, buffers included."""
        columns = (self.urls, self.sizes, self.last_modified, self.etags, self.versions, self.encoding_ids)
        return sum(column.nbytes for column in columns if column is not None) + sum(
            len(buffer) for buffer in (self.buffers or {}).values()
        )

    def take(self, rows: npt.NDArray[Any]) -> SourceTable:
        """Return the table of the rows given by number, in order."""
        buffers = None
        if self.buffers is not None:
            buffers = {new: self.buffers[old] for new, old in enumerate(rows.tolist()) if old in self.buffers} or None
        return SourceTable(
            urls=self.urls.take(rows),
            sizes=None if self.sizes is None else self.sizes[rows],
            last_modified=None if self.last_modified is None else self.last_modified[rows],
            etags=None if self.etags is None else self.etags.take(rows),
            versions=None if self.versions is None else self.versions.take(rows),
            buffers=buffers,
            encoding_ids=None if self.encoding_ids is None else self.encoding_ids[rows],
            encodings=self.encodings,
        )

    @classmethod
    def concat(cls, tables: Sequence[SourceTable]) -> SourceTable:
        """Join tables end to end; the rows of table *i* follow those of table *i - 1*."""
        if len(tables) == 1:
            return tables[0]
        counts = [len(table) for table in tables]
        encodings, encoding_ids = _join_encodings(tables, counts)
        return cls(
            urls=PackedStrings.concat([table.urls for table in tables]),
            sizes=_join_ints([table.sizes for table in tables], counts),
            last_modified=_join_ints([table.last_modified for table in tables], counts),
            etags=_join_strings([table.etags for table in tables], counts),
            versions=_join_strings([table.versions for table in tables], counts),
            buffers=_join_buffers(tables, counts),
            encoding_ids=encoding_ids,
            encodings=encodings,
        )

    def with_encoding(self, encoding: ChunkEncoding, where: npt.NDArray[np.bool_] | None = None) -> SourceTable:
        """Return the table in which the rows with the array's own encoding name `encoding` explicitly.

        Parameters
        ----------
        encoding
            The encoding that the array had.
        where
            The rows to change; by default all that have the encoding id 0.
        """
        ids = np.zeros(len(self), dtype=np.int32) if self.encoding_ids is None else self.encoding_ids.copy()
        number, encodings = _number_of(encoding, self.encodings)
        ids[(ids == 0) if where is None else where] = number
        return self.replace(encoding_ids=ids, encodings=encodings)

    def map_encodings(self, change: Callable[[ChunkEncoding], ChunkEncoding]) -> SourceTable:
        """Return the table with every encoding beside the array's own replaced by ``change(encoding)``."""
        if not self.encodings:
            return self
        return self.replace(encodings=tuple(change(encoding) for encoding in self.encodings))

    def rename(self, new: Callable[[str], str], *, keep_stamps: bool = False) -> SourceTable:
        """Return the table with each URL replaced by ``new(url)``.

        Parameters
        ----------
        new
            From the old URL to the new.
        keep_stamps
            Whether the objects are the very same. By default only their sizes are kept: the rest of a stamp describes
            the old object. Rows whose URL stays keep theirs.
        """
        old = list(self.urls)
        urls = [new(url) if url else url for url in old]
        renamed = self.replace(urls=PackedStrings.pack(urls))
        if keep_stamps or (self.last_modified is None and self.etags is None and self.versions is None):
            return renamed
        stays = [before == after for before, after in zip(old, urls, strict=True)]
        if not any(stays):
            return renamed.replace(last_modified=None, etags=None, versions=None)
        times = None if self.last_modified is None else np.where(stays, self.last_modified, UNKNOWN)
        return renamed.replace(
            last_modified=times, etags=_kept(self.etags, stays), versions=_kept(self.versions, stays)
        )

    def replace(self, **columns: Any) -> SourceTable:
        """Return the table with some columns exchanged."""
        current = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return SourceTable(**{**current, **columns})


def _kept(texts: PackedStrings | None, where: Sequence[bool]) -> PackedStrings | None:
    if texts is None:
        return None
    return PackedStrings.pack([text if kept else "" for text, kept in zip(texts, where, strict=True)])


def _int_at(column: Int64 | None, row: int) -> int | None:
    if column is None or column[row] == UNKNOWN:
        return None
    return int(column[row])


def _number_of(encoding: ChunkEncoding, known: tuple[ChunkEncoding, ...]) -> tuple[int, tuple[ChunkEncoding, ...]]:
    if encoding in known:
        return known.index(encoding) + 1, known
    return len(known) + 1, (*known, encoding)


def _join_ints(columns: Sequence[Int64 | None], counts: Sequence[int]) -> Int64 | None:
    if all(column is None for column in columns):
        return None
    return np.concatenate(
        [
            np.full(count, UNKNOWN, dtype=np.int64) if column is None else column
            for column, count in zip(columns, counts, strict=True)
        ]
    )


def _join_strings(columns: Sequence[PackedStrings | None], counts: Sequence[int]) -> PackedStrings | None:
    if all(column is None for column in columns):
        return None
    return PackedStrings.concat(
        [
            PackedStrings(b"", np.zeros(count, dtype=np.int64)) if column is None else column
            for column, count in zip(columns, counts, strict=True)
        ]
    )


def _join_buffers(tables: Sequence[SourceTable], counts: Sequence[int]) -> dict[int, bytes] | None:
    joined: dict[int, bytes] = {}
    first = 0
    for table, count in zip(tables, counts, strict=True):
        if table.buffers is not None:
            joined.update((first + row, buffer) for row, buffer in table.buffers.items())
        first += count
    return joined or None


def _join_encodings(
    tables: Sequence[SourceTable], counts: Sequence[int]
) -> tuple[tuple[ChunkEncoding, ...], npt.NDArray[np.int32] | None]:
    if all(table.encoding_ids is None for table in tables):
        return (), None
    known: dict[ChunkEncoding, int] = {}
    ids = []
    for table, count in zip(tables, counts, strict=True):
        if table.encoding_ids is None:
            ids.append(np.zeros(count, dtype=np.int32))
            continue
        renumbered = np.zeros(len(table.encodings) + 1, dtype=np.int32)
        for old, encoding in enumerate(table.encodings, 1):
            renumbered[old] = known.setdefault(encoding, len(known) + 1)
        ids.append(renumbered[table.encoding_ids])
    return tuple(known), np.concatenate(ids)
