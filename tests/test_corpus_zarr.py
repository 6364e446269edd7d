"""Real Zarr stores and Icechunk repositories: every array exact, or refused by name; nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import corpusscore
import numpy as np
import numpy.typing as npt
import pytest
import zarr
from zarrstores import zarr_arrays

from virtualchunks.errors import NotGrantedError, VirtualChunksError
from virtualchunks.reading.values import read_values
from virtualchunks.store import ManifestStore
from virtualchunks_parsers.icechunk import IcechunkParser
from virtualchunks_parsers.zarr import ZarrParser

icechunk = pytest.importorskip("icechunk")
pytestmark = pytest.mark.corpus


def stores(kind: str) -> list[Path]:
    root = corpusscore.corpus()
    if root is None or not (root / kind).is_dir():
        pytest.skip("the corpus is not there")
    return sorted(path for origin in (root / kind).iterdir() for path in origin.iterdir())


def same(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    if found.dtype.kind in "TO" or expected.dtype.kind in "TO":
        return found.shape == expected.shape and found.ravel().tolist() == expected.ravel().tolist()
    if found.dtype != expected.dtype.newbyteorder("="):
        return False
    return np.array_equal(found, expected, equal_nan=found.dtype.kind in "fcmM")


def score(make: Any, reference: Any) -> str:
    """Return what became of one store: exact, refused, or what is wrong."""
    with corpusscore.left_out() as left_out:
        try:
            store: ManifestStore = make()
        except VirtualChunksError:
            return "refused"
        expected = dict(zarr_arrays(reference()))
    said = " ".join(left_out)
    found = dict(store.group.walk_arrays())
    outcome = "exact"
    for path, array in expected.items():
        if path not in found:
            if repr(path) not in said:
                return f"{path} is missing"
            outcome = "refused"
            continue
        try:
            values = np.asarray(array[...])
        except icechunk.IcechunkError:  # its virtual chunks lie where this test may not reach
            with pytest.raises(NotGrantedError):
                read_values(found[path], store.registry)
            continue
        if not same(np.asarray(read_values(found[path], store.registry)), values):
            return f"{path} differs"
    return outcome


@pytest.mark.parametrize(("kind", "least"), [("zarr2", 0.95), ("zarr3", 0.98)])
def test_zarr_stores(kind: str, least: float) -> None:
    outcomes = {}
    with zarr.config.set({"array.rectilinear_chunks": True}):
        for path in stores(kind):
            outcomes[path.name] = score(
                lambda path=path: ZarrParser()(str(path)), lambda path=path: zarr.open(path, mode="r")
            )
    other = {name: outcome for name, outcome in outcomes.items() if outcome not in ("exact", "refused")}
    assert not other
    counts = Counter(outcomes.values())
    print(kind, dict(counts))
    assert counts["exact"] >= least * len(outcomes)


def test_icechunk_repositories() -> None:
    outcomes = {}
    for path in stores("icechunk"):
        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))
        versions = [{"branch": name} for name in repository.list_branches()]
        versions += [{"tag": name} for name in repository.list_tags()]
        for version in versions:
            session = repository.readonly_session(**version)
            outcomes[f"{path.name} {version}"] = score(
                lambda path=path, version=version: IcechunkParser(**version)(str(path)),
                lambda session=session: zarr.open(session.store, mode="r"),
            )
    assert set(outcomes.values()) == {"exact"}, outcomes
