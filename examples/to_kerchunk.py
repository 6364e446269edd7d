"""Two NetCDF-4 files become one Kerchunk document, which fsspec, zarr and xarray read without virtualchunks.

Run it in a folder that may be written to: ``python examples/to_kerchunk.py``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import virtualchunks as vc


def write_year(path: Path, year: int) -> None:
    """Write a year of months, one chunk each, so that every chunk of the archive has the same shape."""
    time = pd.date_range(f"{year}-01-01", periods=12, freq="MS")
    lat = np.linspace(-87.5, 87.5, 36)
    sst = 15 + 12 * np.cos(np.deg2rad(lat))[None, :, None] + np.zeros((12, 1, 72)) + 0.02 * (year - 2000)
    fields = xr.Dataset(
        {"sst": (("time", "lat", "lon"), sst.astype("f4"), {"units": "degC"})}, {"time": time, "lat": lat}
    )
    encoding: dict[str, Any] = {
        "sst": {"zlib": True, "complevel": 4, "chunksizes": (1, 36, 72)},
        "time": {"units": "days since 2000-01-01"},
    }
    fields.to_netcdf(path, engine="netcdf4", encoding=encoding)


def main() -> None:
    paths = [Path(f"sst-{year}.nc") for year in (2020, 2021)]
    for path in paths:
        write_year(path, int(path.stem[-4:]))

    cube = vc.open_virtual_mfdataset(paths, combine="nested", concat_dim="time")
    cube.virtual.to_kerchunk("sst.json", format="json")
    cube.virtual.to_kerchunk("sst.parquet", format="parquet")

    expected = xr.concat([xr.load_dataset(path) for path in paths], dim="time", data_vars="minimal")
    with xr.open_dataset("sst.json", engine="kerchunk") as back:
        xr.testing.assert_equal(back.load(), expected)
    print(f"sst.json: {Path('sst.json').stat().st_size} bytes stand for {sum(p.stat().st_size for p in paths)}")
    print("equal to the concatenation of the loaded files")


if __name__ == "__main__":
    main()
