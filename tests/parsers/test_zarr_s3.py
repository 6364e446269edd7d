"""Zarr stores and Icechunk repositories behind a real S3 API, moto's, in this process; and Icechunk over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr
from rangeserver import RangeServer
from zarrstores import array_at, assert_same, values_of, zarr_values

from virtualchunks.errors import FormatError, NotGrantedError, SourceChangedError, SourceUnavailableError
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.icechunk import IcechunkParser
from virtualchunks_parsers.kerchunk import KerchunkParser
from virtualchunks_parsers.zarr import ZarrParser

server_module = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str) -> Iterator[Any]:
    made = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **KEYS)
    made.create_bucket(Bucket="bucket")
    yield made
    made.close()


def registry_of(endpoint: str, prefix: str) -> ObjectStoreRegistry:
    keys = {"access_key_id": "test", "secret_access_key": "test"}
    return ObjectStoreRegistry({prefix: {"endpoint": endpoint, "region": "us-east-1", **keys}})


def upload(client: Any, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            client.put_object(Bucket="bucket", Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())


@pytest.mark.parametrize("prefix", ["s3://bucket", "s3://bucket/pub", "s3://bucket/pub/a.zarr"])
def test_a_zarr_store(prefix: str, endpoint: str, client: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    root = zarr.open_group(str(path), mode="w")
    root.create_array("a b/c", shape=(8,), chunks=(2,), shards=(4,), dtype="<i4")[...] = np.arange(8)
    root.create_array("d", shape=(8,), chunks=(3,), dtype="<i4")[:4] = 7
    upload(client, path, "pub/a.zarr")
    client.put_object(Bucket="bucket", Key="pub/a.zarr2/zarr.json", Body=b"{}")
    registry = registry_of(endpoint, prefix)
    store = ZarrParser(strict=True)("s3://bucket/pub/a.zarr", registry)
    assert_same(values_of(store), zarr_values(str(path)))
    with pytest.raises(NotGrantedError):
        ZarrParser()("s3://other/pub/a.zarr", registry)
    stamp = array_at(store, "d").manifest.sources.stamp(0)
    assert stamp.size
    assert stamp.etag
    client.put_object(Bucket="bucket", Key="pub/a.zarr/d/c/0", Body=b"x" * (stamp.size or 0))
    with pytest.raises(SourceChangedError):
        values_of(store)


def test_what_is_not_there(endpoint: str, client: Any) -> None:
    registry = registry_of(endpoint, "s3://bucket")
    with pytest.raises(FormatError, match="no Zarr store"):
        ZarrParser()("s3://bucket/nowhere", registry)
    with pytest.raises(SourceUnavailableError, match="listed"):
        ZarrParser()("s3://no-such-bucket/x", registry_of(endpoint, "s3://no-such-bucket"))
    with pytest.raises(SourceUnavailableError, match="no such"):
        KerchunkParser()("s3://bucket/nowhere.json", registry)


def test_an_icechunk_repository(endpoint: str, client: Any) -> None:
    storage = icechunk.s3_storage(
        bucket="bucket", prefix="repos/r", region="us-east-1", endpoint_url=endpoint, allow_http=True,
        access_key_id="test", secret_access_key="test", force_path_style=True,
    )  # fmt: skip
    session = icechunk.Repository.create(storage).writable_session("main")
    root = zarr.open_group(session.store, mode="a")
    root.create_array("a", shape=(4000,), chunks=(1000,), dtype="<f8", compressors=None)[:3000] = np.arange(3000)
    root.create_array("b", shape=(4,), dtype="<i2")[...] = 1
    session.commit("first")
    store = IcechunkParser(strict=True)("s3://bucket/repos/r", registry_of(endpoint, "s3://bucket/repos"))
    assert array_at(store, "a").manifest["0"]["path"].startswith("s3://bucket/repos/r/chunks/")
    assert_same(values_of(store), zarr_values(session.store))
    with pytest.raises(FormatError, match="no Icechunk repository"):
        IcechunkParser()("s3://bucket/repos/none", registry_of(endpoint, "s3://bucket"))


def test_an_icechunk_repository_behind_http(range_server: RangeServer, tmp_path: Path) -> None:
    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "r")))
    session = repo.writable_session("main")
    root = zarr.open_group(session.store, mode="a")
    root.create_array("a", shape=(4000,), chunks=(1000,), dtype="<f8", compressors=None)[:3000] = np.arange(3000)
    session.commit("first")
    for path in (tmp_path / "r").rglob("*"):
        if path.is_file():
            range_server.objects[f"x/r/{path.relative_to(tmp_path / 'r')}"] = path.read_bytes()
    store = IcechunkParser(strict=True)(range_server.url("x/r"), {range_server.root: None})
    assert_same(values_of(store), zarr_values(session.store))
