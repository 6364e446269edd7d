"""Kerchunk references: the metadata documents of a tree, and the chunks of its arrays as columns and as text.

Specification: https://fsspec.github.io/kerchunk/spec.html, version 1. Of templates,
those of named roots are written; generators never.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from virtualchunks.attributes import to_zarr
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.roots import root_of_url
from virtualchunks.urls import split
from virtualchunks.writers.homogenising import Form, Heterogeneous, homogenised
from virtualchunks.writers.kerchunk.codecs_v2 import codecs_v2
from virtualchunks.writers.kerchunk.fills import MEMBER, digest
from virtualchunks.writers.kerchunk.metadata_v2 import array_documents, require_regular
from virtualchunks.writers.kerchunk.sidefile import SideFile
from virtualchunks.writers.layout import Block, StoredArray, blocks, stored_array

ZarrFormat = Literal[2, 3]

#: The most bytes of chunks that are encoded anew and written among the references, where there is no side file.
MOST_ENCODED_BYTES = 64 << 20
#: The most bytes of chunks that are encoded anew for a side file.
MOST_SIDE_BYTES = 1 << 30
#: Number of chunks that are turned into text at a time: few enough to stay in the processor's cache.
BLOCK = 1 << 12


@dataclass(frozen=True)
class ArrayReferences:
    """The chunks of one array.

    Parameters
    ----------
    path
        Path of the array.
    manifest
        Where its chunks are.
    targets
        For each row of the manifest's sources, its URL as fsspec expects it; empty for one held in memory.
    separator, prefix
        How chunk keys are put together.
    scalar
        The key of the only chunk of an array without dimensions.
    missing
        The bytes to write for each missing chunk; ``None`` to write none.
    """

    path: str
    manifest: ChunkManifest
    targets: Sequence[str]
    separator: str
    prefix: str
    scalar: str
    missing: bytes | None

    def blocks(self, size: int = BLOCK) -> Iterator[Block]:
        """Iterate over the chunks that are not missing."""
        return blocks(self.manifest, size)

    def keys(self, number: npt.NDArray[np.int64]) -> list[str]:
        """Return the chunk keys, without the array's path, of chunks given by their number in C order."""
        if not self.manifest.shape_chunk_grid:
            return [self.scalar] * len(number)
        return list(map(self.key_format.__mod__, zip(*self.indices(number), strict=True)))

    @property
    def key_format(self) -> str:
        """What makes a chunk key of an index, by the operator ``%``."""
        ndim = self.manifest.ndim_chunk_grid
        return self.prefix + self.separator.join(["%d"] * ndim) if ndim else self.scalar

    def indices(self, number: npt.NDArray[np.int64]) -> list[list[int]]:
        """Return the indices along each axis of chunks given by their number in C order."""
        shape = self.manifest.shape_chunk_grid
        return [column.tolist() for column in np.unravel_index(number, shape)] if shape else []

    def buffers(self, block: Block) -> Iterator[tuple[int, bytes]]:
        """Iterate over the chunks of a block that are held in memory: their place in the block, and their bytes."""
        buffers = self.manifest.sources.buffers
        if buffers is None:
            return
        held = np.isin(block.source, np.fromiter(buffers, dtype=np.int64, count=len(buffers)))
        for place in np.flatnonzero(held).tolist():
            start = int(block.offset[place])
            yield place, buffers[int(block.source[place])][start : start + int(block.length[place])]

    def numbers_of(self, digests: Set[str]) -> list[int]:
        """Return the numbers of the chunks held in memory whose bytes have one of these digests."""
        if not self.manifest.sources.buffers:
            return []
        held = ((block.number[place], data) for block in self.blocks() for place, data in self.buffers(block))
        return [int(number) for number, data in held if digest(data) in digests]

    def missing_numbers(self) -> npt.NDArray[np.int64]:
        """Return the numbers of the missing chunks that have to be written out."""
        if self.missing is None:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(~self.manifest.present.reshape(-1))


@dataclass(frozen=True)
class References:
    """The references of a tree.

    Parameters
    ----------
    metadata
        Metadata documents by key.
    arrays
        The chunks of each array.
    """

    metadata: Mapping[str, dict[str, Any]]
    arrays: Sequence[ArrayReferences]

    @property
    def templates(self) -> dict[str, str]:
        """The templates that stand for named roots: each gives the root back, so that it is bound when it is read."""
        urls = {url for array in self.arrays for url in array.manifest.iter_nonempty_paths()}
        return {name: f"{{{name}}}" for name in sorted({root_of_url(url) or "" for url in urls} - {""})}


