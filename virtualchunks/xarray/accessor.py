"""The accessor ``.virtual``: what a virtual Dataset or DataTree can do beside what xarray does.

It is also called ``.vz`` and ``.virtualize``, as VirtualiZarr calls its own, unless another package has these names.

Importing :mod:`virtualchunks` registers it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.roots import Places
from virtualchunks.verbs.moving import check_move
from virtualchunks.xarray.dataset import references_of
from virtualchunks.xarray.reopening import reopen
from virtualchunks.xarray.verbs import Method, Verbs, check_dimensions, label_positions

if TYPE_CHECKING:
    from datetime import datetime

    from virtualchunks.store import ManifestStore
    from virtualchunks.xarray.dataset import Registry


class _Virtual[Holder: (xr.Dataset, xr.DataTree)](Verbs[Holder]):
    """What the accessors of Datasets and of DataTrees have in common."""

    @property
    def nbytes(self) -> int:
        """Bytes that the object takes in memory: its references, and the values that were loaded."""
        sizes: dict[int, int] = {}
        for _, variable in self._variables():
            array = references_of(variable)
            if array is None:
                sizes[id(variable)] = variable.nbytes
            else:
                sizes[id(array.manifest)] = array.nbytes_virtual
        return sum(sizes.values())

    @property
    def nrefs(self) -> int:
        """Number of chunks that are referred to."""
        return sum(len(array.manifest) for _, array in self._arrays())

    def to_store(self, registry: Registry = None, *, roots: Mapping[str, Places] | None = None) -> ManifestStore:
        """Return the references as a read-only Zarr store; loaded variables are in it as chunks held in memory.

        Parameters
        ----------
        registry
            What may be read; by default what was opened by name in this process, as for :meth:`open`.
        roots
            Where named roots are, as for :meth:`open`.

        Raises
        ------
        NotGrantedError
            If an object was not opened by name in this process, and no registry is given.
        """
        from virtualchunks.store import ManifestStore  # zarr, which it needs, is slow to import
        from virtualchunks.writers.datasets import as_group

        return ManifestStore(as_group(self._held), registry=self._granted(registry, roots))

    def _read_now(self, registry: Registry, inline_threshold: int | None, heterogeneous: str) -> Any:
        """Return what a writer may read: what is remembered, if it is asked to read chunks."""
        asked = inline_threshold is not None or heterogeneous == "materialise"
        return self._granted(registry) if asked else registry

    def to_kerchunk(
        self,
        filepath: str | os.PathLike[str] | None = None,
        format: Literal["dict", "json", "parquet"] = "dict",
        record_size: int = 100_000,
        categorical_threshold: int = 10,
        *,
        zarr_format: Literal[2, 3] = 2,
        registry: Registry = None,
        store: Any = None,
        compression: Literal["infer", "gzip", "zstd"] | None = "infer",
        mode: Literal["w", "w-", "a"] | None = None,
        append_dim: str | None = None,
        heterogeneous: Literal["error", "materialise", "split"] = "error",
    ) -> dict[str, Any] | None:
        """Write the references in Kerchunk's format, or return them.

        Parameters
        ----------
        filepath
            Where to write: a local path or a URL. Not for ``format="dict"``.
        format
            ``"dict"`` returns the references, ``"json"`` writes a file, ``"parquet"`` a folder.
        record_size, categorical_threshold
            As for :func:`virtualchunks.writers.kerchunk.write_parquet`.
        zarr_format
            Format of the metadata: xarray's kerchunk engine reads 2; 3 also holds rectilinear chunk grids.
        registry, store
            Stores by prefix for a URL that is not a local file; or one obstore store, of which `filepath` is a key.
        compression
            Of JSON; by default as the name says: ``.gz``, ``.zst`` or ``.zstd``.
        mode, append_dim
            As for :func:`virtualchunks.writers.kerchunk.write_kerchunk`.
        heterogeneous
            ``"materialise"`` reads chunks that decode unlike most and writes them, encoded as those are: inline, or to
            a file beside the target if that is more than 1 MiB. It may read what `registry` grants; by default what was
            opened by name in this process, as for :meth:`open`.
            ``"split"`` reads nothing and writes groups.

        Raises
        ------
        UnsupportedFeatureError
            If Kerchunk cannot hold an array, or the arguments contradict each other; nothing is written then.
        WriteError
            If the target cannot be written; what was there before is untouched.
        """
        from virtualchunks.writers.kerchunk import write_kerchunk  # zarr, which it needs, is slow to import

        if filepath is not None and format == "dict":
            raise UnsupportedFeatureError(
                f"format='dict' returns the references and writes nothing to {os.fspath(filepath)}: to write, pass "
                "format='json' or format='parquet'"
            )
        return write_kerchunk(
            self._held,
            filepath,
            format,
            record_size=record_size,
            categorical_threshold=categorical_threshold,
            zarr_format=zarr_format,
            registry=registry,
            store=store,
            compression=compression,
            mode=mode,
            append_dim=append_dim,
            heterogeneous=heterogeneous,
            sources=self._granted(registry) if heterogeneous == "materialise" else None,
        )

    def to_dmrpp(
        self,
        filepath: str | os.PathLike[str],
        *,
        mode: Literal["w", "w-"] = "w",
        registry: Registry = None,
        store: Any = None,
    ) -> None:
        """Write the references as a DMR++ document; see :func:`virtualchunks.writers.dmrpp.write_dmrpp`.

        Parameters
        ----------
        filepath
            Where to write: a local path or a URL; or a key of `store`.
        mode
            ``"w"`` replaces what is there, ``"w-"`` refuses to.
        registry, store
            What to write through, where that is not a local file: stores by prefix, or an obstore store.

        Raises
        ------
        UnsupportedFeatureError
            If DMR++ cannot hold a variable; nothing is written then.
        WriteError
            If the target cannot be written; what was there before is untouched.
        """
        from virtualchunks.writers.dmrpp import write_dmrpp

        write_dmrpp(self._held, filepath, registry=registry, store=store, mode=mode)

    def to_arrow(self) -> Any:
        """Return the references as a pyarrow Table with one row per chunk, for pyarrow, polars, pandas and duckdb.

        Loaded variables are in it as chunks held in memory. :meth:`ManifestGroup.from_arrow` reads it back.

        Raises
        ------
        UnsupportedFeatureError
            If an attribute or codec has no form in JSON.
        """
        from virtualchunks.writers.tables import to_arrow

        return to_arrow(self._held)

    def to_parquet(self, target: str | os.PathLike[str], **options: Any) -> None:
        """Write the table of :meth:`to_arrow` as a Parquet file; see :func:`virtualchunks.writers.tables.to_parquet`.

        Parameters
        ----------
        target, **options
            As there.
        """
        from virtualchunks.writers.tables import to_parquet

        to_parquet(self._held, target, **options)

    def to_lance(self, target: str | os.PathLike[str], **options: Any) -> int:
        """Write the references as a version of a Lance dataset; see :func:`virtualchunks.writers.tables.to_lance`.

        Parameters
        ----------
        target, **options
            As there.
        """
        from virtualchunks.writers.tables import to_lance

        return to_lance(self._held, target, **options)

    def to_iceberg(self, table: Any, catalog: Any, **options: Any) -> int:
        """Write the references as a snapshot of an Iceberg table; see :func:`virtualchunks.writers.tables.to_iceberg`.

        Parameters
        ----------
        table, catalog, **options
            As there.
        """
        from virtualchunks.writers.tables import to_iceberg

        return to_iceberg(self._held, table, catalog, **options)


class VirtualDataset(_Virtual[xr.Dataset]):
    """``Dataset.virtual``: read, write and describe the references of a virtual Dataset."""

    def _nodes(self) -> Iterator[tuple[str, xr.Dataset]]:
        yield "", self._held

    def _rebuilt(self, nodes: Mapping[str, xr.Dataset]) -> xr.Dataset:
        return nodes[""]

    def _positions(
        self, wanted: Mapping[str, Any], method: Method | None = None, tolerance: Any = None
    ) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
        check_dimensions(wanted, [self._held])
        return {"": label_positions(self._held, wanted, method, tolerance)}

    def move(self, old: str, new: str) -> xr.Dataset:
        """Return the Dataset with a variable under another name.

        Parameters
        ----------
        old, new
            Names.

        Raises
        ------
        ManifestError
            If there is no such variable, or one of the new name.
        """
        check_move(old, new, [str(name) for name in self._held.variables])
        return self._held.rename({old: new}) if old in self._held.dims else self._held.rename_vars({old: new})

    def open(
        self,
        registry: Registry = None,
        chunks: Any = None,
        *,
        decode_times: Any = None,
        mask_and_scale: bool = True,
        roots: Mapping[str, Places] | None = None,
    ) -> xr.Dataset:
        """Return the same Dataset with values, read lazily from the original files; nothing is written.

        Parameters
        ----------
        registry
            What may be read. ``None`` grants the objects that were opened in this process, each through the registry,
            or by the naming of it, that granted it then. An object that merely stands in somebody's reference file is
            not among them, nor is anything opened in another process.
        chunks
            As for :func:`xarray.open_dataset`: ``{}`` for dask arrays in the stored chunks.
        decode_times, mask_and_scale
            As for :func:`xarray.open_dataset`. ``mask_and_scale=False`` gives stored numbers, which have one meaning
            only where all chunks of a variable are packed alike.
        roots
            Where named roots are: for each name a folder, or mirrors of it in the order in which they are tried. Naming
            a folder grants what lies beneath it.

        Raises
        ------
        UnsupportedFeatureError
            If stored numbers are asked for, and a variable is packed in several ways.
        NotGrantedError
            If an object was not opened by name in this process, and no registry is given.
        DecodeError
            If xarray cannot decode a variable.
        """
        granted = self._granted(registry, roots) if roots else registry
        return reopen(self._held, granted, chunks, decode_times, mask_and_scale)

    def to_icechunk(
        self,
        store: Any,
        *,
        group: str | None = None,
        mode: Literal["w", "w-", "a", "r+"] | None = None,
        append_dim: str | None = None,
        region: Literal["auto"] | Mapping[str, Any] | None = None,
        on_duplicate: Literal["error", "skip", "replace", "allow"] = "error",
        inline_threshold: int | None = None,
        registry: Registry = None,
        validate_containers: bool = True,
        last_updated_at: datetime | None = None,
        heterogeneous: Literal["error", "materialise", "split"] = "error",
    ) -> None:
        """Write the references to an Icechunk store; see :func:`virtualchunks.writers.icechunk.write_icechunk`.

        Parameters
        ----------
        store
            The ``store`` of a writable Icechunk session, which is committed afterwards.
        group
            Path of the group to write to.
        mode
            ``"w-"`` creates and fails if there is something, ``"w"`` replaces, ``"a"`` adds variables.
        append_dim, region
            As for :meth:`xarray.Dataset.to_zarr`. A region with ``mode="a"`` puts new labels where they belong.
        on_duplicate
            What becomes of labels that `append_dim` finds stored already.
        inline_threshold
            Chunks of up to so many bytes are read now and stored in the repository.
        registry
            What may be read for that; by default what was opened by name in this process, as for :meth:`open`.
        validate_containers
            Whether each URL must lie in a virtual chunk container of the repository.
        last_updated_at
            The time that no object may have been modified after, in place of the stamp of each.
        heterogeneous
            ``"materialise"`` reads chunks that decode unlike most now and stores them in the repository, encoded as
            those are; ``"split"`` writes groups of what decodes alike; ``"error"`` says what either takes.
        """
        from virtualchunks.writers.icechunk import write_icechunk

        write_icechunk(
            self._held,
            store,
            group=group,
            mode=mode,
            append_dim=append_dim,
            region=region,
            on_duplicate=on_duplicate,
            inline_threshold=inline_threshold,
            registry=self._read_now(registry, inline_threshold, heterogeneous),
            validate_containers=validate_containers,
            last_updated_at=last_updated_at,
            heterogeneous=heterogeneous,
        )


class VirtualDataTree(_Virtual[xr.DataTree]):
    """``DataTree.virtual``: read, write and describe the references of a virtual DataTree."""

    def _nodes(self) -> Iterator[tuple[str, xr.Dataset]]:
        for node in self._held.subtree:
            yield _path(node, self._held), node.to_dataset(inherit=False)

    def _rebuilt(self, nodes: Mapping[str, xr.Dataset]) -> xr.DataTree:
        made: xr.DataTree = xr.DataTree.from_dict(
            {f"/{path}": node for path, node in nodes.items()}, name=self._held.name
        )
        return made

    def _positions(
        self, wanted: Mapping[str, Any], method: Method | None = None, tolerance: Any = None
    ) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
        nodes = {_path(node, self._held): node.to_dataset() for node in self._held.subtree}
        check_dimensions(wanted, nodes.values())
        return {path: label_positions(node, wanted, method, tolerance) for path, node in nodes.items()}

    def move(self, old: str, new: str) -> xr.DataTree:
        """Return the tree with a variable or a group at another path; groups on the way are made where they lack.

        Parameters
        ----------
        old, new
            Paths, names joined by slashes.

        Raises
        ------
        ManifestError
            If there is nothing at the old path, something at the new one, or the new one lies within the old.
        """
        source, target = old.strip("/"), new.strip("/")
        nodes = dict(self._nodes())
        check_move(source, target, [path for path in nodes if path] + [path for path, _ in self._variables()])
        if source in nodes:
            inside = f"{source}/"
            return self._rebuilt(
                {
                    target + path[len(source) :] if f"{path}/".startswith(inside) else path: node
                    for path, node in nodes.items()
                }
            )
        (group, _, name), (place, _, called) = source.rpartition("/"), target.rpartition("/")
        variable = nodes[group].variables[name]
        nodes[group] = nodes[group].drop_vars(name)
        nodes[place] = nodes.get(place, xr.Dataset()).assign({called: variable})
        return self._rebuilt(nodes)

    def open(
        self,
        registry: Registry = None,
        chunks: Any = None,
        *,
        decode_times: Any = None,
        mask_and_scale: bool = True,
        roots: Mapping[str, Places] | None = None,
    ) -> xr.DataTree:
        """Return the same tree with values, read lazily; see :meth:`VirtualDataset.open`.

        Parameters
        ----------
        registry, chunks, decode_times, mask_and_scale, roots
            As there.
        """
        granted = self._granted(registry, roots) if roots else registry
        nodes = dict(self._nodes())
        return self._rebuilt(
            {path: reopen(node, granted, chunks, decode_times, mask_and_scale) for path, node in nodes.items()}
        )

    def to_icechunk(
        self,
        store: Any,
        *,
        group: str | None = None,
        mode: Literal["w", "w-", "a", "r+"] | None = None,
        append_dim: str | None = None,
        region: Literal["auto"] | Mapping[str, Any] | None = None,
        on_duplicate: Literal["error", "skip", "replace", "allow"] = "error",
        inline_threshold: int | None = None,
        registry: Registry = None,
        write_inherited_coords: bool = False,
        validate_containers: bool = True,
        last_updated_at: datetime | None = None,
        heterogeneous: Literal["error", "materialise", "split"] = "error",
    ) -> None:
        """Write the references of every group to an Icechunk store; see :meth:`VirtualDataset.to_icechunk`.

        Parameters
        ----------
        store, group, mode, append_dim, region
            As there; labels may be those of a coordinate that a group inherits.
        on_duplicate, inline_threshold, registry, validate_containers, last_updated_at, heterogeneous
            As there.
        write_inherited_coords
            Whether a group repeats the coordinates that it inherits.
        """
        from virtualchunks.writers.icechunk import write_icechunk

        write_icechunk(
            self._held,
            store,
            group=group,
            mode=mode,
            append_dim=append_dim,
            region=region,
            on_duplicate=on_duplicate,
            inline_threshold=inline_threshold,
            registry=self._read_now(registry, inline_threshold, heterogeneous),
            write_inherited_coords=write_inherited_coords,
            validate_containers=validate_containers,
            last_updated_at=last_updated_at,
            heterogeneous=heterogeneous,
        )


def _path(node: xr.DataTree, root: xr.DataTree) -> str:
    path = node.relative_to(root)
    return "" if path == "." else str(path)


class _Accessor:
    """An accessor of instances. The class itself does not show it, so that another package can register the name."""

    def __init__(self, name: str, made: Callable[[Any], Any]) -> None:
        self._name = name
        self._made = made

    def __get__(self, held: Any, kind: Any = None) -> Any:
        if held is None:
            raise AttributeError(self._name)
        return self._made(held)


def _register() -> None:
    for holder, made in ((xr.Dataset, VirtualDataset), (xr.DataTree, VirtualDataTree)):
        for name in ("virtual", "vz", "virtualize"):
            if not hasattr(holder, name):
                setattr(holder, name, _Accessor(name, made))


_register()
