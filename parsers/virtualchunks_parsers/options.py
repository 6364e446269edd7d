"""What the arguments that parsers share mean: ``registry``, ``drop_variables``, ``strict``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from virtualchunks.errors import UnsupportedArrayWarning, VirtualChunksError
from virtualchunks.registry import ObjectStoreRegistry


def granted(url: str, registry: Any) -> ObjectStoreRegistry:
    """Return the registry to read through; ``None`` grants the named file alone."""
    known = ObjectStoreRegistry.coerce(registry)
    return known.grant(url) if registry is None else known


def dropped_names(given: Iterable[str] | None) -> tuple[str, ...]:
    """Return ``drop_variables`` as a tuple; one name may stand for itself.

    Examples
    --------
    >>> dropped_names("orography"), dropped_names(["a", "b"]), dropped_names(None)
    (('orography',), ('a', 'b'), ())
    """
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


@dataclass(frozen=True)
class Omissions:
    """What one parse leaves out: what the user dropped, and, unless ``strict``, what cannot be represented.

    Parameters
    ----------
    url
        The file.
    dropped
        Names and paths that the user does not want.
    strict
        Whether to raise rather than to leave out.
    """

    url: str
    dropped: Iterable[str] = ()
    strict: bool = False
    _dropped: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_dropped", frozenset(name.strip("/") for name in self.dropped))

    def drops(self, path: str) -> bool:
        """Return whether the user dropped a variable, by its name or by its path."""
        return bool(self._dropped) and not self._dropped.isdisjoint((path.strip("/"), path.rpartition("/")[2]))

    def leave_out(self, path: str, error: VirtualChunksError) -> None:
        """Say that an array is left out, and why.

        Raises
        ------
        VirtualChunksError
            The error itself, with its place, if nothing may be left out.
        """
        if self.strict:
            error.variable = error.variable or path
            error.url = error.url or self.url
            raise error
        text = f"{path!r} of {self.url} is left out: {error.message}"
        warnings.warn(UnsupportedArrayWarning(text), stacklevel=2)
