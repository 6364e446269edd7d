"""Checking and refreshing sources, with counted requests."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import virtualchunks as vc
from tests.rangeserver import RangeServer
from tests.xarray.conftest import CHUNKS, field
from tests.xarray.toyformat import ToyParser, write_toy
from virtualchunks.errors import CombineError, NotGrantedError
from virtualchunks.verbs import check, refresh


def served(tmp_path: Path, days: tuple[int, ...] = (4, 4, 2)) -> tuple[dict[str, bytes], list[xr.Dataset]]:
    objects, values = {}, []
    for number, count in enumerate(days):
        values.append(field(f"2020-0{number + 1}-01", count, number))
        objects[f"{number}.toy"] = write_toy(tmp_path / f"{number}.toy", values[-1], CHUNKS).read_bytes()
    return objects, values


def cube(server: RangeServer, count: int = 3, **options) -> xr.Dataset:
    registry = {server.root: {}}
    parts = [vc.open_virtual_dataset(server.url(f"{n}.toy"), registry, ToyParser(), **options) for n in range(count)]
    return xr.concat(parts, "time", data_vars="minimal", coords="minimal", compat="override", join="override")


def test_check_asks_each_object_once_and_reads_nothing(tmp_path):
    objects, _ = served(tmp_path)
    with RangeServer(objects) as server:
        whole = cube(server)
        server.forget()
        found = whole.virtual.check()
        assert found.ok
        assert found.table["state"] == ["unchanged"] * 3
        assert sorted((request.method, request.key) for request in server.requests) == [
            ("HEAD", f"{n}.toy") for n in range(3)
        ]
        server.objects["0.toy"] += b"more"
        del server.objects["1.toy"]
        found = whole.virtual.check()
        assert not found.ok
        assert found.changed == (server.url("0.toy"),)
        assert found.missing == (server.url("1.toy"),)
        assert not found.unreadable
        assert "size was" in found.table["detail"][0]
        assert "2 not as they were" in str(found)


def test_what_does_not_answer_is_unreadable_and_not_missing(tmp_path):
    objects, _ = served(tmp_path, (2,))
    with RangeServer(objects) as server:
        group = cube(server, 1, loadable_variables=[]).virtual._group()
        server.fail("403")
        found = check(group, {server.root: {"client_options": {"timeout": "2s"}}})
        assert found.unreadable == (server.url("0.toy"),)


def test_check_needs_a_grant(tmp_path):
    objects, _ = served(tmp_path, (2,))
    with RangeServer(objects) as server:
        group = cube(server, 1).virtual._group()
        server.forget()
        with pytest.raises(NotGrantedError):
            check(group, {"https://other.example": {}})
        assert not server.requests


def test_an_object_without_a_stamp_is_unknown(tmp_path):
    objects, _ = served(tmp_path, (2,))
    with RangeServer(objects) as server:
        array = vc.ManifestArray(
            vc.ArrayMetadata.build(shape=(1,), chunks=(1,), dtype="<i2"),
            {"0": {"path": server.url("0.toy"), "offset": 0, "length": 2}},
        )
        found = check(vc.ManifestGroup({"v": array}), {server.root: {}})
        assert found.ok
        assert found.unknown == (server.url("0.toy"),)


def local(tmp_path: Path) -> tuple[list[Path], list[xr.Dataset], xr.Dataset]:
    _, values = served(tmp_path)
    paths = [tmp_path / f"{number}.toy" for number in range(3)]
    parts = [vc.open_virtual_dataset(path, parser=ToyParser()) for path in paths]
    joined = xr.concat(parts, "time", data_vars="minimal", coords="minimal", compat="override", join="override")
    return paths, values, joined


def rewritten(path: Path, dataset: xr.Dataset) -> None:
    write_toy(path.with_suffix(".new"), dataset, CHUNKS)
    os.replace(path.with_suffix(".new"), path)


def test_refresh_takes_new_references_for_the_file_that_changed(tmp_path):
    paths, values, whole = local(tmp_path)
    other = field("2020-02-01", 4, 17)
    rewritten(paths[1], other)
    with pytest.raises(OSError, match="changed: etag was"):
        whole.virtual.open()["air"].values  # noqa: B018
    fresh = whole.virtual.refresh(parser=ToyParser())
    expected = xr.concat([values[0]["air"], other["air"], values[2]["air"]], "time", join="override")
    np.testing.assert_array_equal(fresh.virtual.open()["air"].values, expected.values)
    assert fresh.virtual.check().ok
    untouched = fresh.isel(time=slice(0, 4)).virtual._group(), whole.isel(time=slice(0, 4)).virtual._group()
    assert all(
        mine.manifest == theirs.manifest
        for (_, mine), (_, theirs) in zip(*(group.walk_arrays() for group in untouched), strict=True)
    )


def test_refresh_of_a_part_of_a_stack_of_files(tmp_path):
    values = [field("2020-01-01", 3, seed) for seed in range(2)]
    paths = [write_toy(tmp_path / f"{n}.toy", value, CHUNKS) for n, value in enumerate(values)]
    parts = [vc.open_virtual_dataset(path, parser=ToyParser())[["rain"]].drop_vars("lat") for path in paths]
    members = xr.concat(parts, "member", join="override", compat="override", coords="minimal")
    other = field("2020-01-01", 3, 9)
    rewritten(paths[1], other)
    fresh = members.virtual.refresh(parser=ToyParser(), sources=[str(paths[1])])
    np.testing.assert_array_equal(
        fresh.virtual.open()["rain"].values, np.stack([values[0]["rain"].values, other["rain"].values])
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda old: old.isel(time=slice(0, 3)), "filled 4 elements.*has 3"),
        (lambda old: old.drop_vars("rain"), "no array 'rain' any more"),
        (lambda old: field("2020-02-02", 4, 1), "'time' was loaded"),
        (lambda old: old.assign(air=old["air"].astype("f8")), "had the dtype"),
        (
            lambda old: repacked(old),
            r"'rain' had the encoding .*'scale_factor': 0\.25.*, it has .*'scale_factor': 0\.5",
        ),
    ],
    ids=["shorter", "gone", "labels", "dtype", "packing"],
)
def test_refresh_refuses_what_does_not_fit_and_names_the_file(tmp_path, change, message):
    paths, values, whole = local(tmp_path)
    rewritten(paths[1], change(values[1]))
    with pytest.raises(CombineError, match=message) as caught:
        whole.virtual.refresh(parser=ToyParser())
    assert "1 of 1 files do not fit" in str(caught.value)
    assert paths[1].as_uri() in str(caught.value)


def repacked(old: xr.Dataset) -> xr.Dataset:
    new = old.copy()
    new["rain"].encoding = {**old["rain"].encoding, "scale_factor": 0.5}
    return new


def test_refresh_without_changes_is_the_same(tmp_path):
    _, _, whole = local(tmp_path)
    assert vc.diff(whole, whole.virtual.refresh(parser=ToyParser())).ok


def test_refresh_refuses_files_that_are_gone(tmp_path):
    paths, _, whole = local(tmp_path)
    paths[2].unlink()
    with pytest.raises(CombineError, match="1 files are gone or cannot be read"):
        whole.virtual.refresh(parser=ToyParser())


def test_refresh_of_a_tree_without_xarray(tmp_path):
    paths, values, whole = local(tmp_path)
    group = whole.virtual._group()
    rewritten(paths[0], field("2020-01-01", 4, 5))
    fresh = refresh(group, {str(tmp_path): None}, ToyParser())
    found = group.virtual.diff(fresh)
    assert {name for name, part in found.changed.items() if part.changed.chunks} >= {"air", "rain"}
    assert not found.changed["air"].added.chunks
    assert values
