"""The Zarr v3 codec ``virtualchunks.hdf5_filters``: HDF5 filters that no other Zarr codec decodes.

It decodes through the HDF5 library (:mod:`virtualchunks.codecs.hdf5_chunk`), so its result is h5py's by construction.
Which filters need it is decided by the HDF5 parser; those that Zarr has codecs for (deflate, shuffle, zstd, blosc, …)
do not come here.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from zarr.abc.codec import BytesBytesCodec

from virtualchunks.codecs.hdf5_chunk import BYTES, ByteArray, ChunkFile, Element, Pipeline, chunk_file
from virtualchunks.errors import DecodeError, FormatError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

NAME = "virtualchunks.hdf5_filters"

#: Half of H5Z_MAX_NFILTERS, since each may need a check before it, and as many parameters as h5py reads.
MOST_FILTERS = 15
MOST_VALUES = 256

LZF = 32000

NUMBER_DTYPE = re.compile(r"[<>|][iuf][1248]")


@dataclass(frozen=True, init=False)
class HDF5Filters(BytesBytesCodec):
    """HDF5 filters, run by the HDF5 library.

    Parameters
    ----------
    filters
        Filters in encoding order: ``{"id": …, "cd_values": […]}`` each, with the parameters that the HDF5 file stores.
    type
        ``{"hdf5": …, "dtype": …}`` where HDF5 stores the elements in a type that NumPy has not (17-bit integers, say):
        that type as ``H5Tencode`` gives it, in hexadecimal digits, and the NumPy type to convert to. `filters` may then
        be empty.

    Raises
    ------
    FormatError
        If the parameters are anything else.

    Examples
    --------
    >>> HDF5Filters(filters=[{"id": 32004, "cd_values": [0]}]).to_dict()
    {'name': 'virtualchunks.hdf5_filters', 'configuration': {'filters': [{'id': 32004, 'cd_values': [0]}]}}
    """

    is_fixed_size = False

    pipeline: Pipeline
    type: tuple[str, str] | None

    def __init__(self, *, filters: Sequence[Mapping[str, Any]], type: Mapping[str, str] | None = None) -> None:
        object.__setattr__(self, "pipeline", _parse_filters(filters))
        object.__setattr__(self, "type", None if type is None else _parse_type(type))
        if not self.pipeline and self.type is None:
            raise FormatError(f"codec {NAME} needs filters, a type, or both")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a Zarr metadata document."""
        configuration = data.get("configuration")
        if data.get("name") != NAME or not isinstance(configuration, Mapping):
            raise FormatError(f"not the metadata of a codec {NAME}: {data!r}")
        if not {"filters"} <= set(configuration) <= {"filters", "type"}:
            raise FormatError(f"codec {NAME}: expected `filters` and perhaps `type`, got {sorted(configuration)}")
        return cls(**configuration)

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        filters = [{"id": identifier, "cd_values": list(values)} for identifier, values in self.pipeline]
        configuration: dict[str, Any] = {"filters": filters}
        if self.type is not None:
            configuration["type"] = dict(zip(("hdf5", "dtype"), self.type, strict=True))
        return {"name": NAME, "configuration": configuration}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise, as codecs whose output has no fixed size do."""
        raise NotImplementedError(f"the size of {input_byte_length} bytes behind {NAME} depends on their values")

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        decoded = chunk_file(*self._contents(chunk_spec)).decode(_as_bytes(chunk_data))
        return chunk_spec.prototype.buffer.from_array_like(cast("Any", decoded))

    def _encode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        encoded = ChunkFile(*self._contents(chunk_spec)).encode(_as_bytes(chunk_data))
        return chunk_spec.prototype.buffer.from_bytes(encoded)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    def _contents(self, chunk_spec: ArraySpec) -> tuple[Pipeline, int, Element]:
        """Return the filters, the number of elements and their type, for a chunk of the array."""
        itemsize = getattr(chunk_spec.dtype, "item_size", None)
        if itemsize is None:
            raise DecodeError(f"codec {NAME} needs elements of a fixed size, not {chunk_spec.dtype}")
        count = math.prod(chunk_spec.shape)
        pipeline = _sized(self.pipeline, count * itemsize)
        return (pipeline, count * itemsize, BYTES) if self.type is None else (pipeline, count, _element(*self.type))


def _parse_filters(filters: object) -> Pipeline:
    """Return the filters of the configuration, checked."""
    if not isinstance(filters, Sequence) or len(filters) > MOST_FILTERS:
        raise FormatError(f"codec {NAME}: filters must be a list of up to {MOST_FILTERS} filters, got {filters!r}")
    return tuple(map(_parse_filter, filters))


def _parse_filter(item: object) -> tuple[int, tuple[int, ...]]:
    """Return one filter of the configuration, checked."""
    if not isinstance(item, Mapping) or set(item) != {"id", "cd_values"}:
        raise FormatError(f"codec {NAME}: a filter has `id` and `cd_values`, got {item!r}")
    identifier, values = item["id"], item["cd_values"]
    if not _is_unsigned(identifier, 16) or identifier == 0:
        raise FormatError(f"codec {NAME}: {identifier!r} is not an HDF5 filter id (1 to 65535)")
    if not isinstance(values, Sequence) or len(values) > MOST_VALUES or not all(_is_unsigned(v, 32) for v in values):
        raise FormatError(f"codec {NAME}: cd_values of filter {identifier} must be up to {MOST_VALUES} 32-bit integers")
    return identifier, tuple(values)


def _is_unsigned(value: object, bits: int) -> bool:
    """Return whether `value` is an integer, and no boolean, of that many bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << bits


