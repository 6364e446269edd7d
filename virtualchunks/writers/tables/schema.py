"""The columns of a table of references: one row per chunk that is not missing.

| column | type | holds |
|---|---|---|
| `array` | dictionary of text | path of the array in the tree |
| `i0`, `i1`, … | int64 | index of the chunk in the chunk grid, along each axis; null beyond the array's axes |
| `kind` | dictionary of text | `virtual`, or `inline` for bytes in memory; `native` is read like `virtual` |
| `path` | dictionary of text | canonical URL of the object; null for inline chunks |
| `offset`, `length` | int64 | where in it, in bytes |
| `bytes` | large binary | the bytes of inline chunks |
| `size`, `last_modified` | int64 | of the stamp of the object, in bytes, and in nanoseconds since 1970 |
| `etag`, `version` | dictionary of text | of the stamp of the object |
| `encoding` | int32 | 0 for the array's own, or the number of one in the table's metadata |

A time is an integer because engines that know microseconds only would round it, and a rounded stamp says that the
object has changed.
"""

from __future__ import annotations

from typing import Any

from virtualchunks.dependencies import required
from virtualchunks.writers.tables.documents import KEY

ARRAY, KIND, PATH, OFFSET, LENGTH, BYTES = "array", "kind", "path", "offset", "length", "bytes"
SIZE, ETAG, LAST_MODIFIED, STAMP_VERSION, ENCODING = "size", "etag", "last_modified", "version", "encoding"
KINDS = ("virtual", "inline", "native")
#: Columns without which there is no table of references.
REQUIRED = (ARRAY, PATH, OFFSET, LENGTH)
#: Columns behind those of the chunk index, in order.
TAIL = (KIND, PATH, OFFSET, LENGTH, BYTES, SIZE, ETAG, LAST_MODIFIED, STAMP_VERSION, ENCODING)
#: Most axes of an array.
MOST_AXES = 64


def index_names(rank: int) -> tuple[str, ...]:
    """Return the names of the columns of a chunk index.

    Examples
    --------
    >>> index_names(2)
    ('i0', 'i1')
    """
    return tuple(f"i{axis}" for axis in range(rank))


def pyarrow() -> Any:
    """Return the module pyarrow, its compute functions loaded.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    return required("tables of references need pyarrow", "parquet", "pyarrow", "pyarrow.compute")


def schema(rank: int, document: str) -> Any:
    """Return the Arrow schema of a table.

    Parameters
    ----------
    rank
        The most axes that an array of it has.
    document
        The Zarr metadata; see :mod:`virtualchunks.writers.tables.documents`.
    """
    pa = pyarrow()
    text = pa.dictionary(pa.int32(), pa.string())
    types = {
        ARRAY: text,
        **dict.fromkeys(index_names(rank), pa.int64()),
        KIND: pa.dictionary(pa.int8(), pa.string()),
        PATH: text,
        OFFSET: pa.int64(),
        LENGTH: pa.int64(),
        BYTES: pa.large_binary(),
        SIZE: pa.int64(),
        ETAG: text,
        LAST_MODIFIED: pa.int64(),
        STAMP_VERSION: text,
        ENCODING: pa.int32(),
    }
    never_null = {ARRAY, KIND, OFFSET, LENGTH, ENCODING}
    fields = [pa.field(name, kind, nullable=name not in never_null) for name, kind in types.items()]
    return pa.schema(fields, metadata={KEY: document})
