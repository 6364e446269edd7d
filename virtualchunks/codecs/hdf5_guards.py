"""Checks that a chunk is long enough for what an HDF5 filter will read of it.

Some filters trust the lengths they find in a chunk, or the length they compute, and read past its end where it was cut
or altered: wrong numbers at best, the end of the process at worst. The checks here follow the framing of those formats
and run before the filter does. Decoding is the filters' own affair; damage within a frame they have to find themselves.
szip, zfp, SZ, SZ3 and SPERR have no framing that could be checked without decoding.

References
----------
HDF5 library (``H5Znbit.c``, ``H5Zscaleoffset.c``); the HDF5 framings of LZ4 and bitshuffle as documented by their
projects.
"""

from __future__ import annotations

import bz2
import struct
from collections.abc import Callable, Sequence

FLETCHER32, NBIT, SCALEOFFSET, BZIP2, BLOSC, LZ4, BITSHUFFLE = 3, 5, 6, 307, 32001, 32004, 32008

#: What a damaged chunk, or parameters that no filter would have written, lead to.
DAMAGE = (struct.error, ValueError, IndexError, ZeroDivisionError, OSError, RecursionError)


def is_whole(identifier: int, values: Sequence[int], data: bytes) -> bool:
    """Return whether `data` is long enough for the filter `identifier` with its parameters `values`.

    Filters without a check pass.

    Examples
    --------
    >>> is_whole(LZ4, [], struct.pack(">QII4s", 4, 4, 4, b"data"))
    True
    >>> is_whole(LZ4, [], struct.pack(">QII2s", 4, 4, 4, b"da"))
    False
    """
    check = GUARDS.get(identifier)
    if check is None:
        return True
    try:
        return check(values, data)
    except DAMAGE:
        return False


def _fletcher32(values: Sequence[int], data: bytes) -> bool:
    """The filter takes the checksum, four bytes, off whatever it is given."""
    return len(data) > 4


def _nbit(values: Sequence[int], data: bytes) -> bool:
    """``values``: their number, whether nothing was packed, number of elements, and the type, member by member."""
    if values[1]:
        return True
    bits, _ = _nbit_bits(values, 3)
    return len(data) * 8 >= bits * values[2]


def _nbit_bits(values: Sequence[int], at: int) -> tuple[int, int]:
    """Return how many bits an element of the type at position `at` takes, and the position behind the type."""
    kind, size = values[at], values[at + 1]
    if kind == 1:  # atomic: size, byte order, precision, offset
        return values[at + 3], at + 5
    if kind == 2:  # array: size, type of its elements
        bits, end = _nbit_bits(values, at + 2)
        return bits * (size // values[at + 3]), end
    if kind == 3:  # compound: size, number of members; offset and type of each
        total, end = 0, at + 3
        for _ in range(values[at + 2]):
            bits, end = _nbit_bits(values, end + 1)
            total += bits
        return total, end
    return 8 * size, at + 2


def _scaleoffset(values: Sequence[int], data: bytes) -> bool:
    """Chunk: bits per element (4 bytes), the minimum (17 bytes), then the bits of all elements."""
    method, factor, count, _, size = values[:5]
    if method == 2 and factor == 8 * size:  # integers left as they were
        return True
    bits: int = struct.unpack_from("<I", data)[0]
    return bits <= 8 * size and len(data) >= 21 + -(-bits * count // 8)


def _bzip2(values: Sequence[int], data: bytes) -> bool:
    """The filter waits for ever for the rest of a truncated stream."""
    stream = bz2.BZ2Decompressor()
    stream.decompress(data)
    return stream.eof


def _blosc(values: Sequence[int], data: bytes) -> bool:
    """Chunk: four bytes, then decoded size, block size, encoded size."""
    encoded: int = struct.unpack_from("<I", data, 12)[0]
    return encoded <= len(data)


def _lz4(values: Sequence[int], data: bytes) -> bool:
    """Chunk: decoded size, size of a block; then blocks, each behind its encoded size. All of it big-endian."""
    total, block = struct.unpack_from(">QI", data)
    return _has_blocks(data, -(-total // min(block, total)), 0)


def _bitshuffle(values: Sequence[int], data: bytes) -> bool:
    """Framed as LZ4 is; blocks hold multiples of eight elements, and up to seven elements follow as they are."""
    element, compressor = values[2], values[4] if len(values) > 4 else 0
    if compressor == 0:
        return True
    total, block = struct.unpack_from(">QI", data)
    if total % element or block % (8 * element):
        return False
    left_over = total // element % 8 * element
    return _has_blocks(data, -(-(total - left_over) // block), left_over)


def _has_blocks(data: bytes, count: int, trailer: int) -> bool:
    """Return whether `count` blocks, each behind four bytes with its length, and `trailer` bytes fit into `data`."""
    position = 12
    for _ in range(min(count, len(data))):
        (length,) = struct.unpack_from(">I", data, position)
        position += 4 + length
    return position + trailer <= len(data)


GUARDS: dict[int, Callable[[Sequence[int], bytes], bool]] = {
    FLETCHER32: _fletcher32,
    NBIT: _nbit,
    SCALEOFFSET: _scaleoffset,
    BZIP2: _bzip2,
    BLOSC: _blosc,
    LZ4: _lz4,
    BITSHUFFLE: _bitshuffle,
}
