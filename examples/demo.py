"""The main job end to end: an archive of monthly files, one virtual cube, two reference formats, every value checked.

``make demo`` runs this script. It writes an archive of monthly NetCDF-4 files, opens them virtually, concatenates them,
writes the references as Icechunk and as Kerchunk, and reopens both in a fresh process, which compares every value with
``xr.open_mfdataset``. It prints what it did, and draws the chunks of the cube, coloured by the file that holds them.

Two variables show two ways to chunk an archive. ``air`` is stored by day: all of its chunks have one shape, so every
format can hold it. ``rain`` is stored by month, in tiles: its chunks are 28 to 31 days long, a rectilinear grid, which
Icechunk can hold and Kerchunk cannot.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
import zarr

import virtualchunks as vc

SHAPE = (60, 120)
TILE = (30, 60)
JOIN: dict[str, Any] = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "exact"}


@dataclass(frozen=True)
class Places:
    """Where everything lies in the working folder."""

    root: Path

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def files(self) -> list[Path]:
        return sorted(self.archive.glob("*.nc"))

    @property
    def icechunk(self) -> Path:
        return self.root / "cube.icechunk"

    @property
    def kerchunk(self) -> Path:
        return self.root / "air.json"

    @property
    def prefix(self) -> str:
        """The one URL prefix that the Icechunk repository may lead to; Icechunk compares it decoded."""
        return f"file://{self.archive.resolve()}/"


@dataclass
class Report:
    """What was done, as rows of a table."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; what it appends to the list that it is given is the row's text."""
        result: list[str] = []
        start = time.perf_counter()
        yield result
        self.rows.append((name, ", ".join(result), f"{time.perf_counter() - start:.2f}"))

    def __str__(self) -> str:
        table = [("step", "result", "seconds"), *self.rows]
        first, second = (max(len(row[i]) for row in table) for i in (0, 1))
        lines = [f"{name:<{first}}  {text:<{second}}  {seconds:>7}" for name, text, seconds in table]
        lines.insert(1, "-" * len(lines[0]))
        return "\n".join(lines)


def in_words(size: float) -> str:
    """Return a number of bytes as people write it.

    >>> in_words(1_234_567)
    '1.2 MB'
    """
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def weather(days: pd.DatetimeIndex, random: np.random.Generator) -> xr.Dataset:
    """Return plausible daily fields, rounded as archives are, so that they compress."""
    lat, lon = np.linspace(-88.5, 88.5, SHAPE[0]), np.arange(0, 360, 360 / SHAPE[1])
    season = np.sin(2 * np.pi * (days.day_of_year.to_numpy() - 100) / 365.25)[:, None, None]
    waves = np.cos(np.deg2rad(3 * lon)) * np.cos(np.deg2rad(lat))[:, None]
    mean = 288 - 0.006 * lat[:, None] ** 2 + 12 * season * np.sin(np.deg2rad(lat))[:, None] + 4 * waves
    air = np.round(mean + random.normal(0, 0.5, (len(days), *SHAPE)), 1)
    rain = np.round(random.gamma(0.3, 4.0, air.shape) * np.cos(np.deg2rad(lat))[:, None], 1)
    return xr.Dataset(
        {
            "air": (("time", "lat", "lon"), air.astype("f4"), {"units": "K", "long_name": "air temperature"}),
            "rain": (("time", "lat", "lon"), rain.astype("f4"), {"units": "mm/day", "long_name": "precipitation"}),
        },
        coords={"time": days, "lat": lat, "lon": lon},
        attrs={"Conventions": "CF-1.8", "title": "Demonstration archive"},
    )


