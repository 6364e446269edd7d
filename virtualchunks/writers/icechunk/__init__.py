"""Icechunk: references in a versioned repository of Zarr data."""

from virtualchunks.writers.icechunk.commits import commit, write_many
from virtualchunks.writers.icechunk.containers import required_containers
from virtualchunks.writers.icechunk.presence import already_present
from virtualchunks.writers.icechunk.write import write_icechunk

__all__ = ["already_present", "commit", "required_containers", "write_icechunk", "write_many"]
