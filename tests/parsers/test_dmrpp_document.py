"""DMR++: every element that the format defines, and documents that are wrong, hostile, or out of proportion."""

from __future__ import annotations

import base64
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dmrppwriter import document

from virtualchunks.array import ManifestArray
from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    NotGrantedError,
    SourceUnavailableError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.dmrpp import DMRPPParser
from virtualchunks_parsers.dmrpp import document as document_module
from virtualchunks_parsers.dmrpp.fills import fill_value

#: What the data file holds: 0, 1, 2, … as little-endian 16-bit integers.
DATA = np.arange(512, dtype="<i2").tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.h5").write_bytes(DATA)
    return tmp_path


def write(folder: Path, body: str, name: str = "a.h5.dmrpp", **options: Any) -> Path:
    path = folder / name
    path.write_text(body if body.startswith("<?xml") else document(body, **options), encoding="utf-8")
    return path


def arrays_of(folder: Path, body: str, **options: Any) -> dict[str, ManifestArray]:
    path = write(folder, body, **options)
    return dict(DMRPPParser(strict=True).parse(str(path), ObjectStoreRegistry({folder: None})).walk_arrays())


def value_of(folder: Path, body: str, **options: Any) -> npt.NDArray[Any]:
    (array,) = arrays_of(folder, body, **options).values()
    return read_values(array, ObjectStoreRegistry({folder: None}))


def short(inner: str, dims: str = '<Dim size="4"/>') -> str:
    return f'<Int16 name="v">{dims}{inner}</Int16>'


# ----------------------------------------------------------------------------------------------------------- elements


@pytest.mark.parametrize(
    "inner",
    [
        '<dmrpp:chunk offset="8" nBytes="8"/>',
        '<dmrpp:chunks><dmrpp:chunk offset="8" nBytes="8"/></dmrpp:chunks>',
        '<dmrpp:chunks byteOrder="LE"><dmrpp:chunk offset="8" nBytes="8" chunkPositionInArray="[0]"/></dmrpp:chunks>',
        '<dmrpp:chunks DIO="off" fillValue="0"><dmrpp:chunk offset="8" nBytes="8"/></dmrpp:chunks>',
        "<dmrpp:chunks><dmrpp:chunkDimensionSizes>2</dmrpp:chunkDimensionSizes>"
        '<dmrpp:chunk offset="12" nBytes="4" chunkPositionInArray="[2]"/>'
        '<dmrpp:chunk offset="8" nBytes="4" chunkPositionInArray="[0]"/></dmrpp:chunks>',
        "<dmrpp:chunks><dmrpp:chunkDimensionSizes> 2\n</dmrpp:chunkDimensionSizes>"
        '<dmrpp:chunk offset="8" nBytes="4" chunkPositionInArray="0"/>'
        '<dmrpp:chunk offset="12" nBytes="4" chunkPositionInArray=" 2 "/></dmrpp:chunks>',
    ],
)
def test_ways_to_say_where_values_are(inner: str, folder: Path) -> None:
    assert value_of(folder, short(inner)).tolist() == [4, 5, 6, 7]


def test_a_scalar_and_both_byte_orders(folder: Path) -> None:
    assert value_of(folder, short('<dmrpp:chunk offset="6" nBytes="2"/>', "")) == 3
    inner = '<dmrpp:chunks byteOrder="BE"><dmrpp:chunk offset="6" nBytes="2"/></dmrpp:chunks>'
    assert value_of(folder, short(inner, "")) == 3 << 8


def test_positions_are_those_of_elements(folder: Path) -> None:
    body = short(
        '<dmrpp:chunks fillValue="-1"><dmrpp:chunkDimensionSizes>2 2</dmrpp:chunkDimensionSizes>'
        '<dmrpp:chunk offset="0" nBytes="8" chunkPositionInArray="[0,2]"/>'
        '<dmrpp:chunk offset="8" nBytes="8" chunkPositionInArray="[2,0]"/></dmrpp:chunks>',
        '<Dim size="4"/><Dim size="3"/>',
    )
    assert value_of(folder, body).tolist() == [[-1, -1, 0], [-1, -1, 2], [4, 5, -1], [6, 7, -1]]


