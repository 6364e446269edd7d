"""xarray's Datasets and DataTrees as trees of references, which is what the writers write.

A variable that holds a :class:`~virtualchunks.array.ManifestArray` keeps its references, and takes the dimensions and
attributes that it has in the Dataset. Any other variable is encoded as xarray encodes it for Zarr (times become numbers
with units, and so on) and becomes one chunk held in memory. xarray is imported when one of its objects is given.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.grid import ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.inline import encode_array
from virtualchunks.lifting import encodings_named
from virtualchunks.metadata import ArrayMetadata

if TYPE_CHECKING:
    import xarray

    #: What the writers take.
    Tree = ManifestGroup | xarray.Dataset | xarray.DataTree

#: Encodings, as xarray has them, of the arrays in a target, by path.
Encodings = Mapping[str, Mapping[str, Any]]

#: Parts of xarray's encoding that are attributes in a file.
_ATTRIBUTES = ("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned", "units", "calendar")


def as_group(tree: Any, encodings: Encodings | None = None, *, inherit: bool = False) -> ManifestGroup:
    """Return what a user wants written as a tree of references.

    Parameters
    ----------
    tree
        A ManifestGroup, or an xarray Dataset or DataTree.
    encodings
        How to encode loaded variables, by path; by default as their own encoding says.
    inherit
        Whether groups of a DataTree repeat the coordinates that they inherit.

    Raises
    ------
    UnsupportedFeatureError
        If a variable cannot be encoded, or the object is of another type.
    """
    if isinstance(tree, ManifestGroup):
        return tree
    known = sys.modules.get("xarray")
    if known is not None and isinstance(tree, known.Dataset):
        return group_from_dataset(tree, encodings)
    if known is not None and isinstance(tree, known.DataTree):
        return group_from_datatree(tree, encodings, inherit=inherit)
    raise UnsupportedFeatureError(
        f"cannot write a {type(tree).__name__}: expected a ManifestGroup, or an xarray Dataset or DataTree"
    )


def group_from_datatree(
    tree: xarray.DataTree, encodings: Encodings | None = None, path: str = "", *, inherit: bool = False
) -> ManifestGroup:
    """Return a DataTree as a tree of references.

    Parameters
    ----------
    tree
        The tree.
    encodings
        How to encode loaded variables, by path; by default as their own encoding says.
    path
        Path of the tree's root within what is written.
    inherit
        Whether groups repeat the coordinates that they inherit, instead of leaving them where they are defined.

    Raises
    ------
    UnsupportedFeatureError
        As :func:`group_from_dataset`.
    """
    own = group_from_dataset(tree.to_dataset(inherit=inherit), encodings, path)
    groups = {
        name: group_from_datatree(child, encodings, _join(path, name), inherit=inherit)
        for name, child in tree.children.items()
    }
    return ManifestGroup(own.arrays, groups, own.attributes, own.unlimited_dims)


def group_from_dataset(dataset: xarray.Dataset, encodings: Encodings | None = None, path: str = "") -> ManifestGroup:
    """Return a Dataset as a group of references.

    Parameters
    ----------
    dataset
        Variables of references, of values, or of both.
    encodings
        How to encode loaded variables, by path; by default as their own encoding says.
    path
        Path of the group within what is written.

    Raises
    ------
    UnsupportedFeatureError
        If xarray cannot encode a loaded variable, or its dtype has no form in Zarr.

    Examples
    --------
    >>> import xarray as xr
    >>> group = group_from_dataset(xr.Dataset({"v": ("x", [1, 2, 3])}))
    >>> group.arrays["v"].metadata.dimension_names, group.arrays["v"].manifest["0"]["length"]
    (('x',), 24)
    """
    from xarray.conventions import encode_dataset_coordinates

    variables, attributes = encode_dataset_coordinates(dataset)
    for name in variables:
        if not isinstance(name, str):
            raise UnsupportedFeatureError(f"a variable must be named with text to be written, found {name!r}")
    arrays = {}
    for name, variable in variables.items():
        if isinstance(variable._data, ManifestArray):
            arrays[name] = _virtual(variable, variable._data)
            continue
        encoding = (encodings or {}).get(_join(path, name))
        arrays[name] = loaded_array(name, variable, encoding)
    return ManifestGroup(arrays, attributes=dict(attributes), unlimited_dims=_unlimited(dataset))


def _unlimited(dataset: xarray.Dataset) -> list[str] | None:
    """Return the dimensions that may grow, as far as the Dataset still has them; ``None`` where it does not say."""
    known = dataset.encoding.get("unlimited_dims")
    return None if known is None else [str(name) for name in known if name in dataset.dims]


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _virtual(variable: xarray.Variable, array: ManifestArray) -> ManifestArray:
    from xarray.conventions import CF_RELATED_DATA

    own = ("units", "calendar") if _is_lifted(variable, array) else _ATTRIBUTES  # lifted arrays keep their packing
    encoded = {key: variable.encoding[key] for key in (*own, *CF_RELATED_DATA) if key in variable.encoding}
    attributes = {str(key): value for key, value in {**encoded, **variable.attrs}.items() if value is not None}
    names = tuple(map(str, variable.dims))
    stored = array.as_stored()
    kept = stored.metadata.with_meaning(attributes)  # xarray may have dropped the packing on the way
    metadata = stored.metadata.replace(dimension_names=names, attributes=kept)
    return ManifestArray(metadata, stored.manifest)


def _is_lifted(variable: xarray.Variable, array: ManifestArray) -> bool:
    """Return whether the packing in a variable's encoding has been applied to the array already."""
    return any(encoding.packing is not None for encoding in encodings_named(array._parts)) or (
        variable.encoding.get("dtype", array.dtype) != array.dtype
    )


