"""Run the benchmarks, print the table, and keep it in ``benchmarks/results/latest.json``.

Times are ratios within one run: beside the least work that the task allows (the bound), and beside VirtualiZarr where
it is installed. ``python benchmarks/run.py core parsing`` runs just these parts.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measure import HEADER, Row, save

PARTS = ("core", "parsing", "reading", "references", "tables", "verbs")


def main(parts: list[str]) -> None:
    rows: list[Row] = []
    print(HEADER)
    for part in parts or PARTS:
        for row in importlib.import_module(part).run():
            rows.append(row)
            print(row.text(), flush=True)
    save(rows, Path(__file__).parent / "results" / "latest.json")


if __name__ == "__main__":
    main(sys.argv[1:])
