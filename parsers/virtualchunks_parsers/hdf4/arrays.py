"""Arrays of chunk references from data sets: where their bytes are, and how they decode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding, Codec
from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.records import MISSING, RECORD, WIDE_RECORD
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.hdf4.datasets import DataSet
from virtualchunks_parsers.hdf4.descriptors import Directory
from virtualchunks_parsers.hdf4.elements import Chunks, Pieces, Stored, plain, stored, trimmed
from virtualchunks_parsers.hdf4.vdata import VDATA_HEADER, read_pieces, read_records, read_vdata

#: What netCDF fills with, by type; HDF4's SD interface does the same.
DEFAULT_FILL: dict[str, float] = {"i1": -127, "i2": -32767, "i4": -2147483647, "f4": 9.969209968386869e36}
#: Linked blocks are cut to one length if that makes no more chunks than this.
MOST_CUTS = 10_000
#: Arrays in linked blocks of several lengths are kept in memory up to so many bytes.
SMALL = 1 << 20
#: The most chunks of one array.
MOST_CHUNKS = 5_000_000
#: What calibration of the SD interface stores beside the scale and the offset.
_CALIBRATION = frozenset({"scale_factor_err", "add_offset_err", "calibrated_nt"})


class Arrays:
    """Makes arrays of data sets.

    Parameters
    ----------
    directory
        The file.
    sources
        The file, as a table of one row.
    """

    def __init__(self, directory: Directory, sources: SourceTable) -> None:
        self._directory = directory
        self._sources = sources

    def array(self, dataset: DataSet) -> ManifestArray:
        """Return the array of a data set.

        Raises
        ------
        FormatError
            If its description does not fit its data.
        UnsupportedFeatureError, LimitExceededError
            If it cannot be represented.
        """
        fill = fill_value(dataset)
        if dataset.data is None or 0 in dataset.shape:
            return self._missing(dataset, fill)
        found = stored(self._directory, dataset.data)
        if isinstance(found, Chunks):
            return self._chunked(dataset, found, fill)
        if dataset.window is not None:
            found = _cut(found, *dataset.window)
        if not found.pieces:
            return self._missing(dataset, fill)
        nbytes = math.prod(dataset.shape) * dataset.dtype.itemsize
        if found.length < nbytes or (found.codecs and found.length != nbytes):
            raise UnsupportedFeatureError(f"{found.length} bytes of data for {nbytes} bytes of values")
        return self._pieces(dataset, found, fill, nbytes)

    def _metadata(self, dataset: DataSet, grid: ChunkGrid, codecs: tuple[Codec, ...], fill: Any) -> ArrayMetadata:
        encoding = ChunkEncoding.plain(dataset.dtype, codecs)
        return ArrayMetadata(
            grid, dataset.dtype.newbyteorder("="), encoding, fill, dataset.dimensions, in_cf_terms(dataset.attributes)
        )

    def _missing(self, dataset: DataSet, fill: Any) -> ManifestArray:
        grid = ChunkGrid.regular(dataset.shape, [max(1, size) for size in dataset.shape])
        return ManifestArray(self._metadata(dataset, grid, (), fill), ChunkManifest.missing(grid.grid_shape))

    def _pieces(self, dataset: DataSet, found: Stored, fill: Any, nbytes: int) -> ManifestArray:
        """Return an array that is not chunked: one chunk, or some for each linked block that holds whole rows."""
        whole = ChunkGrid.regular(dataset.shape, dataset.shape)
        metadata = self._metadata(dataset, whole, found.codecs, fill)
        if len(found.pieces) == 1:
            offset, length = found.pieces[0]
            records = _records([offset], [length if found.codecs else nbytes])
            return ManifestArray(metadata, ChunkManifest.from_records(records.reshape(whole.grid_shape), self._sources))
        if found.codecs:
            return self._kept(metadata, found.pieces)
        row = nbytes // dataset.shape[0] if dataset.shape else nbytes
        cut = _regular(found.pieces, row, nbytes)
        if cut is not None:
            rows, offsets = cut
            grid = whole.replace(0, Axis(dataset.shape[0], chunk=rows))
            records = _records(offsets, [rows * row] * len(offsets))
        else:
            pieces = trimmed(found.pieces, nbytes)
            if nbytes <= SMALL or any(length % row for _, length in pieces):
                return self._kept(metadata, pieces)
            grid = whole.replace(0, Axis.from_edges([length // row for _, length in pieces]))
            records = _records([offset for offset, _ in pieces], [length for _, length in pieces])
        manifest = ChunkManifest.from_records(records.reshape(grid.grid_shape), self._sources)
        return ManifestArray(metadata.replace(grid=grid), manifest)

    def _kept(self, metadata: ArrayMetadata, pieces: Pieces) -> ManifestArray:
        """Return an array of one chunk, whose bytes are read now and kept in memory."""
        data = read_pieces(self._directory, pieces)
        return ManifestArray(metadata, ChunkManifest.of_buffers([data], metadata.grid.grid_shape))

    def _chunked(self, dataset: DataSet, chunks: Chunks, fill: Any) -> ManifestArray:
        if len(chunks.shape) != len(dataset.shape):
            raise FormatError(f"chunks of {len(chunks.shape)} dimensions for {len(dataset.shape)}")
        nbytes = math.prod(chunks.chunk_shape) * dataset.dtype.itemsize
        grid = ChunkGrid.regular(dataset.shape, chunks.chunk_shape)
        if grid.size > MOST_CHUNKS:
            raise LimitExceededError(f"a grid of {grid.size} chunks")
        records = np.zeros(grid.size, dtype=WIDE_RECORD)
        records["source"] = MISSING
        codecs: set[tuple[str, ...]] = set()
        used: tuple[Codec, ...] = ()
        buffers: list[bytes] = []
        for index, found in self._members(chunks, grid):
            if not found.pieces:
                continue
            if found.length != nbytes:
                raise FormatError(f"a chunk of {found.length} bytes, not {nbytes}")
            used = found.codecs
            codecs.add(tuple(map(str, used)))
            if len(found.pieces) == 1:
                offset, length = found.pieces[0]
                records[index] = (0, length, offset)
            else:
                buffers.append(read_pieces(self._directory, found.pieces))
                records[index] = (len(buffers), len(buffers[-1]), 0)
        if len(codecs) > 1:
            raise UnsupportedFeatureError("chunks some of which are compressed in another way than others")
        sources = self._sources
        if buffers:
            sources = SourceTable.concat([sources, SourceTable.of_buffers(buffers)])
        if fill is None and len(chunks.fill) == dataset.dtype.itemsize:
            fill = np.frombuffer(chunks.fill, dtype=dataset.dtype)[0]
        if records["length"].max(initial=0) < 2**32:
            records = records.astype(RECORD)
        metadata = self._metadata(dataset, grid, used, fill)
        return ManifestArray(metadata, ChunkManifest.from_records(records.reshape(grid.grid_shape), sources))

    def _members(self, chunks: Chunks, grid: ChunkGrid) -> list[tuple[int, Stored]]:
        """Return the chunks that were written, by their place in the grid."""
        entry = self._directory.find(VDATA_HEADER, chunks.table)
        if entry is None:
            raise FormatError("chunks without the table that lists them", url=self._directory.reader.url)
        table = read_vdata(self._directory, entry)
        rows = read_records(self._directory, table)
        names = rows.dtype.names or ()
        if len(names) != 3:
            raise FormatError(f"a table of chunks with the fields {names}", url=self._directory.reader.url)
        if rows[names[0]].size != len(rows) * grid.ndim:
            raise FormatError("a table of chunks with places of other dimensions", url=self._directory.reader.url)
        origins = rows[names[0]].reshape(len(rows), grid.ndim).astype(np.int64)
        inside = ((origins >= 0) & (origins < np.array(grid.grid_shape))).all(axis=1)
        members = []
        for origin, tag, ref, is_inside in zip(
            origins.tolist(), rows[names[1]].tolist(), rows[names[2]].tolist(), inside.tolist(), strict=True
        ):
            member = self._directory.find(tag, ref)
            if member is None or not is_inside:
                if tag in (0, 1) or not is_inside:
                    continue
                raise FormatError(f"the chunk at {origin} is not there", url=self._directory.reader.url)
            members.append((int(np.ravel_multi_index(origin, grid.grid_shape)), plain(self._directory, member)))
        return members


def in_cf_terms(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return attributes in which calibration means what it means in CF, and so to xarray.

    The SD interface calibrates as ``scale_factor * (stored - add_offset)``, and CF unpacks as
    ``scale_factor * stored + add_offset``. Calibration of the SD interface is known by what it stores beside the two:
    their errors and the calibrated type.
    Source: HDF4 Reference Manual, SDsetcal.

    Examples
    --------
    >>> calibration = {"scale_factor": 0.5, "add_offset": 10.0, "calibrated_nt": 5}
    >>> in_cf_terms(calibration)["add_offset"]
    -5.0
    """
    if not {"scale_factor", "add_offset"} <= attributes.keys() or not _CALIBRATION & attributes.keys():
        return attributes
    scale, offset = attributes["scale_factor"], attributes["add_offset"]
    return {**attributes, "add_offset": -(scale * offset)} if offset else attributes


