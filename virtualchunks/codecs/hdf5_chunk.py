"""A one-chunk HDF5 file in memory, through which the HDF5 library itself runs a filter pipeline.

The file is laid out here byte by byte rather than created through the library, because creating a dataset lets every
filter rewrite its parameters for the new dataset's type and shape (``set_local``). Opening one does not: the filters
see exactly the parameters that are given, and since a filter sees nothing else of a dataset than those and its bytes,
a row of plain bytes stands for a chunk of any type and shape.

What a codec is called and how zarr calls it is the business of :mod:`virtualchunks.codecs.hdf5_filters`.

References
----------
HDF5 File Format Specification, version 3.0 (sections cited below).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from virtualchunks.codecs.hdf5_guards import GUARDS, is_whole
from virtualchunks.errors import DecodeError, LimitExceededError, MissingDependencyError, UnsupportedFeatureError

if TYPE_CHECKING:
    from types import ModuleType

#: A filter pipeline in encoding order: (HDF5 filter id, parameters) of each filter.
Pipeline = tuple[tuple[int, tuple[int, ...]], ...]
ByteArray = np.ndarray[tuple[int], np.dtype[np.uint8]]

INSTALL = "pip install 'virtualchunks[hdf5]'"

#: What h5py raises when the HDF5 library fails, depending on the library's error code.
LIBRARY_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError)

#: HDF5 stores the sizes of chunks in 32 bits.
LARGEST_CHUNK = 2**32 - 1

UNDEFINED = 0xFFFF_FFFF_FFFF_FFFF
OPTIONAL = 1  # H5Z_FLAG_OPTIONAL


@dataclass(frozen=True)
class Element:
    """How HDF5 stores an element, and the NumPy type it is wanted as.

    Parameters
    ----------
    message
        Datatype message of the object header (IV.A.2.d).
    size
        Size of a stored element in bytes.
    dtype
        NumPy type, with its byte order, to which HDF5 converts.
    """

    message: bytes
    size: int
    dtype: str


#: Plain bytes, which stand for any type that needs no conversion.
BYTES = Element(struct.pack("<4BI2H", 0x10, 0, 0, 0, 1, 0, 8), 1, "|u1")

# ---------------------------------------------------------------------------------------------- the file, in file order


def superblock(root: int, end: int) -> bytes:
    """Return a version 0 superblock (II.A) whose root group's header is at `root`, of a file of `end` bytes."""
    versions = struct.pack("<8s8B2HI", b"\x89HDF\r\n\x1a\n", 0, 0, 0, 0, 0, 8, 8, 0, 4, 16, 0)
    return versions + struct.pack("<4Q", 0, UNDEFINED, end, UNDEFINED) + struct.pack("<2Q2I16x", 0, root, 0, 0)


def message(kind: int, body: bytes) -> bytes:
    """Return one header message (IV.A.1.a), padded to eight bytes."""
    padded = body + bytes(-len(body) % 8)
    return struct.pack("<2HB3x", kind, len(padded), 0) + padded


def object_header(*messages: bytes) -> bytes:
    """Return a version 1 object header (IV.A.1.a)."""
    body = b"".join(messages)
    return struct.pack("<BxH2I4x", 1, len(messages), 1, len(body)) + body


def root_group(chunk: int) -> bytes:
    """Return the header of a group whose one link, ``chunk``, leads to the object header at address `chunk`."""
    return object_header(
        message(0x02, struct.pack("<2B2Q", 0, 0, UNDEFINED, UNDEFINED)),  # link info (IV.A.2.c)
        message(0x0A, bytes(2)),  # group info (IV.A.2.k)
        message(0x06, struct.pack("<3B5sQ", 1, 0, 5, b"chunk", chunk)),  # link (IV.A.2.g)
    )


def chunked_row(pipeline: Pipeline, element: Element, count: int) -> bytes:
    """Return the header of a dataset that is one chunk of `count` elements in a row behind `pipeline`."""
    return object_header(
        message(0x01, struct.pack("<4B4xQ", 1, 1, 0, 0, count)),  # dataspace (IV.A.2.b)
        message(0x03, element.message),  # datatype (IV.A.2.d)
        message(
            0x05, struct.pack("<4B", 2, 3, 1, 0)
        ),  # chunks are not allocated before they come, nor filled (IV.A.2.f)
        message(0x08, struct.pack("<3BQ2I", 3, 2, 2, UNDEFINED, count, element.size)),  # chunked, no chunk (IV.A.2.i)
        message(0x0B, filter_pipeline(pipeline)),
    )


