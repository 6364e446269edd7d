"""Arrays whose chunks decode in several ways, written with one encoding: the values stay, and most references do."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import virtualchunks as vc
from tests.xarray.test_packed_archives import DRIFTS, assert_same_bits, by_xarray
from tests.xarray.test_packed_archives import write as write_packed
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import (
    CombineError,
    LimitExceededError,
    NotGrantedError,
    SourceChangedError,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.inline import encode_array
from virtualchunks.packing import Packing
from virtualchunks.reading import recoding
from virtualchunks.reading.values import read_values
from virtualchunks.writers.icechunk import required_containers, write_icechunk, write_many
from virtualchunks.writers.kerchunk import to_references, write_json, write_kerchunk, write_parquet
from virtualchunks.xarray.dataset import references_of

h5py = pytest.importorskip("h5py")
pytest.importorskip("icechunk")
pytest.importorskip("kerchunk")
from icechunkrepos import commit, opened, repository  # noqa: E402 - needs icechunk

pytestmark = [
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),
]

ZLIB = {"compression": 4}
SHUFFLED = {"compression": 4, "shuffle": True}
#: How each file of an archive stores its variable: dtype, length, chunk shape and filters.
ARCHIVES: dict[str, list[tuple[str, int, tuple[int, ...], dict[str, Any]]]] = {
    "compression": [("f4", 6, (2, 4, 3), SHUFFLED)] * 2 + [("f4", 6, (2, 4, 3), {})],
    "compression, first": [("f4", 6, (2, 4, 3), {"compression": "lzf"})] + [("f4", 6, (2, 4, 3), ZLIB)] * 2,
    "byte order": [(">f8", 4, (2, 8, 6), {})] * 2 + [("<f8", 4, (2, 8, 6), {})],
    "byte order, compressed": [("<i2", 4, (2, 8, 6), ZLIB), (">i2", 4, (2, 8, 6), ZLIB), (">i2", 4, (2, 8, 6), ZLIB)],
    "dtype": [("i4", 4, (2, 4, 6), ZLIB), ("i2", 4, (2, 4, 6), ZLIB), ("i4", 4, (2, 4, 6), ZLIB)],
    "dtype of no file": [("i4", 4, (2, 4, 6), ZLIB), ("u4", 4, (2, 4, 6), ZLIB)],
    "overhang across": [("f4", 4, (2, 5, 4), ZLIB), ("f4", 4, (2, 5, 4), {})],
    "chunk shape": [("f4", 4, (1, 8, 6), ZLIB), ("f4", 4, (1, 4, 3), ZLIB)],
}
#: The same, on grids that only Zarr v3 has.
RECTILINEAR: dict[str, list[tuple[str, int, tuple[int, ...], dict[str, Any]]]] = {
    "last chunks that overhang": [("f4", 7, (3, 8, 6), ZLIB)] * 3,
    "last chunks that overhang, uncompressed": [("f4", 7, (3, 8, 6), {})] * 2 + [("f4", 8, (3, 8, 6), ZLIB)],
    "chunk shapes that do not divide": [("f4", 6, (2, 3, 6), ZLIB), ("f4", 6, (1, 4, 5), SHUFFLED)],
}


def write(path: Path, number: int, dtype: str, length: int, chunks: tuple[int, ...], filters: dict[str, Any]) -> Path:
    values = np.random.default_rng(number).integers(0, 1000, (length, 8, 6))
    start = number * 10
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=values.astype(dtype), chunks=chunks, **filters)
        file["time"] = np.arange(start, start + length, dtype="i4")
        file["time"].attrs["units"] = "days since 2000-01-01"
        file["y"], file["x"] = np.arange(8.0), np.arange(6.0)
        for axis, name in enumerate(("time", "y", "x")):
            file[name].make_scale(name)
            file["v"].dims[axis].attach_scale(file[name])
    return path


def archive(folder: Path, files: list[tuple[str, int, tuple[int, ...], dict[str, Any]]]) -> list[Path]:
    return [write(folder / f"{number}.nc", number, *how) for number, how in enumerate(files)]


def combined(paths: list[Path]) -> xr.Dataset:
    return vc.open_virtual_mfdataset(paths, combine="nested", concat_dim="time")


@pytest.fixture(autouse=True)
def rectilinear():
    with zarr.config.set({"array.rectilinear_chunks": True}):
        yield


def by_icechunk(cube: xr.Dataset, folder: Path) -> xr.Dataset:
    repo = repository(folder)
    session = repo.writable_session("main")
    cube.virtual.to_icechunk(session.store, heterogeneous="materialise")
    session.commit("references")
    return opened(repo)


def by_json(cube: xr.Dataset, folder: Path) -> xr.Dataset:
    cube.virtual.to_kerchunk(folder / "refs.json", format="json", heterogeneous="materialise")
    return xr.open_dataset(str(folder / "refs.json"), engine="kerchunk").load()


def by_parquet(cube: xr.Dataset, folder: Path) -> xr.Dataset:
    cube.virtual.to_kerchunk(folder / "refs.parquet", format="parquet", heterogeneous="materialise")
    options = {"remote_protocol": "file"}
    return xr.open_dataset(str(folder / "refs.parquet"), engine="kerchunk", storage_options=options).load()


def by_zarr_v3(cube: xr.Dataset, folder: Path) -> xr.Dataset:
    refs = cube.virtual.to_kerchunk(zarr_format=3, heterogeneous="materialise")
    options = {"fo": refs}
    return xr.open_zarr(
        "reference://", storage_options=options, zarr_format=3, consolidated=False, chunks=None, decode_timedelta=False
    ).load()


TARGETS = {"icechunk": by_icechunk, "json": by_json, "parquet": by_parquet, "zarr v3": by_zarr_v3}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", ARCHIVES)
def test_values_are_those_of_xarray(tmp_path, case, target):
    paths = archive(tmp_path, ARCHIVES[case])
    cube = combined(paths)
    assert references_of(cube["v"]).is_heterogeneous
    found = TARGETS[target](cube, tmp_path)
    expected = by_xarray(paths, combine="nested", concat_dim="time")
    assert_same_bits(found, expected, ["v"])
    assert_same_bits(cube.virtual.open(), expected, ["v"])
    xr.testing.assert_equal(found["time"], expected["time"])


@pytest.mark.parametrize("target", ["icechunk", "zarr v3"])
@pytest.mark.parametrize("case", RECTILINEAR)
def test_rectilinear_grids_go_where_zarr_v3_does(tmp_path, case, target):
    paths = archive(tmp_path, RECTILINEAR[case])
    cube = combined(paths)
    found = TARGETS[target](cube, tmp_path)
    assert_same_bits(found, by_xarray(paths, combine="nested", concat_dim="time"), ["v"])
    with pytest.raises(UnsupportedFeatureError, match=r"'v' has chunks of unequal lengths"):
        cube.virtual.to_kerchunk(tmp_path / "none.json", format="json", heterogeneous="materialise")
    assert not (tmp_path / "none.json").exists()


def test_days_of_a_year_in_chunks_that_overhang_it(tmp_path):
    paths = []
    for number in range(2):
        paths.append(tmp_path / f"{number}.nc")
        with h5py.File(paths[-1], "w") as file:
            data = np.random.default_rng(number).normal(size=(365, 2)).astype("f4")
            file.create_dataset("v", data=data, chunks=(61, 2), maxshape=(None, 2), compression=1)
            file["time"] = np.arange(number * 365, (number + 1) * 365, dtype="i4")
            file["time"].make_scale("time")
            file["v"].dims[0].attach_scale(file["time"])
    cube = vc.open_virtual_mfdataset(paths)
    found = by_icechunk(cube, tmp_path)
    for number, path in enumerate(paths):
        with h5py.File(path) as file:
            own = found["v"].values[number * 365 : (number + 1) * 365]
            assert own.tobytes() == file["v"][...].tobytes()


@pytest.mark.parametrize("target", TARGETS)
def test_filter_masks_of_single_chunks(tmp_path, target):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        made = file.create_dataset("v", data=np.arange(40, dtype="i4"), chunks=(10,), **SHUFFLED)
        made.id.write_direct_chunk((10,), np.arange(70, 80, dtype="i4").tobytes(), filter_mask=3)
    with h5py.File(tmp_path / "a.nc") as file:
        expected = file["v"][...]
    cube = vc.open_virtual_dataset(tmp_path / "a.nc")
    assert references_of(cube["v"]).is_heterogeneous
    np.testing.assert_array_equal(TARGETS[target](cube, tmp_path)["v"].values, expected)


#: Archives of which one file's values have no exact stored number in the packing of the other.
INEXACT = {
    "float32 scale",
    "offset",
    "scale of another type",
    "fill",
    "integers with a fill value",
    "integers, one file with a fill value",
    "long integers with a fill value",
    "missing values",
    "both",
    "masked floats",
    "big-endian",
    "big-endian floats",
}


@pytest.mark.parametrize("target", ["icechunk", "json"])
@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.filterwarnings("ignore:variable:xarray.SerializationWarning")
def test_packings_are_written_where_every_value_is_exact(tmp_path, drift, target):
    files = DRIFTS[drift]
    paths = [write_packed(tmp_path / f"{number}.nc", number, *file) for number, file in enumerate(files)]
    cube = vc.open_virtual_mfdataset(paths)[["v"]]
    if drift in INEXACT:
        with pytest.raises(UnsupportedFeatureError, match="packed in several ways") as caught:
            TARGETS[target](cube, tmp_path)
        assert caught.value.variable == "v"
        assert not (tmp_path / "refs.json").exists()
        return
    found = TARGETS[target](cube, tmp_path)
    expected = by_xarray(paths)  # Zarr's metadata, which is JSON, keeps numbers but not their dtypes
    assert_same_bits(found.astype(expected["v"].dtype), expected, ["v"])


def test_only_the_fewer_chunks_are_read_and_the_others_stay_references(tmp_path, monkeypatch):
    paths = archive(tmp_path, ARCHIVES["compression"])
    asked = []
    genuine = recoding.fetch

    def counting(registry, url, spans, stamp):
        asked.append((Path(url).name, len(spans)))
        return genuine(registry, url, spans, stamp)

    monkeypatch.setattr(recoding, "fetch", counting)
    cube = combined(paths)
    refs = cube.virtual.to_kerchunk(heterogeneous="materialise")["refs"]
    assert asked == [("2.nc", 12)]
    chunks = {key: value for key, value in refs.items() if key.startswith("v/") and not key.startswith("v/.z")}
    inline = [key for key, value in chunks.items() if isinstance(value, str)]
    assert len(chunks) == 36
    assert len(inline) == 12
    assert all(key.split("/")[1].split(".")[0] in "678" for key in inline)
    alone = combined(paths[:2]).virtual.to_kerchunk()["refs"]
    assert all(chunks[key] == value for key, value in alone.items() if isinstance(value, list) and key[:2] == "v/")


def test_blocks_that_are_several_chunks_are_fetched_and_decoded_once(tmp_path, monkeypatch):
    cube = combined(archive(tmp_path, [("f4", 4, (1, 8, 6), ZLIB), ("f4", 8, (1, 4, 3), ZLIB)]))
    decoded = []
    genuine = recoding.Blocks.cell

    def counting(self, encoding, index, span, data):
        before = self._block[0]
        cell = genuine(self, encoding, index, span, data)
        decoded.append(self._block[0] != before)
        return cell

    monkeypatch.setattr(recoding.Blocks, "cell", counting)
    cube.virtual.to_kerchunk(heterogeneous="materialise")
    assert len(decoded) == 16
    assert sum(decoded) == 4


@pytest.mark.parametrize("size", [1, 200, 1 << 20])
def test_the_size_of_batches_changes_nothing(tmp_path, monkeypatch, size):
    monkeypatch.setattr(recoding, "BATCH_BYTES", size)
    paths = archive(tmp_path, ARCHIVES["chunk shape"])
    found = by_icechunk(combined(paths), tmp_path)
    assert_same_bits(found, by_xarray(paths, combine="nested", concat_dim="time"), ["v"])


def test_refusals_say_what_materialising_takes(tmp_path):
    cube = combined(archive(tmp_path, ARCHIVES["compression"]))
    message = (
        r"'v' decode in 2 ways .*heterogeneous='materialise', which reads 12 of its 36 chunks \(1,152 bytes\) and "
        r"stores them anew \(1,152 bytes before compression\) as <ChunkEncoding <f4 .*shuffle.*; or "
        r"heterogeneous='split', which reads nothing and writes 2 groups along 'time'"
    )
    with pytest.raises(UnsupportedFeatureError, match=message):
        cube.virtual.to_kerchunk()
    session = repository(tmp_path).writable_session("main")
    with pytest.raises(UnsupportedFeatureError, match=message):
        cube.virtual.to_icechunk(session.store)
    assert not session.has_uncommitted_changes
    with pytest.raises(UnsupportedFeatureError, match="'merge' is none of 'error', 'materialise', 'split'"):
        cube.virtual.to_kerchunk(heterogeneous="merge")


REFUSED: dict[str, tuple[type[VirtualChunksError], str]] = {
    "changed": (SourceChangedError, r"2\.nc"),
    "not granted": (NotGrantedError, r"2\.nc"),
    "too much": (LimitExceededError, r"'v' reads 12 of its 36 chunks.*more than the 100 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_targets_are_untouched_by_what_fails(tmp_path, monkeypatch, case):
    paths = archive(tmp_path, ARCHIVES["compression"])
    cube = combined(paths)
    group = vc.ManifestGroup({"v": references_of(cube["v"])})
    registry = vc.ObjectStoreRegistry().grant(*paths[: 2 if case == "not granted" else 3])
    if case == "changed":
        write(paths[2], 9, "f4", 5, (2, 4, 3), {})
    if case == "too much":
        monkeypatch.setattr("virtualchunks.writers.icechunk.write.MOST_ENCODED_BYTES", 100)
        monkeypatch.setattr("virtualchunks.writers.kerchunk.references.MOST_ENCODED_BYTES", 100)
        monkeypatch.setattr("virtualchunks.writers.kerchunk.references.MOST_SIDE_BYTES", 100)
    options: dict[str, Any] = {"heterogeneous": "materialise", "registry": registry}
    kind, message = REFUSED[case]
    session = repository(tmp_path).writable_session("main")
    (tmp_path / "refs.json").write_text("before")
    for attempt in (
        lambda: write_icechunk(group, session.store, **options),
        lambda: write_json(group, tmp_path / "refs.json", **options),
        lambda: write_parquet(group, tmp_path / "refs.parquet", **options),
        lambda: to_references(group, **options),
    ):
        with pytest.raises(kind, match=message) as caught:
            attempt()
        assert caught.value.variable == "v"
    assert not session.has_uncommitted_changes
    assert (tmp_path / "refs.json").read_text() == "before"
    assert not (tmp_path / "refs.parquet").exists()


def in_memory(values: Any, codecs: list[dict[str, Any]], chunk: int = 2) -> vc.ManifestArray:
    metadata = vc.ArrayMetadata.build(
        shape=values.shape, chunks=(chunk,), dtype=values.dtype, codecs=codecs, dimension_names=["x"]
    )
    return vc.ManifestArray(metadata, encode_array(values, metadata))


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}


def test_codecs_that_lose_something_are_refused():
    rounding = {
        "name": "numcodecs.fixedscaleoffset",
        "configuration": {"scale": 1, "offset": 0, "dtype": "<f8", "astype": "<i2"},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lossy = in_memory(np.arange(6.0), [rounding, {"name": "bytes", "configuration": {"endian": "little"}}])
        mixed = np.concatenate([lossy, in_memory(np.array([0.25, 1.0]), [BYTES])])
        with pytest.raises(UnsupportedFeatureError, match=r"'v' do not survive being encoded"):
            to_references(vc.ManifestGroup({"v": mixed}), heterogeneous="materialise")
        exact = np.concatenate([lossy, in_memory(np.array([2.0, 1.0]), [BYTES])])
        assert to_references(vc.ManifestGroup({"v": exact}), heterogeneous="materialise")


def test_where_most_chunks_have_a_codec_that_only_decodes_the_others_decide():
    strided = {"name": "virtualchunks.strided", "configuration": {"width": 4, "stride": 8, "count": 2}}
    metadata = vc.ArrayMetadata.build(shape=(6,), chunks=(2,), dtype="<i4", dimension_names=["x"])
    encoding = ChunkEncoding(np.dtype("<i4"), (BYTES, strided))
    buffers = [np.array([one, 99, two], "<i4").tobytes() for one, two in ((0, 1), (2, 3), (4, 5))]
    odd = vc.ManifestArray(metadata.replace(encoding=encoding), vc.ChunkManifest.of_buffers(buffers, (3,)))
    np.testing.assert_array_equal(read_values(odd, vc.ObjectStoreRegistry()), range(6))
    mixed = np.concatenate([odd, in_memory(np.array([7, 8], "i4"), [BYTES, ZSTD])])
    refs = to_references(vc.ManifestGroup({"v": mixed}), zarr_format=3, heterogeneous="materialise")
    store = xr.open_zarr("reference://", storage_options={"fo": refs}, zarr_format=3, consolidated=False, chunks=None)
    np.testing.assert_array_equal(store["v"], [0, 1, 2, 3, 4, 5, 7, 8])


def test_missing_chunks_stay_missing():
    one = in_memory(np.arange(4, dtype="i4"), [BYTES, ZSTD])
    gap = one.with_fill_value_only()
    mixed = np.concatenate([one, gap, in_memory(np.arange(2, dtype="i4"), [BYTES])])
    refs = to_references(vc.ManifestGroup({"v": mixed}), zarr_format=3, heterogeneous="materialise")["refs"]
    assert sorted(key for key in refs if "/c/" in key) == ["v/c/0", "v/c/1", "v/c/4"]


def test_scalars_and_what_is_alike_are_left_alone():
    group = vc.ManifestGroup({"v": in_memory(np.arange(4, dtype="i4"), [BYTES, ZSTD])})
    assert to_references(group, heterogeneous="materialise") == to_references(group)
    repeated = np.concatenate([group.arrays["v"], in_memory(np.arange(2, dtype="i4"), [BYTES])])
    assert not repeated[:4].is_heterogeneous
    assert to_references(vc.ManifestGroup({"v": repeated[4:]}), heterogeneous="materialise")


def test_what_is_added_to_an_icechunk_store_follows_it(tmp_path):
    how = [("f4", 6, (2, 4, 3), SHUFFLED), ("f4", 6, (2, 4, 3), {})]
    paths = archive(tmp_path, how)
    first, second = (vc.open_virtual_dataset(path) for path in paths)
    repo = repository(tmp_path)
    commit(repo, first)
    registry = vc.ObjectStoreRegistry().grant(*paths)
    with pytest.raises(VirtualChunksError, match="'v'"):
        commit(repo, second, append_dim="time")
    commit(repo, second, append_dim="time", heterogeneous="materialise", registry=registry)
    assert_same_bits(opened(repo), by_xarray(paths, combine="nested", concat_dim="time"), ["v"])
    again = repository(tmp_path)
    write_many(again, [first, second], append_dim="time", heterogeneous="materialise", registry=registry)
    assert_same_bits(opened(again), by_xarray(paths, combine="nested", concat_dim="time"), ["v"])


def test_containers_are_known_of_arrays_that_must_be_materialised(tmp_path):
    cube = combined(archive(tmp_path, ARCHIVES["compression"]))
    assert required_containers(cube) == [tmp_path.as_uri() + "/"]


@pytest.mark.parametrize("drift", DRIFTS)
def test_packing_undoes_lifting(drift):
    for dtype, attributes in DRIFTS[drift]:
        stored = np.arange(-7 if np.dtype(dtype).kind != "u" else 0, 50).astype(dtype).astype(dtype.strip("<>"))
        packing = Packing.of(attributes, stored.dtype)
        if packing is None:
            continue
        values = packing.lift(stored)
        packed = packing.pack(values)
        assert packed is not None
        assert packed.dtype == stored.dtype
        np.testing.assert_array_equal(packing.lift(packed), values)
        if values.dtype.kind == "f" and packing.stored.kind in "iu":
            assert packing.pack(values + values.dtype.type(1e-3)) is None
            assert packing.pack(np.array([1e9, np.inf, -0.0], values.dtype)) is None


def parts_of_icechunk(cube: xr.Dataset, folder: Path) -> list[xr.Dataset]:
    repo = repository(folder)
    session = repo.writable_session("main")
    cube.virtual.to_icechunk(session.store, heterogeneous="split")
    session.commit("references")
    group = zarr.open_group(repo.readonly_session("main").store, mode="r")
    return [opened(repo, group=name) for name in sorted(group.group_keys())]


def parts_of_json(cube: xr.Dataset, folder: Path) -> list[xr.Dataset]:
    path = folder / "refs.json"
    cube.virtual.to_kerchunk(path, format="json", heterogeneous="split")
    groups = [group for group in ("part_0", "part_1", "part_2") if f'"{group}/.zgroup"' in path.read_text()]
    return [xr.open_dataset(str(path), engine="kerchunk", group=group).load() for group in groups]


PARTS = {"icechunk": parts_of_icechunk, "json": parts_of_json}
#: Into how many parts archives are cut.
SPLIT = {"compression": 2, "byte order": 2, "byte order, compressed": 2, "dtype": 3, "dtype of no file": 2}


@pytest.mark.parametrize("target", PARTS)
@pytest.mark.parametrize("case", SPLIT)
def test_parts_join_to_the_values_of_xarray(tmp_path, case, target):
    paths = archive(tmp_path, ARCHIVES[case])
    parts = PARTS[target](combined(paths), tmp_path)
    assert len(parts) == SPLIT[case]
    joined = xr.concat(parts, "time", data_vars="minimal", coords="minimal", compat="override", join="exact")
    expected = by_xarray(paths, combine="nested", concat_dim="time")
    assert_same_bits(joined, expected, ["v"])
    xr.testing.assert_equal(joined["time"], expected["time"])


@pytest.mark.parametrize("drift", sorted(set(DRIFTS) - {"packed alike"}))
@pytest.mark.filterwarnings("ignore:variable:xarray.SerializationWarning")
def test_every_packing_has_a_part(tmp_path, drift):
    files = DRIFTS[drift]
    paths = [write_packed(tmp_path / f"{number}.nc", number, *file) for number, file in enumerate(files)]
    parts = parts_of_json(vc.open_virtual_mfdataset(paths)[["v"]], tmp_path)
    joined = xr.concat(parts, "time", data_vars="minimal", coords="minimal", compat="override", join="exact")
    expected = by_xarray(paths)["v"]
    np.testing.assert_allclose(joined["v"].values, expected.values, rtol=1e-6)
    if not any(isinstance(value, np.float32) for _, attributes in files for value in attributes.values()):
        assert_same_bits(joined, by_xarray(paths), ["v"])


def test_what_cannot_be_split_is_refused_by_name(tmp_path):
    paths = archive(tmp_path, ARCHIVES["compression"])
    first, third = (vc.open_virtual_dataset(paths[number]) for number in (0, 2))
    repo = repository(tmp_path)
    commit(repo, first)
    with pytest.raises(UnsupportedFeatureError, match="nothing can be added"):
        commit(repo, third, append_dim="time", heterogeneous="split")
    with h5py.File(tmp_path / "mask.nc", "w") as file:
        made = file.create_dataset("v", data=np.arange(16, dtype="i4").reshape(4, 4), chunks=(2, 2), **SHUFFLED)
        made.id.write_direct_chunk((0, 0), np.arange(4, dtype="i4").tobytes(), filter_mask=3)
        made.id.write_direct_chunk((2, 2), np.arange(4, dtype="i4").tobytes(), filter_mask=3)
    masked = vc.open_virtual_dataset(tmp_path / "mask.nc")
    with pytest.raises(UnsupportedFeatureError, match=r"'v' decode in several ways that do not follow each other"):
        masked.virtual.to_kerchunk(heterogeneous="split")
    with pytest.raises(UnsupportedFeatureError, match=r"reads 2 of its 4 chunks[^;]*$"):
        masked.virtual.to_kerchunk()
    mixed = references_of(combined(paths)["v"])
    tree = vc.ManifestGroup({"v": mixed}, {"g": vc.ManifestGroup()})
    with pytest.raises(UnsupportedFeatureError, match="groups below it"):
        to_references(tree, heterogeneous="split")
    tree = vc.ManifestGroup({"w": mixed.with_fill_value_only()}, {"g": vc.ManifestGroup({"v": mixed})})
    with pytest.raises(UnsupportedFeatureError, match=r"'/g' cannot be split along 'time'.*groups above"):
        to_references(tree, heterogeneous="split")
    tree = vc.ManifestGroup({}, {"g": vc.ManifestGroup({"v": mixed})})
    refs = to_references(tree, heterogeneous="split")["refs"]
    assert {key for key in refs if key.endswith(".zarray")} == {"g/part_0/v/.zarray", "g/part_1/v/.zarray"}


@pytest.mark.parametrize(
    ("dtype", "scale", "exact"), [("i2", 0.1, True), ("i2", 0.2, True), ("i4", 0.1, True), ("i2", 0.3, False)]
)
def test_what_is_added_is_packed_as_the_stored_array_is(tmp_path, dtype, scale, exact):
    how = [("i2", {"scale_factor": 0.1}), (dtype, {"scale_factor": scale})]
    paths = [write_packed(tmp_path / f"{number}.nc", number, *file) for number, file in enumerate(how)]
    first, second = (vc.open_virtual_dataset(path)[["v"]] for path in paths)
    repo, folder = repository(tmp_path), tmp_path / "refs.parquet"
    commit(repo, first)
    write_kerchunk(first, folder, "parquet")
    options = {"heterogeneous": "materialise", "registry": vc.ObjectStoreRegistry().grant(*paths)}
    if not exact:
        with pytest.raises(UnsupportedFeatureError, match=r"'v' are packed in several ways"):
            commit(repo, second, append_dim="time", **options)
        with pytest.raises(UnsupportedFeatureError, match=r"'v' are packed in several ways"):
            write_kerchunk(second, folder, "parquet", append_dim="time", **options)
        return
    commit(repo, second, append_dim="time", **options)
    assert_same_bits(opened(repo), by_xarray(paths), ["v"])
    write_kerchunk(second, folder, "parquet", append_dim="time", **options)
    with xr.open_dataset(str(folder), engine="kerchunk", storage_options={"remote_protocol": "file"}) as found:
        assert_same_bits(found, by_xarray(paths), ["v"])


@pytest.mark.parametrize("case", ["compression", "byte order", "dtype"])
def test_what_is_appended_to_references_is_encoded_as_the_stored_array_is(tmp_path, case):
    files = {"dtype": [("f8", 6, (2, 4, 3), ZLIB), ("f4", 6, (2, 4, 3), SHUFFLED)]}
    paths = archive(tmp_path, files.get(case) or ARCHIVES[case][1:])
    first, second = (vc.open_virtual_dataset(path) for path in paths)
    write_kerchunk(first, tmp_path / "refs.parquet", "parquet")
    with pytest.raises(CombineError, match=r"'v' does not continue.*'materialise'.*which reads its"):
        write_kerchunk(second, tmp_path / "refs.parquet", "parquet", append_dim="time")
    options = {"heterogeneous": "materialise", "registry": vc.ObjectStoreRegistry().grant(*paths)}
    write_kerchunk(second, tmp_path / "refs.parquet", "parquet", append_dim="time", **options)
    found = xr.open_dataset(
        str(tmp_path / "refs.parquet"), engine="kerchunk", storage_options={"remote_protocol": "file"}
    )
    with found:
        assert_same_bits(found, by_xarray(paths), ["v"])
