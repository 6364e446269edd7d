"""Values of attributes that we decode, against those that h5py reads."""

from __future__ import annotations

import corpusscore
import h5py
import hypothesis.strategies as st
import numpy as np
import pytest
from h5py import h5a, h5r, h5s, h5t
from hdf5messages import opened, outcome, same
from hypothesis import given, settings
from hypothesis.extra import numpy as npst

from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks_parsers.hdf5.attributes import read_attribute
from virtualchunks_parsers.hdf5.format.content import Sizes, Unhandled
from virtualchunks_parsers.hdf5.format.messages import Attribute, Dataspace, attribute
from virtualchunks_parsers.hdf5.format.values import attribute_value, first_text, integers, reference_lists

FILES = corpusscore.files("hdf5", "netcdf4")
SIZES = Sizes(8, 8)
LIBVERS = ("earliest", "v110", "latest")
SHAPES = ((), (1,), (3,), (0,), (2, 1), (1, 1), (2, 3))


def no_heap(address, index):
    raise AssertionError("nothing of it is in the heap")


def string_type(size, padding, charset=h5t.CSET_ASCII):
    kind = h5t.C_S1.copy()
    kind.set_size(size)
    if size != h5t.VARIABLE:
        kind.set_strpad(padding)
    kind.set_cset(charset)
    return kind


def compound(size, **members):
    kind = h5t.create(h5t.COMPOUND, size)
    for name, (offset, member) in members.items():
        kind.insert(name.encode(), offset, member)
    return kind


def enumeration(base, **values):
    kind = h5t.enum_create(base)
    for name, value in values.items():
        kind.enum_insert(name.encode(), value)
    return kind


def opaque(size, tag):
    kind = h5t.create(h5t.OPAQUE, size)
    kind.set_tag(tag)
    return kind


def narrow(bits):
    kind = h5t.STD_I32LE.copy()
    kind.set_precision(bits)
    return kind


NUMBERS = {
    name: getattr(h5t, name)
    for name in dir(h5t)
    if name.startswith(
        ("STD_I", "STD_U", "STD_B", "IEEE_F16", "IEEE_F32", "IEEE_F64", "COMPLEX_IEEE_F32", "COMPLEX_IEEE_F64")
    )
}
TEXTS = {
    f"text-{padding}-{size}-{charset}": string_type(size, padding, charset)
    for padding in (h5t.STR_NULLTERM, h5t.STR_NULLPAD, h5t.STR_SPACEPAD)
    for size in (1, 6)
    for charset in (h5t.CSET_ASCII, h5t.CSET_UTF8)
}
OTHERS = {
    "boolean": h5t.py_create(np.dtype(bool), logical=True),
    "enumeration": enumeration(h5t.STD_I16BE, low=1, high=300),
    "odd booleans": enumeration(h5t.STD_I8LE, FALSE=0, TRUE=1, maybe=2),
    "opaque": opaque(5, b""),
    "times": opaque(8, b"NUMPY:<M8[s]"),
    "durations": opaque(8, b"NUMPY:>m8[2h]"),
    "pair": h5t.py_create(np.dtype(">c8")),
    "pair of halves": compound(4, r=(0, h5t.IEEE_F16LE), i=(2, h5t.IEEE_F16LE)),
    "pair of two orders": compound(8, r=(0, h5t.IEEE_F32LE), i=(4, h5t.IEEE_F32BE)),
    "array": h5t.array_create(h5t.IEEE_F32BE, (2, 3)),
    "array of arrays": h5t.array_create(h5t.array_create(h5t.STD_I16LE, (2,)), (3,)),
    "array of text": h5t.array_create(string_type(3, h5t.STR_SPACEPAD), (2,)),
    "record": compound(
        40,
        number=(3, h5t.IEEE_F64BE),
        name=(12, string_type(4, h5t.STR_SPACEPAD)),
        code=(17, string_type(5, h5t.STR_NULLTERM, h5t.CSET_UTF8)),
        inner=(24, compound(6, a=(0, h5t.STD_I16LE), b=(2, h5t.array_create(h5t.STD_U8LE, (3,))))),
        flag=(31, h5t.py_create(np.dtype(bool), logical=True)),
        kind=(33, enumeration(h5t.STD_I32LE, a=1)),
    ),
    "record of one": compound(4, only=(0, h5t.STD_U32BE)),
    "reference": h5t.STD_REF_OBJ,
    "region": h5t.STD_REF_DSETREG,
    "time": h5t.UNIX_D32LE,
    "record of references": compound(8, to=(0, h5t.STD_REF_OBJ)),
}
#: Left to the library, which converts them.
UNUSUAL = {
    "17 bits": narrow(17),
    "long double": h5t.LDOUBLE_LE,
    "quadruple": h5t.IEEE_F128LE,
    "tagged": opaque(4, b"of ours"),
    "wide booleans": enumeration(h5t.STD_I32LE, FALSE=0, TRUE=1),
    "gaps in a pair": compound(12, r=(0, h5t.IEEE_F32LE), i=(8, h5t.IEEE_F32LE)),
}


