"""HDF4Parser: one file → one group of arrays of chunk references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from virtualchunks.array import ManifestArray
from virtualchunks.errors import VirtualChunksError
from virtualchunks.group import ManifestGroup, no_group
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.base import FileParser, Omissions
from virtualchunks_parsers.hdf4.arrays import Arrays
from virtualchunks_parsers.hdf4.datasets import DataSet, DataSets, with_distinct_sizes
from virtualchunks_parsers.hdf4.descriptors import MAGIC, Directory
from virtualchunks_parsers.hdf4.eos import coordinate_arrays


@dataclass(frozen=True, kw_only=True)
class HDF4Parser(FileParser):
    """Reads the scientific data sets of an HDF4 file as arrays of chunk references.

    Parameters
    ----------
    group
        Must be empty: the arrays of a file form one group.
    drop_variables
        Names of arrays to leave out.
    strict
        Whether to raise where an array cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.

    Notes
    -----
    Data in linked blocks that do not hold whole rows, and compressed data in several blocks, are read while the file is
    parsed and kept in memory.

    Examples
    --------
    >>> HDF4Parser(drop_variables=["fire mask"])
    HDF4Parser(group=None, drop_variables=('fire mask',), strict=False)
    """

    name: ClassVar[str] = "HDF4"
    suffixes: ClassVar[tuple[str, ...]] = (".hdf", ".hdf4")
    reads: ClassVar[tuple[str, ...]] = (
        "scientific data sets of the SD and DFSD interfaces, contiguous, in linked blocks, or in chunks",
        "deflate and run-length encoding",
        "dimension names, dimension scales, attributes of data sets and of the file",
        "data never written, as fill values",
        "coordinates of HDF-EOS2 grids, from the corners of the grid",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "skipping Huffman, n-bit, szip and JPEG compression",
        "data in other files",
        "numbers in the form of other machines (VAX, Cray)",
    )

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so is HDF4."""
        return head.startswith(MAGIC)

    def _read(self, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        with ObjectReader(registry, url) as reader:
            if self._path:
                raise no_group(self.group, (), reader.url)
            return _tree(reader, self._omissions(reader.url))


def _tree(reader: ObjectReader, omissions: Omissions) -> ManifestGroup:
    try:
        directory = Directory(reader)
        found = DataSets(directory)
        attributes = found.attributes()
        datasets = _listed(found, omissions)
    except VirtualChunksError as error:
        omissions.place(error)
        raise
    arrays = Arrays(directory, SourceTable.single(reader.url, reader.stamp))
    made: dict[str, ManifestArray] = {}
    for name, dataset in _named(with_distinct_sizes(datasets)):
        if omissions.drops(name):
            continue
        with omissions.attempt(name):
            made[name] = arrays.array(dataset)
    coordinates = coordinate_arrays(attributes, datasets)
    made.update({name: array for name, array in coordinates.items() if not omissions.drops(name)})
    return ManifestGroup(made, attributes=attributes)


def _listed(found: DataSets, omissions: Omissions) -> list[DataSet]:
    listed = []
    for item in found:
        if isinstance(item, DataSet):
            listed.append(item)
        elif not omissions.drops(item[0], item[0]):
            with omissions.attempt(item[0]):
                raise item[1]
    return listed


def _named(datasets: list[DataSet]) -> list[tuple[str, DataSet]]:
    """Return data sets with names that Zarr allows, each once."""
    taken: set[str] = set()
    named = []
    for number, dataset in enumerate(datasets):
        name = dataset.name.strip().replace("/", "_") or f"Data-Set-{number}"
        while name in taken or name in (".", "..") or name.startswith("__"):
            name = f"{name}_{number}" if name in taken else f"HDF4{name}"
        taken.add(name)
        named.append((name, dataset))
    return named
