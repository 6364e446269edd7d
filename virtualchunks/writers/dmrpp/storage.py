"""Where the values of a variable are, in the words of DMR++: filters, fill values, chunks, and values in the document.

References
----------
DMR++ documentation and schema of the OPeNDAP BES, elements ``chunks``, ``chunk``, ``compact`` and ``vlsa``.
"""

from __future__ import annotations

import base64
import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement
from xml.sax.saxutils import quoteattr

import numpy as np

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding, Codec, byte_order, in_order
from virtualchunks.errors import LimitExceededError, UnsupportedFeatureError
from virtualchunks.writers.dmrpp.attributes import number_text
from virtualchunks.writers.dmrpp.elements import is_legal
from virtualchunks.writers.layout import StoredArray, blocks

#: Filters by the codecs that they are.
FILTERS: Mapping[str, str] = {
    "numcodecs.shuffle": "shuffle",
    "numcodecs.zlib": "deflate",
    "numcodecs.fletcher32": "fletcher32",
}
PADDING = "virtualchunks.text_padding"
#: Bytes of one array that a document holds itself.
MOST_HELD = 64 << 20
#: Chunks that are written at a time.
BLOCK = 8192
#: Digits of floats in fill values: so many are read as they stand, and fewer as a rounding.
DIGITS = 17


@dataclass(frozen=True, eq=False)
class Chunks:
    """The chunks of a variable.

    Parameters
    ----------
    element
        The ``chunks`` element, without its chunks.
    stored
        The array.
    has_positions
        Whether chunks say where they are in the array: not if one of them is all of it.
    """

    element: Element
    stored: StoredArray
    has_positions: bool

    def counts(self) -> Iterator[tuple[str, int]]:
        """Iterate over the URLs that chunks lie at, with the number of chunks."""
        manifest = self.stored.manifest
        found = np.bincount(manifest.records["source"][manifest.present], minlength=len(manifest.sources))
        for row in np.flatnonzero(found).tolist():
            yield manifest.sources.url(row), int(found[row])

    def lines(self, default: str) -> Iterator[str]:
        """Iterate over the ``chunk`` elements, some at a time.

        Parameters
        ----------
        default
            The URL that chunks lie at which do not say it.
        """
        manifest, grid = self.stored.manifest, self.stored.metadata.grid
        urls = ("" if url == default else f" href={quoteattr(url)}" for url in manifest.sources.urls)
        ends = [f"{url}/>\n" for url in urls]
        sizes = np.array(grid.chunk_shape, dtype=np.int64)
        for block in blocks(manifest, BLOCK):
            columns = (block.source.tolist(), block.offset.tolist(), block.length.tolist())
            places: Iterator[str] = itertools.repeat("", len(block.number))
            if self.has_positions:
                starts = np.stack(np.unravel_index(block.number, grid.grid_shape), axis=1) * sizes
                places = (f' chunkPositionInArray="{place}"'.replace(", ", ",") for place in starts.tolist())
            yield "".join(
                f'<dmrpp:chunk offset="{offset}" nBytes="{length}"{place}{ends[row]}'
                for row, offset, length, place in zip(*columns, places, strict=True)
            )


def chunks_of(stored: StoredArray) -> Chunks:
    """Return the chunks of an array of references.

    Raises
    ------
    UnsupportedFeatureError
        If DMR++ has no name for how they are encoded, for the fill value of missing ones, or for their lengths.
    """
    metadata, path = stored.metadata, stored.path
    if not metadata.grid.is_regular:
        raise UnsupportedFeatureError(
            f"the chunks of {path!r} differ in length along an axis, and DMR++ has one chunk shape for each variable",
            variable=path,
        )
    if metadata.dtype.kind == "T":
        raise _text_elsewhere(path)
    filters, levels = _filters(path, metadata.encoding)
    _check_lengths(stored, filters)
    attributes = {} if metadata.dtype.itemsize == 1 else {"byteOrder": _order(metadata.encoding.dtype)}
    fill = fill_text(metadata.fill_value)
    if fill is not None and is_legal(fill):
        attributes["fillValue"] = fill
    elif stored.has_missing:
        raise UnsupportedFeatureError(
            f"chunks of {path!r} are missing, and XML, which DMR++ is, cannot hold the fill value "
            f"{metadata.fill_value!r} that they read as",
            variable=path,
        )
    if filters:
        attributes["compressionType"] = " ".join(filters)
    if levels:
        attributes["deflateLevel"] = " ".join(map(str, levels))
    if metadata.dtype.names is not None:
        starts = list(field_starts(metadata.dtype).values())
        attributes["structOffset"] = " ".join(map(str, [*starts[1:], metadata.dtype.itemsize]))
    element = Element("dmrpp:chunks", attributes)
    shape = metadata.grid.chunk_shape
    is_whole = not filters and shape == metadata.shape
    if not is_whole and shape:
        SubElement(element, "dmrpp:chunkDimensionSizes").text = " ".join(map(str, shape))
    return Chunks(element, stored, has_positions=bool(shape) and not is_whole)


