"""Figures of parsing HDF5: many chunks, many variables, beside h5py's own walk and the peer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from measure import Row, alternately
from peers import cases as peers

import virtualchunks as vc
from virtualchunks_parsers.hdf5 import HDF5Parser


def many_chunks(folder: Path) -> Path:
    """Write 100,000 tiny chunks, gzip and shuffle."""
    path = folder / "chunks.h5"
    with h5py.File(path, "w", libver="v108") as file:
        values = np.arange(100_000 * 4, dtype="i4").reshape(100_000, 4)
        file.create_dataset("v", data=values, chunks=(1, 4), compression="gzip", shuffle=True)
    return path


def many_variables(folder: Path) -> Path:
    """Write 200 variables of 10 chunks each, over three dimension scales."""
    path = folder / "variables.h5"
    with h5py.File(path, "w") as file:
        for name, size in (("time", 10), ("lat", 20), ("lon", 30)):
            file[name] = np.arange(size, dtype="f8")
            file[name].make_scale(name)
        for number in range(200):
            data = np.full((10, 20, 30), number, dtype="f4")
            made = file.create_dataset(f"v{number:03d}", data=data, chunks=(1, 20, 30), compression="gzip")
            made.attrs["units"] = "K"
            made.attrs["long_name"] = f"variable number {number}"
            made.attrs["_FillValue"] = np.float32(-999)
            for axis, name in enumerate(("time", "lat", "lon")):
                made.dims[axis].attach_scale(file[name])
    return path


def iterate_chunks(path: Path) -> int:
    """The bound for many chunks: open the file and let h5py iterate over them."""
    found: list[Any] = []
    with h5py.File(path, "r") as file:
        file["v"].id.chunk_iter(found.append)
    return len(found)


def walk(path: Path) -> int:
    """The bound for many variables: walk the file with h5py, and touch what a parser must know of each."""
    count = 0
    with h5py.File(path, "r") as file:
        for name in file:
            dataset = file[name]
            attributes = {key: dataset.attrs[key] for key in dataset.attrs if not key.endswith("_LIST")}
            found: list[Any] = []
            if dataset.chunks:
                dataset.id.chunk_iter(found.append)
            count += len(found) + len(attributes) + len(dataset.shape) + bool(dataset.dtype)
    return count


def run() -> list[Row]:
    """Measure everything here."""
    with tempfile.TemporaryDirectory() as name:
        return _run(Path(name))


def _run(folder: Path) -> list[Row]:
    rows = []
    cases = [
        ("parse 100,000 chunks, local", many_chunks(folder), iterate_chunks, "<= 1.3 ×"),
        ("parse 200 variables × 10 chunks, local", many_variables(folder), walk, "<= 1.5 ×"),
    ]
    for label, path, bound, target in cases:
        registry = vc.ObjectStoreRegistry({folder.as_uri() + "/": None})
        url = path.as_uri()
        runs = {
            "ours": lambda url=url, registry=registry: HDF5Parser()(url, registry),
            "bound": lambda path=path, bound=bound: bound(path),
            "open": lambda url=url, registry=registry: vc.open_virtual_dataset(url, registry, loadable_variables=[]),
        }
        parsed, opened = peers("parse", url=url), peers("open_one", url=url)
        runs |= parsed | {f"{name} open": run for name, run in opened.items()}
        times = alternately(runs, 5)
        peer, kerchunk = times.get("virtualizarr"), times.get("kerchunk")
        rows.append(Row(label, times["ours"], "s", times["bound"], peer, target, kerchunk=kerchunk))
        peer = times.get("virtualizarr open")
        rows.append(Row(f"{label}: open_virtual_dataset", times["open"], "s", times["bound"], peer))
    return rows
