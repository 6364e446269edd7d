"""NetCDF-3: what the parser reads is what the netCDF library reads."""

from __future__ import annotations

import itertools
import math
import os
import struct
import tracemalloc
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import netCDF4
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from netcdf3writer import Classic
from netcdfreader import IsolatedReader, netcdf_values
from rangeserver import RangeServer

import virtualchunks as vc
from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    SourceChangedError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.testing.parsers import ParserTests
from virtualchunks_parsers.netcdf3 import NetCDF3Parser

FORMATS = {1: "NETCDF3_CLASSIC", 2: "NETCDF3_64BIT_OFFSET", 5: "NETCDF3_64BIT_DATA"}
CLASSIC_TYPES = ("i1", "i2", "i4", "f4", "f8")
CDF5_TYPES = (*CLASSIC_TYPES, "u1", "u2", "u4", "i8", "u8")


def values_of(path: Path, **options: Any) -> dict[str, npt.NDArray[Any]]:
    registry = ObjectStoreRegistry().grant(path)
    group = NetCDF3Parser(**options).parse(str(path), registry)
    return {name: read_values(array, registry) for name, array in group.arrays.items()}


def assert_same(path: Path) -> None:
    found, expected = values_of(path, strict=True), netcdf_values(path)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name, strict=True)


