"""What the writers of tables have in common: how a table is written to, and which references last."""

from __future__ import annotations

from typing import Literal

from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.writers.tables.columns import TableOf

#: ``"w-"`` makes a new table, ``"w"`` a version in place of what is there, ``"a"`` one that is appended to.
TableMode = Literal["w", "w-", "a"]


def check_mode(mode: str, append_dim: str | None) -> None:
    """Raise UnsupportedFeatureError for a mode that is none, or that does not go with a dimension to append along."""
    if mode not in ("w", "w-", "a"):
        raise UnsupportedFeatureError(f"unknown mode {mode!r}; known are 'w-', 'w' and 'a'")
    if (mode == "a") != (append_dim is not None):
        raise UnsupportedFeatureError(
            f"mode={mode!r} with append_dim={append_dim!r}: to append, pass mode='a' and the name of a dimension"
        )


def require_lasting(made: TableOf) -> None:
    """Raise UnsupportedFeatureError where a chunk lies in a store in memory, which no other process can read."""
    for path, url in made.objects():
        if url.startswith("memory:"):
            raise UnsupportedFeatureError(
                f"{url} lies in the memory of this process, so the references of {path!r} to it cannot be written",
                url=url,
                variable=path,
            )


def require_bound(made: TableOf, form: str) -> None:
    """Raise UnsupportedFeatureError where a chunk lies beneath a named root, in a form whose readers know of none."""
    for path, url in made.objects():
        if url.startswith("{"):
            raise UnsupportedFeatureError(
                f"{form} cannot hold {url}, which lies beneath a named root: say where that is first, with "
                ".virtual.bind({…})",
                url=url,
                variable=path,
            )
