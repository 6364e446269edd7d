"""The tree of an HDF5 file: its groups, links and datasets, each dataset once per place it is linked from.

Links are followed here and not by the HDF5 library, so that a link into another file goes through the registry, and
so that cycles end. What a link cannot lead to is reported by name. Values and storage are not looked at.

References
----------
HDF5 File Format Specification, version 3.0, section IV.A.2.g, "The Link Message".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from h5py import h5, h5a, h5d, h5g, h5i, h5l, h5o, h5p, h5r, h5s, h5t

from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    NotGrantedError,
    ReadError,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.group import is_node_name
from virtualchunks_parsers.hdf5.attributes import Report as AttributeReport
from virtualchunks_parsers.hdf5.attributes import attribute_names, read_attributes, require_small
from virtualchunks_parsers.hdf5.file import HDF5File, HDF5Files, hdf5_errors, text

#: Groups within groups, and links that lead to links.
DEEPEST = 100
#: Objects in one file, counted once for every place they are linked from.
MOST_OBJECTS = 200_000

HIDDEN_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"

#: An object of a file: which file, by number, and its address there.
Address = tuple[str, int]
#: Name, kind and, of a hard link, address.
Link = tuple[bytes, int, int]
#: What is called with the path of something left out, and why.
Report = Callable[[str, VirtualChunksError], None]


@dataclass(eq=False)
class DatasetNode:
    """A dataset in its place in the tree.

    Attributes
    ----------
    file, id, path, name
        The file that holds it, the HDF5 library's dataset, and where it was found.
    address
        Which object it is.
    attributes
        Those meant for people.
    scales
        The address of the dimension scale of each of its dimensions; ``None`` where there is none. Empty without
        scales.
    is_scale, is_hidden
        Whether it is a dimension scale, and one that stands for a dimension alone.
    dimension_id, dimension_ids
        Of a scale, netCDF-4's number of the dimension it stands for, and those of the dimensions it has.
    """

    file: HDF5File
    id: h5d.DatasetID
    path: str
    name: str
    address: Address
    attributes: dict[str, Any] = field(default_factory=dict)
    scales: tuple[Address | None, ...] = ()
    is_scale: bool = False
    is_hidden: bool = False
    dimension_id: int | None = None
    dimension_ids: tuple[int, ...] = ()

    def unlimited_axes(self) -> list[int]:
        """Return the axes that may grow without bounds."""
        with hdf5_errors(self.file.url, self.path):
            longest = self.id.get_space().get_simple_extent_dims(True)
        return [axis for axis, size in enumerate(longest) if size == h5s.UNLIMITED]


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

    def root(self, file: HDF5File, id: h5g.GroupID, path: str) -> GroupNode:
        """Return the group from which a walk begins, and all below it; see :meth:`group`."""
        with hdf5_errors(file.url, path or "/"):
            address = (file.url, h5o.get_info(id).addr)
        return self.group(file, id, path, (address,))

    def group(self, file: HDF5File, id: h5g.GroupID, path: str, above: tuple[Address, ...]) -> GroupNode:
        """Return a group and all below it.

        Parameters
        ----------
        file, id, path
            The file that holds it, the HDF5 library's group, and its path.
        above
            The groups that it lies in, and itself.

        Raises
        ------
        FormatError
            If the HDF5 library cannot read it.
        LimitExceededError
            If it is nested too deeply, or holds too much.
        """
        if len(above) > DEEPEST:
            raise LimitExceededError(f"groups nested more than {DEEPEST} deep", url=file.url, variable=path)
        with hdf5_errors(file.url, path or "/"):
            node = GroupNode(path, read_attributes(id, attribute_names(id), self._attribute_report(path or "/")))
            links = _links(id)
        for raw, kind, address in links:
            name = text(raw)
            member = f"{path}/{name}"
            if kind == h5l.TYPE_HARD:
                self.names.setdefault((file.url, address), name)
            if self._is_dropped(member, name):
                continue
            self._count(file)
            with hdf5_errors(file.url, member):
                try:
                    self._member(node, file, id, (raw, kind, address), above)
                except (UnsupportedFeatureError, NotGrantedError, ReadError) as error:
                    if kind == h5l.TYPE_HARD and not isinstance(error, UnsupportedFeatureError):
                        raise
                    self._report(member, error)
        return node

    def _count(self, file: HDF5File) -> None:
        self._objects += 1
        if self._objects > MOST_OBJECTS:
            raise LimitExceededError(f"more than {MOST_OBJECTS} objects, counted by their links", url=file.url)

    def _member(
        self,
        node: GroupNode,
        file: HDF5File,
        group: h5g.GroupID,
        link: Link,
        above: tuple[Address, ...],
    ) -> None:
        raw, kind, place = link
        if kind == h5l.TYPE_HARD:
            holder, found = file, h5o.open(group, raw)
        else:
            holder, found = self.follow(file, group, raw)
            place = h5o.get_info(found).addr
        name = text(raw)
        if not is_node_name(name):
            raise UnsupportedFeatureError(f"no member of a Zarr group can have the name {name!r}")
        path, address = f"{node.path}/{name}", (holder.url, place)
        if isinstance(found, h5d.DatasetID):
            node.datasets.append(self._dataset(holder, found, path, address))
        elif isinstance(found, h5g.GroupID):
            if address in above:
                raise UnsupportedFeatureError(f"{path!r} is a link to a group that it lies in itself")
            node.groups[name] = self.group(holder, found, path, (*above, address))

    def _dataset(self, file: HDF5File, id: h5d.DatasetID, path: str, address: Address) -> DatasetNode:
        node = DatasetNode(file, id, path, path.rpartition("/")[2], address)
        names = attribute_names(id)
        node.attributes = read_attributes(id, names, self._attribute_report(path))
        if b"CLASS" in names and _bytes(id, b"CLASS") == b"DIMENSION_SCALE":
            node.is_scale = True
            node.is_hidden = b"NAME" in names and _bytes(id, b"NAME").startswith(HIDDEN_DIMENSION)
            if b"_Netcdf4Dimid" in names:
                node.dimension_id = next(iter(_integers(id, b"_Netcdf4Dimid")), None)
            if b"_Netcdf4Coordinates" in names:
                node.dimension_ids = tuple(_integers(id, b"_Netcdf4Coordinates"))
        if b"DIMENSION_LIST" in names:
            node.scales = self._scales(file, id)
        return node

    def _attribute_report(self, path: str) -> AttributeReport:
        def report(name: str, error: VirtualChunksError) -> None:
            self._report(f"{path}@{name}", error)

        return report

    # ------------------------------------------------------------------------------------------------------- links

    def follow(self, file: HDF5File, group: h5g.GroupID, raw: bytes, depth: int = 0) -> tuple[HDF5File, Any]:
        """Return the object that a path leads to, and the file that holds it.

        Parameters
        ----------
        file, group
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
        at: Any = h5o.open(file.id, b"/") if raw.startswith(b"/") else group
        for name in filter(None, raw.split(b"/")):
            if name == b".":
                continue
            if not isinstance(at, h5g.GroupID) or not at.links.exists(name):
                raise UnsupportedFeatureError(f"a link to {text(raw)!r}, which is not there")
            kind = at.links.get_info(name).type
            if kind == h5l.TYPE_HARD:
                at = h5o.open(at, name)
            elif kind == h5l.TYPE_SOFT:
                file, at = self.follow(file, at, at.links.get_val(name), depth + 1)
            elif kind == h5l.TYPE_EXTERNAL:
                file, at = self._follow_out(file, at.links.get_val(name), depth + 1)
            else:
                raise UnsupportedFeatureError(f"a link of the user-defined kind {kind}")
        return file, at

    def _follow_out(self, file: HDF5File, target: tuple[bytes, bytes], depth: int) -> tuple[HDF5File, Any]:
        name, path = target
        url = self._files.url_beside(file.url, text(name))
        try:
            other = self._files.open(url)
        except FormatError as error:
            raise UnsupportedFeatureError(f"a link into {url}: {error.message}") from error
        return self.follow(other, h5o.open(other.id, b"/"), b"/" + path, depth)

    # -------------------------------------------------------------------------------------------- dimension scales

    def _scales(self, file: HDF5File, id: h5d.DatasetID) -> tuple[Address | None, ...]:
        """The scale of each dimension; of several, netCDF's libraries take the last, and so is done here."""
        attribute = h5a.open(id, b"DIMENSION_LIST")
        kind = attribute.get_type()
        if kind.get_class() != h5t.VLEN or kind.get_super().get_class() != h5t.REFERENCE:
            return ()
        lists = _read(attribute)
        return tuple(self._scale(file, references[-1]) if len(references) else None for references in lists.ravel())

    def _scale(self, file: HDF5File, reference: Any) -> Address | None:
        """The object that a reference leads to; ``None`` where it was deleted."""
        found = _dereference(file, reference)
        return None if found is None else (file.url, h5o.get_info(found).addr)

    def searched_name(self, node: DatasetNode, axis: int) -> str | None:
        """Return the name of a dimension's scale that was not met on the walk; ``None`` where no link leads to it.

        The library searches the whole file for it, so ask once for each scale.
        """
        with hdf5_errors(node.file.url, node.path):
            references = _read(h5a.open(node.id, b"DIMENSION_LIST")).ravel()[axis]
            path = h5i.get_name(_dereference(node.file, references[-1]))
        return text(path).rpartition("/")[2] if path else None


