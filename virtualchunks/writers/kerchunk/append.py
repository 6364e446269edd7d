"""Appending to references in Parquet: new partitions, of the old ones the last, and the metadata when all is there.

Chunks are numbered in C order of the grid, so what continues the slowest axis only adds numbers. The last partition is
written anew with what it held before in front: whoever still has the old metadata finds the old references in it.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.errors import CombineError
from virtualchunks.grid import ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.inline import encode_array
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import MEANING
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.writers.kerchunk.fills import MEMBER, continued_member
from virtualchunks.writers.kerchunk.partitions import joined_tables, parquet_bytes, partition_name, partition_table
from virtualchunks.writers.kerchunk.references import ArrayReferences, References, array_v2, require_no_roots
from virtualchunks.writers.kerchunk.stored import METADATA, StoredReferences, check_lengths
from virtualchunks.writers.layout import StoredArray, stored_array
from virtualchunks.writers.targets import NamedFile

#: In what arrays may differ that encoding them anew changes.
_ENCODED = frozenset({"dtype is", "order is", "filters are", "compressor is"})
#: Codecs whose parameters say how to encode, and change nothing about how bytes decode.
_DECODE_ALIKE = frozenset({"blosc", "bz2", "gzip", "lz4", "zlib", "zstd"})


@dataclass(frozen=True)
class Addition:
    """What is added to one stored array.

    Parameters
    ----------
    references
        The chunks.
    first
        Number of the first of them in the grid of the stored array, in C order.
    zarray
        The ``.zarray`` of the array afterwards.
    """

    references: ArrayReferences
    first: int
    zarray: Mapping[str, Any]

    @property
    def total(self) -> int:
        """Number of chunks of the array afterwards."""
        return self.first + math.prod(self.references.manifest.shape_chunk_grid)


def appended_files(
    group: ManifestGroup, stored: StoredReferences, dimension: str, threshold: int
) -> Iterator[NamedFile]:
    """Return the files to write, the metadata last, after everything was checked.

    Parameters
    ----------
    group
        What is added.
    stored
        To what.
    dimension
        Along which dimension.
    threshold
        The fewest references for each URL, on average, at which paths are a dictionary.

    Raises
    ------
    CombineError
        If an array does not continue the stored one; the message names it, and in what they differ.
    UnsupportedFeatureError
        If an array cannot be written.
    """
    additions = [
        addition
        for path, array in group.walk_arrays()
        if (addition := _addition(stored_array(path, array, "a set of Kerchunk references"), stored, dimension))
    ]
    require_no_roots(References({}, [found.references for found in additions]))
    metadata = {**stored.metadata, **{f"{found.references.path}/.zarray": found.zarray for found in additions}}
    check_lengths(metadata)
    document = {**json.loads(stored.document), "metadata": metadata}
    return _files(additions, stored, threshold, json.dumps(document).encode())


def _files(
    additions: Sequence[Addition], stored: StoredReferences, threshold: int, document: bytes
) -> Iterator[NamedFile]:
    size = stored.record_size
    for found in additions:
        path = found.references.path
        if found.total == found.first:
            continue
        for number in range(found.first // size, -(-found.total // size)):
            start, stop = number * size, min((number + 1) * size, found.total)
            begin = max(start, found.first)
            table = partition_table(found.references, begin - found.first, stop - begin, threshold)
            if start < found.first:
                table = joined_tables(stored.rows(path, start, found.first), table, threshold)
            yield partition_name(path, number), parquet_bytes(table, stored.generations.get(path))
    yield METADATA, document


def _addition(array: StoredArray, stored: StoredReferences, dimension: str) -> Addition | None:
    """Return what is added to an array; ``None`` where it is to stay as it is."""
    existing = stored.metadata.get(f"{array.path}/.zarray")
    if existing is None:
        raise CombineError(
            f"{array.path!r} is not in the stored references, so there is nothing to append it to: add it with "
            "mode='a' first",
            variable=array.path,
        )
    attributes = stored.metadata.get(f"{array.path}/.zattrs", {})
    names = list(array.metadata.dimension_names or ())
    axis = names.index(dimension) if dimension in names else None
    if array.in_memory and array.metadata.ndim == len(existing["chunks"]):
        array = _cut_like(array, [chunk or 1 for chunk in existing["chunks"]])
    references, documents = array_v2(array)
    own = documents[f"{array.path}/.zarray"]
    _require_same(array, own, documents[f"{array.path}/.zattrs"], existing, attributes, axis)
    if axis is None:
        _require_same_bytes(references, stored)
        return None
    return _continued(array, references, own, existing, stored, axis)


def _cut_like(array: StoredArray, chunks: Sequence[int]) -> StoredArray:
    """Return an array in memory, cut into chunks as the stored one is."""
    metadata = array.metadata
    if list(metadata.chunks) == list(chunks) or not metadata.ndim:
        return array
    return _of_values(array, _values(array), chunks)


def _values(array: StoredArray) -> npt.NDArray[Any]:
    return read_values(ManifestArray(array.metadata, array.manifest), ObjectStoreRegistry(), name=array.path)


def _of_values(array: StoredArray, values: npt.NDArray[Any], chunks: Sequence[int]) -> StoredArray:
    metadata = array.metadata.replace(grid=ChunkGrid.regular(values.shape, tuple(chunks)))
    return StoredArray(
        array.path, metadata, ChunkManifest(encode_array(values, metadata), shape=metadata.grid.grid_shape)
    )


def _require_same(
    array: StoredArray,
    own: Mapping[str, Any],
    attributes: Mapping[str, Any],
    existing: Mapping[str, Any],
    known: Mapping[str, Any],
    axis: int | None,
) -> None:
    """Raise CombineError where an array cannot share the metadata of the stored one."""
    pairs = [
        ("dimensions are", attributes.get("_ARRAY_DIMENSIONS"), known.get("_ARRAY_DIMENSIONS")),
        ("dtype is", own["dtype"], existing["dtype"]),
        ("shape is", _without(own["shape"], axis), _without(existing["shape"], axis)),
        ("chunks are", own["chunks"], [chunk or 1 for chunk in existing["chunks"]]),
        ("order is", own["order"], existing.get("order", "C")),
        ("filters are", *(list(map(_decoded, made.get("filters") or ())) for made in (own, existing))),
        ("compressor is", _decoded(own["compressor"]), _decoded(existing.get("compressor"))),
        *((f"attribute {name!r} is", attributes.get(name), known.get(name)) for name in MEANING),
    ]
    for what, mine, theirs in pairs:
        if json.dumps(mine, sort_keys=True) != json.dumps(theirs, sort_keys=True):
            raise CombineError(
                f"{array.path!r} does not continue the stored array: its {what} {mine!r}, of the stored one {theirs!r}"
                f"{_remedy(array) if what in _ENCODED else ''}",
                variable=array.path,
            )


def _remedy(array: StoredArray) -> str:
    """Return what takes to encode an array as the stored one is, as the end of a sentence."""
    if array.in_memory:
        return ""
    records = array.manifest.records[array.manifest.present]
    return (
        f". heterogeneous='materialise' may help, which reads its {len(records):,} chunks "
        f"({int(records['length'].sum(dtype=np.int64)):,} bytes) and stores them as the stored ones are"
    )


def _without(shape: Sequence[int], axis: int | None) -> list[Any]:
    return ["any" if number == axis else size for number, size in enumerate(shape)]


def _decoded(codec: Mapping[str, Any] | None) -> Any:
    """Return what decides how a codec decodes."""
    return {"id": codec["id"]} if codec is not None and codec.get("id") in _DECODE_ALIKE else codec


def _require_same_bytes(array: ArrayReferences, stored: StoredReferences) -> None:
    """Raise CombineError where an array in memory differs from a stored one that is in memory, too."""
    count = math.prod(array.manifest.shape_chunk_grid)
    if not array.manifest.sources.buffers or not count:
        return
    theirs = [_raw(value) for value in stored.rows(array.path, 0, count)["raw"].to_pylist()]
    own = partition_table(array, 0, count, 1)["raw"].to_pylist()
    if None not in theirs and theirs != own:
        raise CombineError(
            f"{array.path!r} differs from the stored array, which appending leaves as it is: drop the variable to keep "
            "the stored one",
            variable=array.path,
        )


def _raw(value: bytes | None) -> bytes | None:
    """Return the bytes of an inline chunk, which others may hold as text."""
    return base64.b64decode(value[7:]) if value is not None and value.startswith(b"base64:") else value


def _continued(
    array: StoredArray,
    references: ArrayReferences,
    own: Mapping[str, Any],
    existing: Mapping[str, Any],
    stored: StoredReferences,
    axis: int,
) -> Addition:
    shape, chunk = list(existing["shape"]), existing["chunks"][axis] or 1
    grid = [-(-size // (length or 1)) for size, length in zip(shape, existing["chunks"], strict=True)]
    dimension = repr((array.metadata.dimension_names or ())[axis])
    if math.prod(grid[:axis]) > 1:
        raise CombineError(
            f"{array.path!r} has several chunks along the dimensions before {dimension}: chunks are numbered in C "
            "order, so that appending would give all of them other numbers. Write the references anew with mode='w'",
            variable=array.path,
        )
    size = shape[axis]
    shape[axis] += array.metadata.shape[axis]
    fill = _fill(array.path, own["fill_value"], existing.get("fill_value"))
    zarray = {**existing, "shape": shape, "fill_value": fill}
    within, inner = size % chunk, math.prod(grid[axis + 1 :])
    if not within or not array.metadata.shape[axis]:
        return _addition_of(array, references, own, zarray, -(-size // chunk) * inner)
    if not array.in_memory or inner != 1:
        raise CombineError(
            f"{array.path!r} cannot be continued: the stored array has {size} elements along {dimension}, which is no "
            f"whole number of its chunks of {chunk}, so that its last chunk would have to be filled up",
            variable=array.path,
        )
    before = _last_values(array, stored, size // chunk, axis, within)
    whole = _of_values(array, np.concatenate([before, _values(array)], axis=axis), array.metadata.chunks)
    return _addition_of(array, replace(references, manifest=whole.manifest), own, zarray, size // chunk)


def _addition_of(
    array: StoredArray, references: ArrayReferences, own: Mapping[str, Any], zarray: Mapping[str, Any], first: int
) -> Addition:
    """Return what is added, and what `zarray` says of missing chunks continued."""
    made = {name: value for name, value in zarray.items() if name != MEMBER}
    member = continued_member(own, zarray, first, array.metadata)
    if member is not None:
        held = (first + number for number in references.numbers_of(member["missing"].keys()))
        made[MEMBER] = {**member, "held": [*member.get("held", ()), *held]}
    return Addition(references, first, made)


def _last_values(array: StoredArray, stored: StoredReferences, number: int, axis: int, count: int) -> npt.NDArray[Any]:
    """Return the values of the last stored chunk, which is to be filled up."""
    data = _raw(stored.rows(array.path, number, number + 1)["raw"].to_pylist()[0])
    if data is None:
        raise CombineError(
            f"{array.path!r} cannot be continued: the last stored chunk is not full, and lies in a file",
            variable=array.path,
        )
    metadata = array.metadata
    block = decode_block(data, metadata.encoding, metadata.chunks)
    part = [slice(0, size) for size in metadata.shape]
    part[axis] = slice(0, count)
    return block[tuple(part)]


def _fill(path: str, own: Any, existing: Any) -> Any:
    """Return the fill value of an array that is continued. Only NaN may come to null: it masks nothing else."""
    if own == existing or (own is None and existing == "NaN"):
        return existing
    if existing is None and own == "NaN":
        return own
    raise CombineError(
        f"{path!r} does not continue the stored array: its fill value is {own!r}, of the stored one {existing!r}",
        variable=path,
    )
