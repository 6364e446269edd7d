"""Targets: where a writer puts files, so that what stood there before is replaced whole or not at all.

A local file or folder is written beside its target under a temporary name, flushed to the disk, and renamed. An object
is put in one request. Of a folder of objects, the one that makes it readable is removed first and put last, so that
readers find the old folder, none, or the new one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Literal

from obstore.exceptions import AlreadyExistsError, BaseError

from virtualchunks.errors import TargetExistsError, WriteError
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.urls import as_url, local_path

#: ``"w"`` replaces what is there, ``"w-"`` refuses to.
WriteMode = Literal["w", "w-"]
#: A file of a folder: its name, with slashes, and its bytes.
NamedFile = tuple[str, bytes]


@dataclass(frozen=True)
class LocalTarget:
    """A local path to write to.

    Parameters
    ----------
    path
        An absolute path.
    """

    path: str

    @property
    def url(self) -> str:
        """The canonical URL."""
        return as_url(self.path)

    def write_file(self, pieces: Iterable[bytes], mode: WriteMode, beside: tuple[str, bytes] | None = None) -> None:
        """Write one file.

        Parameters
        ----------
        pieces
            Its bytes, in order.
        mode
            Whether an existing file is replaced.
        beside
            Another file, which is there before this one is: what its name has behind that of this one, and its bytes.

        Raises
        ------
        TargetExistsError
            If `mode` is ``"w-"`` and something is there.
        WriteError
            If the file cannot be written.
        """
        self._require_free(mode)
        if beside is not None:
            LocalTarget(self.path + beside[0]).write_file([beside[1]], "w")
        with self._errors(), self._temporary_file() as (handle, name):
            for piece in pieces:
                handle.write(piece)
            _flush(handle)
            self._require_free(mode)
            os.replace(name, self.path)
        _flush_folder(os.path.dirname(self.path))

    def read_file(self, name: str = "") -> bytes | None:
        """Return the bytes of the file, or of one of the folder; ``None`` where there is none.

        Raises
        ------
        WriteError
            If it cannot be read.
        """
        path = os.path.join(self.path, *name.split("/")) if name else self.path
        with self._errors():
            try:
                with open(path, "rb") as handle:
                    return handle.read()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def add_files(self, files: Iterable[NamedFile], marker: str, before: bytes) -> None:
        """Write or replace files of a folder, each of them whole, in order.

        Parameters
        ----------
        files
            The files; the marker comes last.
        marker, before
            Name of the file that makes the others count, and what it held when `files` were made.

        Raises
        ------
        WriteError
            If a file cannot be written, or another process writes to the folder.
        """
        with self._errors(), self._locked():
            for name, data in files:
                if name == marker and self.read_file(marker) != before:
                    raise _changed(self.url)
                path = os.path.join(self.path, *name.split("/"))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                LocalTarget(path).write_file([data], "w")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from adding to the folder; the operating system lets go where this one dies."""
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        number = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise _changed(self.url) from error
        finally:
            os.close(number)

    def write_folder(
        self,
        files: Iterable[NamedFile],
        mode: WriteMode,
        marker: str,
        is_own: Callable[[bytes], bool],
        keep: Callable[[str], bool] | None = None,
    ) -> None:
        """Write a folder of files.

        Parameters
        ----------
        files
            Its files.
        mode
            Whether an existing folder is replaced.
        marker, is_own
            Name of the file that makes the folder readable, and whether its contents are of the kind being written: a
            folder of any other kind is never replaced.
        keep
            Which files of the folder that is replaced stay as they are, by name.

        Raises
        ------
        TargetExistsError
            If something is there that may not be replaced.
        WriteError
            If the folder cannot be written.
        """
        self._require_free(mode)
        self._require_own(marker, is_own)
        written: list[str] = []
        with self._errors(), self._temporary_folder() as folder:
            if keep is not None:
                self._link(folder, keep)
            for name, data in files:
                path = os.path.join(folder, *name.split("/"))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as handle:
                    handle.write(data)
                written.append(path)
            for path in written:  # all at once: a disk is faster with many files than with one after the other
                with open(path, "r+b") as handle:
                    os.fsync(handle.fileno())
            self._require_free(mode)
            self._swap(folder)
        _flush_folder(os.path.dirname(self.path))

    def _require_free(self, mode: WriteMode) -> None:
        if mode == "w-" and os.path.lexists(self.path):
            raise TargetExistsError(f"{self.path} exists; pass mode='w' to replace it", url=self.url)

    def _require_own(self, marker: str, is_own: Callable[[bytes], bool]) -> None:
        if not os.path.lexists(self.path) or (os.path.isdir(self.path) and not os.listdir(self.path)):
            return
        place = os.path.join(self.path, marker)
        if os.path.isfile(place):
            with open(place, "rb") as handle:
                if is_own(handle.read()):
                    return
        raise TargetExistsError(
            f"{self.path} exists and is not a folder of references, so it is not replaced; choose another path or "
            "remove it",
            url=self.url,
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (TargetExistsError, WriteError):
            raise
        except OSError as error:
            raise WriteError(
                f"cannot write {self.path}: {error.strerror or error}; what was there before is untouched", url=self.url
            ) from error

    @contextmanager
    def _temporary_file(self) -> Iterator[tuple[IO[bytes], str]]:
        folder, name = os.path.split(self.path)
        number, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
        os.chmod(temporary, 0o666 & ~_umask())
        try:
            with os.fdopen(number, "wb") as handle:
                yield handle, temporary
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)

    @contextmanager
    def _temporary_folder(self) -> Iterator[str]:
        parent, name = os.path.split(self.path)
        folder = tempfile.mkdtemp(prefix=f".{name}.", suffix=".tmp", dir=parent)
        os.chmod(folder, 0o777 & ~_umask())
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _link(self, folder: str, keep: Callable[[str], bool]) -> None:
        """Have files of the target in another folder, too, without copying them where the file system can."""
        for above, _, names in os.walk(self.path):
            for name in names:
                path = os.path.join(above, name)
                relative = os.path.relpath(path, self.path)
                if not keep(relative.replace(os.sep, "/")):
                    continue
                place = os.path.join(folder, relative)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                try:
                    os.link(path, place)
                except OSError:
                    shutil.copyfile(path, place)

    def _swap(self, folder: str) -> None:
        """Put a folder in the place of the target."""
        if not os.path.lexists(self.path):
            os.rename(folder, self.path)
            return
        aside = f"{folder}.old"
        os.rename(self.path, aside)
        try:
            os.rename(folder, self.path)
        except OSError:
            os.rename(aside, self.path)
            raise
        shutil.rmtree(aside)


