"""Batching: ranges that are asked for one by one, in one tick of an event loop, become few requests.

zarr asks a store for chunks one by one, several at a time. Those of one object that are asked for before the loop turns
are merged as a selection's are.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from virtualchunks.errors import VirtualChunksError
from virtualchunks.reading.fetch import afetch
from virtualchunks.reading.tally import Tally
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import Stamp

_Object = tuple[str, Stamp | None]
_Wanted = tuple[int, int, "asyncio.Future[memoryview]"]


class Batcher:
    """Ranges, gathered until the running loop turns, and fetched together object by object.

    Where a merged request fails, its ranges are asked for one by one, so that each asker gets its bytes or its own
    error. There is one batch for each loop, thus for each thread, and no lock: a process may fork at any time.

    Parameters
    ----------
    registry
        Which must grant the URLs.
    tally
        Where requests are counted.

    Examples
    --------
    >>> from obstore.store import MemoryStore
    >>> store, tally = MemoryStore(), Tally()
    >>> _ = store.put("a", b"0123456789")
    >>> batcher = Batcher(ObjectStoreRegistry({"memory://": store}), tally)
    >>> async def both():
    ...     return await asyncio.gather(batcher.get("memory:///a", None, 7, 2), batcher.get("memory:///a", None, 5, 2))
    >>> [bytes(part) for part in asyncio.run(both())], tally.stats().requests
    ([b'78', b'56'], 1)
    """

    def __init__(self, registry: ObjectStoreRegistry, tally: Tally) -> None:
        self._registry = registry
        self._tally = tally
        self._batches: dict[asyncio.AbstractEventLoop, dict[_Object, list[_Wanted]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, url: str, stamp: Stamp | None, offset: int, length: int) -> memoryview:
        """Read a range of an object, together with those that others ask for now.

        Parameters
        ----------
        url, stamp
            The object, and its recorded stamp if there is one.
        offset, length
            Of the range.

        Raises
        ------
        ReadError, NotGrantedError
            As :func:`~virtualchunks.reading.fetch.fetch`.
        """
        loop = asyncio.get_running_loop()
        batch = self._batches.get(loop)
        if batch is None:
            batch = self._batches[loop] = {}
            loop.call_soon(self._send, loop)
        answer: asyncio.Future[memoryview] = loop.create_future()
        batch.setdefault((url, stamp), []).append((offset, length, answer))
        return await answer

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fetch what was asked for since the loop turned."""
        for (url, stamp), wanted in self._batches.pop(loop).items():
            task = loop.create_task(self._serve(url, stamp, wanted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, url: str, stamp: Stamp | None, wanted: list[_Wanted]) -> None:
        """Answer all who asked for ranges of one object."""
        try:
            wanted = [entry for entry in wanted if not entry[2].done()]
            if len(wanted) > 1:
                with suppress(VirtualChunksError):
                    await self._together(url, stamp, wanted)
            await asyncio.gather(*(self._alone(url, stamp, entry) for entry in wanted if not entry[2].done()))
        finally:
            for *_, answer in wanted:
                answer.cancel()  # of no effect on those that are answered

    async def _together(self, url: str, stamp: Stamp | None, wanted: list[_Wanted]) -> None:
        ranges = [(offset, length) for offset, length, _ in wanted]
        parts = await afetch(self._registry, url, ranges, stamp, tally=self._tally)
        for part, (_, _, answer) in zip(parts, wanted, strict=True):
            if not answer.done():
                answer.set_result(part)

    async def _alone(self, url: str, stamp: Stamp | None, wanted: _Wanted) -> None:
        offset, length, answer = wanted
        try:
            [part] = await afetch(self._registry, url, [(offset, length)], stamp, tally=self._tally)
        except VirtualChunksError as error:
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(part)
