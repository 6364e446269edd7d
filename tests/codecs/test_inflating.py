"""Compressed chunks that hold more than a chunk can: refused before the memory is taken, whatever the compressor."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
import zlib
from collections.abc import Callable

import numcodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import DecodeError

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "numcodecs.zlib": zlib.compress,
    "numcodecs.bz2": bz2.compress,
    "numcodecs.lzma": lzma.compress,
    "zstd": numcodecs.Zstd().encode,
    "numcodecs.zstd": numcodecs.Zstd().encode,
    "numcodecs.lz4": numcodecs.LZ4().encode,
    "numcodecs.blosc": numcodecs.Blosc().encode,
}
#: Of these, streams that stand one behind the other are one chunk.
JOINED = ("gzip", "numcodecs.bz2", "numcodecs.lzma", "zstd")
BOMB = 256 << 20


def zstandard_of_unknown_size(byte: bytes, count: int) -> bytes:
    """A frame of runs of one byte that does not state its size (RFC 8878, section 3.1.1)."""
    blocks = []
    while count:
        run = min(count, 1 << 17)
        count -= run
        blocks.append((run << 3 | 1 << 1 | (count == 0)).to_bytes(3, "little") + byte)
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(blocks)


def encoding(name: str) -> ChunkEncoding:
    return ChunkEncoding.plain("<f4", [{"name": name, "configuration": {}}])


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    zeros = bytes(BOMB)
    return {name: compress(zeros) for name, compress in COMPRESSORS.items()}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_bomb_is_refused_without_the_memory(name: str, bombs: dict[str, bytes]) -> None:
    decode_block(COMPRESSORS[name](bytes(4096)), encoding(name), (1024,))
    tracemalloc.start()
    with pytest.raises(DecodeError, match=r"4096"):
        decode_block(bombs[name], encoding(name), (1024,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("size", [1023, 1025, 0])
def test_another_number_of_elements_is_refused(name: str, size: int) -> None:
    with pytest.raises(DecodeError):
        decode_block(COMPRESSORS[name](bytes(4 * size)), encoding(name), (1024,))


def test_zstandard_that_does_not_state_its_size() -> None:
    ones = zstandard_of_unknown_size(b"\1", 4096)
    assert np.array_equal(decode_block(ones, encoding("zstd"), (1024,)), np.full(1024, 0x01010101, "i4").view("f4"))
    for size in (4095, 4097, BOMB):
        with pytest.raises(DecodeError):
            decode_block(zstandard_of_unknown_size(b"\1", size), encoding("zstd"), (1024,))


@pytest.mark.parametrize("name", JOINED)
@given(lengths=st.lists(st.integers(1, 600), min_size=1, max_size=4), excess=st.integers(-1, 1))
def test_joined_streams_are_one_chunk(name: str, lengths: list[int], excess: int) -> None:
    parts = [bytes([number + 1]) * length for number, length in enumerate(lengths)]
    data, total = b"".join(map(COMPRESSORS[name], parts)), sum(lengths)
    plain = ChunkEncoding.plain("u1", [{"name": name, "configuration": {}}])
    expected = total + excess
    if expected == total:
        assert decode_block(data, plain, (total,)).tobytes() == b"".join(parts)
    else:
        with pytest.raises(DecodeError):
            decode_block(data, plain, (expected,))


@pytest.mark.parametrize("name", COMPRESSORS)
@given(data=st.binary(max_size=64))
def test_what_no_compressor_wrote_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_block(data, encoding(name), (1024,))


def test_two_compressors_of_one_chunk() -> None:
    twice = ChunkEncoding.plain("<f4", [{"name": "gzip", "configuration": {}}, {"name": "zstd", "configuration": {}}])
    values = np.arange(1024, dtype="f4")
    inner = gzip.compress(values.tobytes())
    assert np.array_equal(decode_block(numcodecs.Zstd().encode(inner), twice, (1024,)), values)
    with pytest.raises(DecodeError, match="state that they decode to"):
        decode_block(numcodecs.Zstd().encode(bytes(BOMB)), twice, (1024,))
