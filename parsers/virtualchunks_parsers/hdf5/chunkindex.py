"""The chunk index of a dataset: which chunks were written, where their bytes lie, which filters they skipped.

:mod:`virtualchunks_parsers.hdf5.format.chunks` reads it from the file; here are the columns that come of it, and those
that the HDF5 library gives where it is asked instead.

References
----------
HDF5 File Format Specification, version 3.0, appendix C, "Types of Indexes for Dataset Chunks".
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from h5py import h5d, h5s

from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks.grid import ChunkGrid
from virtualchunks_parsers.hdf5.file import LIBRARY_ERRORS, HDF5File

Column = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StoredChunks:
    """The chunk index of a dataset, as columns.

    Attributes
    ----------
    path, extent, file
        The dataset: its path, its shape in HDF5, and the file that holds it.
    places
        Of each chunk, its numbers in the grid of chunks, in the dataset's dimensions.
    masks
        Which filters each chunk skipped; ``None`` where none skipped any.
    offsets, lengths
        Where the bytes of each lie in the file.
    """

    path: str
    extent: tuple[int, ...]
    file: HDF5File
    places: Column
    masks: Column | None
    offsets: Column
    lengths: Column

    def place(self, grid: ChunkGrid) -> Column:
        """Return the number of each chunk in the grid.

        Raises
        ------
        FormatError
            If one lies outside the dataset, or its bytes outside the file.
        """
        counts = grid.grid_shape[: len(self.extent)]
        index = self.places
        outside = (index >= np.array(counts, dtype=np.int64)).any() or (index < 0).any()
        if outside or int(self.lengths.min()) <= 0 or int(self.offsets.min()) < 0:
            raise FormatError(
                f"the chunk index of {self.path!r} does not fit its shape {self.extent}: the file is corrupt",
                url=self.file.url,
                variable=self.path,
            )
        last = int((self.offsets + self.lengths).argmax())
        self.file.check_range(int(self.offsets[last]), int(self.lengths[last]), self.path)
        place: Column = np.ravel_multi_index(tuple(index.T), counts).astype(np.int64, copy=False)
        return place


@dataclass(frozen=True, eq=False)
class _Listed:
    """Chunks as the HDF5 library lists them: the first element of each, which filters it skipped, and where it lies."""

    id: h5d.DatasetID
    path: str
    file: HDF5File
    corners: Column
    masks: Column
    offsets: Column
    lengths: Column

    def bytes_at(self, corner: Column) -> bytes | None:
        """Return the stored bytes of a chunk as the library finds it by its place; ``None`` where it finds none."""
        try:
            _, data = self.id.read_direct_chunk(tuple(corner.tolist()))
        except LIBRARY_ERRORS:
            return None
        return bytes(data)

    def bytes_of(self, number: int) -> bytes:
        """Return the stored bytes of a chunk as it is listed."""
        offset, length = int(self.offsets[number]), int(self.lengths[number])
        self.file.check_range(offset, length, self.path)
        return self.file.reader.read_at(offset, length)


def library_chunks(
    id: h5d.DatasetID, path: str, extent: tuple[int, ...], chunk: tuple[int, ...], file: HDF5File
) -> StoredChunks | None:
    """Let the HDF5 library read the chunk index of a dataset; ``None`` where no chunk was written.

    The library calls back for every chunk, which is most of the time that this takes: the callback is a method of a
    list, which takes the four fields of each chunk one after the other, and NumPy does the rest.

    Parameters
    ----------
    id, path, extent, file
        The dataset: the HDF5 library's, its path, its shape in HDF5, and the file that holds it.
    chunk
        Shape of its chunks.

    Raises
    ------
    UnsupportedFeatureError
        If the library gives wrong addresses.
    """
    fields: list[Any] = []
    if math.prod(extent):
        id.chunk_iter(fields.extend)
    if fields and fields[2] is None:
        fields = [item for at in range(0, len(fields), 4) if fields[at + 2] is not None for item in fields[at : at + 4]]
    if not fields:
        return None
    count, ndim = len(fields) // 4, len(extent)
    corners = np.fromiter(itertools.chain.from_iterable(fields[0::4]), dtype=np.int64, count=count * ndim)
    masks, offsets, lengths = (np.fromiter(fields[n::4], dtype=np.int64, count=count) for n in (1, 2, 3))
    listed = _Listed(id, path, file, corners.reshape(count, ndim), masks, offsets, lengths)
    steps = np.array(chunk, dtype=np.int64)
    places = _true_places(listed, steps, -(-np.array(extent, dtype=np.int64) // steps))
    if file.user_block and listed.bytes_at(places[0] * steps) != listed.bytes_of(0):
        raise UnsupportedFeatureError(
            "this release of the HDF5 library gives wrong addresses in files with a user block; update h5py"
        )
    return StoredChunks(path, extent, file, places, masks if masks.any() else None, offsets, lengths)


# ------------------------------------------------------------------------------------------------- extensible arrays


def _true_places(stored: _Listed, chunk: Column, shape: Column) -> Column:
    """Return the places of chunks in the grid, put right where the library numbers them wrongly.

    A dataset with one growing dimension may keep its chunks in an *extensible array*, whose order has the growing
    dimension first. Where that is not the dataset's first dimension, the library (2.0 at least) iterates over the
    chunks in this order and names their places as if they were in the dataset's. Which of the two a place is does not
    show, so the chunks decide: looked up by place, the library finds the right one.
    """
    index = stored.corners // chunk
    grown = _growing_dimension(stored.id)
    if grown is None or index[:, :grown].any():
        return index
    longest = list(stored.id.get_space().get_simple_extent_dims(maxdims=True))
    longest[grown] = 0
    counts = -(-np.array(longest, dtype=np.int64) // chunk)
    before, after = counts[:grown], counts[grown + 1 :]
    linear = index[:, grown] * int(after.prod())
    if len(after):
        linear = linear + np.ravel_multi_index(tuple(index[:, grown + 1 :].T), tuple(after.tolist()))
    others = tuple(np.concatenate([before, after]).tolist())
    along, rest = np.divmod(linear, math.prod(others))
    swizzled = np.insert(np.stack(np.unravel_index(rest, others), axis=1), grown, along, axis=1)
    return swizzled if _is_swizzled(stored, index, swizzled, chunk, shape) else index


def _growing_dimension(id: h5d.DatasetID) -> int | None:
    """The one dimension without limit, where there is one and it is not the first."""
    longest = id.get_space().get_simple_extent_dims(maxdims=True)
    grown = [axis for axis, size in enumerate(longest) if size is None or size >= h5s.UNLIMITED]
    return grown[0] if len(grown) == 1 and grown[0] > 0 else None


def _is_swizzled(stored: _Listed, index: Column, swizzled: Column, chunk: Column, shape: Column) -> bool:
    """Compare the bytes at the addresses given with those that the library finds at either place."""
    for number in np.flatnonzero((index != swizzled).any(axis=1)).tolist():
        if (index[number] >= shape).any():
            return True
        if (swizzled[number] >= shape).any():
            return False
        data = stored.bytes_of(number)
        as_named, as_swizzled = (stored.bytes_at(place[number] * chunk) == data for place in (index, swizzled))
        if as_named != as_swizzled:
            return as_swizzled
        if not as_named:
            raise UnsupportedFeatureError("the HDF5 library names places of chunks at which it does not find them")
    return False
