"""Encodings that lift numbers, and those of parts of blocks, in the document of a table."""

import copy
import json
import pickle

import numpy as np
import pytest

from virtualchunks import ArrayMetadata, ManifestArray, ManifestGroup
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import FormatError, ManifestError, VirtualChunksError
from virtualchunks.packing import Packing
from virtualchunks.writers.tables.documents import Template

PACKED = {"scale_factor": np.float32(0.1), "_FillValue": np.int16(-9), "missing_value": np.array([1, 2], "i2")}


def document() -> dict:
    metadata = ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="<i2", attributes=PACKED, fill_value=-9)
    array = ManifestArray(metadata, {}).lifted()
    part = array.metadata.encoding.windowed(0, 1, (2,))
    return json.loads(Template(Template.of(ManifestGroup({"v": array})).root, (part,)).to_json())


def template() -> Template:
    return Template.from_json(json.dumps(document()))


def test_they_come_back_with_all_of_their_bits():
    found = template()
    encoding, [part] = found.root.arrays["v"].encoding, found.encodings
    assert part.start == (1,)
    assert part.lift_key == encoding.lift_key == Packing.of(PACKED, np.dtype("i2")).key
    assert type(encoding.packing.attributes["scale_factor"]) is np.float32
    assert encoding.packing.fill_value == -9
    assert found.root.arrays["v"].dtype == np.dtype("f4")


def test_they_pickle():
    [part] = template().encodings
    for made in (pickle.loads(pickle.dumps(part)), copy.deepcopy(part)):
        assert made == part
        assert made.packing.lift(np.array([3], "i2")).dtype == np.dtype("f4")


@pytest.mark.parametrize(
    "change",
    [
        {"start": [1, 1]},
        {"start": [-1]},
        {"start": "x"},
        {"shape": None},
        {"packing": {"dtype": "int16", "attributes": {"units": "K"}, "fill_value": None}},
        {"packing": {"dtype": "int16", "attributes": {"scale_factor": "K"}, "fill_value": None}},
        {"packing": {"dtype": "string", "attributes": {"scale_factor": 2.0}, "fill_value": None}},
        {"packing": {"dtype": "int16", "attributes": {"scale_factor": 2.0}, "fill_value": "K"}},
        {"packing": {"dtype": "int16", "attributes": {"scale_factor": 2.0}}},
        {"packing": []},
    ],
    ids=str,
)
def test_what_is_none_is_refused(change):
    damaged = document()
    damaged["encodings"][0] |= change
    with pytest.raises(VirtualChunksError) as caught:
        Template.from_json(json.dumps(damaged))
    assert isinstance(caught.value, FormatError | ManifestError)


def test_a_cell_must_lie_in_its_block():
    plain = ChunkEncoding.plain("<i2")
    for shape, start in ((None, (1,)), ((2,), (1, 1)), ((2,), (-1,))):
        with pytest.raises(ManifestError, match="cannot begin at"):
            ChunkEncoding(plain.dtype, plain.codecs, shape, start=start)
