"""Writing Kerchunk references in whichever form is asked for, from xarray's objects and from trees of references."""

from __future__ import annotations

import os
from typing import Any, Literal

from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.writers.datasets import as_group
from virtualchunks.writers.kerchunk.json import Compression, write_json
from virtualchunks.writers.kerchunk.parquet import write_parquet
from virtualchunks.writers.kerchunk.references import ZarrFormat, to_references
from virtualchunks.writers.targets import WriteMode

Format = Literal["dict", "json", "parquet"]


def write_kerchunk(
    tree: Any,
    filepath: str | os.PathLike[str] | None = None,
    format: Format = "dict",
    record_size: int = 100_000,
    categorical_threshold: int = 10,
    *,
    zarr_format: ZarrFormat = 2,
    registry: Any = None,
    store: Any = None,
    compression: Compression | None = None,
    mode: WriteMode = "w",
    write_inherited_coords: bool = False,
) -> dict[str, Any] | None:
    """Write a tree as Kerchunk references, or return them.

    Parameters
    ----------
    tree
        A ManifestGroup, or an xarray Dataset or DataTree.
    filepath
        Where to write; not for ``"dict"``.
    format
        ``"dict"`` returns the references, ``"json"`` writes a file and ``"parquet"`` a folder.
    record_size, categorical_threshold
        As for :func:`write_parquet`.
    zarr_format
        As for :func:`to_references`; Parquet holds 2 only.
    registry, store, compression, mode
        As for :func:`write_json`.
    write_inherited_coords
        Whether groups of a DataTree repeat the coordinates that they inherit.

    Returns
    -------
    dict or None
        The references for ``format="dict"``.

    Raises
    ------
    UnsupportedFeatureError, LimitExceededError
        If an array cannot be written, or the arguments contradict each other. Nothing is written then.
    TargetExistsError
        If the target is there and may not be replaced.
    WriteError
        If the target cannot be written; what was there before is untouched.

    Examples
    --------
    >>> from virtualchunks import ManifestGroup
    >>> write_kerchunk(ManifestGroup())["version"]
    1
    """
    if format not in ("dict", "json", "parquet"):
        raise UnsupportedFeatureError(f"unknown format {format!r}; known are 'dict', 'json' and 'parquet'")
    if format != "dict" and filepath is None:
        raise UnsupportedFeatureError(f"format={format!r} needs a filepath to write to")
    if format == "parquet" and (zarr_format != 2 or compression is not None):
        raise UnsupportedFeatureError(
            "fsspec reads Zarr v2 metadata only from Parquet, and Parquet compresses by itself: leave zarr_format and "
            "compression out, or write JSON"
        )
    group = as_group(tree, inherit=write_inherited_coords)
    if filepath is None or format == "dict":
        return to_references(group, zarr_format=zarr_format)
    target: dict[str, Any] = {"registry": registry, "store": store, "mode": mode}
    if format == "json":
        write_json(group, filepath, compression=compression, zarr_format=zarr_format, **target)
    else:
        write_parquet(group, filepath, record_size, categorical_threshold, **target)
    return None
