"""Writing Kerchunk references in whichever form is asked for, from xarray's objects and from trees of references."""

from __future__ import annotations

import os
from typing import Any, Literal

from virtualchunks.errors import UnsupportedFeatureError
from virtualchunks.writers.datasets import as_group
from virtualchunks.writers.homogenising import Heterogeneous
from virtualchunks.writers.kerchunk.json import Compression, write_json
from virtualchunks.writers.kerchunk.modes import KerchunkMode, resolved_mode
from virtualchunks.writers.kerchunk.parquet import write_parquet
from virtualchunks.writers.kerchunk.references import ZarrFormat, to_references
from virtualchunks.writers.kerchunk.stored import StoredReferences
from virtualchunks.writers.targets import target_of

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
    compression: Compression | None = "infer",
    mode: KerchunkMode | None = None,
    append_dim: str | None = None,
    write_inherited_coords: bool = False,
    heterogeneous: Heterogeneous = "error",
    sources: Any = None,
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
    registry, store, compression
        As for :func:`write_json`.
    mode
        ``"w"`` (the default) replaces what is there, ``"w-"`` refuses to, ``"a"`` adds arrays to it and replaces those
        of the same path.
    append_dim
        As for :func:`write_parquet`, which alone can append. Loaded variables are encoded as the stored ones are.
    write_inherited_coords
        Whether groups of a DataTree repeat the coordinates that they inherit.
    heterogeneous
        As for :func:`to_references`: ``"error"``, ``"materialise"`` or ``"split"``.
    sources
        What may be read for that; by default what `registry` grants.

    Returns
    -------
    dict or None
        The references for ``format="dict"``.

    Raises
    ------
    UnsupportedFeatureError, LimitExceededError
        If an array cannot be written, or the arguments contradict each other. Nothing is written then.
    CombineError
        If an array does not continue the stored one.
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
    if append_dim is not None and format != "parquet":
        raise UnsupportedFeatureError(
            f"append_dim= adds to references in Parquet: format={format!r} holds them in one piece. Write Parquet, or "
            "concatenate with the references opened again"
        )
    if format == "parquet" and (zarr_format != 2 or compression not in (None, "infer")):
        raise UnsupportedFeatureError(
            "fsspec reads Zarr v2 metadata only from Parquet, and Parquet compresses by itself: leave zarr_format and "
            "compression out, or write JSON"
        )
    target: dict[str, Any] = {"registry": registry, "store": store}
    encodings = {}
    if filepath is not None and append_dim is not None:
        stored = StoredReferences.of(target_of(filepath, **target))
        encodings = {} if stored is None else stored.encodings()
    group = as_group(tree, encodings, inherit=write_inherited_coords)
    granted = registry if sources is None else sources
    if filepath is None or format == "dict":
        return to_references(group, zarr_format=zarr_format, heterogeneous=heterogeneous, registry=granted)
    options = {**target, "heterogeneous": heterogeneous, "sources": granted}
    if format == "json":
        chosen = resolved_mode(mode)
        write_json(group, filepath, compression=compression, zarr_format=zarr_format, mode=chosen, **options)
    else:
        write_parquet(group, filepath, record_size, categorical_threshold, mode=mode, append_dim=append_dim, **options)
    return None