def write_archive(folder: Path, months: int) -> None:
    """Write one compressed NetCDF-4 file per month."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(2020)
    for start in pd.date_range("2020-01-01", periods=months, freq="MS"):
        days = pd.date_range(start, periods=start.days_in_month)
        packed: dict[str, Any] = {"zlib": True, "complevel": 4, "shuffle": True, "_FillValue": None}
        encoding: dict[str, Any] = {
            "air": {**packed, "chunksizes": (1, *SHAPE)},
            "rain": {**packed, "chunksizes": (len(days), *TILE)},
            "time": {"units": "days since 2020-01-01", "dtype": "i4"},
        }
        weather(days, random).to_netcdf(folder / f"{start:%Y-%m}.nc", engine="netcdf4", encoding=encoding)


def combine(places: Places) -> xr.Dataset:
    """Open every file virtually and join them along time with plain xarray."""
    months: list[xr.Dataset] = [vc.open_virtual_dataset(path) for path in places.files]
    return xr.concat(months, dim="time", **JOIN)


def authorisation(places: Places) -> dict[str, Any]:
    """Return what a reader of the repository has to grant: access to the archive's folder."""
    return {places.prefix: icechunk.Credentials.LocalFileSystemAccess()}


def write_icechunk(cube: xr.Dataset, places: Places) -> str:
    """Commit the references to a new repository; return the snapshot."""
    config = icechunk.RepositoryConfig.default()
    store = icechunk.local_filesystem_store(str(places.archive.resolve()))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(places.prefix, store))
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(places.icechunk)),
        config,
        authorize_virtual_chunk_access=authorisation(places),
    )
    session = repository.writable_session("main")
    cube.virtual.to_icechunk(session.store)
    return session.commit("Reference the archive")


def open_icechunk(places: Places) -> xr.Dataset:
    repository = icechunk.Repository.open(
        icechunk.local_filesystem_storage(str(places.icechunk)),
        authorize_virtual_chunk_access=authorisation(places),
    )
    store = repository.readonly_session("main").store
    with zarr.config.set({"array.rectilinear_chunks": True}):
        cube: xr.Dataset = xr.open_zarr(store, zarr_format=3, consolidated=False, chunks=None).load()
    return cube


def open_kerchunk(places: Places) -> xr.Dataset:
    return xr.open_dataset(str(places.kerchunk), engine="kerchunk", chunks={}).load()


Figures = dict[str, dict[str, float]]
READERS = {"Icechunk": open_icechunk, "Kerchunk": open_kerchunk}


def verify(places: Places) -> Figures:
    """Compare every value of both forms with what xarray reads from the files; raise where one differs."""
    with xr.open_mfdataset(places.files, combine="nested", concat_dim="time", engine="netcdf4", **JOIN) as opened:
        expected = opened.load()
    found = {}
    for name, read in READERS.items():
        start = time.perf_counter()
        cube = read(places)
        seconds = time.perf_counter() - start
        xr.testing.assert_equal(cube, expected[list(cube.data_vars)])
        found[name] = {"values": sum(variable.size for variable in cube.variables.values()), "seconds": seconds}
    return found


