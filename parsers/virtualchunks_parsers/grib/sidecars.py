"""Indexes beside a GRIB file: what its messages are, without reading their headers.

Two kinds are read: ``.idx``, a line of text for each field, as wgrib2 writes and NOAA publishes it, and ``.index``, a
JSON object for each field, as ECMWF publishes it. Both name parameter, level and step, and not the grid: every field is
taken to have the grid of the first message, and the codec refuses a message with another number of values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from virtualchunks.errors import FormatError, UnsupportedFeatureError

#: Discipline, category and number of a parameter, by the name that wgrib2 gives it.
PARAMETERS: Mapping[str, tuple[int, int, int]] = {
    "TMP": (0, 0, 0),
    "POT": (0, 0, 2),
    "TMAX": (0, 0, 4),
    "TMIN": (0, 0, 5),
    "DPT": (0, 0, 6),
    "LHTFL": (0, 0, 10),
    "SHTFL": (0, 0, 11),
    "SPFH": (0, 1, 0),
    "RH": (0, 1, 1),
    "PWAT": (0, 1, 3),
    "PRATE": (0, 1, 7),
    "APCP": (0, 1, 8),
    "ACPCP": (0, 1, 10),
    "SNOD": (0, 1, 11),
    "WEASD": (0, 1, 13),
    "CLWMR": (0, 1, 22),
    "WDIR": (0, 2, 0),
    "WIND": (0, 2, 1),
    "UGRD": (0, 2, 2),
    "VGRD": (0, 2, 3),
    "VVEL": (0, 2, 8),
    "DZDT": (0, 2, 9),
    "ABSV": (0, 2, 10),
    "GUST": (0, 2, 22),
    "PRES": (0, 3, 0),
    "PRMSL": (0, 3, 1),
    "HGT": (0, 3, 5),
    "TCDC": (0, 6, 1),
    "LCDC": (0, 6, 3),
    "MCDC": (0, 6, 4),
    "HCDC": (0, 6, 5),
    "CAPE": (0, 7, 6),
    "CIN": (0, 7, 7),
    "HLCY": (0, 7, 8),
    "VIS": (0, 19, 0),
    "LAND": (2, 0, 0),
    "SFCR": (2, 0, 1),
    "TSOIL": (2, 0, 2),
    "ICEC": (10, 2, 0),
}
_LEVELS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], dict[str, Any]]], ...] = (
    (re.compile(r"([\d.]+) mb"), lambda found: _level("isobaricInhPa", found[1])),
    (re.compile(r"([\d.]+) m above ground"), lambda found: _level("heightAboveGround", found[1])),
    (re.compile(r"([\d.]+) m above mean sea level"), lambda found: _level("heightAboveSea", found[1])),
    (re.compile(r"([\d.]+) hybrid level"), lambda found: _level("hybrid", found[1])),
    (re.compile(r"([\d.]+) sigma level"), lambda found: _level("sigma", found[1])),
    (re.compile(r"surface"), lambda _: _level("surface", 0)),
    (re.compile(r"mean sea level"), lambda _: _level("meanSea", 0)),
)
_PROCESSES = {"acc": "accum", "ave": "avg", "max": "max", "min": "min"}
_STEPS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], dict[str, Any]]], ...] = (
    (re.compile(r"anl"), lambda _: {"step": 0}),
    (re.compile(r"(\d+) hour fcst"), lambda found: {"step": int(found[1])}),
    (re.compile(r"(\d+) day fcst"), lambda found: {"step": 24 * int(found[1])}),
    (
        re.compile(r"(\d+)-(\d+) hour (acc|ave|max|min) fcst"),
        lambda found: {
            "productDefinitionTemplateNumber": 8,
            "stepType": _PROCESSES[found[3]],
            "stepRange": f"{found[1]}-{found[2]}",
        },
    ),
)
_ECMWF_LEVELS = {
    "sfc": "surface",
    "pl": "isobaricInhPa",
    "ml": "hybrid",
    "pt": "theta",
    "pv": "potentialVorticity",
    "sol": "soilLayer",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What an index says of one field.

    Parameters
    ----------
    offset, length
        Of its message; a length of ``None`` goes up to the next message.
    index
        Number of the field in its message.
    keys
        ecCodes keys to set, in order, on the headers of another message, to have those of this one.
    """

    offset: int
    length: int | None
    index: int
    keys: Mapping[str, Any] = field(default_factory=dict)


def _level(kind: str, value: float | str) -> dict[str, Any]:
    number = float(value)
    return {"typeOfLevel": kind, "level": int(number) if number.is_integer() else number}


