"""Labels: what coordinates say, those that are written and those in an Icechunk store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.attributes import from_zarr
from virtualchunks.group import ManifestGroup
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.writers.icechunk.nodes import Nodes, join

if TYPE_CHECKING:
    import pandas as pd
    import xarray


def stored_encodings(tree: Any, nodes: Nodes, root: str) -> dict[str, dict[str, Any]]:
    """Return how the stored arrays are encoded, for the loaded variables that are added to them.

    Parameters
    ----------
    tree
        A ManifestGroup, which is encoded already, or an xarray Dataset or DataTree.
    nodes
        The store.
    root
        Path of the group to write to.

    Returns
    -------
    dict
        xarray's encodings, by path within `tree`.
    """
    if isinstance(tree, ManifestGroup):
        return {}
    found = {}
    for path, dataset in _datasets(tree).items():
        for name in dataset.variables:
            inner = join(path, str(name))
            existing = nodes.array(join(root, inner))
            if existing is not None:
                found[inner] = _encoding(existing)
    return found


def _encoding(existing: ArrayMetadata) -> dict[str, Any]:
    attributes = from_zarr(existing.attributes, existing.dtype)
    encoding = {key: value for key, value in attributes.items() if key != "dtype"}
    if existing.dtype.kind in "biufc":  # text keeps its own dtype: converting it would spell None out
        encoding["dtype"] = existing.dtype
    return encoding


def _datasets(tree: Any) -> dict[str, xarray.Dataset]:
    if hasattr(tree, "subtree"):
        return {node.path.strip("/"): node.to_dataset(inherit=False) for node in tree.subtree}
    return {"": tree}


def own_labels(tree: ManifestGroup, path: str, name: str, registry: ObjectStoreRegistry | None) -> pd.Index[Any] | None:
    """Return the labels along a dimension of what is written.

    Parameters
    ----------
    tree
        The root of what is written.
    path
        The group in it that has the dimension; its coordinate may be that group's or one's above.
    name
        Name of the dimension.
    registry
        What may be read, for coordinates that are references; without it, they count as not there.
    """
    for folder in _upwards(path):
        group = tree.get(folder) if folder else tree
        array = group.arrays.get(name) if isinstance(group, ManifestGroup) else None
        if array is None:
            continue
        if _is_referring(array) and registry is None:
            return None
        values = read_values(array, registry or ObjectStoreRegistry(), name=join(folder, name))
        return _index(values, array.metadata.attributes, name)
    return None


def stored_labels(nodes: Nodes, path: str, name: str) -> pd.Index[Any] | None:
    """Return the labels along a dimension of a stored group; the coordinate may be that group's or one's above."""
    for folder in _upwards(path):
        existing = nodes.array(join(folder, name))
        if existing is not None:
            return _index(nodes.values(join(folder, name)), from_zarr(existing.attributes, existing.dtype), name)
    return None


def _upwards(path: str) -> list[str]:
    parts = path.split("/") if path else []
    return ["/".join(parts[:count]) for count in range(len(parts), -1, -1)]


def _is_referring(array: ManifestArray) -> bool:
    return any(True for _ in array.manifest.iter_nonempty_paths())


def _index(values: npt.NDArray[Any], attributes: Mapping[str, Any], name: str) -> pd.Index[Any] | None:
    """Return stored values as labels, decoded as xarray decodes coordinates; ``None`` if they have not one axis."""
    import xarray as xr

    if np.ndim(values) != 1:
        return None
    encoded = xr.Dataset(coords={name: (name, values, dict(attributes))})
    try:
        return xr.decode_cf(encoded).indexes[name]
    except (ValueError, OverflowError):  # units that xarray has no dates for; both sides have the same
        return encoded.indexes[name]
