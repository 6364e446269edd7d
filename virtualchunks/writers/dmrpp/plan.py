"""What a DMR++ document says of a tree, made whole before anything is written, so that refusals come first.

References
----------
DAP4 Specification, volume 1, "The Dataset Metadata Response".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.roots import root_of_url
from virtualchunks.writers.dmrpp.attributes import NUMBERS, attribute_elements
from virtualchunks.writers.dmrpp.dimensions import Scope
from virtualchunks.writers.dmrpp.elements import legal
from virtualchunks.writers.dmrpp.storage import Chunks, chunks_of, field_starts, fixed_length_element, held_element
from virtualchunks.writers.layout import StoredArray, stored_array

#: What the format is called in messages.
TARGET = "DMR++"


@dataclass(frozen=True, eq=False)
class PlannedVariable:
    """A variable: its element without its chunks, and these, if it has any."""

    element: Element
    chunks: Chunks | None


@dataclass(eq=False)
class PlannedGroup:
    """A group: its element without its members, and these, in the order in which they are written."""

    element: Element
    dimensions: list[Element] = field(default_factory=list)
    variables: list[PlannedVariable] = field(default_factory=list)
    attributes: list[Element] = field(default_factory=list)
    groups: list[PlannedGroup] = field(default_factory=list)

    def walk_chunks(self) -> Iterator[Chunks]:
        """Iterate over the chunks of the variables of this group and of those below it."""
        yield from (variable.chunks for variable in self.variables if variable.chunks is not None)
        for group in self.groups:
            yield from group.walk_chunks()

    def most_used_url(self) -> str | None:
        """Return the URL that most chunks lie at, if there is any."""
        counts: Counter[str] = Counter()
        for chunks in self.walk_chunks():
            for url, count in chunks.counts():
                counts[url] += count
        return max(counts, key=lambda url: counts[url], default=None)


def planned_group(group: ManifestGroup, element: Element, path: str = "", above: Scope | None = None) -> PlannedGroup:
    """Return what a document says of a group and all below it.

    Parameters
    ----------
    group
        The group.
    element
        Its element, without anything in it.
    path
        Its path, without a leading slash.
    above
        The group that holds it.

    Raises
    ------
    UnsupportedFeatureError, LimitExceededError
        If DMR++ cannot hold something; the message names it.
    """
    prefix = f"{path}/" if path else ""
    scope = Scope(f"/{prefix}", group, above)
    made = PlannedGroup(element)
    for name, array in group.arrays.items():
        made.variables.append(_variable(prefix + name, array, scope))
    made.dimensions += scope.elements()
    made.attributes += attribute_elements(group.attributes, f"/{path}")
    for name, inner in group.groups.items():
        child = Element("Group", name=legal(name, "the name of a group", prefix + name))
        made.groups.append(planned_group(inner, child, prefix + name, scope))
    return made


def _variable(path: str, array: ManifestArray, scope: Scope) -> PlannedVariable:
    stored = stored_array(path, array, TARGET)
    metadata = stored.metadata
    element = Element(_kind(metadata.dtype, path))
    element.set("name", legal(path.rpartition("/")[2], "the name", path))
    _add_fields(element, metadata.dtype, path)
    maps = []
    for name, size in zip(metadata.dimension_names or (), metadata.shape, strict=True):
        SubElement(element, "Dim", name=scope.dimension(str(name), size, path))
        coordinate = scope.coordinate(str(name), size)
        if coordinate is not None and coordinate != f"/{path}":
            maps.append(Element("Map", name=coordinate))
    element.extend(attribute_elements(metadata.attributes, path, metadata.dtype))
    element.extend(maps)
    if metadata.dtype.kind == "S":
        element.append(fixed_length_element(metadata.dtype, metadata.encoding))
    if _is_held(stored):
        element.append(held_element(stored, array))
        return PlannedVariable(element, None)
    _require_no_roots(stored)
    return PlannedVariable(element, chunks_of(stored))


def _require_no_roots(stored: StoredArray) -> None:
    url = next((url for url in stored.manifest.iter_nonempty_paths() if root_of_url(url) is not None), None)
    if url is not None:
        raise UnsupportedFeatureError(
            f"{TARGET} cannot hold {url} of {stored.path!r}, which lies beneath a named root: say where that is first, "
            "with .virtual.bind({…})",
            url=url,
            variable=stored.path,
        )


def _is_held(stored: StoredArray) -> bool:
    """Return whether the values are written into the document, since all of them are in memory."""
    buffers = stored.manifest.sources.buffers or {}
    used = stored.manifest.used_rows().tolist() if buffers else []
    held = [row for row in used if row in buffers]
    if not held:
        return False
    if len(held) < len(used) or stored.has_missing:
        raise UnsupportedFeatureError(
            f"some chunks of {stored.path!r} are held in memory and others are not, and DMR++ holds all values of a "
            "variable or none; load all of it, or leave it out",
            variable=stored.path,
        )
    return True


def _kind(dtype: np.dtype[Any], path: str) -> str:
    """Return DAP4's type of a variable."""
    if dtype.kind in "ST":
        return "String"
    if dtype.names is not None:
        return "Structure"
    kind = NUMBERS.get(dtype.str[1:]) if dtype.kind in "iuf" else None
    if kind is None:
        raise UnsupportedFeatureError(
            f"{path!r} is of the dtype {dtype}, for which DAP4 has no type: known are text, numbers of "
            f"{', '.join(NUMBERS)}, and structures of numbers",
            variable=path,
        )
    return kind


def _add_fields(element: Element, dtype: np.dtype[Any], path: str) -> None:
    """Add the fields of a structure, whose elements have to follow each other without gaps."""
    at = 0
    for name, start in field_starts(dtype).items():
        part = dtype[name]
        if part.kind in "ST" or part.subdtype is not None or start != at:
            raise UnsupportedFeatureError(
                f"the field {name!r} of {path!r} is text, an array, or stands behind a gap, and structures of DMR++ "
                "are numbers one after the other",
                variable=path,
            )
        child = SubElement(element, _kind(part, path), name=legal(name, "the name of a field", path))
        _add_fields(child, part, path)
        at += part.itemsize
    if dtype.names is not None and at != dtype.itemsize:
        raise UnsupportedFeatureError(f"the structure of {path!r} ends with a gap", variable=path)
