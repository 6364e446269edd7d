"""ManifestGroup: a tree of arrays of chunk references, with attributes, as a file or a store holds it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError, ManifestError

if TYPE_CHECKING:
    import xarray

    from virtualchunks.verbs.group import GroupVerbs


@dataclass(frozen=True, eq=False)
class ManifestGroup(Mapping[str, "ManifestArray | ManifestGroup"]):
    """A group of arrays and further groups. As a mapping it leads from names to its direct members.

    Parameters
    ----------
    arrays, groups
        Members by name.
    attributes
        Attributes of the group.
    unlimited_dims
        Names of the dimensions that may grow, where the format has such: the record dimension of NetCDF-3, the
        unlimited ones of HDF5. ``None`` where it has not.

    Raises
    ------
    ManifestError
        If a name is none that :func:`is_node_name` allows, or names both an array and a group.

    Examples
    --------
    >>> inner = ManifestGroup(attributes={"title": "inner"})
    >>> [path for path, group in ManifestGroup(groups={"a": inner}).walk()]
    ['', 'a']
    """

    arrays: Mapping[str, ManifestArray] = field(default_factory=dict)
    groups: Mapping[str, ManifestGroup] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    unlimited_dims: Iterable[str] | None = None

    def __post_init__(self) -> None:
        if self.unlimited_dims is not None:
            object.__setattr__(self, "unlimited_dims", frozenset(self.unlimited_dims))
        for name in ("arrays", "groups", "attributes"):
            given = getattr(self, name)
            object.__setattr__(self, name, MappingProxyType({} if given is None else dict(given)))
        for name in (*self.arrays, *self.groups):
            if not is_node_name(name):
                raise ManifestError(f"{name!r} cannot name a member of a group: Zarr has no such node name")
        both = self.arrays.keys() & self.groups.keys()
        if both:
            raise ManifestError(f"{sorted(both)} name both an array and a group")

    def __getitem__(self, path: str) -> ManifestArray | ManifestGroup:
        """Return the member at a name, or at a path of names joined by slashes."""
        first, _, rest = path.strip("/").partition("/")
        if first in self.groups:
            return self.groups[first][rest] if rest else self.groups[first]
        if rest or first not in self.arrays:
            raise KeyError(path)
        return self.arrays[first]

    def __iter__(self) -> Iterator[str]:
        yield from self.arrays
        yield from self.groups

    def __len__(self) -> int:
        return len(self.arrays) + len(self.groups)

    def walk(self, path: str = "") -> Iterator[tuple[str, ManifestGroup]]:
        """Iterate over this group and every group below it, with their paths; the first path is empty."""
        yield path, self
        for name, group in self.groups.items():
            yield from group.walk(f"{path}/{name}" if path else name)

    def walk_arrays(self) -> Iterator[tuple[str, ManifestArray]]:
        """Iterate over the arrays of this group and of every group below it, with their paths."""
        for path, group in self.walk():
            for name, array in group.arrays.items():
                yield (f"{path}/{name}" if path else name), array

    def map_arrays(self, change: Callable[[str, ManifestArray], ManifestArray], path: str = "") -> ManifestGroup:
        """Return the tree with each array replaced by ``change(path, array)``.

        Parameters
        ----------
        change
            What to do to an array, given its path.
        path
            Path of this group, which the paths of the arrays begin with.
        """
        start = f"{path}/" if path else ""
        arrays = {name: change(start + name, array) for name, array in self.arrays.items()}
        groups = {name: group.map_arrays(change, start + name) for name, group in self.groups.items()}
        return ManifestGroup(arrays, groups, self.attributes, self.unlimited_dims)

    @property
    def virtual(self) -> GroupVerbs:
        """What can be asked of the references and done to them; the same as ``Dataset.virtual`` offers."""
        made: GroupVerbs = importlib.import_module("virtualchunks.verbs.group").GroupVerbs(self)
        return made

    @property
    def nbytes_virtual(self) -> int:
        """Bytes that the references of all arrays take in memory."""
        return sum(array.nbytes_virtual for _, array in self.walk_arrays())

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, ManifestGroup):
            return NotImplemented
        return (
            self.arrays.keys() == other.arrays.keys()
            and self.groups.keys() == other.groups.keys()
            and all(same_array(self.arrays[name], other.arrays[name]) for name in self.arrays)
            and all(self.groups[name] == other.groups[name] for name in self.groups)
            and dict(self.attributes) == dict(other.attributes)
            and self.unlimited_dims == other.unlimited_dims
        )

    __hash__ = None  # type: ignore[assignment]  # compares by content

    def __repr__(self) -> str:
        return f"<ManifestGroup {len(self.arrays)} arrays, {len(self.groups)} groups>"

    def __reduce__(self) -> tuple[Any, ...]:
        return ManifestGroup, (dict(self.arrays), dict(self.groups), dict(self.attributes), self.unlimited_dims)

    def to_virtual_dataset(self, **options: Any) -> xarray.Dataset:
        """Return the group as an xarray Dataset of ManifestArrays; see :mod:`virtualchunks.xarray`."""
        made: xarray.Dataset = importlib.import_module("virtualchunks.xarray").group_to_dataset(self, **options)
        return made

    def to_virtual_datasets(self, **options: Any) -> dict[str, xarray.Dataset]:
        """Return this group and every group below it as Datasets of ManifestArrays, by path; this one's is empty."""
        return {path: group.to_virtual_dataset(**options) for path, group in self.walk()}

    def to_virtual_datatree(self, **options: Any) -> xarray.DataTree:
        """Return the tree as an xarray DataTree of ManifestArrays; see :mod:`virtualchunks.xarray`."""
        made: xarray.DataTree = importlib.import_module("virtualchunks.xarray").group_to_datatree(self, **options)
        return made

    def to_arrow(self) -> Any:
        """Return the references as an Arrow table with one row per chunk; see :mod:`virtualchunks.writers.tables`."""
        return importlib.import_module("virtualchunks.writers.tables").to_arrow(self)

    @classmethod
    def from_arrow(cls, table: Any, template: ManifestGroup | None = None) -> ManifestGroup:
        """Return the tree of references in an Arrow table; see :func:`virtualchunks.writers.tables.from_arrow`."""
        made: ManifestGroup = importlib.import_module("virtualchunks.writers.tables").from_arrow(table, template)
        return made


