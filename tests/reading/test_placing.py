"""Chunks go into place all at once, in threads or one by one: the values are NumPy's every time."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from storedarrays import GZIP, Shelf, axes, plain

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import DecodeError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.manifest import ChunkManifest
from virtualchunks.reading.cuts import AxisCut
from virtualchunks.reading.placing import layout_of
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry


@st.composite
def selected(draw: Any, size: int) -> Any:
    kind = draw(st.sampled_from(["all", "slice", "step", "one", "many", "mask"]))
    if kind == "all":
        return slice(None)
    if kind == "slice":
        return slice(*sorted([draw(st.integers(0, size)), draw(st.integers(0, size))]))
    if kind == "step":
        return slice(None, None, draw(st.sampled_from([-3, -2, -1, 2, 3, 4, 6])))
    if kind == "one":
        return draw(st.integers(-size, size - 1))
    if kind == "mask":
        return np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    return np.array(draw(st.lists(st.integers(-size, size - 1), max_size=12)), dtype=int)


def outer(values: Any, key: tuple[Any, ...]) -> Any:
    axis = 0
    for entry in key:
        values = values[(*[slice(None)] * axis, entry)]
        axis += not isinstance(entry, int)
    return values


@given(st.data())
def test_chunks_placed_together_read_as_numpy_selects(data: st.DataObject) -> None:
    shelf = Shelf()
    ndim = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.integers(1, (30, 12, 7)[ndim - 1])) for _ in range(ndim))
    chunks = tuple(data.draw(st.integers(1, 3)) for _ in range(ndim))
    irregular = tuple(data.draw(axes(size)) for size in shape)
    order = data.draw(st.permutations(range(ndim)))
    dtype = data.draw(st.sampled_from(["<i4", ">i4", ">f8", "<M8[s]", "|u1", "<c8", "|S3"]))
    values = np.arange(int(np.prod(shape))).reshape(shape).astype("u1").astype(np.dtype(dtype).newbyteorder("="))
    array, expected = shelf.array(
        values,
        data.draw(st.sampled_from([ChunkGrid.regular(shape, chunks), ChunkGrid(irregular)])),
        plain(dtype, [], order),
        missing=data.draw(st.lists(st.booleans(), max_size=20)),
        held=data.draw(st.booleans()),
    )
    if data.draw(st.booleans()):
        array, expected = np.concatenate([array, array]), np.concatenate([expected, expected])
    key = tuple(data.draw(selected(size)) for size in array.shape)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("values", "placing"):
            patch.setattr(f"virtualchunks.reading.{name}.FEWEST", data.draw(st.sampled_from([1, 4])))
        found = read_values(array, shelf.registry, key)
    wanted = np.asarray(outer(expected, key), dtype=expected.dtype)  # a scalar of NumPy forgets the length of its text
    np.testing.assert_array_equal(found, wanted, strict=True)


def test_plain_elements_are_never_decoded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise AssertionError("a chunk was decoded by itself")

    shelf = Shelf()
    values = np.arange(24 * 20, dtype="i4").reshape(24, 20)
    array, _ = shelf.array(values, ChunkGrid.regular((24, 20), (2, 4)), plain(">i4", [], [1, 0]))
    monkeypatch.setattr("virtualchunks.reading.values.decode_block", refuse)
    for key in (None, (slice(3, 21), slice(1, 19)), (slice(None, None, -2),), (slice(None, None, 2), slice(2, 3))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("virtualchunks.reading.placing.FEWEST", 1)
            patch.setattr("virtualchunks.reading.values.FEWEST", 1)
            found = read_values(array, shelf.registry, key)
        np.testing.assert_array_equal(found, values if key is None else values[key])


@pytest.mark.parametrize(
    ("encoding", "dtype"),
    [
        (ChunkEncoding(np.dtype("<i4"), plain("<i4").codecs, start=(1,), shape=(9,)), "i4"),
        (ChunkEncoding(np.dtype("<i4"), plain("<i4").codecs, shape=(2,)), "i4"),
        (plain("<i4", [GZIP]), "i4"),
        (plain("<i4"), "i8"),
        (ChunkEncoding(np.dtype("<i4"), ({"name": "bytes"},)), "i4"),
    ],
)
def test_what_is_not_plain_has_no_layout(encoding: ChunkEncoding, dtype: str) -> None:
    assert layout_of(encoding, (4,), np.dtype(dtype)) is None


def test_a_chunk_of_another_length_fails_by_itself() -> None:
    shelf = Shelf()
    values = np.arange(40, dtype="i4")
    array, _ = shelf.array(values, ChunkGrid.regular((40,), (4,)), plain("<i4"))
    records = array.manifest.records.copy()
    records["length"][6] = 15
    broken = ManifestArray(array.metadata, ChunkManifest.from_records(records, array.manifest.sources))
    with pytest.raises(DecodeError) as caught:
        read_values(broken, shelf.registry, name="v")
    assert (caught.value.variable, caught.value.chunk) == ("v", (6,))
    np.testing.assert_array_equal(read_values(broken, shelf.registry, slice(0, 24)), values[:24])


def test_threads_decode_each_distinct_block_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from virtualchunks.codecs.pipeline import decode_block

    shelf = Shelf()
    values = np.arange(600, dtype="i4").reshape(60, 10)
    array, _ = shelf.array(values, ChunkGrid.regular((60, 10), (1, 7)), plain(">i4", [GZIP]))
    decoded: list[bytes] = []

    def counting(data: Any, *how: Any) -> Any:
        decoded.append(bytes(data))
        return decode_block(data, *how)

    monkeypatch.setattr("virtualchunks.reading.values.decode_block", counting)
    monkeypatch.setattr("virtualchunks.reading.values.WORTH_A_THREAD", 1)
    monkeypatch.setattr("virtualchunks.reading.values.DECODING_THREADS", 3)
    many = np.broadcast_to(array, (5, 60, 10))
    np.testing.assert_array_equal(read_values(many, shelf.registry), np.broadcast_to(values, many.shape))
    assert len(decoded) == 120


def test_an_error_in_a_thread_names_its_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata_of, _ = Shelf().array(np.arange(8, dtype="i4"), ChunkGrid.regular((8,), (1,)), plain("<i4", [GZIP]))
    array = ManifestArray(metadata_of.metadata, ChunkManifest.of_buffers([b"x" * 20] * 8, (8,)))
    records = array.manifest.records.copy()
    records["source"] = 0
    one = ManifestArray(array.metadata, ChunkManifest.from_records(records, array.manifest.sources))
    monkeypatch.setattr("virtualchunks.reading.values.WORTH_A_THREAD", 1)
    monkeypatch.setattr("virtualchunks.reading.values.DECODING_THREADS", 4)
    with pytest.raises(DecodeError) as caught:
        read_values(one, ObjectStoreRegistry(), name="v")
    assert caught.value.variable == "v"
    assert caught.value.chunk is not None


@given(st.data())
def test_runs_are_the_chunks_that_they_join(data: st.DataObject) -> None:
    axis = Axis(20, chunk=data.draw(st.integers(1, 6)))
    positions = np.array(data.draw(st.lists(st.integers(0, 19), min_size=1, max_size=25)), dtype=np.int64)
    if data.draw(st.booleans()):
        positions = np.arange(20)[:: data.draw(st.sampled_from([-4, -1, 1, 2, 3, 5]))]
    cut = AxisCut.of_positions(axis, positions)
    where = np.full(len(positions), -1)
    for chunk, within, places in zip(cut.chunks, cut.within, cut.places, strict=True):
        where[places] = axis.starts[chunk] + np.arange(axis.nominal[chunk])[within]
    np.testing.assert_array_equal(where, positions)
    for number, run in enumerate(cut.runs):
        members = np.flatnonzero(cut.run_of == number)
        assert run is None or (members[0], members[-1] + 1) == (run.begin, run.end)
        for place in members if run is not None else ():
            assert run is not None
            first = run.out + (place - run.begin) * run.out_stride
            found = first + run.out_step * np.arange(run.count)
            np.testing.assert_array_equal(found, np.arange(len(positions))[cut.places[place]])
            assert cut.within[place] == run.within
