"""Kerchunk references in Parquet, as fsspec, fastparquet and pyarrow write them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from fsspec.implementations.reference import LazyReferenceMapper
from rangeserver import RangeServer
from zarrstores import array_at, assert_same, values_of

import virtualchunks as vc
from virtualchunks import ChunkManifest, ManifestGroup
from virtualchunks.errors import (
    FormatError,
    NotGrantedError,
    SourceChangedError,
    UnsupportedFeatureError,
    VirtualArrayError,
)
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.testing.mutants import MutantTests
from virtualchunks.writers.datasets import in_memory_array
from virtualchunks.writers.kerchunk import write_parquet
from virtualchunks_parsers.kerchunk import KerchunkParser

VALUES = np.arange(40, dtype="<i4").reshape(10, 4)
ZARRAY = {"zarr_format": 2, "shape": [10, 4], "chunks": [2, 2], "dtype": "<i4", "compressor": None, "filters": None}
ZARRAY |= {"fill_value": -1, "order": "C"}


def documents(path: str = "a") -> dict[str, Any]:
    return {
        ".zgroup": {"zarr_format": 2},
        f"{path}/.zarray": ZARRAY,
        f"{path}/.zattrs": {"_ARRAY_DIMENSIONS": ["y", "x"]},
    }


def chunks() -> list[npt.NDArray[Any]]:
    return [np.ascontiguousarray(VALUES[i : i + 2, j : j + 2]) for i in range(0, 10, 2) for j in (0, 2)]


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return ten references: the last inline, the fifth missing, the third to a whole file."""
    (folder / "t").write_bytes(b"".join(chunk.tobytes() for chunk in chunks()))
    (folder / "whole").write_bytes(chunks()[3].tobytes())
    made = [{"path": str(folder / "t"), "offset": 16 * i, "size": 16, "raw": None} for i in range(10)]
    made[3] = {"path": str(folder / "whole"), "offset": 0, "size": 0, "raw": None}
    made[5] = {"path": None, "offset": 0, "size": 0, "raw": None}
    made[9] = {"path": None, "offset": 0, "size": 0, "raw": chunks()[9].tobytes()}
    return made


def expected() -> npt.NDArray[Any]:
    values = VALUES.copy()
    values[4:6, 2:4] = -1
    return values


def write(
    folder: Path, references: list[dict[str, Any]], record_size: int = 4, path: str = "a", **options: Any
) -> Path:
    """Write references with pyarrow."""
    target = folder / "refs.parq"
    (target / path).mkdir(parents=True)
    (target / ".zmetadata").write_text(json.dumps({"metadata": documents(path), "record_size": record_size}))
    for number in range(0, len(references), record_size):
        table = pa.Table.from_pylist(references[number : number + record_size])
        table = table.set_column(3, "raw", table["raw"].cast(pa.binary()))
        if options.get("dictionary"):
            table = table.set_column(0, "path", table["path"].cast(pa.string()).dictionary_encode())
        pq.write_table(table, target / path / f"refs.{number // record_size}.parq")
    return target


def registry_of(folder: Path) -> ObjectStoreRegistry:
    return ObjectStoreRegistry({folder.as_uri(): None})


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("record_size", [3, 4, 10, 1000])
@pytest.mark.parametrize("path", ["a", "g/h/a"])
def test_folders_written_with_pyarrow(dictionary: bool, record_size: int, path: str, tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path), record_size, path, dictionary=dictionary)
    store = KerchunkParser()(str(target), registry_of(tmp_path))
    assert_same(values_of(store), {path: expected()})
    assert array_at(store, path).metadata.dimension_names == ("y", "x")


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore::FutureWarning", "ignore:The 'fastparquet' engine")
def test_folders_written_by_fsspec(tmp_path: Path) -> None:
    mapper = LazyReferenceMapper.create(str(tmp_path / "refs.parq"), fs=fsspec.filesystem("file"), record_size=4)
    for key, document in documents().items():
        mapper[key] = json.dumps(document)
    for number, row in enumerate(rows(tmp_path)):
        key = f"a/{number // 2}.{number % 2}"
        if row["raw"] is not None:
            mapper[key] = row["raw"]
        elif row["path"] is not None:
            mapper[key] = [row["path"], row["offset"], row["size"]] if row["size"] else [row["path"]]
    mapper.flush()
    store = KerchunkParser()(str(tmp_path / "refs.parq"), registry_of(tmp_path))
    assert_same(values_of(store), {"a": expected()})


