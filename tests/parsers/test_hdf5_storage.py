from __future__ import annotations

import warnings

import h5py
import numpy as np
import pytest
from hdf5oracle import check
from obstore.store import MemoryStore

from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    NotGrantedError,
    SourceUnavailableError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
)
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.hdf5 import HDF5Parser


def beside(path):
    """A registry that grants the folder of a file."""
    return ObjectStoreRegistry({path.parent.as_uri() + "/": None})


pytestmark = pytest.mark.usefixtures("hdf5_way")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made.h5"


VALUES = np.arange(600.0).reshape(20, 30)


def test_contiguous_data_is_one_chunk_where_it_lies(path):
    with h5py.File(path, "w") as file:
        file["v"] = VALUES
        offset = file["v"].id.get_offset()
    entry = check(path)["v"].manifest["0.0"]
    assert (entry["path"], entry["offset"], entry["length"]) == (path.as_uri(), offset, VALUES.nbytes)


def test_chunks_are_referred_to_one_by_one(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=VALUES, chunks=(7, 30), compression=1)
        file.create_dataset("part", shape=(20, 30), chunks=(7, 10), dtype="f8", fillvalue=-5)[:7] = 1.0
    tree = check(path)
    assert len(tree["v"].manifest) == 3
    assert len(tree["part"].manifest) == 3
    assert tree["part"].metadata.fill_value == -5


def test_all_arrays_of_a_file_share_one_row_with_its_stamp(path):
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = VALUES, VALUES
    tree = check(path)
    assert tree["a"].manifest.sources is tree["b"].manifest.sources
    stamp = tree["a"].manifest.sources.stamp(0)
    assert (stamp.size, stamp.last_modified) == (path.stat().st_size, path.stat().st_mtime_ns)


def test_compact_data_is_kept_in_memory(path):
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((20,))
        h5py.Dataset(h5py.h5d.create(file.id, b"v", h5py.h5t.STD_I32BE, space, plist))[...] = np.arange(20)
    assert "data" in check(path)["v"].manifest["0"]


def test_each_filter_mask_is_an_encoding(path):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("v", data=np.arange(30, dtype="i4"), chunks=(10,), compression=1, shuffle=True)
        made.id.write_direct_chunk((10,), np.arange(10, dtype="i4").tobytes(), filter_mask=3)
        alone = file.create_dataset("alone", shape=(4,), dtype="i4", chunks=(4,), compression=1)
        alone.id.write_direct_chunk((0,), np.arange(4, dtype="i4").tobytes(), filter_mask=1)
    tree = check(path)
    assert len(tree["v"].manifest.sources) == 2
    assert tree["v"].is_heterogeneous
    assert not tree["alone"].is_heterogeneous
    assert tree["alone"].metadata.encoding.is_uncompressed


@pytest.mark.parametrize("block", [512, 4096])
def test_behind_a_user_block_addresses_are_those_of_the_file(path, block):
    with h5py.File(path, "w", userblock_size=block) as file:
        file["v"] = VALUES
        file.create_dataset("c", data=VALUES, chunks=(5, 5), compression=1)
        file.create_dataset("unwritten", shape=(3,), dtype="i2", fillvalue=4)
    check(path)


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
def test_every_chunk_index_is_read(path, libver):
    with h5py.File(path, "w", libver=libver, fs_strategy="page") as file:
        for name, shape, limit in (("fixed", (20, 6), None), ("one", (20, None), 0), ("two", (None, None), 0)):
            file.create_dataset(
                name, data=VALUES[:20, :6], chunks=(3, 4), maxshape=shape if limit == 0 else None, compression=1
            )
        file.create_dataset("single", data=VALUES, chunks=VALUES.shape)
    check(path)


@pytest.mark.parametrize("block", [0, 512])
@pytest.mark.parametrize("grown", [0, 1, 2])
@pytest.mark.parametrize("written", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 1, 1)])
def test_a_single_chunk_of_a_growing_dataset_is_where_it_was_written(path, grown, written, block):
    """The HDF5 library itself names wrong places for these."""
    limits = [None if axis == grown else 6 for axis in range(3)]
    with h5py.File(path, "w", libver="latest", userblock_size=block) as file:
        made = file.create_dataset("v", shape=(6, 6, 6), maxshape=limits, chunks=(2, 3, 3), dtype="i4", compression=1)
        first, second, third = (place * size for place, size in zip(written, (2, 3, 3), strict=True))
        made[first : first + 2, second : second + 3, third : third + 3] = np.arange(18).reshape(2, 3, 3)
    check(path)


