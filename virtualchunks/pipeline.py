"""Zarr groups and arrays that read through the planner: a codec pipeline of ours, and the nodes that carry it.

Zarr hands a codec pipeline all chunks of a selection at once. Ours reads those of a :class:`ManifestStore` in merged
requests and decodes them straight into place; whatever else it is asked for, the pipeline that zarr is configured to
use does. Nothing of zarr's configuration is changed: the arrays that :meth:`ManifestStore.to_zarr` returns, and those
reached from its groups, carry the pipeline themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.codec import Codec, CodecPipeline, GetResult
from zarr.abc.store import ByteGetter, ByteSetter
from zarr.core.array import AsyncArray
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.group import AsyncGroup
from zarr.storage import StorePath

from virtualchunks.reading.scattered import read_scattered
from virtualchunks.store import ManifestStore

#: A chunk that zarr asks for: where its bytes are, what it is, what is taken of it, where that goes, if it is all.
Asked = tuple[ByteGetter, ArraySpec, Any, Any, bool]


@dataclass(frozen=True)
class BulkPipeline(CodecPipeline):
    """A codec pipeline that reads the chunks of a selection together.

    Parameters
    ----------
    inner
        What encodes, decodes, writes, and reads what is not referred to.
    """

    inner: CodecPipeline

    @classmethod
    def from_codecs(cls, codecs: Iterable[Codec]) -> BulkPipeline:
        """Return a pipeline of codecs."""
        return cls(zarr.registry.get_pipeline_class().from_codecs(codecs))

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> BulkPipeline:
        """Return the pipeline for chunks of one kind."""
        return BulkPipeline(self.inner.evolve_from_array_spec(array_spec))

    def __iter__(self) -> Iterator[Codec]:
        return iter(self.inner)  # type: ignore[call-overload,no-any-return]  # all of zarr's pipelines iterate

    @property
    def supports_partial_decode(self) -> bool:
        """Whether parts of a chunk are decoded by themselves."""
        return self.inner.supports_partial_decode

    @property
    def supports_partial_encode(self) -> bool:
        """Whether parts of a chunk are encoded by themselves."""
        return self.inner.supports_partial_encode

    def validate(self, **what: Any) -> None:
        """Raise where the codecs do not fit an array."""
        self.inner.validate(**what)

    def compute_encoded_size(self, byte_length: int, array_spec: ArraySpec) -> int:
        """Return the length of encoded bytes."""
        return self.inner.compute_encoded_size(byte_length, array_spec)

    async def decode(self, chunk_bytes_and_specs: Iterable[tuple[Buffer | None, ArraySpec]]) -> Any:
        """Decode chunks."""
        return await self.inner.decode(chunk_bytes_and_specs)

    async def encode(self, chunk_arrays_and_specs: Iterable[tuple[NDBuffer | None, ArraySpec]]) -> Any:
        """Encode chunks."""
        return await self.inner.encode(chunk_arrays_and_specs)

    async def write(
        self,
        batch_info: Iterable[tuple[ByteSetter, ArraySpec, Any, Any, bool]],
        value: NDBuffer,
        drop_axes: tuple[int, ...] = (),
    ) -> None:
        """Write chunks, which a store of references refuses."""
        await self.inner.write(batch_info, value, drop_axes)

    async def read(
        self, batch_info: Iterable[Asked], out: NDBuffer, drop_axes: tuple[int, ...] = ()
    ) -> tuple[GetResult, ...]:
        """Read chunks into place.

        Raises
        ------
        ReadError, NotGrantedError, DecodeError
            As :meth:`ManifestStore.get`.
        """
        batch = list(batch_info)
        target = out.as_ndarray_like()
        found = None if self.supports_partial_decode or not isinstance(target, np.ndarray) else _Selection.of(batch)
        if found is None or found.dtype != target.dtype:
            return await self.inner.read(batch, out, drop_axes)
        present = await asyncio.to_thread(found.read, cast("npt.NDArray[Any]", target), drop_axes)
        return tuple(GetResult(status="present" if there else "missing") for there in present.tolist())


@dataclass(frozen=True, eq=False)
class _Selection:
    """Chunks of one array of a store, as zarr asks for them."""

    store: ManifestStore
    path: str
    indices: list[tuple[int, ...]]
    batch: list[Asked]

    @classmethod
    def of(cls, batch: list[Asked]) -> _Selection | None:
        """Return what a batch asks for; ``None`` where that is not chunks of an array of references."""
        getters = [entry[0] for entry in batch]
        if not getters or not all(isinstance(getter, StorePath) for getter in getters):
            return None
        store = getters[0].store  # type: ignore[attr-defined]
        if not isinstance(store, ManifestStore):
            return None
        found = store.tree.locate_chunks([getter.path for getter in getters])  # type: ignore[attr-defined]
        return None if found is None else cls(store, *found, batch=batch)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values."""
        return self.store.tree.served(self.path).metadata.dtype

    def read(self, target: npt.NDArray[Any], drop_axes: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Read everything into place; return which chunks there are."""
        batch = self.batch

        def use(number: int, block: npt.NDArray[Any]) -> None:
            _, spec, within, place, _ = batch[number]
            part = _whole(block, spec.shape)[within]
            target[place] = part.squeeze(axis=drop_axes) if drop_axes else part

        served = self.store.tree.served(self.path)
        present = read_scattered(
            served.array,
            self.store.registry,
            self.indices,
            use,
            name=self.path,
            tally=self.store.tally,
            cache=self.store.cache,
        )
        for number in np.flatnonzero(~present).tolist():
            target[batch[number][3]] = served.metadata.fill_value
        return present


def _whole(block: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return a block as long as the chunk along each axis: what lies beyond the array is never selected."""
    if all(found >= wanted for found, wanted in zip(block.shape, shape, strict=True)):
        return block
    padded = np.zeros(shape, dtype=block.dtype)
    padded[tuple(map(slice, block.shape))] = block
    return padded


@dataclass(frozen=True)
class BulkGroup(AsyncGroup):
    """A Zarr group whose arrays read through :class:`BulkPipeline`."""

    async def getitem(self, key: str) -> Any:
        """Return a node below the group."""
        return in_bulk(await super().getitem(key))

    async def members(
        self, max_depth: int | None = 0, *, use_consolidated_for_children: bool = True
    ) -> AsyncGenerator[tuple[str, Any], None]:
        """Iterate over the nodes below the group."""
        below = super().members(max_depth, use_consolidated_for_children=use_consolidated_for_children)
        async for name, node in below:
            yield name, in_bulk(node)


def in_bulk(node: Any) -> Any:
    """Return one of zarr's asynchronous nodes, so that it and what lies below it reads through the planner."""
    if isinstance(node, AsyncArray):
        object.__setattr__(node, "codec_pipeline", BulkPipeline(node.codec_pipeline))
        return node
    return BulkGroup(metadata=node.metadata, store_path=node.store_path)


def open_in_bulk(store: ManifestStore, path: str) -> zarr.Group | zarr.Array[Any]:
    """Open a node of a store; see :meth:`ManifestStore.to_zarr`."""
    node: Any = zarr.open(store, path=path, mode="r", zarr_format=3)
    if isinstance(node, zarr.Array):
        return zarr.Array(in_bulk(node.async_array))
    return zarr.Group(in_bulk(node._async_group))
