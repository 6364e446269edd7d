"""Virtual datasets: arrays put together from blocks of other datasets → the records of those datasets, rearranged.

Each mapping copies one block of a source dataset to one block of the virtual one. The blocks' chunks become the
chunks of the virtual dataset, so they must fit one chunk grid, and a block must not cut through a compressed chunk;
anything else is refused. What no mapping covers is missing and reads as the virtual dataset's fill value. A source
that is not there is an error here, where the HDF5 library fills.

References
----------
HDF5 File Format Specification, version 3.0, section VIII.A, "Virtual Dataset Storage"; "HDF5 Virtual Dataset" RFC,
2014.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from h5py import h5p, h5s

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import ChunkIndexError, UnsupportedFeatureError
from virtualchunks.functions import expand_dims, squeeze
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.indexing import drop_overhang
from virtualchunks.manifest import MISSING, RECORD, WIDE_RECORD, ChunkManifest, Records
from virtualchunks.metadata import ArrayMetadata, fill_scalar, same_value
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.hdf5.file import HDF5File
from virtualchunks_parsers.hdf5.storage import Dataset, fill_value

#: The largest chunk grid that is put together.
MOST_CHUNKS = 100_000_000
#: Opens the array of a dataset by file and path.
Opener = Callable[[HDF5File, str], ManifestArray]
Block = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Piece:
    """One mapping: where in the virtual dataset a block lies, and the array that fills it.

    Attributes
    ----------
    block
        ``(start, stop)`` per dimension of the virtual dataset.
    array
        The block's chunks, of the block's shape.
    """

    block: Block
    array: ManifestArray


def extent_of(plist: Any, number: int) -> tuple[int, ...]:
    """Return the extent of the virtual dataset as one of its mappings records it."""
    return tuple(plist.get_virtual_vspace(number).get_simple_extent_dims())


def virtual(dataset: Dataset, open_array: Opener) -> ManifestArray:
    """Return a virtual dataset as an array over the chunks of its sources.

    Parameters
    ----------
    dataset
        The virtual dataset.
    open_array
        Opens a source by file and path.

    Raises
    ------
    UnsupportedFeatureError
        If a mapping is no copy of one block, or the blocks fit no chunk grid.
    """
    if dataset.element.shape:
        raise UnsupportedFeatureError("a virtual dataset of an array type")
    pieces = [_piece(dataset, number, open_array) for number in range(_plist(dataset).get_virtual_count())]
    grid = _common_grid(dataset.shape, pieces)
    if grid.size > MOST_CHUNKS:
        raise UnsupportedFeatureError(f"a virtual dataset of {grid.size} chunks")
    own = pieces[0].array.metadata.encoding if pieces else dataset.encoding()
    fill = fill_value(dataset)
    manifest = _assemble(grid, own, pieces, fill)
    return ManifestArray(ArrayMetadata(grid, dataset.element.dtype, own, fill), manifest)


def _piece(dataset: Dataset, number: int, open_array: Opener) -> Piece:
    plist = _plist(dataset)
    target = plist.get_virtual_vspace(number)
    block = block_of(target)
    source = _source_array(dataset, number, open_array)
    if source.dtype != dataset.element.dtype.newbyteorder("="):
        raise UnsupportedFeatureError(f"a source of dtype {source.dtype} for values of dtype {dataset.element.dtype}")
    selected = block_of(plist.get_virtual_srcspace(number), source.shape)
    try:
        array = source[tuple(slice(*span) for span in selected)]
        array = _reshaped(array, tuple(stop - start for start, stop in block))
    except (ChunkIndexError, UnsupportedFeatureError) as error:
        raise UnsupportedFeatureError(
            f"mapping {number} of a virtual dataset cannot be referred to: {error.message}"
        ) from error
    return Piece(block, array)


def _plist(dataset: Dataset) -> h5p.PropDCID:
    """The creation properties of a dataset, in which the HDF5 library has its mappings."""
    return dataset.found.library().get_create_plist()


def _source_array(dataset: Dataset, number: int, open_array: Opener) -> ManifestArray:
    plist = _plist(dataset)
    name, path = plist.get_virtual_filename(number), plist.get_virtual_dsetname(number)
    if "%" in name or "%" in path:
        raise UnsupportedFeatureError(f"a virtual dataset over numbered sources ({name!r}, {path!r})")
    if name == ".":
        return open_array(dataset.file, path)
    return open_array(dataset.files.open(dataset.files.url_beside(dataset.file.url, name)), path)


def block_of(space: Any, shape: Sequence[int] | None = None) -> Block:
    """Return the block that a dataspace selects.

    Parameters
    ----------
    space
        An HDF5 dataspace.
    shape
        What it extends over, where it selects everything.

    Raises
    ------
    UnsupportedFeatureError
        If it selects anything but one block.
    """
    kind = space.get_select_type()
    if kind == h5s.SEL_ALL:
        return tuple((0, int(size)) for size in (space.get_simple_extent_dims() if shape is None else shape))
    if kind != h5s.SEL_HYPERSLABS:
        raise UnsupportedFeatureError("a virtual dataset that maps single points")
    if space.is_regular_hyperslab():
        counts_and_blocks = space.get_regular_hyperslab()
        if any(int(number) >= h5s.UNLIMITED for part in counts_and_blocks[2:] for number in part):
            raise UnsupportedFeatureError("a virtual dataset whose mappings grow with their sources")
    low, high = space.get_select_bounds()
    block = tuple((int(first), int(last) + 1) for first, last in zip(low, high, strict=True))
    if int(np.prod([stop - start for start, stop in block], dtype=np.int64)) != space.get_select_npoints():
        raise UnsupportedFeatureError("a virtual dataset with a mapping that is not one block")
    return block


def _reshaped(array: ManifestArray, shape: tuple[int, ...]) -> ManifestArray:
    """Return the array with dimensions of length 1 dropped or added, so that it has this shape."""
    if array.shape == shape:
        return array
    if [size for size in array.shape if size != 1] != [size for size in shape if size != 1]:
        raise UnsupportedFeatureError(f"a block of shape {array.shape} copied to one of shape {shape}")
    single = tuple(axis for axis, size in enumerate(array.shape) if size == 1)
    squeezed = squeeze(array, axis=single) if single else array
    return expand_dims(squeezed, [axis for axis, size in enumerate(shape) if size == 1])


# ---------------------------------------------------------------------------------------------------- putting together


def _common_grid(shape: tuple[int, ...], pieces: list[Piece]) -> ChunkGrid:
    """Return the grid whose cells are the chunks of all pieces; makes the pieces end where their chunks end.

    Pieces keep an overhang at the end of the array where they all have the same one.
    """
    axes = []
    for axis, size in enumerate(shape):
        ends = {piece.array.metadata.grid.axes[axis].overhang for piece in pieces if piece.block[axis][1] == size}
        keep = ends.pop() if len(ends) == 1 else 0
        for number, piece in enumerate(pieces):
            own = piece.array.metadata.grid.axes[axis]
            if own.overhang and not (keep and piece.block[axis][1] == size):
                pieces[number] = replace(piece, array=ManifestArray._of(drop_overhang(piece.array._parts, axis)))
        axes.append(_common_axis(size, keep, axis, pieces))
    return ChunkGrid(tuple(axes))


def _common_axis(size: int, overhang: int, axis: int, pieces: Sequence[Piece]) -> Axis:
    bounds = {0, size + overhang}
    for piece in pieces:
        own = piece.array.metadata.grid.axes[axis]
        start = piece.block[axis][0]
        bounds.update((own.starts + start).tolist())
        bounds.add(start + int(own.nominal.sum()))
    edges = np.diff(sorted(bounds)).tolist()
    return Axis.from_edges(edges, size)


def _assemble(grid: ChunkGrid, own: ChunkEncoding, pieces: Sequence[Piece], fill: Any) -> ChunkManifest:
    wide = any(piece.array.manifest.records.dtype == WIDE_RECORD for piece in pieces)
    records: Records = np.zeros(grid.grid_shape, dtype=WIDE_RECORD if wide else RECORD)
    records["source"] = MISSING
    covered = np.zeros(grid.grid_shape, dtype=bool)
    tables: list[SourceTable] = []
    first = 0
    for piece in pieces:
        place = _place(grid, piece)
        manifest = piece.array.manifest
        _require_same_fill(piece, fill)
        if covered[place].any():
            raise UnsupportedFeatureError("a virtual dataset with mappings that overlap")
        covered[place] = True
        part = manifest.records.astype(records.dtype)
        part["source"][part["source"] >= 0] += first
        records[place] = part
        encoding = piece.array.metadata.encoding
        tables.append(manifest.sources if encoding == own else manifest.sources.with_encoding(encoding))
        first += len(manifest.sources)
    sources = SourceTable.concat(tables) if tables else SourceTable.empty()
    return ChunkManifest.from_records(records, sources).compact()


def _place(grid: ChunkGrid, piece: Piece) -> tuple[slice, ...]:
    """Where in the grid the chunks of a piece lie."""
    place = []
    for axis, (whole, own, (start, _)) in enumerate(
        zip(grid.axes, piece.array.metadata.grid.axes, piece.block, strict=True)
    ):
        first = int(np.searchsorted(whole.starts, start))
        cells = whole.nominal[first : first + own.count]
        if not np.array_equal(cells, own.nominal):
            raise UnsupportedFeatureError(
                f"a virtual dataset whose sources have chunks that do not line up along dimension {axis}"
            )
        place.append(slice(first, first + own.count))
    return tuple(place)


def _require_same_fill(piece: Piece, fill: Any) -> None:
    """Chunks that a source never wrote read as the source's fill value, and an array has one."""
    metadata, manifest = piece.array.metadata, piece.array.manifest
    if not manifest.present.all() and not same_value(metadata.fill_value, fill_scalar(fill, metadata.dtype)):
        raise UnsupportedFeatureError(
            f"a virtual dataset with the fill value {fill!r} over a source with missing chunks that read as "
            f"{metadata.fill_value!r}"
        )
