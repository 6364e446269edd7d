"""ecCodes behind one door: a GRIB message as a mapping of keys, and its values as an array.

The only module that imports ecCodes; it does so when it is called. ecCodes calls run without the interpreter's lock
and each handle is used by one thread, so messages decode in parallel.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import (
    DecodeError,
    FormatError,
    LimitExceededError,
    MissingDependencyError,
    UnsupportedFeatureError,
)

#: What ecCodes is told to put where a value is missing; no packing of GRIB gives it as a value.
MISSING = -1.2345678901234567e305
#: How large the values of one field may be, in elements: 2 GiB.
MOST_VALUES = 1 << 28
#: Keys of the coordinates of grid points, which ecCodes computes.
POINTS = frozenset({"latitudes", "longitudes"})
#: Grids whose latitudes are the zeros of a Legendre polynomial, and how many of them, at most, are computed on one
#: hemisphere.
GAUSSIAN, MOST_PARALLELS = frozenset({"regular_gg", "rotated_gg"}), 1 << 14
#: What ecCodes answers where a key has no meaning.
UNDEFINED = ("undef", "unknown")


@cache
def eccodes() -> ModuleType:
    """Return ecCodes.

    Raises
    ------
    MissingDependencyError
        If it is not installed, with the name of the extra that brings it.
    """
    try:
        return importlib.import_module("eccodes")
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(f"GRIB needs ecCodes: pip install 'virtualchunks[grib]' ({error})") from error


class Keys:
    """The keys of one GRIB message, read one by one.

    Parameters
    ----------
    handle
        An open handle of ecCodes; :func:`opened` gives one.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._eccodes = eccodes()

    def get(self, name: str, kind: type | None = None) -> Any:
        """Return the value of a key, as `kind` if given; ``None`` where there is no such key or it is missing."""
        module = self._eccodes
        try:
            if kind is None and module.codes_is_missing(self._handle, name):
                return None
            value = module.codes_get(self._handle, name, ktype=kind)
        except module.CodesInternalError:
            return None
        return None if isinstance(value, str) and value in UNDEFINED else value

    def sequence(self, name: str) -> npt.NDArray[Any] | None:
        """Return the values of a key that has several; ``None`` where there are none or they cannot be computed."""
        module = self._eccodes
        if name in POINTS and not self._begins_on_its_parallels():
            return None
        try:
            values = module.codes_get_array(self._handle, name)
        except (module.CodesInternalError, ValueError):
            return None
        return np.asarray(values)

    def _begins_on_its_parallels(self) -> bool:
        """Whether a Gaussian grid begins no further north than it reaches: ecCodes ends the process otherwise."""
        if self.get("gridType") not in GAUSSIAN:
            return True
        count, first = self.get("N", int), self.get("latitudeOfFirstGridPointInDegrees", float)
        if count is None or first is None or not 0 < count <= MOST_PARALLELS:
            return False
        northernmost = max(self._eccodes.codes_get_gaussian_latitudes(count))
        return bool(first < northernmost + (1e-3 if self.get("edition", int) == 1 else 1e-6))

    def size(self, name: str) -> int:
        """Return how many values a key has; 0 where it has none."""
        module = self._eccodes
        try:
            return int(module.codes_get_size(self._handle, name))
        except module.CodesInternalError:
            return 0

    def values(self) -> npt.NDArray[np.float64]:
        """Return the values of the field in the order of the message; NaN where they are missing."""
        module = self._eccodes
        module.codes_set(self._handle, "missingValue", MISSING)
        values: npt.NDArray[np.float64] = module.codes_get_values(self._handle)
        values[values == MISSING] = np.nan
        return values


@contextmanager
def opened(message: bytes) -> Iterator[Keys]:
    """Open a GRIB message.

    Parameters
    ----------
    message
        All its bytes.

    Raises
    ------
    FormatError
        If ecCodes does not take it for one.
    """
    module = eccodes()
    try:
        handle = module.codes_new_from_message(message)
    except module.CodesInternalError as error:
        raise FormatError(f"ecCodes does not read this message of {len(message)} bytes: {error}") from error
    try:
        yield Keys(handle)
    finally:
        module.codes_release(handle)


def with_keys(message: bytes, keys: Mapping[str, Any]) -> bytes:
    """Return a message with the values of some keys changed.

    Parameters
    ----------
    message
        All bytes of a message.
    keys
        What to set, in order; ``None`` for a missing value.

    Raises
    ------
    UnsupportedFeatureError
        If the message cannot have one of the values.
    """
    module = eccodes()
    handle = module.codes_new_from_message(message)
    try:
        for name, value in keys.items():
            if value is None:
                module.codes_set_missing(handle, name)
            else:
                module.codes_set(handle, name, value)
        changed: bytes = module.codes_get_message(handle)
    except module.CodesInternalError as error:
        raise UnsupportedFeatureError(f"ecCodes does not set {name} to {value!r} in these headers: {error}") from error
    finally:
        module.codes_release(handle)
    return changed


def read_array(message: bytes, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the values of a field, or the latitudes or longitudes of its grid points, in the order of the message.

    Parameters
    ----------
    message
        All bytes of a message with one field.
    name
        ``"values"``, ``"latitudes"`` or ``"longitudes"``.
    shape
        The shape that they must have: the last axis is a row of the grid, where the message has rows.

    Raises
    ------
    DecodeError, FormatError
        If they cannot be decoded, or are not as many.
    LimitExceededError
        If they are more than :data:`MOST_VALUES`.
    """
    count = math.prod(shape)
    if count > MOST_VALUES:
        raise LimitExceededError(f"a GRIB field of {count} values; at most {MOST_VALUES} are decoded")
    with opened(message) as keys:
        found = keys.size("values")
        if found != count:
            raise DecodeError(f"the GRIB message has {found} values, expected {count}")
        try:
            array = keys.values() if name == "values" else keys.sequence(name)
            turned = name != "values" and bool(keys.get("alternativeRowScanning", int))
        except (eccodes().CodesInternalError, ValueError) as error:
            raise DecodeError(f"ecCodes does not decode the {name} of this message: {error}") from error
    if array is None or array.shape != (count,):
        raise DecodeError(f"ecCodes gives no {count} {name} for this message")
    row = next((size for size in reversed(shape) if size > 1), 1)
    if turned:  # ecCodes gives coordinates as if all rows ran the same way
        rows = array.reshape(-1, row)
        rows[1::2] = rows[1::2, ::-1].copy()
    return array.astype(np.float64, copy=False).reshape(shape)
