"""The Zarr v3 codec ``virtualchunks.fits_tile``: tiles of tile-compressed FITS images.

A chunk is one tile, or, where tiles have parameters of their own (the scale and zero point of quantised floats), a
block of tiles whose positions and parameters the configuration lists. The result is astropy's, bit for bit.

References
----------
FITS Standard 4.0, section 10.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

import numpy as np
import numpy.typing as npt
from zarr.abc.codec import ArrayBytesCodec

from virtualchunks.codecs.configuration import read_configuration, require_integer
from virtualchunks.codecs.fits_algorithms import ALGORITHMS, RAW, decompress, typed
from virtualchunks.codecs.fits_dither import METHODS, dequantise
from virtualchunks.errors import DecodeError, FormatError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

NAME = "virtualchunks.fits_tile"

#: One tile of a block: where its bytes are in the chunk, how they are compressed, and its own parameters.
TILE = np.dtype(
    [
        ("offset", "<u8"),
        ("length", "<u8"),
        ("scale", "<f8"),
        ("zero", "<f8"),
        ("row", "<i8"),
        ("blank", "<i8"),
        ("storage", "<i8"),
    ]
)
#: Values of the field "storage".
COMPRESSED, GZIPPED, PLAIN = 0, 1, 2
#: The value of the field "blank" where no integer stands for "undefined".
NO_BLANK = np.iinfo(np.int64).min

_FALLBACKS = {GZIPPED: "GZIP_1", PLAIN: "NOCOMPRESS"}
_BITPIX = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}
_PARAMETERS = {"RICE_1": ("blocksize", "bytepix"), "HCOMPRESS_1": ("smooth",)}
_OPTIONAL = frozenset({"parameters", "blank", "dither", "tile_shape", "tiles"})


@dataclass(frozen=True, kw_only=True)
class FITSTile(ArrayBytesCodec):
    """Tiles of a tile-compressed FITS image. It decodes only.

    Parameters
    ----------
    algorithm
        The value of ZCMPTYPE: ``GZIP_1``, ``GZIP_2``, ``RICE_1``, ``PLIO_1``, ``HCOMPRESS_1`` or ``NOCOMPRESS``.
    bitpix
        The value of ZBITPIX: the type of the image.
    parameters
        ``blocksize`` and ``bytepix`` of RICE_1, ``smooth`` of HCOMPRESS_1.
    blank
        The value that stands for NaN in an image of floats that is not quantised.
    dither
        The value of ZQUANTIZ, for quantised floats.
    tile_shape
        Shape of the tiles, if a chunk is a block of them; those at its edges are cut.
    tiles
        The tiles of the block in C order: records of :data:`TILE`, in base64.

    Raises
    ------
    FormatError
        If the parameters are anything else.

    Examples
    --------
    >>> FITSTile(algorithm="RICE_1", bitpix=16, parameters={"blocksize": 32, "bytepix": 2}).to_dict()["name"]
    'virtualchunks.fits_tile'
    """

    is_fixed_size = False

    algorithm: str
    bitpix: int
    parameters: Mapping[str, int] = field(default_factory=dict)
    blank: int | None = None
    dither: str | None = None
    tile_shape: Sequence[int] | None = None
    tiles: str | None = None

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise FormatError(f"codec {NAME}: unknown algorithm {self.algorithm!r}; known are {sorted(ALGORITHMS)}")
        if self.bitpix not in _BITPIX:
            raise FormatError(f"codec {NAME}: bitpix must be one of {sorted(_BITPIX)}, got {self.bitpix!r}")
        self._check_parameters()
        if self.dither not in (None, *METHODS):
            raise FormatError(f"codec {NAME}: dither must be one of {METHODS}, got {self.dither!r}")
        if self.blank is not None:
            require_integer(NAME, "blank", self.blank, -(2**63), 2**63 - 1)
        if (self.tile_shape is None) != (self.tiles is None) or (self.tiles is None and self.dither is not None):
            raise FormatError(f"codec {NAME}: tile_shape and tiles go together, and dither needs both")
        if self.tile_shape is not None:
            sizes = tuple(require_integer(NAME, "tile_shape", size, 1, 2**40) for size in self.tile_shape)
            object.__setattr__(self, "tile_shape", sizes)

    def _check_parameters(self) -> None:
        known, given = _PARAMETERS.get(self.algorithm, ()), cast("object", self.parameters)
        if not isinstance(given, Mapping) or set(self.parameters) != set(known):
            raise FormatError(f"codec {NAME}: {self.algorithm} has the parameters {known}, got {self.parameters!r}")
        for key, value in self.parameters.items():
            require_integer(NAME, key, value, 0, 2**16)
        if self.parameters.get("bytepix", 4) not in (1, 2, 4) or self.parameters.get("blocksize", 32) < 1:
            raise FormatError(f"codec {NAME}: RICE_1 cannot have the parameters {self.parameters!r}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a Zarr metadata document."""
        return cls(**read_configuration(data, NAME, frozenset({"algorithm", "bitpix"}), _OPTIONAL))

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        configuration: dict[str, Any] = {"algorithm": self.algorithm, "bitpix": self.bitpix}
        if self.parameters:
            configuration["parameters"] = dict(self.parameters)
        if self.tile_shape is not None:
            configuration["tile_shape"] = list(self.tile_shape)
        given = {"blank": self.blank, "dither": self.dither, "tiles": self.tiles}
        configuration.update({key: value for key, value in given.items() if value is not None})
        return {"name": NAME, "configuration": configuration}

    def __hash__(self) -> int:
        return hash((self.algorithm, self.bitpix, tuple(self.parameters.items()), self.dither, self.tiles))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise: compressed bytes have no fixed number."""
        raise NotImplementedError(f"the size of {input_byte_length} bytes behind {NAME} depends on their values")

    def values(self, data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the values of one chunk.

        Parameters
        ----------
        data
            The bytes of the chunk.
        shape
            Its shape.
        dtype
            The image's type, or the integers of the other signedness and the same size.

        Raises
        ------
        DecodeError
            If the bytes do not decode.
        """
        if self.tiles is None:
            return self._whole(data, shape).astype(dtype)
        block = np.empty(shape, dtype=_BITPIX[self.bitpix])
        places = tuple(_tiles_of(shape, self.tile_shape or ()))
        tiles = read_tiles(self.tiles)
        if len(places) != len(tiles):
            raise DecodeError(f"codec {NAME}: {len(tiles)} tiles for a chunk of shape {shape}, which has {len(places)}")
        for place, tile in zip(places, tiles, strict=True):
            block[place] = self._one(data, block[place].shape, tile)
        return block.astype(dtype, copy=False)

    def _whole(self, data: bytes, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return the one tile of a chunk, in the type of the image."""
        stored = self._stored(data, self.algorithm, math.prod(shape), floats=self.bitpix < 0)
        values = _cast(stored, self.bitpix)
        if self.blank is not None and self.bitpix < 0:
            values[stored == self.blank] = np.nan
        return values.reshape(shape)

    def _one(self, data: bytes, shape: tuple[int, ...], tile: np.void) -> npt.NDArray[Any]:
        """Return one tile of a block."""
        start, length, storage = int(tile["offset"]), int(tile["length"]), int(tile["storage"])
        if start + length > len(data):
            raise DecodeError(f"codec {NAME}: a tile ends at byte {start + length} of a chunk of {len(data)} bytes")
        part = data[start : start + length]
        if storage != COMPRESSED:
            stored = self._stored(part, _FALLBACKS[storage], math.prod(shape), floats=self.bitpix < 0)
            return _cast(stored, self.bitpix).reshape(shape)
        floats = self.bitpix < 0 and self.dither is None
        stored = self._stored(part, self.algorithm, math.prod(shape), floats=floats)
        values = self._dequantised(stored, tile)
        blank = int(tile["blank"])
        if blank != NO_BLANK and self.bitpix < 0:
            values[stored == blank] = np.nan
        elif blank != NO_BLANK and self.blank is not None:
            values[stored == blank] = self.blank
        return values.reshape(shape)

    def _stored(self, data: bytes, algorithm: str, count: int, *, floats: bool) -> npt.NDArray[Any]:
        numbers = decompress(data, algorithm, count, self.parameters)
        if algorithm in RAW:
            numbers = typed(numbers, count, floats=floats)
        if numbers.size != count:
            raise DecodeError(f"{len(data)} bytes decode with {algorithm} to {numbers.size} pixels, expected {count}")
        return numbers

    def _dequantised(self, stored: npt.NDArray[Any], tile: np.void) -> npt.NDArray[Any]:
        if self.dither is None:
            return _cast(stored, self.bitpix)
        return dequantise(
            stored,
            method=self.dither,
            scale=float(tile["scale"]),
            zero=float(tile["zero"]),
            row=int(tile["row"]),
            dtype=np.dtype(_BITPIX[self.bitpix]),
        )

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        values = self.values(chunk_data.to_bytes(), chunk_spec.shape, chunk_spec.dtype.to_native_dtype())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(values)

    def _encode_sync(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> NoReturn:
        raise NotImplementedError(f"codec {NAME} decodes only")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return self._encode_sync(chunk_array, chunk_spec)


def write_tiles(tiles: npt.NDArray[Any]) -> str:
    """Return records of :data:`TILE` as the configuration holds them."""
    return base64.b64encode(np.ascontiguousarray(tiles, dtype=TILE).tobytes()).decode("ascii")


def read_tiles(text: str) -> npt.NDArray[Any]:
    """Return the records of a configuration.

    Raises
    ------
    FormatError
        If they are none.
    """
    try:
        tiles = np.frombuffer(base64.b64decode(text, validate=True), dtype=TILE)
    except (binascii.Error, ValueError, TypeError) as error:
        raise FormatError(f"codec {NAME}: tiles are no base64 of records of {TILE.itemsize} bytes: {error}") from error
    if not np.isin(tiles["storage"], (COMPRESSED, GZIPPED, PLAIN)).all():
        raise FormatError(f"codec {NAME}: unknown storage of tiles {np.unique(tiles['storage']).tolist()}")
    return tiles


def _cast(stored: npt.NDArray[Any], bitpix: int) -> npt.NDArray[Any]:
    """Return numbers in the type of the image, a copy; integers that do not fit wrap, as in astropy."""
    with np.errstate(all="ignore"):
        return stored.astype(_BITPIX[bitpix])


def _tiles_of(shape: Sequence[int], tile_shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Iterate over the tiles of a block, in C order."""
    if len(shape) != len(tile_shape):
        raise DecodeError(f"codec {NAME}: tiles of {len(tile_shape)} dimensions in a chunk of {len(shape)}")
    cuts = [
        [slice(start, min(start + step, size)) for start in range(0, size, step)]
        for size, step in zip(shape, tile_shape, strict=True)
    ]
    return itertools.product(*cuts)
