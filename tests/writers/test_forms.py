"""What the page of formats says that each form holds is what the writers write, and what it denies they refuse."""

import itertools
import re

import numpy as np
import pytest

import virtualchunks as vc
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.inline import encode_array
from virtualchunks.testing.forms import CASES, PREFIX, references
from virtualchunks.writers import FORMS
from virtualchunks.writers.dmrpp import write_dmrpp
from virtualchunks.writers.icechunk import write_icechunk
from virtualchunks.writers.kerchunk import to_references, write_json, write_parquet
from virtualchunks.writers.tables import from_iceberg, from_lance, from_parquet, to_iceberg, to_lance, to_parquet
from virtualchunks_parsers.dmrpp import DMRPPParser
from virtualchunks_parsers.icechunk import IcechunkParser
from virtualchunks_parsers.kerchunk import KerchunkParser


def array(n=4, chunk=2, dtype="<i4", url="file:///data/a.nc"):
    metadata = vc.ArrayMetadata.build(shape=(n,), chunks=(chunk,), dtype=dtype, dimension_names=["x"])
    size = chunk * np.dtype(dtype).itemsize
    entries = {str(i): {"path": url, "offset": 100 * i, "length": size} for i in range(-(-n // chunk))}
    return vc.ManifestArray(metadata, entries)


def text():
    metadata = vc.ArrayMetadata.build(
        shape=(2,),
        chunks=(2,),
        dtype=np.dtypes.StringDType(),
        codecs=[{"name": "vlen-utf8"}],
        dimension_names=["x"],
    )
    return vc.ManifestArray(metadata, encode_array(np.array(["a", "bü"], dtype=metadata.dtype), metadata))


FEATURES = {
    "regular chunk grids": lambda: vc.ManifestGroup({"v": array()}),
    "rectilinear chunk grids": lambda: vc.ManifestGroup({"v": np.concatenate([array(3, 3), array(2, 2), array(3, 3)])}),
    "missing chunks": lambda: vc.ManifestGroup({"v": array().with_fill_value_only(0)}),
    "chunks in memory": lambda: vc.ManifestGroup({"v": np.concatenate([array(), np.arange(2, dtype="i4")])}),
    "nested groups": lambda: vc.ManifestGroup({"v": array()}, {"g": vc.ManifestGroup({"v": array()})}),
    "mixed encodings in one array": lambda: vc.ManifestGroup({"v": np.concatenate([array(), array(dtype=">i4")])}),
    "text of any length": lambda: vc.ManifestGroup({"v": text()}),
}


def to_icechunk(group, folder):
    icechunk = pytest.importorskip("icechunk")
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(
        icechunk.VirtualChunkContainer("file:///data/", icechunk.local_filesystem_store("/data"))
    )
    write_icechunk(
        group, icechunk.Repository.create(icechunk.in_memory_storage(), config).writable_session("main").store
    )


WRITERS = {
    "Kerchunk JSON, `dict`": lambda group, folder: to_references(group),
    "Kerchunk Parquet": lambda group, folder: write_parquet(group, folder / "refs.parquet"),
    "DMR++": lambda group, folder: write_dmrpp(group, folder / "a.dmrpp"),
    "Icechunk": to_icechunk,
    "Arrow table, Parquet": lambda group, folder: to_parquet(group, folder / "refs.parquet"),
    "Lance": lambda group, folder: to_lance(group, folder / "refs.lance"),
    "Iceberg": lambda group, folder: to_iceberg(group, "archive.refs", folder),
}


def test_every_form_is_written_here():
    assert WRITERS.keys() == READERS.keys() == FORMS.keys()
    assert len({tuple(sorted(rows)) for rows in FORMS.values()}) == 1


def write_repository(group, folder):
    icechunk = pytest.importorskip("icechunk")
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(
        icechunk.VirtualChunkContainer(PREFIX, icechunk.local_filesystem_store("/archive"))
    )
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(folder / "repo")), config)
    session = repository.writable_session("main")
    write_icechunk(group, session.store)
    session.commit("references")


def parsed(parser, name):
    return lambda folder: parser.parse(str(folder / name), {"file:///": None})


#: How each form is read back: what was written by :data:`WRITERS`, or by another writer.
READERS = {
    "Kerchunk JSON, `dict`": (
        lambda group, folder: write_json(group, folder / "refs.json"),
        parsed(KerchunkParser(), "refs.json"),
    ),
    "Kerchunk Parquet": (WRITERS["Kerchunk Parquet"], parsed(KerchunkParser(), "refs.parquet")),
    "DMR++": (WRITERS["DMR++"], parsed(DMRPPParser(stamps=False), "a.dmrpp")),
    "Icechunk": (write_repository, parsed(IcechunkParser(), "repo")),
    "Arrow table, Parquet": (WRITERS["Arrow table, Parquet"], lambda folder: from_parquet(folder / "refs.parquet")),
    "Lance": (WRITERS["Lance"], lambda folder: from_lance(folder / "refs.lance")),
    "Iceberg": (WRITERS["Iceberg"], lambda folder: from_iceberg("archive.refs", folder)),
}
#: What makes a difference only when it is read back: the cases of the shared suite, and what is seen of each.
COME_BACK = {
    "fill values of every dtype": (
        [case for case in CASES if case.startswith("fill value")],
        lambda group: repr(group["v"].metadata.fill_value),
    ),
    "scalars and zero-length arrays": (["scalar", "missing scalar"], lambda group: group["v"].shape),
    "unlimited dimensions": (["unlimited dimensions"], lambda group: group["grows"].unlimited_dims),
    "named roots": (["named roots"], lambda group: group["v"].manifest.get_entry((0, 0))["path"]),
    "stamps come back": (["stamps"], lambda group: group["v"].manifest.sources.stamp(0)),
}


def empty_array():
    return vc.ManifestGroup({"v": references((0, 6), names=("a", "b")), "w": references((4, 0), (2, 3))})


@pytest.mark.parametrize(("form", "feature"), list(itertools.product(FORMS, COME_BACK)))
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_what_comes_back_is_what_the_page_says(form, feature, tmp_path):
    said, (cases, seen) = FORMS[form][feature], COME_BACK[feature]
    write, read = READERS[form]
    outcomes = set()
    for number, case in enumerate(cases):
        folder, group = tmp_path / str(number), CASES[case]()
        folder.mkdir()
        try:
            write(group, folder)
        except UnsupportedFeatureError as error:
            outcomes.add("refused" if "'v'" in str(error) else str(error))
        else:
            outcomes.add("kept" if seen(read(folder)) == seen(group) else "not kept")
    expected = {"yes": {"kept"}, "no": {"refused"}, "not kept": {"not kept"}, "of those": {"kept", "refused"}}
    assert outcomes == next(outcome for start, outcome in expected.items() if re.match(rf"{start}\b", said))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_arrays_of_no_elements_come_back(form, tmp_path):
    write, read = READERS[form]
    write(empty_array(), tmp_path)
    assert {name: array.shape for name, array in read(tmp_path).arrays.items()} == {"v": (0, 6), "w": (4, 0)}


@pytest.mark.parametrize(("form", "feature"), list(itertools.product(FORMS, FEATURES)))
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_forms_hold_what_the_page_says(form, feature, tmp_path):
    said = FORMS[form][feature]
    if said == "no" or said.startswith("with "):
        with pytest.raises(UnsupportedFeatureError, match="'v'"):
            WRITERS[form](FEATURES[feature](), tmp_path)
        assert not list(tmp_path.iterdir())
    else:
        WRITERS[form](FEATURES[feature](), tmp_path)
