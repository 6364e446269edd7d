"""Values decoded in one step are what xarray's own decoding makes of them, to the bit and to the encoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from virtualchunks.errors import DecodeError
from virtualchunks.xarray.decoding import _at_once, decode_values, decode_variables

F4, F8, I2, I4, I8, U1 = (np.dtype(name) for name in ("f4", "f8", "i2", "i4", "i8", "u1"))

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a unit": {"units": "degrees_north", "axis": "Y"},
    "a level": {"units": "level"},
    "a fill value": {"_FillValue": -9.0, "units": "K"},
    "NaN": {"_FillValue": np.float32(np.nan)},
    "two fill values": {"_FillValue": -9.0, "missing_value": 3.0},
    "a scale": {"scale_factor": np.float32(0.5), "add_offset": np.float32(2)},
    "several scales": {"scale_factor": np.array([0.5, 1.0])},
    "unsigned": {"_Unsigned": "true", "_FillValue": -1},
    "booleans": {"dtype": "bool"},
    "times": {"units": "days since 2000-01-01"},
    "times of a calendar": {"units": "hours since 1970-01-01 12:00", "calendar": "proleptic_gregorian"},
    "times with more": {"units": "seconds since 1970-01-01", "standard_name": "time", "bounds": "time_bnds"},
    "times without a leap year": {"units": "days since 2000-01-01", "calendar": "noleap"},
    "times with a fill value": {"units": "days since 2000-01-01", "_FillValue": -9},
    "times far away": {"units": "days since 1400-01-01"},
    "times with a zone": {"units": "days since 2000-01-01 00:00:00 +02:00"},
    "months": {"units": "months since 2000-01-01"},
    "durations": {"units": "hours"},
    "since, in a word": {"units": "sinceramente"},
}
VALUES: dict[str, np.ndarray[Any, Any]] = {
    "i2": np.array([-9, 3, 100, 5], I2),
    "i4": np.array([[0, 1], [2, -9]], I4),
    "i8": np.array([7, 8, 9], I8),
    "u1": np.array([1, 255], U1),
    "f4": np.array([np.nan, -9, 1.5], F4),
    "f8": np.array([0.25, 1e5], F8),
    "scalar": np.array(4, I4),
    "none": np.empty(0, F8),
    "big-endian": np.array([1, 2], ">i4"),
    "bool": np.array([True, False]),
}


def result(decode: Any, *parts: Any, **options: Any) -> Any:
    try:
        return decode({"v": parts[0] if len(parts) == 1 else parts}, **options)["v"]
    except DecodeError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mask_and_scale", [True, False])
@pytest.mark.parametrize("decode_times", [None, True, False])
@pytest.mark.parametrize("attributes", ATTRIBUTES)
def test_as_xarray_does(attributes: str, decode_times: Any, mask_and_scale: bool) -> None:
    options: dict[str, Any] = {"url": "file:///a", "decode_times": decode_times, "mask_and_scale": mask_and_scale}
    for case, values in VALUES.items():
        dims = tuple("xyz"[: values.ndim])
        own = ATTRIBUTES[attributes]
        found = result(decode_values, dims, values.copy(), dict(own), **options)
        expected = result(decode_variables, xr.Variable(dims, values.copy(), dict(own)), **options)
        if isinstance(expected, str):
            assert found == expected, case
            continue
        xr.testing.assert_identical(found.load(), expected.load())
        assert found.dtype == expected.dtype, case
        assert repr(found.encoding) == repr(expected.encoding) or found.encoding == expected.encoding, case


@pytest.mark.parametrize("attributes", ["nothing", "a unit", "NaN", "times", "times with more", "a fill value"])
def test_what_coordinates_have_is_decoded_at_once(attributes: str) -> None:
    assert _at_once(("x",), np.array([0.25, 100]), ATTRIBUTES[attributes], None, True) is not None


def test_what_cannot_be_decoded_is_an_error() -> None:
    with pytest.raises(DecodeError, match=r"cannot decode variable 'time'.*file:///a"):
        decode_values({"time": (("t",), np.array([1, 2]), {"units": "days since never"})}, url="file:///a")
