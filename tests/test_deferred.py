"""Manifests that are loaded by partition, beside the same manifest loaded at once."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtualchunks.deferred import DeferredManifest
from virtualchunks.errors import FormatError
from virtualchunks.manifest import RECORD, ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.sources import SourceTable


class Loader:
    """Partitions of a manifest that is there as a whole; `asked` says which were loaded, and when together."""

    def __init__(self, whole: ChunkManifest, size: int, *, shared: bool = True) -> None:
        self.whole, self.size, self.shared = whole, size, shared
        self.origin = "memory:///references"
        self.asked: list[list[int]] = []
        self.fails = False

    def load(self, numbers: Sequence[int]) -> list[ChunkManifest]:
        self.asked.append(list(numbers))
        if self.fails:
            raise FormatError("damaged")
        flat = self.whole.records.reshape(-1)
        parts = [flat[number * self.size : (number + 1) * self.size] for number in numbers]
        tables = [self.whole.sources if self.shared else SourceTable.concat([self.whole.sources]) for _ in parts]
        return [ChunkManifest.from_records(part, table) for part, table in zip(parts, tables, strict=True)]


def manifest(shape: tuple[int, ...], seed: int = 0) -> ChunkManifest:
    rng = np.random.default_rng(seed)
    records = np.zeros(shape, dtype=RECORD)
    records["source"] = rng.integers(-1, 3, shape)
    records["offset"], records["length"] = rng.integers(0, 1000, shape), rng.integers(1, 9, shape)
    urls = [f"s3://bucket/{name}.nc" for name in "abc"]
    return ChunkManifest.from_records(records, SourceTable.of_urls(urls))


def deferred(whole: ChunkManifest, size: int) -> tuple[DeferredManifest, Loader]:
    loader = Loader(whole, size)
    return DeferredManifest(whole.shape_chunk_grid, loader), loader


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_records_and_selections_are_those_of_the_whole(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 5), max_size=3)))
    whole = manifest(shape, data.draw(st.integers(0, 9)))
    made, loader = deferred(whole, data.draw(st.integers(1, 20)))
    for _ in range(data.draw(st.integers(0, 3))):
        drawn = [data.draw(st.lists(st.integers(0, n - 1), max_size=4)) if n else [] for n in shape]
        indices = [np.array(numbers, dtype=np.int64) for numbers in drawn]
        assert made.select(indices) == whole.select(indices)
    if whole.records.size:
        index = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
        table, row, length, offset = made.record(index)
        expected = whole.get_entry(index)
        found = None if row < 0 else {"path": table.url(row), "offset": offset, "length": length}
        assert found == expected
    assert made == whole
    assert whole == made
    assert made.dict() == whole.dict()
    asked = [number for numbers in loader.asked for number in numbers]
    assert len(asked) == len(set(asked))


def test_what_looks_at_no_records_loads_none() -> None:
    made, loader = deferred(manifest((4, 5)), 6)
    assert made.shape_chunk_grid == (4, 5)
    assert made.ndim_chunk_grid == 2
    assert made.nbytes == 0
    assert made.is_deferred
    assert not made.names_encodings
    assert made.origin == "memory:///references"
    assert repr(made) == "ChunkManifest<shape=(4, 5), 0 of 4 partitions loaded from memory:///references>"
    assert loader.asked == []
    made.record((0, 0))
    assert "1 of 4" in repr(made)
    assert made.nbytes >= 6 * 16
    made.select([np.array([0, 3]), np.array([0])])
    assert loader.asked == [[0], [2]]
    assert len(made) == len(manifest((4, 5)))
    assert loader.asked == [[0], [2], [1, 3]]
    assert not made.is_deferred
    assert repr(made) == repr(manifest((4, 5)))
    assert made.nbytes == manifest((4, 5)).nbytes


def test_pickles_are_loaded_manifests() -> None:
    made, _ = deferred(manifest((4, 5)), 6)
    copied = pickle.loads(pickle.dumps(made))
    assert type(copied) is ChunkManifest
    assert copied == manifest((4, 5))


def test_an_error_is_raised_to_all_who_wait_and_tried_again_later() -> None:
    made, loader = deferred(manifest((8,)), 4)
    loader.fails = True
    for action in (lambda: made.record((0,)), lambda: made.records, lambda: len(made)):
        with pytest.raises(FormatError, match="damaged"):
            action()
    assert made.is_deferred
    loader.fails = False
    assert made == manifest((8,))


def test_threads_share_what_is_loaded() -> None:
    made, loader = deferred(manifest((64,)), 4)
    barrier = threading.Barrier(8)

    def read(start: int) -> list[int]:
        barrier.wait()
        found = [made.record((number,))[3] for number in range(start, 64, 8)]
        return [*found, len(made)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(8)))
    offsets = manifest((64,)).records["offset"].tolist()
    assert [row[:-1] for row in found] == [offsets[start::8] for start in range(8)]
    asked = [number for numbers in loader.asked for number in numbers]
    assert sorted(asked) == list(range(16))


def test_watchers_hear_of_the_urls_when_all_are_known() -> None:
    made, _ = deferred(manifest((8,)), 4)
    heard: list[list[str]] = []
    made.when_loaded(lambda urls: heard.append(sorted(urls)))
    made.record((0,))
    assert heard == []
    made.used_rows()
    made.when_loaded(lambda urls: heard.append(sorted(urls)))
    assert heard == [[f"s3://bucket/{name}.nc" for name in "abc"]] * 2


def test_the_same_source_in_partitions_loaded_apart_is_kept_once() -> None:
    loader = Loader(manifest((9,)), 3, shared=False)
    made = DeferredManifest((9,), loader)
    for number in (0, 4, 8):
        made.record((number,))
    assert len(made.sources) <= 3
    assert made == manifest((9,))


def test_chunks_that_are_all_missing_take_no_memory() -> None:
    made, _ = deferred(ChunkManifest.missing((1000, 1000)), 10**6)
    assert len(made) == 0
    assert made.nbytes < 1000


def test_arrays_know_without_loading_that_their_chunks_decode_alike() -> None:
    import virtualchunks as vc

    made, loader = deferred(manifest((8,)), 4)
    array = vc.ManifestArray(ArrayMetadata.build(shape=(16,), chunks=(2,), dtype="<i2"), made)
    assert not array.is_heterogeneous
    assert "16" in array._repr_html_()
    assert loader.asked == []
    assert len(array[4:].manifest.records) == 6
    assert loader.asked == [[0, 1]]
