"""IcechunkParser: one snapshot of an Icechunk repository → one tree of arrays of chunk references.

The repository is read by the ``icechunk`` library; its chunks are not. A *virtual* chunk is a reference to where it
lies, a *native* one to ``<repository>/chunks/<id>``, an *inline* one is held in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import icechunk
import numpy as np
from zarr.core.buffer import default_buffer_prototype

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError, SourceUnavailableError, UnsupportedFeatureError, URLError
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.listing import child_url
from virtualchunks.reading.turns import letting_others
from virtualchunks.registry import Location, ObjectStoreRegistry
from virtualchunks.sources import SourceTable
from virtualchunks.store import ManifestStore
from virtualchunks.urls import canonical_url, local_path, redact, split
from virtualchunks_parsers.zarr.manifests import Chunks, check_grid
from virtualchunks_parsers.zarr.nodes import Node, StoredArray, metadata_errors, nodes_of, parse_document
from virtualchunks_parsers.zarr.tree import HierarchyParser, folder_of

_NATIVE, _VIRTUAL, _INLINE = 1, 2, 3
#: What messages call a repository whose URL is not known.
UNNAMED = "the repository"


@dataclass(frozen=True, kw_only=True)
class Version:
    """Which snapshot of a repository: the tip of a branch, by default of ``main``, a tag, or a snapshot by its id."""

    branch: str | None = None
    tag: str | None = None
    snapshot_id: str | None = None

    @property
    def _version(self) -> dict[str, str]:
        given = {"branch": self.branch, "tag": self.tag, "snapshot_id": self.snapshot_id}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class IcechunkParser(HierarchyParser, Version):
    """Reads a snapshot of an Icechunk repository as arrays of chunk references.

    Parameters
    ----------
    branch, tag, snapshot_id
        Which snapshot: the tip of a branch (by default of ``main``), a tag, or a snapshot by its id. At most one.
    group
        Path of the group that becomes the root; by default the repository's own root.
    drop_variables
        Names of arrays to leave out wherever they are, or paths of arrays and groups, such as ``"/model/wind"``.
    strict
        Whether to raise where an array cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.
    batch_size
        How many references are asked of Icechunk at a time.
    skip_variables
        Another name for `drop_variables`.

    Notes
    -----
    Naming a repository grants what lies beneath it, its native chunks among them. What virtual chunks refer to is not
    granted: reading their values needs a registry that covers it. Icechunk does not give out the checksums of virtual
    chunks, so references carry no stamps.

    The repository's own metadata is read by Icechunk, from where the registry's store for it lies: a local folder, or
    S3, GCS or HTTP. Where the store's credentials cannot be handed over, open the repository yourself and use
    :meth:`from_storage`.

    Examples
    --------
    >>> IcechunkParser(tag="v1", group="model")  # doctest: +ELLIPSIS
    IcechunkParser(branch=None, tag='v1', snapshot_id=None, group='model', ...)
    """

    name: ClassVar[str] = "Icechunk"
    suffixes: ClassVar[tuple[str, ...]] = (".icechunk",)
    markers: ClassVar[tuple[str, ...]] = ("repo", "refs/branch.main/ref.json")
    reads: ClassVar[tuple[str, ...]] = (
        "virtual, native and inline chunks, at a branch, a tag or a snapshot",
        "repositories of specification 1 and 2, groups, rectilinear grids",
        "repositories in local folders, S3, GCS and HTTP, or opened by the caller",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "native chunks of a repository whose URL is not known, such as one in memory",
        "virtual chunks at URLs with queries, '..' or user info",
    )
    native_code: ClassVar[str] = (
        "The icechunk library reads the repository. A damaged one can make it ask for more memory than there is, which "
        "ends the process."
    )

    batch_size: int = 100_000

    def __post_init__(self, skip_variables: Iterable[str] | None) -> None:
        super().__post_init__(skip_variables)
        stated = [f"{name}={value!r}" for name, value in self._version.items()]
        if len(stated) > 1:
            raise FormatError(f"one of branch, tag and snapshot_id names a snapshot; given are {', '.join(stated)}")

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return False: a repository is a folder, which has no first bytes."""
        return False

    def _parsed(self, url: str, registry: Any) -> tuple[ManifestGroup, ObjectStoreRegistry]:
        folder, granted = folder_of(url, registry)
        storage = _storage(granted.locate(folder), folder)
        return self._tree(storage, folder), granted

    def from_storage(
        self,
        source: icechunk.Storage | icechunk.Repository | icechunk.Session,
        url: str | None = None,
        registry: Any = None,
    ) -> ManifestStore:
        """Parse a repository that the caller opened.

        Parameters
        ----------
        source
            A storage, a repository or a session. A session has its snapshot already.
        url
            Where the repository lies, for references to its native chunks; without it, arrays that have any are left
            out.
        registry
            What may be read, and through which store.
        """
        if url is None:
            return ManifestStore(self._tree(source, None), registry=ObjectStoreRegistry.coerce(registry))
        folder, granted = folder_of(url, registry)
        return ManifestStore(self._tree(source, folder), registry=granted)

    def _tree(self, source: Any, folder: str | None) -> ManifestGroup:
        url = folder or UNNAMED
        session = _session(source, self._version or {"branch": "main"}, url)
        documents = {key: parse_document(key, data, url) for key, data in _run(_documents(session.store), url).items()}

        def array(node: Node) -> ManifestArray:
            stored = node.array(url)
            with metadata_errors(url, node.path or "/"):
                chunks = _run(_chunks(session.store, stored, folder, self.batch_size), url)
                return ManifestArray(stored.metadata, chunks.manifest(stored.metadata.grid))

        return self._selection(url).tree(nodes_of(documents), array)


