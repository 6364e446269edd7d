"""Figures of Icechunk: a million references over a thousand files written, committed and read back.

The bound is Icechunk's own call over ready columns, in the same process and to the same kind of repository.
Times are processor time: commits wait for threads, which the clock measures badly on a machine that does other things.
``python benchmarks/references_icechunk.py`` prints the table.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

import icechunk
import numpy as np
import zarr
from measure import HEADER, Row
from peers import cases

import virtualchunks as vc
from virtualchunks.inline import encode_array
from virtualchunks.manifest import RECORD, ChunkManifest
from virtualchunks.writers.icechunk import write_icechunk
from virtualchunks_parsers.icechunk import IcechunkParser

COUNT, FILES = 10**6, 1000
FOLDER = "s3://some-bucket/archive/of/a/model/with/a/long/name"
REPEAT = 5


def urls() -> list[str]:
    """Return the URLs of the files, of 100 characters each."""
    return [f"{FOLDER}/run-{i % 7}/member-{i % 31:03d}/output-{i:08d}.nc4".ljust(100, "x") for i in range(FILES)]


def tree(stamps: list[vc.Stamp] | None) -> vc.ManifestGroup:
    """Return an array of references, file after file along its first axis."""
    shape = (COUNT // 100, 100)
    records = np.zeros(shape, dtype=RECORD)
    flat = records.reshape(-1)
    flat["source"] = np.repeat(np.arange(FILES), COUNT // FILES)
    flat["offset"], flat["length"] = np.arange(COUNT) * 1000, 1000
    metadata = vc.ArrayMetadata.build(shape=shape, chunks=(1, 1), dtype="<f8", dimension_names=("time", "x"))
    manifest = ChunkManifest.from_records(records, vc.SourceTable.of_urls(urls(), stamps))
    time = np.arange(shape[0], dtype="<f8")
    labels = vc.ArrayMetadata.build(shape=time.shape, chunks=time.shape, dtype="<f8", dimension_names=("time",))
    return vc.ManifestGroup(
        {"v": vc.ManifestArray(metadata, manifest), "time": vc.ManifestArray(labels, encode_array(time, labels))}
    )


def repository() -> icechunk.Repository:
    """Return an empty repository in memory that may refer to the files."""
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(f"{FOLDER}/", icechunk.s3_store(region="x")))
    return icechunk.Repository.create(icechunk.in_memory_storage(), config)


def plain_write(*, commit: bool = True) -> icechunk.Repository:
    """Write ready columns with Icechunk's own call, and commit."""
    repo = repository()
    session = repo.writable_session("main")
    zarr.open_group(session.store, mode="a").create_array(
        "v", shape=COLUMNS["shape"], chunks=(1, 1), dtype="<f8", compressors=None, filters=None
    )
    failed = session.store.set_virtual_refs_arr(
        "/v", COLUMNS["shape"], COLUMNS["urls"], COLUMNS["offsets"], COLUMNS["lengths"], validate_containers=True
    )
    assert not failed
    if commit:
        session.commit("references")
    return repo


def plain_specs(*, commit: bool = True) -> icechunk.Repository:
    """Write ready specifications, each with the ETag of its object, with Icechunk's own call, and commit."""
    repo = repository()
    session = repo.writable_session("main")
    zarr.open_group(session.store, mode="a").create_array(
        "v", shape=COLUMNS["shape"], chunks=(1, 1), dtype="<f8", compressors=None, filters=None
    )
    columns = zip(COLUMNS["indices"], COLUMNS["urls"], COLUMNS["etags"], range(COUNT), strict=True)
    specs = [icechunk.VirtualChunkSpec(index, url, at * 1000, 1000, etag) for index, url, etag, at in columns]
    assert not session.store.set_virtual_refs("/v", specs)
    if commit:
        session.commit("references")
    return repo


def columns() -> dict[str, Any]:
    """Return what the plain calls take."""
    shape = (COUNT // 100, 100)
    files = np.repeat(np.arange(FILES), COUNT // FILES).tolist()
    names = urls()
    return {
        "shape": shape,
        "urls": [names[i] for i in files],
        "offsets": np.arange(COUNT, dtype="u8") * 1000,
        "lengths": np.full(COUNT, 1000, dtype="u8"),
        "etags": [f"etag-{i}" for i in files],
        "indices": [list(index) for index in np.ndindex(*shape)],
    }


COLUMNS = columns()


def our_write(group: vc.ManifestGroup, *, commit: bool = True) -> icechunk.Repository:
    """Write a tree, and commit."""
    repo = repository()
    session = repo.writable_session("main")
    write_icechunk(group, session.store)
    if commit:
        session.commit("references")
    return repo


def plain_read(repo: icechunk.Repository) -> int:
    """Iterate over Icechunk's own columns."""
    store = repo.readonly_session("main").store

    async def everything() -> int:
        return sum([len(found) async for found, *_ in store.array_chunk_iterator("/v", batch_size=100_000)])

    return asyncio.run(everything())


def least(functions: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Run functions in turn, and return the least processor time of each, Icechunk's own threads included."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(REPEAT):
        for name, function in functions.items():
            gc.collect()
            start = time.process_time()
            function()
            times[name].append(time.process_time() - start)
    return {name: min(values) for name, values in times.items()}


def writing() -> list[Row]:
    bare, stamped = tree(None), tree([vc.Stamp(etag=f"etag-{i}") for i in range(FILES)])
    peers = cases("write_icechunk", ("virtualizarr",), count=COUNT, files=FILES)
    rows = []
    for label, commit in (("written and committed", True), ("written", False)):
        runs: dict[str, Callable[[], Any]] = {
            "bound": lambda commit=commit: plain_write(commit=commit),
            "one": lambda commit=commit: our_write(bare, commit=commit),
            "specs": lambda commit=commit: plain_specs(commit=commit),
            "each": lambda commit=commit: our_write(stamped, commit=commit),
        }
        times = least(runs)
        peer = min([run().value for run in peers.values()], default=None) if commit else None
        rows += [
            Row(f"1e6 references {label}, one checksum", times["one"], "s", times["bound"], peer, "<= 1.05 ×"),
            Row(f"the same, a checksum per object ({FILES:,})", times["each"], "s", times["bound"], None, "stated"),
            Row("the same over Icechunk's call for checksums", times["each"], "s", times["specs"]),
        ]
    return rows


def reading() -> list[Row]:
    repo = our_write(tree(None))
    runs: dict[str, Callable[[], Any]] = {
        "bound": lambda: plain_read(repo),
        "ours": lambda: IcechunkParser(drop_variables="time").from_storage(repo),
    }
    times = least(runs)
    return [Row("1e6 references read back", times["ours"], "s", times["bound"], target="<= 1.2 ×")]


def run() -> list[Row]:
    """Measure everything here."""
    icechunk.set_logs_filter("error")
    return [*writing(), *reading()]


if __name__ == "__main__":
    print(HEADER)
    for row in run():
        print(row.text(), flush=True)
