"""Zip archives of a Zarr store: where the bytes of each member lie, without unpacking any.

Specification: PKWARE's APPNOTE, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT; sections are cited below.
Only stored members can be referred to. A deflated chunk has no form as a virtual chunk; deflated metadata is inflated.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.zarr.manifests import Chunks
from virtualchunks_parsers.zarr.nodes import StoredArray
from virtualchunks_parsers.zarr.objects import MOST_METADATA, beneath, document_keys

MAGIC = b"PK\x03\x04"
_EMPTY = b"PK\x05\x06"
#: 4.3.16: end of central directory record, up to its comment, which is at most 65,535 bytes long.
_END = struct.Struct("<4s4H2LH")
#: 4.3.15: Zip64 end of central directory locator, right before it.
_LOCATOR = struct.Struct("<4sLQL")
#: 4.3.14: Zip64 end of central directory record.
_END64 = struct.Struct("<4sQ2H2L4Q")
#: 4.3.12: central directory header.
_CENTRAL = struct.Struct("<4s6H3L5H2L")
#: 4.3.7: local file header.
_LOCAL = struct.Struct("<4s5H3L2H")

_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _DESCRIPTOR, _UTF8 = 1 << 0, 1 << 3, 1 << 11
_METHODS = {8: "deflated", 9: "deflated (64)", 12: "bzip2-compressed", 14: "LZMA-compressed", 93: "zstd-compressed"}


class Member(NamedTuple):
    """One entry of the central directory.

    Parameters
    ----------
    name
        Its name.
    method, flags
        Compression method and general purpose flags.
    header
        Where its local header begins.
    stored, size
        Bytes as they lie in the archive, and when unpacked.
    extra
        Length of the extra field in the central directory.
    raw
        Length of the name, in bytes.
    """

    name: str
    method: int
    flags: int
    header: int
    stored: int
    size: int
    extra: int
    raw: int


@dataclass(frozen=True)
class Archive:
    """An archive, its central directory read.

    Parameters
    ----------
    reader
        The open file.
    names
        Names of its members, sorted.
    members
        Its members, in the order of their names.
    starts
        Where the bytes of each member begin.
    """

    reader: ObjectReader
    names: Sequence[str]
    members: Sequence[Member]
    starts: Sequence[int]

    @classmethod
    def opened(cls, reader: ObjectReader) -> Archive:
        """Read the central directory of an archive.

        Raises
        ------
        FormatError
            If it is no Zip archive, or a damaged one.
        """
        at, length = _central_directory(reader)
        found = _members(reader.read_at(at, length), reader.url, at)
        members = {member.name: member for member in found if not member.name.endswith("/")}
        starts = _starts(reader, sorted(found, key=lambda member: member.header), at)
        names = sorted(members)
        ordered = [members[name] for name in names]
        return cls(reader, names, ordered, [starts[member.header] for member in ordered])

    def keys(self) -> list[str] | None:
        """As :class:`~virtualchunks_parsers.zarr.objects.Objects`."""
        return document_keys(self.names)

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """As :class:`~virtualchunks_parsers.zarr.objects.Objects`."""
        rows = [row for row in map(self._row, keys) if row is not None]
        total = sum(self.members[row].size for row in rows)
        if total > MOST_METADATA:
            raise LimitExceededError(f"{total:,} bytes of metadata; the most is {MOST_METADATA:,}", url=self.reader.url)
        self.reader.prefetch([(self.starts[row], self.members[row].stored) for row in rows])
        return {self.names[row]: self._read(row) for row in rows}

    def chunks(self, array: StoredArray) -> Chunks:
        """As :class:`~virtualchunks_parsers.zarr.objects.Objects`."""
        places = beneath(self.names, array.path)
        skip = len(array.path) + 1 if array.path else 0
        names = self.names[places.start : places.stop]
        found, numbers = array.keys.numbers(names, array.metadata.grid.grid_shape, skip)
        rows = (found + places.start).tolist()
        for row in rows:
            _require_stored(self.members[row], self.reader.url)
        return Chunks(
            numbers,
            np.zeros(len(rows), dtype=np.int64),
            np.array([self.starts[row] for row in rows], dtype=np.int64),
            np.array([self.members[row].stored for row in rows], dtype=np.int64),
            SourceTable.single(self.reader.url, self.reader.stamp),
        )

    def _row(self, name: str) -> int | None:
        row = bisect_left(self.names, name)
        return row if row < len(self.names) and self.names[row] == name else None

    def _read(self, row: int) -> bytes:
        member = self.members[row]
        data = self.reader.read_at(self.starts[row], member.stored)
        if member.method == _STORED and not member.flags & _ENCRYPTED:
            return data
        if member.method != _DEFLATED or member.flags & _ENCRYPTED:
            _require_stored(member, self.reader.url)
        try:
            return zlib.decompressobj(-15).decompress(data, max(1, member.size))
        except zlib.error as error:
            raise FormatError(f"the member {member.name!r} of {self.reader.url} does not inflate: {error}") from error


def _require_stored(member: Member, url: str) -> None:
    if member.flags & _ENCRYPTED:
        raise UnsupportedFeatureError(f"the member {member.name!r} of the archive is encrypted", url=url)
    if member.method != _STORED:
        how = _METHODS.get(member.method, f"compressed by method {member.method}")
        raise UnsupportedFeatureError(
            f"the member {member.name!r} of the archive is {how}, and only stored members can be referred to: pack the "
            "store without compression (zip -0)",
            url=url,
        )
    if member.stored != member.size:
        raise FormatError(f"the member {member.name!r} of {url} is stored and has two sizes: it is damaged", url=url)


def _central_directory(reader: ObjectReader) -> tuple[int, int]:
    """Return where the central directory begins and how long it is."""
    if reader.size < _END.size:
        raise FormatError(f"{reader.url} is no Zip archive: it has {reader.size} bytes", url=reader.url)
    tail = reader.read_at(max(0, reader.size - (1 << 16) - _END.size), min(reader.size, (1 << 16) + _END.size))
    place = tail.rfind(_EMPTY, 0, len(tail) - _END.size + len(_EMPTY))
    if place < 0:
        raise FormatError(f"{reader.url} is no Zip archive, or is cut off: it has no central directory", url=reader.url)
    _, disk, start_disk, _, count, length, at, _ = _END.unpack_from(tail, place)
    end = reader.size - len(tail) + place
    if disk != start_disk or (disk not in (0, 0xFFFF)):
        raise UnsupportedFeatureError(
            f"{reader.url} is one part of a split Zip archive: join the parts", url=reader.url
        )
    if 0xFFFFFFFF in (length, at) or count == 0xFFFF:
        at, length = _zip64(reader, end) or (at, length)
    if at + length > end:
        raise FormatError(f"the central directory of {reader.url} lies outside the file", url=reader.url)
    return at, length


def _zip64(reader: ObjectReader, end: int) -> tuple[int, int] | None:
    """4.3.14 and 4.3.15: the same where numbers need more than 32 bits."""
    if end < _LOCATOR.size:
        return None
    magic, _, at, _ = _LOCATOR.unpack(reader.read_at(end - _LOCATOR.size, _LOCATOR.size))
    if magic != b"PK\x06\x07":
        return None
    if at + _END64.size > end:
        raise FormatError(f"the Zip64 directory of {reader.url} lies outside the file", url=reader.url)
    magic, *_, length, start = _END64.unpack(reader.read_at(at, _END64.size))
    if magic != b"PK\x06\x06":
        raise FormatError(f"the Zip64 directory of {reader.url} is not where its locator says", url=reader.url)
    return start, length


def _members(directory: bytes, url: str, end: int) -> list[Member]:
    """4.3.12: the entries of the central directory, all of whose bytes lie before `end`."""
    members: list[Member] = []
    at = 0
    while at + _CENTRAL.size <= len(directory):
        magic, _, _, flags, method, _, _, _, stored, size, raw, extra, comment, _, _, _, header = _CENTRAL.unpack_from(
            directory, at
        )
        if magic != b"PK\x01\x02":
            raise FormatError(f"the central directory of {url} is damaged at byte {end + at}", url=url)
        name_at = at + _CENTRAL.size
        name = directory[name_at : name_at + raw]
        field = directory[name_at + raw : name_at + raw + extra]
        if len(name) + len(field) != raw + extra:
            raise FormatError(f"the central directory of {url} is cut off", url=url)
        size, stored, header = _wide(field, size, stored, header, url)
        if header + _LOCAL.size + raw + stored > end:
            raise FormatError(f"a member of {url} lies outside the file", url=url)
        text = name.decode("utf-8" if flags & _UTF8 else "cp437", "surrogateescape")
        members.append(Member(text, method, flags, header, stored, size, extra, raw))
        at = name_at + raw + extra + comment
    if at != len(directory):
        raise FormatError(f"the central directory of {url} is cut off", url=url)
    return members


def _wide(field: bytes, size: int, stored: int, header: int, url: str) -> tuple[int, int, int]:
    """4.5.3: the Zip64 extra field holds those numbers that do not fit 32 bits, in this order."""
    values = [size, stored, header]
    wanted = [place for place, value in enumerate(values) if value == 0xFFFFFFFF]
    at = 0
    while wanted and at + 4 <= len(field):
        kind, length = struct.unpack_from("<2H", field, at)
        if kind == 1:
            if length < 8 * len(wanted) or at + 4 + length > len(field):
                raise FormatError(f"a Zip64 field of {url} is damaged", url=url)
            for count, place in enumerate(wanted):
                (values[place],) = struct.unpack_from("<Q", field, at + 4 + 8 * count)
            break
        at += 4 + length
    return values[0], values[1], values[2]


def _starts(reader: ObjectReader, members: Sequence[Member], end: int) -> dict[int, int]:
    """Return where the bytes of each member begin, by where its local header does.

    A local header is as long as its own extra field makes it, which may differ from that of the central directory.
    Where members follow each other without a gap exactly if the two are equal, they are; the other headers are read.
    """
    starts: dict[int, int] = {}
    unsure: list[Member] = []
    headers = [*(member.header for member in members), end]
    for member, following in zip(members, headers[1:], strict=True):
        start = member.header + _LOCAL.size + member.raw + member.extra
        if start + member.stored == following and not member.flags & _DESCRIPTOR:
            starts[member.header] = start
        else:
            unsure.append(member)
    reader.prefetch([(member.header, _LOCAL.size) for member in unsure])
    for member in unsure:
        magic, _, _, method, _, _, _, stored, _, raw, extra = _LOCAL.unpack(reader.read_at(member.header, _LOCAL.size))
        start = member.header + _LOCAL.size + raw + extra
        told = bool(member.flags & _DESCRIPTOR) or stored in (member.stored, 0xFFFFFFFF)
        same = magic == MAGIC and method == member.method and raw == member.raw and told
        if not same or start + member.stored > end:
            raise FormatError(f"the header of {member.name!r} in {reader.url} is damaged", url=reader.url)
        starts[member.header] = start
    return starts
