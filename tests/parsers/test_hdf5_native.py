"""Files as their own structures describe them, against what the HDF5 library says of the same files."""

from __future__ import annotations

import h5py
import hdf5forms
import numpy as np
import pytest
from corpusscore import each, files
from hdf5oracle import LibraryParser, NativeParser, check, decoded, outcome, summary

from virtualchunks.errors import FormatError
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.hdf5 import HDF5Parser
from virtualchunks_parsers.hdf5.format.checksums import lookup3
from virtualchunks_parsers.hdf5.format.container import Container
from virtualchunks_parsers.hdf5.format.content import Unhandled

FORMS = [
    *[(content, version, {}) for content in hdf5forms.CONTENTS for version in hdf5forms.VERSIONS],
    *[
        (content, version, options)
        for content in hdf5forms.CONTENTS
        for version in ("earliest", "latest")
        for options in ({"track_order": True}, {"userblock_size": 1024})
    ],
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made.h5"


@pytest.mark.parametrize(("content", "version", "options"), FORMS, ids=lambda part: str(part or "plain"))
def test_all_forms_read_as_the_library_reads_them(path, content, version, options):
    hdf5forms.write(path, content, version, **options)
    assert outcome(NativeParser(), path) == outcome(LibraryParser(), path)


def test_netcdf_reads_as_the_library_reads_it(path):
    hdf5forms.write_netcdf(path)
    assert outcome(NativeParser(), path) == outcome(LibraryParser(), path)
    inner = HDF5Parser(group="inner")
    assert summary(inner.parse(path)) == summary(LibraryParser(group="inner").parse(path))


@pytest.mark.parametrize("content", ["indexes", "masks", "resized"])
@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_values_are_those_of_h5py(path, content, version):
    check(hdf5forms.write(path, content, version))


@pytest.mark.parametrize(("offsets", "lengths"), [(4, 4), (2, 4), (8, 4), (4, 8)])
def test_addresses_and_lengths_of_other_sizes(path, offsets, lengths):
    plist = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    plist.set_sizes(offsets, lengths)
    with h5py.File(h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, plist)) as file:
        file["v"] = np.arange(20)
        file["v"].attrs["text"] = "grüß"
        file.create_dataset("c", data=np.arange(40).reshape(5, 8), chunks=(2, 3), compression=1)
        file["g/soft"] = h5py.SoftLink("/v")
    assert outcome(NativeParser(), path) == outcome(LibraryParser(), path)


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_files_beyond_one_block_are_read_alike(path, version):
    """Of more than 1 MiB, local files are read by blocks and remote ones in rounds."""
    with h5py.File(path, "w", libver=version) as file:
        for number in range(300):
            file[f"g{number % 7}/v{number}"] = np.arange(1000.0)
            file[f"g{number % 7}/v{number}"].attrs["units"] = "K"
        file.create_dataset("c", data=np.arange(20_000), chunks=(10,), maxshape=(None,))
    assert path.stat().st_size > 2 << 20
    assert outcome(NativeParser(), path) == outcome(LibraryParser(), path)


def test_what_is_rare_is_read_through_the_library(path, monkeypatch):
    """Behind an attribute that is left out: what is told is told once."""
    with h5py.File(path, "w") as file:
        file["v"] = np.arange(600)
        file["v"].attrs["before"] = file["v"].ref
        file.create_dataset("w", data=np.arange(60), chunks=(5,))

    def rare(self):
        raise Unhandled("a rare form")

    expected = outcome(LibraryParser(), path)
    monkeypatch.setattr("virtualchunks_parsers.hdf5.structures.StructureDataset.stored", rare)
    with pytest.raises(Unhandled):
        outcome(NativeParser(), path)
    assert outcome(HDF5Parser(), path) == expected
    assert len(expected[1]) == 1


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_damage_is_found_without_the_library(path, version, monkeypatch):
    """Every byte of a header that a checksum covers, and structures that are not what they have to be."""
    with h5py.File(path, "w", libver=version) as file:
        file.create_dataset("v", data=np.arange(60), chunks=(5,), compression=1, maxshape=(None,))
    monkeypatch.setattr("virtualchunks_parsers.hdf5.file._open_local", _refuse)
    whole = path.read_bytes()
    expected = summary(HDF5Parser().parse(path))
    signatures = [b"OHDR", b"EAHD", b"EAIB"] if version == "latest" else [b"TREE", b"SNOD", b"HEAP"]
    for signature in signatures:
        damaged = bytearray(whole)
        damaged[whole.index(signature) + (4 if signature == b"TREE" else 1)] ^= 0x15
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"corrupt.*made\.h5"):
            HDF5Parser().parse(path)
    path.write_bytes(whole)
    assert {name: rest[:8] for name, rest in summary(HDF5Parser().parse(path)).items()} == {
        name: rest[:8] for name, rest in expected.items()
    }


