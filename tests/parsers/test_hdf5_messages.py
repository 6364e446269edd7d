"""Messages that we decode, against what h5py says of the datasets that have them, and against damage."""

from __future__ import annotations

import struct
from contextlib import suppress

import corpusscore
import h5py
import hypothesis.strategies as st
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hdf5messages import opened, outcome, same
from hypothesis import given, settings

from virtualchunks.errors import FormatError, UnsupportedFeatureError, VirtualChunksError
from virtualchunks_parsers.hdf5.datatypes import element_of
from virtualchunks_parsers.hdf5.filters import HDF5Filter, read_pipeline
from virtualchunks_parsers.hdf5.format import layouts
from virtualchunks_parsers.hdf5.format.content import Sizes, Unhandled
from virtualchunks_parsers.hdf5.format.datatypes import element
from virtualchunks_parsers.hdf5.format.headers import (
    ATTRIBUTE,
    DATASPACE,
    DATATYPE,
    EXTERNAL,
    FILL,
    LAYOUT,
    OLD_FILL,
    PIPELINE,
)
from virtualchunks_parsers.hdf5.format.layouts import layout
from virtualchunks_parsers.hdf5.format.messages import (
    Dataspace,
    Fill,
    attribute,
    attribute_info,
    dataspace,
    external_files,
    fill,
    pipeline,
)
from virtualchunks_parsers.hdf5.format.values import attribute_value, fill_value
from virtualchunks_parsers.hdf5.library import LibraryDataset

FILES = corpusscore.files("hdf5", "netcdf4")
SIZES = Sizes(8, 8)
LIBVERS = ("earliest", "v108", "v110", "latest")
DEFINED = {h5d.FILL_VALUE_UNDEFINED: "undefined", h5d.FILL_VALUE_DEFAULT: "default", 2: "user-defined"}
CLASSES = {
    layouts.Compact: h5d.COMPACT,
    layouts.Contiguous: h5d.CONTIGUOUS,
    layouts.Chunked: h5d.CHUNKED,
    layouts.Virtual: h5d.VIRTUAL,
}


def check_datasets(path):
    """Compare what every dataset of a file says; return the layouts found, by name."""
    found = {}
    with opened(path) as both:
        for name, holder in both.objects().items():
            if isinstance(holder, h5py.Dataset):
                found[name] = check_dataset(both, holder)
    return found


def check_dataset(both, holder):
    plist = holder.id.get_create_plist()
    check_extent(both, holder)
    expected = outcome(lambda: read_pipeline(plist))
    assert outcome(lambda: next(map(pipeline, both.bodies(holder, PIPELINE)), ())) == expected
    check_fill(both, holder, plist)
    (body,) = both.bodies(holder, LAYOUT)
    said = layout(body, both.sizes)
    assert CLASSES[type(said)] == plist.get_layout()
    if isinstance(said, layouts.Chunked):
        assert said.shape == plist.get_chunk()
    if isinstance(said, layouts.Contiguous) and not plist.get_external_count():
        offset = holder.id.get_offset()
        assert offset is None or both.file.userblock_size or said.address == offset
    return said


def check_extent(both, holder):
    (body,) = both.bodies(holder, DATASPACE)
    said, space = dataspace(body, both.sizes), holder.id.get_space()
    assert said.is_null == (space.get_simple_extent_type() == h5s.NULL)
    if said.is_null:
        return
    longest = [None if size == h5s.UNLIMITED else size for size in space.get_simple_extent_dims(True)]
    assert said.shape == holder.shape
    assert list(said.shape if said.maxshape is None else said.maxshape) == longest
    assert said.unlimited_axes == [axis for axis, size in enumerate(longest) if size is None]


def check_fill(both, holder, plist):
    said = next((fill(kind, body) for kind in (FILL, OLD_FILL) for body in both.bodies(holder, kind)), None)
    if said is None:  # files of early releases
        assert not LibraryDataset(both, holder.id).has_fill()
        return
    assert (said.defined, said.time) == (DEFINED[plist.fill_value_defined()], plist.get_fill_time())
    said_of = outcome(lambda: element_of(holder.id.get_type()))
    if isinstance(said_of, tuple):
        return
    (described,) = both.bodies(holder, DATATYPE)
    library = LibraryDataset(both, holder.id)
    assert said.is_written == library.has_fill()
    try:
        value = outcome(lambda: fill_value(said, described, said_of))
    except Unhandled:
        return
    assert same(value, outcome(lambda: library.fill(said_of)) if said.is_written else None)


