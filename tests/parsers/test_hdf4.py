"""The HDF4 parser against the HDF4 library: values, names, attributes, damage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hdf4chunks
import hdf4files
import numpy as np
import numpy.typing as npt
import pytest
from pyhdf.SD import SD, SDC
from rangeserver import RangeServer

import virtualchunks as vc
from virtualchunks.codecs.hdf4_rle import HDF4RLE, decode_runs
from virtualchunks.errors import DecodeError, FormatError, UnsupportedArrayWarning, UnsupportedFeatureError
from virtualchunks.group import ManifestGroup
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.testing.parsers import ParserTests
from virtualchunks_parsers.hdf4 import HDF4Parser, elements

hdf4files.register_codecs()


def parse(path: Path, **options: Any) -> tuple[ManifestGroup, ObjectStoreRegistry]:
    registry = ObjectStoreRegistry({path.parent.as_uri() + "/": None})
    return HDF4Parser(**options)(path.as_uri(), registry).group, registry


class TestHDF4Parser(ParserTests):
    """What holds for every parser. The HDF4 library crashes on damage, so it reads intact files only."""

    parser = HDF4Parser()
    damage_within = None

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        made = (
            hdf4files.types,
            hdf4files.compressed,
            hdf4files.records,
            hdf4files.unwritten,
            hdf4files.same_names,
        )
        return {make.__name__: make(folder / f"{make.__name__}.hdf") for make in made}

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        return hdf4files.reference(path)

    def _reference_of_damaged(self, path: Path) -> Mapping[str, npt.NDArray[Any]] | None:
        return {}


def test_dimensions_and_attributes(tmp_path: Path) -> None:
    """As the SD interface has them; a scale is an array of the name of its dimension."""
    group, registry = parse(hdf4files.types(tmp_path / "a.hdf"))
    metadata = group.arrays["v_i2"].metadata
    assert metadata.dimension_names == ("y", "x")
    assert metadata.attributes["units"] == "K"
    assert metadata.attributes["range"].tolist() == [1, 2, 3]
    assert metadata.attributes["half"] == 0.5
    assert group.attributes["title"] == "a file / with text"
    assert group.arrays["x"].metadata.dimension_names == ("x",)
    assert read_values(group.arrays["x"], registry).tolist() == [0.5, 1.5, 2.5, 3.5]


def test_linked_blocks_are_chunks_where_they_hold_whole_records(tmp_path: Path) -> None:
    """Nothing is read for them."""
    path = hdf4files.records(tmp_path / "a.hdf", rows=600)
    group, registry = parse(path)
    even, odd = group.arrays["even"], group.arrays["odd"]
    assert even.shape == (600, 2, 4)
    assert even.manifest.sources.buffers is None
    assert even.metadata.grid.size > 1
    assert odd.manifest.sources.buffers is None
    expected = hdf4files.reference(path)
    np.testing.assert_array_equal(read_values(even, registry), expected["even"])
    np.testing.assert_array_equal(read_values(odd, registry), expected["odd"])


def test_linked_blocks_that_cut_records_are_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an HDF4 library of another make may leave them."""
    path = hdf4files.records(tmp_path / "a.hdf")
    joined = elements._joined
    monkeypatch.setattr(
        elements, "_joined", lambda pieces: [(joined(pieces)[0][0], 7), (joined(pieces)[0][0] + 7, pieces[0][1] - 7)]
    )
    group, registry = parse(path)
    assert group.arrays["odd"].manifest.sources.buffers is not None
    np.testing.assert_array_equal(read_values(group.arrays["odd"], registry), hdf4files.reference(path)["odd"])


def test_unlimited_dimensions_of_one_name_and_several_sizes(tmp_path: Path) -> None:
    """An xarray Dataset needs names that stand for one size."""
    file = SD(str(tmp_path / "a.hdf"), SDC.WRITE | SDC.CREATE)
    for name, rows in (("a", 2), ("b", 3), ("c", 2)):
        dataset = file.create(name, SDC.INT16, (SDC.UNLIMITED,))
        dataset.dim(0).setname("time")
        dataset[0:rows] = np.arange(rows, dtype="i2")
        dataset.endaccess()
    file.end()
    arrays = parse(tmp_path / "a.hdf")[0].arrays
    names = {name: array.metadata.dimension_names for name, array in arrays.items()}
    assert names == {"a": ("time",), "b": ("time_3",), "c": ("time",)}


