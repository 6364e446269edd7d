"""Table: a few named columns, as answers to questions come; it needs neither pandas nor pyarrow until it meets them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from virtualchunks.errors import ManifestError, MissingDependencyError

if TYPE_CHECKING:
    import pandas as pd


class Table:
    """Columns of one length, by name, and rows as dictionaries. What reads Arrow's PyCapsule interface reads it.

    Parameters
    ----------
    columns
        The values of each column, in order.

    Raises
    ------
    ManifestError
        If the columns differ in length.

    Examples
    --------
    >>> table = Table({"url": ["s3://bucket/a.nc"], "chunks": [3]})
    >>> table["chunks"], len(table), table.columns
    ([3], 1, ('url', 'chunks'))
    >>> list(table)
    [{'url': 's3://bucket/a.nc', 'chunks': 3}]
    """

    __slots__ = ("_columns",)

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self._columns = {name: list(values) for name, values in columns.items()}
        if len({len(values) for values in self._columns.values()}) > 1:
            lengths = {name: len(values) for name, values in self._columns.items()}
            raise ManifestError(f"the columns of a table have one length, found {lengths}")

    def __getitem__(self, name: str) -> list[Any]:
        return self._columns[name]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()), ()))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for values in zip(*self._columns.values(), strict=True):
            yield dict(zip(self._columns, values, strict=True))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._columns)

    def __eq__(self, other: object) -> bool:
        return self._columns == other._columns if isinstance(other, Table) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # compares by content

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the columns as lists, by name."""
        return {name: list(values) for name, values in self._columns.items()}

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a DataFrame.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependencyError(
                "a DataFrame needs pandas, which is not installed: pip install pandas"
            ) from error
        return pd.DataFrame(self._columns, columns=list(self._columns))

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return the table as an Arrow stream, for pyarrow, polars, duckdb and the like.

        Raises
        ------
        MissingDependencyError
            If pyarrow is not installed.
        """
        try:
            import pyarrow as pa
        except ImportError as error:
            raise MissingDependencyError(
                "an Arrow table needs pyarrow, which is not installed: pip install 'virtualchunks[parquet]'"
            ) from error
        columns = {name: [_plain(value) for value in values] for name, values in self._columns.items()}
        return pa.table(columns).__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        first = itertools.islice(self, 8)
        shown = "\n".join("  " + ", ".join(map(str, row.values())) for row in first)
        more = f"\n  … {len(self) - 8} more" if len(self) > 8 else ""
        return f"<Table of {len(self)} rows: {', '.join(self._columns)}>{chr(10) if shown else ''}{shown}{more}"


def _plain(value: Any) -> Any:
    """Return a value that Arrow has a type for: ranges by variable become a list of pairs."""
    if isinstance(value, Mapping):
        return [{"variable": name, "ranges": [list(pair) for pair in ranges]} for name, ranges in value.items()]
    return list(value) if isinstance(value, tuple) else value
