"""Indexes beside GRIB files: what is read by them is what is read by the headers."""

from __future__ import annotations

import itertools
import json

import pytest
from griboracle import fused, message

from virtualchunks.errors import FormatError, NotGrantedError, StaleIndexWarning
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.grib import GRIBParser
from virtualchunks_parsers.grib.inventory import level_keys, parameter_keys
from virtualchunks_parsers.grib.parameters import PARAMETERS

CELLS = tuple(itertools.product((("t", "TMP"), ("u", "UGRD")), (0, 6), (1000, 500)))
WGRIB2 = {0: "anl", 6: "6 hour fcst"}


def messages():
    keys = {"dataType": "fc", "dataDate": 20240102, "dataTime": 600}
    upper = [
        message(
            "regular_ll_pl_grib2",
            seed=number,
            **keys,
            step=step,
            shortName=name,
            typeOfLevel="isobaricInhPa",
            level=level,
        )
        for number, ((name, _), step, level) in enumerate(CELLS)
    ]
    return [
        *upper,
        message("regular_ll_pl_grib2", seed=99, **keys, step=0, typeOfLevel="surface", level=0, shortName="sp"),
    ]


def places(parts):
    ends = list(itertools.accumulate(map(len, parts)))
    return [(end - len(part), len(part)) for end, part in zip(ends, parts, strict=True)]


def idx(parts):
    described = [f"{name}:{level} mb:{WGRIB2[step]}:" for (_, name), step, level in CELLS] + ["PRES:surface:anl:"]
    lines = zip(places(parts), described, strict=True)
    return "".join(f"{n}:{offset}:d=2024010206:{text}\n" for n, ((offset, _), text) in enumerate(lines, 1)).encode()


def index(parts):
    upper = [
        {"levtype": "pl", "levelist": str(level), "step": str(step), "param": name} for (name, _), step, level in CELLS
    ]
    described = [*upper, {"levtype": "sfc", "step": "0", "param": "sp"}]
    lines = zip(places(parts), described, strict=True)
    common = {"domain": "g", "date": "20240102", "time": "0600", "type": "fc"}
    return "\n".join(
        json.dumps({**common, **keys, "_offset": offset, "_length": length}) for (offset, length), keys in lines
    ).encode()


@pytest.fixture
def served(range_server):
    parts = messages()
    range_server.objects |= {"a.grib2": b"".join(parts), "a.idx": idx(parts), "a.index": index(parts)}
    url = range_server.url("a.grib2")
    return url, ObjectStoreRegistry().grant(url).grant(range_server.url("a.idx")).grant(range_server.url("a.index"))


@pytest.mark.parametrize("sidecar", ["a.idx", "a.index"])
def test_an_index_leads_to_the_same_tree_as_the_headers(served, range_server, sidecar):
    url, registry = served
    expected = GRIBParser().parse(url, registry)
    range_server.forget()
    found = GRIBParser(index=range_server.url(sidecar)).parse(url, registry)
    assert len(range_server.requests) == 2
    assert found == expected


@pytest.mark.parametrize("sidecar", ["a.idx", "a.index"])
def test_an_index_of_a_longer_file_is_refused(served, range_server, sidecar):
    url, registry = served
    range_server.objects["a.grib2"] = b"".join(messages()[:-1])
    with pytest.raises(FormatError, match="another version"):
        GRIBParser(index=range_server.url(sidecar)).parse(url, registry)


@pytest.mark.parametrize("sidecar", ["a.idx", "a.index"])
def test_an_index_of_other_messages_is_refused(served, range_server, sidecar):
    url, registry = served
    range_server.objects["a.grib2"] = b"".join([message("reduced_gg_pl_32_grib2"), *messages()])
    with pytest.raises(FormatError, match=r"another version|no GRIB message"):
        GRIBParser(index=range_server.url(sidecar)).parse(url, registry)


