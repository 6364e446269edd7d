"""A virtual Dataset as the same Dataset of values, read lazily, with nothing written anywhere."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import xarray as xr

from virtualchunks.array import ManifestArray
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.lifting import encodings_named
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.xarray.dataset import references_of
from virtualchunks.xarray.decoding import decode_variables
from virtualchunks.xarray.grants import recall
from virtualchunks.xarray.lazy import lazy_variable

if TYPE_CHECKING:
    from virtualchunks.xarray.dataset import Registry


def reopen(
    dataset: xr.Dataset,
    registry: Registry = None,
    chunks: Any = None,
    decode_times: Any = None,
    mask_and_scale: bool = True,
) -> xr.Dataset:
    """Return the Dataset with its references replaced by values that are read when they are used.

    Parameters
    ----------
    dataset
        A virtual Dataset.
    registry, chunks, decode_times, mask_and_scale
        As for :meth:`virtualchunks.xarray.accessor.VirtualDataset.open`.
    """
    found = map(_referring, dataset.variables.items())
    references = {str(name): array.as_stored() for name, array in found if array is not None}
    if not mask_and_scale:
        _check_unlifted(references)
    granted = _granted(references.values(), registry)
    stored = {name: _stored(name, dataset.variables[name], array, granted) for name, array in references.items()}
    url = next(filter(None, (array.manifest.origin for array in references.values())), None)
    values = decode_variables(stored, url=url, decode_times=decode_times, mask_and_scale=mask_and_scale)
    for name, variable in values.items():
        variable.encoding = {**dataset.variables[name].encoding, **variable.encoding}
    if chunks is not None:
        values = {name: _chunked(name, variable, chunks) for name, variable in values.items()}
    opened = dataset.assign({name: variable for name, variable in values.items() if name not in dataset.coords})
    opened = opened.assign_coords({name: variable for name, variable in values.items() if name in dataset.coords})
    opened.encoding = dict(dataset.encoding)
    return opened


def _stored(name: str, variable: xr.Variable, array: ManifestArray, registry: ObjectStoreRegistry) -> xr.Variable:
    return lazy_variable(name, variable.dims, array, array.metadata.with_meaning(variable.attrs), registry)


def _check_unlifted(references: dict[str, ManifestArray]) -> None:
    """Refuse to give stored numbers where they mean one thing in one chunk and another in the next."""
    for name, array in references.items():
        if any(encoding.lift_key for encoding in encodings_named(array._parts)):
            raise UnsupportedFeatureError(
                "mask_and_scale=False asks for stored numbers, but the chunks of this variable are packed in several "
                "ways, so that the numbers have no one meaning: read the values with mask_and_scale=True, or open the "
                "files that are packed alike with mask_and_scale=False",
                variable=name,
                url=next(array.manifest.iter_nonempty_paths(), None),
            )


def _referring(item: tuple[Any, xr.Variable]) -> tuple[Any, Any]:
    name, variable = item
    return name, references_of(variable)


def _granted(arrays: Any, registry: Registry) -> ObjectStoreRegistry:
    if registry is not None:
        return ObjectStoreRegistry.coerce(registry)
    return recall(dict.fromkeys(url for array in arrays for url in array.manifest.iter_nonempty_paths()))


def _chunked(name: str, variable: xr.Variable, chunks: Any) -> xr.Variable:
    """Return a variable as a dask array: in its stored chunks, or in those asked for."""
    if not variable.ndim or variable.dims == (name,):
        return variable
    wanted = chunks
    if isinstance(chunks, dict):
        stored = variable.encoding.get("preferred_chunks", {})
        wanted = {dimension: chunks.get(dimension, stored.get(dimension, -1)) for dimension in variable.dims}
    chunked: xr.Variable = variable.chunk(wanted, name=f"virtualchunks-{name}-{uuid.uuid4().hex}-")
    return chunked
