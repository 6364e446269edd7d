"""The TIFF parser over a folder of real files, image by image against tifffile: exact, refused by name, or wrong."""

from __future__ import annotations

import collections
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiffwriter import register_codec

from virtualchunks.errors import UnsupportedArrayWarning, VirtualChunksError
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.tiff import TIFFParser

tifffile = pytest.importorskip("tifffile")
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
register_codec()

#: Compressions that decoders may round differently.
LOSSY = {7, 34892, 50001, 33003, 33004, 33005, 34712}
LEAST_EXACT = 0.85


def corpus() -> Path | None:
    """The folder of real files: named by VIRTUALCHUNKS_CORPUS, or beside the project or one of its parents."""
    named = os.environ.get("VIRTUALCHUNKS_CORPUS")
    places = [Path(named)] if named else [parent / "shared" / "corpus" for parent in Path(__file__).resolve().parents]
    return next((place for place in places if place.is_dir()), None)


def files() -> list[Path]:
    folder = corpus()
    return [] if folder is None else sorted(path for path in (folder / "tiff").rglob("*") if path.is_file())


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


def score(path: Path) -> tuple[str, str]:
    """Return the class of a file, and why it is not exact."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            group = TIFFParser().parse(path.as_uri())
        except VirtualChunksError as error:
            return "refused" if path.name in str(error) else "wrong", str(error)
    told = [str(item.message) for item in caught if issubclass(item.category, UnsupportedArrayWarning)]
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
        return "wrong", f"{missing} of {len(found)} images differ or are missing"
    return ("refused", "; ".join(told)) if told else ("exact", "")


@pytest.mark.corpus
@pytest.mark.skipif(not files(), reason="the folder of real files is not there; see VIRTUALCHUNKS_CORPUS")
def test_every_image_is_exact_or_refused_by_name():
    scores = {path.name: score(path) for path in files()}
    assert not {name: reason for name, (verdict, reason) in scores.items() if verdict == "wrong"}
    assert sum(verdict == "exact" for verdict, _ in scores.values()) >= LEAST_EXACT * len(scores)


def main() -> None:
    """Print the counts, and what is not exact."""
    counts = collections.Counter()
    for path in files():
        verdict, reason = score(path)
        counts[verdict] += 1
        if verdict != "exact":
            print(f"{verdict}: {path.parent.name}/{path.name}: {reason}")
    print(dict(counts))


if __name__ == "__main__":
    sys.exit(main())
