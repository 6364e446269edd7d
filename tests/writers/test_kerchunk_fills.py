"""Fill values and missing chunks come back from Zarr v2 references, and what is said of them cannot change a value."""

import base64
import copy
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

from virtualchunks import ArrayMetadata, ManifestArray, ManifestGroup
from virtualchunks.codecs.pipeline import decode_block
from virtualchunks.errors import FormatError
from virtualchunks.functions import concatenate
from virtualchunks.inline import encode_array
from virtualchunks.manifest import RECORD, ChunkManifest
from virtualchunks.reading.values import read_values
from virtualchunks.sources import SourceTable
from virtualchunks.testing.forms import assert_same_tree
from virtualchunks.writers.kerchunk import to_references, write_json, write_parquet
from virtualchunks_parsers.kerchunk import KerchunkParser
from virtualchunks_parsers.kerchunk.fills import DecodingBudget

pytestmark = [
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),  # fsspec reads Parquet with fastparquet
    pytest.mark.filterwarnings("ignore:.*fastparquet.*:DeprecationWarning"),
]
GZIP = {"name": "gzip", "configuration": {"level": 1}}


def array(
    folder: Path, kinds: str, fill: Any = 7, dtype: str = "<i4", chunk: int = 2, gzip: bool = False, **attributes: Any
) -> ManifestArray:
    """Return an array with a chunk of each kind: a file's, missing, the fill value in memory, values in memory."""
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, *([GZIP] if gzip else [])]
    metadata = ArrayMetadata.build(
        shape=(chunk * len(kinds),), chunks=(chunk,), dtype=dtype, codecs=codecs, fill_value=fill,
        dimension_names=("x",), attributes=attributes,
    )  # fmt: skip
    values = np.arange(chunk * len(kinds)).astype(dtype) + np.dtype(dtype).type(100)
    for number, kind in enumerate(kinds):
        if kind == "e":
            values[number * chunk : (number + 1) * chunk] = fill
    encoded = [bytes(entry["data"]) for entry in encode_array(values, metadata).values()]
    (folder / "a.bin").write_bytes(b"".join(encoded))
    lengths = np.array([len(data) for data in encoded])
    records = np.zeros(len(kinds), dtype=RECORD)
    records["length"], records["offset"] = lengths, np.cumsum(lengths) - lengths
    records["source"] = [{"f": 0, "m": -1}.get(kind, 1) for kind in kinds]
    table = SourceTable.concat(
        [SourceTable.single((folder / "a.bin").as_uri()), SourceTable.of_buffers([b"".join(encoded)])]
    )
    return ManifestArray(metadata, ChunkManifest.from_records(records, table))


def parsed(target: Any, folder: Path) -> tuple[ManifestGroup, Any]:
    store = KerchunkParser()(target if isinstance(target, dict) else str(target), {folder.as_uri() + "/": None})
    return store.group, store.registry


def through_zarr(target: Any) -> np.ndarray:
    file_system = fsspec.filesystem("reference", fo=target, asynchronous=True, remote_protocol="file")
    store = zarr.storage.FsspecStore(file_system, read_only=True)
    return zarr.open_array(store, path="v", mode="r", zarr_format=2)[:]


def through_ours(target: Any, folder: Path) -> np.ndarray:
    group, registry = parsed(target, folder)
    return read_values(group.arrays["v"], registry)


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize("form", ["dict", "json", "parquet"])
@pytest.mark.parametrize("kinds", ["fmevm", "mfv", "eef", "mm", "vme", "fff"])
def test_missing_chunks_are_told_from_those_that_hold_the_fill_value(tmp_path, kinds, form, gzip):
    gzip = gzip and kinds != "mm"  # the encoding of an array of which nothing is there is not kept
    group = ManifestGroup({"v": array(tmp_path, kinds, gzip=gzip)})
    target: Any = tmp_path / "refs"
    if form == "dict":
        target = to_references(group)
    elif form == "json":
        write_json(group, target)
    else:
        write_parquet(group, target, record_size=2)
    found, registry = parsed(target, tmp_path)
    assert_same_tree(found, group, registry)
    named = target if form == "dict" else str(target)
    np.testing.assert_array_equal(read_values(found.arrays["v"], registry), through_zarr(named))


