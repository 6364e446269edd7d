"""The FITS parser over a folder of real files, array by array against astropy: exact, refused by name, or a failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import corpusscore
import fitscodecs
import fitsfiles
import numpy as np
import numpy.typing as npt
from astropy.io import fits

from virtualchunks.errors import VirtualChunksError
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.fits import FITSParser

fitscodecs.register()
FILES = corpusscore.files("fits")


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
    with corpusscore.left_out() as left_out:
        try:
            tree = FITSParser()(path.as_uri(), registry).group
        except VirtualChunksError as error:
            yield corpusscore.not_read(path, error)
            return
        expected = fitsfiles.reference(path)
        variable = variable_columns(path)
    found = dict(tree.walk_arrays())
    for name in (*expected, *variable):
        array = found.pop(name, None)
        if array is None:
            yield corpusscore.not_found(name, left_out)
        elif name in expected:
            values = read_values(array, registry)
            verdict = "exact" if same(values, expected[name]) else "wrong"
            yield name, verdict, f"{values.dtype} {values.shape}, expected {expected[name].dtype}"
    for name in found:
        yield name, "wrong", "not in the file"


@corpusscore.each(FILES)
def test_every_array_is_exact_or_refused_by_name(path: Path) -> None:
    assert not corpusscore.wrong(score(path))


if __name__ == "__main__":
    corpusscore.report(FILES, score)
