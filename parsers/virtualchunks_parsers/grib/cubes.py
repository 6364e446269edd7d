"""Cubes: the fields of one variable, placed by number, time, step and level, as an array with its coordinates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.grib import NAME
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks.grid import ChunkGrid
from virtualchunks.inline import encode_array
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.records import MISSING, RECORD, WIDE_RECORD
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.grib.attributes import COORDINATES, coordinate_attributes
from virtualchunks_parsers.grib.fields import DIMENSIONS, SPLITS, Found
from virtualchunks_parsers.grib.geography import Geography

STORED = np.dtype("<f8")
#: Data templates that gribberish decodes to the last bit as ecCodes does: simple and CCSDS packing.
GRIBBERISH_TEMPLATES = frozenset({0, 42})
#: Decimal scales of which both make the same factor: beyond 5, ecCodes' tenth of a tenth of … is not the power of ten.
GRIBBERISH_SCALES = range(-22, 6)
#: A cube may have this many cells for each of its fields, beyond the first :data:`ALWAYS` cells.
CELLS_PER_FIELD, ALWAYS = 64, 1 << 20

#: How two fields for one cell are not settled.
RAISE = "raise"
#: How two fields for one cell are settled; the error is the caller's to raise.
CHOICES: Mapping[str, Callable[[Sequence[Found]], Found]] = {
    "first": lambda fields: fields[0],
    "last": lambda fields: fields[-1],
}


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A coordinate of a cube: its dimensions and values."""

    dimensions: tuple[str, ...]
    values: npt.NDArray[Any]
    attributes: Mapping[str, Any]

    @property
    def signature(self) -> Hashable:
        """Equal for equal coordinates."""
        return self.dimensions, self.values.shape, self.values.tobytes()

    def array(self) -> ManifestArray:
        """Return it as an array held in memory."""
        metadata = ArrayMetadata.build(
            shape=self.values.shape,
            chunks=self.values.shape,
            dtype=self.values.dtype.newbyteorder("<"),
            dimension_names=self.dimensions,
            attributes=self.attributes,
        )
        return ManifestArray(metadata, encode_array(self.values, metadata))


@dataclass(frozen=True, slots=True)
class Cube:
    """One variable with its coordinates.

    Parameters
    ----------
    path
        Names of the groups that lead to it.
    name
        Name of the variable.
    arrays
        The variable and its coordinates, by name.
    signatures
        For each coordinate, and for each dimension, what must be equal for two cubes to share it.
    """

    path: tuple[str, str]
    name: str
    arrays: Mapping[str, ManifestArray]
    signatures: Mapping[str, Hashable]


def parted(fields: Sequence[Found], on_duplicate: str, url: str) -> list[tuple[str, list[Found]]]:
    """Divide fields so that each has a cell of its own.

    Fields that differ in their headers go to cubes of their own, whose names end with what differs; of fields that do
    not, `on_duplicate` chooses one.

    Parameters
    ----------
    fields
        Fields of one identity, in the order of the file.
    on_duplicate
        ``"raise"``, ``"first"`` or ``"last"``.
    url
        Of the file, for errors.

    Raises
    ------
    FormatError
        If two fields with the same headers are for one cell and none is chosen.
    """
    cells: dict[tuple[Any, ...], list[Found]] = {}
    for field in fields:
        cells.setdefault(field.place, []).append(field)
    shared = [cell for cell in cells.values() if len(cell) > 1]
    if not shared:
        return [("", list(fields))]
    for number, word in enumerate(SPLITS[:-1]):
        if any(len({field.splits[number] for field in cell}) > 1 for cell in shared):
            parts: dict[Any, list[Found]] = {}
            for field in fields:
                parts.setdefault(field.splits[number], []).append(field)
            return [
                (f"_{word}-{value}{rest}", part)
                for value, members in parts.items()
                for rest, part in parted(members, on_duplicate, url)
            ]
    return _variants([_distinct(cell, on_duplicate, url) for cell in cells.values()])


def _distinct(cell: Sequence[Found], on_duplicate: str, url: str) -> list[Found]:
    """One field for each header among the fields of a cell."""
    by_header: dict[int, list[Found]] = {}
    for field in cell:
        by_header.setdefault(field.splits[-1], []).append(field)
    chosen = []
    for same in by_header.values():
        if len(same) > 1 and on_duplicate not in CHOICES:
            raise FormatError(
                f"two messages for one cell of {same[0].name}: at offsets {same[0].message.offset} and "
                f"{same[1].message.offset}; pass on_duplicate='first' or 'last' to choose",
                url=url,
            )
        chosen.append(CHOICES.get(on_duplicate, CHOICES["first"])(same))
    return chosen


