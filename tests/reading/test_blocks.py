"""The cache of decoded blocks: what it keeps, and how much."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from virtualchunks.reading.blocks import BlockCache, own


@pytest.mark.parametrize("size", [1, 7, 100])
def test_it_keeps_what_was_used_last_within_its_limit(size: int) -> None:
    cache = BlockCache(limit=1000)
    for number in range(3000):
        cache.put(number, np.full(size, number % 100, dtype="u1"))
        assert cache.nbytes <= 1000
        first = cache.get(0)
        assert first is not None
        assert first[0] == 0
    assert len(cache) >= 900 // size
    assert cache.get(2999) is not None
    assert cache.get(1) is None


def test_what_is_put_again_is_counted_once() -> None:
    cache = BlockCache(limit=100)
    for _ in range(50):
        cache.put("a", np.zeros(60, dtype="u1"))
        cache.put("b", np.zeros(30, dtype="u1"))
    assert (cache.nbytes, len(cache)) == (90, 2)


def test_a_block_beyond_the_limit_is_kept_only_where_that_is_wanted() -> None:
    strict, loose = BlockCache(limit=10), BlockCache(limit=10, at_least_one=True)
    for cache in (strict, loose):
        cache.put("a", np.zeros(5, dtype="u1"))
        cache.put("b", np.zeros(50, dtype="u1"))
    assert strict.get("b") is None
    assert strict.get("a") is not None
    assert loose.get("b") is not None
    assert loose.get("a") is None
    for cache in (strict, loose):
        again = pickle.loads(pickle.dumps(cache))
        again.put("b", np.zeros(50, dtype="u1"))
        assert (again.limit, len(again)) == (10, int(cache is loose))


def test_a_block_that_is_kept_has_its_own_bytes() -> None:
    answer = bytearray(range(100))
    kept = own(np.frombuffer(answer, dtype="u1")[10:20])
    answer[:] = bytes(100)
    assert kept.tolist() == list(range(10, 20))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1
