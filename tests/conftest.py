"""Fixtures for all tests, and hypothesis profiles: ``default`` for every run, the others for ``make fuzz``.

``archives`` is for the tests with the mark of that name, ``fuzz`` for all property tests.

A test that sets ``max_examples`` itself keeps its own number in every profile.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.append(str(Path(__file__).parent))  # tests are no package; what they share lies beside this file

from rangeserver import RangeServer

settings.register_profile(
    "default", max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fuzz", settings.get_profile("default"), max_examples=1_000)
settings.register_profile("archives", settings.get_profile("default"), max_examples=10_000)
settings.load_profile("default")


@pytest.fixture
def range_server() -> Iterator[RangeServer]:
    """An empty HTTP server with byte ranges: fill `objects`, read `requests`, inject faults with `fail`."""
    with RangeServer() as server:
        yield server


@pytest.fixture(params=["native", "library"])
def hdf5_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let HDF5 files be read natively, and then through the HDF5 library, as files of rare forms are."""
    from virtualchunks_parsers.hdf5 import HDF5Parser

    monkeypatch.setattr(HDF5Parser, "_natively", request.param == "native")
    return str(request.param)
