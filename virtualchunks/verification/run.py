"""Comparing what references lead to with what the format's own reader reads in the same file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.errors import MissingDependencyError, VirtualChunksError
from virtualchunks.isolation import Isolated
from virtualchunks.parsing import find_parser
from virtualchunks.reading.decode import encoding_of, placed
from virtualchunks.reading.fetch import fetch
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.verification.compare import difference
from virtualchunks.verification.places import Place, Places
from virtualchunks.verification.report import Problem, Verification
from virtualchunks.verification.structure import source_problems, structure_problems
from virtualchunks.writers.datasets import as_group
from virtualchunks.xarray.grants import recall

if TYPE_CHECKING:
    from virtualchunks.parsing import Parser
    from virtualchunks.xarray.dataset import Registry

Region = tuple[slice, ...]


class NativeReader(Protocol):
    """How a format's own library reads a part of an array of one file, as it is stored: not masked, not scaled."""

    def __call__(
        self, path: str, region: Region, span: tuple[int, int], codecs: Sequence[Mapping[str, Any]]
    ) -> npt.NDArray[Any]:
        """Read values.

        Parameters
        ----------
        path
            Path of the array, as the parser names it.
        region
            The part, as one slice per dimension.
        span
            Offset and length in the file of the chunk that holds it, in bytes.
        codecs
            How the parser says that this chunk decodes.
        """


#: What the class of a parser may have as ``native``: opens a file with the format's own library.
OpenNative = Callable[[str, ObjectStoreRegistry], AbstractContextManager[NativeReader]]


def verify(
    tree: Any,
    registry: Registry = None,
    *,
    sample: int | Literal["all"] = 64,
    against: Literal["native"] | None = "native",
    parser: Parser | str | None = None,
) -> Verification:
    """Check that references lead to the values that the files hold.

    All references are checked by themselves, without reading data: do they lie within their objects, have they a
    plausible length, do they overlap, are the objects those that were parsed (one HEAD each)? Then the values of a
    sample of chunks are compared with those that the format's own library reads in the same file: h5py, netCDF4,
    ecCodes, tifffile, astropy. Files are parsed again to find which part of which array a chunk is.

    Parameters
    ----------
    tree
        A virtual Dataset or DataTree, or a :class:`~virtualchunks.ManifestGroup`.
    registry
        What may be read; by default what was opened by name in this process.
    sample
        How many chunks to compare, evenly spread over the arrays and over each of them; ``"all"``; or 0. Each is read
        twice: through its reference, and by the library.
    against
        ``"native"``, or ``None`` to compare no values.
    parser
        The parser of the files, as for :func:`~virtualchunks.open_virtual_dataset`.

    Returns
    -------
    Verification
        Prints as text, shows in notebooks, and has ``.ok``, ``.problems`` and ``.to_dict()``.

    Raises
    ------
    NotGrantedError
        If the registry does not cover an object.

    Examples
    --------
    >>> import virtualchunks as vc
    >>> assert vc.verify(cube, sample=16).ok  # doctest: +SKIP
    """
    arrays = dict(as_group(tree).walk_arrays())
    granted = _granted(arrays, registry)
    found, sizes = source_problems(arrays, granted)
    problems = [*found, *structure_problems(arrays, sizes)]
    chunks = _sample(arrays, sample) if against is not None else []
    unverified: Counter[str] = Counter()
    compared = 0
    for url, group in _by_url(chunks).items():
        if url not in sizes:
            unverified["their object is not there"] += len(group)
            continue
        checked = _Checking(url, granted, parser).run(group)
        compared += checked.compared
        problems += checked.problems
        unverified.update(checked.unverified)
    missing = {path: _missing(array) for path, array in arrays.items() if _missing(array)}
    count = sum(len(_distant(array)) for array in arrays.values())
    return Verification(sorted(problems, key=lambda one: one.rank), count, compared, missing, dict(unverified))


def _granted(arrays: Mapping[str, ManifestArray], registry: Registry) -> ObjectStoreRegistry:
    if registry is not None:
        return ObjectStoreRegistry.coerce(registry)
    return recall(dict.fromkeys(url for array in arrays.values() for url in array.manifest.iter_nonempty_paths()))


def _missing(array: ManifestArray) -> int:
    return int(np.prod(array.manifest.shape_chunk_grid, dtype=object)) - len(array.manifest)


@dataclass(frozen=True)
class Chunk:
    """One chunk to compare.

    Parameters
    ----------
    path, array
        The array that it belongs to.
    index
        Its place in the chunk grid.
    """

    path: str
    array: ManifestArray
    index: tuple[int, ...]

    @property
    def row(self) -> int:
        """The row of the source table that it lies in."""
        return int(self.array.manifest.records[self.index]["source"])

    @property
    def span(self) -> tuple[int, int]:
        """Its offset and length, in bytes."""
        _, length, offset = self.array.manifest.records[self.index].item()
        return offset, length


