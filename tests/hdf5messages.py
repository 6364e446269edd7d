"""The messages of the objects of an HDF5 file, cut out by the walk of our own, beside the file in h5py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5o

from virtualchunks.errors import VirtualChunksError
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import as_url
from virtualchunks_parsers.hdf5.format.btrees import new_records, read_tree
from virtualchunks_parsers.hdf5.format.content import Content
from virtualchunks_parsers.hdf5.format.headers import ATTRIBUTE, ATTRIBUTE_INFO, DATATYPE, read_header, shared_body
from virtualchunks_parsers.hdf5.format.heaps import FractalHeap, GlobalHeaps
from virtualchunks_parsers.hdf5.format.messages import Attribute, attribute, attribute_info
from virtualchunks_parsers.hdf5.format.superblock import read_superblock


@dataclass
class Opened:
    """A file, open in h5py and by itself."""

    file: h5py.File
    content: Content

    def __post_init__(self) -> None:
        self.heap = GlobalHeaps(self.content).get

    @property
    def sizes(self) -> Any:
        """Bytes of its addresses and lengths."""
        return self.content.sizes

    def objects(self) -> dict[str, Any]:
        """Every object, once, by its path; of a damaged file, those that h5py finds before it fails."""
        found = {h5o.get_info(self.file.id).addr: "/"}
        with suppress(RuntimeError):
            self.file.visit(lambda name: found.setdefault(h5o.get_info(self.file[name].id).addr, name) and None)
        return {path: self.file[path] for path in found.values()}

    def bodies(self, holder: Any, kind: int) -> list[bytes]:
        """The bodies of the messages of one kind of an object."""
        messages = read_header(self.content, h5o.get_info(holder.id).addr)
        return [message.body for message in messages if message.kind == kind]

    def attributes(self, holder: Any) -> list[Attribute]:
        """The attributes of an object, undecoded, with their types in place."""
        bodies = self.bodies(holder, ATTRIBUTE)
        for body in self.bodies(holder, ATTRIBUTE_INFO):
            info = attribute_info(body, self.sizes)
            if info.heap is not None:
                heap, tree = FractalHeap(self.content, info.heap), read_tree(self.content, info.names)
                bodies += [heap.get(row.tobytes()[:8]) for row in new_records(self.content, tree)]
        found = [attribute(body, self.sizes) for body in bodies]
        assert len(found) == h5a.get_num_attrs(holder.id)
        return [
            item.of_type(shared_body(self.content, DATATYPE, item.datatype)) if item.is_shared else item
            for item in found
        ]


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a file in both ways."""
    url = as_url(str(path))
    registry = ObjectStoreRegistry({as_url(str(path.parent)): None})
    with h5py.File(path, "r", locking=False) as file, ObjectReader(registry, url) as reader:
        content = Content(reader)
        read_superblock(content)
        yield Opened(file, content)


def outcome(ask: Any) -> Any:
    """What is returned or, in its place, the error of ours."""
    try:
        return ask()
    except VirtualChunksError as error:
        return type(error), error.message


def same(first: Any, second: Any) -> bool:
    """Return whether two plain values are equal, and of the same types throughout; NaN equals NaN."""
    if type(first) is not type(second):
        return False
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[name], second[name]) for name in first)
    if isinstance(first, np.void):
        return first.dtype == second.dtype and first.tobytes() == second.tobytes()
    return bool(first == second) or bool(first != first and second != second)
