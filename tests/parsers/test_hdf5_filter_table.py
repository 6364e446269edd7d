"""HDF5 pipelines become Zarr codecs that decode as h5py reads: bit for bit, or not at all."""

import asyncio
import io
import itertools
import json
import math
import zlib

import h5py
import hdf5plugin
import numpy as np
import pytest
import zarr
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from zarr.core.buffer import default_buffer_prototype
from zarr.dtype import parse_dtype
from zarr.storage import MemoryStore

from virtualchunks.codecs import hdf5_chunk
from virtualchunks.encoding import bytes_codec
from virtualchunks.errors import DecodeError, UnsupportedFeatureError
from virtualchunks_parsers.hdf5.filters import FILTERS, HDF5Filter, filter_codecs, read_pipeline, unusual_type

DEFLATE, SHUFFLE, FLETCHER32, SZIP, NBIT, SCALEOFFSET, BZIP2, LZF, BLOSC, LZ4, BITSHUFFLE, ZFP, ZSTD = (
    *range(1, 7),
    307,
    32000,
    32001,
    32004,
    32008,
    32013,
    32015,
)
#: What the codecs raise, ours and others'.
DAMAGED = (DecodeError, ValueError, RuntimeError, OSError, EOFError, LookupError, zlib.error)
SHAPES = [(7,), (3, 5), (4, 6, 5), (1,), (64, 33)]
DTYPES = ["i1", "<u2", ">i4", "<f4", ">f8"]


def decode_chunk(data, codecs, dtype, shape):
    """Read `data` as the only chunk of a Zarr array in memory."""
    zdtype = parse_dtype(dtype.newbyteorder("="), zarr_format=3)
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": zdtype.to_json(zarr_format=3),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": zdtype.to_json_scalar(zdtype.default_scalar(), zarr_format=3),
        "codecs": [bytes_codec(dtype), *codecs],
    }
    store = MemoryStore()
    buffer = default_buffer_prototype().buffer
    asyncio.run(store.set("zarr.json", buffer.from_bytes(json.dumps(document).encode())))
    asyncio.run(store.set("/".join(["c", *("0" for _ in shape)]), buffer.from_bytes(data)))
    return zarr.open_array(store, mode="r", zarr_format=3)[...]


def sample(dtype, shape):
    """Values that compress, of every sign, with a few that are special."""
    steps = np.random.default_rng(0).integers(-3, 4, math.prod(shape))
    values = np.cumsum(steps).reshape(shape) % 100 - (0 if dtype.kind == "u" else 50)
    if dtype.kind == "f":
        values = values * 1.37
        values.flat[:1] = -0.0
    return values.astype(dtype)


def write_chunk(values, filters, *, type_id=None, raw=None, mask=0):
    """Return a dataset of one chunk, `values` or else `raw` with its `mask`, behind `filters`: (id, parameters)."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(values.shape)
    for identifier, parameters in filters:
        plist.set_filter(identifier, h5py.h5z.FLAG_OPTIONAL, parameters)
    file = h5py.File(io.BytesIO(), "w")
    stored = h5py.h5t.py_create(values.dtype) if type_id is None else type_id
    dataset = h5py.h5d.create(file.id, b"v", stored, h5py.h5s.create_simple(values.shape), plist)
    if raw is None:
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        file.flush()
    else:
        dataset.write_direct_chunk((0,) * values.ndim, raw, mask)
        dataset.close()  # an open dataset goes on reading with the mask that it knew
    return file["v"]


def create(values, **options):
    return h5py.File(io.BytesIO(), "w").create_dataset("v", data=values, chunks=values.shape, **options)


def raw_chunk(dataset):
    dataset.file.flush()
    return dataset.id.read_direct_chunk((0,) * dataset.ndim)


def codecs_of(dataset, mask=0):
    return filter_codecs(
        read_pipeline(dataset.id.get_create_plist()),
        dtype=dataset.dtype,
        chunk_shape=dataset.chunks,
        mask=mask,
        stored_type=unusual_type(dataset.id.get_type()),
    )


def assert_exact(dataset):
    """The codecs decode the dataset's one chunk to the values that h5py reads, bit for bit."""
    mask, data = raw_chunk(dataset)
    native = dataset.dtype.newbyteorder("=")
    decoded = decode_chunk(data, codecs_of(dataset, mask), dataset.dtype, dataset.shape)
    assert decoded.dtype == native
    assert decoded.tobytes() == dataset[()].astype(native).tobytes()


