"""ZarrParser: one Zarr store → one tree of arrays of chunk references."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.listing import can_list
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import as_url
from virtualchunks_parsers.zarr.archive import MAGIC, Archive
from virtualchunks_parsers.zarr.nodes import Node, consolidated, metadata_errors, nodes_of, parse_document
from virtualchunks_parsers.zarr.objects import Folder, Objects, Unlisted
from virtualchunks_parsers.zarr.sharding import Shards
from virtualchunks_parsers.zarr.tree import HierarchyParser, folder_of

_ROOT_DOCUMENTS = ("zarr.json", ".zmetadata", ".zarray", ".zgroup", ".zattrs")


@dataclass(frozen=True, kw_only=True)
class ZarrParser(HierarchyParser):
    """Reads the metadata of a Zarr store, v2 or v3, as arrays of chunk references.

    Parameters
    ----------
    group
        Path of the group that becomes the root; by default the store's own root.
    drop_variables
        Names of arrays to leave out wherever they are, or paths of arrays and groups, such as ``"/model/wind"``.
    strict
        Whether to raise where an array cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.
    skip_variables
        Another name for `drop_variables`.

    Notes
    -----
    A store is a folder, or a Zip archive whose chunks are stored, not deflated. Naming a folder grants what lies
    beneath it. It is listed once, which tells which chunks there are and how long they are; metadata documents are
    read, unless they are consolidated. A chunk that is not listed is missing and reads as the fill value. Of a sharded
    array, the chunks within the shards become references, at the cost of one request for each shard.

    Plain HTTP has no listing. There, a group is read from consolidated metadata only, and up to 10,000 chunks of an
    array are looked up one by one.

    An array at the root of a store is called ``data``. Dimensions without names are called after their array.

    Examples
    --------
    >>> ZarrParser(group="/model", drop_variables=["orography"])
    ZarrParser(group='/model', drop_variables=('orography',), strict=False)
    """

    name: ClassVar[str] = "Zarr"
    suffixes: ClassVar[tuple[str, ...]] = (".zarr", ".zip", ".zarr2", ".zarr3")
    markers: ClassVar[tuple[str, ...]] = ("zarr.json", ".zgroup", ".zarray")
    reads: ClassVar[tuple[str, ...]] = (
        "Zarr v2 and v3, side by side, nested groups, arrays at the root, consolidated metadata or none",
        "every chunk key encoding (default and v2, both separators), regular and rectilinear grids",
        "shards, as references to the chunks within them",
        "text and bytes of variable and fixed length, structures, times, both byte orders, C and F order",
        "v2 filters and compressors of numcodecs, v3 codecs that are installed",
        "Zip archives with stored members",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "deflated members of Zip archives: a virtual chunk is a run of bytes as its codecs left it",
        "pickled, JSON, MessagePack and categorical objects of v2: no Zarr v3 codec stores them",
        "structures whose fields differ in byte order: no Zarr codec stores them",
        "groups behind plain HTTP without consolidated metadata: there is no listing",
    )

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so may be a Zip archive of a Zarr store."""
        marks = (b"zarr.json", b".zgroup", b".zarray", b".zattrs", b".zmetadata")
        return head.startswith(MAGIC) and any(mark in head for mark in marks)

    def _parsed(self, url: str, registry: Any) -> tuple[ManifestGroup, ObjectStoreRegistry]:
        named = as_url(url)
        file = registry is None and (named.endswith(".zip") or os.path.isfile(os.fspath(url)))
        folder, granted = folder_of(named, ObjectStoreRegistry().grant(named) if file else registry)
        archive = _open_archive(named, granted)
        if archive is not None:
            with archive:
                return self._tree(Archive.opened(archive), archive.url, granted), granted
        objects: Objects = Folder.listed(folder, granted) if can_list(granted, folder) else Unlisted(folder, granted)
        return self._tree(objects, folder, granted), granted

    def _tree(self, objects: Objects, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        nodes = nodes_of(_documents(objects, url))
        if not nodes:
            raise FormatError(f"{url} is no Zarr store: it holds no zarr.json, .zgroup or .zarray", url=url)
        return self._selection(url).tree(nodes, lambda node: _array(node, objects, url, registry))


def _open_archive(url: str, registry: ObjectStoreRegistry) -> ObjectReader | None:
    """Open what may be an archive; ``None`` for a folder."""
    named = url.removesuffix("/")
    path = registry.locate(named).path
    if named.endswith(".zip") or (path is not None and os.path.isfile(path)):
        return ObjectReader(registry, named)
    return None


def _documents(objects: Objects, url: str) -> dict[str, Mapping[str, Any]]:
    """Return all metadata documents, with as little reading as consolidated metadata allows."""
    root = objects.read(_ROOT_DOCUMENTS)
    documents = {key: parse_document(key, data, url) for key, data in root.items()}
    known = consolidated(documents)
    documents = {**known, **documents}
    keys = objects.keys()
    if keys is not None:
        rest = [key for key in keys if key not in documents]
        read = objects.read(rest)
        return documents | {key: parse_document(key, data, url) for key, data in read.items()}
    is_group = any(not node.is_array for node in nodes_of(documents).values())
    if is_group and not known:
        raise UnsupportedFeatureError(
            f"{url} is behind plain HTTP, which cannot be listed, and has no consolidated metadata: consolidate it "
            "(zarr.consolidate_metadata), or open it through a store that lists",
            url=url,
        )
    return documents


def _array(node: Node, objects: Objects, url: str, registry: ObjectStoreRegistry) -> ManifestArray:
    """Return one array, its chunks found."""
    stored = node.array(url)
    with metadata_errors(url, node.path or "/"):
        shards = Shards.of(stored.metadata)
        manifest = objects.chunks(stored).manifest(stored.metadata.grid)
        if shards is None:
            return ManifestArray(stored.metadata, manifest)
        return ManifestArray(shards.metadata, shards.manifest(manifest, registry))
