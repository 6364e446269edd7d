"""The HDF4 parser over real files, array by array against the HDF4 library: exact, refused by name, or a failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import corpusscore
import hdf4files
import numpy as np

from virtualchunks.errors import VirtualChunksError
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.hdf4 import HDF4Parser

hdf4files.register_codecs()
FILES = corpusscore.files("hdf4")


def score(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield array, class and reason for every array of a file; a file that cannot be read counts as one array."""
    registry = ObjectStoreRegistry({path.parent.as_uri() + "/": None})
    with corpusscore.left_out() as left_out:
        try:
            tree = HDF4Parser()(path.as_uri(), registry).group
        except VirtualChunksError as error:
            yield corpusscore.not_read(path, error)
            return
    found = dict(tree.arrays)
    for name, expected in hdf4files.reference(path).items():
        array = found.pop(name, None)
        if array is None:
            yield corpusscore.not_found(name, left_out)
            continue
        values = read_values(array, registry)
        same = values.dtype == expected.dtype and np.array_equal(values, expected, equal_nan=values.dtype.kind == "f")
        yield name, "exact" if same else "wrong", f"{values.dtype} {values.shape}, expected {expected.dtype}"
    for name in found:
        if name.startswith(("XDim:", "YDim:")):
            continue  # made from the corners of a grid
        yield name, "wrong", "not in the file"


@corpusscore.each(FILES)
def test_every_array_is_exact_or_refused_by_name(path: Path) -> None:
    assert not corpusscore.wrong(score(path))


if __name__ == "__main__":
    corpusscore.report(FILES, score)
