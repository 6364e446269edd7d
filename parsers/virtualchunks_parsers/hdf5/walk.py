"""The tree of an HDF5 file: its groups, links and datasets, each dataset once per place it is linked from.

Links are followed here and not by what opens objects, so that a link into another file goes through the registry, and
so that cycles end. What a link cannot lead to is reported by name. Values and storage are not looked at.

References
----------
HDF5 File Format Specification, version 3.0, section IV.A.2.g, "The Link Message".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    NotGrantedError,
    ReadError,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.group import is_node_name
from virtualchunks_parsers.hdf5.file import HDF5File, HDF5Files, hdf5_errors, text
from virtualchunks_parsers.hdf5.library import library_root
from virtualchunks_parsers.hdf5.objects import EXTERNAL, HARD, SOFT, Books, Group, Link, Object, StoredDataset
from virtualchunks_parsers.hdf5.objects import Report as AttributeReport
from virtualchunks_parsers.hdf5.structures import prepare, structure_root

#: Groups within groups, and links that lead to links.
DEEPEST = 100
#: Objects in one file, counted once for every place they are linked from.
MOST_OBJECTS = 200_000

#: An object of a file: which file, by number, and its address there.
Address = tuple[str, int]
#: What is called with the path of something left out, and why.
Report = Callable[[str, VirtualChunksError], None]


@dataclass(eq=False)
class DatasetNode:
    """A dataset in its place in the tree.

    Attributes
    ----------
    found, path, name
        The dataset, and where it was found.
    attributes
        Those meant for people.
    books
        What it says of its dimensions.
    """

    found: StoredDataset
    path: str
    name: str
    attributes: dict[str, Any]
    books: Books

    @property
    def file(self) -> HDF5File:
        """The file that holds it."""
        return self.found.file

    @property
    def address(self) -> Address:
        """Which object it is."""
        return self.file.url, self.found.address

    def unlimited_axes(self) -> list[int]:
        """Return the axes that may grow without bounds."""
        with hdf5_errors(self.file.url, self.path):
            return self.found.unlimited_axes()


@dataclass(eq=False)
class GroupNode:
    """A group in its place in the tree, with what it holds, in the file's order."""

    path: str
    attributes: dict[str, Any] = field(default_factory=dict)
    datasets: list[DatasetNode] = field(default_factory=list)
    groups: dict[str, GroupNode] = field(default_factory=dict)

    def walk(self) -> Iterator[GroupNode]:
        """Iterate over this group and those below it, the deepest first."""
        for group in self.groups.values():
            yield from group.walk()
        yield self


