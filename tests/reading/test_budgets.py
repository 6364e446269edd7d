"""What reading may cost: requests, bytes and calls, counted by a server and by a store."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from rangeserver import RangeServer
from zarr.storage import WrapperStore

import virtualchunks as vc
from virtualchunks.manifest import RECORD

COUNT = 10_000


def store_of(server: RangeServer, length: int, *, rows: int = COUNT, gap: int = 0) -> vc.ManifestStore:
    """A row of chunks of one object, a few bytes apart, as the chunks of HDF5 files are."""
    records = np.zeros((rows, 1), dtype=RECORD)
    records["length"], records["offset"][:, 0] = length, 4096 + np.arange(rows) * (length + gap)
    table = vc.SourceTable.single(server.url("a.h5"), vc.Stamp(size=4096 + rows * (length + gap)))
    metadata = vc.ArrayMetadata.build(
        shape=(rows, length // 4), chunks=(1, length // 4), dtype="<i4", dimension_names=("y", "x")
    )
    array = vc.ManifestArray(metadata, vc.ChunkManifest.from_records(records, table))
    return vc.ManifestStore(vc.ManifestGroup({"v": array}), registry={server.root: None})


def content(server: RangeServer, length: int, rows: int) -> np.ndarray[Any, Any]:
    """Put the object there; return its values."""
    values = np.arange(rows * length // 4, dtype="<i4").reshape(rows, -1)
    server.objects["a.h5"] = bytes(4096) + values.tobytes()
    return values


def fetched(server: RangeServer) -> int:
    return sum(request.range[1] - request.range[0] for request in server.requests if request.range)


@pytest.mark.parametrize("door", ["read", "to_xarray", "to_zarr"])
def test_ten_thousand_small_chunks_take_four_requests(range_server: RangeServer, door: str) -> None:
    store = store_of(range_server, 4096)
    values = content(range_server, 4096, COUNT)
    doors: dict[str, Any] = {
        "read": lambda: store.read("v"),
        "to_xarray": lambda: store.to_xarray()["v"].values,
        "to_zarr": lambda: store.to_zarr("v")[...],
    }
    np.testing.assert_array_equal(doors[door](), values)
    assert len(range_server.requests) <= 4
    assert {request.method for request in range_server.requests} == {"GET"}
    assert fetched(range_server) <= 1.05 * values.nbytes


def test_ten_thousand_larger_chunks_take_forty_five_requests(range_server: RangeServer) -> None:
    plan = store_of(range_server, 65_536).plan("v")
    assert plan.requests <= 45
    assert plan.bytes_fetched <= 1.05 * plan.bytes_needed
    scaled = store_of(range_server, 65_536, rows=600)
    values = content(range_server, 65_536, 600)
    np.testing.assert_array_equal(scaled.read("v"), values)
    assert len(range_server.requests) == scaled.plan("v").requests <= 4


@pytest.mark.parametrize("length", [65_536, 1 << 20])
def test_one_chunk_in_a_hundred_brings_little_else(range_server: RangeServer, length: int) -> None:
    every = np.arange(0, COUNT, 100)
    plan = store_of(range_server, length).plan("v", every)
    assert plan.bytes_needed == len(every) * length
    assert plan.bytes_fetched <= 1.3 * plan.bytes_needed


def test_a_stride_is_what_the_server_is_asked_for(range_server: RangeServer) -> None:
    store = store_of(range_server, 16_384, rows=600)
    values = content(range_server, 16_384, 600)
    np.testing.assert_array_equal(store.to_xarray()["v"][::100].values, values[::100])
    assert fetched(range_server) <= 1.3 * 6 * 16_384


class Counting(WrapperStore[vc.ManifestStore]):
    """A store that counts what it is asked."""

    def __init__(self, store: vc.ManifestStore) -> None:
        super().__init__(store)
        self.calls: Counter[str] = Counter()

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        self.calls["version 2" if key.startswith(".z") else "get"] += 1
        return await super().get(key, *args, **options)

    async def exists(self, key: str) -> bool:
        self.calls["exists"] += 1
        return await super().exists(key)

    async def list_dir(self, prefix: str) -> Any:
        self.calls["list_dir"] += 1
        async for name in super().list_dir(prefix):
            yield name

    async def list_prefix(self, prefix: str) -> Any:
        self.calls["list_prefix"] += 1
        async for name in super().list_prefix(prefix):
            yield name


@pytest.mark.parametrize("options", [{}, {"zarr_format": 3}, {"consolidated": True}], ids=str)
def test_five_hundred_variables_open_with_three_calls(options: dict[str, Any]) -> None:
    metadata = vc.ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="<f4", dimension_names=("x",))
    entries: Any = {str(i): {"path": "s3://bucket/a.nc", "offset": i * 8, "length": 8} for i in range(2)}
    arrays = {f"v{i:03d}": vc.ManifestArray(metadata, vc.ChunkManifest(entries)) for i in range(500)}
    store = Counting(vc.ManifestStore(vc.ManifestGroup(arrays)))
    dataset = xr.open_zarr(store, chunks=None, **options)
    assert len(dataset) == 500
    looked = store.calls.pop("version 2", 0)  # zarr looks for these three where it is not told the format
    assert looked <= (0 if "zarr_format" in options else 3)
    assert store.calls.total() <= 3, store.calls
    group = zarr.open_group(Counting(vc.ManifestStore(vc.ManifestGroup(arrays))), mode="r", zarr_format=3)
    assert len(dict(group.arrays())) == 500
    assert group.store.calls.total() <= 3  # type: ignore[attr-defined]
