"""References as columns: which array each belongs to, and what it says, without a step of Python for each.

All work on references is done by comprehensions and NumPy over whole columns; only what differs from the usual
``[url, offset, length]`` is looked at by itself.
"""

from __future__ import annotations

import base64
import binascii
import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError, LimitExceededError
from virtualchunks.sources import SourceTable, Stamp
from virtualchunks_parsers.kerchunk.fills import Fills
from virtualchunks_parsers.kerchunk.targets import Targets
from virtualchunks_parsers.zarr.manifests import Chunks
from virtualchunks_parsers.zarr.nodes import StoredArray

Int64 = npt.NDArray[np.int64]

#: Largest inline chunk, and the most of all inline chunks of a document, in bytes.
LARGEST_INLINE = 64 << 20
MOST_INLINE = 64 << 20


@dataclass
class InlineBudget:
    """How much a document may hold inline.

    Parameters
    ----------
    left
        Bytes that are left.
    """

    left: int = MOST_INLINE

    def take(self, data: bytes) -> bytes:
        """Return an inline chunk, counted.

        Raises
        ------
        LimitExceededError
            If it is too large, or one too many.
        """
        if len(data) > LARGEST_INLINE:
            raise LimitExceededError(f"an inline chunk of {len(data):,} bytes; the most is {LARGEST_INLINE:,}")
        self.left -= len(data)
        if self.left < 0:
            raise LimitExceededError(f"inline chunks of more than {MOST_INLINE:,} bytes in all")
        return data


@dataclass(frozen=True)
class References:
    """References sorted out by array.

    Parameters
    ----------
    keys, values
        All of them, in the order of the document.
    rows
        For each array, by path, which of them lie beneath it.
    targets
        What their paths name.
    """

    keys: Sequence[str]
    values: Sequence[Any]
    rows: Mapping[str, Int64]
    targets: Targets
    budget: InlineBudget = field(default_factory=InlineBudget)

    @classmethod
    def sorted_out(cls, references: Mapping[str, Any], arrays: Iterable[str], targets: Targets) -> References:
        """Sort out references by the array they lie beneath.

        Parameters
        ----------
        references
            By key.
        arrays
            Paths of the arrays.
        targets
            What paths name.
        """
        keys, values = list(references), list(references.values())
        paths = {path: number for number, path in enumerate(arrays)}
        owners = np.concatenate(
            [np.empty(0, dtype=np.int64)]
            + [_owners(keys[start : start + _BLOCK], paths) for start in range(0, len(keys), _BLOCK)]
        )
        order = np.argsort(owners, kind="stable")
        bounds = np.searchsorted(owners[order], np.arange(len(paths) + 1))
        rows = {path: order[bounds[number] : bounds[number + 1]] for path, number in paths.items()}
        return cls(keys, values, rows, targets)

    def array(self, stored: StoredArray, fills: Fills | None = None) -> ManifestArray:
        """Return an array.

        Parameters
        ----------
        stored
            What it is.
        fills
            What our writer said of its missing chunks.

        Raises
        ------
        FormatError, UnsupportedFeatureError
            As :meth:`chunks`.
        LimitExceededError
            If too much is inline, or the grid is out of proportion.
        """
        chunks = self.chunks(stored)
        grid = stored.metadata.grid
        count = len(chunks.numbers) + len(chunks.held)
        believed = None if fills is None or (fills.needs_all and count < grid.size) else fills
        held = chunks.held if believed is None else believed.without_written(chunks.held)
        for data in held.values():
            self.budget.take(data)
        metadata = stored.metadata if believed is None else believed.metadata
        return ManifestArray(metadata, replace(chunks, held=held).manifest(grid))

    def chunks(self, array: StoredArray) -> Chunks:
        """Return the chunks of an array.

        Raises
        ------
        FormatError
            If a reference is not formed as specified.
        UnsupportedFeatureError
            If a path cannot be represented.
        """
        rows = self.rows[array.path]
        skip = len(array.path) + 1 if array.path else 0
        names = [self.keys[row] for row in rows.tolist()]
        found, numbers = array.keys.numbers(names, array.metadata.grid.grid_shape, skip)
        del names
        values = [self.values[row] for row in rows[found].tolist()]
        is_target = np.ones(len(values), dtype=bool)
        if not set(map(type, values)) <= _LISTS:
            is_target[:] = [type(value) in _LISTS for value in values]
        held = {
            number: inline_bytes(values[place])
            for place, number in zip(np.flatnonzero(~is_target).tolist(), numbers[~is_target].tolist(), strict=True)
        }
        if held:
            numbers = numbers[is_target]
            values = [value for value, kept in zip(values, is_target.tolist(), strict=True) if kept]
        paths, offsets, lengths = _columns(values)
        return from_columns(numbers, paths, offsets, lengths, self.targets, held)


_LISTS = frozenset({list, tuple})
#: How many keys are sorted out at a time.
_BLOCK = 65_536


def _owners(keys: Sequence[str], paths: Mapping[str, int]) -> Int64:
    """Return the number of the array that each key lies in or beneath; -1 for none."""
    heads = [key.rpartition("/")[0] for key in keys]
    owner = {head: _owner(head, paths) for head in dict.fromkeys(heads)}
    return np.fromiter(map(owner.__getitem__, heads), dtype=np.int64, count=len(heads))


