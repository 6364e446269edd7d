"""Object headers: what a group, a dataset or a named type says of itself, cut into messages.

References
----------
HDF5 File Format Specification, version 3.0, section IV.A.1, "Object Headers", IV.A.2.q, "Object Header Continuation",
and IV.A.2, "Shared Message".
"""

from __future__ import annotations

from typing import NamedTuple

from virtualchunks.errors import LimitExceededError
from virtualchunks_parsers.hdf5.format.checksums import verify
from virtualchunks_parsers.hdf5.format.content import Content, Unhandled

#: Kinds of messages; section IV.A.2.
NIL, DATASPACE, LINK_INFO, DATATYPE, OLD_FILL, FILL, LINK, EXTERNAL, LAYOUT = range(9)
GROUP_INFO, PIPELINE, ATTRIBUTE, COMMENT, OLD_TIME, SHARED_TABLE, CONTINUATION = 10, 11, 12, 13, 14, 15, 16
SYMBOL_TABLE, TIME, BTREE_K, DRIVER, ATTRIBUTE_INFO, REFERENCES = 17, 18, 19, 20, 21, 22
#: The kinds that are known, each by its number: up to "Object Reference Count" and "File Space Info".
KNOWN = 25

#: Flags of a message.
SHARED, FAIL_IF_UNKNOWN = 0x02, 0x80
#: Blocks and messages of one object header.
MOST_BLOCKS = 10_000
MOST_MESSAGES = 100_000


class Message(NamedTuple):
    """One message of an object header: its kind, flags and body; the body of a shared one is what it stands for."""

    kind: int
    flags: int
    body: bytes


def read_header(content: Content, address: int, *, shared: bool = True) -> list[Message]:
    """Return the messages of the object header at an address, in the order of the file.

    Parameters
    ----------
    content
        The file.
    address
        Where the header begins.
    shared
        Whether the bodies of shared messages are looked up where they stand.

    Raises
    ------
    FormatError
        If there is no object header, or it is damaged.
    LimitExceededError
        If it has more blocks or messages than one object can need.
    Unhandled
        If a message stands in a table that the objects of the file share, or is of a kind that has to be known.
    """
    prefix = content.read(address, min(16, content.size - content.base - address), "an object header", 512)
    if prefix[:4] == b"OHDR":
        messages = _new_header(content, address)
    elif len(prefix) == 16 and prefix[0] == 1:
        messages = _old_header(content, address, prefix)
    else:
        raise content.damaged("an object header", address, f"begins with {prefix[:4]!r}")
    for number, (kind, flags, body) in enumerate(messages):
        if kind >= KNOWN and flags & FAIL_IF_UNKNOWN:
            raise Unhandled(f"a message of the unknown kind {kind}, which has to be known")
        if flags & SHARED and shared:
            messages[number] = Message(kind, flags, shared_body(content, kind, body))
    return messages


def shared_body(content: Content, kind: int, body: bytes) -> bytes:
    """Return the body of a message of a kind that stands in the header of another object: that of a named type.

    Parameters
    ----------
    content
        The file.
    kind
        Of the message.
    body
        What stands in its place: section IV.A.2, "Shared Message".
    """
    sizes = content.sizes
    version = body[0] if body else 0
    if version not in (1, 2, 3) or len(body) < 2 + sizes.offset:
        raise content.damaged("a shared message", 0, f"of kind {kind} is of version {version}")
    if version == 3 and body[1] == 1:
        raise Unhandled("a message in the table of shared ones")
    at = 8 if version == 1 else 2
    address = int.from_bytes(body[at : at + sizes.offset], "little")
    for message in read_header(content, address, shared=False):
        if message.kind == kind and not message.flags & SHARED:
            return message.body
    raise content.damaged("an object header", address, f"has no message of kind {kind}, which is shared from there")


# ------------------------------------------------------------------------------------------------------- version 1


