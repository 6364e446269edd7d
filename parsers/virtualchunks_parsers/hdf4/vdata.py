"""Vgroups and Vdatas: the trees and tables of an HDF4 file, in which the SD interface keeps names and attributes.

References
----------
HDF Specification and Developer's Guide 4.2, chapter 7 and sections 9.3.10 and 9.3.11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks_parsers.hdf4.descriptors import Descriptor, Directory, Key, Unpacker
from virtualchunks_parsers.hdf4.elements import Pieces, plain

VDATA_HEADER, VDATA, VGROUP = 1962, 1963, 1965

#: NumPy types by the number of the number type, without its flags.
TYPES: dict[int, np.dtype[Any]] = {
    3: np.dtype("S1"),
    4: np.dtype("S1"),
    5: np.dtype("f4"),
    6: np.dtype("f8"),
    20: np.dtype("i1"),
    21: np.dtype("u1"),
    22: np.dtype("i2"),
    23: np.dtype("u2"),
    24: np.dtype("i4"),
    25: np.dtype("u4"),
    26: np.dtype("i8"),
    27: np.dtype("u8"),
}
#: Versions of Vgroups that may have attributes, the flag of those that have, and the bytes from the version on.
WITH_ATTRIBUTES, HAS_ATTRIBUTES, TRAILER = 4, 1, 5
#: Flags of number types.
NATIVE, LITTLE_ENDIAN = 0x1000, 0x4000
#: The largest table that is read whole.
LARGEST = 64 << 20


@dataclass(frozen=True)
class Vgroup:
    """A group: its name and class, and the tags and reference numbers of its members and of its attributes."""

    ref: int
    name: str
    kind: str
    members: list[Key]
    attributes: list[Key]


@dataclass(frozen=True)
class Vdata:
    """A table: its name and class, its records and their type."""

    ref: int
    name: str
    kind: str
    records: int
    dtype: np.dtype[Any]
    interlaced: bool


def read_vgroup(directory: Directory, entry: Descriptor) -> Vgroup:
    """Read the description of a group.

    Raises
    ------
    FormatError
        If it is not one.
    """
    unpack = directory.unpack(entry)
    count = unpack.one("H")
    tags, refs = unpack.take(f"{count}H"), unpack.take(f"{count}H")
    name, kind = unpack.text(), unpack.text()
    members = list(zip(tags, refs, strict=True))
    return Vgroup(entry.ref, name, kind, members, _attributes(unpack, directory.raw(entry)))


def _attributes(unpack: Unpacker, data: bytes) -> list[Key]:
    """Read what stands behind the class: an extension, and since version 4 flags and attributes."""
    if len(data) < TRAILER or int.from_bytes(data[-TRAILER:-3]) < WITH_ATTRIBUTES:
        return []
    unpack.take("HH")
    if not unpack.one("I") & HAS_ATTRIBUTES:
        return []
    return [unpack.take("HH") for _ in range(unpack.one("I"))]


@dataclass(frozen=True)
class VdataHeader:
    """What a table says of itself: its name and class, its records, and its fields.

    Attributes
    ----------
    ref, name, kind
        Its reference number, name and class.
    records, size
        How many records it has, and the bytes of one.
    fields
        For each field: name, number type, and how many values it has.
    interlaced
        Whether records follow each other, and not fields.
    """

    ref: int
    name: str
    kind: str
    records: int
    size: int
    fields: tuple[tuple[str, int, int], ...]
    interlaced: bool


def read_header(directory: Directory, entry: Descriptor) -> VdataHeader:
    """Read what a table says of itself.

    Raises
    ------
    FormatError
        If it is no table.
    """
    unpack = directory.unpack(entry)
    interlace, records, size, count = unpack.take("HIHH")
    types, _sizes, _offsets, orders = (unpack.take(f"{count}H") for _ in range(4))
    names = [unpack.text() for _ in range(count)]
    fields = tuple(zip(names, types, orders, strict=True))
    return VdataHeader(entry.ref, unpack.text(), unpack.text(), records, size, fields, interlace == 0)


def read_vdata(directory: Directory, entry: Descriptor) -> Vdata:
    """Read the description of a table.

    Raises
    ------
    FormatError
        If it is not one.
    UnsupportedFeatureError
        If its fields are of an unknown type.
    """
    header = read_header(directory, entry)
    names = [name for name, *_ in header.fields]
    labels = [f"{number}_{name}" if names.index(name) != number else name for number, name in enumerate(names)]
    parts = [_field(kind, order) for _, kind, order in header.fields]
    try:
        dtype = np.dtype([(label, *part) for label, part in zip(labels, parts, strict=True)])
    except ValueError as error:
        raise FormatError(f"the Vdata {entry.ref} has fields {names}: {error}", url=directory.reader.url) from error
    if dtype.itemsize != header.size:
        raise FormatError(
            f"the Vdata {entry.ref} has records of {header.size} bytes, but fields of {dtype.itemsize}",
            url=directory.reader.url,
        )
    return Vdata(entry.ref, header.name, header.kind, header.records, dtype, header.interlaced)


def _field(kind: int, order: int) -> tuple[Any, ...]:
    dtype = number_type(kind)
    return (f"S{order}",) if dtype.kind == "S" else (dtype, (order,)) if order != 1 else (dtype,)


def number_type(kind: int) -> np.dtype[Any]:
    """Return the NumPy type of a number type, with its byte order.

    Raises
    ------
    UnsupportedFeatureError
        If there is none.
    """
    dtype = TYPES.get(kind & 0xFFF)
    if dtype is None or kind & NATIVE:
        raise UnsupportedFeatureError(f"the unknown number type {kind}")
    return dtype.newbyteorder("<" if kind & LITTLE_ENDIAN else ">")


def read_records(directory: Directory, table: Vdata) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the records of a table.

    Raises
    ------
    FormatError
        If there are fewer than it says.
    LimitExceededError
        If it is out of proportion.
    """
    nbytes = table.records * table.dtype.itemsize
    entry = directory.find(VDATA, table.ref)
    if nbytes == 0 or entry is None:
        return np.empty(0, dtype=table.dtype)
    if nbytes > LARGEST:
        raise LimitExceededError(f"the Vdata {table.name!r} of {nbytes} bytes", url=directory.reader.url)
    found = plain(directory, entry)
    if found.codecs or not table.interlaced:
        raise UnsupportedFeatureError(f"the Vdata {table.name!r}, compressed or field by field")
    data = read_pieces(directory, found.pieces)
    if len(data) < nbytes:
        raise FormatError(f"the Vdata {table.name!r} has {len(data)} bytes, not {nbytes}", url=directory.reader.url)
    return np.frombuffer(data[:nbytes], dtype=table.dtype)


def read_pieces(directory: Directory, pieces: Pieces) -> bytes:
    """Return the bytes of pieces of the file, joined."""
    if sum(length for _, length in pieces) > 4 * LARGEST:
        raise LimitExceededError("scattered data of more than 256 MiB", url=directory.reader.url)
    directory.reader.prefetch(pieces)
    return b"".join(directory.reader.read_at(offset, length) for offset, length in pieces)
