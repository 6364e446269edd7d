"""Kerchunk references as a folder of Parquet files, in the layout that fsspec's ``LazyReferenceMapper`` reads.

The folder holds ``.zmetadata``, with all metadata documents, and for each array ``refs.0.parq``, ``refs.1.parq`` …,
each with the references of `record_size` consecutive chunks in C order: columns ``path``, ``offset``, ``size`` and
``raw``, of which ``raw`` holds the bytes of chunks in memory. A row without path and without bytes is a missing chunk.
"""

from __future__ import annotations

import itertools
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np

from virtualchunks.errors import FormatError
from virtualchunks.group import ManifestGroup
from virtualchunks.writers.homogenising import Heterogeneous
from virtualchunks.writers.kerchunk.append import appended_files
from virtualchunks.writers.kerchunk.modes import KerchunkMode, resolved_mode
from virtualchunks.writers.kerchunk.partitions import parquet_bytes, partition_name, partition_table, pyarrow_of
from virtualchunks.writers.kerchunk.references import References, homogeneous, references, require_no_roots
from virtualchunks.writers.kerchunk.sidefile import SUFFIX, SideFile
from virtualchunks.writers.kerchunk.stored import METADATA, StoredReferences, is_references
from virtualchunks.writers.targets import NamedFile, target_of


def write_parquet(
    group: ManifestGroup,
    target: str | os.PathLike[str],
    record_size: int = 100_000,
    categorical_threshold: int = 10,
    *,
    registry: Any = None,
    store: Any = None,
    mode: KerchunkMode | None = None,
    append_dim: str | None = None,
    heterogeneous: Heterogeneous = "error",
    sources: Any = None,
) -> None:
    """Write the references of a tree as a folder of Parquet files, which replaces what is there whole or not at all.

    Parameters
    ----------
    group
        The root of the tree.
    target
        A local path or a URL of the folder; or a key of `store`.
    record_size
        References in each Parquet file; what is added to stored references follows their own.
    categorical_threshold
        The fewest references for each URL, on average, at which a file says that its paths repeat (as a dictionary).
    registry, store
        As for :func:`write_json`.
    mode
        ``"w"`` (the default) replaces what is there, ``"w-"`` refuses to, ``"a"`` adds arrays to it and replaces
        those of the same path. A folder that holds anything else than references is never replaced.
    append_dim
        The dimension along which the arrays continue the stored ones: only new files are written, and the last one of
        each array anew. Arrays without that dimension must be the stored ones. Where nothing is stored yet, the tree is
        written as it is.
    heterogeneous
        As for :func:`to_references`. With ``"materialise"``, what is appended is encoded as the stored array is. Chunks
        that are encoded anew and take more than 1 MiB are written to a file in the folder, whose name ends in
        ``.chunks``, and which is there before the references are; references lead to it by its URL.
    sources
        What may be read for that; by default what `registry` grants.

    Raises
    ------
    UnsupportedFeatureError, LimitExceededError
        If an array cannot be written; the message names it. Nothing is written then.
    CombineError
        If an array does not continue the stored one; the message names it, and in what they differ.
    TargetExistsError
        If the target is there and may not be replaced.
    WriteError
        If the target cannot be written, or another process adds to it.
    MissingDependencyError
        If pyarrow is not installed.

    Notes
    -----
    ``xarray.open_dataset(target, engine="kerchunk")`` reads the folder. fsspec cannot guess where the references of a
    tree with groups below its root lead; tell it: ``storage_options={"remote_protocol": "s3"}`` (or ``"file"``,
    ``"https"``).

    While references are appended, and whenever that ends early, readers find the old ones: a file that is written anew
    begins with the references that it held, and the metadata, which says how many count, comes last.
    """
    if record_size < 1:
        raise FormatError(f"record_size must be at least 1, found {record_size}")
    pyarrow_of()
    chosen = resolved_mode(mode, append_dim)
    place = target_of(target, registry, store)
    stored = StoredReferences.of(place) if chosen == "a" else None
    side = SideFile.within(place)
    existing = None if append_dim is None else (lambda path: None) if stored is None else stored.array
    granted = registry if sources is None else sources
    group = homogeneous(group, heterogeneous, granted, side=side, existing=existing)
    beside = [(side.name, side.data)] if side is not None and side.name else []
    if stored is not None and append_dim is not None:
        added = appended_files(group, stored, append_dim, categorical_threshold)
        place.add_files(itertools.chain(beside, added), METADATA, stored.document)
        return
    made = references(group)
    require_no_roots(made)
    if stored is None:
        files = itertools.chain(beside, _files(made, record_size, categorical_threshold))
        place.write_folder(files, "w" if chosen == "a" else chosen, METADATA, is_references)
        return
    stay = stored.arrays() - {array.path for array in made.arrays}
    files = itertools.chain(beside, _files(made, stored.record_size, categorical_threshold, stored))
    place.write_folder(
        files,
        "w",
        METADATA,
        is_references,
        keep=lambda name: name.rpartition("/")[0] in stay or name.endswith(SUFFIX),
    )


def _files(
    made: References, record_size: int, threshold: int, stored: StoredReferences | None = None
) -> Iterator[NamedFile]:
    """Yield the files of references, the metadata last: together with that of stored ones which stay."""
    generations = {array.path: uuid.uuid4().hex for array in made.arrays}
    document: dict[str, Any] = {"metadata": made.metadata, "record_size": record_size, "generations": generations}
    if stored is not None:
        document = stored.merged(document)
    for array in made.arrays:
        count = int(np.prod(array.manifest.shape_chunk_grid, dtype=np.int64))
        for number, start in enumerate(range(0, count, record_size)):
            table = partition_table(array, start, min(record_size, count - start), threshold)
            yield partition_name(array.path, number), parquet_bytes(table, generations[array.path])
    yield METADATA, json.dumps(document).encode()
