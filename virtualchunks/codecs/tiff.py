"""The Zarr v3 codec ``virtualchunks.tiff``: strips and tiles of TIFF files that no other Zarr codec decodes.

It decodes the whole chain from the bytes of a strip or tile to samples: compression, order of bits, packing,
predictor and byte order (:mod:`virtualchunks.codecs.tiff_chunk`). Plain samples, and samples that only deflate or zstd
compressed, do not come here: Zarr has codecs for them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from zarr.abc.codec import ArrayBytesCodec

from virtualchunks.codecs.tiff_chunk import SampleLayout
from virtualchunks.errors import DecodeError, FormatError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

NAME = "virtualchunks.tiff"

_DEFAULTS = {
    field.name: field.default for field in dataclasses.fields(SampleLayout) if field.default is not dataclasses.MISSING
}
_NAMES = frozenset(field.name for field in dataclasses.fields(SampleLayout))


@dataclass(frozen=True)
class TIFFSamples(ArrayBytesCodec):
    """Samples of a strip or tile, decoded as TIFF stores them.

    Parameters
    ----------
    layout
        How they are stored.

    Notes
    -----
    It decodes only. The elements of a chunk are its samples row by row, so axes of length one may be added and dropped.

    Examples
    --------
    >>> layout = SampleLayout(compression=5, bits=16, sample_format=1, width=8, samples=1, endian="big", predictor=2)
    >>> TIFFSamples(layout).to_dict()["configuration"]["predictor"]
    2
    """

    is_fixed_size = False

    layout: SampleLayout

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a Zarr metadata document.

        Raises
        ------
        FormatError
            If the document is another codec's, or names unknown parameters.
        UnsupportedFeatureError
            If samples so stored cannot be decoded.
        """
        configuration = data.get("configuration")
        if data.get("name") != NAME or not isinstance(configuration, Mapping):
            raise FormatError(f"not the metadata of a codec {NAME}: {data!r}")
        needed = _NAMES - _DEFAULTS.keys()
        if not needed <= configuration.keys() <= _NAMES:
            raise FormatError(
                f"codec {NAME}: expected {sorted(needed)} and perhaps {sorted(_DEFAULTS)}, got {sorted(configuration)}"
            )
        return cls(SampleLayout(**configuration))

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        return {"name": NAME, "configuration": layout_to_json(self.layout)}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise, as codecs whose output has no fixed size do."""
        raise NotImplementedError(f"the size of {input_byte_length} bytes behind {NAME} depends on their values")

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        native = chunk_spec.dtype.to_native_dtype().newbyteorder("=")
        if native != self.layout.dtype:
            raise DecodeError(f"codec {NAME} decodes to {self.layout.dtype}, and the array is of {native}")
        data = np.ascontiguousarray(chunk_data.as_numpy_array()).reshape(-1).view(np.uint8)
        samples = self.layout.decode(data, math.prod(chunk_spec.shape)).reshape(chunk_spec.shape)
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(cast("Any", samples))

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        raise NotImplementedError(f"the codec {NAME} decodes only")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return self._encode_sync(chunk_data, chunk_spec)


def layout_to_json(layout: SampleLayout) -> dict[str, Any]:
    """Return a layout as the configuration of the codec: the fields that are not at their defaults."""
    fields = {field.name: getattr(layout, field.name) for field in dataclasses.fields(layout)}
    return {name: value for name, value in fields.items() if name not in _DEFAULTS or value != _DEFAULTS[name]}