def test_missing_partitions_and_columns(tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path))
    (target / "a/refs.0.parq").unlink()
    pq.write_table(pq.read_table(target / "a/refs.1.parq").drop(["raw"]), target / "a/refs.1.parq")
    pq.write_table(pq.read_table(target / "a/refs.2.parq").select(["raw"]), target / "a/refs.2.parq")
    store = KerchunkParser()(str(target), registry_of(tmp_path))
    assert sorted(array_at(store, "a").manifest.dict()) == ["2.0", "3.0", "3.1", "4.1"]


def served(server: RangeServer, folder: Path, name: str = "x.parq") -> str:
    """Serve a folder of references; return its URL."""
    for path in folder.rglob("*"):
        if path.is_file():
            server.objects[f"{name}/{path.relative_to(folder)}"] = path.read_bytes()
    return server.url(name)


def asked(server: RangeServer) -> list[str]:
    """Return what was asked for since this was called last."""
    keys = sorted(request.key.removeprefix("x.parq/") for request in server.requests if request.method == "GET")
    server.requests.clear()
    return keys


def of_bytes(server: RangeServer) -> list[dict[str, Any]]:
    """Return references to ten chunks that a server has."""
    server.objects["t"] = b"".join(chunk.tobytes() for chunk in chunks())
    return [{"path": server.url("t"), "offset": 16 * i, "size": 16, "raw": None} for i in range(10)]


def test_a_folder_takes_one_request_and_then_one_for_each_partition(range_server: RangeServer, tmp_path: Path) -> None:
    url = served(range_server, write(tmp_path, of_bytes(range_server)))
    store = KerchunkParser()(url, ObjectStoreRegistry({range_server.root: None}))
    array = array_at(store, "a")
    assert "0 of 3 partitions" in repr(array.manifest)
    assert "loaded when they are used" in array._repr_html_()
    assert array.nbytes_virtual == 0
    assert not array.is_heterogeneous
    assert asked(range_server) == [".zmetadata"]
    values = read_values(array, store.registry, (slice(4, 6), slice(0, 2)))
    np.testing.assert_array_equal(values, VALUES[4:6, 0:2])
    assert asked(range_server) == ["a/refs.1.parq", "t"]
    np.testing.assert_array_equal(read_values(array, store.registry, (slice(2, 6), 0)), VALUES[2:6, 0])
    assert asked(range_server) == ["a/refs.0.parq", "t"]
    assert "2 of 3 partitions" in repr(array.manifest)
    assert array.nbytes_virtual > 128
    np.testing.assert_array_equal(read_values(array, store.registry), VALUES)
    assert asked(range_server) == ["a/refs.2.parq", "t"]
    assert len(array.manifest) == 10
    assert asked(range_server) == []


def test_zarr_loads_the_partitions_of_the_chunks_it_reads(range_server: RangeServer, tmp_path: Path) -> None:
    url = served(range_server, write(tmp_path, of_bytes(range_server)))
    opened = zarr.open_group(KerchunkParser()(url, ObjectStoreRegistry({range_server.root: None})), mode="r")["a"]
    assert asked(range_server) == [".zmetadata"]
    np.testing.assert_array_equal(opened[8:, :], VALUES[8:])
    assert set(asked(range_server)) == {"a/refs.2.parq", "t"}
    np.testing.assert_array_equal(opened[:], VALUES)
    keys = asked(range_server)
    assert [key for key in keys if key != "t"] == ["a/refs.0.parq", "a/refs.1.parq"]


