from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import fsspec
import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr

import virtualchunks as vc
from virtualchunks import ArrayMetadata, Axis, ChunkEncoding, ChunkGrid, ChunkManifest, ManifestArray, ManifestGroup
from virtualchunks.encoding import bytes_codec
from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    NotGrantedError,
    TargetExistsError,
    UnsupportedFeatureError,
    WriteError,
)
from virtualchunks.inline import encode_array
from virtualchunks.writers.kerchunk import to_references, write_json, write_kerchunk, write_parquet

pytestmark = [
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),  # fsspec reads Parquet with fastparquet
    pytest.mark.filterwarnings("ignore:.*fastparquet.*:DeprecationWarning"),
]


def gzip_codec(level: int = 1) -> dict:
    return {"name": "gzip", "configuration": {"level": level}}


def numcodec(name: str, **configuration) -> dict:
    return {"name": f"numcodecs.{name}", "configuration": configuration}


def on_disk(
    path: Path,
    values: np.ndarray,
    chunks: tuple[int, ...],
    *,
    stored: str | None = None,
    codecs: list[dict] | None = None,
    drop: tuple[int, ...] = (),
    memory: tuple[int, ...] = (),
    dims: tuple[str, ...] | None = None,
    fill=None,
    **attributes,
) -> ManifestArray:
    """Write values as chunks of one file, encoded by zarr, and return references to them."""
    dtype = np.dtype(values.dtype if stored is None else stored)
    metadata = ArrayMetadata(
        ChunkGrid.regular(values.shape, chunks),
        dtype,
        ChunkEncoding.plain(dtype) if codecs is None else ChunkEncoding(dtype, tuple(codecs)),
        fill,
        dims if dims is not None else tuple("xyzt"[: values.ndim]),
        attributes,
    )
    encoded = encode_array(values, metadata)
    entries, offset = {}, 7
    with path.open("wb") as file:
        file.write(b"\0" * offset)
        for number, (key, entry) in enumerate(encoded.items()):
            if number in drop:
                continue
            if number in memory:
                entries[key] = {"data": entry["data"]}
                continue
            file.write(entry["data"])
            entries[key] = {"path": str(path), "offset": offset, "length": len(entry["data"])}
            offset += len(entry["data"])
    return ManifestArray(metadata, ChunkManifest(entries, shape=metadata.grid.grid_shape))


def numbers(shape: tuple[int, ...], dtype="<i4") -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


def write(group: ManifestGroup, folder: Path, form: str) -> str:
    if form == "json":
        write_json(group, folder / "refs.json")
        return str(folder / "refs.json")
    write_parquet(group, folder / "refs.parquet", record_size=3)
    return str(folder / "refs.parquet")


def opened(target: str, **options) -> xr.Dataset:
    return xr.open_dataset(target, engine="kerchunk", **options)


def zarr_group(target, zarr_format=2, **options) -> zarr.Group:
    file_system = fsspec.filesystem("reference", fo=target, asynchronous=True, **options)
    store = zarr.storage.FsspecStore(file_system, read_only=True)
    return zarr.open_group(store, mode="r", zarr_format=zarr_format, use_consolidated=False)


forms = pytest.mark.parametrize("form", ["json", "parquet"])

LAYOUTS = {
    "plain": {},
    "big-endian": {"stored": ">i4"},
    "gzip": {"codecs": [bytes_codec(np.dtype("<i4")), gzip_codec()]},
    "zstd": {
        "codecs": [bytes_codec(np.dtype("<i4")), {"name": "zstd", "configuration": {"level": 3, "checksum": False}}]
    },
    "blosc": {
        "codecs": [
            bytes_codec(np.dtype("<i4")),
            {
                "name": "blosc",
                "configuration": {"typesize": 4, "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0},
            },
        ]
    },
    "shuffle and zlib": {
        "codecs": [bytes_codec(np.dtype("<i4")), numcodec("shuffle", elementsize=4), numcodec("zlib", level=4)]
    },
    "shuffle, zlib and fletcher32": {
        "codecs": [
            bytes_codec(np.dtype("<i4")),
            numcodec("shuffle", elementsize=4),
            numcodec("zlib", level=4),
            numcodec("fletcher32"),
        ]
    },
    "big-endian, shuffle and zlib": {
        "stored": ">i4",
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "big"}},
            numcodec("shuffle", elementsize=4),
            numcodec("zlib", level=4),
        ],
    },
    "crc32c": {"codecs": [bytes_codec(np.dtype("<i4")), {"name": "crc32c"}]},
    "bz2": {"codecs": [bytes_codec(np.dtype("<i4")), numcodec("bz2", level=4)]},
    "delta": {"codecs": [numcodec("delta", dtype="<i4"), bytes_codec(np.dtype("<i4"))]},
    "Fortran order": {
        "codecs": [{"name": "transpose", "configuration": {"order": [1, 0]}}, bytes_codec(np.dtype("<i4"))]
    },
    "identity order": {
        "codecs": [{"name": "transpose", "configuration": {"order": [0, 1]}}, bytes_codec(np.dtype("<i4"))]
    },
}


