"""The results as pictures: each row of the main table on one scale of ratios, and how references grow.

``python benchmarks/pictures.py`` draws ``results/latest.json`` again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

RESULTS = Path(__file__).parent / "results"
PEERS = {"peer": ("VirtualiZarr", "#d55e00", "s"), "kerchunk": ("kerchunk", "#e69f00", "^")}
PEERS["icechunk"] = ("icechunk", "#56b4e9", "D")
OURS, MISSED, BOUND, GREY = "#009e73", "#cc0000", "#222222", "#b0b0b0"
#: The color of ours, by whether the target is met.
MET = {True: OURS, False: MISSED, None: "#666666"}
CURVES = {
    "build": "build (from_arrays)",
    "concat 2": "concatenate 2 arrays",
    "concat 1000": "concatenate 1,000 arrays",
    "slice": "slice",
    "pickle": "pickle",
    "write Parquet": "write Kerchunk Parquet",
    "write JSON": "write Kerchunk JSON",
}
STYLE = {
    "svg.hashsalt": "benchmarks",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.facecolor": "white",
}


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw both pictures into a folder."""
    drawn = []
    with plt.rc_context(STYLE):
        for name, make in (("latest", ratios), ("growth", growth)):
            figure = make(results)
            path = folder / f"{name}.svg"
            figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
            drawn.append(path)
    return drawn


def limit(row: dict[str, Any]) -> float | None:
    """Return the target of a row in its unit: the strictest of its clauses that say "at most"."""
    found = []
    beside = row["beside"] or row["ours"]
    for clause in row["target"].split(";"):
        match = re.fullmatch(r"<=? ([\d.]+) ?(×( the peer)?|\S*)", clause.strip())
        if match is None:
            continue
        number = float(match[1])
        if match[3]:
            found += [number * row["peer"] * row["ours"] / beside] if row["peer"] else []
        elif match[2] == "×":
            found += [number * row["bound"]] if row["bound"] else []
        else:
            scale = {"µs": 1e-6, "ms": 1e-3, "MB": 1e6}.get(match[2], 1) if match[2] != row["unit"] else 1
            found.append(number * scale)
    return min(found, default=None)


def ratios(results: dict[str, Any]) -> Any:
    """Draw every row of the main table relative to ours: what is to the right is more."""
    rows = [row for row in results["rows"] if row["number"] not in ("", "growth") and _is_less_better(row)]
    figure, axes = plt.subplots(figsize=(9.5, 0.27 * len(rows) + 1.4))
    for place, row in enumerate(rows):
        _line(axes, place, row)
    axes.set_yticks(range(len(rows)), [f"{row['number']} · {row['what']}" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ×" if value < 1e5 else f"{value:.0e} ×"))
    axes.xaxis.tick_top()
    axes.spines["bottom"].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    _legend(axes)
    return figure


def _is_less_better(row: dict[str, Any]) -> bool:
    """Whether a row has something to be compared with, and less of it is better."""
    compared = row["bound"] or row["peer"] or row["target"]
    return bool(row["ours"] and compared and not row["target"].startswith(">="))


def _line(axes: Axes, place: int, row: dict[str, Any]) -> None:
    ours, beside = row["ours"], row["beside"] or row["ours"]
    others = {key: row[key] / beside for key in PEERS if row[key] is not None}
    if others:
        axes.plot([1, max(others.values())], [place, place], color=GREY, linewidth=0.8, zorder=1)
    if row["bound"]:
        axes.plot(row["bound"] / ours, place, "|", color=BOUND, markersize=10, markeredgewidth=2, zorder=2)
    target = limit(row)
    if target is not None:
        shape = ">" if row["met"] else "<"
        axes.plot(
            target / ours, place, shape, color="none", markeredgecolor="#666666", markersize=6, zorder=2, clip_on=False
        )
    for key, ratio in others.items():
        _, color, shape = PEERS[key]
        axes.plot(ratio, place, shape, color=color, markersize=5.5, zorder=3)
    axes.plot(1, place, "o", color=MET[row["met"]], markersize=7, zorder=4)


def _legend(axes: Axes) -> None:
    entries: list[tuple[str, dict[str, Any]]] = [
        ("ours, target met", {"marker": "o", "color": OURS}),
        ("ours, target not met", {"marker": "o", "color": MISSED}),
        ("ours, without target", {"marker": "o", "color": MET[None]}),
        ("the bound", {"marker": "|", "color": BOUND, "markeredgewidth": 2, "markersize": 10}),
        ("the target", {"marker": ">", "color": "none", "markeredgecolor": "#666666"}),
        *((name, {"marker": shape, "color": color}) for name, color, shape in PEERS.values()),
    ]
    handles = [axes.plot([], [], linestyle="none", label=label, **style)[0] for label, style in entries]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.3, -0.01), ncols=4, frameon=False, handletextpad=0.2
    )


def growth(results: dict[str, Any]) -> Any:
    """Draw seconds and memory over the number of references."""
    found = {int(power): steps for power, steps in results["growth"].items()}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.8), layout="constrained")
    colors = plt.get_cmap("tab10").colors
    for color, (step, label) in zip(colors, CURVES.items(), strict=False):
        points = {10**power: entry[step]["seconds"] for power, entry in found.items() if step in entry}
        left.plot(list(points), list(points.values()), "o-", color=color, markersize=4, linewidth=1.4, label=label)
    _guides(left, found, (1e-10, 1e-9, 1e-8, 1e-7, 1e-6))
    left.set(title="seconds", ylim=(5e-5, 30))
    sizes = [10**power for power in found]
    kept = [count * found[power]["build"]["kept"] / 1e9 for count, power in zip(sizes, found, strict=True)]
    peaks = [entry["peak of building"] / 1e9 for entry in found.values()]
    right.plot(sizes, kept, "o-", color=OURS, markersize=4, label="retained by the references")
    right.plot(sizes, peaks, "s--", color=BOUND, markersize=4, label="the whole process, at its peak while building")
    peer = {10**6: "1e6", 10**7: "1e7"}
    rss = [
        (count, row["peer"] * count / 1e9)
        for count, text in peer.items()
        for row in results["rows"]
        if row["what"].startswith(f"memory (RSS), {text} references") and row["peer"]
    ]
    if rss:
        right.plot(*zip(*rss, strict=True), "s-", color=PEERS["peer"][1], markersize=4, label="retained, VirtualiZarr")
    right.axhline(2.2, color=MISSED, linewidth=0.9)
    right.annotate("2.2 GB", (sizes[0], 2.2), color=MISSED, va="bottom", fontsize=8)
    _guides(right, found, (16e-9,))
    right.set(title="memory in GB", ylim=(1e-3, 6))
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="references")
        axes.grid(color="#ececec", linewidth=0.6)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.legend(
            frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2 if axes is left else 1
        )
    return figure


def _guides(axes: Axes, found: dict[int, Any], slopes: tuple[float, ...]) -> None:
    """Draw lines that are linear, in grey."""
    ends = [10 ** min(found), 10 ** max(found)]
    for slope in slopes:
        axes.plot(ends, [end * slope for end in ends], ":", color=GREY, linewidth=0.9, zorder=0)


if __name__ == "__main__":
    draw(json.loads((RESULTS / "latest.json").read_text()), RESULTS)