MASKS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "no mask": ("<i4", 3, {}),
    "the mask": ("<i4", -9, {"_FillValue": np.int32(-9)}),
    "beside the mask": ("<i4", 0, {"_FillValue": np.int32(5)}),
    "beside a mask that is no integer": ("<i4", 3, {"_FillValue": np.nan}),
    "NaN": ("<f4", np.nan, {}),
    "NaN is the mask": ("<f8", np.nan, {"_FillValue": np.float64(np.nan)}),
    "zero beside NaN as the mask": ("<f8", 0.0, {"_FillValue": np.float64(np.nan)}),
    "negative zero": ("<f8", -0.0, {}),
    "a mask in double precision": ("<f4", -999.9, {"_FillValue": -999.9}),
    "packed": ("<i2", 0, {"_FillValue": np.int16(-1), "scale_factor": 0.5, "add_offset": 10.0}),
}


@pytest.mark.parametrize("form", ["dict", "parquet"])
@pytest.mark.parametrize(("kinds", "case"), list(itertools.product(["fmf", "fff", "mm"], MASKS)))
def test_masks_and_fill_values_come_back(tmp_path, case, kinds, form):
    dtype, fill, attributes = MASKS[case]
    group = ManifestGroup({"v": array(tmp_path, kinds, fill, dtype, **attributes)})
    target: Any = to_references(group)
    if form == "parquet":
        target = tmp_path / "refs"
        write_parquet(group, target)
    found, registry = parsed(target, tmp_path)
    assert_same_tree(found, group, registry)
    assert np.signbit(found.arrays["v"].metadata.fill_value) == np.signbit(group.arrays["v"].metadata.fill_value)


def test_what_zarr_v2_says_by_itself_is_not_said_again(tmp_path):
    for kinds, fill, attributes in (("ff", 0, {}), ("fm", -9, {"_FillValue": np.int32(-9)})):
        references = to_references(ManifestGroup({"v": array(tmp_path, kinds, fill, **attributes)}))
        assert "virtualchunks" not in json.loads(references["refs"]["v/.zarray"])


def test_missing_chunks_larger_than_what_may_be_inline_come_back(tmp_path):
    group = ManifestGroup({"v": array(tmp_path, "fmm", chunk=400_000)})
    found, registry = parsed(to_references(group), tmp_path)
    assert_same_tree(found, group, registry)


def test_what_is_decoded_to_look_for_missing_chunks_is_limited(tmp_path, monkeypatch):
    group = ManifestGroup({name: array(tmp_path, "fmm", dtype="<i4", chunk=1000) for name in ("v", "w")})
    references = to_references(group)
    decoded = []

    def decode(data, *arguments):
        decoded.append(len(data))
        return decode_block(data, *arguments)

    monkeypatch.setattr("virtualchunks_parsers.kerchunk.fills.decode_block", decode)
    found, _ = parsed(references, tmp_path)
    assert decoded == [4000, 4000]  # one chunk of each array
    assert len(found.arrays["w"].manifest) == 1
    monkeypatch.setattr(DecodingBudget.__init__, "__defaults__", (7999,))
    found, registry = parsed(references, tmp_path)
    assert [len(found.arrays[name].manifest) for name in ("v", "w")] == [1, 3]
    assert set(read_values(found.arrays["w"], registry)[1000:].tolist()) == {7}


APPENDED = [
    ("fm", "mf", 7), ("ff", "mf", 7), ("fm", "ff", 7), ("fm", "ev", 7), ("em", "em", 7), ("ff", "mm", 0),
    ("fe", "me", 7),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "fill"), APPENDED)
def test_appending_keeps_what_is_missing(tmp_path, before, after, fill):
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
    parts = [array(folder, kinds, fill) for folder, kinds in zip(folders, (before, after), strict=True)]
    for part in parts:
        write_parquet(ManifestGroup({"v": part}), tmp_path / "refs", record_size=3, append_dim="x")
    found, registry = parsed(tmp_path / "refs", tmp_path)
    expected = ManifestGroup({"v": concatenate(parts, axis=0)})
    assert_same_tree(found, expected, registry)
    np.testing.assert_array_equal(read_values(found.arrays["v"], registry), through_zarr(str(tmp_path / "refs")))


def test_appending_another_fill_value_keeps_the_values(tmp_path):
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder, fill in zip(folders, (7, 8), strict=True):
        folder.mkdir()
        write_parquet(ManifestGroup({"v": array(folder, "mf", fill)}), tmp_path / "refs", append_dim="x")
    values = through_ours(tmp_path / "refs", tmp_path)
    assert values[[0, 4]].tolist() == [7, 8]
    np.testing.assert_array_equal(values, through_zarr(str(tmp_path / "refs")))


