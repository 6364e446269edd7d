"""Every byte that is fetched is the right one, or an error names the object: local, in memory, over HTTP."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
from datetime import timedelta

import pytest
from obstore.store import HTTPStore, LocalStore, MemoryStore

from virtualchunks.errors import (
    ManifestError,
    NotGrantedError,
    ReadError,
    ShortReadError,
    SourceChangedError,
    SourceUnavailableError,
)
from virtualchunks.reading.fetch import afetch, fetch
from virtualchunks.reading.local import LocalFile
from virtualchunks.reading.ranges import Coalescing
from virtualchunks.reading.requests import head
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import Stamp
from virtualchunks.urls import as_url

DATA = random.Random(1).randbytes(10_000)
RANGES = [(9_990, 10), (0, 100), (100, 50), (5_000, 1), (20, 10), (20, 10), (7, 0), (0, 10_000)]
QUICK = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=5),
    "backoff": {"init_backoff": timedelta(milliseconds=5), "max_backoff": timedelta(milliseconds=10), "base": 2},
}


def fetch_async(*args, **options):
    return asyncio.run(afetch(*args, **options))


@pytest.fixture(params=["sync", "async"])
def read(request):
    return fetch if request.param == "sync" else fetch_async


@pytest.fixture
def http(range_server):
    range_server.objects["d/ü #1.nc"] = DATA
    registry = ObjectStoreRegistry({range_server.root: {"retry_config": QUICK}})
    return range_server, registry, range_server.url("d/ü #1.nc")


@pytest.fixture(params=["local", "memory", "http", "local store, wrapped", "http store of a folder"])
def source(request, tmp_path, range_server):
    """A registry and the URL of an object that holds DATA, for every way of reading."""
    name = "a b%#ü.nc"
    (tmp_path / name).write_bytes(DATA)
    memory = MemoryStore()
    memory.put(name, DATA)
    range_server.objects[f"d/{name}"] = DATA

    class Wrapped:
        def __init__(self, store):
            self.store = store

        def get(self, path, *, options=None):
            return self.store.get(path, options=options)

    url = as_url(tmp_path / name)
    remote = range_server.url(f"d/{name}")
    return {
        "local": (ObjectStoreRegistry({tmp_path: None}), url),
        "memory": (ObjectStoreRegistry({"memory://": memory}), url.replace(as_url(tmp_path), "memory://")),
        "http": (ObjectStoreRegistry().grant(remote), remote),
        "local store, wrapped": (ObjectStoreRegistry({"file://": Wrapped(LocalStore())}), url),
        "http store of a folder": (
            ObjectStoreRegistry(
                {range_server.root: HTTPStore(range_server.root + "/d", client_options={"allow_http": True})}
            ),
            remote,
        ),
    }[request.param]


@pytest.mark.parametrize(
    "limits", [None, Coalescing(gap=0, size=64, concurrency=3), Coalescing(gap=10_000, size=100_000)]
)
def test_every_store_gives_the_bytes_that_were_asked_for(source, read, limits):
    parts = read(*source, RANGES, coalescing=limits)
    assert [bytes(part) for part in parts] == [DATA[at : at + length] for at, length in RANGES]
    assert read(*source, []) == []
    assert read(*source, [(5, 0)]) == [b""]


def test_random_ranges_agree_with_slicing(source, read):
    draw = random.Random(2)
    ranges = [(at := draw.randrange(10_000), draw.randrange(10_001 - at)) for _ in range(30)]
    limits = Coalescing(gap=draw.randrange(300), size=2_000)
    assert [bytes(part) for part in read(*source, ranges, coalescing=limits)] == [DATA[a : a + n] for a, n in ranges]


@pytest.mark.parametrize("ranges", [[(9_990, 11)], [(10_000, 1)], [(20_000, 5)], [(0, 10), (9_000, 5_000)]])
def test_ranges_beyond_the_end_are_short_reads(source, read, ranges):
    with pytest.raises(ShortReadError) as caught:
        read(*source, ranges, coalescing=Coalescing(gap=0))
    assert source[1] in str(caught.value)
    with pytest.raises(ShortReadError, match="10000 when parsed"):
        read(*source, ranges, Stamp(size=10_000))


def test_missing_objects_are_unavailable_and_never_absent(source, read):
    registry, url = source
    gone = url.rsplit("/", 1)[0] + "/gone.nc"
    with pytest.raises((SourceUnavailableError, NotGrantedError)) as caught:
        read(registry.grant(gone) if "memory" not in gone else registry, gone, [(0, 1)])
    assert not isinstance(caught.value, FileNotFoundError | KeyError)
    assert isinstance(caught.value, ReadError)
    assert "gone.nc" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).url == gone


def test_what_is_not_granted_is_not_read(source, read):
    with pytest.raises(NotGrantedError):
        read(ObjectStoreRegistry(), source[1], [(0, 1)])


@pytest.mark.parametrize("ranges", [[(-1, 2)], [(0, -1)], [(0.5, 1)], [(0, 1, 2)], [3], [(2**63, 1)]])
def test_what_is_no_range_is_refused(source, read, ranges):
    with pytest.raises(ManifestError):
        read(*source, ranges)


def test_a_changed_local_file_is_refused(tmp_path, read):
    path = tmp_path / "a.nc"
    path.write_bytes(DATA)
    registry, url = ObjectStoreRegistry({tmp_path: None}), as_url(path)
    with LocalFile(registry.locate(url)) as file:
        stamp = file.stamp
    assert bytes(read(registry, url, [(0, 9)], stamp)[0]) == DATA[:9]
    before = path.stat()
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SourceChangedError, match=r"etag was .*, is .*parse it again"):
        read(registry, url, [(0, 9)], stamp)
    path.unlink()
    with pytest.raises(SourceUnavailableError, match="no such file"):
        read(registry, url, [(0, 9)], stamp)


@pytest.mark.parametrize("recorded", ["etag", "time", "size", "weak"])
def test_a_changed_remote_object_is_refused(http, read, recorded):
    server, registry, url = http
    whole = head(registry.locate(url))
    stamp = {
        "etag": Stamp(etag=whole.etag),
        "time": Stamp(last_modified=whole.last_modified),
        "size": Stamp(size=whole.size),
        "weak": Stamp(etag="W/" + whole.etag, last_modified=whole.last_modified),
    }[recorded]
    assert bytes(read(registry, url, [(0, 9)], stamp)[0]) == DATA[:9]
    server.objects["d/ü #1.nc"] = DATA[::-1] + b"more"
    server.modified["d/ü #1.nc"] = 1_700_000_000
    with pytest.raises(SourceChangedError, match=r"was .*, is .*parse it again") as caught:
        read(registry, url, [(0, 9)], stamp)
    assert caught.value.url == url


def test_a_server_that_ignores_conditions_is_caught_by_its_answer(http, read):
    server, registry, url = http
    stamp = head(registry.locate(url))
    server.fail("other etag")
    with pytest.raises(SourceChangedError, match='is "another"'):
        read(registry, url, [(0, 9)], stamp)


def test_answers_of_two_versions_are_not_mixed(http, read):
    server, registry, url = http
    server.fail("other etag", after=1, times=1)
    with pytest.raises(SourceChangedError, match="while it was read"):
        read(registry, url, [(0, 9), (9_000, 9)], coalescing=Coalescing(gap=0, concurrency=1))


@pytest.mark.parametrize(
    ("fault", "error", "reason"),
    [
        ("400", SourceUnavailableError, "400 Bad Request"),
        ("401", SourceUnavailableError, "credentials"),
        ("403", SourceUnavailableError, "credentials"),
        ("404", SourceUnavailableError, "no such object"),
        ("410", SourceUnavailableError, "410 Gone"),
        ("412", SourceChangedError, "not the object"),
        ("416", ShortReadError, "bytes 0 to 9"),
        ("500", SourceUnavailableError, "500 Internal"),
        ("503", SourceUnavailableError, "503 Service"),
        ("429", SourceUnavailableError, "429 Too Many"),
        ("cut body", (SourceUnavailableError, ShortReadError), "bytes 0 to 9"),
        ("fewer bytes", ShortReadError, "4 of 9"),
        ("fewer bytes, unsaid", ShortReadError, "got 4 of 9"),
        ("200 for a range", SourceUnavailableError, "does not answer requests for a range"),
        ("another range", SourceUnavailableError, "bytes 1 to 10"),
        ("no content-range", SourceUnavailableError, "Content-Range"),
    ],
)
def test_faults_become_errors_that_name_the_object(http, read, fault, error, reason):
    server, registry, url = http
    server.fail(fault)
    with pytest.raises(error, match=reason) as caught:
        read(registry, url, [(0, 9)])
    assert url in str(caught.value)
    assert not isinstance(caught.value, FileNotFoundError | KeyError)


@pytest.mark.parametrize("fault", ["500", "503", "429", "cut body"])
def test_transient_faults_are_survived(http, read, fault):
    server, registry, url = http
    server.fail(fault, times=1)
    assert bytes(read(registry, url, [(0, 9)])[0]) == DATA[:9]


def test_neighbours_share_a_request(http, read):
    server, registry, url = http
    read(registry, url, [(at, 10) for at in range(0, 10_000, 10)])
    assert [(request.method, request.range) for request in server.requests] == [("GET", (0, 10_000))]
    server.forget()
    stamp = Stamp(etag='"x"')
    with pytest.raises(SourceChangedError):
        read(registry, url, [(0, 5)], stamp)
    assert server.requests[0].headers["if-match"] == '"x"'


def test_a_server_that_is_gone_is_unavailable(range_server, read):
    with pytest.raises(SourceUnavailableError, match=r"127\.0\.0\.1:9/x"):
        read(
            ObjectStoreRegistry({"http://127.0.0.1:9": {"retry_config": {**QUICK, "max_retries": 0}}}),
            "http://127.0.0.1:9/x",
            [(0, 1)],
        )


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_only_regular_files_are_read(tmp_path, kind, read):
    path = tmp_path / "a"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    registry = ObjectStoreRegistry({"file://": LocalStore()})
    with pytest.raises(SourceUnavailableError, match=kind):
        read(registry, as_url("/dev/zero" if kind == "device" else path), [(0, 1)])


def test_files_that_the_system_makes_up_are_not_read(read):
    with pytest.raises(ShortReadError, match="0 bytes"):
        read(ObjectStoreRegistry({"file://": LocalStore()}), "file:///proc/version", [(0, 5)])


def test_a_file_that_may_not_be_read_says_so(tmp_path, read, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(DATA)
    registry = ObjectStoreRegistry({tmp_path: None})

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SourceUnavailableError, match="may not be read"):
        read(registry, as_url(path), [(0, 1)])


def test_a_link_that_appears_after_the_gate_is_not_followed(tmp_path):
    (tmp_path / "pub").mkdir()
    (tmp_path / "home").mkdir()
    for folder in ("pub", "home"):
        (tmp_path / folder / "a").write_bytes(folder.encode())
    location = ObjectStoreRegistry({tmp_path / "pub": None}).locate(as_url(tmp_path / "pub/a"))
    (tmp_path / "pub").rename(tmp_path / "old")
    (tmp_path / "pub").symlink_to("home")
    with pytest.raises(SourceUnavailableError):
        LocalFile(location)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_raises_instead_of_hanging(http, tmp_path):
    _, registry, url = http
    (tmp_path / "a").write_bytes(DATA)
    fetch(registry, url, [(0, 9)])
    report, answer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            local = fetch(ObjectStoreRegistry({tmp_path: None}), as_url(tmp_path / "a"), [(0, 9)])
            fetch(registry, url, [(0, 9)])
        except SourceUnavailableError as error:
            os.write(answer, bytes(local[0]) + str(error).encode())
        os._exit(0)
    os.close(answer)
    os.waitpid(child, 0)
    said = os.read(report, 4096)
    os.close(report)
    assert said.startswith(DATA[:9])
    assert b"spawn" in said
