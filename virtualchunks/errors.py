"""The errors of virtualchunks: one small tree, each member also the builtin a caller would expect.

::

    VirtualChunksError
    ├── FormatError (ValueError)                   a file or document is not what it claims to be
    ├── UnsupportedFeatureError (NotImplementedError)  understood, and cannot be represented
    ├── CombineError (ValueError)                  these arrays cannot become one
    ├── ChunkIndexError (IndexError)               a selection cuts through a chunk
    ├── ManifestError (ValueError)                 records, grid and metadata do not fit together
    ├── URLError (ValueError)                      a URL that breaks the rules of :mod:`virtualchunks.urls`
    ├── NotGrantedError (PermissionError)          no registered prefix covers the URL
    ├── ReadError (OSError)                        bytes that should be there could not be read
    │   ├── SourceUnavailableError                 gone, forbidden, or not answering
    │   ├── SourceChangedError                     not the object that was parsed
    │   └── ShortReadError                         fewer bytes than were asked for
    ├── DecodeError (ValueError)                   bytes that do not decode to the chunk they stand for
    ├── LimitExceededError (ValueError)            out of proportion, refused before it costs anything
    ├── ParserCrashedError (RuntimeError)          a parser in a process of its own ended without an answer
    ├── MissingDependencyError (ImportError)       an extra that is not installed
    ├── VirtualArrayError (TypeError)              values were asked of an array that holds references only
    ├── TargetExistsError (FileExistsError)        a writer will not overwrite what is there
    └── WriteError (OSError)                       a target refused what was written
        └── WriteConflictError                     somebody else wrote to it first

A :class:`ReadError` is never a ``FileNotFoundError`` or a ``KeyError``: stores and file systems above take those for
"this chunk is missing" and fill.

What a parser leaves out of a file, because no virtual chunks can stand for it, is told by an
:class:`UnsupportedArrayWarning`; that an index beside a file does not fit it, by a :class:`StaleIndexWarning`;
that integers are rounded where they join floats, as NumPy has it, by a :class:`RoundingWarning`.
"""

from __future__ import annotations


class VirtualChunksError(Exception):
    """Base of every error that virtualchunks raises on purpose.

    Parameters
    ----------
    message
        What was found, what was expected, and what to do.
    url
        The object concerned, in canonical form, without credentials.
    variable
        Path of the array concerned, within its file or group.
    chunk
        Index of the chunk concerned in the chunk grid.

    Attributes
    ----------
    message, url, variable, chunk
        As given; ``None`` where they do not apply.

    Examples
    --------
    >>> str(FormatError("not HDF5: the file is empty", url="file:///data/a.nc"))
    'not HDF5: the file is empty [file:///data/a.nc]'
    """

    def __init__(
        self,
        message: str,
        *,
        url: str | None = None,
        variable: str | None = None,
        chunk: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.url = url
        self.variable = variable
        self.chunk = chunk

    def __str__(self) -> str:
        places = []
        if self.variable is not None and repr(self.variable) not in self.message:
            places.append(f"variable {self.variable!r}")
        if self.chunk is not None:
            places.append(f"chunk {self.chunk}")
        if self.url is not None and self.url not in self.message:
            places.append(self.url)
        return f"{self.message} [{', '.join(places)}]" if places else self.message


class FormatError(VirtualChunksError, ValueError):
    """A file or document is not what it claims to be: wrong format, truncated, corrupt."""


class UnsupportedFeatureError(VirtualChunksError, NotImplementedError):
    """Something that was understood but cannot be represented as virtual chunks."""


class CombineError(VirtualChunksError, ValueError):
    """Arrays that cannot become one array without a wrong number."""


class ChunkIndexError(VirtualChunksError, IndexError):
    """A selection that cuts through a chunk whose bytes cannot be cut."""


class ManifestError(VirtualChunksError, ValueError):
    """Records, chunk grid and metadata that do not fit together."""


class URLError(VirtualChunksError, ValueError):
    """A URL that breaks the rules of :mod:`virtualchunks.urls`."""


class NotGrantedError(VirtualChunksError, PermissionError):
    """A URL that no prefix of the registry covers."""


class ReadError(VirtualChunksError, OSError):
    """Bytes that should be there could not be read. Never a ``FileNotFoundError``, never fill."""


class SourceUnavailableError(ReadError):
    """The object is gone, forbidden, or does not answer."""


class SourceChangedError(ReadError):
    """The object is not the one that was parsed."""


class ShortReadError(ReadError):
    """The answer holds fewer bytes than were asked for."""


class DecodeError(VirtualChunksError, ValueError):
    """Bytes that do not decode to the chunk they stand for."""


class LimitExceededError(VirtualChunksError, ValueError):
    """Something out of proportion, refused before it costs memory or time."""


class ParserCrashedError(VirtualChunksError, RuntimeError):
    """A parser in a process of its own ended without an answer: it crashed, or reached a limit.

    Parameters
    ----------
    message, url
        As for :class:`VirtualChunksError`.
    code
        The exit code of the process, negative for the signal that ended it, as :mod:`subprocess` counts.
    limit
        The limit that was reached, ``"seconds"`` or ``"memory"``; ``None`` if it was none.

    Attributes
    ----------
    code, limit
        As given.
    """

    def __init__(
        self, message: str, *, url: str | None = None, code: int | None = None, limit: str | None = None
    ) -> None:
        super().__init__(message, url=url)
        self.code = code
        self.limit = limit


class MissingDependencyError(VirtualChunksError, ImportError):
    """An optional dependency that is not installed; the message names the extra."""


class VirtualArrayError(VirtualChunksError, TypeError):
    """Values were asked of an array that holds references only."""


class TargetExistsError(VirtualChunksError, FileExistsError):
    """A writer will not overwrite what is already there."""


class WriteError(VirtualChunksError, OSError):
    """A target refused what was written; what was there before is untouched."""


class WriteConflictError(WriteError):
    """Somebody else wrote to the target first; what they wrote is untouched."""


class UnsupportedArrayWarning(UserWarning):
    """An array, attribute or link of a file was left out; the message names it and says why."""


class StaleIndexWarning(UserWarning):
    """An index found beside a file is not that of the file as it is now; the file was read without it."""


class RoundingWarning(UserWarning):
    """Integers of 64 bits become floats, which round those beyond 2**53; the message names the variable and a file."""
