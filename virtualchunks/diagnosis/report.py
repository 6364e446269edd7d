"""The result of a diagnosis: as text, as HTML in a notebook, and as a dictionary."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from virtualchunks.diagnosis.facts import FEATURES
from virtualchunks.diagnosis.trial import MEANINGS, Verdict

#: How many distinct values of a feature, gaps, or failures are spelt out.
MOST = 8


@dataclass(frozen=True)
class Found:
    """One value of a feature.

    Parameters
    ----------
    value
        The value, in words.
    files
        How many files have it.
    example
        The first of them.
    """

    value: str
    files: int
    example: str


@dataclass(frozen=True)
class VariableReport:
    """One variable over all files.

    Parameters
    ----------
    verdict
        Whether it combines.
    files
        How many files have it.
    features
        The distinct values of each feature, the most frequent first.
    missing_chunks
        Chunks that files which have it do not hold.
    absent_from
        A file that does not have it, if there is one.
    """

    verdict: Verdict
    files: int
    features: Mapping[str, Sequence[Found]]
    missing_chunks: int = 0
    absent_from: str | None = None

    @property
    def differing(self) -> list[str]:
        """The features that are not the same in all files."""
        return [name for name, found in self.features.items() if len(found) > 1]


@dataclass(frozen=True)
class DimensionReport:
    """One dimension over all files.

    Parameters
    ----------
    sizes
        Its distinct sizes.
    steps
        The distinct steps of its coordinate.
    varies
        Whether its coordinate, or without one its size, differs between files.
    first, last
        The least and the greatest value of its coordinate, in words.
    gaps, overlaps
        Where files that follow one another do not touch, or share values, in words.
    """

    sizes: Sequence[Found]
    steps: Sequence[Found] = ()
    varies: bool = False
    first: str = ""
    last: str = ""
    gaps: Sequence[str] = ()
    overlaps: Sequence[str] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What an archive is like, and whether it combines.

    Attributes
    ----------
    files
        Number of files looked at.
    dimension
        The dimension along which they are joined, if one was found or given.
    variables, dimensions
        What was found, by name.
    failures
        Why files could not be opened, by URL.
    call
        The call that opens the archive, with what has to be done first.
    """

    files: int
    dimension: str | None
    variables: Mapping[str, VariableReport] = field(default_factory=dict)
    dimensions: Mapping[str, DimensionReport] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    call: str = ""

    @property
    def ok(self) -> bool:
        """Whether every file opens and every variable combines."""
        return not self.failures and all(report.verdict.ok for report in self.variables.values())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold."""
        return {
            "ok": self.ok,
            "files": self.files,
            "dimension": self.dimension,
            "call": self.call,
            "failures": dict(self.failures),
            "dimensions": {name: _dimension(report) for name, report in self.dimensions.items()},
            "variables": {name: _variable(report) for name, report in self.variables.items()},
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        along = f", joined along {self.dimension!r}" if self.dimension else ""
        yield f"{self.files} files{along}: {'every variable combines' if self.ok else 'not everything combines'}"
        for url, message in list(self.failures.items())[:MOST]:
            yield f"  cannot be opened: {url}: {message}"
        yield from _more(self.failures, "  further files that cannot be opened")
        yield ""
        for name, dimension in self.dimensions.items():
            yield f"dimension {name}: {_listed(dimension.sizes)}{_span(dimension)}"
            for what, places in (("gap", dimension.gaps), ("overlap", dimension.overlaps)):
                yield from (f"  {what}: {place}" for place in places[:MOST])
                yield from _more(places, f"  further {what}s")
        yield ""
        for name, report in self.variables.items():
            because = f": {report.verdict.because}" if report.verdict.because else ""
            yield f"variable {name}: {report.verdict.verdict}{because}"
            if report.absent_from is not None:
                yield f"  in {report.files} of {self.files} files; not in {report.absent_from}"
            for feature in FEATURES:
                found = report.features.get(feature, ())
                if len(found) > 1:
                    yield f"  {feature} differ:"
                    yield from (f"    {one.value}: {one.files} files, such as {one.example}" for one in found[:MOST])
                    yield from _more(found, "    further values")
                elif found and found[0].value != "none":
                    yield f"  {feature}: {found[0].value}"
        yield ""
        yield self.call

    def _repr_html_(self) -> str:
        rows = "".join(self._row(name, report) for name, report in self.variables.items())
        head = html.escape(next(self._lines()))
        places = "".join(
            f"<li>{html.escape(line)}</li>"
            for line in self._lines()
            if line.startswith(("dimension", "  gap", "  over"))
        )
        failed = "".join(
            f"<li>{html.escape(url)}: {html.escape(why)}</li>" for url, why in list(self.failures.items())[:MOST]
        )
        return (
            f'<div class="vc-diagnosis"><style>{_STYLE}</style><p><b>{head}</b></p><ul>{failed}{places}</ul>'
            f"<table><thead><tr><th>variable</th><th>verdict</th><th>what differs</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><pre>{html.escape(self.call)}</pre></div>"
        )

    def _row(self, name: str, report: VariableReport) -> str:
        differing = "".join(
            f"<div><i>{html.escape(feature)}</i>: "
            + "; ".join(
                f'<span title="{html.escape(one.example)}">{html.escape(one.value)} ({one.files})</span>'
                for one in report.features[feature][:MOST]
            )
            + "</div>"
            for feature in report.differing
        )
        absent = "" if report.absent_from is None else f"<div>in {report.files} of {self.files} files</div>"
        meaning = html.escape(MEANINGS[report.verdict.verdict])
        return (
            f'<tr class="{"ok" if report.verdict.ok else "no"}"><th>{html.escape(name)}</th>'
            f'<td title="{meaning}">{html.escape(report.verdict.verdict)}'
            f"<div>{html.escape(report.verdict.because)}</div></td><td>{absent}{differing}</td></tr>"
        )


_STYLE = (
    ".vc-diagnosis table{border-collapse:collapse;font-size:.92em}"
    ".vc-diagnosis th,.vc-diagnosis td{text-align:left;vertical-align:top;padding:.25em .8em;background:none;"
    "color:inherit;border-bottom:1px solid color-mix(in srgb,currentColor 18%,transparent);max-width:36em;"
    "overflow-wrap:anywhere}"
    ".vc-diagnosis th{white-space:nowrap}"
    ".vc-diagnosis td div{opacity:.75;font-size:.92em}"
    ".vc-diagnosis tr.no td:nth-child(2){border-left:3px solid #c0392b}"
    ".vc-diagnosis tr.ok td:nth-child(2){border-left:3px solid #2a9d8f}"
    ".vc-diagnosis pre{white-space:pre-wrap;color:inherit;background:none}"
)


def _listed(found: Sequence[Found]) -> str:
    if len(found) == 1:
        return f"{found[0].value} in every file"
    shown = ", ".join(f"{one.value} ({one.files} files)" for one in found[:MOST])
    return shown + (", …" if len(found) > MOST else "")


def _span(report: DimensionReport) -> str:
    span = f"; from {report.first} to {report.last}" if report.first else ""
    return span + (f"; step {_listed(report.steps)}" if report.steps else "")


def _more(items: Any, what: str) -> Iterator[str]:
    if len(items) > MOST:
        yield f"{what}: {len(items) - MOST}"


def _founds(found: Sequence[Found]) -> list[dict[str, Any]]:
    return [{"value": one.value, "files": one.files, "example": one.example} for one in found]


def _dimension(report: DimensionReport) -> dict[str, Any]:
    return {
        "sizes": _founds(report.sizes),
        "steps": _founds(report.steps),
        "varies": report.varies,
        "first": report.first,
        "last": report.last,
        "gaps": list(report.gaps),
        "overlaps": list(report.overlaps),
    }


def _variable(report: VariableReport) -> dict[str, Any]:
    return {
        "verdict": report.verdict.verdict,
        "because": report.verdict.because,
        "files": report.files,
        "absent_from": report.absent_from,
        "missing_chunks": report.missing_chunks,
        "features": {name: _founds(found) for name, found in report.features.items()},
    }
