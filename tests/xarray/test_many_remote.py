"""Many files behind a network: one request for each small one, as many at a time as there are workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from rangeserver import Answer, RangeServer

import virtualchunks as vc
from virtualchunks import mounts
from virtualchunks.errors import SourceChangedError
from virtualchunks.reading.reader import FIRST

FILES = 40


class Meeting(RangeServer):
    """A server that does not answer the first requests until so many of them have come, or 20 seconds have passed."""

    def __init__(self, guests: int) -> None:
        self.guests, self.here, self.most = guests, 0, 0
        self.met = threading.Event()
        self._counting = threading.Lock()
        super().__init__()

    def _answer(self, method: str, key: str, headers: dict[str, str]) -> Answer:
        with self._counting:
            self.here += 1
            self.most = max(self.most, self.here)
            if self.here >= self.guests:
                self.met.set()
        self.met.wait(20)
        try:
            return super()._answer(method, key, headers)
        finally:
            with self._counting:
                self.here -= 1


def month(number: int, cells: int = 12) -> xr.Dataset:
    values = np.arange(4.0 * cells * cells).reshape(4, cells, cells) + number
    return xr.Dataset(
        {"v": (("time", "lat", "lon"), values, {"units": "K"})},
        coords={
            "time": ("time", np.arange(4 * number, 4 * number + 4), {"units": "days since 2000-01-01"}),
            "lat": np.linspace(-90, 90, cells),
            "lon": np.linspace(0, 359, cells),
        },
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("many")
    made = {}
    for number in range(FILES):
        path = folder / f"{number:02d}.nc"
        month(number).to_netcdf(path, engine="h5netcdf", encoding={"v": {"zlib": True, "chunksizes": (1, 12, 12)}})
        made[path.name] = path.read_bytes()
    return made


@pytest.fixture
def server(request: pytest.FixtureRequest, files: dict[str, bytes]) -> Iterator[Meeting]:
    with Meeting(request.param) as made:
        made.objects = dict(files)
        yield made


@pytest.mark.parametrize(
    ("server", "parallel"), [(32, None), (32, "auto"), (8, 8), (1, False)], indirect=["server"], ids=str
)
def test_one_request_for_a_small_file(server: Meeting, parallel: Any) -> None:
    urls = [server.url(name) for name in sorted(server.objects)]
    cube = vc.open_virtual_mfdataset(urls, parallel=parallel)
    assert [request.method for request in server.requests] == ["GET"] * FILES
    assert sorted(request.key for request in server.requests) == sorted(server.objects)
    assert server.most == server.guests
    expected = xr.concat([xr.decode_cf(month(number)) for number in range(FILES)], "time", data_vars="minimal")
    for name in ("time", "lat", "lon"):
        np.testing.assert_array_equal(cube[name], expected[name])
    np.testing.assert_array_equal(cube.virtual.open()["v"][-1], expected["v"][-1])


@pytest.mark.parametrize("name", [None, "hdf5"])
def test_what_the_parser_was_answered_with_is_not_asked_for_again(
    tmp_path: Path, range_server: RangeServer, name: str | None
) -> None:
    """Coordinates that lie far in a file of megabytes cost what they lack, and never a byte twice."""
    ds = month(0, 300)
    ds.to_netcdf(tmp_path / "large.nc", engine="h5netcdf")
    range_server.objects["large.nc"] = data = (tmp_path / "large.nc").read_bytes()
    assert len(data) > 2 * FIRST
    url = range_server.url("large.nc")
    found = vc.open_virtual_dataset(url, parser=name)
    np.testing.assert_array_equal(found["lat"], ds["lat"])
    asked = np.zeros(len(data), dtype=int)
    for request in range_server.requests:
        assert request.range is not None
        asked[slice(*request.range)] += 1
    assert asked.max() == 1
    whole = len(range_server.requests)
    range_server.forget()
    vc.open_virtual_dataset(url, parser=name, loadable_variables=[])
    assert whole <= len(range_server.requests) + 1


def test_what_changed_since_it_was_parsed_is_not_mixed(
    files: dict[str, bytes], range_server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinates of an object that is replaced between parsing and loading are those that were parsed."""
    range_server.objects["a.nc"] = files["00.nc"]
    registry = vc.ObjectStoreRegistry({range_server.root: None})
    store = vc.open_store(range_server.url("a.nc"), registry)
    range_server.objects["a.nc"] = files["01.nc"]
    with pytest.raises(SourceChangedError):
        store.group.to_virtual_dataset(registry=registry)


def test_the_engine_for_zarr_is_not_used_for_what_stays_virtual(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("zarr is opened")

    for name in ("open_group", "open_array", "open"):
        monkeypatch.setattr(f"zarr.{name}", refused)
    monkeypatch.setattr("xarray.open_zarr", refused)
    (tmp_path / "a.nc").write_bytes(files["00.nc"])
    assert vc.open_virtual_dataset(tmp_path / "a.nc").sizes["time"] == 4


@pytest.mark.parametrize("server", [16], indirect=True)
def test_objects_of_one_host_share_a_store(server: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store takes longer to build than a small file to open, also where threads ask for it at once."""
    built: list[str] = []
    build = mounts.build_store
    monkeypatch.setattr(mounts, "build_store", lambda prefix, *rest: built.append(prefix) or build(prefix, *rest))
    urls = [server.url(name) for name in sorted(server.objects)][:16]
    vc.open_virtual_mfdataset(urls, loadable_variables=[], combine="nested", concat_dim="time")
    assert built == [f"{server.root}/"]
