"""Run the benchmarks, print the table, and keep it in ``benchmarks/results/``, as pictures too, and in the docs.

Times are ratios within one run: beside the least work that the task allows (the bound), and beside the peers, which run
in an environment of their own. ``python benchmarks/run.py core parsing`` runs just these parts, and renews just their
rows; ``QUICK=1`` runs the main table without what takes the peers minutes, and keeps nothing.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
import time
from dataclasses import asdict, fields
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
    rows: dict[str, list[Row]] = {}
    curves: dict[int, dict[str, Any]] = {}
    print(HEADER)
    for part in parts or (MAIN if QUICK else known):
        if part == "growth":
            curves = growth.curves()
        rows[part] = []
        for row in growth.rows(curves) if part == "growth" else importlib.import_module(part).run():
            rows[part].append(row)
            print(row.text(), flush=True)
    print(f"{time.monotonic() - start:.0f} s; {summary([row for found in rows.values() for row in found])}")
    if not QUICK:
        keep(known, rows, curves)


def summary(rows: list[Row]) -> str:
    """Say how many targets are met."""
    judged = [row.met for row in rows if row.met is not None]
    return f"{sum(judged)} of {len(judged)} targets met"


def keep(known: list[str], rows: dict[str, list[Row]], curves: dict[int, dict[str, Any]]) -> None:
    """Write the results where they are kept, those of the parts that did not run as they were."""
    from pictures import RESULTS, draw

    path = RESULTS / "latest.json"
    before = json.loads(path.read_text()) if path.is_file() else {"rows": [], "growth": {}}
    found: list[dict[str, Any]] = []
    for part in known:
        if part in rows:
            found += [{"part": part, **asdict(row), "met": row.met} for row in rows[part]]
        else:
            found += [row for row in before["rows"] if row["part"] == part]
    results = {
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
        "versions": {"virtualchunks": version("virtualchunks"), **versions()},
        "rows": found,
        "growth": {str(power): steps for power, steps in curves.items()} or before["growth"],
    }
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (DOCS / "images").mkdir(exist_ok=True)
    for picture in draw(results, RESULTS):
        shutil.copyfile(picture, DOCS / "images" / f"benchmarks-{picture.name}")
    before_it, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before_it}{BEGIN}\n\n{markdown(results)}\n\n{END}{rest.split(END)[1]}")


def markdown(results: dict[str, Any]) -> str:
    """Return the main table as Markdown."""
    named = {"virtualizarr": "VirtualiZarr"}
    with_versions = ", ".join(f"{named.get(name, name)} {found}" for name, found in results["versions"].items())
    machine = results["machine"]
    lines = [f"With {with_versions}, Python {machine['python']}, on {machine['cores']} cores.", ""]
    lines += [
        "| # | what | ours | bound | ratio | VirtualiZarr | kerchunk | icechunk | target | met |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    names = [field.name for field in fields(Row)]
    for row in (Row(**{name: found[name] for name in names}) for found in results["rows"] if found["number"]):
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} ×"
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        peers = [number(value, row.unit) for value in (row.peer, row.kerchunk, row.icechunk)]
        cells = [row.number, row.what, number(row.ours, row.unit), number(row.bound, row.unit), ratio, *peers]
        lines.append("| " + " | ".join([*cells, row.target.replace("<=", "≤").replace(">=", "≥"), met]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
