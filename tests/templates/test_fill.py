"""Templates filled from indexes, against dictionaries made row by row."""

import datetime as dt
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import virtualchunks as vc
from tests.xarray.toyformat import ToyParser, write_toy
from virtualchunks.errors import ManifestError, URLError

TIMES = pd.date_range("2020-01-01", periods=4, freq="6h")
SHAPES = {
    "air": {"dims": ("time", "level", "x"), "chunks": (1, 1, 3), "dtype": "<f4", "attrs": {"units": "K"}},
    "rain": (("time", "x"), None, (2, 3), "<i2"),
}
COORDS = {"time": TIMES, "level": [1000.0, 850.0, 500.0], "x": [0, 1, 2]}


def template() -> object:
    return vc.template(SHAPES, COORDS)


def index(**changes) -> dict:
    rows = {
        "variable": ["air", "rain", "air"],
        "time": [TIMES[1], TIMES[2], TIMES[3]],
        "level": [850.0, None, 500.0],
        "url": ["s3://b/a", "s3://b/b", "s3://b/a"],
        "offset": [0, 5, 12],
        "length": [12, 6, 12],
    }
    return {**rows, **changes}


EXPECTED = {
    "air": {
        "1.1.0": {"path": "s3://b/a", "offset": 0, "length": 12},
        "3.2.0": {"path": "s3://b/a", "offset": 12, "length": 12},
    },
    "rain": {"1.0": {"path": "s3://b/b", "offset": 5, "length": 6}},
}


