"""Zarr stores in Zip archives: the shared suite, where bytes lie, what is refused, and how few requests it takes."""

from __future__ import annotations

import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from rangeserver import RangeServer
from zarr.codecs import ShardingCodec
from zarr.storage import ZipStore
from zarrstores import array_at, assert_same, values_of, zarr_values

from virtualchunks.errors import FormatError, UnsupportedArrayWarning, UnsupportedFeatureError, VirtualChunksError
from virtualchunks.testing.parsers import ParserTests
from virtualchunks_parsers.zarr import ZarrParser


def pack(folder: Path, path: Path, method: int = zipfile.ZIP_STORED, **options: Any) -> Path:
    """Pack a folder."""
    with zipfile.ZipFile(path, "w", method, **options) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


def write(folder: Path, version: Any = 3, **options: Any) -> Path:
    """Write a store of two arrays, one in a group."""
    root = zarr.open_group(str(folder), mode="w", zarr_format=version)
    values = np.arange(30, dtype="<i4").reshape(6, 5)
    settings = {"shape": (6, 5), "chunks": (4, 4), "dtype": "<i4", "compressors": None, **options}
    root.create_array("a", **settings)[...] = values
    root.create_array("g/b", **settings)[...] = values + 100
    return folder


def unpacked(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return what zarr-python reads of an archive, every member's checksum tested first."""
    with zipfile.ZipFile(path) as archive:
        bad = archive.testzip()
        if bad:
            raise zipfile.BadZipFile(bad)
    store = ZipStore(path, mode="r")
    try:
        return zarr_values(store)
    finally:
        store.close()


class TestZippedZarr(ParserTests):
    """The suite of all parsers."""

    parser: ClassVar[Any] = ZarrParser()
    damage_within: ClassVar[int | None] = None

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        files = {
            "v3": pack(write(folder / "3"), folder / "v3.zarr.zip"),
            "v2": pack(write(folder / "2", 2), folder / "v2.zarr.zip"),
            "shards": pack(
                write(folder / "s", serializer=ShardingCodec(chunk_shape=(2, 2))), folder / "shards.zarr.zip"
            ),
        }
        store = ZipStore(folder / "direct.zarr.zip", mode="w")
        root = zarr.open_group(store, mode="w")
        root.create_array("a", shape=(9,), chunks=(4,), dtype=">f4")[...] = np.arange(9)
        store.close()
        return {**files, "written by zarr": folder / "direct.zarr.zip"}

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        return unpacked(path)

    def parse(self, path: Path) -> Any:
        return super().parse(path if path.name.endswith(".zip") else path.rename(path.with_name(path.name + ".zip")))

    @pytest.mark.skip(
        reason="an archive whose chunk bytes are damaged reads as damaged: Zip checks members only when unpacking"
    )
    def test_damaged_files_are_refused_or_read_as_the_reference_does(self) -> None:  # type: ignore[override]
        pass

    def test_a_missing_file_is_an_error_of_ours(self, tmp_path: Path) -> None:
        with pytest.raises(Exception, match=r"missing\.zip"):
            super().parse(tmp_path / "missing.zip")


def test_damaged_directories_are_refused_or_read_right(tmp_path: Path) -> None:
    path = pack(write(tmp_path / "s"), tmp_path / "a.zarr.zip")
    whole = path.read_bytes()
    expected = unpacked(path)
    start = whole.index(b"PK\x01\x02")
    rng = np.random.default_rng(3)
    damaged = tmp_path / "damaged.zarr.zip"
    outcomes = []
    for place in rng.integers(start, len(whole), 200).tolist():
        changed = bytearray(whole)
        changed[place] = int(rng.integers(256))
        damaged.write_bytes(changed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnsupportedArrayWarning)
                found = values_of(ZarrParser()(str(damaged)))
        except VirtualChunksError as error:
            outcomes.append("refused" if "damaged.zarr.zip" in str(error) else str(error))
            continue
        outcomes.append("read")
        for name in found.keys() & expected.keys():  # or else its name was what was damaged
            there = found[name] != 0  # a chunk whose name was damaged is missing
            np.testing.assert_array_equal(found[name][there], expected[name][there])
    assert set(outcomes) == {"refused", "read"}


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused_by_name(method: int, tmp_path: Path) -> None:
    folder = write(tmp_path / "s")
    path = tmp_path / "a.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                chosen = method if "/c/" in str(file) else zipfile.ZIP_STORED
                archive.write(file, file.relative_to(folder), compress_type=chosen)
    with pytest.warns(UnsupportedArrayWarning, match="compress|deflated") as caught:
        assert not list(ZarrParser()(str(path)).group.walk_arrays())
    assert len(caught) == 2
    with pytest.raises(UnsupportedFeatureError, match="only stored members"):
        ZarrParser(strict=True)(str(path))


def test_deflated_metadata_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "s")
    path = tmp_path / "a.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                chosen = zipfile.ZIP_DEFLATED if file.name == "zarr.json" else zipfile.ZIP_STORED
                archive.write(file, file.relative_to(folder), compress_type=chosen)
    assert_same(values_of(ZarrParser()(str(path))), unpacked(path))