# Names of the codecs, and the pipelines that lead to them.
LOSSLESS = {
    "none": ([], []),
    "deflate": ([(DEFLATE, (4,))], ["numcodecs.zlib"]),
    "deflate0": ([(DEFLATE, (0,))], ["numcodecs.zlib"]),
    "fletcher32": ([(FLETCHER32, ())], ["numcodecs.fletcher32"]),
    "deflate+fletcher32": ([(DEFLATE, (9,)), (FLETCHER32, ())], ["numcodecs.zlib", "numcodecs.fletcher32"]),
    "bzip2": ([(BZIP2, (9,))], ["numcodecs.bz2"]),
    "zstd": ([(ZSTD, (5,))], ["zstd"]),
    "zstd-default": ([(ZSTD, ())], ["zstd"]),
    "lz4": ([(LZ4, (0,))], ["virtualchunks.hdf5_filters"]),
    "lz4-small-blocks": ([(LZ4, (64,))], ["virtualchunks.hdf5_filters"]),
    "bitshuffle": ([(BITSHUFFLE, (0, 0))], ["virtualchunks.hdf5_filters"]),
    "bitshuffle+lz4": ([(BITSHUFFLE, (0, 2))], ["virtualchunks.hdf5_filters"]),
    "bitshuffle+zstd": ([(BITSHUFFLE, (0, 3, 3))], ["virtualchunks.hdf5_filters"]),
    "lz4+fletcher32": ([(LZ4, ()), (FLETCHER32, ())], ["virtualchunks.hdf5_filters"]),
    "n-bit": ([(NBIT, ())], []),  # all bits count, so the filter passes bytes on
    "n-bit+deflate": ([(NBIT, ()), (DEFLATE, (1,))], ["numcodecs.zlib"]),
    "n-bit+lz4": ([(NBIT, ()), (LZ4, ())], ["virtualchunks.hdf5_filters"]),
    "blosc2": ([(32026, (0, 0, 0, 0, 5, 1, 1))], ["virtualchunks.hdf5_filters"]),
} | {
    f"blosc-{compressor}-{shuffle}": ([(BLOSC, (0, 0, 0, 0, 5, shuffle, compressor))], ["blosc"])
    for compressor, shuffle in itertools.product((0, 1, 2, 4, 5), (0, 1, 2))
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSLESS)
def test_decodes_as_h5py_reads(name, dtype, shape):
    filters, names = LOSSLESS[name]
    values = sample(np.dtype(dtype), shape)
    dataset = write_chunk(values, filters)
    assert dataset[()].tobytes() == values.tobytes()
    assert [codec["name"] for codec in codecs_of(dataset)] == names
    assert_exact(dataset)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "rest", [[], [(DEFLATE, (1,))], [(ZSTD, ())], [(LZ4, ())], [(DEFLATE, (1,)), (FLETCHER32, ())]]
)
def test_shuffle_in_front(rest, dtype, shape):
    dataset = write_chunk(sample(np.dtype(dtype), shape), [(SHUFFLE, ()), *rest])
    assert_exact(dataset)


def test_bytes_are_not_shuffled():
    dataset = write_chunk(np.arange(9, dtype="u1"), [(SHUFFLE, ()), (DEFLATE, (1,))])
    assert [codec["name"] for codec in codecs_of(dataset)] == ["numcodecs.zlib"]


@pytest.mark.parametrize("filters", [[(FLETCHER32, ()), (SHUFFLE, ())], [(DEFLATE, (1,)), (SHUFFLE, ())]])
def test_shuffling_what_is_not_whole_elements_goes_through_hdf5(filters):
    dataset = write_chunk(sample(np.dtype("f8"), (3, 5)), filters)
    assert [codec["name"] for codec in codecs_of(dataset)] == ["virtualchunks.hdf5_filters"]
    assert_exact(dataset)


