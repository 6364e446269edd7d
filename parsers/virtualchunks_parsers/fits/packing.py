"""What stored numbers mean: scale and zero point, unsigned integers, undefined values, and the attributes of headers.

References
----------
FITS Standard 4.0, sections 4.4.2.5 (images), 5.2.5 (unsigned integers) and 7.3.2 (columns).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from virtualchunks.codecs import offset_binary
from virtualchunks.encoding import Codec, bytes_codec
from virtualchunks_parsers.fits.cards import Header

#: For each type that stands for the integers of the other signedness: the zero point that says so, and their type.
OFFSET_BINARY: dict[np.dtype[Any], tuple[int, np.dtype[Any]]] = {
    np.dtype("u1"): (-(2**7), np.dtype("i1")),
    np.dtype("i2"): (2**15, np.dtype("u2")),
    np.dtype("i4"): (2**31, np.dtype("u4")),
    np.dtype("i8"): (2**63, np.dtype("u8")),
}

#: Keywords that describe the file and not the data; what they say is in the shape, the dtype and the references.
STRUCTURE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BLOCKED|END|CONTINUE|LONGSTRN"
    r"|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM"
)
TABLE_STRUCTURE = re.compile(r"TFIELDS|THEAP|(?:TTYPE|TFORM|TUNIT|TNULL|TSCAL|TZERO|TDIM|TBCOL)\d+")
TILE_STRUCTURE = re.compile(
    r"Z(?:IMAGE|SIMPLE|EXTEND|BLOCKED|TENSION|BITPIX|NAXIS\d*|TILE\d+|PCOUNT|GCOUNT|CMPTYPE|NAME\d+|VAL\d+|QUANTIZ"
    r"|DITHER0|BLANK|MASKCMP|HECKSUM|DATASUM|SCALE|ZERO)"
)


@dataclass(frozen=True)
class Packing:
    """How stored numbers become the values of an array.

    Attributes
    ----------
    dtype
        The values' type, in native byte order.
    before
        Codecs that stand before the one that makes bytes of the array.
    attributes
        ``scale_factor``, ``add_offset`` and ``_FillValue``, as far as they apply.
    """

    dtype: np.dtype[Any]
    before: tuple[Codec, ...]
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, stored: np.dtype[Any], *, scale: float = 1, zero: float = 0, blank: int | None = None) -> Packing:
        """Return the packing that a scale, a zero point and a value for "undefined" make.

        Parameters
        ----------
        stored
            Type of the stored numbers, in native byte order.
        scale, zero
            BSCALE and BZERO, or TSCALn and TZEROn.
        blank
            BLANK, ZBLANK or TNULLn: a stored number.

        Examples
        --------
        >>> packing = Packing.of(np.dtype("i2"), zero=32768, blank=-1)
        >>> packing.dtype, packing.attributes
        (dtype('uint16'), {'_FillValue': np.uint16(32767)})
        """
        convention = OFFSET_BINARY.get(stored)
        if convention is not None and scale == 1 and zero == convention[0]:
            attributes = _fill(convention[1], None if blank is None else blank + convention[0])
            return cls(convention[1], ({"name": offset_binary.NAME},), attributes)
        attributes = {} if stored.kind not in "iu" else _fill(stored, blank)
        if scale != 1 or zero != 0:
            attributes |= {"scale_factor": scale, "add_offset": zero}
        return cls(stored, (), attributes)

    def codecs(self) -> tuple[Codec, ...]:
        """Return the codecs of plain big-endian numbers."""
        return (*self.before, bytes_codec(self.dtype.newbyteorder(">")))


def _fill(dtype: np.dtype[Any], value: int | None) -> dict[str, Any]:
    """Return the attribute for undefined values; a number out of range stands for none."""
    if value is None or not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        return {}
    return {"_FillValue": dtype.type(value)}


def attributes_of(header: Header, *structure: re.Pattern[str]) -> dict[str, Any]:
    """Return the cards of a header that are not structure."""
    patterns = (STRUCTURE, *structure)
    return {key: value for key, value in header.items() if not any(pattern.fullmatch(key) for pattern in patterns)}


def image_attributes(header: Header, packing: Packing, *structure: re.Pattern[str]) -> dict[str, Any]:
    """Return the attributes of an image: its cards, its packing, and ``units`` from BUNIT."""
    units = header.get("BUNIT")
    named = {"units": units} if isinstance(units, str) and units else {}
    return {**attributes_of(header, *structure), **named, **packing.attributes}


def unique(name: str, taken: Iterable[str], spare: str) -> str:
    """Return a name that Zarr allows and no other member has.

    Parameters
    ----------
    name
        As the file has it; slashes become underscores.
    taken
        Names of other members.
    spare
        What distinguishes it, if it is empty or taken.

    Examples
    --------
    >>> unique("A/B", [], "3"), unique("SCI", ["SCI"], "3"), unique("", [], "3")
    ('A_B', 'SCI_3', '3')
    """
    known = set(taken)
    made = name.strip().replace("/", "_")
    if not made or set(made) == {"."} or made.startswith("__"):
        made = f"{spare}{made}"
    if made in known:
        made = f"{made}_{spare}"
    while made in known:
        made += "_"
    return made
