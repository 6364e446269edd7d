"""The codec that decodes through the HDF5 library: configuration, both pipelines, threads, processes, damage."""

import contextlib
import io
import os
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

import h5py
import hdf5plugin
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.buffer import default_buffer_prototype
from zarr.dtype import parse_dtype
from zarr.registry import get_codec_class
from zarr.storage import MemoryStore

from virtualchunks.codecs import hdf5_chunk
from virtualchunks.codecs.hdf5_chunk import BYTES, ChunkFile, chunk_file
from virtualchunks.codecs.hdf5_filters import NAME, HDF5Filters
from virtualchunks.codecs.hdf5_guards import BITSHUFFLE, BLOSC, BZIP2, FLETCHER32, LZ4, NBIT, SCALEOFFSET, is_whole
from virtualchunks.errors import (
    DecodeError,
    FormatError,
    LimitExceededError,
    MissingDependencyError,
    UnsupportedFeatureError,
)

DEFLATE = {"id": 1, "cd_values": [4]}
LZ4_FILTER = {"id": 32004, "cd_values": [0]}
PIPELINES = ["zarr.core.codec_pipeline.BatchedCodecPipeline", "zarr.core.codec_pipeline.FusedCodecPipeline"]


def spec_of(dtype, shape):
    zdtype = parse_dtype(np.dtype(dtype), zarr_format=3)
    config = ArrayConfig.from_dict({"order": "C", "write_empty_chunks": False})
    return ArraySpec(shape, zdtype, zdtype.default_scalar(), config, default_buffer_prototype())


def run(method, data, dtype, shape):
    spec = spec_of(dtype, shape)
    return method(spec.prototype.buffer.from_bytes(data), spec).to_bytes()


def chunk_of(values, **options):
    """Return the pipeline and the bytes that h5py writes for `values`."""
    file = h5py.File(io.BytesIO(), "w")
    dataset = file.create_dataset("v", data=values, chunks=values.shape, **options)
    file.flush()
    plist = dataset.id.get_create_plist()
    pipeline = tuple((item[0], item[2]) for item in map(plist.get_filter, range(plist.get_nfilters())))
    mask, data = dataset.id.read_direct_chunk((0,) * values.ndim)
    assert mask == 0
    return pipeline, data


VALUES = (np.cumsum(np.random.default_rng(0).integers(-3, 4, 600)) % 90).astype("<i4").reshape(20, 30)


# ------------------------------------------------------------------------------------------------ configuration


def test_zarr_finds_it_by_name():
    assert get_codec_class(NAME) is HDF5Filters


def test_metadata_round_trip():
    codec = HDF5Filters(filters=[DEFLATE, LZ4_FILTER], type={"hdf5": h5py.h5t.STD_I32LE.encode().hex(), "dtype": "<i4"})
    assert HDF5Filters.from_dict(codec.to_dict()) == codec
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert hash(codec) == hash(HDF5Filters.from_dict(codec.to_dict()))
    assert codec != HDF5Filters(filters=[LZ4_FILTER, DEFLATE])


@pytest.mark.parametrize(
    "configuration",
    [
        {},
        {"filters": []},
        {"filters": [DEFLATE] * 16},
        {"filters": {"id": 1, "cd_values": []}},
        {"filters": "abc"},
        {"filters": [{"id": 1}]},
        {"filters": [{"id": 0, "cd_values": []}]},
        {"filters": [{"id": True, "cd_values": []}]},
        {"filters": [{"id": 65536, "cd_values": []}]},
        {"filters": [{"id": 1, "cd_values": [-1]}]},
        {"filters": [{"id": 1, "cd_values": [2**32]}]},
        {"filters": [{"id": 1, "cd_values": [1.0]}]},
        {"filters": [{"id": 1, "cd_values": [0] * 257}]},
        {"filters": [DEFLATE], "other": 1},
        {"filters": [DEFLATE], "type": {"hdf5": "0300"}},
        {"filters": [DEFLATE], "type": {"hdf5": "zz", "dtype": "<i4"}},
        {"filters": [DEFLATE], "type": {"hdf5": "0300", "dtype": "<i4"}},
        {"filters": [DEFLATE], "type": {"hdf5": h5py.h5t.STD_I32LE.encode().hex(), "dtype": "O"}},
        {"filters": [DEFLATE], "type": {"hdf5": h5py.h5t.C_S1.encode().hex(), "dtype": "<i4"}},
    ],
    ids=str,
)
def test_anything_else_is_refused(configuration):
    with pytest.raises(FormatError, match=NAME):
        HDF5Filters.from_dict({"name": NAME, "configuration": configuration})


