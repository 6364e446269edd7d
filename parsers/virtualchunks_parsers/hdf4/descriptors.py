"""Data descriptors: the directory of an HDF4 file, and the data elements that it leads to.

A descriptor names a data element by tag and reference number and says where its bytes are. Elements whose tag has the
extension bit are *special*: their bytes describe how the data are stored (linked blocks, compressed, chunked).

References
----------
HDF Specification and Developer's Guide 4.2, chapters 2, 9 and 10.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from virtualchunks.errors import FormatError, LimitExceededError
from virtualchunks.reading.reader import ObjectReader

MAGIC = b"\x0e\x03\x13\x01"
EXTENDED = 0x4000
NO_DATA = 0xFFFFFFFF

NULL, LINKED, COMPRESSED = 1, 20, 40
#: The most descriptors that are read.
MOST_DESCRIPTORS = 10_000_000
#: Elements of at most so many bytes are brought into memory together, if their tag may be one of metadata.
SMALL = 4096
_DATA_TAGS = frozenset({LINKED, COMPRESSED, 61, 702, 302})

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Where the bytes of one data element are.

    Attributes
    ----------
    tag, ref
        Its names; the tag without the extension bit.
    special
        Whether the bytes describe the storage.
    offset, length
        In the file; the length is 0 where there is no data.
    """

    tag: int
    ref: int
    special: bool
    offset: int
    length: int


class Unpacker:
    """Big-endian numbers, one after the other, out of the bytes of an element.

    Parameters
    ----------
    data
        The bytes.
    what
        What errors call them.
    url
        The file.
    """

    def __init__(self, data: bytes, what: str, url: str) -> None:
        self._data = data
        self._at = 0
        self._what = what
        self._url = url

    def take(self, form: str) -> tuple[Any, ...]:
        """Return the numbers of a :mod:`struct` format.

        Raises
        ------
        FormatError
            If the bytes end before.
        """
        raw = self.bytes(struct.calcsize(f">{form}"))
        return struct.unpack(f">{form}", raw)

    def one(self, form: str) -> Any:
        """Return one number."""
        return self.take(form)[0]

    def bytes(self, length: int) -> bytes:
        """Return the next bytes."""
        if length < 0 or self._at + length > len(self._data):
            raise FormatError(f"{self._what} of {len(self._data)} bytes is cut short", url=self._url)
        self._at += length
        return self._data[self._at - length : self._at]

    def text(self, form: str = "H") -> str:
        """Return text behind its length."""
        return self.bytes(self.one(form)).decode("utf-8", "replace").rstrip("\0")


class Directory:
    """The descriptors of a file.

    Parameters
    ----------
    reader
        The file.

    Raises
    ------
    FormatError
        If the file is not HDF4, truncated or corrupt.
    """

    def __init__(self, reader: ObjectReader) -> None:
        self.reader = reader
        self.entries: dict[Key, Descriptor] = {}
        start = reader.read_at(0, min(4, reader.size))
        if start != MAGIC:
            raise FormatError(f"not HDF4: it begins with {start!r}, not {MAGIC!r}", url=reader.url)
        self._read()
        small = [
            (entry.offset, entry.length)
            for entry in self.entries.values()
            if entry.length and (entry.special or (entry.tag not in _DATA_TAGS and entry.length <= SMALL))
        ]
        reader.prefetch(small)

    def _read(self) -> None:
        at, seen = 4, set()
        while at:
            if at in seen or at + 6 > self.reader.size:
                raise FormatError(f"the descriptor block at byte {at} is not one", url=self.reader.url)
            seen.add(at)
            count, following = struct.unpack(">HI", self.reader.read_at(at, 6))
            if at + 6 + 12 * count > self.reader.size:
                raise FormatError(
                    f"the descriptor block at byte {at} claims {count} descriptors, more than the file holds",
                    url=self.reader.url,
                )
            self._enter(self.reader.read_at(at + 6, 12 * count))
            if len(self.entries) > MOST_DESCRIPTORS:
                raise LimitExceededError(f"more than {MOST_DESCRIPTORS} descriptors", url=self.reader.url)
            at = following

    def _enter(self, block: bytes) -> None:
        for tag, ref, offset, length in struct.iter_unpack(">HHII", block):
            if tag in (NULL, 0):
                continue
            special = bool(tag & EXTENDED) and not tag & 0x8000
            plain = tag & ~EXTENDED if special else tag
            if NO_DATA in (offset, length):
                offset = length = 0
            if offset + length > self.reader.size:
                raise FormatError(
                    f"the element {plain}/{ref} claims bytes {offset} to {offset + length} of {self.reader.size}: the "
                    "file is truncated or corrupt",
                    url=self.reader.url,
                )
            self.entries.setdefault((plain, ref), Descriptor(plain, ref, special, offset, length))

    def find(self, tag: int, ref: int) -> Descriptor | None:
        """Return the descriptor of an element, if there is one."""
        return self.entries.get((tag, ref))

    def of_tag(self, tag: int) -> list[Descriptor]:
        """Return the descriptors with a tag, in the order of the file."""
        return [entry for entry in self.entries.values() if entry.tag == tag]

    def raw(self, entry: Descriptor) -> bytes:
        """Return the bytes that a descriptor points at."""
        return self.reader.read_at(entry.offset, entry.length)

    def unpack(self, entry: Descriptor) -> Unpacker:
        """Return the bytes that a descriptor points at, for taking numbers out of."""
        return Unpacker(self.raw(entry), f"the element {entry.tag}/{entry.ref}", self.reader.url)