@pytest.mark.parametrize(
    "made",
    [
        lambda rows: rows,
        lambda rows: pd.DataFrame(rows),
        lambda rows: pd.DataFrame(rows).assign(time=lambda frame: frame["time"].dt.tz_localize("UTC")),
        lambda rows: pd.DataFrame(rows).assign(time=lambda frame: frame["time"].astype(str)),
        lambda rows: pa.table(pd.DataFrame(rows)),
        lambda rows: pl.from_pandas(pd.DataFrame(rows)),
        lambda rows: pd.DataFrame(rows).rename(columns={"url": "path"}).astype({"path": "category"}),
        lambda rows: {**rows, "time": [at.isoformat() + "Z" for at in rows["time"]]},
        lambda rows: {**rows, "time": [at.to_pydatetime() for at in rows["time"]]},
    ],
    ids=["mapping", "pandas", "zoned", "text", "pyarrow", "polars", "categories", "iso", "datetime"],
)
def test_every_kind_of_table(made):
    filled = template().fill(made(index()))
    for name, entries in EXPECTED.items():
        assert filled[name].variable._data.manifest.dict() == entries
    assert filled["air"].attrs == {"units": "K"}
    assert filled.indexes["time"].equals(TIMES)
    group = template().fill_group(made(index()))
    assert {name: group.arrays[name].manifest.dict() for name in EXPECTED} == EXPECTED


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_labels_of_every_dtype_find_their_place(data):
    coordinate = data.draw(
        st.sampled_from(
            [
                np.array([3, 1, 2], "i2"),
                np.array([3, 1, 2], "u8"),
                np.array([0.1, 0.2, -5], "f4"),
                np.array(["2020-01-01", "2021-06-01", "1900-01-01"], "M8[s]"),
                np.array([1, 5, 7], "m8[h]"),
                np.array(["a", "ü", "c"]),
                np.array(["a", "ü", "c"], dtype=object),
                np.array([True, False]),
            ]
        )
    )
    order = data.draw(st.permutations(range(len(coordinate))))
    labels = [coordinate.tolist()[place] for place in order]
    if coordinate.dtype == "f4":
        labels = [round(label, 3) for label in labels]
    made = vc.template({"v": {"dims": "n", "chunks": (1,), "dtype": "u1"}}, {"n": coordinate})
    rows = {
        "n": labels,
        "url": ["s3://b/a"] * len(order),
        "offset": list(range(len(order))),
        "length": [1] * len(order),
    }
    found = made.fill_group(rows).arrays["v"].manifest
    assert {key: entry["offset"] for key, entry in found.items()} == {
        str(place): row for row, place in enumerate(order)
    }
    again = made.fill_group({**rows, "n": coordinate[list(order)]}).arrays["v"].manifest
    assert again == found


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"time": [TIMES[1], TIMES[2], TIMES[1]], "level": [850.0, None, 850.0]}, ManifestError,
         r"rows 0 and 2 both fill 'air' at time=2020-01-01T06:00:00\.0+, level=850\.0, x=0"),
        ({"variable": ["air", "snow", "air"]}, ManifestError, "row 1: no variable 'snow'; there are 'air', 'rain'"),
        ({"variable": ["air", None, "air"]}, ManifestError, "row 1: no variable None"),
        ({"level": [850.0, None, 700.0]}, ManifestError,
         r"row 2: no label 700.0 along 'level', which has the labels 1000.0, 850.0, 500.0"),
        ({"time": [TIMES[1], TIMES[2], "never"]}, ManifestError, "row 2: no label 'never' along 'time'"),
        ({"time": [TIMES[1], TIMES[2], None]}, ManifestError, "row 2: no label None along 'time'"),
        ({"time": [TIMES[1], TIMES[3], TIMES[3]]}, ManifestError,
         "row 1: .* lies within a chunk of 'rain'; a row fills a whole chunk, which its first label names"),
        ({"offset": [0, -5, 12]}, ManifestError, "row 1: the offset is -5"),
        ({"offset": [0, None, 12]}, ManifestError, "row 1: the offset is None"),
        ({"offset": [0.0, 0.5, 12.0]}, ManifestError, r"row 1: the offset is (np.float64\()?0.5"),
        ({"offset": [0, 2**63, 12]}, ManifestError, "row 1: the offset is .*9223372036854775808"),
        ({"offset": [0, 2**63 - 2, 12]}, ManifestError, r"row 1: the chunk ends beyond 2\*\*63"),
        ({"length": [12, 0, 12]}, ManifestError, "row 1: the length is .*0.*from 1"),
        ({"url": ["s3://b/a", None, "s3://b/a"]}, ManifestError, "row 1: the url is None"),
        ({"url": ["s3://b/a", "s3://b/a?q", "s3://b/a"]}, URLError, "row 1: a query"),
        ({"url": ["s3://b/a", ["x"], "s3://b/a"]}, ManifestError, "row 1 of the column 'url'"),
        ({"note": ["a", "b", "c"]}, ManifestError, r"unknown columns \['note'\]; known are variable, level, time, x"),
        ({"length": [12]}, ManifestError, "columns differ in length"),
        ({"size": [10, 10, 11]}, ManifestError, "rows 0 and 2: the size of one object is 10 and 11"),
        ({"size": [10, "x", 10]}, ManifestError, "row 1: the size is 'x'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_row(changes, error, message):
    with pytest.raises(error, match=message):
        template().fill(index(**changes))


def test_columns_that_lack():
    rows = index()
    del rows["variable"]
    with pytest.raises(ManifestError, match="no column 'variable'; it has time"):
        template().fill(rows)
    rows = index()
    del rows["time"]
    with pytest.raises(ManifestError, match="'air' has 4 chunks along 'time', and the table has no such column"):
        template().fill(rows)
    with pytest.raises(ManifestError, match="not int"):
        template().fill(3)


def test_what_is_not_filled_is_missing():
    kept = pickle.loads(pickle.dumps(template()))
    assert vc.diff(kept.fill(index()), template().fill(index())).ok
    empty = template().fill({name: np.empty(0, dtype=object) for name in index()})
    assert empty.virtual.nrefs == 0
    filled = template().fill(index())
    assert filled.virtual.nrefs == 3


def test_stamps_are_taken_over_and_checked_when_read(tmp_path):
    (tmp_path / "a").write_bytes(np.arange(6, dtype="<i2").tobytes())
    made = vc.template({"v": {"dims": ("x",), "shape": (6,), "chunks": (3,), "dtype": "<i2"}})
    rows = {"x": [3, 0], "url": [str(tmp_path / "a")] * 2, "offset": [6, 0], "length": [6, 6]}
    filled = made.fill(rows)
    assert filled.virtual.open({str(tmp_path): None})["v"].values.tolist() == [0, 1, 2, 3, 4, 5]
    stale = made.fill({**rows, "size": [13, 13], "last_modified": [dt.datetime(2020, 1, 1)] * 2})
    assert stale.virtual.sources()["size"].tolist() == [13]
    with pytest.raises(OSError, match="size was 13, is 12"):
        stale.virtual.open({str(tmp_path): None})["v"].values  # noqa: B018


def test_a_sample_file_lends_its_chunks_and_codecs(tmp_path):
    def day(number: int) -> xr.Dataset:
        values = np.arange(6.0).reshape(1, 2, 3) + number
        time = pd.date_range("2020-01-01", periods=1) + pd.Timedelta(number, "D")
        made = xr.Dataset({"air": (("time", "y", "x"), values, {"units": "K"})}, {"time": time, "y": [0.5, 1.5]})
        made["air"].encoding = {"dtype": "i2", "scale_factor": 0.5, "_FillValue": np.int16(-1)}
        made["time"].encoding = {"units": "days since 2020-01-01", "dtype": "i4"}
        return made

    paths = [write_toy(tmp_path / f"{number}.toy", day(number), {"y": 1}) for number in range(3)]
    sample = vc.open_virtual_dataset(paths[0], parser=ToyParser())
    days = pd.date_range("2020-01-01", periods=4)
    made = vc.template(sample, {"time": days})
    rows = []
    for number, path in enumerate(paths):
        one = vc.open_virtual_dataset(path, parser=ToyParser())["air"].variable._data
        for (_, y, _), entry in one.manifest.iter_refs():
            place = {"url": entry["path"], "offset": entry["offset"], "length": entry["length"]}
            rows.append({"time": days[number], "y": y + 0.5, **place})
    filled = made.fill(pd.DataFrame(rows))
    opened = filled.virtual.open({str(tmp_path): None})
    expected = xr.concat([day(number) for number in range(3)], "time").reindex(time=days)
    xr.testing.assert_allclose(opened["air"], expected["air"])
    assert np.isnan(opened["air"].isel(time=3)).all()


def test_a_dataset_of_values_says_how_it_would_be_stored(tmp_path):
    dask = pytest.importorskip("dask.array")
    plan = xr.Dataset(
        {
            "air": (("time", "x"), dask.zeros((4, 10**9), chunks=(1, 10**9))[:, :6], {"units": "K"}),
            "crs": ((), 5),
        },
        {"time": TIMES, "x": np.arange(6)},
    )
    zstd = zarr.codecs.ZstdCodec(level=3)
    plan["air"].encoding = {
        "dtype": ">i2",
        "scale_factor": 0.5,
        "_FillValue": -9,
        "chunks": (1, 6),
        "compressors": (zstd,),
    }
    made = vc.template(plan)
    metadata = made.arrays["air"]
    assert metadata.shape == (4, 6)
    assert [codec["name"] for codec in metadata.codecs] == ["bytes", "zstd"]
    assert metadata.encoding.dtype == np.dtype(">i2")
    from numcodecs import Zstd

    payload = Zstd(3).encode(np.arange(6, dtype=">i2").tobytes())
    (tmp_path / "a").write_bytes(payload)
    rows = {"time": [TIMES[2]], "url": [str(tmp_path / "a")], "offset": [0], "length": [len(payload)]}
    opened = made.fill(rows).virtual.open({str(tmp_path): None})
    np.testing.assert_array_equal(opened["air"].isel(time=2), np.arange(6) * 0.5)
    assert np.isnan(opened["air"].isel(time=0)).all()
    assert opened["crs"] == 5


def test_templates_that_cannot_be(tmp_path):
    with pytest.raises(ManifestError, match="the label 1 more than once"):
        vc.template({"v": {"dims": ("x",), "dtype": "u1"}}, {"x": [1, 1]})
    with pytest.raises(ManifestError, match="no value, at position 1"):
        vc.template({"v": {"dims": ("x",), "dtype": "u1"}}, {"x": [1.0, np.nan]})
    with pytest.raises(ManifestError, match="'v' has the length 3 along 'x', where there are 2 labels"):
        vc.template({"v": {"dims": ("x",), "shape": (3,), "dtype": "u1"}}, {"x": [1, 2]})
    with pytest.raises(ManifestError, match="'v' has no shape"):
        vc.template({"v": {"dims": ("x",), "dtype": "u1"}})
    with pytest.raises(ManifestError, match=r"'v' is described by \['dims', 'colour'\]"):
        vc.template({"v": {"dims": ("x",), "colour": "u1"}})
    with pytest.raises(ManifestError, match="not list"):
        vc.template([1])
    sample = xr.Dataset({"v": ("x", [1, 2])}, {"x": [0, 1], "note": ("x", [3, 4])})
    with pytest.raises(ManifestError, match="'note' lies along a dimension that has another length now"):
        vc.template(sample, {"x": [0, 1, 2]})
    with pytest.raises(ManifestError, match="no variable 'q'"):
        vc.template(sample, variables=["q"])


def test_a_million_rows_take_seconds_and_not_minutes():
    count = 1_000_000
    made = vc.template({"v": {"dims": ("n",), "shape": (count,), "chunks": (1,), "dtype": "u1"}})
    rows = {
        "n": np.arange(count)[::-1],
        "url": np.repeat([f"s3://b/{n}" for n in range(1000)], 1000).astype(object),
        "offset": np.arange(count),
        "length": np.ones(count, dtype=int),
    }
    found = made.fill_group(rows).arrays["v"].manifest
    assert len(found) == count
    assert found["0"] == {"path": "s3://b/999", "offset": count - 1, "length": 1}
