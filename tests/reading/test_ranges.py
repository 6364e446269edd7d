"""Merged requests hold what was wanted, once, and no more than the limits allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtualchunks.errors import ManifestError
from virtualchunks.reading.ranges import Coalescing, plan

DATA = bytes(range(256)) * 8
wanted = st.lists(st.tuples(st.integers(0, 1900), st.integers(0, 100)), max_size=30)


@settings(max_examples=200)
@given(wanted, st.integers(0, 60), st.integers(1, 400))
def test_slices_of_the_answers_are_slices_of_the_object(ranges, gap, size):
    offsets, lengths = [at for at, _ in ranges], [length for _, length in ranges]
    found = plan(offsets, lengths, Coalescing(gap=gap, size=size))
    answers = [memoryview(DATA)[a:b] for a, b in zip(found.starts.tolist(), found.stops.tolist(), strict=True)]
    assert [bytes(part) for part in found.slices(answers)] == [DATA[at : at + length] for at, length in ranges]
    assert np.all(np.diff(found.starts) > 0)
    assert np.all(found.stops - found.starts < size + 100)
    asked = np.zeros(len(DATA), bool)
    for at, length in ranges:
        asked[at : at + length] = True
    read = np.zeros(len(DATA), bool)
    for start, stop in zip(found.starts, found.stops, strict=True):
        assert asked[start]
        assert asked[stop - 1]
        read[start:stop] = True
    runs = np.flatnonzero(np.diff(np.concatenate([[0], (read & ~asked).astype(int), [0]])))
    assert all(b - a <= gap for a, b in zip(runs[::2], runs[1::2], strict=True)), "nothing is read across a wider gap"
    assert len(found) <= len(set(ranges))


def test_duplicates_and_neighbours_are_one_request():
    found = plan(np.array([10, 0, 10], dtype="<u8"), np.array([5, 10, 5], dtype="<u4"), Coalescing(gap=0))
    assert (len(found), found.nbytes) == (1, 15)
    assert len(plan([0, 11], [10, 5], Coalescing(gap=0))) == 2
    assert len(plan([0, 11], [10, 5], Coalescing(gap=1))) == 1
    assert len(plan([], [])) == len(plan([5], [0])) == 0


def test_growth_is_bounded_by_the_size():
    found = plan(np.arange(1000) * 10, np.full(1000, 10), Coalescing(size=1000))
    assert (len(found), found.nbytes) == (10, 10_000)


@pytest.mark.parametrize(
    ("offsets", "lengths", "reason"),
    [
        ([-1], [1], "from 0"),
        ([0], [-1], "from 0"),
        ([2**63], [1], "from 0"),
        ([2**63 - 1], [1], "beyond"),
        ([2**62], [2**62], "beyond"),
        ([1.5], [1], "float64"),
        ([True], [1], "bool"),
        (["1"], [1], "whole numbers"),
        ([2**64], [1], "object|float|from 0"),
        ([1, 2], [1], "one of each"),
    ],
)
def test_what_is_no_range_is_refused(offsets, lengths, reason):
    with pytest.raises(ManifestError, match=reason):
        plan(offsets, lengths)
