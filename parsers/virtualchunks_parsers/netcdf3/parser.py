"""NetCDF3Parser: one file → one group of arrays of chunk references."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import FormatError, LimitExceededError, ManifestError, UnsupportedFeatureError
from virtualchunks.grid import ChunkGrid
from virtualchunks.group import ManifestGroup, no_group
from virtualchunks.manifest import RECORD, WIDE_RECORD, ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable
from virtualchunks_parsers import native
from virtualchunks_parsers.base import LEFT_OUT, FileParser
from virtualchunks_parsers.netcdf3.header import MAGIC, WIDTHS, Header, read_header
from virtualchunks_parsers.netcdf3.layout import Layout, layouts

#: Dimensions of one array.
MOST_DIMENSIONS = 32
#: References in one array, each of 16 bytes.
MOST_CHUNKS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class NetCDF3Parser(FileParser):
    """Reads the header of a NetCDF-3 file as arrays of chunk references.

    Parameters
    ----------
    group
        For the sake of likeness with other formats: NetCDF-3 has the root group only, ``"/"``.
    drop_variables
        Names of variables to leave out.
    strict
        Whether to raise where a variable cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.

    Notes
    -----
    A variable without the record dimension is one chunk, and so is one that is alone in having it. The records of
    several variables are interleaved, and each is a chunk. No value is read. Arrays of characters stay arrays of single
    bytes, with their last dimension, as the netCDF libraries store them; xarray joins them to strings.

    Examples
    --------
    >>> NetCDF3Parser(drop_variables=["time_bnds"])
    NetCDF3Parser(group=None, drop_variables=('time_bnds',), strict=False)
    """

    name: ClassVar[str] = "NetCDF-3"
    native: ClassVar[Any] = staticmethod(native.netcdf3)
    suffixes: ClassVar[tuple[str, ...]] = (".nc", ".cdf", ".nc3", ".netcdf")
    reads: ClassVar[tuple[str, ...]] = (
        "CDF-1 (classic), CDF-2 (64-bit offset) and CDF-5 (64-bit data)",
        "fixed variables: one reference",
        "record variables: a reference for each record, or one for all where a variable is alone in having records",
        "streamed files, whose number of records follows from their size",
        "characters as single bytes with the dimension of their length, which xarray joins to strings",
        "all types of variables and attributes; names and text in UTF-8, or else Latin-1",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "truncated files: other readers show zeros where values are missing",
        "the record dimension in a place other than the first, as the netCDF library does",
    )

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so is NetCDF-3.

        Examples
        --------
        >>> NetCDF3Parser.recognises(b"CDF\\x01"), NetCDF3Parser.recognises(b"\\x89HDF")
        (True, False)
        """
        return head[:3] == MAGIC and len(head) > 3 and head[3] in WIDTHS

    def _read(self, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        with ObjectReader(registry, url) as reader:
            header = read_header(reader)
            if self._path:
                raise no_group(self.group, (), reader.url)
            return self._group(header, reader)

    def _group(self, header: Header, reader: ObjectReader) -> ManifestGroup:
        omissions = self._omissions(reader.url, (*LEFT_OUT, ManifestError))
        source = SourceTable.single(reader.url, reader.stamp)
        arrays: dict[str, ManifestArray] = {}
        for layout in layouts(header, reader.url, reader.size):
            name = layout.variable.name
            if omissions.drops(name):
                continue
            _check_inside(layout, reader)
            with omissions.attempt(name):
                arrays.update(ManifestGroup({name: _array(layout, source)}).arrays)  # a group checks names
        unlimited = {dimension.name for dimension in header.dimensions if dimension.length == 0}
        return ManifestGroup(arrays, attributes=header.attributes, unlimited_dims=unlimited)


def _check_inside(layout: Layout, reader: ObjectReader) -> None:
    if layout.end <= reader.size:
        return
    name = layout.variable.name
    raise FormatError(
        f"{name!r} has values in bytes {layout.variable.begin} to {layout.end}, but the file ends at {reader.size}: "
        "it is truncated, or was not closed after writing",
        url=reader.url,
        variable=name,
    )


def _array(layout: Layout, source: SourceTable) -> ManifestArray:
    if len(layout.shape) > MOST_DIMENSIONS:
        raise UnsupportedFeatureError(f"{len(layout.shape)} dimensions; at most {MOST_DIMENSIONS} are read")
    variable = layout.variable
    chunks = layout.shape if layout.is_contiguous or not layout.shape[0] else (1, *layout.shape[1:])
    grid = ChunkGrid.regular(layout.shape, tuple(max(1, length) for length in chunks))
    encoding = ChunkEncoding.plain(variable.dtype)
    fill = variable.attributes.get("_FillValue")
    metadata = ArrayMetadata(
        grid, variable.dtype, encoding, _fill_value(fill, variable.dtype), layout.names, variable.attributes
    )
    return ManifestArray(metadata, _manifest(layout, grid, source))


def _fill_value(attribute: Any, dtype: np.dtype[Any]) -> Any:
    """``_FillValue`` where it is one value of the variable's type; in the file itself nothing is missing."""
    if dtype.kind == "S":
        return attribute if isinstance(attribute, bytes) and len(attribute) == 1 else None
    if not isinstance(attribute, int | float):
        return None
    return attribute if dtype.kind == "f" or _is_value_of(attribute, dtype) else None


def _is_value_of(value: float, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return limits.min <= value <= limits.max and int(value) == value


def _manifest(layout: Layout, grid: ChunkGrid, source: SourceTable) -> ChunkManifest:
    if not math.prod(layout.shape):
        return ChunkManifest.missing(grid.grid_shape)
    count = grid.size
    if count > MOST_CHUNKS:
        raise LimitExceededError(f"{count} records, each of which takes a reference; at most {MOST_CHUNKS} are made")
    length = layout.nbytes * layout.shape[0] if layout.stride is not None and count == 1 else layout.nbytes
    records = np.zeros(count, dtype=RECORD if length < 2**32 else WIDE_RECORD)
    records["length"] = length
    records["offset"] = layout.variable.begin + np.arange(count, dtype=np.uint64) * np.uint64(layout.stride or 0)
    return ChunkManifest.from_records(records.reshape(grid.grid_shape), source)
