"""Small archives of NetCDF-4 files, each of which may differ from the others in any of the ways that archives do."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

LONGEST = 7
WIDTH = (5, 6)
PLAIN: tuple[tuple[str, dict[str, Any]], ...] = (
    ("f4", {}),
    ("f8", {}),
    ("f4", {"_FillValue": np.float32(3)}),
    ("f4", {"_FillValue": np.float32(np.nan)}),
    ("f8", {"missing_value": 1e20}),
    ("i4", {}),
    ("i2", {}),
    ("u1", {}),
    ("i8", {}),
)
PACKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("i2", {"scale_factor": 0.1, "add_offset": 2.5, "_FillValue": np.int16(3)}),
    ("i2", {"scale_factor": 0.01}),
    ("i2", {"scale_factor": np.float32(0.1), "_FillValue": np.int16(-32768)}),
    ("u1", {"scale_factor": np.float32(0.5), "add_offset": np.float32(-5), "missing_value": np.uint8(4)}),
    ("i1", {"_Unsigned": "true", "_FillValue": np.int8(-1), "scale_factor": 0.25}),
    ("i4", {"_FillValue": np.int32(5)}),
    ("i2", {"_FillValue": np.int16(5)}),
    ("i4", {"scale_factor": np.float32(0.5), "add_offset": np.float32(1)}),
)
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"compression": 1},
    {"compression": 6},
    {"compression": 6, "shuffle": True},
    {"shuffle": True},
    {"compression": "lzf"},
    {"fletcher32": True},
    {"compression": 1, "fletcher32": True},
)
UNITS = ("days since 2000-01-01", "hours since 2000-01-01", "days since 1999-12-25")
#: What may change from file to file.
DRIFTS = (
    *("packing", "dtype", "order", "filters", "level", "chunks", "length", "fill", "lacking", "units", "dimensions"),
    *("holes", "skipped", "compact"),
)


@dataclass
class Stored:
    """How one file stores its variables."""

    dtype: str
    attributes: dict[str, Any]
    order: str
    filters: dict[str, Any]
    chunks: tuple[int, int, int] | None
    length: int
    fill: int | None = None
    lacking: bool = False
    units: str = UNITS[0]
    transposed: bool = False
    holes: bool = False
    skipped: bool = False
    compact: bool = False
    number: int = 0
    start: int = 0


def one_way(draw: random.Random) -> Stored:
    """Draw how the files of an archive store their variables."""
    dtype, attributes = draw.choice(PLAIN + PACKED)
    order, filters, chunks, length = draw.choice("<>"), draw.choice(FILTERS), _chunks(draw), draw.randint(2, LONGEST)
    return Stored(dtype, attributes, order, filters, chunks, length)


def _chunks(draw: random.Random) -> tuple[int, int, int] | None:
    if draw.random() < 0.15:
        return None
    return draw.randint(1, 4), draw.randint(1, WIDTH[0]), draw.randint(1, WIDTH[1])


def drifted(draw: random.Random, like: Stored, drifts: list[str]) -> Stored:
    """Draw how a file of the archive stores its variables, where it differs in some ways from the first."""
    made = Stored(**like.__dict__)
    for drift in drifts:
        if draw.random() < 0.6:
            _drift(draw, made, drift)
    return made


def _drift(draw: random.Random, made: Stored, drift: str) -> None:
    match drift:
        case "packing":
            made.dtype, made.attributes = draw.choice(PACKED)
        case "dtype":
            made.dtype, made.attributes = draw.choice(PLAIN)
        case "order":
            made.order = ">" if made.order == "<" else "<"
        case "filters":
            made.filters = draw.choice(FILTERS)
        case "chunks":
            made.chunks = _chunks(draw)
        case "length":
            made.length = draw.randint(1, LONGEST)
        case "fill":
            made.fill = draw.choice([0, 1, 7])
        case "lacking":
            made.lacking = True
        case "units":
            made.units = draw.choice(UNITS)
        case "dimensions":
            made.transposed = True
        case "holes":
            made.holes = True
        case "level" if "compression" in made.filters and made.filters["compression"] != "lzf":
            made.filters = {**made.filters, "compression": draw.randint(1, 9)}
        case "skipped":
            made.skipped = True
        case "compact":
            made.compact = True


def draw_archive(draw: random.Random) -> list[Stored]:
    """Draw an archive of two to six files with none to three drifts."""
    first = one_way(draw)
    drifts = draw.sample(DRIFTS, draw.randint(0, 3))
    files = [drifted(draw, first, drifts) for _ in range(draw.randint(2, 6))]
    start = 0
    for number, file in enumerate(files):
        file.number, file.start = number, start
        start += file.length
    if all(file.lacking for file in files):
        files[0].lacking = False
    return files


def write_file(path: Path, how: Stored) -> Path:
    """Write one file: ``v`` and ``w`` over time, y and x, and ``w`` not if it is lacking."""
    values = np.random.default_rng(how.number).integers(0, 9, (how.length, *WIDTH))
    with h5py.File(path, "w") as file:
        days = np.arange(how.start, how.start + how.length) + (7 if how.units == UNITS[2] else 0)
        file["time"] = (days * 24 if how.units == UNITS[1] else days).astype("i4")
        file["time"].attrs["units"] = how.units
        file["y"], file["x"] = np.arange(WIDTH[0] * 1.0), np.arange(WIDTH[1] * 1.0)
        for name in ("time", "y", "x"):
            file[name].make_scale(name)
        for name in ("v",) if how.lacking else ("v", "w"):
            _write_variable(file, name, how, values)
    return path


def _write_variable(file: h5py.File, name: str, how: Stored, values: Any) -> None:
    axes = (2, 1, 0) if how.transposed else (0, 1, 2)
    dtype = np.dtype(how.dtype).newbyteorder(how.order)
    data = values.transpose(axes).astype(dtype)
    layout: dict[str, Any] = {}
    if how.chunks is not None:
        chunks = [min(chunk, size) for chunk, size in zip(how.chunks, values.shape, strict=True)]
        layout = {"chunks": tuple(chunks[axis] for axis in axes), **how.filters}
    if how.compact:
        made = _compact(file, name, data)
    else:
        made = file.create_dataset(name, data.shape, dtype, fillvalue=how.fill, **layout)
    if how.holes and not how.compact and how.chunks is not None:
        made[..., : data.shape[-1] // 2] = data[..., : data.shape[-1] // 2]
    elif not how.compact:
        made[...] = data
        if how.skipped and how.chunks is not None and "compression" in how.filters:
            _skip_filters(made, data)
    for key, value in how.attributes.items():
        made.attrs[key] = value
    for place, axis in enumerate(axes):
        made.dims[place].attach_scale(file[("time", "y", "x")[axis]])


def _compact(file: h5py.File, name: str, data: Any) -> Any:
    """Write a variable into its own header."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.COMPACT)
    kind, space = h5py.h5t.py_create(data.dtype, logical=True), h5py.h5s.create_simple(data.shape)
    made = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, creation))
    made[...] = data
    return made


def _skip_filters(made: Any, data: Any) -> None:
    """Store the first chunk past all filters, as the library does where they do not pay."""
    corner = data[tuple(slice(0, size) for size in made.chunks)]
    if corner.shape == made.chunks:
        made.id.write_direct_chunk((0,) * data.ndim, np.ascontiguousarray(corner).tobytes(), filter_mask=0xFFFF)
