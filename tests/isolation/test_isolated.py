"""Parsing in a child: what comes back, what does not, and what is said of children that die, hang or eat."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from misbehaving import Misbehaving
from obstore.store import MemoryStore
from rangeserver import RangeServer

import virtualchunks as vc
from virtualchunks.errors import (
    FormatError,
    NotGrantedError,
    ParserCrashedError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.group import same_array
from virtualchunks.isolation import Isolated
from virtualchunks.isolation.answers import ACCEPTED, Failed, Parsed, loads
from virtualchunks.parsing import Parser, find_parser

needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
ISOLATED = Isolated(Misbehaving(), memory=512 << 20, seconds=20)


def named(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(b"MISBEHAVING")
    return path


def caught(folder: Path, name: str, parser: Any = ISOLATED) -> ParserCrashedError:
    path = named(folder, name)
    with pytest.raises(ParserCrashedError) as raised:
        vc.open_store(path, parser=parser)
    assert raised.value.url == path.as_uri()
    assert path.as_uri() in str(raised.value)
    assert "Misbehaving" in str(raised.value)
    return raised.value


def test_what_a_child_parses_is_what_this_process_parses(tmp_path: Path) -> None:
    path = named(tmp_path, "fine")
    isolated = ISOLATED(path.as_uri())
    plain = Misbehaving()(path.as_uri(), vc.ObjectStoreRegistry().grant(path))
    assert set(isolated.group.arrays) == {"v", "w"}
    assert all(same_array(isolated.group.arrays[name], plain.group.arrays[name]) for name in plain.group.arrays)
    assert isolated.registry == plain.registry
    assert isolated.group.attributes["pid"] != os.getpid()
    np.testing.assert_array_equal(isolated.group.attributes["range"], np.float32([0, 1]), strict=True)
    assert isolated.group.attributes["when"].dtype == np.int64
    opened = vc.open_virtual_dataset(path, parser=Misbehaving(), isolate=True).virtual.open()
    assert opened["v"].values.tobytes() == b"MISB"


def test_every_door_isolates(tmp_path: Path) -> None:
    path = named(tmp_path, "fine")
    options: dict[str, Any] = {"parser": Misbehaving(), "isolate": True}
    assert vc.open_store(path, **options).group.attributes["pid"] != os.getpid()
    assert vc.open_virtual_dataset(path, **options).attrs["pid"] != os.getpid()
    assert vc.open_virtual_datatree(path, **options).attrs["pid"] != os.getpid()
    assert xr.open_dataset(path, engine="virtualchunks", **options).attrs["pid"] != os.getpid()
    combined = vc.open_virtual_mfdataset([path], combine="nested", concat_dim="x", **options)
    assert combined.attrs["pid"] != os.getpid()
    assert vc.open_store(path, parser=Misbehaving()).group.attributes["pid"] == os.getpid()


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("crash", signal.SIGABRT, "Fatal Python error: Aborted"),
        ("segmentation_fault", signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
    ],
)
def test_a_crash_is_an_error_that_says_how(name: str, number: signal.Signals, said: str, tmp_path: Path) -> None:
    error = caught(tmp_path, name)
    assert (error.code, error.limit) == (-number, None)
    assert number.name in str(error)
    assert said in str(error)
    assert "get it again from its source" in str(error)
    assert isinstance(error, RuntimeError)


def test_leaving_is_an_error_that_says_the_code(tmp_path: Path) -> None:
    error = caught(tmp_path, "leave")
    assert (error.code, error.limit) == (7, None)
    assert "exited with code 7" in str(error)


@pytest.mark.parametrize("name", ["hang", "hang_in_native_code"])
def test_a_hang_ends_with_the_limit(name: str, tmp_path: Path) -> None:
    error = caught(tmp_path, name, Isolated(Misbehaving(), seconds=0.5))
    assert error.limit == "seconds"
    assert "within 0.5 s" in str(error)
    assert "Isolated(…, seconds=…)" in str(error)


@needs_limits
def test_hunger_ends_with_the_limit(tmp_path: Path) -> None:
    error = caught(tmp_path, "eat", Isolated(Misbehaving(), memory=100 << 20, seconds=60))
    assert error.limit == "memory"
    assert "100 MiB" in str(error)
    assert "Isolated(…, memory=…)" in str(error)


def test_errors_of_ours_pass_through(tmp_path: Path) -> None:
    path = named(tmp_path, "refuse")
    with pytest.raises(FormatError) as refused:
        vc.open_store(path, parser=ISOLATED)
    error = refused.value
    assert type(error) is FormatError
    assert (error.message, error.url, error.variable, error.chunk) == ("not of this format", path.as_uri(), "v", (1, 2))
    path = named(tmp_path, "refuse_in_their_own_way")
    with pytest.raises(FormatError, match="not of theirs") as refused:
        vc.open_store(path, parser=ISOLATED)
    assert type(refused.value) is FormatError  # the nearest of ours
    assert refused.value.url == path.as_uri()
    with pytest.raises(NotGrantedError):
        ISOLATED(named(tmp_path, "fine").as_uri(), vc.ObjectStoreRegistry())


def test_other_exceptions_are_told(tmp_path: Path) -> None:
    error = caught(tmp_path, "fail")
    assert "KeyError: 'a bug'" in str(error)


def test_warnings_pass_through(tmp_path: Path) -> None:
    path = named(tmp_path, "warn")
    with pytest.warns(UserWarning) as warned:  # noqa: PT030 - which ones is checked below
        ISOLATED(path.as_uri())
    assert [(type(warning.message), str(warning.message)) for warning in warned] == [
        (UnsupportedArrayWarning, "'w' is left out"),
        (UserWarning, "something else"),
    ]


def test_what_is_printed_is_no_answer(tmp_path: Path) -> None:
    assert set(ISOLATED(named(tmp_path, "answer_at_length").as_uri()).group.arrays) == {"v", "w"}


@pytest.mark.parametrize(("name", "beneath"), [("beneath", True), ("everything", False), ("fine", False)])
def test_a_child_grants_nothing_but_what_lies_beneath_what_was_named(name: str, beneath: bool, tmp_path: Path) -> None:
    path = named(tmp_path, name)
    registry = ISOLATED(path.as_uri()).registry
    assert path.as_uri() in registry
    assert (f"{path.as_uri()}/c/0" in registry) == beneath
    assert (tmp_path / "other").as_uri() not in registry
    covering = vc.ObjectStoreRegistry({tmp_path: None})
    assert ISOLATED(path.as_uri(), covering).registry == covering


def test_it_is_a_parser_and_a_value(tmp_path: Path) -> None:
    path = named(tmp_path, "fine")
    granted = vc.ObjectStoreRegistry().grant(path)
    assert isinstance(ISOLATED, Parser)
    assert pickle.loads(pickle.dumps(ISOLATED)) == ISOLATED
    assert find_parser(path.as_uri(), granted, ISOLATED, strict=True) == Isolated(
        Misbehaving(strict=True), memory=ISOLATED.memory, seconds=ISOLATED.seconds
    )
    store = vc.open_store(path, parser=Isolated(Misbehaving()), drop_variables=["w"], strict=True)
    assert set(store.group.arrays) == {"v"}
    assert store.group.attributes["strict"] is True
    with pytest.raises(TypeError, match="needs a parser, not None"):
        Isolated()(path.as_uri())
    with pytest.raises(ValueError, match="seconds"):
        Isolated(seconds=0)


def test_the_parser_may_be_named_or_found(tmp_path: Path) -> None:
    library = pytest.importorskip("netCDF4")
    path = tmp_path / "a.nc"
    with library.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("x", 4)
        file.createVariable("v", "i4", ("x",))[:] = np.arange(4)
    plain = vc.open_store(path).group
    assert vc.open_store(path, isolate=True).group == plain
    assert vc.open_store(path, parser=Isolated("netcdf3", seconds=50)).group == plain
    assert vc.open_store(path, parser=Isolated(seconds=50)).group == plain


def test_it_reads_through_the_registry(range_server: RangeServer) -> None:
    range_server.objects["fine"] = b"MISBEHAVING"
    store = ISOLATED(range_server.url("fine"), {range_server.root: None})
    assert set(store.group.arrays) == {"v", "w"}
    assert [request.range for request in range_server.requests] == [(0, 1 << 20)]


class NotImportable(Misbehaving):
    pass


def test_what_cannot_be_handed_over_is_said(tmp_path: Path) -> None:
    path = named(tmp_path, "fine")
    for parser in (lambda url, registry: None, NotImportable()):
        if isinstance(parser, Misbehaving):
            NotImportable.__module__ = "no.such.module"
        with pytest.raises(UnsupportedFeatureError, match="cannot be handed to a process"):
            Isolated(parser)(path.as_uri())  # type: ignore[arg-type]
    with pytest.raises(UnsupportedFeatureError, match="lives in this process's memory"):
        ISOLATED("memory:///fine", {"memory://": MemoryStore()})


def test_several_at_once(tmp_path: Path) -> None:
    names = ["fine", "leave", "fine", "refuse"]

    def outcome(number: int) -> str:
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            return sorted(ISOLATED(named(folder, names[number]).as_uri()).group.arrays)[0]
        except VirtualChunksError as error:
            return type(error).__name__

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(outcome, range(4))) == ["v", "ParserCrashedError", "v", "FormatError"]


@pytest.mark.parametrize("function", [os.system, print, eval, pickle.loads, vc.open_store])
def test_an_answer_calls_nothing(function: Any) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return function, ("echo",)

    with pytest.raises(ParserCrashedError, match="no part of a tree of references"):
        loads(pickle.dumps(Parsed(Hostile(), False)))  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(3), pickle.dumps(Parsed(3, False))])  # type: ignore[arg-type]
def test_other_answers_are_refused(data: bytes) -> None:
    with pytest.raises(ParserCrashedError, match="answer"):
        loads(data)


def test_names_that_lead_on_are_not_followed() -> None:
    """``find_class`` walks dots; a name has to be one of those that are accepted, whole."""
    for module in ACCEPTED:
        hostile = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c\x07os.name\x93."
        with pytest.raises(ParserCrashedError):
            loads(hostile)


def test_errors_that_are_none_of_ours_become_the_base() -> None:
    assert type(Failed("os", "m", None, None, None).error()) is VirtualChunksError
    assert type(Failed("UnsupportedArrayWarning", "m", None, None, None).error()) is VirtualChunksError
