"""DMR++ documents → virtual chunks.

A DMR++ is the XML description of a data file (HDF5 or HDF4, mostly) with the place of every chunk in it.
:class:`DMRPPParser` reads the document and returns references into the data file, of which it asks for at
most the stamp. :mod:`~virtualchunks_parsers.dmrpp.document` reads the XML,
:mod:`~virtualchunks_parsers.dmrpp.variables` says what the variables are,
:mod:`~virtualchunks_parsers.dmrpp.storage` where their chunks are, and :mod:`~virtualchunks_parsers.dmrpp.inline` reads
values that the document itself holds; :mod:`~virtualchunks_parsers.dmrpp.datafiles` finds the data files that it names.
"""

from virtualchunks_parsers.dmrpp.parser import DMRPPParser

__all__ = ["DMRPPParser"]
