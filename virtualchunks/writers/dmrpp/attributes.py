"""Attributes as DAP4 has them: numbers and text, several of one type, and containers of attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.writers.dmrpp.elements import legal

#: DAP4's names of numbers, by NumPy's names without the byte order.
NUMBERS: Mapping[str, str] = {
    "i1": "Int8",
    "u1": "Byte",
    "i2": "Int16",
    "u2": "UInt16",
    "i4": "Int32",
    "u4": "UInt32",
    "i8": "Int64",
    "u8": "UInt64",
    "f4": "Float32",
    "f8": "Float64",
}
#: Attributes whose values are of the type of the variable.
_OF_VARIABLE = frozenset({"_FillValue", "missing_value", "valid_min", "valid_max", "valid_range"})


def attribute_elements(
    attributes: Mapping[str, Any], path: str, dtype: np.dtype[Any] | None = None
) -> Iterator[Element]:
    """Iterate over the ``Attribute`` elements of an array or a group.

    Parameters
    ----------
    attributes
        Natural values.
    path
        The array or group.
    dtype
        dtype of the array.

    Raises
    ------
    UnsupportedFeatureError
        If DAP4 has no type for a value.
    """
    for name, value in attributes.items():
        what = f"the attribute {name!r}"
        if not name:
            raise UnsupportedFeatureError(f"an attribute of {path!r} has an empty name", variable=path)
        element = Element("Attribute", name=legal(name, "the name of an attribute", path))
        if isinstance(value, Mapping):
            element.set("type", "Container")
            element.extend(attribute_elements(value, path))
        else:
            kind, texts = _values(value, what, path, dtype if name in _OF_VARIABLE else None)
            element.set("type", kind)
            for text in texts:
                SubElement(element, "Value").text = legal(text, what, path)
        yield element


def _values(value: Any, what: str, path: str, wanted: np.dtype[Any] | None) -> tuple[str, list[str]]:
    """Return DAP4's type of a value, and the texts of its elements."""
    if isinstance(value, str | bytes):
        return "String", [_text(value)]
    items = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    if isinstance(items, list | tuple) and items and all(isinstance(item, str | bytes) for item in items):
        return "String", [_text(item) for item in items]
    if isinstance(items, list | tuple) and any(isinstance(item, str | bytes) for item in items):
        raise _unsupported(what, path, "text among other values")
    array = np.asarray(value)
    if array.ndim > 1:
        raise _unsupported(what, path, f"an array of {array.ndim} dimensions")
    kind = NUMBERS.get(_stored(array, value, wanted).str[1:])
    if kind is None:
        raise _unsupported(what, path, f"of the type {array.dtype if array.dtype != object else type(value).__name__}")
    return kind, [number_text(item) for item in array.ravel().tolist()]


def _stored(array: npt.NDArray[Any], value: Any, wanted: np.dtype[Any] | None) -> np.dtype[Any]:
    """Return the dtype to write numbers as: the variable's where it holds them, and Int32 for small ones of Python."""
    if array.dtype.kind not in "iuf":
        return array.dtype
    if wanted is not None and wanted.str[1:] in NUMBERS:
        with np.errstate(all="ignore"):
            cast = array.astype(wanted)
        if np.array_equal(cast, array, equal_nan=True) and cast.dtype.kind == array.dtype.kind:
            return wanted
    if array.dtype == np.float16:
        return np.dtype("f4")
    is_python = not isinstance(value, np.generic | np.ndarray)
    fits = array.dtype.kind == "i" and bool((array == array.astype("i4")).all())
    return np.dtype("i4") if is_python and fits else array.dtype


def number_text(value: float) -> str:
    """Return the text of a number, which reads back as the same.

    Examples
    --------
    >>> number_text(3), number_text(0.1), number_text(float("nan"))
    ('3', '0.1', 'nan')
    """
    return repr(value)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def _unsupported(what: str, path: str, found: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"{what} of {path!r} is {found}, for which DAP4 has no type: known are text, numbers of "
        f"{', '.join(NUMBERS)}, lists of either, and dictionaries of these; change it, or leave it out",
        variable=path,
    )
