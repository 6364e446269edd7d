"""Virtual chunk containers: the URL prefixes that a repository must allow before references may lead there."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from virtualchunks.array import ManifestArray
from virtualchunks.containers import spelling
from virtualchunks.errors import NotGrantedError, UnsupportedFeatureError
from virtualchunks.urls import local_path, redact
from virtualchunks.writers.datasets import as_group
from virtualchunks.writers.layout import StoredArray

_STORES: dict[str, Callable[[str], str]] = {
    "file": lambda prefix: f"icechunk.local_filesystem_store({local_path(prefix)!r})",
    "s3": lambda prefix: 'icechunk.s3_store(region="…")',
    "gs": lambda prefix: "icechunk.gcs_store()",
    "http": lambda prefix: "icechunk.http_store()",
    "https": lambda prefix: "icechunk.http_store()",
}
_CREDENTIALS = {
    "file": "icechunk.Credentials.LocalFileSystemAccess()",
    "s3": "icechunk.s3_credentials(anonymous=True)",
    "gs": "icechunk.gcs_credentials(anonymous=True)",
    "http": "icechunk.Credentials.HttpAccess()",
    "https": "icechunk.Credentials.HttpAccess()",
}


def required_containers(tree: Any) -> list[str]:
    """Return the prefixes of URLs that an Icechunk repository must allow and its readers must authorise.

    Parameters
    ----------
    tree
        A ManifestGroup, or an xarray Dataset or DataTree.

    Returns
    -------
    list of str
        One prefix, ending in a slash, for each bucket, host or disk that references lead to.

    Examples
    --------
    >>> from virtualchunks import ArrayMetadata, ManifestArray, ManifestGroup
    >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(4,), dtype="<i4")
    >>> array = ManifestArray(metadata, {"0": {"path": "s3://bucket/2020/a.nc", "offset": 8, "length": 16}})
    >>> required_containers(ManifestGroup({"v": array}))
    ['s3://bucket/2020/']
    """
    arrays = [array for _, array in as_group(tree).walk_arrays()]
    return [spelling(prefix) for prefix in common_prefixes(urls_of(arrays))]


def urls_of(arrays: Iterable[StoredArray | ManifestArray]) -> list[str]:
    """Return the distinct URLs that arrays refer to, in order."""
    return list(dict.fromkeys(url for array in arrays for url in array.manifest.iter_nonempty_paths()))


def common_prefixes(urls: Iterable[str]) -> list[str]:
    """Return the longest folder that holds all URLs of one scheme and authority, for each of those."""
    folders: dict[str, list[str]] = {}
    for url in urls:
        scheme, _, rest = url.partition("://")
        root = f"{scheme}://{rest.partition('/')[0]}"
        folders.setdefault(root, []).append(url[len(root) : url.rindex("/")] or "/")
    return sorted(f"{root}{os.path.commonpath(paths).rstrip('/')}/" for root, paths in folders.items())


def require_containers(store: Any, arrays: Iterable[StoredArray]) -> None:
    """Check that the containers of a repository cover every reference.

    Parameters
    ----------
    store
        The store of an Icechunk session.
    arrays
        The arrays to be written.

    Raises
    ------
    NotGrantedError
        If they do not; the message lists the lines to add.
    """
    configured = container_prefixes(store)
    outside = [url for url in urls_of(arrays) if not spelling(url).startswith(tuple(configured))]
    if not outside:
        return
    known = ", ".join(configured) or "none"
    raise NotGrantedError(
        f"{len(outside)} objects lie outside the virtual chunk containers of the repository ({known}), for example "
        f"{redact(outside[0])}. {advice(outside)}",
        url=redact(outside[0]),
    )


def container_prefixes(store: Any) -> list[str]:
    """Return the prefixes of a repository's containers, as they are configured."""
    containers = store.session.config.virtual_chunk_containers or {}
    return [container.url_prefix for container in containers.values()]


def are_plain(prefixes: Iterable[str]) -> bool:
    """Return whether Icechunk's own check when it writes agrees with the one when it reads: the first does not decode
    locations.

    Examples
    --------
    >>> are_plain(["s3://bucket/pub/"]), are_plain(["s3://bucket/a b/"])
    (True, False)
    """
    return all(quote(prefix, safe="/:") == prefix for prefix in prefixes)


def advice(urls: Iterable[str]) -> str:
    """Return the lines that let a repository refer to these URLs."""
    prefixes = common_prefixes(urls)
    lines = ["config = repository.config  # or icechunk.RepositoryConfig.default() for a new one"]
    for prefix in prefixes:
        store = _STORES.get(prefix.partition(":")[0], _unknown_store)(prefix)
        made = f"icechunk.VirtualChunkContainer({spelling(prefix)!r}, {store})"
        lines.append(f"config.set_virtual_chunk_container({made})")
    kinds = [(spelling(prefix), prefix.partition(":")[0]) for prefix in prefixes]
    access = ", ".join(f"{prefix!r}: {_CREDENTIALS.get(scheme, '…')}" for prefix, scheme in kinds)
    lines.append(f"repository = icechunk.Repository.open(storage, config, authorize_virtual_chunk_access={{{access}}})")
    lines.append("repository.save_config()")
    return "Add them and open the repository again:\n    " + "\n    ".join(lines)


def require_reachable(arrays: Iterable[StoredArray]) -> None:
    """Check that no reference leads into the memory of this process, or beneath a named root.

    Raises
    ------
    UnsupportedFeatureError
        If one does.
    """
    for array in arrays:
        for url in array.manifest.iter_nonempty_paths():
            if url.startswith("memory:"):
                raise UnsupportedFeatureError(
                    f"{url} lies in the memory of this process, so references to it cannot be written",
                    url=url,
                    variable=array.path,
                )
            if url.startswith("{"):
                raise UnsupportedFeatureError(
                    f"Icechunk cannot hold {url}, which lies beneath a named root: say where that is first, with "
                    ".virtual.bind({…})",
                    url=url,
                    variable=array.path,
                )


def _unknown_store(prefix: str) -> str:
    return "…"
