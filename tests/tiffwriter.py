"""A small writer of TIFF files for tests: any fields, any bytes, both sizes and byte orders, what no library writes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zarr.registry
from zarr.errors import UnknownCodecError
from zarr.registry import get_codec_class

from virtualchunks.codecs.tiff import NAME, TIFFSamples

SHORT, LONG, ASCII, DOUBLE, UNDEFINED, LONG8 = 3, 4, 2, 12, 7, 16
_CODES = {1: "B", SHORT: "H", LONG: "I", ASCII: "s", DOUBLE: "d", UNDEFINED: "s", LONG8: "Q", 13: "I"}
_DOUBLES = {33550, 33922, 34264, 34736}
_TEXTS = {270, 305, 306, 42112, 42113, 34737}
_LONGS = {254, 273, 279, 324, 325, 330}


@dataclass
class Page:
    """One directory: fields by tag, chunks of bytes (``None`` for one that is missing), directories below it."""

    fields: Mapping[int, Any]
    chunks: Sequence[bytes | None]
    below: Sequence[Page] = field(default_factory=list)


def write_tiff(
    path: Path, pages: Sequence[Page], *, order: str = "<", big: bool = False, directories_last: bool = False
) -> Path:
    """Write pages into a file; with `directories_last` all data stand before all directories."""
    writer = _Writer(order, big)
    if directories_last:
        for page in pages:
            writer.place_chunks(page)
    writer.chain(pages)
    path.write_bytes(bytes(writer.data))
    return path


class _Writer:
    def __init__(self, order: str, big: bool) -> None:
        self.order, self.big = order, big
        mark = b"II" if order == "<" else b"MM"
        self.data = bytearray(mark + (self.pack("HHHQ", 43, 8, 0, 0) if big else self.pack("HI", 42, 0)))
        self.pointer = 8 if big else 4
        self.placed: dict[int, tuple[list[int], list[int]]] = {}

    def pack(self, code: str, *values: Any) -> bytes:
        return struct.pack(self.order + code, *values)

    def chain(self, pages: Sequence[Page]) -> None:
        for page in pages:
            self.page(page)

    def patch(self, at: int, value: int) -> None:
        raw = self.pack("Q" if self.big else "I", value)
        self.data[at : at + len(raw)] = raw

    def place_chunks(self, page: Page) -> None:
        offsets, counts = [], []
        for chunk in page.chunks:
            offsets.append(0 if chunk is None else len(self.data))
            counts.append(0 if chunk is None else len(chunk))
            self.data += chunk or b""
        self.placed[id(page)] = offsets, counts

    def page(self, page: Page) -> None:
        saved = self.pointer
        below = []
        for inner in page.below:
            self.pointer = -1
            below.append(self.page_at(inner))
        self.pointer = saved
        self.page_at(page, below)

    def page_at(self, page: Page, below: Sequence[int] = ()) -> int:
        if id(page) not in self.placed:
            self.place_chunks(page)
        offsets, counts = self.placed[id(page)]
        tiled = 322 in page.fields
        fields = {324 if tiled else 273: offsets, 325 if tiled else 279: counts, **page.fields}
        if below:
            fields[330] = list(below)
        entries = [self.entry(tag, fields[tag]) for tag in sorted(fields) if fields[tag] is not None]
        start = len(self.data)
        if self.pointer >= 0:
            self.patch(self.pointer, start)
        self.data += self.pack("Q" if self.big else "H", len(entries)) + b"".join(entries)
        self.pointer = len(self.data)
        self.data += self.pack("Q" if self.big else "I", 0)
        return start

    def entry(self, tag: int, value: Any) -> bytes:
        if isinstance(value, str | bytes):
            kind = ASCII if tag in _TEXTS else UNDEFINED
            raw = (value.encode() + b"\0") if isinstance(value, str) else value
            count = len(raw)
        else:
            values = list(value) if isinstance(value, Sequence) else [value]
            wide = LONG8 if self.big else LONG
            kind = DOUBLE if tag in _DOUBLES else wide if tag in _LONGS or max(values, default=0) > 65535 else SHORT
            count, raw = len(values), b"".join(self.pack(_CODES[kind], item) for item in values)
        size = 8 if self.big else 4
        if len(raw) > size:
            self.data += bytes(len(self.data) % 2)
            place = self.pack("Q" if self.big else "I", len(self.data))
            self.data += raw
        else:
            place = raw.ljust(size, b"\0")
        return self.pack("HHQ" if self.big else "HHI", tag, kind, count) + place


def image_fields(width: int, height: int, **others: Any) -> dict[int, Any]:
    """Return the fields of a plain image of one byte a pixel; others by their names below."""
    tags = {
        "subfile": 254,
        "bits": 258,
        "compression": 259,
        "photometric": 262,
        "fill_order": 266,
        "samples": 277,
        "rows": 278,
        "planar": 284,
        "t4": 292,
        "predictor": 317,
        "tile_width": 322,
        "tile_length": 323,
        "format": 339,
        "tables": 347,
        "depth": 32997,
        "tile_depth": 32998,
    }
    fields = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1}
    return fields | {tags[name]: value for name, value in others.items()}


def register_codec() -> None:
    """Make the codec of TIFF files known to zarr where the package installed is older than the tree under test."""
    try:
        get_codec_class(NAME)
    except (UnknownCodecError, KeyError):
        zarr.registry.register_codec(NAME, TIFFSamples)
