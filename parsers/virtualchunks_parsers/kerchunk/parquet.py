"""Kerchunk references in Parquet: a folder of metadata and, for each array, partitions of its references.

Specification: https://fsspec.github.io/kerchunk/spec.html#parquet-references. ``.zmetadata`` holds all metadata
documents and ``record_size``; ``<array>/refs.<k>.parq`` holds the references of the chunks from ``k * record_size`` on,
in C order, in the columns ``path``, ``offset``, ``size`` and ``raw``. A partition that is not there holds missing
chunks only. Nothing but the metadata is read until a chunk is asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.deferred import DeferredManifest
from virtualchunks.errors import (
    FormatError,
    MissingDependencyError,
    SourceChangedError,
    UnsupportedFeatureError,
)
from virtualchunks.grid import ChunkGrid
from virtualchunks.manifest import ChunkManifest
from virtualchunks.reading.decode import placed
from virtualchunks.reading.listing import child_url, look_up, read_whole
from virtualchunks.reading.ranges import REMOTE
from virtualchunks.reading.stamps import compare
from virtualchunks.reading.turns import letting_others
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import Stamp
from virtualchunks_parsers.kerchunk.columns import InlineBudget, from_codes
from virtualchunks_parsers.kerchunk.fills import MEMBER, Fills
from virtualchunks_parsers.kerchunk.targets import Targets
from virtualchunks_parsers.zarr.manifests import check_grid
from virtualchunks_parsers.zarr.nodes import StoredArray, parse_document

METADATA = ".zmetadata"
#: The member of the metadata of a partition that says which writing of an array it belongs to.
GENERATION = b"virtualchunks.generation"
#: Largest partition, in bytes.
MOST_BYTES = 256 << 20
#: Most partitions of one array that are read at a time.
MOST_PARTITIONS = 100_000

Int64 = npt.NDArray[np.int64]


@dataclass
class Partition:
    """The references of one partition, as columns.

    Parameters
    ----------
    numbers
        Which chunk each is, counted from the first of the partition.
    paths, codes
        Distinct paths, and the place among them of each.
    offsets, lengths
        In bytes; the length -1 stands for a whole object.
    held
        Chunks that are inline.
    rows
        How many chunks it stands for.
    generation
        Which writing of the array it says that it belongs to; ``None`` where it does not say.
    """

    numbers: Int64
    paths: list[str]
    codes: Int64
    offsets: Int64
    lengths: Int64
    held: dict[int, bytes]
    rows: int
    generation: str | None = None


@dataclass(frozen=True)
class ParquetReferences:
    """The references in a folder.

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
    stamp
        That of ``.zmetadata`` when it was read.
    generations
        By path of an array, which writing of it ``.zmetadata`` belongs to; of those that were written elsewhere, none.
    """

    url: str
    registry: ObjectStoreRegistry
    record_size: int
    targets: Targets
    stamp: Stamp
    generations: Mapping[str, str] = field(default_factory=dict)
    budget: InlineBudget = field(default_factory=InlineBudget)

    def array(self, stored: StoredArray, fills: Fills | None = None) -> ManifestArray:
        """Return an array, which loads its partitions when it is asked for them."""
        metadata = stored.metadata if fills is None else fills.metadata
        loader = ArrayPartitions(self, stored.path, metadata.grid.size, fills)
        return ManifestArray(metadata, DeferredManifest(metadata.grid.grid_shape, loader))

    def require_unchanged(self, path: str, partitions: Sequence[Partition | None]) -> None:
        """Check that partitions of an array belong to the metadata that was read before.

        Whoever writes references anew replaces both. Ours say in each file which writing it belongs to; of others, the
        metadata is looked at again.

        Raises
        ------
        SourceChangedError
            If they do not.
        """
        generation = self.generations.get(path)
        if generation is not None:
            changed = any(found is None or found.generation != generation for found in partitions)
        else:
            [found] = look_up(self.registry, [child_url(self.url, METADATA)])
            changed = found is None or bool(compare(self.stamp, found))
        if changed:
            raise SourceChangedError(
                f"the references in {self.url} were replaced or removed after they were opened: open them again",
                url=self.url,
            )


@dataclass(frozen=True)
class ArrayPartitions:
    """What loads the partitions of one array; see :class:`~virtualchunks.deferred.PartitionLoader`.

    Parameters
    ----------
    references
        Those of the folder.
    path
        Path of the array.
    chunks
        Number of its chunks.
    fills
        What our writer said of its missing chunks.
    """

    references: ParquetReferences
    path: str
    chunks: int
    fills: Fills | None = None

    @property
    def origin(self) -> str:
        """The folder of the references."""
        return self.references.url

    @property
    def size(self) -> int:
        """Number of references in a partition."""
        return self.references.record_size

    def load(self, numbers: Sequence[int]) -> list[ChunkManifest]:
        """Read partitions, several at a time.

        Raises
        ------
        FormatError
            If one is damaged.
        LimitExceededError, UnsupportedFeatureError
            If they are out of proportion, or refer to what cannot be looked up.
        SourceChangedError
            If they are not those that were opened.
        MissingDependencyError
            If pyarrow is not installed.
        """
        with placed(url=self.origin, variable=self.path or "/"):
            sizes = [min(self.size, self.chunks - number * self.size) for number in numbers]
            if len(numbers) > MOST_PARTITIONS:
                raise UnsupportedFeatureError(
                    f"{len(numbers):,} partitions at once; the most is {MOST_PARTITIONS:,}: read less of the array at "
                    "a time, or write the references again with a larger record_size"
                )
            check_grid(sum(sizes), sum(sizes))
            with (
                letting_others(),
                ThreadPoolExecutor(min(len(numbers), REMOTE.concurrency) or 1, "virtualchunks-parquet") as pool,
            ):
                partitions = list(pool.map(self._partition, numbers, sizes))
            self.references.require_unchanged(self.path, partitions)
            self._require_rows(numbers, partitions, sizes)
            if self.fills is not None:
                self._leave_out_written(self.fills, numbers, partitions, sizes)
            return self._manifests(partitions, sizes)

    def _partition(self, number: int, size: int) -> Partition | None:
        """Read one partition; ``None`` where there is none, whose chunks are all missing."""
        key = f"{self.path}/refs.{number}.parq" if self.path else f"refs.{number}.parq"
        url = child_url(self.references.url, key)
        data = read_whole(self.references.registry, url, MOST_BYTES)
        return None if data is None else partition_of(data, size, url)

    def _require_rows(
        self, numbers: Sequence[int], partitions: Sequence[Partition | None], sizes: Sequence[int]
    ) -> None:
        """Check that partitions which say whose they are stand for all chunks that they should.

        Others may leave out rows at their end, whose chunks are missing.
        """
        for number, found, size in zip(numbers, partitions, sizes, strict=True):
            if found is not None and found.generation is not None and found.rows < size:
                raise FormatError(f"refs.{number}.parq of {self.origin} has {found.rows} rows for {size} chunks")

    def _leave_out_written(
        self, fills: Fills, numbers: Sequence[int], partitions: Sequence[Partition | None], sizes: Sequence[int]
    ) -> None:
        """Leave out the chunks that stand for missing ones."""
        for number, found, size in zip(numbers, partitions, sizes, strict=True):
            count = 0 if found is None else len(found.numbers) + len(found.held)
            if fills.needs_all and count < size:
                raise FormatError(
                    f"refs.{number}.parq of {self.origin} has {count} references for {size} chunks of {self.path!r}, "
                    f"of which all were written: others changed it. Remove {MEMBER!r} from '{self.path}/.zarray' in "
                    f"{METADATA!r} to read it as they do"
                )
            if found is not None:
                found.held = fills.without_written(found.held, number * self.size)

    def _manifests(self, partitions: Sequence[Partition | None], sizes: Sequence[int]) -> list[ChunkManifest]:
        """Return the manifests of partitions, over one table."""
        starts = [0, *itertools.accumulate(sizes)]
        there = [(start, found) for start, found in zip(starts, partitions, strict=False) if found is not None]
        paths: dict[str, int] = {}
        codes = [
            np.array([paths.setdefault(path, len(paths)) for path in found.paths], dtype=np.int64)[found.codes]
            for _, found in there
        ]
        budget = self.references.budget
        held = {start + number: budget.take(data) for start, found in there for number, data in found.held.items()}
        numbers = _chain([found.numbers + start for start, found in there])
        offsets, lengths = (_chain([getattr(found, name) for _, found in there]) for name in ("offsets", "lengths"))
        chunks = from_codes(numbers, list(paths), _chain(codes), offsets, lengths, self.references.targets, held)
        whole = chunks.manifest(ChunkGrid.regular((starts[-1],), (1,)))
        return [
            ChunkManifest.from_records(whole.records[start:stop], whole.sources)
            for start, stop in itertools.pairwise(starts)
        ]


def _chain(columns: Sequence[Int64]) -> Int64:
    return np.concatenate([np.empty(0, dtype=np.int64), *columns])


def open_references(
    url: str, data: bytes, stamp: Stamp, registry: ObjectStoreRegistry, targets: Targets
) -> tuple[ParquetReferences, Mapping[str, Any]]:
    """Return the references in a folder, and the metadata documents by key.

    Parameters
    ----------
    url
        The folder.
    data, stamp
        The content of its ``.zmetadata``, and its stamp.
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
    generations = content.get("generations", {})
    if not isinstance(generations, Mapping):
        raise FormatError(f"the 'generations' in {METADATA!r} of {url} are no texts by path of an array", url=url)
    return ParquetReferences(url, registry, record_size, targets, stamp, generations), metadata


