"""Tile-compressed images: a binary table with one row per tile, whose compressed bytes lie in the table's heap.

Where all tiles decode alike, each is a chunk. Where they have parameters of their own (quantised floats), or leave
short tiles at the edges of a small image, a chunk is a block of tiles, and its codec's configuration lists them; an
image of up to :data:`WHOLE` bytes is then one chunk.

References
----------
FITS Standard 4.0, section 10.1 to 10.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.codecs import fits_tile
from virtualchunks.codecs.fits_dither import METHODS, NO_DITHER
from virtualchunks.encoding import ChunkEncoding, Codec
from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.fits.columns import Column
from virtualchunks_parsers.fits.hdus import HDU, MOST_AXES, axes_of
from virtualchunks_parsers.fits.images import TYPES
from virtualchunks_parsers.fits.layout import Shell, axis_names
from virtualchunks_parsers.fits.packing import TABLE_STRUCTURE, TILE_STRUCTURE, Packing, image_attributes
from virtualchunks_parsers.fits.tables import Table

#: Decoded bytes of a block of tiles, about, and of the largest image that is one block.
BLOCK = 4 << 20
WHOLE = 16 << 20
#: The largest table of tiles that is read, in bytes, and the most blocks.
LONGEST_TABLE = 256 << 20
MOST_BLOCKS = 100_000

#: Columns with the compressed bytes, in the order in which they are looked at, and how those are stored.
DATA_COLUMNS = {
    "COMPRESSED_DATA": fits_tile.COMPRESSED,
    "GZIP_COMPRESSED_DATA": fits_tile.GZIPPED,
    "UNCOMPRESSED_DATA": fits_tile.PLAIN,
}
ALIASES = {"RICE_ONE": "RICE_1"}
ALGORITHMS = ("RICE_1", "PLIO_1", "HCOMPRESS_1", "GZIP_1", "GZIP_2", "NOCOMPRESS")
_FALLBACK = {fits_tile.GZIPPED: "GZIP_1", fits_tile.PLAIN: "NOCOMPRESS"}
_HEAP_SIZES = {"B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8}


@dataclass(frozen=True, eq=False)
class TiledImage:
    """One tile-compressed image.

    Attributes
    ----------
    table
        The binary table that holds it.
    shape, tile_shape
        Of the image and of its tiles, last axis fastest.
    algorithm
        ZCMPTYPE.
    bitpix
        ZBITPIX.
    """

    table: Table
    shape: tuple[int, ...]
    tile_shape: tuple[int, ...]
    algorithm: str
    bitpix: int

    @classmethod
    def of(cls, hdu: HDU) -> TiledImage:
        """Read the structure of a tile-compressed image.

        Raises
        ------
        FormatError
            If the header is not that of one.
        UnsupportedFeatureError
            If it uses what is not known.
        """
        header = hdu.header
        axes = axes_of(header, "ZNAXIS")
        if not 0 < len(axes) <= MOST_AXES:
            raise header.wrong("ZNAXIS", f"from 1 to {MOST_AXES}")
        tiles = [
            header.integer(f"ZTILE{number}", axes[0] if number == 1 else 1, lowest=1)
            for number in range(1, len(axes) + 1)
        ]
        algorithm = header.text("ZCMPTYPE").strip()
        algorithm = ALIASES.get(algorithm, algorithm)
        if algorithm not in ALGORITHMS:
            raise UnsupportedFeatureError(f"unknown compression {algorithm!r}; known are {', '.join(ALGORITHMS)}")
        bitpix = header.integer("ZBITPIX", lowest=-64, highest=64)
        if bitpix not in TYPES:
            raise header.wrong("ZBITPIX", f"one of {sorted(TYPES)}")
        tile_shape = tuple(min(tile, max(1, size)) for tile, size in zip(tiles, axes, strict=True))
        made = cls(Table.of(hdu), axes[::-1], tile_shape[::-1], algorithm, bitpix)
        made._check()
        return made

    def _check(self) -> None:
        """Raise if there are not enough tiles, or they are stored in a way that is not known."""
        header = self.table.hdu.header
        if self.table.rows < self.grid.size:
            raise header.wrong("NAXIS2", f"at least the {self.grid.size} tiles of an image of shape {self.shape}")
        if "ZMASKCMP" in header or "NULL_PIXEL_MASK" in self.columns:
            raise UnsupportedFeatureError("a mask of undefined pixels beside the image (ZMASKCMP)")
        if "ZSCALE" in header or "ZZERO" in header:
            raise UnsupportedFeatureError("one scale for all tiles, given by the keywords ZSCALE and ZZERO")
        if "COMPRESSED_DATA" not in self.columns:
            raise FormatError("a tile-compressed image without the column COMPRESSED_DATA")
        if self.is_quantised and self.bitpix > 0:
            raise UnsupportedFeatureError("an image of integers with the columns ZSCALE and ZZERO")
        if ("ZSCALE" in self.columns) != ("ZZERO" in self.columns):
            raise FormatError("one of the columns ZSCALE and ZZERO without the other")

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Columns by name."""
        return {column.name.upper(): column for column in reversed(self.table.columns)}

    @cached_property
    def grid(self) -> ChunkGrid:
        """The grid of tiles, short ones at the edges as they are."""
        axes = []
        for size, tile in zip(self.shape, self.tile_shape, strict=True):
            whole, rest = divmod(size, tile)
            axes.append(Axis.from_edges([*[tile] * whole, *[rest] * (rest > 0)]))
        return ChunkGrid(tuple(axes))

    @property
    def is_quantised(self) -> bool:
        """Whether floats are stored as integers."""
        return "ZSCALE" in self.columns

    @cached_property
    def blank(self) -> int | None:
        """The stored value for undefined pixels, if it is one for all tiles."""
        header = self.table.hdu.header
        blank = header.get("ZBLANK", header.get("BLANK"))
        return blank if isinstance(blank, int) and not isinstance(blank, bool) else None

    @cached_property
    def parameters(self) -> dict[str, int]:
        """The parameters of the algorithm, from ZNAMEn and ZVALn."""
        header = self.table.hdu.header
        given: dict[str, Any] = {}
        for number in range(1, 1000):
            if f"ZNAME{number}" not in header:
                break
            given.setdefault(header.text(f"ZNAME{number}").strip().upper(), header.get(f"ZVAL{number}"))
        if self.algorithm == "RICE_1":
            found = {"blocksize": given.get("BLOCKSIZE", 32), "bytepix": given.get("BYTEPIX", 4)}
        else:
            found = {"smooth": given.get("SMOOTH", 0)} if self.algorithm == "HCOMPRESS_1" else {}
        if not all(isinstance(value, int) for value in found.values()):
            raise FormatError(f"{self.algorithm} with the parameters {found}, which must be integers")
        return {key: int(value) for key, value in found.items()}

    def array(self, name: str, reader: ObjectReader, sources: SourceTable) -> ManifestArray:
        """Return the array of the image.

        Parameters
        ----------
        name
            What the HDU is called.
        reader
            The file, of which the table of tiles is read.
        sources
            The file, as a table of one row.

        Raises
        ------
        FormatError
            If tiles lie outside the heap.
        UnsupportedFeatureError, LimitExceededError
            If the image cannot be represented.
        """
        header = self.table.hdu.header
        packing = Packing.of(
            TYPES[self.bitpix],
            scale=header.number("BSCALE", 1),
            zero=header.number("BZERO", 0),
            blank=self.blank,
        )
        attributes = image_attributes(header, packing, TABLE_STRUCTURE, TILE_STRUCTURE)
        shell = Shell(axis_names(name, len(self.shape)), attributes)
        build = _Build(self, shell, packing, sources, _read_tiles(self, reader))
        ragged_and_small = not self.grid.is_regular and self._nbytes <= WHOLE
        if self.is_quantised or "ZBLANK" in self.columns or ragged_and_small:
            return build.of_blocks()
        return build.of_tiles()

    @property
    def _nbytes(self) -> int:
        return math.prod(self.shape) * TYPES[self.bitpix].itemsize

    def block_shape(self) -> tuple[int, ...]:
        """Return how many tiles a block has along each axis: all along the fastest, as many as fit along the next."""
        counts = self.grid.grid_shape
        if self._nbytes <= WHOLE:
            return counts
        block = [1] * len(counts)
        nbytes = math.prod(self.tile_shape) * TYPES[self.bitpix].itemsize
        for axis in reversed(range(len(counts))):
            block[axis] = min(counts[axis], max(1, BLOCK // nbytes))
            nbytes *= block[axis]
            if block[axis] < counts[axis]:
                break
        return tuple(block)


@dataclass(frozen=True, eq=False)
class _Build:
    """The making of one array."""

    image: TiledImage
    shell: Shell
    packing: Packing
    sources: SourceTable
    tiles: npt.NDArray[Any]

    def encoding(self, shape: tuple[int, ...] | None = None, **configuration: Any) -> ChunkEncoding:
        """Return the encoding of chunks that decode with this configuration."""
        plain: dict[str, Any] = {"algorithm": self.image.algorithm, "bitpix": self.image.bitpix}
        if self.image.parameters and "algorithm" not in configuration:
            plain["parameters"] = self.image.parameters
        codec: Codec = {"name": fits_tile.NAME, "configuration": plain | configuration}
        return ChunkEncoding(self.packing.dtype, (*self.packing.before, codec), shape)

    def of_tiles(self) -> ManifestArray:
        """Return the array of which each tile is a chunk."""
        image, tiles = self.image, self.tiles
        blank: dict[str, Any] = {} if image.blank is None or image.bitpix > 0 else {"blank": image.blank}
        own = self.encoding(**blank)
        kinds = [kind for kind in _FALLBACK if (tiles["storage"] == kind).any()]
        sources = self.sources
        if kinds:
            others = [self.encoding(algorithm=_FALLBACK[kind]) for kind in kinds]
            numbers = np.zeros(len(tiles), dtype=np.int32)
            for number, kind in enumerate(kinds, 1):
                numbers[tiles["storage"] == kind] = number
            rows = SourceTable.concat([sources] * len(tiles))
            sources = rows.replace(encoding_ids=numbers, encodings=tuple(others))
        return self.shell.array(sources, image.grid, self.packing.dtype, own, tiles["offset"], tiles["length"])

    def of_blocks(self) -> ManifestArray:
        """Return the array of which blocks of tiles are the chunks."""
        grid = self.block_grid()
        if grid.size > MOST_BLOCKS:
            raise LimitExceededError(f"{grid.size} blocks of tiles with parameters of their own; {MOST_BLOCKS} can be")
        offsets, lengths, encodings = [], [], []
        for index, members in self.blocks(grid):
            block = np.sort(members["offset"]), members["offset"] + members["length"]
            start, stop = int(block[0][0]), int(block[1].max())
            if stop - start > 2 * int(members["length"].sum()) + BLOCK:
                raise UnsupportedFeatureError("tiles that lie scattered over the heap, each with its own parameters")
            members = members.copy()
            members["offset"] -= start
            cell, nominal = grid.cell_shape(index), grid.nominal_shape(index)
            encodings.append(self.block_encoding(members, cell if cell != nominal else None))
            offsets.append(start)
            lengths.append(stop - start)
        sources = self.sources
        if len(encodings) > 1:
            sources = SourceTable.concat([sources] * len(encodings))
            sources = sources.replace(
                encoding_ids=np.arange(len(encodings), dtype=np.int32), encodings=tuple(encodings[1:])
            )
        own = encodings[0] if encodings else self.encoding()
        return self.shell.array(sources, grid, self.packing.dtype, own, offsets, lengths)

    def block_grid(self) -> ChunkGrid:
        """Return the grid of blocks."""
        image = self.image
        sizes = zip(image.block_shape(), image.tile_shape, image.shape, strict=True)
        return ChunkGrid.regular(image.shape, [max(1, min(count * tile, size)) for count, tile, size in sizes])

    def blocks(self, grid: ChunkGrid) -> Iterator[tuple[tuple[int, ...], npt.NDArray[Any]]]:
        """Iterate over the blocks: their indices, and their tiles in C order."""
        counts = self.image.block_shape()
        tiles = self.tiles.reshape(self.image.grid.grid_shape)
        for index in np.ndindex(*grid.grid_shape):
            members = tiles[tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, counts, strict=True))]
            yield index, members.reshape(-1)

    def block_encoding(self, members: npt.NDArray[Any], shape: tuple[int, ...] | None) -> ChunkEncoding:
        """Return the encoding of a block of these tiles."""
        image = self.image
        configuration: dict[str, Any] = {
            "tile_shape": list(image.tile_shape),
            "tiles": fits_tile.write_tiles(members),
        }
        if image.is_quantised:
            configuration["dither"] = _method(image)
        elif image.blank is not None:
            configuration["blank"] = image.blank
        return self.encoding(shape, **configuration)