@pytest.mark.parametrize("libver", LIBVERS)
def test_datasets_of_many_forms(tmp_path, libver):
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        options = {"shape": (10, 20), "dtype": "f4"}
        file.create_dataset("plain", **options)
        file.create_dataset("scalar", data=1.5)
        file["empty"] = h5py.Empty("f4")
        file["none"] = np.zeros((0, 3))
        file.create_dataset("chunked", chunks=(3, 7), **options, compression=4, shuffle=True, fletcher32=True)
        file.create_dataset("lzf", chunks=(3, 7), **options, compression="lzf")
        file.create_dataset("scaled", chunks=(3, 7), **options, scaleoffset=3)
        file.create_dataset("one", data=np.zeros((10, 20)), chunks=(10, 20), compression=1)
        file.create_dataset("growing", chunks=(3, 7), maxshape=(None, 20), **options)
        file.create_dataset("growing twice", chunks=(3, 7), maxshape=(None, None), **options)
        file.create_dataset("bounded", chunks=(3, 70), maxshape=(100, 2**40), **options)
        file.create_dataset("external", **options, external=[("a.bin", 0, 300), ("b.bin", 5, 500)])
        compact = h5p.create(h5p.DATASET_CREATE)
        compact.set_layout(h5d.COMPACT)
        made = h5d.create(file.id, b"compact", h5t.STD_I16LE, h5s.create_simple((3,)), compact)
        made.write(h5s.ALL, h5s.ALL, np.array([1, 2, 3], "i2"))
        early = h5p.create(h5p.DATASET_CREATE)
        early.set_chunk((2,))
        early.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        h5d.create(file.id, b"implicit", h5t.STD_I16LE, h5s.create_simple((5,)), early)
        if libver in ("v110", "latest"):
            virtual = h5py.VirtualLayout((10, 20), "f4")
            virtual[:] = h5py.VirtualSource("b.h5", "v", (10, 20))
            file.create_virtual_dataset("virtual", virtual)
    found = check_datasets(tmp_path / "a.h5")
    assert found["compact"].data == b"\1\0\2\0\3\0"
    assert found["chunked"].element_size == 4
    if libver == "latest":
        assert {found[name].index for name in found if isinstance(found[name], layouts.Chunked)} == {1, 2, 3, 4, 5}
        assert isinstance(found["growing twice"].parameters, layouts.BTree2)
        assert isinstance(found["growing"].parameters, layouts.ExtensibleArray)
        assert isinstance(found["chunked"].parameters, layouts.FixedArray)
        with opened(tmp_path / "a.h5") as both:
            stored = both.file["one"].id.get_chunk_info(0)
        assert found["one"].parameters == layouts.SingleChunk(stored.size, stored.filter_mask)
        assert found["one"].address == stored.byte_offset


FILLS = {
    "i2": np.int16(-7),
    ">f8": 2.5,
    "<f4": np.float32(np.nan),
    "S4": b"ab",
    "?": True,
    "c8": 1 + 2j,
    "V3": np.void(b"a\0b"),
}


@pytest.mark.parametrize("libver", LIBVERS)
@pytest.mark.parametrize("dtype", FILLS)
def test_fill_values(tmp_path, dtype, libver):
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        for time in ("ifset", "never", "alloc"):
            for chunks in (None, (2,)):
                options = {"shape": (5,), "dtype": dtype, "chunks": chunks, "fill_time": time}
                file.create_dataset(f"{time} {chunks}", fillvalue=FILLS[dtype], **options)
                file.create_dataset(f"{time} {chunks} zero", **options)
        undefined = h5p.create(h5p.DATASET_CREATE)
        undefined.set_fill_time(h5d.FILL_TIME_IFSET)
        h5d.create(file.id, b"undefined", h5t.py_create(np.dtype(dtype)), h5s.create_simple((5,)), undefined)
    check_datasets(tmp_path / "a.h5")


