"""Archives drawn at random: the values of ``xr.open_mfdataset``, bit for bit, or one error that names the place."""

import random
import tempfile
import warnings
from pathlib import Path

import pytest
import xarray as xr
import zarr
from driftingarchives import Stored, draw_archive, write_file
from hypothesis import given, settings
from hypothesis import strategies as st

import virtualchunks as vc
from tests.xarray.test_packed_archives import READ, assert_same_bits, by_xarray
from virtualchunks.errors import VirtualChunksError

#: Archives take long to write and to read twice: an eighth of what other properties are tried with.
FEW = settings().max_examples // 8
OPTIONS = {"combine": "nested", "concat_dim": "time"}


def compared(files: list[Stored], folder: Path) -> str:
    """Combine an archive in both ways; return ``"equal"`` or ``"refused"``, and raise for anything else."""
    paths = [write_file(folder / f"{file.number}.nc", file) for file in files]
    expected = by_xarray(paths, **OPTIONS)
    names = [name for name in ("v", "w") if name in expected]
    refusal: VirtualChunksError | None = None
    try:
        with warnings.catch_warnings(), zarr.config.set({"array.rectilinear_chunks": True}):
            warnings.simplefilter("ignore", xr.SerializationWarning)
            cube = vc.open_virtual_mfdataset(paths, **OPTIONS)
            for read in (READ["open"], READ["engine"]):
                assert_same_bits(read(cube), expected, names)
    except VirtualChunksError as error:
        refusal = error
    if refusal is None:
        return "equal"
    assert refusal.variable in names
    assert refusal.url in [path.as_uri() for path in paths]
    return "refused"


@given(st.randoms(use_true_random=False))
@settings(max_examples=FEW)
def test_an_archive_reads_as_xarray_reads_its_files(draw):
    with tempfile.TemporaryDirectory() as folder:
        compared(draw_archive(draw), Path(folder))


def test_nearly_all_archives_combine(tmp_path):
    results = []
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        results.append(compared(draw_archive(random.Random(seed)), folder))
    assert results.count("equal") >= 7


@pytest.mark.parametrize("seed", range(3))
def test_what_is_drawn_differs(seed):
    files = draw_archive(random.Random(seed))
    assert 2 <= len(files) <= 4
