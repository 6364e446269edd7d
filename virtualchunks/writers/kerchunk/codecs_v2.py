"""Zarr v3 codecs as the filters and the compressor of Zarr v2 metadata, which name numcodecs' codecs.

Specification: https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html#metadata and numcodecs' ``get_config``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from virtualchunks.encoding import ChunkEncoding, in_order
from virtualchunks.errors import UnsupportedFeatureError

Config = dict[str, Any]

_BLOSC_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_ADVICE = "; write with zarr_format=3 (JSON), or to Icechunk, which keep Zarr v3 codecs as they are"


class CodecsV2(NamedTuple):
    """What ``.zarray`` says of an encoding.

    Parameters
    ----------
    order
        ``"C"`` or ``"F"``.
    filters, compressor
        numcodecs' configurations, or ``None``.
    """

    order: str
    filters: list[Config] | None
    compressor: Config | None


def codecs_v2(encoding: ChunkEncoding, ndim: int, variable: str) -> CodecsV2:
    """Return the Zarr v2 form of an encoding.

    Parameters
    ----------
    encoding
        The encoding of all chunks of an array.
    ndim
        Number of dimensions of the array.
    variable
        Its path, for messages.

    Raises
    ------
    UnsupportedFeatureError
        If Zarr v2 has no codec that decodes alike.

    Examples
    --------
    >>> codecs_v2(ChunkEncoding.plain("<f4", [{"name": "gzip", "configuration": {"level": 5}}]), 2, "v")
    CodecsV2(order='C', filters=None, compressor={'id': 'gzip', 'level': 5})
    """
    codecs = list(encoding.codecs)
    order = "C"
    if codecs[0]["name"] == "transpose":
        order = _order(codecs.pop(0)["configuration"]["order"], ndim, variable)
    place = _place_of_serializer(codecs, encoding, variable)
    before, serializer, after = codecs[:place], codecs[place], codecs[place + 1 :]
    if before and in_order(encoding.dtype, "=") != encoding.dtype:
        raise UnsupportedFeatureError(
            f"{variable!r} is filtered and then stored in the byte order {encoding.dtype.byteorder!r}, which Zarr v2 "
            f"cannot say{_ADVICE}",
            variable=variable,
        )
    middle = _SERIALIZERS[serializer["name"]](serializer)
    chain = [_convert(codec, variable) for codec in before] + middle + [_convert(codec, variable) for codec in after]
    compressor = chain.pop() if after else None
    return CodecsV2(order, chain or None, compressor)


def _order(order: Sequence[int], ndim: int, variable: str) -> str:
    if list(order) == list(range(ndim)):
        return "C"
    if list(order) == list(reversed(range(ndim))):
        return "F"
    raise UnsupportedFeatureError(
        f"the chunks of {variable!r} are stored with their axes in the order {tuple(order)}; Zarr v2 knows only C and "
        f"F order{_ADVICE}",
        variable=variable,
    )


def _place_of_serializer(codecs: Sequence[Mapping[str, Any]], encoding: ChunkEncoding, variable: str) -> int:
    for place, codec in enumerate(codecs):
        if codec["name"] in _SERIALIZERS:
            return place
    raise _unknown(codecs[0]["name"], variable)


def _config(codec: Mapping[str, Any]) -> Mapping[str, Any]:
    configuration: Mapping[str, Any] = codec.get("configuration") or {}
    return configuration


def _numcodec(codec: Mapping[str, Any]) -> Config:
    return {"id": codec["name"].removeprefix("numcodecs."), **_config(codec)}


def _blosc(codec: Mapping[str, Any]) -> Config:
    given = _config(codec)
    shuffle = given.get("shuffle", "shuffle")
    return {
        "id": "blosc",
        "cname": given.get("cname", "zstd"),
        "clevel": given.get("clevel", 5),
        "shuffle": _BLOSC_SHUFFLES.get(shuffle, shuffle),
        "blocksize": given.get("blocksize", 0),
    }


#: Codecs that turn arrays into bytes, and the v2 filters that do so. Plain bytes are the dtype's own business.
_SERIALIZERS: dict[str, Callable[[Mapping[str, Any]], list[Config]]] = {
    "bytes": lambda codec: [],
    "vlen-utf8": lambda codec: [{"id": "vlen-utf8"}],
    "vlen-bytes": lambda codec: [{"id": "vlen-bytes"}],
    "numcodecs.pcodec": lambda codec: [_numcodec(codec)],
    "numcodecs.zfpy": lambda codec: [_numcodec(codec)],
}

#: All other codecs, by v3 name.
_CODECS: dict[str, Callable[[Mapping[str, Any]], Config]] = {
    "blosc": _blosc,
    "crc32c": lambda codec: {"id": "crc32c", "location": "end"},
    "gzip": lambda codec: {"id": "gzip", "level": _config(codec).get("level", 5)},
    "zstd": lambda codec: {"id": "zstd", "level": _config(codec).get("level", 0)},
    **dict.fromkeys(
        (
            f"numcodecs.{name}"
            for name in (
                *("adler32", "astype", "bitround", "blosc", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset"),
                *(
                    "fletcher32",
                    "gzip",
                    "jenkins_lookup3",
                    "lz4",
                    "lzma",
                    "packbits",
                    "quantize",
                    "shuffle",
                    "zlib",
                    "zstd",
                ),
            )
        ),
        _numcodec,
    ),
}


def _convert(codec: Mapping[str, Any], variable: str) -> Config:
    name = codec["name"]
    if name.startswith("imagecodecs_"):
        return _numcodec(codec)
    if name not in _CODECS:
        raise _unknown(name, variable)
    return _CODECS[name](codec)


def _unknown(name: str, variable: str) -> UnsupportedFeatureError:
    known = ", ".join([*_SERIALIZERS, *_CODECS])
    return UnsupportedFeatureError(
        f"the codec {name!r} of {variable!r} has no form in Zarr v2 metadata{_ADVICE}. Codecs that have one: {known}",
        variable=variable,
    )
