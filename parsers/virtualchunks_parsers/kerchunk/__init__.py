"""Kerchunk references: JSON documents, Parquet folders, dictionaries."""

from virtualchunks_parsers.kerchunk.parser import KerchunkParser

#: The names of the same parser elsewhere.
KerchunkJSONParser = KerchunkParser
KerchunkParquetParser = KerchunkParser

__all__ = ["KerchunkJSONParser", "KerchunkParquetParser", "KerchunkParser"]
