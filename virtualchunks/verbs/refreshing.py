"""Refreshing: files that changed are parsed again, and their new references put in the place of the old ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.attributes import with_bounds_units
from virtualchunks.errors import CombineError, FormatError, VirtualChunksError
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import MISSING, ChunkManifest, concatenate
from virtualchunks.metadata import MEANING, ArrayMetadata, same_value
from virtualchunks.parsing import Parser, find_parser
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.roots import reference_url
from virtualchunks.verbs.checking import Check, check
from virtualchunks.verbs.moving import rename

#: Files parsed at once, and most failures that an error lists.
_WORKERS, _LISTED = 8, 10

#: What may be done with a file that was parsed again, before its references are taken over.
Inspect = Callable[[str, ManifestGroup, Mapping[str, tuple[slice, ...]]], None]


@dataclass(frozen=True)
class Place:
    """The part of an array that the chunks of one file fill.

    Parameters
    ----------
    box
        Of the chunk grid, the smallest that holds the chunks.
    elements
        The same in elements.
    """

    box: tuple[slice, ...]
    elements: tuple[slice, ...]


def refresh(
    group: ManifestGroup,
    registry: Any = None,
    parser: Parser | str | None = None,
    *,
    sources: Check | Iterable[str] | None = None,
    at: str = "",
    inspect: Inspect | None = None,
) -> ManifestGroup:
    """Parse the files that changed again, and put their new references in the place of the old ones.

    Parameters
    ----------
    group
        The references.
    registry
        What may be read.
    parser
        As for :func:`virtualchunks.open_virtual_dataset`.
    sources
        Which files: the answer of :func:`check`, whose changed ones are parsed, or URLs; by default they are checked
        first.
    at
        Path of the group within the files that the root of the tree came from.
    inspect
        Called with each file's URL, its new tree, and where in each array it lies; what it raises counts as a failure
        of the file.

    Returns
    -------
    ManifestGroup
        The tree, in which references to other files are untouched.

    Raises
    ------
    CombineError
        If some files no longer fit where they were: an array is gone, or has another shape, other chunks, another dtype
        or other codecs, or its values mean something else. The message says so file by file.
    ReadError, FormatError
        Within that message, where a file cannot be read or parsed.
    """
    granted = ObjectStoreRegistry.coerce(registry)
    urls = _chosen(group, granted, sources)
    with ThreadPoolExecutor(_WORKERS, "virtualchunks-refresh") as pool:
        parsed = dict(zip(urls, pool.map(partial(_parse, granted, parser, at), urls), strict=True))
    arrays = dict(group.walk_arrays())
    failures: dict[str, VirtualChunksError] = {}
    for url, found in parsed.items():
        try:
            if isinstance(found, VirtualChunksError):
                raise found
            arrays |= _replaced(arrays, url, found, inspect)
        except VirtualChunksError as error:
            failures[url] = error
    if failures:
        raise _failure(failures, len(urls)) from next(iter(failures.values()))
    return group.map_arrays(lambda path, _: arrays[path])


def _failure(failures: Mapping[str, VirtualChunksError], count: int) -> CombineError:
    lines = [f"{url}: {error.message}" for url, error in failures.items()][:_LISTED]
    more = [f"… and {len(failures) - _LISTED} more"] if len(failures) > _LISTED else []
    text = "\n".join([*lines, *more])
    return CombineError(
        f"{len(failures)} of {count} files do not fit where they were, and nothing is changed; open and combine them "
        f"anew:\n{text}",
        url=next(iter(failures)),
    )


def _chosen(
    group: ManifestGroup, registry: ObjectStoreRegistry, sources: Check | Iterable[str] | None
) -> tuple[str, ...]:
    if sources is None:
        sources = check(group, registry)
    if not isinstance(sources, Check):
        return tuple(dict.fromkeys(map(reference_url, [sources] if isinstance(sources, str) else sources)))
    gone = [*sources.missing, *sources.unreadable]
    if gone:
        raise CombineError(
            f"{len(gone)} files are gone or cannot be read, for example {gone[0]}: pass sources= with the others, or "
            "take these out of the references",
            url=gone[0],
        )
    return sources.changed


def _parse(
    registry: ObjectStoreRegistry, parser: Parser | str | None, at: str, url: str
) -> ManifestGroup | VirtualChunksError:
    try:
        place = registry.locate(url).url  # beneath a named root: where that is
        tree = find_parser(place, registry, parser)(place, registry).group
        tree = tree if place == url else rename(tree, lambda own: url if own == place else own)
        found = tree[at] if at.strip("/") else tree
    except VirtualChunksError as error:
        return error
    except KeyError:
        return FormatError(f"it has no group {at!r} any more", url=url)
    return found if isinstance(found, ManifestGroup) else FormatError(f"{at!r} is an array, not a group", url=url)


def _replaced(
    arrays: Mapping[str, ManifestArray], url: str, tree: ManifestGroup, inspect: Inspect | None
) -> dict[str, ManifestArray]:
    """Return the arrays that refer to a file, with its new references."""
    new = dict(tree.walk_arrays())
    spans = {path: span for path, array in arrays.items() if (span := _span(array, url)) is not None}
    if not spans:
        raise CombineError("nothing refers to it", url=url)
    places = _places({path: arrays[path] for path in spans}, spans)
    for path in places:
        if path not in new:
            raise CombineError(
                f"it has no array {path!r} any more; it has {', '.join(map(repr, new)) or 'none'}", url=url
            )
    described = _described(tree)
    new |= {path: new[path].lifted() for path in places if arrays[path].metadata.encoding.packing is not None}
    for path in places:
        _check_alike(path, arrays[path].metadata, new[path].metadata, described[path])
    made = {path: _put(path, arrays[path], place, url, new[path]) for path, place in places.items()}
    if inspect is not None:
        inspect(url, tree, {path: place.elements for path, place in places.items()})
    return made


def _rows(manifest: ChunkManifest, url: str) -> list[int]:
    return [row for row in manifest.used_rows().tolist() if manifest.sources.url(row) == url]


def _span(array: ManifestArray, url: str) -> list[tuple[int, int]] | None:
    """Return the smallest box of elements that holds the chunks of a file; ``None`` where there are none."""
    rows = _rows(array.manifest, url)
    if not rows:
        return None
    where = np.isin(array.manifest.records["source"], rows)
    axes = array.metadata.grid.axes
    chunks = [(int(place.min()), int(place.max())) for place in (np.nonzero(where) if where.ndim else ())]
    return [
        (int(axis.starts[first]), int(axis.starts[last]) + axis.cell_at(last))
        for axis, (first, last) in zip(axes, chunks, strict=True)
    ]


def _places(arrays: Mapping[str, ManifestArray], spans: Mapping[str, list[tuple[int, int]]]) -> dict[str, Place]:
    """Return where a file lies in each array. Chunks may be missing at its ends; those of other arrays tell then."""
    widest: dict[str, tuple[int, int]] = {}
    for path, array in arrays.items():
        for name, (start, stop) in zip(_names(array), spans[path], strict=True):
            least, most = widest.get(name, (start, stop))
            widest[name] = min(start, least), max(stop, most)
    places = {}
    for path, array in arrays.items():
        elements = [widest[name] for name in _names(array)]
        box = [
            (axis.locate(start), axis.locate(stop - 1) + 1)
            for axis, (start, stop) in zip(array.metadata.grid.axes, elements, strict=True)
        ]
        places[path] = Place(tuple(slice(*pair) for pair in box), tuple(slice(*pair) for pair in elements))
    return places


def _names(array: ManifestArray) -> list[str]:
    """Return the names of the dimensions; one without a name is shared with no other array."""
    names = array.metadata.dimension_names or (None,) * array.ndim
    return [f"{id(array)}/{axis}" if name is None else name for axis, name in enumerate(names)]


def _put(path: str, array: ManifestArray, place: Place, url: str, new: ManifestArray) -> ManifestArray:
    added = array.ndim - new.ndim
    widened = _widened(path, array, place, new, added)
    joined = concatenate([_flat(array.manifest), _flat(widened)], axis=0)
    size = array.manifest.records.size
    records = joined.records[:size].reshape(array.manifest.records.shape).copy()
    theirs = joined.records[size:].reshape(widened.records.shape)
    source = records["source"][place.box]
    mine = np.isin(source, [MISSING, *_rows(array.manifest, url)])
    part = records[place.box] if place.box else records
    records[place.box or ()] = np.where(mine, theirs, part)
    return ManifestArray(array.metadata, ChunkManifest.from_records(records, joined.sources).compact())


def _flat(manifest: ChunkManifest) -> ChunkManifest:
    return ChunkManifest.from_records(manifest.records.reshape(-1), manifest.sources)


def _widened(path: str, array: ManifestArray, place: Place, new: ManifestArray, added: int) -> ChunkManifest:
    """Return the new manifest with axes of one chunk where files were stacked, checked to fill the old place."""
    names = array.metadata.dimension_names or ()
    theirs = new.metadata.dimension_names or ()
    lacking = [axis for axis, name in enumerate(names) if name not in theirs] if added else []
    if added < 0 or len(lacking) != added:
        raise CombineError(f"{path!r} had {array.ndim} dimensions, it has {new.ndim}", variable=path)
    manifest = ChunkManifest.from_records(np.expand_dims(new.manifest.records, tuple(lacking)), new.manifest.sources)
    shape = tuple(part.stop - part.start for part in place.box)
    axes = [axis for number, axis in enumerate(array.metadata.grid.axes) if number not in lacking]
    spans = [
        (box, elements)
        for number, (box, elements) in enumerate(zip(place.box, place.elements, strict=True))
        if number not in lacking
    ]
    for number, (axis, other, (box, elements)) in enumerate(zip(axes, new.metadata.grid.axes, spans, strict=True)):
        size = elements.stop - elements.start
        if other.size != size or not np.array_equal(axis.nominal[box], other.nominal):
            raise CombineError(
                f"{path!r} filled {size} elements in {box.stop - box.start} chunks along axis {number}, and has "
                f"{other.size} in {other.count} now",
                variable=path,
            )
    if manifest.shape_chunk_grid != shape:
        raise CombineError(f"{path!r} had chunks in {shape}, it has {manifest.shape_chunk_grid}", variable=path)
    return manifest


def _described(tree: ManifestGroup) -> dict[str, Mapping[str, Any]]:
    """Return the attributes of arrays by path, as they are in a Dataset that is made of the tree."""
    found: dict[str, Mapping[str, Any]] = {}
    for path, group in tree.walk():
        start = f"{path}/" if path else ""
        own = with_bounds_units({name: dict(array.metadata.attributes) for name, array in group.arrays.items()})
        found |= {start + name: attributes for name, attributes in own.items()}
    return found


def _check_alike(path: str, one: ArrayMetadata, other: ArrayMetadata, described: Mapping[str, Any]) -> None:
    for name in ("dtype", "encoding", "fill_value"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if not (same_value(mine, theirs) if name == "fill_value" else mine == theirs):
            raise CombineError(f"{path!r} had the {name} {mine!r}, it has {theirs!r}", variable=path)
    for name in MEANING:
        mine, theirs = one.attributes.get(name), other.attributes.get(name)
        if not same_value(mine, theirs) and not same_value(mine, described.get(name)):
            raise CombineError(
                f"the attribute {name!r} of {path!r} was {mine!r} and is {theirs!r}, so the same stored value means "
                "two things",
                variable=path,
            )
