"""The same promises over a real S3 API, moto's, in this process."""

from __future__ import annotations

import random

import obstore
import pytest

from virtualchunks.errors import NotGrantedError, ShortReadError, SourceChangedError, SourceUnavailableError
from virtualchunks.reading.fetch import fetch
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry

server_module = pytest.importorskip("moto.server")
DATA = random.Random(7).randbytes(1_500_000)


@pytest.fixture(scope="module")
def options():
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "endpoint": f"http://{host}:{port}",
        "region": "us-east-1",
        "access_key_id": "test",
        "secret_access_key": "test",
    }
    server.stop()


@pytest.fixture
def registry(options):
    boto3 = pytest.importorskip("boto3")
    client = boto3.client(
        "s3",
        endpoint_url=options["endpoint"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="pub/a b%.nc", Body=DATA)
    client.put_object(Bucket="bucket", Key="public/x.nc", Body=b"secret")
    client.put_object(Bucket="bucket", Key="pub/empty", Body=b"")
    client.close()
    return ObjectStoreRegistry({"s3://bucket/pub": options})


URL = "s3://bucket/pub/a%20b%25.nc"


def test_ranges_of_an_object(registry):
    ranges = [(1_499_990, 10), (0, 5), (700_000, 100)]
    assert [bytes(part) for part in fetch(registry, URL, ranges)] == [DATA[a : a + n] for a, n in ranges]
    with pytest.raises(NotGrantedError):
        fetch(registry, "s3://bucket/public/x.nc", [(0, 1)])
    with pytest.raises(SourceUnavailableError, match="no such object"):
        fetch(registry, "s3://bucket/pub/gone", [(0, 1)])
    with pytest.raises(ShortReadError):
        fetch(registry, URL, [(1_500_000, 1)])


def test_an_overwritten_object_is_refused(registry):
    with ObjectReader(registry, URL) as reader:
        assert reader.read() == DATA
        assert (reader.requests, reader.size) == (2, len(DATA))
        stamp = reader.stamp
    assert bytes(fetch(registry, URL, [(3, 4)], stamp)[0]) == DATA[3:7]
    store, key = registry.resolve(URL)
    obstore.put(store, key, DATA[::-1])
    with pytest.raises(SourceChangedError, match="etag was"):
        fetch(registry, URL, [(3, 4)], stamp)


def test_an_empty_object(registry):
    with ObjectReader(registry, "s3://bucket/pub/empty") as reader:
        assert (reader.size, reader.read()) == (0, b"")
