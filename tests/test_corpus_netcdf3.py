"""The NetCDF-3 parser over a folder of real files, array by array against the netCDF library."""

from __future__ import annotations

import warnings
from pathlib import Path

import corpusscore
import netCDF4
import numpy as np
from netcdfreader import netcdf_values

from virtualchunks.reading.values import read_values
from virtualchunks.registry import ObjectStoreRegistry
from virtualchunks_parsers.netcdf3 import NetCDF3Parser


@corpusscore.each(corpusscore.files("netcdf3"))
def test_every_array_and_attribute_is_exact(path: Path) -> None:
    registry = ObjectStoreRegistry().grant(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = NetCDF3Parser(strict=True).parse(str(path), registry)
    expected = netcdf_values(path)
    assert list(group.arrays) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(read_values(group.arrays[name], registry), values, err_msg=name, strict=True)
    with netCDF4.Dataset(path) as dataset:
        assert_attributes(group.attributes, dataset)
        for name, variable in dataset.variables.items():
            assert group.arrays[name].metadata.dimension_names == variable.dimensions
            assert_attributes(group.arrays[name].metadata.attributes, variable)


def assert_attributes(found, owner) -> None:
    assert list(found) == owner.ncattrs()
    for name, value in found.items():
        expected = owner.getncattr(name)
        if "�" not in str(expected):  # text that is not UTF-8, which we read as Latin-1
            np.testing.assert_array_equal(np.asarray(value), np.asarray(expected), err_msg=name)
