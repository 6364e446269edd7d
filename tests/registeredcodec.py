"""Codecs of this tree for zarr, where what is installed is another tree."""

from __future__ import annotations

from zarr.abc.codec import Codec
from zarr.errors import UnknownCodecError
from zarr.registry import get_codec_class, register_codec


def ensure_registered(name: str, codec: type[Codec]) -> None:
    """Register a codec unless its entry point did."""
    try:
        get_codec_class(name)
    except UnknownCodecError:
        register_codec(name, codec)
