"""Plans: what a write does to each array of an Icechunk store, decided and checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.attributes import from_zarr
from virtualchunks.errors import CombineError, TargetExistsError
from virtualchunks.group import ManifestGroup
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.writers.datasets import in_memory_array
from virtualchunks.writers.icechunk.grids import appended_axis, region_start, require_same
from virtualchunks.writers.icechunk.nodes import Nodes, array_document, grid_member, group_document
from virtualchunks.writers.layout import StoredArray, stored_array


@dataclass(frozen=True)
class PutChunks:
    """Write the chunks of an array, after its metadata where that changes.

    Parameters
    ----------
    array
        The array.
    document
        The metadata document to write; ``None`` where it stays.
    start
        Index of the first chunk in the grid of the stored array.
    fresh
        Whether nothing is stored there yet.
    """

    array: StoredArray
    document: dict[str, Any] | None
    start: tuple[int, ...]
    fresh: bool


@dataclass(frozen=True)
class PutValues:
    """Write values through zarr, which encodes them as the stored array is.

    Parameters
    ----------
    path
        Path of the array.
    values
        The values.
    shape
        Shape of the stored array afterwards.
    selection
        The part of it that they fill.
    """

    path: str
    values: npt.NDArray[Any]
    shape: tuple[int, ...]
    selection: tuple[slice, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that a write does.

    Parameters
    ----------
    removed
        Paths of nodes to remove first.
    documents
        Metadata documents of groups, by path.
    steps
        What is done to each array.
    """

    removed: tuple[str, ...]
    documents: Mapping[str, dict[str, Any]]
    steps: tuple[PutChunks | PutValues, ...]

    @property
    def referring(self) -> list[StoredArray]:
        """The arrays whose references are written."""
        return [step.array for step in self.steps if isinstance(step, PutChunks)]


def join(path: str, name: str) -> str:
    """Return the path of a member of a group; any of the two may be empty."""
    return f"{path}/{name}" if path and name else path or name


def plan_new(tree: ManifestGroup, nodes: Nodes, root: str, mode: str) -> Plan:
    """Return the plan of writing a tree where nothing is kept of the arrays that it holds.

    Parameters
    ----------
    tree
        What is written.
    nodes
        The store.
    root
        Path of the group to write to.
    mode
        ``"w-"`` requires that nothing is there, ``"w"`` removes what is, ``"a"`` replaces single arrays.

    Raises
    ------
    TargetExistsError
        If `mode` is ``"w-"`` and something is there.
    UnsupportedFeatureError
        If an array cannot be written.
    """
    members = nodes.members(root)
    if mode == "w-" and members:
        raise TargetExistsError(
            f"the group {'/' + root!r} of the Icechunk store holds {', '.join(sorted(members)[:5])}; pass mode='w' to "
            "replace it, mode='a' to replace single arrays, or append_dim= or region= to add to them"
        )
    documents = _ancestors(nodes, root)
    steps, removed = [], [root] if mode == "w" else []
    for path, group in tree.walk():
        own = join(root, path)
        known = None if mode == "w" else nodes.document(own)
        document = group_document(group.attributes)
        if known is not None:
            document["attributes"] = {**known.get("attributes", {}), **document["attributes"]}
        documents[own] = document
        for name, array in group.arrays.items():
            stored = stored_array(join(own, name), array, "Icechunk")
            if mode == "a" and nodes.document(stored.path) is not None:
                removed.append(stored.path)
            steps.append(_created(stored))
    return Plan(tuple(removed), documents, tuple(steps))


def _ancestors(nodes: Nodes, root: str) -> dict[str, dict[str, Any]]:
    """Return the documents of groups above the root that are not there yet."""
    parts = root.split("/") if root else []
    paths = ["/".join(parts[:count]) for count in range(len(parts))]
    return {path: group_document({}) for path in paths if nodes.document(path) is None}


def _created(array: StoredArray) -> PutChunks:
    return PutChunks(array, array_document(array.metadata), (0,) * array.metadata.ndim, fresh=True)


def plan_append(tree: ManifestGroup, nodes: Nodes, root: str, dimension: str) -> Plan:
    """Return the plan of adding a tree to the end of the stored arrays, along a dimension.

    Raises
    ------
    CombineError
        If an array does not continue the stored one; the message names sizes.
    """
    steps: list[PutChunks | PutValues] = []
    for path, group in tree.walk():
        own = join(root, path)
        _require_all(nodes, own, group, dimension)
        for name, array in group.arrays.items():
            stored = stored_array(join(own, name), array, "Icechunk")
            existing = existing_array(nodes, stored.path)
            along = dimension in (stored.metadata.dimension_names or ())
            if existing is None and along:
                raise CombineError(
                    f"{stored.path!r} is not in the Icechunk store, so there is nothing to append it to",
                    variable=stored.path,
                )
            if existing is None:
                steps.append(_created(stored))
            elif along:
                steps.append(_appended(stored, existing, nodes, dimension))
            else:
                _require_equal(stored, existing, nodes)
    return Plan((), {}, tuple(steps))


def _require_all(nodes: Nodes, root: str, group: ManifestGroup, dimension: str) -> None:
    """Refuse to append to some of the arrays of a group only, which would leave it with two lengths of a dimension."""
    if nodes.document(root) is None:
        raise CombineError(f"there is no group {'/' + root!r} in the Icechunk store to append to; write it first")
    for name in nodes.members(root):
        existing = None if name in group.arrays else nodes.document(join(root, name))
        if existing is not None and dimension in (existing.get("dimension_names") or ()):
            raise CombineError(
                f"the stored array {join(root, name)!r} has the dimension {dimension!r} too, and would be left shorter "
                "than the others: append to all of them at once",
                variable=join(root, name),
            )


