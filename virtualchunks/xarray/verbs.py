"""The verbs of :mod:`virtualchunks.verbs` on Datasets and DataTrees: what ``.virtual`` asks of references and changes.

The references of a Dataset are lifted out into a tree, the verb is applied to it, and what comes back takes their
place. Loaded variables, indexes, attributes and encodings are xarray's and stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from virtualchunks.array import ManifestArray
from virtualchunks.errors import ChunkIndexError, CombineError
from virtualchunks.group import ManifestGroup
from virtualchunks.metadata import PACKING, same_value
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.roots import Places, root_of_url
from virtualchunks.verbs import asking, moving
from virtualchunks.verbs.table import Table
from virtualchunks.xarray.dataset import group_to_dataset, references_of
from virtualchunks.xarray.grants import recall, remember

if TYPE_CHECKING:
    from virtualchunks.parsing import Parser
    from virtualchunks.verbs.checking import Check
    from virtualchunks.verbs.comparing import Difference
    from virtualchunks.xarray.dataset import Registry

#: What may be handed to ``diff``.
Tree = ManifestGroup | xr.Dataset | xr.DataTree
Method = Literal["nearest", "pad", "ffill", "backfill", "bfill"]


class Verbs[Holder: (xr.Dataset, xr.DataTree)]:
    """What the accessors of Datasets and of DataTrees ask of references and change in them.

    Parameters
    ----------
    held
        The Dataset or DataTree.
    """

    def __init__(self, held: Holder) -> None:
        self._held: Holder = held

    def _nodes(self) -> Iterator[tuple[str, xr.Dataset]]:
        """Iterate over the groups: their paths, without slashes at the ends, and their own variables."""
        raise NotImplementedError

    def _rebuilt(self, nodes: Mapping[str, xr.Dataset]) -> Holder:
        """Return the object with other groups."""
        raise NotImplementedError

    def _variables(self) -> Iterator[tuple[str, xr.Variable]]:
        for path, node in self._nodes():
            for name, variable in node.variables.items():
                yield (f"{path}/{name}" if path else str(name)), variable

    def _arrays(self) -> Iterator[tuple[str, ManifestArray]]:
        for path, variable in self._variables():
            array = references_of(variable)
            if array is not None:
                yield path, array

    def _group(self) -> ManifestGroup:
        """Return the references alone, with the names that the dimensions have here."""
        root = ManifestGroup()
        for path, variable in self._variables():
            array = references_of(variable)
            if array is not None:
                metadata = array.metadata.replace(dimension_names=tuple(map(str, variable.dims)))
                root = moving.put(root, path, ManifestArray(metadata, array.manifest))
        return root

    def _with(self, group: ManifestGroup) -> Holder:
        """Return the object with the references of a tree, which differ in their manifests only."""
        new = dict(group.walk_arrays())
        nodes = {}
        for path, node in self._nodes():
            copied = node.copy()
            for name, variable in copied.variables.items():
                array = references_of(variable)
                if array is not None:
                    manifest = new[f"{path}/{name}" if path else str(name)].manifest
                    variable.data = ManifestArray(array.metadata, manifest)
            nodes[path] = copied
        return self._rebuilt(nodes)

    def _granted(self, registry: Registry, roots: Mapping[str, Places] | None = None) -> ObjectStoreRegistry:
        """Return what may be read: what a user passes, or what was opened by name in this process."""
        if registry is None:
            urls = dict.fromkeys(url for _, array in self._arrays() for url in array.manifest.iter_nonempty_paths())
            granted = recall(url for url in urls if root_of_url(url) not in (roots or {}))
        else:
            granted = ObjectStoreRegistry.coerce(registry)
        return granted.bind(roots) if roots else granted

    def sources(self) -> pd.DataFrame:
        """Return a table of the objects referred to.

        Returns
        -------
        pandas.DataFrame
            One row per object and version: ``url``, the stamp it was parsed with (``size`` in bytes, ``etag``,
            ``last_modified``, ``version``), the ``variables`` that refer to it, how many ``chunks`` and ``bytes``
            of it they refer to, and ``ranges``: for each variable the smallest box that holds these chunks, as
            ``(start, stop)`` along each dimension, for ``isel``. Chunks held in memory are one row, whose url is
            ``"__inlined__"``.
        """
        table = asking.sources(self._group()).to_dict()
        table["last_modified"] = [None if at is None else pd.Timestamp(at, tz="UTC") for at in table["last_modified"]]
        return pd.DataFrame(table)

    def locate(
        self,
        indexers: Mapping[str, Any] | None = None,
        *,
        method: Method | None = None,
        tolerance: Any = None,
        variables: Iterable[str] | None = None,
        **indexers_kwargs: Any,
    ) -> Table:
        """Return where the bytes of the chunks are that hold some labels.

        Parameters
        ----------
        indexers, method, tolerance, **indexers_kwargs
            Labels, slices of labels or several labels by dimension, as for :meth:`xarray.Dataset.sel`. Along a
            dimension without labels, positions.
        variables
            Paths of the variables to look at; by default all that are references.

        Returns
        -------
        Table
            One row per chunk: ``variable``, ``chunk``, ``kind``, ``url``, ``offset``, ``length``; see
            :func:`virtualchunks.verbs.locate`.

        Raises
        ------
        ChunkIndexError
            If there is no such label, dimension or variable.
        """
        wanted = {**(indexers or {}), **indexers_kwargs}
        group = self._group()
        names = None if variables is None else list(variables)
        tables = []
        for path, positions in self._positions(wanted, method, tolerance).items():
            own = [name for name, _ in group.walk_arrays() if name.rpartition("/")[0] == path]
            chosen = own if names is None else [name for name in names if name in own]
            if chosen:
                tables.append(asking.locate(group, _known(group, chosen, positions), chosen))
        missing = [name for name in names or () if name not in dict(group.walk_arrays())]
        if missing or not tables:
            return asking.locate(group, {}, missing or ())
        return Table({name: [value for table in tables for value in table[name]] for name in tables[0].columns})

    def diff(self, other: Tree) -> Difference:
        """Return what differs in another Dataset, DataTree or ManifestGroup; see :func:`virtualchunks.verbs.diff`.

        Loaded variables are compared too, by the bytes that they would be written as.

        Parameters
        ----------
        other
            The newer one.
        """
        from virtualchunks.verbs.comparing import diff

        return diff(self._held, other)

    def check(self, registry: Registry = None, *, roots: Mapping[str, Places] | None = None) -> Check:
        """Ask the stores whether the objects are still those that were parsed; see :func:`virtualchunks.verbs.check`.

        Parameters
        ----------
        registry, roots
            As for :meth:`open`.
        """
        from virtualchunks.verbs.checking import check

        return check(self._group(), self._granted(registry, roots))

    def refresh(
        self,
        registry: Registry = None,
        parser: Parser | str | None = None,
        *,
        sources: Check | Iterable[str] | None = None,
        group: str = "",
        roots: Mapping[str, Places] | None = None,
    ) -> Holder:
        """Parse the files that changed again and put their new references in the place of the old ones.

        Variables that were loaded from a file are compared with what the file holds now.

        Parameters
        ----------
        registry, parser
            As for :func:`virtualchunks.open_virtual_dataset`.
        sources
            What :meth:`check` returned, or URLs; by default all are checked first.
        group
            Path of the group within the files.
        roots
            As for :meth:`open`; of mirrors, the first is parsed.

        Raises
        ------
        CombineError
            If files no longer fit where they were, or hold other values for loaded variables; nothing changes then.
        """
        from virtualchunks.verbs.refreshing import refresh

        granted = self._granted(registry, roots)

        def inspect(url: str, tree: ManifestGroup, places: Mapping[str, tuple[slice, ...]]) -> None:
            self._check_loaded(url, tree, places, granted)

        return self._with(refresh(self._group(), granted, parser, sources=sources, at=group, inspect=inspect))

    def rename_paths(self, new: str | Callable[[str], str]) -> Holder:
        """Return the object with the URLs of the objects changed.

        Parameters
        ----------
        new
            The URL for all chunks, or a function from the old URL to the new. Of the stamps of the old objects the
            sizes are kept.

        Raises
        ------
        URLError
            If a new URL is not acceptable.
        """
        return self._with(moving.rename(self._group(), new if callable(new) else lambda _: new))

    def rename(self, new: moving.Renaming, *, keep_stamps: bool = False) -> Holder:
        """Return the object with the URLs of the objects changed; see :func:`virtualchunks.verbs.rename`.

        Parameters
        ----------
        new
            New prefixes by old ones, compared by whole path segments, or a function from the old URL to the new.
        keep_stamps
            Whether the objects are the very same under their new name.
        """
        return self._with(moving.rename(self._group(), new, keep_stamps=keep_stamps))

    def relative_to(self, base: str | os.PathLike[str], root: str = "root") -> Holder:
        """Return the object with URLs beneath a named root: ``{root}/2020/01.nc``.

        Parameters
        ----------
        base
            The folder that all objects lie beneath.
        root
            What to call it. Where it is, is said again when the references are opened: ``roots={"root": …}``.
        """
        return self._with(moving.relative_to(self._group(), base, root))

    def bind(self, roots: Mapping[str, str | os.PathLike[str]]) -> Holder:
        """Return the object with named roots replaced by the folders where they are.

        Parameters
        ----------
        roots
            The folder of each name.
        """
        return self._with(moving.bind(self._group(), roots))

    def inline(
        self,
        threshold: int,
        registry: Registry = None,
        *,
        variables: Iterable[str] | None = None,
        limit: int = 1 << 30,
        roots: Mapping[str, Places] | None = None,
    ) -> Holder:
        """Return the object with small chunks fetched and held in memory; see :func:`virtualchunks.verbs.inline`.

        Parameters
        ----------
        threshold
            Length, in bytes, up to which chunks are fetched.
        registry, roots
            As for :meth:`open`.
        variables
            Paths of the variables concerned; by default all.
        limit
            Bytes that may be fetched.
        """
        from virtualchunks.verbs.holding import inline

        granted = self._granted(registry, roots)
        return self._with(inline(self._group(), threshold, granted, variables=variables, limit=limit))

    def materialise(
        self,
        target: str | os.PathLike[str],
        registry: Registry = None,
        *,
        selection: Mapping[str, Any] | None = None,
        variables: Iterable[str] | None = None,
        mode: Literal["w", "w-"] = "w-",
        roots: Mapping[str, Places] | None = None,
    ) -> Holder:
        """Copy chunks, byte for byte, into a Zarr store of one's own, and return the object that points at them there.

        See :func:`virtualchunks.verbs.materialise`. Loaded variables are not written.

        Parameters
        ----------
        target
            A local folder, or the URL of a folder in a store that the registry covers.
        registry, roots
            As for :meth:`open`.
        selection
            Labels by dimension, as for :meth:`locate`: chunks that hold none of them stay where they are.
        variables
            Paths of the variables concerned; by default all.
        mode
            Whether objects that are in the way are replaced, ``"w"``, or refused, ``"w-"``.
        """
        from virtualchunks.verbs.holding import materialise

        granted = self._granted(registry, roots)
        chosen = self._one_selection(selection or {})
        made = materialise(self._group(), target, granted, selection=chosen, variables=variables, mode=mode)
        urls = {url for _, array in made.walk_arrays() for url in array.manifest.iter_nonempty_paths()}
        named = granted.__copy__()
        if not all(url in named for url in urls):
            named.register(target)
        remember(urls, named)
        return self._with(made)

    def shift(self, chunks: Mapping[str, int] | None = None, **chunks_kwargs: int) -> Holder:
        """Return the object with references moved by whole chunks; see :func:`virtualchunks.verbs.shift`.

        Parameters
        ----------
        chunks, **chunks_kwargs
            By how many chunks, by dimension. Labels stay where they are, as in :meth:`xarray.Dataset.shift`.
        """
        return self._with(moving.shift(self._group(), {**(chunks or {}), **chunks_kwargs}))

    def _positions(
        self, wanted: Mapping[str, Any], method: Method | None = None, tolerance: Any = None
    ) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
        """Return the positions of labels along dimensions, for each group."""
        raise NotImplementedError

    def _one_selection(self, labels: Mapping[str, Any]) -> dict[str, npt.NDArray[np.int64]]:
        found: dict[str, npt.NDArray[np.int64]] = {}
        for positions in self._positions(labels).values():
            for name, where in positions.items():
                if not np.array_equal(found.setdefault(name, where), where):
                    raise ChunkIndexError(f"{name!r} has other labels in one group than in another: name variables=")
        return found

    def _check_loaded(
        self, url: str, tree: ManifestGroup, places: Mapping[str, tuple[slice, ...]], registry: ObjectStoreRegistry
    ) -> None:
        """Raise where a file holds other values than were loaded from it."""
        variables = dict(self._variables())
        spans = {
            name: span for path, part in places.items() for name, span in zip(variables[path].dims, part, strict=True)
        }
        for path, array in tree.walk_arrays():
            held = variables.get(path)
            if held is None or references_of(held) is not None or not held.dims or not set(held.dims) <= spans.keys():
                continue
            now = _loaded_again(path.rpartition("/")[2], array, held, registry)
            was = held.isel({name: spans[name] for name in held.dims})
            if now.dims != was.dims or now.shape != was.shape or not same_value(now.values, was.values):
                raise CombineError(
                    f"{path!r} was loaded when it was opened, and it holds other values now, so what refers to it has "
                    "other labels",
                    url=url,
                    variable=path,
                )


def label_positions(
    dataset: xr.Dataset, labels: Mapping[str, Any], method: Method | None, tolerance: Any
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the positions of labels, by dimension; those of other groups' dimensions are passed over.

    Parameters
    ----------
    dataset
        A Dataset.
    labels, method, tolerance
        As for :meth:`xarray.Dataset.sel`.

    Raises
    ------
    ChunkIndexError
        If there is no such label.
    """
    indexed = dataset.coords.to_dataset().drop_vars([name for name in dataset.coords if name not in dataset.xindexes])
    own = {name: label for name, label in labels.items() if name in dataset.dims or name in dataset.xindexes}
    names = {f"positions along {name}": name for name in dataset.dims}
    probe = indexed.assign({key: (name, np.arange(dataset.sizes[name])) for key, name in names.items()})
    bare = {name: label for name, label in own.items() if name not in dataset.xindexes}
    try:
        found = probe.isel(bare).sel(
            {name: label for name, label in own.items() if name not in bare}, method=method, tolerance=tolerance
        )
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ChunkIndexError(f"{error.args[0] if error.args else error}: no such label in {sorted(own)}") from error
    positions = {name: np.atleast_1d(found[key].values) for key, name in names.items()}
    return {
        str(name): where
        for name, where in positions.items()
        if found.sizes.get(name) != dataset.sizes[name] or name in own
    }


