"""DMR++: documents made from HDF5 files read as h5py reads those files."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from dmrppwriter import Describe
from hypothesis import given, settings
from hypothesis import strategies as st
from rangeserver import RangeServer
from registeredcodec import ensure_registered

import virtualchunks as vc
from virtualchunks.codecs import text_padding
from virtualchunks.errors import NotGrantedError, SourceChangedError, SourceUnavailableError
from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.testing.parsers import ParserTests
from virtualchunks_parsers.dmrpp import DMRPPParser

ensure_registered(text_padding.NAME, text_padding.TextPadding)


def unpacked(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Native order, and array members as structures of their elements."""
    if values.dtype.names is None:
        return values.astype(values.dtype.newbyteorder("="))
    fields = []
    for name in values.dtype.names:
        base, shape = values.dtype[name].subdtype or (values.dtype[name], ())
        count = int(np.prod(shape))
        fields.append((name, np.dtype([(str(n), base) for n in range(count)]) if shape else base))
    return values.view(np.dtype(fields)).astype(np.dtype(fields).newbyteorder("="))


def hdf5_values(path: Path) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = unpacked(np.asarray(item[()], dtype=np.dtype(item.dtype)))

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def values_of(document: Path, **options: Any) -> dict[str, npt.NDArray[Any]]:
    registry = ObjectStoreRegistry({document.parent: None})
    group = DMRPPParser(strict=True, **options).parse(str(document), registry)
    return {name: read_values(array, registry) for name, array in group.walk_arrays()}


def assert_same(path: Path, **options: Any) -> None:
    found, expected = values_of(Describe(path).write(**options)), hdf5_values(path)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name, strict=True)


def compact(group: h5py.Group, name: str, values: npt.NDArray[Any]) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(values.shape) if values.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    made = h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(values.dtype), space, plist)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)


def write_everything(path: Path) -> Path:
    numbers = np.arange(240).reshape(12, 20)
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "a <test> & more"
        file["lat"], file["lon"] = np.linspace(-90, 90, 12), np.linspace(0, 342, 20)
        for name in ("lat", "lon"):
            file[name].make_scale(name)
        for kind in ("i1", "u1", "<i2", ">i2", "<u4", ">i8", "<f4", ">f4", ">f8"):
            made = file.create_dataset(
                f"v_{kind.replace('<', 'l').replace('>', 'b')}", data=numbers.astype(kind), chunks=(5, 8)
            )
            made.dims[0].attach_scale(file["lat"])
            made.dims[1].attach_scale(file["lon"])
            made.attrs["units"] = "K"
            made.attrs["valid_range"] = np.array([0, 240], "i4")
        deflated = {"chunks": (5, 8), "compression": "gzip", "compression_opts": 6}
        file.create_dataset("deflated", data=numbers.astype("<f4"), **deflated)
        file.create_dataset("shuffled", data=numbers.astype(">f8"), shuffle=True, **deflated)
        file.create_dataset("checked", data=numbers.astype("<i4"), shuffle=True, fletcher32=True, **deflated)
        file.create_dataset("contiguous", data=numbers.astype(">u2"))
        file.create_dataset("scalar", data=np.float64(2.5))
        file.create_dataset("filled", shape=(12, 20), dtype="<f4", fillvalue=-999.0)
        file.create_dataset("sparse", shape=(12, 20), chunks=(5, 8), dtype=">i4", fillvalue=-7, compression="gzip")
        file["sparse"][5:10, 8:16] = 3
        file.create_dataset("grown", data=numbers[:3], chunks=(5, 30), maxshape=(None, None))
        file.create_dataset("text", data=np.array([b"one", b"three", b""], "S5"))
        file.create_dataset("texts", data=np.array([b"one", b"three", b""] * 4, "S5"), chunks=(5,), compression="gzip")
        file.create_dataset("empty", shape=(0, 3), dtype="<i2", maxshape=(None, 3), chunks=(2, 3))
        for pad in (h5py.h5t.STR_NULLTERM, h5py.h5t.STR_SPACEPAD):
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(4)
            kind.set_strpad(pad)
            made = h5py.h5d.create(file.id, f"padded_{pad}".encode(), kind, h5py.h5s.create_simple((3,)))
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([b"ab  ", b"a\0b", b"abcd"], "S4"), mtype=kind)
        pair = np.zeros(7, dtype=[("a", "<i4"), ("b", "<f8"), ("c", "<i2", (3,))])
        pair["a"], pair["b"], pair["c"] = np.arange(7), np.arange(7) / 3, np.arange(21).reshape(7, 3)
        file.create_dataset("pairs", data=pair, chunks=(3,), compression="gzip", shuffle=True)
        file.create_dataset("pair", data=pair[2].astype(pair.dtype.newbyteorder(">")))
        colours = h5py.enum_dtype({"RED": 0, "GREEN": 1}, basetype="<i2")
        file.create_dataset("colours", data=np.array([0, 1, 1], "<i2"), dtype=colours)
        inner = file.create_group("model").create_group("run")
        inner.attrs["number"] = np.int32(7)
        inner.create_dataset("wind", data=numbers.astype("<f4"), chunks=(4, 20))
        inner["wind"].dims[1].attach_scale(file["lon"])
        compact(inner, "compact", np.arange(6, dtype="<i4").reshape(2, 3))
        compact(inner, "one", np.array(7.5, dtype="<f4"))
        compact(inner, "word", np.array([b"ab", b"cde"], dtype="S3"))
    return path


