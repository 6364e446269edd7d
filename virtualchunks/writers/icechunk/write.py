"""Writing to Icechunk: what goes where is planned and checked first; then it is written, and the caller commits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from virtualchunks.errors import MissingDependencyError, UnsupportedFeatureError, WriteError
from virtualchunks.writers.datasets import as_group
from virtualchunks.writers.icechunk.chunks import Writing, write_chunks
from virtualchunks.writers.icechunk.containers import (
    are_plain,
    container_prefixes,
    require_containers,
    require_reachable,
)
from virtualchunks.writers.icechunk.labels import resolve_region, stored_encodings
from virtualchunks.writers.icechunk.nodes import Nodes
from virtualchunks.writers.icechunk.plan import Plan, PutChunks, PutValues, plan_append, plan_new, plan_region

Mode = Literal["w", "w-", "a", "r+"]
Region = Literal["auto"] | Mapping[str, slice | Literal["auto"]]

#: Modes that go with each way of writing.
_MODES: dict[str, tuple[str, ...]] = {"new": ("w-", "w", "a"), "append": ("a",), "region": ("r+", "a")}


def write_icechunk(
    tree: Any,
    store: Any,
    *,
    group: str | None = None,
    mode: Mode | None = None,
    append_dim: str | None = None,
    region: Region | None = None,
    validate_containers: bool = True,
    last_updated_at: datetime | None = None,
    write_inherited_coords: bool = False,
) -> None:
    """Write a tree to the store of an Icechunk session, which the caller commits.

    References become virtual chunks, with the modification time or ETag of their object as a checksum where Icechunk
    can check it; chunks held in memory are stored in the repository.

    Parameters
    ----------
    tree
        A ManifestGroup, or an xarray Dataset or DataTree.
    store
        The ``store`` of a writable Icechunk session.
    group
        Path of the group to write to; by default the root.
    mode
        ``"w-"`` (the default) refuses a group that holds something, ``"w"`` replaces all of it, ``"a"`` replaces the
        arrays that are given.
    append_dim
        The dimension along which the arrays continue the stored ones. Arrays without it must be the stored ones.
    region
        The part of the stored arrays to write, by dimension, as slices of indices; or ``"auto"``, for all or single
        dimensions, to find it by the labels of coordinates.
    validate_containers
        Whether to check that the containers of the repository cover every reference.
    last_updated_at
        A time after which no object may have changed, in place of what was recorded of each.
    write_inherited_coords
        Whether groups of a DataTree repeat the coordinates that they inherit.

    Raises
    ------
    NotGrantedError
        If the containers of the repository do not cover every reference; the message lists the lines to add.
    TargetExistsError
        If `mode` is ``"w-"`` and the group holds something.
    CombineError
        If arrays do not continue the stored ones, or do not fit the region; the message names sizes.
    UnsupportedFeatureError
        If an array cannot be written; the message names it.
    WriteError
        If Icechunk refuses something. All other errors are raised before anything is written.

    Notes
    -----
    Icechunk compares whole seconds: a local file that is rewritten within the second in which it was last modified when
    it was parsed is not noticed.
    """
    _require_icechunk()
    nodes = Nodes.of(store)
    root = (group or "").strip("/")
    way = "append" if append_dim is not None else "region" if region is not None else "new"
    chosen = _mode(way, mode, both=append_dim is not None and region is not None)
    with _icechunk_errors("Nothing has been written"):
        plan = _plan(tree, nodes, root, append_dim, region, chosen, inherit=write_inherited_coords)
    require_reachable(plan.referring)
    if validate_containers:
        require_containers(store, plan.referring)
    with _icechunk_errors("The session holds what was written before: session.discard_changes() drops it"):
        checked = validate_containers and are_plain(container_prefixes(store))
        _carry_out(plan, nodes, checked, last_updated_at)


def _require_icechunk() -> None:
    try:
        import icechunk  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "writing to Icechunk needs icechunk: pip install 'virtualchunks[icechunk]'"
        ) from error


def _mode(way: str, mode: str | None, *, both: bool) -> str:
    if both:
        raise UnsupportedFeatureError("append_dim and region exclude each other: give one of them")
    if mode is None:
        return _MODES[way][0]
    if mode not in _MODES[way]:
        argument = {"new": "without append_dim and region", "append": "with append_dim", "region": "with region"}[way]
        known = ", ".join(map(repr, _MODES[way]))
        raise UnsupportedFeatureError(f"mode={mode!r} is not possible {argument}; possible are {known}")
    return mode


def _plan(
    tree: Any, nodes: Nodes, root: str, append_dim: str | None, region: Region | None, mode: str, *, inherit: bool
) -> Plan:
    if append_dim is None and region is None:
        return plan_new(as_group(tree, inherit=inherit), nodes, root, mode)
    made = as_group(tree, stored_encodings(tree, nodes, root), inherit=inherit)
    if append_dim is not None:
        return plan_append(made, nodes, root, append_dim)
    assert region is not None
    return plan_region(made, nodes, root, resolve_region(tree, nodes, root, region))


@contextmanager
def _icechunk_errors(state: str) -> Iterator[None]:
    """Turn Icechunk's errors into one of ours that says what state the session is in."""
    from icechunk import IcechunkError

    try:
        yield
    except IcechunkError as error:
        reason = str(error).strip().partition("\n")[0]
        raise WriteError(f"Icechunk refused: {reason}. {state}") from error


def _carry_out(plan: Plan, nodes: Nodes, validate: bool, last_updated_at: datetime | None) -> None:
    if last_updated_at is not None and last_updated_at.tzinfo is None:
        last_updated_at = last_updated_at.replace(tzinfo=UTC)
    for path in plan.removed:
        nodes.remove(path)
    for path, document in plan.documents.items():
        nodes.put_document(path, document)
    for step in plan.steps:
        _STEPS[type(step)](step, nodes, validate, last_updated_at)


def _put_chunks(step: PutChunks, nodes: Nodes, validate: bool, last_updated_at: datetime | None) -> None:
    if step.document is not None:
        nodes.put_document(step.array.path, step.document)
    urls = [*step.array.manifest.sources.urls, ""]
    write_chunks(step.array, Writing(urls, nodes, step.start, step.fresh, validate, last_updated_at))


def _put_values(step: PutValues, nodes: Nodes, validate: bool, last_updated_at: datetime | None) -> None:
    import zarr

    array = zarr.open_array(nodes.store, path=step.path, mode="r+", zarr_format=3)
    if array.shape != step.shape:
        array.resize(step.shape)
    array[step.selection] = step.values


_STEPS: dict[type, Any] = {PutChunks: _put_chunks, PutValues: _put_values}