def test_shapes_without_or_with_few_elements(path):
    with h5py.File(path, "w") as file:
        file["scalar"] = np.float32(3)
        file["scalar_text"] = "grüß"
        file["empty"] = np.zeros((0, 3))
        file.create_dataset("empty_chunked", shape=(0, 3), chunks=(4, 3), maxshape=(None, 3), dtype="i2", compression=1)
        file.create_dataset("oversized", data=np.arange(3), chunks=(1024,), maxshape=(None,), compression=1)
        file.create_dataset("empty_text", shape=(0,), dtype=h5py.string_dtype())
    tree = check(path)
    assert tree["oversized"].metadata.chunks == (1024,)


def test_a_huge_dataset_without_chunks_costs_nothing(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("v", shape=(10**5, 10**5), chunks=(1, 1), dtype="f4", fillvalue=7)
    array = HDF5Parser().parse(str(path))["v"]
    assert array.nbytes_virtual < 1000
    assert array.metadata.fill_value == 7


def test_a_huge_sparse_dataset_is_left_out(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("v", shape=(10**5, 10**5), chunks=(1, 1), dtype="f4")[0, 0] = 1
    with pytest.warns(UnsupportedArrayWarning, match=r"'/v' of .* is left out: a grid of 10000000000 chunks"):
        assert not HDF5Parser().parse(str(path)).arrays
    with pytest.raises(LimitExceededError, match="variable '/v'"):
        HDF5Parser(strict=True).parse(str(path))


# ---------------------------------------------------------------------------------------------------- external files


def external(path, sizes, name="side.bin"):
    """A dataset of 20 rows of 240 bytes in one side file, in segments of these sizes, in reversed order."""
    data = VALUES.tobytes()
    starts = np.cumsum([0, *sizes[:-1]])
    with (path.parent / "side.bin").open("wb") as side:
        place = {}
        for number in reversed(range(len(sizes))):
            place[number] = side.tell() + 5
            side.write(b"xxxxx" + data[starts[number] : starts[number] + sizes[number]])
    with h5py.File(path, "w") as file:
        segments = [(name, place[number], size) for number, size in enumerate(sizes)]
        file.create_dataset("v", shape=VALUES.shape, dtype="f8", external=segments)


@pytest.mark.parametrize("sizes", [[4800], [2400, 2400], [240, 4000 - 160, 720], [480, 4320, 10**6]])
def test_external_storage_is_referred_to_in_its_own_file(path, monkeypatch, sizes):
    external(path, sizes)
    monkeypatch.chdir(path.parent)  # where the HDF5 library looks
    tree = check(path, beside(path))
    assert set(tree["v"].manifest.iter_nonempty_paths()) == {(path.parent / "side.bin").as_uri()}
    assert tree["v"].manifest.sources.stamp(0).size == (path.parent / "side.bin").stat().st_size


def test_external_segments_that_cut_rows_are_refused(path):
    external(path, [1000, 3800])
    with pytest.warns(UnsupportedArrayWarning, match="'/v' of .*segments that do not end where rows"):
        HDF5Parser().parse(str(path), beside(path))


def test_external_storage_that_is_not_granted_is_an_error(path):
    external(path, [4800])
    with pytest.raises(NotGrantedError, match=r"side\.bin.*variable '/v'"):
        HDF5Parser().parse(str(path))
    (path.parent / "side.bin").unlink()
    with pytest.raises(SourceUnavailableError, match=r"side\.bin"):
        HDF5Parser().parse(str(path), beside(path))


def test_external_storage_that_is_too_short_is_an_error(path):
    external(path, [4800])
    (path.parent / "side.bin").write_bytes(b"short")
    with pytest.raises(FormatError, match=r"side\.bin, which ends at 5"):
        HDF5Parser().parse(str(path), beside(path))


def test_external_storage_above_the_folder_is_refused(path):
    external(path, [4800], name="../side.bin")
    with pytest.warns(UnsupportedArrayWarning, match=r"it points at the file '\.\./side\.bin'"):
        HDF5Parser().parse(str(path), beside(path))


# ---------------------------------------------------------------------------------------------------- virtual datasets


def sources(path, count=3, **options):
    for number in range(count):
        with h5py.File(path.parent / f"part{number}.h5", "w") as file:
            file.create_dataset("v", data=VALUES[:10] + 1000 * number, **options)


def virtual(path, shape, mappings, dtype="f8", fillvalue=-1.0):
    """Write a virtual dataset: target selection, file, source selection."""
    layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
    for target, name, selection in mappings:
        layout[target] = h5py.VirtualSource(name, "v", shape=(10, 30))[selection]
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("v", layout, fillvalue=fillvalue)


CHUNKED = {"chunks": (5, 30), "compression": 1}
ALL = np.s_[:, :]


@pytest.mark.parametrize("options", [{}, CHUNKED], ids=["contiguous", "compressed"])
def test_virtual_datasets_end_to_end(path, options):
    sources(path, **options)
    virtual(path, (30, 30), [(np.s_[10 * n : 10 * n + 10], f"part{n}.h5", ALL) for n in range(3)])
    tree = check(path, beside(path))
    assert len(set(tree["v"].manifest.iter_nonempty_paths())) == 3


def test_virtual_datasets_side_by_side_with_a_gap(path):
    sources(path, **CHUNKED)
    virtual(path, (20, 60), [(np.s_[:10, 30:], "part0.h5", ALL), (np.s_[10:, :30], "part1.h5", ALL)])
    check(path, beside(path))


def test_virtual_datasets_stacked(path):
    sources(path, chunks=(1, 30), compression=1)
    virtual(path, (3, 30), [(n, f"part{n}.h5", np.s_[n, :]) for n in range(3)])
    check(path, beside(path))
    virtual(path, (3, 10, 30), [(n, f"part{n}.h5", ALL) for n in range(3)])
    check(path, beside(path))


def test_virtual_datasets_of_parts_of_uncompressed_sources(path):
    sources(path)
    virtual(path, (8, 30), [(np.s_[:4], "part0.h5", np.s_[3:7]), (np.s_[4:], "part1.h5", np.s_[:4])])
    check(path, beside(path))


def test_virtual_datasets_whose_sources_have_partial_last_chunks(path):
    sources(path, chunks=(4, 30), compression=1)
    virtual(path, (20, 30), [(np.s_[:10], "part0.h5", ALL), (np.s_[10:], "part1.h5", ALL)])
    assert check(path, beside(path))["v"].metadata.grid.axes[0].edges == (4, 4, 2, 4, 4, 4)


def test_virtual_datasets_over_others_in_the_same_file(path):
    with h5py.File(path, "w") as file:
        file["v"] = VALUES[:10]
        first = h5py.VirtualLayout(shape=(10, 30), dtype="f8")
        first[...] = h5py.VirtualSource(".", "v", shape=(10, 30))
        file.create_virtual_dataset("one", first)
        second = h5py.VirtualLayout(shape=(20, 30), dtype="f8")
        second[:10], second[10:] = (h5py.VirtualSource(".", name, shape=(10, 30)) for name in ("one", "v"))
        file.create_virtual_dataset("two", second)
    check(path)


REFUSED = {
    "through a compressed chunk": (CHUNKED, (5, 30), [(ALL, "part0.h5", np.s_[3:8])], "cuts through the chunk"),
    "strided": (CHUNKED, (5, 30), [(ALL, "part0.h5", np.s_[::2])], "not one block"),
    "not in line": (
        CHUNKED,
        (20, 60),
        [(np.s_[:10, :30], "part0.h5", ALL), (np.s_[7:17, 30:], "part1.h5", ALL)],
        "do not line up",
    ),
    "overlapping": ({}, (10, 30), [(ALL, "part0.h5", ALL), (ALL, "part1.h5", ALL)], "overlap"),
}


@pytest.mark.parametrize(("options", "shape", "mappings", "reason"), REFUSED.values(), ids=REFUSED)
def test_virtual_datasets_that_cannot_be_referred_to(path, options, shape, mappings, reason):
    sources(path, **options)
    virtual(path, shape, mappings)
    with pytest.warns(UnsupportedArrayWarning, match=f"'/v' of .*{reason}"):
        HDF5Parser().parse(str(path), beside(path))


def test_a_virtual_dataset_of_another_dtype_is_refused(path):
    sources(path)
    virtual(path, (10, 30), [(ALL, "part0.h5", ALL)], dtype="f4")
    with pytest.raises(UnsupportedFeatureError, match="a source of dtype float64"):
        HDF5Parser(strict=True).parse(str(path), beside(path))


def test_a_virtual_dataset_without_its_source_is_an_error(path):
    sources(path, count=1)
    virtual(path, (20, 30), [(np.s_[:10], "part0.h5", ALL), (np.s_[10:], "part1.h5", ALL)])
    with pytest.raises(SourceUnavailableError, match=r"part1\.h5.*variable '/v'"):
        HDF5Parser().parse(str(path), beside(path))
    with pytest.raises(NotGrantedError, match=r"part0\.h5"):
        HDF5Parser().parse(str(path))


def test_a_growing_virtual_dataset_is_refused_before_its_sources_are_opened(path):
    layout = h5py.VirtualLayout(shape=(10, 30), dtype="f8", maxshape=(None, 30))
    layout[: h5py.h5s.UNLIMITED] = h5py.VirtualSource("part0.h5", "v", shape=(10, 30), maxshape=(None, 30))[
        : h5py.h5s.UNLIMITED
    ]
    sources(path, count=1)
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset("v", layout)
    with pytest.warns(UnsupportedArrayWarning, match="grow with their sources"):
        HDF5Parser().parse(str(path))


# ------------------------------------------------------------------------------------------------ elsewhere, and damage


def test_a_remote_file_is_parsed_alike(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("v", data=VALUES, chunks=(7, 30), compression=1)
        file["text"] = ["a", "b"]
    store = MemoryStore()
    store.put("a b.h5", path.read_bytes())
    registry = ObjectStoreRegistry({"memory://": store})
    tree = HDF5Parser().parse("memory:///a%20b.h5", registry)
    assert tree["v"].manifest.sources.stamp(0).size == path.stat().st_size
    np.testing.assert_array_equal(read_values(tree["v"], registry), VALUES)
    assert read_values(tree["text"], registry).tolist() == ["a", "b"]


def test_a_chunk_beyond_the_end_of_the_file_is_an_error(path):
    with h5py.File(path, "w") as file:
        file["first"], file["v"] = VALUES, VALUES
        end = file["v"].id.get_offset() + 100
    content = bytearray(path.read_bytes()[:end])
    content[40:48] = len(content).to_bytes(8, "little")  # the superblock's end of file
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"variable '/|'/"):
        HDF5Parser().parse(str(path))


@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (b"", "empty"),
        (b"CDF\x01" + bytes(60), r"NetCDF-3 \(classic\)"),
        (b"CDF\x05" + bytes(60), "CDF-5"),
        (b"GRIB" + bytes(60), "GRIB"),
        (b"II*\0" + bytes(60), "TIFF"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"\x0e\x03\x13\x01" + bytes(60), "HDF4"),
        (b"PK\x03\x04" + bytes(60), "Zip"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b'{"refs": {}}', "JSON"),
        (bytes(600), "zeros"),
        (b"some words", "text"),
        (bytes(range(1, 40)), "01 02 03"),
    ],
)
def test_what_is_not_hdf5_is_described(path, content, looks):
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"not an HDF5 file: it is .*{looks}.*made.h5"):
        HDF5Parser().parse(str(path))


def test_a_truncated_file_is_an_error(path):
    with h5py.File(path, "w") as file:
        file["v"] = VALUES
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match=r"this HDF5 file of \d+ bytes cannot be opened.*truncated"):
        HDF5Parser().parse(str(path))


def test_no_warning_without_reason(path):
    with h5py.File(path, "w") as file:
        file["v"] = VALUES
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HDF5Parser(strict=True)(str(path))


def test_a_file_that_this_process_has_open_is_parsed(path):
    with h5py.File(path, "w") as file:
        file["v"] = VALUES
    with h5py.File(path, "r"):
        assert HDF5Parser().parse(path)["v"].shape == VALUES.shape