def filter_pipeline(pipeline: Pipeline) -> bytes:
    """Return the body of a version 1 filter pipeline message (IV.A.2.l).

    Every filter is optional, which matters to writing alone: a chunk that a mandatory filter refuses could never be
    written, and the library does not survive closing the file then.
    """
    filters = [struct.pack("<2B6x", 1, len(pipeline))]
    for identifier, values in pipeline:
        padding = bytes(4 * (len(values) % 2))
        filters.append(struct.pack(f"<4H{len(values)}I", identifier, 0, OPTIONAL, len(values), *values) + padding)
    return b"".join(filters)


def file_image(pipeline: Pipeline, element: Element, count: int) -> bytes:
    """Return the whole file."""
    root = len(superblock(0, 0))
    chunk = root + len(root_group(0))
    headers = root_group(chunk) + chunked_row(pipeline, element, count)
    return superblock(root, root + len(headers)) + headers


# ---------------------------------------------------------------------------------------------- the library


@functools.cache
def hdf5() -> ModuleType:
    """Return h5py, with the filters of hdf5plugin where it is installed, and our own checks registered.

    Raises
    ------
    MissingDependencyError
        If h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(f"decoding HDF5 filters needs h5py: {INSTALL}") from error
    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401  (importing it registers its filters)
    for own in OWN_FILTERS:
        h5py.h5z.register_filter(ctypes.addressof(own))
    return h5py  # type: ignore[no-any-return]


def is_available(identifier: int) -> bool:
    """Return whether the HDF5 library at hand, with its plugins, decodes the filter `identifier`."""
    try:
        return bool(hdf5().h5z.filter_avail(identifier))
    except LIBRARY_ERRORS:
        return False


def require_available(pipeline: Pipeline) -> None:
    """Raise :class:`MissingDependencyError` naming the filters of `pipeline` that the library cannot run."""
    missing = [identifier for identifier, _ in pipeline if not is_available(identifier)]
    if missing:
        raise MissingDependencyError(
            f"the HDF5 library has no filter {', '.join(map(str, missing))}: {INSTALL}, "
            "or set HDF5_PLUGIN_PATH to a folder with a plugin for it"
        )


# HDF5 does not compare what a pipeline returns with the size of the chunk: where it is too short, the library reads on
# into whatever memory comes next. A filter of ours, the last to run on reading, makes that an error instead. A second
# one runs before each filter that trusts the chunk it reads.

#: In the range that HDF5 leaves to applications (32768 to 65535).
SIZE_CHECK = 61_726
GUARD = 61_727
REVERSE = 0x0100  # H5Z_FLAG_REVERSE: decoding

FilterFunction = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.c_uint,
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
)


class FilterClass(ctypes.Structure):
    """``H5Z_class2_t`` of ``H5Zdevelop.h``."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("id", ctypes.c_int),
        ("encoder_present", ctypes.c_uint),
        ("decoder_present", ctypes.c_uint),
        ("name", ctypes.c_char_p),
        ("can_apply", ctypes.c_void_p),
        ("set_local", ctypes.c_void_p),
        ("filter", FilterFunction),
    )


def _check_size(flags: int, count: int, values: Any, nbytes: int, allocated: int, buffer: Any) -> int:
    """Pass on a chunk of the size that ``values[0]`` gives; return 0, HDF5's failure, for any other."""
    return nbytes if not flags & REVERSE or nbytes == values[0] else 0


def _guard(flags: int, count: int, values: Any, nbytes: int, allocated: int, buffer: Any) -> int:
    """Pass on a chunk that is long enough for the filter ``values[0]`` with the parameters ``values[1:]``."""
    whole = not flags & REVERSE or is_whole(values[0], values[1:count], ctypes.string_at(buffer[0], nbytes))
    return nbytes if whole else 0


#: The library keeps pointers to these.
OWN_FILTERS = (
    FilterClass(1, SIZE_CHECK, 1, 1, b"size check", None, None, FilterFunction(_check_size)),
    FilterClass(1, GUARD, 1, 1, b"guard", None, None, FilterFunction(_guard)),
)


def guarded(pipeline: Pipeline, nbytes: int) -> Pipeline:
    """Return `pipeline` with the check that a chunk has `nbytes` bytes, and guards behind the filters that need one."""
    filters: list[tuple[int, tuple[int, ...]]] = [(SIZE_CHECK, (nbytes,))]
    for identifier, values in pipeline:
        filters.append((identifier, values))
        if identifier in GUARDS:
            filters.append((GUARD, (identifier, *values)))
    return tuple(filters)


# ---------------------------------------------------------------------------------------------- one chunk

