"""The store as zarr and xarray see it: keys, byte requests, listing, sizes, opening, identity."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from storedarrays import GZIP, Shelf, axes, plain
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding
from zarr.core.sync import _collect_aiterator, sync

from virtualchunks.array import ManifestArray
from virtualchunks.errors import ManifestError, UnsupportedFeatureError
from virtualchunks.grid import ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.store import ManifestStore
from virtualchunks.store_keys import ChunkKeys, clamp

READ_ONLY = "store was opened in read-only mode and does not support writing"
PROTOTYPE = default_buffer_prototype()


@pytest.mark.parametrize(
    ("keys", "index", "key"),
    [
        (ChunkKeys(), (0, 12), "c/0/12"),
        (ChunkKeys(), (), "c"),
        (ChunkKeys("default", "."), (0, 12), "c.0.12"),
        (ChunkKeys("default", "."), (), "c"),
        (ChunkKeys("v2"), (0, 12), "0.12"),
        (ChunkKeys("v2", "/"), (0, 12), "0/12"),
        (ChunkKeys("v2"), (), "0"),
    ],
)
def test_chunk_keys_are_spelled_as_zarr_spells_them(keys: ChunkKeys, index: tuple[int, ...], key: str) -> None:
    theirs = parse_chunk_key_encoding(keys.to_json())
    assert keys.key(index) == theirs.encode_chunk_key(index) == key
    assert keys.index(key, len(index)) == index


@pytest.mark.parametrize("keys", [ChunkKeys(), ChunkKeys("default", "."), ChunkKeys("v2"), ChunkKeys("v2", "/")])
@pytest.mark.parametrize(
    "number", ["01", "+1", "-1", "1.5", "1e3", "", " 1", "1_0", "١", "²", "0x1", "9" * 30, "9" * 5000, "a", "1\n"]
)
def test_what_is_no_chunk_key_is_absent(keys: ChunkKeys, number: str) -> None:
    start = "c" + keys.separator if keys.name == "default" else ""
    if number != "1.5" or keys.separator == "/":
        assert keys.index(f"{start}{number}", 1) is None
    assert keys.index(f"{start}0{keys.separator}{number}", 2) is None


@pytest.mark.parametrize("given", ["v3", {"name": "default", "separator": "-"}, {"name": "x"}])
def test_unknown_chunk_key_encodings_are_refused(given: Any) -> None:
    with pytest.raises(ManifestError):
        ManifestStore(ManifestGroup(), chunk_key_encoding=given)


requests = st.one_of(
    st.none(),
    st.builds(RangeByteRequest, st.integers(0, 15), st.integers(0, 15)),
    st.builds(OffsetByteRequest, st.integers(0, 15)),
    st.builds(SuffixByteRequest, st.integers(0, 15)),
)


@given(st.binary(max_size=12), requests)
def test_byte_requests_are_clamped_as_slices_are(value: bytes, request_: ByteRequest | None) -> None:
    if isinstance(request_, RangeByteRequest) and request_.end < request_.start:
        with pytest.raises(ValueError, match="ends before it starts"):
            clamp(request_, len(value))
        return
    start, stop = clamp(request_, len(value))
    assert 0 <= start <= stop <= len(value)
    memory = zarr.storage.MemoryStore({"a": cpu.Buffer.from_bytes(value)})
    theirs = memory.get_sync("a", byte_range=request_)
    assert theirs is not None
    assert value[start:stop] == theirs.to_bytes()


@pytest.mark.parametrize(
    "request_",
    [
        RangeByteRequest(-1, 2),
        RangeByteRequest(0, -1),
        OffsetByteRequest(-1),
        SuffixByteRequest(-2),
        RangeByteRequest(0.0, 1.5),  # type: ignore[arg-type]  # what must be refused
        SuffixByteRequest(True),
        (0, 2),
    ],
)
def test_other_byte_requests_are_refused(request_: Any) -> None:
    with pytest.raises(ValueError, match="Unexpected byte_range"):
        clamp(request_, 10)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def rectilinear() -> Iterator[None]:
    """Tell zarr to open rectilinear chunk grids."""
    with zarr.config.set({"array.rectilinear_chunks": True}):
        yield


def array_on(shelf: Shelf, shape: tuple[int, ...], chunks: tuple[int, ...], **more: Any) -> ManifestArray:
    values = np.arange(np.prod(shape, dtype=int), dtype="i4").reshape(shape)
    encoding = plain(more.pop("dtype", "<i4"), more.pop("codecs", (GZIP,)))
    return shelf.array(values, ChunkGrid.regular(shape, chunks), encoding, **more)[0]


@pytest.mark.parametrize(
    "given", ["default", "v2", {"name": "default", "separator": "."}, {"name": "v2", "separator": "/"}]
)
async def test_every_key_listed_is_there_and_has_its_size(shelf: Shelf, rectilinear: None, given: Any) -> None:
    plain_array = array_on(shelf, (5, 4), (2, 3), missing=[False, True])
    mixed = np.concatenate([plain_array, array_on(shelf, (5, 4), (2, 3), codecs=())], axis=1)
    scalar = array_on(shelf, (), ())
    inner = ManifestGroup({"mixed": mixed, "0": scalar}, {"c": ManifestGroup({"c": plain_array})})
    store = ManifestStore(
        ManifestGroup({"a": plain_array}, {"g": inner}), registry=shelf.registry, chunk_key_encoding=given
    )
    keys = await _collect_aiterator(store.list())
    assert len(set(keys)) == len(keys)
    sizes = {}
    for key in keys:
        assert await store.exists(key)
        value = await store.get(key)
        assert value is not None
        sizes[key] = len(value)
        assert await store.getsize(key) == len(value)
    for path in ("", "a", "g", "g/mixed", "g/c", "g/c/c", "g/0", "g/mixed/c", "g/mixed/0", "nothing"):
        start = f"{path}/" if path else ""
        below = [key for key in keys if key.startswith(start)]
        assert await store.getsize_prefix(path) == sum(sizes[key] for key in below)
        names = {key.removeprefix(start).split("/")[0] for key in below}
        assert sorted(await _collect_aiterator(store.list_dir(path))) == sorted(names)
    opened = zarr.open_group(store, mode="r")
    np.testing.assert_array_equal(opened["g/c/c"][...], opened["a"][...])
    assert opened["g/0"][()] == 0


async def test_keys_outside_the_grid_are_absent(shelf: Shelf) -> None:
    store = ManifestStore(ManifestGroup({"a": array_on(shelf, (4,), (2,))}), registry=shelf.registry)
    for key in (
        "a/c/2",
        "a/c/0/0",
        "a/c",
        "a/c/-1",
        "a/c/00",
        "a",
        "a/",
        "a/c/",
        "b/c/0",
        "",
        "/",
        "a//c/0",
        "a/zarr.json/",
    ):
        assert await store.get(key) is None
        assert store.get_sync(key) is None
        assert not await store.exists(key)
        with pytest.raises(FileNotFoundError):
            await store.getsize(key)


async def test_ranges_of_a_chunk_are_slices_of_it(shelf: Shelf) -> None:
    one = array_on(shelf, (6,), (6,), codecs=())
    mixed = np.concatenate([one, array_on(shelf, (6,), (6,), dtype=">i4", codecs=())])
    store = ManifestStore(ManifestGroup({"a": one, "m": mixed}), registry=shelf.registry)
    for key in ("a/c/0", "m/c/1"):
        whole = np.arange(6, dtype="<i4").tobytes()
        for start in range(27):
            for stop in range(start, 27):
                found = await store.get(key, PROTOTYPE, RangeByteRequest(start, stop))
                assert found is not None
                assert found.to_bytes() == whole[start:stop]
            for request_ in (OffsetByteRequest(start), SuffixByteRequest(start)):
                found = store.get_sync(key, byte_range=request_)
                assert found is not None
                assert found.to_bytes() == (
                    whole[start:] if isinstance(request_, OffsetByteRequest) else whole[24 - min(start, 24) :]
                )
        many = [RangeByteRequest(2, 5), None, SuffixByteRequest(3), RangeByteRequest(20, 99), RangeByteRequest(5, 5)]
        batches = [batch async for batch in store.get_ranges(key, many, prototype=PROTOTYPE)]
        found_many = {number: value.to_bytes() for batch in batches for number, value in batch if value is not None}
        assert found_many == {0: whole[2:5], 1: whole, 2: whole[-3:], 3: whole[20:], 4: b""}
        with pytest.raises(ValueError, match="ends before"):
            await store.get(key, PROTOTYPE, RangeByteRequest(5, 2))


class Counting(ManifestStore):
    """A store that keeps what was asked of it."""

    calls: list[str]

    async def get(self, key: str, *args: Any, **options: Any) -> Buffer | None:
        self.__dict__.setdefault("calls", []).append(f"get {key}")
        return await super().get(key, *args, **options)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        self.__dict__.setdefault("calls", []).append(f"list_dir {prefix}")
        async for name in super().list_dir(prefix):
            yield name


def test_opening_fifty_variables_asks_for_one_document(shelf: Shelf) -> None:
    array = array_on(shelf, (4,), (2,), dimension_names=("x",))
    store = Counting(ManifestGroup({f"v{number}": array for number in range(50)}), registry=shelf.registry)
    assert len(xr.open_zarr(store, zarr_format=3, chunks=None)) == 50
    assert store.calls == ["get zarr.json"]
    store.calls.clear()
    assert len(xr.open_zarr(store, chunks=None)) == 50
    assert sorted(store.calls) == ["get .zattrs", "get .zgroup", "get .zmetadata", "get zarr.json"]


def test_opening_gives_no_warning_and_right_values(shelf: Shelf) -> None:
    array = array_on(shelf, (5, 2), (2, 2), dimension_names=("x", "y"), attributes={"units": b"K"})
    coordinate = array_on(shelf, (5,), (5,), dimension_names=("x",))
    inner = ManifestGroup({"b": array}, attributes={"inner": np.int16(1)})
    store = ManifestStore(
        ManifestGroup({"a": array, "x": coordinate}, {"g": inner}, {"title": "t"}), registry=shelf.registry
    )
    expected = np.arange(10).reshape(5, 2)
    for found in (xr.open_zarr(store), xr.open_zarr(store, consolidated=False), xr.open_zarr(store, consolidated=True)):
        np.testing.assert_array_equal(found["a"], expected)
        assert found.attrs == {"title": "t"}
        assert found["a"].attrs == {"units": "K"}
        assert list(found.indexes) == ["x"]
    for group in (zarr.open_group(store, mode="r"), zarr.open(store), zarr.open_consolidated(store, mode="r")):
        np.testing.assert_array_equal(group["g/b"][:], expected)
    np.testing.assert_array_equal(zarr.open_array(store, path="g/b", mode="r")[:], expected)
    for options in ({}, {"consolidated": False}):
        tree = xr.open_datatree(store, engine="zarr", **options)
        np.testing.assert_array_equal(tree["g/b"], expected)
        assert tree["g"].attrs == {"inner": 1}
    np.testing.assert_array_equal(xr.open_zarr(store, group="g")["b"], expected)


def test_documents_are_json_of_the_standard(shelf: Shelf) -> None:
    array = array_on(shelf, (4,), (2,), dimension_names=("x",), attributes={"_FillValue": np.int32(3)})
    store = ManifestStore(ManifestGroup(groups={"g": ManifestGroup({"a": array})}))
    root = store.get_sync("zarr.json")
    assert root is not None
    document = json.loads(root.to_bytes())
    assert list(document["consolidated_metadata"]["metadata"]) == ["g", "g/a"]
    inner = store.get_sync("g/zarr.json")
    assert inner is not None
    assert list(json.loads(inner.to_bytes())["consolidated_metadata"]["metadata"]) == ["a"]


def test_rectilinear_arrays_need_a_setting_and_say_so(shelf: Shelf) -> None:
    ragged = np.concatenate([array_on(shelf, (n,), (n,), dimension_names=("t",)) for n in (3, 2, 3)])
    store = ManifestStore(
        ManifestGroup({"ragged": ragged, "even": array_on(shelf, (4,), (2,), dimension_names=("x",))}),
        registry=shelf.registry,
    )
    with pytest.raises(UnsupportedFeatureError, match=r"^'ragged': .*array.rectilinear_chunks.*virtual.open") as caught:
        xr.open_zarr(store)
    assert caught.value.variable == "ragged"
    np.testing.assert_array_equal(zarr.open_group(store, mode="r")["even"][:], np.arange(4))
    np.testing.assert_array_equal(zarr.open_array(store, path="even", mode="r")[:], np.arange(4))
    with zarr.config.set({"array.rectilinear_chunks": True}):
        found = xr.open_zarr(store)
        assert found["ragged"].chunks == ((3, 2, 3),)
        np.testing.assert_array_equal(found["ragged"], [0, 1, 2, 0, 1, 0, 1, 2])
    with pytest.raises(UnsupportedFeatureError):
        xr.open_zarr(store)


@given(st.data())
def test_every_grid_is_served(data: st.DataObject) -> None:
    shelf = Shelf()
    grid = ChunkGrid(tuple(data.draw(axes(size)) for size in data.draw(st.lists(st.integers(0, 5), max_size=3))))
    values = np.arange(np.prod(grid.shape, dtype=int), dtype="i2").reshape(grid.shape)
    missing = data.draw(st.lists(st.booleans(), max_size=grid.size))
    array, expected = shelf.array(values, grid, plain(">i2"), fill_value=-5, missing=missing)
    keys = data.draw(st.sampled_from(["default", "v2"]))
    store = ManifestStore(ManifestGroup({"a": array}), registry=shelf.registry, chunk_key_encoding=keys)
    with zarr.config.set({"array.rectilinear_chunks": True}):
        found = zarr.open_group(store, mode="r")["a"]
        np.testing.assert_array_equal(found[...], expected)
        assert found.fill_value == -5


def test_stores_compare_by_content(shelf: Shelf) -> None:
    group = ManifestGroup({"a": array_on(shelf, (4,), (2,))})
    store = ManifestStore(group, registry=shelf.registry)
    assert store == ManifestStore(ManifestGroup(dict(group.arrays)), registry=shelf.registry)
    assert store != ManifestStore(group)
    assert store != ManifestStore(ManifestGroup(), registry=shelf.registry)
    assert store != ManifestStore(group, registry=shelf.registry, chunk_key_encoding="v2")
    assert store != "store"
    assert store.group is group
    assert store.registry == shelf.registry
    assert store.nbytes_virtual == group.nbytes_virtual
    with pytest.raises(TypeError):
        hash(store)


def test_describing_a_store_walks_nothing(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ManifestStore(ManifestGroup({"a": array_on(shelf, (4,), (2,))}), registry=ObjectStoreRegistry())
    monkeypatch.setattr(ManifestArray, "metadata", property(lambda self: pytest.fail("walked")))
    monkeypatch.setattr(ManifestArray, "manifest", property(lambda self: pytest.fail("walked")))
    assert "1 arrays" in repr(store)
    assert str(store) == repr(store)
    assert sync(_collect_aiterator(store.list_dir(""))) == ("zarr.json", "a")


async def test_partial_values_come_in_the_order_asked_for(shelf: Shelf) -> None:
    store = ManifestStore(ManifestGroup({"a": array_on(shelf, (4,), (2,), codecs=())}), registry=shelf.registry)
    asked = [("a/c/1", RangeByteRequest(0, 4)), ("nothing", None), ("a/c/0", SuffixByteRequest(4))]
    found = await store.get_partial_values(PROTOTYPE, iter(asked))
    assert [None if value is None else value.to_bytes() for value in found] == [b"\2\0\0\0", None, b"\1\0\0\0"]
    assert await asyncio.gather(*(store.exists(key) for key, _ in asked)) == [True, False, True]
