"""What kerchunk is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fsspec
import memory
import numpy as np
import xarray as xr
from kerchunk.combine import MultiZarrToZarr
from kerchunk.hdf import SingleHdf5ToZarr
from kerchunk.utils import refs_as_store

Run = Callable[[], Any]


def translate(url: str) -> dict[str, Any]:
    """Return the references of one file, read with fsspec's defaults."""
    with fsspec.open(url, "rb") as file:
        references: dict[str, Any] = SingleHdf5ToZarr(file, url, inline_threshold=0).translate()
    return references


def read(url: str, step: int = 1) -> Run:
    found = translate(url)
    protocol = url.split(":")[0]

    def run() -> int:
        store = refs_as_store(found, remote_protocol=protocol)
        values = xr.open_zarr(store, zarr_format=2, consolidated=False, chunks=None)["v"][::step].values
        return int(values.shape[0])

    return run


def parse(url: str) -> Run:
    return lambda: len(translate(url))


def open_many(urls: list[str], threads: int = 0) -> Run:
    if threads:
        raise ValueError("kerchunk opens files one after the other")
    options = {"concat_dims": ["time"], "identical_dims": ["lat", "lon"], "remote_protocol": urls[0].split(":")[0]}
    return lambda: len(MultiZarrToZarr([translate(url) for url in urls], **options).translate())


def open_zarr(count: int) -> Run:
    array = (
        '{"zarr_format":2,"shape":[4],"chunks":[2],"dtype":"<f4","compressor":null,"fill_value":0,"order":"C",'
        '"filters":null}'
    )
    found: dict[str, Any] = {".zgroup": '{"zarr_format":2}'}
    for number in range(count):
        name = f"v{number:03d}"
        found[f"{name}/.zarray"], found[f"{name}/.zattrs"] = array, '{"_ARRAY_DIMENSIONS":["x"]}'
        found |= {f"{name}/{i}": ["s3://bucket/a.nc", i * 8, 8] for i in range(2)}
    store = refs_as_store({"version": 1, "refs": found}, remote_protocol="memory")
    return lambda: len(xr.open_zarr(store, zarr_format=2, consolidated=False, chunks=None))


def references(count: int, files: int) -> Run:
    """Memory of references as a dictionary, in a process that did nothing else."""

    def made() -> dict[str, Any]:
        names = memory.urls(files)
        each = count // files
        return {f"v/{i}": [names[i // each], offset, 1000] for i, offset in enumerate(np.arange(count).tolist())}

    return lambda: {"rss": memory.over(made)[1] / count}


CASES: dict[str, Callable[..., Run]] = {case.__name__: case for case in (read, parse, open_many, open_zarr, references)}
