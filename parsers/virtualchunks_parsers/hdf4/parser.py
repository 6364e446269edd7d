"""HDF4Parser: one file → one group of arrays of chunk references."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from virtualchunks.array import ManifestArray
from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import SourceTable
from virtualchunks.store import ManifestStore
from virtualchunks.urls import as_url
from virtualchunks_parsers.hdf4.arrays import Arrays
from virtualchunks_parsers.hdf4.datasets import DataSet, DataSets, with_distinct_sizes
from virtualchunks_parsers.hdf4.descriptors import MAGIC, Directory
from virtualchunks_parsers.hdf4.eos import coordinate_arrays

#: Why one array may be left out while the others are read.
LEFT_OUT = (UnsupportedFeatureError, LimitExceededError)


@dataclass(frozen=True, kw_only=True)
class HDF4Parser:
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

    group: str | None = None
    drop_variables: Iterable[str] | None = ()
    strict: bool = False
    _dropped: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = self.drop_variables
        names = () if given is None else (given,) if isinstance(given, str) else tuple(given)
        object.__setattr__(self, "drop_variables", names)
        object.__setattr__(self, "_dropped", frozenset(name.strip("/") for name in names))

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file that begins so is HDF4."""
        return head.startswith(MAGIC)

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
            If the file is not HDF4, truncated or corrupt, or has no such group.
        NotGrantedError, ReadError
            If the file cannot be read.
        UnsupportedFeatureError, LimitExceededError
            With `strict`, if an array cannot be represented.
        """
        granted = self._granted(url, registry)
        return ManifestStore(self.parse(url, granted), registry=granted)

    def parse(self, url: str, registry: Any = None) -> ManifestGroup:
        """Parse a file, as calling the parser does, and return the group itself."""
        with ObjectReader(self._granted(url, registry), as_url(url)) as reader:
            if (self.group or "").strip("/"):
                raise FormatError(f"no group {self.group!r}; the arrays of an HDF4 file form one", url=reader.url)
            return self._tree(reader)

    def _granted(self, url: str, registry: Any) -> ObjectStoreRegistry:
        known = ObjectStoreRegistry.coerce(registry)
        return known.grant(url) if registry is None else known

    def _tree(self, reader: ObjectReader) -> ManifestGroup:
        try:
            directory = Directory(reader)
            found = DataSets(directory)
            attributes = found.attributes()
            datasets = self._listed(found, reader)
        except VirtualChunksError as error:
            error.url = error.url or reader.url
            raise
        arrays = Arrays(directory, SourceTable.single(reader.url, reader.stamp))
        made: dict[str, ManifestArray] = {}
        for name, dataset in _named(with_distinct_sizes(datasets)):
            if name in self._dropped:
                continue
            try:
                made[name] = arrays.array(dataset)
            except VirtualChunksError as error:
                self._leave_out(name, error, reader)
        made.update({k: v for k, v in coordinate_arrays(attributes, datasets).items() if k not in self._dropped})
        return ManifestGroup(made, attributes=attributes)

    def _listed(self, found: DataSets, reader: ObjectReader) -> list[DataSet]:
        listed = []
        for item in found:
            if isinstance(item, DataSet):
                listed.append(item)
            elif item[0] not in self._dropped:
                self._leave_out(item[0], item[1], reader)
        return listed

    def _leave_out(self, name: str, error: VirtualChunksError, reader: ObjectReader) -> None:
        """Say that an array is left out, or raise if nothing may be, or the file is corrupt."""
        error.url = error.url or reader.url
        error.variable = error.variable or name
        if self.strict or not isinstance(error, LEFT_OUT):
            raise error
        message = f"{name!r} of {reader.url} is left out: {error.message}"
        warnings.warn(UnsupportedArrayWarning(message), stacklevel=2)


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
