"""The checksums of version 2 structures: Bob Jenkins' lookup3.

numcodecs computes it in native code where it is installed, as it is with the extra ``hdf5``; a checksum in Python of a
few kilobytes would take longer than all else, so without numcodecs only structures of up to 1 KiB are verified.

References
----------
HDF5 File Format Specification, version 3.0, section I.C, "Conventions"; https://burtleburtle.net/bob/c/lookup3.c.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from virtualchunks.errors import FormatError

#: Longer structures are not verified by :func:`lookup3`.
MOST_BYTES = 1024
_MASK = 0xFFFFFFFF


def verify(structure: bytes, what: str, address: int, url: str) -> None:
    """Raise unless the last four bytes of a structure are the checksum of those before them.

    Raises
    ------
    FormatError
        If they are not: the file is corrupt.
    """
    recorded = int.from_bytes(structure[-4:], "little")
    found = _checksum(structure[:-4])
    if found is not None and found != recorded:
        raise FormatError(
            f"{what} at address {address} has the checksum {found:08x} and not {recorded:08x}: the file is corrupt",
            url=url,
        )


def lookup3(data: bytes) -> int:
    """Return the checksum of some bytes.

    Examples
    --------
    >>> f"{lookup3(b'Four score and seven years ago'):08x}"
    '17770551'
    """
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c
    padded = data + bytes(-len(data) % 12)
    words = memoryview(padded).cast("I") if _LITTLE else _words(padded)
    for at in range(0, len(words) - 3, 3):
        a, b, c = (a + words[at]) & _MASK, (b + words[at + 1]) & _MASK, (c + words[at + 2]) & _MASK
        a, b, c = _mix(a, b, c)
    a, b, c = (a + words[-3]) & _MASK, (b + words[-2]) & _MASK, (c + words[-1]) & _MASK
    return _final(a, b, c)


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for shifts in ((4, 6, 8), (16, 19, 4)):
        a = (a - c & _MASK) ^ _rotated(c, shifts[0])
        c = c + b & _MASK
        b = (b - a & _MASK) ^ _rotated(a, shifts[1])
        a = a + c & _MASK
        c = (c - b & _MASK) ^ _rotated(b, shifts[2])
        b = b + a & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _rotated(b, 14) & _MASK
    a = (a ^ c) - _rotated(c, 11) & _MASK
    b = (b ^ a) - _rotated(a, 25) & _MASK
    c = (c ^ b) - _rotated(b, 16) & _MASK
    a = (a ^ c) - _rotated(c, 4) & _MASK
    b = (b ^ a) - _rotated(a, 14) & _MASK
    return (c ^ b) - _rotated(b, 24) & _MASK


def _rotated(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & _MASK


def _words(padded: bytes) -> list[int]:
    return [int.from_bytes(padded[at : at + 4], "little") for at in range(0, len(padded), 4)]


def _short(data: bytes) -> int | None:
    return lookup3(data) if len(data) <= MOST_BYTES else None


def _best() -> Callable[[bytes], int | None]:
    """The checksum in native code, where there is one that computes it."""
    try:
        from numcodecs.checksum32 import jenkins_lookup3
    except ImportError:
        return _short

    def native(data: bytes) -> int:
        return int(jenkins_lookup3(data, 0))

    return native


_LITTLE = sys.byteorder == "little"
_checksum = _best()
