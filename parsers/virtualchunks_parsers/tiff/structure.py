"""The structure of a TIFF file: header, image file directories and the values of their fields.

Both sizes (TIFF with 32-bit offsets, BigTIFF with 64-bit ones) and both byte orders. Nothing here knows what a field
means, apart from those that lead to further directories.

References
----------
TIFF 6.0 specification, section 2, "TIFF Structure"; the BigTIFF design of Joris Van Damme and AWare Systems; the
Adobe PageMaker 6.0 TIFF technical notes for SubIFDs.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import FormatError
from virtualchunks.reading.reader import ObjectReader

#: Version numbers of the header.
CLASSIC, BIG = 42, 43
#: Directories of one file, counted with those below them; more is a chain gone wrong.
MOST_IFDS = 65_536
#: Fields of one directory.
MOST_FIELDS = 4096
#: Bytes of one text that is kept.
LONGEST_TEXT = 16 << 20
#: What is fetched around a directory that lies behind the beginning of the file: its values are usually near.
BEFORE, BEHIND = 64 << 10, 256 << 10

#: NumPy type and size of the values of a field, by field type (section 2); rationals are pairs.
FIELD_TYPES: Mapping[int, tuple[str, int]] = {
    1: ("u1", 1),  # BYTE
    2: ("S", 1),  # ASCII
    3: ("u2", 2),  # SHORT
    4: ("u4", 4),  # LONG
    5: ("u4", 8),  # RATIONAL
    6: ("i1", 1),  # SBYTE
    7: ("u1", 1),  # UNDEFINED
    8: ("i2", 2),  # SSHORT
    9: ("i4", 4),  # SLONG
    10: ("i4", 8),  # SRATIONAL
    11: ("f4", 4),  # FLOAT
    12: ("f8", 8),  # DOUBLE
    13: ("u4", 4),  # IFD
    16: ("u8", 8),  # LONG8
    17: ("i8", 8),  # SLONG8
    18: ("u8", 8),  # IFD8
}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file of one size and byte order is laid out.

    Parameters
    ----------
    order
        ``"<"`` or ``">"``.
    big
        Whether it is BigTIFF.
    """

    order: Literal["<", ">"]
    big: bool

    @property
    def count_size(self) -> int:
        """Bytes of the number of fields at the beginning of a directory."""
        return 8 if self.big else 2

    @property
    def field_size(self) -> int:
        """Bytes of a field."""
        return 20 if self.big else 12

    @property
    def offset_size(self) -> int:
        """Bytes of an offset, and of a value that is kept in its place."""
        return 8 if self.big else 4

    def integer(self, raw: bytes) -> int:
        """Read an unsigned integer."""
        return int.from_bytes(raw, "little" if self.order == "<" else "big")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a directory: tag, type, number of values, and where they are.

    Parameters
    ----------
    tag, type, count
        As the file has them.
    offset
        Where the values are in the file; within the directory itself if they are short enough.
    """

    tag: int
    type: int
    count: int
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.count * FIELD_TYPES[self.type][1]


class IFD:
    """An image file directory: fields by tag, read when they are asked for.

    Parameters
    ----------
    file
        The file.
    offset
        Where it begins.
    fields
        By tag; of repeated tags the first.
    next_offset
        Where the next of its chain begins; 0 behind the last.
    """

    def __init__(self, file: TIFFFile, offset: int, fields: Mapping[int, Field], next_offset: int) -> None:
        self.file = file
        self.offset = offset
        self.fields = fields
        self.next_offset = next_offset

    def __contains__(self, tag: int) -> bool:
        return tag in self.fields

    def __repr__(self) -> str:
        return f"<IFD at {self.offset}, {len(self.fields)} fields>"

    def values(self, tag: int) -> npt.NDArray[Any]:
        """Return the values of a field as numbers in native byte order; none where the field is absent.

        Raises
        ------
        FormatError
            If the field does not hold numbers, or lies beyond the end of the file.
        """
        field = self.fields.get(tag)
        if field is None:
            return np.empty(0, dtype=np.int64)
        code, _ = FIELD_TYPES[field.type]
        if code == "S":
            raise FormatError(f"field {tag} of the directory at {self.offset} holds text, expected numbers")
        dtype = np.dtype(code).newbyteorder(self.file.layout.order)
        return np.frombuffer(self.file.read(field.offset, field.nbytes), dtype=dtype).astype(dtype.newbyteorder("="))

    def integers(self, tag: int) -> npt.NDArray[np.uint64]:
        """Return the values of a field of unsigned integers.

        Raises
        ------
        FormatError
            If they are something else.
        """
        values = self.values(tag)
        if values.dtype.kind not in "iu" or (values.dtype.kind == "i" and values.size and values.min() < 0):
            raise FormatError(f"field {tag} of the directory at {self.offset} holds no unsigned integers")
        return values.astype(np.uint64)

    def integer(self, tag: int, default: int) -> int:
        """Return the first value of a field of unsigned integers, or `default` where the field is absent or empty."""
        field = self.fields.get(tag)
        if field is None or field.count == 0:
            return default
        return int(self.integers(tag)[0])

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a field; none where it is absent."""
        field = self.fields.get(tag)
        return b"" if field is None else self.file.read(field.offset, field.nbytes)

    def text(self, tag: int) -> str:
        """Return a field of text up to its first zero; UTF-8 where it is that, otherwise Latin-1."""
        field = self.fields.get(tag)
        if field is None or field.nbytes > LONGEST_TEXT:
            return ""
        raw = self.raw(tag).partition(b"\0")[0]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")