@forms
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_are_equal_through_xarray_and_through_zarr(tmp_path, form, layout):
    values = numbers((7, 5))
    array = on_disk(tmp_path / "a.bin", values, (2, 3), **LAYOUTS[layout])
    target = write(ManifestGroup({"v": array}, attributes={"title": "t"}), tmp_path, form)
    ds = opened(target)
    np.testing.assert_array_equal(ds.v.values, values)
    assert (ds.v.dtype, ds.v.dims, ds.attrs["title"]) == (np.dtype("i4"), ("x", "y"), "t")
    np.testing.assert_array_equal(zarr_group(target)["v"][:], values)


@forms
@pytest.mark.parametrize(
    "dtype",
    ["?", "i1", "u2", "<i8", ">f4", "f2", "<f8", "<c8", ">c16", "S5", "M8[s]", "m8[ms]", [("a", "<i2"), ("b", "<f4")]],
)
def test_values_of_every_dtype_are_equal_through_zarr(tmp_path, form, dtype):
    dtype = np.dtype(dtype)
    if dtype.fields:
        values = np.array([(i, i / 2) for i in range(5)], dtype=dtype.newbyteorder("="))
    else:
        values = np.arange(5).astype("i8").astype("S5" if dtype.kind == "S" else dtype).astype(dtype.newbyteorder("="))
    array = on_disk(tmp_path / "a.bin", values, (2,), stored=dtype, drop=(1,), fill=values[3])
    target = write(ManifestGroup({"v": array}), tmp_path, form)
    expected = values.copy()
    expected[2:4] = values[3]
    np.testing.assert_array_equal(zarr_group(target)["v"][:], expected)


@forms
def test_text_of_any_length(tmp_path, form):
    values = np.array(["a", "", "häuser", "b" * 40], dtype=np.dtypes.StringDType())
    array = on_disk(tmp_path / "a.bin", values, (2,), codecs=[{"name": "vlen-utf8"}, gzip_codec()])
    ds = opened(write(ManifestGroup({"v": array}), tmp_path, form))
    assert ds.v.values.tolist() == values.tolist()


@forms
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1, 1, 1)])
def test_scalars_and_arrays_without_elements(tmp_path, form, shape):
    values = numbers(shape)
    array = on_disk(tmp_path / "a.bin", values, tuple(max(n, 1) for n in shape))
    target = write(ManifestGroup({"v": array}), tmp_path, form)
    np.testing.assert_array_equal(opened(target).v.values, values)
    np.testing.assert_array_equal(zarr_group(target)["v"][...], values)


@forms
def test_chunks_in_memory_stand_in_the_references(tmp_path, form):
    values = numbers((7, 5))
    array = on_disk(tmp_path / "a.bin", values, (2, 3), memory=(0, 3, 7))
    target = write(
        ManifestGroup({"v": array, "w": on_disk(tmp_path / "b.bin", values[0], (2,), memory=(0, 1, 2), dims=("y",))}),
        tmp_path,
        form,
    )
    np.testing.assert_array_equal(opened(target).v.values, values)
    (tmp_path / "b.bin").unlink()
    np.testing.assert_array_equal(opened(target).w.values, values[0])