def extent(shape):
    return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)


def write_raw(holder, name, kind, shape, rng):
    """Write an attribute of random bytes, few of them high so that text has ends and numbers have meaning."""
    made = h5a.create(holder.id, name.encode(), kind, extent(shape))
    count = int(np.prod(shape, dtype=int))
    data = rng.choice(np.frombuffer(b"\0 abc\x7f\xe9\xff", np.uint8), size=count * kind.get_size())
    if count:
        made.write(data.view(f"V{kind.get_size()}").reshape(shape), mtype=kind)


def check(path, *, unhandled=()):
    """Compare every attribute of a file; return how many were compared."""
    compared = 0
    with opened(path) as both:
        for where, holder in both.objects().items():
            for item in both.attributes(holder):
                if item.name.decode().partition(" of shape")[0] in unhandled:
                    with pytest.raises(Unhandled):
                        attribute_value(item, both.sizes, both.heap)
                    continue
                expected = outcome(lambda item=item, holder=holder: read_attribute(holder.id, item.name))
                for _ in range(2):
                    found = outcome(lambda item=item: attribute_value(item, both.sizes, both.heap))
                    assert same(found, expected), (where, item.name, found, expected)
                compared += 1
    return compared


@pytest.mark.parametrize("libver", LIBVERS)
def test_types_of_fixed_size_of_every_shape(tmp_path, libver):
    kinds = {**NUMBERS, **TEXTS, **OTHERS}
    rng = np.random.default_rng(5)
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        for number, shape in enumerate(SHAPES):
            for name, kind in kinds.items():
                if libver == "latest" or not name.startswith("COMPLEX"):
                    write_raw(file.require_group(str(number)), f"{name} of shape {shape}", kind, shape, rng)
    assert check(tmp_path / "a.h5") > 200


def test_what_the_library_converts_is_left_to_it(tmp_path):
    rng = np.random.default_rng(6)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, kind in UNUSUAL.items():
            write_raw(file, f"{name} of shape ()", kind, (), rng)
    assert check(tmp_path / "a.h5", unhandled=UNUSUAL) == 0


@pytest.mark.parametrize("libver", LIBVERS)
def test_what_is_in_the_heap(tmp_path, libver):
    words = ["", "a", "gräßlich", "a\0b", "x" * 300, "trailing  "]
    record = np.dtype([("n", "<i2"), ("t", h5py.string_dtype()), ("v", h5py.vlen_dtype(np.dtype("<i4")))])
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        for number, word in enumerate(words):
            file.attrs.create(f"{number}", word.partition("\0")[0], dtype=h5py.string_dtype())
            file.attrs.create(f"{number} ascii", word.encode().partition(b"\0")[0], dtype=h5py.string_dtype("ascii"))
        file.attrs.create("latin", b"gr\xe4\xdf", dtype=h5py.string_dtype())
        file.attrs.create("many", np.array(["a", "", "bc", "d"], object).reshape(2, 2), dtype=h5py.string_dtype())
        file.attrs.create("none", np.array([], object), dtype=h5py.string_dtype())
        file.attrs["one"] = np.array(["alone"], object)
        lists = np.empty(3, object)
        lists[:] = [np.array([1, 2, 3], "i4"), np.array([], "i4"), np.array([4], "i4")]
        file.attrs.create("lists", lists, dtype=h5py.vlen_dtype(np.dtype("<i4")))
        one = np.empty(1, object)
        one[0] = np.array([1.5, 2.5])
        file.attrs.create("list", one, dtype=h5py.vlen_dtype(np.dtype("f8")))
        h5a.create(file.id, b"never written", string_type(h5t.VARIABLE, 0), extent((2,)))
        h5a.create(file.id, b"texts never written", h5t.vlen_create(string_type(4, 0)), extent((2,)))
        values = np.empty(2, record)
        values["n"], values["t"] = [1, 2], ["ab", "ü"]
        values["v"][0], values["v"][1] = np.array([1, 2], "<i4"), np.array([3], "<i4")
        file.attrs.create("records", values, dtype=record)
        file.attrs.create("record", values[0], dtype=record)
        arrays = h5t.array_create(string_type(h5t.VARIABLE, 0, h5t.CSET_UTF8), (2,))
        h5a.create(file.id, b"arrays of texts", arrays, extent((2,)))
    assert check(tmp_path / "a.h5") > 20


