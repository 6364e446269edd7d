"""The GRIB parser against ecCodes (values) and cfgrib (names, coordinates), on files that ecCodes makes."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from griboracle import cfgrib_dataset, fused, gridded, message, messages_of, points_of, values_of, write

import virtualchunks as vc
from virtualchunks.codecs.grib_handle import opened, with_keys
from virtualchunks.codecs.grib_sections import field_message
from virtualchunks.errors import (
    DecodeError,
    FormatError,
    UnsupportedArrayWarning,
    UnsupportedFeatureError,
    VirtualChunksError,
)
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.testing.parsers import ParserTests
from virtualchunks_parsers.grib import GRIBParser

#: Puts the boundaries of messages where no cut by a whole fraction of the file meets them.
HEADING = b"\r\r\n001\n"
LEVELS, STEPS = (850, 500, 1000), (0, 6)


def levels(**keys):
    """t and u on three levels and two steps, shuffled."""
    cells = list(itertools.product((130, 131), STEPS, LEVELS))
    return [
        message("regular_ll_pl_grib2", seed=number, paramId=param, step=step, level=level, **keys)
        for number, (param, step, level) in enumerate(cells[::-1])
    ]


def members():
    return [
        message("regular_ll_sfc_grib2", seed=number, productDefinitionTemplateNumber=1, shortName="2t", number=number)
        for number in (2, 0, 1)
    ]


def dates(sample="regular_ll_pl_grib1"):
    return [message(sample, seed=date, dataDate=20240100 + date, paramId=130, level=500) for date in (3, 1, 2)]


def parse(path, **options):
    registry = ObjectStoreRegistry().grant(path.as_uri())
    return GRIBParser(**options).parse(path.as_uri(), registry), registry


def leaves(tree):
    return {f"{kind}/{name}": leaf for kind, group in tree.groups.items() for name, leaf in group.groups.items()}


class TestGRIBParser(ParserTests):
    crashes = 4
    parser = GRIBParser()
    damage_within = 400

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        return {
            "levels": write(folder / "levels.grib2", [HEADING, *levels()]),
            "members": write(folder / "members.grib2", [HEADING, *members()]),
            "dates": write(folder / "dates.grib", [HEADING, *dates()]),
            "missing": write(folder / "missing.grib2", [message(missing=True, shortName="2t")]),
            "reduced": write(folder / "reduced.grib", [message("reduced_gg_pl_32_grib2")]),
            "projected": write(folder / "projected.grib2", [gridded("lambert"), gridded("healpix")]),
            "rotated": write(folder / "rotated.grib1", [message("rotated_ll_pl_grib1")]),
        }

    def reference(self, path):
        if path.stem == "projected":  # cfgrib does not put two grids into one dataset; see _check_damaged
            return {}
        found = cfgrib_dataset(path)
        return {name: found[name].values.astype("f8") for name in found.data_vars}

    def _check_damaged(self, path, expected, label):
        """Every block that is read is what ecCodes reads from some message of the damaged file."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree, registry = self.parse(path)
        except VirtualChunksError as error:
            if path.name not in str(error):
                raise AssertionError(f"{label}: the error does not name the file: {error}") from error
            return
        known = None
        for leaf in leaves(tree).values():
            for name, array in leaf.arrays.items():
                try:
                    values = read_values(array, registry, name=name)
                except VirtualChunksError:
                    continue
                if "GRIB_paramId" not in array.metadata.attributes:
                    continue
                try:
                    known = {block.tobytes() for block in messages_of(path)} if known is None else known
                except Exception:  # noqa: BLE001 - ecCodes may refuse a damaged message in any way it likes
                    return
                present = array.manifest.present.ravel()
                blocks = values.reshape(present.size, -1)[present]
                assert {block.tobytes() for block in blocks} <= known, f"{label}: {name}"

    def _reference_of_damaged(self, path):
        return {}  # cfgrib can abort the process on damaged files; see _check_damaged


