"""Bodies of datatype messages → types of elements, taken apart without the HDF5 library.

A :class:`Datatype` answers what h5py's ``TypeID`` answers, by the same names, so that the rules of
:mod:`virtualchunks_parsers.hdf5.datatypes` hold for both. Numbers of a layout that NumPy has not, and what h5py has no
dtype for, are known to be well-formed here and left to the HDF5 library otherwise.

References
----------
HDF5 File Format Specification, version 3.0, section IV.A.2.d, "The Datatype Message".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
from h5py import h5t

from virtualchunks.errors import FormatError, VirtualChunksError
from virtualchunks_parsers.hdf5.datatypes import Element, describe, element_of
from virtualchunks_parsers.hdf5.file import LIBRARY_ERRORS, text
from virtualchunks_parsers.hdf5.format.content import Unhandled
from virtualchunks_parsers.hdf5.format.fields import Fields, decoded_once
from virtualchunks_parsers.hdf5.format.messages import MOST_DIMENSIONS

DType = np.dtype[Any]

#: Classes, numbered alike in files and in the library.
FIXED_POINT, FLOATING_POINT, TIME, STRING, BIT_FIELD, OPAQUE = range(6)
COMPOUND, REFERENCE, ENUMERATION, VARIABLE_LENGTH, ARRAY, COMPLEX = range(6, 12)

#: Types within types.
DEEPEST = 32
#: Bytes of an element.
MOST_BYTES = 2**31 - 1
NULL_TERMINATED, NULL_PADDED, SPACE_PADDED = range(3)

#: Size and, bit by bit, layout of the floats of IEEE: bit offset, precision, exponent, mantissa, bias, sign.
_IEEE = {
    (2, 0, 16, 10, 5, 0, 10, 15, 15),
    (4, 0, 32, 23, 8, 0, 23, 127, 31),
    (8, 0, 64, 52, 11, 0, 52, 1023, 63),
}
_TIMES = re.compile(rb"NUMPY:([<>|]?[mM]8(?:\[\d*[A-Za-z]+\])?)")


class Member(NamedTuple):
    """A field of a compound."""

    name: bytes
    offset: int
    datatype: Datatype


@dataclass(frozen=True, eq=False)
class Datatype:
    """What elements are.

    Attributes
    ----------
    type_class
        Its class, as the library has it: text of variable length is a string.
    size
        Bytes of an element as stored.
    number
        Of numbers, bit fields and opaque elements, NumPy's dtype; ``None`` where NumPy has none.
    order
        0 for little-endian, 1 for big-endian.
    padding, charset
        Of text.
    is_variable
        Whether it is text of variable length.
    base
        Type of the elements of an array, a sequence, an enumeration or a complex number.
    shape
        Of an array.
    members
        Of a compound.
    is_boolean
        Whether it is the enumeration by which h5py stores booleans.
    tag
        Of opaque elements.
    """

    type_class: int
    size: int
    number: DType | None = None
    order: int = 0
    padding: int = NULL_PADDED
    charset: int = 0
    is_variable: bool = False
    base: Datatype | None = None
    shape: tuple[int, ...] = ()
    members: tuple[Member, ...] = ()
    is_boolean: bool = False
    tag: bytes = b""

    @cached_property
    def dtype(self) -> DType:
        """The dtype in which h5py has such elements, without its annotations.

        Raises
        ------
        Unhandled
            If only the library can tell.
        """
        return _DTYPES.get(self.type_class, _number_dtype)(self)

    @cached_property
    def has_heap(self) -> bool:
        """Whether values stand apart, in the global heap."""
        if self.is_variable or self.type_class == VARIABLE_LENGTH:
            return True
        if self.base is not None:
            return self.base.has_heap
        return any(member.datatype.has_heap for member in self.members)

    def get_class(self) -> int:
        """Return its class."""
        return self.type_class

    def get_size(self) -> int:
        """Return the bytes of an element."""
        return self.size

    def get_order(self) -> int:
        """Return its byte order."""
        return self.order

    def get_strpad(self) -> int:
        """Return how text is padded."""
        return self.padding

    def is_variable_str(self) -> bool:
        """Return whether it is text of variable length."""
        return self.is_variable

    def get_super(self) -> Datatype:
        """Return the type that it is made from."""
        if self.base is None:
            raise Unhandled(f"a datatype of class {self.type_class} made from none")
        return self.base

    def get_array_dims(self) -> tuple[int, ...]:
        """Return the shape of an array."""
        return self.shape

    def get_nmembers(self) -> int:
        """Return the number of fields."""
        return len(self.members)

    def get_member_name(self, number: int) -> bytes:
        """Return the name of a field."""
        return self.members[number].name

    def get_member_type(self, number: int) -> Datatype:
        """Return the type of a field."""
        return self.members[number].datatype

    def get_member_offset(self, number: int) -> int:
        """Return where in the element a field begins."""
        return self.members[number].offset


@decoded_once
def datatype(body: bytes) -> Datatype:
    """Return the type that a datatype message describes.

    Raises
    ------
    FormatError
        If the body is too short for what it announces.
    """
    return _datatype(Fields(body, "a datatype message"), 0)


@decoded_once
def element(body: bytes) -> Element:
    """Return what elements of the type in a datatype message are.

    Raises
    ------
    UnsupportedFeatureError
        If no Zarr data type can hold them.
    FormatError
        If the body is damaged.
    """
    fields = Fields(body, "a datatype message")
    found = _datatype(fields, 0)
    try:
        return describe(found)
    except Unhandled:
        return _element_of_library(body[: fields.at])


def _element_of_library(body: bytes) -> Element:
    """Ask the HDF5 library; the two bytes before the message are those that ``H5Tencode`` writes."""
    try:
        return element_of(h5t.decode(b"\x03\x00" + body))
    except VirtualChunksError:
        raise
    except LIBRARY_ERRORS as error:
        raise FormatError(f"a datatype message of {len(body)} bytes that the HDF5 library refuses: {error}") from error


# ---------------------------------------------------------------------------------------------------- the message

_HEAD = Struct("<4BI")
_BITS = Struct("<2H")
_FLOAT = Struct("<2H4BI")
_OLD_MEMBER = Struct("<IB3xI4x4I")


class _Head(NamedTuple):
    """The first eight bytes: version, the three bytes of bits by class, and the size."""

    version: int
    bits: tuple[int, int, int]
    size: int

    @property
    def members(self) -> int:
        """Number of members, of those that have some."""
        return self.bits[0] | self.bits[1] << 8


def _datatype(fields: Fields, depth: int) -> Datatype:
    if depth > DEEPEST:
        raise Unhandled(f"datatypes nested more than {DEEPEST} deep")
    first, *bits, size = fields.unpack(_HEAD)
    version, type_class = first >> 4, first & 15
    if not 1 <= version <= 5 or type_class not in _CLASSES:
        raise Unhandled(f"a datatype message of version {version} and class {type_class}")
    if not size:
        raise FormatError("a datatype message: elements of 0 bytes")
    if size > MOST_BYTES:
        raise Unhandled(f"elements of {size} bytes, for which NumPy has no dtype")
    return _CLASSES[type_class](fields, _Head(version, (bits[0], bits[1], bits[2]), size), depth)


def _fixed_point(fields: Fields, head: _Head, depth: int) -> Datatype:
    offset, precision = fields.unpack(_BITS)
    usual = offset == 0 and precision == 8 * head.size and head.size in (1, 2, 4, 8)
    code = f"{_order(head)}{'i' if head.bits[0] & 8 else 'u'}{head.size}"
    return Datatype(FIXED_POINT, head.size, np.dtype(code) if usual else None, head.bits[0] & 1)


def _floating_point(fields: Fields, head: _Head, depth: int) -> Datatype:
    layout = (head.size, *fields.unpack(_FLOAT), head.bits[1])
    usual = layout in _IEEE and head.bits[0] >> 4 & 3 == 2 and not head.bits[0] & 0x40
    number = np.dtype(f"{_order(head)}f{head.size}") if usual else None
    return Datatype(FLOATING_POINT, head.size, number, head.bits[0] & 1)


def _time(fields: Fields, head: _Head, depth: int) -> Datatype:
    fields.take(2)
    return Datatype(TIME, head.size)


def _string(fields: Fields, head: _Head, depth: int) -> Datatype:
    return Datatype(STRING, head.size, padding=head.bits[0] & 15, charset=head.bits[0] >> 4)


def _bit_field(fields: Fields, head: _Head, depth: int) -> Datatype:
    usual = fields.unpack(_BITS) == (0, 8 * head.size) and head.size in (1, 2, 4, 8)
    number = np.dtype(f"{_order(head)}u{head.size}") if usual else None
    return Datatype(BIT_FIELD, head.size, number, head.bits[0] & 1)


def _opaque(fields: Fields, head: _Head, depth: int) -> Datatype:
    tag = fields.take(head.bits[0]).partition(b"\0")[0]
    number: DType | None = np.dtype(f"V{head.size}")
    if tag.startswith(b"NUMPY:"):
        time = _TIMES.fullmatch(tag)
        number = _time_dtype(time[1].decode("ascii")) if time is not None and head.size == 8 else None
    return Datatype(OPAQUE, head.size, number, tag=tag)


def _time_dtype(code: str) -> DType | None:
    try:
        return np.dtype(code)
    except TypeError:
        return None


def _compound(fields: Fields, head: _Head, depth: int) -> Datatype:
    if not head.members:
        raise FormatError("a datatype message: a compound without members")
    width = (head.size.bit_length() + 7) // 8
    members = []
    for _ in range(head.members):
        begin = fields.at
        name = fields.until_nul()
        if head.version < 3:
            fields.at += -(fields.at - begin) % 8
        if head.version == 1:
            offset, rank, _, *shape = fields.unpack(_OLD_MEMBER)
        else:
            offset, rank, shape = fields.number(width if head.version > 2 else 4), 0, []
        kind = _datatype(fields, depth + 1)
        if rank:
            kind = _array_of(kind, tuple(shape[:rank]), None)
        members.append(Member(name, offset, kind))
    _check_members(members, head.size)
    return Datatype(COMPOUND, head.size, members=tuple(members))


def _check_members(members: list[Member], size: int) -> None:
    end = 0
    for member in sorted(members, key=lambda member: member.offset):
        if member.offset < end or member.offset + member.datatype.size > size:
            raise FormatError(
                f"a datatype message: the field {text(member.name)!r} of {member.datatype.size} bytes at byte "
                f"{member.offset} overlaps another one, or ends behind the {size} bytes of the element"
            )
        end = member.offset + member.datatype.size


def _reference(fields: Fields, head: _Head, depth: int) -> Datatype:
    is_old = head.bits[0] & 15 in (0, 1)
    return Datatype(REFERENCE, head.size, np.dtype(object) if is_old else None, tag=bytes(head.bits[:1]))


def _enumeration(fields: Fields, head: _Head, depth: int) -> Datatype:
    base = _datatype(fields, depth + 1)
    names = []
    for _ in range(head.members):
        begin = fields.at
        names.append(fields.until_nul())
        if head.version < 3:
            fields.at += -(fields.at - begin) % 8
    values = fields.take(head.members * base.size)
    if base.type_class != FIXED_POINT or base.number is None or base.size != head.size:
        return Datatype(ENUMERATION, head.size, base=base)
    members = dict(zip(names, np.frombuffer(values, base.number).tolist(), strict=True))
    return Datatype(ENUMERATION, head.size, base.number, base=base, is_boolean=members == {b"FALSE": 0, b"TRUE": 1})


def _variable_length(fields: Fields, head: _Head, depth: int) -> Datatype:
    base = _datatype(fields, depth + 1)
    kind, padding, charset = head.bits[0] & 15, head.bits[0] >> 4, head.bits[1] & 15
    if kind > 1:
        raise Unhandled(f"a datatype of variable length of kind {kind}")
    if kind == 1:
        return Datatype(STRING, head.size, padding=padding, charset=charset, is_variable=True)
    return Datatype(VARIABLE_LENGTH, head.size, base=base)


def _array(fields: Fields, head: _Head, depth: int) -> Datatype:
    rank = fields.number(1)
    if not 1 <= rank <= MOST_DIMENSIONS:
        raise FormatError(f"a datatype message: an array of {rank} dimensions; HDF5 has {MOST_DIMENSIONS} at most")
    if head.version < 3:
        fields.take(3)
    shape = fields.numbers(rank, 4)
    if head.version < 3:
        fields.take(4 * rank)
    return _array_of(_datatype(fields, depth + 1), shape, head.size)


def _array_of(base: Datatype, shape: tuple[int, ...], size: int | None) -> Datatype:
    found = base.size * math.prod(shape)
    if not found or size not in (None, found):
        raise FormatError(f"a datatype message: an array {shape} of {base.size} bytes each that takes {size} bytes")
    if len(shape) + len(base.shape) > MOST_DIMENSIONS:
        raise Unhandled("arrays of arrays of many dimensions")
    return Datatype(ARRAY, found, base=base, shape=shape)


def _complex(fields: Fields, head: _Head, depth: int) -> Datatype:
    base = _datatype(fields, depth + 1)
    number = None
    if base.type_class == FLOATING_POINT and base.number is not None and base.size > 2 and head.size == 2 * base.size:
        number = np.dtype(f"{base.number.str[0]}c{head.size}")
    return Datatype(COMPLEX, head.size, number, base.order, base=base)


def _order(head: _Head) -> str:
    return ">" if head.bits[0] & 1 else "<"


_CLASSES: Mapping[int, Callable[[Fields, _Head, int], Datatype]] = {
    FIXED_POINT: _fixed_point,
    FLOATING_POINT: _floating_point,
    TIME: _time,
    STRING: _string,
    BIT_FIELD: _bit_field,
    OPAQUE: _opaque,
    COMPOUND: _compound,
    REFERENCE: _reference,
    ENUMERATION: _enumeration,
    VARIABLE_LENGTH: _variable_length,
    ARRAY: _array,
    COMPLEX: _complex,
}

# ----------------------------------------------------------------------------------------------- dtypes, as h5py's


def _number_dtype(kind: Datatype) -> DType:
    if kind.number is None:
        raise Unhandled(f"numbers of an unusual layout, in a datatype of class {kind.type_class}")
    return kind.number


def _string_dtype(kind: Datatype) -> DType:
    if kind.charset > 1 or kind.padding > SPACE_PADDED:
        raise Unhandled(f"text in the character set {kind.charset}, padded in the manner {kind.padding}")
    return np.dtype(object) if kind.is_variable else np.dtype(f"S{kind.size}")


def _compound_dtype(kind: Datatype) -> DType:
    types = [member.datatype.dtype for member in kind.members]
    names = [member.name for member in kind.members]
    if names == [b"r", b"i"] and types[0] == types[1] and types[0].kind == "f" and types[0].itemsize in (4, 8):
        return np.dtype(f"{types[0].str[0]}c{2 * types[0].itemsize}")
    try:
        decoded = [name.decode("utf-8") for name in names]
    except UnicodeDecodeError as error:
        raise Unhandled("names of fields that are not UTF-8") from error
    if "" in decoded or len(set(decoded)) < len(decoded):
        raise Unhandled("fields without names of their own")
    offsets = [member.offset for member in kind.members]
    return np.dtype({"names": decoded, "formats": types, "offsets": offsets, "itemsize": kind.size})


def _enumeration_dtype(kind: Datatype) -> DType:
    if kind.is_boolean and kind.number != np.int8:
        raise Unhandled("booleans of more than one byte, or unsigned ones")
    return np.dtype(bool) if kind.is_boolean else _number_dtype(kind)


def _array_dtype(kind: Datatype) -> DType:
    return np.dtype((kind.get_super().dtype, kind.shape))


def _sequence_dtype(kind: Datatype) -> DType:
    return np.dtype(object, metadata={"vlen": kind.get_super().dtype})


_DTYPES: Mapping[int, Callable[[Datatype], DType]] = {
    STRING: _string_dtype,
    COMPOUND: _compound_dtype,
    ENUMERATION: _enumeration_dtype,
    ARRAY: _array_dtype,
    VARIABLE_LENGTH: _sequence_dtype,
}
