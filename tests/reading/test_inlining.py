"""Small chunks come into memory as the bytes they were, in one request for each object, and decode as before."""

import numpy as np
import pytest
from obstore.store import MemoryStore

from virtualchunks import ArrayMetadata, ChunkManifest, ManifestArray, ObjectStoreRegistry, SourceTable, Stamp
from virtualchunks.errors import NotGrantedError, SourceChangedError, UnsupportedFeatureError
from virtualchunks.reading.inlining import inlined
from virtualchunks.reading.values import read_values


class Counted:
    """A store that counts what is asked of it."""

    def __init__(self, objects):
        self.store = MemoryStore()
        self.asked = []
        for key, data in objects.items():
            self.store.put(key, data)

    def get(self, path, *, options=None):
        self.asked.append(path)
        return self.store.get(path, options=options)


DATA = {name: np.random.default_rng(number).bytes(4000) for number, name in enumerate("ab")}


def array(lengths, *, dtype="<i2", drop=()):
    metadata = ArrayMetadata.build(shape=(2 * len(lengths),), chunks=(2,), dtype=dtype, fill_value=-1)
    entries = {
        str(number): {"path": f"memory:///{'ab'[number % 2]}", "offset": 16 * number, "length": length}
        for number, length in enumerate(lengths)
        if number not in drop
    }
    return ManifestArray(metadata, ChunkManifest(entries, shape=(len(lengths),)))


def test_chunks_up_to_the_threshold_in_one_request_for_each_object():
    store = Counted(DATA)
    registry = ObjectStoreRegistry({"memory://": store})
    arrays = {"v": array([4, 5, 6, 7, 8], drop=(0,)), "w": array([4] * 6), "far": array([100] * 4)}
    found = inlined(arrays, registry, 6)
    assert sorted(store.asked) == ["a", "b"]
    assert found["far"] is arrays["far"]
    for name, threshold in (("v", 6), ("w", 6)):
        for key, entry in arrays[name].manifest.dict().items():
            if entry["length"] > threshold:
                assert found[name].manifest[key] == entry
            else:
                content = DATA[entry["path"][-1]][entry["offset"] : entry["offset"] + entry["length"]]
                assert found[name].manifest[key]["data"] == content
        assert found[name].manifest.present.tolist() == arrays[name].manifest.present.tolist()


def test_values_stay_where_chunks_decode_in_several_ways():
    registry = ObjectStoreRegistry({"memory://": Counted(DATA)})
    whole = np.concatenate([array([4] * 4), array([4] * 4, dtype=">i2", drop=(1,)), array([4] * 2)])
    expected = read_values(whole, registry)
    found = inlined({"v": whole}, registry, 4)["v"]
    np.testing.assert_array_equal(read_values(found, ObjectStoreRegistry()), expected)
    again = inlined({"v": found}, ObjectStoreRegistry(), 4)["v"]
    assert again is found


def test_nothing_to_fetch_asks_for_nothing():
    store = Counted(DATA)
    registry = ObjectStoreRegistry({"memory://": store})
    arrays = {"v": array([4] * 4), "nothing": array([4] * 2, drop=(0, 1))}
    assert inlined(arrays, registry, 3) == arrays
    assert inlined({}, registry, 3) == {}
    assert store.asked == []


def test_what_may_not_or_must_not_be_read():
    with pytest.raises(NotGrantedError):
        inlined({"v": array([4])}, ObjectStoreRegistry(), 4)
    with pytest.raises(UnsupportedFeatureError, match="counts bytes"):
        inlined({"v": array([4])}, ObjectStoreRegistry(), -1)
    made = array([4, 4])
    stamped = SourceTable.of_urls(list(made.manifest.sources.urls), [Stamp(size=4000), Stamp(size=3999)])
    changed = ManifestArray(made.metadata, ChunkManifest.from_records(made.manifest.records, stamped))
    with pytest.raises(SourceChangedError, match="memory:///b"):
        inlined({"v": changed}, ObjectStoreRegistry({"memory://": Counted(DATA)}), 4)
