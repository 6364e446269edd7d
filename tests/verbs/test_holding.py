"""Chunks brought into memory, or into a store of one's own, against the bytes where they were."""

import numpy as np
import pytest
import xarray as xr
import zarr
from obstore.store import MemoryStore

import virtualchunks as vc
from tests.rangeserver import RangeServer
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import ChunkIndexError, LimitExceededError, ManifestError, TargetExistsError
from virtualchunks.verbs import inline, materialise

DATA = np.random.default_rng(0).integers(0, 256, 4096, dtype="u1").tobytes()


def array(url: str, length: int = 8, *, missing: tuple[int, ...] = ()) -> vc.ManifestArray:
    """Return 12 × 4 values in chunks of 2 × 4, of which chunk n is `length` bytes at 100 n."""
    metadata = vc.ArrayMetadata.build(shape=(12, 4), chunks=(2, 4), dtype="u1", dimension_names=("t", "x"))
    entries = {f"{n}.0": {"path": url, "offset": 100 * n, "length": length} for n in range(6) if n not in missing}
    return vc.ManifestArray(metadata, vc.ChunkManifest(entries, (6, 1)))


def entries(found: vc.ManifestArray) -> dict:
    return {index: entry.get("data") for index, entry in found.manifest.iter_refs()}


def test_small_chunks_are_fetched_in_merged_requests():
    with RangeServer({"a": DATA, "b": DATA}) as server:
        group = vc.ManifestGroup(
            {"v": array(server.url("a"), missing=(1,)), "w": array(server.url("b")), "big": array(server.url("a"), 80)}
        )
        held = inline(group, 8, {server.root: {}})
        assert len(server.requests) == 2
        assert entries(held.arrays["v"]) == {(n, 0): DATA[100 * n : 100 * n + 8] for n in (0, 2, 3, 4, 5)}
        assert held.arrays["big"] is group.arrays["big"]
        assert held.virtual.sources()["url"] == ["__inlined__", server.url("a")]
        server.forget()
        values = zarr.open_group(vc.ManifestStore(held), mode="r")["v"][:]
        assert not server.requests
    whole = zarr.open_group(
        vc.ManifestStore(vc.ManifestGroup({"v": array("memory:///a")}), registry=memory()), mode="r"
    )
    np.testing.assert_array_equal(np.delete(values, [2, 3], 0), np.delete(whole["v"][:], [2, 3], 0))


def memory() -> dict:
    store = MemoryStore()
    store.put("a", DATA)
    return {"memory://": store}


def test_inline_keeps_how_chunks_decode():
    first = array("memory:///a")
    flipped = ChunkEncoding(
        np.dtype("u1"), ({"name": "transpose", "configuration": {"order": [1, 0]}}, {"name": "bytes"})
    )
    table = vc.SourceTable.of_urls(["memory:///a", "memory:///a"]).with_encoding(flipped, np.array([False, True]))
    records = first.manifest.records.copy()
    records["source"][3:] = 1
    mixed = vc.ManifestArray(first.metadata, vc.ChunkManifest.from_records(records, table))
    group = vc.ManifestGroup({"v": mixed})
    before = zarr.open_group(vc.ManifestStore(group, registry=memory()), mode="r")["v"][:]
    held = inline(group, 100, memory())
    np.testing.assert_array_equal(zarr.open_group(vc.ManifestStore(held), mode="r")["v"][:], before)
    assert held.arrays["v"].is_heterogeneous


def test_inline_has_a_limit_and_knows_its_variables():
    group = vc.ManifestGroup({"v": array("memory:///a")})
    with pytest.raises(LimitExceededError, match="48 bytes together, and the limit is 47"):
        inline(group, 8, limit=47)
    for wrong in (-1, "8", True):
        with pytest.raises(ManifestError, match="number of bytes"):
            inline(group, wrong)
    with pytest.raises(ManifestError, match="no array of references 'q'"):
        inline(group, 8, variables=["q"])
    empty = vc.ManifestGroup({"v": array("memory:///a").with_fill_value_only()})
    assert inline(empty, 8) == empty


def test_a_whole_array_becomes_a_zarr_store_byte_for_byte(tmp_path):
    group = vc.ManifestGroup(
        {"v": array("memory:///a", missing=(2,))},
        {"g": vc.ManifestGroup({"w": array("memory:///a")}, attributes={"title": "inner"})},
        {"title": "root"},
    )
    made = materialise(group, tmp_path / "a store", memory())
    for n in (0, 1, 3, 4, 5):
        assert (tmp_path / "a store" / "v" / "c" / str(n) / "0").read_bytes() == DATA[100 * n : 100 * n + 8]
    native = zarr.open_group(tmp_path / "a store", mode="r")
    before = zarr.open_group(vc.ManifestStore(group, registry=memory()), mode="r")
    after = zarr.open_group(vc.ManifestStore(made, registry={str(tmp_path): None}), mode="r")
    for path in ("v", "g/w"):
        np.testing.assert_array_equal(native[path][:], before[path][:])
        np.testing.assert_array_equal(after[path][:], before[path][:])
    assert dict(native.attrs) == {"title": "root"}
    assert made.virtual.check({str(tmp_path): None}).table["state"] == ["unchanged"] * 11
    with pytest.raises(TargetExistsError):
        materialise(group, tmp_path / "a store", memory())
    materialise(group, tmp_path / "a store", memory(), mode="w")


def test_a_part_is_copied_without_metadata_so_that_nobody_reads_fill(tmp_path):
    group = vc.ManifestGroup({"v": array("memory:///a")})
    made = materialise(group, tmp_path / "s", memory(), selection={"t": slice(3, 6)})
    assert sorted(path.name for path in (tmp_path / "s" / "v" / "c").iterdir()) == ["1", "2"]
    assert not list(tmp_path.rglob("zarr.json"))
    places = [entry["path"] for _, entry in made.arrays["v"].manifest.iter_refs()]
    assert [place.startswith("file:") for place in places] == [False, True, True, False, False, False]
    registry = {**memory(), str(tmp_path): None}
    after = zarr.open_group(vc.ManifestStore(made, registry=registry), mode="r")["v"][:]
    before = zarr.open_group(vc.ManifestStore(group, registry=memory()), mode="r")["v"][:]
    np.testing.assert_array_equal(after, before)
    with pytest.raises(ChunkIndexError):
        materialise(group, tmp_path / "t", memory(), selection={"t": 99})


def test_into_an_object_store():
    registry = memory()
    made = materialise(vc.ManifestGroup({"v": array("memory:///a")}), "memory:///copy", registry)
    assert made.virtual.sources()["url"] == [f"memory:///copy/v/c/{n}/0" for n in range(6)]
    assert bytes(registry["memory://"].get("copy/v/c/4/0").bytes()) == DATA[400:408]
    assert xr.open_zarr(vc.ManifestStore(made, registry=registry), consolidated=False)["v"].shape == (12, 4)
