"""The Zarr v3 codec ``virtualchunks.text_padding``: text of fixed length that is padded otherwise than NumPy pads it.

HDF5 has three ways to fill up a text that is shorter than its place. NUL after NUL is NumPy's own and needs no codec. A
text may also end at its first NUL, with anything behind it, or be filled up with blanks; without this codec, what
stands there would count as part of the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import numpy.typing as npt
from zarr.abc.codec import BytesBytesCodec

from virtualchunks.errors import DecodeError, FormatError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

NAME = "virtualchunks.text_padding"
#: Where a text ends: at its first NUL, or before the blanks at its end.
PADDINGS = ("null_term", "space_pad")
_BLANK = 0x20


@dataclass(frozen=True, init=False)
class TextPadding(BytesBytesCodec):
    """Padding of texts of fixed length, as HDF5 names it.

    Parameters
    ----------
    pad
        ``"null_term"`` where a text ends at its first NUL, ``"space_pad"`` where blanks fill it up.

    Raises
    ------
    FormatError
        If it is another.

    Examples
    --------
    >>> TextPadding(pad="space_pad").to_dict()
    {'name': 'virtualchunks.text_padding', 'configuration': {'pad': 'space_pad'}}
    """

    is_fixed_size = True

    pad: str

    def __init__(self, *, pad: str) -> None:
        if pad not in PADDINGS:
            raise FormatError(f"codec {NAME}: pad is one of {', '.join(PADDINGS)}, not {pad!r}")
        object.__setattr__(self, "pad", pad)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a Zarr metadata document."""
        configuration = data.get("configuration")
        if data.get("name") != NAME or not isinstance(configuration, Mapping) or set(configuration) != {"pad"}:
            raise FormatError(f"not the metadata of a codec {NAME}, which has `pad` alone: {data!r}")
        return cls(pad=configuration["pad"])

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        return {"name": NAME, "configuration": {"pad": self.pad}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Return the number of bytes, which padding does not change."""
        return input_byte_length

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        texts = _texts(chunk_data, chunk_spec)
        if self.pad == "null_term":
            texts[np.logical_or.accumulate(texts == 0, axis=1)] = 0
        else:
            texts[np.logical_and.accumulate(texts[:, ::-1] == _BLANK, axis=1)[:, ::-1]] = 0
        return chunk_spec.prototype.buffer.from_array_like(cast("Any", texts.reshape(-1)))

    def _encode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        if self.pad == "null_term":
            return chunk_data
        texts = _texts(chunk_data, chunk_spec)
        texts[np.logical_and.accumulate(texts[:, ::-1] == 0, axis=1)[:, ::-1]] = _BLANK
        return chunk_spec.prototype.buffer.from_array_like(cast("Any", texts.reshape(-1)))

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return self._decode_sync(chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return self._encode_sync(chunk_data, chunk_spec)


def _texts(chunk_data: Buffer, chunk_spec: ArraySpec) -> npt.NDArray[np.uint8]:
    """Return a copy of the bytes, one row for each text."""
    raw = np.ascontiguousarray(chunk_data.as_numpy_array()).reshape(-1).view(np.uint8)
    length = getattr(chunk_spec.dtype, "item_size", 0)
    if not length or raw.size % length:
        raise DecodeError(f"codec {NAME}: {raw.size} bytes are no texts of {length} bytes")
    return raw.reshape(-1, length).copy()
