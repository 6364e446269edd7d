"""The superblock: where a file begins, how long its addresses are, and where its root group is.

References
----------
HDF5 File Format Specification, version 3.0, section II.A, "Format Signature and Superblock", and II.B, "Driver Info".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from virtualchunks.errors import FormatError
from virtualchunks.signatures import HDF5
from virtualchunks_parsers.hdf5.format.checksums import verify
from virtualchunks_parsers.hdf5.format.content import Content, Sizes, Unhandled

#: Of a B-tree of chunks, where nothing else is said: half as many entries as a node has room for.
CHUNK_K = 32
#: Flags of a file that was not closed.
OPEN = 7


class Widths(NamedTuple):
    """Half of the room in nodes of symbol tables, of the B-trees over them, and of those over chunks."""

    leaf: int = 4
    group: int = 16
    chunk: int = CHUNK_K


#: Where nothing else is said.
USUAL = Widths()


@dataclass(frozen=True, slots=True)
class Superblock:
    """What stands at the beginning of a file.

    Attributes
    ----------
    version
        0 to 3.
    sizes
        Bytes of addresses and lengths.
    base
        Where addresses count from: the length of the user block.
    root
        Address of the object header of the root group.
    extension
        Address of an object header with more to say of the file; ``None`` where there is none.
    widths
        Of the nodes of version 1 B-trees.
    """

    version: int
    sizes: Sizes
    base: int
    root: int
    extension: int | None = None
    widths: Widths = USUAL


def read_superblock(content: Content) -> Superblock:
    """Find and read the superblock, and let the content count addresses from there.

    Raises
    ------
    FormatError
        If there is none, or the file is shorter than it says.
    Unhandled
        If the file is one of several that make up one, or of a version to come.
    """
    start = _find(content)
    head = content.read(start, min(128, content.size - start), "the superblock")
    try:
        version = head[8]
        if version > 3:
            raise Unhandled(f"superblock of version {version}")
        found, end = (_old if version < 2 else _new)(head, start, content.url)
    except IndexError as error:
        raise content.beyond(start, 96, "the superblock") from error
    if end > content.size:
        raise FormatError(
            f"by its superblock it has {end} bytes, so it is truncated, or corrupt",
            url=content.url,
        )
    content.base, content.sizes, content.size = found.base, found.sizes, end
    return found


def _find(content: Content) -> int:
    """Where the signature stands: at the beginning, or behind a user block of 512 bytes, or 1024, or 2048, …"""
    start = 0
    while start + 8 <= content.size:
        if content.read(start, 8, "the format signature") == HDF5:
            return start
        start = max(512, 2 * start)
    raise FormatError("the signature of HDF5 files is nowhere in it", url=content.url)


def _sizes(offset: int, length: int, url: str) -> Sizes:
    if offset not in (2, 4, 8) or length not in (2, 4, 8):
        if offset in (16, 32) or length in (16, 32):
            raise Unhandled(f"addresses of {offset} bytes and lengths of {length}")
        raise FormatError(f"addresses of {offset} bytes and lengths of {length}: the file is corrupt", url=url)
    return Sizes(offset, length)


def _addresses(head: bytes, at: int, count: int, sizes: Sizes) -> list[int]:
    size = sizes.offset
    if at + count * size > len(head):
        raise IndexError
    return [int.from_bytes(head[at + n * size : at + (n + 1) * size], "little") for n in range(count)]


def _old(head: bytes, start: int, url: str) -> tuple[Superblock, int]:
    """Versions 0 and 1."""
    sizes = _sizes(head[13], head[14], url)
    leaf_k, group_k = int.from_bytes(head[16:18], "little"), int.from_bytes(head[18:20], "little")
    at = 24 if head[8] == 0 else 28
    chunk_k = CHUNK_K if head[8] == 0 else int.from_bytes(head[24:26], "little")
    if not leaf_k or not group_k or not chunk_k or head[9] or head[10] or head[12]:
        raise FormatError("the superblock has parts of versions that are not known: the file is corrupt", url=url)
    base, extension, end, driver, _, root = _addresses(head, at, 6, sizes)
    if extension != sizes.undefined or head[20] & ~OPEN or any(head[21:24]):
        raise FormatError("the superblock has flags or an extension that it cannot have: the file is corrupt", url=url)
    if driver != sizes.undefined:
        raise Unhandled("driver information: the file may be one of several")
    return Superblock(head[8], sizes, start, root, None, Widths(leaf_k, group_k, chunk_k)), end + start - base


def _new(head: bytes, start: int, url: str) -> tuple[Superblock, int]:
    """Versions 2 and 3."""
    sizes = _sizes(head[9], head[10], url)
    if head[11]:
        raise Unhandled("marked as open for writing")
    base, extension, end, root = _addresses(head, 12, 4, sizes)
    length = 12 + 4 * sizes.offset
    verify(head[: length + 4], "the superblock", start, url)
    return (
        Superblock(head[8], sizes, start, root, None if extension == sizes.undefined else extension),
        end + start - base,
    )
