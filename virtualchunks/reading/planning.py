"""Planning: from a selection of an array to the requests that read it, before anything is read.

The chunks touched are one array of records; those of one object are one group, in the order of their bytes. What
:mod:`virtualchunks.reading.values` asks for is what :func:`plan_values` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.grid import IntArray
from virtualchunks.manifest import Records
from virtualchunks.reading.cuts import AxisCut, cut_axes
from virtualchunks.reading.decode import placed
from virtualchunks.reading.fetch import prepare
from virtualchunks.reading.ranges import Coalescing, plan
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable

_EXACTLY = Coalescing(gap=0, size=2**62)


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What reading a selection takes.

    Attributes
    ----------
    requests
        Requests, or reads of a local file.
    bytes_needed, bytes_fetched
        Bytes of the chunks, each counted once, and bytes asked for: those between chunks that lie close together, too.
    objects
        Objects that are asked.
    virtual, inline, missing
        Chunks touched: in objects, held in memory, and nowhere.

    Examples
    --------
    >>> ReadPlan(requests=1, bytes_needed=8, bytes_fetched=10, objects=1, virtual=2, inline=0, missing=1).chunks
    3
    """

    requests: int
    bytes_needed: int
    bytes_fetched: int
    objects: int
    virtual: int
    inline: int
    missing: int

    @property
    def chunks(self) -> int:
        """Chunks touched in all."""
        return self.virtual + self.inline + self.missing


@dataclass(frozen=True, eq=False, slots=True)
class Group:
    """Chunks of one object, in the order of their places in it.

    Attributes
    ----------
    row
        A source row of the object. The chunks may name others, which differ in their encodings.
    chunks
        Their numbers among the chunks touched.
    records
        Their records.
    """

    row: int
    chunks: IntArray
    records: Records


@dataclass(frozen=True, eq=False)
class Touched:
    """The chunks that a selection touches.

    Attributes
    ----------
    cuts
        What is taken along each axis.
    records
        Those of the chunks, in C order.
    shape
        Number of chunks along each axis.
    sources
        The table that the records name.
    """

    cuts: Sequence[AxisCut]
    records: Records
    shape: tuple[int, ...]
    sources: SourceTable

    @classmethod
    def by(cls, array: ManifestArray, selection: Any) -> Touched:
        """Return what a selection of an array touches; see :func:`~virtualchunks.reading.cuts.cut_axes`."""
        cuts = cut_axes(array, selection)
        manifest = array.manifest.select([cut.chunks for cut in cuts])
        records = manifest.records
        return cls(cuts, np.atleast_1d(records).reshape(-1), records.shape, manifest.sources)

    @property
    def size(self) -> tuple[int, ...]:
        """Elements taken along each axis."""
        return tuple(cut.size for cut in self.cuts)

    def groups(self) -> tuple[list[Group], list[Group]]:
        """Return the chunks held in memory, and those of each object."""
        source = self.records["source"]
        order = np.argsort(source, kind="stable")
        order = order[source[order] >= 0]
        if not len(order):
            return [], []
        rows, begins = np.unique(source[order], return_index=True)
        held: list[Group] = []
        distant: dict[Any, list[tuple[int, IntArray]]] = {}
        several = self.sources.encoding_ids is not None
        for row, chunks in zip(rows.tolist(), np.split(order, begins[1:]), strict=True):
            if self.sources.buffer(row) is not None:
                held.append(self._group(row, chunks))
            else:
                key = (self.sources.url(row), self.sources.stamp(row)) if several else row
                distant.setdefault(key, []).append((row, chunks))
        return held, [
            self._group(parts[0][0], parts[0][1] if len(parts) == 1 else np.concatenate([part[1] for part in parts]))
            for parts in distant.values()
        ]

    def _group(self, row: int, chunks: IntArray) -> Group:
        records = self.records[chunks]
        if len(chunks) > 1:
            sequence = np.lexsort((records["source"], records["length"], records["offset"]))
            chunks, records = chunks[sequence], records[sequence]
        return Group(row, chunks, records)


def plan_values(
    array: ManifestArray, registry: ObjectStoreRegistry, selection: Any = None, *, name: str | None = None
) -> ReadPlan:
    """Say what reading a selection takes; nothing is read.

    Parameters
    ----------
    array, registry, selection, name
        As for :func:`~virtualchunks.reading.values.read_values`.

    Returns
    -------
    ReadPlan
        Of the first mirror, where an object has several.

    Raises
    ------
    NotGrantedError
        If the registry does not cover a URL.
    ShortReadError
        If a chunk ends beyond its object as that was parsed.

    Examples
    --------
    >>> from virtualchunks.manifest import ChunkManifest
    >>> from virtualchunks.metadata import ArrayMetadata
    >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="u1")
    >>> array = ManifestArray(metadata, ChunkManifest.of_buffers([bytes([0, 1]), bytes([2, 3])], (2,)))
    >>> plan_values(array, ObjectStoreRegistry()).inline
    2
    """
    touched = Touched.by(array, selection)
    held, distant = touched.groups()
    requests = needed = fetched = 0
    urls = set()
    for group in distant:
        url = touched.sources.url(group.row)
        offsets, lengths = group.records["offset"], group.records["length"]
        with placed(url=url, variable=name):
            location = registry.locate_all(url)[0]
            todo, _ = prepare(location, offsets, lengths, touched.sources.stamp(group.row) or None)
        requests, fetched = requests + len(todo), fetched + todo.nbytes
        needed += plan(offsets, lengths, _EXACTLY).nbytes
        urls.add(url)
    inline = sum(len(group.chunks) for group in held)
    virtual = sum(len(group.chunks) for group in distant)
    return ReadPlan(
        requests=requests,
        bytes_needed=needed,
        bytes_fetched=fetched,
        objects=len(urls),
        virtual=virtual,
        inline=inline,
        missing=len(touched.records) - inline - virtual,
    )
