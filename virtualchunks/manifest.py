"""Chunk manifests: one n-dimensional array of records over a table of sources.

A record is ``(source, length, offset)``: 16 bytes that say in which row of the
:class:`~virtualchunks.sources.SourceTable` the chunk's bytes lie and where in it. A missing chunk has the source -1 and
reads as the array's fill value. Virtual chunks, native ones and those held in memory are the same thing here; only the
row they point at differs.

What the chunks mean (shape, dtype, codecs) lives in :mod:`virtualchunks.metadata`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import ManifestError
from virtualchunks.records import (
    MISSING,
    PENDING,
    RECORD,
    WIDE_RECORD,
    Records,
    check_inside,
    check_lengths,
    check_ranges,
    checked_entry,
    chunk_key,
    distinct,
    factorise,
    parse_chunk_key,
    spanned_shape,
)
from virtualchunks.roots import reference_url
from virtualchunks.sources import SourceTable

__all__ = [
    "IN_MEMORY",
    "MISSING",
    "PENDING",
    "RECORD",
    "WIDE_RECORD",
    "ChunkEntry",
    "ChunkManifest",
    "Records",
    "chunk_key",
    "concatenate",
    "parse_chunk_key",
]

#: The path by which :meth:`ChunkManifest.dict` names chunks held in memory.
IN_MEMORY = "__inlined__"

#: How many chunks are looked at in one step, where a step takes memory of its own.
_BLOCK = 65_536


class ChunkEntry(TypedDict, total=False):
    """One chunk as a dictionary: ``path``, ``offset``, ``length``, and ``data`` where it is held in memory."""

    path: str
    offset: int
    length: int
    data: bytes


class ChunkManifest(Mapping[str, ChunkEntry]):
    """Where the bytes of every chunk of an array are.

    As a mapping it leads from Zarr chunk keys such as ``"0.3"`` to entries, and holds the chunks that are not missing.

    Parameters
    ----------
    entries
        Mapping of chunk keys to ``{"path": url, "offset": bytes, "length": bytes}``, or to ``{"data": bytes}`` for
        chunks held in memory. Local paths must be absolute.
    shape
        Number of chunks along each axis; by default the smallest that holds all keys.
    separator
        What stands between the numbers of a key.

    Raises
    ------
    ManifestError
        If a key, an offset or a length is not one, or a key lies outside `shape`.
    URLError
        If a path is not an acceptable URL.

    Examples
    --------
    >>> manifest = ChunkManifest({"0": {"path": "s3://bucket/a.nc", "offset": 100, "length": 8}}, shape=(2,))
    >>> manifest.shape_chunk_grid, len(manifest), manifest["0"]["offset"]
    ((2,), 1, 100)
    """

    __slots__ = ("_records", "_sources")

    _records: Records
    _sources: SourceTable

    def __init__(
        self, entries: Mapping[str, Mapping[str, Any]], shape: Sequence[int] | None = None, separator: str = "."
    ) -> None:
        if shape is None and not entries:
            raise ManifestError("a manifest without chunks needs the shape of its chunk grid: pass shape=")
        indices = [parse_chunk_key(key, separator) for key in entries]
        grid_shape = tuple(shape) if shape is not None else spanned_shape(indices)
        indices = [() if grid_shape == () and index == (0,) else index for index in indices]
        check_inside(indices, grid_shape)
        paths = np.full(grid_shape, "", dtype=object)
        offsets, lengths = np.zeros(grid_shape, dtype=np.int64), np.zeros(grid_shape, dtype=np.int64)
        inlined: dict[tuple[int, ...], bytes] = {}
        for index, (key, entry) in zip(indices, entries.items(), strict=True):
            if entry.get("data") is not None:
                inlined[index] = entry["data"]
                continue
            paths[index], offsets[index], lengths[index] = checked_entry(key, entry)
        made = ChunkManifest.from_arrays(paths=paths, offsets=offsets, lengths=lengths, inlined=inlined)
        self._records, self._sources = made._records, made._sources

    @classmethod
    def from_records(cls, records: Records, sources: SourceTable) -> ChunkManifest:
        """Return the manifest of an array of records, taken as it is.

        Parameters
        ----------
        records
            Array of the chunk grid's shape and of dtype :data:`RECORD` or :data:`WIDE_RECORD`.
        sources
            The table that the records point into.

        Raises
        ------
        ManifestError
            If the dtype is another, or a record points outside `sources`.
        """
        if records.dtype != RECORD and records.dtype != WIDE_RECORD:
            raise ManifestError(f"records have the dtype {RECORD} or {WIDE_RECORD}, found {records.dtype}")
        made = cls._trusted(records, sources)
        rows = made._distinct["source"]
        if rows.size and not (rows.min() >= PENDING and rows.max() < len(sources)):
            raise ManifestError(f"records point outside their table of {len(sources)} sources")
        return made

    @classmethod
    def _trusted(cls, records: Records, sources: SourceTable) -> ChunkManifest:
        self = object.__new__(cls)
        self._records, self._sources = records, sources
        return self

    @classmethod
    def from_arrays(
        cls,
        *,
        paths: npt.ArrayLike,
        offsets: npt.ArrayLike,
        lengths: npt.ArrayLike,
        validate_paths: bool = True,
        inlined: Mapping[tuple[int, ...], bytes] | None = None,
    ) -> ChunkManifest:
        """Return the manifest of columns in the shape of the chunk grid.

        Parameters
        ----------
        paths
            URL of each chunk; the empty string for a missing one.
        offsets, lengths
            Position and length of each chunk in its object, in bytes.
        validate_paths
            Whether to bring the distinct URLs into canonical form. Pass ``False`` only for URLs that are already.
        inlined
            Bytes of the chunks that are held in memory, by chunk index.

        Raises
        ------
        ManifestError
            If the columns differ in shape, or an offset or length is out of range.
        URLError
            If a path is not an acceptable URL.
        """
        names, places = np.asarray(paths), np.asarray(offsets)
        sizes = np.asarray(lengths)
        if not names.shape == places.shape == sizes.shape:
            raise ManifestError(
                f"paths, offsets and lengths differ in shape: {names.shape}, {places.shape}, {sizes.shape}"
            )
        check_ranges(distinct(places), distinct(sizes))
        wide = sizes.size > 0 and int(distinct(sizes).max()) >= 2**32
        records = np.empty(names.shape, dtype=WIDE_RECORD if wide else RECORD)
        sources = factorise(names, records["source"], validate=validate_paths)
        records["length"], records["offset"] = sizes, places
        check_lengths(records)
        made = cls._trusted(records, sources)
        return made.with_buffers(inlined) if inlined else made

    @classmethod
    def missing(cls, shape: Sequence[int]) -> ChunkManifest:
        """Return the manifest in which every chunk is missing, without reserving memory for them."""
        record = np.zeros((), dtype=RECORD)
        record["source"] = MISSING
        return cls._trusted(np.broadcast_to(record, tuple(shape)), SourceTable.empty())

    @classmethod
    def of_buffers(cls, buffers: Sequence[bytes], shape: Sequence[int]) -> ChunkManifest:
        """Return the manifest of chunks held in memory, given in C order; they share one buffer.

        Raises
        ------
        ManifestError
            If their number is not that of the grid's chunks.
        """
        lengths = np.fromiter(map(len, buffers), dtype=np.int64, count=len(buffers))
        records = np.zeros(len(buffers), dtype=RECORD if not len(lengths) or lengths.max() < 2**32 else WIDE_RECORD)
        records["length"], records["offset"] = lengths, np.cumsum(lengths) - lengths
        if len(buffers) != int(np.prod(shape, dtype=np.int64)):
            raise ManifestError(f"{len(buffers)} chunks for a grid of shape {tuple(shape)}")
        return cls._trusted(records.reshape(tuple(shape)), SourceTable.of_buffers([b"".join(buffers)]))

    @property
    def records(self) -> Records:
        """The records, an array of the chunk grid's shape."""
        return self._records

    @property
    def sources(self) -> SourceTable:
        """The table that the records point into."""
        return self._sources

    @property
    def is_deferred(self) -> bool:
        """Whether records are yet to be loaded, as those of a :class:`~virtualchunks.deferred.DeferredManifest`."""
        return False

    @property
    def origin(self) -> str | None:
        """A URL that tells a person which chunks these are: that of the first source; ``None`` where there is none."""
        return next(self.iter_nonempty_paths(), None)

    @property
    def names_encodings(self) -> bool:
        """Whether chunks may decode otherwise than with the encoding of their array."""
        return self._sources.encoding_ids is not None

    def record(self, index: tuple[int, ...]) -> tuple[SourceTable, int, int, int]:
        """Return a table, and the row of it (negative for a missing chunk), the length and the offset of one chunk."""
        return self._sources, *self._records[index].item()

    def select(self, indices: Sequence[npt.NDArray[np.int64]]) -> ChunkManifest:
        """Return the manifest of the chunks at these indices along each axis."""
        records = self._records[np.ix_(*indices)] if indices else self._records
        return ChunkManifest._trusted(records, self._sources)

    @property
    def shape_chunk_grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return self._records.shape

    @property
    def ndim_chunk_grid(self) -> int:
        """Number of axes."""
        return self._records.ndim

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which chunks are not missing, in the shape of the chunk grid."""
        return np.broadcast_to(self._distinct["source"] >= 0, self._records.shape)

    @property
    def _distinct(self) -> Records:
        """The records without repetition: axes along which they are all one record have the length 1.

        Broadcasting repeats records without storing them, which keeps an array of 10**12 missing chunks small.
        """
        return distinct(self._records)

    @property
    def is_pending(self) -> bool:
        """Whether some chunks stand for a last element that only ``np.where`` may fill."""
        return bool(self._records.size and self._distinct["source"].min() == PENDING)

    @property
    def nbytes(self) -> int:
        """Bytes that the manifest itself takes in memory, with its URLs and its in-memory chunks."""
        return self._distinct.nbytes + self._sources.nbytes

    def __len__(self) -> int:
        distinct = self._distinct
        repeated = self._records.size // max(distinct.size, 1)
        return int(np.count_nonzero(distinct["source"] >= 0)) * repeated

    def __iter__(self) -> Iterator[str]:
        for index, _ in self.iter_refs():
            yield chunk_key(index)

    def __getitem__(self, key: str) -> ChunkEntry:
        try:
            index = parse_chunk_key(key)
        except ManifestError as error:
            raise KeyError(key) from error
        index = () if self.ndim_chunk_grid == 0 and index == (0,) else index
        inside = len(index) == self.ndim_chunk_grid and all(
            i < n for i, n in zip(index, self.shape_chunk_grid, strict=True)
        )
        entry = self.get_entry(index) if inside else None
        if entry is None:
            raise KeyError(key)
        return entry

    def get_entry(self, indices: tuple[int, ...]) -> ChunkEntry | None:
        """Return one chunk by its index in the grid, or ``None`` where it is missing."""
        source, length, offset = self._records[indices].item()
        if source < 0:
            return None
        buffer = self._sources.buffer(source)
        if buffer is not None:
            return {"path": IN_MEMORY, "offset": 0, "length": length, "data": buffer[offset : offset + length]}
        return {"path": self._sources.url(source), "offset": offset, "length": length}

    def dict(self) -> dict[str, ChunkEntry]:
        """Return the chunks that are not missing as a dictionary of chunk keys to entries."""
        return dict(self.items())

    def iter_refs(self) -> Iterator[tuple[tuple[int, ...], ChunkEntry]]:
        """Iterate over the index and the entry of every chunk that is not missing."""
        found = np.argwhere(self.present).tolist() if len(self) else []
        for index in map(tuple, found):
            yield index, cast("ChunkEntry", self.get_entry(index))

    def used_rows(self) -> npt.NDArray[np.intp]:
        """Return the numbers of the source rows that some chunk points at, in order."""
        flags = np.zeros(len(self._sources) + 2, dtype=bool)  # the last two stand for chunks that have no row
        source = self._distinct["source"].reshape(-1)
        for start in range(0, source.size, _BLOCK):
            flags[source[start : start + _BLOCK]] = True
        return np.flatnonzero(flags[:-2])

    def iter_nonempty_paths(self) -> Iterator[str]:
        """Iterate over the distinct URLs that the chunks point at."""
        yield from dict.fromkeys(url for url in map(self._sources.url, self.used_rows().tolist()) if url)

    def compact(self) -> ChunkManifest:
        """Return the manifest over just the source rows in use, identical rows merged.

        Slices share the table of the array they were cut from; this lets go of it.
        """
        used = self.used_rows()
        if len(used) == len(self._sources) == 1:
            return self
        table = self._sources.take(used)
        first: dict[tuple[Any, ...], int] = {}
        rows = (first.setdefault(_row_identity(table, row), row) for row in range(len(table)))
        merged = np.fromiter(rows, dtype=np.int64, count=len(table))
        kept, merged = np.unique(merged, return_inverse=True)
        if len(kept) == len(self._sources):
            return self
        renumbered = np.full(len(self._sources) + 2, MISSING, dtype=np.int32)
        renumbered[PENDING] = PENDING
        renumbered[used] = merged
        records = self._distinct.copy()
        records["source"] = renumbered[records["source"]]
        return ChunkManifest._trusted(np.broadcast_to(records, self._records.shape), table.take(kept))

    def with_buffers(self, chunks: Mapping[tuple[int, ...], bytes]) -> ChunkManifest:
        """Return the manifest in which the chunks at these indices are held in memory.

        Raises
        ------
        ManifestError
            If an index lies outside the grid, or a chunk is empty.
        """
        check_inside(list(chunks), self.shape_chunk_grid)
        for index, data in chunks.items():
            if not data:
                raise ManifestError(f"chunk {index} holds no bytes; leave a missing chunk out", chunk=index)
        lengths = [len(data) for data in chunks.values()]
        wide = any(length >= 2**32 for length in lengths) or self._records.dtype == WIDE_RECORD
        records = self._records.astype(WIDE_RECORD if wide else RECORD)
        sources = SourceTable.concat([self._sources, SourceTable.of_buffers([b"".join(chunks.values())])])
        start = 0
        for index, length in zip(chunks, lengths, strict=True):
            records[index] = (len(sources) - 1, length, start)
            start += length
        return ChunkManifest._trusted(records, sources)

    def rename_paths(self, new: str | Callable[[str], str], *, keep_stamps: bool = False) -> ChunkManifest:
        """Return the manifest with the URLs of its objects changed, once per object and not per chunk.

        Parameters
        ----------
        new
            The URL for all chunks, or a function from the old URL to the new.
        keep_stamps
            As for :meth:`SourceTable.rename`.

        Raises
        ------
        URLError
            If a new URL is not acceptable.
        """
        change: Callable[[str], str] = new if callable(new) else lambda _: new
        compact = self.compact() if len(self._sources) > self._records.size else self
        renamed = compact._sources.rename(lambda url: reference_url(change(url)), keep_stamps=keep_stamps)
        return ChunkManifest._trusted(compact._records, renamed)

    def elementwise_eq(self, other: ChunkManifest) -> npt.NDArray[np.bool_]:
        """Return for each chunk whether both manifests point at the same bytes, decoded alike."""
        mine, theirs = self._records, other._records
        numbers: dict[tuple[Any, ...], int] = {}
        codes = [
            np.fromiter(
                (numbers.setdefault(_row_identity(table, row), len(numbers)) for row in range(len(table))),
                dtype=np.int64,
                count=len(table),
            )
            for table in (self._sources, other._sources)
        ]
        missing = (mine["source"] < 0) | (theirs["source"] < 0)
        equal = (mine["offset"] == theirs["offset"]) & (mine["length"] == theirs["length"])
        if codes[0].size and codes[1].size:
            equal &= codes[0][mine["source"]] == codes[1][theirs["source"]]
        equal = np.where(missing, mine["source"] == theirs["source"], equal)
        return self._compare_buffers(other, np.asarray(equal, dtype=bool))

    def _compare_buffers(self, other: ChunkManifest, equal: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Compare by content the in-memory chunks that were packed differently."""
        if self._sources.buffers is None or other._sources.buffers is None:
            return equal
        for index in map(tuple, np.argwhere(~equal).tolist()):
            mine, theirs = self.get_entry(index), other.get_entry(index)
            equal[index] = bool(mine and theirs and "data" in mine and mine.get("data") == theirs.get("data"))
        return equal

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, ChunkManifest):
            return NotImplemented
        if self.shape_chunk_grid != other.shape_chunk_grid:
            return False
        mine, theirs = self._records, other._records
        once = tuple(
            slice(0, 1) if size and not (own or others) else slice(None)
            for size, own, others in zip(mine.shape, mine.strides, theirs.strides, strict=True)
        )
        one, two = (ChunkManifest._trusted(manifest._records[once], manifest._sources) for manifest in (self, other))
        return bool(one.elementwise_eq(two).all())

    __hash__ = None  # type: ignore[assignment]  # it compares by content, which may be large

    def __repr__(self) -> str:
        return f"ChunkManifest<shape={self.shape_chunk_grid}, {len(self._sources)} sources>"

    def __reduce__(self) -> tuple[Any, ...]:
        small = self.compact()
        return _repeated, (np.asarray(small._distinct, order="C"), small._records.shape, small._sources)


