"""From a tree of references to the columns of a table, without a step of Python for each chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import LimitExceededError, UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import ChunkManifest
from virtualchunks.sources import UNKNOWN, PackedStrings, SourceTable
from virtualchunks.writers.datasets import as_group
from virtualchunks.writers.tables.documents import Template, encoding_key
from virtualchunks.writers.tables.gathering import gather
from virtualchunks.writers.tables.schema import pyarrow, schema

#: Most references of one array that broadcasting repeats: in a table, each is a row.
MOST_REPEATED = 1 << 26
#: Most chunks of a grid of which less than one in a hundred is there.
MOST_SPARSE = 1 << 26
#: Rows that are made at a time.
BLOCK = 1 << 20
_VIRTUAL, _INLINE = 0, 1

Ints = npt.NDArray[np.int64]


def to_arrow(tree: Any, *, write_inherited_coords: bool = False) -> Any:
    """Return the references of a tree as an Arrow table with one row per chunk.

    Parameters
    ----------
    tree
        A ManifestGroup, or an xarray Dataset or DataTree.
    write_inherited_coords
        Whether groups of a DataTree repeat the coordinates that they inherit.

    Returns
    -------
    pyarrow.Table
        The columns of :mod:`virtualchunks.writers.tables.schema`; its schema's metadata holds all Zarr metadata.
        pyarrow, polars, pandas, duckdb and whatever else speaks the Arrow PyCapsule interface read it without a copy.

    Raises
    ------
    UnsupportedFeatureError
        If an attribute or codec has no form in JSON; the message names the array.
    LimitExceededError
        If references that broadcasting repeats are too many to write out.
    MissingDependencyError
        If pyarrow is not installed.

    Examples
    --------
    >>> from virtualchunks import ArrayMetadata, ManifestArray
    >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(4,), dtype="<i4")
    >>> array = ManifestArray(metadata, {"0": {"path": "s3://bucket/a.nc", "offset": 8, "length": 16}})
    >>> to_arrow(ManifestGroup({"v": array})).select(["array", "i0", "path", "offset", "length"]).to_pylist()
    [{'array': 'v', 'i0': 0, 'path': 's3://bucket/a.nc', 'offset': 8, 'length': 16}]
    """
    made = TableOf.tree(as_group(tree, inherit=write_inherited_coords))
    return made.joined(list(made.batches()))


@dataclass(frozen=True)
class _Texts:
    """A column of text, as a dictionary and a code for each source row of each array; -1 for none."""

    dictionary: Any
    codes: tuple[npt.NDArray[np.int32], ...]


class TableOf:
    """The table of one tree, made batch by batch.

    Parameters
    ----------
    group
        The root of the tree.
    template
        What it is, and how its encodings are numbered.

    Attributes
    ----------
    schema
        The Arrow schema, with the document in its metadata.
    template
        As given.
    """

    def __init__(self, group: ManifestGroup, template: Template) -> None:
        self.template = template
        arrays = list(group.walk_arrays())
        for path, array in arrays:
            _check(path, array.manifest)
        self.rank = max((array.metadata.ndim for _, array in arrays), default=0)
        self.schema = schema(self.rank, template.to_json())
        self._paths = [path for path, _ in arrays]
        self._manifests = [array.manifest for _, array in arrays]
        self._numbers = template.numbers()

    @classmethod
    def tree(cls, group: ManifestGroup) -> TableOf:
        """Return the table of a tree."""
        return cls(group, Template.of(group))

    def objects(self) -> Iterator[tuple[str, str]]:
        """Iterate over the objects that chunks point at: the path of an array, and a URL."""
        for path, manifest in zip(self._paths, self._manifests, strict=True):
            for url in manifest.iter_nonempty_paths():
                yield path, url

    def joined(self, batches: Sequence[Any]) -> Any:
        """Return batches of the table, which share their dictionaries, as one pyarrow Table of one chunk."""
        pa = pyarrow()
        if len(batches) < 2:
            return pa.Table.from_batches(list(batches), schema=self.schema)
        columns = []
        for number, field in enumerate(self.schema):
            parts = [batch.column(number) for batch in batches]
            if not pa.types.is_dictionary(field.type):
                columns.append(pa.concat_arrays(parts))
                continue
            indices = pa.concat_arrays([part.indices for part in parts])
            columns.append(pa.DictionaryArray.from_arrays(indices, parts[0].dictionary))
        return pa.Table.from_arrays(columns, schema=self.schema)

    @property
    def num_rows(self) -> int:
        """How many rows the table has."""
        return sum(map(len, self._manifests))

    def batches(self, size: int = BLOCK) -> Iterator[Any]:
        """Iterate over the record batches of the table; all of them share their dictionaries.

        Parameters
        ----------
        size
            Most rows of one.
        """
        pa = pyarrow()
        used = [manifest.used_rows() for manifest in self._manifests]
        tables = [manifest.sources for manifest in self._manifests]
        texts = [_texts([getattr(table, name) for table in tables], used) for name in ("urls", "etags", "versions")]
        arrays = pa.array(self._paths, pa.string())
        for number, (path, manifest) in enumerate(zip(self._paths, self._manifests, strict=True)):
            rows = _SourceColumns(
                manifest.sources,
                [text.codes[number] for text in texts],
                _encodings(manifest.sources, self._numbers, path),
            )
            for chunks, index in _chunks(manifest, size):
                columns = [_dictionary(np.full(len(chunks), number, np.int32), arrays)]
                columns += [pa.array(axis) for axis in index]
                columns += [pa.nulls(len(chunks), pa.int64())] * (self.rank - len(index))
                columns += rows.columns(chunks, [text.dictionary for text in texts])
                yield pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _check(path: str, manifest: ChunkManifest) -> None:
    if manifest.is_pending:
        raise UnsupportedFeatureError(
            f"{path!r} was reindexed and not filled, so some of its chunks are not known: it cannot be written",
            variable=path,
        )
    size, present = manifest.records.size, len(manifest)
    if present > MOST_REPEATED and _repeats(manifest):
        raise LimitExceededError(
            f"{path!r} repeats its references over {present:,} chunks, each of which is a row of a table; the most is "
            f"{MOST_REPEATED:,}. Write the array before it is broadcast",
            variable=path,
        )
    check_proportion(path, size, present)


def check_proportion(path: str, size: int, present: int) -> None:
    """Raise LimitExceededError for a grid that takes memory out of proportion to the chunks in it."""
    if present and size > MOST_SPARSE and present < size // 100:
        raise LimitExceededError(
            f"{path!r} has a grid of {size:,} chunks of which {present:,} are there; tables hold grids filled to less "
            f"than 1 % up to {MOST_SPARSE:,} chunks",
            variable=path,
        )


def _texts(columns: Sequence[PackedStrings | None], used: Sequence[npt.NDArray[np.intp]]) -> _Texts:
    """Return the text that source rows in use have, each distinct one once."""
    pa = pyarrow()
    flags: dict[int, npt.NDArray[np.bool_]] = {}
    known: dict[int, PackedStrings] = {}
    for column, rows in zip(columns, used, strict=True):
        if column is not None:
            known[id(column)] = column  # several arrays share one
            flags.setdefault(id(column), np.zeros(len(column), dtype=bool))[rows] = True
    parts = [_arrow_texts(column, flags[key]) for key, column in known.items()]
    encoded = pa.concat_arrays([pa.array([], pa.large_string()), *parts]).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    ends = np.cumsum([len(part) for part in parts])
    places = dict(zip(known, np.split(codes, ends[:-1]) if parts else (), strict=True))
    none = [np.full(int(rows.max()) + 1 if len(rows) else 0, -1, dtype=np.int32) for rows in used]
    own = [places.get(id(column), empty) for column, empty in zip(columns, none, strict=True)]
    return _Texts(encoded.dictionary.cast(pa.string()), tuple(own))


def _arrow_texts(column: PackedStrings, wanted: npt.NDArray[np.bool_]) -> Any:
    """Return packed strings as an Arrow array, null where they are empty or not wanted, without a copy of the text."""
    pa = pyarrow()
    data, ends = column.packed
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), ends])
    valid = np.packbits(wanted & (np.diff(offsets) > 0), bitorder="little")
    return pa.Array.from_buffers(
        pa.large_string(), len(column), [pa.py_buffer(valid), pa.py_buffer(offsets), pa.py_buffer(data)]
    )


def _encodings(table: SourceTable, numbers: dict[str, int], path: str) -> npt.NDArray[np.int32] | None:
    """Return the number of the encoding of each source row; ``None`` where all have the array's own."""
    if table.encoding_ids is None or not table.encoding_ids.any():
        return None
    known = [0, *(numbers[encoding_key(encoding, path)] for encoding in table.encodings)]
    return np.array(known, dtype=np.int32)[table.encoding_ids]