def _session(source: Any, version: Mapping[str, str], url: str) -> icechunk.Session:
    if isinstance(source, icechunk.Session):
        return source
    try:
        repository = source if isinstance(source, icechunk.Repository) else icechunk.Repository.open(source)
        return repository.readonly_session(
            version.get("branch"), tag=version.get("tag"), snapshot_id=version.get("snapshot_id")
        )
    except (icechunk.IcechunkError, ValueError) as error:
        named = None if url == UNNAMED else url
        wanted = ", ".join(f"{name} {value!r}" for name, value in version.items())
        raise FormatError(f"{url} is no Icechunk repository with the {wanted}: {_reason(error)}", url=named) from error


def _reason(error: BaseException) -> str:
    lines = [line.strip(" |×╰▶-") for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _run[T](work: Coroutine[Any, Any, T], url: str) -> T:
    """Run a coroutine to its end, also where an event loop is running already."""
    try:
        with letting_others(), ThreadPoolExecutor(1, "virtualchunks-icechunk") as pool:
            return pool.submit(asyncio.run, work).result()
    except icechunk.IcechunkError as error:
        raise SourceUnavailableError(f"{url} cannot be read by Icechunk: {_reason(error)}") from error


async def _documents(store: icechunk.IcechunkStore) -> dict[str, bytes]:
    """Return all metadata documents by key, group by group: to list all keys would list every chunk."""
    found: dict[str, bytes] = {}
    pending = [""]
    while pending:
        path = pending.pop()
        key = f"{path}/zarr.json" if path else "zarr.json"
        document = await store.get(key, prototype=default_buffer_prototype())
        if document is None:
            continue
        found[key] = document.to_bytes()
        if parse_document(key, found[key], UNNAMED).get("node_type") == "array":
            continue
        members: AsyncIterator[str] = store.list_dir(path)
        pending += [f"{path}/{name}" if path else name async for name in members if name != "zarr.json"]
    return found


async def _chunks(store: icechunk.IcechunkStore, array: StoredArray, folder: str | None, batch_size: int) -> Chunks:
    """Return the chunks of an array."""
    grid = array.metadata.grid
    urls = _Numbers()
    held: dict[int, bytes] = {}
    empty = np.empty(0, dtype=np.int64)
    columns: list[tuple[Any, Any, Any, Any]] = [(empty, empty, empty, empty)]
    if not grid.size:
        return Chunks(empty, empty, empty, empty, SourceTable.empty())
    check_grid(grid.size, grid.size)
    batches = store.array_chunk_iterator("/" + array.path, batch_size=batch_size)
    async for coordinates, kinds, paths, offsets, lengths, inlined in batches:
        inside = (coordinates < np.array(grid.grid_shape, dtype=np.int64)).all(axis=1)
        numbers = _numbers(coordinates, inside, grid.grid_shape)
        if inside.all() and (kinds == _VIRTUAL).all():
            sources = np.fromiter(map(urls.__getitem__, paths), dtype=np.int64, count=len(paths))
            columns.append((numbers, sources, offsets, lengths))
            continue
        held.update((int(numbers[row]), data) for row, data in inlined.items() if inside[row])
        rows = np.flatnonzero(inside & (kinds != _INLINE))
        native = (kinds[rows] == _NATIVE).tolist()
        names = [
            f"\0{paths[row]}" if is_native else paths[row] for row, is_native in zip(rows.tolist(), native, strict=True)
        ]
        sources = np.fromiter(map(urls.__getitem__, names), dtype=np.int64, count=len(names))
        columns.append((numbers[rows], sources, offsets[rows], lengths[rows]))
    numbers, sources, places, sizes = (
        np.concatenate(column, dtype=np.int64, casting="unsafe") for column in zip(*columns, strict=True)
    )
    return Chunks(numbers, sources, places, sizes, SourceTable.of_urls([_url(name, folder) for name in urls]), held)


class _Numbers(dict[str, int]):
    """Names, numbered in the order in which they are first asked for."""

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self)
        return number


