"""FITSParser: one file → one tree of arrays of chunk references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from virtualchunks.array import ManifestArray
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.group import ManifestGroup, subgroup
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable
from virtualchunks_parsers import native
from virtualchunks_parsers.base import FileParser, Omissions
from virtualchunks_parsers.fits.columns import DESCRIPTIVE
from virtualchunks_parsers.fits.hdus import HDU, MAGIC, trailing, walk
from virtualchunks_parsers.fits.images import image
from virtualchunks_parsers.fits.packing import TABLE_STRUCTURE, attributes_of, unique
from virtualchunks_parsers.fits.tables import KINDS, Table
from virtualchunks_parsers.fits.tiles import TiledImage

IMAGES = ("PRIMARY", "IMAGE", "IUEIMAGE")


@dataclass(frozen=True, kw_only=True)
class FITSParser(FileParser):
    """Reads the structure of a FITS file as arrays of chunk references.

    Images, tile-compressed ones too, become arrays named by EXTNAME, or ``PRIMARY``, or the number of the HDU. Tables
    become groups, with an array for each column of fixed width. Values are as stored: scale and zero point are the
    attributes ``scale_factor`` and ``add_offset``, which xarray applies; unsigned integers are exact.

    Parameters
    ----------
    group
        Name of a table that becomes the root; by default the whole file.
    drop_variables
        Names of arrays and groups to leave out wherever they are, or paths of columns, such as ``"EVENTS/TIME"``.
    strict
        Whether to raise where an array cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.

    Notes
    -----
    An HDU with EXTVER 2 or more carries it in its name (``SCI_2``), so that names do not depend on what else is in a
    file. HDUs that would still share a name carry their number.

    All columns of a table refer to the same bytes, so reading many of them reads the table as many times.

    Examples
    --------
    >>> FITSParser(group="EVENTS", drop_variables=["TIME"])
    FITSParser(group='EVENTS', drop_variables=('TIME',), strict=False)
    """

    name: ClassVar[str] = "FITS"
    native: ClassVar[Any] = staticmethod(native.fits)
    suffixes: ClassVar[tuple[str, ...]] = (".fits", ".fit", ".fts")
    reads: ClassVar[tuple[str, ...]] = (
        "images of every BITPIX and up to 32 axes, those of length 0 among them",
        "BSCALE and BZERO as attributes; unsigned integers, and signed bytes, exactly",
        "columns of binary tables: numbers, complex numbers, strings, logical values, bits, arrays (TDIM)",
        "columns of ASCII tables",
        "tile-compressed images: RICE_1, GZIP_1, GZIP_2, PLIO_1, HCOMPRESS_1, NOCOMPRESS; quantised floats with each "
        "kind of dithering, bit for bit as astropy; tiles that fell back to gzip or no compression",
        "header cards as attributes: CONTINUE, HIERARCH, COMMENT, HISTORY",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "columns of variable length (P, Q): their rows hold arrays of different lengths",
        "random groups, which are neither an image nor a table",
        "tile-compressed tables",
        "masks of undefined pixels beside a tile-compressed image (ZMASKCMP)",
    )

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so is FITS."""
        return head.startswith(MAGIC)

    def _read(self, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        with ObjectReader(registry, url) as reader:
            tree = _Parse(self._omissions(reader.url), reader).tree()
        return subgroup(tree, self.group, reader.url)


class _Parse:
    """One parse of one file."""

    def __init__(self, omissions: Omissions, reader: ObjectReader) -> None:
        self._omissions = omissions
        self._reader = reader
        self._sources = SourceTable.single(reader.url, reader.stamp)
        self._arrays: dict[str, ManifestArray] = {}
        self._groups: dict[str, ManifestGroup] = {}
        self._attributes: dict[str, Any] = {}
        self._names: set[str] = set()

    def tree(self) -> ManifestGroup:
        end = 0
        for hdu in walk(self._reader):
            end = hdu.end
            name = self._name(hdu)
            self._names.add(name)
            if self._omissions.drops(name):
                continue
            with self._omissions.attempt(name):
                self._add(hdu, name)
        rest = trailing(self._reader, end)
        if rest and rest.strip(b"\0 "):
            message = f"the file goes on behind its last HDU, from byte {end}, with {rest!r}"
            self._omissions.leave_out("what follows", UnsupportedFeatureError(message))
        return ManifestGroup(self._arrays, self._groups, self._attributes)

    def _name(self, hdu: HDU) -> str:
        given, version = hdu.header.get("EXTNAME"), hdu.header.get("EXTVER")
        name = given if isinstance(given, str) else ""
        if name and isinstance(version, int) and version > 1:
            name = f"{name}_{version}"
        return unique(name or ("PRIMARY" if hdu.index == 0 else ""), self._names, str(hdu.index))

    def _add(self, hdu: HDU, name: str) -> None:
        header = hdu.header
        if not hdu.axes:
            attributes = attributes_of(header)
            if hdu.index == 0:
                self._attributes = attributes
            else:
                self._groups[name] = ManifestGroup(attributes=attributes)
        elif header.get("ZTABLE") is True:
            raise UnsupportedFeatureError("a tile-compressed table")
        elif header.get("ZIMAGE") is True and hdu.extension == "BINTABLE":
            self._arrays[name] = TiledImage.of(hdu).array(name, self._reader, self._sources)
        elif hdu.extension in IMAGES:
            self._arrays[name] = image(hdu, name, self._sources)
        elif hdu.extension in KINDS:
            self._groups[name] = self._table(Table.of(hdu), name)
        else:
            raise UnsupportedFeatureError(f"an extension of the unknown type {hdu.extension!r}")

    def _table(self, table: Table, name: str) -> ManifestGroup:
        arrays: dict[str, ManifestArray] = {}
        taken: set[str] = set()
        for column in table.columns:
            label = unique(column.name, taken, str(column.number))
            taken.add(label)
            path = f"{name}/{label}"
            if self._omissions.drops(path, label):
                continue
            with self._omissions.attempt(path):
                arrays[label] = table.array(column, label, self._sources)
        attributes = attributes_of(table.hdu.header, TABLE_STRUCTURE)
        described = {column.keyword(key) for column in table.columns for key in DESCRIPTIVE}
        return ManifestGroup(arrays, attributes={k: v for k, v in attributes.items() if k not in described})