def fill_value(dataset: DataSet) -> Any:
    """Return what the SD interface fills an array with."""
    given = dataset.attributes.get("_FillValue")
    native = dataset.dtype.newbyteorder("=")
    if isinstance(given, np.generic) and given.dtype == native:
        return given
    if native.kind == "f" and native.itemsize == 8:
        return native.type(DEFAULT_FILL["f4"])
    signed = native.str[1:].replace("u", "i")
    if signed not in DEFAULT_FILL:
        return None
    return np.array(DEFAULT_FILL[signed], dtype=signed).view(native)[()]


def _cut(found: Stored, offset: int, length: int) -> Stored:
    if found.codecs or len(found.pieces) != 1 or offset + length > found.length:
        raise UnsupportedFeatureError("scales that are not in one piece")
    return Stored([(found.pieces[0][0] + offset, length)], (), length)


def _regular(pieces: Pieces, row: int, nbytes: int) -> tuple[int, list[int]] | None:
    """Cut pieces into chunks of one length: return its rows and the offsets, or ``None`` where there is none.

    The last chunk may overhang the array as far as its piece has room.
    """
    lengths = [length for _, length in pieces]
    if any(length % row for length in lengths[:-1]):
        return None
    rows = math.gcd(*(length // row for length in lengths[:-1]))
    step, offsets = rows * row, list[int]()
    if nbytes // step > MOST_CUTS:
        return None
    for offset, length in pieces:
        used = min(length, nbytes)
        if -(-used // step) * step > length:
            return None
        offsets += range(offset, offset + used, step)
        nbytes -= used
    return rows, offsets


def _records(offsets: npt.ArrayLike, lengths: npt.ArrayLike) -> npt.NDArray[Any]:
    sizes = np.asarray(lengths, dtype=np.uint64)
    records = np.zeros(sizes.shape, dtype=WIDE_RECORD if bool(sizes.max(initial=0) >= 2**32) else RECORD)
    records["offset"], records["length"] = offsets, sizes
    return records
