"""Image HDUs: one contiguous array of big-endian numbers.

References
----------
FITS Standard 4.0, sections 3.3.2, 5 and 7.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.sources import SourceTable
from virtualchunks_parsers.fits.hdus import HDU, MOST_AXES
from virtualchunks_parsers.fits.layout import Shell, axis_names
from virtualchunks_parsers.fits.packing import Packing, image_attributes

#: Types of numbers by BITPIX, in native byte order.
TYPES: dict[int, np.dtype[Any]] = {
    8: np.dtype("u1"),
    16: np.dtype("i2"),
    32: np.dtype("i4"),
    64: np.dtype("i8"),
    -32: np.dtype("f4"),
    -64: np.dtype("f8"),
}


def image(hdu: HDU, name: str, sources: SourceTable) -> ManifestArray:
    """Return the array of an image.

    Raises
    ------
    UnsupportedFeatureError
        If it is made of groups, or has more axes than arrays can have.
    """
    header = hdu.header
    if header.get("GROUPS") is True and hdu.axes[0] == 0:
        raise UnsupportedFeatureError("random groups, which are neither an image nor a table")
    if header.integer("PCOUNT", 0) or header.integer("GCOUNT", 1) != 1:
        raise UnsupportedFeatureError("an image with parameters or in groups (PCOUNT, GCOUNT)")
    if len(hdu.axes) > MOST_AXES:
        raise UnsupportedFeatureError(f"{len(hdu.axes)} axes; arrays can have {MOST_AXES}")
    blank = header.get("BLANK")
    packing = Packing.of(
        TYPES[header["BITPIX"]],
        scale=header.number("BSCALE", 1),
        zero=header.number("BZERO", 0),
        blank=blank if isinstance(blank, int) else None,
    )
    shape = hdu.axes[::-1]
    shell = Shell(axis_names(name, len(shape)), image_attributes(header, packing))
    return shell.contiguous(sources, shape, packing.dtype.newbyteorder(">"), packing.codecs(), hdu.offset)
