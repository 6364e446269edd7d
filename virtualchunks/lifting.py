"""Lifting: arrays of stored numbers as arrays of the values that their packing stands for, and back.

Lifting moves the attributes of packing into the encodings of an array, which then decode to values, so that chunks
that are packed otherwise can join. Where all chunks of an array are packed alike, the packing can be put back, and
stores and writers do that: the bytes are then served as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from virtualchunks.encoding import ChunkEncoding, in_order
from virtualchunks.indexing import Parts, encodings_in_use
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import is_time
from virtualchunks.packing import Packing


def lifted(parts: Parts) -> Parts:
    """Return the array of values; the array itself where its attributes state no packing, or it counts time.

    Parameters
    ----------
    parts
        Metadata and manifest.
    """
    metadata, manifest = parts
    packing = Packing.of(metadata.attributes, metadata.dtype, metadata.fill_value)
    if packing is None or is_time(metadata.attributes.get("units")):
        return parts
    if any(encoding.packing is not None for encoding in (metadata.encoding, *manifest.sources.encodings)):
        return parts
    sources = manifest.sources.map_encodings(lambda encoding: replace(encoding, packing=packing))
    raised = metadata.replace(
        dtype=packing.dtype,
        encoding=replace(metadata.encoding, packing=packing),
        fill_value=packing.lifted_scalar(metadata.fill_value),
        attributes={name: value for name, value in metadata.attributes.items() if name not in packing.attributes},
    )
    return raised, ChunkManifest._trusted(manifest.records, sources)


def as_stored(parts: Parts) -> Parts:
    """Return the array of stored numbers with the packing among its attributes; itself where no one packing fits.

    Parameters
    ----------
    parts
        Metadata and manifest.
    """
    metadata, manifest = parts
    if metadata.encoding.packing is None and all(other.packing is None for other in manifest.sources.encodings):
        return parts
    used = encodings_in_use(parts) or [metadata.encoding]
    own = metadata.encoding if metadata.encoding in used else used[0]
    packing = next((encoding.packing for encoding in (own, *used) if encoding.packing is not None), None)
    if packing is None or any(not _fits(encoding, packing) for encoding in used) or packing.dtype != metadata.dtype:
        return parts
    fill = packing.stored_fill(metadata.fill_value)
    if fill is None and not manifest.present.all():
        return parts
    lowered = metadata.replace(
        dtype=packing.stored,
        encoding=_without_packing(own),
        fill_value=packing.fill_value if fill is None else fill,
        attributes={**metadata.attributes, **packing.attributes},
    )
    return lowered, ChunkManifest._trusted(manifest.records, manifest.sources.map_encodings(_without_packing))


def _fits(encoding: ChunkEncoding, packing: Packing) -> bool:
    stored: Any = in_order(encoding.dtype, "=") if encoding.packing is None else encoding.packing.stored
    return encoding.lift_key == packing.key and stored == packing.stored


def _without_packing(encoding: ChunkEncoding) -> ChunkEncoding:
    return encoding if encoding.packing is None else replace(encoding, packing=None)
