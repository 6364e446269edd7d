"""Listing: every object beneath a folder once, with the stamp that reading compares with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from obstore.store import MemoryStore
from rangeserver import RangeServer

from virtualchunks.errors import LimitExceededError, NotGrantedError, SourceUnavailableError
from virtualchunks.reading import listing
from virtualchunks.reading.listing import can_list, child_url, list_objects, look_up, read_whole
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry


def folder(path: Path) -> ObjectStoreRegistry:
    for name in ("a", "b c/d#e", "b c/f/g", ".hidden"):
        file = path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return ObjectStoreRegistry({(path / "data").as_uri(): None})


def test_a_local_folder_is_walked(tmp_path: Path) -> None:
    registry = folder(tmp_path)
    url = (tmp_path / "data").as_uri()
    found = list_objects(registry, url)
    assert list(found) == [".hidden", "a", "b c/d#e", "b c/f/g"]
    for name, stamp in found.items():
        with ObjectReader(registry, child_url(url, name)) as reader:
            assert reader.stamp == stamp
            assert reader.read_at(0, reader.size) == name.encode()


def test_links_are_followed_to_where_the_registry_reaches(tmp_path: Path) -> None:
    registry = folder(tmp_path)
    url = (tmp_path / "data").as_uri()
    (tmp_path / "data/inside").symlink_to(tmp_path / "data/b c")
    (tmp_path / "data/dangling").symlink_to(tmp_path / "data/nothing")
    assert "inside/f/g" in list_objects(registry, url)
    (tmp_path / "data/out").symlink_to("/etc")
    with pytest.raises(NotGrantedError):
        list_objects(registry, url)


def test_a_link_back_to_itself_ends(tmp_path: Path) -> None:
    registry = folder(tmp_path)
    (tmp_path / "data/b c/back").symlink_to(tmp_path / "data/b c")
    with pytest.raises(LimitExceededError, match="deep"):
        list_objects(registry, (tmp_path / "data").as_uri())


def test_a_store_is_listed_beneath_the_folder_only() -> None:
    store = MemoryStore()
    for key in ("pub/a", "pub/b/c", "public/d", "pub"):
        store.put(key, key.encode())
    registry = ObjectStoreRegistry({"memory://": store})
    found = list_objects(registry, "memory:///pub")
    assert {name: stamp.size for name, stamp in found.items()} == {"a": 5, "b/c": 7}
    assert list(list_objects(registry, "memory:///")) == ["pub", "pub/a", "pub/b/c", "public/d"]


def test_there_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = folder(tmp_path)
    monkeypatch.setattr(listing, "MOST_OBJECTS", 3)
    with pytest.raises(LimitExceededError, match="more than 3 objects"):
        list_objects(registry, (tmp_path / "data").as_uri())


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    folder(tmp_path)
    registry = ObjectStoreRegistry({tmp_path.as_uri(): None})
    with pytest.raises(SourceUnavailableError, match="nowhere"):
        list_objects(registry, (tmp_path / "nowhere").as_uri())
    with pytest.raises(NotGrantedError):
        list_objects(ObjectStoreRegistry(), (tmp_path / "data").as_uri())


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_that_may_not_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    registry = folder(tmp_path)
    (tmp_path / "data/b c").chmod(0)
    with pytest.raises(SourceUnavailableError):
        list_objects(registry, (tmp_path / "data").as_uri())


def test_objects_are_looked_up_by_name(range_server: RangeServer, tmp_path: Path) -> None:
    range_server.objects.update({"a": b"12", "b": b"345"})
    registry = ObjectStoreRegistry({range_server.root: None})
    assert not can_list(registry, range_server.url("d"))
    found = look_up(registry, [range_server.url(name) for name in ("a", "missing", "b")])
    assert [stamp and stamp.size for stamp in found] == [2, None, 3]
    range_server.fail("403")
    with pytest.raises(SourceUnavailableError):
        look_up(registry, [range_server.url("a")])
    registry = folder(tmp_path)
    url = (tmp_path / "data").as_uri()
    assert can_list(registry, url)
    found = look_up(registry, [f"{url}/a", f"{url}/nothing", f"{url}/b%20c"])
    assert [stamp and stamp.size for stamp in found] == [1, None, None]


def test_small_objects_are_read_whole(range_server: RangeServer, tmp_path: Path) -> None:
    range_server.objects["a"] = b"12"
    registry = ObjectStoreRegistry({range_server.root: None})
    assert read_whole(registry, range_server.url("a"), 2) == b"12"
    assert read_whole(registry, range_server.url("b"), 2) is None
    with pytest.raises(LimitExceededError, match="2 bytes; the most"):
        read_whole(registry, range_server.url("a"), 1)
    range_server.fail("403")
    with pytest.raises(SourceUnavailableError):
        read_whole(registry, range_server.url("a"), 2)
    registry = folder(tmp_path)
    assert read_whole(registry, (tmp_path / "data/a").as_uri(), 9) == b"a"
    assert read_whole(registry, (tmp_path / "data/zzz").as_uri(), 9) is None
