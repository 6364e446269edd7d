"""Kerchunk references as a folder of Parquet files, in the layout that fsspec's ``LazyReferenceMapper`` reads.

The folder holds ``.zmetadata``, with all metadata documents, and for each array ``refs.0.parq``, ``refs.1.parq`` …,
each with the references of `record_size` consecutive chunks in C order: columns ``path``, ``offset``, ``size`` and
``raw``, of which ``raw`` holds the bytes of chunks in memory. A row without path and without bytes is a missing chunk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import FormatError, MissingDependencyError, UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import Records
from virtualchunks.writers.kerchunk.references import ArrayReferences, References, references
from virtualchunks.writers.layout import Block
from virtualchunks.writers.targets import NamedFile, WriteMode, target_of

_MARKER = ".zmetadata"


def write_parquet(
    group: ManifestGroup,
    target: str | os.PathLike[str],
    record_size: int = 100_000,
    categorical_threshold: int = 10,
    *,
    registry: Any = None,
    store: Any = None,
    mode: WriteMode = "w",
) -> None:
    """Write the references of a tree as a folder of Parquet files, which replaces what is there whole or not at all.

    Parameters
    ----------
    group
        The root of the tree.
    target
        A local path or a URL of the folder; or a key of `store`.
    record_size
        References in each Parquet file.
    categorical_threshold
        The fewest references for each URL, on average, at which a file says that its paths repeat (as a dictionary).
    registry, store, mode
        As for :func:`write_json`. A folder that holds anything else than references is never replaced.

    Raises
    ------
    UnsupportedFeatureError, LimitExceededError
        If an array cannot be written; the message names it. Nothing is written then.
    TargetExistsError
        If the target is there and may not be replaced.
    WriteError
        If the target cannot be written.
    MissingDependencyError
        If pyarrow is not installed.

    Notes
    -----
    ``xarray.open_dataset(target, engine="kerchunk")`` reads the folder. fsspec cannot guess where the references of a
    tree with groups below its root lead; tell it: ``storage_options={"remote_protocol": "s3"}`` (or ``"file"``,
    ``"https"``).
    """
    if record_size < 1:
        raise FormatError(f"record_size must be at least 1, found {record_size}")
    _pyarrow()
    place = target_of(target, registry, store)
    made = references(group)
    if made.templates:
        raise UnsupportedFeatureError(
            f"references in Parquet have no templates, which the named roots {', '.join(made.templates)} need: write "
            "JSON, or say where they are first, with .virtual.bind({…})"
        )
    place.write_folder(_files(made, record_size, categorical_threshold), mode, _MARKER, _is_references)


def _is_references(document: bytes) -> bool:
    """Whether a ``.zmetadata`` is that of references, not of a Zarr store."""
    try:
        return "record_size" in json.loads(document)
    except ValueError:
        return False


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("writing Parquet needs pyarrow: pip install 'virtualchunks[parquet]'") from error
    return pyarrow


def _files(made: References, record_size: int, threshold: int) -> Iterator[NamedFile]:
    for array in made.arrays:
        count = int(np.prod(array.manifest.shape_chunk_grid, dtype=np.int64))
        for number, start in enumerate(range(0, count, record_size)):
            rows = min(record_size, count - start)
            yield f"{array.path}/refs.{number}.parq", _partition(array, start, rows, threshold)
    yield _MARKER, json.dumps({"metadata": made.metadata, "record_size": record_size}).encode()


def _partition(array: ArrayReferences, start: int, rows: int, threshold: int) -> bytes:
    """Return one Parquet file."""
    arrow = _pyarrow()
    records: Records = array.manifest.records.reshape(-1)[start : start + rows]
    present = records["source"] >= 0
    raw = _raw(array, records, present, start)
    path, elsewhere = _paths(array, records["source"], threshold)
    fields = [
        arrow.field("path", path.type),
        arrow.field("offset", arrow.int64(), nullable=False),
        arrow.field("size", arrow.int64(), nullable=False),
        arrow.field("raw", arrow.binary()),
    ]
    columns = [
        path,
        arrow.array(np.where(elsewhere, records["offset"], 0).astype(np.int64)),
        arrow.array(np.where(elsewhere, records["length"], 0).astype(np.int64)),
        raw,
    ]
    sink = arrow.BufferOutputStream()
    arrow.parquet.write_table(
        arrow.table(columns, schema=arrow.schema(fields)),
        sink,
        compression="zstd",
        use_dictionary=["path"],
        # fastparquet, which fsspec reads with, takes integers for floats where the counts of nulls are not there
        write_statistics=["offset", "size"],
    )
    return bytes(sink.getvalue())


def _paths(array: ArrayReferences, source: npt.NDArray[np.int32], threshold: int) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Return the column of paths, a dictionary where they repeat, and which rows have one."""
    arrow = _pyarrow()
    flags = np.zeros(len(array.targets) + 1, dtype=bool)  # the last stands for missing chunks, whose source is -1
    flags[source] = True
    flags[[-1, *(array.manifest.sources.buffers or ())]] = False
    used = np.flatnonzero(flags)
    codes = np.full(len(flags), -1, dtype=np.int32)
    codes[used] = np.arange(len(used), dtype=np.int32)
    indices = codes[source]
    elsewhere = indices >= 0
    names = arrow.array([array.targets[row] for row in used.tolist()], type=arrow.string())
    column = arrow.DictionaryArray.from_arrays(arrow.array(indices, mask=~elsewhere), names)
    if np.count_nonzero(elsewhere) >= threshold * max(len(used), 1):
        return column, elsewhere
    return column.dictionary_decode(), elsewhere


def _raw(array: ArrayReferences, records: Records, present: npt.NDArray[np.bool_], start: int) -> Any:
    """Return the column of bytes of chunks in memory, and of missing chunks that have to be written out."""
    arrow = _pyarrow()
    if array.manifest.sources.buffers is None and array.missing is None:
        return arrow.nulls(len(records), arrow.binary())
    values: list[bytes | None] = [None if there else array.missing for there in present.tolist()]
    kept = np.flatnonzero(present)
    block = Block(kept + start, records["source"][kept], records["offset"][kept], records["length"][kept])
    for place, data in array.buffers(block):
        values[int(kept[place])] = data
    return arrow.array(values, type=arrow.binary())