class TIFFFile:
    """A TIFF or BigTIFF file.

    Parameters
    ----------
    reader
        Of its bytes.

    Raises
    ------
    FormatError
        If it is something else.
    """

    def __init__(self, reader: ObjectReader) -> None:
        self.reader = reader
        self.layout, self.first_offset = self._header()
        self.seen: set[int] = set()

    def _header(self) -> tuple[Layout, int]:
        """Section 2: byte order, version, offset of the first directory."""
        head = self.read(0, min(16, self.reader.size))
        orders: dict[bytes, Literal["<", ">"]] = {b"II": "<", b"MM": ">"}
        order = orders.get(head[:2])
        if order is None or len(head) < 8:
            raise FormatError(f"not a TIFF file: it begins with {head[:4]!r}", url=self.reader.url)
        version = Layout(order, big=False).integer(head[2:4])
        if version == CLASSIC:
            return Layout(order, big=False), Layout(order, big=False).integer(head[4:8])
        big = Layout(order, big=True)
        if version != BIG or big.integer(head[4:6]) != 8 or len(head) < 16:
            raise FormatError(
                f"not a TIFF file: its header has the version {version}; expected {CLASSIC}, or {BIG} with 8-byte "
                "offsets",
                url=self.reader.url,
            )
        return big, big.integer(head[8:16])

    def read(self, offset: int, length: int) -> bytes:
        """Read a range, exactly.

        Raises
        ------
        FormatError
            If the file ends before.
        """
        if offset + length > self.reader.size:
            raise FormatError(
                f"bytes {offset} to {offset + length} lie beyond the end of the file, which has {self.reader.size} "
                "bytes: it is truncated or corrupt",
                url=self.reader.url,
            )
        return self.reader.read_at(offset, length)

    def directory(self, offset: int) -> IFD:
        """Read the directory at an offset.

        Raises
        ------
        FormatError
            If it is none, lies beyond the end of the file, or was read before.
        """
        if offset in self.seen or len(self.seen) >= MOST_IFDS:
            raise FormatError(f"the directory at {offset} is reached twice, or there are too many", url=self.reader.url)
        self.seen.add(offset)
        layout = self.layout
        if offset < 8:
            raise FormatError(f"no directory can begin at offset {offset}", url=self.reader.url)
        self.reader.prefetch([(max(0, offset - BEFORE), BEFORE + BEHIND)])
        count = layout.integer(self.read(offset, layout.count_size))
        if not 0 < count <= MOST_FIELDS:
            raise FormatError(f"the directory at {offset} claims to have {count} fields", url=self.reader.url)
        start = offset + layout.count_size
        raw = self.read(start, count * layout.field_size)
        fields: dict[int, Field] = {}
        for number in range(count):
            field = self._field(raw, number * layout.field_size, start)
            if field is not None:
                fields.setdefault(field.tag, field)
        return IFD(self, offset, fields, self._next(start + len(raw)))

    def _field(self, raw: bytes, at: int, start: int) -> Field | None:
        """One field; ``None`` where its type is unknown, which readers are told to skip."""
        layout = self.layout
        tag, kind = struct.unpack_from(f"{layout.order}HH", raw, at)
        if kind not in FIELD_TYPES:
            return None
        place = at + layout.field_size - layout.offset_size
        count = layout.integer(raw[at + 4 : place])
        field = Field(tag, kind, count, start + place)
        if field.nbytes <= layout.offset_size:
            return field
        return Field(tag, kind, count, layout.integer(raw[place : place + layout.offset_size]))

    def _next(self, at: int) -> int:
        """Offset of the next directory; a file that ends before it has no more."""
        if at + self.layout.offset_size > self.reader.size:
            return 0
        return self.layout.integer(self.read(at, self.layout.offset_size))

    def chain(self, offset: int, known: Collection[int] = ()) -> tuple[list[IFD], FormatError | None]:
        """Return the directories that follow each other from an offset on, and what ended the chain early, if anything.

        Parameters
        ----------
        offset
            Of the first.
        known
            Offsets of directories that are read otherwise; the chain ends before these.

        Raises
        ------
        FormatError
            If not even the first is a directory.
        """
        found = [self.directory(offset)]
        while found[-1].next_offset and found[-1].next_offset not in known:
            try:
                found.append(self.directory(found[-1].next_offset))
            except FormatError as error:
                return found, error
        return found, None


def recognises(head: bytes) -> bool:
    """Return whether a file begins as TIFF and BigTIFF files do.

    Examples
    --------
    >>> recognises(b"II*\\0"), recognises(b"MM\\0+"), recognises(b"CDF\\1")
    (True, True, False)
    """
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
