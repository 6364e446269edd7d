"""Figures of reading values: many small chunks, local and over HTTP with latency, beside the bound and the peer."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import obstore
import xarray as xr
import zarr
from latency import Latency
from measure import HAS_PEER, Row, alternately, best
from obstore.store import HTTPStore, LocalStore

import virtualchunks as vc
from virtualchunks.reading.values import read_values

COUNT = 10_000


def run() -> Iterator[Row]:
    """Measure everything here."""
    with tempfile.TemporaryDirectory() as name:
        for measure in (_opening, _local, _remote):
            yield from measure(Path(name))


def write(path: Path, chunk: int, **options: Any) -> Path:
    """Write 10,000 chunks of a number of bytes, as one 2-D variable."""
    width = chunk // 4
    values = np.random.default_rng(0).integers(0, 1000, (COUNT, width)).astype("i4")
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=values, chunks=(1, width), **options)
    return path


def records_of(store: Any) -> list[tuple[int, int]]:
    """Offsets and lengths of the chunks."""
    records = store.group["v"].manifest.records.reshape(-1)
    return list(zip(records["offset"].tolist(), records["length"].tolist(), strict=True))


def bound(store: Any, name: str, spans: list[tuple[int, int]], width: int) -> Callable[[], Any]:
    """The least work: one call for all ranges, each put into place."""
    starts, lengths = [start for start, _ in spans], [length for _, length in spans]

    def read() -> Any:
        out = np.empty((COUNT, width), dtype="i4")
        found = obstore.get_ranges(store, name, starts=starts, lengths=lengths)
        for row, data in enumerate(found):
            out[row] = np.frombuffer(data, dtype="i4")
        return out

    return read


def _values(path: Path) -> Callable[[], Any]:
    return lambda: xr.open_dataset(path, engine="virtualchunks", parser="hdf5")["v"].values


def _zarr(path: Path) -> Callable[[], Any]:
    store = vc.open_store(path)
    return lambda: xr.open_zarr(store, consolidated=True, zarr_format=3, chunks=None)["v"].values


def _fused(read: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"}):
            return read()

    return run


def _peer(path: Path) -> Callable[[], Any]:
    from obspec_utils.registry import ObjectStoreRegistry
    from virtualizarr.parsers import HDFParser

    store = HDFParser()(path.as_uri(), ObjectStoreRegistry({"file://": LocalStore()}))
    return lambda: xr.open_zarr(store, consolidated=False, zarr_format=3, chunks=None)["v"].values


def _h5py(path: Path) -> Any:
    with h5py.File(path) as file:
        return file["v"][...]


def _bulk(path: Path, threads: int | None = None) -> Callable[[], Any]:
    array = vc.open_store(path).to_zarr("v")

    def run() -> Any:
        with zarr.config.set({"threading.max_workers": threads}):
            return array[...]

    return run


def _threads(path: Path, count: int) -> Callable[[], Any]:
    store = vc.open_store(path)

    def run() -> Any:
        with zarr.config.set({"threading.max_workers": count}):
            return store.read("v")

    return run


def _in_memory(path: Path) -> Callable[[], Any]:
    """The same values in zarr's own MemoryStore, in the same chunks: what zarr itself takes, with no reading at all."""
    store = zarr.storage.MemoryStore()
    values = _h5py(path)
    encoding = {"v": {"chunks": (1, values.shape[1]), "compressors": ()}}
    xr.Dataset({"v": (("y", "x"), values)}).to_zarr(store, zarr_format=3, consolidated=True, encoding=encoding)
    return lambda: xr.open_zarr(store, consolidated=True, zarr_format=3, chunks=None)["v"].values


def _local(folder: Path) -> list[Row]:
    small = write(folder / "small.h5", 4096)
    spans = records_of(vc.open_store(small))
    memory = _in_memory(small)
    runs = {"ours": _values(small), "zarr": _zarr(small), "fused": _fused(_zarr(small)), "bulk": _bulk(small)}
    runs |= {"memory": memory, "memory, fused": _fused(memory)}
    runs["bound"] = bound(LocalStore(folder), small.name, spans, 1024)
    if HAS_PEER:
        runs["peer"] = _peer(small)
    times = alternately(runs, 3)
    label = "read 10,000 × 4 KiB, local"
    shown = (
        ("xarray engine", "ours", "bound", "<= 3 ×; <= 0.08 × the peer"),
        ("xr.open_zarr", "zarr", "bound", "<= 0.6 × the peer"),
        ("xr.open_zarr (bound: MemoryStore)", "zarr", "memory", ""),
        ("xr.open_zarr, fused", "fused", "bound", "<= 0.25 × the peer"),
        ("xr.open_zarr, fused (bound: MemoryStore)", "fused", "memory, fused", ""),
        ("store.to_zarr()", "bulk", "bound", ""),
    )
    return [
        *(Row(f"{label}: {name}", times[run], "s", times[base], times.get("peer"), t) for name, run, base, t in shown),
        *_packed(folder),
        *_transcoded(folder),
    ]