def entries_of(text: bytes, size: int, leave_out: Callable[[str, UnsupportedFeatureError], None]) -> list[Entry]:
    """Return what an index says of a file, complete with lengths.

    Parameters
    ----------
    text
        The index.
    size
        Length of the file, in bytes.
    leave_out
        Called with a line that is not understood, and the reason.

    Raises
    ------
    FormatError
        If it is no index, or is not one of this file as it is now.
    """
    lines = [line for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        raise FormatError("the index is empty")
    parse = _ecmwf if lines[0].lstrip().startswith("{") else _wgrib2
    entries, starts = [], set()
    for line in lines:
        offset, length, index, describe = parse(line)
        starts.add(offset)
        try:
            entries.append(Entry(offset, length, index, describe()))
        except UnsupportedFeatureError as error:
            leave_out(line[:80], error)
    return list(_complete(entries, sorted(starts), size))


def _complete(entries: list[Entry], starts: list[int], size: int) -> Iterator[Entry]:
    following = dict(zip(starts, [*starts[1:], size], strict=True))
    for entry in entries:
        length = following[entry.offset] - entry.offset if entry.length is None else entry.length
        if length < 16 or entry.offset + length > size:
            raise FormatError(
                f"the index has a message of {length} bytes at offset {entry.offset}, and the file has {size} bytes: "
                "it is the index of another version; parse without it, or make it anew"
            )
        yield Entry(entry.offset, length, entry.index, entry.keys)


Line = tuple[int, int | None, int, Callable[[], dict[str, Any]]]


def _ecmwf(line: str) -> Line:
    try:
        found = json.loads(line)
        offset, length = found["_offset"], found["_length"]
    except (ValueError, LookupError, TypeError) as error:
        raise FormatError(f"the line {line[:80]!r} is not one of an index in JSON: {error!r}") from error
    if not (type(offset) is int and type(length) is int and offset >= 0):
        raise FormatError(f"the line {line[:80]!r} has no offset and length")
    return offset, length, 0, lambda: _ecmwf_keys(found)


def _ecmwf_keys(found: Mapping[str, Any]) -> dict[str, Any]:
    kind = _ECMWF_LEVELS.get(str(found.get("levtype")))
    if kind is None or "param" not in found:
        raise UnsupportedFeatureError(f"levels of the type {found.get('levtype')!r} are not known")
    try:
        number = int(found["number"]) if "number" in found else None
        time, step = int(found.get("time", 0)), str(found.get("step", 0))
        keys: dict[str, Any] = {
            "productDefinitionTemplateNumber": 0 if number is None else 1,
            **_level(kind, found.get("levelist", 0)),
            "dataDate": int(found["date"]),
            "dataTime": time if time >= 100 else time * 100,
            "shortName": str(found["param"]),
        }
    except (ValueError, LookupError) as error:
        raise UnsupportedFeatureError(f"{error!r}") from error
    keys |= {} if kind == "surface" else _level(kind, found.get("levelist", 0))
    keys |= {} if number is None else {"number": number}
    return {**keys, ("stepRange" if "-" in step else "step"): step if "-" in step else _whole(step)}


def _whole(step: str) -> int:
    if not step.isdigit():
        raise UnsupportedFeatureError(f"the step {step!r} is no number of hours")
    return int(step)


def _wgrib2(line: str) -> Line:
    parts = line.split(":")
    numbers = parts[0].split(".")
    if len(parts) < 6 or not parts[1].isdigit() or not all(number.isdigit() for number in numbers):
        raise FormatError(f"the line {line[:80]!r} is not one of an index of wgrib2")
    index = int(numbers[1]) - 1 if len(numbers) > 1 else 0
    return int(parts[1]), None, max(0, index), lambda: _wgrib2_keys(parts)


def _wgrib2_keys(parts: list[str]) -> dict[str, Any]:
    date, parameter, level, step = parts[2].removeprefix("d="), parts[3], parts[4], parts[5]
    if parameter not in PARAMETERS or any(part for part in parts[6:]) or len(date) != 10 or not date.isdigit():
        raise UnsupportedFeatureError(f"the parameter {parameter!r} is not known, or not described by its name alone")
    discipline, category, number = PARAMETERS[parameter]
    return {
        "productDefinitionTemplateNumber": 0,
        "dataDate": int(date[:8]),
        "dataTime": int(date[8:]) * 100,
        "discipline": discipline,
        **_first_match(_STEPS, step),
        "parameterCategory": category,
        "parameterNumber": number,
        **_first_match(_LEVELS, level),
    }


def _first_match(
    patterns: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], dict[str, Any]]], ...], text: str
) -> dict[str, Any]:
    for pattern, keys in patterns:
        found = pattern.fullmatch(text)
        if found:
            return keys(found)
    raise UnsupportedFeatureError(f"{text!r} is not understood")
