"""URLs: the one canonical spelling of where an object lives, and the rules that make it canonical.

A URL names one object: ``scheme://authority/key``. Every other module handles canonical URLs only, so two spellings of
one name (``a b`` and ``a%20b``) can be compared as text, and what is refused is refused here, once:

- the scheme is one of :data:`SCHEMES`, in lower case, followed by ``//``; no chains (``simplecache::s3://…``);
- no user info, query or fragment: a credential belongs to a store, a version to a stamp, and a ``?`` or ``#`` that is
  part of a name is written ``%3F`` or ``%23``;
- the host of ``http`` and ``https`` is ASCII and lower-cased and loses its default port; a bucket or container is taken
  exactly and is lower-case; ``file`` has no host;
- ``{name}/key`` lies beneath a *named root*: a place that is bound when references are opened
  (:mod:`virtualchunks.roots`). ``{`` begins no other URL, since names of files have theirs encoded;
- the path is split at ``/`` first, then each segment is percent-decoded **once** and encoded again; ``.``, ``..``,
  empty segments, backslashes and control characters are refused, whether they were encoded or not.

What a *user* names (a path, a ``pathlib.Path``, a URL) becomes a canonical URL in :func:`as_url`. Which URL may be read
is not decided here but in :mod:`virtualchunks.registry`.
"""

from __future__ import annotations

import ipaddress
import ntpath
import os
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from virtualchunks.errors import LimitExceededError, URLError
from virtualchunks.redaction import redact as redact

SCHEMES = ("file", "http", "https", "s3", "gs", "az", "memory")
"""The schemes of canonical URLs. ``memory`` names an in-process store of the user's registry."""

MAX_KEY_BYTES = 4096
"""The longest key, decoded, in bytes (object stores allow 1,024, Linux paths 4,096)."""

ROOT_NAME = "[A-Za-z][A-Za-z0-9_]*+"
"""What the name of a named root is, as a regular expression."""

_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "azure": "az"}
_ADVICE = {
    **{alias: f"write {scheme}://" for alias, scheme in _ALIASES.items()},
    **dict.fromkeys(("abfs", "abfss", "adl", "wasb", "wasbs"), "write az://container/key, the account into the store"),
    "local": "write file:///",
    "data": "bytes held in a document are not a URL",
}
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_SAFE = "!$&'()*+,;=:@"  # what RFC 3986 lets a path segment hold unescaped, beside letters, digits and -._~

_NAME = r"[a-z0-9_-]++(?:\.[a-z0-9_-]++)*+"
_PLAIN_PATH = r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]++)*+"
_PLAIN = re.compile(rf"(?:(?:s3|gs|az|https?)://{_NAME}|file://|\{{{ROOT_NAME}\}})(?=/){_PLAIN_PATH}/?", re.ASCII)
_NAMED = re.compile(rf"\{{({ROOT_NAME})\}}(?=/|$)", re.ASCII)
_HOST = re.compile(_NAME, re.ASCII)
_MEMORY_NAME = re.compile(r"[A-Za-z0-9._-]*", re.ASCII)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):", re.ASCII)
_CHAIN = re.compile(r"[^/]*::.*|.*::[A-Za-z][A-Za-z0-9+.-]*://.*", re.ASCII | re.DOTALL)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_URL_LIKE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|[A-Za-z][A-Za-z0-9+.-]+::.*://", re.ASCII)
_ONE_SLASH = re.compile(r"(?:file|https?|s3[an]?|gc?s|az(?:ure)?|memory):", re.ASCII | re.IGNORECASE)


class URLParts(NamedTuple):
    """The three parts of a canonical URL.

    Parameters
    ----------
    scheme
        One of :data:`SCHEMES`.
    authority
        Host (and port), bucket, container or name of a memory store; empty for local files.
    key
        The decoded path without its leading slash.
    """

    scheme: str
    authority: str
    key: str


def canonical_url(url: str) -> str:
    """Write a URL in its one canonical spelling.

    Parameters
    ----------
    url
        An absolute URL of one of :data:`SCHEMES`.

    Returns
    -------
    str
        The canonical URL; ``canonical_url(canonical_url(u)) == canonical_url(u)``.

    Raises
    ------
    URLError
        If the URL breaks a rule of this module; the message says which, and what to write instead.

    Examples
    --------
    >>> canonical_url("HTTPS://Data.Example:443/a%7Eb/ä b.nc")
    'https://data.example/a~b/%C3%A4%20b.nc'
    >>> canonical_url("s3://bucket/a/../b.nc")
    Traceback (most recent call last):
    ...
    virtualchunks.errors.URLError: the path holds '..': write the path it leads to [s3://bucket/a/../b.nc]
    """
    if not isinstance(url, str):
        raise URLError(f"a URL is text, not {type(url).__name__}: pass str, or a path through as_url")
    if len(url) <= MAX_KEY_BYTES and _PLAIN.fullmatch(url):
        return url
    return _spell(url)


