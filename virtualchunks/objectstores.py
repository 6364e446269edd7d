"""Object stores: how one is built from a prefix and options, and where a given one begins.

obstore's classes are named here only. Which store serves which URL is the business of :mod:`virtualchunks.registry`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, HTTPStore, LocalStore, MemoryStore, S3Store

from virtualchunks.errors import SourceUnavailableError
from virtualchunks.urls import as_url, canonical_url, local_path, split

_KINDS: dict[str, type] = {
    "file": LocalStore,
    "http": HTTPStore,
    "https": HTTPStore,
    "s3": S3Store,
    "gs": GCSStore,
    "az": AzureStore,
    "memory": MemoryStore,
}
_ANONYMOUS: dict[str, dict[str, Any]] = {scheme: {"skip_signature": True} for scheme in ("s3", "gs", "az")}
_LOCATORS: dict[str, Callable[[str], dict[str, Any]]] = {
    "file": lambda url: {"prefix": local_path(url)},
    "http": lambda url: {"url": url.removesuffix("/")},  # obstore would double the slash
    "https": lambda url: {"url": url.removesuffix("/")},
    "s3": lambda url: {"bucket": split(url).authority, "prefix": split(url).key.strip("/") or None},
    "gs": lambda url: {"bucket": split(url).authority, "prefix": split(url).key.strip("/") or None},
    "az": lambda url: {"container_name": split(url).authority, "prefix": split(url).key.strip("/") or None},
    "memory": lambda url: {},
}


def build_store(url: str, options: Mapping[str, Any] | None = None) -> Any:
    """Build the obstore store that begins at a prefix.

    Parameters
    ----------
    url
        A canonical URL; its scheme names the kind of store.
    options
        Keywords of the store's class. Without any, the store is anonymous. Plain ``http://``, as a prefix or as the
        endpoint, is allowed because it was named.

    Returns
    -------
    object
        An obstore store.

    Raises
    ------
    SourceUnavailableError
        If obstore cannot build a store of these options.

    Examples
    --------
    >>> build_store("s3://bucket/pub/", {"region": "us-east-1", "skip_signature": True})
    S3Store(bucket="bucket", prefix="pub")
    """
    scheme = split(url).scheme
    keywords = {**(options or _ANONYMOUS.get(scheme, {})), **_LOCATORS[scheme](url)}
    if _is_plain_http(url, keywords):
        keywords["client_options"] = {"allow_http": True, **(keywords.get("client_options") or {})}
    try:
        return _KINDS[scheme](**keywords)
    except (BaseError, ValueError, TypeError, OSError) as error:
        names = ", ".join(options) if options else "no options"
        reason = str(error).strip().partition("\n")[0]
        raise SourceUnavailableError(f"no store can be built for {url} with {names}: {reason}", url=url) from error


def store_kind(url: str, source: object) -> str:
    """The name of the class of a store, given or still to be built of options.

    Examples
    --------
    >>> store_kind("s3://bucket/", {"region": "us-east-1"})
    'S3Store'
    """
    return type(source).__name__ if hasattr(source, "get") and not isinstance(source, Mapping) else _kind(url).__name__


def is_kind(name: str, url: str, source: object) -> bool:
    """Whether a store, given or still to be built, is of obstore's class of that name, or derived from it.

    Examples
    --------
    >>> is_kind("LocalStore", "file:///data/", None)
    True
    """
    kind = type(source) if hasattr(source, "get") and not isinstance(source, Mapping) else _kind(url)
    return any(base.__name__ == name and base.__module__.startswith("obstore") for base in kind.__mro__)


def root_of(store: object) -> str:
    """The key, within scheme and authority, that a store itself begins at; empty for a whole bucket, host or disk.

    Parameters
    ----------
    store
        An obstore store, or a wrapper that shows its ``prefix`` or ``url``.

    Returns
    -------
    str
        A decoded key without slashes at its ends.

    Examples
    --------
    >>> root_of(HTTPStore("https://data.example/a%20b"))
    'a b'
    """
    prefix = getattr(store, "prefix", None)
    if isinstance(prefix, PurePath):
        return split(as_url(os.path.abspath(prefix))).key.strip("/")
    if isinstance(prefix, str):
        return prefix.strip("/")
    url = getattr(store, "url", None)
    return split(canonical_url(url)).key.strip("/") if isinstance(url, str) else ""


def _kind(url: str) -> type:
    return _KINDS[split(url).scheme]


def _is_plain_http(url: str, keywords: Mapping[str, Any]) -> bool:
    values = [url, *keywords.values(), *(keywords.get("config") or {}).values()]
    return any(isinstance(value, str) and value.lower().startswith("http://") for value in values)
