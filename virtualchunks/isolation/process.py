"""Starting a child process, handing it work, and watching it: its time, its answer, and how it ended.

The child is a fresh interpreter, not a fork: threads, locks and the state of native libraries are not copied, and the
user's own script is not run a second time. It imports from where this process imports.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from virtualchunks.isolation import child

#: Seconds that a child may take until its work begins: an interpreter, and what it imports.
START = 120.0
#: How much of what a child prints is kept: the end.
KEPT = 16 << 10

_BOOTSTRAP = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from virtualchunks.isolation.child import main; main()"
)
#: A thread of Rust's runtime, or an arena of malloc for each, takes address space that nobody uses.
_FRUGAL = {"MALLOC_ARENA_MAX": "2", "TOKIO_WORKER_THREADS": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_OUT_OF_MEMORY = ("memory allocation of", "bad_alloc", "out of memory", "cannot allocate memory", "memoryerror")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended.

    Parameters
    ----------
    kind
        The byte that its answer begins with (:mod:`virtualchunks.isolation.child`); empty if it gave none.
    answer
        What follows.
    code
        Its exit code, negative for a signal.
    limit
        The limit that ended it, ``"seconds"`` or ``"memory"``, or ``None``.
    printed
        The end of what it printed.
    """

    kind: bytes
    answer: bytes
    code: int
    limit: str | None
    printed: str

    @property
    def ending(self) -> str:
        """How the process ended, in words that fit behind "it"."""
        if self.code >= 0:
            return f"exited with code {self.code}"
        try:
            return f"was ended by the signal {signal.Signals(-self.code).name}"
        except ValueError:
            return f"was ended by the signal {-self.code}"


def run(function: Callable[..., bytes], arguments: tuple[Any, ...], *, memory: int, seconds: float) -> Outcome:
    """Run a function in a child process with limits.

    Parameters
    ----------
    function
        Which the child can import; it returns bytes.
    arguments
        Which pickle.
    memory
        Bytes that the child may take beyond what it has when its work begins, where the system has such limits; its
        answer may not be longer either.
    seconds
        That it may take from then on.

    Returns
    -------
    Outcome
        The answer, or how the child ended without one.

    Raises
    ------
    pickle.PicklingError, TypeError, AttributeError
        If the work cannot be handed over.
    """
    work = b"".join(pickle.dumps(part) for part in (sys.path, (memory, seconds), (function, arguments)))
    environment = {**os.environ, **{name: os.environ.get(name, value) for name, value in _FRUGAL.items()}}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _BOOTSTRAP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        try:
            return _Watch(process, memory).over(work, seconds)
        finally:
            process.kill()


@dataclass
class _Watch:
    """One child that is watched."""

    process: subprocess.Popen[bytes]
    most: int
    started: threading.Event = field(default_factory=threading.Event)
    answer: bytearray = field(default_factory=bytearray)
    printed: bytearray = field(default_factory=bytearray)
    too_long: bool = False

    def over(self, work: bytes, seconds: float) -> Outcome:
        """Hand over the work, and wait for the end."""
        streams = ((self._write, work), (self._collect, self.process.stdout), (self._drain, self.process.stderr))
        threads = [threading.Thread(target=target, args=(given,), daemon=True) for target, given in streams]
        for thread in threads:
            thread.start()
        in_time = self.started.wait(START) and self._ended(seconds)
        self.process.kill()
        code = self.process.wait()
        for thread in threads:
            thread.join(10)
        return self._outcome(code, in_time)

    def _outcome(self, code: int, in_time: bool) -> Outcome:
        printed = self.printed.decode("utf-8", "replace").strip()
        kind, answer = bytes(self.answer[:1]), bytes(self.answer[1:])
        died = in_time and not kind
        no_memory = self.too_long or kind == child.OUT_OF_MEMORY
        no_memory = no_memory or (died and any(text in printed.lower() for text in _OUT_OF_MEMORY))
        limit = "memory" if no_memory else None if in_time else "seconds"
        return Outcome(kind if limit is None else b"", answer, code, limit, printed)

    def _ended(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _write(self, work: bytes) -> None:
        stream = _stream(self.process.stdin)
        with suppress(OSError):  # a child that is gone reads nothing
            stream.write(work)
            stream.close()

    def _collect(self, stream: IO[bytes]) -> None:
        """Collect the answer, behind the byte that says that the work has begun."""
        first = stream.read(1)
        if first and first != child.STARTED:
            self.answer += first
        self.started.set()
        while data := stream.read1(1 << 20):  # type: ignore[attr-defined]  # a pipe is a BufferedReader
            self.answer += data
            if len(self.answer) > self.most:
                self.too_long = True
                self.process.kill()
                return

    def _drain(self, stream: IO[bytes]) -> None:
        while data := stream.read1(1 << 16):  # type: ignore[attr-defined]  # a pipe is a BufferedReader
            self.printed += data
            del self.printed[:-KEPT]


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("a child process was started without a pipe")
    return stream
