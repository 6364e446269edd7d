"""Chunk keys: from the names of objects to chunks of a grid, all of an array at once.

Specification: https://zarr-specs.readthedocs.io/en/latest/v3/chunk-key-encodings/index.html.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import FormatError, UnsupportedFeatureError

Int64 = npt.NDArray[np.int64]
#: How many keys are taken apart at a time: their parts are short-lived, and many.
_BLOCK = 65_536
_NUMBER = "(?:0|[1-9][0-9]{0,17})"


@dataclass(frozen=True)
class ChunkKeys:
    """How the chunk keys of an array are spelled.

    Parameters
    ----------
    prefix
        What stands before the numbers, without a separator: ``"c"`` in Zarr v3's default encoding.
    separator
        What stands between the numbers: ``"/"`` or ``"."``.

    Examples
    --------
    >>> keys = ChunkKeys(prefix="c", separator="/")
    >>> rows, numbers = keys.numbers(["c/0/1", "zarr.json", "c/2/0", "c/0/7"], (3, 2))
    >>> rows.tolist(), numbers.tolist()
    ([0, 2], [1, 4])
    """

    prefix: str = ""
    separator: str = "."

    def __post_init__(self) -> None:
        if self.separator not in ("/", "."):
            raise FormatError(f"the separator of chunk keys is '/' or '.', found {self.separator!r}")

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | str) -> ChunkKeys:
        """Read the ``chunk_key_encoding`` of Zarr v3 array metadata.

        Raises
        ------
        UnsupportedFeatureError
            If the encoding is unknown.
        """
        if isinstance(document, str):
            document = {"name": document}
        name, configuration = document["name"], document.get("configuration") or {}
        if name not in _ENCODINGS:
            raise UnsupportedFeatureError(
                f"the chunk key encoding {name!r} is not known; known are {', '.join(_ENCODINGS)}"
            )
        prefix, separator = _ENCODINGS[name]
        return cls(prefix, configuration.get("separator", separator))

    @property
    def scalar(self) -> str:
        """The key of the only chunk of an array without dimensions."""
        return self.prefix or "0"

    def numbers(self, names: Sequence[str], shape: tuple[int, ...], skip: int = 0) -> tuple[Int64, Int64]:
        """Find the chunks among names.

        Parameters
        ----------
        names
            Keys of objects. Those that are no chunk keys, or lie outside the grid, are passed over, as Zarr never asks
            for them.
        shape
            Number of chunks along each axis.
        skip
            How many characters stand before the chunk key in each: the path of the array.

        Returns
        -------
        tuple of numpy.ndarray
            Places in `names`, and the number of the chunk in C order for each.
        """
        blocks = [
            self._numbers([name[skip:] for name in names[start : start + _BLOCK]], shape, start)
            for start in range(0, len(names), _BLOCK)
        ]
        empty = np.empty(0, dtype=np.int64)
        rows, numbers = zip(*blocks, strict=True) if blocks else ((), ())
        return np.concatenate([empty, *rows]), np.concatenate([empty, *numbers])

    def _numbers(self, names: list[str], shape: tuple[int, ...], start: int) -> tuple[Int64, Int64]:
        """Find the chunks among some names, of which the first has the place `start`."""
        if not shape:
            rows = np.array([row for row, name in enumerate(names) if name == self.scalar], dtype=np.int64)
            return rows + start, np.zeros(len(rows), dtype=np.int64)
        matches = re.compile(self._pattern(len(shape))).fullmatch
        found = [row for row, name in enumerate(names) if matches(name)]
        skip = len(self.prefix) + len(self.separator) if self.prefix else 0
        text = self.separator.join([names[row][skip:] for row in found])
        digits = text.split(self.separator) if found else []
        indices = np.fromiter(map(int, digits), dtype=np.int64, count=len(digits)).reshape(-1, len(shape))
        inside = (indices < np.array(shape)).all(axis=1)
        rows = np.array(found, dtype=np.int64)[inside] + start
        if not len(rows):
            return rows, np.empty(0, dtype=np.int64)
        return rows, np.ravel_multi_index(tuple(indices[inside].T), shape).astype(np.int64)

    def every(self, shape: tuple[int, ...]) -> Iterator[str]:
        """Iterate over the keys of all chunks of a grid, in C order."""
        if not shape:
            yield self.scalar
            return
        start = self.prefix + self.separator if self.prefix else ""
        if math.prod(shape):
            for index in itertools.product(*map(range, shape)):
                yield start + self.separator.join(map(str, index))

    def _pattern(self, ndim: int) -> str:
        separator = re.escape(self.separator)
        start = re.escape(self.prefix) + separator if self.prefix else ""
        return start + separator.join([_NUMBER] * ndim)


#: Prefix and usual separator of the key encodings of Zarr v3.
_ENCODINGS = {"default": ("c", "/"), "v2": ("", ".")}
