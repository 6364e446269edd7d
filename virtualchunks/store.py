"""ManifestStore: a tree of arrays of chunk references, served as a read-only Zarr store.

zarr and xarray read from it as from any store: metadata documents are made up from the tree, and the bytes of a chunk
come from where its record says, through the registry, checked. A chunk that the manifest lacks is absent, so that
readers fill; one that cannot be read, or is not what was parsed, raises.

How keys are spelled is the business of :mod:`virtualchunks.store_keys`; how bytes are fetched, of
:mod:`virtualchunks.reading`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Self

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from virtualchunks.attributes import to_zarr
from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.group import ManifestGroup, subgroup
from virtualchunks.reading.blocks import BlockCache
from virtualchunks.reading.decode import cell_of, encode_cell, placed, row_encoding, transcode
from virtualchunks.reading.fetch import afetch, fetch
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable, Stamp
from virtualchunks.store_keys import DOCUMENT, ChunkKeys, ServedArray, clamp

if TYPE_CHECKING:
    import xarray

_RECTILINEAR = "array.rectilinear_chunks"


@dataclass(frozen=True, slots=True)
class _Reference:
    """The bytes of one chunk, found and not yet read."""

    served: ServedArray
    index: tuple[int, ...]
    sources: SourceTable
    source: int
    offset: int
    length: int

    @property
    def url(self) -> str:
        """Where the bytes are; empty where they are in memory."""
        return self.sources.url(self.source)

    @property
    def stamp(self) -> Stamp | None:
        """What is recorded of the object at the URL."""
        return self.sources.stamp(self.source) or None

    @property
    def held(self) -> memoryview | None:
        """The bytes, where they are in memory."""
        buffer = self.sources.buffer(self.source)
        return None if buffer is None else memoryview(buffer)[self.offset : self.offset + self.length]

    def wanted(self, request: ByteRequest | None) -> tuple[int, int]:
        """Return which part of the stored bytes a request on the served ones needs."""
        if not self.served.transcodes:
            return clamp(request, self.length)
        length = self.served.length(self.index)
        start, stop = clamp(request, sys.maxsize if length is None else length)
        return (0, self.length) if start < stop else (0, 0)

    def place(self) -> AbstractContextManager[None]:
        """Return a context that gives errors the place of this chunk."""
        return placed(
            url=self.url or None, variable=self.served.path, chunk=self.index, span=(self.offset, self.length)
        )

    def shared_block(self) -> tuple[Any, ...] | None:
        """Return a key for the decoded block, where that is several chunks."""
        if not self.served.shares_blocks:
            return None
        metadata = self.served.array.metadata
        encoding = row_encoding(metadata, self.sources, self.source)
        shape = metadata.grid.nominal_shape(self.index) if encoding.shape is None else encoding.shape
        where = self.url or (self.served.path, self.source)
        return where, self.stamp, self.offset, self.length, encoding.block_key, shape

    def transcoded(self, data: Any, request: ByteRequest | None, blocks: BlockCache, known: Any) -> bytes:
        """Return the part of the served bytes that is requested, from the bytes as they are stored, or their block."""
        array, key = self.served.array, self.shared_block()
        metadata, block = array.metadata, known
        with self.place():
            if key is None:
                return _part(transcode(array, self.index, data), request)
            encoding = row_encoding(metadata, self.sources, self.source)
            if block is None:
                block = decode_block(data, encoding, metadata.grid.nominal_shape(self.index))
                blocks.put(key, block)
            return _part(encode_cell(metadata, self.index, cell_of(metadata, encoding, self.index, block)), request)


class ManifestStore(Store):
    """A read-only Zarr store over a tree of arrays of chunk references.

    Parameters
    ----------
    group
        The tree.
    registry
        Which URLs may be read, and through which object stores: a registry, or a mapping of prefixes. ``None`` grants
        nothing, so that only metadata and chunks held in memory can be read.
    chunk_key_encoding
        How chunk keys are spelled: ``"default"`` (``c/0/1``), ``"v2"`` (``0.1``), or ``{"name": …, "separator": …}``.

    Notes
    -----
    Dimension names are served as they are; parsers make some up where a file has none.

    Arrays whose chunks all decode alike are served byte for byte, with their own codecs. Others are decoded chunk by
    chunk and served as plain little-endian bytes. Nothing is cached but metadata, and 64 MiB of blocks where one block
    is several chunks; there are no threads, no event loops and no open files, so a store may be forked and pickled.

    Examples
    --------
    >>> from virtualchunks.array import ManifestArray
    >>> from virtualchunks.manifest import ChunkManifest
    >>> from virtualchunks.metadata import ArrayMetadata
    >>> metadata = ArrayMetadata.build(shape=(2,), chunks=(2,), dtype="<i2", dimension_names=("x",))
    >>> array = ManifestArray(metadata, ChunkManifest.of_buffers([b"\\x01\\0\\x02\\0"], (1,)))
    >>> store = ManifestStore(ManifestGroup({"a": array}))
    >>> zarr.open_group(store, mode="r")["a"][:].tolist()
    [1, 2]
    """

    supports_writes: bool = False
    supports_deletes: bool = False
    supports_listing: bool = True

    def __init__(
        self,
        group: ManifestGroup,
        *,
        registry: ObjectStoreRegistry | Mapping[str, Any] | None = None,
        chunk_key_encoding: str | Mapping[str, Any] | ChunkKeys = "default",
    ) -> None:
        super().__init__(read_only=True)
        self._group = group
        self._registry = ObjectStoreRegistry.coerce(registry)
        self._keys = ChunkKeys.coerce(chunk_key_encoding)
        self._served: dict[str, ServedArray] = {}
        self._documents: dict[tuple[str, bool], bytes] = {}
        self._rectilinear: tuple[str, ...] | None = None
        self._blocks = BlockCache()

    @property
    def group(self) -> ManifestGroup:
        """The tree."""
        return self._group

    @property
    def registry(self) -> ObjectStoreRegistry:
        """Which URLs may be read, and through which object stores."""
        return self._registry

    @property
    def nbytes_virtual(self) -> int:
        """Bytes that the references of all arrays take in memory."""
        return self._group.nbytes_virtual

    def to_virtual_dataset(
        self, group: str = "", loadable_variables: Any = None, decode_times: Any = None, **options: Any
    ) -> xarray.Dataset:
        """Return a group as an xarray Dataset of ManifestArrays.

        Parameters
        ----------
        group
            Path of the group.
        loadable_variables, decode_times, **options
            As for :func:`virtualchunks.open_virtual_dataset`.

        Raises
        ------
        FormatError
            If there is no such group.
        """
        return subgroup(self._group, group).to_virtual_dataset(
            registry=self._registry, loadable_variables=loadable_variables, decode_times=decode_times, **options
        )

    def to_virtual_datatree(self, group: str = "", **options: Any) -> xarray.DataTree:
        """Return a group and those below it as an xarray DataTree of ManifestArrays; see :meth:`to_virtual_dataset`."""
        return subgroup(self._group, group).to_virtual_datatree(registry=self._registry, **options)

    # Keys

    def _walk(self, key: str) -> tuple[ManifestGroup | ServedArray, str, list[str]]:
        """Return the deepest node on the way to a key, its path, and what is left of the key."""
        parts = key.split("/")
        group = self._group
        for place, part in enumerate(parts):
            if part in group.arrays:
                path = "/".join(parts[: place + 1])
                served = self._served.get(path)
                if served is None:
                    served = self._served[path] = ServedArray(path, group.arrays[part], self._keys)
                return served, path, parts[place + 1 :]
            if part not in group.groups:
                return group, "/".join(parts[:place]), parts[place:]
            group = group.groups[part]
        return group, key, []

    def _find(self, key: str) -> bytes | _Reference | None:
        """Return the document or the reference under a key, ``None`` where there is none."""
        return self._found(*self._walk(key))

    def _found(self, node: ManifestGroup | ServedArray, path: str, rest: list[str]) -> bytes | _Reference | None:
        """Return what :meth:`_find` does, from where the walk along a key ended."""
        if rest == [DOCUMENT]:
            return self._array_document(node) if isinstance(node, ServedArray) else self._group_document(node, path)
        if not isinstance(node, ServedArray) or not rest:
            return None
        index = node.find("/".join(rest))
        if index is None:
            return None
        sources, source, length, offset = node.array.manifest.record(index)
        return _Reference(node, index, sources, source, offset, length)

    def _nodes(self, group: ManifestGroup, path: str) -> Iterator[tuple[str, ManifestGroup | ServedArray]]:
        """Iterate over a group and all below it."""
        yield path, group
        for name, array in group.arrays.items():
            below = f"{path}/{name}" if path else name
            yield below, self._served.get(below) or ServedArray(below, array, self._keys)
        for name, inner in group.groups.items():
            yield from self._nodes(inner, f"{path}/{name}" if path else name)

    # Metadata documents

    @property
    def rectilinear_arrays(self) -> tuple[str, ...]:
        """Paths of the arrays with rectilinear chunk grids, which zarr opens only when told to."""
        if self._rectilinear is None:
            paths = (path for path, array in self._group.walk_arrays() if not array.metadata.grid.is_regular)
            self._rectilinear = tuple(paths)
        return self._rectilinear

    @property
    def supports_consolidated_metadata(self) -> bool:
        """Whether groups carry the metadata of all below them.

        They do, unless that would hold rectilinear arrays while zarr's setting for these is off: then readers get to
        each array by itself, and to one clear error for those that they cannot open.
        """
        return bool(zarr.config.get(_RECTILINEAR, False)) or not self.rectilinear_arrays

    def _array_document(self, served: ServedArray) -> bytes:
        if served.is_rectilinear and not zarr.config.get(_RECTILINEAR, False):
            raise UnsupportedFeatureError(
                f"{_few(self.rectilinear_arrays)}: chunks of several lengths (a rectilinear chunk grid), which zarr "
                "opens only when told to: call zarr.config.set({'array.rectilinear_chunks': True}) first, or read with "
                ".virtual.open() or xarray.open_dataset(..., engine='virtualchunks'), which do so themselves",
                variable=served.path,
            )
        return served.document_bytes

    def _group_document(self, group: ManifestGroup, path: str) -> bytes:
        consolidated = self.supports_consolidated_metadata
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
            for inner, node in self._nodes(group, path)
            if node is not group
        }
        return {"kind": "inline", "must_understand": False, "metadata": below}

    # Reading

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the value under a key, or the part of it that is asked for; ``None`` where there is none.

        Raises
        ------
        ReadError
            If the bytes of a chunk are gone, changed or too few.
        NotGrantedError
            If the registry does not cover their URL.
        DecodeError
            If a chunk that must be decoded does not.
        """
        self._is_open = True
        place = self._walk(key)
        deferred = isinstance(place[0], ServedArray) and place[0].array.manifest.is_deferred
        found = await asyncio.to_thread(self._found, *place) if deferred else self._found(*place)
        buffer = (default_buffer_prototype() if prototype is None else prototype).buffer
        if not isinstance(found, _Reference):
            return None if found is None else buffer.from_bytes(_part(found, byte_range))
        start, stop = found.wanted(byte_range)
        block = self._blocks.get(found.shared_block()) if found.served.shares_blocks else None
        data: Any = b"" if found.held is None else found.held[start:stop]
        if found.held is None and start < stop and block is None:
            with found.place():
                ranges = [(found.offset + start, stop - start)]
                [data] = await afetch(self._registry, found.url, ranges, found.stamp)
        if found.served.transcodes and start < stop:
            data = await asyncio.to_thread(found.transcoded, data, byte_range, self._blocks, block)
        return buffer.from_bytes(data)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what :meth:`get` does, without an event loop."""
        self._is_open = True
        found = self._find(key)
        buffer = (default_buffer_prototype() if prototype is None else prototype).buffer
        if not isinstance(found, _Reference):
            return None if found is None else buffer.from_bytes(_part(found, byte_range))
        start, stop = found.wanted(byte_range)
        block = self._blocks.get(found.shared_block()) if found.served.shares_blocks else None
        data: Any = b"" if found.held is None else found.held[start:stop]
        if found.held is None and start < stop and block is None:
            with found.place():
                [data] = fetch(self._registry, found.url, [(found.offset + start, stop - start)], found.stamp)
        if found.served.transcodes and start < stop:
            data = found.transcoded(data, byte_range, self._blocks, block)
        return buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of several values, in the order asked for."""
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    async def exists(self, key: str) -> bool:
        """Return whether there is a value under a key, without reading it."""
        self._is_open = True
        node, _, rest = self._walk(key)
        return rest == [DOCUMENT] or (isinstance(node, ServedArray) and node.find("/".join(rest)) is not None)

    async def getsize(self, key: str) -> int:
        """Return the length of the value under a key, without reading it.

        Raises
        ------
        FileNotFoundError
            If there is none: zarr's way to say that a key is absent.
        """
        found = self._find(key)
        if found is None:
            raise FileNotFoundError(key)
        length = len(found) if isinstance(found, bytes) else found.served.length(found.index)
        return await super().getsize(key) if length is None else length

    async def getsize_prefix(self, prefix: str) -> int:
        """Return the length of all values below a path, without reading them."""
        path = prefix.rstrip("/")
        node, found_path, rest = self._walk(path) if path else (self._group, "", [])
        if rest:
            return sum([await self.getsize(key) for key in self._keys_below(node, found_path, f"{path}/")])
        if isinstance(node, ServedArray):
            return await self._array_size(node)
        total = 0
        for inner_path, inner in self._nodes(node, found_path):
            if isinstance(inner, ServedArray):
                total += await self._array_size(inner)
            else:
                total += len(self._group_document(inner, inner_path))
        return total

    async def _array_size(self, served: ServedArray) -> int:
        total = served.total()
        if total is None:
            total = sum([await self.getsize(f"{served.path}/{key}") for key in served.chunk_keys()])
        return total + len(served.document_bytes)

    # Listing

    def _keys_below(self, node: ManifestGroup | ServedArray, path: str, prefix: str) -> Iterator[str]:
        """Iterate over the keys below a node that begin with a prefix."""
        for below, inner in [(path, node)] if isinstance(node, ServedArray) else self._nodes(node, path):
            base = f"{below}/" if below else ""
            if isinstance(inner, ManifestGroup):
                keys: Iterable[str] = (DOCUMENT,)
            elif base.startswith(prefix) or prefix.startswith(base):
                keys = itertools.chain((DOCUMENT,), inner.chunk_keys())
            else:
                continue
            yield from (key for key in map(base.__add__, keys) if key.startswith(prefix))

    async def list(self) -> AsyncIterator[str]:
        """Iterate over all keys."""
        for key in self._keys_below(self._group, "", ""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Iterate over the keys that begin with a prefix."""
        node, path, _ = self._walk(prefix.rpartition("/")[0]) if "/" in prefix else (self._group, "", [])
        for key in self._keys_below(node, path, prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Iterate over the names directly below a path."""
        path = prefix.rstrip("/")
        node, _, rest = self._walk(path) if path else (self._group, "", [])
        if isinstance(node, ServedArray):
            for name in node.children(rest):
                yield name
        elif not rest:
            yield DOCUMENT
            for name in node:
                yield name

    # A store that cannot be written

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse."""
        self._refuse()

    async def delete(self, key: str) -> None:
        """Refuse."""
        self._refuse()

    def set_sync(self, key: str, value: Buffer) -> None:
        """Refuse."""
        self._refuse()

    def delete_sync(self, key: str) -> None:
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        self._check_writable()
        raise AssertionError("a ManifestStore is always read-only")

    def with_read_only(self, read_only: bool = False) -> Self:
        """Return the store itself, which is read-only.

        Raises
        ------
        ValueError
            If a writable one is asked for.
        """
        if not read_only:
            raise ValueError(
                "a ManifestStore is read-only: it refers to files that it does not own. Write its references with "
                ".virtual.to_icechunk() and open those for writing"
            )
        return self

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, ManifestStore):
            return NotImplemented
        return (self._keys, self._registry) == (other._keys, other._registry) and self._group == other._group

    __hash__ = None  # type: ignore[assignment]  # compares by content

    def __repr__(self) -> str:
        return f"ManifestStore({self._group!r}, registry of {len(self._registry)} prefixes)"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._group, self._registry, self._keys)


def _rebuild(
    cls: type[ManifestStore], group: ManifestGroup, registry: ObjectStoreRegistry, keys: ChunkKeys
) -> ManifestStore:
    return cls(group, registry=registry, chunk_key_encoding=keys)


def _own_document(group: ManifestGroup) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": to_zarr(group.attributes)}


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more arrays"


def _part(value: bytes, byte_range: ByteRequest | None) -> bytes:
    start, stop = clamp(byte_range, len(value))
    return value if stop - start == len(value) else value[start:stop]
