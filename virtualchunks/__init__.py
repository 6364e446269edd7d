"""Virtual chunks: data cubes over the archival files that nobody will rewrite."""

from virtualchunks import functions as _functions  # noqa: F401 - importing registers NumPy's functions
from virtualchunks._version import __version__
from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.sources import SourceTable, Stamp

__all__ = [
    "ArrayMetadata",
    "Axis",
    "ChunkEncoding",
    "ChunkGrid",
    "ChunkManifest",
    "ManifestArray",
    "ManifestGroup",
    "SourceTable",
    "Stamp",
    "__version__",
]
