"""Virtual Datasets: a ManifestGroup as an xarray Dataset, references in most variables and values in a few.

Coordinates follow CF as :func:`xarray.decode_cf` reads it. What stays virtual is unpacked when it is read, its packing
in the encoding meanwhile, as xarray has it; what is loaded is decoded by xarray itself.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import xarray as xr
from xarray.indexes import PandasIndex

from virtualchunks.array import ManifestArray
from virtualchunks.attributes import with_bounds_units
from virtualchunks.deferred import DeferredManifest
from virtualchunks.errors import FormatError
from virtualchunks.group import ManifestGroup
from virtualchunks.packing import PACKING_ATTRIBUTES
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.xarray.decoding import decode_values
from virtualchunks.xarray.grants import remember

if TYPE_CHECKING:
    from virtualchunks.mounts import ReadableStore

    Registry = ObjectStoreRegistry | Mapping[str, ReadableStore | Mapping[str, Any] | None] | None

#: What ``loadable_variables`` may be.
Loadable = str | Iterable[str] | Callable[[str, ManifestArray], bool] | None
#: The most bytes of values for which ``loadable_variables="small"`` loads a variable.
SMALL = 1 << 20


def group_to_dataset(
    group: ManifestGroup,
    *,
    registry: Registry = None,
    loadable_variables: Loadable = None,
    drop_variables: str | Iterable[str] | None = None,
    decode_times: Any = None,
    mask_and_scale: bool = True,
) -> xr.Dataset:
    """Return one group, without the groups below it, as a Dataset of ManifestArrays.

    Parameters
    ----------
    group
        The group.
    registry
        What may be read to load variables. Without one, nothing is loaded unless `loadable_variables` asks for it, and
        then only what is held in memory can be.
    loadable_variables, drop_variables, decode_times, mask_and_scale
        As for :func:`virtualchunks.open_virtual_dataset`.

    Raises
    ------
    FormatError
        If two variables disagree about the length of a dimension.
    DecodeError
        If xarray cannot decode a loaded variable.

    Examples
    --------
    >>> from virtualchunks import ArrayMetadata
    >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="<i4", dimension_names=("x",))
    >>> array = ManifestArray(metadata, {"0": {"path": "s3://bucket/a.nc", "offset": 0, "length": 8}})
    >>> group_to_dataset(ManifestGroup({"v": array})).sizes["x"]
    4
    """
    dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
    arrays = {name: array for name, array in group.arrays.items() if name not in dropped}
    attributes = with_bounds_units({name: dict(array.metadata.attributes) for name, array in arrays.items()})
    arrays = {name: _described(name, array, attributes[name]) for name, array in arrays.items()}
    dimensions = {name: dimension_names(name, array) for name, array in arrays.items()}
    _check_sizes(arrays, dimensions)
    granted = ObjectStoreRegistry.coerce(registry)
    loadable = [] if registry is None and loadable_variables is None else loadable_variables
    chosen = _choose(arrays, dimensions, loadable, _coordinates_in_memory(arrays, attributes, group))
    variables: dict[str, xr.Variable] = {
        name: _virtual_variable(dimensions[name], array, attributes[name], mask_and_scale)
        for name, array in arrays.items()
        if name not in chosen
    }
    variables |= _loaded(
        {name: (dimensions[name], arrays[name], attributes[name]) for name in chosen},
        granted,
        decode_times,
        mask_and_scale,
    )
    if registry is not None:
        _remember(arrays.values(), granted)
    dataset = assemble({name: variables[name] for name in arrays}, dict(group.attributes))
    dataset.encoding = group_encoding(group)
    return dataset


def group_encoding(group: ManifestGroup) -> dict[str, Any]:
    """Return the encoding of a group's Dataset, as xarray's own backends give it: the dimensions that may grow.

    Examples
    --------
    >>> group_encoding(ManifestGroup(unlimited_dims=["time"])), group_encoding(ManifestGroup())
    ({'unlimited_dims': {'time'}}, {})
    """
    return {} if group.unlimited_dims is None else {"unlimited_dims": set(group.unlimited_dims)}


def group_to_datatree(
    group: ManifestGroup,
    *,
    registry: Registry = None,
    loadable_variables: Loadable = None,
    drop_variables: str | Iterable[str] | None = None,
    decode_times: Any = None,
    mask_and_scale: bool = True,
) -> xr.DataTree:
    """Return a group and all groups below it as a DataTree of ManifestArrays.

    Parameters
    ----------
    group
        The group at the root.
    registry, loadable_variables, drop_variables, decode_times, mask_and_scale
        As for :func:`group_to_dataset`, for each group.

    Raises
    ------
    FormatError, DecodeError
        As :func:`group_to_dataset`.
    """
    options: dict[str, Any] = {
        "registry": registry,
        "loadable_variables": loadable_variables,
        "drop_variables": drop_variables,
        "decode_times": decode_times,
        "mask_and_scale": mask_and_scale,
    }
    nodes = {f"/{path}": group_to_dataset(node, **options) for path, node in group.walk()}
    return xr.DataTree.from_dict(nodes)


def array_to_variable(array: ManifestArray) -> xr.Variable:
    """Return an array of references as a Variable; dimensions without a name are called ``dim_0``, ``dim_1``, ….

    Examples
    --------
    >>> from virtualchunks import ArrayMetadata
    >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(4,), dtype="<i4", dimension_names=("x",))
    >>> array_to_variable(ManifestArray(metadata, {})).dims
    ('x',)
    """
    given = array.metadata.dimension_names or (None,) * array.ndim
    names = [f"dim_{axis}" if name is None else name for axis, name in enumerate(given)]
    return xr.Variable(names, array, dict(array.metadata.attributes))


def assemble(variables: Mapping[str, xr.Variable], attributes: dict[str, Any]) -> xr.Dataset:
    """Return a Dataset whose coordinates are those that CF names; indexes are built for values only.

    Parameters
    ----------
    variables
        Variables, whose ``coordinates`` attribute moves to their encoding.
    attributes
        Attributes of the Dataset, of which ``coordinates`` is taken out.
    """
    names = _named_coordinates(variables)
    if isinstance(attributes.get("coordinates"), str):
        names |= set(attributes.pop("coordinates").split())
    coordinates: dict[Hashable, Any] = {
        name: var for name, var in variables.items() if name in names or var.dims == (name,)
    }
    indexes: dict[Hashable, PandasIndex] = {}
    for name, variable in coordinates.items():
        if variable.dims == (name,) and not isinstance(variable._data, ManifestArray):
            indexes[name] = index = PandasIndex.from_variables({name: variable}, options={})
            coordinates[name] = index.create_variables({name: variable})[name]
    return xr.Dataset(
        {name: var for name, var in variables.items() if name not in coordinates},
        coords=xr.Coordinates(coordinates, indexes=indexes),
        attrs=attributes,
    )


def dimension_names(name: str, array: ManifestArray) -> tuple[str, ...]:
    """Return the dimension names of an array; one without a name is its own and shared with no other array.

    Examples
    --------
    >>> from virtualchunks import ArrayMetadata
    >>> metadata = ArrayMetadata.build(shape=(4, 2), chunks=(4, 2), dtype="<i4", dimension_names=("x", None))
    >>> dimension_names("v", ManifestArray(metadata, {}))
    ('x', 'v_dim_1')
    """
    given = array.metadata.dimension_names
    names: tuple[str | None, ...] = (None,) * array.ndim if given is None else given
    return tuple(f"{name}_dim_{axis}" if label is None else label for axis, label in enumerate(names))


def sources_of(arrays: Iterable[ManifestArray]) -> set[str]:
    """Return the canonical URLs of the objects that arrays refer to."""
    return {url for array in arrays for url in array.manifest.sources.urls if url}


def _virtual_variable(
    dimensions: tuple[str, ...], array: ManifestArray, attributes: dict[str, Any], mask_and_scale: bool
) -> xr.Variable:
    """Return a variable of references, its packing in its encoding as xarray has it, if it is to be unpacked."""
    lifted = array.lifted() if mask_and_scale else array
    if lifted is array:
        return xr.Variable(dimensions, array, attributes, fastpath=True)
    packing = {name: attributes.pop(name) for name in PACKING_ATTRIBUTES if name in attributes}
    return xr.Variable(dimensions, lifted, attributes, {**packing, "dtype": array.dtype}, fastpath=True)


def _remember(arrays: Iterable[ManifestArray], granted: ObjectStoreRegistry) -> None:
    """Record which of the objects that arrays refer to are granted: now, or once the references are loaded."""
    manifests = [array.manifest for array in arrays]
    for manifest in manifests:
        if isinstance(manifest, DeferredManifest):
            manifest.when_loaded(partial(remember, registry=granted))
    loaded = [manifest for manifest in manifests if not isinstance(manifest, DeferredManifest)]
    remember({url for manifest in loaded for url in manifest.sources.urls if url}, granted)


def _choose(
    arrays: Mapping[str, ManifestArray],
    dimensions: Mapping[str, tuple[str, ...]],
    loadable: Loadable,
    at_hand: frozenset[str],
) -> list[str]:
    """Return the names of the variables to load; coordinates `at_hand` cost no read."""
    if callable(loadable):
        return [name for name, array in arrays.items() if loadable(name, array)]
    if loadable is None or loadable == "small":
        most = SMALL if loadable == "small" else -1
        wanted = {name for name, array in arrays.items() if dimensions[name] == (name,) or array.nbytes <= most}
        return [name for name in arrays if name in wanted or name in at_hand]
    patterns = [loadable] if isinstance(loadable, str) else list(loadable)
    return [name for name in arrays if any(name == text or fnmatch.fnmatchcase(name, text) for text in patterns)]


def _coordinates_in_memory(
    arrays: Mapping[str, ManifestArray], attributes: Mapping[str, Mapping[str, Any]], group: ManifestGroup
) -> frozenset[str]:
    """Coordinates of at most one dimension whose values the parser brought along, so that nothing is to be read."""
    stated = (*(own.get("coordinates") for own in attributes.values()), group.attributes.get("coordinates"))
    names = {name for text in stated if isinstance(text, str) for name in text.split()} & arrays.keys()
    return frozenset(name for name in names if arrays[name].ndim <= 1 and _is_in_memory(arrays[name]))


def _is_in_memory(array: ManifestArray) -> bool:
    """Whether all chunks are there, and none of them in an object."""
    manifest = array.manifest
    rows = manifest.used_rows().tolist()
    held = bool(rows) and all(manifest.sources.buffer(row) is not None for row in rows)
    return held and bool(manifest.present.all())


def _loaded(
    chosen: Mapping[str, tuple[tuple[str, ...], ManifestArray, dict[str, Any]]],
    registry: ObjectStoreRegistry,
    decode_times: Any,
    mask_and_scale: bool,
) -> dict[str, xr.Variable]:
    """Read variables and decode them as xarray does."""
    if not chosen:
        return {}
    from virtualchunks.reading.together import read_together  # decoding needs zarr, which is slow to import

    values = read_together({name: array for name, (_, array, _) in chosen.items()}, registry)
    stored = {name: (dims, values[name], attributes) for name, (dims, _, attributes) in chosen.items()}
    url = next(iter(sources_of(array for _, array, _ in chosen.values())), None)
    return decode_values(stored, url=url, decode_times=decode_times, mask_and_scale=mask_and_scale)


def _named_coordinates(variables: Mapping[str, xr.Variable]) -> set[str]:
    """Take the ``coordinates`` attributes out; return the variables they name, as xarray's ``decode_coords`` does."""
    names: set[str] = set()
    for variable in variables.values():
        if "coordinates" not in variable.attrs:
            continue
        text = variable.attrs.pop("coordinates")
        variable.encoding["coordinates"] = text
        names.update(name for name in str(text).split() if name in variables)
    return names


