"""DMR++ documents: read back by the parser record by record, true to DAP4, refused by name where they cannot be."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree as ET

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

import virtualchunks as vc
from virtualchunks import ManifestArray, ManifestGroup
from virtualchunks.errors import LimitExceededError, TargetExistsError, UnsupportedFeatureError, WriteError
from virtualchunks.group import is_node_name
from virtualchunks.manifest import WIDE_RECORD, ChunkManifest
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.testing.forms import FormTests, assert_same_tree, references
from virtualchunks.writers.datasets import in_memory_array
from virtualchunks.writers.dmrpp import storage, write_dmrpp
from virtualchunks.writers.dmrpp.elements import is_legal
from virtualchunks.writers.dmrpp.storage import fill_text
from virtualchunks_parsers.dmrpp import DMRPPParser
from virtualchunks_parsers.dmrpp.fills import fill_value
from virtualchunks_parsers.hdf5 import HDF5Parser

DAP4 = "{http://xml.opendap.org/ns/DAP/4.0#}"
DMRPP = "{http://xml.opendap.org/dap/dmrpp/1.0.0#}"
SHUFFLE, DEFLATE, FLETCHER = (
    {"name": "numcodecs.shuffle", "configuration": {"elementsize": 4}},
    {"name": "numcodecs.zlib", "configuration": {"level": 4}},
    {"name": "numcodecs.fletcher32", "configuration": {}},
)


def written(tree: Any, folder: Path) -> Path:
    write_dmrpp(tree, folder / "a.dmrpp")
    return folder / "a.dmrpp"


def read(path: Path) -> ManifestGroup:
    return DMRPPParser(strict=True, stamps=False).parse(str(path), ObjectStoreRegistry({"file:///": None}))


def element_of(tree: ManifestGroup, folder: Path, path: str) -> ET.Element:
    found = ET.parse(written(tree, folder)).getroot().find(path)
    assert found is not None
    return found


class TestDMRPP(FormTests):
    """What holds for every written form."""

    refuses: ClassVar[frozenset[str]] = frozenset(
        {
            "compressed",  # by gzip, whose framing is not deflate's
            "chunks in memory",
            "chunks of 4 GiB and more",  # which are uncompressed chunks of one element
            "zero length",  # whose arrays disagree about a dimension
            "rectilinear",
            "attributes",  # among them a truth value
            "transposed",
            "mixed encodings",
            "mixed encodings in nested groups",
            "shards",
            "named roots",
            *(f"fill value of {dtype}" for dtype in ("?", "<f2", "<c8", "<c16", "<U3", "<M8[s]", "<m8[ns]")),
        }
    )

    def write(self, tree: ManifestGroup, folder: Path) -> Any:
        return written(tree, folder)

    def read(self, written: Any) -> tuple[ManifestGroup, ObjectStoreRegistry]:
        return read(written), ObjectStoreRegistry()


def same(tree: ManifestGroup, folder: Path) -> None:
    assert_same_tree(read(written(tree, folder)), tree, ObjectStoreRegistry())


ARRAYS = {
    "zero length": lambda: references((0, 6), fill_value=3),
    "zero length, chunks longer": lambda: references((4, 0), (2, 3)),
    "chunks longer than the array": lambda: references((3,), (8,)),
    "shuffle": lambda: references(codecs=(SHUFFLE,)),
    "deflate": lambda: references(codecs=(DEFLATE,)),
    "all filters": lambda: references(codecs=(SHUFFLE, DEFLATE, FLETCHER)),
    "checksum first": lambda: references(codecs=(FLETCHER, DEFLATE)),
    "deflate twice": lambda: references(codecs=(DEFLATE, DEFLATE)),
    "filtered whole": lambda: references((4, 6), (4, 6), codecs=(DEFLATE,)),
    "big-endian and filtered": lambda: references(dtype=">f4", codecs=(SHUFFLE, DEFLATE)),
    "padded text": lambda: references(
        dtype="S4", codecs=({"name": "virtualchunks.text_padding", "configuration": {"pad": "space_pad"}}, DEFLATE)
    ),
    "nested structures": lambda: references(
        (4,), (2,), np.dtype([("a", ">i2"), ("b", [("x", ">f4"), ("y", ">f8")])]), fill_value=(1, (0.1, -1e300))
    ),
}


@pytest.mark.parametrize("kind", list(ARRAYS))
def test_arrays_come_back(kind: str, tmp_path: Path) -> None:
    same(ManifestGroup({"v": ARRAYS[kind]()}), tmp_path)


def test_chunks_of_four_gibibytes_come_back(tmp_path: Path) -> None:
    array = references((2,), (1,), "u1", codecs=(DEFLATE,))
    records = np.zeros(2, dtype=WIDE_RECORD)
    records["length"], records["offset"] = [5 * 2**30, 12], [2**40, 2**62]
    manifest = ChunkManifest.from_records(records, array.manifest.sources)
    same(ManifestGroup({"v": ManifestArray(array.metadata, manifest)}), tmp_path)


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "<u4", "<i8", ">f4", "<f8", "S3"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0, 3)], ids=str)
def test_values_in_memory_come_back(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.arange(max(1, math.prod(shape)))[: math.prod(shape)].reshape(shape).astype(dtype)
    tree = ManifestGroup({"v": in_memory_array(values, tuple("xy"[: len(shape)]), {})})
    found = read(written(tree, tmp_path)).arrays["v"]
    expected = values.astype(values.dtype.newbyteorder("="))
    np.testing.assert_array_equal(read_values(found, ObjectStoreRegistry()), expected, strict=True)


def test_compressed_chunks_in_memory_are_written_as_values(tmp_path: Path) -> None:
    values = np.arange(24, dtype="i4").reshape(4, 6)
    metadata = references(codecs=(SHUFFLE, DEFLATE)).metadata
    tree = ManifestGroup({"v": ManifestArray(metadata, vc.inline.encode_array(values, metadata))})
    found = read(written(tree, tmp_path)).arrays["v"]
    np.testing.assert_array_equal(read_values(found, ObjectStoreRegistry()), values)


def test_text_of_any_kind_comes_back(tmp_path: Path) -> None:
    texts = ["", "a\x00b", "\x01", "a & <b>", " blank ", "line\r\nline\n", "same", "same", "same", "日本 😀", "]]>"]
    values = np.array(texts, dtype=np.dtypes.StringDType())
    scalar = np.array(texts[5], values.dtype)
    tree = ManifestGroup({"v": in_memory_array(values, ("x",), {}), "s": in_memory_array(scalar, (), {})})
    found = read(written(tree, tmp_path))
    assert read_values(found.arrays["v"], ObjectStoreRegistry()).tolist() == texts
    assert read_values(found.arrays["s"], ObjectStoreRegistry())[()] == texts[5]


# ----------------------------------------------------------------------------------------------- against other readers


def archive(path: Path) -> Path:
    numbers = np.arange(240).reshape(12, 20)
    with h5py.File(path, "w") as file:
        file["lat"] = np.linspace(-90, 90, 12)
        file["lat"].make_scale("lat")
        deflated = {"chunks": (5, 8), "compression": "gzip", "shuffle": True}
        made = file.create_dataset("t", data=numbers.astype("<f4"), **deflated)
        made.dims[0].attach_scale(file["lat"])
        made.attrs["units"] = "K"
        made.attrs["_FillValue"] = np.float32(-999)
        file.create_dataset("plain", data=numbers.astype(">i2"), chunks=(5, 8))
        file.create_dataset("checked", data=numbers.astype("<i4"), fletcher32=True, **deflated)
        file.create_dataset("sparse", shape=(12, 20), dtype="<f8", chunks=(5, 8), fillvalue=0.1)[:5, :8] = 1
        file.create_dataset("whole", data=numbers.astype("u1"))
        file.create_dataset("names", data=np.array([b"one", b"three", b""], "S5"))
        file.create_dataset("words", data=["one", "three", ""], dtype=h5py.string_dtype())
        file.create_dataset("pairs", data=np.zeros(3, [("a", "<i4"), ("b", "<f8")]))
        file.create_group("model").create_group("run")["scalar"] = np.float64(2.5)
    return path


def test_an_hdf5_file_reads_through_its_document_as_h5py_reads_it(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.h5")
    write_dmrpp(HDF5Parser(strict=True).parse(str(path)), tmp_path / "a.h5.dmrpp")
    store = DMRPPParser(strict=True)(str(tmp_path / "a.h5.dmrpp"))  # the file beside the document is granted
    registry = ObjectStoreRegistry({tmp_path: None})
    expected: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: expected.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    found = {name: read_values(array, registry) for name, array in store.group.walk_arrays()}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        wanted = [text.decode() for text in values] if values.dtype == object else values
        np.testing.assert_array_equal(found[name], wanted, err_msg=name)


VIRTUALIZARR = """
import json, sys
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from virtualizarr.parsers import DMRPPParser

