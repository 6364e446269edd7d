"""Two versions of an Icechunk repository, opened virtually and compared with zarr."""

import tempfile
from pathlib import Path

import icechunk
import numpy as np
import xarray as xr
import zarr

import virtualchunks as vc
from virtualchunks_parsers.icechunk import IcechunkParser


def main() -> None:
    icechunk.set_logs_filter("error")  # a repository in a local folder is fine for one writer, as here
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ice")
        repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
        for number in range(2):
            session = repository.writable_session("main")
            thickness = xr.Dataset({"ice": (("y", "x"), np.full((200, 300), number + 0.5))})
            thickness.to_zarr(session.store, mode="w", zarr_format=3, consolidated=False)
            repository.create_tag(f"v{number}", session.commit(f"version {number}"))

        for tag in ("v0", "v1"):
            virtual = vc.open_virtual_dataset(path, parser=IcechunkParser(tag=tag), loadable_variables=[])
            ice = virtual.virtual.open()["ice"]
            expected = zarr.open_group(repository.readonly_session(tag=tag).store, mode="r")["ice"]
            np.testing.assert_array_equal(ice, expected)
            print(f"{tag}: {float(ice[0, 0])} m, equal to what zarr reads from the repository")


if __name__ == "__main__":
    main()
