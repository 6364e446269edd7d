"""Every example in a docstring is true: the modules' own, as ``pytest --doctest-modules`` collects them."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import virtualchunks
import virtualchunks_parsers
from virtualchunks.errors import MissingDependencyError

MODULES = [
    package.__name__ + suffix
    for package in (virtualchunks, virtualchunks_parsers)
    for suffix in (
        "",
        *(
            module.name.removeprefix(package.__name__)
            for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        ),
    )
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except (MissingDependencyError, ModuleNotFoundError) as error:
        pytest.skip(f"{name} needs an extra: {error}")
    failed, _ = doctest.testmod(module, optionflags=doctest.FAIL_FAST)
    assert failed == 0, f"python -m pytest --doctest-modules shows what {name} gives instead"


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = (finder.find(importlib.import_module(name)) for name in ("virtualchunks.grid", "virtualchunks.urls"))
    assert all(sum(len(test.examples) for test in tests) > 2 for tests in found)
