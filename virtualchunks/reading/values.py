"""Values: selections of an array of references, read in bulk.

A selection becomes, axis by axis, the chunks that it touches and the elements it takes of each. Their records are
then one array: grouped by source, fetched with one call per object, decoded and put into place. Missing chunks cost
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import ManifestError
from virtualchunks.grid import Axis, IntArray
from virtualchunks.manifest import Records
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.decode import cell_of, placed, row_encoding, transcode
from virtualchunks.reading.fetch import fetch
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable

#: Elements of an axis: consecutive ones at a constant step, or any.
Places = slice | IntArray
#: Objects read at the same time.
OBJECTS_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class AxisCut:
    """What a selection takes along one axis, chunk by chunk.

    Attributes
    ----------
    chunks
        Numbers of the chunks touched, each once.
    within, out
        For each of them, the elements taken of it and their places in the result.
    size
        Elements taken in all.
    dropped
        Whether the selection was an integer, so that the axis is not in the result.
    """

    chunks: IntArray
    within: Sequence[Places]
    out: Sequence[Places]
    size: int
    dropped: bool = False

    @classmethod
    def of_range(cls, axis: Axis, start: int, stop: int) -> AxisCut:
        """Return the cut of consecutive elements."""
        if stop <= start:
            return cls(np.empty(0, dtype=np.int64), (), (), 0)
        chunks = np.arange(axis.locate(start), axis.locate(stop - 1) + 1, dtype=np.int64)
        begins = axis.starts[chunks]
        low, high = np.maximum(begins, start), np.minimum(begins + axis.nominal[chunks], stop)
        within = [slice(a, b) for a, b in zip((low - begins).tolist(), (high - begins).tolist(), strict=True)]
        out = [slice(a, b) for a, b in zip((low - start).tolist(), (high - start).tolist(), strict=True)]
        return cls(chunks, within, out, stop - start)

    @classmethod
    def of_positions(cls, axis: Axis, positions: IntArray, *, dropped: bool = False) -> AxisCut:
        """Return the cut of elements given one by one, in any order, repeated or not."""
        if not len(positions):
            return cls.of_range(axis, 0, 0)
        chunk = np.searchsorted(axis.starts, positions, side="right") - 1
        order = np.argsort(chunk, kind="stable")
        chunks, begins = np.unique(chunk[order], return_index=True)
        parts = np.split(order, begins[1:])
        within = [_places(positions[part] - axis.starts[number]) for part, number in zip(parts, chunks, strict=True)]
        return cls(chunks.astype(np.int64), within, [_places(part) for part in parts], len(positions), dropped)


def _places(positions: IntArray) -> Places:
    """Return positions as a slice where their step is constant."""
    if len(positions) == 1:
        return slice(int(positions[0]), int(positions[0]) + 1)
    step = int(positions[1] - positions[0])
    if step == 0 or bool((np.diff(positions) != step).any()):
        return positions
    stop = int(positions[-1]) + (1 if step > 0 else -1)
    return slice(int(positions[0]), stop if stop >= 0 else None, step)


def cut_axes(array: ManifestArray, selection: Any) -> list[AxisCut]:
    """Return what a selection takes along each axis.

    Parameters
    ----------
    array
        The array.
    selection
        ``None`` for everything; otherwise integers, slices with any step, masks and integer arrays, one per axis, an
        ellipsis among them. Arrays select orthogonally.

    Raises
    ------
    IndexError
        If it is out of range or of another kind.
    """
    entries = [] if selection is None else list(selection) if isinstance(selection, tuple) else [selection]
    dots = [place for place, entry in enumerate(entries) if entry is Ellipsis]
    if len(dots) > 1 or len(entries) - len(dots) > array.ndim:
        raise IndexError(f"cannot select {selection!r} from an array of {array.ndim} dimensions")
    rest = [slice(None)] * (array.ndim - len(entries) + len(dots))
    place = dots[0] if dots else len(entries)
    full = [*entries[:place], *rest, *entries[place + 1 :]]
    return [
        _cut(axis, entry, number)
        for number, (axis, entry) in enumerate(zip(array.metadata.grid.axes, full, strict=True))
    ]


def _cut(axis: Axis, entry: Any, number: int) -> AxisCut:
    if isinstance(entry, slice):
        start, stop, step = entry.indices(axis.size)
        if step == 1:
            return AxisCut.of_range(axis, start, stop)
        return AxisCut.of_positions(axis, np.arange(start, stop, step, dtype=np.int64))
    positions = np.asarray(entry)
    if positions.dtype.kind == "b" and positions.shape == (axis.size,):
        return AxisCut.of_positions(axis, np.flatnonzero(positions))
    if positions.ndim > 1 or (positions.dtype.kind not in "iu" and positions.size):
        raise IndexError(f"cannot select {entry!r} along axis {number}; use integers, slices, masks or integer arrays")
    flat = positions.reshape(-1).astype(np.int64)
    if flat.size and not (-axis.size <= flat.min() and flat.max() < axis.size):
        raise IndexError(
            f"a selection along axis {number}, of length {axis.size}, is out of range: {flat.min()} to {flat.max()}"
        )
    return AxisCut.of_positions(axis, np.where(flat < 0, flat + axis.size, flat), dropped=positions.ndim == 0)


def read_values(
    array: ManifestArray, registry: ObjectStoreRegistry, selection: Any = None, *, name: str | None = None
) -> npt.NDArray[Any]:
    """Read the values of a selection of an array.

    Parameters
    ----------
    array
        The array of references.
    registry
        Which must grant its URLs.
    selection
        What to read, as for :func:`cut_axes`; by default everything.
    name
        What errors call the array.

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
    cuts = cut_axes(array, selection)
    manifest = array.manifest.select([cut.chunks for cut in cuts])
    records = manifest.records
    flat = np.atleast_1d(records).reshape(-1)
    shape = tuple(cut.size for cut in cuts)
    complete = bool((flat["source"] >= 0).all())
    out = (
        np.empty(shape, dtype=array.dtype) if complete else np.full(shape, array.metadata.fill_value, dtype=array.dtype)
    )
    reading = _Reading(array, cuts, flat, manifest.sources, records.shape, out, registry, name)
    reading.run()
    return out.reshape(tuple(cut.size for cut in cuts if not cut.dropped))


