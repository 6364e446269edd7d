"""An HDF4 file, opened virtually and compared with the HDF4 library."""

import tempfile
from pathlib import Path

import numpy as np
from pyhdf.SD import SD, SDC

import virtualchunks as vc


def write(path: Path) -> None:
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    made = file.create("fire mask", SDC.UINT8, (40, 60))
    made.dim(0).setname("rows")
    made.dim(1).setname("columns")
    made.setcompress(SDC.COMP_DEFLATE, 6)
    made[:] = np.random.default_rng(0).integers(0, 9, (40, 60), dtype="u1")
    made.attr("legend").set(SDC.CHAR8, "0 to 9")
    made.endaccess()
    file.end()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fires.hdf")
        write(path)

        virtual = vc.open_virtual_dataset(path)
        print(virtual["fire mask"])

        mask = virtual.virtual.open()["fire mask"]
        file = SD(str(path))
        np.testing.assert_array_equal(mask, file.select("fire mask").get())
        file.end()
        print(f"{int((mask == 8).sum())} fires; the mask is equal to what the HDF4 library reads")


if __name__ == "__main__":
    main()
