"""Appending: the tree that grows along a dimension, and which rows of its table are new.

References are joined as :func:`numpy.concatenate` joins them, so whatever combines in memory appends. Where the chunks
that are there already keep their places and their encodings, their rows stay as they are, and only new ones are
written. Where they do not (chunks of another encoding were joined, a chunk that overhangs was cut), all are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.errors import CombineError, VirtualChunksError
from virtualchunks.functions import concatenate
from virtualchunks.group import ManifestGroup
from virtualchunks.manifest import ChunkManifest
from virtualchunks.writers.tables.columns import TableOf
from virtualchunks.writers.tables.documents import Template, encoding_key
from virtualchunks.writers.tables.schema import pyarrow


@dataclass(frozen=True)
class Grown:
    """A tree after appending.

    Parameters
    ----------
    group
        All of it.
    table
        Its table.
    first
        For each array that grew: the axis, and the number of chunks along it before.
    keeps_rows
        Whether the rows that are there stay as they are.
    """

    group: ManifestGroup
    table: TableOf
    first: dict[str, tuple[int, int]]
    keeps_rows: bool

    def new_rows(self) -> Any:
        """Return the rows that are not there yet, as a pyarrow Table."""
        pa = pyarrow()
        compute = pa.compute
        table = self.table.joined(list(self.table.batches()))
        kept = np.zeros(table.num_rows, dtype=bool)
        for path, (axis, count) in self.first.items():
            is_array = compute.equal(table["array"].cast(pa.string()), path).to_numpy()
            along = table[f"i{axis}"].fill_null(-1).to_numpy()
            kept |= is_array & (along >= count)
        return table.filter(pa.array(kept))


def grown(group: ManifestGroup, known: Template, more: ManifestGroup, dim: str) -> Grown:
    """Return a tree that more was appended to along a dimension.

    Parameters
    ----------
    group
        What is there.
    known
        Its template, whose encodings keep their numbers.
    more
        What to append: each of its arrays that has the dimension must be there already.
    dim
        Name of the dimension.

    Raises
    ------
    CombineError
        If an array lacks, or does not fit; the message names it.
    """
    _check_members(group, more, dim)
    first: dict[str, tuple[int, int]] = {}
    joined = _joined(group, more, dim, "", first)
    keeps = all(_same_start(group[path], joined[path], *place) for path, place in first.items())
    numbered = Template.of(joined)
    known_keys = {encoding_key(encoding, "") for encoding in known.encodings}
    new = [encoding for encoding in numbered.encodings if encoding_key(encoding, "") not in known_keys]
    template = Template(numbered.root, (*known.encodings, *new)) if keeps else numbered
    return Grown(joined, TableOf(joined, template), first, keeps)


def _axis_of(array: ManifestArray, dim: str) -> int | None:
    names = array.metadata.dimension_names or ()
    return names.index(dim) if dim in names else None


def _check_members(group: ManifestGroup, more: ManifestGroup, dim: str) -> None:
    there, new = dict(group.walk_arrays()), dict(more.walk_arrays())
    if not any(_axis_of(array, dim) is not None for array in there.values()):
        raise CombineError(f"no array there has the dimension {dim!r} to append along")
    for path, array in new.items():
        if path not in there:
            raise CombineError(f"{path!r} is to be appended, and there is no such array yet", variable=path)
        if (_axis_of(array, dim) is None) != (_axis_of(there[path], dim) is None):
            raise CombineError(f"{path!r} has the dimension {dim!r} only in one of what is there and what is appended")
    for path, array in there.items():
        if _axis_of(array, dim) is not None and path not in new:
            raise CombineError(
                f"{path!r} has the dimension {dim!r} and nothing to append to it: all arrays grow together",
                variable=path,
            )


def _joined(
    group: ManifestGroup, more: ManifestGroup, dim: str, path: str, first: dict[str, tuple[int, int]]
) -> ManifestGroup:
    arrays = dict(group.arrays)
    for name, array in group.arrays.items():
        axis = _axis_of(array, dim)
        if axis is None:
            continue
        try:
            arrays[name] = concatenate([array, more.arrays[name]], axis=axis)
        except VirtualChunksError as error:
            raise CombineError(f"{path + name!r} cannot be appended: {error.message}", variable=path + name) from error
        first[path + name] = (axis, array.manifest.shape_chunk_grid[axis])
    groups = {
        name: _joined(inner, more.groups.get(name, ManifestGroup()), dim, f"{path}{name}/", first)
        for name, inner in group.groups.items()
    }
    return ManifestGroup(arrays, groups, group.attributes, group.unlimited_dims)


def _same_start(before: Any, after: Any, axis: int, count: int) -> bool:
    """Whether the chunks that an array had are the first that it has now, and decode by the same numbers."""
    if encoding_key(before.metadata.encoding, "") != encoding_key(after.metadata.encoding, ""):
        return False
    records = after.manifest.records[(slice(None),) * axis + (slice(0, count),)]
    start = ChunkManifest.from_records(records, after.manifest.sources)
    return bool(start == before.manifest)
