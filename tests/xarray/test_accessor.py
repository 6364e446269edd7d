"""``.virtual``: what it counts, what it opens, and what it may read."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import virtualchunks as vc
from tests.xarray.conftest import CHUNKS, Archive
from tests.xarray.test_virtual_operations import SAFE
from tests.xarray.toyformat import ToyParser, write_toy
from virtualchunks.errors import NotGrantedError, URLError
from virtualchunks.manifest import IN_MEMORY


def cube(archive: Archive, **options: object) -> xr.Dataset:
    return xr.concat(archive.open(**options), "time", **SAFE)


def test_counts(archive: Archive):
    whole = cube(archive)
    arrays = [variable._data for variable in whole.variables.values() if isinstance(variable._data, vc.ManifestArray)]
    assert whole.virtual.nrefs == sum(len(array.manifest) for array in arrays)
    loaded = sum(whole[name].nbytes for name in ("time", "x", "y"))
    assert whole.virtual.nbytes == sum(array.nbytes_virtual for array in arrays) + loaded
    assert whole.vz.nbytes == whole.virtual.nbytes


def test_sources(archive: Archive):
    table = cube(archive).virtual.sources()
    assert table["url"].tolist() == [path.as_uri() for path in archive.paths]
    assert table["size"].tolist() == [path.stat().st_size for path in archive.paths]
    assert table["last_modified"].tolist() == [
        pd.Timestamp(path.stat().st_mtime_ns, tz="UTC") for path in archive.paths
    ]
    assert table["chunks"].sum() == cube(archive).virtual.nrefs
    air = cube(archive)[["air"]].drop_vars("lat").isel(time=slice(4, 8)).virtual.sources()
    assert air["url"].tolist() == [archive.paths[1].as_uri()]
    assert air["chunks"].tolist() == [4 * 4 - 1]
    assert air["bytes"].tolist() == [15 * 2 * 3 * 4]
    assert air["variables"].tolist() == [("air",)]


def test_sources_held_in_memory(archive: Archive):
    held = vc.ManifestArray(
        vc.ArrayMetadata.build(shape=(2,), chunks=(2,), dtype="<i2"), vc.ChunkManifest.of_buffers([b"\1\0\2\0"], (1,))
    )
    dataset = xr.Dataset({"v": ("x", held)})
    assert dataset.virtual.sources()["url"].tolist() == [IN_MEMORY]
    assert dataset.virtual.open()["v"].values.tolist() == [1, 2]


def test_an_empty_dataset():
    assert xr.Dataset().virtual.nrefs == 0
    assert xr.Dataset().virtual.sources().empty
    xr.testing.assert_identical(xr.Dataset().virtual.open(), xr.Dataset())


def test_rename_paths(archive: Archive):
    whole = cube(archive, loadable_variables=[])
    moved = whole.virtual.rename_paths(lambda url: url.replace(archive.folder.as_uri(), "s3://bucket/archive"))
    assert moved.virtual.sources()["url"].tolist() == [f"s3://bucket/archive/{n}.toy" for n in range(3)]
    assert whole.virtual.sources()["url"].tolist() == [path.as_uri() for path in archive.paths]
    with pytest.raises(NotGrantedError, match=r"3 of the 3 objects.*s3://bucket/archive/0\.toy"):
        moved.virtual.open()
    with pytest.raises(URLError):
        whole.virtual.rename_paths("s3://bucket/a?version=1")


def test_trees(archive: Archive):
    tree = xr.DataTree.from_dict(
        {"/": archive.open()[0].drop_vars("rain"), "/wet": archive.open()[0][["rain"]].drop_vars("lat")}
    )
    assert tree.virtual.nrefs == archive.open()[0].virtual.nrefs
    assert tree.virtual.sources()["url"].tolist() == [archive.paths[0].as_uri()]
    assert "wet/rain" in tree.virtual.sources()["variables"][0]
    moved = tree.vz.rename_paths("s3://bucket/a")
    assert moved.virtual.sources()["url"].tolist() == ["s3://bucket/a"]


def test_open_keeps_what_a_dataset_is(archive: Archive):
    whole = cube(archive)
    opened = whole.virtual.open()
    assert opened.attrs == whole.attrs
    assert list(opened.variables) == list(whole.variables)
    assert set(opened.indexes) == {"time", "x", "y"}
    assert opened["rain"].encoding["scale_factor"] == 0.25
    assert opened["time"].encoding == whole["time"].encoding
    assert opened["air"].encoding["coordinates"] == "lat"
    chunked = whole.virtual.open(chunks={"time": 2})
    assert chunked["air"].chunks == ((2, 2, 2, 2, 2), (2, 2), (3, 3))
    assert whole.virtual.open(chunks=-1)["air"].chunks == ((10,), (4,), (6,))
    raw = whole.virtual.open(mask_and_scale=False, decode_times=False)
    assert raw["rain"].dtype == np.dtype("i2")


def test_packing_survives_dropped_attributes(archive: Archive):
    bare = xr.combine_nested([part[["rain"]] for part in archive.open()], "time", combine_attrs="drop", **SAFE)
    assert bare["rain"].attrs == {}
    expected = xr.concat([part[["rain"]] for part in archive.values], "time", **SAFE)
    np.testing.assert_array_equal(bare.virtual.open()["rain"].values, expected["rain"].values)


def test_what_was_opened_by_name_is_granted_again_and_nothing_else(archive: Archive, tmp_path):
    opened = archive.open()[0]
    secret = write_toy(tmp_path / "secret.toy", archive.values[0], CHUNKS)
    pointing = opened.virtual.rename_paths(secret.as_uri())
    with pytest.raises(NotGrantedError, match=r"secret\.toy.*pass registry="):
        pointing.virtual.open()
    granted = {tmp_path.as_uri(): None}
    xr.testing.assert_identical(pointing.virtual.open(granted).load(), archive.values[0])
    with pytest.raises(NotGrantedError):
        pointing.virtual.open()


def test_a_registry_is_remembered_for_what_was_opened_with_it(archive: Archive):
    registry = vc.ObjectStoreRegistry({archive.folder.as_uri(): None})
    first = vc.open_virtual_dataset(archive.paths[0], registry, ToyParser())
    xr.testing.assert_identical(first.virtual.open().load(), archive.values[0])
    beside = first.virtual.rename_paths(archive.paths[1].as_uri())
    with pytest.raises(NotGrantedError):
        beside.virtual.open()
    rest = [vc.open_virtual_dataset(path, {archive.folder.as_uri(): None}, ToyParser()) for path in archive.paths[1:]]
    whole = xr.concat([first, *rest], "time", **SAFE)
    xr.testing.assert_identical(whole.virtual.open().load(), xr.concat(archive.values, "time", **SAFE))


def test_registries_that_differ_are_not_guessed(archive: Archive, tmp_path):
    one = vc.open_virtual_dataset(archive.paths[0], {archive.folder.as_uri(): None}, ToyParser())
    other = vc.open_virtual_dataset(archive.paths[1], {archive.folder.as_uri(): None, "s3://b": None}, ToyParser())
    whole = xr.concat([one, other], "time", **SAFE)
    with pytest.raises(NotGrantedError, match="2 different registries; pass registry="):
        whole.virtual.open()
    assert whole.virtual.open({archive.folder.as_uri(): None})["air"].size


def test_another_package_may_take_the_short_name():
    code = (
        "import warnings; warnings.simplefilter('error');"
        "import xarray as xr; import virtualchunks;"
        "xr.register_dataset_accessor('vz')(lambda ds: 'theirs');"
        "assert xr.Dataset().vz == 'theirs'; assert xr.Dataset().virtual.nbytes == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