def _variants(cells: Sequence[Sequence[Found]]) -> list[tuple[str, list[Found]]]:
    """The first fields of all cells, the second ones, and so on."""
    most = max(map(len, cells))
    layers = [[cell[number] for cell in cells if len(cell) > number] for number in range(most)]
    return [("" if most == 1 else f"_variant-{number}", layer) for number, layer in enumerate(layers)]


def cube_of(
    fields: Sequence[Found],
    suffix: str,
    geography: Geography,
    attributes: Mapping[str, Any],
    source: SourceTable,
    codec: Mapping[str, Any] | None = None,
) -> Cube:
    """Return the cube of fields that have a cell each.

    Parameters
    ----------
    fields
        At least one.
    suffix
        What the name of its group ends with.
    geography
        Of each of the fields.
    attributes
        Of the variable.
    source
        The table of the file alone.
    codec
        Decodes a message in place of the project's own codec.

    Raises
    ------
    LimitExceededError
        If nearly all cells would be empty.
    """
    first = fields[0]
    coordinates = _coordinates(fields)
    dimensions = tuple(name for name in coordinates if coordinates[name].dimensions)
    counts = tuple(coordinates[name].values.size for name in dimensions)
    if math.prod(counts) > max(ALWAYS, CELLS_PER_FIELD * len(fields)):
        raise LimitExceededError(f"its {len(fields)} messages would be spread over {math.prod(counts)} cells {counts}")
    records, sources, encoding = _manifest(fields, coordinates, geography, source, codec)
    coordinates |= _valid_time(coordinates) | _axes(geography)
    arrays = {name: coordinate.array() for name, coordinate in coordinates.items()}
    signatures: dict[str, Hashable] = {name: coordinate.signature for name, coordinate in coordinates.items()}
    if geography.computed:
        for name in ("latitude", "longitude"):
            arrays[name] = _computed(name, first, geography, source)
            signatures[name] = first.grid
    signatures |= {f"{name} (size)": size for name, size in zip(geography.dimensions, geography.shape, strict=True)}
    metadata = ArrayMetadata(
        ChunkGrid.regular((*counts, *geography.shape), (*(1 for _ in counts), *geography.shape)),
        STORED,
        encoding,
        np.nan,
        (*dimensions, *geography.dimensions),
        {**attributes, "coordinates": " ".join(arrays)},
    )
    path = (first.path[0], f"{first.path[1]}{suffix}")
    variable = ManifestArray(metadata, ChunkManifest.from_records(records, sources))
    return Cube(path, first.name, {first.name: variable, **arrays}, signatures)


def _coordinates(fields: Sequence[Found]) -> dict[str, Coordinate]:
    """Number, time, step, level, direction and frequency, as far as the fields have them."""
    found: dict[str, Coordinate] = {}
    for number, key in enumerate(DIMENSIONS):
        if fields[0].place[number] is None:
            continue
        name = level_name(fields[0]) if key == "level" else key
        attributes = coordinate_attributes(name, key)
        distinct = {value for field in fields if (value := field.place[number]) is not None}
        values = np.array(sorted(distinct, reverse=attributes.get("stored_direction") == "decreasing"))
        values = values.astype("f8" if values.dtype.kind == "f" else "i8")
        found[name] = Coordinate(
            (name,) if len(values) > 1 else (), values if len(values) > 1 else values[0], attributes
        )
    return found


def level_name(field: Found) -> str:
    """Return the name of the vertical coordinate: the type of level, or ``level`` where it has none."""
    return "level" if field.level_type == "unknown" else field.level_type


def _axes(geography: Geography) -> dict[str, Coordinate]:
    made = {}
    for name, values in geography.axes.items():
        direction = {"stored_direction": "decreasing"} if name == "latitude" and values[0] > values[-1] else {}
        made[name] = Coordinate((name,), values, {**COORDINATES[name], **direction})
    return made


def _valid_time(coordinates: Mapping[str, Coordinate]) -> dict[str, Coordinate]:
    if "time" not in coordinates or "step" not in coordinates:
        return {}
    time, step = coordinates["time"], coordinates["step"]
    offsets = np.rint(np.asarray(step.values) * 3600).astype("i8")
    both = bool(time.dimensions and step.dimensions)
    values = np.add.outer(time.values, offsets) if both else np.asarray(time.values + offsets)
    return {"valid_time": Coordinate((*time.dimensions, *step.dimensions), values, COORDINATES["valid_time"])}


