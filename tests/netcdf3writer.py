"""A small writer of NetCDF-3, for what the netCDF library does not write: streamed, unpadded and broken files."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CODES = {"i1": 1, "S1": 2, "i2": 3, "i4": 4, "f4": 5, "f8": 6, "u1": 7, "u2": 8, "u4": 9, "i8": 10, "u8": 11}


def padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)


def row_bytes(values: np.ndarray) -> int:
    return int(np.prod(values.shape[1:])) * values.itemsize


@dataclass
class Classic:
    """A file to be written: dimensions (length 0 for records), attributes, and variables (dimensions, values)."""

    version: int = 1
    dimensions: Mapping[str, int] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, tuple[Sequence[str], Any]] = field(default_factory=dict)
    variable_attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    streamed: bool = False

    def count(self, number: int) -> bytes:
        return struct.pack(">q" if self.version == 5 else ">I", number)

    def name(self, name: str | bytes) -> bytes:
        raw = name.encode() if isinstance(name, str) else name
        return self.count(len(raw)) + padded(raw)

    def list(self, tag: int, entries: Sequence[bytes]) -> bytes:
        return struct.pack(">I", tag if entries else 0) + self.count(len(entries)) + b"".join(entries)

    def attribute(self, name: str, value: Any) -> bytes:
        if isinstance(value, str | bytes):
            raw = value.encode() if isinstance(value, str) else value
            return self.name(name) + struct.pack(">I", 2) + self.count(len(raw)) + padded(raw)
        values = np.atleast_1d(np.asarray(value))
        stored = values.astype(values.dtype.newbyteorder(">"))
        code = CODES[f"{values.dtype.kind}{values.dtype.itemsize}"]
        return self.name(name) + struct.pack(">I", code) + self.count(values.size) + padded(stored.tobytes())

    def attribute_list(self, attributes: Mapping[str, Any]) -> bytes:
        return self.list(0x0C, [self.attribute(name, value) for name, value in attributes.items()])

    def is_record(self, name: str) -> bool:
        dimensions = self.variables[name][0]
        return bool(dimensions) and self.dimensions[dimensions[0]] == 0

    def bytes(self) -> bytes:
        arrays = {
            name: values if isinstance(values, np.ndarray) else np.asarray(values, "i4")
            for name, (_, values) in self.variables.items()
        }
        recorded = [name for name in arrays if self.is_record(name)]
        records = max((len(arrays[name]) for name in recorded), default=0)
        begins = dict.fromkeys(arrays, 0)
        header = self.header(arrays, records, begins)
        at, body = len(header), b""
        for name, values in arrays.items():
            if name not in recorded:
                begins[name] = at + len(body)
                body += padded(values.astype(values.dtype.newbyteorder(">")).tobytes())
        pad = padded if len(recorded) > 1 else bytes
        start = at + len(body)
        for name in recorded:
            begins[name] = start
            start += len(pad(bytes(row_bytes(arrays[name]))))
        for number in range(records):
            for name in recorded:
                row = arrays[name][number]
                body += pad(row.astype(row.dtype.newbyteorder(">")).tobytes())
        return self.header(arrays, records, begins) + body

    def header(self, arrays: Mapping[str, np.ndarray], records: int, begins: Mapping[str, int]) -> bytes:
        dimensions = [self.name(name) + self.count(length) for name, length in self.dimensions.items()]
        variables = [self.variable(name, arrays[name], begins[name]) for name in self.variables]
        width = 8 if self.version == 5 else 4
        numrecs = b"\xff" * width if self.streamed else self.count(records)
        magic = b"CDF" + bytes([self.version])
        lists = self.list(0x0A, dimensions) + self.attribute_list(self.attributes) + self.list(0x0B, variables)
        return magic + numrecs + lists

    def variable(self, name: str, values: np.ndarray, begin: int) -> bytes:
        ids = [list(self.dimensions).index(dimension) for dimension in self.variables[name][0]]
        size = row_bytes(values) if self.is_record(name) else values.nbytes
        return (
            self.name(name)
            + self.count(len(ids))
            + b"".join(map(self.count, ids))
            + self.attribute_list(self.variable_attributes.get(name, {}))
            + struct.pack(">I", CODES[f"{values.dtype.kind}{values.dtype.itemsize}"])
            + self.count(size + -size % 4)
            + struct.pack(">I" if self.version == 1 else ">Q", begin)
        )
