"""Reading the fields of one structure of an HDF5 file, one after the other, never past its end."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from struct import Struct
from typing import TYPE_CHECKING, Any, Concatenate

from virtualchunks.errors import FormatError

if TYPE_CHECKING:
    from virtualchunks_parsers.hdf5.format.content import Sizes

#: Bodies up to this many bytes are decoded once; the files of an archive share most of theirs.
MOST_CACHED = 4096
#: How many different ones are kept, of each kind.
MOST_BODIES = 4096


class Fields:
    """The bytes of a structure, and how far they are read.

    Parameters
    ----------
    body
        The bytes.
    what
        What errors call the structure.
    at
        Where to begin.
    """

    __slots__ = ("at", "body", "what")

    def __init__(self, body: bytes, what: str, at: int = 0) -> None:
        self.body = body
        self.what = what
        self.at = at

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes.

        Raises
        ------
        FormatError
            If there are fewer.
        """
        at, end = self.at, self.at + count
        if end > len(self.body):
            raise self.short(count)
        self.at = end
        return self.body[at:end]

    def number(self, count: int) -> int:
        """Return the unsigned number in the next `count` bytes."""
        return int.from_bytes(self.take(count), "little")

    def unpack(self, structure: Struct) -> tuple[Any, ...]:
        """Return the fields of a structure."""
        at, end = self.at, self.at + structure.size
        if end > len(self.body):
            raise self.short(structure.size)
        self.at = end
        return structure.unpack_from(self.body, at)

    def numbers(self, count: int, size: int) -> tuple[int, ...]:
        """Return `count` unsigned numbers of `size` bytes each."""
        data = self.take(count * size)
        return tuple(int.from_bytes(data[at : at + size], "little") for at in range(0, count * size, size))

    def address(self, sizes: Sizes) -> int | None:
        """Return an address in the file; ``None`` for the undefined one, whose bits are all set."""
        found = self.number(sizes.offset)
        return None if found == (1 << 8 * sizes.offset) - 1 else found

    def until_nul(self) -> bytes:
        """Return the bytes before the next NUL, and go on behind it.

        Raises
        ------
        FormatError
            If there is none.
        """
        end = self.body.find(b"\0", self.at)
        if end < 0:
            raise FormatError(f"{self.what} of {len(self.body)} bytes: no NUL ends the name at byte {self.at}")
        found = self.body[self.at : end]
        self.at = end + 1
        return found

    def short(self, count: int) -> FormatError:
        """Return the error for a structure that ends too early."""
        return FormatError(
            f"{self.what} of {len(self.body)} bytes: {count} bytes expected at byte {self.at}; the file is damaged"
        )


def decoded_once[**P, T](decode: Callable[Concatenate[bytes, P], T]) -> Callable[Concatenate[bytes, P], T]:
    """Keep what a decoder made of short bodies; what it returns must be immutable."""
    cached = lru_cache(maxsize=MOST_BODIES)(decode)

    @wraps(decode)
    def decode_once(body: bytes, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if len(body) > MOST_CACHED:
            return decode(body, *args, **kwargs)
        return cached(body, *args, **kwargs)  # type: ignore[arg-type]  # lru_cache wants hashable arguments

    return decode_once