def canonical_urls(urls: Iterable[str]) -> list[str]:
    """Write many URLs in their canonical spelling: :func:`canonical_url` of each, faster.

    Parameters
    ----------
    urls
        Absolute URLs.

    Returns
    -------
    list of str
        As many, in the same order.

    Examples
    --------
    >>> canonical_urls(["s3://bucket/a.nc", "S3://bucket/a%2Enc"])
    ['s3://bucket/a.nc', 's3://bucket/a.nc']
    """
    plain, limit = _PLAIN.fullmatch, MAX_KEY_BYTES
    return [url if type(url) is str and len(url) <= limit and plain(url) else canonical_url(url) for url in urls]


def as_url(path: str | os.PathLike[str]) -> str:
    """The canonical URL of what a user names: a path or a URL.

    A plain path is a *name*: its spaces, ``#``, ``?``, ``%``, ``{`` and letters of any script are quoted, exactly once.
    A relative path is taken from the working directory; ``~`` is not expanded. A ``pathlib.Path`` is never a URL.

    Parameters
    ----------
    path
        A local path (absolute or relative, on Windows also ``C:\\…`` and ``\\\\server\\share\\…``), or a URL; here
        ``s3a``, ``s3n`` and ``gcs`` are understood as ``s3`` and ``gs``.

    Returns
    -------
    str
        A canonical URL.

    Raises
    ------
    URLError
        If it is a URL that breaks a rule of this module, or a path that cannot be written as one.

    Examples
    --------
    >>> as_url("/data/run 1/50%.nc")
    'file:///data/run%201/50%25.nc'
    >>> as_url("file:///data/run%201/50%25.nc")
    'file:///data/run%201/50%25.nc'
    >>> as_url("gcs://bucket/a.nc")
    'gs://bucket/a.nc'
    """
    if isinstance(path, str) and len(path) <= MAX_KEY_BYTES and path[:1] not in "{/" and _PLAIN.fullmatch(path):
        return path
    if not isinstance(path, str | os.PathLike):
        raise URLError(f"expected a path or a URL, not {type(path).__name__}")
    name = os.fspath(path)
    if not isinstance(name, str):
        raise URLError("expected a path as text, not bytes: use os.fsdecode")
    if not name:
        raise URLError("the path is empty")
    if isinstance(path, str) and (_URL_LIKE.match(name) or _ONE_SLASH.match(name)):
        scheme, colon, rest = name.partition(":")
        return canonical_url(_ALIASES.get(scheme.lower(), scheme) + colon + rest)
    if os.name == "nt":
        return _windows_url(os.path.abspath(name))
    if isinstance(path, os.PathLike) and _ONE_SLASH.match(name):
        raise URLError(f"{name!r} looks like a URL that became a path, which loses a slash: pass it as str")
    return canonical_url("file://" + quote_path(_absolute(name)))


def quote_path(path: str) -> str:
    """Quote a plain ``/``-separated name so that it can stand in a URL.

    Parameters
    ----------
    path
        A name as the operating system or an object store knows it: nothing in it is an escape.

    Returns
    -------
    str
        The name, percent-encoded, for :func:`join` or after a base.

    Examples
    --------
    >>> quote_path("50% #1.nc")
    '50%25%20%231.nc'
    """
    try:
        return quote(path, safe=_SAFE + "/", errors="surrogateescape")
    except UnicodeEncodeError:
        raise URLError(f"the name {path!r} holds a lone surrogate, which no system can store") from None


def split(url: str) -> URLParts:
    """Take a URL apart into scheme, authority and decoded key.

    Parameters
    ----------
    url
        A URL.

    Returns
    -------
    URLParts
        ``(scheme, authority, key)``.

    Examples
    --------
    >>> split("s3://bucket/a%20b.nc")
    URLParts(scheme='s3', authority='bucket', key='a b.nc')
    """
    url = canonical_url(url)
    scheme, _, rest = ("root", "", url[1:].replace("}", "", 1)) if url[0] == "{" else url.partition("://")
    authority, _, path = rest.partition("/")
    key = unquote_to_bytes(path).decode("utf-8", "surrogateescape") if "%" in path else path
    return URLParts(scheme, authority, key)


def url_key(url: str) -> str:
    """The decoded path of a URL, without its leading slash: the key under which a store knows the object.

    Parameters
    ----------
    url
        A URL.

    Returns
    -------
    str
        The key.

    Examples
    --------
    >>> url_key("https://data.example/a%20b/c.nc")
    'a b/c.nc'
    """
    return split(url).key


