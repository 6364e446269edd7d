"""Inlining: small chunks fetched once, with merged requests, and held in memory in place of references."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.manifest import ChunkManifest
from virtualchunks.reading.fetch import fetch
from virtualchunks.reading.values import OBJECTS_AT_ONCE
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable, Stamp

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Wanted:
    """Chunks of one array that lie in one object, by their number in C order."""

    name: str
    places: Ints
    offsets: Ints
    lengths: Ints


def inlined(
    arrays: Mapping[str, ManifestArray], registry: ObjectStoreRegistry, threshold: int
) -> dict[str, ManifestArray]:
    """Return arrays whose small chunks are held in memory.

    Parameters
    ----------
    arrays
        Arrays, by any name.
    registry
        Which must grant the objects that have small chunks.
    threshold
        The most bytes that a chunk may have to be fetched.

    Returns
    -------
    dict of str to ManifestArray
        The same arrays, by the same names; what is held decodes as it did.

    Raises
    ------
    UnsupportedFeatureError
        If the threshold is negative.
    ReadError, NotGrantedError
        As :func:`~virtualchunks.reading.fetch.fetch`; every object must be the one that was parsed.

    Examples
    --------
    >>> from obstore.store import MemoryStore
    >>> from virtualchunks.metadata import ArrayMetadata
    >>> store = MemoryStore()
    >>> _ = store.put("a", b"0123456789")
    >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="u1")
    >>> entries = {str(i): {"path": "memory:///a", "offset": 3 * i, "length": 2} for i in range(2)}
    >>> registry = ObjectStoreRegistry({"memory://": store})
    >>> inlined({"v": ManifestArray(metadata, entries)}, registry, 100)["v"].manifest["1"]["data"]
    b'34'
    """
    if threshold < 0:
        raise UnsupportedFeatureError(f"a threshold counts bytes: {threshold} is none")
    objects: dict[tuple[str, Stamp], list[_Wanted]] = {}
    for name, array in arrays.items():
        for key, wanted in _small_chunks(name, array.manifest, threshold):
            objects.setdefault(key, []).append(wanted)
    data: dict[str, list[tuple[Ints, list[memoryview]]]] = {name: [] for name in arrays}
    with ThreadPoolExecutor(OBJECTS_AT_ONCE, "virtualchunks-inline") as pool:
        answers = pool.map(lambda item: _fetched(registry, *item), objects.items())
        for parts, found in zip(objects.values(), answers, strict=True):
            start = 0
            for part in parts:
                data[part.name].append((part.places, found[start : start + len(part.places)]))
                start += len(part.places)
    return {name: _holding(array, data[name]) for name, array in arrays.items()}


def _small_chunks(name: str, manifest: ChunkManifest, threshold: int) -> list[tuple[tuple[str, Stamp], _Wanted]]:
    """Return what is to be fetched of each object."""
    table = manifest.sources
    if not len(table):
        return []
    flat = manifest.records.reshape(-1)
    elsewhere = np.ones(len(table) + 1, dtype=bool)
    elsewhere[-1] = False  # missing chunks have the source -1
    elsewhere[list(table.buffers or ())] = False
    places = np.flatnonzero(elsewhere[flat["source"]] & (flat["length"] <= threshold))
    if not len(places):
        return []
    order = places[np.argsort(flat["source"][places], kind="stable")]
    rows, starts = np.unique(flat["source"][order], return_index=True)
    return [
        (
            (table.url(row), table.stamp(row)),
            _Wanted(name, part, flat["offset"][part].astype(np.int64), flat["length"][part].astype(np.int64)),
        )
        for row, part in zip(rows.tolist(), np.split(order, starts[1:]), strict=True)
    ]


def _fetched(registry: ObjectStoreRegistry, key: tuple[str, Stamp], parts: list[_Wanted]) -> list[memoryview]:
    url, stamp = key
    ranges = np.stack(
        [np.concatenate([part.offsets for part in parts]), np.concatenate([part.lengths for part in parts])], axis=1
    )
    return fetch(registry, url, ranges, stamp or None)


def _holding(array: ManifestArray, found: list[tuple[Ints, list[memoryview]]]) -> ManifestArray:
    """Return an array with chunks held in memory, one buffer for each way in which they decode."""
    if not found:
        return array
    records = array.manifest.records.copy()
    flat = records.reshape(-1)  # a view: a copy is contiguous
    table = array.manifest.sources
    ids = np.zeros(len(table), dtype=np.int32) if table.encoding_ids is None else table.encoding_ids
    rows: dict[int, int] = {}
    pieces: list[list[memoryview]] = []
    ends: list[int] = []
    for places, parts in found:
        row = rows.setdefault(int(ids[flat["source"][places[0]]]), len(rows))
        if row == len(pieces):
            pieces.append([])
            ends.append(0)
        lengths = flat["length"][places].astype(np.int64)
        flat["source"][places] = len(table) + row
        flat["offset"][places] = ends[row] + np.cumsum(lengths) - lengths
        ends[row] += int(lengths.sum())
        pieces[row] += parts
    buffers = SourceTable.of_buffers([b"".join(parts) for parts in pieces])
    if table.encoding_ids is not None:
        buffers = buffers.replace(encoding_ids=np.array(list(rows), dtype=np.int32), encodings=table.encodings)
    manifest = ChunkManifest.from_records(records, SourceTable.concat([table, buffers]))
    return ManifestArray(array.metadata, manifest)
