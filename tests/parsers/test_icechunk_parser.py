"""Icechunk repositories: every kind of chunk, at every kind of version, against icechunk itself."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr
from zarr.codecs import ShardingCodec
from zarrstores import array_at, assert_same, values_of, zarr_values

from virtualchunks.errors import (
    FormatError,
    NotGrantedError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
)
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.icechunk import IcechunkParser

VALUES = np.arange(4000, dtype="<f8").reshape(40, 100)


@pytest.fixture
def virtual(tmp_path: Path) -> Path:
    """A file that virtual chunks refer to, whose name has to be quoted."""
    path = tmp_path / "files" / "a b#c.bin"
    path.parent.mkdir()
    path.write_bytes(bytes(32) + VALUES.tobytes())
    return path


@pytest.fixture
def repository(tmp_path: Path, virtual: Path) -> icechunk.Repository:
    """Two snapshots: the first on branch ``old`` and tag ``v1``."""
    prefix = virtual.parent.as_uri() + "/"
    config = icechunk.RepositoryConfig.default()
    store = icechunk.local_filesystem_store(str(virtual.parent))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, store))
    repo = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(tmp_path / "repo")),
        config,
        authorize_virtual_chunk_access={prefix: icechunk.Credentials.LocalFileSystemAccess()},
    )
    session = repo.writable_session("main")
    root = zarr.open_group(session.store, mode="a", attributes={"title": "t"})
    settings: dict[str, Any] = {"shape": (40, 100), "chunks": (10, 100), "dtype": "<f8", "compressors": None}
    root.create_array("native", **settings)[...] = VALUES
    root.create_array("g/small", shape=(3,), chunks=(1,), dtype="<i2")[:2] = [1, 2]
    root.create_array("g/scalar", shape=(), dtype="<i4")[...] = 5
    root.create_array("empty", shape=(0, 3), chunks=(1, 3), dtype="<i4")
    root.create_array("g/virtual", **settings, fill_value=3, dimension_names=["y", "x"])
    failed = session.store.set_virtual_refs_arr(
        "/g/virtual", [3, 1], [virtual.as_uri()] * 3, np.array([32, 8032, 16032], "u8"), np.array([8000] * 3, "u8")
    )  # the fourth chunk is missing
    assert not failed
    first = session.commit("first")
    repo.create_branch("old", first)
    repo.create_tag("v1", first)
    session = repo.writable_session("main")
    root = zarr.open_group(session.store, mode="a")
    root["native"][:10] = -1  # type: ignore[index]
    sharded = ShardingCodec(chunk_shape=(5, 50))
    root.create_array("sharded", **settings, serializer=sharded)[...] = VALUES
    with zarr.config.set({"array.rectilinear_chunks": True}):
        root.create_array("edges", shape=(40, 100), chunks=[[10, 25, 5], [60, 40]], dtype="<f8")[...] = VALUES
    session.commit("second")
    return repo


def parse(tmp_path: Path, **options: Any) -> Any:
    registry = ObjectStoreRegistry({tmp_path.as_uri(): None})
    return IcechunkParser(strict=True, **options)(str(tmp_path / "repo"), registry)


def test_every_kind_of_chunk_at_every_kind_of_version(tmp_path: Path, repository: icechunk.Repository) -> None:
    tip = repository.lookup_branch("main")
    versions: list[dict[str, str]] = [{}, {"branch": "main"}, {"branch": "old"}, {"tag": "v1"}, {"snapshot_id": tip}]
    with zarr.config.set({"array.rectilinear_chunks": True}):
        for version in versions:
            session = repository.readonly_session(**(version or {"branch": "main"}))
            store = parse(tmp_path, **version)
            assert_same(values_of(store), zarr_values(session.store))
            assert dict(store.group.attributes) == {"title": "t"}
            assert ("sharded" in store.group.arrays) == (version not in ({"branch": "old"}, {"tag": "v1"}))


def test_what_references_say(tmp_path: Path, repository: icechunk.Repository, virtual: Path) -> None:
    store = parse(tmp_path, tag="v1")
    found = array_at(store, "g/virtual").manifest.dict()
    assert found == {f"{i}.0": {"path": virtual.as_uri(), "offset": 32 + 8000 * i, "length": 8000} for i in range(3)}
    assert virtual.as_uri().endswith("files/a%20b%23c.bin")
    native = array_at(store, "native").manifest
    assert all(entry["path"].startswith((tmp_path / "repo/chunks").as_uri()) for entry in native.values())
    assert all("data" in entry for entry in array_at(store, "g/small").manifest.values())
    assert array_at(store, "g/virtual").metadata.dimension_names == ("y", "x")
    assert array_at(store, "native").metadata.dimension_names == ("native_dim_0", "native_dim_1")


def test_small_batches_give_the_same(tmp_path: Path, repository: icechunk.Repository) -> None:
    assert parse(tmp_path, batch_size=1).group == parse(tmp_path).group


def test_a_part_of_a_repository(tmp_path: Path, repository: icechunk.Repository) -> None:
    assert sorted(parse(tmp_path, group="g").group.arrays) == ["scalar", "small", "virtual"]
    dropped = parse(tmp_path, skip_variables=["virtual", "/g/small"]).group
    assert "virtual" not in dropped.groups["g"].arrays
    assert sorted(dropped.groups["g"].arrays) == ["scalar"]
    with pytest.raises(FormatError, match="no group 'nope'"):
        parse(tmp_path, group="nope")


def test_naming_a_repository_grants_it_and_no_more(tmp_path: Path, repository: icechunk.Repository) -> None:
    store = IcechunkParser(drop_variables=["virtual"])(str(tmp_path / "repo"))
    assert "native" in values_of(store)
    store = IcechunkParser()(str(tmp_path / "repo"))
    with pytest.raises(NotGrantedError):
        values_of(store)
    with pytest.raises(NotGrantedError):
        IcechunkParser()(str(tmp_path / "repo"), ObjectStoreRegistry())


@pytest.mark.parametrize("version", [{"branch": "nope"}, {"tag": "nope"}, {"snapshot_id": "nope"}])
def test_versions_that_are_not_there(version: dict[str, str], tmp_path: Path, repository: icechunk.Repository) -> None:
    with pytest.raises(FormatError, match="'nope'"):
        parse(tmp_path, **version)


def test_one_version_at_most() -> None:
    with pytest.raises(FormatError, match="one of branch"):
        IcechunkParser(branch="main", tag="v1")


def test_no_repository_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    with pytest.raises(FormatError, match="no Icechunk repository"):
        parse(tmp_path)


@pytest.mark.parametrize("kind", ["session", "repository", "storage"])
def test_what_the_caller_opened(kind: str, tmp_path: Path, repository: icechunk.Repository) -> None:
    sources = {
        "session": repository.readonly_session("main"),
        "repository": repository,
        "storage": icechunk.local_filesystem_storage(str(tmp_path / "repo")),
    }
    registry = ObjectStoreRegistry({tmp_path.as_uri(): None})
    store = IcechunkParser().from_storage(sources[kind], str(tmp_path / "repo"), registry)
    assert store.group == parse(tmp_path).group
    with pytest.warns(UnsupportedArrayWarning, match="native chunks"):
        partial = IcechunkParser().from_storage(sources[kind])
    assert set(partial.group.groups["g"].arrays) == {"small", "scalar", "virtual"}


def test_a_repository_in_memory_has_its_inline_chunks() -> None:
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repo.writable_session("main")
    zarr.open_group(session.store, mode="a").create_array("a", shape=(4,), dtype="<i4")[...] = 7
    store = IcechunkParser().from_storage(session)
    assert_same(values_of(store), {"a": np.full(4, 7, "<i4")})


async def test_it_works_within_a_running_loop(tmp_path: Path, repository: icechunk.Repository) -> None:
    assert parse(tmp_path).group.arrays


def test_the_parser_is_a_value() -> None:
    parser = IcechunkParser(tag="v1", drop_variables="a")
    assert pickle.loads(pickle.dumps(parser)) == parser
    assert repr(parser).startswith("IcechunkParser(branch=None, tag='v1'")
    assert not IcechunkParser.recognises(b"ICE\xf0")


def test_stores_that_icechunk_has_no_storage_for_are_refused() -> None:
    from obstore.store import MemoryStore

    with pytest.raises(UnsupportedFeatureError, match="from_storage"):
        IcechunkParser()("memory:///repo", {"memory://": MemoryStore()})


def test_a_virtual_chunk_at_an_impossible_url_is_left_out() -> None:
    config = icechunk.RepositoryConfig.default()
    store = icechunk.http_store()
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer("https://host/", store))
    repo = icechunk.Repository.create(icechunk.in_memory_storage(), config)
    session = repo.writable_session("main")
    zarr.open_group(session.store, mode="a").create_array("a", shape=(4,), chunks=(4,), dtype="<i4")
    session.store.set_virtual_ref("a/c/0", "https://host/x?sig=1", offset=0, length=16)
    with pytest.warns(UnsupportedArrayWarning, match="query"):
        assert not IcechunkParser().from_storage(session).group.arrays
