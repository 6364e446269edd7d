"""Keys of a store: from the key of a chunk to its record by integer arithmetic, from byte requests to ranges.

An array under a path holds the key ``zarr.json`` and one key per chunk, as its chunk key encoding spells them.
Everything here is relative to the array; which array a key belongs to is found in :mod:`virtualchunks.store`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest

from virtualchunks.array import ManifestArray
from virtualchunks.attributes import to_zarr
from virtualchunks.errors import ManifestError
from virtualchunks.lifting import encodings_named
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.sources import SourceTable, Stamp

#: The key of a metadata document, below the path of its node.
DOCUMENT = "zarr.json"
_SEPARATORS = {"default": "/", "v2": "."}
_LONGEST_NUMBER = 18
_KEPT_ROWS = 1024


@dataclass(frozen=True)
class ChunkKeys:
    """A Zarr chunk key encoding: how the index of a chunk is spelled as a key.

    Parameters
    ----------
    name
        ``"default"`` (``c/0/1``) or ``"v2"`` (``0.1``).
    separator
        ``"/"`` or ``"."``; by default that of the encoding.

    Raises
    ------
    ManifestError
        If Zarr has no such encoding.

    Examples
    --------
    >>> ChunkKeys().key((0, 3)), ChunkKeys("v2").key((0, 3)), ChunkKeys("v2").key(())
    ('c/0/3', '0.3', '0')
    >>> ChunkKeys().index("c/0/3", 2), ChunkKeys().index("c/0/03", 2)
    ((0, 3), None)
    """

    name: str = "default"
    separator: str = ""

    def __post_init__(self) -> None:
        if self.name not in _SEPARATORS:
            raise ManifestError(f"unknown chunk key encoding {self.name!r}; known are {sorted(_SEPARATORS)}")
        if not self.separator:
            object.__setattr__(self, "separator", _SEPARATORS[self.name])
        if self.separator not in ("/", "."):
            raise ManifestError(f"chunk keys are separated by '/' or '.', not by {self.separator!r}")

    @classmethod
    def coerce(cls, given: str | Mapping[str, Any] | ChunkKeys) -> ChunkKeys:
        """Return the encoding that a name, or a mapping as zarr takes it, stands for."""
        if isinstance(given, ChunkKeys):
            return given
        if isinstance(given, str):
            return cls(given)
        configuration = given.get("configuration", given)
        return cls(given["name"], configuration.get("separator", ""))

    def to_json(self) -> dict[str, Any]:
        """Return the ``chunk_key_encoding`` member of Zarr v3 array metadata."""
        return {"name": self.name, "configuration": {"separator": self.separator}}

    def key(self, index: Sequence[int]) -> str:
        """Return the key of a chunk."""
        parts = [str(number) for number in index]
        if self.name == "v2":
            return self.separator.join(parts) or "0"
        return self.separator.join(["c", *parts])

    def index(self, key: str, ndim: int) -> tuple[int, ...] | None:
        """Return the index that a key spells, or ``None`` where it spells none of that many dimensions."""
        parts = key.split(self.separator)
        if self.name == "v2":
            if ndim == 0:
                return () if key == "0" else None
        elif parts.pop(0) != "c":
            return None
        if len(parts) != ndim:
            return None
        numbers = []
        for part in parts:
            if (
                not part.isdecimal()
                or not part.isascii()
                or len(part) > _LONGEST_NUMBER
                or (part[0] == "0" and part != "0")
            ):
                return None
            numbers.append(int(part))
        return tuple(numbers)


def clamp(request: ByteRequest | None, length: int) -> tuple[int, int]:
    """Return the part of a value that a byte request asks for, as ``(start, stop)`` within the value.

    Parameters
    ----------
    request
        One of zarr's byte requests; ``None`` for the whole value.
    length
        Length of the value, in bytes.

    Returns
    -------
    tuple of int
        Both from 0 to `length`; equal where nothing of the value is asked for.

    Raises
    ------
    ValueError
        If it is no byte request, a number of it is negative, or its end lies before its start.

    Examples
    --------
    >>> clamp(SuffixByteRequest(4), 10), clamp(RangeByteRequest(8, 99), 10)
    ((6, 10), (8, 10))
    """
    numbers: tuple[int, ...]
    match request:
        case None:
            return 0, length
        case RangeByteRequest(start, stop):
            numbers = (start, stop)
        case OffsetByteRequest(offset):
            numbers = (offset, max(offset, length)) if _whole(offset) else (offset,)
        case SuffixByteRequest(suffix):
            numbers = (max(0, length - suffix), length) if _whole(suffix) else (suffix,)
        case _:
            raise ValueError(f"Unexpected byte_range, got {request!r}; use zarr's byte requests")
    if not all(map(_whole, numbers)):
        raise ValueError(f"Unexpected byte_range, got {request!r}: its numbers must be whole and not negative")
    start, stop = numbers[0], numbers[-1]
    if stop < start:
        raise ValueError(f"Unexpected byte_range, got {request!r}: it ends before it starts")
    return min(start, length), min(stop, length)


def _whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and bool(number >= 0)


@dataclass(frozen=True, eq=False)
class ServedArray:
    """An array as a store serves it: its document, and the keys and lengths of its chunks.

    Attributes
    ----------
    path
        Where it lies in the store.
    array
        The array; packing that all of its chunks share is put back among its attributes.
    keys
        How its chunks are named.
    """

    path: str
    array: ManifestArray
    keys: ChunkKeys

    def __post_init__(self) -> None:
        object.__setattr__(self, "array", self.array.as_stored())

    @cached_property
    def transcodes(self) -> bool:
        """Whether chunks are decoded and served as plain bytes, since no one list of codecs decodes them all."""
        return self.array.is_heterogeneous

    @cached_property
    def shares_blocks(self) -> bool:
        """Whether one block of decoded values may be several chunks."""
        return any(encoding.start is not None for encoding in encodings_named(self.array._parts))

    @cached_property
    def metadata(self) -> ArrayMetadata:
        """The metadata that the served bytes have."""
        return self.array.metadata.transcoded() if self.transcodes else self.array.metadata

    @cached_property
    def document(self) -> dict[str, Any]:
        """The metadata document, as JSON objects."""
        made = self.metadata.to_dict()
        made["chunk_key_encoding"] = self.keys.to_json()
        made["attributes"] = to_zarr(self.metadata.attributes, self.metadata.dtype)
        return made

    @cached_property
    def document_bytes(self) -> bytes:
        """The metadata document, as a store holds it."""
        return json.dumps(self.document).encode()

    @property
    def is_rectilinear(self) -> bool:
        """Whether its chunk grid is beyond zarr's default settings."""
        return not self.array.metadata.grid.is_regular

    def find(self, key: str) -> tuple[int, ...] | None:
        """Return the index of the chunk under a key; ``None`` for no such key, and for a missing chunk."""
        found = self.record(key)
        return None if found is None else found[0]

    def record(self, key: str) -> tuple[tuple[int, ...], tuple[SourceTable, int, int, int]] | None:
        """Return the index and the record of the chunk under a key, as :meth:`find` does."""
        manifest = self.array.manifest
        shape = manifest.shape_chunk_grid
        index = self.keys.index(key, len(shape))
        if index is None:
            return None
        for number, count in zip(index, shape, strict=True):
            if number >= count:
                return None
        found = manifest.record(index)
        return (index, found) if found[1] >= 0 else None

    def source(self, sources: SourceTable, row: int) -> tuple[str, Stamp | None]:
        """Return the URL and the stamp of a row of the source table; those of the last rows asked for are kept."""
        known = self._rows.get(row)
        if known is None or known[0] is not sources:
            if len(self._rows) >= _KEPT_ROWS:
                self._rows.clear()
            known = self._rows[row] = sources, sources.url(row), sources.stamp(row) or None
        return known[1:]

    @cached_property
    def _rows(self) -> dict[int, tuple[SourceTable, str, Stamp | None]]:
        return {}

    @cached_property
    def _bytes_of_each(self) -> int | None:
        """Length of every transcoded chunk, where it is one and known without decoding."""
        grid, dtype = self.metadata.grid, self.metadata.dtype
        if not grid.is_regular or dtype.kind in "OT":
            return None
        return math.prod(grid.chunk_shape) * dtype.itemsize

    def length(self, index: tuple[int, ...]) -> int | None:
        """Return the length of a chunk as it is served; ``None`` where only decoding tells, as for text."""
        if not self.transcodes:
            return self.array.manifest.record(index)[2]
        if self._bytes_of_each is not None:
            return self._bytes_of_each
        if self.metadata.dtype.kind in "OT":
            return None
        return math.prod(self.metadata.grid.nominal_shape(index)) * self.metadata.dtype.itemsize

    def total(self) -> int | None:
        """Return the length of all chunks together, or ``None`` where only one by one tells."""
        records = self.array.manifest.records
        present = records["source"] >= 0
        if not self.transcodes:
            return int(records["length"].sum(where=present, dtype=np.int64))
        return None if self._bytes_of_each is None else self._bytes_of_each * int(np.count_nonzero(present))

    def chunk_keys(self) -> Iterator[str]:
        """Iterate over the keys of the chunks that are not missing, in C order."""
        present = self.array.manifest.present
        for index in zip(*np.nonzero(present), strict=True) if present.ndim else [()] * int(present):
            yield self.keys.key([int(number) for number in index])

    def children(self, below: Sequence[str]) -> Iterator[str]:
        """Iterate over the names directly below the array, or below the leading parts of its chunk keys."""
        present = self.array.manifest.present
        flat = self.keys.separator == "." or present.ndim == 0
        if not below:
            yield DOCUMENT
            if flat:
                yield from self.chunk_keys()
            elif self.keys.name == "default":
                yield from ["c"] if present.any() else []
            else:
                yield from self._numbers_below(())
        elif not flat:
            yield from self._numbers_below(below)

    def _numbers_below(self, below: Sequence[str]) -> Iterator[str]:
        present = self.array.manifest.present
        spelled = "/".join(below)
        lead = self.keys.index(spelled, len(below) - (self.keys.name == "default")) if below else ()
        if lead is None or len(lead) >= present.ndim or any(i >= n for i, n in zip(lead, present.shape, strict=False)):
            return
        rest = present[lead]
        yield from map(str, np.flatnonzero(rest.any(axis=tuple(range(1, rest.ndim)))).tolist())
