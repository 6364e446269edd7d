"""NumPy's functions on ManifestArrays.

Each function here carries the name of the NumPy function it implements and registers itself in
:data:`virtualchunks.array.HANDLED`, so that ``np.concatenate`` and xarray find it. They rearrange references; none
reads. Concatenation, which has rules of its own, is in :mod:`virtualchunks.combine`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from virtualchunks.array import HANDLED, HANDLED_UFUNCS, ManifestArray, ReindexedArray
from virtualchunks.combine import concatenate_arrays
from virtualchunks.errors import CombineError, UnsupportedFeatureError, VirtualArrayError
from virtualchunks.indexing import add_axis, drop_axis, fill_where, repeat_axis
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import PACKING, same_value

Function = TypeVar("Function", bound=Callable[..., Any])


def implements(*numpy_functions: Callable[..., Any]) -> Callable[[Function], Function]:
    """Register a function as the implementation of NumPy functions on ManifestArrays."""

    def register(function: Function) -> Function:
        for numpy_function in numpy_functions:
            HANDLED[numpy_function] = function
        return function

    return register


class _Mask(np.ndarray[Any, np.dtype[np.bool_]]):
    """A mask without memory that counts as false in ``&`` and ``|``.

    xarray compares arrays as ``(a == b) | (isnan(a) & isnan(b))``, for which this is right.
    """

    def __and__(self, other: Any) -> Any:
        return self if isinstance(other, _Mask) else np.logical_and(np.asarray(self), other)

    def __ror__(self, other: Any) -> Any:
        return other

    def __or__(self, other: Any) -> Any:
        return other


class _Unread(np.ndarray[Any, np.dtype[np.bool_]]):
    """Truths that are not known, and so refuse to be used, apart from what a subclass allows."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        raise VirtualArrayError(_UNREAD)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if any(issubclass(kind, ManifestArray) for kind in types):
            return NotImplemented
        raise VirtualArrayError(_UNREAD)

    def __repr__(self) -> str:
        return f"{type(self).__name__}<shape={self.shape}, not known without reading>"

    def _repr_inline_(self, max_width: int) -> str:
        return f"{type(self).__name__}<...>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


class UnreadMask(_Unread, _Mask):
    """The answer of ``np.isnan`` on references: not known.

    xarray also fills missing values by ``where(~isnan(a), a, other)``; the negation is an :class:`UnreadPresence`.
    """

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if ufunc in (np.invert, np.logical_not):
            return np.broadcast_to(np.True_, self.shape).view(UnreadPresence)
        raise VirtualArrayError(_UNREAD)


