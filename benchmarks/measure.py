"""Measuring: rows of a table, ratios within one run, memory in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import operator
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import Elapsed

#: Whether VirtualiZarr is in this environment too. The benchmarks have it in another one, see ``peers``.
HAS_PEER = importlib.util.find_spec("virtualizarr") is not None
#: Whether to leave out what takes minutes: ``QUICK=1``.
QUICK = bool(os.environ.get("QUICK"))


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, on what, and what it is measured against.

    `number` is the row of the main table; `peer` is VirtualiZarr. `beside` is what ours took in the very turns in which
    the peers were timed, where that is not `ours`.
    """

    what: str
    ours: float
    unit: str
    bound: float | None = None
    peer: float | None = None
    target: str = ""
    number: str = ""
    kerchunk: float | None = None
    icechunk: float | None = None
    beside: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.bound if self.bound else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met: None where there is none that a number answers."""
        found = [_holds(self, clause.strip()) for clause in self.target.split(";")]
        known = [holds for holds in found if holds is not None]
        return all(known) if known else None

    def text(self) -> str:
        cells = [f"{self.number:<5}", f"{self.what:<66}", f"{number(self.ours, self.unit):>12}"]
        cells.append(f"{number(self.bound, self.unit):>10}")
        cells.append(f"{self.ratio:>7.2f} ×" if self.ratio is not None else " " * 9)
        cells += [f"{self._peer(value):>19}" for value in (self.peer, self.kerchunk, self.icechunk)]
        met = {True: "met", False: "NOT MET", None: ""}[self.met]
        return "  ".join([*cells, f"{self.target:<32}", met]).rstrip()

    def _peer(self, value: float | None) -> str:
        ours = self.ours if self.beside is None else self.beside
        if value is None:
            return ""
        if not ours:
            return number(value, self.unit)
        ratio = value / ours
        return f"{number(value, self.unit)} ({f'{ratio:,.0f}' if ratio >= 100 else f'{ratio:.3g}'} ×)"


_CLAUSE = re.compile(r"(?P<sign><=|<|>=) (?P<most>[\d.]+)(?: (?P<unit>×|ms|µs|s|B/ref|B|MB|GB))?(?P<peer> the peer)?")
_SIGNS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge}
_SCALES = {"ms": 1e-3, "µs": 1e-6, "MB": 1e6}


def _holds(row: Row, clause: str) -> bool | None:
    """Return whether ``<= 3 ×`` (the bound), ``<= 0.08 × the peer``, ``<= 17 B`` or ``<= 4`` holds for a row."""
    found = _CLAUSE.fullmatch(clause)
    if found is None:
        return None
    scale = 1.0 if found["unit"] == row.unit else _SCALES.get(found["unit"] or "", 1.0)
    value: float | None = row.ours / scale
    if found["peer"]:
        ours = row.ours if row.beside is None else row.beside
        value = ours / row.peer if row.peer else None
    elif found["unit"] == "×":
        value = row.ratio
    return None if value is None else bool(_SIGNS[found["sign"]](value, float(found["most"])))


def number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "s":
        scale, name = next(((s, n) for s, n in ((1, "s"), (1e-3, "ms")) if value >= s), (1e-6, "µs"))
        return f"{value / scale:.3g} {name}"
    if unit == "B" and value >= 1e5:
        return f"{value / 1e6:.4g} MB"
    return (f"{value:,.0f} {unit}" if value >= 1e4 else f"{value:.4g} {unit}").rstrip()


HEADER = "  ".join(
    [
        f"{'#':<5}",
        f"{'':<66}",
        f"{'ours':>12}",
        f"{'bound':>10}",
        f"{'ratio':>9}",
        f"{'VirtualiZarr':>19}",
        f"{'kerchunk':>19}",
        f"{'icechunk':>19}",
        "target",
    ]
)


def best(function: Callable[[], Any], repeat: int = 5) -> float:
    """Return the least time of several runs, in seconds; that of a peer is measured where it runs."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = function()
        times.append(result if isinstance(result, Elapsed) else time.perf_counter() - start)
    return float(min(times))


def alternately(functions: dict[str, Callable[[], Any]], repeat: int = 5) -> dict[str, float]:
    """Time several functions in turn, so that a drifting machine slows all of them; return the medians."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeat):
        for name, function in functions.items():
            times[name].append(best(function, 1))
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}


def in_process(code: str) -> dict[str, Any]:
    """Run code in a fresh interpreter and return the JSON object that it prints last."""
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": here},
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


PREAMBLE = """
import ctypes, gc, json, os, pickle, time
import numpy as np
def rss():
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
def urls(files):
    folder = "s3://some-bucket/archive/of/a/model/with/a/long/name"
    return [f"{folder}/run-{i % 7}/member-{i % 31:03d}/output-{i:08d}.nc4".ljust(100, "x") for i in range(files)]
"""
