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
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy.typing as npt
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from virtualchunks.array import ManifestArray
from virtualchunks.attributes import to_zarr
from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks.group import ManifestGroup, subgroup
from virtualchunks.reading.planning import ReadPlan, plan_values
from virtualchunks.reading.tally import ReadStats
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.store_chunks import ChunkServer, part_of
from virtualchunks.store_keys import DOCUMENT, ChunkKeys, Reference, ServedArray

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
        self._last: tuple[str, ServedArray | None] = ("/", None)
        self._chunks = ChunkServer(self._registry)

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
        return read_values(self._array(path), self._registry, selection, name=path, tally=self._chunks.tally)

    def plan(self, path: str, selection: Any = None) -> ReadPlan:
        """Say what :meth:`read` takes: requests, bytes, objects and chunks. Nothing is read."""
        return plan_values(self._array(path), self._registry, selection, name=path)

    def stats(self, *, reset: bool = False) -> ReadStats:
        """Return what this store has read: requests, bytes, chunks and hits of its cache.

        Parameters
        ----------
        reset
            Whether counting begins anew.
        """
        return self._chunks.tally.stats(reset=reset)

    def _array(self, path: str) -> ManifestArray:
        folder, _, name = path.rpartition("/")
        arrays = subgroup(self._group, folder).arrays
        if name not in arrays:
            raise FormatError(f"no array {path!r}; known in its group are {_few(list(arrays))}", variable=path)
        return arrays[name]

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

    def _find(self, key: str) -> bytes | Reference | None:
        """Return the document or the reference under a key, ``None`` where there is none."""
        prefix, served = self._last
        if served is not None and key.startswith(prefix) and not key.endswith(DOCUMENT):
            return served.spelled(key[len(prefix) :])
        node, path, rest = self._walk(key)
        if rest == [DOCUMENT]:
            return self._array_document(node) if isinstance(node, ServedArray) else self._group_document(node, path)
        if not isinstance(node, ServedArray) or not rest:
            return None
        self._last = node.prefix, node
        return node.reference("/".join(rest))

    def _is_deferred(self, key: str) -> bool:
        """Return whether finding a chunk may take the loading of its record."""
        prefix, served = self._last
        node = served if key.startswith(prefix) else self._walk(key)[0]
        return isinstance(node, ServedArray) and node.array.manifest.is_deferred

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
        found = await asyncio.to_thread(self._find, key) if self._is_deferred(key) else self._find(key)
        if isinstance(found, Reference):
            found = await self._chunks.aserve(found, byte_range)
        elif found is not None:
            found = part_of(found, byte_range)
        return _buffer(found, prototype)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what :meth:`get` does, without an event loop."""
        self._is_open = True
        found = self._find(key)
        if isinstance(found, Reference):
            found = self._chunks.serve(found, byte_range)
        elif found is not None:
            found = part_of(found, byte_range)
        return _buffer(found, prototype)

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


def _buffer(data: Any, prototype: BufferPrototype | None) -> Buffer | None:
    if data is None:
        return None
    return (default_buffer_prototype() if prototype is None else prototype).buffer.from_bytes(data)


def _own_document(group: ManifestGroup) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": to_zarr(group.attributes)}


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more arrays"
