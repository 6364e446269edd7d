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
from virtualchunks.codecs.tiff_samples import (
    COMPLEX,
    FLOAT,
    FLOATING_POINT,
    HORIZONTAL,
    NO_PREDICTOR,
    PREDICTORS,
    SIGNED,
    UNSIGNED,
    VOID,
    sample_dtype,
)
from virtualchunks.dependencies import required
from virtualchunks.errors import DecodeError, FormatError, MissingDependencyError, UnsupportedFeatureError

if TYPE_CHECKING:
    from types import ModuleType

Block = npt.NDArray[Any]

#: The chunk of most samples that is decoded.
LARGEST = 1 << 32

#: What decompressors raise on damaged data. imagecodecs has one error per library, each a RuntimeError.
DAMAGE = (ValueError, RuntimeError, TypeError, OSError, EOFError, OverflowError, zlib.error, lzma.LZMAError)


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
    >>> layout.decode(bytes([0x12, 0x34, 0x56]), 2).tolist()
    [291, 1110]
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
        if any(type(number) is not int for number in numbers):
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
    library: ModuleType = required("decoding this TIFF compression needs imagecodecs", "tiff", "imagecodecs")
    return library
