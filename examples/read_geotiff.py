"""A tiled GeoTIFF, opened virtually with its coordinates and compared with tifffile."""

import tempfile
from pathlib import Path

import numpy as np
import tifffile

import virtualchunks as vc

#: GeoTIFF's tags: cells of a tenth of a degree, the upper left corner at 10° E 50° N, and EPSG:4326.
TAGS = [
    (33550, "d", 3, (0.1, 0.1, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 10.0, 50.0, 0.0), True),
    (34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 1, 2048, 0, 1, 4326), True),
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "height.tif")
        heights = np.random.default_rng(0).integers(0, 3000, (100, 150), dtype="u2")
        tifffile.imwrite(path, heights, tile=(64, 64), compression="zlib", predictor=True, extratags=TAGS)

        virtual = vc.open_virtual_dataset(path)
        print(virtual)

        height = virtual.virtual.open()["data"]
        np.testing.assert_array_equal(height, tifffile.imread(path))
        there = height.sel(x=12.34, y=47.89, method="nearest")
        print(f"{int(there)} m at 12.34° E 47.89° N; all heights are equal to what tifffile reads")


if __name__ == "__main__":
    main()
