"""The links of a group: symbol tables, link messages, and links in a heap of their own.

References
----------
HDF5 File Format Specification, version 3.0, sections III.B, "Group Symbol Table Nodes", III.C, "Symbol Table Entry",
IV.A.2.c, "Link Info", IV.A.2.g, "Link", and IV.A.2.r, "Symbol Table".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from virtualchunks.errors import LimitExceededError
from virtualchunks_parsers.hdf5.format.btrees import Old, addresses, new_records, old_leaves, read_tree
from virtualchunks_parsers.hdf5.format.content import Content
from virtualchunks_parsers.hdf5.format.headers import LINK, LINK_INFO, SYMBOL_TABLE, Message
from virtualchunks_parsers.hdf5.format.heaps import FractalHeap, name_in, read_local_heap
from virtualchunks_parsers.hdf5.format.superblock import Widths

#: Kinds of links.
HARD, SOFT, EXTERNAL = 0, 1, 64
#: Links of one group.
MOST_LINKS = 1_000_000
#: In an entry of a symbol table, the kind that is a soft link.
_SOFT_ENTRY = 2


class Link(NamedTuple):
    """One link of a group.

    Attributes
    ----------
    name
        Its name, as stored.
    kind
        Of what kind it is.
    address
        Of a hard link, the object header that it leads to; otherwise -1.
    target
        Of a soft link, a path; of an external one, a file and a path in it.
    """

    name: bytes
    kind: int
    address: int = -1
    target: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    order: int
    link: Link


def read_links(content: Content, widths: Callable[[], Widths], messages: Sequence[Message]) -> list[Link]:
    """Return the links of a group, in the order of their making where that is indexed, and by name otherwise.

    Parameters
    ----------
    content
        The file.
    widths
        Says how wide the nodes of symbol tables are.
    messages
        Of the object header of the group.

    Raises
    ------
    FormatError
        If a structure is damaged.
    """
    for message in messages:
        if message.kind == SYMBOL_TABLE:
            return _symbols(content, widths(), message.body)
    info = next((message.body for message in messages if message.kind == LINK_INFO), b"")
    found = [read_link(content, message.body) for message in messages if message.kind == LINK]
    ordered = len(info) > 1 and bool(info[1] & 2)
    if info:
        found += _dense(content, info)
    if ordered:
        found.sort(key=lambda item: item.order)
    else:
        found.sort(key=lambda item: item.link.name)
    links = [item.link for item in found]
    if len({link.name for link in links}) != len(links):
        raise content.damaged("a group", 0, "has two links of one name")
    return links


def is_group(messages: Sequence[Message]) -> bool:
    """Return whether messages are those of a group."""
    return any(message.kind in (SYMBOL_TABLE, LINK_INFO) for message in messages)


# -------------------------------------------------------------------------------------------------- symbol tables


def _symbols(content: Content, widths: Widths, body: bytes) -> list[Link]:
    """Section IV.A.2.r: a B-tree whose leaves are nodes of symbols, and a heap with their names."""
    width = content.sizes.offset
    if len(body) < 2 * width:
        raise content.damaged("a symbol table", 0, f"is a message of {len(body)} bytes")
    root, place = (int.from_bytes(body[at : at + width], "little") for at in (0, width))
    form = Old(0, content.sizes.length, 2 * widths.group)
    heap, rows = content.both(lambda: read_local_heap(content, place), lambda: old_leaves(content, root, form))
    if not len(rows):
        return []
    nodes = addresses(rows[:, content.sizes.length :]).tolist()
    if len(set(nodes)) != len(nodes):
        raise content.damaged("a B-tree", root, "has a node in two places")
    entry = 2 * width + 24
    content.check_room(len(nodes) * entry, "symbol nodes")
    links: list[Link] = []
    most = 2 * widths.leaf
    for address, data in zip(nodes, content.read_all(nodes, 8 + most * entry, "a symbol node"), strict=True):
        count = int.from_bytes(data[6:8], "little")
        if data[:5] != b"SNOD\1" or count > most or 8 + count * entry > len(data):
            raise content.damaged("a symbol node", address, f"of {count} entries begins with {data[:5]!r}")
        links += [_symbol(content, heap, data[at : at + entry]) for at in range(8, 8 + count * entry, entry)]
    _check(content, links)
    return links


def _symbol(content: Content, heap: bytes, entry: bytes) -> Link:
    """Section III.C."""
    width = content.sizes.offset
    name = name_in(content, heap, int.from_bytes(entry[:width], "little"))
    kind = int.from_bytes(entry[2 * width : 2 * width + 4], "little")
    if kind > _SOFT_ENTRY:
        raise content.damaged("a symbol table", 0, f"has an entry of kind {kind}")
    if kind == _SOFT_ENTRY:
        place = int.from_bytes(entry[2 * width + 8 : 2 * width + 12], "little")
        return Link(name, SOFT, target=(name_in(content, heap, place),))
    return Link(name, HARD, int.from_bytes(entry[width : 2 * width], "little"))


def _check(content: Content, links: Sequence[Link]) -> None:
    names = [link.name for link in links]
    if any(first >= second for first, second in pairwise(names)):
        raise content.damaged("a symbol table", 0, "is out of order")
    if len(links) > MOST_LINKS:
        raise LimitExceededError(f"a group of more than {MOST_LINKS} links", url=content.url)


# -------------------------------------------------------------------------------------------------- link messages


def read_link(content: Content, body: bytes) -> _Found:
    """Return the link in a message; section IV.A.2.g."""
    try:
        version, flags = body[0], body[1]
        at = 2
        kind = HARD
        if flags & 8:
            kind, at = body[at], at + 1
        order = 0
        if flags & 4:
            order, at = int.from_bytes(body[at : at + 8], "little", signed=True), at + 8
        at += flags >> 4 & 1
        width = 1 << (flags & 3)
        end = at + width + int.from_bytes(body[at : at + width], "little")
        name = body[at + width : end]
        if version != 1 or not name or end > len(body):
            raise IndexError
        return _Found(order, Link(name, kind, *_target(content, kind, body[end:])))
    except (IndexError, ValueError) as error:
        raise content.damaged("a link", 0, f"is a message of {body[:16].hex()}…") from error


def _target(content: Content, kind: int, rest: bytes) -> tuple[int, tuple[bytes, ...]]:
    if kind == HARD:
        width = content.sizes.offset
        if len(rest) < width:
            raise IndexError
        return int.from_bytes(rest[:width], "little"), ()
    end = 2 + int.from_bytes(rest[:2], "little")
    if len(rest) < end:
        raise IndexError
    if kind != EXTERNAL:
        return -1, (rest[2:end],)
    name, path, _ = rest[3:end].split(b"\0", 2)
    return -1, (name, path)


def _dense(content: Content, info: bytes) -> list[_Found]:
    """Section IV.A.2.c: links in a heap, found by an index of their names."""
    width = content.sizes.offset
    at = 2 + (8 if info[1] & 1 else 0)
    if info[0] or len(info) < at + 2 * width:
        raise content.damaged("a link info message", 0, f"of version {info[0]} has {len(info)} bytes")
    place, index = (int.from_bytes(info[start : start + width], "little") for start in (at, at + width))
    if place == content.sizes.undefined:
        return []
    heap, tree = content.both(lambda: FractalHeap(content, place), lambda: read_tree(content, index))
    if tree.kind != 5 or tree.total > MOST_LINKS:
        raise content.damaged("an index of links", index, f"is a B-tree of type {tree.kind} with {tree.total} records")
    identifiers = [row.tobytes()[4:] for row in new_records(content, tree)]
    return [read_link(content, body) for body in content.each(heap.get, identifiers)]
