"""HDF4Parser: one file → one group of arrays of chunk references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from virtualchunks.array import ManifestArray
from virtualchunks.errors import UnsupportedFeatureError, VirtualChunksError
from virtualchunks.group import ManifestGroup, subgroup
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.base import FileParser, Omissions
from virtualchunks_parsers.hdf4.arrays import Arrays
from virtualchunks_parsers.hdf4.datasets import DataSet, DataSets, with_distinct_sizes
from virtualchunks_parsers.hdf4.descriptors import MAGIC, Directory
from virtualchunks_parsers.hdf4.eos import coordinate_arrays
from virtualchunks_parsers.hdf4.groups import Groups, Member, node_name


@dataclass(frozen=True, kw_only=True)
class HDF4Parser(FileParser):
    """Reads the scientific data sets of an HDF4 file as arrays of chunk references.

    Parameters
    ----------
    group
        Path of the group that becomes the root; by default the root, in which all data sets are.
    drop_variables
        Names of arrays to leave out wherever they are, or paths of arrays and groups, such as ``"/Swath/scanTime"``.
    strict
        Whether to raise where an array cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.

    Notes
    -----
    The root has all data sets, as the SD interface has them. Vgroups in which some of them are become groups, with the
    same arrays again: those that the user of a library made, and the grids, swaths and fields of HDF-EOS2. Raster
    images and tables (Vdatas) are no data sets, and are not looked at.

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
        "dimension names, dimension scales, attributes of data sets, of groups and of the file",
        "Vgroups of data sets as groups, HDF-EOS2's grids and swaths among them; the root has all data sets, too",
        "data never written, as fill values",
        "coordinates of HDF-EOS2 grids, from the corners of the grid",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "skipping Huffman, n-bit, szip and JPEG compression",
        "data in other files",
        "numbers in the form of other machines (VAX, Cray); attributes of such or unknown types",
    )

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so is HDF4."""
        return head.startswith(MAGIC)

    def _read(self, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        with ObjectReader(registry, url) as reader:
            return subgroup(_tree(reader, self._omissions(reader.url)), self.group, reader.url)


def _tree(reader: ObjectReader, omissions: Omissions) -> ManifestGroup:
    def left_out(owner: str, name: str, error: UnsupportedFeatureError) -> None:
        omissions.leave_out(owner or "/", error, f"the attribute {name!r} of {owner or '/'!r}")

    try:
        directory = Directory(reader)
        found = DataSets(directory, left_out)
        attributes = found.attributes()
        datasets = _listed(found, omissions)
    except VirtualChunksError as error:
        omissions.place(error)
        raise
    arrays = Arrays(directory, SourceTable.single(reader.url, reader.stamp))
    made: dict[str, ManifestArray] = {}
    members: dict[int, Member] = {}
    for name, dataset in _named(with_distinct_sizes(datasets)):
        if omissions.drops(name):
            continue
        with omissions.attempt(name):
            made[name] = arrays.array(dataset)
            if dataset.ref:
                members[dataset.ref] = Member(dataset.name, made[name])
    coordinates = coordinate_arrays(attributes, datasets)
    made.update({name: array for name, array in coordinates.items() if not omissions.drops(name)})
    groups = Groups(found, members, omissions).roots(set(made))
    return ManifestGroup(made, groups, attributes)


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
        name = node_name(dataset.name, f"Data-Set-{number}", number, taken)
        taken.add(name)
        named.append((name, dataset))
    return named
