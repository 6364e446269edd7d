"""GRIBParser: one file → a tree of cubes of messages."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.grib_handle import Keys, opened, with_keys
from virtualchunks.codecs.grib_sections import MAGIC, Message, fields_of, header_message, message_at, packing_of
from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable
from virtualchunks.store import ManifestStore
from virtualchunks.urls import as_url
from virtualchunks_parsers import native
from virtualchunks_parsers.grib.attributes import group_attributes, variable_attributes
from virtualchunks_parsers.grib.cubes import CHOICES, CODECS, Cube, cube_of, merged, parted
from virtualchunks_parsers.grib.fields import Found, field_found, matches
from virtualchunks_parsers.grib.geography import Geography, geography_of
from virtualchunks_parsers.grib.scan import HeaderReader, fields_in
from virtualchunks_parsers.grib.sidecars import entries_of

#: Why one message or variable may be left out while the others are read.
LEFT_OUT = (UnsupportedFeatureError, LimitExceededError)


@dataclass(frozen=True, kw_only=True)
class GRIBParser:
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
        Names of variables to leave out.
    strict
        Whether to raise where a message cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.
    filter_by_keys
        Values of ecCodes keys that a message must have to be read, as in cfgrib: ``{"typeOfLevel": "surface"}``. A
        list states alternatives.
    on_duplicate
        What to do where two messages with the same headers are for one cell: raise an ``"error"``, or take the
        ``"first"`` or the ``"last"``.
    index
        URL or local path of an index of the file, by which it is read without visiting every message: ``.idx`` of
        wgrib2 and NOAA, or ``.index`` of ECMWF. All messages are then taken to have the grid of the first one. An index
        that does not fit the file is an error; lines that are not understood are left out with a warning.
    codec
        Which codec decodes the messages: ``"virtualchunks.grib"``, or ``"gribberish"`` of the library of that name, for
        the packings that it decodes; variables with others are left out by name. Its last digits may differ.

    Notes
    -----
    Values are in double precision and in the order of the message, missing ones NaN. Grids whose points do not form
    rows of one latitude have the dimensions ``y`` and ``x``, or ``values``, and latitudes and longitudes that are
    computed from a message when they are read.

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
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "two messages with the same headers for one cell, unless on_duplicate chooses",
        "spherical harmonics that are not truncated to a triangle",
        "reference times that no calendar knows",
    )

    group: str | None = None
    drop_variables: Iterable[str] | None = ()
    strict: bool = False
    filter_by_keys: Mapping[str, Any] = field(default_factory=dict)
    on_duplicate: str = "error"
    index: str | None = None
    codec: str = "virtualchunks.grib"

    def __post_init__(self) -> None:
        given = self.drop_variables
        names = () if given is None else (given,) if isinstance(given, str) else tuple(given)
        object.__setattr__(self, "drop_variables", names)
        if self.on_duplicate not in ("error", *CHOICES):
            raise ValueError(f"on_duplicate is 'error', 'first' or 'last', not {self.on_duplicate!r}")

        if self.codec not in CODECS:
            raise ValueError(f"codec is one of {', '.join(map(repr, CODECS))}, not {self.codec!r}")

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so holds GRIB messages, perhaps behind a telecommunication header."""
        at = head.find(MAGIC, 0, 1024)
        return at >= 0 and len(head) > at + 7 and head[at + 7] in (1, 2)

    def __call__(self, url: str, registry: Any = None) -> ManifestStore:
        """Parse a file.

        Parameters
        ----------
        url
            URL or local path of the file.
        registry
            What may be read, and through which store; ``None`` grants this file alone.

        Returns
        -------
        ManifestStore
            A read-only Zarr store over the file.

        Raises
        ------
        FormatError
            If the file is not GRIB, truncated or corrupt, has two messages for one cell, or no such group.
        NotGrantedError, ReadError
            If it cannot be read.
        UnsupportedFeatureError, LimitExceededError
            With `strict`, if something cannot be represented.
        MissingDependencyError
            If ecCodes is not installed.
        """
        granted = self._granted(url, registry)
        return ManifestStore(self.parse(url, granted), registry=granted)

    def parse(self, url: str, registry: Any = None) -> ManifestGroup:
        """Parse a file, as calling the parser does, and return the tree itself."""
        granted = self._granted(url, registry)
        with HeaderReader(granted, as_url(url)) as reader:
            try:
                return _Parse(self, reader, granted).tree()
            except VirtualChunksError as error:
                if error.url is None:
                    error.url = reader.url
                raise

    def _granted(self, url: str, registry: Any) -> ObjectStoreRegistry:
        known = ObjectStoreRegistry.coerce(registry)
        if registry is not None:
            return known
        named = known.grant(url)
        return named if self.index is None else named.grant(self.index)


