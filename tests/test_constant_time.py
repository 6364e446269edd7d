"""What must not grow with the number of arrays or chunks is counted: looks at arrays, and calls to a store."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import WrapperStore

import virtualchunks as vc
from virtualchunks.manifest import RECORD

MANY = 5_000


def array_of(chunks: int) -> vc.ManifestArray:
    metadata = vc.ArrayMetadata.build(
        shape=(2 * chunks,), chunks=(2,), dtype="<i4", dimension_names=("x",), attributes={"units": "K"}
    )
    records = np.zeros(chunks, dtype=RECORD)
    records["length"], records["offset"] = 8, 8 * np.arange(chunks)
    table = vc.SourceTable.single("s3://bucket/a.nc")
    return vc.ManifestArray(metadata, vc.ChunkManifest.from_records(records, table))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Which properties of arrays were looked at, and how often."""
    found: Counter[str] = Counter()
    for name in ("manifest", "metadata", "shape", "dtype", "ndim", "size", "nbytes"):
        known = getattr(vc.ManifestArray, name)

        def counted(self: vc.ManifestArray, name: str = name, known: Any = known) -> Any:
            found[name] += 1
            return known.fget(self)

        monkeypatch.setattr(vc.ManifestArray, name, property(counted))
    return found


async def listed(store: Any, prefix: str) -> list[str]:
    return [name async for name in store.list_dir(prefix)]


def test_groups_and_stores_look_at_no_array(looks: Counter[str]) -> None:
    one = array_of(2)
    inner = vc.ManifestGroup({f"w{number}": one for number in range(MANY)})
    group = vc.ManifestGroup({f"v{number}": one for number in range(MANY)}, {"inner": inner}, {"title": "many"})
    registry = vc.ObjectStoreRegistry()
    looks.clear()
    store = vc.ManifestStore(group, registry=registry)
    assert "5000 arrays" in repr(group)
    assert "5000 arrays" in str(store)
    assert "5000 arrays" in repr(store)
    assert len(group) == len(list(group)) == MANY + 1
    assert "v17" in group
    assert "v17/x" not in group
    assert group["inner"] is inner
    assert group["inner/w3"] is one
    assert store == store
    assert len(asyncio.run(listed(store, ""))) == MANY + 2
    assert len(asyncio.run(listed(store, "inner"))) == MANY + 1
    assert len(asyncio.run(listed(store, "v17"))) == 2
    assert sum(looks.values()) <= 16, looks


def test_arrays_look_at_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming an array of a million chunks touches none of them."""
    array = array_of(1_000_000)
    for name in ("records", "present", "_distinct"):
        monkeypatch.setattr(vc.ChunkManifest, name, property(lambda self, name=name: pytest.fail(f"{name} is used")))
    assert "2000000" in repr(array)
    assert repr(array) == str(array)
    assert "1000000" in repr(array.manifest)
    assert (len(array), array.size, array.nbytes) == (2_000_000, 2_000_000, 8_000_000)
    assert "2000000" in repr(xr.Variable(("x",), array)).replace(",", "")


class Counting(WrapperStore[Any]):
    """A store that counts what is asked of it."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.calls: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        if name in ("get", "get_sync", "get_partial_values", "list", "list_dir", "list_prefix", "exists", "getsize"):
            object.__getattribute__(self, "calls")[name] += 1
        return super().__getattribute__(name)


@pytest.mark.parametrize("many", [1, 500])
@pytest.mark.parametrize(("options", "most"), [({}, 4), ({"zarr_format": 3}, 1)], ids=["default", "version 3"])
def test_opening_a_store_costs_as_many_calls_as_zarr_knows_formats(
    many: int, options: dict[str, Any], most: int
) -> None:
    """All metadata is consolidated; by default, zarr asks for the documents of both versions of the format."""
    one = array_of(2)
    store = Counting(vc.ManifestStore(vc.ManifestGroup({f"v{number}": one for number in range(many)})))
    opened = xr.open_zarr(store, **options)
    assert len(opened) == many
    assert sum(store.calls.values()) == most, store.calls
