"""Values that no reference can stand for, read while the file is parsed and kept in memory.

Text of variable length lies in a heap of its own, apart from the chunks, and some types are stored unlike any dtype.
The HDF5 library reads these types, and such text where its places stand in chunks; how much is kept is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding, bytes_codec
from virtualchunks.errors import LimitExceededError, UnsupportedFeatureError
from virtualchunks.grid import ChunkGrid
from virtualchunks.inline import encode_array
from virtualchunks.metadata import ArrayMetadata
from virtualchunks_parsers.hdf5.file import text
from virtualchunks_parsers.hdf5.filters import filter_codecs
from virtualchunks_parsers.hdf5.objects import CHUNKED, VIRTUAL
from virtualchunks_parsers.hdf5.storage import Dataset, fill_value

#: Bytes of one array that are kept in memory.
MOST_BYTES = 256 << 20
#: What one string costs before it has any text.
STRING_BYTES = 16
#: The chunks of the file are kept up to this many; a larger array becomes one chunk.
MOST_CHUNKS = 4096
#: Strings read in one go.
BATCH = 1 << 16


def read_values(dataset: Dataset) -> ManifestArray:
    """Return a dataset as an array whose chunks are held in memory.

    Raises
    ------
    LimitExceededError
        If its values are too large for that.
    UnsupportedFeatureError
        If they lie in other files, which only references through the registry may reach, or behind a filter that the
        HDF5 library has not.
    """
    if dataset.facts.layout == VIRTUAL or dataset.facts.is_external:
        raise UnsupportedFeatureError("elements that only the HDF5 library can convert, stored in other files")
    _require(math.prod(dataset.shape) * (STRING_BYTES if dataset.element.is_text else dataset.element.dtype.itemsize))
    if dataset.facts.pipeline:
        filter_codecs(dataset.facts.pipeline, dtype=np.dtype("u1"), chunk_shape=dataset.facts.chunk)
    values = _strings(dataset) if dataset.element.is_text else _converted(dataset)
    plain = values.dtype
    codec = {"name": "vlen-utf8"} if dataset.element.is_text else bytes_codec(plain)
    fill = fill_value(dataset, required=False)
    metadata = ArrayMetadata(_grid(dataset), plain, ChunkEncoding(plain, (codec,)), fill)
    return ManifestArray(metadata, encode_array(values, metadata))


def _grid(dataset: Dataset) -> ChunkGrid:
    if dataset.facts.layout == CHUNKED:
        grid = ChunkGrid.regular(dataset.shape, (*dataset.facts.chunk, *dataset.element.shape))
        if grid.size <= MOST_CHUNKS:
            return grid
    return dataset.whole()


def _require(nbytes: int) -> None:
    if nbytes > MOST_BYTES:
        raise LimitExceededError(
            f"its values cannot be referred to and would take more than {MOST_BYTES >> 20} MiB in memory; "
            "rewrite it with elements of fixed size, or leave it out with drop_variables"
        )


def _strings(dataset: Dataset) -> npt.NDArray[Any]:
    texts = dataset.found.texts() if math.prod(dataset.shape) else None
    if texts is not None:
        return _array_of(texts, dataset.shape)
    values = np.empty(dataset.shape, dtype=np.dtypes.StringDType())
    source, held = h5py.Dataset(dataset.found.library()), math.prod(dataset.shape) * STRING_BYTES
    for selection in _batches(dataset.shape):
        part = np.asarray(source[selection], dtype=object)
        strings = [text(item) for item in part.ravel()]
        held += sum(map(len, strings))
        _require(held)
        values[selection] = np.array(strings, dtype=values.dtype).reshape(part.shape)
    return values


def _array_of(texts: Iterable[bytes], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return texts as an array; no more of them at a time are Python's strings than are read in one go."""
    waiting = iter(texts)
    values = np.empty(math.prod(shape), dtype=np.dtypes.StringDType())
    held = len(values) * STRING_BYTES
    for start in range(0, len(values), BATCH):
        strings = [text(raw) for raw in islice(waiting, BATCH)]
        held += sum(map(len, strings))
        _require(held)
        values[start : start + len(strings)] = strings
    return values.reshape(shape)


def _batches(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Selections along the first axis, each of a bounded number of elements."""
    if not math.prod(shape):
        return []
    if not shape:
        return [()]
    rows = max(1, BATCH // math.prod(shape[1:]))
    return [(slice(start, start + rows),) for start in range(0, shape[0], rows)]


def _converted(dataset: Dataset) -> npt.NDArray[Any]:
    element = dataset.element
    native = element.dtype.newbyteorder("<")
    if not math.prod(dataset.shape):
        return np.empty(dataset.shape, dtype=native)
    values = np.asarray(h5py.Dataset(dataset.found.library())[()])
    if element.memory is None:
        return values.astype(native)
    packed = values.astype(element.memory.newbyteorder("<"))
    return np.ascontiguousarray(packed).view(native).reshape(dataset.shape)
