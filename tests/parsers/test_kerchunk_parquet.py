"""Kerchunk references in Parquet, as fsspec, fastparquet and pyarrow write them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.reference import LazyReferenceMapper
from rangeserver import RangeServer
from zarrstores import array_at, assert_same, values_of

from virtualchunks.errors import FormatError, NotGrantedError, UnsupportedArrayWarning
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.testing.mutants import MutantTests
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


def test_the_requests_of_a_folder(range_server: RangeServer, tmp_path: Path) -> None:
    references = [{"path": "s3://b/k", "offset": 16 * i, "size": 16, "raw": None} for i in range(10)]
    folder = write(tmp_path, references)
    shutil.copytree(folder / "a", folder / "b")
    metadata = {**documents(), **documents("b")}
    (folder / ".zmetadata").write_text(json.dumps({"metadata": metadata, "record_size": 4}))
    for path in folder.rglob("*"):
        if path.is_file():
            range_server.objects[f"x.parq/{path.relative_to(folder)}"] = path.read_bytes()
    registry = ObjectStoreRegistry({range_server.root: None})
    KerchunkParser(drop_variables=["b"])(range_server.url("x.parq"), registry)
    asked = [request.key for request in range_server.requests]
    assert sorted(set(asked)) == ["x.parq", "x.parq/.zmetadata", *(f"x.parq/a/refs.{i}.parq" for i in range(3))]
    assert len(asked) == 5  # a partition of what is not asked for is not read
    with pytest.raises(NotGrantedError):
        KerchunkParser()(range_server.url("x.parq"), ObjectStoreRegistry())


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"x" * 50])
def test_damaged_partitions_are_errors_that_name_them(data: bytes, tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path))
    (target / "a/refs.1.parq").write_bytes(data)
    with pytest.raises(FormatError, match=r"refs\.1\.parq"):
        KerchunkParser()(str(target), registry_of(tmp_path))


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
            KerchunkParser()(str(target), registry_of(tmp_path))
    pq.write_table(pa.table({"path": [7], "offset": [0], "size": [1]}), target / "a/refs.0.parq")
    with pytest.raises(FormatError, match="no text"):
        KerchunkParser()(str(target), registry_of(tmp_path))


def test_whole_objects_need_a_grant(tmp_path: Path) -> None:
    target = write(tmp_path, rows(tmp_path))
    with pytest.warns(UnsupportedArrayWarning, match="cannot be looked up"):
        KerchunkParser()(str(target))
