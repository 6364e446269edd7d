"""The form in which reference formats hold an array: one encoding for all its chunks, and a name for every dimension.

What has another form is refused here, by name, before a writer touches its target.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding, in_order
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata

#: Encodings that an error names.
_SHOWN = 4
_ADVICE = (
    "; read the values with .virtual.open() and write those, or leave the variable out. A ManifestStore "
    "(.virtual.to_store()) reads it as it is"
)


@dataclass(frozen=True)
class StoredArray:
    """An array as a writer lays it out.

    Parameters
    ----------
    path
        Path in the tree, without a leading slash.
    metadata
        What the array is; its encoding is that of every chunk, its dimensions all have names.
    manifest
        Where its chunks are.
    """

    path: str
    metadata: ArrayMetadata
    manifest: ChunkManifest

    @property
    def has_missing(self) -> bool:
        """Whether some chunk is missing."""
        if not len(self.manifest.sources):
            return self.manifest.records.size > 0
        return not bool(self.manifest.present.all())

    @property
    def in_memory(self) -> bool:
        """Whether every chunk is held in memory, as those of loaded variables are."""
        buffers = self.manifest.sources.buffers or {}
        return not self.has_missing and all(row in buffers for row in self.manifest.used_rows().tolist())


def stored_array(path: str, array: ManifestArray, target: str) -> StoredArray:
    """Return an array as it can be written.

    Parameters
    ----------
    path
        Path of the array in the tree.
    array
        The array.
    target
        Name of the format, for messages.

    Raises
    ------
    UnsupportedFeatureError
        If its chunks do not all decode alike, or not to the array's dtype and chunk shape.
    """
    stored = array.as_stored()
    metadata, manifest = stored.metadata, stored.manifest
    encodings = _encodings(metadata, manifest)
    if len(encodings) > 1:
        counts = ", ".join(f"{count} as {encoding!r}" for encoding, count in list(encodings.items())[:_SHOWN])
        counts += ", and others" if len(encodings) > _SHOWN else ""
        raise UnsupportedFeatureError(
            f"the chunks of {path!r} decode in {len(encodings)} ways ({counts}), but {target} holds one encoding for "
            f"each array{_ADVICE}",
            variable=path,
        )
    encoding = next(iter(encodings), None)
    own = metadata.transcoded().encoding if encoding is None else _nominal(path, metadata, encoding, target)
    names = dimension_names(path, metadata)
    return StoredArray(path, metadata.replace(encoding=own, dimension_names=names), manifest)


def _encodings(metadata: ArrayMetadata, manifest: ChunkManifest) -> dict[ChunkEncoding, int]:
    """Count the chunks that decode in each way."""
    if not len(manifest.sources):
        return {}
    ids = manifest.sources.encoding_ids
    if ids is None:
        count = len(manifest)
        return {metadata.encoding: count} if count else {}
    sources = manifest.records["source"][manifest.present]
    counts: dict[ChunkEncoding, int] = {}
    for number, count in enumerate(np.bincount(ids[sources]).tolist()):
        if count:
            encoding = manifest.sources.encodings[number - 1] if number else metadata.encoding
            counts[encoding] = counts.get(encoding, 0) + count
    return counts


def _nominal(path: str, metadata: ArrayMetadata, encoding: ChunkEncoding, target: str) -> ChunkEncoding:
    """Return an encoding whose bytes decode to the array's dtype and to whole chunks."""
    if encoding.lift_key:
        raise UnsupportedFeatureError(
            f"the chunks of {path!r} are packed as {encoding!r}, in a way that attributes of the whole array cannot "
            f"state beside its dtype {metadata.dtype} and its fill value {metadata.fill_value!r}{_ADVICE}",
            variable=path,
        )
    if in_order(encoding.dtype, "=") != metadata.dtype:
        raise UnsupportedFeatureError(
            f"the chunks of {path!r} hold {encoding.dtype} where the array is {metadata.dtype}, and {target} converts "
            f"nothing{_ADVICE}",
            variable=path,
        )
    if encoding.shape is None:
        return encoding
    if metadata.grid.is_regular and metadata.grid.chunk_shape == encoding.shape and encoding.start is None:
        return replace(encoding, shape=None)
    raise UnsupportedFeatureError(
        f"the chunks of {path!r} decode to the shape {encoding.shape}, which is not that of the array's chunks, and "
        f"{target} cuts nothing{_ADVICE}",
        variable=path,
    )


def codes_of(array: ManifestArray) -> tuple[npt.NDArray[np.int64], list[ChunkEncoding]]:
    """Return for each chunk in C order the number of its encoding, -1 for missing ones, and the encodings.

    Parameters
    ----------
    array
        The array.
    """
    metadata, table = array.metadata, array.manifest.sources
    known: dict[ChunkEncoding, int] = {}
    every = [_whole(metadata, encoding) for encoding in (metadata.encoding, *table.encodings)]
    numbers = np.array([known.setdefault(encoding, len(known)) for encoding in every], dtype=np.int64)
    ids = np.zeros(len(table), dtype=np.int32) if table.encoding_ids is None else table.encoding_ids
    if not len(table):
        return np.full(metadata.grid.size, -1, dtype=np.int64), list(known)
    source = array.manifest.records["source"].reshape(-1)
    return np.where(source >= 0, numbers[ids][source], -1), list(known)


def _whole(metadata: ArrayMetadata, encoding: ChunkEncoding) -> ChunkEncoding:
    """Return an encoding without a shape of its own, if that is the shape of all chunks."""
    if encoding.start is None and metadata.grid.is_regular and encoding.shape == metadata.grid.chunk_shape:
        return replace(encoding, shape=None)
    return encoding


def dimension_names(path: str, metadata: ArrayMetadata) -> tuple[str, ...]:
    """Return the dimension names; a dimension without one is the array's own, as in a virtual Dataset.

    Parameters
    ----------
    path
        Path of the array.
    metadata
        What it is.
    """
    names = metadata.dimension_names or (None,) * metadata.ndim
    own = path.rpartition("/")[2]
    return tuple(f"{own}_dim_{axis}" if name is None else name for axis, name in enumerate(names))


@dataclass(frozen=True)
class Block:
    """A run of chunks of one array, in C order, that are not missing.

    Parameters
    ----------
    number
        Number of each chunk in the grid, counted in C order.
    source, offset, length
        Columns of the records.
    """

    number: npt.NDArray[np.int64]
    source: npt.NDArray[np.int32]
    offset: npt.NDArray[np.uint64]
    length: npt.NDArray[Any]


def blocks(manifest: ChunkManifest, size: int) -> Iterator[Block]:
    """Iterate over the chunks that are not missing, those of `size` consecutive grid numbers at a time."""
    if not len(manifest.sources):
        return
    flat = manifest.records.reshape(-1)
    for start in range(0, len(flat), size):
        part = flat[start : start + size]
        present = part["source"] >= 0
        kept = np.flatnonzero(present)
        whole = part if len(kept) == len(part) else part[kept]
        yield Block(kept + start, whole["source"], whole["offset"], whole["length"])
