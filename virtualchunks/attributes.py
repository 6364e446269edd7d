"""Attributes between files and Zarr: natural values on one side, JSON on the other.

Parsers keep attributes as their file has them: Python and NumPy scalars, arrays, text, bytes. Zarr keeps JSON, and
xarray reads ``_FillValue`` from it in a form of its own: for floats the base64 of a little-endian double. Stores and
writers convert with :func:`to_zarr`, and whoever reads Zarr metadata into arrays with :func:`from_zarr`.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from virtualchunks.errors import ManifestError

#: Attributes that hold numbers, whose text ``"NaN"`` or ``"Infinity"`` in strict JSON stands for a number.
NUMERIC = frozenset(
    {"missing_value", "valid_min", "valid_max", "valid_range", "actual_range", "scale_factor", "add_offset"}
)
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_zarr(
    attributes: Mapping[str, Any], dtype: np.dtype[Any] | None = None, *, strict: bool = False
) -> dict[str, Any]:
    """Return attributes as Zarr v3 metadata holds them, so that xarray reads them back.

    Parameters
    ----------
    attributes
        Natural values.
    dtype
        dtype of the array they belong to; ``None`` for those of a group.
    strict
        Whether to write NaN and infinities as text, for readers that hold to the JSON standard (Icechunk). Python's
        readers, zarr's among them, know them as numbers.

    Returns
    -------
    dict
        Values that :func:`json.dumps` takes.

    Raises
    ------
    ManifestError
        If a value has no form in JSON.

    Notes
    -----
    xarray reads a ``_FillValue`` of numbers only. One of text is kept as ``missing_value``, which xarray
    treats alike, and so is one that is no value of the dtype; one of bytes, times or structures is left to the
    array's own fill value.

    Examples
    --------
    >>> to_zarr({"units": b"K", "valid_range": np.array([0, 9], "i2")})
    {'units': 'K', 'valid_range': [0, 9]}
    >>> to_zarr({"_FillValue": np.float32(-999)}, np.dtype("f4"))
    {'_FillValue': 'AAAAAAA4j8A='}
    """
    plain = {
        str(name): _to_json(str(name), value, strict) for name, value in attributes.items() if name != "_FillValue"
    }
    if "_FillValue" not in attributes:
        return plain
    if dtype is None:
        return {**plain, "_FillValue": _to_json("_FillValue", attributes["_FillValue"], strict)}
    value = _scalar(attributes["_FillValue"])
    encode = _ENCODERS.get(dtype.kind)
    encoded = None if encode is None else encode(value)
    if encoded is not None:
        return {**plain, "_FillValue": encoded}
    if dtype.kind in "iufbcUT" and "missing_value" not in plain:
        plain["missing_value"] = _to_json("_FillValue", value, strict)
    return plain


def from_zarr(attributes: Mapping[str, Any], dtype: np.dtype[Any] | None = None) -> dict[str, Any]:
    """Return the natural values of attributes in Zarr v3 metadata.

    Parameters
    ----------
    attributes
        The ``attributes`` member of a metadata document.
    dtype
        dtype of the array they belong to; ``None`` for those of a group.

    Returns
    -------
    dict
        Python scalars, lists and text.

    Examples
    --------
    >>> from_zarr({"_FillValue": "AAAAAAA4j8A="}, np.dtype("f4"))
    {'_FillValue': -999.0}
    """
    plain = {name: _numbers(value) if name in NUMERIC else value for name, value in attributes.items()}
    decode = None if dtype is None else _DECODERS.get(dtype.kind)
    if "_FillValue" in plain and decode is not None:
        plain["_FillValue"] = decode(plain["_FillValue"])
    return plain


def _scalar(value: Any) -> Any:
    """Return the one value of an array of one; anything else as it is."""
    if isinstance(value, np.ndarray | list | tuple) and np.size(value) == 1:
        return np.asarray(value).reshape(-1)[0]
    return value


def _encode_float(value: Any) -> str | None:
    number = _number(value)
    return None if number is None else base64.standard_b64encode(struct.pack("<d", float(number))).decode("ascii")


def _encode_complex(value: Any) -> list[str | None] | None:
    if not isinstance(value, int | float | complex | np.number):
        return None
    number = complex(value)
    return [_encode_float(number.real), _encode_float(number.imag)]


def _encode_int(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and math.isfinite(number) and int(number) == number else None


def _encode_bool(value: Any) -> bool | None:
    number = _number(value)
    return bool(number) if number in (0, 1) else None


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float | np.integer | np.floating | np.bool_) else None


_ENCODERS: dict[str, Callable[[Any], Any]] = {
    "f": _encode_float,
    "c": _encode_complex,
    "i": _encode_int,
    "u": _encode_int,
    "b": _encode_bool,
}


def _decode_float(value: Any) -> Any:
    if not isinstance(value, str) or value in _NOT_FINITE:
        return _numbers(value)
    try:
        return struct.unpack("<d", base64.standard_b64decode(value))[0]
    except (ValueError, struct.error) as error:
        raise ManifestError(f"_FillValue {value!r} is not the base64 of a double, as xarray writes it") from error


def _decode_complex(value: Any) -> Any:
    return complex(*map(_decode_float, value)) if isinstance(value, list) and len(value) == 2 else value


_DECODERS: dict[str, Callable[[Any], Any]] = {"f": _decode_float, "c": _decode_complex}


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _to_json(name: str, value: Any, strict: bool) -> Any:
    for kinds, convert in _JSON_FORMS:
        if isinstance(value, kinds):
            return convert(name, value, strict)
    raise ManifestError(
        f"the attribute {name!r} is a {type(value).__name__}, which JSON has no form for; use numbers, text, bytes, "
        "arrays, lists or dictionaries of them"
    )


def _float_form(name: str, value: Any, strict: bool) -> float | str:
    number = float(value)
    if math.isfinite(number) or not strict:
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _sequence_form(name: str, value: Any, strict: bool) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return _to_json(name, value[()], strict)
    return [_to_json(name, item, strict) for item in value]


def _mapping_form(name: str, value: Mapping[Any, Any], strict: bool) -> dict[str, Any]:
    return {str(key): _to_json(name, item, strict) for key, item in value.items()}


def _void_form(name: str, value: np.void, strict: bool) -> Any:
    if value.dtype.names is None:
        return base64.standard_b64encode(value.tobytes()).decode("ascii")
    return {field: _to_json(name, value[field], strict) for field in value.dtype.names}


#: From kinds of values to their JSON, in the order in which they are tried.
_JSON_FORMS: tuple[tuple[Any, Callable[[str, Any, bool], Any]], ...] = (
    ((bool, np.bool_), lambda name, value, strict: bool(value)),
    (str, lambda name, value, strict: str(value)),
    (bytes, lambda name, value, strict: bytes(value).decode("utf-8", "backslashreplace")),
    ((np.datetime64, np.timedelta64), lambda name, value, strict: str(value)),
    ((int, np.integer), lambda name, value, strict: int(value)),
    ((float, np.floating), _float_form),
    ((complex, np.complexfloating), lambda name, value, strict: _sequence_form(name, [value.real, value.imag], strict)),
    (np.void, _void_form),
    ((list, tuple, np.ndarray), _sequence_form),
    (Mapping, _mapping_form),
    (type(None), lambda name, value, strict: None),
)


def with_bounds_units(attributes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give the bounds of time coordinates the units of the coordinate, which CF lets a file leave out.

    Bounds counted from another epoch are other values. With the units on them, that is seen when they are combined.

    Parameters
    ----------
    attributes
        The attributes of the arrays of a group, by name; they are changed.
    """
    for own in attributes.values():
        units, bounds = own.get("units"), own.get("bounds")
        if isinstance(units, str) and "since" in units and isinstance(bounds, str) and bounds in attributes:
            attributes[bounds].setdefault("units", units)
            if "calendar" in own:
                attributes[bounds].setdefault("calendar", own["calendar"])
    return attributes