@pytest.mark.parametrize("kind", ["Byte", "UInt8", "Char", "Int8"])
def test_types_of_one_byte(kind: str, folder: Path) -> None:
    body = f'<{kind} name="v"><Dim size="3"/><dmrpp:chunk offset="2" nBytes="3"/></{kind}>'
    found = value_of(folder, body)
    assert (found.dtype, found.tolist()) == (np.dtype("i1" if kind == "Int8" else "u1"), [1, 0, 2])


def test_compact_text_and_numbers(folder: Path) -> None:
    def held(raw: bytes) -> str:
        return f"<dmrpp:compact>\n  {base64.b64encode(raw).decode()}\n</dmrpp:compact>"

    assert value_of(folder, short(held(np.arange(4, dtype="<i2").tobytes()))).tolist() == [0, 1, 2, 3]
    found = value_of(folder, f'<String name="v">{held("größer".encode())}</String>')
    assert (found.dtype.kind, found[()]) == ("T", "größer")
    fixed = '<dmrpp:FixedLengthStringArray string_length="3" pad="null_pad"/>'
    found = value_of(folder, f'<String name="v"><Dim size="2"/>{fixed}{held(b"abcde" + bytes(1))}</String>')
    assert found.tolist() == [b"abc", b"de"]
    for pad, texts in (("null_term", [b"a", b"de "]), ("space_pad", [b"a\0c", b"de"])):
        fixed = f'<dmrpp:FixedLengthStringArray string_length="3" pad="{pad}"/>'
        found = value_of(folder, f'<String name="v"><Dim size="2"/>{fixed}{held(b"a" + bytes(1) + b"cde ")}</String>')
        assert found.tolist() == texts


def test_missing_data_is_compressed_or_not(folder: Path) -> None:
    raw = np.arange(100, dtype="<i2").tobytes()
    for data in (raw, zlib.compress(raw)):
        inner = f"<dmrpp:missingdata>{base64.b64encode(data).decode()}</dmrpp:missingdata>"
        assert value_of(folder, short(inner, '<Dim size="100"/>')).tolist() == list(range(100))
    one = '<Byte name="v"><dmrpp:missingdata>Bw==</dmrpp:missingdata></Byte>'
    assert value_of(folder, one) == 7


def test_text_of_variable_length_with_repeats(folder: Path) -> None:
    long = "long text " * 10
    packed = base64.b64encode(zlib.compress(long.encode())).decode()
    body = (
        '<String name="v"><Dim size="5"/><dmrpp:vlsa><v>a &amp; b</v><v c="3">so</v>'
        f'<dmrpp:v s="{len(long)}">{packed}</dmrpp:v></dmrpp:vlsa></String>'
    )
    assert value_of(folder, body).tolist() == ["a & b", "so", "so", "so", long]


def test_a_scalar_of_text_has_the_length_of_its_chunk(folder: Path) -> None:
    (folder / "a.h5").write_bytes(b"some text")
    body = '<String name="v"><dmrpp:chunk offset="5" nBytes="4"/></String>'
    assert value_of(folder, body) == b"text"
    assert value_of(folder, '<String name="v"><dmrpp:chunks fillValue="ab"/></String>') == b"ab"


def test_enumerations_are_found_from_inner_groups(folder: Path) -> None:
    body = (
        '<Enumeration name="e" basetype="UInt16"><EnumConst name="A" value="1"/></Enumeration>'
        '<Group name="g"><Enum name="v" enum="/e"><dmrpp:chunk offset="4" nBytes="2"/></Enum>'
        '<Enum name="w" enum="e"><dmrpp:chunk offset="6" nBytes="2"/></Enum></Group>'
    )
    arrays = arrays_of(folder, body)
    registry = ObjectStoreRegistry({folder: None})
    assert [read_values(array, registry)[()] for array in arrays.values()] == [2, 3]
    assert {array.dtype for array in arrays.values()} == {np.dtype("u2")}


