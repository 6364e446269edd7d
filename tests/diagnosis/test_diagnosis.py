"""Looking over an archive: what it says differs does, and its verdicts are those of combining for real."""

import html
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import virtualchunks as vc
from virtualchunks.diagnosis.facts import coordinate_facts
from virtualchunks.diagnosis.trial import AS_IT_IS, CANNOT, HETEROGENEOUS, RECTILINEAR
from virtualchunks.errors import CombineError, DecodeError, SourceUnavailableError
from virtualchunks.reading import together
from virtualchunks.reading.together import read_together


def day_file(folder: Path, name: str, start: str, days: int = 10, *, variable: str = "t", **encoding) -> Path:
    """One NetCDF-4 file of daily values."""
    time = pd.date_range(start, periods=days)
    values = np.arange(days * 6, dtype="f4").reshape(days, 2, 3)
    dataset = xr.Dataset({variable: (("time", "y", "x"), values)}, {"time": time, "y": [0.0, 1.0], "x": [0, 1, 2]})
    path = folder / f"{name}.nc"
    whole = {"chunksizes": (days, 2, 3), "zlib": True, "complevel": 1, **encoding}
    whole = {key: value for key, value in whole.items() if value is not None}
    since = {"units": "days since 2000-01-01", "dtype": "i4"}
    dataset.to_netcdf(path, engine="h5netcdf", encoding={variable: whole, "time": since})
    return path


def archive(folder: Path, **drift) -> list[Path]:
    """Three files of ten days, the second of which drifts."""
    starts = ("2000-01-01", "2000-01-11", "2000-01-21")
    return [day_file(folder, f"f{i}", start, **(drift if i == 1 else {})) for i, start in enumerate(starts)]


def test_an_even_archive_combines_as_it_is(tmp_path):
    report = vc.diagnose(archive(tmp_path))
    assert report.ok
    assert report.files == 3
    assert report.dimension == "time"
    assert report.variables["t"].verdict.verdict == AS_IT_IS
    assert not report.variables["t"].differing
    time = report.dimensions["time"]
    assert (time.first, time.last) == ("2000-01-01", "2000-01-30")
    assert not time.gaps
    assert not time.overlaps
    assert [step.value for step in time.steps] == ["1 days"]
    urls = archive(tmp_path)  # noqa: F841 - the call names it
    assert report.call == "vc.open_virtual_mfdataset(urls)"
    assert eval(report.call).sizes["time"] == 30


@pytest.mark.parametrize(
    ("drift", "feature", "verdict"),
    [
        ({"complevel": 9}, "codecs", AS_IT_IS),
        ({"shuffle": True}, "codecs", HETEROGENEOUS),
        ({"zlib": False, "complevel": None}, "codecs", HETEROGENEOUS),
        ({"dtype": ">f4"}, "dtype", HETEROGENEOUS),
        ({"dtype": "f8"}, "dtype", HETEROGENEOUS),
    ],
)
def test_a_drift_is_named_with_its_files_and_judged_as_combining_judges_it(tmp_path, drift, feature, verdict):
    paths = archive(tmp_path, **drift)
    report = vc.diagnose(paths)
    found = report.variables["t"]
    assert found.differing == [feature]
    assert sorted(one.files for one in found.features[feature]) == [1, 2]
    assert {one.example for one in found.features[feature]} == {paths[0].as_uri(), paths[1].as_uri()}
    assert found.verdict.verdict == verdict
    combined = vc.open_virtual_mfdataset(paths).virtual.open().load()
    xr.testing.assert_equal(combined, xr.open_mfdataset(paths, engine="h5netcdf").load())


def test_months_are_rectilinear(tmp_path):
    paths = [day_file(tmp_path, "a", "2000-01-01", 31), day_file(tmp_path, "b", "2000-02-01", 29)]
    paths.append(day_file(tmp_path, "c", "2000-03-01", 31))
    verdict = vc.diagnose(paths).variables["t"].verdict
    assert verdict.verdict == RECTILINEAR
    assert "31, 29" in verdict.because


def test_what_cannot_combine_is_said_and_does_not_combine(tmp_path):
    paths = archive(tmp_path)
    with xr.open_dataset(paths[1]) as dataset:
        changed = dataset.load()
    changed["t"].attrs["units"] = "K"
    changed.to_netcdf(paths[1], engine="h5netcdf")
    report = vc.diagnose(paths)
    assert not report.ok
    assert report.variables["t"].verdict.verdict == CANNOT
    assert "'units'" in report.variables["t"].verdict.because
    assert "drop_variables=['t']" in report.call
    with pytest.raises(CombineError, match="units"):
        vc.open_virtual_mfdataset(paths)


def test_gaps_and_overlaps_name_the_files_on_both_sides(tmp_path):
    starts = ("2000-01-01", "2000-01-11", "2000-01-25", "2000-01-30")
    paths = [day_file(tmp_path, f"f{i}", start) for i, start in enumerate(starts)]
    time = vc.diagnose(reversed(paths)).dimensions["time"]
    assert time.gaps == [f"2000-01-20 ({paths[1].as_uri()}) to 2000-01-25 ({paths[2].as_uri()})"]
    assert time.overlaps == [f"2000-02-03 ({paths[2].as_uri()}) to 2000-01-30 ({paths[3].as_uri()})"]


