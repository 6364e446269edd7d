"""A cube is built from an index, and no file of the archive is parsed.

Forecast archives publish, beside each file of messages, a list of where each message begins. Here such an archive is
written: one binary file a day, with a field of two variables at three levels, and an index of all of them.

Run it in a folder that may be written to: ``python examples/from_index.py``.
"""

import csv
from pathlib import Path

import numpy as np
import pandas as pd

import virtualchunks as vc

DAYS = pd.date_range("2020-01-01", periods=10, freq="D")
LEVELS = [1000, 850, 500]
SHAPE = (20, 40)


def write_archive(folder: Path) -> np.ndarray:
    """Write the files and ``index.csv``; return the values, by variable, day and level."""
    folder.mkdir()
    fields = np.random.default_rng(0).normal(280, 10, (2, len(DAYS), len(LEVELS), *SHAPE)).astype("<f4")
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["variable", "time", "level", "path", "offset", "length"])
        for number, day in enumerate(DAYS):
            path = folder / f"{day:%Y%m%d}.bin"
            payload = bytearray(b"header")
            for variable, name in enumerate(["air", "wind"]):
                for height, level in enumerate(LEVELS):
                    message = fields[variable, number, height].tobytes()
                    writer.writerow([name, day.isoformat(), level, path.absolute(), len(payload), len(message)])
                    payload += message
            path.write_bytes(payload)
    return fields


def main() -> None:
    fields = write_archive(Path("archive"))

    described = {"dims": ("time", "level", "y", "x"), "chunks": (1, 1, *SHAPE), "dtype": "<f4"}
    template = vc.template(
        {"air": {**described, "attrs": {"units": "K"}}, "wind": {**described, "attrs": {"units": "m s-1"}}},
        coords={"time": DAYS, "level": LEVELS, "y": np.arange(SHAPE[0]), "x": np.arange(SHAPE[1])},
    )
    index = pd.read_csv("archive/index.csv")
    cube = template.fill(index)
    print(cube)
    print(cube.virtual.locate(time="2020-01-05", level=850).to_pandas())

    opened = cube.virtual.open({"archive": None})
    np.testing.assert_array_equal(np.stack([opened["air"], opened["wind"]]), fields)
    print(f"{cube.virtual.nrefs} fields equal to those that were written, and no file was parsed")


if __name__ == "__main__":
    main()
