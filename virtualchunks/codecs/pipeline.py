"""Running codecs: blocks of values to the bytes of a chunk, and back.

The one place outside zarr itself where codecs are run. zarr is imported when a function is called.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from virtualchunks.codecs.inflating import MOST_UNKNOWN, STREAM_ERRORS, Room, decompressor
from virtualchunks.encoding import ChunkEncoding, Codec, in_order
from virtualchunks.errors import DecodeError, MissingDependencyError, UnsupportedFeatureError, VirtualChunksError
from virtualchunks.metadata import dtype_to_json

#: Compressors that give up Python's lock while they work.
_UNLOCKED = frozenset({"gzip", "zlib", "zstd", "blosc", "bz2", "lzma", "lz4"})
#: Held while codecs are looked up: the registry of zarr imports them then, which threads must not do side by side.
_BUILDING = threading.RLock()
_ORDERS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}


def decode_block(data: Any, encoding: ChunkEncoding, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Decode the bytes of one chunk.

    Parameters
    ----------
    data
        The bytes, as anything with the buffer protocol.
    encoding
        How they decode.
    shape
        The chunk's nominal shape, used where the encoding has none of its own.

    Returns
    -------
    numpy.ndarray
        The block, of the encoding's shape and of its dtype in native byte order.

    Raises
    ------
    DecodeError
        If the bytes do not decode to a block of that shape.
    MissingDependencyError
        If a codec is not installed.
    """
    decoded_shape = encoding.shape if encoding.shape is not None else shape
    chain = _chain(encoding, decoded_shape)
    try:
        block = chain.decode(data)
    except (ValueError, TypeError, RuntimeError, LookupError, EOFError, OSError, *STREAM_ERRORS) as error:
        if isinstance(error, DecodeError | MissingDependencyError):
            raise
        raise DecodeError(f"{len(memoryview(data))} bytes do not decode with {encoding!r}: {error}") from error
    except MemoryError as error:
        raise DecodeError(
            f"{len(memoryview(data))} bytes ask {encoding!r} for more memory than there is: the shape of the chunk is "
            f"{decoded_shape}, so either they are damaged or it is"
        ) from error
    if block.shape != decoded_shape:
        raise DecodeError(f"the bytes decode to the shape {block.shape}, expected {decoded_shape}")
    return block


def encode_block(block: npt.NDArray[Any], encoding: ChunkEncoding) -> bytes:
    """Encode one block as the bytes of a chunk.

    Parameters
    ----------
    block
        Values of the whole chunk.
    encoding
        How its bytes shall decode.

    Raises
    ------
    UnsupportedFeatureError
        If a codec of the encoding can decode only.
    """
    chain = _chain(encoding, block.shape)
    try:
        return chain.encode(np.ascontiguousarray(block, dtype=in_order(encoding.dtype, "=")))
    except NotImplementedError as error:
        raise UnsupportedFeatureError(f"values cannot be encoded with {encoding!r}: {error}") from error


def check_encoding(encoding: ChunkEncoding, shape: tuple[int, ...]) -> None:
    """Raise where the codecs of an encoding cannot be put together for blocks of a shape; nothing is run.

    Parameters
    ----------
    encoding
        The encoding, perhaps out of a document.
    shape
        Shape of the blocks.

    Raises
    ------
    UnsupportedFeatureError
        If a codec refuses its parameters, the dtype, or its place among the others.
    MissingDependencyError
        If a codec is not installed.
    """
    try:
        _chain(encoding, encoding.shape if encoding.shape is not None else shape)
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError) as error:
        if isinstance(error, VirtualChunksError):
            raise
        raise UnsupportedFeatureError(f"the codecs of {encoding!r} cannot be used: {error}") from error


def leaves_threads_running(encoding: ChunkEncoding) -> bool:
    """Return whether other threads run while most of the work of decoding is done.

    Examples
    --------
    >>> leaves_threads_running(ChunkEncoding.plain("<f4", [{"name": "gzip", "configuration": {"level": 1}}]))
    True
    """
    return any(codec["name"].removeprefix("numcodecs.") in _UNLOCKED for codec in encoding.codecs)


@lru_cache(maxsize=256)
def _chain(encoding: ChunkEncoding, shape: tuple[int, ...]) -> _Chain:
    with _BUILDING:
        return _Chain(encoding, shape)


