"""Virtual chunks: data cubes over the archival files that nobody will rewrite."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from virtualchunks import functions as functions
from virtualchunks._version import __version__
from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable, Stamp
from virtualchunks.xarray import accessor as accessor
from virtualchunks.xarray import (
    open_store,
    open_virtual_dataset,
    open_virtual_datatree,
    open_virtual_mfdataset,
)

if TYPE_CHECKING:
    from virtualchunks.diagnosis import diagnose
    from virtualchunks.store import ManifestStore
    from virtualchunks.verbs import diff
    from virtualchunks.verification import verify
    from virtualchunks.xarray.templates import template

__all__ = [
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

#: Names whose modules import much, such as zarr, or are seldom used: they are imported when they are first used.
_WHEN_USED = {
    "ManifestStore": "virtualchunks.store",
    "diagnose": "virtualchunks.diagnosis",
    "diff": "virtualchunks.verbs",
    "template": "virtualchunks.xarray.templates",
    "verify": "virtualchunks.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHEN_USED[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHEN_USED})