def _dereference(file: HDF5File, reference: Any) -> Any:
    if not isinstance(reference, h5r.Reference) or not reference:
        return None
    try:
        return h5r.dereference(reference, file.id)
    except (KeyError, ValueError, RuntimeError, OSError):
        return None  # the object was deleted, and the reference stayed


def _links(group: h5g.GroupID) -> list[Link]:
    """Name, kind and address of the links of a group, in the order of their making where the file keeps that."""
    found: list[Link] = []
    plist = group.get_create_plist()
    ordered = isinstance(plist, h5p.PropGCID) and plist.get_link_creation_order() & h5p.CRT_ORDER_INDEXED
    group.links.iterate(
        lambda name, info: found.append((name, info.type, info.u)),
        info=True,
        idx_type=h5.INDEX_CRT_ORDER if ordered else h5.INDEX_NAME,
    )
    return found


def _read(attribute: h5a.AttrID) -> Any:
    require_small(attribute.get_space(), attribute.get_type())
    values = np.empty(attribute.shape, dtype=attribute.dtype)
    attribute.read(values)
    return values


def _bytes(id: h5d.DatasetID, name: bytes) -> bytes:
    attribute = h5a.open(id, name)
    if attribute.get_type().get_class() != h5t.STRING:
        return b""
    values = _read(attribute).ravel()
    value = values[0] if len(values) else b""
    return value.encode() if isinstance(value, str) else bytes(value)


def _integers(id: h5d.DatasetID, name: bytes) -> list[int]:
    attribute = h5a.open(id, name)
    if attribute.get_type().get_class() != h5t.INTEGER:
        return []
    return [int(value) for value in _read(attribute).ravel()]


def missing_group(path: str, file: HDF5File) -> FormatError:
    """Return the error for a group that is not in the file, naming those that are near."""
    root = h5o.open(file.id, b"/")
    groups = [text(raw) for raw, kind, _ in _links(root) if kind == h5l.TYPE_HARD and _is_group(root, raw)]
    known = ", ".join(repr("/" + name) for name in groups[:20]) or "none"
    return FormatError(f"no group {path!r}; the groups at the root are {known}", url=file.url)


def _is_group(group: h5g.GroupID, raw: bytes) -> bool:
    return bool(h5o.get_info(group, raw).type == h5o.TYPE_GROUP)
