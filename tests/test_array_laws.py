"""What NumPy does to an array of addresses, ManifestArray does to the references they come from."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import virtualchunks as vc
from virtualchunks.errors import (
    ChunkIndexError,
    CombineError,
    RoundingWarning,
    UnsupportedFeatureError,
    VirtualArrayError,
)
from virtualchunks.reading.values import read_values
from virtualchunks.testing import addresses, manifest_arrays

lenient = settings(max_examples=150, deadline=None)


def same(array: vc.ManifestArray, expected: np.ndarray) -> None:
    assert array.shape == expected.shape
    assert array.metadata.grid.grid_shape == array.manifest.shape_chunk_grid
    np.testing.assert_array_equal(addresses(array), expected)


@st.composite
def indexers(draw, size):
    kinds = ["slice", "full"] + (["int", "array", "mask"] if size else [])
    match draw(st.sampled_from(kinds)):
        case "full":
            return slice(None)
        case "slice":
            bound = st.none() | st.integers(-size - 1, size + 1)
            return slice(draw(bound), draw(bound), draw(st.sampled_from([None, 1, 2, 3, -1, -2])))
        case "int":
            return draw(st.integers(-size, size - 1))
        case "array":
            return np.array(draw(st.lists(st.integers(0, size - 1), max_size=5)), dtype=int)
        case _:
            return np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=bool)


@st.composite
def keys(draw, shape):
    entries = [draw(indexers(size)) for size in shape]
    if sum(not isinstance(entry, slice) for entry in entries) > 1 and any(
        isinstance(entry, np.ndarray) for entry in entries
    ):
        entries = [entry if isinstance(entry, slice | int) else slice(None) for entry in entries]
    cut = draw(st.integers(0, len(entries)))
    shapes = [tuple(entries), tuple(entries[:cut]), (*entries[:cut], Ellipsis)]
    key = draw(st.sampled_from(shapes))
    if draw(st.booleans()):
        place = draw(st.integers(0, len(key)))
        key = (*key[:place], None, *key[place:])
    return key[0] if len(key) == 1 and draw(st.booleans()) else key


@lenient
@given(st.data())
def test_indexing_is_numpys_or_names_the_chunk_it_would_cut(data):
    array = data.draw(manifest_arrays())
    key = data.draw(keys(array.shape))
    expected = addresses(array)[key]
    try:
        result = array[key]
    except UnsupportedFeatureError:
        assume(False)  # an axis of length 1 whose stored chunk is longer cannot be dropped
    except ChunkIndexError as error:
        free = array.ndim == 1 and array.metadata.encoding.is_uncompressed
        if free or "axis" not in str(error):
            raise
        return
    same(result, expected)


@lenient
@given(st.data())
def test_any_slice_of_uncompressed_bytes_along_the_slowest_axis_works(data):
    shape = (data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3)))
    array = data.draw(manifest_arrays(shape=shape, compressed=False))
    bound = st.none() | st.integers(-shape[0] - 1, shape[0] + 1)
    key = slice(data.draw(bound), data.draw(bound), data.draw(st.sampled_from([None, 2, 3, -1, -2])))
    same(array[key], addresses(array)[key])
    index = data.draw(st.integers(-shape[0], shape[0] - 1))
    same(array[index], addresses(array)[index])
    positions = np.array(data.draw(st.lists(st.integers(0, shape[0] - 1), max_size=6)), dtype=int)
    same(array[positions], addresses(array)[positions])


@lenient
@given(st.data())
def test_whole_chunks_of_compressed_bytes_can_be_picked_in_any_order(data):
    shape = (data.draw(st.integers(1, 9)), 2)
    array = data.draw(manifest_arrays(shape=shape, compressed=True))
    axis = array.metadata.grid.axes[0]
    chosen = data.draw(st.lists(st.integers(0, axis.count - 1), min_size=1, max_size=4))
    positions = np.concatenate([np.arange(axis.starts[i], axis.starts[i] + axis.cells[i]) for i in chosen])
    same(array[positions], addresses(array)[positions])
    start, stop = sorted((chosen[0], chosen[-1]))
    key = slice(int(axis.starts[start]), int(axis.starts[stop] + axis.cells[stop]))
    same(array[key], addresses(array)[key])


@lenient
@given(st.data())
def test_axes_can_be_permuted_added_and_dropped(data):
    array = data.draw(manifest_arrays())
    order = data.draw(st.permutations(range(array.ndim)))
    expected = addresses(array)
    same(array.transpose(order), expected.transpose(order))
    same(np.transpose(array), expected.T)
    same(array.T, expected.T)
    place = data.draw(st.integers(-array.ndim - 1, array.ndim))
    grown = np.expand_dims(array, place)
    same(grown, np.expand_dims(expected, place))
    same(np.squeeze(grown, place), expected)
    back = np.squeeze(grown.transpose(), array.ndim - place % (array.ndim + 1)).transpose()
    same(back, expected)
    if array.ndim > 1:
        same(np.moveaxis(array, 0, -1), np.moveaxis(expected, 0, -1))
        same(np.swapaxes(array, 0, 1), np.swapaxes(expected, 0, 1))
        same(np.permute_dims(array, order), np.permute_dims(expected, order))


@lenient
@given(st.data())
def test_concatenation_and_stacking(data):
    ndim = data.draw(st.integers(1, 3))
    axis = data.draw(st.integers(0, ndim - 1))
    first = data.draw(manifest_arrays(shape=tuple(data.draw(st.integers(0, 5)) for _ in range(ndim)), number=0))
    arrays = [first]
    for number in range(1, data.draw(st.integers(1, 4))):
        length = data.draw(st.integers(0, 5))
        other = data.draw(manifest_arrays(shape=(*first.shape[:axis], length, *first.shape[axis + 1 :]), number=number))
        arrays.append(other)
    expected = [addresses(array) for array in arrays]
    joined = np.concatenate(arrays, axis=axis)
    same(joined, np.concatenate(expected, axis=axis))
    again = pickle.loads(pickle.dumps(joined))
    same(again, addresses(joined))
    same(np.stack([first, first], axis=axis), np.stack([expected[0]] * 2, axis=axis))


@lenient
@given(st.data())
def test_broadcasting_repeats_references_without_copying(data):
    array = data.draw(manifest_arrays())
    target = [data.draw(st.integers(0, 3)) for _ in range(data.draw(st.integers(0, 2)))]
    target += [data.draw(st.integers(1, 4)) if size == 1 else size for size in array.shape]
    expected = addresses(array)
    same(np.broadcast_to(array, target), np.broadcast_to(expected, target))
    assert np.broadcast_to(array, (1000, *array.shape)).nbytes_virtual <= array.nbytes_virtual + 20


@lenient
@given(st.data())
def test_subchunks_hold_the_same_bytes(data):
    array = data.draw(
        manifest_arrays(shape=(data.draw(st.integers(1, 7)), data.draw(st.integers(1, 5))), compressed=False)
    )
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    same(array.subchunk({0: rows}), addresses(array))
    finest = array.subchunk({0: 1, 1: columns})
    same(finest, addresses(array))
    assert finest.metadata.grid.axes[0].nominal.max(initial=1) == 1
    assert finest.metadata.grid.axes[1].nominal.max(initial=1) <= max(columns, 1)


@lenient
@given(st.data())
def test_reindexing_as_xarray_does_it(data):
    size = data.draw(st.integers(1, 8))
    array = data.draw(manifest_arrays(shape=(size, 2), missing=False))
    axis = array.metadata.grid.axes[0]
    chosen = sorted(data.draw(st.sets(st.integers(0, axis.count - 1))))
    runs = [np.arange(axis.starts[i], axis.starts[i] + axis.cells[i]) for i in chosen]
    gaps = [np.full(data.draw(st.integers(0, 3)), -1) for _ in range(len(runs) + 1)]
    indexer = np.concatenate(
        [part for pair in zip(gaps, [*runs, np.empty(0, int)], strict=True) for part in pair]
    ).astype(int)
    mask = (indexer == -1)[:, None]
    result = np.where(np.logical_not(mask), array[indexer, :], np.float32("nan"))
    expected = np.where(mask, -1, addresses(array)[indexer, :])
    same(result, expected)
    if mask.any():
        assert np.isnan(result.metadata.fill_value)


def test_reindexing_past_the_end_keeps_a_regular_axis():
    indexer = np.append(np.arange(6), [-1] * 7)
    grown = np.where(indexer >= 0, build(n=6, chunk=3)[indexer], np.float32(0))
    assert grown.metadata.chunks == (3,)
    assert grown.shape == (13,)


def build(n=6, chunk=3, compressed=True, url="s3://1/a.nc", **more):
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if compressed:
        codecs.append({"name": "gzip", "configuration": {"level": 5}})
    metadata = vc.ArrayMetadata.build(
        shape=(n,), chunks=(chunk,), dtype="<f4", codecs=codecs, dimension_names=["t"], **more
    )
    entries = {str(i): {"path": url, "offset": 100 * i, "length": 4 * chunk} for i in range(-(-n // chunk))}
    return vc.ManifestArray(metadata, entries)


def test_a_negative_index_in_a_list_never_turns_into_missing_data_unseen():
    whole = build(chunk=1)
    np.testing.assert_array_equal(addresses(whole[[0, -1]]), addresses(whole)[[0, -1]])
    waiting = build(chunk=3)[np.array([0, 1, 2, -1])]
    with pytest.raises(ChunkIndexError, match="-1 stands for the last element"):
        len(waiting.manifest)
    with pytest.raises(ChunkIndexError):
        np.concatenate([waiting, waiting])


def test_the_message_names_the_nearest_selection_that_works():
    with pytest.raises(ChunkIndexError, match=r"axis 0 \('t'\).*such as 3:6") as caught:
        build()[4:]
    assert caught.value.url == "s3://1/a.nc"


@pytest.mark.parametrize("key", [6, -7, [6], (0, 0), "a", 1.5, (Ellipsis, Ellipsis), [0.5], [True]])
def test_keys_that_are_none(key):
    with pytest.raises(IndexError):
        build(chunk=1)[key]


def test_pairs_of_index_arrays_are_refused_and_outer_ones_are_not():
    metadata = vc.ArrayMetadata.build(shape=(3, 4), chunks=(1, 1), dtype="<f4")
    entries = {f"{i}.{j}": {"path": "s3://1/a", "offset": 10 * i + j, "length": 4} for i in range(3) for j in range(4)}
    array = vc.ManifestArray(metadata, entries)
    with pytest.raises(ChunkIndexError, match="pair their elements up"):
        array[[0, 1], [0, 1]]
    outer = np.ix_([2, 0], [3, 1, 0])
    same(array[outer], addresses(array)[outer])
    one = (np.array([[1]]), np.array([[3, 1, 0]]))
    same(array[one], addresses(array)[one])
    with pytest.raises(ChunkIndexError):
        array[:, None][[0], :, [0, 1]]


def test_asking_for_values_says_what_to_do():
    for ask in (np.asarray, np.sum, np.nanmean, lambda array: np.add(array, 1), np.sqrt, bool, np.ravel):
        with pytest.raises(VirtualArrayError, match=r"\.virtual\.open\(\)"):
            ask(build())


def test_what_is_missing_inside_chunks_is_not_known():
    array = build()
    unknown = np.isnan(array)
    assert unknown.shape == (6,)
    assert not np.asarray(unknown).any()
    assert bool(((array == array) | (unknown & unknown)).all())
    for ask in (np.sum, np.count_nonzero, np.invert, lambda present: np.where(present, array, 0)):
        with pytest.raises(VirtualArrayError, match="not known without reading"):
            ask(~unknown)
    assert np.where(~unknown, array, array) is array
    with pytest.raises(VirtualArrayError, match="holds references only"):
        array + 1
    with pytest.raises(VirtualArrayError):
        np.where(unknown, array, 0)


def test_equality_is_true_to_the_chunks_that_differ():
    one, other = build(), build()
    assert np.array_equal(one, other)
    entries = one.manifest.dict()
    entries["1"]["offset"] = 7
    different = vc.ManifestArray(one.metadata, entries)
    np.testing.assert_array_equal(one == different, [True] * 3 + [False] * 3)
    np.testing.assert_array_equal(one != different, [False] * 3 + [True] * 3)
    assert not np.array_equal(one, different)
    assert not np.array_equal(one, build(compressed=False))
    assert np.array_equal(one, build(compressed=True))
    assert not np.equal(one, np.zeros(6)).any()
    with pytest.raises(ValueError, match="broadcast"):
        np.equal(one, build(n=3))


def test_missing_chunks_with_different_fill_values_differ():
    one = build().with_fill_value_only(1.0)
    assert np.array_equal(one, build().with_fill_value_only(1.0))
    assert not np.array_equal(one, build().with_fill_value_only(2.0))


def test_what_would_change_values_silently_is_refused_by_name():
    one = build(url="s3://1/a.nc", attributes={"scale_factor": 0.1})
    other = build(url="s3://2/b.nc", attributes={"scale_factor": 0.2})
    with pytest.raises(CombineError, match=r"'scale_factor' differs: 0\.1 and 0\.2.*s3://1/a\.nc.*s3://2/b\.nc"):
        np.concatenate([one, other])
    for name, values in {
        "_FillValue": (-999, -32767),
        "units": ("days since 2000-01-01", "days since 2000-01-05"),
    }.items():
        with pytest.raises(CombineError, match=name):
            np.concatenate([build(attributes={name: value}) for value in values])
    same_nan = [build(attributes={"_FillValue": float("nan")}) for _ in range(2)]
    assert np.concatenate(same_nan).shape == (12,)
    filled = np.concatenate([build().with_fill_value_only(1.0), build().with_fill_value_only(2.0)])
    assert read_values(filled, vc.ObjectStoreRegistry()).tolist() == [1.0] * 6 + [2.0] * 6
    assert filled.manifest.nbytes < 500
    keep = np.array([True] * 3 + [False] * 3)
    again = np.where(keep, build().with_fill_value_only(1.0), np.float32(4.0))
    assert read_values(again, vc.ObjectStoreRegistry()).tolist() == [1.0] * 3 + [4.0] * 3
    texts = [vc.ArrayMetadata.build(shape=(1,), chunks=(1,), dtype="S1", fill_value=text) for text in (b"a", b"b")]
    with pytest.raises(CombineError, match="missing chunks read as"):
        np.concatenate([vc.ManifestArray(text, {}) for text in texts])
    assert np.concatenate([build(), build(fill_value=3.0).with_fill_value_only()]).metadata.fill_value == 3.0


def test_values_join_as_chunks_in_memory():
    for compressed in (True, False):
        array = build(compressed=compressed)
        joined = np.concatenate([array, np.arange(4, dtype="f4")])
        assert joined.shape == (10,)
        assert joined.metadata.grid.is_regular
        assert joined.manifest["2"]["path"] == "__inlined__"
        front = np.concatenate([np.arange(4, dtype="f4"), array])
        assert front.metadata.grid.axes[0].edges == (3, 1, 3, 3)
        with pytest.raises(CombineError, match="cannot be concatenated"):
            np.concatenate([array, np.zeros((2, 2), "f4")])
        assert np.concatenate([array, np.zeros(2, "f8")]).dtype == np.dtype("f8")
        with pytest.raises(CombineError, match=r"no dtype holds without loss .* int64 from memory, float32 from s3"):
            np.concatenate([array, np.zeros(2, "i8")])


def test_grids_with_hardly_an_edge_in_common_are_refused():
    shapes = [(1, 1, 20_000), (1, 20_000, 1)]
    arrays = [
        vc.ManifestArray(vc.ArrayMetadata.build(shape=(1, 20_000, 20_000), chunks=chunks, dtype="<i2"), {})
        for chunks in shapes
    ]
    with pytest.raises(CombineError, match=r"would have \[1, 20000, 20000\] chunks.*loadable_variables"):
        np.concatenate(arrays)


def test_dtypes_promote_without_loss_and_convert_no_further():
    short = vc.ManifestArray(
        vc.ArrayMetadata.build(shape=(2,), chunks=(2,), dtype="<i2"),
        {"0": {"path": "s3://1/a", "offset": 0, "length": 4}},
    )
    wide = vc.ManifestArray(
        vc.ArrayMetadata.build(shape=(2,), chunks=(2,), dtype=">i4"),
        {"0": {"path": "s3://2/a", "offset": 0, "length": 8}},
    )
    joined = np.concatenate([short, wide])
    assert joined.dtype == np.dtype("i4")
    assert joined.is_heterogeneous
    assert np.result_type(short, wide) == np.dtype("i4")
    with pytest.raises(UnsupportedFeatureError, match="chance of loss"):
        wide.astype("f4")
    assert short.astype("f4").dtype == np.dtype("f4")
    assert not np.concatenate([short, short]).is_heterogeneous


def test_encodings_that_decode_alike_are_one():
    levels = []
    for level in (1, 9):
        codecs = [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "gzip", "configuration": {"level": level}},
        ]
        metadata = vc.ArrayMetadata.build(shape=(3,), chunks=(3,), dtype="<f4", codecs=codecs)
        levels.append(vc.ManifestArray(metadata, {"0": {"path": "s3://1/a", "offset": 0, "length": 5}}))
    assert not np.concatenate(levels).is_heterogeneous
    mixed = np.concatenate([levels[0], build(n=3, compressed=False)])
    assert mixed.is_heterogeneous
    assert len(mixed.manifest.sources.encodings) == 1


def test_months_become_a_rectilinear_axis_and_what_is_regular_stays_so():
    months = [build(n=n, chunk=n, url=f"s3://{n}/a.nc") for n in (31, 28, 31)]
    year = np.concatenate(months)
    assert year.metadata.grid.axes[0].edges == (31, 28, 31)
    days = [build(n=n, chunk=1) for n in (31, 28)]
    assert np.concatenate(days).metadata.chunks == (1,)
    tail = np.concatenate([build(n=6), build(n=4)])
    assert tail.metadata.chunks == (3,)
    cropped = np.concatenate([build(n=4), build(n=3)])
    assert cropped.is_heterogeneous
    assert cropped.metadata.grid.axes[0].edges == (3, 1, 3)
    assert not np.concatenate([build(n=4, compressed=False), build(n=3, compressed=False)]).is_heterogeneous


def test_copies_are_the_array_itself():
    array = build()
    assert copy.copy(array) is array
    assert copy.deepcopy(array) is array
    assert np.copy(array) is array
    assert [part.shape for part in build(chunk=1)] == [()] * 6
    assert len(array) == 6
    with pytest.raises(TypeError):
        len(build(chunk=1)[0])


def test_full_like_holds_no_references():
    empty = np.full_like(build(), 7.0)
    assert len(empty.manifest) == 0
    assert empty.metadata.fill_value == 7.0
    assert np.full_like(build(), 3, dtype="i2").dtype == np.dtype("i2")


def test_integers_are_never_missing():
    array = build()
    mask = np.full_like(array, False, dtype=bool)
    assert not np.asarray(mask).any()
    assert np.asarray(~mask).all()
    assert np.asarray(mask & mask).shape == array.shape


def test_a_scalar_pickles():
    metadata = vc.ArrayMetadata.build(shape=(), chunks=(), dtype="<i4")
    array = vc.ManifestArray(metadata, {"0": {"path": "s3://bucket/a", "offset": 1, "length": 4}})
    assert pickle.loads(pickle.dumps(array)).manifest == array.manifest


def test_integers_that_floats_round_are_promoted_as_numpy_promotes_them_and_named():
    long = vc.ManifestArray(
        vc.ArrayMetadata.build(shape=(2,), chunks=(2,), dtype="<i8").replace(name="v"),
        {"0": {"path": "s3://1/a", "offset": 0, "length": 16}},
    )
    with pytest.warns(RoundingWarning, match=r"'v' of s3://1/a holds int64.* float64.* 2\*\*53 are rounded"):
        assert long.astype("f8").dtype == np.dtype("f8")
    with pytest.raises(UnsupportedFeatureError, match="int64"):
        long.astype("f4")
    with pytest.warns(RoundingWarning, match="s3://1/a"):
        assert np.concatenate([long, build().astype("f8")]).dtype == np.dtype("f8")
    short = vc.ManifestArray(vc.ArrayMetadata.build(shape=(2,), chunks=(2,), dtype="<i4"), {})
    assert short.astype("f8").dtype == np.dtype("f8")  # without a word: nothing is lost


def test_a_fill_value_beside_packed_values_would_be_unpacked_with_them():
    packed = build(attributes={"scale_factor": 0.1, "add_offset": 5.0, "_FillValue": np.float32(-999)})
    keep = np.array([True] * 3 + [False] * 3)
    with pytest.raises(CombineError, match=r"cannot fill with 0.*packed \(scale_factor, add_offset\)"):
        np.where(keep, packed, 0)
    with pytest.raises(CombineError, match="packed"):
        np.full_like(packed, 0)
    for value in (np.nan, -999):
        assert len(np.where(keep, packed, np.float32(value)).manifest) == 1
