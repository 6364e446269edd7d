"""Zarr v3: codecs, key encodings, shards, grids, hierarchies, each against zarr-python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec
from zarrstores import array_at, assert_same, group_at, memory_objects, values_of, zarr_values

from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    NotGrantedError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
)
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.zarr import ZarrParser
from virtualchunks_parsers.zarr.chunk_keys import ChunkKeys
from virtualchunks_parsers.zarr.sharding import Shards

RNG = np.random.default_rng(1)
VALUES = RNG.integers(0, 1000, (13, 10)).astype("<i4")


def write(path: Path, values: Any = VALUES, **options: Any) -> str:
    """Write one v3 array, named `a`, in a group."""
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    settings = {"chunks": (4,) * values.ndim, "compressors": None, **options}
    group.create_array("a", shape=values.shape, dtype=values.dtype, **settings)[...] = values
    return str(path)


def edit(path: Path, **members: Any) -> None:
    """Change members of the array's document."""
    document = json.loads((path / "a/zarr.json").read_text())
    (path / "a/zarr.json").write_text(json.dumps({**document, **members}))


@pytest.mark.parametrize("name", ["default", "v2"])
@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("values", [VALUES, np.array(7, "<f8")], ids=["2-D", "scalar"])
def test_every_chunk_key_encoding(name: Any, separator: Any, values: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", values, chunk_key_encoding={"name": name, "separator": separator})
    store = ZarrParser()(path)
    assert array_at(store, "a").manifest.present.all()
    assert_same(values_of(store), {"a": values})


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": [GzipCodec(level=1)]},
        {"compressors": [ZstdCodec(level=1), Crc32cCodec()]},
        {"compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")},
        {"filters": [TransposeCodec(order=(1, 0))]},
        {"serializer": BytesCodec(endian="big")},
        {"filters": [zarr.codecs.Delta(dtype="<i4")], "compressors": [zarr.codecs.Zlib(level=1)]},
    ],
    ids=["gzip", "zstd crc32c", "blosc", "transpose", "big", "delta"],
)
def test_codecs(options: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", **options)
    assert_same(values_of(ZarrParser(strict=True)(path)), {"a": VALUES})


@pytest.mark.parametrize(
    "values",
    [
        np.array(["a", "ü", "", "long" * 9], dtype=np.dtypes.StringDType()),
        np.array(["ab", "c", "", "ü"], dtype="<U3"),
        np.array([b"ab", b"c", b"", b"d"], dtype="S3"),
        np.arange(4).astype("<M8[ms]"),
        np.arange(4) % 2 == 0,
        np.array([1 + 2j, 3, 4, 5j], "<c8"),
        np.arange(4).astype("<f2"),
    ],
    ids=lambda values: str(values.dtype),
)
@pytest.mark.filterwarnings("ignore:The data type:zarr.errors.UnstableSpecificationWarning")
def test_data_types(values: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", values, chunks=(3,))
    assert_same(values_of(ZarrParser(strict=True)(path)), zarr_values(path))


SHARDS: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}),
    ("gzip", {"codecs": [BytesCodec(), GzipCodec()]}),
    ("big", {"codecs": [BytesCodec(endian="big")]}),
    ("index first", {"index_location": "start"}),
    ("index without checksum", {"index_codecs": [BytesCodec()]}),
    ("index of big-endian numbers", {"index_codecs": [BytesCodec(endian="big"), Crc32cCodec()]}),
    ("transposed within", {"codecs": [TransposeCodec(order=(1, 0)), BytesCodec()]}),
    ("shards within", {"codecs": [ShardingCodec(chunk_shape=(1, 2), codecs=[BytesCodec()])]}),
]


