"""What a parse asks of the groups and datasets of a file, wherever the answers come from.

There are two sources of the same facts: :mod:`~virtualchunks_parsers.hdf5.structures` reads the file itself,
:mod:`~virtualchunks_parsers.hdf5.library` asks the HDF5 library.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from virtualchunks.errors import LimitExceededError, UnsupportedFeatureError
from virtualchunks_parsers.hdf5.format.groups import EXTERNAL, HARD, SOFT, Link

if TYPE_CHECKING:
    from h5py import h5d

    from virtualchunks_parsers.hdf5.chunkindex import StoredChunks
    from virtualchunks_parsers.hdf5.datatypes import Element
    from virtualchunks_parsers.hdf5.file import HDF5File
    from virtualchunks_parsers.hdf5.filters import HDF5Filter

__all__ = ["EXTERNAL", "HARD", "SOFT", "Books", "Description", "Group", "Link", "Object", "StoredDataset"]

#: Classes of layouts.
COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = range(4)
#: Attributes by which HDF5's dimension scales and netCDF-4 keep their books, as far as they are read.
CLASS, NAME, LIST = b"CLASS", b"NAME", b"DIMENSION_LIST"
DIMENSION, DIMENSIONS = b"_Netcdf4Dimid", b"_Netcdf4Coordinates"
HIDDEN_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"

#: What is called with the name of an attribute that cannot be had, and why.
Report = Callable[[str, UnsupportedFeatureError | LimitExceededError], None]


@dataclass(frozen=True, slots=True)
class Books:
    """What a dataset says of its dimensions.

    Attributes
    ----------
    scales
        The address of the dimension scale of each of its dimensions; ``None`` where there is none. Empty without
        scales.
    is_scale, is_hidden
        Whether it is a dimension scale, and one that stands for a dimension alone.
    dimension_id, dimension_ids
        Of a scale, netCDF-4's number of the dimension it stands for, and those of the dimensions it has.
    """

    scales: tuple[int | None, ...] = ()
    is_scale: bool = False
    is_hidden: bool = False
    dimension_id: int | None = None
    dimension_ids: tuple[int, ...] = ()


class Object(ABC):
    """An object of a file.

    Attributes
    ----------
    file
        Which holds it.
    address
        Where its header is.
    """

    file: HDF5File
    address: int

    @abstractmethod
    def attributes(self, report: Report) -> dict[str, Any]:
        """Return the attributes that are meant for people.

        Parameters
        ----------
        report
            Called for an attribute that is left out because its type has no plain value.
        """


class Group(Object):
    """A group."""

    @abstractmethod
    def links(self) -> Sequence[Link]:
        """Return its links, in the order of their making where the file keeps that."""

    @abstractmethod
    def find(self, name: bytes) -> Link | None:
        """Return the link of a name; ``None`` where there is none."""

    @abstractmethod
    def open(self, link: Link) -> Object | None:
        """Return the group or the dataset that one of its hard links leads to; ``None`` for a named type."""


class StoredDataset(Object):
    """A dataset."""

    @abstractmethod
    def extent(self) -> tuple[int, ...]:
        """Return its shape; empty for a scalar and for a null dataspace."""

    @abstractmethod
    def unlimited_axes(self) -> list[int]:
        """Return the axes that may grow without bounds."""

    @abstractmethod
    def books(self) -> Books:
        """Return what it says of its dimensions."""

    @abstractmethod
    def scale_name(self, axis: int, address: int) -> bytes | None:
        """Return the name of the scale of a dimension, searching the file; ``None`` where no link leads to it."""

    @abstractmethod
    def description(self) -> Description:
        """Return what it holds, and how.

        Raises
        ------
        UnsupportedFeatureError
            If no array can be made of that.
        """

    @abstractmethod
    def fill(self, element: Element) -> Any:
        """Return what elements read as that were never written, in the element's dtype; ``None`` for zero.

        Raises
        ------
        UnsupportedFeatureError
            If the value cannot be converted.
        """

    @abstractmethod
    def has_fill(self) -> bool:
        """Return whether it has a fill value of its own that is used."""

    @abstractmethod
    def offset(self) -> int | None:
        """Return where a contiguous dataset begins in the file; ``None`` where nothing was written."""

    @abstractmethod
    def compact(self) -> bytes:
        """Return the bytes of a compact dataset."""

    @abstractmethod
    def texts(self) -> Iterable[bytes] | None:
        """Return its strings of variable length, in order; ``None`` where :meth:`library` has to read them."""

    @abstractmethod
    def segments(self) -> list[tuple[bytes, int, int]]:
        """Return name, offset and length of the parts of other files that hold it."""

    @abstractmethod
    def chunks(self, path: str, extent: tuple[int, ...], chunk: tuple[int, ...]) -> StoredChunks | None:
        """Return its chunks; ``None`` where none was written."""

    @abstractmethod
    def library(self) -> h5d.DatasetID:
        """Return the HDF5 library's dataset."""


@dataclass(frozen=True, eq=False)
class Description:
    """What a dataset holds, and how.

    Attributes
    ----------
    element
        What its elements are.
    size
        Bytes of an element as stored.
    extent
        Its shape.
    layout
        The class of its layout.
    chunk
        Shape of its chunks; empty without chunks.
    pipeline
        Its filters, in encoding order.
    is_external
        Whether its bytes stand in other files.
    """

    element: Element
    size: int
    extent: tuple[int, ...]
    layout: int
    chunk: tuple[int, ...] = ()
    pipeline: tuple[HDF5Filter, ...] = field(default=())
    is_external: bool = False


def null_dataspace() -> UnsupportedFeatureError:
    """Return the error for a dataset without elements or a shape."""
    return UnsupportedFeatureError("it has a null dataspace, and no Zarr array has no elements at all")
