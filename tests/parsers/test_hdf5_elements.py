from __future__ import annotations

import h5py
import numpy as np
import pytest
from hdf5oracle import check, decoded

from virtualchunks.errors import UnsupportedArrayWarning, UnsupportedFeatureError
from virtualchunks_parsers.hdf5 import HDF5Parser, inmemory

pytestmark = pytest.mark.usefixtures("hdf5_way")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made.h5"


def write_raw(file, name, kind, data, shape):
    """Write bytes as elements of an HDF5 type, unconverted."""
    made = h5py.h5d.create(file.id, name, kind, h5py.h5s.create_simple(shape))
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.frombuffer(data, f"V{kind.get_size()}").reshape(shape).copy(), mtype=kind)


NAMED = {
    **{
        f"{order}{code}": np.arange(6).astype(f"{order}{code}")
        for order in "<>"
        for code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
    },
    "bool": np.array([True, False]),
    "bytes": np.array([b"ab", b"c"], "S3"),
    "opaque": np.array([b"ab\0", b"c\0d"], "V3"),
    "record": np.array([(1, 2.5, b"x")], [("a", "<i4"), ("b", "<f8"), ("c", "S2")]),
    "nested": np.array([((1, 2), 3)], [("in", [("x", "<i2"), ("y", "<i4")]), ("z", "u1")]),
    "members": np.arange(14, dtype="<f4").view([("m", "<f4", (2, 3)), ("n", "<f4")]),
}


@pytest.mark.parametrize("values", NAMED.values(), ids=NAMED)
def test_elements_that_are_stored_as_numpy_has_them(path, values):
    with h5py.File(path, "w") as file:
        file["v"] = values
        file.create_dataset("c", data=values, chunks=(1,), compression=1)
    tree = check(path)
    assert "data" not in tree["v"].manifest["0"]


def test_an_enumeration_is_its_integers(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=[0, 5], dtype=h5py.enum_dtype({"a": 0, "b": 5}, "i2"))
        file["named"] = np.dtype("i4")
        file["typed"] = file["named"].dtype.type(4)
    assert check(path)["v"].dtype == np.int16


def test_times_in_opaque_elements(path):
    with h5py.File(path, "w") as file:
        when = np.array(["2001-01-01", "1969-12-31"], "M8[s]")
        file["v"] = when.astype(h5py.opaque_dtype(when.dtype))
    assert check(path)["v"].dtype == "M8[s]"


def test_an_array_type_adds_dimensions(path):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("v", shape=(5,), dtype=np.dtype((">i2", (2, 3))), chunks=(2,), compression=1)
        made[...] = np.arange(30).reshape(5, 2, 3)
    array = check(path)["v"]
    assert (array.shape, array.metadata.chunks) == ((5, 2, 3), (2, 2, 3))


def test_bit_fields_are_unsigned_integers(path):
    with h5py.File(path, "w") as file:
        write_raw(file, b"v", h5py.h5t.STD_B16BE, b"\1\2\3\4", (2,))
    array = HDF5Parser().parse(str(path))["v"]
    assert decoded(array).tolist() == [0x0102, 0x0304]


@pytest.mark.parametrize(
    ("padding", "data", "expected"),
    [
        (h5py.h5t.STR_NULLTERM, b"ab\0Xcd\0\0", [b"ab", b"cd"]),
        (h5py.h5t.STR_SPACEPAD, b"ab  c   ", [b"ab", b"c"]),
        (h5py.h5t.STR_NULLPAD, b"a\0b\0c\0\0\0", [b"a\0b", b"c"]),
    ],
)
def test_padding_is_no_part_of_text(path, padding, data, expected):
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(4)
    kind.set_strpad(padding)
    with h5py.File(path, "w") as file:
        write_raw(file, b"v", kind, data, (2,))
    assert decoded(check(path)["v"]).tolist() == expected


CONVERTED = {
    "gaps": np.dtype([("a", "i1"), ("b", "<f8")], align=True),
    "two byte orders": np.dtype([("a", ">i2"), ("b", "<i4"), ("c", ">f4", (2,))]),
    "out of order": np.dtype({"names": ["b", "a"], "formats": ["<i4", "<i2"], "offsets": [2, 0]}),
}


