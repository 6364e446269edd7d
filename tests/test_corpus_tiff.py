"""The TIFF parser over a folder of real files, image by image against tifffile: exact, refused by name, or wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import corpusscore
import numpy as np
import pytest
from tiffwriter import register_codec

from virtualchunks.errors import VirtualChunksError
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.tiff import TIFFParser

tifffile = pytest.importorskip("tifffile")
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
register_codec()

#: Compressions that decoders may round differently.
LOSSY = {7, 34892, 50001, 33003, 33004, 33005, 34712}
LEAST_EXACT = 0.85
FILES = corpusscore.files("tiff")


def images(file) -> Iterator:
    """Every image of a file, with those below it."""
    pages = list(file)
    while pages:
        page = pages.pop(0).aspage()
        yield page
        if page.subifds:
            pages[:0] = list(page.pages)


def same(found: np.ndarray, expected: np.ndarray, lossy: bool) -> bool:
    """Whether two images agree, bands first or last."""
    forms = [found, np.moveaxis(found, 0, -1), np.moveaxis(found, -1, 0)] if found.ndim == 3 else [found]
    for form in forms:
        if form.shape != expected.shape or form.dtype != expected.dtype:
            continue
        if lossy and np.abs(form.astype(float) - expected.astype(float)).max(initial=0) <= 4:
            return True
        if np.array_equal(form, expected, equal_nan=form.dtype.kind in "fc"):
            return True
    return False


def score(path: Path) -> Iterator[corpusscore.Score]:
    """Yield the class of a file, whose images count as one array, and why it is not exact."""
    with corpusscore.left_out() as told:
        try:
            group = TIFFParser().parse(path.as_uri())
        except VirtualChunksError as error:
            yield corpusscore.not_read(path, error)
            return
    registry = ObjectStoreRegistry({path.parent.as_uri() + "/": None})
    arrays = {name: a for name, a in group.walk_arrays() if name.rpartition("/")[2] in ("data", "mask")}
    found = [read_values(array, registry, name=name) for name, array in arrays.items()]
    missing = 0
    with tifffile.TiffFile(path) as file:
        for page in images(file.pages):
            try:
                expected = page.asarray()
            except (ValueError, RuntimeError):
                missing += 1
                continue
            if not any(same(values, expected, page.compression in LOSSY) for values in found):
                missing += 1
    if missing > len(told):
        yield path.name, "wrong", f"{missing} of {len(found)} images differ or are missing"
    else:
        yield path.name, "refused" if told else "exact", "; ".join(told)


@corpusscore.needs(FILES)
def test_every_image_is_exact_or_refused_by_name():
    scores = [each for path in FILES for each in score(path)]
    assert not corpusscore.wrong(scores)
    assert sum(verdict == "exact" for _, verdict, _ in scores) >= LEAST_EXACT * len(scores)


if __name__ == "__main__":
    corpusscore.report(FILES, score)
