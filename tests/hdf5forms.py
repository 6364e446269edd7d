"""HDF5 files of every form that matters to a reader: versions of structures, kinds of indexes, ways of storing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np

VALUES = np.arange(600.0).reshape(20, 30)
VERSIONS = ("earliest", "v108", "v110", "v112", "latest")


def _layouts(file: h5py.File) -> None:
    file["contiguous"] = VALUES
    file["scalar"], file["empty"], file["text"] = np.float32(3), np.zeros((0, 3)), "grüß"
    file.create_dataset("unwritten", shape=(4, 4), dtype="i2", fillvalue=-9)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    compact = h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I32BE, h5py.h5s.create_simple((20,)), plist)
    h5py.Dataset(compact)[...] = np.arange(20)
    file["null"] = h5py.Empty("f4")
    file["texts"] = ["a", "bc"]
    file.create_dataset("big", data=VALUES.astype(">f4"), chunks=(7, 30))


def _indexes(file: h5py.File) -> None:
    for name, limit in (
        ("fixed", (20, 30)),
        ("first", (None, 30)),
        ("last", (20, None)),
        ("wider", (40, None)),
        ("bounded", (50, 40)),
        ("both", (None, None)),
    ):
        file.create_dataset(name, data=VALUES, chunks=(3, 4), maxshape=limit)
        file.create_dataset(f"{name}_gzip", data=VALUES, chunks=(3, 4), maxshape=limit, compression=1, shuffle=True)
        sparse = file.create_dataset(
            f"{name}_sparse", shape=(20, 30), chunks=(3, 4), maxshape=limit, dtype="f4", fillvalue=5
        )
        sparse[7:9, 11:15] = 1
    file.create_dataset("single", data=VALUES, chunks=VALUES.shape)
    file.create_dataset("single_gzip", data=VALUES, chunks=VALUES.shape, compression=1)
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_chunk((3, 4))
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    space = h5py.h5s.create_simple((20, 30))
    h5py.Dataset(h5py.h5d.create(file.id, b"implicit", h5py.h5t.IEEE_F64LE, space, early))[...] = VALUES


def _many_chunks(file: h5py.File) -> None:
    flat = np.arange(5000, dtype="i4")
    for name, limit in (("fixed", (5000,)), ("growing", (None,))):
        file.create_dataset(name, data=flat, chunks=(2,), maxshape=limit, compression=1)
    square = flat.reshape(100, 50)
    file.create_dataset("square", data=square, chunks=(2, 1), maxshape=(None, None))
    file.create_dataset("second", data=square, chunks=(2, 1), maxshape=(100, None))
    paged = file.create_dataset("paged", shape=(9000,), chunks=(1,), maxshape=(None,), dtype="i1", fillvalue=3)
    paged[4000:4010], paged[8999] = 1, 2
    far = file.create_dataset("far", shape=(300_000,), chunks=(1,), maxshape=(None,), dtype="i1", fillvalue=3)
    far[200_000:200_003], far[299_999] = 1, 2
    pages = file.create_dataset("pages", shape=(9000,), chunks=(1,), dtype="i1", fillvalue=3)
    pages[4000:4010], pages[8999] = 1, 2


def _resized(file: h5py.File) -> None:
    for name, limit in (("shrunk", (None, 30)), ("grown", (None, None)), ("other", (20, None))):
        made = file.create_dataset(name, data=VALUES, chunks=(3, 4), maxshape=limit, compression=1)
        made.resize((11, 30) if name == "shrunk" else (20, 17) if name == "other" else (33, 41))


def _masks(file: h5py.File) -> None:
    made = file.create_dataset("v", data=np.arange(30, dtype="i4"), chunks=(10,), compression=1, shuffle=True)
    made.id.write_direct_chunk((10,), np.arange(10, dtype="i4").tobytes(), filter_mask=3)
    grown = file.create_dataset("w", shape=(30, 4), maxshape=(None, None), chunks=(10, 4), dtype="i4", compression=1)
    grown.id.write_direct_chunk((10, 0), np.arange(40, dtype="i4").tobytes(), filter_mask=1)
    alone = file.create_dataset("alone", shape=(4,), dtype="i4", chunks=(4,), compression=1)
    alone.id.write_direct_chunk((0,), np.arange(4, dtype="i4").tobytes(), filter_mask=1)


def _filters(file: h5py.File) -> None:
    data = np.arange(600, dtype="i4").reshape(20, 30)
    for number, options in enumerate(
        (
            {"compression": "gzip", "fletcher32": True},
            {"compression": "lzf", "shuffle": True},
            {"compression": "szip"},
            {"scaleoffset": 0},
            {"fletcher32": True},
        )
    ):
        file.create_dataset(f"v{number}", data=data, chunks=(7, 30), **options)


def _attributes(file: h5py.File) -> None:
    file["v"] = 1
    record = np.array([(1, b"x")], [("a", "i4"), ("b", "S1")])
    for owner in (file, file["v"], file.create_group("g")):
        for name, value in {
            "int": np.int16(3),
            "list": np.arange(3, dtype=">i4"),
            "text": "grüß",
            "bytes": np.bytes_(b"K"),
            "texts": ["a", "b"],
            "record": record,
            "bool": np.True_,
            "scale_factor": np.float32(0.5),
            "none": h5py.Empty("f4"),
            "long": "x" * 3000,
            "huge": np.arange(5000, dtype="i4"),
        }.items():
            owner.attrs[name] = value
        owner.attrs["to"] = file["v"].ref
        for number in range(20):
            owner.attrs[f"number{number}"] = number


def _dense(file: h5py.File) -> None:
    for number in range(300):
        file[f"group{number % 3}/member{number:04d}"] = number
        file["group0"].attrs[f"attribute{number:04d}"] = f"value {number}"
    file["group1/soft"], file["group1/out"] = h5py.SoftLink("/group0"), h5py.ExternalLink("other.h5", "/v")
    file["long"] = h5py.SoftLink("/group0/" + "./" * 3000 + "member0000")


def _links(file: h5py.File) -> None:
    file["g/v"] = np.arange(3)
    file["hard"] = file["g/v"]
    file["soft"], file["dangling"], file["self"] = (h5py.SoftLink(path) for path in ("/g/v", "/nowhere", "self"))
    file["g/up"], file["out"] = h5py.SoftLink("/"), h5py.ExternalLink("absent.h5", "/v")
    file["named"] = np.dtype("i4")
    file["typed"] = file["named"].dtype.type(4)
    committed = h5py.h5t.IEEE_F32BE.copy()
    committed.commit(file.id, b"committed")
    made = h5py.h5d.create(file.id, b"shared", committed, h5py.h5s.create_simple((4,)))
    h5py.h5a.create(made, b"of_type", committed, h5py.h5s.create_simple((2,))).write(np.ones(2, ">f4"))


def _types(file: h5py.File) -> None:
    for number, values in enumerate(
        (
            np.arange(6, dtype=">i8"),
            np.arange(6, dtype="f2"),
            np.array([1 + 2j]),
            np.array([True, False]),
            np.array([b"ab", b"c"], "S3"),
            np.array([(1, 2.5)], [("a", "<i4"), ("b", "<f8")]),
            np.array([(1, 2.5)], np.dtype([("a", "i1"), ("b", "<f8")], align=True)),
            np.array([b"ab\0"], "V3"),
        )
    ):
        file[f"v{number}"] = values
        file.create_dataset(f"filled{number}", shape=(4,), chunks=(2,), dtype=values.dtype, fillvalue=values[0])
    file.create_dataset("enum", data=[0, 5], dtype=h5py.enum_dtype({"a": 0, "b": 5}, "i2"))
    file.create_dataset("array", shape=(5,), dtype=np.dtype((">i2", (2, 3))), chunks=(2,))
    file.create_dataset("sequence", shape=(2,), dtype=h5py.vlen_dtype("i4"))
    file.create_dataset("reference", shape=(2,), dtype=h5py.ref_dtype)
    odd = h5py.h5t.STD_I32LE.copy()
    odd.set_precision(20)
    h5py.h5d.create(file.id, b"odd", odd, h5py.h5s.create_simple((4,)))


def _scales(file: h5py.File) -> None:
    for name, size in (("time", 20), ("x", 30)):
        file[f"{name}"] = np.arange(size, dtype="f8")
        file[name].make_scale(name)
    file["g/v"], file["w"] = VALUES, VALUES
    for axis, name in enumerate(("time", "x")):
        for path in ("g/v", "w"):
            file[path].dims[axis].attach_scale(file[name])
    anonymous = file.create_dataset(None, data=np.arange(20))
    anonymous.make_scale("anonymous")
    file["u"] = VALUES
    file["u"].dims[0].attach_scale(anonymous)


CONTENTS: dict[str, Callable[[h5py.File], None]] = {
    name.strip("_"): content
    for name, content in {
        "layouts": _layouts,
        "indexes": _indexes,
        "many chunks": _many_chunks,
        "resized": _resized,
        "masks": _masks,
        "filters": _filters,
        "attributes": _attributes,
        "dense": _dense,
        "links": _links,
        "types": _types,
        "scales": _scales,
    }.items()
}


def write(path: Path, content: str, version: str, **options: Any) -> Path:
    """Write a file of one content, as one version of the library would."""
    with h5py.File(path, "w", libver=version, **options) as file:
        CONTENTS[content](file)
    return path


def write_netcdf(path: Path) -> Path:
    """Write a NetCDF-4 file with groups, unlimited and hidden dimensions."""
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("time", None), ("x", 4), ("alone", 3)):
            file.createDimension(name, size)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(6)
        wind = file.createVariable("wind", "f4", ("time", "x"), zlib=True, chunksizes=(4, 4), fill_value=-1.0)
        wind[:] = np.random.default_rng(0).random((6, 4))
        wind.units, wind.scale_factor = "m s-1", np.float32(0.5)
        file.createVariable("names", str, ("x",))[:] = np.array(["a", "b", "c", "d"], object)
        file.createVariable("alone_values", "i2", ("alone",))[:] = 1
        file.createVariable("x", "f4", ("time",))
        inner = file.createGroup("inner")
        inner.createDimension("y", 4)
        inner.createVariable("y", "f4", ("y",))
        inner.createVariable("wind", "f4", ("time", "y", "x"))
        for number in range(12):
            file.setncattr(f"attribute{number}", f"value {number}")
            inner.setncattr_string(f"text{number}", "grüß")
    return path
