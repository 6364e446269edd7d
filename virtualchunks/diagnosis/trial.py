"""Verdicts: whether the arrays of a variable become one, found out by joining one array of each kind there is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

from virtualchunks.array import ManifestArray
from virtualchunks.combine import concatenate_arrays
from virtualchunks.errors import RoundingWarning, VirtualChunksError
from virtualchunks.xarray.dataset import references_of

#: The verdicts, from the best to the worst.
AS_IT_IS, RECTILINEAR, HETEROGENEOUS, GATHERED, CANNOT = (
    "combines as it is",
    "rectilinear",
    "heterogeneous",
    "gathered",
    "cannot combine",
)
#: What each verdict means.
MEANINGS = {
    AS_IT_IS: "all chunks decode alike and the chunk grid stays regular",
    RECTILINEAR: "chunks differ in length along the dimension: Zarr's rectilinear grid",
    HETEROGENEOUS: "chunks decode in different ways: served transcoded, chunk by chunk",
    GATHERED: "chunk shapes differ: cells are put together from the chunks that cover them",
    CANNOT: "no array of references holds them all",
}


@dataclass(frozen=True)
class Verdict:
    """Whether, and as what, the arrays of a variable combine.

    Parameters
    ----------
    verdict
        One of the keys of :data:`MEANINGS`.
    because
        Why, where they do not combine as they are.
    """

    verdict: str
    because: str = ""

    @property
    def ok(self) -> bool:
        """Whether they combine."""
        return self.verdict != CANNOT


def judge(name: str, examples: Sequence[xr.Dataset], dimension: str | None) -> Verdict:
    """Return what becomes of a variable when files are joined.

    Parameters
    ----------
    name
        The variable.
    examples
        One virtual Dataset of each kind of file, in order, all of which hold it.
    dimension
        The dimension to join along, if there is one.
    """
    arrays = []
    dims: tuple[Any, ...] | None = None
    for dataset in examples:
        variable = dataset.variables[name]
        dims = variable.dims if dims is None else dims
        if set(variable.dims) != set(dims):
            return Verdict(CANNOT, f"its dimensions are {dims} in one file and {variable.dims} in another")
        array = references_of(variable.transpose(*dims))
        if array is None:
            return Verdict(CANNOT, "it holds references in some files and values in others")
        arrays += [array, array]  # twice, since what stands at the end may be out of place before another
    if dims is None or dimension not in dims:
        return _without_dimension(arrays[::2])
    axis = dims.index(dimension)
    try:
        with warnings.catch_warnings(record=True, action="always", category=RoundingWarning) as rounding:
            joined = concatenate_arrays(arrays, axis)
    except VirtualChunksError as error:
        return Verdict(CANNOT, error.message.partition("; to join values instead")[0])
    found = classify(joined, arrays, axis)
    if not rounding:
        return found
    return replace(found, because=f"{found.because}; integers beyond 2**53 are rounded, since others are floats")


def _without_dimension(arrays: Sequence[ManifestArray]) -> Verdict:
    """Judge a variable that is taken from the first file, as xarray's ``compat="override"`` does."""
    shapes = dict.fromkeys(array.shape for array in arrays)
    if len(shapes) > 1:
        return Verdict(CANNOT, f"it has not the dimension, and its shape differs: {', '.join(map(str, shapes))}")
    return Verdict(AS_IT_IS, "it has not the dimension, so it is taken from the first file")


def classify(joined: ManifestArray, parts: Sequence[ManifestArray], axis: int) -> Verdict:
    """Return the verdict that a joined array stands for.

    Parameters
    ----------
    joined
        What the parts became.
    parts
        What was joined.
    axis
        The axis joined along.
    """
    others = [
        [one for place, one in enumerate(array.metadata.grid.axes) if place != axis] for array in (joined, *parts)
    ]
    if any(grid != others[0] for grid in others[1:]):
        return Verdict(GATHERED, "its chunk shape differs between files")
    reasons = []
    ids = joined.manifest.compact().sources.encoding_ids
    if ids is not None and bool((ids > 0).any()):
        reasons.append(_encoding_difference(joined, parts))
    line = joined.metadata.grid.axes[axis]
    if line.chunk is None:
        lengths = dict.fromkeys(map(int, line.nominal.tolist()))
        reasons.append(f"its chunks have the lengths {', '.join(map(str, list(lengths)[:6]))} along the dimension")
    if not reasons:
        return Verdict(AS_IT_IS)
    return Verdict(HETEROGENEOUS if ids is not None and bool((ids > 0).any()) else RECTILINEAR, "; ".join(reasons))


def _encoding_difference(joined: ManifestArray, parts: Sequence[ManifestArray]) -> str:
    first = parts[0].metadata.encoding
    for part in parts:
        other = part.metadata.encoding
        if other.dtype != first.dtype:
            return f"its chunks hold {first.dtype.str} in one file and {other.dtype.str} in another"
        if replace(other, shape=None) != replace(first, shape=None):
            return "its codecs or packing differ between files"
    return "chunks at the end of a file decode to more than their place"
