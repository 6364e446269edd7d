"""Array metadata: shape, dtype, chunk grid, encoding, fill value, names and attributes, and their Zarr v3 JSON.

:class:`ArrayMetadata` says the same as the ``zarr.json`` of a Zarr v3 array, without importing zarr: constructing one
costs microseconds. The names of data types and the forms of fill values follow the Zarr v3 specification and
zarr-python's extensions for strings, structured types and times.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np

from virtualchunks.encoding import ChunkEncoding, bytes_codec, in_order
from virtualchunks.errors import ManifestError, UnsupportedFeatureError
from virtualchunks.grid import ChunkGrid
from virtualchunks.packing import PACKING_ATTRIBUTES

#: Attributes that change what the stored values mean; arrays that differ in one cannot be one array.
MEANING = ("units", "calendar", *PACKING_ATTRIBUTES)
#: Those among them by which xarray computes values from stored numbers.
PACKING = ("scale_factor", "add_offset", "_Unsigned")

_SIMPLE_KINDS = "biufc"
#: Codecs of elements of any length, by kind of dtype: text, and bytes.
_VLEN = {"T": "vlen-utf8", "O": "vlen-bytes"}
_SIMPLE = {
    np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}
_SIMPLE_NAMES = frozenset(dtype.name for dtype in _SIMPLE)


@dataclass(frozen=True, eq=False)
class ArrayMetadata:
    """What an array is, apart from where its bytes are.

    Parameters
    ----------
    grid
        Its chunk grid, which gives its shape.
    dtype
        dtype of its values; kept in native byte order, since the stored order belongs to the encoding.
    encoding
        How the bytes of its chunks decode, apart from chunks whose source names another encoding.
    fill_value
        What missing chunks read as; ``None`` for the zero of the dtype.
    dimension_names
        One name, or ``None``, per dimension.
    attributes
        The attributes of the array, as its file has them.
    name
        What errors call the array, if anything. It is no part of the metadata: equality and documents leave it out.

    Raises
    ------
    ManifestError
        If the dimension names are too few or too many, or the fill value is not one of the dtype.

    Examples
    --------
    >>> metadata = ArrayMetadata.build(shape=(365, 720), chunks=(31, 360), dtype="<f4")
    >>> metadata.shape, metadata.dtype, metadata.chunks
    ((365, 720), dtype('float32'), (31, 360))
    """

    grid: ChunkGrid
    dtype: np.dtype[Any]
    encoding: ChunkEncoding
    fill_value: Any = None
    dimension_names: tuple[str | None, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None

    def __post_init__(self) -> None:
        if self.dtype.byteorder not in "=|" or self.dtype.fields is not None:
            object.__setattr__(self, "dtype", in_order(self.dtype, "="))
        if self.dimension_names is not None and len(self.dimension_names) != self.grid.ndim:
            raise ManifestError(
                f"{len(self.dimension_names)} dimension names {self.dimension_names} for {self.grid.ndim} dimensions"
            )
        object.__setattr__(self, "fill_value", fill_scalar(self.fill_value, self.dtype))

    @classmethod
    def build(
        cls,
        *,
        shape: Sequence[int],
        chunks: Sequence[int],
        dtype: Any,
        codecs: Sequence[Mapping[str, Any]] | None = None,
        fill_value: Any = None,
        dimension_names: Sequence[str | None] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> ArrayMetadata:
        """Return the metadata of an array with a regular chunk grid.

        Parameters
        ----------
        shape, chunks
            Shape of the array and of its chunks, in elements.
        dtype
            Stored dtype; its byte order is that of the stored bytes.
        codecs
            Zarr v3 codecs; by default the plain bytes of `dtype`.
        fill_value, dimension_names, attributes
            As for the class.
        """
        stored = np.dtype(dtype)
        return cls(
            ChunkGrid.regular(shape, chunks),
            stored,
            ChunkEncoding.plain(stored) if codecs is None else ChunkEncoding(stored, tuple(codecs)),
            fill_value,
            None if dimension_names is None else tuple(dimension_names),
            {} if attributes is None else attributes,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, in elements."""
        return self.grid.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.grid.ndim

    @property
    def chunks(self) -> tuple[int, ...]:
        """The chunk shape of a regular grid; see :attr:`grid` for rectilinear ones."""
        return self.grid.chunk_shape

    @property
    def codecs(self) -> tuple[Mapping[str, Any], ...]:
        """Zarr v3 codecs of the array's own encoding."""
        return self.encoding.codecs

    def replace(self, **changes: Any) -> ArrayMetadata:
        """Return the metadata with some fields exchanged."""
        return replace(self, **changes)

    def transcoded(self) -> ArrayMetadata:
        """Return the metadata of the array as plain little-endian bytes, as heterogeneous arrays are served."""
        plain = in_order(self.dtype, "<")
        codecs = ({"name": _VLEN[plain.kind]},) if plain.kind in _VLEN else (bytes_codec(plain),)
        return self.replace(encoding=ChunkEncoding(plain, codecs))

    def with_meaning(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return attributes with those of the array that they lack and that its stored values need to be understood.

        xarray drops attributes on the way, :func:`xarray.combine_nested` all of them by default. Packing and the
        units of times are not descriptions: values read without them are wrong.

        Parameters
        ----------
        attributes
            The attributes of a variable that holds the array; what they state is kept.

        Examples
        --------
        >>> metadata = ArrayMetadata.build(shape=(), chunks=(), dtype="<i2", attributes={"scale_factor": 0.5})
        >>> metadata.with_meaning({"units": "K"})
        {'units': 'K', 'scale_factor': 0.5}
        """
        lacking = {
            name: self.attributes[name]
            for name in MEANING
            if name in self.attributes
            and name not in attributes
            and (name != "units" or is_time(self.attributes[name]))
        }
        return {**attributes, **lacking}

    def to_dict(self) -> dict[str, Any]:
        """Return the Zarr v3 metadata document, as ``zarr.json`` holds it."""
        document: dict[str, Any] = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": dtype_to_json(self.dtype),
            "chunk_grid": self.grid.to_json(),
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": fill_to_json(self.fill_value, self.dtype),
            "codecs": [dict(codec) for codec in self.codecs],
            "attributes": dict(self.attributes),
        }
        if self.dimension_names is not None:
            document["dimension_names"] = list(self.dimension_names)
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ArrayMetadata:
        """Read a Zarr v3 metadata document.

        Raises
        ------
        ManifestError
            If it is not the document of a Zarr v3 array.
        UnsupportedFeatureError
            If it has a data type or a storage transformer that virtualchunks does not know.
        """
        if document.get("zarr_format") != 3 or document.get("node_type") != "array":
            raise ManifestError(
                "expected the metadata document of a Zarr v3 array, with zarr_format 3 and node_type 'array'"
            )
        if document.get("storage_transformers"):
            raise UnsupportedFeatureError(f"unknown storage transformers {document['storage_transformers']}")
        dtype = dtype_from_json(document["data_type"])
        codecs = tuple({"name": codec} if isinstance(codec, str) else dict(codec) for codec in document["codecs"])
        names = document.get("dimension_names")
        return cls(
            ChunkGrid.from_json(document["shape"], document["chunk_grid"]),
            dtype,
            ChunkEncoding(_stored_dtype(dtype, codecs), codecs),
            fill_from_json(document.get("fill_value"), dtype),
            None if names is None else tuple(names),
            document.get("attributes") or {},
        )

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, ArrayMetadata):
            return NotImplemented
        return (
            self.grid == other.grid
            and self.dtype == other.dtype
            and self.encoding == other.encoding
            and same_value(self.fill_value, other.fill_value)
            and self.dimension_names == other.dimension_names
            and same_value(dict(self.attributes), dict(other.attributes))
        )

    __hash__ = None  # type: ignore[assignment]  # attributes are mappings


def holds(target: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Return whether every value of `dtype` is a value of `target`.

    NumPy calls it safe to cast 64-bit integers to float64, which rounds those beyond 2**53; here it is not.

    Examples
    --------
    >>> holds(np.dtype("f8"), np.dtype("i4")), holds(np.dtype("f8"), np.dtype("i8"))
    (True, False)
    """
    if dtype.kind in "iu" and dtype.itemsize == 8 and target.kind in "fc":
        return False
    return np.can_cast(dtype, target, casting="safe")


def rounds(target: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Return whether `target` holds the values of `dtype` but for rounding: NumPy promotes 64-bit integers to floats.

    Examples
    --------
    >>> rounds(np.dtype("f8"), np.dtype("i8")), rounds(np.dtype("f4"), np.dtype("i8"))
    (True, False)
    """
    return not holds(target, dtype) and np.can_cast(dtype, target, casting="safe")


def same_value(one: Any, other: Any) -> bool:
    """Return whether two scalars, sequences or mappings of them are the same, NaN equal to NaN.

    Examples
    --------
    >>> same_value(float("nan"), np.float32("nan")), same_value(1, 2)
    (True, False)
    """
    if one is other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)
    try:
        return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=_has_nan(one) and _has_nan(other)))
    except (TypeError, ValueError):
        return bool(one == other)


def is_time(units: Any) -> bool:
    """Return whether units are those that CF counts times or durations in."""
    return units is not None and _is_time(str(units))


@lru_cache(maxsize=1024)
def _is_time(units: str) -> bool:
    words = units.lower().split()
    return (len(words) > 1 and words[1] == "since") or words[:1] in ([unit] for unit in _DURATIONS)


_DURATIONS = ("days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds")


def _has_nan(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "fcmM"


def fill_scalar(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return a fill value as a scalar of `dtype`; ``None`` becomes its zero.

    Raises
    ------
    ManifestError
        If the value is not one of the dtype.
    """
    if dtype.kind in "TO":
        empty: str | bytes = "" if dtype.kind == "T" else b""
        return empty if value is None or (isinstance(value, int | float) and value == 0) else value
    if value is None:
        return np.zeros((), dtype=dtype)[()]
    if isinstance(value, np.generic) and value.dtype == dtype:
        return value
    try:
        if dtype.kind == "V" and dtype.fields is None:
            return np.frombuffer(bytes(value).ljust(dtype.itemsize, b"\0"), dtype=dtype)[0]
        with np.errstate(all="ignore"):
            return (
                np.asarray(value).astype(dtype)[()]
                if isinstance(value, np.generic)
                else np.array(value, dtype=dtype)[()]
            )
    except (TypeError, ValueError, OverflowError) as error:
        raise ManifestError(f"the fill value {value!r} is not a value of the dtype {dtype}") from error


def _stored_dtype(dtype: np.dtype[Any], codecs: Sequence[Mapping[str, Any]]) -> np.dtype[Any]:
    for codec in codecs:
        if codec["name"] == "bytes":
            endian = codec.get("configuration", {}).get("endian", "little")
            return in_order(dtype, ">" if endian == "big" else "<")
    return dtype


def dtype_to_json(dtype: np.dtype[Any]) -> str | dict[str, Any]:
    """Return the Zarr v3 ``data_type`` of a dtype.

    Raises
    ------
    UnsupportedFeatureError
        If Zarr v3 has no name for it.
    """
    if dtype.kind in _SIMPLE_KINDS and dtype.newbyteorder("=") in _SIMPLE:
        return dtype.newbyteorder("=").name
    if dtype.kind == "T":
        return "string"
    if dtype.kind == "O":
        return "variable_length_bytes"
    if dtype.fields is not None and dtype.names is not None:
        fields = [{"name": name, "data_type": dtype_to_json(dtype.fields[name][0])} for name in dtype.names]
        return {"name": "struct", "configuration": {"fields": fields}}
    if dtype.kind in "mM":
        unit, factor = np.datetime_data(dtype)
        name = "numpy.datetime64" if dtype.kind == "M" else "numpy.timedelta64"
        return {"name": name, "configuration": {"unit": unit, "scale_factor": factor}}
    names = {"S": "null_terminated_bytes", "U": "fixed_length_utf32", "V": "raw_bytes"}
    if dtype.kind in names and dtype.subdtype is None:
        return {"name": names[dtype.kind], "configuration": {"length_bytes": dtype.itemsize}}
    raise UnsupportedFeatureError(f"Zarr has no data type for the dtype {dtype}")


def dtype_from_json(data_type: str | Mapping[str, Any]) -> np.dtype[Any]:
    """Return the native-order dtype that a Zarr v3 ``data_type`` names.

    Raises
    ------
    UnsupportedFeatureError
        If the name is unknown.
    """
    if isinstance(data_type, str):
        if data_type == "string":
            return cast("np.dtype[Any]", np.dtypes.StringDType())
        if data_type in ("variable_length_bytes", "bytes"):
            return np.dtype(object)
        if data_type.startswith("r") and data_type[1:].isdigit() and int(data_type[1:]) % 8 == 0:
            return np.dtype(f"V{int(data_type[1:]) // 8}")
        if data_type in _SIMPLE_NAMES:
            return np.dtype(data_type)
        raise UnsupportedFeatureError(f"unknown Zarr data type {data_type!r}")
    name, configuration = data_type["name"], data_type.get("configuration", {})
    if name in ("struct", "structured"):
        return np.dtype([_field_from_json(entry) for entry in configuration["fields"]])
    if name in ("numpy.datetime64", "numpy.timedelta64"):
        code = "M8" if name == "numpy.datetime64" else "m8"
        unit, factor = configuration["unit"], configuration["scale_factor"]
        return np.dtype(code if unit == "generic" else f"{code}[{factor}{unit}]")
    length = configuration.get("length_bytes")
    codes = {"null_terminated_bytes": "S", "raw_bytes": "V", "fixed_length_utf32": "U"}
    if name not in codes:
        raise UnsupportedFeatureError(f"unknown Zarr data type {name!r}; known are {sorted(codes)}, struct and times")
    return np.dtype(f"{codes[name]}{length // 4 if name == 'fixed_length_utf32' else length}")


def _field_from_json(entry: Any) -> tuple[str, np.dtype[Any]]:
    if isinstance(entry, Mapping):
        return entry["name"], dtype_from_json(entry["data_type"])
    return entry[0], dtype_from_json(entry[1])


def fill_to_json(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return the JSON form of a fill value, as the Zarr v3 specification and its extensions write it.

    Examples
    --------
    >>> fill_to_json(np.float32("nan"), np.dtype("f4")), fill_to_json(np.bytes_(b"ab"), np.dtype("S5"))
    ('NaN', 'YWI=')
    """
    match dtype.kind:
        case "b":
            return bool(value)
        case "i" | "u":
            return int(value)
        case "f":
            return _float_to_json(float(value))
        case "c":
            return [_float_to_json(float(value.real)), _float_to_json(float(value.imag))]
        case "m" | "M":
            return int(value.astype("i8"))
        case "U" | "T":
            return str(value)
        case "V" if dtype.fields is not None and dtype.names is not None:
            return {name: fill_to_json(value[name], dtype.fields[name][0]) for name in dtype.names}
    return base64.b64encode(bytes(value)).decode("ascii")


def fill_from_json(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return the scalar of `dtype` that the JSON form of a fill value means; ``None`` for ``null``.

    Raises
    ------
    ManifestError
        If it means none.
    """
    if value is None:
        return None
    try:
        return _fill_from_json(value, dtype)
    except (TypeError, ValueError, KeyError) as error:
        raise ManifestError(f"{value!r} is not the fill value of an array of dtype {dtype}") from error


def _fill_from_json(value: Any, dtype: np.dtype[Any]) -> Any:
    match dtype.kind:
        case "f":
            return _float_from_json(value, dtype)
        case "c":
            part = np.dtype(f"f{dtype.itemsize // 2}")
            return np.array(complex(_float_from_json(value[0], part), _float_from_json(value[1], part)), dtype=dtype)[
                ()
            ]
        case "m" | "M":
            return (
                np.array(value, dtype="i8").view(dtype)[()]
                if isinstance(value, int)
                else np.array(value, dtype=dtype)[()]
            )
        case "T" | "U":
            return value
        case "V" if dtype.fields is not None and dtype.names is not None:
            if isinstance(value, str):
                return np.frombuffer(base64.b64decode(value), dtype=dtype)[0]
            fields = dtype.fields
            return np.array(tuple(fill_from_json(value[name], fields[name][0]) for name in dtype.names), dtype=dtype)[
                ()
            ]
        case "S" | "V" | "O":
            raw = bytes(value) if isinstance(value, list) else base64.b64decode(value)
            return raw if dtype.kind == "O" else fill_scalar(raw, dtype)
    return np.array(value, dtype=dtype)[()]


def _float_to_json(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _float_from_json(value: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(value, str) and value.startswith("0x"):
        return np.frombuffer(bytes.fromhex(value[2:]), dtype=dtype.newbyteorder(">"))[0].astype(dtype)
    return np.array(float(value), dtype=dtype)[()]
