"""The HDF4 parser over real files, array by array against the HDF4 library: exact, refused by name, or a failure."""

from __future__ import annotations

import collections
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import hdf4files
import numpy as np
import pytest

from virtualchunks.errors import UnsupportedArrayWarning, VirtualChunksError
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.hdf4 import HDF4Parser

hdf4files.register_codecs()


def corpus() -> Path | None:
    """The folder of real files: named by VIRTUALCHUNKS_CORPUS, or beside the project or one of its parents."""
    named = os.environ.get("VIRTUALCHUNKS_CORPUS")
    places = [Path(named)] if named else [parent / "shared" / "corpus" for parent in Path(__file__).resolve().parents]
    return next((place for place in places if place.is_dir()), None)


def files() -> list[Path]:
    folder = corpus()
    return [] if folder is None else sorted(path for path in (folder / "hdf4").rglob("*") if path.is_file())


def score(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield array, class and reason for every array of a file; a file that cannot be read counts as one array."""
    registry = ObjectStoreRegistry({path.parent.as_uri() + "/": None})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tree = HDF4Parser()(path.as_uri(), registry).group
        except VirtualChunksError as error:
            yield "", "refused" if path.name in str(error) else "wrong", f"whole file: {error}"
            return
    left_out = [str(item.message) for item in caught if issubclass(item.category, UnsupportedArrayWarning)]
    found = dict(tree.arrays)
    for name, expected in hdf4files.reference(path).items():
        array = found.pop(name, None)
        if array is None:
            told = [message for message in left_out if message.startswith(f"'{name}' of ")]
            yield name, "refused" if len(told) == 1 else "wrong", (told or ["missing"])[0]
            continue
        values = read_values(array, registry)
        same = values.dtype == expected.dtype and np.array_equal(values, expected, equal_nan=values.dtype.kind == "f")
        yield name, "exact" if same else "wrong", f"{values.dtype} {values.shape}, expected {expected.dtype}"
    for name in found:
        if name.startswith(("XDim:", "YDim:")):
            continue  # made from the corners of a grid
        yield name, "wrong", "not in the file"


@pytest.mark.corpus
@pytest.mark.skipif(corpus() is None, reason="the folder of real files is not there; see VIRTUALCHUNKS_CORPUS")
@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_every_array_is_exact_or_refused_by_name(path: Path) -> None:
    wrong = [(name, reason) for name, verdict, reason in score(path) if verdict == "wrong"]
    assert not wrong


def main() -> None:
    """Print the counts, by array and by file, and what is not exact."""
    by_array: collections.Counter[str] = collections.Counter()
    by_file: collections.Counter[str] = collections.Counter()
    for path in files():
        worst = "exact"
        for name, verdict, reason in score(path):
            by_array[verdict] += 1
            worst = max(worst, verdict, key=("exact", "refused", "wrong").index)
            if verdict != "exact":
                print(f"{verdict}: {path.parent.name}/{path.name} {name}: {reason}")
        by_file[worst] += 1
    print("arrays:", dict(by_array), "files:", dict(by_file))


if __name__ == "__main__":
    sys.exit(main())