def _method(image: TiledImage) -> str:
    header = image.table.hdu.header
    method = header.text("ZQUANTIZ", NO_DITHER).strip()
    if method not in METHODS:
        raise UnsupportedFeatureError(f"floats quantised by the unknown method {method!r}; known are {METHODS}")
    return method


def _read_tiles(image: TiledImage, reader: ObjectReader) -> npt.NDArray[Any]:
    """Return the tiles of an image, their offsets counted from the beginning of the file."""
    table = image.table
    count = image.grid.size
    if count * table.row_bytes > LONGEST_TABLE:
        raise LimitExceededError(f"a table of {count} tiles, of {count * table.row_bytes} bytes")
    raw = np.frombuffer(reader.read_at(table.hdu.offset, count * table.row_bytes), dtype=np.uint8)
    rows = raw.reshape(count, table.row_bytes)
    tiles = np.zeros(count, dtype=fits_tile.TILE)
    tiles["storage"] = -1
    for name, kind in DATA_COLUMNS.items():
        if name in image.columns:
            _place(image, tiles, kind, image.columns[name], rows)
    if (tiles["storage"] < 0).any():
        row = int(np.flatnonzero(tiles["storage"] < 0)[0]) + 1
        raise UnsupportedFeatureError(f"tile {row} of {count} has no data, compressed or not")
    blank = image.blank
    tiles["blank"] = fits_tile.NO_BLANK if blank is None else blank
    if "ZBLANK" in image.columns:
        _take_blanks(image, tiles, rows)
    if image.is_quantised:
        tiles["scale"], tiles["zero"] = (_numbers(image.columns[name], rows) for name in ("ZSCALE", "ZZERO"))
        dithered = _method(image) != NO_DITHER
        tiles["row"] = np.arange(count) + (table.hdu.header.integer("ZDITHER0", lowest=1) if dithered else 0)
    return tiles


