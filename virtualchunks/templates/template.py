"""Templates: a cube that is known before a file of it is opened, and the index that says where its chunks are."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.errors import ManifestError
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import MISSING, ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.records import LARGEST_OFFSET, RECORD, WIDE_RECORD
from virtualchunks.sources import SourceTable
from virtualchunks.templates.columns import PLACE, STAMP, Column, read_columns, source_rows, whole_numbers
from virtualchunks.templates.labels import check_unique, positions
from virtualchunks.writers.datasets import in_memory_array

if TYPE_CHECKING:
    import xarray

#: The column that names the variable.
VARIABLE = "variable"

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Template:
    """The arrays of a cube and the labels along its dimensions, to be filled with references from an index.

    :func:`virtualchunks.template` makes one.

    Parameters
    ----------
    arrays
        Metadata of the arrays to fill, by name, with dimension names.
    labels
        Labels along dimensions. A dimension without labels is counted.
    skeleton
        The Dataset that the template was made from: coordinates, and variables that are not filled.

    Raises
    ------
    ManifestError
        If a dimension has no name, or another length than its labels or in another array, or labels repeat.

    Examples
    --------
    >>> metadata = ArrayMetadata.build(shape=(2, 3), chunks=(1, 3), dtype="<f4", dimension_names=("time", "x"))
    >>> made = Template({"air": metadata}, {"time": np.array(["2020-01-01", "2020-01-02"], dtype="M8[ns]")})
    >>> index = {"time": ["2020-01-02"], "url": ["s3://bucket/a.grib"], "offset": [100], "length": [12]}
    >>> made.fill_group(index).arrays["air"].manifest.dict()
    {'1.0': {'path': 's3://bucket/a.grib', 'offset': 100, 'length': 12}}
    """

    arrays: Mapping[str, ArrayMetadata]
    labels: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    skeleton: xarray.Dataset | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "arrays", MappingProxyType(dict(self.arrays)))
        labels = {name: np.asarray(values) for name, values in self.labels.items()}
        object.__setattr__(self, "labels", MappingProxyType(labels))
        sizes = {name: len(values) for name, values in labels.items()}
        for name, metadata in self.arrays.items():
            for axis, dimension in enumerate(_dimensions(name, metadata)):
                size = metadata.shape[axis]
                if sizes.setdefault(dimension, size) != size:
                    raise ManifestError(
                        f"{name!r} has the length {size} along {dimension!r}, where there are"
                        f" {sizes[dimension]} labels",
                        variable=name,
                    )
        for name, values in labels.items():
            check_unique(name, values)

    def __reduce__(self) -> tuple[Any, ...]:
        return Template, (dict(self.arrays), dict(self.labels), self.skeleton)

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name}{metadata.shape}" for name, metadata in self.arrays.items())
        return f"<Template {arrays}; labels along {', '.join(self.labels) or 'nothing'}>"

    def fill(self, table: Any) -> xarray.Dataset:
        """Return a virtual Dataset whose references are the rows of an index.

        Parameters
        ----------
        table
            A pandas DataFrame, an Arrow table of any library, or a mapping of columns. A row is a chunk:

            - ``variable``: its name; may be left out where the template has one array;
            - a column for each dimension along which arrays have several chunks: the label of the chunk's first element
              (a position, where the dimension has no labels);
            - ``url`` (or ``path``), ``offset`` and ``length`` in bytes;
            - perhaps ``size``, ``etag``, ``last_modified`` and ``version`` of the object, checked when it is read.

        Returns
        -------
        xarray.Dataset
            Chunks that no row fills are missing: they read as the attribute ``_FillValue``, thus as NaN once decoded;
            without one as NaN, and for dtypes that have no NaN as 0.

        Raises
        ------
        ManifestError
            If a column, a variable or a label is unknown, a number is none, or two rows fill one chunk. The message
            names the rows, counted from 0.
        URLError
            If a URL is not acceptable.
        """
        arrays = self._filled(table)
        made: xarray.Dataset = importlib.import_module("virtualchunks.xarray.templates").filled_dataset(self, arrays)
        return made

    def fill_group(self, table: Any) -> ManifestGroup:
        """Return the same as :meth:`fill` as a tree of references, without xarray; labels become arrays in memory.

        Parameters
        ----------
        table
            As there.

        Raises
        ------
        ManifestError, URLError
            As there.
        """
        labels = {name: in_memory_array(_storable(values), (name,), {}) for name, values in self.labels.items()}
        return ManifestGroup({**labels, **self._filled(table)})

    def _filled(self, table: Any) -> dict[str, ManifestArray]:
        columns = read_columns(table)
        self._check_columns(columns)
        offsets, lengths = (whole_numbers(name, columns[name], least) for name, least in (("offset", 0), ("length", 1)))
        beyond = offsets > LARGEST_OFFSET - lengths
        if beyond.any():
            raise ManifestError(f"row {int(np.argmax(beyond))}: the chunk ends beyond 2**63 - 1 bytes")
        codes, sources = source_rows(columns)
        records = np.empty(len(codes), dtype=WIDE_RECORD if len(lengths) and lengths.max() >= 2**32 else RECORD)
        records["source"], records["length"], records["offset"] = codes, lengths, offsets
        chosen = self._rows_by_variable(columns, len(codes))
        return {
            name: self._array(name, metadata, columns, chosen[name], records, sources)
            for name, metadata in self.arrays.items()
        }

    def _check_columns(self, columns: Mapping[str, Column]) -> None:
        dimensions = {name for path, metadata in self.arrays.items() for name in _dimensions(path, metadata)}
        unknown = [name for name in columns if name not in {VARIABLE, *PLACE, *STAMP, *dimensions}]
        if unknown:
            raise ManifestError(
                f"unknown columns {unknown}; known are {VARIABLE}, {', '.join(sorted(dimensions))}, "
                f"{', '.join(PLACE)}, {', '.join(STAMP)}"
            )
        needed = list(PLACE) if len(self.arrays) == 1 else [VARIABLE, *PLACE]
        lacking = [name for name in needed if name not in columns]
        if lacking:
            raise ManifestError(f"the table has no column {', '.join(map(repr, lacking))}; it has {', '.join(columns)}")

    def _rows_by_variable(self, columns: Mapping[str, Column], count: int) -> dict[str, Rows]:
        if VARIABLE not in columns:
            return {next(iter(self.arrays)): np.arange(count)}
        numbers = {name: number for number, name in enumerate(self.arrays)}
        texts = columns[VARIABLE].tolist()
        codes = np.fromiter((numbers.get(text, -1) for text in texts), dtype=np.int64, count=count)
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise ManifestError(f"row {row}: no variable {texts[row]!r}; there are {', '.join(map(repr, numbers))}")
        return {name: np.flatnonzero(codes == number) for name, number in numbers.items()}

    def _array(
        self,
        name: str,
        metadata: ArrayMetadata,
        columns: Mapping[str, Column],
        rows: Rows,
        records: npt.NDArray[Any],
        sources: SourceTable,
    ) -> ManifestArray:
        shape = metadata.grid.grid_shape
        if not len(rows):
            return ManifestArray(metadata, ChunkManifest.missing(shape))
        chunks = [
            self._chunks(name, metadata, axis, dimension, columns, rows)
            for axis, dimension in enumerate(_dimensions(name, metadata))
        ]
        cells = np.ravel_multi_index(chunks, shape) if chunks else np.zeros(len(rows), dtype=np.intp)
        self._check_once(name, metadata, cells, rows)
        made = np.zeros(metadata.grid.size, dtype=records.dtype)
        made["source"] = MISSING
        made[cells] = records[rows]
        return ManifestArray(metadata, ChunkManifest.from_records(made.reshape(shape), sources).compact())

    def _chunks(
        self,
        name: str,
        metadata: ArrayMetadata,
        axis: int,
        dimension: str,
        columns: Mapping[str, Column],
        rows: Rows,
    ) -> npt.NDArray[np.int64]:
        """Return the number of the chunk along an axis that each row fills."""
        lengths = metadata.grid.axes[axis]
        if dimension not in columns:
            if lengths.count > 1:
                raise ManifestError(
                    f"{name!r} has {lengths.count} chunks along {dimension!r}, and the table has no such column",
                    variable=name,
                )
            return np.zeros(len(rows), dtype=np.int64)
        labels = self.labels.get(dimension)
        known = np.arange(lengths.size) if labels is None else labels
        found = positions(dimension, known, columns[dimension][rows], rows)
        chunks = np.searchsorted(lengths.starts, found, side="right") - 1
        inside = lengths.starts[chunks] != found
        if inside.any():
            bad = int(np.argmax(inside))
            first = known[lengths.starts[chunks[bad]]]
            raise ManifestError(
                f"row {int(rows[bad])}: {columns[dimension][rows[bad]]!r} along {dimension!r} lies within a chunk of "
                f"{name!r}; a row fills a whole chunk, which its first label names: {first!r}",
                variable=name,
            )
        return chunks.astype(np.int64)

    def _check_once(self, name: str, metadata: ArrayMetadata, cells: Rows, rows: Rows) -> None:
        order = np.argsort(cells, kind="stable")
        twice = np.flatnonzero(cells[order][1:] == cells[order][:-1])
        if not len(twice):
            return
        one, other = order[twice[0]], order[twice[0] + 1]
        index = tuple(map(int, np.unravel_index(cells[one], metadata.grid.grid_shape))) if metadata.ndim else ()
        starts = [axis.starts[number] for axis, number in zip(metadata.grid.axes, index, strict=True)]
        place = ", ".join(
            f"{dimension}={self.labels[dimension][start] if dimension in self.labels else start}"
            for dimension, start in zip(_dimensions(name, metadata), starts, strict=True)
        )
        raise ManifestError(
            f"rows {int(rows[one])} and {int(rows[other])} both fill {name!r} at {place or 'its only chunk'}"
            + (f", and {len(twice) - 1} more do so" if len(twice) > 1 else ""),
            variable=name,
            chunk=index,
        )


def _storable(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return labels.astype(np.dtypes.StringDType()) if labels.dtype.kind in "OU" else labels


def _dimensions(name: str, metadata: ArrayMetadata) -> tuple[str, ...]:
    names = metadata.dimension_names if metadata.ndim else ()
    if names is None or None in names:
        raise ManifestError(f"{name!r} has a dimension without a name", variable=name)
    return tuple(str(dimension) for dimension in names)
