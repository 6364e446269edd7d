"""The registry is the one gate: what it grants, through which store and key, and what it refuses."""

from __future__ import annotations

import copy
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from obspec_utils.registry import ObjectStoreRegistry as ObspecRegistry
from obspec_utils.wrappers import RequestTrace, TracingReadableStore
from obstore.store import HTTPStore, LocalStore, MemoryStore, S3Store

from virtualchunks.errors import NotGrantedError, SourceUnavailableError, UnsupportedFeatureError, URLError
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import as_url

SECRET = "wJalrXUtnFEMI"


def memory(**objects):
    store = MemoryStore()
    for key, value in objects.items():
        store.put(key, value)
    return store


def s3(**options):
    return S3Store("b", region="us-east-1", skip_signature=True, **options)


def read(registry, url):
    store, key = registry.resolve(url)
    return bytes(store.get(key).bytes())


def test_an_empty_registry_grants_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"secret")
    registry = ObjectStoreRegistry()
    assert len(registry) == 0
    assert registry
    for url in (as_url(tmp_path / "a"), "s3://b/a", "https://h/a", "memory:///a"):
        assert url not in registry
        with pytest.raises(NotGrantedError, match=r"covers nothing.*registry\.register"):
            registry.resolve(url)


def test_the_longest_prefix_by_segments_wins():
    stores = {prefix: MemoryStore() for prefix in ("s3://b", "s3://b/pub", "s3://b/pub/deep/er")}
    registry = ObjectStoreRegistry(stores)
    for url, prefix in {
        "s3://b/x": "s3://b",
        "s3://b/public/x": "s3://b",
        "s3://b/pub": "s3://b/pub",
        "s3://b/pub/x": "s3://b/pub",
        "s3://b/pub/deep/x": "s3://b/pub",
        "s3://b/pub/deep/er/x": "s3://b/pub/deep/er",
    }.items():
        assert registry.resolve(url) == (stores[prefix], url.removeprefix("s3://b/"))


@pytest.mark.parametrize(
    "url",
    [
        "s3://b/public/x",
        "s3://b/PUB/x",
        "s3://b2/pub/x",
        "s3://b.evil/pub/x",
        "gs://b/pub/x",
        "https://b/pub/x",
        "s3://b/x",
        "s3://b/",
    ],
)
def test_what_no_prefix_covers_is_refused(url):
    registry = ObjectStoreRegistry({"s3://b/pub": MemoryStore(), "https://h/": None})
    assert url not in registry
    with pytest.raises(NotGrantedError, match="covers s3://b/pub/, https://h/"):
        registry.resolve(url)
    assert registry.resolve("s3://b/pub/x")[1] == "pub/x"


@pytest.mark.parametrize(
    "url", ["s3://b/pub/../x", "s3://b/pub/%2e%2e/x", "s3://u@b/pub/x", "s3://b/pub/x?versionId=7", "/etc/passwd"]
)
def test_what_has_no_canonical_url_is_refused(url):
    registry = ObjectStoreRegistry({"s3://b/pub": MemoryStore()})
    assert url not in registry
    with pytest.raises(URLError):
        registry.resolve(url)


def test_the_error_names_the_line_that_helps():
    with pytest.raises(NotGrantedError) as caught:
        ObjectStoreRegistry({"file:///data": None}).resolve("s3://b/pub/x.nc")
    line = str(caught.value).partition("add ")[2].partition(" [")[0]
    assert line == 'registry.register(\'s3://b/pub/\', {"skip_signature": True, "region": "…"})'
    registry = ObjectStoreRegistry()
    eval(line, {"registry": registry})
    assert "s3://b/pub/x.nc" in registry


@pytest.mark.parametrize(
    ("prefix", "store", "url", "key"),
    [
        ("s3://b/pub", s3(), "s3://b/pub/a%20b", "pub/a b"),
        ("s3://b/pub", s3(prefix="pub"), "s3://b/pub/x", "x"),
        ("s3://b", s3(prefix="pub/"), "s3://b/pub/x", "x"),
        ("s3://b", s3(prefix="pub"), "s3://b/pub", ""),
        ("s3://b", s3(prefix="pub"), "s3://b/pub/", ""),
        ("s3://b", s3(prefix="p u/b"), "s3://b/p%20u/b/x%23", "x#"),
        ("https://h/dir", HTTPStore("https://h/dir"), "https://h/dir/x", "x"),
        ("https://h", HTTPStore("https://h/"), "https://h/dir/x", "dir/x"),
        ("https://h", HTTPStore("https://h/a%20b/"), "https://h/a b/x", "x"),
        ("file://", LocalStore(), "file:///nowhere/x", "nowhere/x"),
        ("file:///", LocalStore("/usr"), "file:///usr/x", "x"),
        ("/usr", None, "file:///usr/x", "x"),
        ("s3://b/pub/", {"region": "us-east-1", "skip_signature": True}, "s3://b/pub/d/x", "d/x"),
        ("https://h/a%20b", None, "https://h/a%20b/x", "x"),
        ("memory://", MemoryStore(), "memory:///a/x", "a/x"),
        ("memory://run", MemoryStore(), "memory://run/a/x", "a/x"),
        ("https://h/dir", MemoryStore(), "https://h/dir/x", "dir/x"),
    ],
)
def test_the_key_is_relative_to_what_the_store_begins_at(prefix, store, url, key):
    assert ObjectStoreRegistry({prefix: store}).resolve(url)[1] == key