# ------------------------------------------------------------------------------------------------ decoding


@pytest.mark.parametrize("path", PIPELINES)
@pytest.mark.parametrize("filters", [[DEFLATE], [LZ4_FILTER], [{"id": 32008, "cd_values": [0, 4, 4, 0, 2]}, DEFLATE]])
def test_arrays_written_and_read_with_zarr(path, filters):
    with zarr.config.set({"codec_pipeline.path": path}):
        array = zarr.create_array(
            MemoryStore(), shape=(50, 30), chunks=(20, 30), dtype="<i4", compressors=[HDF5Filters(filters=filters)]
        )
        expected = np.resize(VALUES, (50, 30))
        array[...] = expected
        np.testing.assert_array_equal(zarr.open_array(array.store, mode="r")[...], expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.booleans()), min_size=1, max_size=12))
def test_chunks_of_every_length_one_after_the_other(chunks):
    """The file keeps nothing of the chunk before."""
    noise = np.random.default_rng(1).integers(0, 256, 2400, dtype="u1").tobytes()
    codec = HDF5Filters(filters=[DEFLATE])
    for value, compressible in chunks:
        plain = bytes([value]) * 2400 if compressible else noise[value:] + noise[:value]
        encoded = run(codec._encode_sync, plain, "<i4", (20, 30))
        assert run(codec._decode_sync, encoded, "<i4", (20, 30)) == plain


def test_lzf_has_one_codec_for_chunks_of_any_size():
    codec = HDF5Filters(filters=[{"id": 32000, "cd_values": [4, 261]}])
    for rows in (3, 20):
        _, data = chunk_of(VALUES[:rows], compression="lzf")
        assert run(codec._decode_sync, data, "<i4", (rows, 30)) == VALUES[:rows].tobytes()


def test_threads_share_one_file():
    pipeline, data = chunk_of(VALUES, **hdf5plugin.Bitshuffle())
    others = [chunk_of(VALUES + n, **hdf5plugin.Bitshuffle())[1] for n in range(20)]
    file = chunk_file(pipeline, VALUES.nbytes)
    assert chunk_file(pipeline, VALUES.nbytes) is file
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(file.decode, others * 20))
    assert all(out.tobytes() == (VALUES + n % 20).tobytes() for n, out in enumerate(decoded))
    assert file.decode(data).tobytes() == VALUES.tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_its_own_file():
    pipeline, data = chunk_of(VALUES, **hdf5plugin.LZ4())
    file = chunk_file(pipeline, VALUES.nbytes)
    with file._lock:  # as another thread would hold it at the moment of the fork
        child = os.fork()
        if child == 0:
            decoded = chunk_file(pipeline, VALUES.nbytes).decode(data)
            os._exit(0 if decoded.tobytes() == VALUES.tobytes() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_memory_does_not_grow():
    pipeline, data = chunk_of(VALUES, compression="gzip")
    file = ChunkFile(pipeline, VALUES.nbytes)
    file.decode(data)
    before = file._file.get_filesize()
    for _ in range(2000):
        file.decode(data)
    assert file._file.get_filesize() <= before + 2 * VALUES.nbytes


# ------------------------------------------------------------------------------------------------ encoding


def test_what_would_change_is_not_encoded():
    values = (VALUES * 1.23456).astype("<f4")
    pipeline, data = chunk_of(values, scaleoffset=1)
    codec = HDF5Filters(filters=[{"id": number, "cd_values": list(cd)} for number, cd in pipeline])
    with pytest.raises(UnsupportedFeatureError, match="filters 6 are lossy"):
        run(codec._encode_sync, values.tobytes(), "<f4", values.shape)
    rounded = run(codec._decode_sync, data, "<f4", values.shape)
    assert np.abs(np.frombuffer(rounded, "<f4").reshape(values.shape) - values).max() < 0.1


def test_what_does_not_get_smaller_is_not_encoded():
    noise = np.random.default_rng(0).integers(0, 256, 600, dtype="u1")
    codec = HDF5Filters(filters=[{"id": 32000, "cd_values": [4, 261]}])
    with pytest.raises(UnsupportedFeatureError, match="filters 32000 do not make these 600 bytes smaller"):
        run(codec._encode_sync, noise.tobytes(), "u1", (600,))


def test_integers_of_fewer_bits_that_hold_the_values():
    type_id = h5py.h5t.STD_I32LE.copy()
    type_id.set_precision(17)
    codec = HDF5Filters(filters=[DEFLATE], type={"hdf5": type_id.encode().hex(), "dtype": "<i4"})
    encoded = run(codec._encode_sync, VALUES.tobytes(), "<i4", VALUES.shape)
    assert run(codec._decode_sync, encoded, "<i4", VALUES.shape) == VALUES.tobytes()
    with pytest.raises(UnsupportedFeatureError, match="would change these values"):
        run(codec._encode_sync, (VALUES * 1000).tobytes(), "<i4", VALUES.shape)


# ------------------------------------------------------------------------------------------------ damage


def test_a_chunk_of_another_size_is_an_error():
    _, data = chunk_of(VALUES, compression="gzip")
    codec = HDF5Filters(filters=[DEFLATE])
    for shape in [(20, 29), (20, 31), (1, 1)]:
        with pytest.raises(DecodeError, match=r"HDF5 filters 1 do not decode to a chunk of \d+ elements"):
            run(codec._decode_sync, data, "<i4", shape)


def test_a_file_survives_damage():
    pipeline, data = chunk_of(VALUES, **hdf5plugin.Bitshuffle())
    file = ChunkFile(pipeline, VALUES.nbytes)
    for damaged in (b"", b"\0", data[:-1], data[:40], bytes(len(data)), b"\xff" * len(data)):
        with pytest.raises(DecodeError, match="32008"):
            file.decode(damaged)
        assert file.decode(data).tobytes() == VALUES.tobytes()


SOURCES = {
    "bitshuffle+lz4": hdf5plugin.Bitshuffle(nelems=64),
    "bitshuffle+zstd": hdf5plugin.Bitshuffle(nelems=64, cname="zstd"),
    "lz4": hdf5plugin.LZ4(nbytes=256),
    "lzf": {"compression": "lzf"},
    "szip": {"compression": "szip"},
    "scale-offset": {"scaleoffset": 0},
    "blosc2": hdf5plugin.Blosc2(),
}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(SOURCES)), st.integers(0), st.integers(1, 255), st.integers(0))
def test_damaged_chunks_never_end_the_process(name, place, change, length):
    """Cut chunks are errors, except szip's, and scale-offset's, which have a byte to spare; changed ones may decode."""
    pipeline, data = chunk_of(VALUES, **SOURCES[name])
    file = chunk_file(pipeline, VALUES.nbytes)
    changed = bytearray(data)
    changed[place % len(data)] ^= change
    for damaged in (data[: length % len(data)], bytes(changed)):
        with contextlib.suppress(DecodeError):
            assert file.decode(damaged).nbytes == VALUES.nbytes
            assert (
                len(damaged) == len(data) or name == "szip" or (name, len(damaged)) == ("scale-offset", len(data) - 1)
            )


