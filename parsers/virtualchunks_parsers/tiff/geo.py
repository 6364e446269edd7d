"""GeoTIFF: where the pixels of an image are, and in which coordinate reference system.

References
----------
OGC GeoTIFF Standard 1.1 (OGC 19-008r4), sections 7.1 (GeoKeyDirectory) and 7.2.3 (raster to model transformation);
CF conventions, appendix F (grid mappings).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks_parsers.tiff.structure import IFD

MODEL_PIXEL_SCALE, MODEL_TIEPOINT, MODEL_TRANSFORMATION = 33550, 33922, 34264
GEO_KEY_DIRECTORY, GEO_DOUBLE_PARAMS, GEO_ASCII_PARAMS = 34735, 34736, 34737

#: Fields that are read here.
FIELDS = (
    *(MODEL_PIXEL_SCALE, MODEL_TIEPOINT, MODEL_TRANSFORMATION),
    *(GEO_KEY_DIRECTORY, GEO_DOUBLE_PARAMS, GEO_ASCII_PARAMS),
)

#: GeoKeys by number (section 7.3), by the names that the standard gives them.
KEYS: Mapping[int, str] = {
    1024: "GTModelTypeGeoKey",
    1025: "GTRasterTypeGeoKey",
    1026: "GTCitationGeoKey",
    2048: "GeodeticCRSGeoKey",
    2049: "GeodeticCitationGeoKey",
    2050: "GeodeticDatumGeoKey",
    2051: "PrimeMeridianGeoKey",
    2052: "GeogLinearUnitsGeoKey",
    2053: "GeogLinearUnitSizeGeoKey",
    2054: "GeogAngularUnitsGeoKey",
    2055: "GeogAngularUnitSizeGeoKey",
    2056: "EllipsoidGeoKey",
    2057: "EllipsoidSemiMajorAxisGeoKey",
    2058: "EllipsoidSemiMinorAxisGeoKey",
    2059: "EllipsoidInvFlatteningGeoKey",
    2060: "GeogAzimuthUnitsGeoKey",
    2061: "PrimeMeridianLongitudeGeoKey",
    2062: "GeogTOWGS84GeoKey",
    3072: "ProjectedCRSGeoKey",
    3073: "ProjectedCitationGeoKey",
    3074: "ProjectionGeoKey",
    3075: "ProjMethodGeoKey",
    3076: "ProjLinearUnitsGeoKey",
    3077: "ProjLinearUnitSizeGeoKey",
    3078: "ProjStdParallel1GeoKey",
    3079: "ProjStdParallel2GeoKey",
    3080: "ProjNatOriginLongGeoKey",
    3081: "ProjNatOriginLatGeoKey",
    3082: "ProjFalseEastingGeoKey",
    3083: "ProjFalseNorthingGeoKey",
    3084: "ProjFalseOriginLongGeoKey",
    3085: "ProjFalseOriginLatGeoKey",
    3086: "ProjFalseOriginEastingGeoKey",
    3087: "ProjFalseOriginNorthingGeoKey",
    3088: "ProjCenterLongGeoKey",
    3089: "ProjCenterLatGeoKey",
    3090: "ProjCenterEastingGeoKey",
    3091: "ProjCenterNorthingGeoKey",
    3092: "ProjScaleAtNatOriginGeoKey",
    3093: "ProjScaleAtCenterGeoKey",
    3094: "ProjAzimuthAngleGeoKey",
    3095: "ProjStraightVertPoleLongGeoKey",
    3096: "ProjRectifiedGridAngleGeoKey",
    4096: "VerticalGeoKey",
    4097: "VerticalCitationGeoKey",
    4098: "VerticalDatumGeoKey",
    4099: "VerticalUnitsGeoKey",
}
#: Values of GTModelTypeGeoKey and GTRasterTypeGeoKey.
PROJECTED, GEOGRAPHIC = 1, 2
PIXEL_IS_POINT = 2
#: The value of GeogAngularUnitsGeoKey for degrees, in which CF has all angles.
DEGREE = 9102
STANDARD_PARALLELS = ("ProjStdParallel1GeoKey", "ProjStdParallel2GeoKey")
#: Codes that name nothing: undefined, user-defined.
NO_CODE = (0, 32767)
#: Coordinate arrays are held in memory up to this length.
LONGEST_AXIS = 1 << 24

_FALSE_ORIGIN = {
    "ProjFalseEastingGeoKey": "false_easting",
    "ProjFalseNorthingGeoKey": "false_northing",
    "ProjFalseOriginEastingGeoKey": "false_easting",
    "ProjFalseOriginNorthingGeoKey": "false_northing",
}
_ORIGIN = {
    "ProjNatOriginLatGeoKey": "latitude_of_projection_origin",
    "ProjFalseOriginLatGeoKey": "latitude_of_projection_origin",
    "ProjCenterLatGeoKey": "latitude_of_projection_origin",
}
_CENTRAL = {
    "ProjNatOriginLongGeoKey": "longitude_of_central_meridian",
    "ProjFalseOriginLongGeoKey": "longitude_of_central_meridian",
    "ProjCenterLongGeoKey": "longitude_of_central_meridian",
}
#: ProjMethodGeoKey → name in CF, and the GeoKeys that become its parameters.
METHODS: Mapping[int, tuple[str, Mapping[str, str]]] = {
    1: (
        "transverse_mercator",
        {**_CENTRAL, **_ORIGIN, "ProjScaleAtNatOriginGeoKey": "scale_factor_at_central_meridian", **_FALSE_ORIGIN},
    ),
    8: ("lambert_conformal_conic", {**_CENTRAL, **_ORIGIN, **_FALSE_ORIGIN}),
    10: (
        "lambert_azimuthal_equal_area",
        {
            "ProjCenterLongGeoKey": "longitude_of_projection_origin",
            "ProjCenterLatGeoKey": "latitude_of_projection_origin",
            **_FALSE_ORIGIN,
        },
    ),
    11: ("albers_conical_equal_area", {**_CENTRAL, **_ORIGIN, **_FALSE_ORIGIN}),
    15: (
        "polar_stereographic",
        {
            "ProjStraightVertPoleLongGeoKey": "straight_vertical_longitude_from_pole",
            "ProjNatOriginLatGeoKey": "standard_parallel",
            **_FALSE_ORIGIN,
        },
    ),
    24: (
        "sinusoidal",
        {"ProjCenterLongGeoKey": "longitude_of_projection_origin", **_FALSE_ORIGIN},
    ),
}


@dataclass(frozen=True)
class Transform:
    """An affine transformation from columns and rows to coordinates, from the outer corner of the first pixel.

    Parameters
    ----------
    c, a, b
        ``x = c + a * column + b * row``.
    f, d, e
        ``y = f + d * column + e * row``.

    Examples
    --------
    >>> Transform(c=100.0, a=10.0, b=0.0, f=50.0, d=0.0, e=-10.0).x(3).tolist()
    [105.0, 115.0, 125.0]
    """

    c: float
    a: float
    b: float
    f: float
    d: float
    e: float

    @property
    def is_rotated(self) -> bool:
        """Whether coordinates depend on both column and row."""
        return self.b != 0 or self.d != 0

    def x(self, width: int) -> npt.NDArray[np.float64]:
        """Coordinates of the centres of columns."""
        return np.asarray(self.c + self.a * (np.arange(width) + 0.5), dtype=np.float64)

    def y(self, height: int) -> npt.NDArray[np.float64]:
        """Coordinates of the centres of rows."""
        return np.asarray(self.f + self.e * (np.arange(height) + 0.5), dtype=np.float64)

    def scaled(self, across: float, down: float) -> Transform:
        """Return the transformation of the same area in pixels that many times larger."""
        return Transform(self.c, self.a * across, self.b * down, self.f, self.d * across, self.e * down)

    @property
    def text(self) -> str:
        """The six numbers in the order of GDAL's GeoTransform."""
        return " ".join(repr(float(number)) for number in (self.c, self.a, self.b, self.f, self.d, self.e))


