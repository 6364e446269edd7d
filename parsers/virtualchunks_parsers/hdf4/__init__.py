"""HDF4: scientific data sets."""

from virtualchunks_parsers.hdf4.parser import HDF4Parser

__all__ = ["HDF4Parser"]