MISSING = {
    # name: dtype, fill value, attributes
    "integers, nothing masked": ("<i4", 0, {}),
    "integers, another fill value": ("<i4", 3, {}),
    "integers, the fill value is the mask": ("<i4", -9, {"_FillValue": -9}),
    "integers, the mask is another value": ("<i4", 0, {"_FillValue": 5}),
    "integers, the mask is no integer": ("<i4", 0, {"_FillValue": np.nan}),
    "unsigned": ("<u1", 255, {"_FillValue": np.uint8(255)}),
    "floats, NaN": ("<f4", np.nan, {}),
    "floats, 0": ("<f4", 0.0, {}),
    "floats, NaN is the mask": ("<f8", np.nan, {"_FillValue": np.nan}),
    "floats, masked": ("<f4", -999, {"_FillValue": np.float32(-999)}),
    "floats, a mask in double precision": ("<f4", -999.9, {"_FillValue": -999.9}),
    "floats, 0 beside a mask": ("<f4", 0, {"_FillValue": np.float32(-999)}),
    "packed": ("<i2", -1, {"_FillValue": np.int16(-1), "scale_factor": 0.5, "add_offset": 10.0}),
    "packed, 0 beside the mask": ("<i2", 0, {"_FillValue": np.int16(-1), "scale_factor": 0.5, "add_offset": 10.0}),
}


@forms
@pytest.mark.parametrize("case", MISSING)
@pytest.mark.parametrize("codecs", [[], [gzip_codec()]], ids=["plain", "gzip"])
def test_missing_chunks_and_masks_decode_as_xarray_decodes_the_stored_values(tmp_path, form, case, codecs):
    dtype, fill, attributes = MISSING[case]
    values = numbers((9,), dtype)
    array = on_disk(
        tmp_path / "a.bin",
        values,
        (2,),
        codecs=[bytes_codec(np.dtype(dtype)), *codecs],
        drop=(0, 3),
        fill=fill,
        **attributes,
    )
    stored = values.copy()
    stored[[0, 1, 6, 7]] = fill
    target = write(ManifestGroup({"v": array}), tmp_path, form)
    with warnings.catch_warnings(action="ignore", category=xr.SerializationWarning):
        expected = xr.decode_cf(xr.Dataset({"v": ("x", stored, attributes)})).v
        found = opened(target).v
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(zarr_group(target)["v"][:], stored)


@forms
def test_an_array_without_missing_chunks_is_not_masked(tmp_path, form):
    array = on_disk(tmp_path / "a.bin", numbers((4,)), (2,), fill=0)
    found = opened(write(ManifestGroup({"v": array}), tmp_path, form)).v
    assert found.dtype == np.dtype("i4")
    assert found.values.tolist() == [0, 1, 2, 3]


@forms
def test_an_array_of_missing_chunks_alone(tmp_path, form):
    metadata = ArrayMetadata.build(shape=(40,), chunks=(3,), dtype="<f4", fill_value=np.nan, dimension_names=("x",))
    array = ManifestArray(metadata, ChunkManifest.missing((14,)))
    assert np.isnan(opened(write(ManifestGroup({"v": array}), tmp_path, form)).v.values).all()


def test_too_many_missing_chunks_that_would_be_masked_are_refused():
    metadata = ArrayMetadata.build(shape=(1 << 30,), chunks=(1 << 20,), dtype="<i4", dimension_names=("x",))
    group = ManifestGroup({"v": ManifestArray(metadata, ChunkManifest.missing((1024,)))})
    with pytest.raises(LimitExceededError, match="1,024 missing chunks"):
        to_references(group)
    assert "v/zarr.json" in to_references(group, zarr_format=3)["refs"]


@forms
@pytest.mark.parametrize("name", ["a b.nc", "a#b?c.nc", "50%.nc", "ä+b.nc", "a%20b.nc", "{{u}}.nc"])
def test_names_of_files_are_taken_literally(tmp_path, form, name):
    values = numbers((4,))
    group = ManifestGroup({"v": on_disk(tmp_path / name, values, (2,))})
    np.testing.assert_array_equal(opened(write(group, tmp_path, form)).v.values, values)


@forms
def test_names_of_variables_may_hold_any_letters(tmp_path, form):
    values = numbers((4,))
    group = ManifestGroup({'größe "1"': on_disk(tmp_path / "a.bin", values, (2,))})
    np.testing.assert_array_equal(opened(write(group, tmp_path, form))['größe "1"'].values, values)


