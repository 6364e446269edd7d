"""Groups of data sets that users made: Vgroups, among them the grids and swaths of HDF-EOS2.

A group refers to data sets, and several groups may refer to one. So every data set is an array of the root, where the
SD interface has them all, and again an array of each group that it is a member of, with the same chunks.

References
----------
HDF Specification and Developer's Guide 4.2, section 9.3.10; HDF4 User's Guide, chapter 5, "Vgroups".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from virtualchunks.array import ManifestArray
from virtualchunks.errors import LimitExceededError
from virtualchunks.group import ManifestGroup
from virtualchunks_parsers.base import Omissions
from virtualchunks_parsers.hdf4.datasets import FILE, FIXED, NUMERIC_GROUPS, UNLIMITED, VARIABLE, DataSets
from virtualchunks_parsers.hdf4.vdata import VGROUP, Vgroup

#: Classes of the Vgroups that the library itself makes, for data sets, their dimensions, and images.
INTERNAL = frozenset({FILE, VARIABLE, FIXED, UNLIMITED, "RIG0.0", "RI0.0"})
DEEPEST = 64
#: Groups of one file, counted for every place they are in.
MOST_GROUPS = 10_000


@dataclass(frozen=True)
class Member:
    """An array that groups may have as a member: the name of its data set, and itself."""

    name: str
    array: ManifestArray


class Groups:
    """Makes groups of Vgroups.

    Parameters
    ----------
    datasets
        The data sets of a file.
    members
        Their arrays, by the reference numbers of their numeric data groups.
    omissions
        What is left out.
    """

    def __init__(self, datasets: DataSets, members: Mapping[int, Member], omissions: Omissions) -> None:
        self._datasets = datasets
        self._members = members
        self._omissions = omissions
        in_order = sorted(datasets.groups.items())  # of their making
        self._users = {ref: group for ref, group in in_order if group.kind not in INTERNAL}
        self._visited = 0

    def roots(self, taken: set[str]) -> dict[str, ManifestGroup]:
        """Return the groups that lie in no other and in which data sets are, however deep.

        Parameters
        ----------
        taken
            The names of the arrays beside them.
        """
        inner = {ref for group in self._users.values() for ref, _ in self._children(group)}
        made: dict[str, ManifestGroup] = {}
        for ref, group in self._users.items():
            if ref not in inner:
                self._add(made, ref, group, "", (), taken)
        return made

    def _children(self, group: Vgroup) -> Iterator[tuple[int, Vgroup]]:
        return ((ref, self._users[ref]) for tag, ref in group.members if tag == VGROUP and ref in self._users)

    def _add(
        self,
        made: dict[str, ManifestGroup],
        ref: int,
        group: Vgroup,
        path: str,
        above: tuple[int, ...],
        taken: set[str],
    ) -> None:
        """Add a group under a name of its own, unless no data set is in it."""
        name = node_name(group.name, f"Vgroup-{ref}", ref, taken)
        member = f"{path}/{name}"
        if self._omissions.drops(member):
            return
        with self._omissions.attempt(member):
            found = self._group(group, member, (*above, ref))
            if found.arrays or found.groups:
                made[name] = found
                taken.add(name)

    def _group(self, group: Vgroup, path: str, above: tuple[int, ...]) -> ManifestGroup:
        self._visited += 1
        if self._visited > MOST_GROUPS or len(above) > DEEPEST:
            raise LimitExceededError(f"more than {MOST_GROUPS} groups, or more than {DEEPEST} within each other")
        arrays: dict[str, ManifestArray] = {}
        for tag, ref in group.members:
            member = self._members.get(ref) if tag in NUMERIC_GROUPS else None
            if member is None or any(array is member.array for array in arrays.values()):
                continue
            name = node_name(member.name, f"Data-Set-{ref}", ref, set(arrays))
            if not self._omissions.drops(f"{path}/{name}"):
                arrays[name] = member.array
        groups: dict[str, ManifestGroup] = {}
        for ref, child in self._children(group):
            if ref not in above:  # groups may lie in each other
                self._add(groups, ref, child, path, above, set(arrays) | set(groups))
        return ManifestGroup(arrays, groups, self._datasets.read_attributes(path, group.attributes))


def node_name(name: str, default: str, number: int, taken: set[str]) -> str:
    """Return a name that Zarr allows, and that nothing else has.

    Parameters
    ----------
    name
        The name in the file.
    default
        What something without a name is called.
    number
        What tells those of one name apart.
    taken
        Names of the others.

    Examples
    --------
    >>> node_name("a/b", "", 3, set()), node_name("a", "", 3, {"a"}), node_name("..", "", 3, set())
    ('a_b', 'a_3', 'HDF4..')
    """
    found = name.strip().replace("/", "_") or default
    while found in taken or found in (".", "..") or found.startswith("__"):
        found = f"{found}_{number}" if found in taken else f"HDF4{found}"
    return found