def test_local_headers_with_other_extra_fields_are_read(tmp_path: Path) -> None:
    """As Info-ZIP writes them: an extra field longer in the local header than in the central directory."""
    path = pack(write(tmp_path / "s"), tmp_path / "a.zarr.zip")
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    body, directory = bytearray(), bytearray()
    for name, data in members:
        raw, crc = name.encode(), zipfile.crc32(data)
        local_extra, central_extra = (
            struct.pack("<2H9s", 0x5455, 9, b"\3" + bytes(8)),
            struct.pack("<2H5s", 0x5455, 5, b"\3"),
        )
        at = len(body)
        sizes = (crc, len(data), len(data), len(raw))
        body += (
            struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, *sizes, len(local_extra)) + raw + local_extra + data
        )
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, *sizes, len(central_extra), 0, 0, 0, 0, at
        )
        directory += raw + central_extra
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(members), len(members), len(directory), len(body), 3) + b"abc"
    path.write_bytes(body + directory + end)
    assert_same(values_of(ZarrParser(strict=True)(str(path))), unpacked(path))


def test_zip64_archives_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "s")
    path = tmp_path / "a.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                with archive.open(str(file.relative_to(folder)), "w", force_zip64=True) as member:
                    member.write(file.read_bytes())
    whole = path.read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    count, length, at = struct.unpack_from("<HLL", whole, end + 10)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, at)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(whole[:end] + record + locator + last)
    assert_same(values_of(ZarrParser(strict=True)(str(path))), unpacked(path))


def test_few_requests_read_an_archive(range_server: RangeServer, tmp_path: Path) -> None:
    """One for the beginning, one for the directory at the end, and one for all metadata documents."""
    root = zarr.open_group(str(tmp_path / "s"), mode="w")
    for name in "abcdef":
        root.create_array(name, shape=(1_000_000,), chunks=(50_000,), dtype="<f4", compressors=None)[...] = 1
    range_server.objects["a.zarr.zip"] = pack(tmp_path / "s", tmp_path / "a.zarr.zip").read_bytes()
    url = range_server.url("a.zarr.zip")
    store = ZarrParser()(url, {range_server.root: None})
    assert len(store.group.arrays) == 6
    scattered = 6  # the documents lie megabytes apart
    assert len(range_server.requests) <= 2 + scattered
    assert sum(stop - start for _, _, (start, stop), _, _ in range_server.requests) < 3 << 20  # type: ignore[misc]
    range_server.forget()
    small = pack(write(tmp_path / "small"), tmp_path / "small.zarr.zip")
    range_server.objects["small.zarr.zip"] = small.read_bytes()
    store = ZarrParser()(range_server.url("small.zarr.zip"), {range_server.root: None})
    assert len(range_server.requests) == 1
    assert array_at(store, "a").manifest.sources.stamp(0).size == small.stat().st_size


def test_an_archive_is_known_by_what_it_is_too(tmp_path: Path) -> None:
    path = pack(write(tmp_path / "s"), tmp_path / "a.zarr")
    assert_same(values_of(ZarrParser()(str(path))), unpacked(path))


@pytest.mark.parametrize("content", [b"PK\x05\x06" + bytes(18), b"x" * 100, b"PK\x03\x04" + bytes(100)])
def test_what_is_no_archive_of_a_store_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zarr.zip").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.zarr\.zip"):
        ZarrParser()(str(tmp_path / "a.zarr.zip"))


@pytest.mark.filterwarnings("ignore:Consolidated metadata:zarr.errors.ZarrUserWarning")
def test_a_consolidated_archive_takes_three_requests(range_server: RangeServer, tmp_path: Path) -> None:
    root = zarr.open_group(str(tmp_path / "s"), mode="w")
    for name in "abcdef":
        root.create_array(name, shape=(1_000_000,), chunks=(50_000,), dtype="<f4", compressors=None)[...] = 1
    zarr.consolidate_metadata(str(tmp_path / "s"))
    range_server.objects["a.zarr.zip"] = pack(tmp_path / "s", tmp_path / "a.zarr.zip").read_bytes()
    store = ZarrParser()(range_server.url("a.zarr.zip"), {range_server.root: None})
    assert len(store.group.arrays) == 6
    assert len(range_server.requests) <= 3
