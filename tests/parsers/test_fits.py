"""The FITS parser against astropy: values, names, attributes, requests, damage."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fitscodecs
import fitsfiles
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy.io import fits
from rangeserver import RangeServer

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError, UnsupportedArrayWarning, UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.indexing import subchunk
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.store import ManifestStore
from virtualchunks.testing.parsers import ParserTests
from virtualchunks_parsers.fits import FITSParser, tables
from virtualchunks_parsers.fits.cards import Header

fitscodecs.register()


def parse(path: Path, **options: Any) -> tuple[ManifestGroup, ObjectStoreRegistry]:
    registry = ObjectStoreRegistry({path.parent.as_uri() + "/": None})
    return FITSParser(**options)(path.as_uri(), registry).group, registry


def values(path: Path, name: str, **options: Any) -> npt.NDArray[Any]:
    group, registry = parse(path, **options)
    array = group[name]
    assert isinstance(array, ManifestArray)
    return read_values(array, registry)


class TestFITSParser(ParserTests):
    """What holds for every parser."""

    parser = FITSParser()
    damage_within = 5760

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        made = (
            fitsfiles.images,
            fitsfiles.empty_axes,
            fitsfiles.table,
            fitsfiles.odd_tables,
            fitsfiles.ascii_table,
            fitsfiles.headers,
            fitsfiles.versions,
        )
        return {make.__name__: make(folder / f"{make.__name__}.fits") for make in made}

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        return fitsfiles.reference(path)


def test_scaled_images_decode_as_astropy_scales_them(tmp_path: Path) -> None:
    """The attributes are those by which xarray scales and masks."""
    path = fitsfiles.images(tmp_path / "a.fits")
    group, registry = parse(path)
    found = xr.open_zarr(ManifestStore(group, registry=registry), consolidated=False, zarr_format=3)
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(found.SCALED.values, hdus["SCALED"].data)
    assert group["SCALED"].metadata.attributes["units"] == "adu"
    assert group["SCALED"].metadata.attributes["_FillValue"] == 3
    assert group["T_U8"].metadata.dtype == np.uint64


def test_the_blank_of_unsigned_images_is_unsigned(tmp_path: Path) -> None:
    """BLANK is a stored value; the array holds physical ones."""
    hdu = fits.PrimaryHDU(np.array([0, 1, 65535], "u2"))
    hdu.header["BLANK"] = -32768
    hdu.writeto(tmp_path / "a.fits")
    attributes = parse(tmp_path / "a.fits")[0]["PRIMARY"].metadata.attributes
    assert attributes["_FillValue"] == np.uint16(0)
    assert "scale_factor" not in attributes


def test_headers_become_attributes(tmp_path: Path) -> None:
    """Every kind of card, as astropy reads it; what describes the file is left out."""
    path = fitsfiles.headers(tmp_path / "a.fits")
    attributes = parse(path)[0]["PRIMARY"].metadata.attributes
    with fits.open(path) as hdus:
        header = hdus[0].header
        for key in ("OBJECT", "EXPTIME", "COUNT", "GOOD", "WAVE", "ESO DET CHIP", "LONG", "EMPTY"):
            assert attributes[key] == header[key], key
            assert type(attributes[key]) is type(header[key]), key
    assert attributes["HISTORY"] == "first line\nsecond line"
    assert attributes["COMMENT"].endswith("a remark")
    assert not attributes.keys() & {"SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "EXTEND", "NOVALUE"}


def test_cards_that_follow_no_rule_are_kept_as_text() -> None:
    """Real headers have them."""
    cards = (
        b"A       = 12 34 / two numbers",
        b"B       = 'no end",
        b"C       =   1.D3",
        b"D       = .5E",
        b"E       =",
    )
    header = Header.of_cards(b"".join(card.ljust(80) for card in cards))
    assert dict(header) == {"A": "12 34", "B": "'no end", "C": 1000.0, "D": ".5E"}


def test_names_do_not_depend_on_what_else_is_in_the_file(tmp_path: Path) -> None:
    """Versions are in the name; only names that are still shared get a number."""
    group, registry = parse(fitsfiles.versions(tmp_path / "a.fits"))
    assert sorted(group.arrays) == ["6", "SAME", "SAME_5", "SCI", "SCI_2", "SCI_3"]
    assert dict(group.groups["DQ"].attributes)["ONLY"] == "cards"
    assert read_values(group.arrays["SCI_3"], registry).tolist() == [[3, 3], [3, 3]]
    assert group.arrays["SCI_2"].metadata.dimension_names == ("SCI_2_y", "SCI_2_x")


def test_columns_have_their_attributes(tmp_path: Path) -> None:
    """Units, undefined values, scale and zero point; the group has the other cards."""
    path = fitsfiles.table(tmp_path / "a.fits")
    group = parse(path)[0].groups["EVENTS"]
    assert group.arrays["B"].metadata.attributes == {"units": "count"}
    assert group.arrays["I"].metadata.attributes == {"_FillValue": -1}
    assert group.arrays["scaled"].metadata.attributes == {"scale_factor": 0.25, "add_offset": 5}
    assert group.arrays["D"].metadata.dimension_names == ("row", "D_axis2", "D_axis1")
    assert group.arrays["GROUP_ID"].metadata.dimension_names == ("row",)
    assert set(group.attributes) <= {"EXTNAME"}


def test_long_tables_are_cut_into_blocks_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block is short, and the grid regular nevertheless; zarr itself reads the same."""
    monkeypatch.setattr(tables, "BLOCK", 1000)
    path = fitsfiles.table(tmp_path / "a.fits", rows=50)
    group, registry = parse(path)
    expected = fitsfiles.reference(path)
    for name, array in group.groups["EVENTS"].arrays.items():
        assert array.metadata.grid.is_regular
        assert array.metadata.grid.grid_shape[0] > 2
        np.testing.assert_array_equal(read_values(array, registry), expected[f"EVENTS/{name}"], err_msg=name)
    store = ManifestStore(group, registry=registry)
    opened = xr.open_zarr(store, group="EVENTS", consolidated=False, zarr_format=3, decode_cf=False)
    for name in opened:
        np.testing.assert_array_equal(opened[name].values, expected[f"EVENTS/{name}"], err_msg=str(name))


