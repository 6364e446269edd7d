"""Encodings: which are equal, and what rearranging axes does to them, against zarr decoding the bytes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchunks.codecs.pipeline import decode_block, encode_block
from virtualchunks.encoding import ChunkEncoding, byte_order, bytes_codec
from virtualchunks.errors import DecodeError, ManifestError, MissingDependencyError, UnsupportedFeatureError


def codec(name, **configuration):
    return {"name": name, "configuration": configuration}


def test_levels_do_not_matter_and_what_decoders_need_does():
    def plain(*codecs):
        return ChunkEncoding.plain("<i4", codecs)

    assert plain(codec("numcodecs.zlib", level=1)) == plain(codec("numcodecs.zlib", level=9))
    assert hash(plain(codec("gzip", level=1))) == hash(plain(codec("gzip", level=9)))
    assert plain(codec("blosc", cname="lz4", clevel=1)) == plain(codec("blosc", cname="zstd", clevel=5))
    assert plain(codec("zstd", level=1, checksum=True)) == plain(codec("numcodecs.zstd", level=3))
    assert plain(codec("numcodecs.shuffle", elementsize=4)) != plain(codec("numcodecs.shuffle", elementsize=2))
    assert plain(codec("gzip", level=1)) != plain(codec("numcodecs.zlib", level=1))
    assert plain() != ChunkEncoding.plain(">i4")
    assert plain() != ChunkEncoding(np.dtype("<i4"), plain().codecs, shape=(3,))
    assert plain() != "bytes"
    with pytest.raises(ManifestError, match="at least the codec"):
        ChunkEncoding(np.dtype("<i4"), ())


def test_byte_order():
    assert byte_order(np.dtype("u1")) is None
    assert byte_order(np.dtype("S5")) is None
    assert byte_order(np.dtype(">U3")) == "big"
    assert byte_order(np.dtype([("a", "<i2"), ("b", "u1")])) == "little"
    assert bytes_codec(np.dtype([("a", "u1")])) == {"name": "bytes"}
    with pytest.raises(UnsupportedFeatureError, match="differ in byte order"):
        byte_order(np.dtype([("a", "<i2"), ("b", ">i2")]))


@given(st.permutations(range(3)), st.permutations(range(3)))
def test_transposing_twice_decodes_to_the_transposed_block(first, second):
    block = np.arange(24, dtype="<i2").reshape(2, 3, 4)
    encoding = ChunkEncoding.plain("<i2", [codec("gzip", level=1)])
    data = encode_block(block, encoding)
    once = encoding.transposed(first)
    twice = once.transposed(second)
    expected = block.transpose(first).transpose(second)
    np.testing.assert_array_equal(decode_block(data, twice, expected.shape), expected)
    assert once.transposed(np.argsort(first).tolist()) == encoding
    order = twice.storage_order(3)
    assert expected.transpose(order).shape == block.shape


@given(st.permutations(range(2)), st.integers(0, 2))
def test_axes_of_length_one_come_and_go(axes, place):
    block = np.arange(6, dtype=">f4").reshape(2, 3)
    encoding = ChunkEncoding.plain(">f4")
    data = encode_block(block, encoding)
    moved = encoding.transposed(axes)
    grown = moved.with_axis(place, 2)
    expected = np.expand_dims(block.transpose(axes), place)
    np.testing.assert_array_equal(decode_block(data, grown, expected.shape), expected)
    assert grown.without_axis(place, 3) == moved


def test_codecs_that_know_their_dimensions_refuse_new_ones():
    encoding = ChunkEncoding(np.dtype("u1"), (codec("imagecodecs_jpeg"),))
    with pytest.raises(UnsupportedFeatureError, match="imagecodecs_jpeg"):
        encoding.with_axis(0, 2)
    with pytest.raises(UnsupportedFeatureError, match="drop an axis"):
        encoding.without_axis(0, 2)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "?", "<f2", ">c8", "S3", "<U2", "<M8[s]", "V5"])
@pytest.mark.parametrize("compressor", [None, codec("gzip", level=1), codec("numcodecs.shuffle", elementsize=2)])
def test_blocks_go_round(dtype, compressor):
    encoding = ChunkEncoding.plain(dtype, [compressor] if compressor else [])
    raw = np.arange(12 * np.dtype(dtype).itemsize, dtype="u1")
    if np.dtype(dtype).kind in "bU":
        raw[:] = 0
    block = raw.view(np.dtype(dtype).newbyteorder("=")).reshape(3, 4)
    data = encode_block(block, encoding)
    assert decode_block(data, encoding, (3, 4)).tobytes() == block.tobytes()
    assert encoding.is_uncompressed == (compressor is None)


def test_bytes_that_do_not_decode_are_an_error_of_ours():
    encoding = ChunkEncoding.plain("<i4", [codec("gzip", level=1)])
    with pytest.raises(DecodeError, match="do not decode"):
        decode_block(b"not gzip at all", encoding, (2,))
    with pytest.raises(DecodeError):
        decode_block(b"12345", ChunkEncoding.plain("<i4"), (2,))
    with pytest.raises(MissingDependencyError, match="nowhere_to_be_found"):
        decode_block(b"1234", ChunkEncoding.plain("<i4", [codec("nowhere_to_be_found")]), (1,))


def test_the_shape_that_bytes_decode_to_may_be_its_own():
    encoding = ChunkEncoding(np.dtype("<i2"), ChunkEncoding.plain("<i2").codecs, shape=(2, 3))
    block = decode_block(np.arange(6, dtype="<i2").tobytes(), encoding, (1, 3))
    assert block.shape == (2, 3)
    assert encoding.transposed((1, 0)).shape == (3, 2)
    assert encoding.with_axis(1, 2).shape == (2, 1, 3)


def test_every_permutation_has_a_storage_order():
    for axes in itertools.permutations(range(3)):
        assert ChunkEncoding.plain("<f4").transposed(axes).storage_order(3) == tuple(np.argsort(axes))
