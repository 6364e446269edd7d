"""Local files, read through the operating system: one descriptor gives the bytes and the stamp."""

from __future__ import annotations

import os
import stat
import threading
from typing import Self

from virtualchunks.errors import ReadError, ShortReadError, SourceChangedError, SourceUnavailableError
from virtualchunks.reading.kept import at_hand
from virtualchunks.reading.stamps import compare, local_stamp
from virtualchunks.registry import Location
from virtualchunks.sources import Stamp

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class LocalFile:
    """A regular file that the registry grants, open for reading; safe to read from many threads.

    Parameters
    ----------
    location
        From :meth:`~virtualchunks.registry.ObjectStoreRegistry.locate`, with a path.

    Raises
    ------
    SourceUnavailableError
        If there is no such file, it is not a regular one, or it may not be read.
    """

    def __init__(self, location: Location) -> None:
        if location.path is None:
            raise SourceUnavailableError("not a local file", url=location.url)
        self.url = location.url
        self._path = location.path
        self._lock = threading.Lock()
        self._descriptor = -1
        try:
            self._descriptor = _shared(location.path)
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise _unreadable(error, self.url) from error
        if not stat.S_ISREG(status.st_mode):
            self.close()
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise SourceUnavailableError(f"{kind}, not a file: name the file itself", url=self.url)
        self.stamp: Stamp = local_stamp(status)
        self._state = _state(status)
        self._identity = _identity(status)
        self.size = status.st_size  # the files of /proc have none, and none of their bytes are read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; more than once does no harm."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, start: int, stop: int) -> bytes:
        """Read a range.

        Parameters
        ----------
        start, stop
            In bytes.

        Returns
        -------
        bytes
            Exactly ``stop - start``.

        Raises
        ------
        ShortReadError
            If the file ends before ``stop``.
        """
        parts: list[bytes] = []
        at = start
        try:
            while at < stop <= self.size and (part := self._read_some(at, stop - at)):
                parts.append(part)
                at += len(part)
        except OSError as error:
            raise _unreadable(error, self.url) from error
        if at < stop:
            raise ShortReadError(
                f"asked for bytes {start} to {stop} of {self.url} and got {at - start} of {stop - start}: "
                f"the file has {os.fstat(self._descriptor).st_size} bytes",
                url=self.url,
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check(self, recorded: Stamp | None = None) -> None:
        """Raise if the file is not what was recorded, or not what it was when it was opened.

        Parameters
        ----------
        recorded
            A stamp to compare with; None compares with that of opening.

        Raises
        ------
        SourceChangedError
            Naming what was recorded and what was found.
        """
        difference = compare(recorded, self.stamp)
        for status in (os.fstat(self._descriptor), self._named()):
            if difference is None and _state(status) != self._state:
                difference = compare(self.stamp, local_stamp(status))
        if difference:
            raise SourceChangedError(f"{self.url} changed: {difference}: parse it again", url=self.url)

    def is_at(self, path: str) -> bool:
        """Return whether a path leads to this very file, and it still is what it was when it was opened."""
        try:
            return _identity(os.stat(path)) == self._identity
        except OSError:
            return False

    def _named(self) -> os.stat_result:
        """What the path names now."""
        try:
            return os.stat(self._path)
        except OSError as error:
            raise SourceChangedError(f"{self.url} was removed while it was read", url=self.url) from error

    def _read_some(self, start: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, length, start)
        with self._lock:
            os.lseek(self._descriptor, start, os.SEEK_SET)
            return os.read(self._descriptor, length)


def _state(status: os.stat_result) -> tuple[int, ...]:
    """What a stamp is made of, quick to compare."""
    return status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """What tells a file in one state apart from all others."""
    return status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns, status.st_dev


def _shared(path: str) -> int:
    """Open a path, or take the descriptor of the same path that this opening of a file has already."""
    keeper = at_hand()
    if keeper is None:
        return _open(path)
    known = keeper.descriptor(path)
    if known is not None:
        return known
    opened = _open(path)
    keeper.keep_descriptor(path, opened)
    return opened


def _open(path: str) -> int:
    """Open a path that holds no links, segment by segment, so that a link put there since then is not followed."""
    if os.open not in os.supports_dir_fd or not _NOFOLLOW:
        return os.open(path, _FLAGS)
    *folders, name = path.strip("/").split("/")
    at = os.open("/", _FOLDER)
    try:
        for folder in folders:
            below = os.open(folder, _FOLDER | _NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name or ".", _FLAGS | _NOFOLLOW, dir_fd=at)
    finally:
        os.close(at)


def _unreadable(error: OSError, url: str) -> ReadError:
    reason = {
        "FileNotFoundError": "there is no such file",
        "NotADirectoryError": "there is no such file",
        "PermissionError": "it may not be read by this user",
    }.get(type(error).__name__, f"the system says: {error.strerror}")
    return SourceUnavailableError(f"{url} cannot be read: {reason}", url=url)
