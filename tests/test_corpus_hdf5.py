"""The HDF5 parser over a folder of real files, array by array against h5py: exact, refused by name, or a failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import corpusscore
import h5py
from hdf5oracle import arrays, datasets, decoded, same_values

from virtualchunks.errors import VirtualChunksError
from virtualchunks_parsers.hdf5 import HDF5Parser

FILES = corpusscore.files("hdf5", "netcdf4")


def is_hidden(dataset: h5py.Dataset) -> bool:
    """Return whether it stands for a dimension alone."""
    title = dataset.attrs.get("NAME", b"") if dataset.attrs.get("CLASS") == b"DIMENSION_SCALE" else b""
    return bytes(title).startswith(b"This is a netCDF dimension but not a netCDF variable")


def score(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield array, class and reason for every array of a file; a file that cannot be read counts as one array."""
    try:
        reference = h5py.File(path, "r", locking=False)
    except OSError:
        reference = None
    with corpusscore.left_out() as left_out:
        try:
            tree = HDF5Parser().parse(str(path))
        except VirtualChunksError as error:
            yield corpusscore.not_read(path, error)
            return
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
                yield corpusscore.not_found(name, left_out)
                continue
            try:
                values = decoded(array)
            except VirtualChunksError as error:
                yield name, "wrong", f"decoding: {error}"
                continue
            yield name, "exact" if same_values(dataset[...], values) else "wrong", f"{dataset.dtype} {dataset.shape}"
    for name in found:
        yield name, "wrong", "not in the file"


@corpusscore.each(FILES)
def test_every_array_is_exact_or_refused_by_name(path: Path) -> None:
    assert not corpusscore.wrong(score(path))


if __name__ == "__main__":
    corpusscore.report(FILES, score)
