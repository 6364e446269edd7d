"""Figures of the core: bytes per reference, making arrays, joining them, sending them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr
from measure import Row, alternately, best, in_process
from peers import alone, cases, memory

import virtualchunks as vc
from virtualchunks.manifest import RECORD, ChunkManifest

MILLION, FILES, PIECES = 10**6, 1000, 10_000
LABEL = f"1e6 references over {FILES:,} files"

REFERENCES = """
from peers import memory
from core import columns
from virtualchunks.manifest import ChunkManifest
ChunkManifest.from_arrays(**columns(1000, 10))  # imports
given = columns({count}, {files})
peak, kept, made = memory.over(lambda: ChunkManifest.from_arrays(**given))
sent = len(pickle.dumps(made, protocol=5))
print(json.dumps({{"rss": kept / {count}, "peak": peak, "nbytes": made.nbytes / {count}, "pickle": sent / {count}}}))
"""

JOINING = """
from peers import memory
from core import pieces
np.concatenate(pieces(10))
parts = pieces({count})
peak, _, _ = memory.over(lambda: np.concatenate(parts))
print(json.dumps({{"peak": peak}}))
"""


def columns(count: int, files: int) -> dict[str, Any]:
    """Return the columns of references, one file after the other."""
    return {
        "paths": np.repeat(np.array(memory.urls(files), dtype=np.dtypes.StringDType()), count // files),
        "offsets": np.arange(count, dtype="u8") * 1000,
        "lengths": np.full(count, 1000, dtype="u8"),
    }


def kept() -> Iterator[Row]:
    """Bytes for each reference, in memory and in a pickle."""
    for count in (MILLION, 10 * MILLION):
        label = f"1e{len(str(count)) - 1} references over {FILES:,} files"
        ours = in_process(REFERENCES.format(count=count, files=FILES))
        theirs = alone("virtualizarr", "references", count=count, files=FILES)
        found = {} if theirs is None else theirs.value
        plain = alone("kerchunk", "references", count=count, files=FILES) if count == MILLION else None
        kerchunk = plain and plain.value["rss"]
        peer = found.get("rss")
        yield Row(f"memory (RSS), {label}", ours["rss"], "B/ref", 16, peer, "<= 17 B/ref", "12.1", kerchunk)
        peer = found and found["nbytes"] / found["rss"]
        share = ours["nbytes"] / ours["rss"]
        yield Row(f"nbytes over memory, {label}", share, "", None, peer or None, ">= 0.95; <= 1.05", "12.3")
        peer = found.get("pickle") or None
        yield Row(f"pickle, {label}", ours["pickle"], "B/ref", 16, peer, "<= 17 B/ref", "12.7")
    distinct = in_process(REFERENCES.format(count=MILLION, files=MILLION))
    theirs = alone("virtualizarr", "references", count=MILLION, files=MILLION)
    peer = theirs and theirs.value["rss"]
    yield Row("memory (RSS), 1e6 distinct URLs", distinct["rss"], "B/ref", None, peer, "<= 130 B/ref", "12.2")


def building() -> Iterator[Row]:
    """What validating costs: time, and memory at the peak."""
    given = columns(MILLION, FILES)
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: ChunkManifest.from_arrays(**given),
        "bound": lambda: ChunkManifest.from_arrays(**given, validate_paths=False),
    }
    times = alternately({**runs, **cases("build", count=MILLION, files=FILES, validate=True)}, 3)
    times |= alternately(runs, 15)  # their difference is small
    label = f"from_arrays, validating (bound: not), {LABEL}"
    yield Row(label, times["ours"], "s", times["bound"], times.get("virtualizarr"), "<= 1.2 ×", "12.4")
    ours = in_process(REFERENCES.format(count=MILLION, files=FILES))
    theirs = alone("virtualizarr", "build_memory", count=MILLION, files=FILES, validate=True)
    peer = theirs and theirs.value
    row = Row("the same, memory at its peak (bound: retained)", ours["peak"] / MILLION, "B/ref", ours["rss"], peer)
    yield Row(row.what, row.ours, row.unit, row.bound, row.peer, "<= 1.5 ×", "12.4")


def pieces(count: int, *, own_metadata: bool = False) -> list[vc.ManifestArray]:
    """Return many arrays of 100 chunks, each over one file."""
    records = np.zeros((100, 1), dtype=RECORD)
    records["offset"][:, 0], records["length"] = np.arange(100) * 1000, 1000

    def metadata() -> vc.ArrayMetadata:
        return vc.ArrayMetadata.build(shape=(100, 4), chunks=(1, 4), dtype="<f4", fill_value=np.nan)

    def make(i: int) -> vc.ManifestArray:
        table = vc.SourceTable.single(
            f"s3://bucket/archive/{i:06d}.nc".ljust(100, "x"), vc.Stamp(size=10**6, etag=f"etag-{i}")
        )
        manifest = ChunkManifest.from_records(records.copy(), table)
        return vc.ManifestArray(metadata() if own_metadata else shared, manifest)

    shared = metadata()
    return [make(i) for i in range(count)]


def joining() -> Iterator[Row]:
    one, own = pieces(PIECES), pieces(PIECES, own_metadata=True)
    plain = [array.manifest.records for array in one]
    runs: dict[str, Callable[[], Any]] = {
        "bound": lambda: np.concatenate(plain),
        "one": lambda: np.concatenate(one),
        "own": lambda: np.concatenate(own),
        **cases("join", count=PIECES),
    }
    times = alternately(runs)
    bound, peer, label = times["bound"], times.get("virtualizarr"), "np.concatenate of 10,000 × 100 chunks"
    target = "<= 0.5 × the peer; <= 1.5 ×"
    yield Row(label, times["one"], "s", bound, peer, target, "12.5")
    yield Row("the same, metadata of their own", times["own"], "s", bound, peer, target, "12.5")
    theirs = alone("virtualizarr", "join_memory", count=PIECES)
    peak = in_process(JOINING.format(count=PIECES))["peak"]
    peer = theirs and theirs.value
    yield Row("the same, memory", peak, "B", PIECES * 100 * 16, peer, "<= 0.15 × the peer", "12.5")
    yield _datasets(one)


def _datasets(arrays: list[vc.ManifestArray]) -> Row:
    options: dict[str, Any] = {"dim": "t", "data_vars": "minimal", "coords": "minimal", "compat": "override"}
    options["join"] = "override"
    ours = [xr.Dataset({"v": (("t", "x"), array)}) for array in arrays]
    plain = [xr.Dataset({"v": (("t", "x"), np.zeros(array.shape, "f4"))}) for array in arrays]
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: xr.concat(ours, **options),
        "bound": lambda: xr.concat(plain, **options),
        **cases("join_datasets", count=len(arrays)),
    }
    times = alternately(runs, 3)
    label = "xr.concat of 10,000 (bound: of NumPy arrays)"
    return Row(label, times["ours"], "s", times["bound"], times.get("virtualizarr"), "<= 1.2 ×", "12.6")


def sending() -> Iterator[Row]:
    made = ChunkManifest.from_arrays(**columns(MILLION, FILES))
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: pickle.loads(pickle.dumps(made)),
        "bound": lambda: pickle.loads(pickle.dumps(made.records)),
        **cases("send", count=MILLION, files=FILES),
    }
    times = alternately(runs, 5)
    peer = times.get("virtualizarr")
    yield Row(f"dumps and loads, {LABEL}", times["ours"], "s", times["bound"], peer, "<= 0.08 × the peer", "12.7")
    small = len(pickle.dumps(pieces(1)[0]))
    sizes = {name: run().value for name, run in cases("send_small").items()}
    label = "pickle of an array of 100 chunks"
    yield Row(label, small, "B", None, sizes.get("virtualizarr"), "<= 3000 B", "12.8")


def arrays() -> Iterator[Row]:
    metadata = vc.ArrayMetadata.build(shape=(100, 4), chunks=(1, 4), dtype="<f4", dimension_names=("t", "x"))
    manifest = ChunkManifest({f"{i}.0": {"path": "s3://bucket/a.nc", "offset": i, "length": 16} for i in range(100)})
    given = {"shape": (100, 4), "chunks": (1, 4), "dtype": "<f4", "dimension_names": ("t", "x")}
    label = "ManifestArray(metadata, manifest)"
    yield Row(label, best(lambda: [vc.ManifestArray(metadata, manifest) for _ in range(1000)]) / 1000, "s")
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: [vc.ManifestArray(vc.ArrayMetadata.build(**given), manifest) for _ in range(1000)],
        **cases("make_array"),
    }
    times = alternately(runs, 3)
    peer = times.get("virtualizarr")
    yield Row("the same with new metadata", times["ours"] / 1000, "s", None, peer and peer / 1000, "<= 50 µs")


def run() -> Iterator[Row]:
    """Measure everything here."""
    numbered = [row for measure in (kept, building, joining, sending) for row in measure()]
    yield from sorted(numbered, key=lambda row: row.number)
    yield from arrays()


if __name__ == "__main__":
    for row in run():
        print(row.text(), flush=True)
