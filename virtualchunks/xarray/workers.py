"""Processes that open files: started once, kept for the next call, spoken to through pipes.

A worker is a fresh interpreter, as in :mod:`virtualchunks.isolation`, and not a fork: no locks, threads or state of
native libraries are copied into it. The user's script is not run a second time in it, so that no ``if __name__ ==
"__main__"`` is needed, and a notebook is as good as a script. A worker imports from where this process imports, warns
here of what it is warned of there, and ends when this process does, or when it has had nothing to do for a while.

Its answers are pickles, and are trusted as much as what is parsed in this process: for files that nobody vouches for,
there is ``isolate=True``.
"""

from __future__ import annotations

import atexit
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from virtualchunks.errors import ParserCrashedError, UnsupportedFeatureError, VirtualChunksError

#: Seconds after which a worker that has nothing to do ends, where the system lets it wait for so long.
IDLE = 300.0
#: Calls that a worker has been sent at a time, so that it need not wait for this process.
AHEAD = 2
#: Bytes of a call that fit into a pipe whose other end is not being read; only such are sent ahead.
SHORT = 32 << 10

_BOOTSTRAP = (
    "import sys; sys.path[:] = sys.argv[1:]; del sys.argv[1:]; from virtualchunks.xarray.workers import serve; serve()"
)
#: What pickling raises, and unpickling.
_PICKLING = (pickle.PickleError, TypeError, AttributeError, ImportError, ValueError, LookupError, EOFError)

Told = tuple[tuple[str, type[Warning]], ...]


class WorkerPool(Executor):
    """Calls in other processes, as many as there are processors.

    Parameters
    ----------
    count
        How many processes; by default one per processor that this process may use.

    Examples
    --------
    >>> from operator import neg
    >>> with WorkerPool(1) as pool:
    ...     pool.submit(neg, 3).result()
    -3
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = processors() if count is None else count
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._pickled: tuple[Any, bytes] = (None, b"")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Schedule a call.

        Raises
        ------
        UnsupportedFeatureError
            If it cannot be sent to another process.
        """
        if self._pickled[0] is not fn:
            self._pickled = fn, _dumps(fn)
        call = _Call(_dumps((self._pickled[1], args, kwargs)))
        self._calls.put(call)
        if len(self._threads) < self._count:
            thread = threading.Thread(target=_Feeder(self._calls).run, name="virtualchunks-worker", daemon=True)
            self._threads.append(thread)
            thread.start()
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let go of the workers when their calls are done; they wait for the next pool."""
        if cancel_futures:
            with suppress(queue.Empty):
                while (call := self._calls.get_nowait()) is not None:
                    call.future.cancel()
        for _ in self._threads:
            self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def close_workers() -> None:
    """End the workers that have nothing to do, which would otherwise wait for their next call."""
    waiting = _WAITING.pop(os.getpid(), [])
    for worker in waiting:
        worker.close()
    for worker in waiting:
        worker.wait()


class _Told(Future[Any]):
    """A future that warns whoever takes its result of what the worker was warned of."""

    told: Told = ()

    def result(self, timeout: float | None = None) -> Any:
        try:
            return super().result(timeout)
        finally:
            told, self.told = self.told, ()
            for text, category in told:
                warnings.warn(text, category, stacklevel=2)


@dataclass(frozen=True, eq=False)
class _Call:
    """A call, ready to be sent."""

    data: bytes
    future: _Told = field(default_factory=_Told)

    def answered(self, answer: bytes) -> None:
        """Take the worker's answer for the result."""
        try:
            good, found, self.future.told = pickle.loads(answer)
        except _PICKLING as error:
            good, found = False, UnsupportedFeatureError(f"the answer of another process cannot be read here: {error}")
        if good:
            self.future.set_result(found)
        else:
            self.future.set_exception(found)


class _Feeder:
    """What one thread does: it gives calls to one worker after the other, until there are no more."""

    def __init__(self, calls: queue.SimpleQueue[_Call | None]) -> None:
        self._calls = calls
        self._more = True
        self._waiting: deque[_Call] = deque()
        self._sent: deque[_Call] = deque()

    def run(self) -> None:
        """Give calls to a worker, and to another where it ends."""
        while self._take():
            try:
                worker = _borrow()
            except OSError as error:
                self._waiting.popleft().future.set_exception(
                    ParserCrashedError(f"no process can be started: {error}: open the files with parallel=False")
                )
                continue
            if self._feed(worker):
                _WAITING.setdefault(os.getpid(), []).append(worker)

    def _take(self) -> bool:
        """Take calls to be sent ahead, and wait for one where there is nothing else to do; return whether there is."""
        while self._more and len(self._waiting) + len(self._sent) < AHEAD:
            try:
                call = self._calls.get(block=not (self._waiting or self._sent))
            except queue.Empty:
                break
            if call is None:
                self._more = False
            elif call.future.set_running_or_notify_cancel():
                self._waiting.append(call)
        return bool(self._waiting or self._sent)

    def _feed(self, worker: _Worker) -> bool:
        """Give calls to a worker until there are no more; return whether it is still there."""
        while self._take():
            while self._waiting and (not self._sent or len(self._waiting[0].data) < SHORT):
                self._sent.append(self._waiting.popleft())
                worker.send(self._sent[-1].data)
            answer = worker.receive()
            if answer is None:
                self._lost(worker.wait())
                return False
            self._sent.popleft().answered(answer)
        return True

    def _lost(self, code: int) -> None:
        """Send again what a worker that ended has not answered, but for what ended it."""
        if code:  # with 0, it ended because it had had nothing to do
            how = f"exited with code {code}" if code > 0 else f"was ended by signal {-code}"
            self._sent.popleft().future.set_exception(
                ParserCrashedError(f"the process that opened this {how}: isolate=True tells more of what happened")
            )
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()


