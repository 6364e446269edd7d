"""Generated HDF5 files: what the store reads is what h5py reads, or an error names the array. Nothing in between."""

from __future__ import annotations

import os
import tempfile
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import zarr
from hdf5oracle import decoded, same_values
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from virtualchunks.errors import UnsupportedArrayWarning
from virtualchunks_parsers.hdf5 import HDF5Parser

EXAMPLES = int(os.environ.get("VIRTUALCHUNKS_EXAMPLES", "150"))

NUMBERS = [
    f"{order}{code}" for order in "<>" for code in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
]
OTHERS = {
    "i1": np.dtype("i1"),
    "u1": np.dtype("u1"),
    "bool": np.dtype("?"),
    "S5": np.dtype("S5"),
    "V3": np.dtype("V3"),
    "enum": h5py.enum_dtype({"red": 0, "green": 3}, "i2"),
    "packed": np.dtype([("a", "<i4"), ("b", "<f8"), ("c", "S3")]),
    "big": np.dtype([("a", ">i2"), ("b", ">f4")]),
    "mixed": np.dtype([("a", ">i2"), ("b", "<f4")]),
    "padded": np.dtype([("a", "i1"), ("b", "<f8")], align=True),
    "nested": np.dtype([("a", [("x", "<i2"), ("y", "<f4", (2, 2))]), ("b", "u1")]),
    "array": np.dtype(("<f4", (2, 3))),
    "text": h5py.string_dtype(),
    "sequence": h5py.vlen_dtype("i4"),
    "when": h5py.opaque_dtype("M8[s]"),
}
PLUGINS: list[dict[str, Any]] = [
    dict(hdf5plugin.Blosc(cname="zstd", shuffle=1)),
    dict(hdf5plugin.Blosc2()),
    dict(hdf5plugin.BZip2()),
    dict(hdf5plugin.LZ4()),
    dict(hdf5plugin.Bitshuffle()),
    dict(hdf5plugin.Zstd()),
]


@dataclass
class Recipe:
    """A dataset to be made."""

    dtype: Any
    shape: tuple[int, ...]
    layout: str
    chunks: tuple[int, ...]
    filters: dict[str, Any]
    nbit: bool
    fill: bool
    written: tuple[float, ...]
    masked: list[int]
    libver: str
    userblock: int
    seed: int
    limits: tuple[int | None, ...] = ()
    early: bool = False
    unfilled: bool = False


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    key = draw(st.sampled_from([*NUMBERS, *OTHERS]))
    dtype = OTHERS[key] if key in OTHERS else np.dtype(key)
    shape = tuple(draw(st.lists(st.integers(0, 7), max_size=3)))
    layouts = ["contiguous", "compact", *(["chunked"] * 3 if shape else [])]
    layout = draw(st.sampled_from(layouts))
    filters: dict[str, Any] = {}
    if layout == "chunked":
        filters = draw(
            st.one_of(
                st.fixed_dictionaries(
                    {
                        "shuffle": st.booleans(),
                        "compression": st.sampled_from([None, 1, 9, "lzf"]),
                        "fletcher32": st.booleans(),
                    }
                ),
                st.sampled_from(PLUGINS),
            )
        )
        if dtype.kind in "iu" and dtype.metadata is None and draw(st.booleans()):
            filters = {"scaleoffset": 0, **{name: value for name, value in filters.items() if name == "shuffle"}}
    return Recipe(
        dtype,
        shape,
        layout,
        tuple(draw(st.integers(1, 9)) for _ in shape),
        filters,
        draw(st.booleans()),
        draw(st.booleans()),
        tuple(draw(st.floats(0, 1)) for _ in shape),
        draw(st.lists(st.integers(0, 3), max_size=3)),
        draw(st.sampled_from(["earliest", "latest", "v110"])),
        draw(st.sampled_from([0, 0, 512])),
        draw(st.integers(0, 2**20)),
        tuple(draw(st.sampled_from([None, max(size, 1), size + 5])) for size in shape),
        draw(st.booleans()),
        draw(st.booleans()),
    )


def values_of(dtype: Any, shape: tuple[int, ...], chance: np.random.Generator) -> Any:
    if h5py.check_string_dtype(dtype) is not None and dtype.kind == "O":
        words = np.array(["", "a", "zwölf", "lang " * 9], dtype=object)
        return words[chance.integers(0, len(words), shape)]
    if dtype.subdtype is not None:
        base, inner = dtype.subdtype
        return values_of(base, (*shape, *inner), chance)
    raw = chance.integers(1, 100, size=(*shape, dtype.itemsize), dtype="u1")
    if dtype.kind in "b":
        return (raw[..., 0] > 50).reshape(shape)
    if dtype.kind in "SVM" and dtype.names is None:
        return np.ascontiguousarray(raw).view(np.dtype(dtype.str)).reshape(shape).view(dtype)
    values = np.zeros(shape, dtype=dtype)
    for name in dtype.names or ():
        base, inner = dtype.fields[name][0].subdtype or (dtype.fields[name][0], ())
        values[name] = values_of(base, (*shape, *inner), chance)
    return values if dtype.names else chance.integers(0, 100, shape).astype(dtype)