@pytest.mark.parametrize("options", [options for _, options in SHARDS], ids=[name for name, _ in SHARDS])
def test_shards(options: dict[str, Any], tmp_path: Path) -> None:
    serializer = ShardingCodec(chunk_shape=(2, 2), **options)
    path = write(tmp_path / "a.zarr", chunks=(6, 4), serializer=serializer, fill_value=3)
    array = zarr.open_array(path, path="a", mode="r+")
    array[2:4, 2:4] = 3
    array[6:12, 4:8] = 3
    store = ZarrParser(strict=True)(path)
    found = array_at(store, "a")
    assert found.metadata.chunks == (2, 2)
    assert len(found.manifest.sources) < found.manifest.records.size
    assert not found.manifest.present.all()
    assert_same(values_of(store), zarr_values(path))


@pytest.mark.parametrize(
    "codecs",
    [
        {"filters": [TransposeCodec(order=(1, 0))]},
        {"compressors": [GzipCodec()]},
    ],
    ids=["transposed before", "compressed after"],
)
@pytest.mark.filterwarnings("ignore:Combining a .sharding_indexed. codec")
def test_shards_that_only_their_codec_can_decode_stay_chunks(codecs: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", chunks=(4, 4), serializer=ShardingCodec(chunk_shape=(2, 2)), **codecs)
    store = ZarrParser(strict=True)(path)
    assert array_at(store, "a").metadata.chunks == (4, 4)
    assert_same(values_of(store), {"a": VALUES})


def test_a_damaged_shard_index_is_an_error_that_names_the_shard(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", chunks=(4, 4), serializer=ShardingCodec(chunk_shape=(2, 2)))
    shard = tmp_path / "a.zarr/a/c/0/0"
    data = bytearray(shard.read_bytes())
    data[-10] ^= 1
    shard.write_bytes(data)
    with pytest.raises(FormatError, match=r"index of the shard .*c/0/0"):
        ZarrParser()(path)
    shard.write_bytes(data[:20])
    with pytest.raises(FormatError, match="shorter than its index"):
        ZarrParser()(path)


def test_a_shard_index_that_points_outside_the_shard_is_refused(tmp_path: Path) -> None:
    serializer = ShardingCodec(chunk_shape=(2, 2), index_codecs=[BytesCodec()])
    path = write(tmp_path / "a.zarr", chunks=(4, 4), serializer=serializer)
    shard = tmp_path / "a.zarr/a/c/0/0"
    data = shard.read_bytes()
    for offset, length in ((0, 2**63), (2**64 - 8, 16), (len(data), 1), (0, 0)):
        entry = offset.to_bytes(8, "little") + length.to_bytes(8, "little")
        shard.write_bytes(data[:-64] + entry + data[-48:])
        with pytest.raises(FormatError, match="points outside"):
            ZarrParser()(path)


def test_shard_shapes_that_do_not_fit_are_corrupt(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", chunks=(4, 4), serializer=ShardingCodec(chunk_shape=(2, 2)))
    metadata = array_at(ZarrParser()(path), "a").metadata
    assert Shards.of(metadata) is None
    document = json.loads((tmp_path / "a.zarr/a/zarr.json").read_text())
    document["codecs"][0]["configuration"]["chunk_shape"] = [3, 2]
    edit(tmp_path / "a.zarr", codecs=document["codecs"])
    with pytest.raises(FormatError, match="do not fill"):
        ZarrParser()(path)


def test_rectilinear_grids(tmp_path: Path) -> None:
    with zarr.config.set({"array.rectilinear_chunks": True}):
        path = write(tmp_path / "a.zarr", chunks=[[3, 3, 7], [4, 6]])
        expected = zarr_values(path)
    store = ZarrParser(strict=True)(path)
    assert array_at(store, "a").metadata.grid.nominal_shape((2, 1)) == (7, 6)
    assert_same(values_of(store), expected)


def test_names_of_dimensions(tmp_path: Path) -> None:
    assert array_at(ZarrParser()(write(tmp_path / "a.zarr")), "a").metadata.dimension_names == ("a_dim_0", "a_dim_1")
    path = write(tmp_path / "b.zarr", dimension_names=["y", None])
    assert array_at(ZarrParser()(path), "a").metadata.dimension_names == ("y", "a_dim_1")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidate", [True, False])
@pytest.mark.filterwarnings("ignore:Consolidated metadata:zarr.errors.ZarrUserWarning")
def test_hierarchies(version: Any, consolidate: bool, tmp_path: Path) -> None:
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version, attributes={"title": "t"})
    root.create_array("x", shape=(3,), dtype="<i2")[...] = 1
    inner = root.create_group("g h/i", attributes={"depth": 2})
    inner.create_array("x", shape=(3,), dtype="<i2")[...] = 2
    inner.create_array("empty", shape=(0, 3), chunks=(1, 3), dtype="<i2")
    if consolidate:
        zarr.consolidate_metadata(str(tmp_path / "a.zarr"))
    path = str(tmp_path / "a.zarr")
    store = ZarrParser(strict=True)(path)
    assert_same(values_of(store), zarr_values(path))
    assert dict(store.group.attributes) == {"title": "t"}
    assert dict(group_at(store, "g h/i").attributes) == {"depth": 2}
    assert sorted(ZarrParser(group="g h/i")(path).group.arrays) == ["empty", "x"]
    dropped = ZarrParser(drop_variables=["empty", "/x"])(path).group
    assert [name for name, _ in dropped.walk_arrays()] == ["g h/i/x"]
    with pytest.raises(FormatError, match="no group 'nope'; the groups there are 'g h'"):
        ZarrParser(group="nope")(path)
    with pytest.raises(FormatError, match="'x' is no group"):
        ZarrParser(group="x")(path)


def test_an_array_that_consolidated_metadata_lacks_is_found(tmp_path: Path) -> None:
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    root.create_array("x", shape=(3,), dtype="<i2")[...] = 1
    zarr.consolidate_metadata(str(tmp_path / "a.zarr"))
    root.create_array("later", shape=(3,), dtype="<i2")[...] = 1
    assert sorted(ZarrParser()(str(tmp_path / "a.zarr")).group.arrays) == ["later", "x"]


@pytest.mark.parametrize("version", [2, 3])
def test_an_array_at_the_root_is_called_data(version: Any, tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(7,), chunks=(3,), dtype="<i2", zarr_format=version)
    array[...] = np.arange(7)
    store = ZarrParser()(str(tmp_path / "a.zarr"))
    assert_same(values_of(store), {"data": np.arange(7, dtype="<i2")})


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"data_type": "int3"}, "int3"),
        ({"codecs": [{"name": "no.such"}]}, "no.such"),
        ({"codecs": [{"name": "numcodecs.nothing"}]}, "not installed"),
        ({"codecs": [{"name": "bytes", "configuration": {"endian": "middle"}}]}, "bytes"),
        ({"chunk_key_encoding": {"name": "hilbert"}}, "hilbert"),
        ({"storage_transformers": [{"name": "x"}]}, "storage transformers"),
        ({"quantum": {"name": "x"}}, "quantum"),
        (
            {
                "chunk_grid": {
                    "name": "rectilinear",
                    "configuration": {"kind": "inline", "chunk_shapes": [[[1, 10**9]], 4]},
                }
            },
            "rectilinear axis",
        ),
    ],
)
def test_what_cannot_be_represented_is_left_out_by_name(members: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    edit(tmp_path / "a.zarr", **members)
    with pytest.warns(UnsupportedArrayWarning, match=f"'a' of .*{reason}"):
        assert not ZarrParser()(path).group.arrays
    with pytest.raises((UnsupportedFeatureError, LimitExceededError), match=reason):
        ZarrParser(strict=True)(path)


@pytest.mark.parametrize(
    "members",
    [
        {"shape": [-1, 3]},
        {"shape": "x"},
        {"shape": [True, 3]},
        {"shape": [13]},
        {"chunk_grid": None},
        {"chunk_grid": {"name": "regular"}},
        {"codecs": []},
        {"codecs": 5},
        {"fill_value": "x"},
        {"dimension_names": ["x"]},
        {"attributes": 3},
    ],
)
def test_corrupt_metadata_is_an_error_that_names_the_array(members: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    edit(tmp_path / "a.zarr", **members)
    with pytest.raises(FormatError, match=r"'a'.*a\.zarr"):
        ZarrParser()(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000])
def test_documents_that_are_none_are_corrupt(content: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/a/zarr.json").write_text(content)
    with pytest.raises(FormatError, match=r"a/zarr\.json"):
        ZarrParser()(path)


def test_a_grid_out_of_proportion_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    edit(tmp_path / "a.zarr", shape=[10**9, 10**9])
    with pytest.warns(UnsupportedArrayWarning, match="a grid of"):
        ZarrParser()(path)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(FormatError, match="no Zarr store"):
        ZarrParser()(str(tmp_path / "a.zarr"))


def test_a_store_in_object_storage_is_listed_once(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", chunks=(4, 4), serializer=ShardingCodec(chunk_shape=(2, 2)))
    registry = memory_objects("memory://", tmp_path / "a.zarr")
    store = ZarrParser()("memory:///store", registry)
    assert_same(values_of(store), {"a": VALUES})


def test_only_what_is_granted_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    outside = tmp_path / "outside"
    outside.write_bytes(b"0" * 64)
    chunk = tmp_path / "a.zarr/a/c/0/0"
    chunk.unlink()
    chunk.symlink_to(outside)
    with pytest.raises(NotGrantedError, match="symbolic link"):
        ZarrParser()(path)
    with pytest.raises(NotGrantedError):
        ZarrParser()(path, ObjectStoreRegistry())
    with pytest.raises(NotGrantedError):
        ZarrParser()(path, {str(tmp_path / "other"): None})


def test_naming_a_store_grants_what_lies_beneath_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    store = ZarrParser()(path, ObjectStoreRegistry().grant(path))
    assert_same(values_of(store), {"a": VALUES})


def test_chunk_keys_outside_the_grid_are_passed_over() -> None:
    keys = ChunkKeys(prefix="c", separator="/")
    names = ["c/0/0", "c/00/0", "c/3/0", "c/0", "c/0/0/0", "zarr.json", "c/-1/0", "c/1/9999999999999999999", "c"]
    rows, numbers = keys.numbers(names, (3, 2))
    assert (rows.tolist(), numbers.tolist()) == ([0], [0])
    assert list(ChunkKeys().every((2, 2))) == ["0.0", "0.1", "1.0", "1.1"]


class CountingStore:
    """A store in memory that counts what is asked of it."""

    def __init__(self, folder: Path) -> None:
        from obstore.store import MemoryStore

        self.inner = MemoryStore()
        self.listings = 0
        self.gets: list[str] = []
        for path in folder.rglob("*"):
            if path.is_file():
                self.inner.put(f"store/{path.relative_to(folder)}", path.read_bytes())

    def list(self, prefix: str | None = None) -> Any:
        self.listings += 1
        return self.inner.list(prefix)

    def get(self, path: str, *, options: Any = None) -> Any:
        self.gets.append(path)
        return self.inner.get(path, options=options)

    def head(self, path: str) -> Any:
        raise AssertionError(f"{path}: a listing has said it all")


@pytest.mark.parametrize("consolidate", [True, False])
@pytest.mark.filterwarnings("ignore:Consolidated metadata:zarr.errors.ZarrUserWarning")
def test_the_requests_of_a_store(consolidate: bool, tmp_path: Path) -> None:
    """One listing, each metadata document once or the consolidated one, and the index of each shard."""
    root = zarr.open_group(str(tmp_path / "s"), mode="w")
    for name in "abc":
        root.create_array(name, shape=(100,), chunks=(1,), dtype="<i4")[...] = 1
    root.create_array("d", shape=(100,), chunks=(5,), shards=(50,), dtype="<i4")[...] = 1
    if consolidate:
        zarr.consolidate_metadata(str(tmp_path / "s"))
    counting = CountingStore(tmp_path / "s")
    ZarrParser(strict=True)("s3://bucket/store", {"s3://bucket": counting})
    assert counting.listings == 1
    documents = ["store/zarr.json"] if consolidate else ["store/zarr.json", *(f"store/{x}/zarr.json" for x in "abcd")]
    assert sorted(counting.gets) == sorted([*documents, "store/d/c/0", "store/d/c/1"])
