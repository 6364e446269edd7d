"""The columns of somebody's table as NumPy arrays, their names, types and numbers checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import FormatError, ManifestError
from virtualchunks.records import LARGEST_OFFSET
from virtualchunks.sources import UNKNOWN
from virtualchunks.writers.tables.schema import (
    ARRAY,
    BYTES,
    ENCODING,
    ETAG,
    KIND,
    KINDS,
    LAST_MODIFIED,
    LENGTH,
    MOST_AXES,
    OFFSET,
    PATH,
    REQUIRED,
    SIZE,
    STAMP_VERSION,
    TAIL,
    pyarrow,
)

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_AXIS = re.compile(r"i(0|[1-9][0-9]*)")
#: Integers up to here are the same as floats.
_EXACT = 2**53


@dataclass(frozen=True)
class Text:
    """A column of text: distinct texts, and the place of each row's among them; -1 for none."""

    distinct: Sequence[str]
    codes: npt.NDArray[np.int32]

    @property
    def is_empty(self) -> bool:
        """Whether no row has one."""
        return not self.distinct or not (self.codes >= 0).any()


@dataclass(frozen=True)
class Columns:
    """Rows of a table, as columns.

    Parameters
    ----------
    arrays, array
        Distinct paths of arrays, and the place among them of each row's.
    index, index_known
        Along each axis that the table has a column for: the index of each chunk, and whether there is one.
    inline
        Which chunks are held in the table.
    path, etag, version
        Text.
    offset, length, encoding
        Numbers.
    size, last_modified
        Numbers, ``UNKNOWN`` where there is none; ``None`` where no row has one.
    data
        The Arrow column of bytes; ``None`` where no row has any.
    rows
        Which row of the table each is.
    """

    arrays: Sequence[str]
    array: npt.NDArray[np.int32]
    index: Sequence[Ints]
    index_known: Sequence[Flags]
    inline: Flags
    path: Text
    etag: Text
    version: Text
    offset: Ints
    length: Ints
    encoding: Ints
    size: Ints | None
    last_modified: Ints | None
    data: Any
    rows: Ints | range

    def part(self, rows: Ints | slice) -> Columns:
        """Return some of the rows."""
        columns = [field.name for field in fields(self) if field.name != "arrays"]
        return Columns(self.arrays, **{name: _part(getattr(self, name), rows) for name in columns})


def _part(column: Any, rows: Ints | slice) -> Any:
    if column is None:
        return None
    if isinstance(column, Text):
        return Text(column.distinct, column.codes[rows])
    if isinstance(column, np.ndarray):
        return column[rows]
    if isinstance(column, list):
        return [_part(item, rows) for item in column]
    if isinstance(column, range):
        return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
    if isinstance(rows, slice):
        return column.slice(rows.start, rows.stop - rows.start)
    return column.take(pyarrow().array(rows))


def error_at(columns: Columns, place: int, path: str, what: str) -> ManifestError:
    """Return the error for the index of one row."""
    return ManifestError(
        f"row {int(columns.rows[place])} of the table: the chunk index of {path!r} {what}", variable=path
    )


def checked_columns(table: Any, arrays: Collection[str], encodings: int) -> Columns:
    """Return the columns of a table of references.

    Parameters
    ----------
    table
        A pyarrow Table.
    arrays
        Paths of the arrays that rows may be about.
    encodings
        How many encodings there are beside those of the arrays.

    Raises
    ------
    FormatError
        If a column is missing, unknown or of another type.
    ManifestError
        If a row is wrong; the message names it.
    """
    rank = _check_names(table.column_names)
    read = _Reader(table)
    array = read.text(ARRAY)
    read.refuse(array.codes < 0, "names no array")
    for number, name in enumerate(array.distinct):
        if name not in arrays:
            known = ", ".join(map(repr, list(arrays)[:20])) or "none"
            read.refuse(array.codes == number, f"is about {name!r}; the arrays there are {known}")
    index = [read.optional_integers(f"i{axis}") for axis in range(rank)]
    path = read.text(PATH)
    data = read.binary(BYTES)
    columns = Columns(
        arrays=array.distinct,
        array=array.codes,
        index=[_zeros(table) if values is None else values for values in index],
        index_known=[np.zeros(table.num_rows, bool) if values is None else values != UNKNOWN for values in index],
        inline=read.inline(path, data),
        path=path,
        etag=read.text(ETAG),
        version=read.text(STAMP_VERSION),
        offset=read.integers(OFFSET),
        length=read.integers(LENGTH),
        encoding=read.integers(ENCODING) if ENCODING in table.column_names else _zeros(table),
        size=read.optional_integers(SIZE),
        last_modified=read.optional_integers(LAST_MODIFIED),
        data=data,
        rows=range(table.num_rows),
    )
    _check_numbers(columns, read, encodings)
    return columns


