"""Plans: what a write does to each array of an Icechunk store, decided and checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.errors import CombineError, TargetExistsError, UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.writers.icechunk.grids import require_same
from virtualchunks.writers.icechunk.growth import Target, appended, merged, placed, values_of
from virtualchunks.writers.icechunk.labels import own_labels, stored_labels
from virtualchunks.writers.icechunk.nodes import Nodes, array_document, group_document, join
from virtualchunks.writers.icechunk.placing import Placement, place
from virtualchunks.writers.icechunk.presence import require_unchanged
from virtualchunks.writers.icechunk.steps import Plan, PutChunks, Step
from virtualchunks.writers.layout import StoredArray, dimension_names, stored_array

OnDuplicate = Literal["error", "skip", "replace", "allow"]
Region = Literal["auto"] | Mapping[str, slice | Literal["auto"]]


@dataclass(frozen=True)
class Job:
    """What is written, and where.

    Parameters
    ----------
    tree
        What is written.
    nodes
        The store.
    root
        Path of the group to write to.
    registry
        What may be read, for the labels of coordinates that are references.
    """

    tree: ManifestGroup
    nodes: Nodes
    root: str
    registry: ObjectStoreRegistry | None = None

    def target(self, path: str, array: ManifestArray) -> Target:
        """Return an array beside the stored one.

        Raises
        ------
        CombineError
            If there is no stored one.
        """
        stored = stored_array(join(self.root, path), array, "Icechunk")
        existing = self.nodes.array(stored.path)
        if existing is None:
            raise CombineError(
                f"{stored.path!r} is not in the Icechunk store, so there is nothing to add it to", variable=stored.path
            )
        return Target.of(stored, existing, self.nodes)

    def placement(self, path: str, name: str, *, sorted_in: bool) -> Placement | None:
        """Return where the labels along a dimension of a group go; ``None`` where one of the two has none."""
        own = own_labels(self.tree, path, name, self.registry)
        stored = None if own is None else stored_labels(self.nodes, join(self.root, path), name)
        return None if own is None or stored is None else place(own, stored, name, sorted_in=sorted_in)


def plan_new(tree: ManifestGroup, nodes: Nodes, root: str, mode: str) -> Plan:
    """Return the plan of writing a tree where nothing is kept of the arrays that it holds.

    Parameters
    ----------
    tree
        What is written.
    nodes
        The store.
    root
        Path of the group to write to.
    mode
        ``"w-"`` requires that nothing is there, ``"w"`` removes what is, ``"a"`` replaces single arrays.

    Raises
    ------
    TargetExistsError
        If `mode` is ``"w-"`` and something is there.
    UnsupportedFeatureError
        If an array cannot be written.
    """
    members = nodes.members(root)
    if mode == "w-" and members:
        raise TargetExistsError(
            f"the group {'/' + root!r} of the Icechunk store holds {', '.join(sorted(members)[:5])}; pass mode='w' to "
            "replace it, mode='a' to replace single arrays, or append_dim= or region= to add to them"
        )
    documents = _ancestors(nodes, root)
    steps, removed = [], [root] if mode == "w" else []
    for path, group in tree.walk():
        own = join(root, path)
        known = None if mode == "w" else nodes.document(own)
        document = group_document(group.attributes)
        if known is not None:
            document["attributes"] = {**known.get("attributes", {}), **document["attributes"]}
        documents[own] = document
        for name, array in group.arrays.items():
            stored = stored_array(join(own, name), array, "Icechunk")
            if mode == "a" and nodes.document(stored.path) is not None:
                removed.append(stored.path)
            steps.append(_created(stored))
    return Plan(tuple(removed), documents, tuple(steps))


def _ancestors(nodes: Nodes, root: str) -> dict[str, dict[str, Any]]:
    """Return the documents of groups above the root that are not there yet."""
    parts = root.split("/") if root else []
    paths = ["/".join(parts[:count]) for count in range(len(parts))]
    return {path: group_document({}) for path in paths if nodes.document(path) is None}


def _created(array: StoredArray) -> PutChunks:
    return PutChunks(array, array_document(array.metadata), (0,) * array.metadata.ndim, fresh=True)


def plan_append(job: Job, dimension: str, on_duplicate: OnDuplicate) -> Plan:
    """Return the plan of adding a tree to the end of the stored arrays, along a dimension.

    Parameters
    ----------
    job
        What is written, and where.
    dimension
        The dimension.
    on_duplicate
        What becomes of labels that are stored already.

    Raises
    ------
    CombineError
        If an array does not continue the stored one; the message names sizes. If labels are stored already, and are
        not to be left out or replaced.
    """
    steps: list[Step] = []
    for path, group in job.tree.walk():
        _require_all(job.nodes, join(job.root, path), group, dimension)
        placement = None
        if any(dimension in _names(name, array) for name, array in group.arrays.items()):
            placement = _checked_placement(job, path, dimension, on_duplicate)
        for name, array in group.arrays.items():
            inner = join(path, name)
            if dimension in _names(name, array):
                target = job.target(inner, array)
                steps += _added(target, dimension, placement, on_duplicate)
            else:
                steps += _static(job, inner, array)
    return Plan((), {}, tuple(steps))


def _names(name: str, array: ManifestArray) -> tuple[str, ...]:
    return dimension_names(name, array.metadata)


def _static(job: Job, path: str, array: ManifestArray) -> list[Step]:
    """Return the step that creates an array which an append does not extend; none where it is stored already."""
    stored = stored_array(join(job.root, path), array, "Icechunk")
    existing = job.nodes.array(stored.path)
    if existing is None:
        return [_created(stored)]
    _require_equal(stored, existing, job.nodes)
    return []


def _checked_placement(job: Job, path: str, dimension: str, on_duplicate: OnDuplicate) -> Placement | None:
    """Return where the labels go; ``None`` for all of them to the end."""
    if on_duplicate == "allow":
        return None
    if on_duplicate == "error":
        _require_new(job, path, dimension)
        return None
    placement = job.placement(path, dimension, sorted_in=False)
    if placement is None:
        raise UnsupportedFeatureError(
            f"on_duplicate={on_duplicate!r} goes by the labels along {dimension!r}, and no coordinate with values has "
            "them: load it, or pass registry= to read it"
        )
    return placement


def _require_new(job: Job, path: str, dimension: str) -> None:
    own = own_labels(job.tree, path, dimension, job.registry)
    stored = None if own is None else stored_labels(job.nodes, join(job.root, path), dimension)
    if own is None or stored is None:
        return
    known = own[own.isin(stored)]
    if len(known):
        raise CombineError(
            f"{len(known)} of the {len(own)} labels along {dimension!r} are stored already ({known[0]} to "
            f"{known[-1]}): pass on_duplicate='skip' to leave them out, 'replace' to write them anew, or 'allow' to "
            "append them once more",
            variable=dimension,
        )


def _added(target: Target, dimension: str, placement: Placement | None, on_duplicate: OnDuplicate) -> list[Step]:
    if placement is None:
        return [appended(target, dimension)]
    steps: list[Step] = []
    for run in placement.present:
        part = target.part(dimension, np.arange(run.start, run.stop))
        if on_duplicate == "replace":
            steps.append(placed(part, {dimension: run.target}))
        else:
            require_unchanged(part, dimension, run.target)
    if placement.new:
        elements = np.concatenate([np.arange(run.start, run.stop) for run in placement.new])
        steps.append(appended(target.part(dimension, elements), dimension))
    elif not placement.present:
        steps.append(appended(target, dimension))
    return steps


def _require_all(nodes: Nodes, root: str, group: ManifestGroup, dimension: str) -> None:
    """Refuse to append to some of the arrays of a group only, which would leave it with two lengths of a dimension."""
    if nodes.document(root) is None:
        raise CombineError(f"there is no group {'/' + root!r} in the Icechunk store to append to; write it first")
    for name in nodes.members(root):
        existing = None if name in group.arrays else nodes.document(join(root, name))
        if existing is not None and dimension in (existing.get("dimension_names") or ()):
            raise CombineError(
                f"the stored array {join(root, name)!r} has the dimension {dimension!r} too, and would be left shorter "
                "than the others: append to all of them at once",
                variable=join(root, name),
            )


def plan_region(job: Job, region: Region, *, grow: bool) -> Plan:
    """Return the plan of writing a tree into a part of the stored arrays.

    Parameters
    ----------
    job
        What is written, and where.
    region
        The part, by dimension: a slice of indices, or ``"auto"`` for labels.
    grow
        Whether labels that are not stored are put where they belong.

    Raises
    ------
    CombineError
        If an array is not stored, or the part does not begin and end where its chunks do; the message names sizes.
    UnsupportedFeatureError
        If labels are asked for and there are none, or a slice has a step.
    """
    steps: list[Step] = []
    labelled = False
    for path, group in job.tree.walk():
        parts = _parts(job, path, group, region)
        labelled = labelled or bool(parts)
        bounds, growing = _resolved(job, path, parts, grow=grow)
        if growing is not None:
            _require_all(job.nodes, join(job.root, path), group, growing[0])
        for name, array in group.arrays.items():
            steps += _regional(job, join(path, name), array, bounds, growing)
    if not labelled:
        raise UnsupportedFeatureError(
            "region='auto' goes by the labels of coordinates with values, and there are none: give slices of indices, "
            "or pass registry= to read them"
        )
    return Plan((), {}, tuple(steps))


def _regional(
    job: Job, path: str, array: ManifestArray, bounds: Mapping[str, slice], growing: tuple[str, Placement] | None
) -> list[Step]:
    target = job.target(path, array)
    if growing is not None and growing[0] in target.names:
        return merged(target, *growing, bounds)
    if set(target.names) & set(bounds):
        return [placed(target, bounds)]
    _require_equal(target.array, target.existing, job.nodes)
    return []


def _parts(job: Job, path: str, group: ManifestGroup, region: Region) -> dict[str, slice | Literal["auto"]]:
    """Return the region of one group by dimension; each that has labels, where that is left open."""
    names = {name for array_name, array in group.arrays.items() for name in _names(array_name, array)}
    if not isinstance(region, str):
        return {name: part for name, part in region.items() if isinstance(part, slice) or name in names}
    return {name: "auto" for name in sorted(names) if own_labels(job.tree, path, name, job.registry) is not None}


def _resolved(
    job: Job, path: str, parts: Mapping[str, slice | Literal["auto"]], *, grow: bool
) -> tuple[dict[str, slice], tuple[str, Placement] | None]:
    """Return the region as slices, and the dimension along which labels are not one slice of the stored ones."""
    bounds: dict[str, slice] = {}
    growing: tuple[str, Placement] | None = None
    for name, part in parts.items():
        if not isinstance(part, str):
            if part.step not in (None, 1):
                raise UnsupportedFeatureError(f"a region is consecutive: {name!r} cannot be {part}")
            bounds[name] = part
            continue
        placement = job.placement(path, name, sorted_in=grow)
        if placement is None:
            raise UnsupportedFeatureError(
                f"region {name!r} cannot be 'auto': there are no labels along it, here or in the Icechunk store"
            )
        if not placement.new and len(placement.present) <= 1:
            bounds[name] = placement.present[0].target if placement.present else slice(0, 0)
            continue
        if not grow or growing is not None:
            raise _not_consecutive(job, path, name, grow=grow)
        growing = name, placement
    return bounds, growing


def _not_consecutive(job: Job, path: str, name: str, *, grow: bool) -> CombineError:
    own = own_labels(job.tree, path, name, job.registry)
    stored = stored_labels(job.nodes, join(job.root, path), name)
    assert own is not None
    assert stored is not None
    advice = "only one dimension can grow" if grow else "with mode='a' they are put where they belong"
    known = f"{stored[0]} to {stored[-1]}" if len(stored) else "none"
    return CombineError(
        f"the labels along {name!r} ({own[0]} to {own[-1]}) are not consecutive ones of the stored coordinate "
        f"({known}); {advice}",
        variable=name,
    )


def _require_equal(array: StoredArray, existing: ArrayMetadata, nodes: Nodes) -> None:
    """Check that an array which a write does not extend is the stored one, as far as that can be seen at once.

    Raises
    ------
    CombineError
        If it differs in shape, dtype or meaning, or, where its values are in memory, in a value.
    """
    require_same(array, existing)
    if not array.in_memory:
        return
    stored = nodes.values(array.path)
    values = values_of(array)
    if not _same_values(values, stored):
        raise CombineError(
            f"{array.path!r} differs from the stored array, which this write leaves as it is: drop the variable to "
            "keep the stored one",
            variable=array.path,
        )


def _same_values(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind in "fcmM")
