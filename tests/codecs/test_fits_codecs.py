"""The codecs of FITS files: what they take, what they refuse, and what zarr makes of them."""

from __future__ import annotations

import gzip
from typing import Any

import fitscodecs
import numpy as np
import pytest
from astropy.io.fits.hdu.compressed._compression import unquantize_float_c

from virtualchunks.codecs import fits_dither
from virtualchunks.codecs.fits_columns import FITSBits, FITSLogical, FITSText
from virtualchunks.codecs.fits_tile import TILE, FITSTile, read_tiles, write_tiles
from virtualchunks.codecs.offset_binary import OffsetBinary, invert_highest_bit
from virtualchunks.codecs.pipeline import decode_block, encode_block
from virtualchunks.codecs.strided import Strided
from virtualchunks.encoding import ChunkEncoding, bytes_codec
from virtualchunks.errors import DecodeError, FormatError, UnsupportedFeatureError

fitscodecs.register()

TILES = write_tiles(np.zeros(4, dtype=TILE))
EXAMPLES: list[Any] = [
    OffsetBinary(),
    Strided(width=4, stride=10, count=7),
    FITSLogical(),
    FITSBits(bits=11),
    FITSText(width=8),
    FITSText(width=8, decimals=3, null="N/A"),
    FITSTile(algorithm="RICE_1", bitpix=16, parameters={"blocksize": 32, "bytepix": 2}),
    FITSTile(algorithm="GZIP_1", bitpix=-32, dither="NO_DITHER", tile_shape=(2, 3), tiles=TILES, blank=None),
]


@pytest.mark.parametrize("codec", EXAMPLES, ids=repr)
def test_metadata_leads_back_to_the_codec(codec: Any) -> None:
    """Nothing is lost, and equal codecs are equal."""
    again = type(codec).from_dict(codec.to_dict())
    assert again == codec
    assert hash(again) == hash(codec)