def test_long_fields_are_chunks_by_themselves(tmp_path: Path) -> None:
    """Then nothing beside them is read."""
    array = parse(fitsfiles.odd_tables(tmp_path / "a.fits"))[0]["LONGROWS/b"]
    assert isinstance(array, ManifestArray)
    assert array.metadata.grid.grid_shape == (2, 1)
    assert array.metadata.encoding.is_uncompressed


def test_images_of_unsigned_integers_can_be_cut(tmp_path: Path) -> None:
    """Their bytes hold one element after the other."""
    path = tmp_path / "a.fits"
    content = np.arange(24, dtype="u2").reshape(6, 4)
    fits.PrimaryHDU(content).writeto(path)
    group, registry = parse(path)
    array = group.arrays["PRIMARY"]
    cut = ManifestArray(*subchunk((array.metadata, array.manifest), {0: 2}))
    assert cut.metadata.grid.grid_shape == (3, 1)
    np.testing.assert_array_equal(read_values(cut, registry), content)


def test_a_table_can_be_the_root(tmp_path: Path) -> None:
    """Which other parsers call a group."""
    path = fitsfiles.table(tmp_path / "a.fits")
    assert "flag" in parse(path, group="/EVENTS")[0].arrays
    with pytest.raises(FormatError, match="'EVENTS'"):
        parse(path, group="GTI")


def test_arrays_can_be_dropped(tmp_path: Path) -> None:
    """By name or by path."""
    path = fitsfiles.table(tmp_path / "a.fits")
    arrays = parse(path, drop_variables=["/EVENTS/flag", "D"])[0].groups["EVENTS"].arrays
    assert not arrays.keys() & {"flag", "D"}
    assert not parse(path, drop_variables="EVENTS")[0].groups
    assert list(FITSParser().parse(str(path)).groups) == ["EVENTS"]


def test_ascii_numbers_follow_the_standard(tmp_path: Path) -> None:
    """Blank fields, D exponents, implied decimal points, undefined values."""
    path = fitsfiles.ascii_table(tmp_path / "a.fits")
    content = path.read_bytes()
    assert content.count(b"1000.125") == 1
    path.write_bytes(content.replace(b"1000.125", b"   -1125").replace(b"  333", b"     "))
    assert values(path, "LIST/real").tolist() == [1.5, -2.25, -1.125]
    assert values(path, "LIST/count").tolist() == [1, -22, 0]


