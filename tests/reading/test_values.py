"""The law of the library: reading what an operation makes of references gives what NumPy makes of the values."""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from storedarrays import GZIP, Shelf, axes, plain, stored_arrays

import virtualchunks.functions  # noqa: F401 - registers NumPy's functions
from virtualchunks.array import ManifestArray
from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import ChunkIndexError, CombineError, DecodeError, ManifestError, UnsupportedFeatureError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.decode import read_chunk_block
from virtualchunks.reading.fetch import fetch, fetch_each
from virtualchunks.reading.values import chunk_bytes, read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.store import ManifestStore

REFUSED = (ChunkIndexError, CombineError, UnsupportedFeatureError)


@st.composite
def selections(draw: Any, shape: tuple[int, ...], *, arrays: bool = True) -> Any:
    key: list[Any] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        kinds: list[st.SearchStrategy[Any]] = [st.slices(size)]
        if size:
            kinds.append(st.integers(-size, size - 1))
        if arrays and size:
            kinds.append(st.lists(st.integers(-size, size - 1), max_size=5).map(lambda item: np.array(item, dtype=int)))
            kinds.append(st.lists(st.booleans(), min_size=size, max_size=size).map(np.array))
        key.append(draw(st.one_of(kinds)))
    if len(key) < len(shape) and draw(st.booleans()):
        key.append(...)
    return tuple(key)


def outer(values: npt.NDArray[Any], key: tuple[Any, ...]) -> npt.NDArray[Any]:
    """Select orthogonally, one axis at a time."""
    axis = 0
    for entry in key:
        if entry is ...:
            break
        values = values[(*[slice(None)] * axis, entry)]
        axis += not isinstance(entry, int)
    return values


@given(st.data())
def test_a_selection_reads_as_numpy_selects(data: st.DataObject) -> None:
    shelf = Shelf()
    array, expected = data.draw(stored_arrays(shelf))
    key = data.draw(selections(array.shape))
    found = read_values(array, shelf.registry, key)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, outer(expected, key), strict=True)


def concatenations(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    axis = draw(st.integers(0, array.ndim - 1))
    parts = [(array, values)]
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["other", "itself", "ndarray"]))
        sizes = [draw(st.integers(0, 5)) if place == axis else size for place, size in enumerate(array.shape)]
        own = array.metadata.grid.axes
        grid = ChunkGrid(
            tuple(
                draw(axes(size)) if place == axis or draw(st.booleans()) else own[place]
                for place, size in enumerate(sizes)
            )
        )
        if kind == "other":
            parts.append(draw(stored_arrays(shelf, grid=grid)))
        elif kind == "itself":
            parts.append((array, values))
        else:
            held = draw(st.integers(0, 99)) + np.arange(int(np.prod(grid.shape))).reshape(grid.shape) % 100
            parts.append((held.astype("u1"), held.astype("u1")))
    order = draw(st.permutations(parts))
    arrays = [part[0] for part in order]
    return np.concatenate(arrays, axis), np.concatenate([part[1] for part in order], axis)


