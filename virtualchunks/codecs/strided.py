"""The Zarr v3 codec ``virtualchunks.strided``: fields of one width at equal distances, as the columns of a table lie.

A record-oriented format keeps the fields of a row side by side. A chunk that refers to the rows from the first byte of
a column's first field to the last byte of its last field decodes with this codec to the fields of that column alone,
one after the other, which the codecs before it turn into elements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

import numpy as np
from zarr.abc.codec import BytesBytesCodec

from virtualchunks.codecs.configuration import read_configuration, require_integer
from virtualchunks.errors import DecodeError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

NAME = "virtualchunks.strided"


@dataclass(frozen=True, kw_only=True)
class Strided(BytesBytesCodec):
    """Fields of `width` bytes, `stride` bytes apart. It decodes only.

    Parameters
    ----------
    width
        Bytes of each field.
    stride
        Bytes from the beginning of one field to that of the next.
    count
        Fields of a whole chunk. The last chunk of an array may hold fewer; zeros are put in their place.

    Raises
    ------
    FormatError
        If the parameters are anything else.

    Examples
    --------
    >>> Strided(width=4, stride=10, count=1000).to_dict()
    {'name': 'virtualchunks.strided', 'configuration': {'width': 4, 'stride': 10, 'count': 1000}}
    """

    is_fixed_size = False

    width: int
    stride: int
    count: int

    def __post_init__(self) -> None:
        require_integer(NAME, "width", self.width, 1, 2**40)
        require_integer(NAME, "stride", self.stride, self.width, 2**40)
        require_integer(NAME, "count", self.count, 1, 2**40)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a Zarr metadata document."""
        return cls(**read_configuration(data, NAME, frozenset({"width", "stride", "count"})))

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        return {"name": NAME, "configuration": {"width": self.width, "stride": self.stride, "count": self.count}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Return the bytes that the rows of a whole chunk take, without what surrounds the first and the last field."""
        return (self.count - 1) * self.stride + self.width

    def fields(self, data: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the fields, one after the other.

        Raises
        ------
        DecodeError
            If the bytes do not end with a field, or hold more fields than the chunk has.
        """
        given = np.frombuffer(data, dtype=np.uint8)
        found = -(-len(given) // self.stride)
        if not 0 < found <= self.count or len(given) - (found - 1) * self.stride not in (self.width, self.stride):
            raise DecodeError(
                f"codec {NAME}: {len(given)} bytes are not up to {self.count} fields of {self.width} bytes, "
                f"{self.stride} bytes apart"
            )
        fields = np.zeros((self.count, self.width), dtype=np.uint8)
        fields[:found] = np.lib.stride_tricks.as_strided(given, (found, self.width), (self.stride, 1), writeable=False)
        return fields.reshape(-1)

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        fields = self.fields(np.ascontiguousarray(chunk_data.as_numpy_array()).view(np.uint8))
        return chunk_spec.prototype.buffer.from_array_like(cast("Any", fields))

    def _encode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NoReturn:
        raise NotImplementedError(f"codec {NAME} decodes only: what lies between the fields is not the array's")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return self._encode_sync(chunk_data, chunk_spec)
