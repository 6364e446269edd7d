"""The reader is a file like any other, in few requests, over one version of the object."""

from __future__ import annotations

import io
import os
import random
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from obstore.store import MemoryStore

from virtualchunks.errors import (
    ManifestError,
    NotGrantedError,
    ReadError,
    ShortReadError,
    SourceChangedError,
    SourceUnavailableError,
)
from virtualchunks.reading import reader as module
from virtualchunks.reading.reader import BLOCK, FIRST, READ_AHEAD, ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import as_url

DATA = random.Random(3).randbytes(3_000_001)


@pytest.fixture(params=["local", "memory", "http"])
def opened(request, tmp_path, range_server):
    """A function that opens a reader over some bytes."""

    def over(data, name="a.nc"):
        (tmp_path / name).write_bytes(data)
        memory = MemoryStore()
        memory.put(name, data)
        range_server.objects[name] = data
        registry = ObjectStoreRegistry({tmp_path: None, "memory://": memory, range_server.root: None})
        urls = {"local": as_url(tmp_path / name), "memory": f"memory:///{name}", "http": range_server.url(name)}
        return ObjectReader(registry, urls[request.param])

    return over


def test_it_behaves_as_a_file_does(opened):
    draw = random.Random(4)
    mine, theirs = opened(DATA), io.BytesIO(DATA)
    with mine:
        assert (mine.readable(), mine.seekable(), mine.writable(), mine.size) == (True, True, False, len(DATA))
        for _ in range(200):
            action = draw.choice(["seek", "read", "readinto", "end", "here"])
            if action == "seek":
                at = draw.randrange(len(DATA) + 1_000)
                assert mine.seek(at) == theirs.seek(at)
            elif action == "end":
                at = -draw.randrange(len(DATA))
                assert mine.seek(at, io.SEEK_END) == theirs.seek(at, io.SEEK_END)
            elif action == "here":
                at = draw.randrange(100_000)
                assert mine.seek(at, io.SEEK_CUR) == theirs.seek(at, io.SEEK_CUR)
            elif action == "read":
                length = draw.randrange(200_000)
                assert mine.read(length) == theirs.read(length)
            else:
                one, other = bytearray(5_000), bytearray(5_000)
                assert mine.readinto(one) == theirs.readinto(other)
                assert one == other
            assert mine.tell() == theirs.tell()
        mine.seek(1_000_000)
        assert mine.read() == DATA[1_000_000:]
        assert mine.read() == b""
    with pytest.raises(ValueError, match="closed"):
        mine.read_at(0, 1)


def test_read_at_is_exact(opened):
    with opened(DATA) as reader:
        for at, length in (
            (0, 0),
            (0, 1),
            (BLOCK - 1, 2),
            (FIRST - 1, 2),
            (2_999_999, 2),
            (0, len(DATA)),
            (1_500_000, 700_000),
        ):
            assert reader.read_at(at, length) == DATA[at : at + length]
            assert reader.tell() == 0
        with pytest.raises(ShortReadError, match="it has 3000001 bytes"):
            reader.read_at(3_000_000, 2)
        with pytest.raises(ManifestError, match="negative"):
            reader.read_at(-1, 2)
        with pytest.raises(ValueError, match="seek"):
            reader.seek(-1)


def test_an_empty_object_has_no_bytes(opened):
    with opened(b"") as reader:
        assert (reader.size, reader.read(), reader.read_at(0, 0)) == (0, b"", b"")
        with pytest.raises(ShortReadError, match="it is empty"):
            reader.read_at(0, 1)


def test_many_threads_read_the_right_bytes(opened):
    with opened(DATA) as reader, ThreadPoolExecutor(8) as pool:
        draw = random.Random(5)
        wanted = [(draw.randrange(2_900_000), draw.randrange(100_000)) for _ in range(100)]
        assert list(pool.map(lambda r: reader.read_at(*r), wanted)) == [DATA[a : a + n] for a, n in wanted]


def test_h5py_reads_through_it(opened, tmp_path):
    values = np.random.default_rng(6).normal(size=(50, 40, 30))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("v", data=values, chunks=(5, 40, 30), compression="gzip")
        file.create_dataset("g/w", data=values[0])
    with opened((tmp_path / "v.h5").read_bytes()) as reader, h5py.File(reader, "r") as file:
        np.testing.assert_array_equal(file["v"][:], values)
        np.testing.assert_array_equal(file["g/w"][:], values[0])


@pytest.fixture
def http(range_server):
    registry = ObjectStoreRegistry({range_server.root: None})

    def over(data):
        range_server.objects["a"] = data
        return ObjectReader(registry, range_server.url("a"))

    return range_server, over


def test_a_small_object_costs_one_request(http):
    server, over = http
    with over(DATA[:FIRST]) as reader:
        assert reader.read() == DATA[:FIRST]
        assert (reader.requests, reader.bytes_read) == (1, FIRST)
    assert [(request.method, request.range) for request in server.requests] == [("GET", (0, FIRST))]


