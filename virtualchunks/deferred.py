"""Manifests whose records are loaded when they are asked for, partition by partition.

References in Parquet lie in partitions: runs of chunks in C order of the grid. Reading a chunk needs the one partition
that it lies in; whatever looks at all records (slicing, combining, writing, pickling) loads all of them, and the
manifest is like any other from then on. What loads a partition, and from where, is the loader's business.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from virtualchunks.manifest import ChunkManifest, concatenate
from virtualchunks.sources import SourceTable

Int64 = npt.NDArray[np.int64]


class PartitionLoader(Protocol):
    """What loads the partitions of one array. All chunks decode with the encoding of their array."""

    @property
    def origin(self) -> str:
        """Where partitions come from, for messages."""

    @property
    def size(self) -> int:
        """Number of chunks in a partition; the last one holds those that are left."""

    def load(self, numbers: Sequence[int]) -> Sequence[ChunkManifest]:
        """Return the manifests of partitions, each of one axis; those loaded together should share their table."""


class DeferredManifest(ChunkManifest):
    """A chunk manifest whose records are loaded when they are asked for.

    Parameters
    ----------
    shape
        Number of chunks along each axis.
    loader
        What loads its partitions.

    Notes
    -----
    Its shape, ``repr`` and ``nbytes`` (of what is loaded) load nothing; :meth:`record` and :meth:`select` load the
    partitions that their chunks lie in; all else loads every partition. A pickle holds the records and not the loader,
    so that no credentials travel with them.
    """

    __slots__ = ("_completing", "_is_complete", "_loader", "_lock", "_parts", "_shape", "_watchers")

    def __init__(self, shape: Sequence[int], loader: PartitionLoader) -> None:
        self._shape = tuple(shape)
        self._loader = loader
        self._parts: dict[int, Future[ChunkManifest]] = {}
        self._watchers: list[Callable[[Iterable[str]], None]] = []
        self._lock = threading.Lock()
        self._completing = threading.RLock()
        self._is_complete = False

    def __getattr__(self, name: str) -> Any:
        if name not in ("_records", "_sources"):
            raise AttributeError(name)
        self._complete()
        return object.__getattribute__(self, name)

    @property
    def is_deferred(self) -> bool:
        """Whether some of the records are yet to be loaded."""
        return not self._is_complete

    @property
    def origin(self) -> str | None:
        """Where the records come from."""
        return self._loader.origin

    @property
    def names_encodings(self) -> bool:
        """Whether chunks may decode otherwise than with the encoding of their array: never."""
        return False

    @property
    def shape_chunk_grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return self._shape

    @property
    def ndim_chunk_grid(self) -> int:
        """Number of axes."""
        return len(self._shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the records loaded so far take in memory."""
        if self._is_complete:
            return super().nbytes
        loaded = [part.result() for part in list(self._parts.values()) if _is_loaded(part)]
        tables = {id(manifest.sources): manifest.sources.nbytes for manifest in loaded}
        return sum(manifest.records.nbytes for manifest in loaded) + sum(tables.values())

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return math.ceil(math.prod(self._shape) / self._loader.size)

    def when_loaded(self, watcher: Callable[[Iterable[str]], None]) -> None:
        """Have a function called with the URLs of the sources, once all of them are known."""
        with self._completing:
            if not self._is_complete:
                self._watchers.append(watcher)
                return
        watcher(url for url in self._sources.urls if url)

    def record(self, index: tuple[int, ...]) -> tuple[SourceTable, int, int, int]:
        """Return what :meth:`ChunkManifest.record` does; one partition is loaded for it."""
        if self._is_complete:
            return super().record(index)
        number = int(np.ravel_multi_index(index, self._shape)) if index else 0
        part, place = divmod(number, self._loader.size)
        return self._load([part])[0].record((place,))

    def select(self, indices: Sequence[Int64]) -> ChunkManifest:
        """Return what :meth:`ChunkManifest.select` does; the partitions that the chunks lie in are loaded for it."""
        wanted = math.prod(map(len, indices))
        if self._is_complete or wanted == math.prod(self._shape):
            return super().select(indices)
        if not wanted:
            return ChunkManifest.missing(tuple(map(len, indices)))
        numbers = np.ravel_multi_index(np.ix_(*indices), self._shape)
        part, place = np.divmod(numbers, self._loader.size)
        needed = np.zeros(self.partitions, dtype=bool)
        needed[part] = True
        joined = _joined(self._load(np.flatnonzero(needed).tolist()))
        rank = np.cumsum(needed) - 1
        return ChunkManifest._trusted(joined.records[rank[part] * self._loader.size + place], joined.sources)

    def _complete(self) -> None:
        """Load every partition that is not loaded yet."""
        with self._completing:
            if self._is_complete:
                return
            joined = _joined(self._load(range(self.partitions)))
            if not len(joined.sources):
                joined = ChunkManifest.missing((math.prod(self._shape),))
            self._sources = joined.sources
            self._records = joined.records.reshape(self._shape)
            with self._lock:
                self._is_complete = True
                self._parts = {}
            watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher(url for url in self._sources.urls if url)

    def _load(self, numbers: Sequence[int]) -> list[ChunkManifest]:
        """Return partitions, each of them loaded once, whichever thread asks for it first."""
        with self._lock:
            if self._is_complete:  # since the caller looked
                return [self._part(number) for number in numbers]
            own = [number for number in numbers if number not in self._parts]
            self._parts.update((number, Future()) for number in own)
            parts = [self._parts[number] for number in numbers]
            made = [self._parts[number] for number in own]
        if own:
            self._load_own(own, made)
        return [part.result() for part in parts]

    def _part(self, number: int) -> ChunkManifest:
        """Return a partition of the loaded records."""
        start = number * self._loader.size
        flat = self._records.reshape(-1)
        return ChunkManifest._trusted(flat[start : start + self._loader.size], self._sources)

    def _load_own(self, numbers: Sequence[int], made: Sequence[Future[ChunkManifest]]) -> None:
        def failed(kind: object, error: BaseException | None, trace: object) -> None:
            if error is None:
                return
            with self._lock:  # whoever asks next tries again
                for number in numbers:
                    self._parts.pop(number, None)
            for part in made:
                part.set_exception(error)

        with ExitStack() as stack:
            stack.push(failed)
            loaded = self._loader.load(numbers)
        for part, manifest in zip(made, loaded, strict=True):
            part.set_result(manifest)

    def __repr__(self) -> str:
        if self._is_complete:
            return super().__repr__()
        loaded = sum(map(_is_loaded, list(self._parts.values())))
        state = f"{loaded} of {self.partitions} partitions loaded from {self._loader.origin}"
        return f"ChunkManifest<shape={self._shape}, {state}>"


def _is_loaded(part: Future[ChunkManifest]) -> bool:
    return part.done() and part.exception() is None


def _joined(parts: Sequence[ChunkManifest]) -> ChunkManifest:
    """Join partitions end to end, the same source in several of their tables once."""
    if not parts:
        return ChunkManifest.missing((0,))
    if len(parts) == 1:
        return parts[0]
    joined = concatenate(parts, axis=0)
    return joined.compact() if len({id(part.sources) for part in parts}) > 1 else joined