def loaded_array(name: str, variable: xarray.Variable, encoding: Mapping[str, Any] | None = None) -> ManifestArray:
    """Return a variable of values as an array of one chunk held in memory.

    Parameters
    ----------
    name
        Its name.
    variable
        The variable, decoded.
    encoding
        How to encode it; by default as its own encoding says.

    Raises
    ------
    UnsupportedFeatureError
        If xarray cannot encode it, or its dtype has no form in Zarr.
    """
    from xarray.backends.zarr import encode_zarr_variable

    variable = variable.copy(deep=False)
    if encoding is not None:
        variable.encoding = {key: value for key, value in encoding.items() if key in (*_ATTRIBUTES, "dtype")}
    try:
        encoded = encode_zarr_variable(variable, name=name)
    except (ValueError, TypeError, NotImplementedError, OverflowError) as error:
        raise UnsupportedFeatureError(f"{name!r} cannot be encoded: {error}", variable=name) from error
    values = _stored_values(name, np.asarray(encoded.values))
    attributes = {str(key): value for key, value in encoded.attrs.items()}
    return in_memory_array(values, tuple(map(str, encoded.dims)), attributes)


def _stored_values(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind != "O":
        return values
    try:
        return values.astype(np.dtypes.StringDType())
    except (ValueError, TypeError) as error:
        raise UnsupportedFeatureError(
            f"{name!r} holds objects that are not text, which have no form in Zarr: {error}", variable=name
        ) from error


def in_memory_array(
    values: npt.NDArray[Any], names: tuple[str | None, ...], attributes: Mapping[str, Any]
) -> ManifestArray:
    """Return values as an array of one chunk held in memory, in plain little-endian bytes.

    Parameters
    ----------
    values
        The values, of any dtype that Zarr has.
    names
        Names of their dimensions.
    attributes
        Attributes of the array.
    """
    grid = ChunkGrid.regular(values.shape, tuple(max(size, 1) for size in values.shape))
    metadata = ArrayMetadata(
        grid, values.dtype, ChunkEncoding.plain(np.dtype("u1")), None, names, attributes
    ).transcoded()
    return ManifestArray(metadata, encode_array(values.astype(metadata.dtype, copy=False), metadata))