def test_a_virtual_dataset_loads_no_partition_until_it_is_read_or_cut(
    range_server: RangeServer, tmp_path: Path
) -> None:
    url = served(range_server, write(tmp_path, of_bytes(range_server)))
    registry = ObjectStoreRegistry({range_server.root: None})
    dataset = vc.open_virtual_dataset(url, registry, parser=KerchunkParser(), loadable_variables=[])
    assert "ManifestArray" in repr(dataset)
    assert dataset.virtual.nbytes == 0
    opened = dataset.virtual.open(registry)
    dataset.virtual.to_store(registry)
    with pytest.raises(VirtualArrayError, match=r"x\.parq"):
        np.asarray(dataset["a"].variable._data)
    assert asked(range_server) == [".zmetadata"]
    np.testing.assert_array_equal(opened["a"][0:2], VALUES[0:2])
    assert asked(range_server) == ["a/refs.0.parq", "t"]
    assert dataset.isel(y=slice(0, 2)).virtual.nrefs == 2
    assert asked(range_server) == ["a/refs.1.parq", "a/refs.2.parq"]
    np.testing.assert_array_equal(dataset.virtual.open()["a"], VALUES)  # by what was granted when it was opened


def test_many_threads_load_a_partition_once(range_server: RangeServer, tmp_path: Path) -> None:
    url = served(range_server, write(tmp_path, of_bytes(range_server)))
    store = KerchunkParser()(url, ObjectStoreRegistry({range_server.root: None}))
    manifest = array_at(store, "a").manifest
    asked(range_server)
    indices = [(i, j) for i in range(5) for j in range(2)] * 5
    with ThreadPoolExecutor(8) as pool:
        offsets = list(pool.map(lambda index: manifest.record(index)[3], indices))
    assert offsets == [(i * 2 + j) * 16 for i, j in indices]
    assert asked(range_server) == [f"a/refs.{i}.parq" for i in range(3)]


def test_pickles_hold_the_references_and_no_registry(tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path))
    manifest = array_at(KerchunkParser()(str(target), registry_of(tmp_path)), "a").manifest
    copied = pickle.loads(pickle.dumps(manifest))
    assert type(copied) is ChunkManifest
    assert copied == manifest
    assert not manifest.is_deferred


def test_selections_are_those_of_the_loaded_manifest(tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path), 3)
    rng = np.random.default_rng(0)
    whole = array_at(KerchunkParser()(str(target), registry_of(tmp_path)), "a").manifest
    assert len(whole) == 9
    for _ in range(30):
        fresh = array_at(KerchunkParser()(str(target), registry_of(tmp_path)), "a").manifest
        for _ in range(3):
            indices = [np.sort(rng.choice(n, rng.integers(0, n + 1), replace=False)) for n in (5, 2)]
            assert fresh.select(indices) == whole.select(indices)
        assert fresh == whole


def test_scalars_and_arrays_without_chunks(tmp_path: Path) -> None:
    group = ManifestGroup(
        {
            "scalar": in_memory_array(np.float64(7), (), {}),
            "empty": in_memory_array(np.zeros((0, 3), "i4"), ("x", "y"), {}),
        }
    )
    write_parquet(group, tmp_path / "refs.parq")
    store = KerchunkParser()(str(tmp_path / "refs.parq"))
    assert read_values(array_at(store, "scalar"), store.registry) == 7
    assert read_values(array_at(store, "empty"), store.registry).shape == (0, 3)
    assert len(array_at(store, "empty").manifest) == 0


