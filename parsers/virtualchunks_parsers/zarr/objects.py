"""Where the objects of a Zarr store are: a folder that can be listed, one that cannot, or members of a Zip archive."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from virtualchunks.errors import LimitExceededError, UnsupportedFeatureError
from virtualchunks.reading.fetch import fetch
from virtualchunks.reading.listing import child_url, list_objects, look_up, read_whole
from virtualchunks.reading.ranges import REMOTE
from virtualchunks.reading.turns import letting_others
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable, Stamp
from virtualchunks_parsers.zarr.manifests import Chunks
from virtualchunks_parsers.zarr.nodes import DOCUMENTS, StoredArray

#: Largest metadata document, and the most of all together, in bytes.
MOST_METADATA = 256 << 20
#: Most chunks of an array that are looked up one by one, where there is no listing.
MOST_LOOKUPS = 10_000


class Objects(Protocol):
    """The objects of one store."""

    def keys(self) -> list[str] | None:
        """Return the keys of all metadata documents, or ``None`` where it cannot be known which there are."""

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the contents of those objects that are there."""

    def chunks(self, array: StoredArray) -> Chunks:
        """Return the chunks of an array, a shard counting as one."""


def document_keys(names: Iterable[str]) -> list[str]:
    """Return which keys are those of metadata documents."""
    return [name for name in names if name.endswith(DOCUMENTS) and name.rpartition("/")[2] in DOCUMENTS]


def beneath(names: Sequence[str], path: str) -> range:
    """Return the places, among sorted names, of those beneath a path."""
    if not path:
        return range(len(names))
    return range(bisect_left(names, path + "/"), bisect_left(names, path + "0"))  # "0" comes right after "/"


@dataclass(frozen=True)
class Folder:
    """A folder that was listed.

    Parameters
    ----------
    url
        The folder.
    registry
        Which grants it.
    names
        Keys of its objects, sorted.
    stamps
        Their stamps.
    """

    url: str
    registry: ObjectStoreRegistry
    names: Sequence[str]
    stamps: Sequence[Stamp]

    @classmethod
    def listed(cls, url: str, registry: ObjectStoreRegistry) -> Folder:
        """List a folder."""
        objects = list_objects(registry, url)
        return cls(url, registry, list(objects), list(objects.values()))

    def keys(self) -> list[str] | None:
        """As :class:`Objects`."""
        return document_keys(self.names)

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """As :class:`Objects`."""
        rows = {key: bisect_left(self.names, key) for key in keys}
        there = {key: row for key, row in rows.items() if row < len(self.names) and self.names[row] == key}
        total = sum(self.stamps[row].size or 0 for row in there.values())
        if total > MOST_METADATA:
            raise LimitExceededError(f"{total:,} bytes of metadata; the most is {MOST_METADATA:,}", url=self.url)
        with letting_others(), ThreadPoolExecutor(REMOTE.concurrency, "virtualchunks-metadata") as pool:
            return dict(zip(there, pool.map(self._read, there.values()), strict=True))

    def _read(self, row: int) -> bytes:
        stamp = self.stamps[row]
        if not stamp.size:
            return b""
        return bytes(fetch(self.registry, child_url(self.url, self.names[row]), [(0, stamp.size)], stamp)[0])

    def chunks(self, array: StoredArray) -> Chunks:
        """As :class:`Objects`."""
        places = beneath(self.names, array.path)
        skip = len(array.path) + 1 if array.path else 0
        names = self.names[places.start : places.stop]
        found, numbers = array.keys.numbers(names, array.metadata.grid.grid_shape, skip)
        rows = (found + places.start).tolist()
        urls = [child_url(self.url, self.names[row]) for row in rows]
        return whole_objects(numbers, urls, [self.stamps[row] for row in rows])


@dataclass(frozen=True)
class Unlisted:
    """A folder behind plain HTTP, which cannot be listed: what is there is looked up by name.

    Parameters
    ----------
    url
        The folder.
    registry
        Which grants it.
    """

    url: str
    registry: ObjectStoreRegistry

    def keys(self) -> list[str] | None:
        """As :class:`Objects`."""
        return None

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """As :class:`Objects`."""
        found = {key: read_whole(self.registry, child_url(self.url, key), MOST_METADATA) for key in keys}
        return {key: data for key, data in found.items() if data is not None}

    def chunks(self, array: StoredArray) -> Chunks:
        """As :class:`Objects`."""
        grid = array.metadata.grid
        if grid.size > MOST_LOOKUPS:
            raise UnsupportedFeatureError(
                f"it has {grid.size:,} chunks, and plain HTTP has no listing that says which are there; up to "
                f"{MOST_LOOKUPS:,} are looked up one by one. Open the store through S3 or another store that lists"
            )
        keys = list(array.keys.every(grid.grid_shape))
        urls = [child_url(self.url, f"{array.path}/{key}" if array.path else key) for key in keys]
        stamps = look_up(self.registry, urls)
        there = [number for number, stamp in enumerate(stamps) if stamp is not None]
        numbers = np.array(there, dtype=np.int64)
        return whole_objects(numbers, [urls[i] for i in there], [stamps[i] or Stamp() for i in there])


def whole_objects(numbers: np.ndarray[tuple[int], np.dtype[np.int64]], urls: list[str], stamps: list[Stamp]) -> Chunks:
    """Return chunks that are each an object of its own."""
    lengths = np.array([stamp.size or 0 for stamp in stamps], dtype=np.int64)
    count = len(urls)
    return Chunks(
        numbers,
        np.arange(count, dtype=np.int64),
        np.zeros(count, dtype=np.int64),
        lengths,
        SourceTable.of_urls(urls, stamps),
    )
