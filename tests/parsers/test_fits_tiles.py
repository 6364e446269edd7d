"""Tile-compressed FITS images against astropy: the same bits, whatever the algorithm, the tiles and the dithering."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import fitscodecs
import fitsfiles
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy.io import fits

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError, UnsupportedArrayWarning
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.store import ManifestStore
from virtualchunks.testing.parsers import ParserTests
from virtualchunks_parsers.fits import FITSParser, tiles

fitscodecs.register()

LOSSLESS = ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1", "NOCOMPRESS")
QUANTISED = ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1")
#: In NumPy's order; the last is one row, as by default.
TILES = ((8, 8), (7, 9), (20, 30), (1, 30))


def lossless_cases() -> Iterator[tuple[str, str, tuple[int, int]]]:
    """What astropy writes: 64 bits with gzip alone, no short tiles of HCOMPRESS, no unsigned ones of PLIO."""
    for algorithm, dtype, tile_shape in itertools.product(LOSSLESS, ("u1", "i2", "i4", "u2", "u4", "i8"), TILES):
        unwritten = {
            "RICE_1": dtype == "i8",
            "PLIO_1": dtype in ("u2", "u4", "i8"),
            "HCOMPRESS_1": dtype == "i8" or min(tile_shape) < 4 or tile_shape == (7, 9),
        }
        if not unwritten.get(algorithm, False):
            yield algorithm, dtype, tile_shape


def quantised_cases() -> Iterator[tuple[str, tuple[int, int]]]:
    """Again what astropy writes."""
    for algorithm, tile_shape in itertools.product(QUANTISED, TILES[:3]):
        if (algorithm, tile_shape) != ("HCOMPRESS_1", (7, 9)):
            yield algorithm, tile_shape


def array_of(path: Path, name: str = "IMAGE") -> tuple[ManifestArray, ObjectStoreRegistry]:
    registry = ObjectStoreRegistry({path.parent.as_uri() + "/": None})
    return FITSParser()(path.as_uri(), registry).group.arrays[name], registry


def compressed(path: Path, values: npt.NDArray[Any], **options: Any) -> Path:
    return fitsfiles.write(path, fits.CompImageHDU(values, name="IMAGE", **options))


def assert_as_astropy(path: Path) -> ManifestArray:
    array, registry = array_of(path)
    expected = fitsfiles.reference(path)["IMAGE"]
    found = read_values(array, registry)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.view(f"u{found.itemsize}"), expected.view(f"u{expected.itemsize}"))
    return array


@pytest.mark.parametrize(("algorithm", "dtype", "tile_shape"), list(lossless_cases()), ids=str)
def test_integers(tmp_path: Path, algorithm: str, dtype: str, tile_shape: tuple[int, int]) -> None:
    """Every algorithm, with tiles that fit the image and tiles that do not."""
    low = 0 if algorithm == "PLIO_1" or dtype[0] == "u" else -100
    image = np.random.default_rng(3).integers(low, 120, (20, 30)).astype(dtype)
    path = compressed(tmp_path / "a.fits", image, compression_type=algorithm, tile_shape=tile_shape)
    np.testing.assert_array_equal(read_values(*array_of(path)), image)
    assert_as_astropy(path)


@pytest.mark.parametrize("method", [-1, 1, 2])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("algorithm", "tile_shape"), list(quantised_cases()), ids=str)
def test_quantised_floats(tmp_path: Path, algorithm: str, dtype: str, method: int, tile_shape: tuple[int, int]) -> None:
    """Every kind of dithering, with NaN and exact zeros."""
    image = np.random.default_rng(4).normal(100, 5, (20, 30)).astype(dtype)
    image[3, 4:8] = np.nan
    image[10, ::3] = 0
    path = compressed(
        tmp_path / "a.fits",
        image,
        compression_type=algorithm,
        tile_shape=tile_shape,
        quantize_level=8,
        quantize_method=method,
        dither_seed=9_999,
    )
    array = assert_as_astropy(path)
    assert array.metadata.grid.size == 1


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("algorithm", ["GZIP_1", "GZIP_2"])
def test_floats_as_they_are(tmp_path: Path, algorithm: str, dtype: str) -> None:
    """Without quantisation, one tile is one chunk."""
    image = np.random.default_rng(5).normal(size=(21, 30)).astype(dtype)
    path = compressed(tmp_path / "a.fits", image, compression_type=algorithm, quantize_level=0, tile_shape=(7, 30))
    assert assert_as_astropy(path).metadata.grid.grid_shape == (3, 1)


def test_more_pixels_than_the_dithering_sequence_has(tmp_path: Path) -> None:
    """Then it goes on from another place."""
    image = np.random.default_rng(6).normal(size=(2, 25_000)).astype("f4")
    path = compressed(
        tmp_path / "a.fits", image, tile_shape=(2, 25_000), quantize_level=4, quantize_method=1, dither_seed=77
    )
    assert_as_astropy(path)


def test_tiles_that_could_not_be_quantised(tmp_path: Path) -> None:
    """They are stored by gzip beside the others, in a column of their own."""
    image = np.random.default_rng(7).normal(size=(8, 40)).astype("f4")
    image[2] = 1.0
    image[5] = np.linspace(0, 1e30, 40)
    path = compressed(tmp_path / "a.fits", image, tile_shape=(1, 40), quantize_level=16, quantize_method=1)
    with fits.open(path, disable_image_compression=True) as hdus:
        lengths = np.array([len(row) for row in hdus[1].data["GZIP_COMPRESSED_DATA"]])
    assert lengths.any()
    assert not lengths.all()
    assert_as_astropy(path)


def test_large_quantised_images_are_cut_into_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with an encoding of its own; zarr reads the same through the store."""
    monkeypatch.setattr(tiles, "BLOCK", 3_000)
    monkeypatch.setattr(tiles, "WHOLE", 3_000)
    image = np.random.default_rng(8).normal(size=(3, 23, 31)).astype("f4")
    path = compressed(
        tmp_path / "a.fits", image, tile_shape=(1, 5, 31), quantize_level=8, quantize_method=2, dither_seed=5
    )
    array = assert_as_astropy(path)
    assert array.metadata.grid.size > 2
    assert len(array.manifest.sources.encodings) == array.metadata.grid.size - 1
    registry = ObjectStoreRegistry({path.parent.as_uri() + "/": None})
    store = FITSParser()(path.as_uri(), registry)
    opened = xr.open_zarr(store, consolidated=False, zarr_format=3)
    np.testing.assert_array_equal(opened.IMAGE.values, fitsfiles.reference(path)["IMAGE"])


