"""What the TIFF parser makes of georeferencing, metadata, stacks and odd files; how few requests it needs."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import zarr
from rangeserver import RangeServer
from tiffwriter import Page, image_fields, register_codec, write_tiff

import virtualchunks as vc
from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedArrayWarning, UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.tiff import TIFFParser

tifffile = pytest.importorskip("tifffile")
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
register_codec()

RAMP = np.arange(600, dtype="u1").reshape(20, 30)
SCALE, TIEPOINT, MATRIX, GEOKEYS, GEODOUBLES, GEOASCII = 33550, 33922, 34264, 34735, 34736, 34737


def parse(path: Path, **options: Any) -> ManifestGroup:
    """Return the tree of a file."""
    return TIFFParser(**options).parse(path.as_uri())


def read(path: Path, name: str = "data") -> Any:
    """Return the values of one array of a file."""
    array = parse(path)[name]
    assert not isinstance(array, ManifestGroup)
    return read_values(array, ObjectStoreRegistry({path.parent.as_uri() + "/": None}))


def one(path: Path, extra: dict[int, Any], **fields: Any) -> Path:
    """Write one plain image with further fields."""
    return write_tiff(path, [Page({**image_fields(30, 20, **fields), **extra}, [RAMP.tobytes()])])


def geokeys(*keys: tuple[int, int]) -> list[int]:
    """Return a GeoKeyDirectory of keys whose values are short."""
    return [1, 1, 0, len(keys), *(number for key, value in keys for number in (key, 0, 1, value))]


# ---------------------------------------------------------------------------------------------------- georeferencing


def test_coordinates_are_those_of_pixel_centres_where_a_pixel_is_an_area(tmp_path: Path) -> None:
    """The tie point is the outer corner of the first pixel."""
    path = one(tmp_path / "a.tif", {SCALE: [10.0, 5.0, 0.0], TIEPOINT: [0.0, 0.0, 0.0, 100.0, 900.0, 0.0]})
    np.testing.assert_array_equal(read(path, "x"), 105 + 10 * np.arange(30))
    np.testing.assert_array_equal(read(path, "y"), 897.5 - 5 * np.arange(20))


def test_coordinates_are_those_of_pixel_centres_where_a_pixel_is_a_point(tmp_path: Path) -> None:
    """The tie point is the centre of the first pixel; and it may be any pixel."""
    where = {SCALE: [10.0, 5.0, 0.0], TIEPOINT: [2.0, 1.0, 0.0, 100.0, 900.0, 0.0], GEOKEYS: geokeys((1025, 2))}
    path = one(tmp_path / "a.tif", where)
    np.testing.assert_array_equal(read(path, "x"), 80 + 10 * np.arange(30))
    np.testing.assert_array_equal(read(path, "y"), 905 - 5 * np.arange(20))


def test_a_rotated_image_has_a_transformation_and_no_coordinates(tmp_path: Path) -> None:
    """One-dimensional coordinates cannot say where its pixels are."""
    matrix = [8.0, 2.0, 0.0, 100.0, 1.0, -8.0, 0.0, 200.0, *[0.0] * 7, 1.0]
    group = parse(one(tmp_path / "a.tif", {MATRIX: matrix}))
    assert set(group.arrays) == {"data", "spatial_ref"}
    attributes = group.arrays["spatial_ref"].metadata.attributes
    assert attributes["GeoTransform"] == "100.0 8.0 2.0 200.0 1.0 -8.0"
    assert group.arrays["data"].metadata.attributes["grid_mapping"] == "spatial_ref"


def test_a_geographic_system_gives_longitude_and_latitude(tmp_path: Path) -> None:
    """By its EPSG code and as a CF grid mapping."""
    keys = geokeys((1024, 2), (1025, 1), (2048, 4326))
    where = {SCALE: [0.5, 0.5, 0.0], TIEPOINT: [0.0, 0.0, 0.0, -180.0, 90.0, 0.0], GEOKEYS: keys}
    group = parse(one(tmp_path / "a.tif", where))
    attributes = group.arrays["spatial_ref"].metadata.attributes
    assert (attributes["epsg_code"], attributes["grid_mapping_name"]) == ("EPSG:4326", "latitude_longitude")
    assert group.arrays["x"].metadata.attributes["units"] == "degrees_east"
    assert group.arrays["y"].metadata.attributes["standard_name"] == "latitude"


def test_utm_zones_are_transverse_mercator(tmp_path: Path) -> None:
    """Zone 33 south: central meridian 15° E, false northing 10,000 km."""
    group = parse(one(tmp_path / "a.tif", {GEOKEYS: geokeys((1024, 1), (3072, 32733), (3076, 9001))}))
    attributes = group.arrays["spatial_ref"].metadata.attributes
    assert attributes["longitude_of_central_meridian"] == 15
    assert attributes["false_northing"] == 1e7
    assert attributes["ProjectedCRSGeoKey"] == 32733


def test_wkt_comes_from_pyproj_where_that_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no dependency, and is not imported for this."""
    made = SimpleNamespace(to_cf=lambda: {"crs_wkt": "GEOGCRS[…]", "grid_mapping_name": "latitude_longitude"})
    fake = SimpleNamespace(CRS=SimpleNamespace(from_epsg=lambda code: made if code == 4326 else None))
    monkeypatch.setitem(sys.modules, "pyproj", cast("Any", fake))
    attributes = parse(one(tmp_path / "a.tif", {GEOKEYS: geokeys((1024, 2), (2048, 4326))})).arrays["spatial_ref"]
    assert attributes.metadata.attributes["crs_wkt"] == "GEOGCRS[…]"


