"""Rows 1 to 10 of the main table: reading and opening, ours, the bound and the peers in turn, in one window of time.

``reading.py``, ``opening.py`` and ``parsing.py`` have more about each.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import obstore
import xarray as xr
import zarr
from latency import Latency
from measure import QUICK, Row, alternately, best, in_process
from obstore.store import HTTPStore, LocalStore
from parsing import many_variables, walk
from peers import alone, cases

import virtualchunks as vc

COUNT = 10_000
Runs = dict[str, Callable[[], Any]]


def write(path: Path, chunk: int, **options: Any) -> Path:
    """Write 10,000 chunks of a number of bytes, as one 2-D variable."""
    width = chunk // 4
    values = np.random.default_rng(0).integers(0, 1000, (COUNT, width)).astype("i4")
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=values, chunks=(1, width), **options)
    return path


def row(what: str, times: dict[str, float], target: str, number: str, unit: str = "s", ours: str = "ours") -> Row:
    """Return a line of what was measured for ours, the bound and the peers."""
    peers = (times.get(name) for name in ("virtualizarr", "kerchunk", "icechunk"))
    peer, kerchunk, icechunk = peers
    return Row(what, times[ours], unit, times.get("bound"), peer, target, number, kerchunk, icechunk)


def engine(name: str | Path, registry: Any = None) -> xr.DataArray:
    """Return the variable, opened with the xarray engine."""
    return xr.open_dataset(name, engine="virtualchunks", parser="hdf5", registry=registry)["v"]


def plain(path: Path) -> Callable[[], Any]:
    """Read through the store, as any reader of Zarr would."""
    store = vc.open_store(path)
    return lambda: xr.open_zarr(store, chunks=None)["v"].values


def fused(read: Callable[[], Any]) -> Any:
    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"}):
        return read()


def ranges(store: Any, path: Path) -> Callable[[], Any]:
    """The bound for reading: one call for all ranges, each put into place."""
    records = vc.open_store(path).group["v"].manifest.records.reshape(-1)
    starts, lengths = records["offset"].tolist(), records["length"].tolist()
    width = lengths[0] // 4

    def read() -> Any:
        out = np.empty((COUNT, width), dtype="i4")
        for place, data in enumerate(obstore.get_ranges(store, path.name, starts=starts, lengths=lengths)):
            out[place] = np.frombuffer(data, dtype="i4")
        return out

    return read


def with_h5py(path: Path) -> Any:
    with h5py.File(path) as file:
        return file["v"][...]


def local(folder: Path) -> Iterator[Row]:
    """Rows 1 to 3."""
    small = write(folder / "small.h5", 4096)
    runs: Runs = {
        "ours": lambda: engine(small).values,
        "plain": plain(small),
        "fused": partial(fused, plain(small)),
        "bound": ranges(LocalStore(folder), small),
        **cases("read", url=small.as_uri()),
    }
    times = alternately(runs, 3)
    yield row("read 10,000 × 4 KiB, local: xarray engine", times, "<= 3 ×; <= 0.08 × the peer", "1")
    yield row("the same through xr.open_zarr(store)", times, "<= 0.6 × the peer", "2", ours="plain")
    yield row("the same, zarr's fused pipeline", times, "<= 0.25 × the peer", "2", ours="fused")
    packed = write(folder / "packed.h5", 16_384, compression="gzip", shuffle=True)
    one = in_process(ONE_CORE.format(path=str(packed)))
    label = "read 10,000 × 16 KiB, gzip and shuffle (bound: h5py)"
    yield Row(f"{label}, one core", one["ours"], "s", one["bound"], target="<= 1.3 ×", number="3")
    runs = {"ours": lambda: engine(packed).values, "bound": lambda: with_h5py(packed)}
    times = alternately({**runs, **cases("read", url=packed.as_uri())}, 3)
    yield row(f"the same, {os.cpu_count()} cores", times, "< 1 ×", "3")


ONE_CORE = """
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from measure import alternately
from sidebyside import engine, with_h5py
path = {path!r}
print(json.dumps(alternately({{"ours": lambda: engine(path).values, "bound": lambda: with_h5py(path)}}, 3)))
"""

MEMORY = """
from peers import memory
import virtualchunks as vc
from sidebyside import engine
registry = vc.ObjectStoreRegistry({{{root!r}: None}})
engine({warm!r}, registry)[:10].values
values = engine({url!r}, registry)
print(json.dumps({{"peak": memory.over(lambda: values.values)[0]}}))
"""


def remote(folder: Path) -> Iterator[Row]:
    """Rows 4 to 6, over files that :func:`local` wrote."""
    write(folder / "large.h5", 65_536)
    with Latency(folder) as server:
        store = HTTPStore.from_url(server.root, client_options={"allow_http": True})
        small, large = f"{server.root}/small.h5", f"{server.root}/large.h5"
        yield from _wall(server, small, ranges(store, folder / "small.h5"))
        yield from _memory(server, small, large)
        yield _strided(server, large)


def _wall(server: Latency, url: str, bound: Callable[[], Any]) -> Iterator[Row]:
    array = engine(url, vc.ObjectStoreRegistry({server.root: None}))
    runs: Runs = {"ours": lambda: array.copy(deep=False).values, "bound": bound}
    runs |= {} if QUICK else cases("read", url=url)
    counts, times = {}, {}
    for name, run in runs.items():
        server.count()
        times[name] = best(run, 1)
        counts[name] = float(server.count()["requests"])
    for name in ("ours", "bound"):
        times[name] = min(times[name], best(runs[name], 3))
    label = "10,000 × 4 KiB over HTTP at 20 ms"
    yield row(f"{label}: requests", counts, "<= 4", "4", "")
    yield row(f"{label}: wall", times, "<= 2.5 ×", "4")


def _memory(server: Latency, warm: str, url: str) -> Iterator[Row]:
    registry = vc.ObjectStoreRegistry({server.root: None})
    values = engine(url, registry)
    server.count()
    assert values.values.shape[0] == COUNT
    counts = {"ours": float(server.count()["requests"])}
    peaks = {"bound": float(values.size * 4)}
    del values
    peaks["ours"] = in_process(MEMORY.format(root=server.root, warm=warm, url=url))["peak"]
    server.count()
    theirs = None if QUICK else alone("virtualizarr", "read_memory", url=url)
    if theirs is not None:
        peaks["virtualizarr"], counts["virtualizarr"] = theirs.value, float(server.count()["requests"])
    label = "10,000 × 64 KiB (655 MB) over HTTP"
    yield row(f"{label}: requests", counts, "<= 45", "5", "")
    yield row(f"{label}: peak memory (bound: the array)", peaks, "<= 1.2 ×", "5", "B")


def _strided(server: Latency, url: str) -> Row:
    values = engine(url, vc.ObjectStoreRegistry({server.root: None}))
    runs: Runs = {"ours": lambda: values[::100].values, **cases("read", url=url, step=100)}
    counts = {"bound": COUNT // 100 * 65_536.0}
    for name, run in runs.items():
        server.count()
        run()
        counts[name] = float(server.count()["bytes"])
    return row("1 % of the chunks of one file, strided: bytes", counts, "<= 1.3 ×", "6", "B")


def variables(folder: Path) -> Iterator[Row]:
    """Rows 7 and 8."""
    metadata = vc.ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="<f4", dimension_names=("x",))
    entries = {str(i): {"path": "s3://bucket/a.nc", "offset": i * 8, "length": 8} for i in range(2)}
    arrays = {f"v{i:03d}": vc.ManifestArray(metadata, vc.ChunkManifest(entries)) for i in range(500)}
    store = vc.ManifestStore(vc.ManifestGroup(arrays))
    held = zarr.storage.MemoryStore()
    xr.Dataset({name: ("x", np.zeros(4, "f4")) for name in arrays}).to_zarr(held, zarr_format=3, consolidated=False)
    runs: Runs = {
        "ours": lambda: xr.open_zarr(store, chunks=None),
        "bound": lambda: xr.open_zarr(held, zarr_format=3, consolidated=False, chunks=None),
        **cases("open_zarr", count=500),
    }
    times = alternately(runs, 3)
    yield row("xr.open_zarr of 500 variables (bound: MemoryStore)", times, "<= 1.3 ×", "7")
    calls = float(_calls(store))
    yield Row("the same: calls of the store", calls, "", target="<= 3", number="7")
    path = many_variables(folder)
    url = path.as_uri()
    registry = vc.ObjectStoreRegistry({folder.as_uri() + "/": None})
    runs = {
        "ours": lambda: vc.open_virtual_dataset(url, registry, loadable_variables=[]),
        "bound": lambda: walk(path),
        **cases("open_one", url=url),
        **cases("parse", ("kerchunk",), url=url),
    }
    times = alternately(runs, 5)
    yield row("open_virtual_dataset of 200 variables (bound: h5py's walk)", times, "<= 1.6 ×", "8")


def _calls(store: Any) -> int:
    """Count what a reader of Zarr 3 asks of a store when it opens it."""
    count = 0

    class Counted(type(store)):  # type: ignore[misc]  # the store's own class
        async def get(self, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            return await super().get(*arguments, **options)

        def list_dir(self, prefix: str) -> Any:
            nonlocal count
            count += 1
            return super().list_dir(prefix)

    xr.open_zarr(Counted(store.group), zarr_format=3, chunks=None)
    return count


def archive(folder: Path, count: int) -> list[Path]:
    """Write files of three variables and three coordinates, a step of time in each."""
    folder.mkdir()
    paths = [folder / f"{number:04d}.nc" for number in range(count)]
    for number, path in enumerate(paths):
        with h5py.File(path, "w") as file:
            for name, values in (("time", [float(number)]), ("lat", np.arange(40.0)), ("lon", np.arange(50.0))):
                file[name] = np.asarray(values)
                file[name].make_scale(name)
            for name in ("a", "b", "c"):
                data = np.full((1, 40, 50), number, dtype="f4")
                made = file.create_dataset(name, data=data, chunks=(1, 20, 25), compression="gzip")
                made.attrs["units"] = "K"
                for axis, scale in enumerate(("time", "lat", "lon")):
                    made.dims[axis].attach_scale(file[scale])
    return paths


def walk_all(paths: list[Path]) -> int:
    """The bound for many files: h5py reads chunks, attributes and coordinates of each."""
    count = 0
    for path in paths:
        count += walk(path)
        with h5py.File(path) as file:
            count += sum(len(file[name][...]) for name in ("time", "lat", "lon"))
    return count


def many(folder: Path) -> Iterator[Row]:
    """Rows 9 and 10."""
    paths = archive(folder / "archive", 200)
    urls = [path.as_uri() for path in paths]
    registry = vc.ObjectStoreRegistry({(folder / "archive").as_uri() + "/": None})
    options: dict[str, Any] = {"combine": "nested", "concat_dim": "time", "registry": registry}
    runs: Runs = {
        "ours": lambda: vc.open_virtual_mfdataset(urls, parallel=False, **options),
        "threads": lambda: vc.open_virtual_mfdataset(urls, parallel=8, **options),
        "default": lambda: vc.open_virtual_mfdataset(urls, **options),
        "bound": lambda: walk_all(paths),
        **cases("open_many", urls=urls),
        **{f"{name} threads": run for name, run in cases("open_many", ("virtualizarr",), urls=urls, threads=8).items()},
    }
    times = alternately(runs, 3)
    label = "mfdataset of 200 local files"
    yield row(f"{label}, serial (bound: h5py)", times, "<= 1.5 ×", "9")
    yield row("the same, by default", times, "<= 1.5 ×", "9", ours="default")
    faster, peer = times["ours"] / times["threads"], None
    if "virtualizarr threads" in times:
        peer = times["virtualizarr"] / times["virtualizarr threads"]
    yield Row("the same, 8 threads: times faster than serial", faster, "", None, peer, ">= 1.5", "9")
    yield from _many_remote(folder / "archive")


def _many_remote(folder: Path) -> Iterator[Row]:
    with Latency(folder) as server:
        urls = [f"{server.root}/{number:04d}.nc" for number in range(40)]
        registry = vc.ObjectStoreRegistry({server.root: None})
        options: dict[str, Any] = {"combine": "nested", "concat_dim": "time", "registry": registry, "parallel": 8}
        runs: Runs = {"ours": lambda: vc.open_virtual_mfdataset(urls, **options)}
        runs |= cases("open_many", ("virtualizarr",), urls=urls, threads=8)
        requests, together, times = {}, {}, {}
        for name, run in runs.items():
            server.count()
            times[name] = best(run, 1)
            found = server.count()
            requests[name], together[name] = found["requests"] / len(urls), float(found["at_once"])
    label = "mfdataset of 40 files over HTTP, 8 workers"
    yield row(f"{label}: requests per file", requests, "<= 1", "10", "")
    yield row(f"{label}: in flight", together, ">= 8", "10", "")
    yield row(f"{label}: wall", times, "", "10")


def run() -> Iterator[Row]:
    """Measure everything here."""
    with tempfile.TemporaryDirectory() as name:
        for measure in (local, remote, variables, many):
            yield from measure(Path(name))


if __name__ == "__main__":
    for found in run():
        print(found.text(), flush=True)