@pytest.mark.parametrize("own", [True, False])
def test_references_that_were_replaced_after_they_were_opened_are_never_mixed(own: bool, tmp_path: Path) -> None:
    def written(value: int) -> None:
        shutil.rmtree(tmp_path / "refs.parq", ignore_errors=True)
        values = np.full((10, 4), value, dtype="<i4")
        if own:
            write_parquet(ManifestGroup({"a": in_memory_array(values, ("y", "x"), {})}), tmp_path / "refs.parq")
        else:
            inline = [{"path": None, "offset": 0, "size": 0, "raw": values[:2, :2].tobytes()}] * 10
            write(tmp_path, inline)

    written(1)
    array = array_at(KerchunkParser()(str(tmp_path / "refs.parq"), registry_of(tmp_path)), "a")
    written(2)
    with pytest.raises(SourceChangedError, match="open them again"):
        read_values(array, registry_of(tmp_path))
    shutil.rmtree(tmp_path / "refs.parq")
    with pytest.raises(SourceChangedError, match="removed"):
        read_values(array, registry_of(tmp_path))


def test_the_registry_is_asked_when_a_partition_is_loaded(range_server: RangeServer, tmp_path: Path) -> None:
    url = served(range_server, write(tmp_path, of_bytes(range_server)))
    with pytest.raises(NotGrantedError):
        KerchunkParser()(url, ObjectStoreRegistry())
    store = KerchunkParser()(url)  # grants the folder, not what it refers to
    with pytest.raises(NotGrantedError, match="/t"):
        read_values(array_at(store, "a"), store.registry)


@pytest.mark.parametrize("link", ["../secret.parq", "/etc/passwd"])
def test_a_partition_that_is_a_link_out_of_the_folder_is_refused(link: str, tmp_path: Path) -> None:
    (tmp_path / "granted").mkdir()
    target = write(tmp_path / "granted", rows(tmp_path))
    store = KerchunkParser()(str(target))
    (target / "a/refs.1.parq").rename(tmp_path / "secret.parq")
    (target / "a/refs.1.parq").symlink_to((tmp_path / "secret.parq") if link.startswith("..") else link)
    with pytest.raises(NotGrantedError):
        read_values(array_at(store, "a"), store.registry, slice(4, 6))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"x" * 50])
def test_damaged_partitions_are_errors_that_name_them(data: bytes, tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path))
    (target / "a/refs.1.parq").write_bytes(data)
    array = array_at(KerchunkParser()(str(target), registry_of(tmp_path)), "a")
    np.testing.assert_array_equal(read_values(array, registry_of(tmp_path), slice(0, 4)), VALUES[0:4])
    for _ in range(2):  # it is tried again
        with pytest.raises(FormatError, match=r"refs\.1\.parq") as raised:
            read_values(array, registry_of(tmp_path))
        assert raised.value.variable == "a"


