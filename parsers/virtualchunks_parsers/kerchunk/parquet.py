"""Kerchunk references in Parquet: a folder of metadata and, for each array, partitions of its references.

Specification: https://fsspec.github.io/kerchunk/spec.html#parquet-references. ``.zmetadata`` holds all metadata
documents and ``record_size``; ``<array>/refs.<k>.parq`` holds the references of the chunks from ``k * record_size`` on,
in C order, in the columns ``path``, ``offset``, ``size`` and ``raw``. A partition that is not there holds missing
chunks only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import FormatError, MissingDependencyError, UnsupportedFeatureError
from virtualchunks.reading.listing import child_url, read_whole
from virtualchunks.reading.ranges import REMOTE
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.kerchunk.columns import InlineBudget, from_codes
from virtualchunks_parsers.kerchunk.targets import Targets
from virtualchunks_parsers.zarr.manifests import Chunks, check_grid
from virtualchunks_parsers.zarr.nodes import StoredArray, parse_document

METADATA = ".zmetadata"
#: Largest partition, in bytes.
MOST_BYTES = 256 << 20
#: Most partitions of one array.
MOST_PARTITIONS = 100_000

Int64 = npt.NDArray[np.int64]


@dataclass
class Partition:
    """The references of one partition, as columns.

    Parameters
    ----------
    numbers
        Which chunk each is.
    paths, codes
        Distinct paths, and the place among them of each.
    offsets, lengths
        In bytes; the length -1 stands for a whole object.
    held
        Chunks that are inline.
    """

    numbers: Int64
    paths: list[str]
    codes: Int64
    offsets: Int64
    lengths: Int64
    held: dict[int, bytes]


@dataclass(frozen=True)
class ParquetReferences:
    """The references in a folder. Partitions are read when their array is.

    Parameters
    ----------
    url
        The folder.
    registry
        Which grants it.
    record_size
        Number of references in a partition.
    targets
        What paths name.
    """

    url: str
    registry: ObjectStoreRegistry
    record_size: int
    targets: Targets
    budget: InlineBudget = field(default_factory=InlineBudget)

    def chunks(self, array: StoredArray) -> Chunks:
        """Return the chunks of an array.

        Raises
        ------
        FormatError
            If a partition is damaged.
        MissingDependencyError
            If pyarrow is not installed.
        """
        size = array.metadata.grid.size
        count = math.ceil(size / self.record_size)
        if count > MOST_PARTITIONS:
            raise UnsupportedFeatureError(f"{count:,} partitions of one array; the most is {MOST_PARTITIONS:,}")
        check_grid(size, size)
        with ThreadPoolExecutor(REMOTE.concurrency, "virtualchunks-parquet") as pool:
            found = pool.map(lambda number: self._partition(array.path, number, size), range(count))
            partitions = [partition for partition in found if partition is not None]
        return self._joined(partitions)

    def _joined(self, partitions: list[Partition]) -> Chunks:
        paths: dict[str, int] = {}
        columns = []
        held: dict[int, bytes] = {}
        for partition in partitions:
            places = [paths.setdefault(path, len(paths)) for path in partition.paths]
            columns.append(np.array(places, dtype=np.int64)[partition.codes])
            held.update((number, self.budget.take(data)) for number, data in partition.held.items())
        empty = np.empty(0, dtype=np.int64)
        numbers, offsets, lengths = (
            np.concatenate([empty, *(getattr(partition, name) for partition in partitions)])
            for name in ("numbers", "offsets", "lengths")
        )
        return from_codes(numbers, list(paths), np.concatenate([empty, *columns]), offsets, lengths, self.targets, held)

    def _partition(self, path: str, number: int, size: int) -> Partition | None:
        """Read one partition; ``None`` where there is none."""
        key = f"{path}/refs.{number}.parq" if path else f"refs.{number}.parq"
        url = child_url(self.url, key)
        data = read_whole(self.registry, url, MOST_BYTES)
        if data is None:
            return None
        first = number * self.record_size
        return partition_of(data, first, min(self.record_size, size - first), url)


def open_references(
    url: str, data: bytes, registry: ObjectStoreRegistry, targets: Targets
) -> tuple[ParquetReferences, Mapping[str, Any]]:
    """Return the references in a folder, and the metadata documents by key.

    Parameters
    ----------
    url
        The folder.
    data
        The content of its ``.zmetadata``.
    registry
        Which grants it.
    targets
        What paths name.

    Raises
    ------
    FormatError
        If the content is not what it should be.
    """
    content = parse_document(METADATA, data, url)
    record_size, metadata = content.get("record_size"), content.get("metadata")
    if type(record_size) is not int or record_size < 1 or not isinstance(metadata, Mapping):
        raise FormatError(
            f"{METADATA!r} of {url} is not that of Kerchunk references: it needs 'metadata' and a 'record_size', found "
            f"{sorted(content)}",
            url=url,
        )
    return ParquetReferences(url, registry, record_size, targets), metadata


def partition_of(data: bytes, first: int, most: int, url: str) -> Partition:
    """Return the references in the bytes of a partition.

    Parameters
    ----------
    data
        A Parquet file.
    first
        The number of the chunk that its first row stands for.
    most
        How many rows stand for chunks; further ones are padding.
    url
        Where it is from, for messages.

    Raises
    ------
    FormatError
        If it is no Parquet file of references.
    MissingDependencyError
        If pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError(
            "references in Parquet need pyarrow, which is not installed: pip install 'virtualchunks[parquet]'", url=url
        ) from error
    try:
        table = pq.read_table(pa.BufferReader(data)).slice(0, most)
        return _columns(table, first, url)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{url} is no Parquet file of references: {error}", url=url) from error


def _columns(table: Any, first: int, url: str) -> Partition:
    import pyarrow as pa

    names = set(table.column_names)
    rows = np.arange(table.num_rows, dtype=np.int64)
    raw = np.zeros(len(rows), dtype=bool)
    held: dict[int, bytes] = {}
    if "raw" in names:
        raw = table["raw"].is_valid().to_numpy()
        chosen = np.flatnonzero(raw)
        texts = table["raw"].take(pa.array(chosen)).to_pylist()
        held = {first + row: _bytes(text) for row, text in zip(chosen.tolist(), texts, strict=True)}
    empty = np.empty(0, dtype=np.int64)
    if not {"path", "offset", "size"} <= names:
        if "raw" not in names:
            raise FormatError(f"{url} has the columns {sorted(names)}, not those of references", url=url)
        return Partition(empty, [], empty, empty, empty, held)
    column = table["path"].combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    there = column.is_valid().to_numpy(zero_copy_only=False) & ~raw
    codes = column.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)[there]
    offsets, sizes = (_integers(table[name], there, url) for name in ("offset", "size"))
    lengths = np.where((offsets == 0) & (sizes == 0), -1, sizes)
    distinct = column.dictionary.to_pylist()
    used, codes = np.unique(codes, return_inverse=True)
    return Partition(rows[there] + first, [distinct[code] for code in used], codes, offsets, lengths, held)


def _integers(column: Any, there: npt.NDArray[np.bool_], url: str) -> Int64:
    values: npt.NDArray[Any] = column.fill_null(0).to_numpy()[there]
    if values.dtype.kind not in "iu":
        raise FormatError(f"{url} has an offset or size that is no integer but {values.dtype}", url=url)
    return values.astype(np.int64)


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
