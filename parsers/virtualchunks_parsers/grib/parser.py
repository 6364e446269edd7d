"""GRIBParser: one file → a tree of cubes of messages."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.grib_handle import Keys, opened
from virtualchunks.codecs.grib_sections import MAGIC, header_message, packing_of
from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    StaleIndexWarning,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.group import ManifestGroup, no_group
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable
from virtualchunks.urls import as_url
from virtualchunks_parsers import native
from virtualchunks_parsers.base import FileParser, Omissions
from virtualchunks_parsers.grib.attributes import group_attributes, variable_attributes
from virtualchunks_parsers.grib.cubes import CHOICES, CODECS, RAISE, Cube, cube_of, merged, parted
from virtualchunks_parsers.grib.fields import Found, field_found, matches
from virtualchunks_parsers.grib.geography import Geography, geography_of
from virtualchunks_parsers.grib.indexed import Headers, headers_by_index
from virtualchunks_parsers.grib.scan import HeaderReader, fields_in
from virtualchunks_parsers.grib.sidecars import Entry, beside, entries_of, found_beside, read_index

#: The ``index`` that is looked for beside the file.
AUTO = "auto"
#: Why one message or variable may be left out while the others are read.
LEFT_OUT = (UnsupportedFeatureError, LimitExceededError)


@dataclass(frozen=True, kw_only=True)
class GRIBParser(FileParser):
    """Reads the headers of the messages of a GRIB file, and refers to each message as one chunk.

    Every variable becomes a cube over ``number``, ``time``, ``step`` and its level, named as cfgrib names them, in a
    group ``<typeOfLevel>_<stepType>/<variable>_<gridType>_<checksum>``; the checksum covers grid, centre and whatever
    else sets a variable apart. A group's name depends on its own messages alone, never on what else is in the file.
    Where all cubes of a file, or all below one ``<typeOfLevel>_<stepType>``, have the same coordinates, the root, or
    that group, holds their variables as one dataset as well.

    Parameters
    ----------
    group
        Path of the group that becomes the root.
    drop_variables
        Names of variables to leave out wherever they are, or paths of variables and groups, such as
        ``"/surface_accum"``.
    strict
        Whether to raise where a message cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.
    filter_by_keys
        Values of ecCodes keys that a message must have to be read, as in cfgrib: ``{"typeOfLevel": "surface"}``. A
        list states alternatives.
    on_duplicate
        What to do where two messages with the same headers are for one cell: ``"raise"`` an error, or take the
        ``"first"`` or the ``"last"``.
    index
        An index of the file, by which it is read without visiting every message: URL or local path of an ``.idx`` of
        wgrib2 and NOAA, or of an ``.index`` of ECMWF; ``"auto"`` for the one beside the file, if there is one; ``None``
        to read the headers of the file and believe nothing else. See the notes.
    codec
        Which codec decodes the messages: ``"virtualchunks.grib"``, or ``"gribberish"`` of the library of that name for
        the packings that it decodes to the last bit: variables with others are left out by name.

    Notes
    -----
    Values are in double precision and in the order of the message, missing ones NaN. Grids whose points do not form
    rows of one latitude have the dimensions ``y`` and ``x``, or ``values``, and latitudes and longitudes that are
    computed from a message when they are read.

    An index says in words what messages are, and nothing of their grid: all are taken to have the grid of the last one.
    It must end where the file ends, and what it says of the last message must be what that message's headers say; an
    index that does not fit is an error, or, with ``"auto"``, a warning, and the headers are read. Where a line does not
    say enough, the headers of its message are read.

    Examples
    --------
    >>> GRIBParser(filter_by_keys={"typeOfLevel": "isobaricInhPa"}, on_duplicate="last").on_duplicate
    'last'
    """

    name: ClassVar[str] = "GRIB"
    native: ClassVar[Any] = staticmethod(native.grib)
    suffixes: ClassVar[tuple[str, ...]] = (".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2")
    reads: ClassVar[tuple[str, ...]] = (
        "editions 1 and 2, messages of one or several fields, telecommunication headers and padding between messages",
        "every packing that ecCodes decodes; bitmaps and missing values as NaN",
        "regular, Gaussian, rotated and projected grids as two dimensions; reduced, HEALPix, unstructured and spectral "
        "fields as one",
        "hypercubes over number, time, step, level, wave direction and frequency, under cfgrib's names",
        "`.idx` and `.index` files in place of the headers, with `index=`; they are held against the file",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "two messages with the same headers for one cell, unless on_duplicate chooses",
        "spherical harmonics that are not truncated to a triangle",
        "reference times that no calendar knows",
        "indexes of another version of the file",
        "files with damaged headers; damaged values are met by ecCodes when they are read, and can end the process",
    )
    native_code: ClassVar[str] = (
        "ecCodes reads the headers of each message. A damaged message can make it abort, or not return."
    )

    filter_by_keys: Mapping[str, Any] = field(default_factory=dict)
    on_duplicate: str = RAISE
    index: str | None = None
    codec: str = "virtualchunks.grib"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.on_duplicate not in (RAISE, *CHOICES):
            raise ValueError(f"on_duplicate is 'raise', 'first' or 'last', not {self.on_duplicate!r}")
        if self.codec not in CODECS:
            raise ValueError(f"codec is one of {', '.join(map(repr, CODECS))}, not {self.codec!r}")
        if self.index is not None and CODECS[self.codec] is not None:
            raise ValueError(f"codec={self.codec!r} goes by how messages are packed, which an index does not say")

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so holds GRIB messages, perhaps behind a telecommunication header."""
        at = head.find(MAGIC, 0, 1024)
        return at >= 0 and len(head) > at + 7 and head[at + 7] in (1, 2)

    def _read(self, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        where, entries = self._entries(url, registry)
        start = max((entry.offset for entry in entries), default=0)
        with HeaderReader(registry, url, start) as reader:
            try:
                return _Parse(self, reader, where, entries).tree()
            except VirtualChunksError as error:
                error.url = reader.url if error.url is None else error.url
                raise

    def _granted(self, url: str, registry: Any) -> ObjectStoreRegistry:
        granted = super()._granted(url, registry)
        if registry is not None or self.index is None:
            return granted
        return granted.grant(*beside(as_url(url))) if self.index == AUTO else granted.grant(self.index)

    def _entries(self, url: str, registry: ObjectStoreRegistry) -> tuple[str, list[Entry]]:
        """The URL of the index and what it says; nothing where there is none."""
        if self.index is None:
            return "", []
        if self.index != AUTO:
            where = as_url(self.index)
            return where, entries_of(read_index(registry, where), where)
        found = found_beside(registry, url)
        if found is None:
            return "", []
        try:
            return found[0], entries_of(found[1], found[0])
        except FormatError as error:
            _not_used(found[0], url, error)
            return "", []


def _not_used(index: str, url: str, error: FormatError) -> None:
    message = f"{index} is not used, and the headers of {url} are read: {error.message}"
    warnings.warn(StaleIndexWarning(message), stacklevel=2)


class _Parse:
    """One parse of one file."""

    def __init__(self, parser: GRIBParser, reader: HeaderReader, index: str, entries: Sequence[Entry]) -> None:
        self._parser = parser
        self._reader = reader
        self._index, self._entries = index, entries
        self._omissions = parser._omissions(reader.url, LEFT_OUT)
        self._source = SourceTable.single(reader.url, reader.stamp)
        self._geographies: dict[tuple[Any, ...], Geography] = {}

    def tree(self) -> ManifestGroup:
        cubes: list[tuple[Cube, dict[str, Any]]] = []
        for fields, headers in self._identities():
            parts = parted(fields, self._parser.on_duplicate, self._reader.url)
            with self._omissions.attempt(fields[0].name):
                cubes += self._cubes(parts, headers)
        return self._chosen(grouped(_kept(cubes, self._omissions)))

    def _identities(self) -> Iterator[tuple[list[Found], bytes]]:
        """The fields of each identity in the order of the file, with a message of the first one's headers."""
        fields: dict[tuple[Any, ...], list[Found]] = {}
        headers: dict[tuple[Any, ...], bytes] = {}
        for one in self._headers():
            with opened(one.content) as keys, self._omissions.attempt(f"the message at offset {one.message.offset}"):
                if not matches(keys, self._parser.filter_by_keys):
                    continue
                found = field_found(one.content, one.message, one.index, keys, one.packing)
                if self._omissions.drops("/".join((*found.path, found.name))):
                    continue
                fields.setdefault(found.identity, []).append(found)
                headers.setdefault(found.identity, one.content)
        for identity, members in fields.items():
            yield members, headers[identity]

    def _headers(self) -> Iterable[Headers]:
        """Headers of every field, by the index if there is one that fits."""
        if not self._entries:
            return self._scanned()
        try:
            return headers_by_index(self._reader, self._entries)
        except FormatError as error:
            if self._parser.index != AUTO:
                raise
            _not_used(self._index, self._reader.url, error)
            return self._scanned()

    def _scanned(self) -> Iterator[Headers]:
        read = self._reader.read
        for index, sections in fields_in(self._reader):
            yield Headers(sections.message, index, header_message(read, sections), packing_of(read, sections))

    def _cubes(self, parts: Sequence[tuple[str, list[Found]]], headers: bytes) -> list[tuple[Cube, dict[str, Any]]]:
        with opened(headers) as keys:
            geography = self._geography(parts[0][1][0], keys)
            described, shared = variable_attributes(keys), group_attributes(keys)
        codec = CODECS[self._parser.codec]
        return [
            (cube_of(part, suffix, geography, described, self._source, codec and codec(part)), shared)
            for suffix, part in parts
        ]

    def _geography(self, found: Found, keys: Keys) -> Geography:
        """Where values are, computed once for each grid."""
        known = (found.message.edition, found.grid_type, found.grid, keys.get("gridDefinition", int))
        if known not in self._geographies:
            self._geographies[known] = geography_of(keys)
        return self._geographies[known]

    def _chosen(self, tree: ManifestGroup) -> ManifestGroup:
        path = self._parser._path
        found = tree.get(path) if path else tree
        if isinstance(found, ManifestGroup):
            return found
        known = [name for name, _ in tree.walk() if name]
        raise no_group(self._parser.group, known, self._reader.url, is_array=found is not None)


def _kept(cubes: Sequence[tuple[Cube, dict[str, Any]]], omissions: Omissions) -> list[tuple[Cube, dict[str, Any]]]:
    """Cubes without what the user dropped by name or path."""
    kept = []
    for cube, attributes in cubes:
        path = "/".join(cube.path)
        if omissions.drops(cube.path[0], path) or omissions.drops(path, path):
            continue
        arrays = {name: array for name, array in cube.arrays.items() if not omissions.drops(f"{path}/{name}")}
        kept.append((replace(cube, arrays=arrays), attributes))
    return [(cube, attributes) for cube, attributes in kept if cube.name in cube.arrays]


def grouped(cubes: Sequence[tuple[Cube, dict[str, Any]]]) -> ManifestGroup:
    """Return the tree of cubes: each in its group, and together wherever they agree.

    Parameters
    ----------
    cubes
        With the attributes of their groups.
    """
    kinds: dict[str, list[tuple[Cube, dict[str, Any]]]] = {}
    for cube, attributes in cubes:
        kinds.setdefault(cube.path[0], []).append((cube, attributes))
    groups = {}
    for kind, members in kinds.items():
        leaves = {cube.path[1]: ManifestGroup(cube.arrays, attributes=attributes) for cube, attributes in members}
        groups[kind] = ManifestGroup(_together(members), leaves, _common([shared for _, shared in members]))
    return ManifestGroup(_together(cubes), groups, _common([shared for _, shared in cubes]))


def _together(cubes: Sequence[tuple[Cube, dict[str, Any]]]) -> Mapping[str, ManifestArray]:
    """The arrays of all cubes as one dataset where they agree, and otherwise none."""
    if any(shared != cubes[0][1] for _, shared in cubes):
        return {}
    return merged([cube for cube, _ in cubes]) or {}


def _common(attributes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: value
        for name, value in (attributes[0] if attributes else {}).items()
        if all(other.get(name) == value for other in attributes)
    }