@pytest.mark.parametrize("make", [levels, members, dates])
def test_coordinates_are_those_of_cfgrib(make, tmp_path):
    path = write(tmp_path / "a.grib", make())
    expected = cfgrib_dataset(path)
    tree, registry = parse(path)
    decoded = {}
    for name, array in tree.arrays.items():
        attributes = {key: value for key, value in array.metadata.attributes.items() if key != "coordinates"}
        decoded[name] = (array.metadata.dimension_names, read_values(array, registry, name=name), attributes)
    found = xr.decode_cf(xr.Dataset(decoded), decode_timedelta=True)
    assert set(found.variables) == set(expected.variables)
    for name in expected.variables:
        assert found[name].dims == expected[name].dims, name
        np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=name)
        for key in ("units", "standard_name", "long_name"):
            assert found[name].attrs.get(key) == expected[name].attrs.get(key), (name, key)


def test_every_message_is_one_chunk_of_one_cell(tmp_path):
    path = write(tmp_path / "a.grib2", levels())
    array = parse(path)[0].arrays["t"]
    assert array.metadata.chunks == (1, 1, 4, 6)
    assert array.manifest.present.all()
    assert array.metadata.dimension_names == ("step", "isobaricInhPa", "latitude", "longitude")


def test_cells_without_a_message_are_missing(tmp_path):
    path = write(tmp_path / "a.grib2", levels()[1:])
    tree, registry = parse(path)
    values = read_values(tree.arrays["u"], registry)
    np.testing.assert_array_equal(values, cfgrib_dataset(path)["u"].values)
    assert np.isnan(values).any()


def test_names_of_groups_do_not_depend_on_what_else_is_there(tmp_path):
    first, second = levels()[:6], [*members(), *dates(), message("reduced_gg_pl_32_grib2")]
    alone = leaves(parse(write(tmp_path / "a.grib", first))[0])
    together = leaves(parse(write(tmp_path / "b.grib", [*second, *first]))[0])
    assert set(alone) < set(together)
    for name, leaf in alone.items():
        assert {key: array.metadata for key, array in leaf.arrays.items()} == {
            key: array.metadata for key, array in together[name].arrays.items()
        }
    part = next(iter(alone))
    assert set(parse(tmp_path / "b.grib", group=part)[0].arrays) == set(alone[part].arrays)


def test_one_grid_after_another_gives_cubes_of_their_own(tmp_path):
    path = write(tmp_path / "a.grib", [message("regular_ll_pl_grib2"), message("reduced_gg_pl_32_grib2")])
    tree, registry = parse(path)
    found = [
        array
        for leaf in leaves(tree).values()
        for array in leaf.arrays.values()
        if "GRIB_paramId" in array.metadata.attributes
    ]
    assert not tree.arrays
    for array, expected in zip(found, messages_of(path), strict=True):
        np.testing.assert_array_equal(read_values(array, registry).ravel(), expected)


def test_a_missing_group_is_an_error_that_lists_those_there(tmp_path):
    path = write(tmp_path / "a.grib2", members())
    with pytest.raises(FormatError, match=r"no group 'nowhere'; the groups there are 'heightAboveGround_instant'"):
        parse(path, group="nowhere")


def test_messages_are_filtered_by_keys(tmp_path):
    path = write(tmp_path / "a.grib2", [*levels(), *members()])
    tree, _ = parse(path, filter_by_keys={"typeOfLevel": "isobaricInhPa", "level": [500, 850]})
    assert tree.arrays["t"].shape == (2, 2, 4, 6)
    assert "t2m" not in tree.arrays


def test_dropped_variables_are_left_out(tmp_path):
    path = write(tmp_path / "a.grib2", levels())
    assert "u" not in parse(path, drop_variables="u")[0].arrays


@pytest.mark.parametrize("path", ["/heightAboveGround_instant", "t2m", "/heightAboveGround_instant/{leaf}"])
def test_groups_and_variables_are_dropped_by_path(tmp_path, path):
    file = write(tmp_path / "a.grib2", [*levels(), *members()])
    leaf = next(iter(parse(file)[0].groups["heightAboveGround_instant"].groups))
    tree, _ = parse(file, drop_variables=[path.format(leaf=leaf)])
    assert set(tree.groups) == {"isobaricInhPa_instant"}
    assert set(tree.arrays) >= {"t", "u"}


@pytest.mark.parametrize(
    "junk", [b"\r\r\n001\r\r\nHHXX01 KWBC 010000\r\r\n", b"\0" * 100_000, b"x GRIB" + bytes(20), b"GRI"]
)
def test_what_lies_between_messages_is_passed_over(tmp_path, junk):
    path = write(tmp_path / "a.grib2", [b"", *(part for data in levels() for part in (data, junk))])
    assert parse(path)[0].arrays["t"].manifest.present.all()


