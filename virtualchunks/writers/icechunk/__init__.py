"""Icechunk: references in a versioned repository of Zarr data."""

from virtualchunks.writers.icechunk.containers import required_containers
from virtualchunks.writers.icechunk.write import write_icechunk

__all__ = ["required_containers", "write_icechunk"]
