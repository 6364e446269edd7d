"""Elements by datatype messages that we decode, against the same rules applied to h5py's types."""

from __future__ import annotations

import struct

import corpusscore
import h5py
import hypothesis.strategies as st
import numpy as np
import pytest
from h5py import h5t
from hdf5messages import opened, outcome
from hypothesis import given, settings

from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks_parsers.hdf5.datatypes import element_of
from virtualchunks_parsers.hdf5.format.content import Unhandled
from virtualchunks_parsers.hdf5.format.datatypes import DEEPEST, datatype, element
from virtualchunks_parsers.hdf5.format.headers import DATATYPE

FILES = corpusscore.files("hdf5", "netcdf4")


def message(kind):
    """The message of a type; what ``H5Tencode`` writes has two bytes before it."""
    return kind.encode()[2:]


def named():
    """The types that the library names, by name."""
    found = {}
    for name in dir(h5t):
        kind = getattr(h5t, name)
        if isinstance(kind, h5t.TypeID):
            found[name] = kind
    return found


def text(size, padding, charset=h5t.CSET_ASCII):
    kind = h5t.C_S1.copy()
    kind.set_size(size)
    if size != h5t.VARIABLE:
        kind.set_strpad(padding)
    kind.set_cset(charset)
    return kind


def compound(size, *members):
    kind = h5t.create(h5t.COMPOUND, size)
    for name, offset, member in members:
        kind.insert(name, offset, member)
    return kind


def integer(base, precision, offset):
    kind = base.copy()
    kind.set_precision(precision)
    kind.set_offset(offset)
    return kind


def bfloat16():
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_precision(16)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


def opaque(size, tag):
    kind = h5t.create(h5t.OPAQUE, size)
    kind.set_tag(tag)
    return kind


def enumeration(base, **values):
    kind = h5t.enum_create(base)
    for name, value in values.items():
        kind.enum_insert(name.encode(), value)
    return kind


MADE = {
    **{f"text {size} {pad}": text(size, pad) for size in (1, 4) for pad in range(3)},
    "utf-8": text(4, h5t.STR_NULLPAD, h5t.CSET_UTF8),
    "variable text": text(h5t.VARIABLE, 0),
    "17 bits": integer(h5t.STD_I32LE, 17, 0),
    "shifted": integer(h5t.STD_U32BE, 20, 4),
    "bfloat16": bfloat16(),
    "opaque": opaque(3, b"a tag of some length"),
    "times": opaque(8, b"NUMPY:<M8[ns]"),
    "floats in disguise": opaque(4, b"NUMPY:<f4"),
    "not quite times": opaque(8, b"NUMPY:<M8[parsecs]"),
    "boolean": h5t.py_create(np.dtype(bool), logical=True),
    "wide boolean": enumeration(h5t.STD_I32LE, FALSE=0, TRUE=1),
    "enumeration": enumeration(h5t.STD_U16BE, a=1, b=2, abcdefgh=3),
    "odd enumeration": enumeration(integer(h5t.STD_I32LE, 17, 0), a=1),
    "packed": compound(10, (b"a", 0, h5t.STD_I16LE), (b"b", 2, h5t.IEEE_F64LE)),
    "gaps": compound(300, (b"a", 3, h5t.STD_I16LE), (b"b", 280, h5t.IEEE_F64LE)),
    "out of order": compound(10, (b"b", 2, h5t.IEEE_F64LE), (b"a", 0, h5t.STD_I16LE)),
    "two orders": compound(4, (b"a", 0, h5t.STD_I16LE), (b"b", 2, h5t.STD_I16BE)),
    "pair": compound(8, (b"r", 0, h5t.IEEE_F32BE), (b"i", 4, h5t.IEEE_F32BE)),
    "pair with a gap": compound(12, (b"r", 0, h5t.IEEE_F32BE), (b"i", 8, h5t.IEEE_F32BE)),
    "not a pair": compound(4, (b"r", 0, h5t.IEEE_F16LE), (b"i", 2, h5t.IEEE_F16LE)),
    "latin names": compound(2, (b"\xe4", 0, h5t.STD_I16LE)),
    "with text": compound(16, (b"t", 0, text(h5t.VARIABLE, 0))),
    "with a time": compound(4, (b"t", 0, h5t.UNIX_D32LE)),
    "with a reference": compound(8, (b"t", 0, h5t.STD_REF_OBJ)),
    "with arrays": compound(14, (b"t", 0, h5t.array_create(h5t.STD_I16LE, (2, 3))), (b"u", 12, h5t.STD_I16LE)),
    "with a large array": compound(4000, (b"t", 0, h5t.array_create(h5t.STD_I16LE, (2000,)))),
    "with odd numbers": compound(4, (b"t", 0, integer(h5t.STD_I32LE, 17, 0))),
    "array": h5t.array_create(h5t.IEEE_F32BE, (2, 3)),
    "array of arrays": h5t.array_create(h5t.array_create(h5t.IEEE_F32BE, (2, 3)), (4,)),
    "array of odd numbers": h5t.array_create(integer(h5t.STD_I32LE, 17, 0), (2,)),
    "array of texts": h5t.array_create(text(h5t.VARIABLE, 0), (2,)),
    "sequence": h5t.vlen_create(h5t.STD_I32LE),
    "sequence of odd numbers": h5t.vlen_create(integer(h5t.STD_I32LE, 17, 0)),
}


