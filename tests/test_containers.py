"""What a registry grants becomes what Icechunk may read, with the same stores and keys, and nothing beside it."""

from datetime import UTC, datetime
from urllib.request import Request, urlopen

import icechunk
import numpy as np
import pytest
import zarr
from obstore.store import AzureStore, GCSStore, HTTPStore, LocalStore, MemoryStore, S3Store

from virtualchunks import ArrayMetadata, ManifestArray, ManifestGroup, ObjectStoreRegistry
from virtualchunks.errors import NotGrantedError, UnsupportedFeatureError
from virtualchunks.writers.icechunk import write_icechunk


@pytest.fixture(autouse=True)
def quiet():
    icechunk.set_logs_filter("error")


def repository(registry):
    config = icechunk.RepositoryConfig.default()
    for container in registry.icechunk_containers():
        config.set_virtual_chunk_container(container)
    storage = icechunk.in_memory_storage()
    access = registry.icechunk_credentials()
    return icechunk.Repository.create(storage, config, authorize_virtual_chunk_access=access)


def one_chunk(url, values):
    metadata = ArrayMetadata.build(
        shape=values.shape, chunks=values.shape, dtype=values.dtype, dimension_names=["x"] * values.ndim
    )
    entries = {"0": {"path": url, "offset": 0, "length": values.nbytes}}
    return ManifestGroup({"v": ManifestArray(metadata, entries)})


def written_and_read(registry, url, values):
    repo = repository(registry)
    session = repo.writable_session("main")
    write_icechunk(one_chunk(url, values), session.store)
    session.commit("v")
    return zarr.open_array(repo.readonly_session("main").store, path="v", mode="r")[:]


@pytest.mark.parametrize("store", [None, LocalStore], ids=["options", "store"])
def test_a_folder(tmp_path, store):
    values = np.arange(5, dtype="<i8")
    folder = tmp_path / "a b#c"
    folder.mkdir()
    values.tofile(folder / "ü %.bin")
    registry = ObjectStoreRegistry({str(folder): store and store(folder)})
    assert [container.url_prefix for container in registry.icechunk_containers()] == [f"file://{folder}/"]
    np.testing.assert_array_equal(written_and_read(registry, (folder / "ü %.bin").as_uri(), values), values)
    outside = tmp_path / "other.bin"
    values.tofile(outside)
    with pytest.raises(NotGrantedError, match="outside the virtual chunk containers"):
        written_and_read(registry, outside.as_uri(), values)


@pytest.mark.parametrize("prefix", ["s3://bucket/", "s3://bucket/pub/", "s3://bucket/pub/a b%23c/"])
def test_a_bucket_with_keys(prefix):
    pytest.importorskip("moto.server")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        urlopen(Request(f"{endpoint}/bucket", method="PUT"))
        keys = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1", "endpoint": endpoint}
        values = np.arange(5, dtype="<i8")
        S3Store("bucket", client_options={"allow_http": True}, **keys).put("pub/a b#c/d e.bin", values.tobytes())
        registry = ObjectStoreRegistry({prefix: keys})
        url = "s3://bucket/pub/a%20b%23c/d%20e.bin"
        np.testing.assert_array_equal(written_and_read(registry, url, values), values)
    finally:
        server.stop()


def test_kinds_of_stores():
    registry = ObjectStoreRegistry(
        {
            "s3://open/": None,
            "s3://mine/": {"region": "eu-central-1", "access_key_id": "K", "secret_access_key": "SECRET"},
            "gs://b/pub/": GCSStore("b", skip_signature=True),
            "az://c/": AzureStore("c", account_name="me", account_key="U0VDUkVU"),
            "https://host/": HTTPStore("https://host"),
        }
    )
    made = {container.url_prefix: container for container in registry.icechunk_containers()}
    assert list(made) == list(registry.prefixes)
    kinds = [type(container.store).__name__ for container in made.values()]
    assert kinds == ["S3", "S3", "Gcs", "Azure", "Http"]
    assert made["s3://mine/"].store._0.region == "eu-central-1"
    assert (made["s3://open/"].store._0.anonymous, made["s3://mine/"].store._0.anonymous) == (True, False)
    shown = "".join(map(str, made.values()))
    assert not [secret for secret in ("SECRET", "U0VDUkVU") if secret in shown]
    access = registry.icechunk_credentials()
    assert list(access) == list(registry.prefixes)
    icechunk.Repository.create(icechunk.in_memory_storage(), authorize_virtual_chunk_access=access)


def fetched():
    return {
        "access_key_id": "K",
        "secret_access_key": "S",
        "token": "T",
        "expires_at": datetime(2100, 1, 1, tzinfo=UTC),
    }


async def fetched_later():
    return fetched()


def test_providers_of_credentials():
    registry = ObjectStoreRegistry({"s3://b/": {"credential_provider": fetched}})
    assert set(registry.icechunk_credentials()) == {"s3://b/"}
    from virtualchunks.containers import _ProvidedS3

    found = _ProvidedS3(fetched)()
    assert (found.access_key_id, found.session_token, found.expires_after.year) == ("K", "T", 2100)
    later = ObjectStoreRegistry({"s3://b/": {"credential_provider": fetched_later}})
    with pytest.raises(UnsupportedFeatureError, match="asynchronous"):
        later.icechunk_credentials()


class Wrapped:
    def get(self, path, *, options=None):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("registry", "message"),
    [
        (ObjectStoreRegistry({"memory://": MemoryStore()}), "no store like the MemoryStore of memory:///"),
        (ObjectStoreRegistry({"s3://b/": Wrapped()}), "no store like the Wrapped of s3://b/"),
        (ObjectStoreRegistry().grant("/data/a.nc"), "grants file:///data/a.nc without a prefix"),
        (
            ObjectStoreRegistry({"https://h/": {"client_options": {"default_headers": {"authorization": "SECRET"}}}}),
            "has the options default_headers",
        ),
    ],
)
def test_what_icechunk_cannot_express(registry, message):
    with pytest.raises(UnsupportedFeatureError, match=message) as caught:
        registry.icechunk_containers()
    assert "SECRET" not in str(caught.value)


def test_objects_below_a_prefix_are_covered_by_it(tmp_path):
    (tmp_path / "a.nc").touch()
    registry = ObjectStoreRegistry({str(tmp_path): None}).grant(str(tmp_path / "a.nc"))
    assert len(registry.icechunk_containers()) == 1
