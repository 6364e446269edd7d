"""References as tables: one row per chunk, as Arrow, Parquet, Lance and Iceberg, read back without loss."""

from virtualchunks.writers.tables.columns import to_arrow
from virtualchunks.writers.tables.iceberg import from_iceberg, to_iceberg
from virtualchunks.writers.tables.lance import from_lance, to_lance
from virtualchunks.writers.tables.parquet import from_parquet, to_parquet
from virtualchunks.writers.tables.reading import from_arrow

__all__ = [
    "from_arrow",
    "from_iceberg",
    "from_lance",
    "from_parquet",
    "to_arrow",
    "to_iceberg",
    "to_lance",
    "to_parquet",
]