@pytest.mark.parametrize("base", [">i4", ">f8", ">c8"])
def test_sequences_in_the_other_byte_order_are_not_read_through_h5py(tmp_path, base):
    lists = np.empty(2, object)
    lists[:] = [np.array([1, 2], base), np.array([], base)]
    kind = h5py.vlen_dtype(np.dtype(base))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.create("lists", lists, dtype=kind)
        file.attrs.create(
            "records", np.array([(1, lists[0])], [("n", "i4"), ("v", kind)])[0], dtype=[("n", "i4"), ("v", kind)]
        )
    expected = [[1, 0], [2, 0]] if base == ">c8" else [1, 2]
    with opened(tmp_path / "a.h5") as both:
        for item in both.attributes(both.file):
            value = attribute_value(item, both.sizes, both.heap)
            assert value == ([expected, []] if item.name == b"lists" else {"n": 1, "v": expected})
            with pytest.raises(UnsupportedFeatureError, match="wrong byte order"):
                read_attribute(both.file.id, item.name)


@pytest.mark.parametrize("libver", LIBVERS)
def test_attributes_with_odd_surroundings(tmp_path, libver):
    with h5py.File(tmp_path / "a.h5", "w", libver=libver, track_order=True) as file:
        file["named"] = np.dtype("<i2")
        group = file.create_group("g")
        group.attrs.create("shared type", [1, 2], dtype=file["named"])
        group.attrs["ünïcode"] = 1
        group.attrs["empty"] = h5py.Empty("f4")
        group.attrs["empty text"] = h5py.Empty("S3")
        group.attrs["empty texts"] = h5py.Empty(h5py.string_dtype())
        group.attrs["empty references"] = h5py.Empty(h5py.ref_dtype)
        for number in range(20):
            file.attrs[f"many {number}"] = number
        for number, name in enumerate(("scale_factor", "add_offset")):
            for place, value in enumerate(
                (np.float32(0.1), np.array([2], ">i2"), np.arange(2), "text", np.array([True]))
            ):
                file.require_group(f"{number}{place}").attrs[name] = value
    assert check(tmp_path / "a.h5") > 30


