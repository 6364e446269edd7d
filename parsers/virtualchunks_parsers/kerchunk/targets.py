"""Targets: what the paths in references name, as canonical URLs, and how long a target is that is meant as a whole.

References are written for fsspec: the key of a path is a *name*, whose ``%`` and ``#`` stand for themselves, except in
``http`` URLs. Nothing that a document names is granted by naming the document; a target is only looked at where the
registry covers it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from virtualchunks.errors import (
    NotGrantedError,
    ReadError,
    UnsupportedFeatureError,
    URLError,
)
from virtualchunks.reading.listing import child_url, look_up
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import Stamp
from virtualchunks.urls import ROOT_NAME, as_url, canonical_url, quote_path, redact
from virtualchunks_parsers.kerchunk.templates import Templates

#: fsspec's protocols whose keys are plain names, and the scheme that each is here.
_NAMED = {
    "abfs": "az",
    "abfss": "az",
    "az": "az",
    "file": "file",
    "gcs": "gs",
    "gs": "gs",
    "local": "file",
    "memory": "memory",
    "s3": "s3",
    "s3a": "s3",
}
#: Most objects that are looked up because references mean them as a whole.
MOST_LOOKUPS = 100_000


class Targets:
    """The targets of one reference document.

    Parameters
    ----------
    registry
        What may be looked at.
    templates
        What expands paths.
    base
        Where relative paths begin; ``None`` refuses them.
    """

    def __init__(
        self, registry: ObjectStoreRegistry, templates: Templates | None = None, base: str | None = None
    ) -> None:
        self._registry = registry
        self._templates = templates if templates else None
        self._base = None if base is None else as_url(base)
        self._urls: dict[str, str] = {}
        self._stamps: dict[str, Stamp | None] = {}

    def url(self, path: str) -> str:
        """Return the canonical URL of a path in a reference.

        Raises
        ------
        UnsupportedFeatureError
            If it is relative and there is no base, or it breaks a rule for URLs.
        """
        found = self._urls.get(path)
        if found is None:
            expanded = path if self._templates is None else self._templates.expand(path)
            try:
                found = target_url(expanded, self._base)
            except URLError as error:
                raise UnsupportedFeatureError(f"a reference to {redact(expanded)!r}: {error.message}") from error
            self._urls[path] = found
        return found

    def stamps(self, urls: Iterable[str]) -> list[Stamp]:
        """Return the stamps, with the sizes, of objects that references mean as a whole.

        Raises
        ------
        UnsupportedFeatureError
            If the registry does not cover one of them, or it is not there.
        """
        wanted = list(urls)
        new = [url for url in dict.fromkeys(wanted) if url not in self._stamps]
        if len(new) + len(self._stamps) > MOST_LOOKUPS:
            raise UnsupportedFeatureError(
                f"references to more than {MOST_LOOKUPS:,} whole objects, whose sizes would be looked up one by one"
            )
        try:
            self._stamps.update(zip(new, look_up(self._registry, new), strict=True))
        except (NotGrantedError, ReadError) as error:
            raise UnsupportedFeatureError(
                "a reference to a whole object does not say how long it is, and it cannot be looked up: "
                f"{error.message}"
            ) from error
        return [self._known(url) for url in wanted]

    def _known(self, url: str) -> Stamp:
        stamp = self._stamps[url]
        if stamp is None or not stamp.size:
            raise UnsupportedFeatureError(f"a reference to the whole of {url}, which is not there or is empty")
        return stamp


def target_url(path: str, base: str | None) -> str:
    """Return the canonical URL of what fsspec calls by a path.

    Parameters
    ----------
    path
        As it stands in a reference.
    base
        Canonical URL where relative paths begin; ``None`` refuses them.

    Raises
    ------
    URLError
        If it has none.

    Examples
    --------
    >>> target_url("s3://bucket/50% +x.nc", None), target_url("a.nc", "s3://bucket/data/")
    ('s3://bucket/50%25%20+x.nc', 's3://bucket/data/a.nc')
    """
    root = re.match(rf"\{{{ROOT_NAME}\}}/", path)
    if root:
        return canonical_url(root[0] + quote_path(path[root.end() :]))
    scheme, separator, rest = path.partition("://")
    if separator:
        known = _NAMED.get(scheme.lower())
        if known is None:
            return canonical_url(path)
        authority, _, key = rest.partition("/")
        return canonical_url(f"{known}://{authority}/{quote_path(key)}")
    if path.startswith("/"):
        return canonical_url("file://" + quote_path(path))
    if not path:
        raise URLError("it is empty")
    if base is None:
        raise URLError("the path is relative: pass base_url=, the folder or bucket where such paths begin")
    return canonical_url(child_url(base, path.removeprefix("./")))
