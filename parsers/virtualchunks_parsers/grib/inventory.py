"""The words in which wgrib2 describes a field, as ecCodes keys: its parameter, its level, its time and its member.

A word is translated only where it has one meaning. ``0.995 sigma level`` does not say how the file writes 0.995 as an
integer with a scale, and ``SOILW`` is two codes; such words are learned from the headers of the first field that they
describe (:class:`Vocabulary`). What stands for the value of a surface that has none, 0 or 1 or nothing, is learned from
the first such surface.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from virtualchunks.codecs.grib_handle import Keys
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks_parsers.grib.parameters import LOCAL, NCEP, PARAMETERS

Made = dict[str, Any]

PARAMETER_KEYS = ("discipline", "parameterCategory", "parameterNumber")
LEVEL_KEYS = tuple(
    f"{name}Of{which}FixedSurface" for which in ("First", "Second") for name in ("type", "scaleFactor", "scaledValue")
)
#: What code table 4.5 says of a surface that is not there.
NO_SURFACE = 255

#: Types of surfaces without a value, by what wgrib2 calls them.
SURFACES: Mapping[str, int] = {
    "surface": 1,
    "cloud base": 2,
    "cloud top": 3,
    "0C isotherm": 4,
    "level of adiabatic condensation from sfc": 5,
    "max wind": 6,
    "tropopause": 7,
    "top of atmosphere": 8,
    "sea bottom": 9,
    "entire atmosphere": 10,
    "mean sea level": 101,
    "entire atmosphere (considered as a single layer)": 200,
    "entire ocean (considered as a single layer)": 201,
    "highest tropospheric freezing level": 204,
    "grid scale cloud bottom level": 206,
    "grid scale cloud top level": 207,
    "boundary layer cloud bottom level": 209,
    "boundary layer cloud top level": 210,
    "boundary layer cloud layer": 211,
    "low cloud bottom level": 212,
    "low cloud top level": 213,
    "low cloud layer": 214,
    "cloud ceiling": 215,
    "planetary boundary layer": 220,
    "middle cloud bottom level": 222,
    "middle cloud top level": 223,
    "middle cloud layer": 224,
    "high cloud bottom level": 232,
    "high cloud top level": 233,
    "high cloud layer": 234,
    "convective cloud bottom level": 242,
    "convective cloud top level": 243,
    "convective cloud layer": 244,
    "lowest level of the wet bulb zero": 245,
    "equilibrium level": 247,
}
#: Type of a surface, and what one unit of the text is in the file's unit, by what follows the value in wgrib2's text.
VALUED: Mapping[str, tuple[int, int]] = {
    "mb": (100, 100),
    "K level": (20, 1),
    "m above mean sea level": (102, 1),
    "m above ground": (103, 1),
    "sigma level": (104, 1),
    "hybrid level": (105, 1),
    "m below ground": (106, 1),
    "K isentropic level": (107, 1),
    "mb above ground": (108, 100),
    "in sequence": (241, 1),
}
#: Those of :data:`VALUED` that also bound layers.
LAYERS = frozenset({"mb", "m above ground", "m below ground", "mb above ground"})
_VALUE = re.compile(r"(?P<first>[\d.]+)(?:-(?P<second>[\d.]+))? (?P<unit>\S.*)")

_PROCESSES = {"ave": 0, "acc": 1, "max": 2, "min": 3}
_INSTANT = re.compile(r"(\d+) (min|hour|day) fcst")
_PERIOD = re.compile(r"(\d+)-(\d+) (min|hour|day) (acc|ave|max|min) fcst")
_MEMBER = re.compile(r"ENS=([+-]\d+|low-res ctl|hi-res ctl)")
_CONTROLS = {"hi-res ctl": 0, "low-res ctl": 1}


def level_keys(text: str) -> Made | None:
    """Return the keys of a level with a value, or ``None`` where they do not follow from the text.

    Examples
    --------
    >>> level_keys("850 mb")["scaledValueOfFirstFixedSurface"], level_keys("0.995 sigma level")
    (85000, None)
    """
    found = _VALUE.fullmatch(text)
    if found is None or found["unit"] not in VALUED:
        return None
    if found["second"] is not None and found["unit"] not in LAYERS:
        return None
    kind, scale = VALUED[found["unit"]]
    values = [_whole(value, scale) for value in (found["first"], found["second"]) if value is not None]
    if None in values:
        return None
    return _surfaces(kind, values[0] or 0, None if len(values) == 1 else values[1])


def _whole(text: str, scale: int) -> int | None:
    """A value in the file's unit, if it is a whole number there, which needs no scale."""
    try:
        value = Decimal(text) * scale
    except InvalidOperation:
        return None
    return int(value) if value == value.to_integral_value() and value < 1 << 31 else None


def _surfaces(kind: int, first: int, second: int | None) -> Made:
    values = (kind, 0, first, NO_SURFACE if second is None else kind, 0, second or 0)
    return dict(zip(LEVEL_KEYS, values, strict=True))


