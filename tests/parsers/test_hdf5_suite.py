from __future__ import annotations

import h5py
import netCDF4
import numpy as np
from hdf5oracle import datasets

from virtualchunks.testing.parsers import ParserTests
from virtualchunks_parsers.hdf5 import HDF5Parser


class TestHDF5Parser(ParserTests):
    parser = HDF5Parser()
    damage_within = 2048

    def make_files(self, folder):
        chance = np.random.default_rng(7)
        made = {
            name: folder / f"{name}.{suffix}" for name, suffix in (("plain", "h5"), ("latest", "h5"), ("netcdf", "nc"))
        }
        for name in ("plain", "latest"):
            with h5py.File(made[name], "w", libver="latest" if name == "latest" else "earliest") as file:
                file["contiguous"] = chance.random((5, 6))
                file.create_dataset(
                    "packed",
                    data=np.arange(500, dtype=">i4").reshape(25, 20),
                    chunks=(7, 20),
                    compression=4,
                    shuffle=True,
                )
                file.create_dataset("unwritten", shape=(4, 4), chunks=(2, 2), dtype="i2", fillvalue=-9)
                file["group/text"] = np.array([b"one", b"three"])
                file["group/text"].attrs["units"] = "1"
        with netCDF4.Dataset(made["netcdf"], "w") as file:
            file.createDimension("time", None)
            file.createDimension("x", 4)
            file.createVariable("time", "f8", ("time",))[:] = np.arange(6)
            wind = file.createVariable("wind", "f4", ("time", "x"), zlib=True, chunksizes=(4, 4), fill_value=-1.0)
            wind[:] = chance.random((6, 4))
            wind.units = "m s-1"
        return made

    def reference(self, path):
        with h5py.File(path, "r", locking=False) as file:
            return {
                name.removeprefix("/"): values
                for name, dataset in datasets(file).items()
                if (values := readable(dataset)) is not None and not is_hidden(dataset)
            }


def readable(dataset):
    """The values, or None where h5py cannot read them, as in a damaged file."""
    try:
        return dataset[...].astype(dataset.dtype.newbyteorder("="))
    except (OSError, RuntimeError, ValueError, TypeError, KeyError):
        return None


def is_hidden(dataset):
    return b"This is a netCDF dimension but not" in dataset.attrs.get("NAME", b"")
