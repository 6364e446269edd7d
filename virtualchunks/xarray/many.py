"""Opening many files as one virtual Dataset."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import xarray as xr

from virtualchunks.errors import SourceUnavailableError, URLError
from virtualchunks.parsing import Parser
from virtualchunks.reading.turns import taking_turns
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import as_url
from virtualchunks.xarray.dataset import references_of, sources_of
from virtualchunks.xarray.executors import Parallel, chosen, run_over, turn_of
from virtualchunks.xarray.grants import remember
from virtualchunks.xarray.opening import granting, open_virtual_dataset
from virtualchunks.xarray.reconciling import (
    Overlap,
    Variables,
    check_choices,
    joined_dimensions,
    with_first_coordinates,
    with_same_variables,
    without_overlap,
)

if TYPE_CHECKING:
    from virtualchunks.xarray.dataset import Registry

Named = str | os.PathLike[str]
#: URLs, nested as :func:`xarray.combine_nested` takes Datasets.
Nested = Named | Sequence["Nested"]


def open_virtual_mfdataset(
    urls: Nested,
    registry: Registry = None,
    parser: Parser | str | None = None,
    concat_dim: Any = None,
    compat: Any = "override",
    preprocess: Callable[[xr.Dataset], xr.Dataset] | None = None,
    data_vars: Any = None,
    coords: Any = "minimal",
    combine: str = "by_coords",
    parallel: Parallel = None,
    join: Any = "exact",
    attrs_file: Named | None = None,
    combine_attrs: Any = "override",
    *,
    variables: Variables | None = None,
    overlap: Overlap | None = None,
    tolerance: Any = None,
    **kwargs: Any,
) -> xr.Dataset:
    """Open many files as one virtual Dataset, as :func:`xarray.open_mfdataset` does with values.

    Parameters
    ----------
    urls
        Paths or URLs; a glob of local paths (``"data/*.nc"``); or nested lists for ``combine="nested"``.
    registry, parser
        As for :func:`open_virtual_dataset`. ``registry=None`` grants exactly the objects named.
    concat_dim
        With ``combine="nested"``, the dimension to join along, or one per level of nesting.
    compat, data_vars, coords, join, combine_attrs
        As for :func:`xarray.open_mfdataset`. The defaults are those that suit references, and that xarray is moving to:
        variables without the dimension are taken from the first file (``"override"``), those with it are joined;
        nothing is broadcast; other dimensions must agree exactly, which raises where they do not.
    preprocess
        Called with each Dataset before they are combined; with ``parallel="processes"`` in this process.
    combine
        ``"by_coords"``, by the values of the dimension coordinates, or ``"nested"``, in the order given.
    parallel
        How to open the files: ``False`` one after the other, ``True`` or a number of threads, ``"processes"``, a
        :class:`concurrent.futures.Executor`, ``"dask"`` or ``"lithops"``. By default remote files are opened by up to
        32 threads, which mostly wait for the network, and local ones one after the other. The order of the results is
        that of `urls`.
    attrs_file
        The one of `urls` whose attributes the result has.
    variables
        What becomes of variables that some files lack: ``"union"`` fills with missing chunks, ``"intersection"`` drops
        them, ``"error"`` raises. By default as xarray combines them, which differs with `combine`.
    overlap
        Which file has the say where several have a label along the dimension that is joined: the ``"first"`` or the
        ``"last"`` in the order of `urls`, or none of them (``"error"``). The others are cut there. By default labels
        are not looked at but by xarray.
    tolerance
        The largest difference between coordinates that are meant to be the same, such as longitudes that one file
        rounds; the first file's are taken. By default they must be equal, as `join` says.
    **kwargs
        Further arguments of :func:`open_virtual_dataset`.

    Raises
    ------
    VirtualChunksError
        As :func:`open_virtual_dataset`; the error names the file.
    CombineError
        If the arrays cannot become one without a wrong number.

    Examples
    --------
    >>> import virtualchunks as vc
    >>> cube = vc.open_virtual_mfdataset("archive/*.nc", parallel=8)  # doctest: +SKIP
    """
    if combine not in ("by_coords", "nested"):
        raise ValueError(f"combine is 'by_coords' or 'nested', not {combine!r}")
    if combine == "by_coords" and concat_dim is not None:
        raise ValueError("concat_dim needs combine='nested'; combine='by_coords' finds the dimension by itself")
    check_choices(variables=variables, overlap=overlap)
    named = expand(urls)
    flat = list(flatten(named))
    shared = None if registry is None else granting(registry, flat[0])
    how = chosen(parallel, flat)
    open_one = partial(_open_one, registry=shared, parser=parser, options=kwargs, turn=turn_of(how))
    if how == "processes":
        datasets = run_over(open_one, flat, how, then=preprocess)
    else:
        datasets = run_over(partial(open_one, preprocess=preprocess), flat, how)
    _remember(flat, datasets, shared)
    options = {
        "compat": compat, "data_vars": data_vars, "coords": coords, "join": join, "combine_attrs": combine_attrs
    }  # fmt: skip
    attributes = None if attrs_file is None else datasets[_place(as_url(attrs_file), flat)].attrs
    is_flat = all(isinstance(entry, str) for entry in named)
    datasets = _reconciled(datasets, flat, concat_dim, variables, overlap, tolerance)
    if combine == "nested":
        nested: Any = datasets if is_flat else _nest(named, iter(datasets))
        result: xr.Dataset = xr.combine_nested(nested, concat_dim, **options)
    else:
        result = xr.combine_by_coords(datasets, **options)  # type: ignore[assignment]  # Datasets make a Dataset
    if attributes is not None:
        result.attrs = attributes
    return result


def _reconciled(
    datasets: list[xr.Dataset],
    urls: list[str],
    concat_dim: Any,
    variables: Variables | None,
    overlap: Overlap | None,
    tolerance: Any,
) -> list[xr.Dataset]:
    if tolerance is not None:
        datasets = with_first_coordinates(datasets, tolerance)
    if variables is None and overlap is None:
        return datasets
    joined = joined_dimensions(datasets, concat_dim)
    if variables is not None:
        datasets = with_same_variables(datasets, urls, variables, joined)
    return datasets if overlap is None else without_overlap(datasets, urls, overlap, joined)


def expand(urls: Nested) -> list[Any]:
    """Return canonical URLs in the nesting given, globs of local paths expanded in alphabetical order.

    Raises
    ------
    SourceUnavailableError
        If there is nothing to open.
    URLError
        If a remote URL holds a glob.
    """
    expanded = [_expand(entry) for entry in _listed(urls)]
    if not expanded or not any(True for _ in flatten(expanded)):
        raise SourceUnavailableError(f"nothing to open: {urls!r} names no file")
    return expanded


def _listed(urls: Nested) -> list[Any]:
    if not isinstance(urls, str):
        return [urls] if isinstance(urls, os.PathLike) else list(urls)
    if not glob.has_magic(urls) or os.path.exists(urls):
        return [urls]
    scheme, colon, _ = urls.partition("://")
    if colon and scheme != "file":
        raise URLError(f"{urls!r}: globs are expanded for local paths only; list the objects and pass their URLs")
    return sorted(glob.glob(urls.removeprefix("file://"), recursive=True))


def _expand(entry: Any) -> Any:
    if isinstance(entry, str | os.PathLike):
        return as_url(entry)
    return [_expand(item) for item in entry]


def flatten(nested: Iterable[Any]) -> Iterator[str]:
    """Iterate over nested URLs, one after the other."""
    for entry in nested:
        if isinstance(entry, str):
            yield entry
        else:
            yield from flatten(entry)


def _nest(like: Iterable[Any], datasets: Iterator[xr.Dataset]) -> list[Any]:
    return [next(datasets) if isinstance(entry, str) else _nest(entry, datasets) for entry in like]


def _open_one(
    url: str,
    registry: Registry,
    parser: Parser | str | None,
    options: dict[str, Any],
    turn: Lock | None,
    preprocess: Callable[[xr.Dataset], xr.Dataset] | None = None,
) -> xr.Dataset:
    with taking_turns(turn if url.startswith("file:") else None):
        dataset = open_virtual_dataset(url, registry, parser, **options)
    return dataset if preprocess is None else preprocess(dataset)


def _remember(urls: list[str], datasets: list[xr.Dataset], registry: ObjectStoreRegistry | None) -> None:
    """Record the grants in this process, too: the files may have been opened in another."""
    found = (references_of(variable) for dataset in datasets for variable in dataset.variables.values())
    granted = ObjectStoreRegistry().grant(*urls) if registry is None else registry
    remember(sources_of(array for array in found if array is not None), granted)


def _place(url: str, urls: list[str]) -> int:
    if url not in urls:
        raise SourceUnavailableError(f"attrs_file {url} is not one of the files opened", url=url)
    return urls.index(url)
