"""Lance datasets of references: Lance itself reads the chunks, every write is a version, and appending is atomic."""

import lance
import numpy as np
import pytest
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
from virtualchunks.inline import encode_array
from virtualchunks.urls import quote_path
from virtualchunks.writers.tables import from_lance, to_lance

NAMES = ("plain.bin", "a b.bin", "a#b.bin", "a%20b.bin", "a+b.bin", "äö 日本.bin", "a?b.bin")


def on_disk(folder, name="a.bin", start=0, days=4):
    """Return an array of one chunk a day in a file of its own, and the bytes of its chunks."""
    values = (np.arange(days * 3, dtype="<i4") + start).reshape(days, 3)
    (folder / name).write_bytes(b"head" + values.tobytes())
    metadata = vc.ArrayMetadata.build(shape=(days, 3), chunks=(1, 3), dtype="<i4", dimension_names=("time", "x"))
    entries = {f"{day}.0": {"path": str(folder / name), "offset": 4 + 12 * day, "length": 12} for day in range(days)}
    return vc.ManifestArray(metadata, entries), [row.tobytes() for row in values]


def blobs(dataset):
    """Return what Lance reads, row by row."""
    return [blob.readall() for blob in dataset.take_blobs("chunk", indices=list(range(dataset.count_rows())))]


class TestBlobs:
    @pytest.mark.parametrize("name", NAMES)
    def test_lance_reads_the_bytes_of_chunks_by_itself(self, tmp_path, name):
        array, expected = on_disk(tmp_path, name)
        to_lance(vc.ManifestGroup({"v": array}), tmp_path / "refs.lance")
        dataset = lance.dataset(str(tmp_path / "refs.lance"))
        assert blobs(dataset) == expected

    def test_chunks_in_memory_are_blobs_too(self, tmp_path):
        to_lance(vc.ManifestGroup({"v": held(np.arange(4, dtype="<i2"))}), tmp_path / "refs.lance")
        found = blobs(lance.dataset(str(tmp_path / "refs.lance")))
        assert b"".join(found) == np.arange(4, dtype="<i2").tobytes()

    def test_objects_that_lance_does_not_read_have_no_blob(self, tmp_path):
        array = cube().rename_paths("https://example.org/a.nc")
        to_lance(vc.ManifestGroup({"v": array}), tmp_path / "refs.lance")
        table = lance.dataset(str(tmp_path / "refs.lance")).to_table()
        assert table["chunk"].null_count == 8
        assert from_lance(tmp_path / "refs.lance")["v"].manifest == array.manifest

    def test_lance_finds_rows(self, tmp_path):
        to_lance(tree(), tmp_path / "refs.lance")
        found = lance.dataset(str(tmp_path / "refs.lance")).to_table(
            columns=["path", "offset"], filter="array = 'air' AND i0 = 2 AND i1 = 1"
        )
        assert found.to_pylist() == [{"path": "s3://bucket/archive/1%20a.nc", "offset": 2100}]


class TestS3:
    @pytest.fixture
    def options(self, monkeypatch):
        """Serve a bucket by moto, and return how to reach it; Lance reads blobs with what the environment says."""
        server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        boto3 = pytest.importorskip("boto3")
        server.start()
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="bucket")
        for number, name in enumerate(NAMES):
            client.put_object(Bucket="bucket", Key=name, Body=bytes([number]) * 8 + b"tail")
        client.close()
        options = {**keys, "aws_endpoint": endpoint, "aws_region": "us-east-1", "aws_allow_http": "true"}
        for name, value in options.items():
            monkeypatch.setenv(name.upper(), value)
        yield options
        server.stop()

    def test_lance_reads_objects_of_any_name(self, options):
        metadata = vc.ArrayMetadata.build(shape=(len(NAMES),), chunks=(1,), dtype="<u8", dimension_names=("x",))
        entries = {
            str(number): {"path": f"s3://bucket/{quote_path(name)}", "offset": 0, "length": 8}
            for number, name in enumerate(NAMES)
        }
        group = vc.ManifestGroup({"v": vc.ManifestArray(metadata, entries)})
        to_lance(group, "s3://bucket/refs.lance", storage_options=options)
        assert from_lance("s3://bucket/refs.lance", storage_options=options) == group
        dataset = lance.dataset("s3://bucket/refs.lance", storage_options=options)
        assert blobs(dataset) == [bytes([number]) * 8 for number in range(len(NAMES))]


