"""Every written form gives back what was put into it."""

import icechunk
import pytest

from virtualchunks.testing.forms import PREFIX, FormTests
from virtualchunks.writers.icechunk import write_icechunk
from virtualchunks.writers.kerchunk import to_references, write_json, write_parquet
from virtualchunks_parsers.icechunk import IcechunkParser
from virtualchunks_parsers.kerchunk import KerchunkParser

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")


MIXED = frozenset({"mixed encodings", "mixed encodings in nested groups"})


class TestKerchunkDict(FormTests):
    refuses = MIXED

    def write(self, tree, folder):
        return to_references(tree, zarr_format=3)

    def read(self, written):
        store = KerchunkParser().from_dict(written)
        return store.group, store.registry


class TestKerchunkJSON(FormTests):
    refuses = TestKerchunkDict.refuses

    def write(self, tree, folder):
        write_json(tree, folder / "refs.json", zarr_format=3)
        return folder / "refs.json"

    def read(self, written):
        store = KerchunkParser()(written.as_uri(), {written.parent.as_uri() + "/": None})
        return store.group, store.registry


class TestKerchunkDictOfZarrV2(TestKerchunkDict):
    refuses = MIXED | {"rectilinear", "shards"}

    def write(self, tree, folder):
        return to_references(tree)


class TestKerchunkJSONOfZarrV2(TestKerchunkJSON):
    refuses = TestKerchunkDictOfZarrV2.refuses

    def write(self, tree, folder):
        write_json(tree, folder / "refs.json")
        return folder / "refs.json"


class TestKerchunkParquet(FormTests):
    refuses = TestKerchunkDictOfZarrV2.refuses | {"named roots"}

    def write(self, tree, folder):
        write_parquet(tree, folder / "refs.parquet", record_size=3)
        return folder / "refs.parquet"

    def read(self, written):
        store = KerchunkParser()(written.as_uri(), {written.as_uri() + "/": None})
        return store.group, store.registry


class TestIcechunk(FormTests):
    refuses = MIXED | {"named roots"}

    def write(self, tree, folder):
        icechunk.set_logs_filter("error")
        config = icechunk.RepositoryConfig.default()
        store = icechunk.local_filesystem_store("/archive")
        config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(PREFIX, store))
        repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(folder / "repo")), config)
        session = repository.writable_session("main")
        write_icechunk(tree, session.store)
        session.commit("references")
        return folder / "repo"

    def written_files(self, folder):
        return []

    def read(self, written):
        store = IcechunkParser()(written.as_uri(), {written.parent.as_uri() + "/": None})
        return store.group, store.registry