def _zeros(table: Any) -> Ints:
    return np.zeros(table.num_rows, dtype=np.int64)


def _check_names(names: Sequence[str]) -> int:
    """Return the number of index columns."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FormatError(f"the table has the column {twice[0]!r} twice")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise FormatError(f"the table lacks the columns {missing}; a table of references has {[*REQUIRED]} at least")
    axes = sorted(int(match[1]) for name in names if (match := _AXIS.fullmatch(name)))
    unknown = [name for name in names if name not in (ARRAY, *TAIL) and not _AXIS.fullmatch(name)]
    if unknown:
        raise FormatError(
            f"the table has columns that mean nothing here: {unknown}; known are {[ARRAY, 'i0', 'i1', '…', *TAIL]}. "
            "Select those"
        )
    if axes != list(range(len(axes))) or len(axes) > MOST_AXES:
        raise FormatError(
            f"the index columns of the table are {[f'i{axis}' for axis in axes][:5]}, not i0, i1, … in turn"
        )
    return len(axes)


def _check_numbers(columns: Columns, read: _Reader, encodings: int) -> None:
    offset, length = columns.offset, columns.length
    if not len(offset):
        return
    if offset.min() < 0:
        read.refuse(offset < 0, "has a negative offset")
    if length.min() < 1:
        read.refuse(length < 1, "has a length below 1; leave the rows of missing chunks out")
    if int(offset.max()) + int(length.max()) > LARGEST_OFFSET:
        read.refuse(offset > LARGEST_OFFSET - length, "is about a chunk that ends beyond 2**63 - 1 bytes")
    if columns.encoding.min() < 0 or columns.encoding.max() > encodings:
        wrong = (columns.encoding < 0) | (columns.encoding > encodings)
        read.refuse(wrong, f"has the encoding {int(columns.encoding[wrong][0])}; the table's metadata has {encodings}")
    if columns.size is not None:
        read.refuse((columns.size < 0) & (columns.size != UNKNOWN), "has a negative size")


class _Reader:
    """Reads the columns of one table.

    Parameters
    ----------
    table
        A pyarrow Table.
    """

    def __init__(self, table: Any) -> None:
        self._table = table
        self._arrays: tuple[Sequence[str], npt.NDArray[np.int32]] | None = None

    def refuse(self, wrong: Flags, what: str) -> None:
        """Raise ManifestError for the first row that is wrong, if there is one."""
        if not wrong.any():
            return
        row = int(np.flatnonzero(wrong)[0])
        name = self._array_at(row)
        about = "" if name is None else f", of the array {name!r},"
        raise ManifestError(f"row {row} of the table{about} {what}", variable=name)

    def _array_at(self, row: int) -> str | None:
        value = self._table[ARRAY][row].as_py()
        return value if isinstance(value, str) else None

    def text(self, name: str) -> Text:
        """Return a column of text; of nothing where there is none."""
        pa = pyarrow()
        if name not in self._table.column_names:
            return Text([], np.full(self._table.num_rows, -1, dtype=np.int32))
        column = self._column(name)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_null(kind):
            return Text([], np.full(len(column), -1, dtype=np.int32))
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise FormatError(f"the column {name!r} of the table is {column.type}, where text is expected")
        if not pa.types.is_dictionary(column.type):
            column = (column.cast(pa.large_string()) if pa.types.is_string_view(kind) else column).dictionary_encode()
        column = column.unify_dictionaries().combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of no chunks
            return Text([], np.empty(0, dtype=np.int32))
        distinct = column.dictionary.to_pylist()
        codes = column.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        return _merged(distinct, codes)

    def integers(self, name: str) -> Ints:
        """Return a column of integers, none of which is null, unless the chunk is inline and it is an offset."""
        values = self.optional_integers(name)
        if values is None:
            values = np.full(self._table.num_rows, UNKNOWN, dtype=np.int64)
        if name == OFFSET and BYTES in self._table.column_names and len(values) and values.min() == UNKNOWN:
            held = self._table[BYTES].is_valid().to_numpy()
            values = np.where((values == UNKNOWN) & held, 0, values)
        self.refuse(values == UNKNOWN, f"has no {name}")
        return values

    def optional_integers(self, name: str) -> Ints | None:
        """Return a column of integers, ``UNKNOWN`` where they are null; ``None`` where all are."""
        pa = pyarrow()
        if name not in self._table.column_names:
            return None
        column = self._column(name)
        if column.null_count == len(column) or pa.types.is_null(column.type):
            return None
        if pa.types.is_floating(column.type):
            column = self._from_floats(name, column)
        elif pa.types.is_uint64(column.type):
            large = pa.compute.greater(column, pa.scalar(LARGEST_OFFSET, pa.uint64())).fill_null(False)
            self.refuse(large.to_numpy(), f"has a number beyond 2**63 - 1 in the column {name!r}")
        elif not pa.types.is_integer(column.type):
            raise FormatError(f"the column {name!r} of the table is {column.type}, where integers are expected")
        values: Ints = column.cast(pa.int64()).fill_null(UNKNOWN).to_numpy()
        return values

    def _from_floats(self, name: str, column: Any) -> Any:
        """Return integers that a DataFrame holds as floats, since some of them are null."""
        pa = pyarrow()
        values = column.cast(pa.float64()).fill_null(0).to_numpy()
        values = np.where(np.isnan(values), 0, values)
        self.refuse(values != np.floor(values), f"has a fraction in the column {name!r}, where integers are expected")
        self.refuse(
            np.abs(values) > _EXACT,
            f"has a number beyond 2**53 in the column {name!r}, which is of floats and rounds it; keep the "
            "integers, in pandas by to_pandas(types_mapper=pandas.ArrowDtype)",
        )
        nulls = column.is_null(nan_is_null=True)
        return pa.compute.if_else(nulls, pa.scalar(None, pa.int64()), pa.chunked_array([values.astype(np.int64)]))

    def binary(self, name: str) -> Any:
        """Return a column of bytes, as one Arrow array; ``None`` where no row has any."""
        pa = pyarrow()
        if name not in self._table.column_names:
            return None
        column = self._column(name)
        if column.null_count == len(column):
            return None
        types = pa.types
        if not (
            types.is_binary(column.type) or types.is_large_binary(column.type) or types.is_binary_view(column.type)
        ):
            raise FormatError(f"the column {name!r} of the table is {column.type}, where bytes are expected")
        made = column.cast(pa.large_binary()).combine_chunks()
        return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made

    def inline(self, path: Text, data: Any) -> Flags:
        """Return which rows hold the bytes of their chunk."""
        held = np.zeros(len(path.codes), bool) if data is None else data.is_valid().to_numpy(zero_copy_only=False)
        there = path.codes >= 0
        self.refuse(held & there, "has a path and bytes; a chunk lies in one place")
        self.refuse(~held & ~there, "has neither a path nor bytes; leave the rows of missing chunks out")
        if KIND in self._table.column_names:
            kind = self.text(KIND)
            unknown = np.array([name not in KINDS for name in kind.distinct] + [False], dtype=bool)[kind.codes]
            self.refuse(unknown, f"is of a kind that is none of {KINDS}")
            says = np.array([name == "inline" for name in kind.distinct] + [False], dtype=bool)[kind.codes]
            self.refuse((kind.codes >= 0) & (says != held), "is of a kind that does not go with its path or bytes")
        return held

    def _column(self, name: str) -> Any:
        """Return a column, in the storage type of an extension type."""
        pa = pyarrow()
        column = self._table[name]
        if isinstance(column.type, pa.BaseExtensionType):
            return column.cast(column.type.storage_type)
        return column


def _merged(distinct: list[str | None], codes: npt.NDArray[np.int32]) -> Text:
    """Return text in which each distinct one stands once, and none is null or empty."""
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(text, len(numbers)) if text else -1 for text in distinct]
    if places == list(range(len(places))):
        return Text(list(numbers), codes)
    return Text(list(numbers), np.array([*places, -1], dtype=np.int32)[codes])
