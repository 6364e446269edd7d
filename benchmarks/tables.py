"""Figures of references as tables: a million over a thousand objects, out and in, and what writing them takes.

The bound is what pyarrow, pylance and pyiceberg take for a table of the same columns that is there already.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from measure import Row, alternately, best, in_process

import virtualchunks as vc
from virtualchunks.manifest import RECORD, ChunkManifest
from virtualchunks.writers.tables import (
    from_arrow,
    from_iceberg,
    from_lance,
    from_parquet,
    to_arrow,
    to_iceberg,
    to_lance,
    to_parquet,
)

COUNT, FILES = 1_000_000, 1000

MEMORY = """
import tempfile
from tables import tree
from virtualchunks.writers.tables import to_parquet
group = tree({count}, 1000)
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
with tempfile.TemporaryDirectory() as folder:
    to_parquet(tree(1000, 10), folder + "/warm.parquet")
    before = rss()
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    to_parquet(group, folder + "/a.parquet")
    print(json.dumps({{"over": peak() - before, "size": os.path.getsize(folder + "/a.parquet")}}))
"""


def tree(count: int, files: int) -> vc.ManifestGroup:
    """Return references over files with URLs of 100 characters and stamps, lengths as compression leaves them."""
    folder = "s3://some-bucket/archive/of/a/model/with/a/long/name"
    urls = [f"{folder}/output-{number:08d}.nc4".ljust(100, "x") for number in range(files)]
    stamps = [vc.Stamp(size=10**9, etag=f'"{number:032x}"', last_modified=10**18 + number) for number in range(files)]
    records = np.zeros((count, 1, 1), dtype=RECORD)
    records["source"][:, 0, 0] = np.arange(count) * files // count
    records["length"] = np.random.default_rng(0).integers(900_000, 1_100_000, records.shape)
    ends = np.cumsum(records["length"].reshape(files, -1), axis=1, dtype=np.int64)
    records["offset"] = (ends - records["length"].reshape(files, -1)).reshape(records.shape)
    metadata = vc.ArrayMetadata.build(shape=(count, 721, 1440), chunks=(1, 721, 1440), dtype="<f4")
    table = vc.SourceTable.of_urls(urls, stamps)
    return vc.ManifestGroup({"v": vc.ManifestArray(metadata, ChunkManifest.from_records(records, table))})


def arrow(group: vc.ManifestGroup) -> list[Row]:
    table = to_arrow(group)
    columns = {name: table[name].chunk(0) for name in table.column_names}
    copied = [np.array(column) for name, column in columns.items() if str(column.type) == "int64"]
    times = alternately(
        {
            "out": lambda: to_arrow(group),
            "in": lambda: from_arrow(table),
            "bound": lambda: [column.copy() for column in copied],
        }
    )
    return [
        Row("Arrow table of 1e6 references, out", times["out"], "s", times["bound"], None, "<= 0.3 s"),
        Row("the same, in", times["in"], "s", times["bound"], None, "<= 0.3 s"),
        Row("Arrow table, size", table.nbytes / COUNT, "B/ref"),
    ]


def parquet(group: vc.ManifestGroup, folder: str) -> list[Row]:
    import pyarrow.parquet as pq

    table, path = to_arrow(group), os.path.join(folder, "a.parquet")
    options: dict[str, Any] = {"row_group_size": 1 << 14, "compression": "zstd"}
    times = alternately(
        {
            "bound out": lambda: pq.write_table(table, os.path.join(folder, "b.parquet"), **options),
            "out": lambda: to_parquet(group, path),
            "bound in": lambda: pq.read_table(path),
            "in": lambda: from_parquet(path),
        },
        3,
    )
    rows = [
        Row("Parquet, out", times["out"], "s", times["bound out"]),
        Row("Parquet, in", times["in"], "s", times["bound in"]),
    ]
    for count in (10**6, 10**7):
        path = f"import sys; sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})\n"
        used = in_process(path + MEMORY.format(count=count))
        label = f"memory while writing Parquet, {count:.0e} references"
        rows.append(Row(label, used["over"], "B", used["size"], None, "<= 1.5 × the output"))
    return rows


def versioned(group: vc.ManifestGroup, folder: str) -> list[Row]:
    lake, house = os.path.join(folder, "a.lance"), os.path.join(folder, "house")
    steps: list[tuple[str, Callable[[], Any]]] = [
        ("Lance, out, with a blob for each chunk", lambda: to_lance(group, lake, mode="w")),
        ("Lance, in", lambda: from_lance(lake)),
        ("Iceberg, out", lambda: to_iceberg(group, "bench.refs", house, mode="w")),
        ("Iceberg, in", lambda: from_iceberg("bench.refs", house)),
    ]
    return [Row(name, best(step, 2), "s") for name, step in steps]


def run() -> list[Row]:
    """Measure everything here."""
    group = tree(COUNT, FILES)
    folder = tempfile.mkdtemp(prefix="tables-")
    try:
        return [*arrow(group), *parquet(group, folder), *versioned(group, folder)]
    finally:
        shutil.rmtree(folder)