@pytest.mark.parametrize(
    ("prefix", "store", "url"),
    [
        ("s3://b", s3(prefix="pub"), "s3://b/other/x"),
        ("s3://b", s3(prefix="pub"), "s3://b/public/x"),
        ("s3://b", s3(prefix="pub"), "s3://b/pu"),
        ("file://", LocalStore("/usr"), "file:///etc/passwd"),
        ("https://h", HTTPStore("https://h/dir"), "https://h/x"),
    ],
)
def test_a_url_outside_the_stores_own_prefix_is_refused(prefix, store, url):
    with pytest.raises(NotGrantedError, match="lies outside the store"):
        ObjectStoreRegistry({prefix: store}).resolve(url)


def test_harmless_names_reach_their_file(tmp_path):
    registry = ObjectStoreRegistry({tmp_path: None, "memory://": (inside := MemoryStore())})
    for name in ("a b", "ä", "a+b", "[1]", "a;b", "a#b", "a?b", "50%", "%20", "{x}", "*", "a:b"):
        (tmp_path / name).write_bytes(name.encode())
        inside.put(name, name.encode())
        assert read(registry, as_url(tmp_path / name)) == name.encode()
        assert read(registry, as_url(tmp_path / name).replace(as_url(tmp_path), "memory://")) == name.encode()
        assert registry.locate((tmp_path / name).as_uri()).path == os.path.realpath(tmp_path / name)


def test_naming_an_object_grants_just_that_object(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"a")
    (tmp_path / "b.nc").write_bytes(b"b")
    empty = ObjectStoreRegistry()
    registry = empty.grant(tmp_path / "a.nc", "https://h/d/a.nc", "s3a://bucket/a.nc", "gs://b/a", "http://h:8080/x")
    assert read(registry, as_url(tmp_path / "a.nc")) == b"a"
    for url in (
        as_url(tmp_path / "b.nc"),
        as_url(tmp_path / "a.nc") + "/b",
        "https://h/d/b.nc",
        "https://h/d/",
        "s3://bucket/b.nc",
    ):
        assert url not in registry
        with pytest.raises(NotGrantedError):
            registry.resolve(url)
    assert len(empty) == 0
    assert registry.resolve("https://h/d/a.nc")[0].url.startswith("https://h/")
    store, key = registry.resolve("s3://bucket/a.nc")
    assert (key, store.config["skip_signature"]) == ("a.nc", "true")
    assert registry.resolve("http://h:8080/x")[0].client_options["allow_http"] == "true"
    assert registry.grant("https://h/d/a.nc") is registry
    assert "s3://bucket/a.nc" in tuple(registry)
    for url in ("az://c/a", "memory:///a"):
        with pytest.raises(NotGrantedError, match="register"):
            empty.grant(url)


def test_what_a_registered_prefix_covers_keeps_its_store():
    store = MemoryStore()
    registry = ObjectStoreRegistry({"s3://b": store})
    assert registry.grant("s3://b/x") is registry
    assert registry.grant("s3://c/x").resolve("s3://b/x")[0] is store


