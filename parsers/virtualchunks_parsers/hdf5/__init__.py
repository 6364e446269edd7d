"""HDF5 and NetCDF-4 files → virtual chunks.

:class:`HDF5Parser` reads a file's metadata, whole and once, and returns references to its chunks. Which module does
what, in the order of reading: :mod:`~virtualchunks_parsers.hdf5.file` opens, :mod:`~virtualchunks_parsers.hdf5.walk`
finds groups and datasets, :mod:`~virtualchunks_parsers.hdf5.attributes` and
:mod:`~virtualchunks_parsers.hdf5.datatypes` say what they are, :mod:`~virtualchunks_parsers.hdf5.filters` how their
bytes decode, :mod:`~virtualchunks_parsers.hdf5.storage` (:mod:`~virtualchunks_parsers.hdf5.virtual`,
:mod:`~virtualchunks_parsers.hdf5.inmemory`) where the bytes are, and :mod:`~virtualchunks_parsers.hdf5.dimensions`
what the dimensions are called.

The facts come from the structures of the file itself (:mod:`~virtualchunks_parsers.hdf5.structures`, over the modules
of :mod:`~virtualchunks_parsers.hdf5.format`), and from the HDF5 library where a form is too rare to be read here
(:mod:`~virtualchunks_parsers.hdf5.library`); :mod:`~virtualchunks_parsers.hdf5.objects` says what is asked of both.
"""

from virtualchunks_parsers.hdf5.parser import HDF5Parser

#: Another name of :class:`HDF5Parser`.
HDFParser = HDF5Parser

__all__ = ["HDF5Parser", "HDFParser"]
