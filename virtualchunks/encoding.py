"""Chunk encodings: how the bytes of a chunk become a block of an array.

An encoding is the stored dtype with its byte order, the Zarr v3 codecs that lead from a block to bytes, the shape to
which the bytes decode where that is not the chunk's nominal shape, and the packing that lifts stored numbers to the
array's values, if those are what the array holds. Two encodings are equal when they *decode* alike:
compression levels do not matter, the order of bytes does.

Running codecs needs zarr and lives in :mod:`virtualchunks.codecs.pipeline`; which chunk has which encoding lives in
:mod:`virtualchunks.sources`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import ManifestError, UnsupportedFeatureError
from virtualchunks.packing import Packing

Codec = Mapping[str, Any]

#: Parameters that steer compression and leave decompression alone, by codec name. ``None`` means all of them.
ENCODER_ONLY: dict[str, frozenset[str] | None] = {
    "gzip": frozenset({"level"}),
    "zstd": frozenset({"level", "checksum"}),
    "blosc": None,
    "bz2": frozenset({"level"}),
    "zlib": frozenset({"level"}),
    "lz4": frozenset({"acceleration"}),
    "lzma": frozenset({"preset"}),
}

#: Codecs that work on the elements of a block one after the other, whatever its shape.
SHAPE_AGNOSTIC = frozenset(
    {
        "bytes",
        "vlen-utf8",
        "vlen-bytes",
        "transpose",
        "virtualchunks.tiff",
        "scale_offset",
        "cast_value",
        "numcodecs.astype",
        "numcodecs.bitround",
        "numcodecs.delta",
        "numcodecs.fixedscaleoffset",
        "numcodecs.packbits",
        "numcodecs.pcodec",
        "numcodecs.quantize",
        "gribberish",
        "virtualchunks.grib",
        "virtualchunks.fits_logical",
        "virtualchunks.offset_binary",
    }
)

#: Codecs that store each element by itself, in its own bytes, so that the bytes can be cut between elements.
ELEMENTWISE = frozenset({"bytes", "transpose", "virtualchunks.fits_logical", "virtualchunks.offset_binary"})


def bytes_codec(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the Zarr ``bytes`` codec that stores `dtype` in its own byte order.

    Examples
    --------
    >>> bytes_codec(np.dtype(">i4"))
    {'name': 'bytes', 'configuration': {'endian': 'big'}}
    >>> bytes_codec(np.dtype("u1"))
    {'name': 'bytes'}
    """
    order = byte_order(dtype)
    return {"name": "bytes"} if order is None else {"name": "bytes", "configuration": {"endian": order}}


def in_order(dtype: np.dtype[Any], order: Literal["=", "<", ">"]) -> np.dtype[Any]:
    """Return a dtype with its elements in native, little-endian or big-endian order; text of any length has no order.

    Examples
    --------
    >>> in_order(np.dtype("<i4"), ">"), in_order(np.dtypes.StringDType(), ">")
    (dtype('>i4'), StringDType())
    """
    return dtype if dtype.kind == "T" else dtype.newbyteorder(order)


def byte_order(dtype: np.dtype[Any]) -> str | None:
    """Return ``"little"`` or ``"big"``, or ``None`` where bytes have no order.

    Raises
    ------
    UnsupportedFeatureError
        If the fields of a structured dtype differ in byte order: no Zarr codec stores that.
    """
    if dtype.fields is not None:
        orders = {byte_order(field[0]) for field in dtype.fields.values()} - {None}
        if len(orders) > 1:
            raise UnsupportedFeatureError(f"the fields of {dtype} differ in byte order, which no Zarr codec stores")
        return orders.pop() if orders else None
    if dtype.subdtype is not None:
        return byte_order(dtype.subdtype[0])
    if dtype.byteorder == "|":
        return None
    return "big" if in_order(dtype, "=") != dtype else "little"


