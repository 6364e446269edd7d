"""Heaps: where names, links, attributes and values of variable length lie.

References
----------
HDF5 File Format Specification, version 3.0, sections III.D, "Local Heaps", III.E, "Global Heap", and III.G, "Fractal
Heap".
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from virtualchunks_parsers.hdf5.format.btrees import bytes_of, new_records, read_tree
from virtualchunks_parsers.hdf5.format.checksums import verify
from virtualchunks_parsers.hdf5.format.content import Content, Unhandled

#: Blocks within blocks of a fractal heap.
DEEPEST = 64


def read_local_heap(content: Content, address: int) -> bytes:
    """Return the data of a local heap: names, each ending with a NUL, found by where they begin."""
    sizes = content.sizes
    length = 8 + 2 * sizes.length + sizes.offset
    head = content.read(address, length, "a local heap")
    if head[:5] != b"HEAP\0":
        raise content.damaged("a local heap", address, f"begins with {head[:5]!r}")
    size = int.from_bytes(head[8 : 8 + sizes.length], "little")
    place = int.from_bytes(head[8 + 2 * sizes.length : length], "little")
    return content.read(place, size, "the data of a local heap", size)


def name_in(content: Content, heap: bytes, at: int) -> bytes:
    """Return the name that begins at a place in the data of a local heap."""
    end = heap.find(b"\0", at)
    if end < 0:
        raise content.damaged("a local heap", 0, f"has no name at {at} of {len(heap)}")
    return heap[at:end]


class GlobalHeaps:
    """The collections of the global heap of a file, each read once.

    Parameters
    ----------
    content
        The file.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._collections: dict[int, dict[int, bytes]] = {}
        self._size = 0

    def get(self, address: int, index: int) -> bytes:
        """Return one object.

        Parameters
        ----------
        address
            Of its collection.
        index
            Its number there.

        Raises
        ------
        FormatError
            If there is no such collection, or it has no such object.
        """
        try:
            return self.collection(address)[index]
        except KeyError as error:
            raise self._content.damaged("a global heap", address, f"has no object {index}") from error

    def collection(self, address: int) -> dict[int, bytes]:
        """Return the objects of one collection, by number."""
        found = self._collections.get(address)
        if found is None:
            found = self._collections[address] = self._read(address)
        return found

    def _read(self, address: int) -> dict[int, bytes]:
        content, width = self._content, self._content.sizes.length
        head = content.read(address, 8 + width, "a global heap", 4096)
        if head[:5] != b"GCOL\1":
            raise content.damaged("a global heap", address, f"begins with {head[:5]!r}")
        size = int.from_bytes(head[8:], "little")
        data = content.read(address, size, "a global heap")
        self._size += size
        content.check_room(self._size, "global heaps")
        step = 16  # the heads of collections and of objects end at multiples of 8 bytes
        at, objects = step, {}
        while at + step <= size:
            index = data[at] | data[at + 1] << 8
            length = int.from_bytes(data[at + 8 : at + 8 + width], "little")
            if not index:  # the rest is free
                break
            at += step
            if at + length > size:
                raise content.damaged("a global heap", address, f"has an object of {length} bytes that it cannot hold")
            objects[index] = data[at : at + length]
            at += length + -length % 8
        return objects


# ---------------------------------------------------------------------------------------------------- fractal heaps


