"""TIFF files against tifffile: every way of storing samples, by the suite that all parsers pass."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from tiffwriter import Page, image_fields, register_codec, write_tiff

from virtualchunks.testing.parsers import ParserTests
from virtualchunks_parsers.tiff import TIFFParser

tifffile = pytest.importorskip("tifffile")
imagecodecs = pytest.importorskip("imagecodecs")
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
register_codec()

RANDOM = np.random.default_rng(0)


def numbers(dtype: str, *shape: int, bits: int | None = None) -> npt.NDArray[Any]:
    """Return smooth values with some noise, of any dtype."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return RANDOM.integers(0, 2, shape).astype(bool)
    if kind in "iu":
        top = 2 ** ((bits or 8 * np.dtype(dtype).itemsize) - (kind == "i")) - 1
        return RANDOM.integers(-top if kind == "i" else 0, top, shape, dtype=dtype, endpoint=True)
    values = np.cumsum(RANDOM.normal(size=shape), axis=0)
    return (values + 1j * values[::-1]).astype(dtype) if kind == "c" else values.astype(dtype)


def reference_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return tifffile's images by the names that the parser promises."""
    found: dict[str, npt.NDArray[Any]] = {}
    with tifffile.TiffFile(path) as file:
        _collect([page.aspage() for page in file.pages], "", "image_", found)
    return found


def _collect(pages: list[Any], prefix: str, more: str, found: dict[str, npt.NDArray[Any]]) -> None:
    images, overviews, at, first = 0, 0, prefix, prefix
    for page in pages:
        if page.subfiletype & 4:
            found[f"{at}mask"] = page.asarray()
            continue
        if page.subfiletype & 1:
            overviews += 1
            at = f"{first}{overviews}/"
        else:
            at = first = prefix if not images and not prefix else f"{prefix}{more}{images}/" if images else prefix
            images, overviews = images + 1, 0
        found[f"{at}data"] = page.asarray()
        if page.subifds:
            _collect_below([below.aspage() for below in page.pages], at, found)


def _collect_below(pages: list[Any], prefix: str, found: dict[str, npt.NDArray[Any]]) -> None:
    reduced = [page for page in pages if page.subfiletype & 1]
    others = [page for page in pages if not page.subfiletype & 1]
    found.update({f"{prefix}{number}/data": page.asarray() for number, page in enumerate(reduced, 1)})
    found.update({f"{prefix}subifd_{number}/data": page.asarray() for number, page in enumerate(others, 1)})


class TIFFTests(ParserTests):
    """The suite, with tifffile for a reference."""

    parser: ClassVar[Any] = TIFFParser()

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        """What tifffile reads."""
        return reference_arrays(path)

    def _reference_of_damaged(self, path: Path) -> Mapping[str, npt.NDArray[Any]] | None:
        """Samples lie among the first bytes too; where tifffile refuses a file, nothing is known of those changed.

        Where damage leaves one sample of the several that a photometric interpretation has, tifffile keeps their axis.
        """
        found = super()._reference_of_damaged(path) or {}
        return {
            name: values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
            for name, values in found.items()
        }


class TestTifffile(TIFFTests):
    """Files that tifffile writes."""

    damage_within: ClassVar[int | None] = 600

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        """One file for each way of storing samples."""
        gray8, rgb8 = numbers("u1", 37, 50), numbers("u1", 37, 50, 3)
        tile = {"tile": (16, 32), "metadata": None}
        strip = {"rowsperstrip": 10, "metadata": None}
        chunky, planar = {"planarconfig": 1, "photometric": "rgb"}, {"planarconfig": 2, "photometric": "rgb"}
        f4 = numbers("f4", 37, 50)
        smooth = np.add.outer(np.arange(37), np.arange(50) * 2).astype("u1")
        cases: dict[str, tuple[npt.NDArray[Any], dict[str, Any]]] = {
            **{
                f"{dtype} {'big' if order == '>' else 'little'}": (
                    numbers(dtype, 37, 50),
                    {"byteorder": order, **strip},
                )
                for dtype, order in (
                    *(("u1", "<"), ("i1", "<"), ("u2", ">"), ("i2", "<"), ("u4", "<"), ("i4", ">"), ("u8", ">")),
                    *(("i8", "<"), ("f2", ">"), ("f4", "<"), ("f8", ">"), ("c8", ">"), ("c16", "<"), ("bool", "<")),
                )
            },
            **{
                f"{bits} bits": (numbers("u1" if bits <= 8 else "u2", 37, 51, bits=bits), {"bitspersample": bits})
                for bits in (2, 4)
            },
            "bigtiff": (numbers("u2", 37, 50), {"bigtiff": True, "byteorder": ">", **tile}),
            "rgb strips": (rgb8, {**chunky, **strip}),
            "rgb planar strips": (rgb8.transpose(2, 0, 1), {**planar, **strip}),
            "rgb planar tiles lzw": (rgb8.transpose(2, 0, 1), {**planar, **tile, "compression": "lzw"}),
            "rgb tiles deflate predicted": (rgb8, {**chunky, **tile, "compression": "zlib", "predictor": True}),
            "volume": (numbers("u2", 20, 37, 50), {"volumetric": True, "tile": (16, 16, 16), "metadata": None}),
            **{
                f"{codec} strips": (gray8, {"compression": codec, **strip})
                for codec in ("lzw", "zlib", "zstd", "packbits", "lzma", "jpeg2000", "png", "jpegxl", "lerc")
            },
            **{
                f"{codec} tiles": (gray8, {"compression": codec, **tile})
                for codec in ("zlib", "zstd", "lzw", "packbits")
            },
            "webp": (rgb8, {"compression": "webp", "compressionargs": {"lossless": True}, **chunky, **tile}),
            "lerc floats": (f4, {"compression": "lerc", **tile}),
            "jpeg": (smooth, {"compression": "jpeg", **tile}),
            "jpeg ycbcr": (np.stack([smooth] * 3, -1), {"compression": "jpeg", **tile, "photometric": "rgb"}),
            **{
                f"{dtype} predicted {codec}": (
                    numbers(dtype, 37, 50),
                    {"compression": codec, "predictor": True, "byteorder": order, **tile},
                )
                for dtype, codec, order in (
                    *(("u1", "lzw", "<"), ("u2", "zlib", ">"), ("i4", "zstd", "<"), ("i2", "lzma", ">")),
                    *(("f2", "zlib", ">"), ("f4", "lzw", "<"), ("f8", "zstd", ">")),
                )
            },
        }
        made = {}
        for label, (values, options) in cases.items():
            made[label] = folder / f"{label.replace(' ', '_')}.tif"
            photometric = {} if "photometric" in options else {"photometric": "minisblack"}
            tifffile.imwrite(made[label], values, **{"metadata": None, **photometric, **options})
        return made