def test_urls_are_written_as_fsspec_expects_them():
    metadata = ArrayMetadata.build(shape=(3,), chunks=(1,), dtype="<i4", dimension_names=("x",))
    urls = ["s3://bucket/a%20b%23.nc", "https://data.example/a%20b.nc", "gs://bucket/c.nc"]
    manifest = ChunkManifest.from_arrays(paths=np.array(urls), offsets=np.array([0, 1, 2]), lengths=np.array([4, 4, 4]))
    refs = to_references(ManifestGroup({"v": ManifestArray(metadata, manifest)}))["refs"]
    assert [refs[f"v/{i}"][0] for i in range(3)] == [
        "s3://bucket/a b#.nc",
        "https://data.example/a%20b.nc",
        "gs://bucket/c.nc",
    ]


def test_references_into_memory_stores_are_refused():
    metadata = ArrayMetadata.build(shape=(1,), chunks=(1,), dtype="<i4")
    array = ManifestArray(metadata, {"0": {"path": "memory://m/a.nc", "offset": 0, "length": 4}})
    with pytest.raises(UnsupportedFeatureError, match="memory of this process"):
        to_references(ManifestGroup({"v": array}))


def tree(folder: Path) -> tuple[ManifestGroup, dict[str, np.ndarray]]:
    values = {"v": numbers((4,)), "a/v": numbers((5, 2), "<f4"), "a/b/w": numbers((6,), ">i2")}
    arrays = {
        name: on_disk(folder / name.replace("/", "_"), data, (2,) * data.ndim, stored=data.dtype)
        for name, data in values.items()
    }
    inner = ManifestGroup({"w": arrays["a/b/w"]}, attributes={"deep": 1})
    middle = ManifestGroup({"v": arrays["a/v"]}, {"b": inner})
    return ManifestGroup({"v": arrays["v"]}, {"a": middle}), values


@forms
def test_groups_below_the_root(tmp_path, form):
    group, values = tree(tmp_path)
    target = write(group, tmp_path, form)
    options = {"remote_protocol": "file"} if form == "parquet" else {}
    for path, expected in values.items():
        inner, _, name = path.rpartition("/")
        ds = xr.open_dataset(target, engine="kerchunk", storage_options=options, group=inner or None)
        np.testing.assert_array_equal(ds[name].values, expected)
    assert zarr_group(target, **options)["a/b"].attrs["deep"] == 1


def test_the_dictionary_and_the_file_say_the_same(tmp_path):
    group, _ = tree(tmp_path)
    for zarr_format in (2, 3):
        write_json(group, tmp_path / "refs.json", zarr_format=zarr_format)
        assert json.loads((tmp_path / "refs.json").read_text()) == to_references(group, zarr_format=zarr_format)


def test_the_dictionary_and_the_file_say_the_same_of_chunks_in_memory_and_missing_ones(tmp_path):
    array = on_disk(tmp_path / "a.bin", numbers((9, 4)), (2, 2), memory=(0, 9), drop=(2, 3), fill=4)
    group = ManifestGroup({"v": array})
    write_json(group, tmp_path / "refs.json")
    written = json.loads((tmp_path / "refs.json").read_text())
    assert written == to_references(group)
    assert set(written["refs"]) == {".zgroup", ".zattrs", "v/.zarray", "v/.zattrs"} | {
        f"v/{i}.{j}" for i, j in itertools.product(range(5), range(2))
    }


def test_zarr_format_3_keeps_fill_values_masks_and_unequal_chunks(tmp_path):
    values = numbers((9,), "<f4")
    one = on_disk(tmp_path / "a.bin", values, (2,), drop=(1,), fill=3, _FillValue=np.float32(8))
    edges = ChunkGrid((Axis(5, edges=(2, 3)),))
    data = numbers((5,))
    data.tofile(tmp_path / "b.bin")
    metadata = ArrayMetadata(edges, np.dtype("<i4"), ChunkEncoding.plain("<i4"), None, ("y",))
    entries = {
        "0": {"path": str(tmp_path / "b.bin"), "offset": 0, "length": 8},
        "1": {"path": str(tmp_path / "b.bin"), "offset": 8, "length": 12},
    }
    group = ManifestGroup({"v": one, "months": ManifestArray(metadata, entries)})
    refs = to_references(group, zarr_format=3)
    file_system = fsspec.filesystem("reference", fo=refs, asynchronous=True)
    with zarr.config.set({"array.rectilinear_chunks": True}):
        ds = xr.open_zarr(
            zarr.storage.FsspecStore(file_system, read_only=True), zarr_format=3, consolidated=False
        ).load()
    np.testing.assert_array_equal(ds.v.values, [0, 1, 3, 3, 4, 5, 6, 7, np.nan])
    np.testing.assert_array_equal(ds.months.values, data)
    with pytest.raises(UnsupportedFeatureError, match="'months' has chunks of unequal lengths"):
        to_references(group)