@dataclass(frozen=True)
class _SourceColumns:
    """The columns that follow from the source row of a chunk.

    Parameters
    ----------
    table
        The source rows.
    codes
        Their text: URL, ETag and version.
    encodings
        The numbers of their encodings.
    """

    table: SourceTable
    codes: Sequence[npt.NDArray[np.int32]]
    encodings: npt.NDArray[np.int32] | None

    def columns(self, chunks: npt.NDArray[Any], dictionaries: Sequence[Any]) -> list[Any]:
        """Return the columns behind those of the index, for records none of which is missing."""
        pa = pyarrow()
        source = chunks["source"]
        inline = self._inline(source)
        paths, etags, versions = (
            _dictionary(codes[source], dictionary) for codes, dictionary in zip(self.codes, dictionaries, strict=True)
        )
        offsets = chunks["offset"].astype(np.int64)
        if inline is not None:
            offsets[inline] = 0
        encoding = np.zeros(len(source), np.int32) if self.encodings is None else self.encodings[source]
        return [
            _dictionary(_kinds(source, inline), pa.array(["virtual", "inline"])),
            paths,
            pa.array(offsets),
            pa.array(chunks["length"].astype(np.int64)),
            self._bytes(chunks, inline),
            _optional(self.table.sizes, source),
            etags,
            _optional(self.table.last_modified, source),
            versions,
            pa.array(encoding),
        ]

    def _inline(self, source: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_] | None:
        """Return which chunks are held in memory; ``None`` for none."""
        if not self.table.buffers:
            return None
        flags = np.zeros(len(self.table), dtype=bool)
        flags[list(self.table.buffers)] = True
        held = flags[source]
        return held if held.any() else None

    def _bytes(self, chunks: npt.NDArray[Any], inline: npt.NDArray[np.bool_] | None) -> Any:
        pa = pyarrow()
        if inline is None or not self.table.buffers:
            return pa.nulls(len(chunks), pa.large_binary())
        held = chunks[inline]
        data = gather(self.table.buffers, held["source"], held["offset"], held["length"])
        ends = np.zeros(len(chunks) + 1, dtype=np.int64)
        np.cumsum(np.where(inline, chunks["length"], 0), out=ends[1:])
        valid = pa.py_buffer(np.packbits(inline, bitorder="little"))
        buffers = [valid, pa.py_buffer(ends), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.large_binary(), len(chunks), buffers)


