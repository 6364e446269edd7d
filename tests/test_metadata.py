"""Array metadata: its JSON against zarr-python's own reading and writing of it."""

import json

import numpy as np
import pytest
import zarr
from zarr.core.dtype import get_data_type_from_json, parse_dtype

from virtualchunks.errors import ManifestError, UnsupportedFeatureError
from virtualchunks.metadata import (
    ArrayMetadata,
    dtype_from_json,
    dtype_to_json,
    fill_from_json,
    fill_to_json,
    same_value,
)

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")

STRUCT = np.dtype([("a", "<i4"), ("b", "<f8"), ("c", "S3")])
VALUES = [
    ("bool", True),
    ("int8", -3),
    ("uint64", 2**63 + 1),
    ("float16", -0.0),
    ("float32", np.nan),
    ("float64", np.inf),
    ("float64", -np.inf),
    ("float32", 0.1),
    ("complex64", 1 + 2j),
    ("complex128", complex(np.nan, -0.0)),
    ("S5", b"ab"),
    ("U3", "xé"),
    ("V4", b"\x01\x02\x03\x04"),
    ("M8[s]", 5),
    ("M8[ns]", "NaT"),
    ("m8[ms]", 7),
    ("M8[10D]", 3),
]


@pytest.mark.parametrize(("dtype", "value"), VALUES)
def test_fill_values_are_written_and_read_as_zarr_does(dtype, value):
    dtype = np.dtype(dtype)
    metadata = ArrayMetadata.build(shape=(3,), chunks=(2,), dtype=dtype, fill_value=value)
    document = metadata.to_dict()
    text = json.dumps(document)
    theirs = zarr.core.metadata.v3.ArrayV3Metadata.from_dict(json.loads(text))
    native = theirs.dtype.to_native_dtype()
    assert native == dtype
    assert same_value(theirs.fill_value, metadata.fill_value)
    ours = np.asarray(metadata.fill_value)
    assert np.asarray(theirs.fill_value).astype(dtype).tobytes() == ours.astype(dtype).tobytes()
    again = ArrayMetadata.from_dict(json.loads(text))
    assert again == metadata
    from_zarr = ArrayMetadata.from_dict(theirs.to_dict())
    assert from_zarr == metadata


def test_structured_and_string_types():
    metadata = ArrayMetadata.build(shape=(3,), chunks=(2,), dtype=STRUCT)
    theirs = zarr.core.metadata.v3.ArrayV3Metadata.from_dict(metadata.to_dict())
    assert theirs.dtype.to_native_dtype() == STRUCT
    assert dtype_from_json(dtype_to_json(STRUCT)) == STRUCT
    assert fill_from_json(fill_to_json(metadata.fill_value, STRUCT), STRUCT) == metadata.fill_value
    text = ArrayMetadata.build(
        shape=(3,), chunks=(3,), dtype=np.dtypes.StringDType(), codecs=[{"name": "vlen-utf8"}], fill_value="ü"
    )
    assert zarr.core.metadata.v3.ArrayV3Metadata.from_dict(text.to_dict()).fill_value == "ü"
    assert ArrayMetadata.from_dict(text.to_dict()) == text


@pytest.mark.parametrize("dtype", ["i1", "u2", "i8", "f2", "c16", "?", "S7", "U4", "V3", "M8[us]", "m8[D]"])
def test_data_types_have_zarrs_names(dtype):
    data_type = dtype_to_json(np.dtype(dtype))
    assert parse_dtype(np.dtype(dtype), zarr_format=3).to_json(zarr_format=3) == data_type
    assert get_data_type_from_json(data_type, zarr_format=3).to_native_dtype() == np.dtype(dtype)
    assert dtype_from_json(data_type) == np.dtype(dtype)


def test_types_that_zarr_has_no_name_for():
    with pytest.raises(UnsupportedFeatureError, match="no data type"):
        dtype_to_json(np.dtype("longdouble"))
    with pytest.raises(UnsupportedFeatureError, match="float8"):
        dtype_from_json("float8")
    with pytest.raises(UnsupportedFeatureError, match="unknown Zarr data type"):
        dtype_from_json({"name": "quaternion", "configuration": {}})
    assert dtype_from_json("r24") == np.dtype("V3")


def test_the_byte_order_belongs_to_the_encoding():
    metadata = ArrayMetadata.build(shape=(3,), chunks=(3,), dtype=">f8")
    assert metadata.dtype == np.dtype("f8")
    assert metadata.dtype.isnative
    assert metadata.encoding.dtype == np.dtype(">f8")
    assert metadata.to_dict()["codecs"] == [{"name": "bytes", "configuration": {"endian": "big"}}]
    assert ArrayMetadata.from_dict(metadata.to_dict()).encoding == metadata.encoding
    assert metadata.transcoded().encoding.dtype == np.dtype("<f8")


def test_what_does_not_fit_is_refused():
    with pytest.raises(ManifestError, match="1 dimension names"):
        ArrayMetadata.build(shape=(3, 3), chunks=(3, 3), dtype="f4", dimension_names=["x"])
    with pytest.raises(ManifestError, match="is not a value of the dtype"):
        ArrayMetadata.build(shape=(3,), chunks=(3,), dtype="i4", fill_value="seven")
    with pytest.raises(ManifestError, match="zarr_format 3"):
        ArrayMetadata.from_dict({"zarr_format": 2})
    document = ArrayMetadata.build(shape=(3,), chunks=(3,), dtype="i4").to_dict()
    with pytest.raises(UnsupportedFeatureError, match="storage transformers"):
        ArrayMetadata.from_dict({**document, "storage_transformers": [{"name": "x"}]})
    with pytest.raises(ManifestError, match="not the fill value"):
        ArrayMetadata.from_dict({**document, "fill_value": "seven"})


def test_equality_of_values():
    assert same_value({"a": [1, np.nan]}, {"a": np.array([1, np.nan])})
    assert not same_value({"a": 1}, {"b": 1})
    assert not same_value("K", "degC")
    assert not same_value(None, 0)
    assert same_value(0.0, np.float32(0))
    assert not same_value([1, 2], [1, 2, 3])


def test_zarrs_metadata_object_is_accepted_with_a_codec_pipeline():
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(store, name="a", shape=(4, 4), chunks=(2, 2), dtype="i2", dimension_names=["y", "x"])
    metadata = ArrayMetadata.from_dict(array.metadata.to_dict())
    assert metadata.chunks == (2, 2)
    assert metadata.dimension_names == ("y", "x")
    assert [codec["name"] for codec in metadata.codecs] == ["bytes", "zstd"]
