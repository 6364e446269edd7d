"""Partitions: the references of consecutive chunks as one Parquet file."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.dependencies import required
from virtualchunks.manifest import Records
from virtualchunks.writers.kerchunk.references import ArrayReferences
from virtualchunks.writers.layout import Block

#: The member of the metadata of a file that says which writing of the array it belongs to, as ``.zmetadata`` does in
#: its member ``generations``: readers that load partitions later can tell that the references were replaced since.
GENERATION = "virtualchunks.generation"
#: How many numbers of a column are looked at to choose how it is stored.
_SAMPLE = 4_096


def pyarrow_of() -> Any:
    """Return pyarrow.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    return required("writing Parquet needs pyarrow", "parquet", "pyarrow", "pyarrow.parquet")


def partition_name(path: str, number: int) -> str:
    """Return the name of the file of a partition.

    Examples
    --------
    >>> partition_name("group/air", 3)
    'group/air/refs.3.parq'
    """
    return f"{path}/refs.{number}.parq"


def partition_table(array: ArrayReferences, start: int, rows: int, threshold: int) -> Any:
    """Return the references of consecutive chunks as an Arrow table.

    Parameters
    ----------
    array
        The array.
    start, rows
        The number of the first chunk in C order, and how many.
    threshold
        The fewest references for each URL, on average, at which paths are a dictionary.
    """
    arrow = pyarrow_of()
    records: Records = array.manifest.records.reshape(-1)[start : start + rows]
    present = records["source"] >= 0
    raw = _raw(array, records, present, start)
    path, elsewhere = _paths(array, records["source"], threshold)
    offset, size = (np.where(elsewhere, records[name], 0).astype(np.int64) for name in ("offset", "length"))
    return arrow.table([path, arrow.array(offset), arrow.array(size), raw], schema=_schema(path.type))


def _schema(path: Any) -> Any:
    arrow = pyarrow_of()
    return arrow.schema(
        [
            arrow.field("path", path),
            arrow.field("offset", arrow.int64(), nullable=False),
            arrow.field("size", arrow.int64(), nullable=False),
            arrow.field("raw", arrow.binary()),
        ]
    )


def joined_tables(one: Any, other: Any, threshold: int) -> Any:
    """Return the rows of two tables, their paths a dictionary where they repeat often enough."""
    arrow = pyarrow_of()
    schema = _schema(arrow.string())
    table = arrow.concat_tables([one.cast(schema), other.cast(schema)])
    encoded = table["path"].combine_chunks().dictionary_encode()
    if len(encoded) - encoded.null_count < threshold * max(len(encoded.dictionary), 1):
        return table
    return table.set_column(0, arrow.field("path", encoded.type), encoded)


def missing_rows(rows: int) -> Any:
    """Return the table of missing chunks."""
    arrow = pyarrow_of()
    zeros = arrow.array(np.zeros(rows, dtype=np.int64))
    columns = [arrow.nulls(rows, arrow.string()), zeros, zeros, arrow.nulls(rows, arrow.binary())]
    return arrow.table(columns, schema=_schema(arrow.string()))


def parquet_bytes(table: Any, generation: str | None) -> bytes:
    """Return a table as a Parquet file.

    Parameters
    ----------
    table
        From :func:`partition_table`.
    generation
        Which writing of the array it belongs to; ``None`` not to say.
    """
    arrow = pyarrow_of()
    repeating = [name for name in ("offset", "size") if _repeats(table[name])]
    sink = arrow.BufferOutputStream()
    arrow.parquet.write_table(
        table.replace_schema_metadata(None if generation is None else {GENERATION: generation}),
        sink,
        compression="zstd",
        use_dictionary=["path", *repeating],
        # fastparquet, which fsspec reads with, takes integers for floats where the counts of nulls are not there
        write_statistics=["offset", "size"],
    )
    return bytes(sink.getvalue())


def _repeats(column: Any) -> bool:
    """Whether a column takes less as a dictionary, as far as its beginning tells."""
    sample = np.sort(column.slice(0, _SAMPLE).to_numpy())
    return bool(np.count_nonzero(np.diff(sample)) < len(sample) // 4)


def _paths(array: ArrayReferences, source: npt.NDArray[np.int32], threshold: int) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Return the column of paths, a dictionary where they repeat, and which rows have one."""
    arrow = pyarrow_of()
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
    arrow = pyarrow_of()
    if array.manifest.sources.buffers is None and array.missing is None:
        return arrow.nulls(len(records), arrow.binary())
    values: list[bytes | None] = [None if there else array.missing for there in present.tolist()]
    kept = np.flatnonzero(present)
    block = Block(kept + start, records["source"][kept], records["offset"][kept], records["length"][kept])
    for place, data in array.buffers(block):
        values[int(kept[place])] = data
    return arrow.array(values, type=arrow.binary())
