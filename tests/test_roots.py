"""Named roots: how they are spelled, where they are bound, which mirror is read, and which forms hold them."""

import asyncio
import json
import pickle

import fsspec
import icechunk
import numpy as np
import pytest
import xarray as xr

import virtualchunks as vc
from tests.rangeserver import RangeServer
from virtualchunks.errors import (
    NotGrantedError,
    SourceChangedError,
    SourceUnavailableError,
    UnsupportedFeatureError,
    URLError,
)
from virtualchunks.reading.fetch import afetch, fetch
from virtualchunks.urls import as_url, canonical_url, is_prefix, split
from virtualchunks.xarray import grants
from virtualchunks_parsers.kerchunk import KerchunkParser
from virtualchunks_parsers.table import TableParser

DATA = np.arange(32, dtype="<i2").tobytes()


@pytest.fixture(autouse=True)
def nothing_named() -> None:
    grants._GRANTED.clear()
    grants._REGISTRIES.clear()


def array(url: str, size: int | None = None) -> vc.ManifestArray:
    metadata = vc.ArrayMetadata.build(shape=(8,), chunks=(4,), dtype="<i2", dimension_names=("x",))
    table = vc.SourceTable.single(url, vc.Stamp(size=size))
    records = vc.ChunkManifest.missing((2,)).records.copy()
    records[0], records[1] = (0, 8, 0), (0, 8, 16)
    return vc.ManifestArray(metadata, vc.ChunkManifest.from_records(records, table))


def dataset(url: str = "{archive}/2020/a b.nc", size: int | None = None) -> xr.Dataset:
    return xr.Dataset({"v": ("x", array(canonical_url(url), size))}, coords={"x": np.arange(8)})


VALUES = [0, 1, 2, 3, 8, 9, 10, 11]


def test_one_spelling():
    assert canonical_url("{archive}/2020/a b.nc") == "{archive}/2020/a%20b.nc"
    assert canonical_url("{archive}") == "{archive}/"
    assert split("{archive}/a%20b/c") == ("root", "archive", "a b/c")
    assert is_prefix("{archive}", "{archive}/a")
    assert not is_prefix("{archive}/a", "{archive}/ab")
    assert as_url("/data/{archive}/a") == "file:///data/%7Barchive%7D/a"


@pytest.mark.parametrize(
    "wrong",
    ["{archive}/../a", "{archive}/a?v=1", "{archive}/a#b", "{archive}//a", "{a/b}/c", "{archive}a", "{}/a", "{1}/a",
     "{archive}\\a", "{archive}/%2e%2e/a", "root://archive/a", "{archive}/%00"],
)  # fmt: skip
def test_what_is_no_url(wrong):
    with pytest.raises(URLError):
        canonical_url(wrong)


def test_an_unbound_root_is_not_readable_and_says_so(tmp_path):
    registry = vc.ObjectStoreRegistry({str(tmp_path): None})
    assert "{archive}/a" not in registry
    with pytest.raises(NotGrantedError, match=r"named root 'archive'.*\(bound are none\): pass roots="):
        registry.locate("{archive}/a")
    with pytest.raises(NotGrantedError, match="not opened by name"):
        dataset().virtual.open()
    with pytest.raises(NotGrantedError, match="'archive'"):
        dataset().virtual.open(registry)["v"].values  # noqa: B018


def test_roots_are_bound_when_references_are_opened(tmp_path):
    (tmp_path / "2020").mkdir()
    (tmp_path / "2020" / "a b.nc").write_bytes(DATA)
    opened = dataset().virtual.open(roots={"archive": tmp_path})
    assert opened["v"].values.tolist() == VALUES
    bound = dataset().virtual.bind({"archive": tmp_path})
    assert bound.virtual.sources()["url"].tolist() == [(tmp_path / "2020" / "a b.nc").as_uri()]
    registry = vc.ObjectStoreRegistry(roots={"archive": str(tmp_path)})
    assert "{archive}/2020/a%20b.nc" in registry
    assert "{other}/2020/a%20b.nc" not in registry
    assert registry == pickle.loads(pickle.dumps(registry)) != vc.ObjectStoreRegistry()
    assert "'{archive}/'" in repr(registry)
    assert dataset().virtual.open(registry)["v"].values.tolist() == VALUES


