"""The xarray engine: ``xr.open_dataset(url, engine="virtualchunks")`` reads the values of a file, lazily.

It opens what any installed parser reads, and gives the same values as the format's own engine, but reads through a
registry, whole chunks at a time, with every object checked against the version that was parsed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import xarray as xr
from xarray.backends import AbstractDataStore, BackendEntrypoint, StoreBackendEntrypoint

from virtualchunks.group import ManifestGroup, subgroup
from virtualchunks.parsing import Parser
from virtualchunks.reading.blocks import BlockCache
from virtualchunks.reading.tally import Tally
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import as_url
from virtualchunks.xarray.dataset import dimension_names, group_encoding
from virtualchunks.xarray.lazy import lazy_variable
from virtualchunks.xarray.opening import granting, open_store, registry_of

if TYPE_CHECKING:
    from virtualchunks.xarray.dataset import Registry

#: Arguments that go to xarray's own decoding.
DECODING = ("mask_and_scale", "decode_times", "concat_characters", "decode_coords", "use_cftime", "decode_timedelta")


class GroupDataStore(AbstractDataStore):
    """One ManifestGroup as xarray's data stores are: lazily indexed variables and attributes.

    Parameters
    ----------
    group
        The group.
    registry
        What may be read.
    cache, tally
        As for :class:`~virtualchunks.xarray.lazy.ReferencedArray`.
    """

    def __init__(
        self,
        group: ManifestGroup,
        registry: ObjectStoreRegistry,
        cache: BlockCache | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.group = group
        self.registry = registry
        self.cache = cache
        self.tally = tally

    def get_variables(self) -> dict[str, xr.Variable]:
        """Return the variables, none of whose values are read yet."""
        stored = {name: array.as_stored() for name, array in self.group.arrays.items()}
        known = self.registry, self.cache, self.tally
        return {
            name: lazy_variable(name, dimension_names(name, array), array, array.metadata.attributes, *known)
            for name, array in stored.items()
        }

    def get_attrs(self) -> dict[str, Any]:
        """Return the attributes of the group."""
        return dict(self.group.attributes)

    def get_encoding(self) -> dict[str, Any]:
        """Return the dimensions that may grow, where the format has such."""
        return group_encoding(self.group)

    def get_dimensions(self) -> dict[str, int]:
        """Return the length of each dimension."""
        return {
            dimension: size
            for name, array in self.group.arrays.items()
            for dimension, size in zip(dimension_names(name, array), array.shape, strict=True)
        }


class VirtualChunksBackend(BackendEntrypoint):
    """The engine ``"virtualchunks"``. It never guesses: name it, or pass a ManifestStore."""

    description = "Open what the parsers of virtualchunks read, through an object store registry"
    url = "https://virtualchunks.readthedocs.io"
    supports_groups = True
    open_dataset_parameters = (
        "filename_or_obj",
        "drop_variables",
        *DECODING,
        "group",
        "registry",
        "parser",
        "strict",
        "isolate",
    )

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether it is a ManifestStore: files are left to the engines made for their format."""
        return hasattr(filename_or_obj, "group") and isinstance(filename_or_obj.group, ManifestGroup)

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        registry: Registry = None,
        parser: Parser | str | None = None,
        strict: bool | None = None,
        isolate: bool = False,
        **decoding: Any,
    ) -> xr.Dataset:
        """Open one group of a file; see :func:`xarray.open_dataset` and :func:`virtualchunks.open_virtual_dataset`."""
        root, granted, source = _opened(filename_or_obj, registry, parser, strict, drop_variables, isolate)
        options = {"drop_variables": drop_variables, **decoding}
        kept = _kept(filename_or_obj, granted)
        return _dataset(subgroup(root, group, source), granted, source, options, kept)

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        registry: Registry = None,
        parser: Parser | str | None = None,
        strict: bool | None = None,
        isolate: bool = False,
        **decoding: Any,
    ) -> dict[str, xr.Dataset]:
        """Open every group of a file, by path."""
        root, granted, source = _opened(filename_or_obj, registry, parser, strict, drop_variables, isolate)
        options = {"drop_variables": drop_variables, **decoding}
        nodes = subgroup(root, group, source).walk()
        kept = _kept(filename_or_obj, granted)
        return {f"/{path}": _dataset(node, granted, source, options, kept) for path, node in nodes}

    def open_datatree(self, filename_or_obj: Any, *, drop_variables: Any = None, **options: Any) -> xr.DataTree:
        """Open every group of a file as a DataTree; see :func:`xarray.open_datatree`."""
        return xr.DataTree.from_dict(
            self.open_groups_as_dict(filename_or_obj, drop_variables=drop_variables, **options)
        )


def _opened(
    opened: Any, registry: Registry, parser: Parser | str | None, strict: bool | None, dropped: Any, isolate: bool
) -> tuple[ManifestGroup, ObjectStoreRegistry, str]:
    """Return the root group, what may be read, and what to call the source."""
    if not isinstance(opened, str | os.PathLike):
        granted = opened.registry if registry is None else registry
        return opened.group, ObjectStoreRegistry.coerce(granted), type(opened).__name__
    source = as_url(opened)
    granted = granting(registry, source)
    store = open_store(source, registry, parser, drop_variables=dropped, strict=strict, isolate=isolate)
    return store.group, registry_of(store, granted), source


def _kept(opened: Any, registry: ObjectStoreRegistry) -> tuple[BlockCache | None, Tally | None]:
    """Return the cache and the counts of a store, if what it has read is what its own registry grants."""
    own = getattr(opened, "registry", None) is registry
    return (getattr(opened, "cache", None), getattr(opened, "tally", None)) if own else (None, None)


def _dataset(
    group: ManifestGroup,
    registry: ObjectStoreRegistry,
    source: str,
    options: dict[str, Any],
    kept: tuple[BlockCache | None, Tally | None],
) -> xr.Dataset:
    dataset = StoreBackendEntrypoint().open_dataset(GroupDataStore(group, registry, *kept), **options)
    dataset.encoding.setdefault("source", source)
    return dataset
