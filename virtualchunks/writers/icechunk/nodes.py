"""Nodes: the metadata documents of an Icechunk store, read and written one by one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.attributes import to_zarr
from virtualchunks.errors import UnsupportedFeatureError, WriteError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.metadata import ArrayMetadata

#: Keys that are set or deleted at the same time.
_AT_ONCE = 256


@dataclass(frozen=True)
class Nodes:
    """The nodes of a store.

    Parameters
    ----------
    store
        The store of a writable Icechunk session.
    """

    store: Any

    @classmethod
    def of(cls, store: Any) -> Nodes:
        """Return the nodes of what a user passes as a store.

        Raises
        ------
        UnsupportedFeatureError
            If it is no Icechunk store.
        WriteError
            If it is read-only.
        """
        if not hasattr(store, "set_virtual_refs_arr"):
            raise UnsupportedFeatureError(
                f"expected the store of an Icechunk session, not a {type(store).__name__}: "
                'session = repository.writable_session("main"), then pass session.store'
            )
        if store.read_only:
            raise WriteError('the Icechunk session is read-only: open repository.writable_session("main")')
        return cls(store)

    def document(self, path: str) -> dict[str, Any] | None:
        """Return the metadata document of a node, or ``None`` where there is no node."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        data = sync(self.store.get(join(path, "zarr.json"), default_buffer_prototype()))
        return None if data is None else json.loads(data.to_bytes())

    def members(self, path: str) -> list[str]:
        """Return the names of the nodes directly below a group."""
        from zarr.core.sync import sync

        async def names() -> list[str]:
            return [name async for name in self.store.list_dir(path)]

        return [name.rstrip("/") for name in sync(names()) if name.rstrip("/") != "zarr.json"]

    def remove(self, path: str) -> None:
        """Remove a node and all below it."""
        from zarr.core.sync import sync

        sync(self.store.delete_dir(path) if path else self.store.clear())

    def array(self, path: str) -> ArrayMetadata | None:
        """Return the metadata of a stored array; ``None`` where there is no array."""
        document = self.document(path)
        if document is None or document.get("node_type") != "array":
            return None
        return ArrayMetadata.from_dict(document)

    def values(self, path: str) -> npt.NDArray[Any]:
        """Return all values of a stored array."""
        import zarr

        with zarr.config.set({"array.rectilinear_chunks": True}):
            array = zarr.open_array(self.store, path=path, mode="r", zarr_format=3)
            return np.asarray(array[...])

    def move_chunks(self, path: str, axis: int, at: int, count: int) -> None:
        """Move the chunks from `at` on along an axis by `count`, with their checksums; the grid is written afterwards.

        Icechunk moves the chunks of regular grids only, and looks at nothing else of the metadata: for the moment, each
        chunk counts as one element of a regular grid.
        """
        document, metadata = self.document(path), self.array(path)
        assert document is not None
        assert metadata is not None
        shape = [size + count * (number == axis) for number, size in enumerate(metadata.grid.grid_shape)]
        grid = {"name": "regular", "configuration": {"chunk_shape": [1] * len(shape)}}
        self.put_document(path, {**document, "shape": shape, "chunk_grid": grid})

        def forward(index: Iterable[int]) -> list[int]:
            place = list(index)
            place[axis] += count if place[axis] >= at else 0
            return place

        def backward(index: Iterable[int]) -> list[int] | None:
            place = list(index)
            if at <= place[axis] < at + count:
                return None
            place[axis] -= count if place[axis] >= at else 0
            return place

        self.store.session.reindex_array(f"/{path}", forward, backward)

    def put_document(self, path: str, document: dict[str, Any]) -> None:
        """Write a metadata document."""
        self.put([(join(path, "zarr.json"), json.dumps(document).encode())])

    def put(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Write keys of the store."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        make = default_buffer_prototype().buffer.from_bytes
        entries = list(items)

        async def write(part: list[tuple[str, bytes]]) -> None:
            await asyncio.gather(*(self.store.set(key, make(data)) for key, data in part))

        for start in range(0, len(entries), _AT_ONCE):
            sync(write(entries[start : start + _AT_ONCE]))

    def stored_chunks(self, path: str) -> npt.NDArray[np.int64]:
        """Return the indices of the chunks that are stored of an array, one row for each."""
        from zarr.core.sync import sync

        async def indices() -> list[Any]:
            batches = self.store.array_chunk_iterator(f"/{path}", batch_size=100_000)
            return [found async for found, *_ in batches]

        document = self.document(path)
        rank = len(document["shape"]) if document is not None else 0
        return np.concatenate([np.empty((0, rank), dtype=np.int64), *sync(indices())], dtype=np.int64)

    def delete(self, keys: list[str]) -> None:
        """Delete keys of the store, whether they are there or not."""
        from zarr.core.sync import sync

        async def delete(part: list[str]) -> None:
            await asyncio.gather(*(self.store.delete(key) for key in part))

        for start in range(0, len(keys), _AT_ONCE):
            sync(delete(keys[start : start + _AT_ONCE]))


def join(path: str, name: str) -> str:
    """Return the path of a member of a group; any of the two may be empty."""
    return f"{path}/{name}" if path and name else path or name


def chunk_key_of(path: str, index: Iterable[int]) -> str:
    """Return the key of a chunk.

    Examples
    --------
    >>> chunk_key_of("g/v", (0, 3)), chunk_key_of("scalar", ())
    ('g/v/c/0/3', 'scalar/c')
    """
    return "/".join([path, "c", *map(str, index)])


def group_document(attributes: Any) -> dict[str, Any]:
    """Return the metadata document of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": to_zarr(attributes, strict=True)}


def array_document(metadata: ArrayMetadata) -> dict[str, Any]:
    """Return the metadata document of an array."""
    attributes = to_zarr(metadata.attributes, metadata.dtype, strict=True)
    return {**metadata.to_dict(), "chunk_grid": grid_member(metadata.grid), "attributes": attributes}


def grid_member(grid: ChunkGrid) -> dict[str, Any]:
    """Return the ``chunk_grid`` of a document in the form that Icechunk reads: a rectilinear one as lists of edges
    only.

    Examples
    --------
    >>> grid_member(ChunkGrid((Axis(5, edges=(2, 3)), Axis(4, chunk=2))))["configuration"]["chunk_shapes"]
    [[2, 3], [[2, 2]]]
    """
    member = grid.to_json()
    if not grid.is_regular:
        member["configuration"]["chunk_shapes"] = [_edge_lists(axis) for axis in grid.axes]
    return member


def _edge_lists(axis: Axis) -> list[int | list[int]]:
    lengths = axis.to_json()
    return lengths if isinstance(lengths, list) else [[lengths, max(axis.count, 1)]]
