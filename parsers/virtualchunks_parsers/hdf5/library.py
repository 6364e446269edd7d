"""Groups and datasets as the HDF5 library has them: for what is not read natively, and beside it in the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from h5py import h5, h5a, h5d, h5g, h5i, h5l, h5o, h5p, h5r, h5s, h5t

from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks_parsers.hdf5.attributes import attribute_names, read_attributes, require_small
from virtualchunks_parsers.hdf5.chunkindex import StoredChunks, library_chunks
from virtualchunks_parsers.hdf5.datatypes import Element, element_of
from virtualchunks_parsers.hdf5.file import HDF5File
from virtualchunks_parsers.hdf5.filters import read_pipeline
from virtualchunks_parsers.hdf5.objects import (
    CLASS,
    DIMENSION,
    DIMENSIONS,
    EXTERNAL,
    HARD,
    HIDDEN_DIMENSION,
    LIST,
    NAME,
    SOFT,
    Books,
    Description,
    Group,
    Link,
    Object,
    Report,
    StoredDataset,
    null_dataspace,
)
from virtualchunks_parsers.hdf5.virtual import block_of


def library_root(file: HDF5File) -> LibraryGroup:
    """Return the root group of a file."""
    return LibraryGroup(file, h5o.open(file.id, b"/"))


def _object(file: HDF5File, id: Any) -> Object | None:
    if isinstance(id, h5d.DatasetID):
        return LibraryDataset(file, id)
    return LibraryGroup(file, id) if isinstance(id, h5g.GroupID) else None


class LibraryGroup(Group):
    """A group of the HDF5 library.

    Parameters
    ----------
    file, id
        The file that holds it, and the library's group.
    """

    def __init__(self, file: HDF5File, id: h5g.GroupID) -> None:
        self.file, self.id = file, id
        self.address = h5o.get_info(id).addr

    def attributes(self, report: Report) -> dict[str, Any]:
        """Those that are meant for people."""
        return read_attributes(self.id, attribute_names(self.id), report)

    def links(self) -> Sequence[Link]:
        """Its links; only hard ones say where they lead."""
        found: list[Link] = []
        plist = self.id.get_create_plist()
        ordered = isinstance(plist, h5p.PropGCID) and plist.get_link_creation_order() & h5p.CRT_ORDER_INDEXED
        self.id.links.iterate(
            lambda name, info: found.append(Link(name, info.type, info.u if info.type == h5l.TYPE_HARD else -1)),
            info=True,
            idx_type=h5.INDEX_CRT_ORDER if ordered else h5.INDEX_NAME,
        )
        return found

    def find(self, name: bytes) -> Link | None:
        """The link of a name."""
        if not self.id.links.exists(name):
            return None
        info = self.id.links.get_info(name)
        if info.type == SOFT:
            return Link(name, SOFT, target=(self.id.links.get_val(name),))
        if info.type == EXTERNAL:
            return Link(name, EXTERNAL, target=self.id.links.get_val(name))
        return Link(name, info.type, info.u if info.type == HARD else -1)

    def open(self, link: Link) -> Object | None:
        """What a hard link leads to."""
        return _object(self.file, h5o.open(self.id, link.name))


class LibraryDataset(StoredDataset):
    """A dataset of the HDF5 library.

    Parameters
    ----------
    file, id
        The file that holds it, and the library's dataset.
    """

    def __init__(self, file: HDF5File, id: h5d.DatasetID) -> None:
        self.file, self.id = file, id
        self.address = h5o.get_info(id).addr
        self.plist = id.get_create_plist()

    def attributes(self, report: Report) -> dict[str, Any]:
        """Those that are meant for people."""
        return read_attributes(self.id, attribute_names(self.id), report)

    def extent(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(map(int, self.id.shape or ()))

    def unlimited_axes(self) -> list[int]:
        """Those that may grow without bounds."""
        longest = self.id.get_space().get_simple_extent_dims(True)
        return [axis for axis, size in enumerate(longest) if size == h5s.UNLIMITED]

    def books(self) -> Books:
        """What it says of its dimensions."""
        id, names = self.id, attribute_names(self.id)
        scales = self._scales() if LIST in names else ()
        if CLASS not in names or _bytes(id, CLASS) != b"DIMENSION_SCALE":
            return Books(scales)
        return Books(
            scales,
            is_scale=True,
            is_hidden=NAME in names and _bytes(id, NAME).startswith(HIDDEN_DIMENSION),
            dimension_id=next(iter(_integers(id, DIMENSION)), None) if DIMENSION in names else None,
            dimension_ids=tuple(_integers(id, DIMENSIONS)) if DIMENSIONS in names else (),
        )

    def _scales(self) -> tuple[int | None, ...]:
        """The scale of each dimension; of several, netCDF's libraries take the last, and so is done here."""
        attribute = h5a.open(self.id, LIST)
        kind = attribute.get_type()
        if kind.get_class() != h5t.VLEN or kind.get_super().get_class() != h5t.REFERENCE:
            return ()
        return tuple(
            self._scale(references[-1]) if len(references) else None for references in _read(attribute).ravel()
        )

    def _scale(self, reference: Any) -> int | None:
        """The object that a reference leads to; ``None`` where it was deleted."""
        found = _dereference(self.file, reference)
        return None if found is None else int(h5o.get_info(found).addr)

    def scale_name(self, axis: int, address: int) -> bytes | None:
        """The name of the scale of a dimension; the library searches the whole file for it, so ask once for each."""
        references = _read(h5a.open(self.id, LIST)).ravel()[axis]
        path: bytes | None = h5i.get_name(_dereference(self.file, references[-1]))
        return path.rpartition(b"/")[2] if path else None

    def description(self) -> Description:
        """What it holds, and how."""
        layout = self.plist.get_layout()
        if layout == h5d.VIRTUAL:
            for number in range(self.plist.get_virtual_count()):
                block_of(self.plist.get_virtual_vspace(number))  # asking a growing one for its shape would open files
        space = self.id.get_space()
        if space.get_simple_extent_type() == h5s.NULL:
            raise null_dataspace()
        kind = self.id.get_type()
        return Description(
            element_of(kind),
            kind.get_size(),
            tuple(map(int, space.get_simple_extent_dims())),
            layout,
            tuple(map(int, self.plist.get_chunk())) if layout == h5d.CHUNKED else (),
            read_pipeline(self.plist),
            bool(self.plist.get_external_count()),
        )

    def has_fill(self) -> bool:
        """Whether it has a fill value of its own."""
        defined = self.plist.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED
        return bool(defined and self.plist.get_fill_time() != h5d.FILL_TIME_NEVER)

    def fill(self, element: Element) -> Any:
        """Its fill value."""
        memory = element.dtype if element.memory is None else element.memory
        value = np.zeros((), dtype=memory)
        try:
            self.plist.get_fill_value(value)
        except (TypeError, ValueError, OSError, RuntimeError) as error:
            raise UnsupportedFeatureError(f"its fill value cannot be converted: {error}") from error
        return value.reshape(1).view(element.dtype)[0] if memory != element.dtype else value[()]

    def offset(self) -> int | None:
        """Where it begins, if it is contiguous."""
        offset: int | None = self.id.get_offset()
        # behind a user block, the library reports a wrong address, and not none, for what was never written
        return None if self.id.get_space_status() == h5d.SPACE_STATUS_NOT_ALLOCATED else offset

    def compact(self) -> bytes:
        """Its bytes, if it is compact."""
        kind = self.id.get_type()
        raw = np.empty(self.extent(), dtype=f"V{kind.get_size()}")
        self.id.read(h5s.ALL, h5s.ALL, raw, mtype=kind)
        return raw.tobytes()

    def texts(self) -> None:
        """Nothing: h5py reads them."""

    def segments(self) -> list[tuple[bytes, int, int]]:
        """The parts of other files that hold it."""
        return [self.plist.get_external(number) for number in range(self.plist.get_external_count())]

    def chunks(self, path: str, extent: tuple[int, ...], chunk: tuple[int, ...]) -> StoredChunks | None:
        """Its chunks."""
        return library_chunks(self.id, path, extent, chunk, self.file)

    def library(self) -> h5d.DatasetID:
        """Itself."""
        return self.id


def _dereference(file: HDF5File, reference: Any) -> Any:
    if not isinstance(reference, h5r.Reference) or not reference:
        return None
    try:
        return h5r.dereference(reference, file.id)
    except (KeyError, ValueError, RuntimeError, OSError):
        return None  # the object was deleted, and the reference stayed


def _read(attribute: h5a.AttrID) -> Any:
    require_small(attribute.get_space(), attribute.get_type())
    values = np.empty(attribute.shape, dtype=attribute.dtype)
    attribute.read(values)
    return values


def _bytes(id: h5d.DatasetID, name: bytes) -> bytes:
    attribute = h5a.open(id, name)
    if attribute.get_type().get_class() != h5t.STRING:
        return b""
    values = _read(attribute).ravel()
    value = values[0] if len(values) else b""
    return value.encode() if isinstance(value, str) else bytes(value)


def _integers(id: h5d.DatasetID, name: bytes) -> list[int]:
    attribute = h5a.open(id, name)
    if attribute.get_type().get_class() != h5t.INTEGER:
        return []
    return [int(value) for value in _read(attribute).ravel()]