def stacks(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    axis = draw(st.integers(0, array.ndim))
    other, other_values = draw(stored_arrays(shelf, grid=array.metadata.grid))
    return np.stack([array, other], axis), np.stack([values, other_values], axis)


def transposes(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    order = draw(st.permutations(range(array.ndim)))
    return np.transpose(array, order), np.transpose(values, order)


def selects(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    key = draw(selections(array.shape, arrays=False))
    return array[key], values[key]


def flips(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    key = (*[slice(None)] * draw(st.integers(0, array.ndim - 1)), slice(None, None, -1))
    return array[key], values[key]


def takes(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    axis = draw(st.integers(0, array.ndim - 1))
    size = array.shape[axis]
    starts = array.metadata.grid.axes[axis].starts.tolist()
    chosen = draw(st.lists(st.sampled_from(range(len(starts))), max_size=4)) if starts else []
    runs = [np.arange(starts[i], [*starts, size][i + 1]) for i in chosen]
    key = (*[slice(None)] * axis, np.concatenate([np.empty(0, dtype=int), *runs]))
    return array[key], values[key]


def expands(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    axis = draw(st.integers(0, array.ndim))
    return np.expand_dims(array, axis), np.expand_dims(values, axis)


def broadcasts(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    shape = [draw(st.integers(1, 3)) if size == 1 else size for size in array.shape]
    target = (*draw(st.lists(st.integers(1, 2), max_size=1)), *shape)
    return np.broadcast_to(array, target), np.broadcast_to(values, target)


def squeezes(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    return np.squeeze(array), np.squeeze(values)


def subchunks(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    sizes = {axis: draw(st.integers(1, 3)) for axis in draw(st.sets(st.integers(0, array.ndim - 1), max_size=2))}
    return array.subchunk(sizes), values


def widens(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    return array.astype("f8"), values.astype("f8")


def fills(draw: Any, shelf: Shelf, array: ManifestArray, values: Any) -> tuple[Any, Any]:
    axis = draw(st.integers(0, array.ndim - 1))
    grid_axis = array.metadata.grid.axes[axis]
    chosen = np.array(draw(st.lists(st.booleans(), min_size=grid_axis.count, max_size=grid_axis.count)), dtype=bool)
    keep = np.repeat(chosen, grid_axis.cells).reshape(-1, *[1] * (array.ndim - axis - 1))
    return np.where(keep, array, 7), np.where(keep, values, values.dtype.type(7))


OPERATIONS = (
    *(
        concatenations,
        stacks,
        transposes,
        selects,
        flips,
        takes,
        expands,
        broadcasts,
        squeezes,
        subchunks,
        widens,
        fills,
    ),
)
NEED_AXES = (concatenations, flips, takes, subchunks, fills)


@settings(max_examples=200)
@given(st.data())
def test_reading_an_operation_is_the_operation_on_what_is_read(data: st.DataObject) -> None:
    shelf = Shelf()
    array, values = data.draw(stored_arrays(shelf))
    for _ in range(data.draw(st.integers(1, 4))):
        known = OPERATIONS if array.ndim else tuple(step for step in OPERATIONS if step not in NEED_AXES)
        step = data.draw(st.sampled_from(known))
        try:
            made = step(data.draw, shelf, array, values)
        except REFUSED:
            continue
        array, values = made
        assert array.shape == values.shape
        assert array.dtype == values.dtype
        np.testing.assert_array_equal(read_values(array, shelf.registry), values)
    served = ManifestStore(ManifestGroup({"a": array}), registry=shelf.registry)
    with zarr.config.set({"array.rectilinear_chunks": True}):
        np.testing.assert_array_equal(zarr.open_group(served, mode="r")["a"][...], values)


def test_one_chunk_reads_as_its_cell_and_its_plain_bytes() -> None:
    shelf = Shelf()
    values = np.arange(20, dtype="i2").reshape(4, 5)
    grid = ChunkGrid((Axis(4, edges=(1, 3)), Axis(5, chunk=3)))
    array, _ = shelf.array(values, grid, plain(">i2", [GZIP], [1, 0]), fill_value=-1, missing=[True])
    assert chunk_bytes(array, (0, 0), shelf.registry) is None
    found = chunk_bytes(array, (1, 1), shelf.registry)
    assert found is not None
    whole = np.frombuffer(found, "<i2").reshape(3, 3)
    np.testing.assert_array_equal(whole[:, :2], values[1:, 3:])
    assert whole[:, 2].tolist() == [-1, -1, -1]
    source, length, offset = array.manifest.records[1, 1].item()
    [data] = fetch(shelf.registry, array.manifest.sources.url(source), [(offset, length)])
    np.testing.assert_array_equal(read_chunk_block(array, (1, 1), data), values[1:, 3:])
    for index in ((2, 0), (0, -1), (0,), (0, 0, 0)):
        with pytest.raises(ManifestError, match="outside the chunk grid"):
            chunk_bytes(array, index, shelf.registry)


def test_a_block_too_small_for_its_cell_is_refused() -> None:
    metadata = ArrayMetadata(
        ChunkGrid.regular((4,), (4,)), np.dtype("u1"), ChunkEncoding(np.dtype("u1"), plain("u1").codecs, (3,))
    )
    array = ManifestArray(metadata, ChunkManifest.of_buffers([b"abc"], (1,)))
    with pytest.raises(DecodeError, match="does not hold the cell") as caught:
        read_values(array, ObjectStoreRegistry(), name="v")
    assert (caught.value.variable, caught.value.chunk) == ("v", (0,))


def test_values_beyond_the_joint_dtype_are_refused() -> None:
    shelf = Shelf()
    days = np.array(["2500-01-01", "1970-01-02"], dtype="M8[s]")
    late, _ = shelf.array(days, ChunkGrid.regular((2,), (1,)), plain("<M8[s]"))
    fine, _ = shelf.array(days[1:].astype("M8[ns]"), ChunkGrid.regular((1,), (1,)), plain("<M8[ns]"))
    joined = np.concatenate([fine, late])
    assert joined.dtype == np.dtype("M8[ns]")
    with pytest.raises(DecodeError, match="do not become datetime64") as caught:
        read_values(joined, shelf.registry, name="v")
    assert caught.value.chunk == (1,)
    np.testing.assert_array_equal(read_values(joined, shelf.registry, [0, 2]), days[[1, 1]].astype("M8[ns]"))


@pytest.mark.parametrize("key", [4, -5, (0, 0), (..., ...), [4], "x", 1.5, np.array([[0]]), [True]])
def test_selections_that_cannot_be_are_refused(key: Any) -> None:
    metadata = ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="u1")
    array = ManifestArray(metadata, ChunkManifest.missing((2,)))
    with pytest.raises(IndexError):
        read_values(array, ObjectStoreRegistry(), key)


def test_the_same_bytes_many_times_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    values = np.arange(6, dtype="i2").reshape(1, 6)
    array, _ = shelf.array(values, ChunkGrid.regular((1, 6), (1, 3)), plain("<i2", [GZIP]))
    decoded = []

    def counting(data: Any, *how: Any) -> Any:
        decoded.append(data)
        return decode_block(data, *how)

    monkeypatch.setattr("virtualchunks.reading.values.decode_block", counting)
    found = read_values(np.broadcast_to(array, (1000, 6)), shelf.registry)
    np.testing.assert_array_equal(found, np.broadcast_to(values, (1000, 6)))
    assert len(decoded) == 2


def test_a_block_that_is_several_chunks_is_fetched_and_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    values = np.arange(4 * 8 * 8, dtype="i4").reshape(4, 8, 8)
    coarse, _ = shelf.array(values[:2], ChunkGrid.regular((2, 8, 8), (1, 8, 8)), plain("<i4", [GZIP]))
    fine, _ = shelf.array(values[2:], ChunkGrid.regular((2, 8, 8), (1, 4, 4)), plain("<i4", [GZIP]))
    array = np.concatenate([coarse, fine])
    assert array.metadata.grid.chunk_shape == (1, 4, 4)
    assert len(array.manifest.sources.encodings) == 4
    decoded, asked = [], []

    def counting(data: Any, *how: Any) -> Any:
        decoded.append(data)
        return decode_block(data, *how)

    def asking(registry: Any, url: str, offsets: Any, lengths: Any, *rest: Any, **options: Any) -> None:
        asked.append((url, set(zip(offsets.tolist(), lengths.tolist(), strict=True))))
        fetch_each(registry, url, offsets, lengths, *rest, **options)

    monkeypatch.setattr("virtualchunks.reading.values.decode_block", counting)
    monkeypatch.setattr("virtualchunks.reading.values.fetch_each", asking)
    np.testing.assert_array_equal(read_values(array, shelf.registry), values)
    assert (len(decoded), len(asked)) == (2 + 8, 2)
    assert sum(len(spans) for _, spans in asked) == 10
    np.testing.assert_array_equal(
        read_values(array, shelf.registry, (slice(1, 3), 5, slice(3, 6))), values[1:3, 5, 3:6]
    )


def test_objects_are_read_at_the_same_time() -> None:
    shelf = Shelf()
    parts = [shelf.array(np.full(2, n, "i2"), ChunkGrid.regular((2,), (2,)), plain("<i2"))[0] for n in range(4)]
    together = threading.Barrier(4, timeout=20)

    class Waiting:
        """A store whose every answer waits until four were asked for."""

        def get(self, path: str, *, options: Any = None) -> Any:
            together.wait()
            return shelf.store.get(path, options=options)

    registry = ObjectStoreRegistry({"memory://": Waiting()})
    np.testing.assert_array_equal(read_values(np.concatenate(parts), registry), np.repeat(np.arange(4), 2))