def test_what_is_refused_is_named_once(tmp_path: Path) -> None:
    """And the rest of the file is read."""
    variable = fits.Column("var", "PJ()", array=np.array([[1], [2, 3]], dtype=object))
    plain = fits.Column("x", "J", array=[1, 2])
    path = fitsfiles.write(tmp_path / "a.fits", fits.BinTableHDU.from_columns([variable, plain], name="T"))
    with pytest.warns(UnsupportedArrayWarning, match=r"'T/var' of file:.*variable length") as caught:
        group, registry = parse(path)
    assert len(caught) == 1
    assert read_values(group.groups["T"].arrays["x"], registry).tolist() == [1, 2]
    with pytest.raises(UnsupportedFeatureError, match="variable length"):
        parse(path, strict=True)


def test_random_groups_are_refused_by_name(tmp_path: Path) -> None:
    """They are neither an image nor a table."""
    data = fits.GroupData(np.ones((3, 1, 1, 2), "f4"), parnames=["a"], pardata=[np.arange(3)], bitpix=-32)
    fits.GroupsHDU(data).writeto(tmp_path / "a.fits")
    with pytest.warns(UnsupportedArrayWarning, match="random groups"):
        assert not parse(tmp_path / "a.fits")[0].arrays


def test_tile_compressed_tables_are_refused_by_name(tmp_path: Path) -> None:
    """Their columns are not those that they seem to be."""
    path = fitsfiles.table(tmp_path / "a.fits")
    with fits.open(path, mode="update") as hdus:
        hdus[1].header["ZTABLE"] = True
    with pytest.warns(UnsupportedArrayWarning, match="tile-compressed table"):
        assert not parse(path)[0].groups


def test_what_follows_the_last_hdu_is_reported(tmp_path: Path) -> None:
    """An extension whose first card is damaged must not vanish without a word; padding may."""
    path = fitsfiles.versions(tmp_path / "a.fits")
    content = path.read_bytes()
    path.write_bytes(content + b"\0" * 2880)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse(path)
    path.write_bytes(content[:-2880].replace(b"XTENSION= 'IMAGE   '", b"XTENSI_N= 'IMAGE   '"))
    with pytest.warns(UnsupportedArrayWarning, match="goes on behind its last HDU"):
        assert not parse(path)[0].arrays


@pytest.mark.parametrize("end", [b"ENO     ", b"END\x12    "])
def test_a_header_without_end_is_refused(end: bytes, tmp_path: Path) -> None:
    """Or the cards of the next HDU would be taken for its own."""
    path = fitsfiles.versions(tmp_path / "a.fits")
    content = path.read_bytes()
    at = content.index(b"END     ", 2880)
    path.write_bytes(content[:at] + end + content[at + 8 :])
    with pytest.raises(FormatError, match=r"HDU 1: .* END"):
        parse(path)


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    """Before anything is reserved for it."""
    path = fitsfiles.empty_axes(tmp_path / "a.fits")
    path.write_bytes(path.read_bytes().replace(b"NAXIS2  =                    0", b"NAXIS2  =            900000000"))
    with pytest.raises(FormatError, match="truncated or corrupt"):
        parse(path)


def test_padding_may_be_missing_at_the_end(tmp_path: Path) -> None:
    """As long as the data are there."""
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.arange(1000, dtype="i4")).writeto(path)
    path.write_bytes(path.read_bytes()[: 2880 + 4000])
    assert values(path, "PRIMARY").tolist() == list(range(1000))


def test_one_request_for_the_file_and_one_for_each_hdu_at_most(tmp_path: Path, range_server: RangeServer) -> None:
    """Small files take one in all; data are not read."""
    small = fitsfiles.table(tmp_path / "small.fits")
    wide = [fits.ImageHDU(np.zeros((1000, 1000), "f4"), name=f"I{number}") for number in range(5)]
    tiles = fits.CompImageHDU(np.random.default_rng(0).normal(size=(2000, 500)).astype("f4"), name="TILES")
    large = fitsfiles.write(tmp_path / "large.fits", *wide, tiles)
    for path, budget in ((small, 1), (large, 1 + 7)):
        range_server.objects[path.name] = path.read_bytes()
        registry = ObjectStoreRegistry({range_server.root + "/": None})
        range_server.forget()
        FITSParser()(range_server.url(path.name), registry)
        assert len(range_server.requests) <= budget, path.name
    fetched = sum(request.range[1] - request.range[0] for request in range_server.requests if request.range)
    assert fetched < len(range_server.objects["large.fits"]) / 4