def test_a_root_grants_nothing_above_or_beside_it(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.nc").write_bytes(DATA)
    (tmp_path / "in" / "link.nc").symlink_to(tmp_path / "out.nc")
    registry = vc.ObjectStoreRegistry().bind({"archive": tmp_path / "in"})
    with pytest.raises(NotGrantedError, match="symbolic link"):
        registry.locate("{archive}/link.nc")
    assert (tmp_path / "out.nc").as_uri() not in registry


def test_places_need_a_store():
    with pytest.raises(NotGrantedError, match="az://container"):
        vc.ObjectStoreRegistry().bind({"archive": "az://container/a"})
    with pytest.raises(URLError, match="no place"):
        vc.ObjectStoreRegistry().bind({"archive": []})


@pytest.mark.parametrize("fault", ["404", "403", "500"])
def test_the_next_mirror_is_read_where_one_is_not_there(fault):
    options = {"retry_config": {"max_retries": 0}}
    with RangeServer() as first, RangeServer({"a": DATA}) as second:
        registry = vc.ObjectStoreRegistry({first.root: options, second.root: options})
        registry = registry.bind({"archive": [f"{first.root}/", second.root]})
        first.fail(fault)
        [found] = fetch(registry, "{archive}/a", [(2, 4)], vc.Stamp(size=len(DATA)))
        assert bytes(found) == DATA[2:6]
        assert len(first.requests) == len(second.requests) == 1
        [again] = asyncio.run(afetch(registry, "{archive}/a", [(2, 4)]))
        assert bytes(again) == DATA[2:6]
        second.objects.clear()
        with pytest.raises(SourceUnavailableError):
            fetch(registry, "{archive}/a", [(2, 4)])


def test_a_folder_that_is_not_mounted_is_passed_over(tmp_path):
    (tmp_path / "a").write_bytes(DATA)
    registry = vc.ObjectStoreRegistry().bind({"archive": [tmp_path / "absent", tmp_path]})
    assert bytes(fetch(registry, "{archive}/a", [(0, 2)])[0]) == DATA[:2]


def test_a_mirror_that_differs_is_an_error_and_not_passed_over():
    with RangeServer({"a": DATA + b"more"}) as first, RangeServer({"a": DATA}) as second:
        roots = {"archive": [first.root, second.root]}
        opened = dataset("{archive}/a", len(DATA)).virtual.open(roots=roots)
        with pytest.raises(SourceChangedError, match="size was 64, is 68"):
            opened["v"].values  # noqa: B018
        assert not second.requests
        check = dataset("{archive}/a", len(DATA)).virtual.check(roots=roots)
        assert check.changed == ("{archive}/a",)


def test_named_roots_survive_kerchunk_json(tmp_path):
    (tmp_path / "2020").mkdir()
    (tmp_path / "2020" / "a b.nc").write_bytes(DATA)
    references = tmp_path / "refs.json"
    dataset().virtual.to_kerchunk(references, format="json")
    document = json.loads(references.read_text())
    assert document["templates"] == {"archive": "{archive}"}
    assert document["refs"]["v/0"] == ["{{archive}}/2020/a b.nc", 0, 8]
    assert dataset().virtual.to_kerchunk() == document
    again = vc.open_virtual_dataset(references, parser=KerchunkParser(), loadable_variables=["x"])
    assert again.virtual.sources()["url"].tolist() == ["{archive}/2020/a%20b.nc"]
    assert vc.diff(dataset()[["v"]].drop_vars("x"), again.drop_vars("x")).ok
    bound = vc.open_virtual_dataset(references, parser=KerchunkParser(), roots={"archive": tmp_path})
    assert bound.virtual.open()["v"].values.tolist() == VALUES
    assert bound.virtual.sources()["url"].tolist() == ["{archive}/2020/a%20b.nc"]


def test_fsspec_fills_named_roots_in(tmp_path):
    (tmp_path / "2020").mkdir()
    (tmp_path / "2020" / "a b.nc").write_bytes(DATA)
    files = fsspec.filesystem(
        "reference", fo=dataset().virtual.to_kerchunk(), template_overrides={"archive": str(tmp_path)}
    )
    assert files.cat("v/1") == DATA[16:24]


def test_named_roots_survive_tables(tmp_path):
    group = vc.ManifestGroup({"v": array("{archive}/2020/a%20b.nc", 64)})
    assert vc.diff(group, vc.ManifestGroup.from_arrow(group.to_arrow())).ok
    dataset().virtual.to_parquet(tmp_path / "refs.parquet")
    read = TableParser()((tmp_path / "refs.parquet").as_uri(), vc.ObjectStoreRegistry({str(tmp_path): None}))
    assert read.group.virtual.sources()["url"] == ["{archive}/2020/a%20b.nc", "__inlined__"]


def test_forms_that_cannot_hold_named_roots_say_so(tmp_path):
    with pytest.raises(UnsupportedFeatureError, match=r"named root of .*archive.*bind"):
        dataset().virtual.to_kerchunk(tmp_path / "refs.parq", format="parquet")
    assert not (tmp_path / "refs.parq").exists()
    session = icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main")
    with pytest.raises(UnsupportedFeatureError, match=r"Icechunk cannot hold \{archive\}.*bind"):
        dataset().virtual.to_icechunk(session.store)
    with pytest.raises(UnsupportedFeatureError, match=r"Lance cannot hold \{archive\}"):
        dataset().virtual.to_lance(tmp_path / "refs.lance")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UnsupportedFeatureError, match="braces"):
        dataset("{archive}/a%7Bb%7D").virtual.to_kerchunk()


def test_a_document_cannot_bind_a_root_by_itself(tmp_path):
    (tmp_path / "secret").write_bytes(DATA)
    document = dataset("{archive}/secret").virtual.to_kerchunk()
    document["templates"] = {"archive": tmp_path.as_uri()}
    again = KerchunkParser().from_dict(document).to_virtual_dataset()
    with pytest.raises(NotGrantedError):
        again.virtual.open()["v"].values  # noqa: B018