def test_dimensions_are_found_by_path_and_in_groups_above(folder: Path) -> None:
    body = (
        '<Dimension name="x" size="2"/><Group name="g"><Dimension name="x" size="3"/><Dimension name="y" size="2"/>'
        '<Int16 name="a"><Dim name="/x"/><dmrpp:chunk offset="0" nBytes="4"/></Int16>'
        '<Int16 name="b"><Dim name="x"/><dmrpp:chunk offset="0" nBytes="6"/></Int16>'
        '<Group name="h"><Int16 name="c"><Dim name="/g/y"/><Dim name="x"/><dmrpp:chunk offset="0" nBytes="12"/></Int16>'
        "</Group></Group>"
    )
    arrays = arrays_of(folder, body)
    assert {name: array.shape for name, array in arrays.items()} == {"g/a": (2,), "g/b": (3,), "g/h/c": (2, 3)}
    assert arrays["g/h/c"].metadata.dimension_names == ("y", "x")


def test_anonymous_dimensions_of_one_size_have_one_name(folder: Path) -> None:
    chunk = '<dmrpp:chunks fillValue="0"/>'
    body = (
        f'<Int16 name="a"><Dim size="2"/><Dim size="2"/>{chunk}</Int16><Int16 name="b"><Dim size="2"/>{chunk}</Int16>'
        f'<Int16 name="c"><Dim size="3"/>{chunk}</Int16>'
    )
    names = [array.metadata.dimension_names for array in arrays_of(folder, body).values()]
    assert names == [("phony_dim_0", "phony_dim_1"), ("phony_dim_0",), ("phony_dim_2",)]


def test_attributes_of_every_type(folder: Path) -> None:
    def one(kind: str, *values: str) -> str:
        inner = "".join(f"<Value>{value}</Value>" for value in values)
        return f'<Attribute name="{kind}{len(values)}" type="{kind}">{inner}</Attribute>'

    body = (
        one("Int16", "-3")
        + one("UInt64", "18446744073709551615", "0")
        + one("Float32", "NaN", "1e3", "-inf")
        + one("String", "a &lt; b")
        + one("String")
        + one("Int8")
        + one("Float64", "no number")
        + '<Attribute name="with" type="Int32"><Value value="5"/></Attribute>'
        + f'<Attribute name="held" type="Container">{one("Int32", "7")}</Attribute>'
        + '<Attribute name="xml" type="OtherXML"><a/></Attribute>'
    )
    path = write(folder, body)
    found = dict(DMRPPParser().parse(str(path)).attributes)
    nan, *rest = found.pop("Float323")
    assert nan != nan
    assert rest == [1000.0, -np.inf]
    assert found == {
        "Int161": -3,
        "UInt642": [18446744073709551615, 0],
        "String1": "a < b",
        "String0": "",
        "Int80": [],
        "Float641": "no number",
        "with": 5,
        "held": {"Int321": 7},
    }


def test_linked_blocks_are_chunks_where_rows_end(folder: Path) -> None:
    def blocks(*places: tuple[int, int]) -> str:
        inner = "".join(f'<dmrpp:block offset="{offset}" nBytes="{length}"/>' for offset, length in places)
        return short(f"<dmrpp:chunks>{inner}</dmrpp:chunks>", '<Dim size="4"/><Dim size="2"/>')

    (array,) = arrays_of(folder, blocks((0, 4), (4, 4), (16, 4), (40, 4))).values()
    assert [axis.nominal.tolist() for axis in array.metadata.grid.axes] == [[2, 1, 1], [2]]
    assert value_of(folder, blocks((0, 4), (4, 4), (16, 4), (40, 4))).ravel().tolist() == [0, 1, 2, 3, 8, 9, 20, 21]
    assert value_of(folder, blocks((0, 6), (6, 10))).ravel().tolist() == list(range(8))
    with pytest.raises(UnsupportedFeatureError, match="linked blocks that do not end where rows of 4 bytes end"):
        arrays_of(folder, blocks((0, 6), (8, 10)))
    with pytest.raises(FormatError, match="blocks of 8 bytes for an array of 16"):
        arrays_of(folder, blocks((0, 4), (4, 4)))


def test_chunks_in_linked_blocks_are_joined_where_they_follow_each_other(folder: Path) -> None:
    def chunks(second: int) -> str:
        return short(
            '<dmrpp:chunks LBChunk="true"><dmrpp:chunkDimensionSizes>4</dmrpp:chunkDimensionSizes>'
            '<dmrpp:chunk offset="20" nBytes="8" chunkPositionInArray="[4]"/>'
            '<dmrpp:chunk offset="0" nBytes="4" chunkPositionInArray="[0]" LinkedBlockIndex="0"/>'
            f'<dmrpp:chunk offset="{second}" nBytes="4" chunkPositionInArray="[0]" LinkedBlockIndex="1"/>'
            "</dmrpp:chunks>",
            '<Dim size="8"/>',
        )

    assert value_of(folder, chunks(4)).tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    with pytest.raises(UnsupportedFeatureError, match="linked blocks that lie apart"):
        arrays_of(folder, chunks(6))