def _manifest(
    fields: Sequence[Found],
    coordinates: Mapping[str, Coordinate],
    geography: Geography,
    source: SourceTable,
    codec: Mapping[str, Any] | None,
) -> tuple[npt.NDArray[Any], SourceTable, ChunkEncoding]:
    """Place the fields. Fields of different numbers in their messages decode with encodings of their own."""
    indices = Counter(field.index for field in fields)
    order = [index for index, _ in indices.most_common()]
    own = _encoding(codec, order[0])
    rows = [source, *(source.with_encoding(_encoding(codec, index)) for index in order[1:])]
    wide = max(field.message.length for field in fields) >= 2**32
    shape = tuple(coordinate.values.size for coordinate in coordinates.values() if coordinate.dimensions)
    records = np.zeros(shape, dtype=WIDE_RECORD if wide else RECORD)
    records["source"] = MISSING
    names = [level_name(fields[0]) if key == "level" else key for key in DIMENSIONS]
    positions = [
        {value: place for place, value in enumerate(coordinates[name].values.tolist())}
        if name in coordinates and coordinates[name].dimensions
        else None
        for name in names
    ]
    for field in fields:
        cell = tuple(known[value] for known, value in zip(positions, field.place, strict=True) if known is not None)
        records[cell] = (order.index(field.index), field.message.length, field.message.offset)
    cells = records.reshape(shape + (1,) * len(geography.shape))
    return cells, SourceTable.concat(rows), own


def gribberish(fields: Sequence[Found]) -> dict[str, Any]:
    """Return the codec ``gribberish``, for fields that it decodes.

    Raises
    ------
    UnsupportedFeatureError
        If there is one that it does not decode.
    """
    for field in fields:
        if not _is_exact_in_gribberish(field):
            raise UnsupportedFeatureError(
                "gribberish decodes to the last bit only first fields of messages of edition 2, without a bitmap, with "
                f"data templates 0 and 42 and a decimal scale up to {GRIBBERISH_SCALES[-1]}, not "
                f"field {field.index} at offset {field.message.offset} with {field.packing}: leave out codec="
            )
    return {"name": "gribberish", "configuration": {"var": fields[0].name}}


def _is_exact_in_gribberish(field: Found) -> bool:
    packing = field.packing
    return (
        field.index == 0
        and packing is not None
        and packing.template in GRIBBERISH_TEMPLATES
        and packing.decimal_scale in GRIBBERISH_SCALES
        and packing.bitmap is False
    )


#: What makes another codec that decodes a cube's messages, by the name that a parser is given; none for our own.
CODECS: Mapping[str, Callable[[Sequence[Found]], Mapping[str, Any]] | None] = {NAME: None, "gribberish": gribberish}


def _encoding(codec: Mapping[str, Any] | None, index: int, read: str | None = None) -> ChunkEncoding:
    if codec is not None and read is None:
        return ChunkEncoding(STORED, (codec,))
    configuration = {**({"field": index} if index else {}), **({} if read is None else {"read": read})}
    return ChunkEncoding(STORED, ({"name": NAME, "configuration": configuration},))


def _computed(name: str, field: Found, geography: Geography, source: SourceTable) -> ManifestArray:
    """Latitudes or longitudes of all grid points, computed from a message when they are read."""
    metadata = ArrayMetadata(
        ChunkGrid.regular(geography.shape, geography.shape),
        STORED,
        _encoding(None, field.index, f"{name}s"),
        np.nan,
        geography.dimensions,
        COORDINATES[name],
    )
    wide = field.message.length >= 2**32
    records = np.zeros((1,) * len(geography.shape), dtype=WIDE_RECORD if wide else RECORD)
    records["length"], records["offset"] = field.message.length, field.message.offset
    return ManifestArray(metadata, ChunkManifest.from_records(records, source))


def merged(cubes: Sequence[Cube]) -> dict[str, ManifestArray] | None:
    """Return the arrays of several cubes as those of one dataset, or ``None`` where they do not agree.

    Parameters
    ----------
    cubes
        At least one.
    """
    if len({cube.name for cube in cubes}) < len(cubes):
        return None
    agreed: dict[str, Hashable] = {}
    for cube in cubes:
        for name, signature in cube.signatures.items():
            if agreed.setdefault(name, signature) != signature:
                return None
    arrays: dict[str, ManifestArray] = {}
    for cube in cubes:
        for name, array in cube.arrays.items():
            arrays.setdefault(name, array)
    return arrays
