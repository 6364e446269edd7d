"""What the page of formats says that each form holds is what the writers write, and what it denies they refuse."""

import itertools

import numpy as np
import pytest

import virtualchunks as vc
from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.inline import encode_array
from virtualchunks.writers import FORMS
from virtualchunks.writers.dmrpp import write_dmrpp
from virtualchunks.writers.icechunk import write_icechunk
from virtualchunks.writers.kerchunk import to_references, write_parquet
from virtualchunks.writers.tables import to_iceberg, to_lance, to_parquet


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
    assert WRITERS.keys() == FORMS.keys()


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