@pytest.mark.parametrize("shape", [(16,), (3, 5), (4, 6, 5), (64, 33)], ids=str)
@pytest.mark.parametrize("dtype", ["i1", "<u2", ">i4", "<f4", ">f8", "<i8", "<u8"])
@pytest.mark.parametrize("scale", [0, 3])
def test_scale_offset(scale, dtype, shape):
    dtype = np.dtype(dtype)
    assert_exact(create(sample(dtype, shape), scaleoffset=scale if dtype.kind == "f" else scale * 2))


@pytest.mark.parametrize("fill", [0, -1, 7])
def test_scale_offset_with_fill_values(fill):
    values = sample(np.dtype("<i4"), (6, 7))
    values[::2] = fill
    assert_exact(create(values, scaleoffset=0, fillvalue=fill))


def test_scale_offset_of_nothing_but_fill():
    assert_exact(create(np.full((6, 7), 5, "<i2"), scaleoffset=0, fillvalue=5, compression="gzip"))


@pytest.mark.parametrize("shape", [(64,), (64, 33), (4, 60, 5)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("coding", ["nn", "ec"])
def test_szip(coding, dtype, shape):
    assert_exact(create(sample(np.dtype(dtype), shape), compression="szip", compression_opts=(coding, 8), shuffle=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(64,), (64, 33), (4, 60, 5)], ids=str)
def test_lzf(dtype, shape):
    dataset = create(np.repeat(sample(np.dtype(dtype), shape), 3, axis=0), compression="lzf")
    assert raw_chunk(dataset)[0] == 0
    (codec,) = codecs_of(dataset)
    assert codec["configuration"]["filters"] == [{"id": LZF, "cd_values": [4, 261]}]
    assert_exact(dataset)


def test_lzf_skipped_where_it_gained_nothing():
    noise = np.random.default_rng(0).integers(0, 255, 99, dtype="u1")
    dataset = create(noise, compression="lzf")
    assert raw_chunk(dataset)[0] == 1
    assert codecs_of(dataset, mask=1) == ()
    assert_exact(dataset)


LOSSY = {
    "zfp-accuracy": (hdf5plugin.Zfp(accuracy=0.01), ["<f4", "<f8", "<i4"]),
    "zfp-rate": (hdf5plugin.Zfp(rate=8), ["<f4", "<f8"]),
    "zfp-reversible": (hdf5plugin.Zfp(reversible=True), ["<f4", "<f8", "<i8"]),
    "sz": (hdf5plugin.SZ(absolute=0.01), ["<f4", "<f8"]),
    "sz3": (hdf5plugin.SZ3(absolute=0.01), ["<f4", "<f8"]),
    "sperr": (hdf5plugin.Sperr(), ["<f4", "<f8"]),
    "fcidecomp": (hdf5plugin.FciDecomp(), ["i1", "u1", "<i2", "<u2"]),
    "blosc2": (hdf5plugin.Blosc2(cname="zstd"), DTYPES),
}


@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name in LOSSY for dtype in LOSSY[name][1]])
def test_plugins(name, dtype):
    dataset = create(sample(np.dtype(dtype), (64, 33)), **LOSSY[name][0])
    assert raw_chunk(dataset)[0] == 0
    assert_exact(dataset)


# ------------------------------------------------------------------------------------------------ types


def reduced_integer(base, precision, offset):
    type_id = base.copy()
    type_id.set_precision(precision)
    type_id.set_offset(offset)
    return type_id


REDUCED = {
    "17 bits": (reduced_integer(h5py.h5t.STD_I32LE, 17, 0), "<i4"),
    "17 bits at 3": (reduced_integer(h5py.h5t.STD_I32LE, 17, 3), "<i4"),
    "big-endian 11 bits at 2": (reduced_integer(h5py.h5t.STD_I16BE, 11, 2), ">i2"),
    "unsigned 7 bits": (reduced_integer(h5py.h5t.STD_U8LE, 7, 0), "|u1"),
    "unsigned 48 bits at 1": (reduced_integer(h5py.h5t.STD_U64BE, 48, 1), ">u8"),
}


@pytest.mark.parametrize("filters", [[], [(NBIT, ())], [(NBIT, ()), (DEFLATE, (1,))], [(SHUFFLE, ()), (DEFLATE, (1,))]])
@pytest.mark.parametrize("name", REDUCED)
def test_integers_of_fewer_bits(name, filters):
    type_id, dtype = REDUCED[name]
    values = sample(np.dtype(dtype), (8, 9))
    dataset = write_chunk(values, filters, type_id=type_id)
    assert dataset.dtype == dtype
    assert (dataset[()] == values).all() or dtype[1] == "u"
    assert_exact(dataset)


