"""Scientific data sets: arrays with dimensions and attributes, as the SD interface sees them.

Files of the SD interface describe each data set by a Vgroup of the class ``Var0.0``, whose members are its dimensions,
its attributes and a numeric data group. Files of the older DFSD interface have the numeric data groups alone.

References
----------
HDF Specification and Developer's Guide 4.2, chapters 3 and 9.3.7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from virtualchunks.errors import FormatError, UnsupportedFeatureError
from virtualchunks_parsers.hdf4.descriptors import Descriptor, Directory, Key
from virtualchunks_parsers.hdf4.elements import Stored, stored
from virtualchunks_parsers.hdf4.vdata import (
    TYPES,
    VDATA_HEADER,
    VGROUP,
    Vdata,
    Vgroup,
    read_header,
    read_records,
    read_vdata,
    read_vgroup,
)

NUMBER_TYPE, DIMENSIONS, DATA, SCALES = 106, 701, 702, 703
#: Text that the DFSD interface keeps for the data and each dimension, and the attributes that they become.
TEXTS = {704: "long_name", 705: "units", 706: "format"}
NUMERIC_GROUPS = (720, 700)

FILE, VARIABLE, ATTRIBUTE = "CDF0.0", "Var0.0", "Attr0.0"
FIXED, UNLIMITED = "Dim0.0", "UDim0.0"

#: What is called for an attribute that is left out: its owner, its name, and why.
Report = Callable[[str, str, UnsupportedFeatureError], None]

BIG, LITTLE = 1, 4
MOST_AXES = 32
UNSIGNED_CHARACTER = 3


@dataclass(frozen=True)
class DataSet:
    """One array.

    Attributes
    ----------
    name
        As the SD interface gives it.
    shape, dtype
        Of the stored values, with their byte order.
    dimensions
        Names, as the file has them.
    attributes
        By name.
    data
        The descriptor of its data; ``None`` where nothing was written.
    window
        Which bytes of the data are its own, where it shares them: offset and length.
    ref
        Reference number of its numeric data group, by which groups name it; 0 where it has none of its own.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dimensions: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    data: Descriptor | None = None
    window: tuple[int, int] | None = None
    ref: int = 0