@pytest.mark.parametrize("identifier", [FLETCHER32, NBIT, SCALEOFFSET, BZIP2, BLOSC, LZ4, BITSHUFFLE])
@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=12), st.binary(max_size=64))
def test_guards_answer_whatever_they_are_given(identifier, values, data):
    assert is_whole(identifier, values, data) in (True, False)


def test_guards_follow_the_framing():
    blocks = struct.pack(">QI", 20, 8) + b"".join(struct.pack(">I", 3) + b"abc" for _ in range(3))
    assert is_whole(LZ4, [], blocks)
    assert not is_whole(LZ4, [], blocks[:-1])
    assert is_whole(NBIT, [8, 0, 16, 1, 4, 0, 17, 0], bytes(34))
    assert not is_whole(NBIT, [8, 0, 16, 1, 4, 0, 17, 0], bytes(33))


# ------------------------------------------------------------------------------------------------ limits


def test_a_filter_that_is_not_installed():
    codec = HDF5Filters(filters=[{"id": 60_000, "cd_values": []}])
    with pytest.raises(MissingDependencyError, match=r"no filter 60000: pip install 'virtualchunks\[hdf5\]'"):
        run(codec._decode_sync, b"data", "<i4", (1,))


def test_h5py_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    hdf5_chunk.hdf5.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match="needs h5py"):
            ChunkFile(((1, (4,)),), 10)
    finally:
        hdf5_chunk.hdf5.cache_clear()


@pytest.mark.parametrize("count", [0, 2**32])
def test_sizes_that_no_hdf5_chunk_has(count):
    with pytest.raises(LimitExceededError):
        ChunkFile(((1, (4,)),), count, BYTES)


def test_elements_without_a_size():
    with pytest.raises(DecodeError, match="fixed size"):
        run(HDF5Filters(filters=[DEFLATE])._decode_sync, b"data", np.dtypes.StringDType(), (1,))
