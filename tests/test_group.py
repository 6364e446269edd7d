"""Groups: trees of arrays."""

import pickle

import pytest

import virtualchunks as vc
from virtualchunks.errors import ManifestError


def array(url="s3://1/a.nc"):
    metadata = vc.ArrayMetadata.build(shape=(2,), chunks=(2,), dtype="<i4")
    return vc.ManifestArray(metadata, {"0": {"path": url, "offset": 0, "length": 8}})


def tree():
    inner = vc.ManifestGroup({"b": array()}, attributes={"level": 2})
    return vc.ManifestGroup({"a": array()}, {"g": inner}, {"title": "t"})


def test_members_by_name_and_by_path():
    group = tree()
    assert list(group) == ["a", "g"]
    assert len(group) == 2
    assert group["g/b"] is group.groups["g"].arrays["b"]
    assert group["g"]["b"] is group["/g/b"]
    assert [path for path, _ in group.walk()] == ["", "g"]
    assert [path for path, _ in group.walk_arrays()] == ["a", "g/b"]
    for path in ("x", "a/b", "g/x"):
        with pytest.raises(KeyError):
            group[path]
    assert group.nbytes_virtual == 2 * array().nbytes_virtual


def test_groups_are_values():
    assert tree() == tree()
    assert pickle.loads(pickle.dumps(tree())) == tree()
    assert tree() != vc.ManifestGroup({"a": array("s3://2/b.nc")}, tree().groups, {"title": "t"})
    assert tree() != vc.ManifestGroup(tree().arrays, tree().groups, {"title": "u"})
    with pytest.raises(TypeError):
        tree().arrays["new"] = array()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "zarr.json", "a\\b"])
def test_names_that_zarr_has_not(name):
    with pytest.raises(ManifestError, match="cannot name a member"):
        vc.ManifestGroup({name: array()})


def test_one_name_for_two_members():
    with pytest.raises(ManifestError, match="both an array and a group"):
        vc.ManifestGroup({"a": array()}, {"a": vc.ManifestGroup()})
