"""Kerchunk references as a JSON file, written block by block."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.writers.homogenising import Heterogeneous
from virtualchunks.writers.kerchunk.documents import kept_references
from virtualchunks.writers.kerchunk.modes import KerchunkMode, resolved_mode
from virtualchunks.writers.kerchunk.references import (
    ArrayReferences,
    References,
    ZarrFormat,
    homogeneous,
    inline_text,
    metadata_text,
    references,
)
from virtualchunks.writers.kerchunk.sidefile import SideFile
from virtualchunks.writers.targets import target_of

Compression = Literal["infer", "gzip", "zstd"]


def write_json(
    group: ManifestGroup,
    target: str | os.PathLike[str],
    *,
    registry: Any = None,
    store: Any = None,
    compression: Compression | None = "infer",
    zarr_format: ZarrFormat = 2,
    mode: KerchunkMode = "w",
    heterogeneous: Heterogeneous = "error",
    sources: Any = None,
) -> None:
    """Write the references of a tree as one JSON file, which replaces what is there whole or not at all.

    Parameters
    ----------
    group
        The root of the tree.
    target
        A local path or a URL; or a key of `store`.
    registry
        Stores by prefix, where the target is a URL of one.
    store
        An obstore store.
    compression
        ``"gzip"`` or ``"zstd"``; ``None`` for none. By default, the name says it: ``.gz``, ``.zst`` or ``.zstd``.
        fsspec reads it with ``target_options={"compression": …}``.
    zarr_format
        As for :func:`to_references`.
    mode
        ``"w"`` replaces what is there, ``"w-"`` refuses to, ``"a"`` adds arrays to it and replaces those of the same
        path, for which the whole file is written again.
    heterogeneous
        As for :func:`to_references`. Chunks that are encoded anew and take more than 1 MiB are written to a file beside
        the target, whose name is the target's with ``.….chunks`` behind it, and which is there before the references
        are; references lead to it by its URL, so it has to stay where it is.
    sources
        What may be read for that; by default what `registry` grants.

    Raises
    ------
    UnsupportedFeatureError, LimitExceededError
        If an array cannot be written; the message names it. Nothing is written then.
    TargetExistsError
        If `mode` is ``"w-"`` and the target is there.
    WriteError
        If the target cannot be written; what was there before is untouched.
    FormatError
        If arrays are to be added to a file that holds no references.

    Notes
    -----
    ``xarray.open_dataset(target, engine="kerchunk")`` reads the file, with ``group=…`` for the groups below the root.
    """
    place = target_of(target, registry, store)
    compress = _compressor(compression, os.fspath(target))
    chosen = resolved_mode(mode)
    side = SideFile.beside(place)
    granted = registry if sources is None else sources
    made = references(homogeneous(group, heterogeneous, granted, zarr_format, side=side), zarr_format)
    before = place.read_file() if chosen == "a" else None
    kept: Mapping[str, Any] = {} if before is None else kept_references(before, made, place.url)
    pieces = (text.encode() for text in _text(made, kept))
    beside = (f".{side.name}", side.data) if side is not None and side.name else None
    place.write_file(compress(pieces), "w" if chosen == "a" else chosen, beside)


def _text(made: References, kept: Mapping[str, Any]) -> Iterator[str]:
    """Yield the document, in pieces."""
    templates = f'"templates":{json.dumps(made.templates)},' if made.templates else ""
    yield f'{{"version":1,{templates}"refs":{{'
    for key, value in kept.items():
        yield f"{json.dumps(key)}:{json.dumps(value)},"
    documents = (f"{json.dumps(key)}:{json.dumps(metadata_text(value))}" for key, value in made.metadata.items())
    yield ",".join(documents)
    for array in made.arrays:
        for entries in _entries(array):
            yield ","
            yield entries
    yield "}}"


def _entries(array: ArrayReferences) -> Iterator[str]:
    """Yield the entries of the chunks of an array, joined, some at a time."""
    start = json.dumps(f"{array.path}/")[:-1]
    heads = [f'":[{json.dumps(target)},' for target in array.targets]
    form = f"{start.replace('%', '%%')}{array.key_format}%s%d,%d]"
    for block in array.blocks():
        columns = (map(heads.__getitem__, block.source.tolist()), block.offset.tolist(), block.length.tolist())
        entries = list(map(form.__mod__, zip(*array.indices(block.number), *columns, strict=True)))
        for place, data in array.buffers(block):
            [key] = array.keys(block.number[place : place + 1])
            entries[place] = f'{start}{key}":"{inline_text(data)}"'
        if entries:
            yield ",".join(entries)
    if array.missing is not None:
        tail = f'":"{inline_text(array.missing)}"'
        for keys in itertools.batched(array.keys(array.missing_numbers()), 1024):
            yield ",".join(f"{start}{key}{tail}" for key in keys)


def _gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if piece:
            yield gzip.compress(piece, 6, mtime=0)


def _zstd(pieces: Iterable[bytes]) -> Iterator[bytes]:
    from numcodecs import Zstd  # comes with zarr

    yield bytes(Zstd(level=3).encode(b"".join(pieces)))


_COMPRESSORS: dict[str | None, Callable[[Iterable[bytes]], Iterable[bytes]]] = {
    None: lambda pieces: pieces,
    "gzip": _gzip,
    "zstd": _zstd,
}


#: What the name of a file says of its compression, as fsspec understands it.
_SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}


def _compressor(name: str | None, target: str) -> Callable[[Iterable[bytes]], Iterable[bytes]]:
    if name == "infer":
        name = _SUFFIXES.get(os.path.splitext(target)[1].lower())
    if name not in _COMPRESSORS:
        raise UnsupportedFeatureError(f"unknown compression {name!r}; known are 'gzip', 'zstd', 'infer' and None")
    return _COMPRESSORS[name]
