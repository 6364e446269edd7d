"""A table of references as one Parquet file, written and pruned by row group.

The file is that of :func:`~virtualchunks.writers.tables.to_arrow`, with its metadata in the file's footer. Rows are in
the order of the arrays and of their chunks, so the statistics of row groups lead an engine to the few that it needs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    MissingDependencyError,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import as_url
from virtualchunks.writers.datasets import as_group
from virtualchunks.writers.tables.columns import TableOf
from virtualchunks.writers.tables.documents import KEY, Node, Template
from virtualchunks.writers.tables.modes import require_lasting
from virtualchunks.writers.tables.reading import template_of, tree_of
from virtualchunks.writers.tables.schema import (
    ARRAY,
    ENCODING,
    LAST_MODIFIED,
    LENGTH,
    OFFSET,
    SIZE,
    index_names,
    pyarrow,
)
from virtualchunks.writers.targets import WriteMode, target_of

#: Rows of a row group.
ROW_GROUP = 1 << 14
_DIGEST = f"{KEY}.sha256"
#: Most rows of a file that is read: a few bytes can claim any number.
MOST_ROWS = 1 << 28


def to_parquet(
    tree: Any,
    target: str | os.PathLike[str],
    *,
    row_group_size: int = ROW_GROUP,
    compression: str = "zstd",
    registry: Any = None,
    store: Any = None,
    mode: WriteMode = "w",
    write_inherited_coords: bool = False,
) -> None:
    """Write the references of a tree as a Parquet file, which replaces what is there whole or not at all.

    Parameters
    ----------
    tree
        A ManifestGroup, or an xarray Dataset or DataTree.
    target
        A local path or a URL; or a key of `store`.
    row_group_size
        Rows of a row group: what is written at a time, and what a reader can leave out.
    compression
        As pyarrow names it.
    registry, store, mode
        As for :func:`virtualchunks.writers.kerchunk.write_json`.
    write_inherited_coords
        Whether groups of a DataTree repeat the coordinates that they inherit.

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
    """
    if row_group_size < 1:
        raise FormatError(f"row_group_size must be at least 1, found {row_group_size}")
    made = TableOf.tree(as_group(tree, inherit=write_inherited_coords))
    require_lasting(made)
    options = _options(made, compression)
    target_of(target, registry, store).write_file(_pieces(made, row_group_size, options), mode)


def from_parquet(
    url: str | os.PathLike[str],
    registry: Any = None,
    *,
    wanted: Callable[[str], bool] | None = None,
    template: ManifestGroup | None = None,
) -> ManifestGroup:
    """Return the tree of references in a Parquet file.

    Parameters
    ----------
    url
        A local path or a URL.
    registry
        What may be read; ``None`` grants the file alone. What it refers to is not granted by reading it.
    wanted
        Which arrays to read, by path; the others are left out, and their row groups are not read.
    template
        As for :func:`from_arrow`, for a file that another program wrote.

    Raises
    ------
    FormatError
        If it is no Parquet file of references.
    ManifestError, URLError, LimitExceededError
        As for :func:`from_arrow`.
    NotGrantedError, ReadError
        If it may not or cannot be read.
    MissingDependencyError
        If pyarrow is not installed.
    """
    named = as_url(url)
    granted = ObjectStoreRegistry().grant(named) if registry is None else ObjectStoreRegistry.coerce(registry)
    with ObjectReader(granted, named) as reader:
        try:
            return _read(reader, named, wanted, template)
        except VirtualChunksError as error:
            error.url = error.url if error.url is not None else named
            raise


def _parquet() -> Any:
    pyarrow()
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError("this pyarrow has no Parquet: pip install 'virtualchunks[parquet]'") from error
    return parquet


def _options(made: TableOf, compression: str) -> dict[str, Any]:
    numbers = [*index_names(made.rank), OFFSET, LENGTH, SIZE, LAST_MODIFIED, ENCODING]
    pa = pyarrow()
    options = {
        "compression": compression,
        "use_dictionary": [field.name for field in made.schema if pa.types.is_dictionary(field.type)],
        "write_page_checksum": True,
        "column_encoding": dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
    }
    try:
        with _parquet().ParquetWriter(pa.BufferOutputStream(), made.schema, **options):
            return options
    except (pa.ArrowException, ValueError, OSError) as error:
        raise UnsupportedFeatureError(f"Parquet cannot be written so: {error}") from error


def _digest(document: bytes) -> str:
    """Return a digest of the metadata: pages have checksums in Parquet, and the footer has none."""
    return hashlib.sha256(document).hexdigest()


class _Sink:
    """A file that hands on what is written to it piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: what was written is there."""

    def taken(self) -> Iterator[bytes]:
        """Hand on what was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return iter(pieces)


