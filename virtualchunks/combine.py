"""Concatenation: when arrays of references can become one array, and what it then is.

Arrays are joined along one axis. Their chunks stay what they are, so the joined axis is regular where it can be and
rectilinear otherwise; along the others, chunks of several lengths are cut finer. Chunks that decode in another way than
the first array's keep their own encoding, which makes the result heterogeneous. What would change the meaning of a
value, silently, raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import CombineError
from virtualchunks.grid import Axis
from virtualchunks.indexing import Parts, drop_overhang
from virtualchunks.manifest import ChunkManifest, concatenate
from virtualchunks.metadata import MEANING, PACKING, ArrayMetadata, holds, rounds, same_value
from virtualchunks.refining import on_one_grid

_NUMBERS = "biufc"
_JOIN_VALUES = "to join values instead of references, name the variable in loadable_variables for all files"


def concatenate_arrays(arrays: Sequence[Any], axis: int = 0) -> ManifestArray:
    """Join arrays along an axis.

    Parameters
    ----------
    arrays
        ManifestArrays, and NumPy arrays among them: those are encoded with the codecs of the ManifestArrays into chunks
        held in memory.
    axis
        The axis to join along.

    Raises
    ------
    CombineError
        If the arrays differ in the length of another axis, or in an attribute that changes what values mean; or if
        NumPy arrays are to join packed ones. The message names the sources.
    """
    virtual = [array for array in arrays if isinstance(array, ManifestArray)]
    if not virtual:
        raise CombineError("nothing to concatenate: no array of references among the arguments")
    first = virtual[0]
    if not -first.ndim <= axis < first.ndim:
        raise np.exceptions.AxisError(axis, first.ndim)
    axis %= first.ndim
    if len(arrays) == 1:
        return first
    virtual = _of_one_dtype(virtual) if len(virtual) == len(arrays) else _in_references(arrays, axis)
    parts: list[Parts] = [array._parts for array in virtual]
    _check_layouts(parts, axis)
    parts = on_one_grid(parts, axis)
    parts = _without_inner_overhang(parts, axis)
    leading = _leading_encoding(parts)
    parts, fill = _of_one_fill(parts)
    own = parts[0][0].replace(encoding=leading)
    manifests = [_with_own_encoding(metadata, manifest, own) for metadata, manifest in parts]
    grid = own.grid.replace(axis, _joined_axis([metadata.grid.axes[axis] for metadata, _ in parts]))
    return ManifestArray._of((own.replace(grid=grid, fill_value=fill), concatenate(manifests, axis)))


def _in_references(arrays: Sequence[Any], axis: int) -> list[ManifestArray]:
    """Return arrays of one dtype, the values among them encoded into chunks held in memory."""
    from virtualchunks.inline import encoded_like

    _check_unpacked([array for array in arrays if isinstance(array, ManifestArray)])
    alike = _of_one_dtype(arrays)
    first = next(array for array in alike if isinstance(array, ManifestArray))
    return [
        array if isinstance(array, ManifestArray) else encoded_like(array, first, axis, last=place == len(alike) - 1)
        for place, array in enumerate(alike)
    ]


def _leading_encoding(parts: Sequence[Parts]) -> ChunkEncoding:
    """Return the encoding of the first array that has chunks."""
    return next((metadata.encoding for metadata, manifest in parts if manifest.present.any()), parts[0][0].encoding)


def _check_unpacked(arrays: Sequence[ManifestArray]) -> None:
    """Refuse values beside references to packed ones: they were most likely unpacked when they were loaded."""
    for array in arrays:
        attributes = array.metadata.attributes
        packing = {name: attributes[name] for name in PACKING if name in attributes}
        if packing:
            raise CombineError(
                f"values in memory cannot join references to packed values, with the attributes {packing}: they would "
                "be unpacked a second time when they are read; load the variable from all files, or from none, with "
                f"loadable_variables; the references are to {describe(array.manifest)}",
                url=next(array.manifest.iter_nonempty_paths(), None),
            )


def _of_one_dtype(arrays: Sequence[Any]) -> list[Any]:
    dtypes = {array.dtype: array for array in reversed(arrays)}
    virtual = [array for array in arrays if isinstance(array, ManifestArray)]
    if len(dtypes) == 1 or (len(virtual) < len(arrays) and any(dtype.kind not in _NUMBERS for dtype in dtypes)):
        return list(arrays)
    try:
        target: np.dtype[Any] | None = np.result_type(*dtypes)
    except TypeError:
        target = None
    if (
        target is None
        or not all(holds(target, array.dtype) for array in arrays if not isinstance(array, ManifestArray))
        or not all(holds(target, dtype) or rounds(target, dtype) for dtype in dtypes)
    ):
        found = ", ".join(f"{dtype} from {_origin(array)}" for dtype, array in dtypes.items())
        raise CombineError(f"no dtype holds without loss the values of {found}; {_JOIN_VALUES}")
    return [array.astype(target) for array in arrays]


def _origin(array: Any) -> str:
    return describe(array.manifest) if isinstance(array, ManifestArray) else "memory"


def _check_layouts(parts: Sequence[Parts], axis: int) -> None:
    first, first_manifest = parts[0]
    for metadata, manifest in parts:
        if metadata is first:
            continue
        problem = _difference(first, metadata, axis)
        if problem is not None:
            raise CombineError(
                f"cannot concatenate along axis {axis}: {problem}; the first array is from {describe(first_manifest)}, "
                f"the other from {describe(manifest)}; {_JOIN_VALUES}",
                url=next(manifest.iter_nonempty_paths(), None),
            )


def _difference(first: ArrayMetadata, other: ArrayMetadata, axis: int) -> str | None:
    ours, others = first.grid.axes, other.grid.axes
    if len(ours) != len(others):
        return f"the arrays have {len(ours)} and {len(others)} dimensions"
    for number, (mine, theirs) in enumerate(zip(ours, others, strict=True)):
        if number != axis and mine.size != theirs.size:
            return f"their sizes along axis {number} differ: {mine.size} and {theirs.size}"
    if first.attributes == other.attributes:
        return None
    for name in MEANING:
        mine_value, their_value = first.attributes.get(name), other.attributes.get(name)
        if not same_value(mine_value, their_value):
            return (
                f"their attribute {name!r} differs: {mine_value!r} and {their_value!r}, so the same stored value means "
                "two things"
            )
    return None


def describe(manifest: ChunkManifest) -> str:
    """Return the sources of a manifest in a few words, for error messages."""
    urls = list(manifest.iter_nonempty_paths())
    if not urls:
        return "memory" if len(manifest) else "no source (all chunks missing)"
    return urls[0] if len(urls) == 1 else f"{urls[0]} and {len(urls) - 1} more"


def _without_inner_overhang(parts: list[Parts], axis: int) -> list[Parts]:
    """Make every array but the last one with elements end where its last chunk ends."""
    axes = [metadata.grid.axes[axis] for metadata, _ in parts]
    last = max((place for place, joined in enumerate(axes) if joined.size), default=0)
    return [
        drop_overhang(pair, axis) if place < last and joined.overhang else pair
        for place, (pair, joined) in enumerate(zip(parts, axes, strict=True))
    ]


def _joined_axis(axes: Sequence[Axis]) -> Axis:
    filled = [axis for axis in axes if axis.size]
    size = sum(axis.size for axis in filled)
    if not filled:
        return axes[0]
    if all(axis.chunk == filled[0].chunk and axis.chunk is not None for axis in filled):
        return Axis(size, chunk=filled[0].chunk)
    return Axis.from_edges([length for axis in filled for length in axis.nominal.tolist()], size)


def _of_one_fill(parts: list[Parts]) -> tuple[list[Parts], Any]:
    """Return arrays whose missing chunks all read as one value, and the value.

    Where there are several, that of the most chunks is kept, and the other chunks are held in memory.
    """
    first = parts[0][0].fill_value
    if all(metadata.fill_value is first or _identical(metadata.fill_value, first) for metadata, _ in parts):
        return parts, first
    missing = [int(np.count_nonzero(~manifest.present)) for _, manifest in parts]
    most = max(range(len(parts)), key=missing.__getitem__)
    if not missing[most]:
        return parts, first
    fill = parts[most][0].fill_value
    return [
        _filled(pair, fill, parts[most]) if count else pair for pair, count in zip(parts, missing, strict=True)
    ], fill


def _filled(pair: Parts, fill: Any, most: Parts) -> Parts:
    metadata, manifest = pair
    if same_value(metadata.fill_value, fill):
        return pair
    if metadata.dtype.kind not in _NUMBERS:
        raise CombineError(
            f"missing chunks read as {fill!r} in one array and as {metadata.fill_value!r} in another; "
            f"they are from {describe(most[1])} and {describe(manifest)}; {_JOIN_VALUES}",
            url=next(manifest.iter_nonempty_paths(), None),
        )
    from virtualchunks.inline import with_fill_chunks

    return with_fill_chunks(pair)


def _identical(one: Any, other: Any) -> bool:
    """Return whether two fill values of one dtype are the same, quickly: this runs once per array."""
    if isinstance(one, np.void):
        return same_value(one, other)
    return bool(one == other) or bool(one != one and other != other)  # NaN is unlike itself


def _with_own_encoding(metadata: ArrayMetadata, manifest: ChunkManifest, own: ArrayMetadata) -> ChunkManifest:
    if metadata is own or metadata.encoding is own.encoding or metadata.encoding == own.encoding:
        return manifest
    used = manifest if len(manifest.sources) <= manifest.records.size else manifest.compact()
    return ChunkManifest._trusted(used.records, used.sources.with_encoding(metadata.encoding))
