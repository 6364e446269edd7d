"""The values of the coordinates of one file: as a rule a chunk each, all of them in one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.errors import DecodeError
from virtualchunks.reading.fetch import fetch
from virtualchunks.reading.together import read_together
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import Stamp

#: Ranges that lie within so many bytes are read as one.
CLOSE = 64 << 10


def read_coordinates(arrays: Mapping[str, ManifestArray], registry: ObjectStoreRegistry) -> dict[str, npt.NDArray[Any]]:
    """Read the values of one-dimensional arrays of one file, as they are stored.

    Parameters
    ----------
    arrays
        Arrays, by the name that errors call them by.
    registry
        Which must grant their URLs.

    Raises
    ------
    ReadError, NotGrantedError, DecodeError
        As :func:`~virtualchunks.reading.together.read_together`, which reads whatever is not one chunk in one object.
    """
    places = {name: place for name, array in arrays.items() if (place := _only_chunk(array)) is not None}
    objects = {(url, stamp) for url, stamp, _ in places.values()}
    if len(objects) != 1:
        return read_together(arrays, registry)
    [(url, stamp)] = objects
    parts = _fetched(registry, url, [span for _, _, span in places.values()], stamp)
    try:
        values = {name: _block(arrays[name], part) for name, part in zip(places, parts, strict=True)}
    except DecodeError:
        return read_together(arrays, registry)  # raises as well, and names the place in the object
    others = {name: array for name, array in arrays.items() if name not in places}
    return {**values, **read_together(others, registry)} if others else values


def _fetched(
    registry: ObjectStoreRegistry, url: str, spans: Sequence[tuple[int, int]], stamp: Stamp | None
) -> Sequence[memoryview]:
    """Read ranges of one object; those that lie close together are one range, for which nothing has to be planned."""
    first, end = min(start for start, _ in spans), max(start + length for start, length in spans)
    if end - first > CLOSE:
        return fetch(registry, url, spans, stamp)
    [whole] = fetch(registry, url, [(first, end - first)], stamp)
    return [whole[start - first : start - first + length] for start, length in spans]


def _only_chunk(array: ManifestArray) -> tuple[str, Stamp | None, tuple[int, int]] | None:
    """Return the object, its stamp and the span of the only chunk of an array; ``None`` if it is not of that kind."""
    manifest = array.manifest
    if manifest.records.size != 1 or array.is_heterogeneous:
        return None
    row, length, offset = manifest.records.reshape(-1)[0].item()
    if row < 0 or not manifest.sources.url(row):
        return None
    return manifest.sources.url(row), manifest.sources.stamp(row) or None, (offset, length)


def _block(array: ManifestArray, data: Any) -> npt.NDArray[Any]:
    metadata = array.metadata
    block = decode_block(data, metadata.encoding, metadata.chunks)
    return block[: array.shape[0]].astype(array.dtype, copy=False)