def test_keys_of_doubles_and_text(tmp_path: Path) -> None:
    """Values too long for a key are in fields of their own."""
    directory = [1, 1, 0, 3, 1024, 0, 1, 1, 3073, GEOASCII, 5, 0, 3078, GEODOUBLES, 1, 1]
    group = parse(one(tmp_path / "a.tif", {GEOKEYS: directory, GEODOUBLES: [1.0, 45.5], GEOASCII: "Mine|"}))
    attributes = group.arrays["spatial_ref"].metadata.attributes
    assert attributes["ProjectedCitationGeoKey"] == "Mine"
    assert attributes["ProjStdParallel1GeoKey"] == 45.5


def test_an_overview_covers_the_area_of_its_image(tmp_path: Path) -> None:
    """Its pixels are larger, and its dimensions are its own."""
    where = {SCALE: [10.0, 10.0, 0.0], TIEPOINT: [0.0, 0.0, 0.0, 0.0, 200.0, 0.0]}
    path = write_tiff(
        tmp_path / "a.tif",
        [
            Page({**image_fields(30, 20), **where}, [RAMP.tobytes()]),
            Page(image_fields(15, 10, subfile=1), [bytes(150)]),
        ],
    )
    np.testing.assert_array_equal(read(path, "1/x_1"), 10 + 20 * np.arange(15))
    tree = vc.open_virtual_datatree(path.as_uri(), parser=TIFFParser())
    assert (tree["1"].sizes["y_1"], tree["1"].sizes["x_1"]) == (10, 15)
    assert tree["1/data"].dims == ("y_1", "x_1")


# ---------------------------------------------------------------------------------------------------------- metadata


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        ("7", {}, np.uint8(7)),
        ("-9999", {}, None),
        ("nan", {}, None),
        ("1e1", {}, np.uint8(10)),
        ("-7", {"format": 2}, np.int8(-7)),
    ],
)
def test_no_data_is_the_fill_value_where_the_dtype_has_it(
    text: str, fields: dict[str, Any], expected: Any, tmp_path: Path
) -> None:
    """Otherwise it is kept as text."""
    attributes = parse(one(tmp_path / "a.tif", {42113: text}, **fields)).arrays["data"].metadata.attributes
    assert attributes.get("_FillValue") == expected
    assert attributes.get("nodata") == (text if expected is None else None)


