"""Kerchunk references: the shared suite over JSON documents, and every element of the specification, against fsspec."""

from __future__ import annotations

import base64
import gzip
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numcodecs
import numpy as np
import numpy.typing as npt
import pytest
import zarr
from numcodecs.zstd import Zstd
from rangeserver import RangeServer
from zarrstores import array_at, assert_same, values_of, zarr_values

from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    NotGrantedError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
)
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.testing.parsers import ParserTests
from virtualchunks_parsers.kerchunk import KerchunkJSONParser, KerchunkParquetParser, KerchunkParser
from virtualchunks_parsers.kerchunk import columns as kerchunk_columns
from virtualchunks_parsers.kerchunk import document as kerchunk_document

VALUES = np.arange(24, dtype="<i4").reshape(6, 4)


def zarray(**members: Any) -> dict[str, Any]:
    """Return the metadata of a v2 array of VALUES in chunks of two rows."""
    plain = {"zarr_format": 2, "shape": [6, 4], "chunks": [2, 4], "dtype": "<i4", "compressor": None, "filters": None}
    return {**plain, "fill_value": None, "order": "C", **members}


def references(target: str, **members: Any) -> dict[str, Any]:
    """Return references to VALUES in a file that begins with 16 other bytes."""
    return {
        ".zgroup": json.dumps({"zarr_format": 2}),
        ".zattrs": json.dumps({"title": "t"}),
        "a/.zarray": json.dumps(zarray(**members)),
        "a/.zattrs": json.dumps({"_ARRAY_DIMENSIONS": ["y", "x"], "units": "m"}),
        **{f"a/{i}.0": [target, 16 + 32 * i, 32] for i in range(3)},
    }


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file of VALUES behind 16 other bytes."""
    path = tmp_path / "target.bin"
    path.write_bytes(b"\xff" * 16 + VALUES.tobytes())
    return path


def registry_of(folder: Path) -> ObjectStoreRegistry:
    """Grant a folder."""
    return ObjectStoreRegistry({folder.as_uri(): None})


def reference_values(content: Any, zarr_format: Any = 2, **options: Any) -> dict[str, npt.NDArray[Any]]:
    """Return what zarr-python reads through fsspec."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filesystem = fsspec.filesystem("reference", fo=content, asynchronous=True, remote_protocol="file", **options)
        store = zarr.storage.FsspecStore(filesystem, read_only=True)
        return zarr_values(store) if zarr_format is None else zarr_values_of(store, zarr_format)


def zarr_values_of(store: Any, zarr_format: Any) -> dict[str, npt.NDArray[Any]]:
    """Return the values of a store of a known format."""
    from zarrstores import zarr_arrays

    return {
        path: np.asarray(array[...])
        for path, array in zarr_arrays(zarr.open_group(store, mode="r", zarr_format=zarr_format))
    }


class TestKerchunkDocuments(ParserTests):
    """The suite of all parsers."""

    parser: ClassVar[Any] = KerchunkParser()
    damage_within: ClassVar[int | None] = None

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        target = folder / "target.bin"
        target.write_bytes(b"\xff" * 16 + VALUES.tobytes())
        plain = references(str(target))
        inline = {**plain, "a/1.0": "base64:" + base64.b64encode(VALUES[2:4].tobytes()).decode()}
        contents = {"v1": {"version": 1, "refs": plain}, "v0": plain, "inline": {"version": 1, "refs": inline}}
        paths = {}
        for name, content in contents.items():
            paths[name] = folder / f"{name}.json"
            paths[name].write_text(json.dumps(content))
        return paths

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        return reference_values(json.loads(path.read_text()))

    @pytest.mark.skip(reason="references do not say which version of their target they were made of")
    def test_sources_carry_the_stamp_of_the_file(self) -> None:  # type: ignore[override]
        pass

    def parse(self, path: Path) -> Any:
        registry = ObjectStoreRegistry({path.parent.as_uri(): None, path.parent.parent.as_uri(): None})
        return self.parser(path.as_uri(), registry).group, registry


