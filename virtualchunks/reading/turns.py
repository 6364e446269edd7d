"""Turns: of several threads that open files, one computes at a time, while the others wait for a network.

Threads of Python that compute share one lock, and each gives it up at every read of a local file. Where it is left to
them, they wait more than they work; where they take turns at a whole file, they do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

#: The lock of the turn that this thread has.
_TURN: ContextVar[Lock | None] = ContextVar("virtualchunks-turn", default=None)


@contextmanager
def taking_turns(lock: Lock | None) -> Iterator[None]:
    """Compute, within the block, only while no other thread does that takes turns by the same lock.

    Parameters
    ----------
    lock
        One for all threads that take turns; ``None`` for no turns at all.

    Examples
    --------
    >>> lock = Lock()
    >>> with taking_turns(lock):
    ...     with letting_others():
    ...         lock.locked()
    False
    """
    if lock is None:
        yield
        return
    with lock:
        token = _TURN.set(lock)
        try:
            yield
        finally:
            _TURN.reset(token)


@contextmanager
def letting_others() -> Iterator[None]:
    """Let other threads have their turn, within the block, which waits for a network."""
    lock = _TURN.get()
    if lock is None:
        yield
        return
    token = _TURN.set(None)
    lock.release()
    try:
        yield
    finally:
        lock.acquire()
        _TURN.reset(token)
