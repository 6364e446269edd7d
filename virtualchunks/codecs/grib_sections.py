"""The sections of GRIB messages, editions 1 and 2: where they are, and messages made of some of them.

Sections are found through a function that reads a range, so that the same walk serves a message in memory and one of
which only the headers are fetched. Nothing is decoded here; what keys mean is ecCodes' business
(:mod:`virtualchunks.codecs.grib_handle`).

Sources: WMO Manual on Codes, FM 92 GRIB edition 2 (sections 0 to 8) and edition 1 (sections 0 to 5).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from virtualchunks.errors import FormatError, LimitExceededError

Read = Callable[[int, int], bytes]

MAGIC = b"GRIB"
END = b"7777"
#: A header section longer than this is none.
LARGEST_HEADER = 16 << 20

#: Edition 2: which section may follow which; after the data of one field comes the next field, or the end.
_FOLLOWS: Mapping[int, frozenset[int]] = {
    0: frozenset({1}),
    1: frozenset({2, 3}),
    2: frozenset({3}),
    3: frozenset({4}),
    4: frozenset({5}),
    5: frozenset({6}),
    6: frozenset({7}),
    7: frozenset({2, 3, 4}),
}
_NO_BITMAP = struct.pack(">IBB", 6, 6, 255)
#: Section 4 of edition 1 for a constant: on a grid, and as spherical harmonics.
_GRID_CONSTANT = bytes([0, 0, 12, 0x08]) + bytes(8)
_SPECTRAL_CONSTANT = bytes([0, 0, 18, 0xC0]) + bytes(14)
_SPECTRAL = frozenset({50, 60, 70, 80})


@dataclass(frozen=True, slots=True)
class Message:
    """One GRIB message.

    Parameters
    ----------
    offset, length
        In bytes, from the magic to the final ``7777``.
    edition
        1 or 2.
    """

    offset: int
    length: int
    edition: int

    @property
    def end(self) -> int:
        """The offset behind its last byte."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its sections, by number, as offset and length.

    Parameters
    ----------
    message
        The message that holds it.
    sections
        Offset and length of each section; in edition 2 those of earlier fields that this one shares.
    bitmap
        In edition 2 the section 6 that holds the bitmap in force, which may be an earlier field's.
    """

    message: Message
    sections: Mapping[int, tuple[int, int]]
    bitmap: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Packing:
    """How the values of a field of edition 2 are packed.

    Parameters
    ----------
    template
        Number of the data representation template.
    decimal_scale
        The power of ten by which values were multiplied; meaningless in templates that do not scale.
    bitmap
        Whether a bitmap says which values are missing; ``None`` where it was not looked at.
    """

    template: int
    decimal_scale: int
    bitmap: bool | None


def message_at(read: Read, offset: int, size: int) -> Message:
    """Return the message that begins at an offset.

    Parameters
    ----------
    read
        Gives ``length`` bytes at ``offset``.
    offset
        Where the magic stands.
    size
        Length of the object.

    Raises
    ------
    FormatError
        If its length is impossible or goes beyond the object, or its edition is neither 1 nor 2.
    """
    head = read(offset, min(16, size - offset))
    if len(head) < 16 or head[:4] != MAGIC:
        raise FormatError(f"no GRIB message at offset {offset}, where {len(head)} bytes are left")
    edition = head[7]
    if edition not in (1, 2):
        raise FormatError(f"the message at offset {offset} is of GRIB edition {edition}; 1 and 2 are read")
    length = int.from_bytes(head[8:16], "big") if edition == 2 else int.from_bytes(head[4:7], "big")
    if edition == 1 and length & 0x800000:
        length = _long_length(read, offset, length, size)
    if length < 8 + 28 + 4 or offset + length > size:
        raise FormatError(
            f"the GRIB message at offset {offset} claims {length} bytes, and {size - offset} are left: "
            "the file is truncated or corrupt"
        )
    return Message(offset, length, edition)


def _long_length(read: Read, offset: int, length: int, size: int) -> int:
    """Edition 1 beyond 8 MiB: the length counts 120 bytes, less what the 'length' of section 4 says."""
    sections = _sections_1(read, offset, size)
    short = int.from_bytes(read(sections[4][0], 3), "big")
    return length if short >= 120 else (length & 0x7FFFFF) * 120 - short + 4


def fields_of(read: Read, message: Message) -> Iterator[Field]:
    """Iterate over the fields of a message.

    Parameters
    ----------
    read
        Gives ``length`` bytes at ``offset``.
    message
        The message.

    Raises
    ------
    FormatError
        If its sections are out of order, empty, or do not fill it.
    """
    if message.edition == 1:
        yield Field(message, _sections_1(read, message.offset, message.end - len(END)))
        return
    sections = {0: (message.offset, 16)}
    bitmap: tuple[int, int] | None = None
    for number, at, length in _walk(read, message):
        sections[number] = (at, length)
        if number == 6 and _read_within(read, at, 6, message.end)[5] == 0:
            bitmap = sections[number]
        if number == 7:
            yield Field(message, dict(sections), bitmap)


def first_headers(read: Read, message: Message) -> Field:
    """Return the first field of a message as far as its headers go: without bitmap and values.

    Parameters
    ----------
    read
        Gives ``length`` bytes at ``offset``.
    message
        The message.

    Raises
    ------
    FormatError
        If its sections are out of order, or end before the values are described.
    """
    if message.edition == 1:
        return next(fields_of(read, message))
    sections = {0: (message.offset, 16)}
    for number, at, length in _walk(read, message):
        sections[number] = (at, length)
        if number == 5:
            break
    return Field(message, sections)


def _walk(read: Read, message: Message) -> Iterator[tuple[int, int, int]]:
    """Number, offset and length of each section of a message of edition 2, up to its end."""
    end = message.end - len(END)
    at, previous = message.offset + 16, 0
    while at < end:
        length, number = struct.unpack(">IB", _read_within(read, at, 5, end))
        if number not in _FOLLOWS[previous] or length < 5 or at + length > end:
            raise FormatError(
                f"section {number} of {length} bytes at offset {at}, behind section {previous}, is not one of the GRIB "
                f"message at offset {message.offset}: it is corrupt"
            )
        yield number, at, length
        at, previous = at + length, number
    if at != end or previous != 7:
        raise FormatError(f"the GRIB message at offset {message.offset} ends behind section {previous}: it is corrupt")


def _sections_1(read: Read, offset: int, end: int) -> dict[int, tuple[int, int]]:
    """Sections of a message of edition 1; the length of section 4 is what is there."""
    at = offset + 8
    length = int.from_bytes(_read_within(read, at, 3, end), "big")
    if length < 28:
        raise FormatError(f"section 1 of the GRIB message at offset {offset} claims {length} bytes: it is corrupt")
    flag = _read_within(read, at, 8, end)[7]
    sections = {0: (offset, 8), 1: (at, length)}
    at += length
    for number, bit, least in ((2, 0x80, 11), (3, 0x40, 6)):
        if flag & bit:
            length = int.from_bytes(_read_within(read, at, 3, end), "big")
            if length < least:
                raise FormatError(f"section {number} at offset {at} claims {length} bytes: the message is corrupt")
            sections[number] = (at, length)
            at += length
    if at + 11 > end:
        raise FormatError(f"the GRIB message at offset {offset} ends before its data: it is corrupt")
    sections[4] = (at, end - at)
    return sections


def _read_within(read: Read, at: int, length: int, end: int) -> bytes:
    if at + length > end:
        raise FormatError(f"a GRIB section at offset {at} goes beyond its message, which ends at {end}: it is corrupt")
    return read(at, length)


def header_message(read: Read, field: Field) -> bytes:
    """Return a message with the headers of a field and a constant in place of its values.

    ecCodes reads every key from it that does not depend on the values, and computes the coordinates of its grid.

    Parameters
    ----------
    read
        Gives ``length`` bytes at ``offset``.
    field
        The field.

    Raises
    ------
    FormatError, LimitExceededError
        If a section is too short or too long for what it is.
    """
    return _HEADERS[field.message.edition](lambda number: _section(read, field, number))


def packing_of(read: Read, field: Field) -> Packing | None:
    """Return how the values of a field of edition 2 are packed, and ``None`` in edition 1."""
    if field.message.edition == 1:
        return None
    at, length = field.sections[5]
    section = read(at, min(length, 19)).ljust(19, b"\0")
    bitmap = read(field.sections[6][0] + 5, 1) != b"\xff" if 6 in field.sections else None
    scale = int.from_bytes(section[17:19], "big")
    return Packing(int.from_bytes(section[9:11], "big"), -(scale & 0x7FFF) if scale & 0x8000 else scale, bitmap)


def _section(read: Read, field: Field, number: int) -> bytes:
    if number not in field.sections:
        return b""
    offset, length = field.sections[number]
    if length > LARGEST_HEADER:
        raise LimitExceededError(f"section {number} at offset {offset} has {length} bytes, no header is that long")
    return read(offset, length)


def _headers_1(section: Callable[[int], bytes]) -> bytes:
    product, grid = bytearray(section(1)), section(2)
    product[7] &= 0x80
    spectral = len(grid) > 5 and grid[5] in _SPECTRAL
    data = _SPECTRAL_CONSTANT if spectral else _GRID_CONSTANT
    body = bytes(product) + grid + data + END
    return MAGIC + (8 + len(body)).to_bytes(3, "big") + b"\1" + body


def _headers_2(section: Callable[[int], bytes]) -> bytes:
    grid = section(3)
    if len(grid) < 14:
        raise FormatError(f"section 3 has {len(grid)} bytes, fewer than its fixed part: the message is corrupt")
    constant = struct.pack(">IB4sHfHHBB", 21, 5, grid[6:10], 0, 0.0, 0, 0, 0, 0)
    parts = [section(1), section(2), grid, section(4), constant, _NO_BITMAP, struct.pack(">IB", 5, 7)]
    return _message_2(section(0), parts)


_HEADERS: Mapping[int, Callable[[Callable[[int], bytes]], bytes]] = {1: _headers_1, 2: _headers_2}


def _message_2(indicator: bytes, parts: list[bytes]) -> bytes:
    body = b"".join(parts) + END
    return indicator[:8] + struct.pack(">Q", 16 + len(body)) + body


def field_message(data: bytes, index: int = 0) -> bytes:
    """Return a message that holds one field of a message, and nothing else.

    Parameters
    ----------
    data
        The whole message.
    index
        Number of the field in the message.

    Raises
    ------
    FormatError
        If the message is corrupt or has no such field.
    """

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    message = message_at(read, 0, len(data))
    if message.length != len(data) or not data.endswith(END):
        raise FormatError(f"{len(data)} bytes are not one GRIB message: it has {message.length}, ending with 7777")
    fields = list(fields_of(read, message))
    if not 0 <= index < len(fields):
        raise FormatError(f"field {index} of a GRIB message that has {len(fields)}")
    if len(fields) == 1:
        return data
    field = fields[index]
    places = {**field.sections, 6: _bitmap(read, field)}
    parts = [data[at : at + length] for at, length in (places[number] for number in sorted(places) if number)]
    return _message_2(data[:16], parts)


def _bitmap(read: Read, field: Field) -> tuple[int, int]:
    """Where the bitmap in force is: section 6 of the field itself, unless it names that of an earlier field."""
    own = field.sections[6]
    if read(own[0], 6)[5] != 254:
        return own
    if field.bitmap is None:
        raise FormatError("a field reuses the bitmap of an earlier one, and there is none: the message is corrupt")
    return field.bitmap
