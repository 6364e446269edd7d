"""Archives drawn at random, written with one encoding for each array: read back, the values are those combined."""

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from driftingarchives import draw_archive, write_file

import virtualchunks as vc
from tests.xarray.test_packed_archives import assert_same_bits
from virtualchunks.errors import UnsupportedFeatureError, VirtualChunksError

pytest.importorskip("icechunk")
from icechunkrepos import opened, repository

pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),
    pytest.mark.filterwarnings("ignore:variable:xarray.SerializationWarning"),
]

#: The archives are drawn in so many tests, so that workers share them.
PARTS = 4
EACH = 7
JOIN: dict[str, Any] = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "exact"}


def by_icechunk(cube: xr.Dataset, folder: Path, heterogeneous: str) -> xr.Dataset:
    repo = repository(folder)
    session = repo.writable_session("main")
    try:
        cube.virtual.to_icechunk(session.store, heterogeneous=heterogeneous)
    except VirtualChunksError:
        assert not session.has_uncommitted_changes
        raise
    session.commit("references")
    groups = sorted(zarr.open_group(session.store, mode="r").group_keys())
    if not groups:
        return opened(repo)
    return xr.concat([opened(repo, group=name) for name in groups], "time", **JOIN)


def by_kerchunk(cube: xr.Dataset, folder: Path, heterogeneous: str) -> xr.Dataset:
    refs = cube.virtual.to_kerchunk(heterogeneous=heterogeneous)
    groups = sorted(key.removesuffix("/.zgroup") for key in refs["refs"] if key.endswith("/.zgroup"))
    parts = [
        xr.open_dataset("reference://", engine="zarr", backend_kwargs={"storage_options": {"fo": refs}}, group=group,
                        consolidated=False, zarr_format=2).load()
        for group in groups or [None]
    ]  # fmt: skip
    return xr.concat(parts, "time", **JOIN) if groups else parts[0]


WAYS = [(by_icechunk, "materialise"), (by_icechunk, "split"), (by_kerchunk, "materialise"), (by_kerchunk, "split")]


def compared(cube: xr.Dataset, folder: Path, name: str, *, rounded: bool) -> list[str]:
    """Write one variable in every way; return what became of it, and raise where a value did not survive."""
    expected = cube[[name]].virtual.open().load()
    results = []
    for write, heterogeneous in WAYS:
        try:
            found = write(cube[[name]], folder, heterogeneous)
        except UnsupportedFeatureError as error:
            results.append(f"refused {error.variable}")
            continue
        if rounded:  # Zarr's metadata, which is JSON, keeps numbers but not their dtypes
            np.testing.assert_allclose(found[name].values, expected[name].values, rtol=1e-6)
        else:
            assert_same_bits(found.astype(expected[name].dtype), expected, [name])
        results.append("equal")
    return results


@pytest.mark.parametrize("part", range(PARTS))
def test_what_is_written_is_what_was_combined(part, tmp_path):
    results = []
    for seed in range(part * EACH, (part + 1) * EACH):
        folder = tmp_path / str(seed)
        folder.mkdir()
        files = draw_archive(random.Random(seed))
        rounded = any(isinstance(value, np.float32) for file in files for value in file.attributes.values())
        paths = [write_file(folder / f"{file.number}.nc", file) for file in files]
        with warnings.catch_warnings(), zarr.config.set({"array.rectilinear_chunks": True}):
            warnings.simplefilter("ignore", xr.SerializationWarning)
            try:
                cube = vc.open_virtual_mfdataset(paths, combine="nested", concat_dim="time")
            except VirtualChunksError:
                continue
            try:
                results += compared(cube, folder, "v" if "v" in cube else "w", rounded=rounded)
            except BaseException as error:
                error.add_note(f"the archive drawn with the seed {seed}: {files}")
                raise
    assert {result for result in results if result != "equal"} <= {"refused v", "refused w"}
    assert results.count("equal") >= 0.5 * len(results)