@dataclass(frozen=True, eq=False)
class _Reading:
    """One call of :func:`read_values`: the chunks touched, and where their values go."""

    array: ManifestArray
    cuts: Sequence[AxisCut]
    records: Records
    sources: SourceTable
    shape: tuple[int, ...]
    out: npt.NDArray[Any]
    registry: ObjectStoreRegistry
    name: str | None

    def run(self) -> None:
        """Read everything: chunks in memory first, then object by object."""
        source = self.records["source"]
        order = np.argsort(source, kind="stable")
        order = order[source[order] >= 0]
        rows, begins = np.unique(source[order], return_index=True)
        groups = list(zip(rows.tolist(), np.split(order, begins[1:]), strict=True)) if len(rows) else []
        held = self.sources.buffer
        for row, chunks in groups:
            if held(row) is not None:
                self.take(row, chunks)
        distant = self.by_object([group for group in groups if held(group[0]) is None])
        _for_each(lambda group: self.take(*group), distant)

    def take(self, row: int, chunks: IntArray) -> None:
        """Read chunks of one object, in the order of their places in it, each distinct block decoded once.

        Parameters
        ----------
        row
            A source row of the object.
        chunks
            Numbers of the chunks among those touched; their sources may differ in their encodings.
        """
        records = self.records[chunks]
        sequence = np.lexsort((records["source"], records["length"], records["offset"]))
        records = records[sequence]
        spans = list(zip(records["offset"].tolist(), records["length"].tolist(), strict=True))
        places = self.places(chunks[sequence])
        indices = [self.index(place) for place in places]
        rows = records["source"].tolist()
        encodings = {number: row_encoding(self.array.metadata, self.sources, number) for number in set(rows)}
        blocks = Blocks(self.array.metadata)
        url = self.sources.url(row) or None
        fetched = self.fetch(row, spans, indices)
        for place, index, span, number, data in zip(places, indices, spans, rows, fetched, strict=True):
            with placed(url=url, variable=self.name, chunk=index, span=span):
                cell = blocks.cell(encodings[number], index, span, data)
            self.put(place, cell)

    def by_object(self, groups: list[tuple[int, IntArray]]) -> list[tuple[int, IntArray]]:
        """Join the chunks of sources that differ in nothing but their encodings, if one block may be several chunks."""
        sources = self.sources
        if all(encoding.start is None for encoding in sources.encodings):
            return groups
        joined: dict[Any, list[tuple[int, IntArray]]] = {}
        for row, chunks in groups:
            joined.setdefault((sources.url(row), sources.stamp(row)), []).append((row, chunks))
        return [(parts[0][0], np.concatenate([chunks for _, chunks in parts])) for parts in joined.values()]

    def places(self, chunks: IntArray) -> list[tuple[int, ...]]:
        """Return where chunks are among those touched, axis by axis."""
        if not self.shape:
            return [()]
        return list(zip(*(axis.tolist() for axis in np.unravel_index(chunks, self.shape)), strict=True))

    def index(self, place: tuple[int, ...]) -> tuple[int, ...]:
        """Return the index of a chunk in the grid of the whole array."""
        return tuple(int(cut.chunks[i]) for cut, i in zip(self.cuts, place, strict=True))

    def fetch(self, row: int, spans: list[tuple[int, int]], indices: list[tuple[int, ...]]) -> Sequence[Any]:
        """Return the bytes of chunks of one source."""
        sources = self.sources
        buffer = sources.buffer(row)
        if buffer is not None:
            return [memoryview(buffer)[offset : offset + length] for offset, length in spans]
        with placed(url=sources.url(row), variable=self.name, chunk=indices[0] if len(indices) == 1 else None):
            return fetch(self.registry, sources.url(row), spans, sources.stamp(row) or None)

    def put(self, place: tuple[int, ...], block: npt.NDArray[Any]) -> None:
        """Write the elements selected of one cell into the result."""
        within = [cut.within[i] for cut, i in zip(self.cuts, place, strict=True)]
        out = [cut.out[i] for cut, i in zip(self.cuts, place, strict=True)]
        self.out[_selector(out, self.out.shape)] = block[_selector(within, block.shape)]


