"""Reading several whole arrays of one object together: coordinates lie side by side in it, so one request is enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.errors import DecodeError
from virtualchunks.manifest import ChunkManifest
from virtualchunks.reading.fetch import fetch
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable


def read_together(arrays: Mapping[str, ManifestArray], registry: ObjectStoreRegistry) -> dict[str, npt.NDArray[Any]]:
    """Read the values of arrays, with merged requests where all their bytes are in one object.

    Parameters
    ----------
    arrays
        Arrays, by the name that errors call them by.
    registry
        Which must grant their URLs.

    Returns
    -------
    dict of str to numpy.ndarray
        Their values, by name.

    Raises
    ------
    ReadError, NotGrantedError, DecodeError
        As :func:`~virtualchunks.reading.values.read_values`.
    """
    manifests = {name: array.manifest.compact() for name, array in arrays.items()}
    tables = [manifest.sources for manifest in manifests.values()]
    objects = {(table.url(row), table.stamp(row)) for table in tables for row in range(len(table)) if table.url(row)}
    if len(arrays) > 1 and len(objects) == 1:
        [(url, stamp)] = objects
        spans = [span for manifest in manifests.values() for span in _spans(manifest)]
        data = iter(fetch(registry, url, spans, stamp or None))
        manifests = {name: _held(manifest, data) for name, manifest in manifests.items()}
    return {
        name: _values(array, ManifestArray(array.metadata, manifests[name]), registry, name)
        for name, array in arrays.items()
    }


def _values(array: ManifestArray, held: ManifestArray, registry: ObjectStoreRegistry, name: str) -> npt.NDArray[Any]:
    """Return the values of an array whose bytes are held in memory."""
    try:
        return read_values(held, registry, name=name)
    except DecodeError:
        return read_values(array, registry, name=name)  # raises as well, and names the place in the object


def _distant(manifest: ChunkManifest) -> npt.NDArray[np.bool_]:
    """Return which chunks are in an object, in C order of the chunk grid."""
    elsewhere = np.array([bool(manifest.sources.url(row)) for row in range(len(manifest.sources))], dtype=bool)
    source = manifest.records["source"].reshape(-1)
    return (source >= 0) & elsewhere[source] if len(elsewhere) else np.zeros(source.shape, dtype=bool)


def _spans(manifest: ChunkManifest) -> list[tuple[int, int]]:
    records = manifest.records.reshape(-1)[_distant(manifest)]
    return list(zip(records["offset"].tolist(), records["length"].tolist(), strict=True))


def _held(manifest: ChunkManifest, data: Any) -> ChunkManifest:
    """Return the manifest with the next chunks of `data` in memory, each row of its sources a buffer of its chunks."""
    records = manifest.records.copy()
    flat = records.reshape(-1)  # a view: a copy is contiguous
    pieces: dict[int, list[Any]] = {}
    ends: dict[int, int] = {}
    for place in np.flatnonzero(_distant(manifest)).tolist():
        row, chunk = int(flat["source"][place]), next(data)
        flat["offset"][place] = ends.get(row, 0)
        ends[row] = ends.get(row, 0) + len(chunk)
        pieces.setdefault(row, []).append(chunk)
    held = {row: b"".join(chunks) for row, chunks in pieces.items()}
    table = SourceTable.of_buffers(
        [held.get(row, manifest.sources.buffer(row) or b"") for row in range(len(manifest.sources))]
    )
    sources = table.replace(encoding_ids=manifest.sources.encoding_ids, encodings=manifest.sources.encodings)
    return ChunkManifest.from_records(records, sources)
