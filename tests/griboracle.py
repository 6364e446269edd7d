"""GRIB files for tests, made by ecCodes, and what ecCodes and cfgrib read in them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cfgrib
import eccodes
import numpy as np
import numpy.typing as npt
import xarray as xr
from zarr.errors import UnknownCodecError
from zarr.registry import get_codec_class, register_codec

from virtualchunks.codecs.grib import GRIB, NAME

try:
    get_codec_class(NAME)
except UnknownCodecError:  # an installation made before the codec had its entry point
    register_codec(NAME, GRIB)

#: A small regular grid, and what it takes to say so.
GRID = {
    "Ni": 6,
    "Nj": 4,
    "latitudeOfFirstGridPointInDegrees": 30.0,
    "latitudeOfLastGridPointInDegrees": 0.0,
    "longitudeOfFirstGridPointInDegrees": 10.0,
    "longitudeOfLastGridPointInDegrees": 60.0,
    "iDirectionIncrementInDegrees": 10.0,
    "jDirectionIncrementInDegrees": 10.0,
}


def message(
    sample: str = "regular_ll_sfc_grib2", seed: int = 0, missing: bool = False, scaled: float = 1.0, **keys: Any
) -> bytes:
    """One message: a sample of ecCodes with keys set in order, and with values drawn for its grid."""
    handle = eccodes.codes_grib_new_from_samples(sample)
    try:
        for name, value in (GRID if "regular_ll" in sample else {}).items():
            eccodes.codes_set(handle, name, value)
        for name, value in keys.items():
            eccodes.codes_set(handle, name, value)
        if "sh" not in sample.split("_"):
            if sample.startswith("regular_ll") and sample.endswith("grib2"):
                points = eccodes.codes_get(handle, "Ni") * eccodes.codes_get(handle, "Nj")
                eccodes.codes_set(handle, "numberOfDataPoints", points)
                eccodes.codes_set(handle, "numberOfValues", points)
            count = eccodes.codes_get_size(handle, "values")
            values = np.random.default_rng(seed).normal(280, 10, count) * scaled
            if missing:
                eccodes.codes_set(handle, "bitmapPresent", 1)
                eccodes.codes_set(handle, "missingValue", 1e30)
                values[::3] = 1e30
            eccodes.codes_set_values(handle, values)
        made: bytes = eccodes.codes_get_message(handle)
        return made
    finally:
        eccodes.codes_release(handle)


_PLANE = {"Nx": 5, "Ny": 4, "DxInMetres": 50_000, "DyInMetres": 50_000}
_CORNER = {"latitudeOfFirstGridPointInDegrees": 30.0, "longitudeOfFirstGridPointInDegrees": 50.0}
#: Grids of edition 2 that no sample of ecCodes has: what sets them, and how many points they then have.
GRIDS: dict[str, tuple[dict[str, Any], int]] = {
    "lambert": (
        {**_PLANE, **_CORNER, "LaDInDegrees": 40, "LoVInDegrees": 60, "Latin1InDegrees": 40, "Latin2InDegrees": 40},
        20,
    ),
    "mercator": (
        {
            "Ni": 5,
            "Nj": 4,
            "DiInMetres": 100_000,
            "DjInMetres": 100_000,
            "LaDInDegrees": 20,
            **_CORNER,
            "latitudeOfLastGridPointInDegrees": 32.6,
            "longitudeOfLastGridPointInDegrees": 53.8,
        },
        20,
    ),
    "lambert_azimuthal_equal_area": (
        {**_PLANE, **_CORNER, "standardParallelInDegrees": 50, "centralLongitudeInDegrees": 60},
        20,
    ),
    "healpix": ({"Nside": 2, "orderingConvention": "ring", "longitudeOfFirstGridPointInDegrees": 45}, 48),
    "unstructured_grid": ({"numberOfGridUsed": 26, "numberOfGridInReference": 1}, 30),
}


def gridded(kind: str, seed: int = 0) -> bytes:
    """One message on a grid of :data:`GRIDS`."""
    keys, count = GRIDS[kind]
    handle = eccodes.codes_grib_new_from_samples("GRIB2")
    try:
        for name, value in {"gridType": kind, **keys, "numberOfDataPoints": count, "numberOfValues": count}.items():
            eccodes.codes_set(handle, name, value)
        eccodes.codes_set_values(handle, np.random.default_rng(seed).normal(280, 10, count))
        made: bytes = eccodes.codes_get_message(handle)
        return made
    finally:
        eccodes.codes_release(handle)


def points_of(data: bytes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Latitudes and longitudes of the grid points of one message, in its order."""
    handle = eccodes.codes_new_from_message(data)
    try:
        return eccodes.codes_get_array(handle, "latitudes"), eccodes.codes_get_array(handle, "longitudes")
    finally:
        eccodes.codes_release(handle)


def fused(*messages: bytes) -> bytes:
    """One message of several fields, whose later fields share the sections of the first."""
    sections = []
    for data in messages:
        at, found = 16, dict[int, bytes]()
        while data[at : at + 4] != b"7777":
            length, number = int.from_bytes(data[at : at + 4], "big"), data[at + 4]
            found[number] = data[at : at + length]
            at += length
        sections.append(found)
    shared = [sections[0][number] for number in (1, 3)]
    body = b"".join([*shared, *(found[number] for found in sections for number in (4, 5, 6, 7)), b"7777"])
    return messages[0][:8] + (16 + len(body)).to_bytes(8, "big") + body


def write(path: Path, messages: Iterable[bytes]) -> Path:
    """Write messages to a file."""
    path.write_bytes(b"".join(messages))
    return path


def values_of(data: bytes) -> npt.NDArray[np.float64]:
    """Values of one message, missing ones NaN by its bitmap."""
    handle = eccodes.codes_new_from_message(data)
    try:
        eccodes.codes_set(handle, "missingValue", 1e300)
        values: npt.NDArray[np.float64] = eccodes.codes_get_values(handle)
        values[values == 1e300] = np.nan
        return values
    finally:
        eccodes.codes_release(handle)


def messages_of(path: Path) -> Iterator[npt.NDArray[np.float64]]:
    """Values of every field of a file, as ecCodes finds them, fields of one message included."""
    eccodes.codes_grib_multi_support_on()
    try:
        with path.open("rb") as file:
            while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
                with contextlib.suppress(eccodes.CodesInternalError):  # a damaged message, which nothing equals
                    eccodes.codes_set(handle, "missingValue", 1e300)
                    values = eccodes.codes_get_values(handle)
                    values[values == 1e300] = np.nan
                    yield values
                eccodes.codes_release(handle)
    finally:
        eccodes.codes_grib_multi_support_off()


def cfgrib_dataset(path: Path, **keys: Any) -> xr.Dataset:
    """A file as cfgrib reads it, in double precision."""
    options = {"indexpath": "", "values_dtype": np.dtype("f8"), "filter_by_keys": keys, "errors": "raise"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xr.open_dataset(path, engine="cfgrib", backend_kwargs=options, decode_timedelta=True).load()


def cfgrib_version() -> str:
    """The version of cfgrib."""
    return str(cfgrib.__version__)