def test_repeated_filters(folder: Path) -> None:
    raw = zlib.compress(zlib.compress(np.arange(8, dtype="<i2").tobytes()))
    (folder / "a.h5").write_bytes(raw)
    inner = (
        '<dmrpp:chunks compressionType="deflate deflate" deflateLevel="6 6">'
        f'<dmrpp:chunkDimensionSizes>8</dmrpp:chunkDimensionSizes><dmrpp:chunk offset="0" nBytes="{len(raw)}" '
        'chunkPositionInArray="[0]"/></dmrpp:chunks>'
    )
    assert value_of(folder, short(inner, '<Dim size="8"/>')).tolist() == list(range(8))


@pytest.mark.parametrize(
    ("text", "dtype", "attribute", "expected"),
    [
        ("-32767", "i2", None, -32767),
        ("NaN", "f4", None, np.nan),
        ("9.96921e+36", "f4", None, np.float32(9.969209968386869e36)),
        ("9.96921e+36", "f8", None, 9.969209968386869e36),
        ("9.96921e+36", "f8", 9.96921e36, 9.96921e36),
        ("-1.26765e+30", "f8", -1.2676506002282294e30, -1.2676506002282294e30),
        ("-999", "f8", -999.4, -999.0),
        ("0", "f4", None, 0.0),
        ("ab", "S4", None, b"ab"),
    ],
)
def test_fill_values_are_read_from_their_text(text: str, dtype: str, attribute: Any, expected: Any) -> None:
    np.testing.assert_array_equal(fill_value(text, np.dtype(dtype), attribute), expected)


def test_fill_values_of_structures() -> None:
    dtype = np.dtype([("a", "i4"), ("b", "f4")])
    assert fill_value("-1 2.5", dtype).item() == (-1, 2.5)
    for text in ("-1", "-1 2.5 3", "-1 x"):
        with pytest.raises(UnsupportedFeatureError, match="is none of the type"):
            fill_value(text, dtype)


def test_prefixes_and_namespaces(folder: Path) -> None:
    body = short('<dmrpp:chunk offset="8" nBytes="8"/>')
    other = document(body).replace("http://xml.opendap.org/dap/dmrpp/1.0.0#", "http://opendap.org/ns/dmrpp/1.0#")
    assert value_of(folder, other.replace("dmrpp:chunk", "p:chunk").replace("xmlns:dmrpp", "xmlns:p")).tolist() == [
        4,
        5,
        6,
        7,
    ]
    foreign = short('<x:chunks xmlns:x="http://example.org/"/><dmrpp:chunk offset="8" nBytes="8"/>')
    assert value_of(folder, foreign).tolist() == [4, 5, 6, 7]


# --------------------------------------------------------------------------------------------------------- data files


def test_each_chunk_may_lie_in_a_file_of_its_own(folder: Path) -> None:
    (folder / "b.h5").write_bytes(np.arange(100, 110, dtype="<i2").tobytes())
    inner = (
        "<dmrpp:chunks><dmrpp:chunkDimensionSizes>2</dmrpp:chunkDimensionSizes>"
        '<dmrpp:chunk offset="2" nBytes="4" chunkPositionInArray="[0]"/>'
        '<dmrpp:chunk offset="4" nBytes="4" chunkPositionInArray="[2]" href="b.h5" trust="true"/></dmrpp:chunks>'
    )
    assert value_of(folder, short(inner)).tolist() == [1, 2, 102, 103]


@pytest.mark.parametrize(
    "href", ["a.h5", None, "OPeNDAP_DMRpp_DATA_ACCESS_URL", "data/dmrpp/a.h5", "/data/a.h5", "./a.h5", "{folder}/a.h5"]
)
def test_ways_to_name_the_data_file(href: str | None, folder: Path) -> None:
    named = None if href is None else href.replace("{folder}", folder.as_uri())
    assert value_of(folder, short('<dmrpp:chunk offset="8" nBytes="8"/>'), href=named).tolist() == [4, 5, 6, 7]