class _Worker:
    """A process that waits for calls."""

    def __init__(self) -> None:
        self.surroundings = _surroundings()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOTSTRAP, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def fits(self) -> bool:
        """Return whether it is still there, and what surrounded it when it was started surrounds this process now."""
        return self._process.poll() is None and self.surroundings == _surroundings()

    def send(self, data: bytes) -> None:
        """Send a call; one that is gone is seen where it does not answer."""
        with suppress(OSError, ValueError):
            _send(self._process.stdin, data)

    def receive(self) -> bytes | None:
        """Wait for an answer; ``None`` if it ended."""
        return _receive(self._process.stdout)

    def close(self) -> None:
        """Tell it to end."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        self.close()
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


#: Workers that have nothing to do, by the process that started them: a fork must not speak to its parent's.
_WAITING: dict[int, list[_Worker]] = {}
atexit.register(close_workers)


def _surroundings() -> tuple[Any, ...]:
    """Return what of this process decides how files are opened in another, as far as it can change."""
    return tuple(sys.path), os.getcwd(), dict(os.environ)


def _borrow() -> _Worker:
    waiting = _WAITING.setdefault(os.getpid(), [])
    while waiting:
        try:
            worker = waiting.pop()
        except IndexError:  # another thread was faster
            break
        if worker.fits():
            return worker
        worker.wait()
    return _Worker()


def _dumps(call: Any) -> bytes:
    try:
        return pickle.dumps(call, protocol=pickle.HIGHEST_PROTOCOL)
    except VirtualChunksError:
        raise
    except _PICKLING as error:
        raise UnsupportedFeatureError(
            f"parallel='processes' hands the registry, the parser and the other arguments to other processes, and one "
            f"of them cannot be pickled: {error}: pass what is defined in a module, or open the files with "
            "parallel=False"
        ) from error


def _send(stream: IO[bytes] | None, data: bytes) -> None:
    if stream is None:
        raise ValueError("a worker was started without a pipe")
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


def _receive(stream: IO[bytes] | None) -> bytes | None:
    head = _exactly(stream, 8)
    return None if head is None else _exactly(stream, int.from_bytes(head, "big"))


def _exactly(stream: IO[bytes] | None, length: int) -> bytes | None:
    """Read so many bytes; ``None`` at the end of a stream."""
    if stream is None:
        raise ValueError("a worker was started without a pipe")
    data = bytearray()
    while len(data) < length:
        part = stream.read(length - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


def serve() -> None:
    """Answer calls that come through standard input, until there are none: what runs in a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who interrupts this process's parent means the parent
    calls = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - it is never closed
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what parsers print is no answer
    known: dict[bytes, Any] = {}
    while _is_ready(calls) and (call := _receive(calls)) is not None:
        _send(answers, _answer(call, known))
    os._exit(0)  # what native libraries leave behind is not tidied up


def _is_ready(calls: IO[bytes]) -> bool:
    """Wait for a call; return whether it was worth waiting."""
    return os.name == "nt" or bool(select.select([calls], [], [], IDLE)[0])


def _answer(call: bytes, known: dict[bytes, Any]) -> bytes:
    """Make a call; return whether it returned, what it returned or raised, and what it warned of, as a pickle."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        good, found = _called(call, known)
    heard = tuple((str(warning.message), warning.category) for warning in told)
    try:
        return pickle.dumps((good, found, heard), protocol=pickle.HIGHEST_PROTOCOL)
    except _PICKLING as error:
        text = f"what another process made cannot be sent back: {error!r}; it was {type(found).__name__}: {found}"
        return pickle.dumps((False, UnsupportedFeatureError(text), heard))


def _called(call: bytes, known: dict[bytes, Any]) -> tuple[bool, Any]:
    try:
        pickled, args, kwargs = pickle.loads(call)
        if pickled not in known:
            known.clear()
            known[pickled] = pickle.loads(pickled)
    except _PICKLING as error:
        return False, UnsupportedFeatureError(
            f"parallel='processes' needs parser, registry and other arguments that another process can import: {error}:"
            " move what the script or notebook defines itself into a module, or open the files with parallel=False"
        )
    try:
        return True, known[pickled](*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - boundary between processes: it is raised in the other
        if not isinstance(error, VirtualChunksError):
            error.add_note("in another process:\n" + "".join(traceback.format_tb(error.__traceback__)))
        return False, error
