"""Decompression that ends at the size that a chunk can have, so that a few bytes cannot fill the memory.

What a compressor is given is known before it is undone: the elements of the chunk, or a little more than these where
another codec made them longer. Deflate, bzip2 and LZMA are stopped while they inflate. LZ4 and Blosc state the size in
front and never write more; so does Zstandard as a rule, and where it does not, the room that it is given ends it, if
that is exact.

References
----------
RFC 1950, zlib; RFC 1952, gzip; RFC 8878, section 3.1.1, Zstandard frames; the header of Blosc 1 chunks, and the one
that numcodecs puts before LZ4 blocks.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

#: What codecs between a compressor and the elements may add to a chunk, in bytes.
SLACK = 64 << 10
#: What decompressors raise that is no error of Python's own.
STREAM_ERRORS = (zlib.error, lzma.LZMAError)
#: Bytes of a chunk whose elements have no fixed size.
MOST_UNKNOWN = 1 << 30
#: Memory that a stream of LZMA may ask for; the largest preset asks for 65 MiB.
MOST_DICTIONARY = 128 << 20

_ZSTANDARD = 0xFD2FB528
_CONTENT_SIZES = (0, 2, 4, 8)
_DICTIONARY_SIZES = (0, 1, 2, 4)


@dataclass(frozen=True)
class Room:
    """How many bytes may come out of a compressor.

    Parameters
    ----------
    most
        No more than these.
    is_exact
        Whether no fewer either.
    """

    most: int
    is_exact: bool = False

    def check(self, stated: int) -> None:
        """Raise where a header states another size.

        Raises
        ------
        ValueError
            Naming both.
        """
        if stated > self.most or (self.is_exact and stated < self.most):
            raise ValueError(f"they state that they decode to {stated} bytes, and {self} fit the chunk")

    def before(self) -> Room:
        """Return the room of what another codec made of bytes that have this one."""
        return Room(self.most + self.most // 8 + SLACK)

    def __str__(self) -> str:
        return str(self.most) if self.is_exact else f"up to {self.most}"


def inflate(data: Any, room: Room, start: Callable[[], Any], *, trailing: bytes | None = b"") -> bytes:
    """Decompress streams that stand one behind the other.

    Parameters
    ----------
    data
        The compressed bytes.
    room
        What may come out.
    start
        Makes the object that decompresses one stream.
    trailing
        Which bytes may stand behind a stream that are not the next one; ``None`` for any.

    Raises
    ------
    ValueError
        If more comes out, or a stream does not end.

    Examples
    --------
    >>> inflate(zlib.compress(bytes(1000)), Room(1000), zlib.decompressobj) == bytes(1000)
    True
    >>> inflate(zlib.compress(bytes(1000)), Room(999), zlib.decompressobj)
    Traceback (most recent call last):
    ValueError: they decode to more than 999 bytes
    """
    parts: list[bytes] = []
    left = room.most
    while True:
        stream = start()
        part = stream.decompress(data, left + 1)
        left -= len(part)
        if left < 0:
            raise ValueError(f"they decode to more than {room.most} bytes")
        if not stream.eof:
            raise ValueError("they end before the compressed stream does")
        parts.append(part)
        data = stream.unused_data if trailing is not None else b""
        if not data.strip(trailing):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def decompressor(name: str, configuration: Mapping[str, Any]) -> Callable[[Any, Room], Any] | None:
    """Return the function that undoes a compressor within a given room; ``None`` for codecs that are none.

    Parameters
    ----------
    name
        Of the codec, in Zarr's metadata.
    configuration
        Its parameters.

    Examples
    --------
    >>> decompressor("zstd", {}) is None, decompressor("bytes", {}) is None
    (False, True)
    """
    make = _MAKERS.get(name)
    return None if make is None else make(configuration)


def _zlib(configuration: Mapping[str, Any]) -> Callable[[Any, Room], bytes]:
    return lambda data, room: inflate(data, room, zlib.decompressobj, trailing=None)


def _gzip(configuration: Mapping[str, Any]) -> Callable[[Any, Room], bytes]:
    return lambda data, room: inflate(data, room, lambda: zlib.decompressobj(31), trailing=b"\0")


def _bzip2(configuration: Mapping[str, Any]) -> Callable[[Any, Room], bytes]:
    return lambda data, room: inflate(data, room, bz2.BZ2Decompressor)


def _lzma(configuration: Mapping[str, Any]) -> Callable[[Any, Room], bytes]:
    form, filters = configuration.get("format", lzma.FORMAT_XZ), configuration.get("filters")
    limit = None if form == lzma.FORMAT_RAW else MOST_DICTIONARY
    return lambda data, room: inflate(data, room, lambda: lzma.LZMADecompressor(form, limit, filters))


def _lz4(configuration: Mapping[str, Any]) -> Callable[[Any, Room], Any]:
    return _stated("lz4", configuration, 0)


def _blosc(configuration: Mapping[str, Any]) -> Callable[[Any, Room], Any]:
    return _stated("blosc", configuration, 4)


def _stated(identifier: str, configuration: Mapping[str, Any], place: int) -> Callable[[Any, Room], Any]:
    """A compressor whose chunks state their size, as four bytes in a fixed place."""
    decode = _numcodecs(identifier, configuration)

    def run(data: Any, room: Room) -> Any:
        view = memoryview(data).cast("B")
        if len(view) < place + 4:
            raise ValueError(f"{len(view)} bytes are too few for a header")
        room.check(int.from_bytes(view[place : place + 4], "little"))
        return decode(data)

    return run


def _zstd(configuration: Mapping[str, Any]) -> Callable[[Any, Room], Any]:
    decode = _numcodecs("zstd", configuration)

    def run(data: Any, room: Room) -> Any:
        stated = _stated_by_zstandard(memoryview(data).cast("B"))
        if stated is not None and stated > room.most:
            room.check(stated)
        if not room.is_exact or not room.most:
            return decode(data)
        inside = decode(data, np.empty(room.most, dtype=np.uint8))  # raises where more comes out
        return inside if stated in (None, room.most) else decode(data)  # frames that are short leave room unfilled

    return run


def _stated_by_zstandard(view: memoryview) -> int | None:
    """The size of what a frame holds; ``None`` where it is not stated, or another kind of frame stands in front."""
    if len(view) < 5 or int.from_bytes(view[:4], "little") != _ZSTANDARD:
        return None
    descriptor = view[4]
    flag, is_single = descriptor >> 6, bool(descriptor & 0x20)
    size = _CONTENT_SIZES[flag] or int(is_single)
    place = 5 + (not is_single) + _DICTIONARY_SIZES[descriptor & 3]
    field = view[place : place + size]
    if not size or len(field) < size:
        return None
    return int.from_bytes(field, "little") + (256 if size == 2 else 0)


def _numcodecs(identifier: str, configuration: Mapping[str, Any]) -> Callable[..., Any]:
    import numcodecs

    decode: Callable[..., Any] = numcodecs.get_codec({**configuration, "id": identifier}).decode
    return decode


_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Callable[[Any, Room], Any]]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "blosc": _blosc,
    "numcodecs.gzip": _gzip,
    "numcodecs.zlib": _zlib,
    "numcodecs.zstd": _zstd,
    "numcodecs.blosc": _blosc,
    "numcodecs.lz4": _lz4,
    "numcodecs.lzma": _lzma,
    "numcodecs.bz2": _bzip2,
}
