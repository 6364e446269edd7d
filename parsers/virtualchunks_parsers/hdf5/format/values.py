"""Values as HDF5 stores them → NumPy's, and values of attributes → plain Python.

Plain values are those of :mod:`virtualchunks_parsers.hdf5.attributes`. What stands in the global heap is asked of a
function that reads it; nothing else here leaves the message. What the HDF5 library would convert in ways of its own
raises :class:`~virtualchunks_parsers.hdf5.format.content.Unhandled`.

References
----------
HDF5 File Format Specification, version 3.0, sections IV.A.2.m, "The Attribute Message", and VIII, "Appendix A"
(variable-length data); HDF5 Dimension Scale Specification and Design Notes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from virtualchunks.errors import FormatError
from virtualchunks_parsers.hdf5.attributes import (
    SCALING,
    SIMPLE,
    plain,
    require_few_bytes,
    require_values,
    scaling_number,
)
from virtualchunks_parsers.hdf5.datatypes import Element
from virtualchunks_parsers.hdf5.file import text
from virtualchunks_parsers.hdf5.format import datatypes as types
from virtualchunks_parsers.hdf5.format.content import Sizes, Unhandled
from virtualchunks_parsers.hdf5.format.datatypes import Datatype, datatype
from virtualchunks_parsers.hdf5.format.fields import MOST_BODIES, MOST_CACHED
from virtualchunks_parsers.hdf5.format.messages import Attribute, Fill

Values = np.ndarray[Any, np.dtype[Any]]
#: Returns an object of the global heap, by the address of its collection and its index there.
Heap = Callable[[int, int], bytes]

#: Bytes in memory of text of variable length and of a sequence, by which the library counts them.
_TEXT_BYTES, _SEQUENCE_BYTES = 8, 16


def attribute_value(attribute: Attribute, sizes: Sizes, heap: Heap) -> Any:
    """Return the plain value of an attribute, as ``read_attribute`` does through h5py.

    Parameters
    ----------
    attribute
        With its type in place.
    sizes
        Of the file.
    heap
        Returns objects of the global heap.

    Raises
    ------
    UnsupportedFeatureError
        If it holds references, or is of a type that NumPy has not.
    LimitExceededError
        If it is larger than 16 MiB.
    FormatError
        If it has fewer bytes than its type and its extent take.
    Unhandled
        If only the library can convert it.
    """
    if len(attribute.raw) > MOST_CACHED:
        return _value(attribute, sizes, heap)
    kept = _without_heap(attribute)
    return _value(attribute, sizes, heap) if kept is _IN_HEAP else _copied(kept)


@lru_cache(maxsize=MOST_BODIES)
def _without_heap(attribute: Attribute) -> Any:
    """The value of an attribute that has it in itself; of one body, :func:`attribute` returns the same object."""
    return _IN_HEAP if _type_of(attribute).has_heap else _value(attribute, _NO_SIZES, _no_heap)


def _value(attribute: Attribute, sizes: Sizes, heap: Heap) -> Any:
    kind, shape = _type_of(attribute), attribute.space.shape
    if attribute.space.is_null:
        return "" if kind.type_class == types.STRING else []
    if kind.type_class == types.STRING and shape in ((), (1,)):
        return text(_string(kind, _cut(kind, attribute.raw, shape), sizes, heap))
    values = _stored(kind, attribute.raw, shape, sizes, heap)
    is_scaling = attribute.name in SCALING and kind.type_class in SIMPLE
    return scaling_number(values) if is_scaling else plain(values)


def _type_of(attribute: Attribute) -> Datatype:
    if attribute.is_shared:
        raise Unhandled("an attribute whose type is shared, and not resolved")
    return datatype(attribute.datatype)


def _stored(kind: Datatype, raw: bytes, shape: tuple[int, ...], sizes: Sizes, heap: Heap) -> Values:
    """Return the elements of an attribute, after all that is asked of its size and its type."""
    data = _cut(kind, raw, shape)
    if not data:
        return np.empty(shape, kind.dtype)
    values = _decoded(kind, data, math.prod(shape), sizes, heap)
    return values.reshape(shape + values.shape[1:])


def _cut(kind: Datatype, raw: bytes, shape: tuple[int, ...]) -> bytes:
    """The bytes of a value, without what may stand behind it."""
    nbytes = math.prod(shape) * kind.size
    if not 0 < nbytes <= MOST_CACHED:
        require_few_bytes(shape, _library_size(kind))
    if kind.type_class not in SIMPLE:
        require_values(kind)
    if nbytes > len(raw):
        raise FormatError(f"an attribute {shape} of elements of {kind.size} bytes, of which {len(raw)} bytes are there")
    return raw[:nbytes]


def _library_size(kind: Datatype) -> int:
    if kind.is_variable:
        return _TEXT_BYTES
    return _SEQUENCE_BYTES if kind.type_class == types.VARIABLE_LENGTH else kind.size


def _copied(value: Any) -> Any:
    """Return a value that may be changed without changing the one that is kept."""
    if isinstance(value, list):
        return [_copied(item) for item in value] if value and isinstance(value[0], list | dict) else value.copy()
    return {name: _copied(item) for name, item in value.items()} if isinstance(value, dict) else value


_NO_SIZES = Sizes(8, 8)
_IN_HEAP = object()


def _no_heap(address: int, index: int) -> bytes:
    raise Unhandled("values in the global heap, where none were expected")


# -------------------------------------------------------------------------------------------------------- elements


def _decoded(kind: Datatype, data: bytes, count: int, sizes: Sizes, heap: Heap) -> Values:
    """Return `count` elements; elements of arrays have further dimensions."""
    decode = _DECODERS.get(kind.type_class)
    if decode is not None:
        return decode(kind, data, count, sizes, heap)
    if kind.tag and kind.dtype.kind == "V":
        raise Unhandled(f"opaque elements with the tag {kind.tag!r}")
    return np.frombuffer(data, kind.dtype, count)


def _string(kind: Datatype, data: bytes, sizes: Sizes, heap: Heap) -> bytes:
    """Return one string, without its padding; none ends in NUL, as NumPy has it."""
    _ = kind.dtype  # refuses character sets that h5py does not know
    if kind.is_variable:
        data = next(_heap_items(data, 1, 1, sizes, heap))
    elif kind.padding == types.NULL_PADDED:
        return data.rstrip(b"\0")
    elif kind.padding == types.SPACE_PADDED:
        return data.rstrip(b" ").rstrip(b"\0")
    return data.partition(b"\0")[0]


def _strings(kind: Datatype, data: bytes, count: int, sizes: Sizes, heap: Heap) -> Values:
    dtype = kind.dtype
    if kind.is_variable:
        return _objects([item.partition(b"\0")[0] for item in _heap_items(data, count, 1, sizes, heap)])
    if kind.padding == types.NULL_PADDED:
        return np.frombuffer(data, dtype, count)
    cells = np.frombuffer(data, np.uint8).reshape(count, kind.size).copy()
    if kind.padding == types.SPACE_PADDED:
        cells[np.logical_and.accumulate(cells[:, ::-1] == ord(" "), axis=1)[:, ::-1]] = 0
    else:
        cells[np.logical_or.accumulate(cells == 0, axis=1)] = 0
    return cells.view(dtype).reshape(count)


def _sequences(kind: Datatype, data: bytes, count: int, sizes: Sizes, heap: Heap) -> Values:
    base = kind.get_super()
    if base.type_class == types.ARRAY:
        raise Unhandled("sequences of arrays")
    _ = kind.dtype  # refuses elements that h5py has no dtype for
    items = _heap_items(data, count, base.size, sizes, heap)
    return _objects([_decoded(base, item, len(item) // base.size, sizes, heap) for item in items])


def _heap_items(data: bytes, count: int, size: int, sizes: Sizes, heap: Heap) -> Iterator[bytes]:
    """The bytes of elements of variable length: their number, and where they are in the global heap."""
    width = sizes.offset
    step = 8 + width
    if len(data) != count * step:
        raise FormatError(f"{count} elements of variable length in {len(data)} bytes; they take {count * step}")
    for at in range(0, len(data), step):
        length = int.from_bytes(data[at : at + 4], "little")
        address = int.from_bytes(data[at + 4 : at + 4 + width], "little")
        if not length or not address:
            yield b""
            continue
        if address == sizes.undefined:
            raise Unhandled("elements of variable length at an undefined address")
        found = heap(address, int.from_bytes(data[at + 4 + width : at + step], "little"))
        if len(found) < length * size:
            raise FormatError(
                f"an element of variable length of {length * size} bytes, of which the global heap at {address} has "
                f"{len(found)}: the file is damaged"
            )
        yield found[: length * size]


def texts_of(data: bytes, count: int, sizes: Sizes, heap: Heap) -> Iterator[bytes]:
    """Iterate over elements that are text of variable length."""
    return (item.partition(b"\0")[0] for item in _heap_items(data, count, 1, sizes, heap))


def heaps_of(data: bytes, count: int, sizes: Sizes) -> set[int]:
    """Return the addresses of the collections of the global heap that elements of variable length lead to."""
    step = 8 + sizes.offset
    places = range(4, min(len(data), count * step), step)
    return {int.from_bytes(data[at : at + sizes.offset], "little") for at in places} - {0, sizes.undefined}


def _objects(items: list[Any]) -> Values:
    values = np.empty(len(items), dtype=object)
    for number, item in enumerate(items):
        values[number] = item
    return values


def _records(kind: Datatype, data: bytes, count: int, sizes: Sizes, heap: Heap) -> Values:
    dtype = kind.dtype
    if dtype.kind == "c":
        if [member.offset for member in kind.members] != [0, dtype.itemsize // 2] or kind.size != dtype.itemsize:
            raise Unhandled("complex numbers with gaps")
        return np.frombuffer(data, dtype, count)
    cells = np.frombuffer(data, np.uint8).reshape(count, kind.size)
    values = np.zeros(count, dtype=dtype)
    for name, member in zip(dtype.names or (), kind.members, strict=True):
        field = cells[:, member.offset : member.offset + member.datatype.size].tobytes()
        values[name] = _decoded(member.datatype, field, count, sizes, heap)
    return values


def _arrays(kind: Datatype, data: bytes, count: int, sizes: Sizes, heap: Heap) -> Values:
    base = kind.get_super()
    _ = kind.dtype  # refuses elements that h5py has no dtype for
    values = _decoded(base, data, count * math.prod(kind.shape), sizes, heap)
    return values.reshape(count, *kind.shape, *values.shape[1:])


_DECODERS: Mapping[int, Callable[[Datatype, bytes, int, Sizes, Heap], Values]] = {
    types.STRING: _strings,
    types.VARIABLE_LENGTH: _sequences,
    types.COMPOUND: _records,
    types.ARRAY: _arrays,
}

# ------------------------------------------------------------------------------------------------- the fill value


def fill_value(fill: Fill, described: bytes, element: Element) -> Any:
    """Return what elements read as that were never written, as NumPy has it; ``None`` for zero.

    Parameters
    ----------
    fill
        What the fill value message says.
    described
        Body of the datatype message of the dataset.
    element
        What its elements are.

    Raises
    ------
    Unhandled
        If only the library can convert it.
    """
    if not fill.is_written or fill.raw is None:
        return None
    kind = datatype(described)
    if kind.type_class not in _FILLED or element.hdf5_type is not None or element.shape or kind.is_variable:
        raise Unhandled(f"a fill value of a type of class {kind.type_class}")
    if len(fill.raw) != kind.size or kind.dtype != element.dtype:
        raise Unhandled(f"a fill value of {len(fill.raw)} bytes for elements of {kind.size} bytes")
    return _decoded(kind, fill.raw, 1, _NO_SIZES, _no_heap)[0]


_FILLED = frozenset({types.FIXED_POINT, types.FLOATING_POINT, types.STRING, types.ENUMERATION})

# ------------------------------------------------------------------------------- the books of dimensions


def reference_lists(attribute: Attribute, sizes: Sizes, heap: Heap) -> tuple[tuple[int, ...], ...]:
    """Return the addresses of the objects in lists of references, as in ``DIMENSION_LIST``.

    Returns
    -------
    tuple of tuple of int
        One for each element; empty where the attribute is anything else. 0 stands for no object.
    """
    kind = _type_of(attribute)
    if kind.type_class != types.VARIABLE_LENGTH or kind.get_super().type_class != types.REFERENCE:
        return ()
    base, count = kind.get_super(), math.prod(attribute.space.shape)
    if base.tag != b"\0" or base.size != sizes.offset or attribute.space.is_null:
        raise Unhandled("references of a kind other than to objects")
    require_few_bytes(attribute.space.shape, _SEQUENCE_BYTES)
    raw = attribute.raw[: count * kind.size]
    return tuple(
        tuple(int.from_bytes(item[at : at + base.size], "little") for at in range(0, len(item), base.size))
        for item in _heap_items(raw, count, base.size, sizes, heap)
    )


def first_text(attribute: Attribute, sizes: Sizes, heap: Heap) -> bytes:
    """Return the bytes of the first string of an attribute, as of ``CLASS`` and ``NAME``; none if it holds none."""
    if not _type_of(attribute).has_heap:
        return _first_text(attribute)
    return _read_first_text(attribute, sizes, heap)


@lru_cache(maxsize=MOST_BODIES)
def _first_text(attribute: Attribute) -> bytes:
    return _read_first_text(attribute, _NO_SIZES, _no_heap)


def _read_first_text(attribute: Attribute, sizes: Sizes, heap: Heap) -> bytes:
    kind = _type_of(attribute)
    if kind.type_class != types.STRING:
        return b""
    values = _book(attribute, kind, sizes, heap).ravel()
    return bytes(values[0]) if len(values) else b""


@lru_cache(maxsize=MOST_BODIES)
def integers(attribute: Attribute) -> tuple[int, ...]:
    """Return the integers of an attribute, as of ``_Netcdf4Dimid``; none if it holds none."""
    kind = _type_of(attribute)
    if kind.type_class != types.FIXED_POINT:
        return ()
    return tuple(_book(attribute, kind, _NO_SIZES, _no_heap).ravel().tolist())


def _book(attribute: Attribute, kind: Datatype, sizes: Sizes, heap: Heap) -> Values:
    if attribute.space.is_null:
        raise Unhandled(f"an attribute {attribute.name!r} without elements")
    return _stored(kind, attribute.raw, attribute.space.shape, sizes, heap)