def sample(dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    count = math.prod(shape)
    if dtype == "S1":
        return np.frombuffer(bytes(97 + i % 26 for i in range(count)), dtype="S1").reshape(shape)
    numbers = np.arange(count) * 7 - (0 if dtype[0] == "u" else count)
    return numbers.astype(dtype).reshape(shape)


def write(path: Path, version: int, variables: Mapping[str, tuple[str, str]], records: int = 5) -> Path:
    """Write variables, given as name → (dtype, dimensions as letters), with the netCDF library."""
    with netCDF4.Dataset(path, "w", format=FORMATS[version]) as dataset:
        lengths = {"t": records, "x": 3, "y": 4, "n": 7}
        for letter, length in lengths.items():
            dataset.createDimension(letter, None if letter == "t" else length)
        dataset.title = "a test"
        for name, (dtype, letters) in variables.items():
            variable = dataset.createVariable(name, dtype, tuple(letters))
            variable.units = "K"
            shape = tuple(lengths[letter] for letter in letters)
            if math.prod(shape):
                variable[...] = sample(dtype, shape)
    return path


READER = IsolatedReader()


@pytest.fixture(scope="module", autouse=True)
def reader() -> Iterator[None]:
    yield
    READER.close()


class TestNetCDF3Parser(ParserTests):
    """The suite that every parser passes."""

    parser: ClassVar[NetCDF3Parser] = NetCDF3Parser()
    damage_within = 200

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        several = {
            **{f"r_{dtype}": (dtype, "txy") for dtype in CLASSIC_TYPES},
            "scalar": ("f8", ""),
            "text": ("S1", "tn"),
            "fixed": ("f4", "xy"),
            "odd": ("S1", "n"),
            "t": ("f8", "t"),
        }
        everything = {**{f"r_{d}": (d, "tx") for d in CDF5_TYPES}, **{f"f_{d}": (d, "x") for d in CDF5_TYPES}}
        return {
            "classic": write(folder / "classic.nc", 1, several),
            "64-bit offset": write(folder / "offset.nc", 2, several),
            "64-bit data": write(folder / "data.nc", 5, everything),
            "single record variable": write(folder / "single.nc", 1, {"a": ("f8", "xy"), "r": ("i1", "tx")}),
            "no record": write(folder / "none.nc", 2, {"r": ("i2", "tx"), "s": ("i2", "t")}, records=0),
            "no variable": write(folder / "empty.nc", 1, {}),
        }

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        return READER.read(path)


# ------------------------------------------------------------------------------------------------ chunks and requests


def test_a_fixed_variable_is_one_chunk_and_each_interleaved_record_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nc", 1, {"fixed": ("f4", "xy"), "a": ("i2", "tx"), "b": ("f8", "t")})
    arrays = NetCDF3Parser().parse(str(path)).arrays
    assert arrays["fixed"].metadata.chunks == (3, 4)
    assert arrays["a"].metadata.chunks == (1, 3)
    assert arrays["a"].metadata.dimension_names == ("t", "x")
    entries = arrays["a"].manifest.dict()
    assert [entry["length"] for entry in entries.values()] == [6] * 5
    offsets = [entry["offset"] for entry in entries.values()]
    assert {after - before for before, after in itertools.pairwise(offsets)} == {8 + 8}


@pytest.mark.parametrize("dtype", ["i1", "i2", "S1", "f8"])
def test_the_records_of_a_single_record_variable_are_one_unpadded_chunk(dtype: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.nc", 2, {"fixed": ("f4", "x"), "r": (dtype, "tx")})
    array = NetCDF3Parser().parse(str(path)).arrays["r"]
    assert array.metadata.chunks == (5, 3)
    assert array.manifest["0.0"]["length"] == 5 * 3 * np.dtype(dtype).itemsize
    assert_same(path)


def test_a_header_is_one_request_and_a_long_one_two(range_server: RangeServer, tmp_path: Path) -> None:
    for name, length, requests in (("short.nc", 10, 1), ("long.nc", 2_000_000, 2)):
        with netCDF4.Dataset(tmp_path / name, "w", format=FORMATS[5]) as dataset:
            dataset.history = "x" * length
            dataset.createDimension("x", 500_000)
            dataset.createVariable("a", "f8", ("x",))[:] = np.arange(500_000)
        range_server.objects[name] = (tmp_path / name).read_bytes()
        range_server.forget()
        registry = ObjectStoreRegistry({range_server.root: {}})
        group = NetCDF3Parser().parse(range_server.url(name), registry)
        assert len(range_server.requests) == requests, name
        assert len(group.attributes["history"]) == length
        np.testing.assert_array_equal(read_values(group.arrays["a"], registry), np.arange(500_000.0))


def test_offsets_and_lengths_beyond_four_gigabytes(tmp_path: Path) -> None:
    head = Classic(5, {"x": 600_000_000, "t": 0}, variables={"a": (("x",), np.zeros(0, "f8")), "b": (("t",), [1, 2])})
    begin = len(head.header({"a": np.zeros(0), "b": np.zeros(2, "i4")}, 2, {"a": 0, "b": 0}))
    header = head.header({"a": np.zeros(0), "b": np.zeros(2, "i4")}, 2, {"a": begin, "b": begin + 4_800_000_000})
    path = tmp_path / "large.nc"
    with path.open("wb") as file:
        file.write(header)
        os.truncate(path, begin + 4_800_000_000)  # a hole
        file.seek(begin + 4_800_000_000)
        file.write(struct.pack(">2i", 5, 6))
    registry = ObjectStoreRegistry().grant(path)
    arrays = NetCDF3Parser().parse(str(path), registry).arrays
    assert arrays["a"].manifest["0"] == {"path": path.as_uri(), "offset": begin, "length": 4_800_000_000}
    assert read_values(arrays["b"], registry).tolist() == [5, 6]


# ---------------------------------------------------------------------------- what the netCDF library does not write


@pytest.mark.parametrize("version", [1, 2, 5])
@pytest.mark.parametrize("unpadded", [False, True])
def test_the_size_of_a_streamed_file_tells_the_number_of_records(version: int, unpadded: bool, tmp_path: Path) -> None:
    a, b = sample("i2", (6, 3)), sample("i1", (6, 5))
    variables = {"a": (("t", "x"), a), "b": (("t", "y"), b)}
    raw = Classic(version, {"t": 0, "x": 3, "y": 5}, variables=variables, streamed=True).bytes()
    path = tmp_path / "a.nc"
    path.write_bytes(raw[:-3] if unpadded else raw)
    found = values_of(path)
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], b)


