"""The header of a NetCDF classic file, read in file order.

The three variants differ in the width of numbers: CDF-1 has 4-byte counts and offsets, CDF-2 8-byte offsets, CDF-5
8-byte counts, sizes and offsets and five more types. Every count is checked against what is left of the file before
anything is read by it. Where values lie is worked out in :mod:`~virtualchunks_parsers.netcdf3.layout`.

References
----------
The NetCDF Classic Format Specification, appendix B of the NetCDF User's Guide ("File Format Specifications"), with the
CDF-5 extension of PnetCDF.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from virtualchunks.errors import FormatError, LimitExceededError
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.signatures import describe_content

#: magic = 'C' 'D' 'F' VERSION
MAGIC = b"CDF"
#: Versions, with the widths of NON_NEG (counts, lengths, numbers of dimensions) and OFFSET.
WIDTHS = {1: (4, 4), 2: (4, 8), 5: (8, 8)}

NC_DIMENSION, NC_VARIABLE, NC_ATTRIBUTE = 0x0A, 0x0B, 0x0C
#: nc_type; those from 7 on are CDF-5's.
TYPES = {
    1: np.dtype("i1"),  # NC_BYTE
    2: np.dtype("S1"),  # NC_CHAR
    3: np.dtype(">i2"),  # NC_SHORT
    4: np.dtype(">i4"),  # NC_INT
    5: np.dtype(">f4"),  # NC_FLOAT
    6: np.dtype(">f8"),  # NC_DOUBLE
    7: np.dtype("u1"),  # NC_UBYTE
    8: np.dtype(">u2"),  # NC_USHORT
    9: np.dtype(">u4"),  # NC_UINT
    10: np.dtype(">i8"),  # NC_INT64
    11: np.dtype(">u8"),  # NC_UINT64
}
NC_CHAR, NC_DOUBLE = 2, 6

#: What is read at first; each further read reaches four times as far.
FIRST = 64 << 10
#: The reader's own first request: a header that fits in it costs no other.
SECOND = 1 << 20
#: The longest header that is read. One of 10,000 variables with twenty attributes each takes 8 MiB.
LONGEST = 64 << 20
#: The longest list of dimensions, attributes or variables.
MOST_ENTRIES = 1_000_000


@dataclass(frozen=True, slots=True)
class Dimension:
    """``dim = name dim_length``; the record dimension has the length 0."""

    name: str
    length: int


@dataclass(frozen=True, slots=True)
class Variable:
    """``var = name nelems [dimid ...] vatt_list nc_type vsize begin``.

    ``vsize`` says nothing that the dimensions do not, and is too narrow for large variables: it is not kept.
    """

    name: str
    dimension_ids: tuple[int, ...]
    attributes: dict[str, Any]
    dtype: np.dtype[Any]
    begin: int


@dataclass(frozen=True, slots=True)
class Header:
    """``netcdf_file = magic numrecs dim_list gatt_list var_list data``.

    Attributes
    ----------
    version
        1, 2 or 5.
    records
        Number of records; ``None`` where the file was streamed and its size alone tells.
    dimensions, attributes, variables
        In the file's order.
    size
        Length of the header, in bytes.
    """

    version: int
    records: int | None
    dimensions: tuple[Dimension, ...]
    attributes: dict[str, Any]
    variables: tuple[Variable, ...]
    size: int


def text(raw: bytes) -> str:
    """Return UTF-8 text, or Latin-1 where it is not that: every byte is a letter there."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def read_header(reader: ObjectReader) -> Header:
    """Read the header of a file.

    Raises
    ------
    FormatError
        If the file is not NetCDF-3, or its header is truncated or corrupt.
    LimitExceededError
        If the header is out of proportion.
    """
    source = _HeaderBytes(reader)
    version = source.version()
    records = source.numrecs()
    dimensions = tuple(source.entries(NC_DIMENSION, source.dimension, least=8))
    attributes = source.attributes()
    variables = source.entries(NC_VARIABLE, lambda: source.variable(len(dimensions)), least=28)
    names = [variable.name for variable in variables]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise source.corrupt(f"two variables have the name {twice!r}")
    return Header(version, records, dimensions, attributes, tuple(variables), source.position)