def test_the_limit_is_that_of_h5py(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.attrs["most"] = np.zeros(16 << 20, "u1")
        file.attrs["more"] = np.zeros((16 << 20) + 1, "u1")
    with opened(tmp_path / "a.h5") as both:
        sizes = {
            item.name: outcome(lambda item=item: attribute_value(item, both.sizes, both.heap))
            for item in both.attributes(both.file)
        }
        assert len(sizes[b"most"]) == 16 << 20
        assert sizes[b"more"] == outcome(lambda: read_attribute(both.file.id, b"more"))
        assert sizes[b"more"][0] is LimitExceededError


@given(
    values=npst.arrays(
        dtype=st.one_of(
            npst.integer_dtypes(endianness="?"),
            npst.unsigned_integer_dtypes(endianness="?"),
            npst.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
            npst.complex_number_dtypes(endianness="?", sizes=(64, 128)),
            npst.byte_string_dtypes(min_len=1, max_len=5),
            st.just(np.dtype(bool)),
            st.just(np.dtype([("a", "<i2"), ("b", ">f8"), ("c", "S2")])),
        ),
        shape=npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ),
    name=st.sampled_from(["a", "scale_factor"]),
    libver=st.sampled_from(LIBVERS),
)
@settings(max_examples=60, deadline=None)
def test_any_value_that_numpy_has(tmp_path_factory, values, name, libver):
    path = tmp_path_factory.mktemp("any") / "a.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs[name] = values
    assert check(path) == 1


def test_what_is_returned_may_be_changed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["n"] = np.array([[1, 2], [3, 4]])
        file.attrs["r"] = np.zeros(2, [("a", "i4", (2,))])
    with opened(tmp_path / "a.h5") as both:
        for item in both.attributes(both.file):
            first = attribute_value(item, both.sizes, no_heap)
            if item.name == b"n":
                first[0][0] = 99
                first.append(5)
            else:
                first[0]["a"][0] = 99
            assert same(attribute_value(item, both.sizes, no_heap), read_attribute(both.file.id, item.name))


# ---------------------------------------------------------------------------------------------------- bookkeeping


def test_the_books_of_dimensions(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("x", "y"):
            file[name] = np.arange(3)
            file[name].make_scale(f"{name} axis")
        file["v"] = np.zeros((3, 3, 3))
        file["v"].dims[0].attach_scale(file["x"])
        file["v"].dims[0].attach_scale(file["y"])
        file["v"].dims[2].attach_scale(file["y"])
        file["x"].attrs["_Netcdf4Dimid"] = np.int32(7)
        file["x"].attrs["_Netcdf4Coordinates"] = np.array([1, 0], ">i4")
        file["x"].attrs["text"] = "of variable length"
    with opened(tmp_path / "a.h5") as both:
        addresses = {name: h5py.h5o.get_info(both.file[name].id).addr for name in ("x", "y")}
        found = {item.name: item for item in both.attributes(both.file["v"])}
        lists = reference_lists(found[b"DIMENSION_LIST"], both.sizes, both.heap)
        assert lists == ((addresses["x"], addresses["y"]), (), (addresses["y"],))
        scale = {item.name: item for item in both.attributes(both.file["x"])}
        assert first_text(scale[b"CLASS"], both.sizes, both.heap) == b"DIMENSION_SCALE"
        assert first_text(scale[b"NAME"], both.sizes, both.heap) == b"x axis"
        assert first_text(scale[b"text"], both.sizes, both.heap) == b"of variable length"
        assert first_text(scale[b"_Netcdf4Dimid"], both.sizes, both.heap) == b""
        assert integers(scale[b"_Netcdf4Dimid"]) == (7,)
        assert integers(scale[b"_Netcdf4Coordinates"]) == (1, 0)
        assert integers(scale[b"CLASS"]) == ()
        assert reference_lists(scale[b"CLASS"], both.sizes, both.heap) == ()


def test_references_to_regions_are_left_to_the_library(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = np.arange(3)
        made = h5a.create(file.id, b"DIMENSION_LIST", h5t.vlen_create(h5t.STD_REF_DSETREG), extent((1,)))
        assert made.shape == (1,)
        assert isinstance(file["v"].regionref[:2], h5r.RegionReference)
    with opened(tmp_path / "a.h5") as both:
        (item,) = both.attributes(both.file)
        with pytest.raises(Unhandled, match="references"):
            reference_lists(item, both.sizes, both.heap)


# --------------------------------------------------------------------------------------------------------- damage


def stored(kind):
    """The message of a type of variable length as files have it: 16 bytes, and not as many as a pointer in memory."""
    message = kind.encode()[2:]
    return message[:4] + (16).to_bytes(4, "little") + message[8:]


TEXT = stored(h5t.py_create(h5py.string_dtype(), logical=True))
LIST = stored(h5t.vlen_create(h5t.STD_I32LE))


def made(datatype, shape, raw):
    return Attribute(b"a", datatype, False, Dataspace(shape, None), raw)


def pointer(length, address=4096, index=1):
    return length.to_bytes(4, "little") + address.to_bytes(8, "little") + index.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        (made(h5t.STD_I32LE.encode()[2:], (4,), bytes(15)), FormatError, "15 bytes are there"),
        (made(h5t.STD_I32LE.encode()[2:], (2**40,), bytes(15)), LimitExceededError, "may have 16777216"),
        (made(h5t.STD_I32LE.encode()[2:], (2**40, 0), b""), LimitExceededError, "may have 16777216"),
        (made(TEXT, (), pointer(6)), FormatError, "of 6 bytes, of which the global heap at 4096 has 5"),
        (made(LIST, (), pointer(2**32 - 1)), FormatError, "of 17179869180 bytes"),
        (made(TEXT, (), pointer(6)[:-1]), FormatError, "15 bytes are there"),
        (made(TEXT, (), pointer(1, 2**64 - 1)), Unhandled, "undefined address"),
        (made(h5t.vlen_create(h5t.STD_REF_OBJ).encode()[2:], (), b""), UnsupportedFeatureError, "references"),
    ],
)
def test_damage_and_what_has_no_value(item, error, message):
    with pytest.raises(error, match=message):
        attribute_value(item, SIZES, lambda address, index: b"12345")


def test_a_type_that_was_not_looked_up():
    with pytest.raises(Unhandled):
        attribute_value(Attribute(b"a", b"", True, Dataspace((), None), b""), SIZES, no_heap)


def test_every_cut_of_an_attribute(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["record"] = np.zeros(2, [("a", "i4", (2,)), ("b", "S3")])
    with opened(tmp_path / "a.h5") as both:
        (body,) = both.bodies(both.file, 12)
    for end in range(len(body) - 22):  # less than the value is missing at the end: it has 22 bytes
        with pytest.raises(FormatError, match="bytes"):
            attribute_value(attribute(body[:end], SIZES), SIZES, no_heap)
    assert attribute_value(attribute(body, SIZES), SIZES, no_heap) == [{"a": [0, 0], "b": ""}] * 2


@corpusscore.each(FILES)
def test_every_attribute_of_real_files(path):
    with opened(path) as both:
        for where, holder in both.objects().items():
            for item in both.attributes(holder):
                expected = outcome(lambda item=item, holder=holder: read_attribute(holder.id, item.name))
                found = outcome(lambda item=item: attribute_value(item, both.sizes, both.heap))
                assert same(found, expected), (where, item.name, found, expected)
