"""Names of dimensions, from HDF5's dimension scales and netCDF-4's own books.

As the netCDF library has it: a dimension is called after the scale attached to it (the last, where there are
several); a scale of one dimension after itself; and a dimension without a scale shares the name of one of its length
in its group that the array does not have yet, or gets a name ``phony_dim_0``, ``phony_dim_1``, … . Groups are
numbered through, the deepest first.

References
----------
HDF5 Dimension Scale Specification and Design Notes; NetCDF-4 library, ``libhdf5/hdf5open.c``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from virtualchunks_parsers.hdf5.walk import Address, DatasetNode, GroupNode, Walk

#: What netCDF-4 puts before the name of a variable that is called like a dimension it does not have.
NON_COORDINATE = "_nc4_non_coord_"


def variable_name(name: str) -> str:
    """Return the name of a variable as netCDF-4 means it.

    Examples
    --------
    >>> variable_name("_nc4_non_coord_time")
    'time'
    """
    return name.removeprefix(NON_COORDINATE)


class DimensionNames:
    """Gives the dimensions of the arrays of one tree their names.

    Parameters
    ----------
    root
        The tree.
    walk
        The walk that it comes from.
    """

    def __init__(self, root: GroupNode, walk: Walk) -> None:
        self._walk = walk
        scales = [node for group in root.walk() for node in group.datasets if node.books.is_scale]
        self._by_id = {node.books.dimension_id: node.name for node in scales if node.books.dimension_id is not None}
        self._scale_names: dict[Address, str | None] = {node.address: node.name for node in scales}
        self._next = max([len(scales) - 1, *self._by_id]) + 1

    def of_group(
        self, group: GroupNode, shapes: Sequence[tuple[DatasetNode, tuple[int, ...]]]
    ) -> list[tuple[str, ...]]:
        """Return the names of the dimensions of the arrays of one group, in order.

        Parameters
        ----------
        group
            The group; call this for groups in the order of :meth:`GroupNode.walk`.
        shapes
            Its arrays, with their shapes.
        """
        pool: dict[int, list[str]] = {}
        for node in group.datasets:
            if node.books.is_scale and (extent := node.found.extent()):
                pool.setdefault(extent[0], []).append(variable_name(node.name))
        return [self._of_array(node, shape, pool) for node, shape in shapes]

    def _of_array(self, node: DatasetNode, shape: tuple[int, ...], pool: dict[int, list[str]]) -> tuple[str, ...]:
        known = [*self._labels(node, len(shape)), *[None] * len(shape)][: len(shape)]
        used = {name for name in known if name is not None}
        names = []
        for size, label in zip(shape, known, strict=True):
            name = self._unlabelled(size, used, pool) if label is None else label
            used.add(name)
            names.append(name)
        return tuple(names)

    def _labels(self, node: DatasetNode, ndim: int) -> list[str | None]:
        """The names that the file gives the dimensions."""
        books = node.books
        if books.is_scale and len(books.dimension_ids) == ndim:
            return [self._by_id.get(number) for number in books.dimension_ids]
        if any(scale is not None for scale in books.scales):
            return [None if scale is None else self._name(node, axis, scale) for axis, scale in enumerate(books.scales)]
        if books.is_scale and ndim:
            return [variable_name(node.name)]
        return []

    def _unlabelled(self, size: int, used: Iterable[str], pool: dict[int, list[str]]) -> str:
        same = pool.setdefault(size, [])
        for name in same:
            if name not in used:
                return name
        same.append(f"phony_dim_{self._next}")
        self._next += 1
        return same[-1]

    def _name(self, node: DatasetNode, axis: int, address: int) -> str | None:
        """The name of a scale: as it was met on the walk, or else as it is found by searching the file."""
        scale = (node.file.url, address)
        if scale not in self._scale_names:
            self._scale_names[scale] = self._walk.names.get(scale) or self._walk.searched_name(node, axis, address)
        name = self._scale_names[scale]
        return None if name is None else variable_name(name)