def homogeneous(
    group: ManifestGroup,
    heterogeneous: Heterogeneous,
    registry: Any,
    zarr_format: ZarrFormat = 2,
    *,
    side: SideFile | None = None,
    existing: Callable[[str], ArrayMetadata | None] | None = None,
) -> ManifestGroup:
    """Return a tree whose arrays have one encoding each.

    Parameters
    ----------
    group
        The root of the tree.
    heterogeneous, registry
        As for :func:`~virtualchunks.writers.homogenising.homogenised`.
    zarr_format
        As for :func:`references`.
    side
        Where chunks go that were encoded anew and are too many to be inline.
    existing
        From the path of an array to the metadata of the stored one, where arrays are added to stored ones.
    """
    accepts: dict[int, Callable[[StoredArray], Any]] = {2: _require_v2, 3: lambda array: None}
    form = Form(
        "a set of Kerchunk references",
        MOST_ENCODED_BYTES,
        accepts[zarr_format],
        advice="a dictionary, and what store= stands for, have no place for a file beside them. Write JSON or Parquet "
        "to a path or a URL of registry=",
    )
    if side is not None:
        form = replace(form, limit=MOST_SIDE_BYTES, keep=side.keep, advice=Form.advice)
    if existing is not None:
        form = replace(form, existing=existing, adds=True)
    return homogenised(group, form, heterogeneous, registry)


def _require_v2(array: StoredArray) -> None:
    require_regular(array)
    codecs_v2(array.metadata.encoding, array.metadata.ndim, array.path)


def references(group: ManifestGroup, zarr_format: ZarrFormat = 2) -> References:
    """Return the references of a tree, all of it checked.

    Parameters
    ----------
    group
        The root of the tree.
    zarr_format
        2 is what ``engine="kerchunk"`` reads.

    Raises
    ------
    UnsupportedFeatureError
        If an array cannot be written; the message names it.
    """
    documents: dict[str, dict[str, Any]] = {}
    arrays = []
    write = {2: array_v2, 3: _array_v3}[zarr_format]
    for path, node in group.walk():
        prefix = f"{path}/" if path else ""
        documents |= _group_documents(prefix, node, zarr_format)
        for name, array in node.arrays.items():
            stored = stored_array(prefix + name, array, "a set of Kerchunk references")
            made, own = write(stored)
            documents |= own
            arrays.append(made)
    return References(documents, arrays)


def require_no_roots(made: References) -> None:
    """Raise UnsupportedFeatureError for named roots, which Parquet cannot hold."""
    for array in made.arrays:
        url = next((url for url in array.manifest.iter_nonempty_paths() if root_of_url(url) is not None), None)
        if url is not None:
            raise UnsupportedFeatureError(
                f"references in Parquet have no templates, which the named root of {url} in {array.path!r} needs: "
                "write JSON, or say where it is first, with .virtual.bind({…})",
                url=url,
                variable=array.path,
            )


def _group_documents(prefix: str, group: ManifestGroup, zarr_format: ZarrFormat) -> dict[str, dict[str, Any]]:
    attributes = to_zarr(group.attributes)
    if zarr_format == 3:
        return {f"{prefix}zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": attributes}}
    return {f"{prefix}.zgroup": {"zarr_format": 2}, f"{prefix}.zattrs": attributes}


def array_v2(array: StoredArray) -> tuple[ArrayReferences, dict[str, dict[str, Any]]]:
    """Return the chunks of an array, and its documents of Zarr v2 by key."""
    documents = array_documents(array)
    made = ArrayReferences(array.path, array.manifest, targets(array), ".", "", "0", documents.missing)
    if documents.missing is not None:
        documents.zarray[MEMBER]["held"] = made.numbers_of({digest(documents.missing)})
    return made, {f"{array.path}/.zarray": documents.zarray, f"{array.path}/.zattrs": documents.zattrs}


def _array_v3(array: StoredArray) -> tuple[ArrayReferences, dict[str, dict[str, Any]]]:
    document = array.metadata.to_dict()
    document["attributes"] = to_zarr(array.metadata.attributes, array.metadata.dtype)
    made = ArrayReferences(array.path, array.manifest, targets(array), "/", "c/", "c", None)
    return made, {f"{array.path}/zarr.json": document}


