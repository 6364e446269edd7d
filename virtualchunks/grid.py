"""Chunk grids: how the axes of an array are cut into chunks.

An :class:`Axis` is regular (one chunk length) or rectilinear (a list of edge lengths), as in the Zarr v3 specification.
Both kinds distinguish the *nominal* length of a chunk, to which its stored bytes decode, from its *cell*, the part of
the array that it fills: only the last chunk of an axis may overhang the array, so only there do the two differ.

What chunks hold, and where their bytes lie, lives in :mod:`virtualchunks.manifest`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import ManifestError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """One axis of a chunk grid: its length and how it is cut.

    Parameters
    ----------
    size
        Length of the array along the axis, in elements.
    chunk
        Length of every chunk, for a regular axis.
    edges
        Lengths of the chunks in order, for a rectilinear axis. Their sum may exceed `size` only within the last chunk.

    Raises
    ------
    ManifestError
        If the chunks do not cover the axis exactly.

    Examples
    --------
    >>> Axis(90, edges=(31, 28, 31)).count
    3
    >>> Axis(25, chunk=10).cells.tolist()
    [10, 10, 5]
    """

    size: int
    chunk: int | None = None
    edges: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ManifestError(f"an axis cannot have the length {self.size}")
        if (self.chunk is None) == (self.edges is None):
            raise ManifestError("an axis needs either a chunk length or a list of edges, not both and not neither")
        if self.chunk is not None and self.chunk < 1:
            raise ManifestError(f"a chunk length must be at least 1, found {self.chunk}")
        if self.edges is not None:
            self._check_edges(self.edges)

    def _check_edges(self, edges: tuple[int, ...]) -> None:
        if edges and min(edges) < 1:
            raise ManifestError(f"every edge of a rectilinear axis must be at least 1, found {min(edges)}")
        total = sum(edges)
        overhang = total - self.size
        if overhang < 0 or (overhang and overhang >= edges[-1]):
            raise ManifestError(
                f"{len(edges)} edges with the sum {total} do not cover an axis of length {self.size}: "
                "they must reach its end, and only the last may overhang it"
            )

    @classmethod
    def from_edges(cls, edges: Iterable[int], size: int | None = None) -> Axis:
        """Return the simplest axis with these nominal chunk lengths: regular wherever that says the same.

        Examples
        --------
        >>> Axis.from_edges([10, 10, 5])
        Axis(size=25, chunk=None, edges=(10, 10, 5))
        >>> Axis.from_edges([10, 10, 10], size=25)
        Axis(size=25, chunk=10, edges=None)
        """
        lengths = tuple(edges)
        total = sum(lengths) if size is None else size
        if lengths and lengths.count(lengths[0]) == len(lengths):
            return cls(total, chunk=lengths[0])
        if not lengths:
            return cls(total, chunk=1)
        return cls(total, edges=lengths)

    @property
    def is_regular(self) -> bool:
        """Whether one chunk length holds for the whole axis."""
        return self.chunk is not None

    @property
    def count(self) -> int:
        """Number of chunks along the axis; 0 where the axis is empty."""
        if self.chunk is not None:
            return -(-self.size // self.chunk)
        assert self.edges is not None
        return len(self.edges)

    @cached_property
    def nominal(self) -> IntArray:
        """Lengths to which the stored chunks decode, in order."""
        if self.chunk is not None:
            return np.full(self.count, self.chunk, dtype=np.int64)
        return np.asarray(self.edges, dtype=np.int64)

    @cached_property
    def starts(self) -> IntArray:
        """Index of the first element of each chunk."""
        if self.chunk is not None:
            return np.arange(self.count, dtype=np.int64) * self.chunk
        ends = np.cumsum(self.nominal)
        return ends - self.nominal

    @property
    def cells(self) -> IntArray:
        """Lengths of the parts of the array that the chunks fill, in order."""
        return np.minimum(self.nominal, self.size - self.starts)

    def nominal_at(self, index: int) -> int:
        """Return the nominal length of one chunk."""
        if self.chunk is not None:
            return self.chunk
        assert self.edges is not None
        return self.edges[index]

    def cell_at(self, index: int) -> int:
        """Return the cell length of one chunk."""
        if self.chunk is not None:
            return min(self.chunk, self.size - index * self.chunk)
        return int(min(self.nominal[index], self.size - self.starts[index]))

    @property
    def overhang(self) -> int:
        """By how many elements the last chunk exceeds the array."""
        if self.chunk is not None:
            return self.count * self.chunk - self.size
        assert self.edges is not None
        return sum(self.edges) - self.size

    def locate(self, index: int) -> int:
        """Return the number of the chunk that holds element `index`."""
        if self.chunk is not None:
            return index // self.chunk
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def to_json(self) -> int | list[int | list[int]]:
        """Return the axis as the Zarr rectilinear grid writes it: a bare length, or run-length encoded edges."""
        if self.chunk is not None:
            return self.chunk
        assert self.edges is not None
        runs = [(size, len(list(group))) for size, group in itertools.groupby(self.edges)]
        return [size if count == 1 else [size, count] for size, count in runs]


@dataclass(frozen=True)
class ChunkGrid:
    """The chunk grid of an array: one :class:`Axis` per dimension.

    A scalar has no axes and exactly one chunk.

    Examples
    --------
    >>> grid = ChunkGrid.regular((365, 720), (31, 360))
    >>> grid.grid_shape, grid.cell_shape((11, 0)), grid.nominal_shape((11, 0))
    ((12, 2), (24, 360), (31, 360))
    """

    axes: tuple[Axis, ...]

    @classmethod
    def regular(cls, shape: Sequence[int], chunks: Sequence[int]) -> ChunkGrid:
        """Return the grid that cuts `shape` into chunks of one shape.

        Raises
        ------
        ManifestError
            If `shape` and `chunks` differ in length, or a chunk length is not positive.
        """
        if len(shape) != len(chunks):
            raise ManifestError(
                f"an array of shape {tuple(shape)} cannot have chunks of shape {tuple(chunks)}: "
                f"{len(shape)} dimensions against {len(chunks)}"
            )
        return cls(tuple(_regular_axis(int(size), int(chunk)) for size, chunk in zip(shape, chunks, strict=True)))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, in elements."""
        return tuple(axis.size for axis in self.axes)

    @cached_property
    def grid_shape(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(axis.count for axis in self.axes)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.axes)

    @property
    def size(self) -> int:
        """Number of chunks."""
        return math.prod(self.grid_shape)

    @property
    def is_regular(self) -> bool:
        """Whether every axis is regular, so that plain Zarr can express the grid."""
        return all(axis.is_regular for axis in self.axes)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """The one nominal chunk shape of a regular grid.

        Raises
        ------
        ManifestError
            If an axis is rectilinear.
        """
        for number, axis in enumerate(self.axes):
            if axis.chunk is None:
                raise ManifestError(f"axis {number} is rectilinear: its chunks have no single length")
        return tuple(axis.chunk for axis in self.axes if axis.chunk is not None)

    def nominal_shape(self, index: Sequence[int]) -> tuple[int, ...]:
        """Return the shape to which the stored bytes of chunk `index` decode."""
        return tuple(axis.nominal_at(i) for axis, i in zip(self.axes, index, strict=True))

    def cell_shape(self, index: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the part of the array that chunk `index` fills."""
        return tuple(axis.cell_at(i) for axis, i in zip(self.axes, index, strict=True))

    def cell_slices(self, index: Sequence[int]) -> tuple[slice, ...]:
        """Return the selection of the array that chunk `index` fills."""
        return tuple(
            slice(int(axis.starts[i]), int(axis.starts[i]) + axis.cell_at(i))
            for axis, i in zip(self.axes, index, strict=True)
        )

    def replace(self, axis: int, new: Axis) -> ChunkGrid:
        """Return the grid with one axis exchanged."""
        return ChunkGrid((*self.axes[:axis], new, *self.axes[axis + 1 :]))

    def to_json(self) -> dict[str, Any]:
        """Return the ``chunk_grid`` member of Zarr v3 array metadata."""
        if self.is_regular:
            return {"name": "regular", "configuration": {"chunk_shape": list(self.chunk_shape)}}
        shapes = [axis.to_json() for axis in self.axes]
        return {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": shapes}}

    @classmethod
    def from_json(cls, shape: Sequence[int], member: dict[str, Any]) -> ChunkGrid:
        """Read the ``chunk_grid`` member of Zarr v3 array metadata.

        Raises
        ------
        ManifestError
            If the grid is of an unknown kind, or does not cover `shape`.
        """
        name, configuration = member.get("name"), member.get("configuration", {})
        if name == "regular":
            return cls.regular(shape, configuration["chunk_shape"])
        if name != "rectilinear" or configuration.get("kind") != "inline":
            raise ManifestError(f"unknown chunk grid {member!r}; known are 'regular' and inline 'rectilinear'")
        lengths = configuration["chunk_shapes"]
        if len(lengths) != len(shape):
            raise ManifestError(f"{len(lengths)} lists of edges for {len(shape)} dimensions")
        return cls(tuple(_axis_from_json(int(size), entry) for size, entry in zip(shape, lengths, strict=True)))


@lru_cache(maxsize=4096)
def _regular_axis(size: int, chunk: int) -> Axis:
    """Return one and the same object for equal axes, which makes comparing the grids of many files cheap."""
    return Axis(size, chunk=chunk)


def _axis_from_json(size: int, entry: int | list[int | list[int]]) -> Axis:
    if isinstance(entry, int):
        return Axis(size, chunk=entry)
    runs = [(item, 1) if isinstance(item, int) else (item[0], item[1]) for item in entry]
    edges = [edge for edge, count in runs for _ in range(count)]
    used, covered = 0, 0
    while used < len(edges) and covered < size:
        covered += edges[used]
        used += 1
    return Axis.from_edges(edges[:used], size) if used else Axis(size, chunk=edges[0] if edges else 1)
