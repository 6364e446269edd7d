"""NetCDF-3 files → virtual chunks.

:class:`NetCDF3Parser` reads the header of a file, usually in one request, and returns references to its values.
:mod:`~virtualchunks_parsers.netcdf3.header` reads what the header says, :mod:`~virtualchunks_parsers.netcdf3.layout`
works out where the values lie, :mod:`~virtualchunks_parsers.netcdf3.parser` makes arrays of that.
"""

from virtualchunks_parsers.netcdf3.parser import NetCDF3Parser

__all__ = ["NetCDF3Parser"]
