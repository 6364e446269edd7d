"""Moving references: to other URLs, along axes, within the tree."""

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import virtualchunks as vc
from virtualchunks.errors import ChunkIndexError, ManifestError, URLError
from virtualchunks.inline import encode_array
from virtualchunks.verbs import bind, move, relative_to, rename, shift


def array(urls: list[str], shape=None, **stamp) -> vc.ManifestArray:
    count = len(urls)
    metadata = vc.ArrayMetadata.build(shape=shape or (count * 2,), chunks=(2,), dtype="<i2", dimension_names=("t",))
    records = vc.ChunkManifest.missing((count,)).records.copy()
    for row in range(count):
        records[row] = (row, 4, 10 * row)
    table = vc.SourceTable.of_urls(urls, [vc.Stamp(**stamp) for _ in urls] if stamp else None)
    return vc.ManifestArray(metadata, vc.ChunkManifest.from_records(records, table))


def urls(group: vc.ManifestGroup) -> list[str]:
    return group.virtual.sources()["url"]


def test_prefixes_are_compared_by_segments_and_the_longest_wins():
    group = vc.ManifestGroup({"v": array(["s3://b/pub/a", "s3://b/public/a", "s3://b/pub/deep/a", "s3://c/a"])})
    moved = rename(group, {"s3://b/pub": "https://h/x", "s3://b/pub/deep/": "/data"})
    assert urls(moved) == ["https://h/x/a", "s3://b/public/a", "file:///data/a", "s3://c/a"]


def test_what_is_renamed_keeps_its_size_and_what_is_not_keeps_its_stamp():
    whole = {"size": 9, "etag": "e", "last_modified": 5, "version": "1"}
    group = vc.ManifestGroup({"v": array(["s3://b/a", "s3://c/a"], **whole)})
    one = rename(group, {"s3://b": "s3://d"}).arrays["v"].manifest.sources
    assert [one.stamp(row) for row in (0, 1)] == [vc.Stamp(size=9), vc.Stamp(**whole)]
    kept = rename(group, {"s3://b": "s3://d"}, keep_stamps=True).arrays["v"].manifest.sources
    assert [kept.stamp(row) for row in (0, 1)] == [vc.Stamp(**whole)] * 2
    none = rename(group, lambda url: f"{url}.nc").arrays["v"].manifest.sources
    assert none.etags is None
    assert none.last_modified is None


def test_a_function_is_called_once_per_object():
    calls = []

    def change(url: str) -> str:
        calls.append(url)
        return url.replace("s3", "gs", 1)

    one = array(["s3://b/a", "s3://b/b"])
    group = vc.ManifestGroup({"v": one, "w": one}, {"g": vc.ManifestGroup({"x": array(["s3://b/b"])})})
    assert urls(rename(group, change)) == ["gs://b/a", "gs://b/b"]
    assert calls == ["s3://b/a", "s3://b/b"]


def test_renaming_refuses():
    group = vc.ManifestGroup({"v": array(["s3://b/a"])})
    with pytest.raises(URLError, match=r"no object lies beneath s3://q: there are 1, the first is s3://b/a"):
        rename(group, {"s3://q": "s3://r"})
    with pytest.raises(URLError):
        rename(group, lambda url: "s3://b/a?x")


def test_named_roots_and_back():
    group = vc.ManifestGroup({"v": array(["s3://b/x/2020/a b.nc".replace(" ", "%20"), "s3://b/x/c"], size=3, etag="e")})
    named = relative_to(group, "s3://b/x", "archive")
    assert urls(named) == ["{archive}/2020/a%20b.nc", "{archive}/c"]
    assert named.arrays["v"].manifest.sources.stamp(0) == vc.Stamp(size=3)
    assert urls(relative_to(named, "s3://other", "else")) == urls(named)
    assert urls(bind(named, {"archive": "s3://b/x/"})) == urls(group)
    assert urls(bind(named, {"other": "s3://b/x/"})) == urls(named)
    with pytest.raises(URLError, match=r"s3://b/x/2020/a%20b.nc does not lie beneath s3://b/x/2021/"):
        relative_to(group, "s3://b/x/2021", "archive")
    with pytest.raises(URLError, match="references lead to one place"):
        bind(named, {"archive": ["s3://b/x", "s3://c"]})
    with pytest.raises(URLError, match="cannot name a root"):
        relative_to(group, "s3://b/x", "a-b")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(-8, 8), st.integers(0, 1))
def test_shift_is_that_of_values(count, by, cut):
    values = np.arange(1, 2 * count - cut + 1, dtype="i2")
    metadata = vc.ArrayMetadata.build(shape=values.shape, chunks=(2,), dtype="<i2", dimension_names=("t",))
    group = vc.ManifestGroup({"v": vc.ManifestArray(metadata, encode_array(values, metadata))})
    if by < 0 and cut and count + by > 0:
        with pytest.raises(ChunkIndexError, match="cannot be shifted"):
            shift(group, {"t": by})
        return
    stored = zarr.open_group(vc.ManifestStore(shift(group, {"t": by})), mode="r")
    np.testing.assert_array_equal(stored["v"][:], xr.Variable("t", values).shift(t=2 * by, fill_value=0).values)


def test_shift_refuses():
    group = vc.ManifestGroup({"v": array(["s3://b/0", "s3://b/1"])})
    with pytest.raises(ChunkIndexError, match="no dimension 'x'"):
        shift(group, {"x": 1})
    with pytest.raises(ChunkIndexError, match="whole number"):
        shift(group, {"t": 0.5})
    uneven = vc.ManifestArray(
        vc.ArrayMetadata.build(shape=(3,), chunks=(3,), dtype="<i2", dimension_names=("t",)).replace(
            grid=vc.ChunkGrid((vc.Axis(3, edges=(1, 2)),))
        ),
        group.arrays["v"].manifest,
    )
    with pytest.raises(ChunkIndexError, match="another length"):
        shift(vc.ManifestGroup({"v": uneven}), {"t": 1})


def test_move():
    one = array(["s3://b/0"])
    group = vc.ManifestGroup({"v": one}, {"g": vc.ManifestGroup({"w": one}, attributes={"a": 1})})
    assert dict(move(group, "v", "new/place/u").walk_arrays()).keys() == {"g/w", "new/place/u"}
    moved = move(group, "/g/", "h/i")
    assert moved["h/i"].attributes == {"a": 1}
    assert "g" not in moved
    for old, new, message in [
        ("q", "r", "no array or group 'q'; there are 'g', 'v', 'g/w'"),
        ("v", "g", "'g' already"),
        ("g", "g/x", "into itself"),
        ("v", "a/../b", "cannot name"),
        ("g/w", "v/x", "name both an array and a group"),
    ]:
        with pytest.raises(ManifestError, match=message):
            move(group, old, new)
