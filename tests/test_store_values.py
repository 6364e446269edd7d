"""What the store serves is what the sources hold, or an error that names them: dtypes, mixtures, faults, processes."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
import zarr
from storedarrays import BLOSC, GZIP, ZSTD, Shelf, plain

import virtualchunks.functions  # noqa: F401 - registers NumPy's functions
from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import (
    DecodeError,
    NotGrantedError,
    ReadError,
    ShortReadError,
    SourceChangedError,
    SourceUnavailableError,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.grid import ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.inline import encode_array
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.fetch import fetch_each
from virtualchunks.reading.stamps import local_stamp
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable
from virtualchunks.store import ManifestStore

TEXT = np.dtypes.StringDType()
FUSED = "zarr.core.codec_pipeline.FusedCodecPipeline"
BATCHED = "zarr.core.codec_pipeline.BatchedCodecPipeline"


@pytest.fixture(params=[BATCHED, FUSED], ids=["batched", "fused"])
def pipeline(request: pytest.FixtureRequest) -> Iterator[str]:
    """Either of zarr's pipelines."""
    with zarr.config.set({"codec_pipeline.path": request.param, "array.rectilinear_chunks": True}):
        yield request.param


def served(array: ManifestArray, registry: ObjectStoreRegistry | None = None) -> Any:
    return zarr.open_group(ManifestStore(ManifestGroup({"v": array}), registry=registry), mode="r")["v"]


def check(array: ManifestArray, expected: npt.NDArray[Any], registry: ObjectStoreRegistry | None = None) -> None:
    found = served(array, registry)[...]
    assert found.dtype == array.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected, strict=True)
    np.testing.assert_array_equal(read_values(array, ObjectStoreRegistry.coerce(registry)), expected, strict=True)
    bulk: Any = ManifestStore(ManifestGroup({"v": array}), registry=registry).to_zarr("v")
    np.testing.assert_array_equal(bulk[...], expected, strict=True)


