"""The beginning of an object, asked for once: what a parser is found by is what it then reads.

To find the parser of a file is to look at its first bytes, and to parse it begins with reading them. Within
:func:`kept_beginnings` the answer to the first request is handed on to the reader that is opened next over the same
object, with the stamp that came with it: the reader takes it for the answer to its own first request, and every later
one is compared with it.

The answers that this reader is given to all its requests are kept, too, until the file is open
(:mod:`virtualchunks.reading.kept`): its coordinates are loaded from them. Of a file on a local disk nothing is kept but
its descriptor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from virtualchunks.errors import ShortReadError
from virtualchunks.reading.kept import at_hand, kept
from virtualchunks.reading.requests import Answer, get, head

if TYPE_CHECKING:
    from virtualchunks.registry import Location


@contextmanager
def kept_beginnings() -> Iterator[None]:
    """Hand on, within the block and in this thread, the beginning that was asked for last; one at a time.

    Examples
    --------
    >>> from obstore.store import MemoryStore
    >>> from virtualchunks.registry import ObjectStoreRegistry
    >>> store = MemoryStore()
    >>> _ = store.put("a", b"0123456789")
    >>> location = ObjectStoreRegistry({"memory://": store}).locate("memory:///a")
    >>> with kept_beginnings():
    ...     first = look(location, 4, 8)
    ...     beginning(location, 8) is first, beginning(location, 8) is first
    (True, False)
    """
    with kept():
        yield


def look(location: Location, needed: int, wanted: int) -> Answer:
    """Look at the first bytes of an object whose reader is still to be chosen.

    Parameters
    ----------
    location
        From :meth:`~virtualchunks.registry.ObjectStoreRegistry.locate`.
    needed
        How many bytes are asked for where nobody hands them on.
    wanted
        How many are asked for within :func:`kept_beginnings`: as many as a reader asks for first.

    Returns
    -------
    Answer
        As many bytes as the object has of them, and its stamp.
    """
    keeper = at_hand()
    if keeper is None:
        return _ask(location, needed)
    answer = _ask(location, wanted)
    keeper.beginning = location, answer
    return answer


def beginning(location: Location, wanted: int) -> Answer:
    """Return the beginning of an object: the answer that was kept, once, or that to a request.

    Parameters
    ----------
    location
        From :meth:`~virtualchunks.registry.ObjectStoreRegistry.locate`.
    wanted
        How many bytes to ask for; what was kept may have more or fewer.

    Returns
    -------
    Answer
        Its bytes, none for an empty object, and its stamp.

    Raises
    ------
    SourceUnavailableError
        If the bytes cannot be had.
    """
    keeper = at_hand()
    if keeper is None:
        return _ask(location, wanted)
    keeper.watch(location)
    waiting, keeper.beginning = keeper.beginning, None
    if waiting is not None and waiting[0].store is location.store and waiting[0].key == location.key:
        keeper.add(location, 0, waiting[1])
        return waiting[1]
    return _ask(location, wanted)


def _ask(location: Location, length: int) -> Answer:
    """Ask for the first bytes; an empty object refuses any range, and only a HEAD tells it from an error."""
    try:
        return get(location, 0, length, upto=True)
    except ShortReadError:
        found = head(location)
        if found is None or found.size != 0:
            raise
        return Answer(memoryview(b""), found)
