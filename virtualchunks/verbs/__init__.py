"""Verbs: what can be asked of a tree of references, and what can be done to it, without xarray.

Each is a function of a :class:`~virtualchunks.group.ManifestGroup`, and a method of ``ManifestGroup.virtual``,
``Dataset.virtual`` and ``DataTree.virtual``. Those that change something return a new tree.
"""

from virtualchunks.verbs.asking import locate, sources
from virtualchunks.verbs.checking import Check, Checked, check
from virtualchunks.verbs.comparing import ArrayDifference, Changes, Difference, diff
from virtualchunks.verbs.holding import inline, materialise
from virtualchunks.verbs.moving import bind, move, relative_to, rename, shift
from virtualchunks.verbs.refreshing import refresh
from virtualchunks.verbs.table import Table

__all__ = [
    "ArrayDifference",
    "Changes",
    "Check",
    "Checked",
    "Difference",
    "Table",
    "bind",
    "check",
    "diff",
    "inline",
    "locate",
    "materialise",
    "move",
    "refresh",
    "relative_to",
    "rename",
    "shift",
    "sources",
]
