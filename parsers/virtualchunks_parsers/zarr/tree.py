"""From arrays by path to a tree of groups, and what is left out on the way."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from virtualchunks.array import ManifestArray
from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    MissingDependencyError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.group import ManifestGroup
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import as_url
from virtualchunks_parsers.zarr.nodes import Node

#: Why one array may be left out while the others are read.
LEFT_OUT = (UnsupportedFeatureError, LimitExceededError, MissingDependencyError)


@dataclass(frozen=True)
class Selection:
    """Which part of a hierarchy is wanted.

    Parameters
    ----------
    url
        What is parsed, for messages.
    group
        Path of the group that becomes the root; empty for the whole.
    dropped
        Names of arrays and groups to leave out wherever they are, or paths, with or without a slash before them.
    strict
        Whether leaving out what cannot be represented is an error.
    """

    url: str
    group: str = ""
    dropped: frozenset[str] = field(default_factory=frozenset)
    strict: bool = False

    @classmethod
    def of(cls, url: str, group: str | None, dropped: Iterable[str], strict: bool) -> Selection:
        """Return the selection that the arguments of a parser describe."""
        return cls(url, (group or "").strip("/"), frozenset(dropped), strict)

    def wants(self, path: str) -> bool:
        """Return whether a node is part of what is wanted."""
        if self.group and path != self.group and not path.startswith(self.group + "/"):
            return False
        if not self.dropped:
            return True
        parts = path.split("/")
        above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        return self.dropped.isdisjoint([*parts, *above, *("/" + step for step in above)])

    def attempt(self, path: str, make: Callable[[], ManifestArray]) -> ManifestArray | None:
        """Make an array; one that cannot be represented is left out with one warning, or raises if `strict`.

        Raises
        ------
        UnsupportedFeatureError, LimitExceededError, MissingDependencyError
            If `strict`.
        VirtualChunksError
            What else goes wrong, with the place filled in.
        """
        try:
            return make()
        except VirtualChunksError as error:
            error.variable = error.variable if error.variable is not None else path or "/"
            error.url = error.url if error.url is not None else self.url
            if self.strict or not isinstance(error, LEFT_OUT):
                raise
            self.leave_out(path, error.message)
            return None

    def leave_out(self, path: str, reason: str) -> None:
        """Say that a node is left out."""
        warnings.warn(UnsupportedArrayWarning(f"{path or '/'!r} of {self.url} is left out: {reason}"), stacklevel=2)

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
            array = self.attempt(path, lambda node=node: make(node))  # type: ignore[misc]  # it is called at once
            if array is not None:
                arrays[path or node.name] = array
        return self._assemble(arrays, groups)

    def _check_group(self, nodes: Mapping[str, Node]) -> None:
        node = nodes.get(self.group)
        if node is not None and node.is_array and self.group:
            raise FormatError(f"{self.group!r} is no group but an array; name the group that holds it", url=self.url)
        if node is None and self.group and not any(path.startswith(self.group + "/") for path in nodes):
            known = ", ".join(sorted(path for path, node in nodes.items() if path and not node.is_array)) or "none"
            raise FormatError(f"there is no group {self.group!r}; the groups are {known}", url=self.url)

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
        self.leave_out(path, f"{name!r} is not a name that Zarr allows")
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
