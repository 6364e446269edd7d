"""Stored JSON documents of references, as far as adding arrays to them needs to know them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any

from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks.writers.kerchunk.references import References
from virtualchunks.writers.kerchunk.stored import check_lengths

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def kept_references(data: bytes, made: References, url: str) -> dict[str, Any]:
    """Return the references of a stored document that stay when arrays are added.

    Parameters
    ----------
    data
        The document, perhaps compressed.
    made
        What is added. Arrays of the same path are replaced; groups keep the attributes that `made` does not set.
    url
        Where the document is, for messages.

    Raises
    ------
    FormatError
        If it holds no references, or those of another Zarr format.
    UnsupportedFeatureError
        If it has templates or generators, to which nothing can be added.
    CombineError
        If two arrays of a group would disagree about the length of a dimension.
    """
    stored = _references(data, url)
    if any(key.rpartition("/")[2] == "zarr.json" for key in stored) != any(
        key.rpartition("/")[2] == "zarr.json" for key in made.metadata
    ):
        raise FormatError(f"{url} has metadata of the other Zarr format: pass its own as zarr_format", url=url)
    replaced = tuple(f"{array.path}/" for array in made.arrays)
    kept = {key: value for key, value in stored.items() if not key.startswith(replaced)} if replaced else stored
    for key, document in made.metadata.items():
        before = _document(kept.pop(key, None))
        if not key.startswith(replaced) if replaced else True:
            document.update(_joined(before, document))
    documents = {key: _document(value) for key, value in kept.items() if key.endswith((".zarray", ".zattrs"))}
    check_lengths({**documents, **made.metadata})
    return kept


def _joined(before: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a group with the attributes that it had."""
    if "attributes" in document:
        return {**document, "attributes": {**before.get("attributes", {}), **document["attributes"]}}
    return {**before, **document}


def _document(value: Any) -> dict[str, Any]:
    found = json.loads(value) if isinstance(value, str) else value
    return found if isinstance(found, dict) else {}


def _references(data: bytes, url: str) -> dict[str, Any]:
    try:
        content = json.loads(_unpacked(data))
    except (ValueError, OSError, EOFError, zlib.error, RuntimeError) as error:
        raise FormatError(f"{url} is no Kerchunk document, so nothing is added: {error}", url=url) from error
    if not isinstance(content, dict):
        raise FormatError(f"{url} is no Kerchunk document, so nothing is added", url=url)
    if content.get("templates") or content.get("gen"):
        raise UnsupportedFeatureError(
            f"{url} has templates or generators, to which nothing can be added: open it, and write it anew", url=url
        )
    references = content.get("refs", content)
    if not isinstance(references, dict):
        raise FormatError(f"{url} is no Kerchunk document, so nothing is added", url=url)
    return references


def _unpacked(data: bytes) -> bytes:
    if data.startswith(_GZIP):
        return gzip.decompress(data)
    if data.startswith(_ZSTD):
        from numcodecs import Zstd  # comes with zarr

        return bytes(Zstd().decode(data))
    return data
