"""The compression algorithms of tile-compressed FITS images: the bytes of one tile to its stored numbers.

RICE_1, PLIO_1 and HCOMPRESS_1 are run by imagecodecs, GZIP_1 and GZIP_2 by zlib. Quantised floats come out as integers;
:mod:`virtualchunks.codecs.fits_dither` makes floats of them.

References
----------
FITS Standard 4.0, section 10.4.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.dependencies import required
from virtualchunks.errors import DecodeError

Block = npt.NDArray[Any]
#: Bytes and number of pixels of a tile, and the algorithm's parameters, to the pixels.
Algorithm = Callable[[bytes, int, Mapping[str, int]], Block]

#: The value of ``wbits`` that makes zlib expect the gzip format.
GZIP_FORMAT = 31
HCOMPRESS_MAGIC = b"\xdd\x99"


def imagecodecs() -> Any:
    """Return the module imagecodecs.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    return required("tile-compressed FITS images need imagecodecs", "fits", "imagecodecs")


def decompress(data: bytes, algorithm: str, count: int, parameters: Mapping[str, int]) -> Block:
    """Return the stored numbers of one tile.

    Parameters
    ----------
    data
        Its bytes.
    algorithm
        A key of :data:`ALGORITHMS`.
    count
        Pixels in the tile.
    parameters
        ``blocksize`` and ``bytepix`` of RICE_1, ``smooth`` of HCOMPRESS_1.

    Returns
    -------
    numpy.ndarray
        One-dimensional. The gzip algorithms and NOCOMPRESS give raw bytes.

    Raises
    ------
    DecodeError
        If the bytes do not decode to so many pixels.
    """
    try:
        return ALGORITHMS[algorithm](data, count, parameters)
    except (RuntimeError, ValueError, zlib.error) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"{len(data)} bytes do not decode with {algorithm} to {count} pixels: {error}") from error


def _rice(data: bytes, count: int, parameters: Mapping[str, int]) -> Block:
    size = parameters.get("bytepix", 4)
    dtype = "u1" if size == 1 else f"i{size}"
    decoded: Block = imagecodecs().rcomp_decode(data, shape=(count,), dtype=dtype, nblock=parameters["blocksize"])
    return decoded


def _plio(data: bytes, count: int, parameters: Mapping[str, int]) -> Block:
    words = np.frombuffer(data, dtype=">i2").astype(np.int16)
    decoded: Block = np.asarray(imagecodecs().plio_decode(words.tobytes(), count))
    return decoded.reshape(-1)


def _hcompress(data: bytes, count: int, parameters: Mapping[str, int]) -> Block:
    shape = np.frombuffer(data[2:10], dtype=">i4").tolist()
    if data[:2] != HCOMPRESS_MAGIC or len(shape) != 2 or min(shape) < 1 or math.prod(shape) != count:
        raise DecodeError(f"not an HCOMPRESS_1 stream of {count} pixels: it begins with {data[:10].hex()}")
    decoded: Block = np.asarray(imagecodecs().hcomp_decode(data, smooth=parameters.get("smooth", 0)))
    return decoded.reshape(-1)


def _gzip(data: bytes, count: int, parameters: Mapping[str, int]) -> Block:
    stream = zlib.decompressobj(GZIP_FORMAT)
    plain = stream.decompress(data, 8 * count + 1)
    if not stream.eof:
        raise DecodeError(f"a gzip stream of {len(data)} bytes is cut short, or holds more than {count} pixels")
    return np.frombuffer(plain, dtype=np.uint8)


def _shuffled_gzip(data: bytes, count: int, parameters: Mapping[str, int]) -> Block:
    plain = _gzip(data, count, parameters)
    if not count or len(plain) % count:
        raise DecodeError(f"{len(plain)} bytes behind GZIP_2 are not {count} pixels")
    return plain.reshape(len(plain) // count, count).T.reshape(-1)


def _plain(data: bytes, count: int, parameters: Mapping[str, int]) -> Block:
    return np.frombuffer(data, dtype=np.uint8)


ALGORITHMS: dict[str, Algorithm] = {
    "RICE_1": _rice,
    "PLIO_1": _plio,
    "HCOMPRESS_1": _hcompress,
    "GZIP_1": _gzip,
    "GZIP_2": _shuffled_gzip,
    "NOCOMPRESS": _plain,
}
#: Algorithms that give raw bytes.
RAW = frozenset({"GZIP_1", "GZIP_2", "NOCOMPRESS"})


def typed(raw: Block, count: int, *, floats: bool) -> Block:
    """Return raw bytes as the big-endian numbers that their size says they are.

    A tile may hold numbers of another size than the image (cfitsio compresses 16-bit images as 32-bit integers), so the
    bytes per pixel decide.

    Raises
    ------
    DecodeError
        If there are not 1, 2, 4 or 8 bytes per pixel.
    """
    size = len(raw) // count if count else 0
    if size * count != len(raw) or size not in (1, 2, 4, 8):
        raise DecodeError(f"a tile of {count} pixels has {len(raw)} bytes, which is not 1, 2, 4 or 8 for each")
    kind = "u" if size == 1 else "f" if floats and size >= 4 else "i"
    return raw.view(f">{kind}{size}")