def verify_elsewhere(places: Places) -> Figures:
    """Run :func:`verify` in a fresh process, which knows the references and the archive alone."""
    command = [sys.executable, __file__, "--verify", "--output", str(places.root)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit("the fresh process failed, or found a difference; see above")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def owners(cube: xr.Dataset, name: str) -> npt.NDArray[np.int64]:
    """Return, for each chunk of a variable, the number of the file that holds it, or −1."""
    manifest = cube[name].data.manifest
    rows = manifest.records["source"]
    urls = [manifest.sources.url(row) for row in range(rows.max() + 1)]
    order = {url: number for number, url in enumerate(sorted(filter(None, urls)))}
    numbers = np.array([order.get(url, -1) for url in urls] + [-1])
    return np.asarray(numbers[rows])


def draw(cube: xr.Dataset, path: Path) -> None:
    """Draw the chunks of both variables, time to the right, space upwards, one colour per file."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.dates as mdates
    import matplotlib.pyplot as plt

    files = int(owners(cube, "air").max()) + 1
    colours = mpl.colormaps["turbo"](np.linspace(0.05, 0.95, files))
    colours[1::2, :3] = 0.55 * colours[1::2, :3] + 0.45  # every other file paler, so that neighbours differ
    start = mdates.date2num(cube["time"].to_numpy()[0])
    figure, panels = plt.subplots(2, 1, figsize=(12, 5), sharex=True, layout="constrained")
    for panel, name in zip(panels, ("air", "rain"), strict=True):
        grid = cube[name].data.metadata.grid
        edges = np.append(grid.axes[0].starts, grid.axes[0].size) + start
        tiles = owners(cube, name).reshape(grid.grid_shape[0], -1)
        rim = {"edgecolors": "white", "linewidth": 0.6} if name == "rain" else {}
        panel.pcolormesh(edges, np.arange(tiles.shape[1] + 1), colours[tiles].transpose(1, 0, 2), **rim)
        panel.set_yticks(
            np.arange(tiles.shape[1]) + 0.5,
            ["whole map"] if tiles.shape[1] == 1 else [f"tile {i}" for i in range(tiles.shape[1])],
        )
        kind = "regular" if grid.is_regular else "rectilinear"
        panel.set_title(f"{name}: {grid.size:,} chunks, {' × '.join(map(str, grid.grid_shape))}, {kind}", loc="left")
        panel.tick_params(length=0, axis="y")
    panels[-1].xaxis.set_major_locator(mdates.AutoDateLocator())
    panels[-1].xaxis.set_major_formatter(mdates.ConciseDateFormatter(panels[-1].xaxis.get_major_locator()))
    figure.suptitle(
        f"The chunks of one virtual cube: time to the right, one colour for each of {files} files", fontsize=12
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def demonstrate(places: Places, months: int, picture: Path) -> Report:
    report = Report()
    with report.step("write the archive") as result:
        write_archive(places.archive, months)
        data = sum(path.stat().st_size for path in places.files)
        result += [f"{len(places.files)} NetCDF-4 files", in_words(data)]
    with report.step("open virtually, concatenate") as result:
        cube = combine(places)
        chunks = sum(cube[name].data.metadata.grid.size for name in ("air", "rain"))
        references = cube.virtual.nbytes
        result += [f"{chunks:,} chunks", f"{in_words(references)} of references", f"{data / references:,.0f} × less"]
    with report.step("write Icechunk (air and rain)") as result:
        snapshot = write_icechunk(cube, places)
        size = sum(path.stat().st_size for path in places.icechunk.rglob("*") if path.is_file())
        result += [in_words(size), f"snapshot {snapshot}"]
    with report.step("write Kerchunk JSON (air)") as result:
        cube.drop_vars("rain").virtual.to_kerchunk(str(places.kerchunk), format="json")
        result += [in_words(places.kerchunk.stat().st_size)]
    with report.step("reopen both in a fresh process") as result:
        result += ["compared with xr.open_mfdataset"]
        found = verify_elsewhere(places)
    for name, figures in found.items():
        report.rows.append((f"  {name}", f"{figures['values']:,.0f} values, all equal", f"{figures['seconds']:.2f}"))
    with report.step("draw the chunks") as result:
        draw(cube, picture)
        result += [str(picture)]
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Build, verify and draw a virtual cube.")
    parser.add_argument("--output", type=Path, help="an empty folder that keeps archive and references")
    parser.add_argument("--months", type=int, default=36, help="number of files in the archive (default: 36)")
    parser.add_argument(
        "--picture", type=Path, default=Path("demo-output", "chunks.png"), help="where to draw the chunks"
    )
    parser.add_argument("--verify", action="store_true", help="only compare what is in --output with its archive")
    arguments = parser.parse_args()
    icechunk.set_logs_filter("error")  # a repository in a local folder is fine for one writer, as here
    if arguments.verify:
        print(json.dumps(verify(Places(arguments.output))))
        return
    if arguments.output and arguments.output.exists() and any(arguments.output.iterdir()):
        parser.error(f"the folder {arguments.output} is not empty")
    with tempfile.TemporaryDirectory(prefix="virtualchunks-demo-") as temporary:
        print(demonstrate(Places(arguments.output or Path(temporary)), arguments.months, arguments.picture))


if __name__ == "__main__":
    main()
