"""A NetCDF-4 (HDF5) file with groups, opened virtually and compared with the netCDF library."""

import tempfile
from pathlib import Path

import netCDF4
import numpy as np

import virtualchunks as vc


def write(path: Path) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", None)
        file.createDimension("x", 60)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(24)
        file["time"].units = "hours since 2020-01-01"
        model = file.createGroup("model")
        wind = model.createVariable("wind", "i2", ("time", "x"), zlib=True, shuffle=True, chunksizes=(6, 30))
        wind.scale_factor = 0.5
        wind[:] = np.linspace(0, 40, 24 * 60).reshape(24, 60)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "wind.nc")
        write(path)

        virtual = vc.open_virtual_datatree(path)  # references, no values
        print(virtual["model"]["wind"].variable)

        wind = virtual.virtual.open()["model"]["wind"]  # values are read when they are asked for
        with netCDF4.Dataset(path) as file:
            np.testing.assert_array_equal(wind[7, 10:20], file["model/wind"][7, 10:20])
        print(f"{float(wind[7, 10])} and its neighbours are equal to what the netCDF library reads")


if __name__ == "__main__":
    main()
