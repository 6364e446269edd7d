"""HDF5 types → the dtypes that arrays have, and whether the stored bytes are those of the dtype.

Most types are stored as NumPy would store them, so that chunks of their bytes can be referred to. Some are not:
compounds with gaps or with fields in both byte orders, text padded with blanks. Those have a dtype all the same, but
only the HDF5 library can convert their values. What no Zarr data type can hold is refused here by name.

References
----------
HDF5 File Format Specification, version 3.0, section IV.A.2.d, "The Datatype Message".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
from h5py import h5t

from virtualchunks.encoding import byte_order
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.metadata import dtype_to_json
from virtualchunks_parsers.hdf5.file import text
from virtualchunks_parsers.hdf5.filters import unusual_type

DType = np.dtype[Any]
#: An array member of a compound becomes a struct of its elements up to this many.
MOST_ELEMENTS = 1024


@dataclass(frozen=True)
class Element:
    """What the elements of a dataset are.

    Attributes
    ----------
    dtype
        Their dtype, with the byte order in which they are stored.
    shape
        Shape of one element of an array type; these become the last dimensions of the array.
    hdf5_type
        The HDF5 type in hexadecimal digits, where a codec must convert numbers of a layout that NumPy has not.
    converted
        Whether the HDF5 library must convert the values, because the stored bytes are not those of `dtype`.
    memory
        The dtype in which h5py reads them, where that is not `dtype`: with array members as subarrays.
    """

    dtype: DType
    shape: tuple[int, ...] = ()
    hdf5_type: str | None = None
    converted: bool = False
    memory: DType | None = None

    @property
    def is_text(self) -> bool:
        """Whether elements are strings of variable length, which the file keeps apart from its chunks."""
        return self.dtype.kind == "T"

    @property
    def nbytes(self) -> int:
        """Bytes of one element, array types included."""
        return self.dtype.itemsize * math.prod(self.shape)


def may_be_filled(element: Element, *, required: bool) -> bool:
    """Return whether Zarr has a fill value for such elements.

    Raises
    ------
    UnsupportedFeatureError
        If it has none, and `required` says that it matters.
    """
    if not (element.is_text or element.shape or element.dtype.kind == "O"):
        return True
    if required:
        raise UnsupportedFeatureError("chunks were never written, and Zarr has no fill value for elements of this type")
    return False


def element_of(kind: h5t.TypeID) -> Element:
    """Return what elements of an HDF5 type are.

    Raises
    ------
    UnsupportedFeatureError
        If no Zarr data type can hold them.
    """
    return _decoded_element(kind.encode())


@lru_cache(maxsize=1024)
def _decoded_element(encoded: bytes) -> Element:
    """Arrays of one file share a few types, and taking one apart takes many calls."""
    return describe(h5t.decode(encoded))


def describe(kind: Any) -> Element:
    """Return what elements of a type are, given as h5py's ``TypeID`` or as what answers like one.

    Raises
    ------
    UnsupportedFeatureError
        If no Zarr data type can hold them.
    """
    type_class = kind.get_class()
    if type_class not in CLASSES:
        raise UnsupportedFeatureError(f"HDF5 types of class {type_class} are not known")
    element = CLASSES[type_class](kind)
    if (
        not element.converted
        and not element.is_text
        and element.hdf5_type is None
        and element.nbytes != kind.get_size()
    ):
        return replace(element, converted=True)
    return element


def _number(kind: Any) -> Element:
    return _checked(Element(_numpy(kind), hdf5_type=unusual_type(kind)))


def _enum(kind: Any) -> Element:
    """Booleans are an enumeration in HDF5; any other stays the integers it is stored as."""
    base = kind.get_super()
    dtype = _numpy(kind)
    return Element(dtype if dtype.kind == "b" and base.get_size() == 1 else _numpy(base), hdf5_type=unusual_type(base))


def _bitfield(kind: Any) -> Element:
    size = kind.get_size()
    if size not in (1, 2, 4, 8):
        raise UnsupportedFeatureError(f"bit fields of {size} bytes have no Zarr data type")
    return Element(np.dtype(f"u{size}").newbyteorder(">" if kind.get_order() == h5t.ORDER_BE else "<"))


def _string(kind: Any) -> Element:
    """Padding with NUL is NumPy's own; text that ends at its first NUL may have anything behind it."""
    if kind.is_variable_str():
        return Element(cast("DType", np.dtypes.StringDType()))
    padding, size = kind.get_strpad(), kind.get_size()
    as_stored = padding == h5t.STR_NULLPAD or (padding == h5t.STR_NULLTERM and size == 1)
    return Element(np.dtype(f"S{size}"), converted=not as_stored)


