"""Whether two readers agree about the values of a chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Difference:
    """How two sets of values differ.

    Parameters
    ----------
    message
        In words.
    share
        The share of values that differ.
    largest
        The largest difference of numbers; 1 for anything else.
    """

    message: str
    share: float
    largest: float


def difference(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> Difference | None:
    """Return how values differ; ``None`` where they do not. NaN is equal to NaN; byte orders and padding do not count.

    Parameters
    ----------
    ours, theirs
        What was read through references, and by the other reader; one-dimensional.
    known
        Which of `theirs` are values at all.

    Examples
    --------
    >>> difference(np.array([1.0, np.nan]), np.array([1.0, np.nan]), np.array([True, True])) is None
    True
    >>> difference(np.array([1, 2]), np.array([1, 5]), np.array([True, True])).message
    '1 of 2 values differ, at most by 3; the first is 2, the file has 5'
    """
    if ours.shape != theirs.shape:
        return Difference(f"{ours.size} values, the file has {theirs.size} there", 1.0, np.inf)
    ours, theirs = ours[known], theirs[known]
    unlike = _unlike(ours, theirs)
    if unlike is None:
        return Difference(f"values of dtype {ours.dtype}, the file has {theirs.dtype}", 1.0, np.inf)
    count = int(unlike.sum())
    if not count:
        return None
    place = int(np.flatnonzero(unlike)[0])
    largest = _largest(ours[unlike], theirs[unlike])
    by = f", at most by {largest:g}" if np.isfinite(largest) and ours.dtype.kind in "iufc" else ""
    return Difference(
        f"{count} of {len(ours)} values differ{by}; the first is {_plain(ours[place])}, the file has "
        f"{_plain(theirs[place])}",
        count / len(ours),
        largest,
    )


def _plain(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


def _unlike(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Return which values differ; ``None`` where they cannot be compared."""
    if ours.dtype.kind in "TUSO" or theirs.dtype.kind in "TUSO":
        return np.array([_text(one) != _text(other) for one, other in zip(ours, theirs, strict=True)], dtype=bool)
    if ours.dtype.names is not None and ours.dtype.names == theirs.dtype.names:
        fields = [_unlike(ours[name], theirs[name]) for name in ours.dtype.names]
        if any(field is None for field in fields):
            return None
        return np.any([field for field in fields if field is not None], axis=0)
    if ours.dtype.kind == "V" or theirs.dtype.kind == "V":
        return np.array([one.tobytes() != other.tobytes() for one, other in zip(ours, theirs, strict=True)], dtype=bool)
    if ours.dtype.kind not in "b" and ours.dtype.newbyteorder("=") != theirs.dtype.newbyteorder("="):
        return None
    equal = np.asarray(ours == theirs)
    if ours.dtype.kind in "fcmM":
        equal |= np.isnan(ours) & np.isnan(theirs)
    return ~equal


def _text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return bytes(value).rstrip(b"\0")


def _largest(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> float:
    if ours.dtype.kind not in "iufc":
        return 1.0
    with np.errstate(all="ignore"):
        wide = "c16" if ours.dtype.kind == "c" else "f8"
        distances = np.abs(ours.astype(wide) - theirs.astype(wide))
    return float(np.nanmax(distances)) if np.isfinite(distances).any() else np.inf
