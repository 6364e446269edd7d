"""Damaged stores: an error of ours that names the store, or the values that zarr-python reads of the same bytes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import zarr
from zarrstores import zarr_values

from virtualchunks.testing.mutants import MutantTests
from virtualchunks_parsers.zarr import ZarrParser

#: What makes damaged JSON that is JSON still.
LETTERS = b'0123456789"[]{},.:<>|ABfiuz-'
VALUES = np.arange(42).reshape(6, 7)


def write(path: Path, **options: Any) -> Path:
    """Write a store of two arrays, one of which lacks its last chunks."""
    version = options.pop("zarr_format")
    settings = {"shape": (9, 7), "dtype": "<i4", "fill_value": 1, **options}
    root = zarr.open_group(str(path), mode="w", zarr_format=version)
    root.create_array("a", **settings)[:6] = VALUES
    root.create_array("g/packed", **{**settings, "compressors": "auto"})[:6] = VALUES
    return path


class StoreMutants(MutantTests):
    parser: ClassVar[Any] = ZarrParser()

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        return zarr_values(str(path))

    def _reference_of_damaged(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        """What zarr-python refuses may be read here: it refuses members of metadata that do not matter."""
        return super()._reference_of_damaged(path) or {}

    def _check_damaged(self, path: Path, expected: Mapping[str, npt.NDArray[Any]], label: str) -> None:
        same = {name: values for name, values in expected.items() if values.dtype.kind != "O"}
        super()._check_damaged(path, same, label)

    def _changed(self, whole: bytes, chance: random.Random) -> bytes:
        if not whole.startswith(b"{"):
            return super()._changed(whole, chance)
        changed = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2))):
            changed[chance.randrange(len(whole))] = chance.choice(LETTERS)
        return bytes(changed)


class MetadataMutants(StoreMutants):
    def damaged_parts(self, path: Path) -> list[Path]:
        return [part for part in super().damaged_parts(path) if part.name in (".zarray", ".zattrs", "zarr.json")]


class TestZarrV2(StoreMutants):
    def make_files(self, folder: Path) -> Mapping[str, Path]:
        return {
            "v2": write(folder / "s.zarr", zarr_format=2, chunks=(4, 4)),
            "v2 F": write(folder / "f.zarr", zarr_format=2, chunks=(4, 4), order="F", dtype=">i4"),
        }


class TestZarrV3(StoreMutants):
    def make_files(self, folder: Path) -> Mapping[str, Path]:
        return {
            "v3": write(folder / "s.zarr", zarr_format=3, chunks=(4, 4)),
            "v3 sharded": write(folder / "h.zarr", zarr_format=3, chunks=(2, 2), shards=(4, 4)),
        }


class TestZarrV2Metadata(MetadataMutants, TestZarrV2):
    """Where the metadata alone is damaged."""


class TestZarrV3Metadata(MetadataMutants, TestZarrV3):
    """Where the metadata alone is damaged."""