def test_opening_and_reading_loads_only_the_partitions_that_are_asked_for(tmp_path):
    write_parquet(ManifestGroup({"v": array(tmp_path, "fmfmfm")}), tmp_path / "refs", record_size=2)
    group, registry = parsed(tmp_path / "refs", tmp_path)
    assert group.arrays["v"].metadata.fill_value == 7
    assert group.arrays["v"].manifest.is_deferred
    assert group.arrays["v"].manifest.record((3,))[1] == -1
    assert "1 of 3 partitions loaded" in repr(group.arrays["v"].manifest)
    assert read_values(group.arrays["v"], registry)[6:8].tolist() == [7, 7]


def test_a_group_added_beside_keeps_it(tmp_path):
    one = array(tmp_path, "fm")
    for write in (write_json, write_parquet):
        target = tmp_path / write.__name__
        write(ManifestGroup({"v": one}), target)
        write(ManifestGroup({"w": one}), target, mode="a")
        found, registry = parsed(target, tmp_path)
        assert_same_tree(found, ManifestGroup({"v": one, "w": one}), registry)


def digest_of(references: dict[str, Any], key: str) -> str:
    return hashlib.sha256(base64.b64decode(references["refs"][key].removeprefix("base64:"))).hexdigest()


TOLD: dict[str, Any] = {
    "another fill value": {"fill_value": 8},
    "no fill value": {"fill_value": None},
    "text": {"fill_value": "many"},
    "a number too large": {"fill_value": 2**70},
    "a list": {"fill_value": [1, 2]},
    "no mask": {"fill_value": 7, "is_mask": False},
    "numbers that are none": {"held": ["0", 1.5, None]},
    "held everywhere": {"held": [0, 1, 2, 3, -5, 2**80]},
    "missing as a list": {"missing": [1]},
    "missing from a place that is none": {"missing": {"00": "0"}},
    "nothing missing": {"missing": {}},
    "nothing at all": None,
    "no object": 5,
}


@pytest.mark.parametrize("lacking", [False, True], ids=["whole", "a chunk lacks"])
@pytest.mark.parametrize("form", ["dict", "parquet"])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("case", [*TOLD, "every digest"])
def test_what_a_document_tells_changes_no_value(tmp_path, case, mask, form, lacking):
    attributes = {"_FillValue": np.int32(100)} if mask else {}
    group = ManifestGroup({"v": array(tmp_path, "fmve", **attributes)})
    references = to_references(group)
    document = json.loads(references["refs"]["v/.zarray"])
    told = copy.deepcopy(document["virtualchunks"])
    if case == "every digest":
        told["missing"] = {digest_of(references, f"v/{number}"): 0 for number in (1, 2, 3)}
        told["held"] = []
    else:
        told = {**told, **TOLD[case]} if isinstance(TOLD[case], dict) else TOLD[case]
    document["virtualchunks"] = told
    target: Any = references
    if form == "dict":
        references["refs"]["v/.zarray"] = json.dumps(document)
        if lacking:
            del references["refs"]["v/0"]
    else:
        target = tmp_path / "refs"
        write_parquet(group, target, record_size=1)
        content = json.loads((target / ".zmetadata").read_text())
        content["metadata"]["v/.zarray"] = document
        if lacking:
            (target / "v" / "refs.0.parq").unlink()
            content["generations"] = {}
        (target / ".zmetadata").write_text(json.dumps(content))
    expected = through_zarr(target if form == "dict" else str(target))
    found, message = None, ""
    try:
        found = through_ours(target, tmp_path)
    except FormatError as error:
        message = str(error)
    if found is None:
        assert (form, lacking) == ("parquet", True)
        assert "of which all were written" in message
        return
    np.testing.assert_array_equal(found, expected)
    read, _ = parsed(target, tmp_path)
    assert ("_FillValue" in read.arrays["v"].metadata.attributes) == mask


@pytest.mark.parametrize("fills", [(7, 7), (7, 8)])
def test_references_that_kerchunk_joined_read_alike(tmp_path, fills):
    combine = pytest.importorskip("kerchunk.combine")
    parts = []
    for number, fill in enumerate(fills):
        (tmp_path / str(number)).mkdir()
        parts.append(to_references(ManifestGroup({"v": array(tmp_path / str(number), "fmve"[::-1], fill)}))["refs"])
    joined = combine.concatenate_arrays(parts, path="v", axis=0)
    joined["v/.zattrs"] = parts[0]["v/.zattrs"]
    values = through_ours(joined, tmp_path)
    np.testing.assert_array_equal(values, through_zarr(joined))
    assert values.shape == (16,)
    assert values[4:6].tolist() == [fills[0]] * 2
