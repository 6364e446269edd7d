"""Mounts: a prefix, or one granted object, and the object store that serves it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from virtualchunks.errors import NotGrantedError, SourceUnavailableError
from virtualchunks.objectstores import build_store, is_kind, root_of, store_kind
from virtualchunks.urls import redact
from virtualchunks.urls import split as _split

#: :func:`virtualchunks.urls.split`, remembered: every chunk that is read asks, and thousands of chunks have one URL.
split = lru_cache(maxsize=4096)(_split)

#: What stands beside a prefix in the advice to register it, by scheme.
EXAMPLE_STORES = {
    "s3": ', {"skip_signature": True, "region": "…"}',
    "gs": ', {"skip_signature": True}',
    "az": ', {"account_name": "…", "skip_signature": True}',
    "memory": ", store",
}


@runtime_checkable
class ReadableStore(Protocol):
    """What a store must offer to be registered: obstore's ``get``."""

    def get(self, path: str, *, options: Any = None) -> Any:
        """Get one object, or a range of it."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where the bytes of a URL that the registry grants are to be had.

    Parameters
    ----------
    url
        The canonical URL.
    store
        An obstore store, or one with its methods.
    key
        The object's key, decoded, within ``store``.
    path
        The real path, links resolved, where the store is one of local files; otherwise None.
    """

    url: str
    store: ReadableStore = field(repr=False)
    key: str
    path: str | None = None


_BUILDING = threading.Lock()


@lru_cache(maxsize=64)
def _anonymous(prefix: str, environment: tuple[tuple[str, str], ...]) -> tuple[Any, str]:
    """Return the anonymous store of a prefix, or of the host or bucket of a granted object, and where it begins.

    Building one takes 15 ms, and its connections are its own: the files of an archive share it. Stores read options
    from the environment when they are built.
    """
    store = build_store(prefix)
    return store, root_of(store)


class Mount:
    """A prefix (ending in ``/``), or one granted object, and the store that serves it, built when first needed."""

    def __init__(self, url: str, source: ReadableStore | Mapping[str, Any] | None, *, real: str | None = None) -> None:
        self.url = url
        self.source = source
        self.real = real
        self._built: tuple[ReadableStore, str] | None = None
        self._lock = threading.Lock()

    @property
    def kind(self) -> str:
        """Name of the class of the store."""
        return store_kind(self.url, self.source)

    @property
    def is_local(self) -> bool:
        """Whether the store is one of local files."""
        return is_kind("LocalStore", self.url, self.source)

    @property
    def in_memory(self) -> bool:
        """Whether the store lives in this process's memory."""
        return is_kind("MemoryStore", self.url, self.source)

    def open(self) -> tuple[ReadableStore, str]:
        """The store, and the key within scheme and authority that the store itself begins at."""
        with self._lock:
            if self._built is None:
                self._built = self._build()
            return self._built

    def _build(self) -> tuple[ReadableStore, str]:
        given = self.source
        if given is None:
            with _BUILDING:  # threads that ask for the same one at once would each build it
                if self.url.startswith("file:"):
                    return _anonymous(self.url[: self.url.rindex("/") + 1], ())
                end = len(self.url) if self.url.endswith("/") else self.url.index("/", self.url.index("://") + 3) + 1
                return _anonymous(self.url[:end], tuple(os.environ.items()))
        store = build_store(self.url[: self.url.rindex("/") + 1], given) if isinstance(given, Mapping) else given
        return store, root_of(store)

    def key(self, url: str) -> str:
        """The key of a URL within the store."""
        root, key = self.open()[1], split(url).key
        if not root:
            return key
        if not (key + "/").startswith(root + "/"):
            raise NotGrantedError(
                f"{redact(url)} lies outside the store registered for {self.url}, which begins at {root!r}: "
                "register it under the prefix that it begins at, or a store that begins at the bucket or host itself",
                url=redact(url),
            )
        return key[len(root) + 1 :]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mount):
            return NotImplemented
        return (self.url, self.real) == (other.url, other.real) and bool(self.source == other.source)

    __hash__ = None  # type: ignore[assignment]  # stores are not hashable


def within_reach[T](locate: Callable[[str], T], urls: Sequence[str]) -> tuple[T, ...]:
    """Return where mirrors are, leaving out those whose store cannot be built, such as a folder that is not there.

    Parameters
    ----------
    locate
        Returns where one is.
    urls
        The mirrors.

    Raises
    ------
    SourceUnavailableError
        That of the last, if none is left.
    """
    found = []
    for url in urls:
        try:
            found.append(locate(url))
        except SourceUnavailableError:
            if url is urls[-1] and not found:
                raise
    return tuple(found)


def stores_of(registry: object) -> dict[str, Any] | None:
    """The stores of obspec-utils' registry, by prefix; None where it is some other kind of registry."""
    tree = getattr(registry, "map", None)
    if not isinstance(tree, dict) or not all(isinstance(key, tuple) and len(key) == 2 for key in tree):
        return None
    stores: dict[str, Any] = {}
    pending = [(f"{scheme}://{netloc}", entry) for (scheme, netloc), entry in tree.items()]
    while pending:
        prefix, entry = pending.pop()
        if not hasattr(entry, "children") or not hasattr(entry, "store"):
            return None
        if entry.store is not None:
            stores[prefix] = entry.store
        pending += [(f"{prefix}/{segment}", child) for segment, child in entry.children.items()]
    return stores


def some(names: Iterable[str], most: int = 20) -> str:
    """List names for a message, as many as fit into one."""
    shown, more = ", ".join([*names][:most]) or "nothing", len([*names]) - most
    return f"{shown} and {more} more" if more > 0 else shown


def same_drive(one: str, other: str) -> bool:
    """Whether two local paths are on one drive; elsewhere than on Windows they always are."""
    return os.path.splitdrive(one)[0].lower() == os.path.splitdrive(other)[0].lower()
