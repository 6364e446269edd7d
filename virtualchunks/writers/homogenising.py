"""Homogenising: arrays whose chunks decode in several ways, brought to the one encoding that a format holds for each.

The encoding of most chunks stays, and with it the references to them. All other chunks are read, decoded and encoded
anew, and held in memory, from where a writer stores them as it stores any chunk in memory, unless its format has a
place of its own for them. What was encoded is decoded again and compared, so that a codec which loses something is
never found out by a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from virtualchunks.array import ManifestArray
from virtualchunks.codecs.pipeline import decode_block, encode_block
from virtualchunks.encoding import ChunkEncoding, in_order
from virtualchunks.errors import LimitExceededError, UnsupportedFeatureError, VirtualChunksError
from virtualchunks.group import ManifestGroup
from virtualchunks.lifting import encodings_named, lifted
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata, holds
from virtualchunks.reading.recoding import Spans, recoded
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks.writers.layout import StoredArray, codes_of, stored_array
from virtualchunks.writers.splitting import described, split

#: What becomes of arrays whose chunks decode in several ways.
Heterogeneous = Literal["error", "materialise", "split"]

#: The chunks of an array that were encoded anew, by their index.
Chunks = Mapping[tuple[int, ...], bytes]
#: How chunks are compressed where those of the archive cannot be followed.
_COMPRESSOR = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
#: What codecs raise for values that are not theirs to encode.
_UNFIT = (VirtualChunksError, ValueError, TypeError, RuntimeError)


def in_memory(arrays: Sequence[tuple[ManifestArray, Chunks]]) -> list[ManifestArray]:
    """Return arrays with chunks that were encoded anew held in memory, from where writers store them.

    Parameters
    ----------
    arrays
        The arrays, all of whose chunks are said to decode in one way, with those that were encoded so.
    """
    return [ManifestArray(array.metadata, array.manifest.with_buffers(found).compact()) for array, found in arrays]


@dataclass(frozen=True)
class Form:
    """What a format holds.

    Parameters
    ----------
    name
        What messages call it.
    limit
        The most bytes of chunks that are encoded anew in one write.
    accepts
        Raises UnsupportedFeatureError for an array that the format cannot hold.
    existing
        From the path of an array to the metadata of the stored one that it is added to, if there is one.
    adds
        Whether arrays are added to stored ones.
    keep
        Puts chunks that were encoded anew where the format wants them.
    advice
        What to do where they are too many.
    """

    name: str
    limit: int
    accepts: Callable[[StoredArray], Any] = lambda array: None
    existing: Callable[[str], ArrayMetadata | None] = lambda path: None
    adds: bool = False
    keep: Callable[[Sequence[tuple[ManifestArray, Chunks]]], list[ManifestArray]] = in_memory
    advice: str = "leave variables out, or write fewer files at a time"


@dataclass(frozen=True, eq=False)
class _Change:
    """How an array becomes one whose chunks all decode alike.

    Attributes
    ----------
    encoding
        That of all chunks.
    numbers
        Of the chunks to encode anew, in C order.
    count
        Of all chunks that are not missing.
    """

    path: str
    array: ManifestArray
    encoding: ChunkEncoding
    numbers: npt.NDArray[np.int64]
    count: int

    def cost(self) -> str:
        """Return what it takes, as text."""
        fetched = int(Spans.of(self.array, self.numbers).fresh.sum())
        grid = self.array.metadata.grid
        shapes = [axis.nominal for axis in grid.axes]
        places = np.unravel_index(self.numbers, grid.grid_shape) if shapes else ()
        elements = np.ones(len(self.numbers), dtype=np.int64)
        for lengths, place in zip(shapes, places, strict=True):
            elements *= lengths[place]
        stored = int(elements.sum()) * self.encoding.dtype.itemsize
        return (
            f"reads {len(self.numbers):,} of its {self.count:,} chunks ({fetched:,} bytes) and stores them anew "
            f"({stored:,} bytes before compression) as {self.encoding!r}"
        )


def homogenised(
    tree: ManifestGroup, form: Form, heterogeneous: Heterogeneous = "error", registry: Any = None
) -> ManifestGroup:
    """Return a tree in which the chunks of each array decode alike, as a format needs it.

    Parameters
    ----------
    tree
        The tree.
    form
        The format.
    heterogeneous
        ``"error"`` refuses arrays whose chunks decode in several ways, ``"materialise"`` reads the fewer chunks and
        encodes them as the others are, and ``"split"`` cuts their groups into groups of what decodes
        alike.
    registry
        What may be read for that; by default nothing.

    Raises
    ------
    UnsupportedFeatureError
        If an array is refused, with what materialising it takes; if values cannot be encoded without loss.
    LimitExceededError
        If there is more to encode than the format holds in memory.
    ReadError, NotGrantedError, DecodeError
        If a chunk cannot be read.
    """
    if heterogeneous not in get_args(Heterogeneous):
        known = ", ".join(map(repr, get_args(Heterogeneous)))
        raise UnsupportedFeatureError(f"heterogeneous={heterogeneous!r} is none of {known}")
    if heterogeneous == "split":
        if form.adds:
            raise UnsupportedFeatureError(
                "heterogeneous='split' makes new groups, and nothing can be added to stored arrays in that way: pass "
                "'materialise', or write anew"
            )
        return _checked_parts(split(tree), tree, form)
    if heterogeneous == "error":
        for path, array in tree.walk_arrays():
            _require_homogeneous(path, array, form)
        return tree
    changes = {path: found for path, array in tree.walk_arrays() if (found := _change(path, array, form)) is not None}
    if not changes:
        return tree
    granted = ObjectStoreRegistry() if registry is None else ObjectStoreRegistry.coerce(registry)
    budget = _Budget(form)
    encoded = [_materialised(found, granted, budget) for found in changes.values()]
    made = dict(zip(changes, form.keep(encoded), strict=True))
    return tree.map_arrays(lambda path, array: made.get(path, array))


def _checked_parts(parts: ManifestGroup, tree: ManifestGroup, form: Form) -> ManifestGroup:
    """Return a tree that was split, once each of its arrays is known to be one that a format holds."""
    for path, array in parts.walk_arrays():
        try:
            form.accepts(stored_array(path, array, form.name))
        except UnsupportedFeatureError as error:
            group, _, name = path.rpartition("/")
            own = path if path in dict(tree.walk_arrays()) else f"{group.rpartition('/')[0]}/{name}".lstrip("/")
            raise UnsupportedFeatureError(
                f"{own!r} cannot be split into arrays that {form.name} holds: {error.message}", variable=own
            ) from error
    return parts


def _require_homogeneous(path: str, array: ManifestArray, form: Form) -> None:
    """Raise for an array that is refused, with what materialising it takes; others cost nothing here."""
    if not array.is_heterogeneous:
        return
    try:
        stored_array(path, array, form.name)
    except UnsupportedFeatureError as error:
        change = _change(path, array, form)
        if change is None:
            raise
        raise UnsupportedFeatureError(
            f"{error.message}. Or pass heterogeneous='materialise', which {change.cost()}{described(path, array)}",
            variable=path,
        ) from None


def _change(path: str, array: ManifestArray, form: Form) -> _Change | None:
    """Return how an array becomes one whose chunks all decode alike; ``None`` where they do."""
    existing = form.existing(path) if any(array.manifest.iter_nonempty_paths()) else None
    if existing is None and not array.is_heterogeneous:
        return None
    if existing is not None:
        array = _widened(array.lifted(), existing)  # packed otherwise than what is stored, it can be packed again
    metadata, manifest = array.metadata, array.manifest
    if not len(manifest):
        return None
    codes, encodings = codes_of(array)
    counts = np.bincount(codes[codes >= 0], minlength=len(encodings))
    order = np.argsort(-counts, kind="stable").tolist()
    candidates = [encodings[number] for number in order if counts[number]]
    if existing is not None:
        packed = any(encoding.packing is not None for encoding in encodings_named((metadata, manifest)))
        candidates.insert(0, _encoding_of(existing, packed=packed))
    for encoding in candidates:
        others = codes != encodings.index(encoding) if encoding in encodings else np.ones_like(codes, dtype=bool)
        change = _Change(path, array, encoding, np.flatnonzero(others & (codes >= 0)), len(manifest))
        if _is_held(change, form):
            return change if len(change.numbers) else None
    return _plain(path, array, form, np.flatnonzero(codes >= 0))


def _widened(array: ManifestArray, existing: ArrayMetadata) -> ManifestArray:
    """Return an array that is not packed with the dtype of the stored one, where that holds all of its values."""
    packed = any(encoding.packing is not None for encoding in encodings_named((array.metadata, array.manifest)))
    if packed or array.dtype == existing.dtype or not holds(existing.dtype, array.dtype):
        return array
    return array.astype(existing.dtype)


def _encoding_of(existing: ArrayMetadata, *, packed: bool) -> ChunkEncoding:
    """Return the encoding of a stored array, with its packing if what is added to it is lifted."""
    parts = (existing, ChunkManifest.missing(existing.grid.grid_shape))
    return lifted(parts)[0].encoding if packed else existing.encoding


def _is_held(change: _Change, form: Form) -> bool:
    """Whether a format holds an array with all chunks in an encoding, and its codecs encode."""
    metadata = change.array.metadata
    if metadata.encoding.packing is not None or change.encoding.packing is not None:
        packing = change.encoding.packing
        if (metadata.dtype if packing is None else packing.dtype) != metadata.dtype:
            return False
    try:
        form.accepts(stored_array(change.path, _relabelled(change.array, change.encoding), form.name))
        if len(change.numbers):
            _encoded(change, *_example(change))
    except _UNFIT:
        return False
    return True


def _example(change: _Change) -> tuple[tuple[int, ...], npt.NDArray[Any]]:
    """Return the index of a chunk, and a cell of fill values for it."""
    metadata = change.array.metadata
    shape = metadata.grid.grid_shape
    index = tuple(int(place) for place in np.unravel_index(int(change.numbers[0]), shape)) if shape else ()
    packing = change.encoding.packing
    value = metadata.fill_value
    if packing is not None and packing.stored_fill(value) is None:
        value = packing.lifted_scalar(0)
    return index, np.full(metadata.grid.cell_shape(index), value, dtype=metadata.dtype)


def _relabelled(array: ManifestArray, encoding: ChunkEncoding) -> ManifestArray:
    """Return an array all of whose chunks are said to decode in one way."""
    manifest = array.manifest
    table = manifest.sources.replace(encoding_ids=None, encodings=())
    metadata = array.metadata.replace(encoding=encoding)
    return ManifestArray(metadata, ChunkManifest._trusted(manifest.records, table))


def _plain(path: str, array: ManifestArray, form: Form, numbers: npt.NDArray[np.int64]) -> _Change:
    """Return the change of all chunks to plain compressed elements.

    Raises
    ------
    UnsupportedFeatureError
        If the format does not hold even that.
    """
    served = array.metadata.transcoded().encoding
    encoding = replace(served, codecs=(*served.codecs, _COMPRESSOR))
    form.accepts(stored_array(path, _relabelled(array, encoding), form.name))
    return _Change(path, array, encoding, numbers, len(numbers))


def _encoded(change: _Change, index: tuple[int, ...], cell: npt.NDArray[Any]) -> bytes:
    """Return the bytes of a cell in the encoding of a change.

    Raises
    ------
    UnsupportedFeatureError
        If they do not decode to the same values.
    """
    metadata, encoding = change.array.metadata, change.encoding
    packing, fill, block = encoding.packing, metadata.fill_value, cell
    if packing is not None:
        packed = packing.pack(cell)
        if packed is None:
            raise UnsupportedFeatureError(
                f"the chunks of {change.path!r} are packed in several ways, and no number that is stored as "
                f"{dict(packing.attributes)} gives some of their values to the last bit. Materialising would have been "
                f"what {change.cost()}; write the values that .virtual.open() reads, or each packing to an array of "
                "its own",
                variable=change.path,
                chunk=index,
            )
        number = packing.stored_fill(fill)
        block, fill = packed, packed.dtype.type(0) if number is None else number
    nominal = metadata.grid.nominal_shape(index)
    if block.shape != nominal:
        padded = np.full(nominal, fill, dtype=block.dtype)
        padded[tuple(slice(0, length) for length in block.shape)] = block
        block = padded
    data = encode_block(block, encoding)
    again = decode_block(data, replace(encoding, shape=None), nominal)
    if not _same_bits(again, block):
        raise UnsupportedFeatureError(
            f"values of {change.path!r} do not survive being encoded as {encoding!r}, in which most of its chunks are: "
            "write the values that .virtual.open() reads",
            variable=change.path,
            chunk=index,
        )
    return data


def _same_bits(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    if in_order(one.dtype, "=") != other.dtype:
        return False
    if other.dtype.kind in "TO":
        return bool((one == other).all())
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


class _Budget:
    """The bytes that were encoded so far, of those that a format holds in one write."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._used = 0

    def use(self, change: _Change, count: int) -> None:
        """Count bytes.

        Raises
        ------
        LimitExceededError
            If they are too many by now.
        """
        self._used += count
        if self._used > self._form.limit:
            raise LimitExceededError(
                f"materialising {change.path!r} {change.cost()}; with what was encoded before, that is more than the "
                f"{self._form.limit:,} bytes that one write to {self._form.name} holds: {self._form.advice}",
                variable=change.path,
            )


def _materialised(
    change: _Change, registry: ObjectStoreRegistry, budget: _Budget
) -> tuple[ManifestArray, dict[tuple[int, ...], bytes]]:
    """Return the array of a change, and its chunks that were encoded anew."""
    found: dict[tuple[int, ...], bytes] = {}
    encode = partial(_encoded, change)
    for index, data in recoded(change.array, change.numbers, registry, encode, name=change.path):
        budget.use(change, len(data))
        found[index] = data
    return _relabelled(change.array, change.encoding), found
