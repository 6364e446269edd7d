"""Presence: which objects an Icechunk repository refers to, and whether they are still what they were.

Icechunk does not give out the checksums of references; it compares them when it reads. So whether an object changed
since it was written is found by reading one byte of a chunk of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from virtualchunks.errors import CombineError, UnsupportedFeatureError, WriteError
from virtualchunks.urls import as_url
from virtualchunks.writers.icechunk.growth import Target
from virtualchunks.writers.icechunk.nodes import Nodes, chunk_key_of, join

#: Chunks that are looked at, at the same time.
_AT_ONCE = 64
_VIRTUAL = 2


def require_unchanged(part: Target, dimension: str, region: slice) -> None:
    """Check that what a store refers to at labels that are left out is what it was when it was written.

    Parameters
    ----------
    part
        The array of these labels, as it would have been written.
    dimension
        The dimension along which they lie.
    region
        Their indices in the store.

    Raises
    ------
    CombineError
        If an object changed. Where the session is not authorised to read it, that is not known.
    """
    manifest = part.array.manifest
    source = manifest.records["source"]
    places: dict[str, str] = {}
    for row in manifest.used_rows().tolist():
        url = manifest.sources.url(row)
        if url:
            index = np.unravel_index(int(np.argmax(source.reshape(-1) == row)), source.shape)
            places[url] = _stored_key(part, dimension, region, [int(number) for number in index])
    changed = changed_chunks(part.nodes, places)
    if changed:
        raise CombineError(
            f"{part.array.path!r} has the labels {region.start} to {region.stop} along {dimension!r} already, but "
            f"{len(changed)} objects there changed since they were written, for example {changed[0]}: pass "
            "on_duplicate='replace' to write them anew",
            url=changed[0],
            variable=part.array.path,
        )


def _stored_key(part: Target, dimension: str, region: slice, index: list[int]) -> str:
    """Return the key of the stored chunk at the first element of a chunk."""
    own, stored = part.array.metadata.grid.axes, part.existing.grid.axes
    numbers = []
    for name, mine, theirs, number in zip(part.names, own, stored, index, strict=True):
        element = int(mine.starts[number]) + (region.start if name == dimension else 0)
        numbers.append(theirs.locate(element))
    return chunk_key_of(part.array.path, numbers)


def changed_chunks(nodes: Nodes, keys: Mapping[str, str]) -> list[str]:
    """Return the names, of those given with the key of a chunk each, whose objects are not what was written.

    Raises
    ------
    WriteError
        If one cannot be read for another reason.
    """
    from icechunk import ErrorKind, IcechunkError
    from zarr.abc.store import RangeByteRequest
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    async def look(name: str, key: str, turnstile: asyncio.Semaphore) -> str | None:
        async with turnstile:
            try:
                await nodes.store.get(key, default_buffer_prototype(), RangeByteRequest(0, 1))
            except IcechunkError as error:
                if error.kind == ErrorKind.VIRTUAL_CHUNK_MODIFIED:
                    return name
                if error.kind != ErrorKind.UNAUTHORIZED_VIRTUAL_CHUNK_CONTAINER:
                    reason = str(error).strip().partition("\n")[0]
                    raise WriteError(f"what was written of {name} cannot be looked at: {reason}", url=name) from error
        return None

    async def everything() -> list[str | None]:
        turnstile = asyncio.Semaphore(_AT_ONCE)
        return list(await asyncio.gather(*(look(name, key, turnstile) for name, key in keys.items())))

    return [name for name in sync(everything()) if name is not None]


def already_present(
    target: Any, urls: Iterable[Any], *, branch: str = "main", unchanged: bool = False
) -> list[str | Any]:
    """Return which objects a repository refers to.

    Parameters
    ----------
    target
        An Icechunk repository, or the store of a session.
    urls
        URLs or paths of objects.
    branch
        The branch of the repository.
    unchanged
        Whether to leave out objects that changed since they were written, which costs one small read of each, and
        needs a repository that is authorised to read them.

    Returns
    -------
    list
        Those of `urls` that are referred to, as they were given, in their order.

    Raises
    ------
    UnsupportedFeatureError
        If `target` is neither.
    WriteError
        If an object has to be looked at, and cannot be.
    """
    store = _store_of(target, branch)
    asked = list(urls)
    canonical = [as_url(url) for url in asked]
    known = dict.fromkeys(store.session.all_virtual_chunk_locations())
    found = [(given, url) for given, url in zip(asked, canonical, strict=True) if url in known]
    if unchanged and found:
        nodes = Nodes(store)
        changed = set(changed_chunks(nodes, _one_chunk_each(nodes, {url for _, url in found})))
        found = [(given, url) for given, url in found if url not in changed]
    return [given for given, _ in found]


def _store_of(target: Any, branch: str) -> Any:
    if hasattr(target, "readonly_session"):
        return target.readonly_session(branch).store
    if hasattr(target, "array_chunk_iterator"):
        return target
    raise UnsupportedFeatureError(
        f"expected an Icechunk repository, or the store of a session, not a {type(target).__name__}"
    )


def _one_chunk_each(nodes: Nodes, urls: set[str]) -> dict[str, str]:
    """Return the key of a chunk of each object."""
    from zarr.core.sync import sync

    found: dict[str, str] = {}

    async def search(path: str) -> None:
        async for indices, kinds, locations, *_ in nodes.store.array_chunk_iterator(f"/{path}", batch_size=100_000):
            for url in urls & set(locations) - found.keys():
                row = locations.index(url)
                if kinds[row] == _VIRTUAL:
                    found[url] = chunk_key_of(path, indices[row].tolist())

    pending = [""]
    while pending and len(found) < len(urls):
        path = pending.pop()
        document = nodes.document(path)
        if document is not None and document.get("node_type") == "array":
            sync(search(path))
        elif document is not None:
            pending += [join(path, name) for name in nodes.members(path)]
    return found
