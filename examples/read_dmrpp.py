"""A DMR++ document of an HDF5 file, written, opened virtually and compared with h5py."""

import tempfile
from pathlib import Path

import h5py
import numpy as np

import virtualchunks as vc


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rain.h5")
        with h5py.File(path, "w") as file:
            values = np.random.default_rng(0).gamma(0.5, 4.0, (20, 30)).astype("f4")
            file.create_dataset("rain", data=values, chunks=(10, 10), compression="gzip", shuffle=True)

        document = path.with_name("rain.h5.dmrpp")
        vc.open_virtual_dataset(path, loadable_variables=[]).virtual.to_dmrpp(document)
        print(document.read_text()[:400])

        # The document stands beside the file that it describes, so naming it grants that file.
        rain = vc.open_virtual_dataset(document, loadable_variables=[]).virtual.open()["rain"]
        with h5py.File(path) as file:
            np.testing.assert_array_equal(rain, file["rain"])
        print(f"{float(rain.sum()):.0f} mm, from values equal to what h5py reads")


if __name__ == "__main__":
    main()
