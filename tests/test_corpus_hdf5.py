"""The HDF5 parser over a folder of real files, array by array against h5py: exact, refused by name, or a failure."""

from __future__ import annotations

import collections
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest
from hdf5oracle import arrays, datasets, decoded, same_values

from virtualchunks.errors import UnsupportedArrayWarning, VirtualChunksError
from virtualchunks_parsers.hdf5 import HDF5Parser


def is_hidden(dataset: h5py.Dataset) -> bool:
    """Return whether it stands for a dimension alone."""
    title = dataset.attrs.get("NAME", b"") if dataset.attrs.get("CLASS") == b"DIMENSION_SCALE" else b""
    return bytes(title).startswith(b"This is a netCDF dimension but not a netCDF variable")


def corpus() -> Path | None:
    """The folder of real files: named by VIRTUALCHUNKS_CORPUS, or beside the project or one of its parents."""
    named = os.environ.get("VIRTUALCHUNKS_CORPUS")
    places = [Path(named)] if named else [parent / "shared" / "corpus" for parent in Path(__file__).resolve().parents]
    return next((place for place in places if place.is_dir()), None)


def files() -> list[Path]:
    folder = corpus()
    if folder is None:
        return []
    return sorted(path for kind in ("hdf5", "netcdf4") for path in (folder / kind).rglob("*") if path.is_file())


def score(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield array, class and reason for every array of a file; a file that cannot be read counts as one array."""
    try:
        reference = h5py.File(path, "r", locking=False)
    except OSError:
        reference = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tree = HDF5Parser().parse(str(path))
        except VirtualChunksError as error:
            yield "", "refused" if path.name in str(error) else "wrong", f"whole file: {error}"
            return
    left_out = [str(item.message) for item in caught if issubclass(item.category, UnsupportedArrayWarning)]
    if reference is None:
        yield "", "wrong", "opened what h5py does not"
        return
    found = {name.replace("/_nc4_non_coord_", "/"): array for name, array in arrays(tree).items()}
    with reference:
        for name, dataset in datasets(reference).items():
            if is_hidden(dataset):
                continue
            array = found.pop(name.replace("/_nc4_non_coord_", "/"), None)
            if array is None:
                told = any(f"'{name}' of " in message for message in left_out)
                yield name, "refused" if told else "wrong", next((m for m in left_out if name in m), "missing")
                continue
            try:
                values = decoded(array)
            except VirtualChunksError as error:
                yield name, "wrong", f"decoding: {error}"
                continue
            yield name, "exact" if same_values(dataset[...], values) else "wrong", f"{dataset.dtype} {dataset.shape}"
    for name in found:
        yield name, "wrong", "not in the file"


@pytest.mark.corpus
@pytest.mark.skipif(corpus() is None, reason="the folder of real files is not there; see VIRTUALCHUNKS_CORPUS")
@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_every_array_is_exact_or_refused_by_name(path):
    wrong = [(name, reason) for name, verdict, reason in score(path) if verdict == "wrong"]
    assert not wrong


def main() -> None:
    """Print the counts, by array and by file, and what is not exact."""
    by_array, by_file = collections.Counter(), collections.Counter()
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
