"""Where the values of a NetCDF classic file lie, worked out from its header.

Variables without the record dimension lie one after the other, each in one run. The others are interleaved: record *i*
of all of them, then record *i + 1*. Every variable is padded to a multiple of four bytes, within each record too, with
one exception: the records of a variable that is alone in having any are not padded.

References
----------
The NetCDF Classic Format Specification, notes on ``vsize``, on padding, and on record size ("the special case of only
one record variable").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from virtualchunks.errors import FormatError
from virtualchunks_parsers.netcdf3.header import Header, Variable


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one variable lies.

    Attributes
    ----------
    variable
        The variable.
    shape, names
        Lengths and names of its dimensions.
    nbytes
        Bytes in one run, without padding: those of a record, or of the whole variable if it has no record dimension.
    stride
        Bytes from one record to the next; ``None`` without a record dimension.
    """

    variable: Variable
    shape: tuple[int, ...]
    names: tuple[str, ...]
    nbytes: int
    stride: int | None = None

    @property
    def end(self) -> int:
        """Where the byte after its last is; 0 where it has none."""
        if not math.prod(self.shape):
            return 0
        return self.variable.begin + self.nbytes + ((self.shape[0] - 1) * self.stride if self.stride is not None else 0)

    @property
    def is_contiguous(self) -> bool:
        """Whether its values lie in one run."""
        return self.stride is None or self.stride == self.nbytes or self.shape[0] == 1


def layouts(header: Header, url: str, size: int) -> list[Layout]:
    """Return where every variable lies, in the header's order.

    Parameters
    ----------
    header
        The header.
    url, size
        The file's name, for errors, and its length, which tells the number of records where the header does not.

    Raises
    ------
    FormatError
        If variables overlap each other or the header, or the record dimension is not the first of a variable.
    """
    runs = [_run_bytes(header, variable, url) for variable in header.variables]
    has_records = [_has_records(header, variable) for variable in header.variables]
    fixed = [place for place, has in enumerate(has_records) if not has]
    recorded = [place for place, has in enumerate(has_records) if has]
    end = _check_order(header, fixed, runs, header.size, url)
    _check_order(header, recorded, runs, end, url)
    stride = _record_size([runs[place] for place in recorded])
    records = header.records
    if records is None:
        first = header.variables[recorded[0]].begin if recorded else size
        padding = _padded(runs[recorded[-1]]) - runs[recorded[-1]] if len(recorded) > 1 else 0
        records = max(0, size - first + padding) // stride if stride else 0  # the last may lack its padding
    return [
        _layout(header, variable, nbytes, (records, stride) if has else None)
        for variable, nbytes, has in zip(header.variables, runs, has_records, strict=True)
    ]


def _has_records(header: Header, variable: Variable) -> bool:
    return bool(variable.dimension_ids) and header.dimensions[variable.dimension_ids[0]].length == 0


def _run_bytes(header: Header, variable: Variable, url: str) -> int:
    """Bytes of one record, or of the whole variable if it has no records, without padding."""
    lengths = [header.dimensions[number].length for number in variable.dimension_ids]
    if 0 in lengths[1:]:
        raise FormatError(
            f"the record dimension is not the first of {variable.name!r}, and NetCDF-3 knows no other place for it",
            url=url,
            variable=variable.name,
        )
    return math.prod(lengths[1:] if _has_records(header, variable) else lengths) * variable.dtype.itemsize


def _padded(nbytes: int) -> int:
    return nbytes + -nbytes % 4


def _check_order(header: Header, places: Sequence[int], runs: Sequence[int], start: int, url: str) -> int:
    """Raise unless variables follow each other from `start` on; return where the last of them ends."""
    for place in places:
        variable = header.variables[place]
        if variable.begin < start:
            raise FormatError(
                f"{variable.name!r} begins at byte {variable.begin}, before the end of what precedes it, {start}: the "
                "header is corrupt",
                url=url,
                variable=variable.name,
            )
        start = variable.begin + _padded(runs[place])
    return start


def _record_size(runs: Sequence[int]) -> int:
    """Bytes from one record to the next."""
    return runs[0] if len(runs) == 1 else sum(map(_padded, runs))


def _layout(header: Header, variable: Variable, nbytes: int, records: tuple[int, int] | None) -> Layout:
    dimensions = [header.dimensions[number] for number in variable.dimension_ids]
    names, shape = (
        tuple(dimension.name for dimension in dimensions),
        tuple(dimension.length for dimension in dimensions),
    )
    if records is None:
        return Layout(variable, shape, names, nbytes)
    count, stride = records
    return Layout(variable, (count, *shape[1:]), names, nbytes, stride)