def write_masked(path: Path) -> Path:
    """Chunks that skipped filters."""
    with h5py.File(path, "w") as file:
        made = file.create_dataset("v", shape=(4, 6), chunks=(2, 3), dtype="<i4", shuffle=True, compression="gzip")
        blocks = np.arange(24, dtype="<i4").reshape(4, 6)
        for number, mask in enumerate((0b00, 0b10, 0b01, 0b11)):
            row, column = divmod(number, 2)
            raw = blocks[2 * row : 2 * row + 2, 3 * column : 3 * column + 3].tobytes()
            if not mask & 1:
                raw = np.frombuffer(raw, "u1").reshape(-1, 4).T.tobytes()
            if not mask & 2:
                raw = zlib.compress(raw)
            made.id.write_direct_chunk((2 * row, 3 * column), raw, mask)
    return path


class TestDMRPPParser(ParserTests):
    """The suite that every parser passes."""

    parser: ClassVar[DMRPPParser] = DMRPPParser()
    damage_within = None

    def make_files(self, folder: Path) -> Mapping[str, Path]:
        everything = Describe(write_everything(folder / "everything.h5")).write()
        masked = Describe(write_masked(folder / "masked.h5")).write()
        return {"everything": everything, "masked": masked}

    def reference(self, path: Path) -> Mapping[str, npt.NDArray[Any]]:
        return hdf5_values(path.with_suffix(""))

    def _damaged(self, path: Path, content: bytes, folder: Path) -> Path:
        damaged = super()._damaged(path, content, folder)
        data = path.with_suffix("")
        (folder / data.name).write_bytes(data.read_bytes())
        return damaged

    def _reference_of_damaged(self, path: Path) -> Mapping[str, npt.NDArray[Any]] | None:
        return {}  # a number changed in a document is another valid document, and nobody can tell

    def test_what_is_not_granted_is_not_read(self, files: Mapping[str, Path]) -> None:
        """Neither the document nor the data file that it names."""
        super().test_what_is_not_granted_is_not_read(files)
        registry = ObjectStoreRegistry().grant(files["everything"])
        with pytest.raises(NotGrantedError, match=r"everything\.h5"):
            self.parser(files["everything"].as_uri(), registry)


def test_everything_reads_as_h5py_reads_it(tmp_path: Path) -> None:
    assert_same(write_everything(tmp_path / "a.h5"))


