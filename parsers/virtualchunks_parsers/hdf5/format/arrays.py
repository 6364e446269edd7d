"""Fixed and extensible arrays: elements by number, in blocks and pages.

References
----------
HDF5 File Format Specification, version 3.0, sections VII.C, "Fixed Array Index", and VII.D, "Extensible Array Index".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import LimitExceededError
from virtualchunks_parsers.hdf5.format.btrees import Bytes, addresses
from virtualchunks_parsers.hdf5.format.checksums import verify
from virtualchunks_parsers.hdf5.format.content import Content, Unhandled

#: Elements of one array.
MOST_ELEMENTS = 100_000_000
_CHECKSUM = 4
_NO_PAGES = np.zeros(0, dtype=bool)


class Elements(NamedTuple):
    """Elements of an array.

    Attributes
    ----------
    rows
        The bytes of each.
    numbers
        The number of each.
    stated
        How many the array says it has.
    """

    rows: Bytes
    numbers: npt.NDArray[np.int64]
    stated: int


class _Run(NamedTuple):
    """Elements in one place: where the structure begins, its length, where its elements begin, how many, from which."""

    address: int
    length: int
    at: int
    held: int
    first: int


def _elements(content: Content, runs: list[_Run], size: int, what: str) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Read runs of elements, each of which ends with a checksum."""
    if sum(run.held for run in runs) > MOST_ELEMENTS:
        raise LimitExceededError(f"more than {MOST_ELEMENTS} elements of an array", url=content.url)
    if not runs:
        return np.zeros((0, size), dtype=np.uint8), np.zeros(0, dtype=np.int64)
    content.check_room(sum(run.length for run in runs), what)
    content.require([(run.address, run.length) for run in runs], what)
    parts = []
    for address, length, at, count, _ in runs:
        data = content.read(address, length, what)
        verify(data, what, address, content.url)
        parts.append(data[at : at + count * size])
    rows: Bytes = np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, size)
    numbers = np.concatenate([np.arange(run.first, run.first + run.held, dtype=np.int64) for run in runs])
    return rows, numbers


def _head(content: Content, address: int, length: int, signature: bytes, what: str, *, filtered: bool) -> bytes:
    """Read a header, and check what all of them have."""
    data = content.read(address, length, what)
    if data[:5] != signature + b"\0" or data[5] != filtered:
        raise content.damaged(what, address, f"begins with {data[:6]!r}")
    verify(data, what, address, content.url)
    width = content.sizes.offset
    if data[6] < width + 5 if filtered else data[6] != width:
        raise content.damaged(what, address, f"has elements of {data[6]} bytes")
    return data


def _set_bits(bitmap: bytes) -> npt.NDArray[np.bool_]:
    """The pages that were written, the highest bit of the first byte first."""
    return np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8)).astype(bool)


# --------------------------------------------------------------------------------------------------- fixed arrays


def fixed_array(content: Content, address: int, *, filtered: bool) -> Elements:
    """Return the elements of a fixed array; section VII.C.

    Parameters
    ----------
    content
        The file.
    address
        Of the header.
    filtered
        Whether its elements are chunks with filters.
    """
    sizes = content.sizes
    end = 8 + sizes.length + sizes.offset
    data = _head(content, address, end + _CHECKSUM, b"FAHD", "a fixed array", filtered=filtered)
    size, bits = data[6], data[7]
    count = int.from_bytes(data[8 : 8 + sizes.length], "little")
    block = int.from_bytes(data[8 + sizes.length : end], "little")
    if block == sizes.undefined:
        return Elements(*_elements(content, [], size, ""), count)
    if bits > 40:
        raise content.damaged("a fixed array", address, f"has pages of 2**{bits} elements")
    runs = _fixed_runs(content, block, count, size, 1 << bits)
    return Elements(*_elements(content, runs, size, "a block of a fixed array"), count)