def test_floats_of_fewer_bits():
    type_id = h5py.h5t.IEEE_F32LE.copy()
    type_id.set_fields(26, 20, 6, 7, 13)
    type_id.set_offset(7)
    type_id.set_precision(20)
    type_id.set_ebias(31)
    dataset = write_chunk(sample(np.dtype("<f4"), (8, 9)), [(NBIT, ()), (DEFLATE, (1,))], type_id=type_id)
    assert unusual_type(dataset.id.get_type()) is not None
    assert_exact(dataset)


@pytest.mark.parametrize("code", ["i1", "<u2", ">i4", "<i8", "<f2", ">f4", "<f8", "S5", "<c8", "?"])
def test_usual_types_stay_as_they_are(code):
    assert unusual_type(h5py.h5t.py_create(np.dtype(code), logical=True)) is None


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_compound_elements():
    dtype = np.dtype([("a", "<i4"), ("b", "<i2", (3,)), ("c", "<f4"), ("d", "<i8"), ("e", "u1"), ("g", "<u2")])
    values = np.zeros(10, dtype)
    values["a"], values["c"], values["g"] = np.arange(10), np.linspace(0, 1, 10), 500
    dataset = write_chunk(values, [(NBIT, ())])
    assert len(read_pipeline(dataset.id.get_create_plist())[0].cd_values) == 44
    mask, data = raw_chunk(dataset)
    decoded = decode_chunk(data, codecs_of(dataset, mask), np.dtype(f"V{dtype.itemsize}"), (10,))
    assert decoded.tobytes() == dataset[()].tobytes()


# ------------------------------------------------------------------------------------------------ masks and orders


def masked(pipeline, mask):
    return [item for position, item in enumerate(pipeline) if not mask >> position & 1]


@pytest.mark.parametrize("mask", range(8))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "pipeline",
    [
        [(SHUFFLE, ()), (DEFLATE, (4,)), (FLETCHER32, ())],
        [(SHUFFLE, ()), (LZ4, (0,)), (FLETCHER32, ())],
        [(BITSHUFFLE, (0, 2)), (ZSTD, ()), (DEFLATE, (1,))],
    ],
)
def test_masks(pipeline, dtype, mask):
    values = sample(np.dtype(dtype), (5, 7))
    _, data = raw_chunk(write_chunk(values, masked(pipeline, mask)))
    dataset = write_chunk(values, pipeline, raw=data, mask=mask)
    assert dataset[()].tobytes() == values.tobytes()
    assert raw_chunk(dataset)[0] == mask
    assert_exact(dataset)


FILTER = st.sampled_from(
    [(SHUFFLE, ()), (DEFLATE, (1,)), (FLETCHER32, ()), (LZ4, ()), (BITSHUFFLE, (0, 2)), (ZSTD, ()), (BZIP2, (1,))]
)


@settings(max_examples=100, deadline=None)
@given(
    pipeline=st.lists(FILTER, max_size=4, unique=True),
    mask=st.integers(0, 15),
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
)
@example(pipeline=[(ZSTD, ()), (BITSHUFFLE, (0, 2))], mask=0, dtype="<u2", shape=(5, 8))
def test_any_order_and_mask(pipeline, mask, dtype, shape):
    values = sample(np.dtype(dtype), shape)
    applied = masked(pipeline, mask)
    skipped, data = raw_chunk(write_chunk(values, applied))
    assume(skipped == 0)
    assert_exact(write_chunk(values, pipeline, raw=data, mask=mask))


def test_mask_bits_beyond_the_pipeline_mean_nothing():
    deflate = HDF5Filter(1, 0, (4,), "deflate")
    assert filter_codecs([deflate], dtype=np.dtype("i2"), chunk_shape=(4,), mask=0b110) == filter_codecs(
        [deflate], dtype=np.dtype("i2"), chunk_shape=(4,)
    )


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("identifier", [305, 32003, 32022])
def test_a_registered_filter_that_nothing_decodes(identifier):
    item = HDF5Filter(identifier, 0, (), "")
    with pytest.raises(
        UnsupportedFeatureError, match=rf"{identifier} \({FILTERS[identifier].name}\).*HDF5_PLUGIN_PATH"
    ):
        filter_codecs([item], dtype=np.dtype("i2"), chunk_shape=(4,))


