"""Chunk grids, against zarr-python's own and against plain arithmetic."""

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from virtualchunks.errors import ManifestError
from virtualchunks.grid import Axis, ChunkGrid


@given(st.integers(0, 50), st.integers(1, 60))
def test_a_regular_axis_covers_its_length(size, chunk):
    axis = Axis(size, chunk=chunk)
    starts = range(0, size, chunk)
    assert axis.count == len(starts)
    assert axis.starts.tolist() == list(starts)
    assert axis.cells.tolist() == [min(chunk, size - start) for start in starts]
    assert [axis.cell_at(i) for i in range(axis.count)] == axis.cells.tolist()
    assert axis.overhang == axis.nominal.sum() - size
    assert all(axis.locate(i) == i // chunk for i in range(size))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.data())
def test_a_rectilinear_axis_covers_its_length(edges, data):
    size = sum(edges) - data.draw(st.integers(0, edges[-1] - 1))
    axis = Axis.from_edges(edges, size)
    owner = np.repeat(np.arange(len(edges)), edges)[:size]
    assert axis.size == size
    assert [axis.locate(i) for i in range(size)] == owner.tolist()
    assert axis.cells.tolist() == np.bincount(owner, minlength=len(edges)).tolist()
    assert axis.nominal.tolist() == edges
    assert axis.is_regular == (len(set(edges)) == 1)
    assert [axis.nominal_at(i) for i in range(axis.count)] == edges
    assert axis.overhang == sum(edges) - size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": -1, "chunk": 1}, "length -1"),
        ({"size": 3}, "either a chunk length or a list of edges"),
        ({"size": 3, "chunk": 1, "edges": (3,)}, "either a chunk length or a list of edges"),
        ({"size": 3, "chunk": 0}, "at least 1, found 0"),
        ({"size": 3, "edges": (3, 0)}, "at least 1, found 0"),
        ({"size": 9, "edges": (4, 4)}, "2 edges with the sum 8 do not cover an axis of length 9"),
        ({"size": 3, "edges": (2, 2, 2)}, "do not cover"),
    ],
)
def test_axes_that_are_none(arguments, message):
    with pytest.raises(ManifestError, match=message):
        Axis(**arguments)


def test_grids_name_cells_and_nominal_shapes():
    grid = ChunkGrid((Axis(90, edges=(31, 28, 31)), Axis(25, chunk=10)))
    assert grid.shape == (90, 25)
    assert grid.grid_shape == (3, 3)
    assert grid.size == 9
    assert grid.cell_shape((1, 2)) == (28, 5)
    assert grid.nominal_shape((1, 2)) == (28, 10)
    assert grid.cell_slices((1, 2)) == (slice(31, 59), slice(20, 25))
    assert not grid.is_regular
    with pytest.raises(ManifestError, match="axis 0 is rectilinear"):
        grid.chunk_shape  # noqa: B018
    with pytest.raises(ManifestError, match="2 dimensions against 1"):
        ChunkGrid.regular((3, 4), (2,))
    scalar = ChunkGrid(())
    assert (scalar.size, scalar.shape, scalar.chunk_shape) == (1, (), ())


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(1, 4), max_size=6)), min_size=1, max_size=3))
def test_json_is_what_zarr_reads(dimensions):
    axes = [Axis.from_edges(edges) if edges else Axis(size, chunk=4) for size, edges in dimensions]
    grid = ChunkGrid(tuple(axes))
    assert ChunkGrid.from_json(grid.shape, grid.to_json()) == grid
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(grid.shape),
        "data_type": "int8",
        "chunk_grid": grid.to_json(),
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
    }
    with zarr.config.set({"array.rectilinear_chunks": True}):
        metadata = zarr.core.metadata.v3.ArrayV3Metadata.from_dict(document)
    theirs = metadata.chunk_grid.to_dict()
    assert ChunkGrid.from_json(grid.shape, _plain(theirs)) == grid


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def test_edges_beyond_the_array_are_dropped_and_unknown_grids_named():
    member = {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": [[3, [2, 3]]]}}
    assert ChunkGrid.from_json((4,), member).axes[0] == Axis(4, edges=(3, 2))
    with pytest.raises(ManifestError, match="unknown chunk grid"):
        ChunkGrid.from_json((4,), {"name": "hexagonal"})
    with pytest.raises(ManifestError, match="1 lists of edges for 2"):
        ChunkGrid.from_json((4, 4), member)