def _owner(head: str, paths: Mapping[str, int]) -> int:
    """Return the number of the array that a path lies in or beneath; -1 for none."""
    while head not in paths:
        if not head:
            return -1
        head = head.rpartition("/")[0]
    return paths[head]


def _columns(values: Sequence[Sequence[Any]]) -> tuple[list[str], Int64, Int64]:
    """Return paths, offsets and lengths; the length -1 stands for a whole object."""
    shapes = set(map(len, values))
    if not shapes <= {1, 3}:
        raise FormatError(
            f"a reference is [url] or [url, offset, length], found one of {sorted(shapes - {1, 3})} items"
        )
    paths = [value[0] for value in values]
    if shapes == {3}:
        return paths, _integers([value[1] for value in values]), _integers([value[2] for value in values])
    offsets = _integers([value[1] if len(value) == 3 else 0 for value in values])
    lengths = _integers([value[2] if len(value) == 3 else 0 for value in values])
    whole = np.fromiter((len(value) == 1 for value in values), dtype=bool, count=len(values))
    return paths, offsets, np.where(whole, -1, lengths)


def _integers(column: list[Any]) -> Int64:
    """Return a column of integers; a boolean, a fraction or text among them is an error."""
    kinds = set(map(type, column))
    if bool in kinds:
        raise FormatError("an offset or length is a boolean")
    try:
        numbers = np.array(column if kinds <= {int} else list(map(operator.index, column)), dtype=np.int64)
    except (TypeError, OverflowError) as error:
        raise FormatError("an offset or length is no integer below 2**63") from error
    if len(numbers) and int(numbers.min()) < 0:
        raise FormatError(f"the offset or length of a chunk is negative: {numbers.min()}")
    return numbers


def from_columns(
    numbers: Int64,
    paths: Sequence[str],
    offsets: Int64,
    lengths: Int64,
    targets: Targets,
    held: Mapping[int, bytes],
) -> Chunks:
    """Return chunks from columns of references.

    Parameters
    ----------
    numbers
        Which chunk each is, in C order of the grid.
    paths, offsets, lengths
        What each refers to; the length -1 stands for a whole object.
    targets
        What paths name.
    held
        Chunks that are inline, by number.
    """
    distinct = {path: place for place, path in enumerate(dict.fromkeys(paths))}
    codes = np.fromiter(map(distinct.__getitem__, paths), dtype=np.int64, count=len(paths))
    return from_codes(numbers, list(distinct), codes, offsets, lengths, targets, held)


def from_codes(
    numbers: Int64,
    distinct: Sequence[str],
    codes: Int64,
    offsets: Int64,
    lengths: Int64,
    targets: Targets,
    held: Mapping[int, bytes],
) -> Chunks:
    """Return chunks as :func:`from_columns` does, from the distinct paths and the place among them of each."""
    if not all(isinstance(path, str) for path in distinct):
        raise FormatError("the path of a reference is no text")
    urls = list(map(targets.url, distinct))
    rows = {url: row for row, url in enumerate(dict.fromkeys(urls))}
    row_of = np.fromiter(map(rows.__getitem__, urls), dtype=np.int64, count=len(urls))
    sources = row_of[codes] if len(codes) else codes
    whole = lengths == -1
    stamps: list[Stamp | None] | None = None
    if whole.any():
        names = list(rows)
        used = np.unique(sources[whole]).tolist()
        stamps = [None] * len(names)
        for row, stamp in zip(used, targets.stamps(names[row] for row in used), strict=True):
            stamps[row] = stamp
        sizes = np.array([0 if stamp is None else stamp.size or 0 for stamp in stamps], dtype=np.int64)
        lengths = np.where(whole, sizes[sources], lengths)
    return Chunks(numbers, sources, offsets, lengths, SourceTable.of_urls(list(rows), stamps), held)


def inline_bytes(value: Any) -> bytes:
    """Return the bytes of an inline reference.

    Parameters
    ----------
    value
        Text, which ``base64:`` may begin; bytes; or an object, which stands for its JSON.

    Raises
    ------
    FormatError
        If it is something else.

    Examples
    --------
    >>> inline_bytes("base64:AQI="), inline_bytes("ab")
    (b'\\x01\\x02', b'ab')
    """
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value)
        return _decode(value[7:]) if value.startswith(b"base64:") else value
    if isinstance(value, str):
        return _decode(value[7:].encode()) if value.startswith("base64:") else value.encode("utf-8", "surrogatepass")
    if isinstance(value, Mapping):
        return json.dumps(value).encode()
    raise FormatError(f"an inline reference is text, or an object, found {type(value).__name__}")


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error as error:
        raise FormatError(f"an inline reference is no base64: {error}") from error


def metadata_keys(references: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """Iterate over the keys of metadata documents."""
    endings = tuple(names)
    wanted = frozenset(names)
    return (key for key in [key for key in references if key.endswith(endings)] if key.rpartition("/")[2] in wanted)
