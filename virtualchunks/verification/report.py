"""The result of a verification: what is wrong, the worst first."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: How many problems are spelt out.
MOST = 20
#: Kinds of problems, the worst first, and what each means.
KINDS: Mapping[str, str] = {
    "values": "the values are not those that the format's own reader gives",
    "unreadable": "a chunk cannot be read or decoded",
    "elsewhere": "the file, parsed again, has no chunk at these bytes",
    "changed": "the object is not the one that was parsed",
    "gone": "the object is not there",
    "outside": "a chunk ends beyond the end of its object",
    "length": "a chunk has a length that its values cannot have",
    "overlap": "a chunk shares bytes with another",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    message
        What was found, and what was expected.
    variable, chunk, url
        Where.
    extent
        How bad it is among those of its kind: for values, the share of them that differ, and by how much.
    """

    kind: str
    message: str
    variable: str | None = None
    chunk: tuple[int, ...] | None = None
    url: str | None = None
    extent: tuple[float, float] = (0.0, 0.0)

    @property
    def rank(self) -> tuple[int, float, float]:
        """Sorts the worst first."""
        return list(KINDS).index(self.kind), -self.extent[0], -self.extent[1]

    def __str__(self) -> str:
        places = [] if self.variable is None else [f"{self.variable!r}"]
        places += [] if self.chunk is None else [f"chunk {self.chunk}"]
        places += [] if self.url is None else [self.url]
        return f"{self.kind}: {self.message} [{', '.join(places)}]"


@dataclass(frozen=True)
class Verification:
    """Whether references lead to the values that the files hold.

    Attributes
    ----------
    problems
        What is wrong, the worst first.
    chunks
        Chunks whose structure was checked: those in objects, and not those held in memory.
    compared
        Chunks whose values were compared with those of the format's own reader.
    missing
        Chunks that are in no file and read as fill values.
    unverified
        Why values of chunks of the sample were not compared, and how many chunks that concerns.
    """

    problems: Sequence[Problem] = ()
    chunks: int = 0
    compared: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    unverified: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong. Chunks that could not be compared do not count as wrong: see `unverified`."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold."""
        return {
            "ok": self.ok,
            "chunks": self.chunks,
            "compared": self.compared,
            "missing": dict(self.missing),
            "unverified": dict(self.unverified),
            "problems": [
                {
                    "kind": one.kind,
                    "message": one.message,
                    "variable": one.variable,
                    "chunk": None if one.chunk is None else list(one.chunk),
                    "url": one.url,
                }
                for one in self.problems
            ],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        verdict = "nothing is wrong" if self.ok else f"{len(self.problems)} problems"
        yield f"{verdict}: {self.chunks} chunks checked, {self.compared} compared with the files' own reader"
        for variable, count in self.missing.items():
            if count:
                yield f"  {variable!r}: {count} chunks are missing and read as the fill value"
        for reason, count in self.unverified.items():
            yield f"  {count} chunks of the sample not compared: {reason}"
        yield from (f"  {one}" for one in self.problems[:MOST])
        if len(self.problems) > MOST:
            yield f"  and {len(self.problems) - MOST} more"

    def _repr_html_(self) -> str:
        head, *rest = self._lines()
        items = "".join(f"<li>{html.escape(line.strip())}</li>" for line in rest)
        colour = "#2a9d8f" if self.ok else "#c0392b"
        return (
            f'<div style="border-left:3px solid {colour};padding-left:.8em"><b>{html.escape(head)}</b>'
            f"<ul>{items}</ul></div>"
        )
