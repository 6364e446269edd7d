"""Chunks: the references of one array, handed to Icechunk with what its objects were when they were parsed.

Icechunk takes one checksum for each call, so chunks are grouped by the checksum of their object. Where the chunks of an
object fill a box of the grid, as they do after concatenation, each box is one call over whole columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import WriteError
from virtualchunks.manifest import Records
from virtualchunks.sources import SourceTable, Stamp
from virtualchunks.urls import redact
from virtualchunks.writers.icechunk.containers import advice
from virtualchunks.writers.icechunk.nodes import Nodes, chunk_key_of
from virtualchunks.writers.layout import StoredArray

Checksum = str | datetime | None

#: The fewest chunks for each checksum, on average, for which one call each is worth it.
FEWEST_IN_A_BOX = 8
#: Missing chunks above which those that are stored are listed, to delete no more than those.
LISTED = 1000
#: What messages say of the session, after an error in mid-write.
KEPT = "Nothing of this write is kept, unless the session held changes before: session.discard_changes() drops both"
#: Chunks handed over at a time, one by one.
BLOCK = 1 << 17


def _modified(stamp: Stamp) -> Checksum:
    """Return the time after which an object must not have changed: Icechunk compares whole seconds, so rounded up."""
    if stamp.last_modified is None:
        return None
    return datetime.fromtimestamp(-(-stamp.last_modified // 10**9), tz=UTC)


def _etag(stamp: Stamp) -> Checksum:
    """Return the ETag; a weak one never matches, so the time where that is all there is."""
    if stamp.etag is None or stamp.etag.startswith("W/"):
        return _modified(stamp)
    return stamp.etag


#: What Icechunk can check, by scheme: it knows no ETags of local files, and plain HTTP servers match none of those
#: sent.
_CHECKSUMS: dict[str, Callable[[Stamp], Checksum]] = {
    "file": _modified,
    "http": _modified,
    "https": _modified,
    "s3": _etag,
    "gs": _etag,
    "az": _etag,
}


def checksum(url: str, stamp: Stamp) -> Checksum:
    """Return what Icechunk compares before it reads an object.

    Parameters
    ----------
    url
        Canonical URL of the object.
    stamp
        What was known of it when it was parsed.

    Examples
    --------
    >>> checksum("s3://bucket/a.nc", Stamp(etag="abc", last_modified=1))
    'abc'
    >>> checksum("file:///a.nc", Stamp(etag="abc", last_modified=1)).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return _CHECKSUMS.get(url.partition(":")[0], _modified)(stamp)


class Writing(NamedTuple):
    """How the chunks of an array are written.

    Parameters
    ----------
    urls
        The URL of each source row, and an empty one for missing chunks, whose source is -1.
    nodes
        The store.
    start
        Index, in the grid of the stored array, of the first chunk.
    fresh
        Whether nothing was stored there before.
    validate
        Whether Icechunk compares each URL with the repository's containers.
    last_updated_at
        A time after which no object may have changed, in place of what their stamps say.
    """

    urls: npt.NDArray[np.object_]
    nodes: Nodes
    start: tuple[int, ...]
    fresh: bool
    validate: bool
    last_updated_at: datetime | None


def write_chunks(array: StoredArray, writing: Writing) -> None:
    """Write the chunks of an array: references, bytes in memory, and nothing at all where one is missing.

    Raises
    ------
    WriteError
        If Icechunk refuses a reference.
    """
    records = array.manifest.records
    if writing.fresh and not len(array.manifest.sources):
        return
    held, groups, checksums = _rows(array.manifest.sources, writing)
    source = records["source"]
    virtual = (source >= 0) & ~held[source]
    if virtual.any():
        group = np.where(virtual, groups[source], -1)
        if len(checksums) == 1:
            _write_box(array, writing, virtual, (slice(None),) * records.ndim, checksums[0])
        elif np.count_nonzero(virtual) >= FEWEST_IN_A_BOX * len(checksums):
            _write_boxes(array, writing, group, checksums)
        else:
            _write_each(array, writing, group, checksums)
    if held[:-1].any():
        writing.nodes.put(_memory(array, writing, held))
    if not writing.fresh and array.has_missing:
        _delete_missing(array, writing)


def _rows(
    sources: SourceTable, writing: Writing
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], list[Checksum]]:
    """Return for each row whether it is held in memory and the number of its checksum, and the checksums.

    A last row stands for missing chunks, whose source is -1.
    """
    held = np.zeros(len(sources) + 1, dtype=bool)
    held[list(sources.buffers or ())] = True
    numbers: dict[Checksum, int] = {}
    groups = np.full(len(sources) + 1, -1, dtype=np.int64)
    given = writing.last_updated_at
    for row, url in enumerate(writing.urls):
        if url:
            own = given if given is not None else checksum(url, sources.stamp(row))
            groups[row] = numbers.setdefault(own, len(numbers))
    return held, groups, list(numbers)


def _key(array: StoredArray, index: tuple[int, ...], start: tuple[int, ...]) -> str:
    return chunk_key_of(array.path, (i + first for i, first in zip(index, start, strict=True)))