def test_sequential_reading_reads_ahead_and_scattered_reading_does_not(http):
    server, over = http
    data = DATA * 3
    with over(data) as reader:
        while reader.read(10_000):
            pass
        assert reader.requests <= 4
        assert reader.bytes_read == len(data)
        assert max(stop - start for _, _, (start, stop), _, _ in server.requests) <= READ_AHEAD
    with over(data) as reader:
        for at in (8_000_000, 5_000_000, 2_000_000):
            reader.read_at(at, 100)
        assert reader.requests == 4
        assert reader.bytes_read <= FIRST + 3 * 2 * BLOCK
        reader.read_at(5_000_100, 50)
        assert reader.requests == 4, "the block was kept"
        assert all("if-match" in request.headers for request in server.requests[-3:])


def test_prefetched_ranges_cost_nothing_more(http):
    _, over = http
    with over(DATA) as reader:
        reader.prefetch([(1_100_000, 100), (1_200_000, 100), (2_900_000, 500_000), (9_000_000, 1), (0, 10)])
        asked = reader.requests
        assert asked <= 4
        for at, length in ((1_100_000, 100), (1_200_000, 100), (2_900_000, 100_001), (0, 10)):
            assert reader.read_at(at, length) == DATA[at : at + length]
        assert reader.requests == asked


def test_ranges_that_are_fetched_are_exact_and_come_at_once(http):
    _, over = http
    wanted = [(2_900_000, 100), (1_200_000, 50), (1_200_040, 30), (2_900_500, 10)]
    with over(DATA) as reader:
        assert not reader.is_local
        found = reader.fetch(wanted)
        assert [(at, len(data)) for at, data in found] == [(1_200_000, 70), (2_900_000, 510)]
        assert all(DATA[at : at + len(data)] == data for at, data in found)
        assert (reader.requests, reader.bytes_read) == (3, FIRST + 580)
        assert reader.fetch([]) == []


def test_the_cache_is_bounded(http, monkeypatch):
    _, over = http
    monkeypatch.setattr(module, "CACHE", 16 * BLOCK)
    with over(DATA) as reader:
        for at in range(0, 3_000_000, 50_000):
            assert reader.read_at(at, 1) == DATA[at : at + 1]
            assert len(reader._source._blocks) <= 16
        assert reader.read_at(0, 2_000_000) == DATA[:2_000_000]


def test_an_object_that_changes_while_it_is_parsed_is_refused(http):
    server, over = http
    with over(DATA) as reader:
        server.objects["a"] = DATA[::-1]
        with pytest.raises(SourceChangedError, match=r"changed while it was being parsed: etag was .*, is ") as caught:
            reader.read_at(2_500_000, 10)
        assert reader.url in str(caught.value)
        server.objects["a"] = DATA
        server.fail("other etag")
        with pytest.raises(SourceChangedError, match="another"):
            reader.read_at(2_500_000, 10)


def test_a_local_file_that_changes_while_it_is_parsed_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123")
    registry = ObjectStoreRegistry({tmp_path: None})

    def rewritten():
        with ObjectReader(registry, as_url(path)) as reader:
            assert reader.read() == b"0123"
            path.write_bytes(b"9876")

    def replaced():
        with ObjectReader(registry, as_url(path)) as reader:
            reader.check()
            (tmp_path / "b").write_bytes(b"0123")
            (tmp_path / "b").rename(path)

    def removed():
        with ObjectReader(registry, as_url(path)) as reader:
            reader.check()
            path.unlink()

    def cut():
        path.write_bytes(b"0123")
        with ObjectReader(registry, as_url(path)) as reader:
            os.truncate(path, 2)
            reader.read_at(0, 4)

    for change in (rewritten, replaced, removed):
        if change is replaced:
            path.write_bytes(b"0123")
        with pytest.raises(SourceChangedError, match=r"changed|removed"):
            change()
    with pytest.raises(ShortReadError, match="got 2 of 4"):
        cut()


def test_what_cannot_be_opened_says_why(tmp_path, range_server):
    registry = ObjectStoreRegistry({tmp_path: None, range_server.root: None, "memory://": MemoryStore()})
    for url, reason in {
        as_url(tmp_path): "folder",
        as_url(tmp_path / "gone"): "no such file",
        range_server.url("gone"): "no such object",
        "memory:///gone": "no such object",
    }.items():
        with pytest.raises(SourceUnavailableError, match=reason):
            ObjectReader(registry, url)
    with pytest.raises(NotGrantedError):
        ObjectReader(ObjectStoreRegistry(), range_server.url("a"))


def read_all(over):
    try:
        with over(DATA) as reader:
            return reader.read()
    except ReadError as error:
        return error


def test_faults_are_errors_or_the_right_bytes(http):
    server, over = http
    for number in range(4):
        for fault in (
            "404",
            "403",
            "200 for a range",
            "fewer bytes",
            "fewer bytes, unsaid",
            "another range",
            "412",
            "416",
        ):
            server.forget()
            server.fail(fault, after=number, times=1)
            outcome = read_all(over)
            assert outcome == DATA or server.url("a") in str(outcome)
            assert outcome == DATA or not isinstance(outcome, FileNotFoundError | KeyError)
