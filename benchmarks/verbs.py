"""Figures of the verbs: a million references over a thousand files whose URLs have a hundred characters."""

from __future__ import annotations

import numpy as np
from measure import Row, alternately, best
from peers import cases

import virtualchunks as vc
from virtualchunks.manifest import RECORD

FILES, CHUNKS = 1000, 1000
OLD, NEW = "s3://bucket/archive", "https://data.example/archive"
URLS = [f"{OLD}/{number:06d}/".ljust(93, "x") + f"{number:04d}.nc" for number in range(FILES)]


def tree() -> vc.ManifestGroup:
    records = np.zeros((FILES, CHUNKS), dtype=RECORD)
    records["source"], records["length"] = np.arange(FILES)[:, None], 1000
    records["offset"] = np.arange(CHUNKS) * 1000
    table = vc.SourceTable.of_urls(URLS, [vc.Stamp(size=10**6, etag=f"e{n}", last_modified=n) for n in range(FILES)])
    metadata = vc.ArrayMetadata.build(shape=records.shape, chunks=(1, 1), dtype="<f4", dimension_names=("t", "x"))
    return vc.ManifestGroup({"v": vc.ManifestArray(metadata, vc.ChunkManifest.from_records(records, table))})


def run() -> list[Row]:
    """Measure everything here."""
    group = tree()
    renamed = group.virtual.rename({OLD: NEW})
    t, x = np.divmod(np.arange(FILES * CHUNKS), CHUNKS)
    table = {
        "t": t,
        "x": x,
        "url": np.array(URLS, dtype=object)[t],
        "offset": x * 1000,
        "length": np.full(len(t), 1000),
    }
    template = vc.template({"v": group.arrays["v"].metadata}, {"t": np.arange(FILES), "x": np.arange(CHUNKS)})
    label = "1e6 references over 1,000 files"
    peers = cases("rename", count=FILES * CHUNKS, files=FILES, old="some-bucket", new="another")
    times = alternately({"ours": lambda: group.virtual.rename({OLD: NEW}), **peers}, 3)
    return [
        Row(f"rename, {label}", times["ours"], "s", None, times.get("virtualizarr"), "<= 10 ms"),
        Row(f"sources(), {label}", best(group.virtual.sources), "s"),
        Row(f"locate(one place), {label}", best(lambda: group.virtual.locate(t=5, x=7)), "s"),
        Row(f"diff, {label}", best(lambda: group.virtual.diff(renamed)), "s"),
        Row("fill a template with 1e6 rows", best(lambda: template.fill_group(table), 3), "s"),
    ]
