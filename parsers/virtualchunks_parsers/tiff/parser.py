"""TIFFParser: one file → one tree of arrays of chunk references."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from virtualchunks.errors import FormatError, UnsupportedArrayWarning, VirtualChunksError
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable
from virtualchunks.store import ManifestStore
from virtualchunks.urls import as_url
from virtualchunks_parsers.tiff import structure
from virtualchunks_parsers.tiff.build import Builder
from virtualchunks_parsers.tiff.structure import TIFFFile
from virtualchunks_parsers.tiff.tree import Walk


@dataclass(frozen=True, kw_only=True)
class TIFFParser:
    """Reads the structure of a TIFF, BigTIFF, GeoTIFF or OME-TIFF file as arrays of chunk references.

    The first image is the array ``data`` at the root, whatever the file is called, with the dimensions ``y``, ``x``
    and, where a pixel has several samples, ``band``. Its overviews are groups ``1``, ``2``, … with an array ``data``
    each; a mask is an array ``mask`` beside the image that it belongs to. Further images are groups ``image_1``,
    ``image_2``, …, and images below an image groups ``subifd_1``, …, each built like the root. Planes that OME-XML
    calls one image are one array, with the dimensions that it names: ``t``, ``c``, ``z``.

    Parameters
    ----------
    group
        Path of the group that becomes the root; by default the file's first image.
    drop_variables
        Names of arrays to leave out wherever they are, or paths of arrays and groups, such as ``"/1"``.
    strict
        Whether to raise where an image cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.

    Notes
    -----
    Values are raw samples, but for JPEG in YCbCr, which is decoded to RGB. GDAL's no-data value is ``_FillValue``, and
    what missing tiles read as. Georeferencing gives coordinates ``x`` and ``y`` of pixel centres, held in memory,
    unless the image is rotated, and a variable ``spatial_ref``. A group whose image has another size than that above it
    has dimensions of its own, such as ``y_1``, because dimensions of a tree are shared downwards.

    A file none of whose images can be represented raises, with `strict` or without.

    Examples
    --------
    >>> TIFFParser(drop_variables=["mask"])
    TIFFParser(group=None, drop_variables=('mask',), strict=False)
    """

    name: ClassVar[str] = "TIFF"
    suffixes: ClassVar[tuple[str, ...]] = (".tif", ".tiff", ".gtiff", ".tf8", ".btf")
    reads: ClassVar[tuple[str, ...]] = (
        "TIFF and BigTIFF, both byte orders; every directory, SubIFDs, overviews, masks",
        "strips (a short last one by a rectilinear grid, or cut anew where they are plain and adjacent)",
        "tiles, sparse ones too",
        "unsigned integers of 1 to 64 bits, signed ones of 8, 16, 32 and 64, floats of 16, 24, 32 and 64, complex ones",
        "no compression, CCITT, LZW, deflate, zstd, PackBits, LERC, LZMA, JPEG, JPEG 2000, JPEG XL, JPEG XR, PNG, WebP",
        "predictors 2 and 3, both orders of bits, bands together or apart",
        "GeoTIFF, GDAL's metadata, OME-TIFF",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "old-style JPEG, JBIG, ThunderScan, NeXT, LogLuv, PixarLog: readers disagree, or none decodes them",
        "YCbCr subsampled without JPEG",
        "samples of one pixel that differ in bits or format, signed integers that are not of whole bytes",
        "predictors with compressions that readers do not apply them to",
    )

    group: str | None = None
    drop_variables: Iterable[str] | None = ()
    strict: bool = False
    _dropped: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = self.drop_variables
        names = () if given is None else (given,) if isinstance(given, str) else tuple(given)
        object.__setattr__(self, "drop_variables", names)
        object.__setattr__(self, "_dropped", frozenset(names))

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so is TIFF or BigTIFF."""
        return structure.recognises(head)

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
            If the file is not TIFF, truncated or corrupt, or has no such group.
        NotGrantedError, ReadError
            If the file cannot be read.
        UnsupportedFeatureError, LimitExceededError
            If no image can be represented, or, with `strict`, any cannot.
        """
        granted = self._granted(url, registry)
        return ManifestStore(self.parse(url, granted), registry=granted)

    def parse(self, url: str, registry: Any = None) -> ManifestGroup:
        """Parse a file, as calling the parser does, and return the tree itself."""
        with ObjectReader(self._granted(url, registry), as_url(url)) as reader:
            root = _Parse(self, reader).tree()
        return self._subgroup(root, reader.url)

    def _granted(self, url: str, registry: Any) -> ObjectStoreRegistry:
        known = ObjectStoreRegistry.coerce(registry)
        return known.grant(url) if registry is None else known

    def _subgroup(self, root: ManifestGroup, url: str) -> ManifestGroup:
        path = (self.group or "").strip("/")
        if not path:
            return root
        found = dict(root.walk()).get(path)
        if found is None:
            known = ", ".join(repr(name) for name, _ in root.walk() if name) or "none"
            raise FormatError(f"no group {path!r}; below the root there are {known}", url=url)
        return found

    def drops(self, path: str) -> bool:
        """Return whether an array or group is to be left out."""
        return not self._dropped.isdisjoint((path, f"/{path}", path.rpartition("/")[2]))


class _Parse:
    """One parse of one file."""

    def __init__(self, parser: TIFFParser, reader: ObjectReader) -> None:
        self._parser = parser
        self._reader = reader
        self._left_out: list[tuple[str, VirtualChunksError]] = []

    def tree(self) -> ManifestGroup:
        builder = Builder(SourceTable.single(self._reader.url, self._reader.stamp), self._leave_out, self._parser.drops)
        try:
            pages = Walk(TIFFFile(self._reader), self._leave_out).pages()
            root = builder.root(pages)
        except VirtualChunksError as error:
            error.url = error.url or self._reader.url
            raise
        if not builder.images and self._left_out:
            raise self._left_out[0][1]
        for name, reason in self._left_out:
            message = f"{name} of {self._reader.url} is left out: {reason.message}"
            warnings.warn(UnsupportedArrayWarning(message), stacklevel=4)
        return root

    def _leave_out(self, name: str, error: VirtualChunksError) -> None:
        """Keep an error for the end, where it becomes a warning, or raise it now."""
        error.url = error.url or self._reader.url
        error.variable = error.variable or name
        if self._parser.strict:
            raise error
        self._left_out.append((name, error))