def test_chunks_that_skipped_filters_decode_as_they_were_stored(tmp_path: Path) -> None:
    path = write_masked(tmp_path / "a.h5")
    assert_same(path)
    array = DMRPPParser().parse(str(path) + ".dmrpp").arrays["v"]
    assert array.is_heterogeneous
    assert len(array.manifest.sources) == 4


def test_names_attributes_and_groups(tmp_path: Path) -> None:
    document = Describe(write_everything(tmp_path / "a.h5")).write()
    tree = DMRPPParser().parse(str(document))
    assert tree.attributes == {"title": "a <test> & more"}
    assert tree.groups["model"].groups["run"].attributes == {"number": 7}
    array = tree.arrays["v_bi2"]
    assert array.metadata.dimension_names == ("lat", "lon")
    assert array.metadata.attributes == {"units": "K", "valid_range": [0, 240]}
    wind = tree["model/run/wind"]
    assert wind.metadata.dimension_names[1] == "lon"
    assert wind.metadata.dimension_names[0].startswith("phony_dim_")
    assert tree.arrays["filled"].metadata.fill_value == -999
    assert set(DMRPPParser(group="/model/run").parse(str(document)).arrays) == {"wind", "compact", "one", "word"}
    assert "run" not in DMRPPParser(drop_variables=["/model/run"]).parse(str(document)).groups["model"].groups
    assert "wind" not in DMRPPParser(drop_variables="wind").parse(str(document))["model/run"].arrays


