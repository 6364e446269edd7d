"""Floats from the integers that tile-compressed FITS images store in their place: scaled, and with dithering undone.

Subtractive dithering adds to each value, before it is rounded, a number from one fixed sequence, and subtracts it again
afterwards. Where in the sequence a tile begins follows from its row in the table of tiles.

References
----------
FITS Standard 4.0, section 10.2 and appendix I.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

#: Names of the methods, as the keyword ZQUANTIZ gives them.
NO_DITHER, DITHER_1, DITHER_2 = "NO_DITHER", "SUBTRACTIVE_DITHER_1", "SUBTRACTIVE_DITHER_2"
METHODS = (NO_DITHER, DITHER_1, DITHER_2)

#: Length of the sequence, the multiplier and modulus of its generator, and the last seed, by which it is checked.
RANDOMS, MULTIPLIER, MODULUS, LAST_SEED = 10_000, 16_807, 2_147_483_647, 1_043_618_065
#: The integer that stands for exactly zero with the second method.
ZERO = -2_147_483_646


@cache
def random_sequence() -> npt.NDArray[np.float32]:
    """Return the sequence of pseudo-random numbers in single precision, as appendix I defines it."""
    values = np.empty(RANDOMS, dtype=np.float32)
    seed = 1
    for place in range(RANDOMS):
        seed = MULTIPLIER * seed % MODULUS
        values[place] = seed / MODULUS
    assert seed == LAST_SEED
    values.flags.writeable = False
    return values


def dithering(row: int, count: int) -> npt.NDArray[np.float32]:
    """Return the numbers that were added to the values of a tile.

    Parameters
    ----------
    row
        Number of the tile's row in the table, from 1, plus ``ZDITHER0 - 1``.
    count
        Values in the tile.
    """
    sequence = random_sequence()
    start = (row - 1) % RANDOMS
    parts: list[npt.NDArray[np.float32]] = []
    missing = count
    while missing > 0:
        part = sequence[int(sequence[start] * np.float32(500)) :][:missing]
        parts.append(part)
        missing -= len(part)
        start = (start + 1) % RANDOMS
    return np.concatenate(parts) if parts else sequence[:0]


def dequantise(
    integers: npt.NDArray[Any], *, method: str, scale: float, zero: float, row: int, dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Return the floats that a tile's integers stand for.

    Parameters
    ----------
    integers
        As decompressed.
    method
        One of :data:`METHODS`.
    scale, zero
        Of this tile: the columns ZSCALE and ZZERO.
    row
        As for :func:`dithering`.
    dtype
        ``float32`` or ``float64``.

    Examples
    --------
    >>> quantised = np.array([0, 10], "i4")
    >>> dequantise(quantised, method="NO_DITHER", scale=0.5, zero=1.0, row=1, dtype=np.dtype("f4")).tolist()
    [1.0, 6.0]
    """
    if method == NO_DITHER:
        return (integers * np.float64(scale) + np.float64(zero)).astype(dtype)
    noise = dithering(row, integers.size).reshape(integers.shape)
    values = ((integers.astype(np.float64) - noise + 0.5) * scale + zero).astype(dtype)
    if method == DITHER_2:
        values[integers == ZERO] = 0
    return values
