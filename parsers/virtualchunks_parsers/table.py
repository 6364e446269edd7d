"""TableParser: references as one Parquet file, as :func:`virtualchunks.writers.tables.to_parquet` writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from virtualchunks.group import ManifestGroup, subgroup
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.writers.tables import from_parquet
from virtualchunks_parsers.base import FileParser


@dataclass(frozen=True, kw_only=True)
class TableParser(FileParser):
    """Reads a Parquet table of references.

    Parameters
    ----------
    group
        Path of the group that becomes the root; by default the table's own root.
    drop_variables
        Names of arrays to leave out wherever they are, or paths of arrays and groups, such as ``"/model/wind"``.
    strict
        Accepted for the sake of the other parsers: a table is read whole or refused.

    Notes
    -----
    Naming a table does not grant what it refers to: reading values later needs a registry that covers the objects. None
    of them is opened while parsing. Row groups that hold nothing of what is wanted are not read.

    Examples
    --------
    >>> TableParser(group="model").recognises(b"PAR1")
    True
    """

    name: ClassVar[str] = "References in Parquet"
    suffixes: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = (
        "tables of references in one Parquet file, as `to_parquet` writes them, in any order of rows",
        "every data type, fill value, chunk grid and mixture of encodings that virtualchunks has",
        "stamps of the objects referred to",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "Parquet files without the metadata of a table of references",
        "rows outside the chunk grid, two rows for one chunk, numbers out of range, by row",
    )

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a file begins as Parquet does."""
        return head.startswith(b"PAR1")

    def _read(self, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        omissions = self._omissions(url)
        root = self._path

        def wanted(path: str) -> bool:
            parts = path.split("/")
            dropped = any(omissions.drops("/".join(parts[: count + 1])) for count in range(len(parts)))
            return not dropped and (not root or path.startswith(root + "/"))

        return subgroup(from_parquet(url, registry, wanted=wanted), root, url)
