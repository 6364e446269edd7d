"""From the columns of a table back to a tree of references; everything that a table may get wrong is told by row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError, ManifestError, VirtualChunksError
from virtualchunks.grid import ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.writers.tables.checked import Columns, Ints, checked_columns, error_at
from virtualchunks.writers.tables.columns import check_proportion
from virtualchunks.writers.tables.documents import KEY, Node, Template, encoding_key
from virtualchunks.writers.tables.schema import pyarrow
from virtualchunks.writers.tables.sources import array_sources

_LABELS = re.compile(r"__index_level_[0-9]+__")


def from_arrow(table: Any, template: ManifestGroup | None = None) -> ManifestGroup:
    """Return the tree of references that a table holds.

    Parameters
    ----------
    table
        A table with the columns of :func:`to_arrow`, in any order, its rows in any order: a pyarrow Table, or any
        object that speaks the Arrow PyCapsule interface (a polars or pandas DataFrame, a duckdb relation). Columns that
        a stamp or an encoding would be in may be left out.
    template
        The tree whose arrays the rows are about; its own chunks do not matter. By default, what the metadata of the
        table's schema says; polars, pandas and duckdb drop that.

    Returns
    -------
    ManifestGroup
        The arrays of the template, with the chunks of the table. Chunks without a row are missing.

    Raises
    ------
    ManifestError
        If the table does not fit the template, or a row is wrong; the message names array and row.
    FormatError
        If it is no table of references.
    URLError
        If a path is not an acceptable URL.
    LimitExceededError
        If a grid is out of proportion to its chunks.
    MissingDependencyError
        If pyarrow is not installed.

    Notes
    -----
    Nothing that the table refers to is granted by reading the table.

    Examples
    --------
    >>> from virtualchunks import ArrayMetadata, ManifestArray
    >>> from virtualchunks.writers.tables import to_arrow
    >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(4,), dtype="<i4")
    >>> array = ManifestArray(metadata, {"0": {"path": "s3://bucket/a.nc", "offset": 8, "length": 16}})
    >>> group = ManifestGroup({"v": array})
    >>> from_arrow(to_arrow(group)) == group
    True
    """
    arrow = _without_labels(_table(table))
    return tree_of(arrow, template_of(arrow.schema.metadata or {}, template))


def template_of(carried: Mapping[bytes, bytes], template: ManifestGroup | None) -> Template:
    """Return what a table is about.

    Parameters
    ----------
    carried
        The metadata of its schema.
    template
        The tree that the caller says it is about.

    Raises
    ------
    FormatError
        If neither says it.
    ManifestError
        If they contradict each other.
    """
    document = carried.get(KEY.encode())
    own = None if document is None else Template.from_json(document)
    if template is not None:
        given = Template.of(template)
        if own is not None:
            _check_same(given, own)
            given = Template(given.root, own.encodings)
        return given
    if own is None:
        raise FormatError(
            "the table does not say what its arrays are: its schema has no metadata of virtualchunks, which some "
            "libraries drop. Pass template=, the ManifestGroup that the rows are about"
        )
    return own


def tree_of(table: Any, template: Template) -> ManifestGroup:
    """Return the tree of a pyarrow Table.

    Parameters
    ----------
    table
        The rows.
    template
        What its arrays are.

    Raises
    ------
    VirtualChunksError
        As :func:`from_arrow`.
    """
    metadata = dict(template.root.walk_arrays())
    columns = checked_columns(table, metadata, len(template.encodings))
    rows = _rows(columns, metadata)
    manifests = {path: _manifest(columns, path, found, metadata[path], template) for path, found in rows.items()}
    return _group(template.root, manifests, "")


def _table(table: Any) -> Any:
    pa = pyarrow()
    if isinstance(table, pa.Table):
        return table
    if not hasattr(table, "__arrow_c_stream__") and not hasattr(table, "__arrow_c_array__"):
        raise FormatError(
            f"a {type(table).__name__} is no table: expected a pyarrow Table, or an object with the Arrow PyCapsule "
            "interface (__arrow_c_stream__), such as a DataFrame of polars or pandas"
        )
    try:
        return pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise FormatError(f"the {type(table).__name__} cannot be read as an Arrow table: {error}") from error


def _without_labels(table: Any) -> Any:
    """Return a table without the labels of rows that pandas adds to a DataFrame of which some were selected."""
    return table.drop_columns([name for name in table.column_names if _LABELS.fullmatch(name)])


def _check_same(given: Template, own: Template) -> None:
    """Raise ManifestError where a table was made for arrays that are cut or encoded unlike those of the template."""
    known = dict(given.root.walk_arrays())
    for path, metadata in own.root.walk_arrays():
        if path in known and (ours := _describe(known[path])) != (theirs := _describe(metadata)):
            raise ManifestError(
                f"the table was written for {path!r} with {theirs}, and the template has {ours}; drop the metadata of "
                "the table's schema if this is intended",
                variable=path,
            )


def _describe(metadata: ArrayMetadata) -> str:
    grid = metadata.grid
    cut = "×".join(map(str, grid.grid_shape)) or "one"
    edges = grid.to_json()["configuration"]
    lengths = list(edges.get("chunk_shape", edges.get("chunk_shapes")))
    decoded = encoding_key(metadata.encoding, metadata.name or "")
    return f"the shape {grid.shape} in {cut} chunks of {lengths}, {metadata.dtype}, encoded as {decoded}"


def _rows(columns: Columns, metadata: Mapping[str, ArrayMetadata]) -> dict[str, Ints | slice]:
    """Return the rows of each array."""
    places = {path: number for number, path in enumerate(metadata)}
    numbers = np.array([places.get(path, -1) for path in columns.arrays], dtype=np.int64)
    codes = numbers[columns.array] if len(numbers) else columns.array.astype(np.int64)
    order: Ints | None = None
    if len(codes) and (codes[1:] < codes[:-1]).any():
        order = np.argsort(codes, kind="stable")
        codes = codes[order]
    bounds = np.searchsorted(codes, np.arange(len(metadata) + 1)).tolist()
    parts = {path: slice(bounds[number], bounds[number + 1]) for number, path in enumerate(metadata)}
    return {path: part if order is None else order[part] for path, part in parts.items()}


def _manifest(
    columns: Columns, path: str, rows: Ints | slice, metadata: ArrayMetadata, template: Template
) -> ChunkManifest:
    grid = metadata.grid
    mine = columns.part(rows)
    if not len(mine.offset):
        return ChunkManifest.missing(grid.grid_shape)
    check_proportion(path, grid.size, len(mine.offset))
    numbers = _numbers(mine, path, grid)
    try:
        return array_sources(mine, template.encodings).manifest(mine, numbers, grid, path)
    except VirtualChunksError as error:
        error.variable = error.variable if error.variable is not None else path
        raise


def _numbers(columns: Columns, path: str, grid: ChunkGrid) -> Ints:
    """Return the number of each row's chunk in C order of the grid, checked."""
    rank = grid.ndim
    for axis, values in enumerate(columns.index):
        known = columns.index_known[axis]
        wrong = known if axis >= rank else ~known
        if wrong.any():
            what = "has one" if axis >= rank else "has none"
            raise error_at(
                columns, int(np.flatnonzero(wrong)[0]), path, f"{what} in column 'i{axis}', the array has {rank} axes"
            )
        if axis < rank and (values.min() < 0 or values.max() >= grid.grid_shape[axis]):
            outside = int(np.flatnonzero((values < 0) | (values >= grid.grid_shape[axis]))[0])
            raise error_at(
                columns,
                outside,
                path,
                f"is {int(values[outside])} along axis {axis}, outside the chunk grid of shape {grid.grid_shape}",
            )
    if len(columns.index) < rank:
        raise ManifestError(
            f"{path!r} has {rank} axes, and the table has the index columns i0 to i{len(columns.index) - 1} only"
            if columns.index
            else f"{path!r} has {rank} axes, and the table has no index columns i0, i1, …",
            variable=path,
        )
    numbers = np.zeros(len(columns.offset), dtype=np.int64)
    for axis, count in enumerate(grid.grid_shape):
        numbers *= count
        numbers += columns.index[axis]
    return numbers


def _group(node: Node, manifests: Mapping[str, ChunkManifest], path: str) -> ManifestGroup:
    arrays = {name: ManifestArray(metadata, manifests[path + name]) for name, metadata in node.arrays.items()}
    groups = {name: _group(inner, manifests, f"{path}{name}/") for name, inner in node.groups.items()}
    return ManifestGroup(arrays, groups, node.attributes, node.unlimited_dims)