def targets(array: StoredArray) -> list[str]:
    """Return the URL of each source row as fsspec's file systems expect it.

    fsspec takes the names of files and objects literally, apart from those of HTTP, which stay percent-encoded.

    Raises
    ------
    UnsupportedFeatureError
        If a chunk lies in a store in memory, which no other process can read.
    """
    used = set(array.manifest.used_rows().tolist())
    return [_target(url, array.path) if row in used else "" for row, url in enumerate(array.manifest.sources.urls)]


def _target(url: str, variable: str) -> str:
    if url.startswith("memory:"):
        raise UnsupportedFeatureError(
            f"{url} lies in the memory of this process, so references to it cannot be written",
            url=url,
            variable=variable,
        )
    root = root_of_url(url)
    if root is not None:
        return _template(root, url, variable)
    if "%" not in url or url.startswith(("http:", "https:")):
        return url
    scheme, authority, key = split(url)
    return f"{scheme}://{authority}/{key}"


def _template(root: str, url: str, variable: str) -> str:
    """Return a URL beneath a named root as a template, which readers of Kerchunk references fill in."""
    key = split(url).key
    if "{" in key or "}" in key:
        raise UnsupportedFeatureError(
            f"{url}: a template cannot hold the braces in this name; bind the root before writing",
            url=url,
            variable=variable,
        )
    return f"{{{{{root}}}}}/{key}"


def metadata_text(document: Mapping[str, Any]) -> str:
    """Return a metadata document as JSON text. NaN is written as zarr writes it."""
    return json.dumps(document)


def to_references(
    group: ManifestGroup,
    *,
    zarr_format: ZarrFormat = 2,
    heterogeneous: Heterogeneous = "error",
    registry: Any = None,
) -> dict[str, Any]:
    """Return the references of a tree as a dictionary, for fsspec's ``filesystem("reference", fo=…)``.

    Parameters
    ----------
    group
        The root of the tree.
    zarr_format
        Format of the metadata: 2 is what ``xarray.open_dataset(…, engine="kerchunk")`` reads; 3 also holds rectilinear
        chunk grids and is read with ``xarray.open_zarr("reference://", storage_options={"fo": …}, zarr_format=3,
        consolidated=False)``.
    heterogeneous
        What becomes of arrays whose chunks decode in several ways: ``"error"`` refuses them and says what materialising
        takes, ``"materialise"`` reads the fewer chunks and writes them inline, encoded as the others are, and
        ``"split"`` reads nothing, and cuts a group that has such arrays into groups ``part_0``, ``part_1`` … along the
        dimension along which the encodings change. Inline are up to 64 MiB of chunks that were encoded anew.
    registry
        What may be read for that; by default nothing.

    Returns
    -------
    dict
        ``{"version": 1, "refs": {…}}``, with ``templates`` where URLs lie beneath named roots.

    Raises
    ------
    UnsupportedFeatureError
        If an array cannot be written; the message names it.
    LimitExceededError
        If missing chunks would have to be written out and are too many, or those to encode anew are.
    ReadError, NotGrantedError, DecodeError
        If one of those cannot be read.

    Examples
    --------
    >>> from virtualchunks import ArrayMetadata, ManifestArray
    >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(4,), dtype="<i4", dimension_names=("x",))
    >>> array = ManifestArray(metadata, {"0": {"path": "s3://bucket/a%20b.nc", "offset": 8, "length": 16}})
    >>> to_references(ManifestGroup({"v": array}))["refs"]["v/0"]
    ['s3://bucket/a b.nc', 8, 16]
    """
    made = references(homogeneous(group, heterogeneous, registry, zarr_format), zarr_format)
    refs: dict[str, Any] = {key: metadata_text(document) for key, document in made.metadata.items()}
    for array in made.arrays:
        refs.update(_entries(array))
    return {"version": 1, **({"templates": made.templates} if made.templates else {}), "refs": refs}


def _entries(array: ArrayReferences) -> Iterator[tuple[str, Any]]:
    prefix = f"{array.path}/"
    for block in array.blocks():
        keys = map(prefix.__add__, array.keys(block.number))
        paths = map(array.targets.__getitem__, block.source.tolist())
        values: list[Any] = list(map(list, zip(paths, block.offset.tolist(), block.length.tolist(), strict=True)))
        for place, data in array.buffers(block):
            values[place] = inline_text(data)
        yield from zip(keys, values, strict=True)
    if array.missing is not None:
        keys = map(prefix.__add__, array.keys(array.missing_numbers()))
        yield from zip(keys, itertools.repeat(inline_text(array.missing)), strict=False)


def inline_text(data: bytes) -> str:
    """Return bytes as references hold them."""
    return "base64:" + base64.b64encode(data).decode("ascii")
