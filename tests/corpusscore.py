"""Real files, and what becomes of each array of them: exact, refused by name, or wrong."""

from __future__ import annotations

import collections
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from virtualchunks.errors import UnsupportedArrayWarning, VirtualChunksError

#: An array, its class and the reason.
Score = tuple[str, str, str]
CLASSES = ("exact", "refused", "wrong")


def corpus() -> Path | None:
    """The folder of real files: named by VIRTUALCHUNKS_CORPUS, or beside the project or one of its parents."""
    named = os.environ.get("VIRTUALCHUNKS_CORPUS")
    places = [Path(named)] if named else [parent / "shared" / "corpus" for parent in Path(__file__).resolve().parents]
    return next((place for place in places if place.is_dir()), None)


def files(*kinds: str) -> list[Path]:
    """The real files of some kinds, each of which is a folder; none where there is no corpus."""
    folder = corpus()
    if folder is None:
        return []
    return sorted(path for kind in kinds for path in (folder / kind).rglob("*") if path.is_file())


def needs(found: list[Path]) -> Callable[[Any], Any]:
    """Mark a test that needs real files."""
    skip = pytest.mark.skipif(not found, reason="the folder of real files is not there; see VIRTUALCHUNKS_CORPUS")
    return lambda test: pytest.mark.corpus(skip(test))


def each(found: list[Path]) -> Callable[[Any], Any]:
    """Mark a test that runs once for each real file, as its argument ``path``."""
    one = pytest.mark.parametrize("path", found, ids=lambda path: path.name)
    return lambda test: needs(found)(one(test))


@contextmanager
def left_out() -> Iterator[list[str]]:
    """Collect what parsers say that they leave out; the list is complete at the end of the block."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield told
    told += [str(item.message) for item in caught if issubclass(item.category, UnsupportedArrayWarning)]


def not_read(path: Path, error: VirtualChunksError) -> Score:
    """The score of a file that a parser refuses, which counts as one array."""
    return "", "refused" if path.name in str(error) else "wrong", f"whole file: {error}"


def not_found(name: str, told: list[str]) -> Score:
    """The score of an array that a parser left out: it has to say so, once."""
    reasons = [message for message in told if message.startswith(f"'{name}' of ")]
    return name, "refused" if len(reasons) == 1 else "wrong", (reasons or ["missing"])[0]


def wrong(scores: Iterable[Score]) -> list[tuple[str, str]]:
    """The arrays that are neither exact nor refused by name, and why."""
    return [(name, reason) for name, verdict, reason in scores if verdict == "wrong"]


def report(found: list[Path], score: Callable[[Path], Iterable[Score]]) -> None:
    """Print the counts, by array and by file, and what is not exact."""
    by_array: collections.Counter[str] = collections.Counter()
    by_file: collections.Counter[str] = collections.Counter()
    for path in found:
        worst = "exact"
        for name, verdict, reason in score(path):
            by_array[verdict] += 1
            worst = max(worst, verdict, key=CLASSES.index)
            if verdict != "exact":
                print(f"{verdict}: {path.parent.name}/{path.name} {name}: {reason}")
        by_file[worst] += 1
    print("arrays:", dict(by_array), "files:", dict(by_file))
