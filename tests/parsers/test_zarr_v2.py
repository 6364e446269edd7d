"""Zarr v2: dtypes, filters, compressors, orders, fill values, each against zarr-python."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from zarrstores import array_at, assert_same, values_of, zarr_values

from virtualchunks.errors import FormatError, UnsupportedArrayWarning, UnsupportedFeatureError
from virtualchunks_parsers.zarr import ZarrParser
from virtualchunks_parsers.zarr.codecs_v2 import encoding_v2
from virtualchunks_parsers.zarr.metadata_v2 import dtype_v2, fill_v2

RNG = np.random.default_rng(0)


def write(path: Path, values: Any, **options: Any) -> str:
    """Write one v2 array, named `a`, in a group."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    settings = {"chunks": (4,) * values.ndim, "compressors": None, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = group.create_array("a", shape=values.shape, dtype=values.dtype, **settings)
    array[...] = values
    return str(path)


DTYPES = ["|b1", "|i1", "|u1", "<i2", ">i2", "<u4", ">i8", "<f2", ">f4", "<f8", ">c8", "<c16"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_of_both_byte_orders_in_both_orders(dtype: str, order: str, tmp_path: Path) -> None:
    values = (RNG.integers(0, 100, (6, 7)) % 2 if dtype == "|b1" else RNG.integers(0, 100, (6, 7))).astype(dtype)
    path = write(tmp_path / "a.zarr", values, order=order)
    store = ZarrParser()(path)
    assert_same(values_of(store), {"a": values})
    assert_same(values_of(store), zarr_values(path))


@pytest.mark.parametrize("dtype", ["|S5", "<U4", ">U4", "<M8[s]", ">M8[ns]", "<m8[h]", "|V3"])
def test_text_times_and_raw_bytes(dtype: str, tmp_path: Path) -> None:
    raw = RNG.integers(65, 90, 40 * np.dtype(dtype).itemsize).astype("u1")
    texts = np.array(["ab", "", "añü", "xyz"] * 3)
    values = texts.astype(dtype) if dtype[1] == "U" else raw.view(dtype)[:12]
    if dtype[1] in "mM":
        values = np.arange(12).astype("<i8").astype(np.dtype(dtype).newbyteorder("=")).astype(dtype)
    path = write(tmp_path / "a.zarr", values)
    assert_same(values_of(ZarrParser()(path)), zarr_values(path))


@pytest.mark.parametrize("order", ["<", ">"])
def test_structures(order: str, tmp_path: Path) -> None:
    values = np.zeros(6, dtype=[("x", f"{order}i4"), ("y", f"{order}f8"), ("s", "S3")])
    values["x"], values["y"], values["s"] = np.arange(6), np.linspace(0, 1, 6), b"ab"
    path = write(tmp_path / "a.zarr", values)
    found = values_of(ZarrParser()(path))["a"]
    for name in values.dtype.names or ():
        np.testing.assert_array_equal(found[name], values[name])


def test_structures_of_mixed_byte_order_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", np.zeros(4, dtype=[("x", "<i4")]))
    document = json.loads((tmp_path / "a.zarr/a/.zarray").read_text())
    document["dtype"] = [["x", "<i2"], ["y", ">i2"]]
    (tmp_path / "a.zarr/a/.zarray").write_text(json.dumps(document))
    with pytest.warns(UnsupportedArrayWarning, match="byte order"):
        store = ZarrParser()(path)
    assert not store.group.arrays
    with pytest.raises(UnsupportedFeatureError, match="byte order"):
        ZarrParser(strict=True)(path)


COMPRESSORS = [
    *(numcodecs.Zlib(1), numcodecs.GZip(1), numcodecs.BZ2(1), numcodecs.LZMA(), numcodecs.LZ4(), numcodecs.Zstd(1)),
    *(numcodecs.Blosc("lz4", shuffle=shuffle) for shuffle in (-1, 0, 1, 2)),
    numcodecs.Blosc("zlib", clevel=9, blocksize=256),
]


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=str)
@pytest.mark.parametrize("dtype", ["|u1", ">i2", "<f8"])
def test_compressors(compressor: Any, dtype: str, tmp_path: Path) -> None:
    values = RNG.integers(0, 50, (9, 5)).astype(dtype)
    path = write(tmp_path / "a.zarr", values, compressors=compressor)
    assert_same(values_of(ZarrParser()(path)), {"a": values})


FILTERS: list[tuple[str, list[Any]]] = [
    ("<i4", [numcodecs.Delta("<i4")]),
    (">i4", [numcodecs.Delta(">i4")]),
    (">i4", [numcodecs.Delta(">i4", astype=">i2")]),
    ("<f8", [numcodecs.FixedScaleOffset(offset=1, scale=10, dtype="<f8", astype="<i2")]),
    ("<f4", [numcodecs.FixedScaleOffset(offset=0, scale=4, dtype="<f4", astype="|u1")]),
    ("<f4", [numcodecs.Quantize(2, "<f4")]),
    ("<f8", [numcodecs.AsType(encode_dtype="<f4", decode_dtype="<f8")]),
    ("<f4", [numcodecs.BitRound(10)]),
    ("|b1", [numcodecs.PackBits()]),
    ("<i4", [numcodecs.Shuffle(4)]),
    (">i2", [numcodecs.Shuffle(2)]),
    ("<i4", [numcodecs.Delta("<i4"), numcodecs.Shuffle(4)]),
    ("<i4", [numcodecs.Zlib(1)]),
    ("<i4", [numcodecs.CRC32()]),
    ("<i4", [numcodecs.CRC32C()]),
    ("<i4", [numcodecs.Adler32()]),
    ("<i4", [numcodecs.Fletcher32()]),
    ("<i4", [numcodecs.JenkinsLookup3()]),
]


