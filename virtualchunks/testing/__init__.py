"""Strategies and oracles for testing code that makes or takes ManifestArrays. Needs hypothesis."""

from virtualchunks.testing.arrays import addresses, manifest_arrays

__all__ = ["addresses", "manifest_arrays"]