def test_files_may_begin_with_a_telecommunication_header(tmp_path):
    path = write(tmp_path / "a.grib2", [b"****0000000200****\nHHXX01 KWBC 010000\r\r\n", *levels()])
    assert GRIBParser.recognises(path.read_bytes()[:4096])
    assert parse(path)[0].arrays["t"].manifest.present.all()


class TestDuplicates:
    @pytest.fixture
    def path(self, tmp_path):
        return write(tmp_path / "a.grib2", [message(seed=seed, shortName="2t") for seed in (1, 2)])

    def test_raise(self, path):
        with pytest.raises(FormatError, match=r"two messages for one cell of t2m: at offsets 0 and \d+.*on_duplicate"):
            parse(path)

    @pytest.mark.parametrize(("choice", "seed"), [("first", 1), ("last", 2)])
    def test_are_chosen(self, path, choice, seed):
        tree, registry = parse(path, on_duplicate=choice)
        np.testing.assert_array_equal(
            read_values(tree.arrays["t2m"], registry).ravel(), values_of(message(seed=seed, shortName="2t"))
        )

    def test_other_choices_are_refused(self):
        with pytest.raises(ValueError, match="'raise', 'first' or 'last'"):
            GRIBParser(on_duplicate="latest")

    def test_differing_headers_make_cubes_of_their_own(self, tmp_path):
        keys = {"shortName": "tp", "stepType": "accum"}
        messages = [message(seed=number, **keys, stepRange=step) for number, step in enumerate(("0-6", "5-6", "0-12"))]
        path = write(tmp_path / "a.grib2", messages)
        tree, registry = parse(path)
        found = [leaf.arrays["tp"] for leaf in leaves(tree).values()]
        assert sorted(array.manifest.present.sum() for array in found) == [1, 1, 1]
        assert all("_period-" in name for name in leaves(tree))
        got = {read_values(array, registry).tobytes() for array in found}
        assert got == {values_of(data).tobytes() for data in messages}


class TestMessagesOfSeveralFields:
    @pytest.fixture
    def path(self, tmp_path):
        messages = [
            fused(
                *(
                    message("regular_ll_pl_grib2", seed=10 * level + param, paramId=param, level=level)
                    for param in (131, 132)
                )
            )
            for level in LEVELS
        ]
        return write(tmp_path / "a.grib2", messages)

    def test_every_field_is_read(self, path):
        tree, registry = parse(path)
        found = {name: read_values(tree.arrays[name], registry) for name in ("u", "v")}
        blocks = {block.tobytes() for values in found.values() for block in values}
        assert blocks == {values.tobytes() for values in messages_of(path)}
        assert len(blocks) == 6
        expected = values_of(message("regular_ll_pl_grib2", seed=5132, paramId=132, level=500))
        np.testing.assert_array_equal(found["v"][2].ravel(), expected)

    def test_arrays_stay_homogeneous(self, path):
        tree, _ = parse(path)
        assert [codec["configuration"] for codec in tree.arrays["v"].metadata.encoding.codecs] == [{"field": 1}]
        assert not any(tree.arrays["v"].manifest.sources.encodings)

    def test_fields_in_other_places_decode_as_well(self, tmp_path):
        one, other = (
            message("regular_ll_pl_grib2", seed=n, paramId=130, level=level) for n, level in ((1, 500), (2, 850))
        )
        third = message("regular_ll_pl_grib2", seed=3, paramId=130, level=1000)
        tree, registry = parse(write(tmp_path / "a.grib2", [fused(one, other), third]))
        found = read_values(tree.arrays["t"], registry).reshape(3, -1)
        np.testing.assert_array_equal(found, [values_of(third), values_of(other), values_of(one)])

    def test_bitmaps_are_reused(self):
        one, other = (
            message("regular_ll_pl_grib2", seed=n, missing=True, level=level) for n, level in ((1, 500), (2, 850))
        )
        whole = bytearray(fused(one, other))
        at = [place for place in range(len(whole)) if whole[place : place + 6] == (9).to_bytes(4, "big") + b"\6\0"]
        assert len(at) == 2
        whole[at[1] : at[1] + 9] = (6).to_bytes(4, "big") + b"\6\xfe"
        whole[8:16] = len(whole).to_bytes(8, "big")
        np.testing.assert_array_equal(values_of(field_message(bytes(whole), 1)), values_of(other))


