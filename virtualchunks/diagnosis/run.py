"""Looking over an archive before it is combined: one pass over the metadata of its files."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from virtualchunks.diagnosis.facts import FEATURES, CoordinateFacts, FileFacts, decoded, facts_of
from virtualchunks.diagnosis.report import Diagnosis, DimensionReport, Found, VariableReport
from virtualchunks.diagnosis.trial import Verdict, judge
from virtualchunks.errors import VirtualChunksError
from virtualchunks.group import subgroup
from virtualchunks.reading.beginnings import kept_beginnings
from virtualchunks.xarray.executors import Parallel, run_over
from virtualchunks.xarray.many import Nested, expand, flatten
from virtualchunks.xarray.opening import granting, open_store, open_virtual_dataset, registry_of

if TYPE_CHECKING:
    from virtualchunks.parsing import Parser
    from virtualchunks.xarray.dataset import Registry

#: How many kinds of files a variable is tried with.
MOST_KINDS = 24
#: How much longer than the usual step the way from one file to the next is, where there is a gap.
GAP = 1.5


def diagnose(
    urls: Nested,
    registry: Registry = None,
    parser: Parser | str | None = None,
    *,
    sample: int | None = None,
    concat_dim: str | None = None,
    group: str | None = None,
    parallel: Parallel = True,
) -> Diagnosis:
    """Look over the files of an archive, and say whether and how they combine.

    Every file is opened as :func:`~virtualchunks.open_virtual_dataset` does: its metadata is read, and the values of
    its dimension coordinates. One file of each kind is then joined with the others, variable by variable, so that the
    verdicts are those of the real thing.

    Parameters
    ----------
    urls, registry, parser
        As for :func:`~virtualchunks.open_virtual_mfdataset`.
    sample
        How many of the files to look at, evenly spread and with the first and the last; by default all.
    concat_dim
        The dimension to join along; by default the one whose coordinate, or size, differs between files.
    group
        Path of the group to look at in each file.
    parallel
        As for :func:`~virtualchunks.open_virtual_mfdataset`.

    Returns
    -------
    Diagnosis
        Prints as text, shows as a table in notebooks, and has ``.ok`` and ``.to_dict()``.

    Raises
    ------
    SourceUnavailableError
        If there is nothing to look at. A file that cannot be opened does not raise: it is reported.

    Examples
    --------
    >>> import virtualchunks as vc
    >>> print(vc.diagnose("archive/*.nc", sample=200))  # doctest: +SKIP
    """
    named = list(flatten(expand(urls)))
    chosen = _sampled(named, sample)
    shared = None if registry is None else granting(registry, named[0])
    options: dict[str, Any] = {"registry": shared, "parser": parser, "group": group}
    facts = run_over(partial(look_at, **options), chosen, parallel, describe="looking at")
    good = with_times([one for one in facts if one.error is None])
    varying = _varying(good)
    dimension = concat_dim or _dimension(good, varying)
    ordered = _in_order(good, dimension)
    reports = _variables(ordered, dimension, options)
    dimensions = _dimensions(ordered, varying, dimension)
    failures = {one.url: one.error for one in facts if one.error is not None}
    call = _call(ordered, dimension, reports, dimensions, failures)
    return Diagnosis(len(chosen), dimension, reports, dimensions, failures, call)


def look_at(url: str, *, registry: Any, parser: Any, group: str | None) -> FileFacts:
    """Return the facts of one file; why it cannot be opened, where it cannot."""
    granted = granting(registry, url)
    try:
        with kept_beginnings():  # what parsing read gives the coordinates
            store = open_store(url, granted, parser)
            return facts_of(url, subgroup(store.group, group, url), registry_of(store, granted))
    except VirtualChunksError as error:
        return FileFacts(url, error=f"{type(error).__name__}: {error.message}")


def with_times(facts: Sequence[FileFacts]) -> list[FileFacts]:
    """Return the facts of files with the times of their coordinates decoded."""
    result = [dict(one.coordinates) for one in facts]
    for name in dict.fromkeys(name for coordinates in result for name in coordinates):
        places = [place for place, coordinates in enumerate(result) if name in coordinates]
        times = decoded([result[place][name] for place in places])
        for place, one in zip(places, times, strict=True):
            result[place][name] = one
    return [replace(one, coordinates=coordinates) for one, coordinates in zip(facts, result, strict=True)]


def _opened(url: str, *, registry: Any, parser: Any, group: str | None) -> xr.Dataset:
    return open_virtual_dataset(url, registry, parser, group=group)


def _sampled(urls: list[str], sample: int | None) -> list[str]:
    if sample is None or sample >= len(urls):
        return urls
    places = np.unique(np.linspace(0, len(urls) - 1, max(sample, 1)).round().astype(int))
    return [urls[place] for place in places.tolist()]


def _varying(facts: Sequence[FileFacts]) -> list[str]:
    """Return the dimensions whose coordinate, or size where some file has no coordinate, differs between files."""
    names = dict.fromkeys(name for one in facts for name in one.sizes)
    return [name for name in names if len({_extent(one, name) for one in facts if name in one.sizes}) > 1]


def _extent(facts: FileFacts, name: str) -> Any:
    coordinate = facts.coordinates.get(name)
    return facts.sizes[name] if coordinate is None else (coordinate.size, coordinate.digest)


def _dimension(facts: Sequence[FileFacts], varying: Sequence[str]) -> str | None:
    """Return the dimension to join along: of those that vary, the one with the most different coordinates."""
    with_coordinate = [name for name in varying if any(name in one.coordinates for one in facts)]
    candidates = with_coordinate or list(varying)
    if not candidates:
        return None
    return max(candidates, key=lambda name: len({_extent(one, name) for one in facts if name in one.sizes}))


def _in_order(facts: Sequence[FileFacts], dimension: str | None) -> list[FileFacts]:
    """Return files in the order of their coordinate, as ``combine="by_coords"`` puts them; else in that given."""
    if dimension is None or not all(_start(one, dimension) is not None for one in facts):
        return list(facts)
    try:
        return sorted(facts, key=lambda one: _start(one, dimension))
    except TypeError:
        return list(facts)


def _start(facts: FileFacts, dimension: str) -> Any:
    coordinate = facts.coordinates.get(dimension)
    return None if coordinate is None or not coordinate.size else coordinate.first


def _found(values: Iterable[tuple[str, str]]) -> list[Found]:
    """Count values, given with the file that each is from; the most frequent come first."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for value, url in values:
        counts[value] += 1
        examples.setdefault(value, url)
    return [Found(value, count, examples[value]) for value, count in counts.most_common()]