def some_values(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return five values of a dtype, in native order."""
    if dtype.kind == "T":
        return np.array(["a", "", "çé", "longer than the others", "\0"], dtype=TEXT)
    if dtype.kind == "O":
        return np.array([b"a", b"", b"\xff\0", b"longer", b"\0"], dtype=object)
    if dtype.kind in "SU":
        return np.array(["a", "", "bc", "xyz", "q"]).astype(dtype.newbyteorder("="))
    raw = np.random.default_rng(1).integers(0, 2 if dtype.kind == "b" else 100, dtype.itemsize * 5).astype("u1")
    return raw.view(dtype.newbyteorder("="))


DTYPES = [
    *("?", "i1", "u1", "<i2", ">i2", "<u4", ">u4", "<i8", ">i8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"),
    *("<c8", ">c8", "<c16", "S3", "<U3", ">U3", "V4", "<M8[ns]", ">M8[D]", "<m8[s]"),
    *([("a", "<i4"), ("b", "<f8")], [("a", ">i4"), ("b", ">f8")], [("a", "S2"), ("b", ">i2")], TEXT, "O"),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_served(pipeline: str, dtype: Any) -> None:
    stored = np.dtype(dtype)
    values = some_values(stored)
    codecs = {"T": [{"name": "vlen-utf8"}], "O": [{"name": "vlen-bytes"}]}.get(stored.kind)
    for compressors in ([], [GZIP]):
        first = list(plain(stored).codecs) if codecs is None else codecs
        metadata = ArrayMetadata.build(
            shape=(7,), chunks=(2,), dtype=stored, codecs=[*first, *compressors], fill_value=values[3]
        )
        assert metadata.dtype == values.dtype
        every = np.concatenate([values, np.full(2, values[3], dtype=values.dtype)])
        records = encode_array(every, metadata)
        array = ManifestArray(metadata, records)
        assert not array.is_heterogeneous
        check(array, every)
        gone = records.records.copy()
        gone[:2] = (-1, 0, 0)
        part = ManifestArray(metadata, ChunkManifest.from_records(gone, records.sources))
        expected = every.copy()
        expected[:4] = values[3]
        check(part, expected)
        mixed = np.concatenate(
            [array[:6], ManifestArray(metadata.transcoded(), encode_array(every, metadata.transcoded()))]
        )
        assert mixed.is_heterogeneous == (
            bool(compressors) or metadata.encoding.dtype != metadata.transcoded().encoding.dtype
        )
        check(mixed, np.concatenate([every[:6], every]))


@pytest.mark.parametrize("dtype", ["<f8", ">i2", "S3", "<U3", TEXT, "O"], ids=str)
def test_every_dtype_has_scalars(pipeline: str, dtype: Any) -> None:
    stored = np.dtype(dtype)
    value = np.empty((), dtype=some_values(stored).dtype)
    value[()] = some_values(stored)[3]
    codecs = {"T": [{"name": "vlen-utf8"}], "O": [{"name": "vlen-bytes"}]}.get(stored.kind)
    metadata = ArrayMetadata.build(shape=(), chunks=(), dtype=stored, codecs=codecs)
    array = ManifestArray(metadata, encode_array(value, metadata))
    assert served(array)[()] == value[()]
    found = read_values(array, ObjectStoreRegistry())
    assert found.shape == ()
    assert found[()] == value[()]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def test_chunks_of_many_encodings_are_one_array(pipeline: str, shelf: Shelf) -> None:
    values = np.random.default_rng(0).integers(0, 99, (6, 5)).astype("i2")
    encodings = [
        plain("<i2"),
        plain(">i2", [GZIP]),
        plain("<i4", [ZSTD], [1, 0]),
        plain("u1", [BLOSC]),
        ChunkEncoding(np.dtype("<i2"), plain("<i2", [GZIP]).codecs, (5, 4)),
    ]
    grid = ChunkGrid.regular((6, 5), (3, 2))
    parts = [shelf.array(values, grid, encoding)[0] for encoding in encodings]
    joined = np.concatenate(parts)
    assert joined.dtype == np.dtype("i4")
    assert joined.is_heterogeneous
    check(joined, np.concatenate([values] * 5).astype("i4"), shelf.registry)
    turned = np.transpose(joined, (1, 0))
    check(turned, np.concatenate([values] * 5).astype("i4").T, shelf.registry)
    check(np.stack(parts[:3], axis=1), np.stack([values] * 3, axis=1).astype("i4"), shelf.registry)


def test_an_own_encoding_that_decodes_to_more_is_not_served_as_it_is(shelf: Shelf) -> None:
    values = np.arange(4, dtype="<i2")
    array, _ = shelf.array(
        values, ChunkGrid.regular((4,), (2,)), ChunkEncoding(np.dtype("<i2"), plain("<i2").codecs, (3,))
    )
    assert array.is_heterogeneous
    check(array, values, shelf.registry)
    same, _ = shelf.array(
        values, ChunkGrid.regular((4,), (2,)), ChunkEncoding(np.dtype("<i2"), plain("<i2").codecs, (2,))
    )
    assert not same.is_heterogeneous
    check(same, values, shelf.registry)


def test_overhang_is_filled_where_chunks_are_transcoded(shelf: Shelf) -> None:
    values = np.arange(5, dtype="<i2")
    one, _ = shelf.array(values[:4], ChunkGrid.regular((4,), (2,)), plain("<i2"), fill_value=-7)
    other, _ = shelf.array(values, ChunkGrid.regular((5,), (2,)), plain(">i2", [GZIP]), fill_value=-7)
    store = ManifestStore(ManifestGroup({"v": np.concatenate([one, other])}), registry=shelf.registry)
    found = store.get_sync("v/c/4")
    assert found is not None
    assert np.frombuffer(found.to_bytes(), "<i2").tolist() == [4, -7]


# Faults


def file_array(
    path: Path, *, codecs: tuple[Any, ...] = (), chunks: int = 2
) -> tuple[ManifestArray, ObjectStoreRegistry]:
    """Write six integers to a file and return references to them that know the file's stamp."""
    metadata = ArrayMetadata.build(
        shape=(6,), chunks=(chunks,), dtype="<i4", codecs=plain("<i4", codecs).codecs, dimension_names=("x",)
    )
    manifest = encode_array(np.arange(6, dtype="i4"), metadata)
    buffer = manifest.sources.buffer(0)
    assert buffer is not None
    path.write_bytes(buffer)
    sources = SourceTable.single(path.as_uri(), local_stamp(path.stat()))
    return ManifestArray(metadata, ChunkManifest.from_records(manifest.records, sources)), ObjectStoreRegistry(
        {str(path.parent): None}
    )


def expect(error: type[VirtualChunksError], array: ManifestArray, registry: ObjectStoreRegistry, *parts: str) -> None:
    """Check that every way to read raises one error that names its place and never looks like absence."""
    store = ManifestStore(ManifestGroup(groups={"g": ManifestGroup({"v": array})}), registry=registry)
    ways = [
        lambda: store.get_sync("g/v/c/1"),
        lambda: zarr.open_group(store, mode="r")["g/v"][2:4],
        lambda: xr.open_zarr(store, group="g", chunks=None)["v"][2:4].load(),
        lambda: read_values(array, registry, slice(2, 4), name="g/v"),
    ]
    for read in ways:
        with pytest.raises(error) as caught:
            read()
        assert not isinstance(caught.value, FileNotFoundError | KeyError)
        assert (caught.value.variable, caught.value.chunk) == ("g/v", (1,))
        for part in ("g/v", "(1,)", *parts):
            assert part in str(caught.value)


def test_a_source_rewritten_in_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a b.bin"
    array, registry = file_array(path)
    check(array, np.arange(6, dtype="i4"), registry)
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    expect(SourceChangedError, array, registry, "a%20b.bin", "was", "is")


def test_a_truncated_source_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    array, registry = file_array(path)
    os.truncate(path, 10)
    expect(SourceChangedError, array, registry, "a.bin", "24", "10")
    unstamped = ChunkManifest.from_records(array.manifest.records, SourceTable.single(path.as_uri()))
    expect(ShortReadError, ManifestArray(array.metadata, unstamped), registry, "a.bin", "10")


def test_a_deleted_source_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    array, registry = file_array(path)
    path.unlink()
    expect(SourceUnavailableError, array, registry, "a.bin", "no such file")


def test_a_source_that_nobody_granted_is_refused(tmp_path: Path) -> None:
    array, _ = file_array(tmp_path / "a.bin")
    expect(NotGrantedError, array, ObjectStoreRegistry({"s3://bucket": None}), "a.bin", "s3://bucket")


def test_bytes_that_do_not_decode_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    array, registry = file_array(path, codecs=(GZIP,))
    data = bytearray(path.read_bytes())
    offset = int(array.manifest.records["offset"][1])
    data[offset : offset + 4] = b"\0\0\0\0"
    path.write_bytes(data)
    unstamped = ChunkManifest.from_records(array.manifest.records, SourceTable.single(path.as_uri()))
    with pytest.raises(DecodeError, match=f"at offset {offset}") as caught:
        read_values(ManifestArray(array.metadata, unstamped), registry, name="g/v")
    assert (caught.value.variable, caught.value.chunk, caught.value.url) == ("g/v", (1,), path.as_uri())
    wide = ManifestArray(array.metadata, unstamped).astype("i8")
    expect(DecodeError, wide, registry, "a.bin", f"at offset {offset}")


@pytest.mark.parametrize("length", [4, 12])
def test_bytes_of_another_size_are_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.bin"
    array, registry = file_array(path)
    records = array.manifest.records.copy()
    records["length"] = length
    other = ManifestArray(array.metadata, ChunkManifest.from_records(records, array.manifest.sources))
    with pytest.raises(DecodeError, match=f"{length} bytes do not decode"):
        read_values(other, registry, slice(0, 2))


def test_missing_chunks_need_no_source(tmp_path: Path) -> None:
    array, _ = file_array(tmp_path / "a.bin")
    empty = np.full_like(array, 9)
    check(empty, np.full(6, 9, "i4"))
    store = ManifestStore(ManifestGroup({"v": empty}))
    assert store.get_sync("v/c/0") is None


# Requests


def test_an_object_is_asked_once_for_a_whole_selection(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = [shelf.array(np.arange(20, dtype="i4"), ChunkGrid.regular((20,), (2,)), plain("<i4"))[0] for _ in range(3)]
    asked: list[tuple[str, int]] = []

    def counting(registry: Any, url: str, offsets: Any, *rest: Any, **options: Any) -> None:
        asked.append((url, len(offsets)))
        fetch_each(registry, url, offsets, *rest, **options)

    monkeypatch.setattr("virtualchunks.reading.values.fetch_each", counting)
    joined = np.concatenate(arrays)
    read_values(joined, shelf.registry)
    assert sorted(count for _, count in asked) == [10, 10, 10]
    asked.clear()
    np.testing.assert_array_equal(read_values(joined, shelf.registry, slice(3, 7)), [3, 4, 5, 6])
    assert [count for _, count in asked] == [3]
    asked.clear()
    read_values(joined, shelf.registry, np.array([], dtype=int))
    assert asked == []


# Processes and threads


def test_threads_read_the_same(pipeline: str, shelf: Shelf) -> None:
    values = np.arange(400, dtype="i4").reshape(20, 20)
    grid = ChunkGrid.regular((20, 20), (3, 4))
    mixed = np.concatenate([shelf.array(values, grid, plain(order, [GZIP]))[0] for order in ("<i4", ">i4")])
    store = ManifestStore(ManifestGroup({"v": mixed}), registry=shelf.registry)
    expected = np.concatenate([values, values])

    def read(number: int) -> bool:
        row = number % 40
        return bool((zarr.open_group(store, mode="r")["v"][row] == expected[row]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(80)))


SUM = """
import pickle, sys, zarr
store = pickle.loads(sys.stdin.buffer.read())
print(int(zarr.open_group(store, mode="r")["v"][:].sum()), store.read_only)
"""


def test_another_process_reads_the_same(tmp_path: Path) -> None:
    array, registry = file_array(tmp_path / "a.bin")
    store = ManifestStore(ManifestGroup({"v": array}), registry=registry)
    assert zarr.open_group(store, mode="r")["v"][:].sum() == 15
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "parsers")])}
    command = [sys.executable, "-c", SUM]
    done = subprocess.run(
        command, input=pickle.dumps(store), capture_output=True, env=environment, check=True, timeout=60
    )
    assert done.stdout.split() == [b"15", b"True"]


