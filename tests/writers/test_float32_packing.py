"""Packing with numbers of float32, whose dtype JSON does not keep: what becomes of it is what xarray makes of it."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import virtualchunks as vc

pytest.importorskip("icechunk")
pytest.importorskip("kerchunk")
from icechunkrepos import commit, opened, repository

pytestmark = [
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),
]
PACKING = {"scale_factor": np.float32(0.1), "add_offset": np.float32(273.15), "_FillValue": np.int16(-1)}


def write(folder: Path, number: int) -> Path:
    path = folder / f"{number}.nc"
    with h5py.File(path, "w") as file:
        variable = file.create_dataset("v", data=np.arange(-1, 39, dtype="i2") + number, chunks=(20,))
        variable.attrs.update(PACKING)
        file["x"] = np.arange(40 * number, 40 * number + 40)
        file["x"].make_scale("x")
        variable.dims[0].attach_scale(file["x"])
    return path


@pytest.fixture
def by_xarray(tmp_path):
    """The files, through xarray's own writer of Zarr."""
    paths = [write(tmp_path, number) for number in range(2)]
    with xr.open_mfdataset(paths, engine="h5netcdf") as dataset:
        assert dataset["v"].dtype == np.float32
        dataset.load().drop_encoding().to_zarr(tmp_path / "x.zarr", encoding={"v": {**PACKING, "dtype": "i2"}})
    with xr.open_zarr(tmp_path / "x.zarr", chunks=None) as written:
        assert written["v"].dtype == np.float64
        return paths, written.load()


def kerchunk(paths: list[Path], folder: Path) -> xr.Dataset:
    vc.open_virtual_mfdataset(paths).virtual.to_kerchunk(folder / "refs.json", format="json")
    return xr.open_dataset(str(folder / "refs.json"), engine="kerchunk").load()


def appended(paths: list[Path], folder: Path) -> xr.Dataset:
    for path in paths:
        options: Any = {"append_dim": "x"} if (folder / "refs.parquet").exists() else {}
        vc.open_virtual_dataset(path).virtual.to_kerchunk(folder / "refs.parquet", format="parquet", **options)
    options = {"remote_protocol": "file"}
    return xr.open_dataset(str(folder / "refs.parquet"), engine="kerchunk", storage_options=options).load()


def ours(paths: list[Path], folder: Path) -> xr.Dataset:
    kerchunk(paths, folder)
    return vc.open_virtual_dataset(folder / "refs.json").virtual.open({"file:///": None}).load()


def icechunk(paths: list[Path], folder: Path) -> xr.Dataset:
    repo = repository(folder)
    commit(repo, vc.open_virtual_dataset(paths[0]))
    commit(repo, vc.open_virtual_dataset(paths[1]), append_dim="x")
    return opened(repo)


WAYS = {"kerchunk": kerchunk, "appended": appended, "ours": ours, "icechunk": icechunk}


@pytest.mark.parametrize("way", WAYS)
def test_values_are_those_that_xarrays_own_store_gives(tmp_path, by_xarray, way):
    paths, expected = by_xarray
    found = WAYS[way](paths, tmp_path)
    assert found["v"].dtype == expected["v"].dtype
    assert found["v"].values.tobytes() == expected["v"].values.tobytes()


def test_tables_keep_the_dtype(tmp_path):
    cube = vc.open_virtual_mfdataset([write(tmp_path, number) for number in range(2)])
    again = vc.ManifestGroup.from_arrow(cube.virtual.to_arrow())
    assert again.arrays["v"].lifted().dtype == cube["v"].dtype == np.float32
