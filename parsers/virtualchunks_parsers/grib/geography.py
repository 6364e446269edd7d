"""The horizontal dimensions of a field and the coordinates of its grid points.

Values stay in the order of the message. Where that order is rows of one latitude and columns of one longitude, the
coordinates are two short arrays in memory. Elsewhere latitudes and longitudes are arrays of the field's shape, which
the codec computes from the first message when they are read: parsing keeps nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from virtualchunks.codecs.grib_handle import MOST_VALUES, Keys
from virtualchunks.errors import LimitExceededError, UnsupportedFeatureError

#: Points of a rectangular grid up to which ecCodes is asked for all of them while parsing.
MOST_POINTS = 1 << 23
#: Points of another grid up to which it is tried whether ecCodes computes their coordinates: projections take long.
MOST_TRIED = 1 << 18
#: Grids whose rows have one latitude and whose columns have one longitude.
RECTANGULAR = frozenset({"regular_ll", "regular_gg"})

#: Grids whose coordinates ecCodes computes.
LOCATED = RECTANGULAR | {
    *("reduced_ll", "reduced_gg", "rotated_ll", "rotated_gg", "reduced_rotated_gg", "lambert", "polar_stereographic"),
    *("mercator", "lambert_azimuthal_equal_area", "albers", "space_view", "healpix"),
}
#: Fields without coordinates, or whose coordinates are in another file.
UNLOCATED = frozenset({"sh", "unstructured_grid"})

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Geography:
    """Where the values of a field are.

    Parameters
    ----------
    dimensions, shape
        Of the values of one field.
    axes
        Coordinates with one dimension, by its name.
    computed
        Whether latitudes and longitudes of the field's shape can be computed from its message.
    """

    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    axes: Mapping[str, Float64] = field(default_factory=dict)
    computed: bool = False


def geography_of(keys: Keys) -> Geography:
    """Return where the values of a field are.

    Parameters
    ----------
    keys
        Of a message with its headers.

    Raises
    ------
    UnsupportedFeatureError
        If it has no values.
    LimitExceededError
        If its grid has more points than the codec decodes.
    """
    count = number_of_values(keys)
    if count < 1:
        raise UnsupportedFeatureError("its grid has no points")
    if count > MOST_VALUES:
        raise LimitExceededError(f"its grid claims {count} points; at most {MOST_VALUES} are decoded")
    nx, ny = keys.get("Nx"), keys.get("Ny")
    columns_first = bool(keys.get("jPointsAreConsecutive", int))
    if not isinstance(nx, int) or not isinstance(ny, int) or nx * ny != count:
        return Geography(("values",), (count,), computed=_is_located(keys, count))
    shape = (nx, ny) if columns_first else (ny, nx)
    if keys.get("gridType") in RECTANGULAR and not keys.get("alternativeRowScanning", int):
        axes = _axes(keys, shape)
        if axes is not None:
            names = ("longitude", "latitude") if columns_first else ("latitude", "longitude")
            return Geography(names, shape, dict(zip(names, axes if not columns_first else axes[::-1], strict=True)))
    return Geography(("x", "y") if columns_first else ("y", "x"), shape, computed=_is_located(keys, count))


def number_of_values(keys: Keys) -> int:
    """Return how many values the field has."""
    if keys.get("gridType") != "sh":
        return keys.size("values")
    waves = {keys.get(name, int) for name in ("J", "K", "M")}
    largest: int | None = waves.pop() if len(waves) == 1 else None
    if largest is None or largest < 0:
        raise UnsupportedFeatureError("its spherical harmonics are not truncated to a triangle")
    return (largest + 1) * (largest + 2)


def _is_located(keys: Keys, count: int) -> bool:
    """Whether ecCodes can compute coordinates, which is tried, except on large grids."""
    if count > MOST_TRIED or keys.get("gridType") in UNLOCATED:
        return keys.get("gridType") in LOCATED
    latitudes = keys.sequence("latitudes")
    return latitudes is not None and latitudes.shape == (count,)


def _axes(keys: Keys, shape: tuple[int, ...]) -> tuple[Float64, Float64] | None:
    """Latitudes and longitudes of a rectangular grid, in the order of the message."""
    if shape[0] * shape[1] > MOST_POINTS:
        return _linear(keys) if keys.get("gridType") == "regular_ll" else None
    columns_first = bool(keys.get("jPointsAreConsecutive", int))
    latitudes = _constant_along(keys.sequence("latitudes"), shape, 0 if columns_first else 1)
    longitudes = _constant_along(keys.sequence("longitudes"), shape, 1 if columns_first else 0)
    return None if latitudes is None or longitudes is None else (latitudes, longitudes)


def _constant_along(points: Float64 | None, shape: tuple[int, ...], axis: int) -> Float64 | None:
    if points is None or points.size != shape[0] * shape[1]:
        return None
    block = points.reshape(shape)
    line = block.take([0], axis=axis)
    return np.array(line.ravel()) if bool((block == line).all()) else None


def _linear(keys: Keys) -> tuple[Float64, Float64] | None:
    ends = [
        keys.get(f"{name}Of{end}GridPointInDegrees", float)
        for name in ("latitude", "longitude")
        for end in ("First", "Last")
    ]
    north, south, west, east = ends
    if None in ends:
        return None
    if keys.get("iScansNegatively", int):
        west += 360 if west < east else 0
    else:
        east += 360 if east < west else 0
    return np.linspace(north, south, keys.get("Ny")), np.linspace(west, east, keys.get("Nx"))