class _Parse:
    """One parse of one file."""

    def __init__(self, parser: GRIBParser, reader: HeaderReader, registry: ObjectStoreRegistry) -> None:
        self._parser = parser
        self._registry = registry
        self._reader = reader
        self._source = SourceTable.single(reader.url, reader.stamp)
        self._geographies: dict[tuple[Any, ...], Geography] = {}

    def tree(self) -> ManifestGroup:
        cubes: list[tuple[Cube, dict[str, Any]]] = []
        for fields, headers in self._identities():
            parts = parted(fields, self._parser.on_duplicate, self._reader.url)
            try:
                cubes += self._cubes(parts, headers)
            except LEFT_OUT as error:
                self._leave_out(fields[0].name, error)
        return self._chosen(grouped(cubes))

    def _identities(self) -> Iterator[tuple[list[Found], bytes]]:
        """The fields of each identity in the order of the file, with a message of the first one's headers."""
        dropped = frozenset(self._parser.drop_variables or ())
        fields: dict[tuple[Any, ...], list[Found]] = {}
        headers: dict[tuple[Any, ...], bytes] = {}
        for place, index, message, packing in self._headers():
            with opened(message) as keys:
                if not matches(keys, self._parser.filter_by_keys):
                    continue
                try:
                    found = field_found(message, place, index, keys, packing)
                except LEFT_OUT as error:
                    self._leave_out(f"the message at offset {place.offset}", error)
                    continue
            if found.name in dropped:
                continue
            fields.setdefault(found.identity, []).append(found)
            headers.setdefault(found.identity, message)
        for identity, members in fields.items():
            yield members, headers[identity]

    def _headers(self) -> Iterator[tuple[Message, int, bytes, int | None]]:
        """Message, number, headers and packing of every field."""
        sidecar = self._parser.index
        if sidecar is not None:
            yield from self._indexed(as_url(sidecar))
            return
        for index, sections in fields_in(self._reader):
            headers = header_message(self._reader.read, sections)
            yield sections.message, index, headers, packing_of(self._reader.read, sections)

    def _indexed(self, sidecar: str) -> Iterator[tuple[Message, int, bytes, int | None]]:
        """Fields as an index describes them, with the grid of the first message.

        That message and the last one are looked at, so that the index of another version of the file is found out.
        """
        reader = self._reader
        with ObjectReader(self._registry, sidecar) as file:
            text = file.readall()
        entries = entries_of(text, reader.size, self._leave_out)
        if not entries:
            return
        first = message_at(reader.read, entries[0].offset, reader.size)
        template = header_message(reader.read, next(iter(fields_of(reader.read, first))))
        for entry in (entries[0], max(entries, key=lambda entry: entry.offset)):
            place = message_at(reader.read, entry.offset, reader.size)
            if place.length != entry.length:
                raise FormatError(
                    f"{sidecar} has a message of {entry.length} bytes at offset {entry.offset}, where one of "
                    f"{place.length} is: it is the index of another version; parse without it, or make it anew"
                )
        for entry in entries:
            try:
                headers = with_keys(template, entry.keys)
            except UnsupportedFeatureError as error:
                self._leave_out(f"the message at offset {entry.offset}", error)
                continue
            yield Message(entry.offset, entry.length or 0, first.edition), entry.index, headers, None

    def _cubes(self, parts: Sequence[tuple[str, list[Found]]], headers: bytes) -> list[tuple[Cube, dict[str, Any]]]:
        with opened(headers) as keys:
            geography = self._geography(parts[0][1][0], keys)
            described, shared = variable_attributes(keys), group_attributes(keys)
        codec = CODECS[self._parser.codec]
        return [
            (cube_of(part, suffix, geography, described, self._source, codec(part)), shared) for suffix, part in parts
        ]

    def _geography(self, found: Found, keys: Keys) -> Geography:
        """Where values are, computed once for each grid."""
        known = (found.message.edition, found.grid_type, found.grid, keys.get("gridDefinition", int))
        if known not in self._geographies:
            self._geographies[known] = geography_of(keys)
        return self._geographies[known]

    def _leave_out(self, name: str, error: VirtualChunksError) -> None:
        """Say that something is left out, or raise if nothing may be."""
        if self._parser.strict:
            error.variable = error.variable or name
            raise error
        warnings.warn(
            UnsupportedArrayWarning(f"{name!r} of {self._reader.url} is left out: {error.message}"), stacklevel=2
        )

    def _chosen(self, tree: ManifestGroup) -> ManifestGroup:
        path = (self._parser.group or "").strip("/")
        if not path:
            return tree
        found = tree.get(path)
        if not isinstance(found, ManifestGroup):
            known = ", ".join(name for name, _ in tree.walk() if name)
            raise FormatError(f"there is no group {path!r}; there are {known}", url=self._reader.url)
        return found


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
