"""Figures of references as data: writing and reading them, beside the least work that each form allows."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import Row, alternately, best, in_process
from peers import cases

import virtualchunks as vc
from virtualchunks.manifest import ChunkManifest
from virtualchunks.writers.kerchunk import write_json, write_parquet
from virtualchunks_parsers.kerchunk import KerchunkParser

COUNT, FILES = 10**6, 1000
#: How many references the peer is measured with: its times are linear, and a million take it a minute.
PEER_COUNT = 10**5
RECORD_SIZE = 100_000


def urls() -> list[str]:
    """Return URLs of 100 characters."""
    folder = "s3://some-bucket/archive/of/a/model/with/a/long/name"
    return [f"{folder}/run-{i % 7}/member-{i % 31:03d}/output-{i:08d}.nc4".ljust(100, "x") for i in range(FILES)]


def columns(count: int) -> tuple[list[str], Any, Any]:
    """Return the path of each chunk, its offset and its length."""
    each = count // FILES
    paths = [url for url in urls() for _ in range(each)]
    lengths = np.random.default_rng(0).integers(3000, 5000, (FILES, each))  # as those of compressed chunks
    return paths, (np.cumsum(lengths, axis=1) - lengths + 4096).reshape(-1), lengths.reshape(-1)


def group(count: int) -> vc.ManifestGroup:
    """Return a tree of one array with so many chunks."""
    paths, offsets, lengths = columns(count)
    metadata = vc.ArrayMetadata.build(
        shape=(count, 10), chunks=(1, 10), dtype="<f4", dimension_names=("time", "x"), fill_value=np.nan
    )
    manifest = ChunkManifest.from_arrays(
        paths=np.array(paths, dtype=np.dtypes.StringDType())[:, None],
        offsets=offsets[:, None],
        lengths=lengths[:, None],
    )
    return vc.ManifestGroup({"air": vc.ManifestArray(metadata, manifest)})


def join_strings(path: Path, count: int) -> Callable[[], None]:
    """The bound for writing JSON: join strings, and write them."""
    paths, offsets, lengths = columns(count)
    offset, length = offsets.tolist(), lengths.tolist()

    def write() -> None:
        text = ",".join(
            [f'"air/{i}.0":["{p}",{o},{n}]' for i, p, o, n in zip(range(count), paths, offset, length, strict=True)]
        )
        path.write_text(f'{{"version":1,"refs":{{{text}}}}}')

    return write


def arrow_columns(folder: Path, count: int) -> Callable[[], None]:
    """The bound for writing Parquet: pyarrow writes columns that it has, in as many files."""
    paths, offsets, lengths = columns(count)
    table = pa.table(
        {
            "path": pa.array(paths).dictionary_encode(),
            "offset": offsets,
            "size": lengths,
            "raw": pa.nulls(count, pa.binary()),
        }
    )
    folder.mkdir()

    def write() -> None:
        for start in range(0, count, RECORD_SIZE):
            part = table.slice(start, RECORD_SIZE)
            pq.write_table(part, folder / f"refs.{start // RECORD_SIZE}.parq", compression="zstd")

    return write


def fast_columns(folder: Path) -> Callable[[], None] | None:
    """Another bound: fastparquet, which fsspec writes and reads with."""
    try:
        import fastparquet  # noqa: F401
    except ImportError:
        return None
    import pandas as pd

    paths, offsets, lengths = columns(COUNT)
    frame = pd.DataFrame({"path": pd.Categorical(paths), "offset": offsets, "size": lengths})
    folder.mkdir()

    def write() -> None:
        for start in range(0, COUNT, RECORD_SIZE):
            part = frame.iloc[start : start + RECORD_SIZE]
            name = folder / f"refs.{start // RECORD_SIZE}.parq"
            part.to_parquet(name, engine="fastparquet", compression="zstd", index=False, stats=False)

    return write


def peer_times(folder: Path) -> dict[str, float]:
    """Return what the peer takes to write and read, for COUNT references as its times are linear."""
    found = {}
    for form in ("json", "parquet"):
        path = str(folder / f"peer.{form}")
        options = {"count": PEER_COUNT, "files": FILES, "record_size": RECORD_SIZE}
        for name, run in cases("write_kerchunk", path=path, form=form, **options).items():
            found[f"{name} write {form}"] = best(run, 1) * COUNT / PEER_COUNT
        for name, run in cases("read_kerchunk", path=path, form=form).items():
            found[f"{name} read {form}"] = best(run, 1) * COUNT / PEER_COUNT
    return {name.removeprefix("virtualizarr "): took for name, took in found.items()}


def writing(folder: Path, tree: vc.ManifestGroup, peer: dict[str, float]) -> Iterator[Row]:
    document, parquet = folder / "ours.json", folder / "ours.parquet"
    fast = fast_columns(folder / "fast")
    runs: dict[str, Callable[[], Any]] = {
        "json": lambda: write_json(tree, document),
        "json bound": join_strings(folder / "bound.json", COUNT),
        "parquet": lambda: write_parquet(tree, parquet, RECORD_SIZE),
        "parquet bound": arrow_columns(folder / "bound", COUNT),
        **({} if fast is None else {"fast bound": fast}),
    }
    times = alternately(runs, 3)
    label = f"{COUNT:.0e} references over {FILES:,} files"
    yield Row(
        f"write Kerchunk JSON, {label}", times["json"], "s", times["json bound"], peer.get("write json"), "<= 2 ×"
    )
    yield Row(
        f"write Kerchunk Parquet, {label}",
        times["parquet"],
        "s",
        times["parquet bound"],
        peer.get("write parquet"),
        "<= 3 × pyarrow",
    )
    if fast is not None:
        yield Row("the same beside fastparquet", times["parquet"], "s", times["fast bound"], None, "<= 3 ×")
    size, least = (sum(f.stat().st_size for f in (folder / name).rglob("*.parq")) for name in ("ours.parquet", "bound"))
    yield Row("Kerchunk Parquet on disk", size / COUNT, "B/ref", least / COUNT, None, "same size")


def reading(folder: Path, peer: dict[str, float]) -> Iterator[Row]:
    document, parquet = folder / "ours.json", folder / "ours.parquet"
    try:
        from ujson import loads
    except ImportError:
        loads = json.loads
    parser = KerchunkParser()
    parts = sorted((folder / "bound").iterdir())

    def read_parquet() -> None:
        manifest = parser(str(parquet)).group.arrays["air"].manifest
        assert manifest.records.shape == (COUNT, 1)

    times = alternately(
        {
            "json": lambda: parser(str(document)),
            "json bound": lambda: loads(document.read_bytes()),
            "parquet": read_parquet,
            "parquet bound": lambda: [pq.read_table(part) for part in parts],
        },
        3,
    )
    label = f"{COUNT:.0e} references"
    yield Row(
        f"read Kerchunk JSON, {label}", times["json"], "s", times["json bound"], peer.get("read json"), "<= 4 × ujson"
    )
    yield Row(
        f"read Kerchunk Parquet, {label}, all of it",
        times["parquet"],
        "s",
        times["parquet bound"],
        peer.get("read parquet"),
        "<= 5 ×",
    )


def opening(folder: Path) -> Iterator[Row]:
    """Time opening ten million references, before and with one chunk."""
    many, target = 10**7, folder / "many.parquet"
    write_parquet(group(many), target, RECORD_SIZE)
    yield Row("open 1e7 references in Parquet", best(lambda: KerchunkParser()(str(target))), "s", target="<= 0.3 s")

    def one() -> None:
        array = KerchunkParser()(str(target)).group.arrays["air"]
        assert array.manifest.record((many // 2, 0))[1] >= 0

    yield Row("the same, and the reference of one chunk", best(one), "s")


MEMORY = """
import resource, sys, threading
sys.path.insert(0, {folder!r})
import references
from virtualchunks.writers.kerchunk import write_json, write_parquet
tree = references.group({count})
write_{form}(references.group(1000), {target!r} + ".small")  # imports, and the buffers of libraries
before, peak, stop = rss(), 0, threading.Event()
def watch():
    global peak
    with open("/proc/self/statm") as file:
        while not stop.wait(0.002):
            file.seek(0)
            peak = max(peak, int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE"))
watching = threading.Thread(target=watch)
watching.start()
write_{form}(tree, {target!r})
stop.set()
watching.join()
print(json.dumps({{"peak": max(0, peak - before)}}))
"""


def memory(folder: Path) -> Iterator[Row]:
    for form, count in (("json", COUNT), ("parquet", COUNT), ("parquet", 10**7)):
        target = folder / f"memory-{count}.{form}"
        here = str(Path(__file__).parent)
        found = in_process(MEMORY.format(folder=here, form=form, target=str(target), count=count))
        size = sum(f.stat().st_size for f in [target, *target.rglob("*")] if f.is_file())
        yield Row(f"memory while writing, {form}, {count:.0e}", found["peak"] / 1e6, "MB", size / 1e6, None, "<= 1.5 ×")


def run() -> list[Row]:
    """Measure everything here."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = group(COUNT)
        peer = peer_times(folder)
        return [*writing(folder, tree, peer), *reading(folder, peer), *opening(folder), *memory(folder)]