def _variables(
    facts: Sequence[FileFacts], dimension: str | None, options: Mapping[str, Any]
) -> dict[str, VariableReport]:
    names = dict.fromkeys(name for one in facts for name in one.variables)
    kinds = {name: _kinds(facts, name) for name in names}
    wanted = dict.fromkeys(url for urls in kinds.values() for url in urls)
    opened = {url: _opened(url, **options) for url in wanted}
    reports = {}
    for name in names:
        holding = [one for one in facts if name in one.variables]
        absent = next((one.url for one in facts if name not in one.variables), None)
        verdict = _verdict(name, [opened[url] for url in kinds[name]], dimension, absent)
        features = {
            feature: _found((one.variables[name].features[feature], one.url) for one in holding) for feature in FEATURES
        }
        missing = sum(one.variables[name].missing for one in holding)
        reports[name] = VariableReport(verdict, len(holding), features, missing, absent)
    return reports


def _kinds(facts: Sequence[FileFacts], name: str) -> list[str]:
    """Return one file for each kind of a variable, in the order of the files."""
    examples: dict[Any, str] = {}
    for one in facts:
        if name in one.variables:
            examples.setdefault(one.variables[name].kind, one.url)
    return list(examples.values())[:MOST_KINDS]


def _verdict(name: str, examples: Sequence[xr.Dataset], dimension: str | None, absent: str | None) -> Verdict:
    verdict = judge(name, examples, dimension)
    if absent is None or not verdict.ok:
        return verdict
    if dimension is not None and dimension in examples[0].variables[name].dims:
        because = "some files do not have it: variables='union' puts missing chunks in their place"
        return Verdict(verdict.verdict, "; ".join(filter(None, (verdict.because, because))))
    return verdict


