"""Checking the objects that references lead to: which changed, vanished, or cannot be reached. No chunk is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from virtualchunks.errors import NotGrantedError, SourceUnavailableError
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.fetch import first_of
from virtualchunks.reading.requests import stat
from virtualchunks.reading.stamps import compare
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import Stamp
from virtualchunks.verbs.asking import stamp_columns
from virtualchunks.verbs.table import Table

#: Requests in flight.
CONCURRENCY = 32


@dataclass(frozen=True)
class Checked:
    """What became of one object.

    Parameters
    ----------
    url
        The object.
    state
        ``"unchanged"``; ``"changed"``; ``"missing"``; ``"unreadable"``; or ``"unknown"`` where it is there and no stamp
        was recorded to compare it with.
    detail
        What differs, or why it cannot be reached.
    recorded, found
        The stamp when it was parsed, and now.
    """

    url: str
    state: str
    detail: str = ""
    recorded: Stamp = field(default=Stamp(), repr=False)
    found: Stamp | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Check:
    """What became of the objects that references lead to.

    Parameters
    ----------
    objects
        One entry per object and version that is referred to.
    """

    objects: tuple[Checked, ...]

    @property
    def ok(self) -> bool:
        """Whether all objects are there, and none is known to have changed."""
        return not (self.changed or self.missing or self.unreadable)

    @property
    def changed(self) -> tuple[str, ...]:
        """URLs of the objects that are not those that were parsed."""
        return self._urls("changed")

    @property
    def missing(self) -> tuple[str, ...]:
        """URLs of the objects that are gone."""
        return self._urls("missing")

    @property
    def unreadable(self) -> tuple[str, ...]:
        """URLs of the objects of which their store does not say what became of them: forbidden, not answering."""
        return self._urls("unreadable")

    @property
    def unknown(self) -> tuple[str, ...]:
        """URLs of the objects that are there, and were recorded without a stamp."""
        return self._urls("unknown")

    @property
    def table(self) -> Table:
        """The objects as a table: ``url``, ``state``, ``detail``, and size, etag and time as they are now."""
        now = [stamp_columns(entry.found if entry.found is not None else Stamp()) for entry in self.objects]
        plain = {name: [getattr(entry, name) for entry in self.objects] for name in ("url", "state", "detail")}
        return Table({**plain, **{name: [stamp[name] for stamp in now] for name in stamp_columns(Stamp())}})

    def _urls(self, state: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry.url for entry in self.objects if entry.state == state))

    def __str__(self) -> str:
        lines = [
            f"{entry.state}: {entry.url}" + (f" ({entry.detail})" if entry.detail else "") for entry in self._bad()
        ]
        return "\n".join([f"{len(self.objects)} objects, {len(lines)} not as they were", *lines])

    def _bad(self) -> Iterator[Checked]:
        return (entry for entry in self.objects if entry.state in ("changed", "missing", "unreadable"))


def check(group: ManifestGroup, registry: Any = None) -> Check:
    """Ask the stores whether the objects that references lead to are still those that were parsed.

    One request for metadata (a HEAD) is made for each object, many at a time; a local file is only looked at.

    Parameters
    ----------
    group
        The references.
    registry
        What may be asked for: a registry, or a mapping of prefixes.

    Returns
    -------
    Check
        What became of each object.

    Raises
    ------
    NotGrantedError
        If the registry does not cover an object.
    """
    granted = ObjectStoreRegistry.coerce(registry)
    wanted = stamped_urls(group)
    urls = list(dict.fromkeys(url for url, _ in wanted))
    for url in urls:
        with suppress(SourceUnavailableError):
            granted.locate(url)  # what is not granted is found out before anything is asked
    with ThreadPoolExecutor(max(1, min(CONCURRENCY, len(urls))), "virtualchunks-check") as pool:
        answers = dict(zip(urls, pool.map(partial(_ask, granted), urls), strict=True))
    return Check(tuple(_judged(url, stamp, answers[url]) for url, stamp in wanted))


def stamped_urls(group: ManifestGroup) -> Sequence[tuple[str, Stamp]]:
    """Return the distinct objects and versions that references lead to, in order."""
    found: dict[tuple[str, Stamp], None] = {}
    for _, array in group.walk_arrays():
        table = array.manifest.sources
        found.update(
            ((url, table.stamp(row)), None) for row in array.manifest.used_rows().tolist() if (url := table.url(row))
        )
    return list(found)


def _ask(registry: ObjectStoreRegistry, url: str) -> Stamp | SourceUnavailableError | NotGrantedError:
    try:
        return first_of(registry.locate_all(url), stat)
    except (SourceUnavailableError, NotGrantedError) as error:
        return error


def _judged(url: str, recorded: Stamp, found: Stamp | SourceUnavailableError | NotGrantedError) -> Checked:
    if not isinstance(found, Stamp):
        gone = isinstance(found.__cause__, FileNotFoundError | NotADirectoryError | LookupError)
        return Checked(url, "missing" if gone else "unreadable", found.message, recorded)
    if not recorded:
        return Checked(url, "unknown", "no stamp was recorded", recorded, found)
    difference = compare(recorded, found)
    return Checked(url, "changed" if difference else "unchanged", difference or "", recorded, found)
