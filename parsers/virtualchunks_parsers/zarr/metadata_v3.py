"""The metadata of a Zarr v3 array: ``zarr.json``.

Specification: https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html. The document says which codecs decode the
chunks; those that are not installed, or not among the known families, are refused by name before anything is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from virtualchunks.attributes import from_zarr
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks.metadata import ArrayMetadata
from virtualchunks_parsers.zarr.chunk_keys import ChunkKeys

#: Codecs of Zarr's core and of zarr-python that a document may name.
CODECS = frozenset(
    {
        *("blosc", "bytes", "cast_value", "crc32c", "gzip", "scale_offset", "sharding_indexed"),
        *("transpose", "vlen-bytes", "vlen-utf8", "zstd", "gribberish"),
    }
)
#: Families of further codecs that a document may name, where they are installed.
FAMILIES = ("numcodecs.", "virtualchunks.", "imagecodecs_", "virtual_tiff.")
#: Most edges of a rectilinear grid: a few bytes of run lengths can stand for as many as they like.
MOST_EDGES = 10_000_000

_MEMBERS = frozenset(
    {
        *("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs"),
        *("attributes", "dimension_names", "storage_transformers", "consolidated_metadata"),
    }
)


def array_v3(document: Mapping[str, Any]) -> tuple[ArrayMetadata, ChunkKeys]:
    """Return what the document of an array says.

    Parameters
    ----------
    document
        The content of its ``zarr.json``.

    Returns
    -------
    tuple of ArrayMetadata and ChunkKeys
        The array as it is stored: a shard is one chunk.

    Raises
    ------
    ManifestError
        If it is not the document of an array.
    UnsupportedFeatureError
        If it has a data type, a codec or an extension that cannot be represented.
    """
    _check_members(document)
    _check_edges(document["chunk_grid"])
    metadata = ArrayMetadata.from_dict({**document, "attributes": {}})
    check_codecs(metadata.codecs, metadata.encoding)
    attributes = from_zarr(document.get("attributes") or {}, metadata.dtype)
    keys = ChunkKeys.from_json(document.get("chunk_key_encoding", "default"))
    return metadata.replace(attributes=attributes), keys


def check_codecs(codecs: Sequence[Mapping[str, Any]], encoding: ChunkEncoding | None = None) -> None:
    """Raise UnsupportedFeatureError for a codec that is unknown, not installed, or has parameters that it refuses."""
    from zarr.errors import UnknownCodecError
    from zarr.registry import get_codec_class

    for codec in codecs:
        name = codec["name"]
        if not isinstance(name, str) or not (name in CODECS or name.startswith(FAMILIES)):
            raise UnsupportedFeatureError(
                f"the codec {name!r} is not known; known are {', '.join(sorted(CODECS))} and those named "
                f"{', '.join(f'{family}…' for family in FAMILIES)}"
            )
        try:
            get_codec_class(name).from_dict(dict(codec))
        except (UnknownCodecError, KeyError) as error:
            raise UnsupportedFeatureError(f"the codec {name!r} is not installed") from error
        except (ValueError, TypeError, ImportError) as error:
            raise UnsupportedFeatureError(f"the codec {name!r} cannot be used: {error}") from error


def _check_members(document: Mapping[str, Any]) -> None:
    """Refuse extensions that a reader has to understand, as the specification demands."""
    for name, value in document.items():
        known = name in _MEMBERS or (isinstance(value, Mapping) and value.get("must_understand") is False)
        if not known:
            raise UnsupportedFeatureError(f"unknown member {name!r} in the metadata of a Zarr v3 array")
    if not isinstance(document.get("codecs"), list) or not isinstance(document.get("shape"), list):
        raise FormatError("the codecs and the shape of a Zarr v3 array are lists")


def _check_edges(grid: Mapping[str, Any]) -> None:
    configuration = grid.get("configuration") or {}
    for axis in configuration.get("chunk_shapes") or ():
        if not isinstance(axis, list):
            continue
        count = sum(1 if isinstance(item, int) else int(item[1]) for item in axis)
        if count > MOST_EDGES:
            raise LimitExceededError(f"a rectilinear axis of {count:,} chunks; the most is {MOST_EDGES:,}")