class _Chain:
    """Codecs of one encoding, made ready for blocks of one shape."""

    def __init__(self, encoding: ChunkEncoding, shape: tuple[int, ...]) -> None:
        import zarr  # noqa: F401 - waits for a thread that is importing zarr, and has not registered codecs yet
        from zarr.core.array_spec import ArrayConfig, ArraySpec
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.dtype import get_data_type_from_json

        data_type = get_data_type_from_json(dtype_to_json(encoding.dtype), zarr_format=3)
        self._prototype = default_buffer_prototype()
        spec = ArraySpec(
            shape=shape,
            dtype=data_type,
            fill_value=data_type.default_scalar(),
            config=ArrayConfig(order="C", write_empty_chunks=True),
            prototype=self._prototype,
        )
        self._steps: list[tuple[Any, ArraySpec]] = []
        for document in encoding.codecs:
            codec = _codec(document).evolve_from_array_spec(spec)
            self._steps.append((codec, spec))
            spec = codec.resolve_metadata(spec)
        self._decoding = self._steps[:]
        self._unpackers: list[Callable[[Any], Any]] = []
        rooms = _rooms(encoding.codecs, self._steps)
        while self._decoding:
            at = len(self._decoding) - 1
            unpack = _unpacker(encoding.codecs[at], self._decoding[at][0], rooms[at])
            if unpack is None:
                break
            self._unpackers.append(unpack)
            self._decoding.pop()
        self._view = _plain_elements(encoding, len(self._decoding)), shape

    def decode(self, data: Any) -> npt.NDArray[Any]:
        value: Any = data
        for unpack in self._unpackers:
            value = unpack(value)
        dtype, shape = self._view
        if dtype is not None:
            elements = np.frombuffer(value, dtype=dtype).reshape(shape)
            return elements if dtype.isnative else elements.astype(dtype.newbyteorder("="))
        value = self._prototype.buffer.from_bytes(value)
        for codec, spec in reversed(self._decoding):
            value = _run(codec, "decode", value, spec)
        block: npt.NDArray[Any] = value.as_numpy_array()
        if block.dtype.byteorder not in "=|":
            return block.astype(block.dtype.newbyteorder("="))
        return block

    def encode(self, block: npt.NDArray[Any]) -> bytes:
        value: Any = self._prototype.nd_buffer.from_numpy_array(block)
        for codec, spec in self._steps:
            value = _run(codec, "encode", value, spec)
        data: bytes = value.to_bytes()
        return data


def _rooms(documents: Sequence[Codec], steps: Sequence[tuple[Any, Any]]) -> list[Room]:
    """Return how many bytes may come out of each codec when it decodes."""
    rooms: list[Room] = []
    for at in range(len(steps)):
        before = documents[at - 1]["name"] if at else None
        if before == "bytes":
            spec = steps[at - 1][1]
            elements = math.prod(spec.shape) * spec.dtype.to_native_dtype().itemsize
            rooms.append(Room(elements, is_exact=True))
        elif before == "numcodecs.shuffle":
            rooms.append(rooms[-1])
        else:
            rooms.append(rooms[-1].before() if rooms else Room(MOST_UNKNOWN))
    return rooms


def _unpacker(document: Codec, codec: Any, room: Room) -> Callable[[Any], Any] | None:
    """Return the function with which a codec decodes bytes to bytes, where that needs no buffer of zarr's."""
    name = document["name"]
    if not type(codec).__module__.startswith("zarr.codecs"):
        return None
    if name == "numcodecs.shuffle":
        import numcodecs

        return partial(_unshuffled, numcodecs.Shuffle(codec.codec_config["elementsize"]))
    decode = decompressor(name, getattr(codec, "codec_config", {}))
    return None if decode is None else lambda data: decode(data, room)


def _unshuffled(codec: Any, data: Any) -> Any:
    """Return bytes in the order of elements, which came as all first bytes, all second bytes and so on."""
    planes = np.frombuffer(data, dtype=np.uint8)
    if codec.elementsize <= 1:
        return planes
    if planes.size % codec.elementsize:
        raise ValueError(f"{planes.size} bytes are not shuffled elements of {codec.elementsize} bytes")
    return codec.decode(planes)


def _plain_elements(encoding: ChunkEncoding, steps: int) -> np.dtype[Any] | None:
    """Return the dtype of the stored elements, where the first steps of an encoding do nothing but store these."""
    document = encoding.codecs[0]
    order = _ORDERS.get(document.get("configuration", {}).get("endian"))
    if steps != 1 or document["name"] != "bytes" or encoding.dtype.kind not in "biufcmM":
        return None
    if order is None:
        return encoding.dtype if encoding.dtype.itemsize == 1 else None
    return encoding.dtype.newbyteorder(order)


def _codec(document: Mapping[str, Any]) -> Any:
    from zarr.errors import UnknownCodecError
    from zarr.registry import get_codec_class

    try:
        return get_codec_class(document["name"]).from_dict(dict(document))
    except (UnknownCodecError, ImportError) as error:
        raise MissingDependencyError(
            f"the codec {document['name']!r} is not installed; 'pip install \"virtualchunks[all]\"' brings those that "
            "virtualchunks uses"
        ) from error


def _run(codec: Any, direction: str, value: Any, spec: Any) -> Any:
    """Run one codec on one chunk, without an event loop where the codec has a synchronous form."""
    synchronous = getattr(codec, f"_{direction}_sync", None)
    if synchronous is not None:
        return synchronous(value, spec)
    from zarr.core.sync import sync

    return next(iter(sync(getattr(codec, direction)([(value, spec)]))))
