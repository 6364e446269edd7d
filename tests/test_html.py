"""The notebook picture of an array: well-formed, escaped, bounded."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import virtualchunks as vc
from virtualchunks.html import MOST, in_words
from virtualchunks.manifest import RECORD


def build(shape, chunks, *, missing=(), url="s3://bucket/<b>&.nc"):
    metadata = vc.ArrayMetadata.build(shape=shape, chunks=chunks, dtype="<f4", dimension_names=None, fill_value=np.nan)
    records = np.zeros(metadata.grid.size, dtype=RECORD)
    records["length"] = 100
    records["source"][list(missing)] = -1
    manifest = vc.ChunkManifest.from_records(records.reshape(metadata.grid.grid_shape), vc.SourceTable.single(url))
    return vc.ManifestArray(metadata, manifest)


SHAPES = [
    ((), ()),
    ((7,), (2,)),
    ((0, 3), (1, 3)),
    ((6, 4), (2, 4)),
    ((6, 4, 5), (2, 4, 5)),
    ((3, 6, 4, 5), (1, 2, 4, 5)),
]


@pytest.mark.parametrize(("shape", "chunks"), SHAPES)
def test_it_is_well_formed_and_escaped(shape, chunks):
    text = build(shape, chunks)._repr_html_()
    root = ElementTree.fromstring(text)
    assert "<b>" not in text
    cells = [cell.text for cell in root.iter("td")]
    if 0 not in shape:
        assert "s3://bucket/<b>&.nc" in cells
    assert (root.find(".//svg") is not None) == bool(shape and 0 not in shape)


def test_missing_chunks_are_counted_and_hatched():
    root = ElementTree.fromstring(build((4, 4), (2, 2), missing=[0, 3])._repr_html_())
    assert any("4 in all, 2 missing (read as nan)" in (cell.text or "") for cell in root.iter("td"))
    pattern = root.find(".//pattern")
    hatched = [rect for rect in root.iter("rect") if rect.get("fill", "").startswith("url")]
    assert len(hatched) == 2
    assert {rect.get("fill") for rect in hatched} == {f"url(#{pattern.get('id')})"}


def test_a_large_grid_makes_a_small_picture():
    array = build((1_000_000, 10), (10, 10), missing=range(0, 100_000, 7))
    text = array._repr_html_()
    assert len(text) < 20_000
    root = ElementTree.fromstring(text)
    assert len([rect for rect in root.iter("rect") if rect.get("fill", "").startswith("url")]) <= MOST


def test_rectilinear_and_several_sources():
    joined = np.concatenate([build((31, 4), (31, 4)), build((28, 4), (28, 4), url="s3://bucket/2")])
    text = joined._repr_html_()
    assert "((31, 28), 4), 2 in all" in text
    assert "and 1 more" in text


@pytest.mark.parametrize(("size", "words"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e15, "2,000.0 TB")])
def test_sizes(size, words):
    assert in_words(size) == words