def test_gdal_metadata(tmp_path: Path) -> None:
    """Scale, offset, units and description are CF's attributes; items of the image are the group's."""
    xml = (
        '<GDALMetadata><Item name="AREA_OR_POINT">Area</Item><Item name="OFFSET" sample="0" role="offset">-1.5</Item>'
        '<Item name="SCALE" sample="0" role="scale">0.1</Item><Item name="UNITTYPE" sample="0" role="unittype">K</Item>'
        '<Item name="DESCRIPTION" sample="0" role="description">skin</Item><Item name="k" sample="0">v</Item>'
        "</GDALMetadata>"
    )
    path = one(tmp_path / "a.tif", {42112: xml})
    group = parse(path)
    expected = {"scale_factor": 0.1, "add_offset": -1.5, "units": "K", "long_name": "skin", "k": "v"}
    assert expected.items() <= group.arrays["data"].metadata.attributes.items()
    assert group.attributes["AREA_OR_POINT"] == "Area"
    dataset = vc.open_virtual_dataset(path.as_uri(), parser=TIFFParser(), loadable_variables=["data"])
    np.testing.assert_allclose(dataset["data"], RAMP * 0.1 - 1.5, rtol=1e-6)


def test_xml_that_declares_a_document_type_is_refused(tmp_path: Path) -> None:
    """The image stays, and one warning says so."""
    xml = '<!DOCTYPE a [<!ENTITY b "c">]><GDALMetadata><Item name="x">&b;</Item></GDALMetadata>'
    with pytest.warns(UnsupportedArrayWarning, match="document type") as caught:
        group = parse(one(tmp_path / "a.tif", {42112: xml}))
    assert len(caught) == 1
    assert "data" in group.arrays
    with pytest.raises(FormatError, match="document type"):
        parse(tmp_path / "a.tif", strict=True)


@pytest.mark.parametrize("axes", ["TCZYX", "ZYX", "CTZYX", "TZYX"])
def test_ome_planes_become_one_array(axes: str, tmp_path: Path) -> None:
    """With the dimensions and the order that tifffile reads."""
    sizes = {"T": 2, "C": 3, "Z": 4, "Y": 20, "X": 30}
    values = np.arange(np.prod([sizes[a] for a in axes]), dtype="u2").reshape([sizes[a] for a in axes])
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, values, metadata={"axes": axes}, photometric="minisblack", tile=(16, 16), compression="zlib")
    array = parse(path).arrays["data"]
    assert array.metadata.dimension_names is not None
    assert "".join(array.metadata.dimension_names).upper() == axes
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(read(path), file.series[0].asarray())


def test_an_ome_pyramid(tmp_path: Path) -> None:
    """Overviews of the planes are stacked as the planes are."""
    values = np.arange(3 * 64 * 64, dtype="u2").reshape(3, 64, 64)
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(values, subifds=1, metadata={"axes": "ZYX"}, tile=(16, 16), photometric="minisblack")
        writer.write(values[:, ::2, ::2], subfiletype=1, tile=(16, 16), photometric="minisblack")
    np.testing.assert_array_equal(read(path), values)
    np.testing.assert_array_equal(read(path, "1/data"), values[:, ::2, ::2])
    assert parse(path)["1"]["data"].metadata.dimension_names == ("z", "y_1", "x_1")


# ------------------------------------------------------------------------------------------------------------- chunks


def test_adjacent_plain_strips_are_cut_anew(tmp_path: Path) -> None:
    """So that a short last one needs no rectilinear grid."""
    raw = RAMP.tobytes()
    path = write_tiff(tmp_path / "a.tif", [Page(image_fields(30, 20, rows=8), [raw[:240], raw[240:480], raw[480:]])])
    assert parse(path).arrays["data"].metadata.grid.is_regular
    np.testing.assert_array_equal(read(path), RAMP)
    apart = write_tiff(
        tmp_path / "b.tif", [Page(image_fields(30, 20, rows=8), [raw[:240] + b"-", raw[240:480], raw[480:]])]
    )
    assert [a.nominal.tolist() for a in parse(apart).arrays["data"].metadata.grid.axes] == [[8, 8, 4], [30]]
    np.testing.assert_array_equal(read(apart), RAMP)


