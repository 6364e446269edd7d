"""What notebooks show of an array of references: a table of facts beside a sketch of its chunk grid.

The sketch is inline SVG: cells are chunks, hatched where they are missing. It draws at most :data:`MOST` lines per axis
and takes its colours from the page, so that it reads on dark pages as on light ones. All text is escaped.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from virtualchunks.array import ManifestArray

#: The most cells that are drawn along an axis; beyond, neighbours are drawn as one.
MOST = 40
#: Length of the longest drawn axis, and the least of any, in pixels.
LONGEST, SHORTEST = 150.0, 24.0

#: Numbers for the patterns of sketches, since an id is unique in a page.
_NUMBERS = itertools.count()

_STYLE = (
    ".vc-array{display:flex;gap:1.5em;align-items:center}.vc-array svg{flex:none}"
    ".vc-array table{border-collapse:collapse;font-size:.92em;margin:0;color:inherit}"
    ".vc-array th,.vc-array td{text-align:left;padding:.15em .7em;border:0;background:none;color:inherit;"
    "vertical-align:top;max-width:34em;overflow-wrap:anywhere}"
    ".vc-array th{font-weight:600;opacity:.7;white-space:nowrap}"
    ".vc-array svg text{fill:currentColor;font:11px sans-serif}"
)


def array_html(array: ManifestArray) -> str:
    """Return the HTML of an array of references.

    Parameters
    ----------
    array
        The array.
    """
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in _facts(array)
    )
    return f'<div class="vc-array"><style>{_STYLE}</style><table><tbody>{rows}</tbody></table>{_sketch(array)}</div>'


def in_words(size: float) -> str:
    """Return a number of bytes as people write it.

    Examples
    --------
    >>> in_words(1_234_567)
    '1.2 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _facts(array: ManifestArray) -> list[tuple[str, str]]:
    metadata, manifest = array.metadata, array.manifest
    total = metadata.grid.size
    names = metadata.dimension_names or (None,) * array.ndim
    shape = " × ".join(
        f"{name}: {size:,}" if name else f"{size:,}" for name, size in zip(names, array.shape, strict=True)
    )
    if manifest.is_deferred:
        return [
            ("Array", f"ManifestArray, {array.dtype}"),
            ("Shape", shape or "a scalar"),
            ("Chunks", f"{array._chunks_text()}, {total:,} in all"),
            ("References", f"in {manifest.origin}, loaded when they are used"),
            ("Codecs", _codecs(metadata.codecs, ())),
        ]
    present = len(manifest)
    missing = f", {total - present:,} missing (read as {metadata.fill_value})" if present < total else ""
    stored = int(manifest.records["length"][manifest.present].sum(dtype=np.uint64)) if present else 0
    return [
        ("Array", f"ManifestArray, {array.dtype}"),
        ("Shape", shape or "a scalar"),
        ("Chunks", f"{array._chunks_text()}, {total:,} in all{missing}"),
        ("Sources", _sources(list(manifest.iter_nonempty_paths()), in_memory=bool(manifest.sources.buffers))),
        (
            "Bytes",
            f"{in_words(array.nbytes_virtual)} of references to {in_words(stored)}, {in_words(array.nbytes)} decoded",
        ),
        ("Codecs", _codecs(metadata.codecs, manifest.sources.encodings)),
    ]


def _sources(urls: list[str], *, in_memory: bool) -> str:
    held = ["chunks in memory"] if in_memory else []
    if not urls:
        return held[0] if held else "none"
    more = [f"{len(urls) - 1:,} more"] if len(urls) > 1 else []
    return " and ".join([urls[0], *more, *held])


def _codecs(own: Iterable[Any], others: tuple[Any, ...]) -> str:
    names = " → ".join(str(codec["name"]) for codec in own)
    return f"{names}, and {len(others)} other encodings" if others else names


def _sketch(array: ManifestArray) -> str:
    """Draw the last two axes, behind them the one before as a depth."""
    grid = array.metadata.grid
    if not grid.ndim or not grid.size or array.manifest.is_deferred:
        return ""
    present = np.atleast_2d(array.manifest.present)
    front = present.all(axis=tuple(range(present.ndim - 2)))
    axes = grid.axes[-2:] if grid.ndim > 1 else (None, grid.axes[0])
    deep = grid.axes[-3] if grid.ndim > 2 else None
    sizes = [1 if axis is None else max(axis.size, 1) for axis in axes]
    height, width = _lengths(sizes)
    depth = 0.0 if deep is None else min(LONGEST / 2, max(SHORTEST, LONGEST / 2 * deep.size / max(*sizes, deep.size)))
    rows, row_groups = _edges(axes[0], height)
    columns, column_groups = _edges(axes[1], width)
    cells = np.add.reduceat(np.add.reduceat(~front, row_groups, axis=0), column_groups, axis=1) > 0
    slant = depth * 0.6
    body = [_rectangles(rows, columns, cells, slant)]
    body.append(_grid_lines(rows, columns, slant))
    if deep is not None:
        body.append(_sides(_edges(deep, depth)[0], rows, columns, slant))
    labels = _labels(array, sizes, deep, (height, width, slant))
    identity = f"vc-missing-{next(_NUMBERS)}"
    total = width + slant + 70, height + slant + 24
    return (
        f'<svg width="{total[0]:.0f}" height="{total[1]:.0f}" role="img" aria-label="chunk grid">'
        f'<defs><pattern id="{identity}" width="5" height="5" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)">'
        '<line x1="0" y1="0" x2="0" y2="5" stroke="currentColor" stroke-opacity=".55"/></pattern></defs>'
        f'<g fill="#4c8dae" stroke="currentColor">{"".join(body)}</g>{labels}</svg>'
    ).replace("#missing", f"#{identity}")


