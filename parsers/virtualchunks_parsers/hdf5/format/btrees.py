"""B-trees, level by level: the nodes of a level are read together.

Version 1 trees index symbol tables and chunks; version 2 trees index links, attributes, large objects of heaps, and
chunks of datasets that grow in several dimensions. What the keys and records mean is for the callers to know.

References
----------
HDF5 File Format Specification, version 3.0, sections III.A.1, "Version 1 B-trees", and III.A.2, "Version 2 B-trees".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from virtualchunks_parsers.hdf5.format.checksums import verify
from virtualchunks_parsers.hdf5.format.content import Content, Sizes

#: Levels of a tree.
DEEPEST = 32

Bytes = npt.NDArray[np.uint8]


class Old(NamedTuple):
    """What the nodes of a version 1 tree have in common.

    Attributes
    ----------
    kind
        0 for groups, 1 for chunks.
    key
        Bytes of a key.
    most
        Entries that a node has room for.
    """

    kind: int
    key: int
    most: int

    def room(self, sizes: Sizes) -> int:
        """Return how many bytes a node takes, without its last key."""
        return 8 + 2 * sizes.offset + self.most * (self.key + sizes.offset)


def old_leaves(content: Content, root: int, form: Old) -> Bytes:
    """Return the entries of all leaves of a version 1 tree, one row each: a key, and the address that it leads to.

    Raises
    ------
    FormatError
        If the tree is damaged.
    """
    seen: set[int] = set()
    nodes, level = [root], -1
    while True:
        rows, level = _old_level(content, nodes, level, form)
        if level == 0 or not len(rows):
            return rows
        nodes = addresses(rows[:, form.key :]).tolist()
        if not seen.isdisjoint(nodes) or len(set(nodes)) != len(nodes):
            raise content.damaged("a B-tree", root, "has a node in two places")
        seen.update(nodes)
        content.check_room(len(seen) * form.room(content.sizes), "nodes of a B-tree")


def _old_level(content: Content, nodes: list[int], above: int, form: Old) -> tuple[Bytes, int]:
    """Return the entries of the nodes of one level, and which it is; `above` is the level over it, -1 over the root."""
    pair = form.key + content.sizes.offset
    head = 8 + 2 * content.sizes.offset
    parts = []
    level = above - 1
    for address, data in zip(nodes, content.read_all(nodes, form.room(content.sizes), "a B-tree node"), strict=True):
        if len(data) < head or data[:4] != b"TREE" or data[4] != form.kind:
            raise content.damaged("a B-tree node", address, f"begins with {data[:5]!r}")
        if above < 0:
            level = data[5]
        used = data[6] | data[7] << 8
        end = head + used * pair
        if data[5] != level or level > DEEPEST or used > form.most:
            raise content.damaged("a B-tree node", address, f"has {used} entries of level {data[5]}, and not {level}")
        if end > len(data):
            raise content.beyond(address, end, "a B-tree node")
        parts.append(data[head:end])
    rows: Bytes = np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, pair)
    return rows, level


def addresses(columns: Bytes) -> npt.NDArray[np.int64]:
    """Return little-endian numbers of up to 8 bytes, one per row; those of 8 bytes without the highest bit count as -1.

    Examples
    --------
    >>> addresses(np.array([[1, 1], [255, 0]], np.uint8)).tolist()
    [257, 255]
    """
    rows, width = columns.shape
    padded = np.zeros((rows, 8), dtype=np.uint8)
    padded[:, :width] = columns
    values: npt.NDArray[np.int64] = padded.view("<i8").ravel()
    return values


# ------------------------------------------------------------------------------------------------------ version 2


class Tree(NamedTuple):
    """The header of a version 2 tree; section III.A.2, "Version 2 B-tree Header"."""

    kind: int
    node: int
    record: int
    depth: int
    root: int
    held: int
    total: int


def read_tree(content: Content, address: int) -> Tree:
    """Return the header of a version 2 tree."""
    sizes = content.sizes
    length = 16 + sizes.offset + 2 + sizes.length + 4
    data = content.read(address, length, "a B-tree header")
    if data[:5] != b"BTHD\0":
        raise content.damaged("a B-tree header", address, f"begins with {data[:5]!r}")
    verify(data, "a B-tree header", address, content.url)
    at = 16 + sizes.offset
    number = int.from_bytes
    tree = Tree(
        kind=data[5],
        node=number(data[6:10], "little"),
        record=number(data[10:12], "little"),
        depth=number(data[12:14], "little"),
        root=number(data[16:at], "little"),
        held=number(data[at : at + 2], "little"),
        total=number(data[at + 2 : at + 2 + sizes.length], "little"),
    )
    if not tree.record or tree.node <= 10 + tree.record or tree.depth > DEEPEST:
        raise content.damaged("a B-tree header", address, f"has nodes that cannot be: {tree}")
    return tree


def new_records(content: Content, tree: Tree) -> Bytes:
    """Return the records of a version 2 tree, one row each, in no order.

    Raises
    ------
    FormatError
        If the tree is damaged.
    """
    found: list[bytes] = []
    if not tree.total or tree.root == content.sizes.undefined:
        return np.zeros((0, tree.record), dtype=np.uint8)
    widths = _widths(content, tree)
    nodes = [(tree.root, tree.held)]
    total = 0
    for depth in range(tree.depth, -1, -1):
        below: list[tuple[int, int]] = []
        read = content.read_all([address for address, _ in nodes], tree.node, "a B-tree node")
        for (address, count), data in zip(nodes, read, strict=True):
            width = widths[depth]
            records = _node(content, tree, address, data, depth, count, sum(width))
            found.append(records)
            if depth:
                below += _children(content, data, 6 + len(records), count + 1, width)
        total += sum(count for _, count in nodes)
        content.check_room(len(below) * tree.node, "nodes of a B-tree")
        if total > tree.total:
            raise content.damaged("a B-tree", tree.root, f"has more than its {tree.total} records")
        nodes = below
    if total != tree.total:
        raise content.damaged("a B-tree", tree.root, f"has {total} of its {tree.total} records")
    return np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, tree.record)


def _widths(content: Content, tree: Tree) -> list[tuple[int, int, int]]:
    """Bytes of the parts of a pointer to a child, by depth: its address, its records, and those below it, too."""
    most = (tree.node - 10) // tree.record
    count = bytes_of(most)
    widths = [(0, 0, 0)]
    below, total = most, 0
    for _ in range(tree.depth):
        width = (content.sizes.offset, count, total)
        most = (tree.node - 10 - sum(width)) // (tree.record + sum(width))
        if most < 1:
            raise content.damaged("a B-tree", tree.root, f"has nodes of {tree.node} bytes")
        widths.append(width)
        below = (most + 1) * below + most
        total = bytes_of(below)
    return widths


def bytes_of(most: int) -> int:
    """Return how many bytes hold any number up to one.

    Examples
    --------
    >>> bytes_of(255), bytes_of(256)
    (1, 2)
    """
    return max(1, -(-most.bit_length() // 8))


def _node(content: Content, tree: Tree, address: int, data: bytes, depth: int, count: int, pointer: int) -> bytes:
    """Check a node, and return its records."""
    signature = b"BTIN\0" if depth else b"BTLF\0"
    if data[:5] != signature or data[5] != tree.kind:
        raise content.damaged("a B-tree node", address, f"begins with {data[:6]!r}")
    records = 6 + count * tree.record
    end = records + (count + 1) * pointer + 4
    if end > len(data):
        raise content.damaged("a B-tree node", address, f"has {count} records in {len(data)} bytes")
    verify(data[:end], "a B-tree node", address, content.url)
    return data[6:records]


def _children(content: Content, data: bytes, at: int, count: int, width: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Addresses and numbers of records of the children of a node."""
    size = sum(width)
    rows = np.frombuffer(data, dtype=np.uint8, count=count * size, offset=at).reshape(count, size)
    first, second = width[0], width[0] + width[1]
    return list(zip(addresses(rows[:, :first]).tolist(), addresses(rows[:, first:second]).tolist(), strict=True))
