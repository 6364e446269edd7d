"""HDF5 filter pipelines as Zarr v3 codecs.

A table says what each registered HDF5 filter is called and, where a Zarr codec decodes its output exactly, how that
codec is configured. A pipeline of such filters alone becomes those codecs, which every reader of Zarr has or can have.
Any other pipeline goes as a whole to ``virtualchunks.hdf5_filters``, which decodes through the HDF5 library. What the
library at hand cannot decode either is refused here, while the file is parsed.

Running codecs is not done here.

References
----------
HDF5's list of registered filter plugins: https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from virtualchunks.codecs.hdf5_chunk import INSTALL, hdf5, is_available
from virtualchunks.codecs.hdf5_filters import LZF, MOST_FILTERS, MOST_VALUES, NAME, NUMBER_DTYPE
from virtualchunks.codecs.hdf5_guards import NBIT
from virtualchunks.errors import UnsupportedFeatureError

Codec = dict[str, Any]


@dataclass(frozen=True)
class HDF5Filter:
    """One filter of a dataset's pipeline, as the file describes it.

    Parameters
    ----------
    id
        Identifier in HDF5's list of registered filters.
    flags
        Bit 0: optional, so that chunks may have skipped the filter.
    cd_values
        Parameters as stored, which the filter has adjusted to the dataset.
    name
        What the file calls the filter; often a URL, often empty.
    """

    id: int
    flags: int
    cd_values: tuple[int, ...]
    name: str

    def __str__(self) -> str:
        row = FILTERS.get(self.id)
        name = self.name if row is None else row.name
        return f"HDF5 filter {self.id} ({name})" if name else f"HDF5 filter {self.id}"


def read_pipeline(dset_create_plist: Any) -> tuple[HDF5Filter, ...]:
    """Return the filters of a dataset creation property list (``dataset.id.get_create_plist()``), in encoding order.

    Raises
    ------
    UnsupportedFeatureError
        If a filter has more parameters than h5py reads.
    """
    pipeline = []
    for index in range(dset_create_plist.get_nfilters()):
        identifier, flags, values, name = dset_create_plist.get_filter(index)
        found = HDF5Filter(identifier, flags, tuple(values), name.decode("utf-8", "replace"))
        if len(values) > MOST_VALUES:
            raise UnsupportedFeatureError(f"{found} has {len(values)} parameters; h5py reads {MOST_VALUES}")
        pipeline.append(found)
    return tuple(pipeline)


def filter_codecs(
    pipeline: Sequence[HDF5Filter],
    *,
    dtype: np.dtype[Any],
    chunk_shape: Sequence[int],
    mask: int = 0,
    stored_type: str | None = None,
) -> tuple[Codec, ...]:
    """Return the bytes-to-bytes codecs, in encoding order, that decode a chunk as HDF5 does.

    Parameters
    ----------
    pipeline
        The dataset's filters, in encoding order.
    dtype
        Type of the elements as stored.
    chunk_shape
        Shape of the chunk as stored.
    mask
        The chunk's filter mask: where bit *i* is set, the chunk skipped filter *i*.
    stored_type
        What :func:`unusual_type` says of the dataset's type; `dtype` is then the type to convert to.

    Raises
    ------
    UnsupportedFeatureError
        If neither a Zarr codec nor the HDF5 library at hand decodes a filter.

    Examples
    --------
    >>> deflate = HDF5Filter(1, 1, (4,), "deflate")
    >>> filter_codecs([deflate], dtype=np.dtype("<f4"), chunk_shape=(10, 10))
    ({'name': 'numcodecs.zlib', 'configuration': {'level': 4}},)
    >>> filter_codecs([deflate], dtype=np.dtype("<f4"), chunk_shape=(10, 10), mask=0b1)
    ()
    """
    applied = [item for position, item in enumerate(pipeline) if not mask >> position & 1 and not _is_idle(item)]
    codecs = _zarr_codecs(applied, math.prod(chunk_shape) * dtype.itemsize)
    if codecs is not None and stored_type is None:
        return codecs
    if len(applied) > MOST_FILTERS:
        raise UnsupportedFeatureError(f"{len(applied)} HDF5 filters on one dataset; {MOST_FILTERS} can be decoded")
    for item in applied:
        _require_library(item)
    filters = [{"id": item.id, "cd_values": _without_size(item)} for item in applied]
    configuration: Codec = {"filters": filters}
    if stored_type is not None:
        if NUMBER_DTYPE.fullmatch(dtype.str) is None:
            raise UnsupportedFeatureError(f"HDF5 elements of an unusual type that NumPy reads as {dtype}")
        configuration["type"] = {"hdf5": stored_type, "dtype": dtype.str}
    return ({"name": NAME, "configuration": configuration},)


def unusual_type(type_id: Any) -> str | None:
    """Return a type of numbers whose bits are not those of its NumPy type, or ``None`` if they are.

    Integers of fewer bits than their bytes have (the reason for the n-bit filter), with an offset, or in 3 bytes, and
    floats other than IEEE's: HDF5 converts them when it reads, so their bytes alone would be wrong numbers.

    Parameters
    ----------
    type_id
        Type of the dataset (``dataset.id.get_type()``).

    Returns
    -------
    str or None
        The type as ``H5Tencode`` gives it, in hexadecimal digits, as :func:`filter_codecs` takes it.
    """
    h5py = hdf5()
    size = type_id.get_size()
    if isinstance(type_id, h5py.h5t.TypeIntegerID):
        usual = (type_id.get_precision(), type_id.get_offset()) == (8 * size, 0) and size in (1, 2, 4, 8)
    elif isinstance(type_id, h5py.h5t.TypeFloatID):
        usual = any(_float_layout(type_id) == _float_layout(h5py.h5t.py_create(np.dtype(f"f{n}"))) for n in (2, 4, 8))
    else:
        return None
    return None if usual else str(type_id.encode().hex())


def _float_layout(type_id: Any) -> tuple[Any, ...]:
    """Return where a float has its sign, exponent and mantissa, and how it reads them."""
    places = (type_id.get_size(), type_id.get_offset(), type_id.get_precision())
    return (*places, type_id.get_fields(), type_id.get_ebias(), type_id.get_norm(), type_id.get_order() in (0, 1))


def _zarr_codecs(applied: Sequence[HDF5Filter], nbytes: int) -> tuple[Codec, ...] | None:
    """Return Zarr's codecs for all filters, or ``None`` where one has none."""
    codecs: list[Codec] = []
    size: int | None = nbytes
    for item in applied:
        row = FILTERS.get(item.id)
        found = None if row is None or row.codecs is None else row.codecs(item.cd_values, size)
        if row is None or found is None:
            return None
        codecs += found
        size = row.size_after(size)
    return tuple(codecs)


