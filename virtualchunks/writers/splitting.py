"""Splitting: a group whose arrays decode in several ways, cut along one dimension into groups that do not.

Nothing is read. Where chunks decode otherwise from some index on, as where the files of an archive changed, a new group
begins, with the coordinates of its part, so that the groups are concatenated along that dimension again.
"""

from __future__ import annotations

import itertools

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding, in_order
from virtualchunks.errors import ChunkIndexError, UnsupportedFeatureError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.indexing import encodings_in_use
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import same_value
from virtualchunks.writers.layout import codes_of, dimension_names


def split(tree: ManifestGroup, path: str = "", outer: frozenset[str] = frozenset()) -> ManifestGroup:
    """Return a tree in which each group with arrays that decode in several ways is cut into ``part_0``, ``part_1`` ….

    Parameters
    ----------
    tree
        The tree.
    path
        Its path, for messages.
    outer
        Names of the dimensions of arrays in the groups above it, which a part of one would contradict.

    Raises
    ------
    UnsupportedFeatureError
        If a group has no dimension along which it can be cut; the message names the array.
    """
    start = f"{path}/" if path else ""
    mixed = {name: array for name, array in tree.arrays.items() if _codes_in_use(array) > 1}
    if not mixed:
        own = {name for path, array in tree.arrays.items() for name in dimension_names(path, array.metadata)}
        groups = {name: split(group, start + name, outer | own) for name, group in tree.groups.items()}
        return ManifestGroup(tree.arrays, groups, tree.attributes)
    if tree.groups:
        raise UnsupportedFeatureError(
            f"the group {'/' + path!r} has groups below it, whose arrays may use its coordinates, so that it cannot be "
            "split: write them by themselves",
            variable=start + next(iter(mixed)),
        )
    dimension, edges = _places(start, mixed)
    if dimension in outer:
        raise UnsupportedFeatureError(
            f"the group {'/' + path!r} cannot be split along {dimension!r}, which arrays of the groups above it have: "
            "write it by itself",
            variable=start + next(iter(mixed)),
        )
    digits = len(str(len(edges) - 2))  # names sort as the parts follow each other
    parts = {
        f"part_{number:0{digits}}": ManifestGroup(_cut(start, tree, dimension, slice(first, last)), {}, tree.attributes)
        for number, (first, last) in enumerate(itertools.pairwise(edges))
    }
    return ManifestGroup({}, parts, tree.attributes)


def described(path: str, array: ManifestArray) -> str:
    """Return what splitting an array takes, as the end of a sentence; empty where it cannot be split.

    Parameters
    ----------
    path
        Path of the array.
    array
        The array, whose chunks decode in several ways.
    """
    if _codes_in_use(array) < 2:
        return ""
    try:
        dimension, changes = _changes(path, array)
    except UnsupportedFeatureError:
        return ""
    return f"; or heterogeneous='split', which reads nothing and writes {len(changes) + 1} groups along {dimension!r}"


def _codes_in_use(array: ManifestArray) -> int:
    if not array.is_heterogeneous or not len(array.manifest):
        return 0
    codes, _ = codes_of(array)
    return len(np.unique(codes[codes >= 0]))


def _places(start: str, mixed: dict[str, ManifestArray]) -> tuple[str, list[int]]:
    """Return the dimension along which groups are cut, and where."""
    dimension: str | None = None
    edges: set[int] = set()
    for name, array in mixed.items():
        found = _changes(start + name, array)
        if dimension is not None and found[0] != dimension:
            raise UnsupportedFeatureError(
                f"{start + name!r} decodes otherwise along {found[0]!r}, other arrays of its group along "
                f"{dimension!r}, and a group is split along one dimension: write the variables by themselves",
                variable=start + name,
            )
        dimension = found[0]
        edges |= {*found[1], 0, array.shape[_axis(name, array, dimension)]}
    assert dimension is not None
    return dimension, sorted(edges)


def _axis(name: str, array: ManifestArray, dimension: str) -> int:
    return dimension_names(name, array.metadata).index(dimension)


def _changes(path: str, array: ManifestArray) -> tuple[str, list[int]]:
    """Return the only dimension along which the encodings of an array change, and before which elements they do."""
    codes = codes_of(array)[0].reshape(array.metadata.grid.grid_shape)
    for axis, along in enumerate(array.metadata.grid.axes):
        others = tuple(other for other in range(codes.ndim) if other != axis)
        highest = codes.max(axis=others)
        lowest = np.where(codes < 0, np.iinfo(codes.dtype).max, codes).min(axis=others)
        known = np.flatnonzero(highest >= 0)
        if bool((highest[known] == lowest[known]).all()):
            changed = known[1:][np.diff(highest[known]) != 0]
            return dimension_names(path, array.metadata)[axis], along.starts[changed].tolist()
    raise UnsupportedFeatureError(
        f"the chunks of {path!r} decode in several ways that do not follow each other along one dimension, so that it "
        "cannot be split: pass heterogeneous='materialise'",
        variable=path,
    )


def _cut(start: str, tree: ManifestGroup, dimension: str, part: slice) -> dict[str, ManifestArray]:
    """Return the arrays of a part: those without the dimension as they are."""
    made = {}
    for name, array in tree.arrays.items():
        names = dimension_names(start + name, array.metadata)
        if dimension not in names:
            made[name] = array
            continue
        key = tuple(part if own == dimension else slice(None) for own in names)
        try:
            made[name] = _narrowed(array[key])
        except ChunkIndexError as error:
            raise UnsupportedFeatureError(
                f"{start + name!r} cannot be cut along {dimension!r} where other arrays of its group decode otherwise: "
                f"{error.message}",
                variable=start + name,
            ) from error
    return made


def _widened(grid: ChunkGrid, encoding: ChunkEncoding) -> ChunkGrid:
    """Return a grid whose only chunk along an axis is as long as it decodes to: it was the last of a file."""
    if encoding.shape is None or encoding.start is not None:
        return grid
    for number, (axis, length) in enumerate(zip(grid.axes, encoding.shape, strict=True)):
        if axis.count == 1 and axis.size < length:
            grid = grid.replace(number, Axis(axis.size, chunk=length))
    return grid


def _narrowed(array: ManifestArray) -> ManifestArray:
    """Return an array whose chunks decode alike with the dtype that they decode to; concatenating widens it again."""
    used = encodings_in_use((array.metadata, array.manifest)) if len(array.manifest) else []
    if len(set(used)) != 1:
        return array
    [encoding] = set(used)
    dtype = in_order(encoding.dtype, "=") if encoding.packing is None else encoding.packing.dtype
    metadata = array.metadata.replace(encoding=encoding, grid=_widened(array.metadata.grid, encoding))
    if dtype != metadata.dtype:
        with np.errstate(all="ignore"):
            fill = np.asarray(metadata.fill_value).astype(dtype)[()]
        same = same_value(fill, metadata.fill_value)
        if not same and not bool(array.manifest.present.all()):
            return array
        metadata = metadata.replace(dtype=dtype, fill_value=fill if same else dtype.type(0))
    manifest = array.manifest.compact()
    table = manifest.sources.replace(encoding_ids=None, encodings=())
    return ManifestArray(metadata, ChunkManifest._trusted(manifest.records, table))