def _sample(arrays: Mapping[str, ManifestArray], sample: int | str) -> list[Chunk]:
    """Return chunks that are in objects, spread evenly over the arrays and over each of them."""
    places = {path: _distant(array) for path, array in arrays.items()}
    places = {path: numbers for path, numbers in places.items() if len(numbers)}
    left = sum(map(len, places.values())) if sample == "all" else int(sample)
    chosen: list[Chunk] = []
    for number, (path, numbers) in enumerate(sorted(places.items(), key=lambda item: len(item[1]))):
        count = min(len(numbers), -(-left // (len(places) - number)))
        left -= count
        spread = np.unique(np.linspace(0, len(numbers) - 1, count).round().astype(np.int64))
        shape = arrays[path].manifest.shape_chunk_grid
        for place in numbers[spread].tolist():
            index = tuple(int(i) for i in np.unravel_index(place, shape)) if shape else ()
            chosen.append(Chunk(path, arrays[path], index))
    return chosen


def _distant(array: ManifestArray) -> npt.NDArray[np.int64]:
    """Return the numbers, in C order, of the chunks that are in objects and not in memory."""
    if not len(array.manifest):
        return np.empty(0, dtype=np.int64)
    held = np.array([not url for url in array.manifest.sources.urls] or [True], dtype=bool)
    source = array.manifest.records["source"].reshape(-1)
    return np.flatnonzero((source >= 0) & ~held[source])


def _by_url(chunks: Sequence[Chunk]) -> dict[str, list[Chunk]]:
    groups: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        groups.setdefault(chunk.array.manifest.sources.url(chunk.row), []).append(chunk)
    return groups


class _Checking:
    """The comparison of the chunks of one file."""

    def __init__(self, url: str, registry: ObjectStoreRegistry, parser: Any) -> None:
        self.url = url
        self.registry = registry
        self.parser = parser
        self.compared = 0
        self.problems: list[Problem] = []
        self.unverified: Counter[str] = Counter()

    def run(self, chunks: Sequence[Chunk]) -> _Checking:
        """Compare chunks; all of them or none, where the file cannot be read by its format's library."""
        try:
            parser = find_parser(self.url, self.registry, self.parser)
            group = parser(self.url, self.registry).group
        except VirtualChunksError as error:
            self.unverified[f"the file cannot be parsed: {error.message}"] += len(chunks)
            return self
        kind = type(parser.parser if isinstance(parser, Isolated) else parser)
        opening: OpenNative | None = getattr(kind, "native", None)
        if opening is None:
            name = getattr(kind, "name", kind.__name__)
            self.unverified[f"there is no other reader of {name} to compare with"] += len(chunks)
            return self
        places = Places.of(group, self.url)
        try:
            with opening(self.url, self.registry) as native:
                for chunk in chunks:
                    self.compare(chunk, places, native)
        except (MissingDependencyError, ImportError) as error:
            self.unverified[f"the format's own reader is not installed: {error}"] += len(chunks)
        return self

    def compare(self, chunk: Chunk, places: Places, native: NativeReader) -> None:
        """Compare one chunk."""
        start, length = chunk.span
        where = places.find(start, length, chunk.path)
        if where is None:
            message = f"bytes {start} to {start + length} are in no chunk of the file, parsed again"
            self.problems.append(Problem("elsewhere", message, chunk.path, chunk.index, self.url))
            return
        try:
            ours = self.stored(chunk)
        except VirtualChunksError as error:
            self.problems.append(Problem("unreadable", error.message, chunk.path, chunk.index, self.url))
            return
        try:
            theirs, known = self.expected(where, native)
        except (ValueError, TypeError, LookupError, RuntimeError, OSError, NotImplementedError) as error:
            self.unverified[f"the format's own reader cannot read {where.path!r}: {error}"] += 1
            return
        self.compared += 1
        first = (start - where.span[0]) // max(ours.dtype.itemsize, 1)
        found = difference(ours.reshape(-1), theirs[first : first + ours.size], known[first : first + ours.size])
        if found is not None:
            extent = (found.share, found.largest)
            self.problems.append(Problem("values", found.message, chunk.path, chunk.index, self.url, extent))

    def stored(self, chunk: Chunk) -> npt.NDArray[Any]:
        """Return the values of a chunk as they are stored, with its axes in the order in which they are stored."""
        encoding = encoding_of(chunk.array, chunk.row)
        stamp = chunk.array.manifest.sources.stamp(chunk.row) or None
        with placed(url=self.url, variable=chunk.path, chunk=chunk.index, span=chunk.span):
            [data] = fetch(self.registry, self.url, [chunk.span], stamp)
            block = decode_block(data, encoding, chunk.array.metadata.grid.nominal_shape(chunk.index))
        return block.transpose(encoding.storage_order(block.ndim)) if block.ndim else block

    def expected(self, where: Place, native: NativeReader) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the values of a whole chunk of the file in the order in which they are stored, and which are known.

        What pads a chunk beyond the edge of its array is not known.
        """
        grid, index = where.array.metadata.grid, where.index
        encoding = encoding_of(where.array, int(where.array.manifest.records[index]["source"]))
        read = native(where.path, grid.cell_slices(index), where.span, encoding.codecs)
        cell = np.asarray(read).reshape(grid.cell_shape(index))
        whole = encoding.shape if encoding.shape is not None else grid.nominal_shape(index)
        inside = tuple(slice(0, size) for size in cell.shape)
        known = np.zeros(whole, dtype=bool)
        known[inside] = True
        values = np.zeros(whole, dtype=cell.dtype)
        values[inside] = cell
        order = encoding.storage_order(len(whole))
        return values.transpose(order).reshape(-1), known.transpose(order).reshape(-1)
