"""Comparing two trees of references: which arrays, which metadata and which chunks differ, and where."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata, same_value
from virtualchunks.writers.datasets import as_group

if TYPE_CHECKING:
    from virtualchunks.writers.datasets import Tree

#: Most sources that are listed for an array.
MOST = 20

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Changes:
    """Chunks of an array that differ in one way.

    Parameters
    ----------
    chunks
        How many.
    box
        The smallest box of the chunk grid that holds them, as ``(start, stop)`` along each axis.
    sources
        How many of them by the URL they point at: in the tree that has them, or ``"old → new"`` where both do. At most
        :data:`MOST`, the most frequent first.
    more
        How many sources are not listed.
    """

    chunks: int = 0
    box: Box = ()
    sources: Mapping[str, int] = field(default_factory=dict)
    more: int = 0


@dataclass(frozen=True)
class ArrayDifference:
    """What differs between two arrays of one path.

    Parameters
    ----------
    metadata
        What differs besides the chunks, by name: the value in the first tree and in the second.
    added, removed, changed
        Chunks that only the second tree has, that only the first has, and that point at other bytes. Chunks are
        compared by their index in the chunk grid; they are not where the grids are cut differently, as
        `metadata` tells then.
    """

    metadata: Mapping[str, tuple[Any, Any]]
    added: Changes = Changes()
    removed: Changes = Changes()
    changed: Changes = Changes()

    def __bool__(self) -> bool:
        return bool(self.metadata or self.added.chunks or self.removed.chunks or self.changed.chunks)


@dataclass(frozen=True)
class Difference:
    """What differs between two trees of references. It is true where something does.

    Parameters
    ----------
    added, removed
        Paths of the arrays that only the second tree has, and that only the first has.
    changed
        The arrays that differ, by path.
    attributes
        The attributes of groups that differ, by ``path@name``: their value in the first tree and in the second.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, ArrayDifference]
    attributes: Mapping[str, tuple[Any, Any]]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.attributes)

    def __str__(self) -> str:
        return "\n".join(self._lines()) or "no difference"

    def _lines(self) -> Iterator[str]:
        yield from (f"+ array {path}" for path in self.added)
        yield from (f"- array {path}" for path in self.removed)
        yield from (f"~ {name}: {_short(old)} → {_short(new)}" for name, (old, new) in self.attributes.items())
        for path, array in self.changed.items():
            yield from (
                f"~ {path}.{name}: {_short(old)} → {_short(new)}" for name, (old, new) in array.metadata.items()
            )
            for mark, changes in (("+", array.added), ("-", array.removed), ("~", array.changed)):
                if changes.chunks:
                    yield f"{mark} {path}: {changes.chunks} chunks in {_box_text(changes.box)}"
                    yield from (f"    {count} of {url}" for url, count in changes.sources.items())
                    yield from (f"    and {changes.more} more sources",) if changes.more else ()


def diff(one: Tree, other: Tree) -> Difference:
    """Return what differs between two trees of references.

    Two chunks are the same if they point at the same bytes of the same version of the same object and decode alike.

    Parameters
    ----------
    one, other
        The old one and the new one: ManifestGroups, or xarray's Datasets or DataTrees, of which loaded variables are
        compared by the bytes that they would be written as.

    Returns
    -------
    Difference
        Its size is bounded by the number of arrays, not by that of the chunks.
    """
    old, new = as_group(one), as_group(other)
    mine, theirs = dict(old.walk_arrays()), dict(new.walk_arrays())
    found = {path: _array_difference(mine[path], theirs[path]) for path in mine if path in theirs}
    return Difference(
        tuple(path for path in theirs if path not in mine),
        tuple(path for path in mine if path not in theirs),
        {path: difference for path, difference in found.items() if difference},
        _attributes(old, new),
    )