def local_path(url: str) -> str:
    """The operating system's path of a ``file://`` URL.

    Parameters
    ----------
    url
        A ``file://`` URL.

    Returns
    -------
    str
        An absolute path.

    Raises
    ------
    URLError
        If the URL is not one of a local file.

    Examples
    --------
    >>> local_path("file:///data/a%20b.nc")
    '/data/a b.nc'
    """
    scheme, authority, key = split(url)
    if scheme != "file":
        raise URLError("not a local file: expected a file:// URL", url=redact(url))
    if os.name == "nt":
        return (f"//{authority}/{key}" if authority else key).replace("/", "\\")
    return "/" + key


def join(base: str, relative: str) -> str:
    """Resolve a relative reference against the URL of the document or folder that it was found in.

    Parameters
    ----------
    base
        The URL of a document, whose last segment is left out, or of a folder, which ends in ``/``.
    relative
        A relative reference, percent-encoded (a plain name goes through :func:`quote_path` first), or an absolute URL.

    Returns
    -------
    str
        A canonical URL, never above the folder of ``base``.

    Raises
    ------
    URLError
        If the reference holds ``..``, begins with ``/``, or breaks a rule of this module.

    Examples
    --------
    >>> join("s3://bucket/refs/index.json", "data/a.nc")
    's3://bucket/refs/data/a.nc'
    """
    base = canonical_url(base)
    if not isinstance(relative, str):
        raise URLError(f"a reference is text, not {type(relative).__name__}")
    scheme = _SCHEME.match(relative)
    if _URL_LIKE.match(relative) or (scheme and (scheme[1].lower() in SCHEMES or scheme[1].lower() in _ADVICE)):
        return canonical_url(relative)
    if relative.startswith(("/", "\\")):
        raise URLError(f"the reference {redact(relative)!r} is an absolute path: write the whole URL", url=redact(base))
    if not relative:
        raise URLError("the reference is empty", url=redact(base))
    steps = relative.split("/")
    while steps and steps[0] == ".":
        steps.pop(0)
    return canonical_url(base[: base.rindex("/") + 1] + "/".join(steps))


def is_prefix(prefix: str, url: str) -> bool:
    """Whether a URL is a prefix of another by whole path segments.

    Parameters
    ----------
    prefix, url
        URLs; true if ``url`` is ``prefix`` or lies beneath it.

    Examples
    --------
    >>> is_prefix("s3://b/pub", "s3://b/pub/x.nc"), is_prefix("s3://b/pub", "s3://b/public/x.nc")
    (True, False)
    """
    folder = canonical_url(prefix).removesuffix("/") + "/"
    return (canonical_url(url).removesuffix("/") + "/").startswith(folder)


def _refuse(problem: str, url: str) -> URLError:
    return URLError(problem, url=redact(url))


def _spell(url: str) -> str:
    """The canonical spelling by the rules, one after the other."""
    if len(url) > 4 * MAX_KEY_BYTES:
        raise LimitExceededError(f"a URL of {len(url)} characters: the limit is {4 * MAX_KEY_BYTES}", url=redact(url))
    for character in url:
        if character == "\\":
            raise _refuse("a backslash: write / between the segments of a URL", url)
        if unicodedata.category(character) == "Cc":
            raise _refuse(f"the control character {character!r}: no name in an object store may hold it", url)
    if _CHAIN.fullmatch(url):
        raise _refuse("a chain of URLs (a::b): write the URL of the object itself", url)
    named = _NAMED.match(url)
    scheme, rest = ("root", f"//{named[1]}{url[named.end() :]}") if named else _scheme(url)
    if not rest.startswith("//"):
        raise _refuse(f"// is missing: write {scheme}://{'/' if scheme == 'file' else ''}{rest.lstrip('/')}", url)
    for mark, name, code in (("?", "query", "%3F"), ("#", "fragment", "%23")):
        if mark in rest:
            raise _refuse(f"a {name}: leave it out, or write {code} where {mark} is part of the name", url)
    authority, _, path = rest[2:].partition("/")
    if "@" in authority:
        raise _refuse("user info before the host: leave it out and register a store that holds the credentials", url)
    start = f"{{{authority}}}" if named else f"{scheme}://{_AUTHORITY[scheme](authority, scheme, url)}"
    return f"{start}/{_path(path, scheme, url)}"


def _scheme(url: str) -> tuple[str, str]:
    found = _SCHEME.match(url)
    if found is None:
        raise _refuse("not an absolute URL: write scheme://…, or resolve it against a base with join", url)
    scheme = found[1].lower()
    if scheme not in SCHEMES:
        advice = _ADVICE.get(scheme, f"known are {', '.join(SCHEMES)}")
        raise _refuse(f"the scheme {scheme!r} is not known: {advice}", url)
    return scheme, url[found.end() :]


