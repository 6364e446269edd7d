"""``ManifestGroup.virtual``: what can be asked of a tree of references and done to it, as methods."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from virtualchunks.group import ManifestGroup
from virtualchunks.verbs import asking, checking, comparing, holding, moving, refreshing
from virtualchunks.verbs.table import Table

if TYPE_CHECKING:
    from virtualchunks.parsing import Parser
    from virtualchunks.writers.targets import WriteMode


class GroupVerbs:
    """The verbs of a :class:`~virtualchunks.group.ManifestGroup`; ``Dataset.virtual`` has the same ones.

    Parameters
    ----------
    group
        The tree.

    Examples
    --------
    >>> len(ManifestGroup().virtual.sources())
    0
    """

    def __init__(self, group: ManifestGroup) -> None:
        self._group = group

    @property
    def nbytes(self) -> int:
        """Bytes that the references take in memory."""
        return self._group.nbytes_virtual

    @property
    def nrefs(self) -> int:
        """Number of chunks that are referred to."""
        return sum(len(array.manifest) for _, array in self._group.walk_arrays())

    def sources(self) -> Table:
        """Return a table of the objects referred to; see :func:`virtualchunks.verbs.sources`."""
        return asking.sources(self._group)

    def locate(
        self,
        indexers: Mapping[str, asking.Indexer] | None = None,
        *,
        variables: Iterable[str] | None = None,
        **indexers_kwargs: asking.Indexer,
    ) -> Table:
        """Return where the bytes of some elements are, by position; see :func:`virtualchunks.verbs.locate`."""
        return asking.locate(self._group, {**(indexers or {}), **indexers_kwargs}, variables)

    def diff(self, other: ManifestGroup) -> comparing.Difference:
        """Return what differs in another tree; see :func:`virtualchunks.verbs.diff`."""
        return comparing.diff(self._group, other)

    def check(self, registry: Any = None) -> checking.Check:
        """Ask whether the objects referred to are as they were parsed; see :func:`virtualchunks.verbs.check`."""
        return checking.check(self._group, registry)

    def refresh(
        self,
        registry: Any = None,
        parser: Parser | str | None = None,
        *,
        sources: checking.Check | Iterable[str] | None = None,
        group: str = "",
    ) -> ManifestGroup:
        """Parse what changed again; see :func:`virtualchunks.verbs.refresh`, where `group` is called `at`."""
        return refreshing.refresh(self._group, registry, parser, sources=sources, at=group)

    def rename(self, new: moving.Renaming, *, keep_stamps: bool = False) -> ManifestGroup:
        """Return the tree with other URLs; see :func:`virtualchunks.verbs.rename`."""
        return moving.rename(self._group, new, keep_stamps=keep_stamps)

    def rename_paths(self, new: str | Callable[[str], str]) -> ManifestGroup:
        """Return the tree with one URL for all chunks, or with ``new(url)`` for each."""
        return self.rename(new if callable(new) else lambda _: new)

    def relative_to(self, base: str | os.PathLike[str], root: str = "root") -> ManifestGroup:
        """Return the tree with URLs beneath a named root; see :func:`virtualchunks.verbs.relative_to`."""
        return moving.relative_to(self._group, base, root)

    def bind(self, roots: Mapping[str, str | os.PathLike[str]]) -> ManifestGroup:
        """Return the tree with named roots replaced by places; see :func:`virtualchunks.verbs.bind`."""
        return moving.bind(self._group, roots)

    def inline(
        self,
        threshold: int,
        registry: Any = None,
        *,
        variables: Iterable[str] | None = None,
        limit: int = holding.MOST_BYTES,
    ) -> ManifestGroup:
        """Return the tree with small chunks held in memory; see :func:`virtualchunks.verbs.inline`."""
        return holding.inline(self._group, threshold, registry, variables=variables, limit=limit)

    def materialise(
        self,
        target: str | os.PathLike[str],
        registry: Any = None,
        *,
        selection: Mapping[str, asking.Indexer] | None = None,
        variables: Iterable[str] | None = None,
        mode: WriteMode = "w-",
    ) -> ManifestGroup:
        """Copy chunks into a store of one's own; see :func:`virtualchunks.verbs.materialise`."""
        return holding.materialise(self._group, target, registry, selection=selection, variables=variables, mode=mode)

    def shift(self, chunks: Mapping[str, int] | None = None, **chunks_kwargs: int) -> ManifestGroup:
        """Return the tree with references moved by whole chunks; see :func:`virtualchunks.verbs.shift`."""
        return moving.shift(self._group, {**(chunks or {}), **chunks_kwargs})

    def move(self, old: str, new: str) -> ManifestGroup:
        """Return the tree with an array or a group at another path; see :func:`virtualchunks.verbs.move`."""
        return moving.move(self._group, old, new)
