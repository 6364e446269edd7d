"""One huge uncompressed chunk is cut into small ones, without touching the file.

The bytes of an uncompressed array lie one after another, so any run of them along its slowest axis is a chunk too.
Reading one day then costs the bytes of one day.

Run it in a folder that may be written to: ``python examples/subchunk.py``.
"""

import numpy as np
import xarray as xr

import virtualchunks as vc


def main() -> None:
    field = np.random.default_rng(0).normal(280, 10, (365, 20, 40)).astype("f4")
    year = xr.Dataset({"air": (("time", "lat", "lon"), field, {"units": "K"})})
    year.to_netcdf("year.nc", engine="netcdf4", encoding={"air": {"contiguous": True, "_FillValue": None}})

    whole = vc.open_virtual_dataset("year.nc")
    print("as stored:", whole["air"].data.metadata.grid.grid_shape, "chunks")

    daily = whole.assign(air=whole["air"].copy(data=whole["air"].data.subchunk({0: 1})))
    print("cut:      ", daily["air"].data.metadata.grid.grid_shape, "chunks")

    june = daily.isel(time=slice(151, 181))
    np.testing.assert_array_equal(june.virtual.open()["air"].to_numpy(), field[151:181])
    print("30 days equal to the same days of the array that was written")


if __name__ == "__main__":
    main()