@dataclass(frozen=True)
class ObjectTarget:
    """A key of an object store to write to.

    Parameters
    ----------
    store
        An obstore store.
    key
        Name of the object, or of the folder.
    url
        Where that is, for messages.
    """

    store: Any
    key: str
    url: str

    def write_file(self, pieces: Iterable[bytes], mode: WriteMode, beside: tuple[str, bytes] | None = None) -> None:
        """Write one object; see :meth:`LocalTarget.write_file`."""
        if beside is not None:
            if mode == "w-" and self.read_file() is not None:
                raise TargetExistsError(f"{self.url} exists; pass mode='w' to replace it", url=self.url)
            self._put(self.key + beside[0], beside[1], "w")
        self._put(self.key, b"".join(pieces), mode)

    def read_file(self, name: str = "") -> bytes | None:
        """Return the bytes of the object, or of one of the folder; see :meth:`LocalTarget.read_file`."""
        with self._errors():
            try:
                return bytes(self.store.get(f"{self.key}/{name}" if name else self.key).bytes())
            except FileNotFoundError:
                return None

    def add_files(self, files: Iterable[NamedFile], marker: str, before: bytes) -> None:
        """Write or replace objects of a folder; see :meth:`LocalTarget.add_files`."""
        for name, data in files:
            if name == marker and self.read_file(marker) != before:
                raise _changed(self.url)
            self._put(f"{self.key}/{name}", data, "w")

    def write_folder(
        self,
        files: Iterable[NamedFile],
        mode: WriteMode,
        marker: str,
        is_own: Callable[[bytes], bool],
        keep: Callable[[str], bool] | None = None,
    ) -> None:
        """Write a folder of objects; see :meth:`LocalTarget.write_folder`."""
        stale = self._existing(marker, mode, is_own)
        if keep is not None:
            stale = {key for key in stale if not keep(key.removeprefix(f"{self.key}/"))}
        last = b""
        for name, data in files:
            if name == marker:
                last = data
                continue
            self._put(f"{self.key}/{name}", data, "w")
            stale.discard(f"{self.key}/{name}")
        self._delete(stale)
        self._put(f"{self.key}/{marker}", last, mode)

    def _existing(self, marker: str, mode: WriteMode, is_own: Callable[[bytes], bool]) -> set[str]:
        """Return the keys of the folder that is to be replaced, after taking its marker away."""
        with self._errors():
            keys = {entry["path"] for batch in self.store.list(f"{self.key}/") for entry in batch}
            if not keys:
                return keys
            if mode == "w-":
                raise TargetExistsError(f"{self.url} exists; pass mode='w' to replace it", url=self.url)
            place = f"{self.key}/{marker}"
            if place in keys and not is_own(bytes(self.store.get(place).bytes())):
                raise TargetExistsError(f"{self.url} exists and is not a folder of references", url=self.url)
        if place in keys:
            self._delete({place})
        return {key for key in keys if key.endswith((".parq", ".chunks"))}

    def _put(self, key: str, data: bytes, mode: WriteMode) -> None:
        with self._errors():
            try:
                self.store.put(key, data, mode="create" if mode == "w-" else "overwrite")
            except AlreadyExistsError as error:
                raise TargetExistsError(f"{self.url} exists; pass mode='w' to replace it", url=self.url) from error

    def _delete(self, keys: set[str]) -> None:
        if keys:
            with self._errors():
                self.store.delete(sorted(keys))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (TargetExistsError, WriteError):
            raise
        except (BaseError, OSError, NotImplementedError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise WriteError(f"cannot write {self.url}: {reason}", url=self.url) from error


Target = LocalTarget | ObjectTarget


def target_of(target: str | os.PathLike[str], registry: Any = None, store: Any = None) -> Target:
    """Return where a user wants something written.

    Parameters
    ----------
    target
        A local path or a URL; or a key of `store`.
    registry
        Stores by prefix, for a URL that is not a local file.
    store
        An obstore store.

    Raises
    ------
    NotGrantedError
        If no prefix of the registry covers the URL.

    Examples
    --------
    >>> target_of("/data/refs.json")
    LocalTarget(path='/data/refs.json')
    """
    if store is not None:
        key = os.fspath(target).strip("/")
        return ObjectTarget(store, key, f"{type(store).__name__}:{key}")
    url = as_url(target).removesuffix("/")
    if url.startswith("file:"):
        return LocalTarget(local_path(url))
    location = ObjectStoreRegistry.coerce(registry).locate(url)
    return ObjectTarget(location.store, location.key, url)


def _changed(url: str) -> WriteError:
    return WriteError(
        f"{url} was written to by another process meanwhile, and one can write at a time: try again when it is done",
        url=url,
    )


def _flush(handle: IO[bytes]) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def _flush_folder(folder: str) -> None:
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
