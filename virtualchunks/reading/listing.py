"""Listing: what lies beneath a folder, with the stamp of each object, in one listing and without opening any.

A local folder is walked through the operating system, so that its stamps are those that reading compares with. Plain
HTTP has no listing: there, objects are looked up one by one, by names that the caller knows.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from virtualchunks.errors import LimitExceededError, SourceUnavailableError
from virtualchunks.objectstores import is_kind
from virtualchunks.reading.ranges import REMOTE
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.reading.requests import STORE_ERRORS, get, guard_fork, head, unreadable
from virtualchunks.reading.stamps import local_stamp, stamp_of
from virtualchunks.reading.turns import letting_others
from virtualchunks.registry import Location, ObjectStoreRegistry
from virtualchunks.sources import Stamp
from virtualchunks.urls import quote_path

#: Most objects of one listing.
MOST_OBJECTS = 10_000_000
#: Most folders within each other; a link that leads back to where it lies ends here.
DEEPEST = 64

_ABSENT = (FileNotFoundError, NotADirectoryError)


def child_url(folder: str, name: str) -> str:
    """Return the URL of what lies beneath a folder.

    Parameters
    ----------
    folder
        Canonical URL, with or without a slash at its end.
    name
        Its key, relative to the folder, as the store spells it.

    Examples
    --------
    >>> child_url("s3://bucket/a.zarr", "my var/c/0")
    's3://bucket/a.zarr/my%20var/c/0'
    """
    return f"{folder.rstrip('/')}/{quote_path(name)}"


def can_list(registry: ObjectStoreRegistry, folder: str) -> bool:
    """Return whether the store of a folder can say what lies beneath it; plain HTTP cannot."""
    location = registry.locate(folder)
    return location.path is not None or (
        hasattr(location.store, "list") and not is_kind("HTTPStore", location.url, location.store)
    )


def list_objects(registry: ObjectStoreRegistry, folder: str) -> dict[str, Stamp]:
    """List what lies beneath a folder.

    Parameters
    ----------
    registry
        Which must grant the folder.
    folder
        Its URL.

    Returns
    -------
    dict
        The stamp of each object by its key relative to the folder, in the order of the keys; a stamp has a size.

    Raises
    ------
    NotGrantedError
        If the registry does not cover the folder, or a symbolic link leads out of what it covers.
    SourceUnavailableError
        If the folder cannot be listed.
    LimitExceededError
        If there are more than :data:`MOST_OBJECTS`.

    Examples
    --------
    >>> from obstore.store import MemoryStore
    >>> store = MemoryStore()
    >>> _ = store.put("a/b/c", b"012")
    >>> registry = ObjectStoreRegistry({"memory://": store})
    >>> {name: stamp.size for name, stamp in list_objects(registry, "memory:///a").items()}
    {'b/c': 3}
    """
    location = registry.locate(folder)
    found = _walk(registry, location) if location.path is not None else _list(location)
    objects = {}
    for name, stamp in found:
        objects[name] = stamp
        if len(objects) > MOST_OBJECTS:
            raise LimitExceededError(f"more than {MOST_OBJECTS:,} objects beneath {location.url}", url=location.url)
    return dict(sorted(objects.items()))


def look_up(registry: ObjectStoreRegistry, urls: Iterable[str]) -> list[Stamp | None]:
    """Return the stamps of objects, asking for each by itself; ``None`` for one that is not there.

    Parameters
    ----------
    registry
        Which must grant them.
    urls
        Of the objects.

    Raises
    ------
    NotGrantedError
        If the registry does not cover one of them.
    SourceUnavailableError
        If a store does not say whether an object is there.
    """
    locations = [registry.locate(url) for url in urls]
    if len(locations) <= 1 or all(location.path is not None for location in locations):
        return list(map(_look_up, locations))
    with letting_others(), ThreadPoolExecutor(min(REMOTE.concurrency, len(locations)), "virtualchunks-look-up") as pool:
        return list(pool.map(_look_up, locations))


def read_whole(registry: ObjectStoreRegistry, url: str, most: int) -> bytes | None:
    """Read a small object whole; ``None`` where there is none.

    Parameters
    ----------
    registry
        Which must grant it.
    url
        Its URL.
    most
        The largest that is read, in bytes.

    Raises
    ------
    LimitExceededError
        If it is larger.
    SourceUnavailableError
        If it cannot be read, for another reason than that it is not there.
    """
    try:
        reader = ObjectReader(registry, url)
    except SourceUnavailableError as error:
        if isinstance(error.__cause__, _ABSENT):
            return None
        raise
    with reader:
        if reader.size > most:
            raise LimitExceededError(f"{url} has {reader.size:,} bytes; the most that is read is {most:,}", url=url)
        return reader.read_at(0, reader.size)


def _list(location: Location) -> Iterator[tuple[str, Stamp]]:
    guard_fork(location)
    prefix = location.key.strip("/")
    skip = len(prefix) + 1 if prefix else 0
    try:
        for batch in location.store.list(prefix or None):  # type: ignore[attr-defined]  # checked by can_list
            for meta in batch:
                if not prefix or meta["path"].startswith(prefix + "/"):
                    yield meta["path"][skip:], stamp_of(meta)
    except AttributeError as error:
        raise SourceUnavailableError(f"{location.url} cannot be listed by its store", url=location.url) from error
    except STORE_ERRORS as error:
        failed = unreadable(location, 0, 0, None, error)
        raise SourceUnavailableError(f"{location.url} cannot be listed: {failed.message}", url=location.url) from error


def _walk(registry: ObjectStoreRegistry, root: Location) -> Iterator[tuple[str, Stamp]]:
    """Walk a local folder. What lies behind a symbolic link is asked of the registry first."""
    pending: list[tuple[str, str, int]] = [("", root.path or "", 0)]
    while pending:
        above, path, depth = pending.pop()
        if depth > DEEPEST:
            raise LimitExceededError(f"folders more than {DEEPEST} deep in {root.url}", url=root.url)
        try:
            entries = list(os.scandir(path))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SourceUnavailableError(f"{root.url} cannot be listed: {reason}", url=root.url) from error
        for entry in entries:
            name = above + entry.name
            target = entry.path
            if entry.is_symlink():
                target = registry.locate(child_url(root.url, name)).path or entry.path
            status = _status(target)
            if status is not None and stat.S_ISDIR(status.st_mode):
                pending.append((name + "/", target, depth + 1))
            elif status is not None and stat.S_ISREG(status.st_mode):
                yield name, local_stamp(status)


def _status(path: str) -> os.stat_result | None:
    """What a path names; ``None`` if it was removed since it was listed, or is a dangling link."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SourceUnavailableError(f"{path} cannot be read: {error.strerror}") from error


def _look_up(location: Location) -> Stamp | None:
    if location.path is not None:
        status = _status(location.path)
        return local_stamp(status) if status is not None and stat.S_ISREG(status.st_mode) else None
    found = head(location)
    if found is not None and found.size is not None:
        return found
    try:
        return get(location, 0, 1, upto=True).stamp  # this time, what is wrong is told
    except SourceUnavailableError as error:
        if isinstance(error.__cause__, _ABSENT):
            return None
        raise
