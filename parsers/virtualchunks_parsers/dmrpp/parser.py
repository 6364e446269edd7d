"""DMRPPParser: one document → one tree of arrays of references into the data files that it describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from virtualchunks.array import ManifestArray
from virtualchunks.errors import FormatError, ManifestError, NotGrantedError, ReadError, UnsupportedFeatureError
from virtualchunks.group import ManifestGroup, no_group
from virtualchunks.reading.reader import ObjectReader
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.base import LEFT_OUT, FileParser, Omissions
from virtualchunks_parsers.dmrpp import inline
from virtualchunks_parsers.dmrpp.datafiles import DataFiles, sibling_of
from virtualchunks_parsers.dmrpp.document import Element, read_document
from virtualchunks_parsers.dmrpp.storage import FILTERS, stored_array
from virtualchunks_parsers.dmrpp.variables import (
    VARIABLES,
    Scope,
    Variable,
    attributes_of,
    declare,
    name_of,
    variable_of,
)

#: Why one array may be left out while the others are read: its data file may be another than theirs.
REASONS = (*LEFT_OUT, ManifestError, NotGrantedError, ReadError)
#: Elements that say where the values of a variable are, or hold them; each variable has one.
HELD: Mapping[str, Callable[[Variable, Element], ManifestArray]] = {
    "dmrpp:compact": inline.compact,
    "dmrpp:missingdata": inline.missing_data,
    "dmrpp:vlsa": inline.variable_text,
    "dmrpp:specialstructuredata": inline.special_structure,
}


@dataclass(frozen=True, kw_only=True)
class DMRPPParser(FileParser):
    """Reads a DMR++ document as arrays of references into the data file that it describes.

    Parameters
    ----------
    group
        Path of the group that becomes the root; by default the document's own root.
    drop_variables
        Names of arrays to leave out wherever they are, or paths of arrays and groups, such as ``"/model/wind"``.
    strict
        Whether to raise where a variable cannot be represented, rather than to leave it out with an
        :class:`~virtualchunks.errors.UnsupportedArrayWarning`.
    data_url
        URL or path of the data file, where the document does not say it, or says what no longer holds.
    stamps
        Whether to take the stamps of the data files, by which a later change of them is noticed. By default those of
        local files are taken, which costs no request; ``True`` takes all, one request for each, and ``False`` none.

    Notes
    -----
    The data file is the one that the document names (``dmrpp:href``), or the one beside it with its name less
    ``.dmrpp``. A path in the document is taken from the document's folder; it cannot lead out of that. The registry
    must grant every data file; without a registry, the file beside the document and `data_url` are granted, and what
    the document names is not.

    One request reads a document of up to 1 MiB, and nothing else is asked for. A document has no size, ETag or checksum
    of its data files. So a data file that was rewritten after the document was made, and before that is parsed, goes
    unnoticed whatever is asked. To notice that one is rewritten later takes a stamp. Without, chunks are still checked
    for their lengths, and those with fletcher32 for their sums.

    Examples
    --------
    >>> DMRPPParser(data_url="s3://bucket/a.h5")
    DMRPPParser(group=None, drop_variables=(), strict=False, data_url='s3://bucket/a.h5', stamps=None)
    """

    name: ClassVar[str] = "DMR++"
    suffixes: ClassVar[tuple[str, ...]] = (".dmrpp",)
    reads: ClassVar[tuple[str, ...]] = (
        "groups, shared and anonymous dimensions, attributes and containers of attributes",
        "numbers in both byte orders, enumerations, text of fixed length with any padding, packed structures",
        f"chunks: a reference for each, with the filters {', '.join(FILTERS)} in any order, and filter masks",
        "contiguous data and scalars: one reference",
        "chunks that were never stored, as fillValue",
        "compact, missingdata and vlsa: kept in memory",
        "data files by href of the document or of a chunk, or beside the document; the registry has to grant each",
        "linked blocks: a reference for each, where they end as rows end",
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "documents with a document type declaration, and so with entities",
        "text of variable length in the heap of the data file, opaque values, sequences",
        "structures with gaps between their fields, or with text (specialstructuredata)",
        "chunks in linked blocks that lie apart: a chunk is one run of bytes",
        "chunks that were never stored where no fillValue is stated",
    )

    data_url: str | None = None
    stamps: bool | None = None

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Return whether a document that begins so is a DMR++.

        Examples
        --------
        >>> DMRPPParser.recognises(b'<Dataset xmlns:dmrpp="http://xml.opendap.org/dap/dmrpp/1.0.0#" name="a">')
        True
        """
        return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<Dataset" in head and b"dmrpp" in head

    def _read(self, url: str, registry: ObjectStoreRegistry) -> ManifestGroup:
        with ObjectReader(registry, url) as reader:
            root = read_document(reader)
            files = DataFiles(registry, reader.url, root.attributes.get("dmrpp:href"), self.data_url, self.stamps)
            return _Parse(self._omissions(files.document, REASONS), files, root).tree(self.group)

    def companions(self, url: str) -> tuple[str, ...]:
        """Return the data files that the user names: `data_url`, and the file beside the document.

        Parameters
        ----------
        url
            Canonical URL of the document.
        """
        return tuple(name for name in (sibling_of(url), self.data_url) if name is not None)


