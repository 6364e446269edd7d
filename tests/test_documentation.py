"""Every ``python`` block of the README and of the docs runs, page by page, in a folder that holds a small archive.

The blocks of one page run in order in one namespace. A block after the comment ``<!-- no-run -->`` does not run: it
needs something that a test has not got, such as a bucket. A block with a title, such as ``title="slab.py"``, is a file:
it is written into the folder, from which modules can be imported.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

PROJECT = Path(__file__).parent.parent
PAGES = [PROJECT / "README.md", PROJECT / "SECURITY.md", *sorted((PROJECT / "docs").rglob("*.md"))]

BLOCK = re.compile(
    r"^(?P<skip><!-- no-run -->\n)?(?P<indent>[ ]*)```python\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)

FILE = re.compile(r"^```\w+ title=\"(?P<name>[^\"]+)\"\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of Python and the line on which its code starts."""

    code: str
    line: int


def runnable_blocks(text: str) -> list[Block]:
    blocks = []
    for match in BLOCK.finditer(text):
        if match["skip"] is None:
            code = re.sub(f"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
            blocks.append(Block(code, text.count("\n", 0, match.start("code")) + 1))
    return blocks


def files_of(text: str) -> dict[str, str]:
    """Return the files of a page, by name."""
    return {match["name"]: match["code"] for match in FILE.finditer(text)}


def run_page(page: Path) -> None:
    for name, content in files_of(page.read_text(encoding="utf-8")).items():
        Path(name).write_text(content, encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "__page__"}
    for block in runnable_blocks(page.read_text(encoding="utf-8")):
        padded = "\n" * (block.line - 1) + block.code  # so that a traceback shows the line of the page
        exec(compile(padded, str(page), "exec"), namespace)


def one_month(start: pd.Timestamp) -> xr.Dataset:
    """Return a month of daily fields, whose values depend on the date and the place alone."""
    time = pd.date_range(start, start + pd.offsets.MonthEnd(0), freq="D")
    lat, lon = np.linspace(-75.0, 75.0, 6), np.arange(0.0, 360.0, 45.0)
    day = time.day_of_year.to_numpy()[:, None, None]
    air = 280 + 10 * np.sin(2 * np.pi * day / 366) + 0.1 * lat[:, None] + 0.01 * lon
    return xr.Dataset(
        {"air": (("time", "lat", "lon"), air.astype("f4"), {"units": "K", "long_name": "air temperature"})},
        coords={"time": time, "lat": lat, "lon": lon},
        attrs={"Conventions": "CF-1.8"},
    )


LAYOUTS: dict[str, dict[str, Any]] = {
    "data": {"zlib": True, "shuffle": True, "chunks": lambda shape: (1, *shape[1:])},
    "monthly": {"zlib": True, "shuffle": True, "chunks": lambda shape: shape},
    "uncompressed": {"chunks": None},
}


def write_month(folder: str, start: pd.Timestamp) -> None:
    """Write one month as ``data`` (a chunk a day), ``monthly`` (a chunk a month) or ``uncompressed`` (contiguous)."""
    month = one_month(start)
    layout = LAYOUTS[folder]
    chunks = layout["chunks"]
    encoding = {name: value for name, value in layout.items() if name != "chunks"}
    encoding |= {"contiguous": True} if chunks is None else {"chunksizes": chunks(month["air"].shape)}
    calendar = {"units": "days since 1970-01-01", "dtype": "f8"}
    path = Path(folder, f"{start:%Y-%m}.nc")
    path.parent.mkdir(exist_ok=True)
    month.to_netcdf(path, engine="netcdf4", encoding={"air": {**encoding, "_FillValue": None}, "time": calendar})


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Change into a folder with six months of NetCDF-4 files in each of three layouts."""
    monkeypatch.chdir(tmp_path)
    for start in pd.date_range("2020-01-01", periods=6, freq="MS"):
        for folder in LAYOUTS:
            write_month(folder, start)
    return tmp_path


@pytest.fixture
def zarr_configuration():
    """Put zarr's global configuration back after the page."""
    import zarr

    with zarr.config.set({"array.rectilinear_chunks": False}):
        yield


@pytest.fixture
def modules_of_the_page(tmp_path, monkeypatch):
    """Import modules from the folder, and forget them after the page."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
@pytest.mark.usefixtures("archive", "zarr_configuration", "modules_of_the_page")
def test_code_of_page_runs(page):
    run_page(page)


def test_blocks_are_found_with_their_lines_and_skips():
    fence = "```"
    text = f"# t\n\n{fence}python\na = 1\n{fence}\n\n<!-- no-run -->\n{fence}python\nb\n{fence}\n\n"
    text += f"- x\n\n    {fence}python\n    c = 2\n    {fence}\n"
    assert runnable_blocks(text) == [Block("a = 1\n", 4), Block("c = 2\n", 15)]


def test_readme_has_code_that_runs():
    assert len(runnable_blocks((PROJECT / "README.md").read_text(encoding="utf-8"))) >= 2
