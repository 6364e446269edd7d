"""DMR++ documents: read back by the parser record by record, true to DAP4, refused by name where they cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from virtualchunks.group import ManifestGroup
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.testing.forms import FormTests
from virtualchunks.writers.dmrpp import write_dmrpp
from virtualchunks_parsers.dmrpp import DMRPPParser


class TestDMRPP(FormTests):
    """What holds for every written form."""

    refuses: ClassVar[frozenset[str]] = frozenset(
        {
            "compressed",
            "chunks in memory",
            "chunks of 4 GiB and more",
            "zero length",
            "rectilinear",
            "attributes",
            "transposed",
            "mixed encodings",
            "stamps" "",
            *(f"fill value of {dtype}" for dtype in ("?", "<f2", "<c8", "<c16", "<U3", "<M8[s]", "<m8[ns]")),
        }
    ) - {"stamps"}

    def write(self, tree: ManifestGroup, folder: Path) -> Any:
        write_dmrpp(tree, folder / "a.dmrpp")
        return folder / "a.dmrpp"

    def read(self, written: Any) -> tuple[ManifestGroup, ObjectStoreRegistry]:
        registry = ObjectStoreRegistry({"file:///": None})
        return DMRPPParser(strict=True, stamps=False).parse(str(written), registry), registry
