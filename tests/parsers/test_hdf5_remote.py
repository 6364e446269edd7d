"""What reading the metadata of remote HDF5 files costs: requests, bytes, and how many rounds wait for one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import h5py
import hdf5forms
import numpy as np
import pytest
from hdf5oracle import LibraryParser, NativeParser, outcome, summary

from virtualchunks.reading import reader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.hdf5 import HDF5Parser

STEPS, VARIABLES = 400, 10


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made.h5"


@pytest.fixture
def rounds(monkeypatch) -> Iterator[list[int]]:
    """How many requests were made at once, time after time; those that a round consists of are not counted twice."""
    found: list[int] = []
    batch, single = reader._RemoteObject.get_all, reader._RemoteObject._get
    within: list[bool] = []

    def get_all(self: Any, spans: list[tuple[int, int]]) -> list[memoryview]:
        found.append(len(spans))
        within.append(True)
        try:
            return batch(self, spans)
        finally:
            within.pop()

    def get(self: Any, start: int, stop: int) -> memoryview:
        if not within:
            found.append(1)
        return single(self, start, stop)

    monkeypatch.setattr(reader._RemoteObject, "get_all", get_all)
    monkeypatch.setattr(reader._RemoteObject, "_get", get)
    yield found
    assert sum(found) >= len(found)


def scattered(path, version):
    """Ten variables, written step by step, side by side: their metadata lie all over 102 MB."""
    noise = np.random.default_rng(0).bytes(1 << 20)
    with h5py.File(path, "w", libver=version) as file:
        for name, size in (("time", STEPS), ("lat", 64), ("lon", 100)):
            file[name] = np.arange(size, dtype="f8")
            file[name].make_scale(name)
        made = []
        for number in range(VARIABLES):
            options = {"shape": (STEPS, 64, 100), "maxshape": (None, 64, 100), "chunks": (1, 64, 100)}
            variable = file.create_dataset(f"v{number}", dtype="f4", compression=4, **options)
            for axis, name in enumerate(("time", "lat", "lon")):
                variable.dims[axis].attach_scale(file[name])
            made.append(variable)
        for step in range(STEPS):
            for number, variable in enumerate(made):
                at = (step * 977 + number * 4099) % 1_000_000
                variable.id.write_direct_chunk((step, 0, 0), noise[at : at + 25_500])


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_scattered_metadata_are_fetched_level_by_level(path, version, range_server, rounds):
    scattered(path, version)
    range_server.objects["a.h5"] = path.read_bytes()
    assert len(range_server.objects["a.h5"]) > 100_000_000
    tree = NativeParser().parse(range_server.url("a.h5"))
    assert sum(stop - start for start, stop in (request.range for request in range_server.requests)) <= 2_000_000
    assert 1 + len(rounds) <= 6  # the first request, and those after it
    expected = LibraryParser().parse(path)
    for name, array in expected.arrays.items():
        found = tree[name].manifest.records
        assert all((found[field] == array.manifest.records[field]).all() for field in ("offset", "length")), name


@pytest.mark.parametrize("content", ["attributes", "indexes", "scales"])
def test_a_small_file_is_one_request(path, content, range_server, rounds):
    hdf5forms.write(path, content, "latest")
    range_server.objects["a.h5"] = path.read_bytes()
    if len(range_server.objects["a.h5"]) > reader.FIRST:
        pytest.skip("it is larger than the first request")
    outcome(NativeParser(), range_server.url("a.h5"))
    assert (len(range_server.requests), rounds) == (1, [])


def behind(content: Callable[[h5py.File], None], path, version):
    """Write a content behind 2 MiB of values, so that the first request does not hold it."""
    with h5py.File(path, "w", libver=version) as file:
        file["before"] = np.zeros(1 << 18)
        content(file)


@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize("content", ["attributes", "dense", "indexes", "layouts", "many chunks", "scales", "types"])
def test_all_forms_are_read_alike_in_rounds(path, content, version, range_server, rounds):
    behind(hdf5forms.CONTENTS[content], path, version)
    range_server.objects["a.h5"] = path.read_bytes()
    registry = ObjectStoreRegistry.coerce(None).grant(range_server.url("a.h5"), str(path))
    dropped = ["odd"] + [f"v{n}" for n in range(8)] + ["null", "long", "out", "filled6", "filled4"]
    with pytest.warns() if content in ("attributes", "types") else nullcontext():
        remote = summary(HDF5Parser(drop_variables=dropped).parse(range_server.url("a.h5"), registry))
    assert len(rounds) <= 11, rounds
    with pytest.warns() if content in ("attributes", "types") else nullcontext():
        local = summary(LibraryParser(drop_variables=dropped).parse(path, registry))
    assert remote.keys() == local.keys()
    assert all(remote[name][:8] == local[name][:8] for name in local)
