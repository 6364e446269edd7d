"""The Zarr v3 codec ``virtualchunks.hdf4_rle``: the run-length encoding of HDF4.

A control byte with its highest bit set is followed by one byte, repeated as often as the other bits say, plus 3; any
other is followed by bytes as they are, one more than it says.

References
----------
HDF Specification and Developer's Guide 4.2, section 10.4; ``crle.c`` of the HDF4 library describes the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Self

from zarr.abc.codec import BytesBytesCodec

from virtualchunks.codecs.configuration import read_configuration
from virtualchunks.errors import DecodeError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

NAME = "virtualchunks.hdf4_rle"

RUN = 0x80
SHORTEST_RUN = 3


@dataclass(frozen=True)
class HDF4RLE(BytesBytesCodec):
    """Run-length encoding as HDF4 has it. It decodes only.

    Examples
    --------
    >>> decode_runs(bytes([0x82, 7, 0x01, 1, 2]), 100)
    b'\\x07\\x07\\x07\\x07\\x07\\x01\\x02'
    """

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a Zarr metadata document."""
        read_configuration(data, NAME, frozenset())
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        return {"name": NAME}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise: the size depends on the values."""
        raise NotImplementedError(f"the size of {input_byte_length} bytes behind {NAME} depends on their values")

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        limit = 16
        for size in chunk_spec.shape:
            limit *= size
        limit *= getattr(chunk_spec.dtype, "item_size", 16)
        return chunk_spec.prototype.buffer.from_bytes(decode_runs(chunk_data.to_bytes(), limit))

    def _encode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NoReturn:
        raise NotImplementedError(f"codec {NAME} decodes only")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return self._encode_sync(chunk_data, chunk_spec)


def decode_runs(data: bytes, limit: int) -> bytes:
    """Return what run-length encoded bytes stand for.

    Parameters
    ----------
    data
        The bytes.
    limit
        How many bytes they may decode to.

    Raises
    ------
    DecodeError
        If they end within a run, or decode to more.
    """
    parts: list[bytes] = []
    at = total = 0
    while at < len(data):
        control = data[at]
        count = (control & ~RUN) + (SHORTEST_RUN if control & RUN else 1)
        taken = 1 if control & RUN else count
        part = data[at + 1 : at + 1 + taken]
        total += count
        if len(part) != taken or total > limit:
            raise DecodeError(f"codec {NAME}: {len(data)} bytes end within a run, or decode to more than {limit}")
        parts.append(part * count if control & RUN else part)
        at += 1 + taken
    return b"".join(parts)
