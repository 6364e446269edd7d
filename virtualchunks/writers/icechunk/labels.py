"""Labels: what the coordinates in an Icechunk store say, for data that is added to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from virtualchunks.errors import CombineError, UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.writers.icechunk.nodes import Nodes
from virtualchunks.writers.icechunk.plan import existing_array, join, natural_attributes

if TYPE_CHECKING:
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
            existing = existing_array(nodes, join(root, inner))
            if existing is not None:
                found[inner] = _encoding(existing)
    return found


def _encoding(existing: ArrayMetadata) -> dict[str, Any]:
    encoding = {key: value for key, value in natural_attributes(existing).items() if key != "dtype"}
    if existing.dtype.kind in "biufc":  # text keeps its own dtype: converting it would spell None out
        encoding["dtype"] = existing.dtype
    return encoding


def _datasets(tree: Any) -> dict[str, xarray.Dataset]:
    if hasattr(tree, "subtree"):
        return {node.path.strip("/"): node.to_dataset(inherit=False) for node in tree.subtree}
    return {"": tree}


def resolve_region(
    tree: Any, nodes: Nodes, root: str, region: Literal["auto"] | Mapping[str, slice | Literal["auto"]]
) -> dict[str, slice]:
    """Return a region as slices of indices.

    Parameters
    ----------
    tree
        What is written.
    nodes
        The store.
    root
        Path of the group to write to.
    region
        As for :func:`write_icechunk`.

    Raises
    ------
    UnsupportedFeatureError
        If labels are asked for and `tree` is no Dataset, or a slice has a step.
    CombineError
        If the labels are not consecutive ones of the stored coordinate.
    """
    wanted = dict.fromkeys(_labelled(tree), "auto") if isinstance(region, str) else dict(region)
    found = {}
    for name, part in wanted.items():
        found[name] = _by_labels(tree, nodes, root, name) if isinstance(part, str) else part
        if found[name].step not in (None, 1):
            raise UnsupportedFeatureError(f"a region is consecutive: {name!r} cannot be {found[name]}")
    return found


def _labelled(tree: Any) -> list[str]:
    """Return the dimensions of a Dataset that have labels."""
    if not hasattr(tree, "xindexes") or hasattr(tree, "subtree"):
        raise UnsupportedFeatureError("region='auto' goes by the labels of a Dataset; give slices of indices otherwise")
    return [str(name) for name in tree.dims if name in tree.xindexes]


def _by_labels(tree: Any, nodes: Nodes, root: str, name: str) -> slice:
    if name not in _labelled(tree):
        raise UnsupportedFeatureError(f"region {name!r} cannot be 'auto': the Dataset has no labels along it")
    index = _stored_index(nodes, root, name)
    places = index.get_indexer(tree.indexes[name])
    if len(places) and ((places < 0).any() or (np.diff(places) != 1).any()):
        raise CombineError(
            f"the labels along {name!r} ({tree.indexes[name][0]} to {tree.indexes[name][-1]}) are not consecutive ones "
            f"of the stored coordinate ({index[0]} to {index[-1]})",
            variable=name,
        )
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _stored_index(nodes: Nodes, root: str, name: str) -> Any:
    import xarray as xr
    import zarr

    with zarr.config.set({"array.rectilinear_chunks": True}):
        opened = xr.open_zarr(nodes.store, group=root or None, consolidated=False, chunks=None, zarr_format=3)
        if name not in opened.indexes:
            raise CombineError(f"the Icechunk store has no coordinate {name!r} to find labels in", variable=name)
        return opened.indexes[name]
