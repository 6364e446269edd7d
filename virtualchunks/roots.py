"""Named roots: places that references leave open, and that are bound when they are opened.

``{archive}/2020/01.nc`` lies in the folder that is called ``archive``, wherever that is. The same references are then
good on a laptop, on a cluster and in a bucket. How such a URL is spelled is told in :mod:`virtualchunks.urls`; which
places a root has, a registry knows (:meth:`virtualchunks.registry.ObjectStoreRegistry.bind`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from virtualchunks.errors import NotGrantedError, URLError
from virtualchunks.urls import ROOT_NAME, as_url, canonical_url

#: Where a named root is: one folder, or mirrors of it in the order in which they are tried.
Places = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def root_of_url(url: str) -> str | None:
    """Return the name of the root that a canonical URL lies beneath; ``None`` where it names a place itself.

    Examples
    --------
    >>> root_of_url("{archive}/2020/01.nc"), root_of_url("s3://bucket/a.nc")
    ('archive', None)
    """
    return url[1 : url.index("}")] if url.startswith("{") else None


def check_root_name(name: object) -> str:
    """Return a name of a root, checked.

    Raises
    ------
    URLError
        If it is none: a letter, then letters, digits and ``_``.
    """
    if not isinstance(name, str) or not re.fullmatch(ROOT_NAME, name):
        raise URLError(f"{name!r} cannot name a root: write a letter, then letters, digits and _")
    return name


def reference_url(path: str | os.PathLike[str]) -> str:
    """Return the canonical URL of what a reference is to lead to: a path, a URL, or a URL beneath a named root.

    Examples
    --------
    >>> reference_url("{archive}/a b.nc"), reference_url("/data/a b.nc")
    ('{archive}/a%20b.nc', 'file:///data/a%20b.nc')
    """
    return canonical_url(path) if isinstance(path, str) and path.startswith("{") else as_url(path)


def places_of(roots: Mapping[str, Places]) -> dict[str, tuple[str, ...]]:
    """Return the places of named roots as canonical URLs that end in a slash.

    Raises
    ------
    URLError
        If a name or a place is none, or a root has no place.
    """
    found = {}
    for name, given in roots.items():
        many = [given] if isinstance(given, str | os.PathLike) else list(given)
        if not many:
            raise URLError(f"the root {name!r} is bound to no place: name a folder")
        found[check_root_name(name)] = tuple(as_url(place).removesuffix("/") + "/" for place in many)
    return found


def spelled_out(url: str, roots: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return where a canonical URL beneath a named root may be: one URL for each place of the root.

    Raises
    ------
    NotGrantedError
        If the root is not bound.

    Examples
    --------
    >>> spelled_out("{archive}/a.nc", {"archive": ("s3://bucket/", "https://data.example/")})
    ('s3://bucket/a.nc', 'https://data.example/a.nc')
    """
    name = root_of_url(url)
    if name is None or name not in roots:
        known = ", ".join(map(repr, roots)) or "none"
        raise NotGrantedError(
            f"{url} lies beneath the named root {name!r}, and it is not said where that is (bound are {known}): pass "
            f'roots={{"{name}": "s3://…"}}, or bind it in the registry with registry.bind({{"{name}": …}})',
            url=url,
        )
    return tuple(place + url[url.index("}") + 2 :] for place in roots[name])