_names = itertools.count()


class ChunkFile:
    """A file of one chunk behind a filter pipeline: bytes go in, what HDF5 makes of them comes out.

    Parameters
    ----------
    pipeline
        Filters in encoding order, with the parameters that the HDF5 file stores.
    count
        Number of elements in the chunk.
    element
        Type of the elements.

    Raises
    ------
    MissingDependencyError
        If h5py is not installed, or has not all of the filters.
    LimitExceededError
        If the chunk is larger than an HDF5 chunk can be.

    Notes
    -----
    The library works on one chunk at a time whatever is done here (h5py holds one lock), so that sharing a file between
    threads costs nothing.
    """

    def __init__(self, pipeline: Pipeline, count: int, element: Element = BYTES) -> None:
        stored = count * element.size
        if not 0 < stored <= LARGEST_CHUNK:
            raise LimitExceededError(f"a chunk of {stored} bytes; an HDF5 chunk has 1 to {LARGEST_CHUNK}")
        h5py = hdf5()
        require_available(pipeline)
        self.pipeline = pipeline
        self.count = count
        self.dtype = np.dtype(element.dtype)
        self._lock = threading.Lock()
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fapl_core(max(stored, 4096), False)
        access.set_file_image(file_image(guarded(pipeline, stored), element, count))
        # Two files of the same name would be the same file to the library.
        name = f"virtualchunks-{os.getpid()}-{next(_names)}"
        uncached = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        uncached.set_chunk_cache(1, 0, 0.0)
        try:
            self._file = h5py.h5f.open(name.encode(), h5py.h5f.ACC_RDWR, access)
            self._dataset = h5py.h5d.open(self._file, b"chunk", uncached)
        except LIBRARY_ERRORS as error:
            raise DecodeError(f"the HDF5 library does not take filters {pipeline} of {element}: {error}") from error
        self._whole = h5py.h5s.ALL
        self._type = h5py.h5t.py_create(self.dtype)

    def decode(self, data: ByteArray | bytes) -> ByteArray:
        """Return the chunk, as bytes, to which HDF5 decodes `data`.

        Raises
        ------
        DecodeError
            If a filter refuses `data`, or returns another number of bytes than the chunk has.
        """
        out = np.empty(self.count, self.dtype)
        with self._lock:
            try:
                self._dataset.write_direct_chunk((0,), data, 0)
                self._dataset.read(self._whole, self._whole, out, self._type)
            except LIBRARY_ERRORS as error:
                raise DecodeError(
                    f"{len(data)} bytes behind HDF5 filters {self._ids} do not decode to a chunk of {self.count} "
                    f"elements ({out.nbytes} bytes): {error}"
                ) from error
        return out.view(np.uint8)

    def encode(self, data: ByteArray) -> bytes:
        """Return a chunk, given as bytes, as HDF5 writes it.

        To be called once, on a file that has decoded nothing: the library remembers the filter mask of a chunk's first
        version when it reads a later one.

        Raises
        ------
        UnsupportedFeatureError
            If a filter does not encode: it only reads, or the values do not get smaller (LZF, szip), or they would not
            decode to the same (scale-offset, zfp).
        """
        with self._lock:
            try:
                self._dataset.write(self._whole, self._whole, data.view(self.dtype), self._type)
                hdf5().h5f.flush(self._file)
                mask, encoded = self._dataset.read_direct_chunk((0,))
            except LIBRARY_ERRORS as error:
                raise UnsupportedFeatureError(
                    f"HDF5 filters {self._ids} do not encode these {data.nbytes} bytes: {error}"
                ) from error
        if mask:
            raise UnsupportedFeatureError(f"HDF5 filters {self._ids} do not make these {data.nbytes} bytes smaller")
        if not np.array_equal(self.decode(encoded), data):
            raise UnsupportedFeatureError(f"HDF5 filters {self._ids} are lossy and would change these values")
        return bytes(encoded)

    @property
    def _ids(self) -> str:
        return ", ".join(str(identifier) for identifier, _ in self.pipeline)


def chunk_file(pipeline: Pipeline, count: int, element: Element = BYTES) -> ChunkFile:
    """Return this process's :class:`ChunkFile` with these arguments; the most recent ones stay open."""
    return _chunk_file(pipeline, count, element, os.getpid())


@functools.lru_cache(maxsize=16)
def _chunk_file(pipeline: Pipeline, count: int, element: Element, process: int) -> ChunkFile:
    """Open a file; keyed by process too, since a lock held during a fork would stay held in the child."""
    return ChunkFile(pipeline, count, element)
