"""What our writer says beside Zarr v2 metadata, so that fill values and missing chunks come back.

In Zarr v2 metadata as xarray reads it, the fill value masks. Where missing chunks must read as another value, the
writer writes them out, and says so in a member of ``.zarray`` that other readers pass over. Here, such chunks are
missing again. The member is believed only where values stay what other readers find: a chunk is missing again only if
it decodes to the fill value throughout, and a fill value other than that of Zarr v2 counts only where no chunk lacks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.errors import DecodeError, ManifestError, MissingDependencyError
from virtualchunks.metadata import ArrayMetadata, fill_from_json, fill_scalar
from virtualchunks_parsers.zarr.nodes import Node, StoredArray

#: The member of ``.zarray``: ``fill_value`` as Zarr v3 writes it; ``is_mask``, whether that of Zarr v2 is an attribute
#: ``_FillValue``, too; ``missing``, from the SHA-256 of a chunk to the number of the first that stands for a missing
#: one; ``held``, the numbers of those chunks of the same bytes that do not.
MEMBER = "virtualchunks"
#: Largest chunk, decoded, that is looked at to find out whether it is missing, and all of one document, in bytes.
LARGEST, MOST_DECODED = 256 << 20, 4 << 30
_BLOCK = 1 << 20


@dataclass
class DecodingBudget:
    """How much of a document is decoded to find out what is missing.

    Parameters
    ----------
    left
        Bytes that are left.
    """

    left: int = MOST_DECODED

    def take(self, size: int) -> bool:
        """Count bytes that are to be decoded; return whether they may be."""
        if size > min(self.left, LARGEST):
            return False
        self.left -= size
        return True


@dataclass(frozen=True)
class Fills:
    """How missing chunks of one array were written.

    Parameters
    ----------
    metadata
        The array as it was before it was written.
    needs_all
        Whether its fill value differs from that of Zarr v2, so that no chunk may lack.
    missing
        By SHA-256 of a chunk, the number from which on it stands for a missing one.
    held
        Numbers of chunks that do not.
    budget
        How much may be decoded.
    """

    metadata: ArrayMetadata
    needs_all: bool
    missing: Mapping[str, int]
    held: frozenset[int]
    budget: DecodingBudget = field(default_factory=DecodingBudget, compare=False)
    _decoded: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, node: Node, stored: StoredArray, budget: DecodingBudget) -> Fills | None:
        """Return what a node says of its missing chunks; ``None`` where it says nothing that can be understood."""
        member = node.document.get(MEMBER)
        if node.zarr_format != 2 or not isinstance(member, Mapping):
            return None
        missing, held = member.get("missing", {}), member.get("held", [])
        numbers = [*missing.values(), *held] if isinstance(missing, Mapping) and isinstance(held, list) else [None]
        if not all(type(number) is int for number in numbers):
            return None
        metadata = stored.metadata
        try:
            fill = fill_scalar(fill_from_json(member["fill_value"], metadata.dtype), metadata.dtype)
        except (ManifestError, KeyError, OverflowError, AttributeError):
            return None
        if np.ndim(fill):
            return None
        attributes = dict(metadata.attributes)
        if member.get("is_mask") is False and metadata.dtype.kind == "f" and np.isnan(metadata.fill_value):
            attributes.pop("_FillValue", None)  # NaN is NaN, masked or not
        same = _pattern(fill, metadata.dtype) == _pattern(metadata.fill_value, metadata.dtype)
        made = metadata.replace(fill_value=fill, attributes=attributes)
        return cls(made, not same, missing, frozenset(held), budget)

    def without_written(self, held: Mapping[int, bytes], start: int = 0) -> dict[int, bytes]:
        """Return inline chunks without those that stand for missing ones.

        Parameters
        ----------
        held
            The chunks, by number.
        start
            The number that the chunk with the number 0 has in the array.
        """
        firsts = {data: self._first(data) for data in set(held.values())} if self.missing else {}
        return {
            number: data
            for number, data in held.items()
            if (first := firsts.get(data)) is None or start + number < first or start + number in self.held
        }

    def _first(self, data: bytes) -> int | None:
        """Return the number from which on a chunk stands for missing ones; ``None`` for a chunk that does not."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.missing:
            return None
        if digest not in self._decoded:
            self._decoded[digest] = self._is_fill(data)
        return self.missing[digest] if self._decoded[digest] else None

    def _is_fill(self, data: bytes) -> bool:
        """Whether a chunk decodes to the fill value throughout."""
        metadata = self.metadata
        if not self.budget.take(math.prod(metadata.chunks) * metadata.dtype.itemsize):
            return False
        try:
            flat = decode_block(data, metadata.encoding, metadata.chunks).reshape(-1)
        except (DecodeError, MissingDependencyError):
            return False
        blocks = (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))
        if metadata.dtype.kind in "TO":
            return all(bool((block == metadata.fill_value).all()) for block in blocks)
        pattern = np.full(min(flat.size, _BLOCK), metadata.fill_value, dtype=metadata.dtype).tobytes()
        return all(pattern.startswith(block.astype(metadata.dtype, copy=False).tobytes()) for block in blocks)


def _pattern(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return what tells fill values apart, positive and negative zero included."""
    return value if dtype.kind in "TO" else np.array(value, dtype=dtype).tobytes()
