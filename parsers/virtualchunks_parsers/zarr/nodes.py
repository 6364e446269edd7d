"""The nodes of a Zarr hierarchy, from its metadata documents, in Zarr v2 and v3.

Where documents come from (a folder, an archive, a reference file) does not matter here. Nodes of both formats may stand
side by side; at one path, v3 counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from virtualchunks.attributes import from_zarr
from virtualchunks.codecs.pipeline import check_encoding
from virtualchunks.errors import FormatError, ManifestError, VirtualChunksError
from virtualchunks.metadata import ArrayMetadata
from virtualchunks_parsers.zarr.chunk_keys import ChunkKeys
from virtualchunks_parsers.zarr.metadata_v2 import array_v2
from virtualchunks_parsers.zarr.metadata_v3 import array_v3

#: Names of metadata documents.
DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
#: The name that an array at the root of a store gets, since members of a group need one.
ROOT_ARRAY = "data"
#: Most dimensions of an array.
MOST_DIMENSIONS = 32

Documents = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class StoredArray:
    """One array as its metadata describes it.

    Parameters
    ----------
    path
        Path in the hierarchy; empty for the root.
    metadata
        The array, with a name for every dimension.
    keys
        How its chunk keys are spelled.
    """

    path: str
    metadata: ArrayMetadata
    keys: ChunkKeys


@dataclass(frozen=True)
class Node:
    """One node, before its metadata is interpreted.

    Parameters
    ----------
    path
        Path in the hierarchy; empty for the root.
    is_array
        Whether it is an array, not a group.
    zarr_format
        2 or 3.
    document, attributes
        Contents of ``zarr.json``, or of ``.zarray`` and ``.zattrs``.
    """

    path: str
    is_array: bool
    zarr_format: int
    document: Mapping[str, Any]
    attributes: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The last part of the path; :data:`ROOT_ARRAY` for the root."""
        return self.path.rpartition("/")[2] or ROOT_ARRAY

    def array(self, url: str) -> StoredArray:
        """Interpret the metadata of an array.

        Parameters
        ----------
        url
            The store, for messages.

        Raises
        ------
        FormatError
            If the metadata is corrupt.
        UnsupportedFeatureError
            If it describes something that cannot be represented.
        """
        with metadata_errors(url, self.path or "/"):
            _check_shape(self.document["shape"])
            if self.zarr_format == 3:
                metadata, keys = array_v3(self.document)
            else:
                metadata, keys = array_v2(self.document, self.attributes)
            check_encoding(metadata.encoding, _block_shape(metadata))
            return StoredArray(self.path, named_dimensions(metadata, self.name), keys)

    def group_attributes(self) -> dict[str, Any]:
        """The attributes of a group, as natural values."""
        return from_zarr(self.attributes)


def nodes_of(documents: Documents) -> dict[str, Node]:
    """Return the nodes that metadata documents describe, by path.

    Parameters
    ----------
    documents
        Contents by key, such as ``a/b/zarr.json`` or ``a/b/.zarray``.

    Examples
    --------
    >>> sorted(nodes_of({"zarr.json": {"zarr_format": 3, "node_type": "group"}, "a/.zgroup": {"zarr_format": 2}}))
    ['', 'a']
    """
    nodes: dict[str, Node] = {}
    for key in sorted(documents, key=_precedence):
        path, _, name = key.rpartition("/")
        document = documents[key]
        if name == "zarr.json":
            nodes[path] = Node(
                path, document.get("node_type") == "array", 3, document, _mapping(document, "attributes")
            )
        elif name in (".zarray", ".zgroup"):
            attributes = documents.get(f"{path}/.zattrs" if path else ".zattrs", {})
            nodes[path] = Node(path, name == ".zarray", 2, document, attributes)
    return nodes


def consolidated(documents: Documents) -> dict[str, Mapping[str, Any]]:
    """Return the documents that the root's consolidated metadata holds; empty where there is none.

    Parameters
    ----------
    documents
        Contents by key; ``zarr.json`` and ``.zmetadata`` of the root count.
    """
    inline = _mapping(_mapping(documents.get("zarr.json", {}), "consolidated_metadata"), "metadata")
    if inline:
        return {f"{path}/zarr.json": document for path, document in inline.items() if isinstance(document, Mapping)}
    metadata = _mapping(documents.get(".zmetadata", {}), "metadata")
    return {key: document for key, document in metadata.items() if isinstance(document, Mapping)}


def parse_document(key: str, data: bytes | bytearray | memoryview | str, url: str) -> Mapping[str, Any]:
    """Read a metadata document.

    Raises
    ------
    FormatError
        If it is not a JSON object.
    """
    try:
        document = json.loads(bytes(data) if isinstance(data, memoryview) else data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{key!r} of {url} is not JSON: {error}", url=url) from error
    if not isinstance(document, Mapping):
        raise FormatError(f"{key!r} of {url} is not a JSON object but {type(document).__name__}", url=url)
    return document


@contextmanager
def metadata_errors(url: str, variable: str) -> Iterator[None]:
    """Turn what goes wrong with the metadata of an array into errors that name it."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError, RecursionError) as error:
        if isinstance(error, VirtualChunksError) and not isinstance(error, ManifestError | FormatError):
            raise
        missing = isinstance(error, KeyError)
        reason = f"the member {error} is missing" if missing else getattr(error, "message", str(error))
        raise FormatError(f"{variable!r} of {url} is corrupt: {reason}", url=url, variable=variable) from error


def named_dimensions(metadata: ArrayMetadata, name: str) -> ArrayMetadata:
    """Return the metadata with a name for every dimension: its own, or one of the array's name and the axis."""
    given: Iterable[str | None] = metadata.dimension_names or (None,) * metadata.ndim
    names = tuple(label or f"{name}_dim_{axis}" for axis, label in enumerate(given))
    return metadata.replace(dimension_names=names)


def _block_shape(metadata: ArrayMetadata) -> tuple[int, ...]:
    """Return the shape to which the first chunk decodes, or would."""
    return tuple(axis.nominal_at(0) if axis.count else 1 for axis in metadata.grid.axes)


def _precedence(key: str) -> tuple[int, str]:
    """Sort keys so that what counts most comes last."""
    name = key.rpartition("/")[2]
    return {".zgroup": 0, ".zarray": 1, "zarr.json": 2}.get(name, -1), key


def _mapping(document: Any, key: str) -> Mapping[str, Any]:
    value = document.get(key) if isinstance(document, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _check_shape(shape: Any) -> None:
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise FormatError(f"a shape is a list of integers from 0 on, found {shape!r}")
    if len(shape) > MOST_DIMENSIONS:
        raise FormatError(f"an array of {len(shape)} dimensions; the most is {MOST_DIMENSIONS}")