LINES, PLANE, POINTS = ("latitude", "longitude"), ("y", "x"), ("values",)
GRID_CASES = [
    *(((message, f"regular_ll_pl_grib{edition}"), LINES) for edition in (1, 2)),
    *(((message, f"regular_gg_pl_grib{edition}"), LINES) for edition in (1, 2)),
    *(((message, f"rotated_ll_pl_grib{edition}"), PLANE) for edition in (1, 2)),
    *(((message, f"rotated_gg_pl_grib{edition}"), PLANE) for edition in (1, 2)),
    *(((message, f"polar_stereographic_pl_grib{edition}"), PLANE) for edition in (1, 2)),
    *(((message, f"reduced_gg_pl_32_grib{edition}"), POINTS) for edition in (1, 2)),
    *(((message, f"reduced_rotated_gg_pl_grib{edition}"), POINTS) for edition in (1, 2)),
    *(((gridded, name), PLANE) for name in ("lambert", "mercator", "lambert_azimuthal_equal_area")),
    *(((gridded, name), POINTS) for name in ("healpix", "unstructured_grid")),
]


class TestGrids:
    @pytest.mark.parametrize("mode", range(0, 256, 16))
    def test_every_value_has_its_place_in_every_scanning_mode(self, mode, tmp_path):
        south, west = bool(mode & 64), bool(mode & 128)
        ends = {"latitudeOfFirstGridPointInDegrees": 0.0, "latitudeOfLastGridPointInDegrees": 30.0} if south else {}
        if west:
            ends |= {"longitudeOfFirstGridPointInDegrees": 60.0, "longitudeOfLastGridPointInDegrees": 10.0}
        data = message(**ends, scanningMode=mode, shortName="2t")
        tree, registry = parse(write(tmp_path / "a.grib2", [data]))
        decoded = {
            name: xr.Variable(array.metadata.dimension_names, read_values(array, registry))
            for name, array in tree.arrays.items()
            if name in ("t2m", "latitude", "longitude")
        }
        found = xr.Dataset(decoded)
        lats, lons = np.linspace(0, 30, 4), np.linspace(10, 60, 6)
        rows = {(lat, lon): value for lat, lon, value in placed(data, mode, lats, lons)}
        points = xr.broadcast(found["t2m"], found["latitude"], found["longitude"])
        got = {
            (round(lat), round(lon)): value
            for value, lat, lon in zip(*(point.values.ravel() for point in points), strict=True)
        }
        assert got == rows

    def test_projected_grids_have_computed_coordinates(self, tmp_path):
        path = write(tmp_path / "a.grib", [message("rotated_ll_pl_grib2"), message("rotated_ll_pl_grib2", level=500)])
        tree, registry = parse(path)
        expected = cfgrib_dataset(path)
        for name in ("latitude", "longitude"):
            assert tree.arrays[name].metadata.dimension_names == ("y", "x")
            np.testing.assert_array_equal(read_values(tree.arrays[name], registry), expected[name].values)

    @pytest.mark.parametrize(("make", "dimensions"), GRID_CASES, ids=lambda case: case[1] if callable(case[0]) else "")
    def test_every_grid_reads_as_the_library_places_it(self, make, dimensions, tmp_path):
        maker, name = make
        data = maker(name)
        tree, registry = parse(write(tmp_path / "a.grib", [data]))
        (variable,) = (array for array in tree.arrays.values() if "GRIB_paramId" in array.metadata.attributes)
        assert variable.metadata.dimension_names == dimensions
        np.testing.assert_array_equal(read_values(variable, registry).ravel(), values_of(data))
        if name == "unstructured_grid":
            assert "latitude" not in tree.arrays
            return
        read = {
            label: xr.Variable(array.metadata.dimension_names, read_values(array, registry))
            for label, array in (("v", variable), *((key, tree.arrays[key]) for key in ("latitude", "longitude")))
        }
        points = xr.broadcast(*(xr.Dataset(read)[label] for label in ("v", "latitude", "longitude")))
        for one, expected in zip(points[1:], points_of(data), strict=True):
            np.testing.assert_array_equal(one.transpose(*dimensions).values.ravel(), expected)

    @pytest.mark.parametrize("sample", ["regular_gg_pl_grib1", "polar_stereographic_pl_grib2", "reduced_ll_sfc_grib2"])
    def test_dimensions_and_values_are_those_of_cfgrib(self, sample, tmp_path):
        path = write(tmp_path / "a.grib", [message(sample)])
        tree, registry = parse(path)
        expected = cfgrib_dataset(path)
        (name,) = expected.data_vars
        assert tree.arrays[name].metadata.dimension_names == expected[name].dims
        np.testing.assert_array_equal(read_values(tree.arrays[name], registry), expected[name].values)

    @pytest.mark.parametrize("sample", ["sh_ml_grib1", "sh_ml_grib2", "sh_pl_grib1", "sh_pl_grib2"])
    def test_spherical_harmonics_have_one_dimension(self, sample, tmp_path):
        path = write(tmp_path / "a.grib", [message(sample)])
        tree, registry = parse(path)
        (name,) = (name for name, array in tree.arrays.items() if "GRIB_paramId" in array.metadata.attributes)
        assert tree.arrays[name].metadata.dimension_names == ("values",)
        assert "latitude" not in tree.arrays
        np.testing.assert_array_equal(read_values(tree.arrays[name], registry), next(messages_of(path)))