def test_variables_that_are_not_everywhere(tmp_path):
    urls = archive(tmp_path, variable="u")
    report = vc.diagnose(urls)
    assert report.ok
    assert (report.variables["t"].files, report.variables["u"].files) == (2, 1)
    assert report.variables["t"].absent_from == urls[1].as_uri()
    assert report.variables["u"].absent_from == urls[0].as_uri()
    assert "'union'" in report.variables["u"].verdict.because
    cube = eval(report.call).virtual.open()
    assert int(cube["u"].isnull().sum()) == 20 * 6


def test_the_call_for_files_that_overlap(tmp_path):
    starts = ("2000-01-01", "2000-01-08")
    urls = [day_file(tmp_path, f"f{i}", start) for i, start in enumerate(starts)]
    assert eval(vc.diagnose(urls).call.splitlines()[-1]).sizes["time"] == 17


def test_a_damaged_file_is_reported_and_the_rest_is_looked_at(tmp_path):
    paths = archive(tmp_path)
    (tmp_path / "f1.nc").write_bytes(b"not a file of anything")
    report = vc.diagnose(paths)
    assert not report.ok
    assert list(report.failures) == [paths[1].as_uri()]
    assert report.failures[paths[1].as_uri()].startswith("FormatError")
    assert report.variables["t"].verdict.ok
    assert "2000-01-10" in report.dimensions["time"].gaps[0]


def test_a_sample_has_the_first_and_the_last(tmp_path):
    starts = pd.date_range("2000-01-01", periods=7, freq="10D")
    paths = [day_file(tmp_path, f"f{i}", str(start)) for i, start in enumerate(starts)]
    report = vc.diagnose(paths, sample=3)
    assert report.files == 3
    assert (report.dimensions["time"].first, report.dimensions["time"].last) == ("2000-01-01", "2000-03-10")


def test_files_without_a_coordinate_are_nested(tmp_path):
    for number in range(2):
        data = xr.Dataset({"v": ("obs", np.arange(3 + number))})
        data.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
    report = vc.diagnose(str(tmp_path / "*.nc"))
    assert report.dimension == "obs"
    assert report.call == "vc.open_virtual_mfdataset(urls, combine=\"nested\", concat_dim='obs')"


def test_nothing_to_look_at():
    with pytest.raises(SourceUnavailableError, match="nothing"):
        vc.diagnose([])


def test_text_html_and_dictionary_say_the_same(tmp_path):
    report = vc.diagnose(archive(tmp_path, shuffle=True))
    said = json.loads(json.dumps(report.to_dict()))
    assert said["ok"] is True
    assert said["variables"]["t"]["verdict"] == HETEROGENEOUS
    assert [found["files"] for found in said["variables"]["t"]["features"]["codecs"]] == [2, 1]
    for text in (str(report), html.unescape(report._repr_html_())):
        assert HETEROGENEOUS in text
        assert "joined along 'time'" in text


def test_html_escapes_what_files_say(tmp_path):
    paths = [day_file(tmp_path, "a", "2000-01-01", variable="<b>x"), day_file(tmp_path, "b", "2000-01-11")]
    assert "<b>x" not in vc.diagnose(paths)._repr_html_()


@pytest.mark.parametrize(
    ("values", "step", "even", "ascending"),
    [
        ([1, 2, 3], 1, True, True),
        ([3, 2, 1], -1, True, False),
        ([0.1, 0.2, 0.30000001], 0.1, True, True),
        ([1, 2, 10], 8, False, True),
    ],
)
def test_facts_of_coordinates(values, step, even, ascending):
    facts = coordinate_facts(np.array(values))
    assert facts.step == pytest.approx(step)
    assert (facts.is_even, facts.is_ascending) == (even, ascending)


def test_coordinates_are_read_in_one_request_as_h5py_reads_them(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["plain"] = random.random(5)
        file.create_dataset("big", data=random.integers(0, 99, 7).astype(">i2"))
        file.create_dataset("padded", data=random.random(3), chunks=(8,), maxshape=(None,), compression=1)
        file.create_dataset("chunked", data=random.random(10), chunks=(4,), shuffle=True)
        file.create_dataset("absent", shape=(4,), chunks=(4,), dtype="f4", fillvalue=7)
        file["text"] = np.array([b"ab", b"c"])
        expected = {name: file[name][...] for name in file}
    store = vc.open_store(path)
    arrays = dict(store.group.arrays)
    asked = []
    fetched = together.fetch
    monkeypatch.setattr(together, "fetch", lambda *args: asked.append(args[2]) or fetched(*args))
    found = read_together(arrays, store.registry)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == arrays[name].dtype
        np.testing.assert_array_equal(found[name], values.astype(found[name].dtype), name)
    assert len(asked) == 1


def test_a_coordinate_that_does_not_decode_is_named(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        place = file.create_dataset("x", data=np.arange(99.0), chunks=(99,), compression=1).id.get_chunk_info(0)
        file["x"].make_scale("x")
    data = bytearray(path.read_bytes())
    data[place.byte_offset : place.byte_offset + place.size] = b"\xff" * place.size
    path.write_bytes(data)
    store = vc.open_store(path)
    with pytest.raises(DecodeError) as caught:
        read_together(dict(store.group.arrays), store.registry)
    assert (caught.value.variable, caught.value.url) == ("x", path.as_uri())


def test_facts_of_text_and_of_nothing():
    assert coordinate_facts(np.array(["b", "a"], dtype=object)).step is None
    assert coordinate_facts(np.array([])).size == 0
