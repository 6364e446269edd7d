"""The XML of a DMR++, read once, front to back, into a small tree.

Chunks, of which there may be millions, become columns of numbers while they are read, and never elements. Documents
come from strangers: a document type declaration is refused, and with it every entity; nothing that the document names
is fetched here; its length, its depth and the number of its elements are bounded.

References
----------
DAP4 Specification, volume 1, "The Dataset Metadata Response"; DMR++ documentation and schema of the OPeNDAP BES
(``modules/dmrpp_module``). Names are compared as the BES does: by the prefix ``dmrpp``, besides the namespace.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import FormatError, LimitExceededError
from virtualchunks.reading.reader import FIRST, ObjectReader
from virtualchunks.signatures import describe_content

#: The longest document that is read.
LONGEST = 256 << 20
#: How much is read at a time, once the first request did not do.
BLOCK = 8 << 20
DEEPEST = 64
#: Elements, chunks apart.
MOST_ELEMENTS = 500_000

DAP4 = "http://xml.opendap.org/ns/DAP/"
DMRPP = ("http://xml.opendap.org/dap/dmrpp/", "http://opendap.org/ns/dmrpp/")
#: Elements whose text means something.
WITH_TEXT = frozenset(
    {
        "Value",
        "v",
        "dmrpp:v",
        "dmrpp:chunkDimensionSizes",
        "dmrpp:compact",
        "dmrpp:missingdata",
    }
)
NUMBER = re.compile(r"[0-9]{1,19}")
#: ``[0,50]`` as the BES writes it, ``0 50`` as the schema has it.
POSITION = re.compile(r"\s*\[?\s*([0-9]{1,19}(?:[\s,]+[0-9]{1,19})*)?\s*\]?\s*")
LARGEST = 2**63 - 1

Int64 = npt.NDArray[np.int64]


@dataclass(eq=False)
class Chunks:
    """The ``chunk`` or ``block`` elements of one variable, as columns.

    Attributes
    ----------
    offsets, lengths, masks, hrefs, blocks
        For each: where it is, in bytes; its filter mask; the number of its URL in `urls`, 0 for the document's own; its
        number among linked blocks, or -1.
    positions
        The indices of the first elements of all, end to end.
    rank
        How many indices each has; -1 before the first, and 0 where they have none.
    urls
        The URLs; the first stands for the document's own.
    are_blocks
        Whether they are ``block`` elements.
    """

    offsets: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    masks: array[int] = field(default_factory=lambda: array("q"))
    hrefs: array[int] = field(default_factory=lambda: array("i"))
    blocks: array[int] = field(default_factory=lambda: array("q"))
    positions: array[int] = field(default_factory=lambda: array("q"))
    rank: int = -1
    urls: dict[str | None, int] = field(default_factory=lambda: {None: 0})
    are_blocks: bool = False

    def __len__(self) -> int:
        return len(self.offsets)

    def column(self, name: str) -> Int64:
        """Return one column as an array."""
        values: array[int] = getattr(self, name)
        return np.array(values, dtype=np.int64)


@dataclass(eq=False, slots=True)
class Element:
    """One element: its name (with ``dmrpp:`` before those of that namespace), attributes, children and text."""

    name: str
    attributes: Mapping[str, str]
    line: int
    children: list[Element] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    chunks: Chunks | None = None

    def of(self, *names: str) -> Iterator[Element]:
        """Iterate over the children with one of these names."""
        return (child for child in self.children if child.name in names)

    def first(self, name: str) -> Element | None:
        """Return the first child of a name, if there is one."""
        return next(self.of(name), None)

    @property
    def text(self) -> str:
        """The text in it."""
        return "".join(self.texts)


def read_document(reader: ObjectReader) -> Element:
    """Read a document.

    Parameters
    ----------
    reader
        Its bytes.

    Returns
    -------
    Element
        The root, a ``Dataset``.

    Raises
    ------
    FormatError
        If it is not a DMR++, not well-formed, or has a document type declaration.
    LimitExceededError
        If it is out of proportion.
    """
    if reader.size > LONGEST:
        raise LimitExceededError(
            f"a document of {reader.size} bytes; at most {LONGEST >> 20} MiB are read", url=reader.url
        )
    head = reader.read_at(0, min(FIRST, reader.size))
    builder = _Builder(reader.url)
    try:
        builder.feed(head, last=len(head) == reader.size)
        for start in range(len(head), reader.size, BLOCK):
            stop = min(start + BLOCK, reader.size)
            builder.feed(reader.read_at(start, stop - start), last=stop == reader.size)
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, FormatError | LimitExceededError):
            raise
        raise _not_xml(head, error, reader.url) from error
    if builder.root is None:
        raise _not_xml(head, ValueError("no element"), reader.url)
    return builder.root


def _not_xml(head: bytes, error: Exception, url: str) -> FormatError:
    if head.lstrip(b"\xef\xbb\xbf \t\r\n\xff\xfe").startswith(b"<"):
        return FormatError(f"not well-formed XML: {error}; the document is truncated or corrupt", url=url)
    return FormatError(f"not a DMR++ document: it is {describe_content(head[:4096])}", url=url)


class _Builder:
    """What the events of the XML parser build."""

    def __init__(self, url: str) -> None:
        self.root: Element | None = None
        self._url = url
        self._open: list[Element] = []
        self._count = 0
        self._prefixes = {"": "", "dmrpp": "dmrpp:"}
        self._names: dict[str, str] = {}
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, data: bytes, *, last: bool) -> None:
        self._parser.Parse(data, last)

    def problem(self, text: str) -> FormatError:
        return FormatError(f"{text}, in line {self._parser.CurrentLineNumber} of the document", url=self._url)

    def _doctype(self, *declaration: object) -> None:
        raise self.problem("a document type declaration, which no DMR++ has and which is never followed")

    def _start(self, raw: str, attributes: dict[str, str]) -> None:
        for name in attributes:
            if name.startswith("xmlns"):
                self._bind(name.partition(":")[2], attributes[name])
        name = self._names.get(raw) or self._canonical(raw)
        if name in ("dmrpp:chunk", "dmrpp:block") and self._open:
            self._chunk(name, attributes)
            return
        self._count += 1
        if self._count > MOST_ELEMENTS or len(self._open) >= DEEPEST:
            raise LimitExceededError(
                f"more than {MOST_ELEMENTS} elements, or more than {DEEPEST} within each other", url=self._url
            )
        element = Element(name, attributes, self._parser.CurrentLineNumber)
        if self._open:
            self._open[-1].children.append(element)
        elif name != "Dataset":
            raise self.problem(f"not a DMR++ document: its root is {raw!r}, and that of a DMR++ is 'Dataset'")
        else:
            self.root = element
        self._open.append(element)

    def _end(self, raw: str) -> None:
        if (self._names.get(raw) or self._canonical(raw)) not in ("dmrpp:chunk", "dmrpp:block"):
            self._open.pop()

    def _characters(self, data: str) -> None:
        if self._open and self._open[-1].name in WITH_TEXT:
            self._open[-1].texts.append(data)

    def _bind(self, prefix: str, uri: str) -> None:
        known = "dmrpp:" if uri.startswith(DMRPP) else "" if uri.startswith(DAP4) else f"{{{uri}}}"
        if prefix != "dmrpp":
            self._prefixes[prefix] = known
        self._names.clear()

    def _canonical(self, raw: str) -> str:
        prefix, _, local = raw.rpartition(":")
        self._names[raw] = f"{self._prefixes.get(prefix, prefix + ':')}{local}"
        return self._names[raw]

    # ------------------------------------------------------------------------------------------------------- chunks

    def _chunk(self, name: str, attributes: Mapping[str, str]) -> None:
        parent = self._open[-1]
        if parent.chunks is None:
            parent.chunks = Chunks(are_blocks=name == "dmrpp:block")
        chunks = parent.chunks
        if chunks.are_blocks != (name == "dmrpp:block"):
            raise self.problem("chunks and blocks in one variable")
        offset, length = self._number(attributes, "offset"), self._number(attributes, "nBytes")
        if offset + length > LARGEST:
            raise self.problem(f"a chunk of {length} bytes at {offset}")
        chunks.offsets.append(offset)
        chunks.lengths.append(length)
        chunks.masks.append(self._number(attributes, "fm", 0))
        chunks.blocks.append(self._number(attributes, "LinkedBlockIndex", -1))
        href = attributes.get("href")
        chunks.hrefs.append(chunks.urls.setdefault(href, len(chunks.urls)) if href else 0)
        self._position(chunks, attributes.get("chunkPositionInArray", ""))

    def _position(self, chunks: Chunks, text: str) -> None:
        parts = text[1:-1].split(",") if text.startswith("[") and text.endswith("]") else []
        if not (parts and text.isascii() and all(map(str.isdigit, parts))):
            found = POSITION.fullmatch(text)
            if found is None:
                raise self.problem(f"the chunk position {text[:80]!r}, expected one such as '[0,50]'")
            parts = re.split(r"[\s,]+", found[1]) if found[1] else []
        if chunks.rank == -1:
            chunks.rank = len(parts)
        indices = list(map(int, parts)) if max(map(len, parts), default=0) < 20 else [LARGEST + 1]
        if len(indices) != chunks.rank or max(indices, default=0) > LARGEST:
            raise self.problem(f"the chunk position {text[:80]!r}, expected {chunks.rank} numbers as in those before")
        chunks.positions.extend(indices)

    def _number(self, attributes: Mapping[str, str], name: str, default: int | None = None) -> int:
        text = attributes.get(name)
        if text is None:
            if default is not None:
                return default
            raise self.problem(f"a chunk needs {name}, a whole number of at most 2**63 - 1; found none")
        if text.isascii() and text.isdigit() and len(text) < 19:
            return int(text)
        if NUMBER.fullmatch(text.strip()) is None or int(text) > LARGEST:
            raise self.problem(f"a chunk needs {name}, a whole number of at most 2**63 - 1; found {text[:40]!r}")
        return int(text)
