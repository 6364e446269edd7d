"""Real files of other formats through DMR++ documents: every array comes back as it was, or is refused by name."""

from __future__ import annotations

import warnings
from pathlib import Path

import corpusscore
import pytest

from virtualchunks.errors import LimitExceededError, UnsupportedFeatureError, VirtualChunksError
from virtualchunks.group import ManifestGroup
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.writers.dmrpp import write_dmrpp
from virtualchunks_parsers.dmrpp import DMRPPParser
from virtualchunks_parsers.hdf4 import HDF4Parser
from virtualchunks_parsers.hdf5 import HDF5Parser
from virtualchunks_parsers.netcdf3 import NetCDF3Parser

PARSERS = {"hdf4": HDF4Parser(), "hdf5": HDF5Parser(), "netcdf4": HDF5Parser(), "netcdf3": NetCDF3Parser()}
#: The corpus's own folders hold others, by origin; larger files show no more.
FILES = [path for path in corpusscore.files(*PARSERS) if path.stat().st_size < 300_000]


def refused_by(tree: ManifestGroup, target: Path) -> str | None:
    """Write a document; return the name of what it cannot hold, if there is something."""
    try:
        write_dmrpp(tree, target)
    except (UnsupportedFeatureError, LimitExceededError) as error:
        return error.variable or "nothing"
    return None


@corpusscore.each(FILES)
def test_arrays_come_back_through_a_document(path: Path, tmp_path: Path) -> None:
    registry = ObjectStoreRegistry({path.parent: None, tmp_path: None})
    kind = next(name for name in path.parts[::-1] if name in PARSERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = PARSERS[kind].parse(str(path), registry)
        except VirtualChunksError:
            pytest.skip("the file is not read")
    refused = refused_by(tree, tmp_path / "a.dmrpp")
    if refused is not None:
        assert refused in {*dict(tree.walk_arrays()), *(f"/{name}" for name, _ in tree.walk())}
        assert not list(tmp_path.iterdir())
        return
    back = dict(DMRPPParser(strict=True).parse(str(tmp_path / "a.dmrpp"), registry).walk_arrays())
    arrays = dict(tree.walk_arrays())
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        found = back[name]
        assert (found.shape, found.dtype) == (array.shape, array.dtype), name
        assert found.metadata.dimension_names == array.metadata.dimension_names, name
        if not array.manifest.sources.buffers:
            assert found.manifest == array.manifest, name
            assert found.metadata.encoding == array.metadata.encoding or not len(array.manifest), name
