"""CF packing: how stored numbers become values, masked, scaled and shifted.

:class:`Packing` does to a block of stored numbers what :func:`xarray.open_dataset` does with ``mask_and_scale=True``:
the same operations in the same order and in the same dtypes, so that the values are equal bit for bit. The rules are
those of the netCDF Users Guide and of the CF conventions, section 8.1, as ``xarray.coding.variables`` reads them.

What xarray refuses to unpack, or what it does not take for numbers, has no :class:`Packing`: its attributes stay with
the array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from virtualchunks.errors import ManifestError

#: The attributes by which values are packed.
PACKING_ATTRIBUTES = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned")

_NAMES = frozenset(PACKING_ATTRIBUTES)
_NUMBERS = "iuf"
#: What NumPy raises where a fill value is none of the dtype.
_UNFIT = (TypeError, ValueError, OverflowError, FloatingPointError)


@dataclass(frozen=True)
class _Steps:
    """What is done to stored numbers, one after the other; ``None`` and ``()`` for what is not done.

    Attributes
    ----------
    signed
        The dtype of the same size, of the other signedness.
    fills
        The numbers that become NaN.
    masked
        The dtype in which they do.
    scale, offset
        What is multiplied with, and then added.
    scaled
        The dtype in which that is done.
    dtype
        The dtype of the values.
    """

    signed: np.dtype[Any] | None
    fills: tuple[Any, ...]
    masked: np.dtype[Any] | None
    scale: Any
    offset: Any
    scaled: np.dtype[Any] | None
    dtype: np.dtype[Any]

    @property
    def key(self) -> str:
        """Equal for steps that give equal values; empty where nothing is done."""
        if self.signed is self.masked is self.scaled is None:
            return ""
        fills = sorted(map(_spelled, self.fills))
        return repr((self.signed, fills, self.masked, _spelled(self.scale), _spelled(self.offset), self.scaled))


def _spelled(number: Any) -> str:
    """Return a number with all of its bits, and with its type: NumPy computes otherwise with Python's numbers."""
    return f"{type(number).__name__} {number!r} {number.tobytes().hex() if isinstance(number, np.generic) else ''}"


