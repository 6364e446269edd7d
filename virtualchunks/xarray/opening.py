"""Opening one file: as a ManifestStore, as a virtual Dataset, as a virtual DataTree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import xarray as xr

from virtualchunks.errors import VirtualChunksError
from virtualchunks.group import subgroup
from virtualchunks.isolation import Isolated
from virtualchunks.parsing import Parser, companions_of, find_parser, leaving_out
from virtualchunks.reading.beginnings import kept_beginnings
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.roots import Places
from virtualchunks.urls import as_url
from virtualchunks.xarray.dataset import Loadable, group_to_dataset, group_to_datatree

if TYPE_CHECKING:
    from virtualchunks.store import ManifestStore
    from virtualchunks.xarray.dataset import Registry


def open_store(
    url: str | os.PathLike[str],
    registry: Registry = None,
    parser: Parser | str | None = None,
    *,
    drop_variables: str | Iterable[str] | None = None,
    strict: bool | None = None,
    roots: Mapping[str, Places] | None = None,
    isolate: bool = False,
) -> ManifestStore:
    """Open a file as a read-only Zarr store of references to its chunks.

    Parameters
    ----------
    url, registry, parser, strict, roots, isolate
        As for :func:`open_virtual_dataset`.
    drop_variables
        Names of variables that the parser leaves out, if it can.

    Returns
    -------
    ManifestStore
        For :func:`zarr.open_group` and :func:`xarray.open_zarr`.

    Raises
    ------
    VirtualChunksError
        As :func:`open_virtual_dataset`.
    """
    named = as_url(url)
    granted = granting(registry, named, roots)
    return _parsed(named, granted, parser, drop_variables, strict, isolate, alone=registry is None)


def open_virtual_dataset(
    url: str | os.PathLike[str],
    registry: Registry = None,
    parser: Parser | str | None = None,
    drop_variables: str | Iterable[str] | None = None,
    loadable_variables: Loadable = None,
    decode_times: Any = None,
    *,
    mask_and_scale: bool = True,
    group: str | None = None,
    strict: bool | None = None,
    roots: Mapping[str, Places] | None = None,
    isolate: bool = False,
) -> xr.Dataset:
    """Open a file as a Dataset of references to its chunks: a virtual Dataset.

    Nothing but the file's metadata is read, apart from the variables to load. The result combines as any Dataset does:
    :func:`xarray.concat`, :func:`xarray.combine_by_coords`, ``isel``, ``rename``. Its values are read by
    ``.virtual.open()``; its references are written by ``.virtual.to_icechunk()`` and ``.virtual.to_kerchunk()``.

    Parameters
    ----------
    url
        What to open: a local path, or a ``file://``, ``s3://``, ``gs://`` or ``https://`` URL.
    registry
        What may be read, through which stores: an :class:`~virtualchunks.ObjectStoreRegistry` or a dictionary for one.
        ``None`` grants exactly the object that `url` names, without credentials; naming a DMR++ names the data file
        beside it, too.
    parser
        A parser, the name of an installed one (``"hdf5"``), or ``None`` to find it by what the file begins with and how
        its name ends.
    drop_variables
        Names of variables to leave out.
    loadable_variables
        Which variables to read now instead of referring to them. ``None``: the dimension coordinates, 1-D variables
        named like their dimension, which xarray needs to combine, and coordinates of at most one dimension whose values
        the parser has in memory already, such as the times of a GRIB file. Names and globs (``["time", "lat*"]``);
        names that are not there are ignored, since files of one archive differ. ``"small"``: what ``None`` stands for,
        and all of up to 1 MiB of values. A function of name and ManifestArray. ``[]``: none.
    decode_times
        As for :func:`xarray.open_dataset`, for loaded variables.
    mask_and_scale
        As for :func:`xarray.open_dataset`: ``scale_factor``, ``add_offset``, ``_FillValue``, ``missing_value`` and
        ``_Unsigned`` leave the attributes for ``.encoding``, and the dtype is that of the values. Virtual variables are
        unpacked chunk by chunk when they are read, so that files packed in several ways combine. What is packed alike
        is written and served as it is stored, with the attributes put back. Virtual variables that count time keep
        their attributes until ``.virtual.open()`` decodes them.
    group
        Path of the group to open; the root by default.
    strict
        Whether what the parser cannot represent raises, instead of being left out with a warning.
    roots
        Where the named roots are that references lie beneath: for each name a folder, or mirrors of it in the order in
        which they are tried. Naming a folder grants what lies beneath it.
    isolate
        Whether to parse in a process of its own, with limits: for files that nobody vouches for, whose format is read
        by a native library (the page of formats says which). A crash is then an error, and so is what takes longer than
        a minute or 2 GiB; :class:`~virtualchunks.isolation.Isolated` as `parser` sets other limits.

    Returns
    -------
    xarray.Dataset
        Of :class:`~virtualchunks.ManifestArray`, and NumPy arrays where loaded.

    Raises
    ------
    FormatError
        If the file is not what its parser reads, or no parser recognises it.
    NotGrantedError
        If the registry does not cover the file.
    ReadError
        If its bytes cannot be read.
    ParserCrashedError
        With `isolate`, if the process that parses crashes or reaches a limit.
    MissingDependencyError
        If an extra is not installed.

    Notes
    -----
    CF lets the bounds of a time coordinate go without ``units`` of their own. Virtual bounds get those of the
    coordinate, as xarray gives them while decoding, so that bounds counted from different epochs are not combined
    unseen.

    Examples
    --------
    >>> import virtualchunks as vc
    >>> months = [vc.open_virtual_dataset(path) for path in paths]  # doctest: +SKIP
    >>> cube = xr.concat(months, dim="time", coords="minimal", compat="override")  # doctest: +SKIP
    """
    named = as_url(url)
    granted = granting(registry, named, roots)
    with _opening(isolate):
        store = _parsed(named, granted, parser, drop_variables, strict, isolate, alone=registry is None)
        dataset = group_to_dataset(
            subgroup(store.group, group, named),
            registry=registry_of(store, granted),
            loadable_variables=loadable_variables,
            drop_variables=drop_variables,
            decode_times=decode_times,
            mask_and_scale=mask_and_scale,
        )
    dataset.encoding["source"] = named
    return dataset


def open_virtual_datatree(
    url: str | os.PathLike[str],
    registry: Registry = None,
    parser: Parser | str | None = None,
    *,
    drop_variables: str | Iterable[str] | None = None,
    loadable_variables: Loadable = None,
    decode_times: Any = None,
    mask_and_scale: bool = True,
    group: str | None = None,
    strict: bool | None = None,
    roots: Mapping[str, Places] | None = None,
    isolate: bool = False,
) -> xr.DataTree:
    """Open a file with all its groups as a DataTree of references to its chunks.

    Parameters
    ----------
    url, registry, parser, drop_variables, loadable_variables, decode_times, mask_and_scale, strict, roots, isolate
        As for :func:`open_virtual_dataset`, for each group.
    group
        Path of the group to have at the root.

    Returns
    -------
    xarray.DataTree
        One node per group.

    Raises
    ------
    VirtualChunksError
        As :func:`open_virtual_dataset`.
    """
    named = as_url(url)
    granted = granting(registry, named, roots)
    with _opening(isolate):
        store = _parsed(named, granted, parser, drop_variables, strict, isolate, alone=registry is None)
        tree = group_to_datatree(
            subgroup(store.group, group, named),
            registry=registry_of(store, granted),
            loadable_variables=loadable_variables,
            drop_variables=drop_variables,
            decode_times=decode_times,
            mask_and_scale=mask_and_scale,
        )
    tree.encoding["source"] = named
    return tree


def _parsed(
    url: str,
    granted: ObjectStoreRegistry,
    parser: Parser | str | None,
    drop_variables: str | Iterable[str] | None,
    strict: bool | None,
    isolate: bool,
    *,
    alone: bool,
) -> ManifestStore:
    """Find the parser of a file, and parse it; where it was granted `alone`, with what naming it grants beside it."""
    dropped = (drop_variables,) if isinstance(drop_variables, str) else drop_variables or ()
    try:
        with _opening(isolate):
            chosen = leaving_out(find_parser(url, granted, parser, strict=strict), dropped)
            if alone:
                granted = granted.grant(*companions_of(chosen, url))
            parse = Isolated(chosen) if isolate and not isinstance(chosen, Isolated) else chosen
            return parse(url, granted)
    except VirtualChunksError as error:
        error.url = error.url if error.url is not None else url
        raise


def _opening(isolate: bool) -> AbstractContextManager[None]:
    """Keep what is read until a file is open; a process of its own reads for itself."""
    return nullcontext() if isolate else kept_beginnings()


def granting(registry: Registry, url: str, roots: Mapping[str, Places] | None = None) -> ObjectStoreRegistry:
    """Return the registry to open a file with: the user's own, or one for just the file that he names.

    Parameters
    ----------
    registry
        The user's own.
    url
        The file.
    roots
        Where named roots are.
    """
    granted = ObjectStoreRegistry().grant(url) if registry is None else ObjectStoreRegistry.coerce(registry)
    return granted.bind(roots) if roots else granted


def registry_of(store: ManifestStore, granted: ObjectStoreRegistry) -> ObjectStoreRegistry:
    """Return the registry of a store: its parser may grant what lies beneath a folder that the user named."""
    return store.registry if len(store.registry) else granted