def is_node_name(name: str) -> bool:
    """Return whether an array or a group of a Zarr store can have a name; zarr-python takes a backslash for a slash.

    Examples
    --------
    >>> is_node_name("sea ice"), is_node_name("a/b"), is_node_name("zarr.json")
    (True, False, False)
    """
    return bool(name) and "/" not in name and "\\" not in name and name not in (".", "..", "zarr.json")


def subgroup(root: ManifestGroup, path: str | None, url: str | None = None) -> ManifestGroup:
    """Return the group at a path in a tree, that of a file perhaps; the root without one.

    Raises
    ------
    FormatError
        If there is none; the message lists the groups there are.
    """
    if path is None or not path.strip("/"):
        return root
    found = root.get(path)
    if isinstance(found, ManifestGroup):
        return found
    raise no_group(path, (name for name, _ in root.walk() if name), url, is_array=found is not None)


def no_group(group: str | None, known: Iterable[str], url: str | None, *, is_array: bool = False) -> FormatError:
    """Return the error for a group that is not there.

    Parameters
    ----------
    group
        What was asked for.
    known
        The groups that there are, below the root.
    url
        The file, if there is one.
    is_array
        Whether an array is where the group is asked for.

    Examples
    --------
    >>> str(no_group("model", [], "file:///a.nc"))
    "no group 'model'; the groups there are none but the root [file:///a.nc]"
    """
    names = ", ".join(map(repr, known)) or "none but the root"
    what = f"{group!r} is an array" if is_array else f"no group {group!r}"
    return FormatError(f"{what}; the groups there are {names}", url=url)


def same_array(one: ManifestArray, other: ManifestArray) -> bool:
    """Return whether two arrays have equal metadata and point at the same bytes."""
    return one.metadata == other.metadata and one.manifest == other.manifest