def _is_idle(item: HDF5Filter) -> bool:
    """Return whether a filter passes bytes on: n-bit, where the elements have no bits to spare (its second parameter).

    The library's own n-bit filter then reports as many bytes as its buffer has, which may be more than the chunk has.
    """
    return item.id == NBIT and item.cd_values[1:2] == (1,)


def _require_library(item: HDF5Filter) -> None:
    """Raise unless the HDF5 library decodes the filter."""
    if is_available(item.id):
        return
    row = FILTERS.get(item.id)
    remedy = "install an HDF5 plugin for it and set HDF5_PLUGIN_PATH to its folder" if row is None else row.remedy
    raise UnsupportedFeatureError(f"{item} is not one that the HDF5 library here can decode; {remedy}")


def _without_size(item: HDF5Filter) -> list[int]:
    """Return the parameters, without the size of the chunk that LZF keeps there as a hint."""
    return list(item.cd_values[:2] if item.id == LZF else item.cd_values)


# ---------------------------------------------------------------------------------------------- the table

#: Parameters and, where it does not depend on the data, the number of bytes that reach the filter, to codecs.
Translation = Callable[[tuple[int, ...], int | None], list[Codec] | None]
BUILT_IN = "install an h5py whose HDF5 library was built with it"
HDF5PLUGIN = f"{INSTALL} (hdf5plugin has it)"
OTHER_PLUGIN = "install an HDF5 plugin for it and set HDF5_PLUGIN_PATH to its folder"

BLOSC_COMPRESSORS = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
BLOSC_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")


@dataclass(frozen=True)
class Registered:
    """A filter of HDF5's list: its name, what to do where it is missing, and Zarr's codec for it, if there is one."""

    name: str
    remedy: str = OTHER_PLUGIN
    codecs: Translation | None = None
    extra_bytes: int | None = None

    def size_after(self, size: int | None) -> int | None:
        """Return how many bytes `size` bytes become; ``None`` if that depends on the data."""
        return None if size is None or self.extra_bytes is None else size + self.extra_bytes


