"""The Zarr v3 codec ``virtualchunks.grib``: a chunk is one GRIB message, decoded by ecCodes.

It decodes only. Values come in the order of the message, whatever its scanning mode, as ecCodes gives them in double
precision; where the bitmap or the packing says that a value is missing, it is NaN.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec

from virtualchunks.codecs.grib_handle import read_array
from virtualchunks.codecs.grib_sections import field_message
from virtualchunks.errors import FormatError, UnsupportedFeatureError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

NAME = "virtualchunks.grib"
READS = ("values", "latitudes", "longitudes")


@dataclass(frozen=True)
class GRIB(ArrayBytesCodec):
    """One GRIB message, editions 1 and 2, as a block of values.

    Parameters
    ----------
    field
        Number of the field, where messages of edition 2 hold several.
    read
        ``"values"``, or ``"latitudes"`` or ``"longitudes"`` for the coordinates of the grid points, computed from the
        same message.

    Raises
    ------
    FormatError
        If the parameters are anything else.

    Examples
    --------
    >>> GRIB(field=1).to_dict()
    {'name': 'virtualchunks.grib', 'configuration': {'field': 1}}
    """

    is_fixed_size = False

    field: int = 0
    read: str = "values"

    def __post_init__(self) -> None:
        if type(self.field) is not int or self.field < 0:
            raise FormatError(f"codec {NAME}: a field has a number from 0 on, not {self.field!r}")
        if self.read not in READS:
            raise FormatError(f"codec {NAME}: read one of {', '.join(READS)}, not {self.read!r}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a Zarr metadata document."""
        configuration = data.get("configuration", {})
        if data.get("name") != NAME or not isinstance(configuration, Mapping):
            raise FormatError(f"not the metadata of a codec {NAME}: {data!r}")
        if not set(configuration) <= {"field", "read"}:
            raise FormatError(f"codec {NAME}: expected `field` and `read` at most, got {sorted(configuration)}")
        return cls(**configuration)

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        stated = {"field": self.field} if self.field else {}
        return {"name": NAME, "configuration": {**stated, **({} if self.read == "values" else {"read": self.read})}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise, as codecs whose output has no fixed size do."""
        raise NotImplementedError(f"the size of {input_byte_length} bytes behind {NAME} depends on their values")

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        message = field_message(chunk_data.to_bytes(), self.field)
        dtype = np.dtype(chunk_spec.dtype.to_native_dtype())
        if dtype.kind != "f" or dtype.itemsize < 4:
            raise FormatError(f"codec {NAME} decodes to float64 or float32, not {dtype}")
        block = read_array(message, self.read, chunk_spec.shape).astype(dtype, copy=False)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(block)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NoReturn:
        raise UnsupportedFeatureError(f"codec {NAME} decodes only: write other values with another codec")

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NoReturn:
        self._encode_sync(chunk_data, chunk_spec)
