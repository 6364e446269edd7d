"""zarr's own suite for stores, as far as it reads."""

import pickle
from typing import Any

import pytest
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.core.sync import _collect_aiterator, sync
from zarr.testing.store import StoreTests

from virtualchunks.array import ManifestArray
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.store import ManifestStore

READ_ONLY = "store was opened in read-only mode and does not support writing"
PROTOTYPE = default_buffer_prototype()


def group_of(values: dict[str, bytes]) -> ManifestGroup:
    """Return the tree that holds these chunks, under keys as the v2 encoding spells them."""
    by_array: dict[str, dict[tuple[int, ...], bytes]] = {}
    for key, value in values.items():
        path, _, last = key.rpartition("/")
        by_array.setdefault(path, {})[tuple(map(int, last.split(".")))] = value
    return _tree({path: _array(chunks) for path, chunks in by_array.items()})


def _array(chunks: dict[tuple[int, ...], bytes]) -> ManifestArray:
    shape = tuple(max(numbers) + 1 for numbers in zip(*chunks, strict=True))
    length = len(next(iter(chunks.values())))
    metadata = ArrayMetadata.build(shape=shape, chunks=[1] * len(shape), dtype=f"V{length}")
    return ManifestArray(metadata, ChunkManifest.missing(shape).with_buffers(chunks))


def _tree(arrays: dict[str, ManifestArray]) -> ManifestGroup:
    direct = {path: array for path, array in arrays.items() if "/" not in path}
    below: dict[str, dict[str, ManifestArray]] = {}
    for path, array in arrays.items():
        if "/" in path:
            first, _, rest = path.partition("/")
            below.setdefault(first, {})[rest] = array
    return ManifestGroup(direct, {name: _tree(inner) for name, inner in below.items()})


