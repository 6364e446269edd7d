"""Fetching: many ranges of one object, in few requests, every answer checked (:mod:`virtualchunks.reading.requests`).

Requests run in threads made for the call, or on the caller's running loop: there is nothing here that a fork could
leave behind half alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import ManifestError, ShortReadError, SourceChangedError, SourceUnavailableError
from virtualchunks.reading.kept import at_hand
from virtualchunks.reading.local import LocalFile
from virtualchunks.reading.ranges import COALESCING, REMOTE, Coalescing, Plan, plan
from virtualchunks.reading.requests import Answer, aget, get
from virtualchunks.reading.stamps import compare
from virtualchunks.reading.tally import Tally
from virtualchunks.reading.turns import letting_others
from virtualchunks.registry import Location, ObjectStoreRegistry
from virtualchunks.sources import Stamp

#: Local ranges up to this length are read on the event loop itself: handing them to a thread takes longer.
SHORT = 1 << 20
#: Bytes that one object's requests hold at the same time, where each is used as it comes: a tenth of them all, within
#: these limits.
IN_FLIGHT = (64 << 20, 128 << 20)
Ranges = Sequence[tuple[int, int]] | npt.NDArray[np.integer]


def fetch(
    registry: ObjectStoreRegistry,
    url: str,
    ranges: Ranges,
    stamp: Stamp | None = None,
    *,
    coalescing: Coalescing | None = None,
    tally: Tally | None = None,
) -> list[memoryview]:
    """Read ranges of one object.

    Parameters
    ----------
    registry
        Which must grant the URL.
    url
        The object.
    ranges
        ``(offset, length)`` of each, in bytes, in any order; they may repeat and overlap.
    stamp
        The recorded stamp of the object; None reads any version, but all ranges of the same one.
    coalescing
        Limits of merging; by default those for the kind of store.
    tally
        Where requests are counted.

    Returns
    -------
    list of memoryview
        The bytes of each range, in the order asked for.

    Raises
    ------
    NotGrantedError
        If the registry does not cover the URL.
    SourceUnavailableError, SourceChangedError, ShortReadError
        If the bytes cannot be had, are not those that were parsed, or are too few.

    Examples
    --------
    >>> from obstore.store import MemoryStore
    >>> store = MemoryStore()
    >>> _ = store.put("a", b"0123456789")
    >>> registry = ObjectStoreRegistry({"memory://": store})
    >>> [bytes(part) for part in fetch(registry, "memory:///a", [(7, 2), (0, 3)])]
    [b'78', b'012']
    """
    return first_of(registry.locate_all(url), lambda location: _fetch_at(location, ranges, stamp, coalescing, tally))


def _fetch_at(
    location: Location, ranges: Ranges, stamp: Stamp | None, coalescing: Coalescing | None, tally: Tally | None
) -> list[memoryview]:
    keeper = at_hand()
    few = None if keeper is None else _plain(ranges)
    if keeper is None or few is None:
        return _ask(location, ranges, stamp, coalescing, tally)
    if location.path is not None:
        return _fetch_few(location, few, stamp, tally)
    found = keeper.find(location, few, stamp)
    missing = [wanted for wanted, data in zip(few, found, strict=True) if data is None]
    fetched = iter(_ask(location, missing, stamp, coalescing, tally) if missing else ())
    return [next(fetched) if data is None else data for data in found]


def _fetch_few(
    location: Location, ranges: list[tuple[int, int]], stamp: Stamp | None, tally: Tally | None
) -> list[memoryview]:
    """Read a few ranges of a local file that is being opened, with its one descriptor: there is nothing to merge."""
    stops = [offset + length for offset, length in ranges]
    check_extent(location, max(stops, default=0), stamp)
    _count(tally, len(ranges), sum(length for _, length in ranges))
    with LocalFile(location) as file:
        data = [file.read(offset, stop) for (offset, _), stop in zip(ranges, stops, strict=True)]
        file.check(stamp)
    return [memoryview(part) for part in data]


def _ask(
    location: Location, ranges: Ranges, stamp: Stamp | None, coalescing: Coalescing | None, tally: Tally | None
) -> list[memoryview]:
    single = _single(ranges)
    if single is not None:
        _count(tally, int(single[1] > 0), single[1])
        return [_fetch_one(location, *single, stamp)]
    todo, limits = _prepare(location, ranges, stamp, coalescing)
    _count(tally, len(todo), todo.nbytes)
    if location.path is not None:
        return _fetch_local(location, todo, stamp)
    answers = _get_all(location, todo, stamp, limits)
    _same_version(answers, location)
    return todo.slices([answer.data for answer in answers])


async def afetch(
    registry: ObjectStoreRegistry,
    url: str,
    ranges: Ranges,
    stamp: Stamp | None = None,
    *,
    coalescing: Coalescing | None = None,
    tally: Tally | None = None,
) -> list[memoryview]:
    """Read ranges of one object, as :func:`fetch` does, on the running event loop.

    Parameters
    ----------
    registry, url, ranges, stamp, coalescing, tally
        As for :func:`fetch`.

    Returns
    -------
    list of memoryview
        The bytes of each range, in the order asked for.

    Raises
    ------
    NotGrantedError, SourceUnavailableError, SourceChangedError, ShortReadError
        As :func:`fetch`.

    Examples
    --------
    >>> from obstore.store import MemoryStore
    >>> store = MemoryStore()
    >>> _ = store.put("a", b"0123456789")
    >>> registry = ObjectStoreRegistry({"memory://": store})
    >>> [bytes(part) for part in asyncio.run(afetch(registry, "memory:///a", [(7, 2)]))]
    [b'78']
    """
    *others, last = registry.locate_all(url)
    for location in others:
        with suppress(SourceUnavailableError):
            return await _afetch_at(location, ranges, stamp, coalescing, tally)
    return await _afetch_at(last, ranges, stamp, coalescing, tally)


async def _afetch_at(
    location: Location, ranges: Ranges, stamp: Stamp | None, coalescing: Coalescing | None, tally: Tally | None
) -> list[memoryview]:
    single = _single(ranges)
    if single is not None:
        _count(tally, int(single[1] > 0), single[1])
        return [await _afetch_one(location, *single, stamp)]
    todo, limits = _prepare(location, ranges, stamp, coalescing)
    _count(tally, len(todo), todo.nbytes)
    if location.path is not None:
        if todo.nbytes <= SHORT:
            return _fetch_local(location, todo, stamp)
        return await asyncio.to_thread(_fetch_local, location, todo, stamp)
    turnstile = asyncio.Semaphore(max(1, limits.concurrency))

    async def one(start: int, stop: int) -> Answer:
        async with turnstile:
            return await aget(location, start, stop, stamp)

    requests = zip(todo.starts.tolist(), todo.stops.tolist(), strict=True)
    tasks = [asyncio.ensure_future(one(start, stop)) for start, stop in requests]
    try:
        answers = await asyncio.gather(*tasks)
    finally:
        for task in tasks:  # where one failed: those that are done are left alone
            task.cancel()
    _same_version(answers, location)
    return todo.slices([answer.data for answer in answers])


def first_of[T](locations: Sequence[Location], ask: Callable[[Location], T]) -> T:
    """Return the answer of the first mirror that can be read at all.

    A mirror that is gone, forbidden or not answering is passed over. One that answers and holds another version of the
    object than was parsed is not: that raises.

    Parameters
    ----------
    locations
        From :meth:`~virtualchunks.registry.ObjectStoreRegistry.locate_all`.
    ask
        What to ask of one.

    Raises
    ------
    SourceUnavailableError
        That of the last, if none can be read.
    """
    *others, last = locations
    for location in others:
        with suppress(SourceUnavailableError):
            return ask(location)
    return ask(last)


def _count(tally: Tally | None, requests: int, count: int) -> None:
    if tally is not None:
        tally.add(requests=requests, bytes=count)


def _single(ranges: Ranges) -> tuple[int, int] | None:
    """The range, where there is exactly one and nothing is wrong with it."""
    one = _plain(ranges, most=1)
    return one[0] if one else None


def _plain(ranges: Ranges, most: int = 64) -> list[tuple[int, int]] | None:
    """The ranges, where they are a list of a few and nothing is wrong with any."""
    good = isinstance(ranges, list) and len(ranges) <= most and all(map(_is_range, ranges))
    return list(ranges) if good else None


def _is_range(wanted: object) -> bool:
    if type(wanted) is not tuple or len(wanted) != 2:
        return False
    offset, length = wanted
    return type(offset) is int and type(length) is int and offset >= 0 <= length and offset + length < 2**63


def _fetch_one(location: Location, offset: int, length: int, stamp: Stamp | None) -> memoryview:
    """Read one range, as stores ask for it chunk by chunk: there is nothing to merge."""
    start, stop = offset, offset + length
    check_extent(location, stop, stamp)
    if start == stop:
        return memoryview(b"")
    if location.path is None:
        return get(location, start, stop, stamp).data
    with LocalFile(location) as file:
        data = file.read(start, stop) if compare(stamp, file.stamp) is None else b""
        file.check(stamp)
    return memoryview(data)


async def _afetch_one(location: Location, offset: int, length: int, stamp: Stamp | None) -> memoryview:
    start, stop = offset, offset + length
    check_extent(location, stop, stamp)
    if location.path is None and start < stop:
        return (await aget(location, start, stop, stamp)).data
    if length <= SHORT:
        return _fetch_one(location, offset, length, stamp)
    return await asyncio.to_thread(_fetch_one, location, offset, length, stamp)


def check_extent(location: Location, stop: int, stamp: Stamp | None) -> None:
    """Raise if bytes are asked for that the object did not have when it was parsed.

    Raises
    ------
    ShortReadError
        Naming both.
    """
    if stamp is not None and stamp.size is not None and stop > stamp.size:
        raise ShortReadError(
            f"asked for bytes up to {stop} of {location.url}, which had {stamp.size} when parsed", url=location.url
        )


def _prepare(
    location: Location, ranges: Ranges, stamp: Stamp | None, coalescing: Coalescing | None
) -> tuple[Plan, Coalescing]:
    wanted = np.asarray(ranges) if len(ranges) else np.empty((0, 2), dtype=np.int64)
    if wanted.ndim != 2 or wanted.shape[1] != 2:
        raise ManifestError(f"ranges are pairs of offset and length, not an array of shape {wanted.shape}")
    return prepare(location, wanted[:, 0], wanted[:, 1], stamp, coalescing)


def prepare(
    location: Location,
    offsets: npt.NDArray[Any],
    lengths: npt.NDArray[Any],
    stamp: Stamp | None,
    coalescing: Coalescing | None = None,
) -> tuple[Plan, Coalescing]:
    """Merge ranges of an object as suits its store.

    Parameters
    ----------
    location
        Where the object is.
    offsets, lengths
        Of the ranges.
    stamp
        Its recorded stamp, if there is one.
    coalescing
        Limits of merging; by default those for the kind of store.

    Raises
    ------
    ShortReadError
        If a range ends beyond the object as it was parsed.
    """
    limits = COALESCING.get(type(location.store).__name__, REMOTE) if coalescing is None else coalescing
    todo = plan(offsets, lengths, limits)
    check_extent(location, int(todo.stops.max(initial=0)), stamp)
    return todo, limits


def fetch_each(
    registry: ObjectStoreRegistry,
    url: str,
    offsets: npt.NDArray[Any],
    lengths: npt.NDArray[Any],
    stamp: Stamp | None,
    use: Callable[[Plan, int, memoryview], None],
    *,
    tally: Tally | None = None,
) -> None:
    """Read ranges of one object, and hand over the answer to each merged request as it comes.

    Parameters
    ----------
    registry, url, stamp
        As for :func:`fetch`.
    offsets, lengths
        Of the ranges.
    use
        What is done with an answer, in the thread that asked: the plan, the number of the request, and its bytes. Where
        another mirror has to be asked, it is called for all requests again.
    tally
        Where requests are counted.

    Raises
    ------
    NotGrantedError, SourceUnavailableError, SourceChangedError, ShortReadError
        As :func:`fetch`.
    """

    def ask(location: Location) -> None:
        todo, limits = prepare(location, offsets, lengths, stamp)

        def counted(number: int, data: memoryview) -> None:
            _count(tally, 1, len(data))
            use(todo, number, data)

        if location.path is None:
            _each_remote(location, todo, stamp, limits, counted)
        else:
            _each_local(location, todo, stamp, counted)

    first_of(registry.locate_all(url), ask)


def _each_local(location: Location, todo: Plan, stamp: Stamp | None, use: Callable[[int, memoryview], None]) -> None:
    with LocalFile(location) as file:
        if stamp is not None:
            file.check(stamp)
        for number, (start, stop) in enumerate(zip(todo.starts.tolist(), todo.stops.tolist(), strict=True)):
            use(number, memoryview(file.read(start, stop)))
        file.check()


def _each_remote(
    location: Location, todo: Plan, stamp: Stamp | None, limits: Coalescing, use: Callable[[int, memoryview], None]
) -> None:
    def one(number: int, start: int, stop: int) -> Answer:
        answer = get(location, start, stop, stamp)
        use(number, answer.data)
        return Answer(memoryview(b""), answer.stamp)

    requests = list(zip(range(len(todo)), todo.starts.tolist(), todo.stops.tolist(), strict=True))
    longest = max((stop - start for _, start, stop in requests), default=0)
    least, most = IN_FLIGHT
    room = min(most, max(least, todo.nbytes // 10))
    threads = max(1, min(limits.concurrency, len(requests), room // max(1, longest)))
    if threads == 1:
        _same_version([one(*request) for request in requests], location)
        return
    with letting_others(), ThreadPoolExecutor(threads, "virtualchunks-fetch") as pool:
        waiting = [pool.submit(one, *request) for request in requests]
        try:
            answers = [future.result() for future in waiting]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error, what has not begun is not begun
    _same_version(answers, location)


def _get_all(location: Location, todo: Plan, stamp: Stamp | None, limits: Coalescing) -> list[Answer]:
    requests = list(zip(todo.starts.tolist(), todo.stops.tolist(), strict=True))
    if len(requests) <= 1 or limits.concurrency <= 1:
        return [get(location, start, stop, stamp) for start, stop in requests]
    with letting_others(), ThreadPoolExecutor(min(limits.concurrency, len(requests)), "virtualchunks-fetch") as pool:
        waiting = [pool.submit(get, location, start, stop, stamp) for start, stop in requests]
        try:
            return [future.result() for future in waiting]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error, what has not begun is not begun


def _fetch_local(location: Location, todo: Plan, stamp: Stamp | None) -> list[memoryview]:
    with LocalFile(location) as file:
        if stamp is not None:
            file.check(stamp)
        requests = zip(todo.starts.tolist(), todo.stops.tolist(), strict=True)
        answers = [memoryview(file.read(start, stop)) for start, stop in requests]
        file.check()
    return todo.slices(answers)


def _same_version(answers: Sequence[Answer], location: Location) -> None:
    """All answers are of one version of the object, also where no stamp was recorded."""
    for answer in answers[1:]:
        difference = compare(answers[0].stamp, answer.stamp)
        if difference:
            raise SourceChangedError(f"{location.url} changed while it was read: {difference}", url=location.url)
