"""Columns of tables: what TFORMn, TDIMn and TBCOLn say of the fields of a row.

References
----------
FITS Standard 4.0, sections 7.2 (ASCII tables) and 7.3 (binary tables).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from virtualchunks.codecs import fits_columns
from virtualchunks.encoding import Codec, bytes_codec
from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks_parsers.fits.cards import Header
from virtualchunks_parsers.fits.packing import Packing

#: Bytes of an element, by the code of TFORM.
SIZES = {"L": 1, "X": 0, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
NUMBERS = {"B": "u1", "I": "i2", "J": "i4", "K": "i8", "E": "f4", "D": "f8", "C": "c8", "M": "c16"}
HEAP = "PQ"

_BINARY = re.compile(r"(\d*)([LXBIJKAEDCMPQ])(.*)", re.DOTALL)
_ASCII = re.compile(r"([AIFED])(\d+)(?:\.(\d+))?")
_TDIM = re.compile(r"\(\s*\d+\s*(?:,\s*\d+\s*)*\)")

#: Keywords of a column that become its attributes, without the number.
DESCRIPTIVE = (
    "TDISP",
    "TCOMM",
    "TUCD",
    "TCTYP",
    "TCUNI",
    "TCRPX",
    "TCRVL",
    "TCDLT",
    "TLMIN",
    "TLMAX",
    "TDMIN",
    "TDMAX",
)


@dataclass(frozen=True)
class Column:
    """One column: where its fields are, and what they hold.

    Attributes
    ----------
    number
        From 1.
    name
        TTYPEn, or ``col`` and the number.
    offset, width
        Of its field within a row, in bytes.
    code
        The letter of TFORMn.
    repeat
        How many elements TFORMn says a field has; for ASCII tables 1.
    extra
        What stands behind the letter.
    """

    number: int
    name: str
    offset: int
    width: int
    code: str
    repeat: int
    extra: str

    def keyword(self, name: str) -> str:
        """Return a keyword of this column."""
        return f"{name}{self.number}"


@dataclass(frozen=True)
class Fields:
    """The values of a column.

    Attributes
    ----------
    shape
        Shape of the values of one row.
    stored
        Their type, with its byte order.
    codecs
        That make the bytes of fields, one after the other, of them.
    attributes
        As of the array.
    """

    shape: tuple[int, ...]
    stored: np.dtype[Any]
    codecs: tuple[Codec, ...]
    attributes: dict[str, Any]


def binary_columns(header: Header, row_bytes: int) -> list[Column]:
    """Return the columns of a binary table, in order.

    Raises
    ------
    FormatError
        If a format is none, or the fields are longer than the rows.
    """
    columns, offset = [], 0
    for number in range(1, header.integer("TFIELDS", highest=999) + 1):
        form = header.text(f"TFORM{number}").strip()
        match = _BINARY.fullmatch(form)
        if match is None:
            raise header.wrong(f"TFORM{number}", "the format of a column of a binary table")
        repeat = int(match[1]) if match[1] else 1
        width = -(-repeat // 8) if match[2] == "X" else repeat * SIZES[match[2]]
        columns.append(Column(number, _name(header, number), offset, width, match[2], repeat, match[3].strip()))
        offset += width
    if offset > row_bytes:
        raise header.wrong("NAXIS1", f"at least the {offset} bytes that the columns take")
    return columns


def ascii_columns(header: Header, row_bytes: int) -> list[Column]:
    """Return the columns of an ASCII table, in order.

    Raises
    ------
    FormatError
        If a format is none, or a field lies outside the rows.
    """
    columns = []
    for number in range(1, header.integer("TFIELDS", highest=999) + 1):
        match = _ASCII.fullmatch(header.text(f"TFORM{number}").strip())
        if match is None:
            raise header.wrong(f"TFORM{number}", "the format of a column of an ASCII table")
        offset, width = header.integer(f"TBCOL{number}", lowest=1) - 1, int(match[2])
        if width == 0 or offset + width > row_bytes:
            raise header.wrong(f"TBCOL{number}", f"the place of {width} characters in rows of {row_bytes}")
        columns.append(Column(number, _name(header, number), offset, width, match[1], 1, match[3] or ""))
    return columns


def _name(header: Header, number: int) -> str:
    name = header.get(f"TTYPE{number}")
    return name.strip() if isinstance(name, str) and name.strip() else f"col{number}"


def binary_fields(header: Header, column: Column) -> Fields:
    """Return what the fields of a column of a binary table hold.

    Raises
    ------
    UnsupportedFeatureError
        If their length varies.
    """
    if column.code in HEAP:
        keyword = column.keyword("TFORM")
        raise UnsupportedFeatureError(
            f"a column of variable length ({keyword} = {header[keyword]!r}), whose rows hold arrays of several lengths"
        )
    return _BINARY_FIELDS.get(column.code, _numbers)(header, column)


def _numbers(header: Header, column: Column) -> Fields:
    packing = _packing(header, column, np.dtype(NUMBERS[column.code]))
    attributes = _attributes(header, column, packing)
    stored = packing.dtype.newbyteorder(">")
    return Fields(_row_shape(header, column), stored, packing.codecs(), attributes)


def _packing(header: Header, column: Column, stored: np.dtype[Any]) -> Packing:
    null = header.get(column.keyword("TNULL"))
    return Packing.of(
        stored,
        scale=header.number(column.keyword("TSCAL"), 1),
        zero=header.number(column.keyword("TZERO"), 0),
        blank=null if isinstance(null, int) and not isinstance(null, bool) else None,
    )


def _strings(header: Header, column: Column) -> Fields:
    dims = _tdim(header, column) or (column.repeat,)
    stored = np.dtype(f"S{max(1, dims[0])}")
    return Fields(dims[:0:-1], stored, (bytes_codec(stored),), _attributes(header, column))


def _logical(header: Header, column: Column) -> Fields:
    codec = {"name": fits_columns.LOGICAL}
    return Fields(_row_shape(header, column), np.dtype(bool), (codec,), _attributes(header, column))


def _bits(header: Header, column: Column) -> Fields:
    codec = {"name": fits_columns.BITS, "configuration": {"bits": max(1, column.repeat)}}
    return Fields(_row_shape(header, column) or (1,), np.dtype(bool), (codec,), _attributes(header, column))


_BINARY_FIELDS: dict[str, Callable[[Header, Column], Fields]] = {"A": _strings, "L": _logical, "X": _bits}


def ascii_fields(header: Header, column: Column) -> Fields:
    """Return what the fields of a column of an ASCII table hold.

    Raises
    ------
    UnsupportedFeatureError
        If undefined integers are marked by what is no integer.
    """
    if column.code == "A":
        stored = np.dtype(f"S{column.width}")
        return Fields((), stored, (bytes_codec(stored),), _attributes(header, column))
    configuration: dict[str, Any] = {"width": column.width}
    if column.extra and int(column.extra):
        configuration["decimals"] = int(column.extra)
    stored = np.dtype("f8") if column.code != "I" else np.dtype("i4" if column.width < 10 else "i8")
    null, blank = header.get(column.keyword("TNULL")), None
    if isinstance(null, str) and column.code == "I":
        blank = _integer_null(null)
    elif isinstance(null, str):
        configuration["null"] = null
    scale, zero = (header.number(column.keyword(key), default) for key, default in (("TSCAL", 1), ("TZERO", 0)))
    attributes: dict[str, Any] = {} if blank is None else {"_FillValue": stored.type(blank)}
    if scale != 1 or zero != 0:
        attributes |= {"scale_factor": scale, "add_offset": zero}
    codec = {"name": fits_columns.TEXT, "configuration": configuration}
    return Fields((), stored, (codec,), {**_attributes(header, column), **attributes})


def _integer_null(null: str) -> int:
    try:
        return int(null.strip())
    except ValueError as error:
        raise UnsupportedFeatureError(f"undefined integers are written as {null!r}, which is no integer") from error


def _attributes(header: Header, column: Column, packing: Packing | None = None) -> dict[str, Any]:
    found = {name: header[column.keyword(name)] for name in DESCRIPTIVE if column.keyword(name) in header}
    units = header.get(column.keyword("TUNIT"))
    if isinstance(units, str) and units:
        found["units"] = units
    return found | dict(packing.attributes if packing is not None else {})


def _row_shape(header: Header, column: Column) -> tuple[int, ...]:
    """Return the shape of the values of one row."""
    dims = _tdim(header, column)
    if dims is not None:
        return dims[::-1]
    return () if column.repeat == 1 else (column.repeat,)


def _tdim(header: Header, column: Column) -> tuple[int, ...] | None:
    """Return the dimensions that TDIMn gives a field, first axis first.

    Raises
    ------
    UnsupportedFeatureError
        If they are not those of a field of that length.
    """
    text = header.get(column.keyword("TDIM"))
    if text is None:
        return None
    if not isinstance(text, str) or _TDIM.fullmatch(text.strip()) is None:
        raise FormatError(f"{column.keyword('TDIM')} = {text!r} is no list of dimensions")
    dims = tuple(int(size) for size in re.findall(r"\d+", text))
    if math.prod(dims) != column.repeat:
        raise UnsupportedFeatureError(
            f"{column.keyword('TDIM')} = {text!r} gives {math.prod(dims)} elements to fields of {column.repeat}"
        )
    return dims
