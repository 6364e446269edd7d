"""Processes that open files: the same results, errors and warnings as in this process."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
import xarray as xr

import virtualchunks as vc
from tests.xarray.conftest import CHUNKS, Archive
from tests.xarray.toyformat import ToyParser, write_toy
from virtualchunks.errors import FormatError, ParserCrashedError, UnsupportedFeatureError
from virtualchunks.xarray import workers
from virtualchunks.xarray.workers import WorkerPool, close_workers


@pytest.fixture(scope="module", autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    close_workers()


def warn_and_name_the_process(text: str) -> int:
    warnings.warn(text, UserWarning, stacklevel=1)
    return os.getpid()


def be_impatient() -> int:
    workers.IDLE = 0
    return os.getpid()


def setting(name: str) -> str | None:
    return os.environ.get(name)


def end(code: int) -> None:
    os._exit(code)


def fail(text: str) -> None:
    raise KeyError(text)


def test_results_in_order_and_the_same_process_for_the_next_pool() -> None:
    with WorkerPool(2) as pool:
        futures = [pool.submit(operator.neg, n) for n in range(50)]
        assert [future.result() for future in futures] == list(range(0, -50, -1))
    with WorkerPool(1) as pool:
        first = pool.submit(os.getpid).result()
    with WorkerPool(1) as pool:
        assert pool.submit(os.getpid).result() == first != os.getpid()


def test_other_surroundings_take_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkerPool(1) as pool:
        first = pool.submit(os.getpid).result()
    monkeypatch.setenv("AWS_REGION", "somewhere")
    with WorkerPool(1) as pool:
        assert pool.submit(setting, "AWS_REGION").result() == "somewhere"
        assert pool.submit(os.getpid).result() != first


def test_one_that_had_nothing_to_do_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkerPool(1) as pool:
        first = pool.submit(be_impatient).result()
    monkeypatch.setattr(workers._Worker, "fits", lambda worker: True)  # it ended a moment after it was looked at
    with WorkerPool(1) as pool:
        assert pool.submit(os.getpid).result() != first


def test_warnings_are_heard_here() -> None:
    with WorkerPool(1) as pool:
        future = pool.submit(warn_and_name_the_process, "left out")
        with pytest.warns(UserWarning, match="left out"):
            assert future.result() != os.getpid()


def test_an_error_is_raised_here() -> None:
    with WorkerPool(1) as pool, pytest.raises(KeyError, match="absent") as caught:
        pool.submit(fail, "absent").result()
    assert "in fail" in caught.value.__notes__[0]


def test_a_process_that_crashes_fails_its_call_alone() -> None:
    with WorkerPool(1) as pool:
        futures = [pool.submit(operator.neg, 1), pool.submit(end, 3), pool.submit(operator.neg, 2)]
        assert futures[0].result() == -1
        with pytest.raises(ParserCrashedError, match="exited with code 3"):
            futures[1].result()
        assert futures[2].result() == -2


def test_what_cannot_be_sent_is_named() -> None:
    with WorkerPool(1) as pool:
        with pytest.raises(UnsupportedFeatureError, match="cannot be pickled"):
            pool.submit(lambda: 1)
        future = pool.submit(compile, "1", "a", "eval")
        with pytest.raises(UnsupportedFeatureError, match="cannot be sent back"):
            future.result()


def test_calls_that_have_not_begun_are_cancelled() -> None:
    pool = WorkerPool(1)
    futures = [pool.submit(operator.neg, n) for n in range(100)]
    pool.shutdown(cancel_futures=True)
    outcomes = [future.exception() if not future.cancelled() else CancelledError for future in futures]
    assert set(outcomes) <= {None, CancelledError}
    assert futures[-1].cancelled()


def test_an_archive(archive: Archive) -> None:
    expected = vc.open_virtual_mfdataset(archive.paths, parser=ToyParser())
    cube = vc.open_virtual_mfdataset(
        archive.paths, parser=ToyParser(), parallel="processes", preprocess=lambda ds: ds.assign_attrs(seen=True)
    )
    assert cube.attrs.pop("seen")
    xr.testing.assert_identical(cube.virtual.open().load(), expected.virtual.open().load())


def test_errors_of_an_archive_name_the_file(archive: Archive) -> None:
    write_toy(archive.paths[0], archive.values[0], CHUNKS)
    archive.paths[1].write_bytes(b"broken")
    with pytest.raises(FormatError, match=r"1\.toy") as caught:
        vc.open_virtual_mfdataset(archive.paths, parser=ToyParser(), parallel="processes")
    assert caught.value.url == f"file://{archive.paths[1]}"
    assert caught.value.__notes__[-1].startswith("while opening file://")
    with pytest.raises(UnsupportedFeatureError, match="parallel=False"):
        vc.open_virtual_mfdataset(
            archive.paths, parser=ToyParser(), parallel="processes", loadable_variables=lambda name, array: False
        )


SCRIPT = """
    import sys
    import virtualchunks as vc
    from tests.xarray.toyformat import ToyParser
    class Mine(ToyParser):
        pass
    print("begun")
    print(vc.open_virtual_mfdataset(sys.argv[1], parser=ToyParser(), parallel="processes").sizes["time"])
    try:
        vc.open_virtual_mfdataset(sys.argv[1], parser=Mine(), parallel="processes")
    except NotImplementedError as error:
        print(error)
"""


def test_a_script_needs_no_guard(archive: Archive, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, str(script), str(archive.folder / "*.toy")],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    begun, length, refusal = done.stdout.splitlines()
    assert (begun, int(length)) == ("begun", sum(ds.sizes["time"] for ds in archive.values))
    assert "Can't get attribute 'Mine'" in refusal
    assert "into a module" in refusal