def test_the_user_has_the_last_word(folder: Path) -> None:
    (folder / "b.h5").write_bytes(DATA[8:])
    path = write(folder, short('<dmrpp:chunk offset="0" nBytes="8"/>'), href="a.h5")
    for given in (folder / "b.h5", (folder / "b.h5").as_uri()):
        store = DMRPPParser(data_url=str(given))(str(path))
        assert store.group.arrays["v"].manifest["0"]["path"] == (folder / "b.h5").as_uri()


def test_a_file_that_the_document_names_is_not_granted_by_that(folder: Path) -> None:
    (folder / "secret.h5").write_bytes(DATA)
    path = write(folder, short('<dmrpp:chunk offset="0" nBytes="8"/>'), href="secret.h5")
    with pytest.raises(NotGrantedError, match=r"secret\.h5"):
        DMRPPParser().parse(str(path))
    inside = write(folder, short('<dmrpp:chunk offset="0" nBytes="8" href="secret.h5"/>'))
    with pytest.warns(UnsupportedArrayWarning, match=r"'/v' of .*secret\.h5"):
        assert DMRPPParser().parse(str(inside)).arrays == {}


@pytest.mark.parametrize(
    "href",
    [
        "../outside.h5",
        "%2e%2e/outside.h5",
        "file:///etc/passwd",
        "http://169.254.169.254/meta",
        "http://u:p@h/x?y",
        "a\\b.h5",
    ],
)
def test_hostile_names_lead_nowhere(href: str, folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "outside.h5").write_bytes(DATA)
    path = write(inner, short('<dmrpp:chunk offset="0" nBytes="8"/>'), href=href)
    with pytest.raises(VirtualChunksError):
        DMRPPParser().parse(str(path), ObjectStoreRegistry({inner: None}))


def test_a_document_that_names_no_file_says_what_to_do(folder: Path) -> None:
    path = write(folder, short('<dmrpp:chunk offset="0" nBytes="8"/>'), name="other.xml", href=None)
    with pytest.raises(FormatError, match="pass data_url="):
        DMRPPParser().parse(str(path))
    assert list(DMRPPParser(data_url=str(folder / "a.h5")).parse(str(path)).arrays) == ["v"]
    fill_only = write(folder, short('<dmrpp:chunks fillValue="1"/>'), name="fill.xml", href=None)
    assert list(DMRPPParser().parse(str(fill_only)).arrays) == ["v"]


def test_a_missing_data_file_is_an_error_that_names_it(folder: Path) -> None:
    (folder / "a.h5").unlink()
    path = write(folder, short('<dmrpp:chunk offset="0" nBytes="8"/>'))
    with pytest.raises(SourceUnavailableError, match=r"a\.h5"):
        DMRPPParser().parse(str(path))


