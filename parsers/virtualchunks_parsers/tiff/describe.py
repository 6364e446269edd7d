"""What a TIFF file says about its values: GDAL's metadata, and the axes of OME-TIFF.

XML is parsed with a document type declaration refused, so that no entity can be declared in it.

References
----------
GDAL documentation, "GTiff -- GeoTIFF File Format" (fields 42112 and 42113); the OME-TIFF specification, 6.0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import numpy as np

from virtualchunks.errors import FormatError
from virtualchunks_parsers.tiff.structure import IFD

IMAGE_DESCRIPTION, SOFTWARE, DATE_TIME, ARTIST, COPYRIGHT = 270, 305, 306, 315, 33432
GDAL_METADATA, GDAL_NODATA = 42112, 42113

#: Fields that are read here.
FIELDS = (IMAGE_DESCRIPTION, SOFTWARE, DATE_TIME, ARTIST, COPYRIGHT, GDAL_METADATA, GDAL_NODATA)
#: Text fields that become attributes, by their names there.
TEXTS = {DATE_TIME: "date_time", SOFTWARE: "software", ARTIST: "artist", COPYRIGHT: "copyright"}

#: Roles of GDAL's metadata items → attributes of CF.
ROLES = {"scale": "scale_factor", "offset": "add_offset", "unittype": "units", "description": "long_name"}


def parse_xml(text: str) -> ElementTree.Element:
    """Parse an XML document.

    Raises
    ------
    FormatError
        If it is none, or declares a document type.
    """
    parser = ElementTree.XMLParser()
    try:
        if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
            raise FormatError("XML with a document type declaration, which may declare entities, is refused")
        return ElementTree.fromstring(text, parser=parser)
    except ElementTree.ParseError as error:
        raise FormatError(f"XML that cannot be parsed: {error}") from error


@dataclass(frozen=True)
class GDALMetadata:
    """GDAL's metadata of one image.

    Parameters
    ----------
    items
        Of the whole image, by name; those of a domain as ``"DOMAIN:name"``.
    bands
        Items of single bands, by number of the band from 0, then by name.
    roles
        What GDAL gives a role (scale, offset, units, description), by number of the band from 0, then by CF's name.
    """

    items: Mapping[str, str] = field(default_factory=dict)
    bands: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    roles: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def of_bands(self, count: int) -> dict[str, Any]:
        """Return the attributes of an array of bands: a value where all share it, else a list under another name.

        Scales and offsets apply to an array as a whole, so those that differ among bands cannot be attributes of CF:
        they are listed as ``scale_factors`` and ``add_offsets``.
        """
        found: dict[str, Any] = {}
        for name, default in (("scale_factor", 1.0), ("add_offset", 0.0), ("units", ""), ("long_name", "")):
            values = [self.roles.get(band, {}).get(name, default) for band in range(count)]
            if all(value == default for value in values):
                continue
            if all(value == values[0] for value in values):
                found[name] = values[0]
            else:
                found[name if name == "long_name" else f"{name}s" if name != "units" else "band_units"] = values
        shared = {} if count != 1 else dict(self.bands.get(0, {}))
        return {**shared, **found}


def gdal_metadata(ifd: IFD) -> GDALMetadata:
    """Read the field GDAL_METADATA.

    Raises
    ------
    FormatError
        If it is not the XML that GDAL writes.
    """
    text = ifd.text(GDAL_METADATA).strip()
    if not text:
        return GDALMetadata()
    items: dict[str, str] = {}
    bands: dict[int, dict[str, str]] = {}
    roles: dict[int, dict[str, Any]] = {}
    for item in parse_xml(text).iter("Item"):
        name, value = item.get("name", ""), item.text or ""
        sample, role, domain = item.get("sample"), item.get("role"), item.get("domain")
        if sample is None or not sample.isdecimal():
            items[f"{domain}:{name}" if domain else name] = value
        elif role in ROLES:
            number = _number(value) if role in ("scale", "offset") else value
            if number is not None:
                roles.setdefault(int(sample), {})[ROLES[role]] = number
        elif domain is None:
            bands.setdefault(int(sample), {})[name] = value
    return GDALMetadata(items, bands, roles)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def nodata(ifd: IFD, dtype: np.dtype[Any]) -> tuple[Any, str]:
    """Return GDAL's no-data value as a scalar of a dtype, and its text; ``None`` where it is no value of the dtype.

    Examples
    --------
    >>> nodata_of("-9999", np.dtype("i2")), nodata_of("-9999", np.dtype("u1"))
    (np.int16(-9999), None)
    """
    text = ifd.text(GDAL_NODATA).strip()
    return (nodata_of(text, dtype) if text else None), text


def nodata_of(text: str, dtype: np.dtype[Any]) -> Any:
    """Return the scalar of `dtype` that GDAL writes as `text`, or ``None``."""
    number = _integer(text) if dtype.kind in "iu" else None
    if number is not None:
        limits = np.iinfo(dtype)
        return dtype.type(number) if limits.min <= number <= limits.max else None
    value = _number(text)
    if value is None:
        return None
    if dtype.kind in "iub":
        whole = math.isfinite(value) and value.is_integer()
        return nodata_of(str(int(value)), dtype) if whole and dtype.kind != "b" else None
    with np.errstate(over="ignore"):
        found = dtype.type(value)
    return found if np.isfinite(found) or not math.isfinite(value) else None


def _integer(text: str) -> int | None:
    digits = text[1:] if text[:1] in "+-" else text
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 32 else None


def texts(ifd: IFD) -> dict[str, str]:
    """Return the text fields of a directory as attributes; descriptions that are metadata of programs are left out."""
    found = {name: ifd.text(tag).strip() for tag, name in TEXTS.items() if tag in ifd}
    description = ifd.text(IMAGE_DESCRIPTION).strip()
    if description and not is_ome(description) and len(description) <= 4096:
        found["description"] = description
    return {name: text for name, text in found.items() if text}


def is_ome(description: str) -> bool:
    """Return whether a description is OME-XML."""
    return description.rstrip().endswith("OME>") and "<" in description[:1]


@dataclass(frozen=True)
class OMEStack:
    """An image of OME-XML: axes over the planes of one file.

    Parameters
    ----------
    axes
        Names and lengths of the axes over planes, slowest first; those of length 1 are left out.
    planes
        Number of the directory of each plane, in the order of the axes.
    """

    axes: tuple[tuple[str, int], ...]
    planes: tuple[int, ...]


def ome_stacks(description: str, directories: int) -> list[OMEStack]:
    """Return the images that OME-XML describes, as far as all their planes are in this file.

    Parameters
    ----------
    description
        OME-XML.
    directories
        How many directories the file has.

    Raises
    ------
    FormatError
        If it is no XML, or its numbers make no sense.
    """
    root = parse_xml(description)
    found = []
    for pixels in root.iter():
        if pixels.tag.rpartition("}")[2] == "Pixels":
            stack = _stack(pixels, directories)
            if stack is not None:
                found.append(stack)
    return found


def _stack(pixels: ElementTree.Element, directories: int) -> OMEStack | None:
    sizes = {axis: _positive(pixels.get(f"Size{axis}")) for axis in "ZCT"}
    samples = [_positive(child.get("SamplesPerPixel", "1")) for child in _children(pixels, "Channel")] or [1]
    channels = sizes["C"] // samples[0]
    lengths = {"Z": sizes["Z"], "C": channels, "T": sizes["T"]}
    order = [axis for axis in reversed(pixels.get("DimensionOrder", "XYZCT")) if axis in lengths]
    count = math.prod(lengths.values())
    if len(order) != 3 or channels * samples[0] != sizes["C"] or not 0 < count <= directories:
        return None
    planes = _plane_numbers(pixels, order, lengths, count, directories)
    if planes is None:
        return None
    return OMEStack(tuple((axis.lower(), lengths[axis]) for axis in order if lengths[axis] > 1), planes)


def _plane_numbers(
    pixels: ElementTree.Element, order: list[str], lengths: Mapping[str, int], count: int, directories: int
) -> tuple[int, ...] | None:
    """Section 6.4: each TiffData leads a run of planes, in the order of the dimensions, to a run of directories."""
    found = np.full(count, -1, dtype=np.int64)
    blocks = _children(pixels, "TiffData")
    for block in blocks:
        if _children(block, "UUID") and len(_uuids(pixels)) > 1:
            return None
        place = 0
        for axis in order:
            place = place * lengths[axis] + _natural(block.get(f"First{axis}", "0"))
        ifd = _natural(block.get("IFD", "0"))
        whole = "IFD" not in block.attrib and "PlaneCount" not in block.attrib
        run = count if whole else _natural(block.get("PlaneCount", "1"))
        if place + run > count or ifd + run > directories:
            return None
        found[place : place + run] = np.arange(ifd, ifd + run)
    if not blocks:
        found = np.arange(count)
    return None if (found < 0).any() or len(np.unique(found)) < count else tuple(found.tolist())


def _uuids(pixels: ElementTree.Element) -> set[str]:
    return {uuid.get("FileName", "") for block in _children(pixels, "TiffData") for uuid in _children(block, "UUID")}


def _children(parent: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in parent if child.tag.rpartition("}")[2] == name]


def _positive(text: str | None) -> int:
    return max(1, _natural(text or "1"))


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise FormatError(f"OME-XML holds {text!r} where a number is expected")
    return int(text)
