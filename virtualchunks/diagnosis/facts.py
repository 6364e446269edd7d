"""Facts: what one file says of its variables and coordinates, small enough to keep for ten thousand files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from virtualchunks.array import ManifestArray
from virtualchunks.grid import Axis
from virtualchunks.metadata import PACKING
from virtualchunks.xarray.dataset import references_of

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
        A hash of all values.
    """

    size: int
    first: Any = None
    last: Any = None
    step: Any = None
    is_even: bool = True
    is_ascending: bool = True
    digest: str = ""


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


def facts_of(url: str, dataset: xr.Dataset) -> FileFacts:
    """Return the facts of an opened file.

    Parameters
    ----------
    url
        The file.
    dataset
        It as a virtual Dataset, with its dimension coordinates loaded.
    """
    variables = {}
    for name, variable in dataset.variables.items():
        array = references_of(variable)
        if array is not None:
            variables[str(name)] = variable_facts(variable, array)
    coordinates = {str(name): coordinate_facts(np.asarray(index)) for name, index in dataset.indexes.items()}
    return FileFacts(url, variables, coordinates, {str(name): size for name, size in dataset.sizes.items()})


def variable_facts(variable: xr.Variable, array: ManifestArray) -> VariableFacts:
    """Return the facts of one virtual variable.

    Parameters
    ----------
    variable
        The variable.
    array
        The references that it holds.
    """
    stated = {**variable.encoding, **array.metadata.attributes, **variable.attrs}
    manifest = array.manifest
    features = {
        "dtype": _dtype(array),
        "dimensions": f"({', '.join(map(str, variable.dims))})",
        "chunks": " × ".join(map(_axis, array.metadata.grid.axes)) or "scalar",
        "codecs": _codecs(array),
        "packing": _stated(stated, PACKING),
        "fill values": _stated(stated, _FILLS),
        "units": _stated(stated, _UNITS),
    }
    sizes = dict(zip(map(str, variable.dims), array.shape, strict=True))
    count = int(np.prod(manifest.shape_chunk_grid, dtype=object))
    return VariableFacts(features, sizes, count - len(manifest))


def _dtype(array: ManifestArray) -> str:
    stored = array.metadata.encoding.dtype
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


def coordinate_facts(values: np.ndarray[Any, Any]) -> CoordinateFacts:
    """Return the facts of the values of a coordinate.

    Parameters
    ----------
    values
        One-dimensional: numbers, times, or text.

    Examples
    --------
    >>> facts = coordinate_facts(np.array([0.0, 0.5, 1.0]))
    >>> facts.first, facts.last, facts.step, facts.is_even
    (np.float64(0.0), np.float64(1.0), np.float64(0.5), True)
    """
    if not len(values):
        return CoordinateFacts(0)
    digest = hashlib.sha256(repr(values.tolist()).encode()).hexdigest()[:16]
    first, last = values[0], values[-1]
    try:
        steps = np.diff(values)
        positive = steps > steps - steps
    except TypeError:
        return CoordinateFacts(len(values), first, last, digest=digest)
    if not len(steps):
        return CoordinateFacts(len(values), first, last, digest=digest)
    step = np.sort(steps)[len(steps) // 2]
    return CoordinateFacts(len(values), first, last, step, _even(steps, step), bool(positive.all()), digest)


def _even(steps: np.ndarray[Any, Any], step: Any) -> bool:
    if steps.dtype.kind == "f":
        return bool(np.allclose(steps, step, rtol=1e-5, atol=abs(float(step)) * 1e-3))
    return bool((steps == step).all())
