"""HDF4 files written by the HDF4 library, and what it reads, by the names that the parser gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyhdf.error import HDF4Error
from pyhdf.SD import SD, SDC
from zarr.errors import UnknownCodecError
from zarr.registry import get_codec_class, register_codec

from virtualchunks.codecs import hdf4_rle

TYPES = {
    "i1": SDC.INT8,
    "u1": SDC.UINT8,
    "i2": SDC.INT16,
    "u2": SDC.UINT16,
    "i4": SDC.INT32,
    "u4": SDC.UINT32,
    "f4": SDC.FLOAT32,
    "f8": SDC.FLOAT64,
}


def register_codecs() -> None:
    """Make the codecs known to zarr where the package installed is older than the tree under test."""
    try:
        get_codec_class(hdf4_rle.NAME)
    except (UnknownCodecError, KeyError):
        register_codec(hdf4_rle.NAME, hdf4_rle.HDF4RLE)


def reference(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return what the HDF4 library reads, except what it cannot: arrays without elements, and other names twice."""
    file = SD(str(path))
    found: dict[str, npt.NDArray[Any]] = {}
    try:
        for number in range(file.info()[0]):
            dataset = file.select(number)
            name, rank, sizes, kind, _ = dataset.info()
            shape = tuple(np.atleast_1d(sizes).tolist()) if rank else ()
            key = name.replace("/", "_")
            key = f"{key}_{number}" if key in found else key
            if 0 in shape:
                dtype = next((dtype for dtype, code in TYPES.items() if code == kind), "S1")
                found[key] = np.empty(shape, dtype)
                continue
            try:
                values = np.asarray(dataset.get())
            except (HDF4Error, ValueError):
                continue
            found[key] = values.astype("S1") if values.dtype.kind == "U" else values.reshape(shape)
            dataset.endaccess()
    finally:
        file.end()
    return found


def types(path: Path) -> Path:
    """Write an array of every type, with names of dimensions, attributes and a scale."""
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    chance = np.random.default_rng(1)
    for dtype, code in TYPES.items():
        dataset = file.create(f"v_{dtype}", code, (3, 4))
        dataset.dim(0).setname("y")
        dataset.dim(1).setname("x")
        dataset[:] = chance.integers(0, 100, (3, 4)).astype(dtype)
        dataset.attr("units").set(SDC.CHAR8, "K")
        dataset.attr("range").set(SDC.INT32, [1, 2, 3])
        dataset.attr("half").set(SDC.FLOAT64, 0.5)
        if dtype == "i2":
            dataset.dim(1).setscale(SDC.FLOAT32, [0.5, 1.5, 2.5, 3.5])
        dataset.endaccess()
    text = file.create("text", SDC.CHAR8, (2, 3))
    text[:] = np.array([[b"a", b"b", b"c"], [b"d", b"e", b"f"]])
    text.endaccess()
    file.attr("title").set(SDC.CHAR8, "a file / with text")
    file.end()
    return path


def compressed(path: Path) -> Path:
    """Write arrays compressed by deflate and run-length encoding."""
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    values = np.repeat(np.arange(40, dtype="i4"), 10).reshape(20, 20)
    for name, arguments in (("deflate", (SDC.COMP_DEFLATE, 6)), ("rle", (SDC.COMP_RLE,))):
        dataset = file.create(name, SDC.INT32, values.shape)
        dataset.setcompress(*arguments)
        dataset[:] = values
        dataset.endaccess()
    file.end()
    return path


def records(path: Path, rows: int = 7) -> Path:
    """Write arrays along an unlimited dimension, in turns, so that their data lie in linked blocks."""
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    shapes = {"even": (2, 4), "odd": (3, 5)}
    arrays = [file.create(name, SDC.INT16, (SDC.UNLIMITED, *shape)) for name, shape in shapes.items()]
    for number in range(rows):
        for array, shape in zip(arrays, shapes.values(), strict=True):
            array[number : number + 1] = np.full((1, *shape), number, dtype="i2")
    for array in arrays:
        array.endaccess()
    short = file.create("short", SDC.INT32, (SDC.UNLIMITED,))
    short[0:3] = np.arange(3, dtype="i4")
    short.endaccess()
    file.end()
    return path


def unwritten(path: Path) -> Path:
    """Write arrays without data: with a fill value and without, and one of no length."""
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    filled = file.create("filled", SDC.INT16, (2, 3))
    filled.setfillvalue(-7)
    filled.endaccess()
    for dtype in ("u1", "i2", "i4", "f4", "f8"):
        file.create(f"never_{dtype}", TYPES[dtype], (2, 2)).endaccess()
    file.create("none", SDC.INT32, (SDC.UNLIMITED, 2)).endaccess()
    file.end()
    return path


def same_names(path: Path) -> Path:
    """Write arrays of the same name, and one whose name is a path."""
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    for number in range(2):
        dataset = file.create("twice", SDC.INT16, (2,))
        dataset[:] = np.array([number, number], dtype="i2")
        dataset.endaccess()
    dataset = file.create("a/b", SDC.INT16, (2,))
    dataset[:] = np.array([5, 6], dtype="i2")
    dataset.endaccess()
    file.end()
    return path