@pytest.mark.parametrize("pack", [bytes, gzip.compress, Zstd().encode], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("version", [0, 1])
def test_documents_of_both_versions_plain_and_packed(pack: Any, version: int, target: Path, tmp_path: Path) -> None:
    content = references(str(target))
    text = json.dumps({"version": 1, "refs": content} if version else content).encode()
    path = tmp_path / "refs.bin"
    path.write_bytes(pack(text))
    store = KerchunkParser()(str(path), registry_of(tmp_path))
    assert_same(values_of(store), {"a": VALUES})
    assert_same(values_of(store), reference_values(content))
    assert dict(store.group.attributes) == {"title": "t"}
    assert array_at(store, "a").metadata.dimension_names == ("y", "x")
    assert dict(array_at(store, "a").metadata.attributes) == {"units": "m"}


def test_dictionaries(target: Path, tmp_path: Path) -> None:
    content = references(str(target))
    content["a/.zarray"] = json.loads(content["a/.zarray"])
    for given in (content, {"version": 1, "refs": content}):
        store = KerchunkParser().from_dict(given, registry_of(tmp_path))
        assert_same(values_of(store), {"a": VALUES})
    assert KerchunkParser()(content).group == store.group


def test_naming_references_grants_no_target(target: Path, tmp_path: Path) -> None:
    path = tmp_path / "refs.json"
    path.write_text(json.dumps(references(str(target))))
    store = KerchunkParser()(str(path))
    assert array_at(store, "a").manifest.present.all()
    with pytest.raises(NotGrantedError, match=r"target\.bin"):
        values_of(store)


def test_inline_chunks(tmp_path: Path) -> None:
    content = references("/none")
    text = {
        "b/.zarray": json.dumps(zarray(shape=[2, 4], chunks=[1, 4], dtype="|S1")),
        "b/0.0": "abcd",
        "b/1.0": b"efgh",
    }
    encoded = {f"a/{i}.0": "base64:" + base64.b64encode(VALUES[2 * i : 2 * i + 2].tobytes()).decode() for i in range(3)}
    store = KerchunkParser().from_dict({**content, **encoded, **text})
    found = values_of(store)
    np.testing.assert_array_equal(found["a"], VALUES)
    assert b"".join(found["b"].ravel().tolist()) == b"abcdefgh"


@pytest.mark.parametrize("separator", [".", "/"])
def test_missing_chunks_and_both_separators(separator: str, target: Path, tmp_path: Path) -> None:
    content = references(str(target), fill_value=7, dimension_separator=separator)
    content = {
        key.replace("1.0", f"1{separator}0").replace("0.0", f"0{separator}0"): value for key, value in content.items()
    }
    del content["a/2.0"]
    store = KerchunkParser().from_dict(content, registry_of(tmp_path))
    assert len(array_at(store, "a").manifest) == 2
    assert_same(values_of(store), reference_values(content))


def test_compressed_chunks_and_scalars(tmp_path: Path) -> None:
    chunk = numcodecs.Zlib(3).encode(numcodecs.Shuffle(4).encode(VALUES))
    (tmp_path / "t").write_bytes(bytes(chunk) + np.float64(3.5).tobytes())
    shuffled = zarray(
        chunks=[6, 4], filters=[{"id": "shuffle", "elementsize": 4}], compressor={"id": "zlib", "level": 3}
    )
    content = {
        ".zgroup": '{"zarr_format": 2}',
        "a/.zarray": json.dumps(shuffled),
        "a/0.0": [str(tmp_path / "t"), 0, len(chunk)],
        "s/.zarray": json.dumps(zarray(shape=[], chunks=[], dtype="<f8")),
        "s/0": [str(tmp_path / "t"), len(chunk), 8],
    }
    store = KerchunkParser().from_dict(content, registry_of(tmp_path))
    assert_same(values_of(store), {"a": VALUES, "s": np.array(3.5)})
    assert_same(values_of(store), reference_values(content))


def test_nested_groups_and_arrays_at_the_root(target: Path, tmp_path: Path) -> None:
    leaf = references(str(target))
    nested = {".zgroup": leaf[".zgroup"], "g/.zgroup": leaf[".zgroup"], "g/.zattrs": '{"depth": 1}'}
    nested |= {f"g/h/{key}": value for key, value in leaf.items()}
    store = KerchunkParser().from_dict(nested, registry_of(tmp_path))
    assert_same(values_of(store), {"g/h/a": VALUES})
    assert_same(values_of(store), reference_values(nested))
    only = KerchunkParser(group="g/h").from_dict(nested, registry_of(tmp_path))
    assert list(only.group.arrays) == ["a"]
    root = {key.removeprefix("a/"): value for key, value in leaf.items() if key.startswith("a/")}
    assert_same(values_of(KerchunkParser().from_dict(root, registry_of(tmp_path))), {"data": VALUES})


@pytest.mark.parametrize("encoding", ["default", "v2"])
def test_zarr_v3_metadata(encoding: Any, target: Path, tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "s"), shape=(6, 4), chunks=(2, 4), dtype="<i4", compressors=None, dimension_names=["y", "x"],
        chunk_key_encoding={"name": encoding, "separator": "/"}, fill_value=5,
    )  # fmt: skip
    start = "c/" if encoding == "default" else ""
    content = {
        "zarr.json": json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"title": "t"}}),
        "g/zarr.json": json.dumps({"zarr_format": 3, "node_type": "group"}),
        "g/a/zarr.json": json.dumps(array.metadata.to_dict()),
        **{f"g/a/{start}{i}/0": [str(target), 16 + 32 * i, 32] for i in range(2)},
    }
    store = KerchunkParser().from_dict(content, registry_of(tmp_path))
    assert_same(values_of(store), reference_values(content, 3))
    assert array_at(store, "g/a").metadata.dimension_names == ("y", "x")