def _deflate(values: tuple[int, ...], size: int | None) -> list[Codec]:
    return [{"name": "numcodecs.zlib", "configuration": {"level": _level(values, lowest=0, highest=9, default=6)}}]


def _shuffle(values: tuple[int, ...], size: int | None) -> list[Codec] | None:
    """HDF5 leaves the bytes behind the last whole element in place; the Zarr codec refuses them."""
    if len(values) != 1 or values[0] == 0:
        return None
    if values[0] == 1:
        return []
    whole = size is not None and size % values[0] == 0
    return [{"name": "numcodecs.shuffle", "configuration": {"elementsize": values[0]}}] if whole else None


def _fletcher32(values: tuple[int, ...], size: int | None) -> list[Codec]:
    return [{"name": "numcodecs.fletcher32", "configuration": {}}]


def _bzip2(values: tuple[int, ...], size: int | None) -> list[Codec]:
    return [{"name": "numcodecs.bz2", "configuration": {"level": _level(values, lowest=1, highest=9, default=9)}}]


def _zstd(values: tuple[int, ...], size: int | None) -> list[Codec]:
    level = _level(values, lowest=0, highest=22, default=3)
    return [{"name": "zstd", "configuration": {"level": level, "checksum": False}}]


def _blosc(values: tuple[int, ...], size: int | None) -> list[Codec] | None:
    """Values: filter and format version, element and chunk size; from format version 2 level, shuffle, compressor."""
    if len(values) < 4:
        return None
    level, shuffle, compressor = (*values[4:7], *(5, 1, 0)[len(values[4:7]) :])
    if shuffle >= len(BLOSC_SHUFFLES) or compressor >= len(BLOSC_COMPRESSORS):
        return None
    cname = BLOSC_COMPRESSORS[compressor]
    if cname == "snappy":  # numcodecs is built without it
        return None
    configuration = {
        "typesize": min(max(values[2], 1), 255),
        "cname": cname,
        "clevel": min(level, 9),
        "shuffle": BLOSC_SHUFFLES[shuffle],
        "blocksize": 0,
    }
    return [{"name": "blosc", "configuration": configuration}]


def _level(values: tuple[int, ...], *, lowest: int, highest: int, default: int) -> int:
    """Return the compression level, which matters to encoding alone, as one that the codec accepts."""
    return values[0] if values and lowest <= values[0] <= highest else default


FILTERS: dict[int, Registered] = {
    1: Registered("deflate", BUILT_IN, _deflate),
    2: Registered("shuffle", BUILT_IN, _shuffle, extra_bytes=0),
    3: Registered("fletcher32", BUILT_IN, _fletcher32, extra_bytes=4),
    4: Registered("szip", BUILT_IN),
    5: Registered("n-bit", BUILT_IN),
    6: Registered("scale-offset", BUILT_IN),
    305: Registered("LZO"),
    307: Registered("bzip2", HDF5PLUGIN, _bzip2),
    32000: Registered("LZF", BUILT_IN),
    32001: Registered("blosc", HDF5PLUGIN, _blosc),
    32002: Registered("MAFISC"),
    32003: Registered("snappy"),
    32004: Registered("LZ4", HDF5PLUGIN),
    32005: Registered("APAX"),
    32006: Registered("CBF"),
    32007: Registered("JPEG-XR"),
    32008: Registered("bitshuffle", HDF5PLUGIN),
    32009: Registered("SPDP"),
    32010: Registered("LPC-Rice"),
    32011: Registered("CCSDS-123"),
    32012: Registered("JPEG-LS"),
    32013: Registered("zfp", HDF5PLUGIN),
    32014: Registered("fpzip"),
    32015: Registered("zstd", HDF5PLUGIN, _zstd),
    32016: Registered("B3D"),
    32017: Registered("SZ", HDF5PLUGIN),
    32018: Registered("FCIDECOMP", HDF5PLUGIN),
    32019: Registered("JPEG"),
    32020: Registered("VBZ"),
    32021: Registered("FAPEC"),
    32022: Registered("BitGroom"),
    32023: Registered("Granular BitRound"),
    32024: Registered("SZ3", HDF5PLUGIN),
    32025: Registered("Delta-Rice"),
    32026: Registered("blosc2", HDF5PLUGIN),
    32027: Registered("FLAC"),
    32028: Registered("SPERR", HDF5PLUGIN),
    32033: Registered("HTJ2K", HDF5PLUGIN),
}
