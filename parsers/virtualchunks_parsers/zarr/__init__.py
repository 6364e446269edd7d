"""Zarr stores, v2 and v3: :class:`ZarrParser`, and the metadata of Zarr for parsers of what refers to it."""

from virtualchunks_parsers.zarr.parser import ZarrParser

#: The name of the same parser elsewhere, for archives.
ZippedZarrParser = ZarrParser

__all__ = ["ZarrParser", "ZippedZarrParser"]
