"""Chunks of a store: the bytes under a key, found, and what is served of them.

Arrays whose chunks all decode alike are served byte for byte; others decoded, as plain bytes. How keys are spelled is
the business of :mod:`virtualchunks.store_keys`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from zarr.abc.store import ByteRequest

from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.errors import VirtualChunksError
from virtualchunks.reading.blocks import BlockCache
from virtualchunks.reading.chunkwise import ChunkReader, Source
from virtualchunks.reading.decode import cell_of, encode_cell, give_place, row_encoding
from virtualchunks.reading.fetch import SHORT
from virtualchunks.reading.tally import Tally
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.store_keys import Reference, clamp


class ChunkServer:
    """Serves the bytes of chunks, as they are stored or transcoded.

    Parameters
    ----------
    registry
        Which must grant their URLs.
    cache
        Blocks that are kept for other readers, too; by default those that several chunks share are kept here.
    """

    def __init__(self, registry: ObjectStoreRegistry, cache: BlockCache | None = None) -> None:
        self.tally = Tally()
        self.cache = cache
        self.reader = ChunkReader(registry, self.tally)
        self._blocks = BlockCache(at_least_one=True)

    def serve(self, found: Reference, request: ByteRequest | None) -> Any:
        """Return the part of a chunk that is requested.

        Raises
        ------
        ReadError, NotGrantedError, DecodeError
            With the place of the chunk.
        """
        if request is None and not found.served.transcodes and found.length:
            return self._whole(found)
        source, start, stop, block = self._begin(found, request)
        data: Any = b"" if source.held is None else source.held[start:stop]
        try:
            if source.held is None and start < stop and block is None:
                data = self.reader.read(source, start, stop - start)
            if found.served.transcodes and start < stop:
                data = self._transcoded(found, source, data, request, block)
        except VirtualChunksError as error:
            _place(error, found, source)
            raise
        return data

    def _whole(self, found: Reference) -> Any:
        """Return a chunk as it is stored: the usual case."""
        source = self.reader.source(found.sources, found.row)
        if source.held is not None:
            return source.held[found.offset : found.offset + found.length]
        self.tally.chunk()
        try:
            return self.reader.read(source, found.offset, found.length)
        except VirtualChunksError as error:
            _place(error, found, source)
            raise

    def at_hand(self, found: Reference) -> Any:
        """Return a chunk as it is stored, where that takes no waiting for others; ``None`` elsewhere."""
        if found.served.transcodes or not 0 < found.length <= SHORT:
            return None
        source = self.reader.source(found.sources, found.row)
        if source.held is not None:
            return source.held[found.offset : found.offset + found.length]
        data = self.reader.ready(source, found.offset, found.length)
        if data is not None:
            self.tally.chunk()
        return data

    async def aserve(self, found: Reference, request: ByteRequest | None) -> Any:
        """Return what :meth:`serve` does, on the running event loop."""
        source, start, stop, block = self._begin(found, request)
        data: Any = b"" if source.held is None else source.held[start:stop]
        try:
            if source.held is None and start < stop and block is None:
                data = await self.reader.aread(source, start, stop - start)
            if found.served.transcodes and start < stop:
                data = await asyncio.to_thread(self._transcoded, found, source, data, request, block)
        except VirtualChunksError as error:
            _place(error, found, source)
            raise
        return data

    def _begin(self, found: Reference, request: ByteRequest | None) -> tuple[Source, int, int, Any]:
        """Return where the bytes are, which of them are needed, and their block where it is kept; count the chunk."""
        source = self.reader.source(found.sources, found.row)
        start, stop = (0, found.length) if request is None else _wanted(found, request)
        block = self._blocks.get(_shared_block(found, source)) if found.served.shares_blocks else None
        if block is not None:
            self.tally.add(chunks=1, cache_hits=1)
        elif source.held is None:
            self.tally.chunk()
        return source, found.offset + start, found.offset + stop, block

    def _transcoded(self, found: Reference, source: Source, data: Any, request: ByteRequest | None, known: Any) -> Any:
        """Return the part of the served bytes that is requested, from the bytes as they are stored, or their block."""
        metadata, block = found.served.array.metadata, known
        encoding = row_encoding(metadata, found.sources, found.row)
        if block is None:
            block = decode_block(data, encoding, metadata.grid.nominal_shape(found.chunk))
            key = _shared_block(found, source)
            if key is not None:
                self._blocks.put(key, block)
        return part_of(encode_cell(metadata, found.chunk, cell_of(metadata, encoding, found.chunk, block)), request)


def _wanted(found: Reference, request: ByteRequest) -> tuple[int, int]:
    """Return which part of the stored bytes a request on the served ones needs."""
    if not found.served.transcodes:
        return clamp(request, found.length)
    length = found.served.length(found.chunk)
    start, stop = clamp(request, sys.maxsize if length is None else length)
    return (0, found.length) if start < stop else (0, 0)


def _shared_block(found: Reference, source: Source) -> tuple[Any, ...] | None:
    """Return a key for the decoded block, where that is several chunks."""
    if not found.served.shares_blocks:
        return None
    metadata = found.served.array.metadata
    encoding = row_encoding(metadata, found.sources, found.row)
    shape = metadata.grid.nominal_shape(found.chunk) if encoding.shape is None else encoding.shape
    where = source.url or (found.served.path, found.row)
    return where, source.stamp, found.offset, found.length, encoding.block_key, shape


def _place(error: VirtualChunksError, found: Reference, source: Source) -> None:
    """Give an error the place of a chunk."""
    span = found.offset, found.length
    give_place(error, url=source.url or None, variable=found.served.path, chunk=found.chunk, span=span)


def part_of(value: bytes | memoryview, byte_range: ByteRequest | None) -> bytes | memoryview:
    """Return the part of a value that is requested."""
    start, stop = clamp(byte_range, len(value))
    return value if stop - start == len(value) else value[start:stop]
