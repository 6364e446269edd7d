"""A daily archive whose packing, compression, chunks and length change from year to year, as one cube.

Sea surface temperature is kept as small integers, whose scale factor changed in 2021; 2022 was written in other chunks
and without compression, and begins with the last days of 2021 once more. Leap years have a day more. Nothing of this
needs to be told, apart from which file has the say where two overlap.

Run it in a folder that may be written to: ``python examples/drifting_archive.py``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import virtualchunks as vc

PACKED = {"dtype": "i2", "add_offset": 20.0, "_FillValue": np.int16(-32768)}
YEARS: dict[str, tuple[str, dict[str, Any]]] = {
    "2020": ("2020-01-01", {"scale_factor": 0.01, "zlib": True, "complevel": 1, "chunksizes": (61, 8, 16)}),
    "2021": ("2021-01-01", {"scale_factor": 0.002, "zlib": True, "complevel": 9, "chunksizes": (61, 8, 16)}),
    "2022": ("2021-12-29", {"scale_factor": 0.002, "chunksizes": (30, 4, 8)}),
}


def write_archive(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    paths = []
    for year, (start, encoding) in YEARS.items():
        time = pd.date_range(start, f"{year}-12-31")
        sst = (20 + 5 * random.standard_normal((len(time), 8, 16))).astype("f4")
        sst[:, 3, 3:5] = np.nan
        made = xr.Dataset({"sst": (("time", "lat", "lon"), sst, {"units": "degC"})}, {"time": time})
        paths.append(folder / f"{year}.nc")
        made.to_netcdf(paths[-1], engine="h5netcdf", encoding={"sst": PACKED | encoding})
    return paths


def main() -> None:
    paths = write_archive(Path("archive"))
    cube = vc.open_virtual_mfdataset(paths, overlap="first")
    array = cube["sst"].data
    print(f"{cube.sizes['time']} days of {array.dtype}, in {len(array.manifest)} chunks of {len(paths)} files")

    years = []
    for number, path in enumerate(paths):
        with xr.open_dataset(path, engine="h5netcdf") as year:
            years.append(year.load() if number < 2 else year.sel(time=slice("2022-01-01", None)).load())
    expected = xr.concat(years, "time", data_vars="minimal", coords="minimal", compat="override", join="exact")
    xr.testing.assert_equal(cube.virtual.open().load(), expected)
    print("the values are equal to those of the files, bit for bit")


if __name__ == "__main__":
    main()
