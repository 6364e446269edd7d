"""What a table of references says beside its rows: the Zarr metadata of every array and group, as one JSON document.

The document goes where the form that holds the table keeps metadata. It is a tree, as the groups are::

    {"version": 1,
     "encodings": [{"dtype": …, "codecs": […], "shape": …, "start": […], "packing": {…}}, …],
     "root": {"attributes": {…},
              "arrays": {name: {"zarr": {…}, "attributes": {…}, "encoding": {…}}},
              "groups": {name: {…}},
              "unlimited_dims": [name, …]}}

``zarr`` is the array's ``zarr.json`` without its attributes. Attributes are JSON where JSON says the same; what it
cannot say (NumPy's scalars and arrays, bytes, numbers that are not finite) is an object with the one key ``$numpy``,
``$bytes``, ``$complex`` or ``$mapping``. An encoding has ``start`` and ``packing`` only where it needs them. The
encoding with number *k* in the table is item *k - 1* of ``encodings``.
``unlimited_dims`` is left out of groups that know no such dimensions.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from virtualchunks.encoding import ChunkEncoding, byte_order, in_order
from virtualchunks.errors import FormatError, ManifestError, UnsupportedFeatureError, VirtualChunksError
from virtualchunks.grid import ChunkGrid
from virtualchunks.group import ManifestGroup
from virtualchunks.metadata import ArrayMetadata, dtype_from_json, dtype_to_json, fill_scalar
from virtualchunks.packing import PACKING_ATTRIBUTES, Packing

#: Where a table keeps its document: the key in the metadata of an Arrow schema.
KEY = "virtualchunks"
VERSION = 1
_ORDERS: Mapping[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
#: What may go wrong with a document of the right outer form that somebody else wrote.
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)


@dataclass(frozen=True)
class Node:
    """A group, without its chunks.

    Parameters
    ----------
    arrays
        What its arrays are, by name.
    groups
        The groups in it, by name.
    attributes
        Its attributes.
    unlimited_dims
        Its dimensions that may grow; ``None`` where there is no such thing.
    """

    arrays: Mapping[str, ArrayMetadata]
    groups: Mapping[str, Node]
    attributes: Mapping[str, Any]
    unlimited_dims: Collection[str] | None = None

    def walk_arrays(self, path: str = "") -> Iterator[tuple[str, ArrayMetadata]]:
        """Iterate over all arrays, with their paths."""
        for name, metadata in self.arrays.items():
            yield path + name, metadata
        for name, node in self.groups.items():
            yield from node.walk_arrays(f"{path}{name}/")


@dataclass(frozen=True)
class Template:
    """What a table is about: a tree of arrays without their chunks, and the encodings that rows name by number.

    Parameters
    ----------
    root
        The tree.
    encodings
        Encodings beside the arrays' own, number 1 first.
    """

    root: Node
    encodings: tuple[ChunkEncoding, ...]

    @classmethod
    def of(cls, group: ManifestGroup) -> Template:
        """Return the template of a tree; the same tree has the same numbers for its encodings."""
        distinct: dict[str, ChunkEncoding] = {}
        for path, array in group.walk_arrays():
            for encoding in array.manifest.sources.encodings:
                distinct.setdefault(encoding_key(encoding, path), encoding)
        return cls(_node_of(group), tuple(distinct.values()))

    def numbers(self) -> dict[str, int]:
        """Return the number of each encoding, by its :func:`encoding_key`."""
        return {encoding_key(encoding, ""): number for number, encoding in enumerate(self.encodings, 1)}

    def to_json(self) -> str:
        """Return the document.

        Raises
        ------
        UnsupportedFeatureError
            If something has no form in it; the message names the array.
        """
        encodings = [_encoding_to_json(encoding) for encoding in self.encodings]
        return json.dumps({"version": VERSION, "encodings": encodings, "root": _node_to_json(self.root, "")})

    @classmethod
    def from_json(cls, text: str | bytes) -> Template:
        """Read a document.

        Raises
        ------
        FormatError
            If it is none.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"the metadata of the table is no JSON: {error}") from error
        version = document.get("version") if isinstance(document, Mapping) else None
        if version != VERSION:
            raise FormatError(f"the metadata of the table has the version {version!r}; this release reads {VERSION}")
        try:
            encodings = tuple(_encoding_from_json(entry) for entry in document["encodings"])
            return cls(_node_from_json(document["root"], ""), encodings)
        except VirtualChunksError:
            raise
        except _MALFORMED as error:
            raise FormatError(f"the metadata of the table is malformed: {error!r}") from error
        except RecursionError as error:
            raise FormatError("the metadata of the table is nested too deeply") from error