def test_documents_without_a_version_have_filters_in_any_order(tmp_path: Path) -> None:
    path = write_everything(tmp_path / "a.h5")
    document = Describe(path).write(version=None)
    text = document.read_text()
    document.write_text(
        text.replace("shuffle deflate fletcher32", "fletcher32 deflate shuffle").replace(
            "shuffle deflate", "deflate shuffle"
        )
    )
    found, expected = values_of(document), hdf5_values(path)
    for name in ("shuffled", "checked", "pairs"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_xarray_opens_the_store_as_it_opens_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    made = xr.Dataset(
        {"t2m": (("time", "x"), np.array([[280.5, np.nan], [281.0, 282.25]], "f4"))},
        coords={"time": ("time", np.array(["2000-01-01", "2000-01-02"], "M8[ns]")), "x": ("x", [1, 2])},
    )
    made.t2m.encoding = {"dtype": "i2", "scale_factor": 0.25, "add_offset": 273.0, "_FillValue": -1, "zlib": True}
    made.to_netcdf(path, engine="h5netcdf")
    store = DMRPPParser()(str(Describe(path).write()))
    with xr.open_dataset(path, engine="h5netcdf") as expected:
        xr.testing.assert_equal(xr.open_zarr(store, consolidated=False, zarr_format=3).load(), expected.load())


def serve(range_server: RangeServer, folder: Path) -> Path:
    path = write_everything(folder / "a.h5")
    range_server.objects = {"d/a.h5": path.read_bytes(), "d/a.h5.dmrpp": Describe(path).write().read_bytes()}
    return path


def test_one_request_for_the_document_and_none_for_the_data(range_server: RangeServer, tmp_path: Path) -> None:
    path = serve(range_server, tmp_path)
    registry = ObjectStoreRegistry({range_server.root: None})
    tree = DMRPPParser(strict=True).parse(range_server.url("d/a.h5.dmrpp"), registry)
    assert [(request.key, request.range) for request in range_server.requests] == [("d/a.h5.dmrpp", (0, 1 << 20))]
    assert not tree.arrays["deflated"].manifest.sources.stamp(0)
    expected = hdf5_values(path)
    for name in ("v_bi2", "shuffled", "contiguous"):
        np.testing.assert_array_equal(read_values(tree.arrays[name], registry), expected[name])


def test_stamps_take_one_request_for_each_data_file(range_server: RangeServer, tmp_path: Path) -> None:
    """And let a later change be noticed."""
    path = serve(range_server, tmp_path)
    registry = ObjectStoreRegistry({range_server.root: None})
    tree = DMRPPParser(strict=True, stamps=True).parse(range_server.url("d/a.h5.dmrpp"), registry)
    assert [(request.key, request.range) for request in range_server.requests] == [
        ("d/a.h5.dmrpp", (0, 1 << 20)),
        ("d/a.h5", (0, 1)),
    ]
    stamp = tree.arrays["deflated"].manifest.sources.stamp(0)
    assert stamp.size == path.stat().st_size
    assert stamp.etag is not None
    range_server.objects["d/a.h5"] += b"more"
    with pytest.raises(SourceChangedError, match=r"a\.h5"):
        read_values(tree.arrays["deflated"], registry)


def test_stamps_of_local_files_are_taken_unless_they_are_not_wanted(tmp_path: Path) -> None:
    document = Describe(write_everything(tmp_path / "a.h5")).write()
    for stamps, expected in ((None, True), (True, True), (False, False)):
        array = DMRPPParser(stamps=stamps).parse(str(document)).arrays["deflated"]
        assert bool(array.manifest.sources.stamp(0)) is expected


def test_naming_a_document_names_the_file_beside_it(tmp_path: Path) -> None:
    """And the one that the user says, but none that the document says; a registry of the user's is taken as it is."""
    path = write_everything(tmp_path / "a.h5")
    document = Describe(path).write()
    opened = vc.open_virtual_dataset(document, loadable_variables=["lat"])
    np.testing.assert_array_equal(opened["lat"], np.linspace(-90, 90, 12))
    np.testing.assert_array_equal(opened.virtual.open()["shuffled"], hdf5_values(path)["shuffled"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = path.rename(elsewhere / "b.h5")
    with pytest.raises(SourceUnavailableError, match=r"a\.h5"):
        vc.open_virtual_dataset(document)
    again = vc.open_virtual_dataset(document, parser=DMRPPParser(data_url=str(moved)), loadable_variables=[])
    assert again.sizes == opened.sizes
    Describe(moved).write(href=moved.as_uri()).rename(document)
    with pytest.raises(NotGrantedError, match=r"b\.h5"):
        vc.open_virtual_dataset(document)
    with pytest.raises(NotGrantedError):
        vc.open_virtual_dataset(document, registry=ObjectStoreRegistry().grant(document))


@st.composite
def datasets(draw: st.DrawFn) -> dict[str, Any]:
    shape = draw(st.lists(st.integers(1, 9), min_size=0, max_size=3).map(tuple))
    dtype = draw(st.sampled_from(["i1", "u1", "<i2", ">i2", "<i4", ">u4", "<i8", ">f4", "<f8", ">f8", "S3"]))
    options: dict[str, Any] = {"shape": shape, "dtype": dtype}
    if dtype != "S3":
        options["fillvalue"] = draw(st.integers(0, 100))
    if shape and draw(st.booleans()):
        options["chunks"] = tuple(draw(st.integers(1, size)) for size in shape)
        options["shuffle"], options["fletcher32"] = draw(st.booleans()), draw(st.booleans())
        options["compression"] = draw(st.sampled_from([None, "gzip"]))
    options["fraction"] = draw(st.sampled_from([0.0, 0.5, 1.0]))
    return options


@settings(max_examples=60)
@given(st.lists(datasets(), min_size=1, max_size=4))
def test_any_file_reads_as_h5py_reads_it(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.h5"
    with h5py.File(path, "w") as file:
        for number, options in enumerate(wanted):
            fraction = options.pop("fraction")
            made = file.create_dataset(f"v{number}", **options)
            if not made.shape:
                made[()] = np.array(65).astype(made.dtype)
            elif fraction:
                rows = max(1, int(made.shape[0] * fraction))
                count = int(np.prod((rows, *made.shape[1:])))
                made[:rows] = (np.arange(count) % 100).astype(made.dtype).reshape(rows, *made.shape[1:])
    assert_same(path)
