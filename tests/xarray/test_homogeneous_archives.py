"""Arrays whose chunks decode alike pay nothing for those that do not: their bytes are served as the files hold them."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from zarr.core.buffer import default_buffer_prototype

import virtualchunks as vc
from virtualchunks import store_chunks
from virtualchunks.xarray.dataset import references_of

PACKING = {"scale_factor": 0.1, "add_offset": 5.0, "_FillValue": np.int16(-1)}


def write(path: Path, number: int, level: int) -> Path:
    values = np.random.default_rng(number).integers(0, 99, (6, 8)).astype("i2")
    with h5py.File(path, "w") as file:
        variable = file.create_dataset("v", data=values, chunks=(2, 4), compression=level, shuffle=True)
        variable.attrs.update(PACKING)
        file["time"] = np.arange(6 * number, 6 * number + 6)
        file["x"] = np.arange(8)
        for axis, name in enumerate(("time", "x")):
            file[name].make_scale(name)
            variable.dims[axis].attach_scale(file[name])
    return path


def stored_bytes(path: Path) -> dict[tuple[int, ...], bytes]:
    """The bytes of each chunk, as h5py finds them."""
    with h5py.File(path) as file:
        identifier = file["v"].id
        places = [identifier.get_chunk_info(number) for number in range(identifier.get_num_chunks())]
        return {place.chunk_offset: identifier.read_direct_chunk(place.chunk_offset)[1] for place in places}


@pytest.mark.parametrize("mask_and_scale", [True, False])
async def test_bytes_are_served_as_they_are_and_never_decoded(tmp_path, monkeypatch, mask_and_scale):
    paths = [write(tmp_path / f"{number}.nc", number, level) for number, level in enumerate((1, 9, 4))]
    cube = vc.open_virtual_mfdataset(paths, mask_and_scale=mask_and_scale)
    array = references_of(cube["v"])
    assert not array.is_heterogeneous
    assert array.as_stored().manifest.sources.encoding_ids is None

    def refuse(*args, **kwargs):
        raise AssertionError("a chunk was decoded")

    for name in ("decode_block", "cell_of", "encode_cell"):
        monkeypatch.setattr(store_chunks, name, refuse)
    store = cube.virtual.to_store()
    for number, path in enumerate(paths):
        for (row, column), data in stored_bytes(path).items():
            found = await store.get(f"v/c/{number * 3 + row // 2}/{column // 4}", default_buffer_prototype())
            assert found is not None
            assert found.to_bytes() == data