class NoMask(_Mask):
    """A mask that is known to be false everywhere: integers and texts are never missing."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if ufunc in (np.invert, np.logical_not):
            return np.broadcast_to(np.True_, self.shape)
        return getattr(ufunc, method)(*map(np.asarray, inputs), **kwargs)


class UnreadPresence(_Unread):
    """The negation of an :class:`UnreadMask`: which values are there is not known.

    All it is good for is ``where(present, a, b)`` with the same references in `a` and `b`, which is how xarray merges
    variables that it found to be equal.
    """

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        """Return the mask as it is."""
        return self


_UNREAD = "which values are missing is not known without reading them: read the array with .virtual.open() first"


@implements(np.concatenate)
def concatenate(arrays: Sequence[Any], /, axis: int | None = 0, *, out: None = None, **casting: Any) -> ManifestArray:
    """Join arrays along an axis; see :func:`virtualchunks.combine.concatenate_arrays`."""
    if axis is None:
        raise CombineError("axis=None flattens the arrays first, which references cannot; name an axis")
    return concatenate_arrays(arrays, axis)


@implements(np.stack)
def stack(arrays: Sequence[Any], axis: int = 0, out: None = None, **casting: Any) -> ManifestArray:
    """Join arrays along a new axis."""
    parts = [
        expand_dims(array, axis) if isinstance(array, ManifestArray) else np.expand_dims(array, axis)
        for array in arrays
    ]
    if not parts:
        raise CombineError("nothing to stack: the list of arrays is empty")
    return concatenate_arrays(parts, axis % parts[0].ndim)


@implements(np.expand_dims)
def expand_dims(array: ManifestArray, axis: int | Sequence[int]) -> ManifestArray:
    """Insert axes of length 1."""
    new = [axis] if isinstance(axis, int | np.integer) else list(axis)
    ndim = array.ndim + len(new)
    places = sorted({_axis_number(place, ndim) for place in new})
    if len(places) != len(new):
        raise ValueError(f"repeated axis in {axis}")
    parts = array._parts
    for place in places:
        parts = add_axis(parts, place)
    return ManifestArray._of(parts)


@implements(np.squeeze)
def squeeze(array: ManifestArray, axis: int | Sequence[int] | None = None) -> ManifestArray:
    """Drop axes of length 1."""
    if axis is None:
        places = [place for place, size in enumerate(array.shape) if size == 1]
    else:
        given = [axis] if isinstance(axis, int | np.integer) else list(axis)
        places = [_axis_number(place, array.ndim) for place in given]
    parts = array._parts
    for place in sorted(places, reverse=True):
        if array.shape[place] != 1:
            raise ValueError(f"cannot select an axis to squeeze out which has size not equal to one: axis {place}")
        parts = drop_axis(parts, place)
    return ManifestArray._of(parts)


@implements(np.transpose, np.permute_dims)
def transpose(array: ManifestArray, axes: Sequence[int] | None = None) -> ManifestArray:
    """Permute the axes."""
    return array.transpose() if axes is None else array.transpose(tuple(axes))


@implements(np.moveaxis)
def moveaxis(array: ManifestArray, source: int | Sequence[int], destination: int | Sequence[int]) -> ManifestArray:
    """Move axes to new positions."""
    froms = [source] if isinstance(source, int | np.integer) else list(source)
    tos = [destination] if isinstance(destination, int | np.integer) else list(destination)
    moved = [_axis_number(place, array.ndim) for place in froms]
    targets = [_axis_number(place, array.ndim) for place in tos]
    order = [place for place in range(array.ndim) if place not in moved]
    for target, place in sorted(zip(targets, moved, strict=True)):
        order.insert(target, place)
    return array.transpose(tuple(order))


@implements(np.swapaxes)
def swapaxes(array: ManifestArray, axis1: int, axis2: int) -> ManifestArray:
    """Exchange two axes."""
    order = list(range(array.ndim))
    one, two = _axis_number(axis1, array.ndim), _axis_number(axis2, array.ndim)
    order[one], order[two] = order[two], order[one]
    return array.transpose(tuple(order))


@implements(np.flip)
def flip(array: ManifestArray, axis: int | Sequence[int] | None = None) -> ManifestArray:
    """Reverse the order along axes whose chunks hold one element each."""
    places = range(array.ndim) if axis is None else np.atleast_1d(axis).tolist()
    flipped = {_axis_number(place, array.ndim) for place in places}
    return array[tuple(slice(None, None, -1 if place in flipped else 1) for place in range(array.ndim))]


@implements(np.broadcast_to)
def broadcast_to(array: ManifestArray, /, shape: int | Sequence[int], subok: bool = False) -> ManifestArray:
    """Repeat an array along axes of length 1, and along new axes in front, without copying references."""
    target = (int(shape),) if isinstance(shape, int | np.integer) else tuple(int(size) for size in shape)
    extra = len(target) - array.ndim
    fits = extra >= 0 and all(
        size in (1, wanted) for size, wanted in zip(array.shape, target[max(extra, 0) :], strict=True)
    )
    if not fits:
        raise ValueError(f"operands could not be broadcast together with remapped shapes: {array.shape} and {target}")
    parts = array._parts
    for _ in range(extra):
        parts = add_axis(parts, 0)
    for place, (size, wanted) in enumerate(zip(parts[0].shape, target, strict=True)):
        if size != wanted:
            parts = repeat_axis(parts, place, wanted)
    return ManifestArray._of(parts)


@implements(np.result_type)
def result_type(*arrays_and_dtypes: Any) -> np.dtype[Any]:
    """Return the dtype that the arguments promote to."""
    plain = [item.dtype if isinstance(item, ManifestArray) else item for item in arrays_and_dtypes]
    if all(isinstance(item, np.dtype) and item == plain[0] for item in plain):
        return np.dtype(plain[0])
    return np.result_type(*plain)


@implements(np.full_like)
def full_like(array: ManifestArray, fill_value: Any, dtype: Any = None, **layout: Any) -> Any:
    """Return an array of the same shape whose chunks are all missing and read as `fill_value`; a mask for ``False``."""
    if layout.get("shape") is not None and tuple(layout["shape"]) != array.shape:
        raise UnsupportedFeatureError(
            "full_like with another shape has no chunks to follow; use the shape of the array"
        )
    if dtype is not None and np.dtype(dtype) == bool and not fill_value:
        return np.broadcast_to(np.False_, array.shape).view(NoMask)  # what xarray takes for isnull(array)
    _refuse_unpacked(array, fill_value)
    like = array if dtype is None else _empty_as(array, np.dtype(dtype))
    return like.with_fill_value_only(fill_value)


def _refuse_unpacked(array: ManifestArray, value: Any) -> None:
    """Refuse a fill value that would be unpacked when it is read, and so be another value than was asked for."""
    attributes = array._metadata.attributes
    packing = [name for name in PACKING if name in attributes]
    if not packing or same_value(value, np.nan) or same_value(value, attributes.get("_FillValue")):
        return
    raise CombineError(
        f"cannot fill with {value!r}: the stored values are packed ({', '.join(packing)}), and the fill value would be "
        "unpacked with them; fill with NaN, or open the values with .virtual.open() first",
        url=next(array._manifest.iter_nonempty_paths(), None),
    )


def _empty_as(array: ManifestArray, dtype: np.dtype[Any]) -> ManifestArray:
    metadata = array.metadata.replace(dtype=dtype, fill_value=None).transcoded()
    return ManifestArray._of((metadata, ChunkManifest.missing(metadata.grid.grid_shape)))


@implements(np.where)
def where(condition: Any, x: Any = None, y: Any = None, /) -> ManifestArray:
    """Replace whole chunks by one value: the way in which xarray fills what it reindexes.

    Raises
    ------
    ChunkIndexError
        If the condition changes within a chunk.
    VirtualArrayError
        If neither value is a scalar, or the condition itself consists of references.
    """
    if isinstance(condition, ManifestArray):
        raise VirtualArrayError("the condition of where must be values; read it first with .virtual.open()")
    if isinstance(x, ManifestArray) and isinstance(y, ManifestArray) and array_equal(x, y):
        return x
    if isinstance(condition, UnreadMask | UnreadPresence):
        raise VirtualArrayError(_UNREAD)
    keep = np.asarray(condition, dtype=bool)
    if isinstance(x, ManifestArray) and not isinstance(y, ManifestArray) and np.ndim(y) == 0:
        return _filled(x, keep, y)
    if isinstance(y, ManifestArray) and not isinstance(x, ManifestArray) and np.ndim(x) == 0:
        return _filled(y, ~keep, x)
    raise VirtualArrayError("where on references needs an array of references and one scalar to fill with")


def _filled(array: ManifestArray, keep: npt.NDArray[np.bool_], value: Any) -> ManifestArray:
    from virtualchunks.inline import with_fill_chunks

    shape = np.broadcast_shapes(keep.shape, array.shape)
    if shape != array.shape:
        array = broadcast_to(array, shape)
    dtype = np.result_type(
        array.dtype, np.asarray(value).dtype if isinstance(value, np.generic | np.ndarray) else array.dtype
    )
    array = array.astype(dtype)
    metadata, manifest = array._metadata, array._manifest
    dropped, filled = fill_where((metadata, manifest), keep)
    unknown = manifest.is_pending and bool((filled.records["source"] < -1).any())
    if unknown:
        return ReindexedArray._of((metadata, filled))
    if not dropped.any():
        return ManifestArray._of((metadata, filled))
    _refuse_unpacked(array, value)
    already_missing = (manifest.records["source"] == -1) & ~dropped
    scalar = np.asarray(value).astype(dtype)[()] if dtype.kind not in "OT" else np.asarray(value)[()]
    if not same_value(scalar, metadata.fill_value) and already_missing.any():
        if dtype.kind not in "biufc":
            raise CombineError(
                f"cannot fill with {scalar!r}: the array has missing chunks that read as {metadata.fill_value!r}, and "
                f"an array of references has one fill value; fill with that one: fill_value={metadata.fill_value!r}",
                url=next(manifest.iter_nonempty_paths(), None),
            )
        _, filled = fill_where(with_fill_chunks((metadata, manifest)), keep)
    return ManifestArray._of((metadata.replace(fill_value=scalar), filled))


def isnan(array: ManifestArray, **options: Any) -> UnreadMask:
    """Return a mask that is nowhere true and cannot be negated: which values are NaN is not known."""
    return np.broadcast_to(np.False_, array.shape).view(UnreadMask)


def equal(one: Any, other: Any, **options: Any) -> npt.NDArray[np.bool_]:
    """Compare element by element: true where both arrays point at the same bytes, decoded alike."""
    if not isinstance(one, ManifestArray) or not isinstance(other, ManifestArray):
        shape = np.broadcast_shapes(np.shape(one), np.shape(other))
        return np.broadcast_to(np.False_, shape)
    if one.shape != other.shape:
        raise ValueError(f"operands could not be broadcast together with shapes {one.shape} {other.shape}")
    if one.dtype != other.dtype or one.metadata.grid != other.metadata.grid:
        return np.broadcast_to(np.False_, one.shape)
    if one is other:
        return np.broadcast_to(np.True_, one.shape)
    same = _equal_chunks(one, other)
    if same.all():
        return np.broadcast_to(np.True_, one.shape)
    for axis, cells in enumerate(array_axis.cells for array_axis in one.metadata.grid.axes):
        same = np.repeat(same, cells, axis=axis)
    return same


def _equal_chunks(one: ManifestArray, other: ManifestArray) -> npt.NDArray[np.bool_]:
    """Compare chunk by chunk, with each array's own encoding made explicit."""
    explicit = [
        ChunkManifest._trusted(array.manifest.records, array.manifest.sources.with_encoding(array.metadata.encoding))
        for array in (one, other)
    ]
    same = explicit[0].elementwise_eq(explicit[1])
    if not same_value(one.metadata.fill_value, other.metadata.fill_value):
        same &= one.manifest.present & other.manifest.present
    return same