# --------------------------------------------------------------------------------------------- refused, array by array


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ('<String name="v"><Dim size="2"/><dmrpp:chunk offset="0" nBytes="32"/></String>', "text of variable length"),
        ('<Opaque name="v"><dmrpp:chunk offset="0" nBytes="2"/></Opaque>', "opaque values"),
        ('<Sequence name="v"><Int16 name="a"/></Sequence>', "a sequence"),
        (
            '<Enum name="v" enum="/nowhere"><dmrpp:chunk offset="0" nBytes="2"/></Enum>',
            "'/nowhere', which is not declared",
        ),
        ('<Int16 name="v"><Dim size="2"/></Int16>', "does not say where its values are"),
        (short("<dmrpp:chunks/>"), "does not say what they read as"),
        (short('<dmrpp:chunks fillValue="unsupported-variable-length-string"/>'), "could not read it"),
        (short('<dmrpp:chunks fillValue="many"/>'), "the fill value 'many'"),
        (
            short('<dmrpp:chunks compressionType="szip"><dmrpp:chunk offset="0" nBytes="3"/></dmrpp:chunks>'),
            "the filter 'szip'; known are shuffle, deflate, fletcher32",
        ),
        (
            '<Structure name="v"><Int16 name="a"/><String name="b"/><dmrpp:chunk offset="0" nBytes="4"/></Structure>',
            "the field 'b' is text",
        ),
        (
            '<Structure name="v"><Int8 name="a"/><Int16 name="b"/>'
            '<dmrpp:chunks structOffset="2 4"><dmrpp:chunk offset="0" nBytes="4"/></dmrpp:chunks></Structure>',
            "gaps between its fields",
        ),
        (
            '<Structure name="v"><Int8 name="a"/><dmrpp:specialstructuredata/></Structure>',
            "specialstructuredata",
        ),
        (
            '<String name="v"><Dim size="2"/><dmrpp:FixedLengthStringArray string_length="2" pad="stars"/>'
            '<dmrpp:chunk offset="0" nBytes="4"/></String>',
            "text padded with 'stars'",
        ),
        ('<Structure name="v"><dmrpp:chunk offset="0" nBytes="2"/></Structure>', "without fields"),
        ('<Int16 name="v">' + '<Dim size="1"/>' * 33 + '<dmrpp:chunk offset="0" nBytes="2"/></Int16>', "33 dimensions"),
        (
            short("<dmrpp:missingdata>AAAA</dmrpp:missingdata>", '<Dim size="1000000000"/>'),
            "at most 256 MiB are kept",
        ),
        (
            short(
                '<dmrpp:chunks fillValue="0"><dmrpp:chunkDimensionSizes>1</dmrpp:chunkDimensionSizes>'
                '<dmrpp:chunk offset="0" nBytes="2" chunkPositionInArray="[7]"/></dmrpp:chunks>',
                '<Dim size="1000000000000"/>',
            ),
            "a grid of 1000000000000 chunks",
        ),
    ],
)
def test_one_variable_that_cannot_be_had_is_left_out_by_name(variable: str, reason: str, folder: Path) -> None:
    path = write(folder, variable + '<Int16 name="other"><dmrpp:chunk offset="2" nBytes="2"/></Int16>')
    with pytest.warns(UnsupportedArrayWarning) as caught:
        assert list(DMRPPParser().parse(str(path)).arrays) == ["other"]
    (warning,) = caught
    assert str(warning.message).startswith(f"'/v' of {path.as_uri()} is left out: ")
    assert reason in str(warning.message)
    with pytest.raises(VirtualChunksError) as raised:
        DMRPPParser(strict=True).parse(str(path))
    assert raised.value.variable == "/v"
    assert path.as_uri() in str(raised.value)


def test_a_huge_array_of_fill_values_costs_nothing(folder: Path) -> None:
    inner = '<dmrpp:chunks fillValue="3"><dmrpp:chunkDimensionSizes>1 1</dmrpp:chunkDimensionSizes></dmrpp:chunks>'
    tracemalloc.start()
    try:
        (array,) = arrays_of(folder, short(inner, '<Dim size="1000000"/><Dim size="1000000"/>')).values()
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert read_values(array, ObjectStoreRegistry(), (slice(0, 2), 7)).tolist() == [3, 3]


# ----------------------------------------------------------------------------------------------------------- corrupt