def _old_header(content: Content, address: int, prefix: bytes) -> list[Message]:
    """Section IV.A.1.a; messages begin at multiples of 8 bytes."""
    length = int.from_bytes(prefix[8:12], "little")
    waiting = [(address + 16, length)]
    seen: dict[int, int] = {}
    messages: list[Message] = []
    while waiting:
        block, length = waiting.pop(0)
        _check_block(content, block, length, seen)
        data = content.read(block, length, "an object header")
        at = 0
        while at + 8 <= length:
            kind, size, flags = data[at] | data[at + 1] << 8, data[at + 2] | data[at + 3] << 8, data[at + 4]
            body = data[at + 8 : at + 8 + size]
            at += 8 + size
            if at > length or size % 8:
                raise content.damaged("an object header", block, f"has a message of {size} bytes that it cannot hold")
            if kind == CONTINUATION:
                waiting.append(_continuation(content, block, body))
            elif kind:
                messages.append(Message(kind, flags, body))
        _check_messages(content, messages)
    return messages


# ------------------------------------------------------------------------------------------------------- version 2


def _new_header(content: Content, address: int) -> list[Message]:
    """Section IV.A.1.b; every block ends with its checksum."""
    room = content.size - content.base - address
    prefix = content.read(address, min(48, room), "an object header", 512)
    if len(prefix) < 16 or prefix[4] != 2:
        raise content.damaged("an object header", address, "is of an unknown version")
    flags = prefix[5]
    at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    length = at + width + int.from_bytes(prefix[at : at + width], "little") + 4
    waiting = [(address, length, at + width)]
    seen: dict[int, int] = {}
    messages: list[Message] = []
    ordered = flags >> 2 & 1
    while waiting:
        block, length, at = waiting.pop(0)
        _check_block(content, block, length, seen)
        data = content.read(block, length, "an object header")
        if at == 4 and data[:4] != b"OCHK":
            raise content.damaged("a block of an object header", block, f"begins with {data[:4]!r}")
        verify(data, "an object header", block, content.url)
        for message in _new_messages(content, block, data, at, ordered):
            if message.kind == CONTINUATION:
                waiting.append((*_continuation(content, block, message.body), 4))
            elif message.kind:
                messages.append(message)
        _check_messages(content, messages)
    return messages


def _new_messages(content: Content, block: int, data: bytes, at: int, ordered: int) -> list[Message]:
    found = []
    head = 4 + 2 * ordered
    end = len(data) - 4
    while at + head <= end:
        kind, size, flags = data[at], data[at + 1] | data[at + 2] << 8, data[at + 3]
        at += head
        if at + size > end:
            raise content.damaged("an object header", block, f"has a message of {size} bytes that it cannot hold")
        found.append(Message(kind, flags, data[at : at + size]))
        at += size
    return found


# -------------------------------------------------------------------------------------------------------- both


def _continuation(content: Content, block: int, body: bytes) -> tuple[int, int]:
    """Section IV.A.2.q: where the next block stands, and how long it is."""
    sizes = content.sizes
    if len(body) < sizes.offset + sizes.length:
        raise content.damaged("an object header", block, "is continued nowhere")
    middle = sizes.offset
    length = int.from_bytes(body[middle : middle + sizes.length], "little")
    if length < 8:
        raise content.damaged("an object header", block, f"is continued in {length} bytes")
    return int.from_bytes(body[:middle], "little"), length


def _check_block(content: Content, block: int, length: int, seen: dict[int, int]) -> None:
    if block in seen:
        raise content.damaged("an object header", block, "is continued in itself")
    seen[block] = length
    if len(seen) > MOST_BLOCKS:
        raise LimitExceededError(f"an object header in more than {MOST_BLOCKS} blocks", url=content.url)
    if len(seen) > 1:
        content.check_room(sum(seen.values()), "blocks of an object header")


def _check_messages(content: Content, messages: list[Message]) -> None:
    if len(messages) > MOST_MESSAGES:
        raise LimitExceededError(f"an object header of more than {MOST_MESSAGES} messages", url=content.url)
