"""The codec of TIFF files: its document, its checks, and each step against NumPy, imagecodecs or hand-made bytes."""

from __future__ import annotations

import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiffwriter import register_codec
from zarr.abc.codec import ArrayBytesCodec

from virtualchunks.codecs.pipeline import decode_block, encode_block
from virtualchunks.codecs.tiff import NAME, TIFFSamples
from virtualchunks.codecs.tiff_chunk import SampleLayout, imagecodecs
from virtualchunks.codecs.tiff_guards import check_image
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import DecodeError, FormatError, UnsupportedFeatureError

library = pytest.importorskip("imagecodecs")
register_codec()


def layout(**options: Any) -> SampleLayout:
    """Return a layout of one byte a pixel, eight pixels a row, with some fields changed."""
    plain = {"compression": 1, "bits": 8, "sample_format": 1, "width": 8, "samples": 1, "endian": "little"}
    return SampleLayout(**(plain | options))


def test_it_comes_back_from_its_document() -> None:
    """Fields at their defaults are left out."""
    codec = TIFFSamples(layout(compression=7, tables="/9j/2Q==", photometric=6, samples=3))
    document = codec.to_dict()
    assert document["name"] == NAME
    assert "predictor" not in document["configuration"]
    assert TIFFSamples.from_dict(document) == codec
    assert isinstance(codec, ArrayBytesCodec)


@pytest.mark.parametrize(
    "configuration",
    [{}, {"compression": 1}, {**TIFFSamples(layout()).to_dict()["configuration"], "command": "x"}],
)
def test_other_documents_are_refused(configuration: dict[str, Any]) -> None:
    """Parameters that are missing, and ones that nobody knows."""
    with pytest.raises(FormatError, match=r"virtualchunks\.tiff"):
        TIFFSamples.from_dict({"name": NAME, "configuration": configuration})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"width": 0}, FormatError),
        ({"samples": True}, FormatError),
        ({"endian": "middle"}, FormatError),
        ({"fill_order": 3}, FormatError),
        ({"compression": 6}, UnsupportedFeatureError),
        ({"bits": 65}, UnsupportedFeatureError),
        ({"predictor": 4, "compression": 5}, UnsupportedFeatureError),
    ],
)
def test_parameters_are_checked(options: dict[str, Any], error: type[Exception]) -> None:
    """When the codec is made, not when it is used."""
    with pytest.raises(error):
        layout(**options)


@settings(max_examples=100)
@given(
    bits=st.integers(1, 64), width=st.integers(1, 9), rows=st.integers(1, 4), samples=st.integers(1, 3), data=st.data()
)
def test_packed_integers(bits: int, width: int, rows: int, samples: int, data: st.DataObject) -> None:
    """Against Python's integers: a row is one number in base 2 to the bits."""
    per_row = width * samples
    values = [[data.draw(st.integers(0, 2**bits - 1)) for _ in range(per_row)] for _ in range(rows)]
    raw = b""
    for row in values:
        number = 0
        for value in row:
            number = number << bits | value
        size = -(-bits * per_row // 8)
        order = "big"
        raw += (number << (8 * size - bits * per_row)).to_bytes(size, order)
    made = layout(bits=bits, width=width, samples=samples, endian="big").decode(raw, rows * per_row)
    assert made.astype("u8").reshape(rows, per_row).tolist() == values


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">u2", "<u4", ">i8", "<f2", ">f4", "<f8", "<c8"])
@pytest.mark.parametrize("samples", [1, 3])
def test_horizontal_differences(dtype: str, samples: int) -> None:
    """Against differences made by NumPy, of the bits of the samples."""
    values = (
        np.random.default_rng(0).integers(0, 255, (5, 8, samples, np.dtype(dtype).itemsize), dtype="u1").view(dtype)
    )
    values = values.reshape(5, 8, samples)
    words = values.view(np.dtype(dtype).str[0].replace("|", "<") + f"u{values.itemsize}")
    differences = words.copy()
    differences[:, 1:] = words[:, 1:] - words[:, :-1]
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[values.dtype.kind]
    made = layout(
        compression=8,
        predictor=2,
        bits=8 * values.itemsize,
        sample_format=kind,
        samples=samples,
        endian="big" if dtype[0] == ">" else "little",
    ).decode(zlib.compress(differences.tobytes()), values.size)
    assert made.tobytes() == values.astype(values.dtype.newbyteorder("=")).tobytes()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("samples", [1, 3])