HANDLED_UFUNCS[np.isnan] = isnan
HANDLED_UFUNCS[np.isnat] = isnan
HANDLED_UFUNCS[np.equal] = equal
HANDLED_UFUNCS[np.not_equal] = lambda one, other, **options: ~equal(one, other)


@implements(np.array_equal)
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> bool:
    """Return whether two arrays have one shape and point at the same bytes, decoded alike."""
    if not isinstance(a1, ManifestArray) or not isinstance(a2, ManifestArray) or a1.shape != a2.shape:
        return False
    return bool(equal(a1, a2).all())


@implements(np.array_equiv)
def array_equiv(a1: Any, a2: Any) -> bool:
    """As :func:`array_equal`."""
    return array_equal(a1, a2)


@implements(np.shape)
def shape(array: ManifestArray) -> tuple[int, ...]:
    """Return the shape."""
    return array.shape


@implements(np.size)
def size(array: ManifestArray, axis: int | None = None) -> int:
    """Return the number of elements, in all or along an axis."""
    return array.size if axis is None else array.shape[axis]


@implements(np.ndim)
def ndim(array: ManifestArray) -> int:
    """Return the number of dimensions."""
    return array.ndim


@implements(np.copy)
def copy(array: ManifestArray, order: str = "K", subok: bool = False) -> ManifestArray:
    """Return the array: it never changes."""
    return array


def _axis_number(axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(int(axis), ndim)
    return int(axis) % ndim
