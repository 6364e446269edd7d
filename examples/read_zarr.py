"""A Zarr store with shards, opened virtually and compared with zarr."""

import tempfile
from pathlib import Path

import numpy as np
import zarr

import virtualchunks as vc


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ocean.zarr")
        group = zarr.create_group(path)
        salt = group.create_array(
            "salt", shape=(40, 60), chunks=(10, 10), shards=(20, 30), dtype="f4", dimension_names=["y", "x"]
        )
        salt[:] = np.random.default_rng(0).normal(35, 1, (40, 60))

        virtual = vc.open_virtual_dataset(path)
        print(virtual["salt"].data)  # the chunks within the shards, each a range of bytes of its shard

        part = virtual.isel(y=slice(10, 30)).virtual.open()["salt"]
        np.testing.assert_array_equal(part, salt[10:30])
        shards = len(virtual.virtual.sources())
        print(f"{virtual.virtual.nrefs} references into {shards} shards, with values equal to what zarr reads")


if __name__ == "__main__":
    main()
