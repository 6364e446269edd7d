"""The data files that a DMR++ names: which object is meant, whether it may be read, and which version is there."""

from __future__ import annotations

from dataclasses import dataclass, field

from virtualchunks.errors import FormatError, UnsupportedFeatureError, URLError
from virtualchunks.reading.local import LocalFile
from virtualchunks.reading.requests import get
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.sources import Stamp
from virtualchunks.urls import as_url, join, quote_path

#: What the servers of NASA's archives replace by the file's URL when they answer.
PLACEHOLDER = "OPeNDAP_DMRpp_DATA_ACCESS_URL"
SUFFIX = ".dmrpp"


@dataclass(frozen=True)
class DataFile:
    """One data file: its canonical URL, and its stamp, where that was asked for."""

    url: str
    stamp: Stamp | None

    @property
    def size(self) -> int | None:
        """Its length, in bytes, if it is known."""
        return None if self.stamp is None else self.stamp.size


def sibling_of(url: str) -> str | None:
    """Return the URL of the file that a document beside it describes, by its name.

    Examples
    --------
    >>> sibling_of("s3://bucket/a.h5.dmrpp")
    's3://bucket/a.h5'
    """
    return url.removesuffix(SUFFIX) if url.endswith(SUFFIX) else None


@dataclass(eq=False)
class DataFiles:
    """The data files of one document, each asked for its stamp once at most.

    Parameters
    ----------
    registry
        What may be read.
    document
        Canonical URL of the document.
    href
        What the document says of its data file.
    data_url
        What the user says of it.
    stamps
        Whether to take the stamps of data files; ``None`` for those of local ones, which costs no request.
    """

    registry: ObjectStoreRegistry
    document: str
    href: str | None = None
    data_url: str | None = None
    stamps: bool | None = None
    _known: dict[str | None, DataFile] = field(default_factory=dict)

    def file(self, href: str | None = None) -> DataFile:
        """Return the file that a chunk lies in.

        Parameters
        ----------
        href
            What the chunk says of it; ``None`` for the document's own.

        Raises
        ------
        FormatError
            If nothing says which file it is.
        UnsupportedFeatureError
            If what is said is no URL below the document's folder, nor a whole one.
        NotGrantedError, ReadError
            If the file may not or cannot be read.
        """
        if href not in self._known:
            url = self._default_url() if href is None else self._resolve(href)
            same = next((file for file in self._known.values() if file.url == url), None)
            self._known[href] = DataFile(url, self._stamp(url)) if same is None else same
        return self._known[href]

    def _default_url(self) -> str:
        if self.data_url is not None:
            return as_url(self.data_url)
        url = self._resolve(self.href) if self.href else sibling_of(self.document)
        if url is None:
            raise FormatError(
                f"the document names no data file, and its own name does not end in {SUFFIX!r}: pass data_url=",
                url=self.document,
            )
        return url

    def _resolve(self, href: str) -> str:
        """Return the URL that is meant: a whole one, or a path from the folder of the document.

        The paths that the BES writes begin at the root of its own data, wherever that was: one that ends in the name of
        the file beside the document means that file.
        """
        sibling = sibling_of(self.document)
        if href == PLACEHOLDER:
            if sibling is None:
                raise FormatError(
                    f"the document leaves its data file open ({PLACEHOLDER}): pass data_url=", url=self.document
                )
            return sibling
        try:
            if "://" in href:
                return as_url(href)
            if sibling is not None and sibling.endswith("/" + quote_path(href.rpartition("/")[2])):
                return sibling
            return join(self.document, quote_path(href))
        except URLError as error:
            raise UnsupportedFeatureError(
                f"the data file {href[:200]!r}: {error.message}; pass data_url= to say where it is", url=self.document
            ) from error

    def _stamp(self, url: str) -> Stamp | None:
        """Take a stamp, if that is wanted; what is not granted is refused in any case."""
        location = self.registry.locate(url)
        if self.stamps is False or (self.stamps is None and location.path is None):
            return None
        if location.path is None:
            return get(location, 0, 1, upto=True).stamp
        file = LocalFile(location)
        try:
            return file.stamp
        finally:
            file.close()
