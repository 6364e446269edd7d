"""Lifting: arrays of stored numbers as arrays of the values that their packing stands for, and back.

Lifting moves the attributes of packing into the encodings of an array, which then decode to values, so that chunks
that are packed otherwise can join. Where all chunks of an array are packed alike, the packing can be put back, and
stores and writers do that: the bytes are then served as they are.
"""

from __future__ import annotations

from collections.abc import Callable
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
    if any(encoding.packing is not None for encoding in encodings_named(parts)):
        return parts
    raised = metadata.replace(
        dtype=packing.dtype,
        encoding=replace(metadata.encoding, packing=packing),
        fill_value=packing.lifted_scalar(metadata.fill_value),
        attributes={name: value for name, value in metadata.attributes.items() if name not in packing.attributes},
    )
    return raised, _with_encodings(manifest, lambda encoding: replace(encoding, packing=packing))


def as_stored(parts: Parts) -> Parts:
    """Return the array of stored numbers with the packing among its attributes; itself where no one packing fits.

    Parameters
    ----------
    parts
        Metadata and manifest.
    """
    metadata, manifest = parts
    if all(encoding.packing is None for encoding in encodings_named(parts)):
        return parts
    used = (manifest.names_encodings and encodings_in_use(parts)) or [metadata.encoding]
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
    return lowered, _with_encodings(manifest, _without_packing)


def encodings_named(parts: Parts) -> tuple[ChunkEncoding, ...]:
    """Return the encoding of an array and those that its sources name, in use or not; no references are loaded."""
    metadata, manifest = parts
    return (metadata.encoding, *(manifest.sources.encodings if manifest.names_encodings else ()))


def _with_encodings(manifest: ChunkManifest, change: Callable[[ChunkEncoding], ChunkEncoding]) -> ChunkManifest:
    """Return a manifest with other encodings; itself, which may not be loaded yet, where it names none."""
    if not manifest.names_encodings:
        return manifest
    return ChunkManifest._trusted(manifest.records, manifest.sources.map_encodings(change))


def _fits(encoding: ChunkEncoding, packing: Packing) -> bool:
    stored: Any = in_order(encoding.dtype, "=") if encoding.packing is None else encoding.packing.stored
    return encoding.lift_key == packing.key and stored == packing.stored


def _without_packing(encoding: ChunkEncoding) -> ChunkEncoding:
    return encoding if encoding.packing is None else replace(encoding, packing=None)