def fill_of(dtype: Any, chance: np.random.Generator) -> Any:
    if dtype.kind in "OV" or dtype.subdtype is not None or h5py.check_opaque_dtype(dtype):
        return None
    return values_of(dtype, (), chance)[()]


def make(path: Path, recipe: Recipe) -> None:
    chance = np.random.default_rng(recipe.seed)
    with h5py.File(path, "w", libver=recipe.libver, userblock_size=recipe.userblock) as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options: dict[str, Any] = {}
        if recipe.layout == "compact":
            plist.set_layout(h5py.h5d.COMPACT)
        if recipe.layout == "chunked":
            limits = recipe.limits or (None,) * len(recipe.shape)
            small = [
                size if most is None else min(size, max(most, 1))
                for size, most in zip(recipe.chunks, limits, strict=True)
            ]
            options = {"chunks": tuple(small), "maxshape": limits, **recipe.filters}
            early = recipe.early and 0 not in recipe.shape and not recipe.filters  # else HDF5 may divide by zero
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY if early else h5py.h5d.ALLOC_TIME_INCR)
            plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER if recipe.unfilled else h5py.h5d.FILL_TIME_IFSET)
            if recipe.nbit and recipe.dtype.kind in "iuf" and recipe.filters.get("scaleoffset") != 0:
                plist.set_filter(h5py.h5z.FILTER_NBIT, h5py.h5z.FLAG_OPTIONAL)
        if recipe.fill:
            options["fillvalue"] = fill_of(recipe.dtype, chance)
        plist = None if recipe.layout == "contiguous" else plist
        try:
            dataset = create(file, plist, recipe, options)
        except ValueError:  # a combination of type and filters that HDF5 has not
            reject()
        region = tuple(slice(0, round(size * part)) for size, part in zip(recipe.shape, recipe.written, strict=True))
        extent = tuple(part.stop for part in region)
        if all(extent) and h5py.check_vlen_dtype(recipe.dtype) is None:
            dataset[region if region else ()] = values_of(recipe.dtype, extent, chance)
        if recipe.layout == "chunked" and dataset.id.get_create_plist().get_nfilters() and 0 not in recipe.shape:
            for kind in recipe.masked:
                write_masked(dataset, kind, chance)


def create(file: h5py.File, plist: Any, recipe: Recipe, options: dict[str, Any]) -> h5py.Dataset:
    if plist is None:
        return file.create_dataset("data", shape=recipe.shape, dtype=recipe.dtype, **options)
    made = h5py._hl.dataset.make_new_dset(
        file, shape=recipe.shape, dtype=recipe.dtype, name=b"data", dcpl=plist, **options
    )
    return h5py.Dataset(made)


def write_masked(dataset: h5py.Dataset, kind: int, chance: np.random.Generator) -> None:
    """Write one chunk that skipped all filters, or one of shuffle and deflate."""
    if dataset.dtype.hasobject or dataset.dtype.subdtype is not None:
        return
    count = dataset.id.get_create_plist().get_nfilters()
    ids = [dataset.id.get_create_plist().get_filter(number)[0] for number in range(count)]
    block = values_of(dataset.dtype, dataset.chunks, chance)
    raw = block.astype(dataset.dtype).tobytes()
    mask = (1 << count) - 1
    if ids == [2, 1] and kind == 1:
        raw, mask = zlib.compress(raw), 0b01
    elif ids == [2, 1] and kind == 2:
        raw, mask = np.frombuffer(raw, "u1").reshape(-1, dataset.dtype.itemsize).T.tobytes(), 0b10
    place = [
        int(chance.integers(0, size)) // chunk * chunk
        for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    ]
    dataset.id.write_direct_chunk(tuple(place), raw, filter_mask=mask)


@settings(max_examples=EXAMPLES, deadline=None)
@given(recipe=recipes())
def test_a_generated_file_reads_as_h5py_reads_it_or_is_refused_by_name(recipe):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = Path(folder) / "made.h5"
        make(path, recipe)
        store = HDF5Parser()(str(path))
        told = [str(item.message) for item in caught if issubclass(item.category, UnsupportedArrayWarning)]
        try:
            with h5py.File(path, "r") as file:
                expected = file["data"][...]
        except OSError:  # the library wrote what it cannot read: a skipped filter on a chunk that was allocated early
            reject()
        if "data" not in store.group.arrays:
            assert any("'/data'" in message for message in told), told
            return
        array = store.group.arrays["data"]
        assert same_values(expected, decoded(array))
        assert same_values(expected, zarr.open_group(store, mode="r")["data"][...])


def test_few_recipes_are_refused(tmp_path):
    """Each kind of element is read, but for those that the parser documents as refused."""
    refused = []
    for name, dtype in OTHERS.items():
        path = tmp_path / f"{name}.h5"
        make(path, Recipe(dtype, (5,), "chunked", (2,), {}, False, False, (1.0,), [], "latest", 0, 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnsupportedArrayWarning)
            if not HDF5Parser().parse(str(path)).arrays:
                refused.append(name)
    assert refused == ["sequence"]
