"""Zarr stores for tests, and what zarr-python sees in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from virtualchunks.array import ManifestArray
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.store import ManifestStore
from virtualchunks_parsers.zarr.nodes import ROOT_ARRAY


def zarr_arrays(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the arrays of a node opened by zarr-python, with the paths that the parser gives them."""
    if isinstance(node, zarr.Array):
        yield path or ROOT_ARRAY, node
        return
    for name, array in node.arrays():
        yield f"{path}/{name}".lstrip("/"), array
    for name, group in node.groups():
        yield from zarr_arrays(group, f"{path}/{name}".lstrip("/"))


def zarr_values(store: Any) -> dict[str, npt.NDArray[Any]]:
    """Return what zarr-python reads of a store."""
    return {path: np.asarray(array[...]) for path, array in zarr_arrays(zarr.open(store, mode="r"))}


def values_of(store: ManifestStore) -> dict[str, npt.NDArray[Any]]:
    """Return the values of all arrays, read through their references."""
    return {
        path: np.asarray(read_values(array, store.registry, name=path)) for path, array in store.group.walk_arrays()
    }


def assert_same(found: dict[str, npt.NDArray[Any]], expected: dict[str, npt.NDArray[Any]]) -> None:
    """Check that the same arrays are there, with the same values."""
    assert sorted(found) == sorted(expected)
    for path, values in found.items():
        reference = expected[path]
        if values.dtype.kind in "TO" or reference.dtype.kind in "TO":
            assert values.shape == reference.shape, path
            assert values.reshape(-1).tolist() == reference.reshape(-1).tolist(), path
        else:
            assert values.dtype == reference.dtype.newbyteorder("="), path
            np.testing.assert_array_equal(values, reference, err_msg=path)


def array_at(store: ManifestStore, path: str) -> ManifestArray:
    """Return one array."""
    found = store.group[path]
    assert isinstance(found, ManifestArray)
    return found


def group_at(store: ManifestStore, path: str) -> ManifestGroup:
    """Return one group."""
    found = store.group[path]
    assert isinstance(found, ManifestGroup)
    return found


def memory_objects(registry_url: str, folder: Path) -> ObjectStoreRegistry:
    """Copy a folder into a store in memory, registered under a URL."""
    from obstore.store import MemoryStore

    store = MemoryStore()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(f"store/{path.relative_to(folder)}", path.read_bytes())
    return ObjectStoreRegistry({registry_url: store})
