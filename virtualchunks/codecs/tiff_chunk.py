"""The bytes of a strip or tile of a TIFF file to its samples: decompress, order bits, unpack, undo the predictor.

Everything works on the samples of a chunk row after row, whatever the shape of the array: a row is `width` pixels of
`samples` samples each. Decompressors are called with the size that is expected, so that a damaged chunk cannot ask for
more memory than its samples take.

How Zarr calls this is the business of :mod:`virtualchunks.codecs.tiff`.

References
----------
TIFF 6.0 specification: sections 9 and 13 to 15 (compression), 14 (predictor); Adobe Photoshop TIFF Technical Note 3
(floating-point predictor).
"""

from __future__ import annotations

import base64
import functools
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from virtualchunks.codecs.tiff_guards import check_image
from virtualchunks.errors import DecodeError, FormatError, MissingDependencyError, UnsupportedFeatureError

if TYPE_CHECKING:
    from types import ModuleType

Block = npt.NDArray[Any]

#: Values of the field SampleFormat (section 19).
UNSIGNED, SIGNED, FLOAT, VOID, COMPLEX_INT, COMPLEX = 1, 2, 3, 4, 5, 6
#: Values of the field Predictor.
NO_PREDICTOR, HORIZONTAL, FLOATING_POINT = 1, 2, 3
#: The chunk of most samples that is decoded.
LARGEST = 1 << 32

#: What decompressors raise on damaged data. imagecodecs has one error per library, each a RuntimeError.
DAMAGE = (ValueError, RuntimeError, TypeError, OSError, EOFError, OverflowError, zlib.error, lzma.LZMAError)

_FLOATS = {16: "f2", 24: "f4", 32: "f4", 64: "f8"}
_COMPLEX = {32: "c8", 64: "c8", 128: "c16"}
_COMPLEX_INTS = {16: "c8", 32: "c8", 64: "c16"}


def sample_dtype(sample_format: int, bits: int) -> np.dtype[Any]:
    """Return the native dtype of samples of a format and a number of bits.

    Raises
    ------
    UnsupportedFeatureError
        If there is none.

    Examples
    --------
    >>> sample_dtype(UNSIGNED, 1), sample_dtype(UNSIGNED, 12), sample_dtype(COMPLEX_INT, 32)
    (dtype('bool'), dtype('uint16'), dtype('complex64'))
    """
    code = None
    if sample_format in (UNSIGNED, VOID, SIGNED) and 1 <= bits <= 64:
        size = next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
        code = f"i{size}" if sample_format == SIGNED else "?" if bits == 1 else f"u{size}"
    tables = {FLOAT: _FLOATS, COMPLEX: _COMPLEX, COMPLEX_INT: _COMPLEX_INTS}
    code = code or tables.get(sample_format, {}).get(bits)
    if code is None:
        raise UnsupportedFeatureError(f"samples of {bits} bits in the sample format {sample_format}")
    return np.dtype(code)


