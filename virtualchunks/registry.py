"""The registry: which prefixes of URLs may be read, and through which object store. It is the library's one gate.

Every byte that the library reads goes through :meth:`ObjectStoreRegistry.locate` (or its public face,
:meth:`~ObjectStoreRegistry.resolve`). What no prefix covers cannot be read; an empty registry grants nothing. A URL
that a *user* names is granted by naming it (:meth:`~ObjectStoreRegistry.grant`); a URL found inside a document is not.

Prefixes are compared by whole path segments, on canonical URLs (:mod:`virtualchunks.urls`). How bytes are asked for
belongs to :mod:`virtualchunks.reading`.

Credentials live in the stores. They are not in the registry's repr or errors. A pickled registry holds what obstore
pickles, which is a store's whole configuration: give a store ``credential_provider=`` (a picklable callable that
fetches credentials where it runs) instead of keys, and no secret is pickled. A hard link cannot be told from a file and
is not checked; nor is the target of a redirect that an HTTP server answers with, which obstore follows by itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Protocol, Self, runtime_checkable

from virtualchunks.containers import IcechunkAccess, no_prefixes
from virtualchunks.errors import NotGrantedError, UnsupportedFeatureError, URLError
from virtualchunks.mounts import EXAMPLE_STORES, Mount, ReadableStore, same_drive, some, split, stores_of, within_reach
from virtualchunks.mounts import Location as Location
from virtualchunks.objectstores import is_kind
from virtualchunks.roots import Places, places_of, root_of_url, spelled_out
from virtualchunks.urls import as_url, redact
from virtualchunks.urls import canonical_url as _canonical_url
from virtualchunks.urls import local_path as _local_path

#: The rules for URLs, remembered: every chunk that is read asks for them, and thousands of chunks have one URL.
canonical_url = lru_cache(maxsize=4096)(_canonical_url)
local_path = lru_cache(maxsize=4096)(_local_path)


@runtime_checkable
class Resolver(Protocol):
    """Any registry that turns a URL into a store and a key of it."""

    def resolve(self, url: str) -> tuple[Any, str]:
        """Return ``(store, key)``."""


class ObjectStoreRegistry(IcechunkAccess):
    """Which prefixes of URLs may be read, and through which store.

    Parameters
    ----------
    stores
        For each prefix (``s3://bucket/pub``, ``https://host``, ``file:///data``, a local folder) one of: an obstore
        store; a dict of options from which one is built when it is first needed (``region``, ``skip_signature``,
        ``endpoint``, ``client_options``, ``credential_provider`` …); ``None`` or ``{}`` for an anonymous store of the
        prefix's kind. The longest prefix by path segments wins.
    roots
        Where named roots are; see :meth:`bind`.

    Notes
    -----
    A store serves the URL's whole path if it begins at the bucket or host itself (``S3Store("b")`` under
    ``s3://b/pub``); if it begins further down (``S3Store("b", prefix="pub")``, ``LocalStore("/data")``,
    ``HTTPStore("https://h/dir")``), that part is taken off, and a URL outside of it is refused.

    Symbolic links below a local prefix are followed to where another granted prefix covers their target, and refused
    elsewhere.

    Examples
    --------
    >>> registry = ObjectStoreRegistry({"s3://bucket/pub": {"skip_signature": True, "region": "us-east-1"}})
    >>> registry
    ObjectStoreRegistry({'s3://bucket/pub/': S3Store})
    >>> store, key = registry.resolve("s3://bucket/pub/a%20b.nc")
    >>> key
    'a b.nc'
    >>> "s3://bucket/public/a.nc" in registry
    False
    """

    def __init__(
        self,
        stores: Mapping[str, ReadableStore | Mapping[str, Any] | None] | None = None,
        *,
        roots: Mapping[str, Places] | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._roots: dict[str, tuple[str, ...]] = {}
        self._mounts: dict[str, Mount] = {}
        self._objects: dict[str, Mount] = {}
        self._foreign: Resolver | None = None
        self._changes = 0
        for prefix, store in ({} if stores is None else stores).items():
            self.register(prefix, store)
        self._bind({} if roots is None else roots)

    @classmethod
    def coerce(cls, registry: object) -> ObjectStoreRegistry:
        """Make a registry of what a user passes as one.

        Parameters
        ----------
        registry
            None (nothing is granted), a mapping of prefixes, a registry of ours (returned as it is), one of
            obspec-utils (its stores are taken over), or any object with ``resolve(url) -> (store, key)``.

        Returns
        -------
        ObjectStoreRegistry
            A registry.

        Examples
        --------
        >>> len(ObjectStoreRegistry.coerce(None))
        0
        """
        if isinstance(registry, ObjectStoreRegistry):
            return registry
        if registry is None or isinstance(registry, Mapping):
            return cls(registry)
        if not isinstance(registry, Resolver):
            raise TypeError(
                f"expected a registry, a dict of prefixes and stores, or None, not {type(registry).__name__}: "
                'write registry={"s3://bucket/": store}'
            )
        stores = stores_of(registry)
        made = cls(stores)
        if stores is None:
            made._foreign = registry
        return made

    def register(self, prefix: str | os.PathLike[str], store: ReadableStore | Mapping[str, Any] | None = None) -> None:
        """Grant what lies beneath a prefix, in place of what was registered for it before.

        Parameters
        ----------
        prefix
            A URL, or a local folder.
        store
            An obstore store, a dict of options to build one, or None for an anonymous one.

        Examples
        --------
        >>> registry = ObjectStoreRegistry()
        >>> registry.register("https://data.example/open")
        >>> registry.prefixes
        ('https://data.example/open/',)
        """
        url = as_url(prefix).removesuffix("/") + "/"
        if store is not None and (isinstance(store, type) or not isinstance(store, Mapping | ReadableStore)):
            raise TypeError(
                f"for {url} expected an obstore store, a dict of options or None, not {type(store).__name__}"
            )
        with self._lock:
            self._mounts[url] = Mount(url, dict(store) if isinstance(store, Mapping) else store)
            self._changes += 1

    def grant(self, *urls: str | os.PathLike[str]) -> ObjectStoreRegistry:
        """A registry that grants also the objects that a user names, each exactly and nothing beside it.

        A local file is read as it is; https, s3 and gs objects are read without credentials. Where credentials are
        needed, register the prefix instead.

        Parameters
        ----------
        *urls
            Paths or URLs of objects.

        Returns
        -------
        ObjectStoreRegistry
            This registry if it covers them all, otherwise a new one.

        Examples
        --------
        >>> registry = ObjectStoreRegistry().grant("/data/a.nc")
        >>> "file:///data/a.nc" in registry, "file:///data/b.nc" in registry
        (True, False)
        """
        named = [url for url in map(as_url, urls) if not self._reaches(url)]
        if not named:
            return self
        granted = self.__copy__()
        for url in named:
            if split(url).scheme in ("az", "memory"):
                raise NotGrantedError(self._refusal(url), url=redact(url))
            real = os.path.realpath(local_path(url)) if url.startswith("file:") else None
            granted._objects[url] = Mount(url, None, real=real)
        return granted

    def bind(self, roots: Mapping[str, Places]) -> ObjectStoreRegistry:
        """A registry that knows where named roots are: ``{archive}/a.nc`` is read from the places of ``archive``.

        Naming a place grants what lies beneath it, through the store that is registered for it or, if there is none,
        an anonymous one. Of several places, mirrors of one another, the first that answers is read.

        Parameters
        ----------
        roots
            For each name a folder, as a URL or a local path, or several in the order in which they are tried.

        Returns
        -------
        ObjectStoreRegistry
            A new registry.

        Raises
        ------
        NotGrantedError
            If a place needs a store that is not registered.
        URLError
            If a name or a place is none.

        Examples
        --------
        >>> registry = ObjectStoreRegistry().bind({"archive": ["/mnt/archive", "https://data.example/archive"]})
        >>> registry.roots["archive"]
        ('file:///mnt/archive/', 'https://data.example/archive/')
        """
        (bound := self.__copy__())._bind(roots)
        return bound

    def _bind(self, roots: Mapping[str, Places]) -> None:
        for name, places in places_of(roots).items():
            for place in places:
                if self._find(place) is None and self._foreign is None:
                    if split(place).scheme in ("az", "memory"):
                        raise NotGrantedError(self._refusal(place), url=redact(place))
                    self.register(place)
            self._roots[name] = places
            self._changes += 1

    @property
    def version(self) -> int | None:
        """A number that differs after each change of what is granted; None where another registry decides that."""
        return self._changes if self._foreign is None else None

    @property
    def roots(self) -> dict[str, tuple[str, ...]]:
        """The named roots that are bound, with their places in the order in which they are tried."""
        with self._lock:
            return dict(self._roots)

    def locate_all(self, url: str) -> tuple[Location, ...]:
        """Where the bytes of a URL are to be had: in one place, or in every mirror of its named root.

        Parameters
        ----------
        url
            A URL.

        Returns
        -------
        tuple of Location
            In the order in which they are tried.

        Raises
        ------
        URLError, NotGrantedError
            As :meth:`locate`.
        """
        if not url.startswith("{"):
            return (self.locate(url),)
        return within_reach(self.locate, spelled_out(canonical_url(url), self._roots))

    def locate(self, url: str) -> Location:
        """Where the bytes of a URL are to be had, if it is granted. Every read begins here.

        Parameters
        ----------
        url
            A URL.

        Returns
        -------
        Location
            Store, key and, for local files, the real path.

        Raises
        ------
        URLError
            If the URL has no canonical spelling.
        NotGrantedError
            If no prefix covers it, a symbolic link leads out of all of them, or its named root is not bound.
        """
        url = canonical_url(url)
        if url[0] == "{":
            return self.locate(spelled_out(url, self._roots)[0])
        mount = self._find(url)
        if mount is None:
            if self._foreign is not None:
                return self._locate_elsewhere(url, self._foreign)
            raise NotGrantedError(self._refusal(url), url=redact(url))
        path = None if mount.in_memory or not url.startswith("file:") else self._real_path(url, mount)
        return Location(url, mount.open()[0], mount.key(url), path if mount.is_local else None)

    def resolve(self, url: str) -> tuple[Any, str]:
        """Resolve a URL to a store and the object's key in it, as obspec-utils' registry does.

        Parameters
        ----------
        url
            A URL.

        Returns
        -------
        tuple of store and str
            The store, and the key (percent-decoded) to pass to its methods.

        Raises
        ------
        URLError, NotGrantedError
            As :meth:`locate`.

        Examples
        --------
        >>> from obstore.store import MemoryStore
        >>> registry = ObjectStoreRegistry({"memory://": MemoryStore()})
        >>> registry.resolve("memory:///a/b.nc")[1]
        'a/b.nc'
        """
        location = self.locate(url)
        return location.store, location.key

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The registered prefixes, each ending in ``/``, in order of registration."""
        with self._lock:
            return tuple(self._mounts)

    @property
    def objects(self) -> tuple[str, ...]:
        """The URLs of the single objects that were granted by name."""
        with self._lock:
            return tuple(self._objects)

    def _by_prefix(self) -> dict[str, ReadableStore]:
        mounts, objects, foreign, _ = self._parts()
        alone = [url for url in objects if self._find(url[: url.rindex("/") + 1]) is None]
        if alone or foreign is not None:
            raise no_prefixes(redact(alone[0]) if alone else type(foreign).__name__)
        return {url: mount.open()[0] for url, mount in mounts.items()}

    def __contains__(self, url: object) -> bool:
        try:
            return isinstance(url, str) and self._find(canonical_url(url)) is not None
        except URLError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter((*self.prefixes, *self.objects))

    def __len__(self) -> int:
        return len(self._mounts) + len(self._objects)

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObjectStoreRegistry):
            return NotImplemented
        return self._parts() == other._parts()

    __hash__ = None  # type: ignore[assignment]  # a registry can be changed

    def __repr__(self) -> str:
        mounts, objects, foreign, roots = self._parts()
        shown = [f"{mount.url!r}: {mount.kind}" for mount in mounts.values()]
        shown += [f"{url!r}: this object" for url in objects]
        shown += [f"…: {type(foreign).__name__}"] if foreign is not None else []
        shown += [f"'{{{name}}}/': {', '.join(places)}" for name, places in roots.items()]
        return f"{type(self).__name__}({{{', '.join(shown)}}})" if shown else f"{type(self).__name__}()"

    def __copy__(self) -> Self:
        made = type(self)()
        made._mounts, made._objects, made._foreign, made._roots = self._parts()
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()  # stores are shared: they are connections, not values

    def __reduce__(self) -> tuple[Any, ...]:
        mounts, objects, foreign, roots = self._parts()
        for mount in mounts.values():
            if mount.in_memory:
                raise UnsupportedFeatureError(
                    f"the store registered for {mount.url} lives in this process's memory and cannot be pickled: "
                    "write its objects to files or a bucket before work is sent to other processes",
                    url=mount.url,
                )
        rows = [(mount.url, mount.source) for mount in mounts.values()]
        named = [(mount.url, mount.real) for mount in objects.values()]
        return _rebuild, (type(self), rows, named, foreign, roots)

    def _parts(self) -> tuple[dict[str, Mount], dict[str, Mount], Resolver | None, dict[str, tuple[str, ...]]]:
        with self._lock:
            return dict(self._mounts), dict(self._objects), self._foreign, dict(self._roots)

    def _find(self, url: str) -> Mount | None:
        """The granted object, or the mount of the longest prefix by segments."""
        if url.startswith("{"):
            return self._find(spelled_out(url, self._roots)[0]) if root_of_url(url) in self._roots else None
        with self._lock:
            mount = self._objects.get(url)
            folder = url if url.endswith("/") else url + "/"
            root = folder.index("/", folder.index("://") + 3)
            while mount is None:
                mount = self._mounts.get(folder)
                if len(folder) <= root + 1:
                    break
                folder = folder[: folder.rindex("/", 0, -1) + 1]
            return mount

    def _reaches(self, url: str) -> bool:
        """Whether a URL can be read already, without granting it by name."""
        mount = self._find(url)
        try:
            if mount is not None and url.startswith("file:") and not mount.in_memory:
                self._real_path(url, mount)
            elif mount is None and self._foreign is not None:
                self._locate_elsewhere(url, self._foreign)
                return True
        except NotGrantedError:
            return False
        return mount is not None

    def _real_path(self, url: str, mount: Mount) -> str:
        """The path with all links resolved, if it is still covered."""
        path = local_path(url)
        real = os.path.realpath(path)
        covered = real == mount.real if mount.real is not None else real == path or self._covers(real)
        if not covered:
            raise NotGrantedError(
                f"{redact(url)} leads through a symbolic link to {real}, which no prefix of the registry covers: add "
                f"registry.register({as_url(os.path.dirname(real))!r})",
                url=redact(url),
            )
        return real

    def _covers(self, real: str) -> bool:
        """Whether a real path lies beneath the real path of a prefix of local files."""
        mounts, objects, _, _ = self._parts()
        if any(real == mount.real for mount in objects.values()):
            return True
        folders = (
            os.path.realpath(local_path(mount.url))
            for mount in mounts.values()
            if mount.url.startswith("file:") and not mount.in_memory
        )
        return any(os.path.commonpath([folder, real]) == folder for folder in folders if same_drive(folder, real))

    def _locate_elsewhere(self, url: str, foreign: Resolver) -> Location:
        """Through a registry that is not ours; links are refused, since what it covers is not known."""
        try:
            store, key = foreign.resolve(url)
        except (ValueError, LookupError) as error:
            raise NotGrantedError(f"{type(foreign).__name__} does not cover {redact(url)}", url=redact(url)) from error
        if not url.startswith("file:") or is_kind("MemoryStore", url, store):
            return Location(url, store, key)
        path = local_path(url)
        if os.path.realpath(path) != path:
            raise NotGrantedError(f"{redact(url)} leads through a symbolic link: name its target", url=redact(url))
        return Location(url, store, key, path if is_kind("LocalStore", url, store) else None)

    def _refusal(self, url: str) -> str:
        scheme, _, _ = split(url)
        folder = url if url.endswith("/") else url[: url.rindex("/") + 1]
        line = f"registry.register({redact(folder)!r}{EXAMPLE_STORES.get(scheme, '')})"
        advice = line if self._mounts or not self._objects else f"a registry to the call, with registry=, after {line}"
        return f"{redact(url)} is not granted: the registry covers {some(self)}. To read it, add {advice}"


def _rebuild(
    cls: type[ObjectStoreRegistry],
    rows: list[tuple[str, Any]],
    objects: list[tuple[str, str | None]],
    foreign: Resolver | None,
    roots: dict[str, tuple[str, ...]],
) -> ObjectStoreRegistry:
    registry = cls(dict(rows))
    registry._roots = roots
    registry._objects = {url: Mount(url, None, real=real) for url, real in objects}
    registry._foreign = foreign
    return registry
