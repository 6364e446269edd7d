"""The accessor ``.virtual``: what a virtual Dataset or DataTree can do beside what xarray does.

It is also called ``.vz`` and ``.virtualize``, as VirtualiZarr calls its own, unless another package has these names.

Importing :mod:`virtualchunks` registers it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from virtualchunks.array import ManifestArray
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.manifest import IN_MEMORY
from virtualchunks.xarray.dataset import references_of
from virtualchunks.xarray.reopening import reopen

if TYPE_CHECKING:
    from datetime import datetime

    from virtualchunks.registry import ObjectStoreRegistry
    from virtualchunks.store import ManifestStore
    from virtualchunks.xarray.dataset import Registry

_COLUMNS = ("url", "size", "etag", "last_modified", "version", "variables", "chunks", "bytes")


class _Virtual[Holder: (xr.Dataset, xr.DataTree)]:
    """What the accessors of Datasets and of DataTrees have in common."""

    def __init__(self, held: Holder) -> None:
        self._held: Holder = held

    def _variables(self) -> Iterator[tuple[str, xr.Variable]]:
        raise NotImplementedError

    def _arrays(self) -> Iterator[tuple[str, ManifestArray]]:
        for path, variable in self._variables():
            array = references_of(variable)
            if array is not None:
                yield path, array

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

    def sources(self) -> pd.DataFrame:
        """Return a table of the objects referred to.

        Returns
        -------
        pandas.DataFrame
            One row per object and version: ``url``, the stamp it was parsed with (``size`` in bytes, ``etag``,
            ``last_modified``, ``version``), the ``variables`` that refer to it, and how many ``chunks`` and ``bytes``
            of it they refer to. Chunks held in memory are one row, whose url is ``"__inlined__"``.
        """
        rows: dict[Any, dict[str, Any]] = {}
        for path, array in self._arrays():
            manifest = array.manifest.compact()
            source = manifest.records["source"]
            present = manifest.present
            chunks = np.bincount(source[present], minlength=len(manifest.sources))
            size = np.zeros(len(manifest.sources), dtype=np.int64)
            np.add.at(size, source[present], manifest.records["length"][present].astype(np.int64))
            for number in np.flatnonzero(chunks).tolist():
                url, stamp = manifest.sources.url(number) or IN_MEMORY, manifest.sources.stamp(number)
                blank = {"variables": {}, "chunks": 0, "bytes": 0}
                row = rows.setdefault((url, stamp), {"url": url, **_stamp_columns(stamp), **blank})
                row["variables"][path] = None
                row["chunks"] += int(chunks[number])
                row["bytes"] += int(size[number])
        table = [{**row, "variables": tuple(row["variables"])} for row in rows.values()]
        return pd.DataFrame(table, columns=list(_COLUMNS))

    def to_store(self, registry: Registry = None) -> ManifestStore:
        """Return the references as a read-only Zarr store; loaded variables are in it as chunks held in memory.

        Parameters
        ----------
        registry
            What may be read; by default what was opened by name in this process, as for :meth:`open`.

        Raises
        ------
        NotGrantedError
            If an object was not opened by name in this process, and no registry is given.
        """
        from virtualchunks.store import ManifestStore  # zarr, which it needs, is slow to import
        from virtualchunks.writers.datasets import as_group

        return ManifestStore(as_group(self._held), registry=self._granted(registry))

    def _granted(self, registry: Registry) -> ObjectStoreRegistry:
        """Return what may be read: what is passed, or what was opened by name in this process."""
        from virtualchunks.registry import ObjectStoreRegistry
        from virtualchunks.xarray.grants import recall

        if registry is not None:
            return ObjectStoreRegistry.coerce(registry)
        return recall(dict.fromkeys(url for _, array in self._arrays() for url in array.manifest.iter_nonempty_paths()))

    def to_kerchunk(
        self,
        filepath: str | os.PathLike[str] | None = None,
        format: Literal["dict", "json", "parquet"] = "dict",
        record_size: int = 100_000,
        categorical_threshold: int = 10,
        *,
        zarr_format: Literal[2, 3] = 2,
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

    def _variables(self) -> Iterator[tuple[str, xr.Variable]]:
        for name, variable in self._held.variables.items():
            yield str(name), variable

    def open(
        self, registry: Registry = None, chunks: Any = None, *, decode_times: Any = None, mask_and_scale: bool = True
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
            As for :func:`xarray.open_dataset`.

        Raises
        ------
        NotGrantedError
            If an object was not opened by name in this process, and no registry is given.
        DecodeError
            If xarray cannot decode a variable.
        """
        return reopen(self._held, registry, chunks, decode_times, mask_and_scale)

    def rename_paths(self, new: str | Callable[[str], str]) -> xr.Dataset:
        """Return the Dataset with the URLs of the objects changed.

        Parameters
        ----------
        new
            The URL for all chunks, or a function from the old URL to the new. Stamps of the old objects are dropped.

        Raises
        ------
        URLError
            If a new URL is not acceptable.
        """
        renamed = self._held.copy()
        for name, array in self._arrays():
            renamed.variables[name].data = array.rename_paths(new)
        return renamed

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
            registry=self._granted(registry) if inline_threshold is not None else registry,
            validate_containers=validate_containers,
            last_updated_at=last_updated_at,
        )


class VirtualDataTree(_Virtual[xr.DataTree]):
    """``DataTree.virtual``: read, write and describe the references of a virtual DataTree."""

    def _variables(self) -> Iterator[tuple[str, xr.Variable]]:
        for node in self._held.subtree:
            path = node.relative_to(self._held)
            for name, variable in node.to_dataset(inherit=False).variables.items():
                yield (str(name) if path == "." else f"{path}/{name}"), variable

    def open(
        self, registry: Registry = None, chunks: Any = None, *, decode_times: Any = None, mask_and_scale: bool = True
    ) -> xr.DataTree:
        """Return the same tree with values, read lazily; see :meth:`VirtualDataset.open`.

        Parameters
        ----------
        registry, chunks, decode_times, mask_and_scale
            As there.
        """
        return self._mapped(lambda node: reopen(node, registry, chunks, decode_times, mask_and_scale))

    def rename_paths(self, new: str | Callable[[str], str]) -> xr.DataTree:
        """Return the tree with the URLs of the objects changed; see :meth:`VirtualDataset.rename_paths`.

        Parameters
        ----------
        new
            As there.
        """
        return self._mapped(lambda node: VirtualDataset(node).rename_paths(new))

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
    ) -> None:
        """Write the references of every group to an Icechunk store; see :meth:`VirtualDataset.to_icechunk`.

        Parameters
        ----------
        store, group, mode, append_dim, region
            As there; labels may be those of a coordinate that a group inherits.
        on_duplicate, inline_threshold, registry, validate_containers, last_updated_at
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
            registry=self._granted(registry) if inline_threshold is not None else registry,
            write_inherited_coords=write_inherited_coords,
            validate_containers=validate_containers,
            last_updated_at=last_updated_at,
        )

    def _mapped(self, change: Callable[[xr.Dataset], xr.Dataset]) -> xr.DataTree:
        nodes = {node.path: change(node.to_dataset(inherit=False)) for node in self._held.subtree}
        made: xr.DataTree = xr.DataTree.from_dict(nodes, name=self._held.name)
        return made


def _stamp_columns(stamp: Any) -> dict[str, Any]:
    moment = None if stamp.last_modified is None else pd.Timestamp(stamp.last_modified, unit="ns", tz="UTC")
    return {"size": stamp.size, "etag": stamp.etag, "last_modified": moment, "version": stamp.version}


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
