"""References that kerchunk made, opened virtually and compared with h5py."""

import json
import tempfile
from pathlib import Path

import h5py
import numpy as np
from kerchunk.hdf import SingleHdf5ToZarr

import virtualchunks as vc


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, references = Path(folder, "air.h5"), Path(folder, "air.json")
        with h5py.File(path, "w") as file:
            values = np.random.default_rng(0).normal(280, 5, (20, 30))
            file.create_dataset("air", data=values, chunks=(10, 10), compression="gzip")
        references.write_text(json.dumps(SingleHdf5ToZarr(str(path)).translate()))

        # What a document refers to is not granted by naming the document: say where it may lead.
        registry = vc.ObjectStoreRegistry({folder: None})
        virtual = vc.open_virtual_dataset(references, registry=registry, loadable_variables=[])
        print(virtual.virtual.sources())

        air = virtual.virtual.open()["air"]
        with h5py.File(path) as file:
            np.testing.assert_array_equal(air, file["air"])
        print(f"a mean of {float(air.mean()):.2f} K, from values equal to what h5py reads")


if __name__ == "__main__":
    main()
