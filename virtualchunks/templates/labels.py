"""Labels: from what stands in a column to positions along a coordinate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import ManifestError

Values = npt.NDArray[Any]


def positions(name: str, coordinate: Values, column: Values, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """Return where each label stands in a coordinate.

    Parameters
    ----------
    name
        Of the dimension.
    coordinate
        Its labels, each once.
    column
        The labels to find.
    rows
        The number of each in the table, for messages.

    Raises
    ------
    ManifestError
        If a label is not in the coordinate, or is of a kind that cannot be; the message names the row.

    Examples
    --------
    >>> days = np.array(["2020-01-01", "2020-01-02"], dtype="M8[ns]")
    >>> positions("time", days, np.array(["2020-01-02"], dtype=object), np.array([7]))
    array([1])
    """
    labels, wrong = _converted(coordinate, column)
    if labels.dtype.kind == "O" or coordinate.dtype.kind == "O":
        known = {label: place for place, label in enumerate(coordinate.tolist())}
        found = np.fromiter((known.get(label, -1) for label in labels.tolist()), dtype=np.int64, count=len(labels))
    else:
        order = np.argsort(coordinate, kind="stable")
        ranked = coordinate[order]
        near = np.minimum(np.searchsorted(ranked, labels), len(ranked) - 1) if len(ranked) else np.zeros(0, np.intp)
        found = np.where(ranked[near] == labels, order[near], -1) if len(ranked) else np.full(len(labels), -1)
    found = np.where(wrong, -1, found)
    if (found < 0).any():
        bad = int(np.argmax(found < 0))
        raise ManifestError(
            f"row {int(rows[bad])}: no label {_shown(column[bad])} along {name!r}, which has {described(coordinate)}"
        )
    return found.astype(np.int64)


def check_unique(name: str, coordinate: Values) -> None:
    """Raise where a coordinate has a label twice, or one that equals nothing, such as NaN.

    Parameters
    ----------
    name
        Of the dimension.
    coordinate
        Its labels.

    Raises
    ------
    ManifestError
        Naming the label.
    """
    if coordinate.dtype.kind in "fcmM" and (coordinate != coordinate).any():
        place = int(np.argmax(coordinate != coordinate))
        raise ManifestError(f"the coordinate {name!r} has a label that is no value, at position {place}")
    if coordinate.dtype.kind == "O":
        counted = Counter(coordinate.tolist())
        twice = [label for label, count in counted.items() if count > 1]
    else:
        values, counts = np.unique(coordinate, return_counts=True)
        twice = list(values[counts > 1])
    if twice:
        raise ManifestError(
            f"the coordinate {name!r} has the label {_shown(twice[0])} more than once, so it names no place"
        )


def described(coordinate: Values) -> str:
    """Return a coordinate in a few words."""
    if len(coordinate) <= 4:
        return "the labels " + ", ".join(map(_shown, coordinate)) if len(coordinate) else "no labels"
    return f"{len(coordinate)} labels from {_shown(coordinate[0])} to {_shown(coordinate[-1])}"


def _converted(coordinate: Values, column: Values) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Return labels in the dtype in which they are compared, and which of them have no value in it."""
    kind = coordinate.dtype.kind
    convert = {"M": _times, "m": _times, "f": _floats, "i": _integers, "u": _integers, "U": _texts, "b": _booleans}.get(
        kind
    )
    if convert is None:
        return column, np.zeros(len(column), dtype=bool)
    return convert(coordinate, column)


def _times(coordinate: Values, column: Values) -> tuple[Values, npt.NDArray[np.bool_]]:
    if column.dtype.kind == coordinate.dtype.kind:
        common = np.result_type(coordinate.dtype, column.dtype)
        labels = column.astype(coordinate.dtype)
        return labels, (labels.astype(common) != column.astype(common)) | np.isnat(labels)
    values = column.tolist()
    known = {value: _time(value, coordinate.dtype) for value in dict.fromkeys(values)}
    labels = np.array([known[value] for value in values], dtype=coordinate.dtype)
    return labels, np.isnat(labels)


def _time(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return a label as a time of a dtype; NaT for what is none, or falls between two of its times."""
    make: Any = np.datetime64 if dtype.kind == "M" else np.timedelta64
    nat = np.array("NaT", dtype=dtype)[()]
    if hasattr(value, "to_numpy"):
        value = (value.tz_convert(None) if getattr(value, "tzinfo", None) is not None else value).to_numpy()
    if getattr(value, "tzinfo", None) is not None:
        value = (value - value.utcoffset()).replace(tzinfo=None)
    if isinstance(value, str) and dtype.kind == "M":
        value = value.removesuffix("Z")
    elif value is None or isinstance(value, int | float | str):
        return nat
    try:
        found = make(value)
    except (TypeError, ValueError, OverflowError):
        return nat
    exact = found.astype(dtype)
    return exact if exact.astype(found.dtype) == found else nat


def _numbers(column: Values) -> tuple[Values, npt.NDArray[np.bool_]]:
    if column.dtype.kind in "iuf":
        return column, np.zeros(len(column), dtype=bool)
    wrong = np.array(
        [isinstance(value, bool) or not isinstance(value, int | float) for value in column.tolist()], dtype=bool
    )
    numbers = [0 if bad else value for value, bad in zip(column.tolist(), wrong, strict=True)]
    return np.array(numbers) if numbers else np.empty(0), wrong


def _floats(coordinate: Values, column: Values) -> tuple[Values, npt.NDArray[np.bool_]]:
    numbers, wrong = _numbers(column)
    labels = numbers.astype(coordinate.dtype)
    return labels, wrong | np.isnan(labels)


def _integers(coordinate: Values, column: Values) -> tuple[Values, npt.NDArray[np.bool_]]:
    numbers, wrong = _numbers(column)
    with np.errstate(invalid="ignore"):
        labels = numbers.astype(coordinate.dtype)
    return labels, wrong | (labels != numbers)


def _texts(coordinate: Values, column: Values) -> tuple[Values, npt.NDArray[np.bool_]]:
    wrong = np.array([not isinstance(value, str) for value in column.tolist()], dtype=bool)
    return np.where(wrong, "", column).astype(str), wrong


def _booleans(coordinate: Values, column: Values) -> tuple[Values, npt.NDArray[np.bool_]]:
    wrong = np.array([not isinstance(value, bool) for value in column.tolist()], dtype=bool)
    return np.where(wrong, False, column).astype(bool), wrong


_CONVERT: dict[str, Callable[[Values, Values], tuple[Values, npt.NDArray[np.bool_]]]] = {
    "M": _times,
    "m": _times,
    "f": _floats,
    "i": _integers,
    "u": _integers,
    "U": _texts,
    "b": _booleans,
}


def _shown(label: Any) -> str:
    if isinstance(label, np.generic):
        label = str(label) if label.dtype.kind in "mM" else label.item()
    return repr(label)
