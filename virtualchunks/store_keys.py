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
from operator import lt
from typing import Any, NamedTuple

import numpy as np
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest

from virtualchunks.array import ManifestArray
from virtualchunks.attributes import to_zarr
from virtualchunks.errors import ManifestError
from virtualchunks.lifting import encodings_named
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.sources import SourceTable

#: The key of a metadata document, below the path of its node.
DOCUMENT = "zarr.json"
_SEPARATORS = {"default": "/", "v2": "."}
_NO_NUMBER = 2**63


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
        if ndim == 0:
            return () if key == self.key(()) else None
        lead = self.lead
        return self.numbers(key[len(lead) :], ndim) if key.startswith(lead) else None

    @property
    def lead(self) -> str:
        """What the key of every chunk begins with, unless the array has no dimensions."""
        return "" if self.name == "v2" else f"c{self.separator}"

    def numbers(self, spelled: str, ndim: int) -> tuple[int, ...] | None:
        """Return the index that is spelled by a key without its lead, as :meth:`index` does."""
        try:
            found = tuple(map(int, spelled.split(self.separator)))
        except ValueError:
            return None
        # int() takes more spellings than one: only the one that the number itself has is a key
        if len(found) != ndim or "-" in spelled or self.separator.join(map(str, found)) != spelled:
            return None
        return found if max(found) < _NO_NUMBER else None


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
        found = self.reference(key)
        return None if found is None else found.chunk

    @cached_property
    def prefix(self) -> str:
        """What the keys of its chunks begin with; nothing does where it has no dimensions."""
        return f"{self.path}/{self.keys.lead}" if self._shape else "/"

    def reference(self, key: str) -> Reference | None:
        """Return the chunk under a key; ``None`` as :meth:`find` does."""
        return self._reference(self.index(key))

    def index(self, key: str) -> tuple[int, ...] | None:
        """Return the index of the chunk that a key spells, missing or not; ``None`` where it is none of the array."""
        return self._inside(self.keys.index(key, len(self._shape)))

    def spelled(self, numbers: str) -> Reference | None:
        """Return the chunk whose key is :attr:`prefix` and these numbers; ``None`` as :meth:`find` does."""
        return self._reference(self._inside(self.keys.numbers(numbers, len(self._shape))))

    def _inside(self, index: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if index is None or not all(map(lt, index, self._shape)) else index

    def _reference(self, index: tuple[int, ...] | None) -> Reference | None:
        if index is None:
            return None
        sources, row, length, offset = self.array.manifest.record(index)
        return Reference(self, index, sources, row, length, offset) if row >= 0 else None

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return self.array.manifest.shape_chunk_grid

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


class Reference(NamedTuple):
    """One chunk of an array that a store serves: where its bytes are."""

    served: ServedArray
    chunk: tuple[int, ...]
    sources: SourceTable
    row: int
    length: int
    offset: int