@pytest.mark.parametrize(
    "text", [b"", b"no index", b"{}", b'{"_offset": "a", "_length": 1}', b"1:x:d=2024010206:TMP:surface:anl:"]
)
def test_what_is_no_index_is_refused(served, range_server, text):
    url, registry = served
    range_server.objects["a.idx"] = text
    with pytest.raises(FormatError):
        GRIBParser(index=range_server.url("a.idx")).parse(url, registry)


def test_an_index_must_be_granted(served, range_server):
    url, _ = served
    with pytest.raises(NotGrantedError):
        GRIBParser(index=range_server.url("a.idx")).parse(url, ObjectStoreRegistry().grant(url))


def field(text, *, parameter=(0, 0, 0), surfaces=(1, 0, 0, 255, 0, 0), **keys):
    """What an index says behind the date, and a message of NCEP for it, by its codes."""
    first, second = surfaces[:3], surfaces[3:]
    levels = {
        f"{name}Of{which}FixedSurface": value
        for which, values in (("First", first), ("Second", second))
        for name, value in zip(("type", "scaleFactor", "scaledValue"), values, strict=True)
    }
    names = ("discipline", "parameterCategory", "parameterNumber")
    codes = dict(zip(names, parameter, strict=True))
    reference = {"centre": 7, "dataDate": 20240102, "dataTime": 600}
    first_keys = {"productDefinitionTemplateNumber": keys.pop("productDefinitionTemplateNumber", 0)}
    return text, {**reference, **first_keys, **codes, **levels, **keys}


ACCUMULATED = {"productDefinitionTemplateNumber": 8, "typeOfStatisticalProcessing": 1}
MEMBER = {"productDefinitionTemplateNumber": 1, "numberOfForecastsInEnsemble": 30}
UNDERSTOOD = (
    field("TMP:2 m above ground:anl:", surfaces=(103, 0, 2, 255, 0, 0)),
    field("TMP:850 mb:3 hour fcst:", surfaces=(100, 0, 85000, 255, 0, 0), step=3),
    field("TMP:0.4 mb:3 hour fcst:", surfaces=(100, 0, 40, 255, 0, 0), step=3),
    field("HGT:cloud ceiling:15 min fcst:", parameter=(0, 3, 5), surfaces=(215, 0, 0, 255, 0, 0), step="15m"),
    field("HLCY:3000-0 m above ground:1 day fcst:", parameter=(0, 7, 8), surfaces=(103, 0, 3000, 103, 0, 0), step=24),
    field("CAPE:180-0 mb above ground:anl:", parameter=(0, 7, 6), surfaces=(108, 0, 18000, 108, 0, 0)),
    field("TCDC:entire atmosphere:anl:", parameter=(0, 6, 1), surfaces=(10, 0, 0, 255, 0, 0)),
    field(
        "PWAT:entire atmosphere (considered as a single layer):anl:",
        parameter=(0, 1, 3),
        surfaces=(200, 0, 0, 255, 0, 0),
    ),
    field("MSLMA:mean sea level:anl:", parameter=(0, 3, 198), surfaces=(101, 0, 0, 255, 0, 0)),
    field("APCP:surface:0-6 hour acc fcst:", parameter=(0, 1, 8), **ACCUMULATED, stepRange="0-6"),
    field("APCP:surface:0-1 day acc fcst:", parameter=(0, 1, 8), **ACCUMULATED, stepRange="0-24"),
    field("PRATE:surface:0-15 min acc fcst:", parameter=(0, 1, 7), **ACCUMULATED, stepRange="0-15m"),
    field(
        "TMAX:2 m above ground:0-6 hour max fcst:",
        parameter=(0, 0, 4),
        surfaces=(103, 0, 2, 255, 0, 0),
        **{**ACCUMULATED, "typeOfStatisticalProcessing": 2},
        stepRange="0-6",
    ),
    field("SWELL:1 in sequence:1 hour fcst:", parameter=(10, 0, 8), surfaces=(241, 0, 1, 255, 0, 0), step=1),
    field("GUST:surface:6 hour fcst:", parameter=(0, 2, 22), step=6),
)
MEMBERS = tuple(
    field(f"TMP:surface:6 hour fcst:ENS={word}", **MEMBER, typeOfEnsembleForecast=kind, perturbationNumber=n, step=6)
    for word, kind, n in (("low-res ctl", 1, 0), ("+1", 3, 1), ("+2", 3, 2))
)
LEARNED = (
    field("REFC:entire atmosphere:anl:", parameter=(0, 16, 196), surfaces=(10, 0, 0, 255, 0, 0)),
    field("TMP:0.995 sigma level:anl:", surfaces=(104, 4, 9950, 255, 0, 0)),
    field("RH:0.995 sigma level:anl:", parameter=(0, 1, 1), surfaces=(104, 4, 9950, 255, 0, 0)),
    field("UGRD:PV=-2e-06 (Km^2/kg/s) surface:anl:", parameter=(0, 2, 2), surfaces=(109, 9, 2**31 + 2000, 255, 0, 0)),
    field("SOILW:0-0.1 m below ground:anl:", parameter=(2, 0, 192), surfaces=(106, 2, 0, 106, 2, 10)),
    field("TSOIL:0-0.1 m below ground:anl:", parameter=(2, 0, 2), surfaces=(106, 2, 0, 106, 2, 10)),
    field("SOILW:0.1-0.4 m below ground:anl:", parameter=(2, 0, 192), surfaces=(106, 2, 10, 106, 2, 40)),
    field("var discipline=0 center=7 local_table=1 parmcat=7 parm=250:surface:anl:", parameter=(0, 7, 250)),
)
UNSAID = field(
    "APCP:surface:0-6 hour acc fcst:prob >2.54:prob fcst 255/255",
    parameter=(0, 1, 8),
    **{**ACCUMULATED, "productDefinitionTemplateNumber": 9},
    stepRange="0-6",
    probabilityType=1,
    scaleFactorOfUpperLimit=2,
    scaledValueOfUpperLimit=254,
)


