"""What VirtualiZarr is asked to do."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import memory
import numpy as np
import xarray as xr
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import HTTPStore, LocalStore, MemoryStore
from virtualizarr import open_virtual_dataset, open_virtual_mfdataset
from virtualizarr.manifests import ChunkManifest, ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.parsers import HDFParser, KerchunkJSONParser, KerchunkParquetParser
from zarr.core.metadata.v3 import ArrayV3Metadata

Run = Callable[[], Any]
REGULAR = {"name": "regular", "configuration": {"chunk_shape": [1, 4]}}
KEYS = {"name": "default", "configuration": {"separator": "/"}}
LITTLE = [{"name": "bytes", "configuration": {"endian": "little"}}]


def registry(url: str) -> ObjectStoreRegistry:
    """Return a registry that grants what a URL names."""
    if url.startswith("http"):
        root = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        return ObjectStoreRegistry({root: HTTPStore.from_url(root, client_options={"allow_http": True})})
    return ObjectStoreRegistry({"file://": LocalStore()})


def metadata(shape: tuple[int, ...], chunks: tuple[int, ...], names: tuple[str, ...]) -> ArrayV3Metadata:
    """Return the metadata of an array of floats."""
    return ArrayV3Metadata.from_dict(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(shape),
            "data_type": "float32",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
            "chunk_key_encoding": KEYS,
            "fill_value": 0.0,
            "codecs": LITTLE,
            "attributes": {},
            "dimension_names": list(names),
        }
    )


def manifest(count: int, files: int, *, validate: bool = False, width: int | None = None) -> ChunkManifest:
    """Return references over files with URLs of 100 characters."""
    names = np.repeat(np.array(memory.urls(files), dtype=np.dtypes.StringDType()), count // files)
    offsets, lengths = np.arange(count, dtype="u8") * 1000, np.full(count, 1000, dtype="u8")
    shape = (count,) if width is None else (count, width)
    columns = {"paths": names, "offsets": offsets, "lengths": lengths}
    return ChunkManifest.from_arrays(
        **{name: column.reshape(shape) for name, column in columns.items()}, validate_paths=validate
    )


def read(url: str, step: int = 1) -> Run:
    store = HDFParser()(url, registry(url))
    return lambda: xr.open_zarr(store, consolidated=False, zarr_format=3, chunks=None)["v"][::step].values.shape[0]


def read_memory(url: str) -> Run:
    run = read(url)
    return lambda: memory.over(run)[0]


def parse(url: str) -> Run:
    return lambda: bool(HDFParser()(url, registry(url)))


def open_one(url: str) -> Run:
    granted = registry(url)
    return lambda: len(open_virtual_dataset(url, registry=granted, parser=HDFParser(), loadable_variables=[]))


def open_many(urls: list[str], threads: int = 0) -> Run:
    options: dict[str, Any] = {"combine": "nested", "concat_dim": "time", "parser": HDFParser()}
    options |= {"coords": "minimal", "compat": "override", "data_vars": "minimal"}

    def run() -> int:
        if not threads:
            return len(open_virtual_mfdataset(urls, registry(urls[0]), **options))
        with ThreadPoolExecutor(threads) as pool:
            return len(open_virtual_mfdataset(urls, registry(urls[0]), parallel=pool, **options))

    return run


def open_zarr(count: int) -> Run:
    parsed = metadata((4,), (2,), ("x",))
    entries = {str(i): {"path": "s3://bucket/a.nc", "offset": i * 8, "length": 8} for i in range(2)}
    arrays = {f"v{i:03d}": ManifestArray(parsed, ChunkManifest(entries)) for i in range(count)}
    group = ManifestGroup(arrays=arrays, attributes={})
    store = ManifestStore(group, registry=ObjectStoreRegistry({"s3://bucket": MemoryStore()}))
    return lambda: len(xr.open_zarr(store, zarr_format=3, consolidated=False, chunks=None))


def references(count: int, files: int) -> Run:
    """Memory and pickling of references, in a process that did nothing else."""
    manifest(1000, 10)

    def run() -> dict[str, float]:
        names = np.array(memory.urls(files), dtype=np.dtypes.StringDType())
        _, kept, made = memory.over(lambda: manifest(count, files))
        data = pickle.dumps(made) if count <= 10**6 else b""
        del names
        return {"rss": kept / count, "nbytes": made.nbytes / count, "pickle": len(data) / count}

    return run


def build(count: int, files: int, validate: bool) -> Run:
    names = np.repeat(np.array(memory.urls(files), dtype=np.dtypes.StringDType()), count // files)
    columns = {"offsets": np.arange(count, dtype="u8") * 1000, "lengths": np.full(count, 1000, dtype="u8")}
    return lambda: len(ChunkManifest.from_arrays(paths=names, validate_paths=validate, **columns).shape_chunk_grid)


def build_memory(count: int, files: int, validate: bool) -> Run:
    run = build(count, files, validate)
    return lambda: memory.over(run)[0] / count


def send(count: int, files: int) -> Run:
    made = manifest(count, files)
    return lambda: len(pickle.loads(pickle.dumps(made)).shape_chunk_grid)


def send_small() -> Run:
    made = ManifestArray(metadata((100, 4), (1, 4), ("t", "x")), manifest(100, 1, width=1))
    return lambda: len(pickle.dumps(made))


def make_array() -> Run:
    """Metadata from a document, and an array: the time of a thousand."""
    document = metadata((100, 4), (1, 4), ("t", "x")).to_dict()
    entries = {f"{i}.0": {"path": "s3://bucket/a.nc", "offset": i, "length": 16} for i in range(100)}
    made = ChunkManifest(entries)
    return lambda: len([ManifestArray(ArrayV3Metadata.from_dict(document), made) for _ in range(1000)])


def pieces(count: int) -> list[ManifestArray]:
    """Return many arrays of 100 chunks, each over one file."""
    parsed, text = metadata((100, 4), (1, 4), ("t", "x")), np.dtypes.StringDType()
    offsets = (np.arange(100, dtype="u8") * 1000).reshape(100, 1)
    lengths = np.full((100, 1), 1000, dtype="u8")
    return [
        ManifestArray(
            parsed,
            ChunkManifest.from_arrays(
                paths=np.full((100, 1), f"s3://bucket/archive/{i:06d}.nc".ljust(100, "x"), dtype=text),
                offsets=offsets,
                lengths=lengths,
                validate_paths=False,
            ),
        )
        for i in range(count)
    ]


def join(count: int) -> Run:
    parts = pieces(count)
    return lambda: np.concatenate(parts).shape[0]


def join_memory(count: int) -> Run:
    parts = pieces(count)
    return lambda: memory.over(lambda: np.concatenate(parts))[0]


def join_datasets(count: int) -> Run:
    parts = [xr.Dataset({"v": (("t", "x"), array)}) for array in pieces(count)]
    options: dict[str, Any] = {"dim": "t", "data_vars": "minimal", "coords": "minimal", "compat": "override"}
    return lambda: xr.concat(parts, join="override", **options).sizes["t"]


def rename(count: int, files: int, old: str, new: str) -> Run:
    made = manifest(count, files)
    return lambda: len(made.rename_paths(lambda url: url.replace(old, new)).shape_chunk_grid)


def dataset(count: int, files: int) -> xr.Dataset:
    """Return references as a virtual dataset."""
    parsed = metadata((count, 10), (1, 10), ("time", "x"))
    return xr.Dataset({"air": (("time", "x"), ManifestArray(parsed, manifest(count, files, width=1)))})


def write_kerchunk(path: str, form: str, count: int, files: int, record_size: int) -> Run:
    made = dataset(count, files)
    options = {"record_size": record_size} if form == "parquet" else {}
    return lambda: made.vz.to_kerchunk(path, format=form, **options)


def read_kerchunk(path: str, form: str) -> Run:
    parser = {"json": KerchunkJSONParser, "parquet": KerchunkParquetParser}[form]()
    return lambda: bool(parser(Path(path).as_uri(), registry("file://")))


def write_icechunk(count: int, files: int) -> Run:
    import icechunk

    made = dataset(count, files)

    def run() -> float:
        config = icechunk.RepositoryConfig.default()
        container = icechunk.VirtualChunkContainer(f"{memory.FOLDER}/", icechunk.s3_store(region="x"))
        config.set_virtual_chunk_container(container)
        repo = icechunk.Repository.create(icechunk.in_memory_storage(), config)
        session = repo.writable_session("main")
        start = time.process_time()
        made.vz.to_icechunk(session.store)
        session.commit("references")
        return time.process_time() - start

    return run


CASES: dict[str, Callable[..., Run]] = {
    case.__name__: case
    for case in (
        read,
        read_memory,
        parse,
        open_one,
        open_many,
        open_zarr,
        references,
        build,
        build_memory,
        send,
        send_small,
        make_array,
        join,
        join_memory,
        join_datasets,
        rename,
        write_kerchunk,
        read_kerchunk,
        write_icechunk,
    )
}
