"""Writing DMR++ documents, from xarray's objects and from trees of references."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from virtualchunks._version import __version__
from virtualchunks.writers.datasets import as_group
from virtualchunks.writers.dmrpp.elements import around, serialised
from virtualchunks.writers.dmrpp.plan import PlannedGroup, PlannedVariable, planned_group
from virtualchunks.writers.targets import WriteMode, target_of

#: What servers replace by the URL of a data file; documents that refer to none have it.
PLACEHOLDER = "OPeNDAP_DMRpp_DATA_ACCESS_URL"
SUFFIX = ".dmrpp"


def write_dmrpp(
    tree: Any,
    target: str | os.PathLike[str],
    *,
    registry: Any = None,
    store: Any = None,
    mode: WriteMode = "w",
    write_inherited_coords: bool = False,
) -> None:
    """Write a tree as a DMR++ document, which replaces what is there whole or not at all.

    Parameters
    ----------
    tree
        A ManifestGroup, or an xarray Dataset or DataTree.
    target
        A local path or a URL; or a key of `store`. Such names end in ``.dmrpp``.
    registry
        Stores by prefix, where the target is a URL of one.
    store
        An obstore store.
    mode
        ``"w"`` replaces what is there, ``"w-"`` refuses to.
    write_inherited_coords
        Whether groups of a DataTree repeat the coordinates that they inherit.

    Raises
    ------
    UnsupportedFeatureError, LimitExceededError
        If DMR++ cannot hold something; the message names it. Nothing is written then.
    TargetExistsError
        If `mode` is ``"w-"`` and the target is there.
    WriteError
        If the target cannot be written; what was there before is untouched.

    Notes
    -----
    The document names the object that most chunks lie in; chunks in others say so themselves. Arrays held in memory
    stand in it whole. The stamps of sources are not in it.

    Examples
    --------
    >>> import tempfile
    >>> from virtualchunks import ManifestGroup
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_dmrpp(ManifestGroup(attributes={"title": "empty"}), f"{folder}/a.dmrpp")
    """
    place = target_of(target, registry, store)
    name = place.url.rstrip("/").rpartition("/")[2].removesuffix(SUFFIX)
    root = Element("Dataset", {"name": name or "dataset"})
    plan = planned_group(as_group(tree, inherit=write_inherited_coords), root)
    place.write_file((piece.encode() for piece in _document(plan)), mode)


def _document(plan: PlannedGroup) -> Iterator[str]:
    """Yield a document, in pieces."""
    default = plan.most_used_url() or PLACEHOLDER
    head = {
        "xmlns": "http://xml.opendap.org/ns/DAP/4.0#",
        "xmlns:dmrpp": "http://xml.opendap.org/dap/dmrpp/1.0.0#",
        "dapVersion": "4.0",
        "dmrVersion": "1.0",
        "dmrpp:href": default,
        "dmrpp:version": f"virtualchunks {__version__}",
    }
    for name, value in head.items():
        plan.element.set(name, value)
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield from _group(plan, default)


def _group(group: PlannedGroup, default: str) -> Iterator[str]:
    opening, closing = around(group.element)
    yield f"{opening}\n"
    for element in group.dimensions:
        yield f"{serialised(element)}\n"
    for variable in group.variables:
        yield from _variable(variable, default)
    for element in group.attributes:
        yield f"{serialised(element)}\n"
    for inner in group.groups:
        yield from _group(inner, default)
    yield f"{closing}\n"


def _variable(variable: PlannedVariable, default: str) -> Iterator[str]:
    if variable.chunks is None:
        yield f"{serialised(variable.element)}\n"
        return
    opening, closing = around(variable.element)
    start, end = around(variable.chunks.element)
    yield f"{opening}\n{start}\n"
    yield from variable.chunks.lines(default)
    yield f"{end}\n{closing}\n"
