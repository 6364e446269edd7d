"""Records: the 16 bytes that stand for a chunk, the keys that name it, and what makes either of them wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import ManifestError
from virtualchunks.sources import SourceTable
from virtualchunks.urls import as_url, canonical_urls

Records = npt.NDArray[Any]

#: One chunk reference: 16 bytes.
RECORD = np.dtype([("source", "<i4"), ("length", "<u4"), ("offset", "<u8")])
#: The same where a chunk is 4 GiB or longer: 20 bytes.
WIDE_RECORD = np.dtype([("source", "<i4"), ("length", "<u8"), ("offset", "<u8")])
#: The source of a missing chunk.
MISSING = -1
#: The source of a chunk that stands for the last element, as xarray asks for it when it reindexes.
PENDING = -2

LARGEST_OFFSET = 2**63 - 1

#: How many chunks are looked at in one step, where a step takes memory of its own.
_BLOCK = 65_536


def chunk_key(index: Sequence[int], separator: str = ".") -> str:
    """Return the chunk key of a grid index; ``"0"`` for a scalar's only chunk."""
    return separator.join(map(str, index)) or "0"


def parse_chunk_key(key: str, separator: str = ".") -> tuple[int, ...]:
    """Return the grid index that a chunk key names.

    Raises
    ------
    ManifestError
        If the key is not numbers joined by the separator.
    """
    parts = key.split(separator)
    if not all(_is_number(part) for part in parts):
        raise ManifestError(
            f"{key!r} is not a chunk key: expected numbers joined by {separator!r}, as in '0{separator}3'"
        )
    return tuple(map(int, parts))


def _is_number(part: str) -> bool:
    return (
        part.isascii() and part.isdigit() and (part == "0" or part[0] != "0") and len(part) <= len(str(LARGEST_OFFSET))
    )


def spanned_shape(indices: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the smallest grid shape that holds all indices."""
    ranks = {len(index) for index in indices}
    if len(ranks) > 1:
        raise ManifestError(f"chunk keys differ in their number of dimensions: {sorted(ranks)}")
    return tuple(max(numbers) + 1 for numbers in zip(*indices, strict=True))


def check_inside(indices: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> None:
    """Raise ManifestError for an index outside a chunk grid."""
    for index in indices:
        if len(index) != len(shape) or any(not 0 <= i < n for i, n in zip(index, shape, strict=True)):
            raise ManifestError(f"chunk {index} lies outside the chunk grid of shape {shape}", chunk=index)


def checked_entry(key: str, entry: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return path, offset and length of an entry, or raise ManifestError where one of them is none."""
    if not {"path", "offset", "length"} <= set(entry):
        raise ManifestError(f"chunk {key!r} needs 'path', 'offset' and 'length', or 'data'; found {sorted(entry)}")
    path, offset, length = entry["path"], entry["offset"], entry["length"]
    for name, number in (("offset", offset), ("length", length)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise ManifestError(f"the {name} of chunk {key!r} is not an integer: {number!r}")
        if not 0 <= number <= LARGEST_OFFSET:
            raise ManifestError(f"the {name} of chunk {key!r} is out of range: {number}")
    return path, int(offset), int(length)


def check_ranges(offsets: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> None:
    """Raise ManifestError for columns that are not positions and lengths in a file."""
    for name, column in (("offsets", offsets), ("lengths", lengths)):
        if column.dtype.kind not in "iu" and column.size:
            raise ManifestError(f"{name} must be integers, found the dtype {column.dtype}")
        if column.size and (column.min() < 0 or int(column.max()) > LARGEST_OFFSET):
            raise ManifestError(f"{name} must lie between 0 and 2**63 - 1, found {column.min()} to {column.max()}")
    if not offsets.size or int(offsets.max()) + int(lengths.max()) <= LARGEST_OFFSET:
        return
    if int((offsets.astype(np.uint64) + lengths.astype(np.uint64)).max()) > LARGEST_OFFSET:
        raise ManifestError("a chunk ends beyond 2**63 - 1 bytes")


def check_lengths(records: Records) -> None:
    """Raise ManifestError for a chunk that is there and has no bytes."""
    flat = records.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        empty = np.flatnonzero((block["source"] >= 0) & (block["length"] == 0))
        if empty.size:
            index = tuple(int(i) for i in np.unravel_index(start + empty[0], records.shape))
            raise ManifestError(f"chunk {index} has the length 0; leave the path of a missing chunk empty", chunk=index)


def distinct(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array without its repetitions: axes that broadcasting made have the length 1."""
    once = (
        slice(0, 1) if stride == 0 and size else slice(None)
        for stride, size in zip(array.strides, array.shape, strict=True)
    )
    return array[(*once, ...)]


def factorise(names: npt.NDArray[Any], rows: npt.NDArray[np.int32], *, validate: bool) -> SourceTable:
    """Return the table of the distinct URLs in an array of them.

    Parameters
    ----------
    names
        A URL for each chunk, or the empty string.
    rows
        An array of the same shape, which takes the row of each; -1 for the empty string.
    validate
        Whether to bring the URLs into their canonical spelling.

    Raises
    ------
    ManifestError
        If something is no text.
    URLError
        If it is no acceptable URL, where that is to be validated.
    """
    once = distinct(names)
    found = np.empty(once.shape, dtype=np.int32) if once.size < names.size else rows
    numbers = _number(once, found)
    if not all(isinstance(name, str) for name in numbers):
        raise ManifestError("paths must be strings")
    urls = [name for name in numbers if name]
    canonical = canonical_urls([as_url(url) if url.startswith("/") else url for url in urls]) if validate else urls
    row_of_url = {url: row for row, url in enumerate(dict.fromkeys(canonical))}
    row_of = {name: row_of_url[url] for name, url in zip(urls, canonical, strict=True)}
    final = np.fromiter((row_of.get(name, MISSING) for name in numbers), dtype=np.int32, count=len(numbers))
    if not np.array_equal(final, np.arange(len(numbers))):
        _renumber(found, final)
    if found is not rows:
        rows[...] = found
    return SourceTable.of_urls(list(row_of_url))


def _number(names: npt.NDArray[Any], codes: npt.NDArray[np.int32]) -> dict[str, int]:
    """Number the distinct names as they come, write each one's number to `codes`, and return the numbers."""
    flat = names.reshape(-1) if names.flags.c_contiguous else names.flat
    numbers: dict[str, int] = {}
    for start in range(0, names.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        first, count = _runs(block)
        texts = block[first].tolist()
        for name in dict.fromkeys(texts):
            numbers.setdefault(name, len(numbers))
        code = np.fromiter(map(numbers.__getitem__, texts), dtype=np.int32, count=len(texts))
        codes.flat[start : start + len(block)] = np.repeat(code, count)
    return numbers


def _runs(block: npt.NDArray[Any]) -> tuple[Any, Any]:
    """Return where runs of one name begin, and how long each is; files usually come one after the other."""
    if block.dtype != np.dtypes.StringDType():
        return slice(None), 1
    first = np.concatenate([[0], np.flatnonzero(block[1:] != block[:-1]) + 1])
    return first, np.diff(first, append=len(block))


def _renumber(codes: npt.NDArray[np.int32], final: npt.NDArray[np.int32]) -> None:
    for start in range(0, codes.size, _BLOCK):
        codes.flat[start : start + _BLOCK] = final[codes.flat[start : start + _BLOCK]]
