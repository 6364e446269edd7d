"""The GRIB parser over a folder of real files, message by message against ecCodes: exact, refused, or a failure."""

from __future__ import annotations

import collections
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from griboracle import messages_of

from virtualchunks.errors import UnsupportedArrayWarning, VirtualChunksError
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.grib import GRIBParser


def corpus() -> Path | None:
    """The folder of real files: named by VIRTUALCHUNKS_CORPUS, or beside the project or one of its parents."""
    named = os.environ.get("VIRTUALCHUNKS_CORPUS")
    places = [Path(named)] if named else [parent / "shared" / "corpus" for parent in Path(__file__).resolve().parents]
    return next((place for place in places if place.is_dir()), None)


def files() -> list[Path]:
    folder = corpus()
    if folder is None:
        return []
    return sorted(path for kind in ("grib1", "grib2") for path in (folder / kind).rglob("*") if path.is_file())


def fingerprint(values: np.ndarray) -> tuple[int, bytes]:
    return values.size, np.ascontiguousarray(values, dtype="<f8").tobytes()


def score(path: Path) -> tuple[str, str]:
    """Class and reason of a file: every message must be a slice of some array, and every slice a message."""
    registry = ObjectStoreRegistry().grant(path.as_uri())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tree = GRIBParser().parse(path.as_uri(), registry)
        except VirtualChunksError as error:
            return ("refused" if path.name in str(error) else "wrong"), str(error)
    told = [str(item.message) for item in caught if issubclass(item.category, UnsupportedArrayWarning)]
    expected = collections.Counter(map(fingerprint, messages_of(path)))
    found = collections.Counter(map(fingerprint, slices(tree, registry)))
    if found - expected:
        return "wrong", f"{(found - expected).total()} slices are no message"
    if expected - found:
        return ("refused" if told else "wrong"), f"{(expected - found).total()} messages are in no array: {told}"
    return "exact", f"{found.total()} messages"


def slices(tree, registry) -> Iterator[np.ndarray]:
    """The block of every chunk of the variables; coordinates must be readable, too."""
    for kind in tree.groups.values():
        for leaf in kind.groups.values():
            for name, array in leaf.arrays.items():
                values = read_values(array, registry, name=name)
                if "GRIB_paramId" not in array.metadata.attributes:
                    assert np.isfinite(values).all(), name
                    continue
                present = array.manifest.present
                blocks = values.reshape(present.size, -1)
                yield from blocks[present.ravel()]


@pytest.mark.corpus
@pytest.mark.skipif(corpus() is None, reason="the folder of real files is not there; see VIRTUALCHUNKS_CORPUS")
@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_every_message_is_exact_or_refused_by_name(path):
    verdict, reason = score(path)
    assert verdict != "wrong", reason


def main() -> None:
    """Print the counts by file, and what is not exact."""
    counts = collections.Counter()
    for path in files():
        verdict, reason = score(path)
        counts[path.relative_to(corpus()).parts[0], verdict] += 1
        if verdict != "exact":
            print(f"{verdict}: {path.parent.name}/{path.name}: {reason}")
    print(dict(counts))


if __name__ == "__main__":
    sys.exit(main())