def test_shards_stay_chunks(tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "s"), shape=(4,), chunks=(2,), shards=(4,), dtype="<i4", compressors=None)
    array[...] = np.arange(4)
    shard = tmp_path / "s/c/0"
    content = {"zarr.json": (tmp_path / "s/zarr.json").read_text(), "c/0": [str(shard), 0, shard.stat().st_size]}
    store = KerchunkParser().from_dict(content, registry_of(tmp_path))
    assert_same(values_of(store), {"data": np.arange(4, dtype="<i4")})


def test_names_in_paths_are_names(tmp_path: Path) -> None:
    """fsspec takes ``+``, ``%`` and ``#`` in a path as they stand."""
    name = "50% a+b #1 ü.bin"
    (tmp_path / name).write_bytes(b"\xff" * 16 + VALUES.tobytes())
    for path in (str(tmp_path / name), f"file://{tmp_path / name}"):
        content = references(path)
        store = KerchunkParser().from_dict(content, registry_of(tmp_path))
        assert_same(values_of(store), reference_values(content))


@pytest.mark.parametrize("base", ["{folder}", "file://{folder}", "file://{folder}/"])
@pytest.mark.parametrize("path", ["target.bin", "./target.bin"])
def test_relative_paths_begin_at_the_base(base: str, path: str, target: Path, tmp_path: Path) -> None:
    content = references(path)
    parser = KerchunkParser(base_url=base.format(folder=tmp_path))
    assert parser == KerchunkJSONParser(fs_root=base.format(folder=tmp_path))
    assert_same(values_of(parser.from_dict(content, registry_of(tmp_path))), {"a": VALUES})
    with pytest.warns(UnsupportedArrayWarning, match="pass base_url="):
        KerchunkParser().from_dict(content)


@pytest.mark.parametrize(
    "path",
    ["../secret", "a/../../secret", "ftp://h/a", "simplecache::s3://b/k", "https://h/a?sig=1", "https://u:p@h/a", ""],
)
def test_other_paths_are_left_out_by_name(path: str) -> None:
    with pytest.warns(UnsupportedArrayWarning, match="'a' of the references is left out: a reference to"):
        KerchunkParser(base_url="s3://bucket/x").from_dict(references(path))
    with pytest.raises(UnsupportedFeatureError):
        KerchunkParser(base_url="s3://bucket/x", strict=True).from_dict(references(path))


@pytest.mark.parametrize(
    "value",
    [
        ["/t"] * 2,
        ["/t", 0],
        ["/t", 0, 1, 2],
        ["/t", -1, 4],
        ["/t", 0, -1],
        ["/t", 0, 0],
        ["/t", 0, 1.5],
        ["/t", True, 4],
        ["/t", "0", 4],
        ["/t", 2**63, 4],
        ["/t", 2**63 - 2, 4],
        [None, 0, 4],
        [5, 0, 4],
        7,
        None,
        "",
        "base64:*",
        [],
        [["/t"], 0, 4],
    ],
    ids=str,
)
def test_references_that_are_none_are_refused(value: Any) -> None:
    with pytest.raises(FormatError, match="'a' of the references is corrupt"):
        KerchunkParser().from_dict({**references("/t"), "a/1.0": value})