@dataclass(frozen=True, eq=False)
class ChunkEncoding:
    """How the bytes of a chunk become a block of the array.

    Parameters
    ----------
    dtype
        Stored dtype, with its byte order.
    codecs
        Zarr v3 codecs in encoding order, as JSON objects, the array-to-bytes codec among them.
    shape
        Shape to which the bytes decode, of which the leading part fills the cell; ``None`` for the nominal chunk shape.
    packing
        How the decoded numbers become the values of the array; ``None`` where they are these values.
    start
        Where the cell begins in the decoded block; ``None`` for its first element.

    Notes
    -----
    Equality and hashing ask whether two encodings decode alike, so they ignore compression levels.

    Examples
    --------
    >>> one = ChunkEncoding.plain(np.dtype("<f4"), [{"name": "gzip", "configuration": {"level": 1}}])
    >>> five = ChunkEncoding.plain(np.dtype("<f4"), [{"name": "gzip", "configuration": {"level": 5}}])
    >>> one == five
    True
    """

    dtype: np.dtype[Any]
    codecs: tuple[Codec, ...]
    shape: tuple[int, ...] | None = None
    packing: Packing | None = None
    start: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.codecs:
            raise ManifestError("an encoding needs at least the codec that turns arrays into bytes")
        if self.start is not None and (self.shape is None or len(self.shape) != len(self.start) or min(self.start) < 0):
            raise ManifestError(f"a cell cannot begin at {self.start} of a block of the shape {self.shape}")

    @classmethod
    def plain(cls, dtype: npt.DTypeLike, compressors: Sequence[Codec] = ()) -> ChunkEncoding:
        """Return the encoding of C-ordered elements in the byte order of `dtype`, followed by `compressors`."""
        stored = np.dtype(dtype)
        return cls(stored, (bytes_codec(stored), *compressors)) if compressors else _uncompressed(stored)

    @cached_property
    def block_key(self) -> str:
        """A string that is equal for encodings by which the same bytes become the same block, before it is cut."""
        dtype = self.dtype.str if self.dtype.fields is None else repr(self.dtype.descr)
        return json.dumps([dtype, self.shape, [_decoding_part(codec) for codec in self.codecs]], sort_keys=True)

    @cached_property
    def decode_key(self) -> str:
        """A string that is equal for encodings that decode alike."""
        if self.start is None and not self.lift_key:
            return self.block_key
        return json.dumps([self.block_key, self.start, self.lift_key])

    @property
    def lift_key(self) -> str:
        """A string that is equal for encodings that lift decoded numbers alike; empty for those that do not."""
        return "" if self.packing is None else self.packing.key

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, ChunkEncoding):
            return NotImplemented
        if self.start != other.start or self.lift_key != other.lift_key:
            return False
        if self.dtype == other.dtype and self.shape == other.shape and self.codecs == other.codecs:
            return True
        return self.decode_key == other.decode_key

    def __hash__(self) -> int:
        return hash(self.decode_key)

    def decodes_like(self, other: ChunkEncoding) -> bool:
        """Return whether the same bytes decode to the same block under `other`."""
        return self == other

    def __repr__(self) -> str:
        shape = "" if self.shape is None else f", shape={self.shape}"
        shape += "" if self.start is None else f", start={self.start}"
        lifted = "" if not self.lift_key or self.packing is None else f", {dict(self.packing.attributes)}"
        return f"<ChunkEncoding {self.dtype.str} {' → '.join(codec['name'] for codec in self.codecs)}{shape}{lifted}>"

    @cached_property
    def is_uncompressed(self) -> bool:
        """Whether the bytes hold one element after the other, in some order of axes."""
        if self.dtype.hasobject or self.dtype.kind == "T":
            return False
        return all(codec["name"] in ELEMENTWISE for codec in self.codecs)

    def storage_order(self, ndim: int) -> tuple[int, ...]:
        """Return the axes of the array in the order in which they are stored, slowest first.

        Examples
        --------
        >>> ChunkEncoding.plain("<f4").storage_order(3)
        (0, 1, 2)
        """
        order = tuple(range(ndim))
        for codec in self.codecs:
            if codec["name"] == "transpose":
                order = tuple(order[axis] for axis in codec["configuration"]["order"])
        return order

    def windowed(self, axis: int, first: int, shape: tuple[int, ...]) -> ChunkEncoding:
        """Return the encoding of a part of the cell, from its element `first` along an axis.

        Parameters
        ----------
        axis, first
            Where the part begins.
        shape
            Shape to which the bytes decode, where the encoding has none of its own.
        """
        start = list(self.start or (0,) * len(shape))
        start[axis] += first
        return replace(
            self, shape=shape if self.shape is None else self.shape, start=tuple(start) if any(start) else None
        )

    def transposed(self, axes: Sequence[int]) -> ChunkEncoding:
        """Return the encoding of the same bytes for the array with its axes in the order `axes`.

        Parameters
        ----------
        axes
            As in :func:`numpy.transpose`: axis *i* of the result is axis ``axes[i]`` of this array.
        """
        position = {axis: place for place, axis in enumerate(axes)}
        previous, rest = self._leading_order(len(axes))
        order = [position[axis] for axis in previous]
        shape = None if self.shape is None else tuple(self.shape[axis] for axis in axes)
        start = None if self.start is None else tuple(self.start[axis] for axis in axes)
        return replace(self, codecs=(*_transpose_codec(order), *rest), shape=shape, start=start)

    def with_axis(self, axis: int, ndim: int) -> ChunkEncoding:
        """Return the encoding of the same bytes for an array with one more axis, of chunk length 1, at `axis`.

        Raises
        ------
        UnsupportedFeatureError
            If a codec depends on the number of dimensions.
        """
        self._require_shape_agnostic("add an axis")
        previous, rest = self._leading_order(ndim)
        order = [axis, *(place + (place >= axis) for place in previous)]
        shape = None if self.shape is None else (*self.shape[:axis], 1, *self.shape[axis:])
        start = None if self.start is None else (*self.start[:axis], 0, *self.start[axis:])
        codecs = _transpose_codec(order) if self._has_transpose else ()
        return replace(self, codecs=(*codecs, *rest), shape=shape, start=start)

    def without_axis(self, axis: int, ndim: int) -> ChunkEncoding:
        """Return the encoding of the same bytes for an array that loses `axis`, whose chunk length is 1.

        Raises
        ------
        UnsupportedFeatureError
            If a codec depends on the number of dimensions.
        """
        self._require_shape_agnostic("drop an axis")
        previous, rest = self._leading_order(ndim)
        order = [place - (place > axis) for place in previous if place != axis]
        shape = None if self.shape is None else (*self.shape[:axis], *self.shape[axis + 1 :])
        start = None if self.start is None else (*self.start[:axis], *self.start[axis + 1 :])
        codecs = _transpose_codec(order) if self._has_transpose else ()
        return replace(self, codecs=(*codecs, *rest), shape=shape, start=start)

    @property
    def _has_transpose(self) -> bool:
        return bool(self.codecs[0]["name"] == "transpose")

    def _leading_order(self, ndim: int) -> tuple[tuple[int, ...], tuple[Codec, ...]]:
        """Split off a leading transpose codec: its order, and the codecs behind it."""
        if self._has_transpose:
            return tuple(self.codecs[0]["configuration"]["order"]), self.codecs[1:]
        return tuple(range(ndim)), self.codecs

    def _require_shape_agnostic(self, purpose: str) -> None:
        for codec in self.codecs:
            if codec["name"] in SHAPE_AGNOSTIC:
                if codec["name"] in (
                    "bytes",
                    "vlen-utf8",
                    "vlen-bytes",
                    "numcodecs.pcodec",
                    "virtualchunks.grib",
                    "gribberish",
                    "virtualchunks.fits_logical",
                ):
                    return
                continue
            raise UnsupportedFeatureError(
                f"cannot {purpose}: the codec {codec['name']!r} decodes blocks with a fixed number of dimensions"
            )


@lru_cache(maxsize=256)
def _uncompressed(dtype: np.dtype[Any]) -> ChunkEncoding:
    return ChunkEncoding(dtype, (bytes_codec(dtype),))


def _decoding_part(codec: Codec) -> Any:
    name = codec["name"]
    short = name.removeprefix("numcodecs.")
    if short not in ENCODER_ONLY:
        return codec if codec.get("configuration") else {"name": name}
    ignored = ENCODER_ONLY[short]
    configuration = codec.get("configuration", {})
    kept = {} if ignored is None else {key: value for key, value in configuration.items() if key not in ignored}
    return {"name": short, "configuration": kept}


def _transpose_codec(order: Sequence[int]) -> tuple[Codec, ...]:
    if list(order) == sorted(order):
        return ()
    return ({"name": "transpose", "configuration": {"order": list(order)}},)
