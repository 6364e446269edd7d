"""References as a Lance dataset, whose column ``chunk`` holds each chunk as a blob: Lance itself reads the bytes.

The other columns are those of :mod:`virtualchunks.writers.tables.schema`. A virtual chunk is an external blob, a range
of its object; a chunk in memory is a blob in the dataset. Every write is a version of the dataset, and every version
can be read as it was. Lance opens the dataset and the objects by itself, with the options that the caller hands to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from virtualchunks.errors import (
    FormatError,
    MissingDependencyError,
    SourceUnavailableError,
    TargetExistsError,
    WriteError,
)
from virtualchunks.group import ManifestGroup
from virtualchunks.urls import as_url, local_path
from virtualchunks.writers.datasets import as_group
from virtualchunks.writers.tables.appending import grown
from virtualchunks.writers.tables.columns import TableOf
from virtualchunks.writers.tables.documents import KEY, Template
from virtualchunks.writers.tables.modes import TableMode, check_mode, require_bound, require_lasting
from virtualchunks.writers.tables.reading import tree_of
from virtualchunks.writers.tables.schema import BYTES, LENGTH, OFFSET, PATH, pyarrow

#: The column of blobs.
BLOB = "chunk"
#: Schemes of objects that Lance reads; the blob of a chunk elsewhere is null.
SCHEMES = ("file", "s3", "gs", "az")
#: Rows that are written at a time.
ROWS = 1 << 16
_STORAGE = "2.2"


def to_lance(
    tree: Any,
    target: str | os.PathLike[str],
    *,
    mode: TableMode = "w-",
    append_dim: str | None = None,
    storage_options: Mapping[str, str] | None = None,
    write_inherited_coords: bool = False,
) -> int:
    """Write the references of a tree as a version of a Lance dataset.

    Parameters
    ----------
    tree
        A ManifestGroup, or an xarray Dataset or DataTree.
    target
        A local path or a URL of the dataset.
    mode
        ``"w-"`` makes a new dataset, ``"w"`` a version with this tree in place of what is there, and ``"a"`` one to
        which the tree is appended along `append_dim`. Older versions stay.
    append_dim
        Name of the dimension to append along.
    storage_options
        What Lance needs to reach the dataset.
    write_inherited_coords
        Whether groups of a DataTree repeat the coordinates that they inherit.

    Returns
    -------
    int
        The number of the version.

    Raises
    ------
    UnsupportedFeatureError, LimitExceededError
        If an array cannot be written, or the arguments contradict each other. Nothing is written then.
    CombineError
        If the tree cannot be appended.
    TargetExistsError
        If there is a dataset, for ``"w-"``.
    WriteError
        If Lance cannot write, or somebody else wrote at the same time; what was there before is untouched.
    MissingDependencyError
        If pylance is not installed.
    """
    check_mode(mode, append_dim)
    lance = _lance()
    group = as_group(tree, inherit=write_inherited_coords)
    place = _place(target)
    options = None if storage_options is None else dict(storage_options)
    if mode == "a":
        return _append(lance, group, place, str(append_dim), options)
    made = TableOf.tree(group)
    require_lasting(made)
    require_bound(made, "Lance")
    if mode == "w-" and _exists(lance, place, options):
        raise TargetExistsError(f"{place} exists; pass mode='w' for a new version of it, or 'a' to append to it")
    return _write(lance, made, place, "create" if mode == "w-" else "overwrite", options)


def from_lance(
    target: str | os.PathLike[str],
    *,
    version: int | str | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> ManifestGroup:
    """Return the tree of references in a Lance dataset.

    Parameters
    ----------
    target
        A local path or a URL of the dataset.
    version
        The number of a version, or a tag; by default the latest.
    storage_options
        What Lance needs to reach the dataset.

    Raises
    ------
    FormatError
        If it is no dataset of references.
    SourceUnavailableError
        If there is none, or no such version.
    ManifestError, URLError, LimitExceededError
        As for :func:`from_arrow`.

    Notes
    -----
    Nothing that the dataset refers to is granted by reading it.
    """
    place = _place(target)
    dataset = _open(_lance(), place, version, None if storage_options is None else dict(storage_options))
    return tree_of(_rows(dataset, place), _template(dataset, place))


def _lance() -> Any:
    try:
        import lance
        import lance.blob
    except ImportError as error:
        raise MissingDependencyError("Lance datasets need pylance: pip install 'virtualchunks[lance]'") from error
    return lance


def _place(target: str | os.PathLike[str]) -> str:
    url = as_url(target)
    return local_path(url) if url.startswith("file:") else url


def _exists(lance: Any, place: str, options: dict[str, str] | None) -> bool:
    try:
        lance.dataset(place, storage_options=options)
    except (ValueError, OSError, RuntimeError):
        return os.path.isdir(place) and bool(os.listdir(place))
    return True


def _open(lance: Any, place: str, version: int | str | None, options: dict[str, str] | None) -> Any:
    try:
        return lance.dataset(place, version=version, storage_options=options)
    except (ValueError, OSError, RuntimeError, OverflowError) as error:
        wanted = "" if version is None else f" with the version {version!r}"
        raise SourceUnavailableError(f"{place} is no Lance dataset{wanted}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _template(dataset: Any, place: str) -> Template:
    carried = dataset.schema.metadata or {}
    if KEY.encode() not in carried:
        raise FormatError(
            f"{place} is a Lance dataset without the metadata of a table of references; its columns are "
            f"{dataset.schema.names[:20]}"
        )
    return Template.from_json(carried[KEY.encode()])


def _rows(dataset: Any, place: str) -> Any:
    try:
        return dataset.to_table(columns=[name for name in dataset.schema.names if name != BLOB])
    except (ValueError, OSError, RuntimeError) as error:
        raise FormatError(f"{place} cannot be read by Lance: {_reason(error)}") from error


def _append(lance: Any, more: ManifestGroup, place: str, dim: str, options: dict[str, str] | None) -> int:
    dataset = _open(lance, place, None, options)
    known = _template(dataset, place)
    after = grown(tree_of(_rows(dataset, place), known), known, more, dim)
    require_lasting(after.table)
    require_bound(after.table, "Lance")
    if not after.keeps_rows:
        return _write(lance, after.table, place, "overwrite", options)
    schema = _schema(lance, after.table.schema)
    old = [fragment.metadata for fragment in dataset.get_fragments()]
    try:
        new = lance.fragment.write_fragments(
            _reader(lance, schema, after.new_rows().to_batches(ROWS)), dataset, mode="append", **_options(options)
        )
        whole = lance.LanceOperation.Overwrite(dataset.schema.with_metadata(schema.metadata), [*old, *new])
        made = lance.LanceDataset.commit(dataset, whole, read_version=dataset.version, storage_options=options)
    except (ValueError, OSError, RuntimeError) as error:
        raise WriteError(f"cannot append to {place}: {_reason(error)}; it is as it was") from error
    return int(made.version)


def _write(lance: Any, made: TableOf, place: str, mode: str, options: dict[str, str] | None) -> int:
    reader = _reader(lance, _schema(lance, made.schema), made.batches(ROWS))
    try:
        dataset = lance.write_dataset(reader, place, mode=mode, **_options(options))
    except (ValueError, OSError, RuntimeError) as error:
        raise WriteError(f"cannot write {place}: {_reason(error)}; what was there before is untouched") from error
    return int(dataset.version)


def _options(options: dict[str, str] | None) -> dict[str, Any]:
    return {
        "allow_external_blob_outside_bases": True,
        "data_storage_version": _STORAGE,
        "storage_options": options,
    }


def _schema(lance: Any, schema: Any) -> Any:
    """Return the schema with plain text, which Lance encodes as a dictionary by itself, and the column of blobs."""
    pa = pyarrow()
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in schema
    ]
    return pa.schema([*fields, lance.blob.blob_field(BLOB)], metadata=schema.metadata)


def _reader(lance: Any, schema: Any, batches: Any) -> Any:
    return pyarrow().RecordBatchReader.from_batches(schema, _with_blobs(lance, schema, batches))


def _with_blobs(lance: Any, schema: Any, batches: Any) -> Iterator[Any]:
    pa = pyarrow()
    for batch in batches:
        columns = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns
        ]
        by_name = dict(zip(batch.schema.names, columns, strict=True))
        yield pa.RecordBatch.from_arrays([*columns, _blobs(lance, by_name, batch)], schema=schema)


def _blobs(lance: Any, columns: Mapping[str, Any], batch: Any) -> Any:
    """Return the column of blobs: a range of an object, or bytes."""
    pa = pyarrow()
    held = columns[BYTES].is_valid().to_numpy(zero_copy_only=False)
    path = batch.column(batch.schema.get_field_index(PATH))
    known = [str(url).partition(":")[0] in SCHEMES for url in path.dictionary.to_pylist()]
    outside = np.array([*known, False], dtype=bool)[path.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    compute = pa.compute
    is_outside = pa.array(outside)
    storage = pa.StructArray.from_arrays(
        [
            columns[BYTES],
            compute.if_else(is_outside, columns[PATH], pa.scalar(None, pa.string())),
            compute.if_else(is_outside, columns[OFFSET].cast(pa.uint64()), pa.scalar(None, pa.uint64())),
            compute.if_else(is_outside, columns[LENGTH].cast(pa.uint64()), pa.scalar(None, pa.uint64())),
        ],
        names=["data", "uri", "position", "size"],
        mask=pa.array(~(held | outside)),
    )
    return pa.ExtensionArray.from_storage(lance.blob.BlobType(), storage)
