"""A Kerchunk document: references by key, version 0 or 1, plain or compressed.

Specification: https://fsspec.github.io/kerchunk/spec.html.
"""

from __future__ import annotations

import gc
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks_parsers.kerchunk.templates import Templates, generate

#: Largest document, as stored and as unpacked, in bytes.
MOST_BYTES = 256 << 20

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Document:
    """The references of a document, generators expanded.

    Parameters
    ----------
    references
        By key: text (inline), an object (metadata), or a list of a URL and perhaps an offset and a length.
    templates
        What expands URLs.
    """

    references: Mapping[str, Any]
    templates: Templates

    @classmethod
    def from_bytes(cls, data: bytes, url: str) -> Document:
        """Read a document.

        Parameters
        ----------
        data
            JSON, or JSON compressed by gzip or zstd.
        url
            Where it is from, for messages.

        Raises
        ------
        FormatError
            If it is none.
        LimitExceededError
            If it is larger than :data:`MOST_BYTES`.
        """
        plain = unpack(data, url)
        del data  # a copy less, while the largest is made
        try:
            text = plain.decode("utf-8-sig")
            del plain
            with _without_collections():
                content = json.loads(text, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{url} is no Kerchunk reference document: not JSON ({error})", url=url) from error
        if not isinstance(content, dict):
            raise FormatError(f"{url} is no Kerchunk reference document: not a JSON object", url=url)
        return cls.from_mapping(content, url)

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any], url: str) -> Document:
        """Read a document that is a dictionary already, of version 0 (keys at the top) or 1.

        Raises
        ------
        FormatError
            If it is none.
        """
        version = content.get("version")
        if version is None and not isinstance(content.get("refs"), Mapping):
            references: Any = content
        elif version in (None, 1) and isinstance(content.get("refs"), Mapping):
            references = content["refs"]
        else:
            raise FormatError(
                f"{url} is a Kerchunk document of the version {version!r}, and {_kind(content.get('refs'))} as 'refs'; "
                "known are version 0, without 'refs', and version 1",
                url=url,
            )
        templates = Templates(content.get("templates") if references is not content else None)
        if references is not content and content.get("gen"):
            references = {**references, **dict(generate(templates, content["gen"]))}
        return cls(references, templates)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep Python from looking for cycles, of which JSON has none; looking again and again takes half the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object, of which readers would otherwise take the last of one name."""
    made = dict(pairs)
    if len(made) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"two members have the name {name[:200]!r}")
    return made


def unpack(data: bytes, url: str) -> bytes:
    """Return data, decompressed if it is compressed.

    Raises
    ------
    FormatError
        If it does not decompress.
    LimitExceededError
        If it would be larger than :data:`MOST_BYTES`.
    """
    if data.startswith(GZIP):
        return _gunzip(data, url)
    if data.startswith(ZSTD):
        return _unzstd(data, url)
    return data


def _gunzip(data: bytes, url: str) -> bytes:
    parts, total = [], 0
    while data.startswith(GZIP):
        stream = zlib.decompressobj(31)
        try:
            parts.append(stream.decompress(data, MOST_BYTES + 1 - total))
        except zlib.error as error:
            raise FormatError(f"{url} does not unpack as gzip: {error}", url=url) from error
        total += len(parts[-1])
        if total > MOST_BYTES:
            raise _too_large(url)
        if not stream.eof:
            raise FormatError(f"{url} is cut off: the gzip stream does not end", url=url)
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _unzstd(data: bytes, url: str) -> bytes:
    from numcodecs.zstd import Zstd

    size = _zstd_size(data)
    if size is None:
        raise UnsupportedFeatureError(
            f"{url} is a zstd stream that does not say how large it unpacks, so that it cannot be bounded: compress "
            "the file as a whole (zstd FILE, not zstd < FILE), or unpack it first",
            url=url,
        )
    if size > MOST_BYTES:
        raise _too_large(url)
    try:
        unpacked = Zstd().decode(data)
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"{url} does not unpack as zstd: {error}", url=url) from error
    return bytes(unpacked)


def _zstd_size(data: bytes) -> int | None:
    """Return the content size in a zstd frame header (RFC 8878, 3.1.1.1); ``None`` where there is none."""
    if len(data) < 6:
        return None
    descriptor = data[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (1 if single else 0, 2, 4, 8)[flag]
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    if not width or len(data) < at + width:
        return None
    return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)


def _too_large(url: str) -> LimitExceededError:
    return LimitExceededError(f"{url} unpacks to more than {MOST_BYTES:,} bytes, the most that is read", url=url)


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