def encoding_key(encoding: ChunkEncoding, path: str) -> str:
    """Return text that is equal for encodings that are the same in every respect, compression levels included.

    Parameters
    ----------
    encoding
        The encoding.
    path
        The array that has it, for messages.
    """
    with _named(path):
        return json.dumps(_encoding_to_json(encoding), sort_keys=True)


def _node_of(group: ManifestGroup) -> Node:
    arrays = {name: array.metadata for name, array in group.arrays.items()}
    groups = {name: _node_of(inner) for name, inner in group.groups.items()}
    return Node(arrays, groups, group.attributes, None if group.unlimited_dims is None else {*group.unlimited_dims})


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Say of which array or group something has no form in the document."""
    try:
        yield
    except (TypeError, ValueError, UnsupportedFeatureError) as error:
        reason = error.message if isinstance(error, VirtualChunksError) else str(error)
        raise UnsupportedFeatureError(
            f"{path or '/'!r} cannot be written to a table, its metadata has no form in JSON: {reason}",
            variable=path or None,
        ) from error


def _node_to_json(node: Node, path: str) -> dict[str, Any]:
    with _named(path.rstrip("/")):
        attributes = _mapping_to_json(node.attributes)
    arrays = {name: _array_to_json(metadata, path + name) for name, metadata in node.arrays.items()}
    groups = {name: _node_to_json(inner, f"{path}{name}/") for name, inner in node.groups.items()}
    made = {"attributes": attributes, "arrays": arrays, "groups": groups}
    return made if node.unlimited_dims is None else {**made, "unlimited_dims": sorted(node.unlimited_dims)}


def _array_to_json(metadata: ArrayMetadata, path: str) -> dict[str, Any]:
    with _named(path):
        document = metadata.replace(attributes={}).to_dict()
        del document["attributes"]
        made = {
            "zarr": document,
            "attributes": _mapping_to_json(metadata.attributes),
            "encoding": _encoding_to_json(metadata.encoding),
        }
        json.dumps(made)
        return made


def _node_from_json(entry: Mapping[str, Any], path: str) -> Node:
    arrays = {name: _array_from_json(value, path + name) for name, value in entry["arrays"].items()}
    groups = {name: _node_from_json(value, f"{path}{name}/") for name, value in entry["groups"].items()}
    names = entry.get("unlimited_dims")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise FormatError(
            f"the unlimited dimensions of {path.rstrip('/') or '/'!r} in the table are no list of names: {names!r}"
        )
    return Node(arrays, groups, _mapping_from_json(entry["attributes"]), names)


def _array_from_json(entry: Mapping[str, Any], path: str) -> ArrayMetadata:
    try:
        metadata = ArrayMetadata.from_dict(entry["zarr"])
        return metadata.replace(
            attributes=_mapping_from_json(entry["attributes"]), encoding=_encoding_from_json(entry["encoding"])
        )
    except (ManifestError, *_MALFORMED) as error:
        reason = error.message if isinstance(error, VirtualChunksError) else repr(error)
        raise FormatError(f"the metadata of {path!r} in the table is malformed: {reason}", variable=path) from error


def _encoding_to_json(encoding: ChunkEncoding) -> dict[str, Any]:
    dtype, packing = encoding.dtype, encoding.packing
    made = {
        "dtype": dtype_to_json(dtype),
        "order": None if dtype.kind in "TO" else byte_order(dtype),
        "codecs": [dict(codec) for codec in encoding.codecs],
        "shape": None if encoding.shape is None else list(encoding.shape),
    }
    if encoding.start is not None:
        made["start"] = list(encoding.start)
    if packing is not None:
        made["packing"] = {
            "dtype": dtype_to_json(packing.stored),
            "attributes": _mapping_to_json(packing.attributes),
            "fill_value": _to_json(packing.fill_value),
        }
    return made


def _encoding_from_json(entry: Mapping[str, Any]) -> ChunkEncoding:
    dtype = dtype_from_json(entry["dtype"])
    if entry["order"] is not None:
        dtype = in_order(dtype, _ORDERS[entry["order"]])
    codecs = tuple(dict(codec) for codec in entry["codecs"])
    if not all(isinstance(codec.get("name"), str) for codec in codecs):
        raise FormatError("a codec in the metadata of the table has no name")
    shape = None if entry["shape"] is None else tuple(map(int, entry["shape"]))
    start = None if entry.get("start") is None else tuple(map(int, entry["start"]))
    packing = None if entry.get("packing") is None else _packing_from_json(entry["packing"])
    return ChunkEncoding(dtype, codecs, shape, packing, start)


def _packing_from_json(entry: Mapping[str, Any]) -> Packing:
    dtype = dtype_from_json(entry["dtype"])
    attributes = _mapping_from_json(entry["attributes"])
    if not attributes.keys() <= set(PACKING_ATTRIBUTES):
        raise FormatError(f"{sorted(attributes)} in the metadata of the table are not all attributes of packing")
    fill = _from_json(entry["fill_value"])
    return Packing(dtype, attributes, None if fill is None else fill_scalar(fill, dtype))


def grids(node: Node) -> dict[str, ChunkGrid]:
    """Return the chunk grid of every array, by path."""
    return {path: metadata.grid for path, metadata in node.walk_arrays()}


def _mapping_to_json(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): _to_json(value) for name, value in values.items()}


def _mapping_from_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _from_json(value) for name, value in values.items()}


def _to_json(value: Any) -> Any:
    for kinds, convert in _FORMS:
        if isinstance(value, kinds):
            return convert(value)
    raise UnsupportedFeatureError(
        f"an attribute is a {type(value).__name__}; use numbers, text, bytes, arrays, lists or dictionaries of them"
    )


def _float_to_json(value: float) -> Any:
    return value if math.isfinite(value) else {"$numpy": _numpy_to_json(np.float64(value)), "python": True}


def _numpy_to_json(value: Any) -> dict[str, Any]:
    array = np.asarray(value)
    if array.dtype.kind in "OT":
        return {"text": array.dtype.kind, "shape": list(array.shape), "items": [_to_json(item) for item in array.flat]}
    dtype = array.dtype.str if array.dtype.fields is None else array.dtype.descr
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return {"dtype": dtype, "shape": list(array.shape), "data": data, "scalar": not isinstance(value, np.ndarray)}


def _mapping_value(value: Mapping[Any, Any]) -> dict[str, Any]:
    plain = _mapping_to_json(value)
    return {"$mapping": plain} if any(name.startswith("$") for name in plain) else plain


#: From kinds of values to their JSON, in the order in which they are tried.
_FORMS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, str),
    (bytes, lambda value: {"$bytes": base64.b64encode(value).decode("ascii")}),
    ((np.generic, np.ndarray), lambda value: {"$numpy": _numpy_to_json(value)}),
    ((bool, int, type(None)), lambda value: value),
    (float, _float_to_json),
    (complex, lambda value: {"$complex": [_to_json(value.real), _to_json(value.imag)]}),
    ((list, tuple), lambda value: [_to_json(item) for item in value]),
    (Mapping, _mapping_value),
)


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    for name, read in _READERS.items():
        if name in value:
            return float(read(value[name])) if value.get("python") else read(value[name])
    return _mapping_from_json(value)


def _numpy_from_json(value: Mapping[str, Any]) -> Any:
    if "text" in value:
        dtype = np.dtypes.StringDType() if value["text"] == "T" else np.dtype(object)
        made = np.empty(len(value["items"]), dtype=dtype)
        made[:] = [_from_json(item) for item in value["items"]]
        return made.reshape(value["shape"])
    dtype = _dtype(value["dtype"])
    array = np.ndarray(tuple(value["shape"]), dtype, base64.b64decode(value["data"])).copy()
    return array[()] if value["scalar"] else array


def _dtype(entry: Any) -> np.dtype[Any]:
    fields = entry if isinstance(entry, str) else [(item[0], _dtype(item[1]), *map(tuple, item[2:])) for item in entry]
    dtype = np.dtype(fields)
    if dtype.hasobject or dtype.kind == "T":  # bytes of it would be taken for addresses
        raise FormatError(
            f"an attribute in the metadata of the table has the dtype {entry!r}, whose values are no bytes"
        )
    return cast("np.dtype[Any]", dtype)


_READERS: dict[str, Callable[[Any], Any]] = {
    "$numpy": _numpy_from_json,
    "$complex": lambda value: complex(*map(_from_json, value)),
    "$bytes": base64.b64decode,
    "$mapping": _mapping_from_json,
}
