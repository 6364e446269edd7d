"""A GRIB file is made, opened without reading its values, and compared with what ecCodes reads.

Run it in a folder that may be written to: ``python examples/grib.py``. It needs ecCodes.
"""

import tempfile
from pathlib import Path

import eccodes
import numpy as np

import virtualchunks as vc

STEPS, LEVELS = (0, 6, 12), (1000, 850, 500)


def message(step: int, level: int) -> bytes:
    """Return one field of a forecast."""
    handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
    for key, value in {"dataDate": 20240101, "step": step, "level": level, "shortName": "t"}.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, np.random.default_rng([step, level]).normal(280, 10, 496))
    content: bytes = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


def values(content: bytes) -> np.ndarray:
    """Return what ecCodes reads in one message."""
    handle = eccodes.codes_new_from_message(content)
    found: np.ndarray = eccodes.codes_get_values(handle)
    eccodes.codes_release(handle)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "forecast.grib2"
        messages = [message(step, level) for step in STEPS for level in LEVELS]
        path.write_bytes(b"".join(messages))

        forecast = vc.open_virtual_dataset(path)
        print(forecast)
        print("chunks:", forecast["t"].data.metadata.grid.grid_shape)

        read = forecast.virtual.open()["t"].to_numpy()
        np.testing.assert_array_equal(read.reshape(len(messages), -1), [values(content) for content in messages])
        print(f"{len(messages)} messages equal to what ecCodes reads")


if __name__ == "__main__":
    main()
