"""Damaged metadata: an error of ours that names the store, or the values that zarr-python reads of the same bytes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarrstores import values_of, zarr_values

from virtualchunks.errors import VirtualChunksError
from virtualchunks_parsers.zarr import ZarrParser

STORES: dict[str, dict[str, Any]] = {
    "v2": {"zarr_format": 2, "chunks": (4, 4)},
    "v2 F": {"zarr_format": 2, "chunks": (4, 4), "order": "F", "dtype": ">i4"},
    "v3": {"zarr_format": 3, "chunks": (4, 4)},
    "v3 sharded": {"zarr_format": 3, "chunks": (2, 2), "shards": (4, 4)},
}


@pytest.mark.parametrize("name", STORES)
def test_damaged_metadata(name: str, tmp_path: Path) -> None:
    options = {"dtype": "<i4", "fill_value": 1, **STORES[name]}
    version = options.pop("zarr_format")
    root = zarr.open_group(str(tmp_path / "s.zarr"), mode="w", zarr_format=version)
    root.create_array("a", shape=(9, 7), **options)[:6] = np.arange(42).reshape(6, 7)
    document = tmp_path / "s.zarr/a" / (".zarray" if version == 2 else "zarr.json")
    whole = document.read_bytes()
    rng = np.random.default_rng(11)
    outcomes = set()
    for number in range(200):
        changed = bytearray(whole)
        for _ in range(int(rng.choice((1, 1, 2)))):
            changed[int(rng.integers(len(whole)))] = int(
                rng.choice(np.frombuffer(b'0123456789"[]{},.:<>|ABfiuz-', "u1"))
            )
        document.write_bytes(changed)
        outcome = compare(str(tmp_path / "s.zarr"), f"{name} {number}")
        outcomes.add(outcome)
    assert {"refused", "same"} <= outcomes


def compare(path: str, label: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            store = ZarrParser(strict=True)(path)
            if store.group.arrays and store.group.arrays["a"].size > 10_000_000:
                return "large"
            found = values_of(store).get("a")
        except VirtualChunksError as error:
            assert "s.zarr" in str(error), label  # noqa: PT017 - most mutants are read
            return "refused"
        try:
            expected = zarr_values(path).get("a")
        except Exception:  # noqa: BLE001 - zarr-python may refuse damage in any way it likes
            return "read, and refused by zarr-python"
    assert (found is None) == (expected is None), label
    if found is None or expected is None:
        return "missing"
    np.testing.assert_array_equal(np.asarray(found, expected.dtype), expected, err_msg=label)
    return "same"
