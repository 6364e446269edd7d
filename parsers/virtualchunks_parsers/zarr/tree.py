"""From arrays by path to a tree of groups, and what is left out on the way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import InitVar, dataclass
from typing import Any

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError
from virtualchunks.group import ManifestGroup, no_group
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import as_url
from virtualchunks_parsers.base import Omissions, TreeParser, names_of
from virtualchunks_parsers.zarr.nodes import Node


@dataclass(frozen=True, kw_only=True)
class HierarchyParser(TreeParser):
    """Turns Zarr metadata, wherever it is kept, into a tree of arrays of chunk references.

    Parameters
    ----------
    skip_variables
        Another name for `drop_variables`.
    """

    skip_variables: InitVar[Iterable[str] | None] = None

    def __post_init__(self, skip_variables: Iterable[str] | None) -> None:
        object.__setattr__(self, "drop_variables", names_of(self.drop_variables, skip_variables))

    def _selection(self, url: str) -> Selection:
        """Return which part of a hierarchy is wanted."""
        return Selection(url, self._path, self._omissions(url))


@dataclass(frozen=True)
class Selection:
    """Which part of a hierarchy is wanted.

    Parameters
    ----------
    url
        What is parsed, for messages.
    group
        Path of the group that becomes the root; empty for the whole.
    omissions
        What is left out.
    """

    url: str
    group: str
    omissions: Omissions

    def wants(self, path: str) -> bool:
        """Return whether a node is part of what is wanted."""
        if self.group and path != self.group and not path.startswith(self.group + "/"):
            return False
        parts = path.split("/")
        return not any(self.omissions.drops("/".join(parts[: count + 1])) for count in range(len(parts)))

    def tree(self, nodes: Mapping[str, Node], make: Callable[[Node], ManifestArray]) -> ManifestGroup:
        """Return the tree of the nodes that are wanted.

        Parameters
        ----------
        nodes
            By path.
        make
            Makes the array of a node.

        Raises
        ------
        FormatError
            If there is no such group.
        """
        if not nodes:
            raise FormatError("no Zarr metadata is there", url=self.url)
        self._check_group(nodes)
        inside = _above(nodes)
        arrays: dict[str, ManifestArray] = {}
        groups: dict[str, dict[str, Any]] = {self.group: {}}
        for path, node in sorted(nodes.items()):
            if not self.wants(path) or inside(path):
                continue
            if not node.is_array:
                groups[path] = node.group_attributes()
                continue
            with self.omissions.attempt(path or "/"):
                arrays[path or node.name] = make(node)
        return self._assemble(arrays, groups)

    def _check_group(self, nodes: Mapping[str, Node]) -> None:
        node = nodes.get(self.group)
        if node is not None and node.is_array and self.group:
            raise FormatError(f"{self.group!r} is no group but an array; name the group that holds it", url=self.url)
        if node is None and self.group and not any(path.startswith(self.group + "/") for path in nodes):
            known = sorted(path for path, node in nodes.items() if path and not node.is_array)
            raise no_group(self.group, known, self.url)

    def _assemble(self, arrays: Mapping[str, ManifestArray], groups: Mapping[str, Mapping[str, Any]]) -> ManifestGroup:
        """Nest arrays and groups given by path, deepest first."""
        members: dict[str, tuple[dict[str, ManifestArray], dict[str, ManifestGroup]]] = {}
        for path in [*groups, *(path.rpartition("/")[0] for path in arrays)]:
            parts = path.split("/") if path else []
            for count in range(len(parts) + 1):
                members.setdefault("/".join(parts[:count]), ({}, {}))
        for path, array in arrays.items():
            parent, _, name = path.rpartition("/")
            if self._is_name(name, path):
                members[parent][0][name] = array
        for path in sorted((path for path in members if path), key=lambda path: -path.count("/")):
            parent, _, name = path.rpartition("/")
            if self._is_name(name, path):
                members[parent][1][name] = ManifestGroup(*members[path], groups.get(path, {}))
        return ManifestGroup(*members[self.group], groups.get(self.group, {}))

    def _is_name(self, name: str, path: str) -> bool:
        if name and name not in (".", "..") and not name.startswith("__"):
            return True
        self.omissions.tell(repr(path), f"{name!r} is not a name that Zarr allows")
        return False


def _above(nodes: Mapping[str, Node]) -> Callable[[str], bool]:
    """Return whether a path lies within an array, where Zarr allows no nodes."""
    arrays = {path for path, node in nodes.items() if node.is_array}

    def inside(path: str) -> bool:
        parts = path.split("/")
        return bool(path) and any("/".join(parts[:count]) in arrays for count in range(len(parts)))

    return inside


def folder_of(url: str, registry: Any) -> tuple[str, ObjectStoreRegistry]:
    """Return the URL of a store without a slash at its end, and a registry that grants what lies beneath it.

    Parameters
    ----------
    url
        URL or path of a store, as the user names it.
    registry
        What he passed. Naming a store grants all of it, so where the URL is granted by name alone, or the registry is
        ``None``, the result grants the folder.
    """
    named = as_url(url).rstrip("/")
    known = ObjectStoreRegistry().grant(named) if registry is None else ObjectStoreRegistry.coerce(registry)
    if named not in known.objects and named + "/" not in known.objects:
        return named, known
    wider = copy.copy(known)
    wider.register(named)
    return named, wider
