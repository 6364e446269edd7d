"""Reading several whole arrays together: coordinates lie side by side in one object, so one request is enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.errors import DecodeError
from virtualchunks.manifest import ChunkManifest
from virtualchunks.reading.decode import decode_cell, placed, row_encoding
from virtualchunks.reading.fetch import fetch
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable, Stamp

#: Bytes of a single array above which they are decoded as they come, rather than when all are there.
LARGE = 16 << 20


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
    wanted = {name: _Only.of(array) or _Several.of(array) for name, array in arrays.items()}
    objects = {place for parts in wanted.values() for place in parts.objects}
    alone = len(arrays) == 1 and sum(array.nbytes for array in arrays.values()) > LARGE
    if len(objects) != 1 or alone:
        return {name: read_values(array, registry, name=name) for name, array in arrays.items()}
    [(url, stamp)] = objects
    spans = [span for parts in wanted.values() for span in parts.spans]
    data = iter(fetch(registry, url, spans, stamp or None))
    return {name: wanted[name].values(array, registry, name, data) for name, array in arrays.items()}


@dataclass(frozen=True)
class _Only:
    """The one chunk of an array, which lies in an object: decoded without a look at its chunk grid."""

    objects: tuple[tuple[str, Stamp], ...]
    spans: tuple[tuple[int, int], ...]
    row: int

    @classmethod
    def of(cls, array: ManifestArray) -> _Only | None:
        """Return it, or ``None`` where there are several, or the only one is missing, empty or in memory."""
        manifest = array.manifest
        if manifest.records.size != 1:
            return None
        row, length, offset = manifest.records.item()
        url = manifest.sources.url(row) if row >= 0 and length else ""
        return cls(((url, manifest.sources.stamp(row)),), ((offset, length),), row) if url else None

    def values(
        self, array: ManifestArray, registry: ObjectStoreRegistry, name: str, data: Iterator[memoryview]
    ) -> npt.NDArray[Any]:
        """Return the values of the array, the bytes of which come next."""
        metadata, index = array.metadata, (0,) * array.ndim
        encoding = row_encoding(metadata, array.manifest.sources, self.row)
        with placed(url=self.objects[0][0], variable=name, chunk=index, span=self.spans[0]):
            values = decode_cell(metadata, encoding, index, next(data))
        return values if values.flags.owndata and values.flags.writeable else values.copy()


@dataclass(frozen=True)
class _Several:
    """The chunks of an array, which may lie in objects, in memory, or be missing."""

    manifest: ChunkManifest
    objects: tuple[tuple[str, Stamp], ...]

    @classmethod
    def of(cls, array: ManifestArray) -> _Several:
        """Return them, over the source rows in use."""
        manifest = array.manifest.compact()
        table = manifest.sources
        return cls(manifest, tuple((table.url(row), table.stamp(row)) for row in range(len(table)) if table.url(row)))

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Offset and length of the chunks that lie in an object."""
        records = self.manifest.records.reshape(-1)[_distant(self.manifest)]
        return list(zip(records["offset"].tolist(), records["length"].tolist(), strict=True))

    def values(
        self, array: ManifestArray, registry: ObjectStoreRegistry, name: str, data: Iterator[memoryview]
    ) -> npt.NDArray[Any]:
        """Return the values of the array, the bytes of whose distant chunks come next."""
        held = ManifestArray(array.metadata, _held(self.manifest, data))
        try:
            return read_values(held, registry, name=name)
        except DecodeError:
            return read_values(array, registry, name=name)  # raises as well, and names the place in the object


def _distant(manifest: ChunkManifest) -> npt.NDArray[np.bool_]:
    """Return which chunks are in an object, in C order of the chunk grid."""
    elsewhere = np.array([bool(manifest.sources.url(row)) for row in range(len(manifest.sources))], dtype=bool)
    source = manifest.records["source"].reshape(-1)
    return (source >= 0) & elsewhere[source] if len(elsewhere) else np.zeros(source.shape, dtype=bool)


def _held(manifest: ChunkManifest, data: Iterator[memoryview]) -> ChunkManifest:
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