def partition_of(data: bytes, most: int, url: str) -> Partition:
    """Return the references in the bytes of a partition.

    Parameters
    ----------
    data
        A Parquet file.
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
        found = _columns(table, url)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{url} is no Parquet file of references: {error}", url=url) from error
    found.generation = (table.schema.metadata or {}).get(GENERATION, b"").decode("ascii", "replace") or None
    return found


def _columns(table: Any, url: str) -> Partition:
    import pyarrow as pa

    names = set(table.column_names)
    rows = np.arange(table.num_rows, dtype=np.int64)
    raw = np.zeros(len(rows), dtype=bool)
    held: dict[int, bytes] = {}
    if "raw" in names:
        raw = table["raw"].is_valid().to_numpy()
        chosen = np.flatnonzero(raw)
        texts = table["raw"].take(pa.array(chosen)).to_pylist()
        held = {row: _bytes(text) for row, text in zip(chosen.tolist(), texts, strict=True)}
    empty = np.empty(0, dtype=np.int64)
    if not {"path", "offset", "size"} <= names:
        if "raw" not in names:
            raise FormatError(f"{url} has the columns {sorted(names)}, not those of references", url=url)
        return Partition(empty, [], empty, empty, empty, held, len(rows))
    column = table["path"].combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    there = column.is_valid().to_numpy(zero_copy_only=False) & ~raw
    codes = column.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)[there]
    offsets, sizes = (_integers(table[name], there, url) for name in ("offset", "size"))
    if len(offsets) and (int(offsets.min()) < 0 or int(sizes.min()) < 0):
        raise FormatError(f"{url} has an offset or size that is negative, or beyond 2**63 - 1", url=url)
    lengths = np.where((offsets == 0) & (sizes == 0), -1, sizes)
    distinct = column.dictionary.to_pylist()
    used, codes = np.unique(codes, return_inverse=True)
    paths = [distinct[code] for code in used]
    return Partition(rows[there], paths, codes, offsets, lengths, held, len(rows))


def _integers(column: Any, there: npt.NDArray[np.bool_], url: str) -> Int64:
    values: npt.NDArray[Any] = column.fill_null(0).to_numpy()[there]
    if values.dtype.kind not in "iu":
        raise FormatError(f"{url} has an offset or size that is no integer but {values.dtype}", url=url)
    return values.astype(np.int64)


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
