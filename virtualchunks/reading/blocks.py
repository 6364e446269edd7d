"""Decoded blocks, kept for a while: for chunks that share one, and for windows of an array that overlap."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from functools import partial
from typing import Any

import numpy.typing as npt

#: Bytes of decoded blocks that a store keeps where one block is several chunks.
KEPT_BYTES = 64 << 20


class BlockCache:
    """The blocks used last, up to a number of bytes.

    It has no lock, so that a process may fork at any time: whatever threads do to it at once, a block is found whole or
    not at all. A pickle of it is empty.

    Parameters
    ----------
    limit
        Bytes of blocks that are kept.
    at_least_one
        Whether a single larger block is kept alone.

    Examples
    --------
    >>> import numpy as np
    >>> cache = BlockCache(limit=8)
    >>> cache.put("a", np.zeros(1)), cache.put("b", np.ones(1))
    (None, None)
    >>> cache.get("a") is None, cache.get("b")
    (True, array([1.]))
    """

    def __init__(self, limit: int = KEPT_BYTES, *, at_least_one: bool = False) -> None:
        self.limit = limit
        self._fewest = int(at_least_one)
        self._blocks: OrderedDict[Hashable, npt.NDArray[Any]] = OrderedDict()
        self._added = 0

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(block.nbytes for block in list(self._blocks.values()))

    def __len__(self) -> int:
        return len(self._blocks)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), at_least_one=bool(self._fewest)), (self.limit,)

    def get(self, key: Hashable) -> npt.NDArray[Any] | None:
        """Return the block under a key, if it is still there."""
        block = self._blocks.pop(key, None)
        if block is not None:
            self._blocks[key] = block
        return block

    def put(self, key: Hashable, block: npt.NDArray[Any]) -> None:
        """Keep a block, and let go of those that were used longest ago."""
        if block.nbytes > self.limit and not self._fewest:
            return
        self._blocks[key] = block
        self._added += block.nbytes  # at least what is kept; counted anew where that would be too much
        if self._added > self.limit:
            self._shrink()

    def _shrink(self) -> None:
        """Let go of blocks until some room is left, so that not every block that comes counts them all."""
        kept = self.nbytes
        goal = self.limit - self.limit // 16 if kept > self.limit else self.limit
        while kept > goal and len(self._blocks) > self._fewest:
            try:
                kept -= self._blocks.popitem(last=False)[1].nbytes
            except KeyError:  # another thread was faster
                break
        self._added = kept


def own(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a block that holds its own bytes, not a part of the answer to a request, and cannot be written to."""
    kept = block if block.flags.owndata and block.base is None else block.copy()
    kept.flags.writeable = False
    return kept
