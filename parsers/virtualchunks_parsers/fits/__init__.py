"""FITS: images, tables, and tile-compressed images."""

from virtualchunks_parsers.fits.parser import FITSParser

__all__ = ["FITSParser"]