def _attributes(one: ManifestGroup, other: ManifestGroup) -> dict[str, tuple[Any, Any]]:
    groups, others = dict(one.walk()), dict(other.walk())
    found: dict[str, tuple[Any, Any]] = {}
    for path in dict.fromkeys([*groups, *others]):
        mine = groups[path].attributes if path in groups else {}
        theirs = others[path].attributes if path in others else {}
        found |= {f"{path}@{name}": pair for name, pair in _unequal(mine, theirs).items()}
    return found


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys([*one, *other])
    return {
        name: (one.get(name), other.get(name))
        for name in names
        if (name in one) != (name in other) or not same_value(one[name], other[name])
    }


def _facts(metadata: ArrayMetadata) -> dict[str, Any]:
    return {
        "shape": metadata.shape,
        "chunks": tuple(axis.to_json() for axis in metadata.grid.axes),
        "dtype": metadata.dtype,
        "fill_value": metadata.fill_value,
        "dimension_names": metadata.dimension_names,
        **{f"attributes.{name}": value for name, value in metadata.attributes.items()},
    }


def _array_difference(one: ManifestArray, other: ManifestArray) -> ArrayDifference:
    mine, theirs = one.metadata, other.metadata
    metadata = _unequal(_facts(mine), _facts(theirs))
    if mine.encoding != theirs.encoding:
        metadata["codecs"] = (mine.encoding, theirs.encoding)
    if not _comparable(mine, theirs):
        return ArrayDifference(metadata)
    common = tuple(slice(0, min(a, b)) for a, b in zip(mine.grid.grid_shape, theirs.grid.grid_shape, strict=True))
    a, b = one.manifest, other.manifest
    shared = _part(a, common), _part(b, common)
    unequal = ~shared[0].elementwise_eq(shared[1])
    both = shared[0].present & shared[1].present
    added, removed = b.present.copy(), a.present.copy()
    added[common] &= unequal & ~both
    removed[common] &= unequal & ~both
    return ArrayDifference(
        metadata, _changes(added, b), _changes(removed, a), _changes(unequal & both, shared[0], shared[1])
    )


def _comparable(one: ArrayMetadata, other: ArrayMetadata) -> bool:
    """Whether chunks of one index are the same part of both arrays, where both have them."""
    if one.ndim != other.ndim:
        return False
    for mine, theirs in zip(one.grid.axes, other.grid.axes, strict=True):
        count = min(mine.count, theirs.count)
        if not np.array_equal(mine.nominal[:count], theirs.nominal[:count]):
            return False
    return True


def _part(manifest: ChunkManifest, where: tuple[slice, ...]) -> ChunkManifest:
    return ChunkManifest.from_records(manifest.records[where], manifest.sources)


def _changes(where: npt.NDArray[np.bool_], manifest: ChunkManifest, new: ChunkManifest | None = None) -> Changes:
    count = int(np.count_nonzero(where))
    if not count:
        return Changes()
    places = np.nonzero(where) if where.ndim else ()
    box = tuple((int(place.min()), int(place.max()) + 1) for place in places)
    olds = np.atleast_1d(manifest.records["source"][where]).astype(np.int64)
    news = olds if new is None else np.atleast_1d(new.records["source"][where]).astype(np.int64)
    many = int(news.max()) + 1
    pairs, counts = np.unique(olds * many + news, return_counts=True)
    named: dict[str, int] = {}
    for pair, times in zip(pairs.tolist(), counts.tolist(), strict=True):
        a, b = divmod(pair, many)
        old = _name(manifest, a)
        name = old if new is None or _name(new, b) == old else f"{old} → {_name(new, b)}"
        named[name] = named.get(name, 0) + times
    listed = sorted(named.items(), key=lambda item: -item[1])
    return Changes(count, box, dict(itertools.islice(listed, MOST)), max(0, len(listed) - MOST))


def _name(manifest: ChunkManifest, row: int) -> str:
    return manifest.sources.url(row) or "memory"


def _box_text(box: Box) -> str:
    return "[" + ", ".join(f"{start}:{stop}" for start, stop in box) + "]"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
