"""Writers: trees of chunk references as files and stores that other software reads.

Each writer takes a :class:`~virtualchunks.group.ManifestGroup`, or an xarray Dataset or DataTree whose variables hold
references or values. xarray is imported only where one of its objects is given.
"""

from __future__ import annotations

_KERCHUNK = {
    "regular chunk grids": "yes",
    "scalars and zero-length arrays": "yes",
    "missing chunks": "yes; in version 2, as chunks of the fill value where that would mask",
    "fill values of every dtype": "yes",
    "chunks in memory": "yes, as inline base64",
    "nested groups": "yes",
    "mixed encodings in one array": "no",
    "text of any length": "yes",
    "unlimited dimensions": "not kept",
    "named roots": "yes, as templates",
    "appending": "whole arrays, with `mode='a'`",
    "stamps come back": "not kept",
    "notices changed sources": "no",
}
_TABLE = {
    "Zarr metadata": "version 3, beside the rows",
    "rectilinear chunk grids": "yes",
    "regular chunk grids": "yes",
    "scalars and zero-length arrays": "yes",
    "missing chunks": "yes, as rows that are not there",
    "fill values of every dtype": "yes",
    "chunks in memory": "yes, as a column of bytes",
    "nested groups": "yes",
    "mixed encodings in one array": "yes",
    "text of any length": "yes",
    "unlimited dimensions": "yes",
    "named roots": "yes",
    "appending": "no",
    "stamps come back": "yes",
    "notices changed sources": "every stamp, when read back",
}
#: What each written form holds, for the page of formats; tests/writers/test_forms.py holds it to that.
FORMS: dict[str, dict[str, str]] = {
    "Kerchunk JSON, `dict`": {
        "Zarr metadata": "version 2, or 3 with `zarr_format=3`",
        "rectilinear chunk grids": "with `zarr_format=3`",
        **_KERCHUNK,
    },
    "Kerchunk Parquet": {
        "Zarr metadata": "version 2",
        "rectilinear chunk grids": "no",
        **_KERCHUNK,
        "missing chunks": "yes, as chunks of the fill value where that would mask",
        "appending": "`append_dim`, along the slowest dimension, as new files; whole arrays, with `mode='a'`",
        "named roots": "no",
        "nested groups": "yes; readers must pass `remote_protocol`",
    },
    "DMR++": {
        "Zarr metadata": "none: DAP4 has names of its own",
        "rectilinear chunk grids": "no",
        "regular chunk grids": "yes",
        "scalars and zero-length arrays": "yes",
        "missing chunks": "yes",
        "fill values of every dtype": "of those that DAP4 has: integers, floats of 4 and 8 bytes, text of fixed length",
        "chunks in memory": "with all chunks of the array in memory",
        "nested groups": "yes",
        "mixed encodings in one array": "no",
        "text of any length": "yes, in memory",
        "unlimited dimensions": "not kept",
        "named roots": "no",
        "appending": "no",
        "stamps come back": "not kept",
        "notices changed sources": "no",
    },
    "Icechunk": {
        "Zarr metadata": "version 3",
        "rectilinear chunk grids": "yes",
        "regular chunk grids": "yes",
        "scalars and zero-length arrays": "yes",
        "missing chunks": "yes",
        "fill values of every dtype": "yes",
        "chunks in memory": "yes, as native chunks",
        "nested groups": "yes",
        "mixed encodings in one array": "no",
        "text of any length": "yes",
        "unlimited dimensions": "not kept",
        "named roots": "no",
        "stamps come back": "not kept",
        "appending": "`append_dim`, `region`, by labels also before the first and between others; "
        "whole arrays, with `mode='a'`",
        "notices changed sources": "ETag, or time of last modification, for each object, where its store allows",
    },
    "Arrow table, Parquet": _TABLE,
    "Lance": {**_TABLE, "named roots": "no", "appending": "`append_dim`, as a version"},
    "Iceberg": {**_TABLE, "appending": "`append_dim`, as a snapshot"},
}
