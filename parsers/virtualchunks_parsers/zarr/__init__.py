"""Zarr stores, v2 and v3: :class:`ZarrParser`, and the metadata of Zarr for parsers of what refers to it."""

from virtualchunks_parsers.zarr.parser import ZarrParser

__all__ = ["ZarrParser"]
