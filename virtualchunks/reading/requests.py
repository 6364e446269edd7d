"""One request for one range: conditional, checked, and with errors of our own.

An answer counts only if it is of the version that was recorded, of the range that was asked for, and complete. Whatever
goes wrong becomes a :class:`~virtualchunks.errors.ReadError`, never a ``FileNotFoundError`` or ``KeyError``.

After a fork the threads of obstore's runtime are gone and its requests would wait for ever; in a child forked after a
request was made here, requests raise instead.
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from typing import Any

from obstore.exceptions import (
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from virtualchunks.errors import ReadError, ShortReadError, SourceChangedError, SourceUnavailableError
from virtualchunks.reading.kept import note
from virtualchunks.reading.local import LocalFile
from virtualchunks.reading.stamps import compare, conditions, stamp_of
from virtualchunks.reading.turns import letting_others
from virtualchunks.registry import Location
from virtualchunks.sources import Stamp

#: What a store's methods raise: obstore's own errors, and the builtins that it and other stores use.
STORE_ERRORS = (BaseError, OSError, ValueError, LookupError, RuntimeError)

_RUNTIME_OWNER: dict[str, int] = {}
_OTHER_RANGE = re.compile(r"Requested (\d+)\.\.(\d+), got (\d+)\.\.(\d+)")
_BEYOND_THE_END = re.compile(r"\b416\b|InvalidRange|Invalid range|StartTooLarge")
_OTHER_REGION = re.compile(r"redirect without LOCATION|PermanentRedirect|AuthorizationHeaderMalformed")
_ADVICE: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((FileNotFoundError, LookupError), "there is no such object"),
    (
        (PermissionDeniedError, UnauthenticatedError, PermissionError),
        "access was denied: register its prefix with a store that holds credentials",
    ),
    (
        (NotSupportedError, NotImplementedError),
        "its server does not answer requests for a range: copy the object to a store that does",
    ),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The checked answer to one request.

    Parameters
    ----------
    data
        The bytes.
    stamp
        What the store said of the object with this very answer.
    """

    data: memoryview
    stamp: Stamp


def get(location: Location, start: int, stop: int, stamp: Stamp | None = None, *, upto: bool = False) -> Answer:
    """Ask for one range of an object.

    Parameters
    ----------
    location
        From :meth:`~virtualchunks.registry.ObjectStoreRegistry.locate`.
    start, stop
        In bytes.
    stamp
        The recorded stamp, if there is one.
    upto
        Whether an object that ends before ``stop`` is all right.

    Returns
    -------
    Answer
        Its bytes, and the stamp that came with them.

    Raises
    ------
    SourceUnavailableError, SourceChangedError, ShortReadError
        If the bytes cannot be had, are not those that were parsed, or are too few.
    """
    guard_fork(location)
    try:
        with letting_others():
            result = location.store.get(location.key, options={"range": (start, stop), **conditions(stamp)})
            data = memoryview(result.buffer())
    except STORE_ERRORS as error:
        raise unreadable(location, start, stop, stamp, error) from error
    answer = _checked(location, start, stop, stamp, result, data, upto=upto)
    note(location, start, answer)
    return answer


async def aget(location: Location, start: int, stop: int, stamp: Stamp | None = None) -> Answer:
    """Ask for one range of an object, on the running event loop, as :func:`get` does.

    Parameters
    ----------
    location, start, stop, stamp
        As for :func:`get`.

    Returns
    -------
    Answer
        As :func:`get`.

    Raises
    ------
    SourceUnavailableError, SourceChangedError, ShortReadError
        As :func:`get`.
    """
    ask = getattr(location.store, "get_async", None)
    if ask is None:
        return await asyncio.to_thread(get, location, start, stop, stamp)
    guard_fork(location)
    try:
        result = await ask(location.key, options={"range": (start, stop), **conditions(stamp)})
        data = memoryview(await result.buffer_async())
    except STORE_ERRORS as error:
        raise await asyncio.to_thread(unreadable, location, start, stop, stamp, error) from error
    return _checked(location, start, stop, stamp, result, data, upto=False)


def head(location: Location) -> Stamp | None:
    """The stamp of an object, without its bytes; None where it cannot be had. For error texts and empty objects.

    Parameters
    ----------
    location
        From :meth:`~virtualchunks.registry.ObjectStoreRegistry.locate`.

    Returns
    -------
    Stamp or None
        What the store says now.
    """
    guard_fork(location)
    try:
        return stamp_of(location.store.head(location.key))  # type: ignore[attr-defined]  # not every store has it
    except (*STORE_ERRORS, AttributeError):
        return None