@pytest.mark.parametrize("kind", [*named().values(), *MADE.values()], ids=[*named(), *MADE])
def test_types_of_the_library(kind):
    assert outcome(lambda: element(message(kind))) == outcome(lambda: element_of(kind))


@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
def test_types_as_files_have_them(tmp_path, libver):
    """Every release of the library encodes some of them in a way of its own."""
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        for number, kind in enumerate([*named().values(), *MADE.values()]):
            if kind.get_class() == h5t.TIME or (libver != "latest" and kind.get_class() == h5t.COMPLEX):
                continue
            h5py.h5d.create(file.id, f"{number}".encode(), kind, h5py.h5s.create_simple((2,)))
    with opened(tmp_path / "a.h5") as both:
        for holder in both.objects().values():
            for body in both.bodies(holder, DATATYPE):
                expected = outcome(lambda holder=holder: element_of(holder.id.get_type()))
                assert outcome(lambda body=body: element(body)) == expected
                assert outcome(lambda body=body: element(body + bytes(7))) == expected


def test_members_with_dimensions_of_their_own():
    """Version 1 of compounds has arrays in members; the library wrote such before it had a type for them."""
    member = message(h5t.STD_I16LE)
    body = (
        struct.pack("<4BI", 0x16, 1, 0, 0, 12)
        + b"a\0\0\0\0\0\0\0"
        + struct.pack("<IB3xI4x4I", 0, 2, 0, 2, 3, 0, 0)
        + member
    )
    expected = compound(12, (b"a", 0, h5t.array_create(h5t.STD_I16LE, (2, 3))))
    assert element(body) == element_of(expected) == element_of(h5t.decode(b"\x03\x00" + body))


def placed(members):
    """A compound of members, each behind a gap."""
    size = sum(gap + member.get_size() for gap, member in members)
    kind, at = h5t.create(h5t.COMPOUND, size), 0
    for number, (gap, member) in enumerate(members):
        kind.insert(b"m%d" % number, at + gap, member)
        at += gap + member.get_size()
    return kind


@given(
    st.recursive(
        st.sampled_from(
            [
                h5t.STD_I16LE,
                h5t.STD_U8BE,
                h5t.IEEE_F64BE,
                h5t.IEEE_F32LE,
                *map(MADE.get, ("text 4 0", "boolean", "enumeration")),
            ]
        ),
        lambda inner: st.one_of(
            st.builds(h5t.array_create, inner, st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple)),
            st.lists(st.tuples(st.integers(0, 3), inner), min_size=1, max_size=3).map(placed),
        ),
        max_leaves=5,
    )
)
@settings(max_examples=60, deadline=None)
def test_types_within_types(kind):
    assert outcome(lambda: element(message(kind))) == outcome(lambda: element_of(kind))