def placed(data, mode, lats, lons):
    """Latitude, longitude and value of every point, by the definition of the scanning modes."""
    values = iter(values_of(data))
    across = lons[::-1] if mode & 128 else lons
    along = lats if mode & 64 else lats[::-1]
    outer, inner = (across, along) if mode & 32 else (along, across)
    for number, one in enumerate(outer):
        for other in inner[::-1] if mode & 16 and number % 2 else inner:
            lat, lon = (other, one) if mode & 32 else (one, other)
            yield round(lat), round(lon), next(values)


def message_at_level(data, level):
    """The same message, on another level."""
    return with_keys(data, {"level": level})


class TestRequests:
    @pytest.mark.parametrize(("missing", "of_each"), [(False, 1), (True, 5)], ids=["plain", "bitmaps"])
    def test_headers_are_a_small_part_of_large_messages(self, range_server, missing, of_each):
        grid = {"Ni": 1000, "Nj": 900, "iDirectionIncrement": 1, "jDirectionIncrement": 1}
        large = [message("regular_ll_pl_grib2", seed=n, missing=missing, **grid, level=100) for n in (1, 2)]
        messages = [message_at_level(large[n % 2], level) for n, level in enumerate(range(100, 120))]
        assert min(map(len, messages)) > 1_000_000
        whole = b"".join(messages)
        range_server.objects["a.grib2"] = whole
        url = range_server.url("a.grib2")
        registry = ObjectStoreRegistry().grant(url)
        tree = GRIBParser().parse(url, registry)
        assert tree.arrays["t"].manifest.present.sum() == 20
        fetched = sum(request.range[1] - request.range[0] for request in range_server.requests if request.range)
        assert all(request.range for request in range_server.requests)
        assert fetched <= 0.05 * len(whole)
        assert len(range_server.requests) <= 2 + of_each * 20

    def test_small_messages_are_read_in_few_requests(self, range_server):
        range_server.objects["a.grib2"] = b"".join(levels() * 1)
        url = range_server.url("a.grib2")
        GRIBParser().parse(url, ObjectStoreRegistry().grant(url))
        assert len(range_server.requests) == 1


