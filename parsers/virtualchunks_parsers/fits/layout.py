"""Arrays over the bytes of one file: where their chunks lie, as records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding, Codec
from virtualchunks.grid import ChunkGrid
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.records import MISSING, RECORD, WIDE_RECORD
from virtualchunks.sources import SourceTable


@dataclass(frozen=True, eq=False)
class Shell:
    """What an array is called and says of itself.

    Attributes
    ----------
    dimension_names
        One per dimension.
    attributes
        By name.
    """

    dimension_names: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def array(
        self,
        sources: SourceTable,
        grid: ChunkGrid,
        dtype: np.dtype[Any],
        encoding: ChunkEncoding,
        offsets: npt.ArrayLike,
        lengths: npt.ArrayLike,
    ) -> ManifestArray:
        """Return the array whose chunks lie at `offsets`, in C order, each in the source of its number or the only one.

        An array without elements has no chunks, whatever is given.
        """
        metadata = ArrayMetadata(grid, dtype, encoding, None, self.dimension_names, self.attributes)
        places, sizes = np.asarray(offsets, dtype=np.uint64), np.asarray(lengths, dtype=np.uint64)
        wide = bool(sizes.max(initial=0) >= 2**32)
        records = np.zeros(grid.size, dtype=WIDE_RECORD if wide else RECORD)
        if grid.size:
            records["offset"], records["length"] = places.reshape(-1), sizes.reshape(-1)
            records["source"] = np.arange(grid.size) if len(sources) > 1 else 0
            records["source"][records["length"] == 0] = MISSING
        return ManifestArray(metadata, ChunkManifest.from_records(records.reshape(grid.grid_shape), sources))

    def contiguous(
        self, sources: SourceTable, shape: Sequence[int], stored: np.dtype[Any], codecs: Sequence[Codec], offset: int
    ) -> ManifestArray:
        """Return the array that lies in one piece: one chunk."""
        grid = whole_grid(shape)
        nbytes = math.prod(shape) * stored.itemsize
        encoding = ChunkEncoding(stored, tuple(codecs))
        return self.array(sources, grid, stored.newbyteorder("="), encoding, [offset], [nbytes])


def whole_grid(shape: Sequence[int]) -> ChunkGrid:
    """Return the grid of one chunk, or of none for an array without elements."""
    return ChunkGrid.regular(shape, [max(1, size) for size in shape])


def axis_names(name: str, ndim: int) -> tuple[str, ...]:
    """Return the names of the axes of an image.

    They carry the name of the HDU, since HDUs of one file differ in shape and FITS leaves axes anonymous.

    Examples
    --------
    >>> axis_names("SCI", 2), axis_names("SCI", 1), axis_names("SCI", 4)[0]
    (('SCI_y', 'SCI_x'), ('SCI_row',), 'SCI_axis4')
    """
    if ndim == 1:
        return (f"{name}_row",)
    if ndim <= 3:
        return tuple(f"{name}_{axis}" for axis in "zyx"[3 - ndim :])
    return tuple(f"{name}_axis{number}" for number in range(ndim, 0, -1))