def test_floating_point_differences(dtype: str, samples: int) -> None:
    """Against imagecodecs."""
    values = np.random.default_rng(0).normal(size=(5, 8, samples)).astype(dtype)
    encoded = library.floatpred_encode(values, axis=-2, dist=1).tobytes()
    made = layout(compression=8, predictor=3, bits=8 * values.itemsize, sample_format=3, samples=samples)
    np.testing.assert_array_equal(made.decode(zlib.compress(encoded), values.size).reshape(values.shape), values)


def test_every_float_of_24_bits() -> None:
    """Against imagecodecs: normal, subnormal and infinite ones, and NaN."""
    words = np.concatenate([np.arange(0, 2**24, 251), np.arange(2**16), 0x7F0000 + np.arange(0, 2**16, 7)])
    raw = words.astype(">u4").view("u1").reshape(-1, 4)[:, 1:].tobytes()
    made = layout(bits=24, sample_format=3, width=1, endian="big").decode(raw, len(words))
    np.testing.assert_array_equal(made, library.float24_decode(raw, byteorder=">"))


def test_masked_pixels_of_lerc_are_nan() -> None:
    """They have no value; zero would be one."""
    values = np.arange(64, dtype="f4").reshape(8, 8)
    mask = values % 3 != 0
    made = layout(compression=34887, bits=32, sample_format=3).decode(library.lerc_encode(values, masks=mask), 64)
    np.testing.assert_array_equal(made.reshape(8, 8), np.where(mask, values, np.nan))


@pytest.mark.parametrize("extra", [1, 2])
def test_lerc_compressed_once_more(extra: int) -> None:
    """By deflate or zstd, as the second of LercParameters says."""
    values = np.arange(64, dtype="f4").reshape(8, 8)
    compress = zlib.compress if extra == 1 else library.zstd_encode
    made = layout(compression=34887, bits=32, sample_format=3, options=extra)
    np.testing.assert_array_equal(made.decode(compress(library.lerc_encode(values)), 64).reshape(8, 8), values)


@pytest.mark.parametrize("compression", [5, 7, 8, 2, 3, 4, 32773, 34712, 34887, 34925, 34933, 50000, 50001, 50002])
def test_noise_is_an_error_of_ours(compression: int) -> None:
    """Or eight pixels, where a decoder makes something of it; nothing else."""
    chance = np.random.default_rng(compression)
    bits = 1 if compression in (2, 3, 4) else 8
    for length in (0, 1, 5, 50, 500):
        try:
            made = layout(compression=compression, bits=bits).decode(chance.bytes(length), 64)
        except DecodeError:
            continue
        assert made.shape == (64,)


@pytest.mark.parametrize("compression", [8, 5, 32773, 34925, 50000])
def test_a_bomb_takes_no_memory(compression: int) -> None:
    """A chunk that inflates to 32 MB where 64 bytes are expected."""
    huge = bytes(32 << 20)
    compress = {
        8: zlib.compress,
        5: library.lzw_encode,
        32773: lambda data: b"\x81\0" * (len(data) // 128),
        34925: library.lzma_encode,
        50000: library.zstd_encode,
    }
    data = compress[compression](huge)
    tracemalloc.start()
    try:
        layout(compression=compression).decode(data, 64)
    except DecodeError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("compression", "encode"),
    [
        (7, lambda a: library.jpeg8_encode(a)),
        (34712, lambda a: library.jpeg2k_encode(a)),
        (50001, lambda a: library.webp_encode(a, lossless=True)),
        (50001, lambda a: library.webp_encode(a, level=50)),
        (34933, lambda a: library.png_encode(a)),
        (34887, lambda a: library.lerc_encode(a)),
    ],
)
def test_images_are_measured_before_they_are_decoded(compression: int, encode: Any) -> None:
    """One that is far larger than its chunk is refused."""
    data = encode(np.zeros((2500, 2500, 3), dtype="u1"))
    check_image(compression, data, 2500 * 2500 * 3)
    with pytest.raises(DecodeError, match="claims"):
        check_image(compression, data, 64)


def test_it_only_decodes() -> None:
    """And says so."""
    encoding = ChunkEncoding(np.dtype("u1"), (TIFFSamples(layout(compression=5)).to_dict(),))
    values = np.arange(64, dtype="u1").reshape(8, 8)
    np.testing.assert_array_equal(decode_block(library.lzw_encode(values.tobytes()), encoding, (8, 8)), values)
    with pytest.raises(UnsupportedFeatureError, match="decodes only"):
        encode_block(values, encoding)


def test_the_library_is_there() -> None:
    """It is loaded when it is needed."""
    assert imagecodecs() is library
