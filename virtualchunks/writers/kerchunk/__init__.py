"""Kerchunk references, readable by fsspec's reference file system: as a dictionary, as JSON, as Parquet."""

from virtualchunks.writers.kerchunk.json import write_json
from virtualchunks.writers.kerchunk.parquet import write_parquet
from virtualchunks.writers.kerchunk.references import to_references
from virtualchunks.writers.kerchunk.write import write_kerchunk

__all__ = ["to_references", "write_json", "write_kerchunk", "write_parquet"]
