"""The suite that every parser passes: subclass :class:`ParserTests` in a test module. Needs pytest.

A subclass says how to make files of its format and what a reference reader sees in them. The suite then checks values,
errors, where bytes come from, and what happens to damaged files.
"""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from virtualchunks.errors import NotGrantedError, VirtualChunksError
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry


class ParserTests:
    """What holds for every parser.

    Subclass it under a name that pytest collects, set :attr:`parser`, and implement :meth:`make_files` and
    :meth:`reference`.

    Attributes
    ----------
    parser
        An instance of the parser.
    mutants
        How many damaged copies of each file are tried; each has a few bytes changed, by a seeded generator.
    damage_within
        Only the first bytes of a file, this many, are damaged; ``None`` for all. Headers are where parsers can go
        wrong.
    """

    parser: ClassVar[Any]
    mutants: ClassVar[int] = 25
    damage_within: ClassVar[int | None] = 4096

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        """Write small files into a folder; return them by the name of what each shows."""
        raise NotImplementedError

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
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

    def values(self, path: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Read every array of a file through its references."""
        group, registry = self.parse(path)
        for name, array in group.walk_arrays():
            yield name, read_values(array, registry, name=name)

    def test_every_array_reads_as_the_reference_reader_sees_it(self, files: Mapping[str, Path]) -> None:
        """No array is missing and none differs."""
        for path in files.values():
            expected = dict(self.reference(path))
            for name, found in self.values(path):
                if name in expected:
                    np.testing.assert_array_equal(
                        found, expected.pop(name), err_msg=f"{path.name}: {name}", strict=True
                    )
            assert not expected, f"{path.name}: {sorted(expected)} are not there"

    def test_dimensions_are_named(self, files: Mapping[str, Path]) -> None:
        """Every dimension has a name, and one name has one size within an array."""
        for path in files.values():
            for name, array in self.parse(path)[0].walk_arrays():
                names = array.metadata.dimension_names
                assert names is not None, name
                assert None not in names, name

    def test_the_parser_is_a_value(self) -> None:
        """It pickles, compares, prints, and cannot be changed."""
        again = pickle.loads(pickle.dumps(self.parser))
        assert again == self.parser
        assert type(self.parser).__name__ in repr(self.parser)
        with pytest.raises((AttributeError, TypeError)):
            self.parser.strict = not self.parser.strict

    def test_it_recognises_its_files_and_no_others(self, files: Mapping[str, Path]) -> None:
        """By their first bytes."""
        for path in files.values():
            assert type(self.parser).recognises(path.read_bytes()[:16384]), path.name
        for other in (b"", b"\0" * 64, b"hello world, this is text" * 8):
            assert not type(self.parser).recognises(other)

    def test_sources_carry_the_stamp_of_the_file(self, files: Mapping[str, Path]) -> None:
        """Every object that chunks refer to has at least a size."""
        for path in files.values():
            for name, array in self.parse(path)[0].walk_arrays():
                sources = array.manifest.sources
                for row in array.manifest.used_rows().tolist():
                    assert sources.buffer(row) is not None or sources.stamp(row).size is not None, name

    def test_groups_pickle(self, files: Mapping[str, Path]) -> None:
        """And come back equal."""
        for path in files.values():
            group, _ = self.parse(path)
            assert pickle.loads(pickle.dumps(group)) == group

    def test_what_is_not_granted_is_not_read(self, files: Mapping[str, Path]) -> None:
        """An empty registry opens nothing."""
        path = next(iter(files.values()))
        with pytest.raises(NotGrantedError, match="register"):
            self.parser(path.as_uri(), ObjectStoreRegistry())

    @pytest.mark.parametrize("content", [b"", b"\0", b"not this format at all" * 100])
    def test_other_content_is_refused_by_name(self, content: bytes, tmp_path: Path) -> None:
        """With an error of ours that names the file."""
        path = tmp_path / "other.bin"
        path.write_bytes(content)
        with pytest.raises(VirtualChunksError) as caught:
            self.parse(path)
        assert "other.bin" in str(caught.value)

    def test_a_missing_file_is_an_error_of_ours(self, tmp_path: Path) -> None:
        """Which is not a FileNotFoundError: stores above would take that for a missing chunk."""
        with pytest.raises(VirtualChunksError) as caught:
            self.parse(tmp_path / "missing.bin")
        assert "missing.bin" in str(caught.value)
        assert not isinstance(caught.value, FileNotFoundError | KeyError)

    def test_truncated_files_are_refused_or_read_right(self, files: Mapping[str, Path], tmp_path: Path) -> None:
        """Cut anywhere, a file gives an error of ours, or the values that it still holds."""
        for label, path in files.items():
            whole = path.read_bytes()
            expected = dict(self.reference(path))
            for part in (1, 8, len(whole) // 3, len(whole) // 2, len(whole) - 1):
                cut = self._damaged(path, whole[:part], tmp_path / f"cut-{label}-{part}")
                self._check_damaged(cut, expected, f"{label} cut to {part} bytes")

    def test_damaged_files_are_refused_or_read_as_the_reference_does(
        self, files: Mapping[str, Path], tmp_path: Path
    ) -> None:
        """Seeded changes of a few bytes: an error of ours, or what the reference reader makes of the same bytes."""
        for label, path in files.items():
            whole = path.read_bytes()
            intact = dict(self.reference(path))
            chance = random.Random(label)
            for number in range(self.mutants):
                changed = bytearray(whole)
                reach = min(len(whole), self.damage_within or len(whole))
                for _ in range(chance.choice((1, 1, 2, 4))):
                    changed[chance.randrange(reach)] = chance.randrange(256)
                damaged = self._damaged(path, bytes(changed), tmp_path / f"damaged-{label}-{number}")
                expected = self._reference_of_damaged(damaged)
                self._check_damaged(damaged, intact if expected is None else expected, f"{label}, mutant {number}")

    def _damaged(self, path: Path, content: bytes, folder: Path) -> Path:
        folder.mkdir()
        damaged = folder / path.name
        damaged.write_bytes(content)
        return damaged

    def _reference_of_damaged(self, path: Path) -> Mapping[str, npt.NDArray[Any]] | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return dict(self.reference(path))
        except Exception:  # noqa: BLE001 - a reference reader may refuse damage in any way it likes
            return None

    def _check_damaged(self, path: Path, expected: Mapping[str, npt.NDArray[Any]], label: str) -> None:
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
            try:
                found = read_values(array, registry, name=name)
            except VirtualChunksError:
                continue
            if name in expected:
                np.testing.assert_array_equal(found, expected[name], err_msg=f"{label}: {name}")
