"""The suite of mutants finds what it is there to find, and says which mutant it was."""

from __future__ import annotations

import ctypes
import os
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

import virtualchunks as vc
from virtualchunks.errors import FormatError, VirtualChunksError
from virtualchunks.isolation import child
from virtualchunks.manifest import RECORD
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.testing.mutants import PROGRESS, MutantTests, Stage

MAGIC = b"0123456789abcdef"
VALUES = np.arange(4, dtype="u1")


def crash() -> None:
    os.abort()


def hang() -> None:
    ctypes.PyDLL(None).sleep(1000)


def eat() -> None:
    np.ones(1 << 30)


def fail() -> None:
    raise KeyError("a bug")


def hide() -> None:
    raise FormatError("no file is named", url="file:///elsewhere")


@dataclass(frozen=True, kw_only=True)
class DelicateParser:
    """Reads four bytes behind sixteen that must not be changed; or else does something that no parser should."""

    does: str = ""
    native_code: ClassVar[str] = "It pretends to."

    def __call__(self, url: str, registry: Any) -> vc.ManifestStore:
        with ObjectReader(registry, url) as reader:
            head = reader.read_at(0, 20)
            sources = vc.SourceTable.single(reader.url, reader.stamp)
        offset = 16
        if head[:16] != MAGIC:
            if self.does == "lie":
                offset = 15
            elif self.does:
                globals()[self.does]()
            else:
                raise FormatError("not one of its own", url=url)
        metadata = vc.ArrayMetadata.build(shape=(4,), chunks=(4,), dtype="u1", dimension_names=("x",))
        array = vc.ManifestArray(metadata, vc.ChunkManifest.from_records(np.array([(0, 4, offset)], RECORD), sources))
        return vc.ManifestStore(vc.ManifestGroup({"v": array}), registry=registry)


class Delicate(MutantTests):
    parser: ClassVar[Any] = DelicateParser()
    mutants = 12
    damage_within = 16
    seconds = 2.0

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        path = folder / "delicate.bin"
        path.write_bytes(MAGIC + VALUES.tobytes())
        return {"a file": path}

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        return {"v": np.frombuffer(path.read_bytes()[16:20], "u1")}


class Crashing(Delicate):
    parser = DelicateParser(does="crash")


class Hanging(Delicate):
    parser = DelicateParser(does="hang")


class Hungry(Delicate):
    parser = DelicateParser(does="eat")


class Failing(Delicate):
    parser = DelicateParser(does="fail")


class Hiding(Delicate):
    parser = DelicateParser(does="hide")


class Lying(Delicate):
    parser = DelicateParser(does="lie")


class CrashingAllowed(Crashing):
    """A crash is an error where the parser is isolated."""

    mutants = 1
    crashes = 1


class BrittleReference(Delicate):
    """The reference reader dies of a mutant; its turn is skipped."""

    mutants = 1

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        if path.read_bytes()[:16] != MAGIC:
            os.abort()
        return super().reference(path)


def run_suite(kind: type[Delicate], folder: Path) -> None:
    suite = kind()
    suite.test_damaged_files_are_refused_or_read_as_the_reference_does(suite.make_files(folder), folder)


@pytest.mark.parametrize("kind", [Delicate, CrashingAllowed, BrittleReference])
def test_what_is_right_passes(kind: type[Delicate], tmp_path: Path) -> None:
    run_suite(kind, tmp_path)
    assert Stage.read(tmp_path / PROGRESS).number == kind.mutants - 1


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Crashing, "SIGABRT"),
        (Hanging, "no end within 2 s"),
        (Failing, "KeyError: 'a bug'"),
        (Hiding, "the error does not name the file"),
        (Lying, "Arrays are not equal"),
        pytest.param(
            Hungry,
            "more than 512 MiB of memory",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone"),
        ),
    ],
)
def test_what_is_wrong_fails_and_is_named(kind: type[Delicate], said: str, tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception) as failed:
        run_suite(kind, tmp_path)
    assert "a file, mutant 0, the parser" in str(failed.value)
    assert said in str(failed.value)
    damaged = tmp_path / "mutant-0" / "delicate.bin"
    assert damaged.read_bytes()[:16] != MAGIC  # it is left where it can be looked at


def test_mutants_are_the_same_in_every_run() -> None:
    first, second = (Delicate()._changed(bytes(99), random.Random("a file 7")) for _ in range(2))
    assert first == second
    assert any(first[:16])
    assert not any(first[16:])


def test_crashes_are_for_native_code_alone(tmp_path: Path) -> None:
    class Pure(CrashingAllowed):
        parser = type("PureParser", (DelicateParser,), {"native_code": ""})()

    with pytest.raises(AssertionError, match="no native code"):
        run_suite(Pure, tmp_path)


def test_stages(tmp_path: Path) -> None:
    assert str(Stage.read(tmp_path / "none")) == "before the first mutant"
    stage = Stage("a", 3, "/x", True)
    stage.write(tmp_path / "stage")
    assert Stage.read(tmp_path / "stage") == stage
    assert child.address_space() > 0
    assert issubclass(FormatError, VirtualChunksError)
