"""A writer of HDF4 files with chunked data sets, which the Python bindings of the HDF4 library cannot make.

It writes what the parser reads and no more: one chunked array of 16-bit integers, as the SD interface describes it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

SPECIAL = 0x4000
DEFLATE = 4


class Writer:
    """Elements and their descriptors, put together at the end."""

    def __init__(self) -> None:
        self._elements: list[tuple[int, int, bytes]] = []
        self._refs = 0

    def ref(self) -> int:
        """Return a new reference number."""
        self._refs += 1
        return self._refs

    def add(self, tag: int, data: bytes, ref: int | None = None) -> tuple[int, int]:
        """Add an element; return its tag, without the bit of special ones, and its reference number."""
        ref = self.ref() if ref is None else ref
        self._elements.append((tag, ref, data))
        return tag & ~SPECIAL, ref

    def write(self, path: Path) -> Path:
        """Write the file."""
        at = 4 + 6 + 12 * len(self._elements)
        head = b"\x0e\x03\x13\x01" + struct.pack(">HI", len(self._elements), 0)
        for tag, ref, data in self._elements:
            head += struct.pack(">HHII", tag, ref, at, len(data))
            at += len(data)
        path.write_bytes(head + b"".join(data for _, _, data in self._elements))
        return path


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


def vgroup(name: str, kind: str, members: Sequence[tuple[int, int]]) -> bytes:
    """Return the description of a group."""
    tags, refs = zip(*members, strict=True)
    body = struct.pack(f">H{len(tags)}H{len(refs)}H", len(tags), *tags, *refs)
    return body + _text(name) + _text(kind) + struct.pack(">HHHHB", 0, 0, 3, 0, 0)


def vdata(name: str, kind: str, records: int, fields: Sequence[tuple[str, int, int, int]]) -> bytes:
    """Return the description of a table; a field is name, number type, bytes and order."""
    sizes = [size for _, _, size, _ in fields]
    offsets = [sum(sizes[:place]) for place in range(len(sizes))]
    body = struct.pack(">HIHH", 0, records, sum(sizes), len(fields))
    for column in ([kind for _, kind, _, _ in fields], sizes, offsets, [order for *_, order in fields]):
        body += struct.pack(f">{len(fields)}H", *column)
    body += b"".join(_text(label) for label, *_ in fields)
    return body + _text(name) + _text(kind) + struct.pack(">HHHHB", 0, 0, 3, 0, 0)


def _coder() -> bytes:
    return struct.pack(">HHH", 0, DEFLATE, 6)


def chunked(
    path: Path, values: npt.NDArray[np.int16], chunk: Sequence[int], *, deflate: bool, left_out: Sequence[int] = ()
) -> Path:
    """Write an array in chunks, some of which may never have been written."""
    writer = Writer()
    counts = [-(-size // step) for size, step in zip(values.shape, chunk, strict=True)]
    padded = np.zeros([count * step for count, step in zip(counts, chunk, strict=True)], dtype=">i2")
    padded[tuple(slice(0, size) for size in values.shape)] = values
    rows = []
    for number, index in enumerate(np.ndindex(*counts)):
        if number in left_out:
            continue
        block = padded[tuple(slice(i * step, (i + 1) * step) for i, step in zip(index, chunk, strict=True))].tobytes()
        ref = writer.ref()
        if deflate:
            _, data = writer.add(40, zlib.compress(block))
            writer.add(61 | SPECIAL, struct.pack(">HHIH", 3, 0, len(block), data) + _coder(), ref)
        else:
            writer.add(61, block, ref)
        rows.append(struct.pack(f">{len(index)}iHH", *index, 61, ref))
    rank = len(chunk)
    fields = [("origin", 24, 4 * rank, rank), ("chk_tag", 23, 2, 1), ("chk_ref", 23, 2, 1)]
    _, table = writer.add(1962, vdata("_HDF_CHK_TBL_3_0", "_HDF_CHK_TBL_0", len(rows), fields))
    writer.add(1963, b"".join(rows), table)
    data = _special_header(values, chunk, table, deflate=deflate)
    _, sd = writer.add(702 | SPECIAL, data)
    _describe(writer, values.shape, sd)
    return writer.write(path)


def _special_header(values: npt.NDArray[np.int16], chunk: Sequence[int], table: int, *, deflate: bool) -> bytes:
    size = 2 * int(np.prod(chunk))
    body = struct.pack(">BIIII", 0, 3 if deflate else 0, values.nbytes, size, 2)
    body += struct.pack(">HHHHI", 1962, table, 1, 0, len(chunk))
    for length, step in zip(values.shape, chunk, strict=True):
        body += struct.pack(">III", 0, length, step)
    body += struct.pack(">Ih", 2, -32767)
    coder = struct.pack(">HI", 3, len(_coder())) + _coder() if deflate else b""
    return struct.pack(">HI", 5, len(body)) + body + coder


def _describe(writer: Writer, shape: Sequence[int], sd: int) -> None:
    """Add what the SD interface says of one array."""
    number_type = writer.add(106, bytes([1, 22, 16, 1]))
    sizes = struct.pack(f">H{len(shape)}I", len(shape), *shape)
    dimensions = writer.add(701, sizes + struct.pack(">HH", *number_type) * (len(shape) + 1))
    numeric = writer.add(720, struct.pack(">HHHH", 701, dimensions[1], 702, sd))
    members = []
    for place, size in enumerate(shape):
        values = writer.add(1962, vdata(f"d{place}", "DimVal0.1", 1, [("Values", 24, 4, 1)]))
        writer.add(1963, struct.pack(">i", size), values[1])
        members.append(writer.add(1965, vgroup(f"d{place}", "Dim0.0", [values])))
    variable = writer.add(1965, vgroup("field", "Var0.0", [*members, numeric, dimensions, number_type, (702, sd)]))
    writer.add(1965, vgroup("file", "CDF0.0", [*members, variable]))