@pytest.mark.parametrize(("dtype", "filters"), FILTERS, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("compressor", [None, numcodecs.Zlib(1)], ids=str)
def test_filters(dtype: str, filters: list[Any], order: str, compressor: Any, tmp_path: Path) -> None:
    values = (RNG.integers(0, 100, (6, 7)) % (2 if dtype == "|b1" else 100)).astype(dtype)
    path = write(tmp_path / "a.zarr", values, filters=filters, compressors=compressor, order=order)
    assert_same(values_of(ZarrParser(strict=True)(path)), zarr_values(path))


@pytest.mark.parametrize("dtype", ["<i4", "<f4", "<u8"])
def test_pcodec(dtype: str) -> None:
    encoding = encoding_v2(np.dtype(dtype), "C", None, {"id": "pcodec", "level": 8}, 1)
    assert [codec["name"] for codec in encoding.codecs] == ["numcodecs.pcodec"]


@pytest.mark.parametrize("order", ["C", "F"])
def test_text_of_any_length(order: str, tmp_path: Path) -> None:
    values = np.array([["a", "bcd", "é"], ["", "long" * 50, "z"]], dtype=np.dtypes.StringDType())
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    for name, compressor in (("a", None), ("b", numcodecs.Zlib(1))):
        group.create_array(name, shape=(2, 3), chunks=(2, 2), dtype=str, order=order, compressors=compressor)[...] = (
            values
        )
    found = values_of(ZarrParser()(str(tmp_path / "a.zarr")))
    assert_same(found, {"a": values, "b": values})


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ([{"id": "pickle"}], "pickle"),
        ([{"id": "json2"}], "json2"),
        ([{"id": "categorize"}], "categorize"),
        (None, "none"),
    ],
)
def test_other_objects_are_refused_by_name(filters: Any, reason: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=reason):
        dtype_v2("|O", filters)


@pytest.mark.parametrize("config", [{"id": "grib"}, {"id": "no_such_codec"}, {"id": "pickle"}])
def test_unknown_codecs_are_refused_by_name(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFeatureError, match=str(config["id"])):
        encoding_v2(np.dtype("<f4"), "C", [config], None, 1)


def test_a_filter_that_would_reinterpret_elements_is_refused() -> None:
    with pytest.raises(UnsupportedFeatureError, match="delta"):
        encoding_v2(np.dtype("<i2"), "C", [{"id": "delta", "dtype": "<i4"}], None, 1)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ("NaN", "<f4", np.nan),
        ("-Infinity", ">f8", -np.inf),
        (3, "|i1", 3),
        (True, "|b1", True),
        ([1.0, "NaN"], "<c8", complex(1, np.nan)),
        ("YWI=", "|S4", b"ab"),
        ("NaT", "<M8[s]", np.datetime64("NaT", "s")),
        (5, ">M8[D]", np.datetime64(5, "D")),
        (0, "<U3", ""),
        ("xy", ">U3", "xy"),
        (None, "<f4", None),
    ],
)
def test_fill_values(value: Any, dtype: str, expected: Any) -> None:
    np.testing.assert_equal(fill_v2(value, np.dtype(dtype)), expected)


@pytest.mark.parametrize(("value", "dtype"), [("x", "<f4"), ({}, "<i4"), ("*", "|S3"), ([1], "<c8"), (300, "|u1")])
def test_impossible_fill_values_are_refused(value: Any, dtype: str) -> None:
    with pytest.raises(FormatError):
        fill_v2(value, np.dtype(dtype))


@pytest.mark.parametrize("dtype", ["<i4", "<f8", ">f4", "|b1", "|S3"])
def test_xarray_sees_the_same_through_the_references(dtype: str, tmp_path: Path) -> None:
    values = np.arange(10).astype(dtype)
    path = write(
        tmp_path / "a.zarr", values, fill_value=values[3], attributes={"_ARRAY_DIMENSIONS": ["x"], "units": "m"}
    )
    store = ZarrParser()(path)
    direct = xr.open_zarr(path, consolidated=False, chunks=None)
    virtual = xr.open_zarr(store, consolidated=False, zarr_format=3, chunks=None)
    assert array_at(store, "a").metadata.dimension_names == ("x",)
    assert virtual["a"].attrs == direct["a"].attrs
    if dtype != "|S3":  # of which xarray knows no _FillValue in v3
        xr.testing.assert_equal(virtual, direct)


def test_missing_chunks_read_as_the_fill_value(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", np.ones((8, 8), "<f4"), fill_value=7)
    (tmp_path / "a.zarr/a/0.1").unlink()
    store = ZarrParser()(path)
    assert len(array_at(store, "a").manifest) == 3
    assert_same(values_of(store), zarr_values(path))


def test_nczarr_dimension_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", np.ones((8, 8), "<f4"))
    document = json.loads((tmp_path / "a.zarr/a/.zarray").read_text())
    document["_NCZARR_ARRAY"] = {"dimrefs": ["/g/lat", "/lon"], "storage": "chunked"}
    (tmp_path / "a.zarr/a/.zarray").write_text(json.dumps(document))
    assert array_at(ZarrParser()(path), "a").metadata.dimension_names == ("lat", "lon")
