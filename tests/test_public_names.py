"""The names that ``import virtualchunks`` gives."""

import subprocess
import sys

import pytest

import virtualchunks as vc

NAMES = [
    "ArrayMetadata",
    "Axis",
    "ChunkEncoding",
    "ChunkGrid",
    "ChunkManifest",
    "ManifestArray",
    "ManifestGroup",
    "ManifestStore",
    "ObjectStoreRegistry",
    "SourceTable",
    "Stamp",
    "__version__",
    "diagnose",
    "diff",
    "open_store",
    "open_virtual_dataset",
    "open_virtual_datatree",
    "open_virtual_mfdataset",
    "template",
    "verify",
]


def test_all():
    assert vc.__all__ == NAMES
    assert set(NAMES) <= set(dir(vc))
    for name in NAMES:
        assert getattr(vc, name) is not None


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'open_everything'"):
        vc.open_everything  # noqa: B018


def test_what_is_slow_to_import_waits():
    code = (
        "import sys, virtualchunks, xarray; xarray.Dataset().virtual; "
        "assert not {'zarr', 'h5py', 'icechunk', 'dask', 'tqdm'} & set(sys.modules), 'imported too early'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
