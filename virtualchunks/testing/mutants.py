"""What damage does to a parser: seeded mutants of files, parsed in a child process that is watched. Needs pytest.

A mutant is a copy with a few bytes changed. Parsing it has to give an error of ours that names the file, or what the
reference reader makes of the same bytes, within limits of time and memory. The child is what lets a crash or a hang of
native code be a failed test that names the mutant, rather than the end of the test run.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import inspect
import json
import random
import shutil
import sys
import traceback
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from virtualchunks.errors import VirtualChunksError
from virtualchunks.group import ManifestGroup
from virtualchunks.isolation import Isolated, child
from virtualchunks.isolation.process import Outcome, run
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry

#: What the child may take at all, the reference reader included.
MOST_MEMORY = 16 << 30
#: How many mutants the reference reader may fail to survive; of these nothing is known.
MOST_UNKNOWN = 8
#: The file in which the child says what it is about to try.
PROGRESS = "mutant"

Values = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Stage:
    """What the child is about to try.

    Parameters
    ----------
    label, number, path
        Of the mutant.
    parsing
        Whether it is the parser's turn; the reference reader's is before.
    """

    label: str = ""
    number: int = -1
    path: str = ""
    parsing: bool = False

    def write(self, file: Path) -> None:
        """Say so."""
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Stage:
        """Return what was said last."""
        return cls(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else cls()

    def __str__(self) -> str:
        if self.number < 0:
            return "before the first mutant"
        return f"{self.label}, mutant {self.number}, {'the parser' if self.parsing else 'the reference reader'}"


class MutantTests:
    """What holds for damaged files of every format. A subclass stands at the top of its module.

    Attributes
    ----------
    parser
        An instance of the parser.
    mutants
        How many damaged copies are tried, of all files together; each has a few bytes changed, by a generator seeded
        with the name of the file and the number of the mutant.
    damage_within
        Only the first bytes of a file, this many, are damaged; ``None`` for all. Headers are where parsers can go
        wrong.
    seconds
        How long one mutant may take, its reading by the reference reader included.
    memory
        Bytes that a mutant may take beyond what intact files take, where the system has such limits.
    crashes
        How many mutants may end the process, or hang it, in native code that the parser runs and says so
        (``native_code``); isolated, they have to be errors of ours.
    """

    parser: ClassVar[Any]
    mutants: ClassVar[int] = 200
    damage_within: ClassVar[int | None] = 4096
    seconds: ClassVar[float] = 20.0
    memory: ClassVar[int] = 512 << 20
    crashes: ClassVar[int] = 0

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        """Write small files, or folders of files, into a folder; return them by the name of what each shows."""
        raise NotImplementedError

    def reference(self, path: Path) -> Values:
        """Return what the reference reader sees: raw values by array path.

        Any exception means that it refuses the file.
        """
        raise NotImplementedError

    def parse(self, path: Path) -> tuple[ManifestGroup, ObjectStoreRegistry]:
        """Parse a local file that is granted by naming it, with the folder around it."""
        registry = ObjectStoreRegistry({path.parent.as_uri() + "/": None})
        store = self.parser(path.as_uri(), registry)
        return store.group, registry

    @pytest.fixture
    def files(self, tmp_path: Path) -> Mapping[str, Path]:
        """The files of :meth:`make_files`."""
        return self.make_files(tmp_path)

    def damaged_parts(self, path: Path) -> list[Path]:
        """Return which files of a folder are damaged, one in each mutant."""
        return sorted(part for part in path.rglob("*") if part.is_file())

    def test_damaged_files_are_refused_or_read_as_the_reference_does(
        self, files: Mapping[str, Path], tmp_path: Path
    ) -> None:
        """An error of ours that names the file, or what the reference reader makes of the same bytes; in time.

        Where the parser says that it runs native code, the first :attr:`crashes` mutants that end the process pass if
        the same parser says so by an error of ours when it is isolated. A reference reader that does not survive a
        mutant is not asked again.
        """
        first, crashes = 0, 0
        unknown: set[int] = set()
        assert not self.crashes or self.parser.native_code, "a parser that runs no native code does not crash"
        while (outcome := self._outcome(files, tmp_path, first, unknown)).kind != child.ANSWERED:
            stage = Stage.read(tmp_path / PROGRESS)
            died = outcome.code != 0  # what raises, or asks Python for too much memory, leaves in an orderly way
            if died and not stage.parsing and stage.number >= 0 and len(unknown) < MOST_UNKNOWN:
                unknown.add(first := stage.number)  # once more, without the reference reader
                continue
            crashes += 1
            if crashes > self.crashes or not stage.parsing or not died:
                pytest.fail(f"{stage}: {self._what_happened(outcome)}\n{outcome.printed}", pytrace=False)
            self._check_isolated(Path(stage.path), str(stage))
            first = stage.number + 1
            print(f"{stage}: {self._what_happened(outcome)}; isolated, an error of ours or no crash")

    def _outcome(self, files: Mapping[str, Path], folder: Path, first: int, unknown: set[int]) -> Outcome:
        kind = type(self)
        named = {label: str(path) for label, path in files.items()}
        work = (inspect.getfile(kind), kind.__module__, kind.__qualname__, named, str(folder), first, unknown)
        return run(try_mutants, work, memory=MOST_MEMORY, seconds=self.mutants * self.seconds)

    def _check_isolated(self, path: Path, label: str) -> None:
        registry = ObjectStoreRegistry({path.parent.as_uri() + "/": None})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                Isolated(self.parser, seconds=self.seconds)(path.as_uri(), registry)
            except VirtualChunksError as error:
                assert path.name in str(error), f"{label}: the error does not name the file: {error}"  # noqa: PT017

    def _what_happened(self, outcome: Outcome) -> str:
        if outcome.kind in (child.RAISED, child.UNKNOWN):
            return outcome.answer.decode("utf-8", "replace")
        if outcome.limit == "memory":
            return f"more than {self.memory / 2**20:,.0f} MiB of memory"
        if outcome.limit == "seconds" or "Timeout (" in outcome.printed:
            return f"no end within {self.seconds:g} s"
        return f"the process {outcome.ending}"

    def _try_mutants(self, files: Mapping[str, Path], folder: Path, first: int, unknown: set[int]) -> None:
        """Try every mutant from a number on, in the child."""
        intact = {}
        for label, path in files.items():
            intact[label] = dict(self.reference(path))
            self._check_damaged(path, intact[label], f"{label}, intact")  # imports whatever parsing needs, too
        child.limit_memory(self.memory)
        labels = list(files)
        for number in range(first, self.mutants):
            label = labels[number % len(labels)]
            place = folder / f"mutant-{number}"
            shutil.rmtree(place, ignore_errors=True)
            mutant = self._mutant(files[label], place, random.Random(f"{label} {number}"))
            faulthandler.dump_traceback_later(self.seconds, exit=True)
            stage = Stage(label, number, str(mutant), parsing=number in unknown)
            self._try_mutant(mutant, intact[label], stage, folder / PROGRESS)
            faulthandler.cancel_dump_traceback_later()
            shutil.rmtree(place)

    def _try_mutant(self, path: Path, intact: Values, stage: Stage, progress: Path) -> None:
        stage.write(progress)
        expected = {} if stage.parsing else self._reference_of_damaged(path)
        stage = replace(stage, parsing=True)
        stage.write(progress)
        self._check_damaged(path, intact if expected is None else expected, str(stage))

    def _mutant(self, path: Path, folder: Path, chance: random.Random) -> Path:
        """Write a damaged copy of a file, or of a folder one file of which is damaged, into a new folder."""
        if not path.is_dir():
            return self._damaged(path, self._changed(path.read_bytes(), chance), folder)
        part = chance.choice(self.damaged_parts(path))
        copied = folder / path.name
        shutil.copytree(path, copied)
        (copied / part.relative_to(path)).write_bytes(self._changed(part.read_bytes(), chance))
        return copied

    def _changed(self, whole: bytes, chance: random.Random) -> bytes:
        changed = bytearray(whole)
        reach = min(len(whole), self.damage_within or len(whole))
        for _ in range(chance.choice((1, 1, 2, 4)) if reach else 0):
            changed[chance.randrange(reach)] = chance.randrange(256)
        return bytes(changed)

    def _damaged(self, path: Path, content: bytes, folder: Path) -> Path:
        folder.mkdir()
        damaged = folder / path.name
        damaged.write_bytes(content)
        return damaged

    def _reference_of_damaged(self, path: Path) -> Values | None:
        """Return what the reference reader makes of damage; ``None`` where it refuses, and intact values are right."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return dict(self.reference(path))
        except Exception:  # noqa: BLE001 - boundary to reference readers: they refuse damage in any way
            return None

    def _check_damaged(self, path: Path, expected: Values, label: str) -> None:
        """Read what can be read; whatever is returned must be what is expected, where that is known."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                group, registry = self.parse(path)
        except VirtualChunksError as error:
            if path.name not in str(error):
                raise AssertionError(f"{label}: the error does not name the file: {error}") from error
            return
        for name, array in group.walk_arrays():
            if array.nbytes > self.memory // 8:
                continue  # it may be right to say so; the values would fill the memory that the test allows
            try:
                found = read_values(array, registry, name=name)
            except VirtualChunksError:
                continue
            if name in expected:
                np.testing.assert_array_equal(found, expected[name], err_msg=f"{label}: {name}")


def try_mutants(
    file: str, module: str, name: str, files: Mapping[str, str], folder: str, first: int, unknown: set[int]
) -> bytes:
    """Try the mutants of a suite, in a child process.

    Parameters
    ----------
    file, module, name
        Of the suite: where its module lies, what that is called, and the name of the class within it.
    files
        The intact files by label.
    folder
        For mutants.
    first
        The number of the first one.
    unknown
        The numbers of those that the reference reader did not survive.

    Returns
    -------
    bytes
        None: an answer at all means that nothing failed.
    """
    suite = _load(file, module, name)()
    with ExitStack() as stack:
        stack.push(_shown)
        suite._try_mutants({label: Path(path) for label, path in files.items()}, Path(folder), first, unknown)
    return b""


def _shown(kind: object, error: BaseException | None, trace: object) -> None:
    """Print what went wrong: the answer to the parent process has room for one line."""
    if error is not None:
        traceback.print_exception(error)


def _load(file: str, module: str, name: str) -> type[MutantTests]:
    """Import the module of a suite as pytest did: from its file, under the name it had there."""
    spec = importlib.util.spec_from_file_location(module, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    found: Any = importlib.util.module_from_spec(spec)
    sys.modules[module] = found
    spec.loader.exec_module(found)
    for part in name.split("."):
        found = getattr(found, part)
    made: type[MutantTests] = found
    return made
