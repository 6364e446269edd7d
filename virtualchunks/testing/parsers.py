"""The suite that every parser passes: subclass :class:`ParserTests` in a test module. Needs pytest.

A subclass says how to make files of its format and what a reference reader sees in them. The suite then checks values,
errors, where bytes come from, and what happens to damaged files.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from virtualchunks.errors import NotGrantedError, VirtualChunksError
from virtualchunks.isolation.answers import Parsed, loads
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.testing.mutants import MutantTests


class ParserTests(MutantTests):
    """What holds for every parser.

    Subclass it at the top of a module, under a name that pytest collects, set :attr:`parser`, and implement
    :meth:`make_files` and :meth:`reference`. The attributes that say how many mutants are tried, and what each may
    take, are those of :class:`~virtualchunks.testing.mutants.MutantTests`.
    """

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
        """And come back equal, also from a process of their own, which may answer with references alone."""
        for path in files.values():
            group, _ = self.parse(path)
            assert pickle.loads(pickle.dumps(group)) == group
            answer = loads(pickle.dumps(Parsed(group, beneath=False)))
            assert isinstance(answer, Parsed)
            assert answer.group == group

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
