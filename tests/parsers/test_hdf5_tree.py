from __future__ import annotations

import json
import pickle

import h5py
import netCDF4
import numpy as np
import pytest
from hdf5oracle import arrays, decoded
from obstore.store import MemoryStore

from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    NotGrantedError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
)
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.store import ManifestStore
from virtualchunks_parsers.hdf5 import HDF5Parser, HDFParser, attributes, walk

pytestmark = pytest.mark.usefixtures("hdf5_way")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made.h5"


def beside(path):
    return ObjectStoreRegistry({path.parent.as_uri() + "/": None})


def test_groups_are_walked_in_the_order_of_the_file(path):
    for ordered, expected in ((True, ["z", "a", "m"]), (False, ["a", "m", "z"])):
        with h5py.File(path, "w", track_order=ordered) as file:
            for name in ("z", "a", "m"):
                file[name] = 1
            file["g/h/v"] = 2
        tree = HDF5Parser().parse(path)
        assert list(tree.arrays) == expected
        assert tree["g/h/v"].shape == ()


def test_calling_the_parser_gives_a_store(path):
    with h5py.File(path, "w") as file:
        file["v"] = np.arange(3)
    store = HDFParser()(path.as_uri(), beside(path))
    assert isinstance(store, ManifestStore)
    assert HDFParser is HDF5Parser


def test_parsers_are_values():
    parser = HDF5Parser(group="/g", drop_variables=["a"], strict=True)
    assert pickle.loads(pickle.dumps(parser)) == parser
    assert parser != HDF5Parser()
    assert HDF5Parser(drop_variables="abc").drop_variables == ("abc",)
    with pytest.raises(TypeError):
        HDF5Parser("/g")


def test_a_file_that_is_not_granted_is_not_opened(path):
    with h5py.File(path, "w") as file:
        file["v"] = 1
    with pytest.raises(NotGrantedError, match=r"made\.h5.*register"):
        HDF5Parser().parse(path.as_uri(), ObjectStoreRegistry({"memory://": MemoryStore()}))


# ----------------------------------------------------------------------------------------------------------- selection


def tree_of_groups(path):
    with h5py.File(path, "w") as file:
        file["v"], file["g/v"], file["g/w"], file["g/h/v"] = 0, 1, 2, 3
        file["g"].attrs["title"] = "inner"


def test_a_group_becomes_the_root(path):
    tree_of_groups(path)
    for name in ("g", "/g", "/g/"):
        tree = HDF5Parser(group=name).parse(path)
        assert set(arrays(tree)) == {"/v", "/w", "/h/v"}
        assert tree.attributes == {"title": "inner"}
    assert set(arrays(HDF5Parser(group="g/h").parse(path))) == {"/v"}


def test_a_group_that_is_not_there_is_an_error_that_lists_those_that_are(path):
    tree_of_groups(path)
    with pytest.raises(FormatError, match=r"no group 'x'; the groups at the root are '/g'.*made\.h5"):
        HDF5Parser(group="x").parse(path)
    with pytest.raises(FormatError, match="'g/w' is no group but an array"):
        HDF5Parser(group="g/w").parse(path)


@pytest.mark.parametrize(
    ("dropped", "left"),
    [
        (["v"], {"/g/w"}),
        (["/g/v"], {"/v", "/g/w", "/g/h/v"}),
        (["g/h"], {"/v", "/g/v", "/g/w"}),
        (["nothing"], {"/v", "/g/v", "/g/w", "/g/h/v"}),
    ],
)
def test_variables_are_dropped_by_name_or_path(path, dropped, left):
    tree_of_groups(path)
    assert set(arrays(HDF5Parser(drop_variables=dropped).parse(path))) == left


def test_what_is_dropped_is_not_looked_at(path):
    with h5py.File(path, "w") as file:
        file["good"] = 1
        file.create_dataset("bad", shape=(2,), dtype=h5py.ref_dtype)
    assert set(HDF5Parser(drop_variables=["bad"], strict=True).parse(path).arrays) == {"good"}


# --------------------------------------------------------------------------------------------------------------- links


