"""Zarr v2 metadata of an array, as xarray reads it: ``.zarray``, ``.zattrs``, and what missing chunks need.

xarray takes the ``fill_value`` of ``.zarray`` for ``_FillValue``: whatever equals it is masked, and integers become
floats. So ``fill_value`` is null unless the array has a ``_FillValue``; where a missing chunk must read as anything
else than that, it is written out as a chunk of the fill value. No value is lost that way, and none is masked that was
not. What was missing is said in a member of its own; see :mod:`virtualchunks.writers.kerchunk.fills`.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import numpy as np

from virtualchunks.attributes import to_zarr
from virtualchunks.codecs.pipeline import encode_block
from virtualchunks.errors import LimitExceededError, ManifestError, UnsupportedFeatureError
from virtualchunks.metadata import ArrayMetadata, fill_scalar, fill_to_json, same_value
from virtualchunks.writers.kerchunk.codecs_v2 import codecs_v2
from virtualchunks.writers.kerchunk.fills import MEMBER, fill_member
from virtualchunks.writers.layout import StoredArray

#: The most bytes of written-out missing chunks in one array.
MOST_FILL_BYTES = 64 << 20


class ArrayDocuments(NamedTuple):
    """The Zarr v2 metadata of one array.

    Parameters
    ----------
    zarray, zattrs
        Contents of ``.zarray`` and ``.zattrs``.
    missing
        The bytes to write for each missing chunk; ``None`` to write none.
    """

    zarray: dict[str, Any]
    zattrs: dict[str, Any]
    missing: bytes | None


def array_documents(array: StoredArray) -> ArrayDocuments:
    """Return the Zarr v2 metadata of an array.

    Raises
    ------
    UnsupportedFeatureError
        If Zarr v2 cannot hold its chunk grid, dtype or codecs.
    LimitExceededError
        If its missing chunks would have to be written out and are too many.
    """
    metadata = array.metadata
    if not metadata.grid.is_regular:
        raise UnsupportedFeatureError(
            f"{array.path!r} has chunks of unequal lengths (a rectilinear chunk grid), which Zarr v2 cannot hold; "
            "write to Icechunk, or to JSON with zarr_format=3",
            variable=array.path,
        )
    order, filters, compressor = codecs_v2(metadata.encoding, metadata.ndim, array.path)
    attributes = dict(metadata.attributes)
    mask = _mask(metadata)
    if mask is not None:
        del attributes["_FillValue"]
    fill, missing = mask, None
    if array.has_missing and (mask is None or not same_value(mask, metadata.fill_value)):
        fill, missing = _for_missing(array, mask)
    zarray = {
        "zarr_format": 2,
        "shape": list(metadata.shape),
        "chunks": list(metadata.chunks),
        "dtype": _dtype_v2(metadata.encoding.dtype, array.path),
        "compressor": compressor,
        "fill_value": None if fill is None else _fill_v2(fill, metadata.encoding.dtype),
        "order": order,
        "filters": filters,
        "dimension_separator": ".",
    }
    member = fill_member(metadata, fill, mask, missing)
    if member is not None:
        zarray[MEMBER] = member
    zattrs = {**to_zarr(attributes), "_ARRAY_DIMENSIONS": list(metadata.dimension_names or ())}
    return ArrayDocuments(zarray, zattrs, missing)


def _mask(metadata: ArrayMetadata) -> Any:
    """Return the ``_FillValue`` as a scalar of the array's dtype; ``None`` where there is none, or it is no such value.

    One that is not exactly a value of the dtype, such as -999.9 in double precision for an array of single precision,
    stays an attribute: xarray masks nothing with it, and would if it were rounded.
    """
    value = np.asarray(metadata.attributes.get("_FillValue"))
    if value.size != 1 or value.dtype.kind == "O":
        return None
    scalar = value.reshape(-1)[0]
    try:
        cast = fill_scalar(scalar if metadata.dtype.kind != "T" else str(scalar), metadata.dtype)
    except ManifestError:
        return None
    return cast if same_value(cast, scalar) else None


def _for_missing(array: StoredArray, mask: Any) -> tuple[Any, bytes | None]:
    """Return the fill value for ``.zarray``, and the bytes of a missing chunk where that alone would be wrong."""
    metadata = array.metadata
    fill = metadata.fill_value
    if mask is None and "_FillValue" not in metadata.attributes and metadata.dtype.kind == "f" and np.isnan(fill):
        return fill, None  # NaN masked as NaN
    count = int(metadata.grid.size) - len(array.manifest)
    block = np.full(metadata.chunks, fill, dtype=metadata.dtype)
    data = encode_block(block, metadata.encoding)
    if count * len(data) > MOST_FILL_BYTES:
        raise LimitExceededError(
            f"{array.path!r} has {count:,} missing chunks that read as {fill!r}. xarray would mask that value if it "
            f"were the fill_value of Zarr v2 metadata, and writing them out takes {count * len(data):,} bytes, more "
            f"than {MOST_FILL_BYTES:,}; write to Icechunk, or to JSON with zarr_format=3",
            variable=array.path,
        )
    return mask, data


def _dtype_v2(dtype: np.dtype[Any], variable: str) -> Any:
    if dtype.kind in "TO":
        return "|O"
    if dtype.fields is None or dtype.names is None:
        return dtype.str
    fields = [_field_v2(name, dtype.fields[name][0], variable) for name in dtype.names]
    if np.dtype([tuple(field) for field in fields]).itemsize != dtype.itemsize:
        raise UnsupportedFeatureError(
            f"the fields of {variable!r} have gaps between them, which Zarr v2 cannot hold: {dtype}", variable=variable
        )
    return fields


def _field_v2(name: str, dtype: np.dtype[Any], variable: str) -> list[Any]:
    if dtype.subdtype is not None:
        return [name, _dtype_v2(dtype.subdtype[0], variable), list(dtype.subdtype[1])]
    return [name, _dtype_v2(dtype, variable)]


def _fill_v2(value: Any, stored: np.dtype[Any]) -> Any:
    if stored.fields is not None:
        return base64.b64encode(np.array(value, dtype=stored).tobytes()).decode("ascii")
    return fill_to_json(value, stored)