class TestVersions:
    def test_each_write_is_a_version(self, tmp_path):
        path = tmp_path / "refs.lance"
        assert to_lance(tree(), path) == 1
        with pytest.raises(TargetExistsError, match="mode='w' for a new version"):
            to_lance(tree(), path)
        assert to_lance(vc.ManifestGroup({"v": cube()}), path, mode="w") == 2
        assert from_lance(path) == vc.ManifestGroup({"v": cube()})
        assert from_lance(path, version=1) == tree()
        with pytest.raises(SourceUnavailableError, match="with the version 3"):
            from_lance(path, version=3)

    def test_a_tag_names_a_version(self, tmp_path):
        to_lance(tree(), tmp_path / "refs.lance")
        lance.dataset(str(tmp_path / "refs.lance")).tags.create("first", 1)
        to_lance(vc.ManifestGroup(), tmp_path / "refs.lance", mode="w")
        assert from_lance(tmp_path / "refs.lance", version="first") == tree()

    def test_appending_writes_the_new_rows(self, tmp_path):
        path = tmp_path / "refs.lance"
        one, first = on_disk(tmp_path, "a.bin")
        two, second = on_disk(tmp_path, "b.bin", 100, days=2)
        fixed = vc.ManifestGroup({"x": held(np.arange(3, dtype="<i2"))}).arrays["x"].rename_paths(str)
        fixed = vc.ManifestArray(fixed.metadata.replace(dimension_names=("x",)), fixed.manifest)
        to_lance(vc.ManifestGroup({"v": one, "x": fixed}), path)
        assert to_lance(vc.ManifestGroup({"v": two}), path, mode="a", append_dim="time") == 2
        dataset = lance.dataset(str(path))
        assert [len(fragment.data_files()) for fragment in dataset.get_fragments()] == [1, 1]
        assert dataset.get_fragments()[1].count_rows() == 2
        assert blobs(dataset)[:4] == first
        assert blobs(dataset)[-2:] == second
        found = from_lance(path)
        assert found["v"] is not None
        assert found == vc.ManifestGroup({"v": np.concatenate([one, two]), "x": fixed})
        assert from_lance(path, version=1)["v"].manifest == one.manifest

    def test_appending_in_groups_and_to_chunks_in_memory(self, tmp_path):
        path = tmp_path / "refs.lance"
        parts = [
            vc.ManifestGroup(groups={"g": vc.ManifestGroup({"air": cube(4, start=start), "time": held(values)})})
            for start, values in ((0, np.arange(4.0)), (9, np.arange(4.0, 8.0)))
        ]
        to_lance(parts[0], path)
        to_lance(parts[1], path, mode="a", append_dim="time")
        found = from_lance(path)["g"]
        for name in ("air", "time"):
            joined = np.concatenate([part["g"][name] for part in parts])
            assert found[name].manifest == joined.manifest
            assert found[name].metadata == joined.metadata

    def test_appending_chunks_all_of_which_are_missing(self, tmp_path):
        none = vc.ManifestArray(cube().metadata, vc.ChunkManifest.missing((4, 2)))
        parts = [vc.ManifestGroup({"v": array}) for array in (cube(), none, cube())]
        for group, options in zip(parts, ({}, *[{"mode": "a", "append_dim": "time"}] * 2), strict=True):
            to_lance(group, tmp_path / "refs.lance", **options)
        found = from_lance(tmp_path / "refs.lance")["v"]
        assert found.manifest.present[:, 0].tolist() == [True] * 4 + [False] * 4 + [True] * 4

    def test_what_changes_the_rows_that_are_there_rewrites_them(self, tmp_path):
        path = tmp_path / "refs.lance"
        one, first = on_disk(tmp_path, "a.bin")
        other = one.metadata.replace(encoding=vc.ChunkEncoding.plain(">i4"))
        to_lance(vc.ManifestGroup({"v": one}), path)
        to_lance(vc.ManifestGroup({"v": vc.ManifestArray(other, one.manifest)}), path, mode="a", append_dim="time")
        found = from_lance(path)["v"]
        assert found.manifest == np.concatenate([one, vc.ManifestArray(other, one.manifest)]).manifest
        assert blobs(lance.dataset(str(path))) == first * 2
        assert from_lance(path, version=1) == vc.ManifestGroup({"v": one})

    def test_several_encodings_keep_their_numbers(self, tmp_path):
        path = tmp_path / "refs.lance"
        one, _ = on_disk(tmp_path, "a.bin")
        kinds = [
            vc.ManifestArray(one.metadata.replace(encoding=encoding), one.manifest)
            for encoding in (
                vc.ChunkEncoding.plain("<i4"),
                vc.ChunkEncoding.plain(">i4"),
                vc.ChunkEncoding.plain("<i4", [{"name": "gzip", "configuration": {"level": 1}}]),
            )
        ]
        to_lance(vc.ManifestGroup({"v": np.concatenate(kinds[:2])}), path)
        for number in (2, 1):
            to_lance(vc.ManifestGroup({"v": kinds[number]}), path, mode="a", append_dim="time")
        assert lance.dataset(str(path)).get_fragments()[-1].count_rows() == 4
        whole = np.concatenate([kinds[0], kinds[1], kinds[2], kinds[1]])
        assert from_lance(path)["v"].manifest == whole.manifest

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (lambda one: {"w": one}, "'w' is to be appended, and there is no such array"),
            (lambda one: {}, "'v' has the dimension 'time' and nothing to append"),
            (lambda one: {"v": held(np.arange(4.0))}, "'v' cannot be appended"),
        ],
    )
    def test_what_does_not_fit_leaves_the_dataset_alone(self, tmp_path, more, message):
        one, _ = on_disk(tmp_path)
        to_lance(vc.ManifestGroup({"v": one}), tmp_path / "refs.lance")
        with pytest.raises(CombineError, match=message):
            to_lance(vc.ManifestGroup(more(one)), tmp_path / "refs.lance", mode="a", append_dim="time")
        with pytest.raises(CombineError, match="no array there has the dimension 'day'"):
            to_lance(vc.ManifestGroup(more(one)), tmp_path / "refs.lance", mode="a", append_dim="day")
        assert lance.dataset(str(tmp_path / "refs.lance")).version == 1

    def test_two_writers_at_once(self, tmp_path, monkeypatch):
        one, _ = on_disk(tmp_path)
        path = tmp_path / "refs.lance"
        to_lance(vc.ManifestGroup({"v": one}), path)
        own = lance.fragment.write_fragments

        def with_another(*args, **kwargs):
            made = own(*args, **kwargs)
            monkeypatch.setattr(lance.fragment, "write_fragments", own)
            to_lance(vc.ManifestGroup({"v": one}), path, mode="a", append_dim="time")
            return made

        monkeypatch.setattr(lance.fragment, "write_fragments", with_another)
        with pytest.raises(WriteError, match="it is as it was"):
            to_lance(vc.ManifestGroup({"v": one}), path, mode="a", append_dim="time")
        assert from_lance(path)["v"].shape == (8, 3)


