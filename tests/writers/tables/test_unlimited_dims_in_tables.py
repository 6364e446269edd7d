"""Unlimited dimensions in tables: kept by whatever is done to a tree, and refused where they are no names."""

import json

import pytest

import virtualchunks as vc
from virtualchunks.errors import FormatError
from virtualchunks.testing.forms import PREFIX, references
from virtualchunks.writers.tables import from_arrow, from_lance, from_parquet, to_arrow, to_lance, to_parquet
from virtualchunks.writers.tables.documents import KEY


def tree(url: str = f"{PREFIX}a.nc") -> vc.ManifestGroup:
    inner = vc.ManifestGroup(
        {"v": references(url=url), "w": references((3,), (3,), names=("x",))}, unlimited_dims=["d0"]
    )
    return vc.ManifestGroup({"v": references(url=url)}, {"g": inner}, unlimited_dims=[])


def told(group: vc.ManifestGroup) -> dict[str, object]:
    return {path: node.unlimited_dims for path, node in group.walk()}


EXPECTED = {"": frozenset(), "g": frozenset({"d0"})}


def test_leaving_arrays_out_keeps_them(tmp_path):
    to_parquet(tree(), tmp_path / "a.parquet")
    assert told(from_parquet(tmp_path / "a.parquet", wanted=lambda path: path == "g/w")) == EXPECTED


def test_appending_keeps_them(tmp_path):
    to_lance(tree(), tmp_path / "a.lance")
    to_lance(tree(f"{PREFIX}b.nc"), tmp_path / "a.lance", mode="a", append_dim="d0")
    found = from_lance(tmp_path / "a.lance")
    assert told(found) == EXPECTED
    assert found["g/v"].shape == (8, 6)


def test_changing_and_moving_arrays_keeps_them():
    assert told(tree().map_arrays(lambda _, array: array)) == EXPECTED
    assert told(tree().virtual.move("g/v", "u")) == EXPECTED


@pytest.mark.parametrize("names", ["d0", [1], {"d0": 1}, 5, [None]])
def test_what_is_no_list_of_names_is_refused(names):
    table = to_arrow(tree())
    document = json.loads(table.schema.metadata[KEY.encode()])
    document["root"]["groups"]["g"]["unlimited_dims"] = names
    with pytest.raises(FormatError, match="unlimited dimensions of 'g'"):
        from_arrow(table.replace_schema_metadata({KEY: json.dumps(document)}))


def test_documents_that_say_nothing_of_them_are_read():
    table = to_arrow(tree())
    document = json.loads(table.schema.metadata[KEY.encode()])
    del document["root"]["unlimited_dims"]
    found = from_arrow(table.replace_schema_metadata({KEY: json.dumps(document)}))
    assert told(found) == {**EXPECTED, "": None}
