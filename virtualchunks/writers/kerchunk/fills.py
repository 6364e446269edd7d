"""What is said beside Zarr v2 metadata, so that fill values and missing chunks come back to us.

Zarr lets readers pass over members of ``.zarray`` that they do not know. Ours is there only where Zarr v2 metadata says
less than the array is: another fill value, a fill value that is no mask, or missing chunks that are written out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from virtualchunks.metadata import ArrayMetadata, fill_scalar, fill_to_json

#: The member of ``.zarray``. Of its own members, ``fill_value`` is as Zarr v3 writes it; ``is_mask`` says whether the
#: fill value of Zarr v2 is an attribute ``_FillValue`` of the array; ``missing`` leads from the SHA-256 of a chunk to
#: the number, in C order, of the first chunk for which those bytes stand for a missing one; ``held`` lists the numbers
#: of chunks from there on that are of the same bytes and not missing.
MEMBER = "virtualchunks"


def fill_member(metadata: ArrayMetadata, fill: Any, mask: Any, missing: bytes | None) -> dict[str, Any] | None:
    """Return the member for an array; ``None`` where Zarr v2 says all of it.

    Parameters
    ----------
    metadata
        The array.
    fill
        The fill value in its Zarr v2 metadata, as a scalar; ``None`` for null.
    mask
        Its ``_FillValue``, if that is the fill value.
    missing
        The bytes that are written for each missing chunk; ``None`` where none are.
    """
    dtype = metadata.dtype
    same = _pattern(fill_scalar(fill, dtype), dtype) == _pattern(metadata.fill_value, dtype)
    is_mask = mask is not None
    if same and is_mask == (fill is not None) and missing is None:
        return None
    member = {"fill_value": fill_to_json(metadata.fill_value, dtype), "is_mask": is_mask}
    return member if missing is None else {**member, "missing": {digest(missing): 0}}


def digest(data: bytes) -> str:
    """Return what tells a chunk by its bytes."""
    return hashlib.sha256(data).hexdigest()


def continued_member(
    own: Mapping[str, Any], existing: Mapping[str, Any], first: int, metadata: ArrayMetadata
) -> dict[str, Any] | None:
    """Return the member of an array that is continued, without the chunks of the same bytes that are not missing.

    Parameters
    ----------
    own, existing
        The ``.zarray`` of what is added, and that of the stored array.
    first
        Number of the first added chunk.
    metadata
        What is added.

    Returns
    -------
    dict or None
        ``None`` where the two have not one fill value: then Zarr v2 metadata alone is true of both.
    """
    mine, theirs = own.get(MEMBER), existing.get(MEMBER)
    if mine is None and theirs is None:
        return None
    if not isinstance(theirs, Mapping):
        if existing.get("fill_value") is not None:
            return None
        theirs = {"fill_value": fill_to_json(fill_scalar(None, metadata.dtype), metadata.dtype), "is_mask": False}
    if theirs.get("fill_value") != fill_to_json(metadata.fill_value, metadata.dtype):
        return None
    known = theirs.get("missing", {})
    if not isinstance(known, Mapping) or not isinstance(theirs.get("held", []), list):
        return None
    return {**theirs, "missing": dict.fromkeys((mine or {}).get("missing", {}), first) | dict(known)}


def _pattern(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return what tells fill values apart, positive and negative zero included."""
    return value if dtype.kind in "TO" else np.array(value, dtype=dtype).tobytes()
