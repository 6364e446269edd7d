"""Archives of toy files, beside the Datasets that they were written from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import virtualchunks as vc
from tests.xarray.toyformat import ToyParser, write_toy
from virtualchunks.xarray import grants

CHUNKS = {"time": 1, "y": 2, "x": 3}


@pytest.fixture(autouse=True)
def nothing_named() -> None:
    """Every test begins as a new process does: nothing was opened by name."""
    grants._GRANTED.clear()
    grants._REGISTRIES.clear()


def field(start: str, days: int, seed: int = 0) -> xr.Dataset:
    """Return daily fields: floats with a missing chunk, packed integers, another coordinate, a scalar, time bounds."""
    random = np.random.default_rng(seed)
    time = pd.date_range(start, periods=days, unit="ns")
    air = random.normal(280, 5, (days, 4, 6)).astype("f4")
    air[0, :2, :3] = np.nan
    rain = random.integers(0, 200, (days, 4, 6)) / 4
    rain[-1, 3, 5] = np.nan
    made = xr.Dataset(
        {
            "air": (("time", "y", "x"), air, {"units": "K"}),
            "rain": (("time", "y", "x"), rain),
            "time_bnds": (("time", "nv"), np.stack([time, time + pd.Timedelta(1, "D")], axis=-1)),
            "mask": (("y", "x"), np.arange(24, dtype="i2").reshape(4, 6)),
            "crs": ((), np.int32(0), {"grid_mapping_name": "latitude_longitude"}),
        },
        coords={
            "time": ("time", time, {"bounds": "time_bnds"}),
            "y": np.arange(4.0),
            "x": np.arange(6.0),
            "lat": (("y", "x"), np.linspace(40, 50, 24).reshape(4, 6)),
        },
        attrs={"title": "fields"},
    )
    made["rain"].encoding = {"scale_factor": 0.25, "dtype": "i2", "_FillValue": np.int16(-1)}
    made["time"].encoding = {"units": "days since 2020-01-01", "calendar": "proleptic_gregorian", "dtype": "i4"}
    return made


@dataclass
class Archive:
    """Files, and the values in them."""

    folder: Path
    paths: list[Path]
    values: list[xr.Dataset]

    def open(self, **options: object) -> list[xr.Dataset]:
        return [vc.open_virtual_dataset(path, parser=ToyParser(), **options) for path in self.paths]  # type: ignore[arg-type]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    values = [field("2020-01-01", 4), field("2020-01-05", 4, 1), field("2020-01-09", 2, 2)]
    paths = [write_toy(tmp_path / f"{number}.toy", dataset, CHUNKS) for number, dataset in enumerate(values)]
    return Archive(tmp_path, paths, values)
