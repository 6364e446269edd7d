"""Figures of the core: bytes per reference, making arrays, joining them, sending them."""

from __future__ import annotations

import numpy as np
from measure import HAS_PEER, Row, alternately, best, in_process

import virtualchunks as vc
from virtualchunks.manifest import RECORD, ChunkManifest

OURS = """
from virtualchunks.manifest import ChunkManifest
"""
PEER = """
from virtualizarr.manifests import ChunkManifest
"""
BUILD = """
count, files = {count}, 1000
def build():
    names = np.array(urls(files), dtype=np.dtypes.StringDType())
    paths = np.repeat(names, count // files)
    offsets = np.arange(count, dtype="u8") * 1000
    return ChunkManifest.from_arrays(paths=paths, offsets=offsets, lengths=np.full(count, 1000, dtype="u8"){more})
one = np.ones(1, "u8")
small = ChunkManifest.from_arrays(paths=np.array(["s3://b/a"], dtype=np.dtypes.StringDType()), offsets=one, lengths=one)
before = rss()
manifest = build()
after = rss()
data = pickle.dumps(manifest) if {send} else b""
print(json.dumps({{"rss": (after - before) / count, "nbytes": manifest.nbytes / count, "pickle": len(data) / count}}))
"""


def memory() -> list[Row]:
    rows = []
    for count in (10**6, 10**7):
        ours = in_process(OURS + BUILD.format(count=count, more="", send=True))
        peer = (
            in_process(PEER + BUILD.format(count=count, more=", validate_paths=False", send=count <= 10**6))
            if HAS_PEER
            else None
        )
        label = f"{count:.0e} references over 1,000 files"
        rows += [
            Row(f"memory (RSS), {label}", ours["rss"], "B/ref", 16, peer and peer["rss"], "16 B"),
            Row(f"nbytes says, {label}", ours["nbytes"], "B/ref", ours["rss"], peer and peer["nbytes"], "within 10 %"),
            Row(
                f"pickle, {label}",
                ours["pickle"],
                "B/ref",
                16,
                (peer and peer["pickle"]) or None,
                "<= 17 B",
            ),
        ]
    return rows


def arrays() -> list[Row]:
    metadata = vc.ArrayMetadata.build(shape=(100, 4), chunks=(1, 4), dtype="<f4", dimension_names=("t", "x"))
    entries = {f"{i}.0": {"path": "s3://bucket/a.nc", "offset": i, "length": 16} for i in range(100)}
    manifest = ChunkManifest(entries)
    document = metadata.to_dict()
    kept = {"shape": (100, 4), "chunks": (1, 4), "dtype": "<f4", "dimension_names": ("t", "x")}
    times = {
        "array": best(lambda: [vc.ManifestArray(metadata, manifest) for _ in range(1000)]) / 1000,
        "all": best(lambda: [vc.ManifestArray(vc.ArrayMetadata.build(**kept), manifest) for _ in range(1000)]) / 1000,
    }
    peer = peer_all = None
    if HAS_PEER:
        from virtualizarr.manifests import ChunkManifest as PeerManifest
        from virtualizarr.manifests import ManifestArray as PeerArray
        from zarr.core.metadata.v3 import ArrayV3Metadata

        theirs = PeerManifest(entries)
        parsed = ArrayV3Metadata.from_dict(document)
        peer = best(lambda: [PeerArray(parsed, theirs) for _ in range(20)]) / 20
        peer_all = best(lambda: [PeerArray(ArrayV3Metadata.from_dict(document), theirs) for _ in range(20)]) / 20
    return [
        Row("ManifestArray(metadata, manifest)", times["array"], "s", None, peer, "<= 50 µs"),
        Row("the same with new metadata", times["all"], "s", None, peer_all, "<= 50 µs"),
    ]


def joining() -> list[Row]:
    count = 10_000
    records = np.zeros((100, 1), dtype=RECORD)
    records["offset"][:, 0], records["length"] = np.arange(100) * 1000, 1000
    shared = vc.ArrayMetadata.build(shape=(100, 4), chunks=(1, 4), dtype="<f4", fill_value=np.nan)

    def make(i: int, metadata: vc.ArrayMetadata) -> vc.ManifestArray:
        table = vc.SourceTable.single(f"s3://bucket/archive/{i:06d}.nc", vc.Stamp(size=10**6, etag=f"etag-{i}"))
        return vc.ManifestArray(metadata, ChunkManifest.from_records(records.copy(), table))

    one_metadata = [make(i, shared) for i in range(count)]
    own_metadata = [
        make(i, vc.ArrayMetadata.build(shape=(100, 4), chunks=(1, 4), dtype="<f4", fill_value=np.nan))
        for i in range(count)
    ]
    plain = [array.manifest.records for array in one_metadata]
    peer = _peer_joining(count)
    runs = {
        "bound": lambda: np.concatenate(plain),
        "bound, dtype given": lambda: np.concatenate(plain, dtype=RECORD),
        "one": lambda: np.concatenate(one_metadata),
        "own": lambda: np.concatenate(own_metadata),
    }
    if peer:
        runs["peer"] = lambda: np.concatenate(peer)
    times = alternately(runs)
    return [
        Row("np.concatenate of 10,000 × 100 chunks", times["one"], "s", times["bound"], times.get("peer"), "<= 1.5 ×"),
        Row("the same, metadata of their own", times["own"], "s", times["bound"], times.get("peer"), "<= 1.5 ×"),
        Row("the same over np.concatenate(dtype=RECORD)", times["one"], "s", times["bound, dtype given"]),
    ]


def _peer_joining(count: int) -> list[object]:
    if not HAS_PEER:
        return []
    from virtualizarr.manifests import ChunkManifest as PeerManifest
    from virtualizarr.manifests import ManifestArray as PeerArray
    from zarr.core.metadata.v3 import ArrayV3Metadata

    metadata = ArrayV3Metadata.from_dict(vc.ArrayMetadata.build(shape=(100, 4), chunks=(1, 4), dtype="<f4").to_dict())
    offsets = (np.arange(100, dtype="u8") * 1000).reshape(100, 1)
    lengths = np.full((100, 1), 1000, dtype="u8")
    return [
        PeerArray(
            metadata,
            PeerManifest.from_arrays(
                paths=np.full((100, 1), f"s3://bucket/archive/{i:06d}.nc", dtype=np.dtypes.StringDType()),
                offsets=offsets,
                lengths=lengths,
                validate_paths=False,
            ),
        )
        for i in range(count)
    ]


def run() -> list[Row]:
    """Measure everything here."""
    return [*memory(), *arrays(), *joining()]
