"""Fixtures for all tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # tests are no package; what they share lies beside this file

from rangeserver import RangeServer


@pytest.fixture
def range_server() -> Iterator[RangeServer]:
    """An empty HTTP server with byte ranges: fill `objects`, read `requests`, inject faults with `fail`."""
    with RangeServer() as server:
        yield server
