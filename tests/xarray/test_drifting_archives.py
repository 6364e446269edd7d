"""Archives drawn at random: the values of ``xr.open_mfdataset``, bit for bit, or one error that names the place."""

import random
import shutil
import warnings
from pathlib import Path

import h5py
import pytest
import xarray as xr
import zarr
from driftingarchives import Stored, draw_archive, write_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import virtualchunks as vc
from tests.xarray.test_packed_archives import READ, SAFE, assert_same_bits, by_xarray
from virtualchunks.errors import RoundingWarning, VirtualChunksError

#: 1,000 archives in all; 10,000 in the profile ``archives``; in tests of 125 each, so that workers share them.
COUNT = max(settings().max_examples, 1_000)
EACH = 125
#: Of so many archives, the first is read by ``xr.open_dataset``, too.
OPENED = 10
#: Attributes by which HDF5 keeps dimensions.
OF_HDF5 = frozenset({"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"})
OPTIONS = {"combine": "nested", "concat_dim": "time"}


def stored(path: Path) -> xr.Dataset:
    """What one file stores: what a backend hands to xarray, in a tenth of the time that h5netcdf takes."""
    with h5py.File(path) as file:
        return xr.Dataset({name: _stored(file[name]) for name in file})


def _stored(variable: h5py.Dataset) -> xr.Variable:
    name = variable.name.removeprefix("/")
    dimensions = [name] if variable.is_scale else [axis[0].name.removeprefix("/") for axis in variable.dims]
    attributes = {key: value for key, value in variable.attrs.items() if key not in OF_HDF5}
    return xr.Variable(dimensions, variable[...], attributes)


def combined_by_xarray(paths: list[Path]) -> xr.Dataset:
    """What ``xr.open_mfdataset`` makes of the files, in a tenth of the time: without a backend, and without dask."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xr.combine_nested([xr.decode_cf(stored(path)).load() for path in paths], "time", **SAFE)


def opened_by_xarray(paths: list[Path]) -> xr.Dataset:
    """What ``xr.open_mfdataset`` makes of the files, in a third of the time: without dask."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = []
        for path in paths:
            with xr.open_dataset(path, engine="h5netcdf", cache=False) as dataset:
                opened.append(dataset.load())
        return xr.combine_nested(opened, "time", **SAFE)


def compared(files: list[Stored], folder: Path, *, opening: bool = False) -> str:
    """Combine an archive in both ways; return ``"equal"`` or ``"refused"``, and raise for anything else.

    With `opening`, what is expected is checked against ``xr.open_dataset`` first.
    """
    paths = [write_file(folder / f"{file.number}.nc", file) for file in files]
    expected = combined_by_xarray(paths)
    if opening:
        xr.testing.assert_identical(expected, opened_by_xarray(paths))
    names = [name for name in ("v", "w") if name in expected]
    refusal: VirtualChunksError | None = None
    try:
        with warnings.catch_warnings(), zarr.config.set({"array.rectilinear_chunks": True}):
            warnings.simplefilter("ignore", xr.SerializationWarning)
            warnings.simplefilter("ignore", RoundingWarning)
            cube = vc.open_virtual_mfdataset(paths, parallel=False, **OPTIONS)
            for read in (READ["open"], READ["engine"])[: 2 if len(files) == 3 else 1]:
                assert_same_bits(read(cube), expected, names)
    except VirtualChunksError as error:
        refusal = error
    if refusal is None:
        return "equal"
    assert refusal.variable in names
    assert refusal.url in [path.as_uri() for path in paths]
    return "refused"


@pytest.mark.archives
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, COUNT, EACH))
def test_archives_read_as_xarray_reads_their_files(first, tmp_path):
    results = []
    for seed in range(first, first + EACH):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            results.append(compared(draw_archive(random.Random(seed)), folder, opening=seed % OPENED == 0))
        except BaseException as error:
            error.add_note(f"the archive drawn with the seed {seed}")
            raise
        shutil.rmtree(folder)
    assert results.count("equal") >= 0.95 * len(results)


@given(draw=st.randoms(use_true_random=False))
@settings(suppress_health_check=list(HealthCheck))
def test_archives_that_hypothesis_draws_and_shrinks(draw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    assert compared(draw_archive(draw), folder) in ("equal", "refused")
    shutil.rmtree(folder)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_expected_is_what_xarray_opens(seed, tmp_path):
    paths = [write_file(tmp_path / f"{file.number}.nc", file) for file in draw_archive(random.Random(seed))]
    xr.testing.assert_identical(combined_by_xarray(paths), by_xarray(paths, **OPTIONS))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_drawn_differs(seed):
    files = draw_archive(random.Random(seed))
    assert 2 <= len(files) <= 6