@dataclass(frozen=True, eq=False)
class Packing:
    """How the numbers that a file stores become the values of an array.

    Parameters
    ----------
    stored
        dtype of the stored numbers, in native byte order.
    attributes
        Those of :data:`PACKING_ATTRIBUTES` that the file has, as it has them.
    fill_value
        What missing chunks read as, in stored numbers, so that it can be put back. It is no part of equality.

    Raises
    ------
    ManifestError
        If the attributes do not say how numbers of that dtype are packed.

    Notes
    -----
    Two packings are equal if they give equal values. ``Packing.of`` makes one.

    Examples
    --------
    >>> packing = Packing.of({"scale_factor": np.float32(0.5), "_FillValue": np.int16(-9)}, np.dtype("i2"))
    >>> packing.dtype, packing.lift(np.array([-9, 3], "i2"))
    (dtype('float32'), array([nan, 1.5], dtype=float32))
    """

    stored: np.dtype[Any]
    attributes: Mapping[str, Any]
    fill_value: Any = None
    _steps: _Steps = field(init=False, repr=False)

    def __post_init__(self) -> None:
        steps = _steps(self.stored, self.attributes) if self.stored.kind in _NUMBERS else None
        if steps is None:
            raise ManifestError(
                f"the attributes {dict(self.attributes)} do not say how numbers of {self.stored} are packed"
            )
        object.__setattr__(self, "_steps", steps)

    @classmethod
    def of(cls, attributes: Mapping[str, Any], dtype: np.dtype[Any], fill_value: Any = None) -> Packing | None:
        """Return the packing that the attributes of a variable state; ``None`` where they state none.

        Parameters
        ----------
        attributes
            All attributes of the variable.
        dtype
            dtype of its stored numbers, in native byte order.
        fill_value
            What missing chunks read as, in stored numbers.
        """
        if _NAMES.isdisjoint(attributes) or dtype.kind not in _NUMBERS:
            return None
        own = {name: attributes[name] for name in PACKING_ATTRIBUTES if name in attributes}
        try:
            return cls(dtype, own, fill_value)
        except ManifestError:
            return None

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the values."""
        return self._steps.dtype

    @cached_property
    def key(self) -> str:
        """Equal for packings that give equal values; empty where values are the stored numbers."""
        return self._steps.key and f"{self.stored.str} {self._steps.key}"

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Packing) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stored, dict(self.attributes), self.fill_value)

    def lift(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values of stored numbers.

        Parameters
        ----------
        block
            Stored numbers, of the dtype :attr:`stored`.
        """
        steps, data = self._steps, np.asarray(block)  # a scalar would not keep its dtype below
        with np.errstate(all="ignore"):
            if steps.signed is not None:
                data = np.asarray(data, dtype=steps.signed)
            if steps.masked is not None:
                data = _masked(data, steps.fills, steps.masked)
            if steps.scaled is not None:
                data = data.astype(steps.scaled, copy=steps.masked is None)  # what is masked is a copy already
                if steps.scale is not None:
                    data *= steps.scale
                if steps.offset is not None:
                    data += steps.offset
        return data

    def lifted_scalar(self, number: Any) -> Any:
        """Return the value of one stored number."""
        return self.lift(np.asarray(number, dtype=self.stored))[()]

    def pack(self, values: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """Return stored numbers that lift to `values`, bit for bit; ``None`` where some value has no such number.

        Parameters
        ----------
        values
            Of the dtype :attr:`dtype`. One NaN is as good as another.

        Examples
        --------
        >>> packing = Packing.of({"scale_factor": 0.5, "_FillValue": np.int16(-9)}, np.dtype("i2"))
        >>> packing.pack(np.array([np.nan, 1.5])), packing.pack(np.array([1.25]))
        (array([-9,  3], dtype=int16), None)
        """
        steps, wanted = self._steps, np.asarray(values)
        target = self.stored if steps.signed is None else steps.signed
        absent = wanted != wanted
        with np.errstate(all="ignore"):
            numbers = wanted
            if steps.offset is not None:
                numbers = numbers - np.float64(steps.offset)
            if steps.scale is not None:
                numbers = numbers / np.float64(steps.scale)
            if target.kind in "iu" and numbers.dtype.kind == "f":
                bounds = np.iinfo(target)
                numbers = np.clip(np.rint(np.where(absent, 0, numbers)), float(bounds.min), float(bounds.max))
            stored = numbers.astype(target).view(self.stored)
        if absent.any():
            fill = self.stored_fill(np.nan)
            stored = stored if fill is None else np.where(absent, fill, stored)
        return stored if _same_bits(self.lift(stored), wanted) else None

    def stored_fill(self, value: Any) -> Any:
        """Return a stored number whose value is `value`: what missing chunks had, or a number for no value.

        Returns
        -------
        Any
            A scalar of the dtype :attr:`stored`, or ``None`` if neither has that value.
        """
        candidates = [self.fill_value, *(self.attributes.get(name) for name in ("_FillValue", "missing_value"))]
        for candidate in candidates:
            for number in [] if candidate is None else np.ravel(candidate):
                with np.errstate(all="ignore"):
                    stored = number.astype(self.stored)
                found = self.lifted_scalar(stored)
                if found == value or (found != found and value != value):  # NaN is unlike itself
                    return stored
        return None


def _same_bits(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> bool:
    """Return whether two arrays hold the same numbers: zeros by their sign, but any NaN for any other."""
    if found.dtype != wanted.dtype:
        return False
    alike = (
        (found == wanted) & (np.signbit(found) == np.signbit(wanted)) if found.dtype.kind == "f" else found == wanted
    )
    return bool((alike | ((found != found) & (wanted != wanted))).all())


def _masked(data: npt.NDArray[Any], fills: tuple[Any, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    values = np.array(data, dtype=dtype, copy=True)
    missing: Any = False
    for fill in fills:
        missing |= values == fill
    np.copyto(values, np.nan, where=missing)
    return values


def _steps(stored: np.dtype[Any], attributes: Mapping[str, Any]) -> _Steps | None:
    """Return what xarray does to numbers of a dtype, ``None`` where that is not arithmetic on single numbers."""
    numbers = [attributes[name] for name in ("scale_factor", "add_offset") if name in attributes]
    fills = [np.ravel(attributes[name]) for name in ("missing_value", "_FillValue") if name in attributes]
    if not all(isinstance(number, int | float | np.integer | np.floating) for number in numbers):
        return None
    if any(isinstance(number, bool) for number in numbers) or any(fill.dtype.kind not in _NUMBERS for fill in fills):
        return None
    frozen = tuple((name, _hashable(value)) for name, value in attributes.items())
    try:
        with np.errstate(all="raise"):
            return _planned(stored, frozen)
    except _UNFIT:
        return None


def _hashable(value: Any) -> tuple[Any, ...]:
    """Return a value as one that dictionaries tell apart from those that merely compare equal."""
    plain = np.asarray(value)
    return type(value), value if isinstance(value, str) else None, plain.dtype.str, plain.shape, plain.tobytes()


def _restored(frozen: tuple[Any, ...]) -> Any:
    kind, text, dtype, shape, data = frozen
    if text is not None:
        return text
    value = np.frombuffer(data, dtype=dtype).reshape(shape)
    if shape:
        return value
    return kind(value[()]) if kind in (int, float) else value[()]


@lru_cache(maxsize=1024)
def _planned(stored: np.dtype[Any], frozen: tuple[Any, ...]) -> _Steps | None:
    attributes = {name: _restored(value) for name, value in frozen}
    fills, kept = _fills(stored, attributes)
    signed = _signed(stored, attributes.get("_Unsigned"))
    if signed is not None and attributes.get("_FillValue") is not None:
        fills = _resigned(fills, attributes["_FillValue"], stored, signed)
    dtype = stored if signed is None else signed
    scale, offset = attributes.get("scale_factor"), attributes.get("add_offset")
    packed = scale is not None or offset is not None
    masked = None
    if fills:
        masked = dtype = _float_dtype(dtype, scale, offset) if packed else _with_nan(dtype)
        if masked.kind != "f":
            return None
    scaled = None
    if packed:
        scaled = dtype = dtype if kept else _float_dtype(dtype, scale, offset)
    return _Steps(signed, tuple(fills), masked, scale, offset, scaled, dtype)


def _fills(stored: np.dtype[Any], attributes: Mapping[str, Any]) -> tuple[list[Any], bool]:
    """Return the numbers that mean no value, and whether an attribute states some, NaN included."""
    fills: list[Any] = []
    kept = False
    for name in ("missing_value", "_FillValue"):
        if name in attributes:
            found = [fill for fill in np.ravel(attributes[name]) if fill == fill]
            kept |= bool(found) or stored.kind not in "iu"
            fills += [fill for fill in found if not any(fill == known for known in fills)]
    return fills, kept


def _signed(stored: np.dtype[Any], unsigned: Any) -> np.dtype[Any] | None:
    if stored.kind == "i" and unsigned == "true":
        return np.dtype(f"u{stored.itemsize}")
    if stored.kind == "u" and unsigned == "false":
        return np.dtype(f"i{stored.itemsize}")
    return None


def _resigned(fills: list[Any], fill: Any, stored: np.dtype[Any], signed: np.dtype[Any]) -> list[Any]:
    """Return the fill values with ``_FillValue`` as the number that has its bits."""
    if np.ndim(fill) or fill != fill:
        raise ValueError("_FillValue is not one number")
    rest = [number for number in fills if number != fill]
    own = np.array(fill, dtype=stored).view(signed).item() if stored.kind == "i" else signed.type(fill)
    return [*rest, own]


def _with_nan(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that holds NaN beside the numbers of another."""
    if dtype.kind == "f":
        return dtype
    return np.dtype("f4") if dtype.itemsize <= 2 else np.dtype("f8")


def _float_dtype(dtype: np.dtype[Any], scale: Any, offset: Any) -> np.dtype[Any]:
    """Return the dtype in which packed numbers are scaled."""
    if offset is None:
        return np.dtype(type(scale))
    kinds = {np.dtype(type(number)) for number in (scale, offset) if number is not None}
    if scale is not None and len(kinds) == 1 and kinds <= {np.dtype("f4"), np.dtype("f8")}:
        return np.dtype("f8") if dtype.itemsize == 4 and dtype.kind in "iu" else kinds.pop()
    return np.dtype("f8")
