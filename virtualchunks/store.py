"""ManifestStore: a tree of arrays of chunk references, served as a read-only Zarr store.

zarr and xarray read from it as from any store: metadata documents are made up from the tree, and the bytes of a chunk
come from where its record says, through the registry, checked. A chunk that the manifest lacks is absent, so that
readers fill; one that cannot be read, or is not what was parsed, raises.

How keys are spelled is the business of :mod:`virtualchunks.store_keys`; how bytes are fetched, of
:mod:`virtualchunks.reading`.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy.typing as npt
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from virtualchunks.group import ManifestGroup, subgroup
from virtualchunks.reading.blocks import BlockCache
from virtualchunks.reading.planning import ReadPlan, plan_values
from virtualchunks.reading.tally import ReadStats, Tally
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.store_chunks import ChunkServer, part_of
from virtualchunks.store_keys import DOCUMENT, ChunkKeys, Reference, ServedArray
from virtualchunks.store_tree import ServedTree

if TYPE_CHECKING:
    import xarray

_RECTILINEAR = "array.rectilinear_chunks"


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
    cache_bytes
        Bytes of decoded chunks that are kept for later reads, by :meth:`read` and through :meth:`to_xarray` and
        :meth:`to_zarr`; by default none.

    Notes
    -----
    Dimension names are served as they are; parsers make some up where a file has none.

    Arrays whose chunks all decode alike are served byte for byte, with their own codecs. Others are decoded chunk by
    chunk and served as plain little-endian bytes. Unless `cache_bytes` says otherwise, nothing is kept but metadata,
    some local files open and what was read ahead of them, and 64 MiB of blocks where one block is several chunks. There
    are no threads and no event loops, so a store may be forked and pickled; one that is pickled has no files open.

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
        cache_bytes: int = 0,
    ) -> None:
        super().__init__(read_only=True)
        self._group = group
        self._registry = ObjectStoreRegistry.coerce(registry)
        self._keys = ChunkKeys.coerce(chunk_key_encoding)
        self._tree = ServedTree(group, self._keys)
        self._chunks = ChunkServer(self._registry, BlockCache(cache_bytes) if cache_bytes > 0 else None)

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

    # Reading in bulk

    def read(self, path: str, selection: Any = None) -> npt.NDArray[Any]:
        """Read a selection of an array as it is referred to, in merged requests and without zarr.

        Parameters
        ----------
        path
            Of the array.
        selection
            What to read, as for :func:`~virtualchunks.reading.cuts.cut_axes`; by default everything.

        Raises
        ------
        FormatError
            If there is no such array.
        ReadError, NotGrantedError, DecodeError
            As :func:`~virtualchunks.reading.values.read_values`.
        """
        array = self._tree.array(path)
        return read_values(array, self._registry, selection, name=path, tally=self.tally, cache=self.cache)

    def plan(self, path: str, selection: Any = None) -> ReadPlan:
        """Say what :meth:`read` takes: requests, bytes, objects and chunks. Nothing is read."""
        return plan_values(self._tree.array(path), self._registry, selection, name=path)

    def stats(self, *, reset: bool = False) -> ReadStats:
        """Return what this store has read: requests, bytes, chunks and hits of its cache.

        Parameters
        ----------
        reset
            Whether counting begins anew.
        """
        return self.tally.stats(reset=reset)

    @property
    def tally(self) -> Tally:
        """Where what is read is counted."""
        return self._chunks.tally

    @property
    def cache(self) -> BlockCache | None:
        """The decoded chunks that are kept; None where none are."""
        return self._chunks.cache

    def with_cache(self, cache_bytes: int) -> ManifestStore:
        """Return a store of the same tree that keeps decoded chunks for later reads.

        Parameters
        ----------
        cache_bytes
            Bytes that are kept; 0 for none. A pickled store keeps as many, and begins with none.
        """
        return type(self)(self._group, registry=self._registry, chunk_key_encoding=self._keys, cache_bytes=cache_bytes)

    def to_xarray(self, group: str = "", **decoding: Any) -> xarray.Dataset:
        """Return a group as an xarray Dataset of values, which are read in bulk when they are indexed.

        Parameters
        ----------
        group
            Path of the group.
        **decoding
            As for :func:`xarray.open_dataset`: ``chunks``, ``mask_and_scale``, ``decode_times``, …

        Raises
        ------
        FormatError
            If there is no such group.
        """
        import xarray

        return xarray.open_dataset(self, engine="virtualchunks", group=group or None, **decoding)  # type: ignore[arg-type]

    def to_zarr(self, path: str = "") -> zarr.Group | zarr.Array[Any]:
        """Return a node as a Zarr group or array that reads each selection in bulk, and cannot be written.

        Parameters
        ----------
        path
            Of the group or array.

        Raises
        ------
        FileNotFoundError
            If there is no such node.
        """
        made: zarr.Group | zarr.Array[Any] = importlib.import_module("virtualchunks.pipeline").open_in_bulk(self, path)
        return made

    @property
    def tree(self) -> ServedTree:
        """The tree, as it is served."""
        return self._tree

    @property
    def rectilinear_arrays(self) -> tuple[str, ...]:
        """Paths of the arrays with rectilinear chunk grids, which zarr opens only when told to."""
        return self._tree.rectilinear_arrays

    @property
    def supports_consolidated_metadata(self) -> bool:
        """Whether groups carry the metadata of all below them.

        They do, unless that would hold rectilinear arrays while zarr's setting for these is off: then readers get to
        each array by itself, and to one clear error for those that they cannot open.
        """
        return self._tree.is_consolidated

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
        found = await asyncio.to_thread(self._tree.find, key) if self._tree.is_deferred(key) else self._tree.find(key)
        if found is None:
            return None
        if isinstance(found, Reference):
            data = None if byte_range is not None else self._chunks.at_hand(found)
            return _buffer(await self._chunks.aserve(found, byte_range) if data is None else data, prototype)
        return _buffer(part_of(found, byte_range), prototype)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what :meth:`get` does, without an event loop."""
        self._is_open = True
        found = self._tree.find(key)
        if found is None:
            return None
        data = self._chunks.serve(found, byte_range) if isinstance(found, Reference) else part_of(found, byte_range)
        return _buffer(data, prototype)

    def close(self) -> None:
        """Let go of the files that are open; whoever reads after that opens them again."""
        self._chunks.reader.close()
        super().close()

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of several values, in the order asked for."""
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    async def exists(self, key: str) -> bool:
        """Return whether there is a value under a key, without reading it."""
        self._is_open = True
        node, _, rest = self._tree.walk(key)
        return rest == [DOCUMENT] or (isinstance(node, ServedArray) and node.find("/".join(rest)) is not None)

    async def getsize(self, key: str) -> int:
        """Return the length of the value under a key, without reading it.

        Raises
        ------
        FileNotFoundError
            If there is none: zarr's way to say that a key is absent.
        """
        found = self._tree.find(key)
        if found is None:
            raise FileNotFoundError(key)
        length = len(found) if isinstance(found, bytes) else found.served.length(found.chunk)
        return await super().getsize(key) if length is None else length

    async def getsize_prefix(self, prefix: str) -> int:
        """Return the length of all values below a path, without reading them."""
        path = prefix.rstrip("/")
        node, found_path, rest = self._tree.walk(path) if path else (self._group, "", [])
        if rest:
            return sum([await self.getsize(key) for key in self._tree.keys_below(node, found_path, f"{path}/")])
        if isinstance(node, ServedArray):
            return await self._array_size(node)
        total = 0
        for inner_path, inner in self._tree.nodes(node, found_path):
            if isinstance(inner, ServedArray):
                total += await self._array_size(inner)
            else:
                total += len(self._tree.group_document(inner, inner_path))
        return total

    async def _array_size(self, served: ServedArray) -> int:
        total = served.total()
        if total is None:
            total = sum([await self.getsize(f"{served.path}/{key}") for key in served.chunk_keys()])
        return total + len(served.document_bytes)

    # Listing

    async def list(self) -> AsyncIterator[str]:
        """Iterate over all keys."""
        for key in self._tree.keys_below(self._group, "", ""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Iterate over the keys that begin with a prefix."""
        node, path, _ = self._tree.walk(prefix.rpartition("/")[0]) if "/" in prefix else (self._group, "", [])
        for key in self._tree.keys_below(node, path, prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Iterate over the names directly below a path."""
        path = prefix.rstrip("/")
        node, _, rest = self._tree.walk(path) if path else (self._group, "", [])
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
        cache_bytes = 0 if self.cache is None else self.cache.limit
        return _rebuild, (type(self), self._group, self._registry, self._keys, cache_bytes)


def _rebuild(
    cls: type[ManifestStore], group: ManifestGroup, registry: ObjectStoreRegistry, keys: ChunkKeys, cache_bytes: int = 0
) -> ManifestStore:
    return cls(group, registry=registry, chunk_key_encoding=keys, cache_bytes=cache_bytes)


def _buffer(data: Any, prototype: BufferPrototype | None) -> Buffer:
    return (default_buffer_prototype() if prototype is None else prototype).buffer.from_bytes(data)
