"""Templates from shapes: a mapping of names to what each array is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from virtualchunks.errors import ManifestError
from virtualchunks.metadata import ArrayMetadata
from virtualchunks.templates.template import Template

#: What a description of an array may say, in the order of a tuple.
FIELDS = ("dims", "shape", "chunks", "dtype", "codecs", "attrs", "fill_value")


def template_of_shapes(shapes: Mapping[str, Any], coords: Mapping[str, Any] | None = None) -> Template:
    """Return the template of arrays that are described.

    Parameters
    ----------
    shapes
        For each name a mapping, or a tuple in this order, of ``dims``, ``shape`` (``None`` where all dimensions have
        labels), ``chunks`` (by default one), ``dtype``, ``codecs`` (Zarr v3 codecs; by default plain bytes), ``attrs``
        and ``fill_value`` (by default the attribute ``_FillValue``, else NaN or 0); or an
        :class:`~virtualchunks.ArrayMetadata`.
    coords
        Labels by dimension.

    Raises
    ------
    ManifestError
        If a description lacks something, or says something else.

    Examples
    --------
    >>> shapes = {"air": {"dims": ("time", "x"), "shape": (2, 3), "chunks": (1, 3), "dtype": "<f4"}}
    >>> template_of_shapes(shapes, {"time": [10, 20]})
    <Template air(2, 3); labels along time>
    """
    labels = {name: np.asarray(values) for name, values in (coords or {}).items()}
    for name, values in labels.items():
        if values.ndim != 1:
            raise ManifestError(f"labels along {name!r} have one dimension, found the shape {values.shape}")
    plain = {name: values.astype(object) if values.dtype.kind == "T" else values for name, values in labels.items()}
    return Template({name: _metadata(name, given, plain) for name, given in shapes.items()}, plain)


def _metadata(name: str, given: Any, labels: Mapping[str, Any]) -> ArrayMetadata:
    if isinstance(given, ArrayMetadata):
        return given
    facts = dict(given) if isinstance(given, Mapping) else dict(zip(FIELDS, given, strict=False))
    unknown = [key for key in facts if key not in FIELDS]
    lacking = [key for key in ("dims", "dtype") if facts.get(key) is None]
    if unknown or lacking:
        raise ManifestError(f"{name!r} is described by {list(facts)}; expected {', '.join(FIELDS)}", variable=name)
    dims = (facts["dims"],) if isinstance(facts["dims"], str) else tuple(facts["dims"])
    shape = facts.get("shape")
    if shape is None:
        unlabelled = [dim for dim in dims if dim not in labels]
        if unlabelled:
            raise ManifestError(f"{name!r} has no shape, and there are no labels along {unlabelled}", variable=name)
        shape = tuple(len(labels[dim]) for dim in dims)
    chunks: Sequence[int] | None = facts.get("chunks")
    given_fill, attributes = facts.get("fill_value"), facts.get("attrs") or {}
    return ArrayMetadata.build(
        shape=shape,
        chunks=tuple(max(1, size) for size in shape) if chunks is None else chunks,
        dtype=facts["dtype"],
        codecs=facts.get("codecs"),
        fill_value=given_fill if given_fill is not None else missing_value(attributes, np.dtype(facts["dtype"]), None),
        dimension_names=dims,
        attributes=attributes,
    )


def missing_value(attributes: Mapping[str, Any], dtype: np.dtype[Any], otherwise: Any) -> Any:
    """Return what a chunk that no row fills reads as: what the attributes call missing, else NaN where there is one.

    Parameters
    ----------
    attributes, dtype
        Of the array.
    otherwise
        For dtypes that have no NaN.

    Examples
    --------
    >>> missing_value({"_FillValue": -1}, np.dtype("i2"), 0), missing_value({}, np.dtype("i2"), 0)
    (-1, 0)
    """
    for name in ("_FillValue", "missing_value"):
        value = np.asarray(attributes.get(name, "none"))
        if value.ndim == 0 and value.dtype.kind in "biufc" and dtype.kind in "biufc":
            with np.errstate(all="ignore"):
                exact = value.astype(dtype)
            if exact == value or value != value:
                return exact.item()
    return np.nan if dtype.kind in "fc" else otherwise