def test_whole_objects_are_looked_up_where_they_are_granted(range_server: RangeServer) -> None:
    range_server.objects.update({f"{i}": VALUES[2 * i : 2 * i + 2].tobytes() for i in range(3)})
    content = references("/t") | {f"a/{i}.0": [range_server.url(str(i))] for i in range(3)}
    store = KerchunkParser().from_dict(content, {range_server.root: None})
    assert [request.method for request in range_server.requests] == ["HEAD"] * 3
    assert_same(values_of(store), {"a": VALUES})
    assert array_at(store, "a").manifest.sources.stamp(0).etag
    range_server.forget()
    with pytest.warns(UnsupportedArrayWarning, match="cannot be looked up"):
        KerchunkParser().from_dict(content)
    assert not range_server.requests
    with pytest.warns(UnsupportedArrayWarning, match="not there"):
        KerchunkParser().from_dict({**content, "a/1.0": [range_server.url("gone")]}, {range_server.root: None})


def test_nothing_that_references_name_is_opened(range_server: RangeServer) -> None:
    range_server.objects["t"] = bytes(200)
    KerchunkParser().from_dict(references(range_server.url("t")), {range_server.root: None})
    assert not range_server.requests


def test_a_document_takes_one_request(range_server: RangeServer) -> None:
    range_server.objects["r.json"] = json.dumps(references("s3://bucket/key")).encode()
    KerchunkParser()(range_server.url("r.json"), {range_server.root: None})
    assert len(range_server.requests) == 1


def test_metadata_may_be_a_reference_itself(target: Path, tmp_path: Path) -> None:
    content = references(str(target))
    (tmp_path / "meta").write_text("xx" + content["a/.zarray"])
    content["a/.zarray"] = [str(tmp_path / "meta"), 2, len(content["a/.zarray"])]
    assert_same(values_of(KerchunkParser().from_dict(content, registry_of(tmp_path))), {"a": VALUES})
    with pytest.raises(NotGrantedError):
        KerchunkParser().from_dict(content)


def test_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kerchunk_columns, "LARGEST_INLINE", 8)
    with pytest.raises(LimitExceededError, match="inline chunk of 9 bytes"):
        KerchunkParser(strict=True).from_dict({**references("/t"), "a/1.0": "123456789"})
    KerchunkParser(strict=True).from_dict({**references("/t"), "a/1.0": "12345678"})
    monkeypatch.setattr(kerchunk_document, "MOST_BYTES", 10_000)
    for pack in (gzip.compress, Zstd().encode):
        path = tmp_path / "refs"
        path.write_bytes(pack(json.dumps({**references("/t"), "x": " " * 10_000}).encode()))
        with pytest.raises(LimitExceededError, match="unpacks to more than"):
            KerchunkParser()(str(path))


@pytest.mark.parametrize(
    "content",
    [
        *(b"[]", b"{", b"{}", b'{"version": 2, "refs": {}}', b'{"version": 1, "refs": 5}', b'{"a": ' * 50_000),
        *(
            gzip.compress(b"{}", mtime=0)[:-4],
            b"\x28\xb5\x2f\xfd",
            Zstd().encode(b"{}" * 50)[:-3],
            b"\x1f\x8bxx",
            b"\xff\xfe{",
        ),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_document_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "refs.json"
    path.write_bytes(content)
    with pytest.raises((FormatError, UnsupportedFeatureError), match=r"refs\.json"):
        KerchunkParser()(str(path))


def test_names_and_arguments_of_elsewhere() -> None:
    assert KerchunkParquetParser is KerchunkParser
    assert KerchunkJSONParser(skip_variables=["a"]) == KerchunkParser(drop_variables=["a"])
    assert not KerchunkParser(skip_variables=["a"]).from_dict(references("/t")).group.arrays
    for head in (b'{"version": 1, "refs": {', b' {".zgroup": "x"', gzip.compress(b'{"refs": {}}')):
        assert KerchunkParser.recognises(head)
    assert not KerchunkParser.recognises(b'{"type": "FeatureCollection"}')


def test_a_chunk_that_is_there_twice_is_refused_by_its_key(target: Path, tmp_path: Path) -> None:
    text = json.dumps({"version": 1, "refs": references(str(target))})
    twice = text.replace('"a/1.0":', '"a/0.0": ["/t", 0, 32], "a/1.0":')
    (tmp_path / "refs.json").write_text(twice)
    with pytest.raises(FormatError, match=r"two members have the name 'a/0\.0'"):
        KerchunkParser()(str(tmp_path / "refs.json"))
