"""What is planned is what a server sees; what is asked for chunk by chunk is merged."""

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import zarr
from rangeserver import RangeServer
from storedarrays import GZIP, Shelf, plain

import virtualchunks as vc
from virtualchunks.errors import FormatError, NotGrantedError, ReadError, ShortReadError
from virtualchunks.grid import ChunkGrid
from virtualchunks.manifest import RECORD
from virtualchunks.reading.batching import Batcher
from virtualchunks.reading.stamps import Stamp
from virtualchunks.reading.tally import ReadStats, Tally

COUNT, LENGTH = 200, 64
VALUES = np.arange(COUNT * LENGTH // 4, dtype="<i4").reshape(COUNT, -1)


def store_of(
    server: RangeServer, *, rows: int = COUNT, spread: int = 0, missing: int | None = None, **options: Any
) -> vc.ManifestStore:
    """Serve a row of chunks, `spread` bytes apart."""
    data = b"".join(row.tobytes() + bytes(spread) for row in VALUES[:rows])
    server.objects["a.bin"] = data
    records = np.zeros((rows, 1), dtype=RECORD)
    records["length"], records["offset"][:, 0] = LENGTH, np.arange(rows) * (LENGTH + spread)
    if missing is not None:
        records["source"][missing] = -1
    metadata = vc.ArrayMetadata.build(shape=VALUES[:rows].shape, chunks=(1, LENGTH // 4), dtype="<i4", **options)
    sources = vc.SourceTable.single(server.url("a.bin"), Stamp(size=len(data)))
    array = vc.ManifestArray(metadata, vc.ChunkManifest.from_records(records, sources))
    held = vc.ManifestArray(
        vc.ArrayMetadata.build(shape=(2,), chunks=(1,), dtype="|u1"), vc.ChunkManifest.of_buffers([b"\1", b"\2"], (2,))
    )
    return vc.ManifestStore(vc.ManifestGroup({"v": array, "held": held}), registry={server.root: None})


@pytest.mark.parametrize("spread", [0, 200_000, 300_000])
@pytest.mark.parametrize("selection", [None, slice(3, 9), slice(None, None, 50), [5, 5, 6], [3]])
def test_the_plan_is_what_the_server_sees(range_server: RangeServer, spread: int, selection: Any) -> None:
    store = store_of(range_server, rows=60, spread=spread, missing=7, fill_value=-1)
    plan = store.plan("v", selection)
    assert range_server.requests == []
    expected = VALUES[:60].copy()
    expected[7] = -1
    key = slice(None) if selection is None else selection
    np.testing.assert_array_equal(store.read("v", selection), expected[key])
    seen = range_server.requests
    fetched = sum(request.range[1] - request.range[0] for request in seen if request.range)
    assert (plan.requests, plan.bytes_fetched, plan.objects) == (len(seen), fetched, len({r.key for r in seen}))
    touched = set(np.arange(60)[key].tolist())
    assert (plan.virtual, plan.missing, plan.inline) == (len(touched - {7}), len(touched & {7}), 0)
    assert plan.bytes_needed == plan.virtual * LENGTH
    assert store.stats() == ReadStats(requests=len(seen), bytes=fetched, chunks=plan.virtual)
    store.stats(reset=True)
    assert store.stats() == ReadStats()


def test_what_is_in_memory_or_missing_costs_nothing(range_server: RangeServer) -> None:
    store = store_of(range_server)
    plan = store.plan("held")
    assert (plan.requests, plan.bytes_fetched, plan.bytes_needed, plan.inline) == (0, 0, 0, 2)
    assert store.read("held").tolist() == [1, 2]
    assert store.stats() == ReadStats()
    with pytest.raises(FormatError, match="no array 'w'; known in its group are 'v', 'held'"):
        store.plan("w")
    bare = vc.ManifestStore(store.group)
    with pytest.raises(NotGrantedError) as caught:
        bare.plan("v")
    assert caught.value.variable == "v"


def test_zarr_reads_neighbouring_chunks_in_few_requests(range_server: RangeServer) -> None:
    store = store_of(range_server)
    array = zarr.open_array(store, path="v", mode="r")
    np.testing.assert_array_equal(array[...], VALUES)
    most = math.ceil(COUNT / zarr.config.get("async.concurrency")) + 5
    assert len(range_server.requests) <= most
    assert store.stats() == ReadStats(requests=len(range_server.requests), bytes=VALUES.nbytes, chunks=COUNT)
    range_server.forget()
    store.stats(reset=True)
    np.testing.assert_array_equal(store.get_sync("v/c/3/0").to_bytes(), VALUES[3].tobytes())  # type: ignore[union-attr]
    assert store.stats() == ReadStats(requests=1, bytes=LENGTH, chunks=1)


def test_a_bad_chunk_fails_those_alone_who_asked_for_it(range_server: RangeServer) -> None:
    range_server.objects["a"] = bytes(range(100))
    batcher = Batcher(vc.ObjectStoreRegistry({range_server.root: None}), Tally())
    url = range_server.url("a")

    async def ask() -> list[Any]:
        ranges = [(0, 10), (95, 10), (20, 10), (95, 10), (50, 0)]
        asked = [batcher.get(url, None, *entry) for entry in ranges]
        asked.append(batcher.get(range_server.url("none"), None, 0, 5))
        asked.append(batcher.get("s3://elsewhere/a", None, 0, 5))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, bad, second, worse, empty, gone, refused = asyncio.run(ask())
    assert (bytes(first), bytes(second), bytes(empty)) == (bytes(range(10)), bytes(range(20, 30)), b"")
    assert isinstance(bad, ShortReadError)
    assert isinstance(worse, ShortReadError)
    assert bad is not worse
    assert isinstance(gone, ReadError)
    assert isinstance(refused, NotGrantedError)


def test_who_gives_up_disturbs_nobody(range_server: RangeServer) -> None:
    range_server.objects["a"] = bytes(range(100))
    batcher = Batcher(vc.ObjectStoreRegistry({range_server.root: None}), Tally())
    url = range_server.url("a")

    async def ask() -> tuple[bytes, bytes]:
        tasks = [asyncio.create_task(batcher.get(url, None, start, 5)) for start in (0, 10, 20, 30)]
        tasks[0].cancel()  # before it asked
        await asyncio.sleep(0)
        tasks[1].cancel()  # after
        later = asyncio.create_task(batcher.get(url, None, 40, 5))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        later.cancel()  # under way
        found = await asyncio.gather(*tasks, later, return_exceptions=True)
        assert [isinstance(entry, asyncio.CancelledError) for entry in found] == [True, True, False, False, True]
        return bytes(found[2]), bytes(found[3])  # type: ignore[arg-type]

    assert asyncio.run(ask()) == (bytes(range(20, 25)), bytes(range(30, 35)))
    assert not batcher._batches
    assert not batcher._tasks


def test_loops_of_many_threads_share_a_store(range_server: RangeServer) -> None:
    store = store_of(range_server)
    barrier = threading.Barrier(4)

    async def read() -> list[bytes]:
        found = await asyncio.gather(*(store.get(f"v/c/{row}/0") for row in range(20)))
        return [value.to_bytes() for value in found if value is not None]

    def run(_: int) -> list[bytes]:
        barrier.wait()
        return asyncio.run(read())

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(run, range(4)):
            assert found == [row.tobytes() for row in VALUES[:20]]
    assert len(range_server.requests) == 4
    assert store.stats().chunks == 80


def test_an_error_through_the_store_names_its_chunk(range_server: RangeServer) -> None:
    store = store_of(range_server)
    array = store.group["v"]
    records = array.manifest.records.copy()
    records["offset"][4] = len(range_server.objects["a.bin"])
    broken = vc.ManifestArray(array.metadata, vc.ChunkManifest.from_records(records, array.manifest.sources))
    served = vc.ManifestStore(vc.ManifestGroup({"v": broken}), registry=store.registry)

    async def read() -> list[Any]:
        return await asyncio.gather(*(served.get(f"v/c/{row}/0") for row in range(8)), return_exceptions=True)

    found = asyncio.run(read())
    [error] = [entry for entry in found if isinstance(entry, BaseException)]
    assert isinstance(error, ShortReadError)
    assert (error.variable, error.chunk) == ("v", (4, 0))


def test_a_block_that_is_kept_is_a_hit() -> None:
    shelf = Shelf()
    values = np.arange(4 * 8 * 8, dtype="i4").reshape(4, 8, 8)
    coarse, _ = shelf.array(values[:2], ChunkGrid.regular((2, 8, 8), (1, 8, 8)), plain("<i4", [GZIP]))
    fine, _ = shelf.array(values[2:], ChunkGrid.regular((2, 8, 8), (1, 4, 4)), plain("<i4", [GZIP]))
    store = vc.ManifestStore(vc.ManifestGroup({"v": np.concatenate([coarse, fine])}), registry=shelf.registry)
    array = zarr.open_array(store, path="v", mode="r")
    np.testing.assert_array_equal(array[0, 0, :4], values[0, 0, :4])
    np.testing.assert_array_equal(array[0, 0, 4:], values[0, 0, 4:])
    assert (store.stats().requests, store.stats().chunks, store.stats().cache_hits) == (1, 2, 1)


def test_naming_a_store_looks_at_no_array(range_server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    [array, _] = store_of(range_server).group.arrays.values()
    store = vc.ManifestStore(vc.ManifestGroup({f"v{number}": array for number in range(300)}))
    looked: list[str] = []
    for name in ("manifest", "metadata", "shape", "dtype"):
        monkeypatch.setattr(vc.ManifestArray, name, property(lambda self, name=name: looked.append(name)))
    monkeypatch.setattr("virtualchunks.store_keys.ServedArray.__post_init__", lambda self: looked.append("served"))

    async def listed() -> list[str]:
        return [name async for name in store.list_dir("")]

    assert "300 arrays" in repr(store)
    assert "300 arrays" in str(store)
    assert len(store.group) == 300
    assert len(asyncio.run(listed())) == 301
    assert store.stats() == ReadStats()
    assert looked == []
