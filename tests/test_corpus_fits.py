"""The FITS parser over a folder of real files, array by array against astropy: exact, refused by name, or a failure."""

from __future__ import annotations

import collections
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fitscodecs
import fitsfiles
import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits

from virtualchunks.errors import UnsupportedArrayWarning, VirtualChunksError
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.fits import FITSParser

fitscodecs.register()


def corpus() -> Path | None:
    """The folder of real files: named by VIRTUALCHUNKS_CORPUS, or beside the project or one of its parents."""
    named = os.environ.get("VIRTUALCHUNKS_CORPUS")
    places = [Path(named)] if named else [parent / "shared" / "corpus" for parent in Path(__file__).resolve().parents]
    return next((place for place in places if place.is_dir()), None)


def files() -> list[Path]:
    folder = corpus()
    return [] if folder is None else sorted(path for path in (folder / "fits").rglob("*") if path.is_file())


def variable_columns(path: Path) -> list[str]:
    """Return the paths of the columns of variable length, which are refused."""
    with fits.open(path) as hdus:
        return [
            f"{name}/{column.name}"
            for name, hdu in zip(fitsfiles.names_of(hdus), hdus, strict=True)
            for column in getattr(hdu, "columns", ())
            if column.format.lstrip("01")[:1] in ("P", "Q") and not isinstance(hdu, fits.CompImageHDU)
        ]


def same(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    if found.dtype.kind == "S":
        return np.array_equal(np.char.rstrip(found, b" \0"), np.char.rstrip(expected, b" \0"))
    return np.array_equal(found, expected, equal_nan=found.dtype.kind in "fc")


def score(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield array, class and reason for every array of a file; a file that cannot be read counts as one array."""
    registry = ObjectStoreRegistry({path.parent.as_uri() + "/": None})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tree = FITSParser()(path.as_uri(), registry).group
        except VirtualChunksError as error:
            yield "", "refused" if path.name in str(error) else "wrong", f"whole file: {error}"
            return
        expected = fitsfiles.reference(path)
        variable = variable_columns(path)
    left_out = [str(item.message) for item in caught if issubclass(item.category, UnsupportedArrayWarning)]
    found = dict(tree.walk_arrays())
    for name in (*expected, *variable):
        array = found.pop(name, None)
        if array is None:
            told = [message for message in left_out if message.startswith(f"'{name}' of ")]
            yield name, "refused" if len(told) == 1 else "wrong", (told or ["missing"])[0]
        elif name in expected:
            values = read_values(array, registry)
            verdict = "exact" if same(values, expected[name]) else "wrong"
            yield name, verdict, f"{values.dtype} {values.shape}, expected {expected[name].dtype}"
    for name in found:
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
