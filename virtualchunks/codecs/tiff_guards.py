"""Checks of image headers within strips and tiles: how large an image a decoder is about to make.

An image format says itself how large it is, and its decoder allocates what it says. A header that claims far more than
the strip or tile holds is refused here, before a decoder sees it. Damage behind the header is the decoder's own affair.

References
----------
ITU-T T.81 (JPEG), section B.2.2; ITU-T T.800 (JPEG 2000), section A.5.1; RFC 9649 (WebP); the PNG specification,
section 11.2.2; the LERC2 header as Esri's reference implementation writes it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from virtualchunks.errors import DecodeError

#: By how much an image may exceed what is expected: codecs pad to whole blocks, writers pad the last strip.
SLACK = 4
LEAST = 16 << 20

#: Bytes of a sample, by the number of its type in the header of LERC.
LERC_SIZES = (1, 1, 2, 2, 4, 4, 4, 8)
#: Markers of JPEG that are followed by the size of the image: SOF0 to SOF15, without DHT, JPG and DAC.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def check_image(compression: int, data: Any, expected: int) -> None:
    """Raise DecodeError if an image claims to be much larger than expected.

    Parameters
    ----------
    compression
        The TIFF field Compression, which says what kind of image it is.
    data
        Its bytes.
    expected
        Bytes that its samples should take.

    Raises
    ------
    DecodeError
        If they would take far more, or the header cannot be read.
    """
    measure = MEASURES.get(compression)
    if measure is None:
        return
    try:
        claimed = measure(bytes(data))
    except (struct.error, IndexError, ValueError) as error:
        raise DecodeError(f"the header of the image in the chunk is damaged: {error}") from error
    if claimed > max(SLACK * expected, LEAST):
        raise DecodeError(f"the image in the chunk claims to take {claimed} bytes, expected about {expected}")


def _jpeg(data: bytes) -> int:
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            at += 1
            continue
        marker = data[at + 1]
        if marker in _SOF:
            precision, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            return int(height * width * components * (1 if precision <= 8 else 2))
        if marker == 0xFF or marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise ValueError("no frame header in JPEG data")


def _jpeg2000(data: bytes) -> int:
    at = data.index(b"\xff\x4f\xff\x51")
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    components: int = struct.unpack_from(">H", data, at + 40)[0]
    depth = max(data[at + 42 : at + 42 + 3 * components : 3], default=7) & 0x7F
    return int(max(0, right - left) * max(0, bottom - top) * components * (depth // 8 + 1))


def _webp(data: bytes) -> int:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        word: int = struct.unpack_from("<I", data, 21)[0]
        width, height = (word & 0x3FFF) + 1, (word >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (size & 0x3FFF for size in struct.unpack_from("<2H", data, 26))
    else:
        raise ValueError("no WebP data")
    return width * height * 4


def _png(data: bytes) -> int:
    width, height = struct.unpack_from(">2I", data, 16)
    return int(width) * int(height) * 8


def _lerc(data: bytes) -> int:
    if not data.startswith(b"Lerc2 "):
        raise ValueError("no LERC2 data")
    version: int = struct.unpack_from("<i", data, 6)[0]
    at = 14 if version >= 3 else 10
    rows, columns = struct.unpack_from("<2i", data, at)
    depth = struct.unpack_from("<i", data, at + 8)[0] if version >= 4 else 1
    kind = struct.unpack_from("<i", data, at + (24 if version >= 4 else 20))[0]
    if min(rows, columns, depth) <= 0 or not 0 <= kind < len(LERC_SIZES):
        raise ValueError("a LERC image without pixels, or of an unknown type")
    return int(rows) * int(columns) * int(depth) * LERC_SIZES[kind]


MEASURES: Mapping[int, Callable[[bytes], int]] = {
    7: _jpeg,
    34892: _jpeg,
    33003: _jpeg2000,
    33004: _jpeg2000,
    33005: _jpeg2000,
    34712: _jpeg2000,
    34887: _lerc,
    34927: _webp,
    34933: _png,
    50001: _webp,
}