class Blocks:
    """The last block that was decoded, and the last cell that was taken out of it, for the chunks that share it."""

    def __init__(self, metadata: ArrayMetadata) -> None:
        self._metadata = metadata
        self._block: tuple[Any, Any] = (None, None)
        self._cell: tuple[Any, Any] = (None, None)

    def cell(
        self, encoding: ChunkEncoding, index: tuple[int, ...], span: tuple[int, int], data: Any
    ) -> npt.NDArray[Any]:
        """Return the cell of a chunk."""
        grid = self._metadata.grid
        shape = grid.nominal_shape(index)
        key = span, encoding.block_key, shape if encoding.shape is None else encoding.shape
        place = key, encoding, grid.cell_shape(index)
        if place != self._cell[0]:
            if key != self._block[0]:
                self._block = key, decode_block(data, encoding, shape)
            self._cell = place, cell_of(self._metadata, encoding, index, self._block[1])
        cell: npt.NDArray[Any] = self._cell[1]
        return cell


def _selector(places: Sequence[Places], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return an orthogonal selection in the form that NumPy takes for one."""
    if all(isinstance(place, slice) for place in places):
        return tuple(places)
    arrays = [
        np.arange(size)[place] if isinstance(place, slice) else place for place, size in zip(places, shape, strict=True)
    ]
    return np.ix_(*arrays)


def _for_each(action: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Do something for each item, several at a time, in threads that live for this call only."""
    if len(items) <= 1:
        for item in items:
            action(item)
        return
    with ThreadPoolExecutor(min(OBJECTS_AT_ONCE, len(items)), "virtualchunks-read") as pool:
        waiting = [pool.submit(action, item) for item in items]
        try:
            for future in waiting:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
