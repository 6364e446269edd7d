"""HDUs: the header and data units of a file, found one behind the other, each checked against the file's size.

References
----------
FITS Standard 4.0, sections 3, 4.4.1 and 7.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from virtualchunks.errors import FormatError, LimitExceededError
from virtualchunks.reading.reader import ObjectReader
from virtualchunks_parsers.fits.cards import BLOCK, CARD, END, Header

#: What a file begins with.
MAGIC = b"SIMPLE  ="
EXTENSION = b"XTENSION="

#: Read at the beginning of each HDU: most headers, and the table of tiles of most compressed images, in one request.
FIRST = 256 << 10
#: The longest header that is read, and the most HDUs of a file.
LONGEST_HEADER = 16 << 20
MOST_HDUS = 100_000
#: The most dimensions of an array.
MOST_AXES = 32

BITPIX = (8, 16, 32, 64, -32, -64)


@dataclass(frozen=True, eq=False)
class HDU:
    """One header and data unit.

    Attributes
    ----------
    index
        Its number in the file, from 0.
    header
        Its cards.
    offset, nbytes
        Where its data are, and their size without padding.
    extension
        ``"PRIMARY"``, or the type that XTENSION names.
    """

    index: int
    header: Header
    offset: int
    nbytes: int
    extension: str

    @property
    def axes(self) -> tuple[int, ...]:
        """The values of NAXIS1, NAXIS2 …"""
        return axes_of(self.header, "NAXIS")

    @property
    def end(self) -> int:
        """Where the next HDU begins."""
        return self.offset + -(-self.nbytes // BLOCK) * BLOCK


def axes_of(header: Header, prefix: str) -> tuple[int, ...]:
    """Return the lengths of axes, NAXIS1 or ZNAXIS1 first.

    Raises
    ------
    FormatError
        If one is missing or negative.
    """
    count = header.integer(prefix, highest=999)
    return tuple(header.integer(f"{prefix}{number}") for number in range(1, count + 1))


def walk(reader: ObjectReader) -> Iterator[HDU]:
    """Iterate over the HDUs of a file.

    Raises
    ------
    FormatError
        If the file is not FITS, truncated or corrupt. Bytes behind the last HDU that begin no other are reported by
        :func:`trailing`.
    LimitExceededError
        If a header is out of proportion.
    """
    at = 0
    for index in range(MOST_HDUS):
        header, data = _read_header(reader, at, index)
        extension = "PRIMARY" if index == 0 else header.text("XTENSION").upper()
        nbytes = _data_size(header, index)
        if nbytes and data + nbytes > reader.size:
            raise FormatError(
                f"HDU {index} claims {nbytes} bytes of data from byte {data} on, but the file has {reader.size} bytes: "
                "it is truncated or corrupt",
                url=reader.url,
            )
        hdu = HDU(index, header, data, nbytes, extension)
        yield hdu
        at = hdu.end
        if trailing(reader, at) is not None:
            return
    raise LimitExceededError(f"more than {MOST_HDUS} HDUs", url=reader.url)


def trailing(reader: ObjectReader, at: int) -> bytes | None:
    """Return what stands where an HDU would begin, if none does there; empty where the file ends."""
    start = reader.read_at(at, min(FIRST, reader.size - at)) if at < reader.size else b""
    return None if start.startswith(EXTENSION) else start[: len(EXTENSION)]


def _read_header(reader: ObjectReader, at: int, index: int) -> tuple[Header, int]:
    """Return a header and where its data begin."""
    wanted, seen = FIRST, b""
    while True:
        seen = reader.read_at(at, min(wanted, reader.size - at))
        if index == 0 and not seen.startswith(MAGIC):
            raise FormatError(f"not FITS: it begins with {seen[:9]!r}, not {MAGIC!r}", url=reader.url)
        end = _find_end(seen)
        if end is not None:
            try:
                header = Header.of_cards(seen[:end], reader.url, index)
            except FormatError as error:
                raise FormatError(f"HDU {index}: {error.message}", url=reader.url) from error
            return header, at + -(-(end + CARD) // BLOCK) * BLOCK
        if at + len(seen) >= reader.size:
            raise FormatError(f"the header of HDU {index} has no END: it is truncated or corrupt", url=reader.url)
        if wanted >= LONGEST_HEADER:
            raise LimitExceededError(f"the header of HDU {index} has more than {wanted} bytes", url=reader.url)
        wanted *= 4


def _find_end(data: bytes) -> int | None:
    """Return where the card END is."""
    at = data.find(END)
    while at >= 0 and at % CARD:
        at = data.find(END, at + 1)
    return at if at >= 0 else None


def _data_size(header: Header, index: int) -> int:
    """Return the bytes of an HDU's data: equations 1, 2 and 4 of the standard."""
    if index == 0 and header.get("SIMPLE") is not True:
        raise header.wrong("SIMPLE", "T, as in files that conform to the standard")
    bitpix = header.integer("BITPIX", lowest=-64, highest=64)
    if bitpix not in BITPIX:
        raise header.wrong("BITPIX", f"one of {BITPIX}")
    axes = axes_of(header, "NAXIS")
    if not axes:
        return 0
    if header.get("GROUPS") is True and axes[0] == 0:
        axes = axes[1:]
    elif index == 0:
        return abs(bitpix) // 8 * math.prod(axes)
    count = header.integer("PCOUNT", 0) + math.prod(axes)
    return abs(bitpix) // 8 * header.integer("GCOUNT", 1) * count
