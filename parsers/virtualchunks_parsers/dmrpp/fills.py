"""Fill values of a DMR++: what the chunks that a file never stored read as.

They are written as text, floats with few digits. Where the text is the rounding of the variable's ``_FillValue`` or
of the fill value that netCDF has for its type, that value is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from virtualchunks.errors import UnsupportedFeatureError

#: netCDF's fill values of floats (``NC_FILL_FLOAT``, ``NC_FILL_DOUBLE``).
NETCDF = 9.969209968386869e36
#: Digits that the writers of documents print, zeros at the end left out.
FEWEST_DIGITS = 6
_NUMBER = re.compile(r"[+-]?([0-9]*)\.?([0-9]*)(?:[eE][+-]?[0-9]+)?")


def fill_value(text: str, dtype: np.dtype[Any], attribute: Any = None) -> Any:
    """Return the fill value that a text means.

    Parameters
    ----------
    text
        ``fillValue`` of a variable.
    dtype
        Its dtype.
    attribute
        Its attribute ``_FillValue``, if there is one.

    Raises
    ------
    UnsupportedFeatureError
        If it means none: the software that wrote it says so with a text that begins with ``unsupported``.

    Examples
    --------
    >>> fill_value("9.96921e+36", np.dtype("f8"))
    np.float64(9.969209968386869e+36)
    """
    if text.startswith("unsupported"):
        raise UnsupportedFeatureError(f"the software that wrote the document could not read it: fillValue is {text!r}")
    try:
        if dtype.kind == "S":
            return np.array(text.encode(), dtype=dtype)[()]
        if dtype.names is not None:
            return _structure(text.split(), dtype)
        return _number(text.strip(), dtype, attribute)
    except (ValueError, OverflowError, StopIteration) as error:
        raise UnsupportedFeatureError(f"the fill value {text[:80]!r} is none of the type {dtype}") from error


def _number(text: str, dtype: np.dtype[Any], attribute: Any) -> Any:
    if dtype.kind != "f":
        return np.array(int(text), dtype=dtype)[()]
    digits = _NUMBER.fullmatch(text)
    if digits is not None:
        count = max(FEWEST_DIGITS, len((digits[1] + digits[2]).lstrip("0")))
        for meant in (attribute, NETCDF):
            if isinstance(meant, float) and float(f"{meant:.{count - 1}e}") == float(text):
                return np.array(meant, dtype=dtype)[()]
    return np.array(float(text), dtype=dtype)[()]


def _structure(texts: list[str], dtype: np.dtype[Any]) -> Any:
    values = iter(texts)
    value = np.array(_fields(values, dtype), dtype=dtype)[()]
    if next(values, None) is not None:
        raise ValueError("more values than fields")
    return value


def _fields(values: Iterator[str], dtype: np.dtype[Any]) -> tuple[Any, ...]:
    assert dtype.names is not None
    assert dtype.fields is not None
    parts = [dtype.fields[name][0] for name in dtype.names]
    return tuple(
        _fields(values, part) if part.names is not None else _number(_next(values), part, None) for part in parts
    )


def _next(values: Iterator[str]) -> str:
    text = next(values, None)
    if text is None:
        raise ValueError("fewer values than fields")
    return text