class Heap(NamedTuple):
    """The header of a fractal heap, as far as it is needed to find objects; section III.G.1."""

    address: int
    id_length: int
    checked: bool
    most_managed: int
    huge_tree: int
    width: int
    start: int
    most_direct: int
    bits: int
    root: int
    rows: int

    @property
    def offset_bytes(self) -> int:
        """How many bytes hold a place in the heap."""
        return -(-self.bits // 8)

    @property
    def direct_rows(self) -> int:
        """Rows of blocks that hold objects and not blocks."""
        return self.most_direct.bit_length() - self.start.bit_length() + 2

    def row_size(self, row: int) -> int:
        """Bytes of each block of a row."""
        return self.start << max(0, row - 1)


class FractalHeap:
    """A fractal heap.

    Parameters
    ----------
    content
        The file.
    address
        Of the heap.

    Raises
    ------
    FormatError
        If it is damaged.
    Unhandled
        If its blocks are compressed.
    """

    def __init__(self, content: Content, address: int) -> None:
        self._content = content
        self._head = _read_heap(content, address)
        self._huge: dict[int, tuple[int, int]] | None = None

    def get(self, identifier: bytes) -> bytes:
        """Return the object with an identifier; section III.G.4, "Fractal Heap Object Identifiers"."""
        kind = identifier[0] >> 4
        if kind not in (0, 1, 2):
            raise self._damaged(f"has no object {identifier.hex()}")
        return (self._managed, self._get_huge, self._tiny)[kind](identifier)

    def _damaged(self, detail: str) -> Exception:
        return self._content.damaged("a fractal heap", self._head.address, detail)

    def _managed(self, identifier: bytes) -> bytes:
        head = self._head
        middle = 1 + head.offset_bytes
        end = middle + min(bytes_of(head.most_direct - 1), bytes_of(head.most_managed))
        offset = int.from_bytes(identifier[1:middle], "little")
        length = int.from_bytes(identifier[middle:end], "little")
        if len(identifier) < end or length > head.most_managed:
            raise self._damaged(f"has no object {identifier.hex()}")
        address, first, size = self._block(offset)
        if offset + length > first + size:
            raise self._damaged(f"has an object of {length} bytes at {offset}, beyond the end of its block")
        content = self._content
        before = 5 + content.sizes.offset
        block = content.read(address, before + head.offset_bytes, "a block of a fractal heap", size)
        if block[:5] != b"FHDB\0" or int.from_bytes(block[before:], "little") != first:
            raise self._damaged(f"has a block at {address} that begins with {block[:5]!r}")
        return content.read(address + offset - first, length, "an object of a fractal heap")

    def _block(self, offset: int) -> tuple[int, int, int]:
        """Address, first place and size of the direct block that a place lies in."""
        head = self._head
        if not head.rows:
            return self._defined(head.root), 0, head.start
        address, rows, base = head.root, head.rows, 0
        for _ in range(DEEPEST):
            row, column, first = self._cell(offset - base)
            if row >= rows:
                break
            size = head.row_size(row)
            entry = self._entry(address, rows, base, row * head.width + column)
            if row < head.direct_rows:
                return entry, base + first, size
            rows = (size // (head.start * head.width)).bit_length()
            address, base = entry, base + first
        raise self._damaged(f"has no place {offset}")

    def _cell(self, place: int) -> tuple[int, int, int]:
        """Row, column and first place of the block of a doubling table that a place lies in."""
        head = self._head
        row = (place // (head.start * head.width)).bit_length()
        before = (head.start * head.width) << (row - 1) if row else 0
        size = head.row_size(row)
        column = (place - before) // size
        return row, column, before + column * size

    def _entry(self, address: int, rows: int, base: int, number: int) -> int:
        """The address that an indirect block has for one of its blocks; section III.G.3."""
        head, content = self._head, self._content
        width = content.sizes.offset
        first = 5 + width + head.offset_bytes
        length = first + rows * head.width * width + 4
        block = content.read(address, length, "an indirect block of a fractal heap", length)
        if block[:5] != b"FHIB\0" or int.from_bytes(block[5 + width : first], "little") != base:
            raise self._damaged(f"has an indirect block at {address} that begins with {block[:5]!r}")
        verify(block, "an indirect block of a fractal heap", address, content.url)
        at = first + number * width
        return self._defined(int.from_bytes(block[at : at + width], "little"))

    def _defined(self, address: int) -> int:
        if address == self._content.sizes.undefined:
            raise self._damaged("has objects in a block that is not there")
        return address

    def _get_huge(self, identifier: bytes) -> bytes:
        """An object with a place of its own in the file."""
        sizes = self._content.sizes
        if self._head.id_length > sizes.offset + sizes.length:  # the identifier has room for the place
            end = 1 + sizes.offset + sizes.length
            address = int.from_bytes(identifier[1 : 1 + sizes.offset], "little")
            return self._content.read(
                address, int.from_bytes(identifier[1 + sizes.offset : end], "little"), "an object of a fractal heap"
            )
        if self._huge is None:
            self._huge = self._huge_places()
        key = int.from_bytes(identifier[1 : 1 + sizes.length], "little")
        if key not in self._huge:
            raise self._damaged(f"has no large object {key}")
        return self._content.read(*self._huge[key], "an object of a fractal heap")

    def _huge_places(self) -> dict[int, tuple[int, int]]:
        """Addresses and lengths of large objects; section III.A.2, record of type 1."""
        sizes = self._content.sizes
        tree = read_tree(self._content, self._defined(self._head.huge_tree))
        if tree.kind != 1 or tree.record != sizes.offset + 2 * sizes.length:
            raise Unhandled(f"large objects of a heap in a B-tree of type {tree.kind}")
        places = {}
        for row in new_records(self._content, tree):
            raw = row.tobytes()
            middle, end = sizes.offset, sizes.offset + sizes.length
            length = int.from_bytes(raw[middle:end], "little")
            places[int.from_bytes(raw[end:], "little")] = (int.from_bytes(raw[:middle], "little"), length)
        return places

    def _tiny(self, identifier: bytes) -> bytes:
        """An object that stands in its identifier."""
        if self._head.id_length > 17:
            length, at = ((identifier[0] & 15) << 8 | identifier[1]) + 1, 2
        else:
            length, at = (identifier[0] & 15) + 1, 1
        if at + length > len(identifier):
            raise self._damaged(f"has no object {identifier.hex()}")
        return identifier[at : at + length]


def _read_heap(content: Content, address: int) -> Heap:
    sizes = content.sizes
    letters = {2: "H", 4: "I", 8: "Q"}
    long, place = letters[sizes.length], letters[sizes.offset]
    form = f"<4sBHHBI{long}{place}{long}{place}{8 * long}H{2 * long}HH{place}H"
    length = struct.calcsize(form)
    data = content.read(address, length + 4, "a fractal heap")
    fields = struct.unpack(form, data[:length])
    if fields[:2] != (b"FRHP", 0):
        raise content.damaged("a fractal heap", address, f"begins with {data[:5]!r}")
    if fields[3]:
        raise Unhandled("a heap with compressed blocks")
    verify(data, "a fractal heap", address, content.url)
    width, start, direct, bits, _, root, rows = fields[18:]
    found = Heap(address, fields[2], bool(fields[4] & 2), fields[5], fields[7], width, start, direct, bits, root, rows)
    powers = all(size and not size & (size - 1) for size in (width, start, direct))
    if not powers or direct < start or not 0 < bits <= 64 or rows > 64 or found.id_length < 2:
        raise content.damaged("a fractal heap", address, f"has blocks that cannot be: {found}")
    return found
