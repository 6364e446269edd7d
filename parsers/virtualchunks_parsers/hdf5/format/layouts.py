"""Bodies of data layout messages → where the bytes of a dataset lie.

References
----------
HDF5 File Format Specification, version 3.0, section IV.A.2.i, "The Data Layout Message".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from virtualchunks.errors import FormatError
from virtualchunks_parsers.hdf5.format.content import Sizes, Unhandled
from virtualchunks_parsers.hdf5.format.fields import Fields
from virtualchunks_parsers.hdf5.format.messages import MOST_DIMENSIONS

#: Kinds of chunk index; 0 is the B-tree of version 1, which only the older versions of the message mean.
BTREE_1, SINGLE_CHUNK, IMPLICIT, FIXED_ARRAY, EXTENSIBLE_ARRAY, BTREE_2 = range(6)

WHAT = "a data layout message"


@dataclass(frozen=True)
class Compact:
    """The bytes stand in the message itself."""

    data: bytes


@dataclass(frozen=True)
class Contiguous:
    """One run of bytes; without an address before anything is written.

    `size` is ``None`` in old messages: as many bytes as the elements take.
    """

    address: int | None
    size: int | None


@dataclass(frozen=True)
class SingleChunk:
    """How long the only chunk is, and which filters it skipped; ``None`` and 0 for a chunk without filters."""

    size: int | None
    mask: int


@dataclass(frozen=True)
class FixedArray:
    """How many bits a number of an element within a page of the fixed array has."""

    page_bits: int


@dataclass(frozen=True)
class ExtensibleArray:
    """How the extensible array is laid out; the names are the specification's."""

    max_bits: int
    index_elements: int
    min_pointers: int
    min_elements: int
    page_bits: int


@dataclass(frozen=True)
class BTree2:
    """How the B-tree of version 2 is laid out."""

    node_size: int
    split_percent: int
    merge_percent: int


@dataclass(frozen=True)
class Chunked:
    """Chunks, and the index that says where they are.

    Attributes
    ----------
    shape
        Shape of a chunk, in elements.
    element_size
        Bytes of an element.
    index
        Kind of the index: :data:`BTREE_1` and so on.
    address
        Where the index is, of a single chunk that chunk itself; ``None`` before anything is written.
    flags
        Bit 0: filters are not applied to chunks at the edge. Bit 1: the single chunk has gone through filters.
    parameters
        Of the index, if it has any.
    version
        Of the message.
    """

    shape: tuple[int, ...]
    element_size: int
    index: int
    address: int | None
    flags: int = 0
    parameters: SingleChunk | FixedArray | ExtensibleArray | BTree2 | None = None
    version: int = 3


@dataclass(frozen=True)
class Virtual:
    """The bytes lie in other datasets; an object of the global heap says where."""

    heap: int | None
    index: int


type Layout = Compact | Contiguous | Chunked | Virtual


def layout(body: bytes, sizes: Sizes) -> Layout:
    """Return what a data layout message says.

    Raises
    ------
    FormatError
        If the body is too short, or the chunks have no extent.
    """
    fields = Fields(body, WHAT)
    version = fields.number(1)
    if version in (1, 2):
        return _old_layout(fields, sizes, version)
    kind = fields.number(1)
    if version not in (3, 4, 5) or kind not in _LAYOUTS or (version == 3 and kind == 3):
        raise Unhandled(f"{WHAT} of version {version} and class {kind}")
    return _LAYOUTS[kind](fields, sizes, version)


def _old_layout(fields: Fields, sizes: Sizes, version: int) -> Layout:
    rank, kind = fields.take(2)
    fields.take(5)
    if kind == 0:
        fields.take(4 * _rank(rank))
        return Compact(fields.take(fields.number(4)))
    address = fields.address(sizes)
    numbers = fields.numbers(_rank(rank), 4)
    if kind == 1:
        return Contiguous(address, None)
    if kind != 2:
        raise Unhandled(f"{WHAT} of version {version} and class {kind}")
    return Chunked(*_chunk(numbers), BTREE_1, address, version=version)


def _compact(fields: Fields, sizes: Sizes, version: int) -> Layout:
    return Compact(fields.take(fields.number(2)))


def _contiguous(fields: Fields, sizes: Sizes, version: int) -> Layout:
    return Contiguous(fields.address(sizes), fields.number(sizes.length))


def _virtual(fields: Fields, sizes: Sizes, version: int) -> Layout:
    return Virtual(fields.address(sizes), fields.number(4))


def _chunked(fields: Fields, sizes: Sizes, version: int) -> Layout:
    if version == 3:
        rank = _rank(fields.number(1))
        address = fields.address(sizes)
        return Chunked(*_chunk(fields.numbers(rank, 4)), BTREE_1, address, version=version)
    flags, rank, width = fields.take(3)
    if flags & ~3 or not 1 <= width <= 8:
        raise Unhandled(f"{WHAT} with flags {flags} and sizes of {width} bytes")
    shape, size = _chunk(fields.numbers(_rank(rank), width))
    index = fields.number(1)
    if index not in _PARAMETERS:
        raise Unhandled(f"{WHAT} with a chunk index of kind {index}")
    parameters = _PARAMETERS[index](fields, sizes, flags)
    return Chunked(shape, size, index, fields.address(sizes), flags, parameters, version)


def _rank(found: int) -> int:
    if not found <= MOST_DIMENSIONS + 1:
        raise FormatError(f"{WHAT}: {found} dimensions; HDF5 has {MOST_DIMENSIONS} at most")
    return found


def _chunk(numbers: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The shape of a chunk, and the size of an element, which the message has as the last dimension."""
    if len(numbers) < 2 or 0 in numbers:
        raise FormatError(f"{WHAT}: chunks of {numbers}, element size last; all of them should be positive")
    return numbers[:-1], numbers[-1]


def _single_chunk(fields: Fields, sizes: Sizes, flags: int) -> SingleChunk:
    return SingleChunk(fields.number(sizes.length), fields.number(4)) if flags & 2 else SingleChunk(None, 0)


def _no_parameters(fields: Fields, sizes: Sizes, flags: int) -> None:
    return None


def _fixed_array(fields: Fields, sizes: Sizes, flags: int) -> FixedArray:
    return FixedArray(fields.number(1))


def _extensible_array(fields: Fields, sizes: Sizes, flags: int) -> ExtensibleArray:
    return ExtensibleArray(*fields.take(5))


def _btree_2(fields: Fields, sizes: Sizes, flags: int) -> BTree2:
    return BTree2(fields.number(4), fields.number(1), fields.number(1))


_LAYOUTS: Mapping[int, Callable[[Fields, Sizes, int], Layout]] = {
    0: _compact,
    1: _contiguous,
    2: _chunked,
    3: _virtual,
}
_PARAMETERS: Mapping[
    int, Callable[[Fields, Sizes, int], SingleChunk | FixedArray | ExtensibleArray | BTree2 | None]
] = {
    SINGLE_CHUNK: _single_chunk,
    IMPLICIT: _no_parameters,
    FIXED_ARRAY: _fixed_array,
    EXTENSIBLE_ARRAY: _extensible_array,
    BTREE_2: _btree_2,
}
