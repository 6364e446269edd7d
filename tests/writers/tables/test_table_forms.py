"""Tables give back what was put into them: the shared suite, for each place a table can be kept in."""

from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.testing.forms import PREFIX, FormTests
from virtualchunks.writers.tables import (
    from_arrow,
    from_iceberg,
    from_lance,
    from_parquet,
    to_arrow,
    to_iceberg,
    to_lance,
    to_parquet,
)

REGISTRY = ObjectStoreRegistry({PREFIX: None})


class TableFormTests(FormTests):
    keeps_stamps = True
    keeps_unlimited_dims = True
    keeps_unnamed = True


class TestArrow(TableFormTests):
    def write(self, tree, folder):
        return to_arrow(tree)

    def read(self, written):
        return from_arrow(written), REGISTRY


class TestParquet(TableFormTests):
    def write(self, tree, folder):
        to_parquet(tree, folder / "references.parquet", row_group_size=5)
        return folder / "references.parquet"

    def read(self, written):
        return from_parquet(written), REGISTRY


class TestLance(TableFormTests):
    refuses = frozenset({"named roots"})

    def write(self, tree, folder):
        to_lance(tree, folder / "references.lance")
        return folder / "references.lance"

    def read(self, written):
        return from_lance(written), REGISTRY


class TestIceberg(TableFormTests):
    def write(self, tree, folder):
        to_iceberg(tree, "archive.references", folder / "ware house")
        return folder / "ware house"

    def read(self, written):
        return from_iceberg("archive.references", written), REGISTRY
