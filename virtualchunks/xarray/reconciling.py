"""What the files of one archive differ in, made the same before they are combined: variables, labels, rounding."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from virtualchunks.array import ManifestArray
from virtualchunks.errors import CombineError, UnsupportedFeatureError
from virtualchunks.grid import Axis
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata, is_time
from virtualchunks.packing import PACKING_ATTRIBUTES
from virtualchunks.refining import cut_at
from virtualchunks.xarray.dataset import references_of

#: What becomes of variables that some files lack.
Variables = Literal["union", "intersection", "error"]
#: Which file has the say where several have a label.
Overlap = Literal["first", "last", "error"]
_CHOICES = {"variables": ("union", "intersection", "error"), "overlap": ("first", "last", "error")}


def check_choices(**given: str | None) -> None:
    """Raise ValueError where an argument is none of the words that it may be."""
    for argument, word in given.items():
        if word is not None and word not in _CHOICES[argument]:
            raise ValueError(f"{argument} is one of {_CHOICES[argument]} or None, not {word!r}")


def joined_dimensions(datasets: Sequence[xr.Dataset], concat_dim: Any = None) -> list[Hashable]:
    """Return the dimensions that Datasets are joined along.

    Parameters
    ----------
    datasets
        In any order.
    concat_dim
        As for :func:`xarray.combine_nested`; ``None`` for the dimensions whose coordinates differ.
    """
    if concat_dim is not None:
        given = concat_dim if isinstance(concat_dim, list | tuple) else [concat_dim]
        return [getattr(entry, "name", entry) for entry in given if entry is not None]
    first, *rest = datasets
    return [
        name
        for name, index in first.indexes.items()
        if any(name in other.indexes and not index.equals(other.indexes[name]) for other in rest)
    ]


def with_first_coordinates(datasets: Sequence[xr.Dataset], tolerance: Any) -> list[xr.Dataset]:
    """Return Datasets with the coordinates of the first, where theirs differ by no more than a tolerance.

    Parameters
    ----------
    datasets
        In order.
    tolerance
        The largest difference of two labels that are meant to be one, in the units of the coordinate. A coordinate of
        which any label differs by more is left as it is.
    """
    first = datasets[0]
    return [
        dataset.assign_coords(
            {
                name: first.variables[name]
                for name, index in dataset.indexes.items()
                if name in first.indexes and _is_near(first.indexes[name], index, tolerance)
            }
        )
        for dataset in datasets
    ]


def _is_near(one: pd.Index, other: pd.Index, tolerance: Any) -> bool:
    if one.equals(other) or len(one) != len(other) or one.dtype.kind != other.dtype.kind:
        return False
    if one.dtype.kind not in "fiumM" or (one.dtype.kind in "mM") != isinstance(tolerance, np.timedelta64):
        return False
    difference = np.abs(one.to_numpy() - other.to_numpy())
    return bool((difference <= tolerance).all())


def with_same_variables(
    datasets: Sequence[xr.Dataset], urls: Sequence[str], how: Variables, joined: Sequence[Hashable]
) -> list[xr.Dataset]:
    """Return Datasets that all have the same variables.

    Parameters
    ----------
    datasets, urls
        The Datasets, and where each is from.
    how
        ``"union"`` gives those that lack a variable one of missing values, or, if the variable does not depend on what
        is joined, that of the first file which has it; ``"intersection"`` drops what a file lacks; ``"error"`` raises.
    joined
        The dimensions that the Datasets will be joined along.

    Raises
    ------
    CombineError
        With ``"error"``, if a file lacks a variable.
    UnsupportedFeatureError
        If no value of a variable stands for a missing one.
    """
    having: dict[Hashable, list[int]] = {}
    for number, dataset in enumerate(datasets):
        for name in dataset.variables:
            having.setdefault(name, []).append(number)
    partial = {name: numbers for name, numbers in having.items() if len(numbers) < len(datasets)}
    if not partial:
        return list(datasets)
    if how == "error":
        name, numbers = next(iter(partial.items()))
        lacking = next(number for number in range(len(datasets)) if number not in numbers)
        raise CombineError(
            f"{urls[numbers[0]]} has the variable {name!r}, which {len(datasets) - len(numbers)} of {len(datasets)} "
            f"files lack, among them this one; pass variables='union' or variables='intersection', or drop_variables",
            url=urls[lacking],
            variable=str(name),
        )
    if how == "intersection":
        return [dataset.drop_vars([name for name in partial if name in dataset.variables]) for dataset in datasets]
    templates = {name: datasets[numbers[0]] for name, numbers in partial.items()}
    return [_completed(dataset, url, templates, joined) for dataset, url in zip(datasets, urls, strict=True)]


def _completed(
    dataset: xr.Dataset, url: str, templates: dict[Hashable, xr.Dataset], joined: Sequence[Hashable]
) -> xr.Dataset:
    lacking = [name for name in templates if name not in dataset.variables]
    exists = any(name in dataset.dims for name in joined)
    data: dict[Hashable, xr.Variable] = {}
    coordinates: dict[Hashable, xr.Variable] = {}
    for name in lacking:
        variable = templates[name].variables[name]
        sizes = {dimension: dataset.sizes.get(dimension, size) for dimension, size in variable.sizes.items()}
        same = sizes == dict(variable.sizes) and exists and not set(joined) & set(variable.dims)
        made = variable if same else _missing(str(name), variable, sizes, url)
        (coordinates if name in templates[name].coords else data)[name] = made
    return dataset.assign(data).assign_coords(coordinates)


def _missing(name: str, variable: xr.Variable, sizes: dict[Hashable, int], url: str) -> xr.Variable:
    """Return a variable like another, of other lengths, without a single value."""
    array = references_of(variable)
    shape = tuple(sizes.values())
    data: Any
    if array is None:
        dtype, fill = _promoted(variable.dtype, name, url)
        data = np.full(shape, fill, dtype=dtype)
    else:
        metadata = _without_values(array.metadata, shape, name, url)
        data = ManifestArray(metadata, ChunkManifest.missing(metadata.grid.grid_shape))
    return xr.Variable(variable.dims, data, variable.attrs, variable.encoding)


def _without_values(metadata: ArrayMetadata, shape: tuple[int, ...], name: str, url: str) -> ArrayMetadata:
    grid = metadata.grid
    for number, (axis, size) in enumerate(zip(grid.axes, shape, strict=True)):
        if axis.size != size:
            chunk = axis.chunk if axis.chunk is not None else max(axis.edges or (1,))
            grid = grid.replace(number, Axis(size, chunk=chunk))
    attributes = metadata.attributes
    fills = [np.ravel(attributes[key])[0] for key in ("_FillValue", "missing_value") if key in attributes]
    if fills:
        return metadata.replace(grid=grid, fill_value=fills[0])
    if is_time(attributes.get("units")) or any(key in attributes for key in PACKING_ATTRIBUTES):
        raise _no_missing_value(name, url, "its stored numbers have a meaning, and none of them means missing")
    dtype, fill = _promoted(metadata.dtype, name, url)
    return metadata.replace(grid=grid, dtype=dtype, fill_value=fill)


def _promoted(dtype: np.dtype[Any], name: str, url: str) -> tuple[np.dtype[Any], Any]:
    """Return the dtype that xarray gives to values of which some are missing, and the missing one."""
    match dtype.kind:
        case "f" | "c":
            return dtype, dtype.type(np.nan)
        case "i" | "u":
            wide = np.dtype("f4" if dtype.itemsize <= 2 else "f8")
            return wide, wide.type(np.nan)
        case "m" | "M":
            return dtype, dtype.type("NaT")
        case "O":
            return dtype, np.nan
    raise _no_missing_value(name, url, f"no value of {dtype} means missing")


def _no_missing_value(name: str, url: str, reason: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"the file lacks this variable, and missing chunks cannot stand for it: {reason}; use "
        "variables='intersection', or leave it out with drop_variables",
        url=url,
        variable=name,
    )


def without_overlap(
    datasets: Sequence[xr.Dataset], urls: Sequence[str], how: Overlap, joined: Sequence[Hashable]
) -> list[xr.Dataset]:
    """Return Datasets none of which has a label that another has, along the dimension that they are joined along.

    Parameters
    ----------
    datasets, urls
        The Datasets, and where each is from.
    how
        ``"first"`` and ``"last"``: of the files with a label, in the order given, which one keeps it. ``"error"``
        raises where there are several.
    joined
        The dimension, as a list of one.

    Raises
    ------
    CombineError
        With ``"error"``, if two files have a label; or if the labels are not known.
    UnsupportedFeatureError
        If Datasets are joined along several dimensions.
    """
    if not joined:
        return list(datasets)
    if len(joined) > 1:
        raise UnsupportedFeatureError(
            f"overlap={how!r} looks at the labels of one dimension, and the files are joined along {list(joined)}: "
            "combine along one of them first, or leave overlap out"
        )
    [dimension] = joined
    labels = [_labels(dataset, dimension, url) for dataset, url in zip(datasets, urls, strict=True)]
    every = labels[0].append(labels[1:])
    twice = every.duplicated(keep="last" if how == "last" else "first")
    if not twice.any():
        return list(datasets)
    if how == "error":
        raise _overlapping(dimension, labels, urls, every[twice][0], int(twice.sum()))
    ends = np.cumsum([len(index) for index in labels])
    kept = [np.flatnonzero(~part) for part in np.split(twice, ends[:-1])]
    pairs = zip(datasets, kept, strict=True)
    return [_taken(dataset, dimension, positions) for dataset, positions in pairs if len(positions)]


def _labels(dataset: xr.Dataset, dimension: Hashable, url: str) -> pd.Index:
    if dimension not in dataset.indexes:
        raise CombineError(
            f"overlap= needs the labels of {dimension!r}, which this file has not, or which were not loaded: name "
            f"{dimension!r} in loadable_variables",
            url=url,
        )
    return dataset.indexes[dimension]


def _overlapping(
    dimension: Hashable, labels: Sequence[pd.Index], urls: Sequence[str], label: Any, count: int
) -> CombineError:
    holders = [url for url, index in zip(urls, labels, strict=True) if label in index]
    return CombineError(
        f"{count} labels of {dimension!r} occur more than once, among them {label} in {' and '.join(holders[:3])}; "
        "pass overlap='first' or overlap='last' to keep one of each",
        url=holders[-1],
    )


def _taken(dataset: xr.Dataset, dimension: Hashable, positions: npt.NDArray[np.intp]) -> xr.Dataset:
    """Return some elements along a dimension; chunks are cut where a selection begins or ends within one."""
    size = dataset.sizes[dimension]
    if len(positions) == size:
        return dataset
    breaks = np.flatnonzero(np.diff(positions) != 1)
    places = np.unique([positions[0], positions[-1] + 1, *(positions[breaks] + 1), *positions[breaks + 1]])
    cut = dataset.copy()
    for name, variable in dataset.variables.items():
        array = references_of(variable)
        if array is not None and dimension in variable.dims:
            parts = cut_at(array._parts, variable.dims.index(dimension), places)
            cut.variables[name].data = ManifestArray._of(parts)
    whole = not len(breaks)
    return cut.isel({dimension: slice(int(positions[0]), int(positions[-1]) + 1) if whole else positions})
