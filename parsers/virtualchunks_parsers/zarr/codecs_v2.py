"""The filters and compressors of Zarr v2, which are numcodecs' codecs, as Zarr v3 codecs.

Specification: https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html#metadata and numcodecs' ``get_config``. What is
not in the tables of this module is refused by name: a document never chooses which code is run beyond them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from virtualchunks.encoding import ChunkEncoding, bytes_codec, in_order
from virtualchunks.errors import FormatError, UnsupportedFeatureError

Codec = dict[str, Any]
Config = Mapping[str, Any]

_BLOSC_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")


@dataclass
class _Chain:
    """v3 codecs in the making, and the dtype that the last of them gives out; ``None`` once it is bytes."""

    dtype: np.dtype[Any] | None
    codecs: list[Codec] = field(default_factory=list)

    def serialise(self) -> None:
        """Turn the array into bytes, if it is not bytes yet."""
        if self.dtype is not None:
            self.codecs.append(bytes_codec(self.dtype))
            self.dtype = None

    def array(self, name: str) -> np.dtype[Any]:
        """Return the dtype that an array-to-array codec is given."""
        if self.dtype is None:
            raise UnsupportedFeatureError(
                f"the filter {name!r} comes after one that makes bytes, an order which Zarr v3 has no form for"
            )
        return self.dtype


def encoding_v2(
    dtype: np.dtype[Any], order: str, filters: Sequence[Config] | None, compressor: Config | None, ndim: int
) -> ChunkEncoding:
    """Return the encoding that ``.zarray`` describes.

    Parameters
    ----------
    dtype
        dtype of the array, with its byte order; that of objects where a filter makes bytes of them.
    order
        ``"C"`` or ``"F"``.
    filters, compressor
        numcodecs' configurations.
    ndim
        Number of dimensions.

    Raises
    ------
    UnsupportedFeatureError
        If a filter, or their order, has no exact counterpart among Zarr v3 codecs.

    Examples
    --------
    >>> encoding_v2(np.dtype(">i2"), "F", None, {"id": "zlib", "level": 1}, 2)
    <ChunkEncoding >i2 transpose → bytes → numcodecs.zlib>
    """
    if order not in ("C", "F"):
        raise FormatError(f"the order of a Zarr v2 array is 'C' or 'F', found {order!r}")
    chain = _Chain(dtype)
    if order == "F" and ndim > 1:
        chain.codecs.append({"name": "transpose", "configuration": {"order": list(reversed(range(ndim)))}})
    for config in (*(filters or ()), *(() if compressor is None else (compressor,))):
        _add(chain, config)
    if dtype.kind in "TO" and chain.dtype is not None:
        raise UnsupportedFeatureError("an array of objects without a filter that says how they are stored")
    chain.serialise()
    return ChunkEncoding(_stored(dtype, chain.codecs), tuple(chain.codecs))


def _stored(dtype: np.dtype[Any], codecs: Sequence[Codec]) -> np.dtype[Any]:
    """Return the dtype in the byte order of the codec that makes bytes."""
    for codec in codecs:
        if codec["name"] == "bytes":
            return in_order(dtype, ">" if codec.get("configuration", {}).get("endian") == "big" else "<")
    return in_order(dtype, "=")


def _add(chain: _Chain, config: Config) -> None:
    name = config.get("id")
    if not isinstance(name, str):
        raise FormatError(f"a filter or compressor is an object with an 'id', found {config!r}")
    if name not in _CODECS:
        reason = _REFUSED.get(name, f"known are {', '.join(sorted(_CODECS))}")
        raise UnsupportedFeatureError(f"the Zarr v2 filter or compressor {name!r} cannot be represented: {reason}")
    _CODECS[name](chain, name, {key: value for key, value in config.items() if key != "id"})


def _on_bytes(chain: _Chain, name: str, config: dict[str, Any]) -> None:
    chain.serialise()
    chain.codecs.append({"name": f"numcodecs.{name}", "configuration": config})


def _gzip(chain: _Chain, name: str, config: dict[str, Any]) -> None:
    chain.serialise()
    chain.codecs.append({"name": "gzip", "configuration": {"level": config.get("level", 1)}})


def _zstd(chain: _Chain, name: str, config: dict[str, Any]) -> None:
    chain.serialise()
    checksum = bool(config.get("checksum", False))
    chain.codecs.append({"name": "zstd", "configuration": {"level": config.get("level", 1), "checksum": checksum}})


def _blosc(chain: _Chain, name: str, config: dict[str, Any]) -> None:
    """The blocks of Blosc say themselves how they are compressed: what is written here, only encoders use."""
    itemsize = max(1, chain.dtype.itemsize) if chain.dtype is not None and chain.dtype.kind not in "TO" else 1
    chain.serialise()
    shuffle = config.get("shuffle", 1)
    if shuffle not in (-1, 0, 1, 2):
        raise FormatError(f"the shuffle of Blosc is -1, 0, 1 or 2, found {shuffle!r}")
    chosen = _BLOSC_SHUFFLES[shuffle] if shuffle >= 0 else ("bitshuffle" if itemsize == 1 else "shuffle")
    configuration = {
        "cname": config.get("cname", "lz4"),
        "clevel": config.get("clevel", 5),
        "shuffle": chosen,
        "typesize": min(itemsize, 255),
        "blocksize": config.get("blocksize", 0),
    }
    chain.codecs.append({"name": "blosc", "configuration": configuration})


def _shuffle(chain: _Chain, name: str, config: dict[str, Any]) -> None:
    _on_bytes(chain, name, {"elementsize": config.get("elementsize", 4)})


def _dtype(config: Mapping[str, Any], key: str, name: str) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(config[key])
    except (TypeError, ValueError) as error:
        raise FormatError(f"the {key} of the filter {name!r} is no dtype: {config[key]!r}") from error
    return dtype


def _numbers(chain: _Chain, name: str, config: dict[str, Any], decoded: str, encoded: str) -> None:
    """A filter from numbers to numbers, which names the dtypes on its two sides.

    In Zarr v2 they carry the byte order; in v3 that is for the codec behind to say.
    """
    given = chain.array(name)
    before = _dtype(config, decoded, name) if config.get(decoded) is not None else given
    after = _dtype(config, encoded, name) if config.get(encoded) is not None else before
    if before != given or given.kind not in "iufcb":
        raise UnsupportedFeatureError(f"the filter {name!r} of {before} is applied to elements of the dtype {given}")
    native = {decoded: in_order(before, "=").str, encoded: in_order(after, "=").str}
    chain.codecs.append({"name": f"numcodecs.{name}", "configuration": {**config, **native}})
    chain.dtype = after


def _same_dtype(chain: _Chain, name: str, config: dict[str, Any]) -> None:
    chain.array(name)
    chain.codecs.append({"name": f"numcodecs.{name}", "configuration": config})


def _packbits(chain: _Chain, name: str, config: dict[str, Any]) -> None:
    if chain.array(name) != np.dtype(bool):
        raise UnsupportedFeatureError("the filter 'packbits' is applied to elements that are not booleans")
    chain.codecs.append({"name": "numcodecs.packbits", "configuration": {}})
    chain.dtype = np.dtype("u1")


def _variable_length(chain: _Chain, name: str, config: dict[str, Any]) -> None:
    if chain.array(name).kind not in "TO":
        raise UnsupportedFeatureError(f"the filter {name!r} is applied to elements of fixed length")
    chain.codecs.append({"name": name, "configuration": {}})
    chain.dtype = None


def _array_to_bytes(chain: _Chain, name: str, config: dict[str, Any]) -> None:
    given = chain.array(name)
    if in_order(given, "=") != given or given.kind not in "iuf":
        raise UnsupportedFeatureError(f"the compressor {name!r} is applied to elements of the dtype {given}")
    chain.codecs.append({"name": f"numcodecs.{name}", "configuration": config})
    chain.dtype = None


_CODECS: dict[str, Callable[[_Chain, str, dict[str, Any]], None]] = {
    "astype": lambda chain, name, config: _numbers(chain, name, config, "decode_dtype", "encode_dtype"),
    "bitround": _same_dtype,
    "blosc": _blosc,
    "delta": lambda chain, name, config: _numbers(chain, name, config, "dtype", "astype"),
    "fixedscaleoffset": lambda chain, name, config: _numbers(chain, name, config, "dtype", "astype"),
    "gzip": _gzip,
    "packbits": _packbits,
    "pcodec": _array_to_bytes,
    "quantize": lambda chain, name, config: _numbers(chain, name, config, "dtype", "astype"),
    "shuffle": _shuffle,
    "vlen-bytes": _variable_length,
    "vlen-utf8": _variable_length,
    "zfpy": _array_to_bytes,
    "zstd": _zstd,
    **dict.fromkeys(
        ("adler32", "bz2", "crc32", "crc32c", "fletcher32", "jenkins_lookup3", "lz4", "lzma", "zlib"), _on_bytes
    ),
}

_REFUSED = {
    "pickle": "unpickling runs whatever code the data holds",
    "json2": "no Zarr v3 codec stores Python objects as JSON",
    "msgpack2": "no Zarr v3 codec stores Python objects as MessagePack",
    "categorize": "no Zarr v3 codec stores categories",
    "vlen-array": "no Zarr v3 data type holds arrays of variable length",
    "grib": "open the GRIB file itself with GRIBParser",
}