def test_what_is_refused_is_named(tmp_path: Path) -> None:
    """Skipping Huffman and data in other files; the rest of the file is read."""
    file = SD(str(tmp_path / "a.hdf"), SDC.WRITE | SDC.CREATE)
    packed = file.create("packed", SDC.INT16, (4, 4))
    packed.setcompress(SDC.COMP_SKPHUFF, 2)
    packed[:] = np.ones((4, 4), dtype="i2")
    packed.endaccess()
    outside = file.create("outside", SDC.INT16, (4,))
    outside.setexternalfile(str(tmp_path / "outside.dat"), 0)
    outside[:] = np.ones(4, dtype="i2")
    outside.endaccess()
    plain = file.create("plain", SDC.INT16, (4,))
    plain[:] = np.arange(4, dtype="i2")
    plain.endaccess()
    file.end()
    with pytest.warns(UnsupportedArrayWarning) as caught:
        group, registry = parse(tmp_path / "a.hdf")
    assert [str(item.message).split(" of ")[0] for item in caught] == ["'packed'", "'outside'"]
    assert "skipping Huffman" in str(caught[0].message)
    assert "another file" in str(caught[1].message)
    assert read_values(group.arrays["plain"], registry).tolist() == [0, 1, 2, 3]
    with pytest.raises(UnsupportedFeatureError, match="skipping Huffman"):
        parse(tmp_path / "a.hdf", strict=True)


def test_descriptors_that_lead_in_a_circle_are_refused(tmp_path: Path) -> None:
    """The directory is a linked list of blocks."""
    path = hdf4files.types(tmp_path / "a.hdf")
    content = bytearray(path.read_bytes())
    content[6:10] = (4).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(FormatError, match="descriptor block"):
        parse(path)


def test_arrays_can_be_dropped_and_there_are_no_groups(tmp_path: Path) -> None:
    """By name."""
    path = hdf4files.compressed(tmp_path / "a.hdf")
    assert list(parse(path, drop_variables="rle")[0].arrays) == ["deflate"]
    with pytest.raises(FormatError, match="no group"):
        parse(path, group="inner")
    assert list(HDF4Parser().parse(str(path)).arrays) == ["deflate", "rle"]


GRID = """GROUP=GridStructure
	GROUP=GRID_1
		GridName="{name}"
		XDim=4
		YDim=2
		UpperLeftPointMtrs=({upper_left})
		LowerRightMtrs=({lower_right})
		Projection={projection}
{more}		GROUP=Dimension
		END_GROUP=Dimension
	END_GROUP=GRID_1
END_GROUP=GridStructure
END
"""


def eos_grid(path: Path, **entries: str) -> ManifestGroup:
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    dataset = file.create("field", SDC.INT16, (2, 4))
    dataset.dim(0).setname(f"YDim:{entries['name']}")
    dataset.dim(1).setname(f"XDim:{entries['name']}")
    dataset[:] = np.zeros((2, 4), dtype="i2")
    dataset.endaccess()
    file.attr("StructMetadata.0").set(SDC.CHAR8, GRID.format(**{"more": "", **entries}))
    file.end()
    return parse(path)[0]


def test_coordinates_of_eos_grids(tmp_path: Path) -> None:
    """Packed angles or metres, at the centres of cells unless the file says otherwise."""
    registry = ObjectStoreRegistry()
    group = eos_grid(
        tmp_path / "a.hdf",
        name="CMG",
        upper_left="-180000000.000000,30030000.000000",
        lower_right="180000000.000000,-30030000.000000",
        projection="GCTP_GEO",
    )
    assert read_values(group.arrays["XDim:CMG"], registry).tolist() == [-135.0, -45.0, 45.0, 135.0]
    assert read_values(group.arrays["YDim:CMG"], registry).tolist() == [15.25, -15.25]
    assert group.arrays["YDim:CMG"].metadata.attributes["units"] == "degrees_north"
    group = eos_grid(
        tmp_path / "b.hdf",
        name="S",
        upper_left="-4.0,2e2",
        lower_right="4,0",
        projection="GCTP_SNSOID",
        more="\t\tPixelRegistration=HDFE_CORNER\n",
    )
    assert read_values(group.arrays["XDim:S"], registry).tolist() == [-4.0, -2.0, 0.0, 2.0]
    assert read_values(group.arrays["YDim:S"], registry).tolist() == [200.0, 100.0]


