"""Groups and datasets as the structures of the file have them, without the HDF5 library.

What only the library can do with a single dataset (values of variable length, mappings of virtual datasets, fill values
of types that NumPy has not) is left to it, by way of :meth:`StructureDataset.library`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from h5py import h5d, h5o

from virtualchunks.errors import FormatError, LimitExceededError, UnsupportedFeatureError
from virtualchunks_parsers.hdf5.attributes import INTERNAL
from virtualchunks_parsers.hdf5.chunkindex import StoredChunks
from virtualchunks_parsers.hdf5.datatypes import Element
from virtualchunks_parsers.hdf5.file import HDF5File, text
from virtualchunks_parsers.hdf5.format import layouts, messages, values
from virtualchunks_parsers.hdf5.format.chunks import ChunkIndex, Found
from virtualchunks_parsers.hdf5.format.container import Container
from virtualchunks_parsers.hdf5.format.content import Task, Unhandled
from virtualchunks_parsers.hdf5.format.datatypes import datatype, element
from virtualchunks_parsers.hdf5.format.headers import (
    DATASPACE,
    DATATYPE,
    FILL,
    LAYOUT,
    LINK_INFO,
    OLD_FILL,
    PIPELINE,
    SYMBOL_TABLE,
    Message,
)
from virtualchunks_parsers.hdf5.format.headers import EXTERNAL as EXTERNAL_FILES
from virtualchunks_parsers.hdf5.format.heaps import name_in, read_local_heap
from virtualchunks_parsers.hdf5.library import LibraryDataset
from virtualchunks_parsers.hdf5.objects import (
    CHUNKED,
    CLASS,
    COMPACT,
    CONTIGUOUS,
    DIMENSION,
    DIMENSIONS,
    HARD,
    HIDDEN_DIMENSION,
    LIST,
    NAME,
    Books,
    Description,
    Group,
    Link,
    Object,
    Report,
    StoredDataset,
    null_dataspace,
)

#: In the flags of a layout: partial chunks at the edge are stored without filters.
PLAIN_EDGES = 1


def structure_root(file: HDF5File) -> StructureGroup:
    """Return the root group of a file."""
    container = file.container
    if container is None:
        raise Unhandled("opened by the HDF5 library")
    address = container.superblock.root
    found = _object(file, container, address, b"/")
    if not isinstance(found, StructureGroup):
        raise container.content.damaged("the root group", address, "is no group")
    return found


def _object(file: HDF5File, container: Container, address: int, trail: bytes) -> Object | None:
    """Return what is at an address: a group, a dataset, or ``None`` for a named type."""
    kinds = {message.kind for message in container.header(address)}
    if SYMBOL_TABLE in kinds or LINK_INFO in kinds:
        return StructureGroup(file, container, address, trail)
    if DATATYPE not in kinds:
        raise container.content.damaged("an object header", address, "is of no kind of object that is known")
    return StructureDataset(file, container, address, trail) if DATASPACE in kinds else None


def prepare(root: Group, path: str, is_dropped: Callable[[str, str], bool]) -> None:
    """Let the metadata of a group, and of all below it, be here; for remote files, see :meth:`Content.run`.

    Parameters
    ----------
    root, path
        The group, and its path.
    is_dropped
        Whether a member, given by path and name, is left out.
    """
    if isinstance(root, StructureGroup):
        seen = {root.address}
        root.container.content.run([lambda: _visit(root, path, is_dropped, seen)])


def _visit(found: Object, path: str, is_dropped: Callable[[str, str], bool], seen: set[int]) -> Iterable[Task]:
    if isinstance(found, _Structure):
        yield found.attribute_tasks
    if isinstance(found, StructureDataset):
        yield lambda: _ignored(found.books())
        yield lambda: _ignored(found.stored())
    if isinstance(found, StructureGroup):
        yield lambda: _members(found, path, is_dropped, seen)


def _ignored(value: object) -> Iterable[Task]:
    return ()


def _members(group: StructureGroup, path: str, is_dropped: Callable[[str, str], bool], seen: set[int]) -> list[Task]:
    tasks: list[Task] = []
    for link in group.links():
        name = text(link.name)
        member = f"{path}/{name}"
        if link.kind == HARD and link.address not in seen and not is_dropped(member, name):
            seen.add(link.address)
            tasks.append(partial(_open, group, link, member, is_dropped, seen))
    return tasks


def _open(
    group: StructureGroup, link: Link, path: str, is_dropped: Callable[[str, str], bool], seen: set[int]
) -> Iterable[Task]:
    found = group.open(link)
    return () if found is None else _visit(found, path, is_dropped, seen)


class _Structure(Object):
    """An object of a file, read from its header."""

    def __init__(self, file: HDF5File, container: Container, address: int, trail: bytes) -> None:
        self.file, self.container, self.address, self.trail = file, container, address, trail
        self._attributes: list[messages.Attribute] | None = None

    def stored_attributes(self) -> list[messages.Attribute]:
        """Its attributes, as they are stored, by name."""
        if self._attributes is None:
            self._attributes = self.container.attributes(self.container.header(self.address))
        return self._attributes

    def attribute_tasks(self) -> Iterable[Task]:
        """Read each attribute, as a task of its own."""
        sizes, heap = self.container.content.sizes, self.container.heaps.get

        def read(attribute: messages.Attribute) -> Iterable[Task]:
            return _ignored(values.attribute_value(attribute, sizes, heap))

        return [partial(read, item) for item in self.stored_attributes() if item.name not in INTERNAL]

    def attributes(self, report: Report) -> dict[str, Any]:
        """Those that are meant for people."""
        sizes, heap = self.container.content.sizes, self.container.heaps.get
        found: dict[str, Any] = {}
        for attribute in self.stored_attributes():
            if attribute.name in INTERNAL:
                continue
            name = text(attribute.name)
            try:
                found[name] = values.attribute_value(attribute, sizes, heap)
            except (UnsupportedFeatureError, LimitExceededError) as error:
                report(name, error)
        return found


class StructureGroup(_Structure, Group):
    """A group.

    Parameters
    ----------
    file, container
        The file that holds it, and its structures.
    address, trail
        Where its header is, and by which names it is found from the root, through hard links alone.
    """

    def links(self) -> list[Link]:
        """Its links."""
        return self.container.links(self.address)

    def find(self, name: bytes) -> Link | None:
        """The link of a name."""
        return self.container.link(self.address, name)

    def open(self, link: Link) -> Object | None:
        """What a hard link leads to."""
        return _object(self.file, self.container, link.address, self.trail.rstrip(b"/") + b"/" + link.name)


class StructureDataset(_Structure, StoredDataset):
    """A dataset.

    Parameters
    ----------
    file, container
        The file that holds it, and its structures.
    address, trail
        Where its header is, and by which names it is found from the root, through hard links alone.
    """

    def __init__(self, file: HDF5File, container: Container, address: int, trail: bytes) -> None:
        super().__init__(file, container, address, trail)
        self._messages: dict[int, Message] = {}
        for message in container.header(address):
            self._messages.setdefault(message.kind, message)
        self._library: LibraryDataset | None = None
        self._layout: layouts.Layout | None = None

    def _body(self, kind: int, what: str) -> bytes:
        message = self._messages.get(kind)
        if message is None:
            raise self.container.content.damaged("a dataset", self.address, f"has no {what}")
        return message.body

    def space(self) -> messages.Dataspace:
        """Its extent, and how it may grow."""
        return messages.dataspace(self._body(DATASPACE, "dataspace"), self.container.content.sizes)

    def extent(self) -> tuple[int, ...]:
        """Its shape."""
        return self.space().shape

    def unlimited_axes(self) -> list[int]:
        """Those that may grow without bounds."""
        return self.space().unlimited_axes

    def layout(self) -> layouts.Layout:
        """Where its bytes lie."""
        if self._layout is None:
            self._layout = layouts.layout(self._body(LAYOUT, "layout"), self.container.content.sizes)
        return self._layout

    # ------------------------------------------------------------------------------------------------ dimensions

    def books(self) -> Books:
        """What it says of its dimensions."""
        found = {item.name: item for item in self.stored_attributes() if item.name in INTERNAL}
        if not found:
            return Books()
        sizes, heap = self.container.content.sizes, self.container.heaps.get
        scales = self._scales(found[LIST]) if LIST in found else ()
        if CLASS not in found or values.first_text(found[CLASS], sizes, heap) != b"DIMENSION_SCALE":
            return Books(scales)
        return Books(
            scales,
            is_scale=True,
            is_hidden=NAME in found and values.first_text(found[NAME], sizes, heap).startswith(HIDDEN_DIMENSION),
            dimension_id=next(iter(values.integers(found[DIMENSION])), None) if DIMENSION in found else None,
            dimension_ids=values.integers(found[DIMENSIONS]) if DIMENSIONS in found else (),
        )

    def _scales(self, attribute: messages.Attribute) -> tuple[int | None, ...]:
        """The scale of each dimension; of several, netCDF's libraries take the last, and so is done here."""
        container = self.container
        lists = values.reference_lists(attribute, container.content.sizes, container.heaps.get)
        return tuple(self._scale(addresses[-1]) if addresses else None for addresses in lists)

    def _scale(self, address: int) -> int | None:
        return None if self.container.is_deleted(address) else address

    def scale_name(self, axis: int, address: int) -> bytes | None:
        """The name of the scale at an address."""
        return self.container.name_of(address)

    # --------------------------------------------------------------------------------------------------- storage

    def description(self) -> Description:
        """What it holds, and how."""
        layout = self.layout()
        if isinstance(layout, layouts.Virtual):
            return self._asked().description()
        space = self.space()
        if space.is_null:
            raise null_dataspace()
        described = self._body(DATATYPE, "datatype")
        size = datatype(described).size
        rest: tuple[int, tuple[int, ...]] = (COMPACT if isinstance(layout, layouts.Compact) else CONTIGUOUS, ())
        if isinstance(layout, layouts.Chunked):
            rest = (CHUNKED, layout.shape)
            self._check_chunks(layout, space, size)
        filters = self._messages.get(PIPELINE)
        pipeline = () if filters is None else messages.pipeline(filters.body)
        return Description(element(described), size, space.shape, *rest, pipeline, EXTERNAL_FILES in self._messages)

    def _check_chunks(self, layout: layouts.Chunked, space: messages.Dataspace, size: int) -> None:
        if len(layout.shape) != len(space.shape) or layout.element_size != size:
            raise self.container.content.damaged(
                "a dataset",
                self.address,
                f"of shape {space.shape} and elements of {size} bytes has chunks of {layout.shape} and of "
                f"{layout.element_size} bytes",
            )

    def has_fill(self) -> bool:
        """Whether it has a fill value of its own."""
        if isinstance(self.layout(), layouts.Virtual):
            return self._asked().has_fill()
        found = self._fill()
        return found is not None and found.is_written

    def _fill(self) -> messages.Fill | None:
        message = self._messages.get(FILL) or self._messages.get(OLD_FILL)
        return None if message is None else messages.fill(message.kind, message.body)

    def fill(self, element: Element) -> Any:
        """Its fill value."""
        found = self._fill()
        if found is None:
            return None
        try:
            return values.fill_value(found, self._body(DATATYPE, "datatype"), element)
        except Unhandled:
            return self._asked().fill(element)

    def offset(self) -> int | None:
        """Where it begins, if it is contiguous."""
        layout = self.layout()
        if not isinstance(layout, layouts.Contiguous) or layout.address is None:
            return None
        return layout.address + self.container.content.base

    def compact(self) -> bytes:
        """Its bytes, if it is compact."""
        layout = self.layout()
        return layout.data if isinstance(layout, layouts.Compact) else b""

    def texts(self) -> Iterable[bytes] | None:
        """Its strings of variable length, unless they stand in chunks."""
        layout, content = self.layout(), self.container.content
        count = math.prod(self.extent())
        if isinstance(layout, layouts.Compact):
            raw = layout.data
        elif isinstance(layout, layouts.Contiguous) and layout.address is not None:
            length = count * (8 + content.sizes.offset)
            raw = content.read(layout.address, length, "text of variable length", length)
        else:
            return None
        heaps = values.heaps_of(raw, count, content.sizes)
        content.run(partial(self._collection, address) for address in heaps)
        return values.texts_of(raw, count, content.sizes, self.container.heaps.get)

    def _collection(self, address: int) -> Iterable[Task]:
        return _ignored(self.container.heaps.collection(address))

    def segments(self) -> list[tuple[bytes, int, int]]:
        """The parts of other files that hold it."""
        content = self.container.content
        files = messages.external_files(self._body(EXTERNAL_FILES, "list of other files"), content.sizes)
        if files.heap is None:
            raise content.damaged("a dataset", self.address, "has no names of the files that hold it")
        heap = read_local_heap(content, files.heap)
        return [(name_in(content, heap, slot.name), slot.offset, slot.size) for slot in files.slots]

    def stored(self) -> Found | None:
        """Its chunks, if it has any, as its index has them."""
        layout = self.layout()
        if not isinstance(layout, layouts.Chunked) or layout.address is None:
            return None
        space, filters = self.space(), self._messages.get(PIPELINE)
        filtered = filters is not None and bool(messages.pipeline(filters.body))
        if filtered and layout.flags & PLAIN_EDGES:
            raise Unhandled("partial chunks at the edge that are stored without filters")
        nbytes = layout.element_size
        for step in layout.shape:
            nbytes *= step
        single = layout.parameters if isinstance(layout.parameters, layouts.SingleChunk) else None
        index = ChunkIndex(
            kind=layout.index,
            address=layout.address,
            chunk=layout.shape,
            shape=space.shape,
            longest=space.shape if space.maxshape is None else space.maxshape,
            nbytes=nbytes,
            filtered=filtered,
            k=self.container.widths().chunk if layout.index == layouts.BTREE_1 else 0,
            single=None if single is None or single.size is None else (single.size, single.mask),
        )
        return self.container.chunks(self.address, index)

    def chunks(self, path: str, extent: tuple[int, ...], chunk: tuple[int, ...]) -> StoredChunks | None:
        """Its chunks."""
        found = self.stored()
        return None if found is None else StoredChunks(path, extent, self.file, *found)

    # ----------------------------------------------------------------------------------------------- the library

    def library(self) -> h5d.DatasetID:
        """The HDF5 library's dataset; opens the file with the library, if it is not open yet."""
        return self._asked().id

    def _asked(self) -> LibraryDataset:
        if self._library is None:
            found = h5o.open(self.file.id, self.trail)
            if not isinstance(found, h5d.DatasetID):
                raise FormatError(f"{text(self.trail)!r} is no dataset to the HDF5 library", url=self.file.url)
            self._library = LibraryDataset(self.file, found)
        return self._library