def _http_authority(authority: str, scheme: str, url: str) -> str:
    host, port = authority.lower(), ""
    literal = re.fullmatch(r"\[([0-9a-f:.]+)\](?::(.*))?", host)
    if literal:
        try:
            host, port = f"[{ipaddress.IPv6Address(literal[1])}]", literal[2] or ""
        except ValueError:
            raise _refuse(f"the host {authority!r} is not an IPv6 address", url) from None
    else:
        host, _, port = host.partition(":")
        if not _HOST.fullmatch(host):
            raise _refuse(
                f"the host {host!r} is not an ASCII host name (non-ASCII hosts are written in punycode, no final dot)",
                url,
            )
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _refuse("the port is not a number from 1 to 65535", url)
    port = port.lstrip("0")
    return host if port in ("", _DEFAULT_PORTS[scheme]) else f"{host}:{port}"


def _bucket(authority: str, scheme: str, url: str) -> str:
    pattern, kind, advice = _STORE_NAMES[scheme]
    if not pattern.fullmatch(authority):
        raise _refuse(f"{authority!r} is not the name of a {kind}: {advice}", url)
    return authority


def _no_host(authority: str, scheme: str, url: str) -> str:
    if authority.lower() in ("", "localhost"):
        return ""
    if os.name == "nt" and _HOST.fullmatch(authority.lower()):
        return authority.lower()
    raise _refuse(f"a local file on the host {authority!r}: write file:/// and the absolute path", url)


_STORE_NAMES = {
    "s3": (_HOST, "bucket", "write s3://bucket/key, the bucket in lower case"),
    "gs": (_HOST, "bucket", "write gs://bucket/key, the bucket in lower case"),
    "az": (_HOST, "container", "write az://container/key, the container in lower case"),
    "memory": (_MEMORY_NAME, "memory store", "use letters, digits and ._-"),
}
_AUTHORITY = {
    "file": _no_host,
    "http": _http_authority,
    "https": _http_authority,
    **dict.fromkeys(_STORE_NAMES, _bucket),
}


def _path(path: str, scheme: str, url: str) -> str:
    """Decode each segment once, check what came out, encode it again."""
    if _BAD_PERCENT.search(path):
        raise _refuse("a % that is not followed by two hexadecimal digits: write %25 for a % in a name", url)
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _refuse("a lone surrogate, which no system can store", url) from None
    segments = [unquote_to_bytes(segment) for segment in raw.split(b"/")]
    if sum(map(len, segments)) + len(segments) - 1 > MAX_KEY_BYTES:
        raise LimitExceededError(f"a key of more than {MAX_KEY_BYTES} bytes", url=redact(url))
    for position, segment in enumerate(segments):
        _check_segment(segment, scheme, url, last=position == len(segments) - 1)
    return "/".join(quote_from_bytes(segment, safe=_SAFE) for segment in segments)


def _check_segment(segment: bytes, scheme: str, url: str, *, last: bool) -> None:
    if segment in (b".", b".."):
        raise _refuse(f"the path holds {segment.decode()!r}: write the path it leads to", url)
    if not segment and not last:
        raise _refuse("the path holds an empty segment (//): leave out the second slash", url)
    if b"/" in segment or b"\\" in segment:
        raise _refuse("an encoded slash or backslash (%2F, %5C) inside a segment: no name may hold one", url)
    try:
        text = segment.decode("utf-8", "surrogateescape" if scheme == "file" else "strict")
    except UnicodeDecodeError:
        raise _refuse(
            "the path does not decode to UTF-8: write the UTF-8 bytes of the name, percent-encoded", url
        ) from None
    if not text.isprintable() and any(unicodedata.category(character) == "Cc" for character in text):
        raise _refuse("an encoded control character: no name in an object store may hold it", url)


def _absolute(name: str) -> str:
    """An absolute POSIX path; what stands before a ``..`` is resolved as the system would, links included."""
    steps = [step for step in name.split("/") if step not in ("", ".")]
    root = "/" if name.startswith("/") else os.getcwd()
    if ".." in steps:
        last = len(steps) - steps[::-1].index("..")
        root, steps = os.path.realpath(os.path.join(root, *steps[:last])), steps[last:]
    return os.path.join(root, *steps)


def _windows_url(path: str) -> str:
    """The URL of an absolute Windows path: ``C:\\a`` or ``\\\\server\\share\\a``."""
    drive, rest = ntpath.splitdrive(path)
    if drive.startswith(("\\\\?", "\\\\.")):
        raise URLError(f"{path!r} is a device path: write a path with a drive letter or \\\\server\\share")
    head = "file:" if drive.startswith("\\\\") else "file:///"
    return canonical_url(head + quote_path((drive + rest).replace("\\", "/")))