def held_element(stored: StoredArray, array: ManifestArray) -> Element:
    """Return the element with the values of an array that is held in memory.

    Parameters
    ----------
    stored
        The array.
    array
        The same, to be decoded.

    Raises
    ------
    LimitExceededError
        If they are too many to stand in a document.
    """
    from virtualchunks.reading.values import read_values  # decoding needs zarr, which is slow to import
    from virtualchunks.registry import ObjectStoreRegistry

    if array.nbytes > MOST_HELD:
        raise LimitExceededError(
            f"{stored.path!r} holds {array.nbytes} bytes in memory, and at most {MOST_HELD >> 20} MiB of one array are "
            "written into a document; write its values to a file of their own and refer to that",
            variable=stored.path,
        )
    values = read_values(array, ObjectStoreRegistry())
    if values.dtype.kind == "T":
        return _texts(values.ravel().tolist())
    element = Element("dmrpp:compact")
    element.text = base64.b64encode(values.astype(in_order(values.dtype, "<")).tobytes()).decode("ascii")
    return element


def _texts(texts: Sequence[str]) -> Element:
    """Return text of any length; what XML cannot hold is compressed."""
    element = Element("dmrpp:vlsa")
    for text, same in itertools.groupby(texts):
        child = SubElement(element, "v")
        count = sum(1 for _ in same)
        if count > 1:
            child.set("c", str(count))
        if is_legal(text):
            child.text = text
        else:
            raw = text.encode()
            child.set("s", str(len(raw)))
            child.text = base64.b64encode(zlib.compress(raw)).decode("ascii")
    return element


def fixed_length_element(dtype: np.dtype[Any], encoding: ChunkEncoding) -> Element:
    """Return the element that says how long texts of one length are, and how they are padded."""
    pads = [codec["configuration"]["pad"] for codec in encoding.codecs if codec["name"] == PADDING]
    pad = next(iter(pads), "null_pad")
    return Element("dmrpp:FixedLengthStringArray", string_length=str(dtype.itemsize), pad=pad)


def fill_text(value: Any) -> str | None:
    """Return the text of a fill value, with all digits; ``None`` where it has none.

    Examples
    --------
    >>> fill_text(np.float32(-999)), fill_text(np.int16(-1)), fill_text(np.bytes_(b"ab"))
    ('-999.00000000000000', '-1', 'ab')
    """
    if isinstance(value, np.void):
        return " ".join(_numbers(value))
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return _number(value)


def _number(value: Any) -> str:
    if isinstance(value, np.floating) and np.isfinite(value) and value != 0:
        return f"{float(value):#.{DIGITS}g}"
    return number_text(value.item())


def _numbers(value: np.void) -> Iterator[str]:
    for name in value.dtype.names or ():
        part = value[name]
        if isinstance(part, np.void):
            yield from _numbers(part)
        else:
            yield _number(part)


def _order(dtype: np.dtype[Any]) -> str:
    return "BE" if byte_order(dtype) == "big" else "LE"


def field_starts(dtype: np.dtype[Any]) -> dict[str, int]:
    """Return where each field of a structure begins, in bytes; nothing for other dtypes."""
    if dtype.names is None or dtype.fields is None:
        return {}
    return {name: dtype.fields[name][1] for name in dtype.names}


def _filters(path: str, encoding: ChunkEncoding) -> tuple[list[str], list[int]]:
    """Return the names of the filters of an encoding, in encoding order, and the levels of deflate."""
    names, levels = list[str](), list[int]()
    for place, codec in enumerate(encoding.codecs):
        if codec["name"] == "bytes" and place == 0:
            continue
        if codec["name"] == PADDING and place == 1 and encoding.dtype.kind == "S":
            continue
        name = FILTERS.get(codec["name"])
        if name is None or (name == "shuffle" and not _is_of_elements(codec, names, encoding)):
            raise UnsupportedFeatureError(
                f"the chunks of {path!r} are encoded by {_label(codec)}; DMR++ has plain elements in C order, then "
                "shuffle of whole elements, deflate and fletcher32",
                variable=path,
            )
        if name == "shuffle" and encoding.dtype.itemsize == 1:
            continue
        names.append(name)
        if name == "deflate":
            levels.append(codec.get("configuration", {}).get("level", 1))
    return names, levels


def _is_of_elements(codec: Codec, before: Sequence[str], encoding: ChunkEncoding) -> bool:
    size = codec.get("configuration", {}).get("elementsize")
    return not before and size == encoding.dtype.itemsize


def _label(codec: Codec) -> str:
    configuration = codec.get("configuration") or {}
    return f"{codec['name']!r}" + (f" {dict(configuration)}" if configuration else "")


def _check_lengths(stored: StoredArray, filters: Sequence[str]) -> None:
    """Raise unless chunks that nothing compresses have the length that they decode to."""
    manifest, metadata = stored.manifest, stored.metadata
    if any(name != "shuffle" for name in filters) or not len(manifest.sources):
        return
    nbytes = math.prod(metadata.grid.chunk_shape) * metadata.dtype.itemsize
    lengths = manifest.records["length"][manifest.present]
    wrong = lengths[lengths != nbytes]
    if wrong.size:
        raise UnsupportedFeatureError(
            f"an uncompressed chunk of {stored.path!r} has {int(wrong[0])} bytes, and readers of DMR++ expect {nbytes}",
            variable=stored.path,
        )


def _text_elsewhere(path: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"{path!r} is text of any length in chunks elsewhere, which DMR++ cannot refer to; load it, so that the "
        "document holds it",
        variable=path,
    )
