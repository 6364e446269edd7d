"""xarray: opening files as virtual Datasets, the ``.virtual`` accessor, and the engine ``"virtualchunks"``."""

from virtualchunks.xarray.dataset import group_to_dataset, group_to_datatree
from virtualchunks.xarray.many import open_virtual_mfdataset
from virtualchunks.xarray.opening import open_store, open_virtual_dataset, open_virtual_datatree

__all__ = [
    "group_to_dataset",
    "group_to_datatree",
    "open_store",
    "open_virtual_dataset",
    "open_virtual_datatree",
    "open_virtual_mfdataset",
]
