"""What is written to Icechunk comes back record by record; only stamps do not: Icechunk does not give them out."""

from __future__ import annotations

import icechunk
import numpy as np
import pytest
import zarr
from icechunkrepos import GZIP, numbers, on_disk
from zarrstores import assert_same, values_of, zarr_values

from virtualchunks import ArrayMetadata, ManifestArray, ManifestGroup, ObjectStoreRegistry
from virtualchunks.inline import encode_array
from virtualchunks.urls import as_url
from virtualchunks.writers.datasets import in_memory_array
from virtualchunks.writers.icechunk import write_icechunk
from virtualchunks_parsers.icechunk import IcechunkParser


@pytest.fixture(autouse=True)
def quiet():
    icechunk.set_logs_filter("error")


def written(group: ManifestGroup, repo: icechunk.Repository, **options) -> icechunk.Session:
    session = repo.writable_session("main")
    write_icechunk(group, session.store, **options)
    session.commit("references")
    return repo.readonly_session("main")


def entries(group: ManifestGroup) -> dict[str, dict]:
    return {path: array.manifest.dict() for path, array in group.walk_arrays()}


def text(values: list[str]) -> ManifestArray:
    return in_memory_array(np.array(values, dtype=np.dtypes.StringDType()), ("x",), {"ü": "ä"})


KINDS = {
    "missing": lambda folder: on_disk(folder / "v.bin", numbers((6, 4)), (2, 2), drop=(0, 3), fill=-7),
    "all missing": lambda folder: on_disk(folder / "v.bin", numbers((4, 4)), (2, 2), drop=(0, 1, 2, 3), fill=-7),
    "in memory": lambda folder: on_disk(folder / "v.bin", numbers((6, 4)), (2, 2), memory=(1, 5), compressors=(GZIP,)),
    "scalar": lambda folder: on_disk(folder / "v.bin", np.array(3, "<i8"), ()),
    "zero length": lambda folder: on_disk(folder / "v.bin", numbers((0, 3)), (1, 3)),
    "unequal chunks": lambda folder: on_disk(folder / "v.bin", numbers((9, 4)), ((4, 2, 3), 3), memory=(1,)),
    "chunks beyond the end": lambda folder: on_disk(folder / "v.bin", numbers((7, 5)), (3, 4)),
    "big-endian": lambda folder: on_disk(folder / "v.bin", numbers((4, 4)), (2, 2), stored=">i4"),
    "text": lambda folder: text(["a", "", "ünï"]),
}
FILLS = ["?", "i1", "u8", "f2", "<f4", "<f8", "c8", "c16", "U3", "S2", "M8[ns]", "m8[s]"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_records_and_values(tmp_path, kind):
    group = ManifestGroup({"v": KINDS[kind](tmp_path)}, {"g": ManifestGroup({"w": KINDS[kind](tmp_path)})})
    registry = ObjectStoreRegistry({str(tmp_path): None})
    config = icechunk.RepositoryConfig.default()
    for container in registry.icechunk_containers():
        config.set_virtual_chunk_container(container)
    access = registry.icechunk_credentials()
    repo = icechunk.Repository.create(icechunk.in_memory_storage(), config, authorize_virtual_chunk_access=access)
    session = written(group, repo)
    store = IcechunkParser(strict=True).from_storage(session, registry=registry)
    assert entries(store.group) == entries(group)
    for path, array in group.walk_arrays():
        assert store.group[path].metadata == array.metadata
    with zarr.config.set({"array.rectilinear_chunks": True}):
        assert_same(values_of(store), zarr_values(session.store))


def test_native_chunks_of_the_repository(tmp_path):
    group = ManifestGroup({"v": in_memory_array(np.arange(5000.0), ("x",), {})})
    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    session = written(group, repo)
    found = IcechunkParser(strict=True)(str(tmp_path / "repo"))
    (entry,) = found.group["v"].manifest.values()
    assert entry["path"].startswith(as_url(tmp_path / "repo" / "chunks"))
    assert_same(values_of(found), zarr_values(session.store))
    other = icechunk.Repository.create(icechunk.in_memory_storage())
    written(found.group, other, validate_containers=False)
    again = IcechunkParser(strict=True).from_storage(other)
    assert entries(again.group) == entries(found.group)


NAMES = ["a b.nc", "a#b.nc", "a?b.nc", "a%b.nc", "a+b.nc", "ü/é.nc", "a%20b.nc", "=&;@:,!$'()*~[].nc"]


def test_names_of_files_and_large_numbers(tmp_path):
    metadata = ArrayMetadata.build(shape=(len(NAMES),), chunks=(1,), dtype="u1", dimension_names=["x"])
    chunks = {
        str(number): {"path": str(tmp_path / name), "offset": 2**40 + number, "length": 2**33 + number}
        for number, name in enumerate(NAMES)
    }
    group = ManifestGroup({"v": ManifestArray(metadata, chunks)})
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    session = written(group, repo, validate_containers=False)
    assert entries(IcechunkParser(strict=True).from_storage(session).group) == entries(group)


@pytest.mark.parametrize("dtype", FILLS)
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_fill_values_of_every_dtype(dtype):
    values = np.arange(3).astype(dtype) if np.dtype(dtype).kind not in "mM" else np.arange(3).astype("i8").astype(dtype)
    metadata = ArrayMetadata.build(
        shape=(3,), chunks=(1,), dtype=dtype, dimension_names=["x"], fill_value=values[1], attributes={"n": 1}
    )
    one = ManifestArray(metadata, encode_array(values, metadata))
    holes = one.with_fill_value_only(values[1])
    group = ManifestGroup({"v": one, "holes": holes}, attributes={"title": "ünï"})
    session = written(group, icechunk.Repository.create(icechunk.in_memory_storage()))
    store = IcechunkParser(strict=True).from_storage(session)
    assert entries(store.group) == entries(group)
    assert store.group["v"].metadata == one.metadata
    assert dict(store.group.attributes) == {"title": "ünï"}
    assert_same(values_of(store), zarr_values(session.store))


def test_the_splitting_of_manifests_is_the_repositorys_own(tmp_path):
    condition = {icechunk.ManifestSplitCondition.AnyArray(): {icechunk.ManifestSplitDimCondition.Any(): 2}}
    splitting = icechunk.ManifestSplittingConfig.from_dict(condition)
    counts = []
    for chosen in (None, icechunk.ManifestConfig(splitting=splitting)):
        config = icechunk.RepositoryConfig.default()
        if chosen is not None:
            config.manifest = chosen
        repo = icechunk.Repository.create(icechunk.in_memory_storage(), config)
        group = ManifestGroup({"v": on_disk(tmp_path / "v.bin", numbers((12, 2)), (1, 2), dims=("t", "x"))})
        session = written(group, repo, validate_containers=False)
        counts.append([info.num_chunk_refs for info in repo.list_manifest_files(session.snapshot_id)])
        assert entries(IcechunkParser().from_storage(session).group) == entries(group)
    assert counts == [[12], [2] * 6]