REFUSED = {
    "axes in a third order": (
        [{"name": "transpose", "configuration": {"order": [1, 2, 0]}}, bytes_codec(np.dtype("<i4"))],
        "C and F order",
    ),
    "a codec that v2 has not": (
        [bytes_codec(np.dtype("<i4")), {"name": "virtualchunks.hdf5_filters", "configuration": {}}],
        "hdf5_filters",
    ),
    "shards": ([{"name": "sharding_indexed", "configuration": {}}], "sharding_indexed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_zarr_v2_cannot_say_is_refused_by_name(tmp_path, case):
    codecs, message = REFUSED[case]
    metadata = ArrayMetadata.build(shape=(2, 2, 2), chunks=(2, 2, 2), dtype="<i4", codecs=codecs)
    array = ManifestArray(metadata, {"0.0.0": {"path": "s3://bucket/a.nc", "offset": 0, "length": 8}})
    with pytest.raises(UnsupportedFeatureError, match=message) as caught:
        write_json(ManifestGroup({}, {"g": ManifestGroup({"v": array})}), tmp_path / "refs.json")
    assert caught.value.variable == "g/v"
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_decodes_in_two_ways_is_refused_with_counts(tmp_path):
    values = numbers((4,))
    one = on_disk(tmp_path / "a.bin", values, (2,))
    two = on_disk(tmp_path / "b.bin", numbers((6,)), (2,), codecs=[bytes_codec(np.dtype("<i4")), gzip_codec()])
    both = np.concatenate([one, two])
    with pytest.raises(UnsupportedFeatureError, match=r"'v' decode in 2 ways .2 as .*, 3 as .*gzip"):
        to_references(ManifestGroup({"v": both}))
    refs = to_references(ManifestGroup({"v": both[4:]}))
    np.testing.assert_array_equal(zarr_group(refs)["v"][:], numbers((6,)))


def test_levels_of_compression_do_not_make_two_ways(tmp_path):
    parts = [
        on_disk(
            tmp_path / f"{level}.bin", numbers((4,)), (2,), codecs=[bytes_codec(np.dtype("<i4")), gzip_codec(level)]
        )
        for level in (1, 9)
    ]
    refs = to_references(ManifestGroup({"v": np.concatenate(parts)}))
    np.testing.assert_array_equal(zarr_group(refs)["v"][:], [0, 1, 2, 3, 0, 1, 2, 3])


def test_an_array_of_another_dtype_than_its_chunks_is_refused(tmp_path):
    array = on_disk(tmp_path / "a.bin", numbers((4,), "<i2"), (2,)).astype("i4")
    with pytest.raises(UnsupportedFeatureError, match="hold int16 where the array is int32"):
        to_references(ManifestGroup({"v": array}))


def simple(folder: Path, name: str = "a.bin", start: int = 0) -> ManifestGroup:
    return ManifestGroup({"v": on_disk(folder / name, numbers((4,)) + start, (2,))})


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_json(tmp_path, compression):
    write_json(simple(tmp_path), tmp_path / "refs.json.c", compression=compression)
    data = (tmp_path / "refs.json.c").read_bytes()
    text = gzip.decompress(data) if compression == "gzip" else numcodecs.Zstd().decode(data)
    assert json.loads(bytes(text)) == to_references(simple(tmp_path))


@pytest.mark.parametrize(("suffix", "compression"), [("gz", "gzip"), ("zst", "zstd"), ("json", None)])
def test_fsspec_reads_json_that_is_compressed_as_its_name_says(tmp_path, suffix, compression):
    target = str(tmp_path / f"refs.json.{suffix}")
    write_json(simple(tmp_path), target)
    for said in (compression, "infer"):
        found = zarr_group(target, target_options={"compression": said})["v"][:]
        assert found.tolist() == [0, 1, 2, 3]
    write_json(simple(tmp_path), target, compression=None)
    assert json.loads((tmp_path / f"refs.json.{suffix}").read_text()) == to_references(simple(tmp_path))


def test_an_unknown_compression_names_the_known(tmp_path):
    with pytest.raises(UnsupportedFeatureError, match="'gzip', 'zstd'"):
        write_json(simple(tmp_path), tmp_path / "refs.json", compression="lzma")


@forms
def test_what_is_there_is_replaced_or_refused(tmp_path, form):
    target = write(simple(tmp_path), tmp_path, form)
    write(simple(tmp_path, "b.bin", 10), tmp_path, form)
    assert opened(target).v.values.tolist() == [10, 11, 12, 13]
    write_again = write_json if form == "json" else write_parquet
    with pytest.raises(TargetExistsError, match="mode='w'"):
        write_again(simple(tmp_path), target, mode="w-")
    assert opened(target).v.values.tolist() == [10, 11, 12, 13]


@forms
def test_nothing_is_left_beside_the_target(tmp_path, form):
    (tmp_path / "out").mkdir()
    group = simple(tmp_path)
    for _ in range(2):
        write(group, tmp_path / "out", form)
    assert len(list((tmp_path / "out").iterdir())) == 1


@forms
def test_an_interrupted_write_leaves_the_old_target(tmp_path, form, monkeypatch):
    (tmp_path / "out").mkdir()
    target = write(simple(tmp_path), tmp_path / "out", form)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(simple(tmp_path, "b.bin", 10), tmp_path / "out", form)
    monkeypatch.undo()
    assert opened(target).v.values.tolist() == [0, 1, 2, 3]
    assert len(list((tmp_path / "out").iterdir())) == 1


@forms
def test_a_target_that_cannot_be_written(tmp_path, form):
    with pytest.raises(WriteError, match="No such file or directory"):
        write(simple(tmp_path), tmp_path / "missing", form)


def test_a_folder_of_other_things_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").touch()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".zmetadata").write_text('{"metadata": {}, "zarr_consolidated_format": 1}')
    for name in ("home", "store"):
        with pytest.raises(TargetExistsError, match="not a folder of references"):
            write_parquet(simple(tmp_path), tmp_path / name)
        assert len(list((tmp_path / name).iterdir())) == 1


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "refs.json").mkdir()
    with pytest.raises(WriteError, match="directory"):
        write_json(simple(tmp_path), tmp_path / "refs.json")


def test_record_size_must_be_positive(tmp_path):
    with pytest.raises(FormatError, match="record_size"):
        write_parquet(simple(tmp_path), tmp_path / "refs.parquet", record_size=0)


def test_targets_in_an_object_store(tmp_path):
    from obstore.store import LocalStore, MemoryStore

    (tmp_path / "bucket").mkdir()
    store, group = LocalStore(tmp_path / "bucket"), simple(tmp_path)
    write_json(group, "a/refs.json", store=store)
    assert opened(str(tmp_path / "bucket/a/refs.json")).v.values.tolist() == [0, 1, 2, 3]
    for record_size in (1, 5):
        write_parquet(group, "b.parquet", record_size=record_size, store=store)
    assert opened(str(tmp_path / "bucket/b.parquet")).v.values.tolist() == [0, 1, 2, 3]
    assert len(list((tmp_path / "bucket/b.parquet/v").iterdir())) == 1
    memory = MemoryStore()
    write_json(group, "memory://m/refs.json", registry={"memory://m": memory}, mode="w-")
    assert json.loads(bytes(memory.get("refs.json").bytes())) == to_references(group)
    with pytest.raises(TargetExistsError):
        write_json(group, "memory://m/refs.json", registry={"memory://m": memory}, mode="w-")
    write_parquet(group, "memory://m/p", registry={"memory://m": memory})
    with pytest.raises(TargetExistsError):
        write_parquet(group, "memory://m/p", registry={"memory://m": memory}, mode="w-")
    with pytest.raises(NotGrantedError, match=r"registry\.register"):
        write_json(group, "s3://bucket/refs.json")


def test_chunks_of_four_gigabytes_and_more(tmp_path):
    import pyarrow.parquet

    metadata = ArrayMetadata.build(shape=(1 << 30,), chunks=(1 << 30,), dtype="<i8", dimension_names=("x",))
    array = ManifestArray(metadata, {"0": {"path": "s3://bucket/a.nc", "offset": 1 << 40, "length": 1 << 33}})
    group = ManifestGroup({"v": array})
    assert to_references(group)["refs"]["v/0"] == ["s3://bucket/a.nc", 1 << 40, 1 << 33]
    write_parquet(group, tmp_path / "refs.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "refs.parquet/v/refs.0.parq").to_pylist()
    assert rows == [{"path": "s3://bucket/a.nc", "offset": 1 << 40, "size": 1 << 33, "raw": None}]


def test_one_function_for_every_form(tmp_path):
    dataset = xr.Dataset({"v": ("x", simple(tmp_path).arrays["v"]), "w": ("x", [1.0, 2.0, 3.0, 4.0])})
    references = write_kerchunk(dataset)
    assert zarr_group(references)["w"][:].tolist() == [1, 2, 3, 4]
    for form in ("json", "parquet"):
        assert write_kerchunk(dataset, tmp_path / f"refs.{form}", form) is None
        found = opened(str(tmp_path / f"refs.{form}"))
        np.testing.assert_array_equal(found.v.values, numbers((4,)))
        np.testing.assert_array_equal(found.w.values, [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "yaml"}, "known are 'dict', 'json' and 'parquet'"),
        ({"format": "json"}, "needs a filepath"),
        ({"format": "parquet", "filepath": "refs", "zarr_format": 3}, "Zarr v2 metadata only from Parquet"),
    ],
)
def test_arguments_that_contradict_each_other(options, message):
    with pytest.raises(UnsupportedFeatureError, match=message):
        write_kerchunk(ManifestGroup(), **options)


