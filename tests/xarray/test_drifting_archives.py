"""Archives drawn at random: the values of ``xr.open_mfdataset``, bit for bit, or one error that names the place."""

import random
import shutil
import warnings
from pathlib import Path

import pytest
import xarray as xr
import zarr
from driftingarchives import Stored, draw_archive, write_file
from hypothesis import settings

import virtualchunks as vc
from tests.xarray.test_packed_archives import READ, SAFE, assert_same_bits, by_xarray
from virtualchunks.errors import VirtualChunksError

#: The archives are drawn in so many tests, so that workers share them.
PARTS = 8
#: 1,000 archives in all; 10,000 in the profile ``fuzz``.
EACH = max(settings().max_examples, 1_000) // PARTS
OPTIONS = {"combine": "nested", "concat_dim": "time"}


def combined_by_xarray(paths: list[Path]) -> xr.Dataset:
    """What ``xr.open_mfdataset`` makes of the files, in a third of the time: without dask."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = []
        for path in paths:
            with xr.open_dataset(path, engine="h5netcdf", cache=False) as dataset:
                opened.append(dataset.load())
        return xr.combine_nested(opened, "time", **SAFE)


def compared(files: list[Stored], folder: Path) -> str:
    """Combine an archive in both ways; return ``"equal"`` or ``"refused"``, and raise for anything else."""
    paths = [write_file(folder / f"{file.number}.nc", file) for file in files]
    expected = combined_by_xarray(paths)
    names = [name for name in ("v", "w") if name in expected]
    refusal: VirtualChunksError | None = None
    try:
        with warnings.catch_warnings(), zarr.config.set({"array.rectilinear_chunks": True}):
            warnings.simplefilter("ignore", xr.SerializationWarning)
            cube = vc.open_virtual_mfdataset(paths, **OPTIONS)
            for read in (READ["open"], READ["engine"])[: 2 if len(files) == 3 else 1]:
                assert_same_bits(read(cube), expected, names)
    except VirtualChunksError as error:
        refusal = error
    if refusal is None:
        return "equal"
    assert refusal.variable in names
    assert refusal.url in [path.as_uri() for path in paths]
    return "refused"


@pytest.mark.hypothesis
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_archives_read_as_xarray_reads_their_files(part, tmp_path):
    results = []
    for seed in range(part * EACH, (part + 1) * EACH):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            results.append(compared(draw_archive(random.Random(seed)), folder))
        except BaseException as error:
            error.add_note(f"the archive drawn with the seed {seed}")
            raise
        shutil.rmtree(folder)
    assert results.count("equal") >= 0.95 * len(results)


@pytest.mark.parametrize("seed", range(5))
def test_combining_without_dask_is_combining(seed, tmp_path):
    paths = [write_file(tmp_path / f"{file.number}.nc", file) for file in draw_archive(random.Random(seed))]
    xr.testing.assert_identical(combined_by_xarray(paths), by_xarray(paths, **OPTIONS))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_drawn_differs(seed):
    files = draw_archive(random.Random(seed))
    assert 2 <= len(files) <= 6
