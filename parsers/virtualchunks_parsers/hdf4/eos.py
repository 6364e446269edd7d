"""Coordinates of HDF-EOS2 grids, which are given by the corners of the grid and not stored.

The text ``StructMetadata.0`` among the attributes of a file says for each grid how many rows and columns it has, where
its corners are, and in which projection.

References
----------
HDF-EOS Library User's Guide, volume 1, section 7; General Cartographic Transformation Package for packed angles.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks_parsers.hdf4.datasets import DataSet

STRUCTURE = "StructMetadata."
GEOGRAPHIC = "GCTP_GEO"
UPPER_LEFT, CORNER = "HDFE_GD_UL", "HDFE_CORNER"

_GRID = re.compile(r"GROUP=(GRID_\d+)\s(.*?)END_GROUP=\1\b", re.DOTALL)
_ENTRY = re.compile(r"^\s*(\w+)=(.+?)\s*$", re.MULTILINE)
_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[Ee][-+]?\d+)?)"
_POINT = re.compile(rf"\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)")
#: The longest coordinate that is made.
LONGEST = 10_000_000

Floats = npt.NDArray[np.floating[Any]]

#: What coordinates are called, by whether they are geographic: those of columns and of rows.
NAMES = {
    True: (("longitude", "degrees_east"), ("latitude", "degrees_north")),
    False: (("projection_x_coordinate", "m"), ("projection_y_coordinate", "m")),
}


@dataclass(frozen=True)
class Grid:
    """One grid.

    Attributes
    ----------
    name
        As it follows the names of dimensions, behind a colon.
    columns, rows
        How many.
    upper_left, lower_right
        Corners of the grid, x first.
    projection
        As GCTP names it.
    at_corners
        Whether values belong to the upper left corners of cells, not to their centres.
    """

    name: str
    columns: int
    rows: int
    upper_left: tuple[float, float]
    lower_right: tuple[float, float]
    projection: str
    at_corners: bool

    def coordinates(self, used: Container[tuple[str, int]]) -> Iterator[tuple[str, Floats, dict[str, str]]]:
        """Iterate over the coordinates of the dimensions in `used`: name, values, attributes."""
        is_geographic = self.projection == GEOGRAPHIC
        sizes = (self.columns, self.rows)
        for place, (letter, size) in enumerate(zip("XY", sizes, strict=True)):
            name = f"{letter}Dim:{self.name}"
            if (name, size) not in used or size > LONGEST:
                continue
            start, stop = self.upper_left[place], self.lower_right[place]
            if is_geographic:
                start, stop = degrees(start), degrees(stop)
            steps = np.arange(size) + (0.0 if self.at_corners else 0.5)
            standard_name, units = NAMES[is_geographic][place]
            attributes = {"standard_name": standard_name, "units": units, "projection": self.projection}
            yield name, start + steps * ((stop - start) / size), attributes


def degrees(packed: float) -> float:
    """Return an angle in degrees from the packed form DDDMMMSSS.SS.

    Examples
    --------
    >>> degrees(-30030000.0)
    -30.5
    """
    minutes, seconds = divmod(abs(packed), 1000)
    whole, minutes = divmod(minutes, 1000)
    angle = whole + minutes / 60 + seconds / 3600
    return -angle if packed < 0 else angle


def grids(attributes: Mapping[str, Any]) -> list[Grid]:
    """Return the grids that the attributes of a file describe, as far as their coordinates follow from that."""
    names = sorted((name for name in attributes if name.startswith(STRUCTURE)), key=lambda name: (len(name), name))
    text = "".join(str(attributes[name]) for name in names)
    found = (_grid(dict(_ENTRY.findall(match[2].partition("GROUP=")[0]))) for match in _GRID.finditer(text))
    return [grid for grid in found if grid is not None]


def _grid(entries: Mapping[str, str]) -> Grid | None:
    points = [_POINT.fullmatch(entries.get(name, "")) for name in ("UpperLeftPointMtrs", "LowerRightMtrs")]
    sizes = [entries.get(name, "") for name in ("XDim", "YDim")]
    origin = entries.get("GridOrigin", UPPER_LEFT)
    if not all(size.isdigit() and int(size) for size in sizes) or origin != UPPER_LEFT or "Projection" not in entries:
        return None
    corners = [(float(point[1]), float(point[2])) for point in points if point is not None]
    if len(corners) != len(points):
        return None
    return Grid(
        entries.get("GridName", "").strip('"'),
        int(sizes[0]),
        int(sizes[1]),
        corners[0],
        corners[1],
        entries["Projection"],
        entries.get("PixelRegistration") == CORNER,
    )


def coordinate_arrays(attributes: Mapping[str, Any], datasets: Sequence[DataSet]) -> dict[str, ManifestArray]:
    """Return the coordinates of the dimensions that data sets have and that no data set gives.

    Parameters
    ----------
    attributes
        Of the file.
    datasets
        Its data sets.
    """
    used = {pair for dataset in datasets for pair in zip(dataset.dimensions, dataset.shape, strict=True)}
    taken = {dataset.name for dataset in datasets}
    made: dict[str, ManifestArray] = {}
    for grid in grids(attributes):
        for name, values, own in grid.coordinates(used):
            if name in taken:
                continue
            metadata = ArrayMetadata.build(
                shape=values.shape, chunks=values.shape, dtype="<f8", dimension_names=(name,), attributes=own
            )
            made[name] = ManifestArray(metadata, ChunkManifest.of_buffers([values.astype("<f8").tobytes()], (1,)))
    return made