@dataclass(frozen=True)
class GeoReference:
    """What a GeoTIFF says about where it is.

    Parameters
    ----------
    transform
        From pixels to coordinates; ``None`` where there is none, or control points alone.
    keys
        GeoKeys by name.
    """

    transform: Transform | None
    keys: Mapping[str, Any]

    def __bool__(self) -> bool:
        return self.transform is not None or bool(self.keys)

    @property
    def is_geographic(self) -> bool:
        """Whether coordinates are longitude and latitude."""
        return bool(self.keys.get("GTModelTypeGeoKey") == GEOGRAPHIC)

    @property
    def epsg(self) -> int | None:
        """EPSG code of the coordinate reference system, where it has one."""
        name = "GeodeticCRSGeoKey" if self.is_geographic else "ProjectedCRSGeoKey"
        code = self.keys.get(name)
        return code if isinstance(code, int) and code not in NO_CODE else None

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of a grid mapping variable."""
        found: dict[str, Any] = {}
        if self.epsg is not None:
            found |= {"spatial_ref": f"EPSG:{self.epsg}", "epsg_code": f"EPSG:{self.epsg}", **_described(self.epsg)}
        found = {**self._grid_mapping(), **found}
        if self.transform is not None:
            found["GeoTransform"] = self.transform.text
        return {**found, **self.keys}

    def _grid_mapping(self) -> dict[str, Any]:
        ellipsoid = {
            "semi_major_axis": self.keys.get("EllipsoidSemiMajorAxisGeoKey"),
            "semi_minor_axis": self.keys.get("EllipsoidSemiMinorAxisGeoKey"),
            "inverse_flattening": self.keys.get("EllipsoidInvFlatteningGeoKey"),
        }
        known = {name: value for name, value in ellipsoid.items() if value is not None}
        if self.is_geographic:
            return {"grid_mapping_name": "latitude_longitude", **known}
        if self.epsg is not None and (32601 <= self.epsg <= 32660 or 32701 <= self.epsg <= 32760):
            return _utm(self.epsg)
        method = METHODS.get(self.keys.get("ProjMethodGeoKey", 0))
        if method is None or self.keys.get("GeogAngularUnitsGeoKey", DEGREE) != DEGREE:
            return {}
        name, names = method
        parameters: dict[str, Any] = {names[key]: value for key, value in self.keys.items() if key in names}
        parallels = [self.keys[key] for key in STANDARD_PARALLELS if key in self.keys]
        if parallels:
            parameters["standard_parallel"] = parallels
        if name == "polar_stereographic":
            parameters["latitude_of_projection_origin"] = math.copysign(90.0, parameters.get("standard_parallel", 90.0))
        return {"grid_mapping_name": name, **parameters, **known}

    def coordinate_attributes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the attributes of x and y, as CF wants them."""
        if self.is_geographic:
            return (
                {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
                {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
            )
        units = {9001: "m", 9002: "ft", 9003: "US_survey_foot"}.get(self.keys.get("ProjLinearUnitsGeoKey", 0))
        shared = {} if units is None else {"units": units}
        if self.keys.get("GTModelTypeGeoKey") != PROJECTED:
            return {"axis": "X", **shared}, {"axis": "Y", **shared}
        return (
            {"standard_name": "projection_x_coordinate", "axis": "X", **shared},
            {"standard_name": "projection_y_coordinate", "axis": "Y", **shared},
        )


def georeference(ifd: IFD) -> GeoReference:
    """Read the GeoTIFF fields of a directory.

    Raises
    ------
    FormatError
        If a field cannot be read.
    """
    keys = _keys(ifd)
    return GeoReference(_transform(ifd, keys.get("GTRasterTypeGeoKey") == PIXEL_IS_POINT), keys)


def _transform(ifd: IFD, is_point: bool) -> Transform | None:
    """Section 7.2.3. Where a pixel is a point, the coordinates are those of its centre."""
    shift = 0.5 if is_point else 0.0
    matrix = _doubles(ifd, MODEL_TRANSFORMATION)
    scale, tie = _doubles(ifd, MODEL_PIXEL_SCALE), _doubles(ifd, MODEL_TIEPOINT)
    if len(matrix) >= 8:
        a, b, c, d, e, f = (float(matrix[place]) for place in (0, 1, 3, 4, 5, 7))
        if a * e - b * d == 0:
            return None
        return Transform(c - shift * (a + b), a, b, f - shift * (d + e), d, e)
    if len(scale) >= 2 and len(tie) >= 6 and scale[0] and scale[1]:
        a, e = float(scale[0]), -float(scale[1])
        column, row, x, y = (float(tie[place]) for place in (0, 1, 3, 4))
        return Transform(x - (column + shift) * a, a, 0.0, y - (row + shift) * e, 0.0, e)
    return None


def _doubles(ifd: IFD, tag: int) -> npt.NDArray[np.float64]:
    values = ifd.values(tag).astype(np.float64)
    return values if np.isfinite(values).all() else np.empty(0)


def _keys(ifd: IFD) -> dict[str, Any]:
    """Section 7.1: four shorts of a header, then four for each key: number, field of its value, count, value."""
    directory = ifd.integers(GEO_KEY_DIRECTORY)
    if directory.size < 4:
        return {}
    doubles, text = ifd.values(GEO_DOUBLE_PARAMS), _ascii(ifd)
    found: dict[str, Any] = {}
    entries = directory[4 : 4 + 4 * int(directory[3])]
    for number, tag, count, value in entries[: len(entries) // 4 * 4].reshape(-1, 4).tolist():
        name = KEYS.get(number)
        if name is None:
            continue
        if tag == 0:
            found[name] = value
        elif tag == GEO_DOUBLE_PARAMS and value + count <= doubles.size and count:
            numbers = doubles[value : value + count].astype(np.float64).tolist()
            found[name] = numbers[0] if count == 1 else numbers
        elif tag == GEO_ASCII_PARAMS:
            found[name] = text[value : value + count].rstrip("|\0")
    return found


def _ascii(ifd: IFD) -> str:
    return ifd.raw(GEO_ASCII_PARAMS).decode("latin-1")


def _utm(code: int) -> dict[str, Any]:
    zone, south = code % 100, code >= 32700
    return {
        "grid_mapping_name": "transverse_mercator",
        "semi_major_axis": 6378137.0,
        "inverse_flattening": 298.257223563,
        "longitude_of_central_meridian": 6.0 * zone - 183.0,
        "latitude_of_projection_origin": 0.0,
        "scale_factor_at_central_meridian": 0.9996,
        "false_easting": 500000.0,
        "false_northing": 10000000.0 if south else 0.0,
    }


def _described(code: int) -> dict[str, Any]:
    """Return what pyproj knows of an EPSG code, its WKT among it, where pyproj is in use already."""
    pyproj = sys.modules.get("pyproj")
    if pyproj is None:
        return {}
    try:
        known = pyproj.CRS.from_epsg(code).to_cf()
    except RuntimeError:  # pyproj's errors are RuntimeErrors; an unknown code is one
        return {}
    return {**known, "spatial_ref": known["crs_wkt"]}
