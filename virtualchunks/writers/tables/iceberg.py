"""References as an Iceberg table: every write is a snapshot, and every snapshot can be read as it was.

The columns are those of :mod:`virtualchunks.writers.tables.schema`, text where those are dictionaries. The Zarr
metadata of each write is a property of the table, named by a hash of its content; the snapshot names the property, and
says how many rows belong to it, so that a snapshot that something else wrote is noticed.

A catalog is pyiceberg's, whichever it is; or a local folder, in which an SQLite database is the catalog.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from virtualchunks.errors import (
    FormatError,
    MissingDependencyError,
    SourceUnavailableError,
    TargetExistsError,
    UnsupportedFeatureError,
    VirtualChunksError,
    WriteError,
)
from virtualchunks.group import ManifestGroup
from virtualchunks.writers.datasets import as_group
from virtualchunks.writers.tables.appending import grown
from virtualchunks.writers.tables.columns import TableOf
from virtualchunks.writers.tables.documents import KEY, Template
from virtualchunks.writers.tables.modes import TableMode, check_mode, require_lasting
from virtualchunks.writers.tables.reading import tree_of
from virtualchunks.writers.tables.schema import pyarrow

#: The name of the catalog in a folder, and of its database.
CATALOG = "virtualchunks"
DATABASE = "catalog.db"
#: Rows that are written at a time.
ROWS = 1 << 16
_DOCUMENT = f"{KEY}.metadata"
_ROWS = f"{KEY}.rows"
#: Properties of every table: a commit that lost a race is not to be repeated over rows that it has not seen.
_PROPERTIES = {KEY: "1", "commit.retry.num-retries": "0", "write.target-file-size-bytes": str(64 << 20)}

Identifier = str | Sequence[str]


def to_iceberg(
    tree: Any,
    table: Identifier,
    catalog: Any,
    *,
    mode: TableMode = "w-",
    append_dim: str | None = None,
    write_inherited_coords: bool = False,
) -> int:
    """Write the references of a tree as a snapshot of an Iceberg table.

    Parameters
    ----------
    tree
        A ManifestGroup, or an xarray Dataset or DataTree.
    table
        Namespace and name of the table, as ``"namespace.name"``.
    catalog
        A pyiceberg catalog; or the path of a local folder for an SQLite catalog and its tables.
    mode
        ``"w-"`` makes a new table, ``"w"`` a snapshot with this tree in place of what is there, and ``"a"`` one to
        which the tree is appended along `append_dim`. Older snapshots stay.
    append_dim
        Name of the dimension to append along.
    write_inherited_coords
        Whether groups of a DataTree repeat the coordinates that they inherit.

    Returns
    -------
    int
        The id of the snapshot.

    Raises
    ------
    UnsupportedFeatureError, LimitExceededError
        If an array cannot be written, or the arguments contradict each other. Nothing is written then.
    CombineError
        If the tree cannot be appended.
    TargetExistsError
        If there is a table, for ``"w-"``; or one of something else.
    WriteError
        If Iceberg cannot write, or somebody else wrote at the same time; what was there before is untouched.
    MissingDependencyError
        If pyiceberg is not installed.
    """
    check_mode(mode, append_dim)
    _identifier(table)
    group = as_group(tree, inherit=write_inherited_coords)
    made = TableOf.tree(group)
    require_lasting(made)
    with _opened(catalog, create=mode != "a") as opened, _write_errors(table):
        there = _load(opened, table, missing_ok=mode != "a")
        if there is None:
            return _create(opened, table, made)
        _check_there(there, table, mode)
        return _replace(there, made) if mode == "w" else _append(there, group, str(append_dim), table)


def from_iceberg(
    table: Identifier, catalog: Any, *, snapshot_id: int | None = None, as_of: datetime | None = None
) -> ManifestGroup:
    """Return the tree of references in an Iceberg table.

    Parameters
    ----------
    table, catalog
        As for :func:`to_iceberg`.
    snapshot_id
        Which snapshot; by default the current one.
    as_of
        The time whose state is wanted, with its time zone.

    Raises
    ------
    FormatError
        If it is no table of references, or the snapshot was written by something else.
    SourceUnavailableError
        If there is no such table or snapshot.
    ManifestError, URLError, LimitExceededError
        As for :func:`from_arrow`.

    Notes
    -----
    Nothing that the table refers to is granted by reading it.
    """
    if snapshot_id is not None and as_of is not None:
        raise UnsupportedFeatureError("pass snapshot_id or as_of, not both")
    _identifier(table)
    with _opened(catalog, create=False) as opened, _read_errors(table):
        there = _load(opened, table, missing_ok=False)
        snapshot = _snapshot(there, table, snapshot_id, as_of)
        return _tree(there, snapshot, table)[0]


def _pyiceberg() -> Any:
    try:
        import pyiceberg.exceptions
    except ImportError as error:
        raise MissingDependencyError("Iceberg tables need pyiceberg: pip install 'virtualchunks[iceberg]'") from error
    return pyiceberg


@contextmanager
def _opened(catalog: Any, *, create: bool) -> Iterator[Any]:
    """Open the catalog in a folder, and close it in the end; a catalog is used as it is."""
    _pyiceberg()
    if not isinstance(catalog, str | os.PathLike):
        yield catalog
        return
    from pyiceberg.catalog.sql import SqlCatalog

    folder = os.path.abspath(os.fspath(catalog))
    database = os.path.join(folder, DATABASE)
    if not create and not os.path.isfile(database):
        raise SourceUnavailableError(f"{folder} holds no Iceberg catalog {DATABASE!r}")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {folder}: {error.strerror}") from error
    opened = SqlCatalog(CATALOG, uri=f"sqlite:///{database}", warehouse=f"file://{folder}")
    try:
        yield opened
    finally:
        opened.engine.dispose()


def _identifier(table: Identifier) -> tuple[str, ...]:
    parts = tuple(table.split(".")) if isinstance(table, str) else tuple(table)
    if len(parts) < 2 or not all(parts):
        raise UnsupportedFeatureError(f"the table {_name(table)!r} has no namespace: name it as 'namespace.table'")
    return parts


def _name(table: Identifier) -> str:
    return table if isinstance(table, str) else ".".join(table)


def _errors() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError

    known = _pyiceberg().exceptions
    return (
        known.CommitFailedException,
        known.ValidationException,
        known.RESTError,
        known.NoSuchNamespaceError,
        known.NoSuchTableError,
        known.TableAlreadyExistsError,
        SQLAlchemyError,
        pyarrow().ArrowException,
        OSError,
        ValueError,
    )


@contextmanager
def _write_errors(table: Identifier) -> Iterator[None]:
    try:
        yield
    except VirtualChunksError:
        raise
    except _errors() as error:
        raise WriteError(
            f"cannot write the table {_name(table)}: {_reason(error)}; what was there before is untouched"
        ) from error


@contextmanager
def _read_errors(table: Identifier) -> Iterator[None]:
    try:
        yield
    except VirtualChunksError:
        raise
    except _errors() as error:
        raise SourceUnavailableError(f"the table {_name(table)} cannot be read: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _load(catalog: Any, table: Identifier, *, missing_ok: bool) -> Any:
    known = _pyiceberg().exceptions
    try:
        return catalog.load_table(table)
    except (known.NoSuchTableError, known.NoSuchNamespaceError) as error:
        if missing_ok:
            return None
        raise SourceUnavailableError(f"there is no table {_name(table)} in the catalog") from error


def _check_there(there: Any, table: Identifier, mode: TableMode) -> None:
    """Raise TargetExistsError for a table that is not to be written to."""
    if mode == "w-":
        raise TargetExistsError(
            f"the table {_name(table)} exists; pass mode='w' for a new snapshot of it, or 'a' to append to it"
        )
    if KEY not in there.properties:
        raise TargetExistsError(f"the table {_name(table)} is not one of references, so it is not written to")


def _create(catalog: Any, table: Identifier, made: TableOf) -> int:
    identifier = _identifier(table)
    catalog.create_namespace_if_not_exists(identifier[:-1])
    schema = _schema(made.schema)
    document = _Document(made.template)
    with catalog.create_table_transaction(identifier, schema, properties=dict(_PROPERTIES)) as transaction:
        transaction.set_properties(document.properties)
        transaction.append(_reader(schema, made.batches(ROWS)), snapshot_properties=document.summary(made.num_rows))
    return int(catalog.load_table(identifier).current_snapshot().snapshot_id)


def _replace(there: Any, made: TableOf) -> int:
    schema = _schema(made.schema)
    document = _Document(made.template)
    with there.transaction() as transaction:
        with transaction.update_schema() as update:
            update.union_by_name(schema)
        transaction.set_properties(document.properties)
        transaction.overwrite(_reader(schema, made.batches(ROWS)), snapshot_properties=document.summary(made.num_rows))
    return int(there.current_snapshot().snapshot_id)


def _append(there: Any, more: ManifestGroup, dim: str, table: Identifier) -> int:
    group, known = _tree(there, _snapshot(there, table, None, None), table)
    after = grown(group, known, more, dim)
    if not after.keeps_rows:
        return _replace(there, after.table)
    schema = _schema(after.table.schema)
    document = _Document(after.table.template)
    rows = _reader(schema, after.new_rows().to_batches(ROWS))
    with there.transaction() as transaction:
        transaction.set_properties(document.properties)
        transaction.append(rows, snapshot_properties=document.summary(after.table.num_rows))
    return int(there.current_snapshot().snapshot_id)


class _Document:
    """The metadata of one write, as a property of the table.

    Parameters
    ----------
    template
        What the table is about.
    """

    def __init__(self, template: Template) -> None:
        text = template.to_json()
        self._name = f"{_DOCUMENT}.{hashlib.sha256(text.encode()).hexdigest()[:32]}"
        self.properties = {self._name: text}

    def summary(self, rows: int) -> dict[str, str]:
        """Return what the snapshot says of itself."""
        return {_DOCUMENT: self._name, _ROWS: str(rows)}


def _schema(schema: Any) -> Any:
    """Return the schema with plain text for dictionaries, and without the document."""
    pa = pyarrow()
    return pa.schema(
        [field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in schema]
    )


def _reader(schema: Any, batches: Any) -> Any:
    pa = pyarrow()
    plain = (
        pa.RecordBatch.from_arrays(
            [column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns],
            schema=schema,
        )
        for batch in batches
    )
    return pa.RecordBatchReader.from_batches(schema, plain)


def _snapshot(there: Any, table: Identifier, snapshot_id: int | None, as_of: datetime | None) -> Any:
    """Return the snapshot that is wanted."""
    if as_of is not None:
        found = _at(there, table, as_of)
    elif snapshot_id is not None:
        found = there.snapshot_by_id(snapshot_id)
    else:
        found = there.current_snapshot()
    if found is None:
        wanted = f"as of {as_of}" if as_of is not None else "at all" if snapshot_id is None else f"{snapshot_id}"
        raise SourceUnavailableError(f"the table {_name(table)} has no snapshot {wanted}")
    return found


def _at(there: Any, table: Identifier, as_of: datetime) -> Any:
    if as_of.tzinfo is None:
        raise UnsupportedFeatureError(f"as_of={as_of!r} has no time zone, so it is no point in time")
    found = there.snapshot_as_of_timestamp(int(as_of.timestamp() * 1000))
    while found is not None and not _is_whole(found) and found.parent_snapshot_id is not None:
        found = there.snapshot_by_id(found.parent_snapshot_id)  # replacing removes, and then adds, in one commit
    return found


def _is_whole(snapshot: Any) -> bool:
    summary = snapshot.summary
    return summary is not None and summary.get(_ROWS) == summary.get("total-records")


def _tree(there: Any, snapshot: Any, table: Identifier) -> tuple[ManifestGroup, Template]:
    name = None if snapshot.summary is None else snapshot.summary.get(_DOCUMENT)
    if name is None or name not in there.properties or not _is_whole(snapshot):
        raise FormatError(
            f"the snapshot {snapshot.snapshot_id} of the table {_name(table)} was not written by virtualchunks, or is "
            "half of one that replaced all rows: its rows are not those that its metadata speaks of"
        )
    template = Template.from_json(there.properties[name])
    return tree_of(there.scan(snapshot_id=snapshot.snapshot_id).to_arrow(), template), template
