"""Rows of bytes to samples: unpacking, byte order and predictors of TIFF, and the dtypes of its samples.

A row of bytes is what a decompressor returns for one row of pixels; which decompressor that is, and how many rows there
are, is the business of :mod:`virtualchunks.codecs.tiff_chunk`.

References
----------
TIFF 6.0 specification, sections 14 (predictor) and 19 (data sample format); Adobe Photoshop TIFF Technical Note 3
(floating-point predictor, 16 and 24-bit floats).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import UnsupportedFeatureError

if TYPE_CHECKING:
    from virtualchunks.codecs.tiff_chunk import SampleLayout

Block = npt.NDArray[Any]

#: Values of the field SampleFormat (section 19).
UNSIGNED, SIGNED, FLOAT, VOID, COMPLEX_INT, COMPLEX = 1, 2, 3, 4, 5, 6
#: Values of the field Predictor.
NO_PREDICTOR, HORIZONTAL, FLOATING_POINT = 1, 2, 3

#: dtypes by sample format and bits. Signed integers of other sizes are refused: readers disagree on their sign.
_OTHERS: Mapping[int, Mapping[int, str]] = {
    SIGNED: {8: "i1", 16: "i2", 32: "i4", 64: "i8"},
    FLOAT: {16: "f2", 24: "f4", 32: "f4", 64: "f8"},
    COMPLEX_INT: {16: "c8", 32: "c8", 64: "c16"},
    COMPLEX: {32: "c8", 64: "c8", 128: "c16"},
}


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
    if sample_format in (UNSIGNED, VOID) and 1 <= bits <= 64:
        size = next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
        return np.dtype("?" if bits == 1 else f"u{size}")
    code = _OTHERS.get(sample_format, {}).get(bits)
    if code is None:
        raise UnsupportedFeatureError(f"samples of {bits} bits in the sample format {sample_format}")
    return np.dtype(code)


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
    unsigned = np.dtype(f"u{layout.dtype.itemsize}")
    out = np.zeros((len(table), per_row), dtype=unsigned)
    first = np.arange(per_row, dtype=np.int64) * bits
    for bit in range(bits):
        place = first + bit
        out <<= unsigned.type(1)
        out |= (table[:, place >> 3] >> (7 - (place & 7)).astype(np.uint8)) & np.uint8(1)
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
    return _widen24(parts)


def _widen24(parts: npt.NDArray[np.uint32]) -> Block:
    """Floats of 24 bits, given as three bytes each, the most significant first, as floats of 32."""
    word = (parts[..., 0] << 16) | (parts[..., 1] << 8) | parts[..., 2]
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
        return _widen24(parts)
    return samples.view(layout.dtype.newbyteorder(">")).astype(layout.dtype)


PREDICTORS: Mapping[int, Callable[[SampleLayout, Block], Block]] = {
    NO_PREDICTOR: _unpacked,
    HORIZONTAL: _horizontal,
    FLOATING_POINT: _floating_point,
}