def published(range_server, fields, name="gfs.f000"):
    """A file of NCEP, and its index beside it."""
    parts = [message("regular_ll_sfc_grib2", seed=number, **keys) for number, (_, keys) in enumerate(fields)]
    lines = zip(places(parts), fields, strict=True)
    text = "".join(f"{n}:{at}:d=2024010206:{said}\n" for n, ((at, _), (said, _)) in enumerate(lines, 1))
    range_server.objects |= {name: b"".join(parts), f"{name}.idx": text.encode()}
    url = range_server.url(name)
    return url, ObjectStoreRegistry().grant(url, f"{url}.idx")


def both(range_server, url, registry, **options):
    """The tree by the headers and the tree by the index, and the requests that this one took."""
    expected = GRIBParser().parse(url, registry)
    range_server.forget()
    return expected, GRIBParser(**options).parse(url, registry), len(range_server.requests)


class TestInventories:
    """What wgrib2 and NOAA write: by the index comes out what comes out by the headers, attributes and all."""

    @pytest.mark.parametrize(("fields", "needed"), [(UNDERSTOOD, 2), (UNDERSTOOD[::-1], 3), (MEMBERS, 2)])
    def test_three_requests_are_enough_where_all_words_are_known(self, range_server, fields, needed):
        url, registry = published(range_server, fields)
        expected, found, requests = both(range_server, url, registry, index=f"{url}.idx")
        assert found == expected
        assert requests == needed

    @pytest.mark.parametrize("value", [0, 1, 255])
    def test_what_stands_for_a_value_where_there_is_none_is_read_once(self, range_server, value):
        plain = [(text, {**keys, "scaledValueOfFirstFixedSurface": value}) for text, keys in UNDERSTOOD[9:11]]
        url, registry = published(range_server, [*plain, *UNDERSTOOD[:3]])
        expected, found, requests = both(range_server, url, registry, index=f"{url}.idx")
        assert found == expected
        assert requests == 3

    @pytest.mark.parametrize("fields", [(*MEMBERS, *UNDERSTOOD), (*UNDERSTOOD, *MEMBERS)])
    def test_members_do_not_serve_for_fields_that_are_none(self, range_server, fields):
        url, registry = published(range_server, fields)
        expected, found, requests = both(range_server, url, registry, index=f"{url}.idx")
        assert found == expected
        assert requests == 3

    def test_words_are_learned_from_the_first_field_that_they_describe(self, range_server):
        fields = (*LEARNED, *UNDERSTOOD)
        url, registry = published(range_server, fields)
        expected, found, requests = both(range_server, url, registry, index=f"{url}.idx")
        assert found == expected
        assert requests <= 3

    def test_of_large_messages_only_headers_are_read(self, range_server):
        fields = [large(one) for one in (*LEARNED, UNSAID, *UNDERSTOOD[:3])]
        url, registry = published(range_server, fields)
        expected, found, requests = both(range_server, url, registry, index=f"{url}.idx")
        assert found == expected
        assert requests == 2 + 7  # six fields bring new words, and one is not said in full
        fetched = sum(one.range[1] - one.range[0] for one in range_server.requests if one.key == "gfs.f000")
        assert fetched < 0.05 * len(range_server.objects["gfs.f000"])

    def test_a_line_that_says_too_little_costs_one_request(self, range_server):
        url, registry = published(range_server, [UNSAID, *UNDERSTOOD])
        expected, found, requests = both(range_server, url, registry, index=f"{url}.idx")
        assert found == expected
        assert requests == 3

    def test_local_words_mean_nothing_in_files_of_other_centres(self, range_server):
        assert parameter_keys("MSLMA", 7) is not None
        assert parameter_keys("MSLMA", 98) is None
        url, registry = published(range_server, [(text, {**keys, "centre": 98}) for text, keys in UNDERSTOOD])
        expected, found, requests = both(range_server, url, registry, index=f"{url}.idx")
        assert found == expected
        assert requests == 3

    def test_abbreviations_have_one_meaning_each(self):
        assert len(PARAMETERS) > 580
        assert len(set(PARAMETERS.values())) >= len(PARAMETERS) - 1  # CLMR was CLWMR once
        assert not {"SOILW", "REFC", "CRAIN", "DSWRF", "HPBL", "O3MR"} & set(PARAMETERS)

    @pytest.mark.parametrize("text", ["0.995 sigma level", "0.33-1 sigma layer", "1-2 hybrid level", "1..2 mb", ""])
    def test_levels_that_have_no_one_encoding_are_not_guessed(self, text):
        assert level_keys(text) is None