class _Parse:
    """One parse of one document."""

    def __init__(self, omissions: Omissions, files: DataFiles, root: Element) -> None:
        self._omissions = omissions
        self._files = files
        self._root = root
        self._url = files.document
        self._versioned = "dmrpp:version" in root.attributes

    def tree(self, group: str | None) -> ManifestGroup:
        scope = Scope()
        declare(scope, self._root, self._url)
        element = self._root
        for name in filter(None, (group or "").split("/")):
            found = next((child for child in element.of("Group") if child.attributes.get("name") == name), None)
            if found is None:
                known = (str(child.attributes.get("name")) for child in element.of("Group"))
                raise no_group(group, known, self._url)
            element, scope = found, scope.groups[name]
        if any(_needs_default(variable) for variable in _all_variables(element)):
            self._files.file()
        return self._group(element, scope)

    def _group(self, element: Element, scope: Scope) -> ManifestGroup:
        groups: dict[str, ManifestGroup] = {}
        for child in element.of("Group"):
            name = name_of(child, self._url)
            if name in groups:
                raise FormatError(f"two groups {scope.groups[name].path!r}", url=self._url)
            if self._omissions.drops(scope.groups[name].path):
                continue
            try:
                ManifestGroup(groups={name: ManifestGroup()})
            except ManifestError as error:
                self._omissions.leave_out(scope.groups[name].path, error)
            else:
                groups[name] = self._group(child, scope.groups[name])
        arrays: dict[str, ManifestArray] = {}
        for child in element.of(*VARIABLES):
            name = name_of(child, self._url)
            path = f"{scope.path}/{name}"
            if name in arrays or name in groups:
                raise FormatError(f"two members {path!r} of one group", url=self._url)
            if self._omissions.drops(path):
                continue
            with self._omissions.attempt(path):
                arrays.update(ManifestGroup({name: self._array(child, scope)}).arrays)  # a group checks names
        return ManifestGroup(arrays, groups, attributes_of(element))

    def _array(self, element: Element, scope: Scope) -> ManifestArray:
        variable = variable_of(element, scope, self._url)
        array = self._values(variable)
        metadata = array.metadata.replace(dimension_names=variable.names, attributes=attributes_of(element))
        return ManifestArray(metadata, array.manifest)

    def _values(self, variable: Variable) -> ManifestArray:
        element = variable.element
        held = list(element.of("dmrpp:chunks", *HELD))
        if len(held) + (element.chunks is not None) > 1:
            raise variable.corrupt("more than one element that says where its values are")
        if element.chunks is not None:
            return stored_array(variable, element, self._files, versioned=self._versioned)
        if not held:
            raise UnsupportedFeatureError("the document does not say where its values are")
        if held[0].name == "dmrpp:chunks":
            return stored_array(variable, held[0], self._files, versioned=self._versioned)
        return HELD[held[0].name](variable, held[0])


def _all_variables(element: Element) -> Iterator[Element]:
    """Iterate over the variables of a group and of those below it."""
    yield from element.of(*VARIABLES)
    for child in element.of("Group"):
        yield from _all_variables(child)


def _needs_default(variable: Element) -> bool:
    """Whether some chunk of a variable lies in the document's own data file."""
    holders = [variable, *variable.of("dmrpp:chunks")]
    return any(holder.chunks is not None and 0 in holder.chunks.hrefs for holder in holders)
