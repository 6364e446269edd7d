"""What arrays of references hold, read without a store, and whether h5py reads the same: the HDF5 parser's oracle."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.errors import VirtualChunksError
from virtualchunks.group import ManifestGroup
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import local_path
from virtualchunks_parsers.hdf5 import HDF5Parser


class LibraryParser(HDF5Parser):
    """The parser as it reads files of rare forms: through the HDF5 library alone."""

    _natively = False


class NativeParser(HDF5Parser):
    """The parser without its way out: what is not read natively raises ``Unhandled``."""

    def _read(self, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        return self._parse(url, registry, self._omissions(url), natively=True)


def decoded(array: ManifestArray) -> np.ndarray[Any, Any]:
    """Decode an array of references to local files chunk by chunk, straight from its records."""
    metadata, manifest = array.metadata, array.manifest
    values = np.full(array.shape, metadata.fill_value, dtype=metadata.dtype)
    for index in itertools.product(*map(range, metadata.grid.grid_shape)):
        entry = manifest.get_entry(index)
        if entry is None:
            continue
        number = manifest.sources.encoding_id(int(manifest.records[index]["source"]))
        encoding = manifest.sources.encodings[number - 1] if number else metadata.encoding
        block = decode_block(_bytes(entry), encoding, metadata.grid.nominal_shape(index))
        cell = metadata.grid.cell_shape(index)
        values[metadata.grid.cell_slices(index)] = block[tuple(slice(0, length) for length in cell)]
    return values


def _bytes(entry: Any) -> bytes:
    if "data" in entry:
        return bytes(entry["data"])
    with Path(local_path(entry["path"])).open("rb") as file:
        file.seek(entry["offset"])
        data = file.read(entry["length"])
    assert len(data) == entry["length"]
    return data


def same_values(expected: Any, found: Any) -> bool:
    """Return whether two arrays hold the same values, NaN equal to NaN, whatever their byte orders."""
    expected = np.asarray(expected)
    if isinstance(found, str):  # zarr's scalar of text
        found = np.array(found, dtype=np.dtypes.StringDType())
    if found.dtype.kind == "T":
        texts = [_text(item) for item in expected.ravel()]
        return expected.shape == found.shape and texts == found.ravel().tolist()
    if expected.dtype.names is not None:
        return _same_records(expected, found)
    if expected.shape != found.shape:
        return False
    if expected.dtype.kind == "V":
        return expected.tobytes() == found.tobytes()
    if expected.dtype.kind != found.dtype.kind or expected.dtype.itemsize != found.dtype.itemsize:
        return False
    return bool(np.array_equal(expected, found, equal_nan=expected.dtype.kind in "fcmM"))


def _same_records(expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> bool:
    if found.dtype.names is None or expected.dtype.names != found.dtype.names:
        return False
    return all(_same_field(expected[name], found[name]) for name in expected.dtype.names)


def _same_field(expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> bool:
    """Array members have become structs of their elements."""
    if expected.shape == found.shape:
        return same_values(expected, found)
    assert found.dtype.names is not None
    flat = expected.reshape(*found.shape, len(found.dtype.names))
    return all(same_values(flat[..., number], found[name]) for number, name in enumerate(found.dtype.names))


def _text(item: Any) -> str:
    if isinstance(item, str):
        return item
    try:
        return bytes(item).decode()
    except UnicodeDecodeError:
        return bytes(item).decode("latin-1")


def datasets(group: h5py.Group, path: str = "", above: tuple[Any, ...] = ()) -> dict[str, h5py.Dataset]:
    """Every dataset that can be reached, by path, links followed and cycles ended."""
    found: dict[str, h5py.Dataset] = {}
    for name in group:
        try:
            member = group[name]
        except (KeyError, OSError, RuntimeError):
            continue
        place = f"{path}/{name}"
        if isinstance(member, h5py.Dataset):
            found[place] = member
        elif isinstance(member, h5py.Group) and member not in above and member != group:
            found.update(datasets(member, place, (*above, group)))
    return found


def arrays(group: ManifestGroup) -> dict[str, ManifestArray]:
    """Every array of a tree, by path with a leading slash."""
    return {"/" + path: array for path, array in group.walk_arrays()}


def check(path: Path, registry: Any = None) -> ManifestGroup:
    """Assert that every array of a file reads as h5py reads it; return the tree."""
    tree = HDF5Parser().parse(str(path), registry)
    found = arrays(tree)
    with h5py.File(path, "r", locking=False) as file:
        expected = {name: dataset[...] for name, dataset in datasets(file).items()}
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert same_values(expected[name], decoded(array)), name
    return tree


def summary(group: ManifestGroup, path: str = "/") -> dict[str, tuple[Any, ...]]:
    """Everything that a tree says, by path, in a form that is compared exactly: orders, dtypes, encodings, records."""
    found: dict[str, tuple[Any, ...]] = {
        path: (list(group.arrays), list(group.groups), repr(dict(group.attributes)), sorted(group.unlimited_dims or ()))
    }
    for name, array in group.arrays.items():
        metadata, manifest = array.metadata, array.manifest
        found[f"{path}{name}"] = (
            metadata.grid,
            str(metadata.dtype),
            repr(metadata.encoding),
            repr(metadata.fill_value),
            metadata.dimension_names,
            repr(dict(metadata.attributes)),
            str(manifest.records.dtype),
            manifest.records.tobytes(),
            [_source(manifest.sources, row) for row in range(len(manifest.sources))],
            repr(manifest.sources.encodings),
        )
    for name, inner in group.groups.items():
        found.update(summary(inner, f"{path}{name}/"))
    return found


def _source(sources: Any, row: int) -> Any:
    data = sources.buffer(row)
    return (sources.url(row), sources.stamp(row), sources.encoding_id(row)) if data is None else bytes(data)


def outcome(parser: HDF5Parser, path: Path, registry: Any = None) -> tuple[Any, list[str]]:
    """What a parser makes of a file: a summary of the tree, or the class of the error; and the warnings, sorted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found: Any = summary(parser.parse(str(path), registry))
        except VirtualChunksError as error:
            found = type(error)
    return found, sorted(str(item.message) for item in caught)
