"""Integers of 64 bits beside floats: promoted and rounded as xarray does it, and never without a word."""

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import virtualchunks as vc
from tests.xarray.test_packed_archives import READ, assert_same_bits, by_xarray
from virtualchunks.errors import RoundingWarning

LONG = np.array([2**53 + 1, 2**62 + 3, -5, -(2**60) - 1])
#: What the two files hold, and which of them is rounded.
FILES: dict[str, tuple[list[Any], list[int]]] = {
    "int64, float32": ([LONG, np.arange(4, dtype="f4")], [0]),
    "float64, int64": ([np.arange(4, dtype="f8"), LONG.astype(">i8")], [1]),
    "int64, uint64": ([LONG, LONG.astype("u8")], [0, 1]),
    "int64, int32": ([LONG, np.arange(4, dtype="i4")], []),
    "int32, float32": ([np.arange(4, dtype="i4"), np.arange(4, dtype="f4")], []),
}


def write(path: Path, number: int, values: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        variable = file.create_dataset("v", data=values, chunks=(2,), compression=1)
        file["time"] = np.arange(4 * number, 4 * number + 4)
        file["time"].make_scale("time")
        variable.dims[0].attach_scale(file["time"])
    return path


@pytest.mark.parametrize("case", FILES)
def test_values_are_those_of_xarray(tmp_path, case):
    files, rounded = FILES[case]
    paths = [write(tmp_path / f"{number}.nc", number, values) for number, values in enumerate(files)]
    with warnings.catch_warnings(record=True, action="always", category=RoundingWarning) as caught:
        cube = vc.open_virtual_mfdataset(paths)
    said = sorted({str(one.message).partition(" holds")[0] for one in caught})
    assert said == sorted(f"'v' of {paths[number].as_uri()}" for number in rounded)
    expected = by_xarray(paths)
    assert cube["v"].dtype == expected["v"].dtype
    for read in READ.values():
        assert_same_bits(read(cube), expected, ["v"])


def test_diagnosis_says_so(tmp_path):
    paths = [
        write(tmp_path / f"{number}.nc", number, values) for number, values in enumerate(FILES["int64, float32"][0])
    ]
    verdict = vc.diagnose(paths).variables["v"].verdict
    assert verdict.ok
    assert "rounded" in verdict.because
