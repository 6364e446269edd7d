"""Isolated: any parser, run in a child process with limits on memory and time."""

from __future__ import annotations

import copy
import pickle
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from virtualchunks.errors import (
    ParserCrashedError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.isolation import child
from virtualchunks.isolation.answers import Failed, Parsed, loads, tell
from virtualchunks.isolation.process import Outcome, run
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import as_url

if TYPE_CHECKING:
    from virtualchunks.parsing import Parser
    from virtualchunks.store import ManifestStore


@dataclass(frozen=True)
class Isolated:
    """Runs another parser in a process of its own: a file that makes native code crash or hang is an error.

    It is a parser itself. ``open_virtual_dataset(…, isolate=True)`` wraps the parser in one with the limits that are
    the defaults here.

    Parameters
    ----------
    parser
        The parser. Where this one is passed to a function that opens files, it may also be the name of an installed
        parser, or ``None`` to find it.
    memory
        Bytes that parsing may take, beyond what the process takes before it begins.
    seconds
        How long it may take, waiting for the network included.

    Notes
    -----
    Parser and registry are handed to a fresh interpreter, which reads through the registry as this process would, with
    its credentials; a store in this process's memory cannot be handed over. It costs the start of an interpreter for
    each file, about a second.

    It keeps crashes, hangs and hunger away from this process. It is no sandbox: code that takes over the child can do
    what the user may. The child's answer is read as references, warnings or an error of ours, and nothing else; the
    registry remains the one that was given.

    Memory is limited on Linux; elsewhere as far as the system enforces ``RLIMIT_AS``, on Windows not at all. Time is
    limited everywhere. Reading values decodes chunks in this process.

    Examples
    --------
    >>> from virtualchunks_parsers.hdf5 import HDF5Parser
    >>> Isolated(HDF5Parser(), seconds=5)
    Isolated(parser=HDF5Parser(group=None, drop_variables=(), strict=False), memory=2147483648, seconds=5)
    """

    parser: Parser | str | None = None
    memory: int = field(default=2 << 30, kw_only=True)
    seconds: float = field(default=60.0, kw_only=True)

    def __post_init__(self) -> None:
        if self.memory <= 0 or self.seconds <= 0:
            raise ValueError(f"memory={self.memory} and seconds={self.seconds} must be more than nothing")

    def __call__(self, url: str, registry: Any = None) -> ManifestStore:
        """Parse a file in a child process.

        Parameters
        ----------
        url
            URL or local path.
        registry
            What may be read, and through which store; ``None`` grants the named object alone.

        Returns
        -------
        ManifestStore
            As the parser's own.

        Raises
        ------
        ParserCrashedError
            If the child crashed, or reached a limit.
        UnsupportedFeatureError
            If parser or registry cannot be handed to another process.
        VirtualChunksError
            What the parser raised.
        """
        if not callable(self.parser):
            raise TypeError(f"to be called, Isolated needs a parser, not {self.parser!r}; or pass it to open_store")
        named = as_url(url)
        known = ObjectStoreRegistry.coerce(registry)
        granted = known.grant(named, *self.companions(named)) if registry is None else known
        parsed = self._parsed(named, granted)
        tell(parsed.told)
        if isinstance(parsed, Failed):
            raise parsed.error()
        return _store(parsed, named, granted)

    def companions(self, url: str) -> tuple[str, ...]:
        """Return the URLs that a user names along with a file, as the parser does."""
        companions = getattr(self.parser, "companions", None)
        return tuple(companions(url)) if callable(companions) else ()

    def _parsed(self, url: str, registry: ObjectStoreRegistry) -> Parsed | Failed:
        try:
            outcome = run(parse, (self.parser, url, registry), memory=self.memory, seconds=self.seconds)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise _not_handed_over(str(error), url) from error
        if outcome.kind == child.UNKNOWN:
            raise _not_handed_over(outcome.answer.decode("utf-8", "replace"), url)
        if outcome.kind != child.ANSWERED:
            raise self._crash(outcome, url)
        try:
            return loads(outcome.answer)
        except VirtualChunksError as error:
            error.url = url
            raise

    def _crash(self, outcome: Outcome, url: str) -> ParserCrashedError:
        name = type(self.parser).__name__
        if outcome.limit == "seconds":
            text = (
                f"{name} did not come to an end within {self.seconds:g} s and was stopped: the file is damaged or made "
                "to keep it busy, or its store is slow; if you trust the file, allow more with Isolated(…, seconds=…)"
            )
        elif outcome.limit == "memory":
            text = (
                f"{name} needs more than {self.memory / 2**20:,.0f} MiB of memory for this file, and was stopped: it "
                "is damaged or made to exhaust it; if you trust the file, allow more with Isolated(…, memory=…)"
            )
        elif outcome.kind == child.RAISED:
            text = f"{name} failed with what is no error of virtualchunks: {outcome.answer.decode('utf-8', 'replace')}"
        else:
            said = f"; its last words: {_last_words(outcome.printed)}" if outcome.printed else ""
            text = (
                f"the process that ran {name} {outcome.ending}{said}. The file is damaged or made to break the "
                "library that reads it: get it again from its source, or check it with the tools of its format"
            )
        return ParserCrashedError(text, url=url, code=outcome.code, limit=outcome.limit)


def parse(parser: Parser, url: str, registry: ObjectStoreRegistry) -> bytes:
    """Parse a file, in the child.

    Parameters
    ----------
    parser, url, registry
        As handed over.

    Returns
    -------
    bytes
        An answer for :func:`~virtualchunks.isolation.answers.loads`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer: Parsed | Failed
        try:
            store = parser(url, registry)
        except VirtualChunksError as error:
            answer = Failed.of(error, _told(caught))
        else:
            answer = Parsed(store.group, _beneath(url) in store.registry.prefixes, _told(caught))
    return pickle.dumps(answer)


def _store(parsed: Parsed, url: str, registry: ObjectStoreRegistry) -> ManifestStore:
    """Make the store again. The child's registry is not taken over; naming a folder grants what lies beneath it."""
    from virtualchunks.store import ManifestStore

    if parsed.beneath and url.rstrip("/") in registry.objects:
        registry = copy.copy(registry)
        registry.register(_beneath(url))
    return ManifestStore(parsed.group, registry=registry)


def _beneath(url: str) -> str:
    return url.rstrip("/") + "/"


def _told(caught: list[warnings.WarningMessage]) -> tuple[tuple[str, bool], ...]:
    kinds = (UnsupportedArrayWarning, UserWarning)
    own = [warning for warning in caught if warning.category in kinds]
    return tuple((str(warning.message), warning.category is UnsupportedArrayWarning) for warning in own)


def _last_words(printed: str) -> str:
    """Return the line that says most: the one that a fatal error begins with, or else the last one."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("Fatal Python error", "thread ", "terminate called", "***"))]
    return (fatal or lines[-1:])[0][:300]


def _not_handed_over(reason: str, url: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"parser and registry cannot be handed to a process of its own: {reason}. Define the parser in a module that "
        "can be imported",
        url=url,
    )
