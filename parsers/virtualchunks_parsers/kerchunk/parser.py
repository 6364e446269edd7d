"""KerchunkParser: one set of references → one tree of arrays of chunk references."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar, Protocol

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError, LimitExceededError, SourceUnavailableError
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.fetch import fetch
from virtualchunks.reading.listing import child_url, read_whole
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import Stamp
from virtualchunks.store import ManifestStore
from virtualchunks.urls import as_url
from virtualchunks_parsers.kerchunk.columns import References, inline_bytes, metadata_keys
from virtualchunks_parsers.kerchunk.document import GZIP, MOST_BYTES, Document
from virtualchunks_parsers.kerchunk.fills import DecodingBudget, Fills
from virtualchunks_parsers.kerchunk.parquet import METADATA, open_references
from virtualchunks_parsers.kerchunk.targets import Targets
from virtualchunks_parsers.zarr.nodes import (
    DOCUMENTS,
    Node,
    StoredArray,
    consolidated,
    metadata_errors,
    nodes_of,
    parse_document,
)
from virtualchunks_parsers.zarr.tree import HierarchyParser, folder_of

#: What messages call references that were given as a dictionary.
DICTIONARY = "the references"
#: Largest metadata document that a reference points at, in bytes.
MOST_METADATA = 16 << 20
#: How the URLs of folders end, where no document is looked for first.
_FOLDERS = ("/", ".parq", ".parquet")


class _ChunkSource(Protocol):
    """Whatever knows the chunks of an array."""

    def array(self, stored: StoredArray, fills: Fills | None) -> ManifestArray:
        """Return the array."""


@dataclass(frozen=True, kw_only=True)
class KerchunkParser(HierarchyParser):
    """Reads Kerchunk references as arrays of chunk references.

    Parameters
    ----------
    group
        Path of the group that becomes the root; by default the references' own root.
    drop_variables
        Names of arrays to leave out wherever they are, or paths of arrays and groups, such as ``"/model/wind"``.
    strict
        Whether to raise where an array cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.
    base_url
        The folder or bucket where relative paths in references begin. Without it, they are refused.
    fs_root
        Another name for `base_url`.
    skip_variables
        Another name for `drop_variables`.
    reader_options
        Accepted and not used: what is read, and how, is for the registry to say.

    Notes
    -----
    References are a JSON document (version 0 or 1; plain, or compressed by gzip or zstd), a Parquet folder, or a
    dictionary. Templates and generators are expanded without a template engine: names, calls with constants, and
    integer arithmetic are understood, anything else is refused.

    Of a Parquet folder, opening reads ``.zmetadata`` alone. A partition is loaded when one of its chunks is asked for,
    and what is wrong with it is told then; slicing, combining, writing and pickling load all partitions of an array.
    References that were replaced since they were opened raise.

    Naming a reference file does not grant what it refers to: reading values later needs a registry that covers the
    targets. They are not opened while parsing, with one exception: a reference to a whole object (``[url]``) does not
    say how long it is, so the object is looked up if the registry covers it, and its array left out if not.

    Examples
    --------
    >>> references = {".zgroup": '{"zarr_format": 2}', "a/0": ["s3://bucket/a.nc", 100, 8]}
    >>> zarray = {"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "<f4", "compressor": None, "filters": None}
    >>> references["a/.zarray"] = {**zarray, "fill_value": None, "order": "C"}
    >>> store = KerchunkParser().from_dict(references)
    >>> store.group.arrays["a"].manifest.dict()
    {'0': {'path': 's3://bucket/a.nc', 'offset': 100, 'length': 8}}
    """

    name: ClassVar[str] = "Kerchunk references"
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".kerchunk", ".parq", ".parquet", ".zst", ".zstd")
    reads: ClassVar[tuple[str, ...]] = (
        "JSON of version 0 and 1, plain, gzip, zstd; dictionaries",
        "Parquet folders, of which only the metadata is read until chunks are asked for",
        "Zarr v2 and v3 metadata, nested groups, arrays at the root, every chunk key encoding",
        "inline chunks, base64 and text",
        "templates and generators: names, calls with constants, integer arithmetic",
        "references to whole objects that the registry covers",
        "relative paths, with base_url",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "other Jinja expressions: they would run code from a data file",
        "references to whole objects that the registry does not cover: their length is not known",
        "URLs with queries, '..' or user info, and fsspec's chained URLs",
        "zstd streams that do not say how large they unpack",
    )
    native_code: ClassVar[str] = "Arrow's library reads Parquet partitions; a damaged one can make it abort."

    base_url: str | None = None
    fs_root: InitVar[str | None] = None
    reader_options: InitVar[Mapping[str, Any] | None] = None

    def __post_init__(
        self, skip_variables: Iterable[str] | None, fs_root: str | None, reader_options: Mapping[str, Any] | None
    ) -> None:
        super().__post_init__(skip_variables)
        object.__setattr__(self, "base_url", self.base_url if self.base_url is not None else fs_root)

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so may be a Kerchunk document."""
        if head.startswith(GZIP):
            head = _inflated(head)
        if not head.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(b"{"):
            return False
        return any(
            mark in head for mark in (b'"refs"', b".zgroup", b".zarray", b".zattrs", b'zarr.json"', b".zmetadata")
        )

    def __call__(self, url: str | Mapping[str, Any], registry: Any = None) -> ManifestStore:
        """Parse references.

        Parameters
        ----------
        url
            URL or local path of a JSON document or a Parquet folder; or the references themselves, as a dictionary.
        registry
            What may be read, and through which store; ``None`` grants the document alone, not what it refers to.

        Returns
        -------
        ManifestStore
            A read-only Zarr store over what they refer to.

        Raises
        ------
        FormatError
            If these are no Kerchunk references, or there is no such group.
        NotGrantedError, ReadError
            If the document may not or cannot be read.
        UnsupportedFeatureError, LimitExceededError
            If it is out of proportion; with `strict`, if something cannot be represented.
        """
        tree, granted = self._parsed(url, registry)
        return ManifestStore(tree, registry=granted)

    def from_dict(self, references: Mapping[str, Any], registry: Any = None) -> ManifestStore:
        """Parse references that are a dictionary, with or without ``version`` and ``refs``.

        Parameters
        ----------
        references
            As a JSON document would hold them.
        registry
            What may be read.
        """
        return self(references, registry)

    def parse(self, url: str | Mapping[str, Any], registry: Any = None) -> ManifestGroup:
        """Parse references, as calling the parser does, and return the tree itself."""
        return self._parsed(url, registry)[0]

    def _parsed(self, url: str | Mapping[str, Any], registry: Any) -> tuple[ManifestGroup, ObjectStoreRegistry]:
        if isinstance(url, Mapping):
            granted = ObjectStoreRegistry.coerce(registry)
            return self._document(Document.from_mapping(url, DICTIONARY), DICTIONARY, granted), granted
        url = as_url(url)
        granted = ObjectStoreRegistry().grant(url) if registry is None else ObjectStoreRegistry.coerce(registry)
        folder, wider = folder_of(url, registry)
        metadata = _read_metadata(folder, wider) if url.endswith(_FOLDERS) else None
        if metadata is None:
            document, failed = _read_document(url, granted)
            if document is not None:
                return self._document(document, url, granted), granted
            metadata = None if url.endswith(_FOLDERS) else _read_metadata(folder, wider)
        if metadata is None:
            raise failed or SourceUnavailableError(f"{url} cannot be read: there is no such file or folder", url=url)
        return self._parquet(folder, *metadata, wider), wider

    def _document(self, document: Document, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        targets = Targets(registry, document.templates, self.base_url)
        metadata = {
            key: _metadata(key, document.references[key], targets, registry, url)
            for key in metadata_keys(document.references, DOCUMENTS)
        }
        nodes = nodes_of({**consolidated(metadata), **metadata})
        if not nodes:
            raise FormatError(
                f"{url} holds no Zarr metadata, and so no Kerchunk references", url=None if url == DICTIONARY else url
            )
        arrays = (path for path, node in nodes.items() if node.is_array)
        return self._tree(nodes, References.sorted_out(document.references, arrays, targets), url)

    def _parquet(self, folder: str, data: bytes, stamp: Stamp, registry: ObjectStoreRegistry) -> ManifestGroup:
        references, metadata = open_references(folder, data, stamp, registry, Targets(registry, None, self.base_url))
        documents = {
            key: document if isinstance(document, Mapping) else parse_document(key, str(document), folder)
            for key, document in metadata.items()
        }
        return self._tree(nodes_of(documents), references, folder)

    def _tree(self, nodes: Mapping[str, Node], source: _ChunkSource, url: str) -> ManifestGroup:
        budget = DecodingBudget()
        return self._selection(url).tree(nodes, lambda node: _array(node, source, url, budget))


def _array(node: Node, source: _ChunkSource, url: str, budget: DecodingBudget) -> ManifestArray:
    stored = node.array(url)
    with metadata_errors(url, node.path or "/"):
        return source.array(stored, Fills.of(node, stored, budget))


def _read_document(url: str, registry: ObjectStoreRegistry) -> tuple[Document | None, SourceUnavailableError | None]:
    """Return a document, or why there is none: perhaps the URL is a folder's."""
    if url.endswith("/"):
        return None, None
    try:
        data = [read_whole(registry, url, MOST_BYTES) or b""]
    except SourceUnavailableError as error:
        return None, error
    return (Document.from_bytes(data.pop(), url), None) if data[0] else (None, None)  # popped, so that it can be let go


def _read_metadata(folder: str, registry: ObjectStoreRegistry) -> tuple[bytes, Stamp] | None:
    """Return the metadata of references in Parquet, and its stamp."""
    url = child_url(folder, METADATA)
    try:
        with ObjectReader(registry, url) as reader:
            if reader.size > MOST_BYTES:
                raise LimitExceededError(f"{url} has {reader.size:,} bytes; the most is {MOST_BYTES:,}", url=url)
            return reader.read_at(0, reader.size), reader.stamp
    except SourceUnavailableError:
        return None


def _metadata(key: str, value: Any, targets: Targets, registry: ObjectStoreRegistry, url: str) -> Mapping[str, Any]:
    """Return a metadata document of the references: inline as a rule, but it may be a reference itself."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, list | tuple):
        return parse_document(key, inline_bytes(value), url)
    if len(value) not in (1, 3) or not isinstance(value[0], str):
        raise FormatError(f"the reference {key!r} of {url} is not [url] or [url, offset, length]")
    target = targets.url(value[0])
    if len(value) == 1:
        return parse_document(key, read_whole(registry, target, MOST_METADATA) or b"", target)
    if not all(type(number) is int and number >= 0 for number in value[1:]) or value[2] > MOST_METADATA:
        raise FormatError(f"the reference {key!r} of {url} has the offset {value[1]!r} and the length {value[2]!r}")
    return parse_document(key, fetch(registry, target, [(value[1], value[2])])[0], target)


def _inflated(head: bytes) -> bytes:
    """Return what the beginning of a gzip stream holds, as far as it goes."""

    try:
        return zlib.decompressobj(31).decompress(head, 1 << 16)
    except zlib.error:
        return b""
