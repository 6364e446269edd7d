"""Steps: what a plan does to single arrays of an Icechunk store, and the doing of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.writers.icechunk.chunks import Writing, write_chunks
from virtualchunks.writers.icechunk.nodes import Nodes
from virtualchunks.writers.layout import StoredArray


@dataclass(frozen=True)
class Move:
    """Chunks of a stored array that make room for others.

    Parameters
    ----------
    axis
        The axis that grows.
    at
        Index of the first chunk that moves.
    count
        By how many chunks.
    """

    axis: int
    at: int
    count: int


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
    move
        Which chunks make room first.
    """

    array: StoredArray
    document: dict[str, Any] | None
    start: tuple[int, ...]
    fresh: bool
    move: Move | None = None


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


Step = PutChunks | PutValues


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
    steps: tuple[Step, ...]

    @property
    def referring(self) -> list[StoredArray]:
        """The arrays whose references are written."""
        return [step.array for step in self.steps if isinstance(step, PutChunks)]


def carry_out(plan: Plan, nodes: Nodes, *, validate: bool, last_updated_at: datetime | None) -> None:
    """Do what a plan says.

    Parameters
    ----------
    plan
        The plan.
    nodes
        The store.
    validate
        Whether Icechunk compares each URL with the repository's containers.
    last_updated_at
        A time after which no object may have changed, in place of what their stamps say.
    """
    if last_updated_at is not None and last_updated_at.tzinfo is None:
        last_updated_at = last_updated_at.replace(tzinfo=UTC)
    for path in plan.removed:
        nodes.remove(path)
    for path, document in plan.documents.items():
        nodes.put_document(path, document)
    for step in plan.steps:
        _STEPS[type(step)](step, nodes, validate, last_updated_at)


def _put_chunks(step: PutChunks, nodes: Nodes, validate: bool, last_updated_at: datetime | None) -> None:
    path = step.array.path
    if step.move is not None:
        nodes.move_chunks(path, step.move.axis, step.move.at, step.move.count)
    if step.document is not None:
        nodes.put_document(path, step.document)
    urls = np.array([*step.array.manifest.sources.urls, ""], dtype=object)
    write_chunks(step.array, Writing(urls, nodes, step.start, step.fresh, validate, last_updated_at))


def _put_values(step: PutValues, nodes: Nodes, validate: bool, last_updated_at: datetime | None) -> None:
    import zarr

    with zarr.config.set({"array.rectilinear_chunks": True}):
        array = zarr.open_array(nodes.store, path=step.path, mode="r+", zarr_format=3)
        if array.shape != step.shape:
            array.resize(step.shape)
        array[step.selection] = step.values


_STEPS: dict[type, Callable[..., None]] = {PutChunks: _put_chunks, PutValues: _put_values}
