"""Values: selections of an array of references, read in bulk.

The chunks that a selection touches are grouped by object and asked for in merged requests. What a request brings goes
into place at once: chunks of plain elements all together (:mod:`virtualchunks.reading.placing`), others decoded one by
one, in several threads where their codecs let threads run. Missing chunks cost nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.pipeline import decode_block, leaves_threads_running
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import ManifestError, VirtualChunksError
from virtualchunks.grid import IntArray
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.blocks import BlockCache, own
from virtualchunks.reading.cuts import selector
from virtualchunks.reading.decode import cell_of, give_place, placed, row_encoding, transcode
from virtualchunks.reading.fetch import fetch, fetch_each
from virtualchunks.reading.placing import FEWEST, layout_of, place
from virtualchunks.reading.planning import Group, Touched
from virtualchunks.reading.ranges import Plan
from virtualchunks.reading.tally import Tally
from virtualchunks.registry import ObjectStoreRegistry

#: Objects read at the same time.
OBJECTS_AT_ONCE = 16
#: Bytes, as they are stored, that are worth the start of a thread that decodes them.
WORTH_A_THREAD = 256 << 10
#: Shapes of chunks, in irregular grids, that are told apart to put chunks into place together.
MOST_SHAPES = 8
#: Threads that decode, unless zarr's setting says how many.
DECODING_THREADS = min(8, os.cpu_count() or 1)


def read_values(
    array: ManifestArray,
    registry: ObjectStoreRegistry,
    selection: Any = None,
    *,
    name: str | None = None,
    tally: Tally | None = None,
    cache: BlockCache | None = None,
) -> npt.NDArray[Any]:
    """Read the values of a selection of an array.

    Parameters
    ----------
    array
        The array of references.
    registry
        Which must grant its URLs.
    selection
        What to read, as for :func:`~virtualchunks.reading.cuts.cut_axes`; by default everything.
    name
        What errors call the array.
    tally
        Where requests, bytes and chunks are counted.
    cache
        Blocks that were decoded before, and that other reads may need again.

    Returns
    -------
    numpy.ndarray
        As NumPy would select from the array's values: integers drop their axis.

    Raises
    ------
    ReadError
        If bytes are gone, changed or too few.
    NotGrantedError
        If the registry does not cover a URL.
    DecodeError
        If bytes do not decode to their chunk.

    Examples
    --------
    >>> from virtualchunks.manifest import ChunkManifest
    >>> from virtualchunks.metadata import ArrayMetadata
    >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="u1", fill_value=9)
    >>> array = ManifestArray(metadata, ChunkManifest.of_buffers([bytes([0, 1]), bytes([2, 3])], (2,)))
    >>> read_values(array, ObjectStoreRegistry(), slice(None, None, -1)).tolist()
    [3, 2, 1, 0]
    """
    touched = Touched.by(array, selection)
    complete = bool((touched.records["source"] >= 0).all())
    out = (
        np.empty(touched.size, dtype=array.dtype)
        if complete
        else np.full(touched.size, array.metadata.fill_value, dtype=array.dtype)
    )
    Reading(array, touched, out, registry, name, tally, cache).run()
    return out.reshape(tuple(cut.size for cut in touched.cuts if not cut.dropped))


@dataclass(frozen=True, eq=False)
class Reading:
    """One call of :func:`read_values`: the chunks touched, and where their values go."""

    array: ManifestArray
    touched: Touched
    out: npt.NDArray[Any]
    registry: ObjectStoreRegistry
    name: str | None
    tally: Tally | None
    cache: BlockCache | None = None

    def run(self) -> None:
        """Read everything: chunks in memory first, then object by object."""
        held, distant = self.touched.groups()
        for group in held:
            buffer = memoryview(self.touched.sources.buffer(group.row) or b"")
            self.use(group, np.arange(len(group.chunks)), group.records["offset"].astype(np.int64), buffer)
        _for_each(self.fetch, distant)

    def fetch(self, group: Group) -> None:
        """Read the chunks of one object."""
        sources = self.touched.sources
        group = self.uncached(group)
        if not len(group.chunks):
            return
        url = sources.url(group.row)
        chunk = self.indices(group.chunks)[0] if len(group.chunks) == 1 else None
        offsets, lengths = group.records["offset"].astype(np.int64), group.records["length"].astype(np.int64)
        full, empty = np.flatnonzero(lengths > 0), np.flatnonzero(lengths == 0)

        def use(todo: Plan, number: int, data: memoryview) -> None:
            first, last = np.searchsorted(todo.request[full], [number, number + 1])
            members = full[first:last]
            self.use(group, members, todo.within[members], data)

        with placed(url=url, variable=self.name, chunk=chunk):
            fetch_each(self.registry, url, offsets, lengths, sources.stamp(group.row) or None, use, tally=self.tally)
        self.use(group, empty, np.zeros(len(empty), dtype=np.int64), memoryview(b""))
        if self.tally is not None:
            self.tally.add(chunks=len(group.chunks))

    def use(self, group: Group, members: IntArray, offsets: IntArray, data: memoryview) -> None:
        """Put chunks of a group into place, which begin at ascending offsets of some bytes."""
        if len(members) >= FEWEST and self.cache is None:
            left = self.place(group, members, offsets, data)
            members, offsets = members[left], offsets[left]
        if not len(members):
            return
        encodings = self.encodings(group)
        threads = min(decoding_threads(), len(members), int(len(data) // WORTH_A_THREAD))
        if threads < 2 or self.out.dtype.kind in "OT" or not all(map(leaves_threads_running, encodings.values())):
            self.decode(group, encodings, members, offsets, data)
            return
        spans = group.records[["offset", "length"]][members]
        heads = np.flatnonzero(np.append(True, spans[1:] != spans[:-1]))
        cuts = np.unique(heads[np.linspace(0, len(heads), 4 * threads, endpoint=False).astype(np.int64)])[1:]
        parts = list(zip(np.split(members, cuts), np.split(offsets, cuts), strict=True))
        _for_each(lambda part: self.decode(group, encodings, *part, data), parts, threads)

    def encodings(self, group: Group) -> dict[int, ChunkEncoding]:
        """Return the encoding of each source row of a group."""
        rows = [group.row] if self.touched.sources.encoding_ids is None else np.unique(group.records["source"]).tolist()
        return {row: row_encoding(self.array.metadata, self.touched.sources, row) for row in rows}

    def place(self, group: Group, members: IntArray, offsets: IntArray, data: memoryview) -> npt.NDArray[np.bool_]:
        """Put chunks of plain elements into place; return which ones are left."""
        left = np.ones(len(members), dtype=bool)
        if not self.touched.shape:
            return left
        records = group.records[members]
        places = np.unravel_index(group.chunks[members], self.touched.shape)
        for shape, of_shape in self.shapes(places):
            for row, encoding in self.encodings(group).items():
                layout = layout_of(encoding, shape, self.array.dtype)
                if layout is None:
                    continue
                fits = of_shape & (records["source"] == row) & (records["length"] == layout.nbytes)
                chosen = np.flatnonzero(fits & (offsets + layout.nbytes <= len(data)))
                if len(chosen) >= FEWEST:
                    own = [where[chosen] for where in places]
                    done = place(self.out, self.touched.cuts, own, layout, data, offsets[chosen])
                    left[chosen[done]] = False
        return left

    def shapes(self, places: Sequence[IntArray]) -> list[tuple[tuple[int, ...], Any]]:
        """Return the nominal shapes of chunks, and which chunks have each; none where there are too many."""
        grid = self.array.metadata.grid
        if grid.is_regular:
            return [(grid.chunk_shape, True)]
        axes = zip(grid.axes, self.touched.cuts, places, strict=True)
        sizes = np.stack([axis.nominal[cut.chunks[where]] for axis, cut, where in axes], axis=1)
        found, number = np.unique(sizes, axis=0, return_inverse=True)
        if len(found) > max(MOST_SHAPES, len(sizes) // 16):
            return []
        return [(tuple(shape), number.reshape(-1) == i) for i, shape in enumerate(found.tolist())]

    def decode(
        self,
        group: Group,
        encodings: dict[int, ChunkEncoding],
        members: IntArray,
        offsets: IntArray,
        data: memoryview,
    ) -> None:
        """Decode chunks one by one and put them into place, each distinct block decoded once."""
        records, url = group.records[members], self.touched.sources.url(group.row) or None
        blocks, chunks = Blocks(self.array.metadata, self.cache), group.chunks[members]
        stamp = self.touched.sources.stamp(group.row)
        blocks.source = (url, stamp) if url and stamp else None
        places, indices = self.places(chunks), self.indices(chunks)
        rows = [group.row] * len(members) if len(encodings) == 1 else records["source"].tolist()
        spans = zip(records["offset"].tolist(), records["length"].tolist(), strict=True)
        for where, index, span, row, start in zip(places, indices, spans, rows, offsets.tolist(), strict=True):
            try:
                cell = blocks.cell(encodings[row], index, span, data[start : start + span[1]])
            except VirtualChunksError as error:
                give_place(error, url=url, variable=self.name, chunk=index, span=span)
                raise
            self.put(where, cell)

    def uncached(self, group: Group) -> Group:
        """Put the chunks into place whose blocks are known already; return the others."""
        cache = self.cache
        if cache is None or not len(cache):
            return group
        url, blocks, encodings = self.touched.sources.url(group.row), Blocks(self.array.metadata), self.encodings(group)
        source = url, self.touched.sources.stamp(group.row)
        left = np.ones(len(group.chunks), dtype=bool)
        rows = group.records["source"].tolist()
        spans = zip(group.records["offset"].tolist(), group.records["length"].tolist(), strict=True)
        chunks = zip(self.places(group.chunks), self.indices(group.chunks), spans, rows, strict=True)
        for number, (where, index, span, row) in enumerate(chunks):
            block = cache.get((source, *blocks.key(encodings[row], index, span)))
            if block is not None:
                self.put(where, blocks.cell_of(encodings[row], index, block))
                left[number] = False
        hits = int(len(left) - np.count_nonzero(left))
        if self.tally is not None and hits:
            self.tally.add(chunks=hits, cache_hits=hits)
        return Group(group.row, group.chunks[left], group.records[left])

    def places(self, chunks: IntArray) -> list[tuple[int, ...]]:
        """Return where chunks are among those touched, axis by axis."""
        if not self.touched.shape:
            return [()] * len(chunks)
        return list(zip(*(axis.tolist() for axis in np.unravel_index(chunks, self.touched.shape)), strict=True))

    @cached_property
    def is_even(self) -> bool:
        """Whether the elements taken of each chunk, and their places, are at a constant distance."""
        return not any(cut.odd for cut in self.touched.cuts)

    def indices(self, chunks: IntArray) -> list[tuple[int, ...]]:
        """Return the indices of chunks in the grid of the whole array."""
        if not self.touched.shape:
            return [()] * len(chunks)
        places = np.unravel_index(chunks, self.touched.shape)
        columns = (cut.chunks[where].tolist() for cut, where in zip(self.touched.cuts, places, strict=True))
        return list(zip(*columns, strict=True))

    def put(self, place: tuple[int, ...], block: npt.NDArray[Any]) -> None:
        """Write the elements selected of one cell into the result."""
        cuts = self.touched.cuts
        if self.is_even:
            pairs = list(zip(cuts, place, strict=True))
            self.out[tuple([cut.places[i] for cut, i in pairs])] = block[tuple([cut.within[i] for cut, i in pairs])]
            return
        within = [cut.within[i] for cut, i in zip(cuts, place, strict=True)]
        out = [cut.places[i] for cut, i in zip(cuts, place, strict=True)]
        self.out[selector(out, self.out.shape)] = block[selector(within, block.shape)]


class Blocks:
    """The last block that was decoded, and the last cell that was taken out of it, for the chunks that share it."""

    def __init__(self, metadata: ArrayMetadata, cache: BlockCache | None = None) -> None:
        self.source: Any = None  # what the keys of a cache begin with; None where nothing tells versions apart
        self._metadata = metadata
        self._cache = cache
        self._nominal = metadata.grid.chunk_shape if metadata.grid.is_regular else None
        self._block: tuple[Any, Any] = (None, None)
        self._cell: tuple[Any, Any] = (None, None)

    def key(self, encoding: ChunkEncoding, index: tuple[int, ...], span: tuple[int, int]) -> tuple[Any, ...]:
        """Return what tells the block of a chunk apart from the others of its object."""
        shape = self._nominal if self._nominal is not None else self._metadata.grid.nominal_shape(index)
        return span, encoding.block_key, shape if encoding.shape is None else encoding.shape

    def cell(
        self, encoding: ChunkEncoding, index: tuple[int, ...], span: tuple[int, int], data: Any
    ) -> npt.NDArray[Any]:
        """Return the cell of a chunk, or a block that begins with it."""
        key = self.key(encoding, index, span)
        if key != self._block[0]:
            shape = self._nominal if self._nominal is not None else self._metadata.grid.nominal_shape(index)
            block = decode_block(data, encoding, shape)
            if self._cache is not None and self.source is not None:
                block = own(block)
                self._cache.put((self.source, *key), block)
            self._block = key, block
            self._cell = None, None
        return self.cell_of(encoding, index, self._block[1])

    def cell_of(self, encoding: ChunkEncoding, index: tuple[int, ...], block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the cell of a chunk out of its block, as :meth:`cell` does."""
        simple = encoding.packing is None and encoding.start is None and encoding.shape is None
        if simple and block.dtype == self._metadata.dtype:
            return block
        place = encoding, self._metadata.grid.cell_shape(index), id(block)
        if place != self._cell[0]:
            self._cell = place, (cell_of(self._metadata, encoding, index, block), block)
        cell: npt.NDArray[Any] = self._cell[1][0]
        return cell