class TestBadInput:
    @pytest.mark.parametrize("options", [{"mode": "r"}, {"mode": "a"}, {"append_dim": "time"}])
    def test_arguments_that_contradict_each_other(self, tmp_path, options):
        with pytest.raises(UnsupportedFeatureError, match="mode"):
            to_lance(tree(), tmp_path / "refs.lance", **options)
        assert not list(tmp_path.iterdir())

    def test_references_into_memory(self, tmp_path):
        array = cube().rename_paths("memory:///a")
        with pytest.raises(UnsupportedFeatureError, match="memory of this process"):
            to_lance(vc.ManifestGroup({"v": array}), tmp_path / "refs.lance")
        assert not list(tmp_path.iterdir())

    def test_nothing_there(self, tmp_path):
        with pytest.raises(SourceUnavailableError, match="is no Lance dataset"):
            from_lance(tmp_path / "none.lance")
        with pytest.raises(SourceUnavailableError, match="is no Lance dataset"):
            to_lance(tree(), tmp_path / "none.lance", mode="a", append_dim="time")

    def test_a_folder_of_something_else_is_not_taken(self, tmp_path):
        (tmp_path / "refs.lance").mkdir()
        (tmp_path / "refs.lance" / "a.txt").write_text("mine")
        with pytest.raises(TargetExistsError):
            to_lance(tree(), tmp_path / "refs.lance")

    def test_a_dataset_of_something_else(self, tmp_path):
        import pyarrow as pa

        lance.write_dataset(pa.table({"a": [1]}), str(tmp_path / "a.lance"))
        with pytest.raises(FormatError, match=r"without the metadata of a table of references; its columns are .'a'"):
            from_lance(tmp_path / "a.lance")

    def test_the_accessor_has_it(self, tmp_path):
        metadata = vc.ArrayMetadata.build(shape=(2,), chunks=(2,), dtype="<i2", dimension_names=("x",))
        group = vc.ManifestGroup({"v": vc.ManifestArray(metadata, encode_array(np.arange(2, dtype="<i2"), metadata))})
        assert group.to_virtual_dataset(loadable_variables=[]).virtual.to_lance(tmp_path / "refs.lance") == 1
        assert from_lance(tmp_path / "refs.lance")["v"].manifest == group["v"].manifest
