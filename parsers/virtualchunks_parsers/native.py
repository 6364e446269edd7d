"""Each format's own library, reading parts of arrays as they are stored: what verification compares references with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import MissingDependencyError
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry

Region = tuple[slice, ...]
Codecs = Sequence[Mapping[str, Any]]
#: Reads a part of an array: its path, one slice per dimension, offset and length of its chunk in the file, its codecs.
Reader = Callable[[str, Region, tuple[int, int], Codecs], npt.NDArray[Any]]
#: Largest remote file that is read whole, for a library that takes nothing else, in bytes.
MOST_WHOLE = 512 << 20


@contextmanager
def hdf5(url: str, registry: ObjectStoreRegistry) -> Iterator[Reader]:
    """Open a file with h5py."""
    import h5py

    with ObjectReader(registry, url) as file, h5py.File(file, "r") as tree:

        def read(path: str, region: Region, span: tuple[int, int], codecs: Codecs) -> npt.NDArray[Any]:
            return np.asarray(tree[path][region if region else ()])

        yield read


@contextmanager
def netcdf3(url: str, registry: ObjectStoreRegistry) -> Iterator[Reader]:
    """Open a file with netCDF4."""
    netcdf = _imported("netCDF4")
    location = registry.locate(url)
    if location.path is not None:
        dataset = netcdf.Dataset(location.path)
    else:
        with ObjectReader(registry, url) as file:
            if file.size > MOST_WHOLE:
                raise NotImplementedError(f"netCDF4 reads remote files whole, and {file.size:,} bytes are too many")
            dataset = netcdf.Dataset("remote", memory=file.readall())
    with dataset:
        dataset.set_auto_maskandscale(False)
        dataset.set_auto_chartostring(False)

        def read(path: str, region: Region, span: tuple[int, int], codecs: Codecs) -> npt.NDArray[Any]:
            return np.asarray(dataset[path][region if region else ...])

        yield read


@contextmanager
def grib(url: str, registry: ObjectStoreRegistry) -> Iterator[Reader]:
    """Read messages with ecCodes, by themselves; missing points are NaN."""
    import eccodes

    with ObjectReader(registry, url) as file:

        def read(path: str, region: Region, span: tuple[int, int], codecs: Codecs) -> npt.NDArray[Any]:
            message = file.read_at(*span)
            what = next(codec["configuration"] for codec in codecs if codec["name"] == "virtualchunks.grib")
            if message[7] == 2 and _fields(message) > 1:
                raise NotImplementedError("ecCodes reads the fields of one message only from a whole file")
            handle = eccodes.codes_new_from_message(message)
            try:
                if "read" in what and eccodes.codes_get(handle, "alternativeRowScanning"):
                    raise NotImplementedError("ecCodes places points as if all rows ran in one direction")
                eccodes.codes_set(handle, "missingValue", 1e300)
                values: npt.NDArray[Any] = eccodes.codes_get_array(handle, what.get("read", "values"))
            finally:
                eccodes.codes_release(handle)
            values[values == 1e300] = np.nan
            return values

        yield read


def _fields(message: bytes) -> int:
    """Return the number of fields of a GRIB2 message: that of its data sections."""
    count, at = 0, 16
    while at + 5 <= len(message) and message[at : at + 4] != b"7777":
        length = int.from_bytes(message[at : at + 4], "big")
        count += message[at + 4] == 7
        at += max(length, 5)
    return count


@contextmanager
def tiff(url: str, registry: ObjectStoreRegistry) -> Iterator[Reader]:
    """Decode strips and tiles with tifffile."""
    tifffile = _imported("tifffile")
    with ObjectReader(registry, url) as file, tifffile.TiffFile(file) as opened:
        segments = {
            int(offset): (page, number)
            for page in _pages(opened)
            for number, offset in enumerate(page.dataoffsets)
            if page.databytecounts[number]
        }

        def read(path: str, region: Region, span: tuple[int, int], codecs: Codecs) -> npt.NDArray[Any]:
            page, number = segments[span[0]]
            tables = {"jpegtables": page.jpegtables} if page.jpegtables is not None else {}
            values, _, _ = page.decode(file.read_at(*span), number, **tables)
            return _fitted(np.asarray(values), tuple(part.stop - part.start for part in region))

        yield read


def _pages(opened: Any) -> Iterator[Any]:
    waiting = list(opened.pages)
    while waiting:
        page = waiting.pop(0).aspage()
        yield page
        if page.subifds:
            waiting[:0] = list(page.pages)


def _fitted(values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return a segment, which tifffile gives as depth, length, width and samples, in the shape of a cell."""
    flat = values.reshape(values.shape[-3:]) if values.ndim == 4 and values.shape[0] == 1 else values
    for form in (flat, np.moveaxis(flat, -1, 0), flat[..., 0]):
        kept = tuple(size for size in shape if size != 1)
        squeezed = form[tuple(slice(0, size) for size in shape)] if form.ndim == len(shape) else form
        if tuple(size for size in squeezed.shape if size != 1) == kept:
            return squeezed.reshape(shape)
    raise NotImplementedError(f"a segment of shape {values.shape} for a cell of shape {shape}")


@contextmanager
def fits(url: str, registry: ObjectStoreRegistry) -> Iterator[Reader]:
    """Open images, compressed ones too, with astropy."""
    library = _imported("astropy.io.fits")
    with ObjectReader(registry, url) as file, library.open(file, do_not_scale_image_data=True, memmap=False) as hdus:

        def read(path: str, region: Region, span: tuple[int, int], codecs: Codecs) -> npt.NDArray[Any]:
            hdu = next((one for one in hdus if _holds(one, span)), None)
            if hdu is None or not (hdu.is_image or isinstance(hdu, library.CompImageHDU)):
                raise NotImplementedError("tables are not compared")
            values = np.asarray(hdu.data[region])
            zero = hdu.header.get("BZERO", 0)
            if values.dtype.kind in "iu" and hdu.header.get("BSCALE", 1) == 1 and zero in _UNSIGNED:
                kind = f"u{values.dtype.itemsize}" if zero > 0 else "i1"
                return (values.astype("i8") + int(zero)).astype(kind) if zero < 2**63 else values.view("u8") ^ zero
            return values.astype(values.dtype.newbyteorder("="))

        yield read


_UNSIGNED = (-128, 2**15, 2**31, 2**63)


def _holds(hdu: Any, span: tuple[int, int]) -> bool:
    info = hdu.fileinfo()
    return bool(info["datLoc"] <= span[0] and sum(span) <= info["datLoc"] + info["datSpan"])


def _imported(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"comparing needs {error.name}: pip install {error.name}") from error