def test_links_within_the_file_are_followed(path):
    with h5py.File(path, "w") as file:
        file["g/v"] = np.arange(3)
        file["hard"] = file["g/v"]
        file["soft"] = h5py.SoftLink("/g/v")
        file["g/relative"] = h5py.SoftLink("v")
        file["chain"] = h5py.SoftLink("soft")
        file["group"] = h5py.SoftLink("g")
        file["through"] = h5py.SoftLink("/group/relative")
    found = arrays(HDF5Parser().parse(path))
    assert set(found) == {"/hard", "/soft", "/chain", "/through", "/g/v", "/g/relative", "/group/v", "/group/relative"}
    assert all(decoded(array).tolist() == [0, 1, 2] for array in found.values())


def test_links_that_lead_nowhere_or_in_circles_are_left_out(path):
    with h5py.File(path, "w") as file:
        file["v"] = 1
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["self"] = h5py.SoftLink("self")
        file["one"], file["two"] = h5py.SoftLink("two"), h5py.SoftLink("one")
        file["g/up"] = h5py.SoftLink("/")
        file["g/hard"] = file["g"]
        file["g/h/round"] = file["g"]
    with pytest.warns(UnsupportedArrayWarning) as caught:
        assert set(arrays(HDF5Parser().parse(path))) == {"/v"}
    named = {str(item.message).split("'")[1] for item in caught}
    assert named == {"/dangling", "/self", "/one", "/two", "/g/up", "/g/hard", "/g/h/round"}
    with pytest.raises(UnsupportedFeatureError):
        HDF5Parser(strict=True).parse(path)


def test_links_that_multiply_end(path, monkeypatch):
    monkeypatch.setattr(walk, "MOST_OBJECTS", 1000)
    with h5py.File(path, "w") as file:
        for level in range(12):
            file.require_group(f"level{level}")
        for level in range(11):
            for name in ("a", "b"):
                file[f"level{level}/{name}"] = file[f"level{level + 1}"]
    with pytest.raises(LimitExceededError, match="more than 1000 objects"):
        HDF5Parser().parse(path)


def test_groups_nested_too_deeply_are_refused(path):
    with h5py.File(path, "w") as file:
        file["/".join(["g"] * 150) + "/v"] = 1
    with pytest.raises(LimitExceededError, match="nested more than 100 deep"):
        HDF5Parser().parse(path)


def test_external_links_go_through_the_registry(path):
    with h5py.File(path.parent / "other file.h5", "w") as file:
        file["g/v"], file["g/w"] = np.arange(4), 1
        file["g/back"] = h5py.SoftLink("/g/v")
    with h5py.File(path, "w") as file:
        file["v"] = h5py.ExternalLink("other file.h5", "/g/v")
        file["g"] = h5py.ExternalLink("other file.h5", "g")
        file["soft"] = h5py.SoftLink("/g/back")
    tree = HDF5Parser(strict=True).parse(path, beside(path))
    assert set(arrays(tree)) == {"/v", "/soft", "/g/v", "/g/w", "/g/back"}
    sources = tree["v"].manifest.sources
    assert sources.url(0) == (path.parent / "other file.h5").as_uri()
    assert sources.stamp(0).size == (path.parent / "other file.h5").stat().st_size
    assert decoded(tree["soft"]).tolist() == [0, 1, 2, 3]
    with pytest.warns(UnsupportedArrayWarning) as caught:
        assert not HDF5Parser().parse(path).arrays
    assert len(caught) == 3
    assert all("other%20file.h5 is not granted" in str(item.message) for item in caught)


@pytest.mark.parametrize(
    ("name", "reason"), [("absent.h5", "no such file"), ("../a.h5", "points at"), ("made.txt", "HDF5")]
)
def test_external_links_that_lead_nowhere_are_left_out(path, name, reason):
    path.with_suffix(".txt").write_text("text")
    with h5py.File(path, "w") as file:
        file["v"] = h5py.ExternalLink(name, "/v")
    with pytest.warns(UnsupportedArrayWarning, match=f"'/v' of .*{reason}"):
        HDF5Parser().parse(path, beside(path))


