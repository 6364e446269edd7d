"""What every parser is: its arguments, what it does when called, and how it leaves out what cannot be represented."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from virtualchunks.errors import (
    LimitExceededError,
    MissingDependencyError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.group import ManifestGroup
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.store import ManifestStore
from virtualchunks.urls import as_url

#: Why one array may be left out while the others are read, unless a format says otherwise.
LEFT_OUT: tuple[type[VirtualChunksError], ...] = (UnsupportedFeatureError, LimitExceededError, MissingDependencyError)


@dataclass(frozen=True, kw_only=True)
class TreeParser(ABC):
    """Turns what a URL names into a tree of arrays of chunk references.

    Parameters
    ----------
    group
        Path of the group that becomes the root; by default the whole.
    drop_variables
        Names of arrays to leave out wherever they are, or paths of arrays and groups, such as ``"/model/wind"``.
    strict
        Whether to raise where an array cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.

    Attributes
    ----------
    name
        The name of the format, for people.
    suffixes
        How names usually end, in lower case, with the dot.
    reads, refuses
        What is read, and what is refused by name, for the page of formats.
    native_code
        Which library of native code parses, and what damaged files may make it do to the process; empty where all that
        parses is Python.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    reads: ClassVar[tuple[str, ...]]
    refuses: ClassVar[tuple[str, ...]]
    native_code: ClassVar[str] = ""

    group: str | None = None
    drop_variables: Iterable[str] | None = ()
    strict: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "drop_variables", names_of(self.drop_variables))

    @classmethod
    @abstractmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so is of this format."""

    def __call__(self, url: str, registry: Any = None) -> ManifestStore:
        """Parse what a URL names.

        Parameters
        ----------
        url
            URL or local path.
        registry
            What may be read, and through which store; ``None`` grants what the URL names alone.

        Returns
        -------
        ManifestStore
            A read-only Zarr store over it.

        Raises
        ------
        FormatError
            If it is not of this format, truncated or corrupt, or has no such group.
        NotGrantedError, ReadError
            If it, or what holds part of its data, may not or cannot be read.
        UnsupportedFeatureError, LimitExceededError
            If it is out of proportion; with `strict`, if something cannot be represented.
        """
        tree, granted = self._parsed(url, registry)
        return ManifestStore(tree, registry=granted)

    def parse(self, url: str, registry: Any = None) -> ManifestGroup:
        """Parse what a URL names, as calling the parser does, and return the tree itself."""
        return self._parsed(url, registry)[0]

    @abstractmethod
    def _parsed(self, url: str, registry: Any) -> tuple[ManifestGroup, ObjectStoreRegistry]:
        """Return the tree, and what may be read of it later."""

    @property
    def _path(self) -> str:
        """The path of the group that becomes the root, without slashes around it; empty for the whole."""
        return (self.group or "").strip("/")

    def _omissions(self, url: str, reasons: tuple[type[VirtualChunksError], ...] = LEFT_OUT) -> Omissions:
        """Return what one parse leaves out."""
        return Omissions(url, self.drop_variables or (), self.strict, reasons)


@dataclass(frozen=True, kw_only=True)
class FileParser(TreeParser):
    """Turns one file into a tree of arrays of chunk references; naming a file grants that file."""

    def _parsed(self, url: str, registry: Any) -> tuple[ManifestGroup, ObjectStoreRegistry]:
        granted = self._granted(url, registry)
        return self._read(as_url(url), granted), granted

    def companions(self, url: str) -> tuple[str, ...]:
        """Return what a user who names a file names along with it: other files that he passed, or that are part of it.

        Parameters
        ----------
        url
            Canonical URL of the file.
        """
        return ()

    def _granted(self, url: str, registry: Any) -> ObjectStoreRegistry:
        """Return the registry to read through; ``None`` grants the named file, and what is named along with it."""
        known = ObjectStoreRegistry.coerce(registry)
        return known.grant(url, *self.companions(as_url(url))) if registry is None else known

    @abstractmethod
    def _read(self, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        """Return the tree of a file, which is named by its canonical URL."""


def names_of(*given: Iterable[str] | str | None) -> tuple[str, ...]:
    """Return the names in arguments each of which may be one name, several or none.

    Examples
    --------
    >>> names_of("orography"), names_of(["a", "b"], "c"), names_of(None)
    (('orography',), ('a', 'b', 'c'), ())
    """
    return tuple(
        name for names in given for name in (() if names is None else (names,) if isinstance(names, str) else names)
    )


@dataclass(frozen=True)
class Omissions:
    """What one parse leaves out: what the user dropped, and, unless ``strict``, what cannot be represented.

    Parameters
    ----------
    url
        The file.
    dropped
        Names, which count wherever they are, and paths that the user does not want. What begins with a slash is a path.
    strict
        Whether to raise rather than to leave out.
    reasons
        The errors that concern one array alone; others raise in any case.

    Examples
    --------
    >>> omissions = Omissions("file:///a.nc", ["time", "/wind"])
    >>> [omissions.drops(path) for path in ("model/time", "/wind", "model/wind")]
    [True, True, False]
    """

    url: str
    dropped: Iterable[str] = ()
    strict: bool = False
    reasons: tuple[type[VirtualChunksError], ...] = LEFT_OUT
    _dropped: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_dropped", frozenset(name.rstrip("/") for name in self.dropped))

    def drops(self, path: str, name: str | None = None) -> bool:
        """Return whether the user dropped what is at a path, by that path or by name: its last part, if not given."""
        if not self._dropped:
            return False
        plain = path.strip("/")
        return not self._dropped.isdisjoint((plain, "/" + plain, plain.rpartition("/")[2] if name is None else name))

    @contextmanager
    def attempt(self, path: str) -> Iterator[None]:
        """Leave out an array if what makes it fails for one of the `reasons`.

        Raises
        ------
        VirtualChunksError
            What else fails, and if `strict` everything, with its place.
        """
        try:
            yield
        except VirtualChunksError as error:
            self.place(error, path)
            if not isinstance(error, self.reasons):
                raise
            self.leave_out(path, error)

    def leave_out(self, path: str, error: VirtualChunksError, what: str | None = None) -> None:
        """Say that something is left out, and why.

        Parameters
        ----------
        path, error
            What it is, and the reason.
        what
            What a warning calls it; by default, its path.

        Raises
        ------
        VirtualChunksError
            The error itself, with its place, if `strict`.
        """
        self.place(error, path)
        if self.strict:
            raise error
        self.tell(what or repr(path), error.message)

    def place(self, error: VirtualChunksError, path: str | None = None) -> None:
        """Let an error say where it happened."""
        error.variable = path if error.variable is None else error.variable
        error.url = self.url if error.url is None else error.url

    def tell(self, what: str, reason: str) -> None:
        """Warn that something is left out."""
        warnings.warn(UnsupportedArrayWarning(f"{what} of {self.url} is left out: {reason}"), stacklevel=3)
