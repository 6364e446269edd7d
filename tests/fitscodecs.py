"""Makes the codecs of FITS files known to zarr where the package installed is older than the tree under test."""

from __future__ import annotations

from zarr.errors import UnknownCodecError
from zarr.registry import get_codec_class, register_codec

from virtualchunks.codecs import fits_columns, fits_tile, offset_binary, strided

CODECS = {
    fits_columns.BITS: fits_columns.FITSBits,
    fits_columns.LOGICAL: fits_columns.FITSLogical,
    fits_columns.TEXT: fits_columns.FITSText,
    fits_tile.NAME: fits_tile.FITSTile,
    offset_binary.NAME: offset_binary.OffsetBinary,
    strided.NAME: strided.Strided,
}


def register() -> None:
    """Register those that no entry point has."""
    for name, codec in CODECS.items():
        try:
            get_codec_class(name)
        except (UnknownCodecError, KeyError):
            register_codec(name, codec)
