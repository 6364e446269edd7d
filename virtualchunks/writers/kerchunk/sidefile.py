"""Side files: chunks that were encoded anew, in one file beside the references, where they are too many to be inline.

The name of a side file is made of what it holds, so that references which are replaced, and whoever still reads by
them, never find the chunks of others. It is complete before the references are: there is no reference to a missing one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.manifest import ChunkManifest
from virtualchunks.sources import SourceTable, Stamp
from virtualchunks.urls import canonical_url
from virtualchunks.writers.homogenising import Chunks, in_memory
from virtualchunks.writers.targets import LocalTarget, Target

#: How the names of side files end.
SUFFIX = ".chunks"
#: The most bytes of chunks that are encoded anew and written among the references, where a side file is possible.
MOST_INLINE_BYTES = 1 << 20


class SideFile:
    """The side file of one writing, of which nothing is written yet.

    Parameters
    ----------
    url_of
        From its name to its URL.

    Attributes
    ----------
    name
        Its name; empty where there is none.
    data
        What it holds.
    """

    def __init__(self, url_of: Callable[[str], str]) -> None:
        self._url_of = url_of
        self.name = ""
        self.data = b""

    @classmethod
    def beside(cls, place: Target) -> SideFile | None:
        """Return the side file of a file; ``None`` where nothing can refer to one, since the target has no URL."""
        return cls._at(place, lambda name: f"{place.url}.{name}")

    @classmethod
    def within(cls, place: Target) -> SideFile | None:
        """Return the side file of a folder, which lies in it; ``None`` where nothing can refer to one."""
        return cls._at(place, lambda name: f"{place.url}/{name}")

    @classmethod
    def _at(cls, place: Target, url_of: Callable[[str], str]) -> SideFile | None:
        reachable = isinstance(place, LocalTarget) or ("://" in place.url and not place.url.startswith("memory:"))
        return cls(url_of) if reachable else None

    def keep(self, arrays: Sequence[tuple[ManifestArray, Chunks]]) -> list[ManifestArray]:
        """Return arrays with their encoded chunks in the side file, or in memory where they are few.

        Parameters
        ----------
        arrays
            As for :func:`~virtualchunks.writers.homogenising.in_memory`.
        """
        if sum(len(data) for _, chunks in arrays for data in chunks.values()) <= MOST_INLINE_BYTES:
            return in_memory(arrays)
        self.data = b"".join(data for _, chunks in arrays for data in chunks.values())
        self.name = f"{hashlib.sha256(self.data).hexdigest()[:32]}{SUFFIX}"
        table = SourceTable.of_urls([canonical_url(self._url_of(self.name))], [Stamp(size=len(self.data))])
        made, start = [], 0
        for array, chunks in arrays:
            made.append(_placed(array, chunks, table, start))
            start += sum(map(len, chunks.values()))
        return made


def _placed(array: ManifestArray, chunks: Chunks, table: SourceTable, start: int) -> ManifestArray:
    """Return an array with chunks that follow each other in the object of a table, from a byte on."""
    manifest = array.manifest
    records = manifest.records.copy()
    lengths = np.fromiter(map(len, chunks.values()), dtype=np.int64, count=len(chunks))
    places = tuple(np.array(list(chunks), dtype=np.int64).reshape(len(chunks), records.ndim).T)
    for name, column in {
        "source": len(manifest.sources),
        "length": lengths,
        "offset": start + np.cumsum(lengths) - lengths,
    }.items():
        records[name][places] = column
    joined = ChunkManifest._trusted(records, SourceTable.concat([manifest.sources, table]))
    return ManifestArray(array.metadata, joined.compact())