def parameter_keys(text: str, centre: int | None) -> Made | None:
    """Return the keys of a parameter in a file of a centre, or ``None`` where they do not follow from its abbreviation.

    Examples
    --------
    >>> parameter_keys("TMP", 7)
    {'discipline': 0, 'parameterCategory': 0, 'parameterNumber': 0}
    """
    codes = PARAMETERS.get(text)
    if codes is None or (centre != NCEP and max(codes[1:]) >= LOCAL):
        return None
    return dict(zip(PARAMETER_KEYS, codes, strict=True))


def time_and_member_keys(date: str, step: str, rest: Sequence[str]) -> Made:
    """Return the keys of a reference time, a step and what may follow them, in the order in which they are set.

    Parameters
    ----------
    date
        As ``YYYYMMDDHH``.
    step
        Such as ``6 hour fcst`` or ``0-6 hour acc fcst``.
    rest
        Further words, of which the member of an ensemble is understood.

    Raises
    ------
    UnsupportedFeatureError
        If one of them is not understood.
    """
    if len(date) != 10 or not date.isdigit():
        raise UnsupportedFeatureError(f"{date!r} is no reference time")
    words = [word for word in rest if word]
    member = _member(words)
    instant, times = _times(step)
    template = {(True, False): 0, (True, True): 1, (False, False): 8, (False, True): 11}[instant, bool(member)]
    reference = {"dataDate": int(date[:8]), "dataTime": int(date[8:]) * 100}
    return {"productDefinitionTemplateNumber": template, **member, **reference, **times}


def _times(step: str) -> tuple[bool, Made]:
    """Whether a step is an instant, and its keys."""
    if step == "anl":
        return True, {"step": 0}
    if found := _INSTANT.fullmatch(step):
        return True, {"step": _with_unit(found[1], found[2])}
    if found := _PERIOD.fullmatch(step):
        start, end, unit, process = found.groups()
        period = f"{_with_unit(start, unit)}-{_with_unit(end, unit)}"
        return False, {"typeOfStatisticalProcessing": _PROCESSES[process], "stepRange": period}
    raise UnsupportedFeatureError(f"the time {step!r} is not understood")


def _with_unit(count: str, unit: str) -> str:
    return f"{count}m" if unit == "min" else str(int(count) * (24 if unit == "day" else 1))


def _member(words: Sequence[str]) -> Made:
    if not words:
        return {}
    found = _MEMBER.fullmatch(words[0])
    if found is None or len(words) > 1:
        raise UnsupportedFeatureError(f"{':'.join(words)!r} is not understood")
    if found[1] in _CONTROLS:
        return {"typeOfEnsembleForecast": _CONTROLS[found[1]], "perturbationNumber": 0}
    number = int(found[1])
    return {"typeOfEnsembleForecast": 3 if number > 0 else 2, "perturbationNumber": abs(number)}


class Vocabulary:
    """What the words of one index mean: those that have one meaning, and those that were learned from headers.

    Parameters
    ----------
    centre
        Which centre made the file.
    """

    def __init__(self, centre: int | None) -> None:
        self._centre = centre
        self._parameters: dict[str, Made] = {}
        self._levels: dict[str, Made] = {}
        self._plain: Made | None = None

    def unknown(self, words: Sequence[str]) -> set[str]:
        """Return which of a parameter and a level mean nothing yet."""
        if not words:
            return set()
        parameter, level = words
        return {
            *(() if self._parameter(parameter) is not None else (f"parameter {parameter}",)),
            *(() if self._level(level) is not None else ("plain surface" if level in SURFACES else f"level {level}",)),
        }

    def keys(self, words: Sequence[str]) -> Made:
        """Return the keys of a parameter and a level, none of them unknown."""
        return {**(self._parameter(words[0]) or {}), **(self._level(words[1]) or {})} if words else {}

    def learn(self, words: Sequence[str], headers: Keys) -> None:
        """Take from the headers of a field what those of its words mean that are unknown."""
        if not words:
            return
        parameter, level = words
        if self._parameter(parameter) is None:
            self._parameters[parameter] = _values(headers, PARAMETER_KEYS)
        if self._level(level) is None and level in SURFACES:
            self._plain = _values(headers, LEVEL_KEYS[1:])
        elif self._level(level) is None:
            self._levels[level] = _values(headers, LEVEL_KEYS)

    def _parameter(self, text: str) -> Made | None:
        return self._parameters.get(text) or parameter_keys(text, self._centre)

    def _level(self, text: str) -> Made | None:
        if text in SURFACES:
            return None if self._plain is None else {LEVEL_KEYS[0]: SURFACES[text], **self._plain}
        return self._levels.get(text) or level_keys(text)


def _values(headers: Keys, names: Sequence[str]) -> Made:
    return {name: headers.get(name, int) for name in names}
