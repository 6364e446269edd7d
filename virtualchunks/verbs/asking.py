"""Questions: which objects a tree of references leads to, and where the bytes of a place in it are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.errors import ChunkIndexError
from virtualchunks.grid import Axis
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import IN_MEMORY, ChunkManifest
from virtualchunks.sources import Stamp
from virtualchunks.verbs.table import Table

#: What selects along a dimension: an integer, a slice, or several integers.
Indexer = int | slice | npt.ArrayLike
Ranges = tuple[tuple[int, int], ...]

_SOURCES = ("url", "size", "etag", "last_modified", "version", "variables", "chunks", "bytes", "ranges")
_PLACES = ("variable", "chunk", "kind", "url", "offset", "length")


def sources(group: ManifestGroup) -> Table:
    """Return a table of the objects that a tree refers to.

    Parameters
    ----------
    group
        The tree.

    Returns
    -------
    Table
        One row per object and version: ``url``, the stamp it was parsed with (``size`` in bytes, ``etag``,
        ``last_modified``, ``version``), the ``variables`` that refer to it, how many ``chunks`` and ``bytes`` of it
        they refer to, and ``ranges``: for each variable the smallest box that holds these chunks, as ``(start, stop)``
        of elements along each axis. Chunks held in memory are one row, whose url is ``"__inlined__"``.
    """
    rows: dict[Any, dict[str, Any]] = {}
    for path, array in group.walk_arrays():
        manifest = array.manifest.compact()
        for number, chunks, size, ranges in _by_source(array, manifest):
            url, stamp = manifest.sources.url(number) or IN_MEMORY, manifest.sources.stamp(number)
            row = rows.setdefault(
                (url, stamp), {"url": url, **stamp_columns(stamp), "chunks": 0, "bytes": 0, "ranges": {}}
            )
            row["chunks"] += chunks
            row["bytes"] += size
            row["ranges"][path] = _hull(row["ranges"].get(path), ranges)
    made = [{**row, "variables": tuple(row["ranges"])} for row in rows.values()]
    return Table({name: [row[name] for row in made] for name in _SOURCES})


def locate(
    group: ManifestGroup, indexers: Mapping[str, Indexer] | None = None, variables: Iterable[str] | None = None
) -> Table:
    """Return where the bytes of the chunks are that hold some elements.

    Parameters
    ----------
    group
        The tree.
    indexers
        For each dimension an integer, a slice or several integers: positions, as for ``isel``. Dimensions that are left
        out are taken whole; variables that lack a dimension are not narrowed by it.
    variables
        Paths of the arrays to look at; by default all.

    Returns
    -------
    Table
        One row per chunk: ``variable``; ``chunk``, its index in the chunk grid; ``kind``: ``"virtual"``,
        ``"in memory"`` or ``"missing"``; ``url``, ``offset`` and ``length`` in bytes, ``None`` where they do not apply.

    Raises
    ------
    ChunkIndexError
        If a dimension or a variable is not there, or a position lies outside.
    """
    wanted = dict(indexers or {})
    arrays = dict(group.walk_arrays())
    names = list(arrays) if variables is None else list(variables)
    for name in names:
        if name not in arrays:
            raise ChunkIndexError(
                f"no array of references {name!r}; there are {', '.join(map(repr, arrays)) or 'none'}"
            )
    known = dict.fromkeys(name for path in names for name in arrays[path].metadata.dimension_names or ())
    for dimension in wanted:
        if dimension not in known:
            there = ", ".join(map(repr, known)) or "none"
            raise ChunkIndexError(f"no dimension {dimension!r}; the dimensions of the references are {there}")
    rows = [row for path in names for row in _places(path, arrays[path], wanted)]
    return Table({name: [row[column] for row in rows] for column, name in enumerate(_PLACES)})


def stamp_columns(stamp: Stamp) -> dict[str, Any]:
    """Return a stamp as the columns that tables have for it; the time is one of NumPy's, in UTC."""
    moment = None if stamp.last_modified is None else np.datetime64(stamp.last_modified, "ns")
    return {"size": stamp.size, "etag": stamp.etag, "last_modified": moment, "version": stamp.version}


def _by_source(array: ManifestArray, manifest: ChunkManifest) -> Iterator[tuple[int, int, int, Ranges]]:
    """Iterate over source rows: number, chunks, bytes, and the box of elements that the chunks lie in."""
    records = manifest.records
    if not len(manifest):
        return
    flat = records["source"].reshape(-1)
    order = np.argsort(flat, kind="stable")
    order = order[np.searchsorted(flat[order], 0) :]
    if not len(order):
        return
    numbers, starts = np.unique(flat[order], return_index=True)
    counts = np.diff([*starts, len(order)])
    sizes = np.add.reduceat(records["length"].reshape(-1)[order].astype(np.int64), starts)
    boxes = []
    indices = np.unravel_index(order, records.shape) if records.ndim else ()
    for axis, places in zip(array.metadata.grid.axes, indices, strict=True):
        first, last = np.minimum.reduceat(places, starts), np.maximum.reduceat(places, starts)
        boxes.append(list(zip(axis.starts[first].tolist(), (axis.starts + axis.cells)[last].tolist(), strict=True)))
    for row, number in enumerate(numbers.tolist()):
        yield number, int(counts[row]), int(sizes[row]), tuple(box[row] for box in boxes)


def _hull(one: Ranges | None, other: Ranges) -> Ranges:
    if one is None:
        return other
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def _places(path: str, array: ManifestArray, wanted: Mapping[str, Indexer]) -> Iterator[tuple[Any, ...]]:
    names = array.metadata.dimension_names or (None,) * array.ndim
    axes = array.metadata.grid.axes
    chunks = [
        np.arange(axis.count) if name is None or name not in wanted else _chunks(name, axis, wanted[name])
        for name, axis in zip(names, axes, strict=True)
    ]
    manifest = array.manifest
    records = manifest.records[np.ix_(*chunks)] if chunks else manifest.records
    indices = np.stack(np.meshgrid(*chunks, indexing="ij"), axis=-1).reshape(-1, len(chunks)) if chunks else [()]
    urls = {int(row): manifest.sources.url(int(row)) for row in np.unique(records["source"]) if row >= 0}
    columns = (records[name].reshape(-1).tolist() for name in ("source", "offset", "length"))
    for index, source, offset, length in zip(indices, *columns, strict=True):
        chunk = tuple(map(int, index))
        if source < 0:
            yield path, chunk, "missing", None, None, None
        elif urls[source]:
            yield path, chunk, "virtual", urls[source], offset, length
        else:
            yield path, chunk, "in memory", None, None, length


def _chunks(name: str, axis: Axis, indexer: Indexer) -> npt.NDArray[np.intp]:
    """Return the numbers of the chunks along an axis that hold the elements at some positions."""
    if isinstance(indexer, slice):
        positions = np.arange(axis.size)[indexer]
    else:
        positions = np.atleast_1d(np.asarray(indexer))
        if positions.size and positions.dtype.kind not in "iu":
            raise ChunkIndexError(f"positions along {name!r} are integers or a slice, found {indexer!r}")
        positions = positions.astype(np.int64)
        positions = np.where(positions < 0, positions + axis.size, positions)
        outside = (positions < 0) | (positions >= axis.size)
        if outside.any():
            raise ChunkIndexError(f"{indexer!r} lies outside the dimension {name!r}, of length {axis.size}")
    return np.unique(np.searchsorted(axis.starts, positions, side="right") - 1)
