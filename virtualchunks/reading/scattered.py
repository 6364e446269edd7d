"""Scattered: any chunks of an array, each of which goes wherever its asker says, read in bulk.

The planner of :mod:`virtualchunks.reading.values` without its arithmetic of selections: this is for those that have
done that themselves, as zarr has when it asks for the chunks of a selection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.grid import IntArray
from virtualchunks.reading.blocks import BlockCache
from virtualchunks.reading.planning import Group, Touched
from virtualchunks.reading.tally import Tally
from virtualchunks.reading.values import Reading
from virtualchunks.registry import ObjectStoreRegistry

Index = tuple[int, ...]
#: What is done with the values of a chunk: its number among those asked for, and its cell or a block that begins so.
Use = Callable[[int, npt.NDArray[Any]], None]


def read_scattered(
    array: ManifestArray,
    registry: ObjectStoreRegistry,
    indices: Sequence[Index],
    use: Use,
    *,
    name: str | None = None,
    tally: Tally | None = None,
    cache: BlockCache | None = None,
) -> npt.NDArray[np.bool_]:
    """Read chunks of an array, in merged requests, and hand over the values of each as they come.

    Parameters
    ----------
    array
        The array of references.
    registry
        Which must grant its URLs.
    indices
        Of the chunks, inside the chunk grid, in any order.
    use
        What is done with the values of a chunk. It may be called in several threads, and more than once for a chunk.
    name, tally, cache
        As for :func:`~virtualchunks.reading.values.read_values`.

    Returns
    -------
    numpy.ndarray
        For each chunk whether there is one; `use` is not called for those that are missing.

    Raises
    ------
    ReadError, NotGrantedError, DecodeError
        As :func:`~virtualchunks.reading.values.read_values`.

    Examples
    --------
    >>> from virtualchunks.manifest import ChunkManifest
    >>> from virtualchunks.metadata import ArrayMetadata
    >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="u1")
    >>> array = ManifestArray(metadata, ChunkManifest.of_buffers([bytes([0, 1]), bytes([2, 3])], (2,)))
    >>> read_scattered(array, ObjectStoreRegistry(), [(1,)], lambda number, values: print(number, values.tolist()))
    0 [2, 3]
    array([ True])
    """
    places = np.asarray(indices, dtype=np.int64).reshape(len(indices), len(array.shape))
    records, sources = _records(array, places)
    touched = Touched((), records, (len(records),), sources)
    nothing = np.empty(0, dtype=array.dtype)
    _Scattering(array, touched, nothing, registry, name, tally, cache, list(indices), use).run()
    present: npt.NDArray[np.bool_] = records["source"] >= 0
    return present


def _records(array: ManifestArray, places: IntArray) -> tuple[Any, Any]:
    """Return the records of chunks, and the table that they name."""
    manifest = array.manifest
    if not manifest.is_deferred:
        return manifest.records[tuple(places.T)].reshape(-1), manifest.sources
    along = [np.unique(axis, return_inverse=True) for axis in places.T]
    part = manifest.select([chunks for chunks, _ in along])
    return part.records[tuple(where for _, where in along)].reshape(-1), part.sources


@dataclass(frozen=True, eq=False)
class _Scattering(Reading):
    """One call of :func:`read_scattered`."""

    given: list[Index] = field(default_factory=list)
    hand_over: Use = field(default=lambda number, values: None)

    def place(self, group: Group, members: IntArray, offsets: IntArray, data: memoryview) -> npt.NDArray[np.bool_]:
        """Put no chunks into place together: where they go is known one by one."""
        return np.ones(len(members), dtype=bool)

    def indices(self, chunks: IntArray) -> list[Index]:
        """Return the indices of chunks in the grid of the whole array."""
        return [self.given[number] for number in chunks.tolist()]

    def put(self, place: Index, block: npt.NDArray[Any]) -> None:
        """Hand over the values of a chunk."""
        self.hand_over(place[0], block)
