"""Decoded blocks, kept for a while: where one block is several chunks, these are asked for one after the other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import numpy.typing as npt

#: Bytes of decoded blocks that a store keeps.
KEPT_BYTES = 64 << 20


class BlockCache:
    """The blocks used last, up to a number of bytes.

    It has no lock, so that a process may fork at any time: whatever threads do to it at once, a block is found whole or
    not at all.

    Parameters
    ----------
    limit
        Bytes of blocks that are kept. A single larger block is kept alone.

    Examples
    --------
    >>> import numpy as np
    >>> cache = BlockCache(limit=8)
    >>> cache.put("a", np.zeros(1)), cache.put("b", np.ones(1))
    (None, None)
    >>> cache.get("a") is None, cache.get("b")
    (True, array([1.]))
    """

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._blocks: OrderedDict[Hashable, npt.NDArray[Any]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(block.nbytes for block in list(self._blocks.values()))

    def get(self, key: Hashable) -> npt.NDArray[Any] | None:
        """Return the block under a key, if it is still there."""
        block = self._blocks.pop(key, None)
        if block is not None:
            self._blocks[key] = block
        return block

    def put(self, key: Hashable, block: npt.NDArray[Any]) -> None:
        """Keep a block, and let go of those that were used longest ago."""
        self._blocks[key] = block
        while len(self._blocks) > 1 and self.nbytes > self._limit:
            try:
                self._blocks.popitem(last=False)
            except KeyError:  # another thread was faster
                return