def _kinds(source: npt.NDArray[np.int32], inline: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int8]:
    if inline is None:
        return np.full(len(source), _VIRTUAL, dtype=np.int8)
    return np.where(inline, _INLINE, _VIRTUAL).astype(np.int8)


def _dictionary(codes: npt.NDArray[Any], dictionary: Any) -> Any:
    """Return a column of text; the code -1 is null."""
    pa = pyarrow()
    mask = codes < 0
    indices = pa.array(codes, mask=mask) if mask.any() else pa.array(codes)
    return pa.DictionaryArray.from_arrays(indices, dictionary)


def _optional(column: Ints | None, source: npt.NDArray[np.int32]) -> Any:
    """Return a column of integers, null where they are not known."""
    pa = pyarrow()
    if column is None:
        return pa.nulls(len(source), pa.int64())
    values = column[source]
    mask = values == UNKNOWN
    return pa.array(values, mask=mask) if mask.any() else pa.array(values)


def _chunks(manifest: ChunkManifest, size: int) -> Iterator[tuple[npt.NDArray[Any], list[Ints]]]:
    """Iterate over the chunks that are there, in C order: their records, and their index along each axis."""
    if not len(manifest):
        return
    shape = manifest.shape_chunk_grid
    flat = manifest.records.flat if _repeats(manifest) else manifest.records.reshape(-1)
    for start in range(0, manifest.records.size, size):
        part = flat[start : start + size]
        present = part["source"] >= 0
        numbers = np.arange(start, start + len(part), dtype=np.int64)
        if not present.all():
            part, numbers = part[present], numbers[present]
        if len(part):
            yield part, _index(numbers, shape)


def _repeats(manifest: ChunkManifest) -> bool:
    """Whether records are repeated without being stored, as broadcasting does."""
    records = manifest.records
    return any(stride == 0 and count > 1 for stride, count in zip(records.strides, records.shape, strict=True))


def _index(numbers: Ints, shape: tuple[int, ...]) -> list[Ints]:
    """Return the index along each axis of chunks given by their number in C order."""
    index: list[Ints] = []
    left = numbers
    for axis in range(len(shape) - 1):
        step = math.prod(shape[axis + 1 :])
        along = left // step
        index.append(along)
        left = left - along * step
    return [*index, left] if shape else []