def test_an_unknown_filter_is_named():
    deflate, unknown = HDF5Filter(1, 0, (4,), "deflate"), HDF5Filter(60_000, 1, (1, 2), "our own filter")
    with pytest.raises(UnsupportedFeatureError, match=r"HDF5 filter 60000 \(our own filter\).*HDF5_PLUGIN_PATH"):
        filter_codecs([deflate, unknown], dtype=np.dtype("i2"), chunk_shape=(4,))
    assert filter_codecs([deflate, unknown], dtype=np.dtype("i2"), chunk_shape=(4,), mask=0b10) == (
        {"name": "numcodecs.zlib", "configuration": {"level": 4}},
    )


def test_a_missing_plugin_is_what_to_install(monkeypatch):
    monkeypatch.setattr("virtualchunks_parsers.hdf5.filters.is_available", lambda identifier: False)
    with pytest.raises(
        UnsupportedFeatureError, match=r"HDF5 filter 32013 \(zfp\).*pip install 'virtualchunks\[hdf5\]'"
    ):
        filter_codecs([HDF5Filter(ZFP, 0, (1, 2, 3, 4), "")], dtype=np.dtype("f4"), chunk_shape=(4,))


def test_snappy_within_blosc_goes_through_hdf5():
    snappy = HDF5Filter(BLOSC, 0, (2, 2, 4, 64, 5, 1, 3), "blosc")
    (codec,) = filter_codecs([snappy], dtype=np.dtype("f4"), chunk_shape=(16,))
    assert codec["name"] == "virtualchunks.hdf5_filters"


def test_every_filter_that_hdf5plugin_brings_has_its_remedy():
    brought = {value for name, value in vars(hdf5plugin).items() if name.endswith("_ID") and isinstance(value, int)}
    assert brought <= set(FILTERS)
    assert all("hdf5plugin" in FILTERS[identifier].remedy for identifier in brought)


def test_more_parameters_than_h5py_reads():
    class Plist:
        def get_nfilters(self):
            return 1

        def get_filter(self, index):
            return 40_000, 0, tuple(range(300)), b"long"

    with pytest.raises(UnsupportedFeatureError, match=r"40000 \(long\) has 300 parameters"):
        read_pipeline(Plist())


# ------------------------------------------------------------------------------------------------ corruption


@pytest.mark.parametrize(
    "filters", [[(FLETCHER32, ())], [(SHUFFLE, ()), (FLETCHER32, ())], [(LZ4, ()), (FLETCHER32, ())]]
)
@pytest.mark.parametrize("shape", [(7,), (4, 6)], ids=str)
def test_fletcher32_sees_every_flipped_bit(filters, shape):
    dataset = write_chunk(sample(np.dtype("u1"), shape), filters)
    mask, data = raw_chunk(dataset)
    codecs = codecs_of(dataset, mask)
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(DAMAGED):
            decode_chunk(bytes(flipped), codecs, dataset.dtype, shape)


# Zarr's own blosc codec does not compare the length in the chunk with the chunk's: that is for the reader to do.
@pytest.mark.parametrize("name", [name for name in LOSSLESS if name != "none" and not name.startswith("blosc-")])
def test_truncated_chunks_are_errors(name):
    dataset = write_chunk(sample(np.dtype("<f4"), (16, 33)), LOSSLESS[name][0])
    mask, data = raw_chunk(dataset)
    codecs = codecs_of(dataset, mask)
    for size in (1, 5, len(data) // 2, len(data) - 5):
        with pytest.raises(DAMAGED):
            decode_chunk(data[:size], codecs, dataset.dtype, (16, 33))


def test_our_own_filters_are_registered_once():
    assert hdf5_chunk.hdf5() is hdf5_chunk.hdf5()
    assert hdf5_chunk.is_available(hdf5_chunk.SIZE_CHECK)
    assert hdf5_chunk.is_available(hdf5_chunk.GUARD)