@pytest.mark.parametrize(
    ("inner", "problem"),
    [
        ('<dmrpp:chunk nBytes="8"/>', "a chunk needs offset"),
        ('<dmrpp:chunk offset="8"/>', "a chunk needs nBytes"),
        ('<dmrpp:chunk offset="-8" nBytes="8"/>', "found '-8'"),
        ('<dmrpp:chunk offset="0x8" nBytes="8"/>', "found '0x8'"),
        ('<dmrpp:chunk offset="8.0" nBytes="8"/>', "found '8.0'"),
        ('<dmrpp:chunk offset="18446744073709551615" nBytes="8"/>', "found '18446744073709551615'"),
        ('<dmrpp:chunk offset="9223372036854775807" nBytes="8"/>', "a chunk of 8 bytes at 9223372036854775807"),
        ('<dmrpp:chunk offset="1020" nBytes="8"/>', "a chunk up to byte 1028 .* which ends at 1024"),
        ('<dmrpp:chunk offset="8" nBytes="6"/>', "an uncompressed chunk of 6 bytes, expected 8"),
        ('<dmrpp:chunk offset="8" nBytes="0"/>', "a chunk of 0 bytes"),
        ('<dmrpp:chunk offset="8" nBytes="8" chunkPositionInArray="[a]"/>', r"the chunk position '\[a\]'"),
        ('<dmrpp:chunk offset="8" nBytes="8" chunkPositionInArray="[1]"/>', "a chunk position that is none"),
        ('<dmrpp:chunk offset="8" nBytes="8" chunkPositionInArray="[0,0]"/>', "chunk positions of 2 numbers"),
        ('<dmrpp:chunk offset="8" nBytes="8"/>' * 2, "2 chunks without a position"),
        (
            '<dmrpp:chunk offset="8" nBytes="8"/><dmrpp:chunk offset="8" nBytes="8" chunkPositionInArray="[0]"/>',
            "expected 0 numbers",
        ),
        ('<dmrpp:chunk offset="8" nBytes="8" chunkPositionInArray="[0]"/>' * 2, "two chunks in one place"),
        ('<dmrpp:chunk offset="8" nBytes="8"/><dmrpp:block offset="8" nBytes="8"/>', "chunks and blocks"),
        ('<dmrpp:chunk offset="8" nBytes="8"/><dmrpp:compact>AAAA</dmrpp:compact>', "more than one element"),
        ('<dmrpp:chunks byteOrder="VAX"><dmrpp:chunk offset="8" nBytes="8"/></dmrpp:chunks>', "the byte order 'VAX'"),
        (
            "<dmrpp:chunks><dmrpp:chunkDimensionSizes>2 2</dmrpp:chunkDimensionSizes></dmrpp:chunks>",
            "chunks of shape '2 2'",
        ),
        (
            "<dmrpp:chunks><dmrpp:chunkDimensionSizes>0</dmrpp:chunkDimensionSizes></dmrpp:chunks>",
            "chunks of shape '0'",
        ),
        ("<dmrpp:compact>not base64!</dmrpp:compact>", "not base64"),
        ("<dmrpp:compact>AAAA</dmrpp:compact>", "values of 3 bytes, expected 8"),
        ("<dmrpp:missingdata>AAAA</dmrpp:missingdata>", "neither 8 nor compressed"),
        (
            f"<dmrpp:missingdata>{base64.b64encode(zlib.compress(bytes(9))).decode()}</dmrpp:missingdata>",
            "of more bytes",
        ),
        (
            f"<dmrpp:missingdata>{base64.b64encode(zlib.compress(bytes(9))[:6]).decode()}</dmrpp:missingdata>",
            "expected 8",
        ),
        ("<dmrpp:vlsa><v>a</v></dmrpp:vlsa>", "text as values of the type Int16"),
        ('<Dim size="0"/><dmrpp:chunk offset="8" nBytes="8"/>', "1 chunks of an array of shape"),
        ('<Dim name="/nowhere"/><dmrpp:chunk offset="8" nBytes="8"/>', "'/nowhere', line 3, is not declared"),
        ('<Dim size="-1"/><dmrpp:chunk offset="8" nBytes="8"/>', "has the size '-1'"),
    ],
)
def test_corrupt_documents_are_refused(inner: str, problem: str, folder: Path) -> None:
    path = write(folder, short(inner))
    with pytest.raises(FormatError, match=problem) as caught:
        DMRPPParser().parse(str(path), ObjectStoreRegistry({folder: None}))
    assert "a.h5.dmrpp" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["<v>a</v>", '<v c="3">a</v>', '<v c="99999999999999999">a</v>', '<v c="x">a</v><v>b</v>']
)
def test_a_wrong_number_of_texts_is_refused(text: str, folder: Path) -> None:
    with pytest.raises(FormatError, match=r"values|c="):
        arrays_of(folder, f'<String name="v"><Dim size="2"/><dmrpp:vlsa>{text}</dmrpp:vlsa></String>')


def test_names_are_there_and_unique(folder: Path) -> None:
    one = '<Int16 name="v"><dmrpp:chunk offset="0" nBytes="2"/></Int16>'
    for body, problem in (
        (one * 2, "two members '/v'"),
        ('<Group name="g"/>' * 2, "two groups '/g'"),
        ('<Group name="v"/>' + one, "two members '/v'"),
        ("<Int16/>", "has no name"),
        ("<Group/>", "has no name"),
        ('<Dimension name="x"/>', "has the size None"),
    ):
        with pytest.raises(FormatError, match=problem):
            arrays_of(folder, body)
    with pytest.raises(FormatError, match="no group '/h'; the groups there are 'g'"):
        DMRPPParser(group="/h").parse(str(write(folder, '<Group name="g"/>')))


