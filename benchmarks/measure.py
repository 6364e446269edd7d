"""Measuring: rows of a table, ratios within one run, memory in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HAS_PEER = importlib.util.find_spec("virtualizarr") is not None


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, on what, and what it is measured against."""

    what: str
    ours: float
    unit: str
    bound: float | None = None
    peer: float | None = None
    target: str = ""

    def text(self) -> str:
        cells = [f"{self.what:<58}", f"{number(self.ours, self.unit):>12}"]
        cells.append(f"{number(self.bound, self.unit):>12}" if self.bound is not None else " " * 12)
        cells.append(f"{self.ours / self.bound:>7.2f} ×" if self.bound else " " * 9)
        cells.append(f"{number(self.peer, self.unit):>12}" if self.peer is not None else " " * 12)
        return "  ".join([*cells, self.target])


def number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "s":
        scale, name = next(((s, n) for s, n in ((1, "s"), (1e-3, "ms")) if value >= s), (1e-6, "µs"))
        return f"{value / scale:.3g} {name}"
    return f"{value:.4g} {unit}"


HEADER = "  ".join(
    [f"{'':<58}", f"{'virtualchunks':>12}", f"{'bound':>12}", f"{'ratio':>9}", f"{'VirtualiZarr':>12}", "target"]
)


def best(function: Callable[[], Any], repeat: int = 5) -> float:
    """Return the least time of several runs, in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def alternately(functions: dict[str, Callable[[], Any]], repeat: int = 5) -> dict[str, float]:
    """Time several functions in turn, so that a drifting machine slows all of them; return the medians."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeat):
        for name, function in functions.items():
            times[name].append(best(function, 1))
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}


def in_process(code: str) -> dict[str, Any]:
    """Run code in a fresh interpreter and return the JSON object that it prints last."""
    done = subprocess.run([sys.executable, "-c", PREAMBLE + code], capture_output=True, text=True, check=False)
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


def save(rows: list[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n")
