"""Zarr v3 codecs of FITS table fields that no other codec decodes: logical values, bits, and numbers as text.

``virtualchunks.fits_logical`` is the format ``L`` of binary tables, ``virtualchunks.fits_bits`` the format ``X``, and
``virtualchunks.fits_text`` the numbers of ASCII tables. They take the fields of one column alone, one after the other,
as ``virtualchunks.strided`` leaves them.

References
----------
FITS Standard 4.0, sections 7.2.5 (ASCII tables) and 7.3.3 (binary tables).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import numpy as np
import numpy.typing as npt
from zarr.abc.codec import ArrayBytesCodec

from virtualchunks.codecs.configuration import read_configuration, require_integer
from virtualchunks.errors import DecodeError, FormatError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

LOGICAL = "virtualchunks.fits_logical"
BITS = "virtualchunks.fits_bits"
TEXT = "virtualchunks.fits_text"

Bytes = npt.NDArray[np.uint8]


class _Fields(ArrayBytesCodec):
    """What the codecs of this module share: they decode only, each with one function."""

    is_fixed_size = False
    name: ClassVar[str]

    @abstractmethod
    def values(self, data: Bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the values of one chunk."""

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise: only decoding is known."""
        raise NotImplementedError(f"codec {self.name} decodes only")

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        data = np.ascontiguousarray(chunk_data.as_numpy_array()).view(np.uint8)
        found = self.values(data, chunk_spec.shape, chunk_spec.dtype.to_native_dtype())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(found)

    def _encode_sync(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> NoReturn:
        raise NotImplementedError(f"codec {self.name} decodes only")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return self._decode_sync(chunk_data, chunk_spec)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return self._encode_sync(chunk_array, chunk_spec)

    def _require(self, data: Bytes, nbytes: int) -> None:
        if len(data) != nbytes:
            raise DecodeError(f"codec {self.name}: expected {nbytes} bytes, got {len(data)}")


@dataclass(frozen=True)
class FITSLogical(_Fields):
    """Bytes ``T`` for true and anything else (``F``, or zero for "undefined") for false.

    Examples
    --------
    >>> FITSLogical().values(np.frombuffer(b"TF", np.uint8), (2,), np.dtype(bool)).tolist()
    [True, False]
    """

    name = LOGICAL

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a Zarr metadata document."""
        read_configuration(data, LOGICAL, frozenset())
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        return {"name": LOGICAL}

    def values(self, data: Bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the values of one chunk."""
        self._require(data, math.prod(shape))
        values: npt.NDArray[Any] = (data == ord("T")).reshape(shape)
        return values


@dataclass(frozen=True, kw_only=True)
class FITSBits(_Fields):
    """Bits, the highest of the first byte first, each field padded to whole bytes.

    Parameters
    ----------
    bits
        Bits of a field.

    Examples
    --------
    >>> FITSBits(bits=3).values(np.array([0b10100000], np.uint8), (1, 3), np.dtype(bool)).tolist()
    [[True, False, True]]
    """

    name = BITS

    bits: int

    def __post_init__(self) -> None:
        require_integer(BITS, "bits", self.bits, 1, 2**40)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a Zarr metadata document."""
        return cls(**read_configuration(data, BITS, frozenset({"bits"})))

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        return {"name": BITS, "configuration": {"bits": self.bits}}

    def values(self, data: Bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the values of one chunk."""
        fields, rest = divmod(math.prod(shape), self.bits)
        if rest:
            raise DecodeError(f"codec {BITS}: a chunk of shape {shape} is not made of fields of {self.bits} bits")
        width = -(-self.bits // 8)
        self._require(data, fields * width)
        unpacked = np.unpackbits(data.reshape(fields, width), axis=1, count=self.bits)
        return unpacked.astype(bool).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class FITSText(_Fields):
    """Numbers as text of a fixed width: the formats ``I``, ``F``, ``E`` and ``D`` of ASCII tables.

    Parameters
    ----------
    width
        Characters of a field.
    decimals
        Digits behind the decimal point where a field has none.
    null
        What a field holds where its value is undefined, which floats decode to NaN.

    Notes
    -----
    A blank field is zero, as the standard has it.

    Examples
    --------
    >>> FITSText(width=4).values(np.frombuffer(b"  12 1D2", np.uint8), (2,), np.dtype("f8")).tolist()
    [12.0, 100.0]
    """

    name = TEXT

    width: int
    decimals: int = 0
    null: str | None = None

    def __post_init__(self) -> None:
        require_integer(TEXT, "width", self.width, 1, 2**20)
        require_integer(TEXT, "decimals", self.decimals, 0, 2**20)
        if self.null is not None and not isinstance(self.null, str):
            raise FormatError(f"codec {TEXT}: null must be text, got {self.null!r}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a Zarr metadata document."""
        return cls(**read_configuration(data, TEXT, frozenset({"width"}), frozenset({"decimals", "null"})))

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        configuration: dict[str, Any] = {"width": self.width}
        if self.decimals:
            configuration["decimals"] = self.decimals
        if self.null is not None:
            configuration["null"] = self.null
        return {"name": TEXT, "configuration": configuration}

    def values(self, data: Bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the values of one chunk."""
        self._require(data, math.prod(shape) * self.width)
        texts = np.char.strip(data.view(f"S{self.width}"), b" \0")
        numbers = np.empty(len(texts), dtype=dtype.newbyteorder("="))
        convert = self._float if dtype.kind == "f" else self._integer
        try:
            numbers[:] = [convert(text) for text in texts.tolist()]
        except (ValueError, OverflowError) as error:
            raise DecodeError(f"codec {TEXT}: a field holds no number of the type {dtype}: {error}") from error
        return numbers.reshape(shape)

    def _integer(self, text: bytes) -> int:
        return int(text) if text else 0

    def _float(self, text: bytes) -> float:
        if self.null is not None and text == self.null.strip().encode():
            return math.nan
        if not text:
            return 0.0
        mantissa, mark, exponent = text.upper().replace(b"D", b"E").partition(b"E")
        if self.decimals and b"." not in mantissa and mantissa.lstrip(b"+-").isdigit():
            digits = mantissa.lstrip(b"+-").rjust(self.decimals + 1, b"0")
            sign = b"-" if mantissa.startswith(b"-") else b""
            mantissa = sign + digits[: -self.decimals] + b"." + digits[-self.decimals :]
        return float(mantissa + mark + exponent)