@pytest.fixture
def linked(tmp_path):
    """Two folders, `pub` and `home`, and links from the one to the other."""
    for name in ("pub/in", "home"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pub/in/a").write_bytes(b"inside")
    (tmp_path / "home/secret").write_bytes(b"secret")
    (tmp_path / "pub/file").symlink_to(tmp_path / "home/secret")
    (tmp_path / "pub/folder").symlink_to(tmp_path / "home")
    (tmp_path / "pub/relative").symlink_to("../home/secret")
    (tmp_path / "pub/inside").symlink_to("in/a")
    (tmp_path / "pub/loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize("store", [None, "whole disk", "folder", "wrapped"])
def test_links_that_lead_out_of_the_prefix_are_refused(linked, store):
    whole = LocalStore()
    stores = {
        "whole disk": whole,
        "folder": LocalStore(linked / "pub"),
        "wrapped": TracingReadableStore(whole, RequestTrace()),
    }
    registry = ObjectStoreRegistry({linked / "pub": stores.get(store)})
    for name in ("file", "folder/secret", "relative"):
        with pytest.raises(NotGrantedError, match=r"symbolic link.*registry\.register"):
            registry.resolve(as_url(linked / "pub" / name))
    assert read(registry, as_url(linked / "pub/inside")) == read(registry, as_url(linked / "pub/in/a")) == b"inside"


def test_links_are_followed_to_what_is_granted(linked):
    registry = ObjectStoreRegistry({linked / "pub": None, linked / "home": None})
    assert read(registry, as_url(linked / "pub/file")) == b"secret"
    assert read(ObjectStoreRegistry({"file://": LocalStore()}), as_url(linked / "pub/folder/secret")) == b"secret"
    assert read(
        ObjectStoreRegistry({linked / "pub": None}).grant(linked / "home/secret"), as_url(linked / "pub/relative")
    )
    assert read(ObjectStoreRegistry({linked / "pub": None}).grant(linked / "pub/file"), as_url(linked / "pub/file"))


def test_a_prefix_may_itself_be_a_link(linked):
    (linked / "alias").symlink_to("pub")
    registry = ObjectStoreRegistry({linked / "alias": None})
    assert read(registry, as_url(linked / "alias/in/a")) == b"inside"
    with pytest.raises(NotGrantedError, match="symbolic link"):
        registry.resolve(as_url(linked / "alias/file"))


def test_a_granted_file_that_became_a_link_is_refused(linked):
    registry = ObjectStoreRegistry().grant(linked / "pub/in/a")
    (linked / "pub/in/a").unlink()
    (linked / "pub/in/a").symlink_to(linked / "home/secret")
    with pytest.raises(NotGrantedError, match="symbolic link"):
        registry.locate(as_url(linked / "pub/in/a"))


def test_options_build_a_store_once_in_all_threads():
    registry = ObjectStoreRegistry({"s3://b/pub": {"skip_signature": True, "endpoint": "http://127.0.0.1:1"}})
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: registry.resolve("s3://b/pub/x")[0], range(64)))
    assert all(store is stores[0] for store in stores)
    assert stores[0].client_options["allow_http"] == "true"
    assert registry.register("s3://b/pub", None) is None
    assert registry.resolve("s3://b/pub/x")[0].config["skip_signature"] == "true"


def test_http_is_allowed_where_it_was_named():
    registry = ObjectStoreRegistry({"http://h": {"client_options": {"timeout": "5s"}}, "https://h": None})
    assert registry.resolve("http://h/x")[0].client_options == {"allow_http": "true", "timeout": "5s"}
    assert registry.resolve("https://h/x")[0].client_options is None


@pytest.mark.parametrize("options", [{"no_such_option": SECRET}, {"client_options": {"nonsense": 1}}])
def test_options_that_build_no_store_say_so_without_their_values(options):
    with pytest.raises(SourceUnavailableError, match="no store can be built for s3://b/") as caught:
        ObjectStoreRegistry({"s3://b": options}).resolve("s3://b/x")
    assert SECRET not in str(caught.value)


def test_a_folder_that_is_not_there_says_so():
    with pytest.raises(SourceUnavailableError, match="/no/such/folder"):
        ObjectStoreRegistry({"/no/such/folder": None}).resolve("file:///no/such/folder/x")


@pytest.mark.parametrize("store", ["s3", 7, object(), MemoryStore])
def test_what_is_no_store_is_refused_at_once(store):
    with pytest.raises(TypeError, match="expected an obstore store"):
        ObjectStoreRegistry({"s3://b": store})


@pytest.mark.parametrize("prefix", ["s3://", "https://", "s3://b/?x", "ftp://h/"])
def test_a_prefix_is_a_url_with_a_bucket_or_host(prefix):
    with pytest.raises(URLError):
        ObjectStoreRegistry({prefix: None})


def secretive():
    return ObjectStoreRegistry(
        {
            "s3://b": S3Store("b", access_key_id="AKIA", secret_access_key=SECRET, region="us-east-1"),
            "s3://c/x": {"access_key_id": "AKIA", "secret_access_key": SECRET},
            "file:///data": None,
        }
    ).grant("https://h/a.nc")


def test_the_repr_shows_prefixes_and_kinds_and_no_secret():
    registry = secretive()
    registry.resolve("s3://c/x/y")
    assert repr(registry) == (
        "ObjectStoreRegistry({'s3://b/': S3Store, 's3://c/x/': S3Store, 'file:///data/': LocalStore, "
        "'https://h/a.nc': this object})"
    )
    assert SECRET not in repr(registry.locate("s3://b/x"))
    assert SECRET not in repr(registry.__dict__)
    with pytest.raises(NotGrantedError) as caught:
        registry.resolve("s3://d/x")
    assert SECRET not in str(caught.value)


