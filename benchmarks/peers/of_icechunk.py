"""What icechunk is asked to do; VirtualiZarr's parser and writer fill its repositories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import icechunk
import numpy as np
import xarray as xr
from of_virtualizarr import registry
from virtualizarr import open_virtual_dataset
from virtualizarr.parsers import HDFParser

Run = Callable[[], Any]
icechunk.set_logs_filter("error")


def container(url: str) -> icechunk.VirtualChunkContainer:
    """Return what grants the files beside one."""
    if url.startswith("http"):
        return icechunk.VirtualChunkContainer("{0.scheme}://{0.netloc}/".format(urlsplit(url)), icechunk.http_store())
    folder = Path(urlsplit(url).path).parent
    return icechunk.VirtualChunkContainer(f"{folder.as_uri()}/", icechunk.local_filesystem_store(str(folder)))


def read(url: str, step: int = 1) -> Run:
    granted = container(url)
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(granted)
    access = icechunk.containers_credentials({granted.url_prefix: None})
    repo = icechunk.Repository.create(icechunk.in_memory_storage(), config, authorize_virtual_chunk_access=access)
    session = repo.writable_session("main")
    found = open_virtual_dataset(url, registry=registry(url), parser=HDFParser(), loadable_variables=[])
    found.vz.to_icechunk(session.store)
    session.commit("references")
    store = repo.readonly_session("main").store
    return lambda: xr.open_zarr(store, consolidated=False, zarr_format=3, chunks=None)["v"][::step].values.shape[0]


def open_zarr(count: int) -> Run:
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repo.writable_session("main")
    made = xr.Dataset({f"v{number:03d}": ("x", np.zeros(4, "f4")) for number in range(count)})
    made.to_zarr(session.store, zarr_format=3, consolidated=False)
    session.commit("values")
    store = repo.readonly_session("main").store
    return lambda: len(xr.open_zarr(store, consolidated=False, zarr_format=3, chunks=None))


CASES: dict[str, Callable[..., Run]] = {case.__name__: case for case in (read, open_zarr)}