def _fixed_runs(content: Content, block: int, count: int, size: int, per_page: int) -> list[_Run]:
    head = 6 + content.sizes.offset
    if count <= per_page:
        return [_Run(block, head + count * size + _CHECKSUM, head, count, 0)]
    pages = -(-count // per_page)
    length = head + -(-pages // 8) + _CHECKSUM
    data = content.read(block, length, "a block of a fixed array")
    verify(data, "a block of a fixed array", block, content.url)
    written = _set_bits(data[head:-_CHECKSUM])[:pages]
    step = per_page * size + _CHECKSUM
    runs = []
    for page in np.flatnonzero(written).tolist():
        held = min(per_page, count - page * per_page)
        runs.append(_Run(block + length + page * step, held * size + _CHECKSUM, 0, held, page * per_page))
    return runs


# ---------------------------------------------------------------------------------------------- extensible arrays


@dataclass(frozen=True, slots=True)
class _Form:
    """The header of an extensible array; section VII.D.1.

    Attributes
    ----------
    size
        Bytes of an element.
    bits
        How many bits the largest number of an element may have.
    in_index
        Elements in the index block.
    least
        Elements of the smallest data block.
    pointers
        The least number of data blocks that a super block leads to.
    page_bits
        A data block of more than 2 to this power elements is in pages.
    largest
        The number behind that of the last element that was written.
    """

    size: int
    bits: int
    in_index: int
    least: int
    pointers: int
    page_bits: int
    largest: int

    @property
    def supers(self) -> int:
        """How many super blocks the array can have."""
        return 1 + self.bits - (self.least.bit_length() - 1)

    @property
    def direct_supers(self) -> int:
        """Of how many super blocks the index block leads to the data blocks itself."""
        return 2 * (self.pointers.bit_length() - 1)

    @property
    def block_bytes(self) -> int:
        """How many bytes hold the number of an element."""
        return -(-self.bits // 8)

    def blocks(self, number: int) -> int:
        """How many data blocks a super block has."""
        return 1 << number // 2

    def elements(self, number: int) -> int:
        """How many elements each data block of a super block has."""
        return self.least << (number + 1) // 2

    def pages(self, number: int) -> int:
        """How many pages each data block of a super block has; 0 where it has none."""
        pages = self.elements(number) >> self.page_bits
        return pages if pages > 1 else 0


def extensible_array(content: Content, address: int, *, filtered: bool) -> Elements:
    """Return the elements of an extensible array; section VII.D.

    Parameters
    ----------
    content
        The file.
    address
        Of the header.
    filtered
        Whether its elements are chunks with filters.
    """
    sizes = content.sizes
    end = 12 + 6 * sizes.length + sizes.offset
    data = _head(content, address, end + _CHECKSUM, b"EAHD", "an extensible array", filtered=filtered)
    largest = int.from_bytes(data[12 + 4 * sizes.length : 12 + 5 * sizes.length], "little")
    form = _Form(data[6], data[7], data[8], data[9], data[10], data[11], largest)
    index = int.from_bytes(data[end - sizes.offset : end], "little")
    powers = all(size and not size & (size - 1) for size in (form.least, form.pointers))
    if not powers or form.bits > 64 or form.supers < form.direct_supers:
        raise content.damaged("an extensible array", address, f"has blocks that cannot be: {form}")
    if index == sizes.undefined:
        return Elements(*_elements(content, [], form.size, ""), largest)
    runs = _index_block(content, index, form)
    rows, numbers = _elements(content, runs, form.size, "a block of an extensible array")
    return Elements(rows, numbers, largest)


def _index_block(content: Content, address: int, form: _Form) -> list[_Run]:
    """Section VII.D.2: the first elements, and the addresses of all other blocks."""
    width = content.sizes.offset
    head = 6 + width
    direct = sum(form.blocks(number) for number in range(form.direct_supers))
    above = form.supers - form.direct_supers
    at = head + form.in_index * form.size
    length = at + (direct + above) * width + _CHECKSUM
    data = content.read(address, length, "a block of an extensible array")
    if data[:4] != b"EAIB":
        raise content.damaged("a block of an extensible array", address, f"begins with {data[:4]!r}")
    places = addresses(np.frombuffer(data, np.uint8, (direct + above) * width, at).reshape(-1, width)).tolist()
    none = -1 if width == 8 else content.sizes.undefined
    runs = [_Run(address, length, head, form.in_index, 0)]
    first, at = form.in_index, 0
    supers: list[tuple[int, int, int]] = []
    for number in range(form.supers):
        blocks, held = form.blocks(number), form.elements(number)
        if first >= form.largest:
            break
        if number < form.direct_supers:
            if form.pages(number):
                raise Unhandled("an index block of an extensible array that leads to pages")
            for block in range(blocks):
                if places[at + block] != none:
                    runs += _data_block(content, form, number, places[at + block], first + block * held, _NO_PAGES)
            at += blocks
        elif places[at + number - form.direct_supers] != none:
            supers.append((places[at + number - form.direct_supers], number, first))
        first += blocks * held
    return runs + _super_blocks(content, form, supers)


def _super_blocks(content: Content, form: _Form, supers: list[tuple[int, int, int]]) -> list[_Run]:
    """Section VII.D.3: which pages of the data blocks were written, and where these lie.

    The bits of all pages of a super block follow one another, although the bytes are counted by data block.
    """
    width = content.sizes.offset
    head = 6 + width + form.block_bytes
    what = "a block of an extensible array"
    bitmaps = [form.blocks(number) * -(-form.pages(number) // 8) for _, number, _ in supers]
    lengths = [
        head + bitmap + form.blocks(number) * width + _CHECKSUM
        for bitmap, (_, number, _) in zip(bitmaps, supers, strict=True)
    ]
    if any(length > content.size for length in lengths):
        raise content.beyond(supers[-1][0], max(lengths), what)
    content.require([(place, length) for (place, _, _), length in zip(supers, lengths, strict=True)], what)
    runs: list[_Run] = []
    none = -1 if width == 8 else content.sizes.undefined
    for (address, number, first), bitmap, length in zip(supers, bitmaps, lengths, strict=True):
        data = content.read(address, length, what)
        if data[:4] != b"EASB":
            raise content.damaged(what, address, f"begins with {data[:4]!r}")
        verify(data, what, address, content.url)
        blocks, held = form.blocks(number), form.elements(number)
        places = np.frombuffer(data, np.uint8, blocks * width, head + bitmap).reshape(-1, width)
        written, pages = _set_bits(data[head : head + bitmap]), form.pages(number)
        for block, place in enumerate(addresses(places).tolist()):
            if place != none:
                own = written[block * pages : (block + 1) * pages]
                runs += _data_block(content, form, number, place, first + block * held, own)
    return runs


def _data_block(
    content: Content, form: _Form, number: int, address: int, first: int, written: npt.NDArray[np.bool_]
) -> list[_Run]:
    """Section VII.D.4: elements, or pages of them behind the block's own head."""
    head = 6 + content.sizes.offset + form.block_bytes
    held, pages = form.elements(number), form.pages(number)
    if held * form.size > content.size:
        raise content.beyond(address, held * form.size, "a block of an extensible array")
    if not pages:
        return [_Run(address, head + held * form.size + _CHECKSUM, head, held, first)]
    per_page = 1 << form.page_bits
    step = per_page * form.size + _CHECKSUM
    start = address + head + _CHECKSUM
    return [
        _Run(start + page * step, step, 0, per_page, first + page * per_page)
        for page in np.flatnonzero(written).tolist()
    ]