class TestCorruption:
    def test_a_truncated_last_message_is_an_error(self, tmp_path):
        path = write(tmp_path / "a.grib2", [b"".join(levels())[:-5]])
        with pytest.raises(FormatError, match=r"claims \d+ bytes, and \d+ are left.*a\.grib2"):
            parse(path)

    @pytest.mark.parametrize("length", [0, 4, 2**32 - 1])
    def test_impossible_sections_are_an_error(self, tmp_path, length):
        data = bytearray(message())
        data[16:20] = length.to_bytes(4, "big")
        with pytest.raises(FormatError, match="section 1"):
            parse(write(tmp_path / "a.grib2", [bytes(data)]))

    @pytest.mark.parametrize("length", [0, 12, 2**63])
    def test_impossible_messages_are_an_error(self, tmp_path, length):
        data = bytearray(message())
        data[8:16] = length.to_bytes(8, "big")
        with pytest.raises(FormatError, match=f"claims {length} bytes"):
            parse(write(tmp_path / "a.grib2", [bytes(data)]))

    @pytest.mark.parametrize("sample", ["regular_gg_pl_grib1", "regular_gg_pl_grib2", "rotated_gg_pl_grib2"])
    @pytest.mark.parametrize("further", [0.002, 1.0])
    def test_a_gaussian_grid_that_begins_beyond_its_latitudes_has_no_coordinates(self, tmp_path, sample, further):
        """ecCodes would end the process."""
        first = {"latitudeOfFirstGridPointInDegrees": 87.8638 + further}
        tree, registry = parse(write(tmp_path / "a.grib", [message(sample, paramId=130, **first)]))
        assert "latitude" not in tree.arrays
        assert read_values(tree.arrays["t"], registry).size == 8192

    def test_a_grid_that_claims_too_much_is_left_out(self, tmp_path):
        data = bytearray(message())
        at = data.index(b"\0\0\0\x48\3")
        data[at + 6 : at + 10] = (2**32 - 1).to_bytes(4, "big")
        path = write(tmp_path / "a.grib2", [bytes(data)])
        with pytest.warns(UnsupportedArrayWarning, match="claims 4294967295 points"):
            parse(path)

    def test_a_grid_that_disagrees_with_the_values_does_not_decode(self, tmp_path):
        data = bytearray(message(shortName="2t"))
        at = data.index(b"\0\0\0\x48\3")
        data[at + 6 : at + 10] = (12).to_bytes(4, "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree, registry = parse(write(tmp_path / "a.grib2", [bytes(data)]))
        with pytest.raises(DecodeError):
            read_values(tree.arrays["t2m"], registry)

    def test_impossible_dates_are_left_out_or_refused(self, tmp_path):
        data = bytearray(message(shortName="2t"))
        data[16 + 14] = 13
        path = write(tmp_path / "a.grib2", [bytes(data), message(shortName="sp")])
        with pytest.warns(UnsupportedArrayWarning, match="which is no date"):
            tree, _ = parse(path)
        assert set(tree.arrays) >= {"sp"}
        with pytest.raises(UnsupportedFeatureError, match="no date"):
            parse(path, strict=True)


def test_messages_of_edition_1_beyond_8_mib_are_found(tmp_path):
    keys = {"Ni": 2000, "Nj": 1500}
    large, small = message("regular_ll_sfc_grib1", paramId=167, **keys), message("regular_ll_sfc_grib1", paramId=134)
    assert len(large) > 2**23
    assert large[4] & 0x80
    path = write(tmp_path / "a.grib1", [large, small])
    tree, registry = parse(path)
    arrays = [leaf.arrays["t2m"] for leaf in leaves(tree).values() if "t2m" in leaf.arrays]
    np.testing.assert_array_equal(read_values(arrays[0], registry).ravel(), values_of(large))


class TestOpening:
    """Through xarray: what a user does."""

    @pytest.fixture
    def paths(self, tmp_path):
        days = [
            [
                message("regular_ll_pl_grib2", seed=10 * day + n, dataDate=20240100 + day, level=level)
                for n, level in enumerate(LEVELS)
            ]
            for day in (1, 2, 3)
        ]
        return [write(tmp_path / f"{day}.grib2", messages) for day, messages in enumerate(days)]

    def test_coordinates_are_loaded_without_being_asked_for(self, paths):
        found = vc.open_virtual_dataset(paths[0])
        expected = cfgrib_dataset(paths[0])
        assert set(found.coords) == set(expected.coords)
        for name in expected.coords:
            xr.testing.assert_equal(found[name].variable, expected[name].variable)
        assert isinstance(found["t"].data, vc.ManifestArray)

    def test_files_of_a_time_each_concatenate(self, paths):
        found = vc.open_virtual_mfdataset(paths, combine="nested", concat_dim="time")
        expected = xr.concat([cfgrib_dataset(path) for path in paths], "time", coords="minimal", compat="override")
        assert found["t"].data.manifest.present.all()
        xr.testing.assert_equal(found.virtual.open().load(), expected)

    def test_files_of_a_time_each_find_their_order(self, paths):
        found = vc.open_virtual_mfdataset(paths[::-1], preprocess=lambda one: one.expand_dims("time"))
        expected = xr.concat([cfgrib_dataset(path) for path in paths], "time", coords="minimal", compat="override")
        xr.testing.assert_equal(found.virtual.open()["t"].load(), expected["t"])

    def test_files_of_several_times_combine_by_coordinates(self, tmp_path):
        made = [
            message("regular_ll_pl_grib2", seed=date, dataDate=20240100 + date, paramId=130, level=500)
            for date in (1, 2, 3, 4)
        ]
        paths = [write(tmp_path / f"{n}.grib2", made[n : n + 2]) for n in (0, 2)]
        found = vc.open_virtual_mfdataset(paths[::-1])
        expected = xr.combine_by_coords([cfgrib_dataset(path) for path in paths], combine_attrs="drop")
        xr.testing.assert_equal(found.virtual.open().load(), expected)

    def test_coordinates_of_projected_grids_stay_references(self, tmp_path):
        paths = [
            write(tmp_path / f"{date}.grib2", [message("rotated_ll_pl_grib2", seed=date, dataDate=20240100 + date)])
            for date in (1, 2)
        ]
        found = vc.open_virtual_mfdataset(paths, combine="nested", concat_dim="time")
        assert found["latitude"].dims == ("y", "x")
        expected = xr.concat([cfgrib_dataset(path) for path in paths], "time", coords="minimal", compat="override")
        xr.testing.assert_equal(found.virtual.open().load(), expected)

    def test_stores_are_read_by_zarr(self, paths):
        registry = ObjectStoreRegistry().grant(paths[0].as_uri())
        store = GRIBParser()(paths[0].as_uri(), registry)
        found = xr.open_zarr(store, consolidated=False, zarr_format=3, decode_timedelta=True)
        expected = cfgrib_dataset(paths[0])
        xr.testing.assert_equal(found.load(), expected)


class TestGribberish:
    def test_it_is_named_where_it_decodes(self, tmp_path):
        tree, _ = parse(write(tmp_path / "a.grib2", levels()), codec="gribberish")
        codecs = tree.arrays["t"].metadata.encoding.codecs
        assert list(codecs) == [{"name": "gribberish", "configuration": {"var": "t"}}]

    @pytest.mark.parametrize("packing", ["grid_simple", "grid_ccsds"])
    @pytest.mark.parametrize("scale", [-3, 0, 5])
    def test_it_is_named_where_its_factor_is_that_of_the_library(self, tmp_path, packing, scale):
        """Its values are (X 2^E + R) 10^-D in double precision, in this order."""
        data = message(packingType=packing, decimalPrecision=scale, shortName="2t", scaled=10.0**-scale)
        tree, _ = parse(write(tmp_path / "a.grib2", [data]), codec="gribberish")
        assert tree.arrays["t2m"].metadata.encoding.codecs[0]["name"] == "gribberish"
        with opened(data) as keys:
            reference, binary, decimal = (
                keys.get(name) for name in ("referenceValue", "binaryScaleFactor", "decimalScaleFactor")
            )
        assert decimal == scale
        factor = 1 / 10.0**scale if scale > 0 else 10.0**-scale
        packed = np.rint((values_of(data) / factor - reference) / 2.0**binary)
        np.testing.assert_array_equal((packed * 2.0**binary + reference) * factor, values_of(data))

    @pytest.mark.parametrize(
        "data",
        [
            message("regular_ll_sfc_grib1"),
            message("sh_pl_grib2"),
            message(missing=True),
            message(decimalPrecision=6, scaled=1e-6),
            *(
                message(packingType=f"grid_{packing}")
                for packing in ("ieee", "jpeg", "complex", "complex_spatial_differencing")
            ),
        ],
        ids=["edition-1", "spectral", "bitmap", "scale-6", "ieee", "jpeg", "complex", "differences"],
    )
    def test_it_is_refused_by_name_where_it_does_not(self, tmp_path, data):
        path = write(tmp_path / "a.grib", [data])
        with pytest.warns(UnsupportedArrayWarning, match="gribberish decodes"):
            tree, _ = parse(path, codec="gribberish")
        assert not tree.arrays
        with pytest.raises(UnsupportedFeatureError, match="gribberish decodes"):
            parse(path, codec="gribberish", strict=True)

    def test_other_codecs_are_refused(self):
        with pytest.raises(ValueError, match="'gribberish'"):
            GRIBParser(codec="cfgrib")
