"""Damaged repositories: an error of ours that names the repository, or what icechunk reads of the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import icechunk
import numpy as np
import numpy.typing as npt
import zarr
from zarrstores import zarr_values

from virtualchunks.testing.mutants import MutantTests
from virtualchunks_parsers.icechunk import IcechunkParser

VALUES = np.arange(60, dtype="<f8").reshape(6, 10)
INTACT = {
    "native": VALUES,
    "virtual": np.concatenate([VALUES[:4], np.full((2, 10), 3.0)]),
    "g/small": np.array([1, 2, 0, 0], dtype="<i2"),
}


class TestIcechunk(MutantTests):
    parser: ClassVar[Any] = IcechunkParser()
    damage_within: ClassVar[int | None] = None
    crashes = 12  # identifiers are drawn anew for every repository, and with them where the damage falls

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        target = folder / "target.bin"
        target.write_bytes(VALUES.tobytes())
        prefix = folder.as_uri() + "/"
        config = icechunk.RepositoryConfig.default()
        config.set_virtual_chunk_container(
            icechunk.VirtualChunkContainer(prefix, icechunk.local_filesystem_store(str(folder)))
        )
        storage = icechunk.local_filesystem_storage(str(folder / "repo"))
        repo = icechunk.Repository.create(storage, config)
        repo.save_config()
        session = repo.writable_session("main")
        root = zarr.open_group(session.store, mode="a", attributes={"title": "t"})
        settings: dict[str, Any] = {"shape": (6, 10), "chunks": (2, 10), "dtype": "<f8", "compressors": None}
        root.create_array("native", **{**settings, "chunks": (6, 10)})[...] = VALUES
        root.create_array("g/small", shape=(4,), chunks=(2,), dtype="<i2")[:2] = [1, 2]
        root.create_array("virtual", **settings, fill_value=3)
        for number in range(2):
            session.store.set_virtual_ref(f"virtual/c/{number}/0", target.as_uri(), offset=160 * number, length=160)
        session.commit("first")
        return {"repository": folder / "repo"}

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        """Virtual chunks lie beside the intact repository, wherever the damaged one lies."""
        folder = path.parent if (path.parent / "target.bin").exists() else path.parent.parent
        repo = icechunk.Repository.open(
            icechunk.local_filesystem_storage(str(path)),
            authorize_virtual_chunk_access={
                folder.as_uri() + "/": icechunk.Credentials.LocalFileSystemAccess(),
            },
        )
        return zarr_values(repo.readonly_session("main").store)

    def _check_damaged(self, path: Path, expected: Mapping[str, npt.NDArray[Any]], label: str) -> None:
        """Values are what icechunk reads, or intact: it may not find a chunk in a damaged list that it can iterate."""
        try:
            super()._check_damaged(path, expected, label)
        except AssertionError:
            super()._check_damaged(path, INTACT, label)

    def parse(self, path: Path) -> Any:
        from virtualchunks.registry import ObjectStoreRegistry

        registry = ObjectStoreRegistry({path.parent.as_uri(): None, path.parent.parent.as_uri(): None})
        return self.parser(path.as_uri(), registry).group, registry

    def _reference_of_damaged(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        return super()._reference_of_damaged(path) or {}
