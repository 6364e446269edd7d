"""HDF5Parser: one file → one tree of arrays of chunk references."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError, UnsupportedFeatureError, VirtualChunksError
from virtualchunks.group import ManifestGroup
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.signatures import format_of
from virtualchunks_parsers import native
from virtualchunks_parsers.base import FileParser, Omissions
from virtualchunks_parsers.hdf5.dimensions import DimensionNames, variable_name
from virtualchunks_parsers.hdf5.file import HDF5File, HDF5Files, hdf5_errors
from virtualchunks_parsers.hdf5.format.content import Unhandled
from virtualchunks_parsers.hdf5.inmemory import read_values
from virtualchunks_parsers.hdf5.objects import VIRTUAL, Group, StoredDataset
from virtualchunks_parsers.hdf5.storage import LAYOUTS, Dataset
from virtualchunks_parsers.hdf5.virtual import virtual
from virtualchunks_parsers.hdf5.walk import DatasetNode, GroupNode, Walk, missing_group, root_of

#: Virtual datasets over virtual datasets.
DEEPEST = 16


@dataclass(frozen=True, kw_only=True)
class HDF5Parser(FileParser):
    """Reads the structure of an HDF5 or NetCDF-4 file as arrays of chunk references.

    Parameters
    ----------
    group
        Path of the group that becomes the root; by default the file's own root.
    drop_variables
        Names of arrays to leave out wherever they are, or paths of arrays and groups, such as ``"/model/wind"``.
    strict
        Whether to raise where an array, attribute or link cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.

    Notes
    -----
    Compact datasets, text of variable length, and elements that only the HDF5 library can convert are read while the
    file is parsed and kept in memory, up to 256 MiB an array. All else stays where it is.

    Of a remote file of up to 1 MiB, one request reads everything; of a larger one, the structures of one level of the
    metadata are asked for together, whatever they belong to.

    Examples
    --------
    >>> HDF5Parser(group="/model", drop_variables=["orography"])
    HDF5Parser(group='/model', drop_variables=('orography',), strict=False)
    """

    name: ClassVar[str] = "HDF5 and NetCDF-4"
    native: ClassVar[Any] = staticmethod(native.hdf5)
    suffixes: ClassVar[tuple[str, ...]] = (
        ".nc",
        ".nc4",
        ".h5",
        ".hdf5",
        ".he5",
        ".h5ad",
        ".mat",
        ".cxi",
        ".nxs",
        ".loom",
    )

    reads: ClassVar[tuple[str, ...]] = (
        "chunked datasets: a reference for each chunk that the file holds, the others missing",
        "chunks longer than an unlimited dimension",
        "contiguous datasets: one reference",
        "compact datasets: kept in memory",
        "external storage: references into the side files, which the registry has to cover",
        "virtual datasets: references into their sources, where these fit whole chunks",
        "filter masks: chunks that skipped a filter decode as they were stored",
        "filters: shuffle, deflate, fletcher32, szip, scale-offset, n-bit, LZF, bzip2, Blosc, Blosc2, LZ4, bitshuffle, "
        "Zstandard, ZFP, and any other that the HDF5 library here decodes",
        "integers, floats, complex numbers, booleans, enumerations, in any byte order; float16",
        "text of fixed length as stored; of variable length decoded when parsed and kept in memory",
        "compound, array, opaque and bitfield types",
        "scalars, empty dimensions, user blocks",
        "dimension scales: none, one or several; dimensions without a name get one",
        "nested groups; soft, hard and external links",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "sequences of variable length other than text, and references: their elements are pointers into a heap",
        "null dataspaces: Zarr has no array without a shape",
        "virtual datasets that cut through the chunks of their sources",
        "filters that nothing here decodes",
        "text of variable length above 256 MiB in one array",
        "dangling and circular links",
    )
    native_code: ClassVar[str] = (
        "Metadata are read by code of our own, and what is damaged there is an error. The HDF5 library is asked for "
        "text of variable length in chunks, for elements and fill values that it has to convert, for virtual datasets, "
        "and for files of forms that are rare; a damaged file can make it abort, or not return."
    )

    #: Whether files are read natively where that can be; the tests compare both.
    _natively: ClassVar[bool] = True

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so is HDF5, be it behind a user block.

        Examples
        --------
        >>> HDF5Parser.recognises(b"\\x89HDF\\r\\n\\x1a\\n" + bytes(8))
        True
        """
        return format_of(head) == "hdf5"

    def _read(self, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        if not self._natively:
            return self._parse(url, registry, self._omissions(url), natively=False)
        omissions = _Postponed(url, self.drop_variables or (), self.strict)
        try:
            tree = self._parse(url, registry, omissions, natively=True)
        except Unhandled:
            return self._parse(url, registry, self._omissions(url), natively=False)
        except VirtualChunksError:
            omissions.tell_now()
            raise
        omissions.tell_now()
        return tree

    def _parse(self, url: str, registry: ObjectStoreRegistry, omissions: Omissions, *, natively: bool) -> ManifestGroup:
        with HDF5Files(registry, natively=natively) as files:
            file = files.open(url)
            return _Parse(omissions, files, file).tree(self._path)


class _Parse:
    """One parse of one file."""

    def __init__(self, omissions: Omissions, files: HDF5Files, file: HDF5File) -> None:
        self._omissions = omissions
        self._files = files
        self._file = file
        self._walk = Walk(files, self._drops, self._leave_out)

    def tree(self, path: str) -> ManifestGroup:
        with hdf5_errors(self._file.url, path or "/"):
            root = self._root(path)
        node = self._walk.root(root, f"/{path}" if path else "")
        names = DimensionNames(node, self._walk)
        return self._build(node, names)

    def _root(self, path: str) -> Group:
        try:
            found = self._walk.follow(root_of(self._file), path.encode())
        except UnsupportedFeatureError as error:
            raise missing_group(path, self._file) from error
        if not isinstance(found, Group):
            raise FormatError(f"{path!r} is no group but an array; name the group that holds it", url=self._file.url)
        return found

    def _drops(self, path: str, name: str) -> bool:
        return self._omissions.drops(path, variable_name(name))

    def _leave_out(self, path: str, error: VirtualChunksError) -> None:
        """Say that something is left out: a member of a group, or an attribute, which ``@`` marks."""
        owner, at, name = path.partition("@")
        self._omissions.leave_out(path, error, f"the attribute {name!r} of {owner!r}" if at else None)

    def _build(self, node: GroupNode, names: DimensionNames) -> ManifestGroup:
        groups = {name: self._build(group, names) for name, group in node.groups.items()}
        arrays: list[tuple[DatasetNode, ManifestArray]] = []
        for dataset in node.datasets:
            if dataset.books.is_hidden:
                continue
            with self._omissions.attempt(dataset.path):
                arrays.append((dataset, self._array(dataset.found, dataset.path)))
        dimensions = names.of_group(node, [(dataset, array.shape) for dataset, array in arrays])
        named: dict[str, ManifestArray] = {}
        for (dataset, array), labels in zip(arrays, dimensions, strict=True):
            metadata = array.metadata.replace(dimension_names=labels, attributes=dataset.attributes)
            named[variable_name(dataset.name)] = ManifestArray(metadata, array.manifest)
        labelled = zip(arrays, dimensions, strict=True)
        unlimited = {labels[axis] for (dataset, _), labels in labelled for axis in dataset.unlimited_axes()}
        return ManifestGroup(named, groups, node.attributes, unlimited)

    def _array(self, found: StoredDataset, path: str, depth: int = 0) -> ManifestArray:
        """Return the array of a dataset, without names and attributes."""
        with hdf5_errors(found.file.url, path):
            dataset = Dataset(self._files, path, found, found.description())
            if dataset.element.is_text or dataset.element.converted:
                return read_values(dataset)
            if dataset.facts.layout == VIRTUAL:
                return virtual(dataset, lambda other, name: self._source(other, name, depth + 1))
            return LAYOUTS[dataset.facts.layout](dataset)

    def _source(self, file: HDF5File, path: str, depth: int) -> ManifestArray:
        """Return the array of a dataset that a virtual one takes values from."""
        if depth > DEEPEST:
            raise UnsupportedFeatureError(f"virtual datasets over each other, more than {DEEPEST} deep")
        found = self._walk.follow(root_of(file), path.encode())
        if not isinstance(found, StoredDataset):
            raise UnsupportedFeatureError(f"{path!r} of {file.url}, a source of a virtual dataset, is no dataset")
        return self._array(found, path, depth)


@dataclass(frozen=True)
class _Postponed(Omissions):
    """Omissions of a parse that may have to begin anew: what is to be told waits until that is clear."""

    _waiting: list[tuple[str, str]] = field(default_factory=list, repr=False)

    def tell(self, what: str, reason: str) -> None:
        """Keep what is to be told."""
        self._waiting.append((what, reason))

    def tell_now(self) -> None:
        """Tell what was kept."""
        for what, reason in self._waiting:
            super().tell(what, reason)
