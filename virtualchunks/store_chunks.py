"""Chunks of a store: the bytes under a key, found, and what is served of them.

Arrays whose chunks all decode alike are served byte for byte; others decoded, as plain bytes. How keys are spelled is
the business of :mod:`virtualchunks.store_keys`.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from zarr.abc.store import ByteRequest

from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.reading.blocks import BlockCache
from virtualchunks.reading.decode import cell_of, encode_cell, placed, row_encoding, transcode
from virtualchunks.reading.tally import Tally
from virtualchunks.sources import SourceTable, Stamp
from virtualchunks.store_keys import ServedArray, clamp


@dataclass(frozen=True, slots=True)
class Reference:
    """The bytes of one chunk, found and not yet read."""

    served: ServedArray
    index: tuple[int, ...]
    sources: SourceTable
    source: int
    offset: int
    length: int

    @property
    def url(self) -> str:
        """Where the bytes are; empty where they are in memory."""
        return self.served.source(self.sources, self.source)[0]

    @property
    def stamp(self) -> Stamp | None:
        """What is recorded of the object at the URL."""
        return self.served.source(self.sources, self.source)[1]

    @property
    def held(self) -> memoryview | None:
        """The bytes, where they are in memory."""
        buffer = self.sources.buffer(self.source)
        return None if buffer is None else memoryview(buffer)[self.offset : self.offset + self.length]

    def wanted(self, request: ByteRequest | None) -> tuple[int, int]:
        """Return which part of the stored bytes a request on the served ones needs."""
        if not self.served.transcodes:
            return clamp(request, self.length)
        length = self.served.length(self.index)
        start, stop = clamp(request, sys.maxsize if length is None else length)
        return (0, self.length) if start < stop else (0, 0)

    def place(self) -> AbstractContextManager[None]:
        """Return a context that gives errors the place of this chunk."""
        return placed(
            url=self.url or None, variable=self.served.path, chunk=self.index, span=(self.offset, self.length)
        )

    def shared_block(self) -> tuple[Any, ...] | None:
        """Return a key for the decoded block, where that is several chunks."""
        if not self.served.shares_blocks:
            return None
        metadata = self.served.array.metadata
        encoding = row_encoding(metadata, self.sources, self.source)
        shape = metadata.grid.nominal_shape(self.index) if encoding.shape is None else encoding.shape
        where = self.url or (self.served.path, self.source)
        return where, self.stamp, self.offset, self.length, encoding.block_key, shape

    def known(self, blocks: BlockCache, tally: Tally) -> Any:
        """Return the decoded block, where that is several chunks and still kept; count the chunk."""
        block = blocks.get(self.shared_block()) if self.served.shares_blocks else None
        if block is not None:
            tally.add(chunks=1, cache_hits=1)
        elif self.held is None:
            tally.add(chunks=1)
        return block

    def transcoded(self, data: Any, request: ByteRequest | None, blocks: BlockCache, known: Any) -> bytes:
        """Return the part of the served bytes that is requested, from the bytes as they are stored, or their block."""
        array, key = self.served.array, self.shared_block()
        metadata, block = array.metadata, known
        with self.place():
            if key is None:
                return part_of(transcode(array, self.index, data), request)
            encoding = row_encoding(metadata, self.sources, self.source)
            if block is None:
                block = decode_block(data, encoding, metadata.grid.nominal_shape(self.index))
                blocks.put(key, block)
            return part_of(encode_cell(metadata, self.index, cell_of(metadata, encoding, self.index, block)), request)


def part_of(value: bytes, byte_range: ByteRequest | None) -> bytes:
    """Return the part of a value that is requested."""
    start, stop = clamp(byte_range, len(value))
    return value if stop - start == len(value) else value[start:stop]
