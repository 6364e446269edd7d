"""Manifests from columns: the chunks of one array that some listing or document names, in any order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import FormatError, LimitExceededError
from virtualchunks.grid import ChunkGrid
from virtualchunks.manifest import MISSING, RECORD, WIDE_RECORD, ChunkManifest
from virtualchunks.records import LARGEST_OFFSET, Records
from virtualchunks.sources import SourceTable

Ints = npt.NDArray[np.integer]

#: Most chunks of a grid.
MOST_CHUNKS = 100_000_000
#: Most chunks of a grid of which less than one in a hundred is there.
MOST_SPARSE = 1 << 24


@dataclass(frozen=True)
class Chunks:
    """Chunks of one array, as columns.

    Parameters
    ----------
    numbers
        Which chunk each is, in C order of the grid.
    rows
        The row of `sources` that each lies in.
    offsets, lengths
        Where in it, in bytes.
    sources
        The objects.
    held
        Chunks held in memory, by number.
    """

    numbers: Ints
    rows: Ints
    offsets: Ints
    lengths: Ints
    sources: SourceTable
    held: Mapping[int, bytes] = field(default_factory=dict)

    def manifest(self, grid: ChunkGrid) -> ChunkManifest:
        """Return the manifest of an array with these chunks.

        Raises
        ------
        FormatError
            If a chunk that is there has no bytes, or lies out of range.
        LimitExceededError
            If the grid is out of proportion.
        """
        check_grid(grid.size, len(self.numbers) + len(self.held))
        if not len(self.numbers) and not self.held:
            return ChunkManifest.missing(grid.grid_shape)
        _check_ranges(self.offsets, self.lengths)
        lengths = [len(data) for data in self.held.values()]
        longest = max([*lengths, int(self.lengths.max()) if len(self.lengths) else 0])
        records = missing_records(grid.size, wide=longest >= 2**32)
        records["source"][self.numbers] = self.rows
        records["offset"][self.numbers] = self.offsets
        records["length"][self.numbers] = self.lengths
        sources = self.sources
        if self.held:
            sources = self._hold(records, lengths)
        return ChunkManifest.from_records(records.reshape(grid.grid_shape), sources)

    def _hold(self, records: Records, lengths: list[int]) -> SourceTable:
        numbers = np.fromiter(self.held, dtype=np.int64, count=len(self.held))
        sizes = np.array(lengths, dtype=np.int64)
        if (sizes == 0).any():
            raise FormatError("a chunk that is there has no bytes")
        records["source"][numbers] = len(self.sources)
        records["length"][numbers] = sizes
        records["offset"][numbers] = np.cumsum(sizes) - sizes
        return SourceTable.concat([self.sources, SourceTable.of_buffers([b"".join(self.held.values())])])


def missing_records(size: int, *, wide: bool = False) -> Records:
    """Return records of missing chunks."""
    records = np.zeros(size, dtype=WIDE_RECORD if wide else RECORD)
    records["source"] = MISSING
    return records


def check_grid(size: int, present: int) -> None:
    """Raise LimitExceededError for a grid that would take memory out of proportion to what it holds."""
    if not present:
        return
    if size > MOST_CHUNKS:
        raise LimitExceededError(f"a grid of {size:,} chunks; the most is {MOST_CHUNKS:,}")
    if size > MOST_SPARSE and present < size // 100:
        raise LimitExceededError(
            f"a grid of {size:,} chunks of which {present:,} are there; grids filled to less than 1 % are read "
            f"up to {MOST_SPARSE:,} chunks"
        )


def _check_ranges(offsets: Ints, lengths: Ints) -> None:
    if not len(offsets):
        return
    if int(offsets.min()) < 0 or int(lengths.min()) < 0:
        raise FormatError("the offset or length of a chunk is negative")
    if int(lengths.min()) == 0:
        raise FormatError("a chunk that is there has no bytes")
    if int(offsets.max()) + int(lengths.max()) > LARGEST_OFFSET:
        raise FormatError("a chunk ends beyond 2**63 - 1 bytes")
