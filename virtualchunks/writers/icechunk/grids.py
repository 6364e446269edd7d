"""Grids: whether an array continues a stored one, or fits into a part of it, chunk by chunk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from virtualchunks.attributes import to_zarr
from virtualchunks.errors import CombineError
from virtualchunks.grid import Axis
from virtualchunks.metadata import MEANING, ArrayMetadata, same_value
from virtualchunks.writers.layout import StoredArray

#: Units of time: the unit, the date and the time of day, the zone.
_SINCE = re.compile(
    r"(\w+) since (-?\d+)-(\d+)-(\d+)(?:[T ]+(\d+)(?::(\d+))?(?::(\d+(?:\.\d*)?))?)? ?(?:Z|UTC|([+-]\d.*))?"
)


def require_same(array: StoredArray, existing: ArrayMetadata, but: Sequence[str] = ()) -> None:
    """Check that an array may share the metadata of a stored one.

    Parameters
    ----------
    array
        The array to be written.
    existing
        The stored one.
    but
        Dimensions along which their lengths may differ.

    Raises
    ------
    CombineError
        If dimensions, lengths, dtype or an attribute that changes what values mean differ.
    """
    mine = array.metadata
    names = mine.dimension_names or ()
    problem = None
    if names != existing.dimension_names:
        problem = f"its dimensions are {names}, those of the stored array {existing.dimension_names}"
    elif mine.dtype != existing.dtype:
        problem = f"its dtype is {mine.dtype}, that of the stored array {existing.dtype}"
    else:
        problem = _other_length(mine, existing, but) or _other_meaning(mine, existing)
    if problem is not None:
        raise CombineError(f"{array.path!r} does not fit the stored array: {problem}", variable=array.path)


def _other_length(mine: ArrayMetadata, existing: ArrayMetadata, but: Sequence[str]) -> str | None:
    for name, size, stored in zip(mine.dimension_names or (), mine.shape, existing.shape, strict=True):
        if size != stored and name not in but:
            return f"it has {size} elements along {name!r}, the stored array {stored}"
    return None


def _other_meaning(mine: ArrayMetadata, existing: ArrayMetadata) -> str | None:
    own = to_zarr(mine.attributes, mine.dtype, strict=True)
    for name in MEANING:
        if not _same_meaning(name, own.get(name), existing.attributes.get(name)):
            return (
                f"its attribute {name!r} is {own.get(name)!r}, that of the stored array "
                f"{existing.attributes.get(name)!r}, so the same stored value would mean two things"
            )
    return None


def _same_meaning(name: str, one: Any, other: Any) -> bool:
    if name == "units" and isinstance(one, str) and isinstance(other, str):
        return _time_units(one) == _time_units(other)
    return same_value(one, other)


def _time_units(units: str) -> tuple[Any, ...]:
    """Return units apart from how they write midnight: ``days since 2000-01-01`` has several spellings.

    Examples
    --------
    >>> _time_units("days since 2000-01-01 00:00:00") == _time_units("days since 2000-1-1")
    True
    """
    found = _SINCE.fullmatch(units.strip())
    if found is None:
        return (units,)
    unit, *numbers, zone = found.groups()
    return (unit, *(float(number or 0) for number in numbers), zone or "")


def _require_same_chunks(array: StoredArray, existing: ArrayMetadata, free: Sequence[int]) -> None:
    """Check that chunks decode alike and, along all axes but the free ones, are cut alike."""
    mine = array.metadata
    if mine.encoding != existing.encoding:
        raise CombineError(
            f"the chunks of {array.path!r} decode as {mine.encoding!r}, those of the stored array as "
            f"{existing.encoding!r}, and Icechunk holds one encoding for each array",
            variable=array.path,
        )
    if array.has_missing and not same_value(mine.fill_value, existing.fill_value):
        raise CombineError(
            f"missing chunks of {array.path!r} read as {mine.fill_value!r}, those of the stored array as "
            f"{existing.fill_value!r}",
            variable=array.path,
        )
    for number, (own, stored) in enumerate(zip(mine.grid.axes, existing.grid.axes, strict=True)):
        if number not in free and not np.array_equal(own.nominal, stored.nominal):
            raise CombineError(
                f"the chunks of {array.path!r} along {_name(mine, number)} are {_edges(own)}, those of the stored "
                f"array {_edges(stored)}",
                variable=array.path,
            )


def grown_axis(array: StoredArray, existing: ArrayMetadata, axis: int, at: int | None = None) -> tuple[Axis, int]:
    """Return the axis of the stored array with the chunks of another among its own, and the index of their first.

    Parameters
    ----------
    array
        The array whose chunks are added.
    existing
        The stored one.
    axis
        Number of the axis.
    at
        The element before which they belong; by default they go to the end.

    Raises
    ------
    CombineError
        If the place is within a chunk, the chunks are unlike the others, or they would make a regular axis rectilinear
        while zarr is not set to read those.
    """
    _require_same_chunks(array, existing, free=(axis,))
    stored, own = existing.grid.axes[axis], array.metadata.grid.axes[axis]
    if not own.size:
        return stored, 0
    if at is None or at == stored.size:
        _require_full_end(array, existing, axis)
        first = stored.count
    else:
        first = _boundary(array, existing, axis, at)
    size = stored.size + own.size
    if not stored.size:
        return Axis.from_edges(own.nominal.tolist(), size), 0
    if stored.is_regular and own.is_regular and stored.chunk == own.chunk:
        return Axis(size, chunk=stored.chunk), first
    edges = stored.nominal.tolist()
    joined = Axis.from_edges([*edges[:first], *own.nominal.tolist(), *edges[first:]], size)
    if stored.is_regular and not joined.is_regular and not _rectilinear_allowed():
        raise CombineError(
            f"{array.path!r} cannot be appended to a regular chunk grid: the stored array has chunks of {stored.chunk} "
            f"along {_name(existing, axis)}, the other {_edges(own)}. As a rectilinear grid they can be one array, "
            'which is read with a flag of zarr: zarr.config.set({"array.rectilinear_chunks": True}) allows it',
            variable=array.path,
        )
    return joined, first


def _require_full_end(array: StoredArray, existing: ArrayMetadata, axis: int) -> None:
    stored = existing.grid.axes[axis]
    if stored.overhang:
        last = stored.nominal_at(stored.count - 1)
        raise CombineError(
            f"{array.path!r} cannot be appended: the stored array has {stored.size} elements along "
            f"{_name(existing, axis)}, and its last chunk of {last} is not full ({last - stored.overhang} elements), "
            "so the next chunk would begin within it",
            variable=array.path,
        )


def _boundary(array: StoredArray, existing: ArrayMetadata, axis: int, at: int) -> int:
    """Return the number of the chunk that begins at an element, before which whole chunks may go."""
    stored, own = existing.grid.axes[axis], array.metadata.grid.axes[axis]
    first = stored.locate(at)
    begins = int(stored.starts[first])
    if begins != at:
        raise CombineError(
            f"{array.path!r} cannot be inserted before element {at} along {_name(existing, axis)}: the stored chunk of "
            f"{stored.nominal_at(first)} that begins at {begins} would be cut in two",
            variable=array.path,
        )
    if own.overhang:
        last = own.nominal_at(own.count - 1)
        raise CombineError(
            f"{array.path!r} cannot be inserted before element {at} along {_name(existing, axis)}: its last chunk of "
            f"{last} is not full ({last - own.overhang} elements)",
            variable=array.path,
        )
    return first


def _rectilinear_allowed() -> bool:
    import zarr

    return bool(zarr.config.get("array.rectilinear_chunks", False))


def region_start(array: StoredArray, existing: ArrayMetadata, bounds: Sequence[slice]) -> tuple[int, ...]:
    """Return the index in the stored grid of the first chunk of an array that fills a part of it.

    Raises
    ------
    CombineError
        If the part does not begin and end between chunks, or its chunks have other lengths.
    """
    _require_same_chunks(array, existing, free=range(existing.ndim))
    return tuple(_first_chunk(array, existing, number, part) for number, part in enumerate(bounds))


def _first_chunk(array: StoredArray, existing: ArrayMetadata, number: int, part: slice) -> int:
    own, stored = array.metadata.grid.axes[number], existing.grid.axes[number]
    if part.start == part.stop:
        return 0
    first = stored.locate(part.start)
    last = stored.locate(part.stop - 1)
    begins = int(stored.starts[first]) == part.start
    ends = part.stop == stored.size or int(stored.starts[last]) + stored.nominal_at(last) == part.stop
    if begins and ends and np.array_equal(own.nominal, stored.nominal[first : last + 1]):
        return first
    raise CombineError(
        f"{array.path!r} does not fit the region {part.start} to {part.stop} along {_name(existing, number)}: it has "
        f"chunks of {_edges(own)}, and the stored chunks there begin at {int(stored.starts[first])} and have the "
        f"lengths {_edges_of(stored.nominal[first : last + 1].tolist())}",
        variable=array.path,
    )


def _name(metadata: ArrayMetadata, axis: int) -> str:
    return repr((metadata.dimension_names or (None,) * metadata.ndim)[axis])


def _edges(axis: Axis) -> str:
    return str(axis.chunk) if axis.chunk is not None else _edges_of(list(axis.edges or ()))


def _edges_of(edges: list[int]) -> str:
    return str(edges) if len(edges) <= 6 else f"[{edges[0]}, {edges[1]}, …, {edges[-1]}]"