@dataclass(frozen=True, kw_only=True)
class SampleLayout:
    """How the samples of a strip or tile are stored, in the terms of the TIFF fields.

    Parameters
    ----------
    compression
        The field Compression.
    bits, sample_format
        The fields BitsPerSample, alike for all samples, and SampleFormat.
    width, samples
        Pixels of a row of the strip or tile, and samples of a pixel that are stored together.
    endian
        ``"little"`` or ``"big"``.
    predictor, fill_order
        The fields of these names.
    photometric
        The field PhotometricInterpretation, for JPEG; ``None`` where there are extra samples.
    tables
        The field JPEGTables in base64, for JPEG.
    options
        The field T4Options, for CCITT group 3; the additional compression of LercParameters, for LERC.

    Examples
    --------
    >>> layout = SampleLayout(compression=1, bits=12, sample_format=1, width=2, samples=1, endian="little")
    >>> layout.decode(bytes([0x12, 0x34, 0x56]), 2)
    array([291, 1110], dtype=uint16)
    """

    compression: int
    bits: int
    sample_format: int
    width: int
    samples: int
    endian: str
    predictor: int = NO_PREDICTOR
    fill_order: int = 1
    photometric: int | None = None
    tables: str | None = None
    options: int = 0

    def __post_init__(self) -> None:
        numbers = (self.compression, self.bits, self.sample_format, self.width, self.samples, self.options)
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            raise FormatError(f"a layout of samples needs integers, got {numbers}")
        if not (0 < self.width < 1 << 31 and 0 < self.samples < 1 << 16) or self.endian not in ("little", "big"):
            raise FormatError(f"no samples have the width {self.width}, {self.samples} per pixel, {self.endian!r}")
        if self.fill_order not in (1, 2):
            raise FormatError(f"the fill order of bits is 1 or 2, not {self.fill_order}")
        check_supported(self)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native dtype of the samples."""
        return sample_dtype(self.sample_format, self.bits)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, each of which begins with a byte of its own."""
        return -(-self.width * self.samples * self.bits // 8)

    @functools.cached_property
    def jpeg_tables(self) -> bytes | None:
        """The JPEG tables themselves."""
        return None if self.tables is None else base64.b64decode(self.tables, validate=True)

    def decode(self, data: Any, count: int) -> Block:
        """Return the samples of a chunk.

        Parameters
        ----------
        data
            Its bytes.
        count
            How many samples it must hold; more are cut off.

        Returns
        -------
        numpy.ndarray
            One-dimensional, in native byte order.

        Raises
        ------
        DecodeError
            If the bytes hold fewer, or are damaged.
        """
        per_row = self.width * self.samples
        if count % per_row or count > LARGEST:
            raise DecodeError(f"a chunk of {count} samples does not consist of rows of {per_row}")
        try:
            samples = self._decode(memoryview(data).cast("B"), count // per_row)
        except DAMAGE as error:
            if isinstance(error, DecodeError | UnsupportedFeatureError | MissingDependencyError):
                raise
            raise DecodeError(f"the chunk does not decode with TIFF compression {self.compression}: {error}") from error
        if samples.size < count or samples.dtype != self.dtype:
            raise DecodeError(
                f"the chunk decodes to {samples.size} samples of {samples.dtype}; expected {count} of {self.dtype}"
            )
        return samples[:count]

    def _decode(self, data: memoryview, rows: int) -> Block:
        image = IMAGES.get(self.compression)
        if image is not None:
            return _cropped(image(self, data, rows), rows, self)
        if self.fill_order == 2:
            data = memoryview(_reversed_bits()[np.frombuffer(data, dtype=np.uint8)]).cast("B")
        raw = STREAMS[self.compression](self, data, rows * self.row_bytes)
        if isinstance(raw, np.ndarray):
            return raw.reshape(-1)
        if len(raw) < rows * self.row_bytes:
            raise DecodeError(f"the chunk holds {len(raw)} bytes of samples, expected {rows * self.row_bytes}")
        table = np.frombuffer(raw, dtype=np.uint8, count=rows * self.row_bytes).reshape(rows, self.row_bytes)
        return PREDICTORS[self.predictor](self, table).reshape(-1)


# ------------------------------------------------------------------------------------------------ bytes to bytes


def _stored(layout: SampleLayout, data: memoryview, size: int) -> bytes | Block:
    return bytes(data)


def _deflate(layout: SampleLayout, data: memoryview, size: int) -> bytes:
    return zlib.decompressobj().decompress(data, size)


def _lzma(layout: SampleLayout, data: memoryview, size: int) -> bytes:
    return lzma.LZMADecompressor(memlimit=1 << 30).decompress(data, size)


def _lzw(layout: SampleLayout, data: memoryview, size: int) -> bytes:
    return bytes(imagecodecs().lzw_decode(data, out=size))


def _packbits(layout: SampleLayout, data: memoryview, size: int) -> bytes:
    # PackBits makes at most 128 bytes of 2, so this bound costs little and lets chunks be longer than they should
    return bytes(imagecodecs().packbits_decode(data, out=min(64 * len(data) + 128, size + (64 << 10))))


def _zstd(layout: SampleLayout, data: memoryview, size: int) -> bytes:
    return bytes(imagecodecs().zstd_decode(data, out=size + (64 << 10)))


def _lerc(layout: SampleLayout, data: memoryview, size: int) -> Block:
    """LERC, which deflate or zstd may have compressed once more. Pixels that are masked out have no value: NaN."""
    extra = {0: _stored, 1: _deflate, 2: _zstd}.get(layout.options)
    if extra is None:
        raise DecodeError(f"unknown additional compression {layout.options} of LERC")
    blob = extra(layout, data, 2 * size + (64 << 10))
    check_image(layout.compression, blob, size)
    image, masks = imagecodecs().lerc_decode(blob, masks=True)
    if masks is not None and image.dtype.kind == "f" and not np.all(masks):
        valid = np.broadcast_to(np.reshape(masks, masks.shape + (1,) * (image.ndim - masks.ndim)), image.shape)
        image = np.where(valid.astype(bool), image, np.nan).astype(image.dtype)
    return np.asarray(image)


STREAMS: Mapping[int, Callable[[SampleLayout, memoryview, int], bytes | Block]] = {
    1: _stored,
    5: _lzw,
    8: _deflate,
    32773: _packbits,
    32946: _deflate,
    34887: _lerc,
    34925: _lzma,
    34926: _zstd,
    50000: _zstd,
    50013: _deflate,
}

# ------------------------------------------------------------------------------------------------ bytes to pixels


def _ccitt_rle(layout: SampleLayout, data: memoryview, rows: int) -> Block:
    return np.asarray(imagecodecs().ccittrle_decode(_msb_first(layout, data), rows, layout.width))


def _ccitt_fax3(layout: SampleLayout, data: memoryview, rows: int) -> Block:
    decode = imagecodecs().ccittfax3_decode
    return np.asarray(decode(_msb_first(layout, data), rows, layout.width, t4options=layout.options))


def _ccitt_fax4(layout: SampleLayout, data: memoryview, rows: int) -> Block:
    return np.asarray(imagecodecs().ccittfax4_decode(_msb_first(layout, data), rows, layout.width))


def _msb_first(layout: SampleLayout, data: memoryview) -> bytes:
    raw = np.frombuffer(data, dtype=np.uint8)
    return (raw if layout.fill_order == 1 else _reversed_bits()[raw]).tobytes()


def _jpeg(layout: SampleLayout, data: memoryview, rows: int) -> Block:
    """JPEG; YCbCr is returned as RGB, and every other colour space as it is stored."""
    space, out = _jpeg_spaces(layout, data)
    check_image(layout.compression, data, rows * layout.width * layout.samples * 2)
    library = imagecodecs()
    try:
        image = library.jpeg_decode(
            bytes(data), tables=layout.jpeg_tables, colorspace=space, outcolorspace=out, shape=(rows, layout.width)
        )
    except RuntimeError as error:
        if not any(reason in str(error) for reason in ("precision", "SOF type", "color conversion", "Huffman table")):
            raise
        image = library.ljpeg_decode(bytes(data))
    return np.asarray(image)


def _jpeg_spaces(layout: SampleLayout, data: memoryview) -> tuple[str | None, str | None]:
    """Return the colour space of the JPEG data and the one wanted; ``None`` leaves either to the JPEG library.

    Without a JFIF marker, the library takes three components for YCbCr; the TIFF field knows better.
    """
    if layout.samples == 1:
        return None, "GRAYSCALE"
    if layout.photometric == 2:
        return (None if bytes(data[6:10]) == b"JFIF" else "RGB"), "RGB"
    return None, {5: "CMYK", 6: "RGB"}.get(layout.photometric or 0)


def _jpeg2000(layout: SampleLayout, data: memoryview, rows: int) -> Block:
    check_image(layout.compression, data, _nbytes(layout, rows))
    return np.asarray(imagecodecs().jpeg2k_decode(bytes(data)))


def _webp(layout: SampleLayout, data: memoryview, rows: int) -> Block:
    check_image(layout.compression, data, _nbytes(layout, rows))
    return np.asarray(imagecodecs().webp_decode(bytes(data), hasalpha=layout.samples == 4))


def _png(layout: SampleLayout, data: memoryview, rows: int) -> Block:
    check_image(layout.compression, data, _nbytes(layout, rows))
    return np.asarray(imagecodecs().png_decode(bytes(data)))


def _jpegxl(layout: SampleLayout, data: memoryview, rows: int) -> Block:
    return np.asarray(imagecodecs().jpegxl_decode(bytes(data)))


def _jpegxr(layout: SampleLayout, data: memoryview, rows: int) -> Block:
    return np.asarray(imagecodecs().jpegxr_decode(bytes(data)))


IMAGES: Mapping[int, Callable[[SampleLayout, memoryview, int], Block]] = {
    2: _ccitt_rle,
    3: _ccitt_fax3,
    4: _ccitt_fax4,
    7: _jpeg,
    22610: _jpegxr,
    33003: _jpeg2000,
    33004: _jpeg2000,
    33005: _jpeg2000,
    34712: _jpeg2000,
    34892: _jpeg,
    34927: _webp,
    34933: _png,
    34934: _jpegxr,
    50001: _webp,
    50002: _jpegxl,
    52546: _jpegxl,
}


def _nbytes(layout: SampleLayout, rows: int) -> int:
    return rows * layout.width * layout.samples * layout.dtype.itemsize


def _cropped(image: Block, rows: int, layout: SampleLayout) -> Block:
    """Return the samples of a decoded image that may have more rows than its strip, or end where the array does."""
    pixels = image if image.ndim == 3 else image.reshape(*image.shape[:2], 1)
    height, width, samples = pixels.shape
    if samples != layout.samples or width > layout.width or (width < layout.width and height > rows):
        raise DecodeError(
            f"the chunk decodes to an image of shape {image.shape}; expected {rows} rows of {layout.width} pixels with "
            f"{layout.samples} samples"
        )
    if height < rows or width < layout.width:
        whole = np.zeros((rows, layout.width, samples), dtype=pixels.dtype)
        whole[:height, :width] = pixels[:rows]
        pixels = whole
    flat = pixels[:rows].reshape(-1)
    return flat.astype(layout.dtype) if flat.dtype.kind in "bu" and layout.dtype.kind in "bu" else flat


# ------------------------------------------------------------------------------------- rows of bytes to samples


def _unpacked(layout: SampleLayout, table: Block) -> Block:
    """Samples without a predictor, row by row."""
    unpack = _UNPACK.get((layout.sample_format, layout.bits))
    if unpack is not None:
        return unpack(layout, table)
    if layout.bits in (8, 16, 32, 64, 128):
        stored = layout.dtype.newbyteorder("<" if layout.endian == "little" else ">")
        return table.view(stored).astype(layout.dtype, copy=False)
    return _unpack_bits(layout, table)


def _unpack_bits(layout: SampleLayout, table: Block) -> Block:
    """Integers of any number of bits, the most significant bit first, whatever the byte order of the file."""
    per_row, bits = layout.width * layout.samples, layout.bits
    size = layout.dtype.itemsize
    unsigned = np.dtype(f"u{size}")
    out = np.zeros((len(table), per_row), dtype=unsigned)
    first = np.arange(per_row, dtype=np.int64) * bits
    for bit in range(bits):
        place = first + bit
        out <<= unsigned.type(1)
        out |= (table[:, place >> 3] >> (7 - (place & 7)).astype(np.uint8)) & np.uint8(1)
    if layout.sample_format == SIGNED:
        shift = np.array(8 * size - bits, dtype=unsigned)
        return (out << shift).view(layout.dtype) >> shift.astype(layout.dtype)
    return out.astype(layout.dtype)


def _complex_integers(layout: SampleLayout, table: Block) -> Block:
    order = "<" if layout.endian == "little" else ">"
    pairs = table.view(f"{order}i{layout.bits // 16}")
    return pairs.astype(f"f{layout.dtype.itemsize // 2}").view(layout.dtype)


def _complex_halves(layout: SampleLayout, table: Block) -> Block:
    return table.view("<f2" if layout.endian == "little" else ">f2").astype("f4").view(layout.dtype)


def _float24(layout: SampleLayout, table: Block) -> Block:
    """One bit of sign, 7 of exponent (bias 63), 16 of fraction."""
    parts = table.reshape(len(table), -1, 3).astype(np.uint32)
    if layout.endian == "little":
        parts = parts[..., ::-1]
    return _widen24(parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2])


def _widen24(word: npt.NDArray[np.uint32]) -> Block:
    sign, exponent, fraction = word >> 23, (word >> 16) & 0x7F, word & 0xFFFF
    single = (sign << 31 | (exponent + 64) << 23 | fraction << 7).astype(np.uint32)
    special = (sign << 31 | 0xFF << 23 | fraction << 7).astype(np.uint32)
    tiny = np.where(sign == 1, -1.0, 1.0) * fraction.astype("f4") * 2.0**-78
    wide = np.where(exponent == 0x7F, special, single).astype(np.uint32).view("f4")
    return np.where(exponent == 0, tiny.astype("f4"), wide)


_UNPACK: Mapping[tuple[int, int], Callable[[SampleLayout, Block], Block]] = {
    (COMPLEX_INT, 16): _complex_integers,
    (COMPLEX_INT, 32): _complex_integers,
    (COMPLEX_INT, 64): _complex_integers,
    (COMPLEX, 32): _complex_halves,
    (FLOAT, 24): _float24,
}


def _horizontal(layout: SampleLayout, table: Block) -> Block:
    """Each sample is stored as its difference to the same sample of the pixel before, modulo two to the bits."""
    order = "<" if layout.endian == "little" else ">"
    words = table.view(f"{order}u{layout.bits // 8}").reshape(len(table), layout.width, layout.samples)
    native = words.dtype.newbyteorder("=")
    return np.cumsum(words, axis=1, dtype=native).reshape(len(table), -1).view(layout.dtype)


def _floating_point(layout: SampleLayout, table: Block) -> Block:
    """The bytes of a row's samples are sorted by significance, then stored as differences to the pixel before."""
    size = layout.bits // 8
    summed = np.cumsum(table.reshape(len(table), -1, layout.samples), axis=1, dtype=np.uint8)
    planes = summed.reshape(len(table), size, layout.width * layout.samples)
    samples = np.ascontiguousarray(planes.transpose(0, 2, 1))
    if layout.bits == 24:
        parts = samples.astype(np.uint32)
        return _widen24(parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2])
    return samples.view(layout.dtype.newbyteorder(">")).astype(layout.dtype)


