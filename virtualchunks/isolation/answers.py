"""What a child that has parsed hostile bytes may answer: references, warnings, an error of ours; never code.

Pickles can call anything that can be imported. These are read by an unpickler that knows the few names that a tree of
references is made of, each of which only makes values, and refuses every other.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from virtualchunks import errors
from virtualchunks.errors import ParserCrashedError, UnsupportedArrayWarning, VirtualChunksError
from virtualchunks.group import ManifestGroup

#: What an answer may name, by module.
ACCEPTED: dict[str, frozenset[str]] = {
    "virtualchunks.array": frozenset({"ManifestArray"}),
    "virtualchunks.encoding": frozenset({"ChunkEncoding"}),
    "virtualchunks.grid": frozenset({"Axis", "ChunkGrid"}),
    "virtualchunks.group": frozenset({"ManifestGroup"}),
    "virtualchunks.manifest": frozenset({"_repeated"}),
    "virtualchunks.metadata": frozenset({"ArrayMetadata"}),
    "virtualchunks.packing": frozenset({"Packing"}),
    "virtualchunks.sources": frozenset({"PackedStrings", "SourceTable", "Stamp"}),
    "virtualchunks.isolation.answers": frozenset({"Failed", "Parsed"}),
    "numpy": frozenset({"dtype", "ndarray"}),
    "numpy._core._internal": frozenset({"_convert_to_stringdtype_kwargs"}),
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
    "builtins": frozenset({"bytearray", "complex", "frozenset", "range", "set", "slice"}),
    "datetime": frozenset({"date", "datetime", "timedelta", "timezone"}),
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser made of a file.

    Parameters
    ----------
    group
        The tree.
    beneath
        Whether what lies beneath the URL is granted, too: it names a folder.
    told
        The texts of its warnings, and whether each is of something left out.
    """

    group: ManifestGroup
    beneath: bool
    told: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """An error of ours.

    Parameters
    ----------
    name
        Of its class in :mod:`virtualchunks.errors`.
    message, url, variable, chunk
        Those of the error.
    told
        As for :class:`Parsed`.
    """

    name: str
    message: str
    url: str | None
    variable: str | None
    chunk: tuple[int, ...] | None
    told: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def of(cls, error: VirtualChunksError, told: Sequence[tuple[str, bool]]) -> Failed:
        """Return what there is to say of an error; one of a third party's is told as the nearest of ours."""
        name = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        return cls(name, error.message, error.url, error.variable, error.chunk, tuple(told))

    def error(self) -> VirtualChunksError:
        """Return the error again."""
        kind = getattr(errors, self.name, None)
        if not isinstance(kind, type) or not issubclass(kind, VirtualChunksError):
            kind = VirtualChunksError
        made = kind(self.message, url=self.url)
        made.variable, made.chunk = self.variable, self.chunk
        return made


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in ACCEPTED.get(module, ()):
            raise ParserCrashedError(
                f"a parser in a process of its own answered with {module}.{name}, which is no part of a tree of "
                "references: parse the file in this process if you trust it, and report the parser"
            )
        return super().find_class(module, name)


def loads(data: bytes) -> Parsed | Failed:
    """Read an answer.

    Parameters
    ----------
    data
        A pickle of one.

    Raises
    ------
    ParserCrashedError
        If it is none, or names anything else than :data:`ACCEPTED`.
    """
    try:
        found = _Reader(io.BytesIO(data)).load()
    except VirtualChunksError:
        raise
    except Exception as error:  # boundary to a process that read hostile bytes: its pickle may do anything
        raise ParserCrashedError(f"a parser in a process of its own gave no proper answer: {error!r}") from error
    if not isinstance(found, Failed) and not (isinstance(found, Parsed) and isinstance(found.group, ManifestGroup)):
        raise ParserCrashedError(f"a parser in a process of its own answered with a {type(found).__name__}")
    return found


def tell(told: Sequence[tuple[str, bool]]) -> None:
    """Warn here of what the child was warned of."""
    for text, of_omission in told:
        warnings.warn(text, UnsupportedArrayWarning if of_omission else UserWarning, stacklevel=4)
