"""Figures of parsing a file over HTTP whose metadata are scattered: what is fetched, and in how many rounds.

Ten variables grow step by step, as a model writes them, so that the nodes of their B-trees lie between the chunks all
over the 102 MB. The bound for bytes is what h5py reads when it walks over the same file.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from latency import Latency
from measure import Row
from peers import PeerError, cases

import virtualchunks as vc
from virtualchunks_parsers.hdf5 import HDF5Parser

VARIABLES, STEPS, SIDE = 10, 400, 80


def write(path: Path) -> Path:
    """Write the variables a step at a time."""
    values = np.random.default_rng(0).random((SIDE, SIDE), dtype="f4")
    with h5py.File(path, "w") as file:
        made = [
            file.create_dataset(
                f"v{number}", shape=(0, SIDE, SIDE), maxshape=(None, SIDE, SIDE), chunks=(1, SIDE, SIDE), dtype="f4"
            )
            for number in range(VARIABLES)
        ]
        for step in range(STEPS):
            for dataset in made:
                dataset.resize(step + 1, axis=0)
                dataset[step] = values
    return path


class Counting(io.FileIO):
    """A file that counts the bytes that are read from it."""

    count = 0

    def readinto(self, buffer: Any) -> int:
        found = super().readinto(buffer)
        self.count += found or 0
        return found or 0


def needed(path: Path) -> int:
    """Return how many bytes h5py reads to walk over a file and its chunks."""
    found: list[Any] = []
    with Counting(path) as source, h5py.File(source, "r") as file:
        for name in file:
            file[name].id.chunk_iter(found.append)
        count = source.count
    assert len(found) == VARIABLES * STEPS
    return count


def peers(server: Latency, url: str) -> dict[str, dict[str, int]]:
    """Return what each peer fetches to parse the file."""
    found = {}
    for name, run in cases("parse", url=url).items():
        server.count()
        try:
            run()
        except PeerError as error:
            print(error)
            continue
        found[name] = server.count()
    return found


def run() -> Iterator[Row]:
    """Measure everything here."""
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name) / "scattered.h5")
        with Latency(path.parent) as server:
            url = f"{server.root}/{path.name}"
            HDF5Parser()(url, vc.ObjectStoreRegistry({server.root: None}))
            server.count()
            HDF5Parser()(url, vc.ObjectStoreRegistry({server.root: None}))
            ours = server.count()
            others = peers(server, url)
        label = f"HDF5, {path.stat().st_size / 1e6:.0f} MB, scattered, over HTTP"
        for number, what, key, unit, bound, target in (
            ("11", "bytes", "bytes", "B", needed(path), "<= 2 MB"),
            ("11", "sequential rounds", "rounds", "", None, "<= 12"),
            ("11", "requests", "requests", "", None, ""),
        ):
            theirs = {name: float(counts[key]) for name, counts in others.items()}
            yield Row(
                f"{label}: {what}",
                ours[key],
                unit,
                bound,
                theirs.get("virtualizarr"),
                target,
                number,
                theirs.get("kerchunk"),
            )


if __name__ == "__main__":
    for row in run():
        print(row.text(), flush=True)
