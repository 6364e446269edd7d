"""Code written for VirtualiZarr, as its documentation shows it, with nothing changed but the imports."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from obspec_utils.registry import ObjectStoreRegistry as ObspecRegistry
from obstore.store import LocalStore, MemoryStore
from zarr.core.metadata.v3 import ArrayV3Metadata

from virtualchunks import (
    ChunkManifest,
    ManifestArray,
    ManifestGroup,
    ManifestStore,
    ObjectStoreRegistry,
    open_virtual_dataset,
    open_virtual_datatree,
    open_virtual_mfdataset,
)
from virtualchunks.errors import FormatError

pytest.importorskip("h5py")
from virtualchunks_parsers.hdf5 import HDFParser

DOCUMENT: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": (4, 2),
    "data_type": "int32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": (2, 2)}},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": 0,
    "codecs": ({"name": "bytes", "configuration": {"endian": "little"}},),
    "attributes": {"units": "K"},
    "dimension_names": ("time", "x"),
}
ENTRIES = {
    "0.0": {"path": "memory:///a.bin", "offset": 0, "length": 16},
    "1.0": {"path": "memory:///a.bin", "offset": 16, "length": 16},
}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    urls = []
    for month, days in enumerate((31, 28, 31)):
        time = xr.date_range(f"2021-{month + 1:02}-01", periods=days)
        made = xr.Dataset(
            {"air": (("time", "x"), np.arange(days * 2.0).reshape(days, 2) + month), "mask": ("x", [1, 2])},
            {"time": time, "x": [1.0, 2.0]},
            {"title": f"month {month}"},
        )
        made.to_netcdf(
            tmp_path / f"{month}.nc", engine="h5netcdf", encoding={"time": {"units": "days since 2020-01-01"}}
        )
        urls.append((tmp_path / f"{month}.nc").as_uri())
    return urls


@pytest.fixture(params=[ObjectStoreRegistry, ObspecRegistry], ids=["ours", "obspec-utils"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return request.param({tmp_path.as_uri(): LocalStore(str(tmp_path))})


def test_opening(files, registry):
    vds = open_virtual_dataset(url=files[0], registry=registry, parser=HDFParser())
    assert isinstance(vds["air"].data, ManifestArray)
    assert list(vds["air"].data.manifest.dict()) == ["0.0"]
    assert vds["air"].data.manifest.dict()["0.0"].keys() == {"path", "offset", "length"}
    assert not isinstance(vds["time"].variable._data, ManifestArray)
    positional = open_virtual_dataset(files[0], registry, HDFParser(), ["mask"], ["time"], False)
    assert set(positional.variables) == {"air", "time", "x"}
    assert positional["time"].dtype == np.int64
    with open_virtual_dataset(
        url=files[0],
        registry=registry,
        parser=HDFParser(group=None, drop_variables=["x"]),
        loadable_variables=["air"],
        decode_times=True,
        drop_variables=["mask"],
    ) as vds:
        assert vds["air"].values[0].tolist() == [0, 1]
        assert isinstance(vds["time"].variable._data, ManifestArray)


class CountingExecutor(ThreadPoolExecutor):
    """An executor of somebody else's."""


@pytest.mark.parametrize("parallel", [False, "dask", ThreadPoolExecutor, CountingExecutor])
def test_opening_many(files, registry, parallel: Any):
    if parallel == "dask":
        pytest.importorskip("dask")
    vds = open_virtual_mfdataset(
        files, registry=registry, parser=HDFParser(), combine="nested", concat_dim="time", coords="minimal",
        data_vars="minimal", compat="override", join="override", combine_attrs="override", parallel=parallel,
        preprocess=lambda part: part.drop_vars("mask"), loadable_variables=["time"], decode_times=True,
    )  # fmt: skip
    assert vds["air"].shape == (90, 2)
    assert vds["air"].data.manifest.shape_chunk_grid == (3, 1)
    assert issubclass(ThreadPoolExecutor, Executor)


def test_combining(files, registry):
    parts = [open_virtual_dataset(url, registry=registry, parser=HDFParser()) for url in files]
    one = xr.concat(
        parts, dim="time", data_vars="minimal", coords="minimal", compat="override", combine_attrs="override"
    )
    two = xr.combine_nested(parts, concat_dim="time", data_vars="minimal", coords="minimal", compat="override")
    three = xr.combine_by_coords(parts, data_vars="minimal", coords="minimal", compat="override", combine_attrs="drop")
    for vds in (two, three):
        assert vds["air"].data.manifest == one["air"].data.manifest


@pytest.mark.parametrize("name", ["vz", "virtualize", "virtual"])
def test_the_accessor(files, registry, tmp_path, name):
    vds = open_virtual_dataset(files[0], registry=registry, parser=HDFParser(), loadable_variables=[])
    accessor = getattr(vds, name)
    assert accessor.nrefs == 4
    assert 0 < accessor.nbytes < 1000
    assert accessor.to_kerchunk(format="dict")["version"] == 1
    accessor.to_kerchunk(str(tmp_path / "refs.json"), format="json")
    accessor.to_kerchunk(tmp_path / "refs.parquet", format="parquet", record_size=10, categorical_threshold=10)
    renamed = accessor.rename_paths(lambda old: old.replace("file://", "s3://bucket"))
    assert renamed["air"].data.manifest.dict()["0.0"]["path"].startswith("s3://bucket/")
    assert getattr(accessor.rename_paths("s3://bucket/new.nc"), name).nrefs == 4
    tree = open_virtual_datatree(files[0], registry=registry, parser=HDFParser(), loadable_variables=[])
    assert hasattr(getattr(tree, name), "to_icechunk")


