"""Growth: what is added to a stored array, at its end, before its start or between its chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.errors import ChunkIndexError, CombineError
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.writers.datasets import in_memory_array
from virtualchunks.writers.icechunk.grids import grown_axis, region_start, require_same
from virtualchunks.writers.icechunk.nodes import Nodes, grid_member
from virtualchunks.writers.icechunk.placing import Placement, Run
from virtualchunks.writers.icechunk.steps import Move, PutChunks, PutValues, Step
from virtualchunks.writers.layout import StoredArray

#: Bytes of an array that are read and written again where values go between its chunks.
MOST_REWRITTEN = 1 << 28


@dataclass(frozen=True)
class Target:
    """A stored array, and what is written to it.

    Parameters
    ----------
    array
        What is written, with the length of text that the stored array has.
    existing
        What the stored array is.
    nodes
        The store.
    """

    array: StoredArray
    existing: ArrayMetadata
    nodes: Nodes

    @classmethod
    def of(cls, array: StoredArray, existing: ArrayMetadata, nodes: Nodes) -> Target:
        """Return the target of an array."""
        return cls(_widened(array, existing), existing, nodes)

    @property
    def names(self) -> tuple[Any, ...]:
        """The names of the dimensions."""
        return tuple(self.array.metadata.dimension_names or ())

    @property
    def as_values(self) -> bool:
        """Whether it is written through zarr: it is held in memory, and the stored chunks are all of one shape."""
        return self.array.in_memory and self.existing.grid.is_regular

    def document(self, metadata: ArrayMetadata) -> dict[str, Any]:
        """Return the stored document with another shape and grid, all else as it is."""
        document = self.nodes.document(self.array.path)
        assert document is not None
        return {**document, "shape": list(metadata.shape), "chunk_grid": grid_member(metadata.grid)}

    def part(self, dimension: str, elements: npt.NDArray[np.int64]) -> Target:
        """Return the target of some elements along a dimension.

        Raises
        ------
        CombineError
            If they are parts of chunks.
        """
        axis = self.names.index(dimension)
        if len(elements) == self.array.metadata.shape[axis]:
            return self
        array = self.array
        if array.in_memory:
            values = np.take(values_of(array), elements, axis=axis)
            made = in_memory_array(values, array.metadata.dimension_names or (), array.metadata.attributes)
        else:
            made = _selected(array, axis, elements)
        return Target(StoredArray(array.path, made.metadata, made.manifest), self.existing, self.nodes)


def _selected(array: StoredArray, axis: int, elements: npt.NDArray[np.int64]) -> ManifestArray:
    whole = ManifestArray(array.metadata, array.manifest)
    consecutive = len(elements) > 0 and int(elements[-1] - elements[0]) == len(elements) - 1
    chosen: Any = slice(int(elements[0]), int(elements[-1]) + 1) if consecutive else elements
    try:
        return whole[(slice(None),) * axis + (chosen,)]
    except ChunkIndexError as error:
        raise CombineError(
            f"some labels of {array.path!r} are stored and some are new within one chunk, which cannot be cut: "
            f"{error.message}",
            variable=array.path,
        ) from error


def values_of(array: StoredArray) -> npt.NDArray[Any]:
    """Return the values of an array that is held in memory, as they are stored."""
    return read_values(ManifestArray(array.metadata, array.manifest), ObjectStoreRegistry(), name=array.path)


def _widened(array: StoredArray, existing: ArrayMetadata) -> StoredArray:
    """Return text in memory with the length of the stored text, where that is longer."""
    mine, target = array.metadata.dtype, existing.dtype
    fits = mine.kind == target.kind and mine.kind in "SU" and np.can_cast(mine, target, casting="safe")
    if not fits or mine == target or not array.in_memory:
        return array
    metadata = array.metadata
    made = in_memory_array(values_of(array).astype(target), metadata.dimension_names or (), metadata.attributes)
    return StoredArray(array.path, made.metadata, made.manifest)


def appended(target: Target, dimension: str) -> Step:
    """Return the step that adds an array to the end of the stored one.

    Raises
    ------
    CombineError
        If it does not continue the stored one.
    """
    array, existing = target.array, target.existing
    require_same(array, existing, but=(dimension,))
    axis = target.names.index(dimension)
    stored = existing.grid.axes[axis]
    if target.as_values:
        values = values_of(array)
        shape = (*existing.shape[:axis], stored.size + values.shape[axis], *existing.shape[axis + 1 :])
        selection = tuple(slice(stored.size if i == axis else 0, size) for i, size in enumerate(shape))
        return PutValues(array.path, values, shape, selection)
    grown, first = grown_axis(array, existing, axis)
    document = target.document(existing.replace(grid=existing.grid.replace(axis, grown)))
    start = tuple(first if i == axis else 0 for i in range(existing.ndim))
    return PutChunks(array, document, start, fresh=True)


def placed(target: Target, region: Mapping[str, slice]) -> Step:
    """Return the step that writes an array into a part of the stored one.

    Raises
    ------
    CombineError
        If it does not fit.
    """
    array, existing = target.array, target.existing
    require_same(array, existing, but=tuple(region))
    bounds = [
        slice(*region.get(str(name), slice(None)).indices(size)[:2])
        for name, size in zip(target.names, existing.shape, strict=True)
    ]
    for name, part, size in zip(target.names, bounds, array.metadata.shape, strict=True):
        if part.stop - part.start != size:
            raise CombineError(
                f"{array.path!r} has {size} elements along {name!r} for a region of {part.stop - part.start} "
                f"({part.start} to {part.stop})",
                variable=array.path,
            )
    if target.as_values:
        return PutValues(array.path, values_of(array), existing.shape, tuple(bounds))
    return PutChunks(array, None, region_start(array, existing, bounds), fresh=False)


def merged(target: Target, dimension: str, placement: Placement, region: Mapping[str, slice]) -> list[Step]:
    """Return the steps that write an array where its labels belong: over the stored ones, and among them.

    Parameters
    ----------
    target
        The array.
    dimension
        The dimension along which the labels were placed.
    placement
        Where they go.
    region
        The part of the stored array along the other dimensions.

    Raises
    ------
    CombineError
        If the array does not fit there.
    """
    axis = target.names.index(dimension)
    inside = any(run.at < target.existing.shape[axis] for run in placement.new)
    if target.as_values and inside:
        return [_rewritten(target, axis, placement)]
    steps = [
        placed(target.part(dimension, _elements(run)), {**region, dimension: run.target}) for run in placement.present
    ]
    existing = target.existing
    for run in reversed(placement.new):  # from the end, so that the places of the others stay what they are
        part = target.part(dimension, _elements(run))
        step = _inserted(Target(part.array, existing, target.nodes), axis, dimension, run.at)
        steps.append(step)
        if isinstance(step, PutChunks):
            joined, _ = grown_axis(part.array, existing, axis, run.at)
            existing = existing.replace(grid=existing.grid.replace(axis, joined))
    return steps


def _elements(run: Run) -> npt.NDArray[np.int64]:
    return np.arange(run.start, run.stop, dtype=np.int64)


def _inserted(target: Target, axis: int, dimension: str, at: int) -> Step:
    """Return the step that puts an array between the chunks of the stored one."""
    array, existing = target.array, target.existing
    if at == existing.shape[axis]:
        return appended(target, dimension)
    require_same(array, existing, but=(dimension,))
    grown, first = grown_axis(array, existing, axis, at)
    document = target.document(existing.replace(grid=existing.grid.replace(axis, grown)))
    start = tuple(first if i == axis else 0 for i in range(existing.ndim))
    move = Move(axis, first, array.metadata.grid.axes[axis].count)
    return PutChunks(array, document, start, fresh=True, move=move)


def _rewritten(target: Target, axis: int, placement: Placement) -> PutValues:
    """Return the step that writes all values of a stored array anew, the new ones among them."""
    array, existing = target.array, target.existing
    require_same(array, existing, but=(str(target.names[axis]),))
    nbytes = int(np.prod(existing.shape)) * existing.dtype.itemsize
    if nbytes > MOST_REWRITTEN:
        raise CombineError(
            f"{array.path!r} is held in memory, and to insert it all {nbytes} bytes of the stored array would have to "
            "be written anew: write references, or append to the end",
            variable=array.path,
        )
    own = np.moveaxis(values_of(array), axis, 0)
    values = np.moveaxis(target.nodes.values(array.path), axis, 0).copy()
    for run in placement.present:
        values[run.target] = own[run.start : run.stop]
    for run in reversed(placement.new):
        values = np.concatenate([values[: run.at], own[run.start : run.stop], values[run.at :]])
    whole = np.moveaxis(values, 0, axis)
    return PutValues(array.path, whole, whole.shape, tuple(slice(0, size) for size in whole.shape))