def _pieces(made: TableOf, size: int, options: dict[str, Any]) -> Iterator[bytes]:
    pa = pyarrow()
    sink = _Sink()
    document = made.schema.metadata[KEY.encode()]
    schema = made.schema.with_metadata({KEY: document, _DIGEST: _digest(document)})
    with _parquet().ParquetWriter(pa.PythonFile(sink, "w"), schema, **options) as writer:
        for group in _row_groups(made.batches(size), size):
            writer.write_table(_lean(made.joined(group)), row_group_size=size)
            yield from sink.taken()
    yield from sink.taken()


def _row_groups(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Join batches up to a size, so that many small arrays do not become as many row groups."""
    held: list[Any] = []
    count = 0
    for batch in batches:
        if held and count + batch.num_rows > size:
            yield held
            held, count = [], 0
        held.append(batch)
        count += batch.num_rows
    if held:
        yield held


def _lean(table: Any) -> Any:
    """Return a table of one chunk whose dictionaries hold just the texts that its rows have."""
    pa = pyarrow()
    columns = [column.chunk(0) for column in table.columns]
    lean = [
        _lean_column(column.indices, column.dictionary) if pa.types.is_dictionary(column.type) else column
        for column in columns
    ]
    return pa.Table.from_arrays(lean, schema=table.schema)


def _lean_column(indices: Any, dictionary: Any) -> Any:
    pa = pyarrow()
    codes = indices.fill_null(-1).to_numpy(zero_copy_only=False)
    flags = np.zeros(len(dictionary) + 1, dtype=bool)
    flags[codes] = True
    used = np.flatnonzero(flags[:-1])
    numbers = np.full(len(flags), -1, dtype=codes.dtype)
    numbers[used] = np.arange(len(used), dtype=codes.dtype)
    codes = numbers[codes]
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), dictionary.take(pa.array(used)))


def _read(
    reader: ObjectReader, url: str, wanted: Callable[[str], bool] | None, template: ManifestGroup | None
) -> ManifestGroup:
    pa = pyarrow()
    try:
        file = _parquet().ParquetFile(pa.PythonFile(reader, "r"), page_checksum_verification=True)
        if file.metadata.num_rows > MOST_ROWS:
            raise LimitExceededError(f"{url} has {file.metadata.num_rows:,} rows; the most is {MOST_ROWS:,}", url=url)
        own = _template(file.schema_arrow, url, template)
        kept = own if wanted is None else Template(_pruned(own.root, wanted, ""), own.encodings)
        table = _rows(file, kept, own)
        table.validate(full=True)
        return tree_of(table, kept)
    except VirtualChunksError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise FormatError(f"{url} is no Parquet file of references, or is damaged: {error}", url=url) from error


def _template(schema: Any, url: str, template: ManifestGroup | None) -> Template:
    carried = schema.metadata or {}
    document = carried.get(KEY.encode())
    if document is None and template is None:
        raise FormatError(
            f"{url} is a Parquet file without the metadata of a table of references; its columns are "
            f"{schema.names[:20]}. If it is part of Kerchunk references, open the folder; if another program made the "
            "table, pass template= to from_parquet",
            url=url,
        )
    digest = carried.get(_DIGEST.encode())
    if digest is not None and digest.decode() != _digest(document or b""):
        raise FormatError(f"{url} is damaged: its metadata is not what was written", url=url)
    return template_of(carried, template)


def _pruned(node: Node, wanted: Callable[[str], bool], path: str) -> Node:
    """Return a group with the arrays that are wanted."""
    arrays = {name: metadata for name, metadata in node.arrays.items() if wanted(path + name)}
    groups = {name: _pruned(inner, wanted, f"{path}{name}/") for name, inner in node.groups.items()}
    return Node(arrays, groups, node.attributes, node.unlimited_dims)


def _rows(file: Any, kept: Template, own: Template) -> Any:
    """Return the rows of the arrays that are kept, of those row groups that may hold one."""
    wanted = {path for path, _ in kept.root.walk_arrays()}
    if wanted == {path for path, _ in own.root.walk_arrays()}:
        return file.read()
    pa = pyarrow()
    names = [file.metadata.schema.column(place).path for place in range(file.metadata.num_columns)]
    if ARRAY not in names:
        return file.read()
    column = names.index(ARRAY)
    groups = [
        number
        for number in range(file.metadata.num_row_groups)
        if _may_hold(file.metadata.row_group(number).column(column).statistics, wanted)
    ]
    table = file.read_row_groups(groups)
    return table.filter(pa.compute.is_in(table[ARRAY].cast(pa.string()), pa.array(sorted(wanted), pa.string())))


def _may_hold(statistics: Any, wanted: Iterable[str]) -> bool:
    if statistics is None or not statistics.has_min_max:
        return True
    return any(statistics.min <= path <= statistics.max for path in wanted)
