"""Indexes beside GRIB files: what is read by them is what is read by the headers."""

from __future__ import annotations

import itertools
import json

import pytest
from griboracle import message

from virtualchunks.errors import FormatError, NotGrantedError, UnsupportedArrayWarning
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.grib import GRIBParser

CELLS = tuple(itertools.product((("t", "TMP"), ("u", "UGRD")), (0, 6), (1000, 500)))
WGRIB2 = {0: "anl", 6: "6 hour fcst"}


def messages():
    keys = {"dataDate": 20240102, "dataTime": 600}
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
    assert len(range_server.requests) <= 3
    assert {name for name, _ in found.walk()} == {name for name, _ in expected.walk()}
    arrays = dict(expected.walk_arrays())
    for name, array in found.walk_arrays():
        assert array.manifest == arrays.pop(name).manifest, name
    assert not arrays


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


def test_lines_that_are_not_understood_are_left_out(served, range_server):
    url, registry = served
    range_server.objects["a.idx"] = range_server.objects["a.idx"].replace(b"PRES:surface", b"XYZZY:surface")
    with pytest.warns(UnsupportedArrayWarning, match="XYZZY"):
        tree = GRIBParser(index=range_server.url("a.idx")).parse(url, registry)
    assert set(tree.arrays) >= {"t", "u"}


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