def test_a_store_in_memory_says_that_it_cannot_travel(shelf: Shelf) -> None:
    with pytest.raises(UnsupportedFeatureError, match="cannot be pickled"):
        pickle.dumps(ManifestStore(ManifestGroup(), registry=shelf.registry))


def _sum(array: ManifestArray, registry: ObjectStoreRegistry) -> int:
    store = ManifestStore(ManifestGroup({"v": array}), registry=registry)
    found = store.get_sync("v/c/1")
    assert found is not None
    first = int(np.frombuffer(found.to_bytes(), "<i4").sum())
    return first + int(zarr.open_group(store, mode="r")["v"][:].sum()) + int(read_values(array, registry).sum())


def _answer(array: ManifestArray, registry: ObjectStoreRegistry, pipe: Any) -> None:
    try:
        pipe.send(_sum(array, registry))
    except ReadError as error:
        pipe.send(type(error).__name__)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_reads_after_a_fork(tmp_path: Path) -> None:
    array, registry = file_array(tmp_path / "a.bin")
    assert _sum(array, registry) == 5 + 15 + 15
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_answer, args=(array, registry, there))
    child.start()
    assert here.poll(20), "the child hangs"
    assert here.recv() == 5 + 15 + 15
    child.join(5)
    assert child.exitcode == 0