store = DMRPPParser()(url=sys.argv[1], registry=ObjectStoreRegistry({"file://": LocalStore()}))
arrays = store._group.arrays.items()
print(json.dumps({name: [array.shape, str(array.dtype), array.manifest.dict()] for name, array in arrays}))
"""


def test_virtualizarr_reads_the_same_references(tmp_path: Path) -> None:
    """Of what it knows: no fletcher32, no text, little-endian numbers. It runs apart, as it takes the accessor vz."""
    if importlib.util.find_spec("virtualizarr") is None:
        pytest.skip("VirtualiZarr is not installed")
    path = archive(tmp_path / "a.h5")
    dropped = ["checked", "names", "words", "pairs", "plain", "scalar"]
    tree = HDF5Parser(strict=True, drop_variables=dropped).parse(str(path))
    write_dmrpp(tree, tmp_path / "a.h5.dmrpp")
    command = [sys.executable, "-W", "ignore", "-c", VIRTUALIZARR, (tmp_path / "a.h5.dmrpp").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    expected = {
        name: [list(array.shape), str(array.dtype), {key: dict(entry) for key, entry in array.manifest.items()}]
        for name, array in tree.arrays.items()
    }
    assert json.loads(done.stdout) == expected
    assert set(expected) == {"lat", "t", "sparse", "whole"}


def test_the_document_says_what_dap4_says(tmp_path: Path) -> None:
    inner = ManifestGroup({"w": references((6,), (3,), names=("d1",), url="file:///archive/b.nc")})
    arrays = {"v": references(codecs=(SHUFFLE, DEFLATE)), "d1": references((6,), (6,), "<f8", names=("d1",))}
    tree = ManifestGroup(arrays, {"g": inner}, {"title": "a & b"})
    root = ET.parse(written(tree, tmp_path)).getroot()
    assert root.tag == f"{DAP4}Dataset"
    assert root.attrib[f"{DMRPP}href"] == "file:///archive/a.nc"
    assert root.attrib["name"] == "a"
    assert (root.attrib["dapVersion"], root.attrib["dmrVersion"]) == ("4.0", "1.0")
    kinds = ["Dimension", "Dimension", "Int32", "Float64", "Attribute", "Group"]
    assert [child.tag for child in root] == [DAP4 + kind for kind in kinds]
    variable = root[2]
    assert [child.tag for child in variable] == [f"{DAP4}Dim", f"{DAP4}Dim", f"{DAP4}Map", f"{DMRPP}chunks"]
    assert [child.attrib["name"] for child in variable[:3]] == ["/d0", "/d1", "/d1"]
    chunks = variable[3]
    assert chunks.attrib == {
        "byteOrder": "LE", "fillValue": "0", "compressionType": "shuffle deflate", "deflateLevel": "4"
    }  # fmt: skip
    assert chunks[0].text == "2 3"
    assert chunks[2].attrib == {"offset": "69632", "nBytes": "24", "chunkPositionInArray": "[0,3]"}
    assert [child.tag for child in root[5]] == [f"{DAP4}Int32"]  # its dimension is declared above it
    assert root[5][0][-1][1].attrib["href"] == "file:///archive/b.nc"
    assert root[3][-1][0].attrib == {"offset": "4096", "nBytes": "48"}


def test_a_document_of_values_alone_leaves_the_data_file_open(tmp_path: Path) -> None:
    tree = ManifestGroup({"v": in_memory_array(np.arange(3.0), ("x",), {})})
    root = ET.parse(written(tree, tmp_path)).getroot()
    assert root.attrib[f"{DMRPP}href"] == "OPeNDAP_DMRpp_DATA_ACCESS_URL"
    assert root.find(f"{DAP4}Float64/{DMRPP}compact") is not None


# ------------------------------------------------------------------------------------------------ names and attributes


def test_dimensions_of_one_name_in_groups_of_their_own(tmp_path: Path) -> None:
    groups = {
        "a": ManifestGroup({"v": references((3,), (3,), names=("x",))}),
        "b": ManifestGroup({"v": references((5,), (5,), names=("x",))}),
        "c": ManifestGroup({"v": references((4,), (4,), names=("x",))}),
    }
    same(ManifestGroup({"v": references((4,), (4,), names=("x",))}, groups), tmp_path)


@pytest.mark.parametrize(
    ("value", "kind", "back"),
    [
        ("text", "String", "text"),
        ("a\rb\n <&>\"'", "String", "a\rb\n <&>\"'"),
        (b"bytes", "String", "bytes"),
        (["a", "b c"], "String", ["a", "b c"]),
        (np.array(["a", "b"]), "String", ["a", "b"]),
        (3, "Int32", 3),
        (2**40, "Int64", 2**40),
        (2**63, "UInt64", 2**63),
        (np.int16(-3), "Int16", -3),
        (np.array([1, 2], "u1"), "Byte", [1, 2]),
        ([1, 2.5], "Float64", [1.0, 2.5]),
        (np.float32(0.1), "Float32", float(np.float32(0.1))),
        (np.float16(0.5), "Float32", 0.5),
        (math.inf, "Float64", math.inf),
        ([], "Float64", []),
    ],
    ids=str,
)
def test_attributes_have_types(value: Any, kind: str, back: Any, tmp_path: Path) -> None:
    tree = ManifestGroup({"v": references(attributes={"a": value})}, attributes={"a": value, "box": {"a": value}})
    found = read(written(tree, tmp_path))
    assert found.attributes == {"a": back, "box": {"a": back}}
    assert found.arrays["v"].metadata.attributes == {"a": back}
    root = ET.parse(tmp_path / "a.dmrpp").getroot()
    assert root.find(f"{DAP4}Attribute").attrib == {"name": "a", "type": kind}


@settings(max_examples=60)
@given(
    st.text(min_size=1).filter(is_node_name),
    st.text(min_size=1).filter(lambda name: "/" not in name),
    st.dictionaries(st.text(min_size=1), st.text() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)),
)
def test_any_text_comes_back_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, dimension: str, attributes: dict[str, Any]
) -> None:
    tree = ManifestGroup({name: references((4,), (2,), names=(dimension,), attributes=attributes)}, {}, attributes)
    store, path = MemoryStore(), tmp_path_factory.getbasetemp() / "any.dmrpp"
    texts = [name, dimension, *attributes, *(value for value in attributes.values() if isinstance(value, str))]
    if not all(map(is_legal, texts)):
        with pytest.raises(UnsupportedFeatureError, match="XML"):
            write_dmrpp(tree, "any", store=store)
        return
    write_dmrpp(tree, "any", store=store)  # in memory, since files are flushed to the disk one by one
    path.write_bytes(bytes(store.get("any").bytes()))
    assert_same_tree(read(path), tree, ObjectStoreRegistry())


def test_fill_value_attributes_have_the_type_of_the_variable(tmp_path: Path) -> None:
    tree = ManifestGroup({"v": references(dtype="<i2", attributes={"_FillValue": -1, "missing_value": 10**6})})
    kinds = [child.attrib["type"] for child in element_of(tree, tmp_path, f"{DAP4}Int16") if "type" in child.attrib]
    assert kinds == ["Int16", "Int32"]


@settings(max_examples=100)
@given(st.floats(), st.sampled_from(["f4", "f8"]), st.none() | st.floats())
def test_fill_values_are_exact(number: float, dtype: str, attribute: float | None) -> None:
    with np.errstate(all="ignore"):
        value = np.array(number).astype(dtype)[()]
    back = fill_value(str(fill_text(value)), np.dtype(dtype), attribute)
    np.testing.assert_array_equal(back, value)


# ----------------------------------------------------------------------------------------------------- what is refused


def with_fill(text: bytes) -> ManifestArray:
    array = references((4,), (2,), "S3", fill_value=text)
    return ManifestArray(array.metadata, ChunkManifest.missing((2,)))


def bytes_of_any_length() -> ManifestArray:
    codecs = ({"name": "vlen-bytes"},)
    metadata = vc.ArrayMetadata(
        vc.ChunkGrid.regular((2,), (2,)), np.dtype(object), vc.ChunkEncoding(np.dtype(object), codecs)
    )
    return ManifestArray(metadata, {"0": {"path": "/archive/a.nc", "offset": 0, "length": 8}})


REFUSED = {
    "a dimension with a slash": (lambda: references((4,), (2,), names=("a/b",)), "no name in DAP4"),
    "a fill value that is no text": (lambda: with_fill(b"\xff"), "the fill value"),
    "a fill value that XML cannot hold": (lambda: with_fill(b"\x01"), "the fill value"),
    "an attribute that XML cannot hold": (lambda: references(attributes={"a": "\x00"}), "the attribute 'a'"),
    "an attribute of two dimensions": (lambda: references(attributes={"a": np.zeros((2, 2))}), "of 2 dimensions"),
    "an attribute of mixed types": (lambda: references(attributes={"a": [1, "b"]}), "text among other values"),
    "an attribute without a type": (lambda: references(attributes={"a": None}), "NoneType"),
    "a complex attribute": (lambda: references(attributes={"a": 1j}), "complex128"),
    "an attribute without a name": (lambda: references(attributes={"": 1}), "empty name"),
    "zstd": (lambda: references(codecs=({"name": "zstd", "configuration": {"level": 3}},)), "zstd"),
    "shuffled late": (lambda: references(codecs=(DEFLATE, SHUFFLE)), "shuffle of whole elements"),
    "shuffled otherwise": (
        lambda: references(codecs=({"name": "numcodecs.shuffle", "configuration": {"elementsize": 2}},)),
        "shuffle of whole elements",
    ),
    "bytes of any length": (bytes_of_any_length, "dtype object"),
    "a structure with text": (lambda: references((2,), (2,), np.dtype([("a", "S3")])), "field 'a'"),
    "a structure with a gap": (
        lambda: references((2,), (2,), np.dtype([("a", "i1"), ("b", "<i4")], align=True)),
        "gap",
    ),
    "a chunk of another length": (
        lambda: ManifestArray(
            references((4,), (4,)).metadata, {"0": {"path": "/archive/a.nc", "offset": 0, "length": 8}}
        ),
        "has 8 bytes, and readers of DMR\\+\\+ expect 16",
    ),
}


@pytest.mark.parametrize("kind", list(REFUSED))
def test_what_cannot_be_held_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    make, problem = REFUSED[kind]
    (tmp_path / "a.dmrpp").write_text("before")
    with pytest.raises(UnsupportedFeatureError, match=problem) as caught:
        written(ManifestGroup(groups={"g": ManifestGroup({"v": make()})}), tmp_path)
    assert caught.value.variable == "g/v"
    assert "'g/v'" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.dmrpp"]
    assert (tmp_path / "a.dmrpp").read_text() == "before"


def test_attributes_of_groups_are_refused_by_their_path(tmp_path: Path) -> None:
    tree = ManifestGroup(groups={"g": ManifestGroup(attributes={"flag": True})})
    with pytest.raises(UnsupportedFeatureError, match="the attribute 'flag' of '/g' is of the type bool"):
        written(tree, tmp_path)


def test_lengths_that_disagree_are_refused_with_both_arrays(tmp_path: Path) -> None:
    tree = ManifestGroup({"v": references((4,), (2,), names=("x",)), "w": references((6,), (2,), names=("x",))})
    with pytest.raises(UnsupportedFeatureError, match="'x' has the length 4 in 'v' and 6 in 'w'"):
        written(tree, tmp_path)


def test_values_that_are_too_many_for_a_document_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MOST_HELD", 23)
    with pytest.raises(LimitExceededError, match="'v' holds 24 bytes in memory"):
        written(ManifestGroup({"v": in_memory_array(np.arange(3.0), ("x",), {})}), tmp_path)


def test_a_target_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ManifestGroup({"v": references()})
    path = written(tree, tmp_path)
    with pytest.raises(TargetExistsError, match=r"a\.dmrpp exists"):
        write_dmrpp(tree, path, mode="w-")
    before = path.read_bytes()

    def interrupted(self: Any, default: str) -> Any:
        yield "<dmrpp:chunk"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.Chunks, "lines", interrupted)
    with pytest.raises(WriteError, match="No space left"):
        write_dmrpp(tree, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------- size, and xarray


def test_many_chunks_are_streamed(tmp_path: Path) -> None:
    tree = ManifestGroup({"v": references((100_000, 4), (1, 4))})
    tracemalloc.start()
    path = written(tree, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 7_000_000
    assert peak < 5_000_000
    assert read(path) == tree


def test_objects_are_targets_too(tmp_path: Path) -> None:
    store = MemoryStore()
    tree = ManifestGroup({"v": references()})
    write_dmrpp(tree, "b/a.dmrpp", store=store)
    assert bytes(store.get("b/a.dmrpp").bytes()).startswith(b"<?xml")
    with pytest.raises(TargetExistsError):
        write_dmrpp(tree, "b/a.dmrpp", store=store, mode="w-")


def test_datasets_and_trees_are_written_by_the_accessor(tmp_path: Path) -> None:
    made = xr.Dataset(
        {"t2m": (("time", "x"), np.array([[280.5, np.nan], [281.0, 282.25]], "f4"), {"units": "K"})},
        coords={"time": np.array(["2000-01-01", "2000-01-02"], "M8[ns]"), "name": ("x", ["é", "b"])},
        attrs={"title": "t"},
    )
    made.t2m.encoding = {"dtype": "i2", "scale_factor": 0.25, "add_offset": 273.0, "_FillValue": -1, "zlib": True}
    made.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with vc.open_virtual_dataset(tmp_path / "a.nc", loadable_variables=["time"]) as virtual:
        virtual.virtual.to_dmrpp(tmp_path / "a.nc.dmrpp")
    back = vc.open_virtual_dataset(tmp_path / "a.nc.dmrpp", loadable_variables=[]).virtual.open()
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as expected:
        xr.testing.assert_identical(back.load(), expected.load())
    tree = xr.DataTree.from_dict({"/": virtual, "/inner": virtual[["t2m"]].drop_vars(["time", "name"])})
    tree.virtual.to_dmrpp(tmp_path / "tree.dmrpp")
    assert set(dict(read(tmp_path / "tree.dmrpp").walk_arrays())) == {"t2m", "time", "name", "inner/t2m"}
