"""Months of 31, 29 and 31 days become one cube with a rectilinear chunk grid, kept in an Icechunk repository.

Each file stores its month as one chunk, so the chunks of the cube have different lengths. Zarr calls such a grid
rectilinear; reading it with plain zarr or xarray needs zarr's flag ``array.rectilinear_chunks``.

Run it in a folder that may be written to: ``python examples/monthly_files.py``.
"""

from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import xarray as xr
import zarr

import virtualchunks as vc

JOIN: dict[str, Any] = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "exact"}


def write_archive(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    paths = []
    for start in pd.date_range("2020-01-01", periods=3, freq="MS"):
        time = pd.date_range(start, periods=start.days_in_month)
        rain = random.gamma(0.5, 4.0, (len(time), 8, 16)).astype("f4")
        month = xr.Dataset({"rain": (("time", "lat", "lon"), rain, {"units": "mm/day"})}, {"time": time})
        paths.append(folder / f"{start:%Y-%m}.nc")
        encoding = {"rain": {"zlib": True, "shuffle": True, "chunksizes": rain.shape}}
        month.to_netcdf(paths[-1], engine="netcdf4", encoding=encoding)
    return paths


def new_repository(path: str, archive: Path) -> icechunk.Repository:
    """Create a repository whose references may lead into one folder and nowhere else."""
    prefix = f"{archive.resolve().as_uri()}/"
    config = icechunk.RepositoryConfig.default()
    store = icechunk.local_filesystem_store(str(archive.resolve()))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, store))
    return icechunk.Repository.create(
        icechunk.local_filesystem_storage(path),
        config,
        authorize_virtual_chunk_access={prefix: icechunk.Credentials.LocalFileSystemAccess()},
    )


def main() -> None:
    icechunk.set_logs_filter("error")  # a repository in a local folder is fine for one writer, as here
    paths = write_archive(Path("monthly"))

    months = [vc.open_virtual_dataset(path) for path in paths]
    cube = xr.concat(months, dim="time", **JOIN)
    print(cube)

    repository = new_repository("monthly.icechunk", Path("monthly"))
    session = repository.writable_session("main")
    cube.virtual.to_icechunk(session.store)
    session.commit("January to March 2020")

    with zarr.config.set({"array.rectilinear_chunks": True}):
        reader = repository.readonly_session("main").store
        back = xr.open_zarr(reader, zarr_format=3, consolidated=False, chunks=None).load()
    print("chunks along time:", back["rain"].encoding["chunks"][0])

    xr.testing.assert_equal(back, xr.concat([xr.load_dataset(path) for path in paths], dim="time", **JOIN))
    print("equal to the concatenation of the loaded files")


if __name__ == "__main__":
    main()
