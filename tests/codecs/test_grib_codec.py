"""The codec of GRIB messages: what it decodes, what it refuses, and from many threads at once."""

from __future__ import annotations

import concurrent.futures
import random
import sys
import threading

import numpy as np
import pytest
from griboracle import fused, message, values_of

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


def in_order(jobs):
    return [decode_block(data, encoding(**configuration), (24,)) for data, configuration in jobs]


def test_many_threads_decode_what_one_does():
    """Packings, editions, bitmaps, fields of one message and coordinates, all at once and in any order."""
    packings = ("simple", "ieee", "complex", "complex_spatial_differencing", "ccsds", "jpeg")
    plain = [message(seed=seed, packingType=f"grid_{packing}") for seed, packing in enumerate(packings * 3)]
    older = [message("regular_ll_sfc_grib1", seed=seed, missing=seed % 2 == 1) for seed in range(6)]
    several = fused(*(message("regular_ll_pl_grib2", seed=seed, level=level) for seed, level in ((1, 500), (2, 850))))
    jobs = [
        *((data, {}) for data in (*plain, *older)),
        *((data, {"read": name}) for data in plain[:7] for name in ("latitudes", "longitudes")),
        *((several, {"field": number}) for number in (0, 1)),
    ]
    expected = in_order(jobs)
    np.testing.assert_array_equal(expected[: len(plain)], [values_of(data) for data in plain])
    shuffled = random.Random(0).sample(range(len(jobs) * 20), len(jobs) * 20)
    barrier = threading.Barrier(8)

    def decode(part):
        barrier.wait(30)
        return [(number, *in_order([jobs[number % len(jobs)]])) for number in part]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        done = [one for part in pool.map(decode, (shuffled[start::8] for start in range(8))) for one in part]
    assert len(done) == len(shuffled)
    for number, found in done:
        np.testing.assert_array_equal(found, expected[number % len(jobs)])


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
