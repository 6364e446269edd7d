"""Templates: cubes that are known beforehand, filled with references from an index instead of parsed from files."""

from virtualchunks.templates.shapes import template_of_shapes
from virtualchunks.templates.template import Template

__all__ = ["Template", "template_of_shapes"]
