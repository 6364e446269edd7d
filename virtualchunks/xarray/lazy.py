"""Values read when they are indexed: what ``.virtual.open()`` and ``engine="virtualchunks"`` hand to xarray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from virtualchunks.array import ManifestArray
from virtualchunks.reading.blocks import BlockCache
from virtualchunks.reading.tally import Tally
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.xarray.decoding import plain_values, text_encoding


class ReferencedArray(BackendArray):
    """The values of a ManifestArray, read selection by selection. It pickles, and any number of threads may read it.

    Parameters
    ----------
    array
        The references.
    registry
        What may be read.
    name
        What errors call the array.
    cache
        Decoded chunks, kept for later reads.
    tally
        Where what is read is counted, in this process.
    """

    def __init__(
        self,
        array: ManifestArray,
        registry: ObjectStoreRegistry,
        name: str,
        cache: BlockCache | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.array = array
        self.registry = registry
        self.name = name
        self.cache = cache
        self.tally = tally
        self.shape = array.shape
        self.dtype = np.dtype(object) if array.dtype.kind == "T" else array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> npt.NDArray[Any]:
        """Read a selection."""
        values: npt.NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )
        return values

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        from virtualchunks.reading.values import read_values  # decoding needs zarr, which is slow to import

        found = read_values(self.array, self.registry, key, name=self.name, tally=self.tally, cache=self.cache)
        values: npt.NDArray[Any] = plain_values(found)
        return values


def lazy_variable(
    name: str,
    dimensions: tuple[Any, ...],
    array: ManifestArray,
    attributes: Mapping[str, Any],
    registry: ObjectStoreRegistry,
    cache: BlockCache | None = None,
    tally: Tally | None = None,
) -> xr.Variable:
    """Return a variable whose stored values are read when they are indexed.

    Parameters
    ----------
    name
        Its name.
    dimensions, attributes
        Of the variable.
    array
        Its references.
    registry
        What may be read.
    cache, tally
        As for :class:`ReferencedArray`.
    """
    data = indexing.LazilyIndexedArray(ReferencedArray(array, registry, name, cache, tally))
    encoding = {**text_encoding(array.dtype), **_chunk_encoding(dimensions, array)}
    return xr.Variable(dimensions, data, dict(attributes), encoding)


def _chunk_encoding(dimensions: tuple[Any, ...], array: ManifestArray) -> dict[str, Any]:
    """Return the chunks in the words of xarray's Zarr backend, which ``chunks={}`` follows."""
    grid = array.metadata.grid
    if not grid.ndim:
        return {}
    sizes = [
        axis.chunk if axis.chunk is not None else tuple(size for size in axis.cells.tolist() if size)
        for axis in grid.axes
    ]
    preferred = dict(zip(dimensions, sizes, strict=True))
    return (
        {"chunks": tuple(sizes), "preferred_chunks": preferred} if grid.is_regular else {"preferred_chunks": preferred}
    )