def _described(name: str, array: ManifestArray, attributes: Mapping[str, Any]) -> ManifestArray:
    """Return an array with attributes, and with the name that errors call it by."""
    metadata = array.metadata
    if metadata.name == name and len(attributes) == len(metadata.attributes):
        return array
    kept = metadata.attributes if len(attributes) == len(metadata.attributes) else dict(attributes)
    return ManifestArray(metadata.replace(attributes=kept, name=name), array.manifest)


def _check_sizes(arrays: Mapping[str, ManifestArray], dimensions: Mapping[str, tuple[str, ...]]) -> None:
    found: dict[str, tuple[int, str]] = {}
    for name, array in arrays.items():
        for dimension, size in zip(dimensions[name], array.shape, strict=True):
            first = found.setdefault(dimension, (size, name))
            if first[0] != size:
                raise FormatError(
                    f"dimension {dimension!r} has the length {first[0]} in {first[1]!r} and {size} in {name!r}: leave "
                    "one of them out with drop_variables",
                    url=array.manifest.origin,
                    variable=name,
                )


def references_of(variable: Any) -> ManifestArray | None:
    """Return the references that a variable holds, or ``None`` if it holds values; no values are read to find out."""
    data = getattr(variable, "variable", variable)._data
    return data if isinstance(data, ManifestArray) else None
