"""DMR++: the XML in which OPeNDAP's servers and clients keep references, in the words of DAP4.

:mod:`~virtualchunks.writers.dmrpp.write` writes a document, :mod:`~virtualchunks.writers.dmrpp.plan` says what is in
it, and refuses what it cannot hold; :mod:`~virtualchunks.writers.dmrpp.storage` says where values are,
:mod:`~virtualchunks.writers.dmrpp.attributes` and :mod:`~virtualchunks.writers.dmrpp.dimensions` what surrounds them,
and :mod:`~virtualchunks.writers.dmrpp.elements` is the XML.
"""

from virtualchunks.writers.dmrpp.write import write_dmrpp

__all__ = ["write_dmrpp"]