class _HeaderBytes:
    """The bytes of a header, fetched as far as needed, and what the specification's grammar makes of them."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._data = reader.read_at(0, min(FIRST, reader.size))
        self.position = 0

    def corrupt(self, problem: str, at: int | None = None) -> FormatError:
        """Return the error for what is found at a position."""
        place = self.position if at is None else at
        return FormatError(
            f"{problem}, at byte {place} of the NetCDF-3 header: the file is truncated or corrupt", url=self._reader.url
        )

    def take(self, length: int) -> bytes:
        """Return the next bytes."""
        stop = self.position + length
        if stop > len(self._data):
            self._reach(stop)
        raw = self._data[self.position : stop]
        self.position = stop
        return raw

    def _reach(self, stop: int) -> None:
        if stop > self._reader.size:
            raise self.corrupt(f"the header goes on to byte {stop}, and the file ends at {self._reader.size}")
        if stop > LONGEST:
            raise LimitExceededError(f"the header is longer than {LONGEST >> 20} MiB", url=self._reader.url)
        reach = SECOND
        while reach < stop or reach <= len(self._data):
            reach *= 4
        self._data = self._reader.read_at(0, min(reach, self._reader.size))

    def padded(self, length: int) -> bytes:
        """Return the next bytes, which are followed by padding to a multiple of four."""
        raw = self.take(length)
        self.take(-length % 4)
        return raw

    def number(self, width: int = 4) -> int:
        """Return an unsigned big-endian number."""
        value: int = struct.unpack(">I" if width == 4 else ">Q", self.take(width))[0]
        return value

    # ------------------------------------------------------------------------------------------ the header's parts

    def version(self) -> int:
        """``magic``: which variant the file is, and so how wide its numbers are."""
        magic = self._data[:4]
        if magic[:3] != MAGIC or len(magic) < 4:
            raise FormatError(
                f"not a NetCDF-3 file: it is {describe_content(self._data)}; give the parser for that format, or the "
                "right file",
                url=self._reader.url,
            )
        if magic[3] not in WIDTHS:
            raise self.corrupt(f"the version {magic[3]} is not one of NetCDF-3 ({', '.join(map(str, WIDTHS))})", 3)
        self.position = 4
        self._count, self._offset = WIDTHS[magic[3]]
        self._last_type = NC_DOUBLE if magic[3] < 5 else max(TYPES)
        return magic[3]

    def numrecs(self) -> int | None:
        """``numrecs = NON_NEG | STREAMING``."""
        raw = self.take(self._count)
        return None if raw == b"\xff" * self._count else int.from_bytes(raw)

    def entries[T](self, tag: int, read: Callable[[], T], *, least: int) -> list[T]:
        """``ABSENT | tag nelems [entry ...]``, where an entry takes `least` bytes at the least."""
        at = self.position
        found, count = self.number(), self.number(self._count)
        if found != tag and (found or count):
            raise self.corrupt(f"expected the tag {tag} or none of its entries, found {found} and {count}", at)
        self.expect(count, least)
        return [read() for _ in range(count)]

    def expect(self, count: int, least: int) -> None:
        """Raise unless so many entries of at least `least` bytes can be in what is left of the file."""
        if count * least > self._reader.size - self.position:
            raise self.corrupt(
                f"{count} entries of {least} bytes or more do not fit into the file, which has {self._reader.size}"
            )
        if count > MOST_ENTRIES:
            raise LimitExceededError(
                f"a list of {count} entries in the header; at most {MOST_ENTRIES} are read", url=self._reader.url
            )

    def name(self) -> str:
        """``name = nelems namestring``; one that was made shorter in its place ends at a NUL."""
        at, length = self.position, self.number(self._count)
        if length > self._reader.size - self.position:
            raise self.corrupt(f"a name of {length} bytes", at)
        name = text(self.padded(length).partition(b"\0")[0])
        if not name:
            raise self.corrupt("an empty name", at)
        return name

    def dimension(self) -> Dimension:
        """``dim = name dim_length``."""
        return Dimension(self.name(), self.number(self._count))

    def attributes(self) -> dict[str, Any]:
        """``att_list = ABSENT | NC_ATTRIBUTE nelems [attr ...]``."""
        return dict(self.entries(NC_ATTRIBUTE, self.attribute, least=12))

    def attribute(self) -> tuple[str, Any]:
        """``attr = name nc_type nelems [values ...]``."""
        name, dtype = self.name(), self.type()
        at, count = self.position, self.number(self._count)
        if count * dtype.itemsize > self._reader.size - self.position:
            raise self.corrupt(f"{count} values of the attribute {name!r}", at)
        raw = self.padded(count * dtype.itemsize)
        if dtype.kind == "S":
            return name, text(raw).replace("\0", "")
        values = np.frombuffer(raw, dtype=dtype)
        if name in ("scale_factor", "add_offset") and count == 1:
            return name, values[0]  # xarray unpacks in its dtype
        return name, values[0].item() if count == 1 else values.tolist()

    def type(self) -> np.dtype[Any]:
        """``nc_type``."""
        at, code = self.position, self.number()
        if code not in TYPES or code > self._last_type:
            raise self.corrupt(f"the type {code} is not one of this version of NetCDF-3", at)
        return TYPES[code]

    def variable(self, dimensions: int) -> Variable:
        """``var = name nelems [dimid ...] vatt_list nc_type vsize begin``."""
        name, at = self.name(), self.position
        rank = self.number(self._count)
        self.expect(rank, self._count)
        ids = tuple(self.number(self._count) for _ in range(rank))
        if ids and max(ids) >= dimensions:
            raise self.corrupt(f"the variable {name!r} has the dimension {max(ids)} of {dimensions}", at)
        attributes, dtype = self.attributes(), self.type()
        self.take(self._count)  # vsize
        fill = attributes.get("_FillValue")
        if dtype.kind == "S" and isinstance(fill, str):
            attributes["_FillValue"] = fill.encode()
        return Variable(name, ids, attributes, dtype, self.number(self._offset))