def _numbers(coordinates: Any, inside: Any, shape: tuple[int, ...]) -> Any:
    """Return the number of each chunk in C order; 0 for those outside the grid, which nothing asks for."""
    if not shape:
        return np.zeros(len(coordinates), dtype=np.int64)
    within = np.where(inside[:, None], coordinates, 0).astype(np.int64)
    return np.ravel_multi_index(tuple(within.T), shape).astype(np.int64)


def _url(name: str, folder: str | None) -> str:
    """Return the URL of a virtual chunk, or of a native one, whose id a null character begins."""
    if not name.startswith("\0"):
        try:
            return canonical_url(name)
        except URLError as error:
            raise UnsupportedFeatureError(f"a virtual chunk at {redact(name)!r}: {error.message}") from error
    if folder is None:
        raise UnsupportedFeatureError("it has native chunks, and the URL of the repository is not known: pass url=")
    return child_url(folder, f"chunks/{name[1:]}")


def _storage(location: Location, url: str) -> icechunk.Storage:
    """Return Icechunk's storage of a repository, with what the registry's store says of access."""
    scheme = split(location.url).scheme
    if scheme not in _STORAGES:
        raise UnsupportedFeatureError(
            f"Icechunk's storage for {scheme}:// is not set up here: open the repository and pass it to from_storage",
            url=url,
        )
    if getattr(location.store, "credential_provider", None) is not None:
        raise UnsupportedFeatureError(
            f"the credential provider of the store of {url} cannot be handed to Icechunk: open the repository and pass "
            "it to from_storage",
            url=url,
        )
    return _STORAGES[scheme](location)


def _local(location: Location) -> icechunk.Storage:
    return icechunk.local_filesystem_storage(location.path or local_path(location.url))


def _s3(location: Location) -> icechunk.Storage:
    authority, key = split(location.url)[1:]
    config, client = _options(location, "config"), _options(location, "client_options")
    anonymous = _is_true(config.get("skip_signature"))
    keys = config.get("access_key_id")
    return icechunk.s3_storage(
        bucket=authority,
        prefix=key.strip("/") or None,
        region=config.get("region"),
        endpoint_url=config.get("endpoint"),
        allow_http=_is_true(client.get("allow_http")),
        access_key_id=keys,
        secret_access_key=config.get("secret_access_key"),
        session_token=config.get("session_token") or config.get("token"),
        anonymous=anonymous or None,
        from_env=True if keys is None and not anonymous else None,
        force_path_style=not _is_true(config.get("virtual_hosted_style_request")),
    )


def _gcs(location: Location) -> icechunk.Storage:
    authority, key = split(location.url)[1:]
    config = _options(location, "config")
    anonymous = _is_true(config.get("skip_signature"))
    return icechunk.gcs_storage(
        bucket=authority,
        prefix=key.strip("/") or None,
        service_account_file=config.get("service_account") or config.get("service_account_path"),
        service_account_key=config.get("service_account_key"),
        anonymous=anonymous or None,
    )


def _http(location: Location) -> icechunk.Storage:
    plain = {"allow_http": "true"} if location.url.startswith("http://") else None
    return icechunk.http_storage(location.url, plain)


def _options(location: Location, name: str) -> Mapping[str, Any]:
    given = getattr(location.store, name, None)
    return {str(key).removeprefix("aws_").removeprefix("google_"): value for key, value in (given or {}).items()}


def _is_true(value: Any) -> bool:
    return value is True or str(value).lower() in ("true", "1")


_STORAGES: dict[str, Callable[[Location], icechunk.Storage]] = {
    "file": _local,
    "s3": _s3,
    "gs": _gcs,
    "http": _http,
    "https": _http,
}
