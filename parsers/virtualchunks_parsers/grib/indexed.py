"""Fields of a file by its index: headers are made from what a line says, or read where it does not say enough.

A line names parameter, level, step and member, and not the grid: every field is taken to have the grid of the one whose
headers served for it, and the codec refuses a message with another number of values. Before anything is believed, the
index is held against the file: the last message must end where the file ends, and a line must say of its message what
the message's own headers say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from virtualchunks.codecs.grib_handle import opened, with_keys
from virtualchunks.codecs.grib_sections import (
    Message,
    Packing,
    fields_of,
    first_headers,
    header_message,
    message_at,
    packing_of,
)
from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks_parsers.grib.fields import Found, field_found
from virtualchunks_parsers.grib.inventory import Vocabulary
from virtualchunks_parsers.grib.scan import HeaderReader
from virtualchunks_parsers.grib.sidecars import Entry, another_version, completed


@dataclass(frozen=True, slots=True)
class Headers:
    """Where a field is, and what it is.

    Parameters
    ----------
    message, index
        The message, and the field's number in it.
    content
        A message with the field's headers.
    packing
        How its values are packed; ``None`` where that is not known.
    """

    message: Message
    index: int
    content: bytes
    packing: Packing | None


def headers_by_index(reader: HeaderReader, entries: Sequence[Entry]) -> list[Headers]:
    """Return the headers of the fields of an index, in its order.

    Parameters
    ----------
    reader
        Of the file.
    entries
        What its index says.

    Raises
    ------
    FormatError
        If the index is not one of this file as it is now.
    """
    placed = list(completed(list(entries), reader.size))
    last = max(placed, key=lambda entry: entry.offset)
    if last.end != reader.size:
        raise another_version(f"ends at {last.end}, and the file has {reader.size} bytes")
    return _Index(reader, placed, last).headers()


class _Index:
    """The entries of one index, and what was read of the file for them."""

    def __init__(self, reader: HeaderReader, entries: Sequence[Entry], last: Entry) -> None:
        self._reader = reader
        self._entries = entries
        self._sample = last
        self._read: dict[tuple[int, int], Headers] = {}
        self._template = self._headers_of(last)
        with opened(self._template.content) as keys:
            self._vocabulary = Vocabulary(keys.get("centre", int))
            self._vocabulary.learn(last.words, keys)

    def headers(self) -> list[Headers]:
        wanted = self._wanted()
        self._reader.prefetch([entry.offset for entry in wanted])
        for entry in wanted:
            with opened(self._headers_of(entry).content) as keys:
                self._vocabulary.learn(entry.words, keys)
        self._compare()
        return [self._read.get((entry.offset, entry.index)) or self._made(entry) for entry in self._entries]

    def _wanted(self) -> list[Entry]:
        """Entries whose headers are to be read: one for each word that is unknown, and all that do not say enough."""
        met: set[str] = set()
        wanted = []
        for entry in self._entries:
            new = self._vocabulary.unknown(entry.words) - met
            if new or not self._is_described(entry):
                wanted.append(entry)
                met |= new
        return wanted

    def _is_described(self, entry: Entry) -> bool:
        return entry.keys is not None and entry.family == self._sample.family and self._template.message.edition == 2

    def _compare(self) -> None:
        """Hold one entry against its message: the last that is described, which costs nothing if it ends the file."""
        described = [entry for entry in self._entries if self._is_described(entry)]
        if not described:
            return
        entry = max(described, key=lambda entry: entry.offset)
        read = self._headers_of(entry)
        said = self._described(entry)
        if said is not None and _meaning(said) != _meaning(read):
            raise another_version(f"says {entry.line!r} of a message whose headers say {_told(read)}")

    def _made(self, entry: Entry) -> Headers:
        made = self._described(entry) if self._is_described(entry) else None
        return self._headers_of(entry) if made is None else made

    def _described(self, entry: Entry) -> Headers | None:
        """The headers that follow from an entry; ``None`` if it cannot be or was not said in full."""
        try:
            keys = {**(entry.keys or {}), **self._vocabulary.keys(entry.words)}
            content = with_keys(self._template.content, keys)
        except UnsupportedFeatureError:
            return None
        if "shortName" in keys and not _is_instant(content, keys["shortName"]):
            return None
        return Headers(Message(entry.offset, entry.length or 0, 2), entry.index, content, None)

    def _headers_of(self, entry: Entry) -> Headers:
        """The headers that a message of the file has."""
        place = (entry.offset, entry.index)
        if place not in self._read:
            self._read[place] = self._fetched(entry)
        return self._read[place]

    def _fetched(self, entry: Entry) -> Headers:
        read = self._reader.read
        try:
            message = message_at(read, entry.offset, self._reader.size)
        except FormatError as error:
            raise another_version(f"has a message at offset {entry.offset}, where there is none ({error})") from error
        if message.length != entry.length:
            raise another_version(
                f"has a message of {entry.length} bytes at offset {entry.offset}, where one of {message.length} is"
            )
        field = first_headers(read, message)
        if entry.index:
            fields = list(fields_of(read, message))
            if entry.index >= len(fields):
                raise another_version(f"has field {entry.index + 1} of the message at offset {entry.offset}")
            field = fields[entry.index]
        return Headers(message, entry.index, header_message(read, field), packing_of(read, field))


def _is_instant(content: bytes, name: str) -> bool:
    """Whether headers made from a short name are what was said: some parameters stand for a period, and change it."""
    with opened(content) as keys:
        return bool(keys.get("stepType") == "instant" and keys.get("shortName") == name)


def _meaning(headers: Headers) -> tuple[object, ...]:
    found = _found(headers)
    return found.identity, found.place, found.splits[:-1]


def _told(headers: Headers) -> str:
    found = _found(headers)
    return f"{found.name} of {found.level_type} at {found.place}"


def _found(headers: Headers) -> Found:
    with opened(headers.content) as keys:
        return field_found(headers.content, headers.message, headers.index, keys, headers.packing)
