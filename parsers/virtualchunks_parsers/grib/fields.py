"""What a field is: the keys by which it is named, grouped and placed, read from its headers.

Names and values are cfgrib's: ``cfVarName`` names the variable; ``number``, ``time``, ``step``, the level,
``directionNumber`` and ``frequencyNumber`` place the field in its cube.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from virtualchunks.codecs.grib_handle import Keys
from virtualchunks.codecs.grib_sections import Message, Packing, fields_of, message_at
from virtualchunks.errors import UnsupportedFeatureError

#: Code table 4.4 in ecCodes' numbering: seconds of a unit of ``stepUnits``; months and longer have no fixed length.
STEP_SECONDS = {0: 60, 1: 3600, 2: 86400, 10: 10800, 11: 21600, 12: 43200, 13: 1, 14: 900, 15: 1800}
#: Coordinates of a field, in the order in which they become dimensions.
DIMENSIONS = ("number", "time", "step", "level", "directionNumber", "frequencyNumber")
#: Keys that make a variable of their own of each of their values, though the parameter is the same.
DISTINGUISHING = (
    "stream",
    "percentileValue",
    "derivedForecast",
    "probabilityType",
    "scaleFactorOfLowerLimit",
    "scaledValueOfLowerLimit",
    "scaleFactorOfUpperLimit",
    "scaledValueOfUpperLimit",
    "constituentType",
    "aerosolType",
    "scaledValueOfFirstSize",
    "scaledValueOfSecondSize",
    "scaledValueOfFirstWavelength",
    "scaledValueOfSecondWavelength",
    "satelliteSeries",
    "satelliteNumber",
    "channelNumber",
    "scaledValueOfCentralWaveNumber",
)
#: Members of an ensemble, the control among them, belong together: ``number`` tells them apart.
_ENSEMBLE = {"cf": "ens", "pf": "ens"}
_NO_WORD = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Found:
    """One field, by what its headers say.

    Parameters
    ----------
    message
        The message that holds it.
    index
        Its number in the message.
    name
        Name of the variable.
    level_type, step_type, grid_type
        ``typeOfLevel``, ``stepType`` and ``gridType``; ``"unknown"`` where ecCodes has no name.
    identity
        What a field shares with the other fields of its cube.
    place
        Values of :data:`DIMENSIONS`; ``None`` for those that the field does not have.
    splits
        What tells apart two fields of one place, by key.
    grid
        Checksum of the definition of its grid.
    packing
        How its values are packed, in edition 2; ``None`` where that is not known.
    """

    message: Message
    index: int
    name: str
    level_type: str
    step_type: str
    grid_type: str
    identity: tuple[Any, ...]
    place: tuple[float | None, ...]
    splits: tuple[Any, ...]
    grid: int
    packing: Packing | None

    @property
    def path(self) -> tuple[str, str]:
        """Names of the two groups that lead to its cube; they depend on this field alone."""
        checksum = zlib.crc32(repr(self.identity).encode())
        return f"{self.level_type}_{self.step_type}", f"{self.name}_{self.grid_type}_{checksum:08x}"


#: Keys whose values tell apart two fields of one place, by the word that names them; the last resort is the header.
SPLITS = ("data", "period", "bottom", "header")


def field_found(headers: bytes, message: Message, index: int, keys: Keys, packing: Packing | None) -> Found:
    """Return what the headers of a field say.

    Parameters
    ----------
    headers
        A message with its headers.
    message
        The message of the file that holds it.
    index
        Its number in its message.
    keys
        Keys of `headers`.
    packing
        How the values of the field are packed; ``None`` in edition 1, or where that was not looked at.

    Raises
    ------
    UnsupportedFeatureError
        If it has no date that a calendar knows.
    """
    edition = message.edition
    sections = _sections(headers)
    grid_section = sections.get(2 if edition == 1 else 3, b"")
    name = variable_name(keys)
    level_type = _word(keys.get("typeOfLevel") or "unknown")
    step_type = _word(keys.get("stepType") or "unknown")
    grid_type = _word(keys.get("gridType") or "unknown")
    data_type = keys.get("dataType") or "unknown"
    grid = zlib.crc32(grid_section)
    place = _place(keys)
    identity = (
        name,
        keys.get("paramId", int),
        level_type,
        step_type,
        _ENSEMBLE.get(data_type, data_type),
        edition,
        keys.get("centre", int),
        keys.get("subCentre", int),
        grid_type,
        grid if grid_section else keys.get("gridDefinition", int),
        tuple(value is not None for value in place),
        tuple(keys.get(key) for key in DISTINGUISHING),
    )
    header = b"".join(sections.get(number, b"") for number in ((1,) if edition == 1 else (1, 2, 4)))
    splits = (data_type, _period(keys), keys.get("bottomLevel", float), zlib.crc32(header))
    return Found(message, index, name, level_type, step_type, grid_type, identity, place, splits, grid, packing)


def variable_name(keys: Keys) -> str:
    """Return the name of a variable: ``cfVarName``, ``shortName``, or the numbers of a parameter without either."""
    name = keys.get("cfVarName") or keys.get("shortName")
    if name is None or name == "~":
        numbers = ("discipline", "parameterCategory", "parameterNumber")
        if keys.get("edition", int) == 1:
            numbers = ("centre", "table2Version", "indicatorOfParameter")
        name = "param_" + "_".join(str(keys.get(key, int)) for key in numbers)
    word = _word(str(name))
    return f"{word}_field" if word in RESERVED else word


#: Names of coordinates, which no variable may have.
RESERVED = frozenset({*DIMENSIONS, "latitude", "longitude", "valid_time", "values", "x", "y"})


def _word(text: str) -> str:
    return _NO_WORD.sub("-", text).strip(".") or "unknown"


def _sections(message: bytes) -> dict[int, bytes]:
    """The sections of a message with one field, by number."""

    def read(offset: int, length: int) -> bytes:
        return message[offset : offset + length]

    field = next(iter(fields_of(read, message_at(read, 0, len(message)))))
    return {number: read(*place) for number, place in field.sections.items()}


def _place(keys: Keys) -> tuple[float | None, ...]:
    time = seconds_since_epoch(keys)
    return (
        keys.get("number", int),
        time,
        _step(keys, time),
        keys.get("level", float),
        keys.get("directionNumber", int),
        keys.get("frequencyNumber", int),
    )


def seconds_since_epoch(keys: Keys, date: str = "dataDate", time: str = "dataTime") -> int:
    """Return a date and time of a message, in seconds since 1970-01-01T00:00:00Z.

    Raises
    ------
    UnsupportedFeatureError
        If no calendar knows the date.
    """
    day, hour = keys.get(date, int), keys.get(time, int)
    if day is None or hour is None:
        raise UnsupportedFeatureError("it has no reference time")
    seconds = (keys.get("second", int) or 0) if date == "dataDate" else 0
    try:
        moment = datetime(day // 10000, day // 100 % 100, day % 100, hour // 100, hour % 100, tzinfo=UTC)
    except ValueError as error:
        raise UnsupportedFeatureError(f"its reference time is {day} {hour:04d}, which is no date: {error}") from error
    return int(moment.timestamp()) + (seconds if 0 < seconds < 60 else 0)


def _step(keys: Keys, time: int) -> float | None:
    """Hours since the reference time."""
    unit, count = keys.get("stepUnits", int), keys.get("endStep", int)
    if unit in STEP_SECONDS and count is not None:
        return float(count * STEP_SECONDS[unit] / 3600)
    try:
        return (seconds_since_epoch(keys, "validityDate", "validityTime") - time) / 3600
    except UnsupportedFeatureError:
        return None


def _period(keys: Keys) -> int | None:
    """How long the step is that values are accumulated or averaged over, in units of ``stepUnits``."""
    start, end = keys.get("startStep", int), keys.get("endStep", int)
    return None if start is None or end is None else end - start


def matches(keys: Keys, wanted: Mapping[str, Any]) -> bool:
    """Return whether a message has all the values of keys that are asked for."""
    return all(_equal(keys, name, value) for name, value in wanted.items())


def _equal(keys: Keys, name: str, value: Any) -> bool:
    choices = value if isinstance(value, list | tuple | set | frozenset) else (value,)
    return any(keys.get(name.partition(":")[0], type(choice)) == choice for choice in choices)