def _lengths(sizes: list[int]) -> list[float]:
    """Return lengths in pixels that grow with the sizes, the shorter one still to be seen."""
    longest = max(sizes)
    return [max(SHORTEST, LONGEST * math.sqrt(size / longest)) for size in sizes]


def _edges(axis: Any, length: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return where the edges of the chunks are drawn along an axis, and the chunk that each drawn cell begins with."""
    if axis is None or not axis.size:
        return np.array([0.0, length]), np.array([0])
    starts = np.asarray(axis.starts)[: axis.count]
    groups = np.unique(np.linspace(0, axis.count, min(MOST, axis.count), endpoint=False).astype(np.intp))
    return np.append(starts[groups], axis.size) * (length / axis.size), groups


def _rectangles(
    rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64], missing: npt.NDArray[np.bool_], slant: float
) -> str:
    """Draw the face, and the cells with a missing chunk hatched."""
    width, height = columns[-1], rows[-1]
    face = f'<rect x="{slant:.1f}" y="{slant:.1f}" width="{width:.1f}" height="{height:.1f}" fill-opacity=".35"/>'
    hatched = [
        f'<rect x="{columns[j] + slant:.1f}" y="{rows[i] + slant:.1f}" width="{columns[j + 1] - columns[j]:.1f}" '
        f'height="{rows[i + 1] - rows[i]:.1f}" fill="url(#missing)" stroke="none"/>'
        for i, j in np.argwhere(missing).tolist()
    ]
    return face + "".join(hatched)


def _grid_lines(rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64], slant: float) -> str:
    width, height = columns[-1] + slant, rows[-1] + slant
    lines = [f"M{slant:.1f} {y + slant:.1f}H{width:.1f}" for y in rows[1:-1].tolist()]
    lines += [f"M{x + slant:.1f} {slant:.1f}V{height:.1f}" for x in columns[1:-1].tolist()]
    return f'<path d="{"".join(lines)}" fill="none" stroke-opacity=".45" stroke-width=".8"/>'


def _sides(
    layers: npt.NDArray[np.float64], rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64], slant: float
) -> str:
    """Draw the top and the left side of the block, cut where the chunks of the third axis are."""
    width, height = columns[-1], rows[-1]
    top = f"M0 0L{slant:.1f} {slant:.1f}H{width + slant:.1f}L{width:.1f} 0Z"
    left = f"M0 0L{slant:.1f} {slant:.1f}V{height + slant:.1f}L0 {height:.1f}Z"
    cuts = [
        f"M{at:.1f} {height + at:.1f}V{at:.1f}H{width + at:.1f}" for at in (layers[1:-1] / layers[-1] * slant).tolist()
    ]
    return (
        f'<path d="{top}" fill-opacity=".2"/><path d="{left}" fill-opacity=".5"/>'
        f'<path d="{"".join(cuts)}" fill="none" stroke-opacity=".45" stroke-width=".8"/>'
    )


def _labels(array: ManifestArray, sizes: list[int], deep: Any, lengths: tuple[float, float, float]) -> str:
    """Write the lengths of the drawn axes beside them."""
    height, width, slant = lengths
    middle = slant + width / 2
    text = [f'<text x="{middle:.0f}" y="{height + slant + 16:.0f}" text-anchor="middle">{sizes[1]:,}</text>']
    if array.ndim > 1:
        text.append(f'<text x="{width + slant + 6:.0f}" y="{slant + height / 2 + 4:.0f}">{sizes[0]:,}</text>')
    if deep is not None:
        text.append(f'<text x="{width + slant / 2 + 8:.0f}" y="{slant / 2 + 2:.0f}">{deep.size:,}</text>')
    if array.ndim > 3:
        rest = " × ".join(f"{size:,}" for size in array.shape[:-3])
        text.append(f'<text x="0" y="{height + slant + 16:.0f}">{rest} ×</text>')
    return "".join(text)