def stat(location: Location) -> Stamp:
    """The stamp of an object, without its bytes: of a local file from the operating system, of another by a HEAD.

    Parameters
    ----------
    location
        From :meth:`~virtualchunks.registry.ObjectStoreRegistry.locate`.

    Returns
    -------
    Stamp
        What the store says now.

    Raises
    ------
    SourceUnavailableError
        If there is no such object, or its store does not say; the cause is what the store raised.
    """
    if location.path is not None:
        with LocalFile(location) as file:
            return file.stamp
    guard_fork(location)
    try:
        return stamp_of(location.store.head(location.key))  # type: ignore[attr-defined]  # not every store has it
    except (*STORE_ERRORS, AttributeError) as error:
        for types, advice in _ADVICE:
            if isinstance(error, types):
                raise SourceUnavailableError(f"{location.url}: {advice}", url=location.url) from error
        raise SourceUnavailableError(f"{location.url} does not answer: {_reason(error)}", url=location.url) from error


def unreadable(location: Location, start: int, stop: int, stamp: Stamp | None, error: BaseException) -> ReadError:
    """The error of ours for what a store raised.

    Parameters
    ----------
    location, start, stop, stamp
        The request.
    error
        What the store raised.

    Returns
    -------
    ReadError
        To be raised from ``error``.
    """
    what = f"bytes {start} to {stop} of {location.url}"
    if isinstance(error, PreconditionError):
        return _changed(location, stamp, None)
    for types, advice in _ADVICE:
        if isinstance(error, types):
            return SourceUnavailableError(f"{what} cannot be read: {advice}", url=location.url)
    text = str(error)
    other = _OTHER_RANGE.search(text)
    if other:
        was, end, now, got = map(int, other.groups())
        if was == now and got < end:
            return ShortReadError(
                f"asked for {what} and was answered with {got - now} of {end - was}", url=location.url
            )
        return SourceUnavailableError(f"asked for {what} and was answered with bytes {now} to {got}", url=location.url)
    if _BEYOND_THE_END.search(text):
        return _beyond_the_end(location, start, stop, stamp)
    if _OTHER_REGION.search(text):
        advice = 'the bucket lies in another region: register it with {"region": "…"}'
        return SourceUnavailableError(f"{what} cannot be read: {advice}", url=location.url)
    return SourceUnavailableError(f"{what} cannot be read: {_reason(error)}", url=location.url)


def _beyond_the_end(location: Location, start: int, stop: int, stamp: Stamp | None) -> ReadError:
    found = head(location)
    if found is not None and compare(stamp, found):
        return _changed(location, stamp, found)
    size = "fewer" if found is None or found.size is None else str(found.size)
    return ShortReadError(f"asked for bytes {start} to {stop} of {location.url}, which has {size}", url=location.url)


def _checked(
    location: Location, start: int, stop: int, stamp: Stamp | None, result: Any, data: memoryview, *, upto: bool
) -> Answer:
    found = stamp_of(result.meta)
    if compare(stamp, found):
        raise _changed(location, stamp, found)
    first, last = result.range
    end = stop if not upto or found.size is None else min(stop, found.size)
    if first != start or last > stop:
        raise SourceUnavailableError(
            f"asked for bytes {start} to {stop} of {location.url} and was answered with {first} to {last}",
            url=location.url,
        )
    if len(data) != end - start:
        raise ShortReadError(
            f"asked for bytes {start} to {end} of {location.url} and got {len(data)} of {end - start}: "
            f"the object has {found.size} bytes",
            url=location.url,
        )
    return Answer(data, found)


def _changed(location: Location, recorded: Stamp | None, found: Stamp | None) -> SourceChangedError:
    found = head(location) if found is None else found
    difference = "" if found is None else compare(recorded, found) or ""
    detail = f": {difference}" if difference else f" (recorded: {recorded}; found: {found})"
    return SourceChangedError(
        f"{location.url} is not the object that was parsed{detail}: parse it again", url=location.url
    )


def _reason(error: BaseException) -> str:
    """The part of obstore's message that says what happened: without its debug output, and without keys or queries."""
    text = str(error).strip().partition("\n")[0]
    text = text.partition(" - ")[2] or text
    return re.sub(r"\?\S*", "?…", text)[:300] or type(error).__name__


def guard_fork(location: Location) -> None:
    """Raise where obstore's runtime was left behind by a fork, and its requests would wait for ever.

    Parameters
    ----------
    location
        What is about to be asked for.

    Raises
    ------
    SourceUnavailableError
        In a child that was forked after a request was made here.
    """
    owner = _RUNTIME_OWNER.setdefault("pid", os.getpid())
    if owner != os.getpid():
        raise SourceUnavailableError(
            f"{location.url} cannot be read: this process was forked after its parent had read through obstore, whose "
            'threads a fork does not copy. Start workers with the "spawn" or "forkserver" method',
            url=location.url,
        )
