"""The metadata of a Zarr v2 array: ``.zarray`` and ``.zattrs``.

Specification: https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html. Dimension names are those of xarray
(``_ARRAY_DIMENSIONS``) or of NCZarr. As xarray has it, the fill value of a v2 array marks missing values, so it is the
attribute ``_FillValue`` too.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from virtualchunks.encoding import in_order
from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks.grid import ChunkGrid
from virtualchunks.metadata import ArrayMetadata, dtype_to_json
from virtualchunks_parsers.zarr.chunk_keys import ChunkKeys
from virtualchunks_parsers.zarr.codecs_v2 import encoding_v2

#: How xarray names the dimensions of a v2 array.
DIMENSIONS = "_ARRAY_DIMENSIONS"
_TIMES = "mM"


def array_v2(zarray: Mapping[str, Any], zattrs: Mapping[str, Any]) -> tuple[ArrayMetadata, ChunkKeys]:
    """Return what the two documents of an array say.

    Parameters
    ----------
    zarray, zattrs
        Contents of ``.zarray`` and ``.zattrs``.

    Returns
    -------
    tuple of ArrayMetadata and ChunkKeys
        With dimension names only where the documents have them.

    Raises
    ------
    FormatError
        If a member is none of Zarr v2.
    UnsupportedFeatureError
        If a dtype or filter cannot be represented.

    Examples
    --------
    >>> document = {"zarr_format": 2, "shape": [4], "chunks": [2], "dtype": ">f4", "compressor": None}
    >>> document |= {"fill_value": "NaN", "order": "C", "filters": None}
    >>> metadata, keys = array_v2(document, {"_ARRAY_DIMENSIONS": ["x"]})
    >>> metadata.dtype, metadata.fill_value, metadata.dimension_names
    (dtype('float32'), np.float32(nan), ('x',))
    """
    if zarray.get("zarr_format") != 2:
        raise FormatError(f"the zarr_format of a Zarr v2 array is 2, found {zarray.get('zarr_format')!r}")
    shape, chunks = list(zarray["shape"]), list(zarray["chunks"])
    filters = zarray.get("filters")
    dtype = dtype_v2(zarray["dtype"], filters)
    dtype_to_json(dtype)  # raises where no Zarr v3 data type is the same
    encoding = encoding_v2(dtype, zarray.get("order", "C"), filters, zarray.get("compressor"), len(shape))
    fill = fill_v2(zarray.get("fill_value"), dtype)
    names, attributes = _split_attributes(zarray, zattrs)
    if fill is not None:
        attributes["_FillValue"] = fill
    metadata = ArrayMetadata(
        ChunkGrid.regular(shape, [chunk or 1 for chunk in chunks]),
        dtype,
        encoding,
        fill,
        names if names is not None and len(names) == len(shape) else None,
        attributes,
    )
    return metadata, ChunkKeys(separator=zarray.get("dimension_separator") or ".")


def dtype_v2(document: Any, filters: Sequence[Mapping[str, Any]] | None = None) -> np.dtype[Any]:
    """Return the dtype of a v2 array, with its byte order.

    Parameters
    ----------
    document
        The ``dtype`` of ``.zarray``: a typestring, or a list of fields.
    filters
        The filters of the array, of which one says what the objects of ``|O`` are.

    Raises
    ------
    FormatError
        If it is no dtype.
    UnsupportedFeatureError
        If it is one of objects that cannot be represented.

    Examples
    --------
    >>> dtype_v2("<i2"), dtype_v2([["a", "<f4"], ["b", "|S3"]])
    (dtype('int16'), dtype([('a', '<f4'), ('b', 'S3')]))
    """
    try:
        dtype = np.dtype(_fields(document) if isinstance(document, list) else document)
    except (TypeError, ValueError, SyntaxError) as error:
        raise FormatError(f"{document!r} is no dtype of Zarr v2") from error
    if not isinstance(document, list | str):
        raise FormatError(f"{document!r} is no dtype of Zarr v2")
    if dtype.kind != "O":
        return dtype
    known = {config.get("id") for config in filters or ()}
    if "vlen-utf8" in known:
        return np.dtypes.StringDType()
    if "vlen-bytes" in known:
        return dtype
    names = ", ".join(sorted(map(str, known))) or "none"
    raise UnsupportedFeatureError(
        f"an array of Python objects with the filters {names}: of objects, only text (vlen-utf8) and bytes "
        "(vlen-bytes) can be represented"
    )


def _fields(document: list[Any]) -> list[tuple[Any, ...]]:
    return [
        (str(field[0]), _fields(field[1]) if isinstance(field[1], list) else field[1], *map(tuple, field[2:]))
        for field in document
    ]


def fill_v2(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return the fill value of a v2 array as a scalar of its dtype; ``None`` where it is null.

    Raises
    ------
    FormatError
        If it is none of the dtype.

    Examples
    --------
    >>> fill_v2("-Infinity", np.dtype("f4")), fill_v2("YWI=", np.dtype("S4"))
    (np.float32(-inf), np.bytes_(b'ab'))
    """
    if value is None:
        return None
    native = in_order(dtype, "=")
    try:
        with np.errstate(all="ignore"):
            return _fill(value, native, dtype)
    except (TypeError, ValueError, OverflowError, LookupError) as error:
        raise FormatError(f"{value!r} is not the fill value of a Zarr v2 array of the dtype {dtype}") from error


def _fill(value: Any, native: np.dtype[Any], stored: np.dtype[Any]) -> Any:
    match native.kind:
        case "T":
            return value if isinstance(value, str) else ""
        case "O":
            return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
        case "S" | "V":
            raw = b"" if value == 0 else base64.b64decode(value, validate=True)
            return np.frombuffer(raw.ljust(stored.itemsize, b"\0"), dtype=stored, count=1)[0].astype(native)
        case "U":
            return np.array("" if value == 0 else value, dtype=native)[()]
        case "c" if isinstance(value, list):
            return np.array(complex(float(value[0]), float(value[1])), dtype=native)[()]
        case "m" | "M" if isinstance(value, int):
            return np.array(value, dtype="i8").view(native)[()]
        case "f" if isinstance(value, str):
            return native.type(float(value))
    return np.array(value, dtype=native)[()]


def _split_attributes(
    zarray: Mapping[str, Any], zattrs: Mapping[str, Any]
) -> tuple[tuple[str, ...] | None, dict[str, Any]]:
    """Take the dimension names out of the attributes, and what NCZarr keeps there for itself."""
    attributes = dict(zattrs)
    names = attributes.pop(DIMENSIONS, None)
    if isinstance(names, list):
        return tuple(map(str, names)), attributes
    for document in (zarray, zattrs):
        for key in ("_NCZARR_ARRAY", "_nczarr_array"):
            references = document.get(key, {}).get("dimrefs") if isinstance(document.get(key), Mapping) else None
            if isinstance(references, list):
                kept = {name: value for name, value in attributes.items() if not name.lower().startswith("_nc")}
                return tuple(str(reference).rpartition("/")[2] for reference in references), kept
    return None, attributes