def decoding_threads() -> int:
    """Return how many threads decode the chunks of a request: what zarr's ``threading.max_workers`` says.

    Where that is not set, there is one for each core, eight at most.
    """
    from zarr.core.config import config  # zarr is slow to import, and only decoding needs it

    chosen = config.get("threading.max_workers", None)
    return DECODING_THREADS if chosen is None else max(1, int(chosen))


def _for_each[T](action: Callable[[T], None], items: Sequence[T], threads: int = OBJECTS_AT_ONCE) -> None:
    """Do something for each item, several at a time, in threads that live for this call only."""
    if len(items) <= 1:
        for item in items:
            action(item)
        return
    with ThreadPoolExecutor(min(threads, len(items)), "virtualchunks-read") as pool:
        waiting = [pool.submit(action, item) for item in items]
        try:
            for future in waiting:
                future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # where one failed, the rest need not begin


def chunk_bytes(
    array: ManifestArray, index: Sequence[int], registry: ObjectStoreRegistry, *, name: str | None = None
) -> bytes | None:
    """Read one chunk as plain bytes of its nominal shape, as stores serve the chunks of heterogeneous arrays.

    Parameters
    ----------
    array
        The array.
    index
        Index of the chunk in the chunk grid.
    registry
        Which must grant its URL.
    name
        What errors call the array.

    Returns
    -------
    bytes or None
        As :func:`~virtualchunks.reading.decode.transcode`; ``None`` where the chunk is missing.

    Raises
    ------
    ManifestError
        If the index lies outside the chunk grid.
    ReadError, NotGrantedError, DecodeError
        As :func:`read_values`.
    """
    place = tuple(index)
    grid_shape = array.metadata.grid.grid_shape
    if len(place) != len(grid_shape) or any(not 0 <= i < n for i, n in zip(place, grid_shape, strict=True)):
        raise ManifestError(f"chunk {place} lies outside the chunk grid of shape {grid_shape}", chunk=place)
    sources, source, length, offset = array.manifest.record(place)
    if source < 0:
        return None
    held = sources.buffer(source)
    with placed(url=sources.url(source) or None, variable=name, chunk=place, span=(offset, length)):
        if held is not None:
            return transcode(array, place, memoryview(held)[offset : offset + length])
        [data] = fetch(registry, sources.url(source), [(offset, length)], sources.stamp(source) or None)
        return transcode(array, place, data)