def test_zarr_reads_strips_and_tiles(tmp_path: Path) -> None:
    """Through the store, with zarr's own codecs and ours."""
    for number, options in enumerate(
        ({"rowsperstrip": 8, "compression": "lzw"}, {"tile": (16, 16), "compression": "zlib"})
    ):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(path, RAMP, metadata=None, photometric="minisblack", **options)
        with zarr.config.set({"array.rectilinear_chunks": True}):
            array = zarr.open_group(TIFFParser()(path.as_uri()), mode="r")["data"]
            np.testing.assert_array_equal(array[:], RAMP)


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
def test_without_predictor_plain_codecs_suffice(compression: str | None, tmp_path: Path) -> None:
    """So that readers without virtualchunks read the references."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RAMP.astype("u2"), tile=(16, 16), compression=compression, byteorder=">", metadata=None)
    names = {codec["name"] for codec in parse(path).arrays["data"].metadata.codecs}
    assert names <= {"bytes", "numcodecs.zlib", "zstd"}


def test_arrays_of_files_stack(tmp_path: Path) -> None:
    """Our codec follows the samples through a new axis."""
    import xarray as xr

    datasets = []
    for number in range(2):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(path, RAMP + number, tile=(16, 16), compression="lzw", metadata=None, photometric="minisblack")
        datasets.append(vc.open_virtual_dataset(path.as_uri(), parser=TIFFParser()))
    joined = xr.concat(datasets, dim="time")
    values = read_values(joined["data"].data, ObjectStoreRegistry({tmp_path.as_uri() + "/": None}))
    np.testing.assert_array_equal(values, np.stack([RAMP, RAMP + 1]))


# ---------------------------------------------------------------------------------------------------- what is left out


def test_an_image_that_cannot_be_represented_leaves_the_others(tmp_path: Path) -> None:
    """With one warning that names it and why."""
    bad = Page(image_fields(30, 20, compression=32809), [bytes(10)])
    path = write_tiff(tmp_path / "a.tif", [Page(image_fields(30, 20), [RAMP.tobytes()]), bad])
    with pytest.warns(UnsupportedArrayWarning, match=r"image_1/data.*ThunderScan") as caught:
        group = parse(path)
    assert len(caught) == 1
    assert [name for name, _ in group.walk_arrays()] == ["data"]
    with pytest.raises(UnsupportedFeatureError, match="ThunderScan"):
        parse(path, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse(path, drop_variables=["/image_1"])


def test_images_behind_one_that_cannot_be_read_keep_their_names(tmp_path: Path) -> None:
    """Which is not taken for the image that an overview belongs to."""
    plain = Page(image_fields(30, 20), [RAMP.tobytes()])
    path = write_tiff(tmp_path / "a.tif", [plain, Page({**image_fields(30, 20), 256: 0}, [b"x"]), plain])
    with pytest.warns(UnsupportedArrayWarning, match="directory 1"):
        assert [name for name, _ in parse(path).walk_arrays()] == ["data", "image_2/data"]
    path = write_tiff(tmp_path / "b.tif", [Page({**image_fields(30, 20), 256: 0}, [b"x"]), plain])
    with pytest.warns(UnsupportedArrayWarning, match="directory 0"):
        assert [name for name, _ in parse(path).walk_arrays()] == ["image_1/data"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"compression": 6}, "old-style JPEG"),
        ({"compression": 12345}, "12345"),
        ({"samples": 3, "bits": [5, 6, 5]}, "5, 6, 5"),
        ({"format": 2, "bits": 12}, "12 bits"),
        ({"predictor": 2}, "without compression"),
        ({"compression": 32773, "predictor": 2}, "readers disagree"),
        ({"compression": 8, "predictor": 3}, "not floats"),
        ({"compression": 8, "predictor": 2, "bits": 12}, "12 bits"),
        ({"photometric": 6, "samples": 3, "bits": [8, 8, 8]}, "subsampled"),
    ],
)
def test_what_cannot_be_represented_is_named(fields: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """A file without any other image raises."""
    with pytest.raises(UnsupportedFeatureError, match=reason) as caught:
        parse(one(tmp_path / "a.tif", {}, **fields))
    assert "a.tif" in str(caught.value)


def test_claims_beyond_the_file_are_refused_at_once(tmp_path: Path) -> None:
    """Before anything is allocated for them."""
    with pytest.raises(FormatError, match="strips or tiles"):
        parse(one(tmp_path / "a.tif", {256: 2**30, 257: 2**30}, rows=1))
    with pytest.raises(LimitExceededError, match="4 GiB"):
        parse(one(tmp_path / "b.tif", {}, tile_width=2**20, tile_length=2**20))
    with pytest.raises(LimitExceededError, match="far larger"):
        parse(one(tmp_path / "d.tif", {}, tile_width=2**13, tile_length=2**14))
    with pytest.raises(FormatError, match="truncated"):
        parse(one(tmp_path / "c.tif", {273: [2**31]}))


@pytest.mark.parametrize("compression", [5, 8, 32773, 50000])
def test_chunks_that_cannot_hold_their_samples_are_refused_at_once(compression: int, tmp_path: Path) -> None:
    """No stream of 600 bytes is a gigabyte."""
    with pytest.raises(FormatError, match="at most"):
        parse(one(tmp_path / "a.tif", {256: 30_000, 257: 30_000}, compression=compression, rows=30_000))


def test_a_chain_of_directories_that_bites_its_tail_ends(tmp_path: Path) -> None:
    """What was found before is kept."""
    path = one(tmp_path / "a.tif", {})
    raw = bytearray(path.read_bytes())
    raw[-4:] = raw[4:8]
    path.write_bytes(bytes(raw))
    with pytest.warns(UnsupportedArrayWarning, match="twice"):
        assert "data" in parse(path).arrays


def test_a_group_of_the_file_alone(tmp_path: Path) -> None:
    """As the root; one that is not there is named, with those that are."""
    path = write_tiff(
        tmp_path / "a.tif",
        [Page(image_fields(30, 20), [RAMP.tobytes()]), Page(image_fields(15, 10, subfile=1), [bytes(150)])],
    )
    assert parse(path, group="1").arrays["data"].shape == (10, 15)
    with pytest.raises(FormatError, match="'1'"):
        parse(path, group="2")


# ----------------------------------------------------------------------------------------------------------- requests


def requests_for(server: RangeServer, path: Path) -> int:
    """Return how many requests parsing a file takes."""
    server.objects["a.tif"] = path.read_bytes()
    server.forget()
    registry = ObjectStoreRegistry({server.root + "/": None})
    TIFFParser()(server.url("a.tif"), registry)
    return len(server.requests)


def test_directories_at_the_front_take_one_request(range_server: RangeServer, tmp_path: Path) -> None:
    """As in a cloud-optimised GeoTIFF, overviews included."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        big = np.random.default_rng(0).integers(0, 255, (2048, 2048), dtype="u1")
        writer.write(big, tile=(256, 256), subifds=2, metadata=None, photometric="minisblack")
        writer.write(big[::2, ::2], tile=(256, 256), subfiletype=1, metadata=None, photometric="minisblack")
        writer.write(big[::4, ::4], tile=(256, 256), subfiletype=1, metadata=None, photometric="minisblack")
    assert requests_for(range_server, path) <= 3


def test_directories_behind_the_data_take_three_requests(range_server: RangeServer, tmp_path: Path) -> None:
    """A file of 8 MB with a million bytes of offsets."""
    chunk = bytes(64)
    fields = image_fields(8, 8 * 120_000, rows=8)
    path = write_tiff(tmp_path / "a.tif", [Page(fields, [chunk] * 120_000)], directories_last=True)
    assert requests_for(range_server, path) <= 3
