"""Finding a parser costs no request of its own, and never mixes two versions of an object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import tifffile
from obstore.store import MemoryStore
from rangeserver import RangeServer

import virtualchunks as vc
from virtualchunks.errors import FormatError, SourceChangedError
from virtualchunks.parsing import HEAD, find_parser
from virtualchunks.reading.beginnings import beginning, kept_beginnings, look
from virtualchunks.reading.reader import FIRST, ObjectReader


def write_hdf5(path: Path, rows: int) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=np.arange(rows * 1000.0).reshape(rows, 1000), chunks=(1, 1000), compression=1)


def write_netcdf3(path: Path, rows: int) -> None:
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("t", None)
        file.createDimension("x", 1000)
        file.createVariable("v", "f8", ("t", "x"))[:rows] = np.arange(rows * 1000.0).reshape(rows, 1000)


def write_tiff(path: Path, rows: int) -> None:
    tifffile.imwrite(path, np.arange(rows * 1000, dtype="f8").reshape(rows, 1000), rowsperstrip=1)


WRITERS: dict[str, Callable[[Path, int], None]] = {"hdf5": write_hdf5, "netcdf3": write_netcdf3, "tiff": write_tiff}


@pytest.mark.parametrize("rows", [3, 600], ids=["small", "of megabytes"])
@pytest.mark.parametrize("name", WRITERS)
def test_finding_the_parser_costs_no_request(name: str, rows: int, tmp_path: Path, range_server: RangeServer) -> None:
    WRITERS[name](tmp_path / "file", rows)
    range_server.objects["file"] = (tmp_path / "file").read_bytes()
    url, asked = range_server.url("file"), []
    for parser in (name, None):
        range_server.forget()
        group = vc.open_store(url, parser=parser).group
        assert dict(group.arrays)
        asked.append([request.range for request in range_server.requests])
    assert asked[0] == asked[1]
    if rows == 3:
        assert len(asked[0]) == 1
    assert not any(request.method == "HEAD" for request in range_server.requests)
    range_server.forget()
    dataset = vc.open_virtual_dataset(url, loadable_variables=[])
    assert [request.range for request in range_server.requests] == asked[0]
    assert dataset.sizes


def test_an_object_that_changes_behind_its_beginning_is_an_error(range_server: RangeServer) -> None:
    """Bytes of an answer with another stamp are not put beside those that the parser was found by."""
    data = bytes(3 * FIRST)
    range_server.objects["file"] = data
    registry = vc.ObjectStoreRegistry({range_server.root: None})
    with kept_beginnings():
        look(registry.locate(range_server.url("file")), HEAD, FIRST)
        range_server.objects["file"] = b"\1" + data[1:]
        reader = ObjectReader(registry, range_server.url("file"))
        assert reader.read_at(0, 4) == data[:4]
        with pytest.raises(SourceChangedError, match="changed while it was being parsed"):
            reader.read_at(2 * FIRST, 4)
    fresh = ObjectReader(registry, range_server.url("file"))
    assert fresh.read_at(0, 1) == b"\1"


@pytest.fixture
def granted() -> vc.ObjectStoreRegistry:
    store = MemoryStore()
    store.put("a", b"a" * 3 * FIRST)
    store.put("b", b"b" * 10)
    return vc.ObjectStoreRegistry({"memory://": store})


def test_one_beginning_is_kept_for_one_reader(granted: vc.ObjectStoreRegistry) -> None:
    a, b = granted.locate("memory:///a"), granted.locate("memory:///b")
    with kept_beginnings():
        first = look(a, HEAD, FIRST)
        assert len(first.data) == FIRST
        assert bytes(beginning(b, FIRST).data) == b"b" * 10  # of another object: what was kept is let go
        assert beginning(a, FIRST) is not first
        first, second = look(a, HEAD, FIRST), look(b, HEAD, FIRST)
        assert beginning(b, FIRST) is second
        assert beginning(a, FIRST) is not first
        first = look(a, HEAD, FIRST)
    assert beginning(a, FIRST) is not first


def test_a_beginning_is_of_one_store(granted: vc.ObjectStoreRegistry) -> None:
    other = MemoryStore()
    other.put("a", b"something else")
    with kept_beginnings():
        look(granted.locate("memory:///a"), HEAD, FIRST)
        with ObjectReader(vc.ObjectStoreRegistry({"memory://": other}), "memory:///a") as reader:
            assert reader.read() == b"something else"


def test_nothing_is_kept_where_nobody_asked_for_it(granted: vc.ObjectStoreRegistry) -> None:
    location = granted.locate("memory:///a")
    first = look(location, HEAD, FIRST)
    assert len(first.data) == HEAD
    assert beginning(location, FIRST) is not first


def test_a_beginning_stays_within_its_thread(granted: vc.ObjectStoreRegistry) -> None:
    from concurrent.futures import ThreadPoolExecutor

    location = granted.locate("memory:///a")
    with kept_beginnings(), ThreadPoolExecutor(1) as pool:
        first: Any = look(location, HEAD, FIRST)
        assert pool.submit(beginning, location, FIRST).result() is not first
        assert beginning(location, FIRST) is first


def test_an_empty_remote_object_is_said_to_be_empty(range_server: RangeServer) -> None:
    range_server.objects["file"] = b""
    with pytest.raises(FormatError, match="it is empty"):
        find_parser(range_server.url("file"), vc.ObjectStoreRegistry({range_server.root: None}))