def large(one):
    text, keys = one
    grid = {"Ni": 400, "Nj": 300, "iDirectionIncrement": 1, "jDirectionIncrement": 1}
    return text, {**grid, **keys}


class TestStaleness:
    def test_an_index_that_says_other_things_of_the_last_message_is_refused(self, range_server):
        url, registry = published(range_server, UNDERSTOOD)
        index = range_server.objects["gfs.f000.idx"]
        range_server.objects["gfs.f000.idx"] = index.replace(b"GUST:surface:6 hour", b"GUST:surface:9 hour")
        with pytest.raises(FormatError, match=r"says '15:.*GUST:surface:9 hour fcst:' of a message .*gust.*gfs\.f000"):
            GRIBParser(index=f"{url}.idx").parse(url, registry)

    def test_an_index_of_a_shorter_file_is_refused(self, range_server):
        url, registry = published(range_server, UNDERSTOOD)
        range_server.objects["gfs.f000"] += message()
        with pytest.raises(FormatError, match="another version"):
            GRIBParser(index=f"{url}.idx").parse(url, registry)

    def test_an_index_of_another_reference_time_is_refused(self, range_server):
        url, registry = published(range_server, UNDERSTOOD)
        index = range_server.objects["gfs.f000.idx"]
        range_server.objects["gfs.f000.idx"] = index.replace(b"d=2024010206", b"d=2024010212")
        with pytest.raises(FormatError, match="another version"):
            GRIBParser(index=f"{url}.idx").parse(url, registry)

    def test_an_index_far_beyond_the_file_is_refused(self, range_server):
        url, registry = published(range_server, UNDERSTOOD)
        range_server.objects["gfs.f000"] = message()
        with pytest.raises(FormatError, match="another version"):
            GRIBParser(index=f"{url}.idx").parse(url, registry)


