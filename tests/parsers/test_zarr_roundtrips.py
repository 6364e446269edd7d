"""What the project writes, its parsers read back; and what a user names, he can open, load and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import xarray as xr
import zarr
from zarrstores import assert_same, values_of

import virtualchunks as vc
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.writers.icechunk import write_icechunk
from virtualchunks.writers.kerchunk import write_json, write_parquet
from virtualchunks_parsers.icechunk import IcechunkParser
from virtualchunks_parsers.kerchunk import KerchunkParser
from virtualchunks_parsers.zarr import ZarrParser

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata:zarr.errors.ZarrUserWarning")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store as xarray writes it, of both formats' common features."""
    time = np.arange("2000-01-01", "2000-01-13", dtype="M8[D]").astype("M8[ns]")
    data = xr.Dataset(
        {
            "t": (("time", "x"), np.arange(60.0).reshape(12, 5).astype("f4"), {"units": "K"}),
            "mask": ("x", np.array([1, 2, -1, 4, 5], "i2")),
        },
        coords={"time": time, "x": np.arange(5.0), "label": ("x", list("abcde"))},
        attrs={"title": "t"},
    )
    path = tmp_path / "data.zarr"
    encoding = {"t": {"chunks": (4, 5), "_FillValue": -999.0}, "mask": {"_FillValue": -1}}
    data.to_zarr(path, encoding=encoding, zarr_format=2, consolidated=True)
    return path


def registry_of(folder: Path) -> ObjectStoreRegistry:
    return ObjectStoreRegistry({folder.as_uri(): None})


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_kerchunk_json_comes_back(zarr_format: Any, store: Path, tmp_path: Path) -> None:
    group = ZarrParser(strict=True)(str(store)).group
    write_json(group, tmp_path / "refs.json", zarr_format=zarr_format)
    again = KerchunkParser(strict=True)(str(tmp_path / "refs.json"), registry_of(tmp_path))
    assert_same(values_of(again), values_of(ZarrParser()(str(store))))
    for path, array in group.walk_arrays():
        found = again.group[path]
        assert found.metadata.dimension_names == array.metadata.dimension_names  # type: ignore[union-attr]
        assert found.metadata.encoding == array.metadata.encoding  # type: ignore[union-attr]
        assert found.manifest.dict() == array.manifest.dict()  # type: ignore[union-attr]


def test_kerchunk_parquet_comes_back(store: Path, tmp_path: Path) -> None:
    group = ZarrParser(strict=True)(str(store)).group
    write_parquet(group, tmp_path / "refs.parq", record_size=2)
    again = KerchunkParser(strict=True)(str(tmp_path / "refs.parq"), registry_of(tmp_path))
    assert_same(values_of(again), values_of(ZarrParser()(str(store))))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_packed_kerchunk_json_comes_back(compression: Any, store: Path, tmp_path: Path) -> None:
    group = ZarrParser(strict=True)(str(store)).group
    write_json(group, tmp_path / "refs", compression=compression)
    again = KerchunkParser(strict=True)(str(tmp_path / "refs"), registry_of(tmp_path))
    assert_same(values_of(again), values_of(ZarrParser()(str(store))))


def test_icechunk_comes_back(store: Path, tmp_path: Path) -> None:
    group = ZarrParser(strict=True)(str(store)).group
    config = icechunk.RepositoryConfig.default()
    prefix = store.as_uri() + "/"
    files = icechunk.local_filesystem_store(str(store))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, files))
    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")), config)
    session = repo.writable_session("main")
    write_icechunk(group, session.store)
    session.commit("first")
    again = IcechunkParser(strict=True)(str(tmp_path / "repo"), registry_of(tmp_path))
    assert_same(values_of(again), values_of(ZarrParser()(str(store))))
    for path, array in group.walk_arrays():
        found = again.group[path]
        assert found.metadata.dimension_names == array.metadata.dimension_names  # type: ignore[union-attr]
        assert found.manifest.dict() == array.manifest.dict()  # type: ignore[union-attr]


def test_a_store_that_is_named_opens_loads_and_reads(store: Path) -> None:
    with xr.open_zarr(store, chunks=None) as expected:
        virtual = vc.open_virtual_dataset(str(store), parser=ZarrParser())
        assert isinstance(virtual["t"].data, vc.ManifestArray)
        assert virtual["time"].dtype.kind == "M"
        xr.testing.assert_identical(virtual.virtual.open().load(), expected.load())


def test_shards_open_through_xarray(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    root = zarr.open_group(str(path), mode="w")
    array = root.create_array("a", shape=(8, 6), chunks=(2, 3), shards=(4, 6), dtype="<i4", dimension_names=["y", "x"])
    array[...] = np.arange(48).reshape(8, 6)
    virtual = vc.open_virtual_dataset(str(path), parser=ZarrParser())
    part = virtual.isel(y=slice(2, 6))
    np.testing.assert_array_equal(part.virtual.open()["a"].values, np.arange(48).reshape(8, 6)[2:6])


def test_several_stores_that_are_named_open_as_one(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        data = xr.Dataset({"t": (("time", "x"), np.full((2, 3), number))}, {"time": [2 * number, 2 * number + 1]})
        paths.append(str(tmp_path / f"{number}.zarr"))
        data.to_zarr(paths[-1], zarr_format=2)
    cube = vc.open_virtual_mfdataset(paths, parser=ZarrParser(), combine="nested", concat_dim="time")
    expected = xr.concat([xr.open_zarr(path, chunks=None) for path in paths], "time")
    xr.testing.assert_equal(cube.virtual.open().load(), expected.load())


def test_the_engine_opens_a_store(store: Path) -> None:
    with xr.open_dataset(str(store), engine="virtualchunks", parser=ZarrParser()) as found:
        xr.testing.assert_identical(found.load(), xr.open_zarr(store, chunks=None).load())