def _opaque(kind: Any) -> Element:
    return _checked(Element(_numpy(kind)))


def _complex(kind: Any) -> Element:
    return _checked(Element(_numpy(kind)))


def _array(kind: Any) -> Element:
    base, shape = describe(kind.get_super()), tuple(kind.get_array_dims())
    if base.is_text:
        raise UnsupportedFeatureError("arrays of variable-length text within one element have no Zarr data type")
    return replace(base, shape=(*shape, *base.shape))


def _compound(kind: Any) -> Element:
    dtype = _numpy(kind)
    if dtype.kind == "c":
        return _complex_pair(kind, dtype)
    members = [(_member_name(kind, n), describe(kind.get_member_type(n))) for n in range(kind.get_nmembers())]
    for name, member in members:
        if member.is_text:
            raise UnsupportedFeatureError(f"the field {name!r} is text of variable length, which Zarr has in no struct")
    stored = np.dtype([(name, _field(name, member)) for name, member in members])
    memory = np.dtype([(name, _memory(member), member.shape) for name, member in members])
    offsets = [kind.get_member_offset(number) for number in range(len(members))]
    ends = list(itertools.accumulate(dtype.itemsize for dtype in map(stored.__getitem__, stored.names or ())))
    packed = [*offsets, kind.get_size()] == [0, *ends]
    as_stored = packed and all(not member.converted and member.hdf5_type is None for _, member in members)
    converted = not as_stored or len(_byte_orders(stored)) > 1
    return _checked(Element(stored.newbyteorder("<") if converted else stored, converted=converted, memory=memory))


def _complex_pair(kind: Any, dtype: DType) -> Element:
    half = dtype.itemsize // 2
    members = [kind.get_member_type(number) for number in range(2)]
    plain = [kind.get_member_offset(0), kind.get_member_offset(1), kind.get_size()] == [0, half, 2 * half]
    plain = plain and all(unusual_type(member) is None and member.get_size() == half for member in members)
    return _checked(Element(dtype if plain else dtype.newbyteorder("<"), converted=not plain))


def _member_name(kind: Any, number: int) -> str:
    return text(kind.get_member_name(number))


def _field(name: str, member: Element) -> DType:
    """The dtype of a field; Zarr's structs have no array members, so one becomes a struct of its elements."""
    count = math.prod(member.shape)
    if not member.shape:
        return member.dtype
    if count > MOST_ELEMENTS:
        raise UnsupportedFeatureError(
            f"the field {name!r} is an array of {count} elements, which Zarr's structs have not"
        )
    return np.dtype([(str(number), member.dtype) for number in range(count)])


def _memory(member: Element) -> DType:
    return (member.dtype if member.memory is None else member.memory).newbyteorder("<")


def _byte_orders(dtype: DType) -> set[str | None]:
    if dtype.fields is None:
        return {byte_order(dtype)} - {None}
    return set().union(*(_byte_orders(field[0]) for field in dtype.fields.values()))


def _numpy(kind: Any) -> DType:
    """The dtype that h5py has for a type, without h5py's annotations."""
    try:
        dtype: DType = kind.dtype
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise UnsupportedFeatureError(f"NumPy has no dtype for this HDF5 type: {error}") from error
    return np.dtype(dtype.str) if dtype.fields is None and dtype.subdtype is None and not dtype.hasobject else dtype


def _checked(element: Element) -> Element:
    if element.dtype.itemsize == 0:
        raise UnsupportedFeatureError("elements of 0 bytes have no Zarr data type")
    dtype_to_json(element.dtype)
    return element


def _refuse(reason: str) -> Callable[[Any], Element]:
    def refuse(kind: Any) -> Element:
        raise UnsupportedFeatureError(reason)

    return refuse


#: What elements are, by class of HDF5 type.
CLASSES: Mapping[int, Callable[[Any], Element]] = {
    h5t.INTEGER: _number,
    h5t.FLOAT: _number,
    h5t.ENUM: _enum,
    h5t.BITFIELD: _bitfield,
    h5t.STRING: _string,
    h5t.OPAQUE: _opaque,
    h5t.COMPOUND: _compound,
    h5t.ARRAY: _array,
    h5t.REFERENCE: _refuse("references to other objects or regions of the file have no value outside it"),
    h5t.VLEN: _refuse("sequences of variable length have no Zarr data type"),
    h5t.TIME: _refuse("the HDF5 library cannot convert its own time type"),
    **({h5t.COMPLEX: _complex} if hasattr(h5t, "COMPLEX") else {}),
}
