"""HDF4: groups that users made, attributes that nobody understands, and DMR++ documents of HDF4 files."""

from __future__ import annotations

import random
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hdf4chunks
import hdf4files
import numpy as np
import pytest
from pyhdf.HDF import HC, HDF
from pyhdf.SD import SD, SDC
from pyhdf.V import V  # noqa: F401  pyhdf.HDF finds it as an attribute of the package

import virtualchunks as vc
from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.writers.dmrpp import write_dmrpp
from virtualchunks_parsers.dmrpp import DMRPPParser
from virtualchunks_parsers.hdf4 import HDF4Parser, groups

hdf4files.register_codecs()

#: A tree: members are names of data sets, or further groups.
Tree = Mapping[str, Any]


def write(path: Path, names: list[str], tree: Tree, kind: str = "mine") -> Path:
    """Write data sets, each of which holds its number, and groups of them."""
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    refs: dict[str, int] = {}
    for number, name in enumerate(names):
        made = file.create(name, SDC.INT16, (3,))
        made[:] = np.full(3, number, "i2")
        refs[f"{name}#{number}" if name in refs else name] = made.ref()
        made.endaccess()
    file.end()
    whole = HDF(str(path), HC.WRITE)
    interface = whole.vgstart()
    _write_groups(interface, tree, refs, kind)
    interface.end()
    whole.close()
    return path


def _write_groups(interface: Any, tree: Tree, refs: Mapping[str, int], kind: str) -> list[Any]:
    made = []
    for name, members in tree.items():
        group = interface.create(name.partition("#")[0])
        group._class = kind
        for member in members:
            if isinstance(member, dict):
                for child in _write_groups(interface, member, refs, kind):
                    group.insert(child)
            elif member.startswith("@"):
                group.attr(member[1:]).set(HC.INT32, 7)
            else:
                group.add(HC.DFTAG_NDG, refs[member])
        made.append(group)
    return made


def paths(path: Path, **options: Any) -> dict[str, list[str]]:
    tree = HDF4Parser(strict=True, **options).parse(str(path))
    return {name: list(group.arrays) for name, group in tree.walk()}


def values(array: Any, path: Path) -> list[int]:
    return read_values(array, ObjectStoreRegistry({path.parent: None})).tolist()