class TestConformance(StoreTests[ManifestStore, cpu.Buffer]):
    """zarr's own suite. What writes through the store is put in a tree instead, or is shown to be refused."""

    store_cls = ManifestStore
    buffer_cls = cpu.Buffer

    async def set(self, store: ManifestStore, key: str, value: Buffer) -> None:
        if key == "zarr.json":
            return
        seeds = store.__dict__.setdefault("seeds", {})
        seeds[key] = value.to_bytes()
        was_open = store._is_open
        store.__init__(group_of(seeds), chunk_key_encoding="v2")  # type: ignore[misc]  # the store itself cannot be written
        store._is_open = was_open

    async def get(self, store: ManifestStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(store.__dict__["seeds"][key])

    async def seed(self, store: ManifestStore, *keys: str) -> None:
        for key in keys:
            await self.set(store, key, self.buffer_cls.from_bytes(b"\x01\x02\x03\x04"))

    @pytest.fixture
    def store_kwargs(self) -> dict[str, Any]:
        return {"group": ManifestGroup(), "chunk_key_encoding": "v2"}

    @pytest.fixture
    def open_kwargs(self, store_kwargs: dict[str, Any]) -> dict[str, Any]:
        return store_kwargs

    def test_store_repr(self, store: ManifestStore) -> None:
        assert repr(store) == str(store) == "ManifestStore(<ManifestGroup 0 arrays, 0 groups>, registry of 0 prefixes)"

    def test_store_supports_writes(self, store: ManifestStore) -> None:
        assert not store.supports_writes
        assert not store.supports_deletes

    def test_store_supports_listing(self, store: ManifestStore) -> None:
        assert store.supports_listing

    async def test_serializable_store(self, store: ManifestStore) -> None:
        await self.seed(store, "a/0")
        again = pickle.loads(pickle.dumps(store))
        assert again == store
        assert again.read_only
        assert (await again.get("a/0")).to_bytes() == b"\x01\x02\x03\x04"

    def test_store_read_only(self, store: ManifestStore) -> None:
        assert store.read_only
        with pytest.raises(AttributeError):
            store.read_only = False  # type: ignore[misc]

    async def test_store_open_read_only(self, open_kwargs: dict[str, Any]) -> None:  # type: ignore[override]
        store = await ManifestStore.open(**open_kwargs)
        assert store._is_open
        assert store.read_only

    async def test_read_only_store_raises(self, open_kwargs: dict[str, Any]) -> None:
        store = await ManifestStore.open(**open_kwargs)
        value = self.buffer_cls.from_bytes(b"x")
        for write in (store.set("a/0", value), store.delete("a/0"), store.set_if_not_exists("a/0", value)):
            with pytest.raises(ValueError, match=READ_ONLY):
                await write
        with pytest.raises(ValueError, match=READ_ONLY):
            store.set_sync("a/0", value)
        with pytest.raises(ValueError, match=READ_ONLY):
            store.delete_sync("a/0")

    async def test_with_read_only_store(self, open_kwargs: dict[str, Any]) -> None:
        store = await ManifestStore.open(**open_kwargs)
        assert store.with_read_only(read_only=True) is store
        with pytest.raises(ValueError, match="read-only"):
            store.with_read_only(read_only=False)

    @pytest.mark.parametrize("key", ["c/0", "foo/c/0.0", "foo/0/0"])
    @pytest.mark.parametrize("byte_range", [None, RangeByteRequest(1, 4), OffsetByteRequest(1), SuffixByteRequest(1)])
    async def test_get(self, store: ManifestStore, key: str, byte_range: ByteRequest) -> None:  # type: ignore[override]
        await super().test_get(store, key, b"\x01\x02\x03\x04", byte_range)

    @pytest.mark.parametrize("key", ["c/0", "foo/c/0.0", "foo/0/0"])
    async def test_getsize(self, store: ManifestStore, key: str) -> None:  # type: ignore[override]
        await super().test_getsize(store, key, b"\x01\x02\x03\x04")

    async def test_get_many(self, store: ManifestStore) -> None:
        keys = [f"a/{number}" for number in range(10)]
        await self.seed(store, *keys)
        found = await _collect_aiterator(store._get_many([(key, PROTOTYPE, None) for key in keys]))
        assert [(key, value.to_bytes()) for key, value in found] == [(key, b"\x01\x02\x03\x04") for key in keys]

    async def test_getsize_prefix(self, store: ManifestStore) -> None:
        await self.seed(store, "c/0.0", "c/1.1", "cc/0")
        assert await store.getsize_prefix("c") == 8 + await store.getsize("c/zarr.json")

    async def test_exists(self, store: ManifestStore) -> None:
        assert not await store.exists("foo/zarr.json")
        await self.seed(store, "foo/1")
        assert await store.exists("foo/zarr.json")
        assert await store.exists("foo/1")
        assert not await store.exists("foo/0")
        assert not await store.exists("foo")

    async def test_is_empty(self, store: ManifestStore) -> None:
        assert not await store.is_empty("")
        await self.seed(store, "foo/bar/0")
        assert await store.is_empty("fo")
        assert not await store.is_empty("foo/")
        assert not await store.is_empty("foo")
        assert await store.is_empty("spam/")

    async def test_clear(self, store: ManifestStore) -> None:
        with pytest.raises(NotImplementedError):
            await store.clear()

    async def test_list(self, store: ManifestStore) -> None:
        assert await _collect_aiterator(store.list()) == ("zarr.json",)
        await self.seed(store, "foo/0", "foo/2", "bar/a/1.0")
        documents = ["bar/a/zarr.json", "bar/zarr.json", "foo/zarr.json", "zarr.json"]
        assert sorted(await _collect_aiterator(store.list())) == sorted([*documents, "foo/0", "foo/2", "bar/a/1.0"])

    async def test_list_prefix(self, store: ManifestStore) -> None:
        await self.seed(store, "foo/0", "foo/2", "foo-bar/0", "bar/a/1.0", "bar/ab/0")
        every = await _collect_aiterator(store.list())
        prefixes = [
            "",
            "f",
            "foo",
            "foo/",
            "foo/2",
            "foo/zarr",
            "bar/",
            "bar/a",
            "bar/a/",
            "bar/a/1",
            "x",
            "foo/0/",
            "/",
        ]
        for prefix in prefixes:
            found = await _collect_aiterator(store.list_prefix(prefix))
            assert sorted(found) == sorted(key for key in every if key.startswith(prefix))

    async def test_list_empty_path(self, store: ManifestStore) -> None:
        await self.seed(store, "foo/bar/0", "foo/baz/0")
        assert await _collect_aiterator(store.list()) == await _collect_aiterator(store.list_prefix(""))

    async def test_list_dir(self, store: ManifestStore) -> None:
        await self.seed(store, "foo/0", "foo/2", "bar/a/1.0")
        every = await _collect_aiterator(store.list())
        for path in ("", "foo", "bar", "bar/a", "x", "foo/0", "bar/x"):
            start = f"{path}/" if path else ""
            expected = {key.removeprefix(start).split("/")[0] for key in every if key.startswith(start)}
            for spelled in (path, f"{path}/"):
                found = await _collect_aiterator(store.list_dir(spelled))
                assert sorted(found) == sorted(expected)

    async def test_set(self, store: ManifestStore) -> None:  # type: ignore[override]
        with pytest.raises(ValueError, match=READ_ONLY):
            await store.set("zarr.json", self.buffer_cls.from_bytes(b"x"))

    test_set_not_open = test_set_many = test_set_if_not_exists = test_set_sync = None  # type: ignore[assignment]
    test_sync_async_set_get_parity = None  # type: ignore[assignment]

    def test_get_sync(self, store: ManifestStore) -> None:
        sync(self.seed(store, "a/0"))
        found = store.get_sync("a/0")
        assert found is not None
        assert found.to_bytes() == b"\x01\x02\x03\x04"

    @pytest.mark.parametrize(
        "byte_range",
        [None, RangeByteRequest(1, 4), OffsetByteRequest(1), SuffixByteRequest(1), RangeByteRequest(10, 20)],
    )
    async def test_get_sync_byte_range_parity(self, store: ManifestStore, byte_range: ByteRequest | None) -> None:
        await self.seed(store, "a/0")
        direct, awaited = store.get_sync("a/0", byte_range=byte_range), await store.get("a/0", byte_range=byte_range)
        assert direct is not None
        assert awaited is not None
        assert direct.to_bytes() == awaited.to_bytes()
