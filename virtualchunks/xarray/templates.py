"""Templates from xarray: a Dataset with coordinates, or the virtual Dataset of one sample file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import bytes_codec, in_order
from virtualchunks.errors import ManifestError
from virtualchunks.grid import Axis, ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.templates.shapes import missing_value, template_of_shapes
from virtualchunks.templates.template import Template
from virtualchunks.writers.datasets import loaded_array
from virtualchunks.xarray.dataset import array_to_variable, references_of

#: Parts of xarray's encoding that say how values are stored, apart from chunks and codecs.
_STORED = ("dtype", "scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "units", "calendar")

Labels = Mapping[str, npt.NDArray[Any]]


def template(
    source: Any,
    coords: Mapping[str, Any] | None = None,
    *,
    variables: str | Iterable[str] | None = None,
) -> Template:
    """Return a template: a cube that is known beforehand, to be filled with references from an index.

    Parameters
    ----------
    source
        What the cube is like:

        - a Dataset of values with coordinates; of the variables to fill only dimensions, attributes and encoding
          (``dtype``, ``chunks``, ``compressors``, ``filters``, packing) are looked at, no value;
        - a virtual Dataset of one sample file, whose chunks and codecs are taken over;
        - a mapping of names to descriptions: ``dims``, ``shape``, ``chunks``, ``dtype``, ``codecs``, ``attrs`` and
          ``fill_value``, or a tuple of them in this order.
    coords
        Labels by dimension, in the place of those that a Dataset has. Dimensions get the length of their labels.
    variables
        Which variables of a Dataset are filled: by default all data variables that have dimensions. The others stay.

    Returns
    -------
    Template
        Its ``fill(table)`` returns the virtual Dataset, ``fill_group(table)`` a tree that needs no xarray.

    Raises
    ------
    ManifestError
        If a variable cannot be filled, or lengths contradict each other.

    Examples
    --------
    >>> import virtualchunks as vc
    >>> shapes = {"air": {"dims": ("time", "x"), "chunks": (1, 2), "dtype": "<f4"}}
    >>> cube = vc.template(shapes, {"time": ["mon", "tue"], "x": [0, 1]})
    >>> index = {"time": ["tue"], "x": [0], "url": ["s3://bucket/tue.bin"], "offset": [0], "length": [8]}
    >>> cube.fill(index).virtual.locate(time="tue")["url"]
    ['s3://bucket/tue.bin']
    """
    if isinstance(source, xr.Dataset):
        return _of_dataset(source, coords or {}, variables)
    if isinstance(source, ManifestGroup):
        return template_of_shapes({name: array.metadata for name, array in source.arrays.items()}, coords)
    if isinstance(source, Mapping):
        shapes: Mapping[str, Any] = source
        return template_of_shapes(shapes, coords)
    raise ManifestError(f"a template is made from a Dataset or a mapping of shapes, not {type(source).__name__}")


def filled_dataset(made: Template, arrays: Mapping[str, ManifestArray]) -> xr.Dataset:
    """Return the Dataset of a template and its references.

    Parameters
    ----------
    made
        The template.
    arrays
        What fills it.
    """
    base = made.skeleton
    if base is None:
        base = xr.Dataset(coords={name: (name, values) for name, values in made.labels.items()})
    return base.assign({name: array_to_variable(array) for name, array in arrays.items()})


def _of_dataset(dataset: xr.Dataset, coords: Mapping[str, Any], variables: str | Iterable[str] | None) -> Template:
    given = {name: xr.Variable((name,), np.asarray(values)) for name, values in coords.items()}
    sizes = {str(name): size for name, size in dataset.sizes.items()} | {name: var.size for name, var in given.items()}
    filled = _names(dataset, variables)
    rest = dataset.drop_vars(filled)
    outgrown = [name for name, size in sizes.items() if dataset.sizes.get(name, size) != size]
    for name, variable in rest.variables.items():
        if name not in given and any(dimension in outgrown for dimension in variable.dims):
            raise ManifestError(
                f"{name!r} lies along a dimension that has another length now: pass it in coords= or leave it out with "
                "drop_vars",
                variable=str(name),
            )
    base = rest.drop_vars([name for name in given if name in rest.variables]).assign_coords(given)
    labels = {
        str(name): base.variables[name].values
        for name in base.variables
        if base.variables[name].dims == (name,) and references_of(base.variables[name]) is None
    }
    arrays = {name: _metadata(name, dataset.variables[name], sizes) for name in filled}
    return Template(arrays, labels, base)


def _names(dataset: xr.Dataset, variables: str | Iterable[str] | None) -> list[str]:
    if variables is None:
        return [str(name) for name, variable in dataset.data_vars.items() if variable.dims]
    names = [variables] if isinstance(variables, str) else list(variables)
    unknown = [name for name in names if name not in dataset.variables]
    if unknown:
        raise ManifestError(f"the Dataset has no variable {unknown[0]!r}; it has {', '.join(map(repr, dataset))}")
    return names


def _metadata(name: str, variable: xr.Variable, sizes: Mapping[str, int]) -> ArrayMetadata:
    array = references_of(variable)
    dims = tuple(map(str, variable.dims))
    shape = tuple(sizes[dimension] for dimension in dims)
    if array is None:
        return _of_values(name, variable, shape)
    if array.is_heterogeneous:
        raise ManifestError(f"the chunks of {name!r} decode unlike one another, so they are no template", variable=name)
    axes = [_resized(name, axis, size) for axis, size in zip(array.metadata.grid.axes, shape, strict=True)]
    attributes = array.metadata.with_meaning({str(key): value for key, value in variable.attrs.items()})
    return array.metadata.replace(
        grid=ChunkGrid(tuple(axes)),
        dimension_names=dims,
        attributes=attributes,
        fill_value=missing_value(attributes, array.dtype, array.metadata.fill_value),
    )


def _resized(name: str, axis: Axis, size: int) -> Axis:
    if axis.size == size:
        return axis
    if axis.chunk is None:
        raise ManifestError(
            f"{name!r} has chunks of several lengths, so it is not known how {size} elements are cut", variable=name
        )
    return Axis(size, chunk=axis.chunk)


def _of_values(name: str, variable: xr.Variable, shape: tuple[int, ...]) -> ArrayMetadata:
    """Return what xarray would store a variable as; its values are not looked at."""
    encoding = {key: value for key, value in variable.encoding.items() if key in _STORED and value is not None}
    probe = xr.Variable(variable.dims, np.zeros((1,) * variable.ndim, dtype=variable.dtype), variable.attrs, encoding)
    found = loaded_array(name, probe).metadata
    stored = np.dtype(encoding.get("dtype", found.dtype))
    stored = stored if in_order(stored, "=") == found.dtype else found.dtype
    filters, serializer, compressors = (_codecs(name, variable.encoding.get(key)) for key in _PIPELINE)
    return ArrayMetadata.build(
        shape=shape,
        chunks=_chunks(variable, shape),
        dtype=stored,
        codecs=[*filters, *(serializer or [bytes_codec(stored)]), *compressors],
        fill_value=missing_value(found.attributes, stored, None),
        dimension_names=tuple(map(str, variable.dims)),
        attributes=found.attributes,
    )


_PIPELINE = ("filters", "serializer", "compressors")


def _codecs(name: str, given: Any) -> list[dict[str, Any]]:
    """Return codecs, as xarray's encoding has them for Zarr v3, as JSON."""
    if given is None or given == "auto":
        return []
    many = list(given) if isinstance(given, list | tuple) else [given]
    for codec in many:
        if not isinstance(codec, Mapping) and not hasattr(codec, "to_dict"):
            raise ManifestError(f"{name!r} is encoded with {codec!r}, which is no Zarr v3 codec", variable=name)
    return [dict(codec) if isinstance(codec, Mapping) else dict(codec.to_dict()) for codec in many]


def _chunks(variable: xr.Variable, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the chunk shape: that of the encoding, else dask's, else one chunk."""
    given = variable.encoding.get("chunks") or variable.encoding.get("chunksizes")
    if given is None and variable.chunks is not None:
        given = [lengths[0] for lengths in variable.chunks]
    whole = [max(1, size) for size in shape]
    return tuple(int(size) for size in (whole if given is None else given))
