"""Chunk indexes: which chunks of a dataset were written, where their bytes lie, which filters they skipped.

Each index becomes columns, with NumPy: nothing is done chunk by chunk. The HDF5 library has six kinds of indexes: a
version 1 B-tree in files that all its releases read, and in others whichever fits the way the dataset may grow.

References
----------
HDF5 File Format Specification, version 3.0, section III.A.1, "Version 1 B-trees", and appendix C, "Types of Indexes for
Dataset Chunks".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import LimitExceededError
from virtualchunks_parsers.hdf5.format.arrays import Elements, extensible_array, fixed_array
from virtualchunks_parsers.hdf5.format.btrees import Bytes, Old, addresses, new_records, old_leaves, read_tree
from virtualchunks_parsers.hdf5.format.content import Content

Column = npt.NDArray[np.int64]
#: Chunks of one dataset.
MOST_CHUNKS = 100_000_000
#: Chunks that a grid can have to be numbered.
LARGEST_GRID = 1 << 62


class Found(NamedTuple):
    """Chunks that were written, as columns.

    Attributes
    ----------
    places
        Of each chunk, its numbers in the grid of chunks, in the dataset's dimensions.
    masks
        Which filters each chunk skipped; ``None`` where none skipped any.
    offsets, lengths
        Where the bytes of each lie in the file.
    """

    places: Column
    masks: Column | None
    offsets: Column
    lengths: Column


@dataclass(frozen=True, kw_only=True)
class ChunkIndex:
    """What the layout of a chunked dataset says of its index.

    Attributes
    ----------
    kind
        0 for a version 1 B-tree, otherwise as section IV.A.2.i has it: 1 single chunk, 2 implicit, 3 fixed array, 4
        extensible array, 5 version 2 B-tree.
    address
        Of the index; of a single chunk and of an implicit index, of the chunks.
    chunk
        Shape of a chunk, in elements.
    shape, longest
        Of the dataset, and how long it may grow in each dimension; ``None`` for no limit.
    nbytes
        Bytes of a chunk without filters.
    filtered
        Whether the dataset has filters.
    k
        Half the room in nodes of a version 1 B-tree.
    single
        Of a single chunk with filters, its length and the filters that it skipped.
    """

    kind: int
    address: int
    chunk: tuple[int, ...]
    shape: tuple[int, ...]
    longest: tuple[int | None, ...]
    nbytes: int
    filtered: bool
    k: int = 32
    single: tuple[int, int] | None = None

    def counts(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Chunks along each dimension of a shape."""
        return tuple(-(-size // step) for size, step in zip(shape, self.chunk, strict=True))

    def limits(self) -> tuple[int, ...]:
        """Chunks along each dimension of the dataset when it has grown to its limits; 0 where it has none."""
        return self.counts([0 if size is None else size for size in self.longest])


def read_chunks(content: Content, index: ChunkIndex) -> Found | None:
    """Read the chunk index of a dataset; ``None`` where no chunk was written.

    Raises
    ------
    FormatError
        If the index is damaged.
    LimitExceededError
        If it has more chunks than are listed one by one.
    """
    if index.address == content.sizes.undefined or not math.prod(index.shape):
        return None
    found = INDEXES[index.kind](content, index)
    if found is None or not len(found.offsets):
        return None
    if content.base:
        found = found._replace(offsets=found.offsets + content.base)
    return found


# ----------------------------------------------------------------------------------------------- version 1 B-trees


def _old_tree(content: Content, index: ChunkIndex) -> Found | None:
    """Section III.A.1: the key of a chunk has its length, the filters it skipped, and its first element."""
    ndim = len(index.chunk)
    key = 8 + 8 * (ndim + 1)
    rows = old_leaves(content, index.address, Old(1, key, 2 * index.k))
    if not len(rows):
        return None
    heads = rows[:, :8].copy().view("<u4")
    corners = rows[:, 8:key].copy().view("<i8").reshape(-1, ndim + 1)
    chunk = np.array(index.chunk, dtype=np.int64)
    places, rest = np.divmod(corners[:, :ndim], chunk)
    if rest.any() or corners[:, ndim].any():
        raise content.damaged("a chunk index", index.address, f"has chunks that begin within others of {index.chunk}")
    if len(places) > 1 and not _in_order(places, index.counts(index.shape)):
        raise content.damaged("a chunk index", index.address, "is out of order")
    masks = heads[:, 1].astype(np.int64)
    return Found(places, _masks(masks), addresses(rows[:, key:]), heads[:, 0].astype(np.int64))


def _in_order(places: Column, counts: Sequence[int]) -> bool:
    """Return whether each place in a grid is behind the one before it, the last dimension counting fastest."""
    if math.prod(counts) > LARGEST_GRID:
        return True  # it is too large for an array in any case
    weights = [1]
    for count in reversed(counts[1:]):
        weights.append(weights[-1] * count)
    numbers = places @ np.array(weights[::-1], dtype=np.int64)
    return bool((numbers[1:] > numbers[:-1]).all())


# ------------------------------------------------------------------------------------------- without any structure


def _single(content: Content, index: ChunkIndex) -> Found:
    length, mask = index.single or (index.nbytes, 0)
    masks = np.array([mask], dtype=np.int64)
    return Found(
        np.zeros((1, len(index.chunk)), dtype=np.int64),
        _masks(masks),
        np.array([index.address], dtype=np.int64),
        np.array([length], dtype=np.int64),
    )


def _implicit(content: Content, index: ChunkIndex) -> Found:
    """All chunks were given room when the dataset was made, one behind the other."""
    limits, counts = index.limits(), index.counts(index.shape)
    _require_few(content, math.prod(counts))
    places = np.stack(np.unravel_index(np.arange(math.prod(counts)), counts), axis=1).astype(np.int64)
    numbers = np.ravel_multi_index(tuple(places.T), limits).astype(np.int64)
    lengths = np.full(len(numbers), index.nbytes, dtype=np.int64)
    return Found(places, None, index.address + numbers * index.nbytes, lengths)


# --------------------------------------------------------------------------------------------------------- arrays


def _fixed(content: Content, index: ChunkIndex) -> Found | None:
    """Appendix C, "Fixed Array": chunks by their number in the grid at its limits."""
    limits = index.limits()
    total = math.prod(limits)
    _require_few(content, total)
    elements = fixed_array(content, index.address, filtered=index.filtered)
    if elements.stated != total:
        raise content.damaged("a fixed array", index.address, f"is one of {elements.stated} chunks, and not {total}")
    return _of_elements(content, index, elements, lambda numbers: np.stack(np.unravel_index(numbers, limits), axis=1))


def _extensible(content: Content, index: ChunkIndex) -> Found | None:
    """Appendix C, "Extensible Array": chunks by their number in the grid with the growing dimension first.

    The growing dimension counts slowest, whichever it is: that is why a dataset can grow without being renumbered.
    """
    grown = [axis for axis, size in enumerate(index.longest) if size is None]
    if len(grown) != 1:
        raise content.damaged("an extensible array", index.address, f"has {len(grown)} dimensions without limits")
    axis = grown[0]
    limits = index.limits()
    others = limits[:axis] + limits[axis + 1 :]
    elements = extensible_array(content, index.address, filtered=index.filtered)

    def places(numbers: Column) -> Column:
        along, rest = np.divmod(numbers, math.prod(others))
        columns = list(np.unravel_index(rest, others)) if others else []
        columns.insert(axis, along)
        return np.stack(columns, axis=1).astype(np.int64)

    return _of_elements(content, index, elements, places)


def _of_elements(
    content: Content, index: ChunkIndex, elements: Elements, places: Callable[[Column], Column]
) -> Found | None:
    """An element is an address, and of a chunk with filters its length, and which it skipped."""
    width = content.sizes.offset
    written = ~(elements.rows[:, :width] == 255).all(axis=1)
    rows, numbers = elements.rows[written], elements.numbers[written]
    if not len(rows):
        return None
    lengths, masks = _lengths(content, index, rows[:, width:])
    return Found(places(numbers).astype(np.int64), masks, addresses(rows[:, :width]), lengths)


def _lengths(content: Content, index: ChunkIndex, columns: Bytes) -> tuple[Column, Column | None]:
    """Lengths, and masks of skipped filters, of records that have them; without filters, none does."""
    if not index.filtered:
        return np.full(len(columns), index.nbytes, dtype=np.int64), None
    middle = columns.shape[1] - 4
    if not 0 < middle <= 8:
        raise content.damaged("a chunk index", index.address, f"has lengths of {middle} bytes")
    return addresses(columns[:, :middle]), _masks(addresses(columns[:, middle:]))


# ----------------------------------------------------------------------------------------------- version 2 B-trees


def _new_tree(content: Content, index: ChunkIndex) -> Found | None:
    """Section III.A.2, records of types 10 and 11: an address, with filters a length and a mask, and the place."""
    tree = read_tree(content, index.address)
    width, ndim = content.sizes.offset, len(index.chunk)
    middle = tree.record - 8 * ndim
    if tree.kind != (11 if index.filtered else 10) or middle < width or (not index.filtered and middle != width):
        raise content.damaged("a chunk index", index.address, f"is a B-tree of type {tree.kind}")
    _require_few(content, tree.total)
    rows = new_records(content, tree)
    if not len(rows):
        return None
    places = rows[:, middle:].copy().view("<i8").reshape(-1, ndim)
    lengths, masks = _lengths(content, index, rows[:, width:middle])
    return Found(places.astype(np.int64, copy=False), masks, addresses(rows[:, :width]), lengths)


def _masks(masks: Column) -> Column | None:
    return masks if masks.any() else None


def _require_few(content: Content, count: int) -> None:
    if count > MOST_CHUNKS:
        raise LimitExceededError(f"a chunk index of {count} chunks; more than {MOST_CHUNKS} are not listed one by one")


#: How chunks are found, by the kind of index.
INDEXES: Mapping[int, Callable[[Content, ChunkIndex], Found | None]] = {
    0: _old_tree,
    1: _single,
    2: _implicit,
    3: _fixed,
    4: _extensible,
    5: _new_tree,
}
