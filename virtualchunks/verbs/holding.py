"""Bringing chunks home: into memory, or byte for byte into a store of one's own, with the references pointed there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.attributes import to_zarr
from virtualchunks.errors import LimitExceededError, ManifestError, WriteError
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import ChunkManifest
from virtualchunks.reading.fetch import fetch
from virtualchunks.reading.inlining import inlined
from virtualchunks.reading.requests import stat
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.roots import reference_url
from virtualchunks.sources import SourceTable, Stamp
from virtualchunks.urls import local_path
from virtualchunks.verbs.asking import Indexer, locate
from virtualchunks.writers.targets import WriteMode, target_of

#: Objects that are read from at once.
CONCURRENCY = 8
#: Most bytes that :func:`inline` takes into memory.
MOST_BYTES = 1 << 30
#: Bytes that :func:`materialise` holds at a time.
_BATCH = 64 << 20

Mask = npt.NDArray[np.bool_]


def inline(
    group: ManifestGroup,
    threshold: int,
    registry: Any = None,
    *,
    variables: Iterable[str] | None = None,
    limit: int = MOST_BYTES,
) -> ManifestGroup:
    """Return the tree with small chunks fetched and held in memory, so that they are written with the references.

    Parameters
    ----------
    group
        The tree.
    threshold
        Length, in bytes, up to which chunks are fetched.
    registry
        What may be read.
    variables
        Paths of the arrays concerned; by default all.
    limit
        Bytes that may be fetched.

    Raises
    ------
    ManifestError
        If the threshold is no number of bytes, or there is no such variable.
    LimitExceededError
        If the chunks are more bytes than `limit`; nothing is read then.
    ReadError
        If a chunk cannot be read, or is not what was parsed.
    """
    _check_threshold(threshold)
    granted = ObjectStoreRegistry.coerce(registry)
    arrays = _named(group, variables)
    total = sum(_small_bytes(array, threshold) for array in arrays.values())
    if total > limit:
        raise LimitExceededError(
            f"chunks of up to {threshold} bytes are {total} bytes together, and the limit is {limit}: lower the "
            "threshold, name variables, or raise limit="
        )
    held = inlined(arrays, granted, threshold)
    return group.map_arrays(lambda path, array: array if held.get(path, array) is array else _compacted(held[path]))


def materialise(
    group: ManifestGroup,
    target: str | os.PathLike[str],
    registry: Any = None,
    *,
    selection: Mapping[str, Indexer] | None = None,
    variables: Iterable[str] | None = None,
    mode: WriteMode = "w-",
) -> ManifestGroup:
    """Copy chunks, byte for byte, into a Zarr store of one's own and return the tree that points at them there.

    Chunks get the keys that Zarr gives them. Where all chunks of an array are copied, its metadata is written too, so
    that the target is a Zarr store of these arrays. An array that is copied in part, or whose chunks decode unlike one
    another, gets none: nobody shall take the chunks that were not copied for missing ones.

    Where it fails, what was copied stays in the target, without metadata, and nothing points at it.

    Parameters
    ----------
    group
        The tree.
    target
        A local folder, or the URL of a folder in a store that the registry covers.
    registry
        What may be read, and where to write.
    selection
        Which elements, by dimension, as for :func:`locate`; by default all. Every chunk that holds one is copied.
    variables
        Paths of the arrays concerned; by default all.
    mode
        Whether objects that are in the way are replaced, ``"w"``, or refused, ``"w-"``.

    Raises
    ------
    TargetExistsError
        If an object is in the way and is not to be replaced.
    ReadError
        If a chunk cannot be read, or is not what was parsed.
    WriteError
        If the target cannot be written.
    """
    granted = ObjectStoreRegistry.coerce(registry)
    folder = _Folder.of(target, granted, mode)
    arrays = _named(group, variables)
    wanted = {path: _selected(path, array, selection) for path, array in arrays.items()}
    copied = {path: _copied(path, array, wanted[path], folder, granted) for path, array in arrays.items()}
    whole = {
        path
        for path, mask in wanted.items()
        if bool(mask[arrays[path].manifest.present].all()) and not arrays[path].is_heterogeneous
    }
    for key, document in _documents(group, whole):
        folder.put(key, json.dumps(document).encode())
    return group.map_arrays(lambda path, array: copied.get(path, array))


@dataclass(frozen=True)
class _Folder:
    """Where chunks are copied to."""

    url: str
    registry: ObjectStoreRegistry
    mode: WriteMode

    @classmethod
    def of(cls, target: str | os.PathLike[str], registry: ObjectStoreRegistry, mode: WriteMode) -> _Folder:
        url = reference_url(target).removesuffix("/") + "/"
        if url.startswith("file:"):
            local = ObjectStoreRegistry()
            local.register(url)
            return cls(url, local, mode)
        registry.locate(url)
        return cls(url, registry, mode)

    def put(self, key: str, data: bytes | memoryview) -> str:
        place = target_of(self.url + key, self.registry)
        if self.url.startswith("file:"):
            path = os.path.dirname(local_path(self.url + key))
            try:
                os.makedirs(path, exist_ok=True)
            except OSError as error:
                raise WriteError(f"cannot make the folder {path}: {error.strerror}", url=self.url) from error
        place.write_file([bytes(data)], self.mode)
        return self.url + key

    def stamp(self, url: str) -> Stamp:
        return stat(self.registry.locate(url))


def _check_threshold(threshold: Any) -> None:
    if isinstance(threshold, bool) or not isinstance(threshold, int | np.integer) or threshold < 0:
        raise ManifestError(f"the threshold is a number of bytes, found {threshold!r}")


def _named(group: ManifestGroup, variables: Iterable[str] | None) -> dict[str, ManifestArray]:
    arrays = dict(group.walk_arrays())
    if variables is None:
        return arrays
    names = [variables] if isinstance(variables, str) else list(variables)
    for name in names:
        if name not in arrays:
            raise ManifestError(f"no array of references {name!r}; there are {', '.join(map(repr, arrays)) or 'none'}")
    return {name: arrays[name] for name in names}


def _small_bytes(array: ManifestArray, threshold: int) -> int:
    """Return how many bytes the chunks hold that are small, and neither missing nor held in memory."""
    manifest = array.manifest
    if not any(manifest.sources.urls):
        return 0
    elsewhere = np.array([bool(url) for url in manifest.sources.urls] + [False], dtype=bool)
    records = manifest.records
    chosen = elsewhere[np.maximum(records["source"], -1)] & (records["length"] <= threshold)
    return int(records["length"][chosen].sum(dtype=np.int64))


def _compacted(array: ManifestArray) -> ManifestArray:
    """Return an array without the sources that none of its chunks is in any more."""
    return ManifestArray(array.metadata, array.manifest.compact())


def _selected(path: str, array: ManifestArray, selection: Mapping[str, Indexer] | None) -> Mask:
    if not selection:
        return array.manifest.present
    own = {name: key for name, key in selection.items() if name in (array.metadata.dimension_names or ())}
    mask = np.zeros(array.manifest.shape_chunk_grid, dtype=bool)
    for chunk in locate(ManifestGroup({"it": array}), own)["chunk"]:
        mask[chunk] = True
    return mask & array.manifest.present


def _bytes_of(
    manifest: ChunkManifest, numbers: npt.NDArray[np.intp], registry: ObjectStoreRegistry
) -> Iterator[tuple[npt.NDArray[np.intp], list[memoryview]]]:
    """Yield the bytes of chunks, given by their number in C order, object by object, a batch at a time."""
    records = manifest.records.reshape(-1)
    order = numbers[np.lexsort((records["offset"][numbers], records["source"][numbers]))]
    source = records["source"][order]
    size = np.cumsum(records["length"][order].astype(np.int64)) // _BATCH
    cuts = np.flatnonzero((np.diff(source) != 0) | (np.diff(size) != 0)) + 1

    def read(part: npt.NDArray[np.intp]) -> list[memoryview]:
        row = int(records["source"][part[0]])
        held = manifest.sources.buffer(row)
        ranges = np.stack([records["offset"][part], records["length"][part]], axis=1).astype(np.int64)
        if held is not None:
            return [memoryview(held)[start : start + length] for start, length in ranges.tolist()]
        return fetch(registry, manifest.sources.url(row), ranges, manifest.sources.stamp(row) or None)

    parts = [part for part in np.split(order, cuts) if len(part)]
    with ThreadPoolExecutor(CONCURRENCY, "virtualchunks-copy") as pool:
        for first in range(0, len(parts), CONCURRENCY):
            some = parts[first : first + CONCURRENCY]
            yield from zip(some, pool.map(read, some), strict=True)


def _copied(
    path: str, array: ManifestArray, mask: Mask, folder: _Folder, registry: ObjectStoreRegistry
) -> ManifestArray:
    manifest = array.manifest
    numbers = np.flatnonzero(mask) if len(manifest) else np.empty(0, dtype=np.intp)
    if not len(numbers):
        return array
    records = manifest.records.copy()
    flat = records.reshape(-1)
    ids = manifest.sources.encoding_ids
    urls: list[str] = []
    stamps: list[Stamp] = []
    encodings: list[int] = []
    with ThreadPoolExecutor(CONCURRENCY, "virtualchunks-put") as pool:
        for part, data in _bytes_of(manifest, numbers, registry):
            keys = [_key(path, manifest.shape_chunk_grid, number) for number in part.tolist()]
            made = list(pool.map(folder.put, keys, data))
            stamps += pool.map(folder.stamp, made)
            encodings += [0 if ids is None else int(ids[row]) for row in flat["source"][part].tolist()]
            flat["source"][part] = np.arange(len(part)) + len(manifest.sources) + len(urls)
            flat["offset"][part] = 0
            urls += made
    table = SourceTable.concat([manifest.sources, SourceTable.of_urls(urls, stamps)])
    if ids is not None:
        table = table.replace(encoding_ids=np.concatenate([ids, np.array(encodings, dtype=np.int32)]))
    return ManifestArray(array.metadata, ChunkManifest.from_records(records, table).compact())


def _key(path: str, shape: tuple[int, ...], number: int) -> str:
    index = np.unravel_index(number, shape) if shape else ()
    return "/".join([path, "c", *map(str, index)])


def _documents(group: ManifestGroup, whole: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the metadata documents of the arrays that were copied whole, and of the groups that they are in."""
    for path, node in group.walk():
        start = f"{path}/" if path else ""
        if any(name.startswith(start) for name in whole):
            attributes = to_zarr(node.attributes)
            yield f"{start}zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        for name, array in node.arrays.items():
            if start + name in whole:
                document = array.metadata.to_dict()
                document["attributes"] = to_zarr(array.metadata.attributes, array.metadata.dtype)
                yield f"{start}{name}/zarr.json", document