@pytest.mark.parametrize("name", ["vz", "virtualize"])
def test_icechunk(files, registry, tmp_path, name):
    icechunk = pytest.importorskip("icechunk")
    config = icechunk.RepositoryConfig.default()
    prefix = tmp_path.as_uri() + "/"
    container = icechunk.VirtualChunkContainer(prefix, icechunk.local_filesystem_store(str(tmp_path)))
    config.set_virtual_chunk_container(container)
    granted = {prefix: icechunk.Credentials.LocalFileSystemAccess()}
    repo = icechunk.Repository.create(icechunk.in_memory_storage(), config, authorize_virtual_chunk_access=granted)
    session = repo.writable_session("main")
    vds = open_virtual_dataset(files[0], registry=registry, parser=HDFParser())
    getattr(vds, name).to_icechunk(session.store)
    session.commit("first")
    with zarr.config.set({"array.rectilinear_chunks": True}):
        for url in files[1:]:
            session = repo.writable_session("main")
            vds = open_virtual_dataset(url, registry=registry, parser=HDFParser())
            getattr(vds, name).to_icechunk(session.store, append_dim="time")
            session.commit("next")
        read = xr.open_zarr(repo.readonly_session("main").store, consolidated=False, zarr_format=3, chunks=None)
        with xr.open_mfdataset(
            files, engine="h5netcdf", data_vars="minimal", coords="minimal", compat="override"
        ) as expected:
            np.testing.assert_array_equal(read["air"].values, expected["air"].values)


@pytest.mark.parametrize("metadata", [DOCUMENT, ArrayV3Metadata.from_dict(DOCUMENT)], ids=["dict", "zarr"])
@pytest.mark.parametrize("manifest", [ENTRIES, ChunkManifest(entries=ENTRIES)], ids=["dict", "manifest"])
def test_building_by_hand(metadata, manifest):
    marr = ManifestArray(metadata=metadata, chunkmanifest=manifest)
    group = ManifestGroup(
        arrays={"air": marr}, groups={"sub": ManifestGroup(arrays={"air": marr})}, attributes={"a": 1}
    )
    store = MemoryStore()
    values = np.arange(8, dtype="<i4").reshape(4, 2)
    store.put("a.bin", values.tobytes())
    for registry in (ObjectStoreRegistry({"memory://": store}), ObspecRegistry({"memory://": store})):
        served = ManifestStore(group, registry=registry)
        np.testing.assert_array_equal(zarr.open_group(served, mode="r")["air"][:], values)
        vds = served.to_virtual_dataset(group="sub", loadable_variables=["air"])
        np.testing.assert_array_equal(vds["air"].values, values)
        assert isinstance(served.to_virtual_dataset("", [], None)["air"].data, ManifestArray)
        assert set(served.to_virtual_datatree(loadable_variables=[]).children) == {"sub"}
        with pytest.raises(FormatError, match=r"no group 'other'.*sub"):
            served.to_virtual_dataset(group="other")
    assert (marr.shape, marr.dtype, marr.ndim, marr.size) == ((4, 2), np.dtype("i4"), 2, 8)
    assert marr.nbytes_virtual == marr.manifest.nbytes
    assert served.nbytes_virtual == group.nbytes_virtual
    assert marr.metadata.shape == (4, 2)
    assert marr.to_virtual_variable().dims == ("time", "x")
    assert marr.to_virtual_variable().attrs == {"units": "K"}
    assert list(group.to_virtual_datasets()) == ["", "sub"]
    assert isinstance(group.to_virtual_dataset()["air"].data, ManifestArray)
    assert marr.rename_paths("s3://b/c").manifest.dict()["0.0"]["path"] == "s3://b/c"
    assert not marr.with_fill_value_only(7).manifest.dict()


def test_manifests():
    manifest = ChunkManifest(entries=ENTRIES, shape=(2, 1))
    assert manifest.dict() == ENTRIES
    assert (manifest.shape_chunk_grid, manifest.ndim_chunk_grid, len(manifest)) == ((2, 1), 2, 2)
    assert list(manifest.keys()) == list(ENTRIES)
    assert list(manifest.values()) == list(ENTRIES.values())
    assert dict(manifest.items()) == ENTRIES
    assert manifest.get_entry((1, 0)) == ENTRIES["1.0"]
    assert [index for index, _ in manifest.iter_refs()] == [(0, 0), (1, 0)]
    assert set(manifest.iter_nonempty_paths()) == {"memory:///a.bin"}
    assert manifest == ChunkManifest.from_arrays(
        paths=np.array([["memory:///a.bin"], ["memory:///a.bin"]], dtype=np.dtypes.StringDType()),
        offsets=np.array([[0], [16]], dtype="u8"),
        lengths=np.array([[16], [16]], dtype="u8"),
        validate_paths=True,
        inlined=None,
    )
    assert manifest.elementwise_eq(manifest).all()
    assert ChunkManifest({}, shape=(2, 2)).shape_chunk_grid == (2, 2)
    assert ChunkManifest({"0/0": ENTRIES["0.0"]}, separator="/").shape_chunk_grid == (1, 1)