def _packed(folder: Path) -> list[Row]:
    packed = write(folder / "packed.h5", 16_384, compression="gzip", shuffle=True)
    runs = {"ours": _values(packed), "one": _threads(packed, 1), "two": _threads(packed, 2), "bulk": _bulk(packed)}
    runs["bound"] = lambda: _h5py(packed)
    if HAS_PEER:
        runs["peer"] = _peer(packed)
    times = alternately(runs, 3)
    label = "read 10,000 × 16 KiB gzip+shuffle, local (bound: h5py)"
    shown = (
        (label, "ours", ""),
        ("the same, one thread", "one", "<= 1.3 ×"),
        ("the same, two threads", "two", "< 1 ×"),
        ("the same, store.to_zarr()", "bulk", ""),
    )
    return [Row(name, times[run], "s", times["bound"], times.get("peer"), target) for name, run, target in shown]


def _transcoded(folder: Path) -> list[Row]:
    """Two packings joined, served by the store, beside the decoding of the same bytes with numcodecs and NumPy."""
    count, shape, packings = 300, (1, 128, 256), ((0.01, 10.0), (0.02, 20.0))
    registry = vc.ObjectStoreRegistry({folder.as_uri(): None})
    parts = []
    for number, (scale, offset) in enumerate(packings):
        path = folder / f"packed{number}.h5"
        with h5py.File(path, "w") as file:
            steps = np.random.default_rng(number).integers(-3, 4, (count, *shape[1:]))
            values = np.cumsum(steps, axis=2).astype("<i2")
            data = file.create_dataset("v", data=values, chunks=shape, compression="gzip", shuffle=True)
            data.attrs.update({"scale_factor": scale, "add_offset": offset, "_FillValue": np.int16(-32768)})
        opened = vc.open_virtual_dataset(path, registry=registry, mask_and_scale=True, loadable_variables=[])
        parts.append(opened["v"].data)
    array = np.concatenate(parts)
    store = vc.ManifestStore(vc.ManifestGroup({"v": array}), registry=registry)
    keys = [f"v/c/{number}/0/0" for number in range(2 * count)]
    places = [
        (path.read_bytes(), parts[n].manifest.records) for n, path in enumerate(sorted(folder.glob("packed?.h5")))
    ]
    stored = [
        data[record["offset"] : int(record["offset"]) + int(record["length"])]
        for data, records in places
        for record in records.reshape(-1)
    ]
    unpack, unshuffle = numcodecs.Zlib(), numcodecs.Shuffle(2)

    def direct() -> None:
        for number, data in enumerate(stored):
            block = np.frombuffer(unshuffle.decode(unpack.decode(data)), "<i2").reshape(shape)
            values = block.astype(array.dtype)
            values[block == -32768] = np.nan
            scale, offset = packings[number // count]
            values *= scale
            values += offset

    times = alternately({"ours": lambda: [store.get_sync(key) for key in keys], "bound": direct}, 5)
    label = "transcode 600 × 64 KiB (bound: numcodecs and NumPy)"
    return [Row(label, times["ours"], "s", times["bound"], target="<= 2 ×")]


def _remote(folder: Path) -> list[Row]:
    rows = []
    write(folder / "large.h5", 65_536)
    with Latency(folder) as server:
        registry = vc.ObjectStoreRegistry({server.root: None})
        for name, width, most, wall in (("small.h5", 1024, 4, "<= 2.5 ×"), ("large.h5", 16_384, 45, "")):
            store = vc.open_store(f"{server.root}/{name}", registry, "hdf5")
            array = store.group["v"]
            least = bound(
                HTTPStore.from_url(server.root, client_options={"allow_http": True}), name, records_of(store), width
            )
            server.count()
            took = best(lambda array=array: read_values(array, registry), 1)
            ours = server.count()
            took = min(took, best(lambda array=array: read_values(array, registry), 2))
            size = f"10,000 × {width * 4 // 1024} KiB over HTTP"
            server.count()
            rows.append(Row(f"{size}: requests", ours["requests"], "", target=f"<= {most}"))
            rows.append(Row(f"{size}: wall", took, "s", best(least, 3), target=wall))
            tracemalloc.start()
            read_values(array, registry)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            rows.append(Row(f"{size}: peak memory (bound: the array)", peak, "B", array.size * 4, target="<= 1.2 ×"))
        server.count()
        store = vc.open_store(f"{server.root}/large.h5", registry, "hdf5")
        server.count()
        read_values(store.group["v"], registry, np.arange(0, COUNT, 100))
        needed = COUNT // 100 * 65_536
        rows.append(Row("1 % of the chunks of a file: bytes", server.count()["bytes"], "B", needed, target="<= 1.3 ×"))
    return rows


def _opening(folder: Path) -> list[Row]:
    metadata = vc.ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="<f4", dimension_names=("x",))
    entries = {str(i): {"path": "s3://bucket/a.nc", "offset": i * 8, "length": 8} for i in range(2)}
    arrays = {f"v{i:03d}": vc.ManifestArray(metadata, vc.ChunkManifest(entries)) for i in range(500)}
    store = vc.ManifestStore(vc.ManifestGroup(arrays))
    memory = zarr.storage.MemoryStore()
    xr.Dataset({name: ("x", np.zeros(4, "f4")) for name in arrays}).to_zarr(memory, zarr_format=3, consolidated=False)
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: xr.open_zarr(store, zarr_format=3, chunks=None),
        "bound": lambda: xr.open_zarr(memory, zarr_format=3, consolidated=False, chunks=None),
    }
    times = alternately(runs, 3)
    return [
        Row("xr.open_zarr of 500 variables (bound: MemoryStore)", times["ours"], "s", times["bound"], target="<= 1.3 ×")
    ]


if __name__ == "__main__":
    for row in run():
        print(row.text(), flush=True)
