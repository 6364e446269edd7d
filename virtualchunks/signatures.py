"""Signatures: what a file looks like from its first bytes, for finding a parser and for telling people what they have.

Nothing is parsed here. A signature says what a file claims to be; its parser finds out whether that is true.
"""

from __future__ import annotations

from dataclasses import dataclass

#: How many bytes of a file are enough for :func:`format_of` and :func:`describe_content`.
HEAD = 4096

HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Signature:
    """Bytes by which files of a format are known.

    Parameters
    ----------
    format
        Short name of the format, as parsers are registered by.
    description
        What people call it.
    magic
        The bytes.
    offset
        Where they stand, from the beginning of the file.
    """

    format: str
    description: str
    magic: bytes
    offset: int = 0

    def matches(self, head: bytes) -> bool:
        """Return whether the first bytes of a file carry the signature."""
        return head.startswith(self.magic, self.offset)


#: Known signatures; the first that matches counts.
SIGNATURES: tuple[Signature, ...] = (
    Signature("hdf5", "HDF5 or NetCDF-4", HDF5),
    Signature("netcdf3", "NetCDF-3 (classic)", b"CDF\x01"),
    Signature("netcdf3", "NetCDF-3 (64-bit offset)", b"CDF\x02"),
    Signature("netcdf3", "NetCDF-3 (64-bit data, CDF-5)", b"CDF\x05"),
    Signature("grib", "GRIB", b"GRIB"),
    Signature("tiff", "TIFF (little-endian)", b"II*\0"),
    Signature("tiff", "TIFF (big-endian)", b"MM\0*"),
    Signature("tiff", "BigTIFF (little-endian)", b"II+\0"),
    Signature("tiff", "BigTIFF (big-endian)", b"MM\0+"),
    Signature("fits", "FITS", b"SIMPLE  ="),
    Signature("hdf4", "HDF4", b"\x0e\x03\x13\x01"),
    Signature("zip", "a Zip archive", b"PK\x03\x04"),
    Signature("zip", "an empty Zip archive", b"PK\x05\x06"),
    Signature("gzip", "gzip-compressed data: decompress it first", b"\x1f\x8b"),
    Signature("bzip2", "bzip2-compressed data: decompress it first", b"BZh"),
    Signature("xz", "xz-compressed data: decompress it first", b"\xfd7zXZ\0"),
    Signature("zstd", "zstd-compressed data: decompress it first", b"\x28\xb5\x2f\xfd"),
    Signature("tar", "a tar archive", b"ustar", 257),
    Signature("png", "a PNG image", b"\x89PNG\r\n\x1a\n"),
    Signature("jpeg", "a JPEG image", b"\xff\xd8\xff"),
    Signature("jpeg2000", "a JPEG 2000 image", b"\0\0\0\x0cjP  \r\n\x87\n"),
    Signature("parquet", "Parquet", b"PAR1"),
    Signature("matlab", "a MATLAB 5 file", b"MATLAB 5.0"),
    Signature("git-lfs", "a Git LFS pointer: fetch the file with 'git lfs pull'", b"version https://git-lfs"),
)

_TEXT = (
    ("html", "an HTML page, perhaps an error page or a login form", (b"<!doctype html", b"<html")),
    ("xml", "XML", (b"<?xml", b"<dataset", b"<error")),
    ("json", "JSON", (b"{", b"[")),
)


def format_of(head: bytes) -> str | None:
    """Return the short name of the format that the first bytes of a file claim, or ``None``.

    Parameters
    ----------
    head
        Up to :data:`HEAD` bytes from the beginning of the file.

    Examples
    --------
    >>> format_of(b"CDF\\x01" + bytes(28)), format_of(b"no idea")
    ('netcdf3', None)
    """
    found = _find(head)
    return None if found is None else found[0]


def describe_content(head: bytes) -> str:
    """Return what the first bytes of a file look like, in words that fit behind "it is" or "looks like".

    Parameters
    ----------
    head
        Up to :data:`HEAD` bytes from the beginning of the file.

    Examples
    --------
    >>> describe_content(b"")
    'empty'
    >>> describe_content(b"GRIB\\x00\\x00")
    'GRIB'
    """
    if not head:
        return "empty"
    found = _find(head)
    if found is not None:
        return found[1]
    if not head.strip(b"\0"):
        return "zeros, as of a download that was not completed"
    if _is_text(head):
        return f"text, beginning {head[:40].decode('utf-8', 'replace')!r}"
    return f"of an unknown kind, beginning with the bytes {head[:8].hex(' ')}"


def _find(head: bytes) -> tuple[str, str] | None:
    for signature in SIGNATURES:
        if signature.matches(head):
            return signature.format, signature.description
    place = 512
    while place < len(head):
        if head.startswith(HDF5, place):
            return "hdf5", f"HDF5 or NetCDF-4 behind a user block of {place} bytes"
        place *= 2
    start = head[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for name, description, beginnings in _TEXT:
        if start.startswith(beginnings) and _is_text(head):
            return name, description
    return None


def _is_text(head: bytes) -> bool:
    controls = set(head[:256]) & (set(range(32)) - set(b"\t\n\r\f"))
    return not controls and head[:256].decode("utf-8", "replace").count("\ufffd") <= 1
