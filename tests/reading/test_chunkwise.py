"""Ranges asked for one at a time: files that stay open, and what is noticed although they do."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from obstore.store import MemoryStore

import virtualchunks as vc
from virtualchunks.errors import NotGrantedError, ShortReadError, SourceChangedError, SourceUnavailableError
from virtualchunks.manifest import RECORD
from virtualchunks.reading import chunkwise
from virtualchunks.reading.chunkwise import AHEAD, OPEN_FILES, ChunkReader
from virtualchunks.reading.local import LocalFile
from virtualchunks.reading.tally import ReadStats, Tally

COUNT, LENGTH = 400, 1000
DATA = np.random.default_rng(3).integers(0, 256, COUNT * LENGTH, dtype="u1").tobytes()


def stamp_of(path: Path) -> vc.Stamp:
    with LocalFile(vc.ObjectStoreRegistry().grant(path).locate(path.as_uri())) as file:
        return file.stamp


def store_of(*paths: Path, registry: Any = None, stamped: bool = True) -> vc.ManifestStore:
    """A store of files of neighbouring chunks."""
    records = np.zeros((len(paths), COUNT), dtype=RECORD)
    records["source"] = np.arange(len(paths))[:, np.newaxis]
    records["offset"], records["length"] = np.arange(COUNT) * LENGTH, LENGTH
    table = vc.SourceTable.of_urls(
        [path.as_uri() for path in paths], [stamp_of(path) if stamped else None for path in paths]
    )
    metadata = vc.ArrayMetadata.build(shape=(len(paths), COUNT * LENGTH), chunks=(1, LENGTH), dtype="u1")
    array = vc.ManifestArray(metadata, vc.ChunkManifest.from_records(records, table))
    granted = {str(paths[0].parent): None} if registry is None else registry
    return vc.ManifestStore(vc.ManifestGroup({"v": array}), registry=granted)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    return path


def of_sync(store: vc.ManifestStore, key: str) -> bytes:
    found = store.get_sync(key)
    assert found is not None
    return found.to_bytes()


def of_async(store: vc.ManifestStore, key: str) -> bytes:
    found = asyncio.run(store.get(key))
    assert found is not None
    return found.to_bytes()


ways = pytest.mark.parametrize("read", [of_sync, of_async])
Read = Callable[[vc.ManifestStore, str], bytes]


def chunk(number: int) -> bytes:
    return DATA[number * LENGTH : (number + 1) * LENGTH]


@ways
@pytest.mark.parametrize("step", [1, -1, 7, 0])
def test_any_order_gives_the_bytes(path: Path, read: Read, step: int) -> None:
    store = store_of(path)
    numbers = np.random.default_rng(1).permutation(COUNT) if step == 0 else np.arange(COUNT)[::step]
    for number in numbers.tolist():
        assert read(store, f"v/c/0/{number}") == chunk(number)
    assert store.stats().chunks == len(numbers)


@ways
def test_what_follows_is_read_ahead_and_opened_once(path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(chunkwise, "LocalFile", lambda location: opened.append(location.url) or LocalFile(location))
    store = store_of(path)
    for number in range(COUNT):
        assert read(store, f"v/c/0/{number}") == chunk(number)
    assert opened == [path.as_uri()]
    assert store.stats().requests <= 8
    assert store.stats().bytes == len(DATA)


def test_scattered_chunks_are_not_read_ahead(path: Path) -> None:
    store = store_of(path)
    for number in range(0, COUNT, 40):
        assert of_sync(store, f"v/c/0/{number}") == chunk(number)
    assert store.stats() == ReadStats(requests=10, bytes=10 * LENGTH, chunks=10)


def rewritten(path: Path) -> None:
    path.write_bytes(bytes(len(DATA)))


def replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(bytes(len(DATA)))
    other.replace(path)


def replaced_with_times_put_back(path: Path) -> None:
    times = path.stat()
    replaced(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def shortened(path: Path) -> None:
    os.truncate(path, 10 * LENGTH)


def removed(path: Path) -> None:
    path.unlink()


changes = pytest.mark.parametrize("change", [rewritten, replaced, replaced_with_times_put_back, shortened, removed])


@ways
@changes
@pytest.mark.parametrize("number", [0, 5, 399])
def test_a_change_raises_at_the_next_read(path: Path, read: Read, change: Any, number: int) -> None:
    store = store_of(path)
    read(store, "v/c/0/0")
    change(path)
    with pytest.raises(SourceUnavailableError if change is removed else SourceChangedError) as caught:
        read(store, f"v/c/0/{number}")
    assert (caught.value.variable, caught.value.chunk, caught.value.url) == ("v", (0, number), path.as_uri())


@changes
def test_what_was_read_ahead_is_not_handed_out_for_long(
    path: Path, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(chunkwise, "monotonic", lambda: clock[0])
    store = store_of(path)
    for number in range(4):
        of_sync(store, f"v/c/0/{number}")
    change(path)
    assert of_sync(store, "v/c/0/4") == chunk(4)  # as it was when the file was seen last, and never other bytes
    clock[0] += chunkwise.FRESH * 2
    with pytest.raises((SourceChangedError, SourceUnavailableError)):
        of_sync(store, "v/c/0/5")


def test_a_file_without_a_stamp_is_read_as_it_is_now(path: Path) -> None:
    store = store_of(path, stamped=False)
    assert of_sync(store, "v/c/0/7") == chunk(7)
    replaced(path)
    assert of_sync(store, "v/c/0/9") == bytes(LENGTH)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs symbolic links")
def test_a_link_that_leads_elsewhere_now_is_noticed(tmp_path: Path, path: Path) -> None:
    granted, outside = tmp_path / "granted", tmp_path / "outside"
    folder = granted / "folder"
    folder.mkdir(parents=True)
    outside.mkdir()
    (folder / "a.bin").write_bytes(DATA)
    (outside / "a.bin").write_bytes(bytes(len(DATA)))
    store = store_of(folder / "a.bin", registry={str(granted): None}, stamped=False)
    assert of_sync(store, "v/c/0/1") == chunk(1)
    (folder / "a.bin").rename(folder / "b.bin")
    (folder / "a.bin").symlink_to(outside / "a.bin")
    with pytest.raises(NotGrantedError, match="symbolic link"):
        of_sync(store, "v/c/0/2")
    (folder / "a.bin").unlink()
    (folder / "a.bin").symlink_to("b.bin")
    assert of_sync(store, "v/c/0/2") == chunk(2)
    folder.rename(tmp_path / "before")
    folder.symlink_to(outside)
    with pytest.raises(NotGrantedError, match="symbolic link"):
        of_sync(store, "v/c/0/3")


def test_a_prefix_that_is_registered_anew_is_obeyed(path: Path) -> None:
    registry = vc.ObjectStoreRegistry({str(path.parent): None})
    store = store_of(path, registry=registry, stamped=False)
    assert of_sync(store, "v/c/0/1") == chunk(1)
    other = MemoryStore()
    other.put(path.as_uri().removeprefix("file:///"), bytes(len(DATA)))
    registry.register(path.parent, other)
    assert of_sync(store, "v/c/0/2") == bytes(LENGTH)


def test_objects_in_memory_are_located_once() -> None:
    memory = MemoryStore()
    memory.put("a.bin", DATA)
    registry = vc.ObjectStoreRegistry({"memory://": memory})
    reader = ChunkReader(registry, tally := Tally())
    source = reader.source(vc.SourceTable.single("memory:///a.bin"), 0)
    assert bytes(reader.read(source, 5, 10)) == DATA[5:15]
    located = registry.locate_all
    registry.locate_all = lambda url: pytest.fail("located again")  # type: ignore[method-assign]
    assert bytes(reader.read(source, 50, 10)) == DATA[50:60]
    registry.locate_all = located  # type: ignore[method-assign]
    newer = MemoryStore()
    newer.put("a.bin", bytes(100))
    registry.register("memory://", newer)
    assert bytes(reader.read(source, 50, 10)) == bytes(10)
    with pytest.raises(ShortReadError):
        reader.read(source, 95, 10)
    assert tally.stats().requests == 4


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors")
def test_few_files_are_open_and_none_when_the_store_is_gone(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.bin" for number in range(OPEN_FILES + 20)]
    for path in paths:
        path.write_bytes(DATA[: 3 * LENGTH])
    gc.collect()
    before = descriptors()
    store = store_of(*paths)
    for column in range(3):
        for row in range(len(paths)):
            assert of_sync(store, f"v/c/{row}/{column}") == chunk(column)
    assert descriptors() - before <= OPEN_FILES + 1
    store.close()
    assert descriptors() == before
    assert of_sync(store, "v/c/3/1") == chunk(1)
    assert descriptors() == before + 1
    again = pickle.loads(pickle.dumps(store))
    assert of_sync(again, "v/c/3/2") == chunk(2)
    assert descriptors() == before + 2
    del store, again
    gc.collect()
    assert descriptors() == before


def test_a_failed_read_leaves_nothing_open(path: Path) -> None:
    store = store_of(path)
    rewritten(path)
    with pytest.raises(SourceChangedError):
        of_sync(store, "v/c/0/0")
    assert store._chunks.reader.open_files == 0


def test_threads_share_files_that_are_opened_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunkwise, "OPEN_FILES", 2)
    paths = [tmp_path / f"{number}.bin" for number in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * (40 * LENGTH))
    store, wrong = store_of(*paths), []

    def read(seed: int) -> None:
        for row, column in np.random.default_rng(seed).integers(0, (6, 40), (300, 2)).tolist():
            if of_sync(store, f"v/c/{row}/{column}") != bytes([row]) * LENGTH:
                wrong.append((row, column))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store._chunks.reader.open_files <= 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_child_reads_on(path: Path) -> None:
    store = store_of(path)
    for number in range(5):
        of_sync(store, f"v/c/0/{number}")
    child = os.fork()
    if child == 0:
        right = all(of_sync(store, f"v/c/0/{number}") == chunk(number) for number in range(COUNT))
        os._exit(0 if right else 1)
    for number in reversed(range(COUNT)):
        assert of_sync(store, f"v/c/0/{number}") == chunk(number)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("pipeline", ["BatchedCodecPipeline", "FusedCodecPipeline"])
def test_zarr_reads_a_file_in_few_pieces(path: Path, pipeline: str) -> None:
    store = store_of(path)
    with zarr.config.set({"codec_pipeline.path": f"zarr.core.codec_pipeline.{pipeline}"}):
        values = zarr.open_array(store, path="v", mode="r")[0]
    assert values.tobytes() == DATA
    assert store.stats().chunks == COUNT
    assert store.stats().requests <= 40
    assert store.stats().bytes <= len(DATA) + 40 * AHEAD
