"""ManifestArray: an n-dimensional array of chunk references that xarray takes for an array.

The class holds metadata and a manifest and answers questions about shape; NumPy's functions on it are in
:mod:`virtualchunks.functions`, which register themselves in :data:`HANDLED`. It computes nothing and reads nothing.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
import numpy.typing as npt

from virtualchunks.encoding import in_order
from virtualchunks.errors import (
    ChunkIndexError,
    ManifestError,
    RoundingWarning,
    UnsupportedFeatureError,
    VirtualArrayError,
    VirtualChunksError,
)
from virtualchunks.indexing import encodings_in_use, subchunk, transpose
from virtualchunks.keys import select
from virtualchunks.lifting import as_stored, lifted
from virtualchunks.manifest import ChunkManifest
from virtualchunks.metadata import ArrayMetadata, holds, rounds

if TYPE_CHECKING:
    import xarray

#: Implementations of NumPy's functions on ManifestArrays, by function.
HANDLED: dict[Callable[..., Any], Callable[..., Any]] = {}
#: Implementations of NumPy's ufuncs on ManifestArrays, by ufunc.
HANDLED_UFUNCS: dict[np.ufunc, Callable[..., Any]] = {}


class ManifestArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array whose chunks are references to bytes elsewhere.

    Parameters
    ----------
    metadata
        What the array is: an :class:`~virtualchunks.metadata.ArrayMetadata`, zarr's ``ArrayV3Metadata``, or the
        metadata document of a Zarr v3 array as a dictionary.
    chunkmanifest
        Where its bytes are: a :class:`~virtualchunks.manifest.ChunkManifest`, or a dictionary of chunk keys to entries.

    Raises
    ------
    ManifestError
        If the manifest has another number of chunks than the metadata's chunk grid.

    Examples
    --------
    >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="<i4")
    >>> entries = {"0": {"path": "s3://bucket/a.nc", "offset": 0, "length": 8}}
    >>> array = ManifestArray(metadata, ChunkManifest(entries, shape=(2,)))
    >>> array
    ManifestArray<shape=(4,), dtype=int32, chunks=(2,)>
    >>> array[2:].shape
    (2,)
    """

    __slots__ = ("_manifest", "_metadata")

    __array_priority__ = 100.0
    __hash__ = None  # type: ignore[assignment]  # == compares element by element, as on any array

    def __init__(
        self,
        metadata: ArrayMetadata | Mapping[str, Any] | Any,
        chunkmanifest: ChunkManifest | Mapping[str, Mapping[str, Any]],
    ) -> None:
        checked = _as_metadata(metadata)
        manifest = (
            chunkmanifest
            if isinstance(chunkmanifest, ChunkManifest)
            else ChunkManifest(chunkmanifest, shape=checked.grid.grid_shape)
        )
        if checked.grid.grid_shape != manifest.shape_chunk_grid:
            raise ManifestError(
                f"the manifest has a chunk grid of shape {manifest.shape_chunk_grid}, but an array of shape "
                f"{checked.shape} with this chunk grid needs {checked.grid.grid_shape}",
                url=manifest.origin,
            )
        self._metadata = checked
        self._manifest = manifest

    @classmethod
    def _of(cls, parts: tuple[ArrayMetadata, ChunkManifest]) -> ManifestArray:
        self = object.__new__(cls)
        self._metadata, self._manifest = parts
        return self

    @property
    def metadata(self) -> ArrayMetadata:
        """What the array is, apart from where its bytes are."""
        return self._metadata

    @property
    def manifest(self) -> ChunkManifest:
        """Where the bytes of its chunks are."""
        return self._manifest

    @property
    def _parts(self) -> tuple[ArrayMetadata, ChunkManifest]:
        return self.metadata, self.manifest

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, in elements."""
        return self._metadata.grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the values, in native byte order."""
        return self._metadata.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self._metadata.grid.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the values would take in memory; :attr:`nbytes_virtual` is what the references take."""
        return self.size * self.dtype.itemsize

    @property
    def nbytes_virtual(self) -> int:
        """Bytes that the references take in memory."""
        return self._manifest.nbytes

    @property
    def T(self) -> ManifestArray:  # noqa: N802 - NumPy's name
        """The array with its axes reversed."""
        return self.transpose()

    @property
    def is_heterogeneous(self) -> bool:
        """Whether some chunks decode unlike others, or to another dtype, so that stores must transcode them.

        Chunks that are all packed alike decode alike: stores serve them packed, with the packing among the attributes.
        """
        metadata, manifest = as_stored(self._parts)
        own, grid = metadata.encoding, metadata.grid
        if in_order(own.dtype, "=") != metadata.dtype or own.lift_key or own.start is not None:
            return True
        if own.shape is not None and not (grid.is_regular and own.shape == grid.chunk_shape):
            return True
        return manifest.names_encodings and any(encoding != own for encoding in encodings_in_use((metadata, manifest)))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without dimensions")
        return self.shape[0]

    def __iter__(self) -> Iterator[ManifestArray]:
        if not self.shape:
            raise TypeError("iteration over an array without dimensions")
        return (self[index] for index in range(self.shape[0]))

    def __getitem__(self, key: Any) -> ManifestArray:
        """Return a selection of whole chunks, or any along the slowest axis of uncompressed bytes.

        Raises
        ------
        ChunkIndexError
            If the selection cuts through a chunk; the message names the nearest selection that does not.
        """
        try:
            parts, pending = select(self._parts, key)
        except VirtualChunksError as error:
            raise self._placed(error) from error.__cause__
        return (ReindexedArray if pending else ManifestArray)._of(parts)

    def transpose(self, *axes: Any) -> ManifestArray:
        """Return the array with its axes permuted, as :meth:`numpy.ndarray.transpose` does."""
        given = axes[0] if len(axes) == 1 and not isinstance(axes[0], int | np.integer) else axes
        order = list(reversed(range(self.ndim))) if not given else [int(axis) for axis in given]
        positive = [axis + self.ndim if axis < 0 else axis for axis in order]
        if sorted(positive) != list(range(self.ndim)):
            raise np.exceptions.AxisError(f"axes {tuple(order)} are not a permutation of the {self.ndim} axes")
        return ManifestArray._of(transpose(self._parts, positive))

    def astype(self, dtype: npt.DTypeLike, /, *, copy: bool = True) -> ManifestArray:
        """Return the array with another dtype, where every value converts without loss, or as NumPy promotes it.

        Parameters
        ----------
        dtype
            The new dtype. Stores convert chunk by chunk when they are read.
        copy
            Ignored: references are never copied.

        Raises
        ------
        UnsupportedFeatureError
            If the conversion could change values.

        Warns
        -----
        RoundingWarning
            If integers of 64 bits become floats, as they do beside floats in NumPy and xarray.
        """
        target = in_order(np.dtype(dtype), "=")
        if target == self.dtype:
            return self
        if rounds(target, self.dtype):
            warnings.warn(
                f"{self._metadata.name or 'an array'!r} of {self._manifest.origin or 'memory'} holds {self.dtype}, "
                f"which becomes {target}, as NumPy and xarray promote it: numbers beyond 2**53 are rounded",
                RoundingWarning,
                stacklevel=2,
            )
        elif not holds(target, self.dtype) or target.kind in "OT":
            raise self._placed(
                UnsupportedFeatureError(
                    f"references to {self.dtype} values cannot become {target} without a chance of loss; read the "
                    "values with .virtual.open() and convert those, or name the variable in loadable_variables"
                )
            )
        fill = np.asarray(self._metadata.fill_value).astype(target)[()]
        return type(self)._of((self._metadata.replace(dtype=target, fill_value=fill), self._manifest))

    def lifted(self) -> ManifestArray:
        """Return the array of the values that the packing among its attributes stands for.

        ``scale_factor``, ``add_offset``, ``_FillValue``, ``missing_value`` and ``_Unsigned`` leave the attributes for
        the encoding, and the dtype is that of the values, as with ``mask_and_scale=True`` in
        :func:`xarray.open_dataset`. No bytes are read: chunks are lifted when they are. An array without packing is
        returned as it is, and so is one of times: what its numbers are is xarray's to say.

        Examples
        --------
        >>> packed = {"scale_factor": 0.5, "_FillValue": -9, "units": "K"}
        >>> metadata = ArrayMetadata.build(shape=(4,), chunks=(2,), dtype="<i2", attributes=packed)
        >>> array = ManifestArray(metadata, {}).lifted()
        >>> array.dtype, array.metadata.attributes
        (dtype('float64'), {'units': 'K'})
        """
        parts = lifted(self._parts)
        return self if parts[0] is self._metadata else ManifestArray._of(parts)

    def as_stored(self) -> ManifestArray:
        """Return the array of stored numbers, with the packing among its attributes: what :meth:`lifted` undoes.

        An array whose chunks are packed in several ways, or some of them not at all, is returned as it is: no one set
        of attributes gives its values.
        """
        parts = as_stored(self._parts)
        return self if parts[0] is self._metadata else ManifestArray._of(parts)

    def subchunk(self, sizes: Mapping[int | str, int]) -> ManifestArray:
        """Return the same array cut into smaller chunks, by arithmetic on uncompressed bytes.

        Parameters
        ----------
        sizes
            New chunk length by axis number or dimension name.

        Raises
        ------
        ChunkIndexError
            If bytes cannot be cut there.

        Examples
        --------
        >>> metadata = ArrayMetadata.build(shape=(4, 3), chunks=(4, 3), dtype="<f8")
        >>> whole = ManifestArray(metadata, {"0.0": {"path": "s3://bucket/a.nc", "offset": 100, "length": 96}})
        >>> whole.subchunk({0: 1}).manifest["2.0"]["offset"]
        148
        """
        return ManifestArray._of(subchunk(self._parts, {self._axis(axis): size for axis, size in sizes.items()}))

    def _axis(self, axis: int | str) -> int:
        if isinstance(axis, str):
            names = self._metadata.dimension_names or ()
            if axis not in names:
                raise ChunkIndexError(f"no dimension {axis!r}; the dimensions are {names}")
            return names.index(axis)
        if not -self.ndim <= axis < self.ndim:
            raise np.exceptions.AxisError(axis, self.ndim)
        return axis % self.ndim

    def rename_paths(self, new: str | Callable[[str], str], *, keep_stamps: bool = False) -> ManifestArray:
        """Return the array with the URLs of its objects changed; see :meth:`ChunkManifest.rename_paths`."""
        return ManifestArray._of((self._metadata, self.manifest.rename_paths(new, keep_stamps=keep_stamps)))

    def to_virtual_variable(self) -> xarray.Variable:
        """Return the array as an xarray Variable, with its dimension names and attributes."""
        made: xarray.Variable = importlib.import_module("virtualchunks.xarray.dataset").array_to_variable(self)
        return made

    def with_fill_value_only(self, fill_value: Any = None) -> ManifestArray:
        """Return an array of the same shape whose chunks are all missing.

        Parameters
        ----------
        fill_value
            What it reads as; by default the array's own fill value.
        """
        fill = self._metadata.fill_value if fill_value is None else fill_value
        return ManifestArray._of(
            (self._metadata.replace(fill_value=fill), ChunkManifest.missing(self._metadata.grid.grid_shape))
        )

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if func not in HANDLED:
            known = ", ".join(sorted(function.__name__ for function in HANDLED))
            raise self._placed(
                VirtualArrayError(
                    f"numpy.{func.__name__} needs values, and a ManifestArray holds references only; read them first "
                    f"with .virtual.open(). Functions on references: {known}"
                )
            )
        try:
            return HANDLED[func](*args, **kwargs)
        except VirtualChunksError as error:
            raise self._placed(error) from error.__cause__

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and ufunc in HANDLED_UFUNCS:
            return HANDLED_UFUNCS[ufunc](*inputs, **kwargs)
        raise self._placed(
            VirtualArrayError(
                f"numpy.{ufunc.__name__} computes with values, and a ManifestArray holds references only; read them "
                "first with .virtual.open()"
            )
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        """Refuse: an array of references has no values until a store reads them."""
        raise self._placed(
            VirtualArrayError(
                "a ManifestArray holds references, not values: read them with .virtual.open() (or name the variable in "
                "loadable_variables), or write references with .virtual.to_icechunk() or .virtual.to_kerchunk()"
            )
        )

    def _placed(self, error: VirtualChunksError) -> VirtualChunksError:
        """Return an error that names the array and a source of it, where it named none yet."""
        if error.variable is None:
            error.variable = self._metadata.name
        if error.url is None:
            error.url = self._manifest.origin
        return error

    def __eq__(self, other: object) -> Any:
        return np.equal(cast("Any", self), cast("Any", other))

    def __ne__(self, other: object) -> Any:
        return ~np.equal(cast("Any", self), cast("Any", other))

    def __bool__(self) -> NoReturn:
        raise VirtualArrayError(
            "the truth of an array of references is not known; read its values with .virtual.open()"
        )

    def __copy__(self) -> ManifestArray:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ManifestArray:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}<shape={self.shape}, dtype={self.dtype}, chunks={self._chunks_text()}>"

    def _chunks_text(self) -> str:
        axes = [_axis_text(axis) for axis in self._metadata.grid.axes]
        return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"

    def _repr_inline_(self, max_width: int) -> str:
        """Return the one line that xarray shows beside a variable."""
        texts = [f"ManifestArray<chunks={self._chunks_text()}>", f"ManifestArray<{self._metadata.grid.size} chunks>"]
        return next((text for text in texts if len(text) <= max_width), "ManifestArray<...>")

    def _repr_html_(self) -> str:
        """Return what notebooks show: a table of facts and a sketch of the chunk grid."""
        from virtualchunks.html import array_html

        return array_html(self)


class ReindexedArray(ManifestArray):
    """A selection with -1 among its indices, waiting for ``np.where`` to fill the places that -1 stands for.

    xarray reindexes in two steps: it indexes with -1 for labels that are not there, then fills those places through
    :func:`numpy.where`. Between the two, those places stand for the last element, which need not be a whole chunk.
    Nothing but ``np.where`` can be done with such an array, so that a negative index never turns into missing data
    unseen.
    """

    __slots__ = ()

    @property
    def manifest(self) -> ChunkManifest:
        """Refused: some chunks are not known yet.

        Raises
        ------
        ChunkIndexError
            Always.
        """
        raise ChunkIndexError(
            "an index array with -1 stands for the last element, part of a chunk that cannot be cut here; give "
            "positive indices of whole chunks, or let numpy.where fill these places, as xarray's reindex does"
        )


def _axis_text(axis: Any) -> str:
    if axis.chunk is not None:
        return str(axis.chunk)
    edges = axis.edges
    if len(edges) <= 4:
        return "(" + ", ".join(map(str, edges)) + ")"
    return f"({edges[0]}, {edges[1]}, …, {edges[-1]})"


def _as_metadata(metadata: Any) -> ArrayMetadata:
    if isinstance(metadata, ArrayMetadata):
        return metadata
    if isinstance(metadata, Mapping):
        return ArrayMetadata.from_dict(metadata)
    if hasattr(metadata, "to_dict"):
        return ArrayMetadata.from_dict(metadata.to_dict())
    raise ManifestError(
        "expected ArrayMetadata, zarr's ArrayV3Metadata, or a Zarr v3 metadata document; found "
        f"{type(metadata).__name__}"
    )
