"""Special elements: data in linked blocks, compressed, or in chunks.

References
----------
HDF Specification and Developer's Guide 4.2, chapter 10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from virtualchunks.codecs import hdf4_rle
from virtualchunks.encoding import Codec
from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks_parsers.hdf4.descriptors import COMPRESSED, LINKED, Descriptor, Directory, Unpacker

#: Codes of special elements.
IN_LINKED_BLOCKS, EXTERNAL, IS_COMPRESSED, CHUNKED = 1, 2, 3, 5
SPECIAL = {2: "data in another file", 4: "linked blocks of variable length", 6: "buffered data", 7: "a raster image"}
CODERS = {0: "none", 1: "RLE", 2: "NBIT", 3: "skipping Huffman", 4: "deflate", 5: "szip", 7: "JPEG", 12: "IMCOMP"}

#: Pieces of the file: offset and length of each, in order.
Pieces = list[tuple[int, int]]


@dataclass(frozen=True)
class Stored:
    """The bytes of one element, wherever they are, and how they decode.

    Attributes
    ----------
    pieces
        Where they are; none where nothing was written. The last may hold more than is used.
    codecs
        Bytes-to-bytes codecs, in encoding order.
    length
        How many bytes they decode to.
    """

    pieces: Pieces
    codecs: tuple[Codec, ...]
    length: int


@dataclass(frozen=True)
class Chunks:
    """What a chunked element says of its chunks.

    Attributes
    ----------
    shape, chunk_shape
        Of the array and of its chunks.
    table
        Reference number of the Vdata that lists the chunks.
    fill
        The bytes of the fill value.
    """

    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    table: int
    fill: bytes


def stored(directory: Directory, entry: Descriptor) -> Stored | Chunks:
    """Return how the data of an element are stored.

    Raises
    ------
    FormatError
        If the description is not one.
    UnsupportedFeatureError
        If it is of a kind that is not known.
    """
    if not entry.special:
        return Stored([(entry.offset, entry.length)] if entry.length else [], (), entry.length)
    unpack = directory.unpack(entry)
    code = unpack.one("H")
    if code == IN_LINKED_BLOCKS:
        return _linked(directory, unpack)
    if code == IS_COMPRESSED:
        return _compressed(directory, unpack)
    if code == CHUNKED:
        return _chunked(unpack)
    raise UnsupportedFeatureError(SPECIAL.get(code, f"the unknown kind {code} of special element"))


def plain(directory: Directory, entry: Descriptor) -> Stored:
    """Return how the data of an element are stored that cannot be chunked.

    Raises
    ------
    FormatError
        If it is.
    """
    found = stored(directory, entry)
    if isinstance(found, Chunks):
        raise FormatError(f"the element {entry.tag}/{entry.ref} is chunked", url=directory.reader.url)
    return found


def _linked(directory: Directory, unpack: Unpacker) -> Stored:
    length, _block, count, ref = unpack.take("IIIH")
    pieces: Pieces = []
    missing, seen = length, set()
    while ref and missing > 0:
        table = directory.find(LINKED, ref)
        if table is None or ref in seen:
            raise FormatError(f"linked blocks {ref} are not there, or lead in a circle", url=directory.reader.url)
        seen.add(ref)
        links = directory.unpack(table)
        ref = links.one("H")
        for _ in range(count):
            member = links.one("H")
            if missing <= 0:
                break
            found = directory.find(LINKED, member) if member else None
            if found is None or not found.length:
                raise UnsupportedFeatureError("linked blocks some of which were never written")
            pieces.append((found.offset, found.length))
            missing -= found.length
    if missing > 0:
        raise UnsupportedFeatureError("linked blocks some of which were never written")
    return Stored(_joined(pieces), (), length)


def _joined(pieces: Pieces) -> Pieces:
    """Return pieces with neighbours joined."""
    joined: Pieces = []
    for offset, length in pieces:
        if joined and sum(joined[-1]) == offset:
            joined[-1] = joined[-1][0], joined[-1][1] + length
        else:
            joined.append((offset, length))
    return joined


def trimmed(pieces: Pieces, nbytes: int) -> Pieces:
    """Return the pieces that hold the first bytes."""
    kept: Pieces = []
    for offset, length in pieces:
        if nbytes > 0:
            kept.append((offset, min(length, nbytes)))
            nbytes -= length
    return kept


def _compressed(directory: Directory, unpack: Unpacker) -> Stored:
    _version, length, ref = unpack.take("HIH")
    codecs = _coder(unpack)
    entry = directory.find(COMPRESSED, ref)
    if entry is None:
        return Stored([], codecs, length)
    data = plain(directory, entry)
    if data.codecs:
        raise FormatError(f"compressed data {ref} are compressed twice", url=directory.reader.url)
    return Stored(trimmed(data.pieces, data.length), codecs, length)


def _coder(unpack: Unpacker) -> tuple[Codec, ...]:
    """Return the codecs for a compression.

    Raises
    ------
    UnsupportedFeatureError
        If there is none.
    """
    _model, coder = unpack.take("HH")
    if coder == 0:
        return ()
    if coder == 1:
        return ({"name": hdf4_rle.NAME},)
    if coder == 4:
        level = unpack.one("H")
        return ({"name": "numcodecs.zlib", "configuration": {"level": level if level <= 9 else 6}},)
    raise UnsupportedFeatureError(f"{CODERS.get(coder, f'unknown ({coder})')} compression")


def _chunked(unpack: Unpacker) -> Chunks:
    unpack.take("IB")
    unpack.take("IIII")
    _table_tag, table, _special_tag, _special_ref, ndim = unpack.take("HHHHI")
    if not 0 < ndim <= 32:
        raise FormatError(f"chunks of {ndim} dimensions")
    dims = [unpack.take("III") for _ in range(ndim)]
    fill = unpack.bytes(unpack.one("I"))
    shape, chunk_shape = tuple(dim[1] for dim in dims), tuple(dim[2] for dim in dims)
    if min(chunk_shape) < 1 or math.prod(chunk_shape) > 2**40:
        raise FormatError(f"chunks of the shape {chunk_shape}")
    return Chunks(shape, chunk_shape, table, fill)