PREDICTORS: Mapping[int, Callable[[SampleLayout, Block], Block]] = {
    NO_PREDICTOR: _unpacked,
    HORIZONTAL: _horizontal,
    FLOATING_POINT: _floating_point,
}

#: Compressions that a predictor goes with.
PREDICTED = frozenset({5, 8, 32946, 34925, 34926, 50000, 50013})


def check_supported(layout: SampleLayout) -> None:
    """Raise UnsupportedFeatureError for a combination of fields that is not decoded, naming it."""
    sample_dtype(layout.sample_format, layout.bits)
    if layout.compression not in STREAMS and layout.compression not in IMAGES:
        known = sorted({*STREAMS, *IMAGES})
        raise UnsupportedFeatureError(f"unknown compression {layout.compression}; known are {known}")
    if layout.compression in IMAGES or layout.predictor == NO_PREDICTOR:
        return
    if layout.predictor not in PREDICTORS:
        raise UnsupportedFeatureError(f"unknown predictor {layout.predictor}")
    if layout.compression not in PREDICTED:
        raise UnsupportedFeatureError(
            f"predictor {layout.predictor} with compression {layout.compression}, on which readers disagree"
        )
    if layout.predictor == FLOATING_POINT and layout.sample_format != FLOAT:
        raise UnsupportedFeatureError("the floating-point predictor on samples that are not floats")
    if layout.predictor == HORIZONTAL and (
        layout.bits not in (8, 16, 32, 64) or layout.sample_format not in (UNSIGNED, SIGNED, FLOAT, VOID, COMPLEX)
    ):
        raise UnsupportedFeatureError(f"horizontal differencing of samples of {layout.bits} bits")


@functools.cache
def _reversed_bits() -> npt.NDArray[np.uint8]:
    """Each byte with its bits in reverse order."""
    return np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)[:, ::-1], axis=1).reshape(-1)


@functools.cache
def imagecodecs() -> ModuleType:
    """Return the library that decompresses what Python cannot.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import imagecodecs as library
    except ImportError as error:
        raise MissingDependencyError(
            "decoding this TIFF compression needs imagecodecs: pip install 'virtualchunks[tiff]'"
        ) from error
    return library
