"""Parsers: what one is, which are installed, and which of them a file needs.

A parser is any callable ``parser(url, registry) -> ManifestStore``. One that is installed under the entry-point group
``virtualchunks.parsers`` is found by the name of its entry point, and, where its class is a :class:`SniffingParser`, by
what a file begins with or how its name ends. The project's own parsers come through this same door.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.metadata
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast, runtime_checkable

from virtualchunks.errors import (
    FormatError,
    MissingDependencyError,
    NotGrantedError,
    ReadError,
    SourceUnavailableError,
    UnsupportedFeatureError,
)
from virtualchunks.isolation import Isolated
from virtualchunks.reading.beginnings import look
from virtualchunks.reading.listing import child_url, look_up
from virtualchunks.reading.local import LocalFile
from virtualchunks.reading.reader import FIRST
from virtualchunks.signatures import describe_content, format_of
from virtualchunks.urls import split

if TYPE_CHECKING:
    from virtualchunks.registry import ObjectStoreRegistry
    from virtualchunks.store import ManifestStore

#: The entry-point group that parsers register in.
GROUP = "virtualchunks.parsers"
#: The distribution whose parsers keep their names where others claim them, and are asked first.
OURS = "virtualchunks"
#: Bytes of a file that parsers are shown to recognise it. HDF5 files may begin with a user block of 8 KiB and more.
HEAD = 16 << 10


@runtime_checkable
class Parser(Protocol):
    """Whatever turns the URL of a file into a store of references to its chunks."""

    def __call__(self, url: str, registry: ObjectStoreRegistry) -> ManifestStore:
        """Read the metadata of one file.

        Parameters
        ----------
        url
            Canonical URL of the file.
        registry
            What may be read, through which stores; the parser reads through it alone.
        """


@runtime_checkable
class SniffingParser(Parser, Protocol):
    """A parser whose class tells which files are its own, so that it is found without being named.

    Attributes
    ----------
    name
        The name of its format, for people.
    suffixes
        How the names of its files usually end, in lower case, with the dot.

    Notes
    -----
    The class of a parser of folders may have ``markers`` too: keys of objects of which one lies in every folder of its
    format, such as ``zarr.json``.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so is one of its own.

        Parameters
        ----------
        head
            The first bytes of the file, at most :data:`HEAD`.
        """


def parser_names() -> tuple[str, ...]:
    """Return the names of the installed parsers, in alphabetical order.

    Where several distributions claim one name, it is that of virtualchunks' own parser, if it is one of them. The
    others are called ``"distribution:name"``.

    Examples
    --------
    >>> "hdf5" in parser_names()
    True
    """
    return tuple(sorted(_entry_points()))


def find_parser(url: str, registry: ObjectStoreRegistry, parser: Parser | str | None = None, **options: Any) -> Parser:
    """Return the parser for a file.

    Parameters
    ----------
    url
        Canonical URL of the file.
    registry
        What may be read.
    parser
        A parser, which is returned as it is; a parser class; the name of an installed one, such as ``"hdf5"``; or
        ``None`` to find the one that recognises what the file begins with, or else the end of its name. What an
        :class:`~virtualchunks.isolation.Isolated` holds is found in the same ways.
    **options
        Arguments for the parser. Those that are ``None`` are left out; a parser that was given as an instance has its
        own unless they are stated here.

    Raises
    ------
    FormatError
        If no installed parser knows the file, or none has the name; the message says what the file looks like.
    MissingDependencyError
        If the parser needs something that is not installed; the message names the extra.
    """
    stated = {name: value for name, value in options.items() if value is not None}
    if isinstance(parser, Isolated):
        return dataclasses.replace(parser, parser=find_parser(url, registry, parser.parser, **stated))
    if parser is None:
        return _made(_recognise(url, registry), stated)
    if isinstance(parser, str):
        return _made(load_parser(parser), stated)
    if isinstance(parser, type):
        return _made(cast("type[Parser]", parser), stated)
    if not callable(parser):
        raise TypeError(
            f"expected a parser, its name or None, not {type(parser).__name__}; installed are "
            f"{', '.join(parser_names())}"
        )
    if not stated:
        return parser
    if not dataclasses.is_dataclass(parser):
        raise UnsupportedFeatureError(
            f"{type(parser).__name__} takes no {', '.join(stated)} here: pass them to the parser"
        )
    _check_arguments(type(parser), stated)
    return dataclasses.replace(parser, **stated)


def leaving_out(parser: Parser, names: Iterable[str]) -> Parser:
    """Return a parser that leaves out further variables, where it has an argument ``drop_variables``; else the same.

    Parameters
    ----------
    parser
        A parser.
    names
        Names of variables.
    """
    further = tuple(names)
    if isinstance(parser, Isolated) and callable(parser.parser):
        return dataclasses.replace(parser, parser=leaving_out(parser.parser, further))
    if not further or not dataclasses.is_dataclass(parser) or not hasattr(parser, "drop_variables"):
        return parser
    own = parser.drop_variables or ()
    return dataclasses.replace(parser, drop_variables=(*((own,) if isinstance(own, str) else own), *further))


def companions_of(parser: Parser, url: str) -> tuple[str, ...]:
    """Return the URLs that a user names along with a file: those that the parser's method ``companions`` returns.

    Parameters
    ----------
    parser
        A parser, which has such a method if its format describes other files.
    url
        Canonical URL of the file.
    """
    companions = getattr(parser, "companions", None)
    return tuple(companions(url)) if callable(companions) else ()


def load_parser(name: str) -> type[Parser]:
    """Return the class of an installed parser, by name.

    Parameters
    ----------
    name
        The name of its entry point; ``"distribution:name"`` where another distribution has a parser of that name.

    Raises
    ------
    FormatError
        If none has this name, or several have.
    MissingDependencyError
        If the parser needs something that is not installed, or cannot be imported; the message names its distribution.
    """
    known = _entry_points()
    if name not in known:
        same = [other for other in known if other.endswith(f":{name}")]
        if same:
            raise FormatError(f"several distributions have a parser named {name!r}: say which, {' or '.join(same)}")
        raise FormatError(f"no parser named {name!r} is installed; there are {', '.join(sorted(known)) or 'none'}")
    entry = known[name]
    return _loaded(name, entry)


def _loaded(name: str, entry: importlib.metadata.EntryPoint) -> type[Parser]:
    """Import the class of a parser; whatever goes wrong in doing so concerns that parser alone."""
    try:
        loaded = entry.load()
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{_who(name, entry)} needs {error.name}, which is not installed: {_how_to_install(entry, error.name)}"
        ) from error
    except Exception as error:  # boundary to other distributions: importing them runs what they like
        raise MissingDependencyError(
            f"{_who(name, entry)} cannot be loaded from {entry.value}, which it names: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(loaded, type):
        raise MissingDependencyError(
            f"{_who(name, entry)} cannot be used: {entry.value} is a {type(loaded).__name__}, not the class of a parser"
        )
    return cast("type[Parser]", loaded)


def read_head(url: str, registry: ObjectStoreRegistry) -> bytes:
    """Return the first bytes of an object, in one request.

    The request is small, unless its answer is handed on to the reader that is opened next
    (:func:`~virtualchunks.reading.beginnings.kept_beginnings`).

    Parameters
    ----------
    url
        Canonical URL.
    registry
        What may be read.

    Raises
    ------
    NotGrantedError, SourceUnavailableError
        If the object may not be read, or is not there.
    """
    location = registry.locate(url)
    if location.path is None:
        return bytes(look(location, HEAD, FIRST).data[:HEAD])
    file = LocalFile(location)
    try:
        return file.read(0, min(HEAD, file.stamp.size or 0))
    finally:
        file.close()


def _made(kind: type[Parser], options: Mapping[str, Any]) -> Parser:
    _check_arguments(kind, options)
    return kind(**options)


def _check_arguments(kind: type[Any], options: Mapping[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else None
    unknown = sorted(options.keys() - known) if known is not None else []
    if unknown:
        raise UnsupportedFeatureError(
            f"{kind.__name__} has no argument {', '.join(unknown)}; it has {', '.join(sorted(known or ())) or 'none'}"
        )


def _recognise(url: str, registry: ObjectStoreRegistry) -> type[Parser]:
    """Find the parser of a file: by what it begins with, then by how its name ends."""
    names = _entry_points()
    try:
        head = read_head(url, registry)
    except SourceUnavailableError:
        kinds, _ = _installed()
        by_name = _by_suffix(url, kinds)
        if by_name is not None and not hasattr(by_name, "markers"):
            return by_name
        found = _by_markers(url, registry, kinds) or by_name  # a folder, such as a Zarr store, has no first bytes
        if found is None:
            raise
        return found
    known = format_of(head)
    if known in names:
        return load_parser(str(known))
    kinds, missing = _installed()
    found = next((kind for kind in kinds.values() if _recognises(kind, head)), None)
    if found is None and head and known is None:
        found = _by_suffix(url, kinds)
    if found is None:
        raise FormatError(_refusal(head, kinds, missing), url=url)
    return found


def _recognises(kind: Any, head: bytes) -> bool:
    """Return whether a parser takes a file for its own; one that cannot say does not."""
    try:
        return callable(getattr(kind, "recognises", None)) and bool(kind.recognises(head))
    except Exception as error:  # noqa: BLE001 - boundary to other distributions: they must not stop files from opening
        text = f"the parser {kind.__name__} of {kind.__module__} cannot say whether a file is its own: {error!r}"
        warnings.warn(text, UserWarning, stacklevel=2)
        return False


def _by_suffix(url: str, kinds: Mapping[str, type[Any]]) -> type[Parser] | None:
    suffix = _suffix(url)
    return next((kind for kind in kinds.values() if suffix and suffix in getattr(kind, "suffixes", ())), None)


def _by_markers(url: str, registry: ObjectStoreRegistry, kinds: Mapping[str, type[Any]]) -> type[Parser] | None:
    """Return the parser one of whose markers lies in a folder: objects that every folder of its format holds one of."""
    wider = copy.copy(registry)
    if url.rstrip("/") in registry.objects:
        wider.register(url)  # naming a folder grants what lies beneath it
    for kind in kinds.values():
        urls = [child_url(url, name) for name in getattr(kind, "markers", ())]
        try:
            if any(stamp is not None for stamp in look_up(wider, urls)):
                return cast("type[Parser]", kind)
        except (ReadError, NotGrantedError):
            return None
    return None


def _installed() -> tuple[dict[str, type[Any]], list[MissingDependencyError]]:
    """Return the parsers that can be loaded, ours first, and why others cannot."""
    kinds, missing = {}, []
    for name, entry in _entry_points().items():
        try:
            kinds[name] = _loaded(name, entry)
        except MissingDependencyError as error:
            missing.append(error)
    return kinds, missing


def _refusal(head: bytes, kinds: Mapping[str, type[Any]], missing: list[MissingDependencyError]) -> str:
    known = ", ".join(f"{name} ({getattr(kind, 'name', kind.__name__)})" for name, kind in kinds.items())
    parts = [
        f"no installed parser reads this file: it is {describe_content(head)}",
        f"installed parsers: {known or 'none'}",
        *(error.message for error in missing),
    ]
    return "; ".join(parts)


def _suffix(url: str) -> str:
    name = split(url).key.rstrip("/").rpartition("/")[2].lower()
    return "." + name.rpartition(".")[2] if "." in name else ""


def _entry_points() -> Mapping[str, importlib.metadata.EntryPoint]:
    return _entry_points_on(tuple(sys.path))


@cache
def _entry_points_on(path: tuple[str, ...]) -> Mapping[str, importlib.metadata.EntryPoint]:
    """Look through the installed distributions once per search path: it takes milliseconds. Ours come first."""
    claims: dict[str, dict[str, importlib.metadata.EntryPoint]] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        claims.setdefault(entry.name, {}).setdefault(_normalized(entry), entry)
    known: dict[str, importlib.metadata.EntryPoint] = {}
    others: dict[str, importlib.metadata.EntryPoint] = {}
    for name, by_distribution in sorted(claims.items()):
        plain = OURS if OURS in by_distribution else next(iter(by_distribution)) if len(by_distribution) == 1 else None
        for distribution, entry in by_distribution.items():
            found = known if distribution == OURS else others
            found[name if distribution == plain else f"{distribution}:{name}"] = entry
    return {**known, **dict(sorted(others.items()))}


def _normalized(entry: importlib.metadata.EntryPoint) -> str:
    """Return the name of the distribution of an entry point, as PEP 503 normalizes it."""
    return re.sub(r"[-_.]+", "-", entry.dist.name).lower() if entry.dist is not None else "unknown"


def _who(name: str, entry: importlib.metadata.EntryPoint) -> str:
    distribution = "an unknown distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
    return f"the parser {name!r} of {distribution}"


def _how_to_install(entry: importlib.metadata.EntryPoint, module: str | None) -> str:
    """Return the line that installs what a parser misses: the extra of its distribution that brings the module."""
    distribution = entry.dist.name if entry.dist is not None else "virtualchunks"
    for requirement in (entry.dist.requires if entry.dist is not None else None) or ():
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        package = re.match(r"[A-Za-z0-9_.-]+", requirement)
        if (
            extra
            and package
            and module is not None
            and package[0].lower().replace("-", "_") == module.partition(".")[0]
        ):
            return f"pip install '{distribution}[{extra[1]}]'"
    return f"pip install {module}"
