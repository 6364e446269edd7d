"""HDF5 files, read as their specification describes them: bytes → structures, in Python and NumPy.

What is read here is metadata, and nothing of it through the HDF5 library: a damaged structure is an error of ours and
can neither stop nor crash the process. Forms that are rare enough not to be read raise
:class:`~virtualchunks_parsers.hdf5.format.content.Unhandled`; the file is then read through the library.

In the order of reading: :mod:`~virtualchunks_parsers.hdf5.format.content` has the bytes,
:mod:`~virtualchunks_parsers.hdf5.format.superblock` says where they begin,
:mod:`~virtualchunks_parsers.hdf5.format.headers` cuts object headers into messages,
:mod:`~virtualchunks_parsers.hdf5.format.groups` lists links, :mod:`~virtualchunks_parsers.hdf5.format.heaps` and
:mod:`~virtualchunks_parsers.hdf5.format.btrees` are what large groups and indexes are made of, and
:mod:`~virtualchunks_parsers.hdf5.format.chunks` turns the indexes of chunks into columns.

References
----------
HDF5 File Format Specification, version 3.0.
"""