def _parse_type(item: object) -> tuple[str, str]:
    """Return the type of the configuration, checked."""
    if not isinstance(item, Mapping) or set(item) != {"hdf5", "dtype"}:
        raise FormatError(f"codec {NAME}: a type has `hdf5` and `dtype`, got {item!r}")
    pair = (item["hdf5"], item["dtype"])
    if not all(isinstance(value, str) for value in pair) or NUMBER_DTYPE.fullmatch(pair[1]) is None:
        raise FormatError(
            f"codec {NAME}: {pair} are not an HDF5 type in hexadecimal digits and a NumPy type of numbers"
        )
    _element(*pair)
    return pair


def _element(encoded: str, dtype: str) -> Element:
    """Return the element that an encoded HDF5 type of numbers describes.

    ``H5Tencode`` puts two bytes, a 3 and a 0, before the datatype message. The message starts with the type's class (in
    the lower four bits: 0 is an integer, 1 a float), and the size of the element follows at byte 4.
    """
    try:
        data = bytes.fromhex(encoded)
    except ValueError as error:
        raise FormatError(f"codec {NAME}: {encoded!r} is not in hexadecimal digits") from error
    body = data[2:]
    if data[:2] != b"\x03\x00" or not 12 <= len(body) <= 64 or body[0] & 0xF not in (0, 1):
        raise FormatError(f"codec {NAME}: {encoded!r} is not an HDF5 integer or float type as H5Tencode writes it")
    return Element(body, int.from_bytes(body[4:8], "little"), dtype)


def _sized(pipeline: Pipeline, nbytes: int) -> Pipeline:
    """Return the pipeline, with the size of the chunk where LZF leaves room for it.

    The parser leaves it away, so that chunks of several sizes have one codec. LZF would decode without it, but tries
    again with a larger buffer until the result fits.
    """
    return tuple((n, (*values, nbytes) if n == LZF and len(values) == 2 else values) for n, values in pipeline)


def _as_bytes(buffer: Buffer) -> ByteArray:
    """Return the contents of a zarr buffer as contiguous bytes."""
    return np.ascontiguousarray(buffer.as_numpy_array()).reshape(-1).view(np.uint8)
