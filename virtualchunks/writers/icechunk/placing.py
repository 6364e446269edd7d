"""Placing: which labels are in a store already, and where the others belong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import CombineError

if TYPE_CHECKING:
    import pandas as pd

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """Consecutive elements of what is written, and the index in the store where the first of them goes.

    Parameters
    ----------
    start, stop
        The elements, along the dimension.
    at
        The index of the first in the stored dimension; for new labels, that of the element before which they belong.
    """

    start: int
    stop: int
    at: int

    @property
    def target(self) -> slice:
        """The part of the stored dimension that elements with stored labels fill."""
        return slice(self.at, self.at + self.stop - self.start)


@dataclass(frozen=True)
class Placement:
    """Where the labels of what is written go.

    Parameters
    ----------
    present
        Runs of labels that are stored already.
    new
        Runs of labels that are not, in the order of the store.
    """

    present: tuple[Run, ...]
    new: tuple[Run, ...]


def place(own: pd.Index[Any], stored: pd.Index[Any], name: str, *, sorted_in: bool) -> Placement:
    """Return where labels go.

    Parameters
    ----------
    own, stored
        The labels of what is written, and those in the store.
    name
        Name of the dimension.
    sorted_in
        Whether new labels belong where they are in order; otherwise they belong at the end.

    Raises
    ------
    CombineError
        If a label is there twice, or there is no order that new labels could belong into.

    Examples
    --------
    >>> import pandas as pd
    >>> place(pd.Index([1, 2, 3, 4]), pd.Index([2, 3, 9]), "x", sorted_in=True)
    Placement(present=(Run(start=1, stop=3, at=0),), new=(Run(start=0, stop=1, at=0), Run(start=3, stop=4, at=2)))
    """
    for labels, what in ((own, "to be written"), (stored, "that are stored")):
        if not labels.is_unique:
            twice = labels[labels.duplicated()][0]
            raise CombineError(f"the labels along {name!r} {what} have {twice} more than once", variable=name)
    places = stored.get_indexer(own).astype(np.int64)
    present = places >= 0
    ends = np.full(len(own), len(stored), dtype=np.int64)
    if sorted_in and not present.all():
        ends = _in_order(own, stored, name)
    return Placement(
        _runs(np.flatnonzero(present), places[present], consecutive=True),
        _runs(np.flatnonzero(~present), ends[~present], consecutive=False),
    )


def _in_order(own: pd.Index[Any], stored: pd.Index[Any], name: str) -> Ints:
    """Return for each label the index of the stored one that it belongs before."""
    for sign, ordered in ((1, "is_monotonic_increasing"), (-1, "is_monotonic_decreasing")):
        if getattr(own, ordered) and getattr(stored, ordered):
            if sign > 0:
                return np.asarray(stored.searchsorted(own, side="left"), dtype=np.int64)
            after = np.asarray(stored[::-1].searchsorted(own, side="right"), dtype=np.int64)
            return len(stored) - after
    raise CombineError(
        f"the labels along {name!r} are not in one order ({_ends(own)} to be written, {_ends(stored)} stored), so "
        "there is no place that new ones belong to: sort them, or append them to the end with append_dim=",
        variable=name,
    )


def _ends(labels: pd.Index[Any]) -> str:
    return f"{labels[0]} to {labels[-1]}" if len(labels) else "none"


def _runs(elements: Ints, places: Ints, *, consecutive: bool) -> tuple[Run, ...]:
    if not len(elements):
        return ()
    breaks = (np.diff(elements) != 1) | (np.diff(places) != (1 if consecutive else 0))
    starts = np.flatnonzero(np.concatenate([[True], breaks]))
    stops = np.append(starts[1:], len(elements))
    return tuple(
        Run(int(elements[start]), int(elements[stop - 1]) + 1, int(places[start]))
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    )
