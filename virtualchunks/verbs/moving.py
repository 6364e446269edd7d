"""Moving: references to where objects are now, along an axis, and from one place of the tree to another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.errors import ChunkIndexError, ManifestError, URLError
from virtualchunks.group import ManifestGroup, is_node_name
from virtualchunks.manifest import MISSING, ChunkManifest
from virtualchunks.roots import check_root_name, places_of, reference_url, root_of_url

#: How URLs are changed: a function of the old URL, or new prefixes by old ones.
Renaming = Callable[[str], str] | Mapping[str, str | os.PathLike[str]]


def rename(group: ManifestGroup, new: Renaming, *, keep_stamps: bool = False) -> ManifestGroup:
    """Return the tree with the URLs of objects changed, once per object and not per chunk.

    Parameters
    ----------
    group
        The tree.
    new
        A mapping of prefixes to what they become, compared by whole path segments, the longest first; URLs beneath none
        of them stay. Or a function from the old URL to the new.
    keep_stamps
        Whether the objects are the very same under their new name. By default only the size is kept, since entity tag,
        time and version are those of one copy; objects whose URL stays keep theirs.

    Raises
    ------
    URLError
        If a new URL is not acceptable, or no URL lies beneath one of the prefixes.
    """
    change = _by_prefix(new, group) if isinstance(new, Mapping) else new
    known: dict[str, str] = {}

    def remembered(url: str) -> str:
        found = known.get(url)
        if found is None:
            found = known[url] = change(url)
        return found

    return group.map_arrays(lambda _, array: array.rename_paths(remembered, keep_stamps=keep_stamps))


def relative_to(group: ManifestGroup, base: str | os.PathLike[str], root: str = "root") -> ManifestGroup:
    """Return the tree with URLs beneath a folder spelled relative to a named root: ``{root}/2020/01.nc``.

    Where the root is, is said when the references are opened. A name stands for any copy of the folder, so that of the
    stamps only the sizes are kept.

    Parameters
    ----------
    group
        The tree.
    base
        The folder, as a URL or a local path.
    root
        Name of the root.

    Raises
    ------
    URLError
        If an object lies outside the folder.
    """
    check_root_name(root)
    [place] = places_of({root: base})[root]

    def relative(url: str) -> str:
        if url.startswith("{"):
            return url
        if not url.startswith(place):
            raise URLError(f"{url} does not lie beneath {place}: rename it first, or name the folder of all", url=url)
        return f"{{{root}}}/{url[len(place) :]}"

    return rename(group, relative)


def bind(group: ManifestGroup, roots: Mapping[str, str | os.PathLike[str]]) -> ManifestGroup:
    """Return the tree with named roots replaced by the places where they are.

    Parameters
    ----------
    group
        The tree.
    roots
        The folder of each name, as a URL or a local path. To try several, leave the references as they are and pass
        ``roots=`` when they are opened.

    Raises
    ------
    URLError
        If a root has several places.
    """
    places = places_of(roots)
    for name, several in places.items():
        if len(several) != 1:
            raise URLError(f"references lead to one place, and {name!r} has {len(several)}: pass roots= when opening")

    def bound(url: str) -> str:
        name = root_of_url(url)
        return url if name not in places else places[name][0] + url[url.index("}") + 2 :]

    return rename(group, bound, keep_stamps=True)


def shift(group: ManifestGroup, chunks: Mapping[str, int]) -> ManifestGroup:
    """Return the tree with references moved along dimensions by whole chunks; shapes stay as they are.

    What is moved past an end is dropped, and the chunks that become free are missing, as in
    :meth:`xarray.Dataset.shift`.

    Parameters
    ----------
    group
        The tree.
    chunks
        By how many chunks, by dimension; negative towards the beginning.

    Raises
    ------
    ChunkIndexError
        If no array has a dimension, or a chunk would move to where chunks are shorter or longer.
    """
    known = {name for _, array in group.walk_arrays() for name in array.metadata.dimension_names or ()}
    for name, by in chunks.items():
        if name not in known:
            raise ChunkIndexError(f"no dimension {name!r}; there are {sorted(filter(None, known))}")
        if isinstance(by, bool) or not isinstance(by, int | np.integer):
            raise ChunkIndexError(f"references are shifted by a whole number of chunks, found {by!r} along {name!r}")

    def moved(path: str, array: ManifestArray) -> ManifestArray:
        for axis, name in enumerate(array.metadata.dimension_names or ()):
            if name is not None and chunks.get(name):
                array = _shifted(path, array, axis, by)
        return array

    return group.map_arrays(moved)


def move(group: ManifestGroup, old: str, new: str) -> ManifestGroup:
    """Return the tree with an array or a group at another path; groups on the way are made where they are lacking.

    Parameters
    ----------
    group
        The tree.
    old, new
        Paths, names joined by slashes.

    Raises
    ------
    ManifestError
        If there is nothing at the old path, something at the new one, or the new one lies within the old.
    """
    source, target = old.strip("/"), new.strip("/")
    check_move(source, target, [path for path, _ in group.walk() if path] + [path for path, _ in group.walk_arrays()])
    node = group[source]
    return _with(_without(group, source.split("/")), target.split("/"), node)


def check_move(old: str, new: str, known: list[str]) -> None:
    """Raise where a node cannot be moved.

    Parameters
    ----------
    old, new
        Paths without slashes at their ends.
    known
        Paths of all nodes.

    Raises
    ------
    ManifestError
        As :func:`move`.
    """
    if old not in known:
        raise ManifestError(f"no array or group {old!r}; there are {', '.join(map(repr, known)) or 'none'}")
    if new in known:
        raise ManifestError(f"there is an array or a group {new!r} already")
    if f"{new}/".startswith(f"{old}/"):
        raise ManifestError(f"{old!r} cannot be moved into itself, to {new!r}")
    for name in new.split("/"):
        if not is_node_name(name):
            raise ManifestError(f"{name!r} cannot name a member of a group: Zarr has no such node name")


def put(group: ManifestGroup, path: str, node: ManifestArray | ManifestGroup) -> ManifestGroup:
    """Return the tree with an array or a group at a path, in the place of what was there.

    Parameters
    ----------
    group
        The tree.
    path
        Names joined by slashes.
    node
        What to put there.
    """
    return _with(group, path.split("/"), node)


def _by_prefix(prefixes: Mapping[str, str | os.PathLike[str]], group: ManifestGroup) -> Callable[[str], str]:
    pairs = [
        (reference_url(old).removesuffix("/"), reference_url(new).removesuffix("/")) for old, new in prefixes.items()
    ]
    longest = sorted(pairs, key=lambda pair: -len(pair[0]))

    def change(url: str) -> str:
        for old, new in longest:
            if url.startswith(old) and url[len(old) : len(old) + 1] in ("", "/"):
                return new + url[len(old) :]
        return url

    urls = dict.fromkeys(url for _, array in group.walk_arrays() for url in array.manifest.sources.urls if url)
    if urls and pairs and all(change(url) is url for url in urls):
        named = ", ".join(old for old, _ in pairs)
        raise URLError(f"no object lies beneath {named}: there are {len(urls)}, the first is {next(iter(urls))}")
    return change


def _shifted(path: str, array: ManifestArray, axis: int, by: int) -> ManifestArray:
    lengths, manifest = array.metadata.grid.axes[axis], array.manifest
    if not len(manifest):
        return array
    count = lengths.count
    kept = max(0, count - abs(by))
    taken, put = (
        (slice(0, kept), slice(count - kept, count)) if by > 0 else (slice(count - kept, count), slice(0, kept))
    )
    before = (slice(None),) * axis
    moved = manifest.records[(*before, taken)]
    same = np.array_equal(lengths.nominal[taken], lengths.nominal[put])
    padded = by < 0 and kept and lengths.overhang and bool((moved["source"][(*before, slice(-1, None))] >= 0).any())
    if not same or padded:
        raise ChunkIndexError(
            f"{path!r} cannot be shifted by {by} chunks along axis {axis}: a chunk would move to where another "
            "length is needed",
            variable=path,
        )
    records = manifest.records.copy()
    records["source"], records["length"], records["offset"] = MISSING, 0, 0
    records[(*before, put)] = moved
    return ManifestArray(array.metadata, ChunkManifest.from_records(records, manifest.sources))


def _without(group: ManifestGroup, steps: list[str]) -> ManifestGroup:
    arrays, groups = dict(group.arrays), dict(group.groups)
    if len(steps) > 1:
        groups[steps[0]] = _without(groups[steps[0]], steps[1:])
    else:
        arrays.pop(steps[0], None)
        groups.pop(steps[0], None)
    return ManifestGroup(arrays, groups, group.attributes, group.unlimited_dims)


def _with(group: ManifestGroup, steps: list[str], node: ManifestArray | ManifestGroup) -> ManifestGroup:
    arrays, groups = dict(group.arrays), dict(group.groups)
    if len(steps) > 1:
        groups[steps[0]] = _with(groups.get(steps[0], ManifestGroup()), steps[1:], node)
    elif isinstance(node, ManifestArray):
        arrays[steps[0]] = node
    else:
        groups[steps[0]] = node
    return ManifestGroup(arrays, groups, group.attributes, group.unlimited_dims)
