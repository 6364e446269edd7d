"""Stored references in Parquet, as far as adding to them needs to know them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from virtualchunks.errors import CombineError, FormatError, TargetExistsError, UnsupportedArrayWarning
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.parsing import load_parser
from virtualchunks.writers.kerchunk.partitions import joined_tables, missing_rows, partition_name, pyarrow_of
from virtualchunks.writers.targets import Target

#: The file of the metadata documents.
METADATA = ".zmetadata"


def is_references(document: bytes) -> bool:
    """Whether a ``.zmetadata`` is that of references, not of a Zarr store."""
    try:
        return "record_size" in json.loads(document)
    except ValueError:
        return False


@dataclass(frozen=True)
class StoredReferences:
    """References in Parquet that a target holds.

    Parameters
    ----------
    place
        The target.
    document
        Its ``.zmetadata``.
    metadata
        The metadata documents in it, by key.
    record_size
        Number of references in a partition.
    generations
        By path of an array, which writing of it is stored.
    """

    place: Target
    document: bytes
    metadata: Mapping[str, dict[str, Any]]
    record_size: int
    generations: Mapping[str, str]

    @classmethod
    def of(cls, place: Target) -> StoredReferences | None:
        """Return the references that a target holds; ``None`` where there are none.

        Raises
        ------
        TargetExistsError
            If it holds something else.
        FormatError
            If they are damaged.
        """
        document = place.read_file(METADATA)
        if document is None:
            return None
        if not is_references(document):
            raise TargetExistsError(f"{place.url} is not a folder of references, so nothing is added", url=place.url)
        content = json.loads(document)
        metadata, record_size = content.get("metadata"), content["record_size"]
        if not isinstance(metadata, dict) or type(record_size) is not int or record_size < 1:
            raise FormatError(f"{METADATA!r} of {place.url} is damaged: nothing can be added", url=place.url)
        return cls(place, document, metadata, record_size, content.get("generations", {}))

    def arrays(self) -> set[str]:
        """Return the paths of the arrays."""
        return {key.removesuffix("/.zarray") for key in self.metadata if key.endswith("/.zarray")}

    def array(self, path: str) -> ArrayMetadata | None:
        """Return what a stored array is; ``None`` where there is none, or it is none that references are read as."""
        documents = {key: value for key, value in self.metadata.items() if key.rpartition("/")[0] == path}
        if f"{path}/.zarray" not in documents:
            return None
        parser: Any = load_parser("kerchunk")
        with warnings.catch_warnings(action="ignore", category=UnsupportedArrayWarning):
            tree = parser().from_dict({".zgroup": {"zarr_format": 2}, **documents}).group
        found = dict(tree.walk_arrays()).get(path)
        return None if found is None else found.metadata

    def encodings(self) -> dict[str, dict[str, Any]]:
        """Return how the stored arrays are encoded, as xarray has it, by path: for values that are added to them."""
        found = {}
        for path in self.arrays():
            zarray = self.metadata[f"{path}/.zarray"]
            found[path] = dict(self.metadata.get(f"{path}/.zattrs", {}))
            dtype = np.dtype(zarray["dtype"]) if isinstance(zarray["dtype"], str) else np.dtype("V1")
            if dtype.kind in "biufc":  # text keeps its own dtype: converting it would spell None out
                found[path]["dtype"] = dtype
            if dtype.kind in "iuf" and zarray.get("fill_value") is not None:
                found[path]["_FillValue"] = dtype.type(zarray["fill_value"])
        return found

    def merged(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of ``.zmetadata`` after arrays were added, or put in the place of stored ones.

        Raises
        ------
        CombineError
            If an array takes the place of a group, or two arrays of a group disagree about the length of a dimension.
        """
        added: Mapping[str, dict[str, Any]] = document["metadata"]
        metadata = dict(self.metadata)
        for key, value in added.items():
            path, _, name = key.rpartition("/")
            other = {".zarray": ".zgroup", ".zgroup": ".zarray"}.get(name)
            if path and other is not None and f"{path}/{other}" in self.metadata:
                raise CombineError(f"{path!r} is an array on one side and a group on the other", variable=path)
            is_group = key.removesuffix(".zattrs") + ".zgroup" in added
            metadata[key] = {**metadata.get(key, {}), **value} if is_group else value
        check_lengths(metadata)
        generations = {**self.generations, **document["generations"]}
        return {"metadata": metadata, "record_size": self.record_size, "generations": generations}

    def rows(self, path: str, start: int, stop: int) -> Any:
        """Return the references of some chunks of an array, by their number in C order, as an Arrow table.

        Raises
        ------
        FormatError
            If a partition is damaged.
        """
        made = missing_rows(0)
        for number in range(start // self.record_size, -(-stop // self.record_size)):
            first = number * self.record_size
            low, high = max(start, first), min(stop, first + self.record_size)
            made = joined_tables(made, self._part(path, number, low - first, high - first), high - low + 1)
        return made

    def _part(self, path: str, number: int, low: int, high: int) -> Any:
        arrow = pyarrow_of()
        name = partition_name(path, number)
        data = self.place.read_file(name)
        if data is None:
            return missing_rows(high - low)
        try:
            table = arrow.parquet.read_table(arrow.BufferReader(data)).slice(low, high - low)
            columns = {name: table[name] for name in table.column_names}
            blank = missing_rows(table.num_rows)
            whole = arrow.table({name: columns.get(name, blank[name]) for name in blank.column_names})
            found = whole.cast(arrow.schema([arrow.field(field.name, field.type) for field in blank.schema]))
        except (arrow.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
            raise FormatError(f"{name} of {self.place.url} is no Parquet file of references: {error}") from error
        return joined_tables(found, missing_rows(high - low - found.num_rows), high - low + 1)


def check_lengths(metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the arrays of each group agree about the length of each dimension.

    Raises
    ------
    CombineError
        If two of them do not.
    """
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for key, zarray in metadata.items():
        if not key.endswith("/.zarray"):
            continue
        path = key.removesuffix("/.zarray")
        names = metadata.get(f"{path}/.zattrs", {}).get("_ARRAY_DIMENSIONS", ())
        for name, size in zip(names, zarray["shape"], strict=False):
            first = found.setdefault((path.rpartition("/")[0], name), (size, path))
            if first[0] != size:
                raise CombineError(
                    f"the dimension {name!r} would have the length {first[0]} in {first[1]!r} and {size} in {path!r}: "
                    "write all arrays that have it at once",
                    variable=path,
                )
