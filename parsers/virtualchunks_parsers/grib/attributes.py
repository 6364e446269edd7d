"""Attributes of variables and groups, under the names that cfgrib gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from virtualchunks.codecs.grib_handle import Keys

#: Keys that become attributes ``GRIB_…`` of a variable.
VARIABLE_KEYS = (
    "paramId",
    "dataType",
    "numberOfPoints",
    "typeOfLevel",
    "stepType",
    "gridType",
    "uvRelativeToGrid",
    "shortName",
    "units",
    "name",
    "cfName",
    "cfVarName",
    "totalNumber",
    "numberOfDirections",
    "numberOfFrequencies",
    "NV",
    "gridDefinitionDescription",
)
_SCANNING = ("iScansNegatively", "jScansPositively", "jPointsAreConsecutive")
_CORNERS = (
    "latitudeOfFirstGridPointInDegrees",
    "latitudeOfLastGridPointInDegrees",
    "longitudeOfFirstGridPointInDegrees",
    "longitudeOfLastGridPointInDegrees",
)
_INCREMENTS = ("iDirectionIncrementInDegrees", "jDirectionIncrementInDegrees")
_POLE = ("angleOfRotationInDegrees", "latitudeOfSouthernPoleInDegrees", "longitudeOfSouthernPoleInDegrees")
_FIRST = _CORNERS[::2]
#: Further keys that describe a grid, by its type.
GRID_KEYS: Mapping[str, tuple[str, ...]] = {
    "regular_ll": ("Nx", "Ny", *_CORNERS, *_INCREMENTS, *_SCANNING),
    "rotated_ll": ("Nx", "Ny", *_CORNERS, *_INCREMENTS, *_SCANNING, *_POLE),
    "reduced_ll": ("Ny", "jDirectionIncrementInDegrees", *_CORNERS[:2], *_SCANNING, "pl"),
    "regular_gg": ("N", "Nx", "Ny", *_CORNERS, _INCREMENTS[0], *_SCANNING),
    "rotated_gg": ("N", "Nx", "Ny", *_CORNERS, _INCREMENTS[0], *_SCANNING, *_POLE),
    "reduced_gg": ("N", "pl"),
    "reduced_rotated_gg": ("N", "pl", *_POLE),
    "lambert": (
        *("Nx", "Ny", "DxInMetres", "DyInMetres", "LaDInDegrees", "LoVInDegrees", "Latin1InDegrees", "Latin2InDegrees"),
        *(*_FIRST, *_SCANNING, *_POLE[1:]),
    ),
    "polar_stereographic": (
        *("Nx", "Ny", "DxInMetres", "DyInMetres", "LaDInDegrees", "orientationOfTheGridInDegrees"),
        *(*_FIRST, *_SCANNING, "projectionCentreFlag"),
    ),
    "mercator": ("Nx", "Ny", "DiInMetres", "DjInMetres", "LaDInDegrees", *_CORNERS, *_SCANNING),
    "lambert_azimuthal_equal_area": (
        *("Nx", "Ny", "DxInMetres", "DyInMetres", "standardParallelInDegrees", "centralLongitudeInDegrees"),
        *(*_FIRST, *_SCANNING),
    ),
    "space_view": (
        *("Nx", "Ny", "dx", "dy", "XpInGridLengths", "YpInGridLengths", "NrInRadiusOfEarthScaled"),
        *("latitudeOfSubSatellitePointInDegrees", "longitudeOfSubSatellitePointInDegrees"),
    ),
    "healpix": ("Nside", "orderingConvention"),
    "unstructured_grid": ("numberOfGridUsed", "numberOfGridInReference", "uuidOfHGrid"),
    "sh": ("M", "K", "J"),
}
#: Keys that become attributes ``GRIB_…`` of a group.
GROUP_KEYS = ("edition", "centre", "centreDescription", "subCentre")

#: Attributes of coordinates; others have :func:`other_coordinate`.
COORDINATES: Mapping[str, Mapping[str, str]] = {
    "latitude": {"units": "degrees_north", "standard_name": "latitude", "long_name": "latitude"},
    "longitude": {"units": "degrees_east", "standard_name": "longitude", "long_name": "longitude"},
    "number": {"units": "1", "standard_name": "realization", "long_name": "ensemble member numerical id"},
    "time": {
        "units": "seconds since 1970-01-01T00:00:00",
        "calendar": "proleptic_gregorian",
        "standard_name": "forecast_reference_time",
        "long_name": "initial time of forecast",
    },
    "step": {
        "units": "hours",
        "standard_name": "forecast_period",
        "long_name": "time since forecast_reference_time",
        "dtype": "timedelta64[ns]",
    },
    "valid_time": {
        "units": "seconds since 1970-01-01T00:00:00",
        "calendar": "proleptic_gregorian",
        "standard_name": "time",
        "long_name": "time",
    },
    "depthBelowLand": {"units": "m", "positive": "down", "long_name": "soil depth", "standard_name": "depth"},
    "depthBelowLandLayer": {"units": "m", "positive": "down", "long_name": "soil depth", "standard_name": "depth"},
    "hybrid": {
        "units": "1",
        "positive": "down",
        "long_name": "hybrid level",
        "standard_name": "atmosphere_hybrid_sigma_pressure_coordinate",
    },
    "heightAboveGround": {
        "units": "m",
        "positive": "up",
        "long_name": "height above the surface",
        "standard_name": "height",
    },
    "isobaricInhPa": {
        "units": "hPa",
        "positive": "down",
        "stored_direction": "decreasing",
        "standard_name": "air_pressure",
        "long_name": "pressure",
    },
    "isobaricInPa": {
        "units": "Pa",
        "positive": "down",
        "stored_direction": "decreasing",
        "standard_name": "air_pressure",
        "long_name": "pressure",
    },
    "isobaricLayer": {"units": "Pa", "positive": "down", "standard_name": "air_pressure", "long_name": "pressure"},
}


def coordinate_attributes(name: str, key: str) -> dict[str, str]:
    """Return the attributes of a coordinate.

    Parameters
    ----------
    name
        Its name.
    key
        The GRIB key it was made from.
    """
    other = {"units": "1", "long_name": f"original GRIB coordinate for key: {key}({name})"}
    return {**other, **COORDINATES.get(name, {})}


def variable_attributes(keys: Keys) -> dict[str, Any]:
    """Return the attributes of a variable, from the keys of its first message."""
    found: dict[str, Any] = {}
    for key in (*VARIABLE_KEYS, *GRID_KEYS.get(keys.get("gridType") or "", ("Nx", "Ny"))):
        value = keys.get(key) if key != "pl" else _list(keys.sequence(key))
        if value is not None:
            found[f"GRIB_{key}"] = value
    named = {"standard_name": "GRIB_cfName", "long_name": "GRIB_name", "units": "GRIB_units"}
    described = {name: found[key] for name, key in named.items() if key in found}
    fallback = {"long_name": f"original GRIB paramId: {found.get('GRIB_paramId', 'undef')}", "units": "1"}
    return {**found, "GRIB_stepUnits": 1, **fallback, **described}


def _list(values: Any) -> list[Any] | None:
    return None if values is None else np.asarray(values).tolist()


def group_attributes(keys: Keys) -> dict[str, Any]:
    """Return the attributes of a group, from the keys of one of its messages."""
    found = {f"GRIB_{key}": value for key in GROUP_KEYS if (value := keys.get(key)) is not None}
    if "GRIB_centreDescription" in found:
        found["institution"] = found["GRIB_centreDescription"]
    return {**found, "Conventions": "CF-1.7"}