@dataclass(frozen=True)
class Numeric:
    """What a numeric data group says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    data: Descriptor | None
    others: Mapping[int, Descriptor | None]


class DataSets:
    """The data sets of a file.

    Parameters
    ----------
    directory
        The file.
    report
        Called for an attribute that is left out: with the name of what has it, empty for the file, its own name, and
        the reason.
    """

    def __init__(self, directory: Directory, report: Report) -> None:
        self._directory = directory
        self._report = report
        self.groups = {entry.ref: read_vgroup(directory, entry) for entry in directory.of_tag(VGROUP) if entry.length}
        self._file = next((group for group in self.groups.values() if group.kind == FILE), None)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the file."""
        return {} if self._file is None else self.read_attributes("", self._file.members)

    def __iter__(self) -> Iterator[DataSet | tuple[str, UnsupportedFeatureError]]:
        """Iterate over the data sets; one that is not understood comes as its name and the reason."""
        if self._file is None:
            yield from self._of_numeric_groups()
            return
        for tag, ref in self._file.members:
            group = self.groups.get(ref) if tag == VGROUP else None
            if group is not None and group.kind == VARIABLE:
                try:
                    yield self._variable(group)
                except UnsupportedFeatureError as error:
                    yield group.name, error

    def _variable(self, group: Vgroup) -> DataSet:
        members = list(group.members)
        for tag, ref in group.members:
            if tag in NUMERIC_GROUPS:
                members += self._pairs(tag, ref)
        numeric = self._numeric(members, group.name)
        inner = (self.groups.get(ref) for tag, ref in group.members if tag == VGROUP)
        dimensions = [member for member in inner if member is not None and member.kind in (FIXED, UNLIMITED)]
        shape = numeric.shape
        if dimensions and dimensions[0].kind == UNLIMITED and numeric.data is not None:
            shape = (self._written(numeric, numeric.data), *shape[1:])
        names = [member.name for member in dimensions]
        if len(names) != len(shape):
            names = [f"{group.name}_dim{place}" for place in range(len(shape))]
        attributes = self.read_attributes(group.name, group.members)
        ref = next((ref for tag, ref in group.members if tag in NUMERIC_GROUPS), 0)
        return DataSet(group.name, shape, numeric.dtype, tuple(names), attributes, numeric.data, ref=ref)

    def _written(self, numeric: Numeric, data: Descriptor) -> int:
        """Return the length of an unlimited dimension: the records that the data hold, whatever the dimensions say."""
        found = stored(self._directory, data)
        row = math.prod(numeric.shape[1:]) * numeric.dtype.itemsize
        return found.length // row if isinstance(found, Stored) and row else numeric.shape[0]

    def _of_numeric_groups(self) -> Iterator[DataSet | tuple[str, UnsupportedFeatureError]]:
        number = 0
        seen: set[int] = set()
        for kind in NUMERIC_GROUPS:
            for entry in self._directory.of_tag(kind):
                if entry.ref in seen:
                    continue
                seen.add(entry.ref)
                name = f"Data-Set-{entry.ref}"
                try:
                    numeric = self._numeric(self._pairs(kind, entry.ref), name)
                except UnsupportedFeatureError as error:
                    yield name, error
                    continue
                dimensions = tuple(f"fakeDim{number + place}" for place in range(len(numeric.shape)))
                number += len(dimensions)
                texts = self._texts(numeric)
                if texts or numeric.others.get(SCALES) is not None:
                    yield from self._scales(numeric, dimensions)
                yield DataSet(name, numeric.shape, numeric.dtype, dimensions, texts, numeric.data, ref=entry.ref)

    def _texts(self, numeric: Numeric) -> dict[str, str]:
        """Return the label, units and format of the data."""
        found = {}
        for tag, name in TEXTS.items():
            entry = numeric.others.get(tag)
            if entry is not None and entry.length:
                found[name] = self._directory.raw(entry).split(b"\0")[0].decode("utf-8", "replace")
        return found

    def _scales(
        self, numeric: Numeric, dimensions: tuple[str, ...]
    ) -> Iterator[DataSet | tuple[str, UnsupportedFeatureError]]:
        """Iterate over the coordinates of an array, which the SD interface shows as data sets of their own."""
        entry = numeric.others.get(SCALES)
        flags = b"" if entry is None else self._directory.raw(entry)[: len(dimensions)]
        at = len(dimensions)
        for place, (name, size) in enumerate(zip(dimensions, numeric.shape, strict=True)):
            length = size * numeric.dtype.itemsize
            if entry is None:
                yield DataSet(name, (size,), numeric.dtype, (name,))
            elif flags[place : place + 1] == b"\1":
                yield DataSet(name, (size,), numeric.dtype, (name,), {}, entry, (at, length))
                at += length
            else:
                yield name, UnsupportedFeatureError("a scale that was not written beside others that were")

    def _pairs(self, tag: int, ref: int) -> list[Key]:
        """Return the members of a numeric data group."""
        entry = self._directory.find(tag, ref)
        if entry is None or not entry.length:
            return []
        unpack = self._directory.unpack(entry)
        return [unpack.take("HH") for _ in range(entry.length // 4)]

    def _numeric(self, members: list[Key], name: str) -> Numeric:
        found = {tag: self._directory.find(tag, ref) for tag, ref in reversed(members)}
        dimensions = found.get(DIMENSIONS)
        if dimensions is None:
            raise FormatError(f"{name!r} has no dimensions", url=self._directory.reader.url, variable=name)
        unpack = self._directory.unpack(dimensions)
        rank = unpack.one("H")
        if rank > MOST_AXES:
            raise UnsupportedFeatureError(f"{rank} dimensions; arrays can have {MOST_AXES}")
        shape = unpack.take(f"{rank}I")
        _, ref = unpack.take("HH")
        data = found.get(DATA)
        kind = self._directory.find(NUMBER_TYPE, ref) or found.get(NUMBER_TYPE)
        if kind is None:
            raise FormatError(f"{name!r} has no number type", url=self._directory.reader.url, variable=name)
        return Numeric(shape, self._number_type(kind), data, found)

    def _number_type(self, entry: Descriptor) -> np.dtype[Any]:
        _version, kind, _width, order = self._directory.unpack(entry).take("4B")
        dtype = TYPES.get(kind)
        if dtype is None:
            raise UnsupportedFeatureError(f"the unknown number type {kind}")
        if kind == UNSIGNED_CHARACTER:
            return np.dtype("u1")
        if dtype.itemsize > 1 and order not in (BIG, LITTLE):
            raise UnsupportedFeatureError(f"numbers in the form {order} of another machine")
        return dtype.newbyteorder("<" if order == LITTLE else ">")

    def read_attributes(self, owner: str, members: Iterable[Key]) -> dict[str, Any]:
        """Return the attributes among some members; one that is not understood is reported.

        Parameters
        ----------
        owner
            Name of what has them.
        members
            Tags and reference numbers.
        """
        found: dict[str, Any] = {}
        for tag, ref in members:
            entry = self._directory.find(VDATA_HEADER, ref) if tag == VDATA_HEADER else None
            header = None if entry is None else read_header(self._directory, entry)
            if entry is None or header is None or header.kind != ATTRIBUTE:
                continue
            try:
                found[header.name] = self._value(read_vdata(self._directory, entry))
            except UnsupportedFeatureError as error:
                self._report(owner, header.name, error)
        return found

    def _value(self, table: Vdata) -> Any:
        records = read_records(self._directory, table)
        values = records[records.dtype.names[0]] if records.dtype.names else records
        if values.dtype.kind == "S":
            return (
                b"".join(value.ljust(values.dtype.itemsize, b"\0") for value in values.tolist())
                .decode("utf-8", "replace")
                .rstrip("\0")
            )
        flat = values.reshape(-1)
        native = flat.astype(flat.dtype.newbyteorder("="))
        return native[0] if native.size == 1 else native


def with_distinct_sizes(datasets: list[DataSet]) -> list[DataSet]:
    """Return data sets in which one name of a dimension stands for one size.

    Unlimited dimensions have one name and, for each array, the size to which it was written. The first size keeps the
    name.
    """
    sizes: dict[str, int] = {}
    made = []
    for dataset in datasets:
        names = []
        for name, size in zip(dataset.dimensions, dataset.shape, strict=True):
            label = name if sizes.setdefault(name, size) == size else f"{name}_{size}"
            sizes.setdefault(label, size)
            names.append(label)
        made.append(replace(dataset, dimensions=tuple(names)))
    return made
