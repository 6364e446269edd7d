"""Indexes beside a GRIB file: where its messages are, and in words what they are.

Two kinds are read: ``.idx``, a line of text for each field, as wgrib2 writes and NOAA publishes it, and ``.index``, a
JSON object for each field, as ECMWF publishes it. What becomes of their entries is in
:mod:`~virtualchunks_parsers.grib.indexed`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from virtualchunks.errors import FormatError, LimitExceededError, SourceUnavailableError, UnsupportedFeatureError
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.grib.inventory import time_and_member_keys

#: The largest index that is read: that of a file of a million messages is half as large.
LARGEST_INDEX = 256 << 20
#: How ECMWF names the files whose indexes it publishes: ``20240101000000-6h-oper-fc.grib2``.
_ECMWF_NAME = re.compile(r"\d{8,14}-\d+[hm]-[a-z0-9]+-[a-z]+\.grib2?")
_ECMWF_LEVELS = {
    "sfc": "surface",
    "pl": "isobaricInhPa",
    "ml": "hybrid",
    "pt": "theta",
    "pv": "potentialVorticity",
    "sol": "soilLayer",
}
#: Types of fields whose headers follow from their line; others are of templates of their own.
_ECMWF_TYPES = frozenset({"an", "fc", "cf", "pf"})
#: What must be equal for the headers of one entry to serve for another.
_FAMILY = ("class", "stream", "domain", "expver", "model")


@dataclass(frozen=True, slots=True)
class Entry:
    """What an index says of one field.

    Parameters
    ----------
    line
        The line, for errors.
    offset, length
        Of its message; a length of ``None`` goes up to the next message.
    index
        Number of the field in its message.
    keys
        ecCodes keys to set, in order, on the headers of another message; ``None`` where the line does not say enough.
    words
        Parameter and level as wgrib2 writes them, whose keys come from a
        :class:`~virtualchunks_parsers.grib.inventory.Vocabulary`.
    family
        Of two entries with different ones, one's headers do not serve for the other.
    """

    line: str
    offset: int
    length: int | None
    index: int
    keys: Mapping[str, Any] | None
    words: tuple[str, ...] = ()
    family: tuple[Any, ...] = ()

    @property
    def end(self) -> int:
        """The offset behind its message, whose length must be known."""
        return self.offset + (self.length or 0)


def beside(url: str) -> tuple[str, ...]:
    """Return where an index of a file may be, the likelier place first.

    Examples
    --------
    >>> beside("s3://noaa/gfs.f000")
    ('s3://noaa/gfs.f000.idx', 's3://noaa/gfs.index')
    """
    folder, slash, name = url.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    places = (f"{url}.idx", f"{folder}{slash}{stem if dot else name}.index")
    return places[::-1] if _ECMWF_NAME.fullmatch(name) else places


def read_index(registry: ObjectStoreRegistry, url: str) -> bytes:
    """Return the content of an index.

    Raises
    ------
    NotGrantedError, ReadError
        If it may not or cannot be read.
    LimitExceededError
        If it is larger than :data:`LARGEST_INDEX`.
    """
    with ObjectReader(registry, url) as file:
        if file.size > LARGEST_INDEX:
            raise LimitExceededError(f"an index of {file.size} bytes; at most {LARGEST_INDEX} are read", url=url)
        return file.readall()


def found_beside(registry: ObjectStoreRegistry, url: str) -> tuple[str, bytes] | None:
    """Return the URL and content of the index beside a file, or ``None`` where there is none that may be read."""
    for place in beside(url):
        if place not in registry:
            continue
        try:
            return place, read_index(registry, place)
        except SourceUnavailableError:
            continue
    return None


def entries_of(text: bytes, url: str | None = None) -> list[Entry]:
    """Return what an index says, in its order.

    Parameters
    ----------
    text
        The index.
    url
        Where it is, for errors.

    Raises
    ------
    FormatError
        If it is none.
    """
    lines = [line for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        raise FormatError("the index is empty", url=url)
    parse = _ecmwf if lines[0].lstrip().startswith("{") else _wgrib2
    try:
        return [parse(line) for line in lines]
    except FormatError as error:
        error.url = url
        raise


def completed(entries: list[Entry], size: int) -> Iterator[Entry]:
    """Give every entry the length of its message.

    Parameters
    ----------
    entries
        In any order.
    size
        Length of the file, in bytes.

    Raises
    ------
    FormatError
        If an entry goes beyond the file, or the file beyond the last one.
    """
    starts = sorted({entry.offset for entry in entries})
    following = dict(zip(starts, [*starts[1:], size], strict=True))
    for entry in entries:
        length = following[entry.offset] - entry.offset if entry.length is None else entry.length
        if length < 16 or entry.offset + length > size:
            raise another_version(f"has a message of {length} bytes at offset {entry.offset}, and the file has {size}")
        yield replace(entry, length=length)


def another_version(difference: str) -> FormatError:
    """Return the error for an index that does not fit its file."""
    return FormatError(f"the index {difference}: it is that of another version; parse without it, or make it anew")


def _ecmwf(line: str) -> Entry:
    try:
        found = json.loads(line)
        offset, length = found["_offset"], found["_length"]
    except (ValueError, LookupError, TypeError) as error:
        raise FormatError(f"the line {line[:80]!r} is not one of an index in JSON: {error!r}") from error
    if not (type(offset) is int and type(length) is int and offset >= 0):
        raise FormatError(f"the line {line[:80]!r} has no offset and length")
    family = tuple(str(found.get(name)) for name in _FAMILY)
    return Entry(line[:80], offset, length, 0, _ecmwf_keys(found), family=family)


def _ecmwf_keys(found: Mapping[str, Any]) -> dict[str, Any] | None:
    kind, type_, step = _ECMWF_LEVELS.get(str(found.get("levtype"))), found.get("type"), str(found.get("step", 0))
    if kind is None or "param" not in found or not step.isdigit() or type_ not in _ECMWF_TYPES:
        return None
    try:
        number = int(found["number"]) if "number" in found else 0 if type_ == "cf" else None
        time, level, date = int(found.get("time", 0)), int(found.get("levelist", 0)), int(found["date"])
    except (ValueError, LookupError, TypeError):
        return None
    surface = {"typeOfLevel": kind, "level": level}
    return {
        "productDefinitionTemplateNumber": 0 if number is None else 1,
        "dataType": type_,
        **surface,
        "dataDate": date,
        "dataTime": time if time >= 100 else time * 100,
        "shortName": str(found["param"]),
        **({} if kind == "surface" else surface),
        **({} if number is None else {"number": number}),
        "step": int(step),
    }


def _wgrib2(line: str) -> Entry:
    parts = line.split(":")
    numbers = parts[0].split(".")
    if len(parts) < 6 or not parts[1].isdigit() or not all(number.isdigit() for number in numbers):
        raise FormatError(f"the line {line[:80]!r} is not one of an index of wgrib2")
    index = max(0, int(numbers[1]) - 1) if len(numbers) > 1 else 0
    date, parameter, level, step, *rest = parts[2:]
    try:
        keys = time_and_member_keys(date.removeprefix("d="), step, rest)
    except UnsupportedFeatureError:
        return Entry(line[:80], int(parts[1]), None, index, None)
    family = ("member",) if "perturbationNumber" in keys else ()
    return Entry(line[:80], int(parts[1]), None, index, keys, (parameter, level), family)
