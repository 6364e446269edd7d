"""From the columns of one array to its source table and its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import ManifestError, URLError
from virtualchunks.grid import ChunkGrid
from virtualchunks.manifest import RECORD, WIDE_RECORD, ChunkManifest
from virtualchunks.records import MISSING
from virtualchunks.sources import UNKNOWN, PackedStrings, SourceTable
from virtualchunks.urls import as_url, canonical_urls
from virtualchunks.writers.tables.checked import Columns, Ints, Text
from virtualchunks.writers.tables.schema import pyarrow


@dataclass(frozen=True)
class ArraySources:
    """The source table of one array, and the row of it that each chunk lies in.

    Parameters
    ----------
    table
        Objects and buffers.
    codes
        The row of each chunk.
    offset
        Where each chunk lies in its object or buffer.
    """

    table: SourceTable
    codes: Ints
    offset: Ints

    def manifest(self, columns: Columns, numbers: Ints, grid: ChunkGrid, path: str) -> ChunkManifest:
        """Return the manifest.

        Parameters
        ----------
        columns
            The rows.
        numbers
            Which chunk each is, in C order of the grid.
        grid
            The chunk grid.
        path
            The array, for messages.

        Raises
        ------
        ManifestError
            If two rows are about one chunk; the message names both.
        """
        wide = int(columns.length.max()) >= 2**32
        records = np.zeros(grid.size, dtype=WIDE_RECORD if wide else RECORD)
        if len(numbers) < grid.size or (numbers[1:] <= numbers[:-1]).any():
            _check_twice(columns, numbers, grid, path)
            records["source"] = MISSING
        records["source"][numbers] = self.codes
        records["offset"][numbers] = self.offset
        records["length"][numbers] = columns.length
        return ChunkManifest.from_records(records.reshape(grid.grid_shape), self.table)


def _check_twice(columns: Columns, numbers: Ints, grid: ChunkGrid, path: str) -> None:
    """Raise ManifestError where two rows are about one chunk."""
    if not (numbers[1:] <= numbers[:-1]).any():
        return
    last = np.zeros(grid.size, dtype=np.int64)
    places = np.arange(len(numbers))
    last[numbers] = places
    again = np.flatnonzero(last[numbers] != places)
    if not again.size:
        return
    first = int(again[0])
    second = int(np.flatnonzero(numbers[first + 1 :] == numbers[first])[0]) + first + 1
    chunk = tuple(int(i) for i in np.unravel_index(int(numbers[first]), grid.grid_shape)) if grid.ndim else ()
    raise ManifestError(
        f"rows {int(columns.rows[first])} and {int(columns.rows[second])} of the table are both about chunk {chunk} of "
        f"{path!r}",
        variable=path,
        chunk=chunk,
    )


def array_sources(columns: Columns, encodings: Sequence[ChunkEncoding]) -> ArraySources:
    """Return where the chunks of one array lie.

    Parameters
    ----------
    columns
        Its rows.
    encodings
        What their numbers of encodings stand for, number 1 first.

    Raises
    ------
    URLError
        If a path is not an acceptable URL.
    """
    place = _urls(columns.path)
    keys = [place.codes.astype(np.int64)]
    keys += [column.codes.astype(np.int64) for column in (columns.etag, columns.version) if not column.is_empty]
    keys += [column for column in (columns.size, columns.last_modified) if column is not None]
    if columns.encoding.any():
        keys.append(columns.encoding)
    codes, first = _distinct(keys)
    table = _table(columns, place, first, encodings)
    if not columns.inline.any():
        return ArraySources(table, codes, columns.offset)
    offset, data = _held(columns)
    held = {row: data for row, chunk in enumerate(first.tolist()) if columns.inline[chunk]}
    return ArraySources(table.replace(buffers=held), codes, offset)


def _urls(path: Text) -> Text:
    """Return a column of paths as canonical URLs."""
    used = np.unique(path.codes)
    used = used[used >= 0]
    try:
        named = [path.distinct[code] for code in used.tolist()]
        urls = canonical_urls([as_url(name) if name.startswith("/") else name for name in named])
    except URLError as error:
        raise ManifestError(f"a path in the table is not an acceptable URL: {error.message}", url=error.url) from error
    rows = {url: row for row, url in enumerate(dict.fromkeys(urls))}
    places = np.full(len(path.distinct) + 1, -1, dtype=np.int32)
    places[used] = [rows[url] for url in urls]
    return Text(list(rows), places[path.codes])


def _distinct(keys: Sequence[Ints]) -> tuple[Ints, Ints]:
    """Number the distinct combinations of several columns.

    Returns
    -------
    codes, first
        The number of each row's combination, and a row that has each.
    """
    codes, first = _encoded(keys[0])
    for column in keys[1:]:
        if (column == column[first][codes]).all():
            continue
        others, ones = _encoded(column)
        codes, first = _encoded(codes * len(ones) + others)
    return codes, first


def _encoded(column: Ints) -> tuple[Ints, Ints]:
    """Number the distinct values of a column, in the order in which they appear."""
    pa = pyarrow()
    encoded = pa.array(column).dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    first = np.zeros(len(encoded.dictionary), dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return codes, first


def _table(columns: Columns, place: Text, first: Ints, encodings: Sequence[ChunkEncoding]) -> SourceTable:
    numbers = columns.encoding[first]
    used, ids = np.unique(numbers, return_inverse=True)
    own = bool(len(used) and used[0] == 0)
    return SourceTable(
        urls=_strings(place, first) or PackedStrings.pack([""] * len(first)),
        sizes=_optional(columns.size, first),
        last_modified=_optional(columns.last_modified, first),
        etags=_strings(columns.etag, first),
        versions=_strings(columns.version, first),
        encoding_ids=(ids + (0 if own else 1)).astype(np.int32) if numbers.any() else None,
        encodings=tuple(encodings[number - 1] for number in used.tolist() if number),
    )


def _strings(column: Text, rows: Ints) -> PackedStrings | None:
    codes = column.codes[rows].tolist()
    if all(code < 0 for code in codes):
        return None
    return PackedStrings.pack([column.distinct[code] if code >= 0 else "" for code in codes])


def _optional(column: Ints | None, rows: Ints) -> Ints | None:
    if column is None:
        return None
    values = column[rows]
    return values if (values != UNKNOWN).any() else None


def _held(columns: Columns) -> tuple[Ints, bytes]:
    """Return the offset of each chunk, those that are inline in one buffer, and the buffer."""
    pa = pyarrow()
    data: Any = columns.data.filter(pa.array(columns.inline))
    ends = np.frombuffer(data.buffers()[1], dtype=np.int64)[data.offset : data.offset + len(data) + 1]
    lengths = columns.length[columns.inline]
    wrong = np.flatnonzero(np.diff(ends) != lengths)
    if wrong.size:
        row = np.asarray(columns.rows)[columns.inline][wrong[0]]
        raise ManifestError(
            f"row {int(row)} of the table has {int(np.diff(ends)[wrong[0]])} bytes, and the length "
            f"{int(lengths[wrong[0]])}"
        )
    offset = columns.offset.copy()
    offset[columns.inline] = ends[:-1] - ends[0]
    return offset, data.buffers()[2].slice(int(ends[0]), int(ends[-1] - ends[0])).to_pybytes()
