"""Figures of opening: what stands between parsing and one Dataset, for many variables and for many files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from latency import Latency
from measure import HAS_PEER, Row, alternately
from parsing import many_variables, walk

import virtualchunks as vc
from virtualchunks_parsers.hdf5 import HDF5Parser

FILES = 200
REMOTE = 40
#: What both libraries are told about combining.
COMBINE: dict[str, Any] = {"compat": "override", "coords": "minimal", "join": "exact", "combine_attrs": "override"}


def many_files(folder: Path, count: int) -> list[Path]:
    """Write NetCDF-4 files of three variables of four chunks and three coordinates, as a model writes one a month."""
    folder.mkdir()
    paths = []
    for number in range(count):
        values = np.random.default_rng(number).random((4, 30, 40), dtype="f4")
        ds = xr.Dataset(
            {f"v{k}": (("time", "lat", "lon"), values, {"units": "K", "long_name": f"{k}"}) for k in range(3)},
            coords={
                "time": ("time", np.arange(4 * number, 4 * number + 4), {"units": "days since 2000-01-01"}),
                "lat": np.linspace(-90, 90, 30),
                "lon": np.linspace(0, 360, 40),
            },
        )
        encoding = {f"v{k}": {"zlib": True, "chunksizes": (1, 30, 40)} for k in range(3)}
        paths.append(folder / f"{number:03d}.nc")
        ds.to_netcdf(paths[-1], engine="netcdf4", encoding=encoding)
    return paths


def walk_all(paths: Sequence[Path]) -> int:
    """The bound: open each file with h5py, look at what a parser must know, and read the coordinates."""
    count = 0
    for path in paths:
        count += walk(path)
        with h5py.File(path, "r") as file:
            count += sum(file[name][...].size for name in ("time", "lat", "lon"))
    return count


def variables(folder: Path) -> list[Row]:
    """Row 8."""
    path = many_variables(folder)
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: vc.open_virtual_dataset(path, loadable_variables=[]),
        "bound": lambda: walk(path),
    }
    if HAS_PEER:
        runs["peer"] = lambda: _peer_open([path.as_uri()], loadable_variables=[])
    times = alternately(runs, 7)
    label = "open_virtual_dataset of 200 variables, nothing loaded"
    return [Row(label, times["ours"], "s", times["bound"], times.get("peer"), "<= 1.6 ×")]


def local(folder: Path) -> list[Row]:
    """Row 9."""
    paths = many_files(folder / "many", FILES)
    names = [str(path) for path in paths]
    registry = vc.ObjectStoreRegistry({paths[0].parent.as_uri() + "/": None})
    runs: dict[str, Callable[[], Any]] = {
        "bound": lambda: walk_all(paths),
        "parse": lambda: [HDF5Parser()(path.as_uri(), registry) for path in paths],
        "open": lambda: [vc.open_virtual_dataset(name) for name in names],
        "serial": lambda: vc.open_virtual_mfdataset(names, parallel=False),
        "threads": lambda: vc.open_virtual_mfdataset(names, parallel=8),
        "processes": lambda: vc.open_virtual_mfdataset(names, parallel="processes"),
    }
    if HAS_PEER:
        urls = [path.as_uri() for path in paths]
        runs["peer"] = lambda: _peer_cube(urls)
        runs["peer threads"] = lambda: _peer_cube(urls, 8)
    opened = [vc.open_virtual_dataset(name) for name in names]
    held = [one.virtual.open().load() for one in opened]
    runs["combine"] = lambda: xr.combine_by_coords(opened, **COMBINE)  # type: ignore[arg-type]
    runs["combine values"] = lambda: xr.combine_by_coords(held, **COMBINE)  # type: ignore[arg-type]
    runs["processes"]()  # their start is not what is measured
    times = alternately(runs, 3)
    bound, serial = times["bound"], times["serial"]
    label = f"mfdataset of {FILES} local files"
    return [
        Row(f"{label}: parsing alone", times["parse"], "s", bound),
        Row(f"{label}: opening alone", times["open"], "s", bound),
        Row(f"{label}: combining alone, over values", times["combine"], "s", times["combine values"], None, "<= 1.2 ×"),
        Row(f"{label}, one after the other", serial, "s", bound, times.get("peer"), "<= 1.5 ×"),
        Row(f"{label}, 8 threads, over serial", times["threads"], "s", serial, times.get("peer threads"), "<= 1.05 ×"),
        Row(f"{label}, processes, over serial", times["processes"], "s", serial, None, "<= 0.67 × on two cores"),
    ]


def remote(folder: Path) -> list[Row]:
    """Row 10."""
    paths = many_files(folder / "remote", REMOTE)
    rows = []
    with Latency(paths[0].parent) as server:
        urls = [f"{server.root}/{path.name}" for path in paths]
        server.count()
        times = alternately({"ours": lambda: vc.open_virtual_mfdataset(urls)}, 1)
        ours = server.count()
        theirs: dict[str, int] | None = None
        if HAS_PEER:
            times |= alternately({"peer": lambda: _peer_cube(urls, 32)}, 1)
            theirs = server.count()
    label = f"mfdataset of {REMOTE} files over HTTP, 20 ms"
    for name, what, divisor, bound, target in (
        ("requests", "requests per file", REMOTE, 1, "1"),
        ("at_once", "in flight", 1, 32, "= workers, 32"),
    ):
        peer = None if theirs is None else theirs[name] / divisor
        rows.append(Row(f"{label}: {what}", ours[name] / divisor, "", bound, peer, target))
    return [*rows, Row(label, times["ours"], "s", None, times.get("peer"))]


def _peer_open(urls: Sequence[str], threads: int = 1, **options: Any) -> list[xr.Dataset]:
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import HTTPStore, LocalStore
    from virtualizarr import open_virtual_dataset
    from virtualizarr.parsers import HDFParser

    root = urls[0].rpartition("/")[0]
    is_local = root.startswith("file:")
    store = LocalStore() if is_local else HTTPStore(root, client_options={"allow_http": True})
    registry = ObjectStoreRegistry({"file://" if is_local else root: store})

    def one(url: str) -> xr.Dataset:
        opened: xr.Dataset = open_virtual_dataset(url, registry=registry, parser=HDFParser(), **options)
        return opened

    if threads == 1:
        return [one(url) for url in urls]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, urls))


def _peer_cube(urls: Sequence[str], threads: int = 1) -> xr.Dataset:
    opened = _peer_open(urls, threads, loadable_variables=["time", "lat", "lon"], decode_times=True)
    combined = xr.combine_by_coords(opened, **COMBINE)  # type: ignore[arg-type]
    assert isinstance(combined, xr.Dataset)
    return combined


def run() -> list[Row]:
    """Measure everything here."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [*variables(folder), *local(folder), *remote(folder)]


if __name__ == "__main__":
    for row in run():
        print(row.text())