def test_a_streamed_file_may_have_one_record_variable_or_none(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes(Classic(1, {"t": 0}, variables={"a": (("t",), sample("i1", (7,)))}, streamed=True).bytes())
    np.testing.assert_array_equal(values_of(path)["a"], sample("i1", (7,)))
    path.write_bytes(Classic(1, {"t": 0, "x": 2}, variables={"a": (("x",), [1, 2])}, streamed=True).bytes())
    assert values_of(path)["a"].tolist() == [1, 2]


def test_padding_may_be_missing_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes(Classic(1, {"x": 5}, variables={"a": (("x",), sample("i1", (5,)))}).bytes()[:-3])
    np.testing.assert_array_equal(values_of(path)["a"], sample("i1", (5,)))


def test_names_and_text_in_utf8_or_else_latin1(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    attributes = {"units": "°C".encode("latin-1"), "long_name": "Höhe über NN", "ends": "km\0\0"}
    made = Classic(1, {"x": 2}, variables={"größe": (("x",), [1, 2])}, variable_attributes={"größe": attributes})
    path.write_bytes(made.bytes())
    array = NetCDF3Parser().parse(str(path)).arrays["größe"]
    assert array.metadata.attributes == {"units": "°C", "long_name": "Höhe über NN", "ends": "km"}


@pytest.mark.parametrize("version", [1, 2, 5])
def test_attributes_of_every_type(version: int, tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    kinds = CDF5_TYPES if version == 5 else CLASSIC_TYPES
    with netCDF4.Dataset(path, "w", format=FORMATS[version]) as dataset:
        for kind in kinds:
            dataset.setncattr(f"one_{kind}", np.array([3], kind))
            dataset.setncattr(f"many_{kind}", np.array([1, 2, 3], kind))
        dataset.text, dataset.empty = "some text", ""
    with netCDF4.Dataset(path) as dataset:
        expected = {name: dataset.getncattr(name) for name in dataset.ncattrs()}
    found = NetCDF3Parser().parse(str(path)).attributes
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == (value if isinstance(value, str) else value.tolist()), name


def test_the_fill_value_is_that_of_the_variable(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    fills = {"a": np.float32(-999), "b": np.int16(-1), "c": "x", "d": np.float64(np.nan), "e": np.int32(70_000)}
    values = {
        "a": np.zeros(2, "f4"),
        "b": np.zeros(2, "i2"),
        "c": np.full(2, b"a"),
        "d": np.zeros(2),
        "e": np.zeros(2, "i2"),
    }
    made = Classic(
        1,
        {"x": 2},
        variables={name: (("x",), value) for name, value in values.items()},
        variable_attributes={name: {"_FillValue": fill} for name, fill in fills.items()},
    )
    path.write_bytes(made.bytes())
    arrays = NetCDF3Parser(strict=True).parse(str(path)).arrays
    assert [arrays[name].metadata.fill_value for name in "abce"] == [-999, -1, b"x", 0]
    assert np.isnan(arrays["d"].metadata.fill_value)
    assert arrays["e"].metadata.attributes["_FillValue"] == 70_000
    assert arrays["c"].metadata.attributes["_FillValue"] == b"x"


# ---------------------------------------------------------------------------------------------- xarray and the store


@pytest.mark.parametrize("version", [1, 2, 5])
def test_xarray_opens_the_store_as_it_opens_the_file(version: int, tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w", format=FORMATS[version]) as dataset:
        for name, length in (("time", None), ("x", 3), ("strlen", 8)):
            dataset.createDimension(name, length)
        time = dataset.createVariable("time", "f8", ("time",))
        time.units = "days since 2000-01-01"
        time[:] = np.arange(4)
        packed = dataset.createVariable("packed", "i2", ("time", "x"), fill_value=-32767)
        packed.scale_factor, packed.add_offset = 0.5, 10.0
        packed.set_auto_maskandscale(False)
        packed[:] = [[1, 2, -32767]] * 4
        label = dataset.createVariable("label", "S1", ("x", "strlen"))
        label[:] = netCDF4.stringtochar(np.array(["one", "two", "three"], "S8"))
    with xr.open_dataset(path, engine="netcdf4") as expected:
        store = NetCDF3Parser()(str(path))
        found = xr.open_zarr(store, consolidated=False, zarr_format=3)
        xr.testing.assert_equal(found.load(), expected.load())
        assert found.packed.dtype.kind == expected.packed.dtype.kind == "f"
        assert found.label.dtype == expected.label.dtype


def test_files_of_months_become_one_cube(tmp_path: Path) -> None:
    paths = []
    for number, days in enumerate((31, 28, 31)):
        paths.append(tmp_path / f"{number}.nc")
        time = xr.date_range(f"2001-0{number + 1}-01", periods=days)
        values = np.arange(days * 6, dtype="f4").reshape(days, 2, 3) + number
        made = xr.Dataset({"tas": (("time", "y", "x"), values)}, coords={"time": time})
        made.to_netcdf(paths[-1], engine="netcdf4", format="NETCDF3_64BIT", unlimited_dims=["time"])
    how = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "override"}
    virtual = xr.concat([vc.open_virtual_dataset(path, parser=NetCDF3Parser()) for path in paths], "time", **how)
    expected = xr.concat([xr.load_dataset(path, engine="netcdf4") for path in paths], "time", **how)
    assert virtual.tas.data.metadata.chunks == (1, 2, 3)
    xr.testing.assert_identical(virtual.virtual.open().load(), expected)


# ----------------------------------------------------------------------------------------------------- what is refused


def test_a_truncated_file_is_refused_by_the_first_variable_that_misses_values(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.nc", 1, {"fixed": ("f4", "xy"), "a": ("i2", "tx"), "b": ("f8", "t")}).read_bytes()
    path = tmp_path / "cut.nc"
    for cut, name in ((8, "b"), (16, "a"), (5 * 16 + 1, "fixed")):
        path.write_bytes(whole[:-cut])
        with pytest.raises(FormatError, match=f"'{name}' has values in bytes .* truncated") as caught:
            NetCDF3Parser().parse(str(path))
        assert caught.value.variable == name
        assert "cut.nc" in str(caught.value)
    assert NetCDF3Parser(drop_variables=["fixed", "a", "b"]).parse(str(path)).arrays == {}


def header_of(version: int = 1) -> bytes:
    return Classic(version, {"x": 2}, variables={"a": (("x",), [1, 2])}).bytes()


@pytest.mark.parametrize(
    ("position", "new", "message"),
    [
        (3, b"\x03", "the version 3 is not one of NetCDF-3"),
        (8, b"\0\0\0\x0b", "expected the tag 10"),
        (12, b"\x7f\xff\xff\xff", "2147483647 entries of 8 bytes or more do not fit"),
        (16, b"\x7f\xff\xff\xff", "a name of 2147483647 bytes"),
        (16, b"\0\0\0\0", "an empty name"),
        (32, b"\x40\0\0\0", "1073741824 entries of 12 bytes|expected the tag"),
        (52, b"\x0f\0\0\0", "251658240 entries of 4 bytes"),
        (56, b"\0\0\0\x07", "has the dimension 7 of 1"),
        (68, b"\0\0\0\x07", "the type 7 is not one of this version"),
        (68, b"\0\0\0\0", "the type 0 is not one of this version"),
        (76, b"\0\0\0\x08", "before the end of what precedes it"),
        (76, b"\x7f\0\0\0", "truncated"),
        (24, b"\0\0\0\0", "truncated|values"),
    ],
)
def test_a_corrupt_header_is_refused_before_anything_is_read_by_it(
    position: int, new: bytes, message: str, tmp_path: Path
) -> None:
    raw = header_of()
    path = tmp_path / "corrupt.nc"
    path.write_bytes(raw[:position] + new + raw[position + len(new) :])
    if position == 24:  # x becomes the record dimension, of no record
        assert values_of(path)["a"].shape == (0,)
        return
    with pytest.raises(FormatError, match=message) as caught:
        NetCDF3Parser().parse(str(path))
    assert "corrupt.nc" in str(caught.value)


def test_every_prefix_of_a_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prefix.nc"
    raw = Classic(5, {"t": 0}, {"a": [1, 2]}, {"v": (("t",), [1.0])}, {"v": {"units": "K"}}).bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(FormatError, match=r"prefix\.nc"):
            NetCDF3Parser().parse(str(path))


def test_the_record_dimension_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes(Classic(1, {"x": 2, "t": 0}, variables={"a": (("x", "t"), np.zeros((2, 3)))}).bytes())
    with pytest.raises(FormatError, match="the record dimension is not the first of 'a'"):
        NetCDF3Parser().parse(str(path))
    with pytest.raises(OSError, match=r"[Uu]nlimited|NetCDF"):
        netCDF4.Dataset(path)


def test_a_variable_that_zarr_cannot_name_is_left_out_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes(Classic(1, {"x": 2}, variables={"a/b": (("x",), [1, 2]), "c": (("x",), [3, 4])}).bytes())
    with pytest.warns(UnsupportedArrayWarning, match=r"'a/b' of .*a\.nc is left out: ") as caught:
        assert list(NetCDF3Parser().parse(str(path)).arrays) == ["c"]
    assert len(caught) == 1
    with pytest.raises(VirtualChunksError, match=r"a\.nc"):
        NetCDF3Parser(strict=True).parse(str(path))


@pytest.mark.parametrize(("rank", "names"), [(32, ["a", "b"]), (33, ["b"])])
def test_more_than_32_dimensions_are_left_out_by_name(rank: int, names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    variables = {"a": (("x",) * rank, np.full((1,) * rank, 7.0)), "b": (("x",), [1])}
    path.write_bytes(Classic(1, {"x": 1}, variables=variables).bytes())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert list(values_of(path)) == names
    assert [str(w.message).partition(": ")[2] for w in caught] == ["33 dimensions; at most 32 are read"] * (rank - 32)
    if rank > 32:
        with pytest.raises(UnsupportedFeatureError, match="33 dimensions"):
            values_of(path, strict=True)


def test_two_variables_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    raw = Classic(1, {"x": 2}, variables={"a1": (("x",), [1, 2]), "a2": (("x",), [3, 4])}).bytes()
    path.write_bytes(raw.replace(b"a2", b"a1"))
    with pytest.raises(FormatError, match="two variables have the name 'a1'"):
        NetCDF3Parser().parse(str(path))


def test_there_is_no_other_group(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nc", 1, {"a": ("f4", "x")})
    assert list(NetCDF3Parser(group="/").parse(str(path)).arrays) == ["a"]
    with pytest.raises(FormatError, match=r"no group '/model'.*a\.nc"):
        NetCDF3Parser(group="/model").parse(str(path))


@pytest.mark.parametrize(("content", "looks"), [(b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"), (b"", "empty")])
def test_another_format_is_named(content: bytes, looks: str, tmp_path: Path) -> None:
    path = tmp_path / "other.nc"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"not a NetCDF-3 file: it is .*{looks}"):
        NetCDF3Parser().parse(str(path))


def test_a_header_out_of_proportion_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    raw = Classic(1, attributes={"text": "x"}).bytes()
    at = raw.index(struct.pack(">I", 1) + b"x")
    with path.open("wb") as file:
        file.write(raw[:at] + struct.pack(">I", 1_000_000_000))
        os.truncate(path, 3_000_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceededError, match="longer than 64 MiB"):
            NetCDF3Parser().parse(str(path))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_huge_number_of_records_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    raw = bytearray(write(path, 5, {"a": ("i2", "tx"), "b": ("f8", "t")}).read_bytes())
    raw[4:12] = struct.pack(">q", 2**62)
    path.write_bytes(raw)
    with pytest.raises(FormatError, match="truncated"):
        NetCDF3Parser().parse(str(path))


def test_a_file_that_changed_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nc", 1, {"a": ("f4", "x")})
    registry = ObjectStoreRegistry().grant(path)
    array = NetCDF3Parser().parse(str(path), registry).arrays["a"]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SourceChangedError):
        read_values(array, registry)


# ---------------------------------------------------------------------------------------------------------- any file


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, dict[str, tuple[str, str]], int]:
    version = draw(st.sampled_from([1, 2, 5]))
    dtypes = st.sampled_from([*(CDF5_TYPES if version == 5 else CLASSIC_TYPES), "S1"])
    letters = st.sampled_from(["", "t", "x", "tx", "txy", "tn", "n", "xy", "nx", "tnn"])
    variables = draw(st.lists(st.tuples(dtypes, letters), max_size=6))
    return version, {f"v{i}": variable for i, variable in enumerate(variables)}, draw(st.integers(0, 5))


@settings(max_examples=100)
@given(layouts())
def test_any_file_reads_as_the_netcdf_library_reads_it(
    tmp_path_factory: pytest.TempPathFactory, layout: tuple[int, dict[str, tuple[str, str]], int]
) -> None:
    version, variables, records = layout
    path = write(tmp_path_factory.mktemp("any") / "a.nc", version, variables, records)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(path)


@settings(max_examples=50)
@given(layouts())
def test_the_tests_own_writer_writes_what_the_netcdf_library_reads(
    tmp_path_factory: pytest.TempPathFactory, layout: tuple[int, dict[str, tuple[str, str]], int]
) -> None:
    version, variables, records = layout
    lengths = {"t": records, "x": 3, "y": 4, "n": 7}
    made = Classic(
        version,
        {**lengths, "t": 0},
        variables={
            name: (tuple(letters), sample(dtype, tuple(lengths[letter] for letter in letters)))
            for name, (dtype, letters) in variables.items()
        },
    )
    path = tmp_path_factory.mktemp("any") / "a.nc"
    path.write_bytes(made.bytes())
    assert_same(path)
