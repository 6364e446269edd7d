"""Reading several arrays of one object together: the same values as one by one, in fewer requests."""

from typing import Any

import numpy as np
import pytest
from obstore.store import MemoryStore

import virtualchunks as vc
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import SourceUnavailableError
from virtualchunks.manifest import RECORD
from virtualchunks.reading.together import read_together
from virtualchunks.reading.values import read_values

URL = "memory:///a"


class CountingStore:
    """A store in memory that counts what is asked of it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.requests = 0

    def get(self, path: str, *, options: Any = None) -> Any:
        self.requests += 1
        return self.store.get(path, options=options)


@pytest.fixture
def store() -> CountingStore:
    made = CountingStore()
    made.store.put("a", np.arange(60, dtype="<i4").tobytes())
    return made


def build(shape: tuple[int, ...], chunks: tuple[int, ...], start: int, missing: int | None = None) -> vc.ManifestArray:
    metadata = vc.ArrayMetadata.build(shape=shape, chunks=chunks, dtype="<i4", fill_value=-7)
    records = np.zeros(metadata.grid.size, dtype=RECORD)
    records["length"] = 4 * int(np.prod(chunks))
    records["offset"] = 4 * start + np.arange(len(records)) * records["length"]
    if missing is not None:
        records["source"][missing] = -1
    sources = vc.SourceTable.single(URL)
    return vc.ManifestArray(metadata, vc.ChunkManifest.from_records(records.reshape(metadata.grid.grid_shape), sources))


def test_one_request_for_an_object(store: CountingStore):
    registry = vc.ObjectStoreRegistry({"memory://": store})
    big = build((8,), (4,), 40)
    other = ChunkEncoding(np.dtype(">i4"), ({"name": "bytes", "configuration": {"endian": "big"}},))
    mixed = vc.ManifestArray(
        big.metadata, vc.ChunkManifest.from_records(big.manifest.records, big.manifest.sources.with_encoding(other))
    )
    held = vc.ManifestArray(
        vc.ArrayMetadata.build(shape=(2,), chunks=(2,), dtype="<i2"), vc.ChunkManifest.of_buffers([b"\1\0\2\0"], (1,))
    )
    arrays = {
        "x": build((10,), (5,), 0),
        "y": build((2, 6), (2, 3), 10, missing=1),
        "scalar": build((), (), 30),
        "none": build((0,), (1,), 0),
        "mixed": mixed,
        "held": held,
        "joined": np.concatenate([build((4,), (4,), 50), held.astype("i4")]),
    }
    values = read_together(arrays, registry)
    assert store.requests == 1
    for name, array in arrays.items():
        np.testing.assert_array_equal(values[name], read_values(array, registry), err_msg=name)
    assert values["y"].tolist() == [[10, 11, 12, -7, -7, -7], [13, 14, 15, -7, -7, -7]]


def test_nothing_to_read():
    assert read_together({}, vc.ObjectStoreRegistry()) == {}


def test_an_error_names_the_object(store: CountingStore):
    store.store.delete("a")
    registry = vc.ObjectStoreRegistry({"memory://": store})
    with pytest.raises(SourceUnavailableError, match="memory:///a"):
        read_together({"x": build((4,), (4,), 0), "y": build((4,), (4,), 4)}, registry)
