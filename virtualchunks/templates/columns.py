"""Tables of references as they are handed in: columns by name, as NumPy arrays, checked row by row."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import ManifestError, MissingDependencyError, URLError
from virtualchunks.records import LARGEST_OFFSET
from virtualchunks.roots import reference_url
from virtualchunks.sources import SourceTable, Stamp

#: Columns that say where bytes are, and those that may say which version of an object they are of.
PLACE = ("url", "offset", "length")
STAMP = ("size", "etag", "last_modified", "version")
#: Other names of columns.
_ALIASES = {"path": "url"}

Column = npt.NDArray[Any]


def read_columns(table: Any) -> dict[str, Column]:
    """Return the columns of a table as arrays of one length.

    Parameters
    ----------
    table
        A pandas DataFrame, a mapping of columns, or whatever offers Arrow's PyCapsule interface, as pyarrow, polars and
        duckdb do.

    Raises
    ------
    ManifestError
        If it is none of these, or its columns differ in length.
    MissingDependencyError
        If it is an Arrow table and pyarrow is not installed.

    Examples
    --------
    >>> sorted(read_columns({"path": ["s3://bucket/a"], "offset": [0]}))
    ['offset', 'url']
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(table, pandas.DataFrame):
        columns = {str(name): _from_pandas(table[name]) for name in table.columns}
    elif isinstance(table, Mapping):
        columns = {str(name): _as_array(values) for name, values in table.items()}
    elif hasattr(table, "__arrow_c_stream__"):
        columns = _from_arrow(table)
    else:
        raise ManifestError(
            f"a table of references is a DataFrame, an Arrow table or a mapping of columns, not {type(table).__name__}"
        )
    if len({len(column) for column in columns.values()}) > 1:
        raise ManifestError(f"columns differ in length: { {name: len(column) for name, column in columns.items()} }")
    for name, column in columns.items():
        _check_hashable(name, column)
    return {_ALIASES.get(name, name): column for name, column in columns.items()}


def whole_numbers(name: str, column: Column, least: int) -> npt.NDArray[np.int64]:
    """Return a column of positions or lengths as integers.

    Parameters
    ----------
    name
        Of the column.
    column
        Its values.
    least
        The smallest that is allowed.

    Raises
    ------
    ManifestError
        If a value is none; the message names the row.
    """
    if column.dtype.kind in "iu":
        wrong = (column < least) | (column > np.array(LARGEST_OFFSET, dtype=np.int64))
        values = column
    else:
        numbers = [_whole(value) for value in column.tolist()]
        wrong = np.array([number is None or not least <= number <= LARGEST_OFFSET for number in numbers], dtype=bool)
        values = np.array([0 if bad else number for number, bad in zip(numbers, wrong, strict=True)], dtype=np.int64)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ManifestError(
            f"row {row}: the {name} is {column.tolist()[row]!r}; expected a whole number from {least} to 2**63 - 1"
        )
    return values.astype(np.int64)


def source_rows(columns: Mapping[str, Column]) -> tuple[npt.NDArray[np.int32], SourceTable]:
    """Return for each row the number of its object, and the table of the objects.

    Parameters
    ----------
    columns
        With ``url``, and perhaps columns of stamps.

    Raises
    ------
    ManifestError, URLError
        If a row has no URL or not one, or two rows give one object different stamps; the message names the rows.
    """
    texts = columns["url"].tolist()
    first: dict[Any, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    canonical: dict[str, int] = {}
    number_of: dict[Any, int] = {}
    rows: list[int] = []
    for text, row in first.items():
        if not isinstance(text, str) or not text:
            raise ManifestError(f"row {row}: the url is {text!r}; expected text")
        try:
            url = reference_url(text)
        except URLError as error:
            raise URLError(f"row {row}: {error.message}", url=error.url) from error
        number_of[text] = canonical.setdefault(url, len(canonical))
        if number_of[text] == len(rows):
            rows.append(row)
    codes = np.fromiter(map(number_of.__getitem__, texts), dtype=np.int32, count=len(texts))
    return codes, SourceTable.of_urls(list(canonical), _stamps(columns, codes, rows))


def _stamps(columns: Mapping[str, Column], codes: npt.NDArray[np.int32], rows: list[int]) -> list[Stamp] | None:
    given = [name for name in STAMP if name in columns]
    if not given:
        return None
    made: list[dict[str, Any]] = [{} for _ in rows]
    for name in given:
        values = [_stamp_value(name, value, row) for row, value in enumerate(columns[name].tolist())]
        for row, (code, value) in enumerate(zip(codes.tolist(), values, strict=True)):
            if made[code].setdefault(name, value) != value:
                raise ManifestError(
                    f"rows {rows[code]} and {row}: the {name} of one object is {made[code][name]!r} and {value!r}"
                )
    return [Stamp(**stamp) for stamp in made]


def _stamp_value(name: str, value: Any, row: int) -> Any:
    if value is None or value != value or value == "":
        return None
    if name in ("etag", "version"):
        return str(value)
    if name == "last_modified" and not isinstance(value, int | float):
        try:
            return int(np.datetime64(value, "ns").astype(np.int64))
        except (TypeError, ValueError) as error:
            raise ManifestError(f"row {row}: the last_modified is {value!r}; expected a time") from error
    number = _whole(value)
    if number is None or number < 0:
        raise ManifestError(f"row {row}: the {name} is {value!r}; expected a whole number")
    return number


def _whole(value: Any) -> int | None:
    """Return a number as an integer, ``None`` where it is none or may have been rounded."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return None


def _check_hashable(name: str, column: Column) -> None:
    if column.dtype.kind != "O":
        return
    for row, value in enumerate(column.tolist()):
        if type(value).__hash__ is None:
            raise ManifestError(f"row {row} of the column {name!r} holds a {type(value).__name__}: {value!r}")


def _as_array(values: Any) -> Column:
    if isinstance(values, np.ndarray):
        array = values
    elif isinstance(values, list | tuple) and any(value is None or isinstance(value, str) for value in values):
        array = np.array(values, dtype=object)
    elif hasattr(values, "dtype") and hasattr(values, "to_numpy"):
        return _from_pandas(values)
    else:
        array = np.asarray(values)
        if array.dtype.kind == "f" and any(isinstance(value, int) and abs(value) >= 2**53 for value in values):
            array = np.array(values, dtype=object)  # beyond 64 bits, where NumPy would round
    if array.ndim != 1:
        raise ManifestError(f"a column has one dimension, found the shape {array.shape}")
    return array.astype(object) if array.dtype.kind == "T" else array


def _from_pandas(series: Any) -> Column:
    if getattr(series.dtype, "tz", None) is not None:
        accessor = getattr(series, "dt", series)
        series = accessor.tz_convert("UTC")
        series = getattr(series, "dt", series).tz_localize(None)
    array = np.asarray(series)
    return array.astype(object) if array.dtype.kind == "T" else array


def _from_arrow(table: Any) -> dict[str, Column]:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingDependencyError(
            "an Arrow table needs pyarrow, which is not installed: pip install 'virtualchunks[parquet]'"
        ) from error
    read = pa.table(table)
    columns = {}
    for name in read.column_names:
        column = read[name].combine_chunks()
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            column = column.cast(pa.timestamp(column.type.unit))
        whole = pa.types.is_integer(column.type) and column.null_count
        columns[name] = (
            np.array(column.to_pylist(), dtype=object) if whole else np.asarray(column.to_numpy(zero_copy_only=False))
        )
    return columns
