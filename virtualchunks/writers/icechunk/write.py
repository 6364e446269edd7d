"""Writing to Icechunk: what goes where is planned and checked first; then it is written, and the caller commits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, get_args

from virtualchunks.array import ManifestArray
from virtualchunks.errors import MissingDependencyError, UnsupportedFeatureError, WriteError
from virtualchunks.reading.inlining import inlined
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.writers.datasets import as_group
from virtualchunks.writers.homogenising import Form, Heterogeneous, homogenised
from virtualchunks.writers.icechunk.chunks import KEPT
from virtualchunks.writers.icechunk.containers import (
    are_plain,
    container_prefixes,
    require_containers,
    require_reachable,
)
from virtualchunks.writers.icechunk.labels import stored_encodings
from virtualchunks.writers.icechunk.nodes import Nodes, join
from virtualchunks.writers.icechunk.plan import Job, OnDuplicate, Region, plan_append, plan_new, plan_region
from virtualchunks.writers.icechunk.steps import Plan, PutChunks, carry_out
from virtualchunks.writers.layout import StoredArray

Mode = Literal["w", "w-", "a", "r+"]

#: The most bytes of chunks that are encoded anew in one write: they are held in memory until all were.
MOST_ENCODED_BYTES = 1 << 30

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
    on_duplicate: OnDuplicate = "error",
    inline_threshold: int | None = None,
    registry: Any = None,
    validate_containers: bool = True,
    last_updated_at: datetime | None = None,
    write_inherited_coords: bool = False,
    heterogeneous: Heterogeneous = "error",
) -> int:
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
        dimensions, to find it by the labels of coordinates. With ``mode="a"``, labels that are not stored yet are put
        where they belong: before the first, between others, or after the last.
    on_duplicate
        With `append_dim`, what becomes of labels that are stored already: ``"error"`` refuses them, ``"skip"`` leaves
        them out, if the objects behind them are still what was written, ``"replace"`` writes them anew, and
        ``"allow"`` appends them once more. Where no coordinate has labels along the dimension, ``"error"`` looks for
        nothing.
    inline_threshold
        Chunks of up to so many bytes are read now and stored in the repository.
    registry
        What may be read for that, for `heterogeneous`, and for the labels of coordinates that are references; by
        default nothing.
    validate_containers
        Whether to check that the containers of the repository cover every reference.
    last_updated_at
        A time after which no object may have changed, in place of what was recorded of each.
    write_inherited_coords
        Whether groups of a DataTree repeat the coordinates that they inherit.
    heterogeneous
        What becomes of arrays whose chunks decode in several ways, or unlike those that are stored: ``"error"`` refuses
        them and says what materialising takes, ``"materialise"`` reads the fewer chunks (all that are unlike, where
        there are stored ones) and stores them in the repository, encoded as the others are. ``"split"`` reads nothing,
        and cuts a group that has such arrays into groups ``part_0``, ``part_1`` … along the dimension along which the
        encodings change.

    Returns
    -------
    int
        The number of chunks that were handed to Icechunk; values that are written through zarr are not counted.

    Raises
    ------
    NotGrantedError
        If the containers of the repository do not cover every reference; the message lists the lines to add.
    TargetExistsError
        If `mode` is ``"w-"`` and the group holds something.
    CombineError
        If arrays do not continue the stored ones, or do not fit the region, and the message names sizes; if labels are
        stored already.
    UnsupportedFeatureError
        If an array cannot be written; the message names it.
    LimitExceededError
        If more than a gibibyte of chunks would have to be encoded anew.
    ReadError
        If a small chunk, a coordinate, or a chunk to encode anew cannot be read.
    WriteError
        If Icechunk refuses something. What was written until then is dropped from a session that held no changes
        before; all other errors are raised before anything is written.

    Notes
    -----
    Icechunk compares whole seconds: a local file that is rewritten within the second in which it was last modified when
    it was parsed is not noticed.
    """
    _require_icechunk()
    nodes = Nodes.of(store)
    way = "append" if append_dim is not None else "region" if region is not None else "new"
    chosen = _mode(way, mode, both=append_dim is not None and region is not None)
    _check_duplicates(way, on_duplicate)
    granted = None if registry is None else ObjectStoreRegistry.coerce(registry)
    with _icechunk_errors("Nothing has been written"):
        job = _job(tree, nodes, (group or "").strip("/"), granted, known=way != "new", inherit=write_inherited_coords)
        job = replace(job, tree=homogenised(job.tree, _form(job, known=way != "new"), heterogeneous, granted))
        options = {"append_dim": append_dim, "region": region, "on_duplicate": on_duplicate}
        plan = _plan(job, way, chosen, options)
    if inline_threshold is not None:
        plan = _with_inlined(plan, granted, inline_threshold)
    require_reachable(plan.referring)
    if validate_containers:
        require_containers(store, plan.referring)
    with _icechunk_errors(KEPT), _all_or_nothing(store.session):
        checked = validate_containers and are_plain(container_prefixes(store))
        carry_out(plan, nodes, validate=checked, last_updated_at=last_updated_at)
    return sum(len(array.manifest) for array in plan.referring)


