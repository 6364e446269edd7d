"""Checks of references that read no data: are they inside their objects, of plausible length, apart from each other?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.reading.listing import look_up
from virtualchunks.reading.stamps import compare
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import Stamp
from virtualchunks.verification.report import Problem

#: How many chunks of one kind of problem are named, for each array.
MOST = 5


@dataclass(frozen=True)
class _Flat:
    """The chunks of one array that are in objects, in C order."""

    path: str
    array: ManifestArray
    numbers: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]

    @classmethod
    def of(cls, path: str, array: ManifestArray) -> _Flat:
        manifest = array.manifest.compact()
        records = manifest.records.reshape(-1)
        held = np.array([not url for url in manifest.sources.urls], dtype=bool)
        source = records["source"].astype(np.int64)
        numbers = np.flatnonzero((source >= 0) & ~(held[source] if len(held) else False))
        chosen = records[numbers]
        start, length = chosen["offset"].astype(np.int64), chosen["length"].astype(np.int64)
        return cls(path, ManifestArray(array.metadata, manifest), numbers, source[numbers], start, length)

    def problems(self, wrong: npt.NDArray[np.bool_], kind: str, message: str) -> Iterator[Problem]:
        """Name the first chunks that are wrong, and count the rest."""
        places = np.flatnonzero(wrong)
        shape = self.array.manifest.shape_chunk_grid
        for place in places[:MOST].tolist():
            chunk = tuple(int(i) for i in np.unravel_index(self.numbers[place], shape)) if shape else ()
            url = self.array.manifest.sources.url(int(self.source[place]))
            span = f"bytes {self.start[place]} to {self.start[place] + self.length[place]}"
            yield Problem(kind, f"{span}: {message}", self.path, chunk, url)
        if len(places) > MOST:
            yield Problem(kind, f"{len(places) - MOST} further chunks: {message}", self.path)


def structure_problems(arrays: Mapping[str, ManifestArray], sizes: Mapping[str, int]) -> Iterator[Problem]:
    """Yield what is wrong with references by themselves.

    Parameters
    ----------
    arrays
        Arrays by path.
    sizes
        Sizes of objects by URL, in bytes, as far as they are known.
    """
    flats = [_Flat.of(path, array) for path, array in arrays.items()]
    for flat in flats:
        urls = list(flat.array.manifest.sources.urls)
        known = np.array([sizes.get(url, np.iinfo(np.int64).max) for url in urls] or [0], dtype=np.int64)
        if not len(flat.numbers):
            continue
        end = known[flat.source]
        yield from flat.problems(flat.start + flat.length > end, "outside", "the object ends before")
        expected = _plain_lengths(flat)
        wrong = (expected >= 0) & (flat.length != expected)
        yield from flat.problems(wrong, "length", "uncompressed values of a chunk take another number of bytes")
        yield from flat.problems(flat.length == 0, "length", "a chunk of no bytes")
    yield from _overlaps(flats)


def _plain_lengths(flat: _Flat) -> npt.NDArray[np.int64]:
    """Return the number of bytes of each chunk where it is uncompressed, and −1 elsewhere."""
    sources, metadata = flat.array.manifest.sources, flat.array.metadata
    encodings = [metadata.encoding, *sources.encodings]
    ids = np.array([sources.encoding_id(row) for row in range(len(sources))] or [0], dtype=np.int64)[flat.source]
    expected = np.full(len(flat.numbers), -1, dtype=np.int64)
    for number, encoding in enumerate(encodings):
        chosen = ids == number
        if encoding.is_uncompressed and chosen.any():
            expected[chosen] = _nominal_bytes(flat, encoding, flat.numbers[chosen])
    return expected


def _nominal_bytes(flat: _Flat, encoding: ChunkEncoding, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    item = encoding.dtype.itemsize
    if encoding.shape is not None:
        return np.full(len(numbers), math.prod(encoding.shape) * item, dtype=np.int64)
    grid = flat.array.metadata.grid
    if not grid.ndim:
        return np.full(len(numbers), item, dtype=np.int64)
    places = np.unravel_index(numbers, grid.grid_shape)
    sizes = [axis.nominal[place] for axis, place in zip(grid.axes, places, strict=True)]
    total: npt.NDArray[np.int64] = np.prod(np.stack(sizes).astype(np.int64), axis=0) * item
    return total


def _is_interleaved(array: ManifestArray) -> bool:
    """Return whether chunks hold the elements of several arrays by turns, as the columns of a table do."""
    encodings = (array.metadata.encoding, *array.manifest.sources.encodings)
    return any(codec["name"] == "virtualchunks.strided" for encoding in encodings for codec in encoding.codecs)


def _overlaps(flats: list[_Flat]) -> Iterator[Problem]:
    """Yield the chunks that share bytes with another one without being the same bytes."""
    flats = [flat for flat in flats if not _is_interleaved(flat.array)]
    urls: dict[str, int] = {}
    parts = []
    for number, flat in enumerate(flats):
        codes = np.array([urls.setdefault(url, len(urls)) for url in flat.array.manifest.sources.urls] or [0])
        parts.append((codes[flat.source], flat.start, flat.length, np.full(len(flat.start), number), flat.numbers))
    if not parts:
        return
    url, start, length, owner, chunk = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((length, start, url))
    url, start, length, owner, chunk = url[order], start[order], length[order], owner[order], chunk[order]
    if len(url) < 2:
        return
    same = (url[1:] == url[:-1]) & (start[1:] == start[:-1]) & (length[1:] == length[:-1])
    reach = np.empty_like(start)
    first = np.flatnonzero(np.diff(url, prepend=-1) != 0)
    for low, high in zip(first, [*first[1:], len(url)], strict=True):
        reach[low:high] = np.maximum.accumulate(start[low:high] + length[low:high])
    wrong = np.zeros(len(url), dtype=bool)
    wrong[1:] = (url[1:] == url[:-1]) & (start[1:] < reach[:-1]) & ~same
    for number, flat in enumerate(flats):
        hit = np.isin(flat.numbers, chunk[wrong & (owner == number)])
        yield from flat.problems(hit, "overlap", "shares bytes with another chunk")


def source_problems(
    arrays: Mapping[str, ManifestArray], registry: ObjectStoreRegistry
) -> tuple[list[Problem], dict[str, int]]:
    """Ask for every object once, with a HEAD, whether it is there and unchanged.

    Parameters
    ----------
    arrays
        Arrays by path.
    registry
        Which must grant their objects.

    Returns
    -------
    list of Problem, dict
        What changed or vanished, and the sizes of what is there, in bytes, by URL.

    Raises
    ------
    NotGrantedError
        If the registry does not cover one of them.
    SourceUnavailableError
        If a store does not say.
    """
    recorded: dict[str, Stamp | None] = {}
    for array in arrays.values():
        manifest = array.manifest
        for row in manifest.used_rows().tolist():
            if manifest.sources.buffer(row) is None:
                recorded.setdefault(manifest.sources.url(row), manifest.sources.stamp(row))
    problems, sizes = [], {}
    for (url, stamp), found in zip(recorded.items(), look_up(registry, recorded), strict=True):
        if found is None:
            problems.append(Problem("gone", "the object is not there", url=url))
            continue
        if found.size is not None:
            sizes[url] = found.size
        difference = compare(stamp, found)
        if difference is not None:
            problems.append(Problem("changed", f"it is not the object that was parsed: {difference}", url=url))
    return problems, sizes
