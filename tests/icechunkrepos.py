"""Icechunk repositories for tests: made, written to and read, by icechunk, zarr and xarray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import xarray as xr
import zarr

from virtualchunks import (
    ArrayMetadata,
    Axis,
    ChunkEncoding,
    ChunkGrid,
    ChunkManifest,
    ManifestArray,
    SourceTable,
    Stamp,
)
from virtualchunks.encoding import bytes_codec
from virtualchunks.inline import encode_array
from virtualchunks.urls import as_url
from virtualchunks.writers.icechunk import write_icechunk

GZIP = {"name": "gzip", "configuration": {"level": 1}}


def repository(folder: Path, *prefixes: str) -> icechunk.Repository:
    """Return a repository in memory that may refer to files of a folder."""
    prefixes = prefixes or (as_url(folder) + "/",)
    config = icechunk.RepositoryConfig.default()
    for prefix in prefixes:
        store = (
            icechunk.local_filesystem_store(str(folder)) if prefix.startswith("file") else icechunk.s3_store(region="x")
        )
        config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, store))
    access: dict[str, Any] = {
        prefix: icechunk.Credentials.LocalFileSystemAccess() for prefix in prefixes if prefix.startswith("file")
    }
    return icechunk.Repository.create(icechunk.in_memory_storage(), config, authorize_virtual_chunk_access=access)


def commit(repo: icechunk.Repository, tree: Any, **options: Any) -> None:
    session = repo.writable_session("main")
    write_icechunk(tree, session.store, **options)
    session.commit("references")


def opened(repo: icechunk.Repository, **options: Any) -> xr.Dataset:
    store = repo.readonly_session("main").store
    with zarr.config.set({"array.rectilinear_chunks": True}):
        return xr.open_zarr(store, consolidated=False, zarr_format=3, chunks=None, **options).load()


def zarr_group(repo: icechunk.Repository) -> zarr.Group:
    return zarr.open_group(repo.readonly_session("main").store, mode="r", zarr_format=3)


def on_disk(
    path: Path,
    values: np.ndarray,
    chunks: tuple[Any, ...],
    *,
    stored: str | None = None,
    compressors: tuple[dict, ...] = (),
    dims: tuple[str, ...] = ("time", "x"),
    drop: tuple[int, ...] = (),
    memory: tuple[int, ...] = (),
    stamp: Stamp | None = None,
    fill=None,
    **attributes: Any,
) -> ManifestArray:
    """Write values as chunks of one file, encoded by zarr, and return references to them."""
    dtype = np.dtype(values.dtype if stored is None else stored)
    axes = [
        Axis(size, edges=chunk) if isinstance(chunk, tuple) else Axis(size, chunk=chunk)
        for size, chunk in zip(values.shape, chunks, strict=True)
    ]
    metadata = ArrayMetadata(
        ChunkGrid(tuple(axes)),
        dtype,
        ChunkEncoding(dtype, (bytes_codec(dtype), *compressors)),
        fill,
        dims[: values.ndim],
        attributes,
    )
    entries, offset = {}, 7
    with path.open("wb") as file:
        file.write(b"\0" * offset)
        for number, (key, entry) in enumerate(encode_array(values, metadata).items()):
            if number in drop:
                continue
            if number in memory:
                entries[key] = {"data": entry["data"]}
                continue
            file.write(entry["data"])
            entries[key] = {"path": str(path), "offset": offset, "length": len(entry["data"])}
            offset += len(entry["data"])
    manifest = ChunkManifest(entries, shape=metadata.grid.grid_shape)
    if stamp is not None:
        table = SourceTable.of_urls(list(manifest.sources.urls), [stamp] * len(manifest.sources))
        manifest = ChunkManifest.from_records(manifest.records, table.replace(buffers=manifest.sources.buffers))
    return ManifestArray(metadata, manifest)


def numbers(shape: tuple[int, ...], dtype="<i4", start: int = 0) -> np.ndarray:
    return (np.arange(np.prod(shape, dtype=int)).reshape(shape) + start).astype(dtype)


def month(
    folder: Path, days: int, start: str, *, chunk: int | None = None, **options: Any
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return a virtual Dataset of some days, and the same with values."""
    time = pd.date_range(start, periods=days)
    values = numbers((days, 4), "<f4", start=int(time[0].day_of_year) * 100)
    array = on_disk(folder / f"{start}.bin", values, (chunk or days, 2), **options)
    coordinates = {"time": time, "x": ("x", [1.0, 2.0, 3.0, 4.0])}
    make = [xr.Dataset({"v": (("time", "x"), data, {"units": "K"})}, coordinates) for data in (array, values)]
    return make[0], make[1]