@contextmanager
def _all_or_nothing(session: Any) -> Iterator[None]:
    """Drop what was written where not all of it could be, unless the session held changes before."""
    clean, whole = not session.has_uncommitted_changes, False
    try:
        yield
        whole = True
    finally:
        if clean and not whole:
            session.discard_changes()


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


def _check_duplicates(way: str, on_duplicate: str) -> None:
    known = get_args(OnDuplicate)
    if on_duplicate not in known:
        raise UnsupportedFeatureError(f"on_duplicate={on_duplicate!r} is none of {', '.join(map(repr, known))}")
    if way != "append" and on_duplicate != "error":
        raise UnsupportedFeatureError(f"on_duplicate={on_duplicate!r} goes with append_dim")


def _job(
    tree: Any, nodes: Nodes, root: str, registry: ObjectStoreRegistry | None, *, known: bool, inherit: bool
) -> Job:
    """Return what is written; loaded variables that are added to stored ones are encoded as those are."""
    encodings = stored_encodings(tree, nodes, root) if known else None
    return Job(as_group(tree, encodings, inherit=inherit), nodes, root, registry)


def _form(job: Job, *, known: bool) -> Form:
    """Return what Icechunk holds, and beside what: the stored arrays, where they stay."""
    if not known:
        return Form("Icechunk", MOST_ENCODED_BYTES)
    return Form("Icechunk", MOST_ENCODED_BYTES, existing=lambda path: job.nodes.array(join(job.root, path)), adds=True)


def _plan(job: Job, way: str, mode: str, options: Mapping[str, Any]) -> Plan:
    """Return what is done, having checked that it can be."""
    if way == "new":
        return plan_new(job.tree, job.nodes, job.root, mode)
    if way == "append":
        return plan_append(job, options["append_dim"], options["on_duplicate"])
    return plan_region(job, options["region"], grow=mode == "a")


def _with_inlined(plan: Plan, registry: ObjectStoreRegistry | None, threshold: int) -> Plan:
    """Return a plan in which small chunks are held in memory."""
    steps = list(plan.steps)
    chunks = {number: step for number, step in enumerate(steps) if isinstance(step, PutChunks)}
    arrays = {str(number): ManifestArray(step.array.metadata, step.array.manifest) for number, step in chunks.items()}
    made = inlined(arrays, ObjectStoreRegistry() if registry is None else registry, threshold)
    for number, step in chunks.items():
        array = StoredArray(step.array.path, step.array.metadata, made[str(number)].manifest)
        steps[number] = replace(step, array=array)
    return replace(plan, steps=tuple(steps))


@contextmanager
def _icechunk_errors(state: str) -> Iterator[None]:
    """Turn Icechunk's errors into one of ours that says what state the session is in."""
    from icechunk import IcechunkError

    try:
        yield
    except IcechunkError as error:
        reason = str(error).strip().partition("\n")[0]
        raise WriteError(f"Icechunk refused: {reason}. {state}") from error
