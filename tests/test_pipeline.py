"""Zarr nodes that read in bulk: every way to index, beside h5py and NumPy, and what they ask of a store."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
import zarr
from rangeserver import RangeServer
from storedarrays import GZIP, Shelf, plain

import virtualchunks as vc
from virtualchunks.deferred import DeferredManifest
from virtualchunks.errors import DecodeError, NotGrantedError, SourceChangedError
from virtualchunks.grid import ChunkGrid
from virtualchunks.pipeline import BulkGroup, BulkPipeline

VALUES = np.random.default_rng(7).integers(-1000, 1000, (23, 17)).astype("i4")
VECTOR = np.linspace(0, 1, 13)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"chunks": (4, 5)},
    "packed": {"chunks": (4, 5), "compression": "gzip", "shuffle": True},
    "big-endian": {"chunks": (4, 5), "dtype": ">i4"},
    "one chunk": {},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bulk") / "a.h5"
    with h5py.File(path, "w") as file:
        for name, options in KINDS.items():
            file.create_dataset(name, data=VALUES, **options)
        file["below/vector"] = VECTOR
        file["scalar"] = np.float32(2.5)
        file["none"] = np.zeros((0, 3), "i2")
        sparse = file.create_dataset("sparse", (23, 17), "i4", chunks=(4, 5), fillvalue=-7)
        sparse[0:4, 5:10] = VALUES[0:4, 5:10]
    return path


@pytest.fixture(scope="module")
def store(path: Path) -> vc.ManifestStore:
    return vc.open_store(path)


def node(store: vc.ManifestStore, name: str) -> zarr.Array[Any]:
    array = store.to_zarr(name)
    assert isinstance(array, zarr.Array)
    return array


BASIC: list[Any] = [
    ...,
    (slice(None), slice(None)),
    (slice(3, 20), slice(2, 16)),
    (slice(1, 22, 5), slice(0, 17, 3)),
    (5, slice(None)),
    (slice(None), -1),
    (22, 16),
    (slice(9, 9), slice(None)),
    (slice(20, 99), 3),
    np.int64(4),
    (Ellipsis, slice(1, 2)),
]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("selection", BASIC, ids=map(str, range(len(BASIC))))
def test_basic_selections_are_those_of_h5py(store: vc.ManifestStore, path: Path, name: str, selection: Any) -> None:
    with h5py.File(path) as file:
        expected = file[name][selection]
    found = node(store, name)[selection]
    np.testing.assert_array_equal(found, expected)
    assert np.shape(found) == np.shape(expected)


ORTHOGONAL: list[Any] = [
    ([0, 22, 7], slice(None)),
    ([3, 4, 5], [16, 0, 1]),
    (slice(2, 19, 4), [1, 15]),
    (np.arange(23) % 3 == 0, slice(None)),
    (np.arange(23) > 17, np.arange(17) % 2 == 1),
    (4, [1, 3, 16]),
    ([-1, -23], slice(None, None, 2)),
]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("selection", ORTHOGONAL, ids=map(str, range(len(ORTHOGONAL))))
def test_orthogonal_selections_are_those_of_numpy(store: vc.ManifestStore, name: str, selection: Any) -> None:
    expected = VALUES
    for axis in (1, 0):
        expected = expected[(slice(None),) * axis + (selection[axis],)]
    np.testing.assert_array_equal(node(store, name).oindex[selection], expected)


@pytest.mark.parametrize("name", KINDS)
def test_coordinates_masks_and_blocks_are_those_of_numpy(store: vc.ManifestStore, name: str) -> None:
    array = node(store, name)
    rows, columns = np.array([[5, 0], [22, 5]]), np.array([[1, 16], [0, 1]])
    np.testing.assert_array_equal(array.vindex[rows, columns], VALUES[rows, columns])
    np.testing.assert_array_equal(array.get_coordinate_selection(([3], [4])), VALUES[[3], [4]])
    np.testing.assert_array_equal(array.vindex[VALUES > 500], VALUES[VALUES > 500])
    if name != "one chunk":
        np.testing.assert_array_equal(array.blocks[1:3, 2], VALUES[4:12, 10:15])
        np.testing.assert_array_equal(array.blocks[-1, -1], VALUES[20:, 15:])


def test_scalars_nothing_and_missing_chunks(store: vc.ManifestStore, path: Path) -> None:
    with h5py.File(path) as file:
        np.testing.assert_array_equal(node(store, "sparse")[...], file["sparse"][...])
        np.testing.assert_array_equal(node(store, "sparse")[3:9, 4:12], file["sparse"][3:9, 4:12])
    assert node(store, "scalar")[()] == np.float32(2.5)
    assert node(store, "none")[...].shape == (0, 3)
    assert node(store, "packed")[3, 4] == VALUES[3, 4]


@pytest.mark.parametrize("selection", [23, (0, 17), (0, 0, 0), (slice(None), -18)], ids=str)
def test_what_lies_outside_is_refused_as_by_zarr(store: vc.ManifestStore, selection: Any) -> None:
    with pytest.raises(IndexError):
        node(store, "packed")[selection]


def test_fortran_order(store: vc.ManifestStore) -> None:
    array = node(store, "packed")
    with zarr.config.set({"array.order": "F"}):
        ordered = node(store, "packed")[2:20]
    np.testing.assert_array_equal(ordered, VALUES[2:20])
    assert ordered.flags.f_contiguous
    assert array[2:20].flags.c_contiguous


def test_every_way_to_an_array_reads_in_bulk(store: vc.ManifestStore) -> None:
    group = store.to_zarr()
    assert isinstance(group, zarr.Group)
    assert isinstance(group["below"], zarr.Group)
    ways = [
        group["packed"],
        group["below/vector"],
        group["below"]["vector"],
        group.get("packed"),
        dict(group.arrays())["packed"],
        dict(group.members(max_depth=None))["below/vector"],
        dict(dict(group.groups())["below"].arrays())["vector"],
        store.to_zarr("below")["vector"],
        store.to_zarr("below/vector"),
    ]
    for array in ways:
        assert isinstance(array, zarr.Array)
        assert isinstance(array.async_array.codec_pipeline, BulkPipeline)
        np.testing.assert_array_equal(array[...], VECTOR if array.ndim == 1 else VALUES)
    assert isinstance(group._async_group, BulkGroup)
    again = pickle.loads(pickle.dumps(group))["packed"]
    assert isinstance(again.async_array.codec_pipeline, BulkPipeline)
    np.testing.assert_array_equal(again[...], VALUES)


def test_nothing_of_zarr_is_configured_anew(store: vc.ManifestStore) -> None:
    other = zarr.open_array(store, path="packed", mode="r")
    assert type(other.async_array.codec_pipeline).__module__.startswith("zarr.")
    assert "virtualchunks" not in zarr.config.get("codec_pipeline.path")


def test_it_cannot_be_written(store: vc.ManifestStore) -> None:
    with pytest.raises(ValueError, match="read-only"):
        node(store, "packed")[...] = 0
    with pytest.raises(FileNotFoundError):
        store.to_zarr("nothing")


def test_a_heterogeneous_array_is_not_transcoded_first() -> None:
    shelf, values = Shelf(), np.arange(24, dtype="i4").reshape(6, 4)
    little, _ = shelf.array(values[:4], ChunkGrid.regular((4, 4), (2, 4)), plain("<i4", [GZIP]))
    big, _ = shelf.array(values[4:], ChunkGrid.regular((2, 4), (2, 4)), plain(">i4"))
    store = vc.ManifestStore(vc.ManifestGroup({"v": np.concatenate([little, big])}), registry=shelf.registry)
    np.testing.assert_array_equal(node(store, "v")[1:6, 1:], values[1:6, 1:])
    np.testing.assert_array_equal(node(store, "v")[...], zarr.open_array(store, path="v", mode="r")[...])


class Partitions:
    """Partitions of a manifest, loaded when they are asked for."""

    origin, size = "memory:///references", 8

    def __init__(self, whole: vc.ChunkManifest) -> None:
        self.whole = whole
        self.asked: list[int] = []

    def load(self, numbers: Any) -> list[vc.ChunkManifest]:
        self.asked += numbers
        flat = self.whole.records.reshape(-1)
        parts = [flat[number * self.size : (number + 1) * self.size] for number in numbers]
        return [vc.ChunkManifest.from_records(part, self.whole.sources) for part in parts]


def test_references_that_are_not_loaded_yet_are_loaded_in_part(store: vc.ManifestStore) -> None:
    array = store.group["packed"]
    loader = Partitions(array.manifest)
    later = DeferredManifest(array.manifest.shape_chunk_grid, loader)
    group = vc.ManifestGroup({"v": vc.ManifestArray(array.metadata, later)})
    found = node(vc.ManifestStore(group, registry=store.registry), "v")
    np.testing.assert_array_equal(found[1:7, 6:], VALUES[1:7, 6:])
    assert loader.asked == [0]
    np.testing.assert_array_equal(found.oindex[[22, 0], :], VALUES[[22, 0]])
    np.testing.assert_array_equal(found[...], VALUES)


def remote(server: RangeServer, **options: Any) -> vc.ManifestStore:
    """A store of 50 neighbouring chunks behind a server."""
    server.objects["a.bin"] = np.arange(50 * 100, dtype="<i4").tobytes()
    size = len(server.objects["a.bin"])
    stamp = vc.Stamp(size=size)
    records = np.zeros((50, 1), dtype=vc.manifest.RECORD)
    records["offset"][:, 0], records["length"] = np.arange(50) * 400, 400
    manifest = vc.ChunkManifest.from_records(records, vc.SourceTable.single(server.url("a.bin"), stamp))
    metadata = vc.ArrayMetadata.build(shape=(50, 100), chunks=(1, 100), dtype="<i4", dimension_names=("y", "x"))
    group = vc.ManifestGroup({"v": vc.ManifestArray(metadata, manifest)})
    return vc.ManifestStore(group, registry={server.root: None}, **options)


def test_a_selection_is_one_request(range_server: RangeServer) -> None:
    store = remote(range_server)
    expected = np.arange(5000, dtype="i4").reshape(50, 100)
    np.testing.assert_array_equal(node(store, "v")[...], expected)
    assert len(range_server.requests) == 1
    np.testing.assert_array_equal(node(store, "v").oindex[[0, 9, 30]], expected[[0, 9, 30]])
    assert len(range_server.requests) == 2
    assert store.stats().chunks == 53


@pytest.mark.parametrize("door", ["read", "zarr", "xarray"])
def test_windows_that_overlap_read_what_is_new(range_server: RangeServer, door: str) -> None:
    store = remote(range_server, cache_bytes=1 << 20)
    doors: dict[str, Any] = {
        "read": lambda rows: store.read("v", rows),
        "zarr": node(store, "v").__getitem__,
        "xarray": lambda rows: dataset["v"][rows].values,
    }
    dataset = store.to_xarray()
    expected = np.arange(5000, dtype="i4").reshape(50, 100)
    for start in range(0, 40, 5):
        window = slice(start, start + 10)
        np.testing.assert_array_equal(doors[door](window), expected[window])
    stats = store.stats()
    assert stats.bytes == 45 * 400
    assert (stats.chunks, stats.cache_hits) == (80, 35)
    store.stats(reset=True)
    doors[door](slice(0, 45))
    assert (store.stats().requests, store.stats().cache_hits) == (0, 45)


def test_a_cache_is_bounded_off_by_default_and_empty_after_pickling(range_server: RangeServer) -> None:
    plain_store = remote(range_server)
    assert plain_store.cache is None
    store = plain_store.with_cache(10 * 400)
    assert store.cache is not None
    store.read("v")
    assert 0 < store.cache.nbytes <= 10 * 400
    again = pickle.loads(pickle.dumps(store))
    assert (again.cache.limit, again.cache.nbytes) == (10 * 400, 0)
    before = store.read("v", slice(45, 50)).copy()
    store.read("v", slice(45, 50))[...] = 0
    np.testing.assert_array_equal(store.read("v", slice(45, 50)), before)


def test_a_cache_is_not_read_with_another_registry(range_server: RangeServer) -> None:
    store = remote(range_server, cache_bytes=1 << 20)
    store.read("v")
    dataset = xr.open_dataset(store, engine="virtualchunks", registry={})  # type: ignore[arg-type]
    with pytest.raises(NotGrantedError):
        dataset["v"].load()


def test_threads_share_a_cache(range_server: RangeServer) -> None:
    store = remote(range_server, cache_bytes=20 * 400)
    expected = np.arange(5000, dtype="i4").reshape(50, 100)

    async def read() -> list[npt.NDArray[Any]]:
        windows = [slice(start % 40, start % 40 + 10) for start in range(0, 400, 7)]
        found = await asyncio.gather(*(asyncio.to_thread(store.read, "v", window) for window in windows))
        for window, values in zip(windows, found, strict=True):
            np.testing.assert_array_equal(values, expected[window])
        return found

    asyncio.run(read())
    assert store.cache is not None
    assert store.cache.nbytes <= 20 * 400


def test_errors_name_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=VALUES, chunks=(4, 5), compression="gzip")
    store = vc.open_store(path)
    array = node(store, "v")
    record = store.group["v"].manifest.records[2, 1]
    stamp = path.stat()
    data = bytearray(path.read_bytes())
    data[int(record["offset"]) : int(record["offset"]) + 8] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(SourceChangedError):
        array[...]
    bare = vc.SourceTable.of_urls([path.as_uri()])
    manifest = vc.ChunkManifest.from_records(store.group["v"].manifest.records, bare)
    group = vc.ManifestGroup({"v": vc.ManifestArray(store.group["v"].metadata, manifest)})
    unstamped = vc.ManifestStore(group, registry={str(tmp_path): None})
    with pytest.raises(DecodeError) as caught:
        node(unstamped, "v")[...]
    assert (caught.value.variable, caught.value.chunk, caught.value.url) == ("v", (2, 1), path.as_uri())
    assert stamp.st_size == len(data)
