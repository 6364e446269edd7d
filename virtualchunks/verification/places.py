"""Where in a file a chunk is: which array, and which of its chunks, holds these bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.group import ManifestGroup


@dataclass(frozen=True)
class Place:
    """A chunk of an array of a file.

    Parameters
    ----------
    path, array
        The array.
    index
        The chunk, in its chunk grid.
    span
        Its offset and length in the file, in bytes.
    """

    path: str
    array: ManifestArray
    index: tuple[int, ...]
    span: tuple[int, int]


@dataclass(frozen=True)
class Places:
    """All chunks of a file, by their offset.

    Parameters
    ----------
    arrays
        The arrays of the file, with their paths.
    start, length
        Of each chunk, in bytes, sorted by `start`.
    owner, number
        To which array each belongs, and which of its chunks it is, in C order.
    """

    arrays: Sequence[tuple[str, ManifestArray]]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    owner: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]

    @classmethod
    def of(cls, group: ManifestGroup, url: str) -> Places:
        """Return the places of the chunks of a tree that lie in one object.

        Parameters
        ----------
        group
            The tree.
        url
            The object.
        """
        arrays = list(group.walk_arrays())
        columns: list[list[npt.NDArray[np.int64]]] = [[np.empty(0, dtype=np.int64)] for _ in range(4)]
        for owner, (_, array) in enumerate(arrays):
            if not len(array.manifest):
                continue
            records = array.manifest.records.reshape(-1)
            own = np.array([found == url for found in array.manifest.sources.urls] or [False], dtype=bool)
            chosen = np.flatnonzero((records["source"] >= 0) & own[records["source"]])
            parts = (records["offset"][chosen], records["length"][chosen], np.full(len(chosen), owner), chosen)
            for column, part in zip(columns, parts, strict=True):
                column.append(part.astype(np.int64))
        start, length, owners, numbers = map(np.concatenate, columns)
        order = np.lexsort((length, start))
        return cls(arrays, start[order], length[order], owners[order], numbers[order])

    def find(self, start: int, length: int, path: str) -> Place | None:
        """Return the chunk that is, or else that holds, a range of bytes.

        Parameters
        ----------
        start, length
            The range.
        path
            The array that is preferred, where several have a chunk there.
        """
        low, high = np.searchsorted(self.start, start, side="left"), np.searchsorted(self.start, start, side="right")
        exact = [place for place in range(int(low), int(high)) if self.length[place] == length]
        chosen = next((place for place in exact if self.arrays[self.owner[place]][0] == path), None)
        if chosen is None and exact:
            chosen = exact[0]
        if chosen is None and high and self.start[high - 1] + self.length[high - 1] >= start + length:
            chosen = int(high) - 1
        if chosen is None:
            return None
        name, array = self.arrays[self.owner[chosen]]
        shape = array.manifest.shape_chunk_grid
        index = tuple(int(i) for i in np.unravel_index(self.number[chosen], shape)) if shape else ()
        return Place(name, array, index, (int(self.start[chosen]), int(self.length[chosen])))
