"""Running one function over many files: in order, with a progress bar, and with errors that name the file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Lock
from typing import Any

from virtualchunks.errors import MissingDependencyError

#: What ``parallel`` may be.
Parallel = bool | int | str | Executor | type[Executor] | None
#: Threads by default, where there is a network to wait for.
REMOTE_THREADS = 32


def run_over[Result](
    function: Callable[[str], Result],
    items: Sequence[str],
    parallel: Parallel = False,
    *,
    describe: str = "opening",
    then: Callable[[Result], Result] | None = None,
) -> list[Result]:
    """Call a function with every item; return the results in the order of the items.

    Parameters
    ----------
    function
        What to call; it must pickle where the executor runs it in other processes.
    items
        URLs or paths.
    parallel
        ``False`` for one after the other; ``True`` for one thread per processor, or a number of threads, for what lies
        behind a network, while this thread opens what is local; an executor (which is left running), or a class of
        executors; ``"processes"``, ``"dask"`` or ``"lithops"``. ``None`` or ``"auto"``: as :func:`chosen` says.
    describe
        What the progress bar calls the work.
    then
        What is done to each result, in this thread.

    Raises
    ------
    Exception
        What the function raises first, with a note that names the item. Calls that have not begun are cancelled.
    """
    parallel = chosen(parallel, items)
    with _progress(len(items), describe) as advance:
        if is_serial(parallel):
            calls = [partial(_finished, partial(function, item), then) for item in items]
            return [_named(describe, item, call, advance) for item, call in zip(items, calls, strict=True)]
        with _executor(parallel) as executor:
            futures = [None if _is_opened_here(item, parallel) else executor.submit(function, item) for item in items]
            calls = [
                partial(_finished, partial(function, item) if future is None else future.result, then)
                for item, future in zip(items, futures, strict=True)
            ]
            try:
                return [_named(describe, item, call, advance) for item, call in zip(items, calls, strict=True)]
            finally:
                for future in futures:  # where one failed: those that are done are left alone
                    if future is not None:
                        future.cancel()


def chosen(parallel: Parallel, items: Sequence[str]) -> Parallel:
    """Return how items are opened where the user leaves it to us.

    There are up to :data:`REMOTE_THREADS` threads where something lies behind a network, since these mostly wait.
    Local files are opened one after the other: threads of Python take turns at it, which costs a little and brings
    nothing. A build of Python without a global lock uses one thread per processor.

    Examples
    --------
    >>> chosen(None, ["file:///a.nc", "s3://bucket/a.nc", "s3://bucket/b.nc"]), chosen(4, ["file:///a.nc"])
    (2, 4)
    """
    if parallel is not None and parallel != "auto":
        return parallel
    remote = sum(not url.startswith("file:") for url in items)
    if remote:
        return min(REMOTE_THREADS, remote)
    return not _threads_take_turns()


def _is_opened_here(item: str, parallel: Parallel) -> bool:
    """Return whether a number of threads is of no use to an item: it is at hand, and threads would take turns at it."""
    return isinstance(parallel, int) and item.startswith("file:") and _threads_take_turns()


def is_serial(parallel: Parallel) -> bool:
    """Return whether items are opened one after the other, in the thread that asks."""
    return parallel is False or (parallel is not True and isinstance(parallel, int) and parallel <= 1)


def turn_of(parallel: Parallel) -> Lock | None:
    """Return the lock by which threads take turns at opening local files; ``None`` where they need not.

    Threads that read a file at hand give up Python's lock at every read, and wait up to 5 ms to have it back from one
    that computes. Where only one of them opens a file at a time, none has to.

    Parameters
    ----------
    parallel
        What :func:`chosen` returned.
    """
    of_threads = parallel is ThreadPoolExecutor or type(parallel) is ThreadPoolExecutor  # subclasses may pickle calls
    in_threads = of_threads or (isinstance(parallel, int) and not is_serial(parallel))
    return Lock() if in_threads and _threads_take_turns() else None


def _threads_take_turns() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def _finished[Result](call: Callable[[], Result], then: Callable[[Result], Result] | None) -> Result:
    return call() if then is None else then(call())


def _named[Result](describe: str, item: str, call: Callable[[], Result], advance: Callable[[], Any]) -> Result:
    def note(kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(f"while {describe} {item}")

    with ExitStack() as stack:
        stack.push(note)
        result = call()
    advance()
    return result


@contextmanager
def _progress(total: int, describe: str) -> Iterator[Callable[[], Any]]:
    """Show a bar on a terminal and in a notebook, for work that takes more than a second; elsewhere nothing."""
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=describe, unit="file", disable=None, delay=1) as bar:
        yield bar.update


@contextmanager
def _executor(parallel: Parallel) -> Iterator[Executor]:
    if isinstance(parallel, Executor):
        yield parallel
        return
    with _new_executor(parallel) as executor:
        yield executor


def _new_executor(parallel: bool | int | str | type[Executor] | None) -> Executor:
    if isinstance(parallel, type) and issubclass(parallel, Executor):
        return parallel()
    if isinstance(parallel, int):
        return ThreadPoolExecutor(os.cpu_count() if parallel is True else parallel, "virtualchunks-open")
    if parallel in _BY_NAME:
        return _BY_NAME[parallel]()
    raise ValueError(
        f"parallel={parallel!r} is neither None, True, False, a number of threads, a concurrent.futures.Executor, nor "
        f"one of {', '.join(map(repr, _BY_NAME))}"
    )


class DaskExecutor(Executor):
    """Calls on dask's scheduler: on the cluster of the current distributed client, or else on dask's local threads."""

    def __init__(self) -> None:
        try:
            from dask.delayed import delayed
        except ModuleNotFoundError as error:
            raise MissingDependencyError("parallel='dask' needs dask: pip install 'virtualchunks[dask]'") from error
        self._delayed = delayed
        self._pool = ThreadPoolExecutor(os.cpu_count(), "virtualchunks-dask")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Schedule a call."""
        task = self._delayed(fn, pure=False)(*args, **kwargs)
        return self._pool.submit(task.compute)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let go of the threads that wait for dask."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


def _lithops() -> Executor:
    try:
        from lithops.concurrent import FunctionExecutor  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError as error:
        raise MissingDependencyError("parallel='lithops' needs lithops ≥ 3.8: pip install lithops") from error
    made: Executor = FunctionExecutor()
    return made


def _processes() -> Executor:
    from virtualchunks.xarray.workers import WorkerPool

    return WorkerPool()


_BY_NAME: dict[Any, Callable[[], Executor]] = {"processes": _processes, "dask": DaskExecutor, "lithops": _lithops}
