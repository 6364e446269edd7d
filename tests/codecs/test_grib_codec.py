"""The codec of GRIB messages: what it decodes, what it refuses, and from many threads at once."""

from __future__ import annotations

import concurrent.futures
import sys

import numpy as np
import pytest
from griboracle import message, values_of

from virtualchunks.codecs import grib_handle
from virtualchunks.codecs.grib import GRIB
from virtualchunks.codecs.pipeline import decode_block, encode_block
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import DecodeError, FormatError, MissingDependencyError, UnsupportedFeatureError

MADE_BEFORE = message()


def encoding(dtype="<f8", **configuration):
    return ChunkEncoding(np.dtype(dtype), ({"name": "virtualchunks.grib", "configuration": configuration},))


def test_a_message_is_a_block_of_any_shape_that_holds_its_values():
    data = message()
    for shape in ((4, 6), (1, 1, 4, 6), (24,)):
        np.testing.assert_array_equal(decode_block(data, encoding(), shape), values_of(data).reshape(shape))


@pytest.mark.parametrize("sample", ["regular_ll_sfc_grib1", "regular_ll_sfc_grib2"])
def test_missing_values_are_nan(sample):
    data = message(sample, missing=True)
    values = decode_block(data, encoding(), (24,))
    assert np.isnan(values[::3]).all()
    np.testing.assert_array_equal(values, values_of(data))


@pytest.mark.parametrize("packing", ["grid_simple", "grid_ieee", "grid_complex", "grid_ccsds", "grid_jpeg"])
def test_packings_decode_as_the_library_does(packing):
    data = message("regular_ll_sfc_grib2", packingType=packing)
    np.testing.assert_array_equal(decode_block(data, encoding(), (24,)), values_of(data))


def test_single_precision_is_a_choice():
    data = message()
    values = decode_block(data, encoding("<f4"), (24,))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, values_of(data).astype("f4"))


def test_messages_decode_in_many_threads():
    messages = [message(seed=seed) for seed in range(32)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda data: decode_block(data, encoding(), (24,)), messages * 8))
    expected = [values_of(data) for data in messages] * 8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(23,), (5, 5), (0,)])
def test_another_number_of_values_is_refused(shape):
    with pytest.raises(DecodeError, match="24 values"):
        decode_block(message(), encoding(), shape)


@pytest.mark.parametrize(
    "data",
    [b"", b"GRIB", b"GRIB" + bytes(100), message()[:-1], message()[:-4] + b"7778", message() + b"\0", message() * 2],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises((DecodeError, FormatError)):
        decode_block(data, encoding(), (24,))


def test_a_field_that_is_not_there_is_refused():
    with pytest.raises((DecodeError, FormatError), match="has 1"):
        decode_block(message(), encoding(field=1), (24,))


def test_values_are_not_encoded():
    with pytest.raises(UnsupportedFeatureError, match="decodes only"):
        encode_block(np.zeros(24), encoding())


@pytest.mark.parametrize("configuration", [{"field": -1}, {"field": "0"}, {"field": True}, {"read": "bitmap"}])
def test_parameters_are_checked(configuration):
    with pytest.raises(FormatError, match=r"virtualchunks\.grib"):
        GRIB(**configuration)


@pytest.mark.parametrize("configuration", [{}, {"field": 2}, {"read": "latitudes"}])
def test_metadata_round_trips(configuration):
    codec = GRIB(**configuration)
    assert codec.to_dict() == {"name": "virtualchunks.grib", "configuration": configuration}
    assert GRIB.from_dict(codec.to_dict()) == codec


@pytest.mark.parametrize("document", [{"name": "grib"}, {"name": "virtualchunks.grib", "configuration": {"x": 1}}])
def test_other_metadata_is_refused(document):
    with pytest.raises(FormatError):
        GRIB.from_dict(document)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "eccodes", None)
    grib_handle.eccodes.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match=r"virtualchunks\[grib\]"):
            decode_block(MADE_BEFORE, encoding(), (24,))
    finally:
        grib_handle.eccodes.cache_clear()
