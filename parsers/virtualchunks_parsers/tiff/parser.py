"""TIFFParser: one file → one tree of arrays of chunk references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from virtualchunks.errors import VirtualChunksError
from virtualchunks.group import ManifestGroup, subgroup
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable
from virtualchunks_parsers import native
from virtualchunks_parsers.base import FileParser, Omissions
from virtualchunks_parsers.tiff import structure
from virtualchunks_parsers.tiff.build import Builder
from virtualchunks_parsers.tiff.structure import TIFFFile
from virtualchunks_parsers.tiff.tree import Walk


@dataclass(frozen=True, kw_only=True)
class TIFFParser(FileParser):
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
    native: ClassVar[Any] = staticmethod(native.tiff)
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

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so is TIFF or BigTIFF."""
        return structure.recognises(head)

    def _read(self, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        with ObjectReader(registry, url) as reader:
            root = _Parse(self._omissions(reader.url), reader).tree()
        return subgroup(root, self.group, reader.url)


class _Parse:
    """One parse of one file."""

    def __init__(self, omissions: Omissions, reader: ObjectReader) -> None:
        self._omissions = omissions
        self._reader = reader
        self._left_out: list[tuple[str, VirtualChunksError]] = []

    def tree(self) -> ManifestGroup:
        sources = SourceTable.single(self._reader.url, self._reader.stamp)
        builder = Builder(sources, self._leave_out, self._omissions.drops)
        try:
            pages = Walk(TIFFFile(self._reader), self._leave_out).pages()
            root = builder.root(pages)
        except VirtualChunksError as error:
            self._omissions.place(error)
            raise
        if not builder.images and self._left_out:
            raise self._left_out[0][1]
        for name, reason in self._left_out:
            self._omissions.tell(name, reason.message)
        return root

    def _leave_out(self, name: str, error: VirtualChunksError) -> None:
        """Keep an error for the end, where it becomes a warning, or raise it now."""
        self._omissions.place(error, name)
        if self._omissions.strict:
            raise error
        self._left_out.append((name, error))