def test_groups_hold_the_data_sets_that_are_their_members(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf", ["a", "b", "c"], {"outer": ["a", {"inner": ["b", "c"]}], "other": ["a"]})
    expected = {"": ["a", "b", "c"], "outer": ["a"], "outer/inner": ["b", "c"], "other": ["a"]}
    assert paths(path) == expected
    tree = HDF4Parser().parse(str(path))
    assert values(tree["outer/inner/c"], path) == values(tree["c"], path) == [2, 2, 2]
    assert paths(path, group="outer") == {"": ["a"], "inner": ["b", "c"]}
    with pytest.raises(FormatError, match="no group 'nowhere'; the groups there are 'outer', 'outer/inner', 'other'"):
        paths(path, group="nowhere")


def test_groups_of_nothing_are_left_out(tmp_path: Path) -> None:
    """Of tables and images alone, too."""
    path = write(tmp_path / "a.hdf", ["a"], {"empty": [], "outer": [{"empty": []}], "full": [{"inner": ["a"]}]})
    assert paths(path) == {"": ["a"], "full": [], "full/inner": ["a"]}
    assert paths(hdf4files.types(tmp_path / "b.hdf")).keys() == {""}


def test_attributes_of_groups(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf", ["a"], {"g": ["a", "@level", "@other"]})
    assert dict(HDF4Parser().parse(str(path))["g"].attributes) == {"level": 7, "other": 7}


def test_names_are_told_apart(tmp_path: Path) -> None:
    """From data sets, from each other; and a data set that is there twice has its own name in its group."""
    tree = {"a": ["a"], "g": ["a#1"], "g#2": ["b/c"], "../x": ["a"]}
    path = write(tmp_path / "a.hdf", ["a", "a", "b/c"], tree)
    found = paths(path)
    first, second = (name for name in found if name.startswith("g"))
    assert first == "g"
    assert second.startswith("g_")
    assert found[first] == ["a"]
    assert found[second] == ["b_c"]
    assert [name for name in found if name.startswith("a_")]
    assert ".._x" in found
    parsed = HDF4Parser().parse(str(path))
    assert values(parsed["g/a"], path) == [1, 1, 1]
    assert list(parsed.arrays) == ["a", "a_1", "b_c"]


def test_groups_and_their_members_can_be_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf", ["a", "b"], {"g": ["a", "b", {"inner": ["b"]}]})
    assert paths(path, drop_variables=["/g"]) == {"": ["a", "b"]}
    assert paths(path, drop_variables=["/g/inner", "/g/a"]) == {"": ["a", "b"], "g": ["b"]}
    assert paths(path, drop_variables=["b"]) == {"": ["a"], "g": ["a"]}


def test_groups_within_each_other_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.hdf", ["a"], {"top": [{"one": [{"two": ["a"]}]}]})
    whole = HDF(str(path), HC.WRITE)
    interface = whole.vgstart()
    two, one = (interface.attach(interface.find(name), 1) for name in ("two", "one"))
    two.insert(one)
    two.detach()
    one.detach()
    interface.end()
    whole.close()
    assert paths(path) == {"": ["a"], "top": [], "top/one": [], "top/one/two": ["a"]}
    monkeypatch.setattr(groups, "MOST_GROUPS", 2)
    with pytest.warns(UnsupportedArrayWarning, match="'/top/one/two' of .* more than 2 groups"):
        HDF4Parser().parse(str(path))
    with pytest.raises(LimitExceededError):
        paths(path)


def test_damaged_groups_are_groups_or_errors_that_name_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf", ["a", "b"], {"outer": ["a", "@level", {"inner": ["b", {"deep": ["a"]}]}]})
    content, chance = path.read_bytes(), random.Random(0)
    start, errors = content.index(b"inner") - 60, []
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(start, len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnsupportedArrayWarning)
            try:
                assert list(HDF4Parser().parse(str(path)).walk())
            except VirtualChunksError as error:
                errors.append(str(error))
    assert errors
    assert all("a.hdf" in error for error in errors)


def test_data_trees_have_the_groups(tmp_path: Path) -> None:
    """Grids and swaths of HDF-EOS2 are groups like any other."""
    path = write(tmp_path / "a.hdf", ["a", "b"], {"swath": [{"Data Fields": ["b"]}]}, kind="SWATH")
    tree = vc.open_virtual_datatree(path)
    assert list(tree["swath/Data Fields"].data_vars) == ["b"]
    assert list(vc.open_virtual_dataset(path).data_vars) == ["a", "b"]
    assert list(vc.open_virtual_dataset(path, group="swath/Data Fields").data_vars) == ["b"]


STRUCTURE = """GROUP=GridStructure
	GROUP=GRID_1
		GridName="G"
		XDim=4
		YDim=2
		UpperLeftPointMtrs=(0.0,2.0)
		LowerRightMtrs=(4.0,0.0)
		Projection=GCTP_SNSOID
	END_GROUP=GRID_1
END_GROUP=GridStructure
END
"""


def test_fields_of_grids_inherit_the_coordinates_of_the_root(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf"
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    made = file.create("field", SDC.INT16, (2, 4))
    for axis, name in enumerate(("YDim:G", "XDim:G")):
        made.dim(axis).setname(name)
    made[:] = np.zeros((2, 4), "i2")
    ref = made.ref()
    made.endaccess()
    file.attr("StructMetadata.0").set(SDC.CHAR8, STRUCTURE)
    file.end()
    whole = HDF(str(path), HC.WRITE)
    interface = whole.vgstart()
    for group in _write_groups(interface, {"G": [{"Data Fields": ["field"]}]}, {"field": ref}, "GRID"):
        group.detach()
    interface.end()
    whole.close()
    fields = vc.open_virtual_datatree(path)["G/Data Fields"]
    assert fields["field"].dims == ("YDim:G", "XDim:G")
    np.testing.assert_array_equal(fields.coords["XDim:G"], [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_array_equal(fields.coords["YDim:G"], [1.5, 0.5])


# ------------------------------------------------------------------------------------------------------- attributes


def with_unknown_attribute(path: Path, number_type: int = 7) -> Path:
    """Write a data set with two attributes, and give the type of one a number that nobody knows."""
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    made = file.create("v", SDC.INT16, (3,))
    made[:] = np.arange(3, dtype="i2")
    made.attr("odd").set(SDC.INT32, 7)
    made.attr("even").set(SDC.INT32, 8)
    made.endaccess()
    file.attr("title").set(SDC.CHAR8, "t")
    file.end()
    content = path.read_bytes()
    at = content.index(b"\0\3odd")
    start = content.rindex(struct.pack(">H", 24), 0, at)  # the type of the one field that the Vdata has
    path.write_bytes(content[:start] + struct.pack(">H", number_type) + content[start + 2 :])
    return path


def test_attributes_of_unknown_types_are_named(tmp_path: Path) -> None:
    path = with_unknown_attribute(tmp_path / "a.hdf")
    with pytest.warns(UnsupportedArrayWarning) as caught:
        tree = HDF4Parser().parse(str(path))
    (message,) = (str(item.message) for item in caught)
    assert message.startswith("the attribute 'odd' of 'v' of ")
    assert "the unknown number type 7" in message
    assert set(tree.arrays["v"].metadata.attributes) == {"even"}
    assert values(tree.arrays["v"], path) == [0, 1, 2]
    with pytest.raises(UnsupportedFeatureError, match="number type 7") as refused:
        HDF4Parser(strict=True).parse(str(path))
    assert refused.value.variable == "v"


def test_attributes_of_known_types_are_silent(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = HDF4Parser(strict=True).parse(str(with_unknown_attribute(tmp_path / "a.hdf", 25)))
    assert "odd" in tree.arrays["v"].metadata.attributes


# ------------------------------------------------------------------------------------------------------------- DMR++


def test_a_document_of_an_hdf4_file_reads_as_the_library_reads_the_file(tmp_path: Path) -> None:
    """Big-endian numbers, text, deflated and unwritten data; attributes and dimensions."""
    made = {
        "types": hdf4files.types(tmp_path / "types.hdf"),
        "compressed": hdf4files.compressed(tmp_path / "compressed.hdf"),
        "unwritten": hdf4files.unwritten(tmp_path / "unwritten.hdf"),
        "names": hdf4files.same_names(tmp_path / "names.hdf"),
    }
    for path in made.values():
        tree = HDF4Parser(strict=True, drop_variables=["rle"]).parse(str(path))
        write_dmrpp(tree, f"{path}.dmrpp")
        found = DMRPPParser(strict=True).parse(f"{path}.dmrpp")
        expected = hdf4files.reference(path)
        expected.pop("rle", None)
        assert found.arrays.keys() == expected.keys()
        for name, wanted in expected.items():
            got = read_values(found.arrays[name], ObjectStoreRegistry({tmp_path: None}))
            np.testing.assert_array_equal(got, wanted, err_msg=name, strict=True)
        for name, array in tree.arrays.items():
            assert found.arrays[name].metadata.dimension_names == array.metadata.dimension_names
            assert found.arrays[name].metadata.attributes.keys() == array.metadata.attributes.keys()


@pytest.mark.parametrize("deflate", [False, True])
def test_chunks_of_hdf4_come_back_through_a_document(deflate: bool, tmp_path: Path) -> None:
    content = np.arange(70, dtype="i2").reshape(7, 10)
    path = hdf4chunks.chunked(tmp_path / "a.hdf", content, (3, 4), deflate=deflate, left_out=(1, 4))
    tree = HDF4Parser(strict=True).parse(str(path))
    write_dmrpp(tree, tmp_path / "a.hdf.dmrpp")
    found = DMRPPParser(strict=True).parse(str(tmp_path / "a.hdf.dmrpp"))
    assert found.arrays["field"].manifest == tree.arrays["field"].manifest
    assert found.arrays["field"].metadata.fill_value == -32767


def test_what_documents_cannot_hold_of_hdf4_is_named(tmp_path: Path) -> None:
    tree = HDF4Parser().parse(str(hdf4files.compressed(tmp_path / "a.hdf")))
    with pytest.raises(UnsupportedFeatureError, match=r"'rle' are encoded by 'virtualchunks\.hdf4_rle'"):
        write_dmrpp(tree, tmp_path / "a.dmrpp")
    assert not (tmp_path / "a.dmrpp").exists()
