"""Facts: what one file says of its variables and coordinates, small enough to keep for ten thousand files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from xarray.coding.times import decode_cf_datetime

from virtualchunks.array import ManifestArray
from virtualchunks.grid import Axis
from virtualchunks.group import ManifestGroup
from virtualchunks.metadata import PACKING
from virtualchunks.reading.together import read_together
from virtualchunks.xarray.dataset import dimension_names

if TYPE_CHECKING:
    from virtualchunks.registry import ObjectStoreRegistry

#: What is compared of each variable, in the order in which it is reported.
FEATURES = ("dtype", "dimensions", "chunks", "codecs", "packing", "fill values", "units")
_FILLS = ("_FillValue", "missing_value")
_UNITS = ("units", "calendar")


@dataclass(frozen=True)
class VariableFacts:
    """One variable of one file.

    Parameters
    ----------
    features
        Its features, in words, by the names of :data:`FEATURES`.
    sizes
        Its dimensions and their sizes, in order.
    missing
        Number of chunks that the file does not hold.
    """

    features: Mapping[str, str]
    sizes: Mapping[str, int]
    missing: int = 0

    @property
    def kind(self) -> tuple[Any, ...]:
        """What has to be equal for two files to combine alike."""
        return (*self.features.values(), *self.sizes.items())


@dataclass(frozen=True)
class CoordinateFacts:
    """The values of one dimension coordinate of one file, in brief.

    Parameters
    ----------
    size
        How many there are.
    first, last
        The first and the last of them.
    step
        The median difference of neighbours; ``None`` where there are fewer than two, or they are text.
    is_even
        Whether all differences are the same, up to rounding.
    is_ascending
        Whether they grow from each to the next.
    digest
        A hash of all values, units and calendar.
    units, calendar
        What they count, where that is time.
    """

    size: int
    first: Any = None
    last: Any = None
    step: Any = None
    is_even: bool = True
    is_ascending: bool = True
    digest: str = ""
    units: str | None = None
    calendar: str | None = None


@dataclass(frozen=True)
class FileFacts:
    """One file.

    Parameters
    ----------
    url
        The file.
    variables, coordinates
        What it holds, by name.
    sizes
        Size of each dimension.
    error
        Why it could not be opened, where it could not; the rest is empty then.
    """

    url: str
    variables: Mapping[str, VariableFacts] = field(default_factory=dict)
    coordinates: Mapping[str, CoordinateFacts] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None


def facts_of(url: str, group: ManifestGroup, registry: ObjectStoreRegistry) -> FileFacts:
    """Return the facts of a parsed file, after reading its dimension coordinates.

    Parameters
    ----------
    url
        The file.
    group
        The references into it.
    registry
        Which grants it.

    Raises
    ------
    ReadError, DecodeError
        If a coordinate cannot be read.
    """
    names = {name: dimension_names(name, array) for name, array in group.arrays.items()}
    sizes = {
        dim: size for name, array in group.arrays.items() for dim, size in zip(names[name], array.shape, strict=True)
    }
    coordinates = {name: array for name, array in group.arrays.items() if names[name] == (name,)}
    values = read_together(coordinates, registry)
    return FileFacts(
        url,
        {name: variable_facts(names[name], array) for name, array in group.arrays.items() if name not in coordinates},
        {name: coordinate_facts(values[name], array.metadata.attributes) for name, array in coordinates.items()},
        sizes,
    )


def variable_facts(dimensions: Sequence[str], array: ManifestArray) -> VariableFacts:
    """Return the facts of one variable.

    Parameters
    ----------
    dimensions
        Names of its dimensions.
    array
        Its references.
    """
    stated = array.metadata.attributes
    manifest = array.manifest
    features = {
        "dtype": _dtype(array.metadata.encoding.dtype),
        "dimensions": f"({', '.join(dimensions)})",
        "chunks": " × ".join(map(_axis, array.metadata.grid.axes)) or "scalar",
        "codecs": _codecs(array),
        "packing": _stated(stated, PACKING),
        "fill values": _stated(stated, _FILLS),
        "units": _stated(stated, _UNITS),
    }
    sizes = dict(zip(dimensions, array.shape, strict=True))
    count = math.prod(manifest.shape_chunk_grid)
    return VariableFacts(features, sizes, count - len(manifest))


@lru_cache(maxsize=256)
def _dtype(stored: np.dtype[Any]) -> str:
    return f"{stored.newbyteorder('=') if stored.kind != 'T' else stored}" + (
        ", big-endian" if stored.kind not in "TO" and stored.newbyteorder(">") == stored != stored.newbyteorder("<")
        else ""
    )  # fmt: skip


def _axis(axis: Axis) -> str:
    return str(axis.chunk) if axis.chunk is not None else "uneven"


def _codecs(array: ManifestArray) -> str:
    encodings = [array.metadata.encoding, *array.manifest.sources.encodings]
    chains = dict.fromkeys(_chain(encoding.codecs) for encoding in encodings)
    return "; also ".join(chains)


def _chain(codecs: Any) -> str:
    return " → ".join(_codec(codec) for codec in codecs if codec["name"] != "bytes") or "none"


def _codec(codec: Mapping[str, Any]) -> str:
    configuration = ", ".join(f"{name}={value!r}" for name, value in sorted(codec.get("configuration", {}).items()))
    short = codec["name"].removeprefix("numcodecs.")
    return f"{short}({configuration})" if configuration else short


def _stated(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str:
    found = {name: attributes[name] for name in names if attributes.get(name) is not None}
    return ", ".join(f"{name}={_plain(value)}" for name, value in found.items()) or "none"


def _plain(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


def coordinate_facts(values: npt.NDArray[Any], attributes: Mapping[str, Any] | None = None) -> CoordinateFacts:
    """Return the facts of the values of a coordinate.

    Parameters
    ----------
    values
        One-dimensional, as they are stored: numbers, or text.
    attributes
        Its attributes, of which packing, units and calendar matter.

    Examples
    --------
    >>> facts = coordinate_facts(np.array([0.0, 0.5, 1.0]))
    >>> facts.first, facts.last, facts.step, facts.is_even
    (np.float64(0.0), np.float64(1.0), np.float64(0.5), True)
    """
    stated = attributes or {}
    if not len(values):
        return CoordinateFacts(0)
    units, calendar = stated.get("units"), stated.get("calendar")
    digest = hashlib.sha256(f"{units} {calendar} {values.dtype.str}".encode())
    digest.update(repr(values.tolist()).encode() if values.dtype.kind in "TO" else values.tobytes())
    common: dict[str, Any] = {"digest": digest.hexdigest()[:16], "units": units, "calendar": calendar}
    if values.dtype.kind not in "iuf":
        return CoordinateFacts(len(values), values[0], values[-1], **common)
    numbers = values * stated.get("scale_factor", 1) + stated.get("add_offset", 0)
    steps = np.diff(numbers.astype("f8") if numbers.dtype.kind == "u" else numbers)
    if not len(steps):
        return CoordinateFacts(1, numbers[0], numbers[-1], **common)
    step = np.sort(steps)[len(steps) // 2]
    return CoordinateFacts(
        len(values), numbers[0], numbers[-1], step, _even(steps, step), bool((steps > 0).all()), **common
    )


def _even(steps: npt.NDArray[Any], step: Any) -> bool:
    if steps.dtype.kind != "f":
        return bool((steps == step).all())
    with np.errstate(invalid="ignore"):  # infinite steps are not even
        return bool((np.abs(steps - step) <= 1.01e-3 * abs(step)).all())


def decoded(facts: Sequence[CoordinateFacts]) -> list[CoordinateFacts]:
    """Return facts with times in the place of numbers that count from a moment, all those of one unit at once.

    Parameters
    ----------
    facts
        Those of one coordinate in all files.
    """
    result = list(facts)
    kinds: dict[tuple[Any, Any], list[int]] = {}
    for place, one in enumerate(facts):
        if one.size and isinstance(one.units, str) and " since " in one.units:
            kinds.setdefault((one.units, one.calendar), []).append(place)
    for (units, calendar), places in kinds.items():
        chosen = [facts[place] for place in places]
        numbers = [[one.first, one.last, one.first + (0 if one.step is None else one.step)] for one in chosen]
        try:
            times = decode_cf_datetime(np.array(numbers).reshape(-1), units, calendar).reshape(-1, 3)
        except (ValueError, OverflowError, TypeError):
            continue
        for place, one, (first, last, next_one) in zip(places, chosen, times, strict=True):
            step = None if one.step is None else next_one - first
            result[place] = replace(one, first=first, last=last, step=step)
    return result
