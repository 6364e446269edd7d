"""One file: its headers, groups and heaps, each read once."""

from __future__ import annotations

from collections.abc import Sequence

from virtualchunks.errors import FormatError
from virtualchunks.reading.reader import ObjectReader
from virtualchunks_parsers.hdf5.format.btrees import new_records, read_tree
from virtualchunks_parsers.hdf5.format.chunks import ChunkIndex, Found, read_chunks
from virtualchunks_parsers.hdf5.format.content import Content, Unhandled
from virtualchunks_parsers.hdf5.format.groups import HARD, Link, is_group, read_links
from virtualchunks_parsers.hdf5.format.headers import (
    ATTRIBUTE,
    ATTRIBUTE_INFO,
    BTREE_K,
    DATATYPE,
    SHARED,
    Message,
    read_header,
    shared_body,
)
from virtualchunks_parsers.hdf5.format.heaps import FractalHeap, GlobalHeaps
from virtualchunks_parsers.hdf5.format.messages import Attribute, attribute, attribute_info
from virtualchunks_parsers.hdf5.format.superblock import Widths, read_superblock

#: Attributes of one object.
MOST_ATTRIBUTES = 100_000
#: Groups within groups.
DEEPEST = 100


class Container:
    """The structures of one file.

    Parameters
    ----------
    reader
        The file.

    Raises
    ------
    FormatError
        If it does not begin as an HDF5 file does, or is truncated.
    Unhandled
        If only the HDF5 library can open it.

    Attributes
    ----------
    content, superblock, heaps
        Its bytes, how it begins, and its global heap.
    """

    def __init__(self, reader: ObjectReader) -> None:
        self.content = Content(reader)
        self.superblock = read_superblock(self.content)
        self.heaps = GlobalHeaps(self.content)
        self._headers: dict[int, list[Message]] = {}
        self._links: dict[int, list[Link]] = {}
        self._by_name: dict[int, dict[bytes, Link]] = {}
        self._chunks: dict[int, Found | None] = {}
        self._names: dict[int, bytes] | None = None
        self._widths: Widths | None = None

    def header(self, address: int) -> list[Message]:
        """Return the messages of an object."""
        found = self._headers.get(address)
        if found is None:
            found = self._headers[address] = read_header(self.content, address)
        return found

    def links(self, address: int) -> list[Link]:
        """Return the links of a group."""
        found = self._links.get(address)
        if found is None:
            found = self._links[address] = read_links(self.content, self.widths, self.header(address))
        return found

    def link(self, address: int, name: bytes) -> Link | None:
        """Return the link of a group that has a name; ``None`` where there is none."""
        found = self._by_name.get(address)
        if found is None:
            found = self._by_name[address] = {link.name: link for link in self.links(address)}
        return found.get(name)

    def chunks(self, address: int, index: ChunkIndex) -> Found | None:
        """Return the chunks of the dataset at an address."""
        if address not in self._chunks:
            self._chunks[address] = read_chunks(self.content, index)
        return self._chunks[address]

    def widths(self) -> Widths:
        """Return the room in nodes of version 1 B-trees; section IV.A.2.t, "B-tree 'K' Values"."""
        if self._widths is None:
            self._widths = self.superblock.widths
            extension = self.superblock.extension
            for message in [] if extension is None else self.header(extension):
                if message.kind == BTREE_K and len(message.body) >= 7 and not message.body[0]:
                    self._widths = Widths(*(int.from_bytes(message.body[at : at + 2], "little") for at in (5, 3, 1)))
        return self._widths

    def attributes(self, messages: Sequence[Message]) -> list[Attribute]:
        """Return the attributes of an object, by name; with types that are named in place."""
        content = self.content
        bodies = [message.body for message in messages if message.kind == ATTRIBUTE]
        found = content.each(self._attribute, bodies) if bodies else []
        for message in messages:
            if message.kind == ATTRIBUTE_INFO:
                info = attribute_info(message.body, content.sizes)
                if info.heap is not None and info.names is not None:
                    found += self._dense_attributes(info.heap, info.names)
        if len(found) > 1:
            found.sort(key=_name)
        return found

    def _dense_attributes(self, place: int, index: int) -> list[Attribute]:
        """Section IV.A.2.v: attributes in a heap, found by an index of their names."""
        content = self.content
        heap, tree = content.both(lambda: FractalHeap(content, place), lambda: read_tree(content, index))
        if tree.kind != 8 or tree.total > MOST_ATTRIBUTES or tree.record < 9:
            raise self.content.damaged("an index of attributes", index, f"is a B-tree of type {tree.kind}")
        records = [row.tobytes() for row in new_records(self.content, tree)]
        if any(record[8] & SHARED for record in records):
            raise Unhandled("an attribute in the table of shared messages")
        bodies = self.content.each(heap.get, [record[:8] for record in records])
        return self.content.each(self._attribute, bodies)

    def _attribute(self, body: bytes) -> Attribute:
        found = attribute(body, self.content.sizes)
        return found.of_type(shared_body(self.content, DATATYPE, found.datatype)) if found.is_shared else found

    def is_deleted(self, address: int) -> bool:
        """Return whether a reference leads to where no object is."""
        if not address or address == self.content.sizes.undefined:
            return True
        try:
            self.header(address)
        except FormatError:
            return True
        return False

    def name_of(self, address: int) -> bytes | None:
        """Return a name by which an object can be reached from the root through hard links, or ``None``."""
        if self._names is None:
            self._names = {}
            self._collect_names(self._names)
        return self._names.get(address)

    def _collect_names(self, names: dict[int, bytes]) -> None:
        level = [self.superblock.root]
        seen = set(level)
        for _ in range(DEEPEST):
            below = []
            for group in level:
                for link in sorted(self.links(group)):
                    if link.kind == HARD and link.address not in seen:
                        names[link.address] = link.name
                        seen.add(link.address)
                        if is_group(self.header(link.address)):
                            below.append(link.address)
            level = below


def _name(found: Attribute) -> bytes:
    return found.name