def test_registries_are_equal_where_prefixes_and_stores_are():
    assert secretive() == secretive()
    assert secretive() != ObjectStoreRegistry()
    assert ObjectStoreRegistry({"s3://b": None}) != ObjectStoreRegistry({"s3://b": {"region": "x"}})
    assert ObjectStoreRegistry({"s3://b/": None}) == ObjectStoreRegistry({"S3://b": None})
    assert ObjectStoreRegistry() != {}
    with pytest.raises(TypeError, match="unhashable"):
        hash(ObjectStoreRegistry())


def test_a_registry_pickles(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    registry = secretive().grant(tmp_path / "a")
    again = pickle.loads(pickle.dumps(registry))
    assert again == registry
    assert read(again, as_url(tmp_path / "a")) == b"a"
    assert as_url(tmp_path / "b") not in again


def test_a_store_in_memory_refuses_to_be_pickled_and_names_the_prefix():
    registry = ObjectStoreRegistry({"memory://run": MemoryStore()})
    with pytest.raises(UnsupportedFeatureError, match="memory://run/"):
        pickle.dumps(registry)
    assert copy.copy(registry) == copy.deepcopy(registry) == registry


class Credentials:
    def __call__(self):
        return {"access_key_id": "AKIA", "secret_access_key": SECRET, "expires_at": None}


def test_a_credential_provider_keeps_the_secret_out_of_the_pickle():
    registry = ObjectStoreRegistry({"s3://b": {"credential_provider": Credentials(), "region": "us-east-1"}})
    registry.resolve("s3://b/x")
    pickled = pickle.dumps(registry)
    assert SECRET.encode() not in pickled
    assert pickle.loads(pickled).prefixes == registry.prefixes


def test_coerce():
    registry = ObjectStoreRegistry({"s3://b": None})
    assert ObjectStoreRegistry.coerce(registry) is registry
    assert ObjectStoreRegistry.coerce({"s3://b": None}) == registry
    assert ObjectStoreRegistry.coerce(None) == ObjectStoreRegistry()
    with pytest.raises(TypeError, match="dict of prefixes"):
        ObjectStoreRegistry.coerce(["s3://b"])


def test_a_registry_of_obspec_utils_is_taken_over_and_made_safe(linked):
    one, two = memory(x=b"1"), s3(prefix="pub")
    theirs = ObspecRegistry({"memory://": one, "s3://b/pub": two, "file://": LocalStore(linked / "pub")})
    ours = ObjectStoreRegistry.coerce(theirs)
    assert set(ours.prefixes) == {"memory:///", "s3://b/pub/", "file:///"}
    for url in ("memory:///x", "s3://b/pub/d/x", as_url(linked / "pub/in/a")):
        assert ours.resolve(url) == theirs.resolve(url)
    with pytest.raises(NotGrantedError):
        ours.resolve(as_url(linked / "home/secret"))
    assert ObspecRegistry({"memory://": one}).resolve("memory:///x") == ours.resolve("memory:///x")


class ElsewhereRegistry:
    """A registry of somebody else's, that knows only how to resolve."""

    def __init__(self, stores):
        self.stores = stores

    def resolve(self, url):
        scheme, _, rest = url.partition("://")
        if scheme not in self.stores:
            raise ValueError(url)
        return self.stores[scheme], rest.partition("/")[2]


def test_any_other_registry_is_asked_through_the_gate(linked):
    registry = ObjectStoreRegistry.coerce(ElsewhereRegistry({"memory": memory(x=b"1"), "file": LocalStore()}))
    assert read(registry, "memory:///x") == b"1"
    assert read(registry, as_url(linked / "pub/in/a")) == b"inside"
    assert registry.locate(as_url(linked / "pub/in/a")).path == os.path.realpath(linked / "pub/in/a")
    assert "ElsewhereRegistry" in repr(registry)
    with pytest.raises(NotGrantedError, match="ElsewhereRegistry does not cover"):
        registry.resolve("s3://b/x")
    with pytest.raises(URLError):
        registry.resolve("memory:///../x")
    with pytest.raises(NotGrantedError, match="symbolic link"):
        registry.resolve(as_url(linked / "pub/file"))
    assert registry.grant("memory:///x") is registry
    assert registry.grant("https://h/x").resolve("https://h/x")[1] == "x"
    assert read(registry.grant(linked / "pub/file"), as_url(linked / "pub/file")) == b"secret"


def test_it_iterates_over_what_it_contains():
    registry = secretive()
    assert len(registry) == len(list(registry)) == 4
    assert all(url in registry for url in registry)
    assert 7 not in registry
    assert Path("/data") not in registry


def test_the_working_directory_names_relative_prefixes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_bytes(b"x")
    assert read(ObjectStoreRegistry({"data": LocalStore("data")}), as_url("data/x")) == b"x"
