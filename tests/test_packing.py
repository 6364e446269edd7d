"""Packing: lifted numbers are the values that xarray gives, bit for bit."""

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from virtualchunks import ArrayMetadata, ChunkEncoding, ManifestArray
from virtualchunks.errors import ManifestError
from virtualchunks.manifest import ChunkManifest
from virtualchunks.packing import Packing

INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
FLOATS = ["f2", "f4", "f8"]


def by_xarray(values, attributes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoded = xr.conventions.decode_cf_variable(
            "v", xr.Variable(("x",) * values.ndim, values, attributes), decode_times=False
        )
        return decoded.values, decoded.attrs


def assert_bits(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    kept = ~np.isnan(expected)
    assert found[kept].tobytes() == expected[kept].tobytes()


@st.composite
def packed(draw):
    dtype = np.dtype(draw(st.sampled_from(INTEGERS + FLOATS)))
    number = st.one_of(
        st.sampled_from([np.float32(0.1), np.float64(0.1), 0.01, np.float32(3), np.float64(-7.25), 2, np.int16(3)]),
        st.floats(-1e3, 1e3).map(np.float64),
        st.floats(-1e3, 1e3, width=32).map(np.float32),
    )
    values = draw(st.lists(st.integers(0, 2 ** (8 * dtype.itemsize) - 1), min_size=1, max_size=6))
    stored = np.array(values, dtype=f"u{dtype.itemsize}").view(dtype)
    fills = [stored[0], np.array(draw(st.integers(0, 100))).astype(dtype)[()], np.nan, np.float32(1e20), -999]
    fill = st.one_of(st.sampled_from(fills), st.sampled_from(fills[:2]).map(lambda one: np.array([one, one])))
    names = {
        "scale_factor": number,
        "add_offset": number,
        "_FillValue": fill,
        "missing_value": fill,
        "_Unsigned": st.sampled_from(["true", "false", "True"]),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(names)), min_size=1, unique=True))
    return stored, {name: draw(names[name]) for name in chosen}


@given(packed())
@settings(max_examples=300, deadline=None)
def test_lifting_is_what_xarray_does(case):
    stored, attributes = case
    packing = Packing.of({"long_name": "v", **attributes}, stored.dtype)
    if packing is None:  # then xarray decodes when the array is opened, and packings that differ are refused
        return
    with np.errstate(all="ignore"):
        expected, _ = by_xarray(stored, dict(attributes))
    assert packing.dtype == expected.dtype
    assert_bits(packing.lift(stored), expected)
    assert_bits(packing.lift(stored[0].reshape(())), expected[0].reshape(()))
    assert_bits(packing.lift(stored[:0]), expected[:0])
    if not packing.key:
        assert_bits(packing.lift(stored), stored)


@pytest.mark.parametrize(
    ("dtype", "attributes"),
    [
        ("i2", {"long_name": "v"}),
        ("S3", {"_FillValue": b"abc"}),
        ("i2", {"scale_factor": "0.1"}),
        ("i2", {"scale_factor": [0.1]}),
        ("i2", {"scale_factor": True}),
        ("i2", {"_FillValue": "x"}),
        ("i1", {"_FillValue": 300, "_Unsigned": "true"}),
        ("i2", {"_FillValue": np.int16(1), "scale_factor": np.int16(2)}),
        ("c8", {"scale_factor": 2.0}),
        ("?", {"_FillValue": np.int8(1)}),
    ],
)
def test_what_is_left_to_xarray(dtype, attributes):
    assert Packing.of(attributes, np.dtype(dtype)) is None
    metadata = ArrayMetadata.build(shape=(2,), chunks=(2,), dtype=dtype, attributes=attributes)
    array = ManifestArray(metadata, {})
    assert array.lifted() is array
    if dtype != "S3":
        with pytest.raises(ManifestError, match="do not say how"):
            Packing(np.dtype(dtype), {"scale_factor": "x"})


def test_most_drawn_cases_are_lifted():
    assert Packing.of({"_FillValue": -999}, np.dtype("i2")) is not None
    assert Packing.of({"_FillValue": np.nan}, np.dtype("i2")) is not None
    assert Packing.of({"_Unsigned": "true", "_FillValue": np.int8(-1)}, np.dtype("i1")) is not None
    assert Packing.of({"missing_value": np.array([1.0, 2.0])}, np.dtype("f4")) is not None


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_changes_no_value_is_no_other_encoding(dtype):
    plain = ChunkEncoding.plain(dtype)
    nan = ChunkEncoding(plain.dtype, plain.codecs, packing=Packing.of({"_FillValue": np.nan}, np.dtype(dtype)))
    masked = ChunkEncoding(plain.dtype, plain.codecs, packing=Packing.of({"_FillValue": 9.0}, np.dtype(dtype)))
    assert nan == plain
    assert hash(nan) == hash(plain)
    assert masked != plain
    assert masked.decode_key != plain.decode_key
    assert "9.0" in repr(masked)


def lifted(attributes, dtype="<i2", fill_value=0, chunks=2):
    metadata = ArrayMetadata.build(
        shape=(4,), chunks=(chunks,), dtype=dtype, attributes={"units": "K", **attributes}, fill_value=fill_value
    )
    entries = {"0": {"path": "s3://bucket/a.nc", "offset": 0, "length": 4}}
    return ManifestArray(metadata, ChunkManifest(entries, shape=(2,))), metadata


@pytest.mark.parametrize("fill_value", [0, -999, 7])
@pytest.mark.parametrize(
    "attributes",
    [
        {"scale_factor": np.float32(0.5), "_FillValue": np.int16(-999)},
        {"add_offset": 2.0},
        {"_FillValue": np.int16(-999), "missing_value": np.int16(7)},
        {"_Unsigned": "true"},
    ],
    ids=str,
)
def test_packing_is_put_back_as_it_was(attributes, fill_value):
    array, metadata = lifted(attributes, fill_value=fill_value)
    up = array.lifted()
    assert up.metadata.attributes == {"units": "K"}
    assert up.dtype == by_xarray(np.zeros(1, "i2"), dict(attributes))[0].dtype
    expected = by_xarray(np.array(fill_value, "i2"), dict(attributes))[0]
    np.testing.assert_array_equal(up.metadata.fill_value, expected)
    assert not up.is_heterogeneous
    assert up.as_stored().metadata == metadata
    assert up.as_stored().manifest == array.manifest
    assert np.concatenate([up, up]).as_stored().metadata.attributes == metadata.attributes
    assert up.lifted() is up


def test_missing_chunks_that_no_stored_number_stands_for():
    array, _ = lifted({"scale_factor": 0.5})
    up = array.lifted()
    filled = np.where(np.array([True, True, False, False]), up, np.nan)
    assert filled.is_heterogeneous
    assert filled.as_stored() is filled
    masked, _ = lifted({"scale_factor": 0.5, "missing_value": np.int16(-9)})
    stored = np.where(np.array([True, True, False, False]), masked.lifted(), np.nan).as_stored()
    assert stored.metadata.fill_value == -9


def test_arrays_of_times_stay_as_stored():
    array, _ = lifted({"_FillValue": np.int16(-9), "units": "days since 2000-01-01"})
    assert array.lifted() is array
