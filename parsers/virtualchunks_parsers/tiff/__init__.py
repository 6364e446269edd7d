"""TIFF, GeoTIFF and OME-TIFF files → virtual chunks.

:class:`TIFFParser` reads a file's directories with code of our own, in few requests, and returns references to its
strips and tiles. Which module does what, in the order of reading: :mod:`~virtualchunks_parsers.tiff.structure` reads
directories, :mod:`~virtualchunks_parsers.tiff.tree` finds which image belongs to which,
:mod:`~virtualchunks_parsers.tiff.image` says how an image is stored and where its bytes are,
:mod:`~virtualchunks_parsers.tiff.geo` and :mod:`~virtualchunks_parsers.tiff.describe` what its values mean, and
:mod:`~virtualchunks_parsers.tiff.build` makes arrays of it all.
"""

from virtualchunks_parsers.tiff.parser import TIFFParser

__all__ = ["TIFFParser"]