def test_names_that_zarr_does_not_have_are_left_out(folder: Path) -> None:
    one = '<Int16 name="{}"><dmrpp:chunk offset="0" nBytes="2"/></Int16>'
    path = write(folder, one.format("a/b") + f'<Group name="..">{one.format("v")}</Group>' + one.format("w"))
    with pytest.warns(UnsupportedArrayWarning) as caught:
        tree = DMRPPParser().parse(str(path))
    assert [name for name, _ in tree.walk_arrays()] == ["w"]
    assert [str(warning.message).partition(" of ")[0] for warning in caught] == ["'/..'", "'/a/b'"]


def test_every_prefix_of_a_document_is_refused(folder: Path) -> None:
    whole = document(short('<dmrpp:chunk offset="8" nBytes="8"/>')).rstrip().encode()
    path = folder / "a.h5.dmrpp"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"a\.h5\.dmrpp"):
            DMRPPParser().parse(str(path))


# ----------------------------------------------------------------------------------------------------------- hostile

LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE Dataset [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefgh", "bcdefghi", strict=True))
    + ']><Dataset xmlns:dmrpp="http://xml.opendap.org/dap/dmrpp/1.0.0#" name="&i;"/>'
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        '<?xml version="1.0"?><!DOCTYPE Dataset SYSTEM "http://127.0.0.1:1/evil.dtd"><Dataset name="dmrpp"/>',
        '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><Dataset name="d">&x;</Dataset>',
        '<?xml version="1.0"?><!DOCTYPE Dataset><Dataset name="dmrpp"/>',
    ],
)
def test_a_document_type_declaration_is_refused(text: str, folder: Path) -> None:
    with pytest.raises(FormatError, match="a document type declaration"):
        arrays_of(folder, text)


def test_an_entity_that_is_not_declared_is_not_well_formed(folder: Path) -> None:
    with pytest.raises(FormatError, match="not well-formed XML: undefined entity"):
        arrays_of(folder, short("&x;"))


def test_limits_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimitExceededError, match="within each other"):
        arrays_of(folder, '<Group name="g">' * 70 + "</Group>" * 70)
    monkeypatch.setattr(document_module, "MOST_ELEMENTS", 100)
    with pytest.raises(LimitExceededError, match="more than 100 elements"):
        arrays_of(folder, '<Dimension name="x" size="1"/>' * 100)
    monkeypatch.setattr(document_module, "LONGEST", 1000)
    with pytest.raises(LimitExceededError, match="a document of"):
        arrays_of(folder, " " * 1000)


def test_structures_within_structures_do_not_multiply(folder: Path) -> None:
    body = '<Int16 name="a"><Dim size="1000"/></Int16>'
    for _ in range(20):
        body = f'<Structure name="s"><Dim size="1000"/>{body}</Structure>'
    with pytest.raises(UnsupportedFeatureError, match="a structure of 1000000 numbers"):
        arrays_of(folder, body)


def test_chunks_cost_their_numbers_alone(folder: Path) -> None:
    count = 40_000
    (folder / "a.h5").write_bytes(bytes(2 * count))
    chunks = "".join(f'<dmrpp:chunk offset="{2 * n}" nBytes="2" chunkPositionInArray="[{n}]"/>' for n in range(count))
    inner = f"<dmrpp:chunks><dmrpp:chunkDimensionSizes>1</dmrpp:chunkDimensionSizes>{chunks}</dmrpp:chunks>"
    path = write(folder, short(inner, f'<Dim size="{count}"/>'))
    tracemalloc.start()
    try:
        tree = DMRPPParser().parse(str(path))
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size + 300 * count
    finally:
        tracemalloc.stop()
    assert tree.arrays["v"].manifest.records["offset"].tolist() == list(range(0, 2 * count, 2))


@pytest.mark.parametrize(
    ("content", "looks"),
    [(b"\x89HDF\r\n\x1a\n", "HDF5"), (b"", "empty"), (b"<html></html>", "root is 'html'"), (b"{}", "JSON")],
)
def test_another_format_is_named(content: bytes, looks: str, folder: Path) -> None:
    path = folder / "a.dmrpp"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"not a DMR\\+\\+ document: it.*{looks}"):
        DMRPPParser().parse(str(path))
