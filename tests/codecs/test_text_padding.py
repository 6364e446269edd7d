"""The codec of padded text reads what h5py reads."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from registeredcodec import ensure_registered

from virtualchunks.codecs.pipeline import decode_block, encode_block
from virtualchunks.codecs.text_padding import NAME, TextPadding
from virtualchunks.encoding import ChunkEncoding
from virtualchunks.errors import DecodeError, FormatError

ensure_registered(NAME, TextPadding)

PADS = {"null_term": h5py.h5t.STR_NULLTERM, "space_pad": h5py.h5t.STR_SPACEPAD}


def encoding(pad: str, length: int) -> ChunkEncoding:
    return ChunkEncoding.plain(np.dtype(f"S{length}"), [{"name": NAME, "configuration": {"pad": pad}}])


def read_with_h5py(path: Path, raw: bytes, pad: str, length: int) -> np.ndarray:
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(length)
    kind.set_strpad(PADS[pad])
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((len(raw) // length,))
        made = h5py.h5d.create(file.id, b"v", kind, space)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.frombuffer(raw, f"S{length}"), mtype=kind)
        return np.asarray(file["v"][...])


@pytest.mark.parametrize("pad", PADS)
@given(data=st.lists(st.sampled_from(b"ab \0"), min_size=4, max_size=24).map(bytes))
def test_texts_are_those_that_h5py_reads(pad: str, data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    raw = data[: len(data) // 4 * 4]
    expected = read_with_h5py(tmp_path_factory.mktemp("h") / "a.h5", raw, pad, 4)
    np.testing.assert_array_equal(decode_block(raw, encoding(pad, 4), expected.shape), expected, strict=True)


@pytest.mark.parametrize("pad", PADS)
def test_encoded_texts_decode_to_themselves(pad: str) -> None:
    texts = np.array([b"", b"a", b"ab c", b"abcd"], "S4")
    raw = encode_block(texts, encoding(pad, 4))
    assert raw == (b"a".join([b"    ", b"   ab cabcd"]) if pad == "space_pad" else texts.tobytes())
    np.testing.assert_array_equal(decode_block(raw, encoding(pad, 4), (4,)), texts)


def test_bytes_that_are_no_texts_are_refused() -> None:
    with pytest.raises(DecodeError):
        decode_block(b"abc", encoding("null_term", 2), (2,))


@pytest.mark.parametrize("data", [{}, {"name": NAME}, {"name": NAME, "configuration": {"pad": "x"}}])
def test_other_metadata_is_refused(data: dict) -> None:
    with pytest.raises(FormatError, match=NAME):
        TextPadding.from_dict(data)


def test_metadata_comes_back() -> None:
    codec = TextPadding(pad="null_term")
    assert TextPadding.from_dict(codec.to_dict()) == codec
