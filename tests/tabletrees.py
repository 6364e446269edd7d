"""A tree of references for the tests of tables: two ranks, two objects with stamps, chunks in memory and missing."""

import numpy as np

import virtualchunks as vc
from virtualchunks.inline import encode_array
from virtualchunks.manifest import RECORD, ChunkManifest

FOLDER = "s3://bucket/archive"


def cube(days=4, *, start=0):
    """Return an array of `days` × 2 chunks, two days to an object."""
    metadata = vc.ArrayMetadata.build(
        shape=(days, 6), chunks=(1, 3), dtype="<f4", fill_value=np.nan, dimension_names=("time", "x")
    )
    records = np.zeros((days, 2), dtype=RECORD)
    records["source"] = np.arange(days)[:, None] // 2
    records["length"] = 12
    records["offset"] = 1000 * np.arange(days)[:, None] + 100 * np.arange(2)
    count = -(-days // 2)
    stamps = [
        vc.Stamp(size=10**6 + i, etag=f'"{i}"', last_modified=1_700_000_000_123_456_789 + i) for i in range(count)
    ]
    urls = [f"{FOLDER}/{start + number}%20a.nc" for number in range(count)]
    return vc.ManifestArray(metadata, ChunkManifest.from_records(records, vc.SourceTable.of_urls(urls, stamps)))


def held(values):
    """Return values as an array of chunks of two held in memory."""
    metadata = vc.ArrayMetadata.build(shape=values.shape, chunks=(2,), dtype=values.dtype, dimension_names=("time",))
    return vc.ManifestArray(metadata, encode_array(values, metadata))


def tree():
    """Return a tree with a group, of 8 virtual chunks, 2 in memory and one missing."""
    holes = cube()
    records = holes.manifest.records.copy()
    records["source"][3, 1] = -1
    holes = vc.ManifestArray(holes.metadata, ChunkManifest.from_records(records, holes.manifest.sources))
    inner = vc.ManifestGroup({"time": held(np.arange(4, dtype="<i8"))}, {"empty": vc.ManifestGroup()}, {"level": 1})
    scalar = vc.ManifestArray(
        vc.ArrayMetadata.build(shape=(), chunks=(), dtype="<i2"),
        ChunkManifest({"0": {"path": f"{FOLDER}/s.nc", "offset": 0, "length": 2}}, ()),
    )
    return vc.ManifestGroup({"air": holes, "crs": scalar}, {"inner": inner}, {"title": "a tree"})
