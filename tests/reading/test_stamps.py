"""A stamp tells apart what changed; what one side does not know is not compared."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest
from obstore.store import MemoryStore

from virtualchunks.reading.stamps import compare, conditions, local_stamp, stamp_of
from virtualchunks.sources import Stamp

DAY = 86_400_000_000_000


@pytest.mark.parametrize(
    ("recorded", "found", "difference"),
    [
        (None, Stamp(size=1), None),
        (Stamp(), Stamp(size=1, etag="a"), None),
        (Stamp(size=1), Stamp(size=1, etag="a"), None),
        (Stamp(size=1), Stamp(size=2), "size was 1, is 2"),
        (Stamp(size=0), Stamp(size=2), "size was 0, is 2"),
        (Stamp(etag='"a"'), Stamp(etag="a"), None),
        (Stamp(etag='W/"a"'), Stamp(etag='"a"'), None),
        (Stamp(etag="a"), Stamp(etag="b"), "etag was a, is b"),
        (Stamp(etag="a", last_modified=DAY), Stamp(etag="a", last_modified=2 * DAY), None),
        (Stamp(etag="a", version="1"), Stamp(etag="a", version="2"), None),
        (
            Stamp(last_modified=DAY),
            Stamp(etag="a", last_modified=2 * DAY),
            "last modified was 1970-01-02T00:00:00+00:00, is 1970-01-03T00:00:00+00:00",
        ),
        (Stamp(version="1"), Stamp(version="2"), "version was 1, is 2"),
        (Stamp(size=1, etag="a"), Stamp(size=2, etag="b"), "size was 1, is 2; etag was a, is b"),
    ],
)
def test_compare(recorded, found, difference):
    assert compare(recorded, found) == difference


def test_conditions():
    assert conditions(Stamp(etag='"a"', last_modified=DAY)) == {"if_match": '"a"'}
    since = conditions(Stamp(etag='W/"a"', last_modified=DAY))["if_unmodified_since"]
    assert datetime(1970, 1, 2, tzinfo=UTC) < since < datetime(1970, 1, 2, 0, 0, 1, tzinfo=UTC)
    assert conditions(Stamp(size=1)) == conditions(None) == {}


def test_the_stamp_of_an_answer_satisfies_its_own_conditions():
    store = MemoryStore()
    store.put("a", b"0123")
    stamp = stamp_of(store.get("a").meta)
    assert stamp.size == 4
    for asked in (stamp, Stamp(last_modified=stamp.last_modified)):
        assert store.get("a", options=conditions(asked)).meta["size"] == 4
    assert stamp_of({"size": 3, "last_modified": datetime(1970, 1, 1, tzinfo=UTC)}) == Stamp(size=3), "no time was said"


def rewrite(path):
    path.write_bytes(b"9876")


def same_size_times_put_back(path):
    status = path.stat()
    path.write_bytes(b"9876")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced_times_put_back(path):
    status = path.stat()
    other = path.with_suffix(".new")
    other.write_bytes(b"9876")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def grown(path):
    with path.open("ab") as file:
        file.write(b"4")


@pytest.mark.parametrize("change", [rewrite, same_size_times_put_back, replaced_times_put_back, grown])
def test_the_stamp_of_a_local_file_sees_every_change(tmp_path, change):
    path = tmp_path / "a"
    path.write_bytes(b"0123")
    os.utime(path, ns=(DAY, DAY))
    before = local_stamp(path.stat())
    assert compare(before, local_stamp(path.stat())) is None
    change(path)
    assert compare(before, local_stamp(path.stat()))
