"""Opening many files as one: order, nesting, executors, globs, progress, errors."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import pytest
import xarray as xr

import virtualchunks as vc
from tests.xarray.conftest import CHUNKS, Archive, field
from tests.xarray.test_virtual_operations import SAFE
from tests.xarray.toyformat import ToyParser, write_toy
from virtualchunks.errors import CombineError, FormatError, SourceUnavailableError, URLError
from virtualchunks.xarray.executors import chosen, turn_of

opened = partial(vc.open_virtual_mfdataset, parser=ToyParser())


def assert_whole(archive: Archive, cube: xr.Dataset) -> None:
    expected = xr.concat(archive.values, "time", **SAFE)
    xr.testing.assert_identical(cube.virtual.open().load(), expected)


def test_defaults_need_no_option(archive: Archive):
    assert_whole(archive, opened(archive.paths))
    assert_whole(archive, opened(archive.paths[::-1]))
    assert_whole(archive, opened(str(archive.folder / "*.toy")))
    assert_whole(archive, opened(f"file://{archive.folder}/*.toy"))


def test_nested(archive: Archive):
    assert_whole(archive, opened(archive.paths, combine="nested", concat_dim="time"))
    unsorted = opened(archive.paths[::-1], combine="nested", concat_dim="time", join="exact")
    assert unsorted["time"].values[0] == archive.values[2]["time"].values[0]


def test_nested_lists(archive: Archive):
    halves = [
        [write_toy(archive.folder / f"{row}{column}.toy", ds.isel(x=part), CHUNKS) for column, part in enumerate(parts)]
        for row, (ds, parts) in enumerate((ds, (slice(0, 3), slice(3, 6))) for ds in archive.values)
    ]
    cube = opened(halves, combine="nested", concat_dim=["time", "x"])
    expected = xr.combine_nested(
        [[ds.isel(x=slice(0, 3)), ds.isel(x=slice(3, 6))] for ds in archive.values],
        ["time", "x"],
        combine_attrs="override",
        **SAFE,
    )
    xr.testing.assert_identical(cube.virtual.open().load(), expected)


def test_a_new_dimension_keeps_every_file(archive: Archive):
    paths = [write_toy(archive.folder / f"run{n}.toy", field("2020-01-01", 2, n), CHUNKS) for n in range(3)]
    cube = opened(paths, combine="nested", concat_dim="run")
    assert dict(cube.sizes)["run"] == 3
    expected = xr.concat(
        [field("2020-01-01", 2, n)["air"] for n in range(3)], "run", coords="minimal", compat="override"
    )
    xr.testing.assert_identical(cube.virtual.open()["air"].load(), expected)


@pytest.mark.parametrize("parallel", [False, True, 1, 3, ThreadPoolExecutor, "dask"], ids=str)
def test_executors(archive: Archive, parallel):
    assert_whole(archive, opened(archive.paths, combine="nested", concat_dim="time", parallel=parallel))


class CountingParser(ToyParser):
    """Counts how many threads parse at a time, and which."""

    lock = threading.Lock()
    now = most = 0
    threads: ClassVar[set[int]] = set()

    def __call__(self, url: str, registry: Any) -> Any:
        kind = type(self)
        with self.lock:
            kind.now, kind.most = kind.now + 1, max(kind.most, kind.now + 1)
            kind.threads.add(threading.get_ident())
        time.sleep(0.01)
        try:
            return super().__call__(url, registry)
        finally:
            with self.lock:
                kind.now -= 1


@pytest.fixture
def counting() -> type[CountingParser]:
    CountingParser.most = 0
    CountingParser.threads.clear()
    return CountingParser


@pytest.mark.parametrize("parallel", [ThreadPoolExecutor])
def test_threads_take_turns_at_local_files(archive: Archive, counting: type[CountingParser], parallel: Any):
    assert_whole(archive, vc.open_virtual_mfdataset(archive.paths, parser=counting(), parallel=parallel))
    assert counting.most == 1
    assert threading.get_ident() not in counting.threads


@pytest.mark.parametrize("parallel", [None, "auto", False, True, 8])
def test_local_files_are_opened_in_this_thread(archive: Archive, counting: type[CountingParser], parallel: Any):
    assert_whole(archive, vc.open_virtual_mfdataset(archive.paths, parser=counting(), parallel=parallel))
    assert counting.threads == {threading.get_ident()}


def test_without_a_global_lock_threads_run_side_by_side(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert chosen(None, ["file:///a", "file:///b"]) is True
    assert turn_of(8) is None
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert chosen(None, ["file:///a", "file:///b"]) is False
    assert turn_of(8) is not None
    assert turn_of(False) is turn_of("processes") is turn_of(1) is None


def test_remote_files_are_opened_in_threads():
    assert chosen(None, [f"https://data.example/{number}" for number in range(100)]) == 32
    assert chosen("auto", ["s3://bucket/a", "file:///a"]) == 1
    assert chosen(True, ["s3://bucket/a"]) is True


def test_an_executor_is_left_running(archive: Archive):
    with ThreadPoolExecutor(2) as executor:
        assert_whole(archive, opened(archive.paths, parallel=executor))
        assert executor.submit(lambda: 1).result() == 1


def test_preprocess_and_attributes(archive: Archive):
    for number, path in enumerate(archive.paths):
        archive.values[number].attrs = {"number": number}
        write_toy(path, archive.values[number], CHUNKS)
    cube = opened(archive.paths, preprocess=lambda ds: ds[["air"]], attrs_file=archive.paths[1])
    assert list(cube.data_vars) == ["air"]
    assert cube.attrs == {"number": 1}
    with pytest.raises(SourceUnavailableError, match="not one of the files"):
        opened(archive.paths, attrs_file="other.toy")


@pytest.mark.parametrize("parallel", [False, 2])
def test_an_error_names_the_file(archive: Archive, parallel):
    archive.paths[1].write_bytes(b"broken")
    with pytest.raises(FormatError, match=r"1\.toy"):
        opened(archive.paths, parallel=parallel)
    with pytest.raises(KeyError) as caught:
        opened(archive.paths[::2], preprocess=lambda ds: ds["absent"], parallel=parallel)
    assert "while opening file://" in caught.value.__notes__[-1]
    assert caught.value.__notes__[-1].endswith("0.toy")


def test_nothing_to_open(tmp_path):
    with pytest.raises(SourceUnavailableError, match="names no file"):
        opened(str(tmp_path / "*.toy"))
    with pytest.raises(SourceUnavailableError, match="names no file"):
        opened([])
    with pytest.raises(URLError, match="local paths only"):
        opened("s3://bucket/*.toy")


def test_wrong_arguments(archive: Archive):
    with pytest.raises(ValueError, match="'by_coords' or 'nested'"):
        opened(archive.paths, combine="somehow")
    with pytest.raises(ValueError, match="needs combine='nested'"):
        opened(archive.paths, concat_dim="time")
    with pytest.raises(ValueError, match="'dask', 'lithops'"):
        opened(archive.paths, parallel="ray")


def test_what_cannot_be_combined_is_refused(archive: Archive):
    archive.values[1]["rain"].encoding["scale_factor"] = 0.5
    write_toy(archive.paths[1], archive.values[1], CHUNKS)
    with pytest.raises(CombineError, match=r"'scale_factor' differs: 0\.25 and 0\.5"):
        opened(archive.paths, mask_and_scale=False)


SLOW = """
import sys, time, virtualchunks as vc
from tests.xarray.toyformat import ToyParser
slow = lambda ds: time.sleep(1) or ds
vc.open_virtual_mfdataset(sys.argv[1], parser=ToyParser(), preprocess=slow)
"""


def slowly(archive: Archive, stream: int) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", SLOW, str(archive.folder / "[01].toy")]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stream, env=environment, check=True)


def test_no_progress_bar_in_a_pipe(archive: Archive):
    done = slowly(archive, subprocess.PIPE)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_a_progress_bar_on_a_terminal(archive: Archive):
    termios = pytest.importorskip("termios")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    done = slowly(archive, theirs)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.stdout == b""
    assert "opening" in shown
    assert "2/2" in shown
