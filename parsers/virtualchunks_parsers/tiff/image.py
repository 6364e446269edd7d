"""The image of one directory: shape, chunk grid, encoding, and where its strips or tiles are.

References
----------
TIFF 6.0 specification, section 8 (baseline fields), 15 (tiled images), 19 (data sample format).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.tiff import NAME, layout_to_json
from virtualchunks.codecs.tiff_chunk import STREAMS, SampleLayout
from virtualchunks.codecs.tiff_samples import COMPLEX_INT, FLOAT, sample_dtype
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.records import MISSING, RECORD, WIDE_RECORD
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.tiff.structure import IFD

# Fields, as the specification names them.
NEW_SUBFILE_TYPE, SUBFILE_TYPE = 254, 255
IMAGE_WIDTH, IMAGE_LENGTH, BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
FILL_ORDER, STRIP_OFFSETS, SAMPLES_PER_PIXEL, ROWS_PER_STRIP, STRIP_BYTE_COUNTS = 266, 273, 277, 278, 279
PLANAR_CONFIGURATION, T4_OPTIONS, PREDICTOR = 284, 292, 317
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTE_COUNTS = 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES = 338, 339, 347
YCBCR_SUB_SAMPLING, IMAGE_DEPTH, TILE_DEPTH, LERC_PARAMETERS = 530, 32997, 32998, 50674

#: Fields whose values :class:`Image` reads, for fetching them together.
FIELDS = (
    *(BITS_PER_SAMPLE, STRIP_OFFSETS, STRIP_BYTE_COUNTS, TILE_OFFSETS, TILE_BYTE_COUNTS, SAMPLE_FORMAT, JPEG_TABLES),
    *(EXTRA_SAMPLES, LERC_PARAMETERS),
)

#: Compressions for which there are codecs beside our own, with those codecs.
PLAIN: dict[int, tuple[dict[str, Any], ...]] = {
    1: (),
    8: ({"name": "numcodecs.zlib", "configuration": {"level": 1}},),
    32946: ({"name": "numcodecs.zlib", "configuration": {"level": 1}},),
    50013: ({"name": "numcodecs.zlib", "configuration": {"level": 1}},),
    50000: ({"name": "zstd", "configuration": {"level": 0, "checksum": False}},),
}
#: How many bytes a byte can become: deflate's longest match takes two bits, LZW's string of 4,096 bytes twelve, two
#: bytes of PackBits are up to 128, and a block of zstd, 128 KiB at most, takes four bytes.
MOST_COMPRESSED = {5: 2731, 8: 1032, 32946: 1032, 50013: 1032, 32773: 64, 50000: 32768, 34926: 32768}
#: Compressions that are known, and refused.
REFUSED = {
    6: "old-style JPEG compression (6), which readers disagree on",
    9: "JBIG compression (9)",
    10: "JBIG compression (10)",
    32766: "NeXT compression (32766)",
    32771: "CCITT compression with word alignment (32771)",
    32809: "ThunderScan compression (32809)",
    34661: "JBIG compression (34661)",
    34676: "SGI LogLuv compression (34676)",
    34677: "SGI LogLuv compression (34677)",
    32909: "PixarLog compression (32909)",
    34713: "Nikon NEF compression (34713)",
}
JPEG = frozenset({7, 34892})
RGB, YCBCR = 2, 6
#: Bytes of samples in one chunk, and chunks of one image.
LARGEST_CHUNK, MOST_CHUNKS = 1 << 32, 100_000_000
#: Bytes of a tile that exceeds its image.
LARGEST_PADDED = 64 << 20
#: Rows of adjacent strips are cut anew into chunks of about this size.
RECUT = 4 << 20


@dataclass(frozen=True)
class Image:
    """The image of a directory.

    Parameters
    ----------
    ifd
        The directory.

    Raises
    ------
    FormatError
        If fields are missing or contradict each other.
    """

    ifd: IFD

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or self.depth < 1 or self.samples < 1:
            raise FormatError(
                f"the image of the directory at {self.ifd.offset} has {self.width} × {self.height} pixels of "
                f"{self.samples} samples"
            )
        if max(self.width, self.height, self.depth) >= 1 << 31 or self.samples >= 1 << 16:
            raise LimitExceededError(
                f"the image of the directory at {self.ifd.offset} has {self.width} × {self.height} pixels"
            )

    @property
    def width(self) -> int:
        """Pixels of a row."""
        return self.ifd.integer(IMAGE_WIDTH, 0)

    @property
    def height(self) -> int:
        """Rows."""
        return self.ifd.integer(IMAGE_LENGTH, 0)

    @property
    def depth(self) -> int:
        """Planes of a volume; 1 for an image."""
        return self.ifd.integer(IMAGE_DEPTH, 1)

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return self.ifd.integer(SAMPLES_PER_PIXEL, 1)

    @property
    def is_planar(self) -> bool:
        """Whether the samples of a pixel are stored apart."""
        return self.samples > 1 and self.ifd.integer(PLANAR_CONFIGURATION, 1) == 2

    @property
    def is_tiled(self) -> bool:
        """Whether it is cut into tiles, rather than strips."""
        return TILE_WIDTH in self.ifd

    @property
    def is_reduced(self) -> bool:
        """Whether it is another image at a lower resolution."""
        return bool(self._subfile_type & 1) or (SUBFILE_TYPE in self.ifd and self.ifd.integer(SUBFILE_TYPE, 0) == 2)

    @property
    def is_mask(self) -> bool:
        """Whether it says which pixels of another image are there."""
        return bool(self._subfile_type & 4)

    @cached_property
    def _subfile_type(self) -> int:
        """The field NewSubfileType; one of more than a value says nothing."""
        field = self.ifd.fields.get(NEW_SUBFILE_TYPE)
        return 0 if field is None or field.count != 1 else self.ifd.integer(NEW_SUBFILE_TYPE, 0)

    @property
    def compression(self) -> int:
        """The field Compression."""
        return self.ifd.integer(COMPRESSION, 1)

    @property
    def colours(self) -> int:
        """The field PhotometricInterpretation, as it is once the samples are decoded."""
        found = self.ifd.integer(PHOTOMETRIC, 1)
        return RGB if found == YCBCR and self.compression in JPEG and not self.is_planar else found

    @cached_property
    def bits(self) -> int:
        """Bits of a sample.

        Raises
        ------
        UnsupportedFeatureError
            If samples differ in it.
        """
        values = self.ifd.integers(BITS_PER_SAMPLE)[: self.samples]
        if values.size and (values != values[0]).any():
            raise UnsupportedFeatureError(f"samples of {values.tolist()} bits in one pixel")
        return int(values[0]) if values.size else 1

    @cached_property
    def sample_format(self) -> int:
        """The field SampleFormat.

        Raises
        ------
        UnsupportedFeatureError
            If samples differ in it.
        """
        values = self.ifd.integers(SAMPLE_FORMAT)[: self.samples]
        if values.size and (values != values[0]).any():
            raise UnsupportedFeatureError(f"samples of the formats {values.tolist()} in one pixel")
        return int(values[0]) if values.size else 1

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Native dtype of the samples."""
        return sample_dtype(self.sample_format, self.bits)

    @property
    def shape(self) -> tuple[int, ...]:
        """Bands first where they are stored apart, last where they are stored together, absent where there is one."""
        pixels = (self.depth, self.height, self.width) if self.depth > 1 else (self.height, self.width)
        if self.samples == 1:
            return pixels
        return (self.samples, *pixels) if self.is_planar else (*pixels, self.samples)

    def over_pixels(self, depth: Any, height: Any, width: Any, bands: Any) -> tuple[Any, ...]:
        """Return what belongs to each axis, in the order of :attr:`shape`."""
        pixels = (depth, height, width) if self.depth > 1 else (height, width)
        if self.samples == 1:
            return pixels
        return (bands, *pixels) if self.is_planar else (*pixels, bands)

    # ----------------------------------------------------------------------------------------------- encoding

    @cached_property
    def layout(self) -> SampleLayout:
        """How the samples of a strip or tile are stored.

        Raises
        ------
        UnsupportedFeatureError
            If samples so stored cannot be decoded.
        """
        self._check()
        ifd, compression = self.ifd, self.compression
        extra = EXTRA_SAMPLES in ifd and ifd.fields[EXTRA_SAMPLES].count > 0
        tables = ifd.raw(JPEG_TABLES) if compression in JPEG else b""
        return SampleLayout(
            compression=compression,
            bits=self.bits,
            sample_format=self.sample_format,
            width=self._chunk_width,
            samples=1 if self.is_planar else self.samples,
            endian="little" if ifd.file.layout.order == "<" else "big",
            predictor=ifd.integer(PREDICTOR, 1),
            fill_order=ifd.integer(FILL_ORDER, 1),
            photometric=ifd.integer(PHOTOMETRIC, 0) if compression in JPEG and not extra else None,
            tables=base64.b64encode(tables).decode("ascii") if tables else None,
            options=self._options(),
        )

    def _options(self) -> int:
        if self.compression == 3:
            return self.ifd.integer(T4_OPTIONS, 0)
        if self.compression == 34887:
            parameters = self.ifd.integers(LERC_PARAMETERS)
            return int(parameters[1]) if parameters.size > 1 else 0
        return 0

    def _check(self) -> None:
        ifd, compression = self.ifd, self.compression
        if compression in REFUSED:
            raise UnsupportedFeatureError(REFUSED[compression])
        if ifd.integer(PHOTOMETRIC, 0) == YCBCR and compression not in JPEG:
            subsampling = ifd.integers(YCBCR_SUB_SAMPLING).tolist() or [2, 2]
            if subsampling != [1, 1] and compression in STREAMS:
                raise UnsupportedFeatureError(f"YCbCr subsampled by {subsampling} without JPEG")
        if ifd.integer(PREDICTOR, 1) != 1 and compression == 1:
            raise UnsupportedFeatureError("a predictor without compression, on which readers disagree")

    @property
    def is_plain(self) -> bool:
        """Whether codecs other than ours decode the strips or tiles."""
        layout = self.layout
        return (
            layout.compression in PLAIN
            and layout.predictor == 1
            and layout.fill_order == 1
            and layout.bits == 8 * self.dtype.itemsize
            and layout.sample_format != COMPLEX_INT
            and not (layout.sample_format == FLOAT and layout.bits == 24)
        )

    def encoding(self) -> ChunkEncoding:
        """Return how the strips or tiles decode."""
        stored = self.dtype.newbyteorder(self.ifd.file.layout.order)
        if self.is_plain:
            return ChunkEncoding.plain(stored, PLAIN[self.compression])
        return ChunkEncoding(self.dtype, ({"name": NAME, "configuration": layout_to_json(self.layout)},))

    # --------------------------------------------------------------------------------------- strips and tiles

    @property
    def _chunk_width(self) -> int:
        return self.ifd.integer(TILE_WIDTH, 0) if self.is_tiled else self.width

    @property
    def _chunk_height(self) -> int:
        if self.is_tiled:
            return self.ifd.integer(TILE_LENGTH, 0)
        return min(self.ifd.integer(ROWS_PER_STRIP, self.height) or self.height, self.height)

    def grid(self) -> ChunkGrid:
        """Return the chunk grid: tiles overhang the image, and the last strip ends with it.

        Raises
        ------
        FormatError
            If a tile has no pixels, or there are fewer offsets than strips or tiles.
        LimitExceededError
            If a chunk is too large, or there are too many.
        """
        rows, columns = self._chunk_height, self._chunk_width
        planes = self.ifd.integer(TILE_DEPTH, 1) if self.is_tiled else 1
        if min(rows, columns, planes) < 1 or max(rows, columns, planes) >= 1 << 31:
            raise FormatError(f"tiles of {columns} × {rows} pixels")
        together = 1 if self.is_planar else self.samples
        nbytes = rows * columns * planes * together * self.dtype.itemsize
        if nbytes > LARGEST_CHUNK:
            raise LimitExceededError(f"a strip or tile of {columns} × {rows} pixels takes more than 4 GiB")
        if nbytes > max(LARGEST_PADDED, 4 * math.prod(self.shape) * self.dtype.itemsize):
            raise LimitExceededError(
                f"a tile of {columns} × {rows} pixels, far larger than the image of {self.width} × {self.height}"
            )
        counts = [
            -(-size // chunk) for size, chunk in ((self.height, rows), (self.width, columns), (self.depth, planes))
        ]
        self._check_count(math.prod(counts) * (self.samples if self.is_planar else 1))
        height = Axis(self.height, chunk=rows)
        if not self.is_tiled and self.height % rows:
            height = Axis.from_edges([*[rows] * (counts[0] - 1), self.height - rows * (counts[0] - 1)])
        bands = Axis(self.samples, chunk=together)
        return ChunkGrid(
            self.over_pixels(Axis(self.depth, chunk=planes), height, Axis(self.width, chunk=columns), bands)
        )

    def _check_count(self, needed: int) -> None:
        tag = TILE_OFFSETS if self.is_tiled and TILE_OFFSETS in self.ifd else STRIP_OFFSETS
        found = self.ifd.fields[tag].count if tag in self.ifd else 0
        if found < needed:
            raise FormatError(f"the image has {needed} strips or tiles, and the file has offsets of {found}")
        if needed > MOST_CHUNKS:
            raise LimitExceededError(f"the image has {needed} strips or tiles")

    def places(self, grid: ChunkGrid) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Return offset and length of each strip or tile, in the shape of the grid; length 0 where it is missing.

        Raises
        ------
        FormatError
            If one lies beyond the end of the file, or is too short for its samples.
        """
        tiled = self.is_tiled and TILE_OFFSETS in self.ifd
        needed = grid.size
        offsets = self.ifd.integers(TILE_OFFSETS if tiled else STRIP_OFFSETS)[:needed]
        counts = self.ifd.integers(TILE_BYTE_COUNTS if TILE_BYTE_COUNTS in self.ifd else STRIP_BYTE_COUNTS)
        lengths = self._lengths(offsets, counts[:needed], self._expected(grid))
        end = offsets + lengths
        if ((end > self.ifd.file.reader.size) | (end < offsets)).any():
            raise FormatError(
                f"strips or tiles end at byte {int(end.max())}, and the file has {self.ifd.file.reader.size} bytes: "
                "it is truncated or corrupt"
            )
        return offsets.reshape(grid.grid_shape), lengths.reshape(grid.grid_shape)

    def _expected(self, grid: ChunkGrid) -> npt.NDArray[np.uint64]:
        """Bytes of each strip or tile once it is decompressed."""
        rows, across = grid.axes[self._row_axis].nominal, grid.grid_shape
        planes = self.ifd.integer(TILE_DEPTH, 1) if self.is_tiled else 1
        sizes = rows.astype(np.uint64) * np.uint64(self.layout.row_bytes * planes)
        shape = [1] * len(across)
        shape[self._row_axis] = len(sizes)
        return np.broadcast_to(sizes.reshape(shape), across).reshape(-1)

    @property
    def _row_axis(self) -> int:
        return self.over_pixels(0, 1, 2, 3).index(1)

    def _lengths(
        self, offsets: npt.NDArray[np.uint64], counts: npt.NDArray[np.uint64], expected: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.uint64]:
        """Lengths in the file. Those of plain samples are known; the field may say more, and may be left out."""
        if counts.size < offsets.size:
            if not (self.is_plain and self.compression == 1 and offsets.size == 1):
                raise FormatError(f"byte counts of {counts.size} of {offsets.size} strips or tiles")
            counts = expected.copy()
        missing = (offsets == 0) | (counts == 0)
        ratio = MOST_COMPRESSED.get(self.compression)
        if ratio is not None:
            self._check_ratio(np.where(missing, 0, expected), counts, ratio)
        if self.compression != 1:
            return np.where(missing, 0, counts)
        short = ~missing & (counts < expected)
        if short.any():
            first = int(np.flatnonzero(short)[0])
            raise FormatError(
                f"strip or tile {first} has {int(counts[first])} bytes, and its samples take {int(expected[first])}"
            )
        return np.where(missing, 0, expected)

    def _check_ratio(self, expected: npt.NDArray[np.uint64], counts: npt.NDArray[np.uint64], ratio: int) -> None:
        impossible = expected // np.uint64(ratio) > counts
        if impossible.any():
            first = int(np.flatnonzero(impossible)[0])
            raise FormatError(
                f"strip or tile {first} has {int(counts[first])} bytes, which decompress to at most {ratio} times as "
                f"many, and its samples take {int(expected[first])}"
            )

    def array(self, sources: SourceTable, names: Sequence[str], fill_value: Any) -> ManifestArray:
        """Return the image as an array of references, without attributes.

        Parameters
        ----------
        sources
            The table whose only row is the file.
        names
            Names of the dimensions.
        fill_value
            What missing tiles read as; ``None`` for zero.

        Raises
        ------
        UnsupportedFeatureError, FormatError, LimitExceededError
            If it cannot be represented, or its fields are wrong.
        """
        encoding = self.encoding()
        grid = self.grid()
        offsets, lengths = self.places(grid)
        recut = self._recut(grid, offsets, lengths)
        if recut is not None:
            grid, offsets, lengths = recut
        dtype = WIDE_RECORD if lengths.size and int(lengths.max()) >= 1 << 32 else RECORD
        records = np.empty(grid.grid_shape, dtype=dtype)
        present = lengths > 0
        records["source"] = np.where(present, 0, MISSING)
        records["offset"] = np.where(present, offsets, 0)
        records["length"] = lengths
        metadata = ArrayMetadata(grid, self.dtype, encoding, fill_value, tuple(names))
        return ManifestArray(metadata, ChunkManifest.from_records(records, sources))

    def _recut(
        self, grid: ChunkGrid, offsets: npt.NDArray[np.uint64], lengths: npt.NDArray[np.uint64]
    ) -> tuple[ChunkGrid, npt.NDArray[np.uint64], npt.NDArray[np.uint64]] | None:
        """Cut adjacent strips of plain samples anew, so that all have as many rows; ``None`` where they do not fit.

        A short last strip needs a rectilinear grid otherwise, which few readers know.
        """
        if grid.is_regular or not self.is_plain or self.compression != 1 or self.is_planar or self.depth > 1:
            return None
        flat, sizes = offsets.reshape(-1), lengths.reshape(-1)
        if (sizes == 0).any() or (flat[:-1] + sizes[:-1] != flat[1:]).any():
            return None
        rows = _rows_of(self.height, self._chunk_height, self.layout.row_bytes)
        if rows is None:
            return None
        cut = ChunkGrid(tuple(Axis(a.size, chunk=rows) if not a.is_regular else a for a in grid.axes))
        length = np.uint64(rows * self.layout.row_bytes)
        starts = flat[0] + np.arange(cut.size, dtype=np.uint64) * length
        return cut, starts.reshape(cut.grid_shape), np.full(cut.grid_shape, length)


def _rows_of(height: int, strip: int, row_bytes: int) -> int | None:
    """Return the number of rows per chunk that divides `height`: the most that make no more than :data:`RECUT` bytes.

    Examples
    --------
    >>> _rows_of(294, 8, 945), _rows_of(10_007, 8, 1 << 20)
    (294, None)
    """
    most = max(RECUT // row_bytes, strip)
    return next((rows for rows in range(min(most, height), strip - 1, -1) if height % rows == 0), None)