def _refuse(path):
    raise AssertionError("the HDF5 library was asked")


def test_checksums_without_native_code():
    for length in (*range(40), 300):
        data = bytes(range(256)) * 2
        assert lookup3(data[:length]) == _lookup3_of_numcodecs(data[:length])


def _lookup3_of_numcodecs(data):
    checksums = pytest.importorskip("numcodecs.checksum32")
    return checksums.jenkins_lookup3(data, 0)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_groups_of_many_links(path, version, ordered):
    """Heaps whose blocks lie in blocks, and B-trees of several levels."""
    with h5py.File(path, "w", libver=version, track_order=ordered) as file:
        file["v"] = 1
        for number in range(20_000):
            file[f"{number * 7919 % 20_000:05d} {'x' * (number % 40)}"] = h5py.SoftLink(f"/target {number}")
    with ObjectReader(ObjectStoreRegistry.coerce(None).grant(path.as_uri()), path.as_uri()) as reader:
        container = Container(reader)
        links = container.links(container.superblock.root)
    with h5py.File(path) as file:
        names = list(file)
        assert [link.name.decode() for link in links] == names
        for number in (5, 7000, 19_999):
            assert file.get(names[number], getlink=True).path == links[number].target[0].decode()


@each(files("hdf5", "netcdf4"))
def test_real_files_read_as_the_library_reads_them(path):
    if not HDF5Parser.recognises(path.read_bytes()[:4096]):
        pytest.skip("no HDF5 file")
    try:
        found = outcome(NativeParser(), path)
    except Unhandled:
        return
    assert found == outcome(LibraryParser(), path)


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_a_grid_that_cannot_be_numbered_is_left_out(path, version):
    with h5py.File(path, "w", libver=version) as file:
        made = file.create_dataset("v", shape=(3 << 30, 1 << 31), chunks=(1, 1), dtype="i1", maxshape=(None, None))
        made[5, 5], made[10**9, 7] = 1, 2
        file["w"] = 1
    found, told = outcome(NativeParser(), path)
    assert (found, told) == outcome(LibraryParser(), path)
    assert len(told) == 1
    assert set(found) == {"/", "/w"}


def test_nodes_that_overlap_are_not_read_many_times_over(path):
    """A B-tree whose root leads to as many nodes as bytes can be counted in, all of them in one place."""
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=np.arange(6000), chunks=(1,))
    whole = bytearray(path.read_bytes())
    nodes = [at for at in range(len(whole)) if whole[at : at + 5] == b"TREE\1"]
    level = max(whole[at + 5] for at in nodes)
    root = next(at for at in nodes if whole[at + 5] == level)
    first = whole[root + 24 + 24 : root + 24 + 32]
    for number in range(1, whole[root + 6]):
        at = root + 24 + number * 32 + 24
        whole[at : at + 8] = first
    path.write_bytes(whole)
    with pytest.raises(FormatError, match="a node in two places"):
        HDF5Parser().parse(path)


def test_text_of_variable_length_is_read_without_the_library(path, monkeypatch):
    texts = ["grüß", "", "a" * 5000, *(f"text {number}" for number in range(3000))]
    with h5py.File(path, "w") as file:
        file["texts"] = texts
        file["table"] = np.array(texts[:6], dtype=object).reshape(2, 3)
        file["one"] = "scalar"
    expected = outcome(LibraryParser(), path)
    monkeypatch.setattr("virtualchunks_parsers.hdf5.file._open_local", _refuse)
    assert outcome(NativeParser(), path) == expected
    assert decoded(HDF5Parser().parse(path)["texts"]).tolist() == texts
