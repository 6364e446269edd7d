"""HDF5 files, open for parsing: the file itself and the files that its links and datasets point at.

Every file is opened through the registry, and read through :class:`~virtualchunks.reading.reader.ObjectReader`. The
HDF5 library opens a file only where it is needed: a local one through the operating system, and the stamp is compared
with that of the library's own descriptor; any other through the same reader. This module is also the one boundary at
which errors of the HDF5 library become errors of virtualchunks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

import h5py
from h5py import h5f

from virtualchunks.errors import (
    FormatError,
    LimitExceededError,
    SourceChangedError,
    UnsupportedFeatureError,
    URLError,
    VirtualChunksError,
)
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.reading.stamps import compare, local_stamp
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.signatures import HEAD, describe_content, format_of
from virtualchunks.sources import SourceTable
from virtualchunks.urls import as_url, join, quote_path
from virtualchunks_parsers.hdf5.format.container import Container

#: What h5py and NumPy raise when the HDF5 library fails, or says what cannot be.
LIBRARY_ERRORS = (OSError, RuntimeError, ValueError, LookupError, TypeError, OverflowError, MemoryError)
#: How many files one file may lead to.
MOST_FILES = 10_000


@contextmanager
def hdf5_errors(url: str, variable: str | None = None) -> Iterator[None]:
    """Turn what h5py raises into a :class:`FormatError` that names file and variable.

    Raises
    ------
    FormatError
        In place of an error of the HDF5 library.
    VirtualChunksError
        The error of the reader, where that is why the library failed.
    """
    try:
        yield
    except VirtualChunksError as error:
        error.variable = variable if error.variable is None else error.variable
        error.url = url if error.url is None else error.url
        raise
    except LIBRARY_ERRORS as error:
        cause = _reader_error(error)
        if cause is not None:
            raise cause from error
        reason = str(error.args[0] if error.args else error).strip().partition("\n")[0]
        raise FormatError(
            f"this cannot be read ({type(error).__name__}: {reason}): the file is truncated, corrupt, or "
            "newer than the HDF5 library; what can be read of it can be had with drop_variables",
            url=url,
            variable=variable,
        ) from error


def _reader_error(error: BaseException | None) -> VirtualChunksError | None:
    """The error of ours among those that led to an error of the library."""
    seen = 0
    while error is not None and seen < 16:
        if isinstance(error, VirtualChunksError):
            return error
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


@dataclass(frozen=True, eq=False)
class HDF5File:
    """An open HDF5 file.

    Attributes
    ----------
    url
        Its canonical URL.
    reader
        Its bytes.
    sources
        The one-row table that the chunks of its arrays point into.
    user_block
        How many bytes stand before what is HDF5 in it.
    container
        Its structures; ``None`` where the HDF5 library is to read them.
    opened
        Opens it with the HDF5 library, once.
    """

    url: str
    reader: ObjectReader
    sources: SourceTable = field(repr=False)
    user_block: int
    container: Container | None = field(repr=False)
    opened: Callable[[], h5py.File] = field(repr=False)

    @property
    def id(self) -> h5f.FileID:
        """The HDF5 library's file."""
        return self.opened().id

    @property
    def size(self) -> int:
        """Length of the file, in bytes."""
        return self.reader.size

    def check_range(self, offset: int, length: int, variable: str) -> None:
        """Raise unless a range lies within the file.

        Raises
        ------
        FormatError
            If it does not: the file is truncated or corrupt.
        """
        if offset < 0 or offset + length > self.size:
            raise FormatError(
                f"bytes {offset} to {offset + length} hold data of {variable!r}, but the file ends at {self.size}: "
                "it is truncated or corrupt",
                url=self.url,
                variable=variable,
            )


class HDF5Files:
    """The files that one parse has open, each once; a context manager.

    Parameters
    ----------
    registry
        Which grants what may be read.
    natively
        Whether structures are read here, and not by the HDF5 library.
    """

    def __init__(self, registry: ObjectStoreRegistry, *, natively: bool = False) -> None:
        self.registry = registry
        self.natively = natively
        self._stack = ExitStack()
        self._files: dict[str, HDF5File] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._files.clear()
        self._stack.__exit__(*exc)

    def open(self, url: str) -> HDF5File:
        """Open a file, or return it if it is open already.

        Raises
        ------
        FormatError
            If it is not HDF5; the message says what it looks like.
        LimitExceededError
            If too many files are open.
        """
        if url in self._files:
            return self._files[url]
        if len(self._files) >= MOST_FILES:
            raise LimitExceededError(f"one file leads to more than {MOST_FILES} others", url=url)
        reader = self._stack.enter_context(ObjectReader(self.registry, url))
        table = SourceTable.single(reader.url, reader.stamp)
        opened = cache(lambda: self._open_with_library(reader))
        if self.natively:
            container = self._structures(reader)
            file = HDF5File(reader.url, reader, table, container.content.base, container, opened)
        else:
            file = HDF5File(reader.url, reader, table, int(opened().userblock_size), None, opened)
        self._files[url] = file
        return file

    def url_beside(self, base: str, name: str) -> str:
        """Return the URL of a file that another file names.

        Relative names are taken from the folder of the file that holds them, absolute ones are local paths.

        Raises
        ------
        UnsupportedFeatureError
            If the name leads out of that folder upwards, or is a local path in a remote file.
        """
        try:
            if os.path.isabs(name) and base.startswith("file:"):
                return as_url(name)
            return join(base, quote_path(name))
        except URLError as error:
            raise UnsupportedFeatureError(f"it points at the file {name!r}: {error.message}", url=base) from error

    def _structures(self, reader: ObjectReader) -> Container:
        with hdf5_errors(reader.url):
            try:
                return Container(reader)
            except FormatError as error:
                raise _not_hdf5(reader, error) from error

    def _open_with_library(self, reader: ObjectReader) -> h5py.File:
        path = self.registry.locate(reader.url).path
        try:
            with hdf5_errors(reader.url):
                opened = h5py.File(reader, "r") if path is None else _open_local(path)
        except FormatError as error:
            raise _not_hdf5(reader, error) from error
        self._stack.callback(opened.close)
        if path is not None:
            self._check_same(opened, reader)
        return opened

    def _check_same(self, opened: h5py.File, reader: ObjectReader) -> None:
        """Raise if the library opened another file than the one that was stamped."""
        if opened.id.get_access_plist().get_driver() != h5py.h5fd.SEC2:
            return
        found = local_stamp(os.fstat(opened.id.get_vfd_handle()))
        difference = compare(reader.stamp, found)
        if difference is not None:
            opened.close()
            raise SourceChangedError(f"{reader.url} changed while it was opened: {difference}", url=reader.url)


def _open_local(path: str) -> h5py.File:
    """Open a file without locking it, unless this process has it open with a lock already."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        return h5py.File(path, "r")


def _not_hdf5(reader: ObjectReader, error: FormatError) -> FormatError:
    head = reader.read_at(0, min(HEAD, reader.size))
    if format_of(head) == "hdf5":
        return FormatError(f"this HDF5 file of {reader.size} bytes cannot be opened: {error.message}", url=reader.url)
    return FormatError(
        f"not an HDF5 file: it is {describe_content(head)}; give the parser for that format, or the right file",
        url=reader.url,
    )


def text(raw: bytes | str) -> str:
    """Return a name or a string of HDF5: UTF-8 where it is that, otherwise Latin-1, which every byte is."""
    if isinstance(raw, str):
        return raw if raw.isascii() else text(raw.encode("utf-8", "surrogateescape"))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