def test_fill_values_of_variable_length_are_left_to_the_library(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("t", shape=(3,), dtype=h5py.string_dtype(), fillvalue="x")
    with opened(tmp_path / "a.h5") as both:
        holder = both.file["t"]
        (found,), (described,) = both.bodies(holder, FILL), both.bodies(holder, DATATYPE)
        assert fill(FILL, found).is_written
        with pytest.raises(Unhandled, match="class 3"):
            fill_value(fill(FILL, found), described, element_of(holder.id.get_type()))


def test_external_files(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        runs = [("first.bin", 3, 40), ("second.bin", 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("v", shape=(20,), dtype="f4", external=runs)
    with opened(tmp_path / "a.h5") as both:
        (body,) = both.bodies(both.file["v"], EXTERNAL)
        slots = external_files(body, both.sizes).slots
        plist = both.file["v"].id.get_create_plist()
        assert [(slot.offset, slot.size) for slot in slots] == [plist.get_external(number)[1:] for number in range(2)]


@corpusscore.each(FILES)
def test_every_dataset_of_real_files(path):
    check_datasets(path)


# ------------------------------------------------------------------------------------------------ forms by hand


def test_old_fill_values():
    assert fill(OLD_FILL, struct.pack("<I2s", 2, b"ab")) == Fill("user-defined", 2, b"ab")
    assert fill(OLD_FILL, struct.pack("<I", 0)) == Fill("undefined", 2, None)
    assert fill(FILL, bytes([1, 2, 0, 0, 0, 0, 0, 0])) == Fill("undefined", 0, None)
    assert fill(FILL, bytes([2, 2, 1, 1]) + struct.pack("<I1s", 1, b"x")) == Fill("user-defined", 1, b"x")
    assert fill(FILL, bytes([3, 0x16])) == Fill("undefined", 1, None)


def test_names_of_filters_that_are_left_out():
    body = struct.pack("<2B 3HI 4H2s", 2, 2, 1, 1, 1, 6, 32000, 2, 0, 0, b"l\0")
    assert pipeline(body) == (HDF5Filter(1, 1, (6,), "deflate"), HDF5Filter(32000, 0, (), "l"))
    body = struct.pack("<2B6x 4H8sI4x", 1, 1, 300, 8, 0, 1, b"ours\0\0\0\0", 9)
    assert pipeline(body) == (HDF5Filter(300, 0, (9,), "ours"),)


def test_old_layouts():
    head = struct.pack("<3B5xQ", 1, 3, 2, 4096)
    chunked = layout(head + struct.pack("<3I", 5, 6, 8), SIZES)
    assert chunked == layouts.Chunked((5, 6), 8, layouts.BTREE_1, 4096, version=1)
    contiguous = layout(struct.pack("<3B5xQI", 2, 1, 1, 2**64 - 1, 7), SIZES)
    assert contiguous == layouts.Contiguous(None, None)
    assert layout(struct.pack("<3B5x2I3s", 2, 1, 0, 3, 3, b"abc"), SIZES) == layouts.Compact(b"abc")


def test_addresses_of_four_bytes():
    assert layout(struct.pack("<2BII", 3, 1, 2**32 - 1, 12), Sizes(4, 4)) == layouts.Contiguous(None, 12)
    assert dataspace(struct.pack("<4B2I", 2, 1, 1, 1, 7, 2**32 - 1), Sizes(4, 4)) == Dataspace((7,), (None,))


def test_where_many_attributes_are():
    body = struct.pack("<2BH3Q", 0, 3, 70, 1, 2, 3)
    assert attribute_info(body, SIZES) == (True, 1, 2, 3)
    assert attribute_info(struct.pack("<2B2Q", 0, 0, 2**64 - 1, 2**64 - 1), SIZES) == (False, None, None, None)


DAMAGED = {
    "rank": (dataspace, struct.pack("<4B4x", 1, 33, 0, 0), FormatError, "33 dimensions"),
    "growth": (dataspace, struct.pack("<4B2Q", 2, 1, 1, 1, 3, 2), FormatError, "may not grow"),
    "attribute without a name": (attribute, struct.pack("<2B3H", 2, 0, 0, 0, 0), FormatError, "without a name"),
    "attribute with a short name": (
        attribute,
        struct.pack("<2B3H4s", 2, 0, 4, 0, 0, b"a\0b\0"),
        Unhandled,
        "shorter",
    ),
    "filters": (pipeline, struct.pack("<2B", 2, 33), FormatError, "33 filters"),
    "name": (pipeline, struct.pack("<2B6x4H", 1, 1, 300, 7, 0, 0), FormatError, "7 bytes"),
    "values": (pipeline, struct.pack("<2B3H", 2, 1, 1, 0, 9), FormatError, "36 bytes expected"),
    "many values": (pipeline, struct.pack("<2B3H", 2, 1, 1, 0, 257) + bytes(1028), UnsupportedFeatureError, "257"),
    "chunk of nothing": (layout, struct.pack("<3BQ3I", 3, 2, 3, 1, 5, 0, 8), FormatError, "positive"),
    "chunk without axes": (layout, struct.pack("<3BQI", 3, 2, 1, 1, 8), FormatError, "positive"),
    "chunk of many axes": (layout, struct.pack("<3BQ", 3, 2, 34, 1), FormatError, "34 dimensions"),
    "unknown index": (layout, struct.pack("<8B", 4, 2, 0, 2, 1, 5, 8, 9), Unhandled, "index of kind 9"),
    "virtual too early": (layout, struct.pack("<2BQI", 3, 3, 1, 1), Unhandled, "version 3"),
    "compact": (layout, struct.pack("<2BH3s", 3, 0, 4, b"abc"), FormatError, "4 bytes expected at byte 4"),
    "attribute": (attribute, struct.pack("<2B3H", 1, 0, 65535, 8, 8), FormatError, "extent at bytes"),
    "fill": (
        lambda body, sizes: fill(FILL, body),
        bytes([3, 0x20, 255, 255, 255, 255]),
        FormatError,
        "4294967295 bytes",
    ),
    "external": (external_files, struct.pack("<B3x2HQ", 1, 0, 65535, 1), FormatError, "24 bytes expected"),
    **{
        f"unknown version of {name}": (decode, bytes([9] * 40), Unhandled, "version 9")
        for name, decode in {
            "extent": dataspace,
            "filters": pipeline,
            "layout": layout,
            "attribute": attribute,
            "attributes": attribute_info,
            "fill": lambda body, sizes: fill(FILL, body),
            "external": external_files,
        }.items()
    },
}


DECODERS = {
    DATASPACE: dataspace,
    DATATYPE: lambda body, sizes: element(body),
    FILL: lambda body, sizes: fill(FILL, body),
    LAYOUT: layout,
    PIPELINE: lambda body, sizes: pipeline(body),
    ATTRIBUTE: lambda body, sizes: attribute_value(
        attribute(body, sizes), sizes, lambda address, index: b"in the heap"
    ),
}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    """Messages of many kinds, as the library writes them."""
    found = []
    for libver in ("earliest", "latest"):
        path = tmp_path_factory.mktemp("bodies") / "a.h5"
        with h5py.File(path, "w", libver=libver) as file:
            kind = np.dtype([("n", ">i4"), ("t", "S3"), ("a", "f4", (2, 2)), ("b", bool)])
            made = file.create_dataset(
                "v", (4, 5), kind, chunks=(2, 2), maxshape=(None, 9), compression=1, shuffle=True
            )
            made.attrs["record"], made.attrs["texts"], made.attrs["n"] = np.zeros(2, kind), ["a", "b"], np.arange(3)
            file.create_dataset("w", data=np.arange(3), fillvalue=7)
        with opened(path) as both:
            for holder in both.objects().values():
                found += [(kind, body) for kind in DECODERS for body in both.bodies(holder, kind)]
    return found


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_is_damaged_leads_to_an_error_of_ours(bodies, data):
    kind, body = data.draw(st.sampled_from(bodies))
    damaged = bytearray(body[: data.draw(st.integers(1, len(body)))])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(VirtualChunksError, Unhandled):
        DECODERS[kind](bytes(damaged), SIZES)


@pytest.mark.parametrize(("decode", "body", "error", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_damage(decode, body, error, reason):
    with pytest.raises(error, match=reason):
        decode(body) if decode is pipeline else decode(body, SIZES)
