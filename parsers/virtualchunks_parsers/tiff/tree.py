"""Which image of a TIFF file belongs to which: pages, overviews, masks, and the stacks of OME-TIFF.

Directories follow each other in a chain, and each may have chains of its own below it (SubIFDs). A directory that says
it is a reduced image or a mask belongs to the image before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from virtualchunks.errors import FormatError, LimitExceededError, VirtualChunksError
from virtualchunks_parsers.tiff import describe, geo, image
from virtualchunks_parsers.tiff.describe import OMEStack
from virtualchunks_parsers.tiff.image import Image
from virtualchunks_parsers.tiff.structure import IFD, TIFFFile

SUB_IFDS = 330
#: SubIFDs of SubIFDs.
DEEPEST = 8

#: What is called with the name of something left out, and why.
Report = Callable[[str, VirtualChunksError], None]


@dataclass(eq=False)
class Node:
    """An image in its place in the tree.

    Attributes
    ----------
    images
        The image; of a stack, one per plane; none where it could not be read, so that those after it keep their names.
    axes
        Names and lengths of the axes over planes.
    mask
        The image that says which of its pixels are there.
    overviews
        The same at lower resolutions, the largest first as files have them.
    others
        Further images below it.
    """

    images: list[Image]
    axes: tuple[tuple[str, int], ...] = ()
    mask: Image | None = None
    overviews: list[Node] = field(default_factory=list)
    others: list[Node] = field(default_factory=list)

    @property
    def image(self) -> Image:
        """The image, or that of the first plane."""
        return self.images[0]

    def attach_mask(self, mask: Image) -> bool:
        """Take a mask of this image or of one of its overviews; return whether its size fits any."""
        for node in (self, *self.overviews):
            if node.mask is None and (node.image.height, node.image.width) == (mask.height, mask.width):
                node.mask = mask
                return True
        return False


class Walk:
    """One walk through the directories of a file.

    Parameters
    ----------
    file
        The file.
    report
        Called for directories that cannot be read.
    """

    def __init__(self, file: TIFFFile, report: Report) -> None:
        self._file = file
        self._report = report

    def pages(self) -> list[Node]:
        """Return the images of the file, with what belongs to each.

        Raises
        ------
        FormatError
            If not even the first directory can be read.
        """
        chain, broken = self._file.chain(self._file.first_offset)
        if broken is not None:
            self._report(f"what follows directory {len(chain) - 1}", broken)
        self._fetch(chain)
        return _stacked(chain, self._arrange(chain, "", 0))

    def _fetch(self, chain: Sequence[IFD]) -> None:
        """Bring the values of all fields that will be read into the reader's cache, in one go."""
        tags = (*image.FIELDS, *geo.FIELDS, *describe.FIELDS, SUB_IFDS)
        fields = [ifd.fields[tag] for ifd in chain for tag in tags if tag in ifd]
        self._file.reader.prefetch([(f.offset, f.nbytes) for f in fields if f.nbytes > self._file.layout.offset_size])

    def _arrange(self, chain: Sequence[IFD], path: str, depth: int) -> list[Node]:
        pages: list[Node] = []
        for number, ifd in enumerate(chain):
            name = f"{path}directory {number}"
            try:
                found = Image(ifd)
                reduced, masking = found.is_reduced, found.is_mask
                node = Node([found])
            except (FormatError, LimitExceededError) as error:
                self._report(name, error)
                pages.append(Node([]))
                continue
            self._below(node, ifd, name, depth)
            known = bool(pages) and bool(pages[-1].images)
            if masking and known and pages[-1].attach_mask(found):
                continue
            if reduced and known and not masking:
                pages[-1].overviews.append(node)
            else:
                pages.append(node)
        return pages

    def _below(self, node: Node, ifd: IFD, name: str, depth: int) -> None:
        """Read the chains below a directory: overviews of its image, and other images."""
        if SUB_IFDS not in ifd:
            return
        if depth >= DEEPEST:
            self._report(name, LimitExceededError(f"directories more than {DEEPEST} deep"))
            return
        chain: list[IFD] = []
        try:
            offsets = ifd.integers(SUB_IFDS).tolist()
            for offset in offsets:
                if offset:
                    found, broken = self._file.chain(offset, offsets)  # some writers chain what they list
                    chain += found
                    if broken is not None:
                        self._report(f"what follows a directory below {name}", broken)
        except FormatError as error:
            self._report(f"a directory below {name}", error)
        self._fetch(chain)
        for below in self._arrange(chain, f"{name}, ", depth + 1):
            (node.overviews if below.images and below.image.is_reduced else node.others).append(below)


def _stacked(chain: Sequence[IFD], pages: list[Node]) -> list[Node]:
    """Return the pages with those that OME-XML calls planes of one image made one."""
    description = chain[0].text(describe.IMAGE_DESCRIPTION)
    if not describe.is_ome(description):
        return pages
    try:
        stacks = describe.ome_stacks(description, len(chain))
    except FormatError:
        return pages
    by_directory = {id(node.image.ifd): node for node in pages if node.images}
    places = {number: by_directory.get(id(ifd)) for number, ifd in enumerate(chain)}
    first: dict[int, Node] = {}
    gone: set[int] = set()
    for stack in stacks:
        made = _stack([places.get(number) for number in stack.planes], stack)
        if made is not None:
            first[id(places[stack.planes[0]])] = made
            gone |= {id(places[number]) for number in stack.planes}
    return [first.get(id(node), node) for node in pages if id(node) in first or id(node) not in gone]


def _stack(planes: Sequence[Node | None], stack: OMEStack) -> Node | None:
    """Return planes as one node, with their overviews stacked likewise; ``None`` where they differ."""
    nodes = [node for node in planes if node is not None]
    if len(nodes) < len(planes) or len(nodes) < 2 or not _alike(nodes):
        return None
    levels = min(len(node.overviews) for node in nodes)
    overviews = [[node.overviews[level] for node in nodes] for level in range(levels)]
    return Node(
        [node.image for node in nodes],
        stack.axes,
        overviews=[Node([node.image for node in level], stack.axes) for level in overviews if _alike(level)],
        others=[other for node in nodes for other in node.others],
    )


def _alike(nodes: Sequence[Node]) -> bool:
    first = nodes[0].image
    return all(
        node.mask is None
        and node.image.depth == 1
        and node.image.shape == first.shape
        and node.image.compression == first.compression
        for node in nodes
    )
