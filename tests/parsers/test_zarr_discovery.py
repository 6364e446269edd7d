"""Stores, repositories and references are found unnamed: by what lies in a folder, by content, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr

from virtualchunks import parsing
from virtualchunks.errors import SourceUnavailableError
from virtualchunks.parsing import find_parser
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.icechunk import IcechunkParser
from virtualchunks_parsers.kerchunk import KerchunkParser
from virtualchunks_parsers.zarr import ZarrParser

KINDS = {"icechunk": IcechunkParser, "kerchunk": KerchunkParser, "zarr": ZarrParser}


@pytest.fixture(autouse=True)
def only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed, these three are what there is to find."""
    monkeypatch.setattr(parsing, "_installed", lambda: (KINDS, []))
    monkeypatch.setattr(parsing, "_entry_points", dict)


def make(folder: Path) -> dict[str, tuple[Path, type[Any]]]:
    for name, version in (("v2", 2), ("v3.zarr", 3)):
        zarr.open_group(str(folder / name), mode="w", zarr_format=version).create_array("a", shape=(3,), dtype="<i4")
    zarr.create_array(str(folder / "array"), shape=(3,), dtype="<i4", zarr_format=2)[...] = np.arange(3)
    for name, specification in (("repository", 2), ("old.zarr", 1)):
        storage = icechunk.local_filesystem_storage(str(folder / name))
        session = icechunk.Repository.create(storage, spec_version=specification).writable_session("main")
        zarr.open_group(session.store, mode="a", attributes={"title": "t"})
        session.commit("first")
    (folder / "refs.parq").mkdir()
    (folder / "refs.parq/.zmetadata").write_text(json.dumps({"metadata": {".zgroup": {}}, "record_size": 1}))
    (folder / "references").write_text(json.dumps({"version": 1, "refs": {".zgroup": '{"zarr_format": 2}'}}))
    return {
        **{name: (folder / name, ZarrParser) for name in ("v2", "v3.zarr", "array")},
        **{name: (folder / name, IcechunkParser) for name in ("repository", "old.zarr")},
        **{name: (folder / name, KerchunkParser) for name in ("refs.parq", "references")},
    }


@pytest.mark.parametrize("named", [True, False])
def test_each_is_found(named: bool, tmp_path: Path) -> None:
    for name, (path, kind) in make(tmp_path).items():
        registry = ObjectStoreRegistry().grant(path) if named else ObjectStoreRegistry({tmp_path.as_uri(): None})
        parser = find_parser(path.as_uri(), registry)
        assert type(parser) is kind, name
        assert parser(path.as_uri(), registry).registry.prefixes or name == "references"


def test_a_folder_of_something_else_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceUnavailableError, match="a folder"):
        find_parser((tmp_path / "folder").as_uri(), ObjectStoreRegistry().grant(tmp_path / "folder"))