class TestParquetFolders(MutantTests):
    """Damaged folders, partitions and metadata, against pyarrow."""

    parser: ClassVar[Any] = KerchunkParser()
    damage_within: ClassVar[int | None] = None

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        return {"ten": write(folder, rows(folder), 10)}

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        partition = pq.read_table(path / "a/refs.0.parq").to_pylist()
        assert json.loads((path / ".zmetadata").read_text())["metadata"] == documents()
        values = np.full_like(VALUES, -1)
        for number, row in enumerate(partition):
            i, j = divmod(number, 2)
            if row["raw"] or row["path"]:
                values[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = block_of(row)
        return {"a": values}

    def parse(self, path: Path) -> Any:
        registry = ObjectStoreRegistry({path.parent.as_uri(): None, path.parent.parent.as_uri(): None})
        return self.parser(path.as_uri(), registry).group, registry

    def _reference_of_damaged(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        """A changed byte of metadata is other metadata; what cannot be read is refused by either side."""
        return super()._reference_of_damaged(path) or {}


def block_of(row: dict[str, Any]) -> npt.NDArray[Any]:
    """Return the chunk of a row of a partition."""
    data = row["raw"]
    if not data:
        whole = Path(row["path"]).read_bytes()
        data = whole[row["offset"] :][: row["size"]] if row["size"] else whole
        assert not row["size"] or len(data) == row["size"]
    return np.frombuffer(data, "<i4").reshape(2, 2)


@pytest.mark.parametrize(
    "content", ["{}", '{"metadata": {}, "record_size": 0}', '{"metadata": 3, "record_size": 4}', "["]
)
def test_other_metadata_is_refused(content: str, tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path))
    (target / ".zmetadata").write_text(content)
    with pytest.raises(FormatError, match=r"\.zmetadata"):
        KerchunkParser()(str(target), registry_of(tmp_path))


def test_other_columns_are_refused(tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path))
    for table in (pa.table({"x": [1]}), pa.table({"path": ["/t"], "offset": [0.5], "size": [1]})):
        pq.write_table(table, target / "a/refs.0.parq")
        with pytest.raises(FormatError, match=r"refs\.0\.parq"):
            len(array_at(KerchunkParser()(str(target), registry_of(tmp_path)), "a").manifest)
    pq.write_table(pa.table({"path": [7], "offset": [0], "size": [1]}), target / "a/refs.0.parq")
    with pytest.raises(FormatError, match="no text"):
        len(array_at(KerchunkParser()(str(target), registry_of(tmp_path)), "a").manifest)


def test_whole_objects_need_a_grant(tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path))
    array = array_at(KerchunkParser()(str(target)), "a")
    with pytest.raises(UnsupportedFeatureError, match="cannot be looked up"):
        len(array.manifest)


NUMBERS = {
    "a negative offset": {"offset": [-1], "size": [16]},
    "a negative size": {"offset": [0], "size": [-1]},
    "a number beyond 63 bits": {"offset": pa.array([2**63 + 5], pa.uint64()), "size": [16]},
    "an end beyond 63 bits": {"offset": [2**63 - 1], "size": [16]},
    "no bytes": {"offset": [5], "size": [0]},
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_out_of_range_are_refused(case: str, tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path))
    pq.write_table(pa.table({"path": ["/t"], **NUMBERS[case]}), target / "a/refs.1.parq")
    array = array_at(KerchunkParser()(str(target), registry_of(tmp_path)), "a")
    with pytest.raises(FormatError, match=r"refs") as raised:
        len(array.manifest)
    assert raised.value.variable == "a"


def test_a_partition_of_ours_that_lost_rows_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "refs.parq"
    write_parquet(ManifestGroup({"a": in_memory_array(np.arange(4), ("x",), {})}), target)
    partition = target / "a/refs.0.parq"
    pq.write_table(pq.read_table(partition).slice(0, 0), partition)
    with pytest.raises(FormatError, match=r"0 rows for 1 chunks"):
        len(array_at(KerchunkParser()(str(target)), "a").manifest)


@pytest.mark.parametrize("generations", [3, ["a"]])
def test_damaged_marks_are_refused(generations: Any, tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path))
    content = json.loads((target / ".zmetadata").read_text())
    (target / ".zmetadata").write_text(json.dumps({**content, "generations": generations}))
    with pytest.raises(FormatError, match="generations"):
        KerchunkParser()(str(target))


@pytest.mark.parametrize("chunks", [None, {}])
def test_the_engine_loads_partitions_as_values_are_read(chunks: Any, range_server: RangeServer, tmp_path: Path) -> None:
    url = served(range_server, write(tmp_path, of_bytes(range_server)))
    registry = ObjectStoreRegistry({range_server.root: None})
    parser = KerchunkParser()  # found by itself, it takes a request more, which finds no file
    opened = xr.open_dataset(url, engine="virtualchunks", parser=parser, registry=registry, chunks=chunks)
    assert asked(range_server) == [".zmetadata"]
    np.testing.assert_array_equal(opened["a"][0:2, 0:2], VALUES[0:2, 0:2])
    assert asked(range_server) == ["a/refs.0.parq", "t"]