class TestAuto:
    def test_the_index_beside_the_file_is_used(self, range_server):
        url, registry = published(range_server, UNDERSTOOD)
        expected, found, requests = both(range_server, url, registry, index="auto")
        assert found == expected
        assert requests == 2
        assert {one.key for one in range_server.requests} == {"gfs.f000", "gfs.f000.idx"}

    @pytest.mark.parametrize(
        ("name", "most"), [("20240102060000-6h-oper-fc.grib2", 2), ("forecast.grib2", 3), ("forecast", 3)]
    )
    def test_indexes_of_ecmwf_stand_in_place_of_the_suffix(self, range_server, name, most):
        parts = messages()
        beside = f"{name.removesuffix('.grib2')}.index"
        range_server.objects |= {name: b"".join(parts), beside: index(parts)}
        url = range_server.url(name)
        registry = ObjectStoreRegistry().grant(url, f"{url}.idx", range_server.url(beside))
        expected, found, requests = both(range_server, url, registry, index="auto")
        assert found == expected
        assert requests <= most

    def test_a_file_without_an_index_is_scanned(self, range_server):
        url, registry = published(range_server, UNDERSTOOD)
        del range_server.objects["gfs.f000.idx"]
        expected, found, _ = both(range_server, url, registry, index="auto")
        assert found == expected

    def test_an_index_that_is_not_granted_is_not_asked_for(self, range_server):
        url, _ = published(range_server, UNDERSTOOD)
        expected, found, _ = both(range_server, url, ObjectStoreRegistry().grant(url), index="auto")
        assert found == expected
        assert {one.key for one in range_server.requests} == {"gfs.f000"}

    @pytest.mark.parametrize("text", [b"", b"no index", b"1:0:d=2024010206:TMP:surface:anl:\n"])
    def test_one_that_does_not_fit_is_told_of_and_not_used(self, range_server, text):
        url, registry = published(range_server, UNDERSTOOD)
        range_server.objects["gfs.f000.idx"] = text
        expected = GRIBParser().parse(url, registry)
        with pytest.warns(StaleIndexWarning, match=r"gfs\.f000\.idx is not used"):
            assert GRIBParser(index="auto").parse(url, registry) == expected

    def test_naming_a_local_file_grants_the_index_beside_it(self, tmp_path):
        parts = messages()
        (tmp_path / "a.grib2").write_bytes(b"".join(parts))
        (tmp_path / "a.grib2.idx").write_bytes(idx(parts))
        path = str(tmp_path / "a.grib2")
        assert GRIBParser(index="auto").parse(path) == GRIBParser().parse(path)


def test_an_index_does_not_say_what_another_codec_must_know():
    with pytest.raises(ValueError, match="packed"):
        GRIBParser(index="auto", codec="gribberish")


def test_fields_of_one_message_have_lines_of_their_own(range_server):
    parts = [fused(*(message("regular_ll_pl_grib2", seed=n, paramId=n, level=850, step=6) for n in (131, 132)))]
    range_server.objects |= {
        "a.grib2": parts[0],
        "a.idx": b"1.1:0:d=20070323%d:UGRD:850 mb:6 hour fcst:\n1.2:0:d=2007032312:VGRD:850 mb:6 hour fcst:\n" % 12,
    }
    url = range_server.url("a.grib2")
    registry = ObjectStoreRegistry().grant(url, range_server.url("a.idx"))
    expected, found, requests = both(range_server, url, registry, index=range_server.url("a.idx"))
    assert found == expected
    assert requests == 2