@pytest.mark.parametrize("codec", EXAMPLES, ids=repr)
def test_unknown_parameters_are_refused(codec: Any) -> None:
    """A reader that does not know them would decode something else."""
    document = codec.to_dict()
    document["configuration"] = {**document.get("configuration", {}), "unheard_of": 1}
    with pytest.raises(FormatError, match="unheard_of"):
        type(codec).from_dict(document)
    with pytest.raises(FormatError, match="not the metadata of a codec"):
        type(codec).from_dict({"name": "another"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Strided(width=4, stride=3, count=1), "stride"),
        (lambda: Strided(width=0, stride=3, count=1), "width"),
        (lambda: Strided(width=True, stride=3, count=1), "width"),
        (lambda: FITSBits(bits=0), "bits"),
        (lambda: FITSText(width=-1), "width"),
        (lambda: FITSTile(algorithm="LZMA", bitpix=8), "unknown algorithm"),
        (lambda: FITSTile(algorithm="GZIP_1", bitpix=7), "bitpix"),
        (lambda: FITSTile(algorithm="RICE_1", bitpix=8), "blocksize"),
        (lambda: FITSTile(algorithm="RICE_1", bitpix=8, parameters={"blocksize": 0, "bytepix": 4}), "RICE_1"),
        (lambda: FITSTile(algorithm="GZIP_1", bitpix=-32, dither="NO_DITHER"), "dither needs both"),
        (lambda: FITSTile(algorithm="GZIP_1", bitpix=-32, dither="SOME", tile_shape=(1,), tiles=TILES), "dither"),
        (lambda: read_tiles("no base64!"), "tiles"),
    ],
)
def test_wrong_parameters_are_refused(make: Any, message: str) -> None:
    """When the codec is made, not when it is used."""
    with pytest.raises(FormatError, match=message):
        make()


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_offset_binary_is_exact_for_all_bits(dtype: str) -> None:
    """Against arithmetic on Python's integers, which have no end."""
    kind = np.dtype(dtype)
    info = np.iinfo(kind)
    values = np.array([info.min, info.min + 1, info.max // 2, info.max - 1, info.max], dtype=kind)
    stored = invert_highest_bit(values)
    half = 1 << (8 * kind.itemsize - 1)
    signed = stored.view(f"i{kind.itemsize}") if kind.kind == "u" else stored.view(f"u{kind.itemsize}")
    assert [int(v) for v in signed] == [int(v) - (half if kind.kind == "u" else -half) for v in values]
    encoding = ChunkEncoding(
        kind.newbyteorder(">"), ({"name": "virtualchunks.offset_binary"}, bytes_codec(kind.newbyteorder(">")))
    )
    data = encode_block(values, encoding)
    assert data == stored.astype(stored.dtype.newbyteorder(">")).tobytes()
    np.testing.assert_array_equal(decode_block(data, encoding, (5,)), values)


def test_offset_binary_refuses_floats() -> None:
    """They have no such form."""
    with pytest.raises(UnsupportedFeatureError, match="float32"):
        invert_highest_bit(np.zeros(1, "f4"))


@pytest.mark.parametrize("rows", [1, 6, 7])
def test_strided_takes_a_column_out_of_rows(rows: int) -> None:
    """With the rows of a whole chunk, and with fewer; with what follows the last field, and without."""
    records = np.zeros(rows, dtype=[("a", "V3"), ("b", ">i4"), ("c", "V2")])
    records["b"] = np.arange(rows) - 3
    codec = Strided(width=4, stride=9, count=7)
    for data in (records.tobytes()[3:-2], records.tobytes()[3:] + b"..."):
        fields = codec.fields(data)
        assert fields.view(">i4").tolist() == [*range(-3, rows - 3), *[0] * (7 - rows)]


@pytest.mark.parametrize("length", [0, 3, 5, 14, 200])
def test_strided_refuses_bytes_that_are_no_fields(length: int) -> None:
    """Fewer than a field, between two fields, or more than a chunk has."""
    with pytest.raises(DecodeError, match="fields of 4 bytes"):
        Strided(width=4, stride=9, count=7).fields(bytes(length))


def test_codecs_that_only_decode_say_so() -> None:
    """Encoding is refused, not done wrong."""
    encoding = ChunkEncoding(np.dtype(bool), ({"name": "virtualchunks.fits_logical"},))
    with pytest.raises(UnsupportedFeatureError, match="decodes only"):
        encode_block(np.zeros(3, bool), encoding)


@pytest.mark.parametrize("codec", [FITSLogical(), FITSBits(bits=3), FITSText(width=2)], ids=repr)
def test_fields_of_the_wrong_number_are_refused(codec: Any) -> None:
    """Each codec knows how many bytes its values take."""
    with pytest.raises(DecodeError, match="expected"):
        codec.values(np.zeros(1, np.uint8), (6,), np.dtype("f8"))


def test_text_that_is_no_number_is_refused() -> None:
    """And the undefined value is NaN."""
    codec = FITSText(width=3, null="N/A")
    data = np.frombuffer(b"1.5N/A   ", np.uint8)
    np.testing.assert_array_equal(codec.values(data, (3,), np.dtype("f8")), [1.5, np.nan, 0])
    with pytest.raises(DecodeError, match="no number"):
        codec.values(np.frombuffer(b"a.b", np.uint8), (1,), np.dtype("f8"))


@pytest.mark.parametrize("algorithm", ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS"])
def test_bytes_that_do_not_decode_are_an_error(algorithm: str) -> None:
    """Too few of them, and those of something else where that can be told."""
    parameters = {"RICE_1": {"blocksize": 32, "bytepix": 2}, "HCOMPRESS_1": {"smooth": 0}}.get(algorithm, {})
    codec = FITSTile(algorithm=algorithm, bitpix=16, parameters=parameters)
    others = () if algorithm == "RICE_1" else (b"\xdd\x99" + bytes(20), b"no such thing" * 5)
    for data in (b"", b"\0", *others):
        with pytest.raises(DecodeError):
            codec.values(data, (30, 20), np.dtype("i2"))


def test_gzip_does_not_inflate_beyond_the_tile() -> None:
    """A small stream may hold gigabytes."""
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(DecodeError, match="more than 600 pixels"):
        FITSTile(algorithm="GZIP_1", bitpix=16).values(bomb, (30, 20), np.dtype("i2"))


@pytest.mark.parametrize("row", [1, 2, 9_999, 10_000, 10_001, 123_456])
@pytest.mark.parametrize("method", [fits_dither.DITHER_1, fits_dither.DITHER_2])
def test_dithering_is_that_of_cfitsio(row: int, method: str) -> None:
    """Bit for bit, wherever in the sequence a tile begins, and beyond its end."""
    integers = np.random.default_rng(row).integers(-500, 500, 30_000).astype("i4")
    integers[::7] = fits_dither.ZERO
    number = {fits_dither.DITHER_1: 1, fits_dither.DITHER_2: 2}[method]
    expected = unquantize_float_c(
        integers.tobytes(), row, integers.size, 0.37, -12.5, number, 0, 0, 0.0, integers.itemsize
    )
    found = fits_dither.dequantise(integers, method=method, scale=0.37, zero=-12.5, row=row, dtype=np.dtype("f4"))
    assert found.tobytes() == bytes(expected)
