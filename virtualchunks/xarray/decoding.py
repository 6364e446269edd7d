"""From stored numbers to a variable's values: what :func:`xarray.open_dataset` makes of them, apart from coordinates.

xarray decides what numbers mean. Where it does plain arithmetic (packing, see :mod:`virtualchunks.packing`), nothing at
all, or turns counts into times, its result is made here in one step: coordinates are loaded from every file of an
archive, and most of the work of its general path is to keep them lazy. Everything else takes that path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.coding.times import decode_cf_datetime
from xarray.conventions import decode_cf_variables

from virtualchunks.errors import DecodeError
from virtualchunks.metadata import is_time
from virtualchunks.packing import PACKING_ATTRIBUTES, Packing

_PACKING = frozenset(PACKING_ATTRIBUTES)
_FAILURES = (ValueError, TypeError, OverflowError)


def plain_values(values: Any) -> Any:
    """Return values as xarray's other backends have them: variable-length strings as objects."""
    return values.astype(object) if values.dtype.kind == "T" else values


def text_encoding(dtype: Any) -> dict[str, Any]:
    """Return the encoding by which xarray's other backends mark text of any length, so that it is decoded alike."""
    return {"dtype": str} if dtype.kind == "T" else {}


def decode_values(
    stored: Mapping[str, tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]],
    *,
    url: str | None,
    decode_times: Any = None,
    mask_and_scale: bool = True,
) -> dict[str, xr.Variable]:
    """Decode values that are in memory, as :func:`decode_variables` does.

    Parameters
    ----------
    stored
        Dimensions, stored values and attributes of each variable.
    url, decode_times, mask_and_scale
        As for :func:`decode_variables`.

    Raises
    ------
    DecodeError
        If xarray cannot decode one.
    """
    decoded = {name: _at_once(*parts, decode_times, mask_and_scale) for name, parts in stored.items()}
    rest = {
        name: xr.Variable(dims, plain_values(values), attributes, text_encoding(values.dtype))
        for name, (dims, values, attributes) in stored.items()
        if decoded[name] is None
    }
    if rest:
        decoded |= decode_variables(rest, url=url, decode_times=decode_times, mask_and_scale=mask_and_scale)
    return {name: variable for name, variable in decoded.items() if variable is not None}


def decode_variables(
    variables: dict[str, xr.Variable], *, url: str | None, decode_times: Any = None, mask_and_scale: bool = True
) -> dict[str, xr.Variable]:
    """Decode variables as :func:`xarray.open_dataset` does, apart from their coordinates.

    Parameters
    ----------
    variables
        Stored values, or arrays that read them when they are indexed.
    url
        Where they are from, for errors.
    decode_times, mask_and_scale
        As for :func:`xarray.open_dataset`; ``None`` for its default.

    Raises
    ------
    DecodeError
        If xarray cannot decode one.
    """
    try:
        decoded, _, _ = decode_cf_variables(
            variables,
            {},
            decode_times=True if decode_times is None else decode_times,
            mask_and_scale=mask_and_scale,
            decode_coords=False,
        )
    except _FAILURES as error:
        note = str(next(iter(getattr(error, "__notes__", ())), "variables")).partition(" with value")[0]
        raise DecodeError(f"cannot decode {note.removeprefix('Raised while decoding ')}: {error}", url=url) from error
    return {str(name): variable for name, variable in decoded.items()}


def _at_once(
    dimensions: tuple[str, ...],
    values: npt.NDArray[Any],
    attributes: dict[str, Any],
    decode_times: Any,
    mask_and_scale: bool,
) -> xr.Variable | None:
    """Return what xarray makes of values, ``None`` where that is its own to say."""
    packed = not _PACKING.isdisjoint(attributes)
    if values.dtype.kind not in "iuf" or not values.dtype.isnative or not values.size or "dtype" in attributes:
        return None
    if isinstance(attributes.get("units"), str) and (is_time(attributes["units"]) or "since" in attributes["units"]):
        counted = decode_times in (None, True) and not packed
        return _as_times(dimensions, values, attributes) if counted else None
    if not packed:
        return xr.Variable(dimensions, values, dict(attributes), {"dtype": values.dtype}, fastpath=True)
    packing = Packing.of(attributes, values.dtype) if mask_and_scale and values.dtype.kind == "f" else None
    if packing is None:
        return None
    rest = {name: value for name, value in attributes.items() if name not in packing.attributes}
    encoding = {**packing.attributes, "dtype": values.dtype}
    return xr.Variable(dimensions, packing.lift(values), rest, encoding, fastpath=True)


def _as_times(dimensions: tuple[str, ...], values: npt.NDArray[Any], attributes: dict[str, Any]) -> xr.Variable | None:
    """Return the times that numbers count, where NumPy has such times; xarray decodes them lazily, and thus twice."""
    units, calendar = attributes["units"], attributes.get("calendar")
    if "since" not in units:
        return None
    try:
        times = decode_cf_datetime(values, units, calendar, None, "ns")
    except _FAILURES:
        return None
    if times.shape != values.shape:
        return None
    rest = {name: value for name, value in attributes.items() if name not in ("units", "calendar")}
    counted = {name: attributes[name] for name in ("units", "calendar") if name in attributes}
    return xr.Variable(dimensions, np.asarray(times), rest, {**counted, "dtype": values.dtype}, fastpath=True)
