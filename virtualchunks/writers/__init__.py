"""Writers: trees of chunk references as files and stores that other software reads.

Each writer takes a :class:`~virtualchunks.group.ManifestGroup`, or an xarray Dataset or DataTree whose variables hold
references or values. xarray is imported only where one of its objects is given.
"""