def _dimensions(
    facts: Sequence[FileFacts], varying: Sequence[str], dimension: str | None
) -> dict[str, DimensionReport]:
    names = dict.fromkeys(name for one in facts for name in one.sizes)
    return {name: _dimension_report(facts, name, name in varying, name == dimension) for name in names}


def _dimension_report(facts: Sequence[FileFacts], name: str, varies: bool, is_joined: bool) -> DimensionReport:
    having = [one for one in facts if name in one.sizes]
    sizes = _found((str(one.sizes[name]), one.url) for one in having)
    coordinates = [(one.url, one.coordinates[name]) for one in having if name in one.coordinates]
    filled = [(url, coordinate) for url, coordinate in coordinates if coordinate.size]
    if not filled:
        return DimensionReport(sizes, varies=varies)
    steps = _found((_step(coordinate), url) for url, coordinate in filled if coordinate.step is not None)
    gaps, overlaps = _seams(filled) if is_joined else ([], [])
    return DimensionReport(sizes, steps, varies, _text(filled[0][1].first), _text(filled[-1][1].last), gaps, overlaps)


def _step(coordinate: CoordinateFacts) -> str:
    return _text(coordinate.step) if coordinate.is_even else f"uneven, about {_text(coordinate.step)}"


def _text(value: Any) -> str:
    if isinstance(value, np.timedelta64):
        seconds = value / np.timedelta64(1, "s")
        days, rest = divmod(seconds, 86400)
        return f"{days:g} days" if not rest else f"{seconds / 3600:g} hours" if not rest % 3600 else f"{seconds:g} s"
    if isinstance(value, np.datetime64):
        return str(value.astype("M8[s]")).removesuffix("T00:00:00")
    return str(value.item() if isinstance(value, np.generic) else value)


def _seams(filled: Sequence[tuple[str, CoordinateFacts]]) -> tuple[list[str], list[str]]:
    """Return the gaps and the overlaps between files that follow one another."""
    between = [_difference(one.last, other.first) for (_, one), (_, other) in itertools.pairwise(filled)]
    if any(distance is None for distance in between):
        return [], []
    within = [coordinate.step for _, coordinate in filled if coordinate.step is not None]
    usual = sorted([*within, *(distance for distance in between if _is_positive(distance))])
    step = usual[len(usual) // 2] if usual else None
    gaps, overlaps = [], []
    for ((url, one), (next_url, other)), distance in zip(itertools.pairwise(filled), between, strict=True):
        place = f"{_text(one.last)} ({url}) to {_text(other.first)} ({next_url})"
        if not _is_positive(distance):
            overlaps.append(place)
        elif step is not None and _is_longer(distance, step):
            gaps.append(place)
    return gaps, overlaps


def _difference(one: Any, other: Any) -> Any:
    try:
        return other - one
    except TypeError:
        return None


def _is_positive(distance: Any) -> bool:
    return bool(distance > distance - distance)


def _is_longer(distance: Any, step: Any) -> bool:
    return bool(distance / step > GAP) if _is_positive(step) else False


def _call(
    facts: Sequence[FileFacts],
    dimension: str | None,
    reports: Mapping[str, VariableReport],
    dimensions: Mapping[str, DimensionReport],
    failures: Mapping[str, str],
) -> str:
    """Return the call that opens the archive, below what has to be done first."""
    notes = []
    if failures:
        notes.append(f"# leave out the {len(failures)} files that cannot be opened")
    bad = [name for name, report in reports.items() if not report.verdict.ok]
    notes += [f"# {name}: {reports[name].verdict.because}" for name in bad]
    arguments = ["urls"]
    if dimension is None:
        arguments += ['combine="nested"', 'concat_dim="NAME OF A NEW DIMENSION"']
    elif not all(dimension in one.coordinates for one in facts):
        arguments += ['combine="nested"', f"concat_dim={dimension!r}"]
    if dimension is not None and dimensions[dimension].overlaps:
        notes.append(f"# files overlap along {dimension!r}: overlap= says which of them, in the order of urls, counts")
        arguments.append('overlap="first"')
    if any(report.absent_from is not None and name not in bad for name, report in reports.items()):
        arguments.append('variables="union"')
    if bad:
        arguments.append(f"drop_variables={bad!r}")
    return "\n".join([*notes, f"vc.open_virtual_mfdataset({', '.join(arguments)})"])
