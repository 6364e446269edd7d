"""A NetCDF-3 file with records, opened virtually and compared with the netCDF library."""

import tempfile
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import xarray as xr

import virtualchunks as vc


def write(path: Path) -> None:
    time = pd.date_range("2020-01-01", periods=5)
    fields = np.random.default_rng(0).normal(280, 5, (5, 10, 20)).astype("f4")
    dataset = xr.Dataset({"t": (("time", "y", "x"), fields), "n": ("time", np.arange(5, dtype="i4"))}, {"time": time})
    dataset.to_netcdf(path, engine="netcdf4", format="NETCDF3_64BIT", unlimited_dims=["time"])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.nc")
        write(path)

        virtual = vc.open_virtual_dataset(path)
        print(virtual["t"].data, virtual.encoding["unlimited_dims"])  # records are interleaved, so each is a chunk

        t = virtual.virtual.open()["t"].sel(time="2020-01-04")
        with netCDF4.Dataset(path) as file:
            np.testing.assert_array_equal(t, file["t"][3])
        print(f"a mean of {float(t.mean()):.2f} K, from values equal to what the netCDF library reads")


if __name__ == "__main__":
    main()
