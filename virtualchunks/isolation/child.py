"""What runs in the child: read the work, set the limits, do it, answer with bytes.

The answer goes to what was standard output; whatever the work prints goes to standard error. Each part of the answer
begins with one byte that says what it is.
"""

from __future__ import annotations

import faulthandler
import math
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

#: The work was understood, and begins; the limits hold from here on.
STARTED = b"S"
#: The work is done; what it returned follows.
ANSWERED = b"A"
#: The work reached the limit of memory.
OUT_OF_MEMORY = b"M"
#: The work, or something it needs, cannot be imported here; why follows.
UNKNOWN = b"U"
#: The work raised; what follows.
RAISED = b"R"


def main() -> None:
    """Do the work that stands on standard input: paths to import from, limits, and a function with its arguments."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        faulthandler.enable()
        memory, seconds = pickle.load(sys.stdin.buffer)
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except (ImportError, AttributeError) as error:
            answers.write(UNKNOWN + str(error).encode())
        else:
            answers.write(STARTED)
            answers.flush()
            confine(memory, seconds)
            answers.write(_answer(function, arguments))
        answers.flush()
        os._exit(0)  # what native code has left behind is not tidied up


def confine(memory: int, seconds: float) -> None:
    """Limit this process to so many bytes of memory beyond what it has, and to a multiple of so many seconds.

    The time is watched by the parent; the limit on the processor's is for when the parent is gone.

    Parameters
    ----------
    memory
        In bytes.
    seconds
        Of work.
    """
    if resource is None:
        return
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, math.ceil(4 * seconds) + 10)
    _limit(resource.RLIMIT_AS, address_space() + memory)


def limit_memory(memory: int) -> None:
    """Limit this process to so many bytes beyond what it has now; what it starts may raise its own limit again.

    Parameters
    ----------
    memory
        In bytes.
    """
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + memory, hard))


def address_space() -> int:
    """Return how many bytes of address space this process has; 1 GiB where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[0])
    except OSError:
        return 1 << 30
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(which, (value, value))
    except (ValueError, OSError):  # macOS knows limits that it does not let be set
        return


def _answer(function: Callable[..., bytes], arguments: tuple[Any, ...]) -> bytes:
    try:
        return ANSWERED + function(*arguments)
    except MemoryError:
        return OUT_OF_MEMORY
    except BaseException as error:  # noqa: BLE001 - boundary between processes: the parent is told of all
        return RAISED + f"{type(error).__name__}: {error}".encode("utf-8", "replace")