def _take_blanks(image: TiledImage, tiles: npt.NDArray[Any], rows: npt.NDArray[np.uint8]) -> None:
    if image.bitpix > 0 and image.blank is None:
        raise UnsupportedFeatureError(
            "a value for undefined pixels for each tile (the column ZBLANK), but none for all"
        )
    tiles["blank"] = _numbers(image.columns["ZBLANK"], rows)


def _numbers(column: Column, rows: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Return the values of a column of single numbers."""
    types = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
    if column.code not in types or column.repeat != 1:
        raise FormatError(f"the column {column.name} of a tile-compressed image must hold one number per tile")
    return _field(column, rows).view(types[column.code])[:, 0]


def _field(column: Column, rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(rows[:, column.offset : column.offset + column.width])


def _place(image: TiledImage, tiles: npt.NDArray[Any], kind: int, column: Column, rows: npt.NDArray[np.uint8]) -> None:
    """Enter the tiles that a column of descriptors holds data for, where no column before it did."""
    element = column.extra[:1]
    if column.code not in "PQ" or column.repeat != 1 or element not in _HEAP_SIZES:
        raise UnsupportedFeatureError(f"the column {column.name} is not of variable length")
    if kind != fits_tile.PLAIN and element != ("I" if kind == 0 and image.algorithm == "PLIO_1" else "B"):
        raise UnsupportedFeatureError(f"{image.algorithm} data in elements of the type {element!r}")
    hdu, table = image.table.hdu, image.table
    found = _field(column, rows).view(">i4" if column.code == "P" else ">i8").astype(np.int64)
    lengths, places = found[:, 0], found[:, 1]
    theap = hdu.header.integer("THEAP", table.rows * table.row_bytes, lowest=table.rows * table.row_bytes)
    room = max(0, hdu.nbytes - theap)
    chosen = (tiles["storage"] < 0) & (lengths != 0)
    outside = (lengths < 0) | (lengths > room) | (places < 0) | (places > room)
    lengths = np.where(outside, 0, lengths) * _HEAP_SIZES[element]
    outside |= places + lengths > room
    if (outside & chosen).any():
        row = int(np.flatnonzero(outside & chosen)[0]) + 1
        raise FormatError(f"tile {row} lies outside the heap of {room} bytes")
    tiles["storage"][chosen] = kind
    tiles["length"][chosen] = lengths[chosen]
    tiles["offset"][chosen] = (hdu.offset + theap + places)[chosen]
