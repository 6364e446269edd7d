"""HDF5 attributes → plain Python values.

Numbers become Python numbers, arrays become lists of them, text becomes ``str``; one element in one dimension counts
as a scalar, as it does for the netCDF libraries. The factor and the offset of packed numbers stay NumPy's, since xarray
computes in their dtype. The attributes by which HDF5 and netCDF-4 keep their own books are
left out; :mod:`~virtualchunks_parsers.hdf5.dimensions` reads those that name dimensions.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5s, h5t

from virtualchunks.errors import LimitExceededError, UnsupportedFeatureError
from virtualchunks_parsers.hdf5.file import text

#: Attributes that HDF5's dimension scales and netCDF-4 keep for themselves.
INTERNAL = frozenset(
    {
        b"CLASS",
        b"NAME",
        b"REFERENCE_LIST",
        b"DIMENSION_LIST",
        b"DIMENSION_LABELS",
        b"_NCProperties",
        b"_Netcdf4Coordinates",
        b"_Netcdf4Dimid",
        b"_nc3_strict",
    }
)

#: Those whose dtype matters to what is computed with them.
SCALING = frozenset({b"scale_factor", b"add_offset"})

type Owner = h5d.DatasetID | h5g.GroupID
#: What is called with the name of an attribute that cannot be had, and why.
Report = Callable[[str, UnsupportedFeatureError | LimitExceededError], None]
#: Bytes of one attribute.
MOST_BYTES = 16 << 20


def attribute_names(owner: Owner) -> list[bytes]:
    """Return the names of an object's attributes."""
    names: list[bytes] = []
    if h5a.get_num_attrs(owner):
        h5a.iterate(owner, names.append)
    return names


def read_attributes(owner: Owner, names: list[bytes], report: Report) -> dict[str, Any]:
    """Return the attributes of an object that are meant for people.

    Parameters
    ----------
    owner
        A dataset or a group.
    names
        Of its attributes, as :func:`attribute_names` gives them.
    report
        Called for an attribute that is left out because its type has no plain value.
    """
    attributes: dict[str, Any] = {}
    for raw in names:
        if raw in INTERNAL:
            continue
        try:
            attributes[text(raw)] = read_attribute(owner, raw)
        except (UnsupportedFeatureError, LimitExceededError) as error:
            report(text(raw), error)
    return attributes


def read_attribute(owner: Owner, raw: bytes) -> Any:
    """Return the plain value of one attribute.

    Raises
    ------
    UnsupportedFeatureError
        If it holds references, is of a type that NumPy has not, or is one that h5py reads wrongly.
    LimitExceededError
        If it is larger than 16 MiB.
    """
    attribute = h5a.open(owner, raw)
    kind, space = attribute.get_type(), attribute.get_space()
    type_class = kind.get_class()
    if space.get_simple_extent_type() == h5s.NULL:
        return "" if type_class == h5t.STRING else []
    require_small(space, kind)
    if type_class in SIMPLE:
        values = np.empty(space.get_simple_extent_dims(), dtype=kind.dtype)
        if values.size:
            attribute.read(values, mtype=kind if type_class == h5t.BITFIELD else None)
        return plain(values) if raw not in SCALING else scaling_number(values)
    require_values(kind)
    _require_order(kind)
    holder = h5py.Dataset(owner) if isinstance(owner, h5d.DatasetID) else h5py.Group(owner)
    return plain(np.asarray(holder.attrs[raw]))


def scaling_number(values: np.ndarray[Any, Any]) -> Any:
    """Return a scale factor or an offset as a NumPy number of its own dtype; what is none, as :func:`plain` does.

    Examples
    --------
    >>> scaling_number(np.array([0.5], "f4"))
    np.float32(0.5)
    """
    if values.size != 1 or values.dtype.kind not in "iuf" or values.dtype.itemsize > 8:
        return plain(values)
    return values.reshape(-1)[0]


def require_small(space: h5s.SpaceID, kind: h5t.TypeID) -> None:
    """Raise unless a value of an attribute is of a size that attributes have.

    Raises
    ------
    LimitExceededError
        If it is larger, as in damaged files: the library would make room for it before it looks.
    """
    require_few_bytes(space.get_simple_extent_dims(), kind.get_size())


def require_few_bytes(shape: Sequence[int], size: int) -> None:
    """Raise unless attributes have as many elements, of `size` bytes; see :func:`require_small`.

    An axis of no length counts as one of a single element, since the others become lists all the same.
    """
    nbytes = math.prod(max(length, 1) for length in shape) * size
    if nbytes > MOST_BYTES:
        raise LimitExceededError(f"{nbytes} bytes, of which an attribute may have {MOST_BYTES}")


#: Classes of types whose values NumPy has itself.
SIMPLE = frozenset({h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM, h5t.BITFIELD})


def require_values(kind: Any) -> None:
    """Raise if a type holds references, at any depth; it may be any object that answers as a ``TypeID`` does.

    Raises
    ------
    UnsupportedFeatureError
        If it does, or is the library's own time type.
    """
    type_class = kind.get_class()
    if type_class == h5t.REFERENCE:
        raise UnsupportedFeatureError("references to other objects of the file have no value outside it")
    if type_class == h5t.TIME:
        raise UnsupportedFeatureError("the HDF5 library cannot convert its own time type")
    if type_class == h5t.COMPOUND:
        for number in range(kind.get_nmembers()):
            require_values(kind.get_member_type(number))
    elif type_class in (h5t.ARRAY, h5t.VLEN):
        require_values(kind.get_super())


def _require_order(kind: Any) -> None:
    """Raise if h5py would return wrong numbers: it takes those of sequences to be in the machine's byte order."""
    type_class = kind.get_class()
    if type_class == h5t.COMPOUND:
        for number in range(kind.get_nmembers()):
            _require_order(kind.get_member_type(number))
    elif type_class in (h5t.ARRAY, h5t.VLEN):
        base = kind.get_super()
        if type_class == h5t.VLEN and base.dtype.fields is None and not base.dtype.isnative:
            raise UnsupportedFeatureError(f"h5py reads sequences of {base.dtype} in the wrong byte order")
        _require_order(base)


def plain(values: Any) -> Any:
    """Return a value of NumPy or h5py as Python's numbers, text, lists and dictionaries.

    Examples
    --------
    >>> plain(np.array([1, 2], "i2")), plain(np.array([2.5])), plain(np.bytes_(b"K"))
    ([1, 2], 2.5, 'K')
    """
    if isinstance(values, np.ndarray):
        return _plain_array(values)
    if isinstance(values, bytes | str):
        return text(bytes(values) if isinstance(values, bytes) else str(values))
    if isinstance(values, np.void):
        return _plain_record(values)
    if isinstance(values, np.complexfloating | complex):
        return [float(values.real), float(values.imag)]
    if isinstance(values, np.datetime64 | np.timedelta64):
        return str(values)
    if isinstance(values, np.longdouble):
        return float(values)
    return values.item() if isinstance(values, np.generic) else values


def _plain_array(values: np.ndarray[Any, Any]) -> Any:
    is_one = values.shape in ((), (1,))
    if values.dtype.kind in "iub" or (values.dtype.kind == "f" and values.dtype.itemsize <= 8):
        return values.item() if is_one else values.tolist()
    if is_one:
        return plain(values[(0,) * values.ndim])
    return [plain(item) for item in values]


def _plain_record(record: np.void) -> Any:
    if record.dtype.names is None:
        return base64.b64encode(record.tobytes()).decode("ascii")
    return {name: plain(record[name]) for name in record.dtype.names}