def _repeated(records: Records, shape: tuple[int, ...], sources: SourceTable) -> ChunkManifest:
    """Rebuild a manifest from its distinct records."""
    return ChunkManifest._trusted(records if records.shape == shape else np.broadcast_to(records, shape), sources)


def concatenate(manifests: Sequence[ChunkManifest], axis: int) -> ChunkManifest:
    """Join manifests along an axis of their chunk grids. Tables shared by several of them are kept once."""
    tables = {id(manifest._sources): manifest._sources for manifest in manifests}
    dtype = WIDE_RECORD if any(manifest._records.dtype != RECORD for manifest in manifests) else RECORD
    records = np.concatenate([manifest._records for manifest in manifests], axis=axis, dtype=dtype)
    if len(tables) > 1:
        _shift_sources(records, manifests, tables, axis)
    return ChunkManifest._trusted(records, SourceTable.concat(list(tables.values())))


def _shift_sources(
    records: Records, manifests: Sequence[ChunkManifest], tables: Mapping[int, SourceTable], axis: int
) -> None:
    firsts = np.cumsum([0, *map(len, tables.values())])
    starts = dict(zip(tables, firsts.tolist(), strict=False))
    shifts = np.array([starts[id(manifest._sources)] for manifest in manifests], dtype=np.int32)
    counts = np.array([manifest._records.shape[axis] for manifest in manifests])
    ends = np.cumsum(counts)
    source = np.moveaxis(records["source"], axis, 0)
    step = max(1, _BLOCK * len(source) // max(source.size, 1))
    for start in range(0, len(source), step):
        block = source[start : start + step]
        low, high = np.searchsorted(ends, [start, start + len(block) - 1], side="right").tolist()
        owners = slice(low, high + 1)
        within = np.minimum(ends[owners], start + len(block)) - np.maximum(ends[owners] - counts[owners], start)
        shift = np.repeat(shifts[owners], within).reshape(-1, *[1] * (source.ndim - 1))
        np.add(block, shift, out=block, where=block >= 0)


def _row_identity(table: SourceTable, row: int) -> tuple[Any, ...]:
    """What makes two rows the same source, decoded alike."""
    number = table.encoding_id(row)
    encoding = table.encodings[number - 1] if number else None
    return table.url(row), table.buffer(row), table.stamp(row), encoding
