"""Iceberg tables of references: a snapshot for each write, read back as it was, and refused where it is not whole."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from tabletrees import cube, held, tree

import virtualchunks as vc
from virtualchunks.errors import (
    CombineError,
    FormatError,
    SourceUnavailableError,
    TargetExistsError,
    UnsupportedFeatureError,
    WriteError,
)
from virtualchunks.writers.tables import from_iceberg, iceberg, to_iceberg

NAME = "archive.refs"


@pytest.fixture
def folder(tmp_path):
    to_iceberg(tree(), NAME, tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture
def catalog(folder):
    opened = SqlCatalog("virtualchunks", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
    yield opened
    opened.engine.dispose()


class TestTable:
    def test_any_reader_of_iceberg_can_query_it(self, catalog):
        found = catalog.load_table(NAME).scan("array = 'air' and i0 = 2 and i1 = 1", selected_fields=("path", "offset"))
        assert found.to_arrow().to_pylist() == [{"path": "s3://bucket/archive/1%20a.nc", "offset": 2100}]

    def test_a_catalog_of_the_users_own(self, tmp_path, catalog):
        to_iceberg(vc.ManifestGroup({"air": cube()}), ("archive", "other"), catalog)
        assert from_iceberg("archive.other", catalog) == vc.ManifestGroup({"air": cube()})
        assert catalog.load_table("archive.other").current_snapshot() is not None

    def test_the_metadata_is_in_the_properties(self, catalog):
        properties = catalog.load_table(NAME).properties
        (document,) = (value for name, value in properties.items() if name.startswith("virtualchunks.metadata."))
        assert '"shape": [4, 6]' in document

    def test_the_accessor_has_it(self, tmp_path):
        dataset = vc.ManifestGroup({"air": cube()}).to_virtual_dataset(loadable_variables=[])
        number = dataset.virtual.to_iceberg(NAME, tmp_path)
        assert from_iceberg(NAME, tmp_path, snapshot_id=number)["air"].manifest == cube().manifest


class TestSnapshots:
    def test_modes(self, folder):
        with pytest.raises(TargetExistsError, match="mode='w' for a new snapshot"):
            to_iceberg(vc.ManifestGroup(), NAME, folder)
        assert from_iceberg(NAME, folder) == tree()
        to_iceberg(vc.ManifestGroup({"v": cube()}), NAME, folder, mode="w")
        assert from_iceberg(NAME, folder) == vc.ManifestGroup({"v": cube()})

    def test_time_travel(self, tmp_path):
        trees = [vc.ManifestGroup({"v": held(np.arange(2 * count))}) for count in range(1, 4)]
        numbers = [to_iceberg(trees[0], NAME, tmp_path)]
        numbers += [to_iceberg(made, NAME, tmp_path, mode="w") for made in trees[1:]]
        for number, expected in zip(numbers, trees, strict=True):
            assert from_iceberg(NAME, tmp_path, snapshot_id=number) == expected

    def test_as_of_never_sees_half_of_a_replacement(self, folder, catalog):
        to_iceberg(vc.ManifestGroup({"v": cube(2)}), NAME, folder, mode="w")
        table = catalog.load_table(NAME)
        times = [entry.timestamp_ms for entry in table.history()]
        seen = []
        for moment in range(times[0], times[-1] + 2):
            found = from_iceberg(NAME, catalog, as_of=datetime.fromtimestamp(moment / 1000 + 1e-4, UTC))
            seen.append({frozenset(tree()): 1, frozenset({"v"}): 2}[frozenset(found)])
            assert found in (tree(), vc.ManifestGroup({"v": cube(2)}))
        assert seen == sorted(seen)
        assert seen[-1] == 2
        half = next(snapshot for snapshot in table.snapshots() if snapshot.summary["total-records"] == "0")
        with pytest.raises(FormatError, match="half of one that replaced all rows"):
            from_iceberg(NAME, folder, snapshot_id=half.snapshot_id)

    def test_as_of_a_time_before_all(self, folder):
        with pytest.raises(SourceUnavailableError, match="has no snapshot as of"):
            from_iceberg(NAME, folder, as_of=datetime.now(UTC) - timedelta(days=9000))
        with pytest.raises(UnsupportedFeatureError, match="no time zone"):
            from_iceberg(NAME, folder, as_of=datetime(2026, 1, 1))
        with pytest.raises(UnsupportedFeatureError, match="not both"):
            from_iceberg(NAME, folder, as_of=datetime.now(UTC), snapshot_id=1)

    def test_appending_writes_the_new_rows(self, tmp_path):
        parts = [
            vc.ManifestGroup(groups={"g": vc.ManifestGroup({"air": cube(4, start=start), "time": held(values)})})
            for start, values in ((0, np.arange(4.0)), (9, np.arange(4.0, 8.0)))
        ]
        first = to_iceberg(parts[0], NAME, tmp_path)
        to_iceberg(parts[1], NAME, tmp_path, mode="a", append_dim="time")
        found = from_iceberg(NAME, tmp_path)["g"]
        for name in ("air", "time"):
            joined = np.concatenate([part["g"][name] for part in parts])
            assert found[name].manifest == joined.manifest
            assert found[name].metadata == joined.metadata
        assert from_iceberg(NAME, tmp_path, snapshot_id=first) == parts[0]
        with iceberg._opened(tmp_path, create=False) as opened:
            summary = opened.load_table(NAME).current_snapshot().summary
        assert (summary["added-records"], summary["total-records"]) == ("10", "20")

    def test_appending_chunks_all_of_which_are_missing(self, tmp_path):
        none = vc.ManifestArray(cube().metadata, vc.ChunkManifest.missing((4, 2)))
        parts = [vc.ManifestGroup({"v": array}) for array in (cube(), none, cube())]
        for group, options in zip(parts, ({}, *[{"mode": "a", "append_dim": "time"}] * 2), strict=True):
            to_iceberg(group, NAME, tmp_path, **options)
        found = from_iceberg(NAME, tmp_path)["v"]
        assert found.manifest.present[:, 0].tolist() == [True] * 4 + [False] * 4 + [True] * 4

    def test_what_changes_the_rows_that_are_there_rewrites_them(self, tmp_path):
        one = cube()
        other = vc.ManifestArray(one.metadata.replace(encoding=vc.ChunkEncoding.plain(">f4")), one.manifest)
        first = to_iceberg(vc.ManifestGroup({"v": one}), NAME, tmp_path)
        to_iceberg(vc.ManifestGroup({"v": other}), NAME, tmp_path, mode="a", append_dim="time")
        assert from_iceberg(NAME, tmp_path)["v"].manifest == np.concatenate([one, other]).manifest
        assert from_iceberg(NAME, tmp_path, snapshot_id=first)["v"].manifest == one.manifest

    def test_arrays_of_more_axes_than_before(self, folder):
        deep = vc.ManifestArray(
            vc.ArrayMetadata.build(shape=(2, 2, 2), chunks=(1, 2, 1), dtype="u1"),
            {f"{i}.0.{k}": {"path": "s3://b/a", "offset": i, "length": 2} for i in range(2) for k in range(2)},
        )
        to_iceberg(vc.ManifestGroup({"v": deep}), NAME, folder, mode="w")
        assert from_iceberg(NAME, folder) == vc.ManifestGroup({"v": deep})
        to_iceberg(vc.ManifestGroup({"v": held(np.arange(2))}), NAME, folder, mode="w")
        assert from_iceberg(NAME, folder) == vc.ManifestGroup({"v": held(np.arange(2))})


class TestBadInput:
    @pytest.mark.parametrize("options", [{"mode": "r"}, {"mode": "a"}, {"append_dim": "time"}])
    def test_arguments_that_contradict_each_other(self, tmp_path, options):
        with pytest.raises(UnsupportedFeatureError, match="mode"):
            to_iceberg(tree(), NAME, tmp_path / "w", **options)
        assert not list(tmp_path.iterdir())

    def test_references_into_memory(self, tmp_path):
        with pytest.raises(UnsupportedFeatureError, match="memory of this process"):
            to_iceberg(vc.ManifestGroup({"v": cube().rename_paths("memory:///a")}), NAME, tmp_path / "w")
        assert not list(tmp_path.iterdir())

    def test_a_name_without_a_namespace(self, tmp_path):
        with pytest.raises(UnsupportedFeatureError, match="no namespace"):
            to_iceberg(tree(), "refs", tmp_path)

    def test_nothing_there(self, tmp_path, folder):
        with pytest.raises(SourceUnavailableError, match="no Iceberg catalog"):
            from_iceberg(NAME, tmp_path / "none")
        for name in ("archive.none", "none.none"):
            with pytest.raises(SourceUnavailableError, match=f"no table {name}"):
                from_iceberg(name, folder)
        with pytest.raises(SourceUnavailableError, match="no snapshot 17"):
            from_iceberg(NAME, folder, snapshot_id=17)
        assert not (tmp_path / "none").exists()

    def test_what_does_not_fit_leaves_the_table_alone(self, folder, catalog):
        before = catalog.load_table(NAME).current_snapshot().snapshot_id
        with pytest.raises(CombineError, match="nothing to append"):
            to_iceberg(vc.ManifestGroup({"air": cube()}), NAME, folder, mode="a", append_dim="time")
        assert catalog.load_table(NAME).current_snapshot().snapshot_id == before

    def test_a_table_of_something_else(self, catalog):
        other = pa.table({"a": [1]})
        catalog.create_table("archive.other", schema=other.schema).append(other)
        with pytest.raises(FormatError, match="was not written by virtualchunks"):
            from_iceberg("archive.other", catalog)
        with pytest.raises(TargetExistsError, match="not one of references"):
            to_iceberg(tree(), "archive.other", catalog, mode="w")

    def test_rows_that_another_program_added(self, folder, catalog):
        table = catalog.load_table(NAME)
        table.append(table.scan().to_arrow().slice(0, 1))
        with pytest.raises(FormatError, match="was not written by virtualchunks"):
            from_iceberg(NAME, folder)

    @pytest.mark.parametrize("mode", ["a", "w"])
    def test_two_writers_at_once(self, tmp_path, monkeypatch, mode):
        one = vc.ManifestGroup({"v": cube()})
        to_iceberg(one, NAME, tmp_path)
        options = {"mode": "a", "append_dim": "time"} if mode == "a" else {"mode": "w"}
        own = iceberg._reader

        def with_another(*args):
            monkeypatch.setattr(iceberg, "_reader", own)
            to_iceberg(one, NAME, tmp_path, mode="a", append_dim="time")
            return own(*args)

        monkeypatch.setattr(iceberg, "_reader", with_another)
        with pytest.raises(WriteError, match="what was there before is untouched"):
            to_iceberg(one, NAME, tmp_path, **options)
        assert from_iceberg(NAME, tmp_path)["v"].shape == (8, 6)
