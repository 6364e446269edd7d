"""Parsers: one module or package per format."""
