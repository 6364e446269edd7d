"""A tile-compressed image and a table in a FITS file, opened virtually and compared with astropy."""

import tempfile
from pathlib import Path

import numpy as np
from astropy.io import fits

import virtualchunks as vc


def write(path: Path) -> None:
    random = np.random.default_rng(0)
    counts = random.poisson(100, (64, 96)).astype("i2")
    stars = np.array([(1, 10.5, 3.25), (2, 20.0, -7.5)], dtype=[("id", "i4"), ("x", "f8"), ("y", "f4")])
    image = fits.CompImageHDU(counts, name="COUNTS", compression_type="RICE_1", tile_shape=(16, 96))
    fits.HDUList([fits.PrimaryHDU(), image, fits.BinTableHDU(stars, name="STARS")]).writeto(path)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sky.fits")
        write(path)

        virtual = vc.open_virtual_datatree(path)
        print(virtual)

        opened = virtual.virtual.open()
        with fits.open(path) as file:
            np.testing.assert_array_equal(opened["COUNTS"], file["COUNTS"].data)
            np.testing.assert_array_equal(opened["STARS/x"], file["STARS"].data["x"])
        print("the image and the column are equal to what astropy reads")


if __name__ == "__main__":
    main()
