"""The Zarr v3 codec ``virtualchunks.offset_binary``: integers whose sign bit is stored inverted.

FITS has no unsigned integers of 16, 32 and 64 bits, and no signed ones of 8: it stores them with half their range
subtracted (``BZERO = 32768`` and so on). In two's complement that inverts the highest bit and nothing else, so decoding
is exact for all 64 bits, which arithmetic in floating point is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy.typing as npt
from zarr.abc.codec import ArrayArrayCodec

from virtualchunks.codecs.configuration import read_configuration
from virtualchunks.errors import UnsupportedFeatureError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import NDBuffer

NAME = "virtualchunks.offset_binary"


@dataclass(frozen=True)
class OffsetBinary(ArrayArrayCodec):
    """Inverts the highest bit of integers; it is its own inverse.

    Examples
    --------
    >>> OffsetBinary().to_dict()
    {'name': 'virtualchunks.offset_binary'}
    """

    is_fixed_size = True

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a Zarr metadata document."""
        read_configuration(data, NAME, frozenset())
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        return {"name": NAME}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Return the size unchanged."""
        return input_byte_length

    def _invert(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        return chunk_spec.prototype.nd_buffer.from_numpy_array(invert_highest_bit(chunk_data.as_numpy_array()))

    _decode_sync = _invert
    _encode_sync = _invert

    async def _decode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        return self._invert(chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        return self._invert(chunk_data, chunk_spec)


def invert_highest_bit(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return integers with the highest bit inverted, of the same dtype in native byte order.

    Raises
    ------
    UnsupportedFeatureError
        If they are no integers.

    Examples
    --------
    >>> import numpy as np
    >>> invert_highest_bit(np.array([0, 0x7FFF, 0x8000], "u2")).tolist()
    [32768, 65535, 0]
    """
    if block.dtype.kind not in "iu":
        raise UnsupportedFeatureError(f"codec {NAME} is for integers, not {block.dtype}")
    native = block.astype(block.dtype.newbyteorder("="), copy=False)
    bits = native.view(f"u{native.dtype.itemsize}")
    inverted: npt.NDArray[Any] = bits ^ bits.dtype.type(1 << (8 * bits.dtype.itemsize - 1))
    return inverted.view(native.dtype)
