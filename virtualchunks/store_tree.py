"""The tree of a store: which node or chunk lies under a key, and the documents made up for groups and arrays.

What the bytes of a chunk are, and how they are had, is the business of :mod:`virtualchunks.store_chunks`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import zarr

from virtualchunks.array import ManifestArray
from virtualchunks.attributes import to_zarr
from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks.group import ManifestGroup, subgroup
from virtualchunks.store_keys import DOCUMENT, ChunkKeys, Reference, ServedArray

_RECTILINEAR = "array.rectilinear_chunks"


class ServedTree:
    """A tree of arrays as a store serves it.

    Parameters
    ----------
    group
        The tree.
    keys
        How chunks are named.
    """

    def __init__(self, group: ManifestGroup, keys: ChunkKeys) -> None:
        self.group = group
        self.keys = keys
        self._served: dict[str, ServedArray] = {}
        self._documents: dict[tuple[str, bool], bytes] = {}
        self._rectilinear: tuple[str, ...] | None = None
        self._last: tuple[str, ServedArray | None] = ("/", None)

    def walk(self, key: str) -> tuple[ManifestGroup | ServedArray, str, list[str]]:
        """Return the deepest node on the way to a key, its path, and what is left of the key."""
        parts = key.split("/")
        group = self.group
        for place, part in enumerate(parts):
            if part in group.arrays:
                path = "/".join(parts[: place + 1])
                served = self._served.get(path)
                if served is None:
                    served = self._served[path] = ServedArray(path, group.arrays[part], self.keys)
                return served, path, parts[place + 1 :]
            if part not in group.groups:
                return group, "/".join(parts[:place]), parts[place:]
            group = group.groups[part]
        return group, key, []

    def find(self, key: str) -> bytes | Reference | None:
        """Return the document or the reference under a key, ``None`` where there is none."""
        prefix, served = self._last
        if served is not None and key.startswith(prefix) and not key.endswith(DOCUMENT):
            return served.spelled(key[len(prefix) :])
        node, path, rest = self.walk(key)
        if rest == [DOCUMENT]:
            return self.array_document(node) if isinstance(node, ServedArray) else self.group_document(node, path)
        if not isinstance(node, ServedArray) or not rest:
            return None
        self._last = node.prefix, node
        return node.reference("/".join(rest))

    def is_deferred(self, key: str) -> bool:
        """Return whether finding a chunk may take the loading of its record."""
        prefix, served = self._last
        node = served if key.startswith(prefix) else self.walk(key)[0]
        return isinstance(node, ServedArray) and node.array.manifest.is_deferred

    def nodes(self, group: ManifestGroup, path: str) -> Iterator[tuple[str, ManifestGroup | ServedArray]]:
        """Iterate over a group and all below it."""
        yield path, group
        for name, array in group.arrays.items():
            below = f"{path}/{name}" if path else name
            yield below, self._served.get(below) or ServedArray(below, array, self.keys)
        for name, inner in group.groups.items():
            yield from self.nodes(inner, f"{path}/{name}" if path else name)

    @property
    def rectilinear_arrays(self) -> tuple[str, ...]:
        """Paths of the arrays with rectilinear chunk grids, which zarr opens only when told to."""
        if self._rectilinear is None:
            paths = (path for path, array in self.group.walk_arrays() if not array.metadata.grid.is_regular)
            self._rectilinear = tuple(paths)
        return self._rectilinear

    @property
    def is_consolidated(self) -> bool:
        """Whether groups carry the metadata of all below them; see :class:`ManifestStore`."""
        return bool(zarr.config.get(_RECTILINEAR, False)) or not self.rectilinear_arrays

    def array_document(self, served: ServedArray) -> bytes:
        """Return the metadata document of an array."""
        if served.is_rectilinear and not zarr.config.get(_RECTILINEAR, False):
            raise UnsupportedFeatureError(
                f"{_few(self.rectilinear_arrays)}: chunks of several lengths (a rectilinear chunk grid), which zarr "
                "opens only when told to: call zarr.config.set({'array.rectilinear_chunks': True}) first, or read with "
                ".virtual.open() or xarray.open_dataset(..., engine='virtualchunks'), which do so themselves",
                variable=served.path,
            )
        return served.document_bytes

    def group_document(self, group: ManifestGroup, path: str) -> bytes:
        """Return the metadata document of a group."""
        consolidated = self.is_consolidated
        made = self._documents.get((path, consolidated))
        if made is None:
            document = _own_document(group)
            if consolidated:
                document["consolidated_metadata"] = self._consolidated(group, path)
            made = self._documents[path, consolidated] = json.dumps(document).encode()
        return made

    def _consolidated(self, group: ManifestGroup, path: str) -> dict[str, Any]:
        start = len(path) + 1 if path else 0
        below = {
            inner[start:]: node.document if isinstance(node, ServedArray) else _own_document(node)
            for inner, node in self.nodes(group, path)
            if node is not group
        }
        return {"kind": "inline", "must_understand": False, "metadata": below}

    def keys_below(self, node: ManifestGroup | ServedArray, path: str, prefix: str) -> Iterator[str]:
        """Iterate over the keys below a node that begin with a prefix."""
        for below, inner in [(path, node)] if isinstance(node, ServedArray) else self.nodes(node, path):
            base = f"{below}/" if below else ""
            if isinstance(inner, ManifestGroup):
                keys: Iterable[str] = (DOCUMENT,)
            elif base.startswith(prefix) or prefix.startswith(base):
                keys = itertools.chain((DOCUMENT,), inner.chunk_keys())
            else:
                continue
            yield from (key for key in map(base.__add__, keys) if key.startswith(prefix))

    def array(self, path: str) -> ManifestArray:
        """Return an array as it is referred to."""
        folder, _, name = path.rpartition("/")
        arrays = subgroup(self.group, folder).arrays
        if name not in arrays:
            raise FormatError(f"no array {path!r}; known in its group are {_few(list(arrays))}", variable=path)
        return arrays[name]

    def served(self, path: str) -> ServedArray:
        """Return an array as the store serves it."""
        node, _, rest = self.walk(path)
        if rest or not isinstance(node, ServedArray):
            raise FormatError(f"no array {path!r}", variable=path)
        return node

    def locate_chunks(self, keys: Sequence[str]) -> tuple[str, list[tuple[int, ...]]] | None:
        """Return the array that all of these keys are chunks of, and their indices; ``None`` where there is none."""
        node, path, _ = self.walk(keys[0])
        if not isinstance(node, ServedArray):
            return None
        start = f"{path}/"
        found = [node.index(key[len(start) :]) for key in keys if key.startswith(start)]
        indices = [index for index in found if index is not None]
        return (path, indices) if len(indices) == len(keys) else None


def _own_document(group: ManifestGroup) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": to_zarr(group.attributes)}


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more arrays"