KILLED = """
import os, signal, sys
import numpy as np
from virtualchunks import ArrayMetadata, ChunkManifest, ManifestArray, ManifestGroup
from virtualchunks.writers.kerchunk import write_kerchunk

form, target, moment = sys.argv[1], sys.argv[2], int(sys.argv[3])
metadata = ArrayMetadata.build(shape=(9,), chunks=(1,), dtype="<i4", dimension_names=("x",))
manifest = ChunkManifest.from_arrays(
    paths=np.full(9, "s3://bucket/new.nc"), offsets=np.arange(9) * 4, lengths=np.full(9, 4)
)
calls = 0

def counted(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

for name in ("fsync", "replace", "rename"):
    setattr(os, name, counted(getattr(os, name)))
write_kerchunk(ManifestGroup({"v": ManifestArray(metadata, manifest)}), target, form, record_size=3)
"""


@forms
def test_a_process_that_is_killed_leaves_the_old_target_or_none_or_the_new(tmp_path, form):
    old = ManifestGroup({"v": on_disk(tmp_path / "a.bin", numbers((9,)), (1,))})
    target = tmp_path / f"refs.{form}"
    outcomes = []
    for moment in range(1, 20):
        write_kerchunk(old, target, form, record_size=3)
        command = [sys.executable, "-c", KILLED, form, str(target), str(moment)]
        ended = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        outcomes.append(outcome(target))
        if ended.returncode == 0:
            break
    assert ended.returncode == 0
    assert set(outcomes) <= {"old", "none", "new"}
    assert (outcomes[0], outcomes[-1]) == ("old", "new")


def outcome(target: Path) -> str:
    """Say whether all references of a target are the old ones, or all the new ones."""
    if not target.exists():
        return "none"
    if target.is_dir():
        import pyarrow.parquet

        parts = sorted((target / "v").iterdir())
        paths = {row["path"] for part in parts for row in pyarrow.parquet.read_table(part).to_pylist()}
        assert (target / ".zmetadata").exists()
        assert len(parts) == 3
    else:
        paths = {ref[0] for ref in json.loads(target.read_text())["refs"].values() if isinstance(ref, list)}
    assert len(paths) == 1
    return "new" if paths == {"s3://bucket/new.nc"} else "old"


def test_large_coordinates_in_memory_come_back(tmp_path):
    data = xr.Dataset({"lat": (("y", "x"), np.arange(600_000.0).reshape(600, 1000))})
    write_kerchunk(data, tmp_path / "refs.json", "json")
    write_kerchunk(data, tmp_path / "refs.parquet", "parquet")
    for name in ("refs.json", "refs.parquet"):
        back = vc.open_virtual_dataset(tmp_path / name, parser="kerchunk", loadable_variables=["lat"])
        xr.testing.assert_equal(back.reset_coords(), data)