def test_members_whose_names_zarr_has_not_are_left_out(path):
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"..", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((2,)))
        file["__hidden__"] = 1
    with pytest.warns(UnsupportedArrayWarning, match=r"'/\.\.' of"):
        assert set(HDF5Parser().parse(path).arrays) == {"__hidden__"}


def test_names_that_are_not_utf8(path):
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"gr\xfc\xdfe", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((2,)))
    assert set(HDF5Parser().parse(path).arrays) == {"grüße"}


# ---------------------------------------------------------------------------------------------------------- attributes


def test_attributes_become_plain_values(path):
    given = {
        "int": (np.int16(3), 3),
        "float": (np.float32(0.5), 0.5),
        "nan": (np.nan, np.nan),
        "one": (np.array([7], "u1"), 7),
        "list": (np.arange(3, dtype=">i4"), [0, 1, 2]),
        "table": (np.ones((2, 2)), [[1, 1], [1, 1]]),
        "text": ("grüß", "grüß"),
        "bytes": (np.bytes_(b"K"), "K"),
        "latin": (np.bytes_(b"caf\xe9"), "café"),
        "texts": (["a", "b"], ["a", "b"]),
        "fixed": (np.array([b"a", b"bc"]), ["a", "bc"]),
        "bool": (np.True_, True),
        "bools": (np.array([True, False]), [True, False]),
        "complex": (1 + 2j, [1.0, 2.0]),
        "record": (np.array((1, b"x"), [("a", "i4"), ("b", "S1")]), {"a": 1, "b": "x"}),
        "records": (np.array([(1, 2.0), (3, 4.0)], [("a", "i4"), ("b", "f8")]), [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        "opaque": (np.void(b"ab"), "YWI="),
        "empty": (h5py.Empty("f4"), []),
        "empty text": (h5py.Empty("S1"), ""),
        "none": (np.zeros(0), []),
        "half": (np.float16(1.5), 1.5),
        "long": (np.longdouble(0.25), 0.25),
    }
    with h5py.File(path, "w") as file:
        file["v"] = 1
        for owner in (file, file["v"]):
            for name, (value, _) in given.items():
                owner.attrs[name] = value
            owner.attrs.create("enum", 3, dtype=h5py.enum_dtype({"a": 3}, "i2"))
            owner.attrs.create("sequence", np.array([np.arange(2), np.arange(3)], object), dtype=h5py.vlen_dtype("i4"))
            owner.attrs.create("array", np.arange(3), dtype=np.dtype(("i4", (3,))))
    expected = {name: value for name, (_, value) in given.items()}
    expected.update(enum=3, sequence=[[0, 1], [0, 1, 2]], array=[0, 1, 2])
    tree = HDF5Parser(strict=True).parse(path)
    for found in (dict(tree.attributes), dict(tree["v"].metadata.attributes)):
        assert np.isnan(found.pop("nan"))
        assert found == {name: value for name, value in expected.items() if name != "nan"}
        json.dumps(found)


def test_attributes_that_have_no_value_outside_are_left_out_with_a_warning(path):
    with h5py.File(path, "w") as file:
        file["v"] = 1
        file["v"].attrs["to"] = file["v"].ref
        file["v"].attrs["units"] = "K"
        file.attrs["records"] = np.array([(file["v"].ref,)], [("a", h5py.ref_dtype)])
    with pytest.warns(UnsupportedArrayWarning) as caught:
        tree = HDF5Parser().parse(path)
    assert [str(item.message).partition(" of ")[0] for item in caught] == [
        "the attribute 'records'",
        "the attribute 'to'",
    ]
    assert tree["v"].metadata.attributes == {"units": "K"}
    with pytest.raises(UnsupportedFeatureError):
        HDF5Parser(strict=True).parse(path)


# ------------------------------------------------------------------------------------------------------ dimension names


def names(group, path=""):
    """Dimension names by path, as netCDF4 has them."""
    found = {f"{path}/{name}": variable.dimensions for name, variable in group.variables.items()}
    for name, inner in group.groups.items():
        found.update(names(inner, f"{path}/{name}"))
    return found


def assert_named_as_netcdf4_does(path):
    with netCDF4.Dataset(path) as file:
        expected = names(file)
    found = {name: array.metadata.dimension_names for name, array in arrays(HDF5Parser().parse(path)).items()}
    assert found == expected


def test_dimensions_of_netcdf4_files(path):
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("time", None), ("x", 4), ("alone", 3), ("length", 5)):
            file.createDimension(name, size)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(6)
        file.createVariable("x", "S1", ("x", "length"))
        file.createVariable("wind", "f4", ("time", "x"))
        file.createVariable("square", "f4", ("x", "x"))
        file.createVariable("alone_values", "f4", ("alone", "time"))
        file.createVariable("length", "f4", ("x",))  # called like a dimension that it does not have
        file.createVariable("scalar", "f4", ())
        inner = file.createGroup("inner")
        inner.createDimension("y", 4)
        inner.createVariable("y", "f4", ("y",))
        inner.createVariable("wind", "f4", ("time", "y", "x"))
    assert_named_as_netcdf4_does(path)
    assert "alone" not in HDF5Parser().parse(path).arrays
    tree = HDF5Parser(group="inner").parse(path)
    assert tree["wind"].metadata.dimension_names == ("time", "y", "x")
    dropped = HDF5Parser(drop_variables=["time", "x"]).parse(path)
    assert dropped["wind"].metadata.dimension_names == ("time", "x")


def test_dimensions_without_scales_are_numbered_as_netcdf4_does(path):
    with h5py.File(path, "w") as file:
        file["scale"] = np.arange(3)
        file["scale"].make_scale()
        file["a"], file["b"], file["c"] = np.zeros((4, 5)), np.zeros((4, 4)), np.zeros((3, 5, 3))
        file["g/v"], file["g/h/w"], file["z/u"] = np.zeros((4, 7)), np.zeros((4, 4)), np.zeros(4)
    assert_named_as_netcdf4_does(path)


def test_of_several_scales_the_last_counts(path):
    with h5py.File(path, "w") as file:
        file["a"], file["b"], file["v"] = np.arange(3), np.arange(3), np.zeros(3)
        for name in ("a", "b"):
            file[name].make_scale()
            file["v"].dims[0].attach_scale(file[name])
    assert_named_as_netcdf4_does(path)


def test_scales_without_a_link_give_no_name(path):
    with h5py.File(path, "w") as file:
        file["v"] = np.zeros((3, 2))
        anonymous = file.create_dataset(None, data=np.arange(3))
        anonymous.make_scale("anonymous")
        file["gone"] = np.arange(2)
        file["gone"].make_scale()
        file["v"].dims[0].attach_scale(anonymous)
        file["v"].dims[1].attach_scale(file["gone"])
        del file["gone"]
    assert HDF5Parser().parse(path)["v"].metadata.dimension_names == ("phony_dim_0", "phony_dim_1")


def test_some_dimensions_with_scales_and_some_without(path):
    with h5py.File(path, "w") as file:
        file["x"], file["v"] = np.arange(3), np.zeros((3, 3, 2))
        file["x"].make_scale()
        file["v"].dims[1].attach_scale(file["x"])
    assert HDF5Parser().parse(path)["v"].metadata.dimension_names == ("phony_dim_1", "x", "phony_dim_2")


def test_the_books_of_netcdf4_are_no_attributes(path):
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 4)
        file.createVariable("x", "f4", ("x",)).units = "m"
        file.createVariable("v", "f4", ("x",), fill_value=-1.0).scale_factor = 0.5
        file.title = "a file"
    tree = HDF5Parser().parse(path)
    assert tree.attributes == {"title": "a file"}
    assert tree["x"].metadata.attributes == {"units": "m"}
    assert tree["v"].metadata.attributes == {"_FillValue": -1.0, "scale_factor": 0.5}
    assert tree["v"].metadata.fill_value == -1


def test_attributes_are_of_a_size_that_attributes_have(path, monkeypatch):
    with h5py.File(path, "w") as file:
        file.attrs["large"], file.attrs["small"] = np.zeros(1000), 1
    monkeypatch.setattr(attributes, "MOST_BYTES", 1000)
    with pytest.warns(UnsupportedArrayWarning, match="the attribute 'large' of '/' .*8000 bytes"):
        assert HDF5Parser().parse(path).attributes == {"small": 1}
