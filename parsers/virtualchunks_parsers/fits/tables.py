"""Table HDUs: each column of fixed width is an array, whose chunks are the column's fields in blocks of rows.

A column that fills the rows, or the only row, lies in one piece. Long fields are one chunk each. The fields of other
columns lie apart, and ``virtualchunks.strided`` picks them out of the bytes of a block of rows.

References
----------
FITS Standard 4.0, sections 7.2 and 7.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.codecs import strided
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.grid import ChunkGrid
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.fits.cards import Header
from virtualchunks_parsers.fits.columns import (
    Column,
    Fields,
    ascii_columns,
    ascii_fields,
    binary_columns,
    binary_fields,
)
from virtualchunks_parsers.fits.hdus import HDU, MOST_AXES
from virtualchunks_parsers.fits.layout import Shell

#: Bytes of a block of rows, about.
BLOCK = 4 << 20
#: Fields of so many bytes are chunks by themselves.
LONG_FIELD = 64 << 10

ROWS = "row"


class TableKind(NamedTuple):
    """How the columns of one kind of table are read."""

    columns: Callable[[Header, int], list[Column]]
    fields: Callable[[Header, Column], Fields]


#: By the value of XTENSION.
KINDS = {
    "BINTABLE": TableKind(binary_columns, binary_fields),
    "A3DTABLE": TableKind(binary_columns, binary_fields),
    "TABLE": TableKind(ascii_columns, ascii_fields),
}


@dataclass(frozen=True, eq=False)
class Table:
    """One table: its rows, and its columns in order."""

    hdu: HDU
    row_bytes: int
    rows: int
    columns: list[Column]
    kind: TableKind

    @classmethod
    def of(cls, hdu: HDU) -> Table:
        """Read the structure of a table.

        Raises
        ------
        FormatError
            If the header is not that of a table.
        """
        header, kind = hdu.header, KINDS[hdu.extension]
        if header["BITPIX"] != 8 or header.integer("GCOUNT", 1) != 1:
            raise header.wrong("BITPIX", "8, and GCOUNT 1, for a table")
        if len(hdu.axes) != 2:
            raise header.wrong("NAXIS", "2 for a table")
        row_bytes, rows = hdu.axes
        return cls(hdu, row_bytes, rows, kind.columns(header, row_bytes), kind)

    def array(self, column: Column, name: str, sources: SourceTable) -> ManifestArray:
        """Return the array of a column.

        Parameters
        ----------
        column
            One of :attr:`columns`.
        name
            What the array is called.
        sources
            The file.

        Raises
        ------
        UnsupportedFeatureError
            If it cannot be represented.
        """
        fields = self.kind.fields(self.hdu.header, column)
        shape = (self.rows, *fields.shape)
        if len(shape) > MOST_AXES:
            raise UnsupportedFeatureError(f"{len(shape)} dimensions; arrays can have {MOST_AXES}")
        names = (ROWS, *(f"{name}_axis{number}" for number in range(len(fields.shape), 0, -1)))
        shell = Shell(names, fields.attributes)
        codecs, block = self._layout(column, fields)
        grid = ChunkGrid.regular(shape, [max(1, size) for size in (block, *fields.shape)])
        first = np.arange(grid.axes[0].count, dtype=np.int64) * block
        held = np.minimum(block, self.rows - first)
        offsets = self.hdu.offset + column.offset + first * self.row_bytes
        lengths = (held - 1) * self.row_bytes + column.width if column.width else np.zeros_like(held)
        encoding = ChunkEncoding(fields.stored, codecs)
        return shell.array(sources, grid, fields.stored.newbyteorder("="), encoding, offsets, lengths)

    def _layout(self, column: Column, fields: Fields) -> tuple[tuple[dict[str, object], ...], int]:
        """Return the codecs of a chunk, and how many rows it has."""
        codecs = tuple(dict(codec) for codec in fields.codecs)
        if column.width in (0, self.row_bytes) or self.rows <= 1:
            return codecs, max(1, self.rows)
        if column.width >= LONG_FIELD:
            return codecs, 1
        block = min(self.rows, max(1, BLOCK // self.row_bytes))
        configuration = {"width": column.width, "stride": self.row_bytes, "count": block}
        return (*codecs, {"name": strided.NAME, "configuration": configuration}), block