class Walk:
    """One walk through a file.

    Parameters
    ----------
    files
        The open files.
    is_dropped
        Whether a member, given by path and name, is left out without a word.
    report
        Called for what is left out because it cannot be had.
    """

    def __init__(self, files: HDF5Files, is_dropped: Callable[[str, str], bool], report: Report) -> None:
        self._files = files
        self._is_dropped = is_dropped
        self._report = report
        self._objects = 0
        self.names: dict[Address, str] = {}

    def root(self, found: Group, path: str) -> GroupNode:
        """Return the group from which a walk begins, and all below it; see :meth:`group`."""
        with hdf5_errors(found.file.url, path or "/"):
            prepare(found, path, self._is_dropped)
        return self.group(found, path, ((found.file.url, found.address),))

    def group(self, found: Group, path: str, above: tuple[Address, ...]) -> GroupNode:
        """Return a group and all below it.

        Parameters
        ----------
        found, path
            The group, and its path.
        above
            The groups that it lies in, and itself.

        Raises
        ------
        FormatError
            If it cannot be read.
        LimitExceededError
            If it is nested too deeply, or holds too much.
        """
        file = found.file
        if len(above) > DEEPEST:
            raise LimitExceededError(f"groups nested more than {DEEPEST} deep", url=file.url, variable=path)
        with hdf5_errors(file.url, path or "/"):
            node = GroupNode(path, found.attributes(self._attribute_report(path or "/")))
            links = found.links()
        for link in links:
            name = text(link.name)
            member = f"{path}/{name}"
            if link.kind == HARD:
                self.names.setdefault((file.url, link.address), name)
            if self._is_dropped(member, name):
                continue
            self._count(file)
            with hdf5_errors(file.url, member):
                try:
                    self._member(node, found, link, above)
                except (UnsupportedFeatureError, NotGrantedError, ReadError) as error:
                    if link.kind == HARD and not isinstance(error, UnsupportedFeatureError):
                        raise
                    self._report(member, error)
        return node

    def _count(self, file: HDF5File) -> None:
        self._objects += 1
        if self._objects > MOST_OBJECTS:
            raise LimitExceededError(f"more than {MOST_OBJECTS} objects, counted by their links", url=file.url)

    def _member(self, node: GroupNode, group: Group, link: Link, above: tuple[Address, ...]) -> None:
        found = group.open(link) if link.kind == HARD else self.follow(group, link.name)
        name = text(link.name)
        if not is_node_name(name):
            raise UnsupportedFeatureError(f"no member of a Zarr group can have the name {name!r}")
        path = f"{node.path}/{name}"
        if isinstance(found, StoredDataset):
            attributes = found.attributes(self._attribute_report(path))
            node.datasets.append(DatasetNode(found, path, name, attributes, found.books()))
        elif isinstance(found, Group):
            address = (found.file.url, found.address)
            if address in above:
                raise UnsupportedFeatureError(f"{path!r} is a link to a group that it lies in itself")
            node.groups[name] = self.group(found, path, (*above, address))

    def _attribute_report(self, path: str) -> AttributeReport:
        def report(name: str, error: VirtualChunksError) -> None:
            self._report(f"{path}@{name}", error)

        return report

    # ------------------------------------------------------------------------------------------------------- links

    def follow(self, group: Group, raw: bytes, depth: int = 0) -> Object | None:
        """Return the object that a path leads to, ``None`` for a named type.

        Parameters
        ----------
        group
            Where the path begins, unless it begins with a slash.
        raw
            Names joined by slashes.
        depth
            How many links led here.

        Raises
        ------
        UnsupportedFeatureError
            If it leads nowhere, or in a circle.
        """
        if depth > DEEPEST:
            raise UnsupportedFeatureError("a link that leads to itself")
        at: Object | None = root_of(group.file) if raw.startswith(b"/") else group
        for name in filter(None, raw.split(b"/")):
            if name == b".":
                continue
            link = at.find(name) if isinstance(at, Group) else None
            if link is None or not isinstance(at, Group):
                raise UnsupportedFeatureError(f"a link to {text(raw)!r}, which is not there")
            if link.kind == HARD:
                at = at.open(link)
            elif link.kind == SOFT:
                at = self.follow(at, link.target[0], depth + 1)
            elif link.kind == EXTERNAL:
                at = self._follow_out(at.file, link.target[0], link.target[1], depth + 1)
            else:
                raise UnsupportedFeatureError(f"a link of the user-defined kind {link.kind}")
        return at

    def _follow_out(self, file: HDF5File, name: bytes, path: bytes, depth: int) -> Object | None:
        url = self._files.url_beside(file.url, text(name))
        try:
            other = self._files.open(url)
        except FormatError as error:
            raise UnsupportedFeatureError(f"a link into {url}: {error.message}") from error
        return self.follow(root_of(other), b"/" + path, depth)

    # -------------------------------------------------------------------------------------------- dimension scales

    def searched_name(self, node: DatasetNode, axis: int, address: int) -> str | None:
        """Return the name of a dimension's scale that was not met on the walk; ``None`` where no link leads to it.

        The whole file is searched for it, so ask once for each scale.
        """
        with hdf5_errors(node.file.url, node.path):
            name = node.found.scale_name(axis, address)
        return None if name is None else text(name)


def root_of(file: HDF5File) -> Group:
    """Return the root group of a file, as it is or as the HDF5 library has it."""
    return library_root(file) if file.container is None else structure_root(file)


def missing_group(path: str, file: HDF5File) -> FormatError:
    """Return the error for a group that is not in the file, naming those that are near."""
    root = root_of(file)
    groups = [text(link.name) for link in root.links() if link.kind == HARD and isinstance(root.open(link), Group)]
    known = ", ".join(repr("/" + name) for name in groups[:20]) or "none"
    return FormatError(f"no group {path!r}; the groups at the root are {known}", url=file.url)