def test_large_images_with_short_tiles_have_a_rectilinear_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one encoding for all tiles."""
    monkeypatch.setattr(tiles, "WHOLE", 100)
    image = np.random.default_rng(9).integers(0, 99, (20, 30)).astype("i4")
    path = compressed(tmp_path / "a.fits", image, compression_type="RICE_1", tile_shape=(7, 9))
    array = assert_as_astropy(path)
    assert array.metadata.grid.axes[0].edges == (7, 7, 6)
    assert not array.manifest.sources.encodings


def test_lossy_hcompress_with_smoothing(tmp_path: Path) -> None:
    """The smoothing is a part of decoding."""
    y, x = np.mgrid[:64, :64]
    image = (1000 * np.exp(-((x - 30) ** 2 + (y - 20) ** 2) / 200)).astype("i4")
    path = compressed(
        tmp_path / "a.fits",
        image,
        compression_type="HCOMPRESS_1",
        tile_shape=(32, 32),
        hcomp_scale=30,
        hcomp_smooth=1,
    )
    assert_as_astropy(path)
    assert (read_values(*array_of(path)) != image).any()


def test_undefined_integers(tmp_path: Path) -> None:
    """ZBLANK is their value, as BLANK is in an image that is not compressed."""
    hdu = fits.CompImageHDU(np.arange(12, dtype="i2").reshape(3, 4), name="IMAGE", compression_type="RICE_1")
    hdu.header["BLANK"] = 5
    path = fitsfiles.write(tmp_path / "a.fits", hdu)
    attributes = array_of(path)[0].metadata.attributes
    assert attributes["_FillValue"] == np.int16(5)
    assert not [key for key in attributes if key.startswith(("Z", "T"))]


def test_what_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    """An unknown algorithm, an unknown way to quantise, tiles outside the heap."""
    image = np.random.default_rng(10).normal(size=(8, 8)).astype("f4")
    path = compressed(tmp_path / "a.fits", image, quantize_method=1)
    content = path.read_bytes()
    registry = ObjectStoreRegistry({path.parent.as_uri() + "/": None})
    for old, new, message in (
        (b"'RICE_1  '", b"'BZIP_9  '", "unknown compression 'BZIP_9'"),
        (b"'SUBTRACTIVE_DITHER_1'", b"'SUBTRACTIVE_DITHER_7'", "unknown method"),
    ):
        path.write_bytes(content.replace(old, new))
        with pytest.warns(UnsupportedArrayWarning, match=message):
            assert not FITSParser()(path.as_uri(), registry).group.arrays
    at = content.rindex(b"END".ljust(80)) // 2880 * 2880 + 2880
    path.write_bytes(content[:at] + b"\0\xff\xff\xff" + content[at + 4 :])
    with pytest.raises(FormatError, match="outside the heap"):
        FITSParser()(path.as_uri(), registry)


class TestTileCompressedFiles(ParserTests):
    """What holds for every parser, damage to the compressed bytes included."""

    parser = FITSParser()
    damage_within: ClassVar[int | None] = 5760

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        chance = np.random.default_rng(11)
        integers = chance.integers(0, 99, (20, 30)).astype("i2")
        floats = chance.normal(size=(20, 30)).astype("f4")
        hcompress = {"compression_type": "HCOMPRESS_1", "tile_shape": (10, 10)}
        return {
            "rice": compressed(folder / "rice.fits", integers, compression_type="RICE_1"),
            "gzip": compressed(folder / "gzip.fits", integers, compression_type="GZIP_2"),
            "plio": compressed(folder / "plio.fits", integers, compression_type="PLIO_1"),
            "hcompress": compressed(folder / "hcompress.fits", integers, **hcompress),
            "quantised": compressed(folder / "quantised.fits", floats, quantize_method=1),
        }

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        return fitsfiles.reference(path)


def test_the_store_says_the_codec_by_name(tmp_path: Path) -> None:
    """So that any reader with the package installed decodes it."""
    path = compressed(tmp_path / "a.fits", np.arange(64, dtype="u2").reshape(8, 8), compression_type="RICE_1")
    array, registry = array_of(path)
    assert [codec["name"] for codec in array.metadata.codecs] == [
        "virtualchunks.offset_binary",
        "virtualchunks.fits_tile",
    ]
    opened = xr.open_zarr(
        ManifestStore(FITSParser()(path.as_uri(), registry).group, registry=registry),
        consolidated=False,
        zarr_format=3,
    )
    assert opened.IMAGE.values.tolist() == np.arange(64).reshape(8, 8).tolist()
