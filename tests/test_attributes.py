import json
import math
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from xarray.backends.zarr import FillValueCoder

from virtualchunks.attributes import from_zarr, to_zarr
from virtualchunks.errors import ManifestError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int8(-3), -3),
        (np.bool_(True), True),
        (True, True),
        (b"K", "K"),
        (np.bytes_(b"K"), "K"),
        (np.str_("K"), "K"),
        (b"\xff", "\\xff"),
        (np.array([1.5, 2.5], "f4"), [1.5, 2.5]),
        (np.array(3, "u8"), 3),
        (np.array([[1], [2]]), [[1], [2]]),
        (np.array([b"a", b"b"]), ["a", "b"]),
        (np.array(["a", "é"], dtype=object), ["a", "é"]),
        ((1, 2), [1, 2]),
        ({"a": np.float64(1)}, {"a": 1.0}),
        (None, None),
        (np.datetime64("2020-01-01"), "2020-01-01"),
        (np.complex64(1 + 2j), [1.0, 2.0]),
        (np.array((1, 2.5), dtype=[("a", "i4"), ("b", "f8")])[()], {"a": 1, "b": 2.5}),
        (np.longdouble(1.5), 1.5),
        (np.void(b"ab"), "YWI="),
    ],
)
def test_natural_values_have_a_form_in_json(value: Any, expected: Any) -> None:
    found = to_zarr({"name": value})["name"]
    assert found == expected
    assert type(found) is type(expected)
    json.dumps(found)


@pytest.mark.parametrize("value", [math.nan, np.float32("inf"), [-math.inf, np.nan]])
def test_strict_json_has_no_numbers_that_json_has_not(value: Any) -> None:
    loose, strict = to_zarr({"valid_range": value}), to_zarr({"valid_range": value}, strict=True)
    json.dumps(strict, allow_nan=False)
    np.testing.assert_equal(from_zarr(strict), loose)
    np.testing.assert_equal(np.asarray(loose["valid_range"]), np.asarray(value, dtype=float))


def test_what_json_has_no_form_for_is_refused_by_name() -> None:
    with pytest.raises(ManifestError, match="'odd' is a object"):
        to_zarr({"odd": object()})


numbers = st.integers(-100, 100) | st.floats(width=32)


@given(st.sampled_from(["f2", "f4", "f8", "i1", "i4", "u2", "c8", "?"]), numbers)
def test_fill_values_are_what_xarray_decodes(kind: str, number: Any) -> None:
    dtype = np.dtype(kind)
    with np.errstate(all="ignore"):
        value = np.asarray(number if dtype.kind in "fc" or math.isfinite(number) else 0).astype(dtype)[()]
    made = to_zarr({"_FillValue": value}, dtype)
    text = json.loads(json.dumps(made, allow_nan=False))
    np.testing.assert_equal(FillValueCoder.decode(text["_FillValue"], dtype), value)
    np.testing.assert_equal(from_zarr(text, dtype)["_FillValue"], value)
    assert made["_FillValue"] == FillValueCoder.encode(value, dtype)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("i4", np.float32(-999), {"_FillValue": -999}),
        ("i4", [5], {"_FillValue": 5}),
        ("i4", 1.5, {"missing_value": 1.5}),
        ("f4", "none", {"missing_value": "none"}),
        ("U3", "ab", {"missing_value": "ab"}),
        ("S3", b"ab", {}),
        ("M8[ns]", np.datetime64("nat", "ns"), {}),
    ],
)
def test_fill_values_of_other_kinds_do_not_stop_xarray(dtype: str, value: Any, expected: dict[str, Any]) -> None:
    assert to_zarr({"_FillValue": value}, np.dtype(dtype)) == expected


def test_xarray_masks_by_the_fill_value() -> None:
    store = zarr.storage.MemoryStore()
    group = zarr.create_group(store)
    attributes = to_zarr({"_FillValue": np.float32(-999)}, np.dtype("f4"))
    made = group.create_array("a", shape=(2,), dtype="f4", dimension_names=["x"], attributes=attributes)
    made[:] = [-999, 1]
    found = xr.open_zarr(store, consolidated=False)["a"]
    np.testing.assert_array_equal(found, [np.nan, 1])
    assert found.encoding["_FillValue"] == -999


def test_a_broken_fill_value_is_named() -> None:
    with pytest.raises(ManifestError, match="base64"):
        from_zarr({"_FillValue": "abc"}, np.dtype("f4"))
