"""Commits: one of them, with errors of our own where somebody else committed first, or many in batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from virtualchunks.errors import UnsupportedFeatureError, WriteConflictError, WriteError
from virtualchunks.writers.icechunk.nodes import Nodes
from virtualchunks.writers.icechunk.plan import OnDuplicate
from virtualchunks.writers.icechunk.write import write_icechunk

#: References after which a batch is committed: Icechunk holds what is not committed in memory, and warns of 50 million.
REFERENCES_PER_COMMIT = 10_000_000
#: How often a batch is written again because somebody else committed first.
TRIES = 20


def commit(session: Any, message: str, *, rebase: bool = False, metadata: Mapping[str, Any] | None = None) -> str:
    """Commit a session, if anything was written in it.

    Parameters
    ----------
    session
        A writable Icechunk session.
    message
        What is committed.
    rebase
        Whether to put the changes on top of what others committed to the branch meanwhile, where the two do not touch.
    metadata
        Kept with the snapshot.

    Returns
    -------
    str
        The id of the snapshot; that of the session where nothing was written.

    Raises
    ------
    WriteConflictError
        If others committed meanwhile. The branch is as they left it, and the session holds the changes still.
    WriteError
        If Icechunk refuses for another reason.
    """
    import icechunk

    if not session.has_uncommitted_changes:
        return str(session.snapshot_id)
    solver = icechunk.ConflictDetector() if rebase else None
    branch = session.branch
    kept = None if metadata is None else dict(metadata)
    try:
        return str(session.commit(message, kept, rebase_with=solver))
    except icechunk.RebaseFailedError as error:
        raise WriteConflictError(
            f"others committed changes to the branch {branch!r} that these cannot be put on top of: "
            f"{_conflicts(error.conflicts)}. Write again in a new session; with append_dim, on_duplicate='skip' leaves "
            "out what is there by now"
        ) from error
    except icechunk.ConflictError as error:
        raise WriteConflictError(
            f"others committed to the branch {branch!r} after this session began (at {error.expected_parent}; it is at "
            f"{error.actual_parent}): rebase=True puts these changes on top of theirs, where the two do not touch"
        ) from error
    except icechunk.IcechunkError as error:
        reason = str(error).strip().partition("\n")[0]
        raise WriteError(f"Icechunk refused to commit to the branch {branch!r}: {reason}") from error


def _conflicts(conflicts: Iterable[Any]) -> str:
    paths: dict[str, list[str]] = {}
    for conflict in conflicts:
        kind = str(getattr(conflict.conflict_type, "name", conflict.conflict_type)).rpartition(".")[2]
        paths.setdefault(str(conflict.path), []).append(kind)
    return "; ".join(f"{path} ({', '.join(dict.fromkeys(kinds))})" for path, kinds in sorted(paths.items()))


def write_many(
    repository: Any,
    trees: Iterable[Any],
    *,
    append_dim: str,
    message: str = "References",
    branch: str = "main",
    group: str | None = None,
    references_per_commit: int = REFERENCES_PER_COMMIT,
    on_duplicate: OnDuplicate = "error",
    rebase: bool = False,
    **options: Any,
) -> list[str]:
    """Write many trees one after the other, and commit whenever enough has come together.

    The first creates the group where that is empty; all others are appended. What was committed stays, whatever happens
    to the rest: the same call with ``on_duplicate="skip"`` goes on from there.

    Parameters
    ----------
    repository
        An Icechunk repository.
    trees
        ManifestGroups, or xarray Datasets or DataTrees. They are taken one at a time, and those that are not committed
        are kept.
    append_dim
        The dimension along which they follow each other.
    message
        The beginning of each commit's message; which trees it holds is added.
    branch
        The branch to commit to.
    group
        Path of the group to write to; by default the root.
    references_per_commit
        The number of chunks from which on a batch is committed.
    on_duplicate
        As for :func:`write_icechunk`.
    rebase
        Whether to put a batch on top of what others commit meanwhile; it is written again where the two touch, as two
        appends do.
    **options
        Further arguments of :func:`write_icechunk`.

    Returns
    -------
    list of str
        The ids of the snapshots, in order.

    Raises
    ------
    WriteConflictError
        If others commit to the branch meanwhile.
    VirtualChunksError
        As :func:`write_icechunk`.
    """
    if references_per_commit < 1:
        raise UnsupportedFeatureError(f"a commit holds at least one reference, not {references_per_commit}")
    settings = {"append_dim": append_dim, "on_duplicate": on_duplicate, "group": group, **options}
    snapshots: list[str] = []
    batch: list[Any] = []
    session, count, done = None, 0, 0
    for tree in trees:
        session = _session(repository, branch) if session is None else session
        batch.append(tree)
        count += _written(session, tree, settings)
        if count >= references_per_commit:
            snapshots += _committed(repository, session, batch, settings, _title(message, done, batch), rebase=rebase)
            done += len(batch)
            session, count, batch = None, 0, []
    if session is not None:
        snapshots += _committed(repository, session, batch, settings, _title(message, done, batch), rebase=rebase)
    return snapshots


def _title(message: str, done: int, batch: list[Any]) -> str:
    return f"{message}: {done + 1} to {done + len(batch)}" if len(batch) > 1 else f"{message}: {done + 1}"


def _session(repository: Any, branch: str) -> Any:
    import icechunk

    try:
        return repository.writable_session(branch)
    except icechunk.IcechunkError as error:
        reason = str(error).strip().partition("\n")[0]
        raise WriteError(f"Icechunk opens no session to write to the branch {branch!r}: {reason}") from error


def _written(session: Any, tree: Any, settings: Mapping[str, Any]) -> int:
    """Write one tree to a session, as the first of its group or as the next, and return the number of its chunks."""
    rest = dict(settings)
    group = rest["group"] or ""
    if not Nodes.of(session.store).members(group.strip("/")):
        rest |= {"append_dim": None, "on_duplicate": "error"}
    return write_icechunk(tree, session.store, **rest)


def _committed(
    repository: Any, session: Any, batch: list[Any], settings: Mapping[str, Any], title: str, *, rebase: bool
) -> list[str]:
    """Commit a batch; write it again, on top of what others committed, where that is wanted and needed."""
    if not session.has_uncommitted_changes:
        return []
    for _ in range(TRIES if rebase else 0):
        try:
            return [commit(session, title)]
        except WriteConflictError:
            session = _session(repository, session.branch)
            for tree in batch:
                _written(session, tree, settings)
            if not session.has_uncommitted_changes:
                return []
    return [commit(session, title)]
