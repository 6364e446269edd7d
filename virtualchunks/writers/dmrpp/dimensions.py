"""Dimensions of a DAP4 document: declared by the group that first needs them, and known in all groups below."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.writers.dmrpp.elements import legal


@dataclass(eq=False)
class Scope:
    """One group, as the names of dimensions and of their coordinates are looked up from it.

    Attributes
    ----------
    path
        Its path, with a slash at the end.
    group
        The group.
    above
        The group that holds it.
    declared
        Lengths of the dimensions that it declares, and the arrays that they are first needed by.
    """

    path: str
    group: ManifestGroup
    above: Scope | None = None
    declared: dict[str, tuple[int, str]] = field(default_factory=dict)

    def _outwards(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.above

    def dimension(self, name: str, size: int, path: str) -> str:
        """Return the qualified name of a dimension, which is declared here unless a group above has it.

        Parameters
        ----------
        name, size
            The dimension.
        path
            The array that has it.

        Raises
        ------
        UnsupportedFeatureError
            If it has two lengths in one group, or a name that DAP4 cannot have.
        """
        known = next((scope for scope in self._outwards() if name in scope.declared), None)
        if known is not None and known.declared[name][0] == size:
            return known.path + name
        if known is self:
            other, first = self.declared[name]
            raise UnsupportedFeatureError(
                f"the dimension {name!r} has the length {other} in {first!r} and {size} in {path!r}, and DMR++ has one "
                "length for a dimension of a group; rename it in one of them",
                variable=path,
            )
        if not name or "/" in name:
            raise UnsupportedFeatureError(f"the dimension {name!r} of {path!r} has no name in DAP4", variable=path)
        self.declared[legal(name, "the name of a dimension", path)] = (size, path)
        return self.path + name

    def elements(self) -> Iterator[Element]:
        """Iterate over the ``Dimension`` elements of the group."""
        for name, (size, _) in self.declared.items():
            yield Element("Dimension", name=name, size=str(size))

    def coordinate(self, name: str, size: int) -> str | None:
        """Return the qualified name of the coordinate of a dimension, from this group or the nearest one above."""
        for scope in self._outwards():
            array = scope.group.arrays.get(name)
            if array is not None and array.shape == (size,) and _is_along(array.metadata, name):
                return scope.path + name
        return None


def _is_along(metadata: ArrayMetadata, name: str) -> bool:
    return metadata.dimension_names == (name,)
