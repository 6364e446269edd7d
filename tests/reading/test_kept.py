"""What one opening keeps is handed on only for the same object in the same version, and let go of at its end."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from obstore.store import MemoryStore
from rangeserver import RangeServer

import virtualchunks as vc
from virtualchunks.errors import SourceChangedError
from virtualchunks.reading import kept as keeping
from virtualchunks.reading import local
from virtualchunks.reading.beginnings import beginning, kept_beginnings
from virtualchunks.reading.fetch import fetch
from virtualchunks.reading.kept import KEPT_BYTES, at_hand, kept
from virtualchunks.reading.local import LocalFile
from virtualchunks.reading.reader import BLOCK, FIRST, ObjectReader
from virtualchunks.reading.turns import letting_others, taking_turns
from virtualchunks.sources import Stamp


@pytest.fixture
def memory() -> tuple[vc.ObjectStoreRegistry, MemoryStore]:
    store = MemoryStore()
    store.put("a", bytes(range(256)) * 16)
    return vc.ObjectStoreRegistry({"memory://": store}), store


def test_a_reader_s_answers_are_not_asked_for_again(range_server: RangeServer) -> None:
    range_server.objects["a"] = data = os.urandom(3 * FIRST)
    registry, url = vc.ObjectStoreRegistry({range_server.root: None}), range_server.url("a")
    with kept_beginnings():
        with ObjectReader(registry, url) as reader:
            reader.prefetch([(2 * FIRST, 100), (3 * FIRST - 100, 100)])
            stamp = reader.stamp
        asked = len(range_server.requests)
        wanted = [(2 * FIRST + 5, 10), (7, 9), (3 * FIRST - 50, 50), (FIRST - 1, 1)]
        found = fetch(registry, url, wanted, stamp)
        assert [bytes(part) for part in found] == [data[at : at + length] for at, length in wanted]
        assert len(range_server.requests) == asked
        wanted.insert(1, (FIRST + BLOCK, 3))
        found = fetch(registry, url, wanted, stamp)
        assert [bytes(part) for part in found] == [data[at : at + length] for at, length in wanted]
        assert [request.range for request in range_server.requests[asked:]] == [(FIRST + BLOCK, FIRST + BLOCK + 3)]
    fetch(registry, url, [(0, 1)], stamp)
    assert len(range_server.requests) == asked + 2


def test_another_version_is_not_handed_on(memory: tuple[vc.ObjectStoreRegistry, MemoryStore]) -> None:
    registry, store = memory
    with kept_beginnings():
        beginning(registry.locate("memory:///a"), 64)
        assert bytes(fetch(registry, "memory:///a", [(0, 2)])[0]) == b"\0\1"
        store.put("a", b"new!")
        assert bytes(fetch(registry, "memory:///a", [(0, 2)])[0]) == b"\0\1"  # of what is being opened
        with pytest.raises(SourceChangedError):
            fetch(registry, "memory:///a", [(0, 2)], Stamp(size=4096, etag='"another"'))
    assert bytes(fetch(registry, "memory:///a", [(0, 2)])[0]) == b"ne"


def test_so_much_is_kept_and_no_longer_than_the_block(memory: tuple[vc.ObjectStoreRegistry, MemoryStore]) -> None:
    registry, store = memory
    store.put("large", bytes(KEPT_BYTES + 1))
    with kept() as outer:
        beginning(registry.locate("memory:///large"), KEPT_BYTES + 1)
        beginning(registry.locate("memory:///a"), 16)
        with kept() as inner:
            assert inner is outer is at_hand()
        assert outer._nbytes == 16
        assert len(keeping._WATCHING) == 2
    assert at_hand() is None
    assert not keeping._WATCHING
    assert not outer._answers


def test_one_descriptor_of_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    registry = vc.ObjectStoreRegistry().grant(path)
    location, opened = registry.locate(path.as_uri()), []
    known = local._open
    monkeypatch.setattr(local, "_open", lambda path: opened.append(path) or known(path))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with kept_beginnings():
        with LocalFile(location) as file:
            assert file.read(0, 2) == b"01"
            stamp = file.stamp
        assert [bytes(part) for part in fetch(registry, path.as_uri(), [(2, 2), (5, 1)], stamp)] == [b"23", b"5"]
        assert len(opened) == 1
        path.write_bytes(b"another")
        with pytest.raises(SourceChangedError):
            fetch(registry, path.as_uri(), [(2, 2)], stamp)
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
    with LocalFile(location) as file:
        assert file.read(0, 2) == b"an"
    assert len(opened) == 2


def test_a_file_put_in_its_place_is_seen(tmp_path: Path) -> None:
    """The descriptor that is kept is of the file that was opened; what has its name now is another."""
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"0123")
    other.write_bytes(b"4567")
    location = vc.ObjectStoreRegistry().grant(path).locate(path.as_uri())
    with kept_beginnings():
        LocalFile(location).close()
        os.replace(other, path)
        with LocalFile(location) as file, pytest.raises(SourceChangedError):
            file.check()


def test_turns() -> None:
    lock: Any = Lock()
    with taking_turns(lock):
        assert lock.locked()
        with letting_others():
            assert not lock.locked()
            with letting_others():
                assert not lock.locked()
        assert lock.locked()
        with pytest.raises(KeyError), letting_others():
            raise KeyError
        assert lock.locked()
    assert not lock.locked()
    with taking_turns(None), letting_others():
        pass


class Waiting:
    """A store in memory that says, at each request, whether a turn is held meanwhile."""

    def __init__(self, lock: Any) -> None:
        self.store, self.lock = MemoryStore(), lock
        self.held: list[bool] = []

    def get(self, path: str, *, options: Any = None) -> Any:
        self.held.append(self.lock.locked())
        return self.store.get(path, options=options)


def test_nobody_keeps_a_turn_while_batches_are_fetched() -> None:
    lock: Any = Lock()
    store = Waiting(lock)
    store.store.put("a", os.urandom(4 * FIRST))
    registry = vc.ObjectStoreRegistry({"memory://": store})
    far = [(number * FIRST + 5, 100) for number in range(1, 4)]
    with taking_turns(lock):
        with ObjectReader(registry, "memory:///a") as reader:
            reader.prefetch(far)
            reader.fetch([(at + 9 * BLOCK, length) for at, length in far])
        fetch(registry, "memory:///a", far)
        assert lock.locked()
    assert len(store.held) > 6
    assert not any(store.held)
