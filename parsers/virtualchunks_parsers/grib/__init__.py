"""GRIB files, editions 1 and 2 → virtual chunks.

:class:`GRIBParser` steps from message to message and reads their headers only. Which module does what, in the order of
reading: :mod:`~virtualchunks_parsers.grib.scan` finds messages, :mod:`~virtualchunks_parsers.grib.fields` says what
they are, :mod:`~virtualchunks_parsers.grib.geography` where their values are,
:mod:`~virtualchunks_parsers.grib.attributes` what describes them, and :mod:`~virtualchunks_parsers.grib.cubes` puts
them together. The names of parameters, levels and grids come from ecCodes, which is given each message's headers with
a constant in place of the values.
"""

from virtualchunks_parsers.grib.parser import GRIBParser

__all__ = ["GRIBParser"]