# --------------------------------------------------------------------------------------------------------- damage


def nested(depth):
    body = message(h5t.STD_I8LE)
    for _ in range(depth):
        body = struct.pack("<4BIBI", 0x3A, 0, 0, 0, 1, 1, 1) + body
    return body


@pytest.mark.parametrize(
    ("body", "error", "reason"),
    [
        (b"", FormatError, "8 bytes expected at byte 0"),
        (struct.pack("<4BI", 0x10, 0, 0, 0, 0), FormatError, "0 bytes"),
        (struct.pack("<4BI", 0x60, 0, 0, 0, 4), Unhandled, "version 6"),
        (struct.pack("<4BI", 0x1F, 0, 0, 0, 4), Unhandled, "class 15"),
        (struct.pack("<4BI", 0x13, 0, 0, 0, 2**31), Unhandled, "2147483648 bytes"),
        (struct.pack("<4BI", 0x16, 255, 255, 0, 4), FormatError, "no NUL"),
        (struct.pack("<4BI", 0x16, 0, 0, 0, 4), FormatError, "without members"),
        (
            struct.pack("<4BI", 0x36, 1, 0, 0, 4) + b"a\0\3" + message(h5t.STD_I16LE),
            FormatError,
            "'a' of 2 bytes at byte 3",
        ),
        (struct.pack("<4BI", 0x36, 2, 0, 0, 4) + (b"a\0\0" + message(h5t.STD_I16LE)) * 2, FormatError, "overlaps"),
        (struct.pack("<4BIBI", 0x3A, 0, 0, 0, 5, 1, 2) + message(h5t.STD_I16LE), FormatError, "takes 5 bytes"),
        (struct.pack("<4BIB", 0x3A, 0, 0, 0, 5, 33), FormatError, "33 dimensions"),
        (struct.pack("<4BIBI", 0x3A, 0, 0, 0, 5, 1, 0) + message(h5t.STD_I16LE), FormatError, "array"),
        (nested(DEEPEST + 1), Unhandled, "nested"),
        (nested(2)[:-1], FormatError, "4 bytes expected"),
    ],
)
def test_damage(body, error, reason):
    with pytest.raises(error, match=reason):
        element(body)


@pytest.mark.parametrize("kind", MADE.values(), ids=MADE)
def test_every_cut_is_refused(kind):
    body = message(kind)
    for end in range(len(body)):
        with pytest.raises(FormatError):
            datatype(body[:end])


def test_what_only_seems_well_formed_is_refused_by_the_library():
    body = bytearray(message(h5t.IEEE_F32LE))
    body[10:12] = bytes(2)  # a precision of no bits
    with pytest.raises(FormatError, match="the HDF5 library refuses"):
        element(bytes(body))


def test_enumerations_of_anything_but_integers_are_refused_as_the_library_refuses_them():
    base = message(h5t.STD_B8LE)
    body = struct.pack("<4BI", 0x38, 1, 0, 0, 1) + base + b"a\0" + b"\1"
    with pytest.raises((FormatError, UnsupportedFeatureError)):
        element(body)


def test_bit_fields_of_other_bits():
    body = bytearray(message(h5t.STD_B32BE))
    body[8:12] = struct.pack("<2H", 4, 20)
    assert element(bytes(body)) == element_of(h5t.decode(b"\x03\x00" + bytes(body)))
    assert datatype(bytes(body)).number is None


def test_references_have_no_element():
    with pytest.raises(UnsupportedFeatureError, match="references"):
        element(message(h5t.STD_REF_OBJ))


@corpusscore.each(FILES)
def test_every_type_of_real_files(path):
    with opened(path) as both:
        for where, holder in both.objects().items():
            if isinstance(holder, h5py.Dataset):
                (body,) = both.bodies(holder, DATATYPE)
                expected = outcome(lambda holder=holder: element_of(holder.id.get_type()))
                assert outcome(lambda body=body: element(body)) == expected, where
