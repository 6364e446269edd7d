"""The suite that every written form of references passes: subclass :class:`FormTests` in a test module. Needs pytest.

A subclass says how a tree of references is written to its form and how it is read back. The suite then writes trees of
every kind there is, and holds the form to one of two answers: what comes out is what went in, record by record, or the
array that the form cannot hold is refused by name, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding, bytes_codec
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.functions import broadcast_to, concatenate
from virtualchunks.grid import ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.inline import encode_array
from virtualchunks.manifest import RECORD, WIDE_RECORD, ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.fetch import fetch
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.roots import reference_url
from virtualchunks.sources import SourceTable, Stamp
from virtualchunks.urls import as_url

#: What the trees of :data:`CASES` refer to lies beneath this; nothing has to be there.
PREFIX = "file:///archive/"
GZIP = {"name": "gzip", "configuration": {"level": 5}}


def references(
    shape: tuple[int, ...] = (4, 6),
    chunks: tuple[int, ...] = (2, 3),
    dtype: Any = "<i4",
    *,
    url: str = f"{PREFIX}a.nc",
    codecs: tuple[Mapping[str, Any], ...] = (),
    names: tuple[str, ...] | None = None,
    **metadata: Any,
) -> ManifestArray:
    """Return an array of references, each chunk in a place of its own.

    Parameters
    ----------
    shape, chunks
        Shape of the array and of its chunks, in elements.
    dtype
        Stored dtype.
    url
        The object that all chunks lie in.
    codecs
        Compressors, behind the plain bytes.
    names
        Names of the dimensions.
    **metadata
        Further fields of the metadata.
    """
    stored = np.dtype(dtype)
    described = ArrayMetadata(
        ChunkGrid.regular(shape, chunks),
        stored,
        ChunkEncoding.plain(stored, codecs),
        dimension_names=names or tuple(f"d{axis}" for axis in range(len(shape))),
        **metadata,
    )
    return ManifestArray(described, _places(described.grid, stored.itemsize, url))


def _places(grid: ChunkGrid, itemsize: int, url: str) -> ChunkManifest:
    records = np.zeros(grid.grid_shape, dtype=RECORD)
    flat = records.reshape(-1)
    flat["length"] = [int(np.prod(grid.nominal_shape(index))) * itemsize for index in np.ndindex(grid.grid_shape)]
    flat["offset"] = 4096 + np.arange(flat.size) * 65_536
    return ChunkManifest.from_records(records, SourceTable.single(url))


def _held(values: Any, names: tuple[str, ...] = ("d0",), **metadata: Any) -> ManifestArray:
    """Return values as an array of one chunk held in memory."""
    array = np.asarray(values)
    grid = ChunkGrid.regular(array.shape, tuple(max(size, 1) for size in array.shape))
    described = ArrayMetadata(
        grid, array.dtype, ChunkEncoding.plain(np.dtype("u1")), dimension_names=names, **metadata
    ).transcoded()
    return ManifestArray(described, encode_array(array.astype(described.dtype, copy=False), described))


def _missing() -> ManifestGroup:
    array = references(fill_value=7)
    records = array.manifest.records.copy()
    records["source"][0, 1] = records["source"][1, 0] = -1
    some = ManifestArray(array.metadata, ChunkManifest.from_records(records, array.manifest.sources))
    return ManifestGroup({"some": some, "all": ManifestArray(array.metadata, ChunkManifest.missing((2, 2)))})


def _in_memory() -> ManifestGroup:
    mixed = concatenate([references(), np.arange(12, dtype="i4").reshape(2, 6)], axis=0)
    return ManifestGroup({"v": mixed, "whole": _held(np.arange(5.0)), "empty": _held(np.zeros(3, "i2"))})


def _large() -> ManifestGroup:
    array = references((2,), (1,), "u1")
    records = np.zeros(2, dtype=WIDE_RECORD)
    records["length"], records["offset"] = [5 * 2**30, 12], [2**40, 2**62]
    return ManifestGroup(
        {"v": ManifestArray(array.metadata, ChunkManifest.from_records(records, array.manifest.sources))}
    )


def _several_objects() -> ManifestGroup:
    parts = [references((2, 6), url=f"{PREFIX}{year}.nc") for year in (2019, 2020, 2021)]
    return ManifestGroup({"v": concatenate(parts, axis=0)})


def _rectilinear() -> ManifestGroup:
    months = [references((days, 6), (days, 3), url=f"{PREFIX}{days}.nc") for days in (31, 28, 30)]
    return ManifestGroup({"v": concatenate(months, axis=0)})


def _heterogeneous() -> ManifestGroup:
    return ManifestGroup({"v": concatenate([references(), references(codecs=(GZIP,))], axis=0)})


def _text() -> ManifestGroup:
    return ManifestGroup({"v": _held(np.array(["a", "", "bü", "日本"], dtype=np.dtypes.StringDType()))})


def _paths() -> ManifestGroup:
    names = ("a b.nc", "a#b.nc", "a?b.nc", "a%b.nc", "a%20b.nc", "a+b.nc", "äö/日本.nc", "a&b=c;d,e@f:g.nc")
    return ManifestGroup({f"v{i}": references(url=as_url(f"/archive/{name}")) for i, name in enumerate(names)})


def _nested() -> ManifestGroup:
    inner = ManifestGroup({"v": references()}, attributes={"level": "inner"})
    outer = ManifestGroup({"w": references()}, {"inner": inner, "empty": ManifestGroup()}, {"level": "outer"})
    return ManifestGroup({"v": references()}, {"outer": outer}, {"title": "root"})


def _stamped() -> ManifestGroup:
    array = references()
    stamp = Stamp(size=10**6, etag='"abc"', last_modified=1_700_000_000_000_000_000, version="v1")
    sources = SourceTable.single(f"{PREFIX}a.nc", stamp)
    return ManifestGroup(
        {"v": ManifestArray(array.metadata, ChunkManifest.from_records(array.manifest.records, sources))}
    )


_FILLS: Mapping[str, Any] = {
    **dict.fromkeys(("?", "i1", "<i2", "<i4", "u1", "<u2", "<u4"), 1),
    "<i8": -(2**63),
    "<u8": 2**64 - 1,
    "<f2": 0.5,
    "<f4": float("nan"),
    "<f8": float("-inf"),
    ">f8": -0.0,
    "<c8": 1 + 2j,
    "<c16": complex(float("nan"), 1),
    "S5": b"ab",
    "<U3": "äb",
    "<M8[s]": np.datetime64("2020-01-01", "s"),
    "<m8[ns]": np.timedelta64(5, "ns"),
}


def _fill_case(dtype: str, fill: Any) -> Callable[[], ManifestGroup]:
    """Return the maker of an array of which a chunk is missing, so that the fill value is a value."""

    def make() -> ManifestGroup:
        array = references((4,), (2,), dtype, fill_value=fill)
        records = array.manifest.records.copy()
        records["source"][1] = -1
        return ManifestGroup(
            {"v": ManifestArray(array.metadata, ChunkManifest.from_records(records, array.manifest.sources))}
        )

    return make


def _transposed() -> ManifestGroup:
    return ManifestGroup({"v": references().T})


def _attributes() -> ManifestGroup:
    attributes = {
        "text": "Grüße", "number": 3, "real": 0.1, "flag": True, "list": [1, 2, 3], "nested": {"a": [1.5, "x"]}
    }  # fmt: skip
    return ManifestGroup({"v": references(attributes=attributes)}, attributes=attributes)


def _packed() -> ManifestGroup:
    attributes = {"scale_factor": 0.1, "add_offset": 273.15, "_FillValue": -32768, "units": "K"}
    return ManifestGroup({"v": references(dtype="<i2", fill_value=-32768, attributes=attributes)})


def _structured() -> ManifestGroup:
    return ManifestGroup({"v": references((4,), (2,), np.dtype([("a", "<i4"), ("b", "<f8")]))})


def _overhanging() -> ManifestGroup:
    return ManifestGroup({"v": references((5, 7), (2, 3))})


def _unlimited() -> ManifestGroup:
    inner = ManifestGroup({"v": references()}, unlimited_dims=["d0", "größe"])
    return ManifestGroup({"v": references()}, {"grows": inner, "fixed": ManifestGroup(unlimited_dims=[])})


def _heterogeneous_below() -> ManifestGroup:
    mixed = concatenate([references(), references(codecs=(GZIP,)), references(dtype=">i4")], axis=0)
    other = concatenate([references(dtype=">i4", url=f"{PREFIX}b.nc"), references(codecs=(GZIP,))], axis=1)
    inner = ManifestGroup({"v": other, "plain": references()})
    return ManifestGroup({"plain": references()}, {"g": ManifestGroup({"v": mixed}, {"inner": inner})})


def _unnamed() -> ManifestGroup:
    made = references()
    partly = references((4,), (2,))
    return ManifestGroup(
        {
            "v": ManifestArray(made.metadata.replace(dimension_names=None), made.manifest),
            "partly": ManifestArray(made.metadata.replace(dimension_names=("d0", None)), made.manifest),
            "scalar": ManifestArray(
                references((), ()).metadata.replace(dimension_names=None), references((), ()).manifest
            ),
            "named": partly,
        }
    )


def _repeated() -> ManifestGroup:
    return ManifestGroup(
        {
            "v": broadcast_to(references((1, 6), (1, 3)), (5, 6)),
            "scalar": broadcast_to(references((), ()), (3, 4)),
            "missing": broadcast_to(ManifestArray(references((), ()).metadata, ChunkManifest.missing(())), (3, 4)),
        }
    )


def _shared() -> ManifestGroup:
    array = references((4,), (2,))
    records = array.manifest.records.copy()
    records["offset"], records["length"] = [4096, 4100], [8, 8]
    overlapping = ManifestArray(array.metadata, ChunkManifest.from_records(records, array.manifest.sources))
    return ManifestGroup(
        {"v": array, "same": array, "overlapping": overlapping, "other": references(url=f"{PREFIX}b.nc")}
    )


def _sharded() -> ManifestGroup:
    stored = np.dtype("<i4")
    index = [bytes_codec(np.dtype("<u8")), {"name": "crc32c"}]
    configuration = {
        "chunk_shape": [1, 3], "codecs": [bytes_codec(stored), GZIP], "index_codecs": index, "index_location": "end"
    }  # fmt: skip
    made = references()
    encoding = ChunkEncoding(stored, ({"name": "sharding_indexed", "configuration": configuration},))
    return ManifestGroup({"v": ManifestArray(made.metadata.replace(encoding=encoding), made.manifest)})


def _many() -> ManifestGroup:
    arrays = {f"v{number}": references((2,), (1,), url=f"{PREFIX}{number % 7}.nc") for number in range(200)}
    return ManifestGroup(arrays, {f"g{number}": ManifestGroup({"v": references()}) for number in range(10)})


#: Makers of the trees that every form is tried with, by what each shows. The arrays that a form may refuse are ``v``.
CASES: Mapping[str, Callable[[], ManifestGroup]] = {
    "plain": lambda: ManifestGroup({"v": references()}),
    "big-endian": lambda: ManifestGroup({"v": references(dtype=">f4")}),
    "compressed": lambda: ManifestGroup({"v": references(codecs=(GZIP,))}),
    "no arrays": lambda: ManifestGroup(attributes={"title": "nothing"}),
    "missing chunks": _missing,
    "chunks in memory": _in_memory,
    "chunks of 4 GiB and more": _large,
    "several objects": _several_objects,
    "scalar": lambda: ManifestGroup({"v": references((), ())}),
    "missing scalar": lambda: ManifestGroup(
        {"v": ManifestArray(references((), (), fill_value=5).metadata, ChunkManifest.missing(()))}
    ),
    "zero length": lambda: ManifestGroup({"v": references((0, 6)), "w": references((4, 0), (2, 3))}),
    "overhanging chunks": _overhanging,
    "rectilinear": _rectilinear,
    "nested groups": _nested,
    "many dimensions": lambda: ManifestGroup({"v": references((2, 3, 2, 3, 2), (1, 2, 1, 3, 2))}),
    "non-ASCII names": lambda: ManifestGroup(
        {"température °C": references(names=("größe", "長さ"))}, {"grüppe 1": ManifestGroup({"v": references()})}
    ),
    "paths": _paths,
    "attributes": _attributes,
    "packed": _packed,
    "text of any length": _text,
    "structured": _structured,
    "transposed": _transposed,
    "mixed encodings": _heterogeneous,
    "stamps": _stamped,
    "unlimited dimensions": _unlimited,
    "mixed encodings in nested groups": _heterogeneous_below,
    "dimensions without names": _unnamed,
    "repeated chunks": _repeated,
    "shared chunks": _shared,
    "shards": _sharded,
    "many arrays": _many,
    "named roots": lambda: ManifestGroup({"v": references(url=reference_url("{archive}/2020/a b.nc"))}),
    **{f"fill value of {dtype}": _fill_case(dtype, fill) for dtype, fill in _FILLS.items()},
}


class FormTests:
    """What holds for every written form of references.

    Subclass it under a name that pytest collects, and implement :meth:`write` and :meth:`read`.

    Attributes
    ----------
    refuses
        The cases, by their names in :data:`CASES`, that the form cannot hold: each is refused by name.
    keeps_stamps
        Whether the stamps of sources come back.
    keeps_unlimited_dims
        Whether the unlimited dimensions of groups come back; of forms that do not keep them, there are none.
    keeps_unnamed
        Whether dimensions without a name come back so; otherwise they get one of the array's name and their number.
    """

    refuses: ClassVar[frozenset[str]] = frozenset()
    keeps_stamps: ClassVar[bool] = False
    keeps_unlimited_dims: ClassVar[bool] = False
    keeps_unnamed: ClassVar[bool] = False

    def write(self, tree: ManifestGroup, folder: Path) -> Any:
        """Write a tree into a folder; return what :meth:`read` needs to find it."""
        raise NotImplementedError

    def read(self, written: Any) -> tuple[ManifestGroup, ObjectStoreRegistry]:
        """Read a tree back, with a registry that grants the chunks that the form itself stores."""
        raise NotImplementedError

    def written_files(self, folder: Path) -> list[Path]:
        """Return what lies in the folder of :meth:`write`, for finding out that a refusal wrote nothing."""
        return sorted(folder.rglob("*"))

    @pytest.mark.parametrize("case", list(CASES))
    def test_what_goes_in_comes_out_or_is_refused_by_name(self, case: str, tmp_path: Path) -> None:
        """Record by record, with metadata and attributes; and nothing is written of what is refused."""
        tree = CASES[case]()
        if case in self.refuses:
            before = self.written_files(tmp_path)
            with pytest.raises(UnsupportedFeatureError, match=r"'([^']*/)?v'"):
                self.write(tree, tmp_path)
            assert self.written_files(tmp_path) == before
            return
        found, registry = self.read(self.write(tree, tmp_path))
        tree = tree if self.keeps_unnamed else tree.map_arrays(_named)
        unlimited = {path: group.unlimited_dims if self.keeps_unlimited_dims else None for path, group in tree.walk()}
        assert {path: group.unlimited_dims for path, group in found.walk()} == unlimited
        assert_same_tree(found, tree, registry, stamps=self.keeps_stamps)

    def test_the_refused_are_cases(self) -> None:
        """A misspelt one would not be tried."""
        assert set(CASES) >= self.refuses


def _named(path: str, array: ManifestArray) -> ManifestArray:
    """Return an array with a name for every dimension."""
    given = array.metadata.dimension_names or (None,) * array.metadata.ndim
    own = path.rpartition("/")[2]
    names = tuple(f"{own}_dim_{axis}" if name is None else name for axis, name in enumerate(given))
    return ManifestArray(array.metadata.replace(dimension_names=names), array.manifest)


def assert_same_tree(
    found: ManifestGroup, expected: ManifestGroup, registry: ObjectStoreRegistry, *, stamps: bool = False
) -> None:
    """Raise AssertionError unless two trees have the same groups and arrays, record by record.

    Parameters
    ----------
    found, expected
        The trees.
    registry
        Grants the chunks that were held in memory and are now stored by the form itself.
    stamps
        Whether the stamps of sources are compared, too.
    """
    assert {path: dict(group.attributes) for path, group in found.walk()} == {
        path: dict(group.attributes) for path, group in expected.walk()
    }
    arrays, wanted = dict(found.walk_arrays()), dict(expected.walk_arrays())
    assert list(arrays.keys()) == list(wanted.keys()) or arrays.keys() == wanted.keys()
    for path, array in arrays.items():
        assert array.metadata == wanted[path].metadata, f"{path}: {array.metadata} is not {wanted[path].metadata}"
        assert_same_chunks(path, array, wanted[path], registry, stamps=stamps)


def assert_same_chunks(
    path: str, found: ManifestArray, expected: ManifestArray, registry: ObjectStoreRegistry, *, stamps: bool = False
) -> None:
    """Raise AssertionError unless two arrays refer to the same bytes, chunk by chunk; see :func:`assert_same_tree`."""
    assert found.manifest.shape_chunk_grid == expected.manifest.shape_chunk_grid, path
    np.testing.assert_array_equal(found.manifest.present, expected.manifest.present, err_msg=path)
    for index in map(tuple, np.argwhere(expected.manifest.present).tolist()):
        wanted, got = expected.manifest.get_entry(index), found.manifest.get_entry(index)
        assert wanted is not None
        assert got is not None
        if "data" not in wanted:
            assert got == wanted, f"{path} {index}"
        else:
            assert _content(got, registry) == wanted["data"], f"{path} {index}"
        row, own = found.manifest.records[index]["source"], expected.manifest.records[index]["source"]
        assert _encoding(found, row) == _encoding(expected, own), f"{path} {index}"
        if stamps:
            assert found.manifest.sources.stamp(row) == expected.manifest.sources.stamp(own), f"{path} {index}"


def _content(entry: Mapping[str, Any], registry: ObjectStoreRegistry) -> bytes:
    if "data" in entry:
        return bytes(entry["data"])
    return bytes(fetch(registry, entry["path"], [(entry["offset"], entry["length"])])[0])


def _encoding(array: ManifestArray, row: int) -> ChunkEncoding:
    number = array.manifest.sources.encoding_id(int(row))
    return array.manifest.sources.encodings[number - 1] if number else array.metadata.encoding