def _known(
    group: ManifestGroup, variables: Iterable[str], positions: Mapping[str, npt.NDArray[np.int64]]
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the positions along dimensions that some of the variables have."""
    arrays = dict(group.walk_arrays())
    names = {name for path in variables for name in arrays[path].metadata.dimension_names or ()}
    return {name: where for name, where in positions.items() if name in names}


def _loaded_again(name: str, array: ManifestArray, held: xr.Variable, registry: ObjectStoreRegistry) -> xr.Variable:
    """Return a variable as it is in its file now, decoded as the loaded one was."""
    undecoded = "since" in str(held.attrs.get("units", ""))
    dataset = group_to_dataset(
        ManifestGroup({name: array}),
        registry=registry,
        loadable_variables=[name],
        decode_times=False if undecoded else None,
        mask_and_scale=not any(packing in held.attrs for packing in PACKING),
    )
    found: xr.Variable = dataset.variables[name]
    return found.to_base_variable()


def check_dimensions(wanted: Mapping[str, Any], datasets: Iterable[xr.Dataset]) -> None:
    """Raise where labels are asked for along what no group has.

    Parameters
    ----------
    wanted
        Labels by name.
    datasets
        The groups.

    Raises
    ------
    ChunkIndexError
        If one has neither a dimension nor an index of a name.
    """
    known = {str(name) for dataset in datasets for name in (*dataset.dims, *dataset.xindexes)}
    for name in wanted:
        if name not in known:
            raise ChunkIndexError(f"no dimension {name!r}; there are {', '.join(map(repr, sorted(known))) or 'none'}")
