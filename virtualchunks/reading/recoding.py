"""Recoding: chunks fetched with merged requests, decoded to their cells, and made into other bytes.

What is held at a time is bounded: the bytes of one batch of chunks, and one block for each thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.reading.decode import Block, placed, row_encoding
from virtualchunks.reading.fetch import fetch
from virtualchunks.reading.values import OBJECTS_AT_ONCE, Blocks
from virtualchunks.registry import ObjectStoreRegistry

Ints = npt.NDArray[np.int64]
Index = tuple[int, ...]

#: Bytes that are fetched before any of them is let go of.
BATCH_BYTES = 64 << 20


class Spans(NamedTuple):
    """Chunks in the order in which their bytes lie.

    Parameters
    ----------
    numbers
        Their numbers in C order.
    objects
        The number of the object of each.
    fresh
        The bytes of each; 0 where they are those of the chunk before it.
    """

    numbers: Ints
    objects: Ints
    fresh: Ints

    @classmethod
    def of(cls, array: ManifestArray, numbers: Ints) -> Spans:
        """Return chunks of an array, none of them missing, in the order of their bytes.

        Parameters
        ----------
        array
            The array.
        numbers
            Numbers of the chunks in C order.
        """
        records = array.manifest.records.reshape(-1)[numbers]
        rows, places = np.unique(records["source"], return_inverse=True)
        known: dict[Any, int] = {}
        table = array.manifest.sources
        identities = [(table.url(row), table.stamp(row)) if table.url(row) else row for row in rows.tolist()]
        objects = np.array([known.setdefault(one, len(known)) for one in identities], dtype=np.int64)[places]
        order = np.lexsort((records["length"], records["offset"], objects))
        offsets, lengths = records["offset"][order].astype(np.int64), records["length"][order].astype(np.int64)
        objects = objects[order]
        known_already = np.zeros(len(order), dtype=bool)
        known_already[1:] = (np.diff(objects) == 0) & (np.diff(offsets) == 0) & (np.diff(lengths) == 0)
        return cls(numbers[order], objects, np.where(known_already, 0, lengths))

    def batches(self, size: int) -> Iterator[list[Ints]]:
        """Iterate over the numbers of the chunks, those of about `size` bytes at a time, object by object."""
        batch = (np.cumsum(self.fresh) - self.fresh) // size
        for places in np.split(np.arange(len(batch)), np.flatnonzero(np.diff(batch)) + 1):
            cuts = np.flatnonzero(np.diff(self.objects[places])) + 1
            yield [part for part in np.split(self.numbers[places], cuts) if len(part)]


def recoded(
    array: ManifestArray,
    numbers: Ints,
    registry: ObjectStoreRegistry,
    encode: Callable[[Index, Block], bytes],
    *,
    name: str | None = None,
) -> Iterator[tuple[Index, bytes]]:
    """Iterate over chunks of an array, read and encoded anew.

    Parameters
    ----------
    array
        The array.
    numbers
        Numbers of the chunks in C order; none of them is missing.
    registry
        Which must grant their objects.
    encode
        From the index of a chunk and the values of its cell to its new bytes. It is called in threads.
    name
        What errors call the array.

    Yields
    ------
    tuple
        Index of a chunk, and its bytes.

    Raises
    ------
    ReadError, NotGrantedError, DecodeError
        As :func:`~virtualchunks.reading.values.read_values`.
    """
    with ThreadPoolExecutor(OBJECTS_AT_ONCE, "virtualchunks-recode") as pool:
        for parts in Spans.of(array, numbers).batches(BATCH_BYTES):
            for made in pool.map(lambda part: _recoded(array, part, registry, encode, name), parts):
                yield from made


def _recoded(
    array: ManifestArray,
    numbers: Ints,
    registry: ObjectStoreRegistry,
    encode: Callable[[Index, Block], bytes],
    name: str | None,
) -> list[tuple[Index, bytes]]:
    """Return chunks of one object, each distinct block decoded once."""
    manifest, metadata = array.manifest, array.metadata
    records = manifest.records.reshape(-1)[numbers]
    spans = list(zip(records["offset"].tolist(), records["length"].tolist(), strict=True))
    rows = records["source"].tolist()
    url = manifest.sources.url(rows[0]) or None
    shape = manifest.shape_chunk_grid
    places = np.stack(np.unravel_index(numbers, shape), axis=1).tolist() if shape else [()]
    held = manifest.sources.buffer(rows[0])
    blocks, made = Blocks(metadata), []
    with placed(url=url, variable=name):
        if held is not None:
            data = [memoryview(held)[offset : offset + length] for offset, length in spans]
        else:
            data = fetch(registry, manifest.sources.url(rows[0]), spans, manifest.sources.stamp(rows[0]) or None)
    for index, span, row, part in zip(map(tuple, places), spans, rows, data, strict=True):
        with placed(url=url, variable=name, chunk=index, span=span):
            cell = blocks.cell(row_encoding(metadata, manifest.sources, row), index, span, part)
            made.append((index, encode(index, cell)))
    return made
