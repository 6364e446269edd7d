"""Shards: the chunks within them, as references into the shard, found by reading each shard's index and nothing else.

Specification: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html. The codecs of the
chunks within become those of the array. A shard within a shard stays what it is, one chunk that the codec decodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.codecs.pipeline import check_encoding, decode_block
from virtualchunks.encoding import ChunkEncoding, in_order
from virtualchunks.errors import DecodeError, FormatError, ManifestError, UnsupportedFeatureError
from virtualchunks.grid import ChunkGrid
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.reading.fetch import fetch
from virtualchunks.reading.ranges import REMOTE
from virtualchunks.reading.turns import letting_others
from virtualchunks.records import Records
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.zarr.manifests import check_grid, missing_records
from virtualchunks_parsers.zarr.metadata_v3 import check_codecs

SHARDING = "sharding_indexed"
_ABSENT = np.iinfo(np.uint64).max
#: Codecs of an index that keep its length, and by how many bytes they add to it.
_INDEX_CODECS = {"bytes": 0, "crc32c": 4}


@dataclass(frozen=True)
class Shards:
    """How the shards of an array hold its chunks.

    Parameters
    ----------
    metadata
        The array as made of the chunks within.
    shards
        Number of shards along each axis.
    within
        Number of chunks along each axis of a shard.
    index
        How the index decodes.
    index_bytes
        Length of the index, in bytes.
    at_end
        Whether it stands at the end of the shard, or else at its beginning.
    """

    metadata: ArrayMetadata
    shards: tuple[int, ...]
    within: tuple[int, ...]
    index: ChunkEncoding
    index_bytes: int
    at_end: bool

    @classmethod
    def of(cls, metadata: ArrayMetadata) -> Shards | None:
        """Return how an array is sharded; ``None`` where it is not, or only in a way that its codec has to decode.

        Parameters
        ----------
        metadata
            The array as it is stored.
        """
        codecs = metadata.codecs
        if len(codecs) != 1 or codecs[0]["name"] != SHARDING or not metadata.grid.is_regular:
            return None
        configuration = codecs[0]["configuration"]
        inner, outer = tuple(configuration["chunk_shape"]), metadata.grid.chunk_shape
        if len(inner) != len(outer) or any(size < 1 or whole % size for size, whole in zip(inner, outer, strict=True)):
            raise ManifestError(f"chunks of shape {inner} do not fill shards of shape {outer}")
        index = _index_encoding(configuration.get("index_codecs"))
        if index is None:
            return None
        within = tuple(whole // size for size, whole in zip(inner, outer, strict=True))
        added = sum(_INDEX_CODECS[codec["name"]] for codec in index.codecs)
        encoding = _inner_encoding(metadata, configuration["codecs"])
        check_encoding(encoding, inner)
        return cls(
            metadata.replace(grid=ChunkGrid.regular(metadata.shape, inner), encoding=encoding),
            metadata.grid.grid_shape,
            within,
            index,
            16 * math.prod(within) + added,
            configuration.get("index_location", "end") == "end",
        )

    def manifest(self, shards: ChunkManifest, registry: ObjectStoreRegistry) -> ChunkManifest:
        """Return the manifest of the chunks within shards.

        Parameters
        ----------
        shards
            Where the shards are; those held in memory too.
        registry
            Which grants them. One request is made for each.

        Raises
        ------
        FormatError
            If an index is damaged, or points outside its shard.
        """
        places = [tuple(place) for place in np.argwhere(shards.present).tolist()]
        total = math.prod(self.shards) * math.prod(self.within)
        check_grid(total, len(places) * math.prod(self.within))
        if not places:
            return ChunkManifest.missing(self.metadata.grid.grid_shape)
        found = shards.records[tuple(np.transpose(places))] if self.shards else shards.records.reshape(1)
        with letting_others(), ThreadPoolExecutor(REMOTE.concurrency, "virtualchunks-shards") as pool:
            indices = list(pool.map(lambda record: self._index(record, shards, registry), found))
        wide = any(int(index["length"].max()) >= 2**32 for index in indices)
        return ChunkManifest.from_records(self._spread(places, indices, wide), shards.sources)

    def _spread(self, places: Sequence[tuple[int, ...]], indices: Sequence[Records], wide: bool) -> Records:
        """Put the chunks of each shard where they belong, and leave out those beyond the end of the array."""
        records = missing_records(math.prod(self.shards) * math.prod(self.within), wide=wide)
        ndim = len(self.shards)
        pairs = tuple(size for pair in zip(self.shards, self.within, strict=True) for size in pair)
        blocks = records.reshape(pairs).transpose([*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2)])
        for place, index in zip(places, indices, strict=True):
            blocks[place] = index.astype(records.dtype)
        whole = records.reshape(tuple(a * b for a, b in zip(self.shards, self.within, strict=True)))
        return np.ascontiguousarray(whole[tuple(slice(0, count) for count in self.metadata.grid.grid_shape)])

    def _index(self, shard: Any, shards: ChunkManifest, registry: ObjectStoreRegistry) -> Records:
        """Read the index of one shard, as records of its chunks."""
        row, start, length = int(shard["source"]), int(shard["offset"]), int(shard["length"])
        url = shards.sources.url(row)
        if length < self.index_bytes:
            raise FormatError(
                f"a shard of {length} bytes is shorter than its index, {self.index_bytes}", url=url or None
            )
        at = start + (length - self.index_bytes if self.at_end else 0)
        held = shards.sources.buffer(row)
        data: Any = held[at : at + self.index_bytes] if held is not None else None
        if data is None:
            data = fetch(registry, url, [(at, self.index_bytes)], shards.sources.stamp(row) or None)[0]
        try:
            entries = decode_block(data, self.index, (*self.within, 2))
        except DecodeError as error:
            raise FormatError(f"the index of the shard {url} is damaged: {error.message}", url=url or None) from error
        return self._records(entries, row, start, length, url)

    def _records(self, entries: npt.NDArray[Any], row: int, start: int, length: int, url: str) -> Records:
        offsets, sizes = entries[..., 0], entries[..., 1]
        there = (offsets != _ABSENT) | (sizes != _ABSENT)
        ends = offsets[there] + sizes[there]
        if len(ends) and (
            int(ends.max()) > length or int(offsets[there].max()) > length or int(sizes[there].min()) == 0
        ):
            raise FormatError(f"the index of the shard {url} points outside it", url=url or None)
        records = missing_records(entries[..., 0].size, wide=length >= 2**32).reshape(self.within)
        records["source"][there] = row
        records["offset"][there] = offsets[there] + np.uint64(start)
        records["length"][there] = sizes[there]
        return records


def _index_encoding(codecs: Any) -> ChunkEncoding | None:
    """Return how an index decodes; ``None`` where its length depends on what it holds."""
    given = [{"name": codec} if isinstance(codec, str) else dict(codec) for codec in codecs or ()]
    if not given or any(codec["name"] not in _INDEX_CODECS for codec in given):
        return None
    check_codecs(given)
    return ChunkEncoding(_ordered(np.dtype("<u8"), given), tuple(given))


def _inner_encoding(metadata: ArrayMetadata, codecs: Any) -> ChunkEncoding:
    given = [{"name": codec} if isinstance(codec, str) else dict(codec) for codec in codecs]
    if not given:
        raise UnsupportedFeatureError("the chunks within shards have no codecs")
    check_codecs(given)
    return ChunkEncoding(_ordered(metadata.dtype, given), tuple(given))


def _ordered(dtype: np.dtype[Any], codecs: Sequence[Mapping[str, Any]]) -> np.dtype[Any]:
    """Return the dtype in the byte order that the ``bytes`` codec says."""
    for codec in codecs:
        if codec["name"] == "bytes":
            big = (codec.get("configuration") or {}).get("endian") == "big"
            return in_order(dtype, ">" if big else "<")
    return dtype