@pytest.mark.parametrize("dtype", CONVERTED.values(), ids=CONVERTED)
def test_records_that_are_stored_otherwise_are_converted(path, dtype):
    values = np.zeros(7, dtype)
    for name in dtype.names:
        values[name] = np.arange(7).reshape(7, *[1] * (values[name].ndim - 1))
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=values, chunks=(3,), compression=1)
    array = check(path)["v"]
    assert len(array.manifest) == 3
    assert all("data" in entry for entry in array.manifest.values())


def test_numbers_of_an_unusual_layout_are_converted_by_a_codec(path):
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_precision(17)
    kind.set_offset(3)
    with h5py.File(path, "w") as file:
        for name, layout in ((b"v", h5py.h5d.CONTIGUOUS), (b"compact", h5py.h5d.COMPACT)):
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_layout(layout)
            made = h5py.h5d.create(file.id, name, kind, h5py.h5s.create_simple((4,)), plist)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([0, 1, -5, 65535], "<i4"))
    check(path)


def test_text_of_any_length_is_kept_in_memory(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=["", "zwölf", "a" * 1000], dtype=h5py.string_dtype(), chunks=(2,))
        file.create_dataset("ascii", data=[b"caf\xe9"], dtype=h5py.string_dtype("ascii"))
        file.create_dataset("square", data=[["a", "b"], ["c", "d"]], dtype=h5py.string_dtype())
        file.create_dataset("unwritten", shape=(3,), dtype=h5py.string_dtype())
    tree = check(path)
    assert decoded(tree["ascii"]).tolist() == ["café"]
    assert tree["v"].metadata.to_dict()["data_type"] == "string"


def test_what_is_kept_in_memory_is_bounded(path, monkeypatch):
    with h5py.File(path, "w") as file:
        file["v"], file["short"] = ["a" * 600] * 3, ["a"]
    monkeypatch.setattr(inmemory, "MOST_BYTES", 1000)
    with pytest.warns(UnsupportedArrayWarning, match="'/v' of .*would take more than") as caught:
        assert set(HDF5Parser().parse(str(path)).arrays) == {"short"}
    assert len(caught) == 1


def refused(file):
    file["good"] = np.arange(3)
    file.create_dataset("references", shape=(2,), dtype=h5py.ref_dtype)
    file.create_dataset("regions", shape=(2,), dtype=h5py.regionref_dtype)
    file.create_dataset("sequences", shape=(2,), dtype=h5py.vlen_dtype("i4"))
    file.create_dataset("texts in records", shape=(2,), dtype=[("a", h5py.string_dtype()), ("b", "i4")])
    file.create_dataset("references in records", shape=(2,), dtype=[("a", h5py.ref_dtype)])
    file.create_dataset("long members", shape=(2,), dtype=[("a", "i4", (2000,))])
    file["null"] = h5py.Empty("f4")
    file["quadruple"] = np.arange(3, dtype=np.longdouble)
    h5py.h5d.create(file.id, b"time", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((2,)))


def test_what_zarr_cannot_hold_is_left_out_with_one_warning_each(path):
    with h5py.File(path, "w") as file:
        refused(file)
        names = set(file)
    with pytest.warns(UnsupportedArrayWarning) as caught:
        assert set(HDF5Parser().parse(str(path)).arrays) == {"good"}
    messages = [str(item.message) for item in caught]
    assert len(messages) == len(names) - 1
    for name in names - {"good"}:
        assert any(message.startswith(f"'/{name}' of {path.as_uri()} is left out: ") for message in messages), name


def test_strict_raises_in_place_of_the_warning(path):
    with h5py.File(path, "w") as file:
        refused(file)
    with pytest.raises(UnsupportedFeatureError, match=r"variable '/.*made\.h5"):
        HDF5Parser(strict=True).parse(str(path))


def test_fill_values_are_those_of_hdf5(path):
    with h5py.File(path, "w") as file:
        for name, dtype, fill in (
            ("float", ">f4", np.nan),
            ("int", "<i2", -7),
            ("bytes", "S3", b"no"),
            ("bool", "?", True),
            ("complex", "c8", 1 + 2j),
            ("none", "f8", None),
            ("record", [("a", "<i4"), ("b", "<f4", (2,))], np.array((3, [1, 2]), [("a", "<i4"), ("b", "<f4", (2,))])),
        ):
            file.create_dataset(name, shape=(4,), dtype=dtype, chunks=(2,), fillvalue=fill)
    check(path)