def bits_of(values: npt.NDArray[Any], bits: int) -> bytes:
    """Pack integers row by row, the most significant bit first; rows begin with bytes of their own."""
    rows = values.reshape(len(values), -1).astype(np.uint64)
    places = np.arange(bits - 1, -1, -1, dtype=np.uint64)
    flat = (rows[..., None] >> places & np.uint64(1)).astype(np.uint8).reshape(len(rows), -1)
    return np.packbits(flat, axis=1).tobytes()


def reversed_bits(data: bytes) -> bytes:
    """Return bytes with the bits of each in reverse order."""
    return bytes(imagecodecs.bitorder_decode(data))


class TestUnusual(TIFFTests):
    """Files that tifffile reads and does not write."""

    damage_within: ClassVar[int | None] = 400

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        """One file for each feature, by the writer of the tests."""
        pages: dict[str, list[Page]] = {}
        for bits in (3, 5, 6, 7, 9, 10, 12, 14, 15, 17, 24, 31):
            values = numbers("u8", 9, 13, 2, bits=bits)
            pages[f"{bits} bits chunky"] = [
                Page(image_fields(13, 9, bits=[bits] * 2, samples=2), [bits_of(values, bits)])
            ]
        gray = numbers("u1", 20, 30)
        raw = gray.tobytes()
        pages["12 bits deflate"] = [
            Page(
                image_fields(13, 9, bits=12, compression=8), [zlib.compress(bits_of(numbers("u2", 9, 13, bits=12), 12))]
            )
        ]
        pages["float24"] = [Page(image_fields(10, 20, bits=24, format=3), [RANDOM.bytes(600)])]
        pages["complex int16"] = [Page(image_fields(10, 5, bits=32, format=5), [RANDOM.bytes(200)])]
        pages["complex int32"] = [Page(image_fields(10, 5, bits=64, format=5), [RANDOM.bytes(400)])]
        pages["fill order"] = [Page(image_fields(30, 20, fill_order=2), [reversed_bits(raw)])]
        pages["fill order lzw"] = [
            Page(image_fields(30, 20, fill_order=2, compression=5), [reversed_bits(imagecodecs.lzw_encode(raw))])
        ]
        pages["old deflate"] = [Page(image_fields(30, 20, compression=32946), [zlib.compress(raw)])]
        pages["strips too long"] = [
            Page(image_fields(30, 20, rows=8), [raw[:240] + b"x" * 7, raw[240:480], raw[480:] + b"y" * 120])
        ]
        pages["sparse tiles"] = [
            Page(image_fields(30, 20, tile_width=16, tile_length=16), [b"\1" * 256, None, b"\3" * 256, None])
        ]
        pages["sparse tiles with no-data"] = [
            Page(
                {**image_fields(30, 20, tile_width=16, tile_length=16), 42113: "77"},
                [b"\1" * 256, None, None, b"\2" * 256],
            )
        ]
        pages["ccitt group 4"] = [
            Page(
                image_fields(40, 16, bits=1, compression=4),
                [GROUP4],
            )
        ]
        pages["pages"] = [
            Page(image_fields(30, 20), [raw]),
            Page(image_fields(30, 20), [bytes(600)]),
            Page(image_fields(15, 10, subfile=1), [b"\7" * 150]),
            Page(image_fields(10, 5), [b"\5" * 50]),
        ]
        pages["overviews and masks"] = [
            Page(image_fields(30, 20, samples=3, bits=[8, 8, 8], photometric=2), [RANDOM.bytes(1800)]),
            Page(image_fields(30, 20, subfile=4, bits=1, photometric=4), [RANDOM.bytes(80)]),
            Page(image_fields(15, 10, samples=3, bits=[8, 8, 8], photometric=2, subfile=1), [RANDOM.bytes(450)]),
            Page(image_fields(15, 10, subfile=5, bits=1, photometric=4), [RANDOM.bytes(20)]),
        ]
        pages["subifds"] = [
            Page(
                image_fields(30, 20),
                [raw],
                [Page(image_fields(15, 10, subfile=1), [b"\7" * 150]), Page(image_fields(4, 3), [b"\5" * 12])],
            ),
            Page(image_fields(30, 20), [raw], [Page(image_fields(15, 10, subfile=1), [b"\6" * 150])]),
        ]
        made = {}
        for number, (label, content) in enumerate(pages.items()):
            made[label] = folder / f"{label.replace(' ', '_')}.tif"
            write_tiff(made[label], content, order="<>"[number % 2], big=number % 3 == 0)
        return made


#: 16 rows of 40 white pixels: in group 4, a row like the one above is the single bit 1.
GROUP4 = b"\xff\xff\x00\x10\x01"
