"""Zarr stores behind plain HTTP, which cannot be listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from rangeserver import RangeServer
from zarrstores import array_at, assert_same, values_of, zarr_values

from virtualchunks.errors import SourceUnavailableError, UnsupportedArrayWarning, UnsupportedFeatureError
from virtualchunks_parsers.zarr import ZarrParser
from virtualchunks_parsers.zarr import objects as zarr_objects

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata:zarr.errors.ZarrUserWarning")


def serve(server: RangeServer, folder: Path) -> str:
    """Serve a store; return its URL."""
    server.objects.update(
        (f"d/a.zarr/{path.relative_to(folder)}", path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    )
    return server.url("d/a.zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_a_consolidated_group_is_read_and_its_chunks_looked_up(
    version: Any, range_server: RangeServer, tmp_path: Path
) -> None:
    path = tmp_path / "a.zarr"
    root = zarr.open_group(str(path), mode="w", zarr_format=version)
    array = root.create_array("g/a", shape=(6, 5), chunks=(4, 4), dtype="<i4", fill_value=9)
    array[:4] = np.arange(20).reshape(4, 5)
    zarr.consolidate_metadata(str(path))
    url = serve(range_server, path)
    store = ZarrParser()(url, {range_server.root: None})
    assert len(array_at(store, "g/a").manifest) == 2
    assert_same(values_of(store), zarr_values(str(path)))
    assert len(range_server.requests) <= 5 + 4 + 2 * 2 + 2  # documents, chunks, those that are not there, values


def test_a_sharded_array_at_the_root_takes_two_requests_for_each_shard(
    range_server: RangeServer, tmp_path: Path
) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(str(path), shape=(8,), chunks=(2,), shards=(4,), dtype="<i4", compressors=None)
    array[...] = np.arange(8)
    url = serve(range_server, path)
    store = ZarrParser()(url, {range_server.root: None})
    chunks = [request for request in range_server.requests if "/c/" in request.key]
    assert sorted(request.method for request in chunks) == ["GET", "GET", "HEAD", "HEAD"]
    assert all(
        request.range is not None and request.range[1] - request.range[0] == 36
        for request in chunks
        if request.method == "GET"
    )
    assert_same(values_of(store), {"data": np.arange(8, dtype="<i4")})


def test_a_group_that_is_not_consolidated_is_refused(range_server: RangeServer, tmp_path: Path) -> None:
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w").create_array("a", shape=(3,), dtype="<i4")
    url = serve(range_server, tmp_path / "a.zarr")
    with pytest.raises(UnsupportedFeatureError, match=r"consolidate_metadata.*|no consolidated metadata"):
        ZarrParser()(url, {range_server.root: None})


def test_too_many_chunks_to_look_up_are_left_out(
    range_server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_objects, "MOST_LOOKUPS", 3)
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(8,), chunks=(2,), dtype="<i4")[...] = 1
    url = serve(range_server, tmp_path / "a.zarr")
    with pytest.warns(UnsupportedArrayWarning, match="has no listing"):
        ZarrParser()(url, {range_server.root: None})


def test_a_server_that_does_not_answer_is_not_a_missing_chunk(range_server: RangeServer, tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(8,), chunks=(2,), dtype="<i4")[...] = 1
    url = serve(range_server, tmp_path / "a.zarr")
    range_server.fail("403", after=5)
    with pytest.raises(SourceUnavailableError):
        ZarrParser()(url, {range_server.root: None})
