"""Values that a DMR++ holds itself: compact data, data that the file lacks, and text of variable length.

They are kept in memory. What they may decode to is bounded by the variable's own size, and that by a limit.

References
----------
DMR++ documentation and schema of the OPeNDAP BES, elements ``compact``, ``missingdata`` and ``vlsa``.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.encoding import ChunkEncoding, bytes_codec
from virtualchunks.errors import LimitExceededError, UnsupportedFeatureError
from virtualchunks.grid import ChunkGrid
from virtualchunks.inline import encode_array
from virtualchunks.metadata import ArrayMetadata
from virtualchunks_parsers.dmrpp.document import NUMBER, Element
from virtualchunks_parsers.dmrpp.storage import fixed_length_dtype
from virtualchunks_parsers.dmrpp.variables import Variable

#: Bytes of one array that are kept in memory.
MOST_BYTES = 256 << 20
#: What one string costs before it has any text.
STRING_BYTES = 16

Values = npt.NDArray[Any]


def compact(variable: Variable, element: Element) -> ManifestArray:
    """Return the array of a variable whose bytes stand in the document, in base64."""
    raw = _decoded(variable, element)
    fixed = variable.element.first("dmrpp:FixedLengthStringArray")
    if fixed is not None and variable.is_text:
        dtype = fixed_length_dtype(variable, fixed)
        return _of_bytes(variable, dtype, _repadded(raw, dtype.itemsize, fixed.attributes.get("pad")))
    if variable.dtype is not None:
        return _of_bytes(variable, variable.dtype, raw)
    if variable.shape:
        raise UnsupportedFeatureError(
            "an array of text of variable length in compact storage, which no software wrote yet"
        )
    return _of_text(variable, [_text(raw.rstrip(b"\0"))])


def missing_data(variable: Variable, element: Element) -> ManifestArray:
    """Return the array of a variable that its file lacks: bytes in base64, compressed if that made them fewer."""
    if variable.dtype is None:
        raise UnsupportedFeatureError("text as missing data, whose length a DMR++ does not say")
    raw = _decoded(variable, element)
    nbytes = _nbytes(variable, variable.dtype.itemsize)
    if len(raw) != nbytes:
        raw = _inflated(variable, raw, nbytes)
    return _of_bytes(variable, variable.dtype, raw)


def variable_text(variable: Variable, element: Element) -> ManifestArray:
    """Return the array of text of variable length: values, each with how often it is repeated."""
    if not variable.is_text:
        raise variable.corrupt(f"text as values of the type {variable.element.name}")
    count = math.prod(variable.shape)
    budget = MOST_BYTES - _nbytes(variable, STRING_BYTES)
    strings: list[str] = []
    for child in element.of("v", "dmrpp:v"):
        text = _value(variable, child, budget)
        repeats = _count(variable, child, "c", 1)
        if repeats > count - len(strings):
            raise variable.corrupt(f"more than {count} values")
        budget -= len(text)
        strings += [text] * repeats
    if len(strings) != count:
        raise variable.corrupt(f"{len(strings)} values, expected {count}")
    return _of_text(variable, strings)


def special_structure(variable: Variable, element: Element) -> ManifestArray:
    """Refuse structures with text in them, which stand in the document in a form of their own."""
    raise UnsupportedFeatureError("a structure with text in it (specialstructuredata), which no Zarr data type has")


def _repadded(raw: bytes, length: int, pad: str | None) -> bytes:
    """Return texts of one length padded with NUL, however they were."""
    texts = [raw[start : start + length] for start in range(0, len(raw), length)]
    if pad == "null_term":
        texts = [text.partition(b"\0")[0].ljust(len(text), b"\0") for text in texts]
    if pad == "space_pad":
        texts = [text.rstrip(b" ").ljust(len(text), b"\0") for text in texts]
    return b"".join(texts)


def _value(variable: Variable, element: Element, budget: int) -> str:
    """One string; with ``s``, its length, it is compressed, in base64."""
    if "s" not in element.attributes:
        return element.text
    length = _count(variable, element, "s", 0)
    if length > budget:
        raise LimitExceededError(f"text of more than {MOST_BYTES >> 20} MiB")
    return _text(_inflated(variable, _decoded(variable, element), length))


def _count(variable: Variable, element: Element, name: str, default: int) -> int:
    text = element.attributes.get(name)
    if text is None:
        return default
    if NUMBER.fullmatch(text) is None:
        raise variable.corrupt(f"{name}={text[:40]!r}")
    return int(text)


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _nbytes(variable: Variable, itemsize: int) -> int:
    """Bytes of the whole array, or LimitExceededError where they are too many to keep."""
    nbytes = math.prod(variable.shape) * itemsize
    if nbytes > MOST_BYTES:
        raise LimitExceededError(
            f"{nbytes} bytes that would stand in the document; at most {MOST_BYTES >> 20} MiB are kept"
        )
    return nbytes


def _decoded(variable: Variable, element: Element) -> bytes:
    try:
        return base64.b64decode("".join(element.text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise variable.corrupt(f"values that are not base64 ({error})") from error


def _inflated(variable: Variable, raw: bytes, nbytes: int) -> bytes:
    """Inflate, and never to more than is expected."""
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(raw, nbytes + 1)
    except zlib.error as error:
        raise variable.corrupt(
            f"{len(raw)} bytes of values, which are neither {nbytes} nor compressed ({error})"
        ) from error
    if len(data) != nbytes or not inflate.eof:
        found = "more" if len(data) > nbytes else f"{len(data)}"
        raise variable.corrupt(f"values of {found} bytes, expected {nbytes}")
    return data


def _of_bytes(variable: Variable, dtype: np.dtype[Any], raw: bytes) -> ManifestArray:
    expected = _nbytes(variable, dtype.itemsize)
    if len(raw) != expected:
        raise variable.corrupt(f"values of {len(raw)} bytes, expected {expected}")
    return _in_memory(variable, np.frombuffer(raw, dtype=dtype), bytes_codec(dtype))


def _of_text(variable: Variable, strings: list[str]) -> ManifestArray:
    return _in_memory(variable, np.array(strings, dtype=np.dtypes.StringDType()), {"name": "vlen-utf8"})


def _in_memory(variable: Variable, values: Values, codec: dict[str, Any]) -> ManifestArray:
    """An array of one chunk, which is held in memory."""
    grid = ChunkGrid.regular(variable.shape, tuple(max(1, length) for length in variable.shape))
    metadata = ArrayMetadata(grid, values.dtype, ChunkEncoding(values.dtype, (codec,)))
    return ManifestArray(metadata, encode_array(values.reshape(variable.shape), metadata))