@pytest.mark.parametrize("wrong", [{"upper_left": "DEFAULT"}, {"more": "\t\tGridOrigin=HDFE_GD_LR\n"}], ids=str)
def test_eos_grids_without_corners_have_no_coordinates(tmp_path: Path, wrong: dict[str, str]) -> None:
    """None are invented."""
    entries = {"name": "G", "upper_left": "0,1", "lower_right": "1,0", "projection": "GCTP_SNSOID", **wrong}
    assert list(eos_grid(tmp_path / "a.hdf", **entries).arrays) == ["field"]


def test_few_requests(tmp_path: Path, range_server: RangeServer) -> None:
    """A small file takes one."""
    path = hdf4files.types(tmp_path / "a.hdf")
    range_server.objects["a.hdf"] = path.read_bytes()
    HDF4Parser()(range_server.url("a.hdf"), ObjectStoreRegistry({range_server.root + "/": None}))
    assert len(range_server.requests) == 1


def test_runs() -> None:
    """Runs and literals, up to a limit."""
    data = bytes([0x80 | 5, 9, 2, 1, 2, 3])
    assert decode_runs(data, 11) == bytes([9] * 8 + [1, 2, 3])
    for bad, limit in ((data, 10), (data[:-1], 100), (bytes([0x80]), 100)):
        with pytest.raises(DecodeError):
            decode_runs(bad, limit)
    assert HDF4RLE.from_dict(HDF4RLE().to_dict()) == HDF4RLE()


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("left_out", [(), (1, 4)], ids=str)
def test_chunked_arrays(tmp_path: Path, deflate: bool, left_out: tuple[int, ...]) -> None:
    """Padded at the edges; chunks that were never written are missing."""
    content = np.arange(7 * 10, dtype="i2").reshape(7, 10)
    path = hdf4chunks.chunked(tmp_path / "a.hdf", content, (3, 4), deflate=deflate, left_out=left_out)
    group, registry = parse(path)
    array = group.arrays["field"]
    assert array.metadata.chunks == (3, 4)
    assert array.manifest.present.sum() == 9 - len(left_out)
    expected = content.copy()
    for number in left_out:
        expected[array.metadata.grid.cell_slices(np.unravel_index(number, (3, 3)))] = -32767
    np.testing.assert_array_equal(read_values(array, registry), expected)
    if not deflate:
        np.testing.assert_array_equal(hdf4files.reference(path)["field"], expected)


def test_chunks_of_the_wrong_size_are_refused(tmp_path: Path) -> None:
    """Their number of bytes follows from the shape of the chunks."""
    path = hdf4chunks.chunked(tmp_path / "a.hdf", np.zeros((6, 8), "i2"), (3, 4), deflate=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(np.array([0, 8, 4], ">u4").tobytes(), np.array([0, 8, 5], ">u4").tobytes()))
    with pytest.raises(FormatError, match="a chunk of 24 bytes"):
        parse(path)


def test_calibration_means_to_xarray_what_it_means_in_hdf4(tmp_path: Path) -> None:
    path = tmp_path / "calibrated.hdf"
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    made = file.create("v", SDC.INT16, (3,))
    made.setcal(0.5, 0.0, 10.0, 0.0, SDC.FLOAT32)
    made[:] = np.array([10, 12, 30], dtype="i2")
    made.endaccess()
    file.end()
    opened = vc.open_virtual_dataset(path).virtual.open()
    np.testing.assert_array_equal(opened["v"], [0.0, 1.0, 10.0])
