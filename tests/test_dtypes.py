"""dtypes in the core: native order of the values, stored order of the bytes, elements of any length."""

import numpy as np
import pytest

from virtualchunks.encoding import in_order
from virtualchunks.errors import ManifestError
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata

TEXT = np.dtypes.StringDType()


@pytest.mark.parametrize("stored", [">f4", "<f4", [("a", ">i4"), ("b", ">f8")]])
def test_values_have_native_order_and_bytes_their_own(stored: object) -> None:
    metadata = ArrayMetadata.build(shape=(2,), chunks=(2,), dtype=stored)
    assert metadata.dtype == np.dtype(stored).newbyteorder("=")  # type: ignore[call-overload]
    assert metadata.encoding.dtype == np.dtype(stored)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("dtype", "codec"), [(TEXT, "vlen-utf8"), (np.dtype("O"), "vlen-bytes"), (np.dtype("i4"), "bytes")]
)
def test_transcoded_arrays_have_the_codec_of_their_dtype(dtype: np.dtype, codec: str) -> None:
    first = {"name": codec} if codec != "bytes" else {"name": "bytes", "configuration": {"endian": "big"}}
    gzip = {"name": "gzip", "configuration": {"level": 1}}
    metadata = ArrayMetadata.build(shape=(2,), chunks=(2,), dtype=dtype, codecs=[first, gzip])
    assert [found["name"] for found in metadata.transcoded().codecs] == [codec]


def test_text_of_any_length_has_no_order() -> None:
    assert in_order(TEXT, ">") == TEXT
    assert in_order(np.dtype("<i4"), ">") == np.dtype(">i4")


@pytest.mark.parametrize("key", ["x", "0.0", "00", "1", "9" * 5000, "", "-1"])
def test_a_manifest_lacks_what_is_no_key_of_it(key: str) -> None:
    manifest = ChunkManifest({"0": {"path": "s3://bucket/a", "offset": 0, "length": 1}})
    assert key not in manifest
    assert manifest.get(key) is None
    with pytest.raises(KeyError):
        manifest[key]


def test_a_key_of_many_digits_is_refused_as_a_key() -> None:
    with pytest.raises(ManifestError, match="not a chunk key"):
        ChunkManifest({"9" * 5000: {"path": "s3://bucket/a", "offset": 0, "length": 1}})
