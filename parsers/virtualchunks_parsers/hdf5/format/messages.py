"""Bodies of header messages → what they say: extent, fill value, filters, external files, attributes.

Each function takes the body of one message, and where that has addresses, the sizes that the superblock gives. A body
that ends before its last field is refused; versions that this code does not know are left to the HDF5 library. Types
of elements are in :mod:`~virtualchunks_parsers.hdf5.format.datatypes`, where data lie in
:mod:`~virtualchunks_parsers.hdf5.format.layouts`, values of attributes in
:mod:`~virtualchunks_parsers.hdf5.format.values`. Nothing here reads a file.

References
----------
HDF5 File Format Specification, version 3.0, section IV.A.2, "Data Object Header Messages".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from struct import Struct
from typing import NamedTuple

from virtualchunks.codecs.hdf5_filters import LZF, MOST_VALUES
from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks_parsers.hdf5.filters import HDF5Filter
from virtualchunks_parsers.hdf5.format.content import Sizes, Unhandled
from virtualchunks_parsers.hdf5.format.fields import Fields, decoded_once
from virtualchunks_parsers.hdf5.format.headers import FILL, OLD_FILL

MOST_DIMENSIONS = 32


def _unknown(what: str, version: int) -> Unhandled:
    return Unhandled(f"{what} of version {version}")


# ----------------------------------------------------------------------------------------------------- the extent


class Dataspace(NamedTuple):
    """The extent of a dataset or of an attribute.

    Attributes
    ----------
    shape
        Its shape; empty for a scalar, and for nothing at all.
    maxshape
        How far it may grow, ``None`` for an axis without bounds; ``None`` where the message does not say: not at all.
    is_null
        Whether it has no elements, not even one.
    """

    shape: tuple[int, ...]
    maxshape: tuple[int | None, ...] | None
    is_null: bool = False

    @property
    def unlimited_axes(self) -> list[int]:
        """The axes that may grow without bounds."""
        return [axis for axis, size in enumerate(self.maxshape or ()) if size is None]


@decoded_once
def dataspace(body: bytes, sizes: Sizes) -> Dataspace:
    """Return what a dataspace message says (IV.A.2.b).

    Raises
    ------
    FormatError
        If the body is too short, or has more dimensions than HDF5 allows.
    """
    fields = Fields(body, "a dataspace message")
    version, rank, flags, kind = fields.take(4)
    if version not in (1, 2) or flags & ~3 or (version == 2 and kind > 2):
        raise _unknown("a dataspace message", version)
    if rank > MOST_DIMENSIONS:
        raise FormatError(f"a dataspace message: {rank} dimensions; HDF5 has {MOST_DIMENSIONS} at most")
    if version == 1:
        fields.take(4)
    elif kind == 2:
        return Dataspace((), None, is_null=True)
    shape = fields.numbers(rank, sizes.length)
    if not flags & 1:
        return Dataspace(shape, None)
    unlimited = (1 << 8 * sizes.length) - 1
    longest = fields.numbers(rank, sizes.length)
    if any(size > most for size, most in zip(shape, longest, strict=True)):
        raise FormatError(f"a dataspace message: a shape {shape} that may not grow beyond {longest}")
    return Dataspace(shape, tuple(None if size == unlimited else size for size in longest))


# -------------------------------------------------------------------------------------------------- the fill value

UNDEFINED, DEFAULT, USER_DEFINED = "undefined", "default", "user-defined"
#: Fill value write time: when storage is allocated, never, or if a value was set.
ON_ALLOCATION, NEVER, IF_SET = range(3)


class Fill(NamedTuple):
    """What elements are that were never written.

    Attributes
    ----------
    defined
        ``"undefined"``, ``"default"`` (zero) or ``"user-defined"``.
    time
        When it is written: 0 as storage is allocated, 1 never, 2 if it was set.
    raw
        The value in the dataset's own type, if there is one.
    """

    defined: str
    time: int = IF_SET
    raw: bytes | None = None

    @property
    def is_written(self) -> bool:
        """Whether there is a value, and it is what elements read as that were never written."""
        return self.defined == USER_DEFINED and self.time != NEVER


def fill(kind: int, body: bytes) -> Fill:
    """Return what a fill value message says, of the old type (IV.A.2.e) or of the new one (IV.A.2.f).

    Parameters
    ----------
    kind
        Type of the message: 4 or 5.
    body
        Its body.
    """
    return _FILLS[kind](body)


@decoded_once
def _old_fill(body: bytes) -> Fill:
    return _fill_of_size(Fields(body, "an old fill value message"), IF_SET, otherwise=UNDEFINED)


@decoded_once
def _new_fill(body: bytes) -> Fill:
    fields = Fields(body, "a fill value message")
    version = fields.number(1)
    if version in (1, 2):
        _, time, is_defined = fields.take(3)
        return _fill_of_size(fields, time, otherwise=DEFAULT) if is_defined else Fill(UNDEFINED, time)
    if version != 3:
        raise _unknown("a fill value message", version)
    flags = fields.number(1)
    time = flags >> 2 & 3
    if flags & 0x10:
        return Fill(UNDEFINED, time)
    return _fill_of_size(fields, time, otherwise=DEFAULT) if flags & 0x20 else Fill(DEFAULT, time)


def _fill_of_size(fields: Fields, time: int, otherwise: str) -> Fill:
    size = fields.number(4)
    return Fill(USER_DEFINED, time, fields.take(size)) if size else Fill(otherwise, time)


_FILLS: Mapping[int, Callable[[bytes], Fill]] = {OLD_FILL: _old_fill, FILL: _new_fill}

# ------------------------------------------------------------------------------------------------------ the filters

_FILTER = Struct("<4H")
_SHORT_FILTER = Struct("<3H")
#: What the library calls the filters whose names version 2 of the message leaves out.
_NAMES = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", LZF: "lzf"}


@decoded_once
def pipeline(body: bytes) -> tuple[HDF5Filter, ...]:
    """Return the filters of a filter pipeline message, in encoding order (IV.A.2.l).

    Raises
    ------
    FormatError
        If the body is too short.
    UnsupportedFeatureError
        If a filter has more parameters than h5py reads.
    """
    fields = Fields(body, "a filter pipeline message")
    version, count = fields.take(2)
    if version not in (1, 2):
        raise _unknown("a filter pipeline message", version)
    if count > 32:
        raise FormatError(f"a filter pipeline message: {count} filters; HDF5 has 32 at most")
    if version == 1:
        fields.take(6)
    return tuple(_filter(fields, version) for _ in range(count))


def _filter(fields: Fields, version: int) -> HDF5Filter:
    identifier = fields.number(2)
    fields.at -= 2
    if version == 1 or identifier >= 256:
        _, length, flags, count = fields.unpack(_FILTER)
    else:
        _, flags, count = fields.unpack(_SHORT_FILTER)
        length = 0
    if version == 1 and length % 8:
        raise FormatError(f"a filter pipeline message: a name of {length} bytes, which should be a multiple of 8")
    raw = fields.take(length).partition(b"\0")[0]
    values = fields.numbers(count, 4)
    if version == 1 and count % 2:
        fields.take(4)
    name = raw.decode("utf-8", "replace") if raw else _NAMES.get(identifier, "")
    found = HDF5Filter(identifier, flags, values, name)
    if count > MOST_VALUES:
        raise UnsupportedFeatureError(f"{found} has {count} parameters; h5py reads {MOST_VALUES}")
    return found


# --------------------------------------------------------------------------------------------------- external files


class Slot(NamedTuple):
    """A run of bytes in another file: where its name is in the local heap, where it begins, and how long it is."""

    name: int
    offset: int
    size: int


class ExternalFiles(NamedTuple):
    """The runs in other files that hold a dataset, and the local heap of the names of those files."""

    heap: int | None
    slots: tuple[Slot, ...]


def external_files(body: bytes, sizes: Sizes) -> ExternalFiles:
    """Return what an external data files message says (IV.A.2.h)."""
    fields = Fields(body, "an external data files message")
    version = fields.number(1)
    if version != 1:
        raise _unknown("an external data files message", version)
    fields.take(3)
    _, used = fields.number(2), fields.number(2)
    heap = fields.address(sizes)
    return ExternalFiles(heap, tuple(Slot(*fields.numbers(3, sizes.length)) for _ in range(used)))


# ------------------------------------------------------------------------------------------------------- attributes

_ATTRIBUTE = Struct("<2B3H")


@dataclass(frozen=True, eq=False, slots=True)
class Attribute:
    """An attribute, undecoded.

    Attributes
    ----------
    name
        Its name.
    datatype
        Body of its datatype message; of a shared one, what stands in its place.
    is_shared
        Whether its type is an object of the file. Put that type's body in place of `datatype` before decoding.
    space
        Its extent.
    raw
        Its value, as stored.
    """

    name: bytes
    datatype: bytes
    is_shared: bool
    space: Dataspace
    raw: bytes

    def of_type(self, datatype: bytes) -> Attribute:
        """Return the attribute with the type that its reference leads to."""
        return replace(self, datatype=datatype, is_shared=False)


@decoded_once
def attribute(body: bytes, sizes: Sizes) -> Attribute:
    """Return the attribute of an attribute message (IV.A.2.m).

    Raises
    ------
    FormatError
        If the body is too short for what it announces.
    """
    version, flags, name, kind, space = Fields(body, "an attribute message").unpack(_ATTRIBUTE)
    if version not in (1, 2, 3) or (version > 1 and flags & ~1):
        raise _unknown(f"an attribute message with flags {flags}", version)
    padding = 7 if version == 1 else 0
    name_at = 9 if version == 3 else 8
    kind_at = name_at + name + (-name & padding)
    space_at = kind_at + kind + (-kind & padding)
    if space_at + space > len(body):
        raise FormatError(
            f"an attribute message of {len(body)} bytes that has its extent at bytes {space_at} to {space_at + space}; "
            "the file is damaged"
        )
    if not name:
        raise FormatError("an attribute message: an attribute without a name")
    title = body[name_at : name_at + name - 1]  # the last byte is a NUL, whatever it is
    if b"\0" in title:
        raise Unhandled("an attribute whose name is shorter than its message says")
    return Attribute(
        name=title,
        datatype=body[kind_at : kind_at + kind],
        is_shared=version > 1 and bool(flags & 1),
        space=dataspace(body[space_at : space_at + space], sizes),
        raw=body[space_at + space + (-space & padding) :],
    )


class AttributeInfo(NamedTuple):
    """Where many attributes are kept.

    Attributes
    ----------
    is_indexed
        Whether there is a B-tree in the order of their making.
    heap
        Address of the fractal heap; ``None`` while they are in the object header.
    names, order
        Addresses of the B-trees by name and by order of making.
    """

    is_indexed: bool
    heap: int | None
    names: int | None
    order: int | None


@decoded_once
def attribute_info(body: bytes, sizes: Sizes) -> AttributeInfo:
    """Return what an attribute info message says (IV.A.2.v)."""
    fields = Fields(body, "an attribute info message")
    version, flags = fields.take(2)
    if version or flags & ~3:
        raise _unknown("an attribute info message", version)
    if flags & 1:
        fields.take(2)
    heap, names = fields.address(sizes), fields.address(sizes)
    return AttributeInfo(bool(flags & 2), heap, names, fields.address(sizes) if flags & 2 else None)
