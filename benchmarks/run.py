"""Run the benchmarks, print the table, and keep it in ``benchmarks/results/``, as pictures too, and in the docs.

Times are ratios within one run: beside the least work that the task allows (the bound), and beside the peers, which run
in an environment of their own. ``python benchmarks/run.py core parsing`` runs just these parts, and ``QUICK=1`` runs
the main table without what takes the peers minutes; neither replaces the results that are kept.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import growth
from measure import HEADER, QUICK, Row, number
from peers import versions

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PAGE = DOCS / "explanation" / "performance.md"
#: The rows of the main table, in its order, and then the others.
MAIN = ("sidebyside", "scattered", "core", "growth")
MORE = ("parsing", "reading", "opening", "references", "tables", "verbs")
BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"


def main(parts: list[str]) -> None:
    start = time.monotonic()
    known = [part for part in (*MAIN, *MORE) if (HERE / f"{part}.py").is_file()]
    whole = not parts and not QUICK
    rows: list[Row] = []
    curves: dict[int, dict[str, Any]] = {}
    print(HEADER)
    for part in parts or (known if whole else MAIN):
        if part == "growth":
            curves = growth.curves()
        found = growth.rows(curves) if part == "growth" else importlib.import_module(part).run()
        for row in found:
            rows.append(row)
            print(row.text(), flush=True)
    print(f"{time.monotonic() - start:.0f} s; {summary(rows)}")
    if whole:
        keep(rows, curves)


def summary(rows: list[Row]) -> str:
    """Say how many targets are met."""
    judged = [row.met for row in rows if row.met is not None]
    return f"{sum(judged)} of {len(judged)} targets met"


def keep(rows: list[Row], curves: dict[int, dict[str, Any]]) -> None:
    """Write the results where they are kept."""
    from pictures import RESULTS, draw

    results = {
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
        "versions": {"virtualchunks": version("virtualchunks"), **versions()},
        "rows": [{**asdict(row), "met": row.met} for row in rows],
        "growth": {str(power): found for power, found in curves.items()},
    }
    (RESULTS / "latest.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (DOCS / "images").mkdir(exist_ok=True)
    for picture in draw(json.loads(json.dumps(results)), RESULTS):
        shutil.copyfile(picture, DOCS / "images" / f"benchmarks-{picture.name}")
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{markdown(results, rows)}\n\n{END}{rest.split(END)[1]}")


def markdown(results: dict[str, Any], rows: list[Row]) -> str:
    """Return the main table as Markdown."""
    named = {"virtualizarr": "VirtualiZarr"}
    with_versions = ", ".join(f"{named.get(name, name)} {found}" for name, found in results["versions"].items())
    machine = results["machine"]
    lines = [f"With {with_versions}, Python {machine['python']}, on {machine['cores']} cores.", ""]
    lines += [
        "| # | what | ours | bound | ratio | VirtualiZarr | kerchunk | icechunk | target | met |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not row.number:
            continue
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} ×"
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        peers = [number(value, row.unit) for value in (row.peer, row.kerchunk, row.icechunk)]
        cells = [row.number, row.what, number(row.ours, row.unit), number(row.bound, row.unit), ratio, *peers]
        lines.append("| " + " | ".join([*cells, row.target.replace("<=", "≤").replace(">=", "≥"), met]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