def existing_array(nodes: Nodes, path: str) -> ArrayMetadata | None:
    """Return the metadata of a stored array; ``None`` where there is no array."""
    document = nodes.document(path)
    if document is None or document.get("node_type") != "array":
        return None
    return ArrayMetadata.from_dict(document)


def _appended(array: StoredArray, existing: ArrayMetadata, nodes: Nodes, dimension: str) -> PutChunks | PutValues:
    array = _widened(array, existing)
    require_same(array, existing, but=(dimension,))
    axis = (array.metadata.dimension_names or ()).index(dimension)
    stored = existing.grid.axes[axis]
    if array.in_memory and stored.is_regular:
        values = _values(array)
        shape = (*existing.shape[:axis], stored.size + values.shape[axis], *existing.shape[axis + 1 :])
        selection = tuple(slice(stored.size if i == axis else 0, size) for i, size in enumerate(shape))
        return PutValues(array.path, values, shape, selection)
    grown = existing.replace(grid=existing.grid.replace(axis, appended_axis(array, existing, axis)))
    document = _with_grid(nodes, array.path, grown)
    start = tuple(stored.count if i == axis else 0 for i in range(existing.ndim))
    return PutChunks(array, document, start, fresh=True)


def _with_grid(nodes: Nodes, path: str, metadata: ArrayMetadata) -> dict[str, Any]:
    """Return the stored document with another shape and grid, all else as it is."""
    document = nodes.document(path)
    assert document is not None
    return {**document, "shape": list(metadata.shape), "chunk_grid": grid_member(metadata.grid)}


def plan_region(tree: ManifestGroup, nodes: Nodes, root: str, region: Mapping[str, slice]) -> Plan:
    """Return the plan of writing a tree into a part of the stored arrays.

    Parameters
    ----------
    tree
        What is written.
    nodes
        The store.
    root
        Path of the group to write to.
    region
        The part, by dimension.

    Raises
    ------
    CombineError
        If an array is not stored, or the part does not begin and end where its chunks do; the message names sizes.
    """
    steps: list[PutChunks | PutValues] = []
    for path, group in tree.walk():
        for name, array in group.arrays.items():
            stored = stored_array(join(join(root, path), name), array, "Icechunk")
            existing = existing_array(nodes, stored.path)
            if existing is None:
                raise CombineError(
                    f"{stored.path!r} is not in the Icechunk store: a region can be written of stored arrays only",
                    variable=stored.path,
                )
            if not set(stored.metadata.dimension_names or ()) & set(region):
                _require_equal(stored, existing, nodes)
                continue
            steps.append(_placed(stored, existing, region))
    return Plan((), {}, tuple(steps))


def _placed(array: StoredArray, existing: ArrayMetadata, region: Mapping[str, slice]) -> PutChunks | PutValues:
    array = _widened(array, existing)
    require_same(array, existing, but=tuple(region))
    names = array.metadata.dimension_names or ()
    bounds = [
        slice(*region.get(str(name), slice(None)).indices(size)[:2])
        for name, size in zip(names, existing.shape, strict=True)
    ]
    for name, part, size in zip(names, bounds, array.metadata.shape, strict=True):
        if part.stop - part.start != size:
            raise CombineError(
                f"{array.path!r} has {size} elements along {name!r} for a region of {part.stop - part.start} "
                f"({part.start} to {part.stop})",
                variable=array.path,
            )
    if array.in_memory and existing.grid.is_regular:
        return PutValues(array.path, _values(array), existing.shape, tuple(bounds))
    return PutChunks(array, None, region_start(array, existing, bounds), fresh=False)


def _widened(array: StoredArray, existing: ArrayMetadata) -> StoredArray:
    """Return text in memory with the length of the stored text, where that is longer."""
    mine, target = array.metadata.dtype, existing.dtype
    fits = mine.kind == target.kind and mine.kind in "SU" and np.can_cast(mine, target, casting="safe")
    if not fits or mine == target or not array.in_memory:
        return array
    metadata = array.metadata
    made = in_memory_array(_values(array).astype(target), metadata.dimension_names or (), metadata.attributes)
    return StoredArray(array.path, made.metadata, made.manifest)


def _values(array: StoredArray) -> npt.NDArray[Any]:
    """Return the values of an array that is held in memory, as they are stored."""
    return read_values(ManifestArray(array.metadata, array.manifest), ObjectStoreRegistry(), name=array.path)


def _require_equal(array: StoredArray, existing: ArrayMetadata, nodes: Nodes) -> None:
    """Check that an array which a write does not extend is the stored one, as far as that can be seen at once.

    Raises
    ------
    CombineError
        If it differs in shape, dtype or meaning, or, where its values are in memory, in a value.
    """
    require_same(array, existing)
    if not array.in_memory:
        return
    stored = stored_values(nodes, array.path)
    values = _values(array)
    if not _same_values(values, stored):
        raise CombineError(
            f"{array.path!r} differs from the stored array, which this write leaves as it is: drop the variable to "
            "keep the stored one",
            variable=array.path,
        )


def stored_values(nodes: Nodes, path: str) -> npt.NDArray[Any]:
    """Return all values of a stored array."""
    import zarr

    with zarr.config.set({"array.rectilinear_chunks": True}):
        array = zarr.open_array(nodes.store, path=path, mode="r", zarr_format=3)
        return np.asarray(array[...])


def _same_values(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind in "fcmM")


def natural_attributes(existing: ArrayMetadata) -> dict[str, Any]:
    """Return the attributes of a stored array as a file would have them."""
    return from_zarr(existing.attributes, existing.dtype)
