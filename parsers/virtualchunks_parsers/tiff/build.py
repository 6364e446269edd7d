"""Images of a TIFF file as arrays: names of dimensions, attributes, coordinates, stacks of planes.

What the images are is found in :mod:`~virtualchunks_parsers.tiff.tree`; where their bytes are, in
:mod:`~virtualchunks_parsers.tiff.image`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.records import RECORD, WIDE_RECORD
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.tiff.describe import GDALMetadata, gdal_metadata, nodata, texts
from virtualchunks_parsers.tiff.geo import LONGEST_AXIS, GeoReference, georeference
from virtualchunks_parsers.tiff.image import Image
from virtualchunks_parsers.tiff.tree import Node, Report

#: Why one image may be left out while the others are read.
LEFT_OUT = (UnsupportedFeatureError, LimitExceededError, FormatError)

#: Names of the field PhotometricInterpretation, for people.
PHOTOMETRICS = {
    0: "min-is-white",
    1: "min-is-black",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
}

#: Dimensions of the groups above: what each name stands for.
Scope = Mapping[str, tuple[Any, ...]]


class Builder:
    """Makes groups of one file.

    Parameters
    ----------
    sources
        The table whose only row is the file.
    report
        Called for what is left out.
    drops
        Whether an array or a group, given by its path, is left out without a word.

    Attributes
    ----------
    images
        How many images became arrays.
    """

    def __init__(self, sources: SourceTable, report: Report, drops: Callable[[str], bool]) -> None:
        self._sources = sources
        self._report = report
        self._drops = drops
        self.images = 0

    def root(self, pages: Sequence[Node]) -> ManifestGroup:
        """Return the tree of a file: the first page is the root, and the others lie below it."""
        if not pages or not pages[0].images:
            return ManifestGroup(groups=self._groups("", pages[1:], "image_", {}, None))
        geo, scope = self._place("", pages[0], {}, None)
        first = self._group("", pages[0], geo, scope)
        others = self._groups("", pages[1:], "image_", scope.names_above, None)
        return ManifestGroup(first.arrays, {**first.groups, **others}, first.attributes)

    def _groups(
        self, path: str, nodes: Iterable[Node], prefix: str, above: Scope, parent: tuple[Image, GeoReference] | None
    ) -> dict[str, ManifestGroup]:
        found = {}
        for number, node in enumerate(nodes, 1):
            inner = f"{path}/{prefix}{number}".lstrip("/")
            if node.images and not self._drops(inner):
                found[f"{prefix}{number}"] = self._group(inner, node, *self._place(inner, node, above, parent))
        return found

    def _place(
        self, path: str, node: Node, above: Scope, parent: tuple[Image, GeoReference] | None
    ) -> tuple[GeoReference, Dimensions]:
        """Return where an image is, and what its dimensions are called."""
        try:
            geo = georeference(node.image.ifd)
        except FormatError as error:
            self._report(f"the georeferencing of {path or 'the first image'!r}", error)
            geo = GeoReference(None, {})
        if not geo and parent is not None:
            geo = _at_lower_resolution(*parent, node.image)
        return geo, Dimensions(node, geo, path, above)

    def _group(self, path: str, node: Node, geo: GeoReference, dimensions: Dimensions) -> ManifestGroup:
        metadata = self._metadata(path, node.image)
        arrays: dict[str, ManifestArray] = {}
        self._add(arrays, path, "data", lambda: self._data(node, geo, metadata, dimensions))
        if node.mask is not None:
            mask = node.mask
            names = dimensions.of_pixels(mask)
            self._add(arrays, path, "mask", lambda: mask.array(self._sources, names, None))
        if arrays:
            for name, array in dimensions.coordinates():
                self._add_quietly(arrays, path, name, array)
            if geo:
                self._add_quietly(arrays, path, "spatial_ref", scalar(0, geo.attributes()))
        above = dimensions.names_above
        groups = {
            **self._groups(path, node.overviews, "", above, (node.image, geo)),
            **self._groups(path, node.others, "subifd_", above, None),
        }
        return ManifestGroup(arrays, groups, {**metadata.items, **texts(node.image.ifd)})

    def _metadata(self, path: str, image: Image) -> GDALMetadata:
        try:
            return gdal_metadata(image.ifd)
        except FormatError as error:
            self._report(f"the GDAL metadata of {path or 'the first image'!r}", error)
            return GDALMetadata()

    def _add(self, arrays: dict[str, ManifestArray], path: str, name: str, make: Callable[[], ManifestArray]) -> None:
        """Add an array of an image, or report why it cannot be had."""
        full = f"{path}/{name}".lstrip("/")
        if self._drops(full):
            self.images += 1
            return
        try:
            arrays[name] = make()
            self.images += 1
        except LEFT_OUT as error:
            self._report(repr(full), error)

    def _add_quietly(self, arrays: dict[str, ManifestArray], path: str, name: str, array: ManifestArray) -> None:
        if not self._drops(f"{path}/{name}".lstrip("/")):
            arrays[name] = array

    def _data(self, node: Node, geo: GeoReference, metadata: GDALMetadata, dimensions: Dimensions) -> ManifestArray:
        image = node.image
        fill, text = nodata(image.ifd, image.dtype)
        names = dimensions.of_pixels(image)
        arrays = [plane.array(self._sources, names, fill) for plane in node.images]
        array = stacked(arrays, dimensions.axes) if node.axes else arrays[0]
        attributes: dict[str, Any] = metadata.of_bands(image.samples)
        if fill is not None:
            attributes["_FillValue"] = fill
        elif text:
            attributes["nodata"] = text
        if geo:
            attributes["grid_mapping"] = "spatial_ref"
        if image.colours in PHOTOMETRICS:
            attributes["photometric_interpretation"] = PHOTOMETRICS[image.colours]
        return ManifestArray(array.metadata.replace(attributes=attributes), array.manifest)


class Dimensions:
    """What the dimensions of an image are called, and their coordinates.

    A dimension has the name of its axis, unless a group above has another dimension of this name: then its own path is
    added.

    Parameters
    ----------
    node, geo, path
        The image, where it is on Earth, and where it is in the tree.
    above
        Dimensions of the groups above.

    Attributes
    ----------
    names_above
        Those and the image's own, for the groups below.
    """

    def __init__(self, node: Node, geo: GeoReference, path: str, above: Scope) -> None:
        self._geo = geo
        image = node.image
        transform = geo.transform
        meanings: dict[str, tuple[Any, ...]] = {
            **{name: (length,) for name, length in node.axes},
            "y": (image.height, transform),
            "x": (image.width, transform),
        }
        if image.depth > 1:
            meanings["z"] = (image.depth,)
        if image.samples > 1:
            meanings["band"] = (image.samples,)
        suffix = path.replace("/", "_")
        self._names = {
            name: name if above.get(name, meaning) == meaning else f"{name}_{suffix}"
            for name, meaning in meanings.items()
        }
        self._meanings = meanings
        self.names_above: Scope = {**above, **{self._names[name]: meaning for name, meaning in meanings.items()}}
        self.axes = tuple((self._names[name], length) for name, length in node.axes)

    def of_pixels(self, image: Image) -> tuple[str, ...]:
        """Return the names of the dimensions of an image of the same size, those over planes left out."""
        return image.over_pixels(*(self._names.get(name, name) for name in ("z", "y", "x", "band")))

    def coordinates(self) -> Iterable[tuple[str, ManifestArray]]:
        """Return the coordinate arrays, held in memory: pixel centres, and bands counted from 1."""
        transform = self._geo.transform
        height, width = self._meanings["y"][0], self._meanings["x"][0]
        if transform is not None and not transform.is_rotated and max(height, width) <= LONGEST_AXIS:
            across, down = self._geo.coordinate_attributes()
            yield self._names["y"], vector(self._names["y"], transform.y(height), down)
            yield self._names["x"], vector(self._names["x"], transform.x(width), across)
        if "band" in self._meanings:
            yield self._names["band"], vector(self._names["band"], np.arange(1, self._meanings["band"][0] + 1), {})


def _at_lower_resolution(image: Image, geo: GeoReference, overview: Image) -> GeoReference:
    """Return where an overview is that does not say so itself: it covers the same area in fewer pixels."""
    if geo.transform is None:
        return geo
    across, down = image.width / overview.width, image.height / overview.height
    return GeoReference(geo.transform.scaled(across, down), geo.keys)


def stacked(arrays: Sequence[ManifestArray], axes: Sequence[tuple[str, int]]) -> ManifestArray:
    """Return planes that lie in one file as one array.

    Parameters
    ----------
    arrays
        The planes, in the order of the axes.
    axes
        Names and lengths of the axes over them, slowest first.

    Raises
    ------
    UnsupportedFeatureError
        If planes differ in their chunks or encodings.
    """
    first = arrays[0].metadata
    if any(array.metadata != first for array in arrays):
        raise UnsupportedFeatureError("planes of one image that differ in their chunks, compression or type of samples")
    lengths = tuple(length for _, length in axes)
    wide = any(array.manifest.records.dtype == WIDE_RECORD for array in arrays)
    records = np.stack([array.manifest.records.astype(WIDE_RECORD if wide else RECORD) for array in arrays])
    grid = ChunkGrid((*(Axis(length, chunk=1) for length in lengths), *first.grid.axes))
    names = (*(name for name, _ in axes), *(first.dimension_names or ()))
    manifest = ChunkManifest.from_records(records.reshape(grid.grid_shape), arrays[0].manifest.sources)
    return ManifestArray(first.replace(grid=grid, dimension_names=names), manifest)


def vector(name: str, values: npt.NDArray[Any], attributes: Mapping[str, Any]) -> ManifestArray:
    """Return numbers along a dimension as an array held in memory."""
    little = values.astype(values.dtype.newbyteorder("<"))
    metadata = ArrayMetadata.build(
        shape=values.shape, chunks=values.shape, dtype=little.dtype, dimension_names=(name,), attributes=attributes
    )
    return ManifestArray(metadata, ChunkManifest.of_buffers([little.tobytes()], (1,)))


def scalar(value: int, attributes: Mapping[str, Any]) -> ManifestArray:
    """Return a number without dimensions as an array held in memory."""
    metadata = ArrayMetadata.build(shape=(), chunks=(), dtype="<i8", dimension_names=(), attributes=attributes)
    return ManifestArray(metadata, ChunkManifest.of_buffers([np.int64(value).astype("<i8").tobytes()], ()))