def _delete_missing(array: StoredArray, writing: Writing) -> None:
    """Delete what is stored where a chunk is missing: an old reference must not be read in its place."""
    missing = array.manifest.records["source"] < 0
    start = np.asarray(writing.start, dtype=np.int64)
    if np.count_nonzero(missing) <= LISTED:
        chosen = np.argwhere(missing)
    else:
        stored = writing.nodes.stored_chunks(array.path) - start
        stored = stored[((stored >= 0) & (stored < missing.shape)).all(axis=1)]
        chosen = stored[missing[tuple(stored.T)]]
    writing.nodes.delete([chunk_key_of(array.path, index) for index in (chosen + start).tolist()])


def _memory(array: StoredArray, writing: Writing, held: npt.NDArray[np.bool_]) -> Iterator[tuple[str, bytes]]:
    records = array.manifest.records
    for index in map(tuple, np.argwhere(held[records["source"]]).tolist()):
        entry = array.manifest.get_entry(index)
        assert entry is not None
        yield _key(array, index, writing.start), entry["data"]


def _write_boxes(array: StoredArray, writing: Writing, group: npt.NDArray[np.int64], checksums: list[Checksum]) -> None:
    """Write chunks checksum by checksum: in one call where they fill a box of the grid, otherwise one by one."""
    flat = group.reshape(-1)
    order = np.argsort(flat, kind="stable")
    order = order[np.count_nonzero(flat < 0) :]
    numbers, begins = np.unique(flat[order], return_index=True)
    places = np.unravel_index(order, group.shape)
    lowest = [np.minimum.reduceat(place, begins) for place in places]
    highest = [np.maximum.reduceat(place, begins) for place in places]
    volumes = np.prod([high - low + 1 for low, high in zip(lowest, highest, strict=True)], axis=0, dtype=np.int64)
    counts = np.diff(begins, append=len(order))
    dense = volumes <= 2 * counts
    for place in np.flatnonzero(dense).tolist():
        box = tuple(slice(int(low[place]), int(high[place]) + 1) for low, high in zip(lowest, highest, strict=True))
        number = int(numbers[place])
        _write_box(array, writing, group[box] == number, box, checksums[number])
    if not dense.all():
        rest = np.where(np.isin(group, numbers[~dense]), group, -1)
        _write_each(array, writing, rest, checksums)


def _write_box(
    array: StoredArray, writing: Writing, chosen: npt.NDArray[np.bool_], box: tuple[slice, ...], own: Checksum
) -> None:
    """Write the chosen chunks of a box of the grid in one call."""
    whole: tuple[Any, ...] = (*box, ...)  # the ellipsis keeps a scalar's only record an array
    part: Records = array.manifest.records[whole]
    begins = [first + (edge.start or 0) for first, edge in zip(writing.start, box, strict=True)]
    urls = writing.urls
    rows = np.where(chosen, part["source"], len(urls) - 1).reshape(-1)
    failed = writing.nodes.store.set_virtual_refs_arr(
        array.path,
        part.shape,
        urls[rows].tolist(),
        np.ascontiguousarray(part["offset"].reshape(-1), dtype=np.uint64),
        part["length"].astype(np.uint64).reshape(-1),
        validate_containers=writing.validate,
        arr_offset=tuple(begins),
        checksum=own,
    )
    _require_none(array, writing, failed)


def _write_each(array: StoredArray, writing: Writing, group: npt.NDArray[np.int64], checksums: list[Checksum]) -> None:
    """Write chunks one by one, each with its own checksum."""
    from icechunk import VirtualChunkSpec

    records = array.manifest.records
    etags = [own if isinstance(own, str) else None for own in checksums]
    times = [own if isinstance(own, datetime) else None for own in checksums]
    indices = np.argwhere(group >= 0)
    for begin in range(0, len(indices), BLOCK):
        part = indices[begin : begin + BLOCK]
        places = tuple(part.T)
        chosen = records[places]
        columns = (
            (part + np.asarray(writing.start, dtype=np.int64)).tolist(),
            chosen["source"].tolist(),
            chosen["offset"].tolist(),
            chosen["length"].tolist(),
            group[places].tolist(),
        )
        specs = [
            VirtualChunkSpec(index, writing.urls[row], offset, length, etags[number], times[number])
            for index, row, offset, length, number in zip(*columns, strict=True)
        ]
        failed = writing.nodes.store.set_virtual_refs(array.path, specs, validate_containers=writing.validate)
        _require_none(array, writing, failed)


def _require_none(array: StoredArray, writing: Writing, failed: list[tuple[int, ...]] | None) -> None:
    """Raise if Icechunk returned chunks that it did not take."""
    if not failed:
        return
    local = [tuple(i - first for i, first in zip(index, writing.start, strict=True)) for index in failed]
    entries = [array.manifest.get_entry(index) for index in local]
    urls = list(dict.fromkeys(entry["path"] for entry in entries if entry is not None))
    shown = ", ".join(map(redact, urls[:3]))
    raise WriteError(
        f"Icechunk refused {len(failed)} references of {array.path!r}, to {shown}{', …' if len(urls) > 3 else ''}. "
        f"{KEPT}. {advice(urls)}",
        url=redact(urls[0]) if urls else None,
        variable=array.path,
        chunk=tuple(failed[0]),
    )
